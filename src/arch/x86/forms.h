/* SPDX-License-Identifier: MIT */
/*
 * Forms: the instructions that a site of each kind may have. Pure: what stands at a site, if it matters, is given.
 * Each function writes the bytes of one form of the site at @code; false: it cannot be encoded, since @target is out of reach.
 */
#ifndef XP_ARCH_X86_FORMS_H
#define XP_ARCH_X86_FORMS_H

#include "arch/x86/insn.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XP__JUMP_LEN 5u
#define XP__CALL_LEN 5u
#define XP__ENTRY_LEN 5u

/* A jump to @target; a call of it, which as a @tail is a jump. */
bool xp__form_jump(uint8_t *bytes, uintptr_t code, uintptr_t target);
bool xp__form_call(uint8_t *bytes, uintptr_t code, uintptr_t target, bool tail);

/*
 * xp__form_call_fits - whether what differs between two calls at @code lies inside one aligned quadword: then one store
 * changes it, whatever the writer of today can do.
 */
bool xp__form_call_fits(uintptr_t code);

/*
 * Trampolines: 8 bytes, aligned, of which the first 6 are executed or padding. They jump to @target, or through @word as the
 * compiler left them. xp__form_trampoline_stays - whether that may stay where the word leads to the right place already: in
 * 32-bit code to go through the word takes several instructions, and a thread that rested between them would enter the
 * old target after an update.
 */
#define XP__TRAMPOLINE_LEN 8u
#define XP__TRAMPOLINE_CHANGE 6u
bool xp__form_trampoline(uint8_t *bytes, uintptr_t code, uintptr_t target);
void xp__form_trampoline_indirect(uint8_t *bytes, uintptr_t code, const void *word);
#ifdef __x86_64__
#define XP__TRAMPOLINE_STAYS true
#else
#define XP__TRAMPOLINE_STAYS false
#endif

/*
 * Values. xp__form_is_value - whether the @len bytes at @text are one mov of an operand of @size bytes. xp__form_value - the same
 * one with the operand @bits.
 */
bool xp__form_is_value(const uint8_t *text, unsigned len, unsigned size);
void xp__form_value(uint8_t *bytes, const uint8_t *text, unsigned len, unsigned size, uint64_t bits);

/*
 * Sites that fault until they are bound, 8 bytes, aligned: UD2, and behind it the opcode of the call or jump that it becomes.
 * xp__form_fault - as the compiler left it. xp__form_fault_call - bound to @target.
 */
#define XP__FAULT_LEN 8u
#define XP__FAULT_CALL 3u /* where in it the five bytes stand */
void xp__form_fault(uint8_t *bytes, bool jump);
bool xp__form_fault_call(uint8_t *bytes, uintptr_t code, uintptr_t target, bool jump);

/*
 * Entries of functions. xp__form_entry_built - number @n of those that compilers leave: first the one nop that stands there while
 * a function is not traced, then five. False: there are no more. xp__form_is_entry_nop - any nop of five bytes;
 * xp__form_is_entry_nops - five of them; both are entries.
 */
bool xp__form_entry_built(uint8_t *bytes, unsigned n);
void xp__form_entry_nop(uint8_t *bytes);
bool xp__form_is_entry_nop(const uint8_t *text);
bool xp__form_is_entry_nops(const uint8_t *text);

#endif
