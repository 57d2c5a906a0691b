// SPDX-License-Identifier: MIT
/*
 * Lists of call sites that were found when they were executed.
 *
 * I1  Pieces are never given back to the port: what is dropped is kept for the next site.
 */
#include "core/discovered.h"

#include "core/engine.h"

#define BLOCK_SIZE 4096u

static uint8_t *block;
static size_t left;
static struct xp__discovered *spare;

void *xp__piece(size_t size)
{
	uint8_t *memory;

	size = (size + 15) & ~(size_t)15;
	if (size > BLOCK_SIZE)
		return xp__port->alloc(size);
	if (size > left) {
		memory = xp__port->alloc(BLOCK_SIZE);
		if (memory == NULL)
			return NULL;
		block = memory;
		left = BLOCK_SIZE;
	}
	memory = block;
	block += size;
	left -= size;
	return memory;
}

bool xp__discovered_add(struct xp__discovered **list, uintptr_t code)
{
	struct xp__discovered *discovered = spare;

	if (discovered)
		spare = discovered->next;
	else
		discovered = xp__piece(sizeof(*discovered));
	if (discovered == NULL)
		return false;
	discovered->code = code;
	discovered->next = *list;
	*list = discovered;
	return true;
}

void xp__discovered_drop(struct xp__discovered **list)
{
	struct xp__discovered **end = list;

	while (*end)
		end = &(*end)->next;
	*end = spare;
	spare = *list;
	*list = NULL;
}

size_t xp__discovered_count(const struct xp__discovered *list)
{
	size_t nr = 0;

	for (; list; list = list->next)
		nr++;
	return nr;
}

bool xp__discovered_has(const struct xp__discovered *list, uintptr_t code)
{
	while (list && list->code != code)
		list = list->next;
	return list != NULL;
}

/* They are in the page of the return address, or are text as well. */
int xp__discovered_readable(uintptr_t code, size_t len)
{
	return code / 4096 == (code + len) / 4096 ? 0 : xp__port->text_check((const void *)code, len);
}
