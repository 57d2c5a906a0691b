// SPDX-License-Identifier: MIT
/*
 * What a call of an empty function costs, by the way it is called. All loops are the same instructions but for the call
 * itself: written in assembly, so that the compiler turns none into another. Floor: the direct call; negative control: the
 * loop without a call. The trampoline is measured in both forms: jumping through its word, as before the first update
 * and for targets out of reach, and jumping directly.
 */
#include "bench.h"

#include <crosspatch/crosspatch.h>
#include <string.h>

#define SITE(call)                                                                                                     \
	"2: .byte 0xe8\n"                                                                                              \
	".long xp_trampoline_" #call " - (. + 4)\n"                                                                    \
	".pushsection xp_call_sites,\"ao\",@progbits,loop_" #call "\n"                                                             \
	".long 2b - .\n"                                                                                               \
	".long xp_call_" #call " - .\n"                                                                                \
	".popsection\n"

void callee_plt(void);
void callee_ifunc(void);

__attribute__((used, noinline)) static void empty(void)
{
	__asm__ volatile("" ::: "memory");
}

__attribute__((used)) static void (*volatile pointer)(void) = empty;

XP_DEFINE_STATIC_CALL(fresh, empty);
XP_DEFINE_STATIC_CALL(updated, empty);
XP_DEFINE_STATIC_CALL(placed, empty);
XP_DEFINE_STATIC_CALL_LAZY(lazy, empty);

CALL_LOOP(nothing, "");
CALL_LOOP(direct, "call empty");
CALL_LOOP(placed, SITE(placed));
CALL_LOOP(lazy, "call xp_trampoline_lazy");
CALL_LOOP(updated, "call xp_trampoline_updated");
CALL_LOOP(fresh, "call xp_trampoline_fresh");
CALL_LOOP(pointer, "call *pointer(%rip)");
CALL_LOOP(plt, "call callee_plt@PLT");
CALL_LOOP(ifunc, "call callee_ifunc@PLT");

static const struct {
	const char *title;
	void (*loop)(uint64_t);
} loops[] = {
	{"direct call", loop_direct},
	{"nothing", loop_nothing},
	{"static call, in place", loop_placed},
	{"static call, found when executed", loop_lazy},
	{"static call, trampoline", loop_updated},
	{"static call, trampoline through its word", loop_fresh},
	{"function pointer", loop_pointer},
	{"PLT", loop_plt},
	{"PLT, IFUNC", loop_ifunc},
};
#define NR (sizeof(loops) / sizeof(loops[0]))
#define ITERATIONS 200000u

int main(int argc, char **argv)
{
	struct bench_case cases[NR];
	int i = bench_start(argc, argv, "bench_calls", "");

	if (i < argc)
		bench_die("unknown option %s", argv[i]);
	bench_check(xp_module_error(), "registering the call sites");
	bench_check(xp_static_call_update(placed, empty), "placing the site");
	bench_check(xp_static_call_update(updated, empty), "updating the trampoline");
	bench_pin(0);
	memset(cases, 0, sizeof(cases));
	for (size_t k = 0; k < NR; k++) {
		cases[k].name = loops[k].title;
		cases[k].step = loops[k].loop;
		cases[k].argument = ITERATIONS;
		cases[k].per = ITERATIONS;
		cases[k].floor = k > 0 ? &cases[0] : NULL;
	}
	bench_group("a loop with a call of an empty function and nothing else, per iteration", cases, NR, 100, 10);
	return bench_end();
}
