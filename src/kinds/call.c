// SPDX-License-Identifier: MIT
/*
 * Static calls: targets, trampolines, call sites.
 *
 * I1  A site of an executable or shared object goes to the object's trampoline or to handle->text_target; a trampoline jumps
 *     through handle->slot, or directly to handle->text_target. Any other text is refused, and nothing is changed.
 * I2  Text that jumps through the word is right only as long as the word is: the word changes first, and a trampoline
 *     whose target comes into reach leaves it as it was.
 * I3  call->func changes after the text did: K3 is what K1 is to keys.
 * I4  What the compiler left is right from the start, and what a later update did is right for objects that come
 *     later: their handle's word leads to the entry of the shared call. So registration has nothing to change, but
 *     where a call was updated while the text that goes there was not registered. In 32-bit code it makes all
 *     trampolines direct: to go through the word takes several instructions, and a thread that rested between them would
 *     enter the old target after an update.
 * I5  What a call goes to stays mapped: the port is asked to keep it before the text lock is taken, and to let go of what
 *     was there before after it was given back. A thread that unmaps (dlclose) has the dynamic linker's lock and may want ours.
 * I6  A call defined as lazy has its sites found: once registered, its word leads to a stub that asks where the call came
 *     from. A call of the trampoline that one store can change is changed, and known from then on as if it had a record; any
 *     other costs a question, and after MISSES_MAX of them the word leads to the target: who returns where is not known before
 *     it was asked, so a tail call that is executed again and again would be asked for ever.
 *     As long as there are questions the trampoline stays as it is, and what goes by it finds the target in call->func.
 */
#include "arch/arch.h"
#include "core/batch.h"
#include "core/commit.h"
#include "core/deps.h"
#include "core/object.h"
#include "kinds/discovered.h"
#include "core/state.h"

#define XP_NO_PATCHING /* the library has no calls of its own */
#include <crosspatch/static_call.h>

static struct xp_static_call *call_of(const struct xp__request *request)
{
	return (struct xp_static_call *)request->object;
}

/* Where the object of @handle goes to call @func. */
static uintptr_t destination(const struct xp_static_call *handle, xp__call_func *func)
{
	return (uintptr_t)(func ? func : handle->stub);
}

/* Whether calls that come by the trampoline are asked where they come from (I6). */
static bool discovers(const struct xp_static_call *handle)
{
	return handle->lazy && handle->slot == handle->lazy;
}

/* ---- sites: calls, with a record or discovered, and trampolines ---- */

static void call_count(const struct xp__request *request, const struct xp__group *group, struct xp__size *size)
{
	const struct xp_static_call *handle =
		xp__site_handle(&((const struct xp_call_site *)group->records)[group->numbers[0]].call);

	(void)request;
	xp__discovered_size(handle->discovered, group->nr, size);
	size->pointers += group->nr_flag[1];
}

static int call_site(const struct xp__group *group, size_t i, struct xp__site *site)
{
	const struct xp_call_site *record =
		(const struct xp_call_site *)group->records + group->numbers[i < group->nr ? i : 0];
	struct xp_static_call *handle = xp__site_handle(&record->call);
	const struct xp__discovered *discovered = i <= group->nr ? handle->discovered : site->discovered->next;

	*site = (struct xp__site){.handle = handle, .len = XP__CALL_LEN};
	if (i < group->nr) {
		site->code = xp__relative(&record->code);
		site->record = record;
		site->flags = (uint8_t)xp__site_flags(&record->call);
		if (site->flags & XP_SITE_TRAMPOLINE)
			site->len = XP__TRAMPOLINE_LEN;
		return 1;
	}
	if (discovered == NULL)
		return -1;
	site->code = discovered->code;
	site->discovered = discovered;
	return 1;
}

/* Through the word. It is right as long as the word is; with @to, the word is to be that. */
static void indirect_form(struct xp__form *form, const struct xp__site *site, uintptr_t to)
{
	struct xp_static_call *handle = site->handle;

	xp__form_trampoline_indirect(form->bytes, site->code, &handle->slot);
	if (to && (uintptr_t)handle->slot != to) {
		form->word = &handle->slot;
		form->word_to = (xp__call_func *)to;
	}
}

/* Whether what jumps through the word is right. That of a shared call's handle leads to the entry of the call itself. */
static bool word_is_right(const struct xp_static_call *handle, uintptr_t to)
{
	return (uintptr_t)handle->slot == to ||
	       (handle->object.real && (uintptr_t)handle->slot == (uintptr_t)handle->func);
}

/*
 * A trapped thread continues at the target in either form. The one that goes to the target itself is wanted, where it is in
 * reach; of a module that comes what is right already stays. Who is asked by the word where it comes from stays (I6).
 */
static int trampoline_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
			   enum xp__which which, unsigned n, struct xp__form *form, struct xp_diag *diag)
{
	const struct xp_static_call *handle = site->handle;
	uintptr_t to = destination(handle, request->call.func);
	struct xp__form indirect = {0};
	bool is_indirect, stays;

