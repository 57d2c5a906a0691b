// SPDX-License-Identifier: MIT
/*
 * How much room the state takes that XP__THUNK saves, found out by the first thread that comes through one.
 *
 * Assembly, since a compiler may use vector registers for whatever it likes, and here they still hold somebody's
 * arguments.
 *
 * I1  xp__thunk_state goes from 0 to one value, which whoever looks finds the same: one store, and threads that look at
 *     once agree.
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

/* With the state in rax, and the area above the return address. */
__asm__(".pushsection .text\n\t"
	".balign 16\n\t"
	".hidden xp__thunk_save\n\t"
	".globl xp__thunk_save\n\t"
	".type xp__thunk_save, @function\n"
	"xp__thunk_save:\n\t"
	".cfi_startproc\n\t"
	"leaq 8(%rsp), %rdi\n\t"
	"xorl %edx, %edx\n\t"
	"testl %eax, %eax\n\t"
	"jz 1f\n\t"
	/* XSAVE leaves part of its header as it was, and XRSTOR wants zeros there. */
	".irp at,512,520,528,536,544,552,560,568\n\t"
	"movq %rdx, \\at(%rdi)\n\t"
	".endr\n\t"
	"xsave64 (%rdi)\n\t"
	"ret\n"
	"1:\n\t"
	"fxsave64 (%rdi)\n\t"
	"ret\n\t"
	".cfi_endproc\n\t"
	".size xp__thunk_save, . - xp__thunk_save\n\t"

	".balign 16\n\t"
	".hidden xp__thunk_restore\n\t"
	".globl xp__thunk_restore\n\t"
	".type xp__thunk_restore, @function\n"
	"xp__thunk_restore:\n\t"
	".cfi_startproc\n\t"
	"leaq 8(%rsp), %rdi\n\t"
	"movl xp__thunk_state(%rip), %eax\n\t"
	"xorl %edx, %edx\n\t"
	"testl %eax, %eax\n\t"
	"jz 1f\n\t"
	"xrstor64 (%rdi)\n\t"
	"ret\n"
	"1:\n\t"
	"fxrstor64 (%rdi)\n\t"
	"ret\n\t"
	".cfi_endproc\n\t"
	".size xp__thunk_restore, . - xp__thunk_restore\n\t"
	".popsection");

#else

/* As above; APX is of 64-bit code. */
#define COMPONENTS "0xe7"

/*
 * xp__thunk_look - the same in eax, changing eax only: the size in bytes 1 to 3. 64: nothing is saved. Without CPUID, where
 * the ID flag cannot be changed, and without FXSR, CPUID.01H:EDX[24], there is nothing that a caller could have arguments in.
 */
__asm__(".pushsection .bss\n\t"
	".balign 4\n\t"
	".hidden xp__thunk_state\n\t"
	".globl xp__thunk_state\n\t"
	".type xp__thunk_state, @object\n\t"
	".size xp__thunk_state, 4\n"
	"xp__thunk_state:\n\t"
	".skip 4\n\t"
	".popsection\n\t"

	".pushsection .text\n\t"
	".balign 16\n\t"
	".hidden xp__thunk_look\n\t"
	".globl xp__thunk_look\n\t"
	".type xp__thunk_look, @function\n"
	"xp__thunk_look:\n\t"
	".cfi_startproc\n\t"
	".irp reg,%ebx,%ecx,%edx,%esi,%edi,%ebp\n\t"
	"pushl \\reg\n\t"
	".cfi_adjust_cfa_offset 4\n\t"
	".cfi_rel_offset \\reg, 0\n\t"
	".endr\n\t"
	"xorl %edi, %edi\n\t"    /* components */
	"movl $64, %esi\n\t"     /* bytes */
	"pushfl\n\t"
	".cfi_adjust_cfa_offset 4\n\t"
	"movl (%esp), %eax\n\t"
	"movl %eax, %ecx\n\t"
	"xorl $0x200000, (%esp)\n\t"
	"popfl\n\t"
	".cfi_adjust_cfa_offset -4\n\t"
	"pushfl\n\t"
	".cfi_adjust_cfa_offset 4\n\t"
	"popl %eax\n\t"
	".cfi_adjust_cfa_offset -4\n\t"
	"xorl %ecx, %eax\n\t"
	"testl $0x200000, %eax\n\t"
	"jz 3f\n\t"
	"movl $1, %eax\n\t"
	"cpuid\n\t"
	"btl $24, %edx\n\t"
	"jnc 3f\n\t"
	"movl $512, %esi\n\t"
	"btl $27, %ecx\n\t"
	"jnc 3f\n\t"
	"xorl %ecx, %ecx\n\t"
	"xgetbv\n\t"
	"movl %eax, %edi\n\t"
	"andl $" COMPONENTS ", %edi\n\t"
	"movl $576, %esi\n\t"
	"movl $2, %ebp\n"        /* the component looked at */
	"1:\n\t"
	"btl %ebp, %edi\n\t"
	"jnc 2f\n\t"
	"movl $13, %eax\n\t"
	"movl %ebp, %ecx\n\t"
	"cpuid\n\t"
	"addl %ebx, %eax\n\t"    /* where it ends */
	"cmpl %esi, %eax\n\t"
	"jbe 2f\n\t"
	"movl %eax, %esi\n"
	"2:\n\t"
	"incl %ebp\n\t"
	"cmpl $8, %ebp\n\t"
	"jb 1b\n"
	"3:\n\t"
	"movl %esi, %eax\n\t"
	"shll $8, %eax\n\t"
	"orl %edi, %eax\n\t"
	"call 4f\n"
	"4:\n\t"
	".cfi_adjust_cfa_offset 4\n\t"
	"popl %ecx\n\t"
	".cfi_adjust_cfa_offset -4\n\t"
	"movl %eax, xp__thunk_state - 4b(%ecx)\n\t"
	".irp reg,%ebp,%edi,%esi,%edx,%ecx,%ebx\n\t"
	"popl \\reg\n\t"
	".cfi_adjust_cfa_offset -4\n\t"
	".cfi_restore \\reg\n\t"
	".endr\n\t"
	"ret\n\t"
	".cfi_endproc\n\t"
	".size xp__thunk_look, . - xp__thunk_look\n\t"
	".popsection");

#endif
