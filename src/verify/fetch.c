// SPDX-License-Identifier: MIT
/* The bytes of an instruction, block by block: every view of them that the model allows between the bound and now. */
#include "verify/fetch.h"

#include "verify/execute.h"
#include "verify/states.h"

#include <errno.h>
#include <string.h>

#define MAX_FETCHES (100u << 20) /* a minute; the library's own plans take some thousands */

/* ---- instants ---- */

static struct instant fetch_instant(const struct xp__explorer *x, unsigned stores, unsigned pieces)
{
	struct instant instant = {(uint16_t)pieces, (uint16_t)stores};

	if (pieces && pieces == x->changed[stores]) {
		instant.stores++;
		instant.pieces = 0;
	}
	return instant;
}

/* The earliest instant that is not before either. */
static struct instant fetch_join(const struct xp__explorer *x, struct instant a, struct instant b)
{
	if (a.stores != b.stores)
		return a.stores > b.stores ? a : b;
	return fetch_instant(x, a.stores, a.pieces | b.pieces);
}

/* ---- fetch ---- */

struct fetch {
	struct state state; /* before the instruction */
	struct instant seen;
	uint32_t parent;
	unsigned nr; /* bytes fetched so far */
	uint8_t bytes[XP_MAX_LEN];
	uint8_t version[XP_MAX_LEN];
};

static void fetch_more(struct xp__explorer *x, const struct fetch *fetch);

/* One block as it was at the instant of @stores and @pieces, then on. */
static void fetch_view(struct xp__explorer *x, const struct fetch *from, unsigned block, unsigned stores,
		       unsigned pieces)
{
	struct fetch fetch = *from;
	unsigned pc = fetch.state.pc;

	for (unsigned i = pc + fetch.nr; i < x->len && block >> i & 1; i++, fetch.nr++) {
		/* Bytes that a single store does not change have its version as well: they were read at the same instant. */
		unsigned version = stores + (x->single[stores] ? pieces != 0 : pieces >> i & 1);

		fetch.bytes[fetch.nr] = x->image[version][i];
		fetch.version[fetch.nr] = (uint8_t)version;
	}
	fetch.seen = fetch_join(x, fetch.seen, fetch_instant(x, stores, pieces));
	fetch_more(x, &fetch);
}

/* Every view of the next block: all instants from the bound to now that show something new there (I1). */
static void fetch_block(struct xp__explorer *x, const struct fetch *fetch)
{
	unsigned first = fetch->state.pc + fetch->nr, now = x->now[fetch->state.time];
	struct instant from = x->model->ascending ? fetch->seen : fetch->state.bound;
	unsigned block = x->model->reread ? 1u << first : x->block[first] & ~((1u << first) - 1);

	for (unsigned s = from.stores; s <= now && !x->error; s++) {
		unsigned list[XP_MAX_LEN], nr = 0, must = 0, stored = 0;

		for (unsigned i = first; s < now && i < x->len; i++)
			if (block & x->changed[s] & 1u << i && !(stored & 1u << i)) {
				list[nr++] = x->piece[s][i];
				stored |= x->piece[s][i];
			}
		if (s == from.stores)
			must = from.pieces & stored;
		for (unsigned subset = 0; subset < 1u << nr && !x->error; subset++) {
			unsigned pieces = 0;

			for (unsigned i = 0; i < nr; i++)
				if (subset >> i & 1)
					pieces |= list[i];
			if ((pieces & must) == must && (subset || s == from.stores))
				fetch_view(x, fetch, block, s, pieces);
		}
	}
}

/* Whether a store after the bound changes the bytes of the instruction that was fetched. */
static bool fetch_is_unsynchronized(const struct xp__explorer *x, const struct fetch *fetch, unsigned len)
{
	unsigned mask = ((1u << len) - 1) << fetch->state.pc;

	for (unsigned s = fetch->state.bound.stores; s < x->now[fetch->state.time]; s++)
		if (x->changed[s] & mask)
			return true;
	return false;
}

static void fetch_more(struct xp__explorer *x, const struct fetch *fetch)
{
	struct state state = fetch->state;
	unsigned nr = fetch->nr < 15 ? fetch->nr : 15;
	struct xp__effect effect = xp__decode(&x->decoder, fetch->bytes, nr, state.pc);
	struct xp__step step = {
		.kind = XP__STEP_EXECUTE, .time = state.time, .at = state.pc, .len = (uint8_t)fetch->nr};
	bool ends = effect.kind != XP__EFFECT_MORE;

	if (++x->nr_fetches > MAX_FETCHES)
		x->error = -E2BIG;
	if (!ends && state.pc + fetch->nr < x->len) {
		fetch_block(x, fetch);
		return;
	}
	if (effect.len)
		step.len = effect.len;
	memcpy(step.bytes, fetch->bytes, sizeof(step.bytes));
	memcpy(step.version, fetch->version, sizeof(step.version));
	if (!ends) {
		xp__states_violation(x, fetch->parent, &step,
				     "the instruction is longer than what is left of the site");
		return;
	}
	if (x->model->undefined && fetch_is_unsynchronized(x, fetch, step.len)) {
		xp__states_violation(x, fetch->parent, &step,
				     "it was changed, and this processor has not serialized since");
		return;
	}
	if (x->model->program_order)
		state.bound = fetch_join(x, state.bound, fetch->seen);
	xp__execute(x, state, &effect, fetch->parent, &step);
}

/* The first byte of an instruction, then on. */
void xp__fetch(struct xp__explorer *x, const struct state *state, uint32_t number)
{
	struct fetch fetch = {.state = *state, .parent = number, .seen = state->bound};

	fetch_more(x, &fetch);
}
