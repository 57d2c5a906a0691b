/* SPDX-License-Identifier: MIT */
/* fork while others patch. */
#ifndef XP_LINUX_FORK_H
#define XP_LINUX_FORK_H

int xp__fork_start(void);
/* xp__fork_ask - asks thread @tid, which holds the text lock for a fork, to let others have it. Context: any. */
void xp__fork_ask(int tid);
/* xp__fork_asked - the caller is asked. Context: the handler of the rendezvous' signal, @signal. */
void xp__fork_asked(int signal);

#endif
