// SPDX-License-Identifier: MIT
/*
 * The thread that carries out deferred decrements. Made when the first one is asked for, with every signal blocked that
 * can be but those of the library's own; sleeps until the earliest deadline.
 */
#include "port/linux/port.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#define NEVER UINT64_MAX

static uint64_t deadline = NEVER;
static uint32_t changed; /* futex: counts new deadlines */
static bool running;     /* under the text lock */

uint64_t xp__clock_ms(void)
{
	struct timespec now = {0, 0};

	XP__SYS2(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Every signal that can be but those of the library's own, of which the rendezvous' may be chosen anew at any time. */
static void block_signals(int how, uint64_t *before)
{
	uint64_t mask = ~(xp__sigbit(SIGSEGV) | xp__sigbit(SIGBUS) | xp__sigbit(SIGILL) | xp__sigbit(SIGFPE) |
			  xp__sigbit(SIGTRAP));

	if (xp__rendezvous_signal())
		mask &= ~xp__sigbit(xp__rendezvous_signal());
	XP__SYS4(SYS_rt_sigprocmask, how, &mask, before, XP__NSIG_SIZE);
}

static void *worker(void *unused)
{
	(void)unused;
	for (;;) {
		/* ordering: (D2) pairs with (D1) */
		uint32_t seen = __atomic_load_n(&changed, __ATOMIC_ACQUIRE);

		block_signals(SIG_SETMASK, NULL);
		uint64_t until = __atomic_load_n(&deadline, __ATOMIC_RELAXED);
		uint64_t now = xp__clock_ms();

		if (until > now) {
			xp__futex_wait(&changed, seen, until == NEVER ? 0 : (until - now) * 1000000);
			continue;
		}
		__atomic_store_n(&deadline, NEVER, __ATOMIC_RELAXED);
		xp_deferred_run();
	}
	return NULL;
}

static int start(void)
{
	pthread_attr_t attr;
	pthread_t thread;
	uint64_t before;
	int error;

	block_signals(SIG_BLOCK, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attr, worker, NULL);
	pthread_attr_destroy(&attr);
	XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, XP__NSIG_SIZE);
	return -error;
}

void xp__defer_wake(void)
{
	/* ordering: (D1) pairs with (D2) */
	__atomic_add_fetch(&changed, 1, __ATOMIC_RELEASE);
	xp__futex_wake(&changed, 1);
}

int xp__defer(uint64_t deadline_ms)
{
	if (deadline_ms < __atomic_load_n(&deadline, __ATOMIC_RELAXED)) {
		__atomic_store_n(&deadline, deadline_ms, __ATOMIC_RELAXED);
		xp__defer_wake();
	}
	if (!running) {
		int error = start();

		if (error)
			return error;
		running = true;
	}
	return 0;
}

void xp__defer_fork(void)
{
	running = false;
	deadline = NEVER;
}
