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
};
/* xp__maps_find - 0, -XP_E_NOT_TEXT if nothing is mapped there, -errno if it cannot be told. Under the text lock. */
int xp__maps_find(uintptr_t addr, struct xp__mapping *mapping);
int xp__maps_open(void); /* 0 or -errno */

/* xp__maps_file - the path of the file that is mapped there. 0, -ENOENT if there is none or it is longer, -errno. */
int xp__maps_file(uintptr_t addr, char *path, size_t size);

#endif
