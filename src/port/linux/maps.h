/* SPDX-License-Identifier: MIT */
/* What is mapped. */
#ifndef XP_LINUX_MAPS_H
#define XP_LINUX_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xp__mapping {
	uintptr_t start, end;
	int prot;    /* PROT_ bits */
	bool shared; /* what is written there, others see */
	uint64_t file;  /* which: a number of device and inode; 0: none */
	uint64_t first; /* where the first byte of the file is, or would be; 0 without a file */
};
/* xp__maps_find - 0, -XP_E_NOT_TEXT if nothing is mapped there, -errno if it cannot be told. Under the text lock. */
int xp__maps_find(uintptr_t addr, struct xp__mapping *mapping);
int xp__maps_open(void); /* 0 or -errno */

/*
 * xp__maps_text - whether [addr, addr + len) is text, that can be read: 0, -XP_E_NOT_TEXT, -errno. Remembers what it found
 * (maps.c, M1 to M4). xp__maps_recall - the mapping of @addr, if it is remembered; else NULL. xp__maps_again - asks again about all
 * of which more than one answer was given, and forgets them: 0; -XP_E_NOT_TEXT, with the address in @where: it is not the same
 * text any more; -errno. xp__maps_forget - forgets. Context: text lock.
 */
int xp__maps_text(uintptr_t addr, size_t len);
const struct xp__mapping *xp__maps_recall(uintptr_t addr);
int xp__maps_again(uintptr_t *where);
void xp__maps_forget(void);

/* xp__maps_file - the path of the file that is mapped there. 0, -ENOENT if there is none or it is longer, -errno. */
int xp__maps_file(uintptr_t addr, char *path, size_t size);

#endif
