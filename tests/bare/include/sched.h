/* SPDX-License-Identifier: MIT */
/* What the test sources use of it, on the machine: ../libc.c. */
#ifndef MACHINE_SCHED_H
#define MACHINE_SCHED_H
int sched_yield(void);
#endif
