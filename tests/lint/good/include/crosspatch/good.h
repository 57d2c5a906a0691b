/* SPDX-License-Identifier: MIT */
#ifndef XP_GOOD_H
#define XP_GOOD_H
#include <stddef.h>
#ifdef __cplusplus
extern "C" {
#endif
size_t xp_good(void *to, const void *from);
#ifdef __cplusplus
}
#endif
#endif
