// SPDX-License-Identifier: MIT
/*
 * A record with a word that another program, or a bug, wrote over. Whatever the word is: the module is refused, or it is
 * registered and what it has works; no signal, and nothing is changed that is no object of the library's.
 *
 * Children take their module out, change one word of one record in place, bring it back, use all that there is, and undo it.
 */
#include "xp_child.h"
#ifdef __x86_64__
#include "xp_entries.h"
#endif

#include <crosspatch/crosspatch.h>
#include <sys/mman.h>

#define NOINLINE __attribute__((noinline, used))

/* ---- what has records ---- */

XP_DEFINE_STATIC_KEY_FALSE(off);
XP_DEFINE_STATIC_KEY_TRUE(on);
XP_DEFINE_STATIC_SWITCH(choice, 3, 0);
XP_DEFINE_IMV(int, value, 0);

static NOINLINE int one(int x)
{
	return x + 1;
}

static NOINLINE int two(int x)
{
	return x + 2;
}

XP_DEFINE_STATIC_CALL(call, one);
XP_DECLARE_GATE(int, records_gate, (int x));

NOINLINE int by_key(void);
NOINLINE int by_key(void)
{
	return xp_static_branch_unlikely(&off) + 2 * xp_static_branch_likely(&on);
}

NOINLINE int by_switch(void);
NOINLINE int by_switch(void)
{
	switch (xp_static_switch(&choice)) {
	case 0:
		return 10;
	case 1:
		return 11;
	default:
		return 12;
	}
}

NOINLINE int by_value(void);
NOINLINE int by_value(void)
{
	return xp_imv_read(value);
}

NOINLINE int by_call(void);
NOINLINE int by_call(void)
{
	return xp_static_call(call)(1) + 0 * by_value();
}

NOINLINE int by_gate(void);
NOINLINE int by_gate(void)
{
	return xp_gate(records_gate)(1) + 0 * by_value();
}

#ifdef __x86_64__
int traced(int x);
int traced_body(int x);
NOINLINE int traced_body(int x)
{
	return x;
}
XP_ENTRY(traced);

static void nothing(const struct xp_function_call *c, void *data)
{
	(void)c;
	(void)data;
}
#endif

/* ---- what a word may lead to ---- */

enum { PAGE = 4096, NR_RANDOM = 24 };

static uint64_t zeros[64], ones[64], itself[64];
static const char constant[64] __attribute__((aligned(8))) = "constant";
static struct xp_static_key plain = {.object = {.name = "plain"}};
/* What has a name, and something wrong; every_word() fills it in. */
static struct xp_static_key behind = {.object = {.name = "behind"}}, grouped = {.object = {.name = "grouped"}};
static struct xp_imv elsewhere = {.object = {.name = "elsewhere"}, .size = sizeof(int)};
static uint8_t *near; /* two pages: one that can be written, one that cannot be read */

