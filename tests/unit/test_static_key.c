// SPDX-License-Identifier: MIT
/* The counts of static keys and the registration of modules, over a port that records. */
#include "recorder.h"
#include "core/site.h"
#include "xp_test.h"

#include <crosspatch/imv.h>
#include <errno.h>

#define MAX_SITES 8
#define TARGET 0x2000u

/* A module of hand-made sites, 16 bytes apart. */
struct made {
	struct xp_module module;
	struct xp_branch_site records[MAX_SITES];
	size_t nr, offset;
};

static struct xp_static_key key_a, key_b, key_true;
static struct made one, two;

static void module_start(struct made *made, size_t offset)
{
	memset(made, 0, sizeof(*made));
	made->offset = offset;
	made->module =
		(struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = 1, .tables = {{made->records, made->records}}};
}

static void module_add(struct made *made, struct xp_static_key *key, unsigned flags)
{
	rec_branch(&made->records[made->nr], made->offset + 16 * made->nr, TARGET, key, flags);
	made->nr++;
	made->module.tables[0].end = made->records + made->nr;
}

/* Record @to becomes one of the site of record @from. */
static void copy_record(struct made *made, size_t to, size_t from)
{
	int32_t distance = ((int32_t)from - (int32_t)to) * (int32_t)sizeof(made->records[0]);

	made->records[to] = made->records[from];
	made->records[to].code += distance;
	made->records[to].target += distance;
	made->records[to].key += distance;
}

static bool jumps(const struct made *made, size_t i)
{
	return rec_text[made->offset + 16 * i] == 0xe9;
}

/* @pattern: one letter per site, j for jump, t for test. */
static void check_sites(const struct made *made, const char *pattern)
{
	char found[MAX_SITES + 1] = "";

	for (size_t i = 0; i < made->nr; i++)
		found[i] = jumps(made, i) ? 'j' : 't';
	CHECK_STR(found, pattern);
}

/* Keys a and b are off, key_true is on; module one: a, likely a, b, true, likely true, not registered. */
static void start(void)
{
	rec_start();
	key_a = (struct xp_static_key){.object = {.name = "a"}};
	key_b = (struct xp_static_key){.object = {.name = "b"}};
	key_true = (struct xp_static_key){.object = {.name = "true"}, .count = 1};
	module_start(&one, 0x40);
	module_add(&one, &key_a, 0);
	module_add(&one, &key_a, XP_SITE_LIKELY);
	module_add(&one, &key_b, 0);
	module_add(&one, &key_true, XP_SITE_TRUE);
	module_add(&one, &key_true, XP_SITE_TRUE | XP_SITE_LIKELY);
	module_start(&two, 0x1040);
	check_sites(&one, "tjtjt");
}

static void start_registered(void)
{
	start();
	CHECK_EQ(xp_module_register(&one.module), 0);
	check_sites(&one, "tjtjt");
	rec_forget();
}

static void end(void)
{
	CHECK_EQ(xp_module_unregister(&one.module), 0);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	CHECK(key_a.object.groups == NULL && key_b.object.groups == NULL && key_true.object.groups == NULL);
	CHECK_EQ(key_a.object.scratch + key_b.object.scratch + key_true.object.scratch, 0);
}

static unsigned commits(void)
{
	return rec.calls[REC_PREPARE];
}

/* ---- registration before there is a port; the first case, for the port stays ---- */

static void register_early(const void *nothing)
{
	(void)nothing;
	key_a = (struct xp_static_key){.object = {.name = "a"}, .count = 1}; /* switched before main, as it were */
	module_start(&one, 0x40);
	module_start(&two, 0x1040);
	rec.can = ~0u;
	module_add(&one, &key_a, 0);
	module_add(&two, &key_a, 0);
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(xp_module_register(&one.module), 0); /* twice */
	CHECK_EQ(xp_module_register(&two.module), 0);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	check_sites(&one, "t");
	CHECK_EQ(xp_static_key_inc(&key_a), -XP_E_NOT_READY);
	CHECK_EQ(xp_static_key_enable(&key_a), -XP_E_NOT_READY);
	CHECK_EQ(xp_port_set(&rec_port), 0);
	check_sites(&one, "j");
	check_sites(&two, "t");
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	check_sites(&one, "t");
	CHECK_EQ(xp_module_unregister(&one.module), 0);
}

XP_TEST(modules_wait_for_the_port)
{
	rec_isolated(register_early, NULL);
}

/* ---- on and off ---- */

XP_TEST(enable_and_disable)
{
	start_registered();
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	check_sites(&one, "jttjt");
	CHECK_EQ(key_a.count, 1);
	CHECK_EQ(commits(), 1);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	check_sites(&one, "tjtjt");
	CHECK_EQ(key_a.count, 0);
	CHECK_EQ(xp_static_key_disable(&key_true), 0);
	check_sites(&one, "tjttj");
	CHECK_EQ(xp_static_key_enable(&key_true), 0);
	check_sites(&one, "tjtjt");
	end();
}

XP_TEST(what_is_so_already_costs_no_commit)
{
	start_registered();
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	CHECK_EQ(xp_static_key_enable(&key_true), 0);
	CHECK_EQ(commits(), 0);
	CHECK_EQ(key_a.count, 0);
	CHECK_EQ(key_true.count, 1);
	end();
}

XP_TEST(a_key_without_sites)
{
	struct xp_static_key lonely = {.object = {.name = "lonely"}};

	rec_start();
	CHECK_EQ(xp_static_key_enable(&lonely), 0);
	CHECK_EQ(lonely.count, 1);
	CHECK_EQ(xp_static_key_inc(&lonely), 0);
	CHECK_EQ(xp_static_key_dec(&lonely), 0);
	CHECK_EQ(xp_static_key_dec(&lonely), 0);
	CHECK_EQ(lonely.count, 0);
	CHECK_EQ(commits(), 0);
}

/* ---- counts ---- */

XP_TEST(counted)
{
	start_registered();
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	check_sites(&one, "jttjt");
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	CHECK_EQ(key_a.count, 3);
	CHECK_EQ(commits(), 1);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(commits(), 1);
	check_sites(&one, "jttjt");
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(key_a.count, 0);
	CHECK_EQ(commits(), 2);
	check_sites(&one, "tjtjt");
	end();
}

