// SPDX-License-Identifier: MIT
/*
 * An object file: read and checked before anything is looked for in it, changed in memory, written at the end.
 */
#include "annotate/object.h"

#include "annotate/bits32.h"
#include "text.h"
#include "tool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
	GROWTH_MAX = 64 << 20, /* beyond twice the file */
};

/* ---- errors ---- */

int object_refuse(const struct object *o, const char *why)
{
	return text_say("annotate", TOOL_REFUSED, "%s: %s", o->path, why);
}

int object_failed(const char *path, const char *what)
{
	return text_say("annotate", TOOL_UNKNOWN, "%s: %s", path, what);
}

int object_libelf_failed(const struct object *o)
{
	return object_refuse(o, elf_errmsg(-1));
}

/* ---- memory ---- */

void *object_allocate(struct object *o, size_t size)
{
	void **more = realloc(o->buffers, (o->nr_buffers + 1) * sizeof(*more));
	void *buffer = more ? calloc(1, size ? size : 1) : NULL;

	if (more)
		o->buffers = more;
	if (buffer)
		o->buffers[o->nr_buffers++] = buffer;
	return buffer;
}

/* Makes room for @len bytes at @at in @data, which @from fills. */
int object_insert(struct object *o, Elf_Data *data, size_t at, const void *from, size_t len)
{
	uint8_t *buffer = object_allocate(o, data->d_size + len);

	if (!buffer)
		return object_failed(o->path, strerror(ENOMEM));
	if (at)
		memcpy(buffer, data->d_buf, at);
	memcpy(buffer + at, from, len);
	if (data->d_size > at)
		memcpy(buffer + at + len, (uint8_t *)data->d_buf + at, data->d_size - at);
	data->d_buf = buffer;
	data->d_size += len;
	elf_flagdata(data, ELF_C_SET, ELF_F_DIRTY);
	return 0;
}

int object_append(struct object *o, Elf_Data *data, const void *from, size_t len)
{
	return object_insert(o, data, data->d_size, from, len);
}

/* ---- what is in it ---- */

const char *object_section_name(const struct object *o, const Elf64_Shdr *header)
{
	const char *name = elf_strptr(o->elf, o->section_names, header->sh_name);

	return name ? name : "";
}

size_t object_nr_symbols(const struct object *o)
{
	return o->symbols->d_size / sizeof(Elf64_Sym);
}

Elf64_Sym *object_symbol(const struct object *o, size_t number)
{
	return &((Elf64_Sym *)o->symbols->d_buf)[number];
}

const char *object_symbol_name(const struct object *o, const Elf64_Sym *symbol)
{
	const char *names = o->symbol_names->d_buf;

	if (symbol->st_name >= o->symbol_names->d_size)
		return "";
	return names + symbol->st_name;
}

/* The strings in @section, each of them terminated; NULL: it is none of strings. */
Elf_Data *object_strings(const struct object *o, size_t section)
{
	Elf_Scn *scn = elf_getscn(o->elf, section);
	Elf64_Shdr *header = scn ? elf64_getshdr(scn) : NULL;
	Elf_Data *data = header && header->sh_type == SHT_STRTAB ? elf_getdata(scn, NULL) : NULL;

	if (!data || !data->d_buf || !data->d_size || ((char *)data->d_buf)[data->d_size - 1] != '\0')
		return NULL;
	return data;
}

/* The relocations in @section, if it holds those of one and their numbers of symbols are right. */
Elf64_Rela *object_relocations(const struct object *o, Elf_Scn *section, const Elf64_Shdr *header, size_t *nr)
{
	Elf_Data *data;

	*nr = 0;
	if (header->sh_type != SHT_RELA || !o->symtab || header->sh_link != elf_ndxscn(o->symtab))
		return NULL;
	data = elf_getdata(section, NULL);
	if (!data || !data->d_buf)
		return NULL;
	*nr = data->d_size / sizeof(Elf64_Rela);
	return data->d_buf;
}

