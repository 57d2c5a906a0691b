/* SPDX-License-Identifier: MIT */
/*
 * The strict decoder against tables written by hand from the manual, and against Zydis, which knows everything: the
 * two must agree on what is accepted, and on what is refused, over all first bytes and all prefixes.
 *
 * Also compiled with XP__CODE_BITS=32: the decoder of 32-bit code, in a 64-bit process, which has Zydis.
 *
 * Every decoding is done at the end of a page whose successor is inaccessible: a byte read too far crashes.
 */
#include "arch/x86/insn.h"
#include "xp_test.h"

#ifndef XP_NO_ZYDIS
#include <Zydis/Zydis.h>
#endif
#include <sys/mman.h>
#include <unistd.h>

enum {
	LENGTH_MAX = 15,
	WINDOW = 24, /* bytes of the longest input */
};

/* Decodes @len bytes that end where memory ends. The result is poisoned first: whatever is not written shows. */
static unsigned decode(const uint8_t *bytes, size_t len, struct xp__insn *insn)
{
	static uint8_t *end;

	if (!end) {
		size_t page = (size_t)sysconf(_SC_PAGESIZE);
		uint8_t *map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (map == MAP_FAILED || mprotect(map + page, page, PROT_NONE)) {
			perror("mmap");
			exit(1);
		}
		end = map + page;
	}
	memcpy(end - len, bytes, len);
	memset(insn, 0xa5, sizeof(*insn));
	return xp__insn_decode(end - len, len, insn);
}

static void note_bytes(const uint8_t *bytes, size_t len)
{
	printf("# bytes:");
	for (size_t i = 0; i < len; i++)
		printf(" %02x", bytes[i]);
	putchar('\n');
}

/* Prints the input of a check that failed; few of them, as the checks themselves. */
#define CHECK_ABOUT(bytes, len, check)                                                                      \
	do {                                                                                                \
		unsigned failures_before = xp_test_state.failures;                                          \
		check;                                                                                      \
		if (xp_test_state.failures != failures_before && failures_before < 20)                      \
			note_bytes(bytes, len);                                                             \
	} while (0)

static bool same_insn(const struct xp__insn *a, const struct xp__insn *b)
{
	return a->kind == b->kind && a->len == b->len && a->cond == b->cond && a->width == b->width &&
	       a->imm == b->imm && a->reg == b->reg && a->high == b->high && a->size == b->size && a->zero == b->zero;
}

static const struct xp__insn unknown = { .kind = XP__INSN_UNKNOWN };

static void check_refused(const uint8_t *bytes, size_t len)
{
	struct xp__insn insn;
	unsigned length = decode(bytes, len, &insn);

	CHECK_ABOUT(bytes, len, CHECK_EQ(length, 0));
	CHECK_ABOUT(bytes, len, CHECK(same_insn(&insn, &unknown)));
}

/* Accepted as @expect whatever follows; refused at every length that cuts it off. */
static void check_accepted(const uint8_t *bytes, const struct xp__insn *expect)
{
	static const uint8_t tails[] = { 0x00, 0x90, 0xcc, 0xff };
	uint8_t longer[WINDOW];
	struct xp__insn insn;
	unsigned length;

	for (unsigned cut = 0; cut < expect->len; cut++)
		check_refused(bytes, cut);
	length = decode(bytes, expect->len, &insn);
	CHECK_ABOUT(bytes, expect->len, CHECK_EQ(length, expect->len));
	CHECK_ABOUT(bytes, expect->len, CHECK(same_insn(&insn, expect)));
	for (unsigned i = 0; i < sizeof(tails); i++) {
		memset(longer, tails[i], sizeof(longer));
		memcpy(longer, bytes, expect->len);
		length = decode(longer, sizeof(longer), &insn);
		CHECK_ABOUT(longer, sizeof(longer), CHECK_EQ(length, expect->len));
		CHECK_ABOUT(longer, sizeof(longer), CHECK(same_insn(&insn, expect)));
	}
}

struct golden {
	uint8_t bytes[LENGTH_MAX];
	struct xp__insn insn;
};

