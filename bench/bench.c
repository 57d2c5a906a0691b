// SPDX-License-Identifier: MIT
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

struct bench_options bench_options;
double bench_ns_per_tick;
uint64_t (*bench_running)(void);

static FILE *table;
static unsigned exceeded;
static bool first_row = true;
static int mem = -1;
static uint64_t repeated; /* steps during which the bystander did not run */

void bench_say(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(table ? table : stderr, format, arguments);
	va_end(arguments);
	fputc('\n', table ? table : stderr);
}

void bench_die(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(3);
}

void bench_check(int error, const char *what)
{
	if (error)
		bench_die("%s: error %d", what, error);
}

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_RAW, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

void bench_calibrate(void)
{
	double start = now_ns(), end;
	uint64_t ticks = bench_clock();

	do
		end = now_ns();
	while (end - start < 50e6);
	bench_ns_per_tick = (end - start) / (double)(bench_clock() - ticks);
}

/* The value of the first line of /proc/cpuinfo that begins with @label; "" if none. */
static void cpuinfo(const char *label, char *value, size_t size)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	char line[8192];

	value[0] = 0;
	while (file && fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, label, strlen(label)) != 0 || colon == NULL)
			continue;
		line[strcspn(line, "\n\"\\")] = 0;
		snprintf(value, size, "%s", colon + 2);
		break;
	}
	if (file)
		fclose(file);
}

int bench_start(int argc, char **argv, const char *program, const char *usage)
{
	struct utsname name;
	char model[256], flags[8192];
	int i = 1;

	for (; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			bench_options.json = true;
		else if (strcmp(argv[i], "--budget") == 0)
			bench_options.budget = true;
		else if (strcmp(argv[i], "--quick") == 0)
			bench_options.quick = true;
		else if (strcmp(argv[i], "--help") == 0) {
			printf("usage: %s [--json] [--budget] [--quick]%s\n", program, usage);
			exit(0);
		} else
			break;
	}
	table = bench_options.json ? stderr : stdout;
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	bench_calibrate();
	uname(&name);
	cpuinfo("model name", model, sizeof(model));
	cpuinfo("flags", flags, sizeof(flags));
	bench_say("%s: %s, %u CPUs%s, Linux %s, writer %s", program, model, bench_cpus(),
		  strstr(flags, " hypervisor") ? ", under a hypervisor" : "", name.release, bench_writer());
	if (strstr(flags, " constant_tsc") == NULL)
		bench_say("the time stamp counter of this processor is not constant: distrust these numbers");
	if (bench_options.json)
		printf("{\"program\":\"%s\",\"cpu\":\"%s\",\"cpus\":%u,\"hypervisor\":%s,\"kernel\":\"%s\",\"writer\":\"%s\","
		       "\n\"rows\":[",
		       program, model, bench_cpus(), strstr(flags, " hypervisor") ? "true" : "false", name.release,
		       bench_writer());
	return i;
}

int bench_end(void)
{
	if (bench_options.json)
		printf("\n]}\n");
	if (exceeded)
		bench_say("%u budgets exceeded", exceeded);
	return bench_options.budget && exceeded ? 1 : 0;
}

unsigned bench_cpus(void)
{
	static unsigned nr;
	cpu_set_t set;

	if (nr == 0 && sched_getaffinity(0, sizeof(set), &set) == 0)
		nr = (unsigned)CPU_COUNT(&set);
	return nr;
}

/* The CPUs this process was given, before it pinned anything. */
static const cpu_set_t *allowed(void)
{
	static cpu_set_t set;
	static bool known;

	if (!known)
		known = sched_getaffinity(0, sizeof(set), &set) == 0;
	return &set;
}

bool bench_pin(unsigned n)
{
	bench_cpus();
	for (unsigned cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		cpu_set_t one;

		if (!CPU_ISSET(cpu, allowed()) || n-- > 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		return sched_setaffinity(0, sizeof(one), &one) == 0;
	}
	return false;
}

struct start {
	void *(*main)(void *);
	void *argument;
	unsigned cpu;
};

static void *start_thread(void *argument)
{
	struct start start = *(struct start *)argument;

	free(argument);
	bench_pin(start.cpu);
	return start.main(start.argument);
}

void bench_thread(void *(*main)(void *), void *argument, unsigned cpu)
{
	struct start *start = malloc(sizeof(*start));
	pthread_t thread;

	*start = (struct start){main, argument, cpu};
	bench_check(pthread_create(&thread, NULL, start_thread, start), "pthread_create");
	pthread_detach(thread);
}

void bench_floor_open(void)
{
	if (mem < 0)
		mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	if (mem < 0)
		bench_die("/proc/self/mem: %s; there is no floor to compare with", strerror(errno));
	bench_check((int)syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0),
		    "membarrier");
}

