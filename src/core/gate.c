// SPDX-License-Identifier: MIT
/*
 * Gates: names, providers, call sites that are bound at their first execution.
 *
 * The gate of a name stands in the registry; each executable or shared object that calls it has a handle, whose `real`
 * pointer leads there from its registration on.
 *
 * I1  A site calls its handle's stub (unbound) or handle->placed (bound). Any other text is refused, and nothing is changed.
 * I2  handle->through leads to the fallback while there is no provider, else to the resolver, or straight to the provider
 *     (where sites cannot be bound; after all were). In 32-bit code to the resolver through the part of the stub that asks.
 * I3  gate->placed, the provider, changes after the text did when it is taken away or replaced. What leads away from it,
 *     `through`, changes before, so that a call that begins after the commit finds neither.
 * I4  A site is bound under the text lock, after a look at its text: of several threads that execute it one finds it unbound.
 * I5  A site in UD2 form is an UD2 until it is executed or bound, and then a call like any other; one that a stub begins
 *     with becomes a jump over itself. What raised a fault is ours if the published table has its address; then it is
 *     executed again, if it is no UD2 any more, or is patched now, or the handler does what the call would. So a fault that
 *     is not ours never loops, and what cannot be patched does not wait at each call (xp__faults_try()).
 * I6  Names are never forgotten: what is looked at without the lock stays.
 * I7  A provider stays mapped: the port is asked to keep it before the text lock is taken, as for static calls.
 *
 * Ordering. (G1) the stores of `through` and of the provider are releases; (G2) their loads are acquires, or the jump
 * through a word that x86 does not reorder with what comes before it. What the registrar wrote before it provided is there
 * when the provider runs. Through text that was changed it is the sync that says so.
 * The table of sites in UD2 form is fault.c's.
 */
#include "arch/x86/emulate.h"
#include "arch/x86/thunk.h"
#include "core/batch.h"
#include "core/deps.h"
#include "core/engine.h"
#include "core/found.h"
#include "core/fault.h"
#include "core/inject.h"
#include "core/trap.h"

#define XP_NO_PATCHING /* the library calls no gates of its own */
#include <crosspatch/gate.h>

#define SITE_LEN 5
#define UD2_LEN 8
#define UD2_CALL 3   /* where in it the five bytes stand */
#define ASKS_LEN 17  /* bytes of 32-bit code in front of a stub */
#define VAIN_MAX 16u /* calls that could not be bound, before their handle's stub leads straight to the provider */

struct gate {
	struct xp_gate gate;
	struct xp_gate *handles;
	void *pin; /* keeps the provider's shared object mapped */
};

static struct gate *gates;
static bool eager; /* relaxed atomic */

/* ---- names ---- */

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

static struct gate *find(const char *name)
{
	struct gate *gate = gates;

	while (gate && !same(gate->gate.object.name, name))
		gate = (struct gate *)gate->gate.next;
	return gate;
}

/* The gate of that name, made if there is none; NULL: no memory. */
static struct gate *name_gate(const char *name)
{
	struct gate *gate = find(name);
	size_t len = 0;

	if (gate)
		return gate;
	while (name[len])
		len++;
	gate = xp__piece(sizeof(*gate) + len + 1);
	if (gate == NULL)
		return NULL;
	memcpy(gate + 1, name, len);
	gate->gate.object.name = (const char *)(gate + 1);
	gate->gate.next = gates ? &gates->gate : NULL;
	gates = gate;
	return gate;
}

static struct gate *gate_of(const struct xp__item *item)
{
	return (struct gate *)item->object;
}

/* The handle that the record names, not the gate behind it. */
static struct xp_gate *handle_of(const struct xp_gate_site *site)
{
	return (struct xp_gate *)(xp__relative(&site->gate) & ~(uintptr_t)XP_SITE_FLAGS);
}

/* ---- where calls go that are not bound ---- */

void *xp__gate_resolve(struct xp_object *object, uintptr_t return_address);
extern xp__gate_func xp__gate_resolver __attribute__((visibility("hidden")));
XP__THUNK(xp__gate_resolver, xp__gate_resolve);

