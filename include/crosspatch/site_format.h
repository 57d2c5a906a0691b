/* SPDX-License-Identifier: MIT */
/*
 * The records of sites, said once: as C reads them, and as assembly writes them (the macros of the other headers, the
 * compiler plugin, `crosspatch annotate`). Of interest to porters and to code generators. Freestanding.
 *
 * Beside each structure stand the section that its records are in, and a macro, XP__CALL_RECORD and the like, whose arguments are text: what
 * assembly writes there, where each field but numbers is the distance of an address from the field. Flags are numbers
 * that XP__TEXT() makes text of, to be added to the address.
 */
#ifndef XP_SITE_FORMAT_H
#define XP_SITE_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#define XP__TEXT(number) XP__TEXT_OF(number)
#define XP__TEXT_OF(number) #number

#ifdef __cplusplus
#define XP__FORMAT_ASSERT(holds, why) static_assert(holds, why)
#else
#define XP__FORMAT_ASSERT(holds, why) _Static_assert(holds, why)
#endif

/*
 * A branch site: 12 bytes in section xp_branch_sites, all fields relative to their own address so that a shared
 * object needs no relocation for them.
 */
struct xp_branch_site {
	int32_t code;   /* the 5-byte instruction */
	int32_t target; /* where it jumps to when it jumps */
	int32_t key;    /* struct xp_static_key, plus XP_SITE_ flags */
};

#define XP__BRANCH_SITES "xp_branch_sites"
#define XP__BRANCH_RECORD(code, target, key)                                                                           \
	".balign 4\n\t"                                                                                                \
	".long " code " - .\n\t"                                                                                       \
	".long " target " - .\n\t"                                                                                     \
	".long " key " - .\n\t"
XP__FORMAT_ASSERT(sizeof(struct xp_branch_site) == 12, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_branch_site, code) == 0, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_branch_site, target) == 4, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_branch_site, key) == 8, "what assembly writes");

#define XP_SITE_LIKELY 1 /* emitted by xp_static_branch_likely(): it jumps when the key is off */
#define XP_SITE_TRUE 2   /* emitted for a key that starts on */
#define XP_SITE_FLAGS 7

/* A call site: 8 bytes in section xp_call_sites, relative in the same way. */
struct xp_call_site {
	int32_t code; /* the 5-byte call or jmp, or the trampoline */
	int32_t call; /* struct xp_static_call, plus XP_SITE_ flags */
};

#define XP__CALL_SITES "xp_call_sites"
#define XP__CALL_RECORD(code, call)                                                                                    \
	".balign 4\n\t"                                                                                                \
	".long " code " - .\n\t"                                                                                       \
	".long " call " - .\n\t"
XP__FORMAT_ASSERT(sizeof(struct xp_call_site) == 8, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_call_site, code) == 0, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_call_site, call) == 4, "what assembly writes");

#define XP_SITE_TAIL 1       /* a jmp in place of a call and a return */
#define XP_SITE_TRAMPOLINE 2 /* the call's trampoline in this executable or shared object */

/*
 * A switch site: 12 bytes in section xp_switch_sites. The targets are an array of int32_t, one for each choice, each
 * relative to its own address; the word before it says how many there are, the word behind it is that word's complement.
 * Where not all choices fit in one array, the others follow through the text: see the architecture's header.
 */
struct xp_switch_site {
	int32_t code;    /* jmp rel32 to one of the targets, at first to that of choice 0 */
	int32_t key;     /* struct xp_static_switch */
	int32_t targets;
};

#define XP__SWITCH_SITES "xp_switch_sites"
#define XP__SWITCH_RECORD(code, key, targets)                                                                          \
	".balign 4\n\t"                                                                                                \
	".long " code " - .\n\t"                                                                                       \
	".long " key " - .\n\t"                                                                                        \
	".long " targets " - .\n\t"
XP__FORMAT_ASSERT(sizeof(struct xp_switch_site) == 12, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_switch_site, code) == 0, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_switch_site, key) == 4, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_switch_site, targets) == 8, "what assembly writes");

/*
 * What the word says: @nr choices in all; in this part @count of them, from number @first on. Behind the complement of the
 * word of a part that is the first and not the only one: a distance to code that loads the choice.
 */
#define XP_SWITCH_PART(nr, first, count) ((nr) + (first) * 0x400 + (count) * 0x100000)

/*
 * An immediate site: 12 bytes in section xp_imv_sites. The instruction is a mov of an immediate to a register, without a
 * needless prefix; its operand are its last `size` bytes.
 */
