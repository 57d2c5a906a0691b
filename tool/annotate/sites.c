// SPDX-License-Identifier: MIT
/*
 * What shows a call site is its relocation: the compiler leaves the displacement of a call of a trampoline to the linker.
 * The bytes say the rest: E8 or E9 before the displacement, at the beginning of an instruction.
 */
#include "annotate/sites.h"

#include <crosspatch/site_format.h>

#include <Zydis/Zydis.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char trampoline_prefix[] = "xp_trampoline_";

enum {
	SITE_LEN = 5,
};

static int sites_add(struct object *o, struct site **sites, size_t *nr, const struct site *site)
{
	/* Doubled whenever it is full, which is when the number is a power of two. */
	if ((*nr & (*nr - 1)) == 0) {
		struct site *more = realloc(*sites, (*nr ? 2 * *nr : 1) * sizeof(**sites));

		if (!more)
			return object_failed(o->path, strerror(ENOMEM));
		*sites = more;
	}
	(*sites)[(*nr)++] = *site;
	return 0;
}

int sites_compare(const void *x, const void *y)
{
	const struct site *a = x, *b = y;

	if (a->section != b->section)
		return a->section < b->section ? -1 : 1;
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* The sites that have a record in a section @name, of @len bytes: the first field of each says where. */
int sites_find_present(struct object *o, const char *name, size_t len, struct site **present, size_t *nr_present)
{
	for (Elf_Scn *section = NULL; (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *header = elf64_getshdr(section), *of;
		size_t nr;
		Elf64_Rela *entries = object_relocations(o, section, header, &nr);
		Elf_Scn *records = nr ? elf_getscn(o->elf, header->sh_info) : NULL;

		of = records ? elf64_getshdr(records) : NULL;
		if (!of || strcmp(object_section_name(o, of), name) != 0)
			continue;
		for (size_t i = 0; i < nr; i++) {
			uint32_t number = ELF64_R_SYM(entries[i].r_info);
			struct site site = {0};
			int error;

			if (entries[i].r_offset % len != 0 || number >= object_nr_symbols(o))
				continue;
			site.section = object_symbol(o, number)->st_shndx;
			site.offset = object_symbol(o, number)->st_value + (uint64_t)entries[i].r_addend;
			error = sites_add(o, present, nr_present, &site);
			if (error)
				return error;
		}
	}
	if (*nr_present)
		qsort(*present, *nr_present, sizeof(**present), sites_compare);
	return 0;
}

/* ---- which calls ---- */

/* The name of the static call whose trampoline @number is; NULL: of none. A trampoline is hidden. */
const char *sites_call_name(const struct object *o, uint32_t number)
{
	const char *symbol = object_symbol_name(o, object_symbol(o, number));

	for (unsigned i = 0; i < o->nr_calls; i++) {
		const struct named_call *call = &o->calls[i];

		if (strlen(symbol) == call->symbol_len && memcmp(symbol, call->symbol, call->symbol_len) == 0)
			return call->name;
	}
	if (strncmp(symbol, trampoline_prefix, sizeof(trampoline_prefix) - 1) != 0 ||
	    ELF64_ST_VISIBILITY(object_symbol(o, number)->st_other) == STV_DEFAULT)
		return NULL;
	return symbol + sizeof(trampoline_prefix) - 1;
}

/* Where instructions begin, and which bytes are inside of one: a bit each per byte of a section. */
enum {
	BEGINS = 1,
	INSIDE = 2,
};

/* Decodes from @from on, until @end or something that is no instruction. */
static void sites_sweep(const ZydisDecoder *decoder, const uint8_t *code, size_t from, size_t end, uint8_t *marks)
{
	while (from < end) {
		ZydisDecodedInstruction insn;

		if (!ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(decoder, NULL, code + from, end - from, &insn)))
			return;
		marks[from] |= BEGINS;
		for (size_t i = 1; i < insn.length; i++)
			marks[from + i] |= INSIDE;
		from += insn.length;
	}
}

/* Functions, each from its beginning to its end, or to the next if it does not say its size. */
static uint8_t *sites_mark(const struct object *o, size_t section, const Elf_Data *code)
{
	uint8_t *marks = calloc(1, code->d_size + 1);
	ZydisDecoder decoder;

	if (!marks)
		return NULL;
	if (o->narrow)
		ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	else
		ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (size_t i = 0; i < object_nr_symbols(o); i++) {
		const Elf64_Sym *symbol = object_symbol(o, i);
		size_t end = code->d_size;

		if (symbol->st_shndx != section || ELF64_ST_TYPE(symbol->st_info) != STT_FUNC ||
		    symbol->st_value >= code->d_size)
			continue;
		if (symbol->st_size && symbol->st_size < end - symbol->st_value)
			end = symbol->st_value + symbol->st_size;
		if (!symbol->st_size)
			for (size_t j = 0; j < object_nr_symbols(o); j++) {
				const Elf64_Sym *next = object_symbol(o, j);

				if (next->st_shndx == section && next->st_value > symbol->st_value &&
				    next->st_value < end)
					end = next->st_value;
			}
		sites_sweep(&decoder, code->d_buf, symbol->st_value, end, marks);
	}
	return marks;
}

/* The sites among the relocations of one section of code. */
static int sites_find_in(struct object *o, size_t section, const Elf64_Rela *entries, size_t nr)
{
	Elf_Scn *scn = elf_getscn(o->elf, section);
	Elf_Data *code = scn ? elf_getdata(scn, NULL) : NULL;
	const uint8_t *bytes = code ? code->d_buf : NULL;
	uint8_t *marks = NULL;
	int error = 0;

	for (size_t i = 0; i < nr && bytes && !error; i++) {
		struct site site = {.section = section, .offset = entries[i].r_offset - 1};
		uint32_t type = ELF64_R_TYPE(entries[i].r_info);
		uint8_t opcode;

		site.symbol = ELF64_R_SYM(entries[i].r_info);
		if ((type != R_X86_64_PLT32 && type != R_X86_64_PC32) || entries[i].r_addend != -4 ||
		    entries[i].r_offset == 0 || code->d_size < SITE_LEN || site.offset > code->d_size - SITE_LEN ||
		    site.symbol >= object_nr_symbols(o) || !sites_call_name(o, site.symbol))
			continue;
		if (o->nr_present && bsearch(&site, o->present, o->nr_present, sizeof(site), sites_compare)) {
			o->counts.present++;
			continue;
		}
		opcode = bytes[site.offset];
		if (opcode != 0xe8 && opcode != 0xe9) {
			/* A conditional jump is a call that stays on the trampoline; any other use of the address is none. */
			if (site.offset && bytes[site.offset - 1] == 0x0f && (opcode & 0xf0) == 0x80)
				o->counts.left_out++;
			continue;
		}
		if (!marks)
			marks = sites_mark(o, section, code);
		if (!marks)
			return object_failed(o->path, strerror(ENOMEM));
		/* Of the 5 bytes the first begins an instruction, and no other does. */
		if (marks[site.offset] != BEGINS || marks[site.offset + SITE_LEN - 1] != INSIDE) {
			o->counts.left_out++;
			continue;
		}
		site.tail = opcode == 0xe9;
		error = sites_add(o, &o->sites, &o->nr_sites, &site);
	}
	free(marks);
	return error;
}

int sites_find(struct object *o)
{
	int error = o->symtab ? sites_find_present(o, XP__CALL_SITES, sizeof(struct xp_call_site), &o->present,
						   &o->nr_present)
			      : 0;

	for (Elf_Scn *section = NULL; !error && (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *header = elf64_getshdr(section), *of;
		size_t nr;
		Elf64_Rela *entries = object_relocations(o, section, header, &nr);
		Elf_Scn *code = nr ? elf_getscn(o->elf, header->sh_info) : NULL;

		of = code ? elf64_getshdr(code) : NULL;
		if (of && of->sh_type == SHT_PROGBITS && of->sh_flags & SHF_EXECINSTR &&
		    !(of->sh_flags & SHF_COMPRESSED))
			error = sites_find_in(o, elf_ndxscn(code), entries, nr);
	}
	if (o->nr_sites)
		qsort(o->sites, o->nr_sites, sizeof(*o->sites), sites_compare);
	o->counts.recorded = o->nr_sites;
	return error;
}
