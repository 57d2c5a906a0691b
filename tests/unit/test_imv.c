// SPDX-License-Identifier: MIT
/* Immediate values over a port that records: which text a set changes, by which method, and what it refuses. */
#include "recorder.h"
#include "xp_test.h"

#include <errno.h>

#define MAX_SITES 512

enum { ONE, TWO, FOUR, EIGHT, NR_SIZES };
static const uint8_t sizes[NR_SIZES] = {1, 2, 4, 8};

/* The first of each size is what the compiler emits for eax, the others what it may, and what a code generator may. */
struct form {
	uint8_t size, len;
	uint8_t bytes[15];
};
static const struct form forms[] = {
	{1, 2, {0xb0}},
	{2, 4, {0x66, 0xb8}},
	{4, 5, {0xb8}},
	{8, 10, {0x48, 0xb8}},
	{1, 2, {0xb7}},
	{1, 3, {0x40, 0xb7}},
	{1, 3, {0x41, 0xb7}},
	{1, 3, {0xc6, 0xc4}},
	{2, 5, {0x66, 0x41, 0xb9}},
	{2, 5, {0x66, 0xc7, 0xc1}},
	{4, 6, {0x41, 0xba}},
	{4, 6, {0xc7, 0xc0}},
	{4, 7, {0x48, 0xc7, 0xc0}},
	{8, 10, {0x49, 0xbf}},
};
enum { NR_FORMS = sizeof(forms) / sizeof(forms[0]) };

/* A module of hand-made sites, 16 bytes apart. */
struct made {
	struct xp_module module;
	struct xp_imv_site records[MAX_SITES];
	size_t nr, offset;
};

static struct made one, two;
static uint64_t variable[NR_SIZES];
static struct xp_imv value[NR_SIZES];

static void module_start(struct made *made, size_t offset)
{
	memset(made, 0, sizeof(*made));
	made->offset = offset;
	made->module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	made->module.tables[XP_SITE_IMV].start = made->records;
	made->module.tables[XP_SITE_IMV].end = made->records;
}

static size_t site_at(const struct made *made, size_t i)
{
	return made->offset + 16 * i;
}

static void module_add(struct made *made, const struct form *form, struct xp_imv *imv)
{
	REQUIRE(made->nr < MAX_SITES);
	rec_mov(&made->records[made->nr], site_at(made, made->nr), form->bytes, form->len, imv);
	made->nr++;
	made->module.tables[XP_SITE_IMV].end = made->records + made->nr;
}

static uint64_t operand(const struct made *made, size_t i)
{
	const struct xp_imv_site *record = &made->records[i];
	uint64_t bits = 0;

	memcpy(&bits, rec_text + site_at(made, i) + record->len - record->size, record->size);
	return bits;
}

/* Of all sites of a module: their operands are their values, and nothing else of them changed. */
static void check_sites(const struct made *made)
{
	for (size_t i = 0; i < made->nr; i++) {
		const struct xp_imv_site *record = &made->records[i];
		const struct xp_imv *imv =
			(const struct xp_imv *)((uintptr_t)&record->imv + (uintptr_t)(intptr_t)record->imv);
		uint64_t bits = 0;

		memcpy(&bits, imv->value, imv->size);
		CHECK_EQ(operand(made, i), bits);
		CHECK_MEM(rec_text + site_at(made, i), forms[i % NR_FORMS].bytes, record->len - record->size);
	}
}

/* One value of each size; @offset decides how sites lie in their quadwords. */
static void start_at(size_t offset)
{
	rec_start();
	memset(variable, 0, sizeof(variable));
	for (unsigned s = 0; s < NR_SIZES; s++)
		value[s] = (struct xp_imv){.object = {.name = "value"}, .value = &variable[s], .size = sizes[s]};
	module_start(&one, offset);
	module_start(&two, 0x2000 + offset);
	for (size_t i = 0; i < NR_FORMS; i++) {
		unsigned s = (unsigned)__builtin_ctz(forms[i].size);

		module_add(&one, &forms[i], &value[s]);
		module_add(&two, &forms[i], &value[s]);
	}
}

static void start(void)
{
	start_at(0x40);
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(xp_module_register(&two.module), 0);
	CHECK_EQ(rec.calls[REC_PREPARE], 0); /* 0 is what was emitted */
	rec_forget();
}

