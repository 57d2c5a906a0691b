// SPDX-License-Identifier: MIT
/* Instructions that are not emulated: a trapped bystander executes a copy out of line. */
#include "bystander.h"
#include "xp_test.h"

#include <errno.h>

#define LOCK_ADD 0xf0, 0x83, 0x47, 0x11, 0x22
#define LOCK_SUB 0xf0, 0x83, 0x6f, 0x95, 0xa6
#define NOP5 0x0f, 0x1f, 0x44, 0x00, 0x00
#define JMP 0xe9, 0x11, 0x22, 0x33, 0x04
#define LEN 5

static const uint8_t add[] = {LOCK_ADD}, sub[] = {LOCK_SUB}, nop[] = {NOP5}, jmp[] = {JMP};

static struct xp_poke start(size_t offset, const uint8_t *old, const uint8_t *new)
{
	rec_start();
	rec.can &= ~(unsigned)XP_NEED_SINGLE;
	rec_put(offset, old, LEN);
	return (struct xp_poke){
		.addr = rec_text + offset, .expect = old, .replace = new, .len = LEN, .resume = XP_RESUME_BYPASS};
}

static void back(struct xp_poke *poke)
{
	const void *old = poke->expect;

	poke->expect = poke->replace;
	poke->replace = old;
}

static int commit_watched(const struct xp_poke *poke)
{
	int error;

	bystander_watch((size_t)((uint8_t *)poke->addr - rec_text), poke->expect, poke->replace, LEN, 0);
	bystander_start();
	bystander_check(BY_OLD);
	error = xp_text_poke(poke, NULL);
	bystander_check(error ? BY_OLD : BY_NEW);
	CHECK(bystander_counts.views > 0);
	bystander_stop();
	return error;
}

static const uint8_t *written_at[8];
static unsigned nr_steps;

/* Writes, and syncs as NULL. */
static void note(const struct rec_step *step)
{
	if ((step->op == REC_WRITE || step->op == REC_SYNC) && nr_steps < 8)
		written_at[nr_steps++] = step->op == REC_WRITE ? step->addr : NULL;
}

static bool is_slot(const uint8_t *at)
{
	return at >= rec_text + REC_TEXT_SIZE - REC_EXEC_SIZE && at < rec_text + REC_TEXT_SIZE;
}

/* First the slot and a sync, then as any breakpoint. */
XP_TEST(the_slot_is_written_first)
{
	struct xp_poke poke = start(0x45, add, sub);
	int32_t back_by;

	nr_steps = 0;
	rec.step = note;
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
	REQUIRE_EQ(nr_steps, 8);
	CHECK(is_slot(written_at[0]) && written_at[1] == NULL);
	CHECK(written_at[2] == poke.addr && written_at[3] == NULL && written_at[5] == NULL);
	CHECK(written_at[6] == poke.addr && written_at[7] == NULL);
	CHECK_MEM(written_at[0], sub, LEN);
	CHECK_EQ(written_at[0][LEN], 0xe9);
	memcpy(&back_by, written_at[0] + LEN + 1, sizeof(back_by));
	CHECK(written_at[0] + LEN + 5 + back_by == (uint8_t *)poke.addr + LEN);
	CHECK_EQ(rec.prepared, XP_NEED_SYNC | XP_NEED_TRAP);
}

XP_TEST(a_bystander_executes_old_or_new)
{
	struct xp_poke poke;

	for (size_t offset = 0x1fc0; offset < 0x2000; offset += 7) {
		poke = start(offset, add, sub);
		CHECK_EQ(commit_watched(&poke), 0);
		CHECK(bystander_counts.traps > 0);
		back(&poke);
		CHECK_EQ(commit_watched(&poke), 0);
		CHECK(bystander_counts.traps > 0);
	}
	poke = start(0x3045, nop, add);
	CHECK_EQ(commit_watched(&poke), 0);
}

/* A slot is for ever: a second time nothing is written out of line. */
XP_TEST(the_same_change_takes_the_same_slot)
{
	struct xp_poke poke = start(0x4045, add, sub);

	for (int i = 0; i < 6; i++) {
		rec_forget();
		CHECK_EQ(commit_watched(&poke), 0);
		CHECK_EQ(rec.calls[REC_WRITE], i < 2 ? 4 : 3);
		CHECK_EQ(rec.calls[REC_SYNC], i < 2 ? 4 : 3);
		back(&poke);
	}
}

XP_TEST(another_site_takes_another)
{
	struct xp_poke poke = start(0x5045, add, sub);

	CHECK_EQ(commit_watched(&poke), 0);
	poke = start(0x5145, add, sub);
	CHECK_EQ(commit_watched(&poke), 0);
	CHECK_EQ(rec.calls[REC_WRITE], 4);
}