static const struct golden golden[] = {
	{ { 0x90 }, { XP__INSN_NOP, 1, 0, 0, .imm = 0 } },
	{ { 0x66, 0x90 }, { XP__INSN_NOP, 2, 0, 0, .imm = 0 } },
	{ { 0x0f, 0x1f, 0x00 }, { XP__INSN_NOP, 3, 0, 0, .imm = 0 } },                               /* [rax] */
	{ { 0x0f, 0x1f, 0xc0 }, { XP__INSN_NOP, 3, 0, 0, .imm = 0 } },                               /* eax */
	{ { 0x0f, 0x1f, 0xc4 }, { XP__INSN_NOP, 3, 0, 0, .imm = 0 } },                               /* esp: no SIB */
	{ { 0x0f, 0x1f, 0x04, 0x00 }, { XP__INSN_NOP, 4, 0, 0, .imm = 0 } },                         /* [rax+rax] */
	{ { 0x0f, 0x1f, 0x40, 0x00 }, { XP__INSN_NOP, 4, 0, 0, .imm = 0 } },                         /* [rax+disp8] */
	{ { 0x0f, 0x1f, 0x44, 0x00, 0x00 }, { XP__INSN_NOP, 5, 0, 0, .imm = 0 } },                   /* [rax+rax+disp8] */
	{ { 0x0f, 0x1f, 0x44, 0x05, 0x00 }, { XP__INSN_NOP, 5, 0, 0, .imm = 0 } },                   /* [rbp+rax+disp8] */
	{ { 0x0f, 0x1f, 0x05, 1, 2, 3, 4 }, { XP__INSN_NOP, 7, 0, 0, .imm = 0 } },                   /* [rip+disp32] */
	{ { 0x0f, 0x1f, 0x80, 1, 2, 3, 4 }, { XP__INSN_NOP, 7, 0, 0, .imm = 0 } },                   /* [rax+disp32] */
	{ { 0x0f, 0x1f, 0x04, 0x05, 1, 2, 3, 4 }, { XP__INSN_NOP, 8, 0, 0, .imm = 0 } },             /* [rax*1+disp32] */
	{ { 0x0f, 0x1f, 0x84, 0x00, 1, 2, 3, 4 }, { XP__INSN_NOP, 8, 0, 0, .imm = 0 } },             /* [rax+rax+disp32] */
	{ { 0x66, 0x0f, 0x1f, 0x00 }, { XP__INSN_NOP, 4, 0, 0, .imm = 0 } },
	{ { 0x2e, 0x0f, 0x1f, 0x00 }, { XP__INSN_NOP, 4, 0, 0, .imm = 0 } },
	{ { 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 }, { XP__INSN_NOP, 6, 0, 0, .imm = 0 } },
	{ { 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0 }, { XP__INSN_NOP, 10, 0, 0, .imm = 0 } },   /* what gas emits */
	{ { 0x2e, 0x66, 0x66, 0x0f, 0x1f, 0x40, 0x00 }, { XP__INSN_NOP, 7, 0, 0, .imm = 0 } },
	{ { 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0 },
	  { XP__INSN_NOP, 15, 0, 0, .imm = 0 } },
	{ { 0xeb, 0x00 }, { XP__INSN_JMP, 2, 0, 0, .imm = 0 } },
	{ { 0xeb, 0x7f }, { XP__INSN_JMP, 2, 0, 0, .imm = 127 } },
	{ { 0xeb, 0x80 }, { XP__INSN_JMP, 2, 0, 0, .imm = -128 } },
	{ { 0xeb, 0xfe }, { XP__INSN_JMP, 2, 0, 0, .imm = -2 } },
	{ { 0xe9, 0x01, 0x02, 0x03, 0x04 }, { XP__INSN_JMP, 5, 0, 0, .imm = 0x04030201 } },
	{ { 0xe9, 0xff, 0xff, 0xff, 0x7f }, { XP__INSN_JMP, 5, 0, 0, .imm = INT32_MAX } },
	{ { 0xe9, 0x00, 0x00, 0x00, 0x80 }, { XP__INSN_JMP, 5, 0, 0, .imm = INT32_MIN } },
	{ { 0xe9, 0xfb, 0xff, 0xff, 0xff }, { XP__INSN_JMP, 5, 0, 0, .imm = -5 } },
	{ { 0xe9, 0xff, 0x00, 0x00, 0x00 }, { XP__INSN_JMP, 5, 0, 0, .imm = 255 } },
	{ { 0xe8, 0x78, 0x56, 0x34, 0x12 }, { XP__INSN_CALL, 5, 0, 0, .imm = 0x12345678 } },
	{ { 0xe8, 0x00, 0x00, 0x00, 0x80 }, { XP__INSN_CALL, 5, 0, 0, .imm = INT32_MIN } },
	{ { 0xe8, 0xfe, 0xff, 0xff, 0xff }, { XP__INSN_CALL, 5, 0, 0, .imm = -2 } },
	{ { 0xc3 }, { XP__INSN_RET, 1, 0, 0, .imm = 0 } },
	{ { 0xc2, 0x00, 0x00 }, { XP__INSN_RET, 3, 0, 0, .imm = 0 } },
	{ { 0xc2, 0x08, 0x01 }, { XP__INSN_RET, 3, 0, 0, .imm = 0x108 } },
	{ { 0xc2, 0x00, 0x80 }, { XP__INSN_RET, 3, 0, 0, .imm = 0x8000 } }, /* unsigned */
	{ { 0xc2, 0xff, 0xff }, { XP__INSN_RET, 3, 0, 0, .imm = 0xffff } },
	{ { 0xa8, 0x7f }, { XP__INSN_TEST_IMM, 2, 0, 1, .imm = 127 } },
	{ { 0xa8, 0x80 }, { XP__INSN_TEST_IMM, 2, 0, 1, .imm = -128 } },
	{ { 0xa9, 0x01, 0x02, 0x03, 0x04 }, { XP__INSN_TEST_IMM, 5, 0, 4, .imm = 0x04030201 } },
	{ { 0xa9, 0x00, 0x00, 0x00, 0x80 }, { XP__INSN_TEST_IMM, 5, 0, 4, .imm = INT32_MIN } },
	{ { 0x66, 0xa9, 0xff, 0x7f }, { XP__INSN_TEST_IMM, 4, 0, 2, .imm = 32767 } },
	{ { 0x66, 0xa9, 0x00, 0x80 }, { XP__INSN_TEST_IMM, 4, 0, 2, .imm = -32768 } },
	{ { 0xcc }, { XP__INSN_INT3, 1, 0, 0, .imm = 0 } },
#define MOV(len, width, reg, high, size, imm) { XP__INSN_MOV_IMM, len, 0, width, reg, high, size, 0, imm }
	{ { 0xb0, 0x80 }, MOV(2, 1, 0, 0, 1, -128) },
	{ { 0xb3, 0x7f }, MOV(2, 1, 3, 0, 1, 127) },
	{ { 0xb4, 0x01 }, MOV(2, 1, 0, 1, 1, 1) },                                       /* ah */
	{ { 0xb7, 0x01 }, MOV(2, 1, 3, 1, 1, 1) },                                       /* bh */
	{ { 0x66, 0xb8, 0x00, 0x80 }, MOV(4, 2, 0, 0, 2, -32768) },
	{ { 0x66, 0xbc, 0xff, 0x7f }, MOV(4, 2, 4, 0, 2, 32767) },
	{ { 0xb8, 0x01, 0x02, 0x03, 0x84 }, MOV(5, 4, 0, 0, 4, (int32_t)0x84030201) },
	{ { 0xbf, 0x01, 0x02, 0x03, 0x04 }, MOV(5, 4, 7, 0, 4, 0x04030201) },
	{ { 0xc6, 0xc1, 0x05 }, MOV(3, 1, 1, 0, 1, 5) },
	{ { 0xc6, 0xc5, 0x05 }, MOV(3, 1, 1, 1, 1, 5) },                                 /* ch */
	{ { 0x66, 0xc7, 0xc0, 0x01, 0x02 }, MOV(5, 2, 0, 0, 2, 0x201) },
	{ { 0xc7, 0xc4, 1, 2, 3, 4 }, MOV(6, 4, 4, 0, 4, 0x04030201) },
#if XP__CODE_BITS == 64
	{ { 0x48, 0xa9, 0x01, 0x02, 0x03, 0x04 }, { XP__INSN_TEST_IMM, 6, 0, 8, .imm = 0x04030201 } },
	{ { 0x48, 0xa9, 0xff, 0xff, 0xff, 0xff }, { XP__INSN_TEST_IMM, 6, 0, 8, .imm = -1 } },
	{ { 0x40, 0xb4, 0x01 }, MOV(3, 1, 4, 0, 1, 1) },                                 /* spl */
	{ { 0x40, 0xb7, 0xff }, MOV(3, 1, 7, 0, 1, -1) },                                /* dil */
	{ { 0x41, 0xb0, 0x01 }, MOV(3, 1, 8, 0, 1, 1) },
	{ { 0x41, 0xb4, 0x01 }, MOV(3, 1, 12, 0, 1, 1) },
	{ { 0x41, 0xb7, 0x01 }, MOV(3, 1, 15, 0, 1, 1) },
	{ { 0x66, 0x41, 0xbf, 0x02, 0x01 }, MOV(5, 2, 15, 0, 2, 0x102) },
	{ { 0x41, 0xbf, 0x01, 0x02, 0x03, 0x04 }, MOV(6, 4, 15, 0, 4, 0x04030201) },
	{ { 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8 }, MOV(10, 8, 0, 0, 8, 0x0807060504030201) },
	{ { 0x48, 0xbf, 1, 2, 3, 4, 5, 6, 7, 0x80 }, MOV(10, 8, 7, 0, 8, (int64_t)0x8007060504030201) },
	{ { 0x49, 0xb8, 1, 2, 3, 4, 0, 0, 0, 0 }, MOV(10, 8, 8, 0, 8, 0x04030201) },
	{ { 0x40, 0xc6, 0xc5, 0x05 }, MOV(4, 1, 5, 0, 1, 5) },                           /* bpl */
	{ { 0x41, 0xc6, 0xc5, 0x05 }, MOV(4, 1, 13, 0, 1, 5) },
	{ { 0x66, 0x41, 0xc7, 0xc0, 0x01, 0x02 }, MOV(6, 2, 8, 0, 2, 0x201) },
	{ { 0x41, 0xc7, 0xc4, 1, 2, 3, 4 }, MOV(7, 4, 12, 0, 4, 0x04030201) },
	{ { 0x48, 0xc7, 0xc0, 1, 2, 3, 0x84 }, MOV(7, 8, 0, 0, 4, (int32_t)0x84030201) }, /* sign-extended */
	{ { 0x49, 0xc7, 0xc7, 1, 2, 3, 4 }, MOV(7, 8, 15, 0, 4, 0x04030201) },
#endif
};

