// SPDX-License-Identifier: MIT
/*
 * The two threads of a race. The caller patches; one other thread, pinned elsewhere, executes.
 *
 * I1  The executing thread runs raced code only between litmus_job_start() and litmus_job_stop(); elsewhere the code
 *     may be rewritten at leisure.
 * I2  A fault in raced code is counted and the race goes on. A fault anywhere else has the action it had before.
 *
 * The patcher waits a random while after each store: a fixed rhythm would meet the loop of the other thread always at
 * the same place.
 */
#include "arch/arch.h"
#include "litmus/litmus.h"
#include "port/linux/sync_membarrier.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <ucontext.h>

static pthread_t executor;
static struct litmus_job *current; /* NULL: the executing thread shall end */
/* Sequentially consistent: they are touched before and after a race, not in it; `stop` is a plain load on x86. */
static _Atomic uint32_t started, finished; /* jobs */
static _Atomic bool stop;
static volatile sig_atomic_t inside; /* of a body */
static sigjmp_buf outside;
static cpu_set_t cpus_before;

static const int signals[] = {SIGSEGV, SIGILL, SIGBUS, SIGTRAP, SIGFPE};
#define NR_SIGNALS (sizeof(signals) / sizeof(signals[0]))
static struct sigaction actions_before[NR_SIGNALS];
static uint8_t signal_stack[1 << 16];

uint64_t litmus_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t litmus_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

void litmus_pause(uint64_t *state)
{
	uint64_t random = litmus_random(state);
	/* Mostly shorter than an execution or two; now and then long enough for the other thread to settle. */
	unsigned turns = (random & 15 ? 0xff : 0x1fff) & random >> 8;

	while (turns--)
		__asm__ volatile("");
}

static void on_fault(int signal, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *gregs = uc->uc_mcontext.gregs;
	struct litmus_job *job = current;

	(void)info;
	if (!inside || !pthread_equal(pthread_self(), executor)) {
		/* Not ours: executes again, and meets what was there before. */
		for (size_t i = 0; i < NR_SIGNALS; i++)
			if (signals[i] == signal)
				sigaction(signal, &actions_before[i], NULL);
		return;
	}
	if (signal == SIGTRAP && job->trap && job->trap(job, &gregs[REG_RIP], &gregs[REG_RAX]))
		return;
	job->tally.trapped++;
	siglongjmp(outside, 1);
}

static void run_job(struct litmus_job *job)
{
	/* Whatever the processor remembers of earlier code at these addresses is not part of this race. */
	xp__serialize();
	(void)sigsetjmp(outside, 1);
	while (!litmus_stopped()) {
		inside = 1;
		job->body(job);
	}
	inside = 0;
}

static void *execute(void *unused)
{
	stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof(signal_stack)}, before;
	uint32_t done = 0;

	sigaltstack(&stack, &before);
	for (;;) {
		for (unsigned spins = 0; started == done; spins++)
			if (spins > 20000)
				sched_yield();
			else
				__builtin_ia32_pause();
		done++;
		if (current == NULL)
			break;
		run_job(current);
		finished = done;
	}
	sigaltstack(&before, NULL);
	return unused;
}

bool litmus_stopped(void)
{
	return stop;
}

void litmus_job_start(struct litmus_job *job)
{
	current = job;
	stop = false;
	started++;
}

void litmus_job_stop(void)
{
	stop = true;
	while (finished != started)
		__builtin_ia32_pause();
}

void litmus_await(struct litmus_job *job, uint64_t end)
{
	uint64_t runs;
	unsigned spins = 0;

	do
		runs = __atomic_load_n(&job->tally.runs, __ATOMIC_RELAXED);
	while (runs == job->awaited && (++spins % 256 || litmus_now() < end));
	job->awaited = runs;
}