/* What is on from the start, or was enabled, counts as one. */
XP_TEST(enabled_counts_as_one)
{
	start_registered();
	CHECK_EQ(xp_static_key_inc(&key_true), 0);
	CHECK_EQ(key_true.count, 2);
	CHECK_EQ(xp_static_key_dec(&key_true), 0);
	CHECK_EQ(xp_static_key_dec(&key_true), 0);
	check_sites(&one, "tjttj");
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	check_sites(&one, "tjttj");
	end();
}

XP_TEST(underflow)
{
	start_registered();
	CHECK_EQ(xp_static_key_dec(&key_a), -XP_E_UNDERFLOW);
	CHECK_EQ(key_a.count, 0);
	CHECK_EQ(commits(), 0);
	CHECK_EQ(xp_static_key_inc(&key_a), 0); /* no harm was done */
	CHECK_EQ(key_a.count, 1);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(xp_static_key_dec(&key_a), -XP_E_UNDERFLOW);
	end();
}

XP_TEST(overflow)
{
	start_registered();
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	key_a.count = INT32_MAX - 1;
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	CHECK_EQ(key_a.count, INT32_MAX);
	CHECK_EQ(xp_static_key_inc(&key_a), -XP_E_OVERFLOW);
	CHECK_EQ(key_a.count, INT32_MAX);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(key_a.count, INT32_MAX - 1);
	end();
}

XP_TEST(the_two_ways_do_not_mix)
{
	start_registered();
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	CHECK_EQ(xp_static_key_enable(&key_a), -XP_E_COUNTED);
	CHECK_EQ(xp_static_key_disable(&key_a), -XP_E_COUNTED);
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	CHECK_EQ(xp_static_key_enable(&key_a), -XP_E_COUNTED);
	CHECK_EQ(xp_static_key_disable(&key_a), -XP_E_COUNTED);
	CHECK_EQ(key_a.count, 2);
	check_sites(&one, "jttjt");
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(xp_static_key_disable(&key_a), -XP_E_COUNTED);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	/* No count holds it any more: enable again, and disable. */
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	/* Enabled, then held once more: disable would take it from the holder. */
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	CHECK_EQ(xp_static_key_disable(&key_a), -XP_E_COUNTED);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	end();
}

/* ---- what others may see while it happens ---- */

static int count_seen[REC_NR_OPS];

static void note_count(const struct rec_step *step)
{
	count_seen[step->op] = xp__static_key_count(&key_a);
}

static void watch_counts(void)
{
	memset(count_seen, 0x55, sizeof(count_seen));
	rec.step = note_count;
}

XP_TEST(on_is_told_after_the_last_sync)
{
	start_registered();
	watch_counts();
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	CHECK_EQ(count_seen[REC_WRITE], 0);
	CHECK_EQ(count_seen[REC_SYNC], 0);
	CHECK_EQ(count_seen[REC_UNLOCK], 1);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	watch_counts();
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	CHECK_EQ(count_seen[REC_WRITE], 0);
	CHECK_EQ(count_seen[REC_SYNC], 0);
	CHECK_EQ(count_seen[REC_UNLOCK], 1);
	rec.step = NULL;
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	end();
}

XP_TEST(off_is_told_before_the_first_store)
{
	start_registered();
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	watch_counts();
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(count_seen[REC_PREPARE], -1);
	CHECK_EQ(count_seen[REC_SYNC], -1);
	CHECK_EQ(count_seen[REC_UNLOCK], 0);
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	watch_counts();
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	CHECK_EQ(count_seen[REC_PREPARE], -1);
	CHECK_EQ(count_seen[REC_SYNC], -1);
	CHECK_EQ(count_seen[REC_UNLOCK], 0);
	rec.step = NULL;
	end();
}

/* An inc that comes while the key goes off may not slip in without the lock; here the lock is held: refused. */
static int inc_result;

static void inc_meanwhile(const struct rec_step *step)
{
	if (step->op == REC_WRITE)
		inc_result = xp_static_key_inc(&key_a);
}

XP_TEST(an_inc_waits_for_a_dec)
{
	start_registered();
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	rec.step = inc_meanwhile;
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(inc_result, -XP_E_REENTRANT);
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	CHECK_EQ(inc_result, -XP_E_REENTRANT); /* nor may it join one that goes on */
	rec.step = NULL;
	CHECK_EQ(key_a.count, 1);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	end();
}

/* An inc that comes after dec found the count at one, but before it has the lock: nothing is switched off. */
static void inc_at_lock(const struct rec_step *step)
{
	if (step->op != REC_LOCK)
		return;
	rec.step = NULL;
	inc_result = xp_static_key_inc(&key_a);
}

XP_TEST(an_inc_before_the_lock_of_a_dec)
{
	start_registered();
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	rec_forget();
	rec.step = inc_at_lock;
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(inc_result, 0);
	CHECK_EQ(key_a.count, 1);
	CHECK_EQ(commits(), 0);
	check_sites(&one, "jttjt");
	rec.step = inc_at_lock;
	CHECK_EQ(xp_static_key_disable(&key_a), -XP_E_COUNTED);
	CHECK_EQ(key_a.count, 2);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	end();
}

/* ---- failure ---- */

typedef int change_fn(struct xp_static_key *key);

static void fails(change_fn *change, struct xp_static_key *key, enum rec_op op)
{
	int count = key->count;
	uint32_t flags = key->object.flags;
	uint8_t before[0x100];

	memcpy(before, rec_text, sizeof(before));
	rec_forget();
	rec_fail(op, 1, 1, -EIO);
	CHECK_EQ(change(key), -EIO);
	CHECK_EQ(rec.fault[0].hits, 1);
	rec_heal();
	CHECK_EQ(key->count, count);
	CHECK_EQ(key->object.flags, flags);
	CHECK_MEM(rec_text, before, sizeof(before));
	CHECK_EQ(change(key), 0); /* and now it goes */
}

