/* SPDX-License-Identifier: MIT */
/* Call sites that no record names: found when they are executed. Context: text lock. */
#ifndef XP_KINDS_DISCOVERED_H
#define XP_KINDS_DISCOVERED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xp__size;

struct xp__discovered {
	struct xp__discovered *next;
	uintptr_t code;
};

/* xp__discovered_add - one more in kind of @list; false: no memory. */
bool xp__discovered_add(struct xp__discovered **list, uintptr_t code);

/* xp__discovered_drop - empties @list; the memory is used again. */
void xp__discovered_drop(struct xp__discovered **list);

/* xp__discovered_size - adds to @size what those in @list need, and @nr more. */
void xp__discovered_size(const struct xp__discovered *list, size_t nr, struct xp__size *size);

/* xp__discovered_has - whether @code is in @list. */
bool xp__discovered_has(const struct xp__discovered *list, uintptr_t code);

/* xp__discovered_readable - 0 if the @len bytes at @code, which a return address follows, can be read; else why not. */
int xp__discovered_readable(uintptr_t code, size_t len);

#endif
