// SPDX-License-Identifier: MIT
/* Far gates on the recording port: which fault is whose, what a failure of each step leaves, what trapped calls become. */
#include "xp_test.h"

#include "recorder.h"

#include <crosspatch/gate_far.h>
#include <crosspatch/text_poke.h>
#include <errno.h>

/* Offsets in rec_text, which is at once the segment. */
enum { SITE = 0x114, FAIL16 = 0x40, FAIL32 = 0x50, PROVIDER = 0x300, SELECTOR = 0x17, OTHER = 0x1f };

static const struct {
	const char *unbound, *bound;
	uint8_t form, len, width, bits;
} forms[] = {
	{"\x9a\x07\x00\x01\x00", "\x9a\x00\x03\x1f\x00", XP_FAR_16_16, 5, 2, 16},
	{"\x66\x9a\x07\x00\x00\x00\x01\x00", "\x66\x9a\x00\x03\x00\x00\x1f\x00", XP_FAR_16_32, 8, 4, 16},
	{"\x9a\x07\x00\x00\x00\x02\x00", "\x9a\x00\x03\x00\x00\x1f\x00", XP_FAR_32_32, 7, 4, 32},
	{"\x9a\x07\x00\x01\x00", "\x90\x0e\xe8\xe7\x01", XP_FAR_16_16 | XP_FAR_NEAR, 5, 2, 16},
	{"\x66\x9a\x07\x00\x00\x00\x01\x00", "\x66\x0e\x66\xe8\xe4\x01\x00\x00", XP_FAR_16_32 | XP_FAR_NEAR, 8, 4, 16},
	{"\x9a\x07\x00\x00\x00\x02\x00", "\x90\x0e\xe8\xe5\x01\x00\x00", XP_FAR_32_32 | XP_FAR_NEAR, 7, 4, 32},
};
#define NR_FORMS (sizeof(forms) / sizeof(forms[0]))

static struct xp_gate_far gate;
static struct xp_far_segment segment;
static struct xp_far_site site;
static struct xp_module module;
static struct xp_fault_again memory;
static uint8_t stack[64];
static unsigned form;

static bool is_near(void)
{
	return forms[form].form & XP_FAR_NEAR;
}

static uint16_t selector(void)
{
	return is_near() ? SELECTOR : OTHER;
}

static int32_t relative(const int32_t *field, uintptr_t to)
{
	return (int32_t)(to - (uintptr_t)field);
}

static int start(unsigned which)
{
	int error;

	form = which;
	rec_start();
	rec.can &= ~(unsigned)XP_NEED_SINGLE;
	memset(&memory, 0, sizeof(memory));
	gate = (struct xp_gate_far){.object = {.name = "far"}};
	segment = (struct xp_far_segment){.selector = SELECTOR,
					  .bits = forms[form].bits,
					  .base = (uint32_t)rec_text,
					  .limit = 0xfff,
					  .fail16 = FAIL16,
					  .fail32 = FAIL32};
	site = (struct xp_far_site){.number = 7, .form = forms[form].form};
	site.code = relative(&site.code, (uintptr_t)(rec_text + SITE));
	site.gate = relative(&site.gate, (uintptr_t)&gate);
	site.segment = relative(&site.segment, (uintptr_t)&segment);
	rec_put(SITE, (const uint8_t *)forms[form].unbound, forms[form].len);
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module.tables[XP_SITE_FAR].start = &site;
	module.tables[XP_SITE_FAR].end = &site + 1;
	error = xp_module_register(&module);
	return error ? error : xp_far_segment_add(&segment);
}

static void stop(void)
{
	CHECK_EQ(xp_module_unregister(&module), 0);
	CHECK_EQ(xp_far_segment_remove(&segment), 0);
}

static void registers(struct xp_regs *regs)
{
	memset(regs, 0, sizeof(*regs));
	memset(stack, 0x55, sizeof(stack));
	regs->ip = SITE;
	regs->cs = SELECTOR;
	regs->gpr[4] = (uintptr_t)(stack + sizeof(stack));
}

static enum xp_trap_verdict fault(struct xp_regs *regs)
{
	registers(regs);
	return xp_trap_fault(regs, 0, &memory);
}

