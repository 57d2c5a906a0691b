// SPDX-License-Identifier: MIT
/*
 * What far gates cost: 100 sites of each form that run once, bound each by its fault or all eagerly in one commit (S10's
 * argument in its own habitat); then a call of a bound site. A 32-bit program, with descriptors of its own. Each round
 * puts the sites back as they were assembled, which the library never does: it is told of them anew.
 */
#include "bench.h"

#include <asm/ldt.h>
#include <crosspatch/crosspatch.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NR 100u
#define SIZE 8192u
#define SITE 16u

/* Offsets in the segments, which have the same base. */
enum { RETURN = 0x1000, PROVIDER = 0x1010, PROVIDER_32 = 0x1020, FAIL = 0x1030 };

static const struct {
	const char *name;
	uint8_t form, len, bits;
	uint8_t bytes[8];
} forms[] = {
	{"16-bit far", XP_FAR_16_16, 5, 16, {0x9a, 7, 0, 1, 0}},
	{"16-bit near", XP_FAR_16_16 | XP_FAR_NEAR, 5, 16, {0x9a, 7, 0, 1, 0}},
	{"16-bit code, 32-bit frame, far", XP_FAR_16_32, 8, 16, {0x66, 0x9a, 7, 0, 0, 0, 1, 0}},
	{"16-bit code, 32-bit frame, near", XP_FAR_16_32 | XP_FAR_NEAR, 8, 16, {0x66, 0x9a, 7, 0, 0, 0, 1, 0}},
	{"32-bit far", XP_FAR_32_32, 7, 32, {0x9a, 7, 0, 0, 0, 2, 0}},
	{"32-bit near", XP_FAR_32_32 | XP_FAR_NEAR, 7, 32, {0x9a, 7, 0, 0, 0, 2, 0}},
};
#define NR_FORMS (sizeof(forms) / sizeof(forms[0]))

static struct {
	uint8_t *text;
	struct xp_far_segment segment;
	struct xp_gate_far gate;
	struct xp_far_site sites[NR];
	struct xp_module module;
	uint16_t provider; /* offset */
} of[NR_FORMS];

static void descriptor(unsigned number, uint8_t *text, unsigned bits)
{
	struct user_desc desc = {
		.entry_number = number,
		.base_addr = (uint32_t)text,
		.limit = SIZE - 1,
		.seg_32bit = bits == 32,
		.contents = MODIFY_LDT_CONTENTS_CODE,
	};

	bench_check((int)syscall(SYS_modify_ldt, 0x11, &desc, sizeof(desc)), "modify_ldt");
}

static int32_t relative(const int32_t *field, const void *to)
{
	return (int32_t)((uintptr_t)to - (uintptr_t)field);
}

static void put_return(uint8_t *at, unsigned bits)
{
	if (bits == 16)
		*at++ = 0x66;
	*at = 0xcb;
}

static void make(unsigned f)
{
	uint8_t *text = mmap(NULL, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (text == MAP_FAILED)
		bench_die("no memory that is writable and executable");
	of[f].text = text;
	put_return(text + RETURN, forms[f].bits);
	text[PROVIDER] = text[PROVIDER_32] = 0xf8; /* clc */
	text[PROVIDER + 1] = 0xcb;
	put_return(text + PROVIDER_32 + 1, forms[f].bits);
	of[f].provider = forms[f].len == 8 ? PROVIDER_32 : PROVIDER;
	descriptor(f, text, forms[f].bits);
	of[f].gate.object.name = forms[f].name;
	of[f].segment = (struct xp_far_segment){
		.selector = (uint16_t)(f * 8 + 7),
		.bits = forms[f].bits,
		.base = (uint32_t)text,
		.limit = SIZE - 1,
		.fail16 = FAIL,
		.fail32 = FAIL,
	};
	for (unsigned i = 0; i < NR; i++) {
		struct xp_far_site *site = &of[f].sites[i];

		put_return(text + SITE * (i + 1) + forms[f].len, forms[f].bits);
		site->code = relative(&site->code, text + SITE * (i + 1));
		site->gate = relative(&site->gate, &of[f].gate);
		site->segment = relative(&site->segment, &of[f].segment);
		site->number = 7;
		site->form = forms[f].form;
	}
	of[f].module = (struct xp_module){.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	of[f].module.tables[XP_SITE_FAR].start = of[f].sites;
	of[f].module.tables[XP_SITE_FAR].end = of[f].sites + NR;
	bench_check(xp_far_segment_add(&of[f].segment), "adding a segment");
}

/* Sites as the assembler leaves them. */
static void renew(uint64_t f)
{
	bench_check(xp_module_unregister(&of[f].module), "unregister");
	for (unsigned i = 0; i < NR; i++)
		memcpy(of[f].text + SITE * (i + 1), forms[f].bytes, forms[f].len);
	bench_check(xp_module_register(&of[f].module), "register");
	if (of[f].gate.to[of[f].gate.version & 1].selector == 0)
		bench_check(xp_gate_far_provide(&of[f].gate, of[f].segment.selector, of[f].provider), "provide");
}

static void call(unsigned f, uint32_t offset)
{
	struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) to = {offset, of[f].segment.selector};

	__asm__ volatile("lcall *%0" : : "m"(to) : "eax", "cc", "memory");
}

static void call_sites(uint64_t f)
{
	for (unsigned i = 0; i < NR; i++)
		call((unsigned)f, SITE * (i + 1));
}

static void bind_and_call(uint64_t f)
{
	bench_check(xp_gate_far_bind_all(), "bind_all");
	call_sites(f);
}

static void call_nothing(uint64_t f)
{
	for (unsigned i = 0; i < NR; i++)
		call((unsigned)f, RETURN);
}

static void first_execution(void)
{
	struct bench_case cases[2 * NR_FORMS];

	memset(cases, 0, sizeof(cases));
	for (unsigned f = 0; f < NR_FORMS; f++) {
		static char names[2 * NR_FORMS][64];

		for (unsigned k = 0; k < 2; k++) {
			struct bench_case *c = &cases[2 * f + k];

			strcat(strcpy(names[2 * f + k], forms[f].name), k ? ", by fault" : ", eagerly");
			*c = (struct bench_case){.name = names[2 * f + k], .before = renew, .argument = f, .per = NR};
			c->step = k ? call_sites : bind_and_call;
			c->floor = k ? c - 1 : NULL;
		}
	}
	bench_group("100 sites that run once, per site; no other thread runs", cases, 2 * NR_FORMS, 10, 4);
}

static void bound_calls(void)
{
	struct bench_case cases[2 * NR_FORMS];

	memset(cases, 0, sizeof(cases));
	for (unsigned f = 0; f < NR_FORMS; f++) {
		struct bench_case *c = &cases[2 * f];

		renew(f);
		bind_and_call(f);
		c[0].name = "into the segment and back";
		c[0].step = call_nothing;
		c[1].name = forms[f].name;
		c[1].step = call_sites;
		c[1].floor = &c[0];
		c[0].argument = c[1].argument = f;
		c[0].per = c[1].per = NR;
	}
	bench_group("bound sites, per call, each from outside of the segment", cases, 2 * NR_FORMS, 100, 10);
}

int main(int argc, char **argv)
{
	int i = bench_start(argc, argv, "bench_gates_far", "");

	if (i < argc)
		bench_die("unknown option %s", argv[i]);
	bench_pin(0);
	for (unsigned f = 0; f < NR_FORMS; f++)
		make(f);
	first_execution();
	bound_calls();
	return bench_end();
}
