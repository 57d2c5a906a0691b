/* SPDX-License-Identifier: MIT */
/* A signal is an NMI, and its handler runs in that: ../libc.c. */
#ifndef MACHINE_SIGNAL_H
#define MACHINE_SIGNAL_H
#include <pthread.h>
#define SIGUSR1 10
#define SA_RESTART 1
struct sigaction {
	void (*sa_handler)(int);
	int sa_flags;
};
int sigaction(int signal, const struct sigaction *act, struct sigaction *old);
int pthread_kill(pthread_t thread, int signal);
#endif
