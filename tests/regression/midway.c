// SPDX-License-Identifier: MIT
/*
 * What happens at the worst moment: a signal handler between two steps of a commit, a fork there, a fork while
 * another thread stands in the trap handler. The points of core/inject.h make the moment certain.
 */
#include "xp_child.h"
#include "xp_subject.h"

#include "core/inject.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/time.h>

#ifndef XP_INJECT
#error "this program is linked with a library built with XP_INJECT"
#endif

enum { MOMENTS = 8 }; /* a commit by breakpoint has eight points: published, three times stored and synced, retired */

static struct subject subject, other;
static unsigned moment, passed; /* the handler runs when the moment-th point is passed */

static void at_moment(enum xp__point point)
{
	if (point <= XP__POINT_RETIRED && passed++ == moment)
		raise(SIGUSR1);
}

/*
 * One commit with @handler run at its @when-th point. Returns what the commit returned; false: there is no such
 * point.
 */
static bool commit_with(void (*handler)(int), unsigned when, int *error)
{
	struct sigaction act = {.sa_handler = handler};

	CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
	moment = when;
	passed = 0;
	xp__inject = at_moment;
	*error = xp_text_poke(&subject.on, NULL);
	xp__inject = NULL;
	return passed > when;
}

/* ---- a call from a signal handler ---- */

static unsigned calls;

static void call_in_mid_commit(int signal)
{
	struct xp_batch *batch;
	struct xp_diag diag;

	(void)signal;
	calls++;
	CHECK_EQ(xp_text_poke(&other.on, &diag), -XP_E_REENTRANT);
	CHECK_EQ(diag.error, -XP_E_REENTRANT);
	CHECK_EQ(diag.phase, XP_PHASE_VALIDATE);
	CHECK_EQ(xp_static_branch_enable(&subject_key), -XP_E_REENTRANT);
	CHECK_EQ(xp_static_branch_inc(&subject_key), -XP_E_REENTRANT);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), -XP_E_REENTRANT);
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), -XP_E_REENTRANT);
	batch = xp_batch_new();
	CHECK(batch == NULL);
	/* Sites are executed, the changing one too: old or new. */
	CHECK(subject_call(&subject) == SUBJECT_OFF || subject_call(&subject) == SUBJECT_ON);
	CHECK_EQ(subject_call(&other), SUBJECT_OFF);
}

static void call_outside(int signal)
{
	(void)signal;
	calls++;
	CHECK(subject_works(&other));
	key_works();
}

static void check_calls(enum xp_policy policy, enum xp_sync sync)
{
	unsigned when;
	int error;

	CHECK_EQ(xp_set_policy(policy), 0);
	CHECK_EQ(xp_set_sync(sync), 0);
	calls = 0;
	for (when = 0; commit_with(call_in_mid_commit, when, &error); when++) {
		CHECK_EQ(error, 0);
		CHECK_EQ(subject_call(&subject), SUBJECT_ON);
		CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
		CHECK(!xp_static_key_enabled(&subject_key));
	}
	CHECK_EQ(when, MOMENTS);
	CHECK_EQ(calls, MOMENTS);
	CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
	signal(SIGUSR1, call_outside);
	raise(SIGUSR1);
	CHECK_EQ(calls, MOMENTS + 1);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_set_sync(XP_SYNC_AUTO), 0);
}

XP_TEST(call_from_a_signal_handler)
{
	REQUIRE(subject_make(&subject) && subject_make(&other));
	check_calls(XP_POLICY_BREAKPOINT, XP_SYNC_MEMBARRIER);
	check_calls(XP_POLICY_BREAKPOINT, XP_SYNC_SIGNAL);
	xp_text_free(&subject.text);
	xp_text_free(&other.text);
}

/* ---- fork from a signal handler in mid-commit: the child finishes the commit too, in its own memory ---- */

static pid_t (*make_child)(void);
static pid_t child, parent;

static void fork_in_mid_commit(int signal)
{
	(void)signal;
	child = make_child();
}

static void check_forks(pid_t (*fork_)(void))
{
	unsigned when;
	int error, status;

	make_child = fork_;
	parent = getpid();
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	for (when = 0; when < MOMENTS; when++) {
		fflush(stdout);
		CHECK(commit_with(fork_in_mid_commit, when, &error));
		CHECK_EQ(error, 0);
		CHECK_EQ(subject_call(&subject), SUBJECT_ON);
		if (getpid() != parent) {
			alarm(XP_CHILD_SECONDS);
			CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
			CHECK(subject_works(&subject));
			key_works();
			fflush(stdout);
			_exit(xp_test_state.failures != 0);
		}
		status = -1;
		CHECK_EQ(waitpid(child, &status, 0), child);
		CHECK_EQ(status, 0);
		/* The child took it back: only there. */
		CHECK_EQ(subject_call(&subject), SUBJECT_ON);
		CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
	}
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
}

