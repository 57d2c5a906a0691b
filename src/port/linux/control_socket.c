// SPDX-License-Identifier: MIT
/*
 * The socket's name: how it comes, and goes. All here is done by the one thread that is in charge, without the text lock, but
 * for what it keeps (control_state.c).
 *
 * I1  A socket gets its name when it listens, by a rename that replaces nothing: one where nothing listens is stale. Stale
 *     ones of this user go: where the name is wanted, and all that are in a directory of our own, a bounded number at a
 *     start. A file is taken away by a rename, looked at, and only then removed: two that come at once do not remove each
 *     other's.
 * I2  The mode is the socket's before it has a name, so that no other user ever comes in.
 */
#include "port/linux/control_socket.h"

#include "port/linux/control_state.h"
#include "port/linux/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#ifdef SYS_getresuid32
#define GETRESUID SYS_getresuid32
#else
#define GETRESUID SYS_getresuid
#endif

enum {
	BACKLOG = 16,
	TRIES = 8,
	SWEEP_MAX = 256, /* sockets of others that are looked at */
	BESIDE = 14, /* of the name that a socket has before it listens: ".xp-" and 8 digits, a slash, and the end */
};

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

static struct sockaddr_un name; /* "": none. Under the text lock, but that what is in charge reads it without */
static struct status file;      /* the socket's, there */
static unsigned served_user;
static bool automatic; /* its name is the process id, somewhere */

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

/* A name beside @path that no file has. */
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

static int socket_look(const char *path, struct status *status)
{
	return (int)XP__SYS6(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATUS_BASIC, status, 0);
}

static bool socket_is_same(const struct status *a, const struct status *b)
{
	return a->inode == b->inode && a->dev_major == b->dev_major && a->dev_minor == b->dev_minor;
}

void xp__control_socket_remove(void)
{
	struct status now;

	if (name.sun_path[0] && socket_look(name.sun_path, &now) == 0 && socket_is_same(&now, &file))
		XP__SYS1(SYS_unlink, name.sun_path);
}

static void set_address(struct sockaddr_un *address, const char *path)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	memcpy(address->sun_path, path, strlen(path) + 1);
}

/* Connects to the name, and hangs up: 0 or -EAGAIN if a process listens there. */
static int probe_name(const char *path)
{
	struct sockaddr_un address;
	int error = xp__control_open(XP__FD_VISITOR, NULL, 0);

	if (error)
		return error;
	set_address(&address, path);
	error = (int)XP__SYS3(SYS_connect, xp__control_fds[XP__FD_VISITOR].fd, &address, sizeof(address));
	xp__control_close(XP__FD_VISITOR);
	return error;
}

/* Removes what is at @path if it is a stale socket of this user (I1). 0: nothing is there any more. */
static int remove_stale(const char *path)
{
	char aside[sizeof(name.sun_path) + BESIDE];
	struct status stale, taken;
	int error = socket_look(path, &stale);

	if (error)
		return error == -ENOENT ? 0 : error;
	if (!S_ISSOCK(stale.mode) || stale.uid != xp__control_user())
		return -EEXIST;
	error = probe_name(path);
	if (error == 0 || error == -EAGAIN)
		return -EADDRINUSE;
	if (error != -ECONNREFUSED)
		return error;
	name_beside(aside, path);
	error = (int)XP__SYS2(SYS_rename, path, aside);
	if (error)
		return error == -ENOENT ? 0 : error;
	error = socket_look(aside, &taken);
	if (!error && !socket_is_same(&taken, &stale)) {
		XP__SYS2(SYS_link, aside, path); /* another one came meanwhile: back with it */
		error = -EADDRINUSE;
	}
	XP__SYS1(SYS_unlink, aside);
	return error;
}

