// SPDX-License-Identifier: MIT
/*
 * The thunks of traced functions.
 *
 * A return that is waited for. The return address on the stack is replaced by xp__function_return + 16 i, which holds
 *
 *	call	thunk           puts 16 i + 5 where the return address was
 *	.long	distance to xp__function_frames[i], whose first word is the return address that was there
 *
 * I1  To an unwinder each of these places is in a function whose frame is empty and whose return address stands in
 *     xp__function_frames[i]: it gets there from the place by the distance behind the call, by a DWARF expression. So
 *     exceptions, backtraces and debuggers pass, whatever stack they are on and however calls are nested, and nothing has
 *     to be put back beforehand. An unwinder looks up the byte before a return address: one nop stands before the first.
 *     One that raises an exception tells the personality routine (0x1b: it is given by a distance of 4 bytes), by which the
 *     core learns that no return will come.
 * I2  Every register that a call may use is as before, also those that a compiler may know a function not to change
 *     (-fipa-ra), but for flags.
 */
#include "arch/x86/thunk_trace.h"

#include "arch/x86/thunk.h"

#ifdef __x86_64__

#define TEXT(x) TEXT_(x)
#define TEXT_(x) #x

/* @first sees @call alone; if it wants it, @second with vector and x87 state saved. @prepare: instructions in between. */
#define THUNK(symbol, visibility, first, second, prepare)                                                              \
	__asm__(".pushsection .text\n\t"                                                                               \
		".balign 16\n\t" visibility " " symbol "\n\t"                                                          \
		".globl " symbol "\n\t"                                                                                \
		".type " symbol ", @function\n" symbol ":\n\t"                                                         \
		".cfi_startproc\n\t"                                                                                   \
		"endbr64\n\t"                                                                                          \
		"pushq %rbp\n\t"                                                                                       \
		".cfi_def_cfa_offset 16\n\t"                                                                           \
		".cfi_offset %rbp, -16\n\t"                                                                            \
		"movq %rsp, %rbp\n\t"                                                                                  \
		".cfi_def_cfa_register %rbp\n\t"                                                                       \
		"pushq %r11\n\t"                                                                                       \
		"pushq %r10\n\t"                                                                                       \
		"pushq %rax\n\t"                                                                                       \
		"pushq %r9\n\t"                                                                                        \
		"pushq %r8\n\t"                                                                                        \
		"pushq %rcx\n\t"                                                                                       \
		"pushq %rdx\n\t"                                                                                       \
		"pushq %rsi\n\t"                                                                                       \
		"pushq %rdi\n\t"                                                                                       \
		"subq $32, %rsp\n\t"                                                                                   \
		"movq %rsp, %rdi\n\t"                                                                                  \
		"andq $-16, %rsp\n\t"                                                                                  \
		"call " first "\n\t"                                                                                   \
		"testb %al, %al\n\t"                                                                                   \
		"jz 6f\n\t" XP__SAVE_STATE prepare "leaq -104(%rbp), %rdi\n\t"                                         \
		"movq %rsp, %rsi\n\t"                                                                                  \
		"call " second "\n\t" XP__RESTORE_STATE "6:\n\t"                                                       \
		"leaq -72(%rbp), %rsp\n\t"                                                                             \
		"popq %rdi\n\t"                                                                                        \
		"popq %rsi\n\t"                                                                                        \
		"popq %rdx\n\t"                                                                                        \
		"popq %rcx\n\t"                                                                                        \
		"popq %r8\n\t"                                                                                         \
		"popq %r9\n\t"                                                                                         \
		"popq %rax\n\t"                                                                                        \
		"popq %r10\n\t"                                                                                        \
		"popq %r11\n\t"                                                                                        \
		"popq %rbp\n\t"                                                                                        \
		".cfi_restore %rbp\n\t"                                                                                \
		".cfi_def_cfa %rsp, 8\n\t"                                                                             \
		"ret\n\t"                                                                                              \
		".cfi_endproc\n\t"                                                                                     \
		".size " symbol ", . - " symbol "\n\t"                                                                 \
		".popsection")

/* Reached by name from other objects, through their global offset table. */
THUNK("xp__function_entered", ".protected", "xp__function_enter", "xp__function_run", "");
/* A result may be on the x87 stack: handlers find it empty, and find the value in the area. EMMS would bring x87 into use. */
THUNK("xp__function_left", ".hidden", "xp__function_leave", "xp__function_run_leave",
      "cmpl $0, " XP__STATE_MOVED "(%rsp)\n\tjnz 7f\n\temms\n7:\n\t");

/*
 * DW_CFA_expression (10) for the return address (register 16), 17 bytes: it stands at the address that is computed by
 *	DW_OP_breg16 0; DW_OP_lit15; DW_OP_not; DW_OP_and	the place, from its own return address
 *	DW_OP_dup; DW_OP_plus_uconst 8; DW_OP_deref_size 4	the distance
 *	DW_OP_const1u 32; DW_OP_shl; DW_OP_const1u 32; DW_OP_shra	with its sign
 *	DW_OP_plus
 * The stack pointer is the caller's own; by the ABI it would be the CFA. But unwinders know a frame by its CFA, libgcc by
 * that of the frame below, and take two that are equal for one: so the CFA is a byte away, where no other is, and the stack
 * pointer has a rule of its own, DW_CFA_val_expression (16) of DW_OP_breg7 0.
 */
__asm__(".pushsection .text\n\t"
	".balign 16\n\t"
	".skip 15, 0x90\n\t"
	".cfi_startproc simple\n\t"
	".hidden xp__function_personality\n\t"
	".cfi_personality 0x1b, xp__function_personality\n\t"
	".cfi_def_cfa %rsp, 1\n\t"
	".cfi_escape 0x16, 7, 2, 0x77, 0\n\t"
	".cfi_escape 0x10, 16, 17, 0x80, 0, 0x3f, 0x20, 0x1a, 0x12, 0x23, 8, 0x94, 4, "
	"0x08, 32, 0x24, 0x08, 32, 0x26, 0x22\n\t"
	"nop\n\t"
	".hidden xp__function_return\n\t"
	".globl xp__function_return\n\t"
	".type xp__function_return, @function\n"
	"xp__function_return:\n\t"
	".set xp__frame, 0\n\t"
	".rept " TEXT(
		XP_FUNCTION_FRAMES) "\n\t"
				    "call xp__function_left\n\t"
				    ".byte 0xcc, 0xcc, 0xcc\n\t"
				    ".long xp__function_frames + xp__frame - . + 8\n\t"
				    ".long 0\n\t"
				    ".set xp__frame, xp__frame + " TEXT(
					    XP__FRAME_SIZE) "\n\t"
							    ".endr\n\t"
							    ".cfi_endproc\n\t"
							    ".size xp__function_return, . - xp__function_return\n\t"
							    ".popsection");

#endif
