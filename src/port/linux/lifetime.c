// SPDX-License-Identifier: MIT
/*
 * When executables and shared objects come and go: which of them are there from the start of the program to its end, when
 * the end begins, and when all that belongs to the start have registered.
 *
 * I1  A destructor runs when its shared object is closed, and when the process ends. It forgets what the object registered
 *     in the first case only: at the end other threads run on, and destructors that come later still make changes.
 * I2  The executable and what was loaded with it never go: their destructors mean the end. The dynamic linker lists objects
 *     in the order in which it loaded them, and itself among those of the start: what comes before it is of the start. What
 *     comes behind it is taken for an object that may be closed.
 * I3  Objects that were loaded later are kept when exit() begins, each by one reference of the dynamic linker's, which is what
 *     it does itself a little later. From then on their destructors mean the end, too, even if another
 *     thread or a handler of atexit() closes them meanwhile. Our handler is registered when the first of them registers. By then the
 *     dynamic linker's is registered, that runs the destructors, and so ours runs before it.
 * I4  The library may itself be in an object that is closed. Then our handler is run between its destructors, which the
 *     flag tells: the destructor that sets it runs first.
 */
#include "port/linux/lifetime.h"

#include <crosspatch/port.h>

#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

/* ---- objects of the start ---- */

struct object {
	uintptr_t base; /* what its addresses are relative to */
	bool of_the_start;
};

struct search {
	uintptr_t addr, linker;
	bool first, started, behind_linker;
	struct object *found; /* base 0 and false, if nothing was */
};

static bool holds(const struct dl_phdr_info *info, uintptr_t addr)
{
	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_LOAD &&
		    addr - (info->dlpi_addr + info->dlpi_phdr[i].p_vaddr) < info->dlpi_phdr[i].p_memsz)
			return true;
	return false;
}

static int find_object(struct dl_phdr_info *info, size_t size, void *data)
{
	struct search *search = data;
	bool main = search->first && (info->dlpi_name == NULL || info->dlpi_name[0] == '\0');

	(void)size;
	/* In a namespace of dlmopen's nothing is of the start, and no executable is the first. */
	if (search->first)
		search->started = main;
	search->first = false;
	if (search->linker && info->dlpi_addr == search->linker)
		search->behind_linker = true;
	if (!holds(info, search->addr))
		return 0;
	search->found->base = info->dlpi_addr;
	search->found->of_the_start = main || (search->started && search->linker && !search->behind_linker);
	return 1;
}

static struct object object_at(const void *addr)
{
	struct object object = {0, false};
	struct search search = {(uintptr_t)addr, getauxval(AT_BASE), true, false, false, &object};

	(void)dl_iterate_phdr(find_object, &search);
	return object;
}

/* ---- what is to register ---- */

enum { AWAITED_MAX = 64 };
static uintptr_t awaited[AWAITED_MAX]; /* bases + 1: an executable's may be 0; 0: none, or come */

static uintptr_t address_in(const struct dl_phdr_info *info, uintptr_t value)
{
	return value < info->dlpi_addr ? info->dlpi_addr + value
				       : value; /* the dynamic linker may have added it or not */
}

/* How many of its first symbols may be those of others: all but the last are, in the hash table of today. */
static size_t nr_undefined(const uint32_t *gnu_hash, const uint32_t *hash)
{
	return gnu_hash ? gnu_hash[1] : hash ? hash[1] : 0;
}

static bool imports_registration(const struct dl_phdr_info *info)
{
	const uint32_t *gnu_hash = NULL, *hash = NULL;
	const ElfW(Dyn) *dynamic = NULL;
	const ElfW(Sym) *symbols = NULL;
	const char *names = NULL;

	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_DYNAMIC)
			dynamic = (const ElfW(Dyn) *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
		const void *at = (const void *)address_in(info, dynamic->d_un.d_ptr);

		if (dynamic->d_tag == DT_SYMTAB)
			symbols = at;
		else if (dynamic->d_tag == DT_STRTAB)
			names = at;
		else if (dynamic->d_tag == DT_GNU_HASH)
			gnu_hash = at;
		else if (dynamic->d_tag == DT_HASH)
			hash = at;
	}
	for (size_t i = 1; symbols && names && i < nr_undefined(gnu_hash, hash); i++)
		if (symbols[i].st_shndx == SHN_UNDEF && strcmp(names + symbols[i].st_name, "xp_module_register") == 0)
			return true;
	return false;
}

static int await_object(struct dl_phdr_info *info, size_t size, void *data)
{
	unsigned *nr = data;

	(void)size;
	/* What stands behind the dynamic linker may be of the start or not: its constructors may have run. */
	if (*nr == AWAITED_MAX || (getauxval(AT_BASE) && info->dlpi_addr == getauxval(AT_BASE)))
		return 1;
	if (imports_registration(info))
		awaited[(*nr)++] = info->dlpi_addr + 1;
	return 0;
}

bool xp__lifetime_all_arrived(void)
{
	for (unsigned i = 0; i < AWAITED_MAX; i++)
		if (__atomic_load_n(&awaited[i], __ATOMIC_RELAXED))
			return false;
	return true;
}

void xp__lifetime_start(void)
{
	unsigned nr = 0;

	if (object_at(awaited).of_the_start)
		(void)dl_iterate_phdr(await_object, &nr);
}

/* ---- the end ---- */

static bool unloading;

__attribute__((destructor)) static void unload(void)
{
	unloading = true;
}

#ifdef __GLIBC__
static void end(void)
{
	if (!unloading)
		xp_modules_keep();
}
#endif

bool xp__lifetime_lasts(const void *module, bool arrives)
{
	struct object object = object_at(module);

	for (unsigned i = 0; arrives && i < AWAITED_MAX; i++)
		if (awaited[i] == object.base + 1)
			__atomic_store_n(&awaited[i], 0, __ATOMIC_RELAXED);
#ifdef __GLIBC__
	static bool armed; /* of two threads at once both may arm: the handler does no harm twice */

	if (arrives && !object.of_the_start && !__atomic_exchange_n(&armed, true, __ATOMIC_RELAXED))
		__atomic_store_n(&armed, atexit(end) == 0, __ATOMIC_RELAXED);
	return object.of_the_start;
#else
	return true; /* musl unmaps nothing */
#endif
}
