// SPDX-License-Identifier: MIT
/*
 * The Linux port: chooses writer and sync, and gives the core its operations.
 *
 * I1  What must happen early happens in the constructor: membarrier is registered (with one thread it costs nothing),
 *     fork's handlers are set, descriptors that are to stay open are opened. Everything else waits for the first commit
 *     that needs it. What a setting rules out is not even tried: a filter may kill for it.
 * I2  Nothing here needs malloc or a lock of libc's, so that a commit may run where they are held.
 */
#include "arch/arch.h"
#include "control/proto.h"
#include "core/state.h"
#include "port/linux/defer.h"
#include "port/linux/diag.h"
#include "port/linux/fork.h"
#include "port/linux/function.h"
#include "port/linux/cached_fd.h"
#include "port/linux/keys.h"
#include "port/linux/lifetime.h"
#include "port/linux/lock.h"
#include "port/linux/maps.h"
#include "port/linux/memory.h"
#include "port/linux/moved.h"
#include "port/linux/pin.h"
#include "port/linux/probe.h"
#include "port/linux/quiesce.h"
#include "port/linux/rendezvous_signal.h"
#include "port/linux/sigtrap.h"
#include "port/linux/sync_membarrier.h"
#include "port/linux/sync_signal.h"
#include "port/linux/sys.h"
#include "port/linux/threads.h"
#include "port/linux/writer.h"

#include <crosspatch/error.h>
#include <crosspatch/linux.h>
#include <crosspatch/port.h>

#include <asm/prctl.h>
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

#define XP_NO_MODULE /* the library has no sites */
#define XP_NO_PATCHING
#include <crosspatch/gate.h>
#include <crosspatch/text_poke.h>

/* In the program's ThreadSanitizer, if it has one. Not __tsan_acquire(), which hangs in handlers of fork. */
extern int __tsan_atomic32_fetch_add(volatile int *word, int value, int order) __attribute__((weak));

#ifndef ARCH_SHSTK_STATUS
#define ARCH_SHSTK_STATUS 0x5005
#endif

static const struct xp__writer *const writer_table[] = {
	[XP_WRITER_PROCMEM] = &xp__writer_procmem,
	[XP_WRITER_MPROTECT] = &xp__writer_mprotect,
	[XP_WRITER_PKEY] = &xp__writer_pkey,
};
static enum xp_writer writer_wanted = XP_WRITER_AUTO;
static enum xp_sync sync_wanted = XP_SYNC_AUTO;
static const struct xp__writer *writer; /* in force; NULL: none works, or none was tried yet */
static bool for_now;                    /* it is not the first choice, which failed for a reason that passes */
static bool membarrier_tried, membarrier_works;
static bool mem_trapped; /* a filter answers the opening of /proc/self/mem with a signal that kills: not tried again */
static bool use_signal;  /* the rendezvous is the sync in force */
static bool shadow_stack;
/* Of the commit that prepare() was last asked for. */
static const struct xp__writer *commit_writer; /* in force, or one for this commit that makes single stores */
static unsigned found_own;                     /* pages of the next commit, by page_is_own() */
static uintptr_t keyed_page;                   /* found to be the pkey writer's, text_check() */
static bool undoing;                           /* something failed: whatever is written now gives back old bytes */
static struct xp_diag *commit_diag;            /* its caller's, for text_write(), which is given none */

/* ---- which writer, which sync ---- */

/*
 * Whether what the writer stores is what is executed. Under valgrind, qemu-user and their like it is not: they execute
 * translations, and each notices some ways to change text and others not, or none. So text that was executed before is
 * changed and executed again. It lies in a file's mapping, as the sites do: valgrind by itself looks after no such text. The
 * call is indirect, or the translation of the second one would have the text in it, fresh.
 */
