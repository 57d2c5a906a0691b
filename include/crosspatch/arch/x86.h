/* SPDX-License-Identifier: MIT */
/* Registers, and the instructions that sites are made of, on x86, 64 and 32 bits. */
#ifndef XP_ARCH_X86_H
#define XP_ARCH_X86_H

#ifndef XP_ARCH_H
#error "do not include <crosspatch/arch/x86.h>; include <crosspatch/arch.h>"
#endif

/*
 * Integer registers of an interrupted bystander, in the order of their encoding (rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi,
 * r8…). One of 32-bit code has the first eight; its values are zero-extended, going in and coming out.
 */
struct xp_regs {
	uint64_t gpr[16];
	uint64_t ip;
	uint64_t flags;
	uint32_t cs;    /* where code is not flat: the selector, whose offset ip is; a call may change it. Else 0 */
	uint32_t error; /* xp_trap_fault(): the error code that the processor pushed */
};

#if defined(__clang__) && !defined(XP_NO_PATCHING)
#if __has_feature(hwaddress_sanitizer)
#error "crosspatch: no site can name an object whose address is tagged; compile without -fsanitize=hwaddress, or define XP_NO_PATCHING"
#endif
#endif

/*
 * How an asm names the address of a key, and prints it bare. In 32-bit position-independent code an address is no
 * constant to the compiler: it wants the register of the global offset table added. Nor is one to GCC under -mcmodel=large.
 * A record holds the distance from itself and needs no register, so there the operand is one that GCC does not judge
 * ("X"), printed as it is (%p). That the key is a constant address, which "i" asks, an initialiser then asks. Clang has no
 * such operand.
 */
#if (defined(__i386__) && defined(__PIC__)) || (defined(__code_model_large__) && !defined(__clang__))
#define XP__ADDRESS "X"
#define XP__CONSTANT(key) static const void *const xp__constant __attribute__((unused)) = (key)
#define XP__PRINT_ADDRESS(operand) "%p[" #operand "]"
#else
#define XP__ADDRESS "i"
#define XP__CONSTANT(key) (void)0
#define XP__PRINT_ADDRESS(operand) "%c[" #operand "]"
#endif

/*
 * The text of a site refers to its object, by a relocation that changes nothing. A linker that folds identical functions
 * (--icf) compares relocations: functions that differ only in their keys would else become one, and a key would switch the
 * site of another. Linkers want something behind it: the bytes of the site.
 */
#ifdef __x86_64__
#define XP__RELOC_NONE "R_X86_64_NONE"
#else
#define XP__RELOC_NONE "R_386_NONE"
#endif
#define XP__REFERS(label, object) ".reloc " label ", " XP__RELOC_NONE ", " object "\n\t"

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
#define XP__BRANCH_SITE(target)                                                                                        \
	".Lxp_site%=:\n\t" XP__REFERS(".Lxp_site%=", XP__PRINT_ADDRESS(xp__key))                                       \
	".byte %c[xp__opcode]\n\t"                                                                                     \
	".long " target " - (. + 4)\n\t"                                                                               \
	".pushsection " XP__BRANCH_SITES ",\"ao?\",@progbits,.Lxp_site%=\n\t"                                          \
	XP__BRANCH_RECORD(".Lxp_site%=", target, XP__PRINT_ADDRESS(xp__key) " + %c[xp__flags]")                        \
	".popsection\n\t"
#define XP__BRANCH_INPUTS(key, opcode, flags)                                                                          \
	[xp__key] XP__ADDRESS(key), [xp__opcode] "i"(opcode), [xp__flags] "i"(flags)

#define XP__BRANCH_ASM(key, opcode, flags)                                                                             \
	__asm__ goto(XP__BRANCH_SITE("%l[xp__jump]") /* the key has static storage, and is named, not pointed to */    \
		     :                                                                                                 \
		     : XP__BRANCH_INPUTS(key, opcode, flags) /* static storage */                                      \
		     : "cc"                                                                                            \
		     : xp__jump)

#define XP__OPCODE_TEST 0xa9
#define XP__OPCODE_JMP 0xe9

/*
 * The label that a site jumps to stands before code that is seldom executed. GCC takes an asm goto for an even choice
 * otherwise, and lays the code behind the sites of a function out in descending order, against the prefetchers. Clang does
 * neither, and knows no such labels.
 */
