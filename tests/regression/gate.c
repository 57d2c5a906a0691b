// SPDX-License-Identifier: MIT
/* Gates in a process: what calls return, what their sites hold, how many commits that takes. */
#include "xp_test.h"

#include <crosspatch/gate.h>
#include <crosspatch/linux.h>
#include <crosspatch/text_poke.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct pair {
	double d;
	long l;
};

static int absent(int a, int b)
{
	return -a - b;
}

XP_DECLARE_GATE_FALLBACK(int, add, (int a, int b), absent);
XP_DECLARE_GATE(void *, nothing, (void));
XP_DECLARE_GATE(double, real, (double x));
XP_DECLARE_GATE(struct pair, shape, (struct pair p, float f, ...));
XP_DECLARE_GATE(int, recorded, (void));
XP_DECLARE_GATE(int, raced, (int n));
#ifdef __x86_64__
XP_DECLARE_GATE(int, far_away, (void));
#endif

static int plus(int a, int b)
{
	return a + b;
}

static int times(int a, int b)
{
	return a * b;
}

static uint64_t commits(void)
{
	struct xp_stats stats;

	xp_stats_read(&stats);
	return stats.commits;
}

/* Where the call in the first bytes of a function goes; 0: there is none. */
static uintptr_t call_in(const void *function)
{
	for (const uint8_t *at = function; at < (const uint8_t *)function + 64; at++) {
		int32_t disp;

		memcpy(&disp, at + 1, sizeof(disp));
		if (*at == 0xe8 && ((uintptr_t)at + 5 + (uintptr_t)(intptr_t)disp == (uintptr_t)xp_gate_stub_add ||
				    (uintptr_t)at + 5 + (uintptr_t)(intptr_t)disp == (uintptr_t)plus ||
				    (uintptr_t)at + 5 + (uintptr_t)(intptr_t)disp == (uintptr_t)times))
			return (uintptr_t)at + 5 + (uintptr_t)(intptr_t)disp;
	}
	return 0;
}

#define CHECK_CALLS(function, target) CHECK_EQ(call_in((const void *)(function)), (uintptr_t)(target))

/* What keeps the stack aligned around a call. */
#ifdef __x86_64__
#define FRAME "subq $8, %rsp\n\t"
#define FRAME_END "addq $8, %rsp\n\t"
#else
#define FRAME "subl $12, %esp\n\t"
#define FRAME_END "addl $12, %esp\n\t"
#endif

__attribute__((noinline)) static int caller(int a, int b)
{
	return xp_gate(add)(a, b) + 1;
}

__attribute__((noinline)) static int other_caller(int a, int b)
{
	return xp_gate(add)(a, b) + 2;
}

XP_TEST(nobody_provides)
{
	CHECK(!xp_gate_available(add));
	CHECK_EQ(caller(3, 4), -6);
	CHECK(xp_gate(nothing)() == NULL);
#ifdef __x86_64__
	CHECK(xp_gate(real)(2.5) == 0);
	CHECK(xp_gate(shape)((struct pair){1, 2}, 3.0f, 4.0).d == 0);
	CHECK_EQ(xp_gate(shape)((struct pair){1, 2}, 3.0f, 4.0).l, 0);
#endif
	CHECK_CALLS(caller, xp_gate_stub_add);
}

XP_TEST(bound_at_the_first_call)
{
	uint64_t before = commits();

	REQUIRE(xp_gate_provide("add", plus) == 0);
	CHECK(xp_gate_available(add));
	CHECK_CALLS(caller, xp_gate_stub_add);
	CHECK_EQ(caller(3, 4), 8);
	CHECK_CALLS(caller, plus);
	CHECK_CALLS(other_caller, xp_gate_stub_add);
	CHECK_EQ(commits() - before, 1);
	before = commits();
	CHECK_EQ(caller(3, 4), 8);
	CHECK_EQ(commits(), before);
	CHECK_EQ(other_caller(3, 4), 9);
	CHECK_CALLS(other_caller, plus);

	before = commits();
	REQUIRE(xp_gate_replace("add", times) == 0);
	CHECK_EQ(commits() - before, 1);
	CHECK_CALLS(caller, times);
	CHECK_CALLS(other_caller, times);
	CHECK_EQ(caller(3, 4), 13);
	CHECK_EQ(other_caller(3, 4), 14);

	before = commits();
	REQUIRE(xp_gate_withdraw("add") == 0);
	CHECK_EQ(commits() - before, 1);
	CHECK(!xp_gate_available(add));
	CHECK_CALLS(caller, xp_gate_stub_add);
	CHECK_CALLS(other_caller, xp_gate_stub_add);
	CHECK_EQ(caller(3, 4), -6);

	/* Sites that were found once are known: bound again each at its own first call. */
	REQUIRE(xp_gate_provide("add", times) == 0);
	CHECK_EQ(other_caller(3, 4), 14);
	CHECK_CALLS(caller, xp_gate_stub_add);
	CHECK_CALLS(other_caller, times);
	CHECK_EQ(caller(3, 4), 13);
	REQUIRE(xp_gate_withdraw("add") == 0);
}

