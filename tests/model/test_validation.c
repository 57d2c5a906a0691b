// SPDX-License-Identifier: MIT
/* What is refused before anything is done: the code, the site named, and no store, no sync, no prepare. */
#include "recorder.h"
#include "xp_test.h"

#include <errno.h>

#define SITE 0x45u
#define CAN_ALL (~0u)

static const uint8_t nop5[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
static const uint8_t jmp[5] = {0xe9, 0x11, 0x22, 0x33, 0x04};
static const uint8_t call[5] = {0xe8, 0x11, 0x22, 0x33, 0x04};
static const uint8_t ret[5] = {0xc3, 0x90, 0x90, 0x90, 0x90};
static const uint8_t add[5] = {0x05, 0x11, 0x22, 0x33, 0x04};
static const uint8_t nops[5] = {0x90, 0x90, 0x90, 0x90, 0x90};
static const uint8_t int3[5] = {0xcc, 0x90, 0x90, 0x90, 0x90};

static struct xp_poke poke_at(size_t offset, const uint8_t *old, const uint8_t *new, size_t len)
{
	return (struct xp_poke){.addr = rec_text + offset, .expect = old, .replace = new, .len = (uint8_t)len};
}

static void nothing_happened(void)
{
	CHECK_EQ(rec.calls[REC_WRITE], 0);
	CHECK_EQ(rec.calls[REC_SYNC], 0);
	CHECK_EQ(rec.calls[REC_PREPARE], 0);
	CHECK_EQ(rec.calls[REC_LOCK], rec.calls[REC_UNLOCK]);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

/* The text at SITE is @found; the poke from @old to @new is refused with @error. */
static void refused(const uint8_t *found, const uint8_t *old, const uint8_t *new, size_t len, int error)
{
	struct xp_poke poke = poke_at(SITE, old, new, len);
	struct xp_diag diag;

	rec_put(SITE, found, len);
	rec_forget();
	CHECK_EQ(xp_text_poke(&poke, &diag), error);
	CHECK_EQ(diag.error, error);
	CHECK_EQ(diag.phase, XP_PHASE_VALIDATE);
	CHECK(diag.site == rec_text + SITE);
	CHECK_MEM(rec_text + SITE, found, len);
	nothing_happened();
	CHECK_EQ(xp_text_poke(&poke, NULL), error);
}

/* The first case: all others set the port. */
static void use_without_port(const void *argument)
{
	static struct xp_static_key key;
	struct xp_poke poke = poke_at(SITE, nop5, jmp, 5);
	struct xp_diag diag;

	(void)argument;
	memset(&diag, 0xff, sizeof(diag));
	CHECK_EQ(xp_state(), XP_STATE_NO_PORT);
	CHECK_EQ(xp_text_poke(&poke, &diag), -XP_E_NOT_READY);
	CHECK_EQ(diag.error, -XP_E_NOT_READY);
	CHECK_EQ(diag.phase, XP_PHASE_VALIDATE);
	CHECK(xp_batch_new() == NULL);
	CHECK_EQ(xp_static_key_enable(&key), -XP_E_NOT_READY);
	CHECK_EQ(xp_static_key_inc(&key), -XP_E_NOT_READY);
	CHECK_EQ(key.count, 0);
	CHECK_EQ(xp_port_set(NULL), -EINVAL);
	rec_port.abi = XP_PORT_ABI + 1;
	CHECK_EQ(xp_port_set(&rec_port), -EINVAL);
	CHECK_EQ(xp_state(), XP_STATE_NO_PORT);
	CHECK_EQ(rec.calls[REC_LOCK], 0);
}

XP_TEST(before_there_is_a_port)
{
	rec_isolated(use_without_port, NULL);
}

XP_TEST(unexpected_text)
{
	struct xp_poke poke = poke_at(SITE, nop5, jmp, 5);
	struct xp_diag diag;

	rec_start();
	refused(jmp, nop5, call, 5, -XP_E_MISMATCH);
	/* A difference in the last byte only. */
	rec_put(SITE, nop5, 5);
	rec_text[SITE + 4] = 1;
	CHECK_EQ(xp_text_poke(&poke, &diag), -XP_E_MISMATCH);
	CHECK_EQ(diag.len, 5);
	CHECK_MEM(diag.expected, nop5, 5);
	CHECK_MEM(diag.found, rec_text + SITE, 5);
	/* Also where nothing is to be changed. */
	refused(jmp, nop5, nop5, 5, -XP_E_MISMATCH);
}

XP_TEST(foreign_breakpoint)
{
	rec_start();
	refused(int3, nop5, jmp, 5, -EBUSY);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	refused(int3, nop5, jmp, 5, -EBUSY);
	CHECK_EQ(xp_set_policy(XP_POLICY_EARLY), 0);
	refused(int3, nop5, jmp, 5, -EBUSY);
}

/* A caller that expects a breakpoint gets it changed, but not by way of another breakpoint. */
XP_TEST(expected_breakpoint)
{
	rec_start();
	refused(int3, int3, jmp, 5, -XP_E_MULTI);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	refused(int3, int3, nops, 1, -XP_E_NO_METHOD);
}

XP_TEST(no_such_text)
{
	static uint8_t elsewhere[16];
	struct xp_poke poke = {.addr = elsewhere, .expect = nop5, .replace = jmp, .len = 5};
	struct xp_diag diag;

	rec_start();
	rec_forget();
	CHECK_EQ(xp_text_poke(&poke, &diag), -XP_E_NOT_TEXT);
	CHECK(diag.site == elsewhere);
	poke = poke_at(REC_TEXT_SIZE - 4, nop5, jmp, 5); /* one byte sticks out */
	CHECK_EQ(xp_text_poke(&poke, &diag), -XP_E_NOT_TEXT);
	CHECK_EQ(rec.calls[REC_READ], 0);
	nothing_happened();
}

static void malformed(struct xp_poke poke, int error)
{
	struct xp_diag diag;
	struct xp_batch *batch = xp_batch_new();

	REQUIRE(batch != NULL);
	rec_forget();
	memset(&diag, 0xff, sizeof(diag));
	CHECK_EQ(xp_text_poke(&poke, &diag), error);
	CHECK_EQ(diag.error, error);
	CHECK_EQ(diag.phase, XP_PHASE_VALIDATE);
	CHECK(diag.site == poke.addr);
	CHECK(diag.key == NULL && diag.detail == NULL && diag.tid == 0 && diag.len == 0);
	CHECK_EQ(xp_batch_add_poke(batch, &poke), error);
	CHECK_EQ(rec.calls[REC_LOCK], 0);
	CHECK_EQ(xp_batch_commit(batch, NULL), 0); /* it is empty */
	xp_batch_free(batch);
	nothing_happened();
}

XP_TEST(malformed_pokes)
{
	struct xp_poke good, poke;

	rec_start();
	good = poke_at(SITE, nop5, jmp, 5);
	rec_put(SITE, nop5, 5);
	poke = good;
	poke.addr = NULL;
	malformed(poke, -EINVAL);
	poke = good;
	poke.expect = NULL;
	malformed(poke, -EINVAL);
	poke = good;
	poke.replace = NULL;
	malformed(poke, -EINVAL);
	poke = good;
	poke.len = 0;
	malformed(poke, -XP_E_LENGTH);
	poke.len = 17;
	malformed(poke, -XP_E_LENGTH);
	poke.len = 255;
	malformed(poke, -XP_E_LENGTH);
	poke = good;
	poke.resume = XP_RESUME_AT; /* but not where */
	malformed(poke, -EINVAL);
	/* In the site, what stands there at that moment would be executed. */
	poke.resume_at = poke.addr;
	malformed(poke, -EINVAL);
	poke.resume_at = (char *)poke.addr + poke.len - 1;
	malformed(poke, -EINVAL);
	poke.resume = (enum xp_resume)(XP_RESUME_BYPASS + 1);
	poke.resume_at = rec_text;
	malformed(poke, -EINVAL);
}

XP_TEST(null_arguments)
{
	struct xp_static_key key = {0};
	struct xp_poke poke;
	struct xp_batch *batch;
	struct xp_diag diag;

	rec_start();
	poke = poke_at(SITE, nop5, jmp, 5);
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	memset(&diag, 0xff, sizeof(diag));
	CHECK_EQ(xp_text_poke(NULL, &diag), -EINVAL);
	CHECK_EQ(diag.error, -EINVAL);
	CHECK(diag.site == NULL && diag.key == NULL);
	CHECK_EQ(xp_text_poke(NULL, NULL), -EINVAL);
	CHECK_EQ(xp_batch_add_poke(NULL, &poke), -EINVAL);
	CHECK_EQ(xp_batch_add_poke(batch, NULL), -EINVAL);
	CHECK_EQ(xp_batch_add_key(NULL, &key, true), -EINVAL);
	CHECK_EQ(xp_batch_add_key(batch, NULL, true), -EINVAL);
	memset(&diag, 0xff, sizeof(diag));
	CHECK_EQ(xp_batch_commit(NULL, &diag), -EINVAL);
	CHECK_EQ(diag.error, -EINVAL);
	CHECK(diag.site == NULL);
	CHECK_EQ(xp_batch_commit(NULL, NULL), -EINVAL);
	xp_batch_free(NULL);
	xp_batch_free(batch);
	nothing_happened();
}

XP_TEST(several_instructions)
{
	static const uint8_t call_and_nops[8] = {0xe8, 0x11, 0x22, 0x33, 0x04, 0x90, 0x90, 0x90};
	static const uint8_t jmp_and_nops[8] = {0xe9, 0x11, 0x22, 0x33, 0x04, 0x90, 0x90, 0x90};
	static const uint8_t jmp_and_more[8] = {0xe9, 0x11, 0x22, 0x33, 0x04, 0xb0, 0x01, 0x90};
	static const uint8_t nop8[8] = {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00};
	static const uint8_t two_nops[5] = {0x66, 0x90, 0x0f, 0x1f, 0x00};
	struct xp_poke poke;

	rec_start();
	refused(nops, nops, jmp, 5, -XP_E_MULTI);
	refused(two_nops, two_nops, jmp, 5, -XP_E_MULTI);
	refused(call_and_nops, call_and_nops, nop8, 8, -XP_E_MULTI);
	refused(jmp_and_more, jmp_and_more, nop8, 8, -XP_E_MULTI);
	/* Even a change of one byte: it may be the second instruction's first. */
	refused(nops, nops, (const uint8_t[]){0x90, 0xc3, 0x90, 0x90, 0x90}, 5, -XP_E_MULTI);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	refused(nops, nops, jmp, 5, -XP_E_MULTI);
	/* No thread rests on what follows a jump that is always taken. */
	poke = poke_at(SITE, jmp_and_nops, nop8, 8);
	rec_put(SITE, jmp_and_nops, 8);
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
	/* And a policy that stops all threads may do it. */
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	poke = poke_at(SITE, nops, jmp, 5);
	rec_put(SITE, nops, 5);
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
}

/* A commit whose last sync fails is undone under threads that may be inside what was to be new. */
XP_TEST(several_new_instructions)
{
	static const uint8_t call_and_nops[8] = {0xe8, 0x11, 0x22, 0x33, 0x04, 0x90, 0x90, 0x90};
	static const uint8_t jmp_and_nops[8] = {0xe9, 0x11, 0x22, 0x33, 0x04, 0x90, 0x90, 0x90};
	static const uint8_t nop8[8] = {0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00};
	struct xp_poke poke;

	rec_start();
	refused(jmp, jmp, nops, 5, -XP_E_MULTI);
	refused(nop8, nop8, call_and_nops, 8, -XP_E_MULTI);
	poke = poke_at(SITE, nop8, jmp_and_nops, 8);
	rec_put(SITE, nop8, 8);
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	poke = poke_at(SITE, jmp, nops, 5);
	rec_put(SITE, jmp, 5);
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
}

XP_TEST(not_emulated)
{
	static const uint8_t pause_and_nops[5] = {0xf3, 0x90, 0x90, 0x90, 0x90};
	static const uint8_t short_jmp_and_junk[5] = {0xeb, 0x10, 0x11, 0x22, 0x33};
	struct xp_poke poke;

	rec_start();
	rec.can = CAN_ALL & ~XP_NEED_SINGLE;
	refused(nop5, nop5, add, 5, -XP_E_EMULATE);
	refused(nop5, nop5, pause_and_nops, 5, -XP_E_EMULATE);
	refused(nop5, nop5, short_jmp_and_junk, 5, -XP_E_EMULATE);
	refused(nop5, nop5, int3, 5, -XP_E_EMULATE);
	/* With a resume address it is the caller's business. */
	poke = poke_at(SITE, nop5, add, 5);
	poke.resume = XP_RESUME_AT;
	poke.resume_at = rec_text + 0x1000;
	rec_put(SITE, nop5, 5);
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
}

XP_TEST(shadow_stacks)
{
	struct xp_poke poke;

	rec_start();
	rec.can = CAN_ALL & ~XP_NEED_SINGLE & ~XP_NEED_CALL;
	refused(nop5, nop5, call, 5, -XP_E_SHADOW_STACK);
	refused(nop5, nop5, ret, 5, -XP_E_SHADOW_STACK);
	poke = poke_at(SITE, call, nop5, 5); /* a call that goes away is not emulated */
	rec_put(SITE, call, 5);
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
}

XP_TEST(no_method)
{
	static const uint8_t test[5] = {0xa9, 0x11, 0x22, 0x33, 0x04};
	struct xp_poke poke;

	rec_start();
	rec.can = XP_NEED_SYNC;
	refused(nop5, nop5, jmp, 5, -XP_E_NO_METHOD);
	poke = poke_at(SITE, test, jmp, 5); /* one byte needs no trap */
	rec_put(SITE, test, 5);
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	refused(jmp, jmp, test, 5, -XP_E_NO_METHOD);
}

/* Two pokes in one batch, at @second and SITE; @error names @named. */
static void batch_of_two(size_t second, size_t len, int error, size_t named)
{
	struct xp_batch *batch = xp_batch_new();
	struct xp_poke a = poke_at(SITE, nop5, jmp, 5), b = poke_at(second, rec_text + second, jmp, len);
	struct xp_diag diag;

	REQUIRE(batch != NULL);
	CHECK_EQ(xp_batch_add_poke(batch, &a), 0);
	CHECK_EQ(xp_batch_add_poke(batch, &b), 0);
	rec_forget();
	CHECK_EQ(xp_batch_commit(batch, &diag), error);
	CHECK_EQ(diag.error, error);
	if (error) {
		CHECK(diag.site == rec_text + named);
		CHECK_MEM(rec_text + SITE, nop5, 5);
		nothing_happened();
	}
	xp_batch_free(batch);
}

static void start_two(size_t second)
{
	rec_start();
	rec_put(second, nop5, 5);
	rec_put(SITE, nop5, 5);
}

XP_TEST(overlap)
{
	for (size_t distance = 1; distance < 5; distance++) {
		start_two(SITE + distance);
		CHECK_EQ(xp_set_policy(XP_POLICY_EARLY), 0); /* which takes any text */
		batch_of_two(SITE + distance, 5, -XP_E_OVERLAP, SITE + distance);
		batch_of_two(SITE - distance, 5, -XP_E_OVERLAP, SITE);
	}
	start_two(SITE + 5);
	batch_of_two(SITE + 5, 5, 0, 0);
	start_two(SITE - 5);
	batch_of_two(SITE - 5, 5, 0, 0);
}

XP_TEST(duplicates)
{
	start_two(SITE);
	batch_of_two(SITE, 5, -XP_E_OVERLAP, SITE);
	/* Also of sites that stay as they are. */
	batch_of_two(SITE, 1, -XP_E_OVERLAP, SITE);
}

XP_TEST(overlap_with_a_key)
{
	static struct xp_static_key key;
	static struct xp_branch_site record;
	struct xp_module module = {.abi = XP_MODULE_ABI, .nr_tables = 1, .tables = {{&record, &record + 1}}};
	struct xp_batch *batch;
	struct xp_poke poke;
	struct xp_diag diag;

	rec_start();
	key = (struct xp_static_key){.object = {.name = "key"}};
	rec_branch(&record, SITE, 0x200, &key, 0);
	CHECK_EQ(xp_module_register(&module), 0);
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	poke = poke_at(SITE + 4, rec_text + SITE + 4, &nops[0], 1);
	CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
	CHECK_EQ(xp_batch_add_key(batch, &key, true), 0);
	rec_forget();
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_OVERLAP);
	CHECK(diag.site == rec_text + SITE + 4);
	CHECK_EQ(key.count, 0);
	CHECK_EQ(rec_text[SITE], 0xa9);
	nothing_happened();
	xp_batch_free(batch);
	CHECK_EQ(xp_module_unregister(&module), 0);
}

/* One bad site among good ones: the batch keeps all, and can be committed once the reason is gone. */
XP_TEST(a_refused_batch_is_kept)
{
	static const size_t offsets[] = {0x345, 0x45, 0x1145};
	struct xp_batch *batch;
	struct xp_diag diag;

	rec_start();
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	for (size_t i = 0; i < 3; i++) {
		struct xp_poke poke = poke_at(offsets[i], nop5, jmp, 5);

		rec_put(offsets[i], nop5, 5);
		CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
	}
	rec_text[offsets[1]] = 0xcc;
	rec_forget();
	CHECK_EQ(xp_batch_commit(batch, &diag), -EBUSY);
	CHECK(diag.site == rec_text + offsets[1]);
	CHECK_EQ(diag.found[0], 0xcc);
	nothing_happened();
	rec_text[offsets[1]] = nop5[0];
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	for (size_t i = 0; i < 3; i++)
		CHECK_MEM(rec_text + offsets[i], jmp, 5);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0); /* empty now */
	xp_batch_free(batch);
}

