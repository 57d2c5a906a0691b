// SPDX-License-Identifier: MIT
/* The threads of this process, as /proc/self/task shows them; without libc, which would allocate. */
#include "port/linux/port.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct entry {
	uint64_t inode;
	int64_t offset;
	uint16_t size;
	uint8_t type;
	char name[];
};

int xp__threads_next(struct xp__threads *t)
{
	if (!t->open) {
		t->fd = (int)XP__SYS4(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
		if (t->fd < 0)
			return t->fd;
		t->open = true;
	}
	for (;;) {
		const struct entry *entry;
		int tid = 0;

		if (t->at == t->filled) {
			long n = XP__SYS3(SYS_getdents64, t->fd, t->buffer, sizeof(t->buffer));

			if (n <= 0)
				return (int)n;
			t->at = 0;
			t->filled = (uint32_t)n;
		}
		entry = (const struct entry *)(t->buffer + t->at);
		t->at += entry->size;
		for (const char *c = entry->name; *c >= '0' && *c <= '9'; c++)
			tid = tid * 10 + (*c - '0');
		if (tid)
			return tid;
	}
}

void xp__threads_end(struct xp__threads *t)
{
	if (t->open)
		XP__SYS1(SYS_close, t->fd);
	t->open = false;
}

bool xp__threads_alone(void)
{
	struct stat st;

	/* A task directory has two links of its own and one per thread. */
	return XP__SYS4(SYS_newfstatat, AT_FDCWD, "/proc/self/task", &st, 0) == 0 && st.st_nlink == 3;
}

/* The number in @text after @skip spaces. */
static uint64_t field(const char *text, const char *end, int skip)
{
	uint64_t value = 0;

	while (text < end && skip > 0)
		skip -= *text++ == ' ';
	for (; text < end && *text >= '0' && *text <= '9'; text++)
		value = value * 10 + (uint64_t)(*text - '0');
	return value;
}

static uint64_t hex_after(const char *text, const char *end, const char *label)
{
	size_t len = strlen(label);
	uint64_t value = 0;

	for (; text + len < end; text++) {
		if (memcmp(text, label, len) != 0)
			continue;
		for (text += len; text < end && *text != '\n'; text++) {
			unsigned digit = (unsigned)(*text <= '9' ? *text - '0' : *text - 'a' + 10);

			if (digit < 16)
				value = value * 16 + digit;
		}
		break;
	}
	return value;
}

static int read_task(int tid, const char *file, char *buffer, size_t size)
{
	char path[64] = "/proc/self/task/";
	char digits[12];
	size_t at = strlen(path), n = sizeof(digits);
	long fd, len;

	do {
		digits[--n] = (char)('0' + tid % 10);
		tid /= 10;
	} while (tid);
	memcpy(path + at, digits + n, sizeof(digits) - n);
	at += sizeof(digits) - n;
	memcpy(path + at, file, strlen(file) + 1);
	fd = XP__SYS4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return -ESRCH;
	len = XP__SYS3(SYS_read, fd, buffer, size);
	XP__SYS1(SYS_close, fd);
	return len > 0 ? (int)len : -ESRCH;
}

int xp__thread_masks(int tid, uint64_t *blocked, uint64_t *ignored)
{
	char buffer[2048];
	int len = read_task(tid, "/status", buffer, sizeof(buffer));
	const char *end = buffer + len;

	if (len < 0)
		return len;
	*blocked = hex_after(buffer, end, "\nSigBlk:");
	*ignored = hex_after(buffer, end, "\nSigIgn:");
	for (const char *c = buffer; c + 8 < end; c++)
		if (memcmp(c, "\nState:\t", 8) == 0)
			return c[8] == 'Z' || c[8] == 'X' ? -ESRCH : 0;
	return 0;
}

/* The first 31 signals stand in the stat file too, which the kernel makes in a fraction of the time. */
static int blocks(int tid, int signal, bool *blocked)
{
	char buffer[512];
	uint64_t mask, ignored;
	const char *end, *at = NULL;
	int len;

	if (tid == xp__gettid()) {
		XP__SYS4(SYS_rt_sigprocmask, 0, NULL, &mask, XP__NSIG_SIZE);
		*blocked = mask & xp__sigbit(signal);
		return 0;
	}
	if (signal > 31) {
		len = xp__thread_masks(tid, &mask, &ignored);
		*blocked = len == 0 && mask & xp__sigbit(signal);
		return len;
	}
	len = read_task(tid, "/stat", buffer, sizeof(buffer));
	if (len < 0)
		return len;
	end = buffer + len;
	for (const char *c = buffer; c < end; c++)
		if (*c == ')')
			at = c; /* the last one: the name in parentheses may hold any */
	if (at == NULL || at + 2 >= end || at[2] == 'Z' || at[2] == 'X')
		return -ESRCH;
	/* proc(5): state is field 3, blocked field 32 */
	*blocked = field(at + 2, end, 29) & xp__sigbit(signal);
	return 0;
}

/*
 * libc blocks all signals for a moment when it makes a thread, and our own handlers while they run: look again before
 * refusing, first at once, then for some 50 ms. A thread that is gone accepts everything.
 */
static bool accepts(int tid, int signal)
{
	static uint32_t never;

	for (int tries = 0; tries < 70; tries++) {
		bool blocked;

		if (blocks(tid, signal, &blocked) || !blocked)
			return true;
		if (tries < 20)
			XP__SYS1(SYS_sched_yield, 0);
		else
			xp__futex_wait(&never, 0, 1000000);
	}
	return false;
}

/*
 * One pass, in which each thread has its own time: where threads come and go without end there always is one that
 * blocks for a moment, and another one each time. A thread made during the pass inherits from one that was asked.
 */
static int find_blocking(int signal)
{
	struct xp__threads threads = {.open = false};
	int tid;

	if (xp__threads_alone())
		return accepts(xp__gettid(), signal) ? 0 : xp__gettid();
	while ((tid = xp__threads_next(&threads)) > 0)
		if (!accepts(tid, signal))
			break;
	xp__threads_end(&threads);
	return tid;
}

int xp__threads_accept(int signal, struct xp_diag *diag)
{
	int tid = find_blocking(signal);

	if (tid == 0)
		return 0;
	if (tid < 0)
		return xp__refuse(diag, tid, -tid, "cannot list the threads in /proc/self/task");
	if (diag)
		diag->tid = tid;
	return xp__refuse(diag, -EBUSY, 0,
			  signal == 5 ? "the thread blocks SIGTRAP and would be killed by a breakpoint"
				      : "the thread blocks the rendezvous signal");
}
