// SPDX-License-Identifier: MIT
/*
 * The thread that serves peers: it waits for the listener and for every peer at once, and does what is ready.
 *
 * I1  One request, one answer on a connection. A request is bounded, and so is the time that it takes to come and its answer to
 *     be taken. No lock is held meanwhile: a peer that stops delays no commit.
 * I2  Nor does it delay other peers, however many stop. Each has a place of its own. Where all places are taken, or the system
 *     has no descriptor left, the peer that did nothing for the longest time gives its place to the new one: one whose request
 *     is there is answered before the next one is let in, so it is never that peer. What a peer waits for is the commits of the
 *     others, and those are bounded.
 * I3  A peer is given up for its time only if it had nothing ready when its time was over: this thread may be late itself.
 * I4  What the system refuses is tried again, later and later, once a second in the end. Shortages pass; after TRIES of
 *     anything else in a row the service ends, its name goes, and xp_control_path() says why.
 */
#include "port/linux/control_serve.h"

#include "control/proto.h"
#include "port/linux/control_socket.h"
#include "port/linux/control_state.h"
#include "port/linux/lifetime.h"
#include "port/linux/memory.h"
#include "port/linux/sys.h"
#include "port/linux/worker.h"

#include <crosspatch/error.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

enum {
	REQUEST_MAX = 4096,   /* bytes, with its end of line */
	REQUEST_MS = 5000,    /* to come */
	ANSWER_MS = 10000,    /* to be taken */
	ANSWER_FIRST = 65536, /* room, before more is asked for */
	ARRIVAL_MS = 15000,   /* for what is of the start of the program to register; the tool waits longer */
	TRIES = 8,
};

/* The descriptor of place i is XP__FD_PEERS + i. */
struct peer {
	char *bytes;            /* the request as far as it came, then the answer; NULL: the place is free */
	size_t room, len, sent; /* of the memory, of what is there, of the answer */
	uint64_t active;        /* ms: when it came, or its last bytes did, or it took some */
	uint64_t deadline;      /* ms */
	bool answered;          /* there is an answer */
};

/* ---- one peer ---- */

static enum xp__control_fd fd_of(unsigned place)
{
	return (enum xp__control_fd)(XP__FD_PEERS + place);
}

static void peer_leaves(struct peer *peers, unsigned place)
{
	xp__memory_release(peers[place].bytes, peers[place].room);
	peers[place].bytes = NULL;
	xp__control_close(fd_of(place));
}

static bool may_ask(int fd)
{
	struct ucred who = {0, (uid_t)-1, (gid_t)-1};
	uint32_t len = sizeof(who);

	if (XP__SYS6(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &who, &len, 0))
		return false;
	return who.uid == 0 || who.uid == xp__control_user();
}

static void has_answer(struct peer *peer, size_t len)
{
	peer->len = len;
	peer->sent = 0;
	peer->answered = true;
	peer->active = xp__clock_ms();
	peer->deadline = peer->active + ANSWER_MS;
}

static void refuse_peer(struct peer *peer, int error, const char *why)
{
	has_answer(peer, xp__proto_error(error, why, peer->bytes, peer->room));
}

/* To the request of @len bytes. */
static void answer(struct peer *peer, size_t len)
{
	size_t size = ANSWER_FIRST;

	for (;;) {
		char *room = xp__memory_alloc(size);
		size_t need = room ? xp__proto_answer(peer->bytes, len, room, size) : 0;

		if (room == NULL) {
			refuse_peer(peer, -ENOMEM, "no memory for the answer");
			return;
		}
		if (need <= size) {
			xp__memory_release(peer->bytes, peer->room);
			peer->bytes = room;
			peer->room = size;
			has_answer(peer, need);
			return;
		}
		xp__memory_release(room, size);
		size = need + need / 4; /* there may be more by then */
	}
}

/* Takes what has come. False: the peer has hung up. */
static bool read_request(struct peer *peer, int fd)
{
	long got =
		XP__SYS6(SYS_recvfrom, fd, peer->bytes + peer->len, REQUEST_MAX - peer->len, MSG_DONTWAIT, NULL, NULL);
	char *end;

	if (got == -EAGAIN || got == -EINTR)
		return true;
	if (got <= 0)
		return false;
	peer->active = xp__clock_ms();
	end = memchr(peer->bytes + peer->len, '\n', (size_t)got);
	peer->len += (size_t)got;
	if (end)
		answer(peer, (size_t)(end - peer->bytes));
	else if (peer->len == REQUEST_MAX)
		refuse_peer(peer, -EMSGSIZE, "a request is one line of less than 4096 bytes");
	return true;
}

/* Gives what is taken. False: all was, or the peer has hung up. */
static bool send_answer(struct peer *peer, int fd)
{
	long sent = XP__SYS6(SYS_sendto, fd, peer->bytes + peer->sent, peer->len - peer->sent,
			     MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);

	if (sent == -EAGAIN || sent == -EINTR)
		return true;
	if (sent <= 0)
		return false;
	peer->active = xp__clock_ms();
	peer->sent += (size_t)sent;
	return peer->sent < peer->len;
}