XP_TEST(documented_forms)
{
	for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
		check_accepted(golden[i].bytes, &golden[i].insn);
}

XP_TEST(conditional_jumps)
{
	for (uint8_t cond = 0; cond < 16; cond++) {
		const uint8_t near_jump[] = { 0x0f, (uint8_t)(0x80 + cond), 0xfe, 0xff, 0xff, 0xff };
		const uint8_t short_jump[] = { (uint8_t)(0x70 + cond), 0x80 };

		check_accepted(near_jump, &(struct xp__insn){ XP__INSN_JCC, 6, cond, 0, .imm = -2 });
		check_accepted(short_jump, &(struct xp__insn){ XP__INSN_JCC, 2, cond, 0, .imm = -128 });
	}
}

/* Prefixes of 64-bit code: segments, sizes, lock and repeat, all REX; in 32-bit code these are INC and DEC. */
static unsigned all_prefixes(uint8_t *out)
{
	static const uint8_t legacy[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3 };
	unsigned nr = sizeof(legacy);

	memcpy(out, legacy, sizeof(legacy));
	for (unsigned rex = 0x40; rex <= 0x4f; rex++)
		out[nr++] = (uint8_t)rex;
	return nr;
}

enum { NR_PREFIXES = 11 + 16 };

/* The documentation, once more and from the other end: which one prefix may stand before which golden form. */
static bool prefix_documented(uint8_t prefix, const struct golden *form)
{
	const uint8_t *bytes = form->bytes;

	if (form->insn.kind == XP__INSN_NOP && bytes[0] != 0x90 && bytes[1] != 0x90)
		return prefix == 0x66 || prefix == 0x2e;
	if (bytes[0] == 0x90)
		return prefix == 0x66;
	if (bytes[0] == 0xa9)
		return prefix == 0x66 || (XP__CODE_BITS == 64 && prefix == 0x48);
	if (form->insn.kind != XP__INSN_MOV_IMM || bytes[0] == 0x66)
		return false;
	/* The operand of each grows with the prefix, or shrinks; 40 renames the high bytes. None before another REX. */
	if ((bytes[0] & 0xf0) == 0x40)
		return prefix == 0x66 && bytes[0] == 0x41 && form->insn.width == 4;
	if (prefix == 0x66)
		return form->insn.width == 4;
	if (prefix == 0x40)
		return XP__CODE_BITS == 64 && form->insn.high;
	return XP__CODE_BITS == 64 && (prefix == 0x41 || (form->insn.width == 4 && (prefix & 0xfe) == 0x48));
}

