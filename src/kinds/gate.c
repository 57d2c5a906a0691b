// SPDX-License-Identifier: MIT
/*
 * Gates: names, providers, call sites that are bound at their first execution.
 *
 * The gate of a name stands in the registry; each executable or shared object that calls it has a handle, whose `real`
 * pointer leads there from its registration on.
 *
 * I1  A site calls its handle's stub (unbound) or handle->text_target (bound). Any other text is refused, and nothing is changed.
 * I2  handle->slot leads to the fallback while there is no provider, else to the resolver, or straight to the provider
 *     (where sites cannot be bound; after all were). In 32-bit code to the resolver through the part of the stub that asks.
 * I3  gate->text_target, the provider, changes after the text did when it is taken away or replaced. What leads away from it,
 *     `slot`, changes before, so that a call that begins after the commit finds neither.
 * I4  A site is bound under the text lock, after a look at its text: of several threads that execute it one finds it unbound.
 * I5  A site in UD2 form is an UD2 until it is executed or bound, and then a call like any other; one that a stub begins
 *     with becomes a jump over itself. What raised a fault is ours if the published table has its address; then it is
 *     executed again, if it is no UD2 any more, or is patched now, or the handler does what the call would. So a fault that
 *     is not ours never loops, and what cannot be patched does not wait at each call (xp__faults_try()).
 * I6  Names are never forgotten: what is looked at without the lock stays.
 * I7  A provider stays mapped: the port is asked to keep it before the text lock is taken, as for static calls.
 *
 * Ordering. (G1) the stores of `slot` and of the provider are releases; (G2) their loads are acquires, or the jump
 * through a word that x86 does not reorder with what comes before it. What the registrar wrote before it provided is there
 * when the provider runs. Through text that was changed it is the sync that says so.
 * The table of sites in UD2 form is fault.c's.
 */
#include "arch/arch.h"
#include "core/batch.h"
#include "core/commit.h"
#include "core/deps.h"
#include "kinds/discovered.h"
#include "kinds/fault.h"
#include "core/inject.h"
#include "core/reclaim.h"
#include "core/state.h"
#include "core/trap.h"

#define XP_NO_PATCHING /* the library calls no gates of its own */
#include <crosspatch/gate.h>

#if XP__HAS_GATES

#define MISSES_MAX 16u /* calls that could not be bound, before their handle's stub leads straight to the provider */

struct gate {
	struct xp_gate gate;
	struct xp_gate *handles;
	void *pin; /* keeps the provider's shared object mapped */
};

static struct gate *gates;
static bool eager; /* relaxed atomic */

/* ---- names ---- */

static bool gate_same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

static struct gate *gate_find(const char *name)
{
	struct gate *gate = gates;

	while (gate && !gate_same(gate->gate.object.name, name))
		gate = (struct gate *)gate->gate.next;
	return gate;
}

/* The gate of that name, made if there is none; NULL: no memory. */
static struct gate *name_gate(const char *name)
{
	struct gate *gate = gate_find(name);
	size_t len = 0;

	if (gate)
		return gate;
	while (name[len])
		len++;
	gate = xp__reclaim_take(sizeof(*gate) + len + 1);
	if (gate == NULL)
		return NULL;
	memcpy(gate + 1, name, len);
	gate->gate.object.name = (const char *)(gate + 1);
	gate->gate.next = gates ? &gates->gate : NULL;
	gates = gate;
	return gate;
}

static struct gate *gate_of(const struct xp__request *request)
{
	return (struct gate *)request->object;
}

/* ---- where calls go that are not bound ---- */

void *xp__gate_resolve(struct xp_object *object, uintptr_t return_address);
extern xp__gate_func xp__gate_resolver __attribute__((visibility("hidden")));
XP__THUNK(xp__gate_resolver, xp__gate_resolve);

/* Where `slot` leads for the resolver to be asked. */
static xp__gate_func *resolver_entry(const struct xp_gate *handle)
{
	return XP__GATE_ASKS ? (xp__gate_func *)((uintptr_t)handle->stub - XP__GATE_ASKS) : xp__gate_resolver;
}

static void gate_store_slot(struct xp_gate *handle, xp__gate_func *func)
{
	/* ordering: (G1) pairs with (G2) */
	__atomic_store_n(&handle->slot, func, __ATOMIC_RELEASE);
}