Elf_Scn *object_new_section(struct object *o, const Elf64_Shdr *like, Elf_Type type, void *buffer, size_t size)
{
	Elf_Scn *section = elf_newscn(o->elf);
	Elf_Data *data = section ? elf_newdata(section) : NULL;
	Elf64_Shdr *header = data ? elf64_getshdr(section) : NULL;

	if (!header)
		return NULL;
	*header = *like;
	elf_flagshdr(section, ELF_C_SET, ELF_F_DIRTY);
	data->d_buf = buffer;
	data->d_size = size;
	data->d_type = type;
	data->d_align = like->sh_addralign;
	return section;
}

/* ---- the file ---- */

int object_open(struct object *o, int fd)
{
	Elf64_Ehdr *header;
	struct stat status;
	size_t nr;
	int error;

	o->elf = elf_begin(fd, ELF_C_RDWR, NULL);
	if (!o->elf)
		return object_libelf_failed(o);
	if (elf_kind(o->elf) == ELF_K_ELF && elf32_getehdr(o->elf)) {
		error = bits32_widen(o, fd);
		if (error)
			return error;
	}
	header = elf_kind(o->elf) == ELF_K_ELF ? elf64_getehdr(o->elf) : NULL;
	if (!header || header->e_machine != EM_X86_64 || header->e_type != ET_REL)
		return object_refuse(
			o,
			"is not an object file for x86-64 or i386; annotate what the compiler made, before it is linked");
	/* libelf takes a file that lost its end for one without sections. */
	if (fstat(fd, &status) != 0)
		return object_failed(o->path, strerror(errno));
	if (elf_getshdrnum(o->elf, &nr) != 0 || nr == 0 || (header->e_shnum && nr != header->e_shnum))
		return object_refuse(o, "has no table of its sections; is it complete?");
	if (elf_getshdrstrndx(o->elf, &o->section_names) != 0)
		return object_libelf_failed(o);
	if (!object_strings(o, o->section_names))
		return object_refuse(o, "does not say the names of its sections; is it damaged?");

	for (Elf_Scn *section = NULL; (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *s = elf64_getshdr(section);

		if (!s)
			return object_libelf_failed(o);
		if (s->sh_type != SHT_NOBITS &&
		    (s->sh_offset > (uint64_t)status.st_size || s->sh_size > (uint64_t)status.st_size - s->sh_offset))
			return object_refuse(o, "has a section that is not all in the file; is it complete?");
		if (s->sh_type == SHT_SYMTAB_SHNDX)
			return object_refuse(o, "has more sections than this command can number; compile it in parts");
		if (strncmp(object_section_name(o, s), ".gnu.lto_.symtab", 16) == 0)
			return object_refuse(
				o, "is compiled for link-time optimization: its calls are made when it is linked; use "
				   "the gcc plugin there");
		if (s->sh_type == SHT_SYMTAB && !o->symtab) {
			o->symtab = section;
			o->symbols = elf_getdata(section, NULL);
			o->symbol_names = object_strings(o, s->sh_link);
			if (!o->symbols || !o->symbols->d_buf || !o->symbol_names)
				return object_refuse(o, "has a symbol table that is malformed");
		}
	}
	return 0;
}

/* Sections are laid out anew, by their alignment, which the file says. */
int object_write(const struct object *o)
{
	Elf *elf = o->narrow ? o->narrow : o->elf;
	off_t size;
	int error;

	(void)elf_errno(); /* of before */
	size = elf_update(elf, ELF_C_NULL);
	error = size < 0 ? elf_errno() : 0;
	if (error)
		return object_refuse(o, elf_errmsg(error));
	if (size < 0 || size > 2 * o->size + GROWTH_MAX)
		return object_refuse(o, "would grow beyond measure by the alignment that it asks for; is it damaged?");
	return elf_update(elf, ELF_C_WRITE) < 0 ? object_failed(o->path, elf_errmsg(-1)) : 0;
}

void object_close(struct object *o)
{
	elf_end(o->elf);
	elf_end(o->narrow);
	for (size_t i = 0; i < o->nr_buffers; i++)
		free(o->buffers[i]);
	free(o->buffers);
	free(o->sites);
	free(o->present);
	free(o->entries);
	free(o->present_entries);
	free(o->names);
}
