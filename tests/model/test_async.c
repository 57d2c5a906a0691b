// SPDX-License-Identifier: MIT
/*
 * Commits that leave their sync to a later one (core/ticket.c), over a port that records, with a bystander who executes every
 * view of every site after every step: until the ticket is done old or new, afterwards new.
 */
#include "bystander.h"
#include "scenario.h"
#include "xp_test.h"

#include <errno.h>

enum { KEYS = 3, AT = 0x40, STEP = 0x40, TARGET = 0x2000, RAW = 0x800, VALUE = 0x900 };

static struct xp_static_key keys[KEYS];
static struct xp_branch_site records[KEYS];
static struct xp_imv value;
static uint32_t variable;
static struct xp_imv_site value_record;
static struct xp_module module, late;
static struct xp_branch_site late_record;
static struct xp_ticket ticket;

static const uint8_t mov[5] = {0xb8, 0, 0, 0, 0};

static void make_value(uint8_t *bytes, uint32_t number)
{
	memcpy(bytes, mov, sizeof(mov));
	memcpy(bytes + 1, &number, sizeof(number));
}

/* Three keys that are off, each with a site, a value of 0, and a raw site that is a mov of 0. */
static void start(void)
{
	uint8_t test[REC_BRANCH_LEN], jmp[REC_BRANCH_LEN];

	rec_start();
	rec.can = SCENARIO_SINGLE;
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	for (size_t i = 0; i < KEYS; i++) {
		size_t at = AT + i * STEP;

		keys[i] = (struct xp_static_key){.object.name = "key"};
		rec_branch(&records[i], at, TARGET, &keys[i], 0);
		memcpy(test, rec_text + at, sizeof(test));
		memcpy(jmp, test, sizeof(jmp));
		jmp[0] = 0xe9;
		bystander_watch(at, test, jmp, sizeof(test), 0);
	}
	variable = 0;
	value = (struct xp_imv){.object.name = "value", .value = &variable, .size = 4};
	rec_mov(&value_record, VALUE, mov, sizeof(mov), &value);
	rec_put(RAW, mov, sizeof(mov));
	module.tables[XP_SITE_BRANCH] = (struct xp_site_table){records, records + KEYS};
	module.tables[XP_SITE_IMV] = (struct xp_site_table){&value_record, &value_record + 1};
	CHECK_EQ(xp_module_register(&module), 0);
	memset(&ticket, 0x55, sizeof(ticket));
	rec_forget();
	bystander_start();
}

static void end(void)
{
	bystander_stop();
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	CHECK_EQ(xp_module_unregister(&module), 0);
	for (size_t i = 0; i < KEYS; i++)
		CHECK_EQ(keys[i].object.flags, 0);
	CHECK_EQ(value.object.flags, 0);
}

static int key_async(size_t i, bool on)
{
	return xp_static_key_set_async(&keys[i], on, &ticket);
}

static unsigned syncs(void)
{
	return rec.calls[REC_SYNC];
}

static int count(size_t i)
{
	return xp__static_key_count(&keys[i]);
}

/* The next commit takes the site there and back. */
static void turn_key(size_t i)
{
	uint8_t next[REC_BRANCH_LEN];

	memcpy(next, rec_text + AT + i * STEP, sizeof(next));
	next[0] ^= 0xa9 ^ 0xe9;
	bystander_then(AT + i * STEP, next);
}

/* ---- tickets ---- */

XP_TEST(a_key)
{
	start();
	CHECK_EQ(key_async(0, true), 0);
	CHECK_EQ(syncs(), 0);
	CHECK_EQ(rec_text[AT], 0xe9);
	bystander_check(BY_OLD | BY_NEW);
	CHECK_EQ(xp_ticket_poll(&ticket), 0);
	CHECK_EQ(xp_ticket_poll(&ticket), 0); /* it does not make it so */
	CHECK_EQ(count(0), 0);
	CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
	CHECK_EQ(syncs(), 1);
	CHECK_EQ(count(0), 1);
	CHECK_EQ(xp_ticket_poll(&ticket), 1);
	CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
	CHECK_EQ(syncs(), 1);
	CHECK_EQ(key_async(0, false), 0);
	CHECK_EQ(count(0), 0);
	CHECK_EQ(xp_ticket_poll(&ticket), 0);
	CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
	CHECK_EQ(syncs(), 2);
	CHECK(bystander_counts.views > 0);
	end();
}

