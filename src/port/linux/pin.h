/* SPDX-License-Identifier: MIT */
/* What is kept mapped. */
#ifndef XP_LINUX_PIN_H
#define XP_LINUX_PIN_H

void *xp__mapping_pin(const void *target, const void *user);
void xp__mapping_unpin(void *pin);
void xp__pin_self(void); /* Context: start */

#endif
