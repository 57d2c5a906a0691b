/* SPDX-License-Identifier: MIT */
/*
 * The CPU litmus: races a patcher against a thread that executes what is being patched, and counts what it executed.
 *
 * shape.c   what is executed: code in which every mixture of old and new bytes is an instruction with its own result
 * area.c    where it lies and how bytes get there: the store paths
 * race.c    the two threads; torn executions per width, offset, path, shape
 * order.c   what one result cannot tell: order of fetches, staleness, delay, late traps, data against code
 * change.c  a whole instruction: nop against jmp, breakpoints with syncs left out, a quadword read twice
 * run.c     which races for how long; what the counts mean
 * report.c, svg.c   what is printed
 *
 * Hosted: libc, threads, and the library's own writers and sync. One run per process: the executing thread's fault
 * handlers and the counters are static.
 */
#ifndef XP_LITMUS_H
#define XP_LITMUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- shape.c ---- */

/* What changes in the instruction. */
enum litmus_shape {
	LITMUS_DISP,   /* jmp rel32: displacement */
	LITMUS_IMM,    /* mov $imm, reg; a 16-byte store covers two of them */
	LITMUS_OPCODE, /* REX, opcode, ModRM and imm8 of one 4-byte instruction */
	LITMUS_FLIP,   /* test $imm32, %eax (A9) against jmp rel32 (E9): one byte */
	LITMUS_NR_SHAPES,
	LITMUS_NOP = LITMUS_NR_SHAPES /* a 5-byte nop against jmp rel32; not of the matrix: its mixtures may fault */
};
#define LITMUS_NOP_LEN 5

/* Where the first byte of the store lies: in a line in mid-page, or in the last line of a page. */
enum litmus_place { LITMUS_MID, LITMUS_END, LITMUS_NR_PLACES };

/* The widest boundary between the changed bytes. */
enum litmus_bound {
	LITMUS_QUAD, /* none: they lie inside one aligned quadword */
	LITMUS_CROSS8,
	LITMUS_CROSS16,
	LITMUS_CROSS32,
	LITMUS_LINE,
	LITMUS_PAGE,
	LITMUS_NR_BOUNDS
};

#define LITMUS_IMAGE 48
#define LITMUS_NR_WIDTHS 5 /* 1, 2, 4, 8, 16 */
#define LITMUS_WIDTH(i) (1u << (i))
#define LITMUS_NO_MIXTURE UINT32_MAX
#define LITMUS_NR_PADS 32 /* 16 of LITMUS_DISP, 16 of LITMUS_NOP */

struct litmus_code {
	enum litmus_shape shape;
	uint8_t old[LITMUS_IMAGE], new[LITMUS_IMAGE]; /* they differ only in bytes of the store */
	uint8_t len;
	uint8_t entry;    /* where execution begins */
	uint8_t store;    /* where the store begins */
	uint8_t width;    /* bytes of the store */
	uint8_t second;   /* byte of the store that belongs to a second instruction; ->width if there is none */
	uint16_t changed; /* bit i: byte i of the store differs */
	uint64_t old_result, new_result;
};

extern const char *const litmus_shape_names[LITMUS_NR_SHAPES];
extern const char *const litmus_bound_names[LITMUS_NR_BOUNDS];

/* litmus_code_make - the code of @shape for a store of @width bytes (1, 2, 4, 8, 16). */
void litmus_code_make(struct litmus_code *code, enum litmus_shape shape, unsigned width);
/* litmus_code_mix - the image whose store bytes are new where @mask has a bit, old elsewhere. */
void litmus_code_mix(const struct litmus_code *code, uint32_t mask, uint8_t image[LITMUS_IMAGE]);
/*
 * litmus_code_mask - the mixture that returns @result: a subset of ->changed, 0 the old code, ->changed the new one.
 * LITMUS_NO_MIXTURE if none does.
 */
uint32_t litmus_code_mask(const struct litmus_code *code, uint64_t result);
/*
 * litmus_mask_torn - whether one instruction's changed bytes inside some aligned block of @granule bytes are partly
 * old, partly new. @granule 4096: anywhere in one instruction.
 */
bool litmus_mask_torn(const struct litmus_code *code, uint32_t mask, unsigned offset, unsigned granule);
/* litmus_code_bound - the widest boundary between the changed bytes of a store at @offset of a line. */
enum litmus_bound litmus_code_bound(const struct litmus_code *code, unsigned offset, enum litmus_place place);
/* litmus_pad - the displacement that mixture @i of LITMUS_DISP, @i - 16 of LITMUS_NOP has, and the landing pad's code */
uint32_t litmus_pad(unsigned i, uint8_t pad[128]);

/* ---- area.c ---- */

enum litmus_path { LITMUS_ALIAS, LITMUS_WINDOW, LITMUS_XCHG, LITMUS_MPROTECT, LITMUS_PROCMEM, LITMUS_NR_PATHS };
extern const char *const litmus_path_names[LITMUS_NR_PATHS];

