/* SPDX-License-Identifier: MIT */
/* The instructions that the front ends emit on x86, 64 and 32 bits. */
#ifndef XP_ARCH_X86_H
#define XP_ARCH_X86_H

#if !defined(XP_STATIC_KEY_H) && !defined(XP_STATIC_CALL_H)
#error "do not include <crosspatch/arch/x86.h>; include <crosspatch/static_key.h> or <crosspatch/crosspatch.h>"
#endif

#if !(defined(__x86_64__) && !defined(__ILP32__)) && !defined(__i386__)
#error "crosspatch: this architecture is not supported yet; define XP_NO_PATCHING for plain loads and branches"
#endif

/*
 * How an asm names the address of a key, and prints it bare. In 32-bit position-independent code an address is no
 * constant to the compiler: it wants the register of the global offset table added. A record holds the distance from
 * itself and needs no register, so there the operand is one that GCC does not judge ("X"), printed as it is (%p). That the
 * key is a constant address, which "i" asks, an initialiser then asks. Clang has no such operand.
 */
#if defined(__i386__) && defined(__PIC__)
#define XP__ADDRESS "X"
#define XP__CONSTANT(key) static const struct xp_static_key *const xp__constant __attribute__((unused)) = (key)
#define XP__PRINT_ADDRESS(operand) "%p[" #operand "]"
#else
#define XP__ADDRESS "i"
#define XP__CONSTANT(key) (void)0
#define XP__PRINT_ADDRESS(operand) "%c[" #operand "]"
#endif

/*
 * A branch site is one of the flip pair
 *
 *	A9 disp32	test $disp32, %eax	falls through; "cc" is clobbered
 *	E9 disp32	jmp  target
 *
 * whose displacement is the same: to switch it is to change one byte, which every processor fetches whole, so no
 * alignment is needed.
 * The record stands in the section group of its function ("?", as in C++ templates and inline functions) and is
 * linked to its section ("o"): it goes when the linker discards the function, and neither before nor after.
 * %= makes the label unique in each copy of the asm that the compiler emits.
 */
#define XP__BRANCH_SITE                                                                                                \
	".Lxp_site%=:\n\t"                                                                                             \
	".byte %c[xp__opcode]\n\t"                                                                                     \
	".long %l[xp__jump] - (. + 4)\n\t"                                                                             \
	".pushsection xp_branch_sites,\"ao?\",@progbits,.Lxp_site%=\n\t"                                               \
	".balign 4\n\t"                                                                                                \
	".long .Lxp_site%= - .\n\t"                                                                                    \
	".long %l[xp__jump] - .\n\t"                                                                                   \
	".long " XP__PRINT_ADDRESS(xp__key) " + %c[xp__flags] - .\n\t"                                                 \
	".popsection"

#define XP__BRANCH_ASM(key, opcode, flags)                                                                             \
	__asm__ goto(XP__BRANCH_SITE                                                                                   \
		     :                                                                                                 \
		     : [xp__key] XP__ADDRESS(key), [xp__opcode] "i"(opcode), [xp__flags] "i"(flags)                    \
		     : "cc"                                                                                            \
		     : xp__jump)

#define XP__OPCODE_TEST 0xa9
#define XP__OPCODE_JMP 0xe9

/*
 * XP__BRANCH - a bool that says whether the site jumped. In C a statement expression; in C++ a lambda, because
 * clang holds that any asm goto of a function may jump to any label of its kind, which C++ then forbids.
 */
#if defined(__i386__) && defined(__PIC__) && defined(__clang__)
#define XP__BRANCH(key, opcode, flags)                                                                                 \
	__extension__({                                                                                                \
		XP__ASSERT(0, "crosspatch: clang names no key in 32-bit position-independent code: compile with "      \
				     "-fno-pie or gcc, or define XP_NO_PATCHING");                                     \
		false;                                                                                                 \
	})
#elif defined(__cplusplus)
#define XP__BRANCH(key, opcode, flags)                                                                                 \
	([]() __attribute__((always_inline)) -> bool {                                                                 \
		XP__BRANCH_ASM(key, opcode, flags);                                                                    \
		return false;                                                                                          \
	xp__jump:                                                                                                      \
		return true;                                                                                           \
	}())
#else
#define XP__BRANCH(key, opcode, flags)                                                                                 \
	__extension__({                                                                                                \
		__label__ xp__jump;                                                                                    \
		bool xp__jumped = false;                                                                               \
		XP__CONSTANT(key);                                                                                     \
		XP__BRANCH_ASM(key, opcode, flags);                                                                    \
		if (0) {                                                                                               \
		xp__jump:                                                                                              \
			xp__jumped = true;                                                                             \
		}                                                                                                      \
		xp__jumped;                                                                                            \
	})
