/* SPDX-License-Identifier: MIT */
/* What the files of this port have of each other. */
#ifndef XP_LINUX_PORT_H
#define XP_LINUX_PORT_H

#include "port/linux/sys.h"

#include <crosspatch/error.h>
#include <crosspatch/linux.h>
#include <crosspatch/port.h>

/* ---- port.c ---- */
void *xp__alloc(size_t size);
void xp__release(void *memory, size_t size);
/* xp__refuse - fills @diag and returns @error. */
int xp__refuse(struct xp_diag *diag, int error, int system, const char *detail);

/* ---- fork.c ---- */
int xp__fork_start(void);
/* Marks that are zero at first and after every fork, however it was made: who sets one knows when it is in a child. */
enum xp__mark { XP__MARK_LOCK, XP__MARK_PROCMEM, XP__MARK_THREADS, XP__MARK_MAPS, XP__NR_MARKS };
extern uint32_t *xp__fork_marks;
/* xp__fork_ask - asks thread @tid, which holds the text lock for a fork, to let others have it. Context: any. */
void xp__fork_ask(int tid);
/* xp__fork_asked - the caller is asked. Context: the handler of the rendezvous' signal, @signal. */
void xp__fork_asked(int signal);

/* ---- kept.c: files of /proc that a commit opens ---- */
struct xp__kept {
	int fd; /* -1: none */
	uint64_t device, inode;
	int64_t place;
	bool placed; /* or it stands where it was opened */
	bool listed, of_thread;
	struct xp__kept *next;
};
/*
 * xp__kept_open - drops what is there, opens @path, and sets @mark. 0 or -errno. A negative @place: memory files.
 * Context: text lock, or the constructor.
 */
int xp__kept_open(struct xp__kept *kept, uint32_t *mark, const char *path, int flags, int64_t place);
/* xp__kept_path - which of the two names it is opened by. */
const char *xp__kept_path(const char *of_process, const char *of_thread);
/*
 * xp__kept_first_ended - what was opened by the process' name said nothing: the first thread has ended. True if that is news:
 * what there was is dropped, and is to be opened by the other name.
 */
bool xp__kept_first_ended(struct xp__kept *kept);
/*
 * xp__kept_write - opens @path, writes there, and closes it: as a whole, no signal comes between. The result of the write, or
 * -errno; -EBADF: it was closed or replaced meanwhile. @place: negative. Context: text lock; nothing is open.
 */
long xp__kept_write(struct xp__kept *kept, const char *path, int64_t place, void *addr, const void *bytes, size_t len);
/* xp__kept_ours - whether it is what was opened; xp__kept_same - whether it is the same file, and its links. */
bool xp__kept_ours(const struct xp__kept *kept);
bool xp__kept_same(const struct xp__kept *kept, unsigned *links);
void xp__kept_drop(struct xp__kept *kept);  /* closes it if it is ours */
void xp__kept_close(struct xp__kept *kept); /* it is: the caller has just seen it */
void xp__kept_drop_all(void);              /* all that xp__kept_open() opened */
/* xp__kept_commit_ends - the same, unless they stay open. Context: text lock, about to be given back. */
void xp__kept_commit_ends(void);
/* xp__kept_stay - whether they stay open from one commit to the next. */
bool xp__kept_stay(void);
void xp__kept_set_stay(bool stay);

/* ---- keys.c ---- */
/* xp__handlers_read - whether a signal handler can read the eight bytes in line around @addr; the caller could. */
bool xp__handlers_read(uintptr_t addr);

/* ---- writer_*.c: how bytes get into program text ---- */
struct xp__writer {
	const char *name;
	bool single; /* stores of up to 8 bytes inside an aligned quadword are one store */
	/* probe - 0 if it works here and now, else an error. */
	int (*probe)(void);
	/* ready - the same before each commit, as far as it costs nothing: what the write itself will show may wait. */
	bool (*ready)(void);
	int (*write)(void *addr, const void *bytes, size_t len, unsigned flags);
};
extern const struct xp__writer xp__writer_procmem;
extern const struct xp__writer xp__writer_mprotect;
bool xp__windows_left(void);
/* xp__windows_close - closes what the mprotect writer had to leave open. 0 if nothing is open any more, else -errno. */
int xp__windows_close(void);

/* xp__probe_text - text of our own, to try a writer on: its first byte, as it is. */
extern const uint8_t xp__probe_text[] __attribute__((visibility("hidden")));

/* ---- sync_*.c ---- */
int xp__membarrier_start(void); /* registers; 0 if usable */
int xp__membarrier_sync(void);

/*
 * The rendezvous: every other thread comes into a signal handler and executes a serializing instruction there.
 * Threads of other processes that share the memory (children of vfork) are not reached.
 */
