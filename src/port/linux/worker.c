// SPDX-License-Identifier: MIT
/*
 * The library's own threads: they are made when somebody first asks for what they do, take no signal that is meant for the
 * program, and stand in the way of no commit.
 *
 * I1  Blocked is every signal that can be, but for the library's own: a thread that blocks SIGTRAP or the signal of the
 *     rendezvous has commits refused; and for libc's, by which setuid() reaches every thread, and waits for it.
 * I2  The signal of the rendezvous may be chosen anew at any time, under the text lock. Whoever chooses wakes them, and
 *     each sets its mask again before it waits (D1, D2; the bell of control.c). One that waits for the lock itself does so every
 *     millisecond: less than what a commit gives a thread whose mask stands in its way.
 */
#include "port/linux/port.h"

#include <pthread.h>
#include <signal.h>

static __thread bool is_worker __attribute__((tls_model("initial-exec")));

static void block_signals(int how, uint64_t *before)
{
	uint64_t mask = xp__signals_sent();

	for (int signal = 32; signal < SIGRTMIN; signal++)
		mask &= ~xp__sigbit(signal);
	if (xp__rendezvous_signal())
		mask &= ~xp__sigbit(xp__rendezvous_signal());
	XP__SYS4(SYS_rt_sigprocmask, how, &mask, before, XP__NSIG_SIZE);
}

void xp__worker_mask(void)
{
	is_worker = true;
	block_signals(SIG_SETMASK, NULL);
}

bool xp__worker_follow(void)
{
	if (is_worker)
		xp__worker_mask();
	return is_worker;
}

int xp__worker_start(void *(*body)(void *))
{
	pthread_attr_t attr;
	pthread_t thread;
	uint64_t before;
	int error;

	block_signals(SIG_BLOCK, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attr, body, NULL);
	pthread_attr_destroy(&attr);
	XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, XP__NSIG_SIZE);
	return -error;
}

void xp__workers_wake(void)
{
	xp__defer_wake();
	xp__control_wake();
}
