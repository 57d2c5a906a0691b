/* SPDX-License-Identifier: MIT */
/* The protocol of operation from outside: what is asked, and the answers. Which peers may ask, and how they reach it, is the port's. */
#ifndef XP_CONTROL_PROTO_H
#define XP_CONTROL_PROTO_H

#include <stdbool.h>
#include <stddef.h>

/* What the next commit would be made with. */
struct xp__report {
	const char *writer, *sync; /* "none": it would be refused */
	bool single;               /* the writer stores up to 8 bytes at once */
	bool shadow_stack;         /* calls and returns are not emulated */
};

/*
 * What the protocol has of the port, which defines it. lock - the text lock, also of an engine that is not ready: 0 or an
 * error. report - Context: text lock.
 */
struct xp__proto_port {
	int (*lock)(void);
	void (*unlock)(void);
	void (*report)(struct xp__report *report);
};
extern const struct xp__proto_port xp__proto_port;

/*
 * xp__proto_answer - carries out a request of @len bytes, without its end of line, and writes the answer to @to. Returns the
 * size that the whole answer needs: if that is more than @size, nothing was done but reading, and it can be asked again
 * with more room. Context: a thread that holds no lock; takes the text lock. @to: not memory whose first touch is long.
 */
size_t xp__proto_answer(const char *request, size_t len, char *to, size_t size);
/* xp__proto_error - the answer that says @error and why; as above. */
size_t xp__proto_error(int error, const char *why, char *to, size_t size);

#endif
