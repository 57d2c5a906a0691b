// SPDX-License-Identifier: MIT
/* Gates on the recording port: the calls of a binding, what a failure of each leaves behind, what is refused. */
#include "xp_test.h"

#include "core/reclaim.h"
#include "core/state.h"
#include "recorder.h"

#include <crosspatch/gate.h>
#include <errno.h>

void *xp__gate_resolve(struct xp_object *object, uintptr_t return_address);

/* Offsets in rec_text. */
enum { UD2 = 64, CALL = 128, STUB = 256, FALLBACK = 512, PROVIDER = 1041, OTHER = 2094 };

static const uint8_t virgin[8] = {0x0f, 0x0b, 0x2e, 0xe8};
static struct xp_gate handle;
static struct xp_gate_site sites[3];
static struct xp_module module;
static uintptr_t stack[8];

static xp__gate_func *text_at(size_t offset)
{
	return (xp__gate_func *)(uintptr_t)(rec_text + offset);
}

static void record(unsigned i, size_t code, unsigned flags)
{
	sites[i].code = (int32_t)((uintptr_t)(rec_text + code) - (uintptr_t)&sites[i].code);
	sites[i].gate = (int32_t)((uintptr_t)&handle + flags - (uintptr_t)&sites[i].gate);
}

static void put_call(size_t code, size_t target)
{
	uint8_t bytes[5];

	REQUIRE(xp_text_gen_insn(bytes, 0xe8, rec_text + code, rec_text + target) == 0);
	rec_put(code, bytes, sizeof(bytes));
}

/* An executable with a stub, a call of it, and a site in UD2 form. */
static int start(size_t ud2)
{
	CHECK_EQ(xp_module_unregister(&module), 0); /* it waits, if it was refused */
	rec_start();
	memset(&handle, 0, sizeof(handle));
	memset(&module, 0, sizeof(module));
	handle.object.name = "g";
	handle.slot = handle.fallback = text_at(FALLBACK);
	handle.stub = text_at(STUB);
	record(0, STUB, XP_SITE_STUB);
	record(1, ud2, XP_SITE_UD2);
	record(2, CALL, 0);
	rec_put(ud2, virgin, sizeof(virgin));
	put_call(CALL, STUB);
	module.abi = XP_MODULE_ABI;
	module.nr_tables = XP_NR_SITE_KINDS;
	module.tables[XP_SITE_GATE].start = sites;
	module.tables[XP_SITE_GATE].end = sites + 3;
	return xp_module_register(&module);
}

static void stop(void)
{
	(void)xp_gate_withdraw("g");
	CHECK_EQ(xp_module_unregister(&module), 0);
}

static uintptr_t target(size_t call)
{
	int32_t disp;

	memcpy(&disp, rec_text + call + 1, sizeof(disp));
	return (uintptr_t)rec_text + call + 5 + (uintptr_t)(intptr_t)disp - (uintptr_t)rec_text;
}

static enum xp_trap_verdict fault(struct xp_regs *regs)
{
	memset(regs, 0, sizeof(*regs));
	memset(stack, 0, sizeof(stack));
	regs->ip = (uintptr_t)(rec_text + UD2);
	regs->gpr[4] = (uintptr_t)(stack + 8);
	return xp_trap_illegal(regs, 0);
}

static void *resolve(size_t call)
{
	return xp__gate_resolve(&handle.object, (uintptr_t)(rec_text + call + 5));
}

XP_TEST(one_store_binds_a_fault)
{
	struct xp_regs regs;

	REQUIRE(start(UD2) == 0);
	REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
	rec_forget();
	CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
	CHECK_EQ(regs.ip, (uintptr_t)(rec_text + UD2));
	CHECK_EQ(rec.calls[REC_WRITE], 1);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	CHECK_EQ(target(UD2 + 3), PROVIDER);
	CHECK_MEM(rec_text + UD2, "\x2e\x2e\x2e\xe8", 4);
	/* A thread that faulted meanwhile executes it again, and writes nothing. */
	rec_forget();
	CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
	CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_LOCK], 0);
	regs.ip += 8;
	CHECK_EQ(xp_trap_illegal(&regs, 0), XP_TRAP_FOREIGN);
	stop();
	CHECK_EQ(target(UD2 + 3), STUB);
	CHECK_EQ(fault(&regs), XP_TRAP_FOREIGN);
}

