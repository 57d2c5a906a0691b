// SPDX-License-Identifier: MIT
/*
 * Every kind of key, call, gate and site, in C; changes each and back under two policies, and after each change asks every
 * file whether its sites agree. Prints the number of its site records.
 */
#include "keys.h"

#include <stdio.h>
#include <string.h>

XP_DEFINE_STATIC_KEY_FALSE(key_false);
XP_DEFINE_STATIC_KEY_TRUE(key_true);
static XP_DEFINE_STATIC_KEY_FALSE(key_local_false);
static XP_DEFINE_STATIC_KEY_TRUE(key_local_true);
XP_DEFINE_STATIC_KEY_ARRAY_FALSE(keys_false, 3);
XP_DEFINE_STATIC_KEY_ARRAY_TRUE(keys_true, 2);
/* Not to be switched by time while sites are compared with it. */
XP_DEFINE_STATIC_KEY_DEFERRED_FALSE(key_deferred, 600000);
XP_DEFINE_STATIC_KEY_SHARED_FALSE(common_false);
XP_DEFINE_STATIC_KEY_SHARED_TRUE(common_true);

int first_target(int x, double y, struct amounts z)
{
	return 100 + x + (int)y + (int)z.real + z.whole;
}

int second_target(int x, double y, struct amounts z)
{
	return 200 + x + (int)y + (int)z.real + z.whole;
}

XP_DEFINE_STATIC_CALL(call_c, first_target);
XP_DEFINE_STATIC_CALL_RET0(call_nothing, first_target);
XP_DEFINE_STATIC_CALL_SHARED(common_call, first_target);

static volatile int sink;

/* A block that is long, with control flow of its own, so that the compiler lays it out somewhere else. */
static int in_a_loop(int n)
{
	int taken = 0;

	for (int i = 0; i < n; i++) {
		if (xp_static_branch_unlikely(&key_false)) {
			for (int j = 0; j < 3; j++)
				sink += j;
			taken++;
		} else if (!xp_static_branch_likely(&key_true)) {
			sink -= 1;
		}
		switch (i) {
		case 0:
			if (!xp_static_branch_likely(&key_false))
				continue;
			break;
		default:
			if (xp_static_branch_unlikely(&key_true))
				sink++;
		}
	}
	return taken;
}

int look_main(void)
{
	int bad = look_inline() + look_calls();

	bad += CALL(call_nothing) != 0;

#define AGREE(x)                                                                                                       \
	do {                                                                                                           \
		bad += differ(xp_static_branch_unlikely(x), xp_static_key_enabled(x));                                 \
		bad += differ(xp_static_branch_likely(x), xp_static_key_enabled(x));                                   \
	} while (0)
	AGREE(&key_false);
	AGREE(&key_true);
	AGREE(&key_local_false);
	AGREE(&key_local_true);
	AGREE(&keys_false[0]);
	AGREE(&keys_false[2]);
	AGREE(&keys_true[1]);
	AGREE(&key_deferred.key);
	bad += in_a_loop(3) != (xp_static_key_enabled(&key_false) ? 3 : 0);
	return bad;
}

/* A record points at one of the pair, whose displacement leads to the record's target. */
static int malformed(const struct xp_branch_site *site)
{
	const unsigned char *code = (const unsigned char *)&site->code + site->code;
	const unsigned char *target = (const unsigned char *)&site->target + site->target;
	int displacement;

	memcpy(&displacement, code + 1, sizeof(displacement));
	return (code[0] != 0xa9 && code[0] != 0xe9) || code + 5 + displacement != target;
}

static int failures;

static void check(const char *what, int error)
{
	int bad = look_main() + look_first() + look_second() + look_library();

	if (!error && !bad)
		return;
	printf("%s: %d sites disagree; %s\n", what, bad, error ? xp_strerror(error) : "no error");
	failures++;
}

