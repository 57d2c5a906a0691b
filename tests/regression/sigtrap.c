// SPDX-License-Identifier: MIT
/*
 * SIGTRAP belongs to the program: who blocks or ignores it is not hurt, whose handler is there gets what is not
 * ours, as if the library were not there.
 */
#include "core/inject.h"
#include "xp_child.h"
#include "xp_gregs.h"
#include "xp_subject.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>

static struct subject subject, across; /* two quadwords: no single store changes it */

/* In a child: a subject, and the policy under which each poke of it takes a breakpoint. */
static bool start(void)
{
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	return xp_test_check(subject_make(&subject) && subject_make_at(&across, 63), "a subject", __FILE__, __LINE__);
}

static uint64_t traps(void)
{
	struct xp_stats stats;

	xp_stats_read(&stats);
	return stats.traps;
}

/* ---- blocked, ignored ---- */

struct blocker {
	pthread_barrier_t barrier;
	int tid;
};

static void *block(void *argument)
{
	struct blocker *blocker = argument;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	blocker->tid = (int)gettid();
	pthread_barrier_wait(&blocker->barrier);
	pthread_barrier_wait(&blocker->barrier);
	return NULL;
}

static void blocked_by_a_thread(void)
{
	struct blocker blocker;
	struct xp_diag diag;
	pthread_t thread;
	char tid[32];

	if (!start())
		return;
	pthread_barrier_init(&blocker.barrier, NULL, 2);
	CHECK_EQ(pthread_create(&thread, NULL, block, &blocker), 0);
	pthread_barrier_wait(&blocker.barrier);
	snprintf(tid, sizeof(tid), "thread %d: ", blocker.tid);
	subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, tid);
	CHECK_EQ(xp_text_poke(&subject.on, &diag), -EBUSY);
	CHECK_EQ(diag.tid, blocker.tid);
	CHECK_EQ(xp_static_branch_enable(&subject_key), -EBUSY);
	CHECK(!xp_static_key_enabled(&subject_key) && !subject_key_site());
	/* One byte needs no trap, nor do single stores; what crosses a quadword does. */
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	key_works();
	CHECK(subject_works(&subject));
	subject_refused(&across, &across.on, -EBUSY, XP_PHASE_PREPARE, tid);
	pthread_barrier_wait(&blocker.barrier);
	pthread_join(thread, NULL);
	CHECK(subject_works(&subject));
}

static void blocked_by_the_caller(void)
{
	struct xp_diag diag;
	sigset_t set, old;

	if (!start())
		return;
	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &set, &old);
	subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, "SIGTRAP");
	CHECK_EQ(xp_text_poke(&subject.on, &diag), -EBUSY);
	CHECK_EQ(diag.tid, gettid());
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	CHECK(subject_works(&subject));
}

static void ignored(void)
{
	if (!start())
		return;
	signal(SIGTRAP, SIG_IGN);
	subject_refused(&subject, &subject.on, -EBUSY, XP_PHASE_PREPARE, "ignores SIGTRAP");
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	key_works();
	CHECK(signal(SIGTRAP, SIG_DFL) == SIG_IGN);
	CHECK(subject_works(&subject) && subject_works(&across));
	/* And once the handler is installed. */
	signal(SIGTRAP, SIG_IGN);
	subject_refused(&across, &across.on, -EBUSY, XP_PHASE_PREPARE, "ignores SIGTRAP");
}

XP_TEST(blocked_by_a_thread_names_it)
{
	xp_child(blocked_by_a_thread);
}

XP_TEST(blocked_by_the_caller_names_it)
{
	xp_child(blocked_by_the_caller);
}

XP_TEST(ignored_is_respected)
{
	xp_child(ignored);
}

/* ---- the program's own handler ---- */

extern const uint8_t foreign_int3[], foreign_cd03[];
void execute_int3(void);
void execute_cd03(void);
__asm__(".pushsection .text\n"
	"execute_int3:\n"
	"foreign_int3:\n\t"
	"int3\n\t"
	"ret\n"
	"execute_cd03:\n"
	"foreign_cd03:\n\t"
	".byte 0xcd, 0x03\n\t"
	"ret\n"
	".popsection");

static struct {
	unsigned calls;
	uintptr_t ip;
	int code;
	bool trap_blocked, usr1_blocked, has_context;
} seen;

