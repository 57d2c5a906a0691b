// SPDX-License-Identifier: MIT
/* The tool: finds the subcommand. */
#include "tool.h"

#include <stdio.h>
#include <string.h>

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *purpose;
} commands[] = {
#ifdef XP_TOOL_VERIFY
	{"verify", cmd_verify, "prove plans of code changes, or show the execution that breaks them"},
#endif
#ifdef XP_TOOL_ANNOTATE
	{"annotate", cmd_annotate, "add the records of call sites to object files"},
#endif
	{"litmus", cmd_litmus, "race stores against execution on this machine and count what tears"},
	{"doctor", cmd_doctor, "tell whether code can be changed safely on this machine, or in a process"},
	{"list", cmd_list, "show keys, switches and values of a running process"},
	{"set", cmd_set, "set one of them"},
	{"repair", cmd_repair, "bring back sites of theirs that other code wrote to"},
	{NULL, NULL, NULL},
};

static void usage(FILE *out)
{
	fputs("Usage: crosspatch COMMAND [ARGUMENT…]\n\n", out);
	for (size_t i = 0; commands[i].name; i++)
		fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].purpose);
	fputs("\ncrosspatch COMMAND --help says more; crosspatch --version.\n"
	      "Exit status: 0 ok, 1 refused or counterexample, 2 wrong arguments, 3 state unknown.\n",
	      out);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		usage(stderr);
		return TOOL_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		usage(stdout);
		return fflush(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	}
	if (strcmp(argv[1], "--version") == 0) {
		puts("crosspatch " XP_TOOL_VERSION);
		return fflush(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	}
	for (size_t i = 0; commands[i].name; i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return commands[i].run(argc - 1, argv + 1);
	fprintf(stderr, "crosspatch: there is no command \"%s\"; see crosspatch --help\n", argv[1]);
	return TOOL_USAGE;
}
