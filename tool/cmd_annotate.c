// SPDX-License-Identifier: MIT
/*
 * crosspatch annotate: adds to an object file the records of its call sites, as the compiler plugin would have done.
 *
 * What shows a site is its relocation: the compiler leaves the displacement of a call of a trampoline to the linker.
 * The bytes say the rest: E8 or E9 before the displacement, at the beginning of an instruction. Records are added in the
 * form that the assembler gives those of the plugin: a section xp_call_sites for each section of code, linked to it and
 * in its group, with its relocations.
 *
 * I1  No byte of code changes. Symbols keep their places, except that one may be inserted for a section that has no local
 *     one; then whatever counts symbols is renumbered.
 * I2  The file is replaced by a complete new one, or not at all.
 */
#include "tool.h"

#include <Zydis/Zydis.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <getopt.h>
#include <libelf.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
	"Usage: crosspatch annotate [--call SYMBOL[=NAME]]… [--json] FILE…\n"
	"       crosspatch annotate [--call SYMBOL[=NAME]]… [--json] --output OUT FILE\n"
	"\n"
	"Adds the records of the call sites in object files, for compilers without the plugin.\n"
	"\n"
	"  FILE                  an object file, not linked yet; it is replaced\n"
	"  --output OUT          write to OUT, and leave FILE as it is\n"
	"  --call SYMBOL[=NAME]  calls of SYMBOL are calls of the static call NAME, by default SYMBOL\n"
	"  --json                the form of the answer\n"
	"\n"
	"Exit status: 0 done, 1 a file cannot be annotated, 2 wrong arguments, 3 the system failed; the file is as it was.\n";

static const char records_name[] = "xp_call_sites", relocations_name[] = ".relaxp_call_sites";
static const char trampoline_prefix[] = "xp_trampoline_", call_prefix[] = "xp_call_";

enum {
	SITE_LEN = 5,
	RECORD_LEN = 8, /* struct xp_call_site */
	RECORD_ALIGN = 4,
	SITE_TAIL = 1,
	MAX_CALLS = 256,
	ADDRSIG = 0x6fff4c03, /* SHT_LLVM_ADDRSIG: a list of symbols, which elf.h does not know */
};

/* A function that is a trampoline though its name does not say so. */
struct named_call {
	const char *symbol, *name; /* not terminated: up to its length */
	size_t symbol_len;
};

struct arguments {
	bool json, help;
	const char *output;
	struct named_call calls[MAX_CALLS];
	unsigned nr_calls;
	char **files;
	int nr_files;
};

struct site {
	size_t section; /* of the code */
	uint64_t offset;
	uint32_t symbol; /* of the trampoline */
	bool tail;
};

struct counts {
	size_t recorded, present, left_out;
};

struct object {
	const char *path;
	const struct arguments *arguments;
	Elf *elf;
	size_t section_names; /* the section of their strings */
	Elf_Scn *symtab;
	Elf_Data *symbols, *symbol_names;
	struct site *sites; /* to be recorded; those there already are in `present` */
	size_t nr_sites;
	struct site *present;
	size_t nr_present;
	void **buffers; /* what libelf was given */
	size_t nr_buffers;
	struct counts counts;
};

/* ---- errors: 0 or an exit status ---- */

static int refuse(const struct object *o, const char *why)
{
	fprintf(stderr, "crosspatch annotate: %s: %s\n", o->path, why);
	return TOOL_REFUSED;
}

static int failed(const char *path, const char *what)
{
	fprintf(stderr, "crosspatch annotate: %s: %s\n", path, what);
	return TOOL_UNKNOWN;
}

static int libelf_failed(const struct object *o)
{
	return refuse(o, elf_errmsg(-1));
}

/* ---- memory that lives as long as the object ---- */

