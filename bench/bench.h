/* SPDX-License-Identifier: MIT */
/*
 * What the benchmarks share: pinning, a clock, interleaved measurement, percentiles, the table and the JSON.
 *
 * Cases of one group run in turns within one run, in blocks, forwards and then backwards, so that whatever else the
 * machine does falls on all of them alike. A ratio is the median over the rounds of (median of the case's block /
 * median of its floor's block in the same round). Nothing fails on timing unless --budget asks for it.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bench_options {
	bool json;   /* JSON on stdout, the table on stderr */
	bool budget; /* exit 1 if a budget is exceeded */
	bool quick;  /* a tenth of the rounds */
};
extern struct bench_options bench_options;

/* Ticks of the invariant TSC, ordered after what came before. */
static inline uint64_t bench_clock(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence\n\trdtsc\n\tlfence" : "=a"(low), "=d"(high)::"memory");
	return (uint64_t)high << 32 | low;
}
extern double bench_ns_per_tick;
void bench_calibrate(void); /* sets it; bench_start() does */

struct bench_case {
	const char *name;
	void (*enter)(void);       /* before each block, not measured; may be NULL */
	void (*before)(uint64_t);  /* before each step, not measured; may be NULL */
	void (*step)(uint64_t);    /* what is measured; its argument is @argument */
	double (*value)(uint64_t); /* instead of step: measures by itself and returns ns */
	uint64_t argument;
	double per;                        /* operations in a step; 0 means 1 */
	const struct bench_case *floor;    /* of the same group; NULL: no ratio */
	const struct bench_case *physical; /* a second floor: what the processor takes. NULL: no such ratio */
	double budget;                     /* of the ratio; 0: none */
	double budget_ns; /* of the median per operation; 0: none. Told, and judged with --budget, alike */
	/* results */
	double *sample, *ratio, *to_physical, *block;
	size_t nr, nr_ratios;
};

/* bench_start - parses the options above; returns the first argument that is none of them, or argc. */
int bench_start(int argc, char **argv, const char *program, const char *usage);

/* bench_pin - the calling thread to the n-th CPU of those it may use; false if there are fewer. */
bool bench_pin(unsigned n);
unsigned bench_cpus(void);

/*
 * bench_running - if set, tells a number that grows while the bystander runs. A step during which it did not is
 * repeated, up to a limit: other programs may have had its CPU.
 */
extern uint64_t (*bench_running)(void);

/* bench_group - measures and reports. The first step of each block warms up and is not counted. */
void bench_group(const char *title, struct bench_case *cases, size_t nr, unsigned rounds, unsigned block);

/* bench_value - one number that is no latency. @budget 0: none. */
void bench_value(const char *name, double value, const char *unit, double budget);

/* bench_say - a remark for the reader of the table. */
void bench_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* bench_check - dies with a message unless @error is 0; for calls whose failure makes the run meaningless. */
void bench_check(int error, const char *what);
_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* bench_end - closes the JSON; the exit status. */
int bench_end(void);

/* A text write and a sync as cheap as the system offers them: the floor. */
void bench_floor_open(void);
void bench_floor_write(void *addr, const void *bytes, size_t len);
void bench_floor_sync(void);

/*
 * The physical floor: a store and a sync, with nothing between the program and the processor. bench_physical_open - @size bytes
 * of memory that can be executed, and a second view of the same pages that is writable all the time; what @code holds stands at
 * its beginning. NULL: the system gives none, and there is no such floor. The library does not write so, because then any thread
 * may write text.
 */
struct bench_physical {
	uint8_t *text, *writable;
};
const struct bench_physical *bench_physical_open(size_t size, const uint8_t *code, size_t len);

/* bench_writer - the writer in force, by CROSSPATCH_WRITER: "auto" if it is not set. */
const char *bench_writer(void);

/* bench_evict - writes 64 MiB of its own, so that nothing else is in the data caches or the unified ones. */
void bench_evict(void);

/* bench_spawn_value - runs this program anew with @option and returns the number that it prints. */
double bench_spawn_value(const char *option);

/* bench_thread - a thread on the n-th CPU. */
void bench_thread(void *(*main)(void *), void *argument, unsigned cpu);

/* CALL_LOOP - loop_NAME(n): executes the instructions @call n times. The same instructions around it wherever it is used. */
#define CALL_LOOP(name, call)                                                                                          \
	__asm__(".pushsection .text\n"                                                                                 \
		".balign 64\n"                                                                                         \
		"loop_" #name ":\n"                                                                                    \
		"push %rbx\n"                                                                                          \
		"mov %rdi, %rbx\n"                                                                                     \
		".balign 32\n"                                                                                         \
		"1:\n" call "\n"                                                                                       \
		"dec %rbx\n"                                                                                           \
		"jnz 1b\n"                                                                                             \
		"pop %rbx\n"                                                                                           \
		"ret\n"                                                                                                \
		".popsection");                                                                                        \
	extern void loop_##name(uint64_t) __asm__("loop_" #name)

#endif
