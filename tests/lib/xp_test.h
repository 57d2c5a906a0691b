/* SPDX-License-Identifier: MIT */
/*
 * The reporter of all test programs: named cases, results as TAP on standard output.
 *
 *	#include "xp_test.h"
 *
 *	XP_TEST(addition)
 *	{
 *		REQUIRE(ready());        // a failure ends the case
 *		CHECK_EQ(1 + 1, 2);      // a failure marks the case, which goes on
 *	}
 *
 *	XP_TEST_MAIN()
 *
 * Arguments are the names of the cases to run; none means all, in the order of their definition.
 * Exit status: 0 all passed, 1 some failed, 2 no such case, 77 every case was skipped.
 *
 * Invariants:
 * I1. Output is flushed line by line: a crash loses nothing, and a forked child repeats nothing.
 * I2. CHECK and its kin may be used from any thread of a case, not from a signal handler. REQUIRE and SKIP return
 *     from the function they stand in, which must return void.
 * I3. A program has one XP_TEST_MAIN; cases may live in several of its files.
 */
#ifndef XP_TEST_H
#define XP_TEST_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

struct xp_test_case {
	const char *name;
	void (*run)(void);
	struct xp_test_case *next;
};

struct xp_test_state {
	struct xp_test_case *first, *last;
	unsigned failures;       /* of the case that runs; atomic */
	const char *skip_reason; /* of the case that runs, or NULL */
};

/* Defined by XP_TEST_MAIN(). */
extern struct xp_test_state xp_test_state;

