// SPDX-License-Identifier: MIT
/*
 * What shows an entry is the word that -fpatchable-function-entry leaves for it; symbols say which function it is and how
 * long, the bytes that it is one nop, or one-byte nops that may become one. An entry has one record: the word goes. That also
 * helps what gcc 12 makes of a file with functions in groups: all words in one section, linked to the first of them, which
 * goes when the linker keeps another file's group.
 */
#include "annotate/entries.h"

#include "annotate/sites.h"

#include <crosspatch/site_format.h>

#include <Zydis/Zydis.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char words_name[] = "__patchable_function_entries";

enum {
	ENTRY_LEN = 5,
	WORD_LEN = 8,
};

static int entries_compare_functions(const void *x, const void *y)
{
	const struct function *a = x, *b = y;

	if (a->section != b->section)
		return a->section < b->section ? -1 : 1;
	if (a->value != b->value)
		return a->value < b->value ? -1 : 1;
	return 0;
}

/* The order of equals is kept: a merge sort. */
static void entries_sort_functions(struct function *functions, struct function *spare, size_t nr)
{
	size_t half = nr / 2, left = 0, right = half, to = 0;

	if (nr < 2)
		return;
	entries_sort_functions(functions, spare, half);
	entries_sort_functions(functions + half, spare, nr - half);
	memcpy(spare, functions, nr * sizeof(*functions));
	while (left < half || right < nr)
		if (right == nr || (left < half && entries_compare_functions(&spare[left], &spare[right]) <= 0))
			functions[to++] = spare[left++];
		else
			functions[to++] = spare[right++];
}

static int entries_find_functions(struct object *o)
{
	size_t nr = object_nr_symbols(o);
	struct function *spare = object_allocate(o, nr * sizeof(*spare));

	o->functions = object_allocate(o, nr * sizeof(*o->functions));
	if (!spare || !o->functions)
		return object_failed(o->path, strerror(ENOMEM));
	for (size_t i = 0; i < nr; i++) {
		const Elf64_Sym *symbol = object_symbol(o, i);

		if (ELF64_ST_TYPE(symbol->st_info) == STT_FUNC && symbol->st_shndx != SHN_UNDEF &&
		    symbol->st_shndx < SHN_LORESERVE && *object_symbol_name(o, symbol))
			o->functions[o->nr_functions++] = (struct function){
				.section = symbol->st_shndx,
				.value = symbol->st_value,
				.size = symbol->st_size,
				.name = object_symbol_name(o, symbol),
			};
	}
	entries_sort_functions(o->functions, spare, o->nr_functions);
	return 0;
}

/* The function that begins at @value, or the last one before; NULL: none. */
static struct function *entries_function_before(const struct object *o, size_t section, uint64_t value)
{
	const struct function key = {.section = section, .value = value};
	size_t low = 0, high = o->nr_functions;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (entries_compare_functions(&o->functions[middle], &key) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || o->functions[--low].section != section)
		return NULL;
	while (low > 0 && entries_compare_functions(&o->functions[low - 1], &o->functions[low]) == 0)
		low--;
	return &o->functions[low];
}

static int entries_add(struct object *o, const struct function *function, uint64_t offset, unsigned flags)
{
	size_t len = strlen(function->name) + 1;
	struct entry *entries;
	char *names;

	/* As in sites_add(). */
	if ((o->nr_entries & (o->nr_entries - 1)) == 0) {
		entries = realloc(o->entries, (o->nr_entries ? 2 * o->nr_entries : 1) * sizeof(*entries));
		if (!entries)
			return object_failed(o->path, strerror(ENOMEM));
		o->entries = entries;
	}
	names = realloc(o->names, o->names_len + len);
	if (!names)
		return object_failed(o->path, strerror(ENOMEM));
	o->names = names;
	memcpy(o->names + o->names_len, function->name, len);
	o->entries[o->nr_entries++] = (struct entry){
		.section = function->section,
		.offset = offset,
		.size = (uint32_t)function->size << XP__ENTRY_LEN_SHIFT |
			(uint32_t)(offset - function->value) << XP__ENTRY_BEFORE_SHIFT | flags,
		.name = o->names_len,
	};
	o->names_len += len;
	return 0;
}

