// SPDX-License-Identifier: MIT
/*
 * Writes text through /proc/self/mem: the kernel writes past the page's protection, as for a debugger (FOLL_FORCE), and
 * gives this process its own copy of a file's page. The page is never writable, so this works under MDWE and mseal.
 *
 * I1  The descriptor belongs to the memory of the process that opened it. In a child of fork it would write into the
 *     parent: opened anew there before the first write.
 * I2  It is opened early (after setuid the kernel refuses) and kept at a high number, out of the way of programs that
 *     close what they did not open and reuse the low ones. Whether it still is ours is checked once per commit
 *     (probe): a page offset written to somebody's file would be worse than any error.
 * Not a single store, except for one byte: the kernel copies as it likes.
 */
#include "port/linux/port.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static int fd = -1;
static dev_t device;
static ino_t inode; /* of the open descriptor */
static bool works;  /* the last write did */

static bool is_ours(void)
{
	struct stat st;

	return fd >= 0 && XP__SYS2(SYS_fstat, fd, &st) == 0 && st.st_dev == device && st.st_ino == inode;
}

static int open_mem(void)
{
	struct stat st;
	int new;

	/* The parent's, in the child of a fork. A child of vfork shares memory and mark with its parent and keeps it. */
	if (is_ours())
		XP__SYS1(SYS_close, fd);
	fd = -1;
	new = (int)XP__SYS4(SYS_openat, AT_FDCWD, "/proc/self/mem", O_RDWR | O_CLOEXEC, 0);

	if (new < 0)
		return new;
	new = xp__move_high(new);
	XP__SYS2(SYS_fstat, new, &st);
	device = st.st_dev;
	inode = st.st_ino;
	fd = new;
	xp__fork_marks[XP__MARK_PROCMEM] = 1;
	return 0;
}

static int write_mem(void *addr, const void *bytes, size_t len, unsigned flags)
{
	long done;

	if (flags & XP_WRITE_SINGLE && len > 1)
		return -ENOTSUP;
	if (!xp__fork_marks[XP__MARK_PROCMEM]) {
		int error = open_mem();

		if (error)
			return error;
	}
	/* ordering: (W1) pairs with (S1) */
	done = XP__SYS4(SYS_pwrite64, fd, bytes, len, addr);
	works = done >= 0 && (size_t)done == len;
	return works ? 0 : done < 0 ? (int)done : -EIO;
}

static int probe(void)
{
	if (xp__fork_marks[XP__MARK_PROCMEM] && is_ours() && works)
		return 0;
	if (!is_ours())
		xp__fork_marks[XP__MARK_PROCMEM] = 0;
	/* Kernels may restrict the writing past protections (proc_mem.force_override): try it on a byte of our own. */
	return write_mem((void *)(uintptr_t)xp__probe_text, xp__probe_text, 1, 0) ? -XP_E_NO_WRITER : 0;
}

const struct xp__writer xp__writer_procmem = {
	.name = "procmem",
	.single = false,
	.probe = probe,
	.write = write_mem,
};
