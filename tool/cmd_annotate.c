// SPDX-License-Identifier: MIT
/*
 * crosspatch annotate: adds to an object file the records of its call sites and patchable entries, as the compiler plugin
 * would have done. annotate/ has the parts: object (the file), bits32 (32-bit ones), sites, entries (what is found), symbols,
 * records (what is added).
 *
 * I1  No byte of code changes. Symbols keep their places, except that one may be inserted for a section that has no local
 *     one; then whatever counts symbols is renumbered.
 * I2  The file is replaced by a complete new one, or not at all.
 */
#include "annotate/entries.h"
#include "annotate/object.h"
#include "annotate/records.h"
#include "annotate/sites.h"
#include "json.h"
#include "replace.h"
#include "text.h"
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
	"Usage: crosspatch annotate [--call SYMBOL[=NAME]]… [--json] FILE…\n"
	"       crosspatch annotate [--call SYMBOL[=NAME]]… [--json] --output OUT FILE\n"
	"\n"
	"Adds the records of the call sites and of the entries (-fpatchable-function-entry=5) in object files, for compilers\n"
	"without the plugin.\n"
	"\n"
	"  FILE                  an object file, not linked yet; it is replaced\n"
	"  --output OUT          write to OUT, and leave FILE as it is\n"
	"  --call SYMBOL[=NAME]  calls of SYMBOL are calls of the static call NAME, by default SYMBOL\n"
	"  --json                the form of the answer\n"
	"\n"
	"Exit status: 0 done, 1 a file cannot be annotated, 2 wrong arguments, 3 the system failed; the file is as it was.\n";

enum {
	MAX_CALLS = 256,
	FILE_MAX = 1 << 30,
};

struct arguments {
	bool json, help;
	const char *output;
	struct named_call calls[MAX_CALLS];
	unsigned nr_calls;
	char **files;
	int nr_files;
};

/* ---- files ---- */

/* The bytes of @from, of which there may be more by now than there were. */
static int annotate_copy_bytes(int from, int to, off_t left)
{
	char block[65536];
	ssize_t got = 0;

	while (left > 0 && (got = read(from, block, left < (off_t)sizeof(block) ? (size_t)left : sizeof(block))) > 0) {
		left -= got;
		for (ssize_t at = 0, put; at < got; at += put) {
			put = write(to, block + at, (size_t)(got - at));
			if (put < 0)
				return -1;
		}
	}
	return got < 0 ? -1 : 0;
}

/* Works on a copy beside the result, which takes its place when it is complete. */
static int annotate_copy(struct object *o, int from, mode_t mode, const char *to)
{
	struct replacement new;
	const char *why = replace_begin(&new, to, mode);
	bool changed;
	int error;

	if (why)
		return text_say("annotate", TOOL_REFUSED, "%s: %s", to, why);
	if (annotate_copy_bytes(from, new.fd, o->size) != 0) {
		error = object_failed(to, strerror(errno));
	} else {
		error = object_open(o, new.fd);
		if (!error)
			error = sites_find(o);
		if (!error)
			error = entries_find(o);
		if (!error && (o->nr_sites || o->words_taken))
			error = records_add(o);
		object_close(o);
	}
	/* An object that gains nothing stays the file that it is. */
	changed = o->counts.recorded || o->words_taken || to != o->path;
	why = replace_end(&new, !error && changed);
	return why && !error ? object_failed(to, why) : error;
}

static int annotate_file(const struct arguments *a, const char *path, struct counts *counts)
{
	struct object o = {.path = path, .calls = a->calls, .nr_calls = a->nr_calls};
	/* A pipe that no process writes to is not waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), error;
	struct stat status;

	if (fd < 0 || fstat(fd, &status) != 0) {
		error = text_say("annotate", TOOL_USAGE, "%s: %s", path, strerror(errno));
	} else if (!S_ISREG(status.st_mode)) {
		error = object_refuse(&o, "is no regular file");
	} else if (status.st_size > FILE_MAX) {
		error = object_refuse(&o, "has more than 1 GiB, which no object file needs");
	} else {
		o.size = status.st_size;
		error = annotate_copy(&o, fd, status.st_mode, a->output ? a->output : path);
	}
	if (fd >= 0)
		close(fd);
	*counts = o.counts;
	return error;
}

/* ---- arguments ---- */

static const struct option options[] = {
	{"output", required_argument, NULL, 'o'},
	{"call", required_argument, NULL, 'c'},
	{"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static int annotate_wrong(const char *what, const char *why)
{
	return text_say("annotate", TOOL_USAGE, "%s %s", what, why);
}

static int annotate_add_call(struct arguments *a, const char *value)
{
	struct named_call *call = &a->calls[a->nr_calls];
	const char *equals = strchr(value, '=');

	if (a->nr_calls == MAX_CALLS)
		return annotate_wrong("--call", "was given too often");
	call->symbol = value;
	call->symbol_len = equals ? (size_t)(equals - value) : strlen(value);
	call->name = equals ? equals + 1 : value;
	if (call->symbol_len == 0 || *call->name == '\0')
		return annotate_wrong("--call", "wants SYMBOL or SYMBOL=NAME");
	a->nr_calls++;
	return 0;
}

static int annotate_parse(struct arguments *a, int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "ho:", options, NULL)) != -1)
		switch (option) {
		case 'o':
			a->output = optarg;
			break;
		case 'c':
			if (annotate_add_call(a, optarg))
				return TOOL_USAGE;
			break;
		case 'j':
			a->json = true;
			break;
		case 'h':
			a->help = true;
			return 0;
		default:
			return TOOL_USAGE; /* getopt_long() has said why */
		}
	a->files = argv + optind;
	a->nr_files = argc - optind;
	if (a->nr_files == 0)
		return annotate_wrong("FILE", "is missing; see --help");
	if (a->output && a->nr_files > 1)
		return annotate_wrong("--output", "is for one file");
	return 0;
}

int cmd_annotate(int argc, char **argv)
{
	static struct arguments a; /* large */
	const char *separator = "";
	int status = annotate_parse(&a, argc, argv);

	if (status)
		return status;
	if (a.help)
		return fputs(usage, stdout) < 0 || fflush(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	elf_version(EV_CURRENT);
	if (a.json)
		fputs("{\"objects\":[", stdout);
	for (int i = 0; i < a.nr_files; i++) {
		struct counts counts;
		int error = annotate_file(&a, a.files[i], &counts);

		if (error > status)
			status = error;
		if (error)
			continue;
		if (a.json) {
			printf("%s\n{\"file\":", separator);
			json_string(stdout, a.files[i]);
			printf(",\"recorded\":%zu,\"present\":%zu,\"left_out\":%zu", counts.recorded, counts.present,
			       counts.left_out);
			printf(",\"entries\":{\"recorded\":%zu,\"present\":%zu,\"left_out\":%zu}}",
			       counts.entries_recorded, counts.entries_present, counts.entries_left_out);
			separator = ",";
		} else {
			text_put(stdout, a.files[i]);
			printf(": %zu call sites recorded, %zu had a record, %zu left out", counts.recorded,
			       counts.present, counts.left_out);
			if (counts.entries_recorded || counts.entries_present || counts.entries_left_out)
				printf("; %zu entries recorded, %zu had a record, %zu left out",
				       counts.entries_recorded, counts.entries_present, counts.entries_left_out);
			putchar('\n');
		}
	}
	if (a.json)
		fputs("\n]}\n", stdout);
	if (fflush(stdout) || ferror(stdout))
		return object_failed("standard output", strerror(errno));
	return status;
}
