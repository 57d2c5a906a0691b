// SPDX-License-Identifier: MIT
/* Little memory: what does not fit is changed in rounds, all of it or nothing, and nothing leaks. */
#include "xp_test.h"
#include "xp_text.h"

#include "port/bare/port.h"

#include <crosspatch/crosspatch.h>

enum { SITES = 32768, STRIDE = 4 };

size_t machine_memory_size(void)
{
	return 256u << 10;
}

static const uint8_t nop = 0x90, clc = 0xf8;
static struct xp_text text;

static size_t used(void)
{
	struct xp_bare_stats stats;

	xp_bare_stats_read(&stats);
	return stats.used;
}

static unsigned count_changed(unsigned nr)
{
	unsigned changed = 0;

	for (unsigned i = 0; i < nr; i++)
		changed += text.base[i * STRIDE] == clc;
	return changed;
}

/* What stands at one site, as if it were another's. */
static void text_last(unsigned site, uint8_t byte)
{
	struct xp_poke poke = {
		.addr = text.base + site * STRIDE, .expect = text.base + site * STRIDE, .replace = &byte, .len = 1};

	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
}

/* Changes the sites from @from to @to; 0, or the error of the call that was refused. */
static int change(unsigned from, unsigned to, struct xp_diag *diag)
{
	struct xp_batch *batch = xp_batch_new();
	int error = batch ? 0 : -12;

	for (unsigned i = from; i < to && !error; i++) {
		const struct xp_poke poke = {
			.addr = text.base + i * STRIDE, .expect = &nop, .replace = &clc, .len = 1};

		error = xp_batch_add_poke(batch, &poke);
	}
	if (!error)
		error = xp_batch_commit(batch, diag);
	xp_batch_free(batch);
	return error;
}

XP_TEST(too_many_sites_are_changed_in_rounds)
{
	struct xp_stats stats[2];
	struct xp_diag diag = {0};
	unsigned nr = 64, done = 1;
	size_t before;

	REQUIRE(xp_text_alloc(&text, SITES * STRIDE));
	memset(text.base, nop, SITES * STRIDE);
	REQUIRE(xp_text_seal(&text));
	CHECK_EQ(change(0, 1, &diag), 0); /* what the engine keeps for good, it has now */
	before = used();
	do {
		REQUIRE(done + 2 * nr < SITES);
		xp_stats_read(&stats[0]);
		CHECK_EQ(change(done, done + nr, &diag), 0);
		xp_stats_read(&stats[1]);
		done += nr;
		nr *= 2;
	} while (stats[1].commits - stats[0].commits < 2 && xp_test_state.failures == 0);
	XP_TEST_NOTE("%u sites take %u rounds in %zu bytes", nr / 2, (unsigned)(stats[1].commits - stats[0].commits),
		     machine_memory_size());
	CHECK_EQ(stats[1].syncs - stats[0].syncs, stats[1].commits - stats[0].commits);
	CHECK_EQ(stats[1].sites - stats[0].sites, nr / 2);
	CHECK_EQ(count_changed(done), done);
	CHECK_EQ(text.base[done * STRIDE], nop);
	CHECK(used() > before); /* one commit's memory is kept for the next one */
	before = used();
	/* One bad site, the last one: no round begins. */
	nr /= 2;
	text_last(done + nr - 1, 0x91);
	CHECK_EQ(change(done, done + nr, &diag), -XP_E_MISMATCH);
	CHECK(diag.site == text.base + (done + nr - 1) * STRIDE);
	CHECK_EQ(count_changed(done + nr), done);
	text_last(done + nr - 1, nop);
	CHECK_EQ(change(done, done + nr, &diag), 0);
	CHECK_EQ(count_changed(done + nr), done + nr);
	CHECK_EQ(used(), before);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

XP_TEST(blocks)
{
	static struct {
		void *at;
		size_t size;
	} rest[64];
	unsigned nr = 0;
	size_t before = used();
	uint8_t *a, *b, *c;

	CHECK_EQ(xp__bare_lock(), 0);
	a = xp__bare_alloc(100);
	b = xp__bare_alloc(1);
	c = xp__bare_alloc(4096);
	REQUIRE(a && b && c);
	CHECK_EQ((uintptr_t)a % 64, 0);
	CHECK_EQ((uintptr_t)b % 64, 0);
	CHECK_EQ(used() - before, 128 + 64 + 4096);
	memset(a, 0xaa, 100);
	xp__bare_release(a, 100);
	xp__bare_release(c, 4096);
	xp__bare_release(b, 1);
	CHECK_EQ(used(), before);
	/* Joined again, and zeroed: with all the rest taken, there is just this room. */
	a = xp__bare_alloc(100);
	b = xp__bare_alloc(1);
	c = xp__bare_alloc(4096);
	for (size_t size = machine_memory_size(); size >= 64; size /= 2)
		while (nr < sizeof(rest) / sizeof(rest[0]) && (rest[nr].at = xp__bare_alloc(size)))
			rest[nr++].size = size;
	CHECK(xp__bare_alloc(1) == NULL);
	xp__bare_release(a, 100);
	xp__bare_release(c, 4096);
	xp__bare_release(b, 1);
	CHECK(xp__bare_alloc(128 + 64 + 4096 + 1) == NULL);
	a = xp__bare_alloc(128 + 64 + 4096);
	while (nr-- > 0)
		xp__bare_release(rest[nr].at, rest[nr].size);
	if (a == NULL)
		xp__bare_unlock();
	REQUIRE(a);
	for (unsigned i = 0; i < 128 + 64 + 4096; i++)
		if (a[i] != 0) {
			CHECK_EQ(a[i], 0);
			break;
		}
	xp__bare_release(a, 128 + 64 + 4096);
	CHECK(xp__bare_alloc(machine_memory_size() + 1) == NULL);
	CHECK(xp__bare_alloc(0) == NULL);
	CHECK(xp__bare_alloc(SIZE_MAX) == NULL);
	CHECK_EQ(used(), before);
	xp__bare_unlock();
}

struct xp_test_state xp_test_state;
int main(int argc, char **argv)
{
	return xp_test_main(argc, argv);
}