/* A sync of any commit that begins later makes the ticket done; one that was before does not. */
XP_TEST(other_syncs)
{
	struct xp_ticket first;

	start();
	CHECK_EQ(xp_static_key_enable(&keys[1]), 0);
	CHECK_EQ(key_async(0, true), 0);
	first = ticket;
	CHECK_EQ(xp_ticket_poll(&first), 0);
	CHECK_EQ(key_async(2, true), 0);
	CHECK_EQ(xp_ticket_poll(&first), 0);
	CHECK_EQ(xp_static_key_disable(&keys[1]), 0);
	CHECK_EQ(syncs(), 2);
	CHECK_EQ(xp_ticket_poll(&first), 1);
	CHECK_EQ(xp_ticket_poll(&ticket), 1);
	CHECK_EQ(count(0), 1);
	CHECK_EQ(count(2), 1);
	CHECK_EQ(key_async(1, true), 0);
	CHECK_EQ(xp_ticket_poll(&first), 1);
	CHECK_EQ(xp_ticket_poll(&ticket), 0);
	CHECK_EQ(xp_ticket_wait(&first, NULL), 0);
	CHECK_EQ(syncs(), 2);
	CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
	CHECK_EQ(syncs(), 3);
	end();
}

XP_TEST(a_sync_that_fails)
{
	struct xp_diag diag;

	start();
	CHECK_EQ(key_async(0, true), 0);
	rec_fail(REC_SYNC, 1, 1, -EIO);
	CHECK_EQ(xp_ticket_wait(&ticket, &diag), -EIO);
	CHECK_EQ(diag.error, -EIO);
	CHECK_EQ(diag.phase, XP_PHASE_SYNC);
	CHECK_EQ(diag.system, EIO);
	CHECK_EQ(xp_ticket_poll(&ticket), 0);
	CHECK_EQ(count(0), 0);
	CHECK_EQ(rec_text[AT], 0xe9); /* the change stands */
	CHECK_EQ(xp_ticket_wait(&ticket, &diag), 0);
	CHECK_EQ(count(0), 1);
	rec_heal();
	rec_forget();
	CHECK_EQ(key_async(1, true), 0);
	rec_fail(REC_PREPARE, 2, 1, -EAGAIN);
	CHECK_EQ(xp_ticket_wait(&ticket, &diag), -EAGAIN);
	CHECK_EQ(diag.phase, XP_PHASE_PREPARE);
	CHECK_EQ(syncs(), 0);
	rec_heal();
	rec_fail(REC_LOCK, 3, 1, -XP_E_HELD);
	CHECK_EQ(xp_ticket_wait(&ticket, &diag), -XP_E_HELD);
	rec_heal();
	CHECK_EQ(xp_ticket_wait(&ticket, &diag), 0);
	CHECK_EQ(diag.error, 0);
	end();
}

XP_TEST(what_is_no_ticket)
{
	const struct xp_ticket zero = {0};
	struct xp_ticket wrong;
	struct xp_diag diag;

	start();
	CHECK_EQ(xp_ticket_poll(&zero), 1);
	CHECK_EQ(xp_ticket_wait(&zero, &diag), 0);
	CHECK_EQ(xp_ticket_poll(NULL), -EINVAL);
	CHECK_EQ(xp_ticket_wait(NULL, &diag), -EINVAL);
	CHECK_EQ(diag.error, -EINVAL);
	CHECK_EQ(xp_static_key_set_async(&keys[0], true, NULL), -EINVAL);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	CHECK_EQ(key_async(0, true), 0);
	wrong.sync = ticket.sync + 1;
	CHECK_EQ(xp_ticket_poll(&wrong), -EINVAL);
	CHECK_EQ(xp_ticket_wait(&wrong, NULL), -EINVAL);
	CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
	end();
}

