// SPDX-License-Identifier: MIT
/* Static switches and the arrays of their targets, over a port that records. */
#include "recorder.h"
#include "xp_test.h"

#include <errno.h>

#define MAX_SITES 4
#define TARGET 0x2000u
#define STRIDE 0x1111u /* so that displacements differ in several bytes */
#define NR 3
#define SITE(i) (0x40 + 16 * (i)) /* inside a quadword */

static struct xp_static_switch three, other;
static int32_t targets[MAX_SITES][NR + 2];
static struct xp_switch_site records[MAX_SITES];
static struct xp_module module;

static void start_with(uint32_t choice, struct xp_static_switch *of_last)
{
	rec_start();
	three = (struct xp_static_switch){.object = {.name = "three"}, .choice = choice, .nr = NR};
	other = (struct xp_static_switch){.object = {.name = "other"}, .nr = NR};
	for (unsigned i = 0; i < MAX_SITES; i++) {
		rec_targets(targets[i], NR, 0, NR, TARGET, STRIDE);
		rec_switch(&records[i], SITE(i), i + 1 < MAX_SITES ? &three : of_last, targets[i] + 1);
	}
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module.tables[XP_SITE_SWITCH] = (struct xp_site_table){records, records + MAX_SITES};
}

/* Three sites of `three`, one of `other`. */
static void start(void)
{
	start_with(0, &other);
	CHECK_EQ(xp_module_register(&module), 0);
	CHECK_EQ(rec.calls[REC_PREPARE], 0); /* everything is as it was compiled */
	rec_forget();
}

static void end(void)
{
	CHECK_EQ(xp_module_unregister(&module), 0);
	CHECK(three.object.groups == NULL && other.object.groups == NULL);
}

/* Where the jump at @offset leads, in choices; -1: it is no jump to a target. */
static int jumps_to(size_t offset)
{
	int32_t displacement;

	memcpy(&displacement, rec_text + offset + 1, sizeof(displacement));
	size_t to = offset + REC_BRANCH_LEN + (size_t)displacement - TARGET;
	return rec_text[offset] == 0xe9 && to % STRIDE == 0 ? (int)(to / STRIDE) : -1;
}

static void check_sites(int choice, int of_other)
{
	for (unsigned i = 0; i < MAX_SITES; i++)
		CHECK_EQ(jumps_to(SITE(i)), i + 1 < MAX_SITES ? choice : of_other);
}

XP_TEST(every_choice_from_every_other)
{
	start();
	check_sites(0, 0);
	for (int from = 0; from < NR; from++)
		for (int to = 0; to < NR; to++) {
			CHECK_EQ(xp__static_switch_set(&three, from), 0);
			CHECK_EQ(xp__static_switch_set(&three, to), 0);
			check_sites(to, 0);
			CHECK_EQ(xp__static_switch_choice(&three), to);
		}
	end();
}

/* A commit has room for as many as there are, and no more. */
XP_TEST(many_sites_of_one_switch)
{
	enum { MANY = 200 };
	static struct xp_switch_site many[MANY];

	rec_start();
	three = (struct xp_static_switch){.object = {.name = "three"}, .nr = NR};
	rec_targets(targets[0], NR, 0, NR, TARGET, STRIDE);
	for (unsigned i = 0; i < MANY; i++)
		rec_switch(&many[i], SITE(i), &three, targets[0] + 1);
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module.tables[XP_SITE_SWITCH] = (struct xp_site_table){many, many + MANY};
	CHECK_EQ(xp_module_register(&module), 0);
	for (int choice = NR - 1; choice >= 0; choice--) {
		CHECK_EQ(xp__static_switch_set(&three, choice), 0);
		for (unsigned i = 0; i < MANY; i++)
			CHECK_EQ(jumps_to(SITE(i)), choice);
	}
	CHECK_EQ(xp_module_unregister(&module), 0);
}

/* Displacements inside a quadword, a writer with single stores: one write per site, one sync. */
XP_TEST(the_displacement_is_stored_at_once)
{
	start();
	CHECK_EQ(xp__static_switch_set(&three, 2), 0);
	CHECK_EQ(rec.prepared, XP_NEED_SYNC | XP_NEED_SINGLE);
	CHECK_EQ(rec.calls[REC_WRITE], 3);
	CHECK(rec.largest_write <= 4);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	end();
}