XP_TEST(three_phases_where_no_store_is_single)
{
	struct xp_regs regs;

	REQUIRE(start(UD2) == 0);
	rec.can &= ~(unsigned)XP_NEED_SINGLE;
	rec_forget();
	CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
	CHECK_EQ(rec.calls[REC_WRITE], 3);
	CHECK_EQ(rec.calls[REC_SYNC], 3);
	CHECK(rec.prepared & XP_NEED_TRAP);
	CHECK_EQ(target(UD2 + 3), STUB);
	stop();
}

/* The fault is one instruction: a thread that rests at its first byte need not be moved. */
XP_TEST(nobody_rests_inside_a_fault)
{
	struct xp_regs regs;

	REQUIRE(start(UD2) == 0);
	REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	rec_forget();
	CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
	CHECK_EQ(target(UD2 + 3), PROVIDER);
	CHECK_EQ(rec.calls[REC_PARK], 1);
	CHECK(strstr(rec_trace(), "park 0x") == NULL);
	stop();
}

/* Whatever fails: the site is as it was, and the call that faulted goes where the gate leads. */
static void binding_fails(enum rec_op op, unsigned nth)
{
	struct xp_regs regs;
	void *to;

	REQUIRE(start(UD2) == 0);
	rec.can &= ~(unsigned)XP_NEED_SINGLE;
	REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
	rec_forget();
	rec_fail(op, nth, 1, -5);
	CHECK_EQ(fault(&regs), XP_TRAP_DONE);
	CHECK_MEM(rec_text + UD2, virgin, sizeof(virgin));
	CHECK_EQ(regs.ip, (uintptr_t)(rec_text + PROVIDER));
	CHECK_EQ(regs.gpr[4], (uintptr_t)(stack + 7));
	CHECK_EQ(stack[7], (uintptr_t)(rec_text + UD2 + 8));
	rec_heal();
	rec_forget();
	rec_fail(op, nth, 1, -5);
	to = resolve(CALL);
	rec_heal();
	CHECK(to == rec_text + PROVIDER);
	CHECK_EQ(target(CALL), STUB);
	CHECK(resolve(CALL) == rec_text + PROVIDER);
	CHECK_EQ(target(CALL), PROVIDER);
	stop();
	CHECK_EQ(target(CALL), STUB);
}

XP_TEST(every_step_of_a_binding_fails)
{
	binding_fails(REC_LOCK, 1);
	binding_fails(REC_PREPARE, 1);
	for (unsigned nth = 1; nth <= 3; nth++) {
		binding_fails(REC_WRITE, nth);
		binding_fails(REC_SYNC, nth);
	}
}

/* Faults until the site is bound or @most were met; all that are not its end go to @to. The number of them. */
static unsigned faults_until_bound(unsigned most, size_t to)
{
	struct xp_regs regs;

	for (unsigned i = 0; i < most; i++) {
		if (fault(&regs) == XP_TRAP_RETRY)
			return i;
		if (regs.ip != (uintptr_t)(rec_text + to))
			CHECK_EQ(regs.ip, (uintptr_t)(rec_text + to));
	}
	return most;
}

/* What each try waits for is the port's; so few of the faults try. */
XP_TEST(a_site_that_cannot_be_bound_is_seldom_tried)
{
	REQUIRE(start(UD2) == 0);
	rec_forget();
	rec_fail(REC_PREPARE, 1, 1000000, -16);
	CHECK_EQ(faults_until_bound(3, STUB), 3); /* no provider */
	CHECK_EQ(rec.calls[REC_PREPARE], 3);
	/* A provider that comes has it tried anew. */
	REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
	rec_forget();
	rec_fail(REC_PREPARE, 1, 1000000, -16);
	CHECK_EQ(faults_until_bound(8, PROVIDER), 8);
	CHECK_EQ(rec.calls[REC_PREPARE], 8);
	CHECK_EQ(faults_until_bound(1000 - 8, PROVIDER), 1000 - 8);
	CHECK_EQ(rec.calls[REC_PREPARE], 8 + 7); /* numbers 8, 16, … 512 */
	CHECK_EQ(faults_until_bound(19000, PROVIDER), 19000);
	CHECK_EQ(rec.calls[REC_PREPARE], 8 + 11 + 2); /* … 8192; 12288, 16384 */
	CHECK_MEM(rec_text + UD2, virgin, sizeof(virgin));
	/* It can be bound again: at the next try. */
	rec_heal();
	CHECK_EQ(faults_until_bound(4096, PROVIDER), 480);
	CHECK_EQ(target(UD2 + 3), PROVIDER);
	CHECK_EQ(handle.faults, 0);
	stop();
}

