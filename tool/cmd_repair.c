// SPDX-License-Identifier: MIT
/* crosspatch repair: brings sites of a running process back that other code wrote to. */
#include "client.h"
#include "text.h"
#include "tool.h"

#include <stdio.h>

static const char usage[] =
	"Usage: crosspatch repair [--json] PID|SOCKET\n"
	"\n"
	"Brings every site of a running process that other code wrote to back to what its key, switch, value, call,\n"
	"gate or function says: a probe that goes writes back the code of the file. crosspatch list shows which drifted.\n"
	"\n"
	"  --json  JSON instead of a line\n"
	"\n"
	"Exit status: 0 no site drifts now, 1 a site could not be repaired; all others were, 2 wrong arguments, 3 unknown: no\n"
	"control socket, or no answer.\n";

int cmd_repair(int argc, char **argv)
{
	struct client_arguments arguments;
	struct client client;
	int status = client_parse(&arguments, argc, argv, 1);

	if (status)
		return status;
	if (arguments.help)
		return fputs(usage, stdout) < 0 || fflush(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	if (arguments.nr != 1) {
		fputs("crosspatch repair: wants a process; see --help\n", stderr);
		return TOOL_USAGE;
	}
	status = client_open(&client, "repair", arguments.words[0], arguments.json);
	if (!status)
		status = client_ask(&client, "crosspatch 1 repair\n");
	if (!status && (client.nr_lines < 3 || client_field(client.lines[1], "sites") == NULL)) {
		fputs("crosspatch repair: an answer without a number\n", stderr);
		status = TOOL_UNKNOWN;
	}
	if (!status) {
		int sites = client_number(client_field(client.lines[1], "sites"));

		if (arguments.json)
			printf("{\"pid\": %d, \"sites\": %d}\n", client.pid, sites);
		else
			printf("%d sites repaired\n", sites);
		status = fflush(stdout) || ferror(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	}
	client_close(&client);
	return status;
}
