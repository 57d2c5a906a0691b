// SPDX-License-Identifier: MIT
/* Operation from outside: which peers may ask, what is answered, what holds up no commit, and what is left behind. */
#include "control/proto.h"
#include "core/state.h"
#include "core/inject.h"
#include "port/linux/control_state.h"
#include "port/linux/rendezvous_signal.h"
#include "port/linux/sync_signal.h"
#include "xp_child.h"

#include <crosspatch/crosspatch.h>
#include <crosspatch/linux.h>

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <libgen.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { TRACING_LINE = __LINE__ + 1 };
static XP_DEFINE_STATIC_KEY_FALSE(tracing);
static XP_DEFINE_STATIC_KEY_TRUE(auditing);
static XP_DEFINE_STATIC_KEY_FALSE(held);
XP_DEFINE_STATIC_SWITCH(level, 3, 1);
XP_DEFINE_IMV(short, limit, -2);
XP_DEFINE_STATIC_KEY_ARRAY_FALSE(several, 2);
XP_DEFINE_STATIC_KEY_FALSE(without_sites);

static __attribute__((noinline)) int state(void)
{
	int bits = 0;

	if (xp_static_branch_unlikely(&tracing))
		bits |= 1;
	if (xp_static_branch_likely(&auditing))
		bits |= 2;
	if (xp_static_branch_unlikely(&held))
		bits |= 4;
	if (xp_static_branch_unlikely(&several[0]))
		bits |= 8;
	if (xp_static_branch_unlikely(&several[1]))
		bits |= 16;
	return bits;
}

static __attribute__((noinline)) int level_site(void)
{
	switch (xp_static_switch(&level)) {
	case 0:
		return 10;
	case 1:
		return 11;
	default:
		return 12;
	}
}

static __attribute__((noinline)) int limit_site(void)
{
	return xp_imv_read(limit);
}

extern uint32_t xp__lock_patience_ms;

/* ---- a place, and peers that ask there ---- */

static char directory[] = "/tmp/crosspatch-test-XXXXXX", path[128];

static bool make_place(void)
{
	strcpy(directory + strlen(directory) - 6, "XXXXXX");
	if (mkdtemp(directory) == NULL)
		return false;
	snprintf(path, sizeof(path), "%s/socket", directory);
	return true;
}

static void remove_place(void)
{
	unlink(path);
	CHECK_EQ(rmdir(directory), 0);
}

static int connect_to(const char *where)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, where);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	close(fd);
	return -1;
}

static char answer[65536];

/* All that comes until the other end hangs up, perhaps with part of the request unread; "" if no process is there. */
static const char *receive(int fd)
{
	size_t len = 0;
	ssize_t got;

	while (len < sizeof(answer) - 1 && (got = recv(fd, answer + len, sizeof(answer) - 1 - len, 0)) > 0)
		len += (size_t)got;
	answer[len] = '\0';
	close(fd);
	return answer;
}

static const char *ask_bytes(const void *request, size_t len)
{
	int fd = connect_to(path);

	answer[0] = '\0';
	if (fd < 0)
		return answer;
	(void)send(fd, request, len, MSG_NOSIGNAL);
	return receive(fd);
}

static const char *ask(const char *request)
{
	char line[8192];

	return ask_bytes(line, (size_t)snprintf(line, sizeof(line), "crosspatch 1 %s\n", request));
}

static bool is_ok(const char *reply)
{
	size_t len = strlen(reply);

	return strncmp(reply, "crosspatch 1 ok\n", 16) == 0 && strcmp(reply + len - 4, "end\n") == 0;
}

static int code_of(const char *reply)
{
	static const char start[] = "crosspatch 1 error\tcode=";

	return strncmp(reply, start, sizeof(start) - 1) == 0 ? atoi(reply + sizeof(start) - 1) : 0;
}

/* The line of the answer that ends so. */
static const char *line_of(const char *reply, const char *end)
{
	static char line[1024];

	for (const char *at = reply, *stop; (stop = strchr(at, '\n')); at = stop + 1) {
		snprintf(line, sizeof(line), "%.*s", (int)(stop - at), at);
		if (strlen(line) > strlen(end) && strcmp(line + strlen(line) - strlen(end), end) == 0)
			return line;
	}
	return "";
}

static bool says(const char *line, const char *part)
{
	return strstr(line, part) != NULL;
}

static unsigned count(const char *text, const char *part)
{
	unsigned nr = 0;

	for (const char *at = text; (at = strstr(at, part)); at++)
		nr++;
	return nr;
}

static unsigned threads(void)
{
	unsigned nr = 0;
	DIR *tasks = opendir("/proc/self/task");

	while (readdir(tasks))
		nr++;
	closedir(tasks);
	return nr - 2;
}

static unsigned sockets(void)
{
	DIR *fds = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned nr = 0;

	while ((entry = readdir(fds))) {
		char link[64] = "";

		if (readlinkat(dirfd(fds), entry->d_name, link, sizeof(link) - 1) > 0 &&
		    strncmp(link, "socket:", 7) == 0)
			nr++;
	}
	closedir(fds);
	return nr;
}

/* ---- cases; each in a process of its own, which ends with whatever it started ---- */

static void unasked(void)
{
	CHECK_EQ(threads(), 1);
	CHECK_EQ(xp_control_path(answer, sizeof(answer)), -ENOTCONN);
	CHECK_EQ(xp_control_stop(), 0);
}

XP_TEST(nothing_listens_unasked)
{
	xp_child(unasked);
}

