// SPDX-License-Identifier: MIT
/*
 * What is asked through the control socket, and the answers: text, so that they can be read and sent by hand.
 *
 *	crosspatch 1 list
 *	crosspatch 1 set NAME VALUE
 *	crosspatch 1 repair
 *	crosspatch 1 status
 *
 * An answer is lines of fields, separated by tabs; the first field of a line says what it is, the others are called
 * name=value. In values a backslash, a tab and what is no character stand as \\, \t, \xHH. New fields may come; a line "end"
 * says that the answer is whole.
 *
 *	crosspatch 1 ok			or	crosspatch 1 error	code=-22	text=…
 *	object	kind=key	state=on	count=1	sites=3	address=0x4010	line=12	file=a.c	name=tracing
 *	end
 *
 * I1  Names, files and values are copied under the text lock: a module that is closed takes its own away.
 * I2  What is asked for is found and changed under one text lock; between the two nothing can go away.
 * I3  What is not understood, ambiguous or impossible changes nothing, and is told why.
 */
#include "control/proto.h"

#include "core/batch.h"
#include "core/drift.h"
#include "core/kind.h"
#include "core/site.h"
#include "core/state.h"

#include <errno.h>
#include <string.h>

#define XP_NO_PATCHING
#include <crosspatch/gate_far.h>
#include <crosspatch/imv.h>
#include <crosspatch/static_call.h>
#include <crosspatch/static_key.h>
#include <crosspatch/static_switch.h>

/* ---- text ---- */

struct out {
	char *to;
	size_t size, len; /* len may exceed size: what would have been needed */
};

static void put_bytes(struct out *out, const char *bytes, size_t len)
{
	if (out->len < out->size)
		memcpy(out->to + out->len, bytes, len < out->size - out->len ? len : out->size - out->len);
	out->len += len;
}

static void put(struct out *out, const char *text)
{
	put_bytes(out, text, strlen(text));
}

static void put_number(struct out *out, uint64_t value, unsigned base)
{
	char text[20];
	unsigned at = sizeof(text);

	do {
		text[--at] = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	put_bytes(out, text + at, sizeof(text) - at);
}

static void put_value(struct out *out, const char *text)
{
	static const char hex[] = "0123456789abcdef";

	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '\\')
			put(out, "\\\\");
		else if (c == '\t')
			put(out, "\\t");
		else if (c < ' ' || c == 0x7f)
			put_bytes(out, (const char[]){'\\', 'x', hex[c >> 4], hex[c & 15]}, 4);
		else
			put_bytes(out, text, 1);
	}
}

static void field(struct out *out, const char *name)
{
	put(out, "\t");
	put(out, name);
	put(out, "=");
}

static void field_number(struct out *out, const char *name, uint64_t value)
{
	field(out, name);
	put_number(out, value, 10);
}

static void field_address(struct out *out, const char *name, uintptr_t value)
{
	field(out, name);
	put(out, "0x");
	put_number(out, value, 16);
}

static void field_text(struct out *out, const char *name, const char *text)
{
	field(out, name);
	put_value(out, text);
}

size_t xp__proto_error(int error, const char *why, char *to, size_t size)
{
	struct out out = {to, size, 0};

	put(&out, "crosspatch 1 error");
	field(&out, "code");
	put(&out, error < 0 ? "-" : "");
	put_number(&out, error < 0 ? 0u - (unsigned)error : (unsigned)error, 10);
	field_text(&out, "text", why);
	put(&out, "\nend\n");
	return out.len;
}

/* ---- objects ---- */

static const struct {
	const struct xp__kind *kind;
	const char *name;
} kinds[] = {
	{&xp__key_kind, "key"},        {&xp__switch_kind, "switch"}, {&xp__value_kind, "value"},
	{&xp__call_kind, "call"},      {&xp__gate_kind, "gate"},     {&xp__gate_far_kind, "far gate"},
	{&xp__entry_kind, "function"},
};

static const char *kind_of(const struct xp__kind *kind)
{
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].kind == kind)
			return kinds[i].name;
	return "other";
}

