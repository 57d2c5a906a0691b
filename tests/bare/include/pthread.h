/* SPDX-License-Identifier: MIT */
/* A thread is an idle processor: ../libc.c. */
#ifndef MACHINE_PTHREAD_H
#define MACHINE_PTHREAD_H
#include <stddef.h>
typedef unsigned pthread_t;
int pthread_create(pthread_t *thread, const void *attributes, void *(*routine)(void *), void *argument);
int pthread_join(pthread_t thread, void **result);
pthread_t pthread_self(void);

typedef struct {
	unsigned nr, waiting, passed;
} pthread_barrier_t;
int pthread_barrier_init(pthread_barrier_t *barrier, const void *attributes, unsigned nr);
int pthread_barrier_wait(pthread_barrier_t *barrier);
int pthread_barrier_destroy(pthread_barrier_t *barrier);
#endif
