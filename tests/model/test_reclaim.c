// SPDX-License-Identifier: MIT
/* Memory: blocks go round, and one that was replaced is free when all threads that may see it have left, and not before. */
#include "core/reclaim.h"

#include "recorder.h"
#include "xp_test.h"

#include <errno.h>

/* ---- a domain whose readers are these ---- */

static bool inside[XP__SHARDS];

static bool quiescent(unsigned long waiting[XP__SHARD_WORDS])
{
	bool quiet = true;

	for (unsigned i = 0; i < XP__SHARDS; i++) {
		if (!inside[i])
			waiting[i / XP__SHARD_BITS] &= ~(1ul << i % XP__SHARD_BITS);
		quiet = quiet && !(waiting[i / XP__SHARD_BITS] >> i % XP__SHARD_BITS & 1);
	}
	return quiet;
}

static struct xp__domain readers = {.quiescent = quiescent};

enum { SIZE = 100 };

static struct xp__block *new_block(void)
{
	struct xp__block *block = xp__reclaim_take(SIZE);

	block->size = SIZE;
	return block;
}

/* A block that is free is the next one taken. */
static bool is_free(const struct xp__block *block)
{
	struct xp__block *next = xp__reclaim_take(SIZE);
	bool same = next == block;

	xp__reclaim_give(next, SIZE);
	return same;
}

static void start(void)
{
	rec_start();
	memset(inside, 0, sizeof(inside));
	REQUIRE_EQ(rec_port.lock(), 0);
	xp__reclaim();
}

static void stop(void)
{
	memset(inside, 0, sizeof(inside));
	xp__reclaim();
	rec_port.unlock();
}

/* ---- what was replaced ---- */

XP_TEST(free_when_each_shard_was_empty_once)
{
	struct xp__block *block;

	start();
	block = new_block();
	inside[0] = inside[255] = true;
	xp__reclaim_retire(&readers, block);
	xp__reclaim();
	CHECK(!is_free(block));
	inside[0] = false;
	xp__reclaim();
	CHECK(!is_free(block));
	inside[0] = true; /* it came later, and sees what came later */
	inside[255] = false;
	xp__reclaim();
	CHECK(is_free(block));
	stop();
}

/* The looks that were made before a block was replaced say nothing about it. */
XP_TEST(a_block_does_not_join_a_batch_that_waits)
{
	struct xp__block *first, *second;

	start();
	first = new_block();
	second = new_block();
	inside[0] = true;
	xp__reclaim_retire(&readers, first);
	xp__reclaim(); /* finds shard 1 empty */
	inside[1] = true;
	xp__reclaim_retire(&readers, second);
	inside[0] = false;
	xp__reclaim();
	CHECK(is_free(first));
	CHECK_EQ(xp__reclaim_take(SIZE) == first, true);
	CHECK(!is_free(second));
	inside[1] = false;
	xp__reclaim();
	CHECK(is_free(second));
	xp__reclaim_give(first, SIZE);
	stop();
}

XP_TEST(each_batch_waits_for_all)
{
	start();
	for (int i = 0; i < 3; i++) {
		struct xp__block *block = new_block();

		inside[7] = true;
		xp__reclaim_retire(&readers, block);
		xp__reclaim();
		CHECK(!is_free(block));
		inside[7] = false;
		xp__reclaim();
		CHECK(is_free(block));
	}
	stop();
}

/* Handlers of traced functions may run as long as they like: where memory is little no commit waits for them. */
XP_TEST(only_brief_readers_are_awaited)
{
	struct xp__block *block;

	start();
	block = new_block();
	inside[0] = true;
	xp__reclaim_retire(&readers, block);
	rec_port.bounded = true;
	rec_fail(REC_ALLOC, 1, 1000, -ENOMEM);
	CHECK(xp__reclaim_port(12345) == NULL);
	CHECK_EQ(xp_memory_needed(), 12345);
	rec_heal();
	rec_port.bounded = false;
	stop();
}

/* ---- blocks ---- */

/* Each size up to twice the largest small one: zeroed, apart from each other, and the same memory again. */
XP_TEST(small_blocks)
{
	enum { LARGEST = 4096 };
	unsigned char *block[2];

	start();
	for (size_t size = 1; size <= LARGEST; size += size < 80 ? 1 : 61) {
		for (unsigned turn = 0; turn < 2; turn++) {
			for (unsigned i = 0; i < 2; i++) {
				block[i] = xp__reclaim_take(size);
				REQUIRE(block[i]);
				CHECK((uintptr_t)block[i] % 16 == 0);
				for (size_t at = 0; at < size; at++)
					CHECK(block[i][at] == 0);
			}
			memset(block[0], 1, size);
			memset(block[1], 2, size);
			CHECK(block[0][size - 1] == 1 && block[1][0] == 2 && block[0][0] == 1);
			xp__reclaim_give(block[0], size);
			xp__reclaim_give(block[1], size);
		}
	}
	rec_forget();
	for (size_t size = 1; size <= 2048; size++)
		xp__reclaim_give(xp__reclaim_take(size), size);
	CHECK_EQ(rec.calls[REC_ALLOC], 0);
	stop();
}

/* Where memory is bounded a whole block may be small, and goes back to the port nevertheless. */
XP_TEST(whole_blocks)
{
	size_t live;

	start();
	xp__reclaim_trim();
	rec_port.bounded = true;
	live = rec.live;
	for (size_t size = 64; size < 8192; size *= 2) {
		struct xp__block *block = xp__reclaim_whole(size);

		REQUIRE(block);
		CHECK_EQ(block->size, size);
		CHECK(block->whole);
		xp__reclaim_retire(&readers, block);
		xp__reclaim();
		CHECK(xp__reclaim_whole(size / 2) == block);
		xp__reclaim_keep(block);
	}
	xp__reclaim_trim();
	CHECK_EQ(rec.live, live);
	rec_port.bounded = false;
	stop();
}

XP_TEST_MAIN()
