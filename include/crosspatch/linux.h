/* SPDX-License-Identifier: MIT */
/* The Linux port's own settings: which writer and which sync. The defaults are right; these force one. */
#ifndef XP_LINUX_H
#define XP_LINUX_H

#ifdef __cplusplus
extern "C" {
#endif

/*
 * How bytes get into program text.
 *	procmem   pwrite to /proc/self/mem: works under MDWE and mseal, never makes a page writable; only a 1-byte write
 *	          is a single store, so the methods word and shortjmp are not offered
 *	mprotect  a window in which the page is readable, writable and executable: single stores of up to 8 bytes;
 *	          refused by MDWE, mseal, SELinux execmod
 * auto: procmem if it works, else mprotect.
 */
enum xp_writer { XP_WRITER_AUTO, XP_WRITER_PROCMEM, XP_WRITER_MPROTECT };

/*
 * How the other processors are made to see it.
 *	membarrier  MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, Linux 5.10 or later
 *	signal      a real-time signal to every thread, whose handler executes a serializing instruction
 * auto: membarrier if it works, else signal.
 */
enum xp_sync { XP_SYNC_AUTO, XP_SYNC_MEMBARRIER, XP_SYNC_SIGNAL };

/*
 * xp_set_writer / xp_set_sync - for all later commits. The environment variables CROSSPATCH_WRITER (auto, procmem,
 * mprotect) and CROSSPATCH_SYNC (auto, membarrier, signal) set them at start; ignored in set-uid programs.
 * Context: thread; waits for a commit in progress. Ordering: none. Errors: -EINVAL; -XP_E_NO_WRITER, -XP_E_NO_SYNC if
 * the one named does not work here: the setting stays as it was; -XP_E_REENTRANT. Progress: waits for the text lock.
 */
int xp_set_writer(enum xp_writer writer);
int xp_set_sync(enum xp_sync sync);

#ifdef __cplusplus
}
#endif

#endif
