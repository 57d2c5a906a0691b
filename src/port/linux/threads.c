// SPDX-License-Identifier: MIT
/*
 * The threads of this process, as /proc/self/task shows them; without libc, which would allocate.
 *
 * A commit with breakpoints asks every thread whether it blocks SIGTRAP. To list the directory costs half as much as to
 * ask a thread: so the ids of up to KEPT threads are remembered.
 * Each is asked anew: one that sleeps now may have run since, and nothing cheaper tells (doc/evidence.md, Why each thread is
 * asked again).
 * K1  The directory's links tell how many threads there are.
 * K2  As many threads as are remembered, and none of those gone: they are the same ids, and need no listing. A thread that
 *     got the id of one that is gone is of this process, too, and is asked in its place. In a child, the parent's are gone.
 * K3  What cannot be opened or read says nothing: only ENOENT and ESRCH mean that the thread is gone.
 * K4  All under the text lock.
 * K5  The ids are those of the namespace of processes that /proc was mounted in. Where that is an outer one, as after
 *     unshare --fork --pid without a /proc of its own, they lead to the right files, but no signal: in our namespace the same
 *     number is another thread's, or no thread's, and a thread that cannot be sent to looks like one that is gone. So before
 *     it sends a thread asks xp__threads_ours(), and where it meets its own number in the listing it looks whether that is
 *     itself.
 */
#include "port/linux/threads.h"

#include "port/linux/diag.h"
#include "port/linux/cached_fd.h"
#include "port/linux/marks.h"
#include "port/linux/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

struct entry {
	uint64_t inode;
	int64_t offset;
	uint16_t size;
	uint8_t type;
	char name[];
};

#define DIRECTORY "/proc/self/task"
#define SELF "/proc/self/status"
#define MANY 32
#define KEPT 16
#define LOOKS_MS 20
#define LEAVES_MS 200
#define PLACE 0x50726f63 /* what a directory takes */

/* sched.h of Linux: a thread that the kernel made inside the process, for io_uring or vhost; it executes no user code. */
#define PF_IO_WORKER 0x10u
#define PF_USER_WORKER 0x4000u

static struct xp__cached_fd directory = {.fd = -1};
static int threads_kept[KEPT];
static unsigned nr_kept;
static bool kept_ours; /* K5, when they were listed */

#ifdef XP_INJECT
uint32_t xp__threads_patience_ms = 10000;
#endif

/* The descriptor of the directory, or -errno. */
static int open_directory(unsigned *links)
{
	uint32_t *mark = &xp__marks_fork[XP__MARK_THREADS];

	if (*mark && xp__cached_fd_same(&directory, links))
		return directory.fd;
	for (int tries = 0; tries < 3; tries++) {
		int error = xp__cached_fd_open(&directory, mark, DIRECTORY, O_RDONLY | O_DIRECTORY, PLACE);

		if (error)
			return error;
		if (xp__cached_fd_same(&directory, links))
			return directory.fd;
	}
	return -EBADF;
}

int xp__threads_open(void)
{
	int fd = open_directory(NULL);

	return fd < 0 ? fd : 0;
}

/*
 * Whether this is the only thread, at a tenth of the cost. unshare(2) refuses to take a thread out of its group if there is
 * another one, and else has nothing to do. A filter might kill for that call: it is not made where there is one.
 */
static bool is_only_thread(void)
{
	return XP__SYS1(SYS_prctl, PR_GET_SECCOMP) == 0 && XP__SYS1(SYS_unshare, CLONE_THREAD) == 0;
}

/* How many threads there are, or -errno. To ask by the name costs half as much as to open what is not open. */
static int count_threads(void)
{
	static bool others; /* there were, the last time: it saves a question */
	unsigned links = 0;
	struct stat st;
	int fd;

	if (directory.fd < 0 && !others && is_only_thread())
		return 1;
	if (directory.fd < 0 && XP__SYS4(XP__SYS_FSTATAT, AT_FDCWD, DIRECTORY, &st, 0) == 0) {
		links = (unsigned)st.st_nlink;
	} else {
		fd = open_directory(&links);
		if (fd < 0)
			return fd;
	}
	/* A task directory has two links of its own and one per thread. */
	others = links > 3;
	return links > 2 ? (int)links - 2 : -EIO;
}

/*
 * A file of the directory: from there if it is open, or stays open, so that it is found after chroot too; else by its whole
 * name, which costs less than to open both.
 */
static int open_task(const char *path, int flags)
{
	bool whole = directory.fd < 0 && !xp__cached_fd_stay();
	int at = whole ? AT_FDCWD : open_directory(NULL), fd = at;

	if (whole || at >= 0)
		fd = (int)XP__SYS4(SYS_openat, at, whole ? path : path + sizeof(DIRECTORY), flags | O_CLOEXEC, 0);
	return fd;
}