static void end(void)
{
	CHECK_EQ(xp_module_unregister(&one.module), 0);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	for (unsigned s = 0; s < NR_SIZES; s++)
		CHECK(value[s].object.groups == NULL);
}

static int set(unsigned s, uint64_t bits)
{
	return xp__imv_set(&value[s], &bits, sizes[s]);
}

#define PATTERN 0x8182838485868788u

/* A commit has room for as many as there are, and no more. */
XP_TEST(many_sites_of_one_value)
{
	start_at(0x40);
	module_start(&one, 0x40);
	for (size_t i = 0; i < MAX_SITES / 2; i++)
		module_add(&one, &forms[FOUR], &value[FOUR]);
	CHECK_EQ(xp_module_register(&one.module), 0);
	for (uint32_t bits = 1; bits < 4; bits++) {
		uint64_t wide = bits;

		CHECK_EQ(xp__imv_set(&value[FOUR], &wide, 4), 0);
		for (size_t i = 0; i < one.nr; i++)
			CHECK_EQ(operand(&one, i), bits);
	}
	CHECK_EQ(xp_module_unregister(&one.module), 0);
}

XP_TEST(set_reaches_every_site)
{
	static const enum xp_policy policies[] = {XP_POLICY_AUTO, XP_POLICY_BREAKPOINT, XP_POLICY_QUIESCE,
						  XP_POLICY_EARLY};

	for (unsigned p = 0; p < sizeof(policies) / sizeof(policies[0]); p++) {
		for (size_t offset = 0x40; offset < 0x48; offset++) {
			for (unsigned s = 0; s < NR_SIZES; s++) {
				start_at(offset);
				CHECK_EQ(xp_module_register(&one.module), 0);
				CHECK_EQ(xp_module_register(&two.module), 0);
				CHECK_EQ(xp_set_policy(policies[p]), 0);
				CHECK_EQ(set(s, PATTERN), 0);
				CHECK_MEM(&variable[s], &(uint64_t){PATTERN}, sizes[s]);
				CHECK_EQ(rec.calls[REC_PREPARE], 1);
				check_sites(&one);
				check_sites(&two);
				end();
			}
		}
	}
}

XP_TEST(what_is_so_already_costs_no_commit)
{
	start();
	CHECK_EQ(set(FOUR, 0), 0);
	CHECK_EQ(rec.calls[REC_PREPARE] + rec.calls[REC_WRITE] + rec.calls[REC_SYNC], 0);
	CHECK_EQ(set(FOUR, 77), 0);
	rec_forget();
	CHECK_EQ(set(FOUR, 77), 0);
	CHECK_EQ(rec.calls[REC_PREPARE] + rec.calls[REC_WRITE] + rec.calls[REC_SYNC], 0);
	/* But the text is looked at: a probe there may execute another value. */
	rec_put(site_at(&one, FOUR), &(uint8_t){0xcc}, 1);
	CHECK_EQ(set(FOUR, 77), -EBUSY);
	CHECK_EQ(set(FOUR, 78), -EBUSY);
	end();
}

XP_TEST(a_value_without_sites)
{
	uint32_t variable_of_it = 1;
	struct xp_imv lonely = {.object = {.name = "lonely"}, .value = &variable_of_it, .size = 4};

	rec_start();
	CHECK_EQ(xp__imv_set(&lonely, &(uint32_t){5}, 4), 0);
	CHECK_EQ(variable_of_it, 5);
	CHECK_EQ(rec.calls[REC_PREPARE], 0);
}

/* ---- methods ---- */

static struct xp_stats stats_of(int error, unsigned nr_syncs)
{
	struct xp_stats stats;

	CHECK_EQ(error, 0);
	CHECK_EQ(rec.calls[REC_SYNC], nr_syncs);
	xp_stats_read(&stats);
	rec_forget();
	return stats;
}

