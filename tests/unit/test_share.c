// SPDX-License-Identifier: MIT
/*
 * Threads that change something at the same time (core/share.c), over a port that records: while one waits, the next one runs
 * inside of its wait.
 */
#include "recorder.h"
#include "xp_test.h"

#include <crosspatch/imv.h>
#include <errno.h>
#include <setjmp.h>

enum { KEYS = 3, AT = 0x40, STEP = 0x40, TARGET = 0x2000, RAW = 0x800, SLOTS = 8 * sizeof(long) };

static struct xp_static_key keys[KEYS];
static struct xp_branch_site records[KEYS];
static struct xp_module module;
static int results[SLOTS + 4];
static struct xp_diag diag;
static const uint8_t mov[3][5] = {{0xb8, 0}, {0xb8, 1}, {0xb8, 2}};

static void start(void)
{
	rec_start();
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = 1};
	for (size_t i = 0; i < KEYS; i++) {
		keys[i] = (struct xp_static_key){.object.name = "key"};
		rec_branch(&records[i], AT + i * STEP, TARGET, &keys[i], 0);
		results[i] = 1;
	}
	rec_put(RAW, mov[0], sizeof(mov[0]));
	module.tables[0] = (struct xp_site_table){records, records + KEYS};
	CHECK_EQ(xp_module_register(&module), 0);
	memset(&diag, 0x55, sizeof(diag));
	rec_forget();
}

static void end(void)
{
	CHECK(rec.busy == NULL);
	CHECK(!rec.locked);
	CHECK_EQ(xp_module_unregister(&module), 0);
	for (size_t i = 0; i < KEYS; i++)
		CHECK_EQ(keys[i].object.scratch, 0);
}

static void check_keys(const char *pattern)
{
	for (size_t i = 0; i < KEYS; i++) {
		CHECK_EQ(rec_text[AT + i * STEP], pattern[i] == '+' ? 0xe9 : 0xa9);
		CHECK_EQ(keys[i].count, pattern[i] == '+');
	}
}

static unsigned commits(void)
{
	return rec.calls[REC_PREPARE];
}

static void third(void)
{
	results[2] = xp_static_key_enable(&keys[2]);
}

static void second(void)
{
	rec.busy = third;
	results[1] = xp_static_key_enable(&keys[1]);
}

/* Key 0, while key 1 waits for key 2. */
static void first(void)
{
	rec.busy = second;
	results[0] = xp_static_key_enable(&keys[0]);
}

XP_TEST(three_threads_one_commit)
{
	start();
	first();
	for (int i = 0; i < KEYS; i++)
		CHECK_EQ(results[i], 0);
	check_keys("+++");
	CHECK_EQ(commits(), 1);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	CHECK_EQ(rec.calls[REC_LOCK], 1);
	CHECK_EQ(rec.told, 2);
	/* And not once more. */
	CHECK_EQ(xp_static_key_disable(&keys[1]), 0);
	check_keys("+-+");
	CHECK_EQ(commits(), 2);
	CHECK_EQ(rec.told, 2);
	end();
}

/* ---- one fails ---- */

static struct xp_poke poke_of(const uint8_t *old, const uint8_t *new)
{
	return (struct xp_poke){.addr = rec_text + RAW, .expect = old, .replace = new, .len = sizeof(mov[0])};
}

static void wrong_poke(void)
{
	struct xp_poke poke = poke_of(mov[1], mov[2]);

	rec.busy = third;
	results[1] = xp_text_poke(&poke, &diag);
	memset(&poke, 0xdd, sizeof(poke));
}

XP_TEST(one_fails_and_the_others_do_not)
{
	start();
	rec.busy = wrong_poke;
	results[0] = xp_static_key_enable(&keys[0]);
	CHECK_EQ(results[0], 0);
	CHECK_EQ(results[1], -XP_E_MISMATCH);
	CHECK_EQ(results[2], 0);
	check_keys("+-+");
	CHECK_EQ(diag.error, -XP_E_MISMATCH);
	CHECK(diag.site == rec_text + RAW);
	CHECK_EQ(diag.found[1], 0);
	end();
}

/* The leader's own. */
static void third_is_wrong(void)
{
	struct xp_poke poke = poke_of(mov[1], mov[2]);

	results[2] = xp_text_poke(&poke, &diag);
}