/* Where `through` leads for the resolver to be asked. */
static xp__gate_func *asking(const struct xp_gate *handle)
{
#ifdef __x86_64__
	(void)handle;
	return xp__gate_resolver;
#else
	return (xp__gate_func *)((uintptr_t)handle->stub - ASKS_LEN);
#endif
}

static void store_through(struct xp_gate *handle, xp__gate_func *func)
{
	/* ordering: (G1) pairs with (G2) */
	__atomic_store_n(&handle->through, func, __ATOMIC_RELEASE);
}

/* Lets calls run the fallback, ask the resolver, or go @straight to the provider; under ThreadSanitizer they ask. */
static void lead(struct xp_gate *handle, xp__gate_func *provider, bool straight)
{
	handle->vain = 0;
	xp__faults_ended(&handle->faults);
	if (provider && handle->stub && (!straight || xp__sanitizer))
		store_through(handle, asking(handle));
	else
		store_through(handle, provider ? provider : handle->fallback);
}

/* ---- sites ---- */

/* A site of either form. */
struct site {
	uintptr_t code;
	uint8_t len;
	uint8_t call; /* where in it the five bytes of the call stand */
	uint8_t opcode;
};

static struct site site_at(uintptr_t code, bool ud2)
{
	if (ud2)
		return (struct site){code, UD2_LEN, UD2_CALL, ((const uint8_t *)code)[UD2_CALL]};
	return (struct site){code, SITE_LEN, 0, 0xe8};
}

/* Where a site goes that is not bound. */
static uintptr_t unbound_target(const struct xp_gate *handle, const struct site *site)
{
	bool own = site->code == (uintptr_t)handle->stub;

	return (uintptr_t)handle->stub + (own ? UD2_LEN : 0);
}

/* The site as it is when it goes to @target. False: out of reach. */
static bool form(uint8_t *bytes, const struct site *site, uintptr_t target)
{
	for (unsigned i = 0; i < site->call; i++)
		bytes[i] = 0x2e;
	return xp__insn_rel32(bytes + site->call, site->opcode, site->code + site->call, target);
}

static bool is_ud2(uintptr_t code)
{
	const volatile uint8_t *text = (const volatile uint8_t *)code;

	return text[0] == 0x0f && text[1] == 0x0b;
}

static int check_ud2(const struct xp_gate *handle, const struct site *site, struct xp_diag *diag)
{
	bool own = site->code == (uintptr_t)handle->stub;

	if (site->code % UD2_LEN != 0)
		return xp__fail_record(diag, &handle->object, site->code, "a site in UD2 form that is not aligned");
	if (site->opcode != (own ? 0xe9 : 0xe8))
		return xp__fail_record(diag, &handle->object, site->code,
				       "a site in UD2 form that is neither call nor stub");
	return 0;
}

/*
 * What a site was that is as wished, an unbound call in change->new: unbound is right whatever leads where. A bound one went
 * to the provider before, or was unbound, which an UD2 need not become again.
 */
static int undo_site(const struct xp__item *item, const struct xp_gate *handle, const struct site *site,
		     struct xp__change *change, const uint8_t *ud2, struct xp__commit *commit, size_t first,
		     struct xp_diag *diag)
{
	const uint8_t *text = (const uint8_t *)site->code, *unbound = change->new;
	uint8_t placed[UD2_LEN], bound[UD2_LEN];

	if (memcmp(text, unbound, site->len) == 0 || (site->len == UD2_LEN && memcmp(text, ud2, UD2_LEN) == 0))
		return 0;
	if (!item->gate.provider || !form(bound, site, (uintptr_t)item->gate.provider) ||
	    memcmp(text, bound, site->len) != 0)
		return xp__fail_site(diag, &handle->object, site->code, unbound, site->len);
	change->new = bound;
	if (handle->placed && form(placed, site, (uintptr_t)handle->placed))
		change->old = placed;
	if (memcmp(change->old, bound, site->len) == 0)
		return 0;
	return xp__commit_change_either(commit, change, unbound, first, diag);
}

