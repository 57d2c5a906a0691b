// SPDX-License-Identifier: MIT
/* What the explorer has come to: each state once, with the step that led there first. */
#include "verify/states.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_STATES (4u << 20)

static uint64_t states_hash(const struct state *state)
{
	const uint8_t *bytes = (const uint8_t *)state;
	uint64_t hash = 0xcbf29ce484222325u;

	for (size_t i = 0; i < sizeof(*state); i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3u;
	return hash ^ hash >> 32;
}

/* The slot of @state, or the empty one where it belongs. */
static uint32_t *states_slot(struct xp__explorer *x, const struct state *state)
{
	size_t at = states_hash(state) & (x->nr_slots - 1);

	while (x->slots[at] && memcmp(&x->nodes[x->slots[at] - 1].state, state, sizeof(*state)) != 0)
		at = (at + 1) & (x->nr_slots - 1);
	return &x->slots[at];
}

static bool states_grow(struct xp__explorer *x)
{
	size_t room = x->room ? x->room * 2 : 1024;
	struct node *nodes = realloc(x->nodes, room * sizeof(*nodes));
	uint32_t *slots = nodes ? calloc(room * 2, sizeof(*slots)) : NULL;

	if (nodes)
		x->nodes = nodes;
	if (slots == NULL)
		return false;
	free(x->slots);
	x->slots = slots;
	x->nr_slots = room * 2;
	x->room = room;
	for (size_t i = 0; i < x->nr; i++)
		*states_slot(x, &x->nodes[i].state) = (uint32_t)i + 1;
	return true;
}

void xp__states_add(struct xp__explorer *x, const struct state *state, uint32_t parent, const struct xp__step *step)
{
	uint32_t *slot;

	if (x->nr == x->room && !states_grow(x)) {
		x->error = -ENOMEM;
		return;
	}
	if (x->nr == MAX_STATES) {
		x->error = -E2BIG;
		return;
	}
	slot = states_slot(x, state);
	if (*slot)
		return;
	x->nodes[x->nr].state = *state;
	x->nodes[x->nr].parent = parent;
	x->nodes[x->nr].step = *step;
	*slot = (uint32_t)++x->nr;
}

/* The way from the start to the node @at, and a last step: the first violation found is one of the shortest. */
void xp__states_violation(struct xp__explorer *x, uint32_t at, const struct xp__step *step, const char *why)
{
	struct xp__result *result = x->result;
	unsigned nr = at == NO_PARENT ? 0 : 1;

	if (!result->proven || x->recording)
		return;
	for (uint32_t i = at; at != NO_PARENT && x->nodes[i].parent != NO_PARENT; i = x->nodes[i].parent)
		nr++;
	result->proven = false;
	result->why = why;
	result->nr_steps = nr < XP__MAX_STEPS ? nr : XP__MAX_STEPS;
	for (unsigned i = nr; i-- > 0;) {
		if (i < XP__MAX_STEPS)
			result->step[i] = i + 1 == nr ? *step : x->nodes[at].step;
		if (i + 1 < nr)
			at = x->nodes[at].parent;
	}
}
