/* SPDX-License-Identifier: MIT */
/* What functions.c and its functions, functions_body.c, know of each other. */
#ifndef FUNCTIONS_H
#define FUNCTIONS_H

#define NR_FUNCTIONS 1000

typedef unsigned function(unsigned);

#endif