XP_TEST(withdrawal_fails)
{
	for (unsigned nth = 1; nth <= 2; nth++) {
		REQUIRE(start(UD2) == 0);
		REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
		CHECK(resolve(CALL) == rec_text + PROVIDER);
		rec_forget();
		rec_fail(nth == 1 ? REC_WRITE : REC_SYNC, 1, 1, -5);
		CHECK_EQ(xp_gate_withdraw("g"), -5);
		rec_heal();
		CHECK_EQ(target(CALL), PROVIDER);
		CHECK(xp__gate_available(&handle));
		CHECK(handle.slot != handle.fallback);
		CHECK(resolve(CALL) == rec_text + PROVIDER);
		stop();
		CHECK(!xp__gate_available(&handle));
		CHECK(handle.slot == handle.fallback);
	}
}

/* The provider of before is what text may hold that comes back. */
XP_TEST(a_table_that_comes_back)
{
	REQUIRE(start(UD2) == 0);
	REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
	CHECK(resolve(CALL) == rec_text + PROVIDER);
	REQUIRE(xp_module_unregister(&module) == 0);
	CHECK_EQ(target(CALL), PROVIDER);
	REQUIRE(xp__gate_replace("g", text_at(OTHER)) == 0);
	REQUIRE(xp_module_register(&module) == 0);
	CHECK_EQ(target(CALL), OTHER);
	CHECK_MEM(rec_text + UD2, virgin, sizeof(virgin));
	stop();
	CHECK_EQ(target(CALL), STUB);
}

/* No memory is left when the module goes: a fault at that address is a stranger's all the same, till a site stands there again. */
static void go_without_memory(const void *data)
{
	struct xp_regs regs;

	(void)data;
	REQUIRE(start(UD2) == 0);
	REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
	rec_fail(REC_ALLOC, 1, REC_FOREVER, -ENOMEM);
	REQUIRE(xp__lock(NULL) == 0);
	xp__reclaim();
	for (size_t size = 16; size <= 2048; size *= 2)
		while (xp__reclaim_take(size))
			;
	xp__unlock();
	CHECK_EQ(xp_module_unregister(&module), 0);
	CHECK_EQ(fault(&regs), XP_TRAP_FOREIGN);
	rec_heal();
	rec_put(UD2, virgin, sizeof(virgin));
	REQUIRE(xp_module_register(&module) == 0);
	CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
	CHECK_EQ(target(UD2 + 3), PROVIDER);
}

XP_TEST(a_table_that_goes_without_memory)
{
	rec_isolated(go_without_memory, NULL);
}

/* It has two records, which do not say the same. */
XP_TEST(a_stub_that_is_a_site)
{
	static const uint8_t stub[8] = {0x0f, 0x0b, 0x2e, 0xe9};

	REQUIRE(start(UD2) == 0);
	CHECK_EQ(xp_module_unregister(&module), 0);
	rec_put(STUB, stub, sizeof(stub));
	record(1, STUB, XP_SITE_UD2);
	CHECK_EQ(xp_module_register(&module), 0);
	stop();
}

/* Of another executable. */
static struct xp_gate another;
static struct xp_gate_site others[2];
static struct xp_module module_of_other;

static void record_of_other(unsigned i, size_t code, unsigned flags)
{
	others[i].code = (int32_t)((uintptr_t)(rec_text + code) - (uintptr_t)&others[i].code);
	others[i].gate = (int32_t)((uintptr_t)&another + flags - (uintptr_t)&others[i].gate);
}

