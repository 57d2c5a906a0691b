// SPDX-License-Identifier: MIT
/*
 * Latencies of sqlite3's functions while it works. Compiled together with sqlite3.c, by the plugin: see `run`.
 * Usage: functrace PATTERN SCRIPT DATABASE
 *
 * A thread runs a script of SQL on a database, over and over. Meanwhile functions chosen by a pattern of their names are traced for two
 * seconds; then the histogram of their calls is printed, and how many rounds the thread made a second without and with it.
 */
#include <crosspatch/crosspatch.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define NR_BUCKETS 40

static unsigned long buckets[NR_BUCKETS]; /* calls that took 2^i to 2^(i+1) ticks */
static unsigned long rounds;

static uint64_t ticks(void)
{
	return __builtin_ia32_rdtsc();
}

/* Both touch general registers only, so nothing else need be saved for them. */
#define GENERAL_REGS __attribute__((target("general-regs-only")))

GENERAL_REGS static void begin(const struct xp_function_call *call, void *data)
{
	(void)data;
	*call->word = ticks();
}

GENERAL_REGS static void end(const struct xp_function_call *call, void *data)
{
	uint64_t took = ticks() - *call->word;
	unsigned bucket = 63 - (unsigned)__builtin_clzll(took | 1);

	(void)data;
	__atomic_fetch_add(&buckets[bucket < NR_BUCKETS ? bucket : NR_BUCKETS - 1], 1, __ATOMIC_RELAXED);
}

static const struct xp_function_handler histogram = {begin, end, XP_FUNCTION_GENERAL_REGS};

static void must(sqlite3 *db, const char *sql)
{
	char *message = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &message) != SQLITE_OK) {
		fprintf(stderr, "functrace: %s\n", message);
		exit(1);
	}
}

static char script[65536];

static void read_script(const char *path)
{
	FILE *file = fopen(path, "r");

	if (file == NULL || fread(script, 1, sizeof(script) - 1, file) == 0) {
		fprintf(stderr, "functrace: %s cannot be read\n", path);
		exit(1);
	}
	fclose(file);
}

static void *work(void *database)
{
	sqlite3 *db;

	if (sqlite3_open((const char *)database, &db) != SQLITE_OK)
		exit(1);
	/* The disk is not what is measured. */
	must(db, "pragma synchronous = off; pragma journal_mode = memory");
	for (;;) {
		must(db, script);
		__atomic_fetch_add(&rounds, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static double rounds_per_second(void)
{
	const struct timespec two = {2, 0};
	unsigned long before = __atomic_load_n(&rounds, __ATOMIC_RELAXED);

	nanosleep(&two, NULL);
	return (double)(__atomic_load_n(&rounds, __ATOMIC_RELAXED) - before) / 2;
}

int main(int argc, char **argv)
{
	const char *pattern = argv[1];
	struct xp_function_stats stats;
	struct xp_diag diag;
	double off, on, again;
	pthread_t thread;
	int nr;

	if (argc != 4) {
		fprintf(stderr, "usage: functrace PATTERN SCRIPT DATABASE\n");
		return 2;
	}
	read_script(argv[2]);
	xp_function_stats_read(&stats);
	if (pthread_create(&thread, NULL, work, argv[3]))
		return 1;
	off = rounds_per_second();
	nr = xp_function_trace_matching(pattern, &histogram, NULL, &diag);
	if (nr < 0) {
		char text[512];

		xp_diag_format(&diag, text, sizeof(text));
		fprintf(stderr, "functrace: %s\n", text);
		return 1;
	}
	on = rounds_per_second();
	if (xp_function_untrace_matching("*", &histogram, NULL, &diag) < 0 || xp_function_synchronize())
		return 1;
	again = rounds_per_second();
	printf("%d of %llu functions traced\n", nr, (unsigned long long)stats.entries);
	for (unsigned i = 0; i < NR_BUCKETS; i++)
		if (buckets[i])
			printf("%12llu ticks and more: %lu calls\n", 1ull << i, buckets[i]);
	printf("rounds a second: off %.0f, on %.0f (%.2f), off again %.0f\n", off, on, on / off, again);
	return 0;
}
