// SPDX-License-Identifier: MIT
/*
 * Records are added in the form that the assembler gives those of the plugin: a section xp_call_sites for each section of
 * code, linked to it and in its group, with its relocations; and so for entries.
 */
#include "annotate/records.h"

#include "annotate/bits32.h"
#include "annotate/sites.h"
#include "annotate/symbols.h"

#include <crosspatch/site_format.h>

#include <errno.h>
#include <string.h>

static const char relocations_name[] = ".rela" XP__CALL_SITES, narrow_relocations_name[] = ".rel" XP__CALL_SITES;
static const char entry_relocations_name[] = ".rela" XP__ENTRY_SITES, names_name[] = "xp_entry_names";
static const char text_relocations_name[] = ".rela.text";

enum {
	RECORD_ALIGN = 4,
};

/* ---- sections ---- */

/* The new sections join the group of @section, if it is in one. */
static int records_join_group(struct object *o, size_t section, const uint32_t *members, size_t nr)
{
	for (Elf_Scn *group = NULL; (group = elf_nextscn(o->elf, group));) {
		Elf_Data *data = elf64_getshdr(group)->sh_type == SHT_GROUP ? elf_getdata(group, NULL) : NULL;
		const uint32_t *words = data ? data->d_buf : NULL;

		/* The first word holds flags. */
		for (size_t i = 1; data && i < data->d_size / sizeof(*words); i++)
			if (words[i] == section)
				return object_append(o, data, members, nr * sizeof(*members));
	}
	return 0;
}

/* @nr records of @len bytes for the section @code, with @per relocations each. */
static int records_add_section(struct object *o, size_t code, const uint32_t *names, void *records, size_t nr,
			       size_t len, Elf64_Rela *entries, size_t per)
{
	const Elf64_Shdr *of = elf64_getshdr(elf_getscn(o->elf, code));
	uint64_t group = of->sh_flags & SHF_GROUP;
	Elf64_Shdr header = {.sh_name = names[0],
			     .sh_type = SHT_PROGBITS,
			     .sh_flags = SHF_ALLOC | SHF_LINK_ORDER | group,
			     .sh_link = (uint32_t)code,
			     .sh_addralign = RECORD_ALIGN};
	Elf_Scn *section, *relocating;
	uint32_t members[2];

	section = object_new_section(o, &header, ELF_T_BYTE, records, nr * len);
	if (!section)
		return object_libelf_failed(o);
	header = (Elf64_Shdr){.sh_name = names[1],
			      .sh_type = SHT_RELA,
			      .sh_flags = SHF_INFO_LINK | group,
			      .sh_link = (uint32_t)elf_ndxscn(o->symtab),
			      .sh_info = (uint32_t)elf_ndxscn(section),
			      .sh_addralign = 8,
			      .sh_entsize = sizeof(*entries)};
	relocating = object_new_section(o, &header, ELF_T_RELA, entries, per * nr * sizeof(*entries));
	if (!relocating)
		return object_libelf_failed(o);
	members[0] = (uint32_t)elf_ndxscn(section);
	members[1] = (uint32_t)elf_ndxscn(relocating);
	if (members[1] >= SHN_LORESERVE - 1)
		return object_refuse(o, "has more sections than this command can number; compile it in parts");
	return group ? records_join_group(o, code, members, 2) : 0;
}