/* Does what it is ready for. */
static void serve_peer(struct peer *peers, unsigned place)
{
	struct peer *peer = &peers[place];
	int fd = xp__control_fds[fd_of(place)].fd;
	bool stays = xp__control_same(fd_of(place));

	if (stays && !peer->answered)
		stays = read_request(peer, fd);
	if (stays && peer->answered)
		stays = send_answer(peer, fd);
	if (!stays)
		peer_leaves(peers, place);
}

/* ---- their places ---- */

/* The one that did nothing for the longest time leaves. False: there is none. */
static bool drop_oldest(struct peer *peers)
{
	unsigned oldest = XP__CONTROL_PEERS;

	for (unsigned i = 0; i < XP__CONTROL_PEERS; i++)
		if (peers[i].bytes && (oldest == XP__CONTROL_PEERS || peers[i].active < peers[oldest].active))
			oldest = i;
	if (oldest == XP__CONTROL_PEERS)
		return false;
	if (!peers[oldest].answered && xp__control_same(fd_of(oldest))) {
		refuse_peer(&peers[oldest], -EBUSY, "no request came, and others want to ask");
		(void)send_answer(&peers[oldest], xp__control_fds[fd_of(oldest)].fd);
	}
	peer_leaves(peers, oldest);
	return true;
}

static unsigned free_place(struct peer *peers)
{
	unsigned place = 0;

	while (place < XP__CONTROL_PEERS && peers[place].bytes)
		place++;
	if (place == XP__CONTROL_PEERS && drop_oldest(peers))
		return free_place(peers);
	return place;
}

static int accept_locked(const void *which)
{
	enum xp__control_fd to = *(const enum xp__control_fd *)which;

	xp__control_drop(to); /* there, if the lock was not to be had when it was to be closed */
	if (!xp__control_same(XP__FD_LISTENER))
		return -EAGAIN;
	return xp__control_take(to, XP__SYS4(SYS_accept4, xp__control_fds[XP__FD_LISTENER].fd, NULL, NULL,
					     SOCK_CLOEXEC | SOCK_NONBLOCK));
}

static int let_in(struct peer *peers)
{
	unsigned place = free_place(peers);
	enum xp__control_fd which = fd_of(place);
	struct peer *peer = &peers[place];
	int error = xp__control_with_lock(accept_locked, &which);

	/* There seemed to be one, and there is none: the program shut the socket down, which is to be made anew. */
	if (error == -EAGAIN || error == -EINVAL) {
		xp__control_close(XP__FD_LISTENER);
		return -EINVAL;
	}
	if ((error == -EMFILE || error == -ENFILE) && drop_oldest(peers))
		return 0;
	if (error)
		return error;
	*peer = (struct peer){.bytes = xp__memory_alloc(REQUEST_MAX), .room = REQUEST_MAX};
	if (peer->bytes == NULL) {
		xp__control_close(which);
		return -ENOMEM;
	}
	peer->active = xp__clock_ms();
	peer->deadline = peer->active + REQUEST_MS;
	if (!may_ask(xp__control_fds[which].fd))
		refuse_peer(peer, -EPERM, "only the process' own user and root may ask");
	serve_peer(peers, place);
	return 0;
}

/* ---- the wait for all of them ---- */

/* As the kernel has it, which libc's is only in 64 bits. */
struct kernel_time {
	long seconds, nanoseconds;
};

/* What poll says, by @deadline; -ECANCELED: this process has become another user. */
static long poll_until(struct pollfd *fds, unsigned nr, uint64_t deadline)
{
	uint64_t now = xp__clock_ms(), left = deadline > now ? deadline - now : 0, libcs = 0, mask;
	struct kernel_time timeout = {(long)(left / 1000), (long)(left % 1000) * 1000000};
	bool changed;
	long got;

	/* A thread that chooses another signal rings afterwards: the choice is seen here, or the bell by poll. */
	xp__worker_mask();
	/* So with libc's signal, by which this thread becomes another user. */
	for (int signal = 32; signal < SIGRTMIN; signal++)
		libcs |= xp__sigbit(signal);
	XP__SYS4(SYS_rt_sigprocmask, SIG_BLOCK, &libcs, &mask, XP__NSIG_SIZE);
	changed = xp__control_socket_user_changed();
	got = changed ? -ECANCELED
		      : XP__SYS6(SYS_ppoll, fds, nr, deadline == UINT64_MAX ? NULL : &timeout, &mask, XP__NSIG_SIZE, 0);
	XP__SYS4(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, XP__NSIG_SIZE);
	if (got == -ENOSYS || got == -EPERM || got == -EACCES)
		got = XP__SYS3(SYS_poll, fds, nr, deadline == UINT64_MAX ? -1 : (long)left);
	return got;
}