/* The user's mask took bits away that the socket had (0600). Not by name: a link of another user's may be there by now. */
static int restore_mode(const char *path, const struct status *status)
{
	char self[48] = "/proc/thread-self/fd/";
	int error;

	if ((status->mode & 0777) == 0600)
		return 0;
	error = xp__control_open(XP__FD_VISITOR, path, O_PATH | O_NOFOLLOW);
	if (error)
		return error;
	append_number(self, (unsigned long)xp__control_fds[XP__FD_VISITOR].fd);
	error = xp__control_fds[XP__FD_VISITOR].inode == status->inode ? (int)XP__SYS2(SYS_chmod, self, 0600) : -EEXIST;
	xp__control_close(XP__FD_VISITOR);
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
	error = xp__control_open(XP__FD_FOLDER, beside, O_PATH | O_DIRECTORY);
	*slash = '/';
	if (!error) {
		append_number(self, (unsigned long)xp__control_fds[XP__FD_FOLDER].fd);
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
	/* I2 */
	error = (int)XP__SYS2(SYS_fchmod, xp__control_fds[XP__FD_FRESH].fd, 0600);
	if (!error)
		error = (int)XP__SYS3(SYS_bind, xp__control_fds[XP__FD_FRESH].fd, &address, sizeof(address));
	if (error)
		return error;
	error = socket_look(beside, status);
	if (!error)
		error = restore_mode(beside, status);
	if (!error)
		error = (int)XP__SYS2(SYS_listen, xp__control_fds[XP__FD_FRESH].fd, BACKLOG);
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

	if (!xp__control_in_charge())
		return -ECANCELED;
	xp__control_drop(XP__FD_LISTENER);
	xp__control_fds[XP__FD_LISTENER] = xp__control_fds[XP__FD_FRESH];
	xp__control_fds[XP__FD_FRESH].fd = -1;
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
	error = xp__control_open(XP__FD_FRESH, NULL, 0);
	if (!error)
		error = bind_and_listen(copy, &place.status);
	if (!error)
		error = xp__control_with_lock(publish, &place);
	if (error)
		xp__control_close(XP__FD_FRESH);
	xp__control_close(XP__FD_FOLDER);
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
	unsigned user = xp__control_user();
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
	error = socket_look(path, &status);
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

/* Processes that were killed leave their sockets. Removes this user's; of very many the rest at another start. */
static void sweep(const char *directory)
{
	char block[2048] __attribute__((aligned(8))), path[sizeof(name.sun_path)];
	int looks = 0;
	long got;

	if (xp__control_open(XP__FD_FOLDER, directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW))
		return;
	while (looks < SWEEP_MAX &&
	       (got = XP__SYS3(SYS_getdents64, xp__control_fds[XP__FD_FOLDER].fd, block, sizeof(block))) > 0) {
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
	xp__control_close(XP__FD_FOLDER);
}

/* In @directory, by the process id, and if a process of another namespace has that id, by both. */
static int serve_in(char *directory)
{
	int error;

	append(directory, "/");
	append_number(directory, (unsigned long)xp__control_process);
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

	for (size_t i = xp__control_user() ? 1 : 0; i < NR_DIRECTORIES; i++) {
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

int xp__control_socket_open(const char *path)
{
	size_t len = path ? strlen(path) : 0;

	if (path == NULL)
		return serve_automatic();
	if (path[0] != '/' || path[len - 1] == '/')
		return -EINVAL;
	return len < sizeof(name.sun_path) ? serve_at(path) : -ENAMETOOLONG;
}

/* Whether this process has become another user for good: it can no more become what it was. */
bool xp__control_socket_user_changed(void)
{
	uint32_t real, effective, saved;

	return XP__SYS3(GETRESUID, &real, &effective, &saved) == 0 && real == effective && saved == effective &&
	       effective != served_user;
}

/* The new user's own socket, where only that user comes; and where that cannot be, root goes on asking at the old one. */
int xp__control_socket_follow_user(void)
{
	struct sockaddr_un before = name;
	struct status old = file, now;
	bool gone;
	int error;

	served_user = xp__control_user();
	gone = !automatic && socket_look(before.sun_path, &now) == 0 && socket_is_same(&now, &old) &&
	       XP__SYS1(SYS_unlink, before.sun_path) == 0;
	if (!automatic && !gone)
		return 0;
	error = automatic ? serve_automatic() : serve_at(before.sun_path);
	if (!error && automatic && socket_look(before.sun_path, &now) == 0 && socket_is_same(&now, &old))
		XP__SYS1(SYS_unlink, before.sun_path);
	return automatic ? 0 : error;
}

int xp__control_socket_reopen(void)
{
	return serve_at(name.sun_path);
}

/* ---- under the text lock ---- */

void xp__control_socket_claim(bool by_process_id)
{
	served_user = xp__control_user();
	automatic = by_process_id;
	name.sun_path[0] = '\0';
}

const char *xp__control_socket_name(void)
{
	return name.sun_path;
}

void xp__control_socket_knock(void)
{
	long fd = xp__control_new_socket();

	if (fd < 0)
		return;
	XP__SYS3(SYS_connect, fd, &name, sizeof(name));
	XP__SYS1(SYS_close, fd);
}
