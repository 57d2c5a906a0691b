// SPDX-License-Identifier: MIT
/*
 * fork, from its beginning in the parent to the child's first commit. This file knows all that must do something there, and
 * only port.c knows this file. Nothing that is called here calls another one of them on account of a fork.
 *
 * Before: the forking thread has the text lock (lock_fork.c), so that the child's copy of the text holds no half-made commit and
 * no breakpoint without an owner. With other threads it also has the signal of the rendezvous, by which they ask for the lock.
 *
 * In the child, in this order:
 * 1. The marks are down (marks.c). What is known by a mark alone needs no call here: the descriptors of the files of /proc
 *    and whether there is a thread for deferred decrements. First, since a signal handler may interrupt what follows, and
 *    commit: whatever it uses then looks at its mark.
 * 2. control_state.c and cached_fd.c close what is the parent's. Before the lock is free: a commit writes through such a
 *    descriptor, and /proc/self/mem belongs to the process that opened it.
 * 3. The core forgets the parent's threads: the trap handlers that are inside the table, and those inside handlers of traced
 *    functions, will never leave in this process, and a commit waits for them. So before the lock is free.
 *    If descriptors are to stay open, the child then opens a /proc/self/mem of its own: later it may have no right to.
 * 4. The lock is free, or stays with this thread if it was in a commit. If fork did not get it, it stays taken.
 * 5. If it is free: the core's deferred decrements, which need the lock.
 *
 * A child that was made without fork's handlers (_Fork, clone) is noticed by the mark XP__MARK_PARENT when it first takes the
 * lock for the core, by xp__fork_lock(): 2, 3, then 4 as part of taking the lock, which finds its own mark down. 5 is left out:
 * its thread is made when the next decrement is deferred.
 * control_state.c takes the lock for itself, below this: it looks at a mark of its own before, and does its part of 2 by itself.
 *
 * fork called by a signal handler that interrupted a commit of its own thread: the child returns into the commit and
 * finishes it. The writer finds by its mark that its descriptor is the parent's, and opens a new one first.
 */
#include "port/linux/fork.h"

#include "port/linux/cached_fd.h"
#include "port/linux/control_state.h"
#include "port/linux/keys.h"
#include "port/linux/lock.h"
#include "port/linux/lock_fork.h"
#include "port/linux/marks.h"
#include "port/linux/sigtrap.h"
#include "port/linux/sync_signal.h"
#include "port/linux/writer.h"

#include <crosspatch/port.h>

#include <pthread.h>
#if defined(__GLIBC__) && __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define ALONE __libc_single_threaded
#else
#define ALONE 0
#endif

/* 2 and 3. Once more does no harm. */
static void fork_leave_parent(void)
{
	xp__control_fork();
	xp__cached_fd_drop_all(); /* closes the door to the parent's memory */
	xp_trap_fork_child(xp__trap_shard());
	xp_function_fork_child();
	xp_share_fork_child();
	xp__marks_fork[XP__MARK_PARENT] = 1;
}

static void fork_prepare(void)
{
	if (!xp__marks_fork[XP__MARK_PARENT])
		fork_leave_parent();
	if (xp__lock_fork_prepare() && !ALONE)
		(void)xp__rendezvous_start();
}

static void fork_child(void)
{
	for (int i = 0; i < XP__NR_MARKS; i++)
		xp__marks_fork[i] = 0; /* where the kernel does not */
	fork_leave_parent();
	if (xp__cached_fd_stay())
		(void)xp__writer_procmem.probe();
	if (xp__lock_fork_child())
		xp_fork_child();
}

static int fork_lock(bool share, const uint32_t *done)
{
	int error;

	if (!xp__marks_fork[XP__MARK_PARENT])
		fork_leave_parent();
	error = share ? xp__text_lock_or(done) : xp__text_lock();
	if (!error)
		xp__key_read();
	return error;
}

int xp__fork_lock(void)
{
	return fork_lock(false, NULL);
}

int xp__fork_lock_or(const uint32_t *done)
{
	return fork_lock(true, done);
}

int xp__fork_start(void)
{
	xp__marks_start();
	xp__marks_fork[XP__MARK_LOCK] = xp__marks_fork[XP__MARK_PARENT] = 1;
	return -pthread_atfork(fork_prepare, xp__lock_fork_parent, fork_child);
}