static void *allocate(struct object *o, size_t size)
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
static int insert(struct object *o, Elf_Data *data, size_t at, const void *from, size_t len)
{
	uint8_t *buffer = allocate(o, data->d_size + len);

	if (!buffer)
		return failed(o->path, strerror(ENOMEM));
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

static int append(struct object *o, Elf_Data *data, const void *from, size_t len)
{
	return insert(o, data, data->d_size, from, len);
}

/* ---- reading ---- */

static const char *section_name(const struct object *o, const Elf64_Shdr *header)
{
	const char *name = elf_strptr(o->elf, o->section_names, header->sh_name);

	return name ? name : "";
}

static size_t nr_symbols(const struct object *o)
{
	return o->symbols->d_size / sizeof(Elf64_Sym);
}

static Elf64_Sym *symbol_at(const struct object *o, size_t number)
{
	return &((Elf64_Sym *)o->symbols->d_buf)[number];
}

static const char *symbol_name(const struct object *o, const Elf64_Sym *symbol)
{
	const char *names = o->symbol_names->d_buf;

	if (symbol->st_name >= o->symbol_names->d_size)
		return "";
	return names + symbol->st_name;
}

/* The strings in @section, each of them terminated; NULL: it is none of strings. */
static Elf_Data *strings_in(const struct object *o, size_t section)
{
	Elf_Scn *scn = elf_getscn(o->elf, section);
	Elf64_Shdr *header = scn ? elf64_getshdr(scn) : NULL;
	Elf_Data *data = header && header->sh_type == SHT_STRTAB ? elf_getdata(scn, NULL) : NULL;

	if (!data || !data->d_buf || !data->d_size || ((char *)data->d_buf)[data->d_size - 1] != '\0')
		return NULL;
	return data;
}

static int open_object(struct object *o, int fd)
{
	Elf64_Ehdr *header;
	struct stat status;
	size_t nr;

	o->elf = elf_begin(fd, ELF_C_RDWR, NULL);
	if (!o->elf)
		return libelf_failed(o);
	header = elf_kind(o->elf) == ELF_K_ELF ? elf64_getehdr(o->elf) : NULL;
	if (!header || header->e_machine != EM_X86_64 || header->e_type != ET_REL)
		return refuse(o,
			      "is not an object file for x86-64; annotate what the compiler made, before it is linked");
	/* libelf takes a file that lost its end for one without sections. */
	if (fstat(fd, &status) != 0)
		return failed(o->path, strerror(errno));
	if (elf_getshdrnum(o->elf, &nr) != 0 || nr == 0 || (header->e_shnum && nr != header->e_shnum))
		return refuse(o, "has no table of its sections; is it complete?");
	if (elf_getshdrstrndx(o->elf, &o->section_names) != 0)
		return libelf_failed(o);
	if (!strings_in(o, o->section_names))
		return refuse(o, "does not say the names of its sections; is it damaged?");

	for (Elf_Scn *section = NULL; (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *s = elf64_getshdr(section);

		if (!s)
			return libelf_failed(o);
		if (s->sh_type != SHT_NOBITS &&
		    (s->sh_offset > (uint64_t)status.st_size || s->sh_size > (uint64_t)status.st_size - s->sh_offset))
			return refuse(o, "has a section that is not all in the file; is it complete?");
		if (s->sh_type == SHT_SYMTAB_SHNDX)
			return refuse(o, "has more sections than this command can number; compile it in parts");
		if (strncmp(section_name(o, s), ".gnu.lto_.symtab", 16) == 0)
			return refuse(
				o, "is compiled for link-time optimization: its calls are made when it is linked; use "
				   "the gcc plugin there");
		if (s->sh_type == SHT_SYMTAB && !o->symtab) {
			o->symtab = section;
			o->symbols = elf_getdata(section, NULL);
			o->symbol_names = strings_in(o, s->sh_link);
			if (!o->symbols || !o->symbols->d_buf || !o->symbol_names)
				return refuse(o, "has a symbol table that is malformed");
		}
	}
	return 0;
}

/* The relocations in @section, if it holds those of one and their numbers of symbols are right. */
static Elf64_Rela *relocations(const struct object *o, Elf_Scn *section, const Elf64_Shdr *header, size_t *nr)
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

static int add_site(struct object *o, struct site **sites, size_t *nr, const struct site *site)
{
	/* Doubled whenever it is full, which is when the number is a power of two. */
	if ((*nr & (*nr - 1)) == 0) {
		struct site *more = realloc(*sites, (*nr ? 2 * *nr : 1) * sizeof(**sites));

		if (!more)
			return failed(o->path, strerror(ENOMEM));
		*sites = more;
	}
	(*sites)[(*nr)++] = *site;
	return 0;
}

static int compare_sites(const void *x, const void *y)
{
	const struct site *a = x, *b = y;

	if (a->section != b->section)
		return a->section < b->section ? -1 : 1;
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* The sites that have a record: the first field of each says where. */
static int find_present(struct object *o)
{
	for (Elf_Scn *section = NULL; (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *header = elf64_getshdr(section), *of;
		size_t nr;
		Elf64_Rela *entries = relocations(o, section, header, &nr);
		Elf_Scn *records = nr ? elf_getscn(o->elf, header->sh_info) : NULL;

		of = records ? elf64_getshdr(records) : NULL;
		if (!of || strcmp(section_name(o, of), records_name) != 0)
			continue;
		for (size_t i = 0; i < nr; i++) {
			uint32_t number = ELF64_R_SYM(entries[i].r_info);
			struct site site = {0};
			int error;

			if (entries[i].r_offset % RECORD_LEN != 0 || number >= nr_symbols(o))
				continue;
			site.section = symbol_at(o, number)->st_shndx;
			site.offset = symbol_at(o, number)->st_value + (uint64_t)entries[i].r_addend;
			error = add_site(o, &o->present, &o->nr_present, &site);
			if (error)
				return error;
		}
	}
	if (o->nr_present)
		qsort(o->present, o->nr_present, sizeof(*o->present), compare_sites);
	return 0;
}

/* ---- which calls ---- */

/* The name of the static call whose trampoline @number is; NULL: of none. A trampoline is hidden. */
static const char *call_name(const struct object *o, uint32_t number)
{
	const char *symbol = symbol_name(o, symbol_at(o, number));

	for (unsigned i = 0; i < o->arguments->nr_calls; i++) {
		const struct named_call *call = &o->arguments->calls[i];

		if (strlen(symbol) == call->symbol_len && memcmp(symbol, call->symbol, call->symbol_len) == 0)
			return call->name;
	}
	if (strncmp(symbol, trampoline_prefix, sizeof(trampoline_prefix) - 1) != 0 ||
	    ELF64_ST_VISIBILITY(symbol_at(o, number)->st_other) == STV_DEFAULT)
		return NULL;
	return symbol + sizeof(trampoline_prefix) - 1;
}

/* Where instructions begin, and which bytes are inside of one: a bit each per byte of a section. */
enum {
	BEGINS = 1,
	INSIDE = 2,
};

/* Decodes from @from on, until @end or something that is no instruction. */
static void sweep(const ZydisDecoder *decoder, const uint8_t *code, size_t from, size_t end, uint8_t *marks)
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
static uint8_t *mark_instructions(const struct object *o, size_t section, const Elf_Data *code)
{
	uint8_t *marks = calloc(1, code->d_size + 1);
	ZydisDecoder decoder;

	if (!marks)
		return NULL;
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	for (size_t i = 0; i < nr_symbols(o); i++) {
		const Elf64_Sym *symbol = symbol_at(o, i);
		size_t end = code->d_size;

		if (symbol->st_shndx != section || ELF64_ST_TYPE(symbol->st_info) != STT_FUNC ||
		    symbol->st_value >= code->d_size)
			continue;
		if (symbol->st_size && symbol->st_size < end - symbol->st_value)
			end = symbol->st_value + symbol->st_size;
		if (!symbol->st_size)
			for (size_t j = 0; j < nr_symbols(o); j++) {
				const Elf64_Sym *next = symbol_at(o, j);

				if (next->st_shndx == section && next->st_value > symbol->st_value &&
				    next->st_value < end)
					end = next->st_value;
			}
		sweep(&decoder, code->d_buf, symbol->st_value, end, marks);
	}
	return marks;
}

/* The sites among the relocations of one section of code. */
static int find_in(struct object *o, size_t section, const Elf64_Rela *entries, size_t nr)
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
		    site.symbol >= nr_symbols(o) || !call_name(o, site.symbol))
			continue;
		if (o->nr_present && bsearch(&site, o->present, o->nr_present, sizeof(site), compare_sites)) {
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
			marks = mark_instructions(o, section, code);
		if (!marks)
			return failed(o->path, strerror(ENOMEM));
		/* Of the 5 bytes the first begins an instruction, and no other does. */
		if (marks[site.offset] != BEGINS || marks[site.offset + SITE_LEN - 1] != INSIDE) {
			o->counts.left_out++;
			continue;
		}
		site.tail = opcode == 0xe9;
		error = add_site(o, &o->sites, &o->nr_sites, &site);
	}
	free(marks);
	return error;
}

static int find_sites(struct object *o)
{
	int error = o->symtab ? find_present(o) : 0;

	for (Elf_Scn *section = NULL; !error && (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *header = elf64_getshdr(section), *of;
		size_t nr;
		Elf64_Rela *entries = relocations(o, section, header, &nr);
		Elf_Scn *code = nr ? elf_getscn(o->elf, header->sh_info) : NULL;

		of = code ? elf64_getshdr(code) : NULL;
		if (of && of->sh_type == SHT_PROGBITS && of->sh_flags & SHF_EXECINSTR &&
		    !(of->sh_flags & SHF_COMPRESSED))
			error = find_in(o, elf_ndxscn(code), entries, nr);
	}
	if (o->nr_sites)
		qsort(o->sites, o->nr_sites, sizeof(*o->sites), compare_sites);
	o->counts.recorded = o->nr_sites;
	return error;
}

/* ---- symbols ---- */

static int add_string(struct object *o, Elf_Data *strings, const char *text, uint32_t *at)
{
	*at = (uint32_t)strings->d_size;
	return append(o, strings, text, strlen(text) + 1);
}

/* Makes everything that counts symbols count one more from @from on. */
static void renumber(struct object *o, uint32_t from)
{
	size_t symtab = elf_ndxscn(o->symtab);

	for (Elf_Scn *section = NULL; (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *header = elf64_getshdr(section);
		size_t nr;
		Elf64_Rela *entries = relocations(o, section, header, &nr);

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
static int local_symbol(struct object *o, size_t section, uint32_t *number)
{
	Elf64_Shdr *header = elf64_getshdr(o->symtab);
	Elf64_Sym symbol = {.st_info = ELF64_ST_INFO(STB_LOCAL, STT_SECTION), .st_shndx = (uint16_t)section};
	uint32_t nr_local = header->sh_info;

	for (uint32_t i = 1; i < nr_local && i < nr_symbols(o); i++)
		if (symbol_at(o, i)->st_shndx == section) {
			*number = i;
			return 0;
		}
	if (nr_local > nr_symbols(o))
		return refuse(o, "has a symbol table that is malformed");
	*number = nr_local;
	renumber(o, nr_local);
	header->sh_info++;
	elf_flagshdr(o->symtab, ELF_C_SET, ELF_F_DIRTY);
	return insert(o, o->symbols, nr_local * sizeof(symbol), &symbol, sizeof(symbol));
}

/* Hidden, whoever defines it: it is in this executable or shared object, or the link fails and says so. */
static void hide(struct object *o, Elf64_Sym *symbol)
{
	if (ELF64_ST_VISIBILITY(symbol->st_other) != STV_DEFAULT || ELF64_ST_BIND(symbol->st_info) == STB_LOCAL)
		return;
	symbol->st_other = (unsigned char)((symbol->st_other & ~3) | STV_HIDDEN);
	elf_flagdata(o->symbols, ELF_C_SET, ELF_F_DIRTY);
}

static int call_symbol(struct object *o, const char *name, uint32_t *number)
{
	Elf64_Sym symbol = {.st_info = ELF64_ST_INFO(STB_GLOBAL, STT_NOTYPE), .st_other = STV_HIDDEN};
	char *full;
	int error;

	for (uint32_t i = 1; i < nr_symbols(o); i++) {
		const char *is = symbol_name(o, symbol_at(o, i));

		if (strncmp(is, call_prefix, sizeof(call_prefix) - 1) == 0 &&
		    strcmp(is + sizeof(call_prefix) - 1, name) == 0) {
			hide(o, symbol_at(o, i));
			*number = i;
			return 0;
		}
	}
	full = allocate(o, sizeof(call_prefix) + strlen(name));
	if (!full)
		return failed(o->path, strerror(ENOMEM));
	strcpy(full, call_prefix);
	strcat(full, name);
	*number = (uint32_t)nr_symbols(o);
	error = add_string(o, o->symbol_names, full, &symbol.st_name);
	return error ? error : append(o, o->symbols, &symbol, sizeof(symbol));
}

/* ---- sections ---- */

static Elf_Scn *new_section(struct object *o, const Elf64_Shdr *like, Elf_Type type, void *buffer, size_t size)
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

/* The new sections join the group of @section, if it is in one. */
static int join_group(struct object *o, size_t section, const uint32_t *members, size_t nr)
{
	for (Elf_Scn *group = NULL; (group = elf_nextscn(o->elf, group));) {
		Elf_Data *data = elf64_getshdr(group)->sh_type == SHT_GROUP ? elf_getdata(group, NULL) : NULL;
		const uint32_t *words = data ? data->d_buf : NULL;

		/* The first word holds flags. */
		for (size_t i = 1; data && i < data->d_size / sizeof(*words); i++)
			if (words[i] == section)
				return append(o, data, members, nr * sizeof(*members));
	}
	return 0;
}

/* The records of @nr sites in one section of code. */
static int add_records(struct object *o, const struct site *sites, size_t nr, const uint32_t *calls,
		       const uint32_t *names)
{
	size_t code = sites->section;
	const Elf64_Shdr *of = elf64_getshdr(elf_getscn(o->elf, code));
	uint64_t group = of->sh_flags & SHF_GROUP;
	Elf64_Shdr header = {.sh_name = names[0],
			     .sh_type = SHT_PROGBITS,
			     .sh_flags = SHF_ALLOC | SHF_LINK_ORDER | group,
			     .sh_link = (uint32_t)code,
			     .sh_addralign = RECORD_ALIGN};
	Elf64_Rela *entries = allocate(o, 2 * nr * sizeof(*entries));
	void *records = allocate(o, nr * RECORD_LEN);
	Elf_Scn *section, *relocating;
	uint32_t local, members[2];
	int error = local_symbol(o, code, &local);

	if (error)
		return error;
	if (!entries || !records)
		return failed(o->path, strerror(ENOMEM));
	for (size_t i = 0; i < nr; i++) {
		entries[2 * i] = (Elf64_Rela){
			.r_offset = i * RECORD_LEN,
			.r_info = ELF64_R_INFO((uint64_t)local, R_X86_64_PC32),
			.r_addend = (int64_t)(sites[i].offset - symbol_at(o, local)->st_value),
		};
		entries[2 * i + 1] = (Elf64_Rela){
			.r_offset = i * RECORD_LEN + 4,
			.r_info = ELF64_R_INFO((uint64_t)calls[i], R_X86_64_PC32),
			.r_addend = sites[i].tail ? SITE_TAIL : 0,
		};
	}
	section = new_section(o, &header, ELF_T_BYTE, records, nr * RECORD_LEN);
	if (!section)
		return libelf_failed(o);
	header = (Elf64_Shdr){.sh_name = names[1],
			      .sh_type = SHT_RELA,
			      .sh_flags = SHF_INFO_LINK | group,
			      .sh_link = (uint32_t)elf_ndxscn(o->symtab),
			      .sh_info = (uint32_t)elf_ndxscn(section),
			      .sh_addralign = 8,
			      .sh_entsize = sizeof(*entries)};
	relocating = new_section(o, &header, ELF_T_RELA, entries, 2 * nr * sizeof(*entries));
	if (!relocating)
		return libelf_failed(o);
	members[0] = (uint32_t)elf_ndxscn(section);
	members[1] = (uint32_t)elf_ndxscn(relocating);
	if (members[1] >= SHN_LORESERVE - 1)
		return refuse(o, "has more sections than this command can number; compile it in parts");
	return group ? join_group(o, code, members, 2) : 0;
}

static int add_all_records(struct object *o)
{
	uint32_t *calls = allocate(o, o->nr_sites * sizeof(*calls)), names[2], local;
	Elf_Data *strings = strings_in(o, o->section_names);
	int error = 0;

	if (!calls)
		return failed(o->path, strerror(ENOMEM));
	if (!strings)
		return libelf_failed(o);
	error = add_string(o, strings, records_name, &names[0]);
	if (!error)
		error = add_string(o, strings, relocations_name, &names[1]);
	/* First what may renumber symbols, then what has their numbers. */
	for (size_t i = 0; i < o->nr_sites && !error; i++)
		if (i == 0 || o->sites[i].section != o->sites[i - 1].section)
			error = local_symbol(o, o->sites[i].section, &local);
	for (size_t i = 0; i < o->nr_sites && !error; i++) {
		const char *name = call_name(o, o->sites[i].symbol);

		hide(o, symbol_at(o, o->sites[i].symbol));
		error = call_symbol(o, name, &calls[i]);
	}
	for (size_t i = 0, end; i < o->nr_sites && !error; i = end) {
		for (end = i + 1; end < o->nr_sites && o->sites[end].section == o->sites[i].section;)
			end++;
		error = add_records(o, o->sites + i, end - i, calls + i, names);
	}
	if (!error && elf_update(o->elf, ELF_C_WRITE) < 0)
		error = failed(o->path, elf_errmsg(-1));
	return error;
}

/* ---- files ---- */

static int copy(int from, int to)
{
	char block[65536];
	ssize_t got;

	while ((got = read(from, block, sizeof(block))) > 0)
		for (ssize_t at = 0, put; at < got; at += put) {
			put = write(to, block + at, (size_t)(got - at));
			if (put < 0)
				return -1;
		}
	return got < 0 ? -1 : 0;
}

static void close_object(struct object *o)
{
	elf_end(o->elf);
	for (size_t i = 0; i < o->nr_buffers; i++)
		free(o->buffers[i]);
	free(o->buffers);
	free(o->sites);
	free(o->present);
}

/* Works on a copy beside the result, which takes its place when it is complete. */
static int annotate_copy(struct object *o, int from, const char *to, char *beside)
{
	struct stat status;
	int fd = mkostemp(beside, O_CLOEXEC), error;

	if (fd < 0)
		return failed(beside, strerror(errno));
	if (fstat(from, &status) != 0 || copy(from, fd) != 0 || fchmod(fd, status.st_mode & 07777) != 0) {
		error = failed(to, strerror(errno));
	} else {
		error = open_object(o, fd);
		if (!error)
			error = find_sites(o);
		if (!error && o->nr_sites)
			error = add_all_records(o);
		close_object(o);
	}
	if (close(fd) != 0 && !error)
		error = failed(to, strerror(errno));
	/* An object that gains nothing stays the file that it is. */
	if (!error && (o->counts.recorded || to != o->path) && rename(beside, to) == 0)
		return 0;
	if (!error && (o->counts.recorded || to != o->path))
		error = failed(to, strerror(errno));
	unlink(beside);
	return error;
}

static int annotate(const struct arguments *a, const char *path, struct counts *counts)
{
	struct object o = {.path = path, .arguments = a};
	const char *to = a->output ? a->output : path;
	int fd = open(path, O_RDONLY | O_CLOEXEC), error;
	char *beside;

	if (fd < 0) {
		fprintf(stderr, "crosspatch annotate: %s: %s\n", path, strerror(errno));
		return TOOL_USAGE;
	}
	error = asprintf(&beside, "%s.XXXXXX", to) < 0 ? failed(path, strerror(ENOMEM)) : 0;
	if (!error) {
		error = annotate_copy(&o, fd, to, beside);
		free(beside);
	}
	close(fd);
	*counts = o.counts;
	return error;
}

/* ---- arguments ---- */

static const struct option options[] = {
	{"output", required_argument, NULL, 'o'},
	{"call", required_argument, NULL, 'c'},
	{"json", no_argument, NULL, 'j'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static int wrong(const char *what, const char *why)
{
	fprintf(stderr, "crosspatch annotate: %s %s\n", what, why);
	return TOOL_USAGE;
}

static int add_call(struct arguments *a, const char *value)
{
	struct named_call *call = &a->calls[a->nr_calls];
	const char *equals = strchr(value, '=');

	if (a->nr_calls == MAX_CALLS)
		return wrong("--call", "was given too often");
	call->symbol = value;
	call->symbol_len = equals ? (size_t)(equals - value) : strlen(value);
	call->name = equals ? equals + 1 : value;
	if (call->symbol_len == 0 || *call->name == '\0')
		return wrong("--call", "wants SYMBOL or SYMBOL=NAME");
	a->nr_calls++;
	return 0;
}

static int parse(struct arguments *a, int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, "ho:", options, NULL)) != -1)
		switch (option) {
		case 'o':
			a->output = optarg;
			break;
		case 'c':
			if (add_call(a, optarg))
				return TOOL_USAGE;
			break;
		case 'j':
			a->json = true;
			break;
		case 'h':
			a->help = true;
			return 0;
		default:
			return TOOL_USAGE; /* getopt_long() has said why */
		}
	a->files = argv + optind;
	a->nr_files = argc - optind;
	if (a->nr_files == 0)
		return wrong("FILE", "is missing; see --help");
	if (a->output && a->nr_files > 1)
		return wrong("--output", "is for one file");
	return 0;
}

static void print_json_string(const char *text)
{
	putchar('"');
	for (; *text; text++)
		if (*text == '"' || *text == '\\' || (unsigned char)*text < ' ')
			printf("\\u%04x", (unsigned char)*text);
		else
			putchar(*text);
	putchar('"');
}

int cmd_annotate(int argc, char **argv)
{
	static struct arguments a; /* large */
	const char *separator = "";
	int status = parse(&a, argc, argv);

	if (status)
		return status;
	if (a.help)
		return fputs(usage, stdout) < 0 || fflush(stdout) ? TOOL_UNKNOWN : TOOL_OK;
	elf_version(EV_CURRENT);
	if (a.json)
		fputs("{\"objects\":[", stdout);
	for (int i = 0; i < a.nr_files; i++) {
		struct counts counts;
		int error = annotate(&a, a.files[i], &counts);

		if (error > status)
			status = error;
		if (error)
			continue;
		if (a.json) {
			printf("%s\n{\"file\":", separator);
			print_json_string(a.files[i]);
			printf(",\"recorded\":%zu,\"present\":%zu,\"left_out\":%zu}", counts.recorded, counts.present,
			       counts.left_out);
			separator = ",";
		} else {
			printf("%s: %zu call sites recorded, %zu had a record, %zu left out\n", a.files[i],
			       counts.recorded, counts.present, counts.left_out);
		}
	}
	if (a.json)
		fputs("\n]}\n", stdout);
	if (fflush(stdout) || ferror(stdout))
		return failed("standard output", strerror(errno));
	return status;
}
