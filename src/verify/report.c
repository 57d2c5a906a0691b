// SPDX-License-Identifier: MIT
/* Prints. Names in plan files are the user's: JSON strings are escaped. */
#include "core/text.h"
#include "verify/report.h"

#include "verify/decode.h"

#include <string.h>

static const char *const event_names[] = {
	[XP__EVENT_PUBLISH] = "trap record published",
	[XP__EVENT_RAISE] = "generation raised",
	[XP__EVENT_STORE] = "store",
	[XP__EVENT_SYNC] = "sync",
	[XP__EVENT_PARK] = "bystanders parked",
	[XP__EVENT_UNPARK] = "bystanders go on, serialized",
	[XP__EVENT_RETURN] = "commit returned",
	[XP__EVENT_RETIRE] = "trap record retired",
	[XP__EVENT_RECLAIM] = "trap record reclaimed",
	[XP__EVENT_FREE] = "copy of the old code freed",
	[XP__EVENT_COMMIT] = "another commit begins",
};

static void print_bytes(FILE *out, const uint8_t *bytes, unsigned len)
{
	for (unsigned i = 0; i < len; i++)
		fprintf(out, "%s%02x", i ? " " : "", bytes[i]);
}

/* The text as it is after so many stores. */
static void image(const struct xp__schedule *schedule, unsigned nr_stores, uint8_t bytes[XP_MAX_LEN])
{
	memcpy(bytes, schedule->old, XP_MAX_LEN);
	for (unsigned i = 0; i < schedule->nr_events && nr_stores > 0; i++)
		if (schedule->event[i].kind == XP__EVENT_STORE) {
			memcpy(bytes + schedule->event[i].off, schedule->event[i].bytes, schedule->event[i].len);
			nr_stores--;
		}
}

/* The versions of the text and where its blocks begin: "66 9a|12 34". */
static void print_versions(FILE *out, const struct xp__schedule *schedule, unsigned addr, const struct xp__model *model)
{
	unsigned starts = xp__boundaries(addr, schedule->len, model->granule), version = 0;

	for (int i = -1; i < schedule->nr_events; i++) {
		uint8_t bytes[XP_MAX_LEN];

		if (i >= 0 && schedule->event[i].kind != XP__EVENT_STORE) {
			fprintf(out, "             %s\n", event_names[schedule->event[i].kind]);
			continue;
		}
		image(schedule, version, bytes);
		if (version == 0 && schedule->entries > 1) {
			fputs("  branches lead to", out);
			for (unsigned b = 1; b < schedule->len; b++)
				if (schedule->entries >> b & 1)
					fprintf(out, " +%u", b);
			fputc('\n', out);
		}
		fprintf(out, "  version %-2u ", version++);
		for (unsigned b = 0; b < schedule->len; b++)
			fprintf(out, "%s%02x", b == 0 ? "" : starts >> b & 1 ? "|" : " ", bytes[b]);
		if (i >= 0 && !schedule->event[i].single)
			fputs("   byte by byte", out);
		fputc('\n', out);
	}
}

static void print_fetch(FILE *out, const struct xp__schedule *schedule, const struct xp__step *step)
{
	char text[96];

	xp__disassemble(schedule->mode, step->bytes, step->len, step->at, text, sizeof(text));
	fprintf(out, "fetches at +%u: ", step->at);
	print_bytes(out, step->bytes, step->len);
	fputs("  of versions ", out);
	for (unsigned i = 0; i < step->len; i++)
		fprintf(out, "%s%u", i ? " " : "", step->version[i]);
	fprintf(out, ": %s", text);
}

/* Events that pass are told by how many stores have happened: the bystander does not see more of them. */
static unsigned stores_before(const struct xp__schedule *schedule, unsigned time)
{
	unsigned nr = 0;

	for (unsigned i = 0; i < time; i++)
		nr += schedule->event[i].kind == XP__EVENT_STORE;
	return nr;
}

