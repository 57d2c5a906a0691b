// SPDX-License-Identifier: MIT
/*
 * What a run is printed as: tables for people, JSON for programs (and for a later look at this machine).
 *
 * Tables round; the JSON has every count. Neither says "safe".
 */
#include "core/text.h"
#include "litmus/litmus.h"

#include <crosspatch/crosspatch.h>

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

/* ---- the machine ---- */

static void copy(char *to, size_t size, const char *from)
{
	snprintf(to, size, "%.*s", (int)strcspn(from, "\n"), from);
}

static void machine_line(struct litmus_machine *machine, const char *key, const char *value)
{
	if (!strncmp(key, "vendor_id", 9))
		copy(machine->vendor, sizeof(machine->vendor), value);
	else if (!strncmp(key, "model name", 10))
		copy(machine->model, sizeof(machine->model), value);
	else if (!strncmp(key, "microcode", 9))
		copy(machine->microcode, sizeof(machine->microcode), value);
	else if (!strncmp(key, "cpu family", 10))
		sscanf(value, "%u", &machine->family);
	else if (!strncmp(key, "model\t", 6))
		sscanf(value, "%u", &machine->number);
	else if (!strncmp(key, "stepping", 8))
		sscanf(value, "%u", &machine->stepping);
	else if (!strncmp(key, "flags", 5))
		machine->hypervisor = strstr(value, " hypervisor") != NULL;
}

void litmus_machine_read(struct litmus_machine *machine)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	struct utsname name;
	char line[8192];

	memset(machine, 0, sizeof(*machine));
	/* The first processor stands for all. */
	while (file && fgets(line, sizeof(line), file) && line[0] != '\n') {
		const char *colon = strchr(line, ':');

		if (colon && colon[1] == ' ')
			machine_line(machine, line, colon + 2);
	}
	if (file)
		fclose(file);
	if (uname(&name) == 0)
		snprintf(machine->kernel, sizeof(machine->kernel), "%s %s", name.sysname, name.release);
}

/* ---- tables ---- */

/* @value in at most 5 characters. */
static const char *amount(char text[16], uint64_t value)
{
	static const char *const units[] = {"", "k", "M", "G", "T"};
	double scaled = (double)value;
	int unit = 0;

	for (; scaled >= 999.5 && unit < 4; unit++)
		scaled /= 1000;
	snprintf(text, 16, "%.*f%s", unit && scaled < 9.95 ? 1 : 0, scaled, units[unit]);
	return text;
}

/* Which cells a line of a table adds up; negative: any. */
struct filter {
	int path, sync, shape, width, bound;
};

static bool matches(const struct litmus_cell *cell, const void *arg)
{
	const struct filter *f = arg;

	return (f->path < 0 || f->path == cell->path) && (f->sync < 0 || f->sync == cell->sync) &&
	       (f->shape < 0 || f->shape == cell->shape) && (f->width < 0 || f->width == cell->width) &&
	       (f->bound < 0 || f->bound == cell->bound);
}

static struct litmus_cell sum(const struct litmus_report *report, struct filter filter)
{
	return litmus_cells_sum(report, matches, &filter);
}

static const char *sync_name(unsigned sync)
{
	return sync ? "sync" : "none";
}

static void print_bounds(const struct litmus_report *report, FILE *out, unsigned path, unsigned sync)
{
	for (unsigned bound = 0; bound < LITMUS_NR_BOUNDS; bound++) {
		fprintf(out, "%-8s  %-4s  %-8s", litmus_path_names[path], sync_name(sync), litmus_bound_names[bound]);
		for (unsigned w = 0; w < LITMUS_NR_WIDTHS; w++) {
			struct litmus_cell cell =
				sum(report, (struct filter){(int)path, (int)sync, -1, LITMUS_WIDTH(w), (int)bound});
			char torn[16], writes[16], both[40] = "-";

			if (cell.writes)
				snprintf(both, sizeof(both), "%s/%s", amount(torn, cell.torn),
					 amount(writes, cell.writes));
			fprintf(out, "  %11s", both);
		}
		fputc('\n', out);
	}
}

