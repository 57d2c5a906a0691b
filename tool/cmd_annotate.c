// SPDX-License-Identifier: MIT
/*
 * crosspatch annotate: adds to an object file the records of its call sites and patchable entries, as the compiler plugin
 * would have done.
 *
 * What shows a call site is its relocation: the compiler leaves the displacement of a call of a trampoline to the linker.
 * The bytes say the rest: E8 or E9 before the displacement, at the beginning of an instruction. Records are added in the
 * form that the assembler gives those of the plugin: a section xp_call_sites for each section of code, linked to it and
 * in its group, with its relocations.
 *
 * What shows an entry is the word that -fpatchable-function-entry leaves for it; symbols say which function it is and how
 * long, the bytes that it is one nop, or one-byte nops that may become one. An entry has one record: the word goes. That also
 * helps what gcc 12 makes of a file with functions in groups: all words in one section, linked to the first of them, which
 * goes when the linker keeps another file's group.
 *
 * An object of 32-bit code is made a 64-bit one in memory, and when it is written what changed goes back into it.
 *
 * I1  No byte of code changes. Symbols keep their places, except that one may be inserted for a section that has no local
 *     one; then whatever counts symbols is renumbered.
 * I2  The file is replaced by a complete new one, or not at all.
 */
#include "json.h"
#include "replace.h"
#include "text.h"
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
	"Adds the records of the call sites and of the entries (-fpatchable-function-entry=5) in object files, for compilers\n"
	"without the plugin.\n"
	"\n"
	"  FILE                  an object file, not linked yet; it is replaced\n"
	"  --output OUT          write to OUT, and leave FILE as it is\n"
	"  --call SYMBOL[=NAME]  calls of SYMBOL are calls of the static call NAME, by default SYMBOL\n"
	"  --json                the form of the answer\n"
	"\n"
	"Exit status: 0 done, 1 a file cannot be annotated, 2 wrong arguments, 3 the system failed; the file is as it was.\n";

static const char records_name[] = "xp_call_sites", relocations_name[] = ".relaxp_call_sites";
static const char narrow_relocations_name[] = ".relxp_call_sites";
static const char entries_name[] = "xp_entry_sites", entry_relocations_name[] = ".relaxp_entry_sites";
static const char text_relocations_name[] = ".rela.text";
static const char names_name[] = "xp_entry_names", words_name[] = "__patchable_function_entries";
static const char trampoline_prefix[] = "xp_trampoline_", call_prefix[] = "xp_call_";

