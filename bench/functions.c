// SPDX-License-Identifier: MIT
/*
 * What it costs that a function can be traced, and that it is: function entries beside LLVM's XRay, -pg -mfentry, LTTng-UST's
 * tracepoints, SystemTap's SDT markers and uprobes. The same thousand functions (functions_body.c) are compiled for each;
 * where there is a choice, what runs at a call adds one to a counter. Every way must count a call while it is on, and none
 * while it is off, before it is measured.
 *
 * A way that was absent when this was built, or is not allowed here, is left out, and that is said.
 */
#include "bench.h"
#include "functions.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/function.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALLS 2000u
#define NR_UPROBES 2 /* switching one takes some 40 ms */

/* Those of absent ways are not linked. */
extern function *const functions_plain[], *const functions_uprobe[], *const functions_xp[], *const functions_fentry[];
extern function *const functions_clang[] __attribute__((weak));
extern function *const functions_xray[] __attribute__((weak));
extern function *const functions_sdt[] __attribute__((weak));

struct way {
	const char *name;
	function *const *functions;
	bool (*turn)(bool on);     /* all of them; false: not possible. NULL: they are as they are */
	uint64_t (*counted)(void); /* how many calls; NULL: unknown */
	void (*enter)(void);
	double nr; /* functions that turn switches */
	const char *missing;
	bool can_turn;
};

/* ---- crosspatch ---- */

static struct xp_function_counter counter;
static struct xp_function_handler all_registers, own;
static __thread uint64_t own_calls;

/* As XRay's below: what a program may write. */
static __attribute__((target("general-regs-only"))) void count_own(const struct xp_function_call *called, void *data)
{
	(void)called, (void)data;
	own_calls++;
}

static bool turn_xp(const struct xp_function_handler *handler, bool on)
{
	struct xp_diag diag;
	int nr = on ? xp_function_trace_matching("*", handler, &counter, &diag) :
		      xp_function_untrace_matching("*", handler, &counter, &diag);

	if (nr < 0)
		bench_die("tracing: %s: %s", xp_strerror(nr), diag.detail ? diag.detail : "");
	return true;
}

static bool turn_general(bool on)
{
	return turn_xp(xp_function_counting(), on);
}

static bool turn_all_registers(bool on)
{
	return turn_xp(&all_registers, on);
}

static bool turn_own(bool on)
{
	return turn_xp(&own, on);
}

static uint64_t counted_own(void)
{
	return own_calls;
}

/* All three have the same functions. */
static void enter_one(const struct xp_function_handler *handler)
{
	turn_all_registers(handler == &all_registers);
	turn_own(handler == &own);
	turn_general(handler == xp_function_counting());
}

static void enter_general(void)
{
	enter_one(xp_function_counting());
}

static void enter_own(void)
{
	enter_one(&own);
}

static void enter_all_registers(void)
{
	enter_one(&all_registers);
}

static uint64_t counted_xp(void)
{
	return xp_function_counted(&counter);
}

/* ---- XRay and -mfentry: a counter of the thread ---- */

__thread uint64_t functions_calls __attribute__((tls_model("local-exec"), used));

static uint64_t counted_thread(void)
{
	return functions_calls;
}

/* gcc calls it at the beginning of each function, before any register is saved. */
__asm__(".pushsection .text\n"
	".balign 64\n"
	".globl __fentry__\n"
	".type __fentry__, @function\n"
	"__fentry__:\n"
	"incq %fs:functions_calls@tpoff\n"
	"ret\n"
	".size __fentry__, . - __fentry__\n"
	".popsection");

/* Of LLVM's xray/xray_interface.h, which is C++: types that C has no enumeration for are int. 1 is success. */
extern int __xray_set_handler(void (*handler)(int32_t id, int event)) __attribute__((weak));
extern int __xray_patch(void) __attribute__((weak));
extern int __xray_unpatch(void) __attribute__((weak));

static void count_xray(int32_t id, int event)
{
	(void)id, (void)event;
	functions_calls++;
}

static bool turn_xray(bool on)
{
	return __xray_set_handler(count_xray) == 1 && (on ? __xray_patch() : __xray_unpatch()) == 1;
}

/* ---- uprobes: the kernel counts ---- */

static int uprobes[2][NR_UPROBES];

/* The executable's text lies in its file as in memory: checked. */
static bool in_file(const void *address, off_t offset)
{
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	uint8_t bytes[8];
	bool same = pread(file, bytes, sizeof(bytes), offset) == sizeof(bytes) &&
		    memcmp(bytes, address, sizeof(bytes)) == 0;

	close(file);
	return same;
}

