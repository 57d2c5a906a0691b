/* SPDX-License-Identifier: MIT */
/* How bytes get into program text: writer_procmem.c, writer_mprotect.c. */
#ifndef XP_LINUX_WRITER_H
#define XP_LINUX_WRITER_H

#include <stdbool.h>
#include <stddef.h>

struct xp__writer {
	const char *name;
	bool single; /* stores of up to 8 bytes inside an aligned quadword are one store */
	/* probe - 0 if it works here and now, else an error. */
	int (*probe)(void);
	/* ready - the same before each commit, as far as it costs nothing: what the write itself will show may wait. */
	bool (*ready)(void);
	int (*write)(void *addr, const void *bytes, size_t len, unsigned flags);
};
extern const struct xp__writer xp__writer_procmem;
extern const struct xp__writer xp__writer_mprotect;

/* ---- writer_mprotect.c ---- */
bool xp__windows_left(void);
/* xp__windows_close - closes what the mprotect writer had to leave open. 0 if nothing is open any more, else -errno. */
int xp__windows_close(void);

#endif
