// SPDX-License-Identifier: MIT
/*
 * Changes of a whole instruction, as the library makes them: a 5-byte nop becomes a jump and a nop again. All five bytes
 * differ, so an execution of half of each is a jump to a pad of its own or a fault.
 *
 *	one store      8 bytes from the first byte on. The boundary lies behind the first byte, so each half shows.
 *	flip           test $imm32, %eax against jmp rel32: one byte
 *	breakpoint     int3, tail, head. The handler goes on behind the site. Syncs are left out on purpose: the first, the
 *	               middle one, both, all three.
 *	reread         bytes inside one aligned quadword, changed in bursts without a pause, of instructions that a processor
 *	               may take more than one look at: with a prefix that changes their length; in a line that was flushed
 *	               just now, so that the look waits for memory.
 *
 * I1  A breakpoint that the handler does not find any more is late: the instruction is executed again.
 */
#include "litmus/order.h"
#include "port/linux/sync_membarrier.h"

#include <errno.h>
#include <string.h>

#define LEAST_NS 10000000u /* for each race, even if time is up */
#define BURST 64
#define INT3 0xcc

enum { FIRST = 1, MIDDLE = 2, LAST = 4, ALL = 7 };
enum { ONE_STORE, BREAKPOINT, REREAD, REREAD_FLUSHED };

struct change {
	const char *name;
	uint8_t how, shape, width, syncs;
	uint8_t offset; /* of the instruction in its line */
};

static const struct change changes[] = {
	{"one store, in a quadword", ONE_STORE, LITMUS_NOP, 8, 0, 8},
	{"one store, across 8", ONE_STORE, LITMUS_NOP, 8, 0, 23},
	{"one store, across 16", ONE_STORE, LITMUS_NOP, 8, 0, 15},
	{"one store, across 32", ONE_STORE, LITMUS_NOP, 8, 0, 31},
	{"one store, across a line", ONE_STORE, LITMUS_NOP, 8, 0, 63},
	{"flip of one byte", ONE_STORE, LITMUS_FLIP, 1, 0, 31},
	{"breakpoint, in a quadword", BREAKPOINT, LITMUS_NOP, 8, ALL, 8},
	{"no first sync", BREAKPOINT, LITMUS_NOP, 8, MIDDLE | LAST, 8},
	{"no middle sync", BREAKPOINT, LITMUS_NOP, 8, FIRST | LAST, 8},
	{"last sync only", BREAKPOINT, LITMUS_NOP, 8, LAST, 8},
	{"no sync", BREAKPOINT, LITMUS_NOP, 8, 0, 8},
	{"breakpoint, across 32", BREAKPOINT, LITMUS_NOP, 8, ALL, 31},
	{"no first sync", BREAKPOINT, LITMUS_NOP, 8, MIDDLE | LAST, 31},
	{"no middle sync", BREAKPOINT, LITMUS_NOP, 8, FIRST | LAST, 31},
	{"last sync only", BREAKPOINT, LITMUS_NOP, 8, LAST, 31},
	{"no sync", BREAKPOINT, LITMUS_NOP, 8, 0, 31},
	{"breakpoint, across a line", BREAKPOINT, LITMUS_NOP, 8, ALL, 63},
	{"no first sync", BREAKPOINT, LITMUS_NOP, 8, MIDDLE | LAST, 63},
	{"no middle sync", BREAKPOINT, LITMUS_NOP, 8, FIRST | LAST, 63},
	{"last sync only", BREAKPOINT, LITMUS_NOP, 8, LAST, 63},
	{"no sync", BREAKPOINT, LITMUS_NOP, 8, 0, 63},
	{"reread, length-changing prefix", REREAD, LITMUS_IMM, 2, 0, 10},
	{"reread, prefix and opcode", REREAD, LITMUS_OPCODE, 4, 0, 10},
	{"reread, 8 bytes", REREAD, LITMUS_IMM, 8, 0, 6},
	{"reread, flushed, prefix", REREAD_FLUSHED, LITMUS_IMM, 2, 0, 10},
	{"reread, flushed, opcode", REREAD_FLUSHED, LITMUS_OPCODE, 4, 0, 10},
	{"reread, flushed, 8 bytes", REREAD_FLUSHED, LITMUS_IMM, 8, 0, 6},
};
#define NR_CHANGES (sizeof(changes) / sizeof(changes[0]))
_Static_assert(NR_CHANGES <= LITMUS_NR_CHANGES, "room in the report");

struct watch {
	const struct change *change;
	uint64_t breakpoints, late;
};

