/* SPDX-License-Identifier: MIT */
/*
 * The other end of a process' control socket: finds it, asks, takes the answer apart (src/control/proto.c says what is
 * asked and answered).
 */
#ifndef XP_TOOL_CLIENT_H
#define XP_TOOL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { CLIENT_WORDS = 3 };

struct client_arguments {
	const char *command; /* the subcommand's name */
	bool json, help;
	const char *words[CLIENT_WORDS];
	int nr;
};

/* client_parse - --json and --help anywhere, up to @most other words. TOOL_OK, or TOOL_USAGE and has said why. */
int client_parse(struct client_arguments *arguments, int argc, char **argv, int most);

struct client {
	const char *command; /* for messages */
	int fd;
	bool json;      /* failures are told on standard output too */
	int pid;        /* of the process that answers, as it is here */
	char path[512]; /* of the socket */
	char *answer;   /* taken apart: see client_field() */
	char **lines;
	size_t nr_lines;
};

/*
 * client_open - connects to @target, a process id or a socket's path. TOOL_OK, or a status and has said why. From then on the
 * whole command has 60 seconds.
 */
int client_open(struct client *client, const char *command, const char *target, bool json);

/*
 * client_ask - sends @request and takes the answer, whole. TOOL_OK; or TOOL_REFUSED by the process or TOOL_UNKNOWN, and has
 * said why.
 */
int client_ask(struct client *client, const char *request);
void client_close(struct client *client);

/* client_thread - a thread of the process that has not ended, its first one if that is so; @pid if there is none. */
int client_thread(int pid);

/* client_field - the field @name of a line of the answer; the first field has none. NULL: it has no such field. */
const char *client_field(const char *line, const char *name);
/* client_number - a number of the answer; what does not fit is the next that does. */
int client_number(const char *text);
/* client_is - whether the line is a @what. */
bool client_is(const char *line, const char *what);

/* client_print_object - the fields of an object as members of JSON, without braces. */
void client_print_object(const char *line);

#endif