#if defined(__clang__)
#define XP__COLD_LABEL
#else
#define XP__COLD_LABEL __attribute__((cold));
#endif

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
	([]() __attribute__((always_inline)) -> bool { /* a key of static storage needs no capture */                  \
		XP__BRANCH_ASM(key, opcode, flags); /* static storage */                                               \
		return false;                                                                                          \
	xp__jump:                                                                                                      \
		XP__COLD_LABEL return true;                                                                            \
	}())
#elif defined(XP_NO_ASM_GOTO)
/* mov $1, %eax; the site, which jumps to the end; xor %eax, %eax. */
#define XP__BRANCH(key, opcode, flags)                                                                                 \
	__extension__({                                                                                                \
		uint32_t xp__jumped;                                                                                   \
		XP__CONSTANT(key);                                                                                     \
		__asm__ __volatile__(".byte 0xb8, 1, 0, 0, 0\n" XP__BRANCH_SITE(".Lxp_jump%=")                         \
				     ".byte 0x31, 0xc0\n"                                                              \
				     ".Lxp_jump%=:"                                                                    \
				     : "=a"(xp__jumped)                                                                \
				     : XP__BRANCH_INPUTS(key, opcode, flags)                                           \
				     : "cc");                                                                          \
		xp__jumped != 0;                                                                                       \
	})
#else
#define XP__BRANCH(key, opcode, flags)                                                                                 \
	__extension__({                                                                                                \
		__label__ xp__jump;                                                                                    \
		bool xp__jumped = false;                                                                               \
		XP__CONSTANT(key);                                                                                     \
		XP__BRANCH_ASM(key, opcode, flags); /* in clang before 17: see XP_NO_ASM_GOTO, static_key.h */         \
		if (0) {                                                                                               \
		xp__jump:                                                                                              \
			XP__COLD_LABEL xp__jumped = true;                                                              \
		}                                                                                                      \
		xp__jumped;                                                                                            \
	})
#endif

/*
 * The trampoline of a static call: 8-byte aligned, so that one store changes it. The bytes behind the jmp are never executed;
 * ud2 marks it, and keeps processors from running ahead there. No endbr64: only direct calls come here.
 * Each has its section, which the linker may drop, and its record with it. `.ifndef`: several files of one LTO unit.
 * Bytes, not mnemonics: the file may be compiled with -masm=intel.
 * The load of the word: ordering: (C2) pairs with (C1)
 * In 32-bit code a jmp to the code behind it, until the module is registered: push the word and return to it. All
 * registers stay: regparm functions have arguments in them.
 *
 *	push %eax; push %eax; call .+5; pop %eax; mov through - here(%eax), %eax; mov %eax, 4(%esp); pop %eax; ret
 */
#if defined(__x86_64__)
#define XP__TRAMPOLINE_CODE(call)                                                                                      \
	".byte 0xff, 0x25\n"                                                                                           \
	".long " call " + " XP__STRING(XP__CALL_SLOT) " - (. + 4)\n"                                                \
	".byte 0x0f, 0x0b\n"
#define XP__TRAMPOLINE_ENDBR "0xfa" /* endbr64 */
#else
#define XP__TRAMPOLINE_CODE(call)                                                                                      \
	".byte 0xe9, 3, 0, 0, 0, 0x90, 0x0f, 0x0b\n"                                                                   \
	".byte 0x50\n"                                                                                                 \
	".cfi_adjust_cfa_offset 4\n"                                                                                   \
	".byte 0x50\n"                                                                                                 \
	".cfi_adjust_cfa_offset 4\n"                                                                                   \
	".byte 0xe8, 0, 0, 0, 0\n"                                                                                     \
	".cfi_adjust_cfa_offset 4\n"                                                                                   \
	".byte 0x58\n"                                                                                                 \
	".cfi_adjust_cfa_offset -4\n"                                                                                  \
	".byte 0x8b, 0x80\n"                                                                                           \
	".long " call " + " XP__STRING(XP__CALL_SLOT) " - (. - 3)\n"                                                \
	".byte 0x89, 0x44, 0x24, 4\n"                                                                                  \
	".byte 0x58\n"                                                                                                 \
	".cfi_adjust_cfa_offset -4\n"                                                                                  \
	".byte 0xc3\n"