static void seen_and_set(void)
{
	char where[108], end[512];
	struct stat st;

	REQUIRE_EQ(xp_control_start(path), 0);
	CHECK_EQ(xp_control_start(path), -EALREADY);
	CHECK_EQ(xp_control_path(where, sizeof(where)), 0);
	CHECK_STR(where, path);
	CHECK_EQ(xp_control_path(where, strlen(path)), -ERANGE);
	CHECK_EQ(stat(path, &st), 0);
	CHECK_EQ(st.st_mode & 07777, 0600);

	CHECK(is_ok(ask("list")));
	snprintf(end, sizeof(end), "file=%s\tname=tracing", __FILE__);
	CHECK(says(line_of(answer, end), "object\tkind=key\tstate=off\tcount=0\tsites=1\taddress=0x"));
	snprintf(where, sizeof(where), "\tline=%d\t", TRACING_LINE);
	CHECK(says(line_of(answer, end), where));
	CHECK(says(line_of(answer, "name=auditing"), "state=on\tcount=1"));
	CHECK(says(line_of(answer, "name=level"), "kind=switch\tstate=1\tchoices=3\tsites=1"));
	CHECK(says(line_of(answer, "name=limit"), "kind=value\tstate=-2\tsize=2\ttype=signed\tsites=1"));
	CHECK_EQ(count(answer, "name=several\n"), 2);
	CHECK_EQ(count(answer, "name=without_sites"), 0);

	CHECK(is_ok(ask("status")));
	CHECK(says(answer, "\nstatus\tstate=ready\tpolicy=auto\twriter="));

	CHECK_EQ(state(), 2);
	CHECK(is_ok(ask("set tracing on")));
	CHECK(says(answer, "before\tstate=off\nobject\tkind=key\tstate=on\tcount=1"));
	CHECK_EQ(state(), 3);
	CHECK(xp_static_key_enabled(&tracing));
	CHECK(is_ok(ask("set regression/control.c:auditing off")));
	CHECK_EQ(state(), 1);
	snprintf(end, sizeof(end), "set control.c:%d:tracing 0", TRACING_LINE);
	CHECK(is_ok(ask(end)));
	CHECK_EQ(state(), 0);
	CHECK(is_ok(ask("set tracing off")));
	snprintf(end, sizeof(end), "set 0x%lx on", (unsigned long)&several[1]);
	CHECK(is_ok(ask(end)));
	CHECK_EQ(state(), 16);
	CHECK(is_ok(ask("set level 2")));
	CHECK_EQ(level_site(), 12);
	CHECK(is_ok(ask("set limit -32768")));
	CHECK_EQ(limit_site(), -32768);
	CHECK(is_ok(ask("set limit 0x7fff")));
	CHECK_EQ(limit_site(), 32767);

	CHECK_EQ(xp_control_stop(), 0);
	CHECK_EQ(stat(path, &st), -1);
	CHECK_EQ(connect_to(path), -1);
	CHECK_EQ(sockets(), 0);
	REQUIRE_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
}

static void in_a_place(void (*body)(void))
{
	struct stat st;

	REQUIRE(make_place());
	xp_child(body);
	/* _exit() runs no destructors. */
	if (stat(path, &st) == 0)
		CHECK(S_ISSOCK(st.st_mode));
	remove_place();
}

XP_TEST(keys_are_seen_and_set)
{
	in_a_place(seen_and_set);
}

static void check_refused(const char *request, int code, const char *part)
{
	CHECK_EQ(code_of(ask(request)), code);
	if (!says(answer, part))
		printf("# %s: %s", request, answer);
	CHECK(says(answer, part));
	CHECK_EQ(state(), 2 | 4);
	CHECK_EQ(level_site(), 11);
	CHECK_EQ(limit_site(), -2);
}

static void bad_requests(void)
{
	static const char zero[] = "crosspatch 1 set tracing on\0\n";
	char request[4200];
	unsigned i = 0;

	CHECK_EQ(xp_static_branch_inc(&held), 0);
	REQUIRE_EQ(xp_control_start(path), 0);
	check_refused("", -EPROTO, "text=there is no such request");
	check_refused("sett tracing on", -EPROTO, "text=");
	check_refused("list tracing", -EPROTO, "text=");
	check_refused("set", -EPROTO, "text=");
	check_refused("set tracing", -EINVAL, "wants a name and a value");
	check_refused("set tracing ", -EINVAL, "wants a name and a value");
	check_refused("set tracin on", -ENOENT, "none called so");
	check_refused("set tracing  on", -ENOENT, "none called so");
	check_refused("set ontrol.c:tracing on", -ENOENT, "none called so");
	check_refused("set control.c:1:tracing on", -ENOENT, "none called so");
	check_refused("set without_sites on", -ENOENT, "none called so");
	check_refused("set 0x1 on", -ENOENT, "none called so");
	check_refused("set several on", -ENOTUNIQ, "several are called so");
	check_refused("set tracing 2", -EINVAL, "on or off");
	check_refused("set tracing On", -EINVAL, "on or off");
	check_refused("set tracing -1", -EINVAL, "on or off");
	check_refused("set tracing 18446744073709551617", -EINVAL, "on or off");
	check_refused("set level 3", -EINVAL, "number of a choice");
	check_refused("set level on", -EINVAL, "number of a choice");
	check_refused("set limit 65536", -EINVAL, "its size");
	check_refused("set limit -32769", -EINVAL, "its size");
	check_refused("set limit 0x", -EINVAL, "its size");
	check_refused("set limit 1a", -EINVAL, "its size");
	check_refused("set limit -", -EINVAL, "its size");
	/* What would be a small number if no digit too many were seen. */
	check_refused("set level 0x10000000000000001", -EINVAL, "number of a choice");
	check_refused("set level 18446744073709551617", -EINVAL, "number of a choice");
	check_refused("set level -18446744073709551615", -EINVAL, "number of a choice");
	check_refused("set limit 32768", -EINVAL, "has a sign");
	check_refused("set held off", -XP_E_COUNTED, "held by a count");

	CHECK_EQ(code_of(ask_bytes(zero, sizeof(zero) - 1)), -EPROTO);
	CHECK_EQ(code_of(ask_bytes("\n", 1)), -EPROTO);
	CHECK_EQ(code_of(ask_bytes("crosspatch 2 list\n", 18)), -EPROTO);
	for (i = (unsigned)snprintf(request, sizeof(request), "crosspatch 1 set "); i < 4100; i++)
		request[i] = 'x';
	CHECK_EQ(code_of(ask_bytes(request, i)), -EMSGSIZE);
	/* Those that hang up in the middle get no answer, and do no harm. */
	for (i = 0; i < 20; i++) {
		int fd = connect_to(path);

		REQUIRE(fd >= 0);
		(void)send(fd, "crosspatch 1 set tracing on", i, MSG_NOSIGNAL);
		close(fd);
	}
	check_refused("set tracin on", -ENOENT, "none called so");
}

