// SPDX-License-Identifier: MIT
/*
 * Functions that are traced, traced and redirected, redirected, and neither, round and round, while three threads call them:
 * entries at every offset of a cache line. Each call runs its handler or not, and the function or its replacement, as is
 * allowed at that moment. Some calls are left by longjmp, some are made by signal handlers. Handlers' data is spoilt as soon
 * as the library says that no thread looks at it any more.
 */
#include "xp_delays.h"
#include "xp_torture.h"

#include <crosspatch/function.h>
#include <setjmp.h>
#include <signal.h>

#define NR_STATES 4
#define NR_FUNCTIONS 64u
#define STRIDE 128u

enum { NEITHER, TRACED, BOTH, REDIRECTED };

void longjmp_out(void);

/* int function(int x, bool leave): x + 1, or never returns. The entry is i bytes behind the start of line i. */
__asm__(".pushsection .text\n"
	".balign 64\n"
	"traced_functions:\n"
	".set at, 0\n"
	".rept 64\n"
	".balign 128\n"
	".skip at\n"
	"661: .byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"testl %esi, %esi\n"
	"jnz longjmp_out\n"
	"leal 1(%rdi), %eax\n"
	"ret\n"
	"662:\n"
	".pushsection xp_entry_sites,\"a\",@progbits\n"
	".balign 4\n"
	".long 661b - .\n"
	".long traced_name - .\n"
	".long (662b - 661b) << 8\n"
	".popsection\n"
	".set at, at + 1\n"
	".endr\n"
	"traced_name: .asciz \"traced\"\n"
	".popsection");
extern uint8_t traced_functions[];
typedef int function(int, int);

static uint32_t epoch;
static unsigned wrong, left_by_jump, interrupted;
static __thread unsigned entered, left;
static __thread jmp_buf back;

/* Two in turn: what one round's handlers see is spoilt before the next but one. */
static struct data {
	unsigned alive;
} data[2];

void longjmp_out(void)
{
	longjmp(back, 1);
}

static int replacement(int x, int leave)
{
	if (leave)
		longjmp_out();
	return x + 2;
}

static function *function_at(unsigned i)
{
	i %= NR_FUNCTIONS;
	return (function *)(uintptr_t)(traced_functions + STRIDE * i + i);
}

static void on_entry(const struct xp_function_call *call, void *argument)
{
	const struct data *seen = argument;

	if (!__atomic_load_n(&seen->alive, __ATOMIC_RELAXED) || (int)call->integer[0] != 100)
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	*call->word = 12345;
	entered++;
}

static void on_leave(const struct xp_function_call *call, void *argument)
{
	const struct data *seen = argument;

	if (!__atomic_load_n(&seen->alive, __ATOMIC_RELAXED) || *call->word != 12345)
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	left++;
}

static const struct xp_function_handler handler = {.entry = on_entry, .leave = on_leave};

/* It lies right below the caller's frame. */
__attribute__((noinline)) static void forget_what_was_left(void)
{
	uintptr_t here = (uintptr_t)__builtin_frame_address(0) + 16;

	(void)xp_function_stack_gone((const void *)(here - 65536), (const void *)here);
}

static void check(unsigned which, volatile bool leave)
{
	uint32_t before = xp_epoch_read(&epoch), after;
	unsigned entered_before = entered, left_before = left;
	bool traced, redirected, ok = true;
	volatile int result = 0;

	if (!leave)
		result = function_at(which)(100, 0);
	else if (setjmp(back) == 0)
		result = function_at(which)(100, 1);
	after = xp_epoch_read(&epoch);
	traced = entered != entered_before;
	redirected = result == 102;
	if (leave)
		ok = result == 0 && left == left_before && entered - entered_before <= 1;
	else if (result != 101 && result != 102)
		ok = false;
	else
		ok = xp_epoch_allows(before, after, NR_STATES,
				     traced ? (redirected ? BOTH : TRACED) : (redirected ? REDIRECTED : NEITHER)) &&
		     entered - entered_before <= 1 && left - left_before <= entered - entered_before;
	if (!ok)
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	if (leave) {
		__atomic_add_fetch(&left_by_jump, 1, __ATOMIC_RELAXED);
		forget_what_was_left();
	}
}