XP_TEST(fork_from_a_signal_handler_in_mid_commit)
{
	REQUIRE(subject_make(&subject));
	check_forks(fork);
	check_forks(_Fork);
	xp_text_free(&subject.text);
}

/* ---- fork from a signal handler that interrupts a fork: libc lets signals in before the handlers are done ---- */

static unsigned inner_forks;

static void fork_again(int signal)
{
	int status = -1;
	pid_t inner;

	(void)signal;
	if (getpid() != parent)
		return;
	inner = fork();
	if (inner == 0)
		_exit(0);
	CHECK_EQ(waitpid(inner, &status, 0), inner);
	CHECK_EQ(status, 0);
	inner_forks++;
}

XP_TEST(fork_interrupted_by_a_fork)
{
	struct sigaction act = {.sa_handler = fork_again, .sa_flags = SA_RESTART};
	int status = -1;

	REQUIRE(subject_make(&subject));
	REQUIRE_EQ(sigaction(SIGALRM, &act, NULL), 0);
	parent = getpid();
	for (unsigned i = 0; i < 50; i++) {
		/* One shot, while the kernel copies the process, as often as not. */
		struct itimerval soon = {{0, 0}, {0, 20 + 4 * (long)i}};

		REQUIRE_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0);
		child = fork();
		if (child == 0)
			_exit(!subject_works(&subject));
		CHECK_EQ(waitpid(child, &status, 0), child);
		CHECK_EQ(status, 0);
		CHECK(subject_works(&subject));
	}
	setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
	CHECK(inner_forks > 0);
	signal(SIGALRM, SIG_DFL);
	xp_text_free(&subject.text);
}

/* ---- fork while another thread stands in the trap handler: in the child no thread will ever count it out ---- */

static bool standing, released, stop;

