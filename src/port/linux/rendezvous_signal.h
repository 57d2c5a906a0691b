/* SPDX-License-Identifier: MIT */
/* The signal of the rendezvous: which one it is, and how it is sent. */
#ifndef XP_LINUX_RENDEZVOUS_SIGNAL_H
#define XP_LINUX_RENDEZVOUS_SIGNAL_H

#include <stdint.h>

/* xp__rendezvous_signal - its number; 0: none is chosen yet. */
int xp__rendezvous_signal(void);
/*
 * xp__rendezvous_choose - sees to it that a signal has @handler: 0 if one has it still, 1 if another one is chosen,
 * -XP_E_NO_SYNC if none is free. Context: text lock.
 */
int xp__rendezvous_choose(uintptr_t handler);
/* xp__rendezvous_send - sends it to thread @tid, with @value: 0 or -errno. */
int xp__rendezvous_send(int tid, uint32_t value);
/*
 * xp__rendezvous_ask_forking - sends it to thread @tid, which holds the text lock for a fork, with XP__ASKS_FORKING in place of a
 * slot's number; not again before xp__rendezvous_asked(), by which that thread says that it has come. Context: any.
 */
#define XP__ASKS_FORKING UINT32_MAX
void xp__rendezvous_ask_forking(int tid);
void xp__rendezvous_asked(void);

#endif
