// SPDX-License-Identifier: MIT
/*
 * The quiesce policy replaces several instructions at once under running threads. A thread that rests inside, or will
 * return there, is waited for; if it never leaves, the commit is refused and nobody stays parked.
 */
#include "xp_child.h"
#include "xp_text.h"

#include <crosspatch/crosspatch.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>

/*
 * A function whose sixteen bytes at RANGE are four instructions, in two versions that differ in all of them: A adds
 * 1, four times; B adds 2, twice, and 4. Whoever executes part of one and part of the other gets another sum.
 */
enum { RANGE = 5, RANGE_LEN = 12, SUM_A = 4, SUM_B = 8 };

static const uint8_t code_a[RANGE_LEN] = {0x83, 0xc0, 0x01, 0x83, 0xc0, 0x01, 0x83, 0xc0, 0x01, 0x83, 0xc0, 0x01};
static const uint8_t code_b[RANGE_LEN] = {0x83, 0xc0, 0x02, 0x83, 0xc0, 0x02, 0x83, 0xc0, 0x04, 0x0f, 0x1f, 0x00};

static struct xp_text text;
static struct xp_poke to_a, to_b;

static bool make_sum(void)
{
	uint8_t code[] = {0x0f, 0x1f, 0x44, 0x00, 0x00, [RANGE + RANGE_LEN] = 0xc3};

	memcpy(code + RANGE, code_a, RANGE_LEN);
	if (!xp_text_make(&text, code, sizeof(code)))
		return false;
	to_b = (struct xp_poke){.addr = text.base + RANGE, .expect = code_a, .replace = code_b, .len = RANGE_LEN};
	to_a = (struct xp_poke){.addr = text.base + RANGE, .expect = code_b, .replace = code_a, .len = RANGE_LEN};
	return true;
}

struct runner {
	pthread_t thread;
	bool stop;
	uint64_t calls, a, b;
};