XP_TEST(bad_requests_change_nothing)
{
	in_a_place(bad_requests);
}

XP_TEST(characters_are_escaped)
{
	static const char whole[] = "crosspatch 1 error\tcode=-5\ttext=a\\tb\\\\c\\x01\\x1f\\x7f d\nend\n";
	char text[128];
	size_t len = xp__proto_error(-5, "a\tb\\c\x01\x1f\x7f d", text, sizeof(text));

	CHECK_EQ(len, sizeof(whole) - 1);
	CHECK(memcmp(text, whole, sizeof(whole) - 1) == 0);
	/* Where there is too little room nothing is written behind it, and how much would do is said. */
	memset(text, 'x', sizeof(text));
	CHECK_EQ(xp__proto_error(-5, "a\tb\\c\x01\x1f\x7f d", text, 20), len);
	CHECK(memcmp(text, whole, 20) == 0 && text[20] == 'x' && text[21] == 'x');
}

XP_DEFINE_IMV(_Bool, flag, 1);
XP_DEFINE_IMV(unsigned char, byte, 7);
XP_DEFINE_IMV(float, ratio, 1.0f);
XP_DEFINE_IMV(const char *, text, NULL);
XP_DEFINE_IMV_RANGE(int, offset, 0, -5, 10);
XP_DEFINE_IMV_STATIC_RANGE(unsigned, modulus, 8, 1, 64);

static __attribute__((noinline)) int values(void)
{
	return 1000 * xp_imv_read(byte) + 100 / (int)xp_imv_read(modulus) + xp_imv_read(offset) + xp_imv_read(flag) +
	       (int)xp_imv_read(ratio) + (xp_imv_read(text) != NULL);
}

static void check_value(const char *request, int code, const char *part)
{
	int before = values();

	CHECK_EQ(code_of(ask(request)), code);
	if (!says(answer, part))
		printf("# %s: %s", request, answer);
	CHECK(says(answer, part));
	CHECK_EQ(values(), before);
}

static void of_their_type(void)
{
	REQUIRE_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
	CHECK(says(line_of(answer, "name=flag"), "state=1\tsize=1\ttype=bool\tsites=1"));
	CHECK(says(line_of(answer, "name=byte"), "state=7\tsize=1\ttype=unsigned\tsites=1"));
	CHECK(says(line_of(answer, "name=ratio"), "state=0x3f800000\tsize=4\ttype=float\tsites=1"));
	CHECK(says(line_of(answer, "name=text"), "type=unsigned\tsites=1"));
	CHECK(says(line_of(answer, "name=offset"), "state=0\tsize=4\ttype=signed\tleast=-5\tmost=10\tsites=1"));
	CHECK(says(line_of(answer, "name=modulus"), "state=8\tsize=4\ttype=unsigned\tleast=1\tmost=64\tsites=1"));
	check_value("set flag 2", -EINVAL, "0 or 1");
	check_value("set flag -1", -EINVAL, "0 or 1");
	check_value("set byte -1", -EINVAL, "no sign");
	check_value("set byte 256", -EINVAL, "its size");
	check_value("set ratio 2", -EINVAL, "by its bits");
	check_value("set modulus 0", -XP_E_VALUE, "range");
	check_value("set modulus 65", -XP_E_VALUE, "range");
	check_value("set modulus 4294967295", -XP_E_VALUE, "range");
	check_value("set offset -6", -XP_E_VALUE, "range");
	check_value("set offset 11", -XP_E_VALUE, "range");
	check_value("set offset 4294967295", -EINVAL, "has a sign");
	CHECK(is_ok(ask("set flag 0")) && is_ok(ask("set byte 255")) && is_ok(ask("set ratio 0x40000000")));
	CHECK(is_ok(ask("set modulus 64")) && is_ok(ask("set offset -5")));
	CHECK_EQ(values(), 255000 + 1 - 5 + 0 + 2);
	CHECK(is_ok(ask("set limit -32768")));
	CHECK_EQ(limit_site(), -32768);
	check_value("set limit -32769", -EINVAL, "its size");
}

XP_TEST(values_are_of_their_type)
{
	in_a_place(of_their_type);
}

/* ---- which peers may ask ---- */

static void as_nobody(void)
{
	CHECK(setgid(65534) == 0 && setuid(65534) == 0);
	CHECK_EQ(code_of(ask("set tracing on")), -EPERM);
	CHECK_EQ(code_of(ask("list")), -EPERM);
	CHECK_EQ(count(answer, "tracing"), 0);
}

