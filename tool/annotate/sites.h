/* SPDX-License-Identifier: MIT */
/* The call sites of an object. Each returns as object.h says. */
#ifndef XP_ANNOTATE_SITES_H
#define XP_ANNOTATE_SITES_H

#include "annotate/object.h"

/* sites_find - those that are to be recorded, in order. */
int sites_find(struct object *o);
/* sites_find_present - those with a record in a section @name, of @len bytes: the first field of each says where. */
int sites_find_present(struct object *o, const char *name, size_t len, struct site **present, size_t *nr_present);
/* sites_compare - the order of struct site, for bsearch() and qsort(). */
int sites_compare(const void *x, const void *y);
/* sites_call_name - the name of the static call whose trampoline symbol @number is; NULL: of none. */
const char *sites_call_name(const struct object *o, uint32_t number);

#endif
