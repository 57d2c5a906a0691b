/* SPDX-License-Identifier: MIT */
/*
 * Call sites with records, as a compiler plugin writes them, at every offset of a cache line. Each is a function that
 * takes and returns what the call does:
 *
 *	XP_CALL_SITES(sites, name);             calls: a frame, the call, return
 *	XP_CALL_SITES_TAIL(tails, name);        tail calls: a jmp
 *
 *	int (*function)(int) = (int (*)(int))xp_call_site(sites, i);    0 <= i < XP_NR_CALL_SITES
 *
 * The instruction of number i stands i bytes behind the start of a line.
 */
#ifndef XP_CALLS_H
#define XP_CALLS_H

#include <crosspatch/static_call.h>
#include <stdint.h>

#define XP_NR_CALL_SITES 64u

/* Where the stack must be aligned: in 32-bit code the argument is passed on, there and by a caller that pushes none. */
#ifdef __x86_64__
#define XP_CALL_FRAME ".byte 0x48, 0x83, 0xec, 0x08\n.cfi_adjust_cfa_offset 8\n"
#define XP_CALL_FRAME_END ".byte 0x48, 0x83, 0xc4, 0x08\n.cfi_adjust_cfa_offset -8\nret\n"
#else
#define XP_CALL_FRAME ".byte 0xff, 0x74, 0x24, 0x04\n.cfi_adjust_cfa_offset 4\n" /* push 4(%esp) */
#define XP_CALL_FRAME_END ".byte 0x83, 0xc4, 0x04\n.cfi_adjust_cfa_offset -4\nret\n"
#endif

#define XP_CALL_SITES(table, name)                                                                                     \
	XP_CALL_SITES_ASM(#table, #name, "60 + xp_at", XP_CALL_FRAME, "0xe8", "0", XP_CALL_FRAME_END);                 \
	extern const int32_t table[XP_NR_CALL_SITES]
#define XP_CALL_SITES_TAIL(table, name)                                                                                \
	XP_CALL_SITES_ASM(#table, #name, "xp_at", "", "0xe9", "1", "");                                                \
	extern const int32_t table[XP_NR_CALL_SITES]

#define XP_CALL_SITES_ASM(table, name, skip, before, opcode, flags, after)                                             \
	__asm__(".pushsection .rodata\n"                                                                               \
		".balign 4\n" table ":\n"                                                                              \
		".popsection\n"                                                                                        \
		".pushsection .text\n"                                                                                 \
		".Lxp_text_" table ":\n"                                                                               \
		".set xp_at, 0\n"                                                                                      \
		".rept 64\n"                                                                                           \
		".balign 64\n"                                                                                         \
		".skip " skip "\n"                                                                                     \
		"771:\n"                                                                                               \
		".cfi_startproc\n" before                                                                              \
		"772: .byte " opcode "\n"                                                                              \
		".long xp_trampoline_" name " - (. + 4)\n" after                                                       \
		".cfi_endproc\n"                                                                                       \
		".pushsection .rodata\n"                                                                               \
		".long 771b - .\n"                                                                                     \
		".popsection\n"                                                                                        \
		".pushsection xp_call_sites,\"ao?\",@progbits,.Lxp_text_" table "\n"                                       \
		".balign 4\n"                                                                                          \
		".long 772b - .\n"                                                                                     \
		".long xp_call_" name " + " flags " - .\n"                                                             \
		".popsection\n"                                                                                        \
		".set xp_at, xp_at + 1\n"                                                                              \
		".endr\n"                                                                                              \
		".popsection")

static inline uintptr_t xp_call_site(const int32_t *table, unsigned i)
{
	return (uintptr_t)&table[i] + (uintptr_t)(intptr_t)table[i];
}

/* Where site @i of a table of calls, not tail calls, returns to. */
static inline uintptr_t xp_call_site_return(const int32_t *table, unsigned i)
{
	return xp_call_site(table, i) + 4 + 5;
}

#endif