XP_TEST(without_single_stores_it_traps)
{
	start();
	rec.can &= ~(unsigned)XP_NEED_SINGLE;
	CHECK_EQ(xp__static_switch_set(&three, 1), 0);
	CHECK_EQ(rec.prepared, XP_NEED_SYNC | XP_NEED_TRAP);
	CHECK_EQ(rec.calls[REC_SYNC], 3);
	check_sites(1, 0);
	end();
}

static unsigned wrong_early;

/* Before the commit is over no thread reads the new choice. */
static void note_choice(const struct rec_step *step)
{
	if (step->op == REC_WRITE || step->op == REC_SYNC)
		wrong_early += xp__static_switch_choice(&three) != 0;
}

XP_TEST(the_choice_follows_the_text)
{
	start();
	rec.step = note_choice;
	wrong_early = 0;
	CHECK_EQ(xp__static_switch_set(&three, 2), 0);
	CHECK_EQ(wrong_early, 0);
	CHECK_EQ(xp__static_switch_choice(&three), 2);
	end();
}

XP_TEST(what_is_so_already_costs_no_commit)
{
	start();
	CHECK_EQ(xp__static_switch_set(&three, 0), 0);
	CHECK_EQ(rec.calls[REC_PREPARE], 0);
	end();
}

XP_TEST(no_such_choice)
{
	struct xp_batch *batch;

	start();
	batch = xp_batch_new();
	CHECK_EQ(xp__static_switch_set(&three, NR), -EINVAL);
	CHECK_EQ(xp__static_switch_set(&three, -1), -EINVAL);
	CHECK_EQ(xp__static_switch_set(NULL, 0), -EINVAL);
	CHECK_EQ(xp__batch_add_switch(batch, &three, NR), -EINVAL);
	CHECK_EQ(xp__batch_add_switch(batch, NULL, 0), -EINVAL);
	CHECK_EQ(xp__batch_add_switch(NULL, &three, 0), -EINVAL);
	CHECK_EQ(rec.calls[REC_PREPARE], 0);
	check_sites(0, 0);
	xp_batch_free(batch);
	end();
}

XP_TEST(two_switches_in_a_batch)
{
	struct xp_batch *batch;
	struct xp_diag diag;

	start();
	batch = xp_batch_new();
	CHECK_EQ(xp__batch_add_switch(batch, &three, 1), 0);
	CHECK_EQ(xp__batch_add_switch(batch, &other, 2), 0);
	CHECK_EQ(xp__batch_add_switch(batch, &three, 2), 0); /* the last wish counts */
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	check_sites(2, 2);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	CHECK_EQ(xp__static_switch_choice(&three), 2);
	CHECK_EQ(xp__static_switch_choice(&other), 2);
	/* All or nothing. */
	CHECK_EQ(xp__batch_add_switch(batch, &three, 0), 0);
	CHECK_EQ(xp__batch_add_switch(batch, &other, 0), 0);
	rec_forget();
	rec_fail(REC_SYNC, 1, 1, -EIO);
	CHECK_EQ(xp_batch_commit(batch, &diag), -EIO);
	check_sites(2, 2);
	CHECK_EQ(xp__static_switch_choice(&three), 2);
	CHECK_EQ(xp__static_switch_choice(&other), 2);
	rec_heal();
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	check_sites(0, 0);
	xp_batch_free(batch);
	end();
}

/* ---- modules ---- */

XP_TEST(sites_come_to_the_initial_choice)
{
	start_with(2, &other);
	CHECK_EQ(xp_module_register(&module), 0);
	check_sites(2, 0);
	CHECK_EQ(rec.calls[REC_WRITE], 3);
	end();
}

/* Of a module that comes as its switches are, no site is looked at. */
XP_TEST(what_is_as_built_is_not_looked_at)
{
	start_with(0, &other);
	rec_put(SITE(1), &(uint8_t){0xcc}, 1);
	CHECK_EQ(xp_module_register(&module), 0);
	CHECK_EQ(xp__static_switch_set(&three, 1), -EBUSY);
	end();
}

