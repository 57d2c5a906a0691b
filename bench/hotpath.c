// SPDX-License-Identifier: MIT
/*
 * What a condition costs where it is executed: a loop with nothing but the condition, in several forms.
 *
 * Floor and negative control: the same loop without one. The conditions are false, or lead to an empty block out of
 * line, from which a second jump comes back. What the compiler makes of each is the point, so every loop is a
 * function of its own that nothing is inlined into.
 * --count NAME N executes one loop N times and nothing else, for hotpath-count, which counts instructions.
 */
#include "bench.h"

#include <crosspatch/crosspatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static XP_DEFINE_STATIC_KEY_FALSE(off);
static XP_DEFINE_STATIC_KEY_TRUE(on);
static XP_DEFINE_STATIC_SWITCH(choice, 8, 0);

bool plain_flag;
volatile bool volatile_flag;
bool atomic_flag;
void (*function_pointer)(void);
int plain_choice;

#define BLOCK __asm__ volatile("# the block" ::: "memory")
/* Eight blocks that differ, so that none is shared. */
#define BLOCK_OF(i)                                                                                                    \
	case i:                                                                                                        \
		__asm__ volatile("# block %c0" : : "i"(i) : "memory");                                                 \
		break;
#define EIGHT(x)                                                                                                       \
	switch (x) {                                                                                                   \
		BLOCK_OF(0)                                                                                            \
		BLOCK_OF(1)                                                                                            \
		BLOCK_OF(2)                                                                                            \
		BLOCK_OF(3)                                                                                            \
		BLOCK_OF(4)                                                                                            \
		BLOCK_OF(5)                                                                                            \
		BLOCK_OF(6)                                                                                            \
		BLOCK_OF(7)                                                                                            \
	}
/* "memory": a plain flag is loaded each time, as in a loop that does something. */
#define LOOP(name, body)                                                                                               \
	__attribute__((noinline, noclone, aligned(64))) static void loop_##name(uint64_t n)                            \
	{                                                                                                              \
		while (n-- > 0) {                                                                                      \
			__asm__ volatile("" ::: "memory");                                                             \
			body                                                                                           \
		}                                                                                                      \
	}

LOOP(nothing, )
LOOP(key_off, if (xp_static_branch_unlikely(&off)) BLOCK;)
LOOP(key_on, if (xp_static_branch_unlikely(&on)) BLOCK;)
LOOP(plain, if (__builtin_expect(plain_flag, 0)) BLOCK;)
LOOP(volatile, if (__builtin_expect(volatile_flag, 0)) BLOCK;)
LOOP(relaxed, if (__builtin_expect(__atomic_load_n(&atomic_flag, __ATOMIC_RELAXED), 0)) BLOCK;)
LOOP(pointer, function_pointer();)
LOOP(switch, EIGHT(xp_static_switch(&choice)))
LOOP(plain_switch, EIGHT(plain_choice))

__attribute__((noinline, noclone)) static void empty(void)
{
	BLOCK;
}

static const struct {
	const char *name, *title;
	void (*loop)(uint64_t);
} loops[] = {
	{"nothing", "nothing", loop_nothing},
	{"key-off", "static key, off", loop_key_off},
	{"key-on", "static key, on", loop_key_on},
	{"plain", "plain flag", loop_plain},
	{"volatile", "volatile flag", loop_volatile},
	{"relaxed", "atomic flag, relaxed", loop_relaxed},
	{"pointer", "function pointer", loop_pointer},
	{"switch", "static switch, 8 choices", loop_switch},
	{"plain-switch", "switch on a variable, 8 cases", loop_plain_switch},
};
#define NR (sizeof(loops) / sizeof(loops[0]))
#define ITERATIONS 200000u

static int count(const char *name, const char *number)
{
	for (size_t i = 0; i < NR; i++) {
		if (strcmp(loops[i].name, name) != 0)
			continue;
		loops[i].loop(strtoull(number, NULL, 10));
		return 0;
	}
	bench_die("no loop named %s", name);
}

int main(int argc, char **argv)
{
	struct bench_case cases[NR];
	int i;

	function_pointer = empty;
	if (argc == 4 && strcmp(argv[1], "--count") == 0)
		return count(argv[2], argv[3]);
	if (argc == 2 && strcmp(argv[1], "--list") == 0) {
		for (size_t k = 0; k < NR; k++)
			puts(loops[k].name);
		return 0;
	}
	i = bench_start(argc, argv, "bench_hotpath", " | --list | --count NAME N");
	if (i < argc)
		bench_die("unknown option %s", argv[i]);
	bench_pin(0);
	memset(cases, 0, sizeof(cases));
	for (size_t k = 0; k < NR; k++) {
		cases[k].name = loops[k].title;
		cases[k].step = loops[k].loop;
		cases[k].argument = ITERATIONS;
		cases[k].per = ITERATIONS;
		cases[k].floor = k > 0 ? &cases[0] : NULL;
	}
	bench_group("a loop with a condition and nothing else, per iteration", cases, NR, 100, 10);
	return bench_end();
}