	if (site->code % XP__TRAMPOLINE_LEN != 0)
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)site->code,
				"a trampoline that is not aligned");
	indirect_form(&indirect, site, 0);
	is_indirect = memcmp(text, indirect.bytes, XP__TRAMPOLINE_LEN) == 0;
	form->change = XP__TRAMPOLINE_CHANGE;
	form->resume = XP_RESUME_AT;
	form->resume_at = to;
	if (which < XP__RIGHT) {
		memcpy(form->bytes, indirect.bytes, XP__TRAMPOLINE_LEN);
		return n == 0 || (n == 1 && handle->text_target &&
				  xp__form_trampoline(form->bytes, site->code, (uintptr_t)handle->text_target));
	}
	if (n > 0)
		return 0;
	stays = which == XP__RIGHT || (XP__TRAMPOLINE_STAYS && request->from != XP__FROM_STATE);
	if (is_indirect && (discovers(handle) || (stays && word_is_right(handle, to))))
		indirect_form(form, site, 0);
	else if (!xp__form_trampoline(form->bytes, site->code, to))
		indirect_form(form, site, to);
	return 1;
}

/* By the trampoline, or to the target itself where one store can change it. */
static int call_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		     enum xp__which which, unsigned n, struct xp__form *form, struct xp_diag *diag)
{
	const struct xp_static_call *handle = site->handle;
	const bool tail = site->flags & XP_SITE_TAIL;
	uintptr_t to = which < XP__RIGHT ? (uintptr_t)handle->text_target : destination(handle, request->call.func);
	uint8_t by_trampoline[XP__CALL_LEN], direct[XP__CALL_LEN];
	bool has_direct, prefers;

	if (site->flags & XP_SITE_TRAMPOLINE)
		return trampoline_form(request, site, text, which, n, form, diag);
	if (!xp__form_call(by_trampoline, site->code, (uintptr_t)handle->trampoline, tail))
		return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)site->code,
				"a call out of reach of its trampoline");
	has_direct = to && xp__form_call(direct, site->code, to, tail);
	prefers = has_direct && which == XP__WANTED;
	if (which == XP__WANTED &&
	    (request->call.back || !xp__form_call_fits(site->code) ||
	     (request->from != XP__FROM_STATE && memcmp(text, by_trampoline, XP__CALL_LEN) == 0)))
		prefers = has_direct = false;
	if (n > has_direct)
		return 0;
	memcpy(form->bytes, (n == 0) == prefers ? direct : by_trampoline, XP__CALL_LEN);
	form->resume = XP_RESUME_EMULATE;
	return 1;
}

/* ---- the kind ---- */

static void call_applied(const struct xp__request *request, const struct xp__group *group)
{
	const struct xp_call_site *sites = group->records;

	for (uint32_t i = 0; i < group->nr; i++) {
		struct xp_static_call *handle = xp__site_handle(&sites[group->numbers[i]].call);

		handle->text_target = (xp__call_func *)destination(handle, request->call.func);
	}
}

static void call_end(struct xp__request *request, bool done)
{
	struct xp_static_call *call = call_of(request);
	void *pin = call->pin;

	if (!done)
		return;
	call->pin = request->call.pin;
	request->call.pin = pin;
	/* ordering: (K3) pairs with (K4) */
	__atomic_store_n(&call->func, request->call.func, __ATOMIC_RELEASE);
}

static void call_get_state(struct xp__request *request)
{
	request->call.func = call_of(request)->func;
}

/* ---- what is kept mapped ---- */

static void call_drop(struct xp__request *request)
{
	xp__unpin(request->call.pin);
	request->call.pin = NULL;
}

/* Calls that go away need their targets no more. Who updates one meanwhile is lost anyway. */
static void call_gone(const struct xp_site_table *table)
{
	for (const struct xp_call_site *site = table->start; site < (const struct xp_call_site *)table->end; site++) {
		struct xp_static_call *call = xp__site_handle(&site->call);

		if (xp__site_flags(&site->call) & XP_SITE_TRAMPOLINE) {
			xp__unpin(call->pin);
			call->pin = NULL;
		}
	}
}

/* ---- sites that are found when they are executed ---- */

#if XP__HAS_THUNKS

#define MISSES_MAX 16u /* calls that could not be changed, before no call asks any more */

extern xp__call_func xp__call_discoverer __attribute__((visibility("hidden")));
XP__THUNK(xp__call_discoverer, xp__call_discover);
void *xp__call_discover(struct xp_object *object, uintptr_t return_address);

static void call_store_slot(struct xp_static_call *call, xp__call_func *func)
{
	/* ordering: (C1) pairs with (C2) */
	__atomic_store_n(&call->slot, func, __ATOMIC_RELEASE);
}

static bool has_record(const struct xp_static_call *call, uintptr_t code)
{
	for (const struct xp__group *group = call->object.groups; group; group = group->next)
		for (uint32_t i = 0; i < group->nr; i++)
			if (xp__relative(&((const struct xp_call_site *)group->records)[group->numbers[i]].code) ==
			    code)
				return true;
	return false;
}

