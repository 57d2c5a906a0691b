// SPDX-License-Identifier: MIT
/*
 * A constant in a hot loop, tuned while the loop runs: how far ahead to prefetch. As a variable it would be one more load
 * for each element; as a constant it could not be tried out.
 *
 *	cc -O2 tunable.c $(pkg-config --cflags --libs crosspatch) -lpthread && ./a.out
 *
 * Threads add up an array in random order and know what must come out; the main thread sets one distance after the
 * other under them and prints how fast they were. Fails if a sum was wrong or a distance was not used.
 */
#include <crosspatch/crosspatch.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { THREADS = 2, ELEMENTS = 1 << 20, LONGEST = 64, BLOCK = 4096 };

XP_DEFINE_IMV_RANGE(unsigned, distance, 0, 0, LONGEST);

struct element {
	uint64_t value;
	char rest_of_the_line[56];
};
static struct element *elements;
static uint32_t order[ELEMENTS + LONGEST]; /* beyond the end once more the first */
static uint64_t right;
static unsigned long blocks, wrong, used[LONGEST + 1]; /* relaxed atomics */
static bool stop;

__attribute__((noinline)) static uint64_t add_up(const uint32_t *at)
{
	uint64_t sum = 0;

	for (int i = 0; i < BLOCK; i++) {
		__builtin_prefetch(&elements[at[i + xp_imv_read(distance)]]);
		sum += elements[at[i]].value;
	}
	return sum;
}

static void *work(void *nothing)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		uint64_t sum = 0;

		for (int i = 0; i < ELEMENTS; i += BLOCK) {
			sum += add_up(order + i);
			__atomic_fetch_add(&used[xp_imv_read(distance)], 1, __ATOMIC_RELAXED);
			__atomic_fetch_add(&blocks, 1, __ATOMIC_RELAXED);
		}
		if (sum != right)
			__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED);
	}
	return nothing;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Elements per microsecond with one distance, of all threads; negative: an error. */
static double try_distance(unsigned ahead)
{
	struct timespec pause = {0, 50 * 1000 * 1000};
	unsigned long before;
	double start;
	int error = xp_imv_set(distance, ahead);

	if (error) {
		fprintf(stderr, "tunable: %s\n", xp_strerror(error));
		return -1;
	}
	start = now();
	before = __atomic_load_n(&blocks, __ATOMIC_RELAXED);
	do
		nanosleep(&pause, NULL);
	while (__atomic_load_n(&used[ahead], __ATOMIC_RELAXED) == 0);
	return (double)(__atomic_load_n(&blocks, __ATOMIC_RELAXED) - before) * BLOCK / ((now() - start) * 1e6);
}

static void fill(void)
{
	uint64_t random = 88172645463325252u;

	for (uint32_t i = 0; i < ELEMENTS; i++) {
		elements[i].value = i * 3;
		right += elements[i].value;
		order[i] = i;
	}
	for (uint32_t i = ELEMENTS - 1; i > 0; i--) {
		uint32_t j, swapped = order[i];

		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		j = (uint32_t)(random % (i + 1));
		order[i] = order[j];
		order[j] = swapped;
	}
	for (int i = 0; i < LONGEST; i++)
		order[ELEMENTS + i] = order[i];
}

int main(void)
{
	static const unsigned distances[] = {0, 1, 2, 4, 8, 16, 32, 64};
	pthread_t threads[THREADS];
	unsigned best = 0;
	double fastest = 0;
	bool failed = false;

	elements = aligned_alloc(64, sizeof(*elements) * ELEMENTS);
	if (!elements)
		return 1;
	fill();
	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, work, NULL))
			return 1;
	for (unsigned i = 0; i < sizeof(distances) / sizeof(distances[0]) && !failed; i++) {
		double speed = try_distance(distances[i]);

		failed = speed < 0;
		printf("distance %2u: %6.1f elements/us\n", distances[i], speed);
		if (speed > fastest) {
			fastest = speed;
			best = distances[i];
		}
	}
	failed = failed || try_distance(best) < 0;
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	printf("best: %u; %lu wrong sums\n", best, wrong);
	free(elements);
	return failed || wrong > 0;
}
