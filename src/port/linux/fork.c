// SPDX-License-Identifier: MIT
/*
 * fork while others patch. The forking thread takes the text lock first, so that the child's copy of the text holds no
 * half-made commit and no breakpoint without an owner. Exception: fork called by a signal handler that interrupted a
 * commit of its own thread. There the child returns into the commit and finishes it, in its own memory: the descriptor
 * of /proc/self/mem belongs to the process that opened it, so the writer opens a new one first (MARK_PROCMEM).
 *
 * The marks stand in a page that the kernel empties in every child (MADV_WIPEONFORK, Linux 4.14), so that children made
 * without fork's handlers are noticed too.
 */
#include "port/linux/port.h"

#include <pthread.h>
#include <sys/mman.h>

static uint32_t fallback_marks[XP__NR_MARKS];
uint32_t *xp__fork_marks = fallback_marks;
static __thread bool nested __attribute__((tls_model("initial-exec")));

static void prepare(void)
{
	nested = xp__text_lock() != 0;
}

static void parent(void)
{
	if (!nested)
		xp__text_unlock();
}

static void child(void)
{
	for (int i = 0; i < XP__NR_MARKS; i++)
		xp__fork_marks[i] = 0;
	/* Nested: the lock stays with this thread under its new id, for the commit that it is about to return to. */
	xp__text_lock_fork(nested);
	xp__defer_fork();
	(void)xp__writer_procmem.probe(); /* closes the door to the parent's memory */
	if (!nested)
		xp_fork_child();
}

int xp__fork_start(void)
{
	long page = XP__SYS6(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page > 0) {
		xp__fork_marks = (uint32_t *)page; /* NOLINT: an address */
		/* Without it, children of fork() are still noticed, by child(). */
		XP__SYS3(SYS_madvise, page, 4096, MADV_WIPEONFORK);
	}
	xp__fork_marks[XP__MARK_LOCK] = 1;
	return -pthread_atfork(prepare, parent, child);
}