#define CHECK_TEXT(field) CHECK_MEM(rec_text + SITE, forms[form].field, forms[form].len)

/* The call was executed on @regs: it is in the provider, and returns behind the site. */
static void check_called(const struct xp_regs *regs)
{
	unsigned width = forms[form].width;
	uint8_t frame[8] = {0};

	frame[0] = (uint8_t)(SITE + forms[form].len);
	frame[1] = SITE >> 8;
	frame[width] = SELECTOR;
	CHECK_EQ(regs->cs, selector());
	CHECK_EQ(regs->ip, PROVIDER);
	CHECK_EQ(regs->gpr[4], (uintptr_t)(stack + sizeof(stack) - 2 * width));
	CHECK_MEM(stack + sizeof(stack) - 2 * width, frame, 2 * width);
}

XP_TEST(whose_fault)
{
	for (unsigned f = 0; f < NR_FORMS; f++) {
		struct xp_regs regs;

		REQUIRE(start(f) == 0);
		REQUIRE(xp_gate_far_provide(&gate, selector(), PROVIDER) == 0);
		registers(&regs);
		regs.error = OTHER; /* of a selector that is none: not the unbound form's */
		CHECK_EQ(xp_trap_fault(&regs, 0, &memory), XP_TRAP_FOREIGN);
		registers(&regs);
		regs.cs = OTHER;
		CHECK_EQ(xp_trap_fault(&regs, 0, &memory), XP_TRAP_FOREIGN);
		registers(&regs);
		regs.ip++;
		CHECK_EQ(xp_trap_fault(&regs, 0, &memory), XP_TRAP_FOREIGN);
		CHECK_TEXT(unbound);
		rec_forget();
		CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
		CHECK_EQ(regs.ip, SITE);
		CHECK_EQ(rec.calls[REC_SYNC], 3);
		CHECK_TEXT(bound);
		/* A thread that faulted meanwhile executes it again, once; a second time it is the call that faults. */
		rec_forget();
		CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
		CHECK_EQ(fault(&regs), XP_TRAP_FOREIGN);
		CHECK_EQ(regs.ip, SITE);
		CHECK_EQ(rec.calls[REC_WRITE] + rec.calls[REC_LOCK], 0);
		stop();
		CHECK_EQ(fault(&regs), XP_TRAP_FOREIGN);
	}
}

/* Where one store does it. */
XP_TEST(one_store)
{
	struct xp_regs regs;

	REQUIRE(start(0) == 0);
	site.code = relative(&site.code, (uintptr_t)(rec_text + SITE - 4));
	stop();
	rec_put(SITE - 4, (const uint8_t *)forms[0].unbound, 5);
	rec.can |= XP_NEED_SINGLE;
	REQUIRE(xp_module_register(&module) == 0 && xp_far_segment_add(&segment) == 0);
	rec_forget();
	registers(&regs);
	regs.ip = SITE - 4;
	CHECK_EQ(xp_trap_fault(&regs, 0, &memory), XP_TRAP_RETRY);
	CHECK_EQ(rec.calls[REC_SYNC], 1);
	CHECK_MEM(rec_text + SITE - 4, "\x9a\x40\x00\x17\x00", 5); /* no provider: the stub */
	stop();
}

/* Whatever fails: the call is executed, and the site is as it was; but a near one that was bound stays so. */
static void binding_fails(unsigned f, enum rec_op op, unsigned nth)
{
	struct xp_regs regs;

	REQUIRE(start(f) == 0);
	REQUIRE(xp_gate_far_provide(&gate, selector(), PROVIDER) == 0);
	rec_forget();
	rec_fail(op, nth, 1, -EIO);
	CHECK_EQ(fault(&regs), XP_TRAP_DONE);
	rec_heal();
	check_called(&regs);
	if (is_near() && op == REC_SYNC && nth == 3)
		CHECK_TEXT(bound);
	else
		CHECK_TEXT(unbound);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
	CHECK_TEXT(bound);
	stop();
}

