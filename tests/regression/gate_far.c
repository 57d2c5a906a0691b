// SPDX-License-Identifier: MIT
/* Far gates in real segments: what calls do, what sites hold, which faults are whose. */
#include "xp_far.h"
#include "xp_test.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/wait.h>

#define NR_THREADS 6

/* Descriptors once for all cases. */
static bool started(void)
{
	static int error = -1;

	if (error == -1)
		error = xp_far_start();
	CHECK(error >= 0);
	return error == 0;
}

#define REQUIRE_SEGMENTS()                                                                                             \
	do {                                                                                                           \
		if (!started())                                                                                        \
			SKIP("this system gives no descriptors (modify_ldt)");                                         \
	} while (0)

static uint64_t commits(void)
{
	struct xp_stats stats;

	xp_stats_read(&stats);
	return stats.commits;
}

/* What a call does: 0 it failed, else the provider's number. */
static unsigned call(const struct xp_far_case *c, unsigned i)
{
	uint32_t value = 0x4100;
	bool carry = xp_far_call(c, i, &value);

	CHECK_EQ(carry, value == 0x4100);
	return value - 0x4100;
}

static unsigned unbound(const struct xp_far_case *c, uint8_t *bytes)
{
	unsigned at = 0;

	memset(bytes, 0, 8);
	if (c->len == 8)
		bytes[at++] = 0x66;
	bytes[at++] = 0x9a;
	bytes[at] = 9;
	bytes[c->len - 2] = c->null;
	return c->len;
}

static void check_unbound(const struct xp_far_case *c, unsigned i)
{
	uint8_t bytes[8];

	CHECK_MEM(xp_far_site(c, i), bytes, unbound(c, bytes));
}

/* The site as provider @p leaves it, 2: as the stub does. */
static void check_bound(const struct xp_far_case *c, unsigned i, unsigned p)
{
	uint16_t selector = p < 2 ? xp_far_selector(c, p) : c->segment->selector;
	uint32_t offset = p < 2 ? xp_far_offset(c, p) : (uint32_t)c->fail - c->segment->base;
	uint32_t behind = (uint32_t)xp_far_site(c, i) - c->segment->base + c->len;
	uint8_t bytes[8];
	unsigned at = 0;

	if (c->form & XP_FAR_NEAR) {
		offset -= behind;
		bytes[at++] = c->len == 8 ? 0x66 : 0x90;
		bytes[at++] = 0x0e;
		if (c->len == 8)
			bytes[at++] = 0x66;
		bytes[at++] = 0xe8;
		memcpy(bytes + at, &offset, c->len - at);
	} else {
		if (c->len == 8)
			bytes[at++] = 0x66;
		bytes[at++] = 0x9a;
		memcpy(bytes + at, &offset, c->len - 2 - at);
		memcpy(bytes + c->len - 2, &selector, 2);
	}
	CHECK_MEM(xp_far_site(c, i), bytes, c->len);
}

static int provide(const struct xp_far_case *c, unsigned p)
{
	return xp_gate_far_provide(c->gate, xp_far_selector(c, p), xp_far_offset(c, p));
}

static int replace(const struct xp_far_case *c, unsigned p)
{
	return xp_gate_far_replace(c->gate, xp_far_selector(c, p), xp_far_offset(c, p));
}

static void each_form(enum xp_policy policy, enum xp_writer writer, unsigned first)
{
	REQUIRE(xp_set_policy(policy) == 0 && xp_set_writer(writer) == 0);
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++) {
		const struct xp_far_case *c = &xp_far_cases[n];

		for (unsigned i = first; i < first + 16; i++) {
			uint64_t before = commits();

			check_unbound(c, i);
			if (i % 2) {
				CHECK_EQ(call(c, i), 0);
				check_bound(c, i, 2);
				CHECK_EQ(provide(c, 0), 0);
				CHECK_EQ(commits() - before, 2);
			} else {
				CHECK_EQ(provide(c, 0), 0);
				check_unbound(c, i);
			}
			CHECK_EQ(call(c, i), 1);
			check_bound(c, i, 0);
			CHECK_EQ(call(c, i), 1);
			before = commits();
			CHECK_EQ(replace(c, 1), 0);
			CHECK_EQ(commits() - before, 1);
			check_bound(c, i, 1);
			CHECK_EQ(call(c, i), 2);
			CHECK_EQ(xp_gate_far_withdraw(c->gate), 0);
			check_bound(c, i, 2);
			CHECK_EQ(call(c, i), 0);
			if (i + 1 < XP_NR_FAR_SITES)
				check_unbound(c, i + 1);
		}
	}
}

