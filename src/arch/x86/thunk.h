/* SPDX-License-Identifier: MIT */
/* A way into C from the middle of a call under way: arguments and vector state survive it. */
#ifndef XP_ARCH_X86_THUNK_H
#define XP_ARCH_X86_THUNK_H

#include <stdint.h>

/*
 * XP__THUNK(symbol, function) - defines the code @symbol, which asks
 *
 *	void *function(struct xp_object *object, uintptr_t return_address);
 *
 * where a call that is under way is to go, and goes there. At file scope; the function is global and hidden or internal
 * to the library.
 *
 * 64 bits: entered by a jump with the object in r11 and the stack as at the entry of any function: the caller's return
 * address on top. Saved, and given to the target as they came: rdi rsi rdx rcx r8 r9, rax (how many vector arguments a call of a
 * varargs function has), r10 (static chain); x87 and MMX, vector and mask registers, MXCSR, the upper 16 integer
 * registers of APX: those of the components 0, 1, 2, 5, 6, 7 and 19 that XCR0 has on, and that are in use. Without OSXSAVE:
 * FXSAVE. Compiled without vectors (-mgeneral-regs-only): none of these. Not saved: r11, flags, AMX tiles, protection keys;
 * the function must leave the last two alone.
 *
 * 32 bits: entered by a jump with the object in eax and two words more on the stack, the caller's eax on top, then room for
 * the target, which is returned to: there is no register to jump through (regparm). Saved: eax ecx edx, and the same state
 * as far as a processor has it: by FXSAVE without OSXSAVE, not at all without FXSAVE.
 *
 * Context: as the function's; some 4 KiB of stack. Balanced as far as a shadow stack goes: no call without its return.
 * Unwinding: through it, from the function, to the caller, with no frame in between.
 * Source: Intel SDM vol. 1, chapter 13 (XSAVE, standard form); System V ABI, x86-64, 3.2.3.
 */
#ifdef __x86_64__
/*
 * XP__SAVE_STATE - vector, mask and x87 state to the stack: rsp is where, aligned to 64 bytes. XP__RESTORE_STATE - from there,
 * with rsp as the former left it. Both change rax, rcx, rdx, rsi, rdi and flags, nothing else. The 32 bits at XP__STATE_MOVED
 * are not 0 if x87 was not in use, and so is empty; else it is as it was.
 */
#define XP__STATE_MOVED "464"
#define XP__SAVE_STATE                                                                                                 \
	/* Size in the high half, components in the low one; 0: not looked up yet. */                                  \
	"movq xp__thunk_state(%rip), %rax\n\t"                                                                         \
	"testq %rax, %rax\n\t"                                                                                         \
	"jnz 1f\n\t"                                                                                                   \
	"call xp__thunk_look\n"                                                                                        \
	"1:\n\t"                                                                                                       \
	"movq %rax, %rdx\n\t"                                                                                          \
	"shrq $32, %rdx\n\t"                                                                                           \
	"subq %rdx, %rsp\n\t"                                                                                          \
	"andq $-64, %rsp\n\t"                                                                                          \
	"call xp__thunk_save\n\t"
#define XP__RESTORE_STATE "call xp__thunk_restore\n\t"

/*
 * XP__KEEP_STATE, XP__GIVE_STATE - the same around a function of our own. Compiled without vectors, as a kernel is, that
 * touches none, and is passed none: what is in the registers then is a user's, or not there to be touched (CR0.TS).
 */
#ifdef __SSE2__
#define XP__KEEP_STATE XP__SAVE_STATE
#define XP__GIVE_STATE XP__RESTORE_STATE
#else
#define XP__KEEP_STATE "andq $-16, %rsp\n\t"
#define XP__GIVE_STATE ""
#endif