XP_TEST(other_prefixes_refused)
{
	uint8_t prefixes[NR_PREFIXES], bytes[WINDOW];
	unsigned nr_refused = 0;

	CHECK_EQ(all_prefixes(prefixes), NR_PREFIXES);
	for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
		for (unsigned p = 0; p < NR_PREFIXES; p++) {
			if (prefix_documented(prefixes[p], &golden[i]))
				continue;
			memset(bytes, 0, sizeof(bytes));
			bytes[0] = prefixes[p];
			memcpy(bytes + 1, golden[i].bytes, golden[i].insn.len);
			check_refused(bytes, sizeof(bytes));
			nr_refused++;
		}
	}
	XP_TEST_NOTE("%u prefixed forms refused", nr_refused);
}

XP_TEST(neighbours_refused)
{
	static const uint8_t refused[][8] = {
		{ 0xf3, 0x90 },                   /* pause */
		{ 0x87, 0xc0 },                   /* xchg eax, eax: clears the upper half of rax */
		{ 0x0f, 0x1f, 0x08 },             /* 0F 1F /1: reserved nop */
		{ 0x0f, 0x1f, 0x38 },             /* /7 */
		{ 0x0f, 0x1e, 0x00 },             /* 0F 1E /0 */
		{ 0xf3, 0x0f, 0x1e, 0xfa },       /* endbr64 */
		{ 0x0f, 0x0d, 0x00 },             /* prefetch */
		{ 0xcd, 0x03 },                   /* int 3, two bytes */
		{ 0xf1 },                         /* int1 */
		{ 0xcb },                         /* retf */
		{ 0xca, 0x08, 0x00 },             /* retf imm16 */
		{ 0xcf },                         /* iret */
		{ 0xe3, 0x00 },                   /* jrcxz */
		{ 0xe2, 0x00 },                   /* loop */
		{ 0xff, 0xd0 },                   /* call rax */
		{ 0xff, 0xe0 },                   /* jmp rax */
		{ 0xf6, 0xc0, 0x01 },             /* test al, imm8, long form */
		{ 0xf7, 0xc0, 0x01, 0, 0, 0 },    /* test eax, imm32, long form */
		{ 0x85, 0xc0 },                   /* test eax, eax */
		{ 0xc7, 0xf8, 0, 0, 0, 0 },       /* xbegin */
		{ 0x0f, 0x90, 0xc0 },             /* seto al */
		{ 0x66, 0x66, 0x90 },             /* more prefixes than documented */
		{ 0x2e, 0x90 },
		{ 0x66, 0x66, 0xa9, 0, 0 },
		{ 0x66, 0x48, 0xa9, 0, 0, 0, 0 },
		{ 0x48, 0x66, 0xa9, 0, 0 },
		{ 0xc6, 0x00, 1 },                /* mov to memory */
		{ 0xc7, 0x05, 0, 0, 0, 0, 1, 0 },
		{ 0xc6, 0xf8, 1 },                /* xabort */
		{ 0xc7, 0xc8, 0, 0, 0, 0 },       /* C7 /1: none */
		{ 0xa0, 0, 0, 0, 0, 0, 0, 0 },    /* mov al, moffs */
		{ 0x40, 0xb8, 1, 2, 3, 4 },       /* REX that changes nothing */
		{ 0x40, 0xb3, 1 },
		{ 0x40, 0xc6, 0xc3, 1 },
		{ 0x42, 0xb8, 1, 2, 3, 4 },
		{ 0x44, 0xc7, 0xc0, 1, 2, 3, 4 },
		{ 0x48, 0xb0, 1 },
		{ 0x66, 0x48, 0xb8, 1, 2, 3, 4, 5 },
		{ 0x66, 0xb0, 1 },
		{ 0x48, 0x66, 0xb8, 1, 2, 3, 4 }, /* REX not last */
	};
	uint8_t bytes[WINDOW];

	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		memset(bytes, 0, sizeof(bytes));
		memcpy(bytes, refused[i], sizeof(refused[i]));
		check_refused(bytes, sizeof(bytes));
	}
}