/* Whether the call at @code, which came by the trampoline, goes to the target itself from now on, by this thread or another. */
static bool call_place(struct xp_static_call *call, uintptr_t code)
{
	const struct xp__site site = {.code = code, .handle = call, .len = XP__CALL_LEN};
	uintptr_t to = destination(call, call->func);
	struct xp__request request = {.kind = &xp__call_kind, .object = &call->object, .only = &site};
	uint8_t by_trampoline[XP__CALL_LEN], direct[XP__CALL_LEN];

	/* The site may lie on a page of its own, or the return address may be no such thing. */
	if (xp__discovered_readable(code, XP__CALL_LEN) || !xp__form_call_fits(code) ||
	    !xp__form_call(direct, code, to, false))
		return false;
	if (memcmp((const void *)code, direct, XP__CALL_LEN) == 0)
		return true;
	if (!xp__form_call(by_trampoline, code, (uintptr_t)call->trampoline, false) ||
	    memcmp((const void *)code, by_trampoline, XP__CALL_LEN) != 0)
		return false;
	if (!has_record(call, code) && !xp__discovered_has(call->discovered, code) &&
	    !xp__discovered_add(&call->discovered, code))
		return false;
	request.call.func = call->func;
	return xp__batch_patch(&request, 1, NULL) == 0 && memcmp((const void *)code, direct, XP__CALL_LEN) == 0;
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
	if (discovers(call) && !call_place(call, return_address - XP__CALL_LEN) && ++call->misses >= MISSES_MAX)
		call_store_slot(call, (xp__call_func *)destination(call, func));
	xp__unlock();
	return (void *)destination(call, func);
}

/* Before its records are known no site is looked for. */
static void call_live(const struct xp_site_table *table)
{
	uintptr_t page = 0;

	for (const struct xp_call_site *site = table->start; site < (const struct xp_call_site *)table->end; site++) {
		struct xp_static_call *call = xp__site_handle(&site->call);

		if (!(xp__site_flags(&site->call) & XP_SITE_TRAMPOLINE) || !call->lazy || call->misses >= MISSES_MAX ||
		    !xp__text_readable(&page, xp__relative(&site->code), XP__TRAMPOLINE_LEN) ||
		    !xp__form_trampoline_is_indirect((const uint8_t *)xp__relative(&site->code)))
			continue;
		call->discoverer = xp__call_discoverer;
		call_store_slot(call, call->lazy);
	}
}

/* Sites that no record names go back to the trampoline: if the table came back, it would not know them. */
static void call_going(const struct xp_site_table *table)
{
	for (const struct xp_call_site *site = table->start; site < (const struct xp_call_site *)table->end; site++) {
		struct xp_static_call *call = xp__site_handle(&site->call);

		for (const struct xp__discovered *discovered = call->discovered; discovered;
		     discovered = discovered->next) {
			const struct xp__site only = {.code = discovered->code, .handle = call, .len = XP__CALL_LEN};
			struct xp__request request = {.kind = &xp__call_kind, .object = &call->object, .only = &only};

			request.call.func = call->func;
			request.call.back = true;
			(void)xp__batch_patch(&request, 1, NULL);
		}
		xp__discovered_drop(&call->discovered);
		if (discovers(call))
			call_store_slot(call, (xp__call_func *)destination(call, call->func));
	}
}

#endif

static bool call_sound(struct xp__known *known, const void *record)
{
	const struct xp_static_call *handle = xp__site_handle(&((const struct xp_call_site *)record)->call);

	(void)known;
	return handle->slot && handle->trampoline && handle->stub;
}

const struct xp__kind xp__call_kind = {
	.record_size = sizeof(struct xp_call_site),
	.object_size = sizeof(struct xp_static_call),
	.sound = call_sound,
	.object_at = offsetof(struct xp_call_site, call),
	.nr_relative = 2,
	.end = call_end,
	.get_state = call_get_state,
	.count = call_count,
	.site = call_site,
	.form = call_form,
	.applied = call_applied,
	.drop = call_drop,
	.gone = call_gone,
#if XP__HAS_THUNKS
	.live = call_live,
	.going = call_going,
#endif
};

static struct xp__request call_request_of(struct xp_static_call *call, xp__call_func *func)
{
	struct xp__request request = {.kind = &xp__call_kind, .object = xp__real(&call->object)};

	request.call.func = func;
	request.call.pin = xp__pin(func, request.object);
	return request;
}

int xp__static_call_update(struct xp_static_call *call, xp__call_func *func)
{
	struct xp__request request = call_request_of(call, func);
	int error = xp__batch_apply(&request, NULL);

	call_drop(&request);
	return error;
}

int xp__batch_add_call(struct xp_batch *batch, struct xp_static_call *call, xp__call_func *func)
{
	struct xp__request request = call_request_of(call, func);
	int error = xp__batch_add(batch, &request);

	if (error)
		call_drop(&request);
	return error;
}
