// SPDX-License-Identifier: MIT
/*
 * Which races are run for how long, and what their counts mean.
 *
 * Time: a control first, then the matrix of cells in several passes, each in an order of its own (what else runs on
 * the machine then falls on no cell in particular), then the races of change.c and of order.c.
 *
 * I1  A run in which the control did not tear has no power, whatever else it counted.
 * I2  No count is a proof. A model is refuted by what was seen, or not refuted; "safe" is not among the answers.
 */
#include "litmus/litmus.h"
#include "litmus/order.h"
#include "port/linux/sync_membarrier.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

const char *const litmus_model_names[LITMUS_NR_MODELS] = {"byte", "amd", "line64", "intel-sdm"};

#define CONTROL_SHARE 0.04
#define MATRIX_SHARE 0.55
#define CHANGES_SHARE 0.2
#define PASS_NS 15e9 /* a pass of the matrix: shorter ones spend their time on starting and stopping */

/* Whether the store itself reaches into the next line; what changes may not. */
static bool is_split(const struct litmus_cell *cell)
{
	return cell->offset + cell->width > 64;
}

static void add_cells(struct litmus_report *report, struct litmus_cell cell)
{
	struct litmus_code code;

	litmus_code_make(&code, cell.shape, cell.width);
	for (unsigned place = 0; place < LITMUS_NR_PLACES; place++) {
		for (unsigned offset = 0; offset < 64; offset++) {
			cell.place = (uint8_t)place;
			cell.offset = (uint8_t)offset;
			cell.bound = (uint8_t)litmus_code_bound(&code, offset, place);
			if (cell.path == LITMUS_XCHG && report->split_lock && is_split(&cell))
				continue;
			/* The last line of a page differs from any other only where it is left. */
			if (place == LITMUS_MID || cell.bound == LITMUS_PAGE)
				report->cells[report->nr_cells++] = cell;
		}
	}
}

static int make_cells(struct litmus_report *report)
{
	size_t most = (size_t)LITMUS_NR_PATHS * 2 * LITMUS_NR_SHAPES * LITMUS_NR_WIDTHS * 128;

	report->cells = calloc(most, sizeof(*report->cells));
	if (report->cells == NULL)
		return -ENOMEM;
	for (unsigned path = 0; path < LITMUS_NR_PATHS; path++)
		for (unsigned sync = 0; sync <= report->sync_works; sync++)
			for (unsigned shape = 0; shape < LITMUS_NR_SHAPES; shape++)
				for (unsigned w = 0; w < LITMUS_NR_WIDTHS; w++)
					if (report->options.paths >> path & report->options.widths >> w & 1 &&
					    !report->path_error[path] && litmus_path_takes(path, LITMUS_WIDTH(w)))
						add_cells(report, (struct litmus_cell){
									  .path = (uint8_t)path,
									  .sync = (uint8_t)sync,
									  .shape = (uint8_t)shape,
									  .width = (uint8_t)LITMUS_WIDTH(w),
								  });
	return 0;
}

/* The time that a cell takes of a pass, in parts: more where a race is quick and nothing helps the other thread. */
static unsigned parts(const struct litmus_cell *cell)
{
	return cell->sync ? 1 : litmus_path_single(cell->path) ? 3 : 2;
}

static void shuffle(unsigned *order, unsigned nr, uint64_t *random)
{
	for (unsigned i = nr; i-- > 1;) {
		unsigned j = (unsigned)(litmus_random(random) % (i + 1)), swap = order[i];

		order[i] = order[j];
		order[j] = swap;
	}
}

static void progress(const struct litmus_report *report, const char *what, uint64_t start, const char *end)
{
	if (report->options.progress) {
		fprintf(report->options.progress, "\r\033[Klitmus: %s, %.0f of %.0f s%s", what,
			(double)(litmus_now() - start) / 1e9, report->options.seconds, end);
		fflush(report->options.progress);
	}
}

