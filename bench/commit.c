// SPDX-License-Identifier: MIT
/*
 * The cost of one commit of many sites.
 *
 * A million branch sites stand in this program's text, 16 bytes apart. Assembled in the ordinary way their records
 * would take 3 million relocations and half a minute of every build; so the program is built with the room for
 * them, and at its start makes a copy of itself with the sites and records filled in, as the linker would have left
 * them, and executes that.
 *
 * Floor: the same pages written by hand once per phase, from a small buffer that already holds what is to be written,
 * and the syncs. It reads no text, checks nothing and knows its addresses. In 4 KiB pieces, and in 64 KiB ones.
 * Physical floor: one store for each site and phase, by a writable view of other pages, and the syncs.
 */
#include "bench.h"

#define XP_NO_MODULE /* registered by hand */
#include <crosspatch/crosspatch.h>

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define NR_SITES 1000000u
#define SPACING 16u
#define NR_KEYS 1000u

__asm__(".pushsection .text\n"
	".balign 4096, 0xcc\n"
	".globl bench_sites\n"
	".hidden bench_sites\n"
	"bench_sites: .fill 16000000, 1, 0xcc\n"
	".balign 4096, 0xcc\n"
	".popsection\n"
	".pushsection .rodata\n"
	".balign 4096\n"
	".globl bench_records\n"
	".hidden bench_records\n"
	"bench_records: .fill 12000000, 1, 0\n"
	".popsection");

extern uint8_t bench_sites[];
extern const struct xp_branch_site bench_records[];

static XP_DEFINE_STATIC_KEY_FALSE(all);         /* every site, by the records in the file */
static XP_DEFINE_STATIC_KEY_FALSE(some);        /* some, in other groups */
static struct xp_static_key_false key[NR_KEYS]; /* those of the groups with many keys */
static struct xp_module whole = {.abi = XP_MODULE_ABI, .nr_tables = 1};

static struct xp_branch_site records[NR_SITES];
static struct xp_module part = {.abi = XP_MODULE_ABI, .nr_tables = 1, .tables = {{records, NULL}}};

/* Off it returns at byte 5, on at byte 14. */
static const uint8_t site_off[SPACING] = {0xa9, 9,    0,    0,    0,    0xc3, 0xcc, 0xcc,
					  0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xc3, 0xcc};
#define TARGET 14

static void fill_record(struct xp_branch_site *record, const struct xp_branch_site *at, size_t site,
			const struct xp_static_key *of)
{
	uintptr_t code = (uintptr_t)bench_sites + site * SPACING;

	record->code = (int32_t)(code - (uintptr_t)&at->code);
	record->target = (int32_t)(code + TARGET - (uintptr_t)&at->target);
	record->key = (int32_t)((uintptr_t)of - (uintptr_t)&at->key);
}

/* ---- the copy ---- */

/* Where @address of this program stands in the image of its file. */
static uint8_t *in_file(uint8_t *image, const void *address)
{
	extern const uint8_t __ehdr_start[] __attribute__((visibility("hidden")));
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)image;
	const Elf64_Phdr *segment = (const Elf64_Phdr *)(image + header->e_phoff);
	/* Position-independent or not, the header stands at the lowest address. */
	uint64_t base = header->e_type == ET_DYN ? 0 : 0x400000;
	uint64_t at = (uint64_t)((const uint8_t *)address - __ehdr_start) + base;

	for (unsigned i = 0; i < header->e_phnum; i++, segment++)
		if (segment->p_type == PT_LOAD && at >= segment->p_vaddr && at < segment->p_vaddr + segment->p_filesz)
			return image + segment->p_offset + (at - segment->p_vaddr);
	bench_die("cannot find the sites in this program's file");
}

static void execute_copy(char **argv)
{
	char path[4096];
	const char *directory = getenv("TMPDIR");
	int self = open("/proc/self/exe", O_RDONLY | O_CLOEXEC), copy;
	struct xp_branch_site *to_records;
	struct stat st;
	uint8_t *image, *to_sites;

	snprintf(path, sizeof(path), "%s/bench_commit.XXXXXX", directory ? directory : "/tmp");
	copy = mkstemp(path);
	if (self < 0 || copy < 0 || fstat(self, &st))
		bench_die("cannot copy this program to %s", path);
	image = malloc((size_t)st.st_size);
	if (image == NULL || pread(self, image, (size_t)st.st_size, 0) != st.st_size)
		bench_die("cannot read this program");
	to_sites = in_file(image, bench_sites);
	to_records = (struct xp_branch_site *)in_file(image, bench_records);
	for (size_t i = 0; i < NR_SITES; i++) {
		memcpy(to_sites + i * SPACING, site_off, SPACING);
		fill_record(&to_records[i], &bench_records[i], i, &all.key);
	}
	if (write(copy, image, (size_t)st.st_size) != st.st_size || fchmod(copy, 0700) || close(copy))
		bench_die("cannot write %s", path);
	setenv("BENCH_COMMIT_COPY", path, 1);
	execv(path, argv);
	unlink(path);
	bench_die("cannot execute %s", path);
}

