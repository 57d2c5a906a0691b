// SPDX-License-Identifier: MIT
/*
 * Operation from outside: a socket, and the thread that answers who asks there. What is asked and answered: control/proto.c.
 *
 * I1  Nothing is there unless the program, or who started it, asks for it.
 * I2  Answered are this process' own effective user and root, whatever the socket's file says; both are asked.
 * I3  One request, one answer, one connection at a time. A request is bounded, and so is the time that it takes to come
 *     and its answer to be taken. No lock is held meanwhile: a peer that stops delays the next peer, and no commit.
 * I4  Descriptors come and go under the text lock, which fork takes: a child knows them all, and closes them. It serves
 *     nobody; its parent's peers are its parent's. Under the lock nothing waits: what looks at file systems by name, which may
 *     be slow, is done without it, by the one thread that the phase says is in charge: the one that starts (STARTING), then
 *     the one that serves.
 * I5  Descriptors may be closed by the program, and their numbers be others' (cached_fd.c). They are looked at before use, and
 *     made anew. Sockets and pipes have inodes of their own, unlike eventfds.
 * I6  A socket gets its name when it listens, by a rename that replaces nothing: one that nobody listens to is stale. Stale
 *     ones of this user go: where the name is wanted, and all that are in a directory of our own, a bounded number at a
 *     start. A file is taken away by a rename, looked at, and only then removed: two who come at once do not remove each
 *     other's.
 * I7  What the system refuses is tried again, later and later, once a second in the end. Shortages pass; after TRIES of
 *     anything else in a row the service ends, its name goes, and xp_control_path() says why.
 */
#include "port/linux/control.h"

#include "control/proto.h"
#include "port/linux/cached_fd.h"
#include "port/linux/lifetime.h"
#include "port/linux/lock.h"
#include "port/linux/marks.h"
#include "port/linux/memory.h"
#include "port/linux/sys.h"
#include "port/linux/worker.h"

#include <crosspatch/error.h>
#include <crosspatch/linux.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum {
	REQUEST_MAX = 4096,   /* bytes, with its end of line */
	REQUEST_MS = 5000,    /* to come */
	ANSWER_MS = 10000,    /* to be taken */
	ANSWER_FIRST = 65536, /* room, before more is asked for */
	BACKLOG = 16,
	ARRIVAL_MS = 15000, /* for what is of the start of the program to register; the tool waits longer */
	TRIES = 8,
	SWEEP_MAX = 256, /* sockets of others that are looked at */
	BESIDE = 14, /* of the name that a socket has before it listens: ".xp-" and 8 digits, a slash, and the end */
};

#ifdef SYS_geteuid32
#define GETEUID SYS_geteuid32
#define GETRESUID SYS_getresuid32
#else
#define GETEUID SYS_geteuid
#define GETRESUID SYS_getresuid
#endif

/* Of <linux/stat.h>, which musl's headers bring late, or never. */
struct status {
	uint32_t mask, block_size;
	uint64_t attributes;
	uint32_t nr_links, uid, gid;
	uint16_t mode, unused;
	uint64_t inode, size, blocks, attributes_mask;
	struct {
		int64_t s;
		uint32_t ns;
		int32_t unused;
	} times[4];
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare[14];
};
_Static_assert(sizeof(struct status) == 256, "as the kernel has it");
#define STATUS_INODE 0x100u
#define STATUS_BASIC 0x7ffu

/* All under the text lock, but that what is in charge reads them without. */
static struct xp__cached_fd listener = {.fd = -1}, peer = {.fd = -1};
static struct xp__cached_fd fresh = {.fd = -1};                        /* to be the listener */
static struct xp__cached_fd visitor = {.fd = -1}, folder = {.fd = -1}; /* of a moment */
static struct xp__cached_fd wakeup[2] = {{.fd = -1}, {.fd = -1}};      /* a pipe */
static struct sockaddr_un name;                                        /* "": none */
static struct status file;                                             /* the socket's, there */
static long served_by;                                                 /* process id */
static unsigned served_user;
static bool automatic; /* its name is the process id, somewhere */
static int ended_by = -ENOTCONN;

