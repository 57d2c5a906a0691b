/* SPDX-License-Identifier: MIT */
/* Strings of JSON. */
#ifndef XP_TOOL_JSON_H
#define XP_TOOL_JSON_H

#include <stdio.h>

/* json_string - @text in quotes; null for NULL. Bytes above 127 stay as they are. */
void json_string(FILE *out, const char *text);

#endif
