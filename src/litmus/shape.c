// SPDX-License-Identifier: MIT
/*
 * The code that is raced: every mixture of old and new bytes is an instruction of the same length whose result no
 * other mixture has, so that a torn execution neither crashes nor goes unnoticed, and tells which bytes were old.
 *
 * disp    jmp rel32. The bytes of both displacements are chosen so that all 16 mixtures land on pads of their own,
 *         19 MiB apart at most; a pad is a run of one-byte nops (the site moves, the pads stay) and returns its
 *         number.
 * imm     mov $imm, %al, %ax, %eax, %rax: the value is the mixture. 16 bytes: mov $imm64, %rax; mov $imm64, %rcx,
 *         whose nibbles are interleaved (the second instruction's immediate is 2 bytes longer than the store).
 * opcode  add $i, %r and imul $i, %r, %rax, in which the bytes REX, opcode, ModRM and immediate vary independently:
 *         16 instructions of 4 bytes, told apart by four registers.
 * nop     a 5-byte nop against jmp rel32; all bytes differ. A new opcode before old bytes of a displacement lands on a pad
 *         of its own, an old first byte before new ones stores to address 3 or 6, a fault; a nop's later bytes do not show.
 * flip    one byte; nothing can tear. Anything but the two results would be a surprise.
 *
 * Stores wider than what changes have it in their middle.
 */
#include "litmus/litmus.h"

#include <string.h>

const char *const litmus_shape_names[LITMUS_NR_SHAPES] = {"disp", "imm", "opcode", "flip"};
const char *const litmus_bound_names[LITMUS_NR_BOUNDS] = {"none", "8", "16", "32", "line", "page"};

#define RET 0xc3
#define PAD_RESULT 0x100u
#define FALL_RESULT 0x77u

static const uint8_t disp_bytes[2][4] = {{0x00, 0x10, 0x10, 0x00}, {0x80, 0x60, 0x20, 0x01}};
static const uint8_t nop_bytes[2][5] = {{0x0f, 0x1f, 0x44, 0x00, 0x00}, {0xe9, 0x9f, 0x64, 0x20, 0x01}};
static const uint8_t opcode_bytes[2][4] = {{0x48, 0x83, 0xc0, 0x05}, {0x49, 0x6b, 0xc2, 0x09}};

static void emit(struct litmus_code *code, const void *bytes, unsigned len)
{
	memcpy(code->old + code->len, bytes, len);
	memcpy(code->new + code->len, bytes, len);
	code->len = (uint8_t)(code->len + len);
}

static void emit_both(struct litmus_code *code, const void *old, const void *new, unsigned len)
{
	memcpy(code->old + code->len, old, len);
	memcpy(code->new + code->len, new, len);
	code->len = (uint8_t)(code->len + len);
}

#define EMIT(code, ...) emit(code, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* Unused bytes of a store, before the instruction. */
static void lead(struct litmus_code *code, unsigned nr)
{
	for (unsigned i = 0; i < nr; i++)
		EMIT(code, 0xcc);
	code->entry = code->len;
}

static void make_disp(struct litmus_code *code, unsigned width)
{
	unsigned before = width == 16 ? 5 : width == 8 ? 1 : 0;
	uint8_t new[4];

	memcpy(new, disp_bytes[0], 4);
	memcpy(new, disp_bytes[1], width < 4 ? width : 4);
	lead(code, before);
	EMIT(code, 0xe9);
	emit_both(code, disp_bytes[0], new, 4);
	code->store = width < 8 ? 1 : 0;
}

