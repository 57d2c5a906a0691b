// SPDX-License-Identifier: MIT
/*
 * Writes text through a window in which its pages are writable and executable. Execution goes on meanwhile, so the
 * window keeps PROT_EXEC; it is closed before the write returns, also after an error.
 *
 * I1  Under MDWE the way in (RX to RWX) is refused, which harms nothing; the way back is a plain loss of PROT_WRITE.
 * I2  The protection given back is the one that the mapping had.
 * Single stores of up to 8 bytes inside an aligned quadword.
 */
#include "port/linux/port.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define PAGE 4096ul

#ifndef PR_GET_MDWE
#define PR_GET_MDWE 66
#endif

static bool works; /* the last window opened and closed */

/* One store of the whole quadword: the bytes around are read and written back, under the text lock. */
static void store_quadword(void *addr, const void *bytes, size_t len)
{
	uintptr_t at = (uintptr_t)addr;
	uint64_t *quadword = (uint64_t *)(at & ~(uintptr_t)7);
	uint64_t value = __atomic_load_n(quadword, __ATOMIC_RELAXED);

	memcpy((uint8_t *)&value + (at & 7), bytes, len);
	/* ordering: (W2) pairs with (S1) */
	__atomic_store_n(quadword, value, __ATOMIC_RELEASE);
}

/* [start, end) of pages inside one mapping; restores @prot. */
static int with_window(uintptr_t start, uintptr_t end, int prot, void *addr, const void *bytes, size_t len,
		       unsigned flags)
{
	long error = 0;

	if (!(prot & PROT_WRITE))
		error = XP__SYS3(SYS_mprotect, start, end - start, prot | PROT_WRITE);
	if (error)
		return (int)error;
	if (flags & XP_WRITE_SINGLE)
		store_quadword(addr, bytes, len);
	else
		memcpy(addr, bytes, len);
	if (!(prot & PROT_WRITE))
		error = XP__SYS3(SYS_mprotect, start, end - start, prot);
	return (int)error;
}

static int write_window(void *addr, const void *bytes, size_t len, unsigned flags)
{
	uintptr_t at = (uintptr_t)addr;
	const uint8_t *from = bytes;

	if (flags & XP_WRITE_SINGLE && (len > 8 || at / 8 != (at + len - 1) / 8))
		return -EINVAL;
	while (len > 0) {
		struct xp__mapping mapping;
		int error = xp__maps_find(at, &mapping);
		size_t part = len;

		if (error)
			return error;
		if (at + part > mapping.end)
			part = mapping.end - at;
		error = with_window(at & ~(PAGE - 1), (at + part + PAGE - 1) & ~(PAGE - 1), mapping.prot, (void *)at,
				    from, part, flags);
		works = error == 0;
		if (error)
			return error;
		at += part;
		from += part;
		len -= part;
	}
	return 0;
}

static int probe(void)
{
	if (works)
		return 0;
	if (XP__SYS6(SYS_prctl, PR_GET_MDWE, 0, 0, 0, 0, 0) > 0)
		return -XP_E_NO_WRITER;
	return write_window((void *)(uintptr_t)xp__probe_text, xp__probe_text, 1, 0) ? -XP_E_NO_WRITER : 0;
}

const struct xp__writer xp__writer_mprotect = {
	.name = "mprotect",
	.single = true,
	.probe = probe,
	.write = write_window,
};
