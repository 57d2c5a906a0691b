// SPDX-License-Identifier: MIT
/*
 * Immediate values of every kind of type, in C; sets each under two policies, and after each asks every file whether
 * what it reads is right. Prints the number of its site records.
 */
#include "values.h"

#include <stdio.h>
#include <string.h>

char letters[2];

int twice(int x)
{
	return 2 * x;
}

int thrice(int x)
{
	return 3 * x;
}

#define DEFINE(type, name, first, second)                                                                              \
	XP_DEFINE_IMV(type, name, first);                                                                              \
	type expected_##name = first;
VALUES(DEFINE)

XP_DEFINE_IMV_SHARED(long, v_common, 17);
long expected_common = 17;

static int failures, early_failures;

int look_main(void)
{
	int bad = look_inline();

#define LOOK(type, name, first, second) bad += xp_imv_read(name) != expected_##name;
	VALUES(LOOK)
	return bad + (xp_imv_read(v_function)(5) != expected_v_function(5));
}

/* So many at once that they take the registers that need a REX prefix. */
#define TWELVE(type, name)                                                                                             \
	static int twelve_##name(void)                                                                                 \
	{                                                                                                              \
		type a = xp_imv_read(name), b = xp_imv_read(name), c = xp_imv_read(name), d = xp_imv_read(name);       \
		type e = xp_imv_read(name), f = xp_imv_read(name), g = xp_imv_read(name), h = xp_imv_read(name);       \
		type i = xp_imv_read(name), j = xp_imv_read(name), k = xp_imv_read(name), l = xp_imv_read(name);       \
		type x = expected_##name;                                                                              \
                                                                                                                       \
		__asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f));                            \
		return (a != x) + (b != x) + (c != x) + (d != x) + (e != x) + (f != x) + (g != x) + (h != x) +         \
		       (i != x) + (j != x) + (k != x) + (l != x);                                                      \
	}
TWELVE(unsigned char, v_u8)
TWELVE(short, v_s16)
TWELVE(int, v_int)
TWELVE(unsigned long long, v_u64)

static int look_twelve(void)
{
	return twelve_v_u8() + twelve_v_s16() + twelve_v_int() + twelve_v_u64();
}

/* The compiler must not take the read out of the loop. */
static int change_in_a_loop(void)
{
	int sum = 0;

	for (int i = 0; i < 3; i++) {
		sum += xp_imv_read(v_int);
		if (i == 0 && xp_imv_set(v_int, 1000))
			return 1;
		expected_v_int = 1000;
	}
	return sum % 1000 == 0;
}

/* Constructors without a priority run after the sites were brought to their values. */
__attribute__((constructor)) static void early(void)
{
	early_failures = look_main() + look_twelve();
}

/* A record points at a mov of its length, whose operand lies in one aligned quadword. */
static int malformed(const struct xp_imv_site *site)
{
	const unsigned char *code = (const unsigned char *)&site->code + site->code;
	size_t operand = (size_t)code + site->len - site->size;
	unsigned opcode = code[site->len - site->size - 1];

	if (operand / 8 != (operand + site->size - 1) / 8 || site->zero != 0)
		return 1;
	return site->size == 1 ? (opcode & 0xf8) != 0xb0 : (opcode & 0xf8) != 0xb8;
}

static void check(const char *what, int error)
{
	int bad = look_main() + look_first() + look_second() + look_library() + look_twelve();

	if (!error && !bad)
		return;
	printf("%s: %d reads are wrong; %s\n", what, bad, error ? xp_strerror(error) : "no error");
	failures++;
}

static void set_all(void)
{
#define SET(type, name, first, second)                                                                                 \
	expected_##name = second;                                                                                      \
	check(#name, xp_imv_set(name, second));
#define SET_BACK(type, name, first, second)                                                                            \
	expected_##name = first;                                                                                       \
	check(#name " back", xp_imv_set(name, first));
	VALUES(SET)
	VALUES(SET_BACK)
	expected_common = 0x0102030405060708;
	check("common", xp_imv_set(v_common, expected_common));
	expected_common = 17;
	check("common, from the library", set_library(17));
	expected_common = 18;
	check("library", set_library(18));
	check("C++", set_cxx());
	expected_v_int = 5;
	check("before the loop", xp_imv_set(v_int, 5));
	check("loop", change_in_a_loop() ? -1 : 0);
}

static void set_batch(void)
{
	struct xp_batch *batch = xp_batch_new();
	int error = 0;

#define ADD(type, name, first, second)                                                                                 \
	expected_##name = second;                                                                                      \
	error |= xp_batch_add_imv(batch, name, second);
	VALUES(ADD)
	check("batch", error | xp_batch_commit(batch, NULL));
	xp_batch_free(batch);
}

int main(void)
{
	const struct xp_imv_site *site = __start_xp_imv_sites;
	long nr = __stop_xp_imv_sites - __start_xp_imv_sites;
	long least = 14 + 1 + 4 * 12 + 2; /* a compiler may copy sites, but drops none */

	check("start", xp_module_error());
	if (early_failures) {
		printf("%d reads of a constructor are wrong\n", early_failures);
		failures++;
	}
	if (nr < least) {
		printf("%ld records, at least %ld expected\n", nr, least);
		failures++;
	}
	for (; site < __stop_xp_imv_sites; site++)
		failures += malformed(site);

	set_all();
	set_batch();
	check("policy", xp_set_policy(XP_POLICY_BREAKPOINT));
	set_all();
	set_batch();
	printf("%ld records, %d failures\n", nr, failures);
	return failures != 0;
}