#define XP__THUNK(symbol, function)                                                                                    \
	__asm__(".pushsection .text\n\t"                                                                               \
		".balign 16\n\t"                                                                                       \
		".hidden " #symbol "\n\t"                                                                              \
		".globl " #symbol "\n\t"                                                                               \
		".type " #symbol ", @function\n"                                                                       \
		#symbol ":\n\t"                                                                                        \
		".cfi_startproc\n\t"                                                                                   \
		"endbr64\n\t"                                                                                          \
		"pushq %rbp\n\t"                                                                                       \
		".cfi_def_cfa_offset 16\n\t"                                                                           \
		".cfi_offset %rbp, -16\n\t"                                                                            \
		"movq %rsp, %rbp\n\t"                                                                                  \
		".cfi_def_cfa_register %rbp\n\t"                                                                       \
		"pushq %rdi\n\t"                                                                                       \
		"pushq %rsi\n\t"                                                                                       \
		"pushq %rdx\n\t"                                                                                       \
		"pushq %rcx\n\t"                                                                                       \
		"pushq %r8\n\t"                                                                                        \
		"pushq %r9\n\t"                                                                                        \
		"pushq %rax\n\t"                                                                                       \
		"pushq %r10\n\t"                                                                                       \
		XP__KEEP_STATE                                                                                         \
		"movq %r11, %rdi\n\t"                                                                                  \
		"movq 8(%rbp), %rsi\n\t"                                                                               \
		"call " #function "\n\t"                                                                               \
		"movq %rax, %r11\n\t"                                                                                  \
		XP__GIVE_STATE                                                                                         \
		"leaq -64(%rbp), %rsp\n\t"                                                                             \
		"popq %r10\n\t"                                                                                        \
		"popq %rax\n\t"                                                                                        \
		"popq %r9\n\t"                                                                                         \
		"popq %r8\n\t"                                                                                         \
		"popq %rcx\n\t"                                                                                        \
		"popq %rdx\n\t"                                                                                        \
		"popq %rsi\n\t"                                                                                        \
		"popq %rdi\n\t"                                                                                        \
		"popq %rbp\n\t"                                                                                        \
		".cfi_restore %rbp\n\t"                                                                                \
		".cfi_def_cfa %rsp, 8\n\t"                                                                             \
		"jmpq *%r11\n\t"                                                                                       \
		".cfi_endproc\n\t"                                                                                     \
		".size " #symbol ", . - " #symbol "\n\t"                                                               \
		".popsection")