#define LITMUS_AREA_SIZE 0x1210000u
/* Offsets in the area of the line in mid-page and the last line of a page. */
#define LITMUS_AT(place) ((place) == LITMUS_END ? 0x2fc0u : 0x1840u)

struct litmus_area {
	enum litmus_path path;
	uint8_t *code; /* readable and executable */
	uint8_t *data; /* the same memory, readable and writable; NULL: only the library's writers write it */
};

/* litmus_path_single - whether the path's store is known to be one instruction, which names the bytes that change. */
bool litmus_path_single(enum litmus_path path);
/* litmus_path_takes - whether the path has stores of @width bytes: a locked exchange has 8 at most. */
bool litmus_path_takes(enum litmus_path path, unsigned width);
/* litmus_split_lock - 0: a locked exchange across a line works here; -EFAULT: it raises SIGBUS (tried in a child); -errno. */
int litmus_split_lock(void);

/* litmus_area_open - maps an area with landing pads; -errno or -XP_E_NO_WRITER if the path does not work here. */
int litmus_area_open(struct litmus_area *area, enum litmus_path path);
void litmus_area_close(struct litmus_area *area);
/* litmus_area_fill - writes code that no thread executes. */
int litmus_area_fill(struct litmus_area *area, unsigned at, const void *bytes, size_t len);
/* litmus_area_store - the store that races: one machine store of @width bytes as far as the path can. */
int litmus_area_store(struct litmus_area *area, unsigned at, const void *bytes, unsigned width);

/* ---- race.c ---- */

#define LITMUS_NR_ODD 16

/* What the executing thread saw in one race. */
struct litmus_tally {
	uint64_t runs, old, new;
	uint64_t seen;    /* how often the result differed from the one before */
	uint64_t trapped; /* faults instead of a result */
	struct {
		uint64_t result, nr;
	} odd[LITMUS_NR_ODD]; /* neither old nor new */
	uint64_t lost;        /* odd results beyond the table */
};

struct litmus_cell {
	uint8_t path, sync, shape, width, place, offset, bound;
	uint64_t writes, runs, seen, old, new;
	uint64_t between;   /* of two instructions under one store, one old and one new, both whole */
	uint64_t torn;      /* one instruction partly old and partly new */
	uint64_t torn_line; /* of these: inside one 64-byte line */
	uint64_t torn_quad; /* of these: inside one aligned quadword */
	uint64_t strange;   /* a result that no mixture gives */
	uint64_t trapped;
};

/* Results of two fetches, both counters that the patcher counts up. */
struct litmus_order {
	const char *name;
	uint8_t path, sync;
	bool judged;     /* wrong and backward contradict amd and line64 */
	bool after_sync; /* wrong contradicts every model */
	uint64_t runs, writes, seen;
	uint64_t same, second_newer, first_newer;
	uint64_t wrong;    /* first_newer beyond what stores in program order allow */
	uint64_t backward; /* an instruction older than in the execution before */
	uint64_t trapped;
};

/* A whole instruction changed back and forth. */
struct litmus_change {
	const char *name;
	bool protocol; /* by a breakpoint */
	uint8_t syncs; /* of the protocol: 1 after the breakpoint, 2 after the tail, 4 after the head */
	uint8_t bound; /* the widest boundary between the changed bytes */
	uint64_t writes, runs, seen;
	uint64_t torn;              /* executions that were neither old nor new, faults included */
	uint64_t strange;           /* results that no mixture gives */
	uint64_t breakpoints, late; /* traps; those whose breakpoint was gone */
};

struct litmus_spread {
	const char *name;
	uint64_t nr, negative;
	double min, p50, p90, p99, p999, max; /* ns */
};

struct litmus_traps {
	bool sync; /* sync_core after the breakpoint was removed */
	uint64_t placed, runs, traps;
	uint64_t late;       /* the handler found the byte restored */
	uint64_t after_sync; /* of these: entered after the sync that followed the removal */
};

/*
 * A race as the executing thread sees it: body() executes @code until litmus_stopped(). A fault may leave it at any
 * moment; then it is called again. @trap is asked about breakpoints: it may change where execution continues and rax.
 */
struct litmus_job {
	void (*body)(struct litmus_job *job);
	bool (*trap)(struct litmus_job *job, long long *rip, long long *rax);
	const void *code;
	void *arg; /* rdi of the code */
	struct litmus_tally tally;
	uint64_t awaited; /* of tally.runs */
	uint64_t old_result, new_result;
	void *more; /* the body's own */
};

/* litmus_threads_start - pins the caller to @cpus[0] and an executing thread to @cpus[1]; -errno. */
int litmus_threads_start(const int cpus[2]);
void litmus_threads_end(void);
void litmus_job_start(struct litmus_job *job);
void litmus_job_stop(void); /* returns when the body has */
bool litmus_stopped(void);
/*
 * litmus_await - returns when the executing thread has counted a run since it was last called for @job, or at @end: a
 * store that no thread races is wasted, and counters must not run away from a thread that does not run.
 */