static bool takes_effect(enum xp_writer which)
{
	static bool did[sizeof(writer_table) / sizeof(*writer_table)];
	uint8_t (*volatile const run)(void) = (uint8_t(*)(void))(uintptr_t)xp__probe_text;
	uint8_t *value = (uint8_t *)(uintptr_t)xp__probe_text + 1;

	if (!did[which]) {
		uint8_t other = (uint8_t)(run() + 1);

		if (other == *value)
			other++; /* the other writer had no effect */
		if (writer_table[which]->write(value, &other, 1, 0))
			return true; /* it was just tried: the commit will fail as well, and say why */
		xp__serialize();
		did[which] = run() == other;
		/* The other writers try themselves there. */
		if (which == XP_WRITER_PKEY)
			(void)xp__keyed_leave();
	}
	return did[which];
}

static int port_open_mem(void)
{
	return mem_trapped ? -ENOSYS : xp__writer_procmem.probe();
}

/* What the system gives in a moment, if not now. */
static bool passes(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -EAGAIN || error == -EINTR ||
	       error == -EBADF;
}

/* @why: -XP_E_TRANSLATED, or why the first choice is not taken: -errno; 0: it is. */
static const struct xp__writer *writer_of(enum xp_writer wanted, int *why)
{
	*why = 0;
	for (enum xp_writer which = XP_WRITER_PROCMEM; which <= XP_WRITER_PKEY; which++) {
		int error;

		/* auto takes no key: it costs others something (linux.h) */
		if (wanted == XP_WRITER_AUTO ? which == XP_WRITER_PKEY : wanted != which)
			continue;
		error = which == XP_WRITER_PROCMEM ? port_open_mem() : writer_table[which]->probe();
		if (!error && takes_effect(which))
			return writer_table[which];
		if (!error)
			*why = -XP_E_TRANSLATED;
		else if (*why == 0)
			*why = error;
	}
	return NULL;
}

/* One that serves because the other was not to be had at the moment serves one commit. */
static int choose_writer(void)
{
	int why;

	writer = writer_of(writer_wanted, &why);
	for_now = writer && passes(why);
	return writer ? 0 : why;
}

static bool can_membarrier(void)
{
	if (!membarrier_tried)
		membarrier_works = xp__membarrier_start() == 0;
	membarrier_tried = true;
	return membarrier_works;
}

static bool by_signal(enum xp_sync wanted)
{
	return wanted == XP_SYNC_SIGNAL || (wanted == XP_SYNC_AUTO && !can_membarrier());
}

static int choose_sync(enum xp_sync wanted, bool *signal)
{
	*signal = by_signal(wanted);
	if (*signal)
		return xp__rendezvous_start();
	return can_membarrier() ? 0 : -XP_E_NO_SYNC;
}

static void report_next(struct xp__report *report)
{
	int why;
	const struct xp__writer *would =
		writer && !for_now && writer->probe() == 0 ? writer : writer_of(writer_wanted, &why);
	bool signal = by_signal(sync_wanted);

	report->writer = would ? would->name : "none";
	report->single = would && would->single && xp__can_store_single();
	report->sync = signal ? "signal" : can_membarrier() ? "membarrier" : "none";
	report->shadow_stack = shadow_stack;
}

const struct xp__proto_port xp__proto_port = {xp__fork_lock, xp__text_unlock, report_next};

int xp_set_writer(enum xp_writer wanted)
{
	const struct xp__writer *works;
	int error, why;

	if ((unsigned)wanted > XP_WRITER_PKEY)
		return -EINVAL;
	error = xp__fork_lock();
	if (error)
		return error;
	works = writer_of(wanted, &why);
	if (works && wanted != XP_WRITER_PKEY)
		error = xp__keyed_leave();
	if (works && !error) {
		writer = works;
		for_now = passes(why);
		writer_wanted = wanted;
	}
	xp__text_unlock();
	return works ? error : why == -XP_E_TRANSLATED ? why : -XP_E_NO_WRITER;
}

int xp_set_sync(enum xp_sync wanted)
{
	bool signal;
	int error;

	if ((unsigned)wanted > XP_SYNC_SIGNAL)
		return -EINVAL;
	error = xp__fork_lock();
	if (error)
		return error;
	error = choose_sync(wanted, &signal);
	if (!error) {
		sync_wanted = wanted;
		use_signal = signal;
	}
	xp__text_unlock();
	return error;
}

