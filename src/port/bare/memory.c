// SPDX-License-Identifier: MIT
/*
 * The kernel's buffer, handed out in multiples of 64 bytes: first fit, free blocks in ascending order, neighbours joined.
 * The caller that gives a block back says how large it is, so blocks in use carry no header. Under the text lock.
 */
#include "port/bare/port.h"

#include "core/deps.h"

#define UNIT 64u

struct block {
	size_t size;
	struct block *next;
};

static struct block *blocks;

static size_t round_up(size_t size)
{
	return (size + UNIT - 1) & ~(size_t)(UNIT - 1);
}

void xp__bare_memory_start(void *memory, size_t size)
{
	uintptr_t start = round_up((uintptr_t)memory), end = ((uintptr_t)memory + size) & ~(uintptr_t)(UNIT - 1);

	blocks = NULL;
	if (end <= start)
		return;
	blocks = (struct block *)start;
	blocks->size = end - start;
	blocks->next = NULL;
}

void *xp__bare_alloc(size_t size)
{
	struct block **link = &blocks;
	size_t wanted = round_up(size);
	struct block *block;

	if (wanted < size || wanted == 0)
		return NULL;
	while (*link && (*link)->size < wanted)
		link = &(*link)->next;
	block = *link;
	if (block == NULL)
		return NULL;
	if (block->size == wanted) {
		*link = block->next;
	} else {
		struct block *rest = (struct block *)((uintptr_t)block + wanted);

		rest->size = block->size - wanted;
		rest->next = block->next;
		*link = rest;
	}
	xp__bare_stats.used += wanted;
	if (xp__bare_stats.used > xp__bare_stats.peak)
		xp__bare_stats.peak = xp__bare_stats.used;
	memset(block, 0, wanted);
	return block;
}

static bool adjoin(const struct block *low, const struct block *high)
{
	return (uintptr_t)low + low->size == (uintptr_t)high;
}

void xp__bare_release(void *memory, size_t size)
{
	struct block *block = memory, *before = NULL, *next = blocks;

	block->size = round_up(size);
	xp__bare_stats.used -= block->size;
	while (next && next < block) {
		before = next;
		next = next->next;
	}
	block->next = next;
	if (next && adjoin(block, next)) {
		block->size += next->size;
		block->next = next->next;
	}
	if (before && adjoin(before, block)) {
		before->size += block->size;
		before->next = block->next;
	} else if (before) {
		before->next = block;
	} else {
		blocks = block;
	}
}
