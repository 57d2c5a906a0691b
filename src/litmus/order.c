// SPDX-License-Identifier: MIT
/*
 * The races whose question is not whether one instruction tore.
 *
 * Order: immediates are counters that only the patcher counts up, each in an aligned quadword of its own or, where
 * one store covers both, together. One execution yields two of them, first and second in program order. What the
 * literature on fetch models calls SM, MP.FF and A-B', A'-B becomes: may the second be older than the first?
 *
 *	second, then first     two stores. The second older than the first: the fetches, or the stores as seen by fetch,
 *	                       were out of order (MP.FF).
 *	first, then second     two stores. The second may be one behind: fetched between the stores. More is out of order.
 *	one store              A'-B is the second older than the first, A-B' the second newer
 *	data, then code        the first is a load of the very bytes that are executed next
 *	flag, then code        the first is a flag in another line, set after the code was stored (and synced)
 *	own store              the executing thread stores through the alias and executes at once (SM)
 *
 * Delay: from before the store until the other thread has executed the new instruction. Late traps: an int3 is placed
 * and removed, and the handler looks at the byte.
 *
 * I1  Counters may wrap; they are compared by their difference. The patcher never runs more than LEAD ahead of an
 *     executing thread that stands still (litmus_await), so that 16-bit counters are compared rightly, too.
 */
#include "litmus/order.h"
#include "port/linux/sync_membarrier.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LEAD 8
#define LEAST_NS 10000000u /* for each race, even if time is up */
#define NR_SAMPLES 65536
#define RET 0xc3
#define INT3 0xcc

enum how { ONE_STORE_16, ONE_STORE_8, SECOND_FIRST, FIRST_SECOND, DATA, FLAG, OWN, OWN_JUMP };

struct race {
	const char *name;
	enum how how;
	uint8_t path, sync, place;
	uint8_t start; /* of the code, in its line; the immediate that is alone is at start + 3 */
};

#define A LITMUS_ALIAS
static const struct race races[] = {
	{"MP.FF, adjacent", SECOND_FIRST, A, 0, LITMUS_MID, 3},
	{"MP.FF, across a line", SECOND_FIRST, A, 0, LITMUS_MID, 59},
	{"MP.FF, across a page", SECOND_FIRST, A, 0, LITMUS_END, 59},
	{"first, second, adjacent", FIRST_SECOND, A, 0, LITMUS_MID, 3},
	{"first, second, across line", FIRST_SECOND, A, 0, LITMUS_MID, 59},
	{"first, second, across page", FIRST_SECOND, A, 0, LITMUS_END, 59},
	{"A-B, one store, quadword", ONE_STORE_8, A, 0, LITMUS_MID, 8},
	{"A-B, one store of 16", ONE_STORE_16, A, 0, LITMUS_MID, 3},
	{"data, then code", DATA, A, 0, LITMUS_MID, 1},
	{"data, then code", DATA, LITMUS_WINDOW, 0, LITMUS_MID, 1},
	{"data, then code", DATA, LITMUS_XCHG, 0, LITMUS_MID, 1},
	{"data, then code", DATA, LITMUS_PROCMEM, 0, LITMUS_MID, 1},
	{"flag, then code", FLAG, A, 0, LITMUS_MID, 1},
	{"flag after sync, then code", FLAG, A, 1, LITMUS_MID, 1},
	{"flag after sync, then code", FLAG, LITMUS_MPROTECT, 1, LITMUS_MID, 1},
	{"flag after sync, then code", FLAG, LITMUS_PROCMEM, 1, LITMUS_MID, 1},
	{"SM, own store", OWN, A, 0, LITMUS_MID, 11},
	{"SM, own store and jump", OWN_JUMP, A, 0, LITMUS_MID, 9},
};
#define NR_RACES (sizeof(races) / sizeof(races[0]))

