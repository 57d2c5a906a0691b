/* SPDX-License-Identifier: MIT */
/*
 * Whether what a record names can be an object at all. A record is four bytes in a file: if they are wrong, they lead
 * anywhere.
 */
#ifndef XP_CORE_OBJECT_H
#define XP_CORE_OBJECT_H

#include "core/kind.h"

/*
 * The last answers about the records of one table, so that they are not asked for again: 0 at first but for `has`. Valid
 * under one text lock, and for one table at a time.
 */
struct xp__known {
	uintptr_t written, value, text; /* pages */
	const struct xp_object *object;
	/* Whether @group is one that a registered module has of @object: site.c. */
	bool (*has)(const struct xp__group *group, const struct xp_object *object, const struct xp__kind *kind);
	bool idle;  /* what has a number is no object either: site.c, I3 */
	bool begun; /* the table of those seen */
};

/* Objects that were found sound, each at the place that its address gives: object.c, I3. */
#define XP__SEEN_BITS 12
extern const struct xp_object *xp__objects_seen[1 << XP__SEEN_BITS];

static inline const struct xp_object **xp__object_seen(const struct xp_object *object)
{
	return &xp__objects_seen[(uint32_t)((uintptr_t)object / 8) * 2654435769u >> (32 - XP__SEEN_BITS)];
}

/*
 * xp__object_sound - whether the object that the record's reference leads to can be one: it can be written, and what it
 * points to is there. Memory that has the shape of an object by chance is taken for one. xp__object_look - the same, where it
 * is not the one asked about before. Context: text lock.
 */
bool xp__object_look(struct xp__known *known, const struct xp__kind *kind, struct xp_object *object);

static inline bool xp__object_sound(struct xp__known *known, const struct xp__kind *kind, const void *record)
{
	const int32_t *reference = (const int32_t *)(const void *)((const uint8_t *)record + kind->object_at);
	struct xp_object *object = xp__site_handle(reference);

	/* No call where records of many objects stand in turn. */
	return (object == known->object || (known->begun && *xp__object_seen(object) == object) ||
		xp__object_look(known, kind, object)) &&
	       (kind->sound == NULL || kind->sound(known, record));
}

/* xp__object_data_sound - whether [addr, addr + len) can be read and written. @page as for xp__text_readable(). */
bool xp__object_data_sound(uintptr_t *page, const void *addr, size_t len);

#endif
