// SPDX-License-Identifier: MIT
/*
 * Strings and symbols that new records need. Symbols keep their places, except that one may be inserted for a section that
 * has no local one; then whatever counts symbols is renumbered.
 */
#include "annotate/symbols.h"

#include <errno.h>
#include <string.h>

static const char call_prefix[] = "xp_call_";

enum {
	ADDRSIG = 0x6fff4c03, /* SHT_LLVM_ADDRSIG: a list of symbols, which elf.h does not know */
};

int symbols_add_string(struct object *o, Elf_Data *strings, const char *text, uint32_t *at)
{
	*at = (uint32_t)strings->d_size;
	return object_append(o, strings, text, strlen(text) + 1);
}

/* Makes everything that counts symbols count one more from @from on. */
static void symbols_renumber(struct object *o, uint32_t from)
{
	size_t symtab = elf_ndxscn(o->symtab);

	for (Elf_Scn *section = NULL; (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *header = elf64_getshdr(section);
		size_t nr;
		Elf64_Rela *entries = object_relocations(o, section, header, &nr);

		for (size_t i = 0; i < nr; i++) {
			uint32_t number = ELF64_R_SYM(entries[i].r_info);

			entries[i].r_info =
				ELF64_R_INFO((uint64_t)number + (number >= from), ELF64_R_TYPE(entries[i].r_info));
		}
		if (nr)
			elf_flagdata(elf_getdata(section, NULL), ELF_C_SET, ELF_F_DIRTY);
		if (header->sh_type == SHT_GROUP && header->sh_link == symtab && header->sh_info >= from) {
			header->sh_info++;
			elf_flagshdr(section, ELF_C_SET, ELF_F_DIRTY);
		}
		/* Not worth decoding: without a symbol table it is void, and the linker does without. */
		if (header->sh_type == ADDRSIG && header->sh_link == symtab) {
			header->sh_link = 0;
			elf_flagshdr(section, ELF_C_SET, ELF_F_DIRTY);
		}
	}
	for (size_t i = 0; i < o->nr_sites; i++)
		o->sites[i].symbol += o->sites[i].symbol >= from;
}

/* A local symbol in @section: a global one could be another object's in the end. */
int symbols_local(struct object *o, size_t section, uint32_t *number)
{
	Elf64_Shdr *header = elf64_getshdr(o->symtab);
	Elf64_Sym symbol = {.st_info = ELF64_ST_INFO(STB_LOCAL, STT_SECTION), .st_shndx = (uint16_t)section};
	uint32_t nr_local = header->sh_info;

	for (uint32_t i = 1; i < nr_local && i < object_nr_symbols(o); i++)
		if (object_symbol(o, i)->st_shndx == section) {
			*number = i;
			return 0;
		}
	if (nr_local > object_nr_symbols(o))
		return object_refuse(o, "has a symbol table that is malformed");
	*number = nr_local;
	symbols_renumber(o, nr_local);
	header->sh_info++;
	elf_flagshdr(o->symtab, ELF_C_SET, ELF_F_DIRTY);
	return object_insert(o, o->symbols, nr_local * sizeof(symbol), &symbol, sizeof(symbol));
}

/* Hidden, wherever it is defined: it is in this executable or shared object, or the link fails and says so. */
void symbols_hide(struct object *o, Elf64_Sym *symbol)
{
	if (ELF64_ST_VISIBILITY(symbol->st_other) != STV_DEFAULT || ELF64_ST_BIND(symbol->st_info) == STB_LOCAL)
		return;
	symbol->st_other = (unsigned char)((symbol->st_other & ~3) | STV_HIDDEN);
	elf_flagdata(o->symbols, ELF_C_SET, ELF_F_DIRTY);
}

int symbols_call(struct object *o, const char *name, uint32_t *number)
{
	Elf64_Sym symbol = {.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE), .st_other = STV_HIDDEN};
	char *full;
	int error;

	for (uint32_t i = 1; i < object_nr_symbols(o); i++) {
		const char *is = object_symbol_name(o, object_symbol(o, i));

		if (strncmp(is, call_prefix, sizeof(call_prefix) - 1) == 0 &&
		    strcmp(is + sizeof(call_prefix) - 1, name) == 0) {
			symbols_hide(o, object_symbol(o, i));
			*number = i;
			return 0;
		}
	}
	full = object_allocate(o, sizeof(call_prefix) + strlen(name));
	if (!full)
		return object_failed(o->path, strerror(ENOMEM));
	strcpy(full, call_prefix);
	strcat(full, name);
	*number = (uint32_t)object_nr_symbols(o);
	error = symbols_add_string(o, o->symbol_names, full, &symbol.st_name);
	return error ? error : object_append(o, o->symbols, &symbol, sizeof(symbol));
}
