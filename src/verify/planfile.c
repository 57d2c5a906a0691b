// SPDX-License-Identifier: MIT
/*
 * Line by line; the first mistake ends it.
 *
 * I1  Nothing is read at or after text[len], and nothing in the text can make the reader write outside its arrays: every
 *     count is checked before it grows.
 */
#include "core/text.h"
#include "verify/planfile.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SYMBOLS 16
#define MAX_WORD 24 /* of a symbol's name */

struct symbol {
	char name[MAX_WORD];
	uint8_t len;
	uint8_t bytes[XP_MAX_LEN];
};

struct reader {
	struct xp__planfile *file;
	const char *at, *line, *end; /* end: of the line, or where its comment begins */
	unsigned nr_line;
	/* The plan being read. */
	struct xp__schedule *schedule;
	unsigned plan_line, nr_states, nr_symbols, nr_stores, store_line, store_column;
	unsigned resume_line, resume_column, entry_line, entry_column;
	unsigned first_event;                            /* of the commit being read */
	unsigned commit_line, commit_states, nr_commits; /* of the commits after the first */
	bool ends_in_sync;
	uint8_t before[XP_MAX_LEN]; /* the code when the commit began */
	uint8_t state[XP_MAX_LEN];
	struct symbol symbols[MAX_SYMBOLS];
	struct {
		uint8_t off, len;
	} stores[XP_MAX_LEN]; /* given for the next state */
};

struct word {
	const char *at;
	size_t len;
};

__attribute__((format(printf, 4, 5))) static int fail_at(struct reader *r, unsigned line, unsigned column,
							 const char *format, ...)
{
	va_list list;

	r->file->line = line;
	r->file->column = column;
	va_start(list, format);
	vsnprintf(r->file->reason, sizeof(r->file->reason), format, list);
	va_end(list);
	return -EINVAL;
}

static unsigned column(const struct reader *r, const char *at)
{
	return (unsigned)(at - r->line) + 1;
}

#define FAIL(r, where, ...) fail_at(r, (r)->nr_line, column(r, where), __VA_ARGS__)

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/* The next word of the line; len 0 at its end. */
static struct word next_word(struct reader *r)
{
	struct word word;

	while (r->at < r->end && is_blank(*r->at))
		r->at++;
	word.at = r->at;
	while (r->at < r->end && !is_blank(*r->at))
		r->at++;
	word.len = (size_t)(r->at - word.at);
	return word;
}

static bool word_is(struct word word, const char *text)
{
	return word.len == strlen(text) && memcmp(word.at, text, word.len) == 0;
}

static int end_of_line(struct reader *r)
{
	struct word word = next_word(r);

	return word.len ? FAIL(r, word.at, "nothing more is expected on this line") : 0;
}

static int digit(char c, unsigned base)
{
	int value = c >= '0' && c <= '9'   ? c - '0'
		    : c >= 'a' && c <= 'f' ? c - 'a' + 10
		    : c >= 'A' && c <= 'F' ? c - 'A' + 10
					   : 99;

	return value < (int)base ? value : -1;
}

/* @len digits at @at; -1 if they are none, or more than @max. */
static int number(const char *at, size_t len, unsigned base, unsigned max)
{
	unsigned value = 0;

	if (len == 0)
		return -1;
	for (size_t i = 0; i < len; i++) {
		int d = digit(at[i], base);

		if (d < 0)
			return -1;
		value = value * base + (unsigned)d;
		if (value > max)
			return -1;
	}
	return (int)value;
}

static int hex_byte(struct word word)
{
	return word.len == 2 ? number(word.at, 2, 16, 255) : -1;
}

static bool is_symbol(struct word word)
{
	if (word.len == 0 || word.len >= MAX_WORD || hex_byte(word) >= 0)
		return false;
	for (size_t i = 0; i < word.len; i++) {
		char c = word.at[i];

		if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && c != '_' && (i == 0 || c < '0' || c > '9'))
			return false;
	}
	return true;
}

static struct symbol *find_symbol(struct reader *r, struct word word)
{
	for (unsigned i = 0; i < r->nr_symbols; i++)
		if (word_is(word, r->symbols[i].name))
			return &r->symbols[i];
	return NULL;
}