static int add_site(const struct xp__item *item, const struct xp_gate *handle, const struct site *site,
		    struct xp__commit *commit, size_t first, struct xp_diag *diag)
{
	uint8_t ud2[UD2_LEN] = {0x0f, 0x0b, 0x2e, site->opcode}, unbound[UD2_LEN], placed[UD2_LEN], wanted[UD2_LEN];
	const uint8_t *text = (const uint8_t *)site->code;
	struct xp__change change = {.addr = site->code, .len = site->len, .known = site->len};
	bool binds = item->gate.bind;
	struct xp__insn insn;
	int error = site->len == UD2_LEN ? check_ud2(handle, site, diag) : 0;

	if (error)
		return error;
	if (!form(unbound, site, unbound_target(handle, site)))
		return xp__fail_record(diag, &handle->object, site->code, "a call out of reach of its stub");
	change.resume = XP_RESUME_EMULATE;
	change.old = change.new = unbound;
	if (item->undo)
		return undo_site(item, handle, site, &change, ud2, commit, first, diag);
	if (memcmp(text, unbound, site->len) == 0) {
		;
	} else if (site->len == UD2_LEN && memcmp(text, ud2, UD2_LEN) == 0) {
		change.old = ud2;
		if (!binds)
			return 0;
	} else if (handle->placed && form(placed, site, (uintptr_t)handle->placed) &&
		   memcmp(text, placed, site->len) == 0) {
		change.old = placed;
		binds = true;
	} else {
		return xp__fail_site(diag, &handle->object, site->code, unbound, site->len);
	}
	if (item->gate.provider && binds && site->opcode == 0xe8 && form(wanted, site, (uintptr_t)item->gate.provider))
		change.new = wanted;
	if (memcmp(change.old, change.new, site->len) == 0)
		return 0;
	if (change.old == ud2) {
		/* One instruction: who executed it goes on at its first byte. */
		xp__insn_decode(change.new, site->len, &insn);
		change.as = &insn;
	}
	return xp__commit_change(commit, &change, first, diag);
}

static const struct xp_gate_site *site_of(const struct xp__use *use, uint32_t i)
{
	return (const struct xp_gate_site *)use->records + use->numbers[i];
}

static void measure(const struct xp__item *item, const struct xp__use *use, struct xp__size *size)
{
	const struct xp_gate *handle = handle_of(site_of(use, 0));
	size_t nr = use->nr;

	if (item->gate.handle) {
		nr = item->gate.handle == handle;
	} else {
		for (const struct xp__found *found = handle->found; found; found = found->next)
			nr++;
	}
	size->sites += nr;
	size->plans += nr;
}

static int fail_unreadable(const struct xp_gate *handle, uintptr_t code, struct xp_diag *diag)
{
	if (diag)
		diag->key = handle->object.name;
	return xp__fail_unreadable(diag, code);
}

static int add(const struct xp__item *item, const struct xp__use *use, struct xp__commit *commit, struct xp_diag *diag)
{
	const struct xp_gate *handle = handle_of(site_of(use, 0));
	size_t first = commit->nr_plans;
	int error = 0;

	if (handle->stub == NULL)
		return 0;
	if (item->gate.handle) {
		struct site site;

		if (!xp__commit_readable(commit, item->gate.site, item->gate.ud2 ? UD2_LEN : SITE_LEN))
			return fail_unreadable(handle, item->gate.site, diag);
		site = site_at(item->gate.site, item->gate.ud2);

		if (item->gate.handle != handle || !xp__commit_takes(commit))
			return 0;
		return add_site(item, handle, &site, commit, first, diag);
	}
	for (uint32_t i = 0; i < use->nr && !error; i++) {
		unsigned flags = xp__site_flags(&site_of(use, i)->gate);
		uintptr_t code = xp__relative(&site_of(use, i)->code);
		struct site site;

		if (!xp__commit_takes(commit) || flags & XP_SITE_STUB)
			continue;
		if (!xp__commit_readable(commit, code, flags & XP_SITE_UD2 ? UD2_LEN : SITE_LEN))
			return fail_unreadable(handle, code, diag);
		site = site_at(code, flags & XP_SITE_UD2);
		error = add_site(item, handle, &site, commit, first, diag);
	}
	for (const struct xp__found *found = handle->found; found && !error; found = found->next) {
		struct site site = site_at(found->code, false);

		if (!xp__commit_takes(commit))
			continue;
		if (!xp__commit_readable(commit, found->code, SITE_LEN))
			return fail_unreadable(handle, found->code, diag);
		error = add_site(item, handle, &site, commit, first, diag);
	}
	return error;
}