#endif

#if defined(__x86_64__)
/*
 * The trampoline of a static call: 8-byte aligned, so that one store changes it. What follows the jmp is never executed;
 * ud2 marks it, and keeps processors from running ahead there. No endbr64: only direct calls come here.
 * Each has its section, which the linker may drop, and its record with it. `.ifndef`: several files of one LTO unit.
 * Bytes, not mnemonics: the file may be compiled with -masm=intel.
 * The jmp's load of the word: ordering: (C2) pairs with (C1)
 */
#define XP__TRAMPOLINE(trampoline, call) XP__TRAMPOLINE_ASM(#trampoline, #call, "ax", "", ".globl")
/* In every file that includes a header; the linker keeps one. */
#define XP__TRAMPOLINE_SHARED(trampoline, call)                                                                        \
	XP__TRAMPOLINE_ASM(#trampoline, #call, "axG", "," #trampoline ",comdat", ".weak")
/* Exported, and taken the address of: endbr64; jmp trampoline. */
#define XP__TRAMPOLINE_ENTRY(entry, trampoline) XP__TRAMPOLINE_ENTRY_ASM(#entry, #trampoline)
#define XP__TRAMPOLINE_ENTRY_ASM(entry, trampoline)                                                                    \
	__asm__(".pushsection .text." entry ",\"ax\",@progbits\n"                                                     \
		".balign 16\n"                                                                                         \
		".globl " entry "\n"                                                                                   \
		".type " entry ", @function\n" entry ":\n"                                                             \
		".cfi_startproc\n"                                                                                     \
		".byte 0xf3, 0x0f, 0x1e, 0xfa, 0xe9\n"                                                                 \
		".long " trampoline " - (. + 4)\n"                                                                     \
		".cfi_endproc\n"                                                                                       \
		".size " entry ", 9\n"                                                                                 \
		".popsection\n")
#define XP__TRAMPOLINE_ASM(trampoline, call, section_flags, group, binding)                                            \
	__asm__(XP__CALL_STUB                                                                                          \
		".ifndef " trampoline "\n"                                                                             \
		".pushsection .text." trampoline ",\"" section_flags "\",@progbits" group "\n"                         \
		".balign 8\n" binding " " trampoline "\n"                                                              \
		".hidden " trampoline "\n"                                                                             \
		".type " trampoline ", @function\n" trampoline ":\n"                                                   \
		".cfi_startproc\n"                                                                                     \
		".byte 0xff, 0x25\n"                                                                                   \
		".long " call " + " XP__STRING(XP__CALL_THROUGH) " - (. + 4)\n"                                        \
		".byte 0x0f, 0x0b\n"                                                                                   \
		".cfi_endproc\n"                                                                                       \
		".size " trampoline ", 8\n"                                                                            \
		".pushsection xp_call_sites,\"ao?\",@progbits," trampoline "\n"                                        \
		".balign 4\n"                                                                                          \
		".long " trampoline " - .\n"                                                                           \
		".long " call " + 2 - .\n"                                                                             \
		".popsection\n"                                                                                        \
		".popsection\n"                                                                                        \
		".endif\n")
#define XP__STRING(x) XP__STRING_OF(x)
#define XP__STRING_OF(x) #x

/* endbr64; xor %eax,%eax; xor %edx,%edx; pxor %xmm0,%xmm0; pxor %xmm1,%xmm1; ret. One in each executable or object. */
#if defined(__SSE2__)
#define XP__CALL_STUB_VECTORS ".byte 0x66, 0x0f, 0xef, 0xc0, 0x66, 0x0f, 0xef, 0xc9\n"
#else
#define XP__CALL_STUB_VECTORS /* a kernel's code does not touch them */
#endif
#define XP__CALL_STUB                                                                                                  \
	".ifndef xp__call_stub\n"                                                                                      \
	".pushsection .text.xp__call_stub,\"axG\",@progbits,xp__call_stub,comdat\n"                                    \
	".balign 16\n"                                                                                                 \
	".weak xp__call_stub\n"                                                                                        \
	".hidden xp__call_stub\n"                                                                                      \
	".type xp__call_stub, @function\n"                                                                             \
	"xp__call_stub:\n"                                                                                             \
	".cfi_startproc\n"                                                                                             \
	".byte 0xf3, 0x0f, 0x1e, 0xfa, 0x31, 0xc0, 0x31, 0xd2\n" XP__CALL_STUB_VECTORS                                 \
	".byte 0xc3\n"                                                                                                 \
	".cfi_endproc\n"                                                                                               \
	".size xp__call_stub, . - xp__call_stub\n"                                                                     \
	".popsection\n"                                                                                                \
	".endif\n"

#endif

#endif
