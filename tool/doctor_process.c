// SPDX-License-Identifier: MIT
/*
 * Whether code can be changed safely in a running process: what /proc tells of its threads, to every user that may see
 * the process, and its own word.
 */
#include "client.h"
#include "doctor.h"
#include "text.h"
#include "tool.h"

#include <dirent.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct threads {
	unsigned nr, blocking, newborn, filtered; /* newborn: of those that block SIGTRAP */
	int first;                                /* of those that block SIGTRAP */
	char first_name[32];
	bool ignores, shadow_stack, no_new_privileges;
	int tracer;
};

static bool has(const char *hex, int signal)
{
	return strtoull(hex, NULL, 16) >> (signal - 1) & 1;
}

static void read_line(struct threads *threads, int tid, const char *line, char *name)
{
	if (strncmp(line, "Name:\t", 6) == 0)
		snprintf(name, 32, "%.*s", (int)strcspn(line + 6, "\n"), line + 6);
	if (strncmp(line, "SigBlk:\t", 8) == 0 && has(line + 8, SIGTRAP)) {
		/* libc's own too: it is inside libc, being made for instance */
		threads->newborn += has(line + 8, 32) && has(line + 8, 33);
		if (threads->blocking++ == 0) {
			threads->first = tid;
			memcpy(threads->first_name, name, sizeof(threads->first_name));
		}
	}
	if (strncmp(line, "SigIgn:\t", 8) == 0)
		threads->ignores |= has(line + 8, SIGTRAP);
	if (strncmp(line, "Seccomp:\t", 9) == 0)
		threads->filtered += atoi(line + 9) != 0;
	if (strncmp(line, "NoNewPrivs:\t", 12) == 0)
		threads->no_new_privileges |= atoi(line + 12) != 0;
	if (strncmp(line, "TracerPid:\t", 11) == 0 && atoi(line + 11))
		threads->tracer = atoi(line + 11);
	if (strncmp(line, "x86_Thread_features:\t", 21) == 0)
		threads->shadow_stack |= strstr(line, "shstk") != NULL;
}

static bool read_threads(struct threads *threads, int pid)
{
	char path[300], line[512];
	struct dirent *entry;
	DIR *tasks;

	memset(threads, 0, sizeof(*threads));
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	while (tasks && (entry = readdir(tasks))) {
		const struct threads before = *threads;
		char name[32] = "";
		bool ended = false;
		FILE *file;

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task/%s/status", pid, entry->d_name);
		file = fopen(path, "re");
		threads->nr += file != NULL;
		while (file && fgets(line, sizeof(line), file)) {
			read_line(threads, atoi(entry->d_name), line, name);
			ended = ended || strncmp(line, "State:\tZ", 8) == 0;
		}
		if (file)
			fclose(file);
		/* The first thread stays listed after its end. */
		if (ended)
			*threads = before;
	}
	if (tasks)
		closedir(tasks);
	return threads->nr > 0;
}

/* As a commit does: a thread that blocks SIGTRAP is looked at again for a moment, one that does so inside libc for longer. */
static bool look(struct threads *threads, int pid)
{
	enum { OWN = 5, LIBCS = 1000 }; /* looks, 10 ms apart */

	for (int looks = 1;; looks++) {
		if (!read_threads(threads, pid))
			return false;
		if (threads->blocking == 0 || looks >= (threads->newborn == threads->blocking ? LIBCS : OWN))
			return true;
		usleep(10000);
	}
}

static void add_threads(struct doctor_report *report, const struct threads *threads)
{
	if (threads->ignores)
		doctor_add(report, "traps", DOCTOR_NO,
			   "the process ignores SIGTRAP: changes behind a breakpoint are refused");
	else if (threads->blocking)
		doctor_add(
			report, "traps", DOCTOR_NO,
			"%u of %u threads block SIGTRAP, the first is %d (%s): changes behind a breakpoint are refused",
			threads->blocking, threads->nr, threads->first, threads->first_name);
	else
		doctor_add(report, "traps", DOCTOR_OK, "none of %u threads blocks SIGTRAP", threads->nr);
	doctor_add(report, "debugger", threads->tracer ? DOCTOR_LIMITED : DOCTOR_OK,
		   threads->tracer ? "process %d traces it: its breakpoints are in the way, and it stops at ours"
				   : "no process traces it",
		   threads->tracer);
	doctor_add(report, "seccomp", threads->filtered ? DOCTOR_LIMITED : DOCTOR_OK,
		   "%u threads have a seccomp filter, which may refuse what a commit needs%s", threads->filtered,
		   threads->no_new_privileges ? "; no new privileges" : "");
	doctor_add(report, "shadow stacks", threads->shadow_stack ? DOCTOR_LIMITED : DOCTOR_OK,
		   threads->shadow_stack ? "on: calls and returns are not emulated" : "off, or the kernel has none");
}

