/* SPDX-License-Identifier: MIT */
/* Strings and symbols of an object. Each returns as object.h says. */
#ifndef XP_ANNOTATE_SYMBOLS_H
#define XP_ANNOTATE_SYMBOLS_H

#include "annotate/object.h"

/* symbols_add_string - @text at the end of @strings; *@at: where. */
int symbols_add_string(struct object *o, Elf_Data *strings, const char *text, uint32_t *at);
/* symbols_local - a local symbol in @section; if there is none it is inserted, which renumbers others. */
int symbols_local(struct object *o, size_t section, uint32_t *number);
/* symbols_hide - makes it hidden, unless its visibility was said. */
void symbols_hide(struct object *o, Elf64_Sym *symbol);
/* symbols_call - the symbol of the static call @name. */
int symbols_call(struct object *o, const char *name, uint32_t *number);

#endif