/* A call that no record names is unbound when its executable goes; calls of others stay bound, and that is known. */
XP_TEST(a_site_that_is_unbound_alone)
{
	enum { FOUND = 192, CALL_OF_OTHER = 320, STUB_OF_OTHER = 384 };

	REQUIRE(start(UD2) == 0);
	put_call(FOUND, STUB);
	memset(&another, 0, sizeof(another));
	another.object.name = "g";
	another.slot = another.fallback = text_at(FALLBACK);
	another.stub = text_at(STUB_OF_OTHER);
	record_of_other(0, STUB_OF_OTHER, XP_SITE_STUB);
	record_of_other(1, CALL_OF_OTHER, 0);
	put_call(CALL_OF_OTHER, STUB_OF_OTHER);
	module_of_other = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module_of_other.tables[XP_SITE_GATE] = (struct xp_site_table){others, others + 2};
	REQUIRE(xp_module_register(&module_of_other) == 0);
	REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
	CHECK(resolve(FOUND) == rec_text + PROVIDER);
	CHECK(xp__gate_resolve(&another.object, (uintptr_t)(rec_text + CALL_OF_OTHER + 5)) == rec_text + PROVIDER);
	CHECK_EQ(target(FOUND), PROVIDER);
	CHECK_EQ(target(CALL_OF_OTHER), PROVIDER);
	CHECK_EQ(xp_module_unregister(&module), 0);
	CHECK_EQ(target(FOUND), STUB);
	CHECK_EQ(target(CALL_OF_OTHER), PROVIDER);
	CHECK_EQ(xp__gate_replace("g", text_at(OTHER)), 0);
	CHECK_EQ(target(CALL_OF_OTHER), OTHER);
	CHECK_EQ(xp_gate_withdraw("g"), 0);
	CHECK_EQ(target(CALL_OF_OTHER), STUB_OF_OTHER);
	CHECK_EQ(xp_module_unregister(&module_of_other), 0);
}

/* Calls that no record names, whatever their number: each is bound, changes with the others, and is unbound with them. */
XP_TEST(three_calls_without_a_record)
{
	static const size_t found[] = {192, 320, 392};
	enum { NR = sizeof(found) / sizeof(found[0]) };
	unsigned i;

	REQUIRE(start(UD2) == 0);
	for (i = 0; i < NR; i++)
		put_call(found[i], STUB);
	REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
	for (unsigned turn = 0; turn < 2; turn++) {
		for (i = 0; i < NR; i++) {
			for (unsigned k = 0; k < NR; k++)
				CHECK_EQ(target(found[k]), k < i ? PROVIDER : STUB);
			rec_forget();
			CHECK(resolve(found[i]) == rec_text + PROVIDER);
			CHECK_EQ(rec.calls[REC_SYNC], 1);
			/* The second time round the memory is that of the first. */
			CHECK(turn == 0 || rec.calls[REC_ALLOC] == 0);
		}
		rec_forget();
		REQUIRE(xp__gate_replace("g", text_at(OTHER)) == 0);
		CHECK_EQ(rec.calls[REC_PREPARE], 1);
		for (i = 0; i < NR; i++)
			CHECK_EQ(target(found[i]), OTHER);
		CHECK_EQ(xp_gate_withdraw("g"), 0);
		for (i = 0; i < NR; i++)
			CHECK_EQ(target(found[i]), STUB);
		REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
		for (i = 0; i < NR; i++)
			CHECK(resolve(found[i]) == rec_text + PROVIDER);
		REQUIRE(xp_module_unregister(&module) == 0);
		CHECK(handle.discovered == NULL);
		for (i = 0; i < NR; i++)
			CHECK_EQ(target(found[i]), STUB);
		REQUIRE(xp_module_register(&module) == 0);
	}
	stop();
}

XP_TEST(registration_refuses)
{
	static const uint8_t neither[8] = {0x0f, 0x0b, 0x2e, 0xe9};

	CHECK_EQ(start(UD2 + 4), -XP_E_CORRUPT);
	CHECK(handle.object.real == NULL);
	/* Calls of the gate would not reach a provider. */
	CHECK_EQ(xp_gate_provide("g", text_at(PROVIDER)), -XP_E_CORRUPT);
	CHECK_EQ(xp_gate_withdraw("g"), -XP_E_CORRUPT);
	CHECK_EQ(xp_gate_provide("another", text_at(PROVIDER)), 0);
	CHECK_EQ(xp_gate_withdraw("another"), 0);
	CHECK_EQ(start(UD2), 0);
	stop();
#ifdef __x86_64__
	handle.stub = (xp__gate_func *)((uintptr_t)rec_text + (1ull << 40));
	CHECK_EQ(xp_module_register(&module), -XP_E_CORRUPT);
	handle.stub = text_at(STUB);
#endif

	rec_put(UD2, neither, sizeof(neither));
	CHECK_EQ(xp_module_register(&module), -XP_E_CORRUPT);
	rec_put(UD2, virgin, sizeof(virgin));
	rec_put(CALL, virgin, 5);
	CHECK_EQ(xp_module_register(&module), -XP_E_MISMATCH);
	put_call(CALL, STUB);

	rec.can &= ~(unsigned)XP_NEED_ILLEGAL;
	CHECK_EQ(xp_module_register(&module), -XP_E_NO_METHOD);
	rec.can |= XP_NEED_ILLEGAL;
	rec.can &= ~(unsigned)XP_NEED_CALL;
	CHECK_EQ(xp_module_register(&module), -XP_E_SHADOW_STACK);
	rec.can |= XP_NEED_CALL;
	for (unsigned nth = 1; nth <= 2; nth++) {
		rec_forget();
		rec_fail(REC_ALLOC, nth, 1, -12);
		CHECK_EQ(xp_module_register(&module), -12);
		rec_heal();
		CHECK(handle.object.real == NULL);
	}
	CHECK_EQ(xp_module_register(&module), 0);
	stop();
}

