// SPDX-License-Identifier: MIT
/* crosspatch list: the keys, switches and values of a running process. */
#include "client.h"
#include "json.h"
#include "text.h"
#include "tool.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
	"Usage: crosspatch list [--json] PID|SOCKET\n"
	"\n"
	"Shows what a running process can switch: its static keys, switches and values, and where its static calls and\n"
	"gates go; all of which have sites in code that is loaded.\n"
	"\n"
	"  --json  JSON instead of a table\n"
	"\n"
	"Exit status: 0 shown, 1 the process refuses, 2 wrong arguments, 3 it serves no control socket or does not answer.\n";

struct mapping {
	uint64_t start, end;
	char *file;
};

/* What a process may have of them; of one that has more, those behind are not told. */
enum { MAPPINGS_MAX = 1 << 20, NAMES_MAX = 64 << 20 };

static struct mapping *mappings;
static size_t nr_mappings;

static bool add_mapping(const struct mapping *mapping, const char *file, size_t *names)
{
	struct mapping *last = nr_mappings ? &mappings[nr_mappings - 1] : NULL;
	char *name = last && strcmp(last->file, file) == 0 ? last->file : NULL;

	/* Doubled whenever it is full, which is when the number is a power of two. */
	if ((nr_mappings & (nr_mappings - 1)) == 0) {
		struct mapping *more = realloc(mappings, (nr_mappings ? 2 * nr_mappings : 1) * sizeof(*mappings));

		if (more == NULL)
			return false;
		mappings = more;
	}
	if (name == NULL) {
		*names += strlen(file) + 1;
		name = *names <= NAMES_MAX ? strdup(file) : NULL;
	}
	if (name == NULL)
		return false;
	mappings[nr_mappings] = *mapping;
	mappings[nr_mappings++].file = name;
	return nr_mappings < MAPPINGS_MAX;
}

/* In the order of addresses. Without them there are no modules: what they are is not said then. */
static void read_mappings(int pid)
{
	char path[64], *line = NULL;
	size_t room = 0, names = 0;
	bool more = true;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/maps", client_thread(pid));
	file = fopen(path, "re");
	while (file && more && getline(&line, &room, file) > 0) {
		struct mapping mapping = {0, 0, NULL};
		int at = 0;

		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*s %*s %*s %n", &mapping.start, &mapping.end, &at) < 2 ||
		    !at || line[at] != '/')
			continue;
		line[strcspn(line, "\n")] = '\0';
		more = add_mapping(&mapping, line + at, &names);
	}
	free(line);
	if (file)
		fclose(file);
}

static const char *module_of(const char *line)
{
	const char *address = client_field(line, "address");
	uint64_t at = address ? strtoull(address, NULL, 16) : 0;
	size_t low = 0, high = nr_mappings;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (at >= mappings[middle].end)
			low = middle + 1;
		else
			high = middle;
	}
	return low < nr_mappings && at >= mappings[low].start ? mappings[low].file : NULL;
}

static const char *or_unknown(const char *value)
{
	return value ? value : "?";
}

static int compare(const void *a, const void *b)
{
	const char *x = *(char *const *)a, *y = *(char *const *)b;
	int order = strcmp(or_unknown(client_field(x, "file")), or_unknown(client_field(y, "file")));

	if (order == 0) {
		int line_x = client_number(or_unknown(client_field(x, "line")));
		int line_y = client_number(or_unknown(client_field(y, "line")));

		order = (line_x > line_y) - (line_x < line_y);
	}
	return order ? order : strcmp(or_unknown(client_field(x, "name")), or_unknown(client_field(y, "name")));
}

/* The objects alone, sorted by where they are defined. */
static size_t sort(struct client *client)
{
	size_t nr = 0;

	for (size_t i = 0; i < client->nr_lines; i++)
		if (client_is(client->lines[i], "object"))
			client->lines[nr++] = client->lines[i];
	qsort(client->lines, nr, sizeof(*client->lines), compare);
	return nr;
}

