// SPDX-License-Identifier: MIT
/*
 * What is mapped at an address. Asks the kernel for that one mapping (PROCMAP_QUERY, Linux 6.11) or reads
 * /proc/self/maps up to it. Never from memory: what is mapped changes, and nobody tells us. The file stays open
 * (kept.c): to open it costs four times as much as to ask. To read by another descriptor of the same file is as good
 * (K2), and the place is inside the first line, for lseek makes all the text up to it.
 */
#include "port/linux/port.h"

#include <fcntl.h>
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
#include <sys/ioctl.h>

static bool ask(int fd, uintptr_t addr, struct xp__mapping *mapping, int *result)
{
	struct query q = {.size = sizeof(q), .addr = addr};
	long error = XP__SYS3(SYS_ioctl, fd, QUERY, &q);

	*result = -XP_E_NOT_TEXT;
	if (error == 0) {
		mapping->start = q.start;
		mapping->end = q.end;
		mapping->prot = (q.vma_flags & QUERY_READABLE ? PROT_READ : 0) |
				(q.vma_flags & QUERY_WRITABLE ? PROT_WRITE : 0) |
				(q.vma_flags & QUERY_EXECUTABLE ? PROT_EXEC : 0);
		*result = 0;
	}
	return error == 0 || error == -2; /* ENOENT: nothing is mapped there */
}

#define PLACE 29

static struct xp__kept maps = {.fd = -1};

struct reader {
	int64_t from; /* of the file, what comes into the buffer next */
	size_t at, filled;
	char buffer[1024];
};

static int next_char(struct reader *r)
{
	if (r->at == r->filled) {
		long n = xp__pread(maps.fd, r->buffer, sizeof(r->buffer), (uint64_t)r->from);

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

/* 7f0000000000-7f0000001000 r-xp … */
static bool read_line(struct reader *r, struct xp__mapping *mapping)
{
	int c;

	if (!read_hex(r, &mapping->start) || !read_hex(r, &mapping->end))
		return false;
	mapping->prot = 0;
	mapping->prot |= next_char(r) == 'r' ? PROT_READ : 0;
	mapping->prot |= next_char(r) == 'w' ? PROT_WRITE : 0;
	mapping->prot |= next_char(r) == 'x' ? PROT_EXEC : 0;
	do
		c = next_char(r);
	while (c >= 0 && c != '\n');
	return true;
}

int xp__maps_find(uintptr_t addr, struct xp__mapping *mapping)
{
	struct reader r = {.from = 0, .at = 0, .filled = 0};
	int result;

	if (!xp__fork_marks[XP__MARK_MAPS] || !xp__kept_same(&maps, NULL)) {
		int error = xp__kept_open(&maps, &xp__fork_marks[XP__MARK_MAPS], AT_FDCWD, "/proc/self/maps",
					  O_RDONLY, PLACE);

		if (error)
			return error;
	}
	if (!ask(maps.fd, addr, mapping, &result)) {
		while (result && read_line(&r, mapping))
			if (addr >= mapping->start && addr < mapping->end)
				result = 0;
	}
	return result;
}