/* A site is right unbound, and where the provider is. */
static void look_at(struct xp__look *look, const struct xp_gate *handle, const struct site *site)
{
	uint8_t ud2[UD2_LEN] = {0x0f, 0x0b, 0x2e, site->opcode}, placed[UD2_LEN];
	const uint8_t *text = (const uint8_t *)site->code;

	if (!xp__look_at(look, site->code, site->len))
		return;
	look->known = form(look->wanted, site, unbound_target(handle, site));
	if (site->len == UD2_LEN)
		look->first[0] = ud2[0];
	if (site->len == UD2_LEN && memcmp(text, ud2, UD2_LEN) == 0)
		memcpy(look->wanted, ud2, UD2_LEN);
	else if (handle->placed && form(placed, site, (uintptr_t)handle->placed) &&
		 memcmp(text + 1, placed + 1, site->len - 1u) == 0)
		memcpy(look->wanted, placed, site->len);
}

static int look(const struct xp__item *item, const struct xp__use *use, size_t i, struct xp__look *look)
{
	const struct xp_gate *handle = handle_of(site_of(use, 0));
	const struct xp__found *found = handle->found;
	unsigned flags = i < use->nr ? xp__site_flags(&site_of(use, (uint32_t)i)->gate) : 0;
	struct site site;

	(void)item;
	for (size_t at = use->nr; i >= use->nr && found && at < i; at++)
		found = found->next;
	if (i >= use->nr && found == NULL)
		return -1;
	if (handle->stub == NULL || flags & XP_SITE_STUB)
		return 0;
	site = site_at(i < use->nr ? xp__relative(&site_of(use, (uint32_t)i)->code) : found->code, flags & XP_SITE_UD2);
	look_at(look, handle, &site);
	return 1;
}

/* ---- the front ---- */

/* Calls leave what is going to be taken away before the text says so. */
static int start(struct xp__item *item)
{
	const struct gate *gate = gate_of(item);
	bool has = gate->gate.placed != NULL;

	item->skip = !has && item->gate.provider == NULL && item->gate.wish == XP__GATE_LEAD;
	if (item->gate.wish == XP__GATE_PROVIDE && has)
		return -XP_E_PROVIDED;
	if ((item->gate.wish == XP__GATE_REPLACE || item->gate.wish == XP__GATE_WITHDRAW) && !has)
		return -XP_E_NO_PROVIDER;
	for (struct xp_gate *handle = gate->handles; handle && has; handle = handle->next)
		lead(handle, item->gate.provider, false);
	return 0;
}

static void finish(struct xp__item *item, bool done)
{
	struct gate *gate = gate_of(item);

	if (done) {
		void *pin = gate->pin;

		/* ordering: (G1) pairs with (G2) */
		__atomic_store_n(&gate->gate.placed, item->gate.provider, __ATOMIC_RELEASE);
		if (item->gate.wish != XP__GATE_BIND) {
			gate->pin = item->gate.pin;
			item->gate.pin = pin;
		}
	}
	for (struct xp_gate *handle = gate->handles; handle; handle = handle->next)
		lead(handle, gate->gate.placed, done && item->gate.straight);
}

static void settled(const struct xp__item *item, const struct xp__use *use)
{
	/* Of one site that changes the others are not asked. */
	if (item->gate.handle == NULL)
		handle_of(site_of(use, 0))->placed = item->gate.provider;
}

static void drop(struct xp__item *item)
{
	xp__let_go(item->gate.pin);
	item->gate.pin = NULL;
}

