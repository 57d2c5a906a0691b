// SPDX-License-Identifier: MIT
/* The tool trusts no peer: what a peer says, how much, how slowly; and what lies where it writes. */
#include "xp_child.h"

#include "../../tool/json.h"
#include "../../tool/replace.h"
#include "../../tool/text.h"
#include "../../tool/tool.h"

#include <crosspatch/linux.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static char directory[] = "/tmp/crosspatch-test-XXXXXX", path[256];

static bool make_place(void)
{
	strcpy(directory + strlen(directory) - 6, "XXXXXX");
	if (mkdtemp(directory) == NULL)
		return false;
	snprintf(path, sizeof(path), "%s/socket", directory);
	return true;
}

static const char *at(const char *name)
{
	static char file[sizeof(directory) + 64];

	snprintf(file, sizeof(file), "%s/%s", directory, name);
	return file;
}

static void remove_place(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf '%s'", directory);
	CHECK_EQ(system(command), 0);
}

/* ---- a command of the tool, in a process of its own ---- */

static char said[1 << 20], complained[8192]; /* on its standard output, and on the other */
static struct rusage used;

static size_t drain(int fd, char *to, size_t size)
{
	size_t len = 0;
	ssize_t got;

	lseek(fd, 0, SEEK_SET);
	while (len < size - 1 && (got = read(fd, to + len, size - 1 - len)) > 0)
		len += (size_t)got;
	to[len] = '\0';
	close(fd);
	return len;
}