static void other_users(void)
{
	REQUIRE_EQ(xp_control_start(path), 0);
	/* The file alone would let them in. */
	CHECK(chmod(directory, 0755) == 0 && chmod(path, 0666) == 0);
	xp_child(as_nobody);
	CHECK_EQ(state(), 2);
	CHECK(is_ok(ask("set tracing on")));
}

XP_TEST(other_users_are_refused)
{
	if (geteuid() != 0)
		SKIP("needs root, to be somebody else");
	in_a_place(other_users);
}

/* ---- no commit waits for a peer ---- */

static void silent_peer(void)
{
	bool waited_for = false;

	REQUIRE_EQ(xp_control_start(path), 0);
	/* Again if this thread did not run for so long that the peer was given up meanwhile. */
	for (int tries = 0; tries < 3 && !waited_for; tries++) {
		int fd = connect_to(path), unread = 1;
		struct pollfd hung_up = {fd, POLLIN, 0};

		REQUIRE(fd >= 0);
		CHECK_EQ(send(fd, "cross", 5, 0), 5);
		while (unread > 0) {
			CHECK_EQ(ioctl(fd, SIOCOUTQ, &unread), 0);
			sched_yield();
		}
		CHECK_EQ(xp_static_branch_enable(&tracing), 0);
		CHECK_EQ(xp_static_branch_disable(&tracing), 0);
		waited_for = poll(&hung_up, 1, 0) == 0;
		close(fd);
	}
	CHECK(waited_for);
	CHECK(is_ok(ask("list")));
}

XP_TEST(no_commit_waits_for_a_silent_peer)
{
	in_a_place(silent_peer);
}

/* ---- nor do peers wait for silent ones ---- */

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int connect_at_once(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	strcpy(address.sun_path, path);
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && fcntl(fd, F_SETFL, 0) == 0)
		return fd;
	close(fd);
	return -1;
}

static void silent_peers(void)
{
	static const char request[] = "crosspatch 1 list\n";
	enum { NR = 60 };
	int64_t start = now_ms();
	int fds[NR], nr = 0;

	REQUIRE_EQ(xp_control_start(path), 0);
	while (nr < NR && now_ms() - start < 2000) {
		fds[nr] = connect_at_once();
		if (fds[nr] >= 0)
			nr++;
		else
			usleep(1000);
	}
	REQUIRE_EQ(nr, NR);
	CHECK(is_ok(ask("list")));
	CHECK(now_ms() - start < 4000);
	/* The first was told why, and the last has its place. */
	CHECK_EQ(code_of(receive(fds[0])), -EBUSY);
	CHECK(now_ms() - start < 4000);
	CHECK_EQ(send(fds[NR - 1], request, sizeof(request) - 1, MSG_NOSIGNAL), sizeof(request) - 1);
	CHECK(is_ok(receive(fds[NR - 1])));
	for (int i = 1; i < NR - 1; i++)
		close(fds[i]);
}

XP_TEST(no_peer_waits_for_silent_ones)
{
	in_a_place(silent_peers);
}

static void one_silent_peer(void)
{
	int64_t start = now_ms();
	int fd;

	REQUIRE_EQ(xp_control_start(path), 0);
	fd = connect_to(path);
	REQUIRE(fd >= 0);
	CHECK_STR(receive(fd), "");
	CHECK(now_ms() - start >= 4900);
	CHECK(now_ms() - start < 15000);
	CHECK(is_ok(ask("list")));
}

XP_TEST(a_silent_peer_is_given_up)
{
	in_a_place(one_silent_peer);
}

static bool stop;
static unsigned long toggles;

static void *toggle(void *key)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		CHECK_EQ(xp_static_key_enable(key), 0);
		CHECK_EQ(xp_static_key_disable(key), 0);
		__atomic_fetch_add(&toggles, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void asked_while_others_switch(void)
{
	pthread_t thread;

	REQUIRE_EQ(xp_control_start(path), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, toggle, &tracing.key), 0);
	for (int i = 0; i < 50 || __atomic_load_n(&toggles, __ATOMIC_RELAXED) == 0; i++) {
		CHECK(is_ok(ask("list")));
		CHECK(says(line_of(answer, "name=tracing"), "state=o"));
		CHECK(is_ok(ask(i % 2 ? "set auditing on" : "set auditing off")));
		CHECK_EQ((state() & 2) != 0, i % 2);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK(is_ok(ask("set tracing on")));
	CHECK(is_ok(ask("set auditing on")));
	CHECK_EQ(state(), 3);
}

XP_TEST(while_others_switch)
{
	in_a_place(asked_while_others_switch);
}

/* A shared object beside this program, with a call of its own; loaded, closed. */
static void *load(void)
{
	char self[PATH_MAX], file[PATH_MAX + 32];
	ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

	self[len > 0 ? len : 0] = '\0';
	snprintf(file, sizeof(file), "%s/regression_caller.so", dirname(self));
	return dlopen(file, RTLD_NOW | RTLD_LOCAL);
}

static void *load_and_close(void *nothing)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		void *object = load();

		CHECK(object != NULL);
		CHECK_EQ(dlclose(object), 0);
		__atomic_fetch_add(&toggles, 1, __ATOMIC_RELAXED);
	}
	return nothing;
}

