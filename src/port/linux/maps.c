// SPDX-License-Identifier: MIT
/*
 * What is mapped at an address. Asks the kernel for that one mapping (PROCMAP_QUERY, Linux 6.11) or reads
 * /proc/self/maps up to it. To read by another descriptor of the same file is as good (cached_fd.c, K2), and the place is inside
 * the first line, for lseek makes all the text up to it.
 *
 * What is mapped changes, and nothing tells us. So an answer is remembered for one commit, and only for what many of its sites
 * ask alike, whether there is text: to ask takes 50 times as long as all else that a site takes.
 * M1  An answer serves the text of its mapping SERVES times, some tens of microseconds. Then it is asked for anew.
 * M2  Before the first store, after all that may wait (threads, rounds), each mapping is asked for once more, if more than one site
 *     relied on it: the same file must be there, at the same place, as text, or nothing is stored. So the last look at a site is
 *     no older when it is stored to than that of a site which was asked for by itself.
 * M3  Nothing is remembered beyond that, nor when the text lock is given back: what is unmapped between the adding of a site and
 *     its commit, or between two commits, is asked for when it is gone.
 * M4  Between the last look and the store the mapping may go: nothing closes that moment, with one site or many.
 *
 * Where the file cannot be opened (after chroot, in a sandbox, with no descriptor left), the text of the executable and of
 * shared objects is known from their program headers, without a lock: what a module brings can be patched, if it can be
 * written without /proc. They say how it was mapped, not how it is. Text that no program header describes stays unknown.
 */
#include "port/linux/maps.h"

#include "port/linux/cached_fd.h"
#include "port/linux/marks.h"
#include "port/linux/sys.h"

#include <crosspatch/error.h>

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

/* Of <linux/fs.h>, where headers are new enough. */
struct query {
	uint64_t size, flags, addr;
	uint64_t start, end, vma_flags, page_size, offset, inode;
	uint32_t major, minor, name_size, build_id_size;
	uint64_t name, build_id;
};
#define QUERY _IOWR('f', 17, struct query)
#define QUERY_READABLE 1u
#define QUERY_WRITABLE 2u
#define QUERY_EXECUTABLE 4u
#define QUERY_SHARED 8u
#include <sys/ioctl.h>

static bool maps_ask(int fd, uintptr_t addr, struct xp__mapping *mapping, int *result)
{
	struct query q = {.size = sizeof(q), .addr = addr};
	long error = XP__SYS3(SYS_ioctl, fd, QUERY, &q);

	*result = error == -ESRCH ? -ESRCH : -XP_E_NOT_TEXT;
	if (error == 0) {
		mapping->start = q.start;
		mapping->end = q.end;
		mapping->prot = (q.vma_flags & QUERY_READABLE ? PROT_READ : 0) |
				(q.vma_flags & QUERY_WRITABLE ? PROT_WRITE : 0) |
				(q.vma_flags & QUERY_EXECUTABLE ? PROT_EXEC : 0);
		mapping->shared = q.vma_flags & QUERY_SHARED;
		mapping->file = q.inode ? q.inode * 31 + q.major * 4099 + q.minor : 0;
		mapping->first = q.inode ? q.start - q.offset : 0;
		*result = 0;
	}
	return error == 0 || error == -ENOENT /* nothing is mapped there */ || error == -ESRCH;
}

#define PLACE 29

static struct xp__cached_fd maps = {.fd = -1};

struct reader {
	int64_t from; /* of the file, what comes into the buffer next */
	size_t at, filled;
	long error; /* of a read, -errno: what was read so far says nothing */
	char buffer[1024];
};

static int next_char(struct reader *r)
{
	if (r->at == r->filled) {
		long n = -EBADF;

		if (xp__cached_fd_same(&maps, NULL))
			n = xp__pread(maps.fd, r->buffer, sizeof(r->buffer), (uint64_t)r->from);
		r->error = n < 0 ? n : 0;
		if (n <= 0)
			return -1;
		r->from += n;
		r->filled = (size_t)n;
		r->at = 0;
	}
	return (unsigned char)r->buffer[r->at++];
}

/* A hexadecimal number and the character after it, which is dropped. */
static bool read_hex(struct reader *r, uintptr_t *value)
{
	int c;

	*value = 0;
	for (;;) {
		c = next_char(r);
		if (c >= '0' && c <= '9')
			*value = *value * 16 + (uintptr_t)(c - '0');
		else if (c >= 'a' && c <= 'f')
			*value = *value * 16 + (uintptr_t)(c - 'a' + 10);
		else
			return c >= 0;
	}
}

/* The fields of a line behind the permissions: " 00001000 fd:01 4711 ", of which the last is the inode. Returns what follows. */
static int read_file(struct reader *r, struct xp__mapping *mapping)
{
	uint64_t offset = 0, inode = 0;
	int c = next_char(r);

	mapping->file = 0;
	for (int nr = 0; nr < 3 && c == ' '; nr++)
		for (c = next_char(r); c >= 0 && c != ' ' && c != '\n'; c = next_char(r)) {
			offset = nr == 0 ? offset * 16 + (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10) : offset;
			inode = nr == 2 ? inode * 10 + (uint64_t)(c - '0') : inode;
			mapping->file = nr > 0 ? mapping->file * 31 + (uint64_t)c : 0;
		}
	mapping->file = inode ? mapping->file : 0;
	mapping->first = inode ? mapping->start - offset : 0;
	return c;
}