/* What is so already owes nothing, or what the commit before owes. */
XP_TEST(nothing_to_do)
{
	start();
	CHECK_EQ(key_async(0, false), 0);
	CHECK_EQ(xp_ticket_poll(&ticket), 1);
	CHECK_EQ(key_async(0, true), 0);
	CHECK_EQ(key_async(0, true), 0);
	CHECK_EQ(rec.calls[REC_WRITE], 1);
	CHECK_EQ(xp_ticket_poll(&ticket), 0);
	CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
	CHECK_EQ(syncs(), 1);
	end();
}

/* ---- what may come before the sync ---- */

XP_TEST(keys_pile_up)
{
	start();
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(key_async(0, true), 0);
		turn_key(0);
		CHECK_EQ(key_async(0, false), 0);
		turn_key(0);
		CHECK_EQ(count(0), 0);
	}
	CHECK_EQ(key_async(0, true), 0);
	CHECK_EQ(key_async(1, true), 0);
	CHECK_EQ(syncs(), 0);
	/* A commit of keys alone does not sync twice. */
	CHECK_EQ(xp_static_key_enable(&keys[2]), 0);
	CHECK_EQ(syncs(), 1);
	bystander_check(BY_NEW);
	CHECK_EQ(count(0), 1);
	CHECK_EQ(count(1), 1);
	end();
}

static struct xp_poke raw_poke(const uint8_t *old, const uint8_t *new)
{
	return (struct xp_poke){.addr = rec_text + RAW, .expect = old, .replace = new, .len = sizeof(mov)};
}

/* A mov of 0, then of @first, then of @second, by a batch each. */
static void twice(bool raw, uint32_t first, uint32_t second, unsigned syncs_wanted)
{
	uint8_t state[3][sizeof(mov)];
	struct xp_batch *batch = NULL;

	start();
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	make_value(state[0], 0);
	make_value(state[1], first);
	make_value(state[2], second);
	bystander_stop();
	bystander_watch(raw ? RAW : VALUE, state[0], state[1], sizeof(mov), 0);
	bystander_start();
	for (int i = 0; i < 2; i++) {
		struct xp_poke poke = raw_poke(state[i], state[i + 1]);
		uint32_t number = i ? second : first;

		if (i)
			bystander_then(raw ? RAW : VALUE, state[2]);
		CHECK_EQ(raw ? xp_batch_add_poke(batch, &poke) : xp__batch_add_imv(batch, &value, &number, 4), 0);
		CHECK_EQ(xp_batch_commit_async(batch, &ticket, NULL), 0);
		CHECK_EQ(variable, raw ? 0 : number);
	}
	CHECK_EQ(syncs(), syncs_wanted);
	CHECK_EQ(xp_ticket_poll(&ticket), 0);
	CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
	bystander_check(BY_NEW);
	xp_batch_free(batch);
	end();
}

/* The first byte that differs is old, the second new: a number that was never asked for. */
XP_TEST(other_sites_do_not_pile_up)
{
	twice(true, 0x01, 0x0101, 1);
	twice(false, 0x01, 0x0101, 1);
	twice(true, 0x01020304, 0x01020305, 1);
	twice(false, 0x01020304, 0x05060708, 1);
}

