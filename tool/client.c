// SPDX-License-Identifier: MIT
#include "client.h"

#include "json.h"
#include "text.h"
#include "tool.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* What one answer may be. A line of it is an object. */
enum {
	ANSWER_MAX = 64 << 20,
	LINES_MAX = 1 << 20,
	FIELDS_MAX = 64,
	PATIENCE_MS = 20000, /* a process may be in a commit, or in a debugger */
	LIFE_S = 60,         /* of the whole command */
};

int client_parse(struct client_arguments *arguments, int argc, char **argv, int most)
{
	memset(arguments, 0, sizeof(*arguments));
	arguments->command = argv[0];
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			arguments->json = true;
		else if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
			arguments->help = true;
		else if (strncmp(argv[i], "--", 2) == 0)
			return text_say(argv[0], TOOL_USAGE, "%s: no such option; --help lists them", argv[i]);
		else if (arguments->nr == most)
			return text_say(argv[0], TOOL_USAGE, "\"%s\" is one word too many; see --help", argv[i]);
		else
			arguments->words[arguments->nr++] = argv[i];
	}
	return TOOL_OK;
}

/* Says why there is no answer, with --json on standard output too. @error: -errno, or 0. */
static int fail(const struct client *client, int status, int error, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
static int fail(const struct client *client, int status, int error, const char *format, ...)
{
	char why[4096];
	va_list list;

	va_start(list, format);
	vsnprintf(why, sizeof(why), format, list);
	va_end(list);
	if (client->json) {
		printf("{\"pid\": ");
		if (client->pid)
			printf("%d", client->pid);
		else
			json_string(stdout, NULL);
		printf(", \"error\": {\"code\": %d, \"text\": ", error);
		json_string(stdout, why);
		puts("}}");
		fflush(stdout);
	}
	return text_say(client->command, status, "%s", why);
}

/* ---- no wait without an end ---- */

/* A file system of the process' own may hold a system call for as long as it likes; only the end of this process ends that. */
static void *watch(void *command)
{
	struct timespec left = {LIFE_S, 0};

	while (nanosleep(&left, &left))
		;
	_exit(text_say(command, TOOL_UNKNOWN,
		       "gave up after %d seconds: the process, or a file system of its, is stuck", LIFE_S));
}

static void start_watch(const char *command)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, watch, (void *)(uintptr_t)command) == 0)
		pthread_detach(thread);
}

/* ---- where the socket is ---- */

/* The line of /proc/PID/status that begins with @name; without that. */
static bool status_line(int pid, const char *name, char *line, size_t size)
{
	char path[64];
	FILE *file;
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "re");
	while (file && !found && fgets(line, (int)size, file)) {
		size_t len = strlen(name);

		found = strncmp(line, name, len) == 0 && line[len] == ':';
		if (found)
			memmove(line, line + len + 1, strlen(line + len + 1) + 1);
	}
	if (file)
		fclose(file);
	return found;
}

static bool has_ended(int id)
{
	char state[64] = "";
	const char *at = state + (status_line(id, "State", state, sizeof(state)) ? strspn(state, "\t ") : 0);

	return *at == 'Z' || *at == 'X';
}

int client_thread(int pid)
{
	int found = pid;
	struct dirent *entry;
	char path[64];
	DIR *tasks;

	if (!has_ended(pid))
		return pid;
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	while (tasks && found == pid && (entry = readdir(tasks))) {
		int thread = atoi(entry->d_name);

		if (thread > 0 && thread != pid && !has_ended(thread))
			found = thread;
	}
	if (tasks)
		closedir(tasks);
	return found;
}

/* What @user, as seen from here, is called in the process' own user namespace. */
static unsigned long user_inside(int pid, unsigned long user)
{
	unsigned long inside, outside, nr, found = user;
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	file = fopen(path, "re");
	while (file && fscanf(file, "%lu %lu %lu", &inside, &outside, &nr) == 3)
		if (user - outside < nr)
			found = user - outside + inside;
	if (file)
		fclose(file);
	return found;
}