struct watch {
	const struct race *race;
	struct litmus_order *order;
	uint32_t last[2];
	struct {
		void *target;
		uint32_t value;
	} own;                                          /* what the code of OWN reads; its rdi */
	uint32_t flag __attribute__((aligned(64)));     /* what the code of FLAG reads; its rdi */
	uint8_t after[64] __attribute__((aligned(64))); /* nothing else in the flag's line */
};

/* The code with both counters at @value; returns its length. */
static unsigned make_code(const struct race *race, uint32_t value, uint8_t code[32])
{
	static const uint8_t load_own[] = {0x8b, 0x4f, 0x08, 0x48, 0x8b, 0x17, 0x89, 0x0a, 0xeb, 0x00};
	unsigned at = 0;

	switch (race->how) {
	case ONE_STORE_8:
		memcpy(code,
		       (const uint8_t[]){0x66, 0xb8, (uint8_t)value, (uint8_t)(value >> 8), 0x66, 0xb9, (uint8_t)value,
					 (uint8_t)(value >> 8), RET},
		       9);
		return 9;
	case DATA:
	case FLAG:
		memcpy(code, "\x8b\x0f", 2); /* mov (%rdi), %ecx */
		at = 2;
		break;
	case OWN:
	case OWN_JUMP: /* mov 8(%rdi), %ecx; mov (%rdi), %rdx; mov %ecx, (%rdx); jmp to what follows */
		at = race->how == OWN ? 8 : 10;
		memcpy(code, load_own, at);
		break;
	default:
		break;
	}
	code[at] = 0xb8;
	memcpy(code + at + 1, &value, 4);
	at += 5;
	if (race->how == ONE_STORE_16 || race->how == SECOND_FIRST || race->how == FIRST_SECOND) {
		code[at] = 0xb9;
		memcpy(code + at + 1, &value, 4);
		at += 5;
	}
	code[at] = RET;
	return at + 1;
}

/* One step of the counters. */
static int step(struct litmus_area *area, struct watch *watch, uint32_t value)
{
	const struct race *race = watch->race;
	unsigned line = LITMUS_AT(race->place), at = line + race->start;
	uint8_t code[32];
	int error;

	memset(code, INT3, sizeof(code));
	switch (race->how) {
	case ONE_STORE_8:
		make_code(race, value, code);
		return litmus_area_store(area, at, code, 8);
	case ONE_STORE_16:
		make_code(race, value, code + race->start);
		return litmus_area_store(area, line, code, 16);
	case SECOND_FIRST:
		error = litmus_area_store(area, at + 6, &value, 4);
		return error ? error : litmus_area_store(area, at + 1, &value, 4);
	case FIRST_SECOND:
		error = litmus_area_store(area, at + 1, &value, 4);
		return error ? error : litmus_area_store(area, at + 6, &value, 4);
	default:
		error = litmus_area_store(area, at + 3, &value, 4);
		if (!error && race->sync)
			error = xp__membarrier_sync();
		__atomic_store_n(&watch->flag, value, __ATOMIC_RELAXED); /* stores stay in order on x86 */
		return error;
	}
}

static int32_t difference(const struct race *race, uint32_t a, uint32_t b)
{
	return race->how == ONE_STORE_8 ? (int16_t)(a - b) : (int32_t)(a - b);
}

static void note(struct watch *watch, const uint32_t value[2])
{
	struct litmus_order *order = watch->order;
	int32_t ahead = difference(watch->race, value[1], value[0]);

	order->runs++;
	order->seen += value[1] != watch->last[1];
	order->same += ahead == 0;
	order->second_newer += ahead > 0;
	order->first_newer += ahead < 0;
	order->wrong += ahead < (watch->race->how == FIRST_SECOND ? -1 : 0);
	order->backward += difference(watch->race, value[0], watch->last[0]) < 0 ||
			   difference(watch->race, value[1], watch->last[1]) < 0;
	memcpy(watch->last, value, sizeof(watch->last));
}