/* It may have interrupted a handler of this thread: then it is not traced. */
static void on_signal(int signal)
{
	uint32_t before = xp_epoch_read(&epoch), after;
	unsigned entered_before = entered, left_before = left;
	int result = function_at((unsigned)signal * before)(100, 0);

	after = xp_epoch_read(&epoch);
	if (!xp_epoch_allows(before, after, NR_STATES, result == 101 ? NEITHER : REDIRECTED) &&
	    !xp_epoch_allows(before, after, NR_STATES, result == 101 ? TRACED : BOTH))
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	entered = entered_before;
	left = left_before;
	__atomic_add_fetch(&interrupted, 1, __ATOMIC_RELAXED);
}

static uint64_t execute(void *context, uint64_t *random)
{
	enum { NR = 100 };

	(void)context;
	for (volatile unsigned i = 0; i < NR; i = i + 1)
		check((unsigned)(xp_test_random(random) >> 8), i % 16 == 5);
	raise(SIGUSR1);
	return NR;
}

static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	unsigned state = xp_epoch_state(epoch) % NR_STATES, round = xp_epoch_state(epoch) / NR_STATES;
	struct data *now = &data[round % 2];
	struct xp_batch *batch = xp_batch_new();
	int error = batch ? 0 : -1;

	(void)context;
	(void)random;
	if (state == NEITHER)
		__atomic_store_n(&now->alive, 1, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < NR_FUNCTIONS && !error; i++) {
		function *fn = function_at(i);

		switch (state) {
		case NEITHER:
			error = xp_batch_add_trace(batch, fn, &handler, now);
			break;
		case TRACED:
			error = xp_batch_add_redirect(batch, fn, replacement);
			break;
		case BOTH:
			error = xp_batch_add_untrace(batch, fn, &handler, now);
			break;
		default:
			error = xp_batch_add_restore(batch, fn);
		}
	}
	xp_epoch_begin(&epoch);
	if (!error)
		error = xp_batch_commit(batch, diag);
	if (!error)
		xp_epoch_end(&epoch);
	xp_batch_free(batch);
	if (!error && state == BOTH) {
		error = xp_function_synchronize();
		__atomic_store_n(&now->alive, 0, __ATOMIC_RELAXED);
	}
	/* Time for calls under each state. */
	xp_torture_pass(0.0002);
	return error;
}

static bool enough(void)
{
	return __atomic_load_n(&left_by_jump, __ATOMIC_RELAXED) > 0 &&
	       __atomic_load_n(&interrupted, __ATOMIC_RELAXED) > 0 &&
	       (xp__inject != xp_delay_here ||
		__atomic_load_n(&xp_delays_passed[XP__POINT_TRAP_FOUND], __ATOMIC_RELAXED) > 0);
}

static void run(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync)
{
	struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct xp_torture torture = {
		.execute = execute,
		.patch = patch,
		.nr_threads = 3,
		.traps = XP_TRAPS_ANY,
		.enough = enough,
	};
	struct xp_function_stats before, after;

	if (!xp_torture_set(policy, writer, sync))
		return;
	REQUIRE(xp_module_error() == 0);
	REQUIRE(sigaction(SIGUSR1, &act, NULL) == 0);
	left_by_jump = interrupted = 0;
	xp_function_stats_read(&before);
	(void)xp_torture_run(&torture);
	while (xp_epoch_state(epoch) % NR_STATES != NEITHER)
		REQUIRE(patch(NULL, NULL, NULL) == 0);
	xp_function_stats_read(&after);
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
	XP_TEST_NOTE("traced calls %llu, returns %llu, left by longjmp %u, in signal handlers %u",
		     (unsigned long long)(after.calls - before.calls),
		     (unsigned long long)(after.returns - before.returns), left_by_jump, interrupted);
	CHECK(after.calls > before.calls);
	CHECK(after.returns > before.returns);
	CHECK(left_by_jump > 0);
	CHECK(interrupted > 0);
	CHECK_EQ(after.missed_returns, before.missed_returns);
	CHECK_EQ(after.traced, 0);
	CHECK_EQ(after.redirected, 0);
}

XP_TORTURE_CASE(auto_procmem, AUTO, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(auto_mprotect, AUTO, MPROTECT, MEMBARRIER)
XP_TORTURE_CASE(quiesce, QUIESCE, PROCMEM, SIGNAL)
XP_TORTURE_CASE(auto_pkey, AUTO, PKEY, MEMBARRIER)

XP_TEST(breakpoint_delayed)
{
	xp__inject = xp_delay_here;
	run(XP_POLICY_BREAKPOINT, XP_WRITER_PROCMEM, XP_SYNC_MEMBARRIER);
	xp__inject = NULL;
	CHECK(xp_delays_passed[XP__POINT_TRAP_FOUND] > 0);
}

XP_TORTURE_MAIN()
