// SPDX-License-Identifier: MIT
/*
 * Looks at the records that the linker left. Prints how many there are; fails if one is wrong. The functions of calls.c
 * and calls.cc run first; with GARBAGE defined only plain() is alive.
 */
#include "calls.h"

#include <stdint.h>
#include <stdio.h>

struct record {
	int32_t code, call;
};
extern const struct record __start_xp_call_sites[] __attribute__((weak, visibility("hidden")));
extern const struct record __stop_xp_call_sites[] __attribute__((weak, visibility("hidden")));

/* As aligned as the library's: the low bits are flags. */
#define OBJECT(name) HIDDEN __attribute__((aligned(8), used)) int xp_call_##name = 1
OBJECT(one);
OBJECT(two);
OBJECT(three);
OBJECT(four);

#define TRAMPOLINE __attribute__((used)) NOINLINE
TRAMPOLINE int xp_trampoline_one(int x)
{
	return x + 10;
}
TRAMPOLINE void *xp_trampoline_two(void *p, const char *format, ...)
{
	return format[0] == 'a' ? p : 0;
}
/* By its name in the assembler: what has the attribute has no body. */
TRAMPOLINE HIDDEN int by_attribute(int x) __asm__("three");
int by_attribute(int x)
{
	return x + 30;
}
TRAMPOLINE HIDDEN int by_name(int x) __asm__("renamed");
int by_name(int x)
{
	return x + 40;
}
int xp_trampoline_elsewhere(int x)
{
	return x + 50;
}
int ordinary(int x)
{
	return x + 60;
}
void fatal(int x);
void fatal(int x)
{
	for (volatile int forever = x;;)
		forever = forever + 1;
}

extern int plain(int), tail(int), conditional_tail(int), loop(int, void *), none(int), cold(int);
/* Of C++. */
extern int catches(int) __asm__("_Z7catchesi"), nothrow(int) __asm__("_Z7nothrowi");

static int run(void)
{
	if (plain(1) != 12)
		return 1;
#ifndef GARBAGE
	if (tail(1) != 12 || conditional_tail(3) != 11 || conditional_tail(1) != 32 || conditional_tail(6) != 0)
		return 2;
	if (loop(3, &(int){0}) != 40 + 41 + 42 || none(1) != 11 + 61 + 51 || cold(1) != 1)
		return 3;
	if (catches(5) != 45 + 62 || nothrow(2) != (12 ^ 1) + 32)
		return 4;
#endif
	return 0;
}

static int wrong(const struct record *r)
{
	static const struct {
		const int *object;
		uintptr_t trampoline;
	} calls[] = {{&xp_call_one, (uintptr_t)xp_trampoline_one},
		     {&xp_call_two, (uintptr_t)xp_trampoline_two},
		     {&xp_call_three, (uintptr_t)by_attribute},
		     {&xp_call_four, (uintptr_t)by_name}};
	const uint8_t *code = (const uint8_t *)((uintptr_t)&r->code + (uintptr_t)(intptr_t)r->code);
	uintptr_t call = (uintptr_t)&r->call + (uintptr_t)(intptr_t)r->call;
	uintptr_t target = (uintptr_t)code + 5 + (uintptr_t)(intptr_t)*(const int32_t *)(code + 1);

	if (code[0] != (call & 1 ? 0xe9 : 0xe8))
		return 1;
	for (unsigned i = 0; i < sizeof(calls) / sizeof(*calls); i++)
		if ((uintptr_t)calls[i].object == (call & ~(uintptr_t)7))
			return target != calls[i].trampoline;
	return 1;
}

int main(void)
{
	int bad = run();

	if (bad)
		printf("run: %d\n", bad);
	for (const struct record *r = __start_xp_call_sites; r < __stop_xp_call_sites; r++)
		if (wrong(r)) {
			printf("record %d is wrong\n", (int)(r - __start_xp_call_sites));
			bad = 1;
		}
	printf("%d records\n", (int)(__stop_xp_call_sites - __start_xp_call_sites));
	return bad != 0;
}
