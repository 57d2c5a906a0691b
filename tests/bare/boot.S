/* SPDX-License-Identifier: MIT */
/*
 * From what QEMU's PVH loader leaves (32-bit protected mode, no paging, ebx = start info) to C in the upper half; the
 * start of the other processors; and the stubs of the exceptions that the port does not take.
 */
#define KERNEL_BASE 0xffffffff80000000
#define PHYS(symbol) (symbol - KERNEL_BASE)
#define TRAMPOLINE 0x8000
#define LOW(symbol) (symbol - trampoline + TRAMPOLINE)

#define CR0_PE 0x1
#define CR0_MP 0x2
#define CR0_EM 0x4
#define CR0_WP 0x10000
#define CR0_PG 0x80000000
#define CR4_PAE 0x20
#define CR4_MCE 0x40
#define CR4_PGE 0x80
#define CR4_FX 0x600
#define EFER 0xc0000080
#define EFER_LME_NXE 0x900

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 8, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad PHYS(boot_entry)

	.section .boot, "ax"
	.code32
	.globl boot_entry
boot_entry:
	cld
	movl %ebx, PHYS(boot_info)
	lgdtl PHYS(gdt_low)
	movl $(CR4_PAE | CR4_MCE | CR4_FX), %eax
	movl %eax, %cr4
	movl $PHYS(machine_pml4), %eax
	movl %eax, %cr3
	movl $EFER, %ecx
	rdmsr
	orl $EFER_LME_NXE, %eax
	wrmsr
	movl $(CR0_PG | CR0_WP | CR0_MP | CR0_PE), %eax
	movl %eax, %cr0
	ljmpl $0x08, $PHYS(boot_long)
	.code64
boot_long:
	movabsq $boot_high, %rax
	jmpq *%rax
boot_high:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	leaq machine_stacks + 32768(%rip), %rsp
	movl boot_info(%rip), %edi
	call machine_start
0:	hlt
	jmp 0b

/* Copied to TRAMPOLINE. Real mode, cs = TRAMPOLINE / 16. */
	.balign 16
	.globl trampoline, trampoline_end
	.code16
trampoline:
	cli
	cld
	xorw %ax, %ax
	movw %ax, %ds
	lgdtl LOW(trampoline_gdt)
	movl $(CR4_PAE | CR4_MCE | CR4_FX), %eax
	movl %eax, %cr4
	movl LOW(trampoline_cr3), %eax
	movl %eax, %cr3
	movl $EFER, %ecx
	rdmsr
	orl $EFER_LME_NXE, %eax
	wrmsr
	movl $(CR0_PG | CR0_WP | CR0_MP | CR0_PE), %eax
	movl %eax, %cr0
	ljmpl $0x08, $LOW(trampoline_long)
	.code64
trampoline_long:
	movl $0x10, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl %eax, %fs
	movl %eax, %gs
	movq LOW(trampoline_stack), %rsp
	movabsq $machine_cpu_start, %rax
	call *%rax
0:	hlt
	jmp 0b
	.balign 8
trampoline_gdt:
	.word 3 * 8 - 1
	.long PHYS(machine_gdt)
	.balign 8
	.globl trampoline_stack, trampoline_cr3
trampoline_stack:
	.quad 0
trampoline_cr3:
	.quad PHYS(machine_pml4)
trampoline_end:

/* Exceptions: vector and frame for machine_exception(). Those with an error code have it pushed already. */
	.text
	.balign 16
	.globl machine_stubs
machine_stubs:
	.set vector, 0
	.rept 32
	.balign 16
	.if vector != 8 && (vector < 10 || vector > 14) && vector != 17 && vector != 21
	pushq $0
	.endif
	pushq %r15
	movl $vector, %r15d
	jmp exception
	.set vector, vector + 1
	.endr
exception:
	pushq %r14
	pushq %r13
	pushq %r12
	pushq %r11
	pushq %r10
	pushq %r9
	pushq %r8
	pushq %rdi
	pushq %rsi
	pushq %rbp
	pushq $0
	pushq %rbx
	pushq %rdx
	pushq %rcx
	pushq %rax
	cld
	movq %rsp, %rdi
	movl %r15d, %esi
	call machine_exception
	jmp interrupt_return

	.balign 16
	.globl machine_entry_wake, machine_entry_spurious
machine_entry_wake:
	pushq $0
	pushq %r15
	pushq %r14
	pushq %r13
	pushq %r12
	pushq %r11
	pushq %r10
	pushq %r9
	pushq %r8
	pushq %rdi
	pushq %rsi
	pushq %rbp
	pushq $0
	pushq %rbx
	pushq %rdx
	pushq %rcx
	pushq %rax
	cld
	movq %rsp, %rdi
	call machine_wake
interrupt_return:
	popq %rax
	popq %rcx
	popq %rdx
	popq %rbx
	leaq 8(%rsp), %rsp
	popq %rbp
	popq %rsi
	popq %rdi
	popq %r8
	popq %r9
	popq %r10
	popq %r11
	popq %r12
	popq %r13
	popq %r14
	popq %r15
	leaq 8(%rsp), %rsp
	iretq
machine_entry_spurious:
	iretq

	.data
	.balign 8
gdt_low:
	.word 3 * 8 - 1
	.long PHYS(machine_gdt)
	.balign 16
	.globl machine_gdt
machine_gdt:
	.quad 0
	.quad 0x00af9b000000ffff
	.quad 0x00cf93000000ffff
	.fill 2 * 16, 8, 0 /* a TSS for each processor */
	.globl boot_info
boot_info:
	.long 0

/*
 * Page tables. The first 16 MiB and the local APIC where they are, for the start; from KERNEL_BASE + 2 MiB on 8 MiB in
 * small pages, whose rights machine.c sets.
 */
	.balign 4096
	.globl machine_pml4, machine_pages, machine_low
machine_pml4:
	.quad PHYS(pdpt_low) + 3
	.fill 510, 8, 0
	.quad PHYS(pdpt_high) + 3
pdpt_low:
	.quad PHYS(machine_low) + 3
	.quad 0, 0
	.quad PHYS(pd_apic) + 3
	.fill 508, 8, 0
pdpt_high:
	.fill 510, 8, 0
	.quad PHYS(pd_high) + 3
	.quad 0
machine_low:
	.set at, 0
	.rept 8
	.quad at + 0x83
	.set at, at + 0x200000
	.endr
	.fill 504, 8, 0
pd_apic:
	.fill 503, 8, 0
	.quad 0xfee00000 + 0x9b
	.fill 8, 8, 0
pd_high:
	.quad 0
	.quad PHYS(machine_pages) + 3
	.quad PHYS(machine_pages) + 4096 + 3
	.quad PHYS(machine_pages) + 8192 + 3
	.quad PHYS(machine_pages) + 12288 + 3
	.fill 507, 8, 0
machine_pages:
	.set at, 0x200000
	.rept 2048
	.quad at + 3
	.set at, at + 0x1000
	.endr

	.section .note.GNU-stack, "", @progbits