XP_TEST(after_a_failure_all_is_as_before)
{
	static const enum rec_op ops[] = {REC_LOCK, REC_PREPARE, REC_WRITE, REC_SYNC};

	start_registered();
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		fails(xp_static_key_enable, &key_a, ops[i]);
		fails(xp_static_key_disable, &key_a, ops[i]);
		fails(xp_static_key_inc, &key_a, ops[i]);
		fails(xp_static_key_dec, &key_a, ops[i]);
	}
	end();
}

XP_TEST(corrupt_text_is_named)
{
	struct xp_batch *batch;
	struct xp_diag diag;

	start_registered();
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_add_key(batch, &key_a, true), 0);
	rec_text[one.offset + 16 + 2] ^= 1; /* the second site's displacement */
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_MISMATCH);
	CHECK(diag.site == rec_text + one.offset + 16);
	CHECK_STR(diag.key, "a");
	CHECK_EQ(diag.len, 5);
	CHECK_EQ(diag.expected[2] ^ diag.found[2], 1);
	CHECK_EQ(xp_static_key_enable(&key_a), -XP_E_MISMATCH);
	rec_text[one.offset + 16 + 2] ^= 1;
	rec_text[one.offset] = 0xcc; /* a debugger at the first */
	CHECK_EQ(xp_batch_commit(batch, &diag), -EBUSY);
	CHECK(diag.site == rec_text + one.offset);
	rec_text[one.offset] = 0xe9; /* another program was faster */
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_DRIFTED);
	rec_text[one.offset] = 0xa9;
	CHECK_EQ(key_a.count, 0);
	check_sites(&one, "tjtjt");
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	check_sites(&one, "jttjt");
	xp_batch_free(batch);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	end();
}

/* In whichever of several modules it is. */
XP_TEST(one_corrupt_site_refuses_the_change)
{
	struct made *const modules[] = {&one, &two};

	for (unsigned m = 0; m < 2; m++) {
		start();
		module_add(&two, &key_a, 0);
		CHECK_EQ(xp_module_register(&one.module), 0);
		CHECK_EQ(xp_module_register(&two.module), 0);
		rec_forget();
		rec_text[modules[m]->offset + 2] ^= 1;
		CHECK_EQ(xp_static_key_enable(&key_a), -XP_E_MISMATCH);
		CHECK_EQ(key_a.count, 0);
		CHECK_EQ(rec.calls[REC_WRITE], 0);
		rec_text[modules[m]->offset + 2] ^= 1;
		check_sites(&one, "tjtjt");
		check_sites(&two, "t");
		end();
	}
}

/* ---- batches ---- */

/* Adds wishes as "a+ b- t+": key, on or off. */
static struct xp_batch *wishes(const char *text)
{
	struct xp_batch *batch = xp_batch_new();

	for (; batch && *text; text += text[2] ? 3 : 2) {
		struct xp_static_key *key = *text == 'a' ? &key_a : *text == 'b' ? &key_b : &key_true;

		CHECK_EQ(xp_batch_add_key(batch, key, text[1] == '+'), 0);
	}
	return batch;
}

static void check_counts(int a, int b, int t)
{
	CHECK_EQ(key_a.count, a);
	CHECK_EQ(key_b.count, b);
	CHECK_EQ(key_true.count, t);
}

XP_TEST(a_batch_of_keys)
{
	struct xp_batch *batch;

	start_registered();
	batch = wishes("a+ b+ t-");
	REQUIRE(batch != NULL);
	rec_forget();
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	check_counts(1, 1, 0);
	check_sites(&one, "jtjtj");
	CHECK_EQ(commits(), 1);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	xp_batch_free(batch);
	batch = wishes("t+ b- a-");
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	check_counts(0, 0, 1);
	check_sites(&one, "tjtjt");
	xp_batch_free(batch);
	end();
}

XP_TEST(the_last_wish_counts)
{
	struct xp_batch *batch;

	start_registered();
	batch = wishes("a+ b+ a- a+ b-");
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	check_counts(1, 0, 1);
	check_sites(&one, "jttjt");
	xp_batch_free(batch);
	batch = wishes("a- a+ t- t+");
	REQUIRE(batch != NULL);
	rec_forget();
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	CHECK_EQ(commits(), 0);
	check_counts(1, 0, 1);
	xp_batch_free(batch);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	end();
}

XP_TEST(a_counted_key_refuses_the_batch)
{
	struct xp_batch *batch;
	struct xp_diag diag;

	start_registered();
	CHECK_EQ(xp_static_key_inc(&key_b), 0);
	batch = wishes("a+ t- b-");
	REQUIRE(batch != NULL);
	rec_forget();
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_COUNTED);
	CHECK_EQ(diag.phase, XP_PHASE_VALIDATE);
	CHECK_STR(diag.key, "b");
	CHECK_EQ(commits(), 0);
	check_counts(0, 1, 1); /* t was on its way off and came back */
	check_sites(&one, "tjjjt");
	CHECK_EQ(xp_static_key_dec(&key_b), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0); /* the batch was kept */
	check_counts(1, 0, 0);
	xp_batch_free(batch);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	end();
}

XP_TEST(a_failed_batch_gives_the_counts_back)
{
	struct xp_batch *batch;

	start_registered();
	batch = wishes("a+ t- b-");
	REQUIRE(batch != NULL);
	rec_forget();
	rec_fail(REC_SYNC, 1, 1, -EIO);
	CHECK_EQ(xp_batch_commit(batch, NULL), -EIO);
	rec_heal();
	check_counts(0, 0, 1);
	check_sites(&one, "tjtjt");
	CHECK_EQ(xp_static_key_inc(&key_true), 0); /* not stuck on its way */
	CHECK_EQ(xp_static_key_dec(&key_true), 0);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	check_counts(1, 0, 0);
	xp_batch_free(batch);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	end();
}

/* ---- shared keys ---- */

