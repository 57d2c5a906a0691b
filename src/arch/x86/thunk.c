// SPDX-License-Identifier: MIT
/*
 * How much room the state takes that XP__THUNK saves, found out by the first thread that comes through one.
 *
 * Assembly, since a compiler may use vector registers for whatever it likes, and here they still hold somebody's
 * arguments.
 *
 * I1  xp__thunk_state goes from 0 to one value, which whoever looks finds the same: one store of eight bytes, and
 *     threads that look at once agree.
 */
#include "arch/x86/thunk.h"

#ifdef __x86_64__

/* Components of XCR0 that calls or C code may use: x87, SSE, AVX, AVX-512 (three), APX. */
#define COMPONENTS "0x800e7"

/*
 * xp__thunk_look - returns the state in rax; changes rcx and rdx too, and nothing else.
 * CPUID.01H:ECX[27] is OSXSAVE. CPUID.(EAX=0DH,ECX=i) gives size and offset of component i in the standard form, in EAX
 * and EBX (Intel SDM vol. 1, chapter 13). Legacy area and header take 576 bytes.
 */
__asm__(".pushsection .bss\n\t"
	".balign 8\n\t"
	".hidden xp__thunk_state\n\t"
	".globl xp__thunk_state\n\t"
	".type xp__thunk_state, @object\n\t"
	".size xp__thunk_state, 8\n"
	"xp__thunk_state:\n\t"
	".skip 8\n\t"
	".popsection\n\t"

	".pushsection .text\n\t"
	".balign 16\n\t"
	".hidden xp__thunk_look\n\t"
	".globl xp__thunk_look\n\t"
	".type xp__thunk_look, @function\n"
	"xp__thunk_look:\n\t"
	".cfi_startproc\n\t"
	"pushq %rbx\n\t"
	".cfi_def_cfa_offset 16\n\t"
	".cfi_offset %rbx, -16\n\t"
	"pushq %rsi\n\t"
	".cfi_def_cfa_offset 24\n\t"
	"pushq %rdi\n\t"
	".cfi_def_cfa_offset 32\n\t"
	"pushq %r8\n\t"
	".cfi_def_cfa_offset 40\n\t"
	"xorl %edi, %edi\n\t"    /* components */
	"movl $512, %esi\n\t"    /* bytes */
	"movl $1, %eax\n\t"
	"cpuid\n\t"
	"btl $27, %ecx\n\t"
	"jnc 3f\n\t"
	"xorl %ecx, %ecx\n\t"
	"xgetbv\n\t"
	"movl %eax, %edi\n\t"
	"andl $" COMPONENTS ", %edi\n\t"
	"movl $576, %esi\n\t"
	"movl $2, %r8d\n"        /* the component looked at */
	"1:\n\t"
	"btl %r8d, %edi\n\t"
	"jnc 2f\n\t"
	"movl $13, %eax\n\t"
	"movl %r8d, %ecx\n\t"
	"cpuid\n\t"
	"addl %ebx, %eax\n\t"    /* where it ends */
	"cmpl %esi, %eax\n\t"
	"cmoval %eax, %esi\n"
	"2:\n\t"
	"incl %r8d\n\t"
	"cmpl $32, %r8d\n\t"
	"jb 1b\n"
	"3:\n\t"
	"movq %rsi, %rax\n\t"
	"shlq $32, %rax\n\t"
	"orq %rdi, %rax\n\t"
	"movq %rax, xp__thunk_state(%rip)\n\t"
	"popq %r8\n\t"
	".cfi_def_cfa_offset 32\n\t"
	"popq %rdi\n\t"
	".cfi_def_cfa_offset 24\n\t"
	"popq %rsi\n\t"
	".cfi_def_cfa_offset 16\n\t"
	"popq %rbx\n\t"
	".cfi_def_cfa_offset 8\n\t"
	"ret\n\t"
	".cfi_endproc\n\t"
	".size xp__thunk_look, . - xp__thunk_look\n\t"
	".popsection");

#endif
