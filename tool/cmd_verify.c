// SPDX-License-Identifier: MIT
/* crosspatch verify: proves plans, or shows the execution that breaks them. */
#include "text.h"
#include "tool.h"

#include "verify/explore.h"
#include "verify/matrix.h"
#include "verify/planfile.h"
#include "verify/report.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
	"Usage: crosspatch verify [MODEL] [--address N] [--json] FILE…\n"
	"       crosspatch verify --all [MODEL] [--json | --markdown] [--quiet]\n"
	"\n"
	"Executes plans of code changes in every way that a model of instruction fetch allows.\n"
	"\n"
	"  FILE                  plan files (see crosspatch-verify(1)); - is standard input\n"
	"  --all                 every plan that the library can choose, for every site and address\n"
	"  --model NAME          byte, amd, amd-reread, line64, intel-sdm, all; amd for files, all for --all\n"
	"  --granule N           bytes fetched and stored at once: 1, 2, 4, 8, 16, 32, 64\n"
	"  --order program|any   whether later fetches may see older code\n"
	"  --reread yes|no       whether the bytes of one instruction may come from several fetches\n"
	"  --ascending yes|no    whether blocks of one instruction are fetched in ascending order\n"
	"  --address N           only sites at address N modulo 64\n"
	"  --json, --markdown    the form of the answer\n"
	"  --quiet               no progress on standard error\n"
	"\n"
	"Exit status: 0 proven, 1 counterexample, 2 wrong arguments or malformed file, 3 not decided.\n";

struct arguments {
	bool all, quiet, help;
	enum xp__format format;
	int address; /* -1: every */
	struct xp__model models[XP__NR_MODELS];
	unsigned nr_models;    /* 0: the default */
	struct xp__model base; /* of the parameters */
	bool custom;
	char **files;
	int nr_files;
};

