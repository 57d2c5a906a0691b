// SPDX-License-Identifier: MIT
/*
 * The text lock: a futex whose word is the owner's thread id, so that a signal handler can tell that it interrupted the
 * owner, however early or late it came: there is no moment at which the lock is taken and the owner unknown.
 *
 * The word is 0 while the lock is free; else the owner's thread id and
 *	WAITERS   a thread may sleep: the unlock wakes one.
 *	HANDOFF   a thread slept, woke, and found the lock taken again: the unlock leaves the lock to those that slept, and
 *	          the word is WAITERS | HANDOFF, without an owner, until one of them takes it.
 *	FORK      the owner calls fork, and libc has control: see lock_fork.c.
 *
 * I1  The owner of the lock takes no lock of libc's, calls nothing that takes one, and waits for no thread that may hold
 *     one: a thread that holds one (in a handler that interrupted malloc, in a constructor under dlopen) may wait for the text
 *     lock.
 *     libc's part of fork takes many: a thread that owns the lock for a fork gives it to any thread that asks.
 * I2  Fair: the kernel wakes in the order in which threads went to sleep, and a thread that was overtaken once is not
 *     again. A thread that does not sleep pays nothing for that.
 * I3  Bounded: a thread waits as long as the lock changes hands. After PATIENCE_MS with one owner, or FORK_PATIENCE_MS with
 *     one that forks and does not answer, it gives up (-XP_E_HELD). An owner that has ended gives nothing back: that is
 *     noticed, and wedges the engine.
 *
 * I4  A thread that waits for the lock only to have its change made (core/share.c) goes when that is so: the unlock wakes all. If
 *     the owner was the same one again in between, it may sleep on until the next unlock, or LOOK_NS.
 *
 * After a fork, only the child's one thread is left: see fork.c.
 */
#include "port/linux/lock.h"

#include "core/state.h"
#include "port/linux/cached_fd.h"
#include "port/linux/marks.h"
#include "port/linux/rendezvous_signal.h"
#include "port/linux/sigtrap.h"
#include "port/linux/sys.h"
#include "port/linux/worker.h"

#include <crosspatch/error.h>
#include <crosspatch/port.h>

#include <errno.h>

#define WAITERS 0x80000000u
#define HANDOFF 0x40000000u
#define FORK 0x20000000u
#define OWNER 0x1fffffffu /* thread ids are less than 2^22 */

#define LOOK_NS 10000000u /* a waiter looks after its owner that often */
#define SOON_NS 1000000u /* and that often at one that forks, or if it may take over from a thread that does not come */
#define FORK_PATIENCE_MS 2000u
#define YIELDS 2u /* before a thread sleeps whose change the owner may make: the owner may be about to */

#ifdef XP_INJECT
uint32_t xp__lock_patience_ms = 20000;
#define PATIENCE_MS xp__lock_patience_ms
#else
#define PATIENCE_MS 20000u
#endif

static uint32_t word;
static uint32_t turns; /* how often the owner found that others waited */
static bool told;      /* of the owner: a thread that waits need not have the lock any more */
static uint32_t lent;  /* of the owner: how many times it took the lock inside its own fork */

/*
 * In the child of a fork that ran no handlers (_Fork, clone): the thread that held the lock is not there. If one did, its
 * commit is neither finished nor undone in this copy of the text, unless it held the lock for a fork.
 */
static int enter_child(void)
{
	uint32_t seen = __atomic_load_n(&word, __ATOMIC_RELAXED);

	if (seen & OWNER && !(seen & FORK))
		return -XP_E_WEDGED;
	xp__text_lock_fork(false);
	return 0;
}

/* ---- the wait ---- */

/* What a waiter knows of the owner that it waits for. */
struct wait {
	uint32_t owner, turn;
	uint64_t since, looked; /* ms: when this owner was first seen, and the last look; 0: not yet */
	bool slept;             /* and was woken, or was not for a while */
};

