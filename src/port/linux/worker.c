// SPDX-License-Identifier: MIT
/*
 * The library's own threads: they are made when what they do is first asked for, take no signal that is meant for the
 * program, and stand in the way of no commit.
 *
 * I1  Blocked is every signal that can be, but for the library's own: a thread that blocks SIGTRAP or the signal of the
 *     rendezvous has commits refused; and for libc's, by which setuid() reaches every thread, and waits for it.
 * I2  The signal of the rendezvous may be chosen anew at any time, under the text lock. The thread that chooses wakes them,
 *     and each sets its mask again before it waits (D1, D2; the bell of control_serve.c). One that waits for the lock itself does so every
 *     millisecond: less than what a commit gives a thread whose mask stands in its way.
 */
#include "port/linux/worker.h"

#include "port/linux/maps.h"
#include "port/linux/rendezvous_signal.h"
#include "port/linux/sys.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#ifndef __x86_64__
#include <sys/auxv.h>
#endif
#include <ucontext.h>

static __thread bool is_worker __attribute__((tls_model("initial-exec")));

static void worker_block_signals(int how, uint64_t *before)
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
	worker_block_signals(SIG_SETMASK, NULL);
}

bool xp__worker_follow(void)
{
	if (is_worker)
		xp__worker_mask();
	return is_worker;
}

/* ---- is this a signal handler? ---- */

#define NR_RETURNS 8u

/* Where handlers return to: what the kernel was told when one was installed, and what it takes if it was told nothing. */
static unsigned list_returns(uintptr_t *returns)
{
	unsigned nr = 0;

	for (int signal = 1; signal <= 64; signal++) {
		struct xp__sigaction act;
		unsigned i = 0;

		if (xp__sigaction(signal, NULL, &act) || act.restorer == 0)
			continue;
		while (i < nr && returns[i] != act.restorer)
			i++;
		if (i == nr && nr < NR_RETURNS)
			returns[nr++] = act.restorer;
	}
	return nr;
}

static bool is_return(uintptr_t word, const uintptr_t *returns, unsigned nr)
{
#ifndef __x86_64__
	if (word - getauxval(AT_SYSINFO_EHDR) < 8192)
		return true;
#endif
	for (unsigned i = 0; i < nr; i++)
		if (word == returns[i])
			return true;
	return false;
}

static uint16_t code_segment(void)
{
	uint16_t selector;

	__asm__("movw %%cs, %0" : "=r"(selector));
	return selector;
}

/* Whether the kernel's frame of a handler begins at @at, up to @end: such a word stands in a struct sigaction, too. */
static bool is_frame(const uintptr_t *at, uintptr_t end)
{
#ifdef __x86_64__
	const ucontext_t *uc = (const ucontext_t *)(at + 1);

	return (uintptr_t)(uc + 1) <= end && (uint16_t)uc->uc_mcontext.gregs[REG_CSGSFS] == code_segment();
#else
	/* The handler's arguments: its signal's number; then the registers, or two pointers, the second one to a ucontext. */
	const ucontext_t *uc;

	if ((uintptr_t)(at + 18) > end || at[1] < 1 || at[1] > 64)
		return false;
	if ((uint16_t)at[17] == code_segment())
		return true;
	uc = (const ucontext_t *)at[3]; /* NOLINT: an address, perhaps */
	return at[3] % 4 == 0 && at[3] > (uintptr_t)at && (uintptr_t)(uc + 1) <= end && (uintptr_t)uc < end &&
	       (uint16_t)uc->uc_mcontext.gregs[REG_CS] == code_segment();
#endif
}

bool xp__worker_in_handler(void)
{
	const uintptr_t *at = __builtin_frame_address(0);
	uintptr_t returns[NR_RETURNS];
	unsigned nr = list_returns(returns);
	struct xp__mapping mapping;
	stack_t stack;

	if (XP__SYS2(SYS_sigaltstack, NULL, &stack) == 0 && stack.ss_flags & SS_ONSTACK)
		return true;
	if (nr == NR_RETURNS || xp__maps_find((uintptr_t)at, &mapping))
		return true;
	for (; (uintptr_t)at < mapping.end; at++)
		if (is_return(*at, returns, nr) && is_frame(at, mapping.end))
			return true;
	return false;
}

int xp__worker_start(void *(*body)(void *))
{
	pthread_attr_t attr;
	pthread_t thread;
	uint64_t before;
	int *number = __errno_location(), saved = *number; /* not the library's to set, nor to let be set */
	int error;

	worker_block_signals(SIG_BLOCK, &before);
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	error = pthread_create(&thread, &attr, body, NULL);
	pthread_attr_destroy(&attr);
	XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, XP__NSIG_SIZE);
	*number = saved;
	return -error;
}
