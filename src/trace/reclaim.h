/* SPDX-License-Identifier: MIT */
/* Memory of the tracing of functions: small blocks, which are kept, and what was replaced. Context: text lock. */
#ifndef XP_TRACE_RECLAIM_H
#define XP_TRACE_RECLAIM_H

#include "arch/arch.h"

#include <stddef.h>

#if XP__HAS_ENTRIES

/* A block that may be replaced while somebody reads it: what its writer keeps in it, for when it is. First in the block. */
struct xp__dead {
	struct xp__dead *next;
	size_t size;
};

/* xp__reclaim_take - @size zeroed bytes; NULL: there is no memory. xp__reclaim_give - they are free at once: nobody saw them. */
void *xp__reclaim_take(size_t size);
void xp__reclaim_give(void *memory, size_t size);

/* xp__reclaim_retire - a block was replaced: it is free when everybody who may have seen it has left. */
void xp__reclaim_retire(struct xp__dead *dead);

/* xp__reclaim - looks who left, and gives back what is free now. Progress: wait-free. */
void xp__reclaim(void);

#endif

#endif
