// SPDX-License-Identifier: MIT
/*
 * Signals at any instruction of the patcher and of a site, and as a trap begins and ends, whose handlers execute sites
 * themselves
 * (S7), on the thread's own stack and on an alternate one.
 *
 * Timers aim at every thread, so that signals come anywhere; and the points of core/inject.h raise one exactly
 * between two steps of the writer and of the trap handler.
 */
#define XP_SITES_KEY sites_key
#include "xp_sites.h"

#include "core/inject.h"
#include "port/linux/sys.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id /* glibc before 2.38 */
#define sigev_notify_thread_id _sigev_un._tid
#endif

#ifndef XP_INJECT
#error "this program is linked with a library built with XP_INJECT"
#endif

enum { NR_THREADS = 3, NR_TIMERS = 2 * (NR_THREADS + 1), ALTERNATE_SIZE = 65536 };
enum { SIGNAL_HERE = SIGUSR1, SIGNAL_ALTERNATE = SIGUSR2 };

XP_DEFINE_STATIC_KEY_FALSE(handlers_key); /* switched by handlers, where they may */

/* What a thread is doing, told to the handlers that interrupt it. */
struct self {
	bool armed;
	bool committing; /* around the commit, a little more */
	bool in_point;   /* a point of the writer raised the signal: certainly inside the commit */
	bool in_trap;    /* the same of the trap handler */
	unsigned depth;
	uint64_t random;
};
static __thread struct self me __attribute__((tls_model("initial-exec")));

static timer_t timers[NR_TIMERS];
static unsigned nr_timers;
static uint64_t handled, handled_alternate, handled_in_commit, handled_in_trap, refused, allowed;
static unsigned wrong;

static void count(uint64_t *what)
{
	__atomic_add_fetch(what, 1, __ATOMIC_RELAXED);
}

static void patch_here(void)
{
	bool committing = me.committing;
	int error;

	me.committing = true; /* for the handlers that interrupt this one */
	error = xp_static_branch_enable(&handlers_key);
	if (!error)
		error = xp_static_branch_disable(&handlers_key);
	me.committing = committing;
	if (error == 0)
		count(&allowed);
	else if (error == -XP_E_REENTRANT)
		count(&refused);
	else
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	/* In mid-commit it must be refused; elsewhere it must work, unless a trap was interrupted. */
	if (me.in_point ? error != -XP_E_REENTRANT : !me.committing && !me.in_trap && error)
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
}

/*
 * Each handler starts its timer anew: a timer that goes on by itself would leave a slow machine nothing but
 * handlers.
 */
static void start_timer(unsigned n)
{
	struct itimerspec next = {{0, 0}, {0, 100000 + (long)(xp_test_random(&me.random) % 400000)}};

	timer_settime(timers[n], 0, &next, NULL);
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
	bool in_trap = me.in_trap;
	char here;
	stack_t stack;

	sigaltstack(NULL, &stack);
	if ((uintptr_t)&here - (uintptr_t)stack.ss_sp < stack.ss_size)
		count(&handled_alternate);
	count(&handled);
	if (me.in_point)
		count(&handled_in_commit);
	if (in_trap)
		count(&handled_in_trap);
	me.depth++;
	(void)signal;
	(void)context;
	(void)xp_sites_execute(NULL, NULL);
	/* Traps taken inside the handler end with it. */
	if (xp_test_random(&me.random) % 4 == 0)
		patch_here();
	me.depth--;
	me.in_trap = in_trap;
	if (info->si_code == SI_TIMER)
		start_timer((unsigned)info->si_value.sival_int);
}

static void raise_here(enum xp__point point)
{
	bool writer = point <= XP__POINT_RETIRED, *flag = writer ? &me.in_point : &me.in_trap;
	uint64_t random = xp_test_random(&me.random);
	bool before = *flag;

	/* A handler meets many traps while a commit stands still. */
	if (me.depth > 1 || random % (writer ? 4 : 64))
		return;
	*flag = true;
	XP__SYS3(SYS_tgkill, XP__SYS1(SYS_getpid, 0), XP__SYS1(SYS_gettid, 0),
		 random & 64 ? SIGNAL_HERE : SIGNAL_ALTERNATE);
	*flag = before;
}

