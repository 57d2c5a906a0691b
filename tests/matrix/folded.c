// SPDX-License-Identifier: MIT
/*
 * Pairs of functions that differ only in the object that their site belongs to, or in which choice goes where. A linker that
 * folds identical code must keep them apart, or a change of one object changes the other's site. Of `same_a` and `same_b` it
 * keeps one: with an argument, the program fails if it did not, and so shows nothing. And twins, with sites of the same object,
 * of which a linker may keep one: then the site has two records.
 */
#include <crosspatch/crosspatch.h>
#include <stdio.h>

#define NOINLINE __attribute__((noinline))

static XP_DEFINE_STATIC_KEY_FALSE(key_a);
static XP_DEFINE_STATIC_KEY_FALSE(key_b);
XP_DEFINE_STATIC_KEY_ARRAY_TRUE(keys, 2);
static XP_DEFINE_STATIC_SWITCH(switch_a, 30, 0);
static XP_DEFINE_STATIC_SWITCH(switch_b, 30, 0);
XP_DEFINE_IMV(char, of_one_a, 1);
XP_DEFINE_IMV(char, of_one_b, 1);
XP_DEFINE_IMV(short, of_two_a, 1);
XP_DEFINE_IMV(short, of_two_b, 1);
XP_DEFINE_IMV(int, of_four_a, 1);
XP_DEFINE_IMV(int, of_four_b, 1);
#ifdef __x86_64__
XP_DEFINE_IMV(long, of_eight_a, 1);
XP_DEFINE_IMV(long, of_eight_b, 1);
#endif

static NOINLINE int old_target(int x)
{
	return x + 1;
}

static NOINLINE int new_target(int x)
{
	return x + 2;
}

XP_DEFINE_STATIC_CALL(call_a, old_target);
XP_DEFINE_STATIC_CALL(call_b, old_target);
XP_DECLARE_GATE(int, gate_a, (int x));
XP_DECLARE_GATE(int, gate_b, (int x));

#define PAIR(name, a, b)                                                                                               \
	static NOINLINE int name##_a(void)                                                                             \
	{                                                                                                              \
		__asm__ volatile("");                                                                                  \
		return (a);                                                                                            \
	}                                                                                                              \
	static NOINLINE int name##_b(void)                                                                             \
	{                                                                                                              \
		__asm__ volatile("");                                                                                  \
		return (b);                                                                                            \
	}

PAIR(same, 7, 7)
PAIR(unlikely, xp_static_branch_unlikely(&key_a) ? 2 : 1, xp_static_branch_unlikely(&key_b) ? 2 : 1)
PAIR(likely, xp_static_branch_likely(&key_a) ? 2 : 1, xp_static_branch_likely(&key_b) ? 2 : 1)
PAIR(element, xp_static_branch_likely(&keys[0]) ? 1 : 2, xp_static_branch_likely(&keys[1]) ? 1 : 2)
PAIR(choice, xp_static_switch(&switch_a) == 29 ? 2 : 1, xp_static_switch(&switch_b) == 29 ? 2 : 1)
PAIR(one, xp_imv_read(of_one_a), xp_imv_read(of_one_b))
PAIR(two, xp_imv_read(of_two_a), xp_imv_read(of_two_b))
PAIR(four, xp_imv_read(of_four_a), xp_imv_read(of_four_b))
#ifdef __x86_64__
PAIR(eight, (int)xp_imv_read(of_eight_a), (int)xp_imv_read(of_eight_b))
#endif
PAIR(call, xp_static_call(call_a)(0), xp_static_call(call_b)(0))
PAIR(gate, xp_gate(gate_a)(0), xp_gate(gate_b)(0))

#define TWINS(name, expression) PAIR(name, expression, expression)

static XP_DEFINE_STATIC_KEY_FALSE(key_c);
static XP_DEFINE_STATIC_SWITCH(switch_c, 3, 0);
XP_DEFINE_IMV(int, value_c, 1);
XP_DEFINE_STATIC_CALL(call_c, old_target);
XP_DECLARE_GATE(int, gate_c, (int x));
TWINS(twin_branch, xp_static_branch_unlikely(&key_c) ? 2 : 1)
TWINS(twin_switch, xp_static_switch(&switch_c) == 2 ? 2 : 1)
TWINS(twin_value, xp_imv_read(value_c))
TWINS(twin_call, xp_static_call(call_c)(0))
TWINS(twin_gate, xp_gate(gate_c)(0))

