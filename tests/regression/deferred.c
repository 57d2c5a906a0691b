// SPDX-License-Identifier: MIT
/* Deferred keys in real time: the last decrement waits, an increment meanwhile makes it harmless. */
#include "port/linux/lock.h"
#include "xp_child.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>

enum { DELAY_MS = 60 };

XP_DEFINE_STATIC_KEY_DEFERRED_FALSE(lazy, DELAY_MS);
XP_DEFINE_STATIC_KEY_DEFERRED_TRUE(lazy_true, DELAY_MS);

XP_DEFINE_STATIC_KEY_FALSE(other);

static __attribute__((noinline, used)) bool other_site(void)
{
	return xp_static_branch_unlikely(&other);
}

static __attribute__((noinline)) bool site(void)
{
	return xp_static_branch_unlikely(&lazy.key);
}

static __attribute__((noinline)) bool site_true(void)
{
	return xp_static_branch_likely(&lazy_true.key);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Waits for the key to go off; when. 0: it did not, for ten seconds. */
static uint64_t wait_for_off(bool (*of)(void))
{
	uint64_t end = now_ms() + 10000;

	while (of())
		if (now_ms() > end)
			return 0;
		else
			sched_yield();
	return now_ms();
}

static void delayed(void)
{
	uint64_t start, off;

	CHECK(!site());
	for (unsigned i = 0; i < 3; i++) {
		CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
		CHECK(site());
		start = now_ms();
		CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
		CHECK(site());
		CHECK_EQ(xp_static_key_count(&lazy.key), 1);
		/* Nothing more to take back. */
		CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), -XP_E_UNDERFLOW);
		off = wait_for_off(site);
		CHECK(off >= start + DELAY_MS);
		/* The text first, the count at once after it. */
		while (xp_static_key_count(&lazy.key) != 0 && now_ms() < start + 10000)
			sched_yield();
		CHECK_EQ(xp_static_key_count(&lazy.key), 0);
	}
	CHECK(site_true());
	start = now_ms();
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy_true), 0);
	CHECK(wait_for_off(site_true) >= start + DELAY_MS);
}

/* A later deadline, given after it, does not hold up an earlier one. Once all are over, nothing is done for them. */
static void later_and_over(void)
{
	const struct timespec while_ = {0, 400000000};
	clock_t before;

	CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
	CHECK_EQ(xp_jump_label_rate_limit(&lazy_true, 100000), 0);
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy_true), 0);
	CHECK(wait_for_off(site) > 0);
	CHECK(site_true());
	CHECK_EQ(xp_static_key_deferred_flush(&lazy_true), 0);
	CHECK(!site_true());
	CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
	CHECK(wait_for_off(site) > 0);
	/* Processor time of all threads. */
	before = clock();
	nanosleep(&while_, NULL);
	CHECK(clock() - before < CLOCKS_PER_SEC / 50);
}

/* Taken again before the delay is over: it stays on, and one dec later it goes. */
static void taken_again(void)
{
	struct xp_stats before, after;
	uint64_t start;

	CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
	xp_stats_read(&before);
	for (unsigned i = 0; i < 100; i++) {
		CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
		CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
		CHECK(site());
	}
	xp_stats_read(&after);
	CHECK_EQ(after.commits, before.commits);
	start = now_ms();
	CHECK_EQ(xp_static_key_deferred_flush(&lazy), 0);
	CHECK(site());
	CHECK_EQ(xp_static_key_count(&lazy.key), 1);
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
	CHECK(wait_for_off(site) >= start + DELAY_MS);
}

static void flushed(void)
{
	CHECK_EQ(xp_jump_label_rate_limit(&lazy, 100000), 0);
	CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
	CHECK(site());
	CHECK_EQ(xp_static_key_deferred_flush(&lazy), 0);
	CHECK(!site());
	CHECK_EQ(xp_static_key_count(&lazy.key), 0);
	CHECK_EQ(xp_static_key_deferred_flush(&lazy), 0);
}

static void go_off(void)
{
	CHECK(site());
	CHECK(wait_for_off(site) > 0);
}

/* The thread that would do it stays behind in the parent: the child makes its own. */
static void in_a_child(void)
{
	CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
	xp_child(go_off);
	CHECK(wait_for_off(site) > 0);
}

