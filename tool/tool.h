/* SPDX-License-Identifier: MIT */
/*
 * Subcommands of the tool: cmd_NAME.c each, listed in crosspatch.c. argv[0] is the subcommand's name.
 * Exit status of all: 0 ok, 1 refused or counterexample, 2 usage, 3 state unknown. Errors go to stderr as sentences.
 */
#ifndef XP_TOOL_H
#define XP_TOOL_H

enum {
	TOOL_OK = 0,
	TOOL_REFUSED = 1,
	TOOL_USAGE = 2,
	TOOL_UNKNOWN = 3,
};

int cmd_annotate(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_litmus(int argc, char **argv);
int cmd_repair(int argc, char **argv);
int cmd_set(int argc, char **argv);
int cmd_verify(int argc, char **argv);

#endif
