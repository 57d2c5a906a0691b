// SPDX-License-Identifier: MIT
/*
 * Whether a module's text is where its records say. llvm-bolt writes functions anew, into a segment of its own or over the
 * old ones, and leaves records as they were. They agree with old text that nothing executes, or with a site whose target
 * is somewhere else now. Which functions it moved only its output's symbols tell; so such a module is refused as a whole.
 *
 * I1  In memory two things show: a second executable segment, or program headers that do not follow the ELF header. A file
 *     with neither, as linkers write it, costs a look at its program headers and no system call.
 * I2  A linker may write two such segments, and patchelf moves the headers. So then the file is read, by the path under
 *     which it is mapped: BOLT renames sections it replaced. A module whose file cannot be read then is refused too.
 */
#include "port/linux/moved.h"

#include "port/linux/maps.h"
#include "port/linux/sys.h"

#include <crosspatch/error.h>

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <string.h>

#define HEADERS 4096 /* bytes that are mapped with the ELF header, at least */

static const char renamed[] = ".bolt.";

/* Whether the headers are those that linkers write of one executable segment. */
static bool is_usual(const ElfW(Ehdr) * header)
{
	const ElfW(Phdr) *segment = (const ElfW(Phdr) *)(header + 1);
	unsigned nr = 0;

	if (header->e_phoff != sizeof(*header) || header->e_phentsize != sizeof(*segment) ||
	    sizeof(*header) + header->e_phnum * sizeof(*segment) > HEADERS)
		return false;
	for (unsigned i = 0; i < header->e_phnum; i++)
		nr += segment[i].p_type == PT_LOAD && segment[i].p_flags & PF_X;
	return nr < 2;
}

/* A descriptor of the file at @path, if it is the one that is mapped at @header; -ENOENT, -errno. */
static int open_file(const char *path, const ElfW(Ehdr) * header)
{
	ElfW(Ehdr) its;
	int fd = (int)XP__SYS4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);

	if (fd < 0)
		return fd;
	if (xp__pread(fd, &its, sizeof(its), 0) == sizeof(its) && memcmp(&its, header, sizeof(its)) == 0)
		return fd;
	XP__SYS1(SYS_close, fd);
	return -ENOENT;
}

/* Whether a section's name has @text in it: 1, 0, or -ENOENT if there are no names. */
static int names_have(int fd, const ElfW(Ehdr) * header, const char *text)
{
	const size_t len = strlen(text);
	ElfW(Shdr) names;
	char buffer[1024];
	size_t filled = 0;

	if (header->e_shoff == 0 || header->e_shentsize != sizeof(names) || header->e_shstrndx == SHN_UNDEF ||
	    xp__pread(fd, &names, sizeof(names), header->e_shoff + (uint64_t)header->e_shstrndx * sizeof(names)) !=
		    sizeof(names) ||
	    names.sh_type != SHT_STRTAB || names.sh_size == 0)
		return -ENOENT;
	for (uint64_t at = 0; at < names.sh_size;) {
		size_t room = sizeof(buffer) - filled;
		uint64_t rest = names.sh_size - at;
		long n = xp__pread(fd, buffer + filled, rest < room ? (size_t)rest : room, names.sh_offset + at);

		if (n <= 0)
			return -ENOENT;
		at += (uint64_t)n;
		filled += (size_t)n;
		if (memmem(buffer, filled, text, len))
			return 1;
		/* What a name may have begun with. */
		if (filled >= len) {
			memmove(buffer, buffer + filled - (len - 1), len - 1);
			filled = len - 1;
		}
	}
	return 0;
}

int xp__moved_check(const void *at)
{
	const ElfW(Ehdr) *header = at;
	static char path[PATH_MAX]; /* no room on the stack of a signal handler; the lock is held */
	int fd, has;

	if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || is_usual(header))
		return 0;
	fd = xp__maps_file((uintptr_t)at, path, sizeof(path));
	if (fd == 0)
		fd = open_file(path, header);
	if (fd < 0)
		fd = open_file("/proc/thread-self/exe", header); /* the program's, deleted since */
	if (fd < 0)
		return -XP_E_MOVED;
	has = names_have(fd, header, renamed);
	XP__SYS1(SYS_close, fd);
	return has == 0 ? 0 : -XP_E_MOVED;
}
