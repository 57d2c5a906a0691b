/* SPDX-License-Identifier: MIT */
/*
 * What regression tests patch: one key with one site, and one raw site that needs a trap under every policy with
 * breakpoints: nop ↔ jmp across a quadword, at an odd address, so that neither word nor shortjmp serve.
 */
#ifndef XP_SUBJECT_H
#define XP_SUBJECT_H

#include "xp_test.h"
#include "xp_text.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>

XP_DEFINE_STATIC_KEY_FALSE(subject_key);

static __attribute__((noinline, unused)) bool subject_key_site(void)
{
	return xp_static_branch_unlikely(&subject_key);
}

enum { SUBJECT_OFF = 1, SUBJECT_ON = 2, SUBJECT_LEN = 5 };

struct subject {
	struct xp_text text;
	uint8_t *site;
	uint8_t nop[SUBJECT_LEN], jmp[SUBJECT_LEN];
	struct xp_poke on, off;
};

/* A function that returns SUBJECT_OFF, or SUBJECT_ON once patched; site @offset bytes into its text. */
static inline bool subject_make_at(struct subject *subject, size_t offset)
{
	static const uint8_t nop[SUBJECT_LEN] = {0x0f, 0x1f, 0x44, 0x00, 0x00};
	static const uint8_t tail[] = {0xb8, SUBJECT_OFF, 0, 0, 0, 0xc3, 0xb8, SUBJECT_ON, 0, 0, 0, 0xc3};

	if (!xp_text_alloc(&subject->text, offset + SUBJECT_LEN + sizeof(tail)))
		return false;
	subject->site = subject->text.base + offset;
	memcpy(subject->nop, nop, SUBJECT_LEN);
	memcpy(subject->site, nop, SUBJECT_LEN);
	memcpy(subject->site + SUBJECT_LEN, tail, sizeof(tail));
	xp_text_gen_insn(subject->jmp, 0xe9, subject->site, subject->site + SUBJECT_LEN + 6);
	memset(&subject->on, 0, sizeof(subject->on));
	subject->on.addr = subject->site;
	subject->on.len = SUBJECT_LEN;
	subject->off = subject->on;
	subject->on.expect = subject->off.replace = subject->nop;
	subject->on.replace = subject->off.expect = subject->jmp;
	return xp_text_seal(&subject->text);
}

static inline bool subject_make(struct subject *subject)
{
	return subject_make_at(subject, 61);
}

static inline unsigned subject_call(const struct subject *subject)
{
	return xp_text_call(subject->site, 0, 0);
}

static inline bool subject_is(const struct subject *subject, const uint8_t *bytes)
{
	return memcmp(subject->site, bytes, SUBJECT_LEN) == 0;
}

/* On and off again, with the effect that it should have. */
static inline bool subject_works(const struct subject *subject)
{
	CHECK_EQ(xp_text_poke(&subject->on, NULL), 0);
	CHECK_EQ(subject_call(subject), SUBJECT_ON);
	CHECK_EQ(xp_text_poke(&subject->off, NULL), 0);
	CHECK_EQ(subject_call(subject), SUBJECT_OFF);
	return subject_is(subject, subject->nop);
}

static inline __attribute__((unused)) void key_works(void)
{
	CHECK_EQ(xp_static_branch_enable(&subject_key), 0);
	CHECK(subject_key_site());
	CHECK_EQ(xp_static_branch_disable(&subject_key), 0);
	CHECK(!subject_key_site());
}

/* A refusal: the code returned, told in the diagnostic and in words, and nothing changed. */
static inline __attribute__((unused)) void subject_refused(const struct subject *subject, const struct xp_poke *poke,
							   int code, enum xp_phase phase, const char *words)
{
	uint8_t before[SUBJECT_LEN];
	struct xp_diag diag;
	char line[512];

	memcpy(before, subject->site, SUBJECT_LEN);
	CHECK_EQ(xp_text_poke(poke, &diag), code);
	CHECK_EQ(diag.error, code);
	CHECK_EQ(diag.phase, phase);
	CHECK(xp_diag_format(&diag, line, sizeof(line)) < sizeof(line));
	XP_TEST_NOTE("%s", line);
	CHECK(strstr(line, words) != NULL);
	CHECK_MEM(subject->site, before, SUBJECT_LEN);
	CHECK_EQ(xp_state(), XP_STATE_READY);
}

/* A thread that calls a subject until it is told to stop, and counts what was neither of the two. */
struct subject_runner {
	const struct subject *subject;
	bool stop;
	uint64_t calls;
	unsigned wrong;
};

static inline void *subject_run(void *argument)
{
	struct subject_runner *runner = argument;

	while (!__atomic_load_n(&runner->stop, __ATOMIC_RELAXED)) {
		unsigned result = subject_call(runner->subject);

		runner->wrong += result != SUBJECT_OFF && result != SUBJECT_ON;
		__atomic_store_n(&runner->calls, runner->calls + 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

#endif
