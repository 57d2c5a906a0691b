// SPDX-License-Identifier: MIT
/*
 * The text lock: a futex whose word is the owner's thread id, so that a signal handler can tell that it interrupted the
 * owner, however early or late it came: there is no moment at which the lock is taken and the owner unknown.
 *
 * Word: 0 free; thread id, with WAITERS if somebody may sleep. Progress: waits without a bound; not fair.
 * After a fork, only the child's one thread is left: see fork.c.
 */
#include "port/linux/port.h"

#define WAITERS 0x80000000u

static uint32_t word;
static __thread int cached_tid __attribute__((tls_model("initial-exec")));

int xp__gettid(void)
{
	if (cached_tid == 0)
		cached_tid = (int)XP__SYS1(SYS_gettid, 0);
	return cached_tid;
}

/*
 * In the child of a fork that ran no handlers (_Fork, clone): the thread that held the lock is not there. If one did,
 * its commit is neither finished nor undone in this copy of the text.
 */
static int enter_child(void)
{
	xp__control_fork();
	xp__kept_drop_all();
	if (__atomic_load_n(&word, __ATOMIC_RELAXED) != 0)
		return -XP_E_WEDGED;
	xp__text_lock_fork(false);
	xp__defer_fork();
	xp_trap_fork_child(xp__trap_shard());
	xp_function_fork_child();
	return 0;
}

int xp__text_lock(void)
{
	uint32_t self, expected = 0;

	if (!xp__fork_marks[XP__MARK_LOCK] && enter_child())
		return -XP_E_WEDGED;
	self = (uint32_t)xp__gettid();
	if (xp__in_trap() || xp__text_lock_owned())
		return -XP_E_REENTRANT;
	/* ordering: (L1) pairs with (L2) */
	if (__atomic_compare_exchange_n(&word, &expected, self, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
		return 0;
	for (;;) {
		if (expected == 0) {
			/* Others may sleep: whoever slept takes it with WAITERS set, and wakes the next one. */
			if (__atomic_compare_exchange_n(&word, &expected, self | WAITERS, false, __ATOMIC_ACQUIRE,
							__ATOMIC_RELAXED))
				return 0;
			continue;
		}
		if (expected & WAITERS || __atomic_compare_exchange_n(&word, &expected, expected | WAITERS, false,
								      __ATOMIC_RELAXED, __ATOMIC_RELAXED))
			xp__futex_wait(&word, expected | WAITERS, xp__worker_follow() ? 1000000 : 0);
		expected = __atomic_load_n(&word, __ATOMIC_RELAXED);
	}
}

bool xp__text_lock_owned(void)
{
	return (__atomic_load_n(&word, __ATOMIC_RELAXED) & ~WAITERS) == (uint32_t)xp__gettid();
}

bool xp__text_trylock(void)
{
	uint32_t expected = 0;

	/* ordering: (L1) pairs with (L2) */
	return __atomic_compare_exchange_n(&word, &expected, (uint32_t)xp__gettid(), false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

void xp__text_unlock(void)
{
	xp__kept_commit_ends();
	/* ordering: (L2) pairs with (L1) */
	if (__atomic_exchange_n(&word, 0, __ATOMIC_RELEASE) & WAITERS)
		xp__futex_wake(&word, 1);
}

void xp__text_lock_fork(bool held)
{
	cached_tid = 0;
	xp__fork_marks[XP__MARK_LOCK] = 1;
	__atomic_store_n(&word, held ? (uint32_t)xp__gettid() : 0, __ATOMIC_RELAXED);
}
