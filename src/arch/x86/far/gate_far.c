// SPDX-License-Identifier: MIT
/*
 * Far gates: sites in segments, bound by the general protection fault of a far call to a null selector.
 *
 * I1  A site is unbound, or leads where its gate does: to the provider, or without one to the stub of its segment that sets
 *     the carry flag. Any other text is refused, and nothing is changed.
 * I2  A site never becomes unbound again. So to fetch the unbound form late is harmless: it faults, and what has no
 *     unbound text any more is executed again. That is what lets a near site, of three instructions, be bound under
 *     running threads: see XP__CHANGE one_way.
 * I3  Under the text lock one thread finds a site unbound; all others execute it again.
 * I4  A fault is ours if its segment is known, its site is in the table, and it is the fault of a null selector: error code
 *     0. It is a fetch of the unbound form, which this thread's return from the handler ends. So the same fault of the
 *     same thread at the same site, with no site bound anywhere in between, is genuine (a provider beyond a limit).
 *
 * Ordering. (G5) a gate's new target is written beside the old one, then the version raised that tells which counts; (G6)
 * reads both again if the version changed meanwhile. Only code that may not take the text lock needs it: a signal handler in
 * the middle of a commit.
 */
#include "arch/arch.h"
#include "arch/x86/emulate.h"
#include "core/batch.h"
#include "core/commit.h"
#include "core/deps.h"
#include "kinds/fault.h"
#include "core/inject.h"
#include "core/object.h"
#include "core/trap.h"
#include "core/state.h"

#include <crosspatch/gate_far.h>

enum {
	LEN_MAX = 8,
	NEAR_AT = 2, /* in a near site: where the call stands behind nop or prefix, and push cs */
	FLAG_CARRY = 1,
};

static struct xp__faults faults;
static struct xp_gate_far *gates;
static uint32_t bound; /* how many sites were ever bound by their fault: changes what (I4) remembers */

struct form {
	uint8_t len;
	uint8_t prefix; /* 66, or 0 */
	uint8_t width;  /* bytes of a slot of the frame, and of the offset */
	uint8_t null;   /* the selector of the unbound form */
};

static const struct form forms[] = {
	[XP_FAR_16_16] = {5, 0, 2, 1},
	[XP_FAR_16_32] = {8, 0x66, 4, 1},
	[XP_FAR_32_32] = {7, 0, 4, 2},
};

/* Where a site goes. */
struct target {
	uint16_t selector;
	uint32_t offset;
};

static struct xp_gate_far *far_gate_of(const struct xp__request *request)
{
	return (struct xp_gate_far *)request->object;
}

static struct target far_target_of(const struct xp_gate_far *gate)
{
	struct target to;
	uint32_t version;

	do {
		/* ordering: (G6) pairs with (G5) */
		version = __atomic_load_n(&gate->version, __ATOMIC_ACQUIRE);
		to.selector = __atomic_load_n(&gate->to[version & 1].selector, __ATOMIC_ACQUIRE);
		to.offset = __atomic_load_n(&gate->to[version & 1].offset, __ATOMIC_ACQUIRE);
		/* ordering: (G6) pairs with (G5) */
	} while (__atomic_load_n(&gate->version, __ATOMIC_RELAXED) != version);
	return to;
}

static struct xp_gate_far *gate_at(const struct xp_far_site *site)
{
	return (struct xp_gate_far *)xp__site_object(&site->gate);
}

static const struct xp_far_segment *segment_of(const struct xp_far_site *site)
{
	return (const struct xp_far_segment *)xp__relative(&site->segment);
}

static const struct form *form_of(const struct xp_far_site *site)
{
	return &forms[site->form & ~XP_FAR_NEAR];
}

static bool is_near(const struct xp_far_site *site)
{
	return site->form & XP_FAR_NEAR;
}

/* ---- the bytes of a site ---- */