/* Sixteen bytes are no instruction, whether prefixes or the displacement make them so many. */
XP_TEST(length_limit)
{
	static const struct {
		uint8_t modrm, length; /* 0F 1F included */
	} forms[] = { { 0x00, 3 }, { 0x04, 4 }, { 0x40, 4 }, { 0x44, 5 }, { 0x80, 7 }, { 0x84, 8 } };
	uint8_t bytes[WINDOW];

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		for (unsigned nr = 0; nr <= 16; nr++) {
			memset(bytes, 0, sizeof(bytes));
			memset(bytes, 0x66, nr);
			bytes[nr] = 0x0f;
			bytes[nr + 1] = 0x1f;
			bytes[nr + 2] = forms[i].modrm;
			if (nr + forms[i].length <= LENGTH_MAX)
				check_accepted(bytes, &(struct xp__insn){XP__INSN_NOP, (uint8_t)(nr + forms[i].length),
									 0, 0, .imm = 0});
			else
				check_refused(bytes, sizeof(bytes));
		}
	}
	memset(bytes, 0x66, sizeof(bytes));
	check_refused(bytes, sizeof(bytes));
}

#ifdef XP_NO_ZYDIS

XP_TEST(zydis)
{
	SKIP("Zydis is not there for 32-bit processes; insn32 compares this decoder with it in a 64-bit one");
}

#else

static ZydisDecoder zydis;

/* The low @bits of @value, sign-extended. */
static int64_t sign_extend(uint64_t value, unsigned bits)
{
	return (int64_t)(value << (64 - bits)) >> (64 - bits);
}

/* Mov of an immediate to a register, with no prefix but those that change it. */
static bool zydis_mov_imm(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operands,
			  struct xp__insn *expect)
{
	static const ZydisRegister first[] = {ZYDIS_REGISTER_AX, ZYDIS_REGISTER_EAX, ZYDIS_REGISTER_RAX};
	ZydisRegister reg = operands[0].reg.value;
	unsigned nr_needed = 0;

	if (operands[0].type != ZYDIS_OPERAND_TYPE_REGISTER || operands[1].type != ZYDIS_OPERAND_TYPE_IMMEDIATE)
		return false;
	expect->width = (uint8_t)(operands[0].size / 8);
	expect->size = insn->raw.imm[0].size / 8;
	expect->imm = sign_extend(insn->raw.imm[0].value.u, insn->raw.imm[0].size);
	expect->high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
	/* Zydis has al…bl, ah…bh, spl…dil, r8b…r15b in a row. */
	if (expect->high)
		expect->reg = (uint8_t)(reg - ZYDIS_REGISTER_AH);
	else if (expect->width == 1)
		expect->reg = (uint8_t)(reg - ZYDIS_REGISTER_AL - (reg >= ZYDIS_REGISTER_SPL ? 4 : 0));
	else
		expect->reg = (uint8_t)(reg - first[expect->width / 4]);
	nr_needed += expect->width == 2;
	nr_needed += expect->width == 8 || expect->reg >= 8 || (expect->width == 1 && expect->reg >= 4);
	return insn->raw.prefix_count == nr_needed && !insn->raw.rex.R && !insn->raw.rex.X &&
	       (!insn->raw.rex.W || expect->width == 8);
}

