// SPDX-License-Identifier: MIT
/*
 * The quiesce policy replaces several instructions at once under running threads. A thread that rests inside, or will
 * return there, is waited for; if it never leaves, the commit is refused and no thread stays parked.
 */
#include "xp_child.h"
#include "xp_text.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

/*
 * A function whose sixteen bytes at RANGE are four instructions, in two versions that differ in all of them: A adds
 * 1, four times; B adds 2, twice, and 4. A thread that executes part of one and part of the other gets another sum.
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

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* The runner goes on: no thread holds it. */
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
	static const uint8_t replace[LOOP_LEN] = {0xc3, 0x0f, 0x1f, 0x84, 0x00, 0x00,
						  0x00, 0x00, 0x00, 0x0f, 0x1f, 0x00};
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

/* ---- a thread that cannot come while others are parked ---- */

static void *end_at_once(void *unused)
{
	return unused;
}

/* Makes threads and lets them end. Both take a lock of libc's, with every signal blocked. */
static void *breed(void *argument)
{
	struct runner *runner = argument;
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	while (!__atomic_load_n(&runner->stop, __ATOMIC_RELAXED)) {
		runner->a += pthread_create(&thread, &attr, end_at_once, NULL) == 0;
		__atomic_store_n(&runner->calls, runner->calls + 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void threads_end(void)
{
	struct runner runners[2];
	unsigned done = 0;
	struct xp_diag diag;
	char line[512];

	REQUIRE(make_sum());
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	for (unsigned i = 0; i < 2; i++)
		start(&runners[i], breed);
	for (double until = now() + 5; done < 300 && now() < until; done++) {
		if (xp_text_poke(&to_b, &diag) == 0 && xp_text_poke(&to_a, &diag) == 0)
			continue;
		xp_diag_format(&diag, line, sizeof(line));
		XP_TEST_NOTE("%s", line);
		CHECK_EQ(diag.error, 0);
		break;
	}
	XP_TEST_NOTE("%u pairs of commits, %lu threads", done, (unsigned long)(runners[0].a + runners[1].a));
	CHECK(done >= 10);
	for (unsigned i = 0; i < 2; i++)
		end(&runners[i]);
}

XP_TEST(threads_that_end_while_others_are_parked)
{
	xp_child(threads_end);
}

/* Refused, within @seconds, in words; and @runner runs meanwhile and afterwards. */
static void refused_soon(const struct runner *runner, double seconds, const char *words)
{
	uint64_t calls = __atomic_load_n(&runner->calls, __ATOMIC_RELAXED);
	double before = now(), took;
	struct xp_diag diag;
	char line[512];

	CHECK_EQ(xp_text_poke(&to_b, &diag), -EBUSY);
	took = now() - before;
	CHECK_EQ(diag.phase, XP_PHASE_PREPARE);
	CHECK(diag.tid > 0);
	xp_diag_format(&diag, line, sizeof(line));
	XP_TEST_NOTE("%.3f s, %lu calls: %s", took, (unsigned long)(runner->calls - calls), line);
	CHECK(strstr(line, words) != NULL);
	CHECK(took < seconds);
	CHECK(__atomic_load_n(&runner->calls, __ATOMIC_RELAXED) > calls);
	CHECK_MEM(to_b.addr, code_a, RANGE_LEN);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	check_runs(runner);
}

static void works(const struct runner *runner)
{
	CHECK_EQ(xp_text_poke(&to_b, NULL), 0);
	CHECK_EQ(xp_text_poke(&to_a, NULL), 0);
	check_runs(runner);
}

/* Under both policies that need the signal: quiesce, and breakpoint with the rendezvous as its sync. */
static void both_ways(void (*body)(struct runner *runner))
{
	struct runner runner;

	REQUIRE(make_sum());
	start(&runner, sum);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	body(&runner);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	/* One instruction, which no quadword holds. */
	to_b.len = to_a.len = 3;
	to_b.resume = to_a.resume = XP_RESUME_AT;
	to_b.resume_at = to_a.resume_at = (void *)((uintptr_t)to_b.addr + 3);
	body(&runner);
	end(&runner);
}

static void no_room_for(struct runner *runner)
{
	struct rlimit limit;

	works(runner);
	CHECK_EQ(getrlimit(RLIMIT_SIGPENDING, &limit), 0);
	CHECK_EQ(setrlimit(RLIMIT_SIGPENDING, &(struct rlimit){0, limit.rlim_max}), 0);
	refused_soon(runner, 5, "queue");
	CHECK_EQ(setrlimit(RLIMIT_SIGPENDING, &limit), 0);
	works(runner);
}

static void queue_full(void)
{
	both_ways(no_room_for);
}

XP_TEST(a_full_queue_of_signals)
{
	xp_child(queue_full);
}

/* A handler of the writer's own, every half millisecond, interrupts each of its waits. */
static void on_alarm(int signal)
{
	(void)signal;
}

static void interrupted(struct runner *runner)
{
	struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
	struct sigaction act = {.sa_handler = on_alarm};
	struct rlimit limit;

	CHECK_EQ(sigaction(SIGVTALRM, &act, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_VIRTUAL, &often, NULL), 0);
	CHECK_EQ(getrlimit(RLIMIT_SIGPENDING, &limit), 0);
	CHECK_EQ(setrlimit(RLIMIT_SIGPENDING, &(struct rlimit){0, limit.rlim_max}), 0);
	refused_soon(runner, 5, "queue");
	CHECK_EQ(setrlimit(RLIMIT_SIGPENDING, &limit), 0);
	works(runner);
	CHECK_EQ(setitimer(ITIMER_VIRTUAL, &never, NULL), 0);
}

static void interrupted_waits(void)
{
	both_ways(interrupted);
}

XP_TEST(a_writer_whose_waits_are_interrupted)
{
	xp_child(interrupted_waits);
}

/* ---- a handler of the program's that waits for another thread: not while that one is parked ---- */

static const struct runner *awaited;
static unsigned waits;

static void await_calls(int signal)
{
	uint64_t calls = __atomic_load_n(&awaited->calls, __ATOMIC_RELAXED);

	(void)signal;
	while (__atomic_load_n(&awaited->calls, __ATOMIC_RELAXED) < calls + 2)
		sched_yield();
	waits++;
}

static void writer_is_interrupted(void)
{
	struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
	struct sigaction act = {.sa_handler = await_calls};
	struct runner runner;
	sigset_t set;

	REQUIRE(make_sum());
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	/* The kernel gives a signal of the process to a thread that does not block it. */
	sigemptyset(&set);
	sigaddset(&set, SIGVTALRM);
	sigaddset(&set, SIGUSR2);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	start(&runner, sum);
	awaited = &runner;
	sigdelset(&set, SIGUSR2);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	CHECK_EQ(sigaction(SIGVTALRM, &act, NULL), 0);
	CHECK_EQ(setitimer(ITIMER_VIRTUAL, &often, NULL), 0);
	for (double until = now() + 3; waits < 200 && now() < until;)
		works(&runner);
	CHECK_EQ(setitimer(ITIMER_VIRTUAL, &never, NULL), 0);
	CHECK(waits > 0);
	/* The mask is the caller's again. */
	pthread_sigmask(SIG_SETMASK, NULL, &set);
	CHECK(sigismember(&set, SIGUSR2) && !sigismember(&set, SIGVTALRM) && !sigismember(&set, SIGUSR1));
	end(&runner);
}

XP_TEST(a_handler_of_the_writers_that_waits_for_others)
{
	xp_child(writer_is_interrupted);
}

/* ---- a thread that blocks the signal for life is not sent one for each commit ---- */

static void *count_pending(void *argument)
{
	struct blocker *blocker = argument;
	struct timespec none = {0, 0};
	sigset_t set;

	sigfillset(&set);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	blocker->tid = (int)gettid();
	pthread_barrier_wait(&blocker->barrier);
	pthread_barrier_wait(&blocker->barrier);
	blocker->tid = 0;
	while (sigtimedwait(&set, NULL, &none) > 0)
		blocker->tid++;
	return NULL;
}

static void asked_once(void)
{
	struct blocker blocker;
	struct xp_diag diag;
	pthread_t thread;

	REQUIRE(make_sum());
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	pthread_barrier_init(&blocker.barrier, NULL, 2);
	REQUIRE_EQ(pthread_create(&thread, NULL, count_pending, &blocker), 0);
	pthread_barrier_wait(&blocker.barrier);
	to_b.len = 3;
	for (unsigned i = 0; i < 4; i++) {
		CHECK_EQ(xp_text_poke(&to_b, &diag), -EBUSY);
		CHECK_EQ(diag.tid, blocker.tid);
	}
	pthread_barrier_wait(&blocker.barrier);
	pthread_join(thread, NULL);
	CHECK_EQ(blocker.tid, 1);
	CHECK_EQ(xp_text_poke(&to_b, &diag), 0);
}

XP_TEST(a_thread_is_asked_once_for_all_rounds)
{
	xp_child(asked_once);
}

/* ---- a tracer holds a thread, or loses its signal ---- */

static int traced_tid;
static int tracer_says[2], tracer_hears[2];

static void *traced(void *argument)
{
	__atomic_store_n(&traced_tid, (int)gettid(), __ATOMIC_RELEASE);
	return sum(argument);
}

/* Of the tracer, a process of its own. @eat: the first signal that comes, and is gone; else holds the thread. */
static void trace(bool eat)
{
	char byte;
	int status = 0;

	alarm(XP_CHILD_SECONDS);
	if (ptrace(PTRACE_SEIZE, traced_tid, NULL, NULL))
		_exit(write(tracer_says[1], "-", 1) != 1);
	if (!eat && (ptrace(PTRACE_INTERRUPT, traced_tid, NULL, NULL) || waitpid(traced_tid, &status, __WALL) < 0))
		_exit(1);
	if (write(tracer_says[1], "+", 1) != 1)
		_exit(1);
	if (eat) {
		waitpid(traced_tid, &status, __WALL);
		ptrace(PTRACE_DETACH, traced_tid, NULL, NULL);
	} else if (read(tracer_hears[0], &byte, 1) == 1) {
		ptrace(PTRACE_DETACH, traced_tid, NULL, NULL);
		_exit(write(tracer_says[1], "+", 1) != 1);
	}
	_exit(0);
}

/* A tracer is there; false: none may be. */
static bool start_tracer(bool eat, pid_t *tracer)
{
	char byte = 0;

	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	if (pipe(tracer_says) || pipe(tracer_hears))
		return false;
	*tracer = fork();
	if (*tracer == 0)
		trace(eat);
	return read(tracer_says[0], &byte, 1) == 1 && byte == '+';
}

static void with_tracer(struct runner *runner)
{
	struct runner held;
	pid_t tracer;
	char byte;

	start(&held, traced);
	works(runner);
	/* Held: named, and the others run. */
	if (start_tracer(false, &tracer)) {
		refused_soon(runner, 5, "trace");
		CHECK(write(tracer_hears[1], "", 1) == 1 && read(tracer_says[0], &byte, 1) == 1);
		waitpid(tracer, NULL, 0);
		works(runner);
		/* Its signal lost: asked again. */
		CHECK(start_tracer(true, &tracer));
		works(runner);
		waitpid(tracer, NULL, 0);
		works(runner);
	} else {
		XP_TEST_NOTE("no process may be traced here");
	}
	end(&held);
}

static void tracers(void)
{
	both_ways(with_tracer);
}

XP_TEST(a_thread_that_is_traced)
{
	xp_child(tracers);
}

XP_TEST_MAIN()
