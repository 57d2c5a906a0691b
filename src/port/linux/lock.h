/* SPDX-License-Identifier: MIT */
/* The text lock. */
#ifndef XP_LINUX_LOCK_H
#define XP_LINUX_LOCK_H

#include <stdbool.h>
#include <stdint.h>

int xp__text_lock(void);
void xp__text_unlock(void);
/* xp__text_lock_or, xp__text_lock_told - lock_or() and told() of port.h. */
int xp__text_lock_or(const uint32_t *done);
void xp__text_lock_told(void);
bool xp__text_lock_owned(void); /* by the caller */
/*
 * xp__text_lock_for_fork - takes the lock for a fork; from inside a trap too, without a wait.
 * xp__text_lock_forks - the caller, which holds the lock, calls fork, or commits. xp__text_lock_forking - whether it does, and
 * holds the lock for that. xp__text_lock_yield - it lets others have the lock, and takes it back: false if it did not get it.
 */
int xp__text_lock_for_fork(void);
void xp__text_lock_forks(bool forks);
bool xp__text_lock_forking(void);
bool xp__text_lock_yield(void);
/* xp__text_lock_fork - in the child: the lock belongs to the forking thread's new self if @held, else it is free. */
void xp__text_lock_fork(bool held);

#endif
