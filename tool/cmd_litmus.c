// SPDX-License-Identifier: MIT
/* crosspatch litmus: what the processors of this machine execute while code is being changed. */
#include "replace.h"
#include "text.h"
#include "tool.h"

#include "litmus/litmus.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALL_PATHS ((1u << LITMUS_NR_PATHS) - 1)
#define ALL_WIDTHS ((1u << LITMUS_NR_WIDTHS) - 1)

static const char usage[] =
	"Usage: crosspatch litmus [--seconds N | --quick] [--seed N] [--path LIST] [--width LIST]\n"
	"                         [--cpus P,E] [--json] [--svg FILE]\n"
	"\n"
	"Races stores against execution on this machine and counts torn executions.\n"
	"\n"
	"  --seconds N   how long, 1 to 86400; 30 by default\n"
	"  --quick       3 seconds\n"
	"  --seed N      of the pauses between stores and the order of the races; the clock by default\n"
	"  --path LIST   store paths: alias, window, xchg, mprotect, procmem; all by default\n"
	"  --width LIST  widths of stores in the tables of torn executions: 1, 2, 4, 8, 16; all by default\n"
	"  --cpus P,E    processors of the patcher and of the executing thread\n"
	"  --json        JSON instead of tables\n"
	"  --svg FILE    also a heat map\n"
	"\n"
	"Exit status: 0 measured, 1 the run had no power or could not be made, 2 wrong arguments.\n";

static const struct option options_long[] = {
	{"seconds", required_argument, NULL, 's'}, {"quick", no_argument, NULL, 'q'},
	{"seed", required_argument, NULL, 'S'},    {"path", required_argument, NULL, 'p'},
	{"width", required_argument, NULL, 'w'},   {"cpus", required_argument, NULL, 'c'},
	{"json", no_argument, NULL, 'j'},          {"svg", required_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
};

struct arguments {
	struct litmus_options options;
	bool json, help;
	const char *svg;
};

static int wrong(const char *option, const char *value, const char *why)
{
	return text_say("litmus", TOOL_USAGE, "%s: \"%s\" %s", option, value, why);
}

static int parse_seconds(struct arguments *a, const char *value)
{
	char *end;

	errno = 0;
	a->options.seconds = strtod(value, &end);
	if (end == value || *end || errno || !(a->options.seconds >= 1 && a->options.seconds <= 86400))
		return wrong("--seconds", value, "is not a number from 1 to 86400");
	return 0;
}

static int parse_seed(struct arguments *a, const char *value)
{
	char *end;

	errno = 0;
	a->options.seed = strtoull(value, &end, 0);
	if (end == value || *end || errno || *value == '-')
		return wrong("--seed", value, "is not a whole number from 0 to 2^64-1");
	return 0;
}

/* A list, separated by commas, of which element @i is called name(i); sets the bits of those named. */
static bool parse_list(const char *value, unsigned nr, const char *(*name)(unsigned i, char text[16]), unsigned *bits)
{
	char text[16];

	*bits = 0;
	for (;;) {
		size_t len = strcspn(value, ",");
		unsigned i = 0;

		while (i < nr && (strlen(name(i, text)) != len || strncmp(name(i, text), value, len)))
			i++;
		if (i == nr)
			return false;
		*bits |= 1u << i;
		if (value[len] == '\0')
			return true;
		value += len + 1;
	}
}

static const char *path_name(unsigned i, char text[16])
{
	(void)text;
	return litmus_path_names[i];
}

static const char *width_name(unsigned i, char text[16])
{
	snprintf(text, 16, "%u", LITMUS_WIDTH(i));
	return text;
}

static int parse_cpus(struct arguments *a, const char *value)
{
	unsigned cpu[2];
	cpu_set_t set;
	char end;

	if (strspn(value, "0123456789,") != strlen(value) || sscanf(value, "%4u,%4u%c", &cpu[0], &cpu[1], &end) != 2 ||
	    cpu[0] == cpu[1])
		return wrong("--cpus", value, "is not two different processors, as in 0,1");
	if (sched_getaffinity(0, sizeof(set), &set) || !CPU_ISSET(cpu[0], &set) || !CPU_ISSET(cpu[1], &set))
		return wrong("--cpus", value, "names a processor that this process may not use; taskset -p shows them");
	for (int i = 0; i < 2; i++)
		a->options.cpus[i] = (int)cpu[i];
	return 0;
}

static int parse_option(struct arguments *a, int option, const char *value)
{
	switch (option) {
	case 's':
		return parse_seconds(a, value);
	case 'q':
		a->options.seconds = 3;
		return 0;
	case 'S':
		return parse_seed(a, value);
	case 'p':
		return parse_list(value, LITMUS_NR_PATHS, path_name, &a->options.paths)
			       ? 0
			       : wrong("--path", value,
				       "is not a list of alias, window, xchg, mprotect, procmem, separated by commas");
	case 'w':
		return parse_list(value, LITMUS_NR_WIDTHS, width_name, &a->options.widths)
			       ? 0
			       : wrong("--width", value, "is not a list of 1, 2, 4, 8, 16, separated by commas");
	case 'c':
		return parse_cpus(a, value);
	case 'j':
		a->json = true;
		return 0;
	case 'v':
		a->svg = value;
		return 0;
	case 'h':
		a->help = true;
		return 0;
	default:
		return TOOL_USAGE;
	}
}

static int parse(struct arguments *a, int argc, char **argv)
{
	int option;

	optind = 0;
	opterr = 0;
	/* In order, and missing values told from unknown options. */
	while ((option = getopt_long(argc, argv, "+:h", options_long, NULL)) != -1) {
		int error;

		if (option == '?' || option == ':')
			return text_say("litmus", TOOL_USAGE, "%s: %s", argv[optind - 1],
					option == ':' ? "needs a value" : "no such option; --help lists them");
		error = parse_option(a, option, optarg);
		if (error)
			return error;
	}
	if (optind < argc)
		return wrong("arguments", argv[optind], "is one too many; only options are taken");
	return 0;
}

/* ---- the state file ---- */

/* Makes the directories above @path. */
static int make_parents(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		int error;

		*slash = '\0';
		error = mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
		*slash = '/';
		if (error)
			return error;
	}
	return 0;
}

