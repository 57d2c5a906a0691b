// SPDX-License-Identifier: MIT
/*
 * Static calls: targets, trampolines, call sites.
 *
 * I1  A site of an executable or shared object goes to the object's trampoline or to handle->placed; a trampoline jumps
 *     through handle->through, or directly to handle->placed. Any other text is refused, and nothing is changed.
 * I2  Text that jumps through the word is right only as long as the word is: the word changes first, and a trampoline
 *     whose target comes into reach leaves it as it was.
 * I3  call->func changes after the text did: K3 is what K1 is to keys.
 * I4  What the compiler left is right from the start, and what a later update did is right for objects that come
 *     later: their handle's word leads to the entry of the shared call. So registration has nothing to change, but
 *     where a call was updated while the text that goes there was not registered. In 32-bit code it makes all
 *     trampolines direct: to go through the word takes several instructions, and a thread that rested between them would
 *     enter the old target after an update.
 * I5  What a call goes to stays mapped: the port is asked to keep it before the text lock is taken, and to let go of what
 *     was there before after it was given back. Whoever unmaps (dlclose) has the dynamic linker's lock and may want ours.
 * I6  A call defined as lazy has its sites found: once registered, its word leads to a stub that asks where the call came
 *     from. A call of the trampoline that one store can change is changed, and known from then on as if it had a record; any
 *     other costs a question, and after VAIN_MAX of them the word leads to the target: who returns where is not known before
 *     it was asked, so a tail call that is executed again and again would be asked for ever.
 *     As long as there are questions the trampoline stays as it is, and what goes by it finds the target in call->func.
 */
#include "arch/x86/thunk.h"
#include "core/batch.h"
#include "core/deps.h"
#include "core/engine.h"
#include "core/found.h"

#define XP_NO_PATCHING /* the library has no calls of its own */
#include <crosspatch/static_call.h>

enum {
	SITE_LEN = 5,
	TRAMPOLINE_LEN = 8,
	TRAMPOLINE_JMP = 6, /* bytes of it that are executed or padding: the rest never changes */
	THROUGH_WORD = 8,   /* 32-bit code: where behind the trampoline the code stands that goes through the word */
};

static struct xp_static_call *call_of(const struct xp__item *item)
{
	return (struct xp_static_call *)item->object;
}

/* The handle that the record names, not the shared call behind it. */
static struct xp_static_call *handle_of(const struct xp_call_site *site)
{
	return (struct xp_static_call *)(xp__relative(&site->call) & ~(uintptr_t)XP_SITE_FLAGS);
}

/* Where the object of @handle goes to call @func. */
static uintptr_t destination(const struct xp_static_call *handle, xp__call_func *func)
{
	return (uintptr_t)(func ? func : handle->stub);
}

/* Whether calls that come by the trampoline are asked where they come from (I6). */
static bool discovers(const struct xp_static_call *handle)
{
	return handle->lazy && handle->through == handle->lazy;
}

/* ---- trampolines ---- */

/* E9 disp32 90, and what follows in either form; false: out of reach. */
static bool direct_form(uint8_t *bytes, uintptr_t code, uintptr_t to)
{
	bytes[5] = 0x90;
	bytes[6] = 0x0f;
	bytes[7] = 0x0b;
	return xp__insn_rel32(bytes, 0xe9, code, to);
}

/* As the compiler left it: FF 25 disp32; in 32-bit code a jmp to the code behind it. */
static void indirect_form(uint8_t *bytes, uintptr_t code, const struct xp_static_call *handle)
{
#ifdef __x86_64__
	int32_t disp = (int32_t)((uintptr_t)&handle->through - (code + TRAMPOLINE_JMP));

	bytes[0] = 0xff;
	bytes[1] = 0x25;
	memcpy(bytes + 2, &disp, sizeof(disp));
	bytes[6] = 0x0f;
	bytes[7] = 0x0b;
#else
	(void)handle;
	(void)direct_form(bytes, code, code + THROUGH_WORD);
#endif
}

