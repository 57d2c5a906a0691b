// SPDX-License-Identifier: MIT
/*
 * As much of a C library as the hosted test sources ask for, on this machine: threads are processors, mapped text is in
 * the arena, the writer is the port's window, the sync its interrupt.
 */
#include "machine.h"

#include "arch/x86/sync.h"

#include <crosspatch/linux.h>
#include <crosspatch/text_poke.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

int main(int argc, char **argv);
int machine_main(void);

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
	void *start = to;

	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
	return start;
}

void *memmove(void *to, const void *from, size_t size)
{
	uint8_t *t = to;
	const uint8_t *f = from;

	if (t <= f)
		return memcpy(to, from, size);
	while (size-- > 0)
		((volatile uint8_t *)t)[size] = f[size];
	return to;
}

void *memset(void *to, int byte, size_t size)
{
	void *start = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(byte) : "memory");
	return start;
}

int memcmp(const void *a, const void *b, size_t size)
{
	const uint8_t *x = a, *y = b;

	for (size_t i = 0; i < size; i++)
		if (x[i] != y[i])
			return x[i] < y[i] ? -1 : 1;
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;

	while (((const volatile char *)s)[n])
		n++;
	return n;
}

int strcmp(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return (unsigned char)*a - (unsigned char)*b;
}

int strncmp(const char *a, const char *b, size_t size)
{
	while (size > 0 && *a && *a == *b) {
		a++;
		b++;
		size--;
	}
	return size ? (unsigned char)*a - (unsigned char)*b : 0;
}

char *strstr(const char *in, const char *what)
{
	size_t n = strlen(what);

	for (; *in; in++)
		if (strncmp(in, what, n) == 0)
			return (char *)(uintptr_t)in;
	return n ? NULL : (char *)(uintptr_t)in;
}

/* ---- console ---- */

FILE *const stdout = NULL, *const stderr = NULL;

static void put_number(unsigned long long value, unsigned base, int width, char fill, bool minus)
{
	char text[24];
	int at = sizeof(text);

	do
		text[--at] = "0123456789abcdef"[value % base];
	while ((value /= base) > 0);
	if (minus)
		text[--at] = '-';
	for (int i = (int)sizeof(text) - at; i < width; i++)
		machine_putc(fill);
	while (at < (int)sizeof(text))
		machine_putc(text[at++]);
}

/* Flags # and 0, a width, h l z, d i u x p s c. */
static void format(const char *f, va_list args)
{
	for (; *f; f++) {
		int width = 0, size = 0;
		bool prefix = false;
		char fill = ' ';
		long long value;

		if (*f != '%') {
			machine_putc(*f);
			continue;
		}
		for (f++; *f == '#' || *f == '0'; f++) {
			prefix = prefix || *f == '#';
			fill = *f == '0' ? '0' : fill;
		}
		for (; *f >= '0' && *f <= '9'; f++)
			width = width * 10 + *f - '0';
		for (; *f == 'l' || *f == 'z' || *f == 'h'; f++)
			size += *f != 'h';
		switch (*f) {
		case 's': {
			const char *s = va_arg(args, const char *);

			for (s = s ? s : "(null)"; *s; s++)
				machine_putc(*s);
			break;
		}
		case 'c':
			machine_putc((char)va_arg(args, int));
			break;
		case 'd':
		case 'i':
			value = size ? va_arg(args, long long) : va_arg(args, int);
			put_number(value < 0 ? 0ull - (unsigned long long)value : (unsigned long long)value, 10, width,
				   fill, value < 0);
			break;
		case 'u':
			put_number(size ? va_arg(args, unsigned long long) : va_arg(args, unsigned), 10, width, fill,
				   false);
			break;
		case 'p':
		case 'x':
			if (prefix || *f == 'p') {
				machine_putc('0');
				machine_putc('x');
			}
			put_number(size || *f == 'p' ? va_arg(args, unsigned long long) : va_arg(args, unsigned), 16,
				   width, fill, false);
			break;
		default:
			machine_putc(*f);
			break;
		}
	}
}

int printf(const char *f, ...)
{
	va_list args;

	va_start(args, f);
	machine_console_lock();
	format(f, args);
	machine_console_unlock();
	va_end(args);
	return 0;
}

int fprintf(FILE *file, const char *f, ...)
{
	va_list args;

	(void)file;
	va_start(args, f);
	machine_console_lock();
	format(f, args);
	machine_console_unlock();
	va_end(args);
	return 0;
}

int putchar(int c)
{
	machine_putc((char)c);
	return c;
}

int puts(const char *s)
{
	return printf("%s\n", s);
}

int setvbuf(FILE *file, char *buffer, int mode, size_t size)
{
	(void)file, (void)buffer, (void)mode, (void)size;
	return 0;
}

/* ---- settings ---- */

char *getenv(const char *name)
{
	(void)name;
	return NULL;
}

unsigned long long strtoull(const char *s, char **end, int base)
{
	unsigned long long value = 0;

	(void)end, (void)base;
	for (; *s >= '0' && *s <= '9'; s++)
		value = value * 10 + (unsigned long long)(*s - '0');
	return value;
}