/* Lets calls run the fallback, ask the resolver, or go @direct to the provider; under ThreadSanitizer they ask. */
static void set_slot(struct xp_gate *handle, xp__gate_func *provider, bool direct)
{
	handle->misses = 0;
	xp__faults_ended(&handle->faults);
	if (provider && handle->stub && (!direct || xp__sanitizer))
		gate_store_slot(handle, resolver_entry(handle));
	else
		gate_store_slot(handle, provider ? provider : handle->fallback);
}

/* ---- sites ---- */

/* What a kind adds to a site's flags: the site is the stub itself, a jump. */
#define SITE_IS_STUB 8

/* The site at @code, of either form. */
static struct xp__site site_at(struct xp_gate *handle, uintptr_t code, bool ud2)
{
	struct xp__site site = {.code = code, .handle = handle, .len = XP__CALL_LEN};

	if (ud2) {
		site.len = XP__FAULT_LEN;
		site.flags = XP_SITE_UD2 | (code == (uintptr_t)handle->stub ? SITE_IS_STUB : 0);
	}
	return site;
}

static const struct xp_gate_site *gate_site_of(const struct xp__group *group, uint32_t i)
{
	return (const struct xp_gate_site *)group->records + group->numbers[i];
}

static bool faults_first(const struct xp__site *site)
{
	return site->flags & XP_SITE_UD2;
}

/* The site as it is when it goes to @target. False: out of reach. */
static bool leads_to(uint8_t *bytes, const struct xp__site *site, uintptr_t target)
{
	if (faults_first(site))
		return xp__form_fault_call(bytes, site->code, target, site->flags & SITE_IS_STUB);
	return xp__form_call(bytes, site->code, target, false);
}

/* Where a site goes that is not bound. */
static uintptr_t unbound_target(const struct xp_gate *handle, const struct xp__site *site)
{
	return (uintptr_t)handle->stub + (site->flags & SITE_IS_STUB ? XP__FAULT_LEN : 0);
}

static void gate_count(const struct xp__request *request, const struct xp__group *group, struct xp__size *size)
{
	const struct xp_gate *handle = xp__site_handle(&gate_site_of(group, 0)->gate);

	(void)request;
	xp__discovered_size(handle->discovered, group->nr, size);
}

static int gate_site(const struct xp__group *group, size_t i, struct xp__site *site)
{
	struct xp_gate *handle = xp__site_handle(&gate_site_of(group, 0)->gate);
	const struct xp__discovered *discovered = i <= group->nr ? handle->discovered : site->discovered->next;

	if (i < group->nr) {
		const struct xp_gate_site *record = gate_site_of(group, (uint32_t)i);
		unsigned flags = xp__site_flags(&record->gate);

		*site = site_at(handle, xp__relative(&record->code), flags & XP_SITE_UD2);
		site->record = record;
		return handle->stub && !(flags & XP_SITE_STUB);
	}
	if (discovered == NULL)
		return -1;
	*site = site_at(handle, discovered->code, false);
	site->discovered = discovered;
	return handle->stub != NULL;
}

static int gate_check(const struct xp__site *site, const uint8_t *text, struct xp_diag *diag)
{
	static const char detail[] = "a site in UD2 form that is neither call nor stub";
	uint8_t call[XP__FAULT_LEN];

	if (!faults_first(site))
		return 0;
	if (site->code % XP__FAULT_LEN != 0)
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)site->code,
				"a site in UD2 form that is not aligned");
	xp__form_fault(call, site->flags & SITE_IS_STUB);
	if (text[XP__FAULT_CALL] != call[XP__FAULT_CALL])
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)site->code, detail);
	return 0;
}

/*
 * The forms: unbound; as the compiler left it, which faults; bound, to the provider that there is or was. What is bound stays
 * so, to the next provider, and what faults faults on, unless all sites are to be bound.
 */
