// SPDX-License-Identifier: MIT
/* Codes and diagnostics as text. Formats by itself: no libc, no allocation, usable in a signal handler. */
#include "core/deps.h"

#include <crosspatch/error.h>

const char *xp_strerror(int error)
{
	switch (error < 0 ? -error : error) {
	case 0:
		return "success";
	case XP__ENOMEM:
		return "out of memory";
	case XP__EBUSY:
		return "a foreign breakpoint or a thread is in the way";
	case XP__EINVAL:
		return "invalid argument";
#define XP_ERROR_CASE(name, number, text)                                                                              \
	case number:                                                                                                   \
		return text;
		XP_ERRORS(XP_ERROR_CASE)
#undef XP_ERROR_CASE
#define XP_SYSTEM_CASE(name, number, text)                                                                             \
	case number:                                                                                                   \
		return text;
		XP__SYSTEM_ERRORS(XP_SYSTEM_CASE)
#undef XP_SYSTEM_CASE
	default:
		return "the system refused";
	}
}

struct out {
	char *buffer;
	size_t size, len;
};

static void error_put(struct out *out, const char *text)
{
	for (; *text; text++, out->len++)
		if (out->len + 1 < out->size)
			out->buffer[out->len] = *text;
}

static void put_hex(struct out *out, uintptr_t value, unsigned digits)
{
	char text[2 * sizeof(value) + 1];
	unsigned at = sizeof(text) - 1;

	text[at] = '\0';
	do {
		text[--at] = "0123456789abcdef"[value & 15];
		value >>= 4;
		if (digits)
			digits--;
	} while (value || digits);
	error_put(out, text + at);
}

static void put_int(struct out *out, int value)
{
	char text[12];
	unsigned at = sizeof(text) - 1, rest = value < 0 ? 0u - (unsigned)value : (unsigned)value;

	text[at] = '\0';
	do {
		text[--at] = (char)('0' + rest % 10);
		rest /= 10;
	} while (rest);
	if (value < 0)
		error_put(out, "-");
	error_put(out, text + at);
}

static void error_put_bytes(struct out *out, const uint8_t *bytes, unsigned len)
{
	for (unsigned i = 0; i < len; i++) {
		error_put(out, " ");
		put_hex(out, bytes[i], 2);
	}
}

/* Whether the same may succeed the next time, with nothing else done. */
static bool error_passes(int error)
{
	static const int shortages[] = {XP__EBUSY, XP__ENOMEM, 4, 11, 23, 24, 28, 110}; /* see XP__SYSTEM_ERRORS */

	for (size_t i = 0; i < sizeof(shortages) / sizeof(shortages[0]); i++)
		if (error == shortages[i])
			return true;
	return false;
}

static const char *advice(const struct xp_diag *diag)
{
	switch (diag->phase) {
	case XP_PHASE_ROLLBACK:
		return "; undoing it failed too, patching is disabled until the process restarts";
	case XP_PHASE_STORE:
	case XP_PHASE_SYNC:
		return error_passes(-diag->error) || error_passes(diag->system)
			       ? "; everything was undone, try again"
			       : "; everything was undone; it fails again until the cause is gone";
	default:
		return "; nothing was changed";
	}
}

size_t xp_diag_format(const struct xp_diag *diag, char *buffer, size_t size)
{
	struct out out = {buffer, size, 0};

	error_put(&out, xp_strerror(diag->error));
	if (diag->error < 0) {
		if (diag->site) {
			error_put(&out, " at 0x");
			put_hex(&out, (uintptr_t)diag->site, 0);
		}
		if (diag->key) {
			error_put(&out, " of key ");
			error_put(&out, diag->key);
		}
		if (diag->len) {
			error_put(&out, ": expected");
			error_put_bytes(&out, diag->expected, diag->len);
			error_put(&out, ", found");
			error_put_bytes(&out, diag->found, diag->len);
		}
		if (diag->tid) {
			error_put(&out, ": thread ");
			put_int(&out, diag->tid);
		}
		if (diag->detail) {
			error_put(&out, ": ");
			error_put(&out, diag->detail);
		}
		if (diag->system) {
			error_put(&out, " (errno ");
			put_int(&out, diag->system);
			error_put(&out, ")");
		}
		error_put(&out, advice(diag));
	}
	if (size)
		buffer[out.len < size ? out.len : size - 1] = '\0';
	return out.len;
}