struct xp_imv_site {
	int32_t code; /* the instruction */
	int32_t imv;  /* struct xp_imv */
	uint8_t len;  /* of the instruction */
	uint8_t size; /* of the operand, and of the value: 1, 2, 4, 8 */
	uint16_t zero;
};

#define XP__IMV_SITES "xp_imv_sites"
#define XP__IMV_RECORD(code, imv, len, size)                                                                           \
	".balign 4\n\t"                                                                                                \
	".long " code " - .\n\t"                                                                                       \
	".long " imv " - .\n\t"                                                                                        \
	".byte " len ", " size "\n\t"                                                                                  \
	".short 0\n\t"
XP__FORMAT_ASSERT(sizeof(struct xp_imv_site) == 12, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_imv_site, code) == 0, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_imv_site, imv) == 4, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_imv_site, len) == 8, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_imv_site, size) == 9, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_imv_site, zero) == 10, "what assembly writes");

/* A call site of a gate: 8 bytes in section xp_gate_sites, relative in the same way. */
struct xp_gate_site {
	int32_t code; /* the 5-byte call; the 8 bytes of a site in UD2 form; the stub */
	int32_t gate; /* struct xp_gate, plus XP_SITE_ flags */
};

#define XP__GATE_SITES "xp_gate_sites"
#define XP__GATE_RECORD(code, gate)                                                                                    \
	".balign 4\n\t"                                                                                                \
	".long " code " - .\n\t"                                                                                       \
	".long " gate " - .\n\t"
XP__FORMAT_ASSERT(sizeof(struct xp_gate_site) == 8, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_gate_site, code) == 0, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_gate_site, gate) == 4, "what assembly writes");

#define XP_SITE_UD2 1  /* bound by the fault that executing it raises */
#define XP_SITE_STUB 2 /* no call: the gate's stub in this executable or shared object */

/* A site of a far gate: 16 bytes in section xp_far_sites, relative in the same way. */
struct xp_far_site {
	int32_t code;
	int32_t gate;    /* struct xp_gate_far */
	int32_t segment; /* struct xp_far_segment */
	uint16_t number; /* in the unbound form, in place of the offset */
	uint8_t form;    /* XP_FAR_ */
	uint8_t zero;
};

#define XP__FAR_SITES "xp_far_sites"
#define XP__FAR_RECORD(code, gate, segment, number, form)                                                              \
	".balign 4\n\t"                                                                                                \
	".long " code " - .\n\t"                                                                                       \
	".long " gate " - .\n\t"                                                                                       \
	".long " segment " - .\n\t"                                                                                    \
	".short " number "\n\t"                                                                                        \
	".byte " form ", 0\n\t"
XP__FORMAT_ASSERT(sizeof(struct xp_far_site) == 16, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_far_site, code) == 0, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_far_site, gate) == 4, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_far_site, segment) == 8, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_far_site, number) == 12, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_far_site, form) == 14, "what assembly writes");

/*
 * The patchable entry of a function: 12 bytes in section xp_entry_sites, relative in the same way. `size` holds, from
 * bit 8 on, the bytes that the function has (0: unknown); in bits 4 to 7, how many of them lie before the nop; flags below.
 */
struct xp_entry_site {
	int32_t code;  /* the 5-byte nop; with XP_SITE_PART, the beginning of the part */
	int32_t name;  /* the function's name for the linker, a string */
	uint32_t size;
};

#define XP__ENTRY_SITES "xp_entry_sites"
#define XP__ENTRY_RECORD(code, name, size)                                                                             \
	".balign 4\n\t"                                                                                                \
	".long " code " - .\n\t"                                                                                       \
	".long " name " - .\n\t"                                                                                       \
	".long " size "\n\t"
XP__FORMAT_ASSERT(sizeof(struct xp_entry_site) == 12, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_entry_site, code) == 0, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_entry_site, name) == 4, "what assembly writes");
XP__FORMAT_ASSERT(offsetof(struct xp_entry_site, size) == 8, "what assembly writes");

#define XP__ENTRY_LEN_SHIFT 8
#define XP__ENTRY_LEN_MAX ((1 << 24) - 1)
#define XP__ENTRY_BEFORE_SHIFT 4

#define XP_SITE_ENTRY_STUB 1 /* no function: the stub of this executable or shared object, xp__function_stub */
#define XP_SITE_PART 2       /* no entry: another part of the function of that name, as compilers split off (f.cold) */

#endif
