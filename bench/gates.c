// SPDX-License-Identifier: MIT
/*
 * What binding costs, for 100 sites that each run once (S10's argument): by the dynamic linker, lazily and at once; by a
 * gate's resolver, by the fault of its UD2 form, eagerly in one commit; alone, and while another thread runs on another
 * processor. Then what a call costs that is bound. Each round has sites that were never executed, or are unbound again.
 */
#include "bench.h"

#include <crosspatch/crosspatch.h>
#include <dlfcn.h>
#include <string.h>

#define NR 100u
#define ROUNDS 120u

__attribute__((used, noinline)) static int answer(void)
{
	__asm__ volatile("" ::: "memory");
	return 0;
}

XP_DECLARE_GATE(int, thunk, (void));
XP_DECLARE_GATE(int, fault, (void));
XP_DECLARE_GATE(int, eager, (void));
XP_DECLARE_GATE(int, bound, (void));

/* @nr sites, called one after the other: round after round a hundred more. */
#define SITES(name, nr, bytes, flag, gate)                                                                             \
	__asm__(".pushsection .text\n"                                                                                 \
		".balign 64\n" #name ":\n"                                                                             \
		".rept " #nr "\n"                                                                                      \
		".balign 16\n"                                                                                         \
		"661: " bytes "\n"                                                                                     \
		"ret\n"                                                                                                \
		".pushsection xp_gate_sites,\"a\",@progbits\n"                                                         \
		".balign 4\n"                                                                                          \
		".long 661b - .\n"                                                                                     \
		".long xp_gate_" #gate " + " #flag " - .\n"                                                            \
		".popsection\n"                                                                                        \
		".endr\n"                                                                                              \
		".popsection");                                                                                        \
	extern uint8_t name[]

SITES(thunk_sites, 100, ".byte 0xe8\n.long xp_gate_stub_thunk - (. + 4)", 0, thunk);
SITES(eager_sites, 100, ".byte 0xe8\n.long xp_gate_stub_eager - (. + 4)", 0, eager);
SITES(fault_sites, 13000, ".byte 0x0f, 0x0b, 0x2e, 0xe8, 0, 0, 0, 0", 1, fault);

CALL_LOOP(direct, "call answer");
CALL_LOOP(bound, "call xp_gate_stub_bound");
CALL_LOOP(stub, "call xp_gate_stub_eager");

static void call_sites(const uint8_t *sites)
{
	for (unsigned i = 0; i < NR; i++)
		((int (*)(void))(uintptr_t)(sites + 16 * i))();
}

static double per_site(uint64_t ticks)
{
	return (double)ticks * bench_ns_per_tick / NR;
}

static double by_thunk(uint64_t unused)
{
	uint64_t start, end;

	(void)unused;
	bench_check(xp_gate_provide("thunk", answer), "provide");
	start = bench_clock();
	call_sites(thunk_sites);
	end = bench_clock();
	bench_check(xp_gate_withdraw("thunk"), "withdraw");
	return per_site(end - start);
}

static double by_fault(uint64_t unused)
{
	static unsigned round;
	uint64_t start;

	(void)unused;
	if (round == 130)
		bench_die("out of sites");
	start = bench_clock();
	call_sites(fault_sites + 16 * NR * round++);
	return per_site(bench_clock() - start);
}

static double by_commit(uint64_t unused)
{
	uint64_t start, end;

	(void)unused;
	xp_gate_set_eager(true);
	start = bench_clock();
	bench_check(xp_gate_provide("eager", answer), "provide");
	call_sites(eager_sites);
	end = bench_clock();
	xp_gate_set_eager(false);
	bench_check(xp_gate_withdraw("eager"), "withdraw");
	return per_site(end - start);
}