XP_TEST(refusals)
{
	CHECK_EQ(xp_gate_provide(NULL, plus), -EINVAL);
	CHECK_EQ(xp_gate_provide("", plus), -EINVAL);
	CHECK_EQ(xp_gate_provide("add", NULL), -EINVAL);
	CHECK_EQ(xp_gate_replace("add", NULL), -EINVAL);
	CHECK_EQ(xp_gate_withdraw(NULL), -EINVAL);
	CHECK_EQ(xp_gate_withdraw("add"), -XP_E_NO_PROVIDER);
	CHECK_EQ(xp_gate_withdraw("never heard of"), -XP_E_NO_PROVIDER);
	CHECK_EQ(xp_gate_replace("add", plus), -XP_E_NO_PROVIDER);
	CHECK(!xp_gate_available(add));
	REQUIRE(xp_gate_provide("add", plus) == 0);
	CHECK_EQ(xp_gate_provide("add", times), -XP_E_PROVIDED);
	CHECK_EQ(xp_gate(add)(3, 4), 7);
	CHECK_EQ(xp_gate_withdraw("add"), 0);
	/* Provided before it is asked for, under a name that is not kept where it is. */
	char name[] = "for later";
	CHECK_EQ(xp_gate_provide(name, plus), 0);
	name[0] = 'F';
	CHECK_EQ(xp_gate_provide("for later", plus), -XP_E_PROVIDED);
	CHECK_EQ(xp_gate_withdraw("for later"), 0);
}

static double half(double x)
{
	return x / 2;
}

static struct pair shaped(struct pair p, float f, ...)
{
	va_list list;

	va_start(list, f);
	p.d += (double)f + va_arg(list, double);
	p.l += va_arg(list, int);
	va_end(list);
	return p;
}

XP_TEST(arguments_of_a_first_call)
{
	REQUIRE(xp_gate_provide("real", half) == 0 && xp_gate_provide("shape", shaped) == 0);
	for (int i = 0; i < 3; i++) {
		struct pair p = xp_gate(shape)((struct pair){1, 2}, 3, 4.5, 40);

		CHECK(xp_gate(real)(5) == 2.5);
		CHECK(p.d == 8.5);
		CHECK_EQ(p.l, 42);
	}
	CHECK(xp_gate_withdraw("real") == 0 && xp_gate_withdraw("shape") == 0);
}

/* Calls that are none of the stub's: to be left alone, and not to be asked about for ever. */
XP_TEST(calls_that_cannot_be_bound)
{
	int (*volatile pointer)(int, int) = xp_gate(add);
	uint64_t before = commits();

	REQUIRE(xp_gate_provide("add", plus) == 0);
	for (int i = 0; i < 40; i++)
		CHECK_EQ(pointer(i, 4), i + 4);
	CHECK_EQ(commits(), before);
	CHECK(xp_gate_add.slot == (xp__gate_func *)plus);
	/* A change of provider asks anew. */
	REQUIRE(xp_gate_replace("add", times) == 0);
	CHECK_EQ(pointer(3, 4), 12);
	CHECK(xp_gate_add.slot != (xp__gate_func *)times);
	CHECK_EQ(caller(3, 4), 13);
	CHECK_CALLS(caller, times);
	for (int i = 0; i < 40; i++)
		CHECK_EQ(pointer(i, 4), i * 4);
	CHECK(xp_gate_add.slot == (xp__gate_func *)times);
	REQUIRE(xp_gate_withdraw("add") == 0);
	CHECK_EQ(pointer(3, 4), -7);
}

