/* SPDX-License-Identifier: MIT */
/* What the host and its plugin agree on: a key, a switch and a value of both, and the plugin's functions. */
#ifndef PLUGIN_H
#define PLUGIN_H

#include <crosspatch/crosspatch.h>

XP_DECLARE_STATIC_KEY_SHARED_FALSE(common);
XP_DECLARE_STATIC_SWITCH_SHARED(common_choice, 5);
XP_DECLARE_IMV_SHARED(int, common_value);

struct plugin {
	int (*look)(void); /* 1 if its own key is on, plus 2 if the common one is */
	int (*enable_own)(void);
	int (*disable_own)(void);
	int (*enable_common)(void);
	int (*disable_common)(void);
	int (*pick)(void); /* the common choice */
	int (*choose)(int choice);
	int (*read)(void); /* the common value */
	int (*set)(int value);
};

#endif