/* A number of the value's type: one with a sign, or the bits of a floating-point number. */
static void put_imv(struct out *out, const struct xp_imv *imv, uint64_t bits)
{
	unsigned above = 64 - 8 * imv->size;
	bool minus = false;

	if (imv->type & XP_IMV_FLOAT)
		put(out, "0x");
	if (imv->type & XP_IMV_SIGNED && above < 64) {
		int64_t value = (int64_t)(bits << above) >> above;

		minus = value < 0;
		bits = minus ? 0 - (uint64_t)value : (uint64_t)value;
	}
	put(out, minus ? "-" : "");
	put_number(out, bits, imv->type & XP_IMV_FLOAT ? 16 : 10);
}

static void put_imv_type(struct out *out, const struct xp_imv *imv)
{
	field_number(out, "size", imv->size);
	if (!(imv->type & XP_IMV_TYPED))
		return;
	field_text(out, "type",
		   imv->type & XP_IMV_BOOL     ? "bool"
		   : imv->type & XP_IMV_FLOAT  ? "float"
		   : imv->type & XP_IMV_SIGNED ? "signed"
					       : "unsigned");
	if (imv->type & XP_IMV_RANGE) {
		field(out, "least");
		put_imv(out, imv, imv->least);
		field(out, "most");
		put_imv(out, imv, imv->most);
	}
}

/* What an object is now, as the one word by which it could be set. */
static void put_state(struct out *out, const struct xp__kind *kind, struct xp_object *object)
{
	struct xp__request request = {.kind = kind, .object = object};

	if (kind == &xp__entry_kind) {
		put(out, "asked for");
		return;
	}
	kind->get_state(&request);
	if (kind == &xp__key_kind) {
		put(out, request.on ? "on" : "off");
	} else if (kind == &xp__switch_kind) {
		put_number(out, request.choice, 10);
	} else if (kind == &xp__value_kind) {
		put_imv(out, (const struct xp_imv *)object, request.bits);
	} else if (kind == &xp__call_kind || kind == &xp__gate_kind) {
		uintptr_t to = kind == &xp__call_kind ? (uintptr_t)request.call.func : (uintptr_t)request.gate.provider;

		put(out, to ? "0x" : "none");
		if (to)
			put_number(out, to, 16);
	} else if (kind == &xp__gate_far_kind && request.far.selector) {
		put(out, "0x");
		put_number(out, request.far.selector, 16);
		put(out, ":0x");
		put_number(out, request.far.offset, 16);
	} else {
		put(out, "none");
	}
}

static void put_object(struct out *out, const struct xp__group *groups)
{
	const struct xp__kind *kind = groups->kind;
	struct xp_object *object = groups->object;
	size_t sites = 0, drifted;

	/* A trampoline and a stub have records too, in the place of sites. */
	for (const struct xp__group *group = groups; group; group = group->next)
		sites += kind == &xp__call_kind || kind == &xp__gate_kind ? group->nr - group->nr_flag[1] : group->nr;
	put(out, "object");
	field_text(out, "kind", kind_of(kind));
	field(out, "state");
	put_state(out, kind, object);
	if (kind == &xp__key_kind)
		field_number(out, "count", (unsigned)xp__static_key_count((const struct xp_static_key *)object));
	if (kind == &xp__switch_kind)
		field_number(out, "choices", ((const struct xp_static_switch *)object)->nr);
	if (kind == &xp__value_kind)
		put_imv_type(out, (const struct xp_imv *)object);
	field_number(out, "sites", sites);
	if (xp__drift_check(groups, &drifted, NULL))
		field_number(out, "drifted", drifted);
	field_address(out, "address", (uintptr_t)object);
	if (object->file) {
		field_number(out, "line", object->line);
		field_text(out, "file", object->file);
	}
	if (object->name)
		field_text(out, "name", object->name);
}

static int list_one(const struct xp__group *groups, void *out)
{
	put_object(out, groups);
	put(out, "\n");
	return 0;
}

/* Functions are many: only those that were written to from elsewhere. */
static int list_function(const struct xp__group *groups, void *out)
{
	return xp__drift_check(groups, NULL, NULL) ? list_one(groups, out) : 0;
}