/* One wait, and what is ready then. 0; -EAGAIN: something is to be made anew; or what the system says. */
static int serve_ready(struct peer *peers)
{
	const bool rings = xp__control_same(XP__FD_BELL) && xp__control_same(XP__FD_RINGER);
	struct pollfd fds[2 + XP__CONTROL_PEERS] = {{xp__control_fds[XP__FD_LISTENER].fd, POLLIN, 0},
						    {rings ? xp__control_fds[XP__FD_BELL].fd : -1, POLLIN, 0}};
	unsigned nr = 2, place[2 + XP__CONTROL_PEERS];
	uint64_t deadline = UINT64_MAX, before = xp__clock_ms();
	char drained[64];
	long got;

	if (!xp__control_same(XP__FD_LISTENER))
		return -EAGAIN;
	for (unsigned i = 0; i < XP__CONTROL_PEERS; i++) {
		if (peers[i].bytes && !xp__control_same(fd_of(i)))
			peer_leaves(peers, i);
		if (peers[i].bytes == NULL)
			continue;
		place[nr] = i;
		fds[nr++] = (struct pollfd){xp__control_fds[fd_of(i)].fd, peers[i].answered ? POLLOUT : POLLIN, 0};
		deadline = peers[i].deadline < deadline ? peers[i].deadline : deadline;
	}
	got = poll_until(fds, nr, deadline);
	if (got == -EINTR || xp__control_stopping())
		return 0;
	if (got == -ECANCELED)
		return -EAGAIN;
	if (got == -EINVAL) /* more are asked for than the limit of descriptors allows */
		return drop_oldest(peers) ? 0 : -EMFILE;
	if (got < 0)
		return (int)got;
	for (unsigned i = 2; i < nr; i++)
		if (fds[i].revents)
			serve_peer(peers, place[i]);
		else if (before >= peers[place[i]].deadline)
			peer_leaves(peers, place[i]);
	if (fds[1].revents && xp__control_same(XP__FD_BELL))
		XP__SYS3(SYS_read, xp__control_fds[XP__FD_BELL].fd, drained, sizeof(drained));
	if (fds[0].revents && !xp__control_stopping())
		return let_in(peers);
	/* What of the bell was closed or shut is to be made anew. */
	return fds[1].revents & ~POLLIN ? -EAGAIN : 0;
}

/* ---- the thread ---- */

/* What the program closed is opened again. */
static int reopen(void)
{
	int error = 0;

	if (xp__control_socket_user_changed())
		error = xp__control_socket_follow_user();
	if (!error && (!xp__control_same(XP__FD_BELL) || !xp__control_same(XP__FD_RINGER)))
		error = xp__control_with_lock(xp__control_open_bell, NULL);
	if (!error && !xp__control_same(XP__FD_LISTENER))
		error = xp__control_socket_reopen();
	return error;
}

/* Whether it passes by itself: there may be descriptors, memory and the text lock again. */
static bool is_shortage(int error)
{
	return error == -EMFILE || error == -ENFILE || error == -ENOMEM || error == -ENOBUFS || error == -EBUSY ||
	       error == -ENOSPC || error == -EDQUOT || error == -ECONNABORTED || error == -EINTR || error == -XP_E_HELD;
}

static int end_locked(const void *error)
{
	if (!xp__control_in_charge())
		return 0;
	xp__control_ended_by = *(const int *)error;
	xp__control_close_all();
	xp__control_set_phase(XP__CONTROL_IDLE);
	return 0;
}

/* In a child that may not have the lock there is nothing to end. */
void xp__control_end(int error)
{
	static uint32_t never;
	int refused;

	xp__control_socket_remove();
	while ((refused = xp__control_with_lock(end_locked, &error)) && refused != -XP_E_WEDGED)
		xp__futex_wait(&never, 0, 100000000);
}

void *xp__control_serve(void *unused)
{
	struct peer peers[XP__CONTROL_PEERS] = {{.bytes = NULL}};
	int error = 0, failures = 0, refusals = 0;

	(void)unused;
	/* A peer that asks before the program's own objects have registered would be told that there are none. */
	for (int i = 0; i < ARRIVAL_MS / 10 && !xp__control_stopping() && !xp__lifetime_all_arrived(); i++)
		xp__futex_wait(&xp__control_phase, XP__CONTROL_SERVING, 10000000);
	while (!xp__control_stopping()) {
		int mended;

		error = serve_ready(peers);
		mended = xp__control_stopping() ? 0 : reopen();
		if (mended)
			error = mended;
		if (error == 0 || error == -EAGAIN) {
			failures = refusals = 0;
			continue;
		}
		refusals += !is_shortage(error);
		if (refusals >= TRIES)
			break;
		/* 10 ms, twice as long each time, at most a second; the end is not waited for. */
		xp__futex_wait(&xp__control_phase, XP__CONTROL_SERVING, 10000000ull << (failures < 6 ? failures++ : 6));
	}
	for (unsigned i = 0; i < XP__CONTROL_PEERS; i++)
		if (peers[i].bytes)
			peer_leaves(peers, i);
	xp__control_end(xp__control_stopping() ? -ENOTCONN : error);
	return NULL;
}