/* ---- what is measured ---- */

static uint64_t nr_sites; /* of the key that the group is about */
static struct xp_static_key_false *subject;
static volatile uint64_t executed;

static uint64_t running(void)
{
	return executed;
}

/* Executes the first site and, in turns, all the others. */
static void *bystander(void *unused)
{
	for (size_t i = 0;; i = (i + 1009) % NR_SITES) {
		__asm__ volatile("subq $128, %%rsp\n\tcall *%0\n\tcall *%1\n\taddq $128, %%rsp" ::"r"(bench_sites),
				 "r"(bench_sites + i * SPACING)
				 : "memory", "cc");
		executed++;
	}
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

static void step_key(uint64_t unused)
{
	bool on = xp_static_key_enabled(subject);

	(void)unused;
	bench_check(on ? xp_static_branch_disable(subject) : xp_static_branch_enable(subject), "key");
}

/* What stands there already: the key stays in agreement with its sites, and storing costs the same. */
static void write_floor(uint64_t nr, size_t piece)
{
	static uint8_t pattern[2][65536];
	bool on = xp_static_key_enabled(subject);
	uintptr_t at = (uintptr_t)bench_sites, end = at + (nr - 1) * SPACING + 1;

	if (pattern[0][0] == 0)
		for (size_t i = 0; i < sizeof(pattern[0]); i += SPACING) {
			memcpy(pattern[0] + i, site_off, SPACING);
			memcpy(pattern[1] + i, site_off, SPACING);
			pattern[1][i] = 0xe9;
		}
	while (at < end) {
		size_t len = piece - at % piece;

		if (len > end - at)
			len = end - at;
		bench_floor_write((void *)at, pattern[on], len);
		at += len;
	}
	bench_floor_sync();
}

static void step_floor_4k(uint64_t phases)
{
	while (phases-- > 0)
		write_floor(nr_sites, 4096);
}

static void step_floor_64k(uint64_t phases)
{
	while (phases-- > 0)
		write_floor(nr_sites, 65536);
}

/* As many bytes, as far from each other, in pages that have a writable view. */
static const struct bench_physical *physical;

static void step_physical(uint64_t phases)
{
	static uint8_t turn;

	while (phases-- > 0) {
		turn ^= 0xa9 ^ 0xe9;
		for (uint64_t i = 0; i < nr_sites; i++)
			__atomic_store_n(physical->writable + i * SPACING, turn, __ATOMIC_RELAXED);
		bench_floor_sync();
	}
}

static void count(const char *name, void (*step)(uint64_t))
{
	struct xp_stats before, after;
	char what[80];

	xp_stats_read(&before);
	step(0);
	step(0);
	xp_stats_read(&after);
	snprintf(what, sizeof(what), "%s: syncs", name);
	bench_value(what, (double)(after.syncs - before.syncs) / 2, "per commit", 0);
	snprintf(what, sizeof(what), "%s: writes", name);
	bench_value(what, (double)(after.writes - before.writes) / 2, "per commit", 0);
}

static void commits(const char *title, unsigned rounds, unsigned block, bool many)
{
	double per = (double)nr_sites;
	double budget_ns = many ? 10 : 0;
	/* clang-format off */
	struct bench_case cases[] = {
		{.name = "floor: 1 phase, 4 KiB writes", .step = step_floor_4k, .argument = 1, .per = per},
		{.name = "floor: 1 phase, 64 KiB writes", .step = step_floor_64k, .argument = 1, .per = per,
		 .floor = &cases[0]},
		{.name = "key, auto (1 phase)", .enter = as_auto, .step = step_key, .per = per, .floor = &cases[0],
		 .budget = 1.5, .budget_ns = budget_ns},
		{.name = "floor: 2 phases, 4 KiB writes", .step = step_floor_4k, .argument = 2, .per = per},
		{.name = "floor: 2 phases, 64 KiB writes", .step = step_floor_64k, .argument = 2, .per = per,
		 .floor = &cases[3]},
		{.name = "key, breakpoint (2 phases)", .enter = as_breakpoint, .step = step_key, .per = per,
		 .floor = &cases[3], .budget = 1.5, .budget_ns = budget_ns},
		{.name = "physical floor: 1 phase, a store each", .step = step_physical, .argument = 1, .per = per},
		{.name = "physical floor: 2 phases, a store each", .step = step_physical, .argument = 2, .per = per},
	};
	/* clang-format on */

	for (size_t i = 0; physical && i < 6; i++)
		cases[i].physical = &cases[i < 3 ? 6 : 7];
	bench_group(title, cases, physical ? 8 : 6, rounds, block);
	as_auto();
	count("auto", step_key);
	as_breakpoint();
	count("breakpoint", step_key);
	as_auto();
}

/* ---- modules made at run time ---- */

static void unregister_part(void)
{
	bench_check(xp_module_unregister(&part), "unregister");
	part.state = 0; /* as a fresh one */
}

/* The first @nr sites; site i belongs to keys[f(i)]. */
static void register_part(size_t nr, struct xp_static_key_false *keys, size_t nr_keys, bool interleaved)
{
	for (size_t i = 0; i < nr; i++)
		fill_record(&records[i], &records[i], i,
			    &keys[interleaved ? i % nr_keys : i / ((nr + nr_keys - 1) / nr_keys)].key);
	part.tables[0].end = records + nr;
	bench_check(xp_module_register(&part), "register");
}

static void sizes(void)
{
	static const unsigned nr[] = {1, 1000, 100000};

	subject = &some;
	for (unsigned i = 0; i < 3; i++) {
		char title[80];

		snprintf(title, sizeof(title), "one commit, %u site%s, per site", nr[i], nr[i] > 1 ? "s" : "");
		nr_sites = nr[i];
		register_part(nr[i], &some, 1, false);
		if (xp_static_key_enabled(&some))
			bench_die("the key should be off");
		commits(title, nr[i] > 1000 ? 40 : 150, nr[i] > 1000 ? 5 : 20, false);
		if (xp_static_key_enabled(&some))
			bench_check(xp_static_branch_disable(&some), "disable");
		unregister_part();
	}
}

static void step_batch(uint64_t unused)
{
	static struct xp_batch *batch;
	bool on = !xp_static_key_enabled(&key[0]);

	(void)unused;
	if (batch == NULL)
		batch = xp_batch_new();
	for (unsigned i = 0; i < NR_KEYS; i++)
		bench_check(xp_batch_add_key(batch, &key[i].key, on), "add");
	bench_check(xp_batch_commit(batch, NULL), "batch");
}

static void many_keys(bool interleaved)
{
	/* clang-format off */
	struct bench_case cases[] = {
		{.name = "floor: 1 phase, 4 KiB writes", .step = step_floor_4k, .argument = 1, .per = NR_SITES},
		{.name = "batch, auto", .enter = as_auto, .step = step_batch, .per = NR_SITES, .floor = &cases[0]},
		{.name = "floor: 2 phases, 4 KiB writes", .step = step_floor_4k, .argument = 2, .per = NR_SITES},
		{.name = "batch, breakpoint", .enter = as_breakpoint, .step = step_batch, .per = NR_SITES,
		 .floor = &cases[2]},
	};
	/* clang-format on */

	nr_sites = NR_SITES;
	subject = &key[0];
	register_part(NR_SITES, key, NR_KEYS, interleaved);
	bench_group(interleaved ? "one batch, 1000 keys x 1000 sites, sites of the keys mixed, per site"
				: "one batch, 1000 keys x 1000 sites, one key after the other, per site",
		    cases, 4, 10, 2);
	if (xp_static_key_enabled(&key[0])) {
		as_auto();
		step_batch(0);
	}
	unregister_part();
}

/* ---- a key with one site ---- */

static struct xp_module rest = {.abi = XP_MODULE_ABI, .nr_tables = 1, .tables = {{records + 1, records + NR_SITES}}};

static void alone(void)
{
	as_auto();
	bench_check(xp_module_unregister(&rest), "unregister");
	rest.state = 0;
}

static void among(void)
{
	as_auto();
	bench_check(xp_module_register(&rest), "register");
}

static void among_others(void)
{
	/* clang-format off */
	struct bench_case cases[] = {
		{.name = "alone", .enter = alone, .step = step_key},
		{.name = "among 999,999 sites of another key", .enter = among, .step = step_key, .floor = &cases[0],
		 .budget = 1.1},
	};
	/* clang-format on */

	nr_sites = 1;
	subject = &some;
	for (size_t i = 0; i < NR_SITES; i++)
		fill_record(&records[i], &records[i], i, i == 0 ? &some.key : &key[0].key);
	part.tables[0].end = records + 1;
	bench_check(xp_module_register(&part), "register");
	bench_group("a key with one site", cases, 2, 40, 50);
	if (xp_static_key_enabled(&some))
		bench_check(xp_static_branch_disable(&some), "disable");
	alone();
	unregister_part();
}

/* ---- registration and cold commits ---- */

static void make_new(uint64_t unused)
{
	(void)unused;
	bench_check(xp_module_unregister(&whole), "unregister");
	whole.state = 0;
}

static void make_left(uint64_t unused)
{
	(void)unused;
	bench_check(xp_module_unregister(&whole), "unregister");
}

static void step_register(uint64_t unused)
{
	(void)unused;
	bench_check(xp_module_register(&whole), "register");
}

static double value_spawn(uint64_t option)
{
	static const char *const options[] = {"--cold-register", "--cold-auto", "--cold-breakpoint", "--cold-floor",
					      "--cold-floor-2"};

	return bench_spawn_value(options[option]);
}

static void registration(void)
{
	/* clang-format off */
	struct bench_case warm[] = {
		{.name = "a fresh module", .before = make_new, .step = step_register, .budget_ns = 20e6},
		{.name = "one that was registered before", .before = make_left, .step = step_register,
		 .budget_ns = 20e6},
	};
	/* clang-format on */
	/* clang-format off */
	struct bench_case cold[] = {
		{.name = "registration", .value = value_spawn, .argument = 0, .budget_ns = 20e6},
		{.name = "floor: first write of all pages, 4 KiB", .value = value_spawn, .argument = 3, .per = NR_SITES},
		{.name = "first commit, auto, per site", .value = value_spawn, .argument = 1, .per = NR_SITES,
		 .floor = &cold[1], .budget = 1.5},
		{.name = "floor: first and second write, 4 KiB", .value = value_spawn, .argument = 4, .per = NR_SITES},
		{.name = "first commit, breakpoint, per site", .value = value_spawn, .argument = 2, .per = NR_SITES,
		 .floor = &cold[3], .budget = 1.5},
	};
	/* clang-format on */

	bench_group("registration of a million sites, whole", warm, 2, 20, 3);
	bench_group("a million sites in a fresh process", cold, 5, 8, 2);
	bench_value("record of a branch site", sizeof(struct xp_branch_site), "bytes", 12);
}

static double time_of(void (*step)(uint64_t), uint64_t argument)
{
	uint64_t start = bench_clock();

	step(argument);
	return (double)(bench_clock() - start) * bench_ns_per_tick;
}

/* In a process of its own, without a bystander: what happens first here happens once. */
static int cold(const char *option)
{
	double ns;

	bench_calibrate();
	bench_pin(0);
	bench_floor_open();
	subject = &all;
	nr_sites = NR_SITES;
	ns = time_of(step_register, 0);
	if (strcmp(option, "--cold-auto") == 0) {
		ns = time_of(step_key, 0);
	} else if (strcmp(option, "--cold-breakpoint") == 0) {
		as_breakpoint();
		ns = time_of(step_key, 0);
	} else if (strcmp(option, "--cold-floor") == 0) {
		ns = time_of(step_floor_4k, 1);
	} else if (strcmp(option, "--cold-floor-2") == 0) {
		ns = time_of(step_floor_4k, 2);
	}
	printf("%.0f\n", ns);
	return 0;
}

int main(int argc, char **argv)
{
	const char *copy = getenv("BENCH_COMMIT_COPY");
	bool only_million = false;

	if (bench_records[0].code == 0)
		execute_copy(argv);
	if (copy)
		unlink(copy);
	/* A record whose object has no name is refused. */
	for (unsigned i = 0; i < NR_KEYS; i++)
		key[i].key.object.name = "one of many";
	whole.tables[0].start = bench_records;
	whole.tables[0].end = bench_records + NR_SITES;
	if (argc > 1 && strncmp(argv[1], "--cold-", 7) == 0)
		return cold(argv[1]);
	for (int i = bench_start(argc, argv, "bench_commit", " [--million]"); i < argc; i++) {
		if (strcmp(argv[i], "--million") != 0)
			bench_die("unknown option %s", argv[i]);
		only_million = true;
	}
	bench_pin(0);
	bench_floor_open();
	physical = bench_physical_open((size_t)NR_SITES * SPACING, site_off, sizeof(site_off));
	if (bench_cpus() > 1) {
		bench_thread(bystander, NULL, 1);
		while (executed == 0)
			usleep(1000);
		bench_running = running;
	} else {
		bench_say("one CPU only: no busy bystander");
	}
	if (!only_million)
		sizes();
	step_register(0);
	subject = &all;
	nr_sites = NR_SITES;
	commits("one commit, 1,000,000 sites, per site", 15, 2, true);
	if (xp_static_key_enabled(&all))
		step_key(0);
	if (only_million)
		return bench_end();
	registration();
	bench_check(xp_module_unregister(&whole), "unregister");
	many_keys(false);
	many_keys(true);
	among_others();
	return bench_end();
}
