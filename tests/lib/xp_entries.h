/* SPDX-License-Identifier: MIT */
/* Functions with entries and records, where no plugin made them: a nop, and a jump to the function itself. */
#ifndef XP_ENTRIES_H
#define XP_ENTRIES_H

#include <crosspatch/function.h>

/* The record of the function @name; @before: directives for what stands before the nop. */
#define XP_ENTRY_RECORD(name)                                                                                          \
	".pushsection xp_entry_sites,\"ao?\",@progbits," #name "\n"                                                    \
	".balign 4\n"                                                                                                  \
	".long .Lentry_" #name " - .\n"                                                                                \
	".long .Lname_" #name " - .\n"                                                                                 \
	".long ((.Lend_" #name " - " #name ") << 8) + ((.Lentry_" #name " - " #name ") << 4)\n"                        \
	".popsection\n"                                                                                                \
	".pushsection xp_entry_names,\"aMS\",@progbits,1\n"                                                            \
	".Lname_" #name ": .asciz \"" #name "\"\n"                                                                     \
	".popsection\n"

/*
 * Defines the function @name, declared before, which goes on to @name_body. 3 bytes of nop before the entry: it lies in one
 * quadword.
 */
#define XP_ENTRY(name)                                                                                                 \
	__asm__(".pushsection .text\n"                                                                                 \
		".balign 16\n"                                                                                         \
		".globl " #name "\n"                                                                                   \
		".type " #name ", @function\n"                                                                         \
		#name ":\n"                                                                                            \
		".cfi_startproc\n"                                                                                     \
		".byte 0x0f, 0x1f, 0x00\n"                                                                             \
		".Lentry_" #name ":\n"                                                                                 \
		".byte 0x0f, 0x1f, 0x44, 0, 0\n"                                                                       \
		"jmp " #name "_body\n"                                                                                 \
		".Lend_" #name ":\n"                                                                                   \
		".cfi_endproc\n"                                                                                       \
		".size " #name ", . - " #name "\n" XP_ENTRY_RECORD(name)                                               \
		".popsection")

#endif
