// SPDX-License-Identifier: MIT
/*
 * A thread that meets a breakpoint at a site has executed nothing of the instruction that belongs there. This file
 * executes it on the thread's saved registers, so that the thread goes on without waiting for the writer.
 *
 * Invariants:
 * I1. The result is what the processor would have left, undefined flags excepted (they stay as they were).
 * I2. Memory is touched only where the instruction itself touches it: the stack slot of CALL and RET. A bad stack
 *     pointer faults here as it would have faulted there. The handler must not run on the bytes right below the
 *     interrupted stack pointer: a CALL writes them.
 * I3. Shadow stacks are not followed: a CALL or RET must not be emulated while they are on. The caller sees to it.
 * I4. Never calls anything but the port's text_peek() and segment.c, not even memcpy: it runs in the trap handler.
 */
#include "arch/x86/emulate.h"

#include "arch/arch.h"

/* One structure for 64 and 32 bits. */
_Static_assert(sizeof(struct xp_regs) == 152, "struct xp_regs");

enum {
	GPR_RAX = 0,
	GPR_RSP = 4,
};

/* Intel SDM vol. 1, 3.4.3 */
enum {
	FLAG_CF = 1 << 0,
	FLAG_PF = 1 << 2,
	FLAG_ZF = 1 << 6,
	FLAG_SF = 1 << 7,
	FLAG_OF = 1 << 11,
};

/* A stack slot: the processor does not ask for alignment, and the memory has whatever type its owner gave it. */
typedef uintptr_t slot_t __attribute__((may_alias, aligned(1)));

bool xp__can_emulate(const struct xp__insn *insn)
{
	switch (insn->kind) {
	case XP__INSN_NOP:
	case XP__INSN_JMP:
	case XP__INSN_JCC:
	case XP__INSN_CALL:
	case XP__INSN_RET:
	case XP__INSN_TEST_IMM:
	case XP__INSN_MOV_IMM:
	case XP__INSN_FAR_CALL:
	case XP__INSN_NEAR_CALL:
		return true;
	default:
		return false;
	}
}

bool xp__condition(unsigned cond, uint64_t flags)
{
	bool carry = flags & FLAG_CF, parity = flags & FLAG_PF, zero = flags & FLAG_ZF, sign = flags & FLAG_SF;
	bool overflow = flags & FLAG_OF, holds;

	switch (cond >> 1) {
	case 0: /* O */
		holds = overflow;
		break;
	case 1: /* B */
		holds = carry;
		break;
	case 2: /* E */
		holds = zero;
		break;
	case 3: /* BE */
		holds = carry || zero;
		break;
	case 4: /* S */
		holds = sign;
		break;
	case 5: /* P */
		holds = parity;
		break;
	case 6: /* L */
		holds = sign != overflow;
		break;
	default: /* LE */
		holds = zero || sign != overflow;
		break;
	}
	return holds != (cond & 1); /* odd conditions are the negations */
}

/* The flags after AND gave @result, whose sign is bit @sign_bit. */
static uint64_t logic_flags(uint64_t flags, uint64_t result, unsigned sign_bit)
{
	unsigned parity = (unsigned)result; /* the folding takes in the lowest byte alone, at any width */

	parity ^= parity >> 4;
	parity ^= parity >> 2;
	parity ^= parity >> 1;

	flags &= ~(uint64_t)(FLAG_CF | FLAG_PF | FLAG_ZF | FLAG_SF | FLAG_OF);
	if (!(parity & 1))
		flags |= FLAG_PF;
	if (!result)
		flags |= FLAG_ZF;
	if (result >> sign_bit & 1)
		flags |= FLAG_SF;
	return flags;
}

static uint64_t test_flags(const struct xp__insn *insn, const struct xp_regs *regs)
{
	unsigned bits = insn->width * 8u;
	uint64_t mask = ~(uint64_t)0 >> (64 - bits);
	uint64_t result = regs->gpr[GPR_RAX] & (uint64_t)(int64_t)insn->imm & mask;

	return logic_flags(regs->flags, result, bits - 1);
}

