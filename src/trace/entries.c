// SPDX-License-Identifier: MIT
/*
 * Entries as a kind of sites: which text they may have, and the modules that they come and go with.
 *
 * I1  An entry does nothing, or is a call of its module's stub, or a jmp to a replacement: function->text says which. Any other
 *     text is refused, and nothing is changed.
 * I2  Handlers and the replacement change after the text did, both in one store: until then a call by the new text runs
 *     what was there before, so that a commit that fails was never seen.
 * I3  An entry calls the stub if there are handlers, or if the replacement is out of reach of a jmp. Each call that comes
 *     through then reads where the function was redirected to. So text and data may change one after the other.
 * I4  A request adds to those before it in the same batch: the last one's commit has them all.
 * I5  An entry that does nothing is a nop, or what differs from the call in one byte, which may change flags, as tracing does.
 *     The compiler's plugin makes the latter; a nop becomes it when the function is traced or prepared. A function that is only
 *     redirected and restored has its nop again.
 *
 * Ordering: F1. core/reclaim.c has the argument.
 */
#include "trace/entries.h"

#include "arch/arch.h"
#include "core/commit.h"
#include "core/deps.h"
#include "core/drift.h"
#include "core/emit.h"
#include "core/state.h"
#include "trace/inside.h"
#include "trace/match.h"
#include "trace/run.h"

#if XP__HAS_ENTRIES

static struct xp__entries *departed;
static uint64_t nr_traced, nr_redirected;

static bool is_traced(const struct xp__handlers *list)
{
	return list && list->nr > 0;
}

static uintptr_t redirect_of(const struct xp__handlers *list)
{
	return list ? list->redirect : 0;
}

/* What a call runs when the commit under way is done. */
static const struct xp__handlers *handlers_after(const struct xp__function *function)
{
	return function->changes ? function->new_handlers : function->handlers;
}

/* ---- the kind ---- */

/* What @request makes of a list. */
static int list_after(struct xp__handlers **new, struct xp__handlers *list, const struct xp__request *request)
{
	*new = list;
	if (xp__port->function_thread == NULL && request->entry.op == XP__ENTRY_TRACE)
		return -XP_E_NO_METHOD;
	switch (request->entry.op) {
	case XP__ENTRY_TRACE:
		return xp__handlers_with(new, list, request);
	case XP__ENTRY_UNTRACE:
		return xp__handlers_without(new, list, request);
	case XP__ENTRY_REDIRECT:
		return xp__handlers_redirected(new, list, request);
	default:
		return 0;
	}
}

static void give(struct xp__handlers *list)
{
	if (xp__handlers_drop(list))
		xp__reclaim_give(list, list->block.size);
}

/* I4: the request changes the list that is there, or the one that an earlier request of this commit made of it. */
static int entry_begin(struct xp__request *request)
{
	struct xp__function *function = xp__function_of(request->object);
	struct xp__handlers *list = function->changes ? function->new_handlers : function->handlers, *new;
	int error = list_after(&new, list, request);

	if (error)
		return error;
	if (new != list && list != function->handlers)
		give(list);
	function->new_handlers = new;
	function->changes = true;
	return 0;
}

/* A function is done with: the commit's list is its own. Returns the list before if no function has it any more. */
static struct xp__handlers *publish(struct xp__function *function)
{
	struct xp__handlers *old = function->handlers, *new = function->new_handlers;

	function->changes = false;
	if (old == new)
		return NULL;
	nr_traced += is_traced(new) - is_traced(old);
	nr_redirected += (redirect_of(new) != 0) - (redirect_of(old) != 0);
	/* ordering: (F1) pairs with (F2); the barrier is published()'s */
	__atomic_store_n(&function->handlers, new, __ATOMIC_RELEASE);
	return xp__handlers_drop(old) ? old : NULL;
}

/* All functions of the commit were: what was replaced is retired. */
static void published(struct xp__block *old)
{
	/* ordering: (F1) pairs with (F2) */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	while (old) {
		struct xp__block *next = old->next;

		xp__reclaim_retire(&xp__inside_domain, old);
		old = next;
	}
}

/* No function has the list of one that stays as it was. */
static void take_back(struct xp__function *function)
{
	function->changes = false;
	if (function->new_handlers != function->handlers)
		give(function->new_handlers);
}

static void entry_end(struct xp__request *request, bool done)
{
	struct xp__function *function = xp__function_of(request->object);
	struct xp__handlers *old;
	void *pin = function->pin;

	if (done && request->entry.op == XP__ENTRY_REDIRECT) {
		function->pin = request->entry.pin;
		request->entry.pin = pin;
	}
	if (!function->changes)
		return;
	if (!done) {
		take_back(function);
		return;
	}
	old = publish(function);
	if (old)
		old->block.next = NULL;
	published(old ? &old->block : NULL);
}

