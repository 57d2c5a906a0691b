// SPDX-License-Identifier: MIT
/*
 * The entries of the IDT, for contexts that all run at CPL 0. Each saves the registers as a struct xp_bare_frame, calls
 * its function in C, loads what that left, and goes on there.
 *
 * IRET tells the processor that an NMI's handler has ended, wherever it is executed: a breakpoint met inside an NMI handler
 * that returned so would let the next NMI in, onto the stack of the first. So these and machine checks return by RET
 * where the interrupted context had interrupts off. One that had them on is no NMI's, and needs IRET: with interrupts on
 * again, but not yet back, it could be found parked with its return address in no register.
 * RET takes address and flags from the interrupted stack, right below its pointer: there is no red zone.
 *
 * An illegal instruction is handled on the interrupted stack, and a call that is emulated there pushes where the
 * processor put its frame. So the entry copies that frame down, and a word more, for the alignment.
 */
#include "port/bare/port.h"

#define STRINGIFY(x) #x
#define OFFSET(x) STRINGIFY(x)
#define FRAME_IP 136
#define FRAME_FLAGS 152
#define FRAME_SP 160

_Static_assert(__builtin_offsetof(struct xp_bare_frame, ip) == FRAME_IP, "");
_Static_assert(__builtin_offsetof(struct xp_bare_frame, flags) == FRAME_FLAGS, "");
_Static_assert(__builtin_offsetof(struct xp_bare_frame, sp) == FRAME_SP, "");

/* The processor pushed five words onto an aligned stack: with these, 22, it is aligned again for the call. */
#define SAVE                                                                                                           \
	"	pushq $0\n"                                                                                                  \
	"	pushq %r15\n	pushq %r14\n	pushq %r13\n	pushq %r12\n"                                                         \
	"	pushq %r11\n	pushq %r10\n	pushq %r9\n	pushq %r8\n"                                                           \
	"	pushq %rdi\n	pushq %rsi\n	pushq %rbp\n	pushq $0\n"                                                           \
	"	pushq %rbx\n	pushq %rdx\n	pushq %rcx\n	pushq %rax\n"                                                         \
	"	cld\n"                                                                                                       \
	"	movq %rsp, %rdi\n"

#define LOAD                                                                                                           \
	"	popq %rax\n	popq %rcx\n	popq %rdx\n	popq %rbx\n"                                                             \
	"	leaq 8(%rsp), %rsp\n"                                                                                        \
	"	popq %rbp\n	popq %rsi\n	popq %rdi\n"                                                                         \
	"	popq %r8\n	popq %r9\n	popq %r10\n	popq %r11\n"                                                               \
	"	popq %r12\n	popq %r13\n	popq %r14\n	popq %r15\n"                                                             \
	"	leaq 8(%rsp), %rsp\n"

__asm__(".pushsection .text\n"
	".balign 16\n"
	".globl xp_bare_entry_trap\n"
	"xp_bare_entry_trap:\n" SAVE "	call xp_bare_trap\n"
	"	jmp xp__bare_return\n"
	".balign 16\n"
	".globl xp_bare_entry_mce\n"
	"xp_bare_entry_mce:\n" SAVE "	call xp_bare_mce\n"
	"xp__bare_return:\n"
	"	testl $0x200, " OFFSET(
		FRAME_FLAGS) "(%rsp)\n"
			     "	jnz xp__bare_iret\n"
			     "	movq " OFFSET(
				     FRAME_SP) "(%rsp), %rax\n"
					       "	movq " OFFSET(
						       FRAME_IP) "(%rsp), %rcx\n"
								 "	movq " OFFSET(
									 FRAME_FLAGS) "(%rsp), %rdx\n"
										      "	movq %rcx, -8(%rax)\n"
										      "	movq %rdx, -16(%rax)\n"
										      "	leaq -16(%rax), %rax\n"
										      "	movq %rax, " OFFSET(FRAME_SP) "(%rsp)\n" LOAD "	movq (" OFFSET(FRAME_SP) "-" OFFSET(
											      FRAME_IP) ")(%rsp), %rsp\n"
													"	popfq\n"
													"	ret\n"
													".balign 16\n"
													".globl xp_bare_entry_illegal\n"
													"xp_bare_entry_illegal:\n"
													"	pushq $0\n"
													"	pushq 40(%rsp)\n	pushq 40(%rsp)\n	pushq 40(%rsp)\n	pushq 40(%rsp)\n	pushq 40(%rsp)\n" SAVE
													"	call xp_bare_illegal\n"
													"	jmp xp__bare_return\n"
													".balign 16\n"
													".globl xp_bare_entry_nmi\n"
													"xp_bare_entry_nmi:\n" SAVE
													"	call xp_bare_nmi\n"
													"	jmp xp__bare_iret\n"
													".balign 16\n"
													".globl xp_bare_entry_ipi\n"
													"xp_bare_entry_ipi:\n" SAVE
													"	call xp_bare_ipi\n"
													"xp__bare_iret:\n" LOAD
													"	iretq\n"
													".popsection\n");
