// SPDX-License-Identifier: MIT
/*
 * The threads of this process, as /proc/self/task shows them; without libc, which would allocate.
 *
 * A commit with breakpoints asks every thread whether it blocks SIGTRAP. To open a thread's file costs as much as to
 * read it, and to list the directory as much again: so the directory and the files of up to KEPT threads stay open.
 * K1  The directory's descriptor is ours if it is the same file still; its links tell how many threads there are. A
 *     thread's is ours if what it says begins with the thread's id. Programs may have closed them and used the
 *     numbers: such a one is read from, never closed.
 * K2  As many threads as are kept, and none of those gone: they are the same threads, and need no listing.
 * K3  In the child of a fork all of them are the parent's: MARK_THREADS.
 * K4  All under the text lock.
 */
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

#define KEPT 16

struct kept {
	int tid; /* of a thread; 0: the directory itself */
	int fd;
	dev_t device;
	ino_t inode;
};
static struct kept directory = {.fd = -1}, threads_kept[KEPT];
static unsigned nr_kept;

/* Whether the descriptor is what it was; its links. */
static bool is_kept(const struct kept *kept, nlink_t *links)
{
	struct stat st;

	if (kept->fd < 0 || XP__SYS2(SYS_fstat, kept->fd, &st) || st.st_dev != kept->device ||
	    st.st_ino != kept->inode)
		return false;
	*links = st.st_nlink;
	return true;
}

static void drop(struct kept *kept)
{
	nlink_t links;

	if (is_kept(kept, &links))
		XP__SYS1(SYS_close, kept->fd);
	kept->fd = -1;
}

static void drop_threads(void)
{
	while (nr_kept > 0)
		drop(&threads_kept[--nr_kept]);
}

static bool keep(struct kept *kept, int tid, int fd)
{
	struct stat st;

	if (fd < 0)
		return false;
	kept->tid = tid;
	kept->fd = xp__move_high(fd);
	XP__SYS2(SYS_fstat, kept->fd, &st);
	kept->device = st.st_dev;
	kept->inode = st.st_ino;
	return true;
}

/* How many threads there are; 0: it cannot be told. */
static unsigned count_threads(void)
{
	nlink_t links = 0;
	int fd;

	if (!xp__fork_marks[XP__MARK_THREADS]) {
		drop_threads();
		drop(&directory);
		xp__fork_marks[XP__MARK_THREADS] = 1;
	}
	if (!is_kept(&directory, &links)) {
		fd = (int)XP__SYS4(SYS_openat, AT_FDCWD, "/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
		if (!keep(&directory, 0, fd) || !is_kept(&directory, &links))
			return 0;
	}
	/* A task directory has two links of its own and one per thread. */
	return links > 2 ? (unsigned)links - 2 : 0;
}

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
	return count_threads() == 1;
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

static int open_task(int tid, const char *file)
{
	char path[64] = "/proc/self/task/";
	char digits[12];
	size_t at = strlen(path), n = sizeof(digits);

	do {
		digits[--n] = (char)('0' + tid % 10);
		tid /= 10;
	} while (tid);
	memcpy(path + at, digits + n, sizeof(digits) - n);
	at += sizeof(digits) - n;
	memcpy(path + at, file, strlen(file) + 1);
	return (int)XP__SYS4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
}

static int read_task(int tid, const char *file, char *buffer, size_t size)
{
	int fd = open_task(tid, file);
	long len;

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

static int read_stat(int tid, char *buffer, size_t size)
{
	for (unsigned i = 0; i < nr_kept; i++) {
		long len;

		if (threads_kept[i].tid != tid)
			continue;
		len = XP__SYS4(SYS_pread64, threads_kept[i].fd, buffer, size, 0);
		if (len > 0 && field(buffer, buffer + len, 0) == (uint64_t)tid)
			return (int)len;
		drop_threads(); /* K2: somebody came or went */
		break;
	}
	return read_task(tid, "/stat", buffer, size);
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
	len = read_stat(tid, buffer, sizeof(buffer));
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
	unsigned nr = count_threads();
	bool kept = signal < 32 && nr <= KEPT; /* the others' masks stand in another file */
	int tid;

	if (nr == 1)
		return accepts(xp__gettid(), signal) ? 0 : xp__gettid();
	if (kept && nr == nr_kept) {
		for (unsigned i = 0; i < nr_kept; i++)
			if (!accepts(threads_kept[i].tid, signal))
				return threads_kept[i].tid;
		if (nr == nr_kept)
			return 0;
	}
	if (kept)
		drop_threads();
	while ((tid = xp__threads_next(&threads)) > 0) {
		if (kept && nr_kept < KEPT && keep(&threads_kept[nr_kept], tid, open_task(tid, "/stat")))
			nr_kept++;
		if (!accepts(tid, signal))
			break;
	}
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