XP_TEST(every_step_of_a_binding_fails)
{
	for (unsigned f = 0; f < NR_FORMS; f++) {
		binding_fails(f, REC_LOCK, 1);
		binding_fails(f, REC_PREPARE, 1);
		for (unsigned nth = 1; nth <= 3; nth++) {
			binding_fails(f, REC_WRITE, nth);
			binding_fails(f, REC_SYNC, nth);
		}
	}
}

/* Each fault of a site that cannot be bound is a call all the same; few of them try. */
XP_TEST(a_site_that_cannot_be_bound_is_seldom_tried)
{
	struct xp_regs regs;
	unsigned more = 0;

	REQUIRE(start(0) == 0);
	REQUIRE(xp_gate_far_provide(&gate, selector(), PROVIDER) == 0);
	rec_forget();
	rec_fail(REC_PREPARE, 1, 1000000, -16);
	for (unsigned i = 0; i < 1000; i++) {
		REQUIRE(fault(&regs) == XP_TRAP_DONE);
		check_called(&regs);
	}
	CHECK_EQ(rec.calls[REC_LOCK], 8 + 7); /* numbers 8, 16, … 512 */
	rec_heal();
	while (fault(&regs) == XP_TRAP_DONE)
		more++;
	CHECK_EQ(more, 1024 - 1000);
	CHECK_TEXT(bound);
	stop();
}

XP_TEST(without_a_provider_the_carry_flag)
{
	struct xp_regs regs;

	REQUIRE(start(2) == 0);
	rec_fail(REC_SYNC, 1 + rec.calls[REC_SYNC], 1, -EIO);
	CHECK_EQ(fault(&regs), XP_TRAP_DONE);
	rec_heal();
	CHECK_EQ(regs.flags & 1, 1);
	CHECK_EQ(regs.ip, SITE + 7);
	CHECK_EQ(regs.cs, SELECTOR);
	CHECK_EQ(regs.gpr[4], (uintptr_t)(stack + sizeof(stack)));
	CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
	CHECK_MEM(rec_text + SITE, "\x9a\x50\x00\x00\x00\x17\x00", 7);
	stop();
}

/* ---- a thread that meets a breakpoint ---- */

static unsigned nr_trapped;

static void look(const struct rec_step *step)
{
	struct xp_regs regs;

	(void)step;
	registers(&regs);
	if (rec_text[SITE] == 0xcc) {
		regs.ip = SITE + 1;
		CHECK_EQ(xp_trap(&regs, 1), XP_TRAP_DONE);
		check_called(&regs);
		nr_trapped++;
	}
	/* Of a bound near site only the call changes. */
	if (is_near() && rec_text[SITE + 2] == 0xcc) {
		unsigned width = forms[form].width;

		regs.ip = SITE + 3;
		CHECK_EQ(xp_trap(&regs, 1), XP_TRAP_DONE);
		CHECK_EQ(regs.ip, PROVIDER);
		CHECK_EQ(regs.cs, SELECTOR);
		CHECK_EQ(regs.gpr[4], (uintptr_t)(stack + sizeof(stack) - width));
		CHECK_EQ(stack[sizeof(stack) - width], (uint8_t)(SITE + forms[form].len));
		nr_trapped++;
	}
	regs.cs = OTHER; /* a segment of others: eip alone says nothing */
	regs.ip = SITE + 1;
	CHECK_EQ(xp_trap(&regs, 1), XP_TRAP_FOREIGN);
}

XP_TEST(a_trapped_call_is_the_call)
{
	for (unsigned f = 0; f < NR_FORMS; f++) {
		struct xp_regs regs;

		/* From the unbound form, then from the stub. */
		for (unsigned k = 0; k < 2; k++) {
			REQUIRE(start(f) == 0);
			nr_trapped = 0;
			if (k == 0) {
				REQUIRE(xp_gate_far_provide(&gate, selector(), PROVIDER) == 0);
				rec.step = look;
				CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
			} else {
				CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
				rec.step = look;
				CHECK_EQ(xp_gate_far_provide(&gate, selector(), PROVIDER), 0);
			}
			rec.step = NULL;
			CHECK(nr_trapped >= 4);
			CHECK_TEXT(bound);
			stop();
		}
	}
}

/* ---- batches ---- */

enum { NEAR_SITE = 0x214, PROVIDERS = 3, NEAR_FORM = 5, FAR_FORM = 2 };

