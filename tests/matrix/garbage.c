// SPDX-License-Identifier: MIT
/*
 * Half of its functions are never called. The linker may discard them only together with their records: a record of a
 * function that is gone would point into something else. Argument: the number of records there must be, or nothing.
 */
#include <crosspatch/crosspatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

XP_DEFINE_STATIC_KEY_FALSE(key);
XP_DEFINE_STATIC_SWITCH(choice, 26, 0);

#define FUNCTION(name)                                                                                                 \
	__attribute__((noinline)) int name(void);                                                                      \
	int name(void)                                                                                                 \
	{                                                                                                              \
		__asm__ volatile("" ::: "memory");                                                                     \
		return (xp_static_branch_unlikely(&key) ? 1 : 0) + (xp_static_switch(&choice) == 25 ? 2 : 0);          \
	}

/* A live one first: GNU ld keeps the very first record of a program, and so its function, whatever it is told. */
FUNCTION(live_first)
FUNCTION(dead_first)
FUNCTION(dead_second)
FUNCTION(live_second)
FUNCTION(dead_third)

int main(int argc, char **argv)
{
	long nr = __stop_xp_branch_sites - __start_xp_branch_sites;
	long nr_switches = __stop_xp_switch_sites - __start_xp_switch_sites;
	int bad = 0;

	for (const struct xp_branch_site *site = __start_xp_branch_sites; site < __stop_xp_branch_sites; site++) {
		const unsigned char *code = (const unsigned char *)&site->code + site->code;

		bad += code[0] != 0xa9;
	}
	bad += live_first() + live_second();
	bad += xp_static_branch_enable(&key) != 0;
	bad += live_first() + live_second() != 2;
	bad += xp_static_switch_set(&choice, 25) != 0;
	bad += live_first() + live_second() != 6;
	bad += argc > 1 && (atol(argv[1]) != nr || atol(argv[1]) != nr_switches);
	printf("%ld and %ld records, %d failures\n", nr, nr_switches, bad);
	return bad != 0;
}
