/* SPDX-License-Identifier: MIT */
/*
 * Sites of far gates in segments of this process's own, of each form 64, one at each offset of a cache line:
 *
 *	if (!xp_far_start())            descriptors; false: this system gives none
 *		XP_SKIP(…);
 *	bool carry = xp_far_call(&xp_far_cases[c], i, &value);      0 <= i < XP_NR_FAR_SITES
 *
 * A provider adds its number to ax or eax and clears the carry flag.
 */
#ifndef XP_FAR_H
#define XP_FAR_H

#include <asm/ldt.h>
#include <crosspatch/gate_far.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define XP_NR_FAR_SITES 64u
#define XP_NR_FAR_PROVIDERS 2u

XP_DEFINE_GATE_FAR(xp_far_gate_0); /* 16 to 16, far */
XP_DEFINE_GATE_FAR(xp_far_gate_1); /* 16 to 32, far */
XP_DEFINE_GATE_FAR(xp_far_gate_2); /* 32 to 32, far, and to the flat segment */
XP_DEFINE_GATE_FAR(xp_far_gate_3); /* 16 to 16, near */
XP_DEFINE_GATE_FAR(xp_far_gate_4); /* 16 to 32, near */
XP_DEFINE_GATE_FAR(xp_far_gate_5); /* 32 to 32, near */
XP_DEFINE_GATE_FAR(xp_far_gate_6); /* flat */

/* code16 and other16 overlap: a provider has another offset in each. */
struct xp_far_segment xp_far_code16 __attribute__((used, visibility("hidden")));
struct xp_far_segment xp_far_code32 __attribute__((used, visibility("hidden")));
struct xp_far_segment xp_far_flat __attribute__((used, visibility("hidden")));

/* Each is entered by a 32-bit far call, and returns from it. */
#define XP_FAR_BLOCK(label, gate, segment, number, form, bytes)                                                        \
	".balign 128\n" label ":\n"                                                                                    \
	".set xp_at, 0\n"                                                                                              \
	".rept 64\n"                                                                                                   \
	".balign 128, 0x90\n"                                                                                          \
	".skip xp_at\n"                                                                                                \
	"661: .byte " bytes "\n"                                                                                       \
	"lretl\n"                                                                                                      \
	".pushsection xp_far_sites,\"a\",@progbits\n"                                                                  \
	".balign 4\n"                                                                                                  \
	".long 661b - .\n"                                                                                             \
	".long " gate " - .\n"                                                                                         \
	".long " segment " - .\n"                                                                                      \
	".short " number "\n"                                                                                          \
	".byte " form ", 0\n"                                                                                          \
	".popsection\n"                                                                                                \
	".set xp_at, xp_at + 1\n"                                                                                      \
	".endr\n"
#define XP_FAR_CODE16 "0x9a, 9, 0, 1, 0"
#define XP_FAR_CODE16_32 "0x66, 0x9a, 9, 0, 0, 0, 1, 0"
#define XP_FAR_CODE32 "0x9a, 9, 0, 0, 0, 2, 0"

__asm__(".pushsection .text\n"
	".balign 128\n"
	"xp_far_start16:\n"
	".code16\n"
	".skip 16\n" /* no offset 0 */
	XP_FAR_BLOCK("xp_far_block_0", "xp_far_gate_0", "xp_far_code16", "9", "0", XP_FAR_CODE16)
	XP_FAR_BLOCK("xp_far_block_1", "xp_far_gate_1", "xp_far_code16", "9", "1", XP_FAR_CODE16_32)
	XP_FAR_BLOCK("xp_far_block_3", "xp_far_gate_3", "xp_far_code16", "9", "4", XP_FAR_CODE16)
	XP_FAR_BLOCK("xp_far_block_4", "xp_far_gate_4", "xp_far_code16", "9", "5", XP_FAR_CODE16_32)
	".balign 16\n"
	"xp_far_other16:\n"
	".skip 32\n"
	"xp_far_fail16: stc\nlret\n"
	"xp_far_fail16_32: stc\nlretl\n"
	"xp_far_provider16_1: addw $1, %ax\nclc\nlret\n"
	".skip 400\n"
	"xp_far_provider16_2: addw $2, %ax\nclc\nlret\n"
	"xp_far_provider16_32_1: addw $1, %ax\nclc\nlretl\n"
	".skip 300\n"
	"xp_far_provider16_32_2: addw $2, %ax\nclc\nlretl\n"
	"xp_far_end16:\n"
	".code32\n"
	".balign 128\n"
	"xp_far_start32:\n"
	".skip 16\n"
	XP_FAR_BLOCK("xp_far_block_2", "xp_far_gate_2", "xp_far_code32", "9", "2", XP_FAR_CODE32)
	XP_FAR_BLOCK("xp_far_block_5", "xp_far_gate_5", "xp_far_code32", "9", "6", XP_FAR_CODE32)
	"xp_far_fail32: stc\nlret\n"
	"xp_far_provider32_1: addl $1, %eax\nclc\nlret\n"
	".skip 70000\n"
	"xp_far_provider32_2: addl $2, %eax\nclc\nlret\n"
	"xp_far_end32:\n"
	XP_FAR_BLOCK("xp_far_block_6", "xp_far_gate_6", "xp_far_flat", "9", "2", XP_FAR_CODE32)
	"xp_far_fail_flat: stc\nlret\n"
	"xp_far_flat_1: addl $1, %eax\nclc\nlret\n"
	"xp_far_flat_2: addl $2, %eax\nclc\nlret\n"
	".popsection");

