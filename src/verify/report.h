/* SPDX-License-Identifier: MIT */
/* What the verifier found, for people (text), for doc/ (Markdown) and for programs (JSON). Hosted. */
#ifndef XP_VERIFY_REPORT_H
#define XP_VERIFY_REPORT_H

#include "verify/explore.h"
#include "verify/matrix.h"

#include <stdio.h>

/* xp__report_result - the counterexample of @result: plan, address, model, versions, what was fetched, and why it is wrong. */
void xp__report_result(FILE *out, const struct xp__schedule *schedule, unsigned addr, const struct xp__model *model,
		       const struct xp__result *result);

/* The same as a JSON object; also of a proof. */
void xp__report_result_json(FILE *out, const struct xp__schedule *schedule, unsigned addr,
			    const struct xp__model *model, const struct xp__result *result);

/*
 * xp__report_addresses - "0-3, 8 mod 16": the addresses of @set (bit i: address i, modulo @period ≤ 64), in words if they
 * are all or none.
 */
void xp__report_addresses(char *text, size_t size, uint64_t set, unsigned period);

enum xp__format { XP__FORMAT_TEXT, XP__FORMAT_MARKDOWN, XP__FORMAT_JSON };

void xp__report_matrix(FILE *out, const struct xp__matrix *matrix, enum xp__format format);

#endif