static int run_matrix(struct litmus_report *report, struct litmus_area *areas, uint64_t *random, uint64_t start,
		      double ns)
{
	unsigned *order = calloc(report->nr_cells + 1, sizeof(*order));
	uint64_t end = litmus_now() + (uint64_t)ns;
	unsigned passes = 1 + (unsigned)(ns / PASS_NS), all_parts = 0;
	int error = 0;

	if (order == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < report->nr_cells; i++) {
		order[i] = i;
		all_parts += parts(&report->cells[i]);
	}
	for (unsigned pass = 0; pass < passes && !error; pass++) {
		/* What the pass may take, of the time that is left: handling a cell takes time, too. */
		uint64_t left = litmus_now() < end ? end - litmus_now() : 0;
		uint64_t pass_end = litmus_now() + left / (passes - pass), parts_left = all_parts;

		shuffle(order, report->nr_cells, random);
		/* On a busy machine a cell may take long; what then is left out is left to chance. */
		for (unsigned i = 0; i < report->nr_cells && !error && litmus_now() < end; i++) {
			struct litmus_cell *cell = &report->cells[order[i]];
			uint64_t now = litmus_now(), part = now < pass_end ? (pass_end - now) / parts_left : 0;

			if (i % 256 == 0)
				progress(report, "torn executions", start, "");
			error = litmus_race_cell(&areas[cell->path], cell, random, part * parts(cell));
			parts_left -= parts(cell);
		}
	}
	free(order);
	return error;
}

/* Stores of 8 bytes, 4 of them in the next line: what must tear if this run can see tearing at all. */
static int run_control(struct litmus_report *report, struct litmus_area *area, uint64_t *random, double ns)
{
	int error = 0;

	for (int i = 0; i < 2; i++)
		report->control[i] = (struct litmus_cell){.path = LITMUS_ALIAS,
							  .shape = LITMUS_IMM,
							  .width = 8,
							  .offset = 60,
							  .place = i ? LITMUS_END : LITMUS_MID,
							  .bound = i ? LITMUS_PAGE : LITMUS_LINE};
	for (int round = 0; round < 10 && !error; round++)
		error = litmus_race_cell(area, &report->control[round & 1], random, (uint64_t)(ns / 10));
	return error;
}

/* Two processors that the process may use, as far apart as their numbers are. */
static int choose_cpus(int cpus[2])
{
	cpu_set_t set;

	if (cpus[0] >= 0)
		return 0;
	if (sched_getaffinity(0, sizeof(set), &set))
		return -errno;
	for (int i = 0; i < CPU_SETSIZE; i++) {
		if (!CPU_ISSET(i, &set))
			continue;
		if (cpus[0] < 0)
			cpus[0] = i;
		cpus[1] = i;
	}
	return cpus[0] == cpus[1] ? -ENODEV : 0;
}

static int run_all(struct litmus_report *report, struct litmus_area *areas)
{
	const struct litmus_options *options = &report->options;
	uint64_t start = litmus_now(), random = options->seed;
	double ns = options->seconds * 1e9;
	int error = make_cells(report);

	if (!error)
		error = run_control(report, &areas[LITMUS_ALIAS], &random, ns * CONTROL_SHARE);
	if (!error)
		error = run_matrix(report, areas, &random, start, ns * MATRIX_SHARE);
	if (!error) {
		progress(report, "whole instructions", start, "");
		error = litmus_run_changes(report, areas, &random, litmus_now() + (uint64_t)(ns * CHANGES_SHARE));
	}
	if (!error) {
		progress(report, "order, delay, late traps", start, "");
		error = litmus_run_orders(report, areas, &random, start + (uint64_t)ns);
	}
	report->took = (double)(litmus_now() - start) / 1e9;
	progress(report, "done", start, "\n");
	return error;
}

int litmus_run(const struct litmus_options *options, struct litmus_report *report)
{
	struct litmus_area areas[LITMUS_NR_PATHS];
	int error;

	memset(report, 0, sizeof(*report));
	memset(areas, 0, sizeof(areas));
	report->options = *options;
	litmus_machine_read(&report->machine);
	error = choose_cpus(report->options.cpus);
	if (error)
		return error;
	report->sync_works = xp__membarrier_sync() == 0;
	report->split_lock = litmus_split_lock();
	for (unsigned path = 0; path < LITMUS_NR_PATHS; path++)
		report->path_error[path] = litmus_area_open(&areas[path], path);
	error = report->path_error[LITMUS_ALIAS];
	if (!error)
		error = litmus_threads_start(report->options.cpus);
	if (!error) {
		error = run_all(report, areas);
		litmus_threads_end();
	}
	for (unsigned path = 0; path < LITMUS_NR_PATHS; path++)
		if (!report->path_error[path])
			litmus_area_close(&areas[path]);
	litmus_judge(report);
	if (error)
		litmus_report_free(report);
	return error;
}