/* Whether the owner in @seen has ended, and can unlock nothing. */
static bool is_gone(uint32_t seen)
{
	long error = XP__SYS3(SYS_tgkill, XP__SYS1(SYS_getpid, 0), seen & OWNER, 0);

	return error == -ESRCH && (__atomic_load_n(&word, __ATOMIC_RELAXED) & OWNER) == (seen & OWNER);
}

/* After a sleep that no unlock ended. 0: waits on; else the error to give up with. */
static int look_after_owner(struct wait *wait, uint32_t seen)
{
	uint32_t turn = __atomic_load_n(&turns, __ATOMIC_RELAXED);
	uint64_t now = xp__clock_ms();

	if (wait->since == 0 || wait->owner != (seen & (OWNER | FORK)) || wait->turn != turn) {
		wait->owner = seen & (OWNER | FORK);
		wait->turn = turn;
		wait->since = now;
	}
	if (!(seen & OWNER) || wait->looked == now)
		return 0;
	wait->looked = now;
	if (seen & FORK) {
		xp__rendezvous_ask_forking((int)(seen & OWNER));
		return now - wait->since < FORK_PATIENCE_MS ? 0 : -XP_E_HELD;
	}
	if (is_gone(seen)) {
		xp__wedge();
		return -XP_E_WEDGED;
	}
	return now - wait->since < PATIENCE_MS ? 0 : -XP_E_HELD;
}

