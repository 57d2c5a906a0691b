/* SPDX-License-Identifier: MIT */
/* What one instruction does, as far as the verifier must tell instructions apart. Hosted; uses Zydis. */
#ifndef XP_VERIFY_DECODE_H
#define XP_VERIFY_DECODE_H

#include <Zydis/Zydis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum xp__effect_kind {
	XP__EFFECT_MORE,    /* the bytes end before the instruction does */
	XP__EFFECT_INVALID, /* no instruction: the processor raises #UD, or does what no manual says */
	XP__EFFECT_NOP,
	XP__EFFECT_JMP,     /* relative */
	XP__EFFECT_JCC,     /* conditional, loop and jcxz included */
	XP__EFFECT_CALL,    /* relative */
	XP__EFFECT_FARCALL, /* selector and offset in the instruction */
	XP__EFFECT_INT3,
	XP__EFFECT_UD2,
	XP__EFFECT_CMC,   /* twice is nothing: the S8 sequences use it as padding */
	XP__EFFECT_LEAVE, /* return, indirect jump, far jump: does not come back by itself */
	XP__EFFECT_OTHER,
	XP__EFFECT_EXIT,  /* no instruction: execution leaves the site to `target` */
};

/*
 * Two effects are the same if all fields but `len` are: unused ones are 0. Instructions that are only compared, not
 * understood, carry their bytes and their place: one that addresses relative to itself means another thing elsewhere.
 */
struct xp__effect {
	uint8_t kind; /* enum xp__effect_kind */
	uint8_t len;
	uint8_t width;     /* CALL, FARCALL: bits of the offset that is pushed; JCC: 1 taken, 0 not taken */
	uint8_t at;        /* UD2, LEAVE, OTHER: offset in the site */
	uint16_t selector; /* FARCALL */
	int64_t target;    /* JMP, JCC, CALL, EXIT: relative to the site's first byte; FARCALL: the offset itself */
	uint8_t bytes[15]; /* JCC (opcode), UD2, LEAVE, OTHER */
};

#define XP__DECODE_CACHE 4096

/* Remembers what it decoded: the explorer asks the same few questions again and again. One thread at a time. */
struct xp__decoder {
	ZydisDecoder zydis;
	uint8_t mode; /* 16, 32, 64 */
	struct {
		bool used;
		uint8_t bytes[15], len, at;
		struct xp__effect effect;
	} cache[XP__DECODE_CACHE];
};

/* xp__decoder_set - for code of 16, 32 or 64 bits. @decoder zeroed before its first use. */
void xp__decoder_set(struct xp__decoder *decoder, unsigned mode);

/* xp__decode - the first instruction of @bytes, at most 15, which stand at offset @at of the site. */
struct xp__effect xp__decode(struct xp__decoder *decoder, const uint8_t *bytes, size_t len, unsigned at);

bool xp__effect_same(const struct xp__effect *a, const struct xp__effect *b);

/* xp__disassemble - one instruction as text; targets are shown relative to the site ("jmp site+0x5"). */
void xp__disassemble(unsigned mode, const uint8_t *bytes, size_t len, unsigned at, char *text, size_t size);

#endif
