/* SPDX-License-Identifier: MIT */
/* Which functions are meant: by a pattern, a name or a pointer. */
#ifndef XP_TRACE_MATCH_H
#define XP_TRACE_MATCH_H

#include "trace/table.h"

#if XP__HAS_ENTRIES

/*
 * xp__match_pattern - whether the whole of @name matches; NULL, no name, is matched by * alone.
 * xp__match_same - whether two names are the same.
 */
bool xp__match_pattern(const char *pattern, const char *name);
bool xp__match_same(const char *a, const char *b);

/* What a module that is not registered may have: the function at an address, or some that a pattern matches. */
struct xp__sought {
	uintptr_t from;      /* 0: by pattern */
	const char *pattern; /* NULL: all */
};

/* xp__match_module - whether the records of a module, registered or not, have what @sought, a struct xp__sought, says. */
bool xp__match_module(const struct xp_module *public, const void *sought);

/* xp__match_jump - where the jump through a word leads that stands at @start; @start itself if none does. */
uintptr_t xp__match_jump(uintptr_t start);

/*
 * xp__match_pointer - the record of the function that @fn is a pointer to; false: there is none.
 * xp__match_function - that function itself; NULL: *error says why. Modules that were refused are tried again.
 * Context: text lock.
 */
bool xp__match_pointer(xp__any_function *fn, struct xp__entries **module, uint32_t *record);
struct xp__function *xp__match_function(xp__any_function *fn, int *error);

#endif

#endif