int xp__entry_refuse(const struct xp__function *function, int error, const char *detail, struct xp_diag *diag)
{
	if (diag)
		diag->key = function->object.name;
	return xp__fail(diag, error, XP_PHASE_VALIDATE, (const void *)function->code, detail);
}

/* I5. What does nothing: what stands there, if it does and is not to be prepared. */
static void off_text(const struct xp__function *function, bool prepare, uint8_t *bytes)
{
	uintptr_t code = function->code, stub = function->module->stub;

	if (!prepare && xp__entry_is_off(code, stub, function->text))
		memcpy(bytes, function->text, XP__ENTRY_LEN);
	else if (!(prepare || function->flips) || stub == 0 || !xp__form_entry_off(bytes, code, stub))
		xp__form_entry_nop(bytes);
}

/* I3. Fills in the text that the entry is to have; an error if it cannot have it. */
static int wanted(const struct xp__function *function, bool prepare, uint8_t *bytes, struct xp_diag *diag)
{
	const struct xp__handlers *handlers = handlers_after(function);
	uintptr_t redirect = redirect_of(handlers);

	if (!is_traced(handlers) && redirect == 0) {
		off_text(function, prepare, bytes);
		return 0;
	}
	if (!is_traced(handlers) && xp__form_jump(bytes, function->code, redirect))
		return 0;
	/* The thunk does not return to its caller: a shadow stack forbids that. */
	if (redirect && !xp__port->can(XP_NEED_CALL))
		return xp__entry_refuse(function, -XP_E_SHADOW_STACK,
					"a replacement that is traced, or farther than 2 GiB away", diag);
	if (function->module->stub == 0)
		return xp__entry_refuse(function, -XP_E_NO_ENTRY,
					"no file of its object includes <crosspatch/function.h>", diag);
	if (xp__port->function_thread == NULL)
		return xp__entry_refuse(function, -XP_E_NO_METHOD, "the port keeps nothing for threads", diag);
	if (!xp__form_call(bytes, function->code, function->module->stub, false))
		return xp__entry_refuse(function, -XP_E_RANGE, "the stub is out of the entry's reach", diag);
	return 0;
}

static bool is_prepare(const struct xp__request *request)
{
	return request->entry.op == XP__ENTRY_PREPARE;
}

/* ---- one byte ---- */

/* The call and what differs from it in one byte, whatever the function: their sites share two plans. */
static int entry_plan(struct xp__commit *commit, enum xp__way way, struct xp_diag *diag)
{
	uint8_t old[XP__ENTRY_LEN], new[XP__ENTRY_LEN];
	struct xp__change change = {.old = old, .new = new, .len = XP__ENTRY_LEN, .known = XP__ENTRY_SHARED};
	bool calls = way == XP__TO_CALL;
	int number = xp__commit_way(commit, way);

	if (number >= 0)
		return number;
	(void)xp__form_entry_off(calls ? old : new, 0, XP__ENTRY_LEN);
	(void)xp__form_call(calls ? new : old, 0, XP__ENTRY_LEN, false);
	return xp__commit_new_way(commit, way, &change, diag);
}

/* Whether only that byte changes where the list @from becomes @to, and to what; XP__NR_WAYS: that is not known. */
static enum xp__way lists_way(const struct xp__request *request, const struct xp__handlers *from,
			      const struct xp__handlers *to)
{
	if (request->from != XP__FROM_STATE || request->early || redirect_of(from) || redirect_of(to) ||
	    is_traced(from) == is_traced(to) || xp__port->function_thread == NULL)
		return XP__NR_WAYS;
	return is_traced(to) ? XP__TO_CALL : XP__TO_OFF;
}

/* Whether the entry can go that way. One that is as it is to be is left to the general way. */
static inline enum xp__way way_of(const struct xp__function *function, enum xp__way way)
{
	return function->flips && function->module->stub ? way : XP__NR_WAYS;
}

static void count_way(enum xp__way way, struct xp__size *size)
{
	size->sites++;
	if (way == XP__NR_WAYS)
		size->plans++;
	else
		xp__size_way(size, way);
}

static enum xp__way entry_way(const struct xp__function *function, const struct xp__request *request)
{
	return way_of(function, lists_way(request, function->handlers, handlers_after(function)));
}

static void entry_count(const struct xp__request *request, const struct xp__group *group, struct xp__size *size)
{
	count_way(entry_way(xp__function_of(group->object), request), size);
}

