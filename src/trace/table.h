/* SPDX-License-Identifier: MIT */
/* Functions by address, and the records that modules have of them. Context: text lock, where nothing else is said. */
#ifndef XP_TRACE_TABLE_H
#define XP_TRACE_TABLE_H

#include "arch/arch.h"
#include "core/kind.h"
#include "trace/handlers.h"

#if XP__HAS_ENTRIES

/* The records of one module, of one kind. */
struct xp__entries {
	struct xp__entries *next;
	const void *from;                 /* of them */
	const struct xp_entry_site *site; /* either of them */
	const uint64_t *patchable;
	uint32_t nr;
	uint32_t *order; /* numbers of the records by address; NULL: they are so */
	uintptr_t stub;
	struct xp__function *functions;
	struct xp__function **of_record; /* by number of the record; NULL: there is no memory for it, or no function */
};

/* A function that a request has named once. It stays until its module goes, and then until no thread inside can see it. */
struct xp__function {
	struct xp__block block;
	struct xp_object object;
	struct xp__group group;
	/* What commits of many functions, and calls, touch: one cache line. */
	uintptr_t code;                    /* of the entry */
	struct xp__handlers *handlers;     /* NULL: none, and no replacement */
	struct xp__handlers *new_handlers; /* what the commit under way makes of it */
	struct xp__entries *module;
	struct xp__function *next; /* of the same module */
	bool changes;
	bool flips;                  /* not traced, it has what differs from the call in one byte, and no nop */
	uint8_t before;              /* bytes of the function before the entry */
	uint8_t text[XP__ENTRY_LEN]; /* what stands there */
	void *pin;                   /* of the replacement */
	uint32_t size;               /* in bytes; 0: unknown */
	bool begins;                 /* it was looked that the entry is its first instruction */
};

/* The function that @object is part of. */
static inline struct xp__function *xp__function_of(const struct xp_object *object)
{
	return (struct xp__function *)((uintptr_t)object - offsetof(struct xp__function, object));
}

_Static_assert(offsetof(struct xp__function, block) == 0, "a block that is retired is given back by its head");
_Static_assert(offsetof(struct xp__handlers, block) == 0, "a block that is retired is given back by its head");

/* By address: open addressing, at most half full. */
struct xp__functions {
	struct xp__block block;
	size_t nr;
	unsigned shift;
	size_t mask; /* the number of slots, less one */
	struct xp__function *slot[];
};

_Static_assert(offsetof(struct xp__functions, block) == 0, "a block that is retired is given back by its head");

extern const struct xp__functions *xp__functions; /* read without the lock, too: (F2) */
extern struct xp__entries *xp__entries;           /* the first module */

static inline XP__GENERAL_REGS size_t xp__function_hash(uintptr_t code, unsigned shift)
{
	return (size_t)(((uint64_t)code * 0x9e3779b97f4a7c15u) >> shift);
}

/* xp__table_reserve - room for @more functions. xp__table_find - the one with its entry at @code; NULL: no request named it. */
int xp__table_reserve(size_t more);
struct xp__function *xp__table_find(uintptr_t code);

/*
 * xp__table_add - the function of a record, which is made if it is not there. NULL: no memory. xp__table_of - the same, but NULL
 * if it is not there.
 */
struct xp__function *xp__table_add(struct xp__entries *module, uint32_t record);

/*
 * xp__entry_is_off - whether the readable @text of an entry at @code does nothing: a nop; or what differs in one byte from the
 * call of @stub, or, with 0, from that of a stub that no file made.
 */
bool xp__entry_is_off(uintptr_t code, uintptr_t stub, const uint8_t *text);

/* xp__table_forget - the functions of @module, one at least, are not found any more. */
void xp__table_forget(const struct xp__entries *module);

/* xp__records_set - the records of @module are those of @table. xp__records_sort - brings them into their order. */
void xp__records_set(struct xp__entries *module, const struct xp_site_table *table, bool patchable);
int xp__records_sort(struct xp__entries *module);

/* xp__record_find - the record of the function that begins at @start; false: there is none. */
bool xp__record_find(uintptr_t start, struct xp__entries **module, uint32_t *record);

/* What a record says; xp__record_number() is that of the record with @i before it, by address. */
static inline uint32_t xp__record_number(const struct xp__entries *module, uint32_t i)
{
	return module->order ? module->order[i] : i;
}

static inline uintptr_t xp__record_code(const struct xp__entries *module, uint32_t record)
{
	return module->site ? xp__relative(&module->site[record].code) : (uintptr_t)module->patchable[record];
}

static inline unsigned xp__record_flags(const struct xp__entries *module, uint32_t record)
{
	return module->site ? module->site[record].size & 0xf : 0;
}

/* No stub, no part. */
static inline bool xp__record_is_entry(const struct xp__entries *module, uint32_t record)
{
	return xp__record_flags(module, record) == 0 && xp__record_code(module, record) != 0;
}

static inline const char *xp__record_name(const struct xp__entries *module, uint32_t record)
{
	return module->site ? (const char *)xp__relative(&module->site[record].name) : NULL;
}

static inline struct xp__function *xp__table_of(const struct xp__entries *module, uint32_t record)
{
	return module->of_record ? module->of_record[record] : xp__table_find(xp__record_code(module, record));
}

/* What is looked at 16 records later is fetched meanwhile: there may be more than caches hold. */
static inline void xp__table_ahead(const struct xp__entries *module, uint32_t i)
{
	if (module->of_record && i + 16 < module->nr)
		__builtin_prefetch((const void *)((uintptr_t)module->of_record[xp__record_number(module, i + 16)] +
						  offsetof(struct xp__function, code)),
				   1);
}

bool xp__records_named(const struct xp__entries *module); /* whether the name of each can be read */
uint32_t xp__record_size(const struct xp__entries *module, uint32_t record);
unsigned xp__record_before(const struct xp__entries *module, uint32_t record);

#endif

#endif
