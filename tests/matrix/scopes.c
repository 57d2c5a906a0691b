// SPDX-License-Identifier: MIT
/*
 * Sites before, in and behind the scopes of variables with cleanups and of arrays of variable length, into which no jump may
 * lead. clang before 17 holds that an asm goto may jump to every label of its kind: there XP_NO_ASM_GOTO.
 */
#if defined(__clang__) && __clang_major__ < 17 && !defined(XP_NO_ASM_GOTO)
#define XP_NO_ASM_GOTO
#endif
#include <crosspatch/crosspatch.h>
#include <stdio.h>

static XP_DEFINE_STATIC_KEY_FALSE(off);
static XP_DEFINE_STATIC_KEY_TRUE(on);
static XP_DEFINE_STATIC_SWITCH(choice, 3, 1);

static int cleaned;

static void clean(const int *value)
{
	cleaned += *value;
}

/* Each site adds a digit of its own. */
__attribute__((noinline)) static int look(int n)
{
	int sum = xp_static_branch_unlikely(&off) ? 1 : 0;

	for (int i = 0; i < 2; i++) {
		__attribute__((cleanup(clean))) int first = i;

		if (xp_static_branch_likely(&on))
			continue;
		sum += 10 * first;
		__attribute__((cleanup(clean))) int second = 2;
		sum += xp_static_branch_unlikely(&on) ? 50 : 0;
		sum += xp_static_switch(&choice) == second ? 1000 : 0;
	}
	{
		int array[n];

		array[n - 1] = xp_static_branch_likely(&off) ? 100 : 0;
		if (xp_static_switch(&choice) == 2)
			array[n - 1] += 10000;
		sum += array[n - 1];
	}
	return sum + (xp_static_branch_unlikely(&on) ? 100000 : 0);
}

static int bad;

static void check(const char *what, int error, int expected, int expected_cleaned)
{
	int got;

	cleaned = 0;
	got = look(3);
	if (!error && got == expected && cleaned == expected_cleaned)
		return;
	printf("%s: error %d, %d, not %d; cleaned %d\n", what, error, got, expected, cleaned);
	bad++;
}

int main(void)
{
	for (int round = 0; round < 2; round++) {
		check("start", xp_module_error(), 100000, 1);
		check("off", xp_static_branch_enable(&off), 100101, 1);
		check("choice", xp_static_switch_set(&choice, 2), 110101, 1);
		check("on", xp_static_branch_disable(&on), 12111, 5);
		check("choice, back", xp_static_switch_set(&choice, 1), 111, 5);
		check("off, back", xp_static_branch_disable(&off), 10, 5);
		check("on, back", xp_static_branch_enable(&on), 100000, 1);
		if (xp_set_policy(XP_POLICY_BREAKPOINT))
			bad++;
	}
	return bad != 0;
}
