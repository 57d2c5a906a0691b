// SPDX-License-Identifier: MIT
/*
 * Instructions moved to another address, against Zydis: what is moved does not branch, call or trap, and refers to what
 * it referred to; what could be moved is.
 */
#include "arch/x86/relocate.h"
#include "xp_test.h"

#include <sys/mman.h>
#ifndef XP_NO_ZYDIS
#include <Zydis/Zydis.h>
#endif

#define FROM 0x40001000u
#define TO 0x50002000u

static bool moves(const uint8_t *insn, unsigned len, uintptr_t to, uint8_t *out)
{
	return xp__insn_relocate(insn, len, FROM, to, out);
}

#define MOVES(...)                                                                                                     \
	moves((const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), TO, (uint8_t[15]){0})

XP_TEST(chosen_ones)
{
	CHECK(MOVES(0xf0, 0x83, 0x07, 0x01));       /* lock addl $1, (%rdi) */
	CHECK(MOVES(0xf3, 0x0f, 0x58, 0xc8));       /* addss */
	CHECK(MOVES(0xc5, 0xf8, 0x77));             /* vzeroupper */
	CHECK(MOVES(0xc5, 0xf4, 0x58, 0xc2));       /* vaddps */
	CHECK(MOVES(0xff, 0xe0));                   /* jmp *%rax */
	CHECK(MOVES(0xb8, 0x05, 0x00, 0x00, 0x00)); /* no ModRM, though its next byte looks like one */
	CHECK(!MOVES(0xff, 0xd0));
	CHECK(!MOVES(0xff, 0x1f));
	CHECK(!MOVES(0xe8, 0, 0, 0, 0));
	CHECK(!MOVES(0xeb, 0));
	CHECK(!MOVES(0x0f, 0x84, 0, 0, 0, 0));
	CHECK(!MOVES(0xe2, 0));
	CHECK(!MOVES(0xc7, 0xf8, 0, 0, 0, 0)); /* xbegin */
	CHECK(!MOVES(0x0f, 0x05));
	CHECK(!MOVES(0x0f, 0x34));
	CHECK(!MOVES(0xcc));
	CHECK(!MOVES(0x0f, 0x0b));
	CHECK(!MOVES(0x66));
	CHECK(!MOVES(0x0f));
	CHECK(!MOVES(0xc5, 0xf8));
	CHECK(!MOVES(0x01));
}

#ifdef __x86_64__
XP_TEST(operands_relative_to_the_instruction)
{
	static const uint8_t add[] = {0xf0, 0x83, 0x05, 0x00, 0x10, 0x00, 0x00, 0x01}; /* lock addl $1, 0x1000(%rip) */
	static const uint8_t moved[] = {0xf0, 0x83, 0x05, 0x00, 0x00, 0x00, 0xf0, 0x01};
	uint8_t out[15];

	CHECK(moves(add, sizeof(add), TO, out));
	CHECK_MEM(out, moved, sizeof(moved));
	CHECK(!moves(add, sizeof(add), FROM + 0x90000000u, out)); /* out of reach */
	CHECK(!MOVES(0xf0, 0x83, 0x05, 0x00, 0x10, 0x00));        /* cut off */
	CHECK(!MOVES(0x48, 0x48, 0x8b, 0x05, 0x00, 0x10, 0x00, 0x00));
}
#endif

#ifndef XP_NO_ZYDIS
/* Not to be executed elsewhere, in Zydis' words. */
static bool stays(const ZydisDecodedInstruction *insn, const ZydisDecodedOperand *operands)
{
	/* Knights Corner's own: elsewhere these are comparisons of vectors. */
	if (insn->mnemonic == ZYDIS_MNEMONIC_JKZD || insn->mnemonic == ZYDIS_MNEMONIC_JKNZD)
		return false;
	for (unsigned i = 0; i < insn->operand_count; i++)
		if (operands[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && operands[i].imm.is_relative)
			return true;
	switch (insn->meta.category) {
	case ZYDIS_CATEGORY_CALL:
	case ZYDIS_CATEGORY_INTERRUPT:
	case ZYDIS_CATEGORY_SYSCALL:
	case ZYDIS_CATEGORY_SYSRET:
		return true;
	default:
		return false;
	}
}

/* Random bytes with likely beginnings. */
static unsigned make(uint8_t *bytes, uint64_t *random)
{
	static const uint8_t first[] = {0x66, 0xf0, 0xf2, 0xf3, 0x48, 0x41, 0x0f, 0x0f, 0x0f, 0xc4, 0xc5, 0x62};
	unsigned nr = (unsigned)(xp_test_random(random) % 4);

	for (unsigned i = 0; i < 15; i++)
		bytes[i] = (uint8_t)xp_test_random(random);
	for (unsigned i = 0; i < nr; i++)
		bytes[i] = first[xp_test_random(random) % sizeof(first)];
	if (xp_test_random(random) % 4 == 0)
		bytes[nr + 1] = (uint8_t)((bytes[nr + 1] & 0x38) | 5); /* relative, if that is the ModRM */
	return 15;
}

XP_TEST(as_zydis_has_it)
{
	uint64_t random = xp_test_seed();
	unsigned moved = 0, relative = 0, refused = 0;
	ZydisDecoder zydis;

	CHECK(ZYAN_SUCCESS(ZydisDecoderInit(&zydis, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64)));
	for (unsigned n = 0; n < 400000; n++) {
		ZydisDecodedInstruction insn, there;
		ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT], operands_there[ZYDIS_MAX_OPERAND_COUNT];
		uint8_t bytes[15], out[15];
		bool is_moved;

		make(bytes, &random);
		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&zydis, bytes, sizeof(bytes), &insn, operands)))
			continue;
		is_moved = moves(bytes, insn.length, TO, out);
		if (is_moved && stays(&insn, operands) && xp_test_failure())
			printf("# moved: %s %02x %02x %02x %02x\n", ZydisMnemonicGetString(insn.mnemonic), bytes[0],
			       bytes[1], bytes[2], bytes[3]);
		if (!is_moved) {
			refused++;
			continue;
		}
		moved++;
		REQUIRE(ZYAN_SUCCESS(ZydisDecoderDecodeFull(&zydis, out, insn.length, &there, operands_there)));
		CHECK_EQ(there.length, insn.length);
		CHECK_EQ(there.mnemonic, insn.mnemonic);
		for (unsigned i = 0; i < insn.operand_count; i++) {
			ZyanU64 a = 0, b = 0;

			if (operands[i].type != ZYDIS_OPERAND_TYPE_MEMORY || operands[i].mem.base != ZYDIS_REGISTER_RIP)
				continue;
			relative++;
			CHECK(ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&insn, &operands[i], FROM, &a)));
			CHECK(ZYAN_SUCCESS(ZydisCalcAbsoluteAddress(&there, &operands_there[i], TO, &b)));
			CHECK_EQ(a, b);
		}
		if (relative == 0)
			CHECK_MEM(out, bytes, insn.length);
	}
	XP_TEST_NOTE("moved %u, %u of them relative; refused %u", moved, relative, refused);
	CHECK(moved > 50000 && relative > 1000 && refused > 1000);
}
#endif

XP_TEST_MAIN()