XP_TEST(every_form_by_breakpoints)
{
	REQUIRE_SEGMENTS();
	each_form(XP_POLICY_AUTO, XP_WRITER_PROCMEM, 0);
}

XP_TEST(every_form_by_words)
{
	REQUIRE_SEGMENTS();
	each_form(XP_POLICY_AUTO, XP_WRITER_MPROTECT, 16);
}

XP_TEST(every_form_parked)
{
	REQUIRE_SEGMENTS();
	each_form(XP_POLICY_QUIESCE, XP_WRITER_PROCMEM, 32);
	REQUIRE(xp_set_policy(XP_POLICY_AUTO) == 0);
}

XP_TEST(refusals)
{
	const struct xp_far_case *far = &xp_far_cases[0], *near = &xp_far_cases[3];
	struct xp_far_segment segment = xp_far_code16;

	REQUIRE_SEGMENTS();
	CHECK_EQ(xp_gate_far_provide(NULL, 7, 0), -EINVAL);
	CHECK_EQ(xp_gate_far_provide(far->gate, 3, 1), -EINVAL);
	CHECK_EQ(xp_gate_far_withdraw(far->gate), -XP_E_NO_PROVIDER);
	CHECK_EQ(xp_gate_far_replace(far->gate, 7, 1), -XP_E_NO_PROVIDER);
	/* Sites that were executed say what they cannot call. */
	CHECK_EQ(call(near, 0), 0);
	CHECK_EQ(call(far, 0), 0);
	CHECK_EQ(xp_gate_far_provide(near->gate, xp_far_code32.selector, 16), -XP_E_RANGE);
	CHECK_EQ(xp_gate_far_provide(far->gate, xp_far_code32.selector, 0x10000), -XP_E_RANGE);
	check_bound(near, 0, 2);
	CHECK_EQ(call(near, 0), 0);
	CHECK_EQ(provide(far, 0), 0);
	CHECK_EQ(provide(far, 1), -XP_E_PROVIDED);
	CHECK_EQ(xp_gate_far_withdraw(far->gate), 0);

	CHECK_EQ(xp_far_segment_add(NULL), -EINVAL);
	CHECK_EQ(xp_far_segment_add(&xp_far_code16), -XP_E_PROVIDED);
	segment.added = false;
	CHECK_EQ(xp_far_segment_add(&segment), -XP_E_PROVIDED);
	segment.selector = 0x7ff7;
	segment.bits = 64;
	CHECK_EQ(xp_far_segment_add(&segment), -EINVAL);
	segment.bits = 16;
	segment.fail16 = segment.limit + 1;
	CHECK_EQ(xp_far_segment_add(&segment), -EINVAL);
	segment.fail16 = 0;
	segment.selector = 2;
	CHECK_EQ(xp_far_segment_add(&segment), -EINVAL);
	CHECK_EQ(xp_far_segment_remove(&segment), -EINVAL);
}

/* A thread blocks SIGTRAP, which the default writer needs: the call goes through all the same. */
XP_TEST(a_site_that_cannot_be_patched)
{
	sigset_t trap, before;

	REQUIRE_SEGMENTS();
	sigemptyset(&trap);
	sigaddset(&trap, SIGTRAP);
	REQUIRE(pthread_sigmask(SIG_BLOCK, &trap, &before) == 0);
	REQUIRE(xp_set_writer(XP_WRITER_PROCMEM) == 0);
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++) {
		const struct xp_far_case *c = &xp_far_cases[n];

		/* Not the first: a provider of sites that were executed has to patch. */
		CHECK_EQ(call(c, 48), 0);
		check_unbound(c, 48);
	}
	REQUIRE(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++) {
		const struct xp_far_case *c = &xp_far_cases[n];

		REQUIRE(provide(c, 0) == 0);
		REQUIRE(pthread_sigmask(SIG_BLOCK, &trap, &before) == 0);
		for (int i = 0; i < 3; i++)
			CHECK_EQ(call(c, 48), 1);
		check_unbound(c, 48);
		REQUIRE(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
		CHECK_EQ(call(c, 48), 1);
		check_bound(c, 48, 0);
		REQUIRE(xp_gate_far_withdraw(c->gate) == 0);
	}
}

/* ---- genuine faults ---- */

static sigjmp_buf back;
static unsigned nr_faults;

