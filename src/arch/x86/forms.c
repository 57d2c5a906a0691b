// SPDX-License-Identifier: MIT
/* The instructions that sites of each kind have. */
#include "arch/arch.h"
#include "core/deps.h"

#define CALL XP__ENTRY_CALL
#define JMP 0xe9

bool xp__form_branch(uint8_t *bytes, uintptr_t code, uintptr_t target, bool jumps)
{
	if (!xp__insn_rel32(bytes, XP__BRANCH_JMP, code, target))
		return false;
	bytes[0] = jumps ? XP__BRANCH_JMP : XP__BRANCH_TEST;
	return true;
}

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
	memcpy(bytes + 2, &disp, sizeof(disp));
	bytes[6] = 0x0f;
	bytes[7] = 0x0b;
#else
	(void)word;
	(void)xp__form_trampoline(bytes, code, code + XP__TRAMPOLINE_LEN);
#endif
}

bool xp__form_trampoline_is_indirect(const uint8_t *text)
{
	return text[0] == 0xff;
}

/* ---- values ---- */

bool xp__form_is_value(const uint8_t *text, unsigned len, unsigned size)
{
	struct xp__insn insn;

	return xp__insn_decode(text, len, &insn) == len && insn.kind == XP__INSN_MOV_IMM && insn.size == size;
}

void xp__form_value(uint8_t *bytes, const uint8_t *text, unsigned len, unsigned size, uint64_t bits)
{
	memcpy(bytes, text, len);
	memcpy(bytes + len - size, &bits, size);
}

/* ---- switches ---- */

/* The part behind is the operand of an UD1. The compiler may have put jumps between, or padding. */
int xp__switch_step(const uint8_t *text, uintptr_t *code, const int32_t **to)
{
	static const uint8_t ud1[] = {0x0f, 0xb9, 0x05};
	struct xp__insn insn;
	int32_t distance;

	if (memcmp(text, ud1, sizeof(ud1)) == 0) {
		memcpy(&distance, text + sizeof(ud1), sizeof(distance));
		*code += XP__SWITCH_STEP;
		*to = (const int32_t *)(*code + (uintptr_t)(intptr_t)distance);
		return 1;
	}
	*code += xp__insn_decode(text, XP_MAX_LEN, &insn);
	if (insn.kind == XP__INSN_JMP)
		*code += (uintptr_t)(intptr_t)insn.imm;
	else if (insn.kind != XP__INSN_NOP)
		return -1;
	return 0;
}

/* ---- sites that fault ---- */

void xp__form_fault(uint8_t *bytes, bool jump)
{
	const uint8_t form[XP__FAULT_LEN] = {0x0f, 0x0b, 0x2e, jump ? JMP : CALL};

	memcpy(bytes, form, sizeof(form));
}

/* Three prefixes that change nothing, and the call. */
bool xp__form_fault_call(uint8_t *bytes, uintptr_t code, uintptr_t target, bool jump)
{
	memset(bytes, 0x2e, XP__FAULT_CALL);
	return xp__insn_rel32(bytes + XP__FAULT_CALL, jump ? JMP : CALL, code + XP__FAULT_CALL, target);
}

bool xp__fault_stands(uintptr_t code)
{
	const volatile uint8_t *text = (const volatile uint8_t *)code;

	return text[0] == 0x0f && text[1] == 0x0b;
}

/* ---- entries ---- */

static const uint8_t entries[2][XP__ENTRY_LEN] = {{0x0f, 0x1f, 0x44, 0, 0}, {0x90, 0x90, 0x90, 0x90, 0x90}};

bool xp__form_entry_built(uint8_t *bytes, unsigned n)
{
	if (n >= sizeof(entries) / sizeof(entries[0]))
		return false;
	memcpy(bytes, entries[n], XP__ENTRY_LEN);
	return true;
}

void xp__form_entry_nop(uint8_t *bytes)
{
	(void)xp__form_entry_built(bytes, 0);
}

bool xp__form_is_entry_nops(const uint8_t *text)
{
	return memcmp(text, entries[1], XP__ENTRY_LEN) == 0;
}

bool xp__form_is_entry_nop(const uint8_t *text)
{
	struct xp__insn insn;

	xp__insn_decode(text, XP__ENTRY_LEN, &insn);
	return (insn.kind == XP__INSN_NOP && insn.len == XP__ENTRY_LEN) || xp__form_is_entry_nops(text);
}

bool xp__form_entry_off(uint8_t *bytes, uintptr_t code, uintptr_t stub)
{
	if (!xp__insn_rel32(bytes, CALL, code, stub))
		return false;
	bytes[0] = XP__BRANCH_TEST;
	return true;
}

bool xp__form_is_entry_off(const uint8_t *text)
{
	return text[0] == XP__BRANCH_TEST;
}

/* endbr64 */
bool xp__form_is_landing(const uint8_t *text)
{
	static const uint8_t endbr[XP__LANDING_LEN] = {0xf3, 0x0f, 0x1e, 0xfa};

	return memcmp(text, endbr, sizeof(endbr)) == 0;
}

bool xp__jump_word(const uint8_t *text, uintptr_t code, uintptr_t *word)
{
	int32_t distance;
	unsigned at = 0;

	if (xp__form_is_landing(text))
		at += XP__LANDING_LEN;
	if (text[at] == 0x41 && text[at + 1] == 0xbb) /* mov $number, %r11d */
		at += 6;
	if (text[at] == 0xf2) /* bnd */
		at++;
	if (text[at] != 0xff || text[at + 1] != 0x25)
		return false;
	memcpy(&distance, text + at + 2, sizeof(distance));
	*word = code + at + 6 + (uintptr_t)(intptr_t)distance;
	return true;
}

/* ---- raw pokes ---- */

int xp_text_gen_insn(uint8_t *out, uint8_t opcode, const void *addr, const void *target)
{
	if (opcode != CALL && opcode != JMP)
		return -XP__EINVAL;
	return xp__insn_rel32(out, opcode, (uintptr_t)addr, (uintptr_t)target) ? 0 : -XP_E_RANGE;
}