/* 7f0000000000-7f0000001000 r-xp … /path. The path is cut to @size bytes, and ends with a zero if it is whole. */
static bool read_line(struct reader *r, struct xp__mapping *mapping, char *path, size_t size)
{
	size_t len = 0;
	int c;

	if (!read_hex(r, &mapping->start) || !read_hex(r, &mapping->end))
		return false;
	mapping->prot = 0;
	mapping->prot |= next_char(r) == 'r' ? PROT_READ : 0;
	mapping->prot |= next_char(r) == 'w' ? PROT_WRITE : 0;
	mapping->prot |= next_char(r) == 'x' ? PROT_EXEC : 0;
	mapping->shared = next_char(r) == 's';
	c = read_file(r, mapping);
	while (c >= 0 && c != '\n') {
		c = next_char(r);
		if ((len > 0 || c == '/') && len < size)
			path[len++] = c == '\n' ? '\0' : (char)c;
	}
	if (len == 0 && size > 0)
		path[0] = '\0';
	return true;
}

int xp__maps_open(void)
{
	uint32_t *mark = &xp__marks_fork[XP__MARK_MAPS];

	if (*mark && xp__cached_fd_same(&maps, NULL))
		return 0;
	return xp__cached_fd_open(&maps, mark, xp__cached_fd_path("/proc/self/maps", "/proc/thread-self/maps"),
				  O_RDONLY, PLACE);
}

/* ---- without /proc ---- */

#define PAGE ((uintptr_t)4096)

static bool find_segment(uintptr_t bias, const ElfW(Phdr) * header, size_t nr, uintptr_t addr,
			 struct xp__mapping *mapping)
{
	for (size_t i = 0; i < nr; i++) {
		uintptr_t start = (bias + header[i].p_vaddr) & ~(PAGE - 1);
		uintptr_t end = (bias + header[i].p_vaddr + header[i].p_memsz + PAGE - 1) & ~(PAGE - 1);

		if (header[i].p_type != PT_LOAD || !(header[i].p_flags & PF_X) || addr < start || addr >= end)
			continue;
		mapping->start = start;
		mapping->end = end;
		mapping->prot = PROT_EXEC | (header[i].p_flags & PF_R ? PROT_READ : 0) |
				(header[i].p_flags & PF_W ? PROT_WRITE : 0);
		mapping->shared = false;
		mapping->file = 0;
		mapping->first = 0;
		return true;
	}
	return false;
}

/* The executable's headers are where the kernel says; they say themselves at which address they were meant to be. */
static bool find_in_executable(uintptr_t addr, struct xp__mapping *mapping)
{
	const ElfW(Phdr) *header = (const ElfW(Phdr) *)getauxval(AT_PHDR); /* NOLINT: an address */
	size_t nr = getauxval(AT_PHNUM);
	uintptr_t bias = 0;

	for (size_t i = 0; header && i < nr; i++) {
		if (header[i].p_type == PT_PHDR) {
			bias = (uintptr_t)header - header[i].p_vaddr;
			break;
		}
		if (header[i].p_type == PT_LOAD && header[i].p_offset == 0)
			bias = (uintptr_t)header - sizeof(ElfW(Ehdr)) - header[i].p_vaddr;
	}
	return header && find_segment(bias, header, nr, addr, mapping);
}

/* Those of a shared object lie in its first page. */
static bool find_in_shared_object(uintptr_t addr, struct xp__mapping *mapping)
{
#ifdef DLFO_STRUCT_HAS_EH_DBASE /* glibc 2.35 */
	struct dl_find_object found;
	const ElfW(Ehdr) * elf;

	if (_dl_find_object((void *)addr, &found)) /* NOLINT: an address */
		return false;
	elf = found.dlfo_map_start;
	if (memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0 || elf->e_phentsize != sizeof(ElfW(Phdr)) ||
	    elf->e_phoff + elf->e_phnum * sizeof(ElfW(Phdr)) > PAGE)
		return false;
	return find_segment(found.dlfo_link_map->l_addr, (const ElfW(Phdr) *)((const char *)elf + elf->e_phoff),
			    elf->e_phnum, addr, mapping);
#else
	(void)addr;
	(void)mapping;
	return false;
#endif
}

/* ---- with it, or without ---- */

static int look_up(uintptr_t addr, struct xp__mapping *mapping)
{
	struct reader r = {.from = 0};
	int result;

	if (maps_ask(maps.fd, addr, mapping, &result))
		return result;
	while (read_line(&r, mapping, NULL, 0))
		if (addr >= mapping->start && addr < mapping->end)
			return 0;
	return r.error ? (int)r.error : r.from == 0 ? -ESRCH : -XP_E_NOT_TEXT;
}