static void execute_race(struct litmus_job *job)
{
	struct watch *watch = job->more;
	enum how how = watch->race->how;
	bool pair = how <= FIRST_SECOND, own = how >= OWN;

	while (!litmus_stopped()) {
		for (int i = 0; i < 32; i++) {
			uint64_t rax, rcx;

			watch->own.value += own;
			rax = litmus_call(job->code, job->arg, &rcx);
			note(watch, pair ? (const uint32_t[]){(uint32_t)rax, (uint32_t)rcx}
					 : (const uint32_t[]){(uint32_t)rcx, (uint32_t)rax});
			job->tally.runs++;
		}
	}
}

static int patch_race(struct litmus_area *area, struct watch *watch, struct litmus_job *job, uint64_t *random,
		      uint64_t end)
{
	uint32_t value = 0;
	int error = 0;

	while (!error && litmus_now() < end) {
		litmus_await(job, end);
		for (int i = 0; i < LEAD && !error && watch->race->how < OWN; i++) {
			error = step(area, watch, ++value);
			watch->order->writes++;
			litmus_pause(random);
		}
	}
	return error;
}

static int fill_code(struct litmus_area *area, const struct race *race)
{
	uint8_t code[32];
	unsigned len = make_code(race, 0, code);

	return litmus_area_fill(area, LITMUS_AT(race->place) + race->start, code, len);
}

static int run_race(struct litmus_report *report, struct litmus_area *area, const struct race *race, uint64_t *random,
		    uint64_t end)
{
	struct litmus_order *order = &report->orders[report->nr_orders++];
	unsigned at = LITMUS_AT(race->place) + race->start;
	struct watch watch = {.race = race, .order = order};
	struct litmus_job job = {.body = execute_race, .code = area->code + at, .more = &watch};
	int error = fill_code(area, race);

	if (error)
		return error;
	*order = (struct litmus_order){.name = race->name,
				       .path = race->path,
				       .sync = race->sync,
				       .judged = race->how <= FIRST_SECOND,
				       .after_sync = race->sync};
	job.arg = race->how == DATA ? area->code + at + 3 : race->how == FLAG ? (void *)&watch.flag : &watch.own;
	/* B8 stands 8 or 10 bytes after the start of OWN. */
	watch.own.target = race->how >= OWN ? area->data + at + (race->how == OWN ? 9 : 11) : NULL;
	litmus_job_start(&job);
	error = patch_race(area, &watch, &job, random, end);
	litmus_job_stop();
	if (race->how >= OWN)
		order->writes = order->runs;
	order->trapped = job.tally.trapped;
	return error;
}

/* ---- delay ---- */

struct delay {
	uint64_t when;  /* TSC of the first execution that saw it */
	uint32_t value; /* written after ->when; stores stay in order on x86 */
};

static void execute_delay(struct litmus_job *job)
{
	struct delay *delay = job->more;
	uint32_t last = __atomic_load_n(&delay->value, __ATOMIC_RELAXED);
	uint64_t rcx;

	while (!litmus_stopped()) {
		uint32_t value = (uint32_t)litmus_call(job->code, job->arg, &rcx);

		if (value == last)
			continue;
		__atomic_store_n(&delay->when, litmus_tsc(), __ATOMIC_RELAXED);
		__atomic_store_n(&delay->value, value, __ATOMIC_RELAXED);
		last = value;
	}
}

/* For comparison: the same bytes, read and not executed. */
static void poll_delay(struct litmus_job *job)
{
	struct delay *delay = job->more;
	uint32_t last = __atomic_load_n(&delay->value, __ATOMIC_RELAXED);

	while (!litmus_stopped()) {
		uint32_t value = __atomic_load_n((const uint32_t *)job->arg, __ATOMIC_RELAXED);

		if (value == last)
			continue;
		__atomic_store_n(&delay->when, litmus_tsc(), __ATOMIC_RELAXED);
		__atomic_store_n(&delay->value, value, __ATOMIC_RELAXED);
		last = value;
	}
}

