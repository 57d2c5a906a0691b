/* SPDX-License-Identifier: MIT */
/* Which modules last, and which are still to come. */
#ifndef XP_LINUX_LIFETIME_H
#define XP_LINUX_LIFETIME_H

#include <stdbool.h>

/* xp__lifetime_start - notes what is to register before the program begins. Context: the library's first constructor. */
void xp__lifetime_start(void);
/* xp__lasts - the port's lasts(). xp__all_arrived - whether all that is of the start of the program has registered. */
bool xp__lasts(const void *module, bool arrives);
bool xp__all_arrived(void);

#endif
