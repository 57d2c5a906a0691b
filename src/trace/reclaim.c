// SPDX-License-Identifier: MIT
/*
 * Memory of the tracing of functions: small blocks, which are kept, and what was replaced, till nobody can see it.
 *
 * I1  What was replaced is given back when everybody who was in a thunk has been seen to have left: run.c says who is.
 * I2  Small blocks go back to a list of their size and never to the port. Large ones are the port's.
 *
 * Ordering: none of its own. xp__trace_quiescent() in run.c has it.
 */
#include "trace/reclaim.h"

#include "core/deps.h"
#include "core/engine.h"
#include "trace/run.h"

#if XP__HAS_ENTRIES

#define CHUNK_SIZE (64u << 10)
#define NR_CLASSES 8u /* of small blocks: 32, 64, … 4096 */
#define CLASS_MIN 32u

static struct xp__dead *spare[NR_CLASSES];
static uint8_t *chunk;
static size_t chunk_left;

static unsigned class_of(size_t size)
{
	unsigned class = 0;

	while ((size_t)CLASS_MIN << class < size)
		class ++;
	return class;
}

void *xp__reclaim_take(size_t size)
{
	unsigned class = class_of(size);
	size_t rounded = (size_t)CLASS_MIN << class;
	void *memory;

	if (class >= NR_CLASSES)
		return xp__port->alloc(size);
	if (spare[class]) {
		memory = spare[class];
		spare[class] = spare[class]->next;
		memset(memory, 0, rounded);
		return memory;
	}
	if (chunk_left < rounded) {
		uint8_t *more = xp__port->alloc(CHUNK_SIZE);

		if (more == NULL)
			return NULL;
		chunk = more;
		chunk_left = CHUNK_SIZE;
	}
	memory = chunk;
	chunk += rounded;
	chunk_left -= rounded;
	return memory;
}

void xp__reclaim_give(void *memory, size_t size)
{
	unsigned class = class_of(size);
	struct xp__dead *dead = memory;

	if (class >= NR_CLASSES) {
		xp__port->release(memory, size);
		return;
	}
	dead->next = spare[class];
	spare[class] = dead;
}

/* What was replaced: since the last look, and before it. */
static struct xp__dead *fresh, *waiting;
static unsigned long waiting_for[XP__TRAP_WORDS];

void xp__reclaim(void)
{
	for (int turn = 0; turn < 2; turn++) {
		if (waiting == NULL) {
			waiting = fresh;
			fresh = NULL;
			memset(waiting_for, 0xff, sizeof(waiting_for));
		}
		if (waiting == NULL || !xp__trace_quiescent(waiting_for))
			return;
		while (waiting) {
			struct xp__dead *dead = waiting;

			waiting = dead->next;
			xp__reclaim_give(dead, dead->size);
		}
	}
}

void xp__reclaim_retire(struct xp__dead *dead)
{
	dead->next = fresh;
	fresh = dead;
}

#endif