enum {
	SITE_LEN = 5,
	RECORD_LEN = 8, /* struct xp_call_site */
	RECORD_ALIGN = 4,
	SITE_TAIL = 1,
	ENTRY_LEN = 5,
	ENTRY_RECORD_LEN = 12, /* struct xp_entry_site */
	ENTRY_PART = 2,
	ENTRY_SIZE_MAX = (1 << 24) - 1,
	WORD_LEN = 8,
	MAX_CALLS = 256,
	FILE_MAX = 1 << 30,
	GROWTH_MAX = 64 << 20, /* beyond twice the file */
	ADDRSIG = 0x6fff4c03,  /* SHT_LLVM_ADDRSIG: a list of symbols, which elf.h does not know */
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
	off_t size; /* of the file */
	const struct arguments *arguments;
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

/* ---- errors: 0 or an exit status ---- */

static int refuse(const struct object *o, const char *why)
{
	return text_say("annotate", TOOL_REFUSED, "%s: %s", o->path, why);
}

static int failed(const char *path, const char *what)
{
	return text_say("annotate", TOOL_UNKNOWN, "%s: %s", path, what);
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

/* ---- 32-bit objects ---- */

_Static_assert((int)R_386_PC32 == (int)R_X86_64_PC32 && (int)R_386_PLT32 == (int)R_X86_64_PLT32,
	       "what is looked for has the same number");

static void *widen_symbols(struct object *o, const Elf_Data *data, size_t *size)
{
	const Elf32_Sym *from = data->d_buf;
	size_t nr = data->d_size / sizeof(*from);
	Elf64_Sym *to = allocate(o, nr * sizeof(*to));

	*size = nr * sizeof(*to);
	for (size_t i = 0; to && i < nr; i++)
		to[i] = (Elf64_Sym){from[i].st_name,  from[i].st_info,  from[i].st_other,
				    from[i].st_shndx, from[i].st_value, from[i].st_size};
	return to;
}

/* With the addends, which stand in what is relocated. */
static void *widen_relocations(struct object *o, const Elf32_Shdr *header, const Elf_Data *data, size_t *size)
{
	const Elf32_Rel *from = data->d_buf;
	size_t nr = data->d_size / sizeof(*from);
	Elf64_Rela *to = allocate(o, nr * sizeof(*to));
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

static int widen_section(struct object *o, Elf_Scn *from)
{
	const Elf32_Shdr *header = elf32_getshdr(from);
	Elf_Data *data = header ? elf_getdata(from, NULL) : NULL;
	Elf64_Shdr wide;
	void *buffer;
	size_t size;

	if (!data || header->sh_type == SHT_RELA)
		return refuse(o, "has a section that is malformed");
	wide = (Elf64_Shdr){header->sh_name,      header->sh_type,   header->sh_flags, header->sh_addr,
			    header->sh_offset,    header->sh_size,   header->sh_link,  header->sh_info,
			    header->sh_addralign, header->sh_entsize};
	buffer = data->d_buf;
	size = data->d_size;
	if (header->sh_type == SHT_SYMTAB && buffer)
		buffer = widen_symbols(o, data, &size);
	if (header->sh_type == SHT_REL) {
		wide.sh_type = SHT_RELA;
		buffer = widen_relocations(o, header, data, &size);
	}
	if (!buffer && data->d_buf)
		return failed(o->path, strerror(ENOMEM));
	return new_section(o, &wide, ELF_T_BYTE, buffer, size) ? 0 : libelf_failed(o);
}

static int widen(struct object *o, int fd)
{
	const Elf32_Ehdr *header = elf32_getehdr(o->elf);
	Elf64_Ehdr *wide;
	int error = 0;

	o->narrow = o->elf;
	/* Nothing is ever written to it. */
	o->elf = elf_begin(fd, ELF_C_WRITE, NULL);
	wide = o->elf ? elf64_newehdr(o->elf) : NULL;
	if (!wide)
		return libelf_failed(o);
	wide->e_machine = header->e_machine == EM_386 ? EM_X86_64 : EM_NONE;
	wide->e_type = header->e_type;
	wide->e_shnum = header->e_shnum;
	wide->e_shstrndx = header->e_shstrndx;
	for (Elf_Scn *section = NULL; !error && (section = elf_nextscn(o->narrow, section));)
		error = widen_section(o, section);
	return error;
}

/* Puts the addends of new records into them, and their relocations into the form of the file. */
static void *narrow_relocations(struct object *o, const Elf64_Shdr *header, const Elf_Data *data, bool is_new,
				size_t *size)
{
	const Elf64_Rela *from = data->d_buf;
	size_t nr = data->d_size / sizeof(*from);
	Elf32_Rel *to = allocate(o, nr * sizeof(*to));
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

static void *narrow_symbols(struct object *o, const Elf_Data *data, size_t *size)
{
	const Elf64_Sym *from = data->d_buf;
	size_t nr = data->d_size / sizeof(*from);
	Elf32_Sym *to = allocate(o, nr * sizeof(*to));

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

static int narrow_section(struct object *o, Elf_Scn *from)
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
		return libelf_failed(o);
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
		data->d_buf = narrow_symbols(o, what, &data->d_size);
	} else if (wide->sh_type == SHT_RELA) {
		header->sh_type = SHT_REL;
		header->sh_entsize = sizeof(Elf32_Rel);
		header->sh_addralign = sizeof(Elf32_Word);
		data->d_type = ELF_T_REL;
		data->d_buf = narrow_relocations(o, wide, what, is_new, &data->d_size);
	}
	data->d_align = header->sh_addralign;
	if (!data->d_buf && what->d_buf)
		return failed(o->path, strerror(ENOMEM));
	elf_flagshdr(to, ELF_C_SET, ELF_F_DIRTY);
	elf_flagdata(data, ELF_C_SET, ELF_F_DIRTY);
	return 0;
}

static int narrow(struct object *o)
{
	int error = 0;

	for (Elf_Scn *section = NULL; !error && (section = elf_nextscn(o->elf, section));)
		error = narrow_section(o, section);
	return error;
}

/* ---- opening ---- */

static int open_object(struct object *o, int fd)
{
	Elf64_Ehdr *header;
	struct stat status;
	size_t nr;
	int error;

	o->elf = elf_begin(fd, ELF_C_RDWR, NULL);
	if (!o->elf)
		return libelf_failed(o);
	if (elf_kind(o->elf) == ELF_K_ELF && elf32_getehdr(o->elf)) {
		error = widen(o, fd);
		if (error)
			return error;
	}
	header = elf_kind(o->elf) == ELF_K_ELF ? elf64_getehdr(o->elf) : NULL;
	if (!header || header->e_machine != EM_X86_64 || header->e_type != ET_REL)
		return refuse(
			o,
			"is not an object file for x86-64 or i386; annotate what the compiler made, before it is linked");
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

/* The sites that have a record in a section @name, of @len bytes: the first field of each says where. */
static int find_present(struct object *o, const char *name, size_t len, struct site **present, size_t *nr_present)
{
	for (Elf_Scn *section = NULL; (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *header = elf64_getshdr(section), *of;
		size_t nr;
		Elf64_Rela *entries = relocations(o, section, header, &nr);
		Elf_Scn *records = nr ? elf_getscn(o->elf, header->sh_info) : NULL;

		of = records ? elf64_getshdr(records) : NULL;
		if (!of || strcmp(section_name(o, of), name) != 0)
			continue;
		for (size_t i = 0; i < nr; i++) {
			uint32_t number = ELF64_R_SYM(entries[i].r_info);
			struct site site = {0};
			int error;

			if (entries[i].r_offset % len != 0 || number >= nr_symbols(o))
				continue;
			site.section = symbol_at(o, number)->st_shndx;
			site.offset = symbol_at(o, number)->st_value + (uint64_t)entries[i].r_addend;
			error = add_site(o, present, nr_present, &site);
			if (error)
				return error;
		}
	}
	if (*nr_present)
		qsort(*present, *nr_present, sizeof(**present), compare_sites);
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
	if (o->narrow)
		ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
	else
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
	int error = o->symtab ? find_present(o, records_name, RECORD_LEN, &o->present, &o->nr_present) : 0;

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

/* ---- entries ---- */

static int compare_functions(const void *x, const void *y)
{
	const struct function *a = x, *b = y;

	if (a->section != b->section)
		return a->section < b->section ? -1 : 1;
	if (a->value != b->value)
		return a->value < b->value ? -1 : 1;
	return 0;
}

/* The order of equals is kept: a merge sort. */
static void sort_functions(struct function *functions, struct function *spare, size_t nr)
{
	size_t half = nr / 2, left = 0, right = half, to = 0;

	if (nr < 2)
		return;
	sort_functions(functions, spare, half);
	sort_functions(functions + half, spare, nr - half);
	memcpy(spare, functions, nr * sizeof(*functions));
	while (left < half || right < nr)
		if (right == nr || (left < half && compare_functions(&spare[left], &spare[right]) <= 0))
			functions[to++] = spare[left++];
		else
			functions[to++] = spare[right++];
}

static int find_functions(struct object *o)
{
	size_t nr = nr_symbols(o);
	struct function *spare = allocate(o, nr * sizeof(*spare));

	o->functions = allocate(o, nr * sizeof(*o->functions));
	if (!spare || !o->functions)
		return failed(o->path, strerror(ENOMEM));
	for (size_t i = 0; i < nr; i++) {
		const Elf64_Sym *symbol = symbol_at(o, i);

		if (ELF64_ST_TYPE(symbol->st_info) == STT_FUNC && symbol->st_shndx != SHN_UNDEF &&
		    symbol->st_shndx < SHN_LORESERVE && *symbol_name(o, symbol))
			o->functions[o->nr_functions++] = (struct function){
				.section = symbol->st_shndx,
				.value = symbol->st_value,
				.size = symbol->st_size,
				.name = symbol_name(o, symbol),
			};
	}
	sort_functions(o->functions, spare, o->nr_functions);
	return 0;
}

/* The function that begins at @value, or the last one before; NULL: none. */
static struct function *function_before(const struct object *o, size_t section, uint64_t value)
{
	const struct function key = {.section = section, .value = value};
	size_t low = 0, high = o->nr_functions;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (compare_functions(&o->functions[middle], &key) <= 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || o->functions[--low].section != section)
		return NULL;
	while (low > 0 && compare_functions(&o->functions[low - 1], &o->functions[low]) == 0)
		low--;
	return &o->functions[low];
}

static int add_entry(struct object *o, const struct function *function, uint64_t offset, unsigned flags)
{
	size_t len = strlen(function->name) + 1;
	struct entry *entries;
	char *names;

	/* As in add_site(). */
	if ((o->nr_entries & (o->nr_entries - 1)) == 0) {
		entries = realloc(o->entries, (o->nr_entries ? 2 * o->nr_entries : 1) * sizeof(*entries));
		if (!entries)
			return failed(o->path, strerror(ENOMEM));
		o->entries = entries;
	}
	names = realloc(o->names, o->names_len + len);
	if (!names)
		return failed(o->path, strerror(ENOMEM));
	o->names = names;
	memcpy(o->names + o->names_len, function->name, len);
	o->entries[o->nr_entries++] = (struct entry){
		.section = function->section,
		.offset = offset,
		.size = (uint32_t)function->size << 8 | (uint32_t)(offset - function->value) << 4 | flags,
		.name = o->names_len,
	};
	o->names_len += len;
	return 0;
}

/* What the library can use: a nop of five bytes, or one-byte nops of which xp_function_prepare() makes one. */
static bool is_nop(const uint8_t *code)
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
static struct function *function_of_entry(const struct object *o, const struct site *at)
{
	struct function *function = function_before(o, at->section, at->offset);
	Elf_Scn *scn = elf_getscn(o->elf, at->section);
	Elf_Data *code = scn ? elf_getdata(scn, NULL) : NULL;
	const uint8_t *bytes = code ? code->d_buf : NULL;
	uint64_t before;

	if (!function || !bytes || at->offset > code->d_size || code->d_size - at->offset < ENTRY_LEN)
		return NULL;
	before = at->offset - function->value;
	if (before != 0 && (before != 4 || memcmp(bytes + function->value, "\xf3\x0f\x1e\xfa", 4) != 0))
		return NULL;
	if (function->size > ENTRY_SIZE_MAX || (function->size && function->size < before + ENTRY_LEN))
		return NULL;
	return is_nop(bytes + at->offset) ? function : NULL;
}

/*
 * Takes the words out of the section @of whose relocations are no more among the first @nr_left of @entries. It was linked to
 * the code of its first word, which the linker may drop: now to that of the first that stays, or it goes itself.
 */
static int take_words(struct object *o, Elf_Scn *of, Elf_Data *relocating, Elf64_Rela *entries, size_t nr_left)
{
	Elf64_Shdr *header = elf64_getshdr(of);
	Elf_Data *words = elf_getdata(of, NULL);
	uint8_t *left = allocate(o, nr_left * WORD_LEN);

	if (!left)
		return failed(o->path, strerror(ENOMEM));
	if (nr_left && header->sh_flags & SHF_LINK_ORDER)
		header->sh_link = symbol_at(o, ELF64_R_SYM(entries[0].r_info))->st_shndx;
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
static int find_entries_in(struct object *o, Elf_Scn *of, Elf_Scn *section, Elf64_Rela *entries, size_t nr)
{
	Elf_Data *words = elf_getdata(of, NULL);
	size_t nr_left = 0;
	int error;

	for (size_t i = 0; i < nr; i++)
		if (ELF64_R_TYPE(entries[i].r_info) != R_X86_64_64 || entries[i].r_offset % WORD_LEN != 0 ||
		    ELF64_R_SYM(entries[i].r_info) >= nr_symbols(o) || nr != words->d_size / WORD_LEN) {
			o->counts.entries_left_out += nr;
			return 0;
		}
	for (size_t i = 0; i < nr; i++) {
		const Elf64_Sym *symbol = symbol_at(o, ELF64_R_SYM(entries[i].r_info));
		struct site at = {
			.section = symbol->st_shndx,
			.offset = symbol->st_value + (uint64_t)entries[i].r_addend,
		};
		struct function *function;

		if (o->nr_present_entries &&
		    bsearch(&at, o->present_entries, o->nr_present_entries, sizeof(at), compare_sites))
			continue;
		function = function_of_entry(o, &at);
		if (!function || function->has_entry) {
			o->counts.entries_left_out++;
			entries[nr_left++] = entries[i];
			continue;
		}
		function->has_entry = true;
		error = add_entry(o, function, at.offset, 0);
		if (error)
			return error;
		o->counts.entries_recorded++;
	}
	return nr_left == nr ? 0 : take_words(o, of, elf_getdata(section, NULL), entries, nr_left);
}

static int compare_names(const void *x, const void *y)
{
	return strcmp((*(const struct function *const *)x)->name, (*(const struct function *const *)y)->name);
}

/* gcc's f.cold is the unlikely part of f: threads in there are in f. */
static int find_parts(struct object *o)
{
	static const char suffix[] = ".cold";
	const struct function **by_name = allocate(o, o->nr_functions * sizeof(*by_name));
	size_t nr = 0;

	if (!by_name)
		return failed(o->path, strerror(ENOMEM));
	for (size_t i = 0; i < o->nr_functions; i++)
		if (o->functions[i].has_entry)
			by_name[nr++] = &o->functions[i];
	qsort(by_name, nr, sizeof(*by_name), compare_names);
	for (size_t i = 0; i < o->nr_functions; i++) {
		struct function part = o->functions[i], *key = &part;
		size_t len = strlen(part.name);
		char *name;
		int error = 0;

		if (part.has_entry || len < sizeof(suffix) || strcmp(part.name + len - sizeof(suffix) + 1, suffix) != 0)
			continue;
		name = strdup(part.name);
		if (!name)
			return failed(o->path, strerror(ENOMEM));
		name[len - sizeof(suffix) + 1] = '\0';
		part.name = name;
		if (bsearch(&key, by_name, nr, sizeof(*by_name), compare_names))
			error = add_entry(o, &part, part.value, ENTRY_PART);
		free(name);
		if (error)
			return error;
	}
	return 0;
}

static int compare_entries(const void *x, const void *y)
{
	const struct entry *a = x, *b = y;

	if (a->section != b->section)
		return a->section < b->section ? -1 : 1;
	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int find_entries(struct object *o)
{
	int error;

	/* In 32-bit code the library knows no entries. */
	if (!o->symtab || o->narrow)
		return 0;
	error = find_present(o, entries_name, ENTRY_RECORD_LEN, &o->present_entries, &o->nr_present_entries);
	if (!error)
		error = find_functions(o);
	/* Stubs and parts have records, but no nop. */
	for (size_t i = 0; !error && i < o->nr_present_entries; i++)
		o->counts.entries_present += function_of_entry(o, &o->present_entries[i]) != NULL;
	for (Elf_Scn *section = NULL; !error && (section = elf_nextscn(o->elf, section));) {
		Elf64_Shdr *header = elf64_getshdr(section), *of;
		size_t nr;
		Elf64_Rela *entries = relocations(o, section, header, &nr);
		Elf_Scn *scn = nr ? elf_getscn(o->elf, header->sh_info) : NULL;

		of = scn && elf_getdata(scn, NULL) ? elf64_getshdr(scn) : NULL;
		if (of && strcmp(section_name(o, of), words_name) == 0)
			error = find_entries_in(o, scn, section, entries, nr);
	}
	if (!error && o->nr_entries)
		error = find_parts(o);
	if (o->nr_entries)
		qsort(o->entries, o->nr_entries, sizeof(*o->entries), compare_entries);
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

/* @nr records of @len bytes for the section @code, with @per relocations each. */
static int add_section(struct object *o, size_t code, const uint32_t *names, void *records, size_t nr, size_t len,
		       Elf64_Rela *entries, size_t per)
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

	section = new_section(o, &header, ELF_T_BYTE, records, nr * len);
	if (!section)
		return libelf_failed(o);
	header = (Elf64_Shdr){.sh_name = names[1],
			      .sh_type = SHT_RELA,
			      .sh_flags = SHF_INFO_LINK | group,
			      .sh_link = (uint32_t)elf_ndxscn(o->symtab),
			      .sh_info = (uint32_t)elf_ndxscn(section),
			      .sh_addralign = 8,
			      .sh_entsize = sizeof(*entries)};
	relocating = new_section(o, &header, ELF_T_RELA, entries, per * nr * sizeof(*entries));
	if (!relocating)
		return libelf_failed(o);
	members[0] = (uint32_t)elf_ndxscn(section);
	members[1] = (uint32_t)elf_ndxscn(relocating);
	if (members[1] >= SHN_LORESERVE - 1)
		return refuse(o, "has more sections than this command can number; compile it in parts");
	return group ? join_group(o, code, members, 2) : 0;
}

static Elf64_Rela relocation(uint64_t at, uint32_t symbol, uint32_t type, int64_t addend)
{
	return (Elf64_Rela){
		.r_offset = at,
		.r_info = ELF64_R_INFO((uint64_t)symbol, type),
		.r_addend = addend,
	};
}

/* The records of @nr sites in one section of code. */
static int add_records(struct object *o, const struct site *sites, size_t nr, const uint32_t *calls,
		       const uint32_t *names)
{
	Elf64_Rela *entries = allocate(o, 2 * nr * sizeof(*entries));
	void *records = allocate(o, nr * RECORD_LEN);
	uint32_t local;
	int error = local_symbol(o, sites->section, &local);

	if (error)
		return error;
	if (!entries || !records)
		return failed(o->path, strerror(ENOMEM));
	for (size_t i = 0; i < nr; i++) {
		entries[2 * i] = relocation(i * RECORD_LEN, local, R_X86_64_PC32,
					    (int64_t)(sites[i].offset - symbol_at(o, local)->st_value));
		entries[2 * i + 1] =
			relocation(i * RECORD_LEN + 4, calls[i], R_X86_64_PC32, sites[i].tail ? SITE_TAIL : 0);
	}
	return add_section(o, sites->section, names, records, nr, RECORD_LEN, entries, 2);
}

/* Adds @nr relocations of the section @code to those that it has. */
static int add_relocations(struct object *o, size_t code, Elf64_Rela *entries, size_t nr, uint32_t name)
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

		if (relocating->sh_info == code && relocations(o, section, relocating, &present))
			return append(o, elf_getdata(section, NULL), entries, nr * sizeof(*entries));
	}
	section = new_section(o, &header, ELF_T_RELA, entries, nr * sizeof(*entries));
	if (!section)
		return libelf_failed(o);
	member = (uint32_t)elf_ndxscn(section);
	if (member >= SHN_LORESERVE)
		return refuse(o, "has more sections than this command can number; compile it in parts");
	return header.sh_flags & SHF_GROUP ? join_group(o, code, &member, 1) : 0;
}

/*
 * The records of @nr entries in one section of code; @strings is a symbol at the beginning of the section of names. The code
 * refers to the names, by relocations that change nothing: a linker that folds identical functions compares them, and
 * functions that are traced one by one stay apart.
 */
static int add_entry_records(struct object *o, const struct entry *of, size_t nr, uint32_t strings,
			     const uint32_t *names)
{
	Elf64_Rela *entries = allocate(o, 2 * nr * sizeof(*entries));
	Elf64_Rela *references = allocate(o, nr * sizeof(*references));
	uint8_t *records = allocate(o, nr * ENTRY_RECORD_LEN);
	uint32_t local;
	int error = local_symbol(o, of->section, &local);

	if (error)
		return error;
	if (!entries || !references || !records)
		return failed(o->path, strerror(ENOMEM));
	for (size_t i = 0; i < nr; i++) {
		size_t at = i * ENTRY_RECORD_LEN;

		entries[2 * i] =
			relocation(at, local, R_X86_64_PC32, (int64_t)(of[i].offset - symbol_at(o, local)->st_value));
		entries[2 * i + 1] = relocation(at + 4, strings, R_X86_64_PC32, (int64_t)of[i].name);
		references[i] = relocation(of[i].offset, strings, R_X86_64_NONE, (int64_t)of[i].name);
		memcpy(records + at + 8, &of[i].size, sizeof(of[i].size));
	}
	error = add_relocations(o, of->section, references, nr, names[2]);
	return error ? error : add_section(o, of->section, names, records, nr, ENTRY_RECORD_LEN, entries, 2);
}

static int add_names(struct object *o, Elf_Data *strings, uint32_t *symbol)
{
	Elf64_Shdr header = {.sh_type = SHT_PROGBITS,
			     .sh_flags = SHF_ALLOC | SHF_MERGE | SHF_STRINGS,
			     .sh_addralign = 1,
			     .sh_entsize = 1};
	int error = add_string(o, strings, names_name, &header.sh_name);
	Elf_Scn *section = error ? NULL : new_section(o, &header, ELF_T_BYTE, o->names, o->names_len);

	if (error)
		return error;
	if (!section)
		return libelf_failed(o);
	if (elf_ndxscn(section) >= SHN_LORESERVE)
		return refuse(o, "has more sections than this command can number; compile it in parts");
	return local_symbol(o, elf_ndxscn(section), symbol);
}

static int add_all_entries(struct object *o, Elf_Data *strings, uint32_t symbol)
{
	uint32_t names[3];
	int error = add_string(o, strings, entries_name, &names[0]);

	if (!error)
		error = add_string(o, strings, entry_relocations_name, &names[1]);
	if (!error)
		error = add_string(o, strings, text_relocations_name, &names[2]);
	for (size_t i = 0, end; i < o->nr_entries && !error; i = end) {
		for (end = i + 1; end < o->nr_entries && o->entries[end].section == o->entries[i].section;)
			end++;
		error = add_entry_records(o, o->entries + i, end - i, symbol, names);
	}
	return error;
}

static int add_all_sites(struct object *o, Elf_Data *strings)
{
	uint32_t *calls = allocate(o, o->nr_sites * sizeof(*calls)), names[2];
	int error = 0;

	if (!calls)
		return failed(o->path, strerror(ENOMEM));
	error = add_string(o, strings, records_name, &names[0]);
	if (!error)
		error = add_string(o, strings, o->narrow ? narrow_relocations_name : relocations_name, &names[1]);
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
	return error;
}

/* Sections are laid out anew, by their alignment, which the file says. */
static int write_object(const struct object *o)
{
	Elf *elf = o->narrow ? o->narrow : o->elf;
	off_t size;
	int error;

	(void)elf_errno(); /* of before */
	size = elf_update(elf, ELF_C_NULL);
	error = size < 0 ? elf_errno() : 0;
	if (error)
		return refuse(o, elf_errmsg(error));
	if (size < 0 || size > 2 * o->size + GROWTH_MAX)
		return refuse(o, "would grow beyond measure by the alignment that it asks for; is it damaged?");
	return elf_update(elf, ELF_C_WRITE) < 0 ? failed(o->path, elf_errmsg(-1)) : 0;
}

static int add_all_records(struct object *o)
{
	Elf_Data *strings = strings_in(o, o->section_names);
	uint32_t local, symbol = 0;
	int error = 0;

	if (!strings)
		return libelf_failed(o);
	/* First what may renumber symbols, then what has their numbers. */
	for (size_t i = 0; i < o->nr_sites && !error; i++)
		if (i == 0 || o->sites[i].section != o->sites[i - 1].section)
			error = local_symbol(o, o->sites[i].section, &local);
	for (size_t i = 0; i < o->nr_entries && !error; i++)
		if (i == 0 || o->entries[i].section != o->entries[i - 1].section)
			error = local_symbol(o, o->entries[i].section, &local);
	if (!error && o->nr_entries)
		error = add_names(o, strings, &symbol);
	if (!error && o->nr_sites)
		error = add_all_sites(o, strings);
	if (!error && o->nr_entries)
		error = add_all_entries(o, strings, symbol);
	if (!error && o->narrow)
		error = narrow(o);
	return error ? error : write_object(o);
}

/* ---- files ---- */

/* The bytes of @from, of which there may be more by now than there were. */
static int copy(int from, int to, off_t left)
{
	char block[65536];
	ssize_t got = 0;

	while (left > 0 && (got = read(from, block, left < (off_t)sizeof(block) ? (size_t)left : sizeof(block))) > 0) {
		left -= got;
		for (ssize_t at = 0, put; at < got; at += put) {
			put = write(to, block + at, (size_t)(got - at));
			if (put < 0)
				return -1;
		}
	}
	return got < 0 ? -1 : 0;
}

static void close_object(struct object *o)
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

/* Works on a copy beside the result, which takes its place when it is complete. */
static int annotate_copy(struct object *o, int from, mode_t mode, const char *to)
{
	struct replacement new;
	const char *why = replace_begin(&new, to, mode);
	bool changed;
	int error;

	if (why)
		return text_say("annotate", TOOL_REFUSED, "%s: %s", to, why);
	if (copy(from, new.fd, o->size) != 0) {
		error = failed(to, strerror(errno));
	} else {
		error = open_object(o, new.fd);
		if (!error)
			error = find_sites(o);
		if (!error)
			error = find_entries(o);
		if (!error && (o->nr_sites || o->words_taken))
			error = add_all_records(o);
		close_object(o);
	}
	/* An object that gains nothing stays the file that it is. */
	changed = o->counts.recorded || o->words_taken || to != o->path;
	why = replace_end(&new, !error && changed);
	return why && !error ? failed(to, why) : error;
}

static int annotate(const struct arguments *a, const char *path, struct counts *counts)
{
	struct object o = {.path = path, .arguments = a};
	/* A pipe that nobody writes to is not waited for. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), error;
	struct stat status;

	if (fd < 0 || fstat(fd, &status) != 0) {
		error = text_say("annotate", TOOL_USAGE, "%s: %s", path, strerror(errno));
	} else if (!S_ISREG(status.st_mode)) {
		error = refuse(&o, "is no regular file");
	} else if (status.st_size > FILE_MAX) {
		error = refuse(&o, "has more than 1 GiB, which no object file needs");
	} else {
		o.size = status.st_size;
		error = annotate_copy(&o, fd, status.st_mode, a->output ? a->output : path);
	}
	if (fd >= 0)
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
	return text_say("annotate", TOOL_USAGE, "%s %s", what, why);
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
			json_string(stdout, a.files[i]);
			printf(",\"recorded\":%zu,\"present\":%zu,\"left_out\":%zu", counts.recorded, counts.present,
			       counts.left_out);
			printf(",\"entries\":{\"recorded\":%zu,\"present\":%zu,\"left_out\":%zu}}",
			       counts.entries_recorded, counts.entries_present, counts.entries_left_out);
			separator = ",";
		} else {
			text_put(stdout, a.files[i]);
			printf(": %zu call sites recorded, %zu had a record, %zu left out", counts.recorded,
			       counts.present, counts.left_out);
			if (counts.entries_recorded || counts.entries_present || counts.entries_left_out)
				printf("; %zu entries recorded, %zu had a record, %zu left out",
				       counts.entries_recorded, counts.entries_present, counts.entries_left_out);
			putchar('\n');
		}
	}
	if (a.json)
		fputs("\n]}\n", stdout);
	if (fflush(stdout) || ferror(stdout))
		return failed("standard output", strerror(errno));
	return status;
}