/* ---- batches ---- */

static void check_sites(size_t where)
{
	CHECK_EQ(target(CALL), where);
	CHECK_EQ(target(UD2 + 3), where);
	CHECK_MEM(rec_text + UD2, "\x2e\x2e\x2e\xe8", 4);
}

static void commit_gate(struct xp_batch *batch, size_t provider, int error)
{
	CHECK_EQ(xp__batch_add_gate(batch, "g", provider ? text_at(provider) : NULL), 0);
	rec_forget();
	CHECK_EQ(xp_batch_commit(batch, NULL), error);
}

/* Whatever it was before; every site that is known, with one sync. */
XP_TEST(a_batch_says_where_a_gate_leads)
{
	struct xp_batch *batch;

	REQUIRE(start(UD2) == 0);
	batch = xp_batch_new();
	commit_gate(batch, 0, 0); /* no provider, and so it stays */
	CHECK_EQ(rec.calls[REC_PREPARE], 0);
	CHECK_MEM(rec_text + UD2, virgin, sizeof(virgin));
	commit_gate(batch, PROVIDER, 0);
	check_sites(PROVIDER);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	CHECK(handle.slot != handle.fallback && handle.slot != text_at(PROVIDER));
	commit_gate(batch, OTHER, 0);
	check_sites(OTHER);
	commit_gate(batch, OTHER, 0);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	CHECK_EQ(xp__batch_add_gate(batch, "g", NULL), 0);
	commit_gate(batch, PROVIDER, 0); /* the last wish counts */
	check_sites(PROVIDER);
	commit_gate(batch, 0, 0);
	check_sites(STUB);
	CHECK(!xp__gate_available(&handle));
	CHECK(handle.slot == handle.fallback);
	CHECK_EQ(xp__batch_add_gate(batch, NULL, text_at(OTHER)), -22);
	CHECK_EQ(xp__batch_add_gate(batch, "", text_at(OTHER)), -22);
	CHECK_EQ(xp__batch_add_gate(NULL, "g", text_at(OTHER)), -22);
	CHECK_EQ(xp__batch_add_gate(batch, "not yet declared", text_at(OTHER)), 0);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	CHECK_EQ(xp__gate_provide("not yet declared", text_at(OTHER)), -XP_E_PROVIDED);
	CHECK_EQ(xp_gate_withdraw("not yet declared"), 0);
	xp_batch_free(batch);
	stop();
}

XP_TEST(a_stub_that_faults_becomes_a_jump_over_itself)
{
	static const uint8_t jump[8] = {0x0f, 0x0b, 0x2e, 0xe9};
	struct xp_batch *batch;

	REQUIRE(start(UD2) == 0);
	REQUIRE(xp_module_unregister(&module) == 0);
	record(1, STUB, XP_SITE_UD2);
	rec_put(STUB, jump, sizeof(jump));
	REQUIRE(xp_module_register(&module) == 0);
	batch = xp_batch_new();
	commit_gate(batch, PROVIDER, 0);
	CHECK_MEM(rec_text + STUB, "\x2e\x2e\x2e\xe9\0\0\0\0", 8);
	CHECK_EQ(target(CALL), PROVIDER);
	xp_batch_free(batch);
	stop();
}

