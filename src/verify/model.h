/* SPDX-License-Identifier: MIT */
/* Fetch models: which mixtures of versions a processor may execute. Each is described in doc/models.md, with its source. */
#ifndef XP_VERIFY_MODEL_H
#define XP_VERIFY_MODEL_H

#include "arch/arch.h"

#include <stdbool.h>

/*
 * A fetch takes each naturally aligned block of `granule` bytes from memory as it was at one instant, not before the
 * processor's last sync (or return from a trap). Different blocks: different instants.
 */
struct xp__model {
	const char *name;
	unsigned granule;  /* 1, 2, 4, … 64: also the widest store that is seen at once */
	bool program_order; /* no instant before one that an earlier instruction saw; else every fetch starts afresh */
	bool reread;       /* every byte of an instruction may come from another instant */
	bool ascending;    /* within an instruction, no block is older than a block at a lower address */
	bool undefined;    /* to execute a byte changed since the last sync is a violation in itself */
};

#define XP__NR_MODELS XP__NR_FETCHES

/* The named models, in the order of enum xp__fetch: what the method selection knows as proven is proven under these. */
extern const struct xp__model xp__models[XP__NR_MODELS];

/* xp__model_find - by name, or NULL. */
const struct xp__model *xp__model_find(const char *name);

#endif
