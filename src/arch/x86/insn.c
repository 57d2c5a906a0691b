// SPDX-License-Identifier: MIT
/*
 * The engine writes few instructions and finishes few on behalf of a trapped thread; this file knows exactly those.
 * A full decoder would know more than can be emulated; other instructions are patched out of line instead.
 *
 * Invariants:
 * I1. Whatever is accepted has exactly the meaning of its kind. A prefix that vendors treat differently (66 before
 *     a near branch), that hints (2E, 3E before Jcc) or that does nothing is refused all the same,
 *     but for the one form that gates are given: three times 2E before E8 or E9, which no vendor gives a meaning.
 * I2. No byte at or after bytes[avail] is read: the site may end where its mapping ends.
 * I3. Decoding never calls anything, not even memcpy: it runs in the trap handler, and memcpy may be what is being
 *     patched. (Writing nops may: compilers make memcpy of the loop.)
 */
#include "arch/x86/insn.h"

enum {
	OPERAND_SIZE = 0x66,
	SEGMENT_CS = 0x2e,
	REX = 0x40,
	REX_W = 0x48, /* 64-bit operand */
	BIT_W = 8,
	BIT_RX = 6,
	BIT_B = 1,
	LENGTH_MAX = 15, /* of any instruction; a longer one faults (Intel SDM vol. 2, 2.3.11) */
};

/* A little-endian integer of @size 0, 1, 2, 4 or 8 bytes, sign-extended. */
static int64_t load_signed(const uint8_t *bytes, unsigned size)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < size; i++)
		value |= (uint64_t)bytes[i] << 8 * i;
	switch (size) {
	case 1:
		return (int8_t)value;
	case 2:
		return (int16_t)value;
	case 8:
		return (int64_t)value;
	default:
		return (int32_t)value;
	}
}

/* The length of ModRM, SIB and displacement (Intel SDM vol. 2, tables 2-2 and 2-3); 0 if the SIB byte is cut off. */
static unsigned modrm_length(const uint8_t *bytes, size_t avail)
{
	unsigned mod = bytes[0] >> 6, base = bytes[0] & 7, length = 1;

	if (mod == 3)
		return length;
	if (base == 4) {
		if (avail < 2)
			return 0;
		base = bytes[1] & 7;
		length++;
	}
	if (mod == 1)
		return length + 1;
	if (mod == 2 || base == 5)
		return length + 4;
	return length;
}

/* The length of 0F 1F /0 with any number of 66 and 2E before it: assemblers stack them to reach a length; or 0. */
static unsigned long_nop_length(const uint8_t *bytes, size_t avail)
{
	unsigned at = 0, modrm;

	if (avail > LENGTH_MAX)
		avail = LENGTH_MAX;
	while (at < avail && (bytes[at] == OPERAND_SIZE || bytes[at] == SEGMENT_CS))
		at++;
	if (avail - at < 3 || bytes[at] != 0x0f || bytes[at + 1] != 0x1f || (bytes[at + 2] >> 3 & 7) != 0)
		return 0;
	at += 2;
	modrm = modrm_length(bytes + at, avail - at);
	return modrm && modrm <= avail - at ? at + modrm : 0;
}

/*
 * Mov of an immediate to a register (Intel SDM vol. 2, MOV; 2.2.1 on REX, table 3-1 on byte registers). Returns the
 * length of what stands before the immediate, and fills in the form but for len and imm; or 0. REX.R and REX.X extend
 * nothing here, 40 alone turns ah…bh into spl…dil and changes no other register.
 */
static unsigned mov_imm(const uint8_t *bytes, size_t avail, struct xp__insn *form)
{
	unsigned at = 0, rex = 0, reg;
	bool word = avail > 0 && bytes[0] == OPERAND_SIZE, byte, modrm;

	at += word;
	if (XP__CODE_BITS == 64 && at < avail && (bytes[at] & 0xf0) == REX)
		rex = bytes[at++];
	if (at >= avail)
		return 0;
	modrm = bytes[at] == 0xc6 || bytes[at] == 0xc7;
	if (!modrm && (bytes[at] & 0xf0) != 0xb0)
		return 0;
	if (modrm && (avail - at < 2 || (bytes[at + 1] & 0xf8) != 0xc0))
		return 0; /* memory, or another instruction of the group */
	byte = modrm ? bytes[at] == 0xc6 : bytes[at] < 0xb8;
	reg = bytes[at + modrm] & 7;
	if (rex & BIT_RX || (byte && word) || (rex & BIT_W && (byte || word)))
		return 0;
	if (rex == REX && !(byte && reg >= 4))
		return 0;

	form->kind = XP__INSN_MOV_IMM;
	form->width = byte ? 1 : word ? 2 : rex & BIT_W ? 8 : 4;
	form->size = modrm && form->width == 8 ? 4 : form->width;
	form->high = byte && !rex && reg >= 4;
	form->reg = (uint8_t)(form->high ? reg - 4 : reg + (rex & BIT_B) * 8);
	return at + modrm + 1;
}