static size_t list(char *to, size_t size)
{
	struct out out = {to, size, 0};
	int error;

	put(&out, "crosspatch 1 ok\n");
	error = xp__proto_port.lock(); /* not the engine's: where it is wedged there is still much to be seen */
	if (error)
		return xp__proto_error(error, xp_strerror(error), to, size);
	(void)xp__objects_each(list_one, &out);
	(void)xp__functions_each(list_function, &out);
	xp__proto_port.unlock();
	put(&out, "end\n");
	return out.len;
}

/* ---- which one is meant ---- */

struct word {
	const char *start;
	size_t len;
};

/* NAME, FILE:NAME, FILE:LINE:NAME, or the address. */
struct wanted {
	struct word name, file;
	uint64_t line, address; /* 0: any */
	unsigned matches;
	const struct xp__group *groups; /* of the last one */
};

/* A whole number, hexadecimal behind 0x; a minus gives its two's complement. */
static bool number(struct word word, uint64_t *value)
{
	bool minus = word.len > 0 && word.start[0] == '-';
	size_t i = minus;
	unsigned base = 10;

	if (word.len >= i + 2 && word.start[i] == '0' && word.start[i + 1] == 'x') {
		base = 16;
		i += 2;
	}
	*value = 0;
	if (i == word.len)
		return false;
	for (; i < word.len; i++) {
		static const char digits[] = "0123456789abcdef";
		const char *digit = memchr(digits, word.start[i], base);
		uint64_t next;

		if (digit == NULL || __builtin_mul_overflow(*value, (uint64_t)base, &next) ||
		    __builtin_add_overflow(next, (uint64_t)(digit - digits), value))
			return false;
	}
	if (minus && *value > 1ull << 63)
		return false;
	*value = minus ? 0 - *value : *value;
	return true;
}

/* Cuts off what stands behind the last @separator. */
static struct word cut(struct word *word, char separator)
{
	const char *at = word->len ? memrchr(word->start, separator, word->len) : NULL;
	struct word rest = {NULL, 0};

	if (at) {
		rest = (struct word){at + 1, (size_t)(word->start + word->len - at - 1)};
		word->len = (size_t)(at - word->start);
	}
	return rest;
}

static void parse_wanted(struct wanted *wanted, struct word word)
{
	struct word rest = word, last = cut(&rest, ':'), line;

	memset(wanted, 0, sizeof(*wanted));
	wanted->name = word;
	if (last.start == NULL) {
		if (word.len > 2 && memcmp(word.start, "0x", 2) == 0)
			(void)number(word, &wanted->address);
		return;
	}
	wanted->name = last;
	wanted->file = rest;
	line = cut(&rest, ':');
	if (line.start && number(line, &wanted->line))
		wanted->file = rest;
}

/* The whole name of a file, or the last parts of it. */
static bool is_file(const char *file, struct word wanted)
{
	size_t len = strlen(file);

	return len >= wanted.len && memcmp(file + len - wanted.len, wanted.start, wanted.len) == 0 &&
	       (len == wanted.len || file[len - wanted.len - 1] == '/');
}

static int match(const struct xp__group *groups, void *data)
{
	const struct xp_object *object = groups->object;
	struct wanted *wanted = data;
	struct word name = wanted->name;
	bool named =
		object->name && strlen(object->name) == name.len && memcmp(object->name, name.start, name.len) == 0;

	if (wanted->address ? (uintptr_t)object != wanted->address : !named)
		return 0;
	if (wanted->file.start && (object->file == NULL || !is_file(object->file, wanted->file)))
		return 0;
	if (wanted->line && object->line != wanted->line)
		return 0;
	wanted->matches++;
	wanted->groups = groups;
	return 0;
}

/* ---- set ---- */

static const char *range_of(const struct xp__kind *kind)
{
	return kind == &xp__key_kind      ? "a key is set to on or off"
	       : kind == &xp__switch_kind ? "a switch is set to the number of a choice, from 0 to one less than it has"
					  : "a value is set to a whole number that its size holds";
}