static void note(siginfo_t *info, ucontext_t *uc)
{
	sigset_t now;

	sigprocmask(SIG_SETMASK, NULL, &now);
	seen.calls++;
	seen.ip = uc ? (uintptr_t)uc->uc_mcontext.gregs[XP_GREG_IP] : 0;
	seen.code = info ? info->si_code : 0;
	seen.trap_blocked = sigismember(&now, SIGTRAP);
	seen.usr1_blocked = sigismember(&now, SIGUSR1);
	seen.has_context = uc != NULL;
}

static void with_info(int signal, siginfo_t *info, void *context)
{
	CHECK_EQ(signal, SIGTRAP);
	note(info, context);
}

static void without_info(int signal)
{
	CHECK_EQ(signal, SIGTRAP);
	note(NULL, NULL);
}

static void install(void (*handler)(int, siginfo_t *, void *), int flags)
{
	struct sigaction act = {.sa_sigaction = handler, .sa_flags = flags | SA_SIGINFO};

	sigaddset(&act.sa_mask, SIGUSR1);
	CHECK_EQ(sigaction(SIGTRAP, &act, NULL), 0);
}

/* A trap of the program's own arrives as it asked for it, and leaves its mask as it was. */
static void check_delivery(const uint8_t *site, unsigned len, bool nodefer)
{
	unsigned before = seen.calls;
	sigset_t now;

	if (site == foreign_int3)
		execute_int3();
	else
		execute_cd03();
	CHECK_EQ(seen.calls, before + 1);
	CHECK_EQ(seen.ip, (uintptr_t)site + len);
	CHECK_EQ(seen.code, SI_KERNEL);
	CHECK(seen.has_context && seen.usr1_blocked);
	CHECK_EQ(seen.trap_blocked, !nodefer);
	sigprocmask(SIG_SETMASK, NULL, &now);
	CHECK(!sigismember(&now, SIGTRAP) && !sigismember(&now, SIGUSR1));
}

static void *call_till_trap(void *stop)
{
	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED))
		(void)subject_call(&subject);
	return NULL;
}

