// SPDX-License-Identifier: MIT
/*
 * Files of /proc, which a commit asks and writes.
 *
 * A descriptor of them gives more than the process has: a child keeps what its parent had open, and that is the parent's
 * memory. So a commit opens what it needs, and all is closed before the text lock is given back; a child that begins while
 * no commit runs holds nothing. xp_set_descriptors() lets them stay open from one commit to the next.
 *
 * Programs close what they did not open (closefrom) and get the number for a file of their own, in the middle of a commit
 * too. So a descriptor is looked at each time before it is used:
 * K1  It is put at a position when it is opened, and never moved: what is done through it names its own position. The
 *     position belongs to the open file, not to the number, nor to the inode: it tells ours from another descriptor of
 *     the same file. lseek is the cheapest call that looks at it, half of fstat. Memory files alone take a negative
 *     one, which therefore says all; elsewhere the inode has to agree.
 * K2  To read, the same inode is enough: the same file says the same through a descriptor of the program's. For files of
 *     text that is cheaper: after a pread, lseek makes their text anew.
 * K3  What is not ours is neither read nor written nor closed: its number is forgotten, and the file opened again.
 * K4  In the child of a fork all are the parent's (fork.c, the marks): closed and opened again before use. No signal
 *     comes between the opening and its mark: a handler that forks there would leave the child with a parent's
 *     descriptor and a mark that says it were its own.
 * K5  No file of a thread stays from one commit to the next: when its thread has ended, nothing tells ours from another.
 * K6  The files of the process are those of its first thread. Where that one has ended and others run on, those of memory
 *     cannot be opened, or say nothing (-ESRCH, or zero bytes, as kernels go); those of any other thread are as good.
 * K7  A file that is opened for one call, and closed at once, needs no position and no high number: the call's own effect
 *     shows that the number was ours when it was made (xp__cached_fd_write(); threads.c for what is read).
 * K8  Nor does what is closed at the end of the commit need a high number where there is no other thread, which could close a
 *     low one: the first one above 4000 makes the kernel lay out a table of so many, which takes a fifth of a first commit.
 * Between the look and the use another thread may close the number and get it back: nothing closes that moment.
 */
#include "port/linux/cached_fd.h"

#include "port/linux/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* XP__SYS_FSTAT fills libc's structure, which is the kernel's only with numbers of 64 bits. */
_Static_assert(sizeof(off_t) == 8, "32 bits: _FILE_OFFSET_BITS=64");

/* There is no other thread, libc says (glibc 2.32); the kernel's word for it takes longer. */
extern char __libc_single_threaded __attribute__((weak));

static bool keep;

int xp__cached_fd_high(int fd)
{
	/* K8. The first three are what any signal handler writes to. */
	return fd > 2 && &__libc_single_threaded && __libc_single_threaded && !keep ? fd : xp__move_high(fd);
}

bool xp__cached_fd_same(const struct xp__cached_fd *kept, unsigned *links)
{
	struct stat st;

	if (kept->fd < 0 || XP__SYS2(XP__SYS_FSTAT, kept->fd, &st) || st.st_dev != kept->device ||
	    st.st_ino != kept->inode)
		return false;
	if (links)
		*links = (unsigned)st.st_nlink;
	return true;
}

static struct xp__cached_fd *opened; /* all that ever were */
static bool first_ended; /* K6 */

#define OF_THREAD "/proc/thread-self/"

const char *xp__cached_fd_path(const char *of_process, const char *of_thread)
{
	return first_ended ? of_thread : of_process;
}

bool xp__cached_fd_first_ended(struct xp__cached_fd *kept)
{
	bool news = !first_ended;

	first_ended = true;
	if (news)
		xp__cached_fd_drop(kept);
	return news;
}

/* What was not placed yet is: of a memory file at its beginning, by the thread that opened it or by a child of its moment. */
static bool place(const struct xp__cached_fd *kept)
{
	return kept->placed ||
	       (xp__seek(kept->fd, 0, SEEK_CUR) == 0 && xp__seek(kept->fd, kept->place, SEEK_SET) == kept->place);
}

bool xp__cached_fd_ours(const struct xp__cached_fd *kept)
{
	return kept->fd >= 0 && xp__seek(kept->fd, 0, SEEK_CUR) == kept->place &&
	       (kept->place < 0 || xp__cached_fd_same(kept, NULL));
}