static void modules_come_and_go(void)
{
	pthread_t thread;
	void *object;

	REQUIRE_EQ(xp_control_start(path), 0);
	REQUIRE_EQ(pthread_create(&thread, NULL, load_and_close, NULL), 0);
	for (int i = 0; i < 200 || __atomic_load_n(&toggles, __ATOMIC_RELAXED) < 20; i++) {
		CHECK(is_ok(ask("list")));
		if (says(answer, "name=call_out"))
			CHECK(says(line_of(answer, "name=call_out"), "caller.c\t"));
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	CHECK(!says(ask("list"), "name=call_out"));
	object = load();
	REQUIRE(object != NULL);
	CHECK(says(line_of(ask("list"), "name=call_out"), "kind=call\tstate=none\tsites=0"));
	CHECK_EQ(code_of(ask("set call_out 1")), -EOPNOTSUPP);
	CHECK_EQ(dlclose(object), 0);
	CHECK(!says(ask("list"), "name=call_out"));
}

XP_TEST(while_modules_come_and_go)
{
	in_a_place(modules_come_and_go);
}

/* Nothing can be changed any more, and what there is can still be seen; but not what was closed since. */
static void wedged(void)
{
	void *object = load();

	REQUIRE(object != NULL);
	REQUIRE_EQ(xp_control_start(path), 0);
	xp__wedge();
	CHECK(says(ask("status"), "\nstatus\tstate=wedged\t"));
	CHECK_EQ(code_of(ask("set tracing on")), -XP_E_WEDGED);
	CHECK(is_ok(ask("list")));
	CHECK(says(answer, "name=call_out"));
	CHECK_EQ(dlclose(object), 0);
	CHECK(is_ok(ask("list")));
	CHECK(says(answer, "name=tracing") && !says(answer, "name=call_out"));
}

XP_TEST(wedged_it_can_be_seen)
{
	in_a_place(wedged);
}

/* ---- the end waits for the thread, and that for the text lock ---- */

static bool has_been_held, let_go;

/* In the middle of a commit. */
static void hold_a_stop(enum xp__point point)
{
	(void)point;
	while (__atomic_load_n(&xp__control_phase, __ATOMIC_RELAXED) == XP__CONTROL_STOPPING &&
	       !__atomic_load_n(&let_go, __ATOMIC_RELAXED)) {
		__atomic_store_n(&has_been_held, true, __ATOMIC_RELAXED);
		usleep(1000);
	}
}

/* Again until a commit begins between the stop and the thread's end. */
static void stop_that_is_held(void)
{
	pthread_t thread;
	int tries = 0;

	xp__lock_patience_ms = 200;
	xp__inject = hold_a_stop;
	REQUIRE_EQ(pthread_create(&thread, NULL, toggle, &tracing.key), 0);
	while (!has_been_held && tries++ < 1000) {
		int error;

		REQUIRE_EQ(xp_control_start(path), 0);
		error = xp_control_stop();
		CHECK_EQ(error, __atomic_load_n(&has_been_held, __ATOMIC_RELAXED) ? -XP_E_HELD : 0);
	}
	XP_TEST_NOTE("held at try %d", tries);
	CHECK(has_been_held);
	__atomic_store_n(&let_go, true, __ATOMIC_RELAXED);
	CHECK_EQ(xp_control_stop(), 0);
	CHECK_EQ(xp_control_path(answer, sizeof(answer)), -ENOTCONN);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
}

XP_TEST(a_stop_that_cannot_end_says_so)
{
	in_a_place(stop_that_is_held);
}

/* The thread that is not the caller, or 0. */
static int other_thread(void)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *entry;
	int tid = 0;

	while ((entry = readdir(tasks)))
		if (atoi(entry->d_name) && atoi(entry->d_name) != getpid())
			tid = atoi(entry->d_name);
	closedir(tasks);
	return tid;
}

/* A field of /proc/self/task/TID/status: a letter, or a number in hexadecimal. */
static uint64_t status_of(int tid, const char *name, bool letter)
{
	char file[64], line[256];
	uint64_t value = 0;
	FILE *status;

	snprintf(file, sizeof(file), "/proc/self/task/%d/status", tid);
	status = fopen(file, "r");
	while (status && fgets(line, sizeof(line), status))
		if (strncmp(line, name, strlen(name)) == 0)
			value = letter ? (uint64_t)line[strlen(name) + 2] : strtoull(line + strlen(name) + 1, NULL, 16);
	if (status)
		fclose(status);
	return value;
}

/* Its thread blocks signals, but not those of the library, whenever they are chosen, nor libc's. */
static void other_syncs(void)
{
	uint64_t blocked;
	int tid;

	REQUIRE_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
	tid = other_thread();
	while (status_of(tid, "State", true) != 'S')
		sched_yield();
	blocked = status_of(tid, "SigBlk", false);
	CHECK(blocked >> (SIGTERM - 1) & 1 && blocked >> (SIGRTMAX - 1) & 1);
	CHECK_EQ(blocked >> (SIGTRAP - 1) & 1, 0);
	REQUIRE_EQ(blocked >> 31 & 3, 0);
	CHECK_EQ(setresuid((uid_t)-1, (uid_t)-1, (uid_t)-1), 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_BREAKPOINT), 0);
	CHECK(is_ok(ask("set tracing on")));
	CHECK_EQ(xp_static_branch_disable(&tracing), 0);
	/* It waits, with the mask that it has. */
	while (status_of(tid, "State", true) != 'S')
		sched_yield();
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	CHECK_EQ(xp_static_branch_enable(&tracing), 0);
	CHECK_EQ(xp_set_policy(XP_POLICY_QUIESCE), 0);
	CHECK_EQ(xp_static_branch_disable(&auditing), 0);
	CHECK_EQ(state(), 1);
	CHECK(is_ok(ask("set auditing on")));
	CHECK_EQ(xp_set_policy(XP_POLICY_EARLY), 0);
	CHECK_EQ(code_of(ask("set auditing off")), -XP_E_NOT_EARLY);
	CHECK_EQ(state(), 3);
}

/* In the middle of a commit a peer asks, and waits for the lock; then another signal is chosen. */
static int asking = -1;

