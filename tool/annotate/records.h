/* SPDX-License-Identifier: MIT */
/* New records in an object. Each returns as object.h says. */
#ifndef XP_ANNOTATE_RECORDS_H
#define XP_ANNOTATE_RECORDS_H

#include "annotate/object.h"

/* records_add - those of all sites and entries that were found, and writes the object. */
int records_add(struct object *o);

#endif