enum { IDLE, STARTING, SERVING, STOPPING };
static uint32_t phase; /* futex of who waits for a change */

static unsigned effective_user(void)
{
	return (unsigned)XP__SYS1(GETEUID, 0);
}

/* Whether this process has become another user for good: it can no more become what it was. */
static bool user_changed(void)
{
	uint32_t real, effective, saved;

	return XP__SYS3(GETRESUID, &real, &effective, &saved) == 0 && real == effective && saved == effective &&
	       effective != served_user;
}

static bool stopping(void)
{
	return __atomic_load_n(&phase, __ATOMIC_RELAXED) != SERVING;
}

static void set_phase(uint32_t now)
{
	__atomic_store_n(&phase, now, __ATOMIC_RELAXED);
	xp__futex_wake(&phase, INT32_MAX);
}

/*
 * Calls @change under the text lock. No signal comes in: a handler that forks would leave a child in the middle of it. Blocked
 * under the lock only: who waits for that lets the rendezvous of its holder in.
 */
static int with_lock(int (*change)(const void *data), const void *data)
{
	uint64_t mask = xp__signals_sent();
	uint64_t before;
	int error;

	if (!xp__fork_marks[XP__MARK_CONTROL])
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

/* ---- descriptors: under the text lock ---- */

static void drop(struct xp__cached_fd *kept)
{
	if (xp__cached_fd_same(kept, NULL))
		XP__SYS1(SYS_close, kept->fd);
	kept->fd = -1;
}

/* Keeps @fd, which may be an error. 0 or -errno. */
static int take(struct xp__cached_fd *kept, long fd)
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
	*kept = (struct xp__cached_fd){.fd = (int)fd, .device = st.st_dev, .inode = st.st_ino};
	return 0;
}

static int open_bell(const void *unused)
{
	int fds[2], error, second;

	(void)unused;
	drop(&wakeup[0]);
	drop(&wakeup[1]);
	error = (int)XP__SYS2(SYS_pipe2, fds, O_CLOEXEC | O_NONBLOCK);
	if (error)
		return error;
	error = take(&wakeup[0], fds[0]);
	second = take(&wakeup[1], fds[1]);
	return error ? error : second;
}