static const struct option options[] = {
	{"all", no_argument, NULL, 'a'},           {"model", required_argument, NULL, 'm'},
	{"granule", required_argument, NULL, 'g'}, {"order", required_argument, NULL, 'o'},
	{"reread", required_argument, NULL, 'r'},  {"ascending", required_argument, NULL, 'A'},
	{"address", required_argument, NULL, 'n'}, {"json", no_argument, NULL, 'j'},
	{"markdown", no_argument, NULL, 'M'},      {"quiet", no_argument, NULL, 'q'},
	{"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
};

static int wrong(const char *option, const char *value, const char *why)
{
	return text_say("verify", TOOL_USAGE, "%s: \"%s\" %s", option, value, why);
}

static int set_model(struct arguments *a, const char *name)
{
	const struct xp__model *model = xp__model_find(name);

	if (strcmp(name, "all") == 0) {
		memcpy(a->models, xp__models, sizeof(a->models));
		a->nr_models = XP__NR_MODELS;
		return 0;
	}
	if (model == NULL)
		return wrong("--model", name, "is none of byte, amd, amd-reread, line64, intel-sdm, all");
	a->models[0] = a->base = *model;
	a->nr_models = 1;
	return 0;
}

static int set_number(const char *option, const char *value, int *to, int max)
{
	char *end;
	long number;

	errno = 0;
	number = strtol(value, &end, 10);
	if (end == value || *end || errno || number < 0 || number > max)
		return wrong(option, value, "is not a number in range");
	*to = (int)number;
	return 0;
}

static int set_granule(struct arguments *a, const char *value)
{
	int granule;
	int error = set_number("--granule", value, &granule, 64);

	if (!error && (granule == 0 || granule & (granule - 1)))
		error = wrong("--granule", value, "is none of 1, 2, 4, 8, 16, 32, 64");
	if (error)
		return error;
	a->base.granule = (unsigned)granule;
	a->custom = true;
	return 0;
}

static int set_flag(struct arguments *a, const char *option, const char *value, const char *on, const char *off,
		    bool *to)
{
	if (strcmp(value, on) != 0 && strcmp(value, off) != 0) {
		fprintf(stderr, "crosspatch verify: %s: %s or %s is expected\n", option, on, off);
		return TOOL_USAGE;
	}
	*to = strcmp(value, on) == 0;
	a->custom = true;
	return 0;
}

static int parse_option(struct arguments *a, int option, const char *value)
{
	switch (option) {
	case 'a':
		a->all = true;
		return 0;
	case 'm':
		return set_model(a, value);
	case 'g':
		return set_granule(a, value);
	case 'o':
		return set_flag(a, "--order", value, "program", "any", &a->base.program_order);
	case 'r':
		return set_flag(a, "--reread", value, "yes", "no", &a->base.reread);
	case 'A':
		return set_flag(a, "--ascending", value, "yes", "no", &a->base.ascending);
	case 'n':
		return set_number("--address", value, &a->address, 63);
	case 'j':
		a->format = XP__FORMAT_JSON;
		return 0;
	case 'M':
		a->format = XP__FORMAT_MARKDOWN;
		return 0;
	case 'q':
		a->quiet = true;
		return 0;
	case 'h':
		a->help = true;
		return 0;
	default:
		return TOOL_USAGE; /* getopt_long() has said why */
	}
}

static int parse(struct arguments *a, int argc, char **argv)
{
	int option, error = 0;

	memset(a, 0, sizeof(*a));
	a->address = -1;
	a->base = xp__models[XP__FETCH_AMD];
	/* A parameter changes the model named, wherever that stands: look for it first. */
	for (int i = 1; i + 1 < argc && strcmp(argv[i], "--") != 0; i++)
		if (strcmp(argv[i], "--model") == 0 && xp__model_find(argv[i + 1]))
			a->base = *xp__model_find(argv[i + 1]);
	while (!error && (option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		struct xp__model base = a->base;

		error = parse_option(a, option, optarg);
		if (option == 'm' && a->custom)
			a->base = base;
	}
	a->files = argv + optind;
	a->nr_files = argc - optind;
	if (error || a->help)
		return error;
	if (a->custom && a->nr_models > 1)
		return wrong("--model", "all", "and parameters of one model exclude each other");
	if (a->custom) {
		a->models[0] = a->base;
		a->models[0].name = "custom";
		a->nr_models = 1;
	}
	if (a->all && (a->nr_files || a->address >= 0))
		return wrong("--all", a->nr_files ? a->files[0] : "--address", "does not go together with it");
	if (!a->all && a->nr_files == 0)
		return wrong("FILE", "", "is missing; or say --all; see --help");
	if (!a->all && a->format == XP__FORMAT_MARKDOWN)
		return wrong("--markdown", "FILE", "is for --all");
	if (a->nr_models == 0)
		return set_model(a, a->all ? "all" : "amd");
	return 0;
}

static int fail(const char *what, int error)
{
	return text_say("verify", TOOL_UNKNOWN, "%s: %s", what,
			error == -E2BIG
				? "too many executions to try them all: fewer states, or a model with less freedom"
				: strerror(-error));
}

/* ---- --all ---- */

static void progress(void *data, unsigned done, unsigned all)
{
	bool terminal = isatty(STDERR_FILENO);

	(void)data;
	if (terminal)
		fprintf(stderr, "\rverify: %u of %u kinds of sites%s", done, all, done == all ? "\n" : "");
	else if (done * 4 / all != (done + 1) * 4 / all)
		fprintf(stderr, "verify: %u of %u kinds of sites\n", done, all);
}

static void report_wrong(void *data, const struct xp__schedule *schedule, unsigned addr, const struct xp__model *model,
			 const struct xp__result *result)
{
	unsigned *nr_shown = data;

	if ((*nr_shown)++ < 5)
		xp__report_result(stderr, schedule, addr, model, result);
}

static int verify_all(struct xp__explorer *explorer, const struct arguments *a)
{
	unsigned nr_shown = 0;
	struct xp__watch watch = {.progress = a->quiet ? NULL : progress, .wrong = report_wrong, .data = &nr_shown};
	struct xp__matrix *matrix = malloc(sizeof(*matrix));
	int error = matrix ? xp__matrix_run(explorer, a->models, a->nr_models, &watch, matrix) : -ENOMEM;

	if (!error)
		error = xp__matrix_run_two(explorer, &watch, matrix);
	if (error) {
		free(matrix);
		return fail("--all", error);
	}
	xp__report_matrix(stdout, matrix, a->format);
	error = matrix->nr_wrong ? TOOL_REFUSED : TOOL_OK;
	free(matrix);
	return error;
}

/* ---- files ---- */

enum { PLANS_MAX = 16 << 20 }; /* bytes of a plan file */

static char *slurp(const char *path, size_t *len)
{
	FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
	char *text = NULL;
	size_t room = 0;

	*len = 0;
	if (file == NULL)
		return NULL;
	do {
		char *more = room < PLANS_MAX ? realloc(text, room + 65536) : NULL;

		if (more == NULL) {
			errno = room < PLANS_MAX ? ENOMEM : EFBIG;
			break;
		}
		text = more;
		room += 65536;
		*len += fread(text + *len, 1, room - *len, file);
	} while (*len == room);
	if (ferror(file) || *len == room) {
		free(text);
		text = NULL;
	}
	if (file != stdin)
		fclose(file);
	return text;
}

/* One plan under one model, at every address asked for; the first counterexample is shown. */
static int verify_plan(struct xp__explorer *explorer, const struct arguments *a, const struct xp__schedule *schedule,
		       const struct xp__model *model, const char *separator)
{
	unsigned first = a->address < 0 ? 0 : (unsigned)a->address, last = a->address < 0 ? 63 : first;
	struct xp__result result, shown = {.proven = true};
	uint64_t proven = 0, failed = 0;
	unsigned shown_at = first;
	char text[160];

	for (unsigned addr = first; addr <= last; addr++) {
		int error = xp__explore(explorer, schedule, addr, model, &result);

		if (error)
			return fail(schedule->name, error);
		*(result.proven ? &proven : &failed) |= 1ull << addr;
		if (addr == first || (shown.proven && !result.proven)) {
			shown = result;
			shown_at = addr;
		}
	}
	if (a->format == XP__FORMAT_JSON) {
		fprintf(stdout, "%s\n{\"proven_at\":[", separator);
		for (unsigned addr = first, nr = 0; addr <= last; addr++)
			if (proven >> addr & 1)
				printf("%s%u", nr++ ? "," : "", addr);
		fputs("],\"first\":", stdout);
		xp__report_result_json(stdout, schedule, shown_at, model, &shown);
		fputc('}', stdout);
	} else {
		if (a->address < 0)
			xp__report_addresses(text, sizeof(text), proven, model->granule);
		else
			snprintf(text, sizeof(text), proven ? "address %u" : "no address", first);
		printf("%s: %s: proven at %s\n", schedule->name, model->name, text);
		if (failed) {
			fputc('\n', stdout);
			xp__report_result(stdout, schedule, shown_at, model, &shown);
			fputc('\n', stdout);
		}
	}
	return failed ? TOOL_REFUSED : TOOL_OK;
}

/* The graver of two exit statuses. */
static int worse(int x, int y)
{
	return x > y ? x : y;
}

static int verify_file(struct xp__explorer *explorer, const struct arguments *a, const char *path,
		       const char **separator)
{
	struct xp__planfile file;
	size_t len;
	char *text = slurp(path, &len);
	int error, status = TOOL_OK;

	if (text == NULL)
		return text_say("verify", TOOL_USAGE, "%s: %s", path, strerror(errno));
	error = xp__planfile_read(&file, text, len);
	if (error == -EINVAL) {
		text_put(stderr, path);
		fprintf(stderr, ":%u:%u: ", file.line, file.column);
		text_put(stderr, file.reason);
		putc('\n', stderr);
	} else if (error) {
		fail(path, error);
	}
	for (size_t i = 0; i < file.nr && !error; i++)
		for (unsigned m = 0; m < a->nr_models; m++) {
			status = worse(status, verify_plan(explorer, a, &file.schedules[i], &a->models[m], *separator));
			*separator = ",";
		}
	xp__planfile_free(&file);
	free(text);
	return error == -EINVAL ? TOOL_USAGE : error ? TOOL_UNKNOWN : status;
}

static int verify_files(struct xp__explorer *explorer, const struct arguments *a)
{
	const char *separator = "";
	int status = TOOL_OK;

	if (a->format == XP__FORMAT_JSON)
		fputs("{\"results\":[", stdout);
	for (int i = 0; i < a->nr_files; i++)
		status = worse(status, verify_file(explorer, a, a->files[i], &separator));
	if (a->format == XP__FORMAT_JSON)
		fputs("\n]}\n", stdout);
	return status;
}

int cmd_verify(int argc, char **argv)
{
	struct arguments a;
	struct xp__explorer *explorer;
	int status = parse(&a, argc, argv);

	if (status)
		return status;
	if (a.help)
		return fputs(usage, stdout) < 0 || fflush(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	explorer = xp__explorer_new();
	if (explorer == NULL)
		return fail("explorer", -ENOMEM);
	status = a.all ? verify_all(explorer, &a) : verify_files(explorer, &a);
	xp__explorer_free(explorer);
	if (fflush(stdout) || ferror(stdout)) {
		fprintf(stderr, "crosspatch verify: standard output: %s\n", strerror(errno));
		return TOOL_UNKNOWN;
	}
	return status;
}