static bool zydis_condition(ZydisMnemonic mnemonic, uint8_t *cond)
{
	static const ZydisMnemonic order[16] = {
		ZYDIS_MNEMONIC_JO, ZYDIS_MNEMONIC_JNO, ZYDIS_MNEMONIC_JB, ZYDIS_MNEMONIC_JNB,
		ZYDIS_MNEMONIC_JZ, ZYDIS_MNEMONIC_JNZ, ZYDIS_MNEMONIC_JBE, ZYDIS_MNEMONIC_JNBE,
		ZYDIS_MNEMONIC_JS, ZYDIS_MNEMONIC_JNS, ZYDIS_MNEMONIC_JP, ZYDIS_MNEMONIC_JNP,
		ZYDIS_MNEMONIC_JL, ZYDIS_MNEMONIC_JNL, ZYDIS_MNEMONIC_JLE, ZYDIS_MNEMONIC_JNLE,
	};

	for (*cond = 0; *cond < 16; ++*cond)
		if (order[*cond] == mnemonic)
			return true;
	return false;
}

/* What Zydis makes of the bytes, in our words; UNKNOWN for all that insn.h does not name. */
static struct xp__insn zydis_decode(const uint8_t *bytes, size_t len)
{
	struct xp__insn expect = unknown;
	ZydisDecodedInstruction insn;
	ZydisDecoderContext context;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	unsigned nr_66 = 0, nr_2e = 0, nr_48 = 0, nr_prefixes;
	uint64_t imm;
	uint8_t cond;

	if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&zydis, &context, bytes, len, &insn)))
		return unknown;
	if (insn.encoding != ZYDIS_INSTRUCTION_ENCODING_LEGACY)
		return unknown;
	nr_prefixes = insn.raw.prefix_count;
	for (unsigned i = 0; i < nr_prefixes; i++) {
		nr_66 += insn.raw.prefixes[i].value == 0x66;
		nr_2e += insn.raw.prefixes[i].value == 0x2e;
		nr_48 += insn.raw.prefixes[i].value == 0x48;
	}
	imm = insn.raw.imm[0].value.u;

	switch (insn.mnemonic) {
	case ZYDIS_MNEMONIC_NOP:
		if (insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT) {
			if (insn.opcode != 0x90 || nr_prefixes != nr_66 || nr_66 > 1)
				return unknown;
		} else if (insn.opcode_map != ZYDIS_OPCODE_MAP_0F || insn.opcode != 0x1f || insn.raw.modrm.reg != 0 ||
			   nr_prefixes != nr_66 + nr_2e) {
			return unknown;
		}
		expect.kind = XP__INSN_NOP;
		break;
	case ZYDIS_MNEMONIC_JMP:
	case ZYDIS_MNEMONIC_CALL:
		if (!insn.raw.imm[0].is_relative ||
		    (nr_prefixes && !(nr_prefixes == 3 && nr_2e == 3 && insn.length == 8)))
			return unknown;
		expect.kind = insn.mnemonic == ZYDIS_MNEMONIC_JMP ? XP__INSN_JMP : XP__INSN_CALL;
		expect.imm = sign_extend(imm, insn.raw.imm[0].size);
		break;
	case ZYDIS_MNEMONIC_RET:
		if (insn.meta.branch_type != ZYDIS_BRANCH_TYPE_NEAR || nr_prefixes)
			return unknown;
		expect.kind = XP__INSN_RET;
		expect.imm = insn.raw.imm[0].size ? (int32_t)(imm & 0xffff) : 0;
		break;
	case ZYDIS_MNEMONIC_TEST:
		if (insn.opcode_map != ZYDIS_OPCODE_MAP_DEFAULT || (insn.opcode != 0xa8 && insn.opcode != 0xa9))
			return unknown; /* the long forms, with ModRM */
		if (nr_prefixes > 1 || (nr_prefixes && (insn.opcode == 0xa8 || nr_66 + nr_48 != 1)))
			return unknown;
		expect.kind = XP__INSN_TEST_IMM;
		expect.width = (uint8_t)(insn.operand_width / 8);
		expect.imm = sign_extend(imm, insn.raw.imm[0].size);
		break;
	case ZYDIS_MNEMONIC_MOV:
		if (!insn.raw.imm[0].size || !ZYAN_SUCCESS(ZydisDecoderDecodeOperands(&zydis, &context, &insn, operands,
										      insn.operand_count)) ||
		    !zydis_mov_imm(&insn, operands, &expect))
			return unknown;
		expect.kind = XP__INSN_MOV_IMM;
		break;
	case ZYDIS_MNEMONIC_INT3:
		if (nr_prefixes)
			return unknown;
		expect.kind = XP__INSN_INT3;
		break;
	default:
		if (!zydis_condition(insn.mnemonic, &cond) || nr_prefixes)
			return unknown;
		expect.kind = XP__INSN_JCC;
		expect.cond = cond;
		expect.imm = sign_extend(imm, insn.raw.imm[0].size);
		break;
	}
	expect.len = insn.length;
	return expect;
}