/* Adds @nr relocations of the section @code to those that it has. */
static int records_add_references(struct object *o, size_t code, Elf64_Rela *entries, size_t nr, uint32_t name)
{
	const Elf64_Shdr *of = elf64_getshdr(elf_getscn(o->elf, code));
	Elf64_Shdr header = {.sh_name = name,
			     .sh_type = SHT_RELA,
			     .sh_flags = SHF_INFO_LINK | (of->sh_flags & SHF_GROUP),
			     .sh_link = (uint32_t)elf_ndxscn(o->symtab),
			     .sh_info = (uint32_t)code,
			     .sh_addralign = 8,
			     .sh_entsize = sizeof(*entries)};
	Elf_Scn *section = NULL;
	uint32_t member;

	while ((section = elf_nextscn(o->elf, section))) {
		const Elf64_Shdr *relocating = elf64_getshdr(section);
		size_t present;

		if (relocating->sh_info == code && object_relocations(o, section, relocating, &present))
			return object_append(o, elf_getdata(section, NULL), entries, nr * sizeof(*entries));
	}
	section = object_new_section(o, &header, ELF_T_RELA, entries, nr * sizeof(*entries));
	if (!section)
		return object_libelf_failed(o);
	member = (uint32_t)elf_ndxscn(section);
	if (member >= SHN_LORESERVE)
		return object_refuse(o, "has more sections than this command can number; compile it in parts");
	return header.sh_flags & SHF_GROUP ? records_join_group(o, code, &member, 1) : 0;
}

/* ---- records ---- */

static Elf64_Rela records_relocation(uint64_t at, uint32_t symbol, uint32_t type, int64_t addend)
{
	return (Elf64_Rela){
		.r_offset = at,
		.r_info = ELF64_R_INFO((uint64_t)symbol, type),
		.r_addend = addend,
	};
}

/* The records of @nr sites in one section of code. */
static int records_of_sites(struct object *o, const struct site *sites, size_t nr, const uint32_t *calls,
			    const uint32_t *names)
{
	Elf64_Rela *entries = object_allocate(o, 2 * nr * sizeof(*entries));
	void *records = object_allocate(o, nr * sizeof(struct xp_call_site));
	uint32_t local;
	int error = symbols_local(o, sites->section, &local);

	if (error)
		return error;
	if (!entries || !records)
		return object_failed(o->path, strerror(ENOMEM));
	for (size_t i = 0; i < nr; i++) {
		entries[2 * i] = records_relocation(i * sizeof(struct xp_call_site), local, R_X86_64_PC32,
						    (int64_t)(sites[i].offset - object_symbol(o, local)->st_value));
		entries[2 * i + 1] =
			records_relocation(i * sizeof(struct xp_call_site) + offsetof(struct xp_call_site, call),
					   calls[i], R_X86_64_PC32, sites[i].tail ? XP_SITE_TAIL : 0);
	}
	return records_add_section(o, sites->section, names, records, nr, sizeof(struct xp_call_site), entries, 2);
}

/*
 * The records of @nr entries in one section of code; @strings is a symbol at the beginning of the section of names. The code
 * refers to the names, by relocations that change nothing: a linker that folds identical functions compares them, and
 * functions that are traced one by one stay apart.
 */
static int records_of_entries(struct object *o, const struct entry *of, size_t nr, uint32_t strings,
			      const uint32_t *names)
{
	Elf64_Rela *entries = object_allocate(o, 2 * nr * sizeof(*entries));
	Elf64_Rela *references = object_allocate(o, nr * sizeof(*references));
	uint8_t *records = object_allocate(o, nr * sizeof(struct xp_entry_site));
	uint32_t local;
	int error = symbols_local(o, of->section, &local);

	if (error)
		return error;
	if (!entries || !references || !records)
		return object_failed(o->path, strerror(ENOMEM));
	for (size_t i = 0; i < nr; i++) {
		size_t at = i * sizeof(struct xp_entry_site);

		entries[2 * i] = records_relocation(at, local, R_X86_64_PC32,
						    (int64_t)(of[i].offset - object_symbol(o, local)->st_value));
		entries[2 * i + 1] = records_relocation(at + offsetof(struct xp_entry_site, name), strings,
							R_X86_64_PC32, (int64_t)of[i].name);
		references[i] = records_relocation(of[i].offset, strings, R_X86_64_NONE, (int64_t)of[i].name);
		memcpy(records + at + offsetof(struct xp_entry_site, size), &of[i].size, sizeof(of[i].size));
	}
	error = records_add_references(o, of->section, references, nr, names[2]);
	return error ? error
		     : records_add_section(o, of->section, names, records, nr, sizeof(struct xp_entry_site), entries,
					   2);
}

