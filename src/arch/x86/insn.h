/* SPDX-License-Identifier: MIT */
/* The few instructions that the engine itself must understand; everything else is UNKNOWN to it. */
#ifndef XP_ARCH_X86_INSN_H
#define XP_ARCH_X86_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Bits of the code that is patched: those of the processor's mode for which the core is compiled. A program
 * that looks at code of another mode gives it from outside.
 */
#ifndef XP__CODE_BITS
#ifdef __x86_64__
#define XP__CODE_BITS 64
#else
#define XP__CODE_BITS 32
#endif
#endif

enum xp__insn_kind {
	XP__INSN_UNKNOWN,
	XP__INSN_NOP,      /* 90, 66 90, 0F 1F /0 in all its forms, with 66 and 2E prefixes before it; not F3 90 (pause) */
	XP__INSN_JMP,      /* EB rel8, E9 rel32, 2E 2E 2E E9 rel32 */
	XP__INSN_JCC,      /* 70+cc rel8, 0F 80+cc rel32 */
	XP__INSN_CALL,     /* E8 rel32, 2E 2E 2E E8 rel32 */
	XP__INSN_RET,      /* C3, C2 imm16 */
	XP__INSN_TEST_IMM, /* A8 imm8, [66|48] A9 imm: test of al, ax, eax, rax (48 in 64-bit code) */
	XP__INSN_MOV_IMM,  /* B0+r imm8, [66] B8+r imm, C6 /0 imm8, [66] C7 /0 imm: mov to a register; in 64-bit code with REX */
	XP__INSN_INT3,     /* CC */
	/* In segments, never decoded: imm has the selector in its upper half, the offset in the lower; width, of a slot. */
	XP__INSN_FAR_CALL,
	XP__INSN_NEAR_CALL, /* inside the segment */
};

struct xp__insn {
	uint8_t kind;  /* enum xp__insn_kind */
	uint8_t len;   /* bytes, prefixes included; 0 if UNKNOWN */
	uint8_t cond;  /* JCC: condition 0…15 */
	uint8_t width; /* TEST_IMM, MOV_IMM: operand bytes 1, 2, 4, 8 */
	uint8_t reg;   /* MOV_IMM: register 0…15 */
	uint8_t high;  /* MOV_IMM: 1 for its second byte, ah…bh; reg is 0…3 */
	uint8_t size;  /* MOV_IMM: bytes of the immediate, the last of the instruction */
	uint8_t zero;  /* no padding: plans with an instruction in them are compared as memory */
	int64_t imm;   /* displacement relative to the end; immediate, sign-extended as the processor does; RET: bytes to drop */
};

#define XP__INSN_INT3_BYTE 0xcc

/*
 * xp__insn_decode - one instruction of XP__CODE_BITS-bit code from @avail bytes. Returns its length, 0 if it is not one of
 * the kinds above or is cut off. Strict: a form with a prefix not named above is UNKNOWN, and so is a REX prefix that
 * changes nothing.
 */
unsigned xp__insn_decode(const uint8_t *bytes, size_t avail, struct xp__insn *insn);

/* xp__insn_nop - the recommended one-instruction nop of @len 1…9 bytes (Intel SDM vol. 2, NOP); @len ≤ 9. */
void xp__insn_nop(uint8_t *out, unsigned len);

/* xp__insn_rel32 - @opcode (E8, E9) and its displacement from @from to @to, 5 bytes; false if out of reach. */
bool xp__insn_rel32(uint8_t *out, uint8_t opcode, uintptr_t from, uintptr_t to);

#endif
