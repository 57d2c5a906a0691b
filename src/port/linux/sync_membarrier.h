/* SPDX-License-Identifier: MIT */
/* Syncs by the system call. */
#ifndef XP_LINUX_SYNC_MEMBARRIER_H
#define XP_LINUX_SYNC_MEMBARRIER_H

#include "port/linux/sys.h"

#include <linux/membarrier.h>

int xp__membarrier_start(void); /* registers; 0 if usable */

/* In line: behind the call no return is predicted, so that each frame around it costs some 10 ns (Zen 3, bench/toggle). */
static inline int xp__membarrier_sync(void)
{
	/* ordering: (S1) pairs with (P2): what was stored before is what each processor fetches after */
	return (int)XP__SYS3(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
}

#endif