XP_TEST(the_leader_fails_and_the_others_do_not)
{
	start();
	rec.busy = third_is_wrong;
	results[0] = xp_static_key_enable(&keys[0]);
	CHECK_EQ(results[0], 0);
	CHECK_EQ(results[2], -XP_E_MISMATCH);
	CHECK_EQ(diag.error, -XP_E_MISMATCH);
	check_keys("+--");
	end();
}

XP_TEST(the_port_fails_once)
{
	static const enum rec_op ops[] = {REC_PREPARE, REC_WRITE, REC_SYNC};

	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		start();
		rec_fail(ops[i], 1, 1, -EIO);
		first();
		rec_heal();
		for (int k = 0; k < KEYS; k++)
			CHECK_EQ(results[k], 0);
		check_keys("+++");
		CHECK_EQ(commits(), 1 + KEYS);
		end();
	}
}

static void right_poke(void)
{
	struct xp_poke poke = poke_of(mov[0], mov[1]);

	results[1] = xp_text_poke(&poke, &diag);
}

/* Two of one place: the one succeeds, to the other, the leader's, the text is not what it expects. */
XP_TEST(two_pokes_of_one_site)
{
	struct xp_poke poke = poke_of(mov[0], mov[2]);

	start();
	rec.busy = right_poke;
	results[0] = xp_text_poke(&poke, NULL);
	CHECK_EQ(results[0], 0);
	CHECK_EQ(results[1], -XP_E_MISMATCH);
	CHECK_EQ(diag.error, -XP_E_MISMATCH);
	CHECK_EQ(rec_text[RAW + 1], 2);
	end();
}

static void wedge(const void *nothing)
{
	(void)nothing;
	start();
	rec_fail(REC_SYNC, 1, REC_FOREVER, -EIO);
	first();
	for (int i = 0; i < KEYS; i++)
		CHECK_EQ(results[i], -EIO);
	CHECK_EQ(xp_state(), XP_STATE_WEDGED);
	CHECK_EQ(commits(), 1);
	rec.busy = third;
	CHECK_EQ(xp_static_key_enable(&keys[0]), -XP_E_WEDGED);
	CHECK_EQ(results[2], -XP_E_WEDGED);
}

XP_TEST(the_end_of_the_engine)
{
	rec_isolated(wedge, NULL);
}

/* ---- one object ---- */

static void off_again(void)
{
	results[1] = xp_static_key_disable(&keys[0]);
}

static void off_and_a_third(void)
{
	rec.busy = third;
	off_again();
}

XP_TEST(two_changes_of_one_key)
{
	start();
	rec.busy = off_again;
	results[0] = xp_static_key_enable(&keys[0]);
	/* The leader's comes last, since it may have begun after the other one was left. */
	CHECK_EQ(results[0], 0);
	CHECK_EQ(results[1], 0);
	check_keys("---");
	CHECK_EQ(commits(), 2);
	rec.busy = off_and_a_third;
	results[0] = xp_static_key_enable(&keys[0]);
	check_keys("--+");
	CHECK_EQ(commits(), 4);
	end();
}

/* ---- a thread that no other one serves ---- */

static void nothing_happens(void) {}

XP_TEST(a_wait_in_vain)
{
	start();
	rec.busy = nothing_happens;
	rec_fail(REC_LOCK, 1, 1, -XP_E_HELD);
	CHECK_EQ(xp_static_key_enable(&keys[0]), -XP_E_HELD);
	rec_heal();
	CHECK_EQ(xp_static_key_enable(&keys[1]), 0);
	check_keys("-+-");
	end();
}

XP_TEST(no_other_comes)
{
	start();
	rec.busy = nothing_happens;
	CHECK_EQ(xp_static_key_enable(&keys[0]), 0);
	check_keys("+--");
	CHECK_EQ(commits(), 1);
	end();
}

static void unregister(void)
{
	static struct xp_module other;

	other = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = 1};
	CHECK_EQ(xp_module_register(&other), 0);
	CHECK_EQ(xp_module_unregister(&other), 0);
	results[1] = xp_static_key_enable(&keys[1]);
}

/* No request stays behind when a module goes: each thread that waits carries out its own. */
XP_TEST(a_module_goes)
{
	start();
	rec.busy = unregister;
	CHECK_EQ(xp_static_key_enable(&keys[0]), 0);
	check_keys("++-");
	CHECK_EQ(commits(), 2);
	end();
}

