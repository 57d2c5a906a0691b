/* SPDX-License-Identifier: MIT */
/* Error codes, and the diagnostic that says where and why. Freestanding. */
#ifndef XP_ERROR_H
#define XP_ERROR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Every function of the library returns 0 or a negative code: -errno for what
 * the system refused, one of these for what the library refused. errno itself
 * is never set. One table makes the enum, xp_strerror() and the manual.
 */
/* clang-format off */
#define XP_ERRORS(X)                                                                                    \
	X(MISMATCH, 4201, "the text at the site is not what was expected")                              \
	X(OVERLAP, 4202, "two patches of one commit touch the same bytes")                              \
	X(RANGE, 4203, "the target is beyond the reach of the instruction's displacement")              \
	X(NOT_TEXT, 4204, "the address is not mapped as executable text")                               \
	X(LENGTH, 4205, "the length is zero or more than 16 bytes")                                     \
	X(MULTI, 4206, "the site holds several instructions; only the quiesce policy may replace them") \
	X(EMULATE, 4207, "the new instruction cannot be emulated and no resume address was given")      \
	X(NO_SYNC, 4208, "no way to synchronize the other processors is available")                     \
	X(NO_WRITER, 4209, "no way to write program text is available")                                 \
	X(NOT_READY, 4210, "the library has no port yet")                                               \
	X(REENTRANT, 4211, "called from a handler of a trap, or of a signal that interrupted a commit of the same thread")     \
	X(WEDGED, 4212, "an earlier commit could be neither finished nor undone; patching is disabled") \
	X(UNDERFLOW, 4213, "the key's count is already zero")                                           \
	X(OVERFLOW, 4214, "the key's count has reached its maximum")                                    \
	X(COUNTED, 4215, "enable and disable are refused while the key is held by a count")             \
	X(NOT_EARLY, 4216, "the early policy needs a single-threaded process")                          \
	X(CORRUPT, 4217, "a site record is malformed, or from an incompatible version")                 \
	X(NO_METHOD, 4218, "no method can make this change under the policy and writer in force")       \
	X(SHADOW_STACK, 4219, "a call or return cannot be emulated under shadow stacks")                \
	X(IN_RANGE, 4220, "a thread keeps resting inside the instructions to be replaced")     \
	X(PROVIDED, 4221, "the gate has a provider already")                                            \
	X(NO_PROVIDER, 4222, "the gate has no provider")                                                \
	X(NO_ENTRY, 4223, "the function has no patchable entry that is registered; or this is a program's own jump to it, not bound yet") \
	X(TRACED, 4224, "the function has this handler with this data already")                         \
	X(NOT_TRACED, 4225, "the function does not have this handler with this data")                   \
	X(LEAVES, 4226, "the function has as many return handlers as there may be")                       \
	X(TRANSLATED, 4227, "the program runs under a translator that does not execute changed text") \
	X(VALUE, 4228, "the number is outside of the range that the value is defined with")   \
	X(HELD, 4229, "another thread commits, or forks, and does not come to an end; nothing was done") \
	X(DRIFTED, 4230, "another program wrote an older form of the code back at the site") \
	X(MOVED, 4231, "functions were moved after linking, as llvm-bolt does, and the site records were not") \
	X(NEEDS_SYNC, 4232, "the change cannot be asynchronous: it takes several stores, or gives back what old code uses") \
	X(BEGUN, 4233, "another thread, which does not come to an end, makes the change together with its own; it may still be made")
/* clang-format on */

enum xp_error {
#define XP_ERROR_ENUM(name, number, text) XP_E_##name = number,
	XP_ERRORS(XP_ERROR_ENUM)
#undef XP_ERROR_ENUM
};

/* Where in a commit an error arose. Text is untouched unless it says ROLLBACK and the engine is wedged. */
enum xp_phase {
	XP_PHASE_NONE,     /* no error */
	XP_PHASE_VALIDATE, /* before anything was done */
	XP_PHASE_PREPARE,  /* writer, sync, trap handler or threads not fit; text untouched */
	XP_PHASE_STORE,    /* a write failed; rolled back */
	XP_PHASE_SYNC,     /* a sync failed; rolled back */
	XP_PHASE_ROLLBACK, /* the rollback failed as well: the engine is wedged */
};

#define XP_MAX_LEN 16 /* bytes of the longest site; the architecture allows 15 for one instruction */

/*
 * xp_diag - what was refused, where and why.
 *
 * Filled on error by every function that takes one; on success only `error`
 * is written, with 0. Nothing in it is allocated; strings are static or belong
 * to the caller's own tables.
 */
struct xp_diag {
	int error;  /* the code returned */
	int system; /* errno of the system call behind it, 0 if none */
	enum xp_phase phase;
	int tid;            /* the thread at fault, 0 if none */
	const void *site;   /* the first byte of the site at fault, NULL if none */
	const char *key;    /* the name of the key it belongs to, NULL if none */
	const char *detail; /* a static sentence that says more, NULL if none */
	uint8_t len;        /* valid bytes in the arrays below */
	uint8_t expected[XP_MAX_LEN];
	uint8_t found[XP_MAX_LEN];
};

/*
 * xp_strerror - a static English sentence for a code.
 *
 * Context: any, signal handlers included. Ordering: none. Progress: wait-free.
 * Errors: none; an unknown code gives a general sentence, and so does an
 * -errno that no function of the library is known to return. Accepts either
 * sign.
 */
const char *xp_strerror(int error);

/*
 * xp_diag_format - the diagnostic as one line of text, with what to do.
 *
 * Context: any, signal handlers included. Ordering: none. Progress: wait-free.
 * Returns the length the whole line needs without its terminator, as
 * snprintf() does; writes at most @size bytes, always terminated if @size > 0.
 */
size_t xp_diag_format(const struct xp_diag *diag, char *buffer, size_t size);

#ifdef __cplusplus
}
#endif

#endif
