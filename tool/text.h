/* SPDX-License-Identifier: MIT */
/*
 * Text for people. What others wrote (a process, the name of a file, the bytes of an object) may hold what a terminal obeys:
 * all of it is printed through text_put() or text_say().
 */
#ifndef XP_TOOL_TEXT_H
#define XP_TOOL_TEXT_H

#include <stddef.h>
#include <stdio.h>

/*
 * text_put - prints @text on one line: what does not merely show stands as \xHH, byte by byte; so do all bytes above 127
 * where the locale is not UTF-8. Returns the number of characters.
 */
size_t text_put(FILE *out, const char *text);

/* text_columns - how many characters text_put() prints. */
size_t text_columns(const char *text);

/*
 * text_say - a sentence on standard error, behind "crosspatch @command: ", cut off after 4095 bytes. Returns @status.
 */
int text_say(const char *command, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));

#endif
