/* SPDX-License-Identifier: MIT */
/*
 * Everything that the core takes from outside: four memory functions, which compilers call by themselves anyway. A kernel
 * that has them under other names defines XP_DEPS_HEADER to its own header.
 */
#ifndef XP_CORE_DEPS_H
#define XP_CORE_DEPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef XP_DEPS_HEADER
#include XP_DEPS_HEADER
#else
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);
#endif

/* The system's error numbers that the core itself returns: these three are the same on every Linux architecture. */
#define XP__ENOMEM 12
#define XP__EBUSY 16
#define XP__EINVAL 22

/*
 * What the system refuses, and what to do: numbers of Linux on x86, for xp_strerror() alone. A system with other numbers
 * defines it to be empty.
 */
#ifndef XP__SYSTEM_ERRORS
#define XP__SYSTEM_ERRORS(X)                                                                                           \
	X(EPERM, 1, "the system does not permit it: a security policy or a seccomp filter, perhaps")                   \
	X(ENOENT, 2, "there is no such file, directory or object")                                                     \
	X(ESRCH, 3, "there is no such process or thread")                                                              \
	X(EINTR, 4, "a signal interrupted it; try again")                                                              \
	X(EIO, 5, "the system could not read or write")                                                                \
	X(EAGAIN, 11, "the system has no more of it now, threads or memory; try again")                                \
	X(EACCES, 13, "no permission: the directory or file is another user's, or a security policy forbids it")       \
	X(EEXIST, 17, "something else is there already, which is not replaced; remove it, or take another name")       \
	X(ENFILE, 23, "the system has no descriptor left; try again")                                                  \
	X(EMFILE, 24, "the process has no descriptor left; close some, or raise its limit")                            \
	X(ENOSPC, 28, "the file system is full; make room, or name another")                                           \
	X(EROFS, 30, "the file system is read-only; name one that can be written")                                     \
	X(ERANGE, 34, "the buffer is too small")                                                                       \
	X(ENAMETOOLONG, 36, "the name is too long for a socket; take a shorter path")                                  \
	X(ENOSYS, 38, "the kernel does not have this system call, or a seccomp filter hides it")                       \
	X(ENOTUNIQ, 76, "several objects are called so")                                                               \
	X(EOPNOTSUPP, 95, "this cannot be done with such an object")                                                   \
	X(EADDRINUSE, 98, "another process serves under this name; take a path of its own")                            \
	X(ENOTCONN, 107, "nothing is served: call xp_control_start(), or see what it returned")                        \
	X(ETIMEDOUT, 110, "it took too long; try again")                                                               \
	X(EALREADY, 114, "it is served already")                                                                       \
	X(ECANCELED, 125, "the process that began it forked meanwhile; begin it anew")
#endif

#endif
