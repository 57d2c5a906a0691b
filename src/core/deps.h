/* SPDX-License-Identifier: MIT */
/*
 * Everything that the core takes from outside: four memory functions, which compilers call by themselves anyway. A kernel
 * that has them under other names defines XP_DEPS_HEADER to its own header.
 */
#ifndef XP_CORE_DEPS_H
#define XP_CORE_DEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef XP_DEPS_HEADER
#include XP_DEPS_HEADER
#else
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
#endif

/* The system's error numbers that the core itself returns: these three are the same on every Linux architecture. */
#define XP__ENOMEM 12
#define XP__EBUSY 16
#define XP__EINVAL 22

#endif
