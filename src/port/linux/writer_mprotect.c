// SPDX-License-Identifier: MIT
/*
 * Writes text through a window in which its pages are writable and executable. Execution goes on meanwhile, so the
 * window keeps PROT_EXEC; it is closed before the write returns, also after an error.
 *
 * I1  Whether MDWE forbids the window is asked before each commit, and nothing is tried under it: the way in (RX to RWX)
 *     is refused there.
 * I2  The protection given back is the one that the mapping had. Where /proc/self/maps denies that it is executable
 *     (qemu-user 7.2 does of all text), nothing is written.
 * I3  A window that the system does not let us close (a filter, a security module, no memory) is tried again at once,
 *     then remembered: the write fails, and every later commit tries once more and is refused until it is closed or
 *     no longer there. To undo the commit takes windows too: there, to have the old bytes back is success.
 * I4  No store faults: an open window may still forbid it (a protection key), or there may be no memory for the page (huge
 *     pages). The system is asked first, page by page, to change nothing there.
 * Single stores of up to 8 bytes inside an aligned quadword, where the processor has them (port.c asks).
 */
#include "port/linux/writer.h"

#include "arch/arch.h"
#include "port/linux/maps.h"
#include "port/linux/probe.h"
#include "port/linux/sys.h"

#include <crosspatch/error.h>
#include <crosspatch/port.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define PAGE 4096ul

#ifndef PR_GET_MDWE
#define PR_GET_MDWE 66
#endif

#define CLOSE_TRIES 4
#define LEFT_MAX 32

static bool works; /* the last window opened and closed */

struct window {
	uintptr_t start, end;
	int prot; /* to give back */
};
static struct window left[LEFT_MAX]; /* open, and not to be */
static unsigned nr_left;

/* Part by part, what is still there and both writable and executable: it may have been unmapped since. */
static int close_parts(const struct window *window)
{
	int result = 0;

	for (uintptr_t at = window->start; at < window->end;) {
		struct xp__mapping mapping;
		int error = xp__maps_find(at, &mapping);
		uintptr_t end = window->end;

		if (error == -XP_E_NOT_TEXT) {
			at += PAGE;
			continue;
		}
		if (!error && mapping.end < end)
			end = mapping.end;
		if (!error && mapping.prot & PROT_WRITE && mapping.prot & PROT_EXEC)
			error = (int)XP__SYS3(SYS_mprotect, at, end - at, window->prot);
		if (error)
			result = error;
		at = end;
	}
	return result;
}

static int close_window(const struct window *window)
{
	long error = 0;

	for (int tries = 0; tries < CLOSE_TRIES; tries++) {
		error = XP__SYS3(SYS_mprotect, window->start, window->end - window->start, window->prot);
		if (error == 0)
			return 0;
		XP__SYS1(SYS_sched_yield, 0);
	}
	return close_parts(window);
}

int xp__windows_close(void)
{
	int result = 0;

	for (unsigned i = nr_left; i-- > 0;) {
		int error = close_window(&left[i]);

		if (error)
			result = error;
		else
			left[i] = left[--nr_left];
	}
	return result;
}

bool xp__windows_left(void)
{
	return nr_left > 0;
}

/* Opens a window around [start, end), inside one mapping: of whole pages, which may be huge. 0 or -errno. */
static long open_window(uintptr_t start, uintptr_t end, const struct xp__mapping *mapping, struct window *window)
{
	static const uintptr_t sizes[] = {PAGE, 2ul << 20, 1ul << 30};
	long error = -EINVAL;

	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && error == -EINVAL; i++) {
		window->start = start & ~(sizes[i] - 1);
		window->end = (end + sizes[i] - 1) & ~(sizes[i] - 1);
		window->prot = mapping->prot;
		if (i > 0 && (window->start < mapping->start || window->end > mapping->end))
			break;
		error = XP__SYS3(SYS_mprotect, window->start, window->end - window->start, window->prot | PROT_WRITE);
	}
	return error;
}

/* I4 */
static bool can_store(uintptr_t addr, size_t len)
{
	for (uintptr_t at = addr; at < addr + len; at = (at & ~(PAGE - 1)) + PAGE)
		if (xp__data_check((const void *)at))
			return false;
	return true;
}

static void store(void *addr, const void *bytes, size_t len, unsigned flags)
{
	if (flags & XP_WRITE_SINGLE)
		xp__store_single(addr, bytes, len);
	else
		memcpy(addr, bytes, len);
}

/* [addr, addr + len) lies inside one mapping, whose protection is given back. */
static int with_window(const struct xp__mapping *mapping, void *addr, const void *bytes, size_t len, unsigned flags)
{
	struct window window;
	const int prot = mapping->prot;
	long error = 0;
	int stored = 0;

	if (!(prot & PROT_WRITE))
		error = open_window((uintptr_t)addr, (uintptr_t)addr + len, mapping, &window);
	if (error)
		return (int)error;
	if (can_store((uintptr_t)addr, len))
		store(addr, bytes, len, flags);
	else
		stored = -EACCES;
	if (prot & PROT_WRITE)
		return stored;
	error = close_window(&window);
	if (error == 0)
		return stored;
	if (nr_left == LEFT_MAX)
		return (int)error;
	left[nr_left++] = window;
	return flags & XP_WRITE_UNDO ? stored : (int)error;
}

static int write_window(void *addr, const void *bytes, size_t len, unsigned flags)
{
	uintptr_t at = (uintptr_t)addr;
	const uint8_t *from = bytes;

	if (flags & XP_WRITE_SINGLE && !xp__can_store_single())
		return -ENOTSUP;
	if (flags & XP_WRITE_SINGLE && (len > 8 || at / 8 != (at + len - 1) / 8))
		return -EINVAL;
	while (len > 0) {
		struct xp__mapping mapping;
		int error = xp__maps_find(at, &mapping);
		size_t part = len;

		/* To give back what is said here would end its execution. */
		if (!error && !(mapping.prot & PROT_EXEC))
			error = -XP_E_NOT_TEXT;
		if (error)
			return error;
		if (at + part > mapping.end)
			part = mapping.end - at;
		error = with_window(&mapping, (void *)at, from, part, flags);
		works = error == 0;
		if (error)
			return error;
		at += part;
		from += part;
		len -= part;
	}
	return 0;
}

static int mprotect_probe(void)
{
	if (XP__SYS6(SYS_prctl, PR_GET_MDWE, 0, 0, 0, 0, 0) > 0)
		return -EPERM;
	if (works)
		return 0;
	return write_window((void *)(uintptr_t)xp__probe_text, xp__probe_text, 1, 0);
}

static bool mprotect_ready(void)
{
	return mprotect_probe() == 0;
}

const struct xp__writer xp__writer_mprotect = {
	.name = "mprotect",
	.single = true,
	.probe = mprotect_probe,
	.ready = mprotect_ready,
	.write = write_window,
};
