// SPDX-License-Identifier: MIT
/*
 * A program built with a sanitizer: one thread changes objects of all kinds while two execute their sites. What it writes
 * before a change they read behind the site, and nothing else orders that. Another thread changes a key of its own.
 * With an argument there is a race.
 */
#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>

#define READERS 2
#define ROUNDS 20

/* Written before the change that tells of it. */
static long by_key, by_false, by_switch, by_value, by_call, by_gate, by_batch;

static long zero(void)
{
	return 0;
}

static long read_call(void)
{
	return by_call;
}

static long read_gate(void)
{
	return by_gate;
}

XP_DEFINE_STATIC_KEY_FALSE(key);
XP_DEFINE_STATIC_KEY_TRUE(key_true);
XP_DEFINE_STATIC_KEY_FALSE(key_batch);
XP_DEFINE_STATIC_KEY_FALSE(other_key);
XP_DEFINE_STATIC_SWITCH(choice, 4, 0);
XP_DEFINE_IMV(int, value, 0);
XP_DEFINE_STATIC_CALL(call, zero);
XP_DECLARE_GATE(long, gate, (void));
XP_DECLARE_GATE_UD2(long, gate_ud2, (void));

static int stop, errors, reads[READERS];
static bool races;
static long unprotected;

#define OK(what)                                                                                                       \
	do {                                                                                                           \
		int error = (what);                                                                                    \
		if (error) {                                                                                           \
			printf("# %s: %d, %s\n", #what, error, xp_strerror(error));                                    \
			__atomic_fetch_add(&errors, 1, __ATOMIC_RELAXED);                                              \
		}                                                                                                      \
	} while (0)

static void expect(long got, const char *what)
{
	if (got != 1 && got != 0) {
		printf("# %s: %ld\n", what, got);
		__atomic_fetch_add(&errors, 1, __ATOMIC_RELAXED);
	}
}

__attribute__((noinline)) static void look(void)
{
	if (xp_static_branch_unlikely(&key))
		expect(by_key, "key");
	if (!xp_static_branch_likely(&key_true))
		expect(by_false, "key that goes off");
	if (xp_static_branch_unlikely(&key_batch))
		expect(by_batch, "key of a batch");
	switch (xp_static_switch(&choice)) {
	case 0:
		break;
	case 1:
	case 2:
		expect(by_switch, "switch");
		break;
	default:
		expect(-1, "choice");
	}
	if (xp_imv_read(value))
		expect(by_value, "value");
	expect(xp_static_call(call)(), "call");
	expect(xp_gate(gate)(), "gate");
	expect(xp_gate(gate_ud2)(), "gate in UD2 form");
}

static void *reader(void *argument)
{
	int *count = (int *)argument;

	if (races)
		unprotected++;
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		look();
		__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void *other(void *argument)
{
	(void)argument;
	for (int i = 0; i < ROUNDS; i++) {
		OK(xp_static_branch_enable(&other_key));
		OK(xp_static_branch_disable(&other_key));
	}
	return NULL;
}

static void settle(void)
{
	int before[READERS];

	for (int i = 0; i < READERS; i++)
		before[i] = __atomic_load_n(&reads[i], __ATOMIC_RELAXED);
	for (int i = 0; i < READERS; i++)
		while (__atomic_load_n(&reads[i], __ATOMIC_RELAXED) < before[i] + 2)
			;
}

int main(int argc, char **argv)
{
	pthread_t readers[READERS], another;
	struct xp_batch *batch = xp_batch_new();

	(void)argv;
	races = argc > 1;
	for (int i = 0; i < READERS; i++)
		pthread_create(&readers[i], NULL, reader, &reads[i]);
	pthread_create(&another, NULL, other, NULL);
	by_key = 1;
	OK(xp_static_branch_enable(&key));
	by_false = 1;
	OK(xp_static_branch_disable(&key_true));
	by_switch = 1;
	OK(xp_static_switch_set(&choice, 1));
	by_value = 1;
	OK(xp_imv_set(value, 7));
	by_call = 1;
	OK(xp_static_call_update(call, read_call));
	by_gate = 1;
	OK(xp_gate_provide("gate", read_gate));
	OK(xp_gate_provide("gate_ud2", read_gate));
	OK(xp_batch_add_key(batch, &key_batch.key, true));
	by_batch = 1;
	OK(xp_batch_commit(batch, NULL));
	settle();
	for (int i = 0; i < ROUNDS; i++) {
		OK(xp_static_branch_disable(&key));
		OK(xp_static_branch_enable(&key_true));
		OK(xp_static_switch_set(&choice, i % 3));
		OK(xp_imv_set(value, i));
		OK(xp_static_call_update(call, i % 2 ? zero : read_call));
		OK(xp_static_branch_enable(&key));
		OK(xp_static_branch_disable(&key_true));
		if (i % 5 == 0) {
			OK(xp_gate_withdraw("gate"));
			OK(xp_gate_provide("gate", read_gate));
		}
	}
	settle();
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < READERS; i++)
		pthread_join(readers[i], NULL);
	pthread_join(another, NULL);
	xp_batch_free(batch);
	return errors != 0;
}