/* The number of the process' namespace @name, 0 if it may not be known. */
static unsigned long namespace_of(int pid, const char *name)
{
	unsigned long number = 0;
	char path[64], link[64];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/%d/ns/%s", pid, name);
	len = readlink(path, link, sizeof(link) - 1);
	link[len > 0 ? len : 0] = '\0';
	if (sscanf(link, "%*[a-z_]:[%lu]", &number) != 1)
		return 0;
	return number;
}

struct attempt {
	struct client *client;
	int pid, error; /* the most telling one */
	int thread;     /* that lives: what /proc says of the process it says of this one */
	int root;       /* where its paths begin */
	const char *root_name;
	unsigned long user, users, processes; /* a user, and the numbers of its namespaces */
	unsigned long own_id;                 /* in its own namespace */
};

/* Connects to the socket @fd, a descriptor that says where it is; errno if not. Root asks as the socket's owner: in a user
 * namespace of its own a process does not know the root of this one. */
static bool connect_at(struct client *client, int fd, const struct sockaddr_un *address)
{
	struct timeval patience = {PATIENCE_MS / 1000, 0};
	struct ucred who = {0, 0, 0};
	socklen_t len = sizeof(who);
	bool as_owner = false;
	struct stat st;
	int error;

	if (fstat(fd, &st))
		return false;
	if (!S_ISSOCK(st.st_mode)) {
		errno = ENOTSOCK;
		return false;
	}
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd < 0)
		return false;
	setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (geteuid() == 0 && st.st_uid != 0)
		as_owner = seteuid(st.st_uid) == 0;
	error = connect(client->fd, (const struct sockaddr *)address, sizeof(*address)) ||
				getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &who, &len)
			? errno
			: 0;
	if (as_owner && seteuid(0))
		error = errno;
	if (error) {
		close(client->fd);
		client->fd = -1;
		errno = error;
		return false;
	}
	client->pid = who.pid;
	return true;
}

/* The path @name, which follows links as the process would: those of its own do not lead out of its root. */
static int open_inside(int root, const char *name)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
	int fd = (int)syscall(SYS_openat2, root, name, &how, sizeof(how));

	return fd < 0 && errno == ENOSYS ? openat(root, name, O_PATH | O_CLOEXEC | O_NOFOLLOW) : fd;
}

static bool try_name(struct attempt *attempt, const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct client *client = attempt->client;
	int fd = open_inside(attempt->root, name);
	bool connected = false;

	if (fd >= 0) {
		snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", fd);
		connected = connect_at(client, fd, &address);
	}
	if (!connected && errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG)
		attempt->error = errno;
	if (fd >= 0)
		close(fd);
	if (!connected)
		return false;
	/* Another process may serve there. */
	if (client->pid == attempt->pid) {
		snprintf(client->path, sizeof(client->path), "%s/%s", attempt->root_name, name);
		return true;
	}
	close(client->fd);
	client->fd = -1;
	return false;
}

/* The names that a process of attempt->user may have taken: see directories[] in src/port/linux/control_socket.c. */
static bool try_user(struct attempt *attempt)
{
	static const char *const directories[] = {"run/crosspatch",         "run/user/%lu/crosspatch",
						  "tmp/crosspatch-%lu",     "dev/shm/crosspatch-%lu",
						  "tmp/crosspatch-%lu-%lu", "dev/shm/crosspatch-%lu-%lu"};
	char directory[128], name[256];

	for (size_t i = attempt->user ? 1 : 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(directory, sizeof(directory), directories[i], attempt->user, attempt->users);
#pragma GCC diagnostic pop
		snprintf(name, sizeof(name), "%s/%lu", directory, attempt->own_id);
		if (try_name(attempt, name))
			return true;
		snprintf(name, sizeof(name), "%s/%lu-%lu", directory, attempt->own_id, attempt->processes);
		if (attempt->processes && try_name(attempt, name))
			return true;
	}
	return false;
}

