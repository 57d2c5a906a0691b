// SPDX-License-Identifier: MIT
/*
 * Two questions about any instruction: may it be executed at another address, and has it an operand that is relative to
 * its own. For both it is enough to find opcode and ModRM (Intel SDM vol. 2, 2.1 to 2.7, appendix A).
 *
 * I1. Uncertain instructions are refused: opcodes that are undefined, or whose meaning differs between vendors (XOP).
 * I2. No byte at or behind insn[len] is read.
 */
#include "arch/x86/relocate.h"

#include "arch/arch.h"

enum map { MAP_ONE, MAP_0F, MAP_OTHER };

/* One bit for each opcode of a row of sixteen, the lowest for the lowest. */
typedef uint16_t rows[16];

/* With ModRM. */
static const rows modrm_one = {
	0x0f0f, 0x0f0f, 0x0f0f, 0x0f0f, 0, 0, 0x0a08, 0,
	0xffff, 0, 0, 0, 0x00c3, 0xff0f, 0, 0xc0c0,
};
static const rows modrm_0f = {
	0xa00f, 0xffff, 0xff0f, 0, 0xffff, 0xffff, 0xffff, 0xff7f,
	0, 0xffff, 0xf838, 0xffff, 0x00ff, 0xffff, 0xffff, 0xffff,
};

/* Neither branches, calls, returns from the system, traps, nor undefined in 64-bit mode. */
static const rows moves_one = {
	0x3f3f, 0x3f3f, 0x3f3f, 0x3f3f, 0xffff, 0xffff, 0xff08, 0,
	0xffff, 0xfbff, 0xffff, 0xffff, 0x03cf, 0xff8f, 0xf0f0, 0xfffd,
};
static const rows moves_0f = {
	0xe30f, 0xffff, 0xff0f, 0x000f, 0xffff, 0xffff, 0xffff, 0xffff,
	0, 0xffff, 0xfbff, 0xfdff, 0xffff, 0xffff, 0xffff, 0x7fff,
};

static bool in(const rows table, uint8_t opcode)
{
	return table[opcode >> 4] >> (opcode & 15) & 1;
}

static bool is_prefix(uint8_t byte)
{
	switch (byte) {
	case 0x26:
	case 0x2e:
	case 0x36:
	case 0x3e:
	case 0x64:
	case 0x65:
	case 0x66:
	case 0x67:
	case 0xf0:
	case 0xf2:
	case 0xf3:
		return true;
	default:
		return false;
	}
}

/* Where the opcode stands, and in which map; @len: not certain. */
static unsigned find_opcode(const uint8_t *insn, unsigned len, enum map *map)
{
	unsigned at = 0;

	while (at < len && is_prefix(insn[at]))
		at++;
	if (XP__CODE_BITS == 64 && at < len && (insn[at] & 0xf0) == 0x40)
		at++;
	*map = MAP_ONE;
	if (at + 1 >= len)
		return at;
	/* VEX and EVEX; in 32-bit code only where the next byte would be a ModRM of two registers. */
	if ((insn[at] == 0xc4 || insn[at] == 0xc5 || insn[at] == 0x62) &&
	    (XP__CODE_BITS == 64 || insn[at + 1] >= 0xc0)) {
		unsigned prefix = insn[at] == 0xc5 ? 2 : insn[at] == 0xc4 ? 3 : 4;
		bool is_0f = insn[at] == 0xc5 || (insn[at] == 0xc4 && (insn[at + 1] & 0x1f) == 1);

		*map = is_0f ? MAP_0F : MAP_OTHER;
		return at + prefix < len ? at + prefix : len;
	}
	if (insn[at] != 0x0f)
		return at;
	at++;
	*map = MAP_0F;
	if (insn[at] == 0x38 || insn[at] == 0x3a) {
		*map = MAP_OTHER;
		at++;
	}
	return at;
}

/* Of the opcodes with a ModRM that moves. */
static bool may_move(uint8_t opcode, uint8_t modrm, enum map map)
{
	unsigned reg = modrm >> 3 & 7;

	if (map != MAP_ONE)
		return true;
	switch (opcode) {
	case 0x8f: /* POP; else XOP */
		return reg == 0;
	case 0xc7: /* MOV; XBEGIN is relative */
		return reg == 0;
	case 0xff: /* INC, DEC, JMP, PUSH; a call would leave its address, a far jump is none of ours */
		return reg < 2 || reg == 4 || reg == 6;
	default:
		return true;
	}
}

bool xp__insn_relocate(const uint8_t *insn, unsigned len, uintptr_t from, uintptr_t to, uint8_t *out)
{
	enum map map;
	unsigned at = find_opcode(insn, len, &map), modrm = at + 1;
	uint32_t displacement = 0;
	intptr_t moved;
	bool has_modrm;

	/* A REX is one only right before the opcode. */
	if (at < len && map == MAP_ONE &&
	    (is_prefix(insn[at]) || (XP__CODE_BITS == 64 && (insn[at] & 0xf0) == 0x40)))
		return false;
	if (at >= len || (map == MAP_ONE && !in(moves_one, insn[at])) || (map == MAP_0F && !in(moves_0f, insn[at])))
		return false;
	has_modrm = map == MAP_OTHER || in(map == MAP_ONE ? modrm_one : modrm_0f, insn[at]);
	if (has_modrm && (modrm >= len || !may_move(insn[at], insn[modrm], map)))
		return false;
	for (unsigned i = 0; i < len; i++)
		out[i] = insn[i];
	if (XP__CODE_BITS != 64 || !has_modrm || (insn[modrm] & 0xc7) != 5)
		return true;
	/* Relative to the end of the instruction, which is as far behind it there as here. */
	if (modrm + 4 >= len)
		return false;
	for (unsigned i = 0; i < 4; i++)
		displacement |= (uint32_t)insn[modrm + 1 + i] << 8 * i;
	moved = (intptr_t)(int32_t)displacement + (intptr_t)(from - to);
	if (moved != (int32_t)moved)
		return false;
	for (unsigned i = 0; i < 4; i++)
		out[modrm + 1 + i] = (uint8_t)((uint32_t)moved >> 8 * i);
	return true;
}

unsigned xp__slot_build(uint8_t *out, const uint8_t *insn, unsigned len, uintptr_t from, uintptr_t to)
{
	if (len > XP__INSN_MAX || !xp__insn_relocate(insn, len, from, to, out) ||
	    !xp__insn_rel32(out + len, 0xe9, to + len, from + len))
		return 0;
	return len + 5;
}