#define XP_TEST(case_name)                                                                                  \
	static void xp_test_run_##case_name(void);                                                          \
	__attribute__((constructor)) static void xp_test_add_##case_name(void)                              \
	{                                                                                                   \
		static struct xp_test_case self = { #case_name, xp_test_run_##case_name, NULL };            \
		xp_test_add(&self);                                                                         \
	}                                                                                                   \
	static void xp_test_run_##case_name(void)

#define XP_TEST_MAIN()                                                                                      \
	struct xp_test_state xp_test_state;                                                                 \
	int main(int argc, char **argv)                                                                     \
	{                                                                                                   \
		return xp_test_main(argc, argv);                                                            \
	}

/* A line of information, printf-style. */
#define XP_TEST_NOTE(...) (printf("# " __VA_ARGS__), (void)putchar('\n'))

#define CHECK(condition) ((void)xp_test_check(!!(condition), #condition, __FILE__, __LINE__))

/* Integers of any type, up to 64 bits; an unsigned value above INT64_MAX equals its negative twin. */
#define CHECK_EQ(a, b)                                                                                      \
	((void)xp_test_check_eq((long long)(a), (long long)(b), #a " == " #b, __FILE__, __LINE__))

#define CHECK_STR(a, b) ((void)xp_test_check_str((a), (b), #a " equals " #b, __FILE__, __LINE__))

#define CHECK_MEM(a, b, len)                                                                                \
	((void)xp_test_check_mem((a), (b), (len), #a " equals " #b " for " #len, __FILE__, __LINE__))

#define REQUIRE(condition)                                                                                  \
	do {                                                                                                \
		if (!xp_test_check(!!(condition), #condition, __FILE__, __LINE__))                          \
			return;                                                                             \
	} while (0)

#define REQUIRE_EQ(a, b)                                                                                    \
	do {                                                                                                \
		if (!xp_test_check_eq((long long)(a), (long long)(b), #a " == " #b, __FILE__, __LINE__))    \
			return;                                                                             \
	} while (0)

#define SKIP(reason)                                                                                        \
	do {                                                                                                \
		xp_test_state.skip_reason = (reason);                                                       \
		return;                                                                                     \
	} while (0)

static inline void xp_test_add(struct xp_test_case *test)
{
	if (xp_test_state.last)
		xp_test_state.last->next = test;
	else
		xp_test_state.first = test;
	xp_test_state.last = test;
}

/* Counts a failure; whether to print it: an exhaustive test may fail a million times, and the first few tell all. */
static inline bool xp_test_failure(void)
{
	enum { SHOWN = 20 };
	unsigned nr = __atomic_add_fetch(&xp_test_state.failures, 1, __ATOMIC_RELAXED);

	if (nr == SHOWN + 1)
		printf("# further failures are counted, not shown\n");
	return nr <= SHOWN;
}

static inline bool xp_test_check(bool ok, const char *text, const char *file, int line)
{
	if (!ok && xp_test_failure())
		printf("# %s:%d: %s\n", file, line, text);
	return ok;
}

static inline bool xp_test_check_eq(long long a, long long b, const char *text, const char *file, int line)
{
	if (a != b && xp_test_failure())
		printf("# %s:%d: %s (%lld, %lld; %#llx, %#llx)\n", file, line, text, a, b, (unsigned long long)a,
		       (unsigned long long)b);
	return a == b;
}

static inline bool xp_test_check_str(const char *a, const char *b, const char *text, const char *file, int line)
{
	bool ok = a && b ? !strcmp(a, b) : a == b;

	if (!ok && xp_test_failure())
		printf("# %s:%d: %s (\"%s\", \"%s\")\n", file, line, text, a ? a : "(null)", b ? b : "(null)");
	return ok;
}

static inline bool xp_test_check_mem(const void *a, const void *b, size_t len, const char *text, const char *file,
				     int line)
{
	const unsigned char *x = (const unsigned char *)a, *y = (const unsigned char *)b;
	size_t at = 0;

	while (at < len && x[at] == y[at])
		at++;
	if (at < len && xp_test_failure())
		printf("# %s:%d: %s (at byte %zu: %02x, %02x)\n", file, line, text, at, x[at], y[at]);
	return at == len;
}

/* The seed of this run: XP_TEST_SEED from the environment, or the clock; printed, for a failure to be repeated. */
static inline uint64_t xp_test_seed(void)
{
	const char *given = getenv("XP_TEST_SEED");
	struct timespec now = { 0, 0 };
	uint64_t seed;

	timespec_get(&now, TIME_UTC);
	seed = given ? strtoull(given, NULL, 0) : (uint64_t)now.tv_sec * 1000000007u ^ (uint64_t)now.tv_nsec;
	printf("# XP_TEST_SEED=%llu\n", (unsigned long long)seed);
	return seed;
}

/* The next random number (splitmix64); @state starts as a seed. */
static inline uint64_t xp_test_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

static inline bool xp_test_selected(const struct xp_test_case *test, int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (!strcmp(argv[i], test->name))
			return true;
	return argc < 2;
}

static inline int xp_test_main(int argc, char **argv)
{
	unsigned nr = 0, selected = 0, failed = 0, skipped = 0;

	for (int i = 1; i < argc; i++) {
		const struct xp_test_case *test = xp_test_state.first;

		while (test && strcmp(argv[i], test->name))
			test = test->next;
		if (!test) {
			fprintf(stderr, "%s: no case named %s\n", argv[0], argv[i]);
			return 2;
		}
	}
	for (const struct xp_test_case *test = xp_test_state.first; test; test = test->next)
		selected += xp_test_selected(test, argc, argv);

	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("1..%u%s\n", selected, selected ? "" : " # SKIP no cases");
	for (const struct xp_test_case *test = xp_test_state.first; test; test = test->next) {
		if (!xp_test_selected(test, argc, argv))
			continue;
		nr++;
		xp_test_state.failures = 0;
		xp_test_state.skip_reason = NULL;
		test->run();
		if (xp_test_state.failures) {
			printf("# %u failures\nnot ok %u - %s\n", xp_test_state.failures, nr, test->name);
			failed++;
		} else if (xp_test_state.skip_reason) {
			printf("ok %u - %s # SKIP %s\n", nr, test->name, xp_test_state.skip_reason);
			skipped++;
		} else {
			printf("ok %u - %s\n", nr, test->name);
		}
	}
	return failed ? 1 : skipped == selected ? 77 : 0;
}

#ifdef __cplusplus
}
#endif

#endif