XP_TEST(methods)
{
	start();
	/* All sites begin at 8n, so operands of four bytes and less lie inside; of eight none does. */
	(void)stats_of(set(FOUR, 0x01020304), 1);
	CHECK_EQ(rec.prepared, XP_NEED_SYNC | XP_NEED_SINGLE);
	(void)stats_of(set(TWO, 0x0102), 1);
	CHECK_EQ(rec.prepared, XP_NEED_SYNC | XP_NEED_SINGLE);
	(void)stats_of(set(ONE, 0x12), 1);
	CHECK_EQ(rec.prepared, XP_NEED_SYNC);
	(void)stats_of(set(EIGHT, PATTERN), 3);
	CHECK(rec.prepared & XP_NEED_TRAP);
	/* One byte of them is a flip, wherever. */
	(void)stats_of(set(EIGHT, PATTERN ^ 0xff00), 1);
	CHECK_EQ(rec.prepared, XP_NEED_SYNC);
	rec.can = ~0u & ~(unsigned)XP_NEED_SINGLE;
	(void)stats_of(set(FOUR, 0x51525354), 3);
	CHECK(rec.prepared & XP_NEED_TRAP);
	check_sites(&one);
	check_sites(&two);
	end();

	/* Where the macros put it, an operand of eight bytes is one aligned quadword. */
	start_at(0x46);
	CHECK_EQ(xp_module_register(&one.module), 0);
	rec_forget();
	(void)stats_of(set(EIGHT, PATTERN), 1);
	CHECK_EQ(rec.prepared, XP_NEED_SYNC | XP_NEED_SINGLE);
	check_sites(&one);
	end();
}

/* Every form at every offset: as many plans as there can be, and sites for each of them to share. */
XP_TEST(plans_are_shared)
{
	struct form all[16 * 3];
	unsigned nr = 0;

	for (unsigned reg = 0; reg < 16; reg++) {
		unsigned low = reg % 8, rex = reg < 8 ? 0 : 0x41;
		struct form *f = &all[nr];

		if (rex) {
			f[0] = (struct form){4, 6, {(uint8_t)rex, (uint8_t)(0xb8 + low)}};
			f[1] = (struct form){4, 7, {(uint8_t)rex, 0xc7, (uint8_t)(0xc0 + low)}};
		} else {
			f[0] = (struct form){4, 5, {(uint8_t)(0xb8 + low)}};
			f[1] = (struct form){4, 6, {0xc7, (uint8_t)(0xc0 + low)}};
		}
		f[2] = (struct form){4, 7, {(uint8_t)(0x48 + (reg >= 8)), 0xc7, (uint8_t)(0xc0 + low)}};
		nr += 3;
	}
	start_at(0x40);
	module_start(&one, 0x40);
	for (unsigned i = 0; i < MAX_SITES; i++)
		module_add(&one, &all[i / 2 % nr], &value[FOUR]);
	/* Every second one is moved to where its operand does not fit. */
	for (unsigned i = 1; i < MAX_SITES; i += 2)
		rec_mov(&one.records[i], site_at(&one, i) + 4, all[i / 2 % nr].bytes, all[i / 2 % nr].len,
			&value[FOUR]);
	CHECK_EQ(xp_module_register(&one.module), 0);
	rec_forget();
	(void)stats_of(set(FOUR, 0x51525354), 3);
	for (unsigned i = 0; i < MAX_SITES; i++) {
		const struct xp_imv_site *record = &one.records[i];

		CHECK_MEM(rec_text + site_at(&one, i) + (i & 1) * 4 + record->len - 4, &(uint32_t){0x51525354}, 4);
	}
	end();
}

/* ---- modules ---- */

XP_TEST(sites_are_brought_to_the_value)
{
	start_at(0x40);
	for (unsigned s = 0; s < NR_SIZES; s++)
		memcpy(&variable[s], &(uint64_t){PATTERN}, sizes[s]);
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(rec.calls[REC_SYNC], 0); /* no other thread runs: without breakpoints */
	CHECK_EQ(rec.prepared, XP_NEED_ALONE);
	check_sites(&one);
	CHECK_EQ(set(FOUR, 5), 0);
	CHECK_EQ(xp_module_register(&two.module), 0);
	check_sites(&one);
	check_sites(&two);
	end();
}

/* With other threads it takes what a set takes. */
XP_TEST(not_alone)
{
	start_at(0x40);
	variable[EIGHT] = PATTERN;
	rec_fail(REC_PREPARE, 1, 1, -XP_E_NOT_EARLY);
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(rec.calls[REC_SYNC], 3);
	CHECK(rec.prepared & XP_NEED_TRAP);
	check_sites(&one);
	end();
}

XP_TEST(a_module_comes_back)
{
	start();
	CHECK_EQ(set(FOUR, 5), 0);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	CHECK_EQ(set(FOUR, 0x06070809), 0);
	CHECK_EQ(operand(&two, FOUR), 5);
	CHECK_EQ(xp_module_register(&two.module), 0);
	check_sites(&one);
	check_sites(&two);
	end();
}