static int ascending(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static void fill_spread(struct litmus_spread *spread, int64_t *sample, uint64_t nr, double ns_per_tick)
{
	static const double at[] = {0, 0.5, 0.9, 0.99, 0.999, 1};
	double *const to[] = {&spread->min, &spread->p50, &spread->p90, &spread->p99, &spread->p999, &spread->max};

	spread->nr = nr;
	if (nr == 0)
		return;
	qsort(sample, nr, sizeof(*sample), ascending);
	for (uint64_t i = 0; i < nr && sample[i] < 0; i++)
		spread->negative++;
	for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++)
		*to[i] = (double)sample[(uint64_t)(at[i] * (double)(nr - 1))] * ns_per_tick;
}

/* One sample: a store, then the wait until it was executed (or the sync returned). @sample stays if time is up. */
static int sample_delay(struct litmus_area *area, unsigned at, uint32_t value, struct delay *delay, bool sync,
			uint64_t end, int64_t *sample, bool *taken)
{
	uint64_t before = litmus_tsc(), spins = 0;
	int error = litmus_area_store(area, at, &value, 4);

	if (!error && sync) {
		error = xp__membarrier_sync();
		*sample = (int64_t)(litmus_tsc() - before);
		*taken = true;
		return error;
	}
	while (__atomic_load_n(&delay->value, __ATOMIC_RELAXED) != value)
		if (++spins % 1024 == 0 && litmus_now() > end)
			return error;
	*sample = (int64_t)(delay->when - before);
	*taken = true;
	return error;
}

static const struct {
	const char *name;
	uint8_t path;
	bool sync, poll;
} delays[] = {
	{"alias: seen as data by a polling thread", A, false, true},
	{"alias: executed, no sync", A, false, false},
	{"alias: sync_core returned", A, true, false},
	{"window: executed, no sync", LITMUS_WINDOW, false, false},
	{"xchg: executed, no sync", LITMUS_XCHG, false, false},
	{"mprotect: executed, no sync", LITMUS_MPROTECT, false, false},
	{"procmem: executed, no sync", LITMUS_PROCMEM, false, false},
};
#define NR_DELAYS (sizeof(delays) / sizeof(delays[0]))

static int run_delay(struct litmus_report *report, struct litmus_area *area, unsigned which, uint64_t *random,
		     uint64_t end)
{
	static const struct race code = {.how = DATA, .place = LITMUS_MID, .start = 1};
	struct litmus_spread *spread = &report->spreads[report->nr_spreads++];
	unsigned at = LITMUS_AT(LITMUS_MID) + 4;
	struct delay delay = {0, 0};
	struct litmus_job job = {.body = delays[which].poll ? poll_delay : execute_delay,
				 .code = area->code + at - 3,
				 .arg = area->code + at,
				 .more = &delay};
	uint64_t ns = litmus_now(), tsc = litmus_tsc(), nr = 0;
	int64_t *sample = calloc(NR_SAMPLES, sizeof(*sample));
	int error = sample ? fill_code(area, &code) : -ENOMEM;

	*spread = (struct litmus_spread){.name = delays[which].name};
	if (!error) {
		litmus_job_start(&job);
		for (uint32_t value = 1; !error && nr < NR_SAMPLES && litmus_now() < end; value++) {
			bool taken = false;

			error = sample_delay(area, at, value, &delay, delays[which].sync, end, &sample[nr], &taken);
			nr += taken;
			for (int i = 0; i < 8; i++)
				litmus_pause(random);
		}
		litmus_job_stop();
		fill_spread(spread, sample, nr, (double)(litmus_now() - ns) / (double)(litmus_tsc() - tsc));
	}
	free(sample);
	return error;
}

/* ---- late traps ---- */

enum { PLACED, REMOVED, SYNCED };