/* The register after MOV: four bytes clear the upper half, one and two leave the rest (Intel SDM vol. 1, 3.4.1.1). */
static uint64_t mov_result(const struct xp__insn *insn, uint64_t before)
{
	unsigned shift = insn->high ? 8 : 0;
	uint64_t mask;

	if (insn->width >= 4)
		return insn->width == 4 ? (uint32_t)insn->imm : (uint64_t)insn->imm;
	mask = (insn->width == 1 ? (uint64_t)0xff : (uint64_t)0xffff) << shift;
	return (before & ~mask) | ((uint64_t)insn->imm << shift & mask);
}

/* A stack that is flat, whatever the code: slots of two or four bytes. */
static void push(struct xp_regs *regs, uint32_t value, unsigned width)
{
	uint32_t to = (uint32_t)regs->gpr[GPR_RSP] - width;

	for (unsigned i = 0; i < width; i++)
		((volatile uint8_t *)(uintptr_t)to)[i] = (uint8_t)(value >> 8 * i);
	regs->gpr[GPR_RSP] = to;
}

/* @next: the offset that the call returns to. */
static void call_in_segment(const struct xp__insn *insn, uintptr_t next, struct xp_regs *regs)
{
	if (insn->kind == XP__INSN_FAR_CALL) {
		push(regs, regs->cs, insn->width);
		regs->cs = (uint32_t)((uint64_t)insn->imm >> 32);
	}
	push(regs, (uint32_t)next, insn->width);
	regs->ip = (uint32_t)insn->imm;
}

void xp__emulate(const struct xp__insn *insn, uintptr_t addr, uintptr_t fallthrough, struct xp_regs *regs)
{
	/* Displacements count from the instruction's end, which is not the site's end if there is padding. */
	uintptr_t target = addr + insn->len + (uintptr_t)(intptr_t)insn->imm;

	switch (insn->kind) {
	case XP__INSN_NOP:
		regs->ip = fallthrough;
		break;
	case XP__INSN_JMP:
		regs->ip = target;
		break;
	case XP__INSN_JCC:
		regs->ip = xp__condition(insn->cond, regs->flags) ? target : fallthrough;
		break;
	case XP__INSN_CALL:
		regs->gpr[GPR_RSP] = (uintptr_t)(regs->gpr[GPR_RSP] - sizeof(slot_t));
		*(slot_t *)(uintptr_t)regs->gpr[GPR_RSP] = fallthrough;
		regs->ip = target;
		break;
	case XP__INSN_RET:
		regs->ip = *(const slot_t *)(uintptr_t)regs->gpr[GPR_RSP];
		regs->gpr[GPR_RSP] = (uintptr_t)(regs->gpr[GPR_RSP] + sizeof(slot_t) + (uint64_t)insn->imm);
		break;
	case XP__INSN_TEST_IMM:
		regs->flags = test_flags(insn, regs);
		regs->ip = fallthrough;
		break;
	case XP__INSN_MOV_IMM:
		regs->gpr[insn->reg] = mov_result(insn, regs->gpr[insn->reg]);
		regs->ip = fallthrough;
		break;
	case XP__INSN_FAR_CALL:
	case XP__INSN_NEAR_CALL:
		call_in_segment(insn, fallthrough, regs);
		break;
	default: /* xp__can_emulate() said no: a caller that calls nevertheless finds the registers untouched */
		break;
	}
}

/* ---- where a thread trapped ---- */

void xp__trap_finish(const struct xp__insn *insn, const struct xp__trapped *at, unsigned len, struct xp_regs *regs)
{
	xp__emulate(insn, at->addr - at->base, at->addr - at->base + len, regs);
}

bool xp__trap_taken(const struct xp_regs *regs, struct xp__trapped *at)
{
	if (!xp__segment_base((uint16_t)regs->cs, &at->base))
		return false;
	at->addr = at->base + (uintptr_t)regs->ip - XP__TRAP_LEN;
	return true;
}

/*
 * Not late if the text there still is a breakpoint, or the second byte of the two-byte form of int3 (CD 03), which leaves the
 * same registers behind. At the start of a page the byte before may not be mapped.
 */
bool xp__trap_is_late(uintptr_t addr, int (*peek)(uintptr_t addr))
{
	int byte = peek(addr);

	if (byte < 0 || byte == XP__INSN_INT3_BYTE)
		return false;
	return !(byte == 0x03 && addr % 4096 != 0 && peek(addr - 1) == 0xcd);
}