static void on_fault(int signal, siginfo_t *info, void *context)
{
	(void)signal;
	(void)context;
	nr_faults += info->si_code == SI_KERNEL;
	siglongjmp(back, 1);
}

static __attribute__((noinline)) void jump_in(const struct xp_far_case *c, unsigned i)
{
	uint32_t value = 0;

	(void)xp_far_call(c, i, &value);
}

static __attribute__((noinline)) void meet_once(const struct xp_far_case *c, unsigned i)
{
	if (sigsetjmp(back, 1) == 0)
		jump_in(c, i);
}

static void meet(const struct xp_far_case *c, unsigned i, unsigned expected)
{
	nr_faults = 0;
	for (unsigned k = 0; k < expected; k++)
		meet_once(c, i);
	CHECK_EQ(nr_faults, expected);
}

static __attribute__((noinline)) void meet_null(void)
{
	if (sigsetjmp(back, 1) == 0)
		__asm__ volatile("lcall $0, $0x1234");
}

XP_TEST(genuine_faults_are_passed_on)
{
	struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	const struct xp_far_case *c = &xp_far_cases[0], *wide = &xp_far_cases[2];
	int status;
	pid_t child;

	REQUIRE_SEGMENTS();
	/* The library's handler comes before it when it is installed anew. */
	REQUIRE(sigaction(SIGSEGV, &act, NULL) == 0);
	REQUIRE(xp_module_unregister(&xp__module) == 0 && xp_module_register(&xp__module) == 0);
	/* A selector without a descriptor: its number is in the error code. */
	REQUIRE(xp_gate_far_provide(c->gate, 0xff7, 16) == 0);
	meet(c, 49, 3);
	/* An offset beyond the limit: error code 0, like the fault of an unbound site. */
	REQUIRE(xp_gate_far_replace(c->gate, xp_far_code16.selector, 0xfff0) == 0);
	meet(c, 49, 3);
	REQUIRE(xp_gate_far_withdraw(c->gate) == 0);
	CHECK_EQ(call(c, 49), 0);
	REQUIRE(xp_gate_far_provide(wide->gate, xp_far_code32.selector, 0x7fffffff) == 0);
	meet(wide, 49, 2);
	REQUIRE(xp_gate_far_withdraw(wide->gate) == 0);
	/* Another null selector: not ours. */
	meet_null();
	CHECK_EQ(nr_faults, 3);
	/* Without a handler of the program's: the default action. */
	child = fork();
	if (child == 0) {
		uint32_t value = 0;

		act.sa_handler = SIG_DFL;
		act.sa_flags = 0;
		(void)sigaction(SIGSEGV, &act, NULL);
		(void)xp_module_unregister(&xp__module);
		(void)xp_module_register(&xp__module);
		(void)xp_gate_far_provide(c->gate, xp_far_code16.selector, 0xfff0);
		(void)xp_far_call(c, 49, &value);
		_exit(1);
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	CHECK_EQ(call(c, 50), 0);
}

/* ---- several at once ---- */

static pthread_barrier_t barrier;
static unsigned wrong;

static void *race(void *unused)
{
	(void)unused;
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		for (unsigned i = 51; i < 60; i++) {
			pthread_barrier_wait(&barrier);
			for (int k = 0; k < 3; k++)
				if (call(&xp_far_cases[n], i) != 1)
					__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
		}
	return NULL;
}

XP_TEST(of_many_threads_one_patches)
{
	pthread_t threads[NR_THREADS];
	uint64_t before;

	REQUIRE_SEGMENTS();
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		REQUIRE(provide(&xp_far_cases[n], 0) == 0);
	pthread_barrier_init(&barrier, NULL, NR_THREADS);
	before = commits();
	for (unsigned t = 0; t < NR_THREADS; t++)
		REQUIRE(pthread_create(&threads[t], NULL, race, NULL) == 0);
	for (unsigned t = 0; t < NR_THREADS; t++)
		pthread_join(threads[t], NULL);
	CHECK_EQ(commits() - before, XP_NR_FAR_CASES * 9);
	CHECK_EQ(wrong, 0);
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		REQUIRE(xp_gate_far_withdraw(xp_far_cases[n].gate) == 0);
	pthread_barrier_destroy(&barrier);
}

/* ---- in one commit with everything else ---- */

XP_DEFINE_STATIC_KEY_FALSE(key);

static __attribute__((noinline)) bool key_site(void)
{
	return xp_static_branch_unlikely(&key);
}

static void add_all(struct xp_batch *batch, unsigned p)
{
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++) {
		const struct xp_far_case *c = &xp_far_cases[n];

		CHECK_EQ(xp_batch_add_gate_far(batch, c->gate, p < 2 ? xp_far_selector(c, p) : 0,
					       p < 2 ? xp_far_offset(c, p) : 0),
			 0);
	}
	CHECK_EQ(xp_batch_add_key(batch, &key.key, p < 2), 0);
}