/* A call or jmp of eight bytes: three segment prefixes that do nothing, E8 or E9, displacement. */
static bool is_padded(const uint8_t *bytes, size_t avail)
{
	return avail >= 4 && bytes[0] == SEGMENT_CS && bytes[1] == SEGMENT_CS &&
	       bytes[2] == SEGMENT_CS && (bytes[3] & 0xfe) == 0xe8;
}

unsigned xp__insn_decode(const uint8_t *bytes, size_t avail, struct xp__insn *insn)
{
	static const struct xp__insn unknown = { .kind = XP__INSN_UNKNOWN }; /* an initialiser may become memset */
	struct xp__insn form = unknown;
	unsigned opcode = 1, operand = 0; /* lengths: prefix and opcode, immediate or displacement */
	uint8_t first, second;

	*insn = form;
	if (!avail)
		return 0;
	first = bytes[0];
	second = avail > 1 ? bytes[1] : 0; /* 0 is the second byte of no form */

	if (first == 0x90) {
		form.kind = XP__INSN_NOP;
	} else if (first == OPERAND_SIZE && second == 0x90) {
		form.kind = XP__INSN_NOP;
		opcode = 2;
	} else if (first == 0xeb) {
		form.kind = XP__INSN_JMP;
		operand = 1;
	} else if (first == 0xe9) {
		form.kind = XP__INSN_JMP;
		operand = 4;
	} else if ((first & 0xf0) == 0x70) {
		form.kind = XP__INSN_JCC;
		form.cond = first & 0xf;
		operand = 1;
	} else if (first == 0x0f && (second & 0xf0) == 0x80) {
		form.kind = XP__INSN_JCC;
		form.cond = second & 0xf;
		opcode = 2;
		operand = 4;
	} else if (first == 0xe8) {
		form.kind = XP__INSN_CALL;
		operand = 4;
	} else if (first == 0xc3) {
		form.kind = XP__INSN_RET;
	} else if (first == 0xc2) {
		form.kind = XP__INSN_RET;
		operand = 2;
	} else if (first == 0xa8) {
		form.kind = XP__INSN_TEST_IMM;
		form.width = 1;
		operand = 1;
	} else if (first == 0xa9) {
		form.kind = XP__INSN_TEST_IMM;
		form.width = 4;
		operand = 4;
	} else if (first == OPERAND_SIZE && second == 0xa9) {
		form.kind = XP__INSN_TEST_IMM;
		form.width = 2;
		opcode = 2;
		operand = 2;
	} else if (XP__CODE_BITS == 64 && first == REX_W && second == 0xa9) {
		form.kind = XP__INSN_TEST_IMM;
		form.width = 8;
		opcode = 2;
		operand = 4;
	} else if (is_padded(bytes, avail)) {
		form.kind = bytes[3] == 0xe8 ? XP__INSN_CALL : XP__INSN_JMP;
		opcode = 4;
		operand = 4;
	} else if (first == XP__INSN_INT3_BYTE) {
		form.kind = XP__INSN_INT3;
	} else {
		opcode = mov_imm(bytes, avail, &form);
		operand = form.size;
		if (!opcode) {
			opcode = long_nop_length(bytes, avail);
			form.kind = XP__INSN_NOP;
		}
		if (!opcode)
			return 0;
	}

	if (avail < opcode + operand)
		return 0;
	form.len = (uint8_t)(opcode + operand);
	form.imm = load_signed(bytes + opcode, operand);
	if (form.kind == XP__INSN_RET)
		form.imm &= 0xffff; /* the one operand that the processor zero-extends */
	*insn = form;
	return form.len;
}

void xp__insn_nop(uint8_t *out, unsigned len)
{
	static const uint8_t nops[9][9] = {
		{ 0x90 },
		{ 0x66, 0x90 },
		{ 0x0f, 0x1f, 0x00 },
		{ 0x0f, 0x1f, 0x40, 0x00 },
		{ 0x0f, 0x1f, 0x44, 0x00, 0x00 },
		{ 0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00 },
		{ 0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00 },
		{ 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
		{ 0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00 },
	};

	for (unsigned i = 0; i < len; i++)
		out[i] = nops[len - 1][i];
}

bool xp__insn_rel32(uint8_t *out, uint8_t opcode, uintptr_t from, uintptr_t to)
{
	uintptr_t distance = to - (from + 5); /* wraps around, as the processor's addition does */

	if ((intptr_t)distance != (int32_t)distance)
		return false;
	out[0] = opcode;
	for (unsigned i = 0; i < 4; i++)
		out[1 + i] = (uint8_t)(distance >> 8 * i);
	return true;
}