/* The library's own traps work beside it: toggles until one was taken. */
static void check_our_traps(void)
{
	uint64_t before = traps();
	bool stop = false;
	unsigned calls = seen.calls;
	pthread_t thread;

	CHECK_EQ(pthread_create(&thread, NULL, call_till_trap, &stop), 0);
	for (unsigned i = 0; i < 100000 && traps() == before; i++) {
		CHECK_EQ(xp_text_poke(&subject.on, NULL), 0);
		CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK(traps() > before);
	CHECK_EQ(seen.calls, calls);
}

static void handler_before(void)
{
	if (!start())
		return;
	install(with_info, 0);
	CHECK(subject_works(&subject));
	check_delivery(foreign_int3, 1, false);
	check_delivery(foreign_cd03, 2, false);
	check_our_traps();
}

/* Of an int1 Linux says what valgrind says of an int3. */
static void debuggers_int1(void)
{
	static const uint8_t int1[] = {0xf1, 0xc3}; /* int1; ret */
	struct xp_text text;

	if (!start())
		return;
	install(with_info, 0);
	CHECK(subject_works(&subject));
	REQUIRE(xp_text_alloc(&text, sizeof(int1)));
	memcpy(text.base, int1, sizeof(int1));
	REQUIRE(xp_text_seal(&text));
	(void)xp_text_call(text.base, 0, 0);
	CHECK_EQ(seen.calls, 1);
	CHECK_EQ(seen.ip, (uintptr_t)text.base + 1);
	CHECK_EQ(seen.code, TRAP_BRKPT);
	check_our_traps();
}

/* The same in two pages: the one before need not be there, so it is looked into only by the kernel's hand. */
static void split_int3(void)
{
	struct xp_text text;
	uint8_t *code;

	if (!start())
		return;
	install(with_info, 0);
	CHECK(subject_works(&subject));
	REQUIRE(xp_text_alloc(&text, 2 * XP_TEXT_PAGE));
	code = text.base + XP_TEXT_PAGE - 1;
	memcpy(code, foreign_cd03, 2);
	code[2] = 0xc3; /* ret */
	REQUIRE(xp_text_seal(&text));
	(void)xp_text_call(code, 0, 0);
	CHECK_EQ(seen.calls, 1);
	CHECK_EQ(seen.ip, (uintptr_t)code + 2);
	check_our_traps();
}

static void handler_after(void)
{
	if (!start())
		return;
	CHECK(subject_works(&subject));
	install(with_info, SA_NODEFER);
	check_delivery(foreign_int3, 1, true);
	/* Ours was displaced, and is back with the next commit that needs it. */
	CHECK(subject_works(&subject));
	check_delivery(foreign_int3, 1, true);
	check_delivery(foreign_cd03, 2, true);
	check_our_traps();
}

/* As programs and their libraries do it: what is not theirs goes to the handler that they found. */
static struct sigaction found_by_first, found_by_second;
static unsigned first_calls, second_calls;

static void first_in_chain(int signal, siginfo_t *info, void *context)
{
	first_calls++;
	found_by_first.sa_sigaction(signal, info, context);
}

static void second_in_chain(int signal, siginfo_t *info, void *context)
{
	second_calls++;
	found_by_second.sa_sigaction(signal, info, context);
}

static void handlers_in_a_chain(void)
{
	struct sigaction first = {.sa_sigaction = first_in_chain, .sa_flags = SA_SIGINFO};
	struct sigaction second = {.sa_sigaction = second_in_chain, .sa_flags = SA_SIGINFO};

	if (!start())
		return;
	install(with_info, 0);
	CHECK(subject_works(&subject));
	CHECK_EQ(sigaction(SIGTRAP, &first, &found_by_first), 0);
	CHECK(subject_works(&subject));
	check_delivery(foreign_int3, 1, false);
	CHECK_EQ(first_calls, 1);
	CHECK_EQ(sigaction(SIGTRAP, &second, &found_by_second), 0);
	CHECK(found_by_second.sa_sigaction == found_by_first.sa_sigaction); /* the library's */
	check_delivery(foreign_int3, 1, false);
	CHECK(subject_works(&subject));
	check_delivery(foreign_cd03, 2, false);
	CHECK_EQ(first_calls, 3);
	CHECK_EQ(second_calls, 2);
	check_our_traps();
	/* The program takes them away again. */
	install(with_info, 0);
	CHECK(subject_works(&subject));
	check_delivery(foreign_int3, 1, false);
	CHECK_EQ(first_calls + second_calls, 5);
}

/* Those that never end: each library that is loaded brings one. */
static void handlers_without_end(void)
{
	static void (*const handlers[])(int, siginfo_t *, void *) = {with_info, first_in_chain};

	if (!start())
		return;
	install(with_info, 0);
	CHECK(subject_works(&subject));
	CHECK_EQ(sigaction(SIGTRAP, NULL, &found_by_first), 0);
	for (int i = 0; i < 40; i++) {
		struct sigaction act = {.sa_sigaction = handlers[i % 2], .sa_flags = SA_SIGINFO};

		for (int bit = 0; bit < 6; bit++)
			if (i >> bit & 1)
				sigaddset(&act.sa_mask, SIGRTMIN + bit);
		sigaddset(&act.sa_mask, SIGUSR1);
		CHECK_EQ(sigaction(SIGTRAP, &act, NULL), 0);
		CHECK(subject_works(&subject));
		first_calls = 0;
		check_delivery(foreign_int3, 1, false);
		CHECK_EQ(first_calls, i % 2);
	}
}

/* A thread that blocks SIGTRAP for so long that the commit waits for it, and installs the program's handler meanwhile. */
static void *block_and_install(void *barrier)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTRAP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	pthread_barrier_wait(barrier);
	usleep(20000);
	install(with_info, 0);
	usleep(10000);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	pthread_barrier_wait(barrier);
	return NULL;
}

static void handler_meanwhile(void)
{
	pthread_barrier_t barrier;
	struct sigaction act;
	pthread_t thread;
	int error = -EBUSY;

	if (!start())
		return;
	pthread_barrier_init(&barrier, NULL, 2);
	/* On a machine that is busy it may wait in vain. */
	for (int tries = 0; error == -EBUSY && tries < 20; tries++) {
		signal(SIGTRAP, SIG_DFL);
		CHECK(subject_works(&subject));
		CHECK_EQ(pthread_create(&thread, NULL, block_and_install, &barrier), 0);
		pthread_barrier_wait(&barrier);
		error = xp_text_poke(&subject.on, NULL);
		CHECK_EQ(sigaction(SIGTRAP, NULL, &act), 0);
		pthread_barrier_wait(&barrier);
		pthread_join(thread, NULL);
	}
	CHECK_EQ(error, 0);
	CHECK(act.sa_sigaction != with_info);
	CHECK_EQ(xp_text_poke(&subject.off, NULL), 0);
	check_delivery(foreign_int3, 1, false);
	check_our_traps();
}

