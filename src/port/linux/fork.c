// SPDX-License-Identifier: MIT
/*
 * fork while others patch. The forking thread holds the text lock from the last handler before fork to the first one
 * after it, so that the child's copy of the text holds no half-made commit and no breakpoint without an owner.
 *
 * In between libc has control, and takes locks of its own: malloc's, stdio's, those of the handlers that were registered
 * before ours (jemalloc's). A thread that holds one of them may wait for the text lock: a signal handler that interrupted
 * malloc and enables a key. So the forking thread does not keep the text lock from anybody for long:
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
 * Exceptions:
 * - fork called by a signal handler that interrupted a commit of its own thread. There the child returns into the
 *   commit and finishes it, in its own memory: the descriptor of /proc/self/mem belongs to the process that opened it, so
 *   the writer opens a new one first (MARK_PROCMEM).
 * - fork called by the handler of a foreign trap, while another thread commits. That commit may wait for this thread, so
 *   this thread does not wait for it; the child finds the lock held by nobody, and is refused. The same where F did not get
 *   the lock, or did not get it back, because somebody's commit does not end.
 */
#include "port/linux/fork.h"

#include "port/linux/control.h"
#include "port/linux/defer.h"
#include "port/linux/cached_fd.h"
#include "port/linux/lock.h"
#include "port/linux/marks.h"
#include "port/linux/sigtrap.h"
#include "port/linux/sync_signal.h"
#include "port/linux/sys.h"
#include "port/linux/writer.h"

#include <crosspatch/port.h>

#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#if defined(__GLIBC__) && __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define ALONE __libc_single_threaded
#else
#define ALONE 0
#endif

/*
 * What prepare() did with the lock. A stack of two bits each: libc lets signals in between prepare() and the other two,
 * and their handlers may fork.
 */
enum fork_lock { TAKEN, OWNED_BEFORE, NOT_OURS };
static __thread uint64_t locks __attribute__((tls_model("initial-exec")));

static uint32_t asked; /* a thread has asked, and no handler has come since */

static enum fork_lock pop(void)
{
	enum fork_lock top = (enum fork_lock)(locks & 3);

	locks >>= 2;
	return top;
}

static void top_is(enum fork_lock lock)
{
	locks = (locks & ~(uint64_t)3) | lock;
}

void xp__fork_ask(int tid)
{
	if (__atomic_exchange_n(&asked, 1, __ATOMIC_RELAXED) == 0)
		xp__rendezvous_ask_forking(tid);
}

void xp__fork_asked(int signal)
{
	uint64_t mask = xp__sigbit(signal);

	__atomic_store_n(&asked, 0, __ATOMIC_RELAXED);
	if (!xp__text_lock_forking())
		return;
	xp__text_lock_forks(false);
	XP__SYS4(SYS_rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, XP__NSIG_SIZE);
	if (!xp__text_lock_yield()) {
		top_is(NOT_OURS);
		return;
	}
	/* Asked again from here on, it comes back when this handler has returned. */
	XP__SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &mask, NULL, XP__NSIG_SIZE);
	xp__text_lock_forks(true);
}

/* A handler may interrupt this anywhere, and fork: what it sees is either no lock of this thread's, or one that is marked. */
static void prepare(void)
{
	locks = locks << 2 | TAKEN;
	if (xp__text_lock_for_fork()) {
		top_is(xp__text_lock_owned() ? OWNED_BEFORE : NOT_OURS);
		return;
	}
	__atomic_store_n(&asked, 0, __ATOMIC_RELAXED);
	if (!ALONE)
		(void)xp__rendezvous_start(); /* by its signal others ask */
}

static void parent(void)
{
	/* In the child of a fork in between the lock is not held. */
	if ((locks & 3) == TAKEN && xp__text_lock_forking())
		xp__text_unlock();
	(void)pop();
}

static void child(void)
{
	enum fork_lock lock = pop();

	for (int i = 0; i < XP__NR_MARKS; i++)
		xp__fork_marks[i] = 0;
	asked = 0;
	xp__defer_fork();
	xp__control_fork();
	xp__cached_fd_drop_all(); /* closes the door to the parent's memory */
	if (xp__cached_fd_stay())
		(void)xp__writer_procmem.probe();
	xp_trap_fork_child(xp__trap_shard());
	xp_function_fork_child();
	if (lock == NOT_OURS)
		return; /* MARK_LOCK stays down: the next xp__text_lock() sees to it */
	/* Owned before: it stays with this thread under its new id, for the commit that it is about to return to. */
	xp__text_lock_fork(lock == OWNED_BEFORE);
	if (lock == TAKEN)
		xp_fork_child();
}

int xp__fork_start(void)
{
	xp__marks_start();
	xp__fork_marks[XP__MARK_LOCK] = 1;
	return -pthread_atfork(prepare, parent, child);
}