static bool turn_uprobes(function *const *functions, int *probes, bool on)
{
	extern const char __executable_start[];
	struct perf_event_attr attr = {.size = sizeof(attr), .config1 = (uintptr_t) "/proc/self/exe"};
	FILE *type = fopen("/sys/bus/event_source/devices/uprobe/type", "re");
	bool ok = type && fscanf(type, "%u", &attr.type) == 1;

	if (type)
		fclose(type);
	for (int i = 0; i < NR_UPROBES && ok; i++) {
		const char *at = (const char *)(uintptr_t)functions[i];

		if (!on) {
			close(probes[i]);
			continue;
		}
		attr.config2 = (uint64_t)(at - __executable_start);
		if (!in_file(at, (off_t)attr.config2))
			bench_die("the functions are elsewhere in the file");
		probes[i] = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
		ok = probes[i] >= 0;
	}
	return ok;
}

static uint64_t counted_uprobe(const int *probes)
{
	uint64_t nr = 0;

	return probes[0] > 0 && read(probes[0], &nr, sizeof(nr)) == sizeof(nr) ? nr : 0;
}

static bool turn_uprobe(bool on)
{
	return turn_uprobes(functions_uprobe, uprobes[0], on);
}

static uint64_t counted_uprobe_plain(void)
{
	return counted_uprobe(uprobes[0]);
}

/* The marker is the function's first instruction, or else is not found. */
static bool turn_sdt(bool on)
{
	if (on && *(const uint8_t *)(uintptr_t)functions_sdt[0] != 0x90)
		return false;
	return turn_uprobes(functions_sdt, uprobes[1], on);
}

static uint64_t counted_sdt(void)
{
	return counted_uprobe(uprobes[1]);
}

/* ---- LTTng-UST: writes an event without fields to a buffer that is overwritten ---- */

/*
 * Its threads block every signal, and a thread that blocks SIGTRAP makes the library refuse all changes through a
 * breakpoint. In this program, instead of glibc's: no thread blocks it.
 */
int pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t but_trap;

	if (set) {
		but_trap = *set;
		if (how != SIG_UNBLOCK)
			sigdelset(&but_trap, SIGTRAP);
		set = &but_trap;
	}
	return syscall(SYS_rt_sigprocmask, how, set, old, 8) ? errno : 0;
}

static int (*lttng_on)(void);

static bool turn_lttng(bool on)
{
	static int session = -1;

	if (session < 0)
		session = system("exec 2>/dev/null >&2; lttng --no-sessiond list && "
				 "lttng create --snapshot crosspatch_bench && lttng enable-event -s crosspatch_bench "
				 "-u crosspatch_bench:function");
	if (session ||
	    system(on ? "lttng -q start crosspatch_bench >&2" : "lttng -q stop crosspatch_bench >&2") != 0)
		return false;
	for (unsigned i = 0; i < 1000 && lttng_on() != on; i++)
		usleep(1000);
	return lttng_on() == on;
}

/* A module, since its threads may exist only after xp_function_prepare(). */
static function *const *load_lttng(void)
{
	void *object = dlopen("bench_functions_lttng.so", RTLD_NOW), *on;

	if (object == NULL)
		return NULL;
	on = dlsym(object, "functions_lttng_on");
	memcpy(&lttng_on, &on, sizeof(on));
	return dlsym(object, "functions_lttng");
}

/* ---- measurement ---- */

static volatile unsigned sink;

static void call(uint64_t way)
{
	function *called = ((const struct way *)(uintptr_t)way)->functions[0];
	unsigned x = 0;

	for (unsigned i = 0; i < CALLS; i++)
		x = called(x);
	sink = x;
}

static void turn_on_and_off(uint64_t argument)
{
	const struct way *way = (const struct way *)(uintptr_t)argument;

	if (!way->turn(true) || !way->turn(false))
		bench_die("%s: could not be switched", way->name);
}

static uint64_t calls_counted(const struct way *way)
{
	uint64_t before = way->counted ? way->counted() : 0;

	way->functions[0](1);
	return way->counted ? way->counted() - before : 0;
}

static void try(struct way *way)
{
	if (way->turn == NULL)
		return;
	way->can_turn = way->turn(true);
	if (!way->can_turn) {
		bench_say("%s, on: not measured: not allowed here, or no process listens", way->name);
		return;
	}
	if (way->counted && calls_counted(way) != 1)
		bench_die("%s: a call was not counted", way->name);
	bench_check(!way->turn(false), way->name);
	if (calls_counted(way) != 0)
		bench_die("%s: a call was counted while off", way->name);
}

