// SPDX-License-Identifier: MIT
/*
 * An object of 32-bit code is made a 64-bit one in memory, and when it is written what changed goes back into it.
 */
#include "annotate/bits32.h"

#include <errno.h>
#include <string.h>

_Static_assert((int)R_386_PC32 == (int)R_X86_64_PC32 && (int)R_386_PLT32 == (int)R_X86_64_PLT32,
	       "what is looked for has the same number");

static void *bits32_widen_symbols(struct object *o, const Elf_Data *data, size_t *size)
{
	const Elf32_Sym *from = data->d_buf;
	size_t nr = data->d_size / sizeof(*from);
	Elf64_Sym *to = object_allocate(o, nr * sizeof(*to));

	*size = nr * sizeof(*to);
	for (size_t i = 0; to && i < nr; i++)
		to[i] = (Elf64_Sym){from[i].st_name,  from[i].st_info,  from[i].st_other,
				    from[i].st_shndx, from[i].st_value, from[i].st_size};
	return to;
}

/* With the addends, which stand in what is relocated. */
static void *bits32_widen_relocations(struct object *o, const Elf32_Shdr *header, const Elf_Data *data, size_t *size)
{
	const Elf32_Rel *from = data->d_buf;
	size_t nr = data->d_size / sizeof(*from);
	Elf64_Rela *to = object_allocate(o, nr * sizeof(*to));
	Elf_Scn *scn = elf_getscn(o->narrow, header->sh_info);
	Elf_Data *of = scn ? elf_getdata(scn, NULL) : NULL;

	*size = nr * sizeof(*to);
	for (size_t i = 0; to && i < nr; i++) {
		int32_t addend = 0;

		if (of && of->d_buf && of->d_size >= sizeof(addend) && from[i].r_offset <= of->d_size - sizeof(addend))
			memcpy(&addend, (const uint8_t *)of->d_buf + from[i].r_offset, sizeof(addend));
		to[i].r_offset = from[i].r_offset;
		to[i].r_info = ELF64_R_INFO((uint64_t)ELF32_R_SYM(from[i].r_info), ELF32_R_TYPE(from[i].r_info));
		to[i].r_addend = addend;
	}
	return to;
}

static int bits32_widen_section(struct object *o, Elf_Scn *from)
{
	const Elf32_Shdr *header = elf32_getshdr(from);
	Elf_Data *data = header ? elf_getdata(from, NULL) : NULL;
	Elf64_Shdr wide;
	void *buffer;
	size_t size;

	if (!data || header->sh_type == SHT_RELA)
		return object_refuse(o, "has a section that is malformed");
	wide = (Elf64_Shdr){header->sh_name,      header->sh_type,   header->sh_flags, header->sh_addr,
			    header->sh_offset,    header->sh_size,   header->sh_link,  header->sh_info,
			    header->sh_addralign, header->sh_entsize};
	buffer = data->d_buf;
	size = data->d_size;
	if (header->sh_type == SHT_SYMTAB && buffer)
		buffer = bits32_widen_symbols(o, data, &size);
	if (header->sh_type == SHT_REL) {
		wide.sh_type = SHT_RELA;
		buffer = bits32_widen_relocations(o, header, data, &size);
	}
	if (!buffer && data->d_buf)
		return object_failed(o->path, strerror(ENOMEM));
	return object_new_section(o, &wide, ELF_T_BYTE, buffer, size) ? 0 : object_libelf_failed(o);
}

int bits32_widen(struct object *o, int fd)
{
	const Elf32_Ehdr *header = elf32_getehdr(o->elf);
	Elf64_Ehdr *wide;
	int error = 0;

	o->narrow = o->elf;
	/* Nothing is ever written to it. */
	o->elf = elf_begin(fd, ELF_C_WRITE, NULL);
	wide = o->elf ? elf64_newehdr(o->elf) : NULL;
	if (!wide)
		return object_libelf_failed(o);
	wide->e_machine = header->e_machine == EM_386 ? EM_X86_64 : EM_NONE;
	wide->e_type = header->e_type;
	wide->e_shnum = header->e_shnum;
	wide->e_shstrndx = header->e_shstrndx;
	for (Elf_Scn *section = NULL; !error && (section = elf_nextscn(o->narrow, section));)
		error = bits32_widen_section(o, section);
	return error;
}