static void print_shapes(const struct litmus_report *report, FILE *out, unsigned path, unsigned sync)
{
	for (unsigned shape = 0; shape < LITMUS_NR_SHAPES; shape++) {
		struct filter filter = {(int)path, (int)sync, (int)shape, -1, -1};
		struct litmus_cell cell = sum(report, filter);
		uint64_t columns[] = {cell.runs, cell.writes,  cell.seen,      cell.old,
				      cell.new,  cell.between, cell.torn_quad, cell.torn_line,
				      cell.torn, cell.strange, cell.trapped};

		if (cell.writes == 0)
			continue;
		fprintf(out, "%-8s  %-4s  %-6s", litmus_path_names[path], sync_name(sync), litmus_shape_names[shape]);
		for (unsigned i = 0; i < sizeof(columns) / sizeof(columns[0]); i++) {
			char text[16];

			fprintf(out, "  %7s", amount(text, columns[i]));
		}
		fputc('\n', out);
	}
}

static bool path_ran(const struct litmus_report *report, unsigned path)
{
	return sum(report, (struct filter){(int)path, -1, -1, -1, -1}).writes > 0;
}

static void print_matrix(const struct litmus_report *report, FILE *out)
{
	fprintf(out,
		"Torn executions / stores, by store path, by the widest boundary between the changed bytes, and by the\n"
		"width of the store in bytes (all shapes and offsets together)\n\n"
		"path      sync  boundary            1            2            4            8           16\n");
	for (unsigned path = 0; path < LITMUS_NR_PATHS; path++)
		for (unsigned sync = 0; path_ran(report, path) && sync <= report->sync_works; sync++)
			print_bounds(report, out, path, sync);
	fprintf(out,
		"\nExecutions by what changes (all widths and offsets together); in quad, in line: torn inside an aligned\n"
		"quadword or a line; A|B: of two instructions under one store, one old and one new\n\n"
		"path      sync  shape      runs   stores  changes      old      new      A|B  in quad  in line"
		"     torn  strange  trapped\n");
	for (unsigned path = 0; path < LITMUS_NR_PATHS; path++)
		for (unsigned sync = 0; path_ran(report, path) && sync <= report->sync_works; sync++)
			print_shapes(report, out, path, sync);
}

/* What no sync at all did not show, a sync cannot be credited with preventing. */
static bool stale_without_sync(const struct litmus_report *report)
{
	for (unsigned i = 0; i < report->nr_orders; i++)
		if (!report->orders[i].judged && !report->orders[i].sync && report->orders[i].wrong)
			return true;
	return false;
}

static void print_orders(const struct litmus_report *report, FILE *out)
{
	fprintf(out,
		"\nTwo fetches, or data and a fetch, in one execution; each is a counter that the patcher counts up\n\n"
		"race                         path      sync     runs   stores  changes     same    later    older"
		"    wrong  backward\n");
	for (unsigned i = 0; i < report->nr_orders; i++) {
		const struct litmus_order *order = &report->orders[i];
		uint64_t columns[] = {order->runs,         order->writes,      order->seen,  order->same,
				      order->second_newer, order->first_newer, order->wrong, order->backward};

		fprintf(out, "%-27s  %-8s  %-4s", order->name, litmus_path_names[order->path], sync_name(order->sync));
		for (unsigned j = 0; j < sizeof(columns) / sizeof(columns[0]); j++) {
			char text[16];

			fprintf(out, "  %7s", amount(text, columns[j]));
		}
		fputc('\n', out);
	}
	fprintf(out,
		"(later, older: the second of the two is newer or older than the first; wrong: older than stores in\n"
		"program order allow; backward: older than in the execution before)\n");
	if (report->nr_orders && !stale_without_sync(report))
		fprintf(out,
			"No stale code was seen without a sync either: the zeros after a sync show no more than that.\n");
}

static void print_changes(const struct litmus_report *report, FILE *out)
{
	if (report->nr_changes_made == 0)
		return;
	fprintf(out,
		"\nA whole instruction changed back and forth: nop and jmp; in the last rows bytes inside one quadword\n\n"
		"change                          bound     runs   stores  changes    traps     late     torn\n");
	for (unsigned i = 0; i < report->nr_changes_made; i++) {
		const struct litmus_change *change = &report->changes_made[i];
		uint64_t columns[] = {change->runs,        change->writes, change->seen,
				      change->breakpoints, change->late,   change->torn};

		fprintf(out, "%-30s  %-5s", change->name, litmus_bound_names[change->bound]);
		for (unsigned j = 0; j < sizeof(columns) / sizeof(columns[0]); j++) {
			char text[16];

			fprintf(out, "  %7s", amount(text, columns[j]));
		}
		fputc('\n', out);
	}
}