XP_TEST(another_value_does_not_wait)
{
	struct xp_batch *batch;
	uint32_t number = 7;

	start();
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	CHECK_EQ(key_async(0, true), 0);
	CHECK_EQ(xp__batch_add_imv(batch, &value, &number, 4), 0);
	CHECK_EQ(xp_batch_add_key(batch, &keys[1], true), 0);
	CHECK_EQ(xp_batch_commit_async(batch, &ticket, NULL), 0);
	CHECK_EQ(syncs(), 0);
	CHECK_EQ(key_async(2, true), 0);
	CHECK_EQ(syncs(), 0);
	/* Set to what it is: true when it returns. */
	CHECK_EQ(xp__imv_set(&value, &number, 4), 0);
	CHECK_EQ(syncs(), 1);
	CHECK_EQ(xp_ticket_poll(&ticket), 1);
	xp_batch_free(batch);
	end();
}

/* Bytes at an address may be any object's: in both orders the sync comes between. */
XP_TEST(pokes_and_keys)
{
	uint8_t one[sizeof(mov)], two[sizeof(mov)];
	struct xp_poke there, back;

	start();
	make_value(one, 0);
	make_value(two, 1);
	there = raw_poke(one, two);
	back = raw_poke(two, one);
	CHECK_EQ(key_async(0, true), 0);
	CHECK_EQ(xp_text_poke(&there, NULL), 0);
	CHECK_EQ(syncs(), 2);
	struct xp_batch *batch = xp_batch_new();
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_add_poke(batch, &back), 0);
	CHECK_EQ(xp_batch_commit_async(batch, &ticket, NULL), 0);
	CHECK_EQ(syncs(), 2);
	CHECK_EQ(key_async(0, false), 0);
	CHECK_EQ(syncs(), 3);
	CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
	xp_batch_free(batch);
	end();
}

/* What has several stores, or parks, begins with nothing owed. */
XP_TEST(a_commit_with_breakpoints)
{
	static const enum xp_policy policies[] = {XP_POLICY_BREAKPOINT, XP_POLICY_QUIESCE};
	static const unsigned wanted[] = {1 + 2, 1};

	for (int i = 0; i < 2; i++) {
		start();
		CHECK_EQ(key_async(0, true), 0);
		turn_key(0);
		CHECK_EQ(xp_set_policy(policies[i]), 0);
		CHECK_EQ(xp_static_key_disable(&keys[0]), 0);
		CHECK_EQ(syncs(), wanted[i]);
		CHECK_EQ(xp_ticket_poll(&ticket), 1);
		CHECK_EQ(count(0), 0);
		end();
	}
}

XP_TEST(a_sync_that_is_owed_fails_first)
{
	struct xp_diag diag;
	struct xp_poke poke;
	uint8_t one[sizeof(mov)], two[sizeof(mov)];

	start();
	make_value(one, 0);
	make_value(two, 1);
	poke = raw_poke(one, two);
	CHECK_EQ(key_async(0, true), 0);
	rec_forget();
	rec_fail(REC_SYNC, 1, 1, -EIO);
	CHECK_EQ(xp_text_poke(&poke, &diag), -EIO);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	rec_heal();
	CHECK_EQ(xp_ticket_poll(&ticket), 0);
	CHECK_EQ(xp_text_poke(&poke, &diag), 0);
	CHECK_EQ(xp_ticket_poll(&ticket), 1);
	end();
}

/* ---- keys that are on, and not everywhere ---- */

XP_TEST(on_already_is_synchronized)
{
	start();
	CHECK_EQ(key_async(0, true), 0);
	rec_fail(REC_SYNC, 1, 1, -EIO);
	CHECK_EQ(xp_static_key_enable(&keys[0]), -EIO);
	rec_heal();
	CHECK_EQ(count(0), 0);
	CHECK_EQ(xp_static_key_enable(&keys[0]), 0);
	CHECK_EQ(syncs(), 2);
	CHECK_EQ(count(0), 1);
	CHECK_EQ(key_async(0, false), 0);
	CHECK_EQ(xp_static_key_disable(&keys[0]), 0);
	CHECK_EQ(syncs(), 3);
	CHECK_EQ(xp_ticket_poll(&ticket), 1);
	CHECK_EQ(rec.calls[REC_WRITE], 2);
	/* Not on account of another key's. */
	CHECK_EQ(key_async(0, true), 0);
	CHECK_EQ(xp_static_key_disable(&keys[1]), 0);
	CHECK_EQ(syncs(), 3);
	end();
}

