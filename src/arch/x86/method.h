/* SPDX-License-Identifier: MIT */
/* Methods: how one site gets from old to new, and what a processor may fetch meanwhile. */
#ifndef XP_ARCH_X86_METHOD_H
#define XP_ARCH_X86_METHOD_H

#include <stdbool.h>

enum xp__method {
	XP__METHOD_NONE, /* old and new are equal */
	XP__METHOD_FLIP,
	XP__METHOD_WORD,
	XP__METHOD_SHORTJMP,
	XP__METHOD_BREAKPOINT,
	XP__METHOD_QUIESCE,
	XP__METHOD_EARLY,
	XP__METHOD_BYPASS, /* breakpoint, the new instruction out of line */
};

#define XP__NR_METHODS 8

/*
 * What a processor may fetch while text changes. doc/models.md describes each and names its source; src/verify defines
 * them (model.c, in this order). 0 is what a change is planned for unless it says otherwise.
 */
enum xp__fetch {
	XP__FETCH_AMD,        /* an aligned quadword as it was at one instant; instants only go forward */
	XP__FETCH_AMD_REREAD, /* the same, read anew for each byte */
	XP__FETCH_BYTE,       /* every byte from any instant since the last sync */
	XP__FETCH_LINE64,     /* an aligned 64 bytes as they were at one instant */
	XP__FETCH_INTEL_SDM,  /* nothing that is executed between its change and a sync */
};

#define XP__NR_FETCHES 5

/*
 * xp__method_proven - whether every plan of @method is proven under @fetch, at every alignment at which it is offered,
 * rollback included. The tests hold the explorer against each cell, in both directions.
 */
bool xp__method_proven(enum xp__method method, enum xp__fetch fetch);

#endif