static uint64_t nr_compared, nr_agreed_known;

static void compare(const uint8_t *bytes, size_t len)
{
	struct xp__insn expect = zydis_decode(bytes, len), insn;
	unsigned length = decode(bytes, len, &insn);

	nr_compared++;
	nr_agreed_known += expect.kind != XP__INSN_UNKNOWN;
	CHECK_ABOUT(bytes, len, CHECK_EQ(length, expect.len));
	CHECK_ABOUT(bytes, len, CHECK_EQ(insn.kind, expect.kind));
	CHECK_ABOUT(bytes, len, CHECK(same_insn(&insn, &expect)));
}

static void zydis_start(void)
{
	if (XP__CODE_BITS == 64)
		ZydisDecoderInit(&zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	else
		ZydisDecoderInit(&zydis, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	nr_compared = 0;
	nr_agreed_known = 0;
}

static void zydis_report(void)
{
	XP_TEST_NOTE("%llu inputs compared, %llu of them known forms", (unsigned long long)nr_compared,
		     (unsigned long long)nr_agreed_known);
	CHECK(nr_agreed_known);
}

XP_TEST(zydis_two_bytes)
{
	static const uint8_t tails[][13] = {
		{ 0 },
		{ 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
		{ 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d },
		{ 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80 },
		{ 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f, 0x7f },
		{ 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc },
		{ 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90 },
		{ 0xa9, 0xff, 0x80, 0x7f, 0x00, 0x01 },
		{ 0x0f, 0x1f, 0x00 },
		{ 0x0f, 0x1f, 0x84, 0x05, 0x01, 0x02, 0x03, 0x04 },
		{ 0x1f, 0x44, 0x00, 0x00 },
		{ 0x66, 0x2e, 0x0f, 0x1f, 0x05, 0x01, 0x02, 0x03, 0x04 },
		{ 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x0f, 0x1f, 0xc0 },
		{ 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x0f, 0x1f },
	};
	uint8_t bytes[2 + sizeof(tails[0])];

	zydis_start();
	for (unsigned pair = 0; pair < 0x10000; pair++) {
		bytes[0] = (uint8_t)(pair >> 8);
		bytes[1] = (uint8_t)pair;
		for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
			memcpy(bytes + 2, tails[i], sizeof(tails[i]));
			compare(bytes, sizeof(bytes));
		}
	}
	zydis_report();
}

/* What follows is random, and every other input is cut off somewhere. */
XP_TEST(zydis_three_bytes)
{
	uint64_t random = xp_test_seed();
	uint8_t bytes[16];

	zydis_start();
	/* Of 32-bit code every 16th and a bit: it differs in the first byte. */
	for (unsigned triple = 0; triple < 0x1000000; triple += XP__CODE_BITS == 64 ? 1 : 17) {
		uint64_t tail = xp_test_random(&random);

		bytes[0] = (uint8_t)(triple >> 16);
		bytes[1] = (uint8_t)(triple >> 8);
		bytes[2] = (uint8_t)triple;
		memcpy(bytes + 3, &tail, sizeof(tail));
		compare(bytes, tail >> 63 ? 11 : 1 + (size_t)(tail >> 58) % 11);
	}
	zydis_report();
}

/* All ModRM and SIB bytes of the long nop, at all lengths. */
XP_TEST(zydis_long_nops)
{
	uint8_t bytes[WINDOW] = { 0x66, 0x0f, 0x1f };

	zydis_start();
	for (unsigned pair = 0; pair < 0x10000; pair++) {
		bytes[3] = (uint8_t)(pair >> 8);
		bytes[4] = (uint8_t)pair;
		for (unsigned len = 1; len <= 10; len++) {
			compare(bytes, len);
			compare(bytes + 1, len);
		}
	}
	zydis_report();
}

/* Up to three prefixes in any order before every form. */
XP_TEST(zydis_prefixes)
{
	uint8_t prefixes[NR_PREFIXES], bytes[WINDOW];

	zydis_start();
	all_prefixes(prefixes);
	for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++) {
		for (unsigned n = 0; n < NR_PREFIXES * NR_PREFIXES * NR_PREFIXES; n++) {
			memset(bytes, 0, sizeof(bytes));
			bytes[0] = prefixes[n / NR_PREFIXES / NR_PREFIXES];
			bytes[1] = prefixes[n / NR_PREFIXES % NR_PREFIXES];
			bytes[2] = prefixes[n % NR_PREFIXES];
			memcpy(bytes + 3, golden[i].bytes, golden[i].insn.len);
			for (unsigned skip = 0; skip < 3; skip++)
				compare(bytes + skip, 3 - skip + golden[i].insn.len);
		}
	}
	zydis_report();
}

XP_TEST(zydis_nops)
{
	ZydisDecodedInstruction insn;
	uint8_t bytes[9];

	zydis_start();
	for (uint8_t len = 1; len <= 9; len++) {
		xp__insn_nop(bytes, len);
		CHECK(ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&zydis, NULL, bytes, len, &insn)));
		CHECK_EQ(insn.mnemonic, ZYDIS_MNEMONIC_NOP);
		CHECK_EQ(insn.length, len);
	}
}