static int gate_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		     enum xp__which which, unsigned n, struct xp__form *form, struct xp_diag *diag)
{
	const struct xp_gate *handle = site->handle;
	uint8_t unbound[XP__FAULT_LEN], fault[XP__FAULT_LEN], bound[XP__FAULT_LEN];
	const uint8_t *forms[3] = {unbound};
	unsigned nr = 1;
	uintptr_t to = (uintptr_t)(which < XP__RIGHT ? handle->text_target : request->gate.provider);
	bool is_fault, is_unbound, has_bound;
	int error = gate_check(site, text, diag);

	if (error)
		return error;
	if (!leads_to(unbound, site, unbound_target(handle, site)))
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)site->code,
				"a call out of reach of its stub");
	xp__form_fault(fault, site->flags & SITE_IS_STUB);
	has_bound = to && !(which == XP__WANTED && site->flags & SITE_IS_STUB) && leads_to(bound, site, to);
	is_unbound = memcmp(text, unbound, site->len) == 0;
	is_fault = faults_first(site) && memcmp(text, fault, XP__FAULT_LEN) == 0;
	if (which == XP__WANTED) {
		bool binds = request->gate.bind || !(is_unbound || is_fault);

		forms[0] = binds && has_bound ? bound : is_fault && !request->gate.bind ? fault : unbound;
	} else {
		if (faults_first(site))
			forms[nr++] = fault;
		if (has_bound)
			forms[nr++] = bound;
	}
	if (n >= nr)
		return 0;
	memcpy(form->bytes, forms[n], site->len);
	form->resume = XP_RESUME_EMULATE;
	form->whole = is_fault;
	return 1;
}

/* ---- the kind ---- */

/* Calls leave what is going to be taken away before the text says so. */
static int gate_begin(struct xp__request *request)
{
	const struct gate *gate = gate_of(request);
	bool has = gate->gate.text_target != NULL;

	request->skip = !has && request->gate.provider == NULL && request->gate.op == XP__GATE_SET;
	if (request->gate.op == XP__GATE_PROVIDE && has)
		return -XP_E_PROVIDED;
	if ((request->gate.op == XP__GATE_REPLACE || request->gate.op == XP__GATE_WITHDRAW) && !has)
		return -XP_E_NO_PROVIDER;
	for (struct xp_gate *handle = gate->handles; handle && has; handle = handle->next)
		set_slot(handle, request->gate.provider, false);
	return 0;
}

static void gate_end(struct xp__request *request, bool done)
{
	struct gate *gate = gate_of(request);

	if (done) {
		void *pin = gate->pin;

		/* ordering: (G1) pairs with (G2) */
		__atomic_store_n(&gate->gate.text_target, request->gate.provider, __ATOMIC_RELEASE);
		if (request->gate.op != XP__GATE_BIND) {
			gate->pin = request->gate.pin;
			request->gate.pin = pin;
		}
	}
	for (struct xp_gate *handle = gate->handles; handle; handle = handle->next)
		set_slot(handle, gate->gate.text_target, done && request->gate.direct);
}

static void gate_applied(const struct xp__request *request, const struct xp__group *group)
{
	struct xp_gate *handle = xp__site_handle(&gate_site_of(group, 0)->gate);

	handle->text_target = request->gate.provider;
}

static void gate_drop(struct xp__request *request)
{
	xp__unpin(request->gate.pin);
	request->gate.pin = NULL;
}

static void gate_get_state(struct xp__request *request)
{
	request->gate.provider = gate_of(request)->gate.text_target;
	request->gate.bind = __atomic_load_n(&eager, __ATOMIC_RELAXED);
}

/* ---- sites in UD2 form ---- */

static struct xp__faults faults;

static size_t nr_ud2(const struct xp_site_table *table)
{
	size_t nr = 0;

	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++)
		nr += xp__site_flags(&site->gate) & XP_SITE_UD2;
	return nr;
}

/* The table with these sites added; a thread may execute them from the moment on at which this returns. */
static int add_faults(const struct xp_site_table *table)
{
	struct xp__fault_sites *sites;
	size_t nr = nr_ud2(table);
	int error;

	if (nr == 0)
		return 0;
	if (!xp__port->can(XP_NEED_ILLEGAL))
		return -XP_E_NO_METHOD;
	/* A call that cannot be bound is emulated; a jump needs no stack. */
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++) {
		const struct xp_gate *handle = xp__site_handle(&site->gate);

		if (xp__site_flags(&site->gate) & XP_SITE_UD2 && xp__relative(&site->code) != (uintptr_t)handle->stub &&
		    !xp__port->can(XP_NEED_CALL))
			return -XP_E_SHADOW_STACK;
	}
	error = xp__port->prepare(XP_NEED_ILLEGAL, NULL);
	if (error)
		return error;
	sites = xp__faults_copy(&faults, nr);
	if (sites == NULL)
		return -XP__ENOMEM;
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++)
		if (xp__site_flags(&site->gate) & XP_SITE_UD2)
			xp__faults_insert(sites, xp__relative(&site->code), xp__site_handle(&site->gate));
	xp__faults_publish(&faults, sites);
	return 0;
}