/* The batch's array grows; all are kept, and the batch's own memory goes when it goes. */
XP_TEST(a_large_batch)
{
	enum { NR = 1000 };
	size_t live;
	struct xp_batch *batch;

	rec_start();
	live = rec.live;
	batch = xp_batch_new();
	REQUIRE(batch != NULL);
	for (size_t i = 0; i < NR; i++) {
		size_t offset = 16 * (NR - i); /* descending: to be sorted */
		struct xp_poke poke = poke_at(offset, nop5, jmp, 5);

		rec_put(offset, nop5, 5);
		CHECK_EQ(xp_batch_add_poke(batch, &poke), 0);
	}
	CHECK_EQ(xp_batch_commit(batch, NULL), 0);
	xp_batch_free(batch);
	for (size_t i = 1; i <= NR; i++)
		CHECK_MEM(rec_text + 16 * i, jmp, 5);
	CHECK(rec.live <= live + 2); /* the span buffer and one commit may stay */
}

static int inner_result;
static unsigned inner_calls;

static void poke_again(const struct rec_step *step)
{
	struct xp_poke poke = poke_at(0x100, nops, nops, 1);

	if (step->op == REC_LOCK || !rec.locked)
		return;
	inner_calls++;
	inner_result = xp_text_poke(&poke, NULL);
	if (inner_result != -XP_E_REENTRANT)
		rec.step = NULL;
	CHECK_EQ(inner_result, -XP_E_REENTRANT);
	CHECK(xp_batch_new() == NULL);
}

