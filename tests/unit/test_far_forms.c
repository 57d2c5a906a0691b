// SPDX-License-Identifier: MIT
/*
 * What the library makes of sites of far gates, read by Zydis in the width of their segment, by a 64-bit process, which has
 * it: unbound and bound, each form is instructions that end where the site ends, whose frame is the provider's, and whose
 * target is the provider, or the stub.
 */
#include "recorder.h"
#include "xp_test.h"

#include <Zydis/Zydis.h>
#include <crosspatch/gate_far.h>

/* Offsets in rec_text, which is at once the segment. */
enum { SITE = 0x114, NUMBER = 0x5678, FAIL16 = 0x2340, FAIL32 = 0x2350, PROVIDER = 0x3c21 };
enum { SELECTOR = 0x17, OTHER = 0x1f };

static const struct {
	const char *name;
	uint8_t form, len, width, null, bits;
	uint8_t unbound[8];
} forms[] = {
	{"16-bit far", XP_FAR_16_16, 5, 16, 1, 16, {0x9a, 0x78, 0x56, 1, 0}},
	{"16-bit code, 32-bit frame, far", XP_FAR_16_32, 8, 32, 1, 16, {0x66, 0x9a, 0x78, 0x56, 0, 0, 1, 0}},
	{"32-bit far", XP_FAR_32_32, 7, 32, 2, 32, {0x9a, 0x78, 0x56, 0, 0, 2, 0}},
	{"16-bit near", XP_FAR_16_16 | XP_FAR_NEAR, 5, 16, 1, 16, {0x9a, 0x78, 0x56, 1, 0}},
	{"16-bit code, 32-bit, near", XP_FAR_16_32 | XP_FAR_NEAR, 8, 32, 1, 16, {0x66, 0x9a, 0x78, 0x56, 0, 0, 1, 0}},
	{"32-bit near", XP_FAR_32_32 | XP_FAR_NEAR, 7, 32, 2, 32, {0x9a, 0x78, 0x56, 0, 0, 2, 0}},
};
#define NR_FORMS (sizeof(forms) / sizeof(forms[0]))

static struct xp_gate_far gate;
static struct xp_far_segment segment;
static struct xp_far_site site;
static struct xp_module module;

static int32_t relative(const int32_t *field, uintptr_t to)
{
	return (int32_t)(to - (uintptr_t)field);
}

static int start(unsigned f)
{
	int error;

	rec_start();
	gate = (struct xp_gate_far){.object = {.name = "far"}};
	segment = (struct xp_far_segment){.selector = SELECTOR, .bits = forms[f].bits, .limit = 0xffff,
					  .fail16 = FAIL16, .fail32 = FAIL32};
	/* All that is computed with it is offsets. */
	segment.base = (uint32_t)(uintptr_t)rec_text;
	site = (struct xp_far_site){.number = NUMBER, .form = forms[f].form};
	site.code = relative(&site.code, (uintptr_t)(rec_text + SITE));
	site.gate = relative(&site.gate, (uintptr_t)&gate);
	site.segment = relative(&site.segment, (uintptr_t)&segment);
	rec_put(SITE, forms[f].unbound, forms[f].len);
	module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	module.tables[XP_SITE_FAR].start = &site;
	module.tables[XP_SITE_FAR].end = &site + 1;
	error = xp_module_register(&module);
	return error ? error : xp_far_segment_add(&segment);
}

static void stop(void)
{
	CHECK_EQ(xp_module_unregister(&module), 0);
	CHECK_EQ(xp_far_segment_remove(&segment), 0);
}

/* The instructions of a site, up to its end; 0: they do not end there. */
static unsigned decode(unsigned f, ZydisDecodedInstruction insns[], ZydisDecodedOperand operands[])
{
	ZydisDecoder decoder;
	unsigned nr = 0, at = 0;

	ZydisDecoderInit(&decoder, forms[f].bits == 16 ? ZYDIS_MACHINE_MODE_LEGACY_16 : ZYDIS_MACHINE_MODE_LEGACY_32,
			 ZYDIS_STACK_WIDTH_32);
	while (at < forms[f].len && nr < 3) {
		ZydisDecodedOperand all[ZYDIS_MAX_OPERAND_COUNT];

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, rec_text + SITE + at, 15, &insns[nr], all)))
			return 0;
		operands[nr] = all[0];
		at += insns[nr++].length;
	}
	return at == forms[f].len ? nr : 0;
}

static void check_far(unsigned f, uint16_t selector, uint32_t offset)
{
	ZydisDecodedInstruction insns[3];
	ZydisDecodedOperand operands[3];

	REQUIRE(decode(f, insns, operands) == 1);
	CHECK(insns[0].mnemonic == ZYDIS_MNEMONIC_CALL && insns[0].meta.branch_type == ZYDIS_BRANCH_TYPE_FAR);
	CHECK_EQ(insns[0].operand_width, forms[f].width);
	CHECK(operands[0].type == ZYDIS_OPERAND_TYPE_POINTER);
	CHECK_EQ(operands[0].ptr.segment, selector);
	CHECK_EQ(operands[0].ptr.offset, offset);
}

/* Nop or not, push cs, call: as many bytes of the frame as a far call would have pushed. */
static void check_near(unsigned f, uint32_t offset)
{
	ZydisDecodedInstruction insns[3], *push, *call;
	ZydisDecodedOperand operands[3];
	unsigned nr = decode(f, insns, operands);
	uint32_t mask = forms[f].width == 16 ? 0xffff : UINT32_MAX;

	REQUIRE(nr >= 2);
	push = &insns[nr - 2];
	call = &insns[nr - 1];
	CHECK(nr == 2 || insns[0].mnemonic == ZYDIS_MNEMONIC_NOP);
	CHECK(push->mnemonic == ZYDIS_MNEMONIC_PUSH && operands[nr - 2].reg.value == ZYDIS_REGISTER_CS);
	CHECK_EQ(push->operand_width, forms[f].width);
	CHECK(call->mnemonic == ZYDIS_MNEMONIC_CALL && call->meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR);
	CHECK_EQ(call->operand_width, forms[f].width);
	CHECK_EQ((SITE + forms[f].len + (uint32_t)operands[nr - 1].imm.value.s) & mask, offset);
}

static void check_bound(unsigned f, uint16_t selector, uint32_t offset)
{
	if (forms[f].form & XP_FAR_NEAR)
		check_near(f, offset);
	else
		check_far(f, selector, offset);
}

XP_TEST(each_form_in_each_state)
{
	for (unsigned f = 0; f < NR_FORMS; f++) {
		uint16_t selector = forms[f].form & XP_FAR_NEAR ? SELECTOR : OTHER;

		XP_TEST_NOTE("%s", forms[f].name);
		REQUIRE(start(f) == 0);
		check_far(f, forms[f].null, NUMBER);
		CHECK_EQ(xp_gate_far_provide(&gate, selector, PROVIDER), 0);
		check_far(f, forms[f].null, NUMBER);
		CHECK_EQ(xp_gate_far_bind_all(), 0);
		check_bound(f, selector, PROVIDER);
		CHECK_EQ(xp_gate_far_replace(&gate, selector, 2), 0);
		check_bound(f, selector, 2);
		CHECK_EQ(xp_gate_far_withdraw(&gate), 0);
		check_bound(f, SELECTOR, forms[f].width == 16 ? FAIL16 : FAIL32);
		stop();
	}
}

XP_TEST_MAIN()