static void handler_without_info(void)
{
	if (!start())
		return;
	signal(SIGTRAP, without_info);
	CHECK(subject_works(&subject));
	execute_int3();
	CHECK_EQ(seen.calls, 1);
	check_our_traps();
}

static void handler_once(void)
{
	if (!start())
		return;
	install(with_info, SA_RESETHAND);
	CHECK(subject_works(&subject));
	check_delivery(foreign_int3, 1, false);
	fflush(stdout);
	if (xp_test_state.failures == 0)
		execute_int3(); /* the default action this time */
}

/* A signal that a process sent, no breakpoint at all. */
static void sent_signal(void)
{
	if (!start())
		return;
	install(with_info, 0);
	CHECK(subject_works(&subject));
	raise(SIGTRAP);
	CHECK_EQ(seen.calls, 1);
	CHECK_EQ(seen.code, SI_TKILL);
}

/*
 * A foreign breakpoint in text that cannot be read, and one whose page was unmapped when the handler ran: called
 * with such a frame.
 */
static void unreadable_text(void)
{
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	siginfo_t info = {.si_signo = SIGTRAP, .si_code = SI_KERNEL};
	struct sigaction library;
	ucontext_t uc;

	install(with_info, 0);
	if (!start() || !xp_test_check(page != MAP_FAILED, "a page", __FILE__, __LINE__))
		return;
	CHECK(subject_works(&subject));
	memcpy(page + 100, "\xcc\xc3", 2);
	CHECK_EQ(mprotect(page, 4096, PROT_EXEC), 0);
	((void (*)(void))(uintptr_t)(page + 100))();
	CHECK_EQ(seen.calls, 1);
	CHECK_EQ(seen.ip, (uintptr_t)page + 101);

	CHECK_EQ(sigaction(SIGTRAP, NULL, &library), 0);
	CHECK(library.sa_sigaction != with_info);
	CHECK_EQ(munmap(page, 4096), 0);
	CHECK_EQ(getcontext(&uc), 0);
	uc.uc_mcontext.gregs[XP_GREG_IP] = (greg_t)(uintptr_t)(page + 101);
	library.sa_sigaction(SIGTRAP, &info, &uc);
	CHECK_EQ(seen.calls, 2);
	CHECK_EQ(seen.ip, (uintptr_t)page + 101);
	check_our_traps();
}

XP_TEST(foreign_trap_in_text_that_is_gone)
{
	xp_child(unreadable_text);
}

XP_TEST(handler_installed_before)
{
	xp_child(handler_before);
}

XP_TEST(int1_is_the_programs)
{
	xp_child(debuggers_int1);
}

XP_TEST(int3_of_two_bytes_in_two_pages)
{
	xp_child(split_int3);
}

XP_TEST(handler_installed_after)
{
	xp_child(handler_after);
}

XP_TEST(handlers_that_pass_on_to_each_other)
{
	xp_child(handlers_in_a_chain);
}

XP_TEST(more_handlers_than_are_kept)
{
	xp_child(handlers_without_end);
}

XP_TEST(handler_installed_while_a_commit_waits)
{
	xp_child(handler_meanwhile);
}

XP_TEST(handler_of_one_argument)
{
	xp_child(handler_without_info);
}

XP_TEST(handler_that_is_to_run_once)
{
	int status = xp_child_status(handler_once);

	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTRAP);
}

XP_TEST(signal_that_was_sent)
{
	xp_child(sent_signal);
}

/* ---- patching inside a foreign handler ---- */

static sigjmp_buf out;
static int inside;

static void patch_inside(int signal, siginfo_t *info, void *context)
{
	struct xp_diag diag;

	(void)signal;
	(void)info;
	(void)context;
	inside = xp_text_poke(&subject.on, &diag);
	CHECK_EQ(inside, -XP_E_REENTRANT);
	CHECK_EQ(diag.error, -XP_E_REENTRANT);
	CHECK_EQ(xp_static_branch_enable(&subject_key), -XP_E_REENTRANT);
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), -XP_E_REENTRANT);
}

