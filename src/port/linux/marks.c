// SPDX-License-Identifier: MIT
/*
 * The marks stand in a page that the kernel empties in every child (MADV_WIPEONFORK, Linux 4.14), so that children made
 * without fork's handlers are noticed too.
 */
#include "port/linux/marks.h"

#include "port/linux/sys.h"

#include <sys/mman.h>

static uint32_t fallback_marks[XP__NR_MARKS];
uint32_t *xp__marks_fork = fallback_marks;

void xp__marks_start(void)
{
	long page = XP__SYS6(XP__SYS_MMAP, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!xp__is_error(page)) {
		xp__marks_fork = (uint32_t *)page; /* NOLINT: an address */
		/* Without it, children of fork() are still noticed, by fork_child() in fork.c. */
		XP__SYS3(SYS_madvise, page, 4096, MADV_WIPEONFORK);
	}
}