XP_TEST(a_handle_stands_for_its_key)
{
	static struct xp_static_key handle; /* in reach of a record */
	struct xp_batch *batch;

	start_registered();
	handle = (struct xp_static_key){.object = {.real = &key_b.object, .name = "handle"}, .count = 77};
	module_add(&two, &handle, 0);
	CHECK_EQ(xp_module_register(&two.module), 0);
	CHECK_EQ(xp_static_key_enable(&handle), 0);
	check_sites(&one, "tjjjt");
	check_sites(&two, "j");
	CHECK_EQ(key_b.count, 1);
	CHECK_EQ(xp__static_key_count(&handle), 1);
	CHECK_EQ(xp_static_key_disable(&key_b), 0);
	check_sites(&two, "t");
	CHECK_EQ(xp_static_key_inc(&handle), 0);
	CHECK_EQ(xp_static_key_inc(&key_b), 0);
	CHECK_EQ(key_b.count, 2);
	CHECK_EQ(xp_static_key_dec(&handle), 0);
	CHECK_EQ(xp_static_key_dec(&handle), 0);
	check_sites(&two, "t");
	/* Key and handle in one batch are one key. */
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_add_key(batch, &handle, true), 0);
	CHECK_EQ(xp_batch_add_key(batch, &key_b, false), 0);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	CHECK_EQ(key_b.count, 0);
	xp_batch_free(batch);
	CHECK_EQ(handle.count, 77);
	end();
}

/* ---- modules ---- */

XP_TEST(a_module_that_comes_late_is_brought_up)
{
	start_registered();
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	CHECK_EQ(xp_static_key_disable(&key_true), 0);
	module_add(&two, &key_true, XP_SITE_TRUE);
	module_add(&two, &key_a, 0);
	module_add(&two, &key_a, XP_SITE_LIKELY);
	module_add(&two, &key_b, 0);
	check_sites(&two, "jtjt");
	CHECK_EQ(xp_module_register(&two.module), 0);
	check_sites(&two, "tjtt");
	/* From now on all move together. */
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	check_sites(&one, "tjttj");
	check_sites(&two, "ttjt");
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	rec_forget();
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	check_sites(&two, "ttjt");
	CHECK_EQ(xp_module_register(&two.module), 0);
	check_sites(&two, "tjtt");
	end();
}

/* Its text is as it was left, not as it was built. */
XP_TEST(a_module_that_comes_back)
{
	start_registered();
	module_add(&two, &key_a, 0);
	module_add(&two, &key_b, 0);
	CHECK_EQ(xp_module_register(&two.module), 0);
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	CHECK_EQ(xp_static_key_enable(&key_b), 0);
	check_sites(&two, "jt");
	CHECK_EQ(xp_module_register(&two.module), 0);
	check_sites(&two, "tj");
	CHECK_EQ(xp_static_key_disable(&key_b), 0);
	check_sites(&two, "tt");
	end();
}

XP_TEST(registration_is_idempotent)
{
	start_registered();
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	check_sites(&one, "jttjt");
	CHECK_EQ(xp_module_unregister(&one.module), 0);
	CHECK_EQ(xp_module_unregister(&one.module), 0);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	check_sites(&one, "jttjt"); /* it is not registered */
	end();
}

static int note(const struct xp__group *uses, void *notes)
{
	size_t len = strlen(notes), nr = 0;

	for (const struct xp__group *use = uses; use; use = use->next)
		nr += use->nr;
	snprintf((char *)notes + len, 64 - len, "%s%zu ", uses->object->name, nr);
	return nr > 2;
}

static const char *listed(void)
{
	static char notes[64];

	int result;

	notes[0] = '\0';
	result = xp__objects_each(note, notes);
	CHECK_EQ(result, strchr(notes, '3') != NULL);
	return notes;
}

/* Each object once, with its sites of all modules; while their module is there. */
XP_TEST(objects_are_listed)
{
	start();
	CHECK_STR(listed(), "");
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_STR(listed(), "a2 b1 true2 ");
	module_add(&two, &key_b, 0);
	CHECK_EQ(xp_module_register(&two.module), 0);
	CHECK_STR(listed(), "b2 a2 true2 ");
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	CHECK_STR(listed(), "a2 b1 true2 ");
	module_start(&two, 0x1040);
	module_add(&two, &key_a, 0);
	CHECK_EQ(xp_module_register(&two.module), 0);
	CHECK_STR(listed(), "a3 "); /* until told to end */
	end();
	CHECK_STR(listed(), "");
}

XP_TEST(an_empty_module)
{
	start();
	one.module.tables[0].start = one.module.tables[0].end = NULL;
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(xp_module_register(&one.module), 0);
	end();
}

/* A registration that fails leaves nothing behind: not the key's uses, not the text, not memory. */
static void check_not_registered(int error)
{
	size_t live = rec.live;

	CHECK_EQ(xp_module_register(&two.module), error);
	CHECK_EQ(xp_module_error(), error);
	CHECK(key_b.object.groups == NULL);
	CHECK(key_true.object.groups == NULL);
	CHECK_EQ(key_a.object.scratch + key_b.object.scratch + key_true.object.scratch, 0);
	CHECK(rec.live <= live + 2); /* the span buffer and a commit may be kept */
}

static void start_failing(void)
{
	start();
	key_b.count = 1;
	module_add(&two, &key_b, 0);
	module_add(&two, &key_true, XP_SITE_TRUE);
	module_add(&two, &key_b, XP_SITE_LIKELY);
	check_sites(&two, "tjj");
}

XP_TEST(a_failed_registration)
{
	static const enum rec_op ops[] = {REC_PREPARE, REC_WRITE, REC_SYNC};

	start_failing();
	for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		rec_forget();
		rec_fail(ops[i], 1, 1, -EIO);
		check_not_registered(-EIO);
		check_sites(&two, "tjj");
		rec_heal();
	}
	rec_forget();
	rec_fail(REC_ALLOC, 1, REC_FOREVER, -ENOMEM);
	check_not_registered(-ENOMEM);
	rec_heal();
	CHECK_EQ(xp_module_register(&two.module), 0);
	check_sites(&two, "jjt");
	end();
}

