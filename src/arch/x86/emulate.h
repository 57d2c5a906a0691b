/* SPDX-License-Identifier: MIT */
/* Finishes an instruction that a breakpoint stood on, on the saved registers. */
#ifndef XP_ARCH_X86_EMULATE_H
#define XP_ARCH_X86_EMULATE_H

#include "arch/x86/insn.h"

#include <crosspatch/arch.h>
#include <stdbool.h>

/* xp__can_emulate - whether xp__emulate() knows the instruction. */
bool xp__can_emulate(const struct xp__insn *insn);

/*
 * xp__emulate - executes @insn, which stands at @addr, on @regs. @regs->ip on entry is ignored; on return it is
 * where execution continues: the branch target, or @fallthrough (the end of the site: what lies between the
 * instruction's end and there is padding). CALL pushes @fallthrough, RET pops, both through the saved stack
 * pointer. Flags: TEST sets SF, ZF, PF, clears CF, OF, leaves AF (undefined); the others leave all alone.
 * Calls in segments: addresses are offsets, the stack segment is flat.
 * Context: trap handler. Progress: wait-free.
 */
void xp__emulate(const struct xp__insn *insn, uintptr_t addr, uintptr_t fallthrough, struct xp_regs *regs);

/* xp__condition - whether condition @cond (0…15) holds in @flags (Intel SDM vol. 1, appendix B). */
bool xp__condition(unsigned cond, uint64_t flags);

#endif
