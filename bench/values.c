// SPDX-License-Identifier: MIT
/*
 * What reading a value costs: an immediate, a global variable, an atomic one.
 *
 * In a loop, where the variable is in the first cache; and once, after its cache line was evicted, or everything from the
 * data caches. The second takes the code from the unified caches too: it shows what an immediate costs where the program
 * itself is cold, as a load does not. Floor and negative control: the same without a read.
 */
#include "bench.h"

#include <crosspatch/crosspatch.h>
#include <string.h>

XP_DEFINE_IMV(uint32_t, immediate, 5);
XP_DEFINE_IMV(uint64_t, immediate_8, 5);
static struct {
	uint32_t plain;
	uint32_t atomic;
} variable __attribute__((aligned(64))) = {5, 5};
uint64_t bench_sink;

#define READ_NOTHING 0
#define READ_IMMEDIATE xp_imv_read(immediate)
#define READ_IMMEDIATE_8 xp_imv_read(immediate_8)
#define READ_PLAIN variable.plain
#define READ_ATOMIC __atomic_load_n(&variable.atomic, __ATOMIC_RELAXED)

/* "memory": a plain variable is loaded each time, as in a loop that does something. */
#define LOOP(name, value)                                                                                              \
	__attribute__((noinline, noclone, aligned(64))) static void loop_##name(uint64_t n)                            \
	{                                                                                                              \
		uint64_t sum = 0;                                                                                      \
                                                                                                                       \
		while (n-- > 0) {                                                                                      \
			__asm__ volatile("" : "+r"(sum) : : "memory");                                                 \
			sum += value;                                                                                  \
		}                                                                                                      \
		bench_sink = sum;                                                                                      \
	}

LOOP(nothing, READ_NOTHING)
LOOP(immediate, READ_IMMEDIATE)
LOOP(immediate_8, READ_IMMEDIATE_8)
LOOP(plain, READ_PLAIN)
LOOP(atomic, READ_ATOMIC)

static const struct {
	const char *name;
	void (*loop)(uint64_t);
} loops[] = {
	{"nothing", loop_nothing},
	{"immediate value, 4 bytes", loop_immediate},
	{"immediate value, 8 bytes", loop_immediate_8},
	{"global variable", loop_plain},
	{"atomic variable, relaxed", loop_atomic},
};
#define NR (sizeof(loops) / sizeof(loops[0]))
#define ITERATIONS 200000u

static void evict_line(uint64_t nothing)
{
	(void)nothing;
	__asm__ volatile("clflush %0\n\tmfence" : "+m"(variable));
}

static void evict_everything(uint64_t nothing)
{
	bench_evict();
	evict_line(nothing);
}

static void group(const char *title, void (*before)(uint64_t), uint64_t times, unsigned rounds, unsigned block)
{
	struct bench_case cases[NR];

	memset(cases, 0, sizeof(cases));
	for (size_t k = 0; k < NR; k++) {
		cases[k].name = loops[k].name;
		cases[k].step = loops[k].loop;
		cases[k].before = before;
		cases[k].argument = times;
		cases[k].per = (double)times;
		cases[k].floor = k > 0 ? &cases[0] : NULL;
	}
	bench_group(title, cases, NR, rounds, block);
}

int main(int argc, char **argv)
{
	int i = bench_start(argc, argv, "bench_values", "");

	if (i < argc)
		bench_die("unknown option %s", argv[i]);
	bench_pin(0);
	bench_check(xp_module_error(), "registering the values");
	group("a loop that adds up a value, per iteration", NULL, ITERATIONS, 100, 10);
	group("one read, the variable's cache line evicted", evict_line, 1, 100, 50);
	group("one read, all data caches evicted", evict_everything, 1, 10, 5);
	return bench_end();
}