static void choose_signal(enum xp__point point)
{
	static const char request[] = "crosspatch 1 list\n";
	int tid = other_thread(), signal;

	if (point != XP__POINT_STORED || asking >= 0)
		return;
	asking = connect_to(path);
	CHECK_EQ(send(asking, request, sizeof(request) - 1, MSG_NOSIGNAL), sizeof(request) - 1);
	for (int i = 0; i < 1000; i++)
		sched_yield();
	while (status_of(tid, "State", true) != 'S')
		sched_yield();
	CHECK_EQ(xp__rendezvous_start(), 0);
	signal = xp__rendezvous_signal();
	CHECK(signal > 0);
	for (int i = 0; i < 100000 && status_of(tid, "SigBlk", false) >> (signal - 1) & 1; i++)
		sched_yield();
	CHECK_EQ(status_of(tid, "SigBlk", false) >> (signal - 1) & 1, 0);
}

static void waiting_for_the_lock(void)
{
	REQUIRE_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
	xp__inject = choose_signal;
	CHECK_EQ(xp_static_branch_enable(&tracing), 0);
	xp__inject = NULL;
	CHECK(is_ok(receive(asking)));
	CHECK(says(line_of(answer, "name=tracing"), "state=on"));
}

XP_TEST(one_that_waits_for_the_lock)
{
	in_a_place(waiting_for_the_lock);
}

XP_TEST(every_policy_and_sync)
{
	in_a_place(other_syncs);
}

/* ---- descriptors ---- */

static void closed_by_the_program(void)
{
	struct stat before, after;
	int fds[2];

	REQUIRE_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
	CHECK_EQ(stat(path, &before), 0);
	CHECK_EQ(syscall(SYS_close_range, 3, ~0u, 0), 0);
	CHECK_EQ(pipe(fds), 0);
	/* The connection that the thread wakes up by is lost. */
	for (int i = 0; i < 10000 && !is_ok(ask("list")); i++)
		sched_yield();
	CHECK(is_ok(ask("list")));
	CHECK_EQ(stat(path, &after), 0);
	CHECK_EQ(after.st_mode & 07777, 0600);
	CHECK_EQ(fcntl(fds[0], F_GETFD), 0);
	CHECK(is_ok(ask("set tracing on")));
	CHECK_EQ(xp_set_sync(XP_SYNC_SIGNAL), 0);
	CHECK_EQ(xp_static_branch_disable(&tracing), 0);
	CHECK_EQ(syscall(SYS_close_range, 3, ~0u, 0), 0);
	CHECK_EQ(xp_control_stop(), 0);
	CHECK_EQ(stat(path, &after), -1);
}

XP_TEST(descriptors_that_the_program_closes)
{
	in_a_place(closed_by_the_program);
}

/* ---- fork ---- */

static char other_path[sizeof(path) + 8];

static void forked(void)
{
	CHECK_EQ(sockets(), 0);
	CHECK_EQ(threads(), 1);
	CHECK_EQ(xp_control_path(answer, sizeof(answer)), -ENOTCONN);
	CHECK_EQ(xp_control_stop(), 0);
	/* The parent serves there, its own keys. */
	CHECK(is_ok(ask("set tracing on")));
	CHECK_EQ(state(), 2);
	CHECK_EQ(xp_control_start(path), -EADDRINUSE);
	snprintf(other_path, sizeof(other_path), "%s.child", path);
	CHECK_EQ(xp_control_start(other_path), 0);
	strcpy(path, other_path);
	CHECK(is_ok(ask("set auditing off")));
	CHECK_EQ(state(), 0);
	CHECK_EQ(xp_control_stop(), 0);
}

static void forks(void)
{
	CHECK_EQ(sockets(), 0);
	REQUIRE_EQ(xp_control_start(path), 0);
	xp_child(forked);
	CHECK_EQ(state(), 3);
	CHECK(is_ok(ask("list")));
}

XP_TEST(a_child_of_fork_is_not_served)
{
	in_a_place(forks);
}

/* ---- the name ---- */

static void killed(void)
{
	REQUIRE_EQ(xp_control_start(path), 0);
	raise(SIGKILL);
}

static void stale(void)
{
	struct stat before, after;
	char where[200];

	CHECK_EQ(xp_child_status(killed), SIGKILL);
	CHECK_EQ(stat(path, &before), 0);
	CHECK_EQ(connect_to(path), -1);
	CHECK_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
	CHECK_EQ(xp_control_stop(), 0);

	/* What is no socket stays. */
	close(open(path, O_CREAT | O_WRONLY, 0600));
	CHECK_EQ(stat(path, &before), 0);
	CHECK_EQ(xp_control_start(path), -EEXIST);
	CHECK_EQ(stat(path, &after), 0);
	CHECK_EQ(after.st_ino, before.st_ino);
	CHECK_EQ(unlink(path), 0);

	CHECK_EQ(xp_control_start("socket"), -EINVAL);
	CHECK_EQ(xp_control_start(""), -EINVAL);
	CHECK_EQ(xp_control_start("/tmp/"), -EINVAL);
	snprintf(where, sizeof(where), "/%0150d", 0);
	CHECK_EQ(xp_control_start(where), -ENAMETOOLONG);
	snprintf(where, sizeof(where), "%s/none/socket", directory);
	CHECK_EQ(xp_control_start(where), -ENOENT);
	CHECK_EQ(sockets(), 0);
	/* That of the one that was stopped says so before it ends. */
	for (int i = 0; i < 10000 && threads() > 1; i++)
		sched_yield();
	CHECK_EQ(threads(), 1);
	errno = 12345;
	CHECK_EQ(xp_control_start(NULL), 0);
	CHECK_EQ(errno, 12345);
	CHECK_EQ(xp_control_path(where, sizeof(where)), 0);
	snprintf(where + 100, 100, "/%d", getpid());
	CHECK(where[0] == '/' && says(where, where + 100));
	CHECK_EQ(xp_control_stop(), 0);
}