static const char *or_unknown(const char *value)
{
	return value ? value : "unknown";
}

/* The process' own word. */
static void add_status(struct doctor_report *report, const char *status, const struct threads *threads)
{
	const char *state = or_unknown(client_field(status, "state")),
		   *policy = or_unknown(client_field(status, "policy"));
	const char *writer = or_unknown(client_field(status, "writer")),
		   *sync = or_unknown(client_field(status, "sync"));
	const char *single = client_field(status, "single"), *modules = client_field(status, "module_error");
	bool ready = strcmp(state, "ready") == 0, writes = strcmp(writer, "none") != 0,
	     syncs = strcmp(sync, "none") != 0;
	bool trapped = threads->ignores || threads->blocking;
	bool breakpoints = strcmp(policy, "breakpoint") == 0, early = strcmp(policy, "early") == 0;
	const char *drift = client_field(status, "drifted");
	bool drifted = drift && client_number(drift);
	bool registered = modules == NULL || client_number(modules) == 0;

	doctor_add(report, "engine", ready ? DOCTOR_OK : DOCTOR_NO,
		   "%s; %s commits, %s undone, %s syncs, %s traps, %s of them late", state,
		   or_unknown(client_field(status, "commits")), or_unknown(client_field(status, "rollbacks")),
		   or_unknown(client_field(status, "syncs")), or_unknown(client_field(status, "traps")),
		   or_unknown(client_field(status, "late_traps")));
	doctor_add(report, "modules", registered ? DOCTOR_OK : DOCTOR_LIMITED,
		   registered ? "all were registered" : "one was not (-%s): its objects are not changed until it is",
		   or_unknown(modules));
	doctor_add(report, "sites", drifted ? DOCTOR_NO : DOCTOR_OK,
		   drifted ? "%s drifted: other code wrote there; `crosspatch list` shows which" : "all are as asked",
		   or_unknown(drift));
	doctor_add(report, "writer", writes ? DOCTOR_OK : DOCTOR_NO, "%s%s", writer,
		   single && client_number(single) ? "; up to 8 bytes are one store" : "");
	doctor_add(report, "sync", syncs ? DOCTOR_OK : DOCTOR_NO, "%s", sync);
	doctor_add(report, "policy", early || (breakpoints && trapped) ? DOCTOR_NO : DOCTOR_OK, "%s%s", policy,
		   early ? ", which is for one thread; this process has more" : "");
	report->safe =
		ready && writes && syncs && !drifted && !early && !(breakpoints && trapped) ? DOCTOR_OK : DOCTOR_NO;
	if (!ready)
		snprintf(
			report->advice, sizeof(report->advice),
			"a commit could be neither finished nor undone; nothing is changed any more until the process starts anew");
	else if (drifted)
		snprintf(report->advice, sizeof(report->advice),
			 "sites execute other code than was asked for: `crosspatch repair` brings them back");
	else if (report->safe == DOCTOR_OK && trapped)
		snprintf(report->advice, sizeof(report->advice), "for keys; what needs a breakpoint is refused");
}

int doctor_process(struct doctor_report *report, const char *target)
{
	struct threads threads;
	struct client client;
	char path[64], name[64] = "";
	int status = client_open(&client, "doctor", target, false), pid = client.pid;
	FILE *file;

	if (status == TOOL_USAGE)
		return status;
	if (status && strchr(target, '/'))
		return status;
	if (status)
		pid = client_number(target);
	if (!look(&threads, pid)) {
		client_close(&client);
		return status ? status
			      : text_say("doctor", TOOL_UNKNOWN, "the process ended, or /proc does not show it");
	}
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	if (file && fgets(name, sizeof(name), file))
		name[strcspn(name, "\n")] = '\0';
	if (file)
		fclose(file);
	snprintf(report->subject, sizeof(report->subject), "process %d (%s), %u threads", pid, name, threads.nr);
	add_threads(report, &threads);
	report->safe = DOCTOR_UNKNOWN;
	if (!status)
		status = client_ask(&client, "crosspatch 1 status\n");
	if (!status && client_is(client.lines[1], "status"))
		add_status(report, client.lines[1], &threads);
	else
		snprintf(report->advice, sizeof(report->advice), "only the process knows its policy, writer and sync");
	client_close(&client);
	return TOOL_OK;
}
