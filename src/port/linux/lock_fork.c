// SPDX-License-Identifier: MIT
/*
 * fork while others patch. The forking thread holds the text lock from the last handler before fork to the first one
 * after it, so that the child's copy of the text holds no half-made commit and no breakpoint without an owner.
 *
 * In between libc has control, and takes locks of its own: malloc's, stdio's, those of the handlers that were registered
 * before ours (jemalloc's). A thread that holds one of them may wait for the text lock: a signal handler that interrupted
 * malloc and enables a key. So the forking thread does not keep the text lock from any thread for long:
 *
 *	the forking thread F                    a thread T that wants the lock
 *	prepare: takes the lock, marks it FORK
 *	libc: waits for malloc's lock           holds malloc's lock; waits for the text lock, 1 ms
 *	                                        owner | FORK: asks F, by the signal of the rendezvous
 *	handler: unlocks, waits for the lock    takes it, commits, unlocks
 *	handler: has it, marks it FORK, returns returns from its handler, gives malloc's lock back
 *	libc: takes malloc's lock, makes the child
 *	parent: unlocks
 *
 * I1  While F executes anything but our handler, F holds the lock: the child is made while no other thread commits.
 * I2  F waits in our handler for commits alone, which take no lock of libc's (lock.c, I1): F and T do not wait for each
 *     other. The handler lets the rendezvous in, which a commit may need to bring F to.
 * I3  The signal that asks comes at any time. It means nothing where F does not hold the lock for a fork; and where F is
 *     inside the system call that makes the child, libc has blocked it.
 * I4  A thread that blocks the signal of the rendezvous does not answer. T then gives up after some time (lock.c, I3), and
 *     has changed nothing.
 * A handler that interrupts F in between, of fork or of a signal, may commit, for F does not make the child meanwhile.
 *
 * Where the lock was not to be had, or not to be had back, the child is made without it, and finds it held by a thread that
 * it does not have: it commits nothing (lock.c). So it is where
 * - fork is called by the handler of a foreign trap, while another thread commits, which may wait for this thread;
 * - the commit of another thread does not end.
 * Where fork is called by a signal handler that interrupted a commit of its own thread, the child returns into the commit
 * and finishes it, in its own memory: there the lock stays with the thread.
 */
#include "port/linux/lock_fork.h"

#include "port/linux/lock.h"
#include "port/linux/rendezvous_signal.h"
#include "port/linux/sys.h"

#include <signal.h>
#include <stdint.h>

/*
 * What prepare did with the lock. A stack of two bits each: libc lets signals in between prepare and the other two, and
 * their handlers may fork.
 */
enum fork_lock { TAKEN, OWNED_BEFORE, NOT_OURS };
static __thread uint64_t locks __attribute__((tls_model("initial-exec")));

static enum fork_lock lock_fork_pop(void)
{
	enum fork_lock top = (enum fork_lock)(locks & 3);

	locks >>= 2;
	return top;
}

static void lock_fork_top_is(enum fork_lock lock)
{
	locks = (locks & ~(uint64_t)3) | lock;
}

void xp__lock_fork_asked(int signal)
{
	uint64_t mask = xp__sigbit(signal);

	xp__rendezvous_asked();
	if (!xp__text_lock_forking())
		return;
	xp__text_lock_forks(false);
	XP__SYS4(SYS_rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, XP__NSIG_SIZE);
	if (!xp__text_lock_yield()) {
		lock_fork_top_is(NOT_OURS);
		return;
	}
	/* Asked again from here on, it comes back when this handler has returned. */
	XP__SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &mask, NULL, XP__NSIG_SIZE);
	xp__text_lock_forks(true);
}

/* A handler may interrupt this anywhere, and fork: what it sees is either no lock of this thread's, or one that is marked. */
bool xp__lock_fork_prepare(void)
{
	locks = locks << 2 | TAKEN;
	if (xp__text_lock_for_fork()) {
		lock_fork_top_is(xp__text_lock_owned() ? OWNED_BEFORE : NOT_OURS);
		return false;
	}
	xp__rendezvous_asked();
	return true;
}

void xp__lock_fork_parent(void)
{
	/* In the child of a fork in between the lock is not held. */
	if ((locks & 3) == TAKEN && xp__text_lock_forking())
		xp__text_unlock();
	(void)lock_fork_pop();
}

bool xp__lock_fork_child(void)
{
	enum fork_lock lock = lock_fork_pop();

	xp__rendezvous_asked();
	if (lock == NOT_OURS)
		return false; /* MARK_LOCK stays down: the next xp__text_lock() sees to it */
	/* Owned before: it stays with this thread under its new id, for the commit that it is about to return to. */
	xp__text_lock_fork(lock == OWNED_BEFORE);
	return lock == TAKEN;
}