XP_TEST(a_corrupt_module)
{
	start_failing();
	rec_text[two.offset + 3] ^= 0x40;
	check_not_registered(-XP_E_MISMATCH);
	rec_text[two.offset + 3] ^= 0x40;
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	two.module.abi = XP_MODULE_ABI + 1;
	check_not_registered(-XP_E_CORRUPT);
	check_not_registered(-XP_E_CORRUPT);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	CHECK_EQ(xp_module_error(), 0);
	two.module.abi = XP_MODULE_ABI;
	/* Emptied: its key would be the record itself, which cannot be written. */
	two.records[1].key = 0;
	check_not_registered(-XP_E_CORRUPT);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	/* The same site for two keys. */
	copy_record(&two, 1, 0);
	two.records[1].key += (int32_t)((intptr_t)&key_true - (intptr_t)&key_b);
	check_not_registered(-XP_E_CORRUPT);
	end();
}

/*
 * A linker folded identical functions, whose records stay: the site counts once. In any order, and where another record of
 * the same site says something else the module is refused.
 */
XP_TEST(folded_functions)
{
	static const size_t from[][2] = {{0, 2}, {2, 0}, {1, 3}, {3, 1}, {1, 0}};

	for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
		size_t live;

		start();
		module_add(&two, &key_b, 0);
		module_add(&two, &key_b, XP_SITE_LIKELY);
		module_add(&two, &key_b, 0);
		module_add(&two, &key_b, XP_SITE_LIKELY);
		copy_record(&two, from[i][0], from[i][1]);
		live = rec.live;
		CHECK_EQ(xp_module_register(&two.module), 0);
		CHECK(key_b.object.groups && key_b.object.groups->nr == 3);
		CHECK_EQ(rec.live, live + 1); /* no memory stays but that of the module */
		CHECK_EQ(xp_static_key_enable(&key_b), 0);
		CHECK_EQ(jumps(&two, from[i][1]), from[i][1] % 2 == 0);
		CHECK_EQ(xp_static_key_disable(&key_b), 0);
		CHECK_EQ(jumps(&two, from[i][1]), from[i][1] % 2);
		CHECK_EQ(xp_module_unregister(&two.module), 0);
		/* One of them begins to say that the block is in line. */
		two.records[from[i][0]].key ^= XP_SITE_LIKELY;
		CHECK_EQ(xp_module_register(&two.module), -XP_E_CORRUPT);
		CHECK(key_b.object.groups == NULL);
		end();
	}
}

/* ---- modules with the same tables, and the end ---- */

/* One has been registered; the others have the same tables. They count as one until the last goes. */
XP_TEST(the_same_tables_twice)
{
	struct xp_module again, third;
	size_t live;

	start_registered();
	again = third = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = 1, .tables = {one.module.tables[0]}};
	live = rec.live;
	CHECK_EQ(xp_module_register(&again), 0);
	CHECK_EQ(rec.live, live);
	CHECK_EQ(xp_module_register(&third), 0);
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	check_sites(&one, "jttjt");
	CHECK_EQ(xp_module_unregister(&one.module), 0);
	CHECK_EQ(xp_module_unregister(&third), 0);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	check_sites(&one, "tjtjt");
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(xp_module_unregister(&again), 0);
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	check_sites(&one, "jttjt");
	CHECK_EQ(xp_module_unregister(&one.module), 0);
	CHECK(key_a.object.groups == NULL);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	check_sites(&one, "jttjt");
	end();
}

/* Whose sites would they be? */
XP_TEST(tables_that_overlap)
{
	static struct xp_imv elsewhere = {.object = {.name = "elsewhere"}};
	static struct xp_imv_site value;
	struct xp_diag diag;
	struct xp_batch *batch;
	struct xp_module part;

	value.imv = (int32_t)((intptr_t)&elsewhere - (intptr_t)&value.imv);
	start_registered();
	part = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = 1, .tables = {{one.records + 1, one.records + 3}}};
	CHECK_EQ(xp_module_register(&part), -XP_E_CORRUPT);
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_add_key(batch, &key_a, true), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_CORRUPT);
	CHECK_STR(diag.detail, "its tables are in part those of another module");
	CHECK_EQ(xp_module_unregister(&part), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	xp_batch_free(batch);
	/* The same table and another one that the first has not. */
	part = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_SITE_GATE, .tables = {one.module.tables[0]}};
	part.tables[XP_SITE_IMV] = (struct xp_site_table){&value, &value + 1};
	CHECK_EQ(xp_module_register(&part), -XP_E_CORRUPT);
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_add_key(batch, &key_a, false), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_CORRUPT);
	CHECK_STR(diag.detail, "its tables are in part those of another module");
	CHECK_EQ(xp_module_unregister(&part), 0);
	xp_batch_free(batch);
	end();
}

static bool lasting;
static const void *pinned, *unpinned;

static bool lasts(const void *module, bool arrives)
{
	(void)arrives;
	return lasting && module == &one.module;
}

static void *pin(const void *target, const void *user)
{
	(void)user;
	pinned = target;
	return target == &one.module ? NULL : &lasting;
}

static void unpin(void *pin)
{
	unpinned = pin;
}

/* Module one is the executable's, module two a shared object's. */
static void ends(const void *nothing)
{
	static struct made three;

	(void)nothing;
	start_registered();
	rec_port.lasts = lasts;
	rec_port.pin = pin;
	rec_port.unpin = unpin;
	lasting = true;
	module_add(&two, &key_a, 0);
	CHECK_EQ(xp_module_register(&two.module), 0);
	CHECK_EQ(xp_module_exit(&one.module), 0);
	CHECK_EQ(xp_module_exit(&two.module), 0); /* is closed */
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	check_sites(&one, "jttjt");
	check_sites(&two, "t");
	CHECK_EQ(xp_module_register(&two.module), 0);
	xp_modules_keep();
	CHECK(pinned == &one.module);
	CHECK_EQ(xp_module_exit(&two.module), 0); /* is closed, and stays */
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	check_sites(&one, "tjtjt");
	check_sites(&two, "t");
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	check_sites(&two, "j");
	/* What comes later is kept, too; by hand all is unregistered. */
	module_start(&three, 0x2040);
	module_add(&three, &key_a, 0);
	CHECK_EQ(xp_module_register(&three.module), 0);
	CHECK(pinned == &three.module);
	CHECK_EQ(xp_module_unregister(&three.module), 0);
	CHECK(unpinned == NULL);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	CHECK_EQ(xp_module_unregister(&one.module), 0);
	CHECK(key_a.object.groups == NULL);
}

