// SPDX-License-Identifier: MIT
#include <getopt.h>
#include <stddef.h>

extern const struct option options[];
const struct option options[] = {
	{"good", no_argument, NULL, 0},
	{NULL, 0, NULL, 0},
};
