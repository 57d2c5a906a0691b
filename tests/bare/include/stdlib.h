/* SPDX-License-Identifier: MIT */
/* What the test sources use of it, on the machine: ../libc.c. */
#ifndef MACHINE_STDLIB_H
#define MACHINE_STDLIB_H
#include <stddef.h>
char *getenv(const char *name);
unsigned long long strtoull(const char *s, char **end, int base);

/* Whole numbers, and tenths. In the header: libc.c is compiled without floating point. */
static inline double strtod(const char *s, char **end)
{
	double value = (double)strtoull(s, NULL, 10);

	(void)end;
	while (*s >= '0' && *s <= '9')
		s++;
	return *s == '.' ? value + (double)(s[1] - '0') / 10 : value;
}
#endif
