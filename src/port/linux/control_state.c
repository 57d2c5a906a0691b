// SPDX-License-Identifier: MIT
/*
 * I1  Descriptors come and go under the text lock, which fork takes: a child knows them all, and closes them. Under the lock
 *     nothing waits: what looks at file systems by name, which may be slow, is done without it, by the one thread that the
 *     phase says is in charge: the one that starts (STARTING), then the one that serves. It alone changes descriptors, so it
 *     reads them without the lock.
 * I2  Descriptors may be closed by the program, and their numbers be others' (cached_fd.c). They are looked at before use, and
 *     made anew. Sockets and pipes have inodes of their own, unlike eventfds.
 * I3  A child that was made without fork's handlers is noticed by a mark, before the lock is taken (fork.c).
 */
#include "port/linux/control_state.h"

#include "port/linux/lock.h"
#include "port/linux/marks.h"
#include "port/linux/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

#ifdef SYS_geteuid32
#define GETEUID SYS_geteuid32
#else
#define GETEUID SYS_geteuid
#endif

struct xp__cached_fd xp__control_fds[XP__NR_FDS]; /* all zero: no file has that device and inode */
uint32_t xp__control_phase;
long xp__control_process;
int xp__control_ended_by = -ENOTCONN;

unsigned xp__control_user(void)
{
	return (unsigned)XP__SYS1(GETEUID, 0);
}

bool xp__control_stopping(void)
{
	return __atomic_load_n(&xp__control_phase, __ATOMIC_RELAXED) != XP__CONTROL_SERVING;
}

void xp__control_set_phase(uint32_t now)
{
	__atomic_store_n(&xp__control_phase, now, __ATOMIC_RELAXED);
	xp__futex_wake(&xp__control_phase, INT_MAX);
}

bool xp__control_in_charge(void)
{
	return xp__control_phase != XP__CONTROL_IDLE && xp__control_process == XP__SYS1(SYS_getpid, 0);
}

int xp__control_with_lock(int (*change)(const void *data), const void *data)
{
	uint64_t mask = xp__signals_sent();
	uint64_t before;
	int error;

	if (!xp__marks_fork[XP__MARK_CONTROL])
		xp__control_fork();
	error = xp__text_lock();
	if (error)
		return error;
	XP__SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &mask, &before, XP__NSIG_SIZE);
	error = change(data);
	xp__text_unlock();
	XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, XP__NSIG_SIZE);
	return error;
}

/* ---- descriptors ---- */

bool xp__control_same(enum xp__control_fd which)
{
	return xp__cached_fd_same(&xp__control_fds[which], NULL);
}

void xp__control_drop(enum xp__control_fd which)
{
	if (xp__control_same(which))
		XP__SYS1(SYS_close, xp__control_fds[which].fd);
	xp__control_fds[which].fd = -1;
}

int xp__control_take(enum xp__control_fd which, long fd)
{
	struct stat st;
	long error;

	if (fd < 0)
		return (int)fd;
	fd = xp__move_high((int)fd);
	error = XP__SYS2(XP__SYS_FSTAT, fd, &st);
	if (error) {
		XP__SYS1(SYS_close, fd);
		return (int)error;
	}
	xp__control_fds[which] = (struct xp__cached_fd){.fd = (int)fd, .device = st.st_dev, .inode = st.st_ino};
	return 0;
}

int xp__control_open_bell(const void *unused)
{
	int fds[2], error, second;

	(void)unused;
	xp__control_drop(XP__FD_BELL);
	xp__control_drop(XP__FD_RINGER);
	error = (int)XP__SYS2(SYS_pipe2, fds, O_CLOEXEC | O_NONBLOCK);
	if (error)
		return error;
	error = xp__control_take(XP__FD_BELL, fds[0]);
	second = xp__control_take(XP__FD_RINGER, fds[1]);
	return error ? error : second;
}

long xp__control_new_socket(void)
{
	return XP__SYS3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

struct opening {
	enum xp__control_fd which;
	const char *path;
	int flags;
};

static int open_locked(const void *data)
{
	const struct opening *opening = data;
	const char *path = opening->path;

	xp__control_drop(opening->which);
	if (!xp__control_in_charge())
		return -ECANCELED;
	return xp__control_take(opening->which,
				path ? XP__SYS4(SYS_openat, AT_FDCWD, path, opening->flags | O_CLOEXEC, 0)
				     : xp__control_new_socket());
}

int xp__control_open(enum xp__control_fd which, const char *path, int flags)
{
	return xp__control_with_lock(open_locked, &(struct opening){which, path, flags});
}

static int close_locked(const void *which)
{
	xp__control_drop(*(const enum xp__control_fd *)which);
	return 0;
}

void xp__control_close(enum xp__control_fd which)
{
	(void)xp__control_with_lock(close_locked, &which);
}

void xp__control_close_all(void)
{
	for (unsigned i = 0; i < XP__NR_FDS; i++)
		xp__control_drop((enum xp__control_fd)i);
}

void xp__control_fork(void)
{
	xp__control_close_all();
	xp__control_phase = XP__CONTROL_IDLE;
	xp__control_ended_by = -ENOTCONN;
	xp__marks_fork[XP__MARK_CONTROL] = 1;
}
