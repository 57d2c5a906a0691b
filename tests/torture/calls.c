// SPDX-License-Identifier: MIT
/*
 * Static calls of every sort of signature, whose targets rotate among three, while three threads call: through the
 * trampoline as the compiler emits it, and by call and tail-call sites at every offset of a cache line, most of which are
 * rewritten in place. The third target of one call is out of reach, so that its trampoline changes form. All change in
 * one commit; after it only the new targets run.
 */
#include "xp_calls.h"
#include "xp_delays.h"
#include "xp_text.h"
#include "xp_torture.h"

#include <crosspatch/crosspatch.h>
#include <stdarg.h>

#define NR_STATES 3

struct pair {
	double real;
	long integer;
};

struct large {
	long value[8];
};

/* Each target says its number; the arguments must have come through. */
#define TARGETS(n)                                                                                                     \
	static int plain_##n(int x)                                                                                    \
	{                                                                                                              \
		return x + n;                                                                                          \
	}                                                                                                              \
	static double floats_##n(double a, float b)                                                                    \
	{                                                                                                              \
		return a * (double)b + n;                                                                              \
	}                                                                                                              \
	static struct large structs_##n(struct pair pair, int at)                                                      \
	{                                                                                                              \
		struct large large = {{0}};                                                                            \
                                                                                                                       \
		large.value[at] = (long)pair.real + pair.integer + n;                                                  \
		return large;                                                                                          \
	}                                                                                                              \
	static double variable_##n(int nr, ...)                                                                        \
	{                                                                                                              \
		double sum = n;                                                                                        \
		va_list args;                                                                                          \
                                                                                                                       \
		va_start(args, nr);                                                                                    \
		for (int i = 0; i < nr; i++)                                                                           \
			sum += i % 2 ? va_arg(args, double) : (double)va_arg(args, int);                               \
		va_end(args);                                                                                          \
		return sum;                                                                                            \
	}
TARGETS(0)
TARGETS(1)
TARGETS(2)

XP_DEFINE_STATIC_CALL(plain, plain_0);
XP_DEFINE_STATIC_CALL(distant, plain_0);
XP_DEFINE_STATIC_CALL(floats, floats_0);
XP_DEFINE_STATIC_CALL(structs, structs_0);
XP_DEFINE_STATIC_CALL(variable, variable_0);
/* Found while they are executed, and while they change. */
XP_DEFINE_STATIC_CALL_LAZY(lazy, plain_0);
XP_CALL_SITES(plain_sites, plain);
XP_CALL_SITES_TAIL(plain_tails, plain);
XP_CALL_SITES(distant_sites, distant);

static struct xp_batch *batch;
static struct xp_text far_text;
static uint32_t epoch;
static unsigned wrong;

static int plain_at(const int32_t *sites, unsigned i)
{
	return ((int (*)(int))xp_call_site(sites, i))(100) - 100;
}

/* Calls that the compiler placed where it liked. */
__attribute__((noinline)) static int lazy_call(unsigned site)
{
	switch (site % 4) {
	case 0:
		return xp_static_call(lazy)(100) - 100;
	case 1:
		return xp_static_call(lazy)(200) - 200;
	case 2:
		return xp_static_call(lazy)(300) - 300;
	default:
		return xp_static_call(lazy)(400) - 400;
	}
}

static int call(unsigned which, uint64_t random)
{
	unsigned site = (unsigned)(random >> 8) % XP_NR_CALL_SITES;

	switch (which) {
	case 0:
		return xp_static_call(plain)(100) - 100;
	case 1:
		return (int)(xp_static_call(floats)(2.5, 4) - 10);
	case 2:
		return (int)(xp_static_call(structs)((struct pair){30, 7}, 5).value[5] - 37);
	case 3:
		return (int)(xp_static_call(variable)(4, 1, 2.5, 3, 4.5) - 11);
	case 4:
		return xp_static_call(distant)(100) - 100;
	case 5:
		return plain_at(distant_sites, site);
	case 6:
		return plain_at(plain_tails, site);
	case 7:
		return lazy_call(site);
	default:
		return plain_at(plain_sites, site);
	}
}

static uint64_t execute(void *context, uint64_t *random)
{
	enum { NR = 200 };

	(void)context;
	for (unsigned i = 0; i < NR; i++) {
		uint32_t before = xp_epoch_read(&epoch), after;
		int state = call(i % 10, xp_test_random(random));

		after = xp_epoch_read(&epoch);
		if (state < 0 || !xp_epoch_allows(before, after, NR_STATES, (unsigned)state))
			__atomic_add_fetch(&wrong, 1, __ATOMIC_RELAXED);
	}
	return NR;
}