/* @done: NULL, or the wait ends when it is not 0: 1. */
static int wait_and_take(uint32_t self, uint32_t seen, const uint32_t *done)
{
	struct wait wait = {0};
	unsigned yields = done ? YIELDS : 0;
	int error = 0;

	while (!error) {
		bool owned = seen & OWNER;
		uint32_t wanted = seen | WAITERS | (owned && wait.slept ? HANDOFF : 0);
		uint64_t timeout;
		long result;

		/* ordering: (Q4) pairs with (Q3) */
		if (done && __atomic_load_n(done, __ATOMIC_ACQUIRE)) {
			error = 1;
			break;
		}
		if (!owned && (wait.slept || !(seen & HANDOFF))) {
			/* Others may sleep: the unlock wakes the next one. ordering: (L1) pairs with (L2): as in lock_as() */
			if (__atomic_compare_exchange_n(&word, &seen, self | WAITERS, false, __ATOMIC_ACQUIRE,
							__ATOMIC_RELAXED))
				return 0;
			continue;
		}
		if (yields > 0) {
			yields--;
			XP__SYS1(SYS_sched_yield, 0);
			seen = __atomic_load_n(&word, __ATOMIC_RELAXED);
			continue;
		}
		if (wanted != seen &&
		    !__atomic_compare_exchange_n(&word, &seen, wanted, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			continue;
		timeout = xp__worker_follow() || !owned || seen & FORK ? SOON_NS : LOOK_NS;
		result = xp__futex_wait(&word, wanted, timeout);
		seen = __atomic_load_n(&word, __ATOMIC_RELAXED);
		wait.slept |= result == 0 || result == -ETIMEDOUT;
		if (result == -ETIMEDOUT || result == -EINTR)
			error = look_after_owner(&wait, seen);
	}
	/* It may have been this thread's turn. */
	if (error < 0 || wait.slept)
		xp__futex_wake(&word, 1);
	return error;
}

/* ---- lock and unlock ---- */

/* @mark: FORK, if that is what the lock is taken for, or 0. 1: another thread has it, and has it still if @wait is false. */
static int lock_as(uint32_t mark, bool wait, const uint32_t *done)
{
	uint32_t self, seen = 0;

	if (!xp__marks_fork[XP__MARK_LOCK] && enter_child())
		return -XP_E_WEDGED;
	self = (uint32_t)xp__gettid();
	if (xp__in_trap())
		return -XP_E_REENTRANT;
	/* ordering: (L1) pairs with (L2): this owner sees all that the one before did */
	if (__atomic_compare_exchange_n(&word, &seen, self | mark, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return 0;
	if ((seen & OWNER) != self)
		return wait ? wait_and_take(self | mark, seen, done) : 1;
	if (!(seen & FORK))
		return -XP_E_REENTRANT;
	/* A handler, of fork's or a signal's: the text is whole, and no child is made before it returns. */
	if (!mark)
		__atomic_fetch_and(&word, ~FORK, __ATOMIC_RELAXED);
	lent++;
	return 0;
}

static int lock_and_tell(bool wait, const uint32_t *done)
{
	int error = lock_as(0, wait, done);

	/* ordering: (L1) pairs with (L2): a sanitizer does not see the exchange in lock_as() */
	if (!error)
		xp__tell(&word, __ATOMIC_ACQUIRE);
	return error;
}

int xp__text_lock(void)
{
	return lock_and_tell(true, NULL);
}

int xp__text_lock_or(const uint32_t *done)
{
	return lock_and_tell(done != NULL, done);
}

void xp__text_lock_told(void)
{
	told = true;
}

bool xp__text_lock_owned(void)
{
	return (__atomic_load_n(&word, __ATOMIC_RELAXED) & OWNER) == (uint32_t)xp__gettid();
}

/* @nr: how many threads, if they sleep. */
static void unlock_and_wake(uint32_t seen, int nr)
{
	__atomic_store_n(&turns, turns + 1, __ATOMIC_RELAXED);
	/* ordering: (L2) pairs with (L1): all that this owner did comes before the next one has the lock */
	while (!__atomic_compare_exchange_n(&word, &seen, seen & HANDOFF ? WAITERS | HANDOFF : 0, false,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
	xp__futex_wake(&word, nr);
}

void xp__text_unlock(void)
{
	uint32_t seen = (uint32_t)xp__gettid();
	const int nr = told ? INT32_MAX : 1;

	told = false;
	xp__cached_fd_commit_ends();
	/* ordering: (L2) pairs with (L1): told to a sanitizer, while this thread still is the owner */
	xp__tell(&word, __ATOMIC_RELEASE);
	if (lent) {
		lent--;
		__atomic_fetch_or(&word, FORK, __ATOMIC_RELAXED);
		return;
	}
	/* ordering: (L2) pairs with (L1): as in unlock_and_wake() */
	if (!__atomic_compare_exchange_n(&word, &seen, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		unlock_and_wake(seen, nr);
	/* Those whose changes were made want to make others: if they come first, the next commit is shared as well. */
	if (nr > 1)
		XP__SYS1(SYS_sched_yield, 0);
}

/* ---- fork ---- */

int xp__text_lock_for_fork(void)
{
	int error = lock_as(FORK, true, NULL);
	uint32_t seen = 0;

	/* Inside a trap: without a wait. ordering: (L1) pairs with (L2): as in lock_as() */
	if (error == -XP_E_REENTRANT && __atomic_compare_exchange_n(&word, &seen, (uint32_t)xp__gettid() | FORK, false,
								    __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return 0;
	return error;
}

void xp__text_lock_forks(bool forks)
{
	if (forks)
		__atomic_fetch_or(&word, FORK, __ATOMIC_RELAXED);
	else
		__atomic_fetch_and(&word, ~FORK, __ATOMIC_RELAXED);
}

bool xp__text_lock_forking(void)
{
	return (__atomic_load_n(&word, __ATOMIC_RELAXED) & (OWNER | FORK)) == ((uint32_t)xp__gettid() | FORK);
}

bool xp__text_lock_yield(void)
{
	uint32_t inner = lent;

	lent = 0;
	unlock_and_wake(__atomic_or_fetch(&word, WAITERS | HANDOFF, __ATOMIC_RELAXED), 1);
	if (wait_and_take((uint32_t)xp__gettid(), __atomic_load_n(&word, __ATOMIC_RELAXED), NULL))
		return false;
	lent = inner;
	return true;
}

void xp__text_lock_fork(bool held)
{
	xp__gettid_fork();
	lent = 0;
	told = false;
	xp__marks_fork[XP__MARK_LOCK] = 1;
	__atomic_store_n(&word, held ? (uint32_t)xp__gettid() : 0, __ATOMIC_RELAXED);
}
