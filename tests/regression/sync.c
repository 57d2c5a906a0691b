// SPDX-License-Identifier: MIT
/*
 * membarrier is not there, or is taken away: the rendezvous of signals takes its place, unless membarrier was
 * demanded.
 */
#include "xp_child.h"
#include "xp_subject.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

/* Beside a thread that executes, so that there is a processor to synchronize. */
static void works_beside_a_thread(void)
{
	struct subject_runner runner = {0};
	struct xp_stats before, after;
	struct subject s;
	pthread_t thread;

	REQUIRE(subject_make(&s));
	runner.subject = &s;
	REQUIRE_EQ(pthread_create(&thread, NULL, subject_run, &runner), 0);
	while (__atomic_load_n(&runner.calls, __ATOMIC_RELAXED) == 0)
		sched_yield();
	xp_stats_read(&before);
	for (unsigned i = 0; i < 20; i++) {
		key_works();
		CHECK(subject_works(&s));
	}
	xp_stats_read(&after);
	CHECK_EQ(after.syncs - before.syncs, 20 * (2 * 1 + 2 * 3));
	__atomic_store_n(&runner.stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK_EQ(runner.wrong, 0);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	xp_text_free(&s.text);
}

/* The handler for SIGSYS that was there is there again. */
static void check_sigsys(void)
{
	struct sigaction act;

	CHECK_EQ(sigaction(SIGSYS, NULL, &act), 0);
	CHECK(act.sa_handler == SIG_DFL);
}

XP_CHILD_PROGRAM(fall_back)
{
	check_sigsys();
	CHECK_EQ(xp_set_sync(XP_SYNC_MEMBARRIER), -XP_E_NO_SYNC);
	works_beside_a_thread();
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	CHECK_EQ(xp_set_sync(XP_SYNC_AUTO), 0);
	works_beside_a_thread();
}

/* CROSSPATCH_SYNC=membarrier, and there is none. */
XP_CHILD_PROGRAM(demand)
{
	struct subject s;

	REQUIRE(subject_make(&s));
	subject_refused(&s, &s.on, -XP_E_NO_SYNC, XP_PHASE_PREPARE, "membarrier");
	CHECK_EQ(xp_static_branch_enable(&subject_key), -XP_E_NO_SYNC);
	CHECK(!subject_key_site());
	CHECK_EQ(xp_set_sync(XP_SYNC_AUTO), 0);
	works_beside_a_thread();
}

static void refuse_eperm(void)
{
	xp_child_filter(SYS_membarrier, SECCOMP_RET_ERRNO | EPERM, 0);
}

static void refuse_enosys(void)
{
	xp_child_filter(SYS_membarrier, SECCOMP_RET_ERRNO | ENOSYS, 0);
}

static void refuse_einval(void)
{
	xp_child_filter(SYS_membarrier, SECCOMP_RET_ERRNO | EINVAL, 0);
}

static void refuse_sigsys(void)
{
	xp_child_filter(SYS_membarrier, SECCOMP_RET_TRAP, 0);
}

static void refuse_and_demand(void)
{
	setenv("CROSSPATCH_SYNC", "membarrier", 1);
	refuse_eperm();
}

XP_TEST(without_membarrier_signals_serve)
{
	xp_child_program("fall_back", refuse_eperm);
	xp_child_program("fall_back", refuse_enosys);
	xp_child_program("fall_back", refuse_einval);
}

XP_TEST(a_filter_that_answers_with_sigsys_does_not_kill)
{
	xp_child_program("fall_back", refuse_sigsys);
}

XP_TEST(membarrier_demanded_and_missing_is_an_error)
{
	xp_child_program("demand", refuse_and_demand);
}

/* ---- the filter comes after the library started ---- */

static void filter_later(void)
{
	works_beside_a_thread();
	CHECK(xp_child_filter(SYS_membarrier, SECCOMP_RET_ERRNO | EPERM, 0));
	works_beside_a_thread();
}

XP_TEST(membarrier_taken_away_later)
{
	xp_child(filter_later);
}

/* A thread of the program's blocks everything: a commit that has begun cannot wait for it, and gives up. */
static void *block_all(void *argument)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_barrier_wait(argument);
	pthread_barrier_wait(argument);
	return NULL;
}

static void not_met(void)
{
	pthread_barrier_t barrier;
	pthread_t thread;

	pthread_barrier_init(&barrier, NULL, 2);
	CHECK_EQ(pthread_create(&thread, NULL, block_all, &barrier), 0);
	pthread_barrier_wait(&barrier);
	CHECK_EQ(xp_static_branch_enable(&subject_key), 0);
	CHECK(xp_child_filter(SYS_membarrier, SECCOMP_RET_ERRNO | EPERM, 0));
	CHECK(xp_static_branch_disable(&subject_key) < 0);
	CHECK_EQ(xp_state(), XP_STATE_WEDGED);
	CHECK_EQ(xp_static_branch_disable(&subject_key), -XP_E_WEDGED);
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
}

XP_TEST(a_thread_that_cannot_come_does_not_hang_a_commit)
{
	xp_child(not_met);
}

/* ---- the real-time signal that the rendezvous took is wanted by the program: it looks for another ---- */

static void take_signals(void)
{
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	works_beside_a_thread();
	for (int signal_ = SIGRTMIN; signal_ <= SIGRTMAX; signal_++) {
		struct sigaction act;

		CHECK_EQ(sigaction(signal_, NULL, &act), 0);
		if (act.sa_handler == SIG_DFL || signal_ < SIGRTMAX - 4)
			continue;
		signal(signal_, SIG_IGN);
	}
	works_beside_a_thread();
}

static void take_all_signals(void)
{
	struct subject s;

	REQUIRE(subject_make(&s));
	for (int signal_ = SIGRTMIN; signal_ <= SIGRTMAX; signal_++)
		signal(signal_, SIG_IGN);
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), -XP_E_NO_SYNC);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	subject_refused(&s, &s.on, -XP_E_NO_SYNC, XP_PHASE_PREPARE, "real-time signal");
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	works_beside_a_thread(); /* membarrier needs no signal */
}

XP_TEST(rendezvous_gives_way_to_the_program)
{
	xp_child(take_signals);
	xp_child(take_all_signals);
}

XP_CHILD_MAIN()
