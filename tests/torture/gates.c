// SPDX-License-Identifier: MIT
/*
 * Gates that have no provider, one, and another in its place, round and round, while three threads call: from the
 * compiler's calls, tail calls and pointers, from call sites at every offset of a cache line, from stubs and sites that fault
 * the first time. Signal handlers call too, also in the thread that patches, in the middle of its commits.
 */
#include "xp_delays.h"
#include "xp_torture.h"

#include <crosspatch/gate.h>
#include <signal.h>

/* 0: withdrawn; 1, 2: the two providers. */
#define NR_STATES 3
#define NR_SITES 64u
#define NR_FAULTS XP_TORTURE_FAULTS /* of each case; each faults once */
#define NR_CASES 6

static double none(int x, double y)
{
	return x + y;
}

static double first(int x, double y)
{
	return x + y + 1;
}

static double second(int x, double y)
{
	return x + y + 2;
}

XP_DECLARE_GATE_FALLBACK(double, g, (int x, double y), none);

/* What keeps the stack aligned around a call, or in 32-bit code passes the arguments on. */
#ifdef __x86_64__
#define FRAME "subq $8, %rsp\n"
#define FRAME_LEN 8 /* up to the site */
#define FRAME_END "addq $8, %rsp\n"
#else
#define FRAME_LEN 16
#define FRAME "pushl 12(%esp)\npushl 12(%esp)\npushl 12(%esp)\n"
#define FRAME_END "addl $12, %esp\n"
#endif

/* 64-byte lines: the call begins i bytes behind the start of line i. Nothing between the caller and the frame. */
__asm__(".pushsection .text\n"
	".balign 64\n"
	"plain_callers:\n"
	".set at, 0\n"
	".rept 64\n"
	".balign 128\n"
	".skip at\n"
	FRAME
	".byte 0xe8\n"
	".long xp_gate_stub_g - (. + 4)\n"
	FRAME_END
	"ret\n"
	".set at, at + 1\n"
	".endr\n"
	".balign 64\n"
	"ud2_callers:\n"
	".rept " XP__STRING(NR_CASES) " * " XP__STRING(NR_FAULTS) "\n"
	".balign 32\n"
	FRAME
	".balign 8\n"
	"661: .byte 0x0f, 0x0b, 0x2e, 0xe8, 0, 0, 0, 0\n"
	FRAME_END
	"ret\n"
	".pushsection xp_gate_sites,\"a\",@progbits\n"
	".balign 4\n"
	".long 661b - .\n"
	".long xp_gate_g + 1 - .\n"
	".popsection\n"
	".endr\n"
	".popsection");
extern uint8_t plain_callers[], ud2_callers[];

static uint32_t epoch;
static unsigned wrong, interrupted;
static unsigned first_fault, next_fault;
static uint32_t begun; /* the state in which the case began */
static unsigned wanted; /* a signal, by the patcher */
static pthread_t patcher;

__attribute__((noinline)) static double tail_call(int x, double y)
{
	return xp_gate(g)(x, y);
}

static double call(unsigned which, unsigned site, int x, double y)
{
	typedef double function(int, double);
	function *volatile pointer = xp_gate(g);

	switch (which) {
	case 0:
		return tail_call(x, y);
	case 1:
		return pointer(x, y);
	case 2:
		return xp_gate(g)(x, y) + 0;
	case 3:
		site = __atomic_fetch_add(&next_fault, 1, __ATOMIC_RELAXED);
		/* Two threads at least come to each. */
		site = first_fault + site / 2 % NR_FAULTS;
		return ((function *)(uintptr_t)(ud2_callers + 32 * site))(x, y);
	default:
		return ((function *)(uintptr_t)(plain_callers + 128 * (site % NR_SITES) + site % NR_SITES))(x, y);
	}
}

static void check(unsigned which, unsigned site)
{
	uint32_t before = xp_epoch_read(&epoch), after;
	int state = (int)(call(which, site, 100, 0.5) - 100.5);

	after = xp_epoch_read(&epoch);
	if (state < 0 || !xp_epoch_allows(before, after, NR_STATES, (unsigned)state))
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
}

static void on_signal(int signal)
{
	(void)signal;
	check(4, __atomic_add_fetch(&interrupted, 1, __ATOMIC_RELAXED));
	check(3, 0);
}

