// SPDX-License-Identifier: MIT
/* crosspatch set: sets a key, switch or value of a running process. */
#include "client.h"
#include "json.h"
#include "text.h"
#include "tool.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
	"Usage: crosspatch set [--json] PID|SOCKET NAME on|off|NUMBER\n"
	"\n"
	"Sets a static key (on, off), a static switch (the number of a choice) or an immediate value (a whole number) of a\n"
	"running process. On return no processor executes the old state.\n"
	"\n"
	"  NAME    the name, FILE:NAME, FILE:LINE:NAME, or the address that crosspatch list --json shows; FILE may be the\n"
	"          last parts of a path\n"
	"  --json  JSON instead of a line\n"
	"\n"
	"Exit status: 0 it is so now, 1 refused, nothing was changed, 2 wrong arguments, 3 unknown: no control socket, or no\n"
	"answer.\n";

static void print(const struct client *client, const char *name, bool json)
{
	const char *before = client_field(client->lines[1], "state"), *object = client->lines[2];
	const char *state = client_field(object, "state"), *sites = client_field(object, "sites");
	const char *file = client_field(object, "file"), *line = client_field(object, "line");

	if (json) {
		printf("{\"pid\": %d, \"before\": ", client->pid);
		json_string(stdout, before);
		printf(", ");
		client_print_object(object);
		puts("}");
		return;
	}
	text_put(stdout, client_field(object, "name") ? client_field(object, "name") : name);
	for (int i = 0; i < 5; i++) {
		static const char *const before_it[] = {": ", ", was ", " (", " sites, ", ":"};
		const char *const what[] = {state, before, sites, file, line};

		fputs(before_it[i], stdout);
		text_put(stdout, what[i] ? what[i] : "?");
	}
	puts(")");
}

int cmd_set(int argc, char **argv)
{
	struct client_arguments arguments;
	struct client client;
	char request[4096];
	int status = client_parse(&arguments, argc, argv, 3);

	if (status)
		return status;
	if (arguments.help)
		return fputs(usage, stdout) < 0 || fflush(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	if (arguments.nr != 3) {
		fputs("crosspatch set: wants a process, a name and a value; see --help\n", stderr);
		return TOOL_USAGE;
	}
	for (int i = 1; i < 3; i++)
		if (arguments.words[i][0] == '\0' || strchr(arguments.words[i], '\n'))
			return text_say("set", TOOL_USAGE, "\"%s\" is no %s", arguments.words[i],
					i == 1 ? "name" : "value");
	if (snprintf(request, sizeof(request), "crosspatch 1 set %s %s\n", arguments.words[1], arguments.words[2]) >=
	    (int)sizeof(request)) {
		fputs("crosspatch set: the name is too long\n", stderr);
		return TOOL_USAGE;
	}
	status = client_open(&client, "set", arguments.words[0], arguments.json);
	if (!status)
		status = client_ask(&client, request);
	if (!status && client.nr_lines < 4) {
		fputs("crosspatch set: an answer without a state\n", stderr);
		status = TOOL_UNKNOWN;
	}
	if (!status) {
		print(&client, arguments.words[1], arguments.json);
		status = fflush(stdout) || ferror(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	}
	client_close(&client);
	return status;
}
