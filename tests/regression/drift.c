// SPDX-License-Identifier: MIT
/*
 * Another program writes to sites: bytes of the file, as probes do that go, or what it found. That is found by every change of
 * the object, told apart from what a site never has, and mended on request.
 */
#include "control/proto.h"
#include "xp_test.h"

#include <crosspatch/crosspatch.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/perf_event.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

XP_DEFINE_STATIC_KEY_FALSE(drift_key);
XP_DEFINE_STATIC_KEY_TRUE(drift_true);
XP_DEFINE_STATIC_SWITCH(drift_switch, 3, 0);
XP_DEFINE_IMV(int, drift_value, 5);

static __attribute__((noinline)) bool is_on(void)
{
	return xp_static_branch_unlikely(&drift_key);
}

static __attribute__((noinline)) bool is_true(void)
{
	return xp_static_branch_likely(&drift_true);
}

static __attribute__((noinline)) int choose(void)
{
	switch (xp_static_switch(&drift_switch)) {
	case 0:
		return 10;
	case 1:
		return 11;
	default:
		return 12;
	}
}

static __attribute__((noinline)) int read_value(void)
{
	return xp_imv_read(drift_value);
}

static int first(int x)
{
	return x + 1;
}

static int second(int x)
{
	return x + 2;
}

XP_DEFINE_STATIC_CALL(drift_call, first);

static __attribute__((noinline)) int call(int x)
{
	return xp_static_call(drift_call)(x);
}

static void overwrite(uintptr_t at, const void *bytes, size_t len)
{
	int fd = open("/proc/self/mem", O_WRONLY | O_CLOEXEC);

	CHECK_EQ(pwrite(fd, bytes, len, (off_t)at), len);
	close(fd);
}

static uintptr_t pointed(const int32_t *field)
{
	return (uintptr_t)field + (uintptr_t)(intptr_t)*field;
}

static uintptr_t branch_of(const struct xp_static_key *key)
{
	for (const struct xp_branch_site *site = __start_xp_branch_sites; site < __stop_xp_branch_sites; site++)
		if ((pointed(&site->key) & ~(uintptr_t)XP_SITE_FLAGS) == (uintptr_t)key)
			return pointed(&site->code);
	return 0;
}

static uintptr_t imv_of(void)
{
	return pointed(&__start_xp_imv_sites->code);
}

static uintptr_t switch_of(void)
{
	return pointed(&__start_xp_switch_sites->code);
}

static uintptr_t trampoline_of(void)
{
	for (const struct xp_call_site *site = __start_xp_call_sites; site < __stop_xp_call_sites; site++)
		if (pointed(&site->call) & XP_SITE_TRAMPOLINE)
			return pointed(&site->code);
	return 0;
}

/* What stands at @at as the file has it. */
static void restore(uintptr_t at, const uint8_t *built, size_t len)
{
	overwrite(at, built, len);
}

XP_TEST(a_key)
{
	uintptr_t at = branch_of(&drift_key.key);
	struct xp_batch *batch = xp_batch_new();
	struct xp_diag diag;
	uint8_t built[5];

	memcpy(built, (const void *)at, sizeof(built));
	CHECK_EQ(xp_repair(NULL), 0);
	CHECK_EQ(xp_static_branch_enable(&drift_key), 0);
	restore(at, built, sizeof(built));
	CHECK(!is_on());
	CHECK(xp_static_key_enabled(&drift_key));
	CHECK_EQ(xp_static_branch_enable(&drift_key), -XP_E_DRIFTED);
	CHECK_EQ(xp_static_branch_disable(&drift_key), -XP_E_DRIFTED);
	CHECK_EQ(xp_static_branch_dec(&drift_key), -XP_E_DRIFTED);
	CHECK_EQ(xp_batch_add_key(batch, &drift_true.key, false), 0);
	CHECK_EQ(xp_batch_add_key(batch, &drift_key.key, false), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), -XP_E_DRIFTED);
	CHECK(diag.site == (const void *)at);
	CHECK_STR(diag.key, "drift_key");
	CHECK(is_true());
	CHECK_EQ(xp_repair(&diag), 1);
	CHECK(is_on());
	CHECK_EQ(xp_repair(&diag), 0);
	CHECK_EQ(xp_batch_commit(batch, &diag), 0);
	CHECK(!is_on() && !is_true());
	xp_batch_free(batch);
	/* Off, and another program writes that it is on. */
	built[0] ^= 0xe9 ^ 0xa9;
	restore(at, built, sizeof(built));
	CHECK(is_on());
	CHECK_EQ(xp_static_branch_inc(&drift_key), -XP_E_DRIFTED);
	CHECK_EQ(xp_repair(&diag), 1);
	CHECK(!is_on());
	CHECK_EQ(xp_static_branch_enable(&drift_true), 0);
}

