// SPDX-License-Identifier: MIT

#include "port/linux/memory.h"

#include "port/linux/sys.h"

#include <sys/mman.h>

/* Small blocks come from the system too: they are few, and malloc may be what a signal handler interrupted. */
static size_t round_up(size_t size)
{
	return (size + 4095) & ~(size_t)4095;
}

void *xp__memory_alloc(size_t size)
{
	long memory =
		XP__SYS6(XP__SYS_MMAP, 0, round_up(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (xp__is_error(memory))
		return NULL;
	if (size >= 2u << 20)
		XP__SYS3(SYS_madvise, memory, round_up(size), MADV_HUGEPAGE); /* one fault instead of 512 */
	return (void *)memory;
}

void xp__memory_release(void *memory, size_t size)
{
	XP__SYS2(SYS_munmap, memory, round_up(size));
}
