/* SPDX-License-Identifier: MIT */
/* Which modules last, and which are still to come. */
#ifndef XP_LINUX_LIFETIME_H
#define XP_LINUX_LIFETIME_H

#include <stdbool.h>

/* xp__lifetime_start - notes what is to register before the program begins. Context: the library's first constructor. */
void xp__lifetime_start(void);
/* xp__lifetime_lasts - the port's lasts(). xp__lifetime_all_arrived - whether all that is of the start of the program has registered. */
bool xp__lifetime_lasts(const void *module, bool arrives);
bool xp__lifetime_all_arrived(void);

#endif