int xp_set_descriptors(enum xp_descriptors wanted)
{
	bool before = xp__cached_fd_stay();
	int error;

	if ((unsigned)wanted > XP_DESCRIPTORS_KEEP)
		return -EINVAL;
	error = xp__fork_lock();
	if (error)
		return error;
	xp__cached_fd_set_stay(before || wanted == XP_DESCRIPTORS_KEEP); /* where they are opened depends on it */
	if (wanted == XP_DESCRIPTORS_KEEP) {
		error = port_open_mem();
		error = error ? error : xp__maps_open();
		error = error ? error : xp__threads_open();
	}
	xp__cached_fd_set_stay(error ? before : wanted == XP_DESCRIPTORS_KEEP);
	xp__text_unlock();
	return error;
}

/* Turned on by libc before any constructor, for every thread, or not at all. */
static bool find_shadow_stack(void)
{
	uint64_t status = 0;

	return XP__SYS2(SYS_arch_prctl, ARCH_SHSTK_STATUS, &status) == 0 && status & 1;
}

/*
 * Memory to execute from, within reach of @near. A hint is followed where the place is free; what lands elsewhere is
 * given back. Never writable: text_write() finds its way, as into any text.
 */
static void *exec_alloc(const void *near, size_t size)
{
	enum { STEP = 8 << 20, REACH = 1 << 30 };
	uintptr_t page = (uintptr_t)near & ~(uintptr_t)4095;

	for (intptr_t away = STEP; away < REACH; away += STEP)
		for (int down = 0; down < 2; down++) {
			uintptr_t hint = down ? page - (uintptr_t)away : page + (uintptr_t)away;
			long got = XP__SYS6(XP__SYS_MMAP, hint, size, PROT_READ | PROT_EXEC,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			intptr_t distance = (intptr_t)((uintptr_t)got - page);

			if (xp__is_error(got))
				continue;
			if (distance < REACH && distance > -REACH)
				return (void *)got;
			XP__SYS2(SYS_munmap, got, size);
		}
	return NULL;
}

/* The writer in force, if it makes single stores; or with @other, unless a setting forbids it, one that does. */
static const struct xp__writer *single_writer(bool other)
{
	int error;

	if (!xp__can_store_single())
		return NULL;
	if (writer && writer->single)
		return writer;
	return other && writer_wanted == XP_WRITER_AUTO ? writer_of(XP_WRITER_MPROTECT, &error) : NULL;
}

static unsigned can(unsigned needs)
{
	unsigned served = XP_NEED_SYNC | XP_NEED_TRAP | XP_NEED_PARK | XP_NEED_ALONE | XP_NEED_ILLEGAL;

	if (needs & XP_NEED_SINGLE) {
		if (writer == NULL || for_now)
			(void)choose_writer();
		if (single_writer(!(needs & XP_NEED_TRAP)))
			served |= XP_NEED_SINGLE;
	}
	if (needs & XP_NEED_CALL && !shadow_stack)
		served |= XP_NEED_CALL;
#ifdef __i386__
	served |= XP_NEED_FAULT;
#endif
	/*
	 * Before breakpoints the mask of each thread is looked at, and all get the processor before the writer is done. And a
	 * tracer that detaches (strace 6.1, gdb 13.1) may lose a SIGTRAP: the thread goes on in the middle of an instruction.
	 */
	if (needs == XP_NEED_TRAP && (xp__threads_many() || xp__threads_traced()))
		served &= ~(unsigned)XP_NEED_TRAP;
	return served & needs;
}

static const char left_open[] = "the page was made writable, and the system refuses to make it read-only again";

static int prepare(unsigned needs, struct xp_diag *diag)
{
	/* Sites that fault may be executed where nothing can be written: the handler does what they would. */
	const bool writes = needs & ~(unsigned)(XP_NEED_ILLEGAL | XP_NEED_FAULT);
	int error;

	commit_diag = diag;
	undoing = false;
	found_own = 0;
	if (writes && (writer == NULL || !writer->ready())) {
		error = choose_writer();
		if (error == -XP_E_TRANSLATED)
			return xp__refuse(diag, error, 0,
					  "valgrind executes changed text with --smc-check=all; qemu-user does not");
		if (error)
			return xp__refuse(diag, -XP_E_NO_WRITER, -error < 4096 ? -error : 0,
					  writer_wanted == XP_WRITER_PKEY
						  ? "no protection key is to be had for text here"
						  : "neither /proc/self/mem nor mprotect may write program text here");
	}
	commit_writer = needs & XP_NEED_SINGLE ? single_writer(true) : writer;
	if (writes && commit_writer == NULL)
		return xp__refuse(diag, -XP_E_NO_METHOD, 0,
				  "mprotect may no longer write program text; the next commit asks the other writer");
	/* Whatever the writer in force: text that any thread may write to is not left unmentioned. */
	error = xp__windows_close();
	if (error)
		return xp__refuse(diag, error, -error, left_open);
	if (needs & XP_NEED_SYNC) {
		error = choose_sync(sync_wanted, &use_signal);
		if (error)
			return xp__refuse(diag, error, 0, "neither membarrier nor a free real-time signal is there");
		/* A round of which nothing depends yet: a thread that cannot come now could not in the middle of the commit. */
		if (use_signal) {
			error = xp__rendezvous_sync(XP__BEFORE, diag);
			if (error)
				return error;
		}
	}
	if (needs & XP_NEED_PARK) {
		error = xp__rendezvous_start();
		if (error)
			return xp__refuse(diag, error, 0, "no real-time signal is free");
		error = xp__threads_accept(xp__rendezvous_signal(), diag);
		if (error)
			return error;
	}
	if (needs & XP_NEED_ILLEGAL) {
		error = xp__sigill_start(diag);
		if (error)
			return error;
	}
	if (needs & XP_NEED_FAULT) {
		error = xp__sigsegv_start(diag);
		if (error)
			return error;
	}
	if (needs & XP_NEED_TRAP) {
		error = xp__threads_accept(5 /* SIGTRAP */, diag);
		/* Last: that may have waited for seconds, in which the program installed a handler of its own. */
		if (!error)
			error = xp__sigtrap_start(diag);
		if (error)
			return error;
	}
	if (needs & XP_NEED_ALONE && !xp__threads_alone())
		return xp__refuse(diag, -XP_E_NOT_EARLY, 0, "other threads are running");
	return 0;
}

static int prepare_commit(unsigned needs, struct xp_diag *diag)
{
	int error = prepare(needs, diag);
	uintptr_t where = 0;

	if (error) {
		xp__maps_forget();
		return error;
	}
	/* Behind all that may wait, as may the sync that is owed to an earlier commit: this one's own prepare() comes then. */
	error = needs ? xp__maps_again(&where) : 0;
	if (error == 0)
		return 0;
	if (diag)
		diag->site = (const void *)where;
	return xp__refuse(diag, error, -error < 4096 ? -error : 0,
			  error == -XP_E_NOT_TEXT ? "what is mapped there changed while the commit was prepared"
						  : "it cannot be told what is mapped there");
}

/* ---- text ---- */

static int text_check(const void *addr, size_t len)
{
	const uintptr_t page = (uintptr_t)addr & ~(uintptr_t)4095;

	/* The writer's own page is text; a page is asked about once in a commit, and by the writer before it stores. */
	if (len > 0 && page == (((uintptr_t)addr + len - 1) & ~(uintptr_t)4095) &&
	    page != 0 && (page == keyed_page || xp__keyed_is_ours(page))) {
		keyed_page = page;
		return 0;
	}
	return xp__maps_text((uintptr_t)addr, len);
}

/*
 * Whether the page is this process' own copy, as each is that was written to through /proc/self/mem. A futex that other
 * processes could share is named by file and place, or in anonymous memory by address: but not if that is read-only, where it
 * never changes, and the kernel says EFAULT (get_futex_key, since Linux 3.1). No thread waits there, so nothing comes of the call.
 * Any other answer says nothing, and /proc/self/maps is asked, whose opening takes ten times as long. What cannot be read at all
 * gets the same answer, but has no sites; so do the registers of a device, from which nothing executes, and secret memory
 * (memfd_secret), from which nothing can.
 */
static bool page_is_own(const void *addr)
{
	return XP__SYS4(SYS_futex, (uintptr_t)addr & ~(uintptr_t)3, FUTEX_WAKE, 1, NULL) == -EFAULT;
}

#define OWN_MAX 4u /* pages of a commit that are asked about one by one */

static int text_private(const void *addr, uintptr_t *end)
{
	const struct xp__mapping *found = xp__maps_recall((uintptr_t)addr);
	struct xp__mapping mapping = {.end = ((uintptr_t)addr | 4095) + 1};
	bool own = !found && (xp__keyed_is_ours((uintptr_t)addr) ||
			      (writer == &xp__writer_procmem && found_own < OWN_MAX && page_is_own(addr)));
	int error = found || own ? 0 : xp__maps_find((uintptr_t)addr, &mapping);

	if (found)
		mapping = *found;

	if (error)
		return error;
	found_own += own;
	*end = mapping.end;
	if (mapping.shared)
		return -XP_E_NO_METHOD;
	return xp__handlers_read((uintptr_t)addr) ? 0 : -XP_E_NOT_TEXT;
}

static int text_read(void *to, const void *addr, size_t len)
{
	memcpy(to, addr, len); /* text_check() found it readable */
	return 0;
}

/*
 * By the writer in force. Under auto the other one is asked where that one cannot: a mapping that is shared or of huge
 * pages is for mprotect, one that is sealed for /proc/self/mem; and the system may have closed a way in the middle of a
 * commit. Both are for what cannot have a protection key. Not where text was left writable: that is to be told.
 */
static int write_text(void *addr, const void *bytes, size_t len, unsigned flags)
{
	int error = commit_writer->write(addr, bytes, len, flags);

	if (!error || (writer_wanted != XP_WRITER_AUTO && writer_wanted != XP_WRITER_PKEY))
		return error;
	for (enum xp_writer other = XP_WRITER_PROCMEM; other <= XP_WRITER_MPROTECT; other++) {
		if (writer_table[other] == commit_writer || xp__windows_left() ||
		    (other == XP_WRITER_PROCMEM ? port_open_mem() : xp__writer_mprotect.probe()) ||
		    !takes_effect(other))
			continue;
		if (writer_table[other]->write(addr, bytes, len, flags) == 0)
			return 0;
	}
	return error;
}

#define UNDO_TRIES 500 /* a millisecond apart: descriptors, memory and mappings may run out for a moment */

static int text_write(void *addr, const void *bytes, size_t len, unsigned flags)
{
	static uint32_t never;
	int error;

	undoing = undoing || flags & XP_WRITE_UNDO;
	error = write_text(addr, bytes, len, flags);
	for (int tries = 0; error && flags & XP_WRITE_UNDO && tries < UNDO_TRIES; tries++) {
		xp__futex_wait(&never, 0, 1000000);
		error = write_text(addr, bytes, len, flags);
	}
	if (error) {
		undoing = true;
		if (commit_diag && xp__windows_left())
			commit_diag->detail = left_open;
	}
	return error;
}

static void unlock(void)
{
	found_own = 0; /* of a commit that was refused */
	keyed_page = 0;
	xp__maps_forget();
	xp__text_unlock();
}

/* Flat: see sync_membarrier.h. */
__attribute__((flatten)) static int sync_core(void)
{
	int error = use_signal ? 0 : xp__membarrier_sync();
	struct xp_diag why = {.error = 0};

	/* A filter installed since may refuse membarrier. */
	if (use_signal || (error && xp__rendezvous_start() == 0)) {
		error = xp__rendezvous_sync(undoing ? XP__UNDOING : XP__MIDWAY, &why);
		if (error && commit_diag) {
			commit_diag->tid = why.tid;
			commit_diag->detail = why.detail;
		}
	}
	undoing = undoing || error;
	return error;
}

static const struct xp_port port = {
	.abi = XP_PORT_ABI,
	.name = "linux",
	.lock = xp__fork_lock,
	.unlock = unlock,
	.alloc = xp__memory_alloc,
	.release = xp__memory_release,
	.can = can,
	.prepare = prepare_commit,
	.text_check = text_check,
	.text_private = text_private,
	.text_read = text_read,
	.text_write = text_write,
	.sync_core = sync_core,
	.park = xp__rendezvous_park,
	.unpark = xp__rendezvous_unpark,
	.defer = xp__defer,
	.defer_start = xp__defer_start,
	.clock_ms = xp__clock_ms,
	.pin = xp__mapping_pin,
	.unpin = xp__mapping_unpin,
	.exec_alloc = exec_alloc,
	.text_peek = xp__text_peek,
	.function_thread = xp__function_thread,
	.hook_exit = xp__function_hook_exit,
	.data_read = xp__data_read,
	.stack_check = xp__quiesce_stack_check,
	.wait = xp__moment_wait,
	.lasts = xp__lifetime_lasts,
	.stack_left = xp__stack_left,
	.function_begins = xp__function_begins,
	.unwind_ip = xp__unwind_ip,
	.module_check = xp__moved_check,
	.data_check = xp__data_check,
	.lock_or = xp__fork_lock_or,
	.told = xp__text_lock_told,
	.text_gone = xp__keyed_gone,
	.text_known = xp__keyed_known,
	.text_window = xp__keyed_window,
	.text_close = xp__keyed_close,
};

/* ---- start ---- */

static int choice(const char *name, const char *const *values, int nr)
{
	const char *value = getauxval(AT_SECURE) ? NULL : getenv(name);

	for (int i = 0; value && i < nr; i++)
		if (strcmp(value, values[i]) == 0)
			return i;
	return 0;
}

/*
 * Before every constructor that may register a module or switch a key. Those of modules have priority 100 too, and a module
 * waits if it comes first.
 */
#pragma GCC diagnostic push
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wprio-ctor-dtor"
#endif
__attribute__((constructor(100))) static void start(void)
{
	static const char *const policies[] = {"auto", "breakpoint", "quiesce", "early"};
	static const char *const binds[] = {"lazy", "now"};
	static const char *const writers[] = {"auto", "procmem", "mprotect", "pkey"};
	static const char *const syncs[] = {"auto", "membarrier", "signal"};
	static const char *const descriptors[] = {"close", "keep"};
	struct xp__sigaction sigsys;
	bool caught;

	xp__pin_self();
	xp__lifetime_start();
	xp__function_start();
	if (xp__fork_start())
		return; /* without fork's handlers a child could hang: stay without a port */
	xp_gate_set_eager(choice("CROSSPATCH_BIND", binds, 2));
	(void)xp_set_policy((enum xp_policy)choice("CROSSPATCH_POLICY", policies, 4));
	writer_wanted = (enum xp_writer)choice("CROSSPATCH_WRITER", writers, 4);
	sync_wanted = (enum xp_sync)choice("CROSSPATCH_SYNC", syncs, 3);
	xp__cached_fd_set_stay(choice("CROSSPATCH_DESCRIPTORS", descriptors, 2) == XP_DESCRIPTORS_KEEP);
	caught = xp__sigsys_catch(&sigsys);
	(void)by_signal(sync_wanted);
	shadow_stack = find_shadow_stack();
	(void)xp__sigsys_caught();
	/* Later nothing catches what a filter answers with a signal: it is tried here, where there is a filter. */
	if (writer_wanted == XP_WRITER_PKEY)
		(void)xp__writer_pkey
			.probe(); /* while there is one thread, which all later ones have their rights from */
	if (writer_wanted != XP_WRITER_MPROTECT && (caught || xp__cached_fd_stay()))
		mem_trapped = xp__writer_procmem.probe() != 0 && xp__sigsys_caught();
	if (xp__cached_fd_stay()) {
		(void)xp__maps_open();
		(void)xp__threads_open();
	}
	xp__cached_fd_commit_ends();
	if (caught)
		xp__sigaction(SIGSYS, &sigsys, NULL);
	xp__sanitizer = __tsan_atomic32_fetch_add;
	(void)xp_port_set(&port);
}
#pragma GCC diagnostic pop
