// SPDX-License-Identifier: MIT
/*
 * Functions by address, and the records that modules have of them.
 *
 * I1  A published table changes in one way: functions are added. A table that was replaced is retired (core/reclaim.c).
 * I2  Modules are in no particular order; a module's records are in the order of addresses, by the linker or by module->order.
 * I3  A function that is asked for the first time has what the compiler left: function->text says what its entry is.
 *
 * Ordering: F1. core/reclaim.c has the argument.
 */
#include "trace/table.h"

#include "core/deps.h"
#include "core/state.h"
#include "trace/inside.h"

#if XP__HAS_ENTRIES

#define BEFORE_MAX 15u

const struct xp__functions *xp__functions;
struct xp__entries *xp__entries;
static struct xp__functions *functions; /* as xp__functions, for the writer */

/* ---- functions by address ---- */

static size_t nr_slots(const struct xp__functions *of)
{
	return (size_t)1 << (64 - of->shift);
}

static void insert(struct xp__functions *into, struct xp__function *function)
{
	size_t at = xp__function_hash(function->code, into->shift);

	while (into->slot[at])
		at = (at + 1) & (nr_slots(into) - 1);
	/* ordering: (F1) pairs with (F2) */
	__atomic_store_n(&into->slot[at], function, __ATOMIC_RELEASE);
	into->nr++;
}

/*
 * A table for @nr functions with those that are there, but for @module's and those of no module, in the place of this one.
 */
static int rebuild(size_t nr, const struct xp__entries *module)
{
	struct xp__functions *old = functions, *new;
	unsigned shift = 64 - 6;
	size_t size;

	while ((size_t)1 << (64 - shift) < 2 * nr)
		shift--;
	size = sizeof(*new) + sizeof(new->slot[0]) * ((size_t)1 << (64 - shift));
	new = xp__reclaim_take(size);
	if (new == NULL)
		return -XP__ENOMEM;
	new->block.size = size;
	new->shift = shift;
	new->mask = nr_slots(new) - 1;
	for (size_t i = 0; old && i < nr_slots(old); i++)
		if (old->slot[i] && old->slot[i]->module && old->slot[i]->module != module)
			insert(new, old->slot[i]);
	functions = new;
	/* ordering: (F1) pairs with (F2) */
	__atomic_store_n(&xp__functions, new, __ATOMIC_SEQ_CST);
	if (old == NULL)
		return 0;
	for (size_t i = 0; i < nr_slots(old); i++)
		if (old->slot[i] && old->slot[i]->module == NULL)
			xp__reclaim_retire(&xp__inside_domain, &old->slot[i]->block);
	xp__reclaim_retire(&xp__inside_domain, &old->block);
	return 0;
}

int xp__table_reserve(size_t more)
{
	size_t nr = (functions ? functions->nr : 0) + more;

	if (functions && 2 * nr <= nr_slots(functions))
		return 0;
	return rebuild(2 * nr, NULL);
}

struct xp__function *xp__table_find(uintptr_t code)
{
	size_t at;

	if (functions == NULL)
		return NULL;
	for (at = xp__function_hash(code, functions->shift); functions->slot[at];
	     at = (at + 1) & (nr_slots(functions) - 1))
		if (functions->slot[at]->code == code)
			return functions->slot[at];
	return NULL;
}

void xp__table_forget(const struct xp__entries *module)
{
	/* There is no memory for another table. In this one no address finds the module's functions any more. */
	if (rebuild(functions->nr, module))
		for (size_t i = 0; i < nr_slots(functions); i++)
			if (functions->slot[i] && functions->slot[i]->module == module)
				functions->slot[i]->code = 0;
}

/* ---- records ---- */

void xp__records_set(struct xp__entries *module, const struct xp_site_table *table, bool patchable)
{
	size_t bytes = (size_t)((uintptr_t)table->end - (uintptr_t)table->start);

	if (patchable)
		module->patchable = table->start;
	else
		module->site = table->start;
	module->nr = (uint32_t)(bytes / (patchable ? sizeof(uint64_t) : sizeof(struct xp_entry_site)));
}

bool xp__records_named(const struct xp__entries *module)
{
	uintptr_t page = 0;
	bool named = true;

	for (uint32_t i = 0; module->site && i < module->nr && named; i++)
		named = xp__text_readable(&page, (uintptr_t)xp__record_name(module, i), 1);
	return named;
}

uint32_t xp__record_size(const struct xp__entries *module, uint32_t record)
{
	return module->site ? module->site[record].size >> 8 : 0;
}

/* The bytes of the function before its entry. -fpatchable-function-entry does not say: a landing instruction may stand there. */
unsigned xp__record_before(const struct xp__entries *module, uint32_t record)
{
	uintptr_t code = xp__record_code(module, record), page = 0;

	if (module->site)
		return module->site[record].size >> 4 & BEFORE_MAX;
	return code % 4096 >= XP__LANDING_LEN && xp__text_readable(&page, code - XP__LANDING_LEN, XP__LANDING_LEN) &&
			       xp__form_is_landing((const uint8_t *)(code - XP__LANDING_LEN))
		       ? XP__LANDING_LEN
		       : 0;
}

