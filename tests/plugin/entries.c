// SPDX-License-Identifier: MIT
/*
 * Functions with entries made by the plugin, or by -fpatchable-function-entry, in C and in C++: whether they are all there, in
 * one quadword each, and whether tracing finds them. Compiled with NAMELESS where records have no names, with ANNOTATED where
 * `crosspatch annotate` made them of those, for all functions, with NOPS where the plugin made nops. Exit status 0, or a line that says what is wrong. Without the
 * plugin the attribute is noipa, for a comparison of the code.
 */
#include <crosspatch/function.h>
#include <stdio.h>
#include <string.h>

#ifdef __cplusplus
#define EXTERN_C extern "C"
#else
#define EXTERN_C
#endif
#if defined(PLAIN)
#define PATCHABLE __attribute__((noipa))
#elif defined(NAMELESS) || defined(ANNOTATED)
#define PATCHABLE __attribute__((noinline))
#else
#define PATCHABLE __attribute__((xp_patchable))
#endif

#ifndef SECOND
EXTERN_C PATCHABLE int named(int x);
int named(int x)
{
	return x + 1;
}

static PATCHABLE int local(int x)
{
	return x + 2;
}

/* Comes back to its first instruction. */
EXTERN_C PATCHABLE int loops(volatile int *x);
int loops(volatile int *x)
{
	do
		--*x;
	while (*x > 0);
	return 0;
}

EXTERN_C __attribute__((cold, noinline)) int rare(int x);
int rare(int x)
{
	return printf("%d\n", x);
}

/* The compiler splits it from -O2 on. */
EXTERN_C PATCHABLE int splits(int x);
int splits(int x)
{
	if (__builtin_expect(x > 1000, 0)) {
		rare(x);
		return rare(named(x));
	}
	return local(x);
}

/* Calls nothing, and keeps its locals below the stack pointer. */
EXTERN_C PATCHABLE int leaf(int x);
int leaf(int x)
{
	volatile int a[8] = {x, 2, 3, 4, 5, 6, 7, 8};

	return a[0] + a[7];
}

/* By pattern. */
EXTERN_C __attribute__((noinline, noclone)) int glob_one(int x);
int glob_one(int x)
{
	__asm__ volatile("");
	return x + 3;
}

EXTERN_C __attribute__((noinline, noclone, no_instrument_function)) int glob_excluded(int x);
int glob_excluded(int x)
{
	return x + 4;
}

EXTERN_C __attribute__((noinline, noclone)) int other(int x);
int other(int x)
{
	return x + 5;
}

#endif

#ifdef __cplusplus
/* In two files, of which the linker keeps one: the other is this one compiled with SECOND. */
template <int n> PATCHABLE int templated(int x)
{
	return x + n;
}

EXTERN_C int second(int x);

#ifndef SECOND
EXTERN_C PATCHABLE int throws(int x);
int throws(int x)
{
	if (x)
		throw x;
	return 0;
}
#endif
#endif

#ifdef SECOND
EXTERN_C int second(int x)
{
	return templated<7>(x);
}
#else
static volatile unsigned entered, left;

static void on_entry(const struct xp_function_call *call, void *data)
{
	(void)call;
	(void)data;
	entered = entered + 1;
}

static void on_leave(const struct xp_function_call *call, void *data)
{
	(void)call;
	(void)data;
	left = left + 1;
}

static const struct xp_function_handler both = {on_entry, on_leave, 0};

static int fail(const char *what, int value)
{
	printf("%s: %d\n", what, value);
	return 1;
}