#define XP_FAR_LABEL(name) extern uint8_t name[] __attribute__((visibility("hidden")))
XP_FAR_LABEL(xp_far_start16);
XP_FAR_LABEL(xp_far_other16);
XP_FAR_LABEL(xp_far_end16);
XP_FAR_LABEL(xp_far_start32);
XP_FAR_LABEL(xp_far_end32);
XP_FAR_LABEL(xp_far_fail16);
XP_FAR_LABEL(xp_far_fail16_32);
XP_FAR_LABEL(xp_far_fail32);
XP_FAR_LABEL(xp_far_fail_flat);
XP_FAR_LABEL(xp_far_provider16_1);
XP_FAR_LABEL(xp_far_provider16_2);
XP_FAR_LABEL(xp_far_provider16_32_1);
XP_FAR_LABEL(xp_far_provider16_32_2);
XP_FAR_LABEL(xp_far_provider32_1);
XP_FAR_LABEL(xp_far_provider32_2);
XP_FAR_LABEL(xp_far_flat_1);
XP_FAR_LABEL(xp_far_flat_2);
XP_FAR_LABEL(xp_far_block_0);
XP_FAR_LABEL(xp_far_block_1);
XP_FAR_LABEL(xp_far_block_2);
XP_FAR_LABEL(xp_far_block_3);
XP_FAR_LABEL(xp_far_block_4);
XP_FAR_LABEL(xp_far_block_5);
XP_FAR_LABEL(xp_far_block_6);

/* Where a provider is: an address, and the segment that it is called in. */
enum { XP_FAR_IN_16, XP_FAR_IN_OTHER_16, XP_FAR_IN_32, XP_FAR_IN_FLAT, XP_NR_FAR_DESCRIPTORS };

struct xp_far_case {
	const char *name;
	struct xp_gate_far *gate;
	struct xp_far_segment *segment;
	uint8_t *block;
	uint8_t len, form, null;
	const uint8_t *provider[XP_NR_FAR_PROVIDERS];
	uint8_t in[XP_NR_FAR_PROVIDERS];
	const uint8_t *fail;
};

static const struct xp_far_case xp_far_cases[] = {
	{"16-bit far", &xp_far_gate_0, &xp_far_code16, xp_far_block_0, 5, XP_FAR_16_16, 1,
	 {xp_far_provider16_1, xp_far_provider16_2}, {XP_FAR_IN_OTHER_16, XP_FAR_IN_16}, xp_far_fail16},
	{"16-bit code, 32-bit frame, far", &xp_far_gate_1, &xp_far_code16, xp_far_block_1, 8, XP_FAR_16_32, 1,
	 {xp_far_provider32_1, xp_far_provider16_32_2}, {XP_FAR_IN_32, XP_FAR_IN_OTHER_16}, xp_far_fail16_32},
	{"32-bit far", &xp_far_gate_2, &xp_far_code32, xp_far_block_2, 7, XP_FAR_32_32, 2,
	 {xp_far_provider32_1, xp_far_flat_2}, {XP_FAR_IN_32, XP_FAR_IN_FLAT}, xp_far_fail32},
	{"16-bit near", &xp_far_gate_3, &xp_far_code16, xp_far_block_3, 5, XP_FAR_16_16 | XP_FAR_NEAR, 1,
	 {xp_far_provider16_1, xp_far_provider16_2}, {XP_FAR_IN_16, XP_FAR_IN_16}, xp_far_fail16},
	{"16-bit code, 32-bit frame, near", &xp_far_gate_4, &xp_far_code16, xp_far_block_4, 8,
	 XP_FAR_16_32 | XP_FAR_NEAR, 1, {xp_far_provider16_32_1, xp_far_provider16_32_2},
	 {XP_FAR_IN_16, XP_FAR_IN_16}, xp_far_fail16_32},
	{"32-bit near", &xp_far_gate_5, &xp_far_code32, xp_far_block_5, 7, XP_FAR_32_32 | XP_FAR_NEAR, 2,
	 {xp_far_provider32_1, xp_far_provider32_2}, {XP_FAR_IN_32, XP_FAR_IN_32}, xp_far_fail32},
	{"flat", &xp_far_gate_6, &xp_far_flat, xp_far_block_6, 7, XP_FAR_32_32, 2,
	 {xp_far_flat_1, xp_far_provider32_2}, {XP_FAR_IN_FLAT, XP_FAR_IN_32}, xp_far_fail_flat},
};
#define XP_NR_FAR_CASES (sizeof(xp_far_cases) / sizeof(xp_far_cases[0]))