static void print_step(FILE *out, const struct xp__schedule *schedule, const struct xp__step *step)
{
	if (step->kind == XP__STEP_TIME) {
		const struct xp__event *event = &schedule->event[step->time];

		if (event->kind == XP__EVENT_STORE)
			fprintf(out, "  version %u is stored\n", stores_before(schedule, step->time) + 1);
		else
			fprintf(out, "  %s\n", event_names[event->kind]);
		return;
	}
	fputs("    it ", out);
	switch (step->kind) {
	case XP__STEP_EXECUTE:
		print_fetch(out, schedule, step);
		break;
	case XP__STEP_TRAP:
		if (step->len) {
			print_fetch(out, schedule, step);
			fputs(", which traps", out);
		} else {
			fprintf(out, "enters the fault handler, for the fault at +%u", step->at);
		}
		break;
	case XP__STEP_ENTER:
		fprintf(out, "enters the trap handler, for the breakpoint at +%u", step->at);
		break;
	case XP__STEP_FOUND:
		fputs("finds the record", out);
		break;
	case XP__STEP_MISSED:
		fputs("finds no record", out);
		break;
	case XP__STEP_INT3:
		fputs("reads a breakpoint in the text", out);
		break;
	case XP__STEP_COPY:
		fputs("leaves the trap handler, to the copy of the old code", out);
		break;
	case XP__STEP_RESUME:
		fprintf(out, "leaves the trap handler, to +%u", step->at);
		break;
	case XP__STEP_RESTART:
		fprintf(out, "leaves the trap handler to execute again at +%u", step->at);
		break;
	}
	fputc('\n', out);
}

static void print_model(FILE *out, const struct xp__model *model)
{
	fprintf(out, "%s (blocks of %u, %s order%s%s%s)", model->name, model->granule,
		model->program_order ? "program" : "any", model->reread ? ", reread" : "",
		model->ascending ? ", ascending" : "", model->undefined ? ", unsynchronized is undefined" : "");
}

void xp__report_result(FILE *out, const struct xp__schedule *schedule, unsigned addr, const struct xp__model *model,
		       const struct xp__result *result)
{
	unsigned at = addr % 4096 < 64 ? addr % 4096 : addr % 64;

	fprintf(out, "counterexample: %s\n%u-bit code, %u bytes at %u of 64, model ", schedule->name, schedule->mode,
		schedule->len, at);
	print_model(out, model);
	fputs("\nThe text:\n", out);
	print_versions(out, schedule, addr, model);
	fputs("A bystander:\n", out);
	for (unsigned i = 0; i < result->nr_steps; i++)
		print_step(out, schedule, &result->step[i]);
	fprintf(out, "Wrong: %s.\n", result->why);
}

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

static void json_step(FILE *out, const struct xp__schedule *schedule, const struct xp__step *step)
{
	static const char *const names[] = {"time",  "execute", "trap",   "resume", "restart",
					    "enter", "found",   "missed", "int3",   "copy"};
	char text[96];

	if (step->kind == XP__STEP_TIME) {
		fprintf(out, "{\"step\":\"time\",\"event\":\"%s\",\"stores\":%u}",
			event_names[schedule->event[step->time].kind], stores_before(schedule, step->time + 1u));
		return;
	}
	fprintf(out, "{\"step\":\"%s\",\"at\":%u", names[step->kind], step->at);
	if (step->len) {
		xp__disassemble(schedule->mode, step->bytes, step->len, step->at, text, sizeof(text));
		fputs(",\"bytes\":\"", out);
		print_bytes(out, step->bytes, step->len);
		fputs("\",\"versions\":[", out);
		for (unsigned i = 0; i < step->len; i++)
			fprintf(out, "%s%u", i ? "," : "", step->version[i]);
		fputs("],\"instruction\":", out);
		json_string(out, text);
	}
	fputc('}', out);
}

void xp__report_result_json(FILE *out, const struct xp__schedule *schedule, unsigned addr,
			    const struct xp__model *model, const struct xp__result *result)
{
	fputs("{\"plan\":", out);
	json_string(out, schedule->name);
	fprintf(out,
		",\"model\":\"%s\",\"address\":%u,\"proven\":%s,\"states\":%zu,\"old\":%zu,\"new\":%zu,\"trap\":%zu",
		model->name, addr, result->proven ? "true" : "false", result->nr_states, result->nr_old, result->nr_new,
		result->nr_trap);
	if (!result->proven) {
		fputs(",\"why\":", out);
		json_string(out, result->why);
		fputs(",\"steps\":[", out);
		for (unsigned i = 0; i < result->nr_steps; i++) {
			if (i)
				fputc(',', out);
			json_step(out, schedule, &result->step[i]);
		}
		fputc(']', out);
	}
	fputc('}', out);
}

void xp__report_addresses(char *text, size_t size, uint64_t set, unsigned period)
{
	uint64_t all = period < 64 ? (1ull << period) - 1 : ~0ull;
	size_t at = 0;

	set &= all;
	if (set == 0 || set == all) {
		snprintf(text, size, set ? "every address" : "no address");
		return;
	}
	for (unsigned i = 0; i < period; i++) {
		unsigned first = i;

		if (!(set >> i & 1))
			continue;
		while (i + 1 < period && set >> (i + 1) & 1)
			i++;
		if (at < size)
			at += (size_t)snprintf(text + at, size - at, first == i ? "%s%u" : "%s%u-%u", at ? ", " : "",
					       first, i);
	}
	if (at < size)
		snprintf(text + at, size - at, " mod %u", period);
}