/* Whether a trampoline that is right as it is may stay indirect. */
static bool may_stay(bool direct)
{
#ifdef __x86_64__
	(void)direct;
	return true;
#else
	return direct;
#endif
}

/* What a trampoline was that is as wished: what it would have been, had it been direct already. */
static int undo_trampoline(const struct xp__item *item, const struct xp_static_call *handle, uintptr_t code,
			   struct xp__commit *commit, size_t first, struct xp_diag *diag)
{
	uintptr_t to = destination(handle, item->call.func);
	uint8_t indirect[TRAMPOLINE_LEN], direct[TRAMPOLINE_LEN], new[TRAMPOLINE_LEN];
	struct xp__change change = {
		.addr = code,
		.old = indirect,
		.new = new,
		.len = TRAMPOLINE_JMP,
		.known = TRAMPOLINE_JMP,
		.resume = XP_RESUME_AT,
		.resume_at = to,
	};

	indirect_form(indirect, code, handle);
	/* Who is asked by it stayed, and so did what jumps through a word that did not change. */
	if (memcmp((const void *)code, indirect, TRAMPOLINE_LEN) == 0)
		return 0;
	if (!direct_form(new, code, to) || memcmp((const void *)code, new, TRAMPOLINE_LEN) != 0)
		return xp__fail_site(diag, &handle->object, code, new, TRAMPOLINE_LEN);
	if (handle->placed && direct_form(direct, code, (uintptr_t)handle->placed))
		change.old = direct;
	if (memcmp(change.old, new, TRAMPOLINE_JMP) == 0)
		return 0;
	return xp__commit_change_either(commit, &change, indirect, first, diag);
}

static int fail_unreadable(const struct xp_static_call *handle, uintptr_t code, struct xp_diag *diag)
{
	if (diag)
		diag->key = handle->object.name;
	return xp__fail_unreadable(diag, code);
}

/* What a trampoline is and what it must become. A trapped thread continues at the target in either form. */
static int add_trampoline(const struct xp__item *item, const struct xp_call_site *site, struct xp__commit *commit,
			  size_t first, struct xp_diag *diag)
{
	struct xp_static_call *handle = handle_of(site);
	uintptr_t code = xp__relative(&site->code), to = destination(handle, item->call.func);
	const uint8_t *text = (const uint8_t *)code;
	bool direct, near;
	uint8_t old[TRAMPOLINE_LEN], new[TRAMPOLINE_LEN];
	struct xp__change change = {
		.addr = code,
		.old = old,
		.new = new,
		.len = TRAMPOLINE_JMP,
		.known = TRAMPOLINE_JMP,
		.resume = XP_RESUME_AT,
		.resume_at = to,
	};
	int error;

	if (code % TRAMPOLINE_LEN != 0)
		return xp__fail_record(diag, &handle->object, code, "a trampoline that is not aligned");
	if (!xp__commit_readable(commit, code, TRAMPOLINE_LEN))
		return fail_unreadable(handle, code, diag);
	if (item->undo)
		return undo_trampoline(item, handle, code, commit, first, diag);
	indirect_form(old, code, handle);
	direct = handle->placed && text[0] == 0xe9 && memcmp(text, old, TRAMPOLINE_LEN) != 0;
	if (direct)
		(void)direct_form(old, code, (uintptr_t)handle->placed);
	if (memcmp(text, old, TRAMPOLINE_LEN) != 0)
		return xp__fail_site(diag, &handle->object, code, old, TRAMPOLINE_LEN);
	if (discovers(handle) && !direct)
		return 0;

	if (item->goal != XP__GOAL_CHANGE) {
		uintptr_t goes_to = (uintptr_t)(direct ? handle->placed : handle->through);

		/* A handle's word leads to the entry of the shared call, which is right whatever comes. */
		if (may_stay(direct) && (goes_to == to || (handle->object.real && goes_to == (uintptr_t)handle->func)))
			return 0;
	}
	near = direct_form(new, code, to);
	if (!near) {
		indirect_form(new, code, handle);
		if ((uintptr_t)handle->through != to)
			xp__commit_pointer(commit, &handle->through, (xp__call_func *)to);
	}
	if (memcmp(old, new, TRAMPOLINE_JMP) == 0)
		return 0;
	error = xp__commit_change(commit, &change, first, diag);
	return error < 0 ? error : 0;
}