static int entry_emit(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		      struct xp_diag *diag)
{
	const struct xp__function *function = xp__function_of(group->object);
	enum xp__way way = entry_way(function, request);
	uintptr_t code = function->code;
	int plan;

	if (way == XP__NR_WAYS || !xp__commit_readable(commit, code, XP__ENTRY_LEN) ||
	    !xp__entry_is(code, function->module->stub, way == XP__TO_OFF))
		return xp__emit_sites(request, group, commit, diag);
	plan = entry_plan(commit, way, diag);
	if (plan < 0)
		return plan;
	xp__commit_add(commit, code, (uint32_t)plan);
	return 0;
}

/* ---- its forms ---- */

static int entry_site(const struct xp__group *group, size_t i, struct xp__site *site)
{
	struct xp__function *function = xp__function_of(group->object);

	*site = (struct xp__site){.code = function->code, .handle = function, .len = XP__ENTRY_LEN};
	return i > 0 ? -1 : function->code != 0;
}

/* Form number @n of those that an entry may have in any state. */
static int any_form(const struct xp__function *function, const uint8_t *text, unsigned n, uint8_t *bytes)
{
	uintptr_t redirect = redirect_of(function->handlers);

	uintptr_t stub = function->module->stub;

	if (n == 0 && xp__entry_is_off(function->code, stub, text)) {
		memcpy(bytes, text, XP__ENTRY_LEN);
		return 1;
	}
	if (n < 2)
		return xp__form_entry_built(bytes, n);
	if (n == 2 && stub)
		return xp__form_call(bytes, function->code, stub, false);
	if (n == 3 && stub)
		return xp__form_entry_off(bytes, function->code, stub);
	return n <= 4 && redirect && xp__form_jump(bytes, function->code, redirect);
}

static int entry_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		      enum xp__which which, unsigned n, struct xp__form *form, struct xp_diag *diag)
{
	const struct xp__function *function = site->handle;
	int error;

	form->resume = XP_RESUME_EMULATE;
	if (which == XP__FROM_ANY)
		return any_form(function, text, n, form->bytes);
	if (n > 0)
		return 0;
	error = which == XP__WANTED ? wanted(function, is_prepare(request), form->bytes, diag) : 0;
	if (error)
		return error;
	/* What stands there is right until the next commit. */
	if (which != XP__WANTED)
		memcpy(form->bytes, function->text, XP__ENTRY_LEN);
	return 1;
}

int xp__functions_each(int (*visit)(const struct xp__group *groups, void *data), void *data)
{
	int result = 0;

	for (const struct xp__entries *module = xp__entries; module && !result; module = module->next)
		for (const struct xp__function *f = module->functions; f && !result; f = f->next)
			result = visit(&f->group, data);
	return result;
}

/* The text is what the commit made of it. */
static void note_text(struct xp__function *function, const struct xp__request *request)
{
	const struct xp__handlers *handlers = handlers_after(function);

	(void)wanted(function, is_prepare(request), function->text, NULL);
	function->flips |= is_traced(handlers) ||
			   (redirect_of(handlers) == 0 && !xp__form_is_entry_nop(function->text));
}

static void entry_applied(const struct xp__request *request, const struct xp__group *group)
{
	note_text(xp__function_of(group->object), request);
}

/* ---- many functions at once ---- */

#define PAGE ((uintptr_t)4096)
#define AHEAD 16u /* functions that are fetched before they are looked at: there may be more than caches hold */

/*
 * Those that the request under way is for, which were begun when they were chosen. `way`: only one byte changes, and so; else
 * the general way. `from` and `to`: the last list that was changed, and what became of it: as a rule all had none, or the same.
 */
static struct {
	struct item {
		struct xp__function *function;
		uintptr_t code;
		enum xp__way way;
	} *item;
	size_t nr, room;
	struct xp__size size;
	struct xp__handlers *from, *to;
	enum xp__way way; /* of the step from the one to the other, where the entry allows it */
	bool known;
} chosen;

static struct item *new_item(void)
{
	size_t more = chosen.room ? 2 * chosen.room : 170;
	struct item *larger;

	if (chosen.nr == chosen.room) {
		larger = xp__reclaim_port(more * sizeof(*larger));
		if (larger == NULL)
			return NULL;
		if (chosen.item) {
			memcpy(larger, chosen.item, chosen.nr * sizeof(*larger));
			xp__port->release(chosen.item, chosen.room * sizeof(*larger));
		}
		chosen.item = larger;
		chosen.room = more;
	}
	return &chosen.item[chosen.nr];
}