int litmus_threads_start(const int cpus[2])
{
	struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	cpu_set_t set, other;
	int error;

	sched_getaffinity(0, sizeof(cpus_before), &cpus_before);
	started = finished = 0;
	CPU_ZERO(&set);
	CPU_SET(cpus[0], &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		return -errno;
	for (size_t i = 0; i < NR_SIGNALS; i++)
		sigaction(signals[i], &action, &actions_before[i]);
	/* A thread inherits where it may run. */
	CPU_ZERO(&other);
	CPU_SET(cpus[1], &other);
	if (sched_setaffinity(0, sizeof(other), &other))
		return -errno;
	error = pthread_create(&executor, NULL, execute, NULL);
	sched_setaffinity(0, sizeof(set), &set);
	return -error;
}

void litmus_threads_end(void)
{
	litmus_job_start(NULL);
	pthread_join(executor, NULL);
	for (size_t i = 0; i < NR_SIGNALS; i++)
		sigaction(signals[i], &actions_before[i], NULL);
	sched_setaffinity(0, sizeof(cpus_before), &cpus_before);
}

/* ---- torn executions ---- */

void litmus_tally_odd(struct litmus_tally *tally, uint64_t result)
{
	for (int i = 0; i < LITMUS_NR_ODD; i++) {
		if (tally->odd[i].nr == 0)
			tally->odd[i].result = result;
		if (tally->odd[i].result == result) {
			tally->odd[i].nr++;
			return;
		}
	}
	tally->lost++;
}

static void execute_cell(struct litmus_job *job)
{
	struct litmus_tally *tally = &job->tally;
	uint64_t last = job->old_result, unused;

	while (!litmus_stopped()) {
		for (int i = 0; i < 32; i++) {
			uint64_t result = litmus_call(job->code, job->arg, &unused);

			litmus_tally_result(tally, job, result, &last);
		}
	}
}

void litmus_tally_add(struct litmus_cell *cell, const struct litmus_code *code, const struct litmus_tally *tally)
{
	cell->runs += tally->runs;
	cell->seen += tally->seen;
	cell->old += tally->old;
	cell->new += tally->new;
	cell->trapped += tally->trapped;
	cell->strange += tally->lost;
	for (int i = 0; i < LITMUS_NR_ODD; i++) {
		uint64_t nr = tally->odd[i].nr;
		uint32_t mask;

		if (nr == 0)
			continue;
		mask = litmus_code_mask(code, tally->odd[i].result);
		if (mask == LITMUS_NO_MIXTURE) {
			cell->strange += nr;
			continue;
		}
		if (litmus_mask_torn(code, mask, cell->offset, 4096))
			cell->torn += nr;
		else
			cell->between += nr;
		if (litmus_mask_torn(code, mask, cell->offset, 64))
			cell->torn_line += nr;
		if (litmus_mask_torn(code, mask, cell->offset, 8))
			cell->torn_quad += nr;
	}
}

static int patch_cell(struct litmus_area *area, struct litmus_cell *cell, const struct litmus_code *code,
		      struct litmus_job *job, uint64_t *random, uint64_t ns)
{
	unsigned at = LITMUS_AT(cell->place) + cell->offset;
	uint64_t end = litmus_now() + ns;
	int error = 0;

	do {
		litmus_await(job, end);
		for (int i = 0; i < 8 && !error; i++) {
			const uint8_t *image = i & 1 ? code->old : code->new;

			error = litmus_area_store(area, at, image + code->store, code->width);
			if (!error && cell->sync)
				error = xp__membarrier_sync();
			cell->writes++;
			litmus_pause(random);
		}
	} while (!error && litmus_now() < end);
	return error;
}

int litmus_race_cell(struct litmus_area *area, struct litmus_cell *cell, uint64_t *random, uint64_t ns)
{
	struct litmus_job job = {.body = execute_cell};
	struct litmus_code code;
	unsigned at;
	int error;

	litmus_code_make(&code, cell->shape, cell->width);
	at = LITMUS_AT(cell->place) + cell->offset - code.store;
	error = litmus_area_fill(area, at, code.old, code.len);
	if (error)
		return error;
	job.code = area->code + at + code.entry;
	job.old_result = code.old_result;
	job.new_result = code.new_result;
	litmus_job_start(&job);
	error = patch_cell(area, cell, &code, &job, random, ns);
	litmus_job_stop();
	litmus_tally_add(cell, &code, &job.tally);
	return error;
}
