// SPDX-License-Identifier: MIT
/*
 * The latency of changing one site.
 *
 * Floor: one byte of text through /proc/self/mem and one membarrier, done by hand to a site of the same kind, which
 * the same bystander executes. Everything else is compared with it in the same run. Physical floor: the same to a page
 * that has a second, writable view: one store and one membarrier.
 * Floor of the writer pkey: the same byte stored by hand under a protection key of the program's own, and one membarrier.
 * Groups: a bystander executes all the sites on the other CPU; a second thread sleeps; no second thread.
 * Negative control: a key that is on already is enabled again; it must cost next to nothing, or the clock measures
 * itself.
 * --threads: eight threads, each toggling a key of its own, with and without a shared commit for those that wait.
 * --phases: where the time goes, by a port that reads the clock around every operation of the real one.
 */
#include "bench.h"

#include "core/state.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NR(array) (sizeof(array) / sizeof((array)[0]))

static XP_DEFINE_STATIC_KEY_FALSE(key);
static XP_DEFINE_STATIC_KEY_TRUE(same);

/*
 * Sites of our own, each in a line of its own: a flip pair for the floor; 5-byte nops inside an aligned quadword,
 * across quadwords, across lines and across pages.
 */
__asm__(".pushsection .text\n"
	".macro raw_site name, offset, bytes:vararg\n"
	"	.balign 4096, 0xcc\n"
	"	.fill 2048 + \\offset, 1, 0xcc\n"
	"	.globl \\name\n"
	"	.hidden \\name\n"
	"\\name:	\\bytes\n"
	"1:	nop\n"
	"	ret\n"
	".endm\n"
	"raw_site floor_site, 0, .byte 0xa9, 1, 0, 0, 0\n"
	"raw_site nop_0, 0, .byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"raw_site nop_5, 5, .byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"raw_site nop_61, 61, .byte 0x0f, 0x1f, 0x44, 0, 0\n"
	"raw_site nop_page, 2045, .byte 0x0f, 0x1f, 0x44, 0, 0\n"
	".balign 4096, 0xcc\n"
	".purgem raw_site\n"
	".popsection");

extern uint8_t floor_site[], nop_0[], nop_5[], nop_61[], nop_page[];
static uint8_t *const nops[] = {nop_0, nop_5, nop_61, nop_page};

static volatile uint64_t executed, taken;
static const struct bench_physical *physical;

static inline void call(const uint8_t *code)
{
	/* The sites touch nothing but the flags; the call must not use a leaf's red zone. */
	__asm__ volatile("subq $128, %%rsp\n\tcall *%0\n\taddq $128, %%rsp" ::"r"(code) : "memory", "cc");
}

static void *bystander(void *unused)
{
	for (;;) {
		if (xp_static_branch_unlikely(&key))
			taken++;
		call(floor_site);
		if (physical)
			call(physical->text);
		for (unsigned i = 0; i < sizeof(nops) / sizeof(nops[0]); i++)
			call(nops[i]);
		executed++;
	}
	return unused;
}

static uint64_t running(void)
{
	return executed;
}