void litmus_report_free(struct litmus_report *report)
{
	free(report->cells);
	report->cells = NULL;
	report->nr_cells = 0;
}

struct litmus_cell litmus_cells_sum(const struct litmus_report *report,
				    bool (*want)(const struct litmus_cell *cell, const void *arg), const void *arg)
{
	struct litmus_cell sum = {0};

	for (unsigned i = 0; i < report->nr_cells; i++) {
		const struct litmus_cell *cell = &report->cells[i];

		if (!want(cell, arg))
			continue;
		sum.writes += cell->writes;
		sum.runs += cell->runs;
		sum.seen += cell->seen;
		sum.old += cell->old;
		sum.new += cell->new;
		sum.between += cell->between;
		sum.torn += cell->torn;
		sum.torn_line += cell->torn_line;
		sum.torn_quad += cell->torn_quad;
		sum.strange += cell->strange;
		sum.trapped += cell->trapped;
	}
	return sum;
}

static bool is_single_store(const struct litmus_cell *cell, const void *arg)
{
	(void)arg;
	return litmus_path_single(cell->path);
}

static bool is_any(const struct litmus_cell *cell, const void *arg)
{
	(void)arg;
	return cell != NULL;
}

/*
 * What each model forbids, of what is counted here:
 *	byte       a result that no mixture of old and new bytes gives; old code after a sync
 *	amd        and: one aligned quadword partly old in one instruction; fetches against the order of the stores
 *	line64     and: one line partly old in one instruction
 *	intel-sdm  old code after a sync; it promises nothing else
 * A change by a breakpoint with all its syncs may be torn under none of them; with syncs left out, or by one store, as far
 * as the model has blocks that it lies in.
 * A store is known to be one only on the paths alias, window and xchg: torn executions elsewhere may be the path's doing.
 */
void litmus_judge(struct litmus_report *report)
{
	struct litmus_cell any = litmus_cells_sum(report, is_any, NULL);
	struct litmus_cell single = litmus_cells_sum(report, is_single_store, NULL);
	uint64_t stale = 0, disorder = 0, torn_quad = single.torn_quad, torn_line = single.torn_line;

	report->rests_on = single.runs;
	report->changes = single.seen;
	for (unsigned i = 0; i < report->nr_orders; i++) {
		const struct litmus_order *order = &report->orders[i];

		stale += order->after_sync ? order->wrong : 0;
		disorder += order->backward + (order->judged ? order->wrong : 0);
		any.trapped += order->trapped;
		if (order->after_sync || order->judged) {
			report->rests_on += order->runs;
			report->changes += order->seen;
		}
	}
	for (unsigned i = 0; i < report->nr_changes_made; i++) {
		const struct litmus_change *change = &report->changes_made[i];

		any.strange += change->strange;
		if (change->protocol && change->syncs == 7)
			stale += change->torn;
		else if (change->bound == LITMUS_QUAD)
			torn_quad += change->torn;
		if (change->bound < LITMUS_LINE) {
			torn_line += change->torn;
			report->rests_on += change->runs;
			report->changes += change->seen;
		}
	}
	report->power = report->control[0].torn + report->control[1].torn > 0;
	report->verdict = report->power && single.runs > 0;
	report->contrary[LITMUS_SDM] = stale;
	report->contrary[LITMUS_BYTE] = stale + any.strange + any.trapped;
	report->contrary[LITMUS_AMD] = report->contrary[LITMUS_BYTE] + disorder + torn_quad;
	report->contrary[LITMUS_LINE64] = report->contrary[LITMUS_BYTE] + disorder + torn_line;
}