XP_TEST(the_end_forgets_nothing)
{
	rec_isolated(ends, NULL);
}

/* ---- modules that were refused ---- */

/* Module two is refused with @error, once or for ever; module one is registered. */
static void start_refused(unsigned times, int error)
{
	start_failing();
	CHECK_EQ(xp_module_register(&one.module), 0);
	rec_forget();
	rec_fail(REC_PREPARE, 1, times, error);
	CHECK_EQ(xp_module_register(&two.module), error);
	check_sites(&two, "tjj");
}

static void end_refused(void)
{
	rec_heal();
	end();
	CHECK_EQ(xp_module_error(), 0);
}

XP_TEST(a_refused_module_is_tried_again_at_any_change)
{
	struct xp_poke poke = {.addr = rec_text + 0x3000,
			       .expect = "\x90",
			       .replace = "\xcc",
			       .len = 1,
			       .resume = XP_RESUME_AT,
			       .resume_at = rec_text};

	start_refused(1, -EIO);
	CHECK_EQ(xp_static_key_disable(&key_a), 0); /* it is off */
	check_sites(&two, "jjt");
	CHECK_EQ(xp_module_error(), 0);
	CHECK_EQ(xp_static_key_disable(&key_b), 0);
	check_sites(&two, "tjj");
	end_refused();

	start_refused(1, -EIO);
	rec_text[0x3000] = 0x91;
	CHECK_EQ(xp_text_poke(&poke, NULL), -XP_E_MISMATCH);
	check_sites(&two, "jjt");
	end_refused();

	start_refused(1, -EIO);
	key_b.count = 2;
	CHECK_EQ(xp_static_key_dec(&key_b), 0); /* without the lock, were all registered */
	check_sites(&two, "jjt");
	end_refused();
}

XP_TEST(a_refused_module_is_tried_again_when_another_comes)
{
	static struct made three;

	start_refused(1, -EIO);
	module_start(&three, 0x2040);
	module_add(&three, &key_a, 0);
	CHECK_EQ(xp_module_register(&three.module), 0);
	check_sites(&two, "jjt");
	CHECK_EQ(xp_module_unregister(&three.module), 0);
	end_refused();
}

/* Until it is registered no change of a key that it has sites of succeeds, whatever there would be to do. */
XP_TEST(what_a_refused_module_refers_to_is_not_changed)
{
	static change_fn *const changes[] = {xp_static_key_enable, xp_static_key_disable, xp_static_key_inc,
					     xp_static_key_dec};
	struct xp__deferred late = {.delay_ms = 100};
	struct xp_batch *batch;
	struct xp_diag diag;

	start_refused(REC_FOREVER, -EIO);
	for (int count = 1; count < 3; count++)
		for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
			key_b.count = count;
			CHECK_EQ(changes[i](&key_b), -EIO);
			CHECK_EQ(key_b.count, count);
		}
	CHECK_EQ(xp__static_key_dec_deferred(&key_b, &late), -EIO);
	CHECK_EQ(late.pending, 0);
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_add_key(batch, &key_a, false), 0);
	CHECK_EQ(xp_batch_add_key(batch, &key_b, true), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), -EIO);
	CHECK_EQ(diag.error, -EIO);
	CHECK_EQ(diag.phase, XP_PHASE_PREPARE);
	CHECK(diag.detail != NULL);
	check_sites(&one, "tjjjt");
	check_sites(&two, "tjj");
	/* What it does not refer to is. */
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	CHECK_EQ(key_a.object.scratch + key_b.object.scratch + key_true.object.scratch, 0);
	rec_heal();
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	check_sites(&one, "jtjjt");
	check_sites(&two, "jjt");
	key_b.count = 1;
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	xp_batch_free(batch);
	end_refused();
}

XP_TEST(a_refused_module_that_goes)
{
	start_refused(REC_FOREVER, -EIO);
	CHECK_EQ(xp_module_error(), -EIO);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	CHECK_EQ(xp_module_error(), 0);
	rec_heal();
	CHECK_EQ(xp_static_key_disable(&key_b), 0);
	check_sites(&one, "tjtjt");
	check_sites(&two, "tjj");
	end_refused();
}

/* Each is tried, in whatever order they came, and each error belongs to its own. */
XP_TEST(several_refused_modules)
{
	static struct made three;

	start_failing();
	CHECK_EQ(xp_module_register(&one.module), 0);
	rec_text[two.offset + 3] ^= 0x40;
	CHECK_EQ(xp_module_register(&two.module), -XP_E_MISMATCH);
	module_start(&three, 0x2040);
	module_add(&three, &key_a, XP_SITE_LIKELY | XP_SITE_TRUE);
	three.module.nr_tables = XP_NR_SITE_KINDS + 1;
	CHECK_EQ(xp_module_register(&three.module), -XP_E_CORRUPT);
	CHECK_EQ(xp_static_key_enable(&key_a), -XP_E_CORRUPT);
	CHECK_EQ(xp_static_key_disable(&key_true), -XP_E_MISMATCH);
	rec_text[two.offset + 3] ^= 0x40;
	CHECK_EQ(xp_static_key_enable(&key_a), -XP_E_CORRUPT);
	check_sites(&two, "jjt");
	CHECK_EQ(xp_static_key_disable(&key_true), 0);
	CHECK_EQ(xp_module_unregister(&three.module), 0);
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	end_refused();
}

/* What was registered before, was unregistered and is refused: its text may still be patched. */
XP_TEST(a_module_that_comes_back_and_is_refused)
{
	start_refused(1, -EIO);
	CHECK_EQ(xp_static_key_disable(&key_a), 0);
	check_sites(&two, "jjt");
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	CHECK_EQ(xp_static_key_disable(&key_b), 0);
	rec_forget();
	rec_fail(REC_PREPARE, 1, 1, -EIO);
	CHECK_EQ(xp_module_register(&two.module), -EIO);
	check_sites(&two, "jjt");
	CHECK_EQ(xp_static_key_disable(&key_b), 0);
	check_sites(&two, "tjj");
	end_refused();
}

static int register_result;

