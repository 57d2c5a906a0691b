// SPDX-License-Identifier: MIT
/*
 * Text is mapped read-only and CR0.WP is set. Two ways around:
 *
 * window   the page of text is mapped a second time, writable, for as long as one write takes. Its entry is absent in
 *          between. Only the processor that writes uses the alias; what another one may have loaded of it by
 *          speculation is dropped before it uses the page itself.
 * CR0.WP   cleared for as long as one write takes, by the early policy, when there is no window yet. Loading CR0
 *          serializes, and no sync follows: no other processor runs.
 *
 * Both with interrupts off: the write stays on this processor, and nothing but an NMI or a machine check runs meanwhile.
 * I1  Every byte is stored once. XP_WRITE_SINGLE is one store of the aligned quadword around it.
 */
#include "port/bare/port.h"

#include "core/deps.h"

#define PAGE 4096u
#define CR0_WP (1ull << 16)
#define ENTRY_PRESENT 0x1ull
#define ENTRY_WRITABLE 0x2ull
#define ENTRY_ACCESSED 0x20ull
#define ENTRY_DIRTY 0x40ull
#define ENTRY_NX (1ull << 63)

bool xp__bare_write_early;

static struct text {
	const struct xp_range *ranges;
	size_t nr;
} texts[2];
static const struct text *text; /* one of the two; NULL: what xp_bare_start() was given */

int xp__bare_text_check(const void *addr, size_t len)
{
	/* ordering: (BT2) pairs with (BT1): ranges that are found are read as they were filled */
	const struct text *now = __atomic_load_n(&text, __ATOMIC_ACQUIRE);
	const struct xp_range *ranges = now ? now->ranges : xp__bare->text;
	size_t nr = now ? now->nr : xp__bare->nr_text;
	uintptr_t start = (uintptr_t)addr, end = start + len;

	for (size_t i = 0; i < nr; i++)
		if (start >= ranges[i].start && start <= end && end <= ranges[i].end)
			return 0;
	return -XP_E_NOT_TEXT;
}

int xp_bare_text_set(const struct xp_range *ranges, size_t nr)
{
	struct text *next;
	int error;

	if (ranges == NULL)
		return -XP__EINVAL;
	error = xp__bare_lock();
	if (error)
		return error;
	next = text == &texts[0] ? &texts[1] : &texts[0];
	next->ranges = ranges;
	next->nr = nr;
	/* ordering: (BT1) pairs with (BT2): the ranges are filled before they are found */
	__atomic_store_n(&text, next, __ATOMIC_RELEASE);
	/* A trap handler has interrupts off as long as it may look at what was there: one that answers has left it. */
	error = xp__bare_sync();
	xp__bare_unlock();
	return error;
}

/* A breakpoint outside may be a user's, in memory that is not there any more, or that the kernel may not read (SMAP). */
int xp__bare_text_peek(const void *addr)
{
	return xp__bare_text_check(addr, 1) ? -1 : *(const volatile uint8_t *)addr;
}

int xp__bare_text_read(void *to, const void *addr, size_t len)
{
	memcpy(to, addr, len); /* text_check() found it to be text, which is mapped */
	return 0;
}

static void store_quadword(uint8_t *to, uint64_t value)
{
	/* ordering: (BW1) pairs with (BS1): the bytes are there before any processor serializes for them */
	__atomic_store_n((uint64_t *)to, value, __ATOMIC_RELEASE);
}

/* By stores of our own: a memcpy may store a byte twice. */
static void store(uint8_t *to, const uint8_t *bytes, size_t len, unsigned flags)
{
	uint64_t value;

	if (flags & XP_WRITE_SINGLE) {
		uint8_t *quadword = (uint8_t *)((uintptr_t)to & ~(uintptr_t)7);

		__builtin_memcpy(&value, quadword, sizeof(value));
		memcpy((uint8_t *)&value + (uintptr_t)to % 8, bytes, len);
		store_quadword(quadword, value);
		return;
	}
	while (len > 0) {
		if ((uintptr_t)to % 8 == 0 && len >= 8) {
			__builtin_memcpy(&value, bytes, sizeof(value)); /* one load */
			store_quadword(to, value);
			to += 8;
			bytes += 8;
			len -= 8;
		} else {
			*(volatile uint8_t *)to++ = *bytes++;
			len--;
		}
	}
}

static inline void forget(const void *page)
{
	__asm__ volatile("invlpg (%0)" : : "r"(page) : "memory");
}

static void store_through_window(uint8_t *addr, const uint8_t *bytes, size_t len, unsigned flags)
{
	volatile uint64_t *entry = xp__bare->window_entry;
	uint64_t frame = xp__bare->physical(addr) & ~(uint64_t)(PAGE - 1);

	*entry = frame | ENTRY_PRESENT | ENTRY_WRITABLE | ENTRY_ACCESSED | ENTRY_DIRTY | ENTRY_NX;
	forget(xp__bare->window);
	store(xp__bare->window + (uintptr_t)addr % PAGE, bytes, len, flags);
	*entry = 0;
	forget(xp__bare->window);
}

static void store_unprotected(uint8_t *addr, const uint8_t *bytes, size_t len, unsigned flags)
{
	uint64_t cr0;

	__asm__ volatile("movq %%cr0, %0" : "=r"(cr0));
	__asm__ volatile("movq %0, %%cr0" : : "r"(cr0 & ~CR0_WP) : "memory");
	store(addr, bytes, len, flags);
	__asm__ volatile("movq %0, %%cr0" : : "r"(cr0) : "memory");
	xp__bare_stats.early++;
}

int xp__bare_text_write(void *addr, const void *bytes, size_t len, unsigned flags)
{
	uint8_t *to = addr;
	const uint8_t *from = bytes;
	uint64_t irq = xp__bare_irq_save();

	while (len > 0) {
		size_t room = PAGE - (uintptr_t)to % PAGE, part = len < room ? len : room;

		if (xp__bare_write_early)
			store_unprotected(to, from, part, flags);
		else
			store_through_window(to, from, part, flags);
		to += part;
		from += part;
		len -= part;
	}
	xp__bare_irq_restore(irq);
	return 0;
}
