/* SPDX-License-Identifier: MIT */
/* The text lock of a thread that forks. */
#ifndef XP_LINUX_LOCK_FORK_H
#define XP_LINUX_LOCK_FORK_H

#include <stdbool.h>

/*
 * Each pair of xp__lock_fork_prepare() and one of the other two is a fork. prepare - true if the caller holds the lock now,
 * for this fork. child - true if it did, and the lock is free.
 */
bool xp__lock_fork_prepare(void);
void xp__lock_fork_parent(void);
bool xp__lock_fork_child(void);
/* xp__lock_fork_asked - the caller is asked for the lock. Context: the handler of the rendezvous' signal, @signal. */
void xp__lock_fork_asked(int signal);

#endif