XP_TEST(counted_keys)
{
	start();
	CHECK_EQ(key_async(0, true), 0);
	rec_fail(REC_SYNC, 1, 1, -EIO);
	CHECK_EQ(xp_static_key_inc(&keys[0]), -EIO);
	CHECK_EQ(count(0), 0);
	CHECK_EQ(xp_static_key_inc(&keys[0]), 0);
	CHECK_EQ(syncs(), 2);
	CHECK_EQ(count(0), 2);
	CHECK_EQ(key_async(0, false), -XP_E_COUNTED);
	CHECK_EQ(xp_static_key_dec(&keys[0]), 0);
	CHECK_EQ(xp_static_key_dec(&keys[0]), 0);
	CHECK_EQ(syncs(), 3);
	rec_heal();
	CHECK_EQ(key_async(0, true), 0);
	CHECK_EQ(xp_static_key_dec(&keys[0]), 0);
	CHECK_EQ(syncs(), 5);
	CHECK_EQ(count(0), 0);
	CHECK_EQ(rec_text[AT], 0xa9);
	CHECK_EQ(xp_static_key_inc(&keys[0]), 0);
	CHECK_EQ(key_async(0, true), -XP_E_COUNTED);
	CHECK_EQ(xp_static_key_dec(&keys[0]), 0);
	end();
}

/* A change that fails leaves the key on, owed or not, and says so in the end. */
XP_TEST(off_fails)
{
	static const enum rec_op ops[] = {REC_PREPARE, REC_WRITE, REC_SYNC};

	for (int async = 0; async < 2; async++)
		for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]) - (size_t)async; i++) {
			start();
			CHECK_EQ(key_async(0, true), 0);
			turn_key(0);
			rec_forget();
			rec_fail(ops[i], 1, 1, -EIO);
			CHECK_EQ(async ? key_async(0, false) : xp_static_key_disable(&keys[0]), -EIO);
			CHECK_EQ(rec_text[AT], 0xe9);
			rec_heal();
			CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
			bystander_check(BY_OLD);
			CHECK_EQ(count(0), 1);
			CHECK_EQ(xp_static_key_disable(&keys[0]), 0);
			CHECK_EQ(count(0), 0);
			end();
		}
}

/* ---- modules ---- */

XP_TEST(a_module_that_comes)
{
	start();
	CHECK_EQ(key_async(0, true), 0);
	late = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = 1};
	rec_branch(&late_record, 0x400, TARGET, &keys[0], 0);
	late.tables[0] = (struct xp_site_table){&late_record, &late_record + 1};
	CHECK_EQ(xp_module_register(&late), 0);
	CHECK_EQ(rec_text[0x400], 0xe9);
	CHECK_EQ(xp_ticket_poll(&ticket), 1);
	CHECK_EQ(xp_module_unregister(&late), 0);
	end();
}

XP_TEST(a_module_that_goes)
{
	start();
	CHECK_EQ(key_async(0, true), 0);
	late = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = 1};
	rec_branch(&late_record, 0x400, TARGET, &keys[1], 0);
	late.tables[0] = (struct xp_site_table){&late_record, &late_record + 1};
	CHECK_EQ(xp_module_register(&late), 0);
	CHECK_EQ(xp_ticket_poll(&ticket), 0);
	CHECK_EQ(xp_module_unregister(&late), 0);
	CHECK_EQ(syncs(), 1);
	CHECK_EQ(xp_ticket_poll(&ticket), 1);
	end();
}

