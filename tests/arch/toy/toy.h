/* SPDX-License-Identifier: MIT */
/*
 * An invented instruction set, as arch/arch.h wants it: proof that the core knows no other. Instructions are words of 4 bytes,
 * little-endian, aligned; the highest byte says what one is, D is a displacement of 24 bits, in words, from the instruction.
 *
 *	01 000000  nop             05 000000  trap: ip stays at it
 *	02 D       branch          06 r nnnn  load register r with a number of 16 bits
 *	03 D       call: link      07 D       branch to where the double word at D says
 *	04 000000  return          08 r nnnn  add the number to register r
 *
 * add is not emulated: a thread that traps on it executes it out of line. What is not above is no instruction.
 * A processor fetches words whole; of those that changed since it synchronized last, any (XP__FETCH_WORD).
 */
#ifndef XP_TOY_H
#define XP_TOY_H

#include <crosspatch/arch.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XP__TRAP_LEN 4u
#define XP__SLOT_MAX 8u
#define XP__BRANCH_LEN 4u
#define XP__BRANCH_SHARED 0u /* a nop has no room for the displacement */
#define XP__CALL_LEN 4u
#define XP__JUMP_LEN 4u
#define XP__TRAMPOLINE_LEN 4u
#define XP__TRAMPOLINE_CHANGE 4u
#define XP__TRAMPOLINE_STAYS true
#define XP__HAS_SWITCHES 0
#define XP__HAS_GATES 0
#define XP__HAS_FAR 0
#define XP__HAS_ENTRIES 0
#define XP__HAS_THUNKS 0
#define XP__HAS_TRACING 0

enum toy_kind { TOY_UNKNOWN, TOY_NOP, TOY_BRANCH, TOY_CALL, TOY_RETURN, TOY_TRAP, TOY_LOAD, TOY_THROUGH, TOY_ADD };

struct xp__insn {
	uint8_t kind; /* enum toy_kind: the highest byte */
	uint8_t len;
	uint16_t reg; /* LOAD, ADD */
	int32_t imm;  /* their number; a displacement in bytes */
};

enum xp__method {
	XP__METHOD_NONE,
	XP__METHOD_STORE,  /* one aligned word */
	XP__METHOD_TRAP,   /* trap, tail, head */
	XP__METHOD_BYPASS, /* the same, the new instruction out of line */
	XP__METHOD_ALONE,  /* no thread executes meanwhile: quiesce, early */
};

enum xp__fetch { XP__FETCH_WORD };

struct xp__trapped {
	uintptr_t addr;
};

struct xp__far_request {
	char none;
};

/* toy_word - a word of text; toy_insn - it, made: @imm of branches in bytes. */
uint32_t toy_word(const void *text);
uint32_t toy_insn(enum toy_kind kind, unsigned reg, int32_t imm);

/* toy_execute - what a processor does that fetched @insn at @addr. False: it traps, or it is none. */
bool toy_execute(const struct xp__insn *insn, uintptr_t addr, struct xp_regs *regs);

static inline bool xp__is_trap(const uint8_t *text)
{
	return text[3] == TOY_TRAP;
}

static inline bool xp__value_size(size_t size)
{
	return size == 1 || size == 2;
}

static inline void xp__cpu_relax(void) {}
static inline void xp__serialize(void) {}

#endif
