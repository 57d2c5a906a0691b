// SPDX-License-Identifier: MIT
/* The early policy: before the other processors start, through CR0.WP, without window, interrupt or trap. */
#include "xp_test.h"
#include "xp_text.h"

#include "port/bare/port.h"

#include <crosspatch/crosspatch.h>

XP_DEFINE_STATIC_KEY_FALSE(key);

static __attribute__((noinline)) bool site(void)
{
	return xp_static_branch_unlikely(&key);
}

/* mov $1, %eax; ret; and with 2, as two instructions where there was one */
static const uint8_t one[] = {0xb8, 0x01, 0x00, 0x00, 0x00, 0xc3}, two[] = {0x6a, 0x02, 0x58, 0x66, 0x90, 0xc3};
static struct xp_text text;
static struct xp_stats stats_then;
static struct xp_bare_stats bare_then;
static int errors_then;
static bool site_then, faults_then, page_faults_then;
static unsigned result_then;

static int poke(const uint8_t *from, const uint8_t *to)
{
	const struct xp_poke poke = {.addr = text.base + 4094, .expect = from, .replace = to, .len = 5};

	return xp_text_poke(&poke, NULL);
}

void machine_before_cpus(void)
{
	uint8_t *window = machine_bare.window;

	machine_bare.window = NULL; /* there may be none yet */
	errors_then += !xp_text_alloc(&text, 8192);
	memcpy(text.base + 4094, one, sizeof(one)); /* across a page */
	errors_then += !xp_text_seal(&text);
	errors_then += xp_static_branch_enable(&key) != -XP_E_NO_WRITER; /* the other policies need it */
	errors_then += xp_set_policy(XP_POLICY_EARLY) != 0;
	errors_then += xp_static_branch_enable(&key) != 0;
	errors_then += poke(one, two) != 0;
	machine_bare.window = window;
	errors_then += xp_static_branch_disable(&key) != 0; /* and goes by it where there is one: CR0.WP stays */
	errors_then += xp_static_branch_enable(&key) != 0;
	site_then = site();
	result_then = xp_text_call(text.base + 4094, 0, 0);
	faults_then = machine_store_faults((const void *)(uintptr_t)site);
	page_faults_then = machine_store_faults(text.base + 4094);
	xp_stats_read(&stats_then);
	xp_bare_stats_read(&bare_then);
}

XP_TEST(before_the_other_processors)
{
	CHECK_EQ(errors_then, 0);
	CHECK(site_then);
	CHECK_EQ(result_then, 2);
	CHECK(faults_then); /* CR0.WP is set again */
	CHECK(page_faults_then);
	CHECK_EQ(stats_then.commits, 4);
	CHECK_EQ(stats_then.syncs, 0);
	CHECK_EQ(bare_then.early, 3); /* one site, and one in two pages */
	CHECK_EQ(bare_then.ipis, 0);
	CHECK_EQ(bare_then.rounds, 0);
}

static void look(void *result)
{
	*(unsigned *)result = (site() ? 10 : 0) + xp_text_call(text.base + 4094, 0, 0);
}

XP_TEST(the_others_start_with_it)
{
	for (unsigned i = 1; i < machine_nr_cpus(); i++) {
		unsigned result = 0;

		machine_run(i, look, &result);
		machine_wait(i);
		CHECK_EQ(result, 12);
	}
}

XP_TEST(refused_when_they_run)
{
	struct xp_diag diag;
	const struct xp_poke back = {.addr = text.base + 4094, .expect = two, .replace = one, .len = 5};

	CHECK_EQ(xp_policy(), XP_POLICY_EARLY);
	CHECK_EQ(xp_text_poke(&back, &diag), -XP_E_NOT_EARLY);
	CHECK_EQ(diag.phase, XP_PHASE_PREPARE);
	CHECK_EQ(xp_static_branch_disable(&key), -XP_E_NOT_EARLY);
	CHECK(site());
	CHECK_EQ(xp_text_call(text.base + 4094, 0, 0), 2);
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_static_branch_disable(&key), 0);
	CHECK(!site());
}

struct xp_test_state xp_test_state;
int main(int argc, char **argv)
{
	return xp_test_main(argc, argv);
}