/* What the library can use: a nop of five bytes, or one-byte nops of which xp_function_prepare() makes one. */
static bool entries_is_nop(const uint8_t *code)
{
	ZydisDecoder decoder;
	ZydisDecodedInstruction insn;

	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	if (memcmp(code, "\x90\x90\x90\x90\x90", ENTRY_LEN) == 0)
		return true;
	return ZYAN_SUCCESS(ZydisDecoderDecodeInstruction(&decoder, NULL, code, ENTRY_LEN, &insn)) &&
	       insn.mnemonic == ZYDIS_MNEMONIC_NOP && insn.length == ENTRY_LEN;
}

/* The function whose entry lies there, at its beginning or behind its endbr64; NULL: of none. */
static struct function *entries_function_of(const struct object *o, const struct site *at)
{
	struct function *function = entries_function_before(o, at->section, at->offset);
	Elf_Scn *scn = elf_getscn(o->elf, at->section);
	Elf_Data *code = scn ? elf_getdata(scn, NULL) : NULL;
	const uint8_t *bytes = code ? code->d_buf : NULL;
	uint64_t before;

	if (!function || !bytes || at->offset > code->d_size || code->d_size - at->offset < ENTRY_LEN)
		return NULL;
	before = at->offset - function->value;
	if (before != 0 && (before != 4 || memcmp(bytes + function->value, "\xf3\x0f\x1e\xfa", 4) != 0))
		return NULL;
	if (function->size > XP__ENTRY_LEN_MAX || (function->size && function->size < before + ENTRY_LEN))
		return NULL;
	return entries_is_nop(bytes + at->offset) ? function : NULL;
}

/*
 * Takes the words out of the section @of whose relocations are no more among the first @nr_left of @entries. It was linked to
 * the code of its first word, which the linker may drop: now to that of the first that stays, or it goes itself.
 */
static int entries_take_words(struct object *o, Elf_Scn *of, Elf_Data *relocating, Elf64_Rela *entries, size_t nr_left)
{
	Elf64_Shdr *header = elf64_getshdr(of);
	Elf_Data *words = elf_getdata(of, NULL);
	uint8_t *left = object_allocate(o, nr_left * WORD_LEN);

	if (!left)
		return object_failed(o->path, strerror(ENOMEM));
	if (nr_left && header->sh_flags & SHF_LINK_ORDER)
		header->sh_link = object_symbol(o, ELF64_R_SYM(entries[0].r_info))->st_shndx;
	if (!nr_left) {
		header->sh_flags = (header->sh_flags & ~(uint64_t)SHF_LINK_ORDER) | SHF_EXCLUDE;
		header->sh_link = 0;
	}
	elf_flagshdr(of, ELF_C_SET, ELF_F_DIRTY);
	for (size_t i = 0; i < nr_left; i++)
		entries[i].r_offset = i * WORD_LEN;
	o->words_taken = true;
	words->d_buf = left;
	words->d_size = nr_left * WORD_LEN;
	relocating->d_size = nr_left * sizeof(*entries);
	elf_flagdata(words, ELF_C_SET, ELF_F_DIRTY);
	elf_flagdata(relocating, ELF_C_SET, ELF_F_DIRTY);
	return 0;
}