void litmus_await(struct litmus_job *job, uint64_t end);
uint64_t litmus_random(uint64_t *state);
void litmus_pause(uint64_t *state); /* a random while, from nothing to some microseconds */
uint64_t litmus_now(void);          /* ns */

/* Not before the loads that come before it. */
static inline uint64_t litmus_tsc(void)
{
	uint32_t low, high;

	__asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high)::"memory");
	return (uint64_t)high << 32 | low;
}

/* litmus_tally_odd - counts a result that is neither old nor new. */
void litmus_tally_odd(struct litmus_tally *tally, uint64_t result);

/* litmus_call - executes @code with the registers that shape.c expects; its rcx goes to *@second. */
static inline uint64_t litmus_call(const void *code, void *arg, uint64_t *second)
{
	uint64_t rax = 3, rcx = 0, rdx = 5;
	register uint64_t r8 __asm__("r8") = 7;
	register uint64_t r10 __asm__("r10") = 11;

	/* Past the red zone, for the return address. */
	__asm__ volatile("leaq -128(%%rsp), %%rsp\n\tcall *%[code]\n\tleaq 128(%%rsp), %%rsp"
			 : "+a"(rax), "+c"(rcx), "+d"(rdx), "+r"(r8), "+r"(r10)
			 : [code] "r"(code), "D"(arg)
			 : "memory", "cc", "r11");
	*second = rcx;
	return rax;
}

/* litmus_tally_result - counts one execution's @result; *@last is the one before. */
static inline void litmus_tally_result(struct litmus_tally *tally, const struct litmus_job *job, uint64_t result,
				       uint64_t *last)
{
	tally->runs++;
	tally->seen += result != *last;
	*last = result;
	if (result == job->old_result)
		tally->old++;
	else if (result == job->new_result)
		tally->new ++;
	else
		litmus_tally_odd(tally, result);
}

/* litmus_race_cell - one race of @ns; adds to the counts of @cell. -errno from the writer or the sync. */
int litmus_race_cell(struct litmus_area *area, struct litmus_cell *cell, uint64_t *random, uint64_t ns);
/* litmus_tally_add - sorts a tally into the counts of a cell: the one place where results become old, new or torn. */
void litmus_tally_add(struct litmus_cell *cell, const struct litmus_code *code, const struct litmus_tally *tally);

/* ---- run.c ---- */

struct litmus_options {
	double seconds;
	uint64_t seed;
	unsigned paths, widths; /* bit i: take part */
	int cpus[2];            /* patcher, executing thread; negative: choose */
	FILE *progress;         /* or NULL */
};

struct litmus_machine {
	char model[128], vendor[32], microcode[32], kernel[160];
	unsigned family, number, stepping;
	bool hypervisor;
};

enum litmus_model { LITMUS_BYTE, LITMUS_AMD, LITMUS_LINE64, LITMUS_SDM, LITMUS_NR_MODELS };
extern const char *const litmus_model_names[LITMUS_NR_MODELS];

#define LITMUS_NR_ORDERS 24
#define LITMUS_NR_SPREADS 8
#define LITMUS_NR_CHANGES 32

struct litmus_report {
	struct litmus_options options;
	struct litmus_machine machine;
	double took;                     /* s */
	int path_error[LITMUS_NR_PATHS]; /* why a path took no part; 0 if it did */
	bool sync_works;
	int split_lock;                /* as litmus_split_lock(): if not 0, xchg was raced inside lines only */
	struct litmus_cell control[2]; /* across a line, across a page */
	struct litmus_cell *cells;
	unsigned nr_cells;
	struct litmus_order orders[LITMUS_NR_ORDERS];
	unsigned nr_orders;
	struct litmus_change changes_made[LITMUS_NR_CHANGES];
	unsigned nr_changes_made;
	struct litmus_spread spreads[LITMUS_NR_SPREADS];
	unsigned nr_spreads;
	struct litmus_traps traps[2];
	bool power;                          /* the control tore */
	bool verdict;                        /* and the path that models are judged by took part */
	uint64_t contrary[LITMUS_NR_MODELS]; /* executions that the model does not allow */
	uint64_t rests_on, changes;          /* executions, and changes seen, that could have been contrary */
};

/* litmus_run - 0, or -errno with nothing measured. Free with litmus_report_free(). */
int litmus_run(const struct litmus_options *options, struct litmus_report *report);
void litmus_report_free(struct litmus_report *report);
/* litmus_judge - computes power and contrary from the counts. */
void litmus_judge(struct litmus_report *report);
/* litmus_cells_sum - adds the cells for which @want is true. */
struct litmus_cell litmus_cells_sum(const struct litmus_report *report,
				    bool (*want)(const struct litmus_cell *cell, const void *arg), const void *arg);

/* ---- report.c, svg.c ---- */

void litmus_print(const struct litmus_report *report, FILE *out);
void litmus_print_json(const struct litmus_report *report, FILE *out);
void litmus_print_svg(const struct litmus_report *report, FILE *out);
void litmus_machine_read(struct litmus_machine *machine);

#endif