XP_TEST(sites_that_return)
{
	start();
	CHECK_EQ(xp__static_switch_set(&three, 1), 0);
	CHECK_EQ(xp_module_unregister(&module), 0);
	CHECK_EQ(xp__static_switch_set(&three, 2), 0);
	check_sites(1, 0);
	CHECK_EQ(xp_module_register(&module), 0);
	check_sites(2, 0);
	end();
}

XP_TEST(a_handle_stands_for_the_shared_one)
{
	static struct xp_static_switch handle = {.object = {.real = &three.object, .name = "handle"}, .nr = NR};

	start_with(1, &handle);
	CHECK_EQ(xp_module_register(&module), 0);
	check_sites(1, 1);
	CHECK_EQ(xp__static_switch_choice(&handle), 1);
	CHECK_EQ(xp__static_switch_set(&handle, 2), 0);
	CHECK_EQ(xp__static_switch_choice(&three), 2);
	check_sites(2, 2);
	end();
}

/* ---- what is not as it should be ---- */

static void commit_refused(int error, size_t site)
{
	struct xp_batch *batch = xp_batch_new();
	struct xp_diag diag;

	CHECK_EQ(xp__batch_add_switch(batch, &three, 2), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), error);
	CHECK_EQ(diag.phase, XP_PHASE_VALIDATE);
	CHECK(diag.site == rec_text + site);
	CHECK_STR(diag.key, "three");
	CHECK_EQ(xp__static_switch_choice(&three), 0);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	xp_batch_free(batch);
}

XP_TEST(another_text_is_refused)
{
	start();
	rec_put(SITE(1) + 1, &(uint8_t){0x55}, 1);
	commit_refused(-XP_E_MISMATCH, SITE(1));
	rec_put(SITE(1), &(uint8_t){0xcc}, 1);
	commit_refused(-EBUSY, SITE(1));
	end();
}

/* Compiled with another number of choices, or overwritten. */
XP_TEST(arrays_of_another_switch_are_refused)
{
	start();
	rec_targets(targets[1], NR + 1, 0, NR, TARGET, STRIDE);
	commit_refused(-XP_E_CORRUPT, SITE(1));
	rec_targets(targets[1], NR, 1, NR - 1, TARGET, STRIDE);
	commit_refused(-XP_E_CORRUPT, SITE(1));
	targets[1][0] = (int32_t)XP_SWITCH_PART(NR, 0, NR + 1);
	commit_refused(-XP_E_CORRUPT, SITE(1));
	targets[1][0] = (int32_t)XP_SWITCH_PART(NR, 0, 0);
	commit_refused(-XP_E_CORRUPT, SITE(1));
	rec_targets(targets[1], NR, 0, NR, TARGET, STRIDE);
	targets[1][NR + 1] = 0;
	commit_refused(-XP_E_CORRUPT, SITE(1));
	end();
}

XP_TEST(choices_that_share_a_block)
{
	start();
	for (unsigned i = 0; i < MAX_SITES; i++)
		targets[i][3] = targets[i][1] + 4 * (targets[i] + 1 - (targets[i] + 3)); /* choice 2 as choice 0 */
	CHECK_EQ(xp__static_switch_set(&three, 2), 0);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	CHECK_EQ(xp__static_switch_choice(&three), 2);
	check_sites(0, 0);
	CHECK_EQ(xp__static_switch_set(&three, 1), 0);
	check_sites(1, 0);
	end();
}

/* ---- more choices than one asm has labels ---- */

#define MANY 60
#define FIRST 24

static struct xp_static_switch many;
#define LOAD 0x1234u /* where the choice is loaded */

static int32_t part[3][FIRST + 3];
static struct xp_switch_site record;

static void put_distance(size_t offset, const int32_t *to)
{
	int32_t distance = (int32_t)((uintptr_t)to - (uintptr_t)(rec_text + offset + 4));

	rec_put(offset, (const uint8_t *)&distance, sizeof(distance));
}

static void put_ud1(size_t offset, const int32_t *to)
{
	static const uint8_t ud1[] = {0x0f, 0xb9, 0x05};

	rec_put(offset, ud1, sizeof(ud1));
	put_distance(offset + sizeof(ud1), to);
}