static void patch_inside_and_leave(int signal, siginfo_t *info, void *context)
{
	patch_inside(signal, info, context);
	siglongjmp(out, 1);
}

static void patching_inside(void)
{
	if (!start())
		return;
	install(patch_inside, 0);
	CHECK(subject_works(&subject));
	execute_int3();
	CHECK_EQ(inside, -XP_E_REENTRANT);
	CHECK(subject_works(&subject));
}

static void leaving_by_longjmp(int flags)
{
	static uint8_t alternate[65536];
	stack_t stack = {.ss_sp = alternate, .ss_size = sizeof(alternate)};

	if (!start())
		return;
	if (flags & SA_ONSTACK)
		CHECK_EQ(sigaltstack(&stack, NULL), 0);
	install(patch_inside_and_leave, flags);
	CHECK(subject_works(&subject));
	for (unsigned i = 0; i < 3; i++) {
		inside = 0;
		if (sigsetjmp(out, 1) == 0)
			execute_int3();
		CHECK_EQ(inside, -XP_E_REENTRANT);
		CHECK(subject_works(&subject));
	}
}

/* Deeper than the handler was, on the same stack. */
static __attribute__((noinline)) int patch_deeply(void)
{
	volatile char room[65536];

	room[0] = room[65535] = 0;
	return xp_static_branch_enable(&subject_key) ?: xp_static_branch_disable(&subject_key) ?: room[0];
}

static void leaving_for_deeper_calls(void)
{
	if (!start())
		return;
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	install(patch_inside_and_leave, 0);
	CHECK(subject_works(&subject));
	if (sigsetjmp(out, 1) == 0)
		execute_int3();
	CHECK_EQ(inside, -XP_E_REENTRANT);
	CHECK_EQ(patch_deeply(), 0);
}

static ucontext_t in_handler, coroutine;
static int in_coroutine = 1;

static void run_coroutine(void)
{
	in_coroutine = patch_deeply();
	swapcontext(&coroutine, &in_handler);
}

static void switch_away(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)info;
	(void)context;
	swapcontext(&in_handler, &coroutine);
	inside = xp_static_branch_enable(&subject_key);
}

/* A coroutine to which a handler switches is none, whatever it blocks; its stack lies below the handler's. */
static void leaving_to_a_coroutine(void)
{
	size_t size = 1 << 20;
	uint8_t *stack = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!start())
		return;
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	install(switch_away, 0);
	CHECK(subject_works(&subject));
	CHECK_EQ(getcontext(&coroutine), 0);
	coroutine.uc_stack.ss_sp = stack;
	coroutine.uc_stack.ss_size = size;
	sigaddset(&coroutine.uc_sigmask, SIGTRAP);
	makecontext(&coroutine, run_coroutine, 0);
	execute_int3();
	CHECK_EQ(in_coroutine, 0);
	CHECK_EQ(inside, -XP_E_REENTRANT);
	CHECK(subject_works(&subject));
}

static void leaving(void)
{
	leaving_by_longjmp(0);
}

static void leaving_alternate(void)
{
	leaving_by_longjmp(SA_ONSTACK);
}

static void fork_inside(int signal, siginfo_t *info, void *context)
{
	int status = -1;
	pid_t child = fork();

	(void)signal;
	(void)info;
	(void)context;
	if (child == 0)
		return; /* and goes on as a copy of the program */
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	inside = 1;
}

static void forking_inside(void)
{
	pid_t before = getpid();

	if (!start())
		return;
	install(fork_inside, 0);
	CHECK(subject_works(&subject));
	execute_int3();
	/* Both, the child first. */
	CHECK(subject_works(&subject));
	fflush(stdout);
	if (getpid() != before)
		_exit(xp_test_state.failures != 0);
	CHECK_EQ(inside, 1);
}

XP_TEST(patching_inside_a_foreign_handler)
{
	xp_child(patching_inside);
}

XP_TEST(leaving_a_foreign_handler_by_longjmp)
{
	xp_child(leaving);
}

XP_TEST(leaving_a_foreign_handler_for_deeper_calls)
{
	xp_child(leaving_for_deeper_calls);
}

XP_TEST(leaving_a_foreign_handler_to_a_coroutine)
{
	xp_child(leaving_to_a_coroutine);
}