/* Functions that had the same list get the same one. */
static int shared_list_after(struct xp__handlers *list, const struct xp__request *request)
{
	int error;

	if (chosen.known && list == chosen.from) {
		if (chosen.to && chosen.to != list)
			chosen.to->users++;
		return 0;
	}
	error = list_after(&chosen.to, list, request);
	chosen.from = list;
	chosen.way = error ? XP__NR_WAYS : lists_way(request, list, chosen.to);
	chosen.known = error == 0;
	return error;
}

int xp__chosen_add(const struct xp__request *request, struct xp__function *function)
{
	struct item *item = new_item();
	int error = item ? shared_list_after(function->handlers, request) : -XP__ENOMEM;

	if (error)
		return error;
	function->new_handlers = chosen.to;
	function->changes = true;
	item->function = function;
	item->code = function->code;
	item->way = way_of(function, chosen.way);
	count_way(item->way, &chosen.size);
	chosen.nr++;
	return 0;
}

void xp__chosen_end(const struct xp__request *request, bool done)
{
	const struct item *last = chosen.item + chosen.nr;
	struct xp__block *replaced = NULL;

	for (struct item *item = chosen.item; item < last; item++) {
		struct xp__function *function = item->function;
		struct xp__handlers *old;

		__builtin_prefetch(&item[item + AHEAD < last ? AHEAD : 0].function->code, 1);
		if (!done) {
			if (function->changes)
				take_back(function);
			continue;
		}
		if (item->way == XP__NR_WAYS)
			note_text(function, request);
		else
			xp__entry_flip(function->text, item->way == XP__TO_CALL);
		old = publish(function);
		if (old) {
			old->block.next = replaced;
			replaced = &old->block;
		}
	}
	if (done && chosen.nr > 0)
		published(replaced);
}

void xp__chosen_clear(void)
{
	chosen.nr = 0;
	chosen.known = false;
	memset(&chosen.size, 0, sizeof(chosen.size));
}

static void chosen_end(struct xp__request *request, bool done)
{
	xp__chosen_end(request, done);
}

static void chosen_count(const struct xp__request *request, const struct xp__group *group, struct xp__size *size)
{
	(void)request;
	(void)group;
	size->sites += chosen.size.sites;
	size->plans += chosen.size.plans;
	memcpy(size->way, chosen.size.way, sizeof(size->way));
}

static int chosen_emit(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		       struct xp_diag *diag)
{
	int plan[XP__NR_WAYS] = {0}, error = 0;
	uintptr_t stub = 0;

	(void)group;
	for (unsigned way = XP__TO_OFF; way <= XP__TO_CALL; way++)
		if (chosen.size.way[way]) {
			plan[way] = entry_plan(commit, (enum xp__way)way, diag);
			if (plan[way] < 0)
				return plan[way];
		}
	for (size_t i = 0; i < chosen.nr && !error; i++) {
		const struct item *item = &chosen.item[i];
		uintptr_t code = item->code;

		/* A few modules have all of them. */
		if (item->way != XP__NR_WAYS &&
		    (code - commit->page <= PAGE - XP__ENTRY_LEN || xp__commit_readable(commit, code, XP__ENTRY_LEN)) &&
		    (xp__entry_is(code, stub, item->way == XP__TO_OFF) ||
		     (stub != item->function->module->stub &&
		      xp__entry_is(code, stub = item->function->module->stub, item->way == XP__TO_OFF)))) {
			xp__commit_add(commit, code, (uint32_t)plan[item->way]);
			continue;
		}
		error = xp__emit_sites(request, &item->function->group, commit, diag);
		if (error && diag)
			diag->key = item->function->object.name;
	}
	return error;
}

/* Text was not what it had to be. It may be of another form that the entry may have, which can be mended. */
int xp__chosen_explain(struct xp_diag *diag)
{
	struct xp_diag why = {0};

	for (size_t i = 0; i < chosen.nr; i++)
		if (xp__drift_check(&chosen.item[i].function->group, NULL, &why) == -XP_E_DRIFTED) {
			if (diag)
				*diag = why;
			return -XP_E_DRIFTED;
		}
	return -XP_E_MISMATCH;
}

void xp__entry_drop(struct xp__request *request)
{
	if (request->entry.pin)
		xp__port->unpin(request->entry.pin);
	request->entry.pin = NULL;
}

void xp__entries_count(struct xp_function_stats *stats)
{
	stats->traced = nr_traced;
	stats->redirected = nr_redirected;
}

/* ---- modules ---- */

/* Calls of a stub that is none would run whatever stands there. Where nothing can be asked, records are believed. */
static bool is_stub(uintptr_t code)
{
	return XP__HAS_TRACING &&
	       (xp__port->data_read == NULL || xp__match_jump(code) == (uintptr_t)xp__function_entered);
}

