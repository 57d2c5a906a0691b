// SPDX-License-Identifier: MIT
/*
 * 100000 functions in one commit: one sync or three, and a call of each runs its handler. While another thread calls them.
 */
#include "xp_test.h"

#include <crosspatch/function.h>
#include <crosspatch/linux.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#define NR 100000

/* int function(int x): x + 1 */
__asm__(".pushsection .text\n"
	".balign 16\n"
	"many_functions:\n"
	".rept 100000\n"
	"661: .byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"leal 1(%rdi), %eax\n"
	"ret\n"
	".balign 16\n"
	".pushsection xp_entry_sites,\"a\",@progbits\n"
	".long 661b - .\n"
	".long many_name - .\n"
	".long 16 << 8\n"
	".popsection\n"
	".endr\n"
	"many_name: .asciz \"one_of_many\"\n"
	".popsection");
extern uint8_t many_functions[];

static struct xp_function_counter counter;
static unsigned stop, wrong, running;

static int call(unsigned i)
{
	return ((int (*)(int))(uintptr_t)(many_functions + 16 * (size_t)i))(1);
}

static void *caller(void *unused)
{
	const struct timespec pause = {0, 200000};

	(void)unused;
	__atomic_store_n(&running, 1, __ATOMIC_RELAXED);
	/* With pauses: the commit is what is to take the time. */
	for (unsigned i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i = (i + 7919) % NR) {
		if (call(i) != 2)
			__atomic_store_n(&wrong, 1, __ATOMIC_RELAXED);
		if (i % 256 == 0)
			nanosleep(&pause, NULL);
	}
	return NULL;
}

static void trace_all(enum xp_writer writer, unsigned syncs)
{
	struct xp_stats before, after;
	unsigned long counted;
	pthread_t thread;

	stop = wrong = running = 0;
	REQUIRE_EQ(xp_set_writer(writer), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, caller, NULL), 0);
	while (!__atomic_load_n(&running, __ATOMIC_RELAXED))
		sched_yield();
	for (int on = 1; on >= 0; on--) {
		xp_stats_read(&before);
		CHECK_EQ((on ? xp_function_trace_matching
			     : xp_function_untrace_matching)("one_of_*", xp_function_counting(), &counter, NULL),
			 NR);
		xp_stats_read(&after);
		/* Once it was a call, what does nothing is one byte away from it. */
		CHECK_EQ(after.syncs - before.syncs, on ? syncs : 1);
		CHECK_EQ(after.commits - before.commits, 1);
		if (!on)
			break;
		/* The other thread counts too: stopped in between. */
		__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
		pthread_join(thread, NULL);
		counted = xp_function_counted(&counter);
		for (unsigned i = 0; i < NR; i++)
			if (call(i) != 2)
				wrong = 1;
		CHECK_EQ(xp_function_counted(&counter) - counted, NR);
		stop = 0;
		REQUIRE_EQ(pthread_create(&thread, NULL, caller, NULL), 0);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK_EQ(wrong, 0);
	counted = xp_function_counted(&counter);
	for (unsigned i = 0; i < NR; i++)
		(void)call(i);
	CHECK_EQ(xp_function_counted(&counter), counted);
}

XP_TEST(three_syncs_by_bytes)
{
	trace_all(XP_WRITER_PROCMEM, 3);
}

XP_TEST(one_sync_by_words)
{
	trace_all(XP_WRITER_MPROTECT, 1);
}

XP_TEST_MAIN()
