// SPDX-License-Identifier: MIT
/*
 * Which functions are meant: those whose names a pattern matches, or the one that a pointer leads to.
 *
 * I1  A pointer may lead to a jump of the program's own, which is followed once. Only memory that can be read is read.
 * I2  What is not found may be in a module that was refused: such modules are tried again first.
 */
#include "trace/match.h"

#include "core/deps.h"
#include "core/site.h"
#include "core/state.h"

#if XP__HAS_ENTRIES

/* ---- patterns ---- */

/* One character class, behind its bracket; *end is behind the closing one. */
static bool in_class(const char *class, char c, const char **end)
{
	bool not = *class == '!', in = false;
	const char *at = class + not ;

	do {
		if (*at == '\0')
			break;
		if (at[1] == '-' && at[2] != ']' && at[2] != '\0') {
			in |= c >= at[0] && c <= at[2];
			at += 3;
		} else {
			in |= *at++ == c;
		}
	} while (*at != ']');
	*end = *at ? at + 1 : at;
	return in != not ;
}

bool xp__match_pattern(const char *pattern, const char *name)
{
	const char *star = NULL, *from = NULL, *end;

	if (pattern[0] == '*' && pattern[1] == '\0')
		return true;
	if (name == NULL)
		return false;
	for (;;) {
		if (*pattern == '*') {
			star = ++pattern;
			from = name;
			continue;
		}
		end = pattern + 1;
		if (*name == '\0' && *pattern == '\0')
			return true;
		if (*name != '\0' && *pattern != '\0' &&
		    (*pattern == '?' || (*pattern == '[' ? in_class(pattern + 1, *name, &end) : *pattern == *name))) {
			pattern = end;
			name++;
			continue;
		}
		/* The last star takes one character more. */
		if (star == NULL || *from == '\0')
			return false;
		pattern = star;
		name = ++from;
	}
}

bool xp__match_same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* ---- modules that are not registered ---- */

bool xp__match_module(const struct xp_module *public, const void *data)
{
	const struct xp__sought *sought = data;

	for (unsigned kind = XP_SITE_ENTRY; kind < public->nr_tables && kind <= XP_SITE_PATCHABLE; kind++) {
		const struct xp_site_table *table = &public->tables[kind];
		struct xp__entries module = {0};

		xp__records_set(&module, table, kind == XP_SITE_PATCHABLE);
		/* It may have been refused because of them. */
		if (!xp__records_named(&module))
			continue;
		for (uint32_t i = 0; i < module.nr; i++) {
			if (!xp__record_is_entry(&module, i))
				continue;
			if (sought->from ? xp__record_code(&module, i) - xp__record_before(&module, i) == sought->from
					 : sought->pattern == NULL ||
						   xp__match_pattern(sought->pattern, xp__record_name(&module, i)))
				return true;
		}
	}
	return false;
}

/* ---- pointers ---- */

/*
 * In a program that is not position-independent the address of a shared object's function is that of such a jump, in the
 * program's own procedure linkage table.
 */
uintptr_t xp__match_jump(uintptr_t start)
{
	uint8_t text[XP__JUMP_WORD] = {0};
	const size_t left = 4096 - start % 4096; /* in its page: what is behind it may be none */
	uintptr_t target, word, page = 0;
	size_t len = sizeof(text);

	if (xp__port->data_read == NULL || !xp__text_readable(&page, start, 1))
		return start;
	if (left < len && !xp__text_readable(&page, start + left, 1))
		len = left;
	if (xp__port->text_read(text, (const void *)start, len))
		return start;
	if (!xp__jump_word(text, start, &word))
		return start;
	/* One read is of one page, so a word that lies in two is not followed. */
	if (word % sizeof(target) || xp__port->data_read(&target, (const void *)word))
		return start;
	return target;
}

/* The record of the function that @fn is a pointer to; false: there is none. */
bool xp__match_pointer(xp__any_function *fn, struct xp__entries **module, uint32_t *record)
{
	uintptr_t start = (uintptr_t)fn;

	return xp__record_find(start, module, record) || xp__record_find(xp__match_jump(start), module, record);
}

/* The function at @fn; NULL: *error says why. */
struct xp__function *xp__match_function(xp__any_function *fn, int *error)
{
	const struct xp__sought sought = {.from = (uintptr_t)fn};
	struct xp__entries *module;
	struct xp__function *function;
	uint32_t record;

	*error = -XP__EINVAL;
	if (fn == NULL)
		return NULL;
	*error = xp__modules_retry(xp__match_module, &sought, NULL);
	if (!xp__match_pointer(fn, &module, &record)) {
		*error = *error ? *error : -XP_E_NO_ENTRY;
		return NULL;
	}
	function = xp__table_add(module, record);
	*error = function ? 0 : -XP__ENOMEM;
	return function;
}

#endif
