/* SPDX-License-Identifier: MIT */
/* What looks like a call and is none, or cannot be told. crosspatch annotate must find three sites here, and no other. */
	.hidden xp_trampoline_one
	.section .text.alone,"ax",@progbits
	.globl	alone
	.type	alone, @function
alone:
	call	xp_trampoline_one		/* a site; its section may have no local symbol */
	ret
	.size	alone, .-alone

	.section .text.behind,"ax",@progbits
	.globl	before
	.type	before, @function
before:
	ret
	.size	before, .-before
	.type	behind, @function		/* the only local symbol of its section, and not at its beginning */
behind:
	jmp	xp_trampoline_one		/* a site */
	.size	behind, .-behind

	.text
	.type	prefixed, @function
prefixed:
	.byte	0xf2				/* bnd: the instruction begins one byte earlier */
	call	xp_trampoline_one
	jne	xp_trampoline_one		/* another length and opcode */
	.byte	0xa9				/* test: 5 bytes, too */
	.long	xp_trampoline_one - 4 - .
	leaq	xp_trampoline_one(%rip), %rax
	.byte	0xe9				/* a site: a jmp that the assembler cannot shorten */
	.long	xp_trampoline_one - 4 - .
	.size	prefixed, .-prefixed

	.type	broken, @function
broken:
	.byte	0x06				/* no instruction of 64-bit code: what follows cannot be told */
	call	xp_trampoline_one
	.size	broken, .-broken

	/* Both are decoded, and disagree. */
	.type	outer, @function
outer:
	.byte	0x48, 0xb8, 1, 2, 3
inner:
	call	xp_trampoline_one
	.size	outer, .-outer
	.type	inner, @function
	.size	inner, 5

	/* Not a function's. */
	call	xp_trampoline_one
	.long	xp_trampoline_one - .