static void drop_faults(const struct xp_site_table *table)
{
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++)
		if (xp__site_flags(&site->gate) & XP_SITE_UD2)
			xp__faults_forget(&faults, xp__relative(&site->code));
}

/* 0: the site faults no more. */
static int patch_fault(struct xp_gate *handle, uintptr_t code)
{
	const struct xp__site site = site_at(handle, code, true);
	struct xp__request request = {.kind = &xp__gate_kind, .object = handle->object.real, .only = &site};
	int error = xp__lock(NULL);

	if (error)
		return error;
	if (xp__fault_stands(code)) {
		request.gate.provider = ((struct gate *)request.object)->gate.text_target;
		request.gate.bind = true;
		error = xp__batch_patch(&request, 1, NULL);
		if (!error)
			handle->text_target = request.gate.provider;
	}
	xp__unlock();
	if (!error)
		xp__faults_ended(&handle->faults);
	return error;
}

/*
 * The call, or the stub's jump, as if it were bound: the resolver would try what was just tried. Without a provider, or one
 * that it cannot reach, as if it were unbound, and likewise under ThreadSanitizer, where calls ask.
 */
static void finish_fault(struct xp_gate *handle, const struct xp__trapped *at, struct xp_regs *regs)
{
	const struct gate *gate = (const struct gate *)handle->object.real;
	/* ordering: (G2) pairs with (G1) */
	xp__gate_func *provider = gate ? __atomic_load_n(&gate->gate.text_target, __ATOMIC_ACQUIRE) : NULL;
	const struct xp__site site = site_at(handle, at->addr, true);
	uint8_t bytes[XP__FAULT_LEN];
	struct xp__insn insn;

	if (provider == NULL || xp__sanitizer || !leads_to(bytes, &site, (uintptr_t)provider))
		(void)leads_to(bytes, &site, unbound_target(handle, &site));
	xp__insn_decode(bytes, XP__FAULT_LEN, &insn);
	xp__trap_finish(&insn, at, XP__FAULT_LEN, regs);
}

static enum xp_trap_verdict gate_fault(struct xp_regs *regs, unsigned shard, struct xp_fault_again *memory)
{
	struct xp__trapped at;
	struct xp_gate *handle;

	(void)memory;
	if (!xp__fault_taken(regs, &at))
		return XP_TRAP_FOREIGN;
	xp__trap_enter(shard);
	handle = xp__faults_find(&faults, at.addr);
	xp__trap_leave(shard);
	if (handle == NULL)
		return XP_TRAP_FOREIGN;
	XP__INJECT(XP__POINT_FAULT_FOUND);
	if (!xp__fault_stands(at.addr) || (xp__faults_try(&handle->faults) && patch_fault(handle, at.addr) == 0))
		return XP_TRAP_RETRY;
	finish_fault(handle, &at, regs);
	return XP_TRAP_DONE;
}

/* ---- executables and shared objects come and go ---- */

static int gate_coming(const struct xp_site_table *table)
{
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++) {
		struct xp_gate *handle = xp__site_handle(&site->gate);
		struct gate *gate;

		if (handle->object.real)
			continue;
		gate = name_gate(handle->object.name);
		if (gate == NULL)
			return -XP__ENOMEM;
		handle->object.real = &gate->gate.object;
		handle->resolver = xp__gate_resolver;
		handle->next = gate->handles;
		gate->handles = handle;
	}
	return add_faults(table);
}

/* Before its sites are known their calls run the fallback; from now on they may be bound. */
static void gate_live(const struct xp_site_table *table)
{
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++) {
		struct xp_gate *handle = xp__site_handle(&site->gate);
		xp__gate_func *provider = ((struct gate *)handle->object.real)->gate.text_target;

		if (xp__site_flags(&site->gate) & XP_SITE_STUB)
			set_slot(handle, provider, __atomic_load_n(&eager, __ATOMIC_RELAXED));
	}
}

/* Sites that no record names are unbound: if the table came back, it would not know them. */
static void forget_discovered(struct xp_gate *handle)
{
	for (const struct xp__discovered *discovered = handle->discovered; discovered; discovered = discovered->next) {
		const struct xp__site site = site_at(handle, discovered->code, false);
		struct xp__request request = {.kind = &xp__gate_kind, .object = handle->object.real, .only = &site};

		(void)xp__batch_patch(&request, 1, NULL);
	}
	xp__discovered_drop(&handle->discovered);
}