static void switch_all(void)
{
#define SWITCH(x)                                                                                                      \
	do {                                                                                                           \
		int enabled = xp_static_key_enabled(x);                                                                \
		check(#x, enabled ? xp_static_branch_disable(x) : xp_static_branch_enable(x));                         \
		check(#x, enabled == xp_static_key_enabled(x) ? -1 : 0);                                               \
	} while (0)
	for (int round = 0; round < 2; round++) {
		SWITCH(&key_false);
		SWITCH(&key_true);
		SWITCH(&key_local_false);
		SWITCH(&key_local_true);
		SWITCH(&keys_false[0]);
		SWITCH(&keys_false[1]);
		SWITCH(&keys_false[2]);
		SWITCH(&keys_true[0]);
		SWITCH(&keys_true[1]);
		SWITCH(&key_cxx);
		SWITCH(&keys_cxx[1]);
		SWITCH(&common_false);
		SWITCH(&common_true);
		check("library on", switch_library(1));
		check("library off", switch_library(0));
	}
	check("inc", xp_static_branch_deferred_inc(&key_deferred));
	check("dec", xp_static_branch_slow_dec_deferred(&key_deferred));
	check("flush", xp_static_key_deferred_flush(&key_deferred));
	check("flushed", xp_static_key_enabled(&key_deferred.key) ? -1 : 0);
}

/* What the calls go to, from every file of the program and from the library. */
static void goes(const char *what, int error, int c, int cxx, int common)
{
	check(what, error);
	check(what, CALL(call_c) == c && CALL(call_cxx) == cxx && CALL(common_call) == common ? 0 : -1);
}

static void update_all(void)
{
	goes("calls", 0, 109, 109, 109);
	goes("call_c", xp_static_call_update(call_c, second_target), 209, 109, 109);
	goes("call_cxx", xp_static_call_update(call_cxx, second_target), 209, 209, 109);
	goes("common_call", xp_static_call_update(common_call, second_target), 209, 209, 209);
	goes("library's", update_library(0), 209, 209, 309);
	goes("library's, none", update_library(1), 209, 209, 0);
	goes("call_c, none", xp_static_call_update(call_c, NULL), 0, 209, 0);
	goes("call_cxx, zero", xp_static_call_update(call_cxx, XP_STATIC_CALL_RET0(call_cxx)), 0, 0, 0);
	goes("call_c, back", xp_static_call_update(call_c, first_target), 109, 0, 0);
	goes("call_cxx, back", xp_static_call_update(call_cxx, first_target), 109, 109, 0);
	goes("common_call, back", xp_static_call_update(common_call, first_target), 109, 109, 109);
}

static void gates(const char *what, int error, int plain, int fault)
{
	check(what, error);
	check(what, GATE(gate_plain) == plain && GATE(gate_fault) == fault ? 0 : -1);
}

static void provide_all(void)
{
	gates("gates", 0, 0, 0);
	gates("gate_plain", xp_gate_provide("gate_plain", first_target), 109, 0);
	gates("gate_fault", xp_gate_provide("gate_fault", second_target), 109, 209);
	gates("gate_plain, replaced", xp_gate_replace("gate_plain", second_target), 209, 209);
	gates("gate_fault, withdrawn", xp_gate_withdraw("gate_fault"), 209, 0);
	gates("gates, bound", xp_gate_bind_all(), 209, 0);
	gates("gate_plain, withdrawn", xp_gate_withdraw("gate_plain"), 0, 0);
}

int main(void)
{
	const struct xp_branch_site *site = __start_xp_branch_sites;
	long nr = __stop_xp_branch_sites - __start_xp_branch_sites;
	/* 16 in AGREE, 2 inline, 4 in the loop: a compiler may copy sites, but drops none. */
	long least = 22;

	check("start", xp_module_error());
	if (nr < least) {
		printf("%ld records, at least %ld expected\n", nr, least);
		failures++;
	}
	for (; site < __stop_xp_branch_sites; site++)
		failures += malformed(site);

	switch_all();
	update_all();
	provide_all();
	check("policy", xp_set_policy(XP_POLICY_BREAKPOINT));
	switch_all();
	update_all();
	provide_all();
	printf("%ld records, %d failures\n", nr, failures);
	return failures != 0;
}
