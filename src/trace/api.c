// SPDX-License-Identifier: MIT
/*
 * The interface to functions: to one, at once or in a batch, and to all that a pattern matches.
 *
 * I1  A pointer is looked up under the text lock. The request that is made of it names the function, which stays until its
 *     module goes.
 * I2  All that a pattern matches changes in one commit, or nothing does.
 */
#include "arch/arch.h"
#include "core/batch.h"
#include "core/deps.h"
#include "core/reclaim.h"
#include "core/site.h"
#include "core/state.h"
#include "trace/entries.h"
#include "trace/match.h"
#include "trace/run.h"

#if XP__HAS_ENTRIES

/* ---- one function ---- */

static int check(xp__any_function *fn, const struct xp_function_handler *handler)
{
	return fn && handler && (handler->entry || handler->leave) ? 0 : -XP__EINVAL;
}

static struct xp__request request_of(struct xp__function *function, uint8_t op)
{
	struct xp__request request = {.kind = &xp__entry_kind, .object = &function->object};

	request.entry.op = op;
	return request;
}

/* A part that the compiler made of another function has other arguments. */
static bool is_clone(const char *name)
{
	for (; name && *name; name++)
		if (*name == '.')
			return true;
	return false;
}

/* Everything but the function, which is found under the lock. */
static int request_for(struct xp__request *request, xp__any_function *fn, uint8_t op,
		       const struct xp_function_handler *handler, void *data, xp__any_function *replacement)
{
	struct xp__function *function;
	int error = xp__lock(NULL);

	if (error)
		return error;
	function = xp__match_function(fn, &error);
	if (!error && replacement && is_clone(function->object.name))
		error = -XP__EINVAL;
	xp__unlock();
	if (error)
		return error;
	*request = request_of(function, op);
	request->entry.handler = handler;
	request->entry.data = data;
	request->entry.replacement = (uintptr_t)replacement;
	if (replacement && xp__port->pin)
		request->entry.pin = xp__port->pin((const void *)(uintptr_t)replacement, (const void *)(uintptr_t)fn);
	return 0;
}

static int apply(struct xp__request *request, int error)
{
	if (error)
		return error;
	error = xp__lock(NULL);
	if (!error) {
		error = xp__batch_apply_locked(request, 1, NULL);
		xp__reclaim();
		xp__unlock();
	}
	xp__entry_drop(request);
	return error;
}

static int into_batch(struct xp_batch *batch, struct xp__request *request, int error)
{
	if (error)
		return error;
	error = xp__batch_add(batch, request);
	if (error)
		xp__entry_drop(request);
	return error;
}

static int trace_item(struct xp__request *request, xp__any_function *fn, const struct xp_function_handler *handler,
		      void *data, uint8_t op)
{
	int error = check(fn, handler);

	return error ? error : request_for(request, fn, op, handler, data, NULL);
}

static int redirect_item(struct xp__request *request, xp__any_function *fn, xp__any_function *replacement)
{
	if (fn == NULL || replacement == NULL || fn == replacement)
		return -XP__EINVAL;
	return request_for(request, fn, XP__ENTRY_REDIRECT, NULL, NULL, replacement);
}

int xp__function_trace(xp__any_function *fn, const struct xp_function_handler *handler, void *data)
{
	struct xp__request request;

	return apply(&request, trace_item(&request, fn, handler, data, XP__ENTRY_TRACE));
}

int xp__function_untrace(xp__any_function *fn, const struct xp_function_handler *handler, void *data)
{
	struct xp__request request;

	return apply(&request, trace_item(&request, fn, handler, data, XP__ENTRY_UNTRACE));
}

int xp__function_redirect(xp__any_function *fn, xp__any_function *replacement)
{
	struct xp__request request;

	return apply(&request, redirect_item(&request, fn, replacement));
}

int xp__function_restore(xp__any_function *fn)
{
	struct xp__request request;

	return apply(&request, request_for(&request, fn, XP__ENTRY_REDIRECT, NULL, NULL, NULL));
}

int xp__batch_add_trace(struct xp_batch *batch, xp__any_function *fn, const struct xp_function_handler *handler,
			void *data)
{
	struct xp__request request;

	return into_batch(batch, &request, trace_item(&request, fn, handler, data, XP__ENTRY_TRACE));
}