static void gate_going(const struct xp_site_table *table)
{
	drop_faults(table);
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++) {
		struct xp_gate *handle = xp__site_handle(&site->gate), **link;

		if (handle->object.real == NULL)
			continue;
		forget_discovered(handle);
		gate_store_slot(handle, handle->fallback);
		link = &((struct gate *)handle->object.real)->handles;
		while (*link != handle)
			link = &(*link)->next;
		*link = handle->next;
		handle->next = NULL;
		handle->object.real = NULL;
	}
}

/* A handle that was led to its gate, or one that is as the compiler left it. */
static bool gate_sound(struct xp__known *known, const void *record)
{
	const struct xp_gate *handle = xp__site_handle(&((const struct xp_gate_site *)record)->gate);
	const struct gate *gate = gates;

	(void)known;
	if (handle->object.real == NULL)
		return handle->slot == handle->fallback && handle->next == NULL && handle->discovered == NULL;
	while (gate && &gate->gate.object != handle->object.real)
		gate = (const struct gate *)gate->gate.next;
	return gate != NULL;
}

const struct xp__kind xp__gate_kind = {
	.record_size = sizeof(struct xp_gate_site),
	.object_size = sizeof(struct xp_gate),
	.sound = gate_sound,
	.object_at = offsetof(struct xp_gate_site, gate),
	.nr_relative = 2,
	.several_records = true,
	.by_name = true,
	.begin = gate_begin,
	.end = gate_end,
	.get_state = gate_get_state,
	.count = gate_count,
	.site = gate_site,
	.form = gate_form,
	.applied = gate_applied,
	.drop = gate_drop,
	.coming = gate_coming,
	.live = gate_live,
	.going = gate_going,
	.fault = gate_fault,
	.faults = XP_NEED_ILLEGAL,
};

/* ---- binding at the first execution ---- */

/* The site whose call is at @call, from the records or discovered earlier; len 0: not known. */
static struct xp__site known_site(struct xp_gate *handle, uintptr_t call)
{
	const struct xp_object *object = handle->object.real;

	for (const struct xp__group *group = object->groups; group; group = group->next) {
		for (uint32_t i = 0; i < group->nr; i++) {
			const struct xp_gate_site *record = gate_site_of(group, i);
			bool ud2 = xp__site_flags(&record->gate) & XP_SITE_UD2;

			if (xp__relative(&record->code) + (ud2 ? XP__FAULT_CALL : 0) == call &&
			    !(xp__site_flags(&record->gate) & XP_SITE_STUB))
				return site_at(handle, xp__relative(&record->code), ud2);
		}
	}
	if (xp__discovered_has(handle->discovered, call))
		return site_at(handle, call, false);
	return (struct xp__site){0};
}

/* 0: bound, by this thread or another. Else the site stays as it is. */
static int gate_bind(struct xp_gate *handle, uintptr_t code, xp__gate_func *provider)
{
	struct xp__request request = {.kind = &xp__gate_kind, .object = handle->object.real};
	uint8_t near[XP__CALL_LEN];
	struct xp__site site;
	int error;

	error = xp__discovered_readable(code, XP__CALL_LEN);
	if (error)
		return error;
	if (!xp__form_call(near, code, (uintptr_t)provider, false))
		return -XP_E_RANGE;
	if (memcmp((const void *)code, near, XP__CALL_LEN) == 0)
		return 0;
	site = known_site(handle, code);
	if (site.len == 0) {
		uint8_t call[XP__CALL_LEN];

		/* A tail call, or one through a pointer: what it returns to is no call of the stub. */
		if (!xp__form_call(call, code, (uintptr_t)handle->stub, false) ||
		    memcmp((const void *)code, call, XP__CALL_LEN) != 0)
			return -XP_E_MISMATCH;
		if (!xp__discovered_add(&handle->discovered, code))
			return -XP__ENOMEM;
		site = site_at(handle, code, false);
	}
	request.only = &site;
	request.gate.provider = provider;
	request.gate.bind = true;
	error = xp__batch_patch(&request, 1, NULL);
	if (!error)
		handle->text_target = provider;
	return error;
}