static int (*far_target(void))(int)
{
	return (int (*)(int))(uintptr_t)far_text.base;
}

static int patch(void *context, uint64_t *random, struct xp_diag *diag)
{
	unsigned next = (xp_epoch_state(epoch) + 1) % NR_STATES;
	int error = 0;

	(void)context;
	(void)random;
#define ADD(name, target)                                                                                              \
	do {                                                                                                           \
		__typeof__(target##_0) *const targets[NR_STATES] = {target##_0, target##_1, target##_2};               \
                                                                                                                       \
		error = error ? error : xp_batch_add_call(batch, name, targets[next]);                                 \
	} while (0)
	ADD(plain, plain);
	ADD(floats, floats);
	ADD(structs, structs);
	ADD(variable, variable);
	ADD(distant, plain);
	ADD(lazy, plain);
	if (next == 2)
		error = error ? error : xp_batch_add_call(batch, distant, far_target());
	if (error)
		return error;
	xp_epoch_begin(&epoch);
	error = xp_batch_commit(batch, diag);
	if (!error)
		xp_epoch_end(&epoch);
	return error;
}

/* Where the sites go: in place where one store changes them. */
static void check_in_place(void)
{
	unsigned in_place = 0;

	for (unsigned i = 0; i < XP_NR_CALL_SITES; i++) {
		const uint8_t *code = (const uint8_t *)xp_call_site(plain_sites, i) + 4;
		uintptr_t by_trampoline = (uintptr_t)xp_call_plain.trampoline, to;
		int32_t displacement;

		memcpy(&displacement, code + 1, sizeof(displacement));
		to = (uintptr_t)code + 5 + (uintptr_t)(intptr_t)displacement;
		CHECK_EQ((uintptr_t)code % 64, i);
		CHECK_EQ(to == by_trampoline, i % 8 > 3 && i % 8 != 7);
		CHECK(to == by_trampoline || to == (uintptr_t)xp_static_call_query(plain));
		in_place += to != by_trampoline;
	}
	CHECK_EQ(in_place, XP_NR_CALL_SITES / 8 * 5);
}

static bool enough(void)
{
	return xp__inject != xp_delay_here || xp_delays_all(XP__POINT_TRAP_MISSED);
}

static void run(enum xp_policy policy, enum xp_writer writer, enum xp_sync sync, enum xp_torture_traps traps)
{
#ifdef __x86_64__
	static const uint8_t far_code[] = {0x8d, 0x47, 0x02, 0xc3}; /* lea 2(%rdi), %eax; ret */
#else
	/* mov 4(%esp), %eax; inc %eax, twice; ret */
	static const uint8_t far_code[] = {0x8b, 0x44, 0x24, 0x04, 0x40, 0x40, 0xc3};
#endif
	struct xp_torture torture = {
		.execute = execute,
		.patch = patch,
		.nr_threads = sync == XP_SYNC_SIGNAL ? 1 : 3,
		.traps = traps,
		.enough = enough,
	};

	if (far_text.base == NULL)
		REQUIRE(xp_text_make(&far_text, far_code, sizeof(far_code)));
	if (!xp_torture_set(policy, writer, sync))
		return;
	if (batch == NULL)
		batch = xp_batch_new();
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_module_error(), 0);
	xp_torture_run(&torture);
	CHECK_EQ(__atomic_load_n(&wrong, __ATOMIC_RELAXED), 0);
	check_in_place();
	xp_batch_free(batch);
	batch = NULL;
}

XP_TORTURE_CASE(auto_procmem, AUTO, PROCMEM, MEMBARRIER, XP_TRAPS_SOME)
XP_TORTURE_CASE(auto_mprotect, AUTO, MPROTECT, MEMBARRIER, XP_TRAPS_NONE)
/* One bystander, which answers the signals: on a busy machine it may never run between two phases. */
XP_TORTURE_CASE(breakpoint_signal, BREAKPOINT, PROCMEM, SIGNAL, XP_TRAPS_ANY)
XP_TORTURE_CASE(quiesce, QUIESCE, PROCMEM, SIGNAL, XP_TRAPS_NONE)
XP_TORTURE_CASE(auto_pkey, AUTO, PKEY, MEMBARRIER, XP_TRAPS_NONE)

XP_TEST(breakpoint_delayed)
{
	memset(xp_delays_passed, 0, sizeof(xp_delays_passed));
	xp__inject = xp_delay_here;
	run(XP_POLICY_BREAKPOINT, XP_WRITER_PROCMEM, XP_SYNC_MEMBARRIER, XP_TRAPS_SOME);
	xp__inject = NULL;
	CHECK(xp_delays_all(XP__POINT_TRAP_MISSED));
}

XP_TORTURE_MAIN()