/* The functions are the executable's own symbols as a shared object sees them: bench_lazy's hundred. */
static double by_linker(uint64_t lazy)
{
	void *object = dlopen("bench_lazy.so", (lazy ? RTLD_LAZY : RTLD_NOW) | RTLD_LOCAL), *run;
	uint64_t start, end;

	if (object == NULL)
		bench_die("%s", dlerror());
	run = dlsym(object, "bench_lazy_run");
	start = bench_clock();
	((void (*)(void))(uintptr_t)run)();
	end = bench_clock();
	dlclose(object);
	return per_site(end - start);
}

/* What RTLD_NOW does in dlopen that RTLD_LAZY does not, and the calls. */
static double by_linker_now(uint64_t unused)
{
	uint64_t start = bench_clock(), end;
	void *object = dlopen("bench_lazy.so", RTLD_NOW | RTLD_LOCAL), *run;

	(void)unused;
	if (object == NULL)
		bench_die("%s", dlerror());
	run = dlsym(object, "bench_lazy_run");
	((void (*)(void))(uintptr_t)run)();
	end = bench_clock();
	dlclose(object);
	return per_site(end - start);
}

static double by_linker_open(uint64_t unused)
{
	uint64_t start = bench_clock(), end;
	void *object = dlopen("bench_lazy.so", RTLD_LAZY | RTLD_LOCAL);

	(void)unused;
	if (object == NULL)
		bench_die("%s", dlerror());
	(void)dlsym(object, "bench_lazy_run");
	end = bench_clock();
	dlclose(object);
	return per_site(end - start);
}

static uint64_t turns;

static void *spin(void *unused)
{
	(void)unused;
	for (;;)
		__atomic_store_n(&turns, turns + 1, __ATOMIC_RELAXED);
	return NULL;
}

static void binding(const char *title, bool with_fault)
{
	struct bench_case cases[] = {
		{.name = "dynamic linker, lazily", .value = by_linker, .argument = 1},
		{.name = "dynamic linker, dlopen alone, lazily", .value = by_linker_open},
		{.name = "dynamic linker, dlopen and calls, RTLD_NOW", .value = by_linker_now},
		{.name = "gate, resolver", .value = by_thunk},
		{.name = "gate, eagerly", .value = by_commit},
		{.name = "gate, UD2", .value = by_fault},
	};

	for (size_t i = 1; i < sizeof(cases) / sizeof(cases[0]); i++)
		cases[i].floor = &cases[0];
	bench_group(title, cases, sizeof(cases) / sizeof(cases[0]) - !with_fault, 10, 4);
}

static void bound_calls(void)
{
	struct bench_case cases[] = {
		{.name = "direct call", .step = loop_direct},
		{.name = "gate, bound", .step = loop_bound},
		{.name = "gate, through its stub", .step = loop_stub},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cases[i].argument = 100000;
		cases[i].per = 100000;
		cases[i].floor = i > 0 ? &cases[0] : NULL;
	}
	/* After it the calls of loop_stub, which no record names and no thread has executed, stay with the stub. */
	bench_check(xp_gate_provide("bound", answer), "provide");
	loop_bound(1);
	xp_gate_set_eager(true);
	bench_check(xp_gate_provide("eager", answer), "provide");
	xp_gate_set_eager(false);
	bench_group("a loop with a call of an empty function and nothing else, per iteration", cases, 3, 100, 10);
}

int main(int argc, char **argv)
{
	int i = bench_start(argc, argv, "bench_gates", "");

	if (i < argc)
		bench_die("unknown option %s", argv[i]);
	bench_check(xp_module_error(), "registering the sites");
	bench_check(xp_gate_provide("fault", answer), "provide");
	bench_pin(0);
	binding("100 sites that run once, per site; no other thread runs", true);
	bound_calls();
	bench_check(xp_gate_withdraw("eager"), "withdraw");
	if (bench_cpus() > 1) {
		bench_thread(spin, NULL, 1);
		binding("100 sites that run once, per site; another thread is busy", true);
	}
	return bench_end();
}
