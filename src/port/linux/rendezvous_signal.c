// SPDX-License-Identifier: MIT
/*
 * A real-time signal that the program does not use. Here, below all that sends it, so that the library's own threads can keep
 * it out of their masks (worker.c), and a thread that waits for the text lock can send it (lock.c). What its handler does is in
 * sync_signal.c.
 */
#include "port/linux/rendezvous_signal.h"

#include "port/linux/sys.h"

#include <crosspatch/error.h>

#include <signal.h>
#include <stdbool.h>
#include <string.h>

static int number;              /* 0: none yet */
static uintptr_t handler_of_it; /* to compare with */
static uint32_t asked;          /* the forking thread was asked, and its handler has not come since */

int xp__rendezvous_signal(void)
{
	return __atomic_load_n(&number, __ATOMIC_RELAXED);
}

/* Whether the program has left it to us. */
static bool rendezvous_has_handler(int signal)
{
	struct xp__sigaction now;

	return signal && xp__sigaction(signal, NULL, &now) == 0 && now.handler == handler_of_it;
}

/* From the top: libc keeps the lowest for itself, programs take the next. */
int xp__rendezvous_choose(uintptr_t handler)
{
	struct xp__sigaction act = {
		.handler = handler,
		.flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART,
		.mask = ~(xp__sigbit(SIGSEGV) | xp__sigbit(SIGBUS) | xp__sigbit(SIGILL) | xp__sigbit(SIGFPE) |
			  xp__sigbit(SIGTRAP)),
	};
	struct xp__sigaction now;

	handler_of_it = handler;
	if (rendezvous_has_handler(number))
		return 0;
	for (int signal = 63; signal > 40; signal--) {
		if (xp__sigaction(signal, NULL, &now) || now.handler != (uintptr_t)SIG_DFL)
			continue;
		if (xp__sigaction(signal, &act, NULL) == 0) {
			__atomic_store_n(&number, signal, __ATOMIC_RELAXED);
			return 1;
		}
	}
	return -XP_E_NO_SYNC;
}

int xp__rendezvous_send(int tid, uint32_t value)
{
	siginfo_t info;

	memset(&info, 0, sizeof(info));
	info.si_code = SI_QUEUE;
	info.si_pid = (int)XP__SYS1(SYS_getpid, 0);
	info.si_value.sival_ptr = (void *)(uintptr_t)value; /* NOLINT: a number */
	return (int)XP__SYS4(SYS_rt_tgsigqueueinfo, info.si_pid, tid, number, &info);
}

void xp__rendezvous_ask_forking(int tid)
{
	if (__atomic_exchange_n(&asked, 1, __ATOMIC_RELAXED))
		return;
	/* A signal that the program has taken for itself, or given up, is not sent. */
	if (rendezvous_has_handler(xp__rendezvous_signal()))
		(void)xp__rendezvous_send(tid, XP__ASKS_FORKING);
}

void xp__rendezvous_asked(void)
{
	__atomic_store_n(&asked, 0, __ATOMIC_RELAXED);
}