static int records_add_names(struct object *o, Elf_Data *strings, uint32_t *symbol)
{
	Elf64_Shdr header = {.sh_type = SHT_PROGBITS,
			     .sh_flags = SHF_ALLOC | SHF_MERGE | SHF_STRINGS,
			     .sh_addralign = 1,
			     .sh_entsize = 1};
	int error = symbols_add_string(o, strings, names_name, &header.sh_name);
	Elf_Scn *section = error ? NULL : object_new_section(o, &header, ELF_T_BYTE, o->names, o->names_len);

	if (error)
		return error;
	if (!section)
		return object_libelf_failed(o);
	if (elf_ndxscn(section) >= SHN_LORESERVE)
		return object_refuse(o, "has more sections than this command can number; compile it in parts");
	return symbols_local(o, elf_ndxscn(section), symbol);
}

static int records_add_entries(struct object *o, Elf_Data *strings, uint32_t symbol)
{
	uint32_t names[3];
	int error = symbols_add_string(o, strings, XP__ENTRY_SITES, &names[0]);

	if (!error)
		error = symbols_add_string(o, strings, entry_relocations_name, &names[1]);
	if (!error)
		error = symbols_add_string(o, strings, text_relocations_name, &names[2]);
	for (size_t i = 0, end; i < o->nr_entries && !error; i = end) {
		for (end = i + 1; end < o->nr_entries && o->entries[end].section == o->entries[i].section;)
			end++;
		error = records_of_entries(o, o->entries + i, end - i, symbol, names);
	}
	return error;
}

static int records_add_sites(struct object *o, Elf_Data *strings)
{
	uint32_t *calls = object_allocate(o, o->nr_sites * sizeof(*calls)), names[2];
	int error = 0;

	if (!calls)
		return object_failed(o->path, strerror(ENOMEM));
	error = symbols_add_string(o, strings, XP__CALL_SITES, &names[0]);
	if (!error)
		error = symbols_add_string(o, strings, o->narrow ? narrow_relocations_name : relocations_name,
					   &names[1]);
	for (size_t i = 0; i < o->nr_sites && !error; i++) {
		const char *name = sites_call_name(o, o->sites[i].symbol);

		symbols_hide(o, object_symbol(o, o->sites[i].symbol));
		error = symbols_call(o, name, &calls[i]);
	}
	for (size_t i = 0, end; i < o->nr_sites && !error; i = end) {
		for (end = i + 1; end < o->nr_sites && o->sites[end].section == o->sites[i].section;)
			end++;
		error = records_of_sites(o, o->sites + i, end - i, calls + i, names);
	}
	return error;
}

int records_add(struct object *o)
{
	Elf_Data *strings = object_strings(o, o->section_names);
	uint32_t local, symbol = 0;
	int error = 0;

	if (!strings)
		return object_libelf_failed(o);
	/* First what may renumber symbols, then what has their numbers. */
	for (size_t i = 0; i < o->nr_sites && !error; i++)
		if (i == 0 || o->sites[i].section != o->sites[i - 1].section)
			error = symbols_local(o, o->sites[i].section, &local);
	for (size_t i = 0; i < o->nr_entries && !error; i++)
		if (i == 0 || o->entries[i].section != o->entries[i - 1].section)
			error = symbols_local(o, o->entries[i].section, &local);
	if (!error && o->nr_entries)
		error = records_add_names(o, strings, &symbol);
	if (!error && o->nr_sites)
		error = records_add_sites(o, strings);
	if (!error && o->nr_entries)
		error = records_add_entries(o, strings, symbol);
	if (!error && o->narrow)
		error = bits32_narrow(o);
	return error ? error : object_write(o);
}