static const uint32_t providers[PROVIDERS] = {0, PROVIDER, PROVIDER + 0x1234};
static struct xp_gate_far near_gate;
static struct xp_far_site near_site;
static struct xp_module near_module;

/* Two gates in one segment: of a far call at SITE, of a near one at NEAR_SITE. */
static int start_two(void)
{
	int error = start(FAR_FORM);

	near_gate = (struct xp_gate_far){.object = {.name = "near"}};
	near_site = (struct xp_far_site){.number = 7, .form = forms[NEAR_FORM].form};
	near_site.code = relative(&near_site.code, (uintptr_t)(rec_text + NEAR_SITE));
	near_site.gate = relative(&near_site.gate, (uintptr_t)&near_gate);
	near_site.segment = relative(&near_site.segment, (uintptr_t)&segment);
	rec_put(NEAR_SITE, (const uint8_t *)forms[NEAR_FORM].unbound, forms[NEAR_FORM].len);
	near_module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	near_module.tables[XP_SITE_FAR].start = &near_site;
	near_module.tables[XP_SITE_FAR].end = &near_site + 1;
	return error ? error : xp_module_register(&near_module);
}

static void stop_two(void)
{
	CHECK_EQ(xp_module_unregister(&near_module), 0);
	stop();
}

static void execute_two(void)
{
	struct xp_regs regs;

	CHECK_EQ(fault(&regs), XP_TRAP_RETRY);
	registers(&regs);
	regs.ip = NEAR_SITE;
	CHECK_EQ(xp_trap_fault(&regs, 0, &memory), XP_TRAP_RETRY);
}

/* Which provider the sites lead to, and with them their gates; 0: their stub. */
static void check_two(unsigned far, unsigned near)
{
	uint32_t to = far ? providers[far] : FAIL32, displacement;
	const uint8_t selector = far ? OTHER : SELECTOR;

	CHECK_EQ(rec_text[SITE], 0x9a);
	CHECK_MEM(rec_text + SITE + 1, &to, 4);
	CHECK_EQ(rec_text[SITE + 5], selector);
	displacement = (near ? providers[near] : FAIL32) - (NEAR_SITE + 7);
	CHECK_MEM(rec_text + NEAR_SITE, "\x90\x0e\xe8", 3);
	CHECK_MEM(rec_text + NEAR_SITE + 3, &displacement, 4);
	CHECK_EQ(gate.to[gate.version & 1].offset, providers[far]);
	CHECK_EQ(near_gate.to[near_gate.version & 1].offset, providers[near]);
}

static int commit_two(struct xp_batch *batch, unsigned far, unsigned near)
{
	CHECK_EQ(xp_batch_add_gate_far(batch, &gate, far ? OTHER : 0, providers[far]), 0);
	CHECK_EQ(xp_batch_add_gate_far(batch, &near_gate, near ? SELECTOR : 0, providers[near]), 0);
	rec_forget();
	return xp_batch_commit(batch, NULL);
}

/* Whatever it was before; with the syncs of one. */
XP_TEST(a_batch_says_where_far_gates_lead)
{
	struct xp_batch *batch;

	REQUIRE(start_two() == 0);
	batch = xp_batch_new();
	CHECK_EQ(commit_two(batch, 1, 2), 0);
	CHECK_TEXT(unbound);
	CHECK_MEM(rec_text + NEAR_SITE, forms[NEAR_FORM].unbound, forms[NEAR_FORM].len);
	execute_two();
	check_two(1, 2);
	CHECK_EQ(commit_two(batch, 1, 2), 0);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	CHECK_EQ(commit_two(batch, 2, 1), 0);
	CHECK_EQ(rec.calls[REC_SYNC], 3);
	check_two(2, 1);
	CHECK_EQ(commit_two(batch, 0, 2), 0);
	CHECK_EQ(rec.calls[REC_SYNC], 3);
	check_two(0, 2);
	CHECK_EQ(xp_batch_add_gate_far(batch, &gate, OTHER, providers[1]), 0);
	CHECK_EQ(commit_two(batch, 2, 0), 0); /* the last wish counts */
	check_two(2, 0);
	CHECK_EQ(xp_gate_far_provide(&gate, OTHER, PROVIDER), -XP_E_PROVIDED);
	CHECK_EQ(xp_gate_far_withdraw(&near_gate), -XP_E_NO_PROVIDER);

	CHECK_EQ(xp_batch_add_gate_far(NULL, &gate, OTHER, PROVIDER), -EINVAL);
	CHECK_EQ(xp_batch_add_gate_far(batch, NULL, OTHER, PROVIDER), -EINVAL);
	for (uint16_t selector = 1; selector <= 3; selector++)
		CHECK_EQ(xp_batch_add_gate_far(batch, &gate, selector, PROVIDER), -EINVAL);
	xp_batch_free(batch);
	stop_two();
}