/* Whether a number as it is written is one of the value's type; its range is the value's own business. */
static bool is_of_type(const struct xp_imv *imv, struct word word, uint64_t value, const char **why)
{
	bool minus = word.start[0] == '-',
	     hexadecimal = word.len > 2 && word.start[minus] == '0' && word.start[minus + 1] == 'x';
	unsigned sign = 8 * imv->size - 1;

	if (imv->type & XP_IMV_BOOL) {
		*why = "a value of type bool is set to 0 or 1";
		return !minus && value <= 1;
	}
	if (imv->type & XP_IMV_FLOAT) {
		*why = "a floating-point value is set by its bits, hexadecimal behind 0x, as list shows them";
		return !minus && hexadecimal;
	}
	if (imv->type & XP_IMV_SIGNED) {
		*why = "the value has a sign: it is set to a whole number that its size holds with one";
		return sign > 63 || (minus ? 0 - value <= 1ull << sign : value < 1ull << sign);
	}
	*why = "the value's type has no sign";
	return !(imv->type & XP_IMV_TYPED) || !minus || value == 0;
}

/* The request that the object found be @value. @why: if it cannot be. */
static int parse(struct xp__request *request, const struct xp__group *groups, struct word word, const char **why)
{
	const struct xp__kind *kind = groups->kind;
	bool on = word.len == 2 && memcmp(word.start, "on", 2) == 0;
	bool off = word.len == 3 && memcmp(word.start, "off", 3) == 0;
	uint64_t value = on;
	int error;

	if (kind->parse == NULL) {
		*why = "only keys, switches and values are set from outside: where a call or gate goes is for the program to say";
		return -EOPNOTSUPP;
	}
	*why = range_of(kind);
	if (on || off ? kind != &xp__key_kind : !number(word, &value))
		return -EINVAL;
	if (kind == &xp__value_kind && !is_of_type((const struct xp_imv *)groups->object, word, value, why))
		return -EINVAL;
	*why = range_of(kind);
	error = kind->parse(request, groups->object, value);
	if (error == -XP_E_VALUE)
		*why = "the number is outside of the value's range, which list shows; nothing was changed";
	return error;
}

static bool any(const struct xp_module *module, const void *unused)
{
	(void)module;
	(void)unused;
	return true;
}

static int find(struct wanted *wanted, const char **why)
{
	int waiting = xp__modules_retry(any, NULL, NULL);

	(void)xp__objects_each(match, wanted);
	if (wanted->matches == 1)
		return 0;
	if (wanted->matches == 0 && waiting) {
		*why = "there is none called so in what is registered, and a part of the program could not be registered: see status";
		return waiting;
	}
	*why = wanted->matches
		       ? "several are called so: say which by FILE:NAME, FILE:LINE:NAME or the address that list shows"
		       : "there is none called so that has sites; list shows all that there are";
	return wanted->matches ? -ENOTUNIQ : -ENOENT;
}

/* The whole answer, under the text lock. What it needs is known before anything is done. */
static size_t set_locked(struct word which, struct word value, char *to, size_t size)
{
	enum { MARGIN = 1024 };
	struct out out = {to, size, 0};
	struct wanted wanted;
	struct xp_diag diag;
	struct xp__request request;
	const char *why = NULL;
	char text[512];
	int error;

	parse_wanted(&wanted, which);
	error = find(&wanted, &why);
	if (!error)
		error = parse(&request, wanted.groups, value, &why);
	if (error)
		return xp__proto_error(error, why, to, size);
	put(&out, "crosspatch 1 ok\nbefore");
	field(&out, "state");
	put_state(&out, wanted.groups->kind, wanted.groups->object);
	put(&out, "\n");
	size_t before = out.len;
	(void)list_one(wanted.groups, &out);
	if (out.len + MARGIN > size)
		return out.len + MARGIN;
	memset(&diag, 0, sizeof(diag));
	error = xp__batch_apply_locked(&request, 1, &diag);
	if (error) {
		diag.error = error;
		xp_diag_format(&diag, text, sizeof(text));
		return xp__proto_error(error, text, to, size);
	}
	out.len = before;
	(void)list_one(wanted.groups, &out);
	put(&out, "end\n");
	return out.len;
}