/* What the program's file has for the text at @at: what probes write back. Registration may have changed the text since. */
static bool read_file(uintptr_t at, uint8_t *bytes, size_t len)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end, offset;
	char line[512];
	bool done = false;
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 && at >= start && at < end)
			done = pread(fd, bytes, len, (off_t)(offset + at - start)) == (ssize_t)len;
	if (maps)
		fclose(maps);
	close(fd);
	return done;
}

XP_TEST(a_switch_a_value_and_a_call)
{
	uintptr_t at[] = {switch_of(), imv_of(), trampoline_of()};
	uint8_t built[3][16];
	struct xp_diag diag;

	for (int i = 0; i < 3; i++)
		REQUIRE(read_file(at[i], built[i], 8));
	CHECK_EQ(xp_static_switch_set(&drift_switch, 2), 0);
	CHECK_EQ(xp_imv_set(drift_value, 1234), 0);
	CHECK_EQ(xp_static_call_update(drift_call, second), 0);
	CHECK_EQ(choose(), 12);
	CHECK_EQ(call(1), 3);
	restore(at[0], built[0], 5);
	restore(at[1], built[1], 8);
	restore(at[2], built[2], 8);
	CHECK_EQ(choose(), 10);
	CHECK(read_value() != 1234);
	CHECK_EQ(xp_static_switch_set(&drift_switch, 1), -XP_E_DRIFTED);
	CHECK_EQ(xp_static_switch_set(&drift_switch, 2), -XP_E_DRIFTED);
	CHECK_EQ(xp_imv_set(drift_value, 1234), -XP_E_DRIFTED);
	CHECK_EQ(xp_imv_set(drift_value, 7), -XP_E_DRIFTED);
	CHECK(xp_repair(&diag) >= 2);
	CHECK_EQ(choose(), 12);
	CHECK_EQ(read_value(), 1234);
	CHECK_EQ(call(1), 3);
	CHECK_EQ(xp_repair(&diag), 0);
	CHECK_EQ(xp_static_call_update(drift_call, first), 0);
	CHECK_EQ(call(1), 2);
	CHECK_EQ(xp_static_switch_set(&drift_switch, 0), 0);
	CHECK_EQ(xp_imv_set(drift_value, 5), 0);
}

/* Neither a breakpoint nor what a site never has is written over; all others are repaired. */
XP_TEST(what_is_left_alone)
{
	uintptr_t at = branch_of(&drift_key.key), other = branch_of(&drift_true.key);
	uint8_t is[5], built[5], strange[5];
	struct xp_diag diag;

	memcpy(built, (const void *)other, 5);
	CHECK_EQ(xp_static_branch_disable(&drift_true), 0);
	memcpy(is, (const void *)at, 5);
	overwrite(at, "\xcc", 1);
	restore(other, built, 5);
	CHECK_EQ(xp_repair(&diag), -EBUSY);
	CHECK(diag.site == (const void *)at);
	CHECK(!is_true());
	CHECK_EQ(*(volatile uint8_t *)at, 0xcc);
	CHECK_EQ(xp_static_branch_disable(&drift_key), -EBUSY);
	memcpy(strange, is, 5);
	strange[2] ^= 0x11;
	overwrite(at, strange, 5);
	CHECK_EQ(xp_repair(&diag), -XP_E_MISMATCH);
	CHECK_MEM((const void *)at, strange, 5);
	CHECK_EQ(xp_static_branch_disable(&drift_key), -XP_E_MISMATCH);
	overwrite(at, is, 5);
	CHECK_EQ(xp_repair(&diag), 0);
	/* The other way round: neither order of the two is a reason to leave the second. */
	memcpy(built, (const void *)other, 5);
	is[0] ^= 0xe9 ^ 0xa9;
	overwrite(at, is, 5);
	overwrite(other, "\xcc", 1);
	CHECK(is_on());
	CHECK_EQ(xp_repair(&diag), -EBUSY);
	CHECK(!is_on());
	overwrite(other, built, 5);
	CHECK_EQ(xp_repair(&diag), 0);
	CHECK_EQ(xp_static_branch_enable(&drift_true), 0);
}

static const char *answer(const char *request)
{
	static char text[1 << 16];
	size_t len = xp__proto_answer(request, strlen(request), text, sizeof(text) - 1);

	text[len < sizeof(text) ? len : sizeof(text) - 1] = '\0';
	return text;
}

