/* SPDX-License-Identifier: MIT */
/* What there is of the service of control.c: its phase, and its descriptors. */
#ifndef XP_LINUX_CONTROL_STATE_H
#define XP_LINUX_CONTROL_STATE_H

#include "port/linux/cached_fd.h"

#include <stdbool.h>
#include <stdint.h>

enum { XP__CONTROL_PEERS = 16 };

/* FRESH: to be the listener. VISITOR, FOLDER: of a moment. BELL: the end of a pipe that is read, RINGER: the other one. */
enum xp__control_fd {
	XP__FD_LISTENER,
	XP__FD_FRESH,
	XP__FD_VISITOR,
	XP__FD_FOLDER,
	XP__FD_BELL,
	XP__FD_RINGER,
	XP__FD_PEERS,
	XP__NR_FDS = XP__FD_PEERS + XP__CONTROL_PEERS
};
extern struct xp__cached_fd xp__control_fds[XP__NR_FDS];

enum { XP__CONTROL_IDLE, XP__CONTROL_STARTING, XP__CONTROL_SERVING, XP__CONTROL_STOPPING };
extern uint32_t xp__control_phase; /* a futex */
extern long xp__control_process;   /* whose service it is: the process id */
extern int xp__control_ended_by;   /* why there is none: -errno */

void xp__control_set_phase(uint32_t now); /* Context: text lock */
bool xp__control_stopping(void);          /* it does not serve, or not for long */
/* xp__control_in_charge - false in the child of a fork in the middle of a start: there is nothing to be in charge of. */
bool xp__control_in_charge(void);
unsigned xp__control_user(void);

/*
 * xp__control_with_lock - calls @change under the text lock. No signal comes in: a handler that forks would leave a child in the
 * middle of it. Blocked under the lock only: a thread that waits for the lock lets the rendezvous of its holder in. Returns what
 * @change does, or why the lock was not to be had.
 */
int xp__control_with_lock(int (*change)(const void *data), const void *data);

/*
 * xp__control_open - opens @path with O_ flags; NULL: makes a socket. close - closes it. Both take the text lock. The others are
 * called under it: take - keeps @fd, which may be an error: 0 or -errno; drop - closes it if it is ours. same - whether it is
 * what it was. Context: any.
 */
int xp__control_open(enum xp__control_fd which, const char *path, int flags);
void xp__control_close(enum xp__control_fd which);
int xp__control_take(enum xp__control_fd which, long fd);
void xp__control_drop(enum xp__control_fd which);
bool xp__control_same(enum xp__control_fd which);
int xp__control_open_bell(const void *unused);
long xp__control_new_socket(void);
void xp__control_close_all(void);
/* xp__control_fork - in the child of a fork: it serves nothing. */
void xp__control_fork(void);

#endif