/* The thunk's question, for a call that returns to @return_address. */
void *xp__gate_resolve(struct xp_object *object, uintptr_t return_address)
{
	struct xp_gate *handle = (struct xp_gate *)object;
	struct gate *gate = (struct gate *)object->real;
	/* ordering: (G2) pairs with (G1) */
	xp__gate_func *provider = gate ? __atomic_load_n(&gate->gate.text_target, __ATOMIC_ACQUIRE) : NULL;

	if (provider == NULL)
		return (void *)(uintptr_t)handle->fallback;
	if (xp__sanitizer) {
		/* ordering: (TS2) pairs with (TS1) */
		xp__tell(&gate->gate.object.scratch, __ATOMIC_ACQUIRE);
		return (void *)(uintptr_t)provider;
	}
	if (xp__lock(NULL))
		return (void *)(uintptr_t)provider;
	provider = gate->gate.text_target;
	if (provider && gate_bind(handle, return_address - XP__CALL_LEN, provider) && ++handle->misses >= MISSES_MAX)
		set_slot(handle, provider, true);
	xp__unlock();
	return (void *)(uintptr_t)(provider ? provider : handle->fallback);
}

XP__RETURN0(xp__gate_return0);

/* ---- the interface ---- */

static int gate_change(const char *name, enum xp__gate_op op, xp__gate_func *provider)
{
	struct xp__request request = {.kind = &xp__gate_kind};
	struct gate *gate;
	int error;

	if (name == NULL || name[0] == '\0' || (op != XP__GATE_WITHDRAW && provider == NULL))
		return -XP__EINVAL;
	request.gate.pin = xp__pin(provider, NULL);
	error = xp__lock(NULL);
	if (!error) {
		gate = op == XP__GATE_PROVIDE ? name_gate(name) : gate_find(name);
		if (gate == NULL) {
			error = op == XP__GATE_PROVIDE ? -XP__ENOMEM : -XP_E_NO_PROVIDER;
		} else {
			request.object = &gate->gate.object;
			request.gate.op = (uint8_t)op;
			request.gate.provider = provider;
			request.gate.bind = provider && __atomic_load_n(&eager, __ATOMIC_RELAXED);
			request.gate.direct = request.gate.bind;
			error = xp__batch_apply_locked(&request, 1, NULL);
		}
		xp__unlock();
	}
	gate_drop(&request);
	return error;
}

int xp__batch_add_gate(struct xp_batch *batch, const char *name, xp__gate_func *function)
{
	struct xp__request request = {.kind = &xp__gate_kind};
	struct gate *gate;
	int error;

	if (batch == NULL || name == NULL || name[0] == '\0')
		return -XP__EINVAL;
	error = xp__lock(NULL);
	if (error)
		return error;
	gate = name_gate(name);
	xp__unlock();
	if (gate == NULL)
		return -XP__ENOMEM;
	request.object = &gate->gate.object;
	request.gate.op = XP__GATE_SET;
	request.gate.provider = function;
	request.gate.bind = function != NULL;
	request.gate.direct = function && __atomic_load_n(&eager, __ATOMIC_RELAXED);
	request.gate.pin = xp__pin(function, NULL);
	error = xp__batch_add(batch, &request);
	if (error)
		gate_drop(&request);
	return error;
}

int xp__gate_provide(const char *name, xp__gate_func *function)
{
	return gate_change(name, XP__GATE_PROVIDE, function);
}

int xp__gate_replace(const char *name, xp__gate_func *function)
{
	return gate_change(name, XP__GATE_REPLACE, function);
}

int xp_gate_withdraw(const char *name)
{
	return gate_change(name, XP__GATE_WITHDRAW, NULL);
}

void xp_gate_set_eager(bool on)
{
	__atomic_store_n(&eager, on, __ATOMIC_RELAXED);
}

/* One request for each gate that has a provider. */
static size_t gate_list_gates(struct xp__request *requests)
{
	size_t nr = 0;

	for (struct gate *gate = gates; gate; gate = (struct gate *)gate->gate.next) {
		if (gate->gate.text_target == NULL)
			continue;
		if (requests) {
			requests[nr] = (struct xp__request){.kind = &xp__gate_kind, .object = &gate->gate.object};
			requests[nr].gate.op = XP__GATE_BIND;
			requests[nr].gate.provider = gate->gate.text_target;
			requests[nr].gate.bind = requests[nr].gate.direct = true;
		}
		nr++;
	}
	return nr;
}

int xp_gate_bind_all(void)
{
	return xp__batch_apply_listed(gate_list_gates);
}

#endif
