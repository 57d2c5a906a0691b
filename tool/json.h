/* SPDX-License-Identifier: MIT */
/* Values of JSON. */
#ifndef XP_TOOL_JSON_H
#define XP_TOOL_JSON_H

#include <stdio.h>

/* json_string - @text in quotes, in ASCII; null for NULL. Bytes that are no UTF-8 become U+FFFD. */
void json_string(FILE *out, const char *text);

/* json_number - @text as a number if it is a whole one of at most 20 digits, perhaps behind a minus, else as a string; null for NULL. */
void json_number(FILE *out, const char *text);

#endif
