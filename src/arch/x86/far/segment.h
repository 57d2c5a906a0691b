/* SPDX-License-Identifier: MIT */
/* Code segments other than the flat one: where their offset 0 is. */
#ifndef XP_ARCH_X86_FAR_SEGMENT_H
#define XP_ARCH_X86_FAR_SEGMENT_H

#include <stdbool.h>
#include <stdint.h>

/* xp__segment_add - false: no room. _remove - as if it had never been there. Context: text lock. Ordering: (E1). */
bool xp__segment_add(uint16_t selector, uint32_t base);
void xp__segment_remove(uint16_t selector);

/*
 * xp__segment_base - where code of @cs has its offset 0: 0 for all selectors that are not of the LDT. False: not known.
 * Context: any, handlers included. Ordering: (E2). Progress: wait-free.
 */
bool xp__segment_base(uint16_t cs, uintptr_t *base);

#endif
