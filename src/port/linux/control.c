// SPDX-License-Identifier: MIT
/*
 * Operation from outside: a socket, and a thread that answers peers there. Here: start, stop, and what others tell the thread.
 * control_state.c has the phase and the descriptors, control_socket.c the socket's name, control_serve.c the thread. What is
 * asked and answered: control/proto.c.
 *
 * I1  Nothing is there unless the program, or its environment, asks for it.
 * I2  Answered are this process' own effective user and root, whatever the socket's file says; both are asked.
 * I3  In the child of a fork nothing is served; the parent's peers are the parent's.
 */
#include "port/linux/control.h"

#include "port/linux/control_serve.h"
#include "port/linux/control_socket.h"
#include "port/linux/control_state.h"
#include "port/linux/sys.h"
#include "port/linux/worker.h"

#include <crosspatch/linux.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

/* Under the text lock. */
static void ring(void)
{
	/* That the thread waits is what keeps a closed socket listening. */
	if (xp__control_same(XP__FD_RINGER))
		XP__SYS3(SYS_write, xp__control_fds[XP__FD_RINGER].fd, "", 1);
	else
		xp__control_socket_knock();
}

void xp__control_wake(void)
{
	if (!xp__control_stopping())
		ring();
}

static int claim(const void *path)
{
	if (xp__control_phase != XP__CONTROL_IDLE)
		return -EALREADY;
	xp__control_process = XP__SYS1(SYS_getpid, 0);
	xp__control_ended_by = -ENOTCONN;
	xp__control_socket_claim(path == NULL);
	xp__control_set_phase(XP__CONTROL_STARTING);
	return 0;
}

static int begin(const void *unused)
{
	int error = xp__control_in_charge() ? xp__control_open_bell(unused) : -ECANCELED;

	if (!error)
		xp__control_set_phase(XP__CONTROL_SERVING);
	return error;
}

static int stop_locked(const void *unused)
{
	(void)unused;
	if (xp__control_phase == XP__CONTROL_SERVING) {
		xp__control_set_phase(XP__CONTROL_STOPPING);
		ring();
	}
	return 0;
}

/*
 * The thread is made without the text lock: libc takes locks for that, and a thread that holds one of those, since it loads a
 * module, may wait for the text lock. In the child of a fork in between it finds that it serves nothing, and ends.
 */
int xp_control_start(const char *path)
{
	int error = xp__control_with_lock(claim, path);

	if (error)
		return error;
	error = xp__control_socket_open(path);
	if (!error)
		error = xp__control_with_lock(begin, NULL);
	if (!error)
		error = xp__worker_start(xp__control_serve);
	if (error)
		xp__control_end(error);
	return error;
}

int xp_control_stop(void)
{
	int error = xp__control_with_lock(stop_locked, NULL);
	uint32_t now;

	/*
	 * One that starts in another thread just now is stopped when it has. The thread may wait for the text lock, so this asks
	 * for it again: where the thread gets it no more, this gives up too.
	 */
	while (!error && (now = __atomic_load_n(&xp__control_phase, __ATOMIC_RELAXED)) != XP__CONTROL_IDLE) {
		xp__futex_wait(&xp__control_phase, now, 1000000000);
		error = xp__control_with_lock(stop_locked, NULL);
	}
	return error;
}

struct path_room {
	char *path;
	size_t size;
};

static int copy_path(const void *data)
{
	const struct path_room *room = data;
	size_t need = strlen(xp__control_socket_name()) + 1;

	if (xp__control_phase == XP__CONTROL_IDLE || need == 1)
		return xp__control_ended_by;
	if (need > room->size)
		return -ERANGE;
	memcpy(room->path, xp__control_socket_name(), need);
	return 0;
}

int xp_control_path(char *path, size_t size)
{
	return xp__control_with_lock(copy_path, &(struct path_room){path, size});
}

/* Of all constructors of the library the last: until then it is one thread that runs. */
__attribute__((constructor)) static void start_asked(void)
{
	const char *path = getauxval(AT_SECURE) ? NULL : getenv("CROSSPATCH_CONTROL");

	if (path && path[0])
		(void)xp_control_start(strcmp(path, "auto") == 0 ? NULL : path);
}

/* A process that ends leaves no name behind, unless it is killed. Without the lock: its holder may be gone. */
__attribute__((destructor)) static void stop_at_end(void)
{
	if (!xp__control_stopping() && XP__SYS1(SYS_getpid, 0) == xp__control_process)
		xp__control_socket_remove();
}