/* The blocks are laid out alike whichever choice leads there: the last, which is cold, in a section of its own. */
static NOINLINE __attribute__((cold)) int cold_block(int x)
{
	__asm__ volatile("");
	return x + 3;
}

#define PERMUTED(name, first, second, third)                                                                           \
	static NOINLINE int name(void)                                                                                 \
	{                                                                                                              \
		switch (xp_static_switch(&switch_c)) {                                                                 \
		case first:                                                                                            \
			__asm__ volatile("nop");                                                                       \
			return 1;                                                                                      \
		case second:                                                                                           \
			__asm__ volatile("nop; nop");                                                                  \
			return 2;                                                                                      \
		case third:                                                                                            \
			return cold_block(0) + 4;                                                                      \
		default:                                                                                               \
			return 0;                                                                                      \
		}                                                                                                      \
	}
PERMUTED(permuted_a, 0, 1, 2)
PERMUTED(permuted_b, 0, 2, 1)

static int bad;

static void look(const char *what, int error, int a, int b, int expected_a, int expected_b)
{
	if (!error && a == expected_a && b == expected_b)
		return;
	printf("%s: error %d; %d and %d, not %d and %d\n", what, error, a, b, expected_a, expected_b);
	bad++;
}

/* Only the first of each pair changes. */
#define CHANGED(name, old, change)                                                                                     \
	do {                                                                                                           \
		int error = (change);                                                                                  \
		look(#name, error, name##_a(), name##_b(), 2, old);                                                    \
	} while (0)

int main(int argc, char **argv)
{
	int (*volatile same[2])(void) = {same_a, same_b};
	int error;

	(void)argv;
	look("registered", xp_module_error(), same_a(), same_b(), 7, 7);
	CHANGED(unlikely, 1, xp_static_branch_enable(&key_a));
	CHANGED(likely, 1, 0);
	CHANGED(element, 1, xp_static_branch_disable(&keys[0]));
	CHANGED(choice, 1, xp_static_switch_set(&switch_a, 29));
	CHANGED(one, 1, xp_imv_set(of_one_a, 2));
	CHANGED(two, 1, xp_imv_set(of_two_a, 2));
	CHANGED(four, 1, xp_imv_set(of_four_a, 2));
#ifdef __x86_64__
	CHANGED(eight, 1, xp_imv_set(of_eight_a, 2));
#endif
	CHANGED(call, 1, xp_static_call_update(call_a, new_target));
	CHANGED(gate, 0, xp_gate_provide("gate_a", new_target));
	look("twins", 0, twin_branch_a() + twin_switch_a() + twin_value_a() + twin_call_a(),
	     twin_branch_b() + twin_switch_b() + twin_value_b() + twin_call_b(), 4, 4);
	look("permuted, at first", 0, permuted_a(), permuted_b(), 1, 1);
	CHANGED(twin_branch, 2, xp_static_branch_enable(&key_c));
	CHANGED(twin_switch, 2, xp_static_switch_set(&switch_c, 2));
	look("permuted", 0, permuted_a(), permuted_b(), 7, 2);
	CHANGED(twin_value, 2, xp_imv_set(value_c, 2));
	CHANGED(twin_call, 2, xp_static_call_update(call_c, new_target));
	CHANGED(twin_gate, 2, xp_gate_provide("gate_c", new_target));
	error = xp_static_switch_set(&switch_c, 1);
	look("switch back", error, permuted_a(), permuted_b(), 2, 7);
	error = xp_static_branch_disable(&key_c);
	look("key back", error, twin_branch_a(), twin_branch_b(), 1, 1);
	if (argc > 1 && same[0] != same[1]) {
		puts("the linker folded nothing");
		bad++;
	}
	return bad != 0;
}
