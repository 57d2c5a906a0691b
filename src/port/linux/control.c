// SPDX-License-Identifier: MIT
/*
 * Operation from outside: a socket, and the thread that answers who asks there. What is asked and answered: answer.c.
 *
 * I1  Nothing is there unless the program, or who started it, asks for it.
 * I2  Answered are this process' own effective user and root, whatever the socket's file says; both are asked.
 * I3  One request, one answer, one connection at a time. A request is bounded, and so is the time that it takes to come
 *     and its answer to be taken. No lock is held meanwhile: a peer that stops delays the next peer, and no commit.
 * I4  Descriptors come and go under the text lock, which fork takes: a child knows them all, and closes them. It serves
 *     nobody; its parent's peers are its parent's.
 * I5  Descriptors may be closed by the program, and their numbers be others' (kept.c). They are looked at before use, and
 *     made anew. Sockets and pipes have inodes of their own, unlike eventfds.
 * I6  Of a name that is taken: a socket of ours that nobody listens to goes; anything else stays, and we do not come. A
 *     lock on the directory is held from the look to the listening, so that two who come at once do not unlink each other.
 */
#include "port/linux/port.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
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
};

#ifdef SYS_geteuid32
#define GETEUID SYS_geteuid32
#else
#define GETEUID SYS_geteuid
#endif

/* All under the text lock, but for the descriptors, which only the thread changes while it runs. */
static struct xp__kept listener = {.fd = -1}, peer = {.fd = -1};
static struct xp__kept bell[2] = {{.fd = -1}, {.fd = -1}}; /* a pipe */
static struct sockaddr_un name;                            /* "": none */
static struct statx file;                                  /* the socket's, there */
static long served_by;                                     /* process id */

enum { IDLE, SERVING, STOPPING };
static uint32_t phase; /* futex of who waits for the end */

static unsigned effective_user(void)
{
	return (unsigned)XP__SYS1(GETEUID, 0);
}

/* ---- descriptors ---- */

static void drop(struct xp__kept *kept)
{
	if (xp__kept_same(kept, NULL))
		XP__SYS1(SYS_close, kept->fd);
	kept->fd = -1;
}

/* Keeps @fd, which may be an error. 0 or -errno. */
static int take(struct xp__kept *kept, long fd)
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
	*kept = (struct xp__kept){.fd = (int)fd, .device = st.st_dev, .inode = st.st_ino};
	return 0;
}

static int open_bell(void)
{
	int fds[2], error, second;

	drop(&bell[0]);
	drop(&bell[1]);
	error = (int)XP__SYS2(SYS_pipe2, fds, O_CLOEXEC | O_NONBLOCK);
	if (error)
		return error;
	error = take(&bell[0], fds[0]);
	second = take(&bell[1], fds[1]);
	return error ? error : second;
}