/* Whatever operands its sites have: the value may have had any. */
XP_TEST(a_module_comes_back_changed)
{
	start();
	CHECK_EQ(set(FOUR, 5), 0);
	CHECK_EQ(xp_module_unregister(&two.module), 0);
	CHECK_EQ(set(FOUR, 6), 0);
	rec_put(site_at(&two, 10) + 2, &(uint8_t){4}, 1);
	CHECK_EQ(xp_module_register(&two.module), 0);
	check_sites(&one);
	check_sites(&two);
	end();
}

/* Each has a plan of its own then. */
XP_TEST(a_module_comes_back_with_many_values)
{
	start_at(0x40);
	module_start(&one, 0x40);
	for (unsigned i = 0; i < MAX_SITES; i++)
		module_add(&one, &forms[FOUR], &value[FOUR]);
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(xp_module_unregister(&one.module), 0);
	for (unsigned i = 0; i < MAX_SITES; i++) {
		const uint32_t bits = 0x01000193u * (i + 1);

		rec_put(site_at(&one, i) + 1, (const uint8_t *)&bits, sizeof(bits));
	}
	CHECK_EQ(set(FOUR, 0x51525354), 0);
	CHECK_EQ(xp_module_register(&one.module), 0);
	for (unsigned i = 0; i < MAX_SITES; i++)
		CHECK_EQ(operand(&one, i), 0x51525354);
	end();
}

/* Its sites are as the compiler left them, or have the value already: those are right. */
XP_TEST(a_module_has_the_value_already)
{
	start_at(0x40);
	variable[FOUR] = 9;
	rec_put(site_at(&one, 10) + 2, &(uint8_t){9}, 1);
	CHECK_EQ(xp_module_register(&one.module), 0);
	check_sites(&one);
	end();
}

XP_TEST(shared_values)
{
	static struct xp_imv handle; /* within reach of its record */
	uint32_t small = 1;

	start_at(0x40);
	handle = (struct xp_imv){.object = {.real = &value[FOUR].object, .name = "handle"}, .size = 4};
	module_start(&one, 0x40);
	module_add(&one, &forms[FOUR], &handle);
	variable[FOUR] = 9;
	CHECK_EQ(xp_module_register(&one.module), 0);
	CHECK_EQ(operand(&one, 0), 9);
	CHECK_EQ(xp__imv_set(&handle, &small, 4), 0);
	CHECK_EQ(operand(&one, 0), 1);
	CHECK_EQ(variable[FOUR], 1);
	end();
}

static void check_corrupt(void)
{
	CHECK_EQ(xp_module_register(&one.module), -XP_E_CORRUPT);
	CHECK(value[FOUR].object.groups == NULL);
	CHECK_EQ(xp_module_error(), -XP_E_CORRUPT);
}

XP_TEST(corrupt_records)
{
	start_at(0x40);
	one.records[FOUR].size = 2;
	check_corrupt();
	one.records[FOUR].size = 4;
	one.records[FOUR].zero = 1;
	check_corrupt();
	one.records[FOUR].zero = 0;
	value[FOUR].value = NULL;
	check_corrupt();
	value[FOUR].value = &variable[FOUR];
	value[FOUR].size = 3;
	one.records[FOUR].size = 3;
	check_corrupt();
	value[FOUR].size = one.records[FOUR].size = 4;
	one.records[FOUR].len = 4;
	CHECK_EQ(xp_module_register(&one.module), -XP_E_MISMATCH);
	one.records[FOUR].len = 0;
	CHECK_EQ(xp_module_register(&one.module), -XP_E_MISMATCH);
	one.records[FOUR].len = XP_MAX_LEN + 1;
	check_corrupt();
	one.records[FOUR].len = 255;
	check_corrupt();
	one.records[FOUR].len = 5;
	CHECK_EQ(xp_module_register(&one.module), 0);
	end();
}

/* ---- what is refused ---- */

