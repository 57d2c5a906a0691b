/* SPDX-License-Identifier: MIT */
/* The library's own threads. */
#ifndef XP_LINUX_WORKER_H
#define XP_LINUX_WORKER_H

#include <stdbool.h>

/* xp__worker_start - makes one, detached, that runs @body. 0 or -errno. Context: thread; no lock held: libc takes some. */
int xp__worker_start(void *(*body)(void *));
/* xp__worker_in_handler - whether the caller may be a signal handler, where libc makes no thread. Context: text lock. */
bool xp__worker_in_handler(void);
/* xp__worker_mask - called by such a thread before it waits: its mask, as the rendezvous wants it now. */
void xp__worker_mask(void);
/* xp__worker_follow - the same, by any thread that waits for the text lock: whether the caller is such a thread. */
bool xp__worker_follow(void);

#endif