static bool on_trap(struct litmus_job *job, long long *rip, long long *rax)
{
	struct watch *watch = job->more;
	const uint8_t *site = job->code;

	if (*rip - 1 != (long long)(uintptr_t)site)
		return false;
	if (__atomic_load_n(site, __ATOMIC_RELAXED) == INT3) {
		watch->breakpoints++;
		*rip += LITMUS_NOP_LEN - 1;
		*rax = 0;
		return true;
	}
	watch->late++;
	*rip -= 1;
	return true;
}

static void execute_change(struct litmus_job *job)
{
	const struct watch *watch = job->more;
	bool flush = watch->change->how == REREAD_FLUSHED;
	struct litmus_tally *tally = &job->tally;
	uint64_t last = job->old_result, unused;

	while (!litmus_stopped()) {
		uint64_t result;

		if (flush)
			__builtin_ia32_clflush(job->code);
		result = litmus_call(job->code, job->arg, &unused);
		litmus_tally_result(tally, job, result, &last);
	}
}

static int store_and_sync(struct litmus_area *area, unsigned at, const uint8_t *bytes, unsigned width, bool sync)
{
	int error = litmus_area_store(area, at, bytes, width);

	return error || !sync ? error : xp__membarrier_sync();
}

static int make_change(struct litmus_area *area, const struct change *change, unsigned at, const uint8_t *image)
{
	static const uint8_t breakpoint = INT3;
	int error;

	if (change->how != BREAKPOINT)
		return litmus_area_store(area, at, image, change->width);
	error = store_and_sync(area, at, &breakpoint, 1, change->syncs & FIRST);
	if (!error)
		error = store_and_sync(area, at + 1, image + 1, 4, change->syncs & MIDDLE);
	if (!error)
		error = store_and_sync(area, at, image, 1, change->syncs & LAST);
	return error;
}

static int patch_change(struct litmus_area *area, const struct change *change, const struct litmus_code *code,
			struct litmus_job *job, uint64_t *writes, uint64_t *random, uint64_t end)
{
	unsigned at = LITMUS_AT(LITMUS_MID) + change->offset + code->store;
	bool burst = change->how >= REREAD;
	int error = 0;

	do {
		litmus_await(job, end);
		for (int i = 0; i < (burst ? BURST : 8) && !error; i++) {
			error = make_change(area, change, at, (i & 1 ? code->old : code->new) + code->store);
			++*writes;
			if (!burst)
				litmus_pause(random);
		}
	} while (!error && litmus_now() < end);
	return error;
}

static int run_change(struct litmus_report *report, struct litmus_area *area, const struct change *change,
		      uint64_t *random, uint64_t end)
{
	struct litmus_change *result = &report->changes_made[report->nr_changes_made++];
	unsigned at = LITMUS_AT(LITMUS_MID) + change->offset;
	struct watch watch = {.change = change};
	struct litmus_job job = {.body = execute_change, .more = &watch};
	struct litmus_cell cell = {.offset = change->offset};
	struct litmus_code code;
	int error;

	litmus_code_make(&code, change->shape, change->width);
	cell.offset = (uint8_t)(cell.offset + code.store);
	*result = (struct litmus_change){.name = change->name,
					 .syncs = change->syncs,
					 .protocol = change->how == BREAKPOINT,
					 .bound = (uint8_t)litmus_code_bound(&code, cell.offset, LITMUS_MID)};
	error = litmus_area_fill(area, at, code.old, code.len);
	if (error)
		return error;
	job.code = area->code + at + code.entry;
	job.trap = change->how == BREAKPOINT ? on_trap : NULL;
	job.old_result = code.old_result;
	job.new_result = code.new_result;
	litmus_job_start(&job);
	error = patch_change(area, change, &code, &job, &result->writes, random, end);
	litmus_job_stop();
	litmus_tally_add(&cell, &code, &job.tally);
	result->breakpoints = watch.breakpoints;
	result->late = watch.late;
	result->runs = cell.runs;
	result->seen = cell.seen;
	/* A nop's mixtures are not told apart: whatever is neither old nor new, a fault included, is one. */
	result->torn = change->shape == LITMUS_NOP ? cell.runs - cell.old - cell.new + cell.trapped : cell.torn;
	result->strange = change->shape == LITMUS_NOP ? 0 : cell.strange + cell.trapped;
	return error;
}

int litmus_run_changes(struct litmus_report *report, struct litmus_area *areas, uint64_t *random, uint64_t end)
{
	unsigned left = NR_CHANGES;
	int error = 0;

	if (!(report->options.paths >> LITMUS_ALIAS & 1))
		return 0;
	for (unsigned i = 0; i < NR_CHANGES && !error; i++, left--) {
		uint64_t now = litmus_now();
		uint64_t until = now + (now + left * LEAST_NS < end ? (end - now) / left : LEAST_NS);

		if (!changes[i].syncs || report->sync_works)
			error = run_change(report, &areas[LITMUS_ALIAS], &changes[i], random, until);
	}
	return error;
}
