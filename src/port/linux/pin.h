/* SPDX-License-Identifier: MIT */
/* What is kept mapped. */
#ifndef XP_LINUX_PIN_H
#define XP_LINUX_PIN_H

void *xp__pin(const void *target, const void *user);
void xp__unpin(void *pin);
void xp__pin_self(void); /* Context: start */

#endif