static uint64_t execute(void *context, uint64_t *random)
{
	enum { NR = 200 };

	(void)context;
	for (unsigned i = 0; i < NR; i++) {
		uint64_t r = xp_test_random(random);

		check(i % 20 == 3 ? 3 : i % 8 == 3 ? 4 : i % 8, (unsigned)(r >> 8));
	}
	/* One for each change of provider: more, and the patcher would do nothing else. */
	if (__atomic_exchange_n(&wanted, 0, __ATOMIC_RELAXED))
		pthread_kill(patcher, SIGUSR1);
	return NR;
}

static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	unsigned next = (xp_epoch_state(epoch) + 1) % NR_STATES;
	int error;

	(void)context;
	(void)random;
	(void)diag;
	__atomic_store_n(&wanted, 1, __ATOMIC_RELAXED);
	xp_epoch_begin(&epoch);
	switch (next) {
	case 0:
		error = xp_gate_withdraw("g");
		break;
	case 1:
		error = xp_gate_provide("g", first);
		break;
	default:
		error = xp_gate_replace("g", second);
		break;
	}
	if (!error)
		xp_epoch_end(&epoch);
	/* Time for sites to be bound: else nothing is there to be taken back. */
	xp_torture_pass(0.0005);
	return error;
}

static bool enough(void)
{
	return xp_epoch_state(epoch) - begun >= NR_STATES && __atomic_load_n(&interrupted, __ATOMIC_RELAXED) > 0 &&
	       __atomic_load_n(&next_fault, __ATOMIC_RELAXED) > 0 &&
	       (xp__inject != xp_delay_here ||
		__atomic_load_n(&xp_delays_passed[XP__POINT_FAULT_FOUND], __ATOMIC_RELAXED) > 0);
}

static void run(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync)
{
	struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct xp_torture torture = {
		.execute = execute,
		.patch = patch,
		.nr_threads = sync == XP_SYNC_SIGNAL ? 1 : 3,
		.traps = XP_TRAPS_ANY,
		.enough = enough,
	};
	unsigned left = 0;
	struct xp_stats before, after;
	uint64_t toggles;

	if (!xp_torture_set(policy, writer, sync))
		return;
	REQUIRE(xp_module_error() == 0);
	REQUIRE(first_fault < NR_CASES * NR_FAULTS); /* one that faulted does not fault again */
	REQUIRE(sigaction(SIGUSR1, &act, NULL) == 0);
	patcher = pthread_self();
	interrupted = 0;
	begun = xp_epoch_state(epoch);
	xp_stats_read(&before);
	toggles = xp_torture_run(&torture);
	xp_stats_read(&after);
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
	XP_TEST_NOTE("commits %llu, calls in signal handlers %u",
		     (unsigned long long)(after.commits - before.commits), interrupted);
	/* More commits than changes of provider: sites were bound at their first execution. */
	CHECK(after.commits - before.commits > toggles);
	for (unsigned i = 0; i < NR_FAULTS; i++)
		left += ud2_callers[32 * (first_fault + i) + FRAME_LEN] == 0x0f;
	XP_TEST_NOTE("sites that faulted %u", NR_FAULTS - left);
	CHECK(left < NR_FAULTS);
	first_fault += NR_FAULTS;
	next_fault = 0;
	CHECK(interrupted > 0);
	/* Back to where every case begins. */
	while (xp_epoch_state(epoch) % NR_STATES != 0)
		REQUIRE(patch(NULL, NULL, NULL) == 0);
}

XP_TORTURE_CASE(auto_procmem, AUTO, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(auto_mprotect, AUTO, MPROTECT, MEMBARRIER)
XP_TORTURE_CASE(breakpoint_signal, BREAKPOINT, PROCMEM, SIGNAL)
XP_TORTURE_CASE(quiesce, QUIESCE, PROCMEM, SIGNAL)
XP_TORTURE_CASE(auto_pkey, AUTO, PKEY, MEMBARRIER)

XP_TEST(breakpoint_delayed)
{
	xp__inject = xp_delay_here;
	run(XP_POLICY_BREAKPOINT, XP_WRITER_PROCMEM, XP_SYNC_MEMBARRIER);
	xp__inject = NULL;
	CHECK(xp_delays_passed[XP__POINT_FAULT_FOUND] > 0);
}

XP_TORTURE_MAIN()