/* A breakpoint at the first byte, in any state of a commit, has a record, as the library's have. */
static void add_record(struct xp__schedule *schedule, unsigned first, const uint8_t *before)
{
	bool breaks = before[0] == XP__INSN_INT3_BYTE;

	for (unsigned i = first; i < schedule->nr_events; i++)
		breaks |= schedule->event[i].kind == XP__EVENT_STORE && schedule->event[i].off == 0 &&
			  schedule->event[i].bytes[0] == XP__INSN_INT3_BYTE;
	if (!breaks)
		return;
	xp__schedule_add(schedule, XP__EVENT_RETIRE);
	xp__schedule_add(schedule, XP__EVENT_RECLAIM);
	memmove(schedule->event + first + 2, schedule->event + first,
		(schedule->nr_events - first) * sizeof(schedule->event[0]));
	memset(&schedule->event[first], 0, 2 * sizeof(schedule->event[0]));
	schedule->event[first].kind = XP__EVENT_PUBLISH;
	schedule->event[first + 1].kind = XP__EVENT_RAISE;
	schedule->nr_events += 2;
}

/* The commit is complete: what it was for is known now. */
static int end_commit(struct reader *r)
{
	struct xp__schedule *schedule = r->schedule;

	if (r->nr_stores)
		return fail_at(r, r->store_line, r->store_column, "no state follows this store");
	if (r->nr_states < 2)
		return fail_at(r, r->plan_line, 1, "a plan has at least two states: the old code and the new");
	if (r->commit_line && r->nr_states == r->commit_states)
		return fail_at(r, r->commit_line, 1, "a commit has at least one state: the new code");
	memcpy(r->commit_line ? schedule->event[r->first_event - 1].bytes : schedule->new, r->state, XP_MAX_LEN);
	if (r->ends_in_sync)
		xp__schedule_add(schedule, XP__EVENT_RETURN);
	add_record(schedule, r->first_event, r->before);
	return 0;
}

/* The plan is complete, or it is not. */
static int end_plan(struct reader *r)
{
	int error;

	if (r->schedule == NULL)
		return 0;
	error = end_commit(r);
	if (error)
		return error;
	if (r->schedule->resume > r->schedule->len)
		return fail_at(r, r->resume_line, r->resume_column, "the site ends at offset %u", r->schedule->len);
	if (r->schedule->entries >> r->schedule->len)
		return fail_at(r, r->entry_line, r->entry_column, "the site ends at offset %u", r->schedule->len);
	r->schedule = NULL;
	return 0;
}

/* Whether a name can be printed anywhere. */
static bool shows(const char *name, size_t len)
{
	char text[sizeof(((struct xp__schedule *)0)->name)];
	uint32_t code;

	memcpy(text, name, len);
	text[len] = '\0';
	for (size_t at = 0; at < len;) {
		at += xp__character(text + at, &code);
		if (!xp__character_shows(code))
			return false;
	}
	return true;
}

static int read_plan(struct reader *r, struct word directive)
{
	struct xp__planfile *file = r->file;
	struct xp__schedule *schedules;
	const char *end = r->end;
	struct word name;
	int error = end_plan(r);

	if (error)
		return error;
	while (end > r->at && is_blank(end[-1]))
		end--;
	name = next_word(r);
	if (name.len == 0)
		return FAIL(r, name.at, "a name is expected");
	if ((size_t)(end - name.at) >= sizeof(schedules->name))
		return FAIL(r, name.at, "the name is longer than %zu characters", sizeof(schedules->name) - 1);
	if (!shows(name.at, (size_t)(end - name.at)))
		return FAIL(r, name.at, "the name has characters that do not show, or bytes that are no UTF-8");
	schedules = realloc(file->schedules, (file->nr + 1) * sizeof(*schedules));
	if (schedules == NULL)
		return -ENOMEM;
	file->schedules = schedules;
	r->schedule = &schedules[file->nr++];
	memset(r->schedule, 0, sizeof(*r->schedule));
	memcpy(r->schedule->name, name.at, (size_t)(end - name.at));
	r->schedule->mode = 64;
	r->schedule->resume = XP__RESUME_EMULATE;
	r->schedule->faults = r->schedule->reclaim_waits = true;
	r->plan_line = r->nr_line;
	r->nr_states = r->nr_symbols = r->nr_stores = 0;
	r->first_event = r->commit_line = r->commit_states = r->nr_commits = 0;
	r->ends_in_sync = false;
	r->at = r->end;
	(void)directive;
	return 0;
}

