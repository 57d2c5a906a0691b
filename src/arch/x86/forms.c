// SPDX-License-Identifier: MIT
#include "arch/x86/forms.h"

#define CALL 0xe8
#define JMP 0xe9

bool xp__form_jump(uint8_t *bytes, uintptr_t code, uintptr_t target)
{
	return xp__insn_rel32(bytes, JMP, code, target);
}

bool xp__form_call(uint8_t *bytes, uintptr_t code, uintptr_t target, bool tail)
{
	return xp__insn_rel32(bytes, tail ? JMP : CALL, code, target);
}

bool xp__form_call_fits(uintptr_t code)
{
	return (code + 1) / 8 == (code + XP__CALL_LEN - 1) / 8;
}

/* ---- trampolines ---- */

/* E9 disp32 90, and what follows in either form. */
bool xp__form_trampoline(uint8_t *bytes, uintptr_t code, uintptr_t target)
{
	bytes[5] = 0x90;
	bytes[6] = 0x0f;
	bytes[7] = 0x0b;
	return xp__insn_rel32(bytes, JMP, code, target);
}

/* FF 25 disp32; in 32-bit code a jmp to the code behind it, which goes through the word. */
void xp__form_trampoline_indirect(uint8_t *bytes, uintptr_t code, const void *word)
{
#ifdef __x86_64__
	int32_t disp = (int32_t)((uintptr_t)word - (code + XP__TRAMPOLINE_CHANGE));

	bytes[0] = 0xff;
	bytes[1] = 0x25;
	__builtin_memcpy(bytes + 2, &disp, sizeof(disp));
	bytes[6] = 0x0f;
	bytes[7] = 0x0b;
#else
	(void)word;
	(void)xp__form_trampoline(bytes, code, code + XP__TRAMPOLINE_LEN);
#endif
}

/* ---- values ---- */

bool xp__form_is_value(const uint8_t *text, unsigned len, unsigned size)
{
	struct xp__insn insn;

	return xp__insn_decode(text, len, &insn) == len && insn.kind == XP__INSN_MOV_IMM && insn.size == size;
}

void xp__form_value(uint8_t *bytes, const uint8_t *text, unsigned len, unsigned size, uint64_t bits)
{
	__builtin_memcpy(bytes, text, len);
	__builtin_memcpy(bytes + len - size, &bits, size);
}

/* ---- sites that fault ---- */

void xp__form_fault(uint8_t *bytes, bool jump)
{
	const uint8_t form[XP__FAULT_LEN] = {0x0f, 0x0b, 0x2e, jump ? JMP : CALL};

	__builtin_memcpy(bytes, form, sizeof(form));
}

/* Three prefixes that change nothing, and the call. */
bool xp__form_fault_call(uint8_t *bytes, uintptr_t code, uintptr_t target, bool jump)
{
	__builtin_memset(bytes, 0x2e, XP__FAULT_CALL);
	return xp__insn_rel32(bytes + XP__FAULT_CALL, jump ? JMP : CALL, code + XP__FAULT_CALL, target);
}

/* ---- entries ---- */

static const uint8_t entries[2][XP__ENTRY_LEN] = {{0x0f, 0x1f, 0x44, 0, 0}, {0x90, 0x90, 0x90, 0x90, 0x90}};

bool xp__form_entry_built(uint8_t *bytes, unsigned n)
{
	if (n >= sizeof(entries) / sizeof(entries[0]))
		return false;
	__builtin_memcpy(bytes, entries[n], XP__ENTRY_LEN);
	return true;
}

void xp__form_entry_nop(uint8_t *bytes)
{
	(void)xp__form_entry_built(bytes, 0);
}

bool xp__form_is_entry_nops(const uint8_t *text)
{
	return __builtin_memcmp(text, entries[1], XP__ENTRY_LEN) == 0;
}

bool xp__form_is_entry_nop(const uint8_t *text)
{
	struct xp__insn insn;

	xp__insn_decode(text, XP__ENTRY_LEN, &insn);
	return (insn.kind == XP__INSN_NOP && insn.len == XP__ENTRY_LEN) || xp__form_is_entry_nops(text);
}