int xp__batch_add_untrace(struct xp_batch *batch, xp__any_function *fn, const struct xp_function_handler *handler,
			  void *data)
{
	struct xp__request request;

	return into_batch(batch, &request, trace_item(&request, fn, handler, data, XP__ENTRY_UNTRACE));
}

int xp__batch_add_redirect(struct xp_batch *batch, xp__any_function *fn, xp__any_function *replacement)
{
	struct xp__request request;

	return into_batch(batch, &request, redirect_item(&request, fn, replacement));
}

int xp__batch_add_restore(struct xp_batch *batch, xp__any_function *fn)
{
	struct xp__request request;

	return into_batch(batch, &request, request_for(&request, fn, XP__ENTRY_REDIRECT, NULL, NULL, NULL));
}

xp__any_function *xp__function_original(xp__any_function *fn)
{
	struct xp__entries *module;
	uintptr_t original = 0;
	uint32_t record;

	if (fn == NULL || xp__lock(NULL))
		return NULL;
	if (xp__match_pointer(fn, &module, &record))
		original = xp__record_code(module, record) + XP__ENTRY_LEN;
	xp__unlock();
	return (xp__any_function *)original;
}

/* ---- many functions ---- */

/*
 * Whether the entry is its function's first instruction: 1, 0, or an error if nothing says it. A record says so. What
 * -fpatchable-function-entry=N,M leaves is the address of N nops, of which M stand before the function: those are not
 * executed, and five that lie on both sides are no entry. That takes a look at the process's unwind tables, once for a function.
 */
static int at_beginning(const struct xp__entries *module, uint32_t record, const struct xp__function *function)
{
	if (module->site || (function && function->begins))
		return 1;
	if (xp__port->function_begins == NULL)
		return -XP_E_NO_ENTRY;
	return xp__port->function_begins(
		(const void *)(xp__record_code(module, record) - xp__record_before(module, record)));
}

/* Five nops, or, where that is something else, a nop that tracing makes what differs from the call in one byte. */
static bool can_prepare(const struct xp__entries *module, uintptr_t code)
{
	const uint8_t *text = (const uint8_t *)code;
	uint8_t off[XP__ENTRY_LEN];

	return xp__form_is_entry_nops(text) ||
	       (xp__form_is_entry_nop(text) && module->stub && xp__form_entry_off(off, code, module->stub));
}

/* Whether a request by pattern changes this function, which may be NULL: no request named it. */
static bool concerns(const struct xp__entries *module, uint32_t record, const struct xp__function *function,
		     const struct xp__request *asked)
{
	const struct xp__handlers *list = function ? function->handlers : NULL;
	uintptr_t page = 0;

	switch (asked->entry.op) {
	case XP__ENTRY_TRACE:
		return !xp__handlers_has(list, asked->entry.handler, asked->entry.data) &&
		       at_beginning(module, record, function) != 0;
	case XP__ENTRY_UNTRACE:
		return xp__handlers_has(list, asked->entry.handler, asked->entry.data);
	default:
		return xp__text_readable(&page, xp__record_code(module, record), XP__ENTRY_LEN) &&
		       can_prepare(module, xp__record_code(module, record)) &&
		       at_beginning(module, record, function) != 0;
	}
}

/* Adds the function of a record to those that the request is for. 1; 0: it is one already. */
static int choose(struct xp__entries *module, uint32_t record, struct xp__function *function,
		  const struct xp__request *request, struct xp_diag *diag)
{
	int error;

	if (request->entry.op != XP__ENTRY_UNTRACE && at_beginning(module, record, function) < 0)
		return xp__fail(
			diag, -XP_E_NO_ENTRY, XP_PHASE_VALIDATE, (const void *)xp__record_code(module, record),
			"no unwind table says where the function of these nops begins: link with --eh-frame-hdr, or annotate the object");
	function = function ? function : xp__table_add(module, record);
	if (function && function->changes)
		return 0;
	if (function && request->entry.op != XP__ENTRY_UNTRACE)
		function->begins = true;
	error = function ? xp__chosen_add(request, function) : -XP__ENOMEM;
	if (error && diag && function)
		diag->key = function->object.name;
	return error ? xp__fail(diag, error, XP_PHASE_VALIDATE, NULL, NULL) : 1;
}

