/* SPDX-License-Identifier: MIT */
/*
 * A file that is replaced by a complete new one, or stays. The new one is written beside it under a name that no file has, and
 * takes its place by rename. Only a regular file is replaced, or nothing: no device, pipe, directory, and no symbolic link,
 * which may lead out of a directory of another user. A file keeps its owner, group and mode; of a file with several names
 * (hard links) this one alone is the new file's.
 */
#ifndef XP_TOOL_REPLACE_H
#define XP_TOOL_REPLACE_H

#include <sys/stat.h>

struct replacement {
	int fd;           /* of the new file, to be read and written; -1: there is none */
	int directory;    /* of both */
	const char *name; /* the last part of the path, which stays the caller's */
	char beside[32];
	mode_t mode; /* in the end */
	uid_t user;
	gid_t group;
};

/*
 * replace_begin - a new file beside @path. NULL, or why not; there is nothing then. @mode: of a file that was not there, if
 * the user's mask allows.
 */
const char *replace_begin(struct replacement *replacement, const char *path, mode_t mode);

/* replace_end - @keep: the new file takes the place, else it goes. NULL, or why it could not; then all is as before. */
const char *replace_end(struct replacement *replacement, int keep);

#endif