/* Arguments in the registers that the stub and the resolver use. */
#ifdef __i386__
#define REGPARM __attribute__((regparm(3)))
XP_DECLARE_GATE(int REGPARM, in_registers, (int a, int b, int c));

REGPARM static int digits(int a, int b, int c)
{
	return a * 100 + b * 10 + c;
}

XP_TEST(arguments_in_registers)
{
	int REGPARM (*volatile pointer)(int, int, int) = xp_gate(in_registers);

	REQUIRE(xp_gate_provide("in_registers", digits) == 0);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(pointer(1, 2, i), 120 + i);
		CHECK_EQ(xp_gate(in_registers)(7, 8, i), 780 + i);
	}
	REQUIRE(xp_gate_withdraw("in_registers") == 0);
}
#endif

/* What a compiler plugin writes. */
__asm__(".pushsection .text\n"
	".balign 16\n"
	"recorded_caller:\n\t" FRAME "recorded_call:\n\t"
	".byte 0xe8\n\t.long xp_gate_stub_recorded - (. + 4)\n\t" FRAME_END "ret\n\t"
	".pushsection xp_gate_sites,\"ao\",@progbits,recorded_call\n\t"
	".balign 4\n\t"
	".long recorded_call - .\n\t"
	".long xp_gate_recorded - .\n\t"
	".popsection\n\t"
	".popsection");
extern int recorded_caller(void);
extern uint8_t recorded_call[]; /* not const: it changes */

static int answer(void)
{
	return 42;
}

static uintptr_t recorded_target(void)
{
	int32_t disp;

	memcpy(&disp, recorded_call + 1, sizeof(disp));
	return (uintptr_t)recorded_call + 5 + (uintptr_t)(intptr_t)disp;
}

XP_TEST(eager)
{
	uint64_t before;

	CHECK_EQ(recorded_caller(), 0);
	REQUIRE(xp_gate_provide("recorded", answer) == 0);
	CHECK_EQ(recorded_target(), (uintptr_t)xp_gate_stub_recorded);
	before = commits();
	CHECK_EQ(xp_gate_bind_all(), 0);
	CHECK_EQ(commits() - before, 1);
	CHECK_EQ(recorded_target(), (uintptr_t)answer);
	CHECK(xp_gate_recorded.slot == (xp__gate_func *)answer);
	CHECK_EQ(recorded_caller(), 42);
	before = commits();
	CHECK_EQ(xp_gate_bind_all(), 0);
	CHECK_EQ(commits(), before);
	REQUIRE(xp_gate_withdraw("recorded") == 0);
	CHECK_EQ(recorded_target(), (uintptr_t)xp_gate_stub_recorded);
	CHECK_EQ(recorded_caller(), 0);

	xp_gate_set_eager(true);
	REQUIRE(xp_gate_provide("recorded", answer) == 0);
	CHECK_EQ(recorded_target(), (uintptr_t)answer);
	xp_gate_set_eager(false);
	REQUIRE(xp_gate_withdraw("recorded") == 0);

	REQUIRE(xp_gate_provide("recorded", answer) == 0);
	CHECK_EQ(recorded_caller(), 42);
	CHECK_EQ(recorded_target(), (uintptr_t)answer);
	REQUIRE(xp_gate_withdraw("recorded") == 0);
}

