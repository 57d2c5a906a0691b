// SPDX-License-Identifier: MIT
/*
 * The thread that carries out deferred decrements. It is made when the first one is asked for, and sleeps until the earliest
 * deadline. libc takes locks and allocates to make a thread: so that is done without the text lock, and not in a signal
 * handler. A decrement that a handler asks for while there is no thread is refused here, and happens at once.
 */
#include "port/linux/defer.h"

#include "port/linux/marks.h"
#include "port/linux/sys.h"
#include "port/linux/worker.h"

#include <crosspatch/port.h>

#include <errno.h>

#define NEVER UINT64_MAX

/*
 * In halves, for processors that do not load 64 bits at once. The worker may see one half of a new deadline: `changed`,
 * raised behind it, then wakes it again, and xp_deferred_run() looks at the deadlines themselves. What the worker writes
 * over, xp_deferred_run() asks for anew.
 */
static uint32_t deadline_low = UINT32_MAX, deadline_high = UINT32_MAX;
static uint32_t changed; /* futex: counts new deadlines */

/*
 * Whether the thread is made, or a thread is about to make it. A mark: in the child of a fork there is none. The parent's
 * deadline stays there: if it is the earlier one the child's thread wakes once for nothing.
 */
static uint32_t *made(void)
{
	return &xp__marks_fork[XP__MARK_DEFER];
}

static uint64_t load_deadline(void)
{
	uint64_t high = __atomic_load_n(&deadline_high, __ATOMIC_RELAXED);

	return high << 32 | __atomic_load_n(&deadline_low, __ATOMIC_RELAXED);
}

static void store_deadline(uint64_t deadline)
{
	__atomic_store_n(&deadline_high, (uint32_t)(deadline >> 32), __ATOMIC_RELAXED);
	__atomic_store_n(&deadline_low, (uint32_t)deadline, __ATOMIC_RELAXED);
}

static void *worker(void *unused)
{
	(void)unused;
	for (;;) {
		/* ordering: (D2) pairs with (D1): the count first: what changes after it was read ends the sleep at once */
		uint32_t seen = __atomic_load_n(&changed, __ATOMIC_ACQUIRE);

		xp__worker_mask();
		uint64_t until = load_deadline();
		uint64_t now = xp__clock_ms();

		if (until > now) {
			xp__futex_wait(&changed, seen, until == NEVER ? 0 : (until - now) * 1000000);
			continue;
		}
		store_deadline(NEVER);
		xp_deferred_run();
	}
	return NULL;
}

void xp__defer_wake(void)
{
	/* ordering: (D1) pairs with (D2): the deadline or signal is there before the count says that it is new */
	__atomic_add_fetch(&changed, 1, __ATOMIC_RELEASE);
	xp__futex_wake(&changed, 1);
}

int xp__defer(uint64_t deadline_ms)
{
	if (!__atomic_load_n(made(), __ATOMIC_RELAXED) && xp__worker_in_handler())
		return -EAGAIN;
	if (deadline_ms < load_deadline()) {
		store_deadline(deadline_ms);
		xp__defer_wake();
	}
	return 0;
}

int xp__defer_start(void)
{
	int error;

	if (__atomic_exchange_n(made(), 1, __ATOMIC_RELAXED))
		return 0;
	error = xp__worker_start(worker);
	if (error)
		__atomic_store_n(made(), 0, __ATOMIC_RELAXED);
	return error;
}