/* ---- call sites ---- */

/* The displacement lies inside one aligned quadword: one store changes it, whatever the writer of today can do. */
static bool fits(uintptr_t code)
{
	return (code + 1) / 8 == (code + SITE_LEN - 1) / 8;
}

/* What a call was that is as wished. By the trampoline it is right whatever the trampoline's own target. */
static int undo_site(const struct xp__item *item, const struct xp_static_call *handle, struct xp__change *change,
		     const uint8_t *by_trampoline, struct xp__commit *commit, size_t first, struct xp_diag *diag)
{
	const uint8_t *text = (const uint8_t *)change->addr;
	uint8_t placed[SITE_LEN], direct[SITE_LEN];

	if (memcmp(text, by_trampoline, SITE_LEN) == 0)
		return 0;
	if (!xp__insn_rel32(direct, by_trampoline[0], change->addr, destination(handle, item->call.func)) ||
	    memcmp(text, direct, SITE_LEN) != 0)
		return xp__fail_site(diag, &handle->object, change->addr, by_trampoline, SITE_LEN);
	change->new = direct;
	change->old = by_trampoline;
	if (handle->placed && xp__insn_rel32(placed, by_trampoline[0], change->addr, (uintptr_t)handle->placed))
		change->old = placed;
	if (memcmp(change->old, change->new, SITE_LEN) == 0)
		return 0;
	return xp__commit_change_either(commit, change, by_trampoline, first, diag);
}

static int add_site(const struct xp__item *item, const struct xp_static_call *handle, uintptr_t code, uint8_t opcode,
		    struct xp__commit *commit, size_t first, struct xp_diag *diag)
{
	uintptr_t to = destination(handle, item->call.func);
	uint8_t by_trampoline[SITE_LEN], placed[SITE_LEN], direct[SITE_LEN];
	const uint8_t *text = (const uint8_t *)code;
	struct xp__change change = {.addr = code, .len = SITE_LEN, .known = SITE_LEN, .resume = XP_RESUME_EMULATE};
	int error;

	if (!xp__insn_rel32(by_trampoline, opcode, code, (uintptr_t)handle->trampoline))
		return xp__fail_record(diag, &handle->object, code, "a call out of reach of its trampoline");
	if (!xp__commit_readable(commit, code, SITE_LEN))
		return fail_unreadable(handle, code, diag);
	if (item->undo)
		return undo_site(item, handle, &change, by_trampoline, commit, first, diag);
	if (memcmp(text, by_trampoline, SITE_LEN) == 0)
		change.old = by_trampoline;
	else if (handle->placed && xp__insn_rel32(placed, opcode, code, (uintptr_t)handle->placed) &&
		 memcmp(text, placed, SITE_LEN) == 0)
		change.old = placed;
	else
		return xp__fail_site(diag, &handle->object, code, by_trampoline, SITE_LEN);

	if (item->goal != XP__GOAL_CHANGE && change.old == by_trampoline)
		return 0;
	change.new = by_trampoline;
	if (!item->call.back && fits(code) && xp__insn_rel32(direct, opcode, code, to))
		change.new = direct;
	if (memcmp(change.old, change.new, SITE_LEN) == 0)
		return 0;
	/* Under shadow stacks a call is not emulated: if that is the only way, the site stays on its trampoline. */
	if (change.old == by_trampoline) {
		error = xp__commit_change(commit, &change, first, NULL);
		if (error >= 0 || error == -XP_E_SHADOW_STACK)
			return 0;
	}
	error = xp__commit_change(commit, &change, first, diag);
	return error < 0 ? error : 0;
}

