/* SPDX-License-Identifier: MIT */
/*
 * Raw sites: small functions in text made at run time, each with one site that goes round through the variants of its
 * form. Every variant makes the function return a number of its own, so that a bystander can tell which it executed.
 *
 * A function, site at +0:
 *	site                  len bytes, a variant
 *	tail                  what follows the site when it falls through
 *	+TARGET_A, +TARGET_B  mov $RESULT_A, %eax; ret   and the same with B, which lies before the site, so that
 *	                      displacements to A and B differ in every byte
 *	+RESUME               where XP_RESUME_AT continues: mov $RESULT_RESUME, %eax; ret
 */
#ifndef XP_POKES_H
#define XP_POKES_H

#include "xp_text.h"
#include "xp_torture.h"

enum { TARGET_A = 48, TARGET_B = -16, RESUME = 56, FUNCTION_BEFORE = 16, FUNCTION_BEHIND = 64 };
enum { RESULT_INPUT = 1, RESULT_TAIL, RESULT_A, RESULT_B, RESULT_RESUME, RESULT_IMM_1, RESULT_IMM_2 };

struct variant {
	uint8_t bytes[XP_MAX_LEN];
	uint8_t result[2]; /* with the zero flag clear, set */
};

struct form {
	const char *name;
	uint8_t len;
	uint8_t nr_tail;
	uint8_t tail[12];
	enum xp_resume resume;
	uint8_t resume_result; /* what a bystander that was resumed returns; 0: RESULT_RESUME is not reached */
	bool resume_behind;    /* resume right behind the site, instead of at RESUME */
	struct variant variants[2];
};

#define NOP9 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00
#define NOP5 0x0f, 0x1f, 0x44, 0x00, 0x00
#define TO(target, end)                                                                                                \
	(uint8_t)((target) - (end)), BYTE_1((target) - (end)), BYTE_1((target) - (end)), BYTE_1((target) - (end))
#define BYTE_1(displacement) ((displacement) < 0 ? 0xff : 0)
#define TAIL_RETURN                                                                                                    \
	1,                                                                                                             \
	{                                                                                                              \
		0xc3                                                                                                   \
	}
#define TAIL_RESULT                                                                                                    \
	6,                                                                                                             \
	{                                                                                                              \
		0xb8, RESULT_TAIL, 0, 0, 0, 0xc3                                                                       \
	}
/* setz %al; movzbl %al, %eax; add $RESULT_A, %eax; ret: with the zero flag clear RESULT_A, else RESULT_B */
#define TAIL_FLAG                                                                                                      \
	10,                                                                                                            \
	{                                                                                                              \
		0x0f, 0x94, 0xc0, 0x0f, 0xb6, 0xc0, 0x83, 0xc0, RESULT_A, 0xc3                                         \
	}

/* The value that a call of a function takes in eax is RESULT_INPUT: bit 0 set, bit 1 clear. */
static const struct form forms[] = {
	/* S3's pair: word, shortjmp or breakpoint, as it lies */
	{"nop5_jmp",
	 5,
	 TAIL_RESULT,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{NOP5}, {RESULT_TAIL, RESULT_TAIL}}, {{0xe9, TO(TARGET_A, 5)}, {RESULT_A, RESULT_A}}}},
	{"jmp_jmp",
	 5,
	 TAIL_RESULT,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{0xe9, TO(TARGET_A, 5)}, {RESULT_A, RESULT_A}}, {{0xe9, TO(TARGET_B, 5)}, {RESULT_B, RESULT_B}}}},
	{"call_call",
	 5,
	 TAIL_RETURN,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{0xe8, TO(TARGET_A, 5)}, {RESULT_A, RESULT_A}}, {{0xe8, TO(TARGET_B, 5)}, {RESULT_B, RESULT_B}}}},
	{"nop5_call",
	 5,
	 TAIL_RETURN,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{NOP5}, {RESULT_INPUT, RESULT_INPUT}}, {{0xe8, TO(TARGET_B, 5)}, {RESULT_B, RESULT_B}}}},
	{"jz_jnz",
	 6,
	 TAIL_RESULT,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{0x0f, 0x84, TO(TARGET_A, 6)}, {RESULT_TAIL, RESULT_A}},
	  {{0x0f, 0x85, TO(TARGET_B, 6)}, {RESULT_B, RESULT_TAIL}}}},
	{"nop2_jmp8",
	 2,
	 TAIL_RESULT,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{0x66, 0x90}, {RESULT_TAIL, RESULT_TAIL}}, {{0xeb, TARGET_A - 2}, {RESULT_A, RESULT_A}}}},
	{"test_test",
	 5,
	 TAIL_FLAG,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{0xa9, 0x01, 0x00, 0x00, 0x00}, {RESULT_A, RESULT_A}},
	  {{0xa9, 0x02, 0x00, 0x00, 0x40}, {RESULT_B, RESULT_B}}}},
	{"test_jmp",
	 5,
	 TAIL_FLAG,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{0xa9, TO(TARGET_B, 5)}, {RESULT_A, RESULT_A}}, {{0xe9, TO(TARGET_B, 5)}, {RESULT_B, RESULT_B}}}},
	{"ret_nop",
	 1,
	 TAIL_RESULT,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{0xc3}, {RESULT_INPUT, RESULT_INPUT}}, {{0x90}, {RESULT_TAIL, RESULT_TAIL}}}},
	{"ret_imm_nop3",
	 3,
	 TAIL_RESULT,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{0xc2, 0x00, 0x00}, {RESULT_INPUT, RESULT_INPUT}}, {{0x0f, 0x1f, 0x00}, {RESULT_TAIL, RESULT_TAIL}}}},
	/* the longest: 16 bytes, the padding changes too */
	{"jmp_padded",
	 16,
	 TAIL_RESULT,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{0xe9, TO(TARGET_A, 5), NOP9, 0x66, 0x90}, {RESULT_A, RESULT_A}},
	  {{0xe9, TO(TARGET_B, 5), 0x66, 0x90, NOP9}, {RESULT_B, RESULT_B}}}},
	{"nop15_jmp",
	 15,
	 TAIL_RESULT,
	 XP_RESUME_EMULATE,
	 0,
	 false,
	 {{{0x66, 0x66, 0x66, 0x66, 0x66, 0x66, NOP9}, {RESULT_TAIL, RESULT_TAIL}},
	  {{0xe9, TO(TARGET_A, 5), NOP5, NOP5}, {RESULT_A, RESULT_A}}}},
	/* S2: "as if a nop had been there" */
	{"nop5_jmp_resume",
	 5,
	 TAIL_RESULT,
	 XP_RESUME_AT,
	 RESULT_TAIL,
	 true,
	 {{{NOP5}, {RESULT_TAIL, RESULT_TAIL}}, {{0xe9, TO(TARGET_A, 5)}, {RESULT_A, RESULT_A}}}},
	/* what cannot be emulated, with a stub: mov $imm, %eax */
	{"mov_mov_resume",
	 5,
	 TAIL_RETURN,
	 XP_RESUME_AT,
	 RESULT_RESUME,
	 false,
	 {{{0xb8, RESULT_IMM_1, 0, 0, 0}, {RESULT_IMM_1, RESULT_IMM_1}},
	  {{0xb8, RESULT_IMM_2, 0, 0x40, 0}, {RESULT_IMM_2, RESULT_IMM_2}}}},
};
#define NR_FORMS (sizeof(forms) / sizeof(forms[0]))

