// SPDX-License-Identifier: MIT
/*
 * Writes text through /proc/self/mem: the kernel writes past the page's protection, as for a debugger (FOLL_FORCE), and
 * gives this process its own copy of a file's page. The page is never writable, so this works under MDWE and mseal.
 *
 * I1  The descriptor belongs to the memory of the process that opened it. In a child of fork it would write into the
 *     parent: opened anew there before the first write.
 * I2  It is opened for a commit, or kept (cached_fd.c). Whether it still is ours is looked at before every write: a page's
 *     bytes in a file of the program's would be worse than any error. One that was closed or replaced in the middle of a
 *     commit is opened again.
 * I3  A mapping that is shared and not writable, or of huge pages, is not written so: -EIO. port.c then asks the other writer.
 * I4  What is closed was looked at, or has just written: the text has changed, so the number was ours at that moment. A
 *     commit of one write opens, writes and closes in one go; a later one that undoes it opens again.
 * Not a single store, except for one byte: the kernel copies as it likes.
 */
#include "port/linux/writer.h"

#include "port/linux/cached_fd.h"
#include "port/linux/marks.h"
#include "port/linux/probe.h"
#include "port/linux/sys.h"

#include <crosspatch/error.h>
#include <crosspatch/port.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define PLACE ((int64_t)0x8000000070726f63ull) /* cached_fd.c, K1: where only a memory file can stand */

#define PATHS "/proc/self/mem", "/proc/thread-self/mem"
#define TRIES 4
#define SHORT 64u /* bytes that are compared in less time than a call takes */

static struct xp__cached_fd mem = {.fd = -1};
static bool works; /* the last write did */

/* A child of vfork shares memory and marks with its parent, and keeps the parent's. */
static int procmem_open(void)
{
	uint32_t *mark = &xp__marks_fork[XP__MARK_PROCMEM];
	int error;

	if (*mark && xp__cached_fd_ours(&mem))
		return 0;
	do
		error = xp__cached_fd_open(&mem, mark, xp__cached_fd_path(PATHS), O_RDWR, PLACE);
	while (error == -ESRCH && xp__cached_fd_first_ended(&mem));
	return error;
}

/* The number of bytes written, or -errno; -EBADF: closed between the look and the use, or by a handler that forked there. */
static long write_once(void *addr, const void *bytes, size_t len, bool last)
{
	int error;
	long done;

	if (last && mem.fd < 0) {
		do
			done = xp__cached_fd_write(&mem, xp__cached_fd_path(PATHS), PLACE, addr, bytes, len);
		while ((done == -ESRCH || done == 0) && xp__cached_fd_first_ended(&mem));
		return done;
	}
	error = procmem_open();
	if (error)
		return error;
	/* ordering: (W1) pairs with (S1), (S3): the bytes are there before any processor serializes for them */
	done = xp__pwrite(mem.fd, bytes, len, (uintptr_t)addr);
	if (done == 0 && xp__cached_fd_first_ended(&mem))
		return -EBADF;
	/* I4 */
	if (last && done == (long)len && memcmp(addr, bytes, len) == 0)
		xp__cached_fd_close(&mem);
	return done;
}

static int write_mem(void *addr, const void *bytes, size_t len, unsigned flags)
{
	const bool last = flags & XP_WRITE_LAST && len <= SHORT && !xp__cached_fd_stay();
	long done = -EBADF;

	if (flags & XP_WRITE_SINGLE && len > 1)
		return -ENOTSUP;
	for (int tries = 0; done == -EBADF && tries < TRIES; tries++)
		done = write_once(addr, bytes, len, last);
	works = done >= 0 && (size_t)done == len;
	return works ? 0 : done < 0 ? (int)done : -EIO;
}

/*
 * Whether the file has our memory where we have it. That of a translator has not: qemu-user maps a program's memory elsewhere in
 * its own, and a write would go to other text.
 */
static bool is_our_memory(void)
{
	uint8_t text[XP__PROBE_LEN];

	return xp__pread(mem.fd, text, sizeof(text), (uintptr_t)xp__probe_text) == (long)sizeof(text) &&
	       memcmp(text, xp__probe_text, sizeof(text)) == 0;
}

static int procmem_probe(void)
{
	int error = procmem_open();

	if (!error && !works && !is_our_memory())
		return -XP_E_TRANSLATED;
	/* Kernels may restrict the writing past protections (proc_mem.force_override): try it on a byte of our own. */
	if (!error && !works)
		error = write_mem((void *)(uintptr_t)xp__probe_text, xp__probe_text, 1, 0);
	return error;
}

/* Opened by the first write: nothing has changed yet if that fails, and under auto the other writer serves. */
static bool procmem_ready(void)
{
	return works;
}

const struct xp__writer xp__writer_procmem = {
	.name = "procmem",
	.single = false,
	.probe = procmem_probe,
	.ready = procmem_ready,
	.write = write_mem,
};