/* ---- the front ---- */

static void measure(const struct xp__item *item, const struct xp__use *use, struct xp__size *size)
{
	const struct xp_static_call *handle = handle_of((const struct xp_call_site *)use->records + use->numbers[0]);
	size_t nr = use->nr;

	for (const struct xp__found *found = handle->found; found; found = found->next)
		nr++;
	if (item->call.site)
		nr = 1;
	size->sites += nr;
	size->plans += nr;
	size->pointers += item->call.site ? 0 : use->nr_flag[1];
}

/* A record's site, or trampoline. */
static int add_record(const struct xp__item *item, const struct xp_call_site *site, struct xp__commit *commit,
		      size_t first, struct xp_diag *diag)
{
	unsigned flags = xp__site_flags(&site->call);

	if (flags & XP_SITE_TRAMPOLINE)
		return add_trampoline(item, site, commit, first, diag);
	return add_site(item, handle_of(site), xp__relative(&site->code), flags & XP_SITE_TAIL ? 0xe9 : 0xe8, commit,
			first, diag);
}

static int add(const struct xp__item *item, const struct xp__use *use, struct xp__commit *commit, struct xp_diag *diag)
{
	const struct xp_call_site *sites = use->records;
	const struct xp_static_call *handle = handle_of(&sites[use->numbers[0]]);
	size_t first = commit->nr_plans;
	int error = 0;

	if (item->call.site)
		return add_site(item, handle, item->call.site, 0xe8, commit, first, diag);
	for (uint32_t i = 0; i < use->nr && !error; i++)
		if (xp__commit_takes(commit))
			error = add_record(item, &sites[use->numbers[i]], commit, first, diag);
	for (const struct xp__found *found = handle->found; found && !error; found = found->next)
		if (xp__commit_takes(commit))
			error = add_site(item, handle, found->code, 0xe8, commit, first, diag);
	return error;
}

/* A site with a record, or found. */
static void look_at_site(struct xp__look *look, const struct xp_static_call *handle, uintptr_t code, uint8_t opcode)
{
	uint8_t direct[SITE_LEN];

	if (!xp__look_at(look, code, SITE_LEN))
		return;
	/* By the trampoline it is right, too. */
	look->known = xp__insn_rel32(look->wanted, opcode, code, (uintptr_t)handle->trampoline);
	if (handle->placed && xp__insn_rel32(direct, opcode, code, (uintptr_t)handle->placed) &&
	    memcmp((const void *)code, direct, SITE_LEN) == 0)
		memcpy(look->wanted, direct, SITE_LEN);
}

/* What jumps through the word is right as long as the word is. */
static void look_at_trampoline(struct xp__look *look, const struct xp__item *item, const struct xp_static_call *handle,
			       uintptr_t code)
{
	uintptr_t to = destination(handle, item->call.func), through = (uintptr_t)handle->through;
	bool through_is_right =
		through == to || discovers(handle) || (handle->object.real && through == (uintptr_t)handle->func);
	uint8_t indirect[TRAMPOLINE_LEN];

	if (!xp__look_at(look, code, TRAMPOLINE_LEN))
		return;
	look->len = TRAMPOLINE_JMP;
	indirect_form(indirect, code, handle);
	look->first[0] = indirect[0];
	look->form = memcmp((const void *)code, indirect, TRAMPOLINE_LEN) == 0;
	look->known = true;
	if ((look->form && through_is_right) || !direct_form(look->wanted, code, to))
		memcpy(look->wanted, indirect, TRAMPOLINE_JMP);
	look->resume_at = to;
}