/* Unbound, as the compiler left it, or bound, a site is right; with the first byte of another form it is made whole. */
XP_TEST(a_site_is_repaired)
{
	struct xp_batch *batch;

	REQUIRE(start(UD2) == 0);
	CHECK_EQ(xp_repair(NULL), 0);
	batch = xp_batch_new();
	commit_gate(batch, PROVIDER, 0);
	CHECK_EQ(xp_repair(NULL), 0);
	rec_put(UD2, virgin, 1);
	CHECK_EQ(xp_repair(NULL), 1);
	check_sites(PROVIDER);
	rec_put(UD2, virgin, sizeof(virgin));
	put_call(CALL, STUB);
	CHECK_EQ(xp_repair(NULL), 0);
	xp_batch_free(batch);
	stop();
}

/* With something else in the batch that cannot be, and at every write and sync that fails. */
XP_TEST(a_gate_of_a_failed_batch_is_as_before)
{
	static const uint8_t wrong[1] = {0x55}, nop[1] = {0x90};
	struct xp_poke poke = {.addr = rec_text + 4096, .expect = wrong, .replace = nop, .len = 1};

	for (unsigned step = 0; step < 5; step++) {
		struct xp_batch *batch;

		REQUIRE(start(UD2) == 0);
		batch = xp_batch_new();
		if (step > 0) {
			commit_gate(batch, PROVIDER, 0);
			rec_forget();
			rec_fail(step % 2 ? REC_WRITE : REC_SYNC, 1, 1, -5);
		} else {
			CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
		}
		CHECK_EQ(xp__batch_add_gate(batch, "g", step > 2 ? NULL : text_at(OTHER)), 0);
		CHECK_EQ(xp_batch_commit(batch, NULL), step ? -5 : -XP_E_MISMATCH);
		rec_heal();
		if (step) {
			check_sites(PROVIDER);
			CHECK(handle.slot != handle.fallback);
			CHECK(resolve(CALL) == rec_text + PROVIDER);
		} else {
			CHECK_EQ(target(CALL), STUB);
			CHECK_MEM(rec_text + UD2, virgin, sizeof(virgin));
			CHECK(handle.slot == handle.fallback);
		}
		CHECK_EQ(xp__gate_available(&handle), step > 0);
		xp_batch_free(batch);
		stop();
	}
}

/* ---- what is kept mapped ---- */

static int kept[2];

static void *keep(const void *provider, const void *user)
{
	int which = provider == rec_text + OTHER;

	CHECK(!rec.locked);
	CHECK(user == NULL);
	kept[which]++;
	return &kept[which];
}

static void let_go(void *pin)
{
	CHECK(!rec.locked);
	--*(int *)pin;
}

static void check_kept(int provider, int other)
{
	CHECK_EQ(kept[0], provider);
	CHECK_EQ(kept[1], other);
}

XP_TEST(providers_are_kept)
{
	struct xp_batch *batch;

	REQUIRE(start(UD2) == 0);
	rec_port.pin = keep;
	rec_port.unpin = let_go;
	REQUIRE(xp__gate_provide("g", text_at(PROVIDER)) == 0);
	check_kept(1, 0);
	CHECK_EQ(xp__gate_provide("g", text_at(OTHER)), -XP_E_PROVIDED);
	check_kept(1, 0);
	CHECK_EQ(xp_gate_bind_all(), 0);
	check_kept(1, 0);
	CHECK_EQ(xp__gate_replace("g", text_at(OTHER)), 0);
	check_kept(0, 1);
	rec_fail(REC_SYNC, rec.calls[REC_SYNC] + 1, 1, -5);
	CHECK_EQ(xp_gate_withdraw("g"), -5);
	rec_heal();
	check_kept(0, 1);
	batch = xp_batch_new();
	CHECK_EQ(xp__batch_add_gate(batch, "g", text_at(OTHER)), 0);
	CHECK_EQ(xp__batch_add_gate(batch, "g", text_at(PROVIDER)), 0);
	check_kept(1, 2);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	check_kept(1, 0);
	CHECK_EQ(xp__batch_add_gate(batch, "g", text_at(OTHER)), 0);
	xp_batch_free(batch);
	check_kept(1, 0);
	CHECK_EQ(xp_gate_withdraw("g"), 0);
	check_kept(0, 0);
	stop();
	rec_port.pin = NULL;
	rec_port.unpin = NULL;
}

XP_TEST_MAIN()