static void register_meanwhile(const struct rec_step *step)
{
	if (step->op == REC_WRITE && register_result == 0)
		register_result = xp_module_register(&two.module);
}

XP_TEST(a_module_that_comes_in_a_handler_in_a_commit)
{
	start_registered();
	module_add(&two, &key_a, 0);
	register_result = 0;
	rec.step = register_meanwhile;
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	rec.step = NULL;
	CHECK_EQ(register_result, -XP_E_REENTRANT);
	CHECK_EQ(xp_module_error(), -XP_E_REENTRANT);
	check_sites(&two, "t");
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	check_sites(&two, "j");
	end_refused();
}

/* The key is off at all sites or at some: no reader may find it on. */
static void count_wedged(const void *nothing)
{
	(void)nothing;
	start_registered();
	CHECK_EQ(xp_static_key_enable(&key_a), 0);
	CHECK_EQ(xp_static_key_inc(&key_true), 0);
	rec_forget();
	rec_fail(REC_SYNC, 1, REC_FOREVER, -EIO);
	CHECK_EQ(xp_static_key_disable(&key_a), -EIO);
	CHECK_EQ(xp_state(), XP_STATE_WEDGED);
	rec_heal();
	CHECK_EQ(xp_static_key_inc(&key_a), -XP_E_WEDGED);
	CHECK_EQ(xp_static_key_dec(&key_true), -XP_E_WEDGED);
	CHECK_EQ(key_true.count, 2);
	module_add(&two, &key_b, 0);
	CHECK_EQ(xp_module_register(&two.module), -XP_E_WEDGED);
	CHECK_EQ(xp_module_error(), -XP_E_WEDGED);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
}

XP_TEST(a_wedged_engine_counts_nothing)
{
	rec_isolated(count_wedged, NULL);
}

/* ---- deferred keys ---- */

static struct xp__deferred deferred;

static void start_deferred(void)
{
	start_registered();
	deferred = (struct xp__deferred){.delay_ms = 100};
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
}

/* Lets @ms pass; the port's thread runs if its time has come. */
static void pass(uint64_t ms)
{
	rec.now_ms += ms;
	if (rec.deadline_ms && rec.now_ms >= rec.deadline_ms) {
		rec.deadline_ms = 0;
		xp_deferred_run();
	}
}

XP_TEST(a_deferred_dec_waits)
{
	start_deferred();
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	CHECK_EQ(rec.deadline_ms, rec.now_ms + 100);
	pass(99);
	CHECK_EQ(key_a.count, 1);
	check_sites(&one, "jttjt");
	pass(1);
	CHECK_EQ(key_a.count, 0);
	check_sites(&one, "tjtjt");
	CHECK_EQ(deferred.pending, 0);
	end();
}

XP_TEST(an_inc_makes_it_harmless)
{
	start_deferred();
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	pass(50);
	rec_forget();
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	pass(50);
	CHECK_EQ(key_a.count, 1);
	CHECK_EQ(commits(), 0);
	CHECK_EQ(deferred.pending, 0);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	end();
}

XP_TEST(a_dec_above_one_is_not_deferred)
{
	start_deferred();
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	CHECK_EQ(key_a.count, 1);
	CHECK_EQ(rec.calls[REC_DEFER], 0);
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), -XP_E_UNDERFLOW); /* it is on its way already */
	pass(100);
	CHECK_EQ(key_a.count, 0);
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), -XP_E_UNDERFLOW);
	end();
}

XP_TEST(flush)
{
	start_deferred();
	CHECK_EQ(xp__static_key_deferred_flush(&deferred), 0); /* nothing pending */
	CHECK_EQ(key_a.count, 1);
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	CHECK_EQ(xp__static_key_deferred_flush(&deferred), 0);
	CHECK_EQ(key_a.count, 0);
	check_sites(&one, "tjtjt");
	pass(1000);
	CHECK_EQ(key_a.count, 0);
	end();
}

/* A plain dec was faster. The pending one has nothing left to do, and must not stay: its memory may go away. */
XP_TEST(flush_of_a_dec_that_came_too_late)
{
	start_deferred();
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	CHECK_EQ(xp_static_key_dec(&key_a), 0);
	CHECK_EQ(xp__static_key_deferred_flush(&deferred), -XP_E_UNDERFLOW);
	CHECK_EQ(deferred.pending, 0);
	end();
}

XP_TEST(several_deferred_keys)
{
	struct xp__deferred second = {.delay_ms = 30}, third = {.delay_ms = 200};

	start_deferred();
	CHECK_EQ(xp_static_key_inc(&key_b), 0);
	CHECK_EQ(xp__static_key_dec_deferred(&key_true, &third), 0);
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	CHECK_EQ(xp__static_key_dec_deferred(&key_b, &second), 0);
	rec.deadline_ms = rec.now_ms + 30; /* the port keeps the earliest */
	pass(30);
	check_counts(1, 0, 1);
	CHECK_EQ(rec.deadline_ms, rec.now_ms + 70);
	pass(70);
	check_counts(0, 0, 1);
	pass(100);
	check_counts(0, 0, 0);
	CHECK_EQ(rec.deadline_ms, 0);
	end();
}

XP_TEST(a_failed_deferred_dec_is_tried_again)
{
	start_deferred();
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	rec_forget();
	rec_fail(REC_SYNC, 1, 1, -EIO);
	pass(100);
	CHECK_EQ(rec.fault[0].hits, 1);
	CHECK_EQ(key_a.count, 1);
	check_sites(&one, "jttjt");
	CHECK_EQ(rec.deadline_ms, rec.now_ms + 100);
	rec_heal();
	pass(100);
	CHECK_EQ(key_a.count, 0);
	end();
}

XP_TEST(the_delay_can_be_changed)
{
	start_deferred();
	CHECK_EQ(xp__static_key_rate_limit(&deferred, 500), 0);
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	CHECK_EQ(rec.deadline_ms, rec.now_ms + 500);
	CHECK_EQ(xp__static_key_deferred_flush(&deferred), 0);
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	CHECK_EQ(xp__static_key_rate_limit(&deferred, 0), 0);
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0); /* no delay: at once */
	CHECK_EQ(key_a.count, 0);
	end();
}