static void make_imm(struct litmus_code *code, unsigned width)
{
	static const uint8_t opcode[4][3] = {{1, 0xb0}, {2, 0x66, 0xb8}, {1, 0xb8}, {2, 0x48, 0xb8}};
	uint8_t old[16], new[16];

	memset(old, width == 16 ? 0x01 : 0x11, sizeof(old));
	memset(new, width == 16 ? 0x02 : 0x22, sizeof(new));
	code->entry = 0;
	if (width < 16) {
		const uint8_t *op = opcode[width == 1 ? 0 : width == 2 ? 1 : width == 4 ? 2 : 3];

		emit(code, op + 1, op[0]);
		code->store = code->len;
		emit_both(code, old, new, width);
		EMIT(code, RET);
		return;
	}
	EMIT(code, 0x48, 0xb8);
	code->store = code->len;
	emit_both(code, old, new, 8);
	EMIT(code, 0x48, 0xb9);
	memset(old, 0x10, sizeof(old));
	memset(new, 0x20, sizeof(new));
	emit_both(code, old, new, 6);
	EMIT(code, 0x10, 0x10);
	EMIT(code, 0x48, 0x09, 0xc8, RET); /* or %rcx, %rax */
}

static void make_opcode(struct litmus_code *code, unsigned width)
{
	static const uint8_t first[] = {1, 1, 0, 0, 0}, nr[] = {1, 2, 4, 4, 4}, before[] = {0, 0, 0, 2, 6};
	unsigned i = (unsigned)__builtin_ctz(width);
	uint8_t new[4];

	memcpy(new, opcode_bytes[0], 4);
	memcpy(new + first[i], opcode_bytes[1] + first[i], nr[i]);
	lead(code, before[i]);
	emit_both(code, opcode_bytes[0], new, 4);
	code->store = first[i];
	/* rax + (rdx << 16) + (r8 << 32) + (r10 << 48) */
	EMIT(code, 0x48, 0xc1, 0xe2, 16, 0x48, 0x01, 0xd0);
	EMIT(code, 0x49, 0xc1, 0xe0, 32, 0x4c, 0x01, 0xc0);
	EMIT(code, 0x49, 0xc1, 0xe2, 48, 0x4c, 0x01, 0xd0, RET);
}

static void make_flip(struct litmus_code *code, unsigned width)
{
	lead(code, width / 2);
	emit_both(code, "\xa9", "\xe9", 1);
	emit(code, disp_bytes[0], 4);
	EMIT(code, 0xb8, FALL_RESULT, 0, 0, 0, RET);
	code->store = 0;
}

static void make_nop(struct litmus_code *code, unsigned width)
{
	lead(code, 0);
	emit_both(code, nop_bytes[0], nop_bytes[1], width < LITMUS_NOP_LEN ? width : LITMUS_NOP_LEN);
	EMIT(code, 0xb8, FALL_RESULT, 0, 0, 0, RET);
	code->store = 0;
}

/* What the mixture @bits of opcode_bytes does to the registers that litmus_call() sets. */
static uint64_t opcode_result(unsigned bits)
{
	uint64_t rax = 3, rdx = 5, r8 = 7, r10 = 11;
	uint64_t value = bits & 8 ? opcode_bytes[1][3] : opcode_bytes[0][3];
	uint64_t *rm = bits & 1 ? (bits & 4 ? &r10 : &r8) : (bits & 4 ? &rdx : &rax);

	if (bits & 2)
		rax = *rm * value;
	else
		*rm += value;
	return rax + (rdx << 16) + (r8 << 32) + (r10 << 48);
}

/* The first changed byte of the store. */
static unsigned first_changed(const struct litmus_code *code)
{
	return (unsigned)__builtin_ctz(code->changed);
}

static uint64_t result_of(const struct litmus_code *code, uint32_t mask)
{
	unsigned bits = mask >> first_changed(code);
	uint64_t result = 0;

	switch (code->shape) {
	case LITMUS_DISP:
		return PAD_RESULT | bits;
	case LITMUS_NOP:
		return mask & 1 ? PAD_RESULT | 16 | (mask >> 1 & 15) : FALL_RESULT;
	case LITMUS_FLIP:
		return mask ? PAD_RESULT : FALL_RESULT;
	case LITMUS_OPCODE:
		return opcode_result(code->width < 4 ? bits << 1 : bits);
	default:
		break;
	}
	if (code->width < 16) {
		memset(&result, 0x11, code->width);
		for (unsigned i = 0; i < code->width; i++)
			result += (uint64_t)(mask >> i & 1) * 0x11 << 8 * i;
		return result;
	}
	for (unsigned i = 0; i < 8; i++) {
		result |= (mask >> i & 1 ? 0x02ull : 0x01ull) << 8 * i;
		result |= (i < 6 && mask >> (10 + i) & 1 ? 0x20ull : 0x10ull) << 8 * i;
	}
	return result;
}