static long open_socket(void)
{
	return XP__SYS3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* In the child of a fork in the middle of a start there is nothing to be in charge of. */
static bool in_charge(void)
{
	return phase != IDLE && served_by == XP__SYS1(SYS_getpid, 0);
}

/* @path: what is opened, with O_ flags; NULL: a socket. */
struct opening {
	struct xp__cached_fd *kept;
	const char *path;
	int flags;
};

static int open_locked(const void *data)
{
	const struct opening *opening = data;
	const char *path = opening->path;

	drop(opening->kept);
	if (!in_charge())
		return -ECANCELED;
	return take(opening->kept,
		    path ? XP__SYS4(SYS_openat, AT_FDCWD, path, opening->flags | O_CLOEXEC, 0) : open_socket());
}

static int open_kept(struct xp__cached_fd *kept, const char *path, int flags)
{
	return with_lock(open_locked, &(struct opening){kept, path, flags});
}

static int drop_kept(const void *kept)
{
	drop((struct xp__cached_fd *)(uintptr_t)kept);
	return 0;
}

static void close_kept(struct xp__cached_fd *kept)
{
	(void)with_lock(drop_kept, kept);
}

static void close_all(void)
{
	drop(&listener);
	drop(&peer);
	drop(&fresh);
	drop(&visitor);
	drop(&folder);
	drop(&wakeup[0]);
	drop(&wakeup[1]);
}

/* ---- names ---- */

static void append(char *path, const char *text)
{
	memcpy(path + strlen(path), text, strlen(text) + 1);
}

static void append_number(char *path, unsigned long value)
{
	char text[24];
	unsigned at = sizeof(text) - 1;

	text[at] = '\0';
	do {
		text[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	append(path, text + at);
}

/* A name of nobody's beside @path. */
static void name_beside(char *to, const char *path)
{
	static const char digits[] = "0123456789abcdef";
	size_t len = (size_t)(strrchr(path, '/') - path) + 1;
	uint32_t number;
	char text[9] = "";

	if (XP__SYS3(SYS_getrandom, &number, sizeof(number), 0) != (long)sizeof(number))
		number = (uint32_t)xp__clock_ms() * 2654435761u ^ (uint32_t)xp__gettid();
	for (unsigned i = 0; i < 8; i++, number >>= 4)
		text[i] = digits[number & 15];
	memcpy(to, path, len);
	to[len] = '\0';
	append(to, ".xp-");
	append(to, text);
}

static int look(const char *path, struct status *status)
{
	return (int)XP__SYS6(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATUS_BASIC, status, 0);
}

static bool is_same(const struct status *a, const struct status *b)
{
	return a->inode == b->inode && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor;
}

static void remove_our_file(void)
{
	struct status now;

	if (name.sun_path[0] && look(name.sun_path, &now) == 0 && is_same(&now, &file))
		XP__SYS1(SYS_unlink, name.sun_path);
}

static void set_address(struct sockaddr_un *address, const char *path)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, path, strlen(path) + 1);
}

/* Connects to the name, and hangs up: 0 or -EAGAIN if somebody listens there. */
static int probe(const char *path)
{
	struct sockaddr_un address;
	int error = open_kept(&visitor, NULL, 0);

	if (error)
		return error;
	set_address(&address, path);
	error = (int)XP__SYS3(SYS_connect, visitor.fd, &address, sizeof(address));
	close_kept(&visitor);
	return error;
}

/* What is at @path goes if it is a socket of ours that nobody listens to (I6). 0: nothing is there any more. */
static int remove_stale(const char *path)
{
	char aside[sizeof(name.sun_path) + BESIDE];
	struct status stale, taken;
	int error = look(path, &stale);

	if (error)
		return error == -ENOENT ? 0 : error;
	if (!S_ISSOCK(stale.mode) || stale.uid != effective_user())
		return -EEXIST;
	error = probe(path);
	if (error == 0 || error == -EAGAIN)
		return -EADDRINUSE;
	if (error != -ECONNREFUSED)
		return error;
	name_beside(aside, path);
	error = (int)XP__SYS2(SYS_rename, path, aside);
	if (error)
		return error == -ENOENT ? 0 : error;
	error = look(aside, &taken);
	if (!error && !is_same(&taken, &stale)) {
		XP__SYS2(SYS_link, aside, path); /* somebody was faster: back with it */
		error = -EADDRINUSE;
	}
	XP__SYS1(SYS_unlink, aside);
	return error;
}

/* The user's mask took bits away that the socket had (0600). Not by name: somebody else's link may be there by now. */
static int restore_mode(const char *path, const struct status *status)
{
	char self[48] = "/proc/thread-self/fd/";
	int error;

	if ((status->mode & 0777) == 0600)
		return 0;
	error = open_kept(&visitor, path, O_PATH | O_NOFOLLOW);
	if (error)
		return error;
	append_number(self, (unsigned long)visitor.fd);
	error = visitor.inode == status->inode ? (int)XP__SYS2(SYS_chmod, self, 0600) : -EEXIST;
	close_kept(&visitor);
	return error;
}

/* Gives what is at @from the name @to, unless that is taken: -EEXIST. */
static int rename_to_nothing(const char *from, const char *to)
{
	enum { NOREPLACE = 1 }; /* RENAME_ */
	int error = (int)XP__SYS6(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, NOREPLACE, 0);

	if (error != -ENOSYS && error != -EINVAL && error != -EPERM)
		return error;
	error = (int)XP__SYS2(SYS_link, from, to);
	if (!error)
		XP__SYS1(SYS_unlink, from);
	return error;
}

/* One that is too long for an address goes by its directory's descriptor, which stays open. */
static int set_address_beside(struct sockaddr_un *address, char *beside)
{
	char *slash = strrchr(beside, '/'), self[sizeof(address->sun_path)] = "/proc/thread-self/fd/";
	int error;

	if (strlen(beside) < sizeof(address->sun_path)) {
		set_address(address, beside);
		return 0;
	}
	*slash = '\0';
	error = open_kept(&folder, beside, O_PATH | O_DIRECTORY);
	*slash = '/';
	if (!error) {
		append_number(self, (unsigned long)folder.fd);
		append(self, slash);
		set_address(address, self);
	}
	return error;
}

static int bind_and_listen(const char *path, struct status *status)
{
	char beside[sizeof(name.sun_path) + BESIDE];
	struct sockaddr_un address;
	int error;

	name_beside(beside, path);
	error = set_address_beside(&address, beside);
	if (error)
		return error;
	/* The mode is the socket's before it has a name: there is no moment at which others could come in. */
	error = (int)XP__SYS2(SYS_fchmod, fresh.fd, 0600);
	if (!error)
		error = (int)XP__SYS3(SYS_bind, fresh.fd, &address, sizeof(address));
	if (error)
		return error;
	error = look(beside, status);
	if (!error)
		error = restore_mode(beside, status);
	if (!error)
		error = (int)XP__SYS2(SYS_listen, fresh.fd, BACKLOG);
	for (int i = 0; i < TRIES && !error; i++) {
		error = rename_to_nothing(beside, path);
		if (error != -EEXIST)
			break;
		error = remove_stale(path);
	}
	if (error)
		XP__SYS1(SYS_unlink, beside);
	return error;
}

/* What serve_at() has made takes the place of what was. */
struct place {
	const char *path;
	struct status status;
};

static int publish(const void *data)
{
	const struct place *place = data;

	if (!in_charge())
		return -ECANCELED;
	drop(&listener);
	listener = fresh;
	fresh.fd = -1;
	set_address(&name, place->path);
	file = place->status;
	return 0;
}

/* Listens at @path. On an error all is as before. */
static int serve_at(const char *path)
{
	char copy[sizeof(name.sun_path)];
	struct place place = {.path = copy};
	int error;

	memcpy(copy, path, strlen(path) + 1); /* it may be `name` */
	error = open_kept(&fresh, NULL, 0);
	if (!error)
		error = bind_and_listen(copy, &place.status);
	if (!error)
		error = with_lock(publish, &place);
	if (error)
		close_kept(&fresh);
	close_kept(&folder);
	return error;
}

/* ---- names by process id ---- */

/* The number of a namespace of this process; 0 if it is not known. */
static unsigned long namespace_number(const char *path)
{
	struct status status;
	long error = XP__SYS6(SYS_statx, AT_FDCWD, path, 0, STATUS_INODE, &status, 0);

	return error ? 0 : (unsigned long)status.inode;
}

/* Where the sockets of a user's processes may be, by process id, if the directory is that user's alone. */
static const struct {
	const char *start;
	bool user;
	const char *end;
	bool with_namespace; /* of users: another one's may have the number too, and share the directory above */
} directories[] = {
	{"/run/crosspatch", false, "", false}, {"/run/user/", true, "/crosspatch", false},
	{"/tmp/crosspatch-", true, "", false}, {"/dev/shm/crosspatch-", true, "", false},
	{"/tmp/crosspatch-", true, "-", true}, {"/dev/shm/crosspatch-", true, "-", true},
};
enum { NR_DIRECTORIES = sizeof(directories) / sizeof(directories[0]) };

static int make_directory(size_t i, char *path)
{
	unsigned user = effective_user();
	struct status status;
	int made, error;

	path[0] = '\0';
	append(path, directories[i].start);
	if (directories[i].user)
		append_number(path, user);
	append(path, directories[i].end);
	if (directories[i].with_namespace)
		append_number(path, namespace_number("/proc/thread-self/ns/user"));
	made = (int)XP__SYS2(SYS_mkdir, path, 0700);
	error = look(path, &status);
	if (error)
		return made ? made : error;
	if (!S_ISDIR(status.mode) || status.uid != user || status.mode & 077)
		return -EACCES;
	/* The user's mask may have taken bits away, now or when it was made. */
	return (status.mode & 0700) == 0700 ? 0 : (int)XP__SYS2(SYS_chmod, path, 0700);
}

/* Whether a name may be that of a process that is not there any more. */
static bool may_be_stale(const char *entry)
{
	long pid = 0;
	size_t i;

	for (i = 0; entry[i] >= '0' && entry[i] <= '9' && i < 10; i++)
		pid = pid * 10 + (entry[i] - '0');
	if (i == 0 || (entry[i] && entry[i] != '-'))
		return false;
	return entry[i] || pid > INT32_MAX || XP__SYS2(SYS_kill, pid, 0) == -ESRCH;
}

struct entry { /* as getdents64 fills it */
	uint64_t inode;
	int64_t next;
	uint16_t len;
	uint8_t type;
	char name[];
};

/* Processes that were killed leave their sockets. This user's go; of very many the others another time. */
static void sweep(const char *directory)
{
	char block[2048] __attribute__((aligned(8))), path[sizeof(name.sun_path)];
	int looks = 0;
	long got;

	if (open_kept(&folder, directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW))
		return;
	while (looks < SWEEP_MAX && (got = XP__SYS3(SYS_getdents64, folder.fd, block, sizeof(block))) > 0) {
		const struct entry *entry;

		for (long at = 0; at < got; at += entry->len, looks++) {
			entry = (const struct entry *)(const void *)(block + at);
			if (!may_be_stale(entry->name) || strlen(directory) + strlen(entry->name) + 2 > sizeof(path))
				continue;
			path[0] = '\0';
			append(path, directory);
			append(path, "/");
			append(path, entry->name);
			(void)remove_stale(path);
		}
	}
	close_kept(&folder);
}

/* In @directory, by the process id, and if somebody of another namespace of processes has that, by both. */
static int serve_in(char *directory)
{
	int error;

	append(directory, "/");
	append_number(directory, (unsigned long)served_by);
	error = serve_at(directory);
	if (error == -EADDRINUSE || error == -EEXIST) {
		append(directory, "-");
		append_number(directory, namespace_number("/proc/thread-self/ns/pid"));
		error = serve_at(directory);
	}
	return error;
}

/* Where nothing can be made, in the next; the error that says most is that of the last that is there at all. */
static int serve_automatic(void)
{
	int error = -ENOENT;

	for (size_t i = effective_user() ? 1 : 0; i < NR_DIRECTORIES; i++) {
		char path[sizeof(name.sun_path)];
		int here = make_directory(i, path);

		if (!here) {
			sweep(path);
			here = serve_in(path);
		}
		if (!here || here == -ECANCELED)
			return here;
		if (error == -ENOENT || here != -ENOENT)
			error = here;
	}
	return error;
}

static int serve_asked(const char *path)
{
	size_t len = path ? strlen(path) : 0;

	if (path == NULL)
		return serve_automatic();
	if (path[0] != '/' || path[len - 1] == '/')
		return -EINVAL;
	return len < sizeof(name.sun_path) ? serve_at(path) : -ENAMETOOLONG;
}

/* ---- the thread ---- */

/* As the kernel has it, which libc's is only in 64 bits. */
struct kernel_time {
	long seconds, nanoseconds;
};

/*
 * Waits for @events of @what until @deadline. 0; -EAGAIN: it has passed, @what is not ours any more, or there is something else
 * to do; or what the system says.
 */
static int await(const struct xp__cached_fd *what, short events, uint64_t deadline)
{
	while (!stopping() && xp__cached_fd_same(what, NULL)) {
		bool rings = xp__cached_fd_same(&wakeup[0], NULL) && xp__cached_fd_same(&wakeup[1], NULL);
		struct pollfd fds[2] = {{what->fd, events, 0}, {rings ? wakeup[0].fd : -1, POLLIN, 0}};
		uint64_t now = xp__clock_ms(), libcs = 0, mask;
		struct kernel_time left;
		bool changed;
		char drained[64];
		long got;

		if (now >= deadline)
			return -EAGAIN;
		left = (struct kernel_time){(long)((deadline - now) / 1000), (long)((deadline - now) % 1000) * 1000000};
		/* Whoever chooses another signal rings afterwards: it is seen here, or the wakeup by poll. */
		xp__worker_mask();
		/* So with libc's signal, by which this thread becomes another user. */
		for (int signal = 32; signal < SIGRTMIN; signal++)
			libcs |= xp__sigbit(signal);
		XP__SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &libcs, &mask, XP__NSIG_SIZE);
		changed = what == &listener && user_changed();
		got = changed ? 0
			      : XP__SYS6(SYS_ppoll, fds, 2, deadline == UINT64_MAX ? NULL : &left, &mask, XP__NSIG_SIZE,
					 0);
		XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, XP__NSIG_SIZE);
		if (got == -ENOSYS || got == -EPERM || got == -EACCES)
			got = XP__SYS3(SYS_poll, fds, 2, deadline == UINT64_MAX ? -1 : (long)(deadline - now));
		if (got == -EINVAL)
			got = -EMFILE; /* more are asked for than the limit of descriptors allows */
		if (got < 0 && got != -EINTR)
			return (int)got;
		if (got > 0 && fds[1].revents && xp__cached_fd_same(&wakeup[0], NULL))
			XP__SYS3(SYS_read, wakeup[0].fd, drained, sizeof(drained));
		if (got > 0 && fds[0].revents)
			return !stopping() && xp__cached_fd_same(what, NULL) ? 0 : -EAGAIN;
		/* What of the wakeup was closed or shut is to be made anew. */
		if (changed || (got > 0 && fds[1].revents & ~POLLIN))
			return -EAGAIN;
	}
	return -EAGAIN;
}