XP_TEST(a_port_that_cannot_defer)
{
	start_deferred();
	rec_forget();
	rec_fail(REC_DEFER, 1, 1, -EAGAIN);
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0); /* no thread: at once */
	CHECK_EQ(key_a.count, 0);
	CHECK_EQ(deferred.pending, 0);
	rec_heal();
	CHECK_EQ(xp_static_key_inc(&key_a), 0);
	rec_port.defer = NULL;
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	CHECK_EQ(key_a.count, 0);
	end();
}

XP_TEST(a_child_takes_the_pending_decs_along)
{
	start_deferred();
	CHECK_EQ(xp__static_key_dec_deferred(&key_a, &deferred), 0);
	rec.deadline_ms = 0; /* the thread that would have done it is not there */
	CHECK_EQ(rec_port.lock(), 0);
	xp_fork_child();
	rec_port.unlock();
	CHECK_EQ(rec.deadline_ms, rec.now_ms + 100);
	pass(100);
	CHECK_EQ(key_a.count, 0);
	end();
}

/* ---- one site, of text that the port knows: done without a commit, and call by call the same ---- */

struct outcome {
	char trace[2048];
	int error, again, count;
	enum xp_state state;
	uint8_t opcode;
};

struct single {
	struct outcome *outcome;
	enum rec_op op;
	unsigned nth, count;
	bool known, spoilt;
};

static bool text_known(const void *addr, size_t len)
{
	return (const uint8_t *)addr >= rec_text && (const uint8_t *)addr + len <= rec_text + REC_TEXT_SIZE;
}

static void run_single(const void *argument)
{
	const struct single *single = argument;
	struct outcome *outcome = single->outcome;

	start_registered();
	CHECK_EQ(xp_static_key_enable(&key_b), 0);
	CHECK_EQ(xp_static_key_disable(&key_b), 0); /* both plans are built */
	rec_port.text_known = single->known ? text_known : NULL;
	if (single->spoilt)
		rec_text[0x60] ^= 1;
	rec_forget();
	if (single->nth)
		rec_fail(single->op, single->nth, single->count, -EIO);
	outcome->error = xp_static_key_enable(&key_b);
	outcome->again = xp_static_key_disable(&key_b);
	/* And of two sites both. */
	if (single->nth == 0)
		CHECK_EQ(xp_static_key_enable(&key_a), 0);
	strncat(outcome->trace, rec_trace(), sizeof(outcome->trace) - 1);
	outcome->count = key_b.count;
	outcome->state = xp_state();
	outcome->opcode = rec_text[0x60];
}

static void same_call_by_call(enum rec_op op, unsigned nth, unsigned count, bool spoilt)
{
	struct outcome *outcomes = rec_shared(2 * sizeof(*outcomes));

	for (unsigned known = 0; known < 2; known++) {
		struct single single = {&outcomes[known], op, nth, count, known, spoilt};

		rec_isolated(run_single, &single);
	}
	CHECK(strstr(outcomes[0].trace, "prepare") != NULL || spoilt);
	CHECK_STR(outcomes[1].trace, outcomes[0].trace);
	CHECK_MEM(&outcomes[1].error, &outcomes[0].error, sizeof(*outcomes) - offsetof(struct outcome, error));
}

XP_TEST(one_site_is_changed_as_by_a_commit)
{
	same_call_by_call(REC_SYNC, 0, 0, false);
	same_call_by_call(REC_SYNC, 0, 0, true);
	for (unsigned nth = 1; nth <= 3; nth++) {
		same_call_by_call(REC_PREPARE, nth, 1, false);
		same_call_by_call(REC_WRITE, nth, 1, false);
		same_call_by_call(REC_WRITE, nth, REC_FOREVER, false);
		same_call_by_call(REC_SYNC, nth, 1, false);
		same_call_by_call(REC_SYNC, nth, REC_FOREVER, false);
	}
}

/* ---- stores that the core makes itself ---- */

static unsigned opened, closed;

/* One window up to the second site of module two, another one for that. */
static uintptr_t text_window(const void *addr)
{
	const uint8_t *middle = rec_text + 0x1048;

	CHECK_EQ(opened, closed);
	opened++;
	return (uintptr_t)((const uint8_t *)addr < middle ? middle : rec_text + REC_TEXT_SIZE);
}

static void text_close(void)
{
	closed++;
	CHECK_EQ(opened, closed);
}

/* Of the sites of key_b, one in module one and two in module two. */
static void check_b(const char *in_one, const char *in_two)
{
	check_sites(&one, in_one);
	check_sites(&two, in_two);
	CHECK_EQ(opened, closed);
}

static void run_window(const void *argument)
{
	enum xp_policy policy = *(const enum xp_policy *)argument;
	const unsigned nr_syncs = policy == XP_POLICY_AUTO ? 1 : 2;

	start_registered();
	module_add(&two, &key_b, 0);
	module_add(&two, &key_b, 0);
	CHECK_EQ(xp_module_register(&two.module), 0);
	CHECK_EQ(xp_set_policy(policy), 0);
	rec_port.text_window = text_window;
	rec_port.text_close = text_close;
	rec_forget();
	CHECK_EQ(xp_static_key_enable(&key_b), 0);
	check_b("tjjjt", "jj");
	CHECK_EQ(opened, 2 * nr_syncs);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	/* Each sync fails: all is undone, by the port's writer. */
	for (unsigned nth = 1; nth <= nr_syncs; nth++) {
		rec_forget();
		rec_fail(REC_SYNC, nth, 1, -EIO);
		CHECK_EQ(xp_static_key_disable(&key_b), -EIO);
		check_b("tjjjt", "jj");
		rec_heal();
	}
	CHECK_EQ(xp_state(), XP_STATE_READY);
	CHECK_EQ(xp_static_key_disable(&key_b), 0);
	check_b("tjtjt", "tt");
}

XP_TEST(sites_are_stored_to_through_windows)
{
	for (enum xp_policy policy = XP_POLICY_AUTO; policy <= XP_POLICY_BREAKPOINT; policy++)
		rec_isolated(run_window, &policy);
}

XP_TEST_MAIN()
