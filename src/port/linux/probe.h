/* SPDX-License-Identifier: MIT */
/* Text of our own. */
#ifndef XP_LINUX_PROBE_H
#define XP_LINUX_PROBE_H

#include <stdint.h>

/* xp__probe_text - text of our own, to try a writer on: its first byte, as it is. No other text begins with all its bytes. */
#define XP__PROBE_LEN 16
extern const uint8_t xp__probe_text[] __attribute__((visibility("hidden")));

#endif