/* Under a high number, if it takes a while: others close and reuse the low ones at any time. */
static int open_high(const char *path, int flags)
{
	int fd = open_task(path, flags);

	return fd < 0 ? fd : xp__cached_fd_high(fd);
}

/* A listing takes as long as the threads that it waits for: its descriptor is looked at like one that is kept. */
static bool listing_is_ours(const struct xp__threads *t)
{
	struct xp__cached_fd listing = directory;

	listing.fd = t->fd;
	return xp__cached_fd_same(&listing, NULL);
}

int xp__threads_next(struct xp__threads *t)
{
	if (!t->open) {
		int error = xp__threads_open(); /* what tells ours from others */

		t->fd = error ? error : open_high(DIRECTORY "/.", O_RDONLY | O_DIRECTORY);
		if (t->fd < 0)
			return t->fd;
		t->open = true;
	}
	for (;;) {
		const struct entry *entry;
		int tid = 0;

		if (t->at == t->filled) {
			long n = -EBADF;

			if (listing_is_ours(t))
				n = XP__SYS3(SYS_getdents64, t->fd, t->buffer, sizeof(t->buffer));
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
	if (t->open && listing_is_ours(t))
		XP__SYS1(SYS_close, t->fd);
	t->open = false;
}

bool xp__threads_many(void)
{
	return count_threads() > MANY;
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

static uint64_t hex(const char *text, const char *end)
{
	uint64_t value = 0;

	for (; text < end; text++) {
		unsigned digit = (unsigned)(*text <= '9' ? *text - '0' : *text - 'a' + 10);

		if (digit < 16)
			value = value * 16 + digit;
	}
	return value;
}

#define PATH_MAX_TASK (sizeof(DIRECTORY) + 12 + sizeof("/status"))

static const char *task_path(char path[PATH_MAX_TASK], int tid, const char *file)
{
	char digits[12];
	size_t n = sizeof(digits);

	do {
		digits[--n] = (char)('0' + tid % 10);
		tid /= 10;
	} while (tid);
	digits[--n] = '/';
	memcpy(path, DIRECTORY, sizeof(DIRECTORY) - 1);
	path += sizeof(DIRECTORY) - 1;
	memcpy(path, digits + n, sizeof(digits) - n);
	memcpy(path + sizeof(digits) - n, file, strlen(file) + 1);
	return path - (sizeof(DIRECTORY) - 1);
}

/* Whether it begins with the thread's number, as a stat file does. */
static bool is_stat_of(int tid, const char *text, const char *end)
{
	int number = 0;

	for (; text < end && *text >= '0' && *text <= '9'; text++)
		number = number * 10 + (*text - '0');
	return text < end && *text == ' ' && number == tid;
}

/*
 * The length, or -errno. It takes no longer than to bring the descriptor to a high number, and is not brought there: what is
 * read shows that the number was still ours. If not, it is not closed.
 */
static long read_stat_once(int tid, char *buffer, size_t size)
{
	char path[PATH_MAX_TASK];
	int fd = open_task(task_path(path, tid, "/stat"), O_RDONLY);
	long len;

	if (fd < 0)
		return fd;
	len = xp__pread(fd, buffer, size, 0);
	if (len > 0 && !is_stat_of(tid, buffer, buffer + len))
		return -EBADF;
	if (len != -EBADF)
		XP__SYS1(SYS_close, fd);
	return len;
}

/* The length, or -errno; -ESRCH: there is no such thread any more. */
static int read_stat(int tid, char *buffer, size_t size)
{
	long len = -EBADF;

	for (int tries = 0; len == -EBADF && tries < 3; tries++)
		len = read_stat_once(tid, buffer, size);
	if (len == -ENOENT || len == -ESRCH) {
		nr_kept = 0; /* K2 */
		return -ESRCH;
	}
	return len != 0 ? (int)len : -EIO;
}

/* What is asked of a status file. */
struct status {
	struct xp__thread thread;
	bool ours;   /* its number is this process' */
	bool traced;
	bool nested; /* it has another number too, in a namespace inside of that of /proc */
};

static void take_line(const char *line, const char *end, struct status *status)
{
	const struct {
		const char *label;
		uint64_t *value;
	} masks[] = {{"SigPnd:", &status->thread.pending}, {"SigBlk:", &status->thread.blocked}};

	if (end - line > 7 && memcmp(line, "State:\t", 7) == 0)
		status->thread.state = line[7];
	if (end - line > 5 && memcmp(line, "Pid:\t", 5) == 0)
		status->ours = field(line + 5, end, 0) == (uint64_t)XP__SYS1(SYS_getpid, 0);
	if (end - line > 11 && memcmp(line, "TracerPid:\t", 11) == 0)
		status->traced = field(line + 11, end, 0) != 0;
	if (end - line > 7 && memcmp(line, "NSpid:\t", 7) == 0)
		status->nested = memchr(line + 7, '\t', (size_t)(end - line) - 7) != NULL;
	for (unsigned i = 0; i < sizeof(masks) / sizeof(masks[0]); i++)
		if (end - line > 7 && memcmp(line, masks[i].label, 7) == 0)
			*masks[i].value = hex(line + 7, end);
}

/* Closes @fd. The file is as long as its list of groups; of each line the start is kept. 0 or -errno. */
static int read_status(int fd, struct status *status)
{
	char buffer[512], line[64];
	unsigned len = 0;
	long n;

	memset(status, 0, sizeof(*status));
	while ((n = XP__SYS3(SYS_read, fd, buffer, sizeof(buffer))) > 0)
		for (const char *c = buffer; c < buffer + n; c++) {
			if (*c != '\n') {
				line[len] = *c;
				len += len < sizeof(line) - 1;
				continue;
			}
			take_line(line, line + len, status);
			len = 0;
		}
	XP__SYS1(SYS_close, fd);
	return (int)n;
}

int xp__thread_look(int tid, struct xp__thread *thread)
{
	char path[PATH_MAX_TASK];
	int fd = open_high(task_path(path, tid, "/status"), O_RDONLY);
	struct status status;
	int error;

	if (fd < 0)
		return fd == -ENOENT ? -ESRCH : fd;
	error = read_status(fd, &status);
	if (error)
		return error;
	*thread = status.thread;
	if (thread->state == 0)
		return -EIO;
	return thread->state == 'Z' || thread->state == 'X' ? -ESRCH : 0;
}

/* 0 or -errno. */
static int look_at_self(struct status *status)
{
	int fd = (int)XP__SYS4(SYS_openat, AT_FDCWD, SELF, O_RDONLY | O_CLOEXEC, 0);

	return fd < 0 ? fd : read_status(xp__cached_fd_high(fd), status);
}

/*
 * Tracers let threads go one by one, the first one often before the others: for a while it holds that there is one. To look
 * costs as much as a commit: one that comes soon after another does not.
 */
bool xp__threads_traced(void)
{
	static uint64_t until, next;
	struct status status;
	uint64_t now;

	if (count_threads() < 2)
		return false;
	now = xp__clock_ms();
	if (now >= next) {
		next = now + LOOKS_MS;
		if (look_at_self(&status) == 0 && status.traced)
			until = now + LEAVES_MS;
	}
	return now < until;
}

/*
 * The line "NSpid:" has the process' id in the namespace of /proc and in each one inside of that, down to its own: one number
 * if they are the same. Without the line (no such namespaces, or Linux before 4.1) the id is all that tells.
 */
int xp__threads_ours(void)
{
	struct status status;
	int error = look_at_self(&status);

	if (error)
		return error;
	return status.ours && !status.nested ? 0 : -EXDEV;
}

/* proc(5): the state, field 3, and the fields after it, for field(). NULL: it says nothing. */
static const char *stat_state(const char *buffer, const char *end)
{
	const char *at = NULL;

	for (const char *c = buffer; c < end; c++)
		if (*c == ')')
			at = c; /* the last one: the name in parentheses may hold any */
	return at && at + 2 < end ? at + 2 : NULL;
}

bool xp__thread_is_kernels(int tid)
{
	char buffer[512];
	int len = read_stat(tid, buffer, sizeof(buffer));
	const char *state = len > 0 ? stat_state(buffer, buffer + len) : NULL;

	/* proc(5): flags, field 9 */
	return state && field(state, buffer + len, 6) & (PF_IO_WORKER | PF_USER_WORKER);
}

/* 1 if the thread blocks the signal, 0 if not, -ESRCH if it is gone, -errno. @self: the number is ours, so it may be the caller. */
static int blocks(int tid, int signal, bool self)
{
	char buffer[512];
	struct xp__thread thread;
	const char *state;
	uint64_t mask;
	int len;

	if (self && tid == xp__gettid()) {
		XP__SYS4(SYS_rt_sigprocmask, 0, NULL, &mask, XP__NSIG_SIZE);
		return (mask & xp__sigbit(signal)) != 0;
	}
	if (signal > 31) {
		len = xp__thread_look(tid, &thread);
		return len ? len : (thread.blocked & xp__sigbit(signal)) != 0;
	}
	/* The first 31 signals stand in the stat file too, which the kernel makes in a fraction of the time. */
	len = read_stat(tid, buffer, sizeof(buffer));
	if (len < 0)
		return len;
	state = stat_state(buffer, buffer + len);
	if (state == NULL)
		return -EIO;
	if (*state == 'Z' || *state == 'X')
		return -ESRCH;
	/* proc(5): blocked, field 32 */
	return (field(state, buffer + len, 29) & xp__sigbit(signal)) != 0;
}

bool xp__thread_stopped(const struct xp__thread *thread)
{
	return thread->state == 't' || thread->state == 'T';
}

/*
 * libc blocks every signal while it makes a thread, or spawns a process, and all but one while a thread ends; its own two
 * (32 and 33), which it takes out of any mask that a program sets, tell such a thread from others. It is inside libc and
 * executes no site before it has its mask again, however long the system keeps it from running: a machine that is busy may
 * not run a newborn thread for seconds. Threads of libc's own that serve timers have the mask of one that ends, for ever.
 */
unsigned xp__thread_patience_ms(const struct xp__thread *thread)
{
	if (!(thread->blocked & xp__sigbit(32)))
		return 60;
	if (!(thread->blocked & xp__sigbit(33)))
		return XP__PATIENCE_MS < 1000 ? XP__PATIENCE_MS : 1000;
	return XP__PATIENCE_MS;
}

/*
 * Looks again before it says so: our own handlers block signals while they run. For how long, the thread's mask tells; of
 * those that have libc's together until *@deadline, so that a pass in which threads come and go ends. A thread that was
 * refused for its mask before, and has it still, had its time. Looks every millisecond: nothing else tells that a thread's
 * mask has changed. 0 if it accepts or is gone, 1, -errno.
 */
static int refuses(int tid, int signal, bool self, uint64_t *deadline)
{
	static int refused_before;
	static uint32_t never;
	uint64_t since = 0;

	for (int tries = 0;; tries++) {
		struct xp__thread thread = {.blocked = xp__sigbit(signal)};
		int answer = blocks(tid, signal, self);
		unsigned patience;
		uint64_t now;

		if (answer > 0 && xp__thread_look(tid, &thread) == 0)
			answer = (thread.blocked & xp__sigbit(signal)) != 0; /* now */
		if (answer <= 0) {
			refused_before = tid == refused_before ? 0 : refused_before;
			return answer == -ESRCH ? 0 : answer;
		}
		/* In a handler of ours perhaps, where a tracer may hold it for any time: a round tells that. */
		if (signal > 31 && xp__thread_stopped(&thread))
			return 0;
		if (xp__thread_is_kernels(tid))
			return 0;
		now = xp__clock_ms();
		since = since ? since : now;
		patience = tid == refused_before ? 3 : xp__thread_patience_ms(&thread);
		if (thread.blocked & xp__sigbit(33) && *deadline == 0)
			*deadline = now + patience;
		if (now - since >= patience || (thread.blocked & xp__sigbit(33) && now >= *deadline)) {
			refused_before = tid;
			return 1;
		}
		if (tries < 20)
			XP__SYS1(SYS_sched_yield, 0);
		else
			xp__futex_wait(&never, 0, 1000000);
	}
}

/*
 * One pass, in which each thread has its own time: where threads come and go without end there always is one that
 * blocks for a moment, and another one each time. A thread made during the pass inherits from one that was asked.
 * The id of the one that refuses, 0, or -errno.
 */
static int find_blocking(int signal)
{
	struct xp__threads threads = {.open = false};
	uint64_t deadline = 0;
	int nr = count_threads();
	bool kept = signal < 32 && nr <= KEPT; /* the others' masks stand in another file */
	int tid, answer = 0;

	if (nr < 0)
		return nr;
	if (nr == 1) {
		answer = refuses(xp__gettid(), signal, true, &deadline);
		return answer > 0 ? xp__gettid() : answer;
	}
	if (kept && (unsigned)nr == nr_kept) {
		for (unsigned i = 0; i < nr_kept && answer == 0; i++) {
			tid = threads_kept[i];
			answer = refuses(tid, signal, kept_ours, &deadline);
		}
		if (answer)
			return answer > 0 ? tid : answer;
		if ((unsigned)nr == nr_kept)
			return 0;
	}
	nr_kept = 0;
	kept_ours = xp__threads_ours() == 0;
	while (answer == 0 && (tid = xp__threads_next(&threads)) > 0) {
		if (kept && nr_kept < KEPT)
			threads_kept[nr_kept++] = tid;
		answer = refuses(tid, signal, kept_ours, &deadline);
	}
	xp__threads_end(&threads);
	return answer < 0 ? answer : tid;
}

int xp__threads_accept(int signal, struct xp_diag *diag)
{
	int tid = find_blocking(signal);

	if (tid == 0)
		return 0;
	if (tid < 0)
		return xp__refuse(diag, tid, -tid, "the threads in /proc/self/task cannot be looked at");
	if (diag)
		diag->tid = tid;
	return xp__refuse(diag, -EBUSY, 0,
			  signal == 5 ? "the thread blocks SIGTRAP and would be killed by a breakpoint"
				      : "the thread blocks the rendezvous signal");
}
