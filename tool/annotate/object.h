/* SPDX-License-Identifier: MIT */
/*
 * An object file of which `crosspatch annotate` makes another, and what is found in it. What returns an int returns 0 or an
 * exit status of the tool, and then has said why.
 */
#ifndef XP_ANNOTATE_OBJECT_H
#define XP_ANNOTATE_OBJECT_H

#include <gelf.h>
#include <libelf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* A function that is a trampoline though its name does not say so. */
struct named_call {
	const char *symbol, *name; /* not terminated: up to its length */
	size_t symbol_len;
};

struct site {
	size_t section; /* of the code */
	uint64_t offset;
	uint32_t symbol; /* of the trampoline */
	bool tail;
};

/* A function's entry, or the beginning of a part that was split off from it. */
struct entry {
	size_t section; /* of the code */
	uint64_t offset;
	uint32_t size; /* as in the record: with bytes before the entry, and flags */
	size_t name;   /* where it stands among the names */
};

/* A symbol that is a function, by its place. */
struct function {
	size_t section;
	uint64_t value, size;
	const char *name;
	bool has_entry;
};

struct counts {
	size_t recorded, present, left_out;
	size_t entries_recorded, entries_present, entries_left_out;
};

struct object {
	const char *path;
	off_t size;                     /* of the file */
	const struct named_call *calls; /* that --call named */
	unsigned nr_calls;
	Elf *elf;
	Elf *narrow;          /* the file, if it is a 32-bit one; elf is what was made of it */
	size_t section_names; /* the section of their strings */
	Elf_Scn *symtab;
	Elf_Data *symbols, *symbol_names;
	struct site *sites; /* to be recorded; those there already are in `present` */
	size_t nr_sites;
	struct site *present;
	size_t nr_present;
	struct function *functions; /* by section and value; of those at one place the symbol table's first is first */
	size_t nr_functions;
	struct entry *entries; /* to be recorded */
	size_t nr_entries;
	struct site *present_entries;
	size_t nr_present_entries;
	bool words_taken;
	char *names; /* of functions with entries, terminated, one behind the other */
	size_t names_len;
	void **buffers; /* what libelf was given */
	size_t nr_buffers;
	struct counts counts;
};

/* Why not: of the object, of a file, of libelf. Each returns the exit status. */
int object_refuse(const struct object *o, const char *why);
int object_failed(const char *path, const char *what);
int object_libelf_failed(const struct object *o);

/* object_open - the copy @fd of the file, checked. object_write - what was made of it, into that. object_close - always. */
int object_open(struct object *o, int fd);
int object_write(const struct object *o);
void object_close(struct object *o);

/* object_allocate - zeroed memory that lives as long as the object; NULL: there is none. */
void *object_allocate(struct object *o, size_t size);
/* object_insert - makes room for @len bytes at @at in @data, which @from fills. object_append - at its end. */
int object_insert(struct object *o, Elf_Data *data, size_t at, const void *from, size_t len);
int object_append(struct object *o, Elf_Data *data, const void *from, size_t len);

const char *object_section_name(const struct object *o, const Elf64_Shdr *header);
/* object_new_section - with a header @like that, and @size bytes of @buffer; NULL: libelf failed. */
Elf_Scn *object_new_section(struct object *o, const Elf64_Shdr *like, Elf_Type type, void *buffer, size_t size);
size_t object_nr_symbols(const struct object *o);
Elf64_Sym *object_symbol(const struct object *o, size_t number);
const char *object_symbol_name(const struct object *o, const Elf64_Sym *symbol);
/* object_strings - the strings in @section, each of them terminated; NULL: it is none of strings. */
Elf_Data *object_strings(const struct object *o, size_t section);
/* object_relocations - those in @section, if it holds those of one and their symbols are of the symbol table; else NULL. */
Elf64_Rela *object_relocations(const struct object *o, Elf_Scn *section, const Elf64_Shdr *header, size_t *nr);

#endif