static void print_spreads(const struct litmus_report *report, FILE *out)
{
	fprintf(out,
		"\nDelay from the store, ns\n\n"
		"until                                      samples      min      p50      p90      p99    p99.9      max\n");
	for (unsigned i = 0; i < report->nr_spreads; i++) {
		const struct litmus_spread *s = &report->spreads[i];

		fprintf(out, "%-40s  %8" PRIu64 "  %7.0f  %7.0f  %7.0f  %7.0f  %7.0f  %7.0f\n", s->name, s->nr, s->min,
			s->p50, s->p90, s->p99, s->p999, s->max);
	}
	fprintf(out, "\nBreakpoints placed and removed while the other thread executes the site\n\n"
		     "                                placed     traps  found restored  entered after the sync\n");
	for (unsigned i = 0; i < 2; i++) {
		const struct litmus_traps *t = &report->traps[i];
		char placed[16], traps[16], late[16];

		if (t->placed)
			fprintf(out, "%-30s  %6s  %8s  %8s (%4.1f%%)  %22" PRIu64 "\n",
				t->sync ? "sync_core after the removal" : "no sync", amount(placed, t->placed),
				amount(traps, t->traps), amount(late, t->late),
				t->traps ? 100.0 * (double)t->late / (double)t->traps : 0.0, t->after_sync);
	}
}

/* Does fetch obey the lock? Only across a line could it: inside one a plain store is not torn either. */
static void print_locked(const struct litmus_report *report, FILE *out, uint64_t torn)
{
	uint64_t writes = sum(report, (struct filter){LITMUS_XCHG, -1, -1, -1, LITMUS_LINE}).writes +
			  sum(report, (struct filter){LITMUS_XCHG, -1, -1, -1, LITMUS_PAGE}).writes;

	if (report->split_lock)
		fprintf(out, "Path xchg was raced inside lines only: across a line a locked exchange %s.\n",
			report->split_lock == -EFAULT ? "raises SIGBUS here (split_lock_detect)"
						      : "could not be tried");
	else if (torn)
		fprintf(out,
			"Fetch does not obey the lock of xchg: %" PRIu64
			" locked exchanges across a line or page, and %" PRIu64 " torn executions.\n",
			writes, torn);
	else
		fprintf(out, "Path xchg: %" PRIu64 " locked exchanges across a line or page tore no execution.\n",
			writes);
}

static void print_verdict(const struct litmus_report *report, FILE *out)
{
	const struct litmus_cell *line = &report->control[0], *page = &report->control[1];
	char runs[16], changes[16];

	fprintf(out,
		"\nControl: an 8-byte store across a line tore %" PRIu64 " executions in %" PRIu64 " stores, across a "
		"page %" PRIu64 " in %" PRIu64 ".\n",
		line->torn, line->writes, page->torn, page->writes);
	if (!report->power) {
		fprintf(out,
			"This run had no power: the control did not tear, so a zero above says nothing about this processor.\n"
			"Run it longer, on two otherwise idle processors.\n");
		return;
	}
	for (unsigned path = 0; path < LITMUS_NR_PATHS; path++) {
		uint64_t torn = sum(report, (struct filter){(int)path, -1, -1, -1, LITMUS_LINE}).torn +
				sum(report, (struct filter){(int)path, -1, -1, -1, LITMUS_PAGE}).torn;

		if (report->path_error[path])
			fprintf(out, "Path %s did not take part: %s.\n", litmus_path_names[path],
				xp_strerror(report->path_error[path]));
		else if (path == LITMUS_XCHG && path_ran(report, path))
			print_locked(report, out, torn);
		else if (path_ran(report, path) && torn == 0)
			fprintf(out, "Path %s: its own line-crossing stores did not tear, so its zeros say nothing.\n",
				litmus_path_names[path]);
	}
	if (!report->verdict) {
		fprintf(out,
			"Nothing on fetch models: they are judged by the paths alias, window and xchg, whose store is known to\n"
			"be one.\n");
		return;
	}
	fprintf(out, "Consistent with these fetch models, as far as %s executions that saw %s changes can tell:\n",
		amount(runs, report->rests_on), amount(changes, report->changes));
	for (unsigned i = 0; i < LITMUS_NR_MODELS; i++)
		if (report->contrary[i])
			fprintf(out, "  %-10s no: %" PRIu64 " executions contradict it\n", litmus_model_names[i],
				report->contrary[i]);
		else
			fprintf(out, "  %-10s yes\n", litmus_model_names[i]);
	fprintf(out,
		"Something that happens once in %s such changes or less would probably have been missed. What was not\n"
		"seen here may happen on another processor, microcode or load.\n",
		amount(changes, report->changes / 3));
}