XP_TEST(names_that_are_taken)
{
	in_a_place(stale);
}

static void lock_held(void)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY);

	/* Anybody can hold that of /tmp. */
	CHECK_EQ(flock(fd, LOCK_EX), 0);
	CHECK_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
	CHECK_EQ(xp_control_stop(), 0);
}

XP_TEST(locks_of_others_are_not_waited_for)
{
	in_a_place(lock_held);
}

/* As long as a socket's name may be, in a directory whose own name is almost as long. */
static void long_names(void)
{
	char where[120], deep[108];

	snprintf(deep, sizeof(deep), "%s/%0*d", directory, (int)(104 - strlen(directory)), 0);
	snprintf(where, sizeof(where), "%s/s", deep);
	REQUIRE_EQ(strlen(where), 107);
	CHECK_EQ(mkdir(deep, 0700), 0);
	strcpy(path, where);
	CHECK_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
	CHECK_EQ(xp_control_stop(), 0);
	CHECK_EQ(rmdir(deep), 0);
}

XP_TEST(names_as_long_as_they_may_be)
{
	in_a_place(long_names);
}

static void many_at_once(void)
{
	int own = 0;

	/* A stale one, that several want to replace at once: one of them has the name, and keeps it. */
	CHECK_EQ(xp_child_status(killed), SIGKILL);
	for (int i = 0; i < 8; i++)
		if (fork() == 0) {
			int error = xp_control_start(path);

			usleep(error ? 0 : 300000);
			if (error == 0 && !is_ok(ask("list")))
				error = 99;
			_exit(error == 0 ? 1 : error == -EADDRINUSE ? 0 : 2);
		}
	for (int status, i = 0; i < 8; i++) {
		CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) < 2);
		own += WEXITSTATUS(status) == 1;
	}
	CHECK_EQ(own, 1);
}

XP_TEST(several_that_come_at_once)
{
	in_a_place(many_at_once);
}

/* ---- users ---- */

static void wait_for_path(const char *part)
{
	path[0] = '\0';
	for (int i = 0; i < 5000 && !says(path, part); i++) {
		usleep(1000);
		CHECK_EQ(xp_control_path(path, sizeof(path)), 0);
	}
	CHECK(says(path, part));
}

static void drops_privileges(void)
{
	struct stat st;

	REQUIRE_EQ(xp_control_start(NULL), 0);
	CHECK_EQ(xp_control_path(path, sizeof(path)), 0);
	CHECK(is_ok(ask("list")));
	CHECK(setgid(65533) == 0 && setuid(65533) == 0);
	wait_for_path("crosspatch-65533/");
	CHECK(is_ok(ask("list")));
	CHECK(stat(path, &st) == 0 && st.st_uid == 65533 && (st.st_mode & 07777) == 0600);
	CHECK_EQ(xp_control_stop(), 0);
	CHECK_EQ(stat(path, &st), -1);
}

XP_TEST(a_daemon_that_drops_privileges)
{
	if (geteuid() != 0)
		SKIP("needs root, to drop privileges");
	xp_child(drops_privileges);
}

static void masked(void)
{
	struct stat st;

	if (geteuid() == 0)
		REQUIRE(setgid(65532) == 0 && setuid(65532) == 0);
	umask(0777);
	for (int i = 0; i < 2; i++) {
		REQUIRE_EQ(xp_control_start(NULL), 0);
		CHECK_EQ(xp_control_path(path, sizeof(path)), 0);
		CHECK(is_ok(ask("list")));
		CHECK(stat(path, &st) == 0 && (st.st_mode & 07777) == 0600);
		CHECK_EQ(xp_control_stop(), 0);
	}
	/* As earlier versions left it. */
	*strrchr(path, '/') = '\0';
	CHECK_EQ(chmod(path, 0), 0);
	CHECK_EQ(xp_control_start(NULL), 0);
	CHECK_EQ(xp_control_stop(), 0);
	CHECK_EQ(rmdir(path), 0);
}

XP_TEST(masks_that_take_all_away)
{
	xp_child(masked);
}

static void killed_by_id(void)
{
	REQUIRE_EQ(xp_control_start(NULL), 0);
	raise(SIGKILL);
}

static void stale_ones_go(void)
{
	char file[160], *end;
	struct stat st;

	REQUIRE_EQ(xp_control_start(NULL), 0);
	CHECK_EQ(xp_control_path(path, sizeof(path)), 0);
	end = strrchr(path, '/') + 1;
	for (int i = 0; i < 10; i++)
		CHECK_EQ(xp_child_status(killed_by_id), SIGKILL);
	*end = '\0';
	/* Of another namespace, and no socket. */
	snprintf(file, sizeof(file), "%s999999999-12", path);
	close(open(file, O_CREAT | O_WRONLY, 0600));
	CHECK_EQ(xp_control_stop(), 0);
	REQUIRE_EQ(xp_control_start(NULL), 0);
	CHECK_EQ(stat(file, &st), 0);
	unlink(file);
	DIR *dir = opendir(path);
	struct dirent *entry;
	while ((entry = readdir(dir)))
		if (atoi(entry->d_name) > 0 && kill(atoi(entry->d_name), 0))
			CHECK(strstr(entry->d_name, "left") != NULL);
	closedir(dir);
	CHECK_EQ(xp_control_stop(), 0);
}

XP_TEST(sockets_of_the_killed_go)
{
	xp_child(stale_ones_go);
}

/* ---- what the system refuses ---- */