/* The entries that one section of words names. They are RELA: what the words themselves hold is of no account. */
static int entries_find_in(struct object *o, Elf_Scn *of, Elf_Scn *section, Elf64_Rela *entries, size_t nr)
{
	Elf_Data *words = elf_getdata(of, NULL);
	size_t nr_left = 0;
	int error;

	for (size_t i = 0; i < nr; i++)
		if (ELF64_R_TYPE(entries[i].r_info) != R_X86_64_64 || entries[i].r_offset % WORD_LEN != 0 ||
		    ELF64_R_SYM(entries[i].r_info) >= object_nr_symbols(o) || nr != words->d_size / WORD_LEN) {
			o->counts.entries_left_out += nr;
			return 0;
		}
	for (size_t i = 0; i < nr; i++) {
		const Elf64_Sym *symbol = object_symbol(o, ELF64_R_SYM(entries[i].r_info));
		struct site at = {
			.section = symbol->st_shndx,
			.offset = symbol->st_value + (uint64_t)entries[i].r_addend,
		};
		struct function *function;

		if (o->nr_present_entries &&
		    bsearch(&at, o->present_entries, o->nr_present_entries, sizeof(at), sites_compare))
			continue;
		function = entries_function_of(o, &at);
		if (!function || function->has_entry) {
			o->counts.entries_left_out++;
			entries[nr_left++] = entries[i];
			continue;
		}
		function->has_entry = true;
		error = entries_add(o, function, at.offset, 0);
		if (error)
			return error;
		o->counts.entries_recorded++;
	}
	return nr_left == nr ? 0 : entries_take_words(o, of, elf_getdata(section, NULL), entries, nr_left);
}

static int entries_compare_names(const void *x, const void *y)
{
	return strcmp((*(const struct function *const *)x)->name, (*(const struct function *const *)y)->name);
}

/* gcc's f.cold is the unlikely part of f: threads in there are in f. */
static int entries_find_parts(struct object *o)
{
	static const char suffix[] = ".cold";
	const struct function **by_name = object_allocate(o, o->nr_functions * sizeof(*by_name));
	size_t nr = 0;

	if (!by_name)
		return object_failed(o->path, strerror(ENOMEM));
	for (size_t i = 0; i < o->nr_functions; i++)
		if (o->functions[i].has_entry)
			by_name[nr++] = &o->functions[i];
	qsort(by_name, nr, sizeof(*by_name), entries_compare_names);
	for (size_t i = 0; i < o->nr_functions; i++) {
		struct function part = o->functions[i], *key = &part;
		size_t len = strlen(part.name);
		char *name;
		int error = 0;

		if (part.has_entry || len < sizeof(suffix) || strcmp(part.name + len - sizeof(suffix) + 1, suffix) != 0)
			continue;
		name = strdup(part.name);
		if (!name)
			return object_failed(o->path, strerror(ENOMEM));
		name[len - sizeof(suffix) + 1] = '\0';
		part.name = name;
		if (bsearch(&key, by_name, nr, sizeof(*by_name), entries_compare_names))
			error = entries_add(o, &part, part.value, XP_SITE_PART);
		free(name);
		if (error)
			return error;
	}
	return 0;
}

static int entries_compare(const void *x, const void *y)
{
	const struct entry *a = x, *b = y;

	if (a->section != b->section)
		return a->section < b->section ? -1 : 1;
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

int entries_find(struct object *o)
{
	int error;

	/* In 32-bit code the library knows no entries. */
	if (!o->symtab || o->narrow)
		return 0;
	error = sites_find_present(o, XP__ENTRY_SITES, sizeof(struct xp_entry_site), &o->present_entries,
				   &o->nr_present_entries);
	if (!error)
		error = entries_find_functions(o);
	/* Stubs and parts have records, but no nop. */
	for (size_t i = 0; !error && i < o->nr_present_entries; i++)
		o->counts.entries_present += entries_function_of(o, &o->present_entries[i]) != NULL;
	for (Elf_Scn *section = NULL; !error && (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *header = elf64_getshdr(section), *of;
		size_t nr;
		Elf64_Rela *entries = object_relocations(o, section, header, &nr);
		Elf_Scn *scn = nr ? elf_getscn(o->elf, header->sh_info) : NULL;

		of = scn && elf_getdata(scn, NULL) ? elf64_getshdr(scn) : NULL;
		if (of && strcmp(object_section_name(o, of), words_name) == 0)
			error = entries_find_in(o, scn, section, entries, nr);
	}
	if (!error && o->nr_entries)
		error = entries_find_parts(o);
	if (o->nr_entries)
		qsort(o->entries, o->nr_entries, sizeof(*o->entries), entries_compare);
	return error;
}
