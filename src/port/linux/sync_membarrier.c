// SPDX-License-Identifier: MIT
/*
 * sync_core by membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE): an interrupt to every processor that runs a thread
 * of this memory, whose return executes a core-serializing instruction; a thread that does not run gets it from its
 * context switch. Linux 5.10 is asked for: before it, the calling processor itself was left out.
 */
#include "port/linux/sync_membarrier.h"

#include "port/linux/sys.h"

#include <crosspatch/error.h>

#include <errno.h>
#include <linux/membarrier.h>
#include <sys/utsname.h>

static bool at_least_5_10(void)
{
	struct utsname name;
	unsigned version[2] = {0, 0};
	const char *at = name.release;

	if (XP__SYS1(SYS_uname, &name))
		return false;
	for (int i = 0; i < 2; i++) {
		while (*at >= '0' && *at <= '9')
			version[i] = version[i] * 10 + (unsigned)(*at++ - '0');
		if (*at == '.')
			at++;
	}
	return version[0] > 5 || (version[0] == 5 && version[1] >= 10);
}

int xp__membarrier_start(void)
{
	long can;

	if (!at_least_5_10())
		return -XP_E_NO_SYNC;
	can = XP__SYS3(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
	if (can > 0 && can & MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE)
		can = XP__SYS3(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE, 0, 0);
	else
		can = -ENOSYS;
	if (can == 0)
		can = xp__membarrier_sync();
	return can == 0 ? 0 : -XP_E_NO_SYNC;
}