static long open_socket(void)
{
	return XP__SYS3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

static void close_all(void)
{
	drop(&listener);
	drop(&peer);
	drop(&bell[0]);
	drop(&bell[1]);
}

/* ---- the name ---- */

static int look(const char *path, struct statx *stx)
{
	return (int)XP__SYS6(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, stx, 0);
}

static bool is_our_file(void)
{
	struct statx now;

	return name.sun_path[0] && look(name.sun_path, &now) == 0 && now.stx_ino == file.stx_ino &&
	       now.stx_dev_major == file.stx_dev_major && now.stx_dev_minor == file.stx_dev_minor;
}

/* Connects to the name, and hangs up: 0 or -EAGAIN if somebody listens there. */
static int knock(void)
{
	long fd = open_socket(), error;

	if (fd < 0)
		return (int)fd;
	error = XP__SYS3(SYS_connect, fd, &name, sizeof(name));
	XP__SYS1(SYS_close, fd);
	return (int)error;
}

static int remove_stale(void)
{
	struct statx stx;
	int error = look(name.sun_path, &stx);

	if (error)
		return error == -ENOENT ? 0 : error;
	if (!S_ISSOCK(stx.stx_mode) || stx.stx_uid != effective_user())
		return -EEXIST;
	error = knock();
	if (error == 0 || error == -EAGAIN)
		return -EADDRINUSE;
	return error == -ECONNREFUSED ? (int)XP__SYS1(SYS_unlink, name.sun_path) : error;
}

/* The mode is the socket's before it has a name: there is no moment at which others could come in. */
static int bind_and_listen(int fd)
{
	int error = (int)XP__SYS2(SYS_fchmod, fd, 0600);

	if (!error)
		error = (int)XP__SYS3(SYS_bind, fd, &name, sizeof(name));
	if (error == -EADDRINUSE) {
		error = remove_stale();
		if (!error)
			error = (int)XP__SYS3(SYS_bind, fd, &name, sizeof(name));
	}
	if (error)
		return error;
	error = look(name.sun_path, &file);
	if (!error)
		error = (int)XP__SYS2(SYS_listen, fd, BACKLOG);
	if (error)
		XP__SYS1(SYS_unlink, name.sun_path);
	return error;
}

/* An open directory that nobody else has locked, or -errno. */
static long lock_directory(void)
{
	enum { TRIES = 50 }; /* of a millisecond */
	char path[sizeof(name.sun_path)];
	long fd, error = -EWOULDBLOCK;
	char *slash;

	memcpy(path, name.sun_path, sizeof(path));
	slash = strrchr(path, '/');
	slash[slash == path] = '\0';
	fd = XP__SYS4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	for (int i = 0; i < TRIES && error == -EWOULDBLOCK; i++) {
		if (i > 0)
			xp__moment_wait();
		error = XP__SYS2(SYS_flock, fd, LOCK_EX | LOCK_NB);
	}
	if (error == 0)
		return fd;
	XP__SYS1(SYS_close, fd);
	return error == -EWOULDBLOCK ? -EBUSY : error;
}

static int open_listener(void)
{
	long directory = lock_directory();
	int error;

	if (directory < 0)
		return (int)directory;
	error = take(&listener, open_socket());
	if (!error) {
		error = bind_and_listen(listener.fd);
		if (error)
			drop(&listener);
	}
	XP__SYS1(SYS_close, directory);
	return error;
}

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

/* Where the sockets of a user's processes are, by process id: the first of these directories that is his alone. */
static int find_directory(char *path)
{
	static const struct {
		const char *start;
		bool user;
		const char *end;
	} directories[] = {
		{"/run/crosspatch", false, ""}, {"/run/user/", true, "/crosspatch"}, {"/tmp/crosspatch-", true, ""}};
	unsigned user = effective_user();
	int error = -ENOENT;

	for (size_t i = user ? 1 : 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
		struct statx stx;

		path[0] = '\0';
		append(path, directories[i].start);
		if (directories[i].user)
			append_number(path, user);
		append(path, directories[i].end);
		XP__SYS2(SYS_mkdir, path, 0700);
		error = look(path, &stx);
		if (error == 0 && S_ISDIR(stx.stx_mode) && stx.stx_uid == user && !(stx.stx_mode & 077))
			return 0;
	}
	return error ? error : -EACCES;
}

static int choose_name(const char *path)
{
	size_t len = path ? strlen(path) : 0;
	int error = 0;

	memset(&name, 0, sizeof(name));
	name.sun_family = AF_UNIX;
	if (path == NULL) {
		error = find_directory(name.sun_path);
		append(name.sun_path, "/");
		append_number(name.sun_path, (unsigned long)served_by);
	} else if (path[0] != '/' || path[len - 1] == '/') {
		error = -EINVAL;
	} else if (len >= sizeof(name.sun_path)) {
		error = -ENAMETOOLONG;
	} else {
		memcpy(name.sun_path, path, len);
	}
	if (error)
		name.sun_path[0] = '\0';
	return error;
}

/* ---- the thread ---- */

static bool stopping(void)
{
	return __atomic_load_n(&phase, __ATOMIC_RELAXED) != SERVING;
}

/* Waits for @events of @what until @deadline. False: it has passed, @what is not ours any more, or we are to stop. */
static bool await(const struct xp__kept *what, short events, uint64_t deadline)
{
	while (!stopping() && xp__kept_same(what, NULL)) {
		bool rings = xp__kept_same(&bell[0], NULL);
		struct pollfd fds[2] = {{what->fd, events, 0}, {rings ? bell[0].fd : -1, POLLIN, 0}};
		uint64_t now = xp__clock_ms();
		char drained[64];

		if (now >= deadline)
			return false;
		/* Whoever chooses another signal rings afterwards: it is seen here, or the bell by poll. */
		xp__worker_mask();
		XP__SYS3(SYS_poll, fds, 2, deadline == UINT64_MAX ? -1 : (long)(deadline - now));
		if (fds[1].revents && xp__kept_same(&bell[0], NULL))
			XP__SYS3(SYS_read, bell[0].fd, drained, sizeof(drained));
		if (fds[0].revents)
			return !stopping() && xp__kept_same(what, NULL);
	}
	return false;
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

	while (len < REQUEST_MAX && await(&peer, POLLIN, deadline)) {
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

	while (len > 0 && await(&peer, POLLOUT, deadline)) {
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

	send_answer(answer, xp__answer_error(error, why, answer, sizeof(answer)));
}

static void answer(const char *request, size_t len)
{
	size_t size = ANSWER_FIRST;

	for (;;) {
		char *room = xp__alloc(size);
		size_t need = room ? xp__answer(request, len, room, size) : 0;

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

/* What the program closed is opened again. */
static int mend(void)
{
	int error = 0;

	if (!xp__kept_same(&bell[0], NULL) || !xp__kept_same(&bell[1], NULL))
		error = open_bell();
	if (!xp__kept_same(&listener, NULL))
		error = open_listener();
	return error;
}

/* The end: nobody is served, and who waits for that is told. */
static int give_up_locked(const char *unused)
{
	(void)unused;
	if (is_our_file())
		XP__SYS1(SYS_unlink, name.sun_path);
	name.sun_path[0] = '\0';
	close_all();
	__atomic_store_n(&phase, IDLE, __ATOMIC_RELAXED);
	xp__futex_wake(&phase, INT32_MAX);
	return 0;
}

static int accept_peer(void)
{
	long fd = -EAGAIN;
	int error = xp__text_lock();

	if (error)
		return error;
	if (xp__kept_same(&listener, NULL))
		fd = XP__SYS4(SYS_accept4, listener.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	error = take(&peer, fd);
	xp__text_unlock();
	return error;
}

/* Whether it passes by itself: there may be descriptors and memory again. */
static bool is_shortage(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS || error == -EBUSY;
}

/* After a peer, or in place of one. @error: of the accept. */
static int tidy(int error)
{
	int mended;

	if (xp__text_lock())
		return -EBUSY;
	drop(&peer);
	mended = stopping() ? 0 : mend();
	if (mended && !is_shortage(mended)) {
		name.sun_path[0] = '\0'; /* somebody else's, by now */
		__atomic_store_n(&phase, STOPPING, __ATOMIC_RELAXED);
	}
	xp__text_unlock();
	return mended ? mended : error;
}

static void *serve(void *unused)
{
	static uint32_t never;

	(void)unused;
	/* Who asks before the program's own objects have registered would be told that there are none. */
	for (int i = 0; i < ARRIVAL_MS / 10 && !stopping() && !xp__all_arrived(); i++)
		xp__futex_wait(&never, 0, 10000000);
	while (!stopping()) {
		int error = 0;

		if (await(&listener, POLLIN, UINT64_MAX)) {
			error = accept_peer();
			if (!error)
				serve_peer();
		}
		if (is_shortage(tidy(error)))
			xp__futex_wait(&never, 0, 100000000);
	}
	while (xp__text_lock())
		xp__futex_wait(&never, 0, 100000000);
	(void)give_up_locked(NULL);
	xp__text_unlock();
	return NULL;
}

static void ring(void)
{
	if (xp__kept_same(&bell[1], NULL))
		XP__SYS3(SYS_write, bell[1].fd, "", 1);
	else
		(void)knock(); /* that the thread waits is what keeps a closed socket listening */
}

void xp__control_wake(void)
{
	if (!stopping())
		ring();
}

void xp__control_fork(void)
{
	close_all();
	name.sun_path[0] = '\0';
	phase = IDLE;
}

/* ---- start and stop ---- */

static int start_locked(const char *path)
{
	int error;

	if (phase != IDLE)
		return -EALREADY;
	served_by = XP__SYS1(SYS_getpid, 0);
	error = choose_name(path);
	if (!error)
		error = open_listener();
	if (error) {
		name.sun_path[0] = '\0';
		return error;
	}
	error = open_bell();
	if (error)
		(void)give_up_locked(NULL);
	else
		__atomic_store_n(&phase, SERVING, __ATOMIC_RELAXED);
	return error;
}

static int stop_locked(const char *unused)
{
	(void)unused;
	if (phase == IDLE)
		return 0;
	__atomic_store_n(&phase, STOPPING, __ATOMIC_RELAXED);
	ring();
	if (is_our_file())
		XP__SYS1(SYS_unlink, name.sun_path);
	name.sun_path[0] = '\0';
	return 0;
}

/*
 * No signal comes in: a handler that forks would leave a child in the middle of it. Blocked under the lock only: who waits
 * for that lets the rendezvous of its holder in.
 */
static int with_lock(int (*change)(const char *path), const char *path)
{
	uint64_t mask = xp__signals_sent();
	uint64_t before;
	int error = xp__text_lock();

	if (error)
		return error;
	XP__SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &mask, &before, XP__NSIG_SIZE);
	error = change(path);
	xp__text_unlock();
	XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, XP__NSIG_SIZE);
	return error;
}

/*
 * The thread is made without the lock: what libc takes for that, somebody may hold who loads a module and waits for the
 * lock. In the child of a fork in between it finds that it serves nobody, and ends.
 */
int xp_control_start(const char *path)
{
	int error = with_lock(start_locked, path);

	if (!error) {
		error = xp__worker_start(serve);
		if (error)
			(void)with_lock(give_up_locked, NULL);
	}
	return error;
}

int xp_control_stop(void)
{
	int error = with_lock(stop_locked, NULL);

	while (!error && __atomic_load_n(&phase, __ATOMIC_RELAXED) == STOPPING)
		xp__futex_wait(&phase, STOPPING, 0);
	return error;
}

int xp_control_path(char *path, size_t size)
{
	int error = xp__text_lock();
	size_t need;

	if (error)
		return error;
	need = strlen(name.sun_path) + 1;
	if (need == 1)
		error = -ENOTCONN;
	else if (need > size)
		error = -ERANGE;
	else
		memcpy(path, name.sun_path, need);
	xp__text_unlock();
	return error;
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
	if (!stopping() && XP__SYS1(SYS_getpid, 0) == served_by && is_our_file())
		XP__SYS1(SYS_unlink, name.sun_path);
}