struct poke_site {
	uint8_t *addr;
	const struct form *form;
	uint32_t *epoch; /* own, or shared by a batch */
	uint32_t own_epoch;
};

/* Lays the function of @form out, site at @addr in writable text. */
static inline void poke_site_make(struct poke_site *site, const struct form *form, uint8_t *addr)
{
	static const int ends[3][2] = {{TARGET_A, RESULT_A}, {TARGET_B, RESULT_B}, {RESUME, RESULT_RESUME}};

	memcpy(addr, form->variants[0].bytes, form->len);
	memcpy(addr + form->len, form->tail, form->nr_tail);
	for (unsigned i = 0; i < 3; i++) {
		const uint8_t code[6] = {0xb8, (uint8_t)ends[i][1], 0, 0, 0, 0xc3};

		memcpy(addr + ends[i][0], code, sizeof(code));
	}
	site->addr = addr;
	site->form = form;
	site->own_epoch = 0;
	site->epoch = &site->own_epoch;
}

/* The step from the present variant to the next. */
static inline struct xp_poke poke_site_step(const struct poke_site *site, uint32_t state)
{
	const struct form *form = site->form;
	struct xp_poke poke = {
		.addr = site->addr,
		.expect = form->variants[state % 2].bytes,
		.replace = form->variants[(state + 1) % 2].bytes,
		.len = form->len,
		.resume = form->resume,
		.resume_at = form->resume_behind ? site->addr + form->len : site->addr + RESUME,
	};

	return poke;
}

/* Executes the function and says whether the result is allowed. */
static inline bool poke_site_execute(const struct poke_site *site, unsigned flag)
{
	const struct form *form = site->form;
	uint32_t before = xp_epoch_read(site->epoch);
	unsigned result =
		xp_text_call(site->addr, RESULT_INPUT, flag ? 0 : 1) & 0xff; /* of an immediate the low byte */
	uint32_t after = xp_epoch_read(site->epoch);

	for (unsigned i = 0; i < 2; i++)
		if (result == form->variants[i].result[flag] && xp_epoch_allows(before, after, 2, i))
			return true;
	/* Resumed where the caller said: right as long as a commit was under way. */
	if (form->resume == XP_RESUME_AT && result == form->resume_result && (before != after || before % 2))
		return true;
	return false;
}

/* ---- several of each form, scattered over the offsets of a line ---- */

enum { POKES_PER_FORM = 8, NR_POKES = NR_FORMS * POKES_PER_FORM, POKE_ROOM = 256 };

/* @epoch: shared by all, or NULL: each has its own. */
static inline bool poke_sites_make(struct xp_text *text, struct poke_site sites[NR_POKES], uint32_t *epoch)
{
	if (!xp_text_alloc(text, NR_POKES * POKE_ROOM))
		return false;
	for (unsigned i = 0; i < NR_POKES; i++) {
		poke_site_make(&sites[i], &forms[i % NR_FORMS], text->base + i * POKE_ROOM + 64 + i * 37 % 64);
		if (epoch)
			sites[i].epoch = epoch;
	}
	return xp_text_seal(text);
}

/* Executes all once; the number of wrong results. */
static inline unsigned poke_sites_execute(const struct poke_site sites[NR_POKES], uint64_t *random)
{
	unsigned flag = (unsigned)xp_test_random(random) & 1, wrong = 0;

	for (unsigned i = 0; i < NR_POKES; i++)
		wrong += !poke_site_execute(&sites[i], flag);
	return wrong;
}

#endif