struct trapping {
	struct litmus_traps *traps;
	uint32_t state;
};

/* In the handler. Whether the breakpoint still stands decides what to do, as in the library's own. */
static bool on_trap(struct litmus_job *job, long long *rip, long long *rax)
{
	struct trapping *trapping = job->more;
	const uint8_t *site = job->code;
	uint32_t state = __atomic_load_n(&trapping->state, __ATOMIC_RELAXED);

	if (*rip - 1 != (long long)(uintptr_t)site)
		return false;
	trapping->traps->traps++;
	if (*(const volatile uint8_t *)site == INT3) {
		*rip += 4;
		*rax = 0;
		return true;
	}
	trapping->traps->late++;
	trapping->traps->after_sync += state == SYNCED;
	*rip -= 1;
	return true;
}

static void execute_traps(struct litmus_job *job)
{
	uint64_t rcx;

	while (!litmus_stopped()) {
		litmus_call(job->code, NULL, &rcx);
		job->tally.runs++;
	}
}

static int run_traps(struct litmus_report *report, struct litmus_area *area, bool sync, uint64_t *random, uint64_t end)
{
	static const uint8_t code[] = {0xb8, 1, 0, 0, 0, RET}, breakpoint = INT3;
	struct litmus_traps *traps = &report->traps[sync];
	struct trapping trapping = {.traps = traps, .state = REMOVED};
	unsigned at = LITMUS_AT(LITMUS_MID) + 8;
	struct litmus_job job = {.body = execute_traps, .trap = on_trap, .code = area->code + at, .more = &trapping};
	int error = litmus_area_fill(area, at, code, sizeof(code));

	traps->sync = sync;
	if (error)
		return error;
	litmus_job_start(&job);
	while (!error && litmus_now() < end) {
		litmus_await(&job, end);
		__atomic_store_n(&trapping.state, PLACED, __ATOMIC_RELAXED);
		error = litmus_area_store(area, at, &breakpoint, 1);
		traps->placed++;
		for (unsigned i = litmus_random(random) % 8; i-- > 0;)
			litmus_pause(random);
		if (!error)
			error = litmus_area_store(area, at, code, 1);
		__atomic_store_n(&trapping.state, REMOVED, __ATOMIC_RELAXED);
		if (!error && sync) {
			error = xp__membarrier_sync();
			__atomic_store_n(&trapping.state, SYNCED, __ATOMIC_RELAXED);
		}
		/* Time for a late trap to be seen as what it is. */
		for (int i = 0; i < 16; i++)
			litmus_pause(random);
	}
	litmus_job_stop();
	traps->runs = job.tally.runs;
	return error;
}

static bool wanted(const struct litmus_report *report, unsigned path, bool sync)
{
	return report->options.paths >> path & 1 && !report->path_error[path] && (!sync || report->sync_works);
}

int litmus_run_orders(struct litmus_report *report, struct litmus_area *areas, uint64_t *random, uint64_t end)
{
	unsigned left = NR_RACES + NR_DELAYS + 2;
	int error = 0;

	for (unsigned i = 0; i < NR_RACES + NR_DELAYS + 2 && !error; i++, left--) {
		uint64_t now = litmus_now();
		uint64_t until = now + (now + left * LEAST_NS < end ? (end - now) / left : LEAST_NS);
		unsigned j = i - NR_RACES, k = i - NR_RACES - NR_DELAYS;

		if (i < NR_RACES && wanted(report, races[i].path, races[i].sync))
			error = run_race(report, &areas[races[i].path], &races[i], random, until);
		else if (i >= NR_RACES && j < NR_DELAYS && wanted(report, delays[j].path, delays[j].sync))
			error = run_delay(report, &areas[delays[j].path], j, random, until);
		else if (i >= NR_RACES + NR_DELAYS && wanted(report, A, k))
			error = run_traps(report, &areas[A], k, random, until);
	}
	return error;
}
