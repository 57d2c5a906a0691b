/* SPDX-License-Identifier: MIT */
/* The name of the socket of control.c. */
#ifndef XP_LINUX_CONTROL_SOCKET_H
#define XP_LINUX_CONTROL_SOCKET_H

#include <stdbool.h>

/*
 * xp__control_socket_open - listens at @path; NULL: by the process id, in a directory of the user's. reopen - again, where it
 * did. follow_user - listens where the new user can connect; where that cannot be, all is as it was, and only root can ask. Each: 0 or -errno; on an error all is as before. remove - the name goes, if it still is this socket's.
 * Context: the thread that is in charge; takes the text lock.
 */
int xp__control_socket_open(const char *path);
int xp__control_socket_reopen(void);
int xp__control_socket_follow_user(void);
bool xp__control_socket_user_changed(void);
void xp__control_socket_remove(void);

/*
 * claim - from here on the socket is that of the present user, and has no name. name - "": none; of a former service too. knock - connects, and hangs up: a thread that
 * waits for peers wakes. Context: text lock.
 */
void xp__control_socket_claim(bool by_process_id);
const char *xp__control_socket_name(void);
void xp__control_socket_knock(void);

#endif
