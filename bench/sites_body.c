// SPDX-License-Identifier: MIT
/*
 * Code with trace points. Compiled with SITES, the name of the result, and one of CONDITION_OUT, _FLAG: one flag for all,
 * _FLAGS: a flag of a byte for each, side by side; _KEY: one static key.
 */
#include "sites.h"

#include <crosspatch/crosspatch.h>

#if defined(CONDITION_OUT)
#define IS_ON(n) 0
#elif defined(CONDITION_FLAG)
#define IS_ON(n) __builtin_expect(__atomic_load_n(&bench_flag, __ATOMIC_RELAXED), 0)
#elif defined(CONDITION_FLAGS)
#define IS_ON(n) __builtin_expect(__atomic_load_n(&bench_flags[n], __ATOMIC_RELAXED), 0)
#else
#define IS_ON(n) xp_static_branch_unlikely(&bench_key)
#endif

/* Numbers are written with five digits, the first of which is 1 or 2. */
#define SITE(n)                                                                                                        \
	if (IS_ON(n - 10000))                                                                                          \
		sum = bench_note(sum, n);                                                                              \
	sum = (sum * 3) ^ n;
#define TEN(each, p)                                                                                                   \
	each(p##0) each(p##1) each(p##2) each(p##3) each(p##4) each(p##5) each(p##6) each(p##7) each(p##8) each(p##9)
#define TEN_SITES(p)                                                                                                   \
	SITE(p##0) SITE(p##1) SITE(p##2) SITE(p##3) SITE(p##4) SITE(p##5) SITE(p##6) SITE(p##7) SITE(p##8) SITE(p##9)
#define FUNCTION(f)                                                                                                    \
	__attribute__((noinline)) static uint64_t all_##f(uint64_t sum)                                                \
	{                                                                                                              \
		TEN(TEN_SITES, f)                                                                                      \
		return sum;                                                                                            \
	}
#define CALL(f) sum = all_##f(sum);
/* What TEN does, under other names: FUNCTION uses TEN, and no macro expands in itself. */
#define TEN_FUNCTIONS(p)                                                                                               \
	FUNCTION(p##0)                                                                                                 \
	FUNCTION(p##1)                                                                                                 \
	FUNCTION(p##2)                                                                                                 \
	FUNCTION(p##3)                                                                                                 \
	FUNCTION(p##4)                                                                                                 \
	FUNCTION(p##5)                                                                                                 \
	FUNCTION(p##6)                                                                                                 \
	FUNCTION(p##7)                                                                                                 \
	FUNCTION(p##8)                                                                                                 \
	FUNCTION(p##9)
#define TEN_CALLS(p)                                                                                                   \
	CALL(p##0) CALL(p##1) CALL(p##2) CALL(p##3) CALL(p##4) CALL(p##5) CALL(p##6) CALL(p##7) CALL(p##8) CALL(p##9)
#define ALL(each)                                                                                                      \
	each(10) each(11) each(12) each(13) each(14) each(15) each(16) each(17) each(18) each(19) each(20) each(21)    \
		each(22) each(23) each(24) each(25) each(26) each(27) each(28) each(29)

ALL(TEN_FUNCTIONS)

static uint64_t all(uint64_t sum)
{
	ALL(TEN_CALLS)
	return sum;
}

static uint64_t lookup(const uint64_t table[TABLE_SIZE], const uint64_t *keys, size_t nr)
{
	uint64_t found = 0;

	for (size_t i = 0; i < nr; i++) {
		size_t at = keys[i] * 0x9e3779b97f4a7c15u >> 51;

		while (table[at] != 0 && table[at] != keys[i])
			at = (at + 1) % TABLE_SIZE;
		if (IS_ON(NR_SITES))
			found = bench_note(found, at);
		found += table[at] != 0;
	}
	return found;
}

static uint64_t parse(const char *text)
{
	uint64_t sum = 0;

	while (*text) {
		const char *name = text;
		uint64_t number = 0;

		while (*text && *text != '=')
			text++;
		if (IS_ON(NR_SITES + 1))
			sum = bench_note(sum, (uint64_t)(text - name));
		if (*text)
			text++;
		while (*text >= '0' && *text <= '9')
			number = number * 10 + (uint64_t)(*text++ - '0');
		if (*text)
			text++;
		sum += number;
	}
	return sum;
}

const struct sites SITES = {all, lookup, parse};