XP_TEST(seen_from_outside)
{
	uintptr_t at = branch_of(&drift_key.key);
	uint8_t built[5];

	memcpy(built, (const void *)at, 5);
	CHECK(strstr(answer("crosspatch 1 status"), "drifted=0\t"));
	CHECK(strstr(answer("crosspatch 1 list"), "drifted") == NULL);
	CHECK_EQ(xp_static_branch_enable(&drift_key), 0);
	restore(at, built, 5);
	CHECK(strstr(answer("crosspatch 1 status"), "drifted=1\t"));
	CHECK(strstr(answer("crosspatch 1 list"), "sites=1\tdrifted=1\t"));
	CHECK(strstr(answer("crosspatch 1 set drift_key off"), "code=-4230"));
	CHECK_STR(answer("crosspatch 1 repair"), "crosspatch 1 ok\nrepaired\tsites=1\nend\n");
	CHECK(is_on());
	overwrite(at, "\xcc", 1);
	CHECK(strstr(answer("crosspatch 1 repair"), "code=-16"));
	overwrite(at, "\xe9", 1);
	CHECK(strstr(answer("crosspatch 1 set drift_key off"), "crosspatch 1 ok") != NULL);
	CHECK(!is_on());
}

/* ---- an object that has sites in two modules, the second one made by hand ---- */

XP_DEFINE_STATIC_KEY_FALSE(drift_many);

static __attribute__((noinline)) bool many_is_on(void)
{
	return xp_static_branch_unlikely(&drift_many);
}

int drift_second(void);
extern uint8_t drift_second_site[];
extern const struct xp_branch_site __start_drift_second_sites[], __stop_drift_second_sites[];
__asm__(".pushsection .text\n"
	"drift_second: movl $1, %eax\n"
	"drift_second_site: .byte 0xa9\n"
	".long 662f - 661f\n"
	"661: xorl %eax, %eax\n"
	"662: ret\n"
	".pushsection drift_second_sites,\"a\",@progbits\n" XP__BRANCH_RECORD("drift_second_site", "662b", "drift_many")
	".popsection\n"
	".popsection");

XP_TEST(sites_in_two_modules)
{
	static struct xp_module second = {.abi = XP_MODULE_ABI, .nr_tables = XP_NR_SITE_KINDS};
	uintptr_t at[] = {branch_of(&drift_many.key), (uintptr_t)drift_second_site};
	struct xp_diag diag;

	second.tables[XP_SITE_BRANCH] = (struct xp_site_table){__start_drift_second_sites, __stop_drift_second_sites};
	REQUIRE_EQ(xp_module_register(&second), 0);
	CHECK_EQ(xp_static_branch_enable(&drift_many), 0);
	CHECK(many_is_on() && drift_second());
	/* Whichever of the two is looked at first. */
	for (unsigned i = 0; i < 2; i++) {
		overwrite(at[i], "\xa9", 1);
		CHECK_EQ(xp_static_branch_disable(&drift_many), -XP_E_DRIFTED);
		CHECK(strstr(answer("crosspatch 1 status"), "drifted=1\t"));
		CHECK_EQ(xp_repair(&diag), 1);
		CHECK(many_is_on() && drift_second());
		/* A breakpoint at the other is told, and is no reason to leave this one. */
		overwrite(at[i], "\xa9", 1);
		overwrite(at[!i], "\xcc", 1);
		CHECK_EQ(xp_repair(&diag), -EBUSY);
		CHECK(diag.site == (const void *)at[!i]);
		CHECK_STR(diag.key, "drift_many");
		CHECK_EQ(*(volatile uint8_t *)at[i], 0xe9);
		CHECK_EQ(*(volatile uint8_t *)at[!i], 0xcc);
		overwrite(at[!i], "\xe9", 1);
	}
	for (unsigned i = 0; i < 2; i++)
		overwrite(at[i], "\xa9", 1);
	CHECK(!many_is_on() && !drift_second());
	CHECK(strstr(answer("crosspatch 1 status"), "drifted=2\t"));
	CHECK_EQ(xp_repair(&diag), 2);
	CHECK_EQ(xp_static_branch_disable(&drift_many), 0);
	CHECK(!many_is_on() && !drift_second());
	CHECK_EQ(xp_module_unregister(&second), 0);
}

/* ---- functions: of five nops a probe that goes writes one back, in front of our displacement ---- */

#ifdef __x86_64__
static unsigned long nr_entered;