static void *sleeper(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static void as_auto(void)
{
	bench_check(xp_set_policy(XP_POLICY_AUTO), "auto");
}

static void as_breakpoint(void)
{
	bench_check(xp_set_policy(XP_POLICY_BREAKPOINT), "breakpoint");
}

/* Undone by the next block's enter through as_default(). */
static void as_default(void)
{
	static const char *const names[] = {"auto", "procmem", "mprotect", "pkey"};
	int writer = XP_WRITER_AUTO;

	for (int i = 0; i < 4; i++)
		if (strcmp(bench_writer(), names[i]) == 0)
			writer = i;
	as_auto();
	bench_check(xp_set_sync(XP_SYNC_AUTO), "sync");
	bench_check(xp_set_writer((enum xp_writer)writer), "writer");
}

static void as_signal(void)
{
	as_default();
	bench_check(xp_set_sync(XP_SYNC_SIGNAL), "signal sync");
}

static void as_mprotect(void)
{
	as_default();
	bench_check(xp_set_writer(XP_WRITER_MPROTECT), "mprotect writer");
}

static void step_floor(uint64_t unused)
{
	static const uint8_t opcode[2] = {0xa9, 0xe9};
	static unsigned turn;

	(void)unused;
	turn ^= 1;
	bench_floor_write(floor_site, &opcode[turn], 1);
	bench_floor_sync();
}

/* ---- the writer pkey ---- */

static int own_key; /* of the floor's page; 0: there are none here */

static void take_key(void)
{
	uintptr_t page = (uintptr_t)floor_site & ~(uintptr_t)4095;
	long number = syscall(SYS_pkey_alloc, 0, 2 /* no writing */);

	if (number > 0 && syscall(SYS_pkey_mprotect, page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, number) == 0)
		own_key = (int)number;
	else
		bench_say("no protection keys: nothing is said of the writer pkey");
}

static void step_floor_key(uint64_t unused)
{
	static unsigned turn;
	uint32_t rights, zero;

	(void)unused;
	turn ^= 1;
	__asm__ volatile("rdpkru" : "=a"(rights), "=d"(zero) : "c"(0));
	__asm__ volatile("wrpkru" : : "a"(rights & ~(3u << 2 * own_key)), "c"(0), "d"(0) : "memory");
	*(volatile uint8_t *)floor_site = turn ? 0xe9 : 0xa9;
	__asm__ volatile("wrpkru" : : "a"(rights), "c"(0), "d"(0) : "memory");
	bench_floor_sync();
}

static void as_pkey(void)
{
	as_default();
	bench_check(xp_set_writer(XP_WRITER_PKEY), "pkey writer");
}

static void as_pkey_breakpoint(void)
{
	as_pkey();
	as_breakpoint();
}

/* As floor_site. */
static const uint8_t physical_site[] = {0xa9, 1, 0, 0, 0, 0x90, 0xc3};

static void step_physical(uint64_t unused)
{
	static unsigned turn;

	(void)unused;
	turn ^= 1;
	__atomic_store_n(physical->writable, turn ? 0xe9 : 0xa9, __ATOMIC_RELAXED);
	bench_floor_sync();
}

static void step_key(uint64_t unused)
{
	bool on = xp_static_key_enabled(&key);

	(void)unused;
	bench_check(on ? xp_static_branch_disable(&key) : xp_static_branch_enable(&key), "key");
}

/* One store as the library makes it: what an asynchronous commit is compared with. */
static void step_store(uint64_t unused)
{
	static const uint8_t opcode[2] = {0xa9, 0xe9};
	static unsigned turn;

	(void)unused;
	turn ^= 1;
	bench_check(xp__port->lock(), "lock");
	bench_check(xp__port->prepare(XP_NEED_SYNC, NULL), "prepare");
	bench_check(xp__port->text_write(floor_site, &opcode[turn], 1, XP_WRITE_LAST), "store");
	xp__port->unlock();
}

static struct xp_ticket ticket;

static void step_async(uint64_t unused)
{
	static bool on;

	(void)unused;
	on = !on;
	bench_check(xp_static_key_set_async(&key.key, on, &ticket), "asynchronous");
}

static void wait_for_ticket(uint64_t unused)
{
	(void)unused;
	bench_check(xp_ticket_wait(&ticket, NULL), "ticket");
}

static void asynchronous(const char *title)
{
	/* clang-format off */
	struct bench_case cases[] = {
		{.name = "floor: one store by the writer in force", .step = step_store},
		{.name = "key, asynchronous", .before = wait_for_ticket, .step = step_async, .floor = &cases[0], .budget = 1.2},
		{.name = "key, asynchronous, none waited for", .step = step_async, .floor = &cases[0], .budget = 1.2},
		{.name = "key, auto", .enter = as_auto, .step = step_key, .floor = &cases[0]},
	};
	/* clang-format on */

	bench_group(title, cases, NR(cases), 400, 20);
	wait_for_ticket(0);
}

static void step_same(uint64_t unused)
{
	(void)unused;
	bench_check(xp_static_branch_enable(&same), "same");
}

static void step_poke(uint64_t number)
{
	static const uint8_t nop[5] = {0x0f, 0x1f, 0x44, 0x00, 0x00}, jmp[5] = {0xe9, 0x01, 0x00, 0x00, 0x00};
	uint8_t *site = nops[number];
	bool is_nop = site[0] == nop[0];
	struct xp_poke poke = {.addr = site, .expect = is_nop ? nop : jmp, .replace = is_nop ? jmp : nop, .len = 5};

	bench_check(xp_text_poke(&poke, NULL), "poke");
}

/* The last case is the physical floor, with which all are compared, if there is one. Returns how many cases there are. */
static size_t with_physical(struct bench_case *cases, size_t nr)
{
	for (size_t i = 0; physical && i < nr - 1; i++)
		cases[i].physical = &cases[nr - 1];
	return physical ? nr : nr - 1;
}

/* Budgets without a second thread are 0.7 and 1.8 us on a machine whose floor is 0.58 us. */
static void few(const char *title, double budget_auto, double budget_breakpoint)
{
	/* clang-format off */
	struct bench_case cases[] = {
		{.name = "floor: 1-byte write, sync_core", .step = step_floor},
		{.name = "key, auto", .enter = as_auto, .step = step_key, .floor = &cases[0], .budget = budget_auto},
		{.name = "key, breakpoint", .enter = as_breakpoint, .step = step_key, .floor = &cases[0],
		 .budget = budget_breakpoint},
		{.name = "5-byte nop-jmp, breakpoint", .enter = as_breakpoint, .step = step_poke, .floor = &cases[0]},
		{.name = "control: enable what is enabled", .enter = as_auto, .step = step_same, .floor = &cases[0]},
		{.name = "physical floor: 1 store, sync_core", .step = step_physical},
	};
	/* clang-format on */

	bench_group(title, cases, with_physical(cases, NR(cases)), 400, 20);
}

static void busy(void)
{
	/* clang-format off */
	struct bench_case cases[] = {
		{.name = "floor: 1-byte write, sync_core", .step = step_floor},
		{.name = "key, auto", .enter = as_auto, .step = step_key, .floor = &cases[0], .budget = 1.1},
		{.name = "key, breakpoint", .enter = as_breakpoint, .step = step_key, .floor = &cases[0], .budget = 3.3},
		{.name = "5-byte nop-jmp, breakpoint, in a quadword", .enter = as_breakpoint, .step = step_poke,
		 .floor = &cases[0], .budget = 3.3},
		{.name = "  across quadwords", .enter = as_breakpoint, .step = step_poke, .argument = 1,
		 .floor = &cases[0], .budget = 3.3},
		{.name = "  across lines", .enter = as_breakpoint, .step = step_poke, .argument = 2,
		 .floor = &cases[0], .budget = 3.3},
		{.name = "  across pages", .enter = as_breakpoint, .step = step_poke, .argument = 3,
		 .floor = &cases[0], .budget = 3.3},
		{.name = "control: enable what is enabled", .enter = as_auto, .step = step_same, .floor = &cases[0]},
		{.name = "physical floor: 1 store, sync_core", .step = step_physical},
	};
	/* clang-format on */
	/* clang-format off */
	struct bench_case others[] = {
		{.name = "floor: 1-byte write, sync_core", .enter = as_default, .step = step_floor},
		{.name = "key, auto, sync by signal", .enter = as_signal, .step = step_key, .floor = &others[0]},
		{.name = "key, auto, mprotect writer", .enter = as_mprotect, .step = step_key, .floor = &others[0]},
		{.name = "nop-jmp in a quadword, mprotect: word", .enter = as_mprotect, .step = step_poke,
		 .floor = &others[0]},
	};
	/* clang-format on */

	bench_group("one site, a busy bystander on another CPU", cases, with_physical(cases, NR(cases)), 300, 20);
	bench_group("the same, other writers and syncs", others, NR(others), 100, 10);
	as_default();
}

static void by_key(const char *title)
{
	/* clang-format off */
	struct bench_case cases[] = {
		{.name = "floor: 1-byte store under a key, sync_core", .enter = as_default, .step = step_floor_key},
		{.name = "floor of the others", .step = step_floor, .floor = &cases[0]},
		{.name = "key, auto", .enter = as_pkey, .step = step_key, .floor = &cases[0]},
		{.name = "key, breakpoint", .enter = as_pkey_breakpoint, .step = step_key, .floor = &cases[0]},
		{.name = "5-byte nop-jmp in a quadword: word", .enter = as_pkey, .step = step_poke, .floor = &cases[0]},
	};
	/* clang-format on */

	if (own_key)
		bench_group(title, cases, NR(cases), 300, 20);
	as_default();
}

/* ---- --phases ---- */

enum { LOCK, PREPARE, WRITE, SYNC, CAN, OTHER, NR_PARTS };
static uint64_t part[NR_PARTS], last;
static const struct xp_port *real;

/* What passed since the last call belongs to the engine itself, until here; from here to done() to @number. */
static void begin(void)
{
	uint64_t now = bench_clock();

	part[OTHER] += now - last;
	last = now;
}

static void done(int number)
{
	uint64_t now = bench_clock();

	part[number] += now - last;
	last = now;
}

static int timed_lock(void)
{
	int error;

	begin();
	error = real->lock();
	done(LOCK);
	return error;
}

static void timed_unlock(void)
{
	begin();
	real->unlock();
	done(LOCK);
}

static unsigned timed_can(unsigned needs)
{
	unsigned served;

	begin();
	served = real->can(needs);
	done(CAN);
	return served;
}

static int timed_prepare(unsigned needs, struct xp_diag *diag)
{
	int error;

	begin();
	error = real->prepare(needs, diag);
	done(PREPARE);
	return error;
}

static int timed_write(void *addr, const void *bytes, size_t len, unsigned flags)
{
	int error;

	begin();
	error = real->text_write(addr, bytes, len, flags);
	done(WRITE);
	return error;
}

static int timed_sync(void)
{
	int error;

	begin();
	error = real->sync_core();
	done(SYNC);
	return error;
}

static void phases_of(const char *name, void (*step)(uint64_t))
{
	static const char *const names[NR_PARTS] = {"lock", "prepare", "write", "sync", "can", "engine"};
	unsigned nr = 20000;

	for (unsigned i = 0; i < 100; i++)
		step(0);
	memset(part, 0, sizeof(part));
	for (unsigned i = 0; i < nr; i++) {
		last = bench_clock();
		step(0);
		begin();
	}
	bench_say("  %s", name);
	for (int i = 0; i < NR_PARTS; i++)
		bench_value(names[i], (double)part[i] * bench_ns_per_tick / nr, "ns", 0);
}

static void phases(const char *title)
{
	static struct xp_port timed;

	real = xp__port;
	timed = *real;
	timed.lock = timed_lock;
	timed.unlock = timed_unlock;
	timed.can = timed_can;
	timed.prepare = timed_prepare;
	timed.text_write = timed_write;
	timed.sync_core = timed_sync;
	xp__port = &timed;
	bench_say("\nwhere the time goes, means, clock included: %s", title);
	as_auto();
	phases_of("key, auto", step_key);
	as_breakpoint();
	phases_of("key, breakpoint", step_key);
	phases_of("5-byte nop-jmp, breakpoint", step_poke);
	as_auto();
	xp__port = real;
}

/* ---- --threads ---- */

#define PATCHERS 8
static XP_DEFINE_STATIC_KEY_ARRAY_FALSE(own, PATCHERS);
static struct {
	uint64_t commits, longest; /* ticks */
} __attribute__((aligned(64))) patchers[PATCHERS];
static bool patching;

#define OWN(n) (xp_static_branch_unlikely(&own[n]) ? 1u << (n) : 0)

/* Its sites lie on one page, as those of one program often do. */
static __attribute__((noinline)) unsigned own_sites(void)
{
	return OWN(0) | OWN(1) | OWN(2) | OWN(3) | OWN(4) | OWN(5) | OWN(6) | OWN(7);
}

static void *patcher(void *number)
{
	uintptr_t n = (uintptr_t)number;

	for (bool on = true; __atomic_load_n(&patching, __ATOMIC_RELAXED); on = !on) {
		uint64_t before = bench_clock(), took;

		bench_check(on ? xp_static_key_enable(&own[n].key) : xp_static_key_disable(&own[n].key), "own key");
		took = bench_clock() - before;
		patchers[n].commits++;
		if (took > patchers[n].longest)
			patchers[n].longest = took;
	}
	return NULL;
}

static int by_number(const void *a, const void *b)
{
	double difference = *(const double *)a - *(const double *)b;

	return (difference > 0) - (difference < 0);
}

/* Commits a second of all; the least thread's part of the mean in @least, of all rounds the smallest. */
static double throughput(double seconds, double *least, double *longest)
{
	pthread_t threads[PATCHERS];
	uint64_t sum = 0, start, took;

	memset(patchers, 0, sizeof(patchers));
	patching = true;
	start = bench_clock();
	for (uintptr_t i = 0; i < PATCHERS; i++)
		bench_check(pthread_create(&threads[i], NULL, patcher, (void *)i), "thread");
	usleep((useconds_t)(seconds * 1e6));
	__atomic_store_n(&patching, false, __ATOMIC_RELAXED);
	for (int i = 0; i < PATCHERS; i++)
		pthread_join(threads[i], NULL);
	took = bench_clock() - start;
	for (int i = 0; i < PATCHERS; i++)
		sum += patchers[i].commits;
	for (int i = 0; i < PATCHERS; i++) {
		double of_mean = (double)patchers[i].commits * PATCHERS / (double)sum;
		double ms = (double)patchers[i].longest * bench_ns_per_tick / 1e6;

		*least = of_mean < *least ? of_mean : *least;
		*longest = ms > *longest ? ms : *longest;
	}
	return (double)sum / ((double)took * bench_ns_per_tick / 1e9);
}

static void several_threads(void)
{
	enum { ROUNDS = 15 };
	static const char *const names[] = {"commits a second, one after the other", "commits a second, shared"};
	double rate[2][ROUNDS], ratio[ROUNDS], least[2] = {1, 1}, longest[2] = {0, 0};
	unsigned rounds = bench_options.quick ? 5 : ROUNDS;
	static struct xp_port apart;

	real = xp__port;
	apart = *real;
	apart.lock_or = NULL;
	for (unsigned i = 0; i < rounds; i++) {
		for (int shared = 0; shared < 2; shared++) {
			xp__port = shared ? real : &apart;
			rate[shared][i] = throughput(0.1, &least[shared], &longest[shared]);
		}
		ratio[i] = rate[1][i] / rate[0][i];
	}
	qsort(ratio, rounds, sizeof(*ratio), by_number);
	bench_say("\n%d threads, each toggling its own key (%u rounds of 0.1 s)", PATCHERS, rounds);
	for (int shared = 0; shared < 2; shared++) {
		qsort(rate[shared], rounds, sizeof(double), by_number);
		bench_value(names[shared], rate[shared][rounds / 2], "", 0);
		bench_value("  the least thread's part of the mean", least[shared], "", 0);
		bench_value("  the longest commit", longest[shared], "ms", 0);
	}
	bench_value("shared to one after the other", ratio[rounds / 2], "", 0);
	bench_value("  least", ratio[0], "", 0);
	bench_value("  most", ratio[rounds - 1], "", 0);
	if (own_sites() >> PATCHERS)
		bench_die("a site that is not there");
}

int main(int argc, char **argv)
{
	bool show_phases = false;
	struct xp_stats stats;

	for (int i = bench_start(argc, argv, "bench_toggle", " [--threads | --phases]"); i < argc; i++) {
		if (strcmp(argv[i], "--threads") == 0) {
			several_threads();
			return bench_end();
		}
		if (strcmp(argv[i], "--phases") != 0)
			bench_die("unknown option %s", argv[i]);
		show_phases = true;
	}
	bench_pin(0);
	bench_floor_open();
	take_key();
	physical = bench_physical_open(4096, physical_site, sizeof(physical_site));
	few("one site, no other thread", 1.2, 3.1);
	asynchronous("without a sync, no other thread");
	by_key("writer pkey, no other thread");
	if (show_phases)
		phases("no other thread");
	bench_thread(sleeper, NULL, bench_cpus() > 1 ? 1 : 0);
	usleep(10000);
	few("one site, another thread sleeps", 0, 0);
	if (show_phases)
		phases("another thread sleeps");
	if (bench_cpus() < 2) {
		bench_say("one CPU only: no busy bystander");
		return bench_end();
	}
	bench_thread(bystander, NULL, 1);
	while (executed == 0)
		usleep(1000);
	bench_running = running;
	busy();
	by_key("writer pkey, a busy bystander on another CPU");
	asynchronous("without a sync, a busy bystander");
	if (show_phases)
		phases("busy bystander");
	xp_stats_read(&stats);
	bench_value("executions by the bystander", (double)executed, "", 0);
	bench_value("traps", (double)stats.traps, "", 0);
	if (executed == 0 || stats.traps == 0)
		bench_die("the bystander met no breakpoint: it was not where it should have been");
	return bench_end();
}