/* At each write and each sync that fails; because of what one of them cannot call; because of something else in it. */
XP_TEST(far_gates_of_a_failed_batch_are_as_before)
{
	static const uint8_t wrong[1] = {0x55}, nop[1] = {0x90};
	const struct xp_poke poke = {.addr = rec_text + 4096, .expect = wrong, .replace = nop, .len = 1};
	struct xp_diag diag = {0};
	struct xp_batch *batch;

	REQUIRE(start_two() == 0);
	batch = xp_batch_new();
	CHECK_EQ(commit_two(batch, 1, 2), 0);
	execute_two();
	for (unsigned nth = 1; nth <= 6; nth++) {
		rec_forget();
		rec_fail(nth % 2 ? REC_WRITE : REC_SYNC, (nth + 1) / 2, 1, -EIO);
		CHECK_EQ(commit_two(batch, 2, nth % 4 / 2), -EIO);
		rec_heal();
		check_two(1, 2);
	}
	/* What failed is still in it. */
	CHECK_EQ(xp_batch_add_gate_far(batch, &near_gate, OTHER, PROVIDER), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_RANGE);
	CHECK_STR(diag.key, "near");
	check_two(1, 2);
	CHECK_EQ(xp_batch_add_gate_far(batch, &near_gate, 0, 0), 0);
	CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
	CHECK_EQ(xp_batch_commit(batch, NULL), -XP_E_MISMATCH);
	check_two(1, 2);
	xp_batch_free(batch);
	stop_two();
}

/* ---- what is refused ---- */

XP_TEST(foreign_text_is_refused)
{
	struct xp_regs regs;

	REQUIRE(start(0) == 0);
	REQUIRE(fault(&regs) == XP_TRAP_RETRY);
	rec_put(SITE + 2, &(uint8_t){0x77}, 1);
	CHECK_EQ(xp_gate_far_provide(&gate, OTHER, PROVIDER), -XP_E_MISMATCH);
	CHECK_EQ(rec_text[SITE + 2], 0x77);
	stop();
}

XP_TEST(registration_refuses)
{
	REQUIRE(start(0) == 0);
	stop();
	rec.can &= ~(unsigned)XP_NEED_FAULT;
	CHECK_EQ(xp_module_register(&module), -XP_E_NO_METHOD);
	rec.can |= XP_NEED_FAULT;
	rec_fail(REC_PREPARE, 1 + rec.calls[REC_PREPARE], 1, -EIO);
	CHECK_EQ(xp_module_register(&module), -EIO);
	rec_heal();
	rec_fail(REC_ALLOC, 1 + rec.calls[REC_ALLOC], 1, -ENOMEM);
	CHECK_EQ(xp_module_register(&module), -ENOMEM);
	rec_heal();
	CHECK_EQ(gate.listed, 0);
	CHECK_EQ(xp_module_unregister(&module), 0); /* it waits no more */
}

XP_TEST(sites_that_are_none)
{
	struct xp_regs regs;

	/* In a segment of other code, beyond its limit: the call fails, nothing is patched. */
	for (unsigned k = 0; k < 2; k++) {
		REQUIRE(start(0) == 0);
		if (k == 0)
			segment.bits = 32;
		else
			segment.limit = SITE + 3;
		CHECK_EQ(fault(&regs), XP_TRAP_DONE);
		CHECK_EQ(regs.flags & 1, 1);
		CHECK_TEXT(unbound);
		stop();
	}
}

XP_TEST_MAIN()