static int state_path(char path[PATH_MAX])
{
	const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
	int len;

	/* The specification of XDG: a relative path is to be ignored. */
	if (state && state[0] == '/')
		len = snprintf(path, PATH_MAX, "%s/crosspatch/litmus.json", state);
	else if (home && home[0] == '/')
		len = snprintf(path, PATH_MAX, "%s/.local/state/crosspatch/litmus.json", home);
	else
		return -ENOENT;
	return len < PATH_MAX - 8 ? 0 : -ENAMETOOLONG;
}

static const char *replace_file(const char *path, const struct litmus_report *report,
				void (*print)(const struct litmus_report *report, FILE *out))
{
	struct replacement new;
	const char *why = replace_begin(&new, path, 0666), *end;
	FILE *file;
	int fd;

	if (why)
		return why;
	fd = dup(new.fd);
	file = fd < 0 ? NULL : fdopen(fd, "w");
	if (file == NULL) {
		why = strerror(errno);
		if (fd >= 0)
			close(fd);
	} else {
		print(report, file);
		if (fflush(file) || ferror(file) || fsync(fd))
			why = strerror(errno);
		if (fclose(file) && !why)
			why = strerror(errno);
	}
	end = replace_end(&new, !why);
	return why ? why : end;
}

/* A run without power, or a narrowed one, leaves the file as it is: it knows less than whatever is there. */
static void keep(const struct litmus_report *report)
{
	char path[PATH_MAX] = "litmus.json";
	const char *why;
	int error;

	if (!report->verdict || report->options.paths != ALL_PATHS || report->options.widths != ALL_WIDTHS)
		return;
	error = state_path(path);
	if (!error)
		error = make_parents(path);
	why = error ? strerror(-error) : replace_file(path, report, litmus_print_json);
	if (why)
		text_say("litmus", 0, "warning: %s not written (%s): crosspatch doctor will not know of this run", path,
			 why);
}

static int draw(const struct litmus_report *report, const char *path)
{
	const char *why = replace_file(path, report, litmus_print_svg);

	return why ? text_say("litmus", 1, "--svg: %s: %s", path, why) : 0;
}

static int refuse(int error)
{
	const char *why = error == -ENODEV ? "only one processor may be used; a race needs two" : strerror(-error);

	fprintf(stderr, "crosspatch litmus: no power: nothing was measured: %s\n", why);
	return TOOL_REFUSED;
}

int cmd_litmus(int argc, char **argv)
{
	struct arguments a = {
		.options =
			{.seconds = 30, .paths = ALL_PATHS, .widths = ALL_WIDTHS, .cpus = {-1, -1}, .progress = stderr},
	};
	struct litmus_report report;
	int error;

	a.options.seed = litmus_now();
	error = parse(&a, argc, argv);
	if (error)
		return error;
	if (a.help)
		return fputs(usage, stdout) < 0 || fflush(stdout);
	error = litmus_run(&a.options, &report);
	if (error)
		return refuse(error);
	if (a.json)
		litmus_print_json(&report, stdout);
	else
		litmus_print(&report, stdout);
	keep(&report);
	error = a.svg ? draw(&report, a.svg) : 0;
	if (fflush(stdout) || ferror(stdout))
		error = 1;
	error |= !report.power;
	litmus_report_free(&report);
	return error;
}
