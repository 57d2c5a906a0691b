/* SPDX-License-Identifier: MIT */
/* The patchable entries of an object. Each returns as object.h says. */
#ifndef XP_ANNOTATE_ENTRIES_H
#define XP_ANNOTATE_ENTRIES_H

#include "annotate/object.h"

/* entries_find - those that are to be recorded, in order; the compiler's words of them are taken away. */
int entries_find(struct object *o);

#endif
