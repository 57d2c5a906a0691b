// SPDX-License-Identifier: MIT
#include "replace.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static const char *open_directory(struct replacement *r, const char *path)
{
	const char *slash = strrchr(path, '/');
	char directory[PATH_MAX] = ".";

	if (slash) {
		size_t len = slash == path ? 1 : (size_t)(slash - path);

		if (len >= sizeof(directory))
			return strerror(ENAMETOOLONG);
		memcpy(directory, path, len);
		directory[len] = '\0';
	}
	r->name = slash ? slash + 1 : path;
	if (r->name[0] == '\0')
		return "is the name of a directory";
	r->directory = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return r->directory < 0 ? strerror(errno) : NULL;
}

/* What is there, and is to be replaced. */
static const char *look(struct replacement *r, mode_t mode)
{
	struct stat st;
	mode_t mask;

	if (fstatat(r->directory, r->name, &st, AT_SYMLINK_NOFOLLOW)) {
		if (errno != ENOENT)
			return strerror(errno);
		mask = umask(0);
		umask(mask);
		r->mode = mode & 0777 & ~mask;
		r->user = (uid_t)-1;
		r->group = (gid_t)-1;
		return NULL;
	}
	if (S_ISLNK(st.st_mode))
		return "is a symbolic link, which is not followed: name the file itself";
	if (!S_ISREG(st.st_mode))
		return "is no regular file, and is not replaced by one: name a file";
	r->mode = st.st_mode & 07777;
	r->user = st.st_uid;
	r->group = st.st_gid;
	return NULL;
}

static const char *open_beside(struct replacement *r)
{
	enum { TRIES = 100 };

	for (int i = 0; i < TRIES; i++) {
		uint64_t number;

		if (getrandom(&number, sizeof(number), 0) != sizeof(number))
			return strerror(errno);
		snprintf(r->beside, sizeof(r->beside), ".crosspatch-%016llx", (unsigned long long)number);
		r->fd = openat(r->directory, r->beside, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (r->fd >= 0 || errno != EEXIST)
			break;
	}
	return r->fd < 0 ? strerror(errno) : NULL;
}

const char *replace_begin(struct replacement *r, const char *path, mode_t mode)
{
	const char *why;

	memset(r, 0, sizeof(*r));
	r->fd = r->directory = -1;
	why = open_directory(r, path);
	if (!why)
		why = look(r, mode);
	if (!why)
		why = open_beside(r);
	if (why && r->directory >= 0)
		close(r->directory);
	return why;
}

/* The owner comes before the mode: to change the owner takes bits of the mode away. */
static const char *dress(const struct replacement *r)
{
	struct stat st;

	if (fstat(r->fd, &st))
		return strerror(errno);
	if ((r->user != (uid_t)-1 && (st.st_uid != r->user || st.st_gid != r->group)) &&
	    fchown(r->fd, r->user, r->group))
		return "belongs to another user or group, and a new file could not";
	return fchmod(r->fd, r->mode) ? strerror(errno) : NULL;
}

const char *replace_end(struct replacement *r, int keep)
{
	const char *why = keep ? dress(r) : NULL;
	struct replacement now = *r;

	/* Something else may have come there meanwhile. */
	if (keep && !why)
		why = look(&now, 0);
	if (close(r->fd) && !why)
		why = strerror(errno);
	if (keep && !why && renameat(r->directory, r->beside, r->directory, r->name))
		why = strerror(errno);
	if (!keep || why)
		unlinkat(r->directory, r->beside, 0);
	close(r->directory);
	r->fd = r->directory = -1;
	return why;
}