/* Behind the site padding and a jump to the second part; behind that, jumps of both lengths to the third. */
static void start_many(void)
{
	static const uint8_t behind[] = {0x90, 0xeb, 0x19};

	rec_start();
	many = (struct xp_static_switch){.object = {.name = "many"}, .nr = MANY};
	for (unsigned i = 0; i < 3; i++)
		rec_targets(part[i], MANY, FIRST * i, i < 2 ? FIRST : MANY - 2 * FIRST, TARGET, STRIDE);
	part[0][FIRST + 2] = (int32_t)((uintptr_t)(rec_text + LOAD) - (uintptr_t)&part[0][FIRST + 2]);
	rec_switch(&record, 0x80, &many, part[0] + 1);
	rec_put(0x85, behind, sizeof(behind));
	put_ud1(0x88 + 0x19, part[1] + 1);
	rec_put(0x88 + 0x20, (const uint8_t[]){0xe9, 0x0b, 0, 0, 0}, 5);
	rec_put(0x88 + 0x30, (const uint8_t[]){0x66, 0x90}, 2); /* the jump leads behind it, to 0x38 */
	put_ud1(0x88 + 0x30, part[2] + 1);
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module.tables[XP_SITE_SWITCH] = (struct xp_site_table){&record, &record + 1};
	CHECK_EQ(xp_module_register(&module), 0);
}

XP_TEST(parts_are_found_through_the_text)
{
	start_many();
	for (int i = MANY; i-- > 0;) {
		CHECK_EQ(xp__static_switch_set(&many, i), 0);
		CHECK_EQ(jumps_to(0x80), i);
	}
	CHECK_EQ(xp_module_unregister(&module), 0);
}

static void many_refused(int choice)
{
	struct xp_batch *batch = xp_batch_new();
	struct xp_diag diag;

	CHECK_EQ(xp__batch_add_switch(batch, &many, choice), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_CORRUPT);
	CHECK(diag.site == rec_text + 0x80);
	CHECK_STR(diag.key, "many");
	CHECK_EQ(jumps_to(0x80), 0);
	CHECK_EQ(xp__static_switch_choice(&many), 0);
	xp_batch_free(batch);
}

XP_TEST(parts_that_do_not_follow_are_refused)
{
	start_many();
	put_ud1(0x88 + 0x19, part[2] + 1); /* the third where the second should be */
	many_refused(30);
	put_ud1(0x88 + 0x19, part[0] + 1);
	many_refused(30);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

static bool jumps_to_the_load(void)
{
	int32_t displacement;

	memcpy(&displacement, rec_text + 0x81, sizeof(displacement));
	return rec_text[0x80] == 0xe9 && 0x80 + REC_BRANCH_LEN + displacement == LOAD;
}

/* The site jumps to the choices before @direct, and has the others loaded. */
static void check_many(int direct)
{
	static const int order[] = {0, 30, 59, 23, 24, 23, 59, 1};

	for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		CHECK_EQ(xp__static_switch_set(&many, order[i]), 0);
		CHECK_EQ(xp__static_switch_choice(&many), order[i]);
		CHECK(order[i] < direct ? jumps_to(0x80) == order[i] : jumps_to_the_load());
	}
	CHECK_EQ(xp_module_unregister(&module), 0);
}

XP_TEST(code_between_parts_is_not_left_out)
{
	start_many();
	rec_put(0x85, (const uint8_t[]){0x31, 0xc0}, 2); /* xor %eax, %eax */
	rec_put(0x87, &(uint8_t){0x90}, 1);
	check_many(FIRST);
	start_many();
	rec_put(0x86, (const uint8_t[]){0x74, 0x19}, 2); /* a jump on a condition */
	check_many(FIRST);
	start_many();
	rec_put(0x86, (const uint8_t[]){0xeb, 0xfe}, 2); /* a jump to itself */
	check_many(FIRST);
	start_many();
	rec_put(0x88 + 0x20, (const uint8_t[]){0xe9, 0x09, 0, 0, 0}, 5);
	rec_put(0x88 + 0x2e, (const uint8_t[]){0xa8, 1}, 2); /* test $1, %al, before the third part */
	check_many(2 * FIRST);
}

XP_TEST_MAIN()
