// SPDX-License-Identifier: MIT
/*
 * Entries as a kind of sites: which text they may have, and the modules that they come and go with.
 *
 * I1  An entry is a nop, a call of its module's stub, or a jmp to a replacement: function->text says which. Any other
 *     text is refused, and nothing is changed.
 * I2  Handlers and the replacement change after the text did, both in one store: until then a call by the new text runs
 *     what was there before, so that a commit that fails was never seen.
 * I3  An entry calls the stub if there are handlers, or if the replacement is out of reach of a jmp. Each call that comes
 *     through then reads where the function was redirected to. So text and data may change one after the other.
 * I4  A request adds to those before it in the same batch: the last one's commit has them all.
 *
 * Ordering: F1. core/reclaim.c has the argument.
 */
#include "trace/entries.h"

#include "arch/arch.h"
#include "core/deps.h"
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

/* ---- the kind ---- */

/* I4: the request changes the list that is there, or the one that an earlier request of this commit made of it. */
static int entry_begin(struct xp__request *request)
{
	struct xp__function *function = xp__function_of(request->object);
	struct xp__handlers *list = function->changes ? function->new_handlers : function->handlers, *new = list;
	int error = 0;

	if (xp__port->function_thread == NULL && request->entry.op == XP__ENTRY_TRACE)
		return -XP_E_NO_METHOD;
	switch (request->entry.op) {
	case XP__ENTRY_TRACE:
		error = xp__handlers_with(&new, list, request);
		break;
	case XP__ENTRY_UNTRACE:
		error = xp__handlers_without(&new, list, request);
		break;
	case XP__ENTRY_REDIRECT:
		error = xp__handlers_redirected(&new, list, request);
		break;
	}
	if (error)
		return error;
	if (new != list && list &&list != function->handlers)
		xp__reclaim_give(list, list->block.size);
	function->new_handlers = new;
	function->changes = true;
	return 0;
}

static void entry_end(struct xp__request *request, bool done)
{
	struct xp__function *function = xp__function_of(request->object);
	struct xp__handlers *old = function->handlers, *new = function->new_handlers;
	void *pin = function->pin;

	if (done && request->entry.op == XP__ENTRY_REDIRECT) {
		function->pin = request->entry.pin;
		request->entry.pin = pin;
	}
	if (!function->changes)
		return;
	function->changes = false;
	if (!done) {
		if (new &&new != old)
			xp__reclaim_give(new, new->block.size);
		return;
	}
	nr_traced += is_traced(new) - is_traced(old);
	nr_redirected += (redirect_of(new) != 0) - (redirect_of(old) != 0);
	/* ordering: (F1) pairs with (F2) */
	__atomic_store_n(&function->handlers, new, __ATOMIC_SEQ_CST);
	if (old && old != new)
		xp__reclaim_retire(&xp__inside_domain, &old->block);
}

int xp__entry_refuse(const struct xp__function *function, int error, const char *detail, struct xp_diag *diag)
{
	if (diag)
		diag->key = function->object.name;
	return xp__fail(diag, error, XP_PHASE_VALIDATE, (const void *)function->code, detail);
}

/* I3. Fills in the text that the entry is to have; an error if it cannot have it. */
static int wanted(const struct xp__function *function, uint8_t *bytes, struct xp_diag *diag)
{
	const struct xp__handlers *handlers = function->changes ? function->new_handlers : function->handlers;
	uintptr_t redirect = redirect_of(handlers);

	if (!is_traced(handlers) && redirect == 0) {
		xp__form_entry_nop(bytes);
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

	if (n == 0 && xp__form_is_entry_nop(text)) {
		memcpy(bytes, text, XP__ENTRY_LEN);
		return 1;
	}
	if (n < 2)
		return xp__form_entry_built(bytes, n);
	if (n == 2 && function->module->stub)
		return xp__form_call(bytes, function->code, function->module->stub, false);
	return n <= 3 && redirect && xp__form_jump(bytes, function->code, redirect);
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
	error = which == XP__WANTED ? wanted(function, form->bytes, diag) : 0;
	if (error)
		return error;
	/* What stands there is right until the next commit. */
	if (which != XP__WANTED)
		memcpy(form->bytes, function->text, XP__ENTRY_LEN);
	(void)request;
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

static void entry_applied(const struct xp__request *request, const struct xp__group *group)
{
	struct xp__function *function = xp__function_of(group->object);

	(void)request;
	(void)wanted(function, function->text, NULL);
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
		if (function->handlers)
			xp__reclaim_retire(&xp__inside_domain, &function->handlers->block);
		if (function->code)
			xp__reclaim_retire(&xp__inside_domain, &function->block);
	}
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
	.site = entry_site,
	.form = entry_form,
	.applied = entry_applied,
	.drop = xp__entry_drop,
	.gone = entry_gone,
	.coming = entry_coming,
	.going = entry_going,
};

const struct xp__kind xp__patchable_kind = {
	.gone = entry_gone,
	.coming = patchable_coming,
	.going = entry_going,
};

#endif