static int read_mode(struct reader *r, struct word directive)
{
	struct word word = next_word(r);
	int mode = number(word.at, word.len, 10, 64);

	if (r->nr_states)
		return FAIL(r, directive.at, "the mode stands before the first state");
	if (mode != 16 && mode != 32 && mode != 64)
		return FAIL(r, word.at, "16, 32 or 64 is expected");
	r->schedule->mode = (uint8_t)mode;
	return 0;
}

static int read_let(struct reader *r, struct word directive)
{
	struct word name = next_word(r), equals = next_word(r), word;
	struct symbol *symbol = &r->symbols[r->nr_symbols];

	if (!is_symbol(name))
		return FAIL(r, name.at,
			    "a symbol is expected: a letter, then letters, digits and _, and no hexadecimal byte");
	if (find_symbol(r, name))
		return FAIL(r, name.at, "the symbol is defined already");
	if (r->nr_symbols == MAX_SYMBOLS)
		return FAIL(r, directive.at, "more than %u symbols", MAX_SYMBOLS);
	if (!word_is(equals, "="))
		return FAIL(r, equals.at, "= is expected");
	memset(symbol, 0, sizeof(*symbol));
	memcpy(symbol->name, name.at, name.len);
	for (word = next_word(r); word.len; word = next_word(r)) {
		int byte = hex_byte(word);

		if (byte < 0)
			return FAIL(r, word.at, "a byte is expected: two hexadecimal digits");
		if (symbol->len == XP_MAX_LEN)
			return FAIL(r, word.at, "more than %u bytes", XP_MAX_LEN);
		symbol->bytes[symbol->len++] = (uint8_t)byte;
	}
	if (symbol->len == 0)
		return FAIL(r, word.at, "a byte is expected: two hexadecimal digits");
	r->nr_symbols++;
	return 0;
}

static int read_selectors(struct reader *r, struct word directive)
{
	struct xp__schedule *schedule = r->schedule;
	struct word word = next_word(r);

	(void)directive;
	if (word.len == 0)
		return FAIL(r, word.at, "a selector is expected");
	for (; word.len; word = next_word(r)) {
		const char *dash = memchr(word.at, '-', word.len);
		size_t len = dash ? (size_t)(dash - word.at) : word.len;
		int first = number(word.at, len, 16, 0xffff);
		int last = dash ? number(dash + 1, word.len - len - 1, 16, 0xffff) : first;

		if (first < 0 || last < first)
			return FAIL(r, word.at,
				    "a selector, or FIRST-LAST, is expected, in up to four hexadecimal digits each");
		if (schedule->nr_invalid == XP__MAX_RANGES)
			return FAIL(r, word.at, "more than %u ranges", XP__MAX_RANGES);
		schedule->invalid[schedule->nr_invalid].first = (uint16_t)first;
		schedule->invalid[schedule->nr_invalid++].last = (uint16_t)last;
	}
	return 0;
}

static const char too_many[] = "more stores and syncs than the verifier takes";

/* For one event, and the five that end_commit() adds. */
static bool has_room(const struct reader *r)
{
	return r->schedule->nr_events + 6 <= XP__MAX_EVENTS;
}

/* One store of the bytes [off, off+len) of @state. */
static int add_store(struct reader *r, struct word directive, const uint8_t *state, unsigned off, unsigned len)
{
	struct xp__event *event;

	if (!has_room(r))
		return FAIL(r, directive.at, too_many);
	event = xp__schedule_add(r->schedule, XP__EVENT_STORE);
	event->off = (uint8_t)off;
	event->len = (uint8_t)len;
	event->single = true;
	memcpy(event->bytes, state + off, len);
	memcpy(r->state + off, state + off, len);
	return 0;
}