/* Where in the order the first record not below @code stands. */
static uint32_t lower_bound(const struct xp__entries *module, uintptr_t code)
{
	uint32_t low = 0, high = module->nr;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (xp__record_code(module, xp__record_number(module, middle)) < code)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Down the heap of the first @nr. */
static void sift(const struct xp__entries *module, uint32_t at, uint32_t nr)
{
	uint32_t *order = module->order, moved = order[at], child;

	for (; (child = 2 * at + 1) < nr; at = child) {
		if (child + 1 < nr && xp__record_code(module, order[child + 1]) > xp__record_code(module, order[child]))
			child++;
		if (xp__record_code(module, order[child]) <= xp__record_code(module, moved))
			break;
		order[at] = order[child];
	}
	order[at] = moved;
}

int xp__records_sort(struct xp__entries *module)
{
	uint32_t i = 1, swap;

	while (i < module->nr && xp__record_code(module, i - 1) <= xp__record_code(module, i))
		i++;
	if (i >= module->nr)
		return 0;
	module->order = xp__reclaim_take(module->nr * sizeof(*module->order));
	if (module->order == NULL)
		return -XP__ENOMEM;
	for (i = 0; i < module->nr; i++)
		module->order[i] = i;
	for (i = module->nr / 2; i-- > 0;)
		sift(module, i, module->nr);
	for (i = module->nr; i-- > 1;) {
		swap = module->order[0];
		module->order[0] = module->order[i];
		module->order[i] = swap;
		sift(module, 0, i);
	}
	return 0;
}

/* The record of the function at @start; false: there is none. */
bool xp__record_find(uintptr_t start, struct xp__entries **module, uint32_t *record)
{
	for (struct xp__entries *of = xp__entries; of; of = of->next)
		for (uint32_t i = lower_bound(of, start); i < of->nr; i++) {
			uint32_t at = xp__record_number(of, i);

			if (xp__record_code(of, at) - start > BEFORE_MAX)
				break;
			if (xp__record_is_entry(of, at) &&
			    xp__record_code(of, at) - xp__record_before(of, at) == start) {
				*module = of;
				*record = at;
				return true;
			}
		}
	return false;
}

/* ---- a function from its record ---- */

bool xp__entry_is_off(uintptr_t code, uintptr_t stub, const uint8_t *text)
{
	uint8_t off[XP__ENTRY_LEN];

	if (xp__form_is_entry_nop(text))
		return true;
	if (stub == 0)
		return xp__form_is_entry_off(text);
	return xp__form_entry_off(off, code, stub) && memcmp(text, off, XP__ENTRY_LEN) == 0;
}

static struct xp__function *table_make(struct xp__entries *module, uint32_t record)
{
	uintptr_t code = xp__record_code(module, record);
	const uint8_t *text = (const uint8_t *)code;
	struct xp__function *function = xp__table_find(code);
	uint8_t call[XP__CALL_LEN];
	uintptr_t page = 0;
	bool readable, is_call;

	if (function || xp__table_reserve(1))
		return function;
	function = xp__reclaim_take(sizeof(*function));
	if (function == NULL)
		return NULL;
	function->block.size = sizeof(*function);
	function->object.name = xp__record_name(module, record);
	function->group = (struct xp__group){.object = &function->object, .kind = &xp__entry_kind, .nr = 1};
	function->object.groups = &function->group;
	function->module = module;
	function->code = code;
	function->size = xp__record_size(module, record);
	function->before = (uint8_t)xp__record_before(module, record);
	/* If it cannot be read, each request is refused. */
	readable = xp__text_readable(&page, code, XP__ENTRY_LEN);
	is_call = readable && module->stub && xp__form_call(call, code, module->stub, false) &&
		  memcmp(text, call, XP__ENTRY_LEN) == 0;
	/* Whatever does nothing; or the call that was left when this module was registered before. */
	if (readable && (xp__entry_is_off(code, module->stub, text) || is_call))
		memcpy(function->text, text, XP__ENTRY_LEN);
	else
		xp__form_entry_nop(function->text);
	function->flips = is_call || !xp__form_is_entry_nop(function->text);
	function->next = module->functions;
	module->functions = function;
	insert(functions, function);
	return function;
}

struct xp__function *xp__table_add(struct xp__entries *module, uint32_t record)
{
	struct xp__function *function = xp__table_of(module, record);

	if (function)
		return function;
	if (module->of_record == NULL && module->functions == NULL)
		module->of_record = xp__reclaim_take(module->nr * sizeof(struct xp__function *));
	/* Two records may be of one function. */
	function = table_make(module, record);
	if (module->of_record)
		module->of_record[record] = function;
	return function;
}

#endif
