/* SPDX-License-Identifier: MIT */
/* The engine's state: its port, its lock, its diagnostics. All of the core stands on it. */
#ifndef XP_CORE_STATE_H
#define XP_CORE_STATE_H

#include <crosspatch/error.h>
#include <crosspatch/port.h>
#include <crosspatch/text_poke.h>

struct xp_object;

extern const struct xp_port *xp__port;

/*
 * ThreadSanitizer's atomic addition, where the program is built with it, else NULL; for ports. It sees our
 * memcpy calls, but neither patched text nor our lock: an addition of 0 tells it of an acquire and a release.
 */
extern int (*xp__sanitizer)(volatile int *word, int value, int order);

static inline void xp__tell(uint32_t *word, int order)
{
	if (xp__sanitizer)
		xp__sanitizer((volatile int *)word, 0, order);
}

/* xp__start - the engine has a port: xp_port_set(). */
void xp__start(const struct xp_port *port);

/* xp__lock - takes the text lock of a ready engine: -XP_E_NOT_READY, -XP_E_WEDGED, -XP_E_REENTRANT, -XP_E_HELD. */
int xp__lock(struct xp_diag *diag);
void xp__unlock(void);

/* xp__lock_or - the same by the port's lock_or(): 1 without the lock. Where the port has none, xp__lock(). */
int xp__lock_or(struct xp_diag *diag, const uint32_t *done);

/*
 * xp__pin - asks the port to keep the shared object of @func mapped, because what lies at @user goes there; NULL: nothing
 * to keep. xp__unpin - the opposite, of NULL too. Context: as the port's pin(): no lock held.
 */
void *xp__pin(void (*func)(void), const void *user);
void xp__unpin(void *pin);

/* xp__wedge - a commit could be neither finished nor undone: from now on xp__lock() refuses. Context: text lock. */
void xp__wedge(void);

/* xp__fail - fills @diag (may be NULL) and returns @error. */
int xp__fail(struct xp_diag *diag, int error, enum xp_phase phase, const void *site, const char *detail);

/* xp__fail_port - the same where the port failed: -errno is the system's answer, other codes are the port's own. */
int xp__fail_port(struct xp_diag *diag, int error, enum xp_phase phase, const void *site);

/* xp__fail_text - the same for a site whose text is not as expected: -EBUSY for a breakpoint, else -XP_E_MISMATCH. */
int xp__fail_text(struct xp_diag *diag, const void *site, const uint8_t *expected, const uint8_t *found, unsigned len);

/*
 * xp__fail_site - the same for a site of @object, whose name goes into @diag. xp__fail_record - for a site whose record
 * cannot be right: -XP_E_CORRUPT.
 */
int xp__fail_site(struct xp_diag *diag, const struct xp_object *object, uintptr_t code, const uint8_t *expected,
		  unsigned len);
int xp__fail_record(struct xp_diag *diag, const struct xp_object *object, uintptr_t code, const char *detail);

/*
 * xp__text_readable - whether [addr, addr + len) can be read: text may be for execution only, or be gone. @page: 0 at first;
 * the page asked about last, which is not asked about again.
 */
bool xp__text_readable(uintptr_t *page, uintptr_t addr, size_t len);

/* xp__text_is_known - the same, without a question to the system: the port knows it. False: it is to be asked. */
static inline bool xp__text_is_known(uintptr_t addr, size_t len)
{
	return xp__port->text_known && xp__port->text_known((const void *)addr, len);
}

/* xp__fail_unreadable - -XP_E_NOT_TEXT, in words. */
int xp__fail_unreadable(struct xp_diag *diag, uintptr_t code);

#endif