/* Puts the addends of new records into them, and their relocations into the form of the file. */
static void *bits32_narrow_relocations(struct object *o, const Elf64_Shdr *header, const Elf_Data *data, bool is_new,
				       size_t *size)
{
	const Elf64_Rela *from = data->d_buf;
	size_t nr = data->d_size / sizeof(*from);
	Elf32_Rel *to = object_allocate(o, nr * sizeof(*to));
	uint8_t *records = is_new ? elf_getdata(elf_getscn(o->elf, header->sh_info), NULL)->d_buf : NULL;

	*size = nr * sizeof(*to);
	for (size_t i = 0; to && i < nr; i++) {
		int32_t addend = (int32_t)from[i].r_addend;

		if (records)
			memcpy(records + from[i].r_offset, &addend, sizeof(addend));
		to[i].r_offset = (Elf32_Addr)from[i].r_offset;
		to[i].r_info = ELF32_R_INFO(ELF64_R_SYM(from[i].r_info), ELF64_R_TYPE(from[i].r_info));
	}
	return to;
}

static void *bits32_narrow_symbols(struct object *o, const Elf_Data *data, size_t *size)
{
	const Elf64_Sym *from = data->d_buf;
	size_t nr = data->d_size / sizeof(*from);
	Elf32_Sym *to = object_allocate(o, nr * sizeof(*to));

	*size = nr * sizeof(*to);
	for (size_t i = 0; to && i < nr; i++)
		to[i] = (Elf32_Sym){from[i].st_name,
				    (Elf32_Addr)from[i].st_value,
				    (Elf32_Word)from[i].st_size,
				    from[i].st_info,
				    from[i].st_other,
				    from[i].st_shndx};
	return to;
}

static int bits32_narrow_section(struct object *o, Elf_Scn *from)
{
	const Elf64_Shdr *wide = elf64_getshdr(from);
	const Elf_Data *what = elf_getdata(from, NULL);
	Elf_Scn *to = elf_getscn(o->narrow, elf_ndxscn(from));
	bool is_new = to == NULL;
	Elf32_Shdr *header;
	Elf_Data *data;

	if (is_new)
		to = elf_newscn(o->narrow);
	data = !to ? NULL : is_new ? elf_newdata(to) : elf_getdata(to, NULL);
	header = to ? elf32_getshdr(to) : NULL;
	if (!data || !header)
		return object_libelf_failed(o);
	if (is_new) {
		*header = (Elf32_Shdr){.sh_name = wide->sh_name,
				       .sh_type = wide->sh_type,
				       .sh_flags = (Elf32_Word)wide->sh_flags,
				       .sh_addralign = (Elf32_Word)wide->sh_addralign,
				       .sh_entsize = (Elf32_Word)wide->sh_entsize};
		data->d_type = ELF_T_BYTE;
	}
	header->sh_link = wide->sh_link;
	header->sh_info = wide->sh_info;
	data->d_buf = what->d_buf;
	data->d_size = what->d_size;
	if (wide->sh_type == SHT_SYMTAB) {
		data->d_buf = bits32_narrow_symbols(o, what, &data->d_size);
	} else if (wide->sh_type == SHT_RELA) {
		header->sh_type = SHT_REL;
		header->sh_entsize = sizeof(Elf32_Rel);
		header->sh_addralign = sizeof(Elf32_Word);
		data->d_type = ELF_T_REL;
		data->d_buf = bits32_narrow_relocations(o, wide, what, is_new, &data->d_size);
	}
	data->d_align = header->sh_addralign;
	if (!data->d_buf && what->d_buf)
		return object_failed(o->path, strerror(ENOMEM));
	elf_flagshdr(to, ELF_C_SET, ELF_F_DIRTY);
	elf_flagdata(data, ELF_C_SET, ELF_F_DIRTY);
	return 0;
}

int bits32_narrow(struct object *o)
{
	int error = 0;

	for (Elf_Scn *section = NULL; !error && (section = elf_nextscn(o->elf, section));)
		error = bits32_narrow_section(o, section);
	return error;
}
