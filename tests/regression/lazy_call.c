// SPDX-License-Identifier: MIT
/* Lazy static calls in a process: which sites are found, what they hold, how many commits and questions that takes. */
#include "xp_test.h"

#include <crosspatch/static_call.h>
#include <crosspatch/text_poke.h>
#include <pthread.h>

#define NR_SITES 8u
#define QUESTIONS 16

static int first(int x)
{
	return x + 1;
}

static int second(int x)
{
	return x + 2;
}

XP_DEFINE_STATIC_CALL_LAZY(lazy, first);
XP_DEFINE_STATIC_CALL_LAZY(tired, first);

/* The call of caller i begins at 8n + 4 + i. */
__asm__(".pushsection .text\n"
	"lazy_callers:\n"
	".set at, 0\n"
	".rept 8\n"
	".balign 32\n"
	".skip at\n"
	"subq $8, %rsp\n"
	".byte 0xe8\n"
	".long xp_trampoline_lazy - (. + 4)\n"
	"addq $8, %rsp\n"
	"ret\n"
	".set at, at + 1\n"
	".endr\n"
	".popsection");
extern uint8_t lazy_callers[]; /* not const: they change */

static int call_by(unsigned i)
{
	return ((int (*)(int))(uintptr_t)(lazy_callers + 32 * i + i))(100) - 100;
}

static uintptr_t target(unsigned i)
{
	const uint8_t *code = lazy_callers + 32 * i + i + 4;
	int32_t disp;

	memcpy(&disp, code + 1, sizeof(disp));
	return (uintptr_t)code + 5 + (uintptr_t)(intptr_t)disp;
}

static bool fits(unsigned i)
{
	uintptr_t code = (uintptr_t)(lazy_callers + 32 * i + i + 4);

	return (code + 1) / 8 == (code + 4) / 8;
}

static uint64_t commits(void)
{
	struct xp_stats stats;

	xp_stats_read(&stats);
	return stats.commits;
}

static void check_all(int which, int (*function)(int))
{
	for (unsigned i = 0; i < NR_SITES; i++) {
		CHECK_EQ(target(i), fits(i) ? (uintptr_t)function : (uintptr_t)xp_trampoline_lazy);
		CHECK_EQ(call_by(i), which);
	}
}

XP_TEST(found_when_executed)
{
	uint64_t before;
	unsigned found = 0;

	for (unsigned i = 0; i < NR_SITES; i++) {
		CHECK_EQ(target(i), (uintptr_t)xp_trampoline_lazy);
		before = commits();
		CHECK_EQ(call_by(i), 1);
		CHECK_EQ(commits() - before, fits(i));
		found += fits(i);
	}
	CHECK_EQ(found, 5);
	before = commits();
	check_all(1, first);
	CHECK_EQ(commits(), before);
	/* Known from now on: all change in one commit, and what goes by the trampoline has the new target, too. */
	CHECK_EQ(xp_static_call_update(lazy, second), 0);
	CHECK_EQ(commits() - before, 1);
	check_all(2, second);
	CHECK_EQ(commits() - before, 1);
	CHECK_EQ(xp_static_call_update(lazy, NULL), 0);
	for (unsigned i = 0; i < NR_SITES; i++)
		CHECK_EQ(call_by(i), -100);
	CHECK_EQ(xp_static_call_update(lazy, first), 0);
	CHECK_EQ(xp_call_lazy.misses, 3 * 4);
}

/* A module that comes back brings text that has no memory of what was found. */
XP_TEST(sites_are_forgotten_with_their_module)
{
	CHECK_EQ(call_by(4), 1);
	CHECK_EQ(target(4), (uintptr_t)first);
	CHECK(xp_call_lazy.discovered != NULL);
	REQUIRE(xp_module_unregister(&xp__module) == 0);
	CHECK(xp_call_lazy.discovered == NULL);
	for (unsigned i = 0; i < NR_SITES; i++)
		CHECK_EQ(target(i), (uintptr_t)xp_trampoline_lazy);
	CHECK_EQ(call_by(4), 1);
	CHECK_EQ(target(4), (uintptr_t)xp_trampoline_lazy);
	REQUIRE(xp_module_register(&xp__module) == 0);
	CHECK_EQ(call_by(4), 1);
	CHECK_EQ(target(4), (uintptr_t)first);
	CHECK_EQ(xp_static_call_update(lazy, second), 0);
	CHECK_EQ(target(4), (uintptr_t)second);
	CHECK_EQ(call_by(4), 2);
	CHECK_EQ(xp_static_call_update(lazy, first), 0);
}

#define NR_THREADS 6

static pthread_barrier_t barrier;
static unsigned wrong;

static void *race(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 50; i++)
		if (call_by(5) != 1)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
	return NULL;
}

XP_TEST(of_many_threads_one_patches)
{
	pthread_t threads[NR_THREADS];
	uint32_t vain = xp_call_lazy.misses;

	REQUIRE(fits(5));
	pthread_barrier_init(&barrier, NULL, NR_THREADS);
	for (int round = 0; round < 20; round++) {
		uint64_t before;

		REQUIRE(xp_module_unregister(&xp__module) == 0);
		REQUIRE(xp_module_register(&xp__module) == 0);
		before = commits();
		for (int i = 0; i < NR_THREADS; i++)
			REQUIRE(pthread_create(&threads[i], NULL, race, NULL) == 0);
		for (int i = 0; i < NR_THREADS; i++)
			pthread_join(threads[i], NULL);
		CHECK_EQ(commits() - before, 1);
		CHECK_EQ(target(5), (uintptr_t)first);
		CHECK_EQ(wrong, 0);
	}
	pthread_barrier_destroy(&barrier);
	CHECK_EQ(xp_call_lazy.misses, vain); /* a call that came too late did not ask in vain */
}

__attribute__((noinline)) static int tail_call(int x)
{
	return xp_static_call(tired)(x);
}

/* A call through a pointer returns behind no call of the trampoline. */
XP_TEST(nobody_asks_for_ever)
{
	int (*volatile pointer)(int) = xp_static_call(tired);
	int (*volatile tail)(int) = tail_call;
	uint64_t before = commits();

	for (int i = 0; i < QUESTIONS; i++) {
		CHECK(xp_call_tired.slot == xp_call_tired.lazy);
		CHECK_EQ(i % 2 ? pointer(1) : tail(1), 2);
	}
	CHECK(xp_call_tired.slot == (xp__call_func *)first);
	CHECK(xp_call_tired.discovered == NULL);
	CHECK_EQ(tail(1), 2);
	CHECK_EQ(commits(), before);
	CHECK_EQ(xp_static_call_update(tired, second), 0);
	CHECK_EQ(tail(1), 3);
	CHECK_EQ(pointer(1), 3);
	CHECK_EQ(*(const uint8_t *)(uintptr_t)xp_trampoline_tired, 0xe9); /* as one that never asked */
}

XP_TEST_MAIN()