static void current(struct xp__item *item)
{
	item->gate.provider = gate_of(item)->gate.placed;
	item->gate.bind = __atomic_load_n(&eager, __ATOMIC_RELAXED);
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
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++)
		if (xp__site_flags(&site->gate) & XP_SITE_UD2 &&
		    xp__relative(&site->code) != (uintptr_t)handle_of(site)->stub && !xp__port->can(XP_NEED_CALL))
			return -XP_E_SHADOW_STACK;
	error = xp__port->prepare(XP_NEED_ILLEGAL, NULL);
	if (error)
		return error;
	sites = xp__faults_copy(&faults, nr);
	if (sites == NULL)
		return -XP__ENOMEM;
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++)
		if (xp__site_flags(&site->gate) & XP_SITE_UD2)
			xp__faults_insert(sites, xp__relative(&site->code), handle_of(site));
	xp__faults_publish(&faults, sites);
	return 0;
}

/* Without memory for a smaller table the one that is there stays: nobody executes what is gone. */
static void drop_faults(const struct xp_site_table *table)
{
	struct xp__fault_sites *sites = nr_ud2(table) > 0 ? xp__faults_copy(&faults, 0) : NULL;

	if (sites == NULL)
		return;
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++)
		if (xp__site_flags(&site->gate) & XP_SITE_UD2)
			xp__faults_remove(sites, xp__relative(&site->code));
	xp__faults_publish(&faults, sites);
}

