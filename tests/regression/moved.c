// SPDX-License-Identifier: MIT
/* What is taken for a file whose functions were moved: files made here, mapped as a module's first segment is. */
#include "port/linux/moved.h"
#include "xp_test.h"

#include <crosspatch/error.h>

#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 16384, MOVED_HEADERS = 4096, NAMES = 8192 };

static struct {
	ElfW(Ehdr) header;
	char rest[SIZE - sizeof(ElfW(Ehdr))];
} image;

/* An ELF file with @nr_executable segments to execute, its program headers at @headers, section names @names. */
static void make(unsigned nr_executable, size_t headers, const char *names, size_t size)
{
	char *bytes = (char *)&image;
	ElfW(Phdr) *segment = (ElfW(Phdr) *)(bytes + headers);
	ElfW(Shdr) *section = (ElfW(Shdr) *)(bytes + NAMES - 2 * sizeof(ElfW(Shdr)));

	memset(&image, 0, sizeof(image));
	memcpy(image.header.e_ident, ELFMAG, SELFMAG);
	image.header.e_phoff = headers;
	image.header.e_phentsize = sizeof(*segment);
	for (unsigned i = 0; i < nr_executable + 2; i++) {
		segment[i].p_type = i == 0 ? PT_NOTE : PT_LOAD;
		segment[i].p_flags = i == 1 ? PF_R : PF_R | PF_X;
		image.header.e_phnum++;
	}
	image.header.e_shoff = (size_t)((char *)section - bytes);
	image.header.e_shentsize = sizeof(*section);
	image.header.e_shnum = 2;
	image.header.e_shstrndx = 1;
	section[1].sh_type = SHT_STRTAB;
	section[1].sh_offset = NAMES;
	section[1].sh_size = size;
	memcpy(bytes + NAMES, names, size);
}

static char path[] = "/tmp/crosspatch-test-XXXXXX";

static void *map_image(void)
{
	int fd;
	void *at = MAP_FAILED;

	memcpy(path + sizeof(path) - 7, "XXXXXX", 6);
	fd = mkstemp(path);
	if (fd >= 0 && write(fd, &image, sizeof(image)) == sizeof(image))
		at = mmap(NULL, SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	return at;
}

static int check(void)
{
	void *at = map_image();
	int error;

	if (at == MAP_FAILED)
		return 1;
	error = xp__moved_check(at);
	munmap(at, SIZE);
	unlink(path);
	return error;
}

static const char plain[] = "\0.text\0.shstrtab";
static const char bolt[] = "\0.text\0.bolt.org.text\0.shstrtab";

XP_TEST(as_linkers_write_it)
{
	make(1, sizeof(ElfW(Ehdr)), plain, sizeof(plain));
	CHECK_EQ(check(), 0);
	/* Its file is not asked. */
	make(1, sizeof(ElfW(Ehdr)), bolt, sizeof(bolt));
	CHECK_EQ(check(), 0);
	make(0, sizeof(ElfW(Ehdr)), bolt, sizeof(bolt));
	CHECK_EQ(check(), 0);
}

XP_TEST(what_is_no_elf_header)
{
	make(2, sizeof(ElfW(Ehdr)), bolt, sizeof(bolt));
	image.header.e_ident[1] = 'X';
	CHECK_EQ(check(), 0);
}

XP_TEST(two_executable_segments)
{
	make(2, sizeof(ElfW(Ehdr)), plain, sizeof(plain));
	CHECK_EQ(check(), 0);
	make(2, sizeof(ElfW(Ehdr)), bolt, sizeof(bolt));
	CHECK_EQ(check(), -XP_E_MOVED);
}

XP_TEST(headers_elsewhere)
{
	make(1, MOVED_HEADERS, plain, sizeof(plain));
	CHECK_EQ(check(), 0);
	make(1, MOVED_HEADERS, bolt, sizeof(bolt));
	CHECK_EQ(check(), -XP_E_MOVED);
	make(2, MOVED_HEADERS, bolt, sizeof(bolt));
	CHECK_EQ(check(), -XP_E_MOVED);
}

/* In a table that is read a piece of 1024 bytes at a time. */
XP_TEST(name_across_two_pieces)
{
	static char names[2500];
	const char name[] = ".bolt.org.eh_frame";

	for (size_t at = 1; at < sizeof(names) - sizeof(name); at += at > 990 && at < 1050 ? 1 : 67) {
		memset(names, 'x', sizeof(names));
		names[0] = names[sizeof(names) - 1] = '\0';
		memcpy(names + at, name, sizeof(name));
		make(2, sizeof(ElfW(Ehdr)), names, sizeof(names));
		CHECK_EQ(check(), -XP_E_MOVED);
	}
}

XP_TEST(file_that_cannot_tell)
{
	void *at;

	/* Without names. */
	make(2, sizeof(ElfW(Ehdr)), plain, sizeof(plain));
	image.header.e_shoff = 0;
	CHECK_EQ(check(), -XP_E_MOVED);
	make(2, sizeof(ElfW(Ehdr)), plain, sizeof(plain));
	image.header.e_shstrndx = 0;
	CHECK_EQ(check(), -XP_E_MOVED);
	make(2, sizeof(ElfW(Ehdr)), plain, sizeof(plain));
	((ElfW(Shdr) *)((char *)&image + NAMES))[-1].sh_offset = SIZE;
	CHECK_EQ(check(), -XP_E_MOVED);
	/* Gone. */
	make(2, sizeof(ElfW(Ehdr)), plain, sizeof(plain));
	at = map_image();
	REQUIRE(at != MAP_FAILED);
	unlink(path);
	CHECK_EQ(xp__moved_check(at), -XP_E_MOVED);
	munmap(at, SIZE);
}

/* One under the name that the kernel gives says nothing about the one that is mapped. */
XP_TEST(another_file_of_that_name)
{
	char name[64];
	void *at;
	FILE *other;

	make(2, sizeof(ElfW(Ehdr)), bolt, sizeof(bolt));
	at = map_image();
	REQUIRE(at != MAP_FAILED);
	unlink(path);
	make(2, sizeof(ElfW(Ehdr)), plain, sizeof(plain));
	image.header.e_entry = 1;
	snprintf(name, sizeof(name), "%s (deleted)", path);
	other = fopen(name, "w");
	REQUIRE(other != NULL);
	fwrite(&image, sizeof(image), 1, other);
	fclose(other);
	CHECK_EQ(xp__moved_check(at), -XP_E_MOVED);
	munmap(at, SIZE);
	unlink(name);
}

XP_TEST_MAIN()