static void on_entry(const struct xp_function_call *entered, void *data)
{
	(void)entered;
	(void)data;
	nr_entered++;
}

static const struct xp_function_handler counting = {.entry = on_entry};

__attribute__((noinline, noclone, patchable_function_entry(5, 0))) static int traced(int x)
{
	__asm__ volatile("" : "+r"(x));
	return x + 1;
}

XP_TEST(a_function)
{
	static const struct xp_function_handler another = {.entry = on_entry};
	uintptr_t at = (uintptr_t)traced;
	uint8_t built[5], call_[5];
	struct xp_diag diag;

	/* An endbr64 may stand in front. */
	if (*(const uint8_t *)at == 0xf3)
		at += 4;
	CHECK(xp_function_prepare(NULL, &diag) >= 0);
	memcpy(built, (const void *)at, 5);
	CHECK_EQ(xp_function_trace(traced, &counting, NULL), 0);
	CHECK_EQ(traced(1), 2);
	CHECK_EQ(nr_entered, 1);
	memcpy(call_, (const void *)at, 5);
	restore(at, built, 5);
	CHECK_EQ(traced(1), 2);
	CHECK_EQ(nr_entered, 1);
	CHECK(strstr(answer("crosspatch 1 list"), "kind=function"));
	CHECK_EQ(xp_function_untrace(traced, &counting, NULL), -XP_E_DRIFTED);
	CHECK_EQ(xp_repair(&diag), 1);
	CHECK_EQ(traced(1), 2);
	CHECK_EQ(nr_entered, 2);
	for (int i = 0; i < 2; i++) {
		overwrite(at, i ? "\x90" : "\x0f", 1);
		CHECK_EQ(xp_function_untrace(traced, &counting, NULL), -XP_E_DRIFTED);
		CHECK_EQ(xp_function_trace(traced, &another, NULL), -XP_E_DRIFTED);
		CHECK_EQ(xp_repair(&diag), 1);
		CHECK_MEM((const void *)at, call_, 5);
	}
	CHECK_EQ(traced(1), 2);
	CHECK_EQ(nr_entered, 3);
	CHECK_EQ(xp_function_untrace(traced, &counting, NULL), 0);
	CHECK_EQ(traced(1), 2);
	CHECK_EQ(nr_entered, 3);
}
#endif

/* ---- the kernel's own ---- */

static long offset_in_file(uintptr_t at, char *path, size_t size)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long start, end, offset;
	char line[512], name[256];
	long found = -1;

	while (maps && found < 0 && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %255s", &start, &end, &offset, name) == 4 && at >= start &&
		    at < end) {
			snprintf(path, size, "%s", name);
			found = (long)(at - start + offset);
		}
	if (maps)
		fclose(maps);
	return found;
}

static int probe(uintptr_t at)
{
	struct perf_event_attr attr = {.size = sizeof(attr), .sample_period = 1};
	static char path[256];
	FILE *type = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
	unsigned number = 0;

	if (type == NULL || fscanf(type, "%u", &number) != 1)
		number = 0;
	if (type)
		fclose(type);
	if (number == 0)
		return -1;
	attr.type = number;
	attr.config2 = (uint64_t)offset_in_file(at, path, sizeof(path));
	attr.config1 = (uint64_t)(uintptr_t)path;
	return (int)syscall(SYS_perf_event_open, &attr, getpid(), -1, -1, PERF_FLAG_FD_CLOEXEC);
}

XP_TEST(a_probe_comes_and_goes)
{
	uintptr_t at = branch_of(&drift_key.key);
	struct xp_diag diag;
	int fd;

	CHECK_EQ(xp_static_branch_enable(&drift_key), 0);
	fd = probe(at);
	if (fd < 0 || *(volatile uint8_t *)at != 0xcc) {
		(void)xp_static_branch_disable(&drift_key);
		SKIP("no uprobes here");
	}
	CHECK_EQ(xp_static_branch_enable(&drift_key), -EBUSY);
	CHECK_EQ(xp_static_branch_disable(&drift_key), -EBUSY);
	CHECK_EQ(xp_repair(&diag), -EBUSY);
	close(fd);
	XP_TEST_NOTE("%02x stands there, and the site is %s", *(volatile uint8_t *)at, is_on() ? "on" : "off");
	if (!is_on())
		CHECK_EQ(xp_static_branch_disable(&drift_key), -XP_E_DRIFTED);
	CHECK(xp_repair(&diag) >= 0);
	CHECK(is_on());
	CHECK_EQ(xp_static_branch_disable(&drift_key), 0);
	CHECK(!is_on());
}

XP_TEST_MAIN()