static void stand_still(enum xp__point point)
{
	if (point != XP__POINT_TRAP_ENTERED || __atomic_exchange_n(&standing, true, __ATOMIC_SEQ_CST))
		return;
	while (!__atomic_load_n(&released, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void *execute(void *unused)
{
	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		unsigned result = subject_call(&subject);

		CHECK(result == SUBJECT_OFF || result == SUBJECT_ON);
	}
	return NULL;
}

static size_t mapped_pages(void)
{
	unsigned long size = 0;
	FILE *file = fopen("/proc/self/statm", "r");

	CHECK(file != NULL);
	if (file) {
		CHECK_EQ(fscanf(file, "%lu", &size), 1);
		fclose(file);
	}
	return size;
}

enum { CHILD_TOGGLES = 400 };

/* Each commit's memory comes back: not a page per commit. */
static void patch_without_leak(void)
{
	size_t before;

	for (unsigned i = 0; i < 20; i++)
		CHECK(subject_works(&subject));
	before = mapped_pages();
	for (unsigned i = 0; i < CHILD_TOGGLES; i++)
		CHECK(subject_works(&subject));
	CHECK(mapped_pages() < before + CHILD_TOGGLES / 10);
}

static void patch_in_raw_child(void)
{
	int status = -1;

	fflush(stdout);
	child = _Fork();
	if (child == 0) {
		alarm(XP_CHILD_SECONDS);
		patch_without_leak();
		fflush(stdout);
		_exit(xp_test_state.failures != 0);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

XP_TEST(fork_while_a_thread_stands_in_the_trap_handler)
{
	pthread_t thread;

	REQUIRE(subject_make(&subject));
	REQUIRE_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	xp__inject = stand_still;
	REQUIRE_EQ(pthread_create(&thread, NULL, execute, NULL), 0);
	while (!__atomic_load_n(&standing, __ATOMIC_ACQUIRE)) {
		CHECK_EQ(xp_text_poke(&subject.on, NULL), 0);
		CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
	}
	xp_child(patch_without_leak);
	patch_in_raw_child();
	__atomic_store_n(&released, true, __ATOMIC_RELEASE);
	CHECK(subject_works(&subject));
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	xp__inject = NULL;
	xp_text_free(&subject.text);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
}

/*
 * ---- a late trap that finds the breakpoint of the next commit at the same site (ordering T7, T8) ----
 *
 * thread: traps in the first commit; is held until that is over; finds no table; is held until the second commit
 * has put its breakpoint there; looks at the text, and must not take it for a foreign one.
 */
static bool first_over, missed, second_stored;
static uint64_t executions;

static void wait_until(const bool *flag)
{
	while (!__atomic_load_n(flag, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void set(bool *flag)
{
	__atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

static void hold_twice(enum xp__point point)
{
	static bool entered;

	if (point == XP__POINT_TRAP_ENTERED && !__atomic_load_n(&entered, __ATOMIC_RELAXED)) {
		set(&entered);
		set(&standing);
		wait_until(&first_over);
	} else if (point == XP__POINT_TRAP_MISSED && !__atomic_load_n(&missed, __ATOMIC_RELAXED)) {
		set(&missed);
		wait_until(&second_stored);
	} else if (point == XP__POINT_STORED && __atomic_load_n(&missed, __ATOMIC_RELAXED) &&
		   !__atomic_load_n(&second_stored, __ATOMIC_RELAXED)) {
		uint64_t before = __atomic_load_n(&executions, __ATOMIC_ACQUIRE);

		/* The breakpoint stays until the thread has got past it. */
		set(&second_stored);
		while (__atomic_load_n(&executions, __ATOMIC_ACQUIRE) == before)
			sched_yield();
	}
}

static void *execute_and_count(void *unused)
{
	(void)unused;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		unsigned result = subject_call(&subject);

		CHECK(result == SUBJECT_OFF || result == SUBJECT_ON);
		__atomic_add_fetch(&executions, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void late_trap(void)
{
	pthread_t thread;
	bool on = false;

	REQUIRE(subject_make(&subject));
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	standing = stop = false;
	xp__inject = hold_twice;
	REQUIRE_EQ(pthread_create(&thread, NULL, execute_and_count, NULL), 0);
	while (!__atomic_load_n(&standing, __ATOMIC_ACQUIRE)) {
		on = !on;
		CHECK_EQ(xp_text_poke(on ? &subject.on : &subject.off, NULL), 0);
	}
	set(&first_over);
	wait_until(&missed);
	CHECK_EQ(xp_text_poke(on ? &subject.off : &subject.on, NULL), 0);
	CHECK(second_stored);
	set(&stop);
	pthread_join(thread, NULL);
	xp__inject = NULL;
}

XP_TEST(late_trap_meets_the_next_breakpoint)
{
	xp_child(late_trap);
}

/* ---- a thread that is born in mid-commit with every signal blocked: no rendezvous reaches it ---- */

extern uint32_t xp__threads_patience_ms;

static unsigned hold_ms; /* then it takes signals */
static int born_tid;
static pthread_t born;

static void *be_deaf(void *unused)
{
	struct timespec hold = {hold_ms / 1000, hold_ms % 1000 * 1000000};
	sigset_t none;

	__atomic_store_n(&born_tid, (int)gettid(), __ATOMIC_RELEASE);
	nanosleep(&hold, NULL);
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, NULL);
	return unused;
}

static void bear(enum xp__point point)
{
	pthread_attr_t attr;
	sigset_t all;

	if (point != XP__POINT_STORED || __atomic_load_n(&born_tid, __ATOMIC_ACQUIRE))
		return;
	sigfillset(&all);
	pthread_attr_init(&attr);
	CHECK_EQ(pthread_attr_setsigmask_np(&attr, &all), 0);
	CHECK_EQ(pthread_create(&born, &attr, be_deaf, NULL), 0);
	while (!__atomic_load_n(&born_tid, __ATOMIC_ACQUIRE))
		sched_yield();
}

static bool start_deaf(void)
{
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	return xp_test_check(subject_make(&subject), "a subject", __FILE__, __LINE__);
}

static void deaf_for_a_while(void)
{
	struct xp_diag diag;

	hold_ms = 3000;
	if (!start_deaf())
		return;
	xp__inject = bear;
	subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_SYNC, "blocks the rendezvous signal");
	xp__inject = NULL;
	/* What was asked in vain reaches it now, and does no harm. */
	pthread_join(born, NULL);
	for (unsigned i = 0; i < 3; i++)
		CHECK(subject_works(&subject));
	/* Another one, that comes in time. */
	hold_ms = 300;
	born_tid = 0;
	xp__inject = bear;
	CHECK_EQ(xp_text_poke(&subject.on, &diag), 0);
	xp__inject = NULL;
	CHECK_EQ(subject_call(&subject), SUBJECT_ON);
	CHECK_EQ(xp_text_poke(&subject.off, &diag), 0);
	pthread_join(born, NULL);
}

/* What cannot be undone either: the engine says so, and the site goes on being old or new. */
static void deaf_for_ever(void)
{
	struct xp_diag diag;

	hold_ms = 10000;
	xp__threads_patience_ms = 2000;
	if (!start_deaf())
		return;
	xp__inject = bear;
	CHECK_EQ(xp_text_poke(&subject.on, &diag), -EBUSY);
	xp__inject = NULL;
	CHECK_EQ(diag.phase, XP_PHASE_ROLLBACK);
	CHECK_EQ(diag.tid, born_tid);
	CHECK_EQ(xp_state(), XP_STATE_WEDGED);
	CHECK_EQ(xp_text_poke(&subject.on, &diag), -XP_E_WEDGED);
	CHECK(subject_call(&subject) == SUBJECT_OFF || subject_call(&subject) == SUBJECT_ON);
}

XP_TEST(a_thread_born_in_mid_commit_that_no_signal_reaches)
{
	xp_child(deaf_for_a_while);
	xp_child(deaf_for_ever);
}

XP_TEST_MAIN()