/* A process may have begun to serve as another user than it is now: as root, or as one of those that it can still become. */
static bool try_users(struct attempt *attempt)
{
	unsigned long users[4] = {0, 0, 0, 0};
	char line[256];

	if (!status_line(attempt->pid, "Uid", line, sizeof(line)) ||
	    sscanf(line, "%lu %lu %lu", &users[1], &users[0], &users[2]) != 3)
		return false;
	for (int i = 0; i < 3; i++)
		users[i] = user_inside(attempt->thread, users[i]);
	/* Its id in its own namespace is the last. */
	if (!status_line(attempt->pid, "NSpid", line, sizeof(line)))
		snprintf(line, sizeof(line), "\t%d", attempt->pid);
	attempt->own_id = strtoul(strrchr(line, '\t') ? strrchr(line, '\t') + 1 : line, NULL, 10);
	attempt->users = namespace_of(attempt->thread, "user");
	attempt->processes = namespace_of(attempt->thread, "pid");
	for (int i = 0; i < 4; i++) {
		bool tried = false;

		for (int j = 0; j < i; j++)
			tried |= users[j] == users[i];
		attempt->user = users[i];
		if (!tried && try_user(attempt))
			return true;
	}
	return false;
}

/* In the file system of the process, and in this one. */
static bool try_roots(struct attempt *attempt)
{
	char path[64];
	bool found = false;

	snprintf(path, sizeof(path), "/proc/%d/root", attempt->thread);
	for (int here = 0; here < 2 && !found; here++) {
		attempt->root_name = here ? "" : path;
		attempt->root = open(here ? "/" : path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (attempt->root < 0) {
			attempt->error = errno;
			continue;
		}
		found = try_users(attempt);
		close(attempt->root);
	}
	return found;
}

static int open_process(struct client *client, const char *target)
{
	struct attempt attempt = {.client = client};
	char *end, state[64] = "";
	long pid;

	errno = 0;
	pid = strtol(target, &end, 10);
	if (errno || pid <= 0 || pid > INT_MAX)
		return text_say(client->command, TOOL_USAGE, "\"%s\" is no process id", target);
	attempt.pid = (int)pid;
	attempt.thread = client_thread((int)pid);
	if (try_roots(&attempt))
		return TOOL_OK;
	client->pid = (int)pid;
	if (!status_line((int)pid, "State", state, sizeof(state)))
		return fail(client, TOOL_UNKNOWN, -ESRCH, "there is no process %ld", pid);
	if (has_ended(attempt.thread))
		return fail(client, TOOL_UNKNOWN, -ESRCH, "process %ld has ended; its parent has not taken notice yet",
			    pid);
	if (attempt.error == EACCES || attempt.error == EPERM)
		return fail(client, TOOL_REFUSED, -attempt.error, "process %ld: only its own user and root may ask",
			    pid);
	if (attempt.error == EAGAIN)
		return fail(client, TOOL_UNKNOWN, -EAGAIN,
			    "process %ld does not take connections: it is stopped, or too many wait", pid);
	return fail(client, TOOL_UNKNOWN, attempt.error ? -attempt.error : -ENOENT,
		    "process %ld serves no control socket%s%s; it has to call xp_control_start() or be started with "
		    "CROSSPATCH_CONTROL=auto",
		    pid, attempt.error ? ": " : "",
		    attempt.error == ECONNREFUSED ? "no process listens there any more"
		    : attempt.error               ? strerror(attempt.error)
						  : "");
}

static int open_path(struct client *client, const char *target)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = open(target, O_PATH | O_CLOEXEC), error = 0;

	snprintf(client->path, sizeof(client->path), "%s", target);
	/* A path that is too long for an address goes by its descriptor. */
	if (strlen(target) < sizeof(address.sun_path))
		strcpy(address.sun_path, target);
	else
		snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", fd);
	if (fd < 0 || !connect_at(client, fd, &address))
		error = errno;
	if (fd >= 0)
		close(fd);
	if (error == 0)
		return TOOL_OK;
	if (error == EACCES || error == EPERM)
		return fail(client, TOOL_REFUSED, -error, "%s: only the process' own user and root may ask", target);
	return fail(client, TOOL_UNKNOWN, -error, "%s: %s", target,
		    error == ECONNREFUSED ? "no process listens there any more"
		    : error == ENOTSOCK   ? "is no socket"
		    : error == EAGAIN     ? "does not take connections: the process is stopped, or too many wait"
					  : strerror(error));
}

