/* SPDX-License-Identifier: MIT */
/* x86, 64 and 32 bits, as arch/arch.h wants it. */
#ifndef XP_ARCH_X86_ARCH_H
#define XP_ARCH_X86_ARCH_H

#include "arch/x86/far/segment.h"
#include "arch/x86/insn.h"
#include "arch/x86/store.h"
#include "arch/x86/sync.h"
#include "arch/x86/thunk.h"
#include "arch/x86/thunk_trace.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XP__TRAP_LEN 1u
#define XP__INSN_MAX 15u /* bytes of an instruction */
#define XP__SLOT_MAX (XP__INSN_MAX + 5u)

#define XP__BRANCH_LEN 5u
#define XP__BRANCH_SHARED 1u /* the opcode; the displacement is the same */
#define XP__JUMP_LEN 5u
#define XP__CALL_LEN 5u
#define XP__TRAMPOLINE_LEN 8u
#define XP__TRAMPOLINE_CHANGE 6u
#define XP__FAULT_LEN 8u  /* UD2, and behind it the opcode of the call or jump that it becomes */
#define XP__FAULT_CALL 3u /* where in it the five bytes stand */
#define XP__ENTRY_LEN 5u
#define XP__ENTRY_SHARED 1u /* the opcode, as above */
#define XP__LANDING_LEN 4u
#define XP__SWITCH_STEP 7u
#define XP__JUMP_WORD 17u

#define XP__HAS_SWITCHES 1
#define XP__HAS_GATES 1
#define XP__HAS_FAR 1
#define XP__HAS_ENTRIES 1
#ifdef __x86_64__
#define XP__TRAMPOLINE_STAYS true
#define XP__HAS_THUNKS 1
#define XP__HAS_TRACING 1
#define XP__GATE_ASKS 0u
#else
#define XP__TRAMPOLINE_STAYS false
#define XP__HAS_THUNKS 0
#define XP__HAS_TRACING 0
#define XP__GATE_ASKS 17u
#endif

/* ---- text and forms ---- */

static inline bool xp__is_trap(const uint8_t *text)
{
	return *text == XP__INSN_INT3_BYTE;
}

/* test $disp32, %eax and jmp: the flip pair of <crosspatch/arch/x86.h>. */
#define XP__BRANCH_TEST 0xa9
#define XP__BRANCH_JMP 0xe9

/* Whether the instruction of @opcode and a displacement to @target stands at @code, XP__BRANCH_LEN bytes. */
static inline bool xp__flip_is(uintptr_t code, uintptr_t target, uint8_t opcode)
{
	const uint8_t *text = (const uint8_t *)code;
	int32_t disp;

	/* One load. In freestanding code the plain name is a call, here for every site of a key. */
	__builtin_memcpy(&disp, text + 1, sizeof(disp));
	return text[0] == opcode && (int32_t)(target - (code + XP__BRANCH_LEN)) == disp;
}

static inline bool xp__branch_is(uintptr_t code, uintptr_t target, bool jumps)
{
	return xp__flip_is(code, target, jumps ? XP__BRANCH_JMP : XP__BRANCH_TEST);
}

/* The flip pair of entries, as long: test $disp32, %eax and call. */
#define XP__ENTRY_CALL 0xe8

static inline bool xp__entry_is(uintptr_t code, uintptr_t stub, bool calls)
{
	return xp__flip_is(code, stub, calls ? XP__ENTRY_CALL : XP__BRANCH_TEST);
}

static inline void xp__entry_flip(uint8_t *text, bool calls)
{
	text[0] = calls ? XP__ENTRY_CALL : XP__BRANCH_TEST;
}

/* 32-bit code has no mov of 8 bytes. */
static inline bool xp__value_size(size_t size)
{
	return size == 1 || size == 2 || size == 4 || size == sizeof(uintptr_t);
}

/* ---- methods ---- */

enum xp__method {
	XP__METHOD_NONE, /* old and new are equal */
	XP__METHOD_FLIP,
	XP__METHOD_WORD,
	XP__METHOD_SHORTJMP,
	XP__METHOD_BREAKPOINT,
	XP__METHOD_QUIESCE,
	XP__METHOD_EARLY,
	XP__METHOD_BYPASS, /* breakpoint, the new instruction out of line */
};

#define XP__NR_METHODS 8

/*
 * What a processor may fetch while text changes. doc/models.md describes each and names its source; src/verify defines
 * them (model.c, in this order). 0 is what a change is planned for unless it says otherwise.
 */
enum xp__fetch {
	XP__FETCH_AMD,        /* an aligned quadword as it was at one instant; instants only go forward */
	XP__FETCH_AMD_REREAD, /* the same, read anew for each byte */
	XP__FETCH_BYTE,       /* every byte from any instant since the last sync */
	XP__FETCH_LINE64,     /* an aligned 64 bytes as they were at one instant */
	XP__FETCH_INTEL_SDM,  /* nothing that is executed between its change and a sync */
};

#define XP__NR_FETCHES 5

/* ---- traps ---- */

struct xp__trapped {
	uintptr_t addr;
	uintptr_t base; /* of the code segment: ip is an offset in it */
};

static inline void xp__trap_goto(struct xp_regs *regs, uintptr_t to)
{
	regs->ip = to;
}

static inline void xp__trap_again(struct xp_regs *regs, const struct xp__trapped *at)
{
	regs->ip = at->addr - at->base;
}

/* Of UD2, in flat code alone. */
static inline bool xp__fault_taken(const struct xp_regs *regs, struct xp__trapped *at)
{
	*at = (struct xp__trapped){(uintptr_t)regs->ip, 0};
	return true;
}

/* ---- far gates ---- */

struct xp_far_site;

struct xp__far_request {
	const struct xp_far_site *site; /* not NULL: only this one */
	uint32_t offset;
	uint16_t selector; /* 0: no provider */
	uint8_t op;        /* enum xp__gate_op */
	bool bind;         /* unbound sites too */
};

#endif