int xp_set_writer(enum xp_writer writer)
{
	/* The window stores up to a quadword at once, as the mprotect writer does. Only the automatic policy cares. */
	return writer == XP_WRITER_PROCMEM && xp_policy() == XP_POLICY_AUTO ? -XP_E_NO_WRITER : 0;
}

int xp_set_sync(enum xp_sync sync)
{
	(void)sync; /* there is the interrupt only */
	return 0;
}

/* ---- threads ---- */

static void *(*start_routines[MACHINE_CPUS_MAX])(void *);
static void *arguments[MACHINE_CPUS_MAX];
static bool busy[MACHINE_CPUS_MAX];

static void run_thread(void *number)
{
	start_routines[(uintptr_t)number](arguments[(uintptr_t)number]);
}

int pthread_create(pthread_t *thread, const void *attributes, void *(*routine)(void *), void *argument)
{
	(void)attributes;
	for (unsigned i = 0; i < machine_nr_cpus(); i++) {
		if (i == machine_cpu() || busy[i])
			continue;
		busy[i] = true;
		start_routines[i] = routine;
		arguments[i] = argument;
		*thread = i;
		machine_run(i, run_thread, (void *)(uintptr_t)i);
		return 0;
	}
	return 11;
}

int pthread_join(pthread_t thread, void **result)
{
	machine_wait(thread);
	busy[thread] = false;
	if (result)
		*result = NULL;
	return 0;
}

int pthread_barrier_init(pthread_barrier_t *barrier, const void *attributes, unsigned nr)
{
	(void)attributes;
	*barrier = (pthread_barrier_t){.nr = nr};
	return 0;
}

int pthread_barrier_wait(pthread_barrier_t *barrier)
{
	unsigned passed = __atomic_load_n(&barrier->passed, __ATOMIC_RELAXED);

	if (__atomic_add_fetch(&barrier->waiting, 1, __ATOMIC_ACQ_REL) == barrier->nr) {
		barrier->waiting = 0;
		__atomic_store_n(&barrier->passed, passed + 1, __ATOMIC_RELEASE);
	}
	while (__atomic_load_n(&barrier->passed, __ATOMIC_ACQUIRE) == passed)
		xp__cpu_relax();
	return 0;
}

int pthread_barrier_destroy(pthread_barrier_t *barrier)
{
	(void)barrier;
	return 0;
}

pthread_t pthread_self(void)
{
	return machine_cpu();
}

static void (*on_signal)(int);

/* While all are parked none may execute what is being replaced, not even here: that one is lost. */
static void take_signal(struct xp_bare_frame *frame)
{
	(void)frame;
	if (!xp_bare_parked())
		on_signal(SIGUSR1);
}

/* There is one signal, and its handler. */
int sigaction(int signal, const struct sigaction *act, struct sigaction *old)
{
	if (signal != SIGUSR1 || act == NULL || old)
		return 22;
	on_signal = act->sa_handler;
	machine_on_nmi = take_signal;
	return 0;
}

int pthread_kill(pthread_t thread, int signal)
{
	if (signal != SIGUSR1 || thread >= machine_nr_cpus())
		return 22;
	machine_send_nmi(thread);
	return 0;
}

int sched_yield(void)
{
	xp__cpu_relax();
	return 0;
}

int clock_gettime(int clock, struct timespec *now)
{
	uint64_t ns = machine_ns();

	(void)clock;
	now->tv_sec = (long)(ns / 1000000000);
	now->tv_nsec = (long)(ns % 1000000000);
	return 0;
}

int timespec_get(struct timespec *now, int base)
{
	clock_gettime(0, now);
	return base;
}

int nanosleep(const struct timespec *time, struct timespec *left)
{
	uint64_t end = machine_ns() + (uint64_t)time->tv_sec * 1000000000 + (uint64_t)time->tv_nsec;

	(void)left;
	while (machine_ns() < end)
		xp__cpu_relax();
	return 0;
}

/* ---- mapped text: blocks of the arena, given back in any order, the last ones at once ---- */

static size_t arena_used;

void *mmap(void *address, size_t size, int rights, int flags, int fd, long offset)
{
	uint8_t *block = machine_arena + arena_used;

	(void)address, (void)rights, (void)flags, (void)fd, (void)offset;
	if (size > MACHINE_ARENA - arena_used)
		return MAP_FAILED;
	arena_used += (size + 4095) & ~(size_t)4095;
	machine_protect(block, size, true, false);
	memset(block, 0, size);
	return block;
}

int munmap(void *block, size_t size)
{
	size_t end = (size_t)((uint8_t *)block - machine_arena) + ((size + 4095) & ~(size_t)4095);

	if (end == arena_used)
		arena_used -= (size + 4095) & ~(size_t)4095;
	return 0;
}

int mprotect(void *start, size_t size, int rights)
{
	machine_protect(start, size, rights & PROT_WRITE, rights & PROT_EXEC);
	return 0;
}

/* ---- main ---- */

int machine_main(void)
{
	static char words[1024];
	char *argv[32] = {words};
	int argc = 0;
	const char *line = machine_command_line();

	for (unsigned i = 0; line[i] && i < sizeof(words) - 1; i++)
		words[i] = line[i];
	for (char *at = words; *at && argc < 31;) {
		argv[argc++] = at;
		while (*at && *at != ' ')
			at++;
		while (*at == ' ')
			*at++ = 0;
	}
	return main(argc, argv);
}
