/* SPDX-License-Identifier: MIT */
/* Objects of 32-bit code. Each returns as object.h says. */
#ifndef XP_ANNOTATE_BITS32_H
#define XP_ANNOTATE_BITS32_H

#include "annotate/object.h"

/* bits32_widen - makes a 64-bit object of the 32-bit one that was opened; nothing is ever written to @fd. */
int bits32_widen(struct object *o, int fd);
/* bits32_narrow - puts what changed in it back. */
int bits32_narrow(struct object *o);

#endif