#define XP__TRAMPOLINE_ENDBR "0xfb" /* endbr32 */
#endif
#define XP__TRAMPOLINE(trampoline, call) XP__TRAMPOLINE_ASM(#trampoline, #call, "ax", "", ".globl")
/* In every file that includes a header; the linker keeps one. */
#define XP__TRAMPOLINE_SHARED(trampoline, call)                                                                        \
	XP__TRAMPOLINE_ASM(#trampoline, #call, "axG", "," #trampoline ",comdat", ".weak")
/* Exported, and taken the address of: endbr; jmp trampoline. */
#define XP__TRAMPOLINE_ENTRY(entry, trampoline) XP__TRAMPOLINE_ENTRY_ASM(#entry, #trampoline)
#define XP__TRAMPOLINE_ENTRY_ASM(entry, trampoline)                                                                    \
	__asm__(".pushsection .text." entry ",\"ax\",@progbits\n"                                                     \
		".balign 16\n"                                                                                         \
		".globl " entry "\n"                                                                                   \
		".type " entry ", @function\n" entry ":\n"                                                             \
		".cfi_startproc\n"                                                                                     \
		".byte 0xf3, 0x0f, 0x1e, " XP__TRAMPOLINE_ENDBR ", 0xe9\n"                                             \
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
		".cfi_startproc\n" XP__TRAMPOLINE_CODE(call) ".cfi_endproc\n"                                         \
		".size " trampoline ", . - " trampoline "\n"                                                           \
		".pushsection " XP__CALL_SITES ",\"ao?\",@progbits," trampoline "\n"                                   \
		XP__CALL_RECORD(trampoline, call " + " XP__TEXT(XP_SITE_TRAMPOLINE))                                   \
		".popsection\n"                                                                                        \
		".popsection\n"                                                                                        \
		".endif\n")
#if defined(__x86_64__)
/* Where the word of a lazy call leads at first: lea call(%rip), %r11; jmp *discoverer(%rip). */
#define XP__CALL_DISCOVERER 104
#define XP__CALL_LAZY(stub, call) XP__CALL_LAZY_ASM(#stub, #call)
#define XP__CALL_LAZY_ASM(stub, call)                                                                                  \
	__asm__(".ifndef " stub "\n"                                                                                   \
		".pushsection .text." stub ",\"ax\",@progbits\n"                                                      \
		".balign 16\n"                                                                                         \
		".globl " stub "\n"                                                                                    \
		".hidden " stub "\n"                                                                                   \
		".type " stub ", @function\n" stub ":\n"                                                              \
		".cfi_startproc\n"                                                                                    \
		".byte 0xf3, 0x0f, 0x1e, 0xfa, 0x4c, 0x8d, 0x1d\n"                                                     \
		".long " call " - (. + 4)\n"                                                                          \
		".byte 0xff, 0x25\n"                                                                                  \
		".long " call " + " XP__STRING(XP__CALL_DISCOVERER) " - (. + 4)\n"                                     \
		".cfi_endproc\n"                                                                                      \
		".size " stub ", . - " stub "\n"                                                                       \
		".popsection\n"                                                                                       \
		".endif\n")
#else
/* The function that returns 0 returns an integer: a structure would be stored through an argument that was not passed. */
#define XP__RETURNS_IN_MEMORY
#endif
#define XP__STRING(x) XP__STRING_OF(x)
#define XP__STRING_OF(x) #x

/*
 * endbr; xor %eax,%eax; xor %edx,%edx; pxor %xmm0,%xmm0; pxor %xmm1,%xmm1; ret. One in each executable or object. In
 * 32-bit code without the vectors, where no value comes back in them.
 */
#if defined(__SSE2__) && defined(__x86_64__)
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
	".byte 0xf3, 0x0f, 0x1e, " XP__TRAMPOLINE_ENDBR ", 0x31, 0xc0, 0x31, 0xd2\n" XP__CALL_STUB_VECTORS             \
	".byte 0xc3\n"                                                                                                 \
	".cfi_endproc\n"                                                                                               \
	".size xp__call_stub, . - xp__call_stub\n"                                                                     \
	".popsection\n"                                                                                                \
	".endif\n"

/*
 * A switch site is a jmp rel32 whose displacement lies inside one aligned quadword. Beside the record stands the array
 * of its targets: a word that says how many there are (XP_SWITCH_PART), a distance for each, that word's complement.
 * To the compiler each choice is a label of the asm; behind the label stands the number of the choice, from where it
 * threads the jump into the user's own switch. The text refers to the array, too (XP__REFERS): functions whose blocks are the
 * same and go with other choices would else be folded. An asm goto of GCC's has room for 30 operands and labels: there the
 * labels come in groups of 24, each an asm of its own with a part of the array. The first holds the jmp; the others, to
 * which it would fall through if it ever did, an UD1 whose operand is the part: so the parts are found through the text,
 * wherever the compiler puts them, and however many copies of them it makes.
 * That holds as long as there is nothing but jumps and padding between the asms. The compiler may put code of its own there
 * (what all of a group's blocks begin with, moves of registers, a counter of -fprofile-arcs), which a jump from the first
 * asm to a block of a later one would leave out. So the first has one more label, whose distance stands behind its part of
 * the array: there the choice is loaded. A site with code between goes there for the choices that it cannot jump to.
 * Choice 0 stands first in each of these asms: GCC makes an edge of the first label of each, where its forward threader
 * does not look; so all of them lead to the same block.
 */
#define XP__23(M, g)                                                                                                   \
	M(g, 1) M(g, 2) M(g, 3) M(g, 4) M(g, 5) M(g, 6) M(g, 7) M(g, 8) M(g, 9) M(g, 10) M(g, 11) M(g, 12)             \
	M(g, 13) M(g, 14) M(g, 15) M(g, 16) M(g, 17) M(g, 18) M(g, 19) M(g, 20) M(g, 21) M(g, 22) M(g, 23)
#define XP__24(M, g) M(g, 0) XP__23(M, g)
#define XP__GROUPS_FROM_1(M) M(1) M(2) M(3) M(4) M(5) M(6) M(7) M(8) M(9) M(10)
#define XP__GROUPS(M) M(0) XP__GROUPS_FROM_1(M)

#define XP__SWITCH_ENTRY(g, j)                                                                                         \
	".if %c[xp__nr] > 24 * " #g " + " #j "\n\t"                                                                    \
	".long %l[xp__l" #g "_" #j "] - .\n\t"                                                                         \
	".endif\n\t"
#define XP__SWITCH_ENTRIES(g) XP__24(XP__SWITCH_ENTRY, g)
#define XP__SWITCH_OPERAND(g, j) , xp__l##g##_##j
#define XP__SWITCH_OPERANDS(g) XP__24(XP__SWITCH_OPERAND, g)
#define XP__SWITCH_OPERANDS_FIRST xp__l0_0 XP__23(XP__SWITCH_OPERAND, 0)

#define XP__SWITCH_SITE                                                                                                \
	".p2align 3,,4\n"                                                                                              \
	".Lxp_switch%=:\n\t" XP__REFERS(".Lxp_switch%=", XP__PRINT_ADDRESS(xp__key))                                   \
	XP__REFERS(".Lxp_switch%=", ".Lxp_targets%=")                                                                  \
	".byte 0xe9\n\t"                                                                                               \
	".long %l[xp__l0_0] - (. + 4)\n\t"                                                                             \
	".pushsection " XP__SWITCH_SITES ",\"ao?\",@progbits,.Lxp_switch%=\n\t"                                        \
	XP__SWITCH_RECORD(".Lxp_switch%=", XP__PRINT_ADDRESS(xp__key), ".Lxp_targets%=")                               \
	".popsection\n\t"
#define XP__SWITCH_BEHIND                                                                                              \
	".Lxp_switch%=:\n\t"                                                                                           \
	".byte 0x0f, 0xb9, 0x05\n\t"                                                                                   \
	".long .Lxp_targets%= - (. + 4)\n\t"
#define XP__SWITCH_TARGETS(entries, behind)                                                                            \
	".pushsection xp_switch_targets,\"ao?\",@progbits,.Lxp_switch%=\n\t"                                           \
	".balign 4\n\t"                                                                                                \
	".long %c[xp__part]\n"                                                                                         \
	".Lxp_targets%=:\n\t" entries ".long ~%c[xp__part]\n\t" behind                                                 \
	".popsection\n\t"
#define XP__SWITCH_INPUTS(key, part)                                                                                   \
	[xp__key] XP__ADDRESS(key) /* static storage */, [xp__nr] "i"(xp__nr), [xp__part] "i"(part)

#ifdef __clang__
/* Clang has room for any number of labels. At -O0 it emits the asm that is not chosen, too: .if keeps that one empty. */
#define XP__SWITCH_ONE(condition, key, entries, operands)                                                              \
	__asm__ __inline__ goto(".if %c[xp__nr] " condition "\n\t" XP__SWITCH_SITE XP__SWITCH_TARGETS(entries, "")     \
				".endif"                                                                               \
				:                                                                                      \
				: XP__SWITCH_INPUTS(key, XP_SWITCH_PART(xp__nr, 0, xp__nr))                            \
				:                                                                                      \
				: operands)
#define XP__SWITCH_ASM(key)                                                                                            \
	if (xp__nr <= 24)                                                                                              \
		XP__SWITCH_ONE("<= 24", key, XP__SWITCH_ENTRIES(0), XP__SWITCH_OPERANDS_FIRST);                        \
	else                                                                                                           \
		XP__SWITCH_ONE("> 24", key, XP__GROUPS(XP__SWITCH_ENTRIES),                                            \
			       XP__SWITCH_OPERANDS_FIRST XP__GROUPS_FROM_1(XP__SWITCH_OPERANDS));
#define XP__SWITCH_LOAD(key)
#define XP__SWITCH_LOAD_LABEL
#else
#define XP__SWITCH_INPUTS_OF(key, g)                                                                                   \
	XP__SWITCH_INPUTS(key, XP_SWITCH_PART(xp__nr, 24 * g, xp__nr > 24 * g + 24 ? 24 : xp__nr - 24 * g))
#define XP__SWITCH_FIRST(key, behind, ...)                                                                             \
	__asm__ __inline__ goto(XP__SWITCH_SITE XP__SWITCH_TARGETS(XP__SWITCH_ENTRIES(0), behind)                      \
				:                                                                                      \
				: XP__SWITCH_INPUTS_OF(key, 0)                                                         \
				:                                                                                      \
				: __VA_ARGS__);
#define XP__SWITCH_NEXT(key, g)                                                                                        \
	if (xp__nr > 24 * g)                                                                                           \
		__asm__ __inline__ goto(XP__SWITCH_BEHIND XP__SWITCH_TARGETS(XP__SWITCH_ENTRIES(g), "")                \
					:                                                                              \
					: XP__SWITCH_INPUTS_OF(key, g)                                                 \
					:                                                                              \
					: xp__l0_0 XP__SWITCH_OPERANDS(g));
#define XP__SWITCH_ASM(key)                                                                                            \
	if (xp__nr <= 24)                                                                                              \
		XP__SWITCH_FIRST(key, "", XP__SWITCH_OPERANDS_FIRST)                                                   \
	else                                                                                                           \
		XP__SWITCH_FIRST(key, ".long %l[xp__load] - .\n\t", XP__SWITCH_OPERANDS_FIRST, xp__load)               \
	XP__SWITCH_NEXT(key, 1)                                                                                        \
	XP__SWITCH_NEXT(key, 2)                                                                                        \
	XP__SWITCH_NEXT(key, 3)                                                                                        \
	XP__SWITCH_NEXT(key, 4)                                                                                        \
	XP__SWITCH_NEXT(key, 5)                                                                                        \
	XP__SWITCH_NEXT(key, 6)                                                                                        \
	XP__SWITCH_NEXT(key, 7)                                                                                        \
	XP__SWITCH_NEXT(key, 8)                                                                                        \
	XP__SWITCH_NEXT(key, 9)                                                                                        \
	XP__SWITCH_NEXT(key, 10)
#define XP__SWITCH_LOAD(key)                                                                                           \
	xp__load : xp__choice = xp__static_switch_choice(key);                                                         \
	if (xp__nr <= 24 || (unsigned)xp__choice >= (unsigned)xp__nr)                                                  \
		__builtin_unreachable();                                                                               \
	goto xp__chosen;
#define XP__SWITCH_LOAD_LABEL __label__ xp__load;
#endif

/* XP__SWITCH - the number of the choice, an int. In C++ a lambda, for the reason given at XP__BRANCH. */
#define XP__SWITCH_CHOICE(g, j)                                                                                        \
	xp__l##g##_##j : xp__choice = 24 * g + j < xp__nr ? 24 * g + j : 0;                                            \
	goto xp__chosen;
#define XP__SWITCH_CHOICES(g) XP__24(XP__SWITCH_CHOICE, g)
#define XP__SWITCH_BODY(key, nr)                                                                                   \
	enum { xp__nr = nr };                                                                                          \
	int xp__choice;                                                                                                \
	XP__SWITCH_ASM(key) /* of static storage; in clang before 17: see XP_NO_ASM_GOTO, static_key.h */              \
	__builtin_unreachable();                                                                                       \
	XP__SWITCH_LOAD(key)                                                                                           \
	XP__GROUPS(XP__SWITCH_CHOICES)                                                                                 \
xp__chosen:

#if defined(__i386__) && defined(__PIC__) && defined(__clang__)
#define XP__SWITCH(key, nr) XP__BRANCH(key, 0, 0)
#elif defined(__cplusplus)
#define XP__SWITCH(key, nr)                                                                                        \
	([]() __attribute__((always_inline)) -> int { /* a switch of static storage needs no capture */                \
		XP__SWITCH_BODY(key, nr)                                                                           \
		return xp__choice;                                                                                     \
	}())
#else
#define XP__SWITCH_LABEL(g, j) __label__ xp__l##g##_##j;
#define XP__SWITCH_LABELS(g) XP__24(XP__SWITCH_LABEL, g)
#define XP__SWITCH(key, nr)                                                                                        \
	__extension__({                                                                                                \
		XP__GROUPS(XP__SWITCH_LABELS)                                                                          \
		XP__SWITCH_LOAD_LABEL                                                                                  \
		__label__ xp__chosen;                                                                                  \
		XP__CONSTANT(key);                                                                                     \
		XP__SWITCH_BODY(key, nr)                                                                           \
		xp__choice;                                                                                            \
	})
#endif

/*
 * An immediate site is mov $0, %reg, with the compiler's choice of register:
 *
 *	bytes  instruction                length  operand at  in one aligned quadword if the instruction is at
 *	1      [REX] B0+r imm8            2, 3    1, 2        anywhere
 *	2      66 [REX] B8+r imm16        4, 5    2, 3        8n … 8n+3
 *	4      [REX] B8+r imm32           5, 6    1, 2        8n … 8n+2
 *	8      REX.W B8+r imm64           10      2           8n+6
 *
 * Whether there is a REX prefix the author of the asm does not know; the third column is right for both. So the
 * instruction need not be measured beforehand, as it was where this comes from: .p2align 3,,n goes on to the next 8n if
 * that is at most n bytes away. Assemblers cannot be asked for 8n+6: 8n, and a nop of six bytes.
 * volatile: each evaluation reads. inline, for the optimizer: the asm is one instruction, however long its text.
 * The record: as XP__BRANCH_SITE's.
 */
#define XP__IMV_SITE                                                                                                   \
	".if %c[xp__size] == 2\n\t"                                                                                    \
	".p2align 3,,4\n\t"                                                                                            \
	".elseif %c[xp__size] == 4\n\t"                                                                                \
	".p2align 3,,5\n\t"                                                                                            \
	".elseif %c[xp__size] == 8\n\t"                                                                                \
	".p2align 3\n\t"                                                                                               \
	".byte 0x66, 0x0f, 0x1f, 0x44, 0, 0\n\t"                                                                       \
	".endif\n" XP__IMV_INSN

/* The number of the register that the compiler chose, which it tells by name only: with % or, under -masm=intel, without. */
#ifdef __x86_64__
#define XP__IMV_REGISTERS "eax,ecx,edx,ebx,esp,ebp,esi,edi,r8d,r9d,r10d,r11d,r12d,r13d,r14d,r15d"
#else
#define XP__IMV_REGISTERS "eax,ecx,edx,ebx,esp,ebp,esi,edi"
#endif
#define XP__IMV_NUMBER                                                                                                 \
	".set .Lxp_register, -1\n\t"                                                                                   \
	".set .Lxp_number, 0\n\t"                                                                                      \
	".irp xp__name," XP__IMV_REGISTERS "\n\t"                                                                      \
	".ifc %k[xp__bits],%%\\xp__name\n\t"                                                                           \
	".set .Lxp_register, .Lxp_number\n\t"                                                                          \
	".endif\n\t"                                                                                                   \
	".ifc %k[xp__bits],\\xp__name\n\t"                                                                             \
	".set .Lxp_register, .Lxp_number\n\t"                                                                          \
	".endif\n\t"                                                                                                   \
	".set .Lxp_number, .Lxp_number + 1\n\t"                                                                        \
	".endr\n\t"                                                                                                    \
	".if .Lxp_register < 0\n\t"                                                                                    \
	".error \"crosspatch: no mov is known to the register of an immediate value\"\n\t"                             \
	".endif\n\t"

/* Bytes, not a mov: assemblers put prefixes before instructions when they keep branches off the boundaries of 32 bytes. */
#define XP__IMV_INSN                                                                                                   \
	XP__IMV_NUMBER                                                                                                 \
	".Lxp_imv%=:\n\t" XP__REFERS(".Lxp_imv%=", XP__PRINT_ADDRESS(xp__imv))                                         \
	".if %c[xp__size] == 2\n\t"                                                                                    \
	".byte 0x66\n\t"                                                                                               \
	".endif\n\t"                                                                                                   \
	".if %c[xp__size] == 8\n\t"                                                                                    \
	".byte 0x48 + (.Lxp_register >> 3)\n\t"                                                                        \
	".elseif .Lxp_register >= 8\n\t"                                                                               \
	".byte 0x41\n\t"                                                                                               \
	".elseif %c[xp__size] == 1 && .Lxp_register >= 4\n\t"                                                          \
	".byte 0x40\n\t"                                                                                               \
	".endif\n\t"                                                                                                   \
	".if %c[xp__size] == 1\n\t"                                                                                    \
	".byte 0xb0 + (.Lxp_register & 7), 0\n\t"                                                                      \
	".elseif %c[xp__size] == 2\n\t"                                                                                \
	".byte 0xb8 + (.Lxp_register & 7), 0, 0\n\t"                                                                   \
	".elseif %c[xp__size] == 4\n\t"                                                                                \
	".byte 0xb8 + (.Lxp_register & 7), 0, 0, 0, 0\n\t"                                                             \
	".elseif %c[xp__size] == 8\n\t"                                                                                \
	".byte 0xb8 + (.Lxp_register & 7), 0, 0, 0, 0, 0, 0, 0, 0\n\t"                                                 \
	".else\n\t"                                                                                                    \
	".error \"an immediate value has 1, 2, 4 or 8 bytes\"\n\t"                                                     \
	".endif\n"                                                                                                     \
	".Lxp_imv_end%=:\n\t"                                                                                          \
	".pushsection " XP__IMV_SITES ",\"ao?\",@progbits,.Lxp_imv%=\n\t"                                              \
	XP__IMV_RECORD(".Lxp_imv%=", XP__PRINT_ADDRESS(xp__imv), ".Lxp_imv_end%= - .Lxp_imv%=", "%c[xp__size]")        \
	".popsection"

/* "q": a register whose low byte is one. */
#if defined(__i386__) && defined(__PIC__) && defined(__clang__)
#define XP__IMV_ASM(bits, imv, size)                                                                                   \
	XP__IMV_ASSERT(0, "crosspatch: clang names no value in 32-bit position-independent code: compile with "        \
			  "-fno-pie or gcc, or define XP_NO_PATCHING")
#else
#define XP__IMV_ASM(bits, imv, size)                                                                                   \
	__asm__ __volatile__ __inline__(XP__IMV_SITE /* the value has static storage, and is named */                  \
					: [xp__bits] "=q"(bits)                                                        \
					: [xp__imv] XP__ADDRESS(imv), [xp__size] "i"(size))
#endif

/*
 * The stub of a gate, and its record. In every file that declares the gate: the linker keeps one. `.ifndef`: several files
 * of one LTO unit. Bytes, not mnemonics: the file may be compiled with -masm=intel. The load of the word:
 * ordering: (G2) pairs with (G1)
 * In 32-bit code no register is free (regparm functions have arguments in them), and the word is pushed and returned to;
 * `slot` may lead to the 17 bytes in front of the stub, which ask the resolver: see thunk.h.
 */
#define XP__GATE_STUB(stub, gate) XP__GATE_STUB_ASM(#stub, #gate, "", "")
/* The same behind an UD2 that becomes a jmp behind itself. Padding, as .balign 16 has seen to: cut at no quadword. */
#define XP__GATE_STUB_UD2(stub, gate)                                                                                  \
	XP__GATE_STUB_ASM(#stub, #gate, ".byte 0x0f, 0x0b, 0x2e, 0xe9, 0, 0, 0, 0\n",                                  \
			  XP__GATE_RECORD(#stub, #gate " + " XP__TEXT(XP_SITE_UD2)))
#if defined(__x86_64__)
#define XP__GATE_SLOT 48
#define XP__GATE_STUB_ASKS(gate)
#define XP__GATE_STUB_CODE(gate)                                                                                       \
	".byte 0x4c, 0x8d, 0x1d\n"                                                                                     \
	".long " gate " - (. + 4)\n"                                                                                   \
	".byte 0xff, 0x25\n"                                                                                           \
	".long " gate " + 48 - (. + 4)\n"
#else
#define XP__GATE_SLOT 28
#define XP__GATE_RESOLVER 52
/* push %eax; push %eax; call .+5; pop %eax: two words more on the stack, and here in eax. */
#define XP__GATE_STUB_HERE                                                                                             \
	".byte 0x50\n"                                                                                                 \
	".cfi_adjust_cfa_offset 4\n"                                                                                   \
	".byte 0x50\n"                                                                                                 \
	".cfi_adjust_cfa_offset 4\n"                                                                                   \
	".byte 0xe8, 0, 0, 0, 0\n"                                                                                     \
	".cfi_adjust_cfa_offset 4\n"                                                                                   \
	".byte 0x58\n"                                                                                                 \
	".cfi_adjust_cfa_offset -4\n"
/* lea gate - here(%eax), %eax; jmp *resolver(%eax) */
#define XP__GATE_STUB_ASKS(gate)                                                                                       \
	".skip 15\n"                                                                                                   \
	".cfi_startproc\n" XP__GATE_STUB_HERE ".byte 0x8d, 0x80\n"                                                    \
	".long " gate " - (. - 3)\n"                                                                                   \
	".byte 0xff, 0x60, 52\n"                                                                                       \
	".cfi_endproc\n"
/* mov through - here(%eax), %eax; mov %eax, 4(%esp); pop %eax; ret */
#define XP__GATE_STUB_CODE(gate)                                                                                       \
	XP__GATE_STUB_HERE                                                                                             \
	".byte 0x8b, 0x80\n"                                                                                           \
	".long " gate " + 28 - (. - 3)\n"                                                                              \
	".byte 0x89, 0x44, 0x24, 4\n"                                                                                  \
	".byte 0x58\n"                                                                                                 \
	".cfi_adjust_cfa_offset -4\n"                                                                                  \
	".byte 0xc3\n"
#endif
#define XP__GATE_STUB_ASM(stub, gate, ud2, record)                                                                     \
	__asm__(".ifndef " stub "\n"                                                                                   \
		".pushsection .text." stub ",\"axG\",@progbits," stub ",comdat\n"                                       \
		".balign 16\n"                                                                                         \
		XP__GATE_STUB_ASKS(gate)                                                                               \
		".weak " stub "\n"                                                                                     \
		".hidden " stub "\n"                                                                                   \
		".type " stub ", @function\n" stub ":\n"                                                               \
		".cfi_startproc\n" ud2 XP__GATE_STUB_CODE(gate) ".cfi_endproc\n"                                       \
		".size " stub ", . - " stub "\n"                                                                       \
		".pushsection " XP__GATE_SITES ",\"ao?\",@progbits," stub "\n"                                         \
		XP__GATE_RECORD(stub, gate " + " XP__TEXT(XP_SITE_STUB)) record                                        \
		".popsection\n"                                                                                        \
		".popsection\n"                                                                                        \
		".endif\n")

/*
 * Where the call at a traced function's entry goes, in each executable or shared object: through the global offset table to
 * the library. The address of the entry is on the stack. Bytes: as above.
 * Nothing refers to it, and --gc-sections would drop it: so a constructor stands behind it, which returns at once.
 * In 64-bit code only, as tracing is.
 */
#ifdef __x86_64__
#define XP__FUNCTION_STUB()                                                                                            \
	__asm__(".ifndef xp__function_stub\n"                                                                          \
		".pushsection .text.xp__function_stub,\"axG\",@progbits,xp__function_stub,comdat\n"                    \
		".balign 8\n"                                                                                          \
		".weak xp__function_stub\n"                                                                            \
		".hidden xp__function_stub\n"                                                                          \
		".type xp__function_stub, @function\n"                                                                 \
		"xp__function_stub:\n"                                                                                 \
		".cfi_startproc\n"                                                                                     \
		".byte 0xff, 0x25\n"                                                                                   \
		".long xp__function_entered@GOTPCREL - 4\n"                                                            \
		".byte 0xf3, 0x0f, 0x1e, " XP__TRAMPOLINE_ENDBR ", 0xc3\n"                                             \
		".cfi_endproc\n"                                                                                       \
		".size xp__function_stub, . - xp__function_stub\n"                                                     \
		".pushsection " XP__ENTRY_SITES ",\"ao?\",@progbits,xp__function_stub\n"                               \
		XP__ENTRY_RECORD("xp__function_stub", ".", XP__TEXT(XP_SITE_ENTRY_STUB))                               \
		".popsection\n"                                                                                        \
		".pushsection .init_array,\"aw?\",@init_array\n"                                                        \
		".balign 8\n"                                                                                          \
		".quad xp__function_stub + 6\n"                                                                        \
		".popsection\n"                                                                                        \
		".popsection\n"                                                                                        \
		".endif\n")
#else
#define XP__FAR_SEGMENTS /* segments may hold sites: gate_far.h */
#endif

#endif