enum what { OFF, ON, SWITCH };

static void group(const char *title, struct way *ways, size_t nr, enum what what, unsigned rounds, unsigned block)
{
	struct bench_case cases[16] = {0};
	size_t n = 0;

	for (size_t i = 0; i < nr; i++) {
		struct way *way = &ways[i];

		if (way->functions == NULL || (what == OFF && way->enter && way->enter != enter_general) ||
		    (what == ON && i > 0 && !way->can_turn && (way->turn || !way->counted)) ||
		    (what == SWITCH && !way->can_turn))
			continue;
		cases[n] = (struct bench_case){
			.name = way->name,
			.enter = what == ON ? way->enter : NULL,
			.step = what == SWITCH ? turn_on_and_off : call,
			.argument = (uintptr_t)way,
			.per = what == SWITCH ? 2 * way->nr : CALLS,
			.floor = n > 0 ? &cases[0] : NULL,
		};
		n++;
		if (what == ON && way->can_turn && !way->enter)
			way->turn(true);
	}
	bench_group(title, cases, n, rounds, block);
	for (size_t i = 0; i < nr && what == ON; i++)
		if (ways[i].can_turn)
			ways[i].turn(false);
}

int main(int argc, char **argv)
{
	struct way ways[] = {
		{.name = "plain function", .functions = functions_plain},
		{.name = "crosspatch, the library's counter", .functions = functions_xp, .turn = turn_general,
		 .counted = counted_xp, .enter = enter_general, .nr = NR_FUNCTIONS},
		{.name = "crosspatch, general registers", .functions = functions_xp, .turn = turn_own,
		 .counted = counted_own, .enter = enter_own, .nr = NR_FUNCTIONS},
		{.name = "crosspatch, all registers", .functions = functions_xp, .turn = turn_all_registers,
		 .counted = counted_xp, .enter = enter_all_registers, .nr = NR_FUNCTIONS},
		{.name = "plain function, clang", .functions = functions_clang, .missing = "clang"},
		{.name = "XRay, entries", .functions = functions_xray, .turn = turn_xray, .counted = counted_thread,
		 .nr = NR_FUNCTIONS, .missing = "clang, libclang-rt-14-dev"},
		{.name = "-pg -mfentry, always on", .functions = functions_fentry, .counted = counted_thread},
		{.name = "LTTng-UST tracepoint", .turn = turn_lttng, .nr = NR_FUNCTIONS,
		 .missing = "liblttng-ust-dev; on: lttng-tools"},
		{.name = "uprobe; off: a plain function again", .functions = functions_uprobe, .turn = turn_uprobe,
		 .counted = counted_uprobe_plain, .nr = NR_UPROBES},
		{.name = "SDT marker; on: uprobe", .functions = functions_sdt, .turn = turn_sdt,
		 .counted = counted_sdt, .nr = NR_UPROBES, .missing = "systemtap-sdt-dev"},
	};
	const size_t nr = sizeof(ways) / sizeof(ways[0]);
	int i = bench_start(argc, argv, "bench_functions", ""), prepared = xp_function_prepare(NULL, NULL);

	if (i < argc)
		bench_die("unknown option %s", argv[i]);
	if (prepared < 0)
		bench_check(prepared, "preparing the entries");
	bench_pin(0);
	all_registers = *xp_function_counting();
	all_registers.flags = 0;
	own = (struct xp_function_handler){.entry = count_own, .flags = XP_FUNCTION_GENERAL_REGS};
	for (size_t k = 0; k < nr; k++) {
		if (strncmp(ways[k].name, "LTTng", 5) == 0)
			ways[k].functions = load_lttng();
		if (ways[k].functions)
			try(&ways[k]);
		else
			bench_say("%s: left out; its packages: %s", ways[k].name, ways[k].missing);
	}
	group("off: a loop with a call and nothing else, per iteration", ways, nr, OFF, 100, 10);
	group("on: the same, each call is counted", ways, nr, ON, 30, 5);
	group("1000 functions on and off again (2 with uprobes), per function and switch", ways, nr, SWITCH, 20, 1);
	if (lttng_on)
		(void)!system("lttng --no-sessiond -q destroy crosspatch_bench >/dev/null 2>&1");
	return bench_end();
}
