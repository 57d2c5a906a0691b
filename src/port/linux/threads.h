/* SPDX-License-Identifier: MIT */
/* The threads of the process. */
#ifndef XP_LINUX_THREADS_H
#define XP_LINUX_THREADS_H

#include <stdbool.h>
#include <stdint.h>

struct xp_diag;

/* xp__threads_next - the next thread id of the process, 0 at the end, -errno. Start with a zeroed cursor, end it. */
struct xp__threads {
	int fd;
	uint32_t at, filled;
	bool open;
	char buffer[1024] __attribute__((aligned(8)));
};
int xp__threads_next(struct xp__threads *threads);
void xp__threads_end(struct xp__threads *threads);
int xp__threads_open(void); /* the directory: 0 or -errno */
/* xp__threads_alone - whether the process has one thread. */
bool xp__threads_alone(void);
/* xp__threads_many - whether there are so many that to look at the mask of each takes longer than a thread may run at a time. */
bool xp__threads_many(void);
/*
 * xp__threads_traced - whether a tracer sees the signals of the process, or did just now, and a thread that does not commit might
 * meet a breakpoint. Where /proc does not say, none does. Context: text lock.
 */
bool xp__threads_traced(void);
/*
 * xp__threads_ours - 0 if the ids that /proc has are those of this process' namespace; -EXDEV if they are of another, so that
 * no thread is sent a signal by them; -errno. Context: text lock.
 */
int xp__threads_ours(void);
/* xp__thread_look - what its status file says of a thread: 0; -ESRCH if it is gone (or a zombie); -errno. */
struct xp__thread {
	char state;                /* as in proc(5) */
	uint64_t pending, blocked; /* signals; pending: sent to this thread alone */
};
int xp__thread_look(int tid, struct xp__thread *thread);
/* xp__thread_patience_ms - how long a thread that blocks a signal is waited for, of which its mask tells. */
unsigned xp__thread_patience_ms(const struct xp__thread *thread);
bool xp__thread_stopped(const struct xp__thread *thread); /* a tracer holds it */
/* How long a commit waits in all for threads that are late through no mask of their own. */
#ifdef XP_INJECT
extern uint32_t xp__threads_patience_ms;
#define XP__PATIENCE_MS xp__threads_patience_ms
#else
#define XP__PATIENCE_MS 10000u
#endif
/* xp__thread_is_kernels - whether the kernel made it for itself: it blocks everything and executes no user code. */
bool xp__thread_is_kernels(int tid);
/* xp__threads_accept - 0 if no thread blocks @signal and it is not ignored; else -EBUSY with the thread in @diag. */
int xp__threads_accept(int signal, struct xp_diag *diag);

#endif
