// SPDX-License-Identifier: MIT
/* Little memory: what does not fit is refused, with the number of bytes that would do, and nothing leaks. */
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

/* Changes the sites from @from to @to; 0, or the error of the call that was refused. */
static int change_bytes(unsigned from, unsigned to, uint8_t old, uint8_t new, struct xp_diag *diag)
{
	struct xp_batch *batch = xp_batch_new();
	int error = batch ? 0 : -12;

	for (unsigned i = from; i < to && !error; i++) {
		const struct xp_poke poke = {
			.addr = text.base + i * STRIDE, .expect = &old, .replace = &new, .len = 1};

		error = xp_batch_add_poke(batch, &poke);
	}
	if (!error)
		error = xp_batch_commit(batch, diag);
	xp_batch_free(batch);
	return error;
}

static int change(unsigned from, unsigned to, struct xp_diag *diag)
{
	return change_bytes(from, to, nop, clc, diag);
}

static int change_back(unsigned from, unsigned to)
{
	return change_bytes(from, to, clc, nop, NULL);
}

XP_TEST(too_many_sites_are_refused)
{
	struct xp_stats stats[2];
	struct xp_diag diag = {0};
	unsigned nr = 64;
	size_t before;
	int error;

	REQUIRE(xp_text_alloc(&text, SITES * STRIDE));
	memset(text.base, nop, SITES * STRIDE);
	REQUIRE(xp_text_seal(&text));
	CHECK_EQ(change(0, 1, &diag), 0); /* what the engine keeps for good, it has now */
	before = used();
	do {
		nr *= 2;
		REQUIRE(1 + nr < SITES);
		xp_stats_read(&stats[0]);
		error = change(1, 1 + nr, &diag);
		xp_stats_read(&stats[1]);
		if (!error) {
			CHECK_EQ(stats[1].sites - stats[0].sites, nr);
			CHECK_EQ(count_changed(1 + nr), 1 + nr);
			CHECK_EQ(change_back(1, 1 + nr), 0);
		}
	} while (!error && xp_test_state.failures == 0);
	CHECK_EQ(error, -12);
	XP_TEST_NOTE("%u sites take %zu bytes in one piece", nr, xp_memory_needed());
	CHECK_EQ(stats[1].writes, stats[0].writes);
	CHECK_EQ(count_changed(1 + nr), 1);
	/* Not less than there would have been room for, and nothing leaks. */
	CHECK(xp_memory_needed() > (machine_memory_size() - before) / 4);
	CHECK_EQ(change(1, 1 + nr / 4, &diag), 0);
	CHECK_EQ(change_back(1, 1 + nr / 4), 0);
	CHECK(used() > before); /* one commit's memory is kept for the next one */
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
