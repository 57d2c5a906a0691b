/* SPDX-License-Identifier: MIT */
/* What entries become. The kind itself is in core/kind.h. */
#ifndef XP_TRACE_ENTRIES_H
#define XP_TRACE_ENTRIES_H

#include "trace/table.h"

#if XP__HAS_ENTRIES

/* xp__entry_refuse - tells @diag why @function stays as it is, and returns @error. */
int xp__entry_refuse(const struct xp__function *function, int error, const char *detail, struct xp_diag *diag);

/* xp__entry_drop - the request is needed no more. Context: no lock held. */
void xp__entry_drop(struct xp__request *request);

/* xp__entries_count - fills in how many functions are traced, and redirected. Context: text lock. */
void xp__entries_count(struct xp_function_stats *stats);

#endif

#endif
