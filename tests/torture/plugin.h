/* SPDX-License-Identifier: MIT */
/* Between processes.c and plugin.c. */
#ifndef XP_TORTURE_PLUGIN_H
#define XP_TORTURE_PLUGIN_H

#include <crosspatch/static_key.h>

XP_DECLARE_STATIC_KEY_SHARED_FALSE(steady_key); /* switched between loads, by the thread that loads */
XP_DECLARE_STATIC_KEY_SHARED_FALSE(busy_key);   /* switched all the time */

bool plugin_steady(void);
bool plugin_busy(void);
unsigned plugin_toggle(void); /* its own key; the number of wrong results */

#endif