#else
#define XP__THUNK(symbol, function)                                                                                    \
	__asm__(".pushsection .text\n\t"                                                                               \
		".balign 16\n\t"                                                                                       \
		".hidden " #symbol "\n\t"                                                                              \
		".globl " #symbol "\n\t"                                                                               \
		".type " #symbol ", @function\n"                                                                       \
		#symbol ":\n\t"                                                                                        \
		".cfi_startproc\n\t"                                                                                   \
		".cfi_def_cfa_offset 12\n\t"                                                                           \
		"pushl %ebp\n\t"                                                                                       \
		".cfi_def_cfa_offset 16\n\t"                                                                           \
		".cfi_offset %ebp, -16\n\t"                                                                            \
		"movl %esp, %ebp\n\t"                                                                                  \
		".cfi_def_cfa_register %ebp\n\t"                                                                       \
		"pushl %ecx\n\t"                                                                                       \
		"pushl %edx\n\t"                                                                                       \
		"pushl %ebx\n\t"                                                                                       \
		".cfi_offset %ebx, -28\n\t"                                                                            \
		"pushl %esi\n\t"                                                                                       \
		".cfi_offset %esi, -32\n\t"                                                                            \
		"pushl %eax\n\t"                                                                                       \
		/* Size above, components in the lowest byte; 0: not looked up yet. */                                 \
		"call 0f\n"                                                                                            \
		"0:\n\t"                                                                                               \
		"popl %ecx\n\t"                                                                                        \
		"movl xp__thunk_state - 0b(%ecx), %eax\n\t"                                                            \
		"testl %eax, %eax\n\t"                                                                                 \
		"jnz 1f\n\t"                                                                                           \
		"call xp__thunk_look\n"                                                                                \
		"1:\n\t"                                                                                               \
		"movzbl %al, %ebx\n\t"                                                                                 \
		"shrl $8, %eax\n\t"                                                                                    \
		"movl %eax, %esi\n\t"                                                                                  \
		"subl %esi, %esp\n\t"                                                                                  \
		"andl $-64, %esp\n\t"                                                                                  \
		"testl %ebx, %ebx\n\t"                                                                                 \
		"jz 2f\n\t"                                                                                            \
		/* XSAVE leaves part of its header as it was, and XRSTOR wants zeros there. */                         \
		"xorl %edx, %edx\n\t"                                                                                  \
		".irp at,512,516,520,524,528,532,536,540,544,548,552,556,560,564,568,572\n\t"                          \
		"movl %edx, \\at(%esp)\n\t"                                                                            \
		".endr\n\t"                                                                                            \
		"movl %ebx, %eax\n\t"                                                                                  \
		"xsave (%esp)\n\t"                                                                                     \
		"jmp 3f\n"                                                                                             \
		"2:\n\t"                                                                                               \
		"cmpl $512, %esi\n\t"                                                                                  \
		"jb 3f\n\t"                                                                                            \
		"fxsave (%esp)\n"                                                                                      \
		"3:\n\t"                                                                                               \
		"subl $8, %esp\n\t"                                                                                    \
		"pushl 12(%ebp)\n\t"                                                                                   \
		"pushl -20(%ebp)\n\t"                                                                                  \
		"call " #function "\n\t"                                                                               \
		"addl $16, %esp\n\t"                                                                                   \
		"movl %eax, 8(%ebp)\n\t"                                                                               \
		"testl %ebx, %ebx\n\t"                                                                                 \
		"jz 4f\n\t"                                                                                            \
		"movl %ebx, %eax\n\t"                                                                                  \
		"xorl %edx, %edx\n\t"                                                                                  \
		"xrstor (%esp)\n\t"                                                                                    \
		"jmp 5f\n"                                                                                             \
		"4:\n\t"                                                                                               \
		"cmpl $512, %esi\n\t"                                                                                  \
		"jb 5f\n\t"                                                                                            \
		"fxrstor (%esp)\n"                                                                                     \
		"5:\n\t"                                                                                               \
		"leal -16(%ebp), %esp\n\t"                                                                             \
		"popl %esi\n\t"                                                                                        \
		".cfi_restore %esi\n\t"                                                                                \
		"popl %ebx\n\t"                                                                                        \
		".cfi_restore %ebx\n\t"                                                                                \
		"popl %edx\n\t"                                                                                        \
		"popl %ecx\n\t"                                                                                        \
		"popl %ebp\n\t"                                                                                        \
		".cfi_restore %ebp\n\t"                                                                                \
		".cfi_def_cfa %esp, 12\n\t"                                                                            \
		"popl %eax\n\t"                                                                                        \
		".cfi_def_cfa_offset 8\n\t"                                                                            \
		"ret\n\t"                                                                                              \
		".cfi_endproc\n\t"                                                                                     \
		".size " #symbol ", . - " #symbol "\n\t"                                                               \
		".popsection")
#endif

/*
 * XP__RETURN0(symbol) - defines the function @symbol: xor eax, edx, xmm0, xmm1; the last two not in 32-bit code, nor in a
 * kernel's, where they may be a user's.
 */
#if defined(__x86_64__) && defined(__SSE2__)
#define XP__CLEAR "endbr64\n\tpxor %xmm0, %xmm0\n\tpxor %xmm1, %xmm1\n\t"
#elif defined(__x86_64__)
#define XP__CLEAR "endbr64\n\t"
#else
#define XP__CLEAR "endbr32\n\t"
#endif
#define XP__RETURN0(symbol)                                                                                            \
	__asm__(".pushsection .text\n\t"                                                                               \
		".balign 16\n\t"                                                                                       \
		".globl " #symbol "\n\t"                                                                               \
		".type " #symbol ", @function\n"                                                                       \
		#symbol ":\n\t"                                                                                        \
		".cfi_startproc\n\t" XP__CLEAR                                                                         \
		"xorl %eax, %eax\n\t"                                                                                  \
		"xorl %edx, %edx\n\t"                                                                                  \
		"ret\n\t"                                                                                              \
		".cfi_endproc\n\t"                                                                                     \
		".size " #symbol ", . - " #symbol "\n\t"                                                               \
		".popsection")

#endif
