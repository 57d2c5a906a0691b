/* SPDX-License-Identifier: MIT */
/* The engine's memory: blocks, and when a block that was replaced is free. Context: text lock, where nothing else is said. */
#ifndef XP_CORE_RECLAIM_H
#define XP_CORE_RECLAIM_H

#include <stdbool.h>
#include <stddef.h>

/* Readers count themselves in and out in shards of their own. A set of shards has one bit for each. */
#define XP__SHARDS 256
#define XP__SHARD_BITS (8 * (unsigned)sizeof(unsigned long))
#define XP__SHARD_WORDS (XP__SHARDS / XP__SHARD_BITS)

/* A block that may be replaced while a thread reads it. First in the block. */
struct xp__block {
	struct xp__block *next; /* of those that were replaced */
	size_t size;
	bool whole; /* it came from xp__reclaim_whole() */
};

/* Threads that read blocks without the lock, and the blocks that were replaced since. */
struct xp__domain {
	/*
	 * quiescent - true once each shard in @waiting has been seen empty since the call that had all bits set. @waiting
	 * remembers the answer so far: no reader can starve a writer. Progress: wait-free.
	 */
	bool (*quiescent)(unsigned long waiting[XP__SHARD_WORDS]);
	bool brief; /* its readers end by themselves: a writer without memory may wait for them */
	bool listed;
	struct xp__domain *next;
	struct xp__block *fresh, *waiting; /* replaced since the last look began, and before */
	unsigned long waiting_for[XP__SHARD_WORDS];
};

/*
 * xp__reclaim_take - @size zeroed bytes. xp__reclaim_give - they are free at once: no other thread has seen them.
 * xp__reclaim_whole - a block of at least @size bytes, not zeroed but for its head, which says how large it really is: the
 * one that is kept, or one of the port's. It is given by xp__reclaim_keep(), which keeps the largest for the next call.
 * xp__reclaim_port - @size zeroed bytes of the port's own, which the caller releases.
 * All return NULL if there is no memory; xp__reclaim_needed() says how much would do. Progress: where memory is bounded and
 * there is none left, they wait for trap handlers.
 */
void *xp__reclaim_take(size_t size);
void xp__reclaim_give(void *memory, size_t size);
struct xp__block *xp__reclaim_whole(size_t size);
void xp__reclaim_keep(struct xp__block *block);
void *xp__reclaim_port(size_t size);
size_t xp__reclaim_needed(void);

/* xp__reclaim_retire - no reader that counts itself in from now on finds @block: it is free when all earlier ones have left. */
void xp__reclaim_retire(struct xp__domain *domain, struct xp__block *block);

/* xp__reclaim - looks which readers have left, and frees what none of them can see. Progress: wait-free. */
void xp__reclaim(void);

/*
 * xp__reclaim_await - returns when all blocks of brief domains are free. Progress: waits for their readers.
 * xp__reclaim_trim - gives the port the block that is kept.
 */
void xp__reclaim_await(void);
void xp__reclaim_trim(void);

#endif