static int store_state(struct reader *r, struct word directive, const uint8_t *state)
{
	unsigned len = r->schedule->len, first = 0, last = len;
	int error = 0;

	while (first < len && state[first] == r->state[first])
		first++;
	if (first == len)
		return FAIL(r, directive.at, "the state is the same as the one before");
	while (state[last - 1] == r->state[last - 1])
		last--;
	if (r->nr_stores == 0 && last - first > 8)
		return FAIL(r, directive.at,
			    "no store is %u bytes long: say with `store OFFSET LENGTH` lines how it is reached",
			    last - first);
	if (r->nr_stores == 0)
		return add_store(r, directive, state, first, last - first);
	for (unsigned i = 0; i < r->nr_stores && !error; i++) {
		if (r->stores[i].off + r->stores[i].len > len)
			return fail_at(r, r->store_line, r->store_column, "the store reaches beyond the site");
		error = add_store(r, directive, state, r->stores[i].off, r->stores[i].len);
	}
	r->nr_stores = 0;
	if (!error && memcmp(r->state, state, len) != 0)
		return FAIL(r, directive.at, "the stores before it do not lead to this state");
	return error;
}

static int read_state(struct reader *r, struct word directive)
{
	uint8_t state[XP_MAX_LEN] = {0}, used[MAX_SYMBOLS] = {0};
	unsigned len = 0;
	struct word word;

	for (word = next_word(r); word.len; word = next_word(r), len++) {
		struct symbol *symbol = find_symbol(r, word);
		int byte = hex_byte(word);

		if (len == XP_MAX_LEN || (r->nr_states && len == r->schedule->len))
			return FAIL(r, word.at,
				    r->nr_states ? "this state is longer than the first"
						 : "a site has at most 16 bytes");
		if (!symbol && byte < 0)
			return FAIL(r, word.at, "a byte or a symbol is expected");
		if (symbol && used[symbol - r->symbols] == symbol->len)
			return FAIL(r, word.at, "%s has only %u bytes", symbol->name, symbol->len);
		state[len] = symbol ? symbol->bytes[used[symbol - r->symbols]++] : (uint8_t)byte;
	}
	if (len == 0 || (r->nr_states && len != r->schedule->len))
		return FAIL(r, word.at,
			    len ? "this state is shorter than the first" : "a byte or a symbol is expected");
	r->ends_in_sync = false;
	if (r->nr_states++ > 0)
		return store_state(r, directive, state);
	if (r->nr_stores)
		return FAIL(r, directive.at, "the first state is not reached by a store");
	r->schedule->len = (uint8_t)len;
	memcpy(r->schedule->old, state, sizeof(state));
	memcpy(r->before, state, sizeof(state));
	memcpy(r->state, state, sizeof(state));
	return 0;
}

static int read_store(struct reader *r, struct word directive)
{
	struct word offset = next_word(r), length = next_word(r);
	int off = number(offset.at, offset.len, 10, XP_MAX_LEN - 1), len = number(length.at, length.len, 10, 8);

	if (off < 0)
		return FAIL(r, offset.at, "an offset in the site is expected");
	if (len < 1)
		return FAIL(r, length.at, "a length from 1 to 8 is expected");
	if (r->nr_stores == XP_MAX_LEN)
		return FAIL(r, directive.at, "more than %u stores for one state", XP_MAX_LEN);
	r->stores[r->nr_stores].off = (uint8_t)off;
	r->stores[r->nr_stores++].len = (uint8_t)len;
	r->store_line = r->nr_line;
	r->store_column = column(r, directive.at);
	return 0;
}

static int read_sync(struct reader *r, struct word directive)
{
	if (r->nr_states == 0 || r->nr_stores)
		return FAIL(r, directive.at, "sync stands after a state");
	if (!has_room(r))
		return FAIL(r, directive.at, too_many);
	xp__schedule_add(r->schedule, XP__EVENT_SYNC);
	r->ends_in_sync = r->nr_states > 1;
	return 0;
}

static int read_commit(struct reader *r, struct word directive)
{
	int error;

	if (r->nr_states < 2)
		return FAIL(r, directive.at, "commit stands after the new code of the commit before");
	error = end_commit(r);
	if (error)
		return error;
	if (r->nr_commits++ == XP__MAX_COMMITS - 1)
		return FAIL(r, directive.at, "more than %u commits", XP__MAX_COMMITS);
	if (!has_room(r))
		return FAIL(r, directive.at, too_many);
	xp__schedule_add(r->schedule, XP__EVENT_COMMIT);
	r->first_event = r->schedule->nr_events;
	r->commit_line = r->nr_line;
	r->commit_states = r->nr_states;
	r->ends_in_sync = false;
	memcpy(r->before, r->state, sizeof(r->before));
	return 0;
}

