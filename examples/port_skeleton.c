// SPDX-License-Identifier: MIT
/*
 * A port to begin with. It is complete for one thing: the early policy, before other processors run, on text that may be
 * written. All else it refuses, and says so in can(): grow it from there, in this order, with tests/regression/conformance.c
 * after each step. What each function must do, and what goes wrong if not: <crosspatch/port.h>, doc/porting.md.
 */
#include <crosspatch/port.h>

#define MEMORY (256u << 10)

static unsigned char memory[MEMORY] __attribute__((aligned(64)));
static size_t used;
static int locked;

/* 1. The bounds of the kernel's text. */
static uintptr_t text_start, text_end;

/* 2. A lock that others wait for. It refuses its holder: an interrupt that interrupted a commit would wait for ever. */
static int lock(void)
{
	if (locked)
		return -XP_E_REENTRANT;
	locked = 1;
	return 0;
}

static void unlock(void)
{
	locked = 0;
}

/* 3. Memory that comes back: this only counts up, and takes back what it gave last. src/port/bare/memory.c is one that does. */
static void *alloc(size_t size)
{
	unsigned char *block = memory + used;

	if (size > sizeof(memory) - used)
		return NULL; /* the core makes -ENOMEM of it */
	used += (size + 63) & ~(size_t)63;
	for (size_t i = 0; i < size; i++)
		((volatile unsigned char *)block)[i] = 0;
	return block;
}

static void release(void *block, size_t size)
{
	if ((unsigned char *)block + ((size + 63) & ~(size_t)63) == memory + used)
		used = (size_t)((unsigned char *)block - memory);
}

/*
 * 4. Grows with the port: XP_NEED_SYNC with sync_core(); XP_NEED_TRAP when the breakpoint's vector leads to xp_trap(), and
 *    XP_NEED_CALL if there are no shadow stacks; XP_NEED_SINGLE if text_write() stores a quadword at once; XP_NEED_PARK.
 */
static unsigned can(unsigned needs)
{
	return needs & XP_NEED_ALONE;
}

/* 5. The last word before the first store. Whether other processors run is to be looked at here. */
static int prepare(unsigned needs, struct xp_diag *diag)
{
	if (!(needs & ~(unsigned)XP_NEED_ALONE))
		return 0;
	if (diag)
		diag->detail = "this port knows the early policy only";
	return -XP_E_NO_METHOD;
}

static int text_check(const void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)addr;

	return start >= text_start && start <= text_end && len <= text_end - start ? 0 : -XP_E_NOT_TEXT;
}

static int text_read(void *to, const void *addr, size_t len)
{
	for (size_t i = 0; i < len; i++)
		((volatile unsigned char *)to)[i] = ((const volatile unsigned char *)addr)[i];
	return 0;
}

/* 6. Text that is mapped read-only: an alias, or CR0.WP. src/port/bare/write.c does both. */
static int text_write(void *addr, const void *bytes, size_t len, unsigned flags)
{
	if (flags & XP_WRITE_SINGLE)
		return -XP_E_NO_WRITER;
	return text_read(addr, bytes, len);
}

/* 7. An interrupt to every processor, whose handler executes a serializing instruction before it answers. */
static int sync_core(void)
{
	return -XP_E_NO_SYNC;
}

static const struct xp_port port = {
	.abi = XP_PORT_ABI,
	.name = "skeleton",
	.lock = lock,
	.unlock = unlock,
	.alloc = alloc,
	.release = release,
	.can = can,
	.prepare = prepare,
	.text_check = text_check,
	.text_read = text_read,
	.text_write = text_write,
	.sync_core = sync_core,
	/* 8. park, unpark: stop-machine. 9. defer, clock_ms: a timer, for deferred keys. */
};

/* Once, before the first module registers or with what registered meanwhile. */
int skeleton_start(void *text, size_t size);

int skeleton_start(void *text, size_t size)
{
	text_start = (uintptr_t)text;
	text_end = text_start + size;
	return xp_port_set(&port);
}
