/* SPDX-License-Identifier: MIT */
/* Sites by object: which records belong to a key, a call, a value, in which module. */
#ifndef XP_CORE_SITE_H
#define XP_CORE_SITE_H

#define XP_NO_MODULE /* the library itself has no sites */
#include <crosspatch/site.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xp__kind;
struct xp_diag;

/* The sites of one object in one module: @nr numbers of records, in ascending order. */
struct xp__group {
	struct xp__group *next; /* of the same object, in other modules */
	struct xp_object *object;
	const struct xp__kind *kind; /* whose records these are */
	const void *records;         /* the module's */
	const uint32_t *numbers;
	uint32_t nr;
	uint32_t nr_flag[2]; /* records with flag 1, with flag 2 */
};

/*
 * xp__objects_each - calls @visit for each object that has sites with records, once, with the list of its groups, until it
 * returns something else than 0, which is returned. All that the object points to is there. Modules that were unregistered
 * while the engine was wedged are skipped. Context: text lock.
 */
int xp__objects_each(int (*visit)(const struct xp__group *groups, void *data), void *data);

/*
 * xp__modules_wait - whether there are modules that are not registered: refused, or not yet looked at. Context: any.
 * xp__modules_retry - tries them again. Returns the error of a module that is refused again, if @concerns accepts that
 * module, told to @diag. Context: text lock. Errors: those of xp_module_register().
 * xp__module_names - whether @is says yes of an object that a record of the module refers to.
 */
bool xp__modules_wait(void);
int xp__modules_retry(bool (*concerns)(const struct xp_module *module, const void *what), const void *what,
		      struct xp_diag *diag);
bool xp__module_names(const struct xp_module *module,
		      bool (*is)(const struct xp_object *object, unsigned kind, const void *what), const void *what);

/* xp__relative - where a record's field points: it holds the distance from itself. */
static inline uintptr_t xp__relative(const int32_t *field)
{
	return (uintptr_t)field + (uintptr_t)(intptr_t)*field;
}

/* xp__real - the object itself, where @object may be a module's handle. */
static inline struct xp_object *xp__real(struct xp_object *object)
{
	return object->real ? object->real : object;
}

/* xp__site_flags / xp__site_object - the two things that a reference to an object holds. */
static inline unsigned xp__site_flags(const int32_t *reference)
{
	return (unsigned)xp__relative(reference) & XP_SITE_FLAGS;
}

static inline struct xp_object *xp__site_object(const int32_t *reference)
{
	return xp__real((struct xp_object *)(xp__relative(reference) & ~(uintptr_t)XP_SITE_FLAGS));
}

#endif