void bench_floor_write(void *addr, const void *bytes, size_t len)
{
	if (pwrite(mem, bytes, len, (off_t)(uintptr_t)addr) != (ssize_t)len)
		bench_die("pwrite: %s", strerror(errno));
}

void bench_floor_sync(void)
{
	bench_check((int)syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0), "membarrier");
}

const struct bench_physical *bench_physical_open(size_t size, const uint8_t *code, size_t len)
{
	static struct bench_physical physical;
	int fd = memfd_create("bench_physical", MFD_CLOEXEC);

	if (fd >= 0 && ftruncate(fd, (off_t)size) == 0) {
		physical.text = mmap(NULL, size, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
		physical.writable = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	if (fd >= 0)
		close(fd);
	if (physical.text == NULL || physical.text == MAP_FAILED || physical.writable == MAP_FAILED) {
		bench_say("no memory that is executable and writable by another view: no physical floor");
		return NULL;
	}
	memcpy(physical.writable, code, len);
	return &physical;
}

const char *bench_writer(void)
{
	const char *writer = getenv("CROSSPATCH_WRITER");

	return writer && *writer ? writer : "auto";
}

void bench_evict(void)
{
	enum { EVERYTHING = 64 << 20 };
	static volatile char *everything;

	if (everything == NULL)
		everything = calloc(EVERYTHING, 1);
	if (everything == NULL)
		bench_die("no memory");
	for (size_t i = 0; i < EVERYTHING; i += 64)
		everything[i]++;
}

double bench_spawn_value(const char *option)
{
	char command[128];
	double value = 0;
	FILE *child;

	/* The shell's $PPID is this process; its executable may have no name any more. */
	snprintf(command, sizeof(command), "exec /proc/$PPID/exe %s", option);
	child = popen(command, "re");
	if (child == NULL || fscanf(child, "%lf", &value) != 1)
		bench_die("no number from: %s", command);
	pclose(child);
	return value;
}

/* ---- measurement ---- */

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double percentile(const double *sorted, size_t nr, double p)
{
	size_t i = (size_t)((double)nr * p);

	return sorted[i < nr ? i : nr - 1];
}

static double run_step(const struct bench_case *c)
{
	uint64_t start;

	if (c->before)
		c->before(c->argument);
	if (c->value)
		return c->value(c->argument);
	start = bench_clock();
	c->step(c->argument);
	return (double)(bench_clock() - start) * bench_ns_per_tick;
}

static double run_block(struct bench_case *c, unsigned block)
{
	double per = c->per > 0 ? c->per : 1;

	if (c->enter)
		c->enter();
	run_step(c);
	for (unsigned i = 0; i < block; i++) {
		for (unsigned tries = 0; tries < 1000; tries++) {
			uint64_t progress = bench_running ? bench_running() : 0;

			c->block[i] = run_step(c) / per;
			if (bench_running == NULL || bench_running() != progress)
				break;
			repeated++;
		}
	}
	memcpy(c->sample + c->nr, c->block, block * sizeof(double));
	c->nr += block;
	qsort(c->block, block, sizeof(double), compare);
	return c->block[block / 2];
}

static void say_budget(bool told, bool ok)
{
	if (!told)
		return;
	exceeded += !ok;
	fprintf(table, "  %s", ok ? "ok" : "EXCEEDED");
}

static void report(const char *title, struct bench_case *c)
{
	double median, ratio = 0;

	qsort(c->sample, c->nr, sizeof(double), compare);
	median = percentile(c->sample, c->nr, 0.5);
	fprintf(table, "  %-44s %11.2f %11.2f %11.2f %11.2f", c->name, median, percentile(c->sample, c->nr, 0.1),
		percentile(c->sample, c->nr, 0.9), percentile(c->sample, c->nr, 0.999));
	if (bench_options.json)
		printf("%s\n{\"group\":\"%s\",\"name\":\"%s\",\"samples\":%zu,\"median_ns\":%.3f,\"p10_ns\":%.3f,"
		       "\"p90_ns\":%.3f,\"p999_ns\":%.3f",
		       first_row ? "" : ",", title, c->name, c->nr, median, percentile(c->sample, c->nr, 0.1),
		       percentile(c->sample, c->nr, 0.9), percentile(c->sample, c->nr, 0.999));
	first_row = false;
	if (c->floor) {
		double low, high;

		qsort(c->ratio, c->nr_ratios, sizeof(double), compare);
		ratio = percentile(c->ratio, c->nr_ratios, 0.5);
		low = percentile(c->ratio, c->nr_ratios, 0.1);
		high = percentile(c->ratio, c->nr_ratios, 0.9);
		fprintf(table, " %6.2f (%.2f-%.2f)", ratio, low, high);
		if (bench_options.json)
			printf(",\"floor\":\"%s\",\"ratio\":%.4f,\"ratio_p10\":%.4f,\"ratio_p90\":%.4f", c->floor->name,
			       ratio, low, high);
	}
	if (c->physical) {
		double to_physical;

		qsort(c->to_physical, c->nr_ratios, sizeof(double), compare);
		to_physical = percentile(c->to_physical, c->nr_ratios, 0.5);
		fprintf(table, "  x physical %.2f", to_physical);
		if (bench_options.json)
			printf(",\"physical\":%.4f", to_physical);
	}
	if (c->budget > 0) {
		fprintf(table, "  budget %.2f", c->budget);
		if (bench_options.json)
			printf(",\"budget\":%.3f", c->budget);
	}
	if (c->budget_ns > 0) {
		fprintf(table, "  budget %.1f ns", c->budget_ns);
		if (bench_options.json)
			printf(",\"budget_ns\":%.3f", c->budget_ns);
	}
	say_budget(c->budget > 0 || c->budget_ns > 0,
		   (c->budget <= 0 || ratio <= c->budget) && (c->budget_ns <= 0 || median <= c->budget_ns));
	fputc('\n', table);
	if (bench_options.json)
		printf("}");
}

void bench_group(const char *title, struct bench_case *cases, size_t nr, unsigned rounds, unsigned block)
{
	double *middle = calloc(nr, sizeof(*middle));

	if (bench_options.quick)
		rounds = rounds > 30 ? rounds / 10 : 3;
	for (size_t i = 0; i < nr; i++) {
		cases[i].sample = malloc((size_t)rounds * block * sizeof(double));
		cases[i].block = malloc(block * sizeof(double));
		cases[i].ratio = malloc(rounds * sizeof(double));
		cases[i].to_physical = malloc(rounds * sizeof(double));
		cases[i].nr = cases[i].nr_ratios = 0;
	}
	for (unsigned round = 0; round < rounds; round++) {
		for (size_t k = 0; k < nr; k++) {
			size_t i = round % 2 ? nr - 1 - k : k;

			middle[i] = run_block(&cases[i], block);
		}
		for (size_t i = 0; i < nr; i++) {
			struct bench_case *c = &cases[i];

			if (c->physical)
				c->to_physical[c->nr_ratios] = middle[i] / middle[c->physical - cases];
			if (c->floor)
				c->ratio[c->nr_ratios] = middle[i] / middle[c->floor - cases];
			c->nr_ratios++;
		}
	}
	fprintf(table, "\n%s (ns; %u rounds x %u)\n  %-44s %11s %11s %11s %11s %s\n", title, rounds, block, "",
		"median", "p10", "p90", "p99.9", " x floor (p10-p90)");
	for (size_t i = 0; i < nr; i++)
		report(title, &cases[i]);
	if (repeated)
		bench_say("  (%llu steps repeated: the bystander was not running)", (unsigned long long)repeated);
	repeated = 0;
	for (size_t i = 0; i < nr; i++) {
		free(cases[i].sample);
		free(cases[i].block);
		free(cases[i].ratio);
		free(cases[i].to_physical);
	}
	free(middle);
}

void bench_value(const char *name, double value, const char *unit, double budget)
{
	fprintf(table, "  %-44s %11.2f %s", name, value, unit);
	if (budget > 0)
		fprintf(table, "  budget %.2f", budget);
	say_budget(budget > 0, value <= budget);
	fputc('\n', table);
	if (bench_options.json)
		printf("%s\n{\"name\":\"%s\",\"value\":%.4f,\"unit\":\"%s\",\"budget\":%.3f}", first_row ? "" : ",",
		       name, value, unit, budget);
	first_row = false;
}