static int arrive(const struct xp_site_table *records, bool patchable)
{
	/* The stub's record is of the other kind, whose table stands before this one. */
	const struct xp_site_table *sites = patchable ? records - (XP_SITE_PATCHABLE - XP_SITE_ENTRY) : records;
	size_t bytes = (size_t)((uintptr_t)records->end - (uintptr_t)records->start);
	struct xp__entries *module;
	uintptr_t stub = 0;
	int error;

	for (const struct xp_entry_site *site = sites->start; site < (const struct xp_entry_site *)sites->end; site++)
		if ((site->size & 0xf) == XP_SITE_ENTRY_STUB)
			stub = xp__relative(&site->code);
	if (bytes == 0 || (!patchable && stub && bytes == sizeof(struct xp_entry_site)))
		return 0;
	if (stub && !is_stub(stub))
		return -XP_E_CORRUPT;
	module = xp__reclaim_take(sizeof(*module));
	if (module == NULL)
		return -XP__ENOMEM;
	module->from = records->start;
	module->stub = stub;
	xp__records_set(module, records, patchable);
	error = xp__records_named(module) ? xp__records_sort(module) : -XP_E_CORRUPT;
	if (error) {
		xp__reclaim_give(module, sizeof(*module));
		return error;
	}
	module->next = xp__entries;
	xp__entries = module;
	return 0;
}

static int entry_coming(const struct xp_site_table *records)
{
	return arrive(records, false);
}

static int patchable_coming(const struct xp_site_table *records)
{
	return arrive(records, true);
}

static struct xp__entries *unlink_module(struct xp__entries **list, const struct xp_site_table *records)
{
	struct xp__entries *module;

	while (*list && (*list)->from != records->start)
		list = &(*list)->next;
	module = *list;
	if (module)
		*list = module->next;
	return module;
}

/* The text goes away: no thread is in these functions, or comes through their entries. */
static void entry_going(const struct xp_site_table *records)
{
	struct xp__entries *module = unlink_module(&xp__entries, records);

	if (module == NULL)
		return;
	for (const struct xp__function *function = module->functions; function; function = function->next) {
		nr_traced -= is_traced(function->handlers);
		nr_redirected -= redirect_of(function->handlers) != 0;
	}
	if (module->functions) {
		xp__table_forget(module);
		xp__trace_forget(module);
	}
	module->next = departed;
	departed = module;
}

/*
 * The pins are given back without the lock. A thread inside may still search the table before, and read its functions; or
 * have one from a frame. Neither leads to them since entry_going(), so they are retired like that table. The rest of the
 * module is read under the text lock only.
 */
static void entry_gone(const struct xp_site_table *records)
{
	struct xp__entries *module;
	struct xp__function *function;

	if (xp__port->lock())
		return;
	module = unlink_module(&departed, records);
	xp__port->unlock();
	if (module == NULL)
		return;
	for (function = module->functions; function; function = function->next)
		if (function->pin)
			xp__port->unpin(function->pin);
	if (xp__port->lock())
		return;
	while (module->functions) {
		function = module->functions;
		module->functions = function->next;
		if (xp__handlers_drop(function->handlers))
			xp__reclaim_retire(&xp__inside_domain, &function->handlers->block);
		if (function->code)
			xp__reclaim_retire(&xp__inside_domain, &function->block);
		else
			function->module = NULL; /* it is still in the table, and the next table retires it */
	}
	if (module->of_record)
		xp__reclaim_give(module->of_record, module->nr * sizeof(*module->of_record));
	if (module->order)
		xp__reclaim_give(module->order, module->nr * sizeof(*module->order));
	xp__reclaim_give(module, sizeof(*module));
	xp__reclaim();
	xp__port->unlock();
}

const struct xp__kind xp__entry_kind = {
	.cumulative = true,
	.own_plans = true,
	.begin = entry_begin,
	.end = entry_end,
	.count = entry_count,
	.emit = entry_emit,
	.site = entry_site,
	.form = entry_form,
	.applied = entry_applied,
	.drop = xp__entry_drop,
	.gone = entry_gone,
	.coming = entry_coming,
	.going = entry_going,
};

const struct xp__kind xp__chosen_kind = {
	.own_plans = true,
	.end = chosen_end,
	.count = chosen_count,
	.emit = chosen_emit,
	.site = entry_site,
	.form = entry_form,
};

const struct xp__kind xp__patchable_kind = {
	.gone = entry_gone,
	.coming = patchable_coming,
	.going = entry_going,
};

#endif
