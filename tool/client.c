// SPDX-License-Identifier: MIT
#include "client.h"

#include "json.h"
#include "tool.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* A process may be in a commit, or in a debugger. */
enum { PATIENCE_MS = 20000 };

static int say(const char *command, int status, const char *format, ...) __attribute__((format(printf, 3, 4)));
static int say(const char *command, int status, const char *format, ...)
{
	va_list list;

	fprintf(stderr, "crosspatch %s: ", command);
	va_start(list, format);
	vfprintf(stderr, format, list);
	va_end(list);
	putc('\n', stderr);
	return status;
}

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
			return say(argv[0], TOOL_USAGE, "%s: no such option; --help lists them", argv[i]);
		else if (arguments->nr == most)
			return say(argv[0], TOOL_USAGE, "\"%s\" is one word too many; see --help", argv[i]);
		else
			arguments->words[arguments->nr++] = argv[i];
	}
	return TOOL_OK;
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

/* Calls @try with each path where the socket of process @pid may be, until one returns true. */
static bool each_path(int pid, bool (*try)(const char *path, void *data), void *data)
{
	unsigned long real, user;
	char line[256], path[PATH_MAX], root[64];
	const char *own_id;

	if (!status_line(pid, "Uid", line, sizeof(line)) || sscanf(line, "%lu %lu", &real, &user) != 2)
		return false;
	user = user_inside(pid, user);
	/* Its id in its own namespace is the last. */
	if (!status_line(pid, "NSpid", line, sizeof(line)))
		snprintf(line, sizeof(line), "\t%d", pid);
	line[strcspn(line, "\n")] = '\0';
	own_id = strrchr(line, '\t') ? strrchr(line, '\t') + 1 : line;
	snprintf(root, sizeof(root), "/proc/%d/root", pid);
	for (int outside = 0; outside < 2; outside++) {
		const char *from = outside ? "" : root;

		snprintf(path, sizeof(path), "%s/run/crosspatch/%s", from, own_id);
		if (user == 0 && try(path, data))
			return true;
		snprintf(path, sizeof(path), "%s/run/user/%lu/crosspatch/%s", from, user, own_id);
		if (try(path, data))
			return true;
		snprintf(path, sizeof(path), "%s/tmp/crosspatch-%lu/%s", from, user, own_id);
		if (try(path, data))
			return true;
	}
	return false;
}