static int check(const char *name, void (*function)(void))
{
	const unsigned char *code = (const unsigned char *)(uintptr_t)function;
	unsigned char before[16];
	int error;

	memcpy(before, code, sizeof(before));
	error = xp__function_trace(function, &both, NULL);
	if (error)
		return fail(name, error);
#ifndef NAMELESS
	if (strcmp(xp_function_name(function) ? xp_function_name(function) : "", name) != 0)
		return fail(name, 0);
	if (xp_function_find(name) != function)
		return fail("not found by its name", 0);
#endif
	while (*code != 0xe8 && code - (const unsigned char *)(uintptr_t)function < 12)
		code++;
#if !defined(NAMELESS) && !defined(ANNOTATED) && !defined(NOPS)
	/* One byte became another one. */
	before[code - (const unsigned char *)(uintptr_t)function] ^= 0xa9 ^ 0xe8;
	if (memcmp(before, (const void *)(uintptr_t)function, sizeof(before)) != 0)
		return fail("more than one byte changed", before[0]);
#endif
#ifndef UNALIGNED
	if ((uintptr_t)code % 8 > 3)
		return fail("not in one quadword", (int)((uintptr_t)code % 8));
#endif
	return 0;
}

#ifdef __cplusplus
#define LOCAL "_ZL5locali"
#else
#define LOCAL "local"
#endif
#define CHECK(name) check(#name, (void (*)(void))name)
#define CALL(what, value)                                                                                              \
	do {                                                                                                           \
		entered = left = 0;                                                                                    \
		if ((what) != (value))                                                                                 \
			return fail(#what, what);                                                                      \
		if (entered != 1 || left != 1)                                                                         \
			return fail(#what ": handlers", (int)entered);                                                 \
	} while (0)

int main(void)
{
	volatile int three = 3;
#ifndef NAMELESS
	void (*const functions[])(void) = {(void (*)(void))splits};
	int error;
#endif

#ifdef PREPARE
	if (xp_function_trace(named, &both, NULL) != -XP_E_MULTI)
		return fail("five nops were taken for one", 0);
#ifdef ANNOTATED
	if (xp_function_prepare("leaf", NULL) != 1 || xp_function_trace(named, &both, NULL) != -XP_E_MULTI)
		return fail("prepare by name", 0);
#endif
	if (xp_function_prepare(NULL, NULL) < 7)
		return fail("prepare", xp_function_prepare(NULL, NULL));
#endif
	if (CHECK(named) || check(LOCAL, (void (*)(void))local) || CHECK(loops) || CHECK(splits) || CHECK(leaf) ||
	    CHECK(glob_one))
		return 1;
	CALL(named(1), 2);
	if (xp_function_untrace(local, &both, NULL) || check(LOCAL, (void (*)(void))local))
		return fail("traced again", 0);
	CALL(local(1), 3);
	CALL(loops(&three), 0);
	CALL(leaf(1), 9);
	CALL(glob_one(1), 4);
	entered = left = 0;
	if (splits(1) != 3 || entered != 2 || left != 2)
		return fail("splits", (int)entered);
#ifndef NAMELESS
#ifdef ANNOTATED
	if (xp_function_untrace(glob_one, &both, NULL) || xp_function_trace_matching("glob_*", &both, NULL, NULL) != 2)
		return fail("glob_*", 0);
	CALL(glob_one(1), 4);
	CALL(glob_excluded(1), 5);
#else
	if (xp_function_trace(glob_excluded, &both, NULL) != -XP_E_NO_ENTRY)
		return fail("glob_excluded has an entry", 0);
	if (xp_function_trace(other, &both, NULL) != -XP_E_NO_ENTRY)
		return fail("other has an entry", 0);
#endif
	if (xp_function_untrace(splits, &both, NULL) || xp_function_redirect(splits, named))
		return fail("redirect", 0);
	error = xp_function_quiesce(functions, 1, NULL);
	if (error || splits(1) != 2)
		return fail("quiesce", error);
#endif
#ifdef __cplusplus
	if (check("_Z9templatedILi7EEii", (void (*)(void))templated<7>))
		return 1;
	entered = 0;
	if (second(1) != 8 || templated<7>(1) != 8 || entered != 2)
		return fail("second", (int)entered);
	if (CHECK(throws))
		return 1;
	try {
		throws(5);
		return fail("throws", 0);
	} catch (int x) {
		if (x != 5)
			return fail("caught", x);
	}
#endif
	return 0;
}
#endif
