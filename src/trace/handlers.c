// SPDX-License-Identifier: MIT
/*
 * Lists of handlers, and the handler that counts.
 *
 * I1  A list is immutable once calls can run it. Every change makes another list, with a higher number.
 * I2  Of handlers with a `leave` no two in a list have the same word of a call's frame.
 */
#include "trace/handlers.h"

#include "core/counter.h"
#include "core/deps.h"
#include "core/state.h"
#include "trace/inside.h"

#if XP__HAS_ENTRIES

static uint64_t last_number; /* of a list of handlers */

/* ---- a handler that counts ---- */

/* Where other handlers are in the list, too. Else calls count without running it. */
static XP__GENERAL_REGS void count(const struct xp_function_call *call, void *data)
{
	(void)call;
	xp__counter_add(data, xp__port->function_thread());
}

static const struct xp_function_handler counting = {.entry = count, .flags = XP_FUNCTION_GENERAL_REGS};

/* ---- lists ---- */

static uint32_t place_of(const struct xp__handlers *list, const struct xp_function_handler *handler, const void *data)
{
	uint32_t i = 0;

	while (list && i < list->nr && (list->handler[i].handler != handler || list->handler[i].data != data))
		i++;
	return i;
}

static struct xp__handlers *new_list(uint32_t nr)
{
	size_t size = sizeof(struct xp__handlers) + nr * sizeof(struct xp__handler);
	struct xp__handlers *list = xp__reclaim_take(size);

	if (list) {
		list->block.size = size;
		list->number = ++last_number;
		list->users = 1;
		list->general = true;
	}
	return list;
}

static void append(struct xp__handlers *list, const struct xp__handler *handler)
{
	list->handler[list->nr++] = *handler;
	list->nr_leave += handler->handler->leave != NULL;
	list->counts = (list->counts || list->nr == 1) && handler->handler == &counting;
	list->general = list->general && handler->handler->flags & XP_FUNCTION_GENERAL_REGS;
}

/* The word that no other handler of the list has. */
static int free_word(const struct xp__handlers *list, uint8_t *word)
{
	unsigned taken = 0;

	for (uint32_t i = 0; list && i < list->nr; i++)
		if (list->handler[i].handler->leave)
			taken |= 1u << list->handler[i].word;
	for (*word = 0; *word < XP_FUNCTION_LEAVES; ++*word)
		if (!(taken >> *word & 1))
			return 0;
	return -XP_E_LEAVES;
}

/* The same list but for the one at @left_out, with room for one more. */
static struct xp__handlers *copy(const struct xp__handlers *list, uint32_t left_out)
{
	struct xp__handlers *new = new_list((list ? list->nr : 0) + 1);

	if (new &&list)
		new->redirect = list->redirect;
	for (uint32_t i = 0; new &&list &&i < list->nr; i++)
		if (i != left_out)
			append(new, &list->handler[i]);
	return new;
}

int xp__handlers_with(struct xp__handlers **result, const struct xp__handlers *list, const struct xp__request *request)
{
	struct xp__handler handler = {.handler = request->entry.handler, .data = request->entry.data};
	int error;

	if (xp__handlers_has(list, handler.handler, handler.data))
		return -XP_E_TRACED;
	if (handler.handler->leave) {
		error = free_word(list, &handler.word);
		if (error)
			return error;
		if (!xp__port->can(XP_NEED_CALL))
			return -XP_E_SHADOW_STACK;
	}
	*result = copy(list, UINT32_MAX);
	if (*result == NULL)
		return -XP__ENOMEM;
	handler.since = (*result)->number;
	append(*result, &handler);
	return 0;
}

int xp__handlers_without(struct xp__handlers **result, const struct xp__handlers *list,
			 const struct xp__request *request)
{
	if (!xp__handlers_has(list, request->entry.handler, request->entry.data))
		return -XP_E_NOT_TRACED;
	*result = NULL;
	if (list->nr == 1 && list->redirect == 0)
		return 0;
	*result = copy(list, place_of(list, request->entry.handler, request->entry.data));
	return *result ? 0 : -XP__ENOMEM;
}

int xp__handlers_redirected(struct xp__handlers **result, const struct xp__handlers *list,
			    const struct xp__request *request)
{
	*result = NULL;
	if (request->entry.replacement == 0 && (list == NULL || list->nr == 0))
		return 0;
	*result = copy(list, UINT32_MAX);
	if (*result == NULL)
		return -XP__ENOMEM;
	(*result)->redirect = request->entry.replacement;
	return 0;
}

/* ---- what the program sees of it ---- */

const struct xp_function_handler *xp_function_counting(void)
{
	return &counting;
}

unsigned long xp_function_counted(const struct xp_function_counter *counter)
{
	unsigned long nr = 0;

	for (size_t i = 0; i < XP__NR_COUNTERS; i++)
		nr += __atomic_load_n(&counter->shard[i].nr, __ATOMIC_RELAXED);
	return nr;
}

#endif