/* Connects; errno if not. */
static bool connect_to(struct client *client, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct timeval patience = {PATIENCE_MS / 1000, 0};
	struct ucred who = {0, 0, 0};
	socklen_t len = sizeof(who);
	int error;

	if (strlen(path) >= sizeof(address.sun_path)) {
		errno = ENAMETOOLONG;
		return false;
	}
	strcpy(address.sun_path, path);
	client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (client->fd < 0)
		return false;
	setsockopt(client->fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	if (connect(client->fd, (struct sockaddr *)&address, sizeof(address)) ||
	    getsockopt(client->fd, SOL_SOCKET, SO_PEERCRED, &who, &len)) {
		error = errno;
		close(client->fd);
		client->fd = -1;
		errno = error;
		return false;
	}
	client->pid = who.pid;
	strcpy(client->path, path);
	return true;
}

struct attempt {
	struct client *client;
	int pid, error; /* the most telling one */
};

static bool try_path(const char *path, void *data)
{
	struct attempt *attempt = data;

	if (!connect_to(attempt->client, path)) {
		if (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG)
			attempt->error = errno;
		return false;
	}
	/* Somebody else's process may sit there. */
	if (attempt->client->pid == attempt->pid)
		return true;
	close(attempt->client->fd);
	attempt->client->fd = -1;
	return false;
}

static int open_process(struct client *client, const char *target)
{
	char *end;
	long pid;

	errno = 0;
	pid = strtol(target, &end, 10);
	if (errno || pid <= 0 || pid > INT_MAX)
		return say(client->command, TOOL_USAGE, "\"%s\" is no process id", target);

	struct attempt attempt = {client, (int)pid, 0};

	if (each_path((int)pid, try_path, &attempt))
		return TOOL_OK;
	snprintf(client->path, sizeof(client->path), "/proc/%ld", pid);
	if (access(client->path, F_OK))
		return say(client->command, TOOL_UNKNOWN, "there is no process %ld", pid);
	if (attempt.error == EACCES || attempt.error == EPERM)
		return say(client->command, TOOL_REFUSED, "process %ld: only its own user and root may ask", pid);
	return say(client->command, TOOL_UNKNOWN,
		   "process %ld serves no control socket%s%s; it has to call xp_control_start() or be started with "
		   "CROSSPATCH_CONTROL=auto",
		   pid, attempt.error ? ": " : "", attempt.error ? strerror(attempt.error) : "");
}

int client_open(struct client *client, const char *command, const char *target)
{
	memset(client, 0, sizeof(*client));
	client->command = command;
	client->fd = -1;
	if (strchr(target, '/') == NULL) {
		if (target[0] == '\0' || target[strspn(target, "0123456789")])
			return say(command, TOOL_USAGE, "\"%s\" is neither a process id nor the path of a socket",
				   target);
		return open_process(client, target);
	}
	if (connect_to(client, target))
		return TOOL_OK;
	if (errno == EACCES || errno == EPERM)
		return say(command, TOOL_REFUSED, "%s: only the process' own user and root may ask", target);
	return say(command, TOOL_UNKNOWN, "%s: %s", target,
		   errno == ECONNREFUSED ? "nobody listens there any more" : strerror(errno));
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

/* All that comes until the other end hangs up, which it may do with the request unread. Ended by a zero; NULL and errno. */
static char *receive(int fd)
{
	long deadline = now_ms() + PATIENCE_MS;
	size_t len = 0, room = 0;
	char *all = NULL;

	for (;;) {
		struct pollfd ready = {fd, POLLIN, 0};
		ssize_t got;

		if (len + 1 >= room) {
			char *more = realloc(all, room = room ? 2 * room : 65536);

			if (more == NULL)
				break;
			all = more;
		}
		errno = ETIMEDOUT;
		if (now_ms() >= deadline || poll(&ready, 1, (int)(deadline - now_ms())) == 0)
			break;
		got = recv(fd, all + len, room - len - 1, 0);
		if (got < 0 && errno == EINTR)
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

/* Lines become strings of fields, each ended by a zero, with an empty one behind the last. */
static bool take_apart(struct client *client)
{
	size_t nr = 0;

	for (const char *c = client->answer; *c; c++)
		nr += *c == '\n';
	/* An empty field behind each line: there is its end of line's zero, and one more that is needed. */
	client->lines = calloc(nr + 1, sizeof(*client->lines));
	char *spread = malloc(strlen(client->answer) + nr + 1), *to = spread;

	if (client->lines == NULL || spread == NULL) {
		free(spread);
		return false;
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
	return true;
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

/* The answer's first line says why. */
static int refused(const struct client *client, bool json)
{
	const char *code = client_field(client->lines[0], "code"), *text = client_field(client->lines[0], "text");
	int error = code ? atoi(code) : -EPROTO;

	if (json) {
		printf("{\"pid\": %d, \"error\": {\"code\": %d, \"text\": ", client->pid, error);
		json_string(stdout, text);
		puts("}}");
		fflush(stdout);
	}
	return say(client->command, TOOL_REFUSED, "process %d: %s (%d)", client->pid, text ? text : strerror(-error),
		   error);
}

int client_ask(struct client *client, const char *request, bool json)
{
	size_t len = strlen(request);

	if (send(client->fd, request, len, MSG_NOSIGNAL) != (ssize_t)len)
		return say(client->command, TOOL_UNKNOWN, "%s: %s", client->path, strerror(errno));
	client->answer = receive(client->fd);
	if (client->answer == NULL)
		return say(client->command, TOOL_UNKNOWN, "process %d does not answer: %s", client->pid,
			   strerror(errno));
	if (strncmp(client->answer, "crosspatch 1 ", 13) != 0)
		return say(client->command, TOOL_UNKNOWN,
			   "%s: who answers there is no process of crosspatch's version 1", client->path);
	if (!take_apart(client))
		return say(client->command, TOOL_UNKNOWN, "%s", strerror(ENOMEM));
	if (client->nr_lines < 2 || !client_is(client->lines[client->nr_lines - 1], "end"))
		return say(client->command, TOOL_UNKNOWN, "the answer of process %d broke off", client->pid);
	if (client_is(client->lines[0], "crosspatch 1 ok"))
		return TOOL_OK;
	return refused(client, json);
}

static void member(const char *line, const char *name, bool number)
{
	const char *value = client_field(line, name);

	printf(", \"%s\": ", name);
	if (number && value && *value && value[strspn(value, "0123456789")] == '\0')
		fputs(value, stdout);
	else
		json_string(stdout, value);
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
	for (size_t i = 0; i < 3; i++) {
		static const char *const some[] = {"count", "choices", "size"};

		if (client_field(line, some[i]))
			member(line, some[i], true);
	}
	member(line, "address", false);
}
