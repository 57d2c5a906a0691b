// SPDX-License-Identifier: MIT
/*
 * Keeps shared objects mapped as long as a static call or a gate goes into them: one reference of the dynamic linker's for
 * each, so that a dlclose() by their owner leaves them where they are.
 *
 * I1  A call into the executable, into its own shared object or into memory that the dynamic linker does not know keeps
 *     nothing, and takes no lock: that much an update in a signal handler may do.
 * I2  The reference of an object's call to itself would keep it for ever: it gets none. Two that call each other keep each
 *     other. A gate belongs to no object; what provides it is kept until the gate is withdrawn.
 * I3  A shared object that the static library is part of stays for ever: threads, signal handlers and fork handlers lead
 *     into it. The shared library is linked so.
 */
#include "port/linux/pin.h"

#include "port/linux/probe.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <stddef.h>

/* A static executable has no dynamic linker, and must not pull in half of one. */
#pragma weak dlopen
#pragma weak dlclose

/* The object that @addr belongs to, or NULL. _dl_find_object() takes no lock, dladdr1() does. */
static struct link_map *object_of(const void *addr)
{
#ifdef DLFO_STRUCT_HAS_EH_DBASE /* glibc 2.35 */
	struct dl_find_object found;

	return _dl_find_object((void *)(uintptr_t)addr, &found) == 0 ? found.dlfo_link_map : NULL;
#elif defined(__GLIBC__)
	struct link_map *map = NULL;
	Dl_info info;

	return dladdr1(addr, &info, (void **)&map, RTLD_DL_LINKMAP) ? map : NULL;
#else
	/* musl unmaps no shared object: there is nothing to keep. */
	(void)addr;
	return NULL;
#endif
}

void *xp__mapping_pin(const void *target, const void *user)
{
	const struct link_map *map = dlopen ? object_of(target) : NULL;
	int *error = __errno_location(), saved = *error; /* not the library's to set, nor to let be set */
	void *pin;

	if (map == NULL || map->l_name[0] == '\0' || map == object_of(user))
		return NULL;
	/* NULL for an object of another namespace: its owner sees to it. */
	pin = dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD);
	*error = saved;
	return pin;
}

void xp__pin_self(void)
{
	const struct link_map *map = dlopen ? object_of(xp__probe_text) : NULL;
	int *error = __errno_location(), saved = *error;

	/* The reference that it takes is never given back. Of the executable nothing is to be kept. */
	if (map && map->l_name[0] != '\0')
		(void)dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
	*error = saved;
}

void xp__mapping_unpin(void *pin)
{
	int *error = __errno_location(), saved = *error;

	(void)dlclose(pin);
	*error = saved;
}