static size_t set(struct word which, char *to, size_t size)
{
	struct word value = cut(&which, ' ');
	struct xp_diag diag;
	size_t need;
	int error;

	if (value.len == 0 || which.len == 0)
		return xp__proto_error(-EINVAL, "set wants a name and a value", to, size);
	error = xp__lock(&diag);
	if (error)
		return xp__proto_error(error, xp_strerror(error), to, size);
	need = set_locked(which, value, to, size);
	xp__unlock();
	return need;
}

/* ---- repair ---- */

static size_t repair(char *to, size_t size)
{
	struct out out = {to, size, 0};
	struct xp_diag diag;
	char text[512];
	int result = xp_repair(&diag);

	if (result < 0) {
		diag.error = result;
		xp_diag_format(&diag, text, sizeof(text));
		return xp__proto_error(result, text, to, size);
	}
	put(&out, "crosspatch 1 ok\nrepaired");
	field_number(&out, "sites", (uint64_t)result);
	put(&out, "\nend\n");
	return out.len;
}

/* ---- status ---- */

static int count_drifted(const struct xp__group *groups, void *sum)
{
	size_t nr;

	(void)xp__drift_check(groups, &nr, NULL);
	*(size_t *)sum += nr;
	return 0;
}

static const char *state_name(enum xp_state state)
{
	return state == XP_STATE_READY ? "ready" : state == XP_STATE_WEDGED ? "wedged" : "no port";
}

static size_t status(char *to, size_t size)
{
	static const char *const policies[] = {"auto", "breakpoint", "quiesce", "early"};
	struct out out = {to, size, 0};
	struct xp__report report;
	struct xp_stats stats;
	size_t drifted = 0;
	int error = xp__proto_port.lock();

	if (error)
		return xp__proto_error(error, xp_strerror(error), to, size);
	xp__proto_port.report(&report);
	(void)xp__drift_each(count_drifted, &drifted);
	xp__proto_port.unlock();
	xp_stats_read(&stats);
	put(&out, "crosspatch 1 ok\nstatus");
	field_text(&out, "state", state_name(xp_state()));
	field_text(&out, "policy", policies[xp_policy()]);
	field_text(&out, "writer", report.writer);
	field_text(&out, "sync", report.sync);
	field_number(&out, "single", report.single);
	field_number(&out, "shadow_stack", report.shadow_stack);
	field_number(&out, "module_error", (unsigned)-xp_module_error());
	field_number(&out, "drifted", drifted);
	field_number(&out, "commits", stats.commits);
	field_number(&out, "rollbacks", stats.rollbacks);
	field_number(&out, "syncs", stats.syncs);
	field_number(&out, "sites", stats.sites);
	field_number(&out, "traps", stats.traps);
	field_number(&out, "late_traps", stats.late_traps);
	put(&out, "\nend\n");
	return out.len;
}

size_t xp__proto_answer(const char *request, size_t len, char *to, size_t size)
{
	static const char hello[] = "crosspatch 1 ";
	static const char set_word[] = "set ";
	struct word rest = {request + sizeof(hello) - 1, len - (sizeof(hello) - 1)};

	if (memchr(request, '\0', len) || len < sizeof(hello) - 1 || memcmp(request, hello, sizeof(hello) - 1) != 0)
		return xp__proto_error(-EPROTO, "a request begins with \"crosspatch 1 \"", to, size);
	if (rest.len == 4 && memcmp(rest.start, "list", 4) == 0)
		return list(to, size);
	if (rest.len == 6 && memcmp(rest.start, "status", 6) == 0)
		return status(to, size);
	if (rest.len == 6 && memcmp(rest.start, "repair", 6) == 0)
		return repair(to, size);
	if (rest.len >= sizeof(set_word) && memcmp(rest.start, set_word, sizeof(set_word) - 1) == 0)
		return set((struct word){rest.start + 4, rest.len - 4}, to, size);
	return xp__proto_error(-EPROTO, "there is no such request; there are list, set, repair and status", to, size);
}