/* Text is in reach of 32 bits, and so is this. */
static uint8_t *map_near(void)
{
	for (uintptr_t at = ((uintptr_t)zeros & ~(uintptr_t)(PAGE - 1)) + (64u << 20);; at += 16u << 20) {
		uint8_t *map = mmap((void *)at, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if ((uintptr_t)map == at)
			return mprotect(map + PAGE, PAGE, PROT_NONE) ? NULL : map;
		if (map == MAP_FAILED)
			return NULL;
		munmap(map, 2 * PAGE);
	}
}

struct table {
	int32_t *start;
	size_t words, nr_words; /* of a record, of all */
};

static struct table table_of(unsigned kind)
{
	static const size_t sizes[] = {
		[XP_SITE_BRANCH] = sizeof(struct xp_branch_site), [XP_SITE_CALL] = sizeof(struct xp_call_site),
		[XP_SITE_SWITCH] = sizeof(struct xp_switch_site), [XP_SITE_IMV] = sizeof(struct xp_imv_site),
		[XP_SITE_GATE] = sizeof(struct xp_gate_site),	  [XP_SITE_ENTRY] = sizeof(struct xp_entry_site)};
	const struct xp_site_table *table = &xp__module.tables[kind];
	uintptr_t start = (uintptr_t)table->start;

	return (struct table){(int32_t *)start, sizes[kind] / 4, ((uintptr_t)table->end - start) / 4};
}

/* Value number @n for the word at @at; false: there are no more. */
static bool adversarial(unsigned n, const int32_t *at, int32_t was, const struct table *table, int32_t *to)
{
	static const int32_t plainly[] = {0, 1, -1, 4, -4, INT32_MIN, INT32_MAX, INT32_MIN + 8, 8, 1 << 30};
	const void *targets[] = {zeros,
				 ones,
				 itself,
				 itself + 1,
				 constant,
				 &plain,
				 &behind,
				 &grouped,
				 &elsewhere,
				 &plain.object.name,
				 &off,
				 &on.key.object.file,
				 &choice,
				 &value,
				 &xp_call_call,
				 &xp_gate_records_gate,
				 table->start,
				 table->start + 3,
				 table->start + table->nr_words - 1,
				 near,
				 near + PAGE - 8,
				 near + PAGE,
				 near + 64 * PAGE,
				 (void *)(uintptr_t)one,
				 &stdout,
				 &xp__module,
				 environ};
	enum { PLAINLY = sizeof(plainly) / sizeof(plainly[0]), TARGETS = sizeof(targets) / sizeof(targets[0]) };

	if (n < PLAINLY)
		*to = plainly[n];
	else if ((n -= PLAINLY) < TARGETS)
		*to = (int32_t)((uintptr_t)targets[n] - (uintptr_t)at);
	else if ((n -= TARGETS) < 32)
		*to = (int32_t)((uint32_t)was ^ 1u << n);
	else if ((n -= 32) < NR_RANDOM)
		*to = (int32_t)((n + 1) * 2654435761u ^ (uint32_t)(uintptr_t)was * 40503u);
	else
		return false;
	return true;
}

/* ---- the child ---- */

/* Where it is, for the parent to say if it dies. */
static struct {
	unsigned kind, word, n;
	int32_t value;
	unsigned refused, accepted;
} *at;

static bool is_one_of(int error)
{
	return error == 0 || (error <= -XP_E_MISMATCH && error > -4300) || error == -EBUSY || error == -ENOMEM;
}

/* Old or new, of what is there: nothing else is right, whatever a change said. */
static void use(void)
{
	int x = 5;

	(void)xp_static_key_enable(&off.key);
	(void)xp_static_key_disable(&on.key);
	CHECK((by_key() & ~3) == 0);
	(void)xp_static_key_disable(&off.key);
	(void)xp_static_key_enable(&on.key);
	(void)xp_static_switch_set(&choice, 2);
	CHECK(by_switch() >= 10 && by_switch() <= 12);
	(void)xp_static_switch_set(&choice, 0);
	(void)xp_imv_set(value, x);
	CHECK(by_value() == 0 || by_value() == 5);
	(void)xp_imv_set(value, 0);
	(void)xp_static_call_update(call, two);
	CHECK(by_call() == 2 || by_call() == 3);
	(void)xp_static_call_update(call, one);
	(void)xp_gate_provide("records_gate", one);
	CHECK(by_gate() == 0 || by_gate() == 2);
	(void)xp_gate_withdraw("records_gate");
#ifdef __x86_64__
	static const struct xp_function_handler handler = {.entry = nothing};

	(void)xp_function_trace_matching("tr*", &handler, NULL, NULL);
	CHECK_EQ(traced(3), 3);
	(void)xp_function_untrace_matching("tr*", &handler, NULL, NULL);
	(void)xp_function_trace(traced, &handler, NULL);
	(void)xp_function_untrace(traced, &handler, NULL);
#endif
	/* If it was taken for a key, it is one. */
	if (grouped.object.groups != (void *)itself)
		CHECK(is_one_of(xp_static_key_enable(&grouped)));
	(void)xp_module_error();
}

static bool pattern(void)
{
	bool same = true;

	for (size_t i = 0; i < 64; i++)
		same = same && zeros[i] == 0 && ones[i] == UINT64_MAX && itself[i] == (uintptr_t)itself;
	return same;
}

static bool untouched(void)
{
	return pattern() && plain.count == 0 && plain.object.scratch == 0 && plain.object.groups == NULL;
}

static void works(void)
{
	CHECK_EQ(by_key(), 2);
	CHECK_EQ(xp_static_key_enable(&off.key), 0);
	CHECK_EQ(by_key(), 3);
	CHECK_EQ(xp_static_key_disable(&off.key), 0);
	CHECK_EQ(xp_static_call_update(call, two), 0);
	CHECK_EQ(by_call(), 3);
	CHECK_EQ(xp_static_call_update(call, one), 0);
	CHECK_EQ(by_call(), 2);
}

static void body(void)
{
	const struct table table = table_of(at->kind);
	int32_t *word = table.start + at->word, was = *word;
	uintptr_t page = (uintptr_t)word & ~(uintptr_t)(PAGE - 1);

	for (; adversarial(at->n, word, was, &table, &at->value) && xp_test_state.failures == 0; at->n++) {
		int error;

		CHECK_EQ(xp_module_unregister(&xp__module), 0);
		REQUIRE_EQ(mprotect((void *)page, PAGE, PROT_READ | PROT_WRITE), 0);
		*word = at->value;
		/* As if it came for the first time: of a value any mov could be the site of one that comes back. */
		xp__module.state = 0;
		error = xp_module_register(&xp__module);
		CHECK(is_one_of(error));
		CHECK(pattern());
		at->refused += error != 0;
		at->accepted += error == 0;
		use();
		CHECK_EQ(xp_module_unregister(&xp__module), 0);
		*word = was;
		CHECK_EQ(xp_module_register(&xp__module), 0);
		CHECK(untouched());
		works();
		if (xp_test_state.failures)
			printf("# kind %u, word %u, value %#x: %d\n", at->kind, at->word, (unsigned)at->value, error);
	}
}

static void every_word(unsigned kind)
{
	const struct table table = table_of(kind);
	unsigned step = table.nr_words > 12 * table.words ? (unsigned)table.words * 2 : (unsigned)table.words;

	at = mmap(NULL, sizeof(*at), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	near = map_near();
	REQUIRE(at != MAP_FAILED && near != NULL);
	REQUIRE(table.words > 0 && table.nr_words >= table.words);
	memset(ones, 0xff, sizeof(ones));
	for (size_t i = 0; i < 64; i++)
		itself[i] = (uintptr_t)itself;
	behind.object.real = (struct xp_object *)(void *)(near + PAGE);
	grouped.object.groups = (void *)itself;
	elsewhere.value = near + PAGE;
	at->kind = kind;
	for (unsigned record = 0; record < table.nr_words; record += step)
		for (at->word = record; at->word < record + table.words; at->word++) {
			int status;

			for (at->n = 0; (status = xp_child_status(body)) != 0; at->n++) {
				CHECK_EQ(status, 0);
				XP_TEST_NOTE("kind %u, word %u, value %#x, number %u", kind, at->word,
					     (unsigned)at->value, at->n);
			}
		}
	XP_TEST_NOTE("%u refused, %u accepted", at->refused, at->accepted);
	CHECK(at->refused > 20);
	munmap(near, 2 * PAGE);
	munmap(at, sizeof(*at));
}

/* What was an object when its module came first need not be one when it comes back. */
static void object_gone_bad(void)
{
	const char *name = off.key.object.name;

	CHECK_EQ(xp_module_unregister(&xp__module), 0);
	xp__module.state = 0;
	off.key.object.name = (const char *)16; /* NOLINT: an address */
	CHECK_EQ(xp_module_register(&xp__module), -XP_E_CORRUPT);
	off.key.object.name = name;
	CHECK_EQ(xp_module_unregister(&xp__module), 0);
	CHECK_EQ(xp_module_register(&xp__module), 0);
	works();
}

XP_TEST(objects_are_looked_at_each_time)
{
	xp_child(object_gone_bad);
}

XP_TEST(of_branches)
{
	every_word(XP_SITE_BRANCH);
}

XP_TEST(of_calls)
{
	every_word(XP_SITE_CALL);
}

XP_TEST(of_switches)
{
	every_word(XP_SITE_SWITCH);
}

XP_TEST(of_values)
{
	every_word(XP_SITE_IMV);
}

XP_TEST(of_gates)
{
	every_word(XP_SITE_GATE);
}

#ifdef __x86_64__
XP_TEST(of_entries)
{
	every_word(XP_SITE_ENTRY);
}
#endif

XP_TEST_MAIN()