static int look(const struct xp__item *item, const struct xp__use *use, size_t i, struct xp__look *look)
{
	const struct xp_call_site *sites = use->records, *site = &sites[use->numbers[i < use->nr ? i : 0]];
	const struct xp_static_call *handle = handle_of(site);
	const struct xp__found *found = handle->found;
	unsigned flags = xp__site_flags(&site->call);

	for (size_t at = use->nr; i >= use->nr && found && at < i; at++)
		found = found->next;
	if (i >= use->nr && found == NULL)
		return -1;
	if (i >= use->nr)
		look_at_site(look, handle, found->code, 0xe8);
	else if (flags & XP_SITE_TRAMPOLINE)
		look_at_trampoline(look, item, handle, xp__relative(&site->code));
	else
		look_at_site(look, handle, xp__relative(&site->code), flags & XP_SITE_TAIL ? 0xe9 : 0xe8);
	return 1;
}

static void settled(const struct xp__item *item, const struct xp__use *use)
{
	const struct xp_call_site *sites = use->records;

	for (uint32_t i = 0; i < use->nr; i++) {
		struct xp_static_call *handle = handle_of(&sites[use->numbers[i]]);

		handle->placed = (xp__call_func *)destination(handle, item->call.func);
	}
}

static void finish(struct xp__item *item, bool done)
{
	struct xp_static_call *call = call_of(item);
	void *pin = call->pin;

	if (!done)
		return;
	call->pin = item->call.pin;
	item->call.pin = pin;
	/* ordering: (K3) pairs with (K4) */
	__atomic_store_n(&call->func, item->call.func, __ATOMIC_RELEASE);
}

static void current(struct xp__item *item)
{
	item->call.func = call_of(item)->func;
}

/* ---- what is kept mapped ---- */

static void drop(struct xp__item *item)
{
	xp__let_go(item->call.pin);
	item->call.pin = NULL;
}

/* Calls that go away need their targets no more. Who updates one meanwhile is lost anyway. */
static void leave(const struct xp_site_table *table)
{
	for (const struct xp_call_site *site = table->start; site < (const struct xp_call_site *)table->end; site++) {
		struct xp_static_call *call = handle_of(site);

		if (xp__site_flags(&site->call) & XP_SITE_TRAMPOLINE) {
			xp__let_go(call->pin);
			call->pin = NULL;
		}
	}
}

/* ---- sites that are found when they are executed ---- */

#ifdef __x86_64__

#define VAIN_MAX 16u /* calls that could not be changed, before nobody asks any more */

extern xp__call_func xp__call_discoverer __attribute__((visibility("hidden")));
XP__THUNK(xp__call_discoverer, xp__call_discover);
void *xp__call_discover(struct xp_object *object, uintptr_t return_address);

static void store_through(struct xp_static_call *call, xp__call_func *func)
{
	/* ordering: (C1) pairs with (C2) */
	__atomic_store_n(&call->through, func, __ATOMIC_RELEASE);
}

static bool has_record(const struct xp_static_call *call, uintptr_t code)
{
	for (const struct xp__use *use = call->object.uses; use; use = use->next)
		for (uint32_t i = 0; i < use->nr; i++)
			if (xp__relative(&((const struct xp_call_site *)use->records)[use->numbers[i]].code) == code)
				return true;
	return false;
}

/* Whether the call at @code, which came by the trampoline, goes to the target itself from now on, by this thread or another. */
static bool place(struct xp_static_call *call, uintptr_t code)
{
	uintptr_t to = destination(call, call->func);
	struct xp__item item = {.front = &xp__call_front, .object = &call->object};
	uint8_t by_trampoline[SITE_LEN], direct[SITE_LEN];

	/* The site may lie on a page of its own, or the return address may be no such thing. */
	if (xp__found_readable(code, SITE_LEN) || !fits(code) || !xp__insn_rel32(direct, 0xe8, code, to))
		return false;
	if (memcmp((const void *)code, direct, SITE_LEN) == 0)
		return true;
	if (!xp__insn_rel32(by_trampoline, 0xe8, code, (uintptr_t)call->trampoline) ||
	    memcmp((const void *)code, by_trampoline, SITE_LEN) != 0)
		return false;
	if (!has_record(call, code) && !xp__found_has(call->found, code) && !xp__found_add(&call->found, code))
		return false;
	item.call.func = call->func;
	item.call.site = code;
	return xp__patch_locked(&item, 1, NULL) == 0 && memcmp((const void *)code, direct, SITE_LEN) == 0;
}