XP_TEST(leaving_a_foreign_handler_on_the_alternate_stack)
{
	xp_child(leaving_alternate);
}

XP_TEST(forking_in_a_foreign_handler)
{
	xp_child(forking_inside);
}

/* ---- no handler ---- */

static void die_traced(void)
{
	if (!start())
		return;
	CHECK(subject_works(&subject));
	fflush(stdout);
	if (xp_test_state.failures == 0 && ptrace(PTRACE_TRACEME, 0, NULL, NULL) == 0)
		execute_int3();
}

/*
 * The process dies of the signal, at the breakpoint: a reader of the core file finds the program, not the
 * library. Watched as a debugger would: the last stop before the end is the one that kills.
 */
XP_TEST(without_handler_the_process_dies_at_the_breakpoint)
{
	struct user_regs_struct regs = {0};
	int status = -1, stops = 0;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		alarm(XP_CHILD_SECONDS);
		die_traced();
		_exit(1);
	}
	while (waitpid(child, &status, 0) == child && WIFSTOPPED(status) && stops < 10) {
		int signal = WSTOPSIG(status);

		stops++;
		CHECK_EQ(signal, SIGTRAP);
		CHECK_EQ(ptrace(PTRACE_GETREGS, child, NULL, &regs), 0);
		CHECK_EQ(ptrace(PTRACE_CONT, child, NULL, (void *)(uintptr_t)signal), 0);
	}
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTRAP);
	CHECK_EQ(XP_USER_IP(regs), (uintptr_t)foreign_int3 + 1);
	/* Once to our handler, once more where it put the process back. */
	CHECK_EQ(stops, 2);
}

/* ---- another signal, while our handler stands on a small alternate stack ---- */

static bool came_on_alternate, came_in_handler, trapped;
static unsigned came;

static void on_other(int signal)
{
	stack_t stack;

	(void)signal;
	came++;
	sigaltstack(NULL, &stack);
	came_on_alternate = stack.ss_flags & SS_ONSTACK;
	came_in_handler = trapped;
}

static void raise_inside(enum xp__point point)
{
	if (point == XP__POINT_SYNCED && !trapped && came == 0)
		CHECK(subject_call(&across) != 0);
	trapped = point == XP__POINT_TRAP_ENTERED;
	if (trapped)
		raise(SIGUSR1);
}

/* Of a foreign trap, the program's handler: whether it has the mask that it would have without the library. */
static void on_foreign(int signal, siginfo_t *info, void *context)
{
	sigset_t mask;

	(void)info;
	(void)context;
	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	CHECK(sigismember(&mask, signal));
	CHECK(!sigismember(&mask, SIGUSR1));
	CHECK(sigismember(&mask, SIGUSR2)); /* which it asked for */
	CHECK(sigismember(&mask, SIGHUP));  /* which the thread blocks */
	raise(SIGUSR1);
	CHECK_EQ(came, 2);
}

static void interrupted_on_a_small_stack(void)
{
	struct sigaction other = {.sa_handler = on_other};
	struct sigaction foreign = {.sa_sigaction = on_foreign, .sa_flags = SA_SIGINFO};
	static char small[16384] __attribute__((aligned(64)));
	stack_t stack = {.ss_sp = small, .ss_size = sizeof(small)};
	sigset_t hangup;

	sigemptyset(&hangup);
	sigaddset(&hangup, SIGHUP);
	sigaddset(&foreign.sa_mask, SIGUSR2);
	CHECK_EQ(sigaltstack(&stack, NULL), 0);
	CHECK_EQ(sigaction(SIGUSR1, &other, NULL), 0);
	CHECK_EQ(sigaction(SIGTRAP, &foreign, NULL), 0);
	if (!start())
		return;
	xp__inject = raise_inside;
	CHECK_EQ(xp_text_poke(&across.on, NULL), 0);
	xp__inject = NULL;
	CHECK_EQ(came, 1);
	CHECK(!came_on_alternate);
	CHECK(!came_in_handler);
	pthread_sigmask(SIG_BLOCK, &hangup, NULL);
	__asm__ volatile("int3");
	CHECK_EQ(came, 2);
}

XP_TEST(no_other_handler_comes_on_top_of_ours)
{
	xp_child(interrupted_on_a_small_stack);
}

XP_TEST_MAIN()