static bool may_ask(void)
{
	struct ucred who = {0, (uid_t)-1, (gid_t)-1};
	uint32_t len = sizeof(who);

	if (XP__SYS6(SYS_getsockopt, peer.fd, SOL_SOCKET, SO_PEERCRED, &who, &len, 0))
		return false;
	return who.uid == 0 || who.uid == effective_user();
}

/* A line, without its end; -1 if none came. Of a longer one as much as there is room for, and no end. */
static long read_request(char *request)
{
	uint64_t deadline = xp__clock_ms() + REQUEST_MS;
	long len = 0;

	while (len < REQUEST_MAX && await(&peer, POLLIN, deadline) == 0) {
		long got = XP__SYS6(SYS_recvfrom, peer.fd, request + len, REQUEST_MAX - len, MSG_DONTWAIT, NULL, NULL);
		char *end;

		if (got == -EAGAIN || got == -EINTR)
			continue;
		if (got <= 0)
			return -1;
		end = memchr(request + len, '\n', (size_t)got);
		if (end)
			return end - request;
		len += got;
	}
	return len == REQUEST_MAX ? len : -1;
}

static void send_answer(const char *answer, size_t len)
{
	uint64_t deadline = xp__clock_ms() + ANSWER_MS;

	while (len > 0 && await(&peer, POLLOUT, deadline) == 0) {
		long sent = XP__SYS6(SYS_sendto, peer.fd, answer, len, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);

		if (sent == -EAGAIN || sent == -EINTR)
			continue;
		if (sent <= 0)
			return;
		answer += sent;
		len -= (size_t)sent;
	}
}

