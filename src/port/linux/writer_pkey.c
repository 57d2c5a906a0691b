// SPDX-License-Identifier: MIT
/*
 * Writes text without a system call: its pages are writable and executable for good, under a protection key that lets no thread
 * write but the one that commits, and that one for the moment of its store.
 *
 * I1  A page gets the key when it is first written to, by the same call that makes it writable: at no moment can it be written
 *     without the key. Only private text that may be read and executed, not written, and has no other key. It stays a file's
 *     mapping, this process' own copy, as with any writer; a child of fork has its own again, under the same key. Anything else
 *     (shared, huge, sealed) is refused, and port.c asks the other writers.
 * I2  Every thread may read and not write (keys.c, I1). The committing thread gives itself the right to write, stores, and takes
 *     it back, and does nothing else in between. If a signal comes there, its handler runs without the right, even if it leaves by
 *     siglongjmp, forks, makes a thread or switches to a coroutine. Only its end gives the right back, to the interrupted store.
 * I3  What rights a thread had before the key was taken is not known, since pkey_free() leaves them as they are. So each
 *     thread is brought to a handler that sets them in its signal frame (sync_signal.c), by a round that parks: no thread makes
 *     another meanwhile. Until each has come no page has the key. While there is one thread no round is needed. A round cannot
 *     reach what the frame of an outer handler keeps: a thread that was in a handler has its former rights when that handler ends.
 * I4  A store into a page that is not ours any more would fault: it was unmapped, or mapped anew. Sites of registered modules
 *     stay until their module goes (XP_WRITE_KNOWN), and such pages are known. Before a module goes, all known pages get their
 *     protection back, because something else may be mapped there later. Pages of other text are asked about before each store:
 *     if such a page was mapped anew, our store would fault, or spoil what is there now.
 * I5  When another writer takes over, each page gets its protection and key 0 back. If the system refuses, this writer stays in
 *     force, with the pages that are left: no thread can write there but by it.
 */
#include "port/linux/writer.h"

#include "arch/arch.h"
#include "port/linux/keys.h"
#include "port/linux/maps.h"
#include "port/linux/memory.h"
#include "port/linux/sync_signal.h"
#include "port/linux/sys.h"
#include "port/linux/threads.h"

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

/* ---- pages that have the key: ascending, apart from each other or one known and the other not ---- */

struct keyed {
	uintptr_t start, end;
	bool known; /* it is ours until a module goes; else it is to be asked about */
};

static struct keyed first_room[64];
static struct keyed *keyed = first_room;
static size_t nr_keyed, room = sizeof(first_room) / sizeof(first_room[0]);
static size_t last; /* the one that was asked for last */

