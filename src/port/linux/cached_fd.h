/* SPDX-License-Identifier: MIT */
/* Files of /proc that a commit opens. */
#ifndef XP_LINUX_KEPT_H
#define XP_LINUX_KEPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xp__cached_fd {
	int fd; /* -1: none */
	uint64_t device, inode;
	int64_t place;
	bool placed; /* or it stands where it was opened */
	bool listed, of_thread;
	struct xp__cached_fd *next;
};
/*
 * xp__cached_fd_open - drops what is there, opens @path, and sets @mark. 0 or -errno. A negative @place: memory files.
 * Context: text lock, or the constructor.
 */
int xp__cached_fd_open(struct xp__cached_fd *kept, uint32_t *mark, const char *path, int flags, int64_t place);
/* xp__cached_fd_high - @fd, under a high number if another thread may close and reuse a low one. */
int xp__cached_fd_high(int fd);
/* xp__cached_fd_path - which of the two names it is opened by. */
const char *xp__cached_fd_path(const char *of_process, const char *of_thread);
/*
 * xp__cached_fd_first_ended - what was opened by the process' name said nothing: the first thread has ended. True if that is news:
 * what there was is dropped, and is to be opened by the other name.
 */
bool xp__cached_fd_first_ended(struct xp__cached_fd *kept);
/*
 * xp__cached_fd_write - opens @path, writes there, and closes it: as a whole, no signal comes between. The result of the write, or
 * -errno; -EBADF: it was closed or replaced meanwhile. @place: negative. Context: text lock; nothing is open.
 */
long xp__cached_fd_write(struct xp__cached_fd *kept, const char *path, int64_t place, void *addr, const void *bytes,
			 size_t len);
/* xp__cached_fd_ours - whether it is what was opened; xp__cached_fd_same - whether it is the same file, and its links. */
bool xp__cached_fd_ours(const struct xp__cached_fd *kept);
bool xp__cached_fd_same(const struct xp__cached_fd *kept, unsigned *links);
void xp__cached_fd_drop(struct xp__cached_fd *kept);  /* closes it if it is ours */
void xp__cached_fd_close(struct xp__cached_fd *kept); /* it is: the caller has just seen it */
void xp__cached_fd_drop_all(void);                    /* all that xp__cached_fd_open() opened */
/* xp__cached_fd_commit_ends - the same, unless they stay open. Context: text lock, about to be given back. */
void xp__cached_fd_commit_ends(void);
/* xp__cached_fd_stay - whether they stay open from one commit to the next. */
bool xp__cached_fd_stay(void);
void xp__cached_fd_set_stay(bool stay);

#endif
