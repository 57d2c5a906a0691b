/* SPDX-License-Identifier: MIT */
/* Syncs by the system call. */
#ifndef XP_LINUX_SYNC_MEMBARRIER_H
#define XP_LINUX_SYNC_MEMBARRIER_H

int xp__membarrier_start(void); /* registers; 0 if usable */
int xp__membarrier_sync(void);

#endif