int xp__maps_find(uintptr_t addr, struct xp__mapping *mapping)
{
	int error = xp__maps_open();

	/* Closed between two reads: once more. */
	for (int tries = 0; !error && tries < 3; tries++) {
		int result = look_up(addr, mapping);

		if (result == 0 || result == -XP_E_NOT_TEXT)
			return result;
		if (result == -EBADF || (result == -ESRCH && xp__cached_fd_first_ended(&maps)))
			error = xp__maps_open();
		else
			error = result;
	}
	if (find_in_executable(addr, mapping) || find_in_shared_object(addr, mapping))
		return 0;
	return error ? error : -EBADF;
}

/* ---- remembered ---- */

#define SERVES 1024u
#define REMEMBERED 8u

static struct remembered {
	struct xp__mapping mapping;
	uintptr_t low, high; /* what was asked for in it, from the first byte to behind the last */
	uint32_t serves;     /* so many more answers */
	bool again;          /* more than one was given */
} remembered[REMEMBERED];
static uint32_t nr_remembered, last_remembered;

static struct remembered *find_remembered(uintptr_t addr)
{
	for (uint32_t i = 0; i < nr_remembered; i++) {
		struct remembered *r = &remembered[(last_remembered + i) % REMEMBERED];

		if (addr - r->mapping.start < r->mapping.end - r->mapping.start)
			return r;
	}
	return NULL;
}

static bool is_text(const struct xp__mapping *mapping)
{
	return (mapping->prot & (PROT_READ | PROT_EXEC)) == (PROT_READ | PROT_EXEC);
}

/* Whether [low, high) still is the text of the same file. The system may have joined mappings, or split one. */
static int is_same(const struct remembered *r, uintptr_t *where)
{
	struct xp__mapping now;

	for (*where = r->low; *where < r->high; *where = now.end) {
		int error = xp__maps_find(*where, &now);

		if (error)
			return error;
		if (!is_text(&now) || now.shared != r->mapping.shared || now.file != r->mapping.file ||
		    now.first != r->mapping.first)
			return -XP_E_NOT_TEXT;
	}
	return 0;
}

/* The mapping of @addr, remembered or asked for; 0 or an error. */
static int remember(uintptr_t addr, struct remembered **found)
{
	struct remembered *r = find_remembered(addr);
	struct xp__mapping mapping;
	uintptr_t where;
	int error;

	if (r && r->serves > 0) {
		r->serves--;
		r->again = true;
	} else if (r) {
		error = is_same(r, &where); /* M1 */
		if (error)
			return error;
		r->serves = SERVES;
	} else {
		error = xp__maps_find(addr, &mapping);
		if (error)
			return error;
		/* The oldest goes: to ask about its sites once more is not worth while, as it is not for one site. */
		last_remembered = (last_remembered + REMEMBERED - 1) % REMEMBERED;
		nr_remembered += nr_remembered < REMEMBERED;
		r = &remembered[last_remembered];
		*r = (struct remembered){.mapping = mapping, .low = addr, .high = addr + 1, .serves = SERVES};
	}
	*found = r;
	return 0;
}

int xp__maps_text(uintptr_t addr, size_t len)
{
	const uintptr_t end = addr + len;
	struct remembered *r;

	if (end < addr)
		return -XP_E_NOT_TEXT;
	for (uintptr_t at = addr; at < end; at = r->mapping.end) {
		int error = remember(at, &r);
		uintptr_t to;

		if (error)
			return error;
		to = end < r->mapping.end ? end : r->mapping.end;
		if (!is_text(&r->mapping))
			return -XP_E_NOT_TEXT;
		r->low = at < r->low ? at : r->low;
		r->high = to > r->high ? to : r->high;
	}
	return 0;
}

const struct xp__mapping *xp__maps_recall(uintptr_t addr)
{
	const struct remembered *r = find_remembered(addr);

	return r ? &r->mapping : NULL;
}

int xp__maps_again(uintptr_t *where)
{
	int error = 0;

	for (uint32_t i = 0; i < nr_remembered && !error; i++)
		if (remembered[(last_remembered + i) % REMEMBERED].again)
			error = is_same(&remembered[(last_remembered + i) % REMEMBERED], where); /* M2 */
	xp__maps_forget();
	return error;
}

void xp__maps_forget(void)
{
	nr_remembered = 0; /* M3 */
}

int xp__maps_file(uintptr_t addr, char *path, size_t size)
{
	struct reader r;
	struct xp__mapping mapping;
	int error;

	do {
		r = (struct reader){.from = 0};
		error = xp__maps_open();
		while (!error && read_line(&r, &mapping, path, size))
			if (addr >= mapping.start && addr < mapping.end)
				return path[0] == '\0' || memchr(path, '\0', size) == NULL ? -ENOENT : 0;
	} while (!error && r.from == 0 && xp__cached_fd_first_ended(&maps));
	return error ? error : -ENOENT;
}