static int choose_all(const char *pattern, const struct xp__request *request, struct xp_diag *diag)
{
	int nr = 0, chosen;

	/* All, also those without a name. */
	if (pattern && xp__match_same(pattern, "*"))
		pattern = NULL;
	for (struct xp__entries *module = xp__entries; module; module = module->next)
		for (uint32_t i = 0; i < module->nr; i++) {
			uint32_t record = xp__record_number(module, i);
			struct xp__function *function;

			if (!xp__record_is_entry(module, record) ||
			    !(pattern == NULL || xp__match_pattern(pattern, xp__record_name(module, record))))
				continue;
			xp__table_ahead(module, i);
			function = xp__table_of(module, record);
			if (!concerns(module, record, function, request))
				continue;
			chosen = choose(module, record, function, request, diag);
			if (chosen < 0)
				return chosen;
			nr += chosen;
		}
	return nr;
}

static int apply_matching_locked(const char *pattern, const struct xp__request *asked, struct xp_diag *diag)
{
	const struct xp__sought sought = {.pattern = pattern};
	struct xp__request request = *asked;
	bool untrace = asked->entry.op == XP__ENTRY_UNTRACE;
	int nr, error = xp__modules_retry(xp__match_module, &sought, untrace ? NULL : diag);

	/* What was never traced there need not end. */
	if (error && !untrace)
		return error;
	xp__chosen_clear();
	nr = choose_all(pattern, &request, diag);
	error = nr > 0 ? xp__batch_apply_locked(&request, 1, diag) : nr;
	if (error) {
		xp__chosen_end(&request, false);
		if (error == -XP_E_MISMATCH)
			error = xp__chosen_explain(diag);
	}
	xp__reclaim();
	return error ? error : nr;
}

static int apply_matching(const char *pattern, const struct xp__request *asked, struct xp_diag *diag)
{
	int result = xp__lock(diag);

	if (result)
		return result;
	result = apply_matching_locked(pattern, asked, diag);
	xp__unlock();
	return result;
}

static int trace_matching(const char *pattern, const struct xp_function_handler *handler, void *data, uint8_t op,
			  struct xp_diag *diag)
{
	struct xp__request request = {.kind = &xp__chosen_kind};

	if (pattern == NULL || handler == NULL || !(handler->entry || handler->leave)) {
		if (diag)
			memset(diag, 0, sizeof(*diag));
		return xp__fail(diag, -XP__EINVAL, XP_PHASE_VALIDATE, NULL, NULL);
	}
	request.entry.op = op;
	request.entry.handler = handler;
	request.entry.data = data;
	return apply_matching(pattern, &request, diag);
}

int xp_function_trace_matching(const char *pattern, const struct xp_function_handler *handler, void *data,
			       struct xp_diag *diag)
{
	return trace_matching(pattern, handler, data, XP__ENTRY_TRACE, diag);
}

int xp_function_untrace_matching(const char *pattern, const struct xp_function_handler *handler, void *data,
				 struct xp_diag *diag)
{
	return trace_matching(pattern, handler, data, XP__ENTRY_UNTRACE, diag);
}

int xp_function_prepare(const char *pattern, struct xp_diag *diag)
{
	struct xp__request request = {.kind = &xp__chosen_kind};

	request.entry.op = XP__ENTRY_PREPARE;
	request.early = true;
	return apply_matching(pattern, &request, diag);
}

/* ---- what there is ---- */

xp__any_function *xp_function_find(const char *name)
{
	uintptr_t found = 0;

	if (name == NULL || xp__lock(NULL))
		return NULL;
	for (const struct xp__entries *module = xp__entries; module; module = module->next)
		for (uint32_t i = 0; module->site && i < module->nr && !found; i++)
			if (xp__record_is_entry(module, i) && xp__match_same(name, xp__record_name(module, i)))
				found = xp__record_code(module, i) - xp__record_before(module, i);
	xp__unlock();
	return (xp__any_function *)found;
}

const char *xp__function_name(xp__any_function *fn)
{
	struct xp__entries *module;
	const char *name = NULL;
	uint32_t record;

	if (fn == NULL || xp__lock(NULL))
		return NULL;
	if (xp__match_pointer(fn, &module, &record))
		name = xp__record_name(module, record);
	xp__unlock();
	return name;
}

void xp_function_stats_read(struct xp_function_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	xp__trace_count(stats);
	if (xp__lock(NULL))
		return;
	for (const struct xp__entries *module = xp__entries; module; module = module->next)
		for (uint32_t i = 0; i < module->nr; i++)
			stats->entries += xp__record_is_entry(module, i);
	xp__entries_count(stats);
	xp__unlock();
}

#endif
