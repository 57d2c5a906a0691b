// SPDX-License-Identifier: MIT
/* crosspatch doctor: whether code can be changed safely here. */
#include "client.h"
#include "doctor.h"
#include "json.h"
#include "text.h"
#include "tool.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
	"Usage: crosspatch doctor [--json] [PID|SOCKET]\n"
	"\n"
	"Tells whether code can be changed safely: on this machine, by trying each writer, sync and policy in processes\n"
	"of its own; or in a running process, by what /proc says of it, and what it says itself if it serves a control socket.\n"
	"\n"
	"  --json  JSON instead of a table\n"
	"\n"
	"Exit status: 0 yes, 1 no, 2 wrong arguments, 3 unknown.\n";

static const char *const answers[] = {
	[DOCTOR_OK] = "ok", [DOCTOR_NO] = "no", [DOCTOR_LIMITED] = "limited", [DOCTOR_UNKNOWN] = "unknown"};

struct doctor_check *doctor_add(struct doctor_report *report, const char *name, enum doctor_answer answer,
				const char *format, ...)
{
	struct doctor_check *check = &report->checks[report->nr < DOCTOR_CHECKS ? report->nr++ : DOCTOR_CHECKS - 1];
	va_list list;

	check->name = name;
	check->answer = answer;
	va_start(list, format);
	vsnprintf(check->why, sizeof(check->why), format, list);
	va_end(list);
	return check;
}

static const char *safe(const struct doctor_report *report)
{
	return report->safe == DOCTOR_OK ? "yes" : answers[report->safe];
}

static void print(const struct doctor_report *report)
{
	text_put(stdout, report->subject);
	putchar('\n');
	for (int i = 0; i < report->nr; i++) {
		printf("  %-18s %-8s ", report->checks[i].name, answers[report->checks[i].answer]);
		text_put(stdout, report->checks[i].why);
		putchar('\n');
	}
	printf("safe: %s%s", safe(report), report->advice[0] ? "; " : "");
	text_put(stdout, report->advice);
	putchar('\n');
}

static void print_json(const struct doctor_report *report)
{
	printf("{\"subject\": ");
	json_string(stdout, report->subject);
	printf(", \"safe\": \"%s\", \"advice\": ", safe(report));
	json_string(stdout, report->advice);
	printf(", \"checks\": [");
	for (int i = 0; i < report->nr; i++) {
		printf("%s\n  {\"check\": ", i ? "," : "");
		json_string(stdout, report->checks[i].name);
		printf(", \"answer\": \"%s\", \"why\": ", answers[report->checks[i].answer]);
		json_string(stdout, report->checks[i].why);
		putchar('}');
	}
	puts("\n]}");
}

int cmd_doctor(int argc, char **argv)
{
	static struct doctor_report report;
	struct client_arguments arguments;
	int status = client_parse(&arguments, argc, argv, 1);

	if (status)
		return status;
	if (arguments.help)
		return fputs(usage, stdout) < 0 || fflush(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	if (arguments.nr)
		status = doctor_process(&report, arguments.words[0]);
	else
		doctor_machine(&report);
	if (status == TOOL_USAGE || (status && !arguments.json))
		return status;
	if (status) {
		snprintf(report.subject, sizeof(report.subject), "%s", arguments.words[0]);
		snprintf(report.advice, sizeof(report.advice), "nothing is known of it; why is on standard error");
		report.safe = DOCTOR_UNKNOWN;
	}
	if (arguments.json)
		print_json(&report);
	else
		print(&report);
	if (fflush(stdout) || ferror(stdout))
		return TOOL_UNKNOWN;
	if (status)
		return status;
	return report.safe == DOCTOR_OK ? TOOL_OK : report.safe == DOCTOR_UNKNOWN ? TOOL_UNKNOWN : TOOL_REFUSED;
}
