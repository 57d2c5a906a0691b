/* SPDX-License-Identifier: MIT */
/* What entries become. The kind itself is in core/kind.h. */
#ifndef XP_TRACE_ENTRIES_H
#define XP_TRACE_ENTRIES_H

#include "trace/table.h"

#if XP__HAS_ENTRIES

/* xp__entry_refuse - tells @diag why @function stays as it is, and returns @error. */
int xp__entry_refuse(const struct xp__function *function, int error, const char *detail, struct xp_diag *diag);

/*
 * Many functions in one request, of xp__chosen_kind. xp__chosen_clear - none so far. xp__chosen_add - one more, to which @request
 * can be applied: its change begins; errors: as begin()'s of a kind, and -ENOMEM. xp__chosen_end - what was begun ends, done or
 * undone; may be called again. xp__chosen_explain - the text of one was not what it had to be: -XP_E_DRIFTED and why, or
 * -XP_E_MISMATCH. Context: text lock, from the first of these to the last.
 */
void xp__chosen_clear(void);
int xp__chosen_add(const struct xp__request *request, struct xp__function *function);
void xp__chosen_end(const struct xp__request *request, bool done);
int xp__chosen_explain(struct xp_diag *diag);

/* xp__entry_drop - the request is needed no more. Context: no lock held. */
void xp__entry_drop(struct xp__request *request);

/* xp__entries_count - fills in how many functions are traced, and redirected. Context: text lock. */
void xp__entries_count(struct xp_function_stats *stats);

#endif

#endif