/*
 * The thread is made before the rendezvous has chosen its signal: it must not block it, whichever it will be. Found
 * as a commit that hung when membarrier was taken away.
 */
static void met(void)
{
	CHECK_EQ(xp_jump_label_rate_limit(&lazy, 100000), 0);
	CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
	CHECK(xp_child_filter(SYS_membarrier, SECCOMP_RET_ERRNO | EPERM, 0));
	CHECK_EQ(xp_static_branch_enable(&other), 0);
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	CHECK_EQ(xp_static_branch_disable(&other), 0);
	/* The program takes the signal; another one is chosen. */
	for (int number = SIGRTMAX - 3; number <= SIGRTMAX; number++)
		signal(number, SIG_IGN);
	CHECK_EQ(xp_static_branch_enable(&other), 0);
	CHECK_EQ(xp_static_key_deferred_flush(&lazy), 0);
}

/* ---- where the thread is made ---- */

static unsigned made, made_under_the_lock;
static int refusal;

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*body)(void *), void *argument)
{
	int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

	*(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
	made++;
	made_under_the_lock += xp__text_lock_owned();
	return refusal ? refusal : real(thread, attr, body, argument);
}

static int in_handler_error;

static void decrement_in_handler(int signal)
{
	(void)signal;
	in_handler_error = xp_static_branch_deferred_inc(&lazy);
	in_handler_error = in_handler_error ? in_handler_error : xp_static_branch_slow_dec_deferred(&lazy);
}

/* A handler may have interrupted what libc takes to make a thread. */
static void from_a_handler(void)
{
	struct sigaction act = {.sa_handler = decrement_in_handler}, old;
	static char alternate[65536];
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	uint64_t start;

	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	for (unsigned i = 0; i < 4; i++) {
		act.sa_flags = (i & 1 ? SA_ONSTACK : 0) | (i & 2 ? SA_SIGINFO : 0);
		CHECK_EQ(sigaction(SIGUSR1, &act, NULL), 0);
		raise(SIGUSR1);
		CHECK_EQ(in_handler_error, 0);
		CHECK(!site());
		CHECK_EQ(xp_static_key_count(&lazy.key), 0);
	}
	CHECK_EQ(made, 0);
	/* What says where handlers return to stands on this stack, too, and is no handler's. */
	CHECK_EQ(sigaction(SIGUSR1, NULL, &old), 0);
	CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
	start = now_ms();
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
	CHECK(site());
	CHECK_EQ(made, 1);
	CHECK(wait_for_off(site) >= start + DELAY_MS);
	/* From now on a handler's decrement waits too. */
	start = now_ms();
	raise(SIGUSR1);
	CHECK_EQ(in_handler_error, 0);
	CHECK(site());
	CHECK(wait_for_off(site) >= start + DELAY_MS);
	CHECK_EQ(made, 1);
	CHECK_EQ(made_under_the_lock, 0);
	CHECK(old.sa_flags != -1);
}

/* No thread is to be had: what would wait for it happens at once. */
static void without_a_thread(void)
{
	refusal = EAGAIN;
	CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
	CHECK_EQ(made, 1);
	CHECK(!site());
	CHECK_EQ(xp_static_key_count(&lazy.key), 0);
	refusal = 0;
	CHECK_EQ(xp_static_branch_deferred_inc(&lazy), 0);
	CHECK_EQ(xp_static_branch_slow_dec_deferred(&lazy), 0);
	CHECK(site());
	CHECK(wait_for_off(site) > 0);
}

XP_TEST(a_handler_makes_no_thread)
{
	xp_child(from_a_handler);
}

XP_TEST(without_a_thread_nothing_waits)
{
	xp_child(without_a_thread);
}

XP_TEST(the_thread_comes_to_the_rendezvous)
{
	xp_child(met);
}

XP_TEST(the_last_decrement_waits)
{
	xp_child(delayed);
}

XP_TEST(a_later_deadline_waits_for_itself_alone)
{
	xp_child(later_and_over);
}

XP_TEST(an_increment_makes_it_harmless)
{
	xp_child(taken_again);
}

XP_TEST(flush_does_not_wait)
{
	xp_child(flushed);
}

XP_TEST(a_child_carries_it_out_too)
{
	xp_child(in_a_child);
}

XP_TEST_MAIN()