XP_TEST(sizes_that_there_are_not)
{
	static const size_t wrong[] = {0, 1, 2, 3, 5, 8, 16, SIZE_MAX};
	uint8_t bytes[16] = {1, 2, 3};
	struct xp_batch *batch;

	start();
	batch = xp_batch_new();
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		CHECK_EQ(xp__imv_set(&value[FOUR], bytes, wrong[i]), -EINVAL);
		CHECK_EQ(xp__batch_add_imv(batch, &value[FOUR], bytes, wrong[i]), -EINVAL);
	}
	CHECK_EQ(xp__imv_set(NULL, bytes, 4), -EINVAL);
	CHECK_EQ(xp__imv_set(&value[FOUR], NULL, 4), -EINVAL);
	CHECK_EQ(xp__batch_add_imv(NULL, &value[FOUR], bytes, 4), -EINVAL);
	value[FOUR].size = 3;
	CHECK_EQ(xp__imv_set(&value[FOUR], bytes, 3), -EINVAL);
	value[FOUR].size = 4;
	CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_PREPARE], 0);
	CHECK_EQ(variable[FOUR], 0);
	xp_batch_free(batch);
	end();
}

/* The text of site @i is @bytes; a set of its value is refused with @error, and names site and value. */
static void refused(size_t i, const uint8_t *bytes, size_t len, int error, struct xp_diag *diag)
{
	struct xp_batch *batch;
	uint8_t before[16];

	start();
	batch = xp_batch_new();
	memcpy(before, rec_text + site_at(&one, i), sizeof(before));
	rec_put(site_at(&one, i), bytes, len);
	CHECK_EQ(xp__batch_add_imv(batch, &value[FOUR], &(uint32_t){0x01020304}, 4), 0);
	rec_forget();
	CHECK_EQ(xp_batch_commit(batch, diag), error);
	CHECK_EQ(diag->error, error);
	CHECK_EQ(diag->phase, XP_PHASE_VALIDATE);
	CHECK(diag->site == rec_text + site_at(&one, i));
	CHECK_STR(diag->key, "value");
	CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_SYNC] + rec.calls[REC_PREPARE], 0);
	CHECK_EQ(variable[FOUR], 0);
	rec_put(site_at(&one, i), before, sizeof(before));
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	check_sites(&one);
	check_sites(&two);
	xp_batch_free(batch);
	end();
}

XP_TEST(foreign_breakpoint)
{
	struct xp_diag diag;

	refused(FOUR, (const uint8_t[]){0xcc}, 1, -EBUSY, &diag);
	CHECK_EQ(diag.len, 0);
	refused(10, (const uint8_t[]){0xcc}, 1, -EBUSY, &diag);
}

XP_TEST(unexpected_text)
{
	struct xp_diag diag;

	refused(FOUR, (const uint8_t[]){0xb8, 1}, 2, -XP_E_DRIFTED, &diag);
	CHECK_EQ(diag.len, 5);
	CHECK_MEM(diag.expected, ((const uint8_t[]){0xb8, 0, 0, 0, 0}), 5);
	CHECK_MEM(diag.found, ((const uint8_t[]){0xb8, 1, 0, 0, 0}), 5);
	refused(FOUR, (const uint8_t[]){0xe9}, 1, -XP_E_MISMATCH, &diag);
	refused(FOUR, (const uint8_t[]){0xb8, 0, 0, 0, 1}, 5, -XP_E_DRIFTED, &diag);
	refused(FOUR, (const uint8_t[]){0x41, 0xb8}, 2, -XP_E_MISMATCH, &diag);       /* another length */
	refused(FOUR, (const uint8_t[]){0x66, 0x41, 0xb8}, 3, -XP_E_MISMATCH, &diag); /* of two bytes, as long */
	CHECK_EQ(diag.len, 0);
	refused(10, (const uint8_t[]){0x66, 0xb8}, 2, -XP_E_MISMATCH, &diag);
	refused(12, (const uint8_t[]){0x90}, 1, -XP_E_MISMATCH, &diag);
}

XP_TEST(a_failed_commit_leaves_the_value)
{
	start();
	CHECK_EQ(set(FOUR, 5), 0);
	rec_fail(REC_SYNC, rec.calls[REC_SYNC] + 1, 1, -EIO);
	CHECK_EQ(set(FOUR, 0x01020304), -EIO);
	CHECK_EQ(variable[FOUR], 5);
	check_sites(&one);
	CHECK_EQ(set(FOUR, 0x01020304), 0);
	check_sites(&one);
	check_sites(&two);
	end();
}

/* ---- batches ---- */