static void *sum(void *argument)
{
	struct runner *runner = argument;

	while (!__atomic_load_n(&runner->stop, __ATOMIC_RELAXED)) {
		unsigned result = xp_text_call(text.base, 0, 0);

		runner->a += result == SUM_A;
		runner->b += result == SUM_B;
		__atomic_store_n(&runner->calls, runner->calls + 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void start(struct runner *runner, void *(*run)(void *))
{
	memset(runner, 0, sizeof(*runner));
	CHECK_EQ(pthread_create(&runner->thread, NULL, run, runner), 0);
	while (__atomic_load_n(&runner->calls, __ATOMIC_ACQUIRE) == 0)
		sched_yield();
}

static void end(struct runner *runner)
{
	__atomic_store_n(&runner->stop, true, __ATOMIC_RELAXED);
	pthread_join(runner->thread, NULL);
}

/* The runner goes on: nobody holds it. */
static void check_runs(const struct runner *runner)
{
	uint64_t calls = __atomic_load_n(&runner->calls, __ATOMIC_RELAXED);

	while (__atomic_load_n(&runner->calls, __ATOMIC_RELAXED) < calls + 2)
		sched_yield();
}

static void threads_pass_through(void)
{
	struct runner runners[2];
	struct xp_diag diag;

	REQUIRE(make_sum());
	/* Refused under a policy that does not look where the threads are. */
	CHECK_EQ(xp_text_poke(&to_b, &diag), -XP_E_EMULATE);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	for (unsigned i = 0; i < 2; i++)
		start(&runners[i], sum);
	for (unsigned i = 0; i < 50; i++) {
		CHECK_EQ(xp_text_poke(&to_b, &diag), 0);
		check_runs(&runners[i % 2]);
		CHECK_EQ(xp_text_poke(&to_a, &diag), 0);
		check_runs(&runners[i % 2]);
	}
	for (unsigned i = 0; i < 2; i++) {
		end(&runners[i]);
		CHECK_EQ(runners[i].a + runners[i].b, runners[i].calls);
		CHECK(runners[i].a > 0 && runners[i].b > 0);
	}
}

XP_TEST(threads_pass_through_the_range)
{
	xp_child(threads_pass_through);
}

/* ---- a thread rests inside ---- */

enum { LOOP_LEN = 12 };

/*
 * nop, then a loop until *stop: lock addq $1, (%rdi); cmpb $0, (%rsi); je back; ret. In 32 bits addl, (%eax) and (%edx).
 * The nop, since a thread at the first byte of a site has nothing behind it and is not inside.
 */
#ifdef __x86_64__
static const uint8_t loop_code[] = {0x90, 0xf0, 0x48, 0x83, 0x07, 0x01, 0x80, 0x3e, 0x00, 0x74, 0xf6, 0xc3};
typedef void loop_fn(uint64_t *calls, const bool *stop);
#else
static const uint8_t loop_code[] = {0x90, 0xf0, 0x83, 0x00, 0x01, 0x80, 0x3a, 0x00, 0x74, 0xf7, 0xc3, 0x90};
typedef void __attribute__((regparm(2))) loop_fn(uint64_t *calls, const bool *stop);
#endif

static void *loop(void *argument)
{
	struct runner *runner = argument;
	((loop_fn *)(uintptr_t)text.base)(&runner->calls, &runner->stop);
	return NULL;
}

static void thread_stays(void)
{
	static const uint8_t replace[LOOP_LEN] = {0xc3, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00,
						 0x00, 0x0f, 0x1f, 0x00};
	struct runner inside;
	struct xp_diag diag;
	struct xp_poke poke = {.expect = loop_code, .replace = replace, .len = LOOP_LEN};
	char line[512];
	int tid;

	REQUIRE(xp_text_make(&text, loop_code, sizeof(loop_code)));
	poke.addr = text.base;
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	start(&inside, loop);
	CHECK_EQ(xp_text_poke(&poke, &diag), -XP_E_IN_RANGE);
	CHECK_EQ(diag.phase, XP_PHASE_PREPARE);
	tid = diag.tid;
	CHECK(tid > 0 && tid != getpid());
	xp_diag_format(&diag, line, sizeof(line));
	XP_TEST_NOTE("%s", line);
	CHECK(strstr(line, "thread") != NULL);
	CHECK_MEM(text.base, loop_code, LOOP_LEN);
	check_runs(&inside);
	end(&inside);
	/* It has left: now it works. */
	CHECK_EQ(xp_text_poke(&poke, &diag), 0);
	CHECK_MEM(text.base, replace, LOOP_LEN);
}

XP_TEST(a_thread_that_never_leaves)
{
	xp_child(thread_stays);
}

/* ---- a thread will return into the range: only its stack says so ---- */

static uint64_t arrived;
static bool may_return;

static void wait_in_a_call(void)
{
	__atomic_store_n(&arrived, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&may_return, __ATOMIC_ACQUIRE))
		sched_yield();
}

/* sub $8, %rsp; mov $function, %rax; call *%rax; nop; add $8, %rsp; ret. The range: call and nop. */
#ifdef __x86_64__
static const uint8_t call_before[] = {0x48, 0x83, 0xec, 0x08, 0x48, 0xb8};
static const uint8_t call_behind[] = {0x48, 0x83, 0xc4, 0x08, 0xc3};
#else /* sub $12, %esp; mov $function, %eax; … */
static const uint8_t call_before[] = {0x83, 0xec, 0x0c, 0xb8};
static const uint8_t call_behind[] = {0x83, 0xc4, 0x0c, 0xc3};
#endif
enum { CALL_AT = sizeof(call_before) + sizeof(void *), CALL_LEN = 5 };

static const uint8_t call_range[CALL_LEN] = {0xff, 0xd0, 0x0f, 0x1f, 0x00};
static const uint8_t nop_range[CALL_LEN] = {0x0f, 0x1f, 0x44, 0x00, 0x00};

static void *call(void *unused)
{
	((void (*)(void))(uintptr_t)text.base)();
	return unused;
}

static void thread_returns(void)
{
	uint8_t code[CALL_AT + CALL_LEN + sizeof(call_behind)];
	uintptr_t function = (uintptr_t)wait_in_a_call;
	struct xp_poke poke = {.expect = call_range, .replace = nop_range, .len = CALL_LEN};
	struct xp_diag diag;
	pthread_t thread;

	memcpy(code, call_before, sizeof(call_before));
	memcpy(code + sizeof(call_before), &function, sizeof(function));
	memcpy(code + CALL_AT, call_range, CALL_LEN);
	memcpy(code + CALL_AT + CALL_LEN, call_behind, sizeof(call_behind));
	REQUIRE(xp_text_make(&text, code, sizeof(code)));
	poke.addr = text.base + CALL_AT;
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, call, NULL), 0);
	while (!__atomic_load_n(&arrived, __ATOMIC_ACQUIRE))
		sched_yield();
	CHECK_EQ(xp_text_poke(&poke, &diag), -XP_E_IN_RANGE);
	CHECK_MEM(poke.addr, call_range, CALL_LEN);
	__atomic_store_n(&may_return, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	CHECK_EQ(xp_text_poke(&poke, &diag), 0);
}

XP_TEST(a_thread_that_will_return_into_the_range)
{
	xp_child(thread_returns);
}

/* ---- a thread blocks the signal of the rendezvous: named, as with SIGTRAP ---- */

struct blocker {
	pthread_barrier_t barrier;
	int tid;
};

static void *block_all(void *argument)
{
	struct blocker *blocker = argument;
	sigset_t set;

	sigfillset(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	blocker->tid = (int)gettid();
	pthread_barrier_wait(&blocker->barrier);
	pthread_barrier_wait(&blocker->barrier);
	return NULL;
}

static void thread_blocks(void)
{
	struct blocker blocker;
	struct xp_diag diag;
	pthread_t thread;

	REQUIRE(make_sum());
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	pthread_barrier_init(&blocker.barrier, NULL, 2);
	REQUIRE_EQ(pthread_create(&thread, NULL, block_all, &blocker), 0);
	pthread_barrier_wait(&blocker.barrier);
	CHECK_EQ(xp_text_poke(&to_b, &diag), -EBUSY);
	CHECK_EQ(diag.tid, blocker.tid);
	CHECK_EQ(diag.phase, XP_PHASE_PREPARE);
	CHECK_MEM(to_b.addr, code_a, RANGE_LEN);
	pthread_barrier_wait(&blocker.barrier);
	pthread_join(thread, NULL);
	CHECK_EQ(xp_text_poke(&to_b, &diag), 0);
	CHECK_EQ(xp_text_call(text.base, 0, 0), SUM_B);
}

XP_TEST(a_thread_that_blocks_the_signal)
{
	xp_child(thread_blocks);
}

XP_TEST_MAIN()