/* ---- a wait that is left by a jump ---- */

static jmp_buf out;

static void jump(void)
{
	longjmp(out, 1);
}

static int off_by_itself(void)
{
	return xp_static_key_disable(&keys[0]);
}

static int off_in_a_batch(void)
{
	struct xp_batch *batch = xp_batch_new();
	int error = xp_batch_add_key(batch, &keys[0], false);

	error = error ? error : xp_batch_commit(batch, NULL);
	xp_batch_free(batch);
	return error;
}

static int off_asynchronously(void)
{
	struct xp_ticket ticket;

	return xp_static_key_set_async(&keys[0], false, &ticket);
}

static int off_in_an_asynchronous_batch(void)
{
	struct xp_batch *batch = xp_batch_new();
	struct xp_ticket ticket;
	int error = xp_batch_add_key(batch, &keys[0], false);

	error = error ? error : xp_batch_commit_async(batch, &ticket, NULL);
	xp_batch_free(batch);
	return error;
}

static int off_by_counting(void)
{
	int error = xp_static_key_inc(&keys[0]);

	return error ? error : xp_static_key_dec(&keys[0]);
}

/* What was asked for there is not carried out after a later change. */
XP_TEST(a_wait_left_by_a_jump)
{
	static int (*const offs[])(void) = {off_by_itself, off_in_a_batch, off_asynchronously,
					    off_in_an_asynchronous_batch, off_by_counting};

	for (volatile size_t i = 0; i < sizeof(offs) / sizeof(offs[0]); i++) {
		start();
		if (setjmp(out) == 0) {
			rec.busy = jump;
			(void)xp_static_key_enable(&keys[0]);
			CHECK(false);
		}
		CHECK_EQ(offs[i](), 0);
		CHECK_EQ(keys[0].count, 0);
		CHECK_EQ(xp_static_key_enable(&keys[1]), 0);
		check_keys("-+-");
		end();
		xp_share_fork_child(); /* slots are whole again */
	}
}

static void commit_a_batch(void)
{
	results[1] = off_in_a_batch();
	rec.busy = third;
}

/* A thread that a batch sent away shares the next commit. */
XP_TEST(a_wait_ended_by_a_batch)
{
	start();
	rec.busy = commit_a_batch;
	CHECK_EQ(xp_static_key_enable(&keys[0]), 0);
	CHECK_EQ(results[1], 0);
	CHECK_EQ(results[2], 0);
	check_keys("+-+");
	CHECK_EQ(commits(), 1);
	end();
}

static void fork_and_commit(void)
{
	xp_share_fork_child();
	results[2] = xp_static_key_enable(&keys[2]);
	CHECK_EQ(keys[0].count, 0);
}

XP_TEST(the_child_of_a_fork)
{
	start();
	rec.busy = fork_and_commit;
	CHECK_EQ(xp_static_key_enable(&keys[0]), 0);
	check_keys("+-+");
	CHECK_EQ(commits(), 2);
	end();
}

static void commit_and_fork(void)
{
	results[2] = xp_static_key_enable(&keys[2]);
	xp_share_fork_child();
}

/* The handler that forks interrupted a wait whose end had come. */
XP_TEST(the_child_of_a_fork_after_the_change)
{
	struct xp_poke poke = poke_of(mov[0], mov[1]);

	start();
	rec.busy = commit_and_fork;
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
	CHECK_EQ(rec_text[RAW + 1], 1);
	check_keys("--+");
	CHECK_EQ(commits(), 1);
	end();
}

/* ---- more than there are slots ---- */

static unsigned depth;

static void one_more(void)
{
	unsigned n = depth++;

	if (n < SLOTS + 2)
		rec.busy = one_more;
	results[n] = xp_static_key_enable(&keys[n % KEYS]);
}

XP_TEST(more_threads_than_slots)
{
	start();
	for (int again = 0; again < 2; again++) {
		depth = 0;
		one_more();
		rec.busy = NULL; /* the one without a slot has not asked */
		CHECK_EQ(depth, SLOTS + 1);
		for (unsigned i = 0; i < depth; i++)
			CHECK_EQ(results[i], 0);
	}
	check_keys("+++");
	CHECK_EQ(xp_static_key_disable(&keys[0]), 0);
	check_keys("-++");
	end();
}

XP_TEST_MAIN()
