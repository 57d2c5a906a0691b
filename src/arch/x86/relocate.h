/* SPDX-License-Identifier: MIT */
/* An instruction that the engine does not know, to be executed at another address. */
#ifndef XP_ARCH_X86_RELOCATE_H
#define XP_ARCH_X86_RELOCATE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * xp__insn_relocate - writes to @out what does at @to what the one instruction of @len bytes at @insn does at @from: the
 * same bytes, but for the displacement of an operand that is relative to the instruction pointer.
 * False: it is none that can be executed elsewhere (it branches, calls, traps, or leaves its address somewhere), is not
 * one instruction that begins as @len bytes could, or its operand is out of reach from there. @len ≤ 15.
 * Not decoded is how long it is: that is the caller's word.
 */
bool xp__insn_relocate(const uint8_t *insn, unsigned len, uintptr_t from, uintptr_t to, uint8_t *out);

#endif
