// SPDX-License-Identifier: MIT
/*
 * What tracing functions asks of a process: what is kept for each thread, and looks at stacks.
 *
 * I1  function_thread(), data_read() and stack_left() run while vector registers hold the arguments of a call: they touch
 *     none, and call nothing of libc's. The thread's structure is static TLS; no traced function is made by anything here.
 * I2  A thread that never runs a handler is given no destructor.
 * I3  Any function may be traced, malloc too, and be called by any signal handler: nothing here allocates. For a high key glibc
 *     allocates when a thread sets it first: the key is made at start, and a high one is not used.
 */
#include "port/linux/function.h"

#include "arch/arch.h"
#include "port/linux/sys.h"

#include <crosspatch/port.h>

#include <elf.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#define GENERAL_REGS __attribute__((target("general-regs-only")))

static __thread struct xp_function_thread thread __attribute__((tls_model("initial-exec")));
static __thread bool numbered __attribute__((tls_model("initial-exec")));
static unsigned long nr_threads;
static pthread_key_t key;
static bool key_made;
#define KEYS_IN_PLACE 32u /* of glibc: what a thread sets for the others needs memory first */

GENERAL_REGS struct xp_function_thread *xp__function_thread(void)
{
	unsigned long number;

	if (!numbered) {
		/* No number is given twice: the core relies on it, of the low ones. */
		number = __atomic_fetch_add(&nr_threads, 1, __ATOMIC_RELAXED);
		thread.shard = number < UINT32_MAX ? (uint32_t)number : UINT32_MAX;
		numbered = true;
	}
	return &thread;
}

/*
 * The last thing that the thread does but for other destructors, which may call traced functions and so bring this one back:
 * libc runs them four times over. Nothing returns to this stack. What libc says is the stack is no more than that, whatever
 * lies beside it in the same mapping; of the main thread's it knows no more than a guess.
 */
static void at_exit(void *value)
{
	const struct xp_function_thread *self = value;
	pthread_attr_t attr;
	void *low = NULL;
	size_t size = 0;

	if (self->opened && xp__gettid() != (int)XP__SYS1(SYS_getpid, 0) &&
	    pthread_getattr_np(pthread_self(), &attr) == 0) {
		if (pthread_attr_getstack(&attr, &low, &size))
			size = 0;
		pthread_attr_destroy(&attr);
	}
	xp_function_thread_exit(value, (uintptr_t)low, (uintptr_t)low + size);
}

void xp__function_start(void)
{
	key_made = pthread_key_create(&key, at_exit) == 0;
#ifdef __GLIBC__
	if (key_made && key >= KEYS_IN_PLACE) {
		pthread_key_delete(key);
		key_made = false;
	}
#endif
}

int xp__function_hook_exit(struct xp_function_thread *self)
{
	if (!key_made)
		return -EAGAIN;
	return -pthread_setspecific(key, self);
}

/*
 * Two places on one stack have readable memory between them: guard pages keep stacks apart. A signal handler on the
 * alternate stack interrupts what is below it elsewhere; what stood on that stack is gone once the thread is not on it.
 */
GENERAL_REGS bool xp__stack_left(uintptr_t frame, uintptr_t here)
{
	uintptr_t word;
	stack_t stack;
	bool was, is;

	if (XP__SYS2(SYS_sigaltstack, NULL, &stack) != 0)
		return false;
	was = !(stack.ss_flags & SS_DISABLE) && frame - (uintptr_t)stack.ss_sp < stack.ss_size;
	is = !(stack.ss_flags & SS_DISABLE) && here - (uintptr_t)stack.ss_sp < stack.ss_size;
	if (was != is)
		return was;
	for (uintptr_t at = frame; at < here; at += 4096)
		if (xp__data_read(&word, (const void *)(at & ~(uintptr_t)7)))
			return false;
	return frame <= here;
}

/*
 * What unwinders search: a table of all functions that have unwind information, sorted by where they begin. In the form that
 * every linker writes: numbers of 4 bytes, relative to the table.
 */
struct frame_table {
	uint8_t version, pointer_form, number_form, entry_form;
	int32_t frames;
	uint32_t nr;
	struct {
		int32_t begins, frame;
	} entry[];
};

struct frame_search {
	uintptr_t code;
	const struct frame_table *table;
};

static int find_table(struct dl_phdr_info *info, size_t size, void *data)
{
	struct frame_search *search = data;
	bool inside = false;

	(void)size;
	for (unsigned i = 0; i < info->dlpi_phnum; i++)
		inside |= info->dlpi_phdr[i].p_type == PT_LOAD &&
			  search->code - (info->dlpi_addr + info->dlpi_phdr[i].p_vaddr) < info->dlpi_phdr[i].p_memsz;
	for (unsigned i = 0; inside && i < info->dlpi_phnum; i++)
		if (info->dlpi_phdr[i].p_type == PT_GNU_EH_FRAME)
			search->table = (const struct frame_table *)(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
	return inside;
}

/* The bytes of the function whose frame information this is, if they are in the usual form; 0: they are not. */
static uint32_t frame_covers(const struct frame_table *table, uint32_t at)
{
	const uint8_t *frame = (const uint8_t *)table + table->entry[at].frame;
	int32_t begins;
	uint32_t len;

	memcpy(&begins, frame + 8, sizeof(begins));
	memcpy(&len, frame + 12, sizeof(len));
	return (uintptr_t)(frame + 8) + (uintptr_t)(intptr_t)begins ==
			       (uintptr_t)table + (uintptr_t)(intptr_t)table->entry[at].begins
		       ? len
		       : 0;
}

int xp__function_begins(const void *code)
{
	enum { SDATA4 = 0x0b, UDATA4 = 0x03, RELATIVE_TO_TABLE = 0x30 };
	struct frame_search search = {.code = (uintptr_t)code};
	const struct frame_table *table;
	uint32_t low = 0, high;
	intptr_t distance;

	dl_iterate_phdr(find_table, &search);
	table = search.table;
	if (table == NULL || table->version != 1 || (table->pointer_form & 0x0f) != SDATA4 ||
	    table->number_form != UDATA4 || table->entry_form != (RELATIVE_TO_TABLE | SDATA4))
		return -ENOENT;
	distance = (intptr_t)((uintptr_t)code - (uintptr_t)table);
	for (high = table->nr; low < high;) {
		uint32_t middle = low + (high - low) / 2;

		if (table->entry[middle].begins <= distance)
			low = middle + 1;
		else
			high = middle;
	}
	if (low > 0 && table->entry[low - 1].begins == distance)
		return 1;
	/* Inside of a function none begins; nor where nothing but nops stand before the next. Elsewhere one without frames may. */
	if (low > 0 && distance - table->entry[low - 1].begins < (intptr_t)frame_covers(table, low - 1))
		return 0;
	while (low < table->nr && distance < table->entry[low].begins) {
		struct xp__insn insn;

		xp__insn_decode((const uint8_t *)table + distance, XP_MAX_LEN, &insn);
		if (insn.kind != XP__INSN_NOP)
			return -ENOENT;
		distance += insn.len;
	}
	return low < table->nr && distance == table->entry[low].begins ? 0 : -ENOENT;
}

/* Of whatever unwinder the process has. One that comes later is not found: nothing is concluded then. */
#pragma weak _Unwind_GetIP
extern uintptr_t _Unwind_GetIP(void *context);

uintptr_t xp__unwind_ip(void *context)
{
	return _Unwind_GetIP ? _Unwind_GetIP(context) : 0;
}

void xp__moment_wait(void)
{
	static uint32_t never;

	xp__futex_wait(&never, 0, 1000000);
}