static int run(int (*command)(int argc, char **argv), const char *name, const char *first, const char *second)
{
	char *argv[] = {(char *)(uintptr_t)name, (char *)(uintptr_t)first, (char *)(uintptr_t)second, NULL};
	int out = memfd_create("out", 0), err = memfd_create("err", 0), status = -1;
	pid_t child;

	fflush(stdout);
	child = fork();
	if (child == 0) {
		alarm(XP_CHILD_SECONDS);
		dup2(out, STDOUT_FILENO);
		dup2(err, STDERR_FILENO);
		status = command(second ? 3 : 2, argv);
		fflush(stdout);
		_exit(status);
	}
	wait4(child, &status, 0, &used);
	drain(out, said, sizeof(said));
	drain(err, complained, sizeof(complained));
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Terminals obey other bytes than these. */
static bool only_shows(const char *text)
{
	for (; *text; text++)
		if (*text != '\n' && (*text < ' ' || *text > '~'))
			return false;
	return true;
}

/* ---- a peer that says what it likes ---- */

struct speech {
	const char *text; /* said once, in the beginning */
	const char *more; /* said again and again, up to @times */
	size_t times;
	bool at_once; /* before anything was asked, and then it hangs up */
};

static pid_t peer;

static void speak(int fd, const struct speech *speech)
{
	char request[4096], block[65536];
	size_t len = speech->more ? strlen(speech->more) : 1, in_block = len ? sizeof(block) / len : 0;

	if (!speech->at_once)
		(void)recv(fd, request, sizeof(request), 0);
	(void)send(fd, speech->text, strlen(speech->text), MSG_NOSIGNAL);
	for (size_t i = 0; speech->more && i < in_block; i++)
		memcpy(block + i * len, speech->more, len);
	for (size_t i = 0; speech->more && i < speech->times; i += in_block)
		if (send(fd, block, in_block * len, MSG_NOSIGNAL) < 0)
			break;
	close(fd);
}

static void start_peer(const struct speech *speech)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	REQUIRE(make_place());
	memcpy(address.sun_path, path, strlen(path) + 1);
	REQUIRE_EQ(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	REQUIRE_EQ(listen(fd, 4), 0);
	fflush(stdout);
	peer = fork();
	while (peer == 0)
		speak(accept(fd, NULL, NULL), speech);
	close(fd);
}

static void end_peer(void)
{
	kill(peer, SIGKILL);
	waitpid(peer, NULL, 0);
	remove_place();
}

/* ---- texts ---- */

static const struct {
	const char *text, *shown, *json;
} texts[] = {
	{"plain", "plain", "\"plain\""},
	{"a\"b\\c", "a\"b\\c", "\"a\\\"b\\\\c\""},
	{"\033[2J\a", "\\x1b[2J\\x07", "\"\\u001b[2J\\u0007\""},
	{"a\nb\rc\td\177", "a\\x0ab\\x0dc\\x09d\\x7f", "\"a\\u000ab\\u000dc\\u0009d\\u007f\""},
	{"\302\233"
	 "31m",
	 "\\xc2\\x9b31m", "\"\\u009b31m\""}, /* C1, as UTF-8 */
	{"\233"
	 "31m",
	 "\\x9b31m", "\"\\ufffd31m\""},                        /* and as a byte */
	{"\342\200\256x", "\\xe2\\x80\\xaex", "\"\\u202ex\""}, /* right to left */
	{"\342\201\246x", "\\xe2\\x81\\xa6x", "\"\\u2066x\""}, /* isolated */
	{"\300\233\340\200\233", "\\xc0\\x9b\\xe0\\x80\\x9b", "\"\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* overlong */
	{"\355\240\200", "\\xed\\xa0\\x80", "\"\\ufffd\\ufffd\\ufffd\""},                 /* a surrogate */
	{"\364\220\200\200", "\\xf4\\x90\\x80\\x80", "\"\\ufffd\\ufffd\\ufffd\\ufffd\""}, /* beyond the last */
	{"\342\202", "\\xe2\\x82", "\"\\ufffd\\ufffd\""},                                 /* cut off */
	{"\360\237\230\200", "\360\237\230\200", "\"\\ud83d\\ude00\""},
	{"gr\303\274n", "gr\303\274n", "\"gr\\u00fcn\""},
};

static char *printed_to;
static size_t printed_size;

static FILE *open_print(void)
{
	return open_memstream(&printed_to, &printed_size);
}

static void texts_are_shown(const char *locale, bool utf8)
{
	setenv("LC_ALL", locale, 1);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		FILE *file = open_print();
		size_t columns = text_put(file, texts[i].text);

		fclose(file);
		if (utf8)
			CHECK_STR(printed_to, texts[i].shown);
		else
			CHECK(only_shows(printed_to));
		CHECK_EQ(columns, text_columns(texts[i].text));
		free(printed_to);
		file = open_print();
		json_string(file, texts[i].text);
		fclose(file);
		CHECK_STR(printed_to, texts[i].json);
		free(printed_to);
	}
}

static void texts_in_utf8(void)
{
	texts_are_shown("C.UTF-8", true);
}

static void texts_in_c(void)
{
	texts_are_shown("C", false);
}

XP_TEST(texts_only_show)
{
	xp_child(texts_in_c);
	xp_child(texts_in_utf8);
}

static void check_number(const char *text, const char *json)
{
	FILE *file = open_print();

	json_number(file, text);
	fclose(file);
	CHECK_STR(printed_to, json);
	free(printed_to);
}

XP_TEST(numbers_are_numbers)
{
	check_number("0", "0");
	check_number("18446744073709551615", "18446744073709551615");
	check_number("-5", "-5");
	check_number("-", "\"-\"");
	check_number("007", "\"007\"");
	check_number("184467440737095516150", "\"184467440737095516150\"");
	check_number("1e9", "\"1e9\"");
	check_number("", "\"\"");
	check_number(NULL, "null");
}

/* ---- peers ---- */

static const struct speech evil = {
	.text = "crosspatch 1 ok\n"
		"object\tkind=key\\x1b[2J\tstate=on\tsites=1\taddress=0x1\tline=007\tfile=a\\x0abc\302\233c\tname=\033]0;x\007\n"
		"object\tkind=key\tstate=o\377n\tsites=1\taddress=0x1\tline=99999999999999999999\tfile=b\tname=\342\200\256evil\n"
		"end\n"};

XP_TEST(what_peers_say_is_only_shown)
{
	start_peer(&evil);
	setenv("LC_ALL", "C", 1);
	CHECK_EQ(run(cmd_list, "list", path, NULL), 0);
	CHECK(only_shows(said) && strstr(said, "\\x1b]0;x\\x07") && strstr(said, "key\\x1b[2J"));
	CHECK_EQ(run(cmd_list, "list", "--json", path), 0);
	CHECK(only_shows(said));
	CHECK(strstr(said, "\"line\": \"007\"") && strstr(said, "\"state\": \"o\\ufffdn\""));
	setenv("LC_ALL", "C.UTF-8", 1);
	CHECK_EQ(run(cmd_list, "list", path, NULL), 0);
	CHECK(only_shows(said));
	unsetenv("LC_ALL");
	end_peer();
}

static const struct speech refusal = {
	.text = "crosspatch 1 error\tcode=-99999999999\ttext=no\033[2J\\x0aroot: password?\nend\n", .at_once = true};

XP_TEST(a_refusal_is_read_though_the_peer_hung_up)
{
	start_peer(&refusal);
	/* It hangs up before the request comes, or after: by chance. */
	for (int i = 0; i < 40; i++) {
		CHECK_EQ(run(cmd_list, "list", path, NULL), 1);
		CHECK(only_shows(complained) && strstr(complained, "no\\x1b[2J\\x0aroot"));
	}
	CHECK_EQ(run(cmd_list, "list", "--json", path), 1);
	CHECK(only_shows(said) && strstr(said, "\"error\": {\"code\": -2147483647, \"text\": \"no\\u001b[2J"));
	end_peer();
}

static void check_bounded(const struct speech *speech)
{
	start_peer(speech);
	CHECK_EQ(run(cmd_list, "list", "--json", path), 3);
	CHECK(strstr(complained, "is none of crosspatch's") != NULL);
	CHECK(strstr(said, "\"error\": {\"code\": -27,") != NULL);
	CHECK(used.ru_maxrss < 300 << 10); /* KiB */
	end_peer();
}

static const struct speech endless = {.text = "crosspatch 1 ok\n", .more = "x", .times = SIZE_MAX};
static const struct speech many_lines = {.text = "crosspatch 1 ok\n", .more = "a\n", .times = 3 << 20};
static const struct speech many_fields = {.text = "crosspatch 1 ok\nobject", .more = "\ta=", .times = 1 << 20};

XP_TEST(answers_have_an_end)
{
	check_bounded(&endless);
	check_bounded(&many_lines);
	check_bounded(&many_fields);
}

static const struct speech wide = {
	.text = "crosspatch 1 ok\nobject\tkind=key\tname=a\tstate=on\nobject\tkind=key\tname=",
	.more = "x",
	.times = 1 << 17};

/* What is wide makes nothing else so. */
static const struct speech broken_off = {.text = "crosspatch 1 ok\nobject\tkind=key\n"};
static const struct speech other = {.text = "SSH-2.0-OpenSSH_9.2\r\n"};
static const struct speech silent = {.text = ""};

XP_TEST(answers_of_others)
{
	static const struct {
		const struct speech *speech;
		const char *part;
	} cases[] = {{&broken_off, "broke off"}, {&wide, "broke off"}, {&other, "version 1"}, {&silent, "hung up"}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		start_peer(cases[i].speech);
		CHECK_EQ(run(cmd_list, "list", "--json", path), 3);
		CHECK(strstr(complained, cases[i].part) && only_shows(complained));
		CHECK(strstr(said, "\"error\": {\"code\": -71, \"text\": \"") != NULL);
		end_peer();
	}
}

/* ---- processes that are no peer ---- */

XP_TEST(failures_have_words_and_json)
{
	char pid[16];
	pid_t child;

	REQUIRE(make_place());
	CHECK_EQ(run(cmd_list, "list", "--json", path), 3);
	CHECK(strstr(said, "\"pid\": null, \"error\": {\"code\": -2, \"text\": \"") != NULL);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	CHECK_EQ(run(cmd_list, "list", "--json", path), 3);
	CHECK(strstr(complained, "is no socket") && strstr(said, "\"code\": -88"));
	remove_place();

	child = fork();
	if (child == 0)
		_exit(0);
	waitid(P_PID, (id_t)child, NULL, WEXITED | WNOWAIT);
	snprintf(pid, sizeof(pid), "%d", child);
	CHECK_EQ(run(cmd_list, "list", "--json", pid), 3);
	CHECK(strstr(complained, "has ended") && !strstr(complained, "xp_control_start"));
	waitpid(child, NULL, 0);
	CHECK_EQ(run(cmd_list, "list", "--json", pid), 3);
	CHECK(strstr(complained, "there is no process") && strstr(said, "\"code\": -3, "));
	snprintf(pid, sizeof(pid), "%d", getpid());
	CHECK_EQ(run(cmd_list, "list", "--json", pid), 3);
	CHECK(strstr(complained, "xp_control_start()") && strstr(said, "{\"code\": -2, "));
}

/* ---- namespaces ---- */

struct server {
	pid_t pid;
	int error; /* of the start */
	char path[108];
};

/* A process that @enter()s something and serves there by its id; @forks: its child does. */
static void start_server(struct server *server, bool (*enter)(void), bool forks)
{
	int fds[2];

	memset(server, 0, sizeof(*server));
	server->error = -EPERM;
	REQUIRE_EQ(pipe(fds), 0);
	fflush(stdout);
	server->pid = fork();
	if (server->pid == 0) {
		alarm(XP_CHILD_SECONDS);
		if (!enter())
			_exit(0);
		if (forks && fork())
			pause();
		if (forks)
			CHECK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
			      mount("proc", "/proc", "proc", 0, NULL) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
		server->error = xp_control_start(NULL);
		(void)xp_control_path(server->path, sizeof(server->path));
		CHECK_EQ(write(fds[1], server, sizeof(*server)), sizeof(*server));
		pause();
	}
	close(fds[1]);
	pid_t pid = server->pid;
	(void)!read(fds[0], server, sizeof(*server));
	server->pid = pid;
	close(fds[0]);
}

static void end_server(const struct server *server)
{
	kill(server->pid, SIGKILL);
	waitpid(server->pid, NULL, 0);
}

/* Another user, root in a namespace of its own, and unknown to it the root outside. */
static bool enter_users(void)
{
	static const char map[] = "0 65531 1\n";
	int fd;

	if (setgid(65531) || setuid(65531) || prctl(PR_SET_DUMPABLE, 1) || unshare(CLONE_NEWUSER))
		return false;
	fd = open("/proc/self/uid_map", O_WRONLY);
	return write(fd, map, sizeof(map) - 1) == sizeof(map) - 1 && close(fd) == 0;
}

static bool enter_processes(void)
{
	return unshare(CLONE_NEWPID | CLONE_NEWNS) == 0;
}

XP_TEST(root_asks_into_a_namespace_of_users)
{
	struct server server;
	char pid[16];

	if (geteuid() != 0)
		SKIP("needs root, to be somebody else");
	start_server(&server, enter_users, false);
	snprintf(pid, sizeof(pid), "%d", server.pid);
	if (server.path[0] == '\0')
		SKIP("no namespaces of users");
	CHECK_EQ(run(cmd_list, "list", pid, NULL), 0);
	CHECK(strstr(complained, "crosspatch") == NULL);
	snprintf(path, sizeof(path), "/proc/%s/root/%.80s", pid, server.path);
	CHECK_EQ(run(cmd_list, "list", path, NULL), 0);
	CHECK_EQ(geteuid(), 0);
	end_server(&server);
	unlink(server.path);
}

XP_TEST(two_namespaces_of_processes)
{
	struct server one, two;

	if (geteuid() != 0)
		SKIP("needs root, for namespaces");
	start_server(&one, enter_processes, true);
	start_server(&two, enter_processes, true);
	if (one.path[0] == '\0')
		SKIP("no namespaces of processes");
	CHECK_EQ(one.error, 0);
	CHECK_EQ(two.error, 0);
	CHECK(strcmp(one.path, two.path) != 0 && strchr(strrchr(two.path, '/'), '-'));
	end_server(&one);
	end_server(&two);
}

/* ---- files ---- */

static const char *replace(const char *name, bool keep)
{
	struct replacement new;
	const char *why = replace_begin(&new, at(name), 0640);

	if (why)
		return why;
	CHECK_EQ(write(new.fd, "new", 3), 3);
	return replace_end(&new, keep);
}

static bool contains(const char *name, const char *text)
{
	char is[16];
	int fd = open(at(name), O_RDONLY);

	return fd >= 0 && drain(fd, is, sizeof(is)) == strlen(text) && strcmp(is, text) == 0;
}

static void make_file(const char *name, mode_t mode)
{
	int fd = open(at(name), O_CREAT | O_WRONLY, 0600);

	CHECK_EQ(write(fd, "old", 3), 3);
	CHECK_EQ(fchmod(fd, mode), 0);
	close(fd);
}

static unsigned files(void)
{
	char command[128], count[16] = "";
	FILE *file;

	snprintf(command, sizeof(command), "ls -A '%s' | wc -l", directory);
	file = popen(command, "r");
	CHECK(fgets(count, sizeof(count), file) != NULL);
	pclose(file);
	return (unsigned)atoi(count);
}

XP_TEST(regular_files_are_replaced)
{
	struct stat st;

	REQUIRE(make_place());
	umask(022);
	CHECK(replace("new", true) == NULL && contains("new", "new"));
	CHECK(stat(at("new"), &st) == 0 && (st.st_mode & 07777) == 0640);
	make_file("old", 0601);
	CHECK(replace("old", false) == NULL && contains("old", "old"));
	if (geteuid() == 0)
		CHECK_EQ(chown(at("old"), 12, 34), 0);
	CHECK(replace("old", true) == NULL && contains("old", "new"));
	CHECK(stat(at("old"), &st) == 0 && (st.st_mode & 07777) == 0601);
	if (geteuid() == 0)
		CHECK(st.st_uid == 12 && st.st_gid == 34);
	/* One of two names. */
	make_file("one", 0600);
	char one[128];
	strcpy(one, at("one"));
	CHECK_EQ(link(one, at("two")), 0);
	CHECK(replace("one", true) == NULL && contains("one", "new") && contains("two", "old"));
	CHECK_EQ(files(), 4);
	remove_place();
}

XP_TEST(nothing_else_is_replaced)
{
	char target[128];
	struct stat st;

	REQUIRE(make_place());
	make_file("target", 0600);
	strcpy(target, at("target"));
	CHECK(symlink(target, at("link")) == 0 && symlink("nowhere", at("dangling")) == 0);
	CHECK(mkfifo(at("pipe"), 0600) == 0 && mkdir(at("directory"), 0700) == 0);
	CHECK(strstr(replace("link", true), "symbolic link") && contains("target", "old"));
	CHECK(strstr(replace("dangling", true), "symbolic link") != NULL);
	CHECK(strstr(replace("pipe", true), "no regular file") != NULL);
	CHECK(strstr(replace("directory", true), "no regular file") != NULL);
	CHECK(replace("directory/", true) != NULL && replace("nowhere/file", true) != NULL);
	CHECK(lstat(at("link"), &st) == 0 && S_ISLNK(st.st_mode));
	CHECK(lstat(at("pipe"), &st) == 0 && S_ISFIFO(st.st_mode));
	if (geteuid() == 0 && mknod(at("null"), S_IFCHR | 0666, 0x103) == 0) {
		CHECK(strstr(replace("null", true), "no regular file") != NULL);
		CHECK(lstat(at("null"), &st) == 0 && S_ISCHR(st.st_mode));
		unlink(at("null"));
	}
	CHECK_EQ(files(), 5);
	remove_place();
}

/* What came there between the two looks. */
XP_TEST(a_link_that_comes_meanwhile)
{
	struct replacement new;
	struct stat st;

	REQUIRE(make_place());
	make_file("target", 0600);
	REQUIRE(replace_begin(&new, at("file"), 0600) == NULL);
	CHECK_EQ(symlink("target", at("file")), 0);
	CHECK(strstr(replace_end(&new, true), "symbolic link") && contains("target", "old"));
	CHECK(lstat(at("file"), &st) == 0 && S_ISLNK(st.st_mode));
	CHECK_EQ(files(), 2);
	remove_place();
}

XP_CHILD_MAIN()