/* A timer for each of the two signals, aimed at the caller. */
static void arm(void)
{
	static uint8_t stacks[NR_THREADS + 1][ALTERNATE_SIZE];
	unsigned n = __atomic_fetch_add(&nr_timers, 2, __ATOMIC_RELAXED);
	stack_t stack = {.ss_sp = stacks[n / 2], .ss_size = ALTERNATE_SIZE};

	me.armed = true;
	me.random = n + 1;
	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID,
					 .sigev_signo = i ? SIGNAL_ALTERNATE : SIGNAL_HERE};

		event.sigev_value.sival_int = (int)(n + i);
		event.sigev_notify_thread_id = (int)XP__SYS1(SYS_gettid, 0);
		CHECK_EQ(timer_create(CLOCK_MONOTONIC, &event, &timers[n + i]), 0);
		start_timer(n + i);
	}
}

static uint64_t execute(void *context, uint64_t *random)
{
	if (!me.armed)
		arm();
	return xp_sites_execute(context, random);
}

static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	int error;

	if (!me.armed)
		arm();
	me.committing = true;
	error = xp_sites_toggle(context, random, diag);
	me.committing = false;
	return error;
}

static bool enough(void)
{
	return handled_alternate > 0 && handled_alternate < handled && handled_in_commit > 0 && allowed > 0 &&
	       refused > 0;
}

static void run(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync)
{
	bool traps = policy == XP_POLICY_BREAKPOINT;
	struct xp_torture torture = {
		.execute = execute,
		.patch = patch,
		.nr_threads = sync == XP_SYNC_SIGNAL ? 1 : NR_THREADS,
		.traps = traps ? XP_TRAPS_SOME : XP_TRAPS_NONE,
		.enough = enough,
	};
	struct sigaction act = {.sa_sigaction = on_signal, .sa_flags = SA_RESTART | SA_SIGINFO};
	stack_t none = {.ss_flags = SS_DISABLE};

	if (!xp_torture_set(policy, writer, sync))
		return;
	handled = handled_alternate = handled_in_commit = handled_in_trap = refused = allowed = 0;
	me.armed = false;
	nr_timers = 0;
	REQUIRE_EQ(sigaction(SIGNAL_HERE, &act, NULL), 0);
	act.sa_flags |= SA_ONSTACK;
	REQUIRE_EQ(sigaction(SIGNAL_ALTERNATE, &act, NULL), 0);
	xp__inject = raise_here;
	xp_torture_run(&torture);
	xp__inject = NULL;
	for (unsigned i = 0; i < nr_timers; i++)
		timer_delete(timers[i]);
	sigaltstack(&none, NULL);
	XP_TEST_NOTE("signals %llu, on the alternate stack %llu, between steps of a commit %llu, of a trap %llu",
		     (unsigned long long)handled, (unsigned long long)handled_alternate,
		     (unsigned long long)handled_in_commit, (unsigned long long)handled_in_trap);
	XP_TEST_NOTE("patched in a handler %llu, refused %llu", (unsigned long long)allowed,
		     (unsigned long long)refused);
	CHECK(enough());
	CHECK_EQ(handled_in_trap, 0); /* they come when it is done */
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
	xp_sites_check_right();
}

XP_TORTURE_CASE(auto_procmem, AUTO, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(breakpoint_procmem, BREAKPOINT, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(breakpoint_mprotect_signal, BREAKPOINT, MPROTECT, SIGNAL)
XP_TORTURE_CASE(auto_pkey, AUTO, PKEY, MEMBARRIER)
XP_TORTURE_CASE(breakpoint_pkey, BREAKPOINT, PKEY, MEMBARRIER)

XP_TORTURE_MAIN()