static const char *verdict(const struct xp__cell *cell)
{
	if (cell->nr_plans == 0)
		return "not offered";
	return cell->nr_proven == cell->nr_plans ? "proven" : cell->nr_proven ? "some proven" : "counterexample";
}

static void matrix_json(FILE *out, const struct xp__matrix *matrix)
{
	const char *separator = "";

	fprintf(out, "{\"judged\":%zu,\"two_commits\":%zu,\"explored\":%zu,\"states\":%zu,\"wrong\":%u,\"cells\":[",
		matrix->nr_asked, matrix->nr_twice, matrix->nr_explored, matrix->nr_states, matrix->nr_wrong);
	for (unsigned k = 0; k < xp__nr_kinds; k++)
		for (unsigned method = XP__METHOD_FLIP; method < XP__NR_METHODS; method++)
			for (unsigned m = 0; m < matrix->nr_models; m++) {
				const struct xp__cell *cell = &matrix->cell[k][method][m];

				fprintf(out,
					"%s\n{\"site\":\"%s\",\"method\":\"%s\",\"model\":\"%s\",\"verdict\":\"%s\","
					"\"plans\":%u,\"proven\":%u}",
					separator, xp__kinds[k].name, xp__method_names[method], matrix->models[m].name,
					verdict(cell), cell->nr_plans, cell->nr_proven);
				separator = ",";
			}
	fputs("\n]}\n", out);
}

/* The methods that are never offered for kind @k, in one row. */
static void not_offered(FILE *out, const struct xp__matrix *matrix, unsigned k, const char *format)
{
	char list[96] = "";
	size_t at = 0;

	for (unsigned method = XP__METHOD_FLIP; method < XP__NR_METHODS; method++)
		if (matrix->cell[k][method][0].nr_plans == 0)
			at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", at ? ", " : "",
					       xp__method_names[method]);
	if (at)
		fprintf(out, format, list);
}

static void matrix_table(FILE *out, const struct xp__matrix *matrix, bool markdown)
{
	if (markdown)
		fputs("# What is proven\n\n"
		      "Generated by `crosspatch verify --all --markdown`; a test compares it with a fresh run. For every kind of\n"
		      "change and every method that the selection offers for it: whether every plan (each address in a line and\n"
		      "across a page, each policy, commits that fail in any phase and are rolled back) is proven under a fetch\n"
		      "model. The models are described in [models.md](models.md). \"counterexample\": not a single one is.\n\n",
		      out);
	fprintf(out, markdown ? "| site | method |" : "%-28s %-10s", "site", "method");
	for (unsigned m = 0; m < matrix->nr_models; m++)
		fprintf(out, markdown ? " %s |" : " %-14s", matrix->models[m].name);
	fputc('\n', out);
	for (unsigned m = 0; markdown && m < matrix->nr_models + 2; m++)
		fputs(m + 1 < matrix->nr_models + 2 ? "|---" : "|---|\n", out);
	for (unsigned k = 0; k < xp__nr_kinds; k++) {
		for (unsigned method = XP__METHOD_FLIP; method < XP__NR_METHODS; method++) {
			if (matrix->cell[k][method][0].nr_plans == 0)
				continue;
			fprintf(out, markdown ? "| %s | %s |" : "%-28s %-10s", xp__kinds[k].name,
				xp__method_names[method]);
			for (unsigned m = 0; m < matrix->nr_models; m++)
				fprintf(out, markdown ? " %s |" : " %-14s", verdict(&matrix->cell[k][method][m]));
			fputc('\n', out);
		}
		if (markdown) {
			fprintf(out, "| %s ", xp__kinds[k].name);
			not_offered(out, matrix, k, "| %s |");
			for (unsigned m = 0; m < matrix->nr_models; m++)
				fputs(" not offered |", out);
			fputc('\n', out);
		} else {
			not_offered(out, matrix, k, "                             not offered: %s\n");
		}
	}
}

void xp__report_matrix(FILE *out, const struct xp__matrix *matrix, enum xp__format format)
{
	if (format == XP__FORMAT_JSON) {
		matrix_json(out, matrix);
		return;
	}
	matrix_table(out, matrix, format == XP__FORMAT_MARKDOWN);
	if (format == XP__FORMAT_TEXT)
		fprintf(out, "%zu plans and places, %zu of two commits in a row; %zu explorations, %zu states; %s\n",
			matrix->nr_asked, matrix->nr_twice, matrix->nr_explored, matrix->nr_states,
			matrix->nr_wrong ? "THE SELECTION CHOOSES PLANS THAT ARE NOT PROVEN"
					 : "the selection chooses no plan that the model asked for does not prove");
}