/* The thunk's question, for a call that returns to @return_address. */
void *xp__call_discover(struct xp_object *object, uintptr_t return_address)
{
	struct xp_static_call *call = (struct xp_static_call *)object;
	xp__call_func *func;

	if (xp__lock(NULL)) {
		/* ordering: (K4) pairs with (K3) */
		func = __atomic_load_n(&call->func, __ATOMIC_ACQUIRE);
		return (void *)destination(call, func);
	}
	func = call->func;
	if (discovers(call) && !place(call, return_address - SITE_LEN) && ++call->vain >= VAIN_MAX)
		store_through(call, (xp__call_func *)destination(call, func));
	xp__unlock();
	return (void *)destination(call, func);
}

/* Before its records are known no site is looked for. */
static void arrived(const struct xp_site_table *table)
{
	uintptr_t page = 0;

	for (const struct xp_call_site *site = table->start; site < (const struct xp_call_site *)table->end; site++) {
		struct xp_static_call *call = handle_of(site);

		if (!(xp__site_flags(&site->call) & XP_SITE_TRAMPOLINE) || !call->lazy || call->vain >= VAIN_MAX ||
		    !xp__text_readable(&page, xp__relative(&site->code), TRAMPOLINE_LEN) ||
		    *(const uint8_t *)xp__relative(&site->code) != 0xff)
			continue;
		call->discoverer = xp__call_discoverer;
		store_through(call, call->lazy);
	}
}

/* Sites that no record names go back to the trampoline: should the table come back, nobody would know them. */
static void depart(const struct xp_site_table *table)
{
	for (const struct xp_call_site *site = table->start; site < (const struct xp_call_site *)table->end; site++) {
		struct xp_static_call *call = handle_of(site);

		for (const struct xp__found *found = call->found; found; found = found->next) {
			struct xp__item item = {.front = &xp__call_front, .object = &call->object};

			item.call.func = call->func;
			item.call.site = found->code;
			item.call.back = true;
			(void)xp__patch_locked(&item, 1, NULL);
		}
		xp__found_drop(&call->found);
		if (discovers(call))
			store_through(call, (xp__call_func *)destination(call, call->func));
	}
}

#endif

const struct xp__front xp__call_front = {
	.record_size = sizeof(struct xp_call_site),
	.object_at = offsetof(struct xp_call_site, call),
	.nr_relative = 2,
	.rounds = true,
	.finish = finish,
	.current = current,
	.measure = measure,
	.add = add,
	.look = look,
	.settled = settled,
	.drop = drop,
	.leave = leave,
#ifdef __x86_64__
	.arrived = arrived,
	.depart = depart,
#endif
};

static struct xp__item item_of(struct xp_static_call *call, xp__call_func *func)
{
	struct xp__item item = {.front = &xp__call_front, .object = xp__real(&call->object)};

	item.call.func = func;
	item.call.pin = xp__keep(func, item.object);
	return item;
}

int xp__static_call_update(struct xp_static_call *call, xp__call_func *func)
{
	struct xp__item item = item_of(call, func);
	int error = xp__apply(&item, NULL);

	drop(&item);
	return error;
}

int xp__batch_add_call(struct xp_batch *batch, struct xp_static_call *call, xp__call_func *func)
{
	struct xp__item item = item_of(call, func);
	int error = xp__batch_add(batch, &item);

	if (error)
		drop(&item);
	return error;
}
