// SPDX-License-Identifier: MIT
/*
 * Zydis's view of an instruction, reduced to what decides whether two executions did the same.
 *
 * I1  Nops of any form are one effect; branches and calls are their target and not their encoding; everything else is
 *     its bytes. Two effects that differ may still do the same (a false alarm), never the reverse.
 * I2  The place of the site is unknown: targets are relative to it.
 */
#include "verify/decode.h"

#include <stdio.h>
#include <string.h>

void xp__decoder_set(struct xp__decoder *decoder, unsigned mode)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth stack;
	} modes[] = {
		{ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
		{ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
		{ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
	};
	unsigned i = mode == 16 ? 0 : mode == 32 ? 1 : 2;

	if (decoder->mode == mode)
		return;
	memset(decoder, 0, sizeof(*decoder));
	ZydisDecoderInit(&decoder->zydis, modes[i].mode, modes[i].stack);
	decoder->mode = (uint8_t)mode;
}

static uint64_t little_endian(const uint8_t *bytes, unsigned len)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < len; i++)
		value |= (uint64_t)bytes[i] << 8 * i;
	return value;
}

static bool is_relative(const ZydisDecodedInstruction *insn)
{
	return insn->raw.imm[0].size != 0 && insn->raw.imm[0].is_relative;
}

static void as_bytes(struct xp__effect *effect, enum xp__effect_kind kind, const uint8_t *bytes, unsigned at)
{
	effect->kind = (uint8_t)kind;
	effect->at = (uint8_t)at;
	memcpy(effect->bytes, bytes, effect->len);
}

/* Opcode 9A: the offset, then the selector. */
static void far_call(struct xp__effect *effect, const uint8_t *bytes, unsigned operand_width)
{
	unsigned size = operand_width == 16 ? 2 : 4;

	effect->kind = XP__EFFECT_FARCALL;
	effect->width = (uint8_t)operand_width;
	effect->selector = (uint16_t)little_endian(bytes + effect->len - 2, 2);
	effect->target = (int64_t)little_endian(bytes + effect->len - 2 - size, size);
}

static struct xp__effect decode(const struct xp__decoder *decoder, const uint8_t *bytes, size_t len, unsigned at)
{
	struct xp__effect effect;
	ZydisDecodedInstruction insn;
	ZydisDecoderContext context;
	ZyanStatus status;

	memset(&effect, 0, sizeof(effect));
	if (len == 0)
		return effect;
	status = ZydisDecoderDecodeInstruction(&decoder->zydis, &context, bytes, len, &insn);
	if (status == ZYDIS_STATUS_NO_MORE_DATA && len < 15)
		return effect;
	effect.kind = XP__EFFECT_INVALID;
	if (!ZYAN_SUCCESS(status))
		return effect;
	effect.len = insn.length;
	if (insn.mnemonic == ZYDIS_MNEMONIC_NOP) {
		effect.kind = XP__EFFECT_NOP;
	} else if (insn.mnemonic == ZYDIS_MNEMONIC_INT3) {
		effect.kind = XP__EFFECT_INT3;
	} else if (insn.mnemonic == ZYDIS_MNEMONIC_UD2) {
		as_bytes(&effect, XP__EFFECT_UD2, bytes, at); /* the fault tells where it was */
	} else if (insn.mnemonic == ZYDIS_MNEMONIC_CMC) {
		effect.kind = XP__EFFECT_CMC;
	} else if (insn.mnemonic == ZYDIS_MNEMONIC_CALL && insn.opcode == 0x9a) {
		far_call(&effect, bytes, insn.operand_width);
	} else if (is_relative(&insn)) {
		effect.target = (int64_t)at + insn.length + insn.raw.imm[0].value.s;
		if (insn.meta.category == ZYDIS_CATEGORY_CALL) {
			effect.kind = XP__EFFECT_CALL;
			effect.width = (uint8_t)insn.operand_width;
		} else if (insn.meta.category == ZYDIS_CATEGORY_UNCOND_BR) {
			effect.kind = XP__EFFECT_JMP;
		} else {
			effect.kind = XP__EFFECT_JCC;
			memcpy(effect.bytes, &insn.mnemonic, sizeof(insn.mnemonic));
		}
	} else if (insn.meta.category == ZYDIS_CATEGORY_RET || insn.meta.category == ZYDIS_CATEGORY_UNCOND_BR) {
		as_bytes(&effect, XP__EFFECT_LEAVE, bytes, at);
	} else {
		as_bytes(&effect, XP__EFFECT_OTHER, bytes, at);
	}
	return effect;
}

struct xp__effect xp__decode(struct xp__decoder *decoder, const uint8_t *bytes, size_t len, unsigned at)
{
	uint64_t hash = len * 31 + at;
	size_t slot;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ bytes[i]) * 0x100000001b3u;
	slot = (hash ^ hash >> 29) % XP__DECODE_CACHE;
	if (!decoder->cache[slot].used || decoder->cache[slot].len != len || decoder->cache[slot].at != at ||
	    memcmp(decoder->cache[slot].bytes, bytes, len) != 0) {
		decoder->cache[slot].used = true;
		decoder->cache[slot].len = (uint8_t)len;
		decoder->cache[slot].at = (uint8_t)at;
		memcpy(decoder->cache[slot].bytes, bytes, len);
		decoder->cache[slot].effect = decode(decoder, bytes, len, at);
	}
	return decoder->cache[slot].effect;
}

bool xp__effect_same(const struct xp__effect *a, const struct xp__effect *b)
{
	return a->kind == b->kind && a->width == b->width && a->at == b->at && a->selector == b->selector &&
	       a->target == b->target && memcmp(a->bytes, b->bytes, sizeof(a->bytes)) == 0;
}

void xp__disassemble(unsigned mode, const uint8_t *bytes, size_t len, unsigned at, char *text, size_t size)
{
	struct xp__decoder decoder;
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
	ZydisFormatter formatter;
	struct xp__effect effect;

	decoder.mode = 0;
	xp__decoder_set(&decoder, mode);
	effect = decode(&decoder, bytes, len, at);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder.zydis, bytes, len, &insn, operands))) {
		snprintf(text, size, effect.kind == XP__EFFECT_MORE ? "(cut off)" : "(no instruction)");
		return;
	}
	ZydisFormatterInit(&formatter, ZYDIS_FORMATTER_STYLE_INTEL);
	ZydisFormatterSetProperty(&formatter, ZYDIS_FORMATTER_PROP_HEX_UPPERCASE, ZYAN_FALSE);
	ZydisFormatterFormatInstruction(&formatter, &insn, operands, insn.operand_count_visible, text, size,
					is_relative(&insn) ? 0 : at, NULL);
	if (is_relative(&insn)) {
		size_t name = strcspn(text, " ");

		snprintf(text + name, size - name, " site%+lld", (long long)effect.target);
	}
}