int client_open(struct client *client, const char *command, const char *target, bool json)
{
	memset(client, 0, sizeof(*client));
	client->command = command;
	client->json = json;
	client->fd = -1;
	if (strchr(target, '/') == NULL && (target[0] == '\0' || target[strspn(target, "0123456789")]))
		return text_say(command, TOOL_USAGE, "\"%s\" is neither a process id nor the path of a socket", target);
	start_watch(command);
	return strchr(target, '/') ? open_path(client, target) : open_process(client, target);
}

void client_close(struct client *client)
{
	if (client->fd >= 0)
		close(client->fd);
	client->fd = -1;
	free(client->answer);
	free(client->lines);
	client->answer = NULL;
	client->lines = NULL;
}

/* ---- the answer ---- */

static long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * All that comes until the other end hangs up, which it may do with the request unread. Ended by a zero; NULL and errno:
 * EFBIG if there is no end of it.
 */
static char *receive(int fd)
{
	long deadline = now_ms() + PATIENCE_MS;
	size_t len = 0, room = 0;
	char *all = NULL;

	for (;;) {
		struct pollfd ready = {fd, POLLIN, 0};
		long left = deadline - now_ms();
		ssize_t got;

		if (len + 1 >= room) {
			char *more = len < ANSWER_MAX ? realloc(all, room = room ? 2 * room : 65536) : NULL;

			errno = len < ANSWER_MAX ? ENOMEM : EFBIG;
			if (more == NULL)
				break;
			all = more;
		}
		errno = ETIMEDOUT;
		if (left <= 0 || poll(&ready, 1, (int)left) == 0)
			break;
		got = recv(fd, all + len, room - len - 1, MSG_DONTWAIT);
		if (got < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (got < 0 && (errno != ECONNRESET || len == 0))
			break;
		if (got <= 0) {
			all[len] = '\0';
			return all;
		}
		len += (size_t)got;
	}
	free(all);
	return NULL;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* In place. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (*text != '\\' || text[1] == '\0') {
			*to++ = *text;
			continue;
		}
		text++;
		if (*text == 't') {
			*to++ = '\t';
		} else if (*text == 'x' && hex_digit(text[1]) >= 0 && hex_digit(text[2]) >= 0) {
			*to++ = (char)(hex_digit(text[1]) * 16 + hex_digit(text[2]));
			text += 2;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}

/* Lines become strings of fields, each ended by a zero, with an empty one behind the last. 0 or an errno. */
static int take_apart(struct client *client)
{
	size_t nr = 0, fields = 0;

	for (const char *c = client->answer; *c; c++) {
		nr += *c == '\n';
		fields = *c == '\n' ? 0 : fields + (*c == '\t');
		if (nr > LINES_MAX || fields >= FIELDS_MAX)
			return EFBIG;
	}
	/* An empty field behind each line: there is its end of line's zero, and one more that is needed. */
	client->lines = calloc(nr + 1, sizeof(*client->lines));
	char *spread = malloc(strlen(client->answer) + nr + 1), *to = spread;

	if (client->lines == NULL || spread == NULL) {
		free(spread);
		return ENOMEM;
	}
	for (char *line = client->answer, *end; (end = strchr(line, '\n')); line = end + 1) {
		*end = '\0';
		client->lines[client->nr_lines++] = to;
		for (char *field = line; field;) {
			char *tab = strchr(field, '\t');

			if (tab)
				*tab = '\0';
			unescape(field);
			to = stpcpy(to, field) + 1;
			field = tab ? tab + 1 : NULL;
		}
		*to++ = '\0';
	}
	free(client->answer);
	client->answer = spread;
	return 0;
}

bool client_is(const char *line, const char *what)
{
	return strcmp(line, what) == 0;
}

const char *client_field(const char *line, const char *name)
{
	size_t len = strlen(name);

	for (const char *field = line + strlen(line) + 1; *field; field += strlen(field) + 1)
		if (strncmp(field, name, len) == 0 && field[len] == '=')
			return field + len + 1;
	return NULL;
}

int client_number(const char *text)
{
	long value = strtol(text, NULL, 10);

	return value > INT_MAX ? INT_MAX : value < -INT_MAX ? -INT_MAX : (int)value;
}

/* The answer's first line says why. */
static int refused(const struct client *client)
{
	const char *code = client_field(client->lines[0], "code"), *text = client_field(client->lines[0], "text");
	int error = code ? client_number(code) : -EPROTO;

	if (client->json) {
		printf("{\"pid\": %d, \"error\": {\"code\": %d, \"text\": ", client->pid, error);
		json_string(stdout, text);
		puts("}}");
		fflush(stdout);
	}
	return text_say(client->command, TOOL_REFUSED, "process %d: %s (%d)", client->pid,
			text ? text : strerror(error < 0 ? -error : error), error);
}

int client_ask(struct client *client, const char *request)
{
	size_t len = strlen(request);
	int error;

	/* A process that refuses does not wait for the request: its answer is there nevertheless. */
	if (send(client->fd, request, len, MSG_NOSIGNAL) != (ssize_t)len && errno != EPIPE && errno != ECONNRESET)
		return fail(client, TOOL_UNKNOWN, -errno, "%s: %s", client->path, strerror(errno));
	client->answer = receive(client->fd);
	error = client->answer ? 0 : errno;
	if (!error && strncmp(client->answer, "crosspatch 1 ", 13) != 0)
		return fail(client, TOOL_UNKNOWN, -EPROTO,
			    client->answer[0] ? "%s: what answers there is no process of crosspatch's version 1"
					      : "%s: the process hung up without an answer",
			    client->path);
	if (!error)
		error = take_apart(client);
	if (error == EFBIG)
		return fail(
			client, TOOL_UNKNOWN, -EFBIG,
			"the answer of process %d is none of crosspatch's: it has more than %d MiB, %d lines, or %d fields "
			"in a line",
			client->pid, ANSWER_MAX >> 20, LINES_MAX, FIELDS_MAX);
	if (error)
		return fail(client, TOOL_UNKNOWN, -error, "process %d does not answer: %s", client->pid,
			    strerror(error));
	if (client->nr_lines < 2 || !client_is(client->lines[client->nr_lines - 1], "end"))
		return fail(client, TOOL_UNKNOWN, -EPROTO, "the answer of process %d broke off", client->pid);
	if (client_is(client->lines[0], "crosspatch 1 ok"))
		return TOOL_OK;
	return refused(client);
}

static void member(const char *line, const char *name, bool number)
{
	printf(", \"%s\": ", name);
	(number ? json_number : json_string)(stdout, client_field(line, name));
}

void client_print_object(const char *line)
{
	printf("\"kind\": ");
	json_string(stdout, client_field(line, "kind"));
	member(line, "name", false);
	member(line, "file", false);
	member(line, "line", true);
	member(line, "state", false);
	member(line, "sites", true);
	for (size_t i = 0; i < 7; i++) {
		static const char *const some[] = {"drifted", "count", "choices", "size", "least", "most", "type"};

		if (client_field(line, some[i]))
			member(line, some[i], i < 6);
	}
	member(line, "address", false);
}
