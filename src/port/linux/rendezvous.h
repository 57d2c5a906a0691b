/* SPDX-License-Identifier: MIT */
/* The inside of the rendezvous, for quiesce.c. */
#ifndef XP_LINUX_RENDEZVOUS_H
#define XP_LINUX_RENDEZVOUS_H

#include <stdbool.h>
#include <stdint.h>

struct xp__slot {
	int tid;
	uint32_t answer; /* the round that it answered */
	uintptr_t pc, sp; /* where it was interrupted; 0 if it is gone */
};

/* xp__rendezvous_meet - a round; with @park, everybody waits in it until xp__rendezvous_release(). */
int xp__rendezvous_meet(bool park);
void xp__rendezvous_release(void);
const struct xp__slot *xp__rendezvous_slots(uint32_t *nr);

#endif
