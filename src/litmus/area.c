// SPDX-License-Identifier: MIT
/*
 * Where the raced code lies, and the store paths.
 *
 *	alias     a memfd mapped twice, RX and RW: one plain mov (movups for 16 bytes) through the RW mapping. What
 *	          trampolines and JIT-compiled code are written through, and the only path whose store is known exactly.
 *	window    private memory, RWX from the beginning to the end of the run: one plain mov to the very address that is
 *	          executed
 *	xchg      mapped as for alias: one locked exchange of 1 to 8 bytes, across a line, too. S8's question: does fetch
 *	          obey the lock?
 *	mprotect  private memory, RX; the library's writer opens a window for each store
 *	procmem   private memory, RX; the library's writer calls pwrite on /proc/self/mem
 *
 * I1  Nothing is mapped writable and executable at once, except in the window of the mprotect path and in the area of
 *     the window path, which nothing else uses and which is gone after the run.
 */
#include "litmus/litmus.h"
#include "port/linux/writer.h"

#include <crosspatch/port.h>

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

const char *const litmus_path_names[LITMUS_NR_PATHS] = {"alias", "window", "xchg", "mprotect", "procmem"};

static const struct xp__writer *const writers[LITMUS_NR_PATHS] = {
	[LITMUS_MPROTECT] = &xp__writer_mprotect,
	[LITMUS_PROCMEM] = &xp__writer_procmem,
};

bool litmus_path_single(enum litmus_path path)
{
	return path == LITMUS_ALIAS || path == LITMUS_WINDOW || path == LITMUS_XCHG;
}

bool litmus_path_takes(enum litmus_path path, unsigned width)
{
	return path != LITMUS_XCHG || width <= 8;
}

static void *map(int prot, int flags, int fd)
{
	return mmap(NULL, LITMUS_AREA_SIZE, prot, flags | MAP_NORESERVE, fd, 0);
}

static int map_alias(struct litmus_area *area)
{
	int fd = memfd_create("crosspatch-litmus", MFD_CLOEXEC);
	int error = 0;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, LITMUS_AREA_SIZE))
		error = -errno;
	area->code = map(PROT_READ | PROT_EXEC, MAP_SHARED, fd);
	area->data = map(PROT_READ | PROT_WRITE, MAP_SHARED, fd);
	if (!error && (area->code == MAP_FAILED || area->data == MAP_FAILED))
		error = -errno;
	close(fd);
	return error;
}

static int fill_pads(struct litmus_area *area, uint8_t *to)
{
	for (unsigned place = 0; place < LITMUS_NR_PLACES; place++) {
		memset(to + LITMUS_AT(place) - 64, 0xcc, 192);
		for (unsigned i = 0; i < LITMUS_NR_PADS; i++) {
			uint8_t pad[128];
			uint32_t disp = litmus_pad(i, pad);

			memcpy(to + LITMUS_AT(place) + disp, pad, sizeof(pad));
		}
	}
	if (area->path == LITMUS_WINDOW) {
		if (mprotect(area->code, LITMUS_AREA_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC))
			return -errno;
		area->data = area->code;
	} else if (area->data == NULL && mprotect(area->code, LITMUS_AREA_SIZE, PROT_READ | PROT_EXEC)) {
		return -errno;
	}
	return 0;
}

int litmus_area_open(struct litmus_area *area, enum litmus_path path)
{
	int error = 0;

	*area = (struct litmus_area){.path = path};
	if (path == LITMUS_ALIAS || path == LITMUS_XCHG) {
		error = map_alias(area);
	} else {
		error = writers[path] ? writers[path]->probe() : 0;
		if (error)
			return error;
		area->code = map(PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		if (area->code == MAP_FAILED)
			error = -errno;
	}
	if (!error)
		error = fill_pads(area, area->data ? area->data : area->code);
	if (error)
		litmus_area_close(area);
	return error;
}

void litmus_area_close(struct litmus_area *area)
{
	if (area->code && area->code != MAP_FAILED)
		munmap(area->code, LITMUS_AREA_SIZE);
	if (area->data && area->data != MAP_FAILED && area->data != area->code)
		munmap(area->data, LITMUS_AREA_SIZE);
	area->code = area->data = NULL;
}

int litmus_area_fill(struct litmus_area *area, unsigned at, const void *bytes, size_t len)
{
	unsigned page = at & ~4095u;
	size_t size = ((at + len + 4095) & ~4095ul) - page;

	if (area->data) {
		memcpy(area->data + at, bytes, len);
		return 0;
	}
	/* No thread executes here now: the pages may lose their X. */
	if (mprotect(area->code + page, size, PROT_READ | PROT_WRITE))
		return -errno;
	memcpy(area->code + at, bytes, len);
	return mprotect(area->code + page, size, PROT_READ | PROT_EXEC) ? -errno : 0;
}

/* Written out: the compiler may not split or merge what is being measured. */
static void store(uint8_t *to, const uint8_t *bytes, unsigned width)
{
	uint64_t value;

	memcpy(&value, bytes, width < 8 ? width : 8);
	switch (width) {
	case 1:
		__asm__ volatile("movb %b1, (%0)" ::"r"(to), "q"(value) : "memory");
		break;
	case 2:
		__asm__ volatile("movw %w1, (%0)" ::"r"(to), "r"(value) : "memory");
		break;
	case 4:
		__asm__ volatile("movl %k1, (%0)" ::"r"(to), "r"(value) : "memory");
		break;
	case 8:
		__asm__ volatile("movq %1, (%0)" ::"r"(to), "r"(value) : "memory");
		break;
	default:
		__asm__ volatile("movups (%1), %%xmm0\n\tmovups %%xmm0, (%0)" ::"r"(to), "r"(bytes) : "memory", "xmm0");
	}
}

/* xchg with memory locks the bus, or the line, by itself. */
static int exchange(uint8_t *to, const uint8_t *bytes, unsigned width)
{
	uint64_t value;

	memcpy(&value, bytes, width < 8 ? width : 8);
	switch (width) {
	case 1:
		__asm__ volatile("xchgb %b0, (%1)" : "+q"(value) : "r"(to) : "memory");
		return 0;
	case 2:
		__asm__ volatile("xchgw %w0, (%1)" : "+r"(value) : "r"(to) : "memory");
		return 0;
	case 4:
		__asm__ volatile("xchgl %k0, (%1)" : "+r"(value) : "r"(to) : "memory");
		return 0;
	case 8:
		__asm__ volatile("xchgq %0, (%1)" : "+r"(value) : "r"(to) : "memory");
		return 0;
	default:
		return -EINVAL;
	}
}

int litmus_split_lock(void)
{
	static uint8_t lines[128] __attribute__((aligned(64)));
	int status;
	pid_t child = fork();

	if (child < 0)
		return -errno;
	if (child == 0) {
		/* The action of a parent that catches it is not ours to run. */
		signal(SIGBUS, SIG_DFL);
		exchange(lines + 60, lines, 8);
		_exit(0);
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? 0 : -EFAULT;
}

int litmus_area_store(struct litmus_area *area, unsigned at, const void *bytes, unsigned width)
{
	bool quadword = at / 8 == (at + width - 1) / 8;

	if (area->path == LITMUS_XCHG)
		return exchange(area->data + at, bytes, width);
	if (area->data) {
		store(area->data + at, bytes, width);
		return 0;
	}
	return writers[area->path]->write(area->code + at, bytes, width,
					  area->path == LITMUS_MPROTECT && quadword ? XP_WRITE_SINGLE : 0);
}