static void far_put(uint8_t *at, uint32_t value, unsigned size)
{
	for (unsigned i = 0; i < size; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static void far_call(uint8_t *bytes, const struct form *form, uint16_t selector, uint32_t offset)
{
	if (form->prefix)
		*bytes++ = form->prefix;
	*bytes++ = 0x9a;
	far_put(bytes, offset, form->width);
	far_put(bytes + form->width, selector, 2);
}

static void unbound_form(uint8_t *bytes, const struct xp_far_site *site)
{
	far_call(bytes, form_of(site), form_of(site)->null, site->number);
}

static uint32_t offset_behind(const struct xp_far_site *site)
{
	return (uint32_t)(xp__relative(&site->code) - segment_of(site)->base) + form_of(site)->len;
}

static void bound_form(uint8_t *bytes, const struct xp_far_site *site, const struct target *to)
{
	const struct form *form = form_of(site);

	if (!is_near(site)) {
		far_call(bytes, form, to->selector, to->offset);
		return;
	}
	/* push %cs; call: in 16-bit code with 32-bit frame 66 before each of them, and no nop */
	bytes[0] = form->prefix ? form->prefix : 0x90;
	bytes[1] = 0x0e;
	bytes[2] = form->prefix ? form->prefix : 0xe8;
	bytes[3] = 0xe8;
	far_put(bytes + (form->prefix ? 4 : 3), to->offset - offset_behind(site), form->width);
}

/* The instruction that a bystander executes if it meets a breakpoint at byte @at. */
static struct xp__insn insn_of(const struct xp_far_site *site, const struct target *to, unsigned at)
{
	struct xp__insn insn = {.kind = at ? XP__INSN_NEAR_CALL : XP__INSN_FAR_CALL};

	insn.len = (uint8_t)(form_of(site)->len - at);
	insn.width = form_of(site)->width;
	insn.imm = (int64_t)((uint64_t)to->selector << 32 | to->offset);
	return insn;
}

/* ---- validation ---- */

static int fail_record(const struct xp_far_site *site, int error, const char *detail, struct xp_diag *diag)
{
	if (diag)
		diag->key = gate_at(site)->object.name;
	return xp__fail(diag, error, XP_PHASE_VALIDATE, (const void *)xp__relative(&site->code), detail);
}

static int far_check(const struct xp_far_site *site, struct xp_diag *diag)
{
	const struct xp_far_segment *segment = segment_of(site);
	uint32_t offset = (uint32_t)(xp__relative(&site->code) - segment->base);
	unsigned kind = site->form & ~XP_FAR_NEAR;

	if (kind > XP_FAR_32_32 || site->zero != 0)
		return fail_record(site, -XP_E_CORRUPT, "a far site of no form", diag);
	if (segment->bits != (kind == XP_FAR_32_32 ? 32 : 16))
		return fail_record(site, -XP_E_CORRUPT, "a far site in a segment of other code", diag);
	if (offset > segment->limit || segment->limit - offset < form_of(site)->len - 1u)
		return fail_record(site, -XP_E_CORRUPT, "a far site beyond the limit of its segment", diag);
	return 0;
}

/* Where the site goes when its gate leads to @selector. */
static int aim(const struct xp_far_site *site, uint16_t selector, uint32_t offset, struct target *to,
	       struct xp_diag *diag)
{
	const struct xp_far_segment *segment = segment_of(site);

	*to = (struct target){selector, offset};
	if (selector == 0) {
		*to = (struct target){segment->selector, form_of(site)->width == 2 ? segment->fail16 : segment->fail32};
		if (to->offset == 0)
			return fail_record(site, -XP_E_NO_PROVIDER, "its segment has no stub that fails", diag);
	}
	if (is_near(site) && to->selector != segment->selector)
		return fail_record(site, -XP_E_RANGE, "a near site, and a provider in another segment", diag);
	if (form_of(site)->width == 2 && to->offset > 0xffff)
		return fail_record(site, -XP_E_RANGE, "an offset of more than 16 bits", diag);
	return 0;
}

/* ---- the kind ---- */

static int add_site(const struct xp__request *request, const struct xp_far_site *site, struct xp__commit *commit,
		    size_t first, struct xp_diag *diag)
{
	const uint8_t *text = (const uint8_t *)xp__relative(&site->code);
	uint8_t unbound[LEN_MAX], old[LEN_MAX], new[LEN_MAX];
	const unsigned len = form_of(site)->len;
	struct target before, after;
	struct xp__insn insn;
	struct xp__change change = {
		.addr = (uintptr_t)text, .old = old, .new = new, .resume = XP_RESUME_EMULATE, .as = &insn};
	bool is_unbound;
	unsigned at;
	int error;

	if (!xp__commit_readable(commit, (uintptr_t)text, len))
		return xp__fail_unreadable(diag, (uintptr_t)text);
	error = far_check(site, diag);
	if (error)
		return error;
	unbound_form(unbound, site);
	is_unbound = memcmp(text, unbound, len) == 0;
	if (is_unbound && !request->far.bind)
		return 0;
	error = aim(site, request->far.selector, request->far.offset, &after, diag);
	if (error)
		return error;
	bound_form(new, site, &after);
	if (is_unbound) {
		memcpy(old, unbound, len);
	} else {
		before = far_target_of(far_gate_of(request));
		error = aim(site, before.selector, before.offset, &before, diag);
		if (error)
			return error;
		bound_form(old, site, &before);
		if (memcmp(text, old, len) != 0)
			return xp__fail_site(diag, request->object, (uintptr_t)text, old, len);
	}
	if (memcmp(old, new, len) == 0)
		return 0;
	/* Of a near site that is bound only the call changes: its own instruction. */
	at = is_near(site) && !is_unbound ? NEAR_AT : 0;
	change.addr += at;
	change.old += at;
	change.new += at;
	change.len = change.known = (uint8_t)(len - at);
	change.one_way = is_near(site) && is_unbound;
	insn = insn_of(site, &after, at);
	return xp__commit_change(commit, &change, first, diag);
}

static const struct xp_far_site *far_site_of(const struct xp__group *group, uint32_t i)
{
	return (const struct xp_far_site *)group->records + group->numbers[i];
}

static void far_count(const struct xp__request *request, const struct xp__group *group, struct xp__size *size)
{
	size->sites += request->far.site ? 1 : group->nr;
	size->plans += request->far.site ? 1 : group->nr;
}

static int far_emit(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		    struct xp_diag *diag)
{
	size_t first = commit->nr_plans;
	int error = 0;

	for (uint32_t i = 0; i < group->nr && !error; i++) {
		const struct xp_far_site *site = far_site_of(group, i);

		if (segment_of(site)->added && (request->far.site == NULL || request->far.site == site))
			error = add_site(request, site, commit, first, diag);
	}
	return error;
}

static int far_begin(struct xp__request *request)
{
	struct target now = far_target_of(far_gate_of(request));
	bool has = now.selector != 0;

	if (request->far.op == XP__GATE_SET) {
		request->skip = now.selector == request->far.selector && now.offset == request->far.offset;
		return 0;
	}
	if (request->far.op == XP__GATE_PROVIDE && has)
		return -XP_E_PROVIDED;
	return request->far.op != XP__GATE_PROVIDE && !has ? -XP_E_NO_PROVIDER : 0;
}

static void far_end(struct xp__request *request, bool done)
{
	struct xp_gate_far *gate = far_gate_of(request);
	uint32_t next = gate->version + 1;

	if (!done)
		return;
	__atomic_store_n(&gate->to[next & 1].selector, request->far.selector, __ATOMIC_RELAXED);
	__atomic_store_n(&gate->to[next & 1].offset, request->far.offset, __ATOMIC_RELAXED);
	/* ordering: (G5) pairs with (G6) */
	__atomic_store_n(&gate->version, next, __ATOMIC_RELEASE);
	xp__faults_ended(&gate->faults);
}

static void far_get_state(struct xp__request *request)
{
	struct target to = far_target_of(far_gate_of(request));

	request->far.selector = to.selector;
	request->far.offset = to.offset;
}

/* ---- faults ---- */

static bool is_unbound(const struct xp_far_site *site)
{
	const volatile uint8_t *text = (const volatile uint8_t *)xp__relative(&site->code);
	uint8_t bytes[LEN_MAX];
	bool same = true;

	unbound_form(bytes, site);
	for (unsigned i = 0; i < form_of(site)->len; i++)
		same = same && text[i] == bytes[i];
	return same;
}

/* As if the site were bound. Without a provider, or one that the site cannot call: as if the stub had been called. */
static void finish_call(const struct xp_far_site *site, struct xp_regs *regs)
{
	struct target to = far_target_of(gate_at(site));
	uint32_t len = form_of(site)->len;
	struct xp__insn insn;

	if (to.selector && aim(site, to.selector, to.offset, &to, NULL) == 0) {
		insn = insn_of(site, &to, 0);
		xp__emulate(&insn, (uintptr_t)regs->ip, (uintptr_t)regs->ip + len, regs);
	} else {
		regs->flags |= FLAG_CARRY;
		regs->ip += len;
	}
}

/* A site that was unbound when it was looked at. */
static enum xp_trap_verdict far_bind(const struct xp_far_site *site, struct xp_regs *regs)
{
	struct xp__request request = {.kind = &xp__gate_far_kind, .object = &gate_at(site)->object};
	bool tries = xp__faults_try(&gate_at(site)->faults);
	int error = tries ? xp__lock(NULL) : -XP_E_NO_METHOD;
	bool locked = !error;

	if (locked && is_unbound(site)) {
		far_get_state(&request);
		request.far.site = site;
		request.far.bind = true;
		error = xp__batch_patch(&request, 1, NULL);
		if (!error)
			__atomic_store_n(&bound, bound + 1, __ATOMIC_RELAXED);
	}
	if (error)
		finish_call(site, regs);
	else
		xp__faults_ended(&gate_at(site)->faults);
	if (locked)
		xp__unlock();
	return error ? XP_TRAP_DONE : XP_TRAP_RETRY;
}

/* A stale fetch of a site that is bound by now, unless it comes again with nothing bound in between (I4). */
static enum xp_trap_verdict again(uintptr_t code, struct xp_fault_again *memory)
{
	uint32_t now = __atomic_load_n(&bound, __ATOMIC_RELAXED);

	if (memory->code == code && memory->count == now)
		return XP_TRAP_FOREIGN;
	memory->code = code;
	memory->count = now;
	return XP_TRAP_RETRY;
}

static enum xp_trap_verdict far_fault(struct xp_regs *regs, unsigned shard, struct xp_fault_again *memory)
{
	const struct xp_far_site *site;
	uintptr_t base, code;

	if (regs->error != 0 || !xp__segment_base((uint16_t)regs->cs, &base))
		return XP_TRAP_FOREIGN;
	code = base + (uintptr_t)regs->ip;
	xp__trap_enter(shard);
	site = xp__faults_find(&faults, code);
	xp__trap_leave(shard);
	if (site == NULL || segment_of(site)->selector != regs->cs)
		return XP_TRAP_FOREIGN;
	XP__INJECT(XP__POINT_FAULT_FOUND);
	if (!is_unbound(site))
		return again(code, memory);
	return far_bind(site, regs);
}

/* ---- executables and shared objects come and go ---- */

static int far_coming(const struct xp_site_table *table)
{
	const struct xp_far_site *end = table->end;
	struct xp__fault_sites *sites;
	int error;

	if (table->start == table->end)
		return 0;
	if (!xp__port->can(XP_NEED_FAULT))
		return -XP_E_NO_METHOD;
	error = xp__port->prepare(XP_NEED_FAULT, NULL);
	if (error)
		return error;
	sites = xp__faults_copy(&faults, (size_t)(end - (const struct xp_far_site *)table->start));
	if (sites == NULL)
		return -XP__ENOMEM;
	for (const struct xp_far_site *site = table->start; site < end; site++) {
		struct xp_gate_far *gate = gate_at(site);

		xp__faults_insert(sites, xp__relative(&site->code), (void *)(uintptr_t)site);
		if (!gate->listed) {
			gate->listed = true;
			gate->next = gates;
			gates = gate;
		}
	}
	xp__faults_publish(&faults, sites);
	return 0;
}

static bool has_other_sites(const struct xp_gate_far *gate, const struct xp_site_table *table)
{
	for (const struct xp__group *group = gate->object.groups; group; group = group->next)
		if (group->records != table->start)
			return true;
	return false;
}

static void far_going(const struct xp_site_table *table)
{
	const struct xp_far_site *end = table->end;

	for (const struct xp_far_site *site = table->start; site < end; site++) {
		struct xp_gate_far **link = &gates;

		while (*link && *link != gate_at(site))
			link = &(*link)->next;
		if (*link && !has_other_sites(*link, table)) {
			(*link)->listed = false;
			*link = (*link)->next;
		}
		xp__faults_forget(&faults, xp__relative(&site->code));
	}
}

static bool far_sound(struct xp__known *known, const void *record)
{
	const struct xp_far_site *site = record;

	return (site->form & ~XP_FAR_NEAR) <= XP_FAR_32_32 &&
	       xp__object_data_sound(&known->value, segment_of(site), sizeof(struct xp_far_segment));
}

const struct xp__kind xp__gate_far_kind = {
	.record_size = sizeof(struct xp_far_site),
	.object_size = sizeof(struct xp_gate_far),
	.sound = far_sound,
	.object_at = offsetof(struct xp_far_site, gate),
	.nr_relative = 3,
	.begin = far_begin,
	.end = far_end,
	.get_state = far_get_state,
	.count = far_count,
	.emit = far_emit,
	.coming = far_coming,
	.going = far_going,
	.fault = far_fault,
	.faults = XP_NEED_FAULT,
};

/* ---- the interface ---- */

int xp_far_segment_add(struct xp_far_segment *segment)
{
	uintptr_t base;
	int error;

	if (segment == NULL || segment->selector <= 3 || (segment->bits != 16 && segment->bits != 32) ||
	    segment->fail16 > segment->limit || segment->fail32 > segment->limit)
		return -XP__EINVAL;
	/* Of the flat segments the base is known. */
	if (!(segment->selector & 4) && segment->base != 0)
		return -XP__EINVAL;
	error = xp__lock(NULL);
	if (error)
		return error;
	if (segment->added || (segment->selector & 4 && xp__segment_base(segment->selector, &base)))
		error = -XP_E_PROVIDED;
	else if (segment->selector & 4 && !xp__segment_add(segment->selector, segment->base))
		error = -XP__ENOMEM;
	else
		segment->added = true;
	xp__unlock();
	return error;
}

int xp_far_segment_remove(struct xp_far_segment *segment)
{
	int error;

	if (segment == NULL || !segment->added)
		return -XP__EINVAL;
	error = xp__lock(NULL);
	if (error)
		return error;
	segment->added = false;
	xp__segment_remove(segment->selector);
	xp__unlock();
	return 0;
}

static int far_change(struct xp_gate_far *gate, enum xp__gate_op op, uint16_t selector, uint32_t offset)
{
	struct xp__request request = {.kind = &xp__gate_far_kind};

	if (gate == NULL || (op != XP__GATE_WITHDRAW && selector <= 3))
		return -XP__EINVAL;
	request.object = &gate->object;
	request.far.op = (uint8_t)op;
	request.far.selector = selector;
	request.far.offset = offset;
	return xp__batch_apply(&request, NULL);
}

/*
 * Unbound sites stay so: of a batch that fails late, near sites that it bound would be left going where their gate does not
 * lead (I1).
 */
int xp_batch_add_gate_far(struct xp_batch *batch, struct xp_gate_far *gate, uint16_t selector, uint32_t offset)
{
	struct xp__request request = {.kind = &xp__gate_far_kind};

	if (gate == NULL || (selector >= 1 && selector <= 3))
		return -XP__EINVAL;
	request.object = &gate->object;
	request.far.op = XP__GATE_SET;
	request.far.selector = selector;
	request.far.offset = selector ? offset : 0;
	return xp__batch_add(batch, &request);
}

int xp_gate_far_provide(struct xp_gate_far *gate, uint16_t selector, uint32_t offset)
{
	return far_change(gate, XP__GATE_PROVIDE, selector, offset);
}

int xp_gate_far_replace(struct xp_gate_far *gate, uint16_t selector, uint32_t offset)
{
	return far_change(gate, XP__GATE_REPLACE, selector, offset);
}

int xp_gate_far_withdraw(struct xp_gate_far *gate)
{
	return far_change(gate, XP__GATE_WITHDRAW, 0, 0);
}

/* One request for each gate that has a provider. */
static size_t far_list_gates(struct xp__request *requests)
{
	size_t nr = 0;

	for (struct xp_gate_far *gate = gates; gate; gate = gate->next) {
		if (far_target_of(gate).selector == 0)
			continue;
		if (requests) {
			requests[nr] = (struct xp__request){.kind = &xp__gate_far_kind, .object = &gate->object};
			far_get_state(&requests[nr]);
			requests[nr].far.op = XP__GATE_REPLACE;
			requests[nr].far.bind = true;
		}
		nr++;
	}
	return nr;
}

int xp_gate_far_bind_all(void)
{
	return xp__batch_apply_listed(far_list_gates);
}