/* The sync fails, and a module goes all the same: key 1 has a site elsewhere, then key 0 has none any more. */
XP_TEST(a_module_that_goes_unsynchronized)
{
	start();
	late = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = 1};
	rec_branch(&late_record, 0x400, TARGET, &keys[1], 0);
	late.tables[0] = (struct xp_site_table){&late_record, &late_record + 1};
	CHECK_EQ(xp_module_register(&late), 0);
	CHECK_EQ(key_async(0, true), 0);
	CHECK_EQ(key_async(1, true), 0);
	rec_fail(REC_SYNC, 1, 2, -EIO);
	CHECK_EQ(xp_module_unregister(&late), 0);
	CHECK_EQ(count(0), 0);
	CHECK_EQ(count(1), 0);
	bystander_stop();
	CHECK_EQ(xp_module_unregister(&module), 0);
	CHECK_EQ(syncs(), 2);
	rec_heal();
	CHECK_EQ(count(0), 1);
	CHECK_EQ(keys[0].object.flags, 0);
	CHECK_EQ(count(1), 1);
	CHECK_EQ(xp_ticket_poll(&ticket), 0);
	CHECK_EQ(xp_ticket_wait(&ticket, NULL), 0);
	CHECK_EQ(syncs(), 3);
}

/* ---- what cannot be asynchronous ---- */

static void refused(struct xp_batch *batch, const char *why)
{
	struct xp_ticket was = ticket;
	struct xp_diag diag;

	rec_forget();
	CHECK_EQ(xp_batch_commit_async(batch, &ticket, &diag), -XP_E_NEEDS_SYNC);
	CHECK_EQ(diag.error, -XP_E_NEEDS_SYNC);
	CHECK_EQ(diag.phase, XP_PHASE_VALIDATE);
	CHECK(diag.detail && strstr(diag.detail, why));
	CHECK_MEM(&ticket, &was, sizeof(was));
	CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_SYNC] + rec.calls[REC_PREPARE], 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0); /* it is as it was */
}

static void target(void) {}

XP_TEST(what_takes_several_stores)
{
	static const uint8_t nop[5] = {0x0f, 0x1f, 0x44, 0, 0}, jmp[5] = {0xe9, 1, 0, 0, 0};
	struct xp_poke poke = {.addr = rec_text + RAW + 6, .expect = nop, .replace = jmp, .len = 5};
	static struct xp_static_call call;
	static struct xp_call_site call_record;
	struct xp_batch *batch;

	start();
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK_EQ(xp_batch_add_key(batch, &keys[0], true), 0);
	refused(batch, "more than one store");
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	CHECK_EQ(xp_batch_add_key(batch, &keys[1], true), 0);
	refused(batch, "more than one store");
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
	rec_put(RAW + 6, nop, sizeof(nop));
	CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
	CHECK_EQ(xp_batch_add_key(batch, &keys[2], true), 0);
	refused(batch, "more than one store");
	CHECK_EQ(count(2), 1);
	memset(&call, 0, sizeof(call));
	rec_call(&call, &call_record, 0x3000, 0x3100, NULL);
	CHECK_EQ(xp__batch_add_call(batch, &call, (xp__call_func *)target), 0);
	refused(batch, "given back");
	xp_batch_free(batch);
	end();
}

static void wedge(const void *nothing)
{
	(void)nothing;
	start();
	CHECK_EQ(key_async(0, true), 0);
	rec_fail(REC_SYNC, 1, REC_FOREVER, -EIO);
	CHECK_EQ(xp_static_key_enable(&keys[1]), -EIO);
	CHECK_EQ(xp_state(), XP_STATE_WEDGED);
	rec_heal();
	CHECK_EQ(xp_ticket_poll(&ticket), -XP_E_WEDGED);
	CHECK_EQ(xp_ticket_wait(&ticket, NULL), -XP_E_WEDGED);
	CHECK_EQ(count(0), 0);
}

XP_TEST(a_wedged_engine)
{
	rec_isolated(wedge, NULL);
}

XP_TEST_MAIN()