XP_TEST(batches)
{
	static const uint8_t nop5[] = {0x0f, 0x1f, 0x44, 0x00, 0x00}, jmp[] = {0xe9, 1, 2, 3, 4};
	static struct xp_static_key key;
	static struct xp_branch_site branch;
	struct xp_module keys = {.abi = XP_MODULE_ABI, .nr_tables = 1, .tables = {{&branch, &branch + 1}}};
	struct xp_poke poke = {.addr = rec_text + 0x5000, .expect = nop5, .replace = jmp, .len = 5};
	struct xp_batch *batch;
	struct xp_diag diag;

	start();
	key = (struct xp_static_key){.object = {.name = "key"}};
	rec_branch(&branch, 0x6000, 0x7000, &key, 0);
	CHECK_EQ(xp_module_register(&keys), 0);
	rec_put(0x5000, nop5, 5);
	batch = xp_batch_new();
	for (unsigned s = 0; s < NR_SIZES; s++) {
		CHECK_EQ(xp__batch_add_imv(batch, &value[s], &(uint64_t){11}, sizes[s]), 0);
		CHECK_EQ(xp__batch_add_imv(batch, &value[s], &(uint64_t){PATTERN}, sizes[s]),
			 0); /* the last one counts */
	}
	CHECK_EQ(xp_batch_add_key(batch, &key, true), 0);
	CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);

	rec_fail(REC_SYNC, 2, 1, -EIO);
	CHECK_EQ(xp_batch_commit(batch, &diag), -EIO);
	rec_heal();
	check_sites(&one);
	CHECK_EQ(key.count, 0);
	CHECK_EQ(variable[ONE] | variable[TWO] | variable[FOUR] | variable[EIGHT], 0);
	CHECK_MEM(rec_text + 0x5000, nop5, 5);

	rec_forget();
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	CHECK_EQ(rec.calls[REC_SYNC], 3);
	check_sites(&one);
	check_sites(&two);
	for (unsigned s = 0; s < NR_SIZES; s++)
		CHECK_MEM(&variable[s], &(uint64_t){PATTERN}, sizes[s]);
	CHECK_EQ(key.count, 1);
	CHECK_EQ(rec_text[0x6000], 0xe9);
	CHECK_MEM(rec_text + 0x5000, jmp, 5);
	xp_batch_free(batch);
	CHECK_EQ(xp_module_unregister(&keys), 0);
	end();
}

/* ---- ranges ---- */

static void check_range(unsigned s, uint64_t first, uint64_t last)
{
	uint64_t before = variable[s];

	CHECK_EQ(set(s, first), 0);
	CHECK_EQ(set(s, last), 0);
	rec_forget();
	CHECK_EQ(set(s, first - 1), -XP_E_VALUE);
	CHECK_EQ(set(s, last + 1), -XP_E_VALUE);
	CHECK_EQ(rec.calls[REC_SYNC], 0);
	CHECK_MEM(&variable[s], &last, sizes[s]);
	CHECK_EQ(set(s, before), 0);
}

XP_TEST(values_have_ranges)
{
	struct xp_batch *batch;

	start();
	value[ONE].type = XP_IMV_TYPED | XP_IMV_SIGNED | XP_IMV_RANGE;
	value[ONE].least = (uint64_t)-100;
	value[ONE].most = 100;
	check_range(ONE, (uint64_t)-100, 100);
	value[FOUR].type = XP_IMV_TYPED | XP_IMV_RANGE;
	value[FOUR].least = 0;
	value[FOUR].most = 0xfffffff0;
	CHECK_EQ(set(FOUR, 0xfffffff0), 0);
	CHECK_EQ(set(FOUR, 0xfffffff1), -XP_E_VALUE);
	value[EIGHT].type = XP_IMV_TYPED | XP_IMV_SIGNED | XP_IMV_RANGE;
	value[EIGHT].least = (uint64_t)INT64_MIN + 1;
	value[EIGHT].most = INT64_MAX - 1;
	check_range(EIGHT, (uint64_t)INT64_MIN + 1, INT64_MAX - 1);
	value[TWO].type = XP_IMV_TYPED | XP_IMV_BOOL;
	CHECK_EQ(set(TWO, 1), 0);
	CHECK_EQ(set(TWO, 2), -XP_E_VALUE);
	batch = xp_batch_new();
	CHECK_EQ(xp__batch_add_imv(batch, &value[ONE], &(uint8_t){101}, 1), -XP_E_VALUE);
	xp_batch_free(batch);
	check_sites(&one);
	for (unsigned s = 0; s < NR_SIZES; s++)
		value[s].type = 0;
	end();
}

XP_TEST_MAIN()