XP_TEST(from_inside_a_commit)
{
	struct xp_poke poke;

	rec_start();
	rec.can = CAN_ALL & ~XP_NEED_SINGLE;
	poke = poke_at(SITE, nop5, jmp, 5);
	rec_put(SITE, nop5, 5);
	rec.step = poke_again;
	CHECK_EQ(xp_text_poke(&poke, NULL), 0);
	CHECK(inner_calls > 5);
}

/* Something that is not the engine takes our breakpoint away: reported, the byte left to it, the rest as it was. */
static void steal(const struct rec_step *step)
{
	if (step->op == REC_SYNC && rec.calls[REC_SYNC] == 1)
		rec_text[SITE] = 0x90;
}

XP_TEST(a_breakpoint_that_vanishes)
{
	struct xp_poke poke;
	struct xp_diag diag;

	rec_start();
	rec.can = CAN_ALL & ~XP_NEED_SINGLE;
	poke = poke_at(SITE, nop5, jmp, 5);
	rec_put(SITE, nop5, 5);
	rec.step = steal;
	CHECK_EQ(xp_text_poke(&poke, &diag), -EBUSY);
	CHECK_EQ(diag.phase, XP_PHASE_STORE);
	CHECK(diag.site == rec_text + SITE);
	CHECK_EQ(rec_text[SITE], 0x90);
	CHECK_MEM(rec_text + SITE + 1, nop5 + 1, 4);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

/* The first write is refused, and no sync works: nothing was stored, so nothing is left to synchronize. */
XP_TEST(a_write_refused_and_no_sync_to_undo_it)
{
	struct xp_poke poke;
	struct xp_diag diag;

	rec_start();
	rec.can = CAN_ALL & ~XP_NEED_SINGLE;
	poke = poke_at(SITE, nop5, jmp, 5);
	rec_put(SITE, nop5, 5);
	rec_fail(REC_WRITE, 1, 1, -EIO);
	rec_fail(REC_SYNC, 1, REC_FOREVER, -ENOSYS);
	CHECK_EQ(xp_text_poke(&poke, &diag), -EIO);
	CHECK_EQ(diag.phase, XP_PHASE_STORE);
	CHECK_MEM(rec_text + SITE, nop5, 5);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

XP_TEST(policies)
{
	rec_start();
	CHECK_EQ(xp_set_policy((enum xp_policy)4), -EINVAL);
	CHECK_EQ(xp_set_policy((enum xp_policy) - 1), -EINVAL);
	CHECK_EQ(xp_policy(), XP_POLICY_AUTO);
	CHECK_EQ(xp_set_policy(XP_POLICY_EARLY), 0);
	CHECK_EQ(xp_policy(), XP_POLICY_EARLY);
}

XP_TEST(generated_instructions)
{
	uint8_t out[5] = {1, 2, 3, 4, 5};
	static const uint8_t untouched[5] = {1, 2, 3, 4, 5}, to_next[5] = {0xe8, 0, 0, 0, 0};
	static const uint8_t farthest[5] = {0xe9, 0xff, 0xff, 0xff, 0x7f}, nearest[5] = {0xe9, 0, 0, 0, 0x80};
	uintptr_t addr = (uintptr_t)0x180000000;

	CHECK_EQ(xp_text_gen_insn(out, 0xea, rec_text, rec_text), -EINVAL);
	if (sizeof(addr) == 8) { /* 32-bit addresses go round */
		CHECK_EQ(xp_text_gen_insn(out, 0xe9, (void *)addr, (void *)(addr + 5 + 0x80000000)), -XP_E_RANGE);
		CHECK_EQ(xp_text_gen_insn(out, 0xe9, (void *)addr, (void *)(addr + 5 - 0x80000001)), -XP_E_RANGE);
	}
	CHECK_MEM(out, untouched, 5);
	CHECK_EQ(xp_text_gen_insn(out, 0xe8, (void *)addr, (void *)(addr + 5)), 0);
	CHECK_MEM(out, to_next, 5);
	CHECK_EQ(xp_text_gen_insn(out, 0xe9, (void *)addr, (void *)(addr + 5 + 0x7fffffff)), 0);
	CHECK_MEM(out, farthest, 5);
	CHECK_EQ(xp_text_gen_insn(out, 0xe9, (void *)addr, (void *)(addr + 5 - 0x80000000)), 0);
	CHECK_MEM(out, nearest, 5);
}

XP_TEST_MAIN()
