/* SPDX-License-Identifier: MIT */
/* Everything the method selection can produce, judged: site kind × method × model, at every alignment. Hosted. */
#ifndef XP_VERIFY_MATRIX_H
#define XP_VERIFY_MATRIX_H

#include "verify/explore.h"

/* One kind of change to one kind of site. */
struct xp__kind {
	const char *name;
	uint8_t len, known; /* as in struct xp__change */
	uint8_t flags;
	uint8_t old[XP_MAX_LEN], new[XP_MAX_LEN];
};

#define XP__KIND_RESUME 1 /* the caller gives a resume address; else the new instruction is emulated */
#define XP__KIND_BYPASS 8 /* the new instruction is executed out of line where it is not emulated */
#define XP__KIND_SEVERAL                                                                                               \
	2              /* several instructions, unknown to the library: the contract allows quiesce and early only */
#define XP__KIND_REX 4 /* has a prefix that in 32-bit code is another instruction: 64-bit code only */

#define XP__MAX_KINDS 80

extern const struct xp__kind xp__kinds[];
extern const unsigned xp__nr_kinds;

/* Addresses to try: every one in a line, and every one from which a site crosses into the next page. */
#define XP__NR_ADDRESSES (64 + XP_MAX_LEN - 1)
unsigned xp__address(unsigned i);

struct xp__cell {
	unsigned nr_plans; /* offered: by alignment, by what the writer can do, rollbacks included */
	unsigned nr_proven;
};

struct xp__matrix {
	unsigned nr_models;
	const struct xp__model *models;
	struct xp__cell cell[XP__MAX_KINDS][XP__NR_METHODS][XP__NR_MODELS];
	/* The number of times that the selection, asked for a model, chose a plan that the model does not prove. */
	unsigned nr_wrong;
	size_t nr_asked; /* plans judged, at one address under one model each, rollbacks counted */
	size_t nr_twice; /* of these: of two commits at one site, one after the other */
	size_t nr_explored, nr_states;
};

typedef void xp__progress_fn(void *data, unsigned done, unsigned all);
typedef void xp__wrong_fn(void *data, const struct xp__schedule *schedule, unsigned addr, const struct xp__model *model,
			  const struct xp__result *result);

/* What to call meanwhile; each may be NULL. */
struct xp__watch {
	xp__progress_fn *progress;
	xp__wrong_fn *wrong;
	void *data;
};

/*
 * xp__matrix_run - @models: at most XP__NR_MODELS. Those of xp__models are also held against the selection's own table:
 * what it offers when asked for such a model must be proven under it. 0, -ENOMEM, -E2BIG.
 */
int xp__matrix_run(struct xp__explorer *explorer, const struct xp__model *models, unsigned nr_models,
		   const struct xp__watch *watch, struct xp__matrix *matrix);

/*
 * xp__matrix_run_two - adds to @matrix: two commits in a row at one site, each by what the selection offers, under each of
 * its models that is said to prove both. 0, -ENOMEM, -E2BIG.
 */
int xp__matrix_run_two(struct xp__explorer *explorer, const struct xp__watch *watch, struct xp__matrix *matrix);

extern const char *const xp__method_names[XP__NR_METHODS];

#endif
