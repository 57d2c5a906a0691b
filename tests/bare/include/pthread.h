/* SPDX-License-Identifier: MIT */
/* A thread is an idle processor: ../libc.c. */
#ifndef MACHINE_PTHREAD_H
#define MACHINE_PTHREAD_H
#include <stddef.h>
typedef unsigned pthread_t;
int pthread_create(pthread_t *thread, const void *attributes, void *(*routine)(void *), void *argument);
int pthread_join(pthread_t thread, void **result);
#endif