static void refuse(int error, const char *why)
{
	char answer[256];

	send_answer(answer, xp__proto_error(error, why, answer, sizeof(answer)));
}

static void answer(const char *request, size_t len)
{
	size_t size = ANSWER_FIRST;

	for (;;) {
		char *room = xp__alloc(size);
		size_t need = room ? xp__proto_answer(request, len, room, size) : 0;

		if (room == NULL) {
			refuse(-ENOMEM, "no memory for the answer");
			return;
		}
		if (need <= size)
			send_answer(room, need);
		xp__release(room, size);
		if (need <= size)
			return;
		size = need + need / 4; /* there may be more by then */
	}
}

static void serve_peer(void)
{
	char request[REQUEST_MAX];
	long len;

	if (!may_ask()) {
		refuse(-EPERM, "only the process' own user and root may ask");
		return;
	}
	len = read_request(request);
	if (len == REQUEST_MAX)
		refuse(-EMSGSIZE, "a request is one line of less than 4096 bytes");
	else if (len >= 0)
		answer(request, (size_t)len);
}

static int accept_locked(const void *unused)
{
	(void)unused;
	drop(&peer); /* there, if the lock was not to be had when it was served */
	if (!xp__cached_fd_same(&listener, NULL))
		return -EAGAIN;
	return take(&peer, XP__SYS4(SYS_accept4, listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
}

/* One peer, if there is one. */
static int serve_one(void)
{
	int error = await(&listener, POLLIN, UINT64_MAX);

	if (error)
		return error;
	error = with_lock(accept_locked, NULL);
	/* There seemed to be one, and there is none: somebody shut the socket down, which is to be made anew. */
	if (error == -EAGAIN || error == -EINVAL) {
		close_kept(&listener);
		return -EINVAL;
	}
	if (!error)
		serve_peer();
	close_kept(&peer);
	return error;
}

/* The new user's own socket, where only that user comes; and where that cannot be, root goes on asking at the old one. */
static int follow_user(void)
{
	struct sockaddr_un before = name;
	struct status old = file, now;
	bool gone;
	int error;

	served_user = effective_user();
	gone = !automatic && look(before.sun_path, &now) == 0 && is_same(&now, &old) &&
	       XP__SYS1(SYS_unlink, before.sun_path) == 0;
	if (!automatic && !gone)
		return 0;
	error = automatic ? serve_automatic() : serve_at(before.sun_path);
	if (!error && automatic && look(before.sun_path, &now) == 0 && is_same(&now, &old))
		XP__SYS1(SYS_unlink, before.sun_path);
	return automatic ? 0 : error;
}

/* What the program closed is opened again. */
static int reopen(void)
{
	int error = 0;

	if (user_changed())
		error = follow_user();
	if (!error && (!xp__cached_fd_same(&wakeup[0], NULL) || !xp__cached_fd_same(&wakeup[1], NULL)))
		error = with_lock(open_bell, NULL);
	if (!error && !xp__cached_fd_same(&listener, NULL))
		error = serve_at(name.sun_path);
	return error;
}

/* Whether it passes by itself: there may be descriptors, memory and the text lock again. */
static bool is_shortage(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS || error == -EBUSY ||
	       error == -ENOSPC || error == -EDQUOT || error == -ECONNABORTED || error == -EINTR || error == -XP_E_HELD;
}

static int end_locked(const void *error)
{
	if (!in_charge())
		return 0;
	ended_by = *(const int *)error;
	name.sun_path[0] = '\0';
	close_all();
	set_phase(IDLE);
	return 0;
}

/* The end: nobody is served, and who waits for that is told. In a child that may not have the lock there is nothing to end. */
static void end(int error)
{
	static uint32_t never;
	int refused;

	remove_our_file();
	while ((refused = with_lock(end_locked, &error)) && refused != -XP_E_WEDGED)
		xp__futex_wait(&never, 0, 100000000);
}

static void *serve(void *unused)
{
	int error = 0, failures = 0, refusals = 0;

	(void)unused;
	/* Who asks before the program's own objects have registered would be told that there are none. */
	for (int i = 0; i < ARRIVAL_MS / 10 && !stopping() && !xp__all_arrived(); i++)
		xp__futex_wait(&phase, SERVING, 10000000);
	while (!stopping()) {
		int mended;

		error = serve_one();
		mended = stopping() ? 0 : reopen();
		if (mended)
			error = mended;
		if (error == 0 || error == -EAGAIN) {
			failures = refusals = 0;
			continue;
		}
		refusals += !is_shortage(error);
		if (refusals >= TRIES)
			break;
		/* 10 ms, twice as long each time, at most a second; the end is not waited for. */
		xp__futex_wait(&phase, SERVING, 10000000ull << (failures < 6 ? failures++ : 6));
	}
	end(stopping() ? -ENOTCONN : error);
	return NULL;
}

/* Under the text lock. */
static void notify(void)
{
	long fd;

	if (xp__cached_fd_same(&wakeup[1], NULL)) {
		XP__SYS3(SYS_write, wakeup[1].fd, "", 1);
		return;
	}
	/* That the thread waits is what keeps a closed socket listening. */
	fd = open_socket();
	if (fd >= 0) {
		XP__SYS3(SYS_connect, fd, &name, sizeof(name));
		XP__SYS1(SYS_close, fd);
	}
}

void xp__control_wake(void)
{
	if (!stopping())
		notify();
}

void xp__control_fork(void)
{
	close_all();
	name.sun_path[0] = '\0';
	phase = IDLE;
	ended_by = -ENOTCONN;
	xp__fork_marks[XP__MARK_CONTROL] = 1;
}

/* ---- start and stop ---- */

static int claim(const void *path)
{
	if (phase != IDLE)
		return -EALREADY;
	served_by = XP__SYS1(SYS_getpid, 0);
	served_user = effective_user();
	automatic = path == NULL;
	set_phase(STARTING);
	return 0;
}

static int begin(const void *unused)
{
	int error = in_charge() ? open_bell(unused) : -ECANCELED;

	if (!error)
		set_phase(SERVING);
	return error;
}

static int stop_locked(const void *unused)
{
	(void)unused;
	if (phase == SERVING) {
		set_phase(STOPPING);
		notify();
	}
	return 0;
}

/*
 * The thread is made without the lock: what libc takes for that, somebody may hold who loads a module and waits for the
 * lock. In the child of a fork in between it finds that it serves nobody, and ends.
 */
int xp_control_start(const char *path)
{
	int error = with_lock(claim, path);

	if (error)
		return error;
	error = serve_asked(path);
	if (!error)
		error = with_lock(begin, NULL);
	if (!error)
		error = xp__worker_start(serve);
	if (error)
		end(error);
	return error;
}

int xp_control_stop(void)
{
	int error = with_lock(stop_locked, NULL);
	uint32_t now;

	/* One that starts in another thread just now is stopped when it has. */
	while (!error && (now = __atomic_load_n(&phase, __ATOMIC_RELAXED)) != IDLE) {
		xp__futex_wait(&phase, now, 0);
		if (now == STARTING)
			error = with_lock(stop_locked, NULL);
	}
	return error;
}

struct room {
	char *path;
	size_t size;
};

static int copy_path(const void *data)
{
	const struct room *room = data;
	size_t need = strlen(name.sun_path) + 1;

	if (need == 1)
		return ended_by;
	if (need > room->size)
		return -ERANGE;
	memcpy(room->path, name.sun_path, need);
	return 0;
}

int xp_control_path(char *path, size_t size)
{
	return with_lock(copy_path, &(struct room){path, size});
}

/* Of all constructors of the library the last: until then it is one thread that runs. */
__attribute__((constructor)) static void start_asked(void)
{
	const char *path = getauxval(AT_SECURE) ? NULL : getenv("CROSSPATCH_CONTROL");

	if (path && path[0])
		(void)xp_control_start(strcmp(path, "auto") == 0 ? NULL : path);
}

/* A process that ends leaves no name behind, unless it is killed. Without the lock: who holds it may be gone. */
__attribute__((destructor)) static void stop_at_end(void)
{
	if (!stopping() && XP__SYS1(SYS_getpid, 0) == served_by)
		remove_our_file();
}