int xp__rendezvous_start(void); /* chooses and installs the signal; 0 if usable */
int xp__rendezvous_signal(void);
void xp__rendezvous_ask_forking(int tid); /* its handler calls xp__fork_asked() there */
/* How long a round may take that cannot succeed as it looks: nothing is stored yet, text is half new, it is being undone. */
enum xp__hurry { XP__BEFORE, XP__MIDWAY, XP__UNDOING };
/* xp__rendezvous_sync - 0; -EBUSY, with the thread that did not come in @diag (may be NULL); -errno. */
int xp__rendezvous_sync(enum xp__hurry hurry, struct xp_diag *diag);
int xp__rendezvous_park(const struct xp_range *ranges, size_t nr, struct xp_diag *diag);
void xp__rendezvous_unpark(void);

/* ---- sigtrap.c ---- */
int xp__sigtrap_start(struct xp_diag *diag); /* installs the handler, or finds that it still is */
int xp__sigill_start(struct xp_diag *diag);  /* likewise */
int xp__sigsegv_start(struct xp_diag *diag); /* likewise */
bool xp__in_trap(void);                      /* the caller runs inside a handler that ours passed a foreign trap to */
unsigned xp__trap_shard(void);               /* the caller's, for xp_trap() */
int xp__text_peek(const void *addr);         /* the port's text_peek(), for the handler */

/* ---- threads.c ---- */
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

/* ---- maps.c ---- */
struct xp__mapping {
	uintptr_t start, end;
	int prot;    /* PROT_ bits */
	bool shared; /* what is written there, others see */
};
/* xp__maps_find - 0, -XP_E_NOT_TEXT if nothing is mapped there, -errno if it cannot be told. Under the text lock. */
int xp__maps_find(uintptr_t addr, struct xp__mapping *mapping);
int xp__maps_open(void); /* 0 or -errno */

/* xp__maps_file - the path of the file that is mapped there. 0, -ENOENT if there is none or it is longer, -errno. */
int xp__maps_file(uintptr_t addr, char *path, size_t size);

/* ---- moved.c ---- */
int xp__module_check(const void *header);

/* ---- lock.c ---- */
int xp__text_lock(void);
void xp__text_unlock(void);
bool xp__text_lock_owned(void); /* by the caller */
/*
 * xp__text_lock_for_fork - takes the lock for a fork; from inside a trap too, without a wait.
 * xp__text_lock_forks - the caller, who holds the lock, calls fork, or commits. xp__text_lock_forking - whether it does, and
 * holds the lock for that. xp__text_lock_yield - it lets others have the lock, and takes it back: false if it did not get it.
 */
int xp__text_lock_for_fork(void);
void xp__text_lock_forks(bool forks);
bool xp__text_lock_forking(void);
bool xp__text_lock_yield(void);
/* xp__text_lock_fork - in the child: the lock belongs to the forking thread's new self if @held, else to nobody. */
void xp__text_lock_fork(bool held);

/* ---- lifetime.c ---- */
/* xp__lifetime_start - notes what is to register before the program begins. Context: the library's first constructor. */
void xp__lifetime_start(void);
/* xp__lasts - the port's lasts(). xp__all_arrived - whether all that is of the start of the program has registered. */
bool xp__lasts(const void *module, bool arrives);
bool xp__all_arrived(void);

/* ---- pin.c ---- */
void *xp__pin(const void *target, const void *user);
void xp__unpin(void *pin);
void xp__pin_self(void); /* Context: start */

/* ---- function.c ---- */
struct xp_function_thread *xp__function_thread(void);
void xp__function_start(void);
int xp__function_keep(struct xp_function_thread *self);
int xp__data_read(uintptr_t *to, const void *addr);
bool xp__stack_left(uintptr_t frame, uintptr_t here);
int xp__function_begins(const void *code);
uintptr_t xp__unwind_ip(void *context);
void xp__moment_wait(void);
int xp__stack_check(const void *from, const struct xp_range *ranges, size_t nr, struct xp_diag *diag); /* quiesce.c */

/* ---- worker.c: the library's own threads ---- */
/* xp__worker_start - makes one, detached, that runs @body. 0 or -errno. Context: thread; no lock held: libc takes some. */
int xp__worker_start(void *(*body)(void *));
/* xp__in_handler - whether the caller may be a signal handler, where libc makes no thread. Context: text lock. */
bool xp__in_handler(void);
/* xp__worker_mask - called by such a thread before it waits: its mask, as the rendezvous wants it now. */
void xp__worker_mask(void);
/* xp__worker_follow - the same, by whoever waits for the text lock: whether the caller is one. */
bool xp__worker_follow(void);
void xp__workers_wake(void); /* they look again: the signal of the rendezvous is another one. Context: text lock */

/* ---- defer.c ---- */
int xp__defer(uint64_t deadline_ms);
int xp__defer_start(void);
uint64_t xp__clock_ms(void);
void xp__defer_fork(void);
void xp__defer_wake(void);

/* ---- control.c: operation from outside ---- */
void xp__control_wake(void);
void xp__control_fork(void); /* in the child: it serves nobody */

#endif
