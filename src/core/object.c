// SPDX-License-Identifier: MIT
/*
 * Whether what a record names can be an object.
 *
 * I1  Nothing is read or written here that may not be there: the port is asked first, once for each page.
 * I2  What is zero, or another variable, is no object: an object has a name, a string; its `file` is one too; its groups
 *     are those of registered modules. A kind adds what it knows of its own.
 * I3  Records of one object mostly stand in a row: the second costs one comparison. Of many objects in turn a table
 *     remembers most.
 */
#include "core/object.h"

#include "core/deps.h"
#include "core/state.h"

#define PAGE ((uintptr_t)4096)
#define STRING_MAX 65536

const struct xp_object *xp__objects_seen[1 << XP__SEEN_BITS];

bool xp__object_data_sound(uintptr_t *page, const void *addr, size_t len)
{
	const uintptr_t start = (uintptr_t)addr;

	if (start + len < start)
		return false;
	for (uintptr_t at = start & ~(PAGE - 1); at < start + len; at += PAGE) {
		if ((at == 0 || at != *page) && xp__port->data_check && xp__port->data_check((const void *)at))
			return false;
		*page = at;
	}
	return true;
}

static bool is_string(uintptr_t *page, const char *string)
{
	const char *const first = string;

	while (xp__text_readable(page, (uintptr_t)string, 1) && string - first < STRING_MAX) {
		const char *const next = (const char *)(((uintptr_t)string & ~(PAGE - 1)) + PAGE);

		while (string < next && *string)
			string++;
		if (string < next)
			return true;
	}
	return false;
}

static bool has_shape(struct xp__known *known, const struct xp__kind *kind, const struct xp_object *object)
{
	return (uintptr_t)object % 8 == 0 && xp__object_data_sound(&known->written, object, kind->object_size) &&
	       object->flags <= XP__OBJECT_FLAGS && (!known->idle || object->scratch == 0) &&
	       is_string(&known->text, object->name) &&
	       (object->file == NULL || is_string(&known->text, object->file)) &&
	       (object->groups == NULL || known->has(object->groups, object, kind));
}

/* Of a few objects the few places: a program that has but these touches no more of the table. */
#define TAKEN_MAX 64u
static uint16_t taken[TAKEN_MAX];
static uint32_t nr_taken; /* one more than there is room for: all are to be cleared */

static void forget_seen(void)
{
	if (nr_taken > TAKEN_MAX)
		memset(xp__objects_seen, 0, sizeof(xp__objects_seen));
	else
		for (uint32_t i = 0; i < nr_taken; i++)
			xp__objects_seen[taken[i]] = NULL;
	nr_taken = 0;
}

bool xp__object_look(struct xp__known *known, const struct xp__kind *kind, struct xp_object *object)
{
	const struct xp_object **place = xp__object_seen(object);

	if (!known->begun)
		forget_seen();
	known->begun = true;
	if (*place != object && (!has_shape(known, kind, object) ||
				 (object->real && (!has_shape(known, kind, object->real) || object->real->real))))
		return false;
	if (nr_taken < TAKEN_MAX)
		taken[nr_taken] = (uint16_t)(place - xp__objects_seen);
	nr_taken += nr_taken <= TAKEN_MAX;
	*place = known->object = object;
	return true;
}
