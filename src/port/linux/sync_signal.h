/* SPDX-License-Identifier: MIT */
/* Syncs by a signal. */
#ifndef XP_LINUX_SYNC_SIGNAL_H
#define XP_LINUX_SYNC_SIGNAL_H

#include <stdbool.h>
#include <stdint.h>

struct xp_diag;

/*
 * The rendezvous: every other thread comes into a signal handler and executes a serializing instruction there.
 * Threads of other processes that share the memory (children of vfork) are not reached.
 */
int xp__rendezvous_start(void); /* chooses and installs the signal; 0 if usable */
/* How long a round may take that cannot succeed as it looks: nothing is stored yet, text is half new, it is being undone. */
enum xp__hurry { XP__BEFORE, XP__MIDWAY, XP__UNDOING };
/* xp__rendezvous_sync - 0; -EBUSY, with the thread that did not come in @diag (may be NULL); -errno. */
int xp__rendezvous_sync(enum xp__hurry hurry, struct xp_diag *diag);

/* ---- the inside, for quiesce.c ---- */
struct xp__slot {
	int tid;
	bool suspect;     /* it did not answer a round before, whose signal may still be pending */
	uintptr_t word;   /* what the round asks, then what the thread answers (sync_signal.c) */
	uintptr_t pc, sp; /* where it was interrupted, if the round parks; 0 if it is gone */
};

/*
 * xp__rendezvous_meet - rounds, until one succeeds: 0. With @park, every other thread then waits until
 * xp__rendezvous_release(), and the caller's signals are blocked until then. Errors: as xp__rendezvous_sync(); then no
 * thread waits. @spent: how long was waited before, in nanoseconds; what this call waits is added.
 */
int xp__rendezvous_meet(bool park, enum xp__hurry hurry, uint64_t *spent, struct xp_diag *diag);
void xp__rendezvous_release(void);
/* xp__rendezvous_slot - number @i of the last round's; NULL: there are no more. */
const struct xp__slot *xp__rendezvous_slot(uint32_t i);
/* xp__rendezvous_pause - lets a moment pass between two rounds, and adds it to *@spent. */
void xp__rendezvous_pause(uint64_t ns, uint64_t *spent);

#endif