/* The first that ends behind @at. */
static size_t place_of(uintptr_t at)
{
	size_t low = 0, high = nr_keyed;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (keyed[middle].end <= at)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The one that @at lies in, or NULL. */
static inline struct keyed *find(uintptr_t at)
{
	if (last >= nr_keyed || at < keyed[last].start || at >= keyed[last].end)
		last = place_of(at);
	return last < nr_keyed && at >= keyed[last].start ? &keyed[last] : NULL;
}

/* Room for two more, so that what follows cannot fail. */
static bool make_room(void)
{
	struct keyed *more;

	if (nr_keyed + 2 <= room)
		return true;
	more = xp__memory_alloc(2 * room * sizeof(*more));
	if (more == NULL)
		return false;
	memcpy(more, keyed, nr_keyed * sizeof(*more));
	if (keyed != first_room)
		xp__memory_release(keyed, room * sizeof(*keyed));
	keyed = more;
	room *= 2;
	return true;
}

static void insert(size_t at, uintptr_t start, uintptr_t end, bool known)
{
	memmove(&keyed[at + 1], &keyed[at], (nr_keyed - at) * sizeof(*keyed));
	keyed[at] = (struct keyed){start, end, known};
	nr_keyed++;
}

/* Pages [start, end) are no longer in the table. Takes at most one more place. */
static void forget(uintptr_t start, uintptr_t end)
{
	size_t at = place_of(start), behind;

	if (at < nr_keyed && keyed[at].start < start) {
		struct keyed before = keyed[at];

		keyed[at++].end = start;
		if (before.end > end) {
			insert(at, end, before.end, before.known);
			return;
		}
	}
	for (behind = at; behind < nr_keyed && keyed[behind].end <= end; behind++)
		;
	if (behind < nr_keyed && keyed[behind].start < end)
		keyed[behind].start = end;
	memmove(&keyed[at], &keyed[behind], (nr_keyed - behind) * sizeof(*keyed));
	nr_keyed -= behind - at;
}

/* They are, and are known to be ours, or not. Takes at most two more places. */
static void note(uintptr_t start, uintptr_t end, bool known)
{
	size_t at;

	forget(start, end);
	at = place_of(start);
	insert(at, start, end, known);
	if (at + 1 < nr_keyed && keyed[at + 1].start == end && keyed[at + 1].known == known) {
		keyed[at].end = keyed[at + 1].end;
		memmove(&keyed[at + 1], &keyed[at + 2], (nr_keyed - at - 2) * sizeof(*keyed));
		nr_keyed--;
	}
	if (at > 0 && keyed[at - 1].end == start && keyed[at - 1].known == known) {
		keyed[at - 1].end = keyed[at].end;
		memmove(&keyed[at], &keyed[at + 1], (nr_keyed - at - 1) * sizeof(*keyed));
		nr_keyed--;
	}
}

static long give_back(uintptr_t start, uintptr_t end)
{
	return XP__SYS4(SYS_pkey_mprotect, start, end - start, PROT_READ | PROT_EXEC, 0);
}

/* I4. Where the system refuses, in whole or in part, the pages are to be asked about from now on. */
void xp__keyed_gone(void)
{
	size_t kept = 0;

	for (size_t i = 0; i < nr_keyed; i++) {
		if (keyed[i].known && give_back(keyed[i].start, keyed[i].end) == 0)
			continue;
		keyed[kept] = keyed[i];
		keyed[kept++].known = false;
	}
	nr_keyed = kept;
}

/* ---- the window ---- */

/* I2. What the thread may not is said by @closed, for the end. */
static inline void open_rights(uint32_t *closed)
{
	*closed = xp__key_rights(xp__pkru(), xp__key_bits);
	xp__pkru_set(*closed & ~xp__key_bits);
}

static inline void close_rights(uint32_t closed)
{
	xp__pkru_set(closed);
}

static bool can_write_page(uintptr_t page)
{
	uint32_t closed;
	bool can;

	open_rights(&closed);
	can = xp__data_check((const void *)page) == 0;
	close_rights(closed);
	return can;
}

/* I4 */
static bool is_ours(uintptr_t page)
{
	return xp__data_check((const void *)page) && can_write_page(page);
}

bool xp__keyed_is_ours(uintptr_t addr)
{
	return nr_keyed > 0 && find(addr) && is_ours(addr & ~(PAGE - 1));
}

bool xp__keyed_known(const void *addr, size_t len)
{
	const struct keyed *range = nr_keyed > 0 ? find((uintptr_t)addr) : NULL;

	return range && range->known && len <= range->end - (uintptr_t)addr;
}

static uint32_t window_closed; /* what the thread with the window may at its end */

uintptr_t xp__keyed_window(const void *addr)
{
	const uintptr_t end = xp__keyed_known(addr, 1) ? find((uintptr_t)addr)->end : 0;

	if (end)
		open_rights(&window_closed);
	return end;
}

void xp__keyed_close(void)
{
	close_rights(window_closed);
}

/* I1. Pages from @start on, up to @end or to the end of what is mapped alike: their end, or an error in @error. */
static uintptr_t take_pages(uintptr_t start, uintptr_t end, bool known, int *error)
{
	struct xp__mapping mapping;

	*error = xp__maps_find(start, &mapping);
	if (*error)
		return start;
	if (mapping.end < end)
		end = mapping.end;
	*error = -ENOTSUP;
	if (mapping.shared || mapping.prot != (PROT_READ | PROT_EXEC))
		return start;
	for (uintptr_t page = start; page < end; page += PAGE)
		if (!xp__handlers_read(page))
			return start;
	*error = -ENOMEM;
	if (!make_room())
		return start;
	*error = (int)XP__SYS4(SYS_pkey_mprotect, start, end - start, PROT_READ | PROT_WRITE | PROT_EXEC,
			       xp__key_take());
	if (*error)
		return start;
	note(start, end, known);
	return end;
}

/* Every page of [start, end) has the key. */
static int make_ready(uintptr_t start, uintptr_t end, bool known)
{
	int error = 0;

	for (uintptr_t page = start; page < end && !error;) {
		struct keyed *range = find(page);
		uintptr_t to = range ? page + PAGE : end;

		if (range && known && range->known) {
			page = range->end;
			continue;
		}
		if (range && is_ours(page)) {
			error = make_room() ? 0 : -ENOMEM;
			if (!error && known)
				note(page, to, known);
			page = to;
			continue;
		}
		if (!range && place_of(page) < nr_keyed && keyed[place_of(page)].start < to)
			to = keyed[place_of(page)].start;
		page = take_pages(page, to, known, &error);
	}
	return error;
}

static int write_key(void *addr, const void *bytes, size_t len, unsigned flags)
{
	const uintptr_t at = (uintptr_t)addr;
	uint32_t closed;
	int error = 0;

	if (flags & XP_WRITE_SINGLE && !xp__can_store_single())
		return -ENOTSUP;
	if (flags & XP_WRITE_SINGLE && (len > 8 || at / 8 != (at + len - 1) / 8))
		return -EINVAL;
	if (!(flags & XP_WRITE_KNOWN) || !xp__keyed_known(addr, len))
		error = make_ready(at & ~(PAGE - 1), (at + len + PAGE - 1) & ~(PAGE - 1), flags & XP_WRITE_KNOWN);
	if (error)
		return error;
	open_rights(&closed);
	/* ordering: (W1) pairs with (S1), (S3): the bytes are there before any processor serializes for them */
	if (flags & XP_WRITE_SINGLE)
		xp__store_single(addr, bytes, len);
	else if (len == 1)
		*(volatile uint8_t *)addr = *(const uint8_t *)bytes; /* no call */
	else
		memcpy(addr, bytes, len);
	close_rights(closed);
	return 0;
}

/* ---- taken, and left ---- */

static bool taken; /* every thread has its rights */

/* I3 */
static int ask_threads(void)
{
	uint64_t spent = 0;
	int error = xp__threads_alone() ? 0 : xp__rendezvous_start();

	if (error || xp__threads_alone())
		return error;
	error = xp__rendezvous_meet(true, XP__BEFORE, &spent, NULL);
	if (!error)
		xp__rendezvous_release();
	return xp__key_frames_failed() && !error ? -ENOTSUP : error;
}

static int pkey_probe(void)
{
	int key, error;

	if (taken)
		return 0;
	if (XP__SYS6(SYS_prctl, PR_GET_MDWE, 0, 0, 0, 0, 0) > 0)
		return -EPERM;
	key = xp__key_take();
	if (key < 0)
		return key;
	xp__key_read();
	error = ask_threads();
	if (error)
		xp__key_give();
	taken = error == 0;
	return error;
}

static bool pkey_ready(void)
{
	return taken;
}

/* Those that have the key still: others were unmapped, or are another's by now. */
int xp__keyed_leave(void)
{
	while (nr_keyed > 0) {
		struct keyed *range = &keyed[nr_keyed - 1];
		uintptr_t page = range->end - PAGE;
		long error = 0;

		if (xp__key_has(page))
			error = give_back(page, range->end);
		/* The program may unmap what is not known (I4) at this moment. */
		if (error && xp__key_has(page))
			return (int)error;
		range->end = page;
		nr_keyed -= range->start == page;
	}
	return 0;
}

const struct xp__writer xp__writer_pkey = {
	.name = "pkey",
	.single = true,
	.probe = pkey_probe,
	.ready = pkey_ready,
	.write = write_key,
};
