/* SPDX-License-Identifier: MIT */
/* The races of order.c and change.c. */
#ifndef XP_LITMUS_ORDER_H
#define XP_LITMUS_ORDER_H

#include "litmus/litmus.h"

/* litmus_run_orders - runs them all until @end (of litmus_now()), each for an equal time; -errno. */
int litmus_run_orders(struct litmus_report *report, struct litmus_area *areas, uint64_t *random, uint64_t end);
/* litmus_run_changes - the same of change.c, through the alias; none if that path takes no part. */
int litmus_run_changes(struct litmus_report *report, struct litmus_area *areas, uint64_t *random, uint64_t end);

#endif
