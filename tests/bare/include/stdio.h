/* SPDX-License-Identifier: MIT */
/* What the test sources use of it, on the machine: ../libc.c. */
#ifndef MACHINE_STDIO_H
#define MACHINE_STDIO_H
#include <stddef.h>
typedef struct machine_file FILE;
extern FILE *const stdout, *const stderr;
#define _IOLBF 1
int printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
int fprintf(FILE *file, const char *format, ...) __attribute__((format(printf, 2, 3)));
int putchar(int c);
int puts(const char *s);
int setvbuf(FILE *file, char *buffer, int mode, size_t size);
#endif
