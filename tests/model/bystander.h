/* SPDX-License-Identifier: MIT */
/*
 * A thread that executes the sites while they are patched, after every step of the recorder, as unfavourably as the
 * rules allow. No processor is needed to see a dropped sync or a wrong order.
 *
 * The rules (the weakest fetch model that the protocol must live with):
 *	after a successful sync, a fetch sees what stood in the text at the sync, or later stores
 *	every byte stored since may be fetched old or new, each on its own, one store or several back
 *	the bytes of one store with XP_WRITE_SINGLE are fetched all old or all new
 * So a site has a set of views. Every one is executed: by decoding it, instruction by instruction, until the program
 * counter has left the site. A breakpoint goes to xp_trap(), at once and again after every later step: a late trap.
 *
 * Right is: registers, stack and program counter are those of the old instruction or of the new one (or of the resume
 * address), or, for instructions that the engine does not know, the bytes are exactly old or new.
 */
#ifndef XP_TEST_BYSTANDER_H
#define XP_TEST_BYSTANDER_H

#include "recorder.h"

enum {
	BY_OLD = 1,
	BY_NEW = 2,
	BY_TRAP = 4, /* a view with our breakpoint */
};

/* What was executed since bystander_start(): zero means that the test did nothing. */
struct bystander_counts {
	unsigned long views, traps, late;
};
extern struct bystander_counts bystander_counts;

/* Where set, a wrong execution is counted here instead of failing the case: the bystander himself is under test. */
extern unsigned *bystander_wrong;

/* bystander_watch - before start. @resume_at: where the caller lets a trapped thread continue, 0 if emulated. */
void bystander_watch(size_t offset, const uint8_t *old, const uint8_t *new, size_t len, uintptr_t resume_at);

/*
 * bystander_then - the next commit makes the watched site at @offset @next, and what it was before may not be synchronized yet:
 * until the next sync old is old, too.
 */
void bystander_then(size_t offset, const uint8_t *next);

/* bystander_start - takes the text as synchronized, and the recorder's hook. Until then everything is allowed. */
void bystander_start(void);

/* bystander_check - executes all views of all sites; nothing but @allowed may come out. */
void bystander_check(unsigned allowed);

/* bystander_stop - forgets the sites. */
void bystander_stop(void);

#endif
