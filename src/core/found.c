// SPDX-License-Identifier: MIT
/*
 * Lists of call sites that were found when they were executed.
 *
 * I1  Pieces are never given back to the port: what is dropped is kept for the next site.
 */
#include "core/found.h"

#include "core/engine.h"

#define BLOCK_SIZE 4096u

static uint8_t *block;
static size_t left;
static struct xp__found *spare;

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

bool xp__found_add(struct xp__found **list, uintptr_t code)
{
	struct xp__found *found = spare;

	if (found)
		spare = found->next;
	else
		found = xp__piece(sizeof(*found));
	if (found == NULL)
		return false;
	found->code = code;
	found->next = *list;
	*list = found;
	return true;
}

void xp__found_drop(struct xp__found **list)
{
	struct xp__found **end = list;

	while (*end)
		end = &(*end)->next;
	*end = spare;
	spare = *list;
	*list = NULL;
}

bool xp__found_has(const struct xp__found *list, uintptr_t code)
{
	while (list && list->code != code)
		list = list->next;
	return list != NULL;
}

/* They are in the page of the return address, or are text as well. */
int xp__found_readable(uintptr_t code, size_t len)
{
	return code / 4096 == (code + len) / 4096 ? 0 : xp__port->text_check((const void *)code, len);
}
