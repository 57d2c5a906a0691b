// SPDX-License-Identifier: MIT
/*
 * fork while others patch. The forking thread takes the text lock first, so that the child's copy of the text holds no
 * half-made commit and no breakpoint without an owner. Exceptions:
 * - fork called by a signal handler that interrupted a commit of its own thread. There the child returns into the
 *   commit and finishes it, in its own memory: the descriptor of /proc/self/mem belongs to the process that opened it, so
 *   the writer opens a new one first (MARK_PROCMEM).
 * - fork called by the handler of a foreign trap, while another thread commits. That commit may wait for this thread, so
 *   this thread does not wait for it; the child finds the lock held by nobody, and is refused.
 *
 * The marks stand in a page that the kernel empties in every child (MADV_WIPEONFORK, Linux 4.14), so that children made
 * without fork's handlers are noticed too.
 */
#include "port/linux/port.h"

#include <pthread.h>
#include <sys/mman.h>

static uint32_t fallback_marks[XP__NR_MARKS];
uint32_t *xp__fork_marks = fallback_marks;

/*
 * What prepare() did with the lock. A stack of two bits each: libc lets signals in between prepare() and the other two,
 * and their handlers may fork.
 */
enum fork_lock { TAKEN, OWNED_BEFORE, NOT_OURS };
static __thread uint64_t locks __attribute__((tls_model("initial-exec")));

static enum fork_lock pop(void)
{
	enum fork_lock top = (enum fork_lock)(locks & 3);

	locks >>= 2;
	return top;
}

static void prepare(void)
{
	enum fork_lock lock = NOT_OURS;

	if (xp__text_lock() == 0 || xp__text_trylock())
		lock = TAKEN;
	else if (xp__text_lock_owned())
		lock = OWNED_BEFORE;
	locks = locks << 2 | lock;
}

static void parent(void)
{
	if (pop() == TAKEN)
		xp__text_unlock();
}

static void child(void)
{
	enum fork_lock lock = pop();

	for (int i = 0; i < XP__NR_MARKS; i++)
		xp__fork_marks[i] = 0;
	xp__defer_fork();
	xp__control_fork();
	xp__kept_drop_all(); /* closes the door to the parent's memory */
	if (xp__kept_stay())
		(void)xp__writer_procmem.probe();
	xp_trap_fork_child(xp__trap_shard());
	xp_function_fork_child();
	if (lock == NOT_OURS)
		return; /* MARK_LOCK stays down: the next xp__text_lock() sees to it */
	/* Owned before: it stays with this thread under its new id, for the commit that it is about to return to. */
	xp__text_lock_fork(lock == OWNED_BEFORE);
	if (lock == TAKEN)
		xp_fork_child();
}

int xp__fork_start(void)
{
	long page = XP__SYS6(XP__SYS_MMAP, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (!xp__is_error(page)) {
		xp__fork_marks = (uint32_t *)page; /* NOLINT: an address */
		/* Without it, children of fork() are still noticed, by child(). */
		XP__SYS3(SYS_madvise, page, 4096, MADV_WIPEONFORK);
	}
	xp__fork_marks[XP__MARK_LOCK] = 1;
	return -pthread_atfork(prepare, parent, child);
}
