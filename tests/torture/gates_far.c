// SPDX-License-Identifier: MIT
/*
 * Far gates in 16- and 32-bit segments that have no provider, one, and another in its place, while three threads call: by
 * sites of every form at every offset of a cache line, some of which fault for the first time. Gates change one by one and
 * all in one commit. A signal handler calls too, in the thread that patches, in the middle of its commits.
 */
#include "xp_delays.h"
#include "xp_far.h"
#include "xp_torture.h"

#include <crosspatch/crosspatch.h>
#include <errno.h>
#include <signal.h>

/* 0: withdrawn; 1, 2: the two providers. */
#define NR_STATES 3
#define NR_FRESH 12u /* of each form in each case of this program: faults once */

static uint32_t epochs[XP_NR_FAR_CASES];
static unsigned wrong, interrupted, interrupted_in_all;
static unsigned first_fresh, next_fresh;
static unsigned wanted; /* a signal, by the patcher */
static pthread_t patcher;

static void check(unsigned n, unsigned i)
{
	uint32_t before = xp_epoch_read(&epochs[n]), after, value = 0x4100, state;
	bool carry = xp_far_call(&xp_far_cases[n], i, &value);

	after = xp_epoch_read(&epochs[n]);
	state = value - 0x4100;
	if (state >= NR_STATES || carry != (state == 0) || !xp_epoch_allows(before, after, NR_STATES, state))
		__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
}

/* Two threads at least come to each. */
static void check_fresh(unsigned n)
{
	unsigned next = __atomic_fetch_add(&next_fresh, 1, __ATOMIC_RELAXED);

	check(n, first_fresh + next / XP_NR_FAR_CASES / 32 % NR_FRESH);
}

static void on_signal(int signal)
{
	unsigned n = __atomic_add_fetch(&interrupted, 1, __ATOMIC_RELAXED);

	(void)signal;
	check(n % XP_NR_FAR_CASES, n % (first_fresh + NR_FRESH));
	check_fresh(n / 2 % XP_NR_FAR_CASES);
}

static uint64_t execute(void *context, uint64_t *random)
{
	enum { NR = 200 };

	(void)context;
	for (unsigned i = 0; i < NR; i++) {
		uint64_t r = xp_test_random(random);

		if (i % 50 == 0)
			check_fresh((unsigned)(r >> 8) % XP_NR_FAR_CASES);
		else
			check((unsigned)(r >> 8) % XP_NR_FAR_CASES, (unsigned)(r >> 16) % (first_fresh + 1));
	}
	if (__atomic_exchange_n(&wanted, 0, __ATOMIC_RELAXED))
		pthread_kill(patcher, SIGUSR1);
	return NR;
}

static int patch_one(unsigned n)
{
	const struct xp_far_case *c = &xp_far_cases[n];
	unsigned next = (xp_epoch_state(epochs[n]) + 1) % NR_STATES;
	int error;

	xp_epoch_begin(&epochs[n]);
	if (next == 0)
		error = xp_gate_far_withdraw(c->gate);
	else
		error = (next == 1 ? xp_gate_far_provide : xp_gate_far_replace)(
			c->gate, xp_far_selector(c, next - 1), xp_far_offset(c, next - 1));
	if (!error)
		xp_epoch_end(&epochs[n]);
	return error;
}

/* All of them, each to its next state, in one commit. */
static int patch_all(struct xp_diag *diag)
{
	struct xp_batch *batch = xp_batch_new();
	int error = batch ? 0 : -ENOMEM;

	for (unsigned n = 0; n < XP_NR_FAR_CASES && !error; n++) {
		const struct xp_far_case *c = &xp_far_cases[n];
		unsigned next = (xp_epoch_state(epochs[n]) + 1) % NR_STATES;

		xp_epoch_begin(&epochs[n]);
		error = xp_batch_add_gate_far(batch, c->gate, next ? xp_far_selector(c, next - 1) : 0,
					      next ? xp_far_offset(c, next - 1) : 0);
	}
	error = error ? error : xp_batch_commit(batch, diag);
	for (unsigned n = 0; n < XP_NR_FAR_CASES && !error; n++)
		xp_epoch_end(&epochs[n]);
	xp_batch_free(batch);
	return error;
}

static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	unsigned n = (unsigned)(xp_test_random(random) >> 8) % (XP_NR_FAR_CASES + 1);

	(void)context;
	__atomic_store_n(&wanted, 1, __ATOMIC_RELAXED);
	return n == XP_NR_FAR_CASES ? patch_all(diag) : patch_one(n);
}

static bool enough(void)
{
	return interrupted_in_all + __atomic_load_n(&interrupted, __ATOMIC_RELAXED) > 0 &&
	       __atomic_load_n(&next_fresh, __ATOMIC_RELAXED) > 0 &&
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
	static int segments = -1;
	unsigned left = 0;

	if (segments == -1)
		segments = xp_far_start();
	if (segments > 0)
		SKIP("this system gives no descriptors (modify_ldt)");
	REQUIRE(segments == 0);
	if (!xp_torture_set(policy, writer, sync))
		return;
	REQUIRE(xp_module_error() == 0);
	REQUIRE(sigaction(SIGUSR1, &act, NULL) == 0);
	patcher = pthread_self();
	interrupted = 0;
	xp_torture_run(&torture);
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		for (unsigned i = first_fresh; i < first_fresh + NR_FRESH; i++) {
			const uint8_t *site = xp_far_site(&xp_far_cases[n], i);
			const uint8_t *number = site + (site[0] == 0x66 ? 2 : 1);

			left += site[xp_far_cases[n].len - 2] == xp_far_cases[n].null && *number == 9;
		}
	XP_TEST_NOTE("calls in signal handlers %u", interrupted);
	interrupted_in_all += interrupted;
	CHECK(next_fresh > 0);
	XP_TEST_NOTE("%u sites left unbound of %u", left, (unsigned)XP_NR_FAR_CASES * NR_FRESH);
	CHECK(left < XP_NR_FAR_CASES * NR_FRESH);
	first_fresh += NR_FRESH;
	next_fresh = 0;
	/* Back to where every case begins. */
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		while (xp_epoch_state(epochs[n]) % NR_STATES != 0)
			REQUIRE(patch_one(n) == 0);
}

XP_TORTURE_CASE(auto_procmem, AUTO, PROCMEM, MEMBARRIER)
XP_TORTURE_CASE(auto_mprotect, AUTO, MPROTECT, MEMBARRIER)
XP_TORTURE_CASE(breakpoint_signal, BREAKPOINT, PROCMEM, SIGNAL)
XP_TORTURE_CASE(quiesce, QUIESCE, PROCMEM, SIGNAL)

XP_TEST(breakpoint_delayed)
{
	xp__inject = xp_delay_here;
	run(XP_POLICY_BREAKPOINT, XP_WRITER_PROCMEM, XP_SYNC_MEMBARRIER);
	xp__inject = NULL;
	CHECK(xp_delays_passed[XP__POINT_FAULT_FOUND] > 0);
	/* Not in each case. */
	CHECK(interrupted_in_all > 0);
}

XP_TORTURE_MAIN()