void xp__cached_fd_drop(struct xp__cached_fd *kept)
{
	if (kept->fd >= 0 && place(kept) && xp__cached_fd_ours(kept))
		XP__SYS1(SYS_close, kept->fd);
	kept->fd = -1;
}

void xp__cached_fd_close(struct xp__cached_fd *kept)
{
	XP__SYS1(SYS_close, kept->fd);
	kept->fd = -1;
}

static void enlist(struct xp__cached_fd *kept)
{
	if (!kept->listed) {
		kept->listed = true;
		kept->next = opened;
		opened = kept;
	}
}

static int open_blocked(struct xp__cached_fd *kept, const char *path, int flags, int64_t place)
{
	int fd = (int)XP__SYS4(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0);
	struct stat st = {0};
	long error = 0;

	if (fd < 0)
		return fd;
	fd = xp__cached_fd_high(fd);
	if (place >= 0)
		error = XP__SYS2(XP__SYS_FSTAT, fd, &st);
	if (error == 0 && xp__seek(fd, place, SEEK_SET) != place) {
		if (place < 0)
			error = -EOPNOTSUPP;
		place = 0; /* where it stands: the inode has to do */
	}
	if (error) {
		XP__SYS1(SYS_close, fd);
		return (int)error;
	}
	kept->device = st.st_dev;
	kept->inode = st.st_ino;
	kept->place = place;
	kept->of_thread = strncmp(path, OF_THREAD, sizeof(OF_THREAD) - 1) == 0;
	kept->placed = true;
	kept->fd = fd;
	return 0;
}

int xp__cached_fd_open(struct xp__cached_fd *kept, uint32_t *mark, const char *path, int flags, int64_t place)
{
	uint64_t mask = xp__signals_sent();
	uint64_t before;
	int error;

	enlist(kept);
	XP__SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &mask, &before, XP__NSIG_SIZE);
	xp__cached_fd_drop(kept);
	error = open_blocked(kept, path, flags, place);
	if (!error)
		*mark = 1;
	XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, XP__NSIG_SIZE);
	return error;
}

/* The text is as it was to be: it was this process' memory that was written to. */
static bool is_there(const void *addr, const void *bytes, size_t len)
{
	return memcmp(addr, bytes, len) == 0;
}

/*
 * Three calls, and two for the signals. It takes no longer than to bring the descriptor to a high number, and is not brought
 * there. That the text has changed shows that the number was still ours when it was written to; the close follows at once.
 */
static long write_blocked(struct xp__cached_fd *kept, const char *path, void *addr, const void *bytes, size_t len)
{
	long done;

	kept->fd = (int)XP__SYS4(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
	if (kept->fd < 0)
		return kept->fd;
	/* ordering: (W1) pairs with (S1), (S3): the bytes are there before any processor serializes for them */
	done = xp__pwrite(kept->fd, bytes, len, (uintptr_t)addr);
	if (done == (long)len && is_there(addr, bytes, len)) {
		xp__cached_fd_close(kept);
		return done;
	}
	xp__cached_fd_drop(kept);
	return done == (long)len ? -EBADF : done;
}

long xp__cached_fd_write(struct xp__cached_fd *kept, const char *path, int64_t place, void *addr, const void *bytes,
			 size_t len)
{
	uint64_t mask = xp__signals_sent();
	uint64_t before;
	long done;

	enlist(kept);
	kept->place = place;
	kept->placed = false;
	XP__SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &mask, &before, XP__NSIG_SIZE);
	done = write_blocked(kept, path, addr, bytes, len);
	XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, XP__NSIG_SIZE);
	return done;
}

void xp__cached_fd_drop_all(void)
{
	for (struct xp__cached_fd *kept = opened; kept; kept = kept->next)
		if (kept->fd >= 0)
			xp__cached_fd_drop(kept);
}

void xp__cached_fd_commit_ends(void)
{
	for (struct xp__cached_fd *kept = opened; kept; kept = kept->next)
		/* K5. A position that is negative tells, whatever became of the thread. */
		if (kept->fd >= 0 && (!keep || (kept->of_thread && kept->place >= 0)))
			xp__cached_fd_drop(kept);
}

bool xp__cached_fd_stay(void)
{
	return keep;
}

void xp__cached_fd_set_stay(bool stay)
{
	keep = stay;
}
