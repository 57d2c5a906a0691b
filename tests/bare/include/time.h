/* SPDX-License-Identifier: MIT */
/* What the test sources use of it, on the machine: ../libc.c. */
#ifndef MACHINE_TIME_H
#define MACHINE_TIME_H
typedef long time_t;
struct timespec {
	long tv_sec, tv_nsec;
};
#define CLOCK_MONOTONIC 1
#define TIME_UTC 1
int clock_gettime(int clock, struct timespec *now);
int timespec_get(struct timespec *now, int base);
int nanosleep(const struct timespec *time, struct timespec *left);
#endif
