/* SPDX-License-Identifier: MIT */
/* The thread that serves peers. */
#ifndef XP_LINUX_CONTROL_SERVE_H
#define XP_LINUX_CONTROL_SERVE_H

/*
 * xp__control_serve - the thread. Ends when the phase is no longer SERVING, or for what the system refuses.
 * xp__control_end - the end of the service, for @error: its name and descriptors go, and threads that wait for that wake.
 */
void *xp__control_serve(void *unused);
void xp__control_end(int error);

#endif
