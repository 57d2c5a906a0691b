// SPDX-License-Identifier: MIT
/*
 * memchr by the processor's best instructions, chosen while threads search: a static call in place of the function
 * pointer or the IFUNC that libraries use. An IFUNC is chosen once, before main; a pointer is loaded for every call.
 *
 *	cc -O2 dispatch.c $(pkg-config --cflags --libs crosspatch) -lpthread && ./a.out
 *
 * Threads search all the time and compare with libc; the main thread changes the implementation under them. Prints how
 * often each was chosen and how often each ran.
 */
#include <crosspatch/crosspatch.h>
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { THREADS = 2, ROUNDS = 60, SIZE = 1024 };

static void *find_scalar(const void *memory, int c, size_t size);
XP_DEFINE_STATIC_CALL(find, find_scalar);

static __thread unsigned long ran[3]; /* by each thread: scalar, SSE2, AVX2 */

static void *tail(const unsigned char *at, int c, size_t size)
{
	for (; size > 0; at++, size--)
		if (*at == (unsigned char)c)
			return (void *)(uintptr_t)at;
	return NULL;
}

static void *find_scalar(const void *memory, int c, size_t size)
{
	ran[0]++;
	return tail(memory, c, size);
}

static void *find_sse2(const void *memory, int c, size_t size)
{
	const unsigned char *at = memory;
	__m128i wanted = _mm_set1_epi8((char)c);

	ran[1]++;
	for (; size >= 16; at += 16, size -= 16) {
		__m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)at);
		unsigned equal = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, wanted));

		if (equal)
			return (void *)(uintptr_t)(at + __builtin_ctz(equal));
	}
	return tail(at, c, size);
}

__attribute__((target("avx2"))) static void *find_avx2(const void *memory, int c, size_t size)
{
	const unsigned char *at = memory;
	__m256i wanted = _mm256_set1_epi8((char)c);

	ran[2]++;
	for (; size >= 32; at += 32, size -= 32) {
		__m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)at);
		unsigned equal = (unsigned)_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, wanted));

		if (equal)
			return (void *)(uintptr_t)(at + __builtin_ctz(equal));
	}
	return tail(at, c, size);
}

static unsigned char text[SIZE];
static bool stop;

struct searcher {
	pthread_t thread;
	unsigned long ran[3], wrong;
	unsigned long searches; /* so far */
};

static void *search(void *argument)
{
	struct searcher *self = argument;

	for (unsigned seed = 1; !__atomic_load_n(&stop, __ATOMIC_RELAXED); seed = seed * 1103515245u + 12345u) {
		size_t from = seed / 7 % SIZE, size = seed / 3 % (SIZE - from + 1);
		int c = (int)(seed >> 24);

		self->wrong += xp_static_call(find)(text + from, c, size) != memchr(text + from, c, size);
		__atomic_store_n(&self->searches, self->searches + 1, __ATOMIC_RELAXED);
	}
	memcpy(self->ran, ran, sizeof(ran));
	return NULL;
}

/* Until each thread has searched a few times more: on a busy machine they may not run for a while. */
static void wait_for(const struct searcher *searchers)
{
	for (unsigned i = 0; i < THREADS; i++) {
		unsigned long until = __atomic_load_n(&searchers[i].searches, __ATOMIC_RELAXED) + 10;

		while (__atomic_load_n(&searchers[i].searches, __ATOMIC_RELAXED) < until)
			sched_yield();
	}
}

static int choose(unsigned which)
{
	switch (which) {
	case 0:
		return xp_static_call_update(find, find_scalar);
	case 1:
		return xp_static_call_update(find, find_sse2);
	default:
		return xp_static_call_update(find, find_avx2);
	}
}

int main(void)
{
	static const char *const names[] = {"scalar", "SSE2", "AVX2"};
	unsigned nr = __builtin_cpu_supports("avx2") ? 3 : 2;
	unsigned long chosen[3] = {0}, total[3] = {0}, wrong = 0;
	struct searcher searchers[THREADS] = {0};
	int error = 0;

	for (unsigned i = 0; i < SIZE; i++)
		text[i] = (unsigned char)(i * i / 61);
	for (unsigned i = 0; i < THREADS; i++)
		if (pthread_create(&searchers[i].thread, NULL, search, &searchers[i]))
			return 2;
	for (unsigned i = 0; i < ROUNDS && !error; i++) {
		error = choose(i % nr);
		chosen[i % nr]++;
		wait_for(searchers);
	}
	/* The best one is left in place. */
	if (!error)
		error = choose(nr - 1);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(searchers[i].thread, NULL);
		wrong += searchers[i].wrong;
		for (unsigned k = 0; k < 3; k++)
			total[k] += searchers[i].ran[k];
	}
	for (unsigned k = 0; k < nr; k++) {
		error = total[k] ? error : -1;
		printf("%-6s chosen %lu times, ran %lu times\n", names[k], chosen[k], total[k]);
	}
	printf("%lu wrong results; %s\n", wrong, error ? xp_strerror(error) : "no error");
	return wrong != 0 || error != 0;
}
