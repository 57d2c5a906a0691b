// SPDX-License-Identifier: MIT
/*
 * The engine's state: its port, its lock, whether it can patch at all, how it does; and how it says what it cannot.
 *
 * I1  The port is set once, before there are other threads. From then on the state goes from ready to wedged, once.
 */
#include "core/state.h"

#include "arch/arch.h"
#include "core/deps.h"

#define XP_NO_MODULE /* the library itself has no sites */
#include <crosspatch/site.h>

const struct xp_port *xp__port;
int (*xp__sanitizer)(volatile int *word, int value, int order);
static int state = XP_STATE_NO_PORT;
static int policy = XP_POLICY_AUTO;

void xp__start(const struct xp_port *port)
{
	xp__port = port;
	__atomic_store_n(&state, XP_STATE_READY, __ATOMIC_RELAXED); /* before there are other threads */
}

enum xp_state xp_state(void)
{
	return (enum xp_state)__atomic_load_n(&state, __ATOMIC_RELAXED);
}

void xp__wedge(void)
{
	__atomic_store_n(&state, XP_STATE_WEDGED, __ATOMIC_RELAXED);
}

int xp_set_policy(enum xp_policy value)
{
	if ((unsigned)value > XP_POLICY_EARLY)
		return -XP__EINVAL;
	__atomic_store_n(&policy, value, __ATOMIC_RELAXED);
	return 0;
}

enum xp_policy xp_policy(void)
{
	return (enum xp_policy)__atomic_load_n(&policy, __ATOMIC_RELAXED);
}

int xp__fail(struct xp_diag *diag, int error, enum xp_phase phase, const void *site, const char *detail)
{
	if (diag) {
		diag->error = error;
		diag->phase = phase;
		diag->site = site;
		if (detail)
			diag->detail = detail;
	}
	return error;
}

int xp__fail_port(struct xp_diag *diag, int error, enum xp_phase phase, const void *site)
{
	if (diag && -error < 4096)
		diag->system = -error;
	return xp__fail(diag, error, phase, site, NULL);
}

int xp__fail_text(struct xp_diag *diag, const void *site, const uint8_t *expected, const uint8_t *found, unsigned len)
{
	bool breakpoint = xp__is_trap(found) && !xp__is_trap(expected);

	if (diag) {
		diag->len = (uint8_t)len;
		memcpy(diag->expected, expected, len);
		memcpy(diag->found, found, len);
	}
	if (breakpoint)
		return xp__fail(diag, -XP__EBUSY, XP_PHASE_VALIDATE, site,
				"a debugger or probe has a breakpoint there");
	return xp__fail(diag, -XP_E_MISMATCH, XP_PHASE_VALIDATE, site, NULL);
}

int xp__fail_site(struct xp_diag *diag, const struct xp_object *object, uintptr_t code, const uint8_t *expected,
		  unsigned len)
{
	int error = xp__fail_text(diag, (const void *)code, expected, (const uint8_t *)code, len);

	if (diag)
		diag->key = object->name;
	return error;
}

int xp__fail_record(struct xp_diag *diag, const struct xp_object *object, uintptr_t code, const char *detail)
{
	if (diag)
		diag->key = object->name;
	return xp__fail(diag, -XP_E_CORRUPT, XP_PHASE_VALIDATE, (const void *)code, detail);
}

#define PAGE ((uintptr_t)4096)

bool xp__text_readable(uintptr_t *page, uintptr_t addr, size_t len)
{
	uintptr_t word;

	if (addr + len < addr)
		return false;
	for (uintptr_t at = addr & ~(PAGE - 1); at < addr + len; at += PAGE) {
		/* Page 0 is no answer that was had. */
		if ((at == 0 || at != *page) && xp__port->data_read && xp__port->data_read(&word, (const void *)at))
			return false;
		*page = at;
	}
	return true;
}

int xp__fail_unreadable(struct xp_diag *diag, uintptr_t code)
{
	return xp__fail(diag, -XP_E_NOT_TEXT, XP_PHASE_VALIDATE, (const void *)code,
			"it cannot be read: it is mapped for execution only, or not at all");
}

static int enter(struct xp_diag *diag, bool wait, const uint32_t *done)
{
	int error;

	if (diag)
		memset(diag, 0, sizeof(*diag));
	if (xp_state() == XP_STATE_NO_PORT)
		return xp__fail(diag, -XP_E_NOT_READY, XP_PHASE_VALIDATE, NULL, NULL);
	error = wait || xp__port->lock_or == NULL ? xp__port->lock() : xp__port->lock_or(done);
	if (error < 0)
		return xp__fail(diag, error, XP_PHASE_VALIDATE, NULL, NULL);
	if (error == 0 && xp_state() == XP_STATE_WEDGED) {
		xp__port->unlock();
		return xp__fail(diag, -XP_E_WEDGED, XP_PHASE_VALIDATE, NULL, NULL);
	}
	return error;
}

int xp__lock(struct xp_diag *diag)
{
	return enter(diag, true, NULL);
}

int xp__lock_or(struct xp_diag *diag, const uint32_t *done)
{
	return enter(diag, false, done);
}

void xp__unlock(void)
{
	xp__port->unlock();
}

void *xp__pin(void (*func)(void), const void *user)
{
	bool can = func && xp_state() != XP_STATE_NO_PORT && xp__port->pin;

	return can ? xp__port->pin((const void *)(uintptr_t)func, user) : NULL;
}

void xp__unpin(void *pin)
{
	if (pin)
		xp__port->unpin(pin);
}
