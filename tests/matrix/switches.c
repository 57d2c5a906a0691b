// SPDX-License-Identifier: MIT
/*
 * Static switches of every size that matters: one group of labels, one more than that, all of them. Makes each choice
 * under two policies and asks every site. C++ compiles this file too. Prints the number of its site records.
 * With WITH_CODE_BETWEEN the compiler is expected to put code between the groups, so that choices are loaded there.
 */
#include <crosspatch/crosspatch.h>
#include <stdio.h>

#define SIZES(X) X(2) X(3) X(8) X(24) X(25) X(26) X(100) X(256)

XP_DECLARE_STATIC_SWITCH(switch_8, 8);
XP_DECLARE_STATIC_SWITCH_SHARED(common, 3);
XP_DEFINE_STATIC_SWITCH_SHARED(common, 3, 2);

#define DEFINE(n) XP_DEFINE_STATIC_SWITCH(switch_##n, n, n - 1);
SIZES(DEFINE)
static XP_DEFINE_STATIC_SWITCH(local, 3, 1);

volatile int sink;

/* Each case a block of its own. */
#define CASE(i)                                                                                                        \
	case i:                                                                                                        \
		sink = (i)*7;                                                                                          \
		__asm__ volatile("" : : "i"(1000 + (i)) : "memory");                                                   \
		return i;
#define CASES_4(i) CASE(i) CASE(i + 1) CASE(i + 2) CASE(i + 3)
#define CASES_16(i) CASES_4(i) CASES_4(i + 4) CASES_4(i + 8) CASES_4(i + 12)
#define CASES_64(i) CASES_16(i) CASES_16(i + 16) CASES_16(i + 32) CASES_16(i + 48)
#define CASES_2 CASE(0) CASE(1)
#define CASES_3 CASES_2 CASE(2)
#define CASES_8 CASES_4(0) CASES_4(4)
#define CASES_24 CASES_16(0) CASES_4(16) CASES_4(20)
#define CASES_25 CASES_24 CASE(24)
#define CASES_26 CASES_25 CASE(25)
#define CASES_100 CASES_64(0) CASES_16(64) CASES_16(80) CASES_4(96)
#define CASES_256 CASES_64(0) CASES_64(64) CASES_64(128) CASES_64(192)

#ifdef __cplusplus
extern "C" {
#endif
/* pick_N is disassembled by run: one jump, and no test of what it leads to. */
#define PICK(n)                                                                                                        \
	int pick_##n(void);                                                                                            \
	__attribute__((noinline)) int pick_##n(void)                                                                   \
	{                                                                                                              \
		switch (xp_static_switch(&switch_##n)) {                                                               \
			CASES_##n                                                                                      \
		}                                                                                                      \
		return -1;                                                                                             \
	}
SIZES(PICK)
#ifdef __cplusplus
}
#endif

/* What compilers do to copies: inlined twice, in a loop, as a value. */
static inline int twice(void)
{
	switch (xp_static_switch(&switch_26)) {
	case 0:
		return 0;
	case 25:
		sink++;
		return 25;
	default:
		return -1;
	}
}

static int expected_of_twice(int choice)
{
	return choice == 0 || choice == 25 ? choice : -1;
}

static int in_a_loop(int rounds)
{
	int sum = 0;

	for (int i = 0; i < rounds; i++) {
		switch (xp_static_switch(&switch_100)) {
		case 0:
		case 1:
			sum += 1;
			break;
		case 99:
			if (xp_static_switch(&local) == 1)
				break;
			sum += 10000;
			continue;
		default:
			sum += 100;
		}
	}
	return sum;
}

static int expected_of_loop(int rounds)
{
	int choice = xp_static_switch_choice(&switch_100);

	if (choice < 99)
		return choice < 2 ? rounds : 100 * rounds;
	return xp_static_switch_choice(&local) == 1 ? 0 : 10000 * rounds;
}

static int failures;

static void check(const char *what, int found, int expected)
{
	if (found == expected)
		return;
	if (failures++ < 20)
		printf("%s: %d, not %d\n", what, found, expected);
}

static void look(void)
{
#define LOOK(n)                                                                                                        \
	check("pick " #n, pick_##n(), xp_static_switch_choice(&switch_##n));                                           \
	check("value of " #n, xp_static_switch(&switch_##n), xp_static_switch_choice(&switch_##n));
	SIZES(LOOK)
	check("local", xp_static_switch(&local), xp_static_switch_choice(&local));
	check("common", xp_static_switch(&common), xp_static_switch_choice(&common));
	check("twice", twice() + 2 * twice(), 3 * expected_of_twice(xp_static_switch_choice(&switch_26)));
	check("loop", in_a_loop(4), expected_of_loop(4));
}

static void choose_all(void)
{
#define CHOOSE(n)                                                                                                      \
	for (int i = 0; i < n; i++) {                                                                                  \
		int choice = (i * 5 + 1) % n;                                                                          \
		check("set " #n, xp_static_switch_set(&switch_##n, choice), 0);                                        \
		check("choice of " #n, xp_static_switch_choice(&switch_##n), choice);                                  \
		look();                                                                                                \
	}                                                                                                              \
	check("set beyond " #n, xp_static_switch_set(&switch_##n, n + sink - sink), -22);
	SIZES(CHOOSE)
	for (int i = 0; i < 3; i++) {
		check("set local", xp_static_switch_set(&local, i), 0);
		check("set common", xp_static_switch_set(&common, i), 0);
		look();
	}
}

/*
 * Which sites load the choice: those that believe a lie. The library does not look at the word before it has the lock, and
 * puts the truth back.
 */
static int loads;

static void lie(void)
{
#define LIE(n)                                                                                                         \
	for (int i = 0; i < n; i++) {                                                                                  \
		struct xp_static_switch *told = (struct xp_static_switch *)(void *)&switch_##n;                        \
		check("set " #n, xp_static_switch_set(&switch_##n, i), 0);                                             \
		__atomic_store_n(&told->choice, (uint32_t)(i + 1) % n, __ATOMIC_RELAXED);                              \
		loads += pick_##n() != i;                                                                              \
		__atomic_store_n(&told->choice, (uint32_t)i, __ATOMIC_RELAXED);                                        \
	}
	SIZES(LIE)
#ifdef WITH_CODE_BETWEEN
	check("some choices are loaded", loads > 0, 1);
#else
	check("choices that are loaded", loads, 0);
#endif
}

int main(void)
{
	check("start", xp_module_error(), 0);
	check("initial", xp_static_switch_choice(&switch_256), 255);
	check("initial", xp_static_switch_choice(&common), 2);
	look();
	choose_all();
	check("policy", xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	choose_all();
	lie();
	printf("%ld records, %d failures\n", (long)(__stop_xp_switch_sites - __start_xp_switch_sites), failures);
	return failures != 0;
}