/* What is known is emulated: no slot. */
XP_TEST(what_is_known_is_emulated)
{
	struct xp_poke poke = start(0x6045, add, nop);

	CHECK_EQ(commit_watched(&poke), 0);
	CHECK_EQ(rec.calls[REC_WRITE], 3);
	poke = start(0x6145, add, jmp);
	CHECK_EQ(commit_watched(&poke), 0);
	CHECK_EQ(rec.calls[REC_WRITE], 3);
}

XP_TEST(faults_at_the_slot)
{
	struct xp_poke poke = start(0x7045, add, sub);

	rec_fail(REC_WRITE, 1, 1, -EIO);
	CHECK_EQ(commit_watched(&poke), -EIO);
	CHECK_MEM(poke.addr, add, LEN);
	CHECK_EQ(rec.calls[REC_SYNC], 0);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	rec_heal();
	rec_forget();
	rec_fail(REC_SYNC, 1, 1, -EIO);
	CHECK_EQ(commit_watched(&poke), -EIO);
	CHECK_MEM(poke.addr, add, LEN);
	rec_heal();
	rec_forget();
	CHECK_EQ(commit_watched(&poke), 0);
	CHECK_EQ(rec.calls[REC_WRITE], 3);
	CHECK_EQ(rec.calls[REC_SYNC], 4); /* the one that failed is made up for */
}

/* And behind it: rolled back as any other. */
XP_TEST(faults_at_the_site)
{
	for (unsigned nth = 1; nth <= 4; nth++) {
		struct xp_poke poke = start(0x8045 + 0x100 * nth, add, sub);

		rec_fail(REC_SYNC, nth, 1, -EIO);
		CHECK_EQ(commit_watched(&poke), -EIO);
		CHECK_MEM(poke.addr, add, LEN);
		CHECK_EQ(xp_state(), XP_STATE_READY);
	}
}

static void refused(const uint8_t *new, size_t len, int error)
{
	struct xp_poke poke = start(0x9045, nop, new);
	struct xp_diag diag;

	REQUIRE_EQ(len, LEN);
	CHECK_EQ(xp_text_poke(&poke, &diag), error);
	CHECK_EQ(diag.phase, XP_PHASE_VALIDATE);
	CHECK(diag.site == poke.addr && diag.detail != NULL);
	CHECK_MEM(poke.addr, nop, LEN);
	CHECK_EQ(rec.calls[REC_WRITE], 0);
}

XP_TEST(what_cannot_be_executed_elsewhere)
{
#define REFUSED(...) refused((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), -XP_E_EMULATE)
	REFUSED(0x2e, 0x2e, 0x2e, 0xe3, 0x11); /* jrcxz */
	REFUSED(0x66, 0xe9, 0x11, 0x22, 0x33);
	REFUSED(0x2e, 0x2e, 0x2e, 0xff, 0xd0); /* call *%rax: it would leave an address in the slot */
	REFUSED(0x2e, 0x2e, 0x2e, 0x0f, 0x05); /* syscall */
	REFUSED(0x2e, 0x2e, 0x2e, 0xcd, 0x80);
	REFUSED(0x2e, 0x2e, 0x2e, 0x0f, 0x0b);
	REFUSED(0x8f, 0xe8, 0x78, 0xc0, 0xc1); /* XOP */
	REFUSED(0xf0, 0xf0, 0xf0, 0xf0, 0xf0); /* no opcode */
	REFUSED(0x2e, 0x2e, 0x2e, 0x2e, 0x01); /* no ModRM */
}

XP_TEST(no_memory_near)
{
	struct xp_poke poke = start(0xa045, add, sub);
	struct xp_diag diag;

	rec_port.exec_alloc = NULL;
	CHECK_EQ(xp_text_poke(&poke, &diag), -XP_E_NO_METHOD);
	CHECK_MEM(poke.addr, add, LEN);
}

/* A thread in the slot would come back to the second of the instructions that are replaced. */
XP_TEST(where_a_slot_leads_back)
{
	static const uint8_t several[] = {LOCK_ADD, NOP5}, other[] = {JMP, NOP5};
	struct xp_poke poke = start(0xb045, sub, add);
	struct xp_diag diag;

	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
	rec_put(0xb045, several, sizeof(several));
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	poke = (struct xp_poke){.addr = rec_text + 0xb045, .expect = several, .replace = other, .len = 10};
	CHECK_EQ(xp_text_poke(&poke, &diag), -XP_E_IN_RANGE);
	CHECK(diag.site == poke.addr);
	CHECK_MEM(poke.addr, several, sizeof(several));
	poke.len = LEN; /* up to where it leads back is right */
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
}

XP_TEST_MAIN()