/* 0: the site is no UD2 any more. */
static int patch_fault(struct xp_gate *handle, uintptr_t code)
{
	struct xp__item item = {.front = &xp__gate_front, .object = handle->object.real};
	int error = xp__lock(NULL);

	if (error)
		return error;
	if (is_ud2(code)) {
		item.gate.provider = ((struct gate *)item.object)->gate.placed;
		item.gate.handle = handle;
		item.gate.site = code;
		item.gate.ud2 = true;
		item.gate.bind = true;
		error = xp__patch_locked(&item, 1, NULL);
		if (!error)
			handle->placed = item.gate.provider;
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
static void finish_fault(const struct xp_gate *handle, uintptr_t code, struct xp_regs *regs)
{
	const struct gate *gate = (const struct gate *)handle->object.real;
	/* ordering: (G2) pairs with (G1) */
	xp__gate_func *provider = gate ? __atomic_load_n(&gate->gate.placed, __ATOMIC_ACQUIRE) : NULL;
	struct site site = site_at(code, true);
	uint8_t bytes[UD2_LEN];
	struct xp__insn insn;

	if (provider == NULL || xp__sanitizer || !form(bytes, &site, (uintptr_t)provider))
		(void)form(bytes, &site, unbound_target(handle, &site));
	xp__insn_decode(bytes, UD2_LEN, &insn);
	xp__emulate(&insn, code, code + UD2_LEN, regs);
}

enum xp_trap_verdict xp_trap_illegal(struct xp_regs *regs, unsigned shard)
{
	uintptr_t code = (uintptr_t)regs->ip;
	struct xp_gate *handle;

	xp__trap_enter(shard);
	handle = xp__faults_find(&faults, code);
	xp__trap_leave(shard);
	if (handle == NULL)
		return XP_TRAP_FOREIGN;
	XP__INJECT(XP__POINT_FAULT_FOUND);
	if (!is_ud2(code) || (xp__faults_try(&handle->faults) && patch_fault(handle, code) == 0))
		return XP_TRAP_RETRY;
	finish_fault(handle, code, regs);
	return XP_TRAP_DONE;
}

/* ---- executables and shared objects come and go ---- */

static int arrive(const struct xp_site_table *table)
{
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++) {
		struct xp_gate *handle = handle_of(site);
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
static void arrived(const struct xp_site_table *table)
{
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++) {
		struct xp_gate *handle = handle_of(site);
		xp__gate_func *provider = ((struct gate *)handle->object.real)->gate.placed;

		if (xp__site_flags(&site->gate) & XP_SITE_STUB)
			lead(handle, provider, __atomic_load_n(&eager, __ATOMIC_RELAXED));
	}
}

/* Sites that no record names are unbound: should the table come back, nobody would know them. */
static void forget_found(struct xp_gate *handle)
{
	for (const struct xp__found *found = handle->found; found; found = found->next) {
		struct xp__item item = {.front = &xp__gate_front, .object = handle->object.real};

		item.gate.handle = handle;
		item.gate.site = found->code;
		(void)xp__patch_locked(&item, 1, NULL);
	}
	xp__found_drop(&handle->found);
}

static void depart(const struct xp_site_table *table)
{
	drop_faults(table);
	for (const struct xp_gate_site *site = table->start; site < (const struct xp_gate_site *)table->end; site++) {
		struct xp_gate *handle = handle_of(site), **link;

		if (handle->object.real == NULL)
			continue;
		forget_found(handle);
		store_through(handle, handle->fallback);
		link = &((struct gate *)handle->object.real)->handles;
		while (*link != handle)
			link = &(*link)->next;
		*link = handle->next;
		handle->next = NULL;
		handle->object.real = NULL;
	}
}

const struct xp__front xp__gate_front = {
	.record_size = sizeof(struct xp_gate_site),
	.object_at = offsetof(struct xp_gate_site, gate),
	.nr_relative = 2,
	.forms = true,
	.rounds = true,
	.start = start,
	.finish = finish,
	.current = current,
	.measure = measure,
	.add = add,
	.look = look,
	.settled = settled,
	.drop = drop,
	.arrive = arrive,
	.arrived = arrived,
	.depart = depart,
};

/* ---- binding at the first execution ---- */

/* The site whose call is at @call, from the records or found earlier; len 0: not known. */
static struct site known_site(const struct xp_gate *handle, uintptr_t call)
{
	const struct xp_object *object = handle->object.real;

	for (const struct xp__use *use = object->uses; use; use = use->next) {
		for (uint32_t i = 0; i < use->nr; i++) {
			const struct xp_gate_site *record = site_of(use, i);
			bool ud2 = xp__site_flags(&record->gate) & XP_SITE_UD2;

			if (xp__relative(&record->code) + (ud2 ? UD2_CALL : 0) == call &&
			    !(xp__site_flags(&record->gate) & XP_SITE_STUB))
				return site_at(xp__relative(&record->code), ud2);
		}
	}
	if (xp__found_has(handle->found, call))
		return site_at(call, false);
	return (struct site){0};
}

/* 0: bound, by this thread or another. Else the site stays as it is. */
static int bind(struct xp_gate *handle, uintptr_t code, xp__gate_func *provider)
{
	struct xp__item item = {.front = &xp__gate_front, .object = handle->object.real};
	uint8_t direct[SITE_LEN];
	struct site site;
	int error;

	error = xp__found_readable(code, SITE_LEN);
	if (error)
		return error;
	if (!xp__insn_rel32(direct, 0xe8, code, (uintptr_t)provider))
		return -XP_E_RANGE;
	if (memcmp((const void *)code, direct, SITE_LEN) == 0)
		return 0;
	site = known_site(handle, code);
	if (site.len == 0) {
		uint8_t call[SITE_LEN];

		/* A tail call, or one through a pointer: what it returns to is no call of the stub. */
		if (!xp__insn_rel32(call, 0xe8, code, (uintptr_t)handle->stub) ||
		    memcmp((const void *)code, call, SITE_LEN) != 0)
			return -XP_E_MISMATCH;
		if (!xp__found_add(&handle->found, code))
			return -XP__ENOMEM;
		site = site_at(code, false);
	}
	item.gate.provider = provider;
	item.gate.handle = handle;
	item.gate.site = site.code;
	item.gate.ud2 = site.len == UD2_LEN;
	item.gate.bind = true;
	error = xp__patch_locked(&item, 1, NULL);
	if (!error)
		handle->placed = provider;
	return error;
}

/* The thunk's question, for a call that returns to @return_address. */
void *xp__gate_resolve(struct xp_object *object, uintptr_t return_address)
{
	struct xp_gate *handle = (struct xp_gate *)object;
	struct gate *gate = (struct gate *)object->real;
	/* ordering: (G2) pairs with (G1) */
	xp__gate_func *provider = gate ? __atomic_load_n(&gate->gate.placed, __ATOMIC_ACQUIRE) : NULL;

	if (provider == NULL)
		return (void *)(uintptr_t)handle->fallback;
	if (xp__sanitizer) {
		/* ordering: (TS2) pairs with (TS1) */
		xp__tell(&gate->gate.object.scratch, __ATOMIC_ACQUIRE);
		return (void *)(uintptr_t)provider;
	}
	if (xp__lock(NULL))
		return (void *)(uintptr_t)provider;
	provider = gate->gate.placed;
	if (provider && bind(handle, return_address - SITE_LEN, provider) && ++handle->vain >= VAIN_MAX)
		lead(handle, provider, true);
	xp__unlock();
	return (void *)(uintptr_t)(provider ? provider : handle->fallback);
}

/* xor eax, edx, xmm0, xmm1; the last two not in 32-bit code, nor in a kernel's, where they may be a user's. */
__asm__(".pushsection .text\n\t"
	".balign 16\n\t"
	".globl xp__gate_return0\n\t"
	".type xp__gate_return0, @function\n"
	"xp__gate_return0:\n\t"
	".cfi_startproc\n\t"
#ifdef __x86_64__
	"endbr64\n\t"
#ifdef __SSE2__
	"pxor %xmm0, %xmm0\n\t"
	"pxor %xmm1, %xmm1\n\t"
#endif
#else
	"endbr32\n\t"
#endif
	"xorl %eax, %eax\n\t"
	"xorl %edx, %edx\n\t"
	"ret\n\t"
	".cfi_endproc\n\t"
	".size xp__gate_return0, . - xp__gate_return0\n\t"
	".popsection");

/* ---- the interface ---- */

static int change(const char *name, enum xp__gate_wish wish, xp__gate_func *provider)
{
	struct xp__item item = {.front = &xp__gate_front};
	struct gate *gate;
	int error;

	if (name == NULL || name[0] == '\0' || (wish != XP__GATE_WITHDRAW && provider == NULL))
		return -XP__EINVAL;
	item.gate.pin = xp__keep(provider, NULL);
	error = xp__lock(NULL);
	if (!error) {
		gate = wish == XP__GATE_PROVIDE ? name_gate(name) : find(name);
		if (gate == NULL) {
			error = wish == XP__GATE_PROVIDE ? -XP__ENOMEM : -XP_E_NO_PROVIDER;
		} else {
			item.object = &gate->gate.object;
			item.gate.wish = (uint8_t)wish;
			item.gate.provider = provider;
			item.gate.bind = provider && __atomic_load_n(&eager, __ATOMIC_RELAXED);
			item.gate.straight = item.gate.bind;
			error = xp__apply_locked(&item, 1, NULL);
		}
		xp__unlock();
	}
	drop(&item);
	return error;
}

int xp__batch_add_gate(struct xp_batch *batch, const char *name, xp__gate_func *function)
{
	struct xp__item item = {.front = &xp__gate_front};
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
	item.object = &gate->gate.object;
	item.gate.wish = XP__GATE_LEAD;
	item.gate.provider = function;
	item.gate.bind = function != NULL;
	item.gate.straight = function && __atomic_load_n(&eager, __ATOMIC_RELAXED);
	item.gate.pin = xp__keep(function, NULL);
	error = xp__batch_add(batch, &item);
	if (error)
		drop(&item);
	return error;
}

int xp__gate_provide(const char *name, xp__gate_func *function)
{
	return change(name, XP__GATE_PROVIDE, function);
}

int xp__gate_replace(const char *name, xp__gate_func *function)
{
	return change(name, XP__GATE_REPLACE, function);
}

int xp_gate_withdraw(const char *name)
{
	return change(name, XP__GATE_WITHDRAW, NULL);
}

void xp_gate_set_eager(bool on)
{
	__atomic_store_n(&eager, on, __ATOMIC_RELAXED);
}

/* One item for each gate that has a provider. */
static size_t list_gates(struct xp__item *items)
{
	size_t nr = 0;

	for (struct gate *gate = gates; gate; gate = (struct gate *)gate->gate.next) {
		if (gate->gate.placed == NULL)
			continue;
		if (items) {
			items[nr] = (struct xp__item){.front = &xp__gate_front, .object = &gate->gate.object};
			items[nr].gate.wish = XP__GATE_BIND;
			items[nr].gate.provider = gate->gate.placed;
			items[nr].gate.bind = items[nr].gate.straight = true;
		}
		nr++;
	}
	return nr;
}

int xp_gate_bind_all(void)
{
	return xp__apply_listed(list_gates);
}
