/* SPDX-License-Identifier: MIT */
/* How bytes get into program text: writer_procmem.c, writer_mprotect.c, writer_pkey.c. */
#ifndef XP_LINUX_WRITER_H
#define XP_LINUX_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
extern const struct xp__writer xp__writer_pkey;

/* ---- writer_mprotect.c ---- */
bool xp__windows_left(void);
/* xp__windows_close - closes what the mprotect writer had to leave open. 0 if nothing is open any more, else -errno. */
int xp__windows_close(void);

/* ---- writer_pkey.c. Context: text lock ---- */
/* xp__keyed_leave - gives every page its protection back. 0, or what the system says: the pages that are left have their key. */
int xp__keyed_leave(void);
/* xp__keyed_gone - a module is about to go: every known page gets its protection back. */
void xp__keyed_gone(void);
/* xp__keyed_is_ours - whether the page of @addr is this writer's: private text, readable for threads and handlers. */
bool xp__keyed_is_ours(uintptr_t addr);
/* xp__keyed_known - the port's text_known(). */
bool xp__keyed_known(const void *addr, size_t len);
/* xp__keyed_window, xp__keyed_close - the port's text_window() and text_close(). */
uintptr_t xp__keyed_window(const void *addr);
void xp__keyed_close(void);

#endif
