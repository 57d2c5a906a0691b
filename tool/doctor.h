/* SPDX-License-Identifier: MIT */
/* What crosspatch doctor finds: a list of questions, each with an answer and its reason. */
#ifndef XP_TOOL_DOCTOR_H
#define XP_TOOL_DOCTOR_H

#include <stdbool.h>

enum doctor_answer { DOCTOR_OK, DOCTOR_NO, DOCTOR_LIMITED, DOCTOR_UNKNOWN };

struct doctor_check {
	const char *name;
	enum doctor_answer answer;
	char why[512];
};

enum { DOCTOR_CHECKS = 24 };

struct doctor_report {
	char subject[512]; /* the machine or process */
	struct doctor_check checks[DOCTOR_CHECKS];
	int nr;
	enum doctor_answer safe; /* whether keys can be switched under the policy in force */
	char advice[512];
};

/* doctor_add - one more. */
struct doctor_check *doctor_add(struct doctor_report *report, const char *name, enum doctor_answer answer,
				const char *format, ...) __attribute__((format(printf, 4, 5)));

/* doctor_machine - tries everything, each in a child process of its own, on the tool's own text. */
void doctor_machine(struct doctor_report *report);

/*
 * doctor_process - what /proc says of the process @target (an id, or the path of its socket), and what it says itself if it
 * serves one. TOOL_OK, or another status and has said why.
 */
int doctor_process(struct doctor_report *report, const char *target);

#endif
