// SPDX-License-Identifier: MIT
/*
 * An update rewrites the sites of code compiled with the plugin: they call the new target itself. Those of annotated code
 * too, where the displacement lies in one quadword. All others call the trampoline. Decoded by Zydis; in 32-bit code, for
 * which there is none, found by where its bytes lead. Prints what it saw.
 */
#include "inplace.h"

#ifdef __x86_64__
#include <Zydis/Zydis.h>
#endif
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

XP_DEFINE_STATIC_CALL(change, add_one);
__asm__(".globl change\n.hidden change\n.type change, @function\n.set change, xp_trampoline_change");

/* Aligned: a target that starts somewhere else would be another. */
__attribute__((noinline)) int add_one(int x)
{
	return x + 1;
}

__attribute__((noinline)) int add_two(int x)
{
	return x + 2;
}

struct caller {
	const char *name;
	int (*function)(int);
	enum { ALWAYS, FITTING, NEVER } in_place;
	unsigned sites;
};

#define FUNCTIONS(prefix, in_place)                                                                                    \
	{#prefix "_calls", prefix##_calls, in_place, 1}, {#prefix "_ordinary", prefix##_ordinary, in_place, 1},        \
		{#prefix "_tail", prefix##_tail, in_place, 1},                                                         \
	{                                                                                                              \
		#prefix "_many", prefix##_many, in_place, 9                                                            \
	}
static const struct caller callers[] = {
	FUNCTIONS(plugin, ALWAYS),
	FUNCTIONS(plugincc, ALWAYS),
	FUNCTIONS(plain, NEVER),
	FUNCTIONS(annotated, FITTING),
};

static int failed;
static unsigned in_place, by_trampoline;

static bool fits(uintptr_t code)
{
	return (code + 1) / 8 == (code + 4) / 8;
}

/* One site, which leads to one of these. */
static void look_at(const struct caller *c, uintptr_t code, uintptr_t to, uintptr_t old, uintptr_t new)
{
	uintptr_t trampoline = (uintptr_t)xp_trampoline_change;
	bool direct = c->in_place == ALWAYS || (c->in_place == FITTING && fits(code));

	if (to != (direct ? new : trampoline)) {
		const char *what = to == old ? "the old target" : "the new target";

		printf("%s: the site at its byte %d goes to %s\n", c->name, (int)(code - (uintptr_t)c->function),
		       to == trampoline ? "the trampoline" : what);
		failed = 1;
	}
	*(to == new ? &in_place : &by_trampoline) += 1;
}

/* The sites of one function: direct calls and jumps to the trampoline, @old or @new, until it returns. */
static void look(const struct caller *c, uintptr_t old, uintptr_t new)
{
	uintptr_t code = (uintptr_t)c->function, trampoline = (uintptr_t)xp_trampoline_change;
	unsigned found = 0;
#ifdef __x86_64__
	ZydisDecoder decoder;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (bool end = false; !end;) {
		ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
		ZydisDecodedInstruction insn;
		ZyanU64 to = 0;

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, (const void *)code, 15, &insn, operands))) {
			printf("%s: no instruction at its byte %d\n", c->name, (int)(code - (uintptr_t)c->function));
			failed = 1;
			return;
		}
		end = insn.mnemonic == ZYDIS_MNEMONIC_RET || insn.mnemonic == ZYDIS_MNEMONIC_JMP;
		if (insn.length == 5 && (insn.mnemonic == ZYDIS_MNEMONIC_CALL || insn.mnemonic == ZYDIS_MNEMONIC_JMP))
			(void)ZydisCalcAbsoluteAddress(&insn, operands, code, &to);
		if (to == trampoline || to == old || to == new) {
			found++;
			look_at(c, code, to, old, new);
		}
		code += insn.length;
	}
#else
	for (unsigned i = 0; i < 400 && found < c->sites; i++, code++) {
		const uint8_t *text = (const uint8_t *)code;
		int32_t displacement;
		uintptr_t to;

		memcpy(&displacement, text + 1, sizeof(displacement));
		to = code + 5 + (uintptr_t)displacement;
		if ((text[0] == 0xe8 || text[0] == 0xe9) && (to == trampoline || to == old || to == new)) {
			found++;
			look_at(c, code, to, old, new);
		}
	}
#endif
	if (found != c->sites) {
		printf("%s: %u sites found, not %u\n", c->name, found, c->sites);
		failed = 1;
	}
}

/* What _many() returns, computed without calls. */
static int many(int x, int add)
{
	int sum = 0;

	sum += x + add;
	sum ^= (x ^ sum) + add;
	sum += x + 1000 + add;
	sum ^= (x ^ sum) + add;
	sum += sum + add;
	sum ^= (x ^ sum) + add;
	sum += x - 77777 + add;
	sum ^= (x ^ sum) + add;
	return sum + (x & sum) + add;
}

static void run(int add)
{
	for (unsigned i = 0; i < sizeof(callers) / sizeof(*callers); i += 4) {
		int x = (int)i + 40, expected[] = {(x + add) * 2, (x + add) * 3, x + 5 + add, many(x, add)};

		for (unsigned f = 0; f < 4; f++)
			if (callers[i + f].function(x) != expected[f]) {
				printf("%s: not the value of the target\n", callers[i + f].name);
				failed = 1;
			}
	}
}

static void update(int (*to)(int), uintptr_t old, int add)
{
	int error = xp_static_call_update(change, to);

	if (error) {
		printf("update: %s\n", xp_strerror(error));
		failed = 1;
		return;
	}
	run(add);
	in_place = by_trampoline = 0;
	for (unsigned i = 0; i < sizeof(callers) / sizeof(*callers); i++)
		look(&callers[i], old, (uintptr_t)to);
}

int main(void)
{
	if (xp_module_error()) {
		printf("registration: %s\n", xp_strerror(xp_module_error()));
		return 1;
	}
	run(1);
	update(add_two, (uintptr_t)add_one, 2);
	update(add_one, (uintptr_t)add_two, 1);
	printf("%u in place, %u by the trampoline\n", in_place, by_trampoline);
	/* Of the annotated nine and two, some fit. */
	return failed || in_place <= 2 * 12;
}