static void check_all(unsigned p)
{
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++) {
		check_bound(&xp_far_cases[n], 61, p);
		CHECK_EQ(call(&xp_far_cases[n], 61), p < 2 ? p + 1 : 0);
	}
	CHECK_EQ(key_site(), p < 2);
}

XP_TEST(a_batch_of_all_forms_and_a_key)
{
	static const uint8_t foreign[] = {0xcd};
	struct xp_poke poke = {.addr = (void *)xp_far_fail32, .expect = foreign, .replace = foreign, .len = 1};
	struct xp_batch *batch = xp_batch_new();
	uint64_t before;

	REQUIRE_SEGMENTS();
	REQUIRE(batch != NULL);
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		CHECK_EQ(call(&xp_far_cases[n], 61), 0);
	check_all(2);
	for (unsigned i = 0; i < 3; i++) {
		add_all(batch, i);
		before = commits();
		CHECK_EQ(xp_batch_commit(batch, NULL), 0);
		CHECK_EQ(commits() - before, 1);
		check_all(i);
	}
	add_all(batch, 1);
	CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
	CHECK_EQ(xp_batch_commit(batch, NULL), -XP_E_MISMATCH);
	check_all(2);
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		check_unbound(&xp_far_cases[n], 62);
	xp_batch_free(batch);
}

/* ---- eagerly ---- */

XP_TEST(eagerly_there_is_no_fault)
{
	uint64_t before;

	REQUIRE_SEGMENTS();
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		REQUIRE(provide(&xp_far_cases[n], 0) == 0);
	check_unbound(&xp_far_cases[0], 63);
	before = commits();
	CHECK_EQ(xp_gate_far_bind_all(), 0);
	CHECK_EQ(commits() - before, 1);
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++) {
		for (unsigned i = 0; i < XP_NR_FAR_SITES; i++)
			check_bound(&xp_far_cases[n], i, 0);
		CHECK_EQ(call(&xp_far_cases[n], 63), 1);
		REQUIRE(xp_gate_far_withdraw(xp_far_cases[n].gate) == 0);
		CHECK_EQ(call(&xp_far_cases[n], 63), 0);
	}
}

/* ---- as a program writes it ---- */

XP_DEFINE_GATE_FAR(own_gate);
struct xp_far_segment own_code16 __attribute__((visibility("hidden")));
struct xp_far_segment own_code32 __attribute__((visibility("hidden")));
__asm__(".pushsection .text\n"
	".code16\n"
	"own_16: " XP_FAR_SITE_16_16(own_a, own_gate, own_code16, 1) XP_FAR_SITE_16_32(own_b, own_gate, own_code16, 2)
	XP_FAR_SITE_16_16_NEAR(own_c, own_gate, own_code16, 3) XP_FAR_SITE_16_32_NEAR(own_d, own_gate, own_code16, 4)
	".code32\n"
	XP_FAR_SITE_32_32(own_e, own_gate, own_code32, 5) XP_FAR_SITE_32_32_NEAR(own_f, own_gate, own_code32, 6)
	".popsection");
extern const uint8_t own_a[] __attribute__((visibility("hidden"))), own_f[] __attribute__((visibility("hidden")));

XP_TEST(the_macros)
{
	static const uint8_t text[] = {0x9a, 1, 0, 1, 0, 0x66, 0x9a, 2, 0, 0, 0, 1, 0, 0x9a, 3, 0, 1, 0, 0x66, 0x9a,
				       4, 0, 0, 0, 1, 0, 0x9a, 5, 0, 0, 0, 2, 0, 0x9a, 6, 0, 0, 0, 2, 0};
	const struct xp_far_site *site = __start_xp_far_sites;
	unsigned nr = 0;

	CHECK_MEM(own_a, text, sizeof(text));
	for (; site < __stop_xp_far_sites; site++)
		if ((uintptr_t)&site->gate + (uintptr_t)site->gate == (uintptr_t)&own_gate)
			CHECK_EQ(site->number, ++nr);
	CHECK_EQ(nr, 6);
}

XP_TEST_MAIN()