void litmus_code_make(struct litmus_code *code, enum litmus_shape shape, unsigned width)
{
	static void (*const make[])(struct litmus_code *, unsigned) = {make_disp, make_imm, make_opcode, make_flip,
								       make_nop};

	memset(code, 0, sizeof(*code));
	code->shape = shape;
	code->width = (uint8_t)width;
	code->second = shape == LITMUS_IMM && width == 16 ? 8 : (uint8_t)width;
	make[shape](code, width);
	/* What a store covers beyond the code. */
	while (code->len < code->store + width)
		EMIT(code, 0xcc);
	for (unsigned i = 0; i < width; i++)
		if (code->old[code->store + i] != code->new[code->store + i])
			code->changed |= (uint16_t)(1u << i);
	code->old_result = result_of(code, 0);
	code->new_result = result_of(code, code->changed);
}

void litmus_code_mix(const struct litmus_code *code, uint32_t mask, uint8_t image[LITMUS_IMAGE])
{
	memcpy(image, code->old, LITMUS_IMAGE);
	for (unsigned i = 0; i < code->width; i++)
		if (mask >> i & 1)
			image[code->store + i] = code->new[code->store + i];
}

uint32_t litmus_code_mask(const struct litmus_code *code, uint64_t result)
{
	uint32_t mask = 0;

	if (code->shape == LITMUS_IMM) {
		uint64_t old = code->old_result;

		for (unsigned i = 0; i < code->width; i++) {
			uint64_t bit = 1u << i & code->changed;
			uint64_t differs = result_of(code, (uint32_t)bit) ^ old;

			if (bit && ((result ^ old) & differs) == differs)
				mask |= (uint32_t)bit;
		}
		return result_of(code, mask) == result ? mask : LITMUS_NO_MIXTURE;
	}
	mask = code->changed;
	/* All subsets of ->changed, downwards. */
	for (;; mask = (mask - 1) & code->changed) {
		if (result_of(code, mask) == result)
			return mask;
		if (mask == 0)
			return LITMUS_NO_MIXTURE;
	}
}

bool litmus_mask_torn(const struct litmus_code *code, uint32_t mask, unsigned offset, unsigned granule)
{
	offset += 64; /* no boundary of 4096 in between */
	for (unsigned i = 0; i < code->width; i++) {
		for (unsigned j = i + 1; j < code->width; j++) {
			bool both = code->changed >> i & code->changed >> j & 1;
			bool same = (i < code->second) == (j < code->second);

			if (both && same && (offset + j) / granule == (offset + i) / granule &&
			    (mask >> i ^ mask >> j) & 1)
				return true;
		}
	}
	return false;
}

enum litmus_bound litmus_code_bound(const struct litmus_code *code, unsigned offset, enum litmus_place place)
{
	unsigned first = offset + first_changed(code);
	unsigned last = offset + 31 - (unsigned)__builtin_clz(code->changed);

	if (first / 64 != last / 64)
		return place == LITMUS_END ? LITMUS_PAGE : LITMUS_LINE;
	return first / 32 != last / 32   ? LITMUS_CROSS32
	       : first / 16 != last / 16 ? LITMUS_CROSS16
	       : first / 8 != last / 8   ? LITMUS_CROSS8
					 : LITMUS_QUAD;
}

uint32_t litmus_pad(unsigned i, uint8_t pad[128])
{
	uint32_t disp = 0;

	for (unsigned byte = 0; byte < 4; byte++)
		disp |= (uint32_t)(i < 16 ? disp_bytes[i >> byte & 1][byte] : nop_bytes[i >> byte & 1][byte + 1])
			<< 8 * byte;
	memset(pad, 0x90, 122);
	memcpy(pad + 122, (const uint8_t[]){0xb8, (uint8_t)(PAD_RESULT | i), PAD_RESULT >> 8, 0, 0, RET}, 6);
	return disp;
}
