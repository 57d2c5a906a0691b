/* SPDX-License-Identifier: MIT */
/*
 * The other end of a process' control socket: finds it, asks, takes the answer apart (src/port/linux/answer.c says what is
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
	int pid;        /* of the process that answers, as it is here */
	char path[108]; /* of the socket */
	char *answer;   /* taken apart: see client_line() */
	char **lines;
	size_t nr_lines;
	int error;        /* the process', negative; 0: it has done what was asked */
	const char *text; /* of that */
};

/* client_open - connects to @target, a process id or a socket's path. TOOL_OK, or a status and has said why. */
int client_open(struct client *client, const char *command, const char *target);

/*
 * client_ask - sends @request and takes the answer, whole. TOOL_OK, TOOL_REFUSED with client->error and text, of which nothing
 * is said yet; or TOOL_UNKNOWN and has said why.
 */
int client_ask(struct client *client, const char *request);
void client_close(struct client *client);

/* client_field - the field @name of a line of the answer; the first field has none. NULL: it has no such field. */
const char *client_field(const char *line, const char *name);
/* client_is - whether the line is a @what. */
bool client_is(const char *line, const char *what);

/* client_print_object - the fields of an object as members of JSON, without braces. */
void client_print_object(const char *line);

/* client_refused - says that the process refused. TOOL_REFUSED. */
int client_refused(const struct client *client, bool json);

/* client_paths - calls @try with each path where the socket of process @pid may be, until one returns true. */
bool client_paths(int pid, bool (*try)(const char *path, void *data), void *data);

#endif