static struct {
	uint16_t selector;
	uint32_t base;
} xp_far_descriptors[XP_NR_FAR_DESCRIPTORS];

static bool xp_far_descriptor(unsigned number, const uint8_t *start, const uint8_t *end, bool bits32)
{
	struct user_desc desc = {
		.entry_number = number,
		.base_addr = (uint32_t)start,
		.limit = (uint32_t)(end - start - 1),
		.seg_32bit = bits32,
		.contents = MODIFY_LDT_CONTENTS_CODE,
	};

	xp_far_descriptors[number].selector = (uint16_t)(number * 8 + 7);
	xp_far_descriptors[number].base = (uint32_t)start;
	return syscall(SYS_modify_ldt, 0x11, &desc, sizeof(desc)) == 0;
}

/* Descriptors, and what the library is told of them. */
static inline int xp_far_start(void)
{
	uint16_t cs;
	int error;

	if (!xp_far_descriptor(XP_FAR_IN_16, xp_far_start16, xp_far_end16, false) ||
	    !xp_far_descriptor(XP_FAR_IN_OTHER_16, xp_far_other16, xp_far_end16, false) ||
	    !xp_far_descriptor(XP_FAR_IN_32, xp_far_start32, xp_far_end32, true))
		return 1;
	__asm__("mov %%cs, %0" : "=r"(cs));
	xp_far_descriptors[XP_FAR_IN_FLAT].selector = cs;
	xp_far_code16 = (struct xp_far_segment){.selector = xp_far_descriptors[XP_FAR_IN_16].selector, .bits = 16};
	xp_far_code16.base = (uint32_t)xp_far_start16;
	xp_far_code16.limit = (uint32_t)(xp_far_end16 - xp_far_start16 - 1);
	xp_far_code16.fail16 = (uint32_t)(xp_far_fail16 - xp_far_start16);
	xp_far_code16.fail32 = (uint32_t)(xp_far_fail16_32 - xp_far_start16);
	xp_far_code32 = (struct xp_far_segment){.selector = xp_far_descriptors[XP_FAR_IN_32].selector, .bits = 32};
	xp_far_code32.base = (uint32_t)xp_far_start32;
	xp_far_code32.limit = (uint32_t)(xp_far_end32 - xp_far_start32 - 1);
	xp_far_code32.fail32 = (uint32_t)(xp_far_fail32 - xp_far_start32);
	xp_far_flat = (struct xp_far_segment){.selector = cs, .bits = 32, .limit = UINT32_MAX};
	xp_far_flat.fail32 = (uint32_t)xp_far_fail_flat;
	error = xp_far_segment_add(&xp_far_code16);
	error = error ? error : xp_far_segment_add(&xp_far_code32);
	return error ? error : xp_far_segment_add(&xp_far_flat);
}

static inline uint8_t *xp_far_site(const struct xp_far_case *c, unsigned i)
{
	return c->block + 128 * i + i;
}

static inline uint16_t xp_far_selector(const struct xp_far_case *c, unsigned provider)
{
	return xp_far_descriptors[c->in[provider]].selector;
}

static inline uint32_t xp_far_offset(const struct xp_far_case *c, unsigned provider)
{
	return (uint32_t)c->provider[provider] - xp_far_descriptors[c->in[provider]].base;
}

/* Executes site @i with *@value in eax. Returns the carry flag, set before. */
static inline bool xp_far_call(const struct xp_far_case *c, unsigned i, uint32_t *value)
{
	struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) to = {(uint32_t)xp_far_site(c, i) - c->segment->base, c->segment->selector};
	uint32_t eax = *value, carry;

	__asm__ volatile("stc\n\tlcall *%[to]\n\tsbbl %[carry], %[carry]"
			 : "+a"(eax), [carry] "=r"(carry)
			 : [to] "m"(to)
			 : "cc", "memory");
	*value = eax;
	return carry != 0;
}

#endif