#ifdef __x86_64__
XP_TEST(a_provider_out_of_reach)
{
	static const uint8_t code[] = {0xb8, 7, 0, 0, 0, 0xc3}; /* mov $7, %eax; ret */
	void *place = mmap((void *)0x100000000000, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t before = commits();

	REQUIRE(place != MAP_FAILED);
	memcpy(place, code, sizeof(code));
	REQUIRE(mprotect(place, 4096, PROT_READ | PROT_EXEC) == 0);
	REQUIRE((uintptr_t)place - (uintptr_t)code > 1ul << 32);
	REQUIRE(xp_gate_provide("far_away", place) == 0);
	for (int i = 0; i < 20; i++)
		CHECK_EQ(xp_gate(far_away)(), 7);
	CHECK_EQ(commits(), before);
	CHECK((void *)(uintptr_t)xp_gate_far_away.slot == place);
	REQUIRE(xp_gate_withdraw("far_away") == 0);
	CHECK_EQ(xp_gate(far_away)(), 0);
}
#endif

/* ---- UD2 form ---- */

static double zero(double x, int n)
{
	return x * n * 0;
}

XP_DECLARE_GATE_UD2_FALLBACK(double, faulting, (double x, int n), zero);
XP_DECLARE_GATE_UD2_FALLBACK(int, faulting_too, (int a, int b), absent);
XP_DECLARE_GATE_UD2_FALLBACK(int, faulting_last, (int a, int b), absent);
XP_DECLARE_GATE_UD2_FALLBACK(int, faulting_seldom, (int a, int b), absent);
XP_DECLARE_GATE(long, site, (void));

/* As a code generator writes it, many times over: each is executed for the first time once. */
#define NR_SITES 32
__asm__(".pushsection .text\n"
	".balign 64\n"
	"ud2_callers:\n\t"
	".rept 32\n\t"
	".balign 64\n\t" FRAME ".balign 8\n"
	"661:\n\t"
	".byte 0x0f, 0x0b, 0x2e, 0xe8, 0, 0, 0, 0\n\t" FRAME_END "ret\n\t"
	".pushsection xp_gate_sites,\"a\",@progbits\n\t"
	".balign 4\n\t"
	".long 661b - .\n\t"
	".long xp_gate_site + 1 - .\n\t"
	".popsection\n\t"
	".endr\n\t"
	".popsection");
extern uint8_t ud2_callers[];

static long call_ud2(unsigned i)
{
	return ((long (*)(void))(uintptr_t)(ud2_callers + 64 * i))();
}

static const uint8_t *ud2_site(unsigned i)
{
	return ud2_callers + 64 * i + 8;
}

static uintptr_t ud2_target(unsigned i)
{
	int32_t disp;

	memcpy(&disp, ud2_site(i) + 4, sizeof(disp));
	return (uintptr_t)ud2_site(i) + 8 + (uintptr_t)(intptr_t)disp;
}

#define CHECK_UD2(i) CHECK_MEM(ud2_site(i), "\x0f\x0b\x2e\xe8\0\0\0\0", 8)
#define CHECK_CALL(i, target)                                                                                          \
	(CHECK_MEM(ud2_site(i), "\x2e\x2e\x2e\xe8", 4), CHECK_EQ(ud2_target(i), (uintptr_t)(target)))

static long long_answer(void)
{
	return 0x12345678;
}

static long other_answer(void)
{
	return -5;
}

static double powers(double x, int n)
{
	return n ? x * powers(x, n - 1) : 1;
}

XP_TEST(a_stub_that_faults)
{
	uint64_t before = commits();

	CHECK(xp_gate(faulting)(2, 3) == 0);
	CHECK_EQ(commits() - before, 1);
	CHECK_MEM(xp_gate_stub_faulting, "\x2e\x2e\x2e\xe9\0\0\0\0", 8);
	REQUIRE(xp_gate_provide("faulting", powers) == 0);
	for (int i = 0; i < 3; i++)
		CHECK(xp_gate(faulting)(2, 3) == 8);
	REQUIRE(xp_gate_withdraw("faulting") == 0);
	CHECK(xp_gate(faulting)(2, 3) == 0);
	REQUIRE(xp_gate_provide("faulting_too", plus) == 0);
	CHECK_EQ(xp_gate(faulting_too)(2, 3), 5);
	REQUIRE(xp_gate_withdraw("faulting_too") == 0);
	CHECK_EQ(xp_gate(faulting_too)(2, 3), -5);
}

XP_TEST(sites_that_fault)
{
	uint64_t before = commits();

	/* Without a provider a call of the stub, with one of the provider: one commit each. */
	CHECK_UD2(0);
	CHECK_EQ(call_ud2(0), 0);
	CHECK_CALL(0, xp_gate_stub_site);
	CHECK_EQ(commits() - before, 1);
	REQUIRE(xp_gate_provide("site", long_answer) == 0);
	CHECK_UD2(1);
	before = commits();
	CHECK_EQ(call_ud2(1), 0x12345678);
	CHECK_CALL(1, long_answer);
	CHECK_EQ(commits() - before, 1);
	/* What was a fault is a call like any other. */
	CHECK_EQ(call_ud2(0), 0x12345678);
	CHECK_CALL(0, long_answer);
	REQUIRE(xp_gate_replace("site", other_answer) == 0);
	CHECK_CALL(0, other_answer);
	CHECK_CALL(1, other_answer);
	CHECK_UD2(2);
	REQUIRE(xp_gate_withdraw("site") == 0);
	CHECK_CALL(0, xp_gate_stub_site);
	CHECK_CALL(1, xp_gate_stub_site);
	CHECK_EQ(call_ud2(1), 0);
	CHECK_UD2(2);
}

/* A thread blocks SIGTRAP, which the writer that is forced needs here: the first call goes on all the same, and every other. */
XP_TEST(a_site_that_cannot_be_patched)
{
	sigset_t trap, before;

	sigemptyset(&trap);
	sigaddset(&trap, SIGTRAP);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	REQUIRE(pthread_sigmask(SIG_BLOCK, &trap, &before) == 0);
	CHECK_EQ(call_ud2(NR_SITES - 2), 0);
	CHECK_EQ(xp_gate(faulting_last)(2, 3), -5);
	REQUIRE(xp_gate_provide("site", long_answer) == 0 && xp_gate_provide("faulting_last", plus) == 0);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(call_ud2(NR_SITES - 2), 0x12345678);
		CHECK_EQ(xp_gate(faulting_last)(2, 3), 5);
	}
	CHECK_UD2(NR_SITES - 2);
	REQUIRE(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	CHECK_EQ(call_ud2(NR_SITES - 2), 0x12345678);
	CHECK_CALL(NR_SITES - 2, long_answer);
	REQUIRE(xp_gate_withdraw("site") == 0 && xp_gate_withdraw("faulting_last") == 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* How long 2000 calls of one kind take, which all reach their provider; where each waited it would be 6 s at least. */
static void check_calls(int kind)
{
	uint64_t since = now_ms(), took;
	unsigned strayed = 0;

	for (int i = 0; i < 2000; i++) {
		if (kind == 0)
			strayed += call_ud2(NR_SITES - 3) != 0x12345678;
		else if (kind == 1)
			strayed += xp_gate(faulting_seldom)(2, i) != 2 + i;
		else
			strayed += caller(2, i) != 3 + i;
	}
	took = now_ms() - since;
	XP_TEST_NOTE("2000 calls that cannot be bound: %u ms", (unsigned)took);
	CHECK_EQ(strayed, 0);
	CHECK(took < 2000);
}

/* As above, for long: few of the calls wait. */
XP_TEST(sites_that_cannot_be_patched_wait_seldom)
{
	sigset_t trap, before;
	unsigned more = 0;

	sigemptyset(&trap);
	sigaddset(&trap, SIGTRAP);
	CHECK_EQ(xp_set_writer(XP_WRITER_PROCMEM), 0);
	REQUIRE(xp_gate_provide("site", long_answer) == 0 && xp_gate_provide("faulting_seldom", plus) == 0);
	REQUIRE(xp_gate_provide("add", plus) == 0);
	REQUIRE(pthread_sigmask(SIG_BLOCK, &trap, &before) == 0);
	for (int kind = 0; kind < 3; kind++)
		check_calls(kind);
	CHECK_UD2(NR_SITES - 3);
	CHECK_CALLS(caller, xp_gate_stub_add);
	REQUIRE(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	for (; ud2_site(NR_SITES - 3)[0] == 0x0f && more < 4096; more++)
		CHECK_EQ(call_ud2(NR_SITES - 3), 0x12345678);
	CHECK_CALL(NR_SITES - 3, long_answer);
	CHECK(more > 1);
	REQUIRE(xp_gate_withdraw("site") == 0 && xp_gate_withdraw("faulting_seldom") == 0);
	REQUIRE(xp_gate_withdraw("add") == 0);
	CHECK_EQ(xp_set_writer(XP_WRITER_AUTO), 0);
}

static sigjmp_buf back;
static const void *fault_at;
static int fault_code;

static void on_illegal(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	fault_at = info->si_addr;
	fault_code = info->si_code;
	siglongjmp(back, 1);
}

extern uint8_t illegal_here[];
__attribute__((noinline)) static void illegal(void)
{
	__asm__ volatile(".globl illegal_here\nillegal_here: ud2");
}

static void meet_illegal(void)
{
	fault_at = NULL;
	if (sigsetjmp(back, 1) == 0)
		illegal();
	CHECK(fault_at == illegal_here);
	CHECK(fault_code > 0);
}

XP_TEST(a_real_illegal_instruction)
{
	struct sigaction act;

	/* The library's handler is there, in front of the default action: the child dies of it. */
	REQUIRE(sigaction(SIGILL, NULL, &act) == 0);
	CHECK(act.sa_flags & SA_SIGINFO && act.sa_sigaction != on_illegal);
	pid_t child = fork();

	if (child == 0) {
		illegal();
		_exit(1);
	}
	int status;

	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL);
	/* So is a site whose executable is not registered any more. */
	child = fork();
	if (child == 0) {
		(void)xp_module_unregister(&xp__module);
		call_ud2(NR_SITES - 4);
		_exit(1);
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGILL);
	CHECK_EQ(call_ud2(0), 0);
}

XP_TEST(own_handler)
{
	/* Made ours by a new registration: a handler that the program had goes on getting what is its own. */
	struct sigaction act = {.sa_sigaction = on_illegal, .sa_flags = SA_SIGINFO}, library;

	REQUIRE(sigaction(SIGILL, &act, &library) == 0);
	REQUIRE(xp_module_unregister(&xp__module) == 0);
	REQUIRE(xp_module_register(&xp__module) == 0);
	struct sigaction now;

	REQUIRE(sigaction(SIGILL, NULL, &now) == 0);
	CHECK(now.sa_sigaction == library.sa_sigaction);
	for (int i = 0; i < 3; i++)
		meet_illegal();
	REQUIRE(xp_gate_provide("site", long_answer) == 0);
	CHECK_EQ(call_ud2(0), 0x12345678);
	REQUIRE(xp_gate_withdraw("site") == 0);
	CHECK_EQ(call_ud2(0), 0);
}

/* ---- several at once ---- */

#define NR_THREADS 8

static pthread_barrier_t barrier;
static unsigned wrong;

static int raced_provider(int n)
{
	return n + 1;
}

__attribute__((noinline)) static int raced_caller(int n)
{
	return xp_gate(raced)(n) + 1;
}

static void *race(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&barrier);
	for (int i = 0; i < 100; i++)
		if (raced_caller(i) != i + 2)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
	return NULL;
}

XP_TEST(of_many_threads_one_binds)
{
	pthread_t threads[NR_THREADS];

	pthread_barrier_init(&barrier, NULL, NR_THREADS);
	for (int round = 0; round < 20; round++) {
		uint64_t before;

		REQUIRE(xp_gate_provide("raced", raced_provider) == 0);
		before = commits();
		for (int i = 0; i < NR_THREADS; i++)
			REQUIRE(pthread_create(&threads[i], NULL, race, NULL) == 0);
		for (int i = 0; i < NR_THREADS; i++)
			pthread_join(threads[i], NULL);
		CHECK_EQ(commits() - before, 1);
		CHECK_EQ(wrong, 0);
		REQUIRE(xp_gate_withdraw("raced") == 0);
	}
	pthread_barrier_destroy(&barrier);
}

static void *race_ud2(void *unused)
{
	(void)unused;
	for (unsigned i = 4; i < NR_SITES - 4; i++) {
		pthread_barrier_wait(&barrier);
		for (int k = 0; k < 3; k++)
			if (call_ud2(i) != other_answer())
				__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

XP_TEST(of_many_threads_one_patches_a_fault)
{
	pthread_t threads[NR_THREADS];
	uint64_t before;

	pthread_barrier_init(&barrier, NULL, NR_THREADS);
	wrong = 0;
	REQUIRE(xp_gate_provide("site", other_answer) == 0);
	before = commits();
	for (int i = 0; i < NR_THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, race_ud2, NULL) == 0);
	for (int i = 0; i < NR_THREADS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(commits() - before, NR_SITES - 8);
	CHECK_EQ(wrong, 0);
	REQUIRE(xp_gate_withdraw("site") == 0);
	pthread_barrier_destroy(&barrier);
}

XP_TEST(eagerly_there_is_no_fault)
{
	uint64_t before;

	REQUIRE(xp_gate_provide("site", other_answer) == 0);
	CHECK_UD2(NR_SITES - 1);
	before = commits();
	REQUIRE(xp_gate_bind_all() == 0);
	CHECK_EQ(commits() - before, 1);
	for (unsigned i = 0; i < NR_SITES; i++)
		CHECK_CALL(i, other_answer);
	REQUIRE(xp_gate_withdraw("site") == 0);
}

XP_TEST_MAIN()