#endif

XP_TEST(nops)
{
	static const uint8_t nop5[] = { 0x0f, 0x1f, 0x44, 0x00, 0x00 };
	uint8_t bytes[WINDOW], canary[WINDOW];

	memset(canary, 0xa5, sizeof(canary));
	for (uint8_t len = 1; len <= 9; len++) {
		memcpy(bytes, canary, sizeof(bytes));
		xp__insn_nop(bytes, len);
		CHECK_MEM(bytes + len, canary, sizeof(bytes) - len);
		check_accepted(bytes, &(struct xp__insn){ XP__INSN_NOP, len, 0, 0, .imm = 0 });
	}
	memcpy(bytes, canary, sizeof(bytes));
	xp__insn_nop(bytes, 0);
	CHECK_MEM(bytes, canary, sizeof(bytes));
	xp__insn_nop(bytes, 5);
	CHECK_MEM(bytes, nop5, sizeof(nop5));
}

static void check_reach(uint8_t opcode, uintptr_t from, int64_t displacement, bool reachable)
{
	uintptr_t to = from + 5 + (uintptr_t)displacement;
	uint8_t bytes[8], canary[8];
	struct xp__insn insn;

	memset(canary, 0xa5, sizeof(canary));
	memcpy(bytes, canary, sizeof(bytes));
	CHECK_EQ(xp__insn_rel32(bytes, opcode, from, to), reachable);
	if (reachable) {
		CHECK_EQ(decode(bytes, 5, &insn), 5);
		CHECK_EQ(insn.kind, opcode == 0xe8 ? XP__INSN_CALL : XP__INSN_JMP);
		CHECK_EQ(bytes[0], opcode);
		CHECK_EQ(insn.imm, displacement);
		CHECK_MEM(bytes + 5, canary, 3);
	} else {
		CHECK_MEM(bytes, canary, sizeof(bytes));
	}
}

XP_TEST(rel32)
{
	static const uintptr_t origins[] = { 0x400000, (uintptr_t)0x555555554001, (uintptr_t)0x7ffff7fc1ffb,
					     (uintptr_t)0xffffffff81000000 };
	static const uint8_t opcodes[] = { 0xe8, 0xe9 };

	for (size_t i = 0; i < sizeof(origins) / sizeof(origins[0]); i++) {
		for (size_t o = 0; o < sizeof(opcodes); o++) {
			check_reach(opcodes[o], origins[i], 0, true);
			check_reach(opcodes[o], origins[i], -5, true); /* to itself */
			check_reach(opcodes[o], origins[i], 1, true);
			check_reach(opcodes[o], origins[i], -1, true);
			check_reach(opcodes[o], origins[i], 0x04030201, true);
			check_reach(opcodes[o], origins[i], INT32_MAX - 1, true);
			check_reach(opcodes[o], origins[i], INT32_MAX, true);
			check_reach(opcodes[o], origins[i], INT32_MIN + 1, true);
			check_reach(opcodes[o], origins[i], INT32_MIN, true);
			if (sizeof(uintptr_t) == 4)
				continue; /* nothing is farther: addresses go round */
			check_reach(opcodes[o], origins[i], (int64_t)INT32_MAX + 1, false);
			check_reach(opcodes[o], origins[i], (int64_t)INT32_MAX + 5, false);
			check_reach(opcodes[o], origins[i], (int64_t)INT32_MIN - 1, false);
			check_reach(opcodes[o], origins[i], (int64_t)INT32_MIN - 5, false);
			check_reach(opcodes[o], origins[i], (int64_t)1 << 32, false);  /* whose low half is 0 */
			check_reach(opcodes[o], origins[i], -((int64_t)1 << 32), false);
			check_reach(opcodes[o], origins[i], (int64_t)1 << 40, false);
			check_reach(opcodes[o], origins[i], INT64_MAX, false);
			check_reach(opcodes[o], origins[i], INT64_MIN, false);
		}
	}
}

XP_TEST_MAIN()