void litmus_print(const struct litmus_report *report, FILE *out)
{
	const struct litmus_machine *m = &report->machine;

	fprintf(out, "%s, family %u model %u stepping %u, microcode %s, %s%s\n", m->model, m->family, m->number,
		m->stepping, m->microcode, m->kernel, m->hypervisor ? ", under a hypervisor" : "");
	fprintf(out, "patcher on processor %d, executing thread on %d, seed %" PRIu64 ", %.1f s\n\n",
		report->options.cpus[0], report->options.cpus[1], report->options.seed, report->took);
	print_matrix(report, out);
	print_changes(report, out);
	print_orders(report, out);
	print_spreads(report, out);
	print_verdict(report, out);
}

/* ---- JSON ---- */

static void json_string(FILE *out, const char *text)
{
	char json[13];

	fputc('"', out);
	while (*text) {
		text += xp__character_json(text, json);
		fputs(json, out);
	}
	fputc('"', out);
}

static void json_counts(FILE *out, const struct litmus_cell *cell)
{
	fprintf(out,
		"\"executions\": %" PRIu64 ", \"stores\": %" PRIu64 ", \"changes\": %" PRIu64 ", \"old\": %" PRIu64
		", \"new\": %" PRIu64 ", \"between\": %" PRIu64 ", \"torn\": %" PRIu64 ", \"torn_in_line\": %" PRIu64
		", \"torn_in_quadword\": %" PRIu64 ", \"strange\": %" PRIu64 ", \"trapped\": %" PRIu64,
		cell->runs, cell->writes, cell->seen, cell->old, cell->new, cell->between, cell->torn, cell->torn_line,
		cell->torn_quad, cell->strange, cell->trapped);
}

static void json_offsets(FILE *out, const struct litmus_cell *cells, unsigned nr, const char *key)
{
	fprintf(out, ", \"%s\": [", key);
	for (unsigned i = 0; i < nr; i++)
		fprintf(out, "%s[%u, %" PRIu64 ", %" PRIu64 ", %" PRIu64 "]", i ? ", " : "", cells[i].offset,
			cells[i].runs, cells[i].writes, cells[i].torn);
	fputc(']', out);
}

/* Cells of one path, sync, shape and width lie together: first those in mid-page, then those at the end of a page. */
static void json_matrix(FILE *out, const struct litmus_report *report)
{
	unsigned next;

	fprintf(out, ",\n\"columns\": [\"offset\", \"executions\", \"stores\", \"torn\"],\n\"tearing\": [");
	for (unsigned i = 0; i < report->nr_cells; i = next) {
		const struct litmus_cell *c = &report->cells[i];
		struct litmus_cell all = sum(report, (struct filter){c->path, c->sync, c->shape, c->width, -1});
		unsigned mid = 0;

		for (next = i; next < report->nr_cells && report->cells[next].width == c->width &&
			       report->cells[next].shape == c->shape && report->cells[next].sync == c->sync &&
			       report->cells[next].path == c->path;
		     next++)
			mid += report->cells[next].place == LITMUS_MID;
		fprintf(out, "%s\n{\"path\": \"%s\", \"sync\": %s, \"shape\": \"%s\", \"width\": %u, ", i ? "," : "",
			litmus_path_names[c->path], c->sync ? "true" : "false", litmus_shape_names[c->shape], c->width);
		json_counts(out, &all);
		json_offsets(out, c, mid, "mid");
		json_offsets(out, c + mid, next - i - mid, "page_end");
		fputc('}', out);
	}
	fprintf(out, "]");
}

static void json_changes(FILE *out, const struct litmus_report *report)
{
	fprintf(out, ",\n\"changes\": [");
	for (unsigned i = 0; i < report->nr_changes_made; i++) {
		const struct litmus_change *c = &report->changes_made[i];

		fprintf(out, "%s\n{\"change\": ", i ? "," : "");
		json_string(out, c->name);
		fprintf(out,
			", \"bound\": \"%s\", \"syncs\": %u, \"executions\": %" PRIu64 ", \"stores\": %" PRIu64
			", \"changes\": %" PRIu64 ", \"traps\": %" PRIu64 ", \"late\": %" PRIu64 ", \"torn\": %" PRIu64
			", \"strange\": %" PRIu64 "}",
			litmus_bound_names[c->bound], c->syncs, c->runs, c->writes, c->seen, c->breakpoints, c->late,
			c->torn, c->strange);
	}
	fputc(']', out);
}