static void print_json(const struct client *client, size_t nr)
{
	printf("{\"pid\": %d, \"socket\": ", client->pid);
	json_string(stdout, client->path);
	printf(", \"objects\": [");
	for (size_t i = 0; i < nr; i++) {
		printf("%s\n  {", i ? "," : "");
		client_print_object(client->lines[i]);
		printf(", \"module\": ");
		json_string(stdout, module_of(client->lines[i]));
		putchar('}');
	}
	puts("\n]}");
}

enum {
	COLUMNS = 6,
	WIDTH_MAX = 64, /* what is wider does not make the others so */
};

/* The cells of a row that are put together. */
struct composed {
	char state[128], drifted[192], where[4096];
};

static void row_of(const char *line, struct composed *composed, const char *row[COLUMNS])
{
	const char *file = client_field(line, "file"), *state = or_unknown(client_field(line, "state"));
	const char *least = client_field(line, "least"), *most = client_field(line, "most");
	const char *drifted = client_field(line, "drifted");

	snprintf(composed->where, sizeof(composed->where), "%s:%s", or_unknown(file),
		 or_unknown(client_field(line, "line")));
	snprintf(composed->state, sizeof(composed->state), "%s of %s..%s", state, or_unknown(least), or_unknown(most));
	row[0] = or_unknown(client_field(line, "kind"));
	row[1] = least && most ? composed->state : state;
	if (drifted) {
		snprintf(composed->drifted, sizeof(composed->drifted), "%s; %s drifted", row[1], drifted);
		row[1] = composed->drifted;
	}
	row[2] = or_unknown(client_field(line, "sites"));
	row[3] = client_field(line, "name") ? client_field(line, "name") : or_unknown(client_field(line, "address"));
	row[4] = file ? composed->where : "?";
	row[5] = or_unknown(module_of(line));
}

static void print_row(const char *const row[COLUMNS], const size_t width[COLUMNS])
{
	for (int i = 0; i < COLUMNS - 1; i++) {
		size_t columns = text_columns(row[i]);
		int pad = columns < width[i] ? (int)(width[i] - columns) : 0;

		if (i == 2)
			printf("%*s", pad, "");
		text_put(stdout, row[i]);
		printf("%*s", i == 2 ? 2 : pad + 2, "");
	}
	text_put(stdout, row[COLUMNS - 1]);
	putchar('\n');
}

static void print_table(const struct client *client, size_t nr)
{
	static const char *const head[COLUMNS] = {"KIND", "STATE", "SITES", "NAME", "DEFINED AT", "MODULE"};
	size_t width[COLUMNS];
	const char *row[COLUMNS];
	struct composed composed;

	for (int i = 0; i < COLUMNS; i++)
		width[i] = strlen(head[i]);
	for (size_t i = 0; i < nr; i++) {
		row_of(client->lines[i], &composed, row);
		for (int k = 0; k < COLUMNS; k++) {
			size_t columns = text_columns(row[k]);

			if (columns > width[k])
				width[k] = columns < WIDTH_MAX ? columns : WIDTH_MAX;
		}
	}
	print_row(head, width);
	for (size_t i = 0; i < nr; i++) {
		row_of(client->lines[i], &composed, row);
		print_row(row, width);
	}
}

int cmd_list(int argc, char **argv)
{
	struct client_arguments arguments;
	struct client client;
	int status = client_parse(&arguments, argc, argv, 1);

	if (status)
		return status;
	if (arguments.help)
		return fputs(usage, stdout) < 0 || fflush(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	if (arguments.nr != 1) {
		fputs("crosspatch list: which process? Its id, or its control socket; see --help\n", stderr);
		return TOOL_USAGE;
	}
	status = client_open(&client, "list", arguments.words[0], arguments.json);
	if (!status)
		status = client_ask(&client, "crosspatch 1 list\n");
	if (!status) {
		size_t nr = sort(&client);

		read_mappings(client.pid);
		if (arguments.json)
			print_json(&client, nr);
		else
			print_table(&client, nr);
		status = fflush(stdout) || ferror(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	}
	client_close(&client);
	return status;
}
