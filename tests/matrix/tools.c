// SPDX-License-Identifier: MIT
/*
 * Changes one object of each kind, and after each change asks its site whether that is so. Arguments: how many threads
 * execute the sites meanwhile (0). -DWITHOUT_UD2: no site raises a fault by itself. Built with -Dmain=run it is a shared object's; with -DLOADER, what loads that.
 * Exit status: 0 all changes were made; 3 some were refused, and what was refused left the site as it was, with the error
 * printed; 1 a site and what was said of it disagree.
 */
#ifdef LOADER
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	void *library = dlopen("./libtools.so", RTLD_NOW);
	int (*run)(int, char **) = library ? (int (*)(int, char **))dlsym(library, "run") : NULL;

	if (run == NULL)
		puts(dlerror());
	return run ? run(argc, argv) : 2;
}
#else
#include <crosspatch/crosspatch.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 40 };

#ifdef FAR_SECTION
__asm__(".pushsection .far,\"ax\",@progbits\nret\n.popsection");
#endif

XP_DEFINE_STATIC_KEY_FALSE(key_unlikely);
XP_DEFINE_STATIC_KEY_TRUE(key_likely);
XP_DEFINE_STATIC_SWITCH(choice, 4, 0);
XP_DEFINE_IMV(unsigned char, value_1, 0);
XP_DEFINE_IMV(unsigned short, value_2, 0);
XP_DEFINE_IMV(unsigned, value_4, 0);
#ifdef __x86_64__
XP_DEFINE_IMV(unsigned long, value_8, 0);
#endif
XP_DECLARE_GATE(int, gate, (int));
#ifndef WITHOUT_UD2
XP_DECLARE_GATE_UD2(int, gate_ud2, (int));
#else
XP_DECLARE_GATE(int, gate_ud2, (int));
#endif

/* Written before the change that shows it to readers: what they find then is the value of that change or a later one. */
static int shown_by_key, shown_by_switch, shown_by_value, shown_by_call, shown_by_gate;

int add_one(int x)
{
	return x + 1;
}

static int add_two(int x)
{
	return x + 2 + 0 * shown_by_call;
}

static int add_three(int x)
{
	return x + 3 + 0 * shown_by_gate;
}

XP_DEFINE_STATIC_CALL(call, add_one);

static __attribute__((noinline)) int look_unlikely(void)
{
	if (xp_static_branch_unlikely(&key_unlikely))
		return 1 + 0 * shown_by_key;
	return 0;
}

static __attribute__((noinline)) int look_likely(void)
{
	return xp_static_branch_likely(&key_likely);
}

static __attribute__((noinline)) int look_switch(void)
{
	switch (xp_static_switch(&choice)) {
	case 1:
		return 1 + 0 * shown_by_switch;
	case 2:
		return 2;
	case 3:
		return 3;
	default:
		return 0;
	}
}

static __attribute__((noinline)) int look_1(void)
{
	return xp_imv_read(value_1);
}

static __attribute__((noinline)) int look_2(void)
{
	return xp_imv_read(value_2);
}

static __attribute__((noinline)) int look_4(void)
{
	int value = (int)xp_imv_read(value_4);

	return value ? value + 0 * shown_by_value : 0;
}

static __attribute__((noinline)) int look_8(void)
{
#ifdef __x86_64__
	return (int)xp_imv_read(value_8);
#else
	return (int)xp_imv_read(value_4);
#endif
}

static __attribute__((noinline)) int look_call(void)
{
	return xp_static_call(call)(0);
}

static __attribute__((noinline)) int look_gate(void)
{
	return xp_gate(gate)(0);
}

static __attribute__((noinline)) int look_ud2(void)
{
	return xp_gate(gate_ud2)(0);
}

static int wrong, error_seen, changes, refused;

static void after(const char *what, int error, int is, int before, int wanted)
{
	changes++;
	if (error) {
		refused++;
		error_seen = error;
	}
	if (is == (error ? before : wanted))
		return;
	printf("%s: %d, not %d; the change returned %d\n", what, is, error ? before : wanted, error);
	wrong++;
}

static void change_all(int show)
{
	int before;

#define CHANGE(look, wanted, change)                                                                                   \
	do {                                                                                                           \
		int error;                                                                                             \
		before = look();                                                                                       \
		error = change;                                                                                        \
		after(#look, error, look(), before, wanted);                                                           \
	} while (0)
	shown_by_key = show;
	CHANGE(look_unlikely, 1, xp_static_branch_enable(&key_unlikely));
	CHANGE(look_likely, 0, xp_static_branch_disable(&key_likely));
	shown_by_switch = show;
	CHANGE(look_switch, 1, xp_static_switch_set(&choice, 1));
	CHANGE(look_switch, 3, xp_static_switch_set(&choice, 3));
	CHANGE(look_1, 0x71, xp_imv_set(value_1, 0x71));
	CHANGE(look_2, 0x7172, xp_imv_set(value_2, 0x7172));
	shown_by_value = show;
	CHANGE(look_4, 0x71727374, xp_imv_set(value_4, 0x71727374u));
#ifdef __x86_64__
	CHANGE(look_8, 0x75767778, xp_imv_set(value_8, 0x7172737475767778ul));
#endif
	shown_by_call = show;
	CHANGE(look_call, 2, xp_static_call_update(call, add_two));
	shown_by_gate = show;
	CHANGE(look_gate, 3, xp_gate_provide("gate", add_three));
	CHANGE(look_ud2, 3, xp_gate_provide("gate_ud2", add_three));

	CHANGE(look_unlikely, 0, xp_static_branch_disable(&key_unlikely));
	CHANGE(look_likely, 1, xp_static_branch_enable(&key_likely));
	CHANGE(look_switch, 0, xp_static_switch_set(&choice, 0));
	CHANGE(look_1, 0, xp_imv_set(value_1, 0));
	CHANGE(look_2, 0, xp_imv_set(value_2, 0));
	CHANGE(look_4, 0, xp_imv_set(value_4, 0));
#ifdef __x86_64__
	CHANGE(look_8, 0, xp_imv_set(value_8, 0));
#endif
	CHANGE(look_call, 1, xp_static_call_update(call, add_one));
	/* Of what was refused there is nothing to take back. */
	if (xp_gate_available(gate))
		CHANGE(look_gate, 0, xp_gate_withdraw("gate"));
	if (xp_gate_available(gate_ud2))
		CHANGE(look_ud2, 0, xp_gate_withdraw("gate_ud2"));
}

static int stop;

static void *look_all(void *nothing)
{
	static int (*const looks[])(void) = {look_unlikely, look_likely, look_switch, look_1,    look_2,
					     look_4,        look_8,      look_call,   look_gate, look_ud2};

	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED))
		for (size_t i = 0; i < sizeof(looks) / sizeof(*looks); i++)
			(void)looks[i]();
	return nothing;
}

int main(int argc, char **argv)
{
	int nr = argc > 1 ? atoi(argv[1]) : 0;
	pthread_t thread[8];

	for (int i = 0; i < nr && i < 8; i++)
		if (pthread_create(&thread[i], NULL, look_all, NULL))
			return 2;
	for (int round = 0; round < ROUNDS; round++)
		change_all(round);
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	for (int i = 0; i < nr && i < 8; i++)
		pthread_join(thread[i], NULL);
	printf("%d changes, %d refused: %d, %s; module: %d\n", changes, refused, error_seen, xp_strerror(error_seen),
	       xp_module_error());
	return wrong ? 1 : refused ? 3 : 0;
}
#endif