static int read_free(struct reader *r, struct word directive)
{
	if (r->nr_states < 2 || r->nr_stores || r->schedule->resume != XP__RESUME_COPY)
		return FAIL(r, directive.at, "free-copy stands after a state, in a plan with `resume copy`");
	if (!has_room(r))
		return FAIL(r, directive.at, too_many);
	xp__schedule_add(r->schedule, XP__EVENT_FREE);
	return 0;
}

static int read_entry(struct reader *r, struct word directive)
{
	struct word word = next_word(r);

	(void)directive;
	do {
		int offset = number(word.at, word.len, 10, XP_MAX_LEN - 1);

		if (offset < 0)
			return FAIL(r, word.at, "an offset in the site is expected");
		r->schedule->entries |= (uint16_t)(1u << offset);
		r->entry_line = r->nr_line;
		r->entry_column = column(r, word.at);
		word = next_word(r);
	} while (word.len);
	return 0;
}

static int read_restart(struct reader *r, struct word directive)
{
	(void)directive;
	r->schedule->restart_on_nop = true;
	return 0;
}

static int read_resume(struct reader *r, struct word directive)
{
	struct word word = next_word(r);
	int offset = number(word.at, word.len, 10, XP_MAX_LEN);

	(void)directive;
	if (word_is(word, "copy")) {
		r->schedule->resume = XP__RESUME_COPY;
		return 0;
	}
	if (offset < 0)
		return FAIL(r, word.at, "an offset in the site, its length, or `copy` is expected");
	r->schedule->resume = (int8_t)offset;
	r->resume_line = r->nr_line;
	r->resume_column = column(r, word.at);
	return 0;
}

static int read_line(struct reader *r)
{
	static const struct {
		const char *name;
		int (*read)(struct reader *, struct word);
	} directives[] = {
		{"plan", read_plan},   {"mode", read_mode},     {"let", read_let},
		{"state", read_state}, {"store", read_store},   {"invalid-selectors", read_selectors},
		{"sync", read_sync},   {"resume", read_resume}, {"restart-on-nop", read_restart},
		{"entry", read_entry}, {"commit", read_commit}, {"free-copy", read_free},
	};
	struct word word = next_word(r);

	if (word.len == 0)
		return 0;
	for (const char *c = word.at; c < r->end; c++)
		if ((*c < ' ' || *c > '~') && !is_blank(*c))
			return FAIL(r, c, "only printable ASCII is expected outside comments");
	for (size_t i = 0; i < sizeof(directives) / sizeof(directives[0]); i++) {
		int error;

		if (!word_is(word, directives[i].name))
			continue;
		if (r->schedule == NULL && i != 0)
			return FAIL(r, word.at, "`plan NAME` is expected first");
		error = directives[i].read(r, word);
		return error ? error : end_of_line(r);
	}
	return FAIL(r, word.at, "there is no directive of this name");
}

int xp__planfile_read(struct xp__planfile *file, const char *text, size_t len)
{
	const char *end = text + len;
	struct reader r;
	int error = 0;

	memset(file, 0, sizeof(*file));
	memset(&r, 0, sizeof(r));
	r.file = file;
	for (const char *line = text; line < end && !error;) {
		const char *newline = memchr(line, '\n', (size_t)(end - line));
		const char *after = newline ? newline : end;
		const char *comment = memchr(line, '#', (size_t)(after - line));

		r.line = r.at = line;
		r.end = comment ? comment : after;
		r.nr_line++;
		error = read_line(&r);
		line = newline ? newline + 1 : end;
	}
	if (!error)
		error = end_plan(&r);
	if (!error && file->nr == 0)
		error = fail_at(&r, 1, 1, "there is no plan in this file");
	return error;
}

void xp__planfile_free(struct xp__planfile *file)
{
	free(file->schedules);
	file->schedules = NULL;
	file->nr = 0;
}