static long thread_ms(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec * 1000 + usage.ru_utime.tv_usec / 1000 + usage.ru_stime.tv_sec * 1000 +
	       usage.ru_stime.tv_usec / 1000;
}

/* The service ends, says why, and takes little time for it; commits go on meanwhile. */
static void check_ends(int why)
{
	long before;
	struct stat st;
	int fd;

	REQUIRE_EQ(xp_control_start(path), 0);
	before = thread_ms();
	fd = connect_to(path);
	for (int i = 0; i < 10000 && xp_control_path(answer, sizeof(answer)) == 0; i++) {
		CHECK_EQ(xp_static_branch_enable(&tracing), 0);
		CHECK_EQ(xp_static_branch_disable(&tracing), 0);
		usleep(10000);
	}
	CHECK(thread_ms() - before < 1000);
	CHECK_EQ(xp_control_path(answer, sizeof(answer)), why);
	CHECK_EQ(stat(path, &st), -1);
	close(fd);
	CHECK_EQ(sockets(), 0);
	CHECK_EQ(xp_control_stop(), 0);
}

static void no_accept(void)
{
	REQUIRE(xp_child_filter(SYS_accept4, SECCOMP_RET_ERRNO | EACCES, 0));
	check_ends(-EACCES);
}

static void no_poll(void)
{
	REQUIRE(xp_child_filter(SYS_ppoll, SECCOMP_RET_ERRNO | ENOSYS, 0));
	REQUIRE(xp_child_filter(SYS_poll, SECCOMP_RET_ERRNO | EPERM, 0));
	check_ends(-EPERM);
}

static void poll_alone(void)
{
	REQUIRE(xp_child_filter(SYS_ppoll, SECCOMP_RET_ERRNO | ENOSYS, 0));
	REQUIRE_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
}

XP_TEST(calls_that_are_refused)
{
	in_a_place(no_accept);
	in_a_place(no_poll);
	in_a_place(poll_alone);
}

/* Shortages pass. */
static void no_descriptors(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct rlimit before, none;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	REQUIRE_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = (struct rlimit){0, before.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	long spent = thread_ms();
	usleep(2500000);
	CHECK(thread_ms() - spent < 500);
	CHECK_EQ(xp_static_branch_enable(&tracing), 0);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
	close(fd);
	CHECK(is_ok(ask("list")));
}

/* That of a silent peer is there for the next one. With so many as a limit the thread still can poll. */
static void no_more_descriptors(rlim_t most, int nr_silent)
{
	int next = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), silent[2];
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct rlimit before, less;

	strcpy(address.sun_path, path);
	REQUIRE_EQ(xp_control_start(path), 0);
	for (int i = 0; i < nr_silent; i++)
		silent[i] = connect_to(path);
	CHECK(is_ok(ask("list"))); /* the silent ones have been let in, too */
	CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
	less = (struct rlimit){most, before.rlim_max};
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &less), 0);
	CHECK_EQ(connect(next, (struct sockaddr *)&address, sizeof(address)), 0);
	for (int i = 0; i < nr_silent; i++)
		CHECK_EQ(code_of(receive(silent[i])), -EBUSY);
	CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
	CHECK(is_ok(ask("list")));
	close(next);
}

static void no_descriptor_to_accept(void)
{
	no_more_descriptors(3, 1); /* the listener, the bell, the peer */
}

static void no_descriptors_to_poll(void)
{
	no_more_descriptors(0, 2);
}

XP_TEST(descriptors_run_out)
{
	in_a_place(no_descriptors);
	in_a_place(no_descriptor_to_accept);
	in_a_place(no_descriptors_to_poll);
}

/* The program shuts down what it does not know: both ends of the bell, the listener. */
static void shut_down(void)
{
	DIR *fds;
	struct dirent *entry;

	REQUIRE_EQ(xp_control_start(path), 0);
	CHECK(is_ok(ask("list")));
	fds = opendir("/proc/self/fd");
	while ((entry = readdir(fds)))
		if (atoi(entry->d_name) > 2 && atoi(entry->d_name) != dirfd(fds))
			shutdown(atoi(entry->d_name), SHUT_RDWR);
	closedir(fds);
	for (int i = 0; i < 1000 && !is_ok(ask("list")); i++)
		usleep(1000);
	CHECK(is_ok(ask("list")));
	/* Its end that is written to: highest of the pipe. */
	for (int fd = 8191; fd > 2; fd--) {
		char link[64] = "", file[32];

		snprintf(file, sizeof(file), "/proc/self/fd/%d", fd);
		if (readlink(file, link, sizeof(link) - 1) > 0 && says(link, "pipe:") &&
		    (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY && fcntl(fd, F_GETFL) & O_NONBLOCK)
			close(fd);
	}
	long spent = thread_ms();
	usleep(300000);
	CHECK(thread_ms() - spent < 100);
	CHECK(is_ok(ask("list")));
}

XP_TEST(shut_down_by_the_program)
{
	in_a_place(shut_down);
}

/* ---- asked for by the environment ---- */

XP_CHILD_PROGRAM(is_served)
{
	REQUIRE_EQ(xp_control_path(path, sizeof(path)), 0);
	CHECK_STR(path, getenv("CROSSPATCH_CONTROL"));
	CHECK(is_ok(ask("set tracing on")));
	CHECK_EQ(state(), 3);
	CHECK_EQ(xp_control_start(path), -EALREADY);
}

static void want_control(void)
{
	setenv("CROSSPATCH_CONTROL", path, 1);
}

XP_TEST(from_the_environment)
{
	struct stat st;

	REQUIRE(make_place());
	xp_child_program("is_served", want_control);
	CHECK_EQ(stat(path, &st), -1); /* it went with the process */
	remove_place();
}

XP_CHILD_MAIN()