static void json_orders(FILE *out, const struct litmus_report *report)
{
	fprintf(out, ",\n\"order\": [");
	for (unsigned i = 0; i < report->nr_orders; i++) {
		const struct litmus_order *o = &report->orders[i];

		fprintf(out, "%s\n{\"race\": ", i ? "," : "");
		json_string(out, o->name);
		fprintf(out,
			", \"path\": \"%s\", \"sync\": %s, \"executions\": %" PRIu64 ", \"stores\": %" PRIu64
			", \"changes\": %" PRIu64 ", \"same\": %" PRIu64 ", \"second_newer\": %" PRIu64
			", \"second_older\": %" PRIu64 ", \"wrong\": %" PRIu64 ", \"backward\": %" PRIu64 "}",
			litmus_path_names[o->path], o->sync ? "true" : "false", o->runs, o->writes, o->seen, o->same,
			o->second_newer, o->first_newer, o->wrong, o->backward);
	}
	fprintf(out, "],\n\"delay_ns\": [");
	for (unsigned i = 0; i < report->nr_spreads; i++) {
		const struct litmus_spread *s = &report->spreads[i];

		fprintf(out, "%s\n{\"until\": ", i ? "," : "");
		json_string(out, s->name);
		fprintf(out,
			", \"samples\": %" PRIu64 ", \"negative\": %" PRIu64
			", \"min\": %.1f, \"p50\": %.1f, \"p90\": %.1f"
			", \"p99\": %.1f, \"p99.9\": %.1f, \"max\": %.1f}",
			s->nr, s->negative, s->min, s->p50, s->p90, s->p99, s->p999, s->max);
	}
	fprintf(out, "],\n\"late_traps\": [");
	for (unsigned i = 0; i < 2; i++)
		fprintf(out,
			"%s\n{\"sync\": %s, \"placed\": %" PRIu64 ", \"executions\": %" PRIu64 ", \"traps\": %" PRIu64
			", \"found_restored\": %" PRIu64 ", \"entered_after_sync\": %" PRIu64 "}",
			i ? "," : "", report->traps[i].sync ? "true" : "false", report->traps[i].placed,
			report->traps[i].runs, report->traps[i].traps, report->traps[i].late,
			report->traps[i].after_sync);
	fprintf(out, "]");
}

static void json_head(FILE *out, const struct litmus_report *report)
{
	const struct litmus_machine *m = &report->machine;
	const struct litmus_options *o = &report->options;
	char when[32];
	time_t now = time(NULL);
	struct tm tm;

	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	fprintf(out, "{\"format\": \"crosspatch-litmus-1\", \"time\": \"%s\",\n\"machine\": {\"cpu\": ", when);
	json_string(out, m->model);
	fprintf(out, ", \"vendor\": ");
	json_string(out, m->vendor);
	fprintf(out, ", \"family\": %u, \"model\": %u, \"stepping\": %u, \"microcode\": ", m->family, m->number,
		m->stepping);
	json_string(out, m->microcode);
	fprintf(out, ", \"kernel\": ");
	json_string(out, m->kernel);
	fprintf(out, ", \"hypervisor\": %s},\n", m->hypervisor ? "true" : "false");
	fprintf(out,
		"\"options\": {\"seconds\": %g, \"seed\": %" PRIu64
		", \"paths\": %u, \"widths\": %u, \"cpus\": [%d, %d]},\n"
		"\"seconds\": %.2f, \"sync_works\": %s, \"split_lock\": %s,\n",
		o->seconds, o->seed, o->paths, o->widths, o->cpus[0], o->cpus[1], report->took,
		report->sync_works ? "true" : "false", report->split_lock ? "false" : "true");
}

void litmus_print_json(const struct litmus_report *report, FILE *out)
{
	json_head(out, report);
	fprintf(out, "\"power\": %s, \"control\": [{", report->power ? "true" : "false");
	json_counts(out, &report->control[0]);
	fprintf(out, "}, {");
	json_counts(out, &report->control[1]);
	fprintf(out, "}],\n\"rests_on\": {\"executions\": %" PRIu64 ", \"changes\": %" PRIu64 "},\n\"models\": {",
		report->rests_on, report->changes);
	/* Without power there is no verdict. */
	for (unsigned i = 0; i < LITMUS_NR_MODELS; i++)
		fprintf(out, "%s\"%s\": {\"contrary\": %" PRIu64 ", \"consistent\": %s}", i ? ", " : "",
			litmus_model_names[i], report->contrary[i],
			report->contrary[i] ? "false"
			: report->verdict   ? "true"
					    : "null");
	fprintf(out, "}");
	json_matrix(out, report);
	json_changes(out, report);
	json_orders(out, report);
	fprintf(out, "}\n");
}
