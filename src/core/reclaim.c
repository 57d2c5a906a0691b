// SPDX-License-Identifier: MIT
/*
 * The engine's memory: one allocator, and one way to tell when a block that was replaced is free.
 *
 * I1  Small blocks are cut from pieces of the port's. They go back to a list of their size, never to the port. Large ones,
 *     and those of commits, are blocks of the port's; the largest that was given is kept for the next commit.
 * I2  All under the text lock. Nothing here is called by a trap handler; but the port may be asked for memory inside
 *     another signal handler.
 * I3  A block that was replaced is free when each reader that may have seen it has left.
 *
 * Ordering. Readers of a domain read blocks without a lock. W is the writer (text lock held), R a reader. The domains are
 * the trap handlers, which read the trap table (1) and the tables of sites that fault (2), and the threads that are in the
 * thunk of a traced function (3). The accesses, and their labels, are the domain's:
 *
 *	W                          (1)  (2)  (3)        R                      (1)  (2)  (3)
 *	replace block     full b.   T3   G3   F1        count in      full b.   T2   T2   F3
 *	retire block                                    find block    acquire   T4   G4   F2
 *	all bits of waiting_for                         read it
 *	look at each shard          T6   T6   F5        count out     release   T5   T5   F4
 *	free block
 *
 * A reader that finds the block has counted itself in before it looked for it. Between W's replacing and its look, and
 * between R's counting in and its search, stands a full barrier. So either R finds what came later, or W finds R's shard
 * occupied, and waits. When W finds the shard empty, R has counted itself out, with release, after its last look at the block.
 *
 * The bits are set after all blocks of the batch were replaced, since a block joins no batch that waits: it is fresh, and
 * waits with the next one. Each shard has to be found empty once, not all at the same time: a reader that comes later finds
 * no block of the batch. Without the two lists a block would be free by looks that were made before it was replaced.
 */
#include "core/reclaim.h"

#include "arch/arch.h"
#include "core/deps.h"
#include "core/state.h"

#define SMALL_MIN 16u
#define NR_SIZES 8u /* of small blocks: 16, 32, … 2048 */
#define PIECE (64u << 10)
#define PIECE_BOUNDED 4096u
#define KEPT_MAX (32u << 20) /* memory kept for the next commit: one of a million sites fits */
#define WHOLE_MIN 4096u

struct small {
	struct small *next;
};

static struct small *spare[NR_SIZES];
static uint8_t *piece;
static size_t piece_left;
static struct xp__block *kept;
static size_t needed; /* of the last block that there was no memory for */
static struct xp__domain *domains;

/* ---- the port's ---- */

void xp__reclaim_trim(void)
{
	if (kept)
		xp__port->release(kept, kept->size);
	kept = NULL;
}

void *xp__reclaim_port(size_t size)
{
	void *memory = xp__port->alloc(size);

	if (memory == NULL && xp__port->bounded) {
		xp__reclaim_await();
		xp__reclaim_trim();
		memory = xp__port->alloc(size);
	}
	if (memory == NULL)
		__atomic_store_n(&needed, size, __ATOMIC_RELAXED);
	return memory;
}

size_t xp__reclaim_needed(void)
{
	return __atomic_load_n(&needed, __ATOMIC_RELAXED);
}

struct xp__block *xp__reclaim_whole(size_t size)
{
	struct xp__block *block;

	xp__reclaim();
	block = kept;
	if (block && block->size >= size) {
		kept = NULL;
		return block;
	}
	if (size < WHOLE_MIN && !xp__port->bounded)
		size = WHOLE_MIN;
	block = xp__reclaim_port(size);
	if (block)
		*block = (struct xp__block){.size = size, .whole = true};
	return block;
}

void xp__reclaim_keep(struct xp__block *block)
{
	if (block->size <= KEPT_MAX && (kept == NULL || kept->size < block->size)) {
		struct xp__block *smaller = kept;

		kept = block;
		block = smaller;
	}
	if (block)
		xp__port->release(block, block->size);
}

/* ---- small blocks ---- */

static unsigned size_class(size_t size)
{
	unsigned class = 0;

	while (class < NR_SIZES && (size_t)SMALL_MIN << class < size)
		class ++;
	return class;
}

void *xp__reclaim_take(size_t size)
{
	unsigned class = size_class(size);
	size_t rounded = (size_t)SMALL_MIN << class;
	void *memory;

	if (class == NR_SIZES)
		return xp__reclaim_port(size);
	if (spare[class]) {
		memory = spare[class];
		spare[class] = spare[class]->next;
		memset(memory, 0, rounded);
		return memory;
	}
	if (piece_left < rounded) {
		size_t more = xp__port->bounded ? PIECE_BOUNDED : PIECE;
		uint8_t *new = xp__reclaim_port(more);

		if (new == NULL)
			return NULL;
		piece = new;
		piece_left = more;
	}
	memory = piece;
	piece += rounded;
	piece_left -= rounded;
	return memory;
}

void xp__reclaim_give(void *memory, size_t size)
{
	unsigned class = size_class(size);
	struct small *small = memory;

	if (class == NR_SIZES) {
		xp__port->release(memory, size);
		return;
	}
	small->next = spare[class];
	spare[class] = small;
}

/* ---- blocks that were replaced ---- */

void xp__reclaim_retire(struct xp__domain *domain, struct xp__block *block)
{
	if (!domain->listed) {
		domain->listed = true;
		domain->next = domains;
		domains = domain;
	}
	block->next = domain->fresh;
	domain->fresh = block;
}

static void free_all(struct xp__block *block)
{
	while (block) {
		struct xp__block *next = block->next;

		if (block->whole)
			xp__reclaim_keep(block);
		else
			xp__reclaim_give(block, block->size);
		block = next;
	}
}

/* Two batches may be free: the one that waited, and then what came since. */
static void reclaim_look(struct xp__domain *domain)
{
	while (domain->waiting || domain->fresh) {
		if (domain->waiting == NULL) {
			domain->waiting = domain->fresh;
			domain->fresh = NULL;
			for (unsigned w = 0; w < XP__SHARD_WORDS; w++)
				domain->waiting_for[w] = ~0ul;
		}
		if (!domain->quiescent(domain->waiting_for))
			return;
		free_all(domain->waiting);
		domain->waiting = NULL;
	}
}

void xp__reclaim(void)
{
	for (struct xp__domain *domain = domains; domain; domain = domain->next)
		reclaim_look(domain);
}

void xp__reclaim_await(void)
{
	for (struct xp__domain *domain = domains; domain; domain = domain->next)
		while (domain->brief && (domain->waiting || domain->fresh)) {
			xp__cpu_relax();
			reclaim_look(domain);
		}
}
