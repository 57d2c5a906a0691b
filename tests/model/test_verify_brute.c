// SPDX-License-Identifier: MIT
/*
 * The explorer (src/verify/explore.c) against a slow enumerator that is meant to be obviously right, on small sites.
 *
 * The enumerator has none of the explorer's ideas. It writes down every history: every order of the pieces of every
 * store, with the whole text after each piece. In one history time is a number. A bystander chooses, block by block, the
 * moment at which it fetches, for all that is left of the site; Zydis decodes; what it executed is a string. Strings
 * are compared with those of the old and the new text when no thread changes them. Where the model has no order, every
 * fetch chooses its history too.
 */
#include "verify/explore.h"
#include "verify/matrix.h"

#include "xp_test.h"

#include <Zydis/Zydis.h>

enum {
	MAX_MOMENTS = 32,
	MAX_HISTORIES = 160,
	MAX_RANDOM_HISTORIES = 48, /* of schedules drawn: many small ones say more than a few large ones */
	MAX_SEEN = 20000,
	MAX_RUN = 160, /* characters of a string */
	MAX_COMMITS = 2,
	NR_CHAINS = 256,
};

struct moment {
	uint8_t kind;             /* of the event that ended here; a piece of a store: XP__EVENT_STORE */
	bool midway;              /* more pieces of the same store follow */
	uint8_t text[XP_MAX_LEN]; /* after it */
};

struct history {
	struct moment moments[MAX_MOMENTS]; /* [0] is before everything */
};

struct bystander {
	int now, entry, pc, bound;
	int trap;       /* -1: none; else the offset of the instruction that trapped */
	int done;       /* steps of the trap handler */
	int generation; /* that it read */
	int record;     /* that it found: its commit's number; -1: none */
	int returned;   /* commits that had when it began */
	bool fault, begun;
	char run[MAX_RUN];
};

struct brute {
	const struct xp__schedule *schedule;
	const struct xp__model *model;
	unsigned addr;
	struct history *histories;
	int nr_histories, most_histories;
	int nr_moments;          /* the same in all histories */
	const struct history *h; /* in which the bystander lives */
	ZydisDecoder decoder;
	int nr_commits;
	/* What is done from each offset: by the first code, by what each commit is for, by what it left when it returned. */
	char old[XP_MAX_LEN][8][MAX_RUN];
	char new[XP_MAX_LEN][MAX_COMMITS][8][MAX_RUN], final[XP_MAX_LEN][MAX_COMMITS][8][MAX_RUN];
	char (*collect)[MAX_RUN]; /* not NULL: the text is still, gather what it does */
	bool wrong, saw_old, saw_new, saw_trap, too_big;
	struct bystander *seen;
	int nr_seen;
	int chain[NR_CHAINS], next[MAX_SEEN]; /* of those seen, to find them */
};

static bool same_block(const struct brute *b, int i, int j)
{
	return (b->addr + (unsigned)i) / b->model->granule == (b->addr + (unsigned)j) / b->model->granule;
}

/* ---- histories ---- */

static void make_histories(struct brute *b, struct history *so_far, int nr, unsigned event, unsigned done);

static void put_moment(struct brute *b, const struct history *so_far, int nr, uint8_t kind, unsigned piece,
		       unsigned event, unsigned done)
{
	struct history h = *so_far;
	const struct xp__event *e = &b->schedule->event[event];

	if (nr == MAX_MOMENTS) {
		b->too_big = true;
		return;
	}
	h.moments[nr] = h.moments[nr - 1];
	h.moments[nr].kind = kind;
	h.moments[nr].midway = (done | piece) != ((1u << e->len) - 1) << e->off;
	for (unsigned i = 0; i < b->schedule->len; i++)
		if (piece >> i & 1)
			h.moments[nr].text[i] = e->bytes[i - e->off];
	make_histories(b, &h, nr + 1, event, done | piece);
}

/* @done: the bytes of event number @event that are stored already. */
static void make_histories(struct brute *b, struct history *so_far, int nr, unsigned event, unsigned done)
{
	const struct xp__event *e = &b->schedule->event[event];
	unsigned all;

	if (b->too_big)
		return;
	if (event == b->schedule->nr_events) {
		if (b->nr_histories == b->most_histories)
			b->too_big = true;
		else
			b->histories[b->nr_histories++] = *so_far;
		b->nr_moments = nr;
		return;
	}
	all = ((1u << e->len) - 1) << e->off;
	if (e->kind == XP__EVENT_STORE && done != all) {
		for (int i = 0; i < b->schedule->len; i++) {
			unsigned piece = 0;

			if (!((all & ~done) >> i & 1))
				continue;
			for (int j = 0; j < b->schedule->len; j++)
				if (i == j || (e->single && same_block(b, i, j)))
					piece |= 1u << j & all;
			/* Each piece once, named by its first byte. */
			if ((piece & ((1u << i) - 1)) == 0)
				put_moment(b, so_far, nr, XP__EVENT_STORE, piece, event, done);
		}
	} else if (e->kind == XP__EVENT_STORE) {
		make_histories(b, so_far, nr, event + 1, 0);
	} else if (nr == MAX_MOMENTS) {
		b->too_big = true;
	} else {
		so_far->moments[nr] = so_far->moments[nr - 1];
		so_far->moments[nr].kind = e->kind;
		so_far->moments[nr].midway = false;
		make_histories(b, so_far, nr + 1, event + 1, 0);
	}
}

/* Whether an event of @kind has happened by moment @now. */
static bool has_been(const struct brute *b, int kind, int now)
{
	for (int i = 1; i <= now; i++)
		if (b->h->moments[i].kind == kind)
			return true;
	return false;
}

/* What a walk from the beginning to moment @now tells. */
struct walk {
	int commit;     /* the number of the one that runs or has run last */
	int returned;   /* the number of the last one that has returned, plus one */
	int generation; /* how often it was raised */
	int record;     /* the commit whose record the handler would find; -1: none */
	int left;       /* the moment when the last one returned */
	bool reclaimed[MAX_COMMITS];
};

static struct walk walk(const struct brute *b, int now)
{
	struct walk w = {.record = -1};

	for (int i = 1; i <= now; i++) {
		int kind = b->h->moments[i].kind;

		w.commit += kind == XP__EVENT_COMMIT;
		w.generation += kind == XP__EVENT_RAISE;
		if (kind == XP__EVENT_RETURN) {
			w.returned = w.commit + 1;
			w.left = i;
		}
		if (kind == XP__EVENT_PUBLISH)
			w.record = w.commit;
		if (kind == XP__EVENT_RETIRE)
			w.record = -1;
		if (kind == XP__EVENT_RECLAIM)
			w.reclaimed[w.commit] = true;
	}
	return w;
}

static bool is_parked(const struct brute *b, int now)
{
	bool parked = false;

	for (int i = 1; i <= now; i++)
		parked = b->h->moments[i].kind == XP__EVENT_PARK ||
			 (parked && b->h->moments[i].kind != XP__EVENT_UNPARK);
	return parked;
}

/* ---- the bystander ---- */

static void step(struct brute *b, struct bystander s);

static bool is_among(char list[8][MAX_RUN], const char *run)
{
	for (int i = 0; i < 8; i++)
		if (strcmp(list[i], run) == 0)
			return true;
	return false;
}

static void leave(struct brute *b, const struct bystander *s)
{
	bool is_old, is_new = false, is_since;

	if (b->collect) {
		for (int i = 0; i < 8; i++) {
			if (b->collect[i][0] == 0)
				strcpy(b->collect[i], s->run);
			if (strcmp(b->collect[i], s->run) == 0)
				return;
		}
		b->too_big = true;
		return;
	}
	is_old = is_among(b->old[s->entry], s->run);
	is_since = s->returned == 0 || is_among(b->final[s->entry][s->returned - 1], s->run);
	for (int c = 0; c < b->nr_commits; c++) {
		bool is = is_among(b->new[s->entry][c], s->run);

		is_new |= is;
		is_since |= is && c >= s->returned;
	}
	if (!(is_old || is_new) || !is_since)
		b->wrong = true;
	else if (is_new)
		b->saw_new = true;
	else
		b->saw_old = true;
}

static void say(struct bystander *s, const char *what)
{
	size_t at = strlen(s->run);

	/* "cmc;" twice is nothing. */
	if (strcmp(what, "cmc;") == 0 && at >= 4 && strcmp(s->run + at - 4, "cmc;") == 0)
		s->run[at - 4] = 0;
	else
		snprintf(s->run + at, MAX_RUN - at, "%s", what);
}

static void continue_at(struct brute *b, struct bystander s, long long target)
{
	char text[40];

	if (target > s.pc && target < b->schedule->len) {
		s.pc = (int)target;
		step(b, s);
		return;
	}
	snprintf(text, sizeof(text), "to %lld;", target);
	say(&s, text);
	leave(b, &s);
}

static bool selector_faults(const struct brute *b, unsigned selector)
{
	for (int i = 0; i < b->schedule->nr_invalid; i++)
		if (selector >= b->schedule->invalid[i].first && selector <= b->schedule->invalid[i].last)
			return true;
	return false;
}

struct decoded {
	bool ok;
	ZydisDecodedInstruction insn;
	ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
};

static struct decoded decode(const struct brute *b, const uint8_t *bytes, int len)
{
	struct decoded d;

	d.ok = ZYAN_SUCCESS(
		ZydisDecoderDecodeFull(&b->decoder, bytes, len < 15 ? (size_t)len : 15, &d.insn, d.operands));
	return d;
}

static bool is_fault(const struct brute *b, const struct decoded *d)
{
	if (!b->schedule->faults || !d->ok)
		return false;
	if (d->insn.mnemonic == ZYDIS_MNEMONIC_UD2)
		return true;
	return d->insn.mnemonic == ZYDIS_MNEMONIC_CALL && d->operands[0].type == ZYDIS_OPERAND_TYPE_POINTER &&
	       selector_faults(b, d->operands[0].ptr.segment);
}

/* A trap says: what I executed is not what stood there before the last commit that had returned when I began. */
static bool stands_since(const struct brute *b, const struct bystander *s, const uint8_t *bytes, int len)
{
	int from = 0;

	for (int i = 1; i <= s->now && walk(b, i).returned <= s->returned; i++)
		from = walk(b, i).left;
	for (int i = 0; i < len; i++) {
		bool stood = false;

		for (int t = from; t <= s->now; t++)
			stood |= b->h->moments[t].text[s->pc + i] == bytes[i];
		if (!stood)
			return false;
	}
	return true;
}

/* The instruction has been fetched: @bytes are what is left of the site. */
static void execute(struct brute *b, struct bystander s, const uint8_t *bytes, const struct decoded *d)
{
	ZydisMnemonic m = d->insn.mnemonic;
	char text[96];

	if (!s.begun)
		s.returned = b->collect ? 0 : walk(b, s.now).returned;
	s.begun = true;
	if (m == ZYDIS_MNEMONIC_INT3 || is_fault(b, d)) {
		/* What the handler looks at is the byte before the saved program counter: behind any prefixes. */
		s.trap = m == ZYDIS_MNEMONIC_INT3 ? s.pc + d->insn.length - 1 : s.pc;
		s.fault = m != ZYDIS_MNEMONIC_INT3;
		if (b->collect)
			return;
		if (s.returned)
			b->wrong |= s.returned == b->nr_commits || !stands_since(b, &s, bytes, d->insn.length);
		step(b, s);
	} else if (m == ZYDIS_MNEMONIC_NOP) {
		continue_at(b, s, s.pc + d->insn.length);
	} else if (m == ZYDIS_MNEMONIC_CMC) {
		say(&s, "cmc;");
		continue_at(b, s, s.pc + d->insn.length);
	} else if (d->operands[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE && d->operands[0].imm.is_relative) {
		long long target = s.pc + d->insn.length + d->operands[0].imm.value.s;

		if (m == ZYDIS_MNEMONIC_JMP) {
			continue_at(b, s, target);
		} else if (m == ZYDIS_MNEMONIC_CALL) {
			snprintf(text, sizeof(text), "call %d %lld;", d->insn.operand_width, target);
			say(&s, text);
			continue_at(b, s, s.pc + d->insn.length);
		} else {
			struct bystander taken = s;

			snprintf(text, sizeof(text), "%s %lld taken;", ZydisMnemonicGetString(m), target);
			say(&taken, text);
			continue_at(b, taken, target);
			snprintf(text, sizeof(text), "%s %lld not;", ZydisMnemonicGetString(m), target);
			say(&s, text);
			continue_at(b, s, s.pc + d->insn.length);
		}
	} else if (m == ZYDIS_MNEMONIC_CALL && d->operands[0].type == ZYDIS_OPERAND_TYPE_POINTER) {
		snprintf(text, sizeof(text), "call %d %x:%x;", d->insn.operand_width, d->operands[0].ptr.segment,
			 d->operands[0].ptr.offset);
		say(&s, text);
		continue_at(b, s, s.pc + d->insn.length);
	} else {
		snprintf(text, sizeof(text), "at %d", s.pc);
		say(&s, text);
		for (int i = 0; i < d->insn.length; i++) {
			snprintf(text, sizeof(text), " %02x", bytes[i]);
			say(&s, text);
		}
		say(&s, ";");
		if (m == ZYDIS_MNEMONIC_UD2 || m == ZYDIS_MNEMONIC_RET || m == ZYDIS_MNEMONIC_JMP ||
		    m == ZYDIS_MNEMONIC_IRET || d->insn.meta.category == ZYDIS_CATEGORY_RET)
			leave(b, &s);
		else
			continue_at(b, s, s.pc + d->insn.length);
	}
}

static bool changes_meanwhile(const struct brute *b, int from, int to, int first, int len)
{
	for (int t = from + 1; t <= to; t++)
		if (memcmp(b->h->moments[t].text + first, b->h->moments[t - 1].text + first, (size_t)len) != 0)
			return true;
	return false;
}

/* @moment[i]: when byte pc+i was fetched, in @history[i]. */
static void fetched(struct brute *b, struct bystander s, const int *moment, const int *history)
{
	uint8_t bytes[XP_MAX_LEN];
	int len = b->schedule->len - s.pc;
	struct decoded d;

	for (int i = 0; i < len; i++)
		bytes[i] = b->histories[history[i]].moments[moment[i]].text[s.pc + i];
	d = decode(b, bytes, len);
	if (!d.ok) {
		if (!b->collect)
			b->wrong = true;
		return;
	}
	if (b->model->undefined && changes_meanwhile(b, s.bound, s.now, s.pc, d.insn.length)) {
		b->wrong = true;
		return;
	}
	for (int i = 0; i < d.insn.length && b->model->program_order; i++)
		if (moment[i] > s.bound)
			s.bound = moment[i];
	execute(b, s, bytes, &d);
}

/* Whether the bytes [first, last] were at a moment tried before (history by history, from @least to @now) as at @t in @h. */
static bool shown_before(const struct brute *b, int h, int t, int least, int now, int first, int last)
{
	size_t len = (size_t)(last - first) + 1;
	const uint8_t *bytes = b->histories[h].moments[t].text + first;

	for (int g = 0; g <= h; g++)
		for (int u = least; u <= now && (g < h || u < t); u++)
			if (memcmp(b->histories[g].moments[u].text + first, bytes, len) == 0)
				return true;
	return false;
}

/* Every choice of moments for the bytes from pc+@nr on. */
static void fetch(struct brute *b, struct bystander s, int *moment, int *history, int nr)
{
	int last = nr, least = s.bound, me = (int)(b->h - b->histories);

	if (b->wrong)
		return;
	if (s.pc + nr == b->schedule->len) {
		fetched(b, s, moment, history);
		return;
	}
	while (!b->model->reread && s.pc + last + 1 < b->schedule->len && same_block(b, s.pc + nr, s.pc + last + 1))
		last++;
	for (int i = 0; i < nr && b->model->ascending; i++)
		if (moment[i] > least)
			least = moment[i];
	for (int h = 0; h < b->nr_histories; h++) {
		if (b->model->program_order && h != me)
			continue;
		for (int t = least; t <= s.now; t++) {
			/* Without an order only the bytes matter: the same ones need no second look. */
			if (!b->model->program_order && shown_before(b, h, t, least, s.now, s.pc + nr, s.pc + last))
				continue;
			for (int i = nr; i <= last; i++) {
				moment[i] = t;
				history[i] = h;
			}
			fetch(b, s, moment, history, last + 1);
		}
	}
}

static void again(struct brute *b, struct bystander s)
{
	s.pc = s.trap;
	s.trap = -1;
	s.bound = s.now;
	s.fault = false;
	s.done = s.generation = 0;
	s.record = -1;
	if (s.pc == s.entry) {
		s.begun = false;
		s.returned = 0;
	}
	step(b, s);
}

static void handle_fault(struct brute *b, struct bystander s)
{
	const uint8_t *text = b->h->moments[s.now].text;
	struct decoded d = decode(b, text + s.trap, b->schedule->len - s.trap);
	bool retry = b->schedule->restart_on_nop
			     ? text[s.trap] == 0x90
			     : !is_fault(b, &d) && !(d.ok && d.insn.mnemonic == ZYDIS_MNEMONIC_INT3);

	if (retry)
		again(b, s);
	else if (s.trap != s.entry || !changes_meanwhile(b, s.now, b->nr_moments - 1, 0, b->schedule->len))
		b->wrong = true;
	else
		b->saw_trap = true;
}

/* The next step of decide() in src/core/trap.c; between two of them anything may happen. */
static void handle(struct brute *b, struct bystander s)
{
	struct walk w = walk(b, s.now);

	switch (s.done++) {
	case 0: /* before = generation */
		s.generation = w.generation;
		break;
	case 1: /* commit = table; search */
		s.record = s.trap == 0 ? w.record : -1;
		break;
	case 2:
		if (s.record >= 0) { /* found: it is used */
			b->wrong |= w.reclaimed[s.record];
			if (b->schedule->resume != XP__RESUME_COPY) {
				b->saw_trap = true;
				return;
			}
			break;
		}
		/* missed: the text */
		if (b->h->moments[s.now].text[s.trap] != 0xcc) {
			again(b, s);
			return;
		}
		break;
	default:
		if (s.record >= 0) { /* in the copy */
			b->wrong |= has_been(b, XP__EVENT_FREE, s.now);
			b->saw_trap = true;
			return;
		}
		/* generation == before: foreign */
		b->wrong |= s.generation == w.generation;
		s.generation = w.generation;
		s.done = 1;
	}
	step(b, s);
}

static bool seen_before(struct brute *b, const struct bystander *s)
{
	unsigned sum = (unsigned)(s->now * 7 + s->pc * 31 + s->bound * 131 + s->done * 517);

	for (const char *c = s->run; *c; c++)
		sum = sum * 33 + (unsigned char)*c;
	sum %= NR_CHAINS;
	for (int i = b->chain[sum]; i >= 0; i = b->next[i])
		if (memcmp(&b->seen[i], s, sizeof(*s)) == 0)
			return true;
	if (b->nr_seen == MAX_SEEN) {
		b->too_big = true;
		return false;
	}
	b->next[b->nr_seen] = b->chain[sum];
	b->chain[sum] = b->nr_seen;
	b->seen[b->nr_seen++] = *s;
	return false;
}

static void forget(struct brute *b)
{
	b->nr_seen = 0;
	memset(b->chain, -1, sizeof(b->chain));
}

/* Whether the next PARK after moment @now looks. */
static bool looks(const struct brute *b, int now)
{
	int nr = 0, event = -1;

	for (int i = 1; i <= now + 1; i++)
		nr += b->h->moments[i].kind == XP__EVENT_PARK;
	while (nr > 0)
		nr -= b->schedule->event[++event].kind == XP__EVENT_PARK;
	return b->schedule->event[event].looks;
}

static void step(struct brute *b, struct bystander s)
{
	int moment[XP_MAX_LEN], history[XP_MAX_LEN];
	struct bystander later;

	/* Characters after the end of the string, and padding, must not tell states apart. */
	memset(&later, 0, sizeof(later));
	later.now = s.now, later.pc = s.pc, later.bound = s.bound, later.trap = s.trap, later.fault = s.fault;
	later.entry = s.entry, later.begun = s.begun, later.returned = s.returned;
	later.done = s.done, later.generation = s.generation, later.record = s.record;
	strcpy(later.run, s.run);
	s = later;
	if (b->wrong || b->too_big || seen_before(b, &s))
		return;
	if (!b->collect && s.now + 1 < b->nr_moments) {
		int kind = b->h->moments[s.now + 1].kind;
		bool waits = (kind == XP__EVENT_PARK && looks(b, s.now) && (s.begun || s.trap >= 0)) ||
			     (kind == XP__EVENT_RECLAIM && b->schedule->reclaim_waits && s.done == 2 &&
			      s.record == walk(b, s.now).commit);

		later.now++;
		if ((kind == XP__EVENT_SYNC || kind == XP__EVENT_UNPARK) && s.trap < 0)
			later.bound = later.now;
		if (!waits)
			step(b, later);
	}
	if (!b->collect && is_parked(b, s.now))
		return;
	/* No handler looks at the text while a store is half done: doc/models.md, "What is not modelled". */
	if (s.trap >= 0 && b->h->moments[s.now].midway)
		return;
	if (s.trap >= 0 && s.fault)
		handle_fault(b, s);
	else if (s.trap >= 0)
		handle(b, s);
	else
		fetch(b, s, moment, history, 0);
}

static void still(struct brute *b, const uint8_t *text, int entry, char list[8][MAX_RUN])
{
	struct bystander s = {.entry = entry, .pc = entry, .trap = -1, .record = -1};
	struct history *keep = b->histories;
	struct history one;
	int nr = b->nr_histories;

	memset(list, 0, 8 * sizeof(list[0]));
	memset(&one, 0, sizeof(one));
	memcpy(one.moments[0].text, text, XP_MAX_LEN);
	b->histories = &one;
	b->nr_histories = 1;
	b->h = &one;
	b->collect = list;
	forget(b);
	step(b, s);
	b->collect = NULL;
	b->histories = keep;
	b->nr_histories = nr;
}

/* No branch leads between the instructions of @text, laid out from its first byte. */
static bool leads_to_instruction(const struct brute *b, const uint8_t *text, int entry)
{
	int at = 0;

	while (at < entry) {
		struct decoded d = decode(b, text + at, b->schedule->len - at);

		if (!d.ok)
			return false;
		at += d.insn.length;
	}
	return at == entry;
}

/* What executions that begin at @entry do if no thread changes the text meanwhile. */
static void try_codes(struct brute *b, int entry)
{
	const struct history *any = &b->histories[0];

	still(b, b->schedule->old, entry, b->old[entry]);
	still(b, b->schedule->new, entry, b->new[entry][0]);
	b->wrong |=
		!leads_to_instruction(b, b->schedule->old, entry) || !leads_to_instruction(b, b->schedule->new, entry);
	b->nr_commits = 1;
	for (int e = 0; e < b->schedule->nr_events; e++)
		if (b->schedule->event[e].kind == XP__EVENT_COMMIT) {
			still(b, b->schedule->event[e].bytes, entry, b->new[entry][b->nr_commits++]);
			b->wrong |= !leads_to_instruction(b, b->schedule->event[e].bytes, entry);
		}
	for (int i = 1, c = 0; i < b->nr_moments; i++) {
		c += any->moments[i].kind == XP__EVENT_COMMIT;
		if (any->moments[i].kind == XP__EVENT_RETURN)
			still(b, any->moments[i].text, entry, b->final[entry][c]);
	}
}

/* False: too big for this. */
static bool brute_force(struct brute *b, const struct xp__schedule *schedule, unsigned addr,
			const struct xp__model *model)
{
	unsigned entries = schedule->entries | 1u;
	struct history first;

	b->schedule = schedule;
	b->addr = addr;
	b->model = model;
	b->nr_histories = 0;
	b->wrong = b->saw_old = b->saw_new = b->saw_trap = b->too_big = false;
	ZydisDecoderInit(&b->decoder,
			 schedule->mode == 64   ? ZYDIS_MACHINE_MODE_LONG_64
			 : schedule->mode == 32 ? ZYDIS_MACHINE_MODE_LEGACY_32
						: ZYDIS_MACHINE_MODE_LEGACY_16,
			 schedule->mode == 64   ? ZYDIS_STACK_WIDTH_64
			 : schedule->mode == 32 ? ZYDIS_STACK_WIDTH_32
						: ZYDIS_STACK_WIDTH_16);
	memset(&first, 0, sizeof(first));
	memcpy(first.moments[0].text, schedule->old, XP_MAX_LEN);
	first.moments[0].kind = 255;
	make_histories(b, &first, 1, 0, 0);
	if (b->too_big)
		return false;
	for (int entry = 0; entry < schedule->len; entry++)
		if (entries >> entry & 1)
			try_codes(b, entry);
	for (int h = 0; h < b->nr_histories && !b->wrong && !b->too_big; h++)
		for (int entry = 0; entry < schedule->len; entry++) {
			struct bystander s = {.entry = entry, .pc = entry, .trap = -1, .record = -1};

			b->h = &b->histories[h];
			forget(b);
			if (entries >> entry & 1)
				step(b, s);
		}
	return !b->too_big || b->wrong;
}

/* ---- cases ---- */

/* One instruction, or several, of as many bytes as the site. */
static const struct {
	uint8_t mode, len;
	uint8_t bytes[4];
} codes[] = {
	{64, 1, {0x90}},
	{64, 1, {0xc3}},
	{64, 1, {0xf5}},
	{64, 1, {0xcc}},
	{64, 2, {0x66, 0x90}},
	{64, 2, {0xeb, 0x11}},
	{64, 2, {0xeb, 0x66}},
	{64, 2, {0x74, 0x11}},
	{64, 2, {0xa8, 0xeb}},
	{64, 2, {0xeb, 0x00}},
	{64, 2, {0x90, 0x90}},
	{64, 2, {0xf5, 0xf5}},
	{64, 2, {0xcc, 0x11}},
	{64, 2, {0x0f, 0x0b}},
	{64, 2, {0xcd, 0x90}},
	{64, 2, {0xb0, 0xcc}},
	{64, 2, {0xeb, 0xfe}},
	{64, 3, {0x0f, 0x1f, 0x00}},
	{64, 3, {0xeb, 0x01, 0x90}},
	{64, 3, {0x90, 0xeb, 0x11}},
	{64, 3, {0xc2, 0x11, 0x22}},
	{64, 3, {0xf5, 0x90, 0xf5}},
	{64, 3, {0xcc, 0x1f, 0x00}},
	{64, 3, {0xeb, 0x01, 0xc3}},
	{64, 3, {0x75, 0x01, 0x90}},
	{64, 3, {0x90, 0x90, 0x90}},
	{64, 3, {0x83, 0xc0, 0x90}},
	{64, 3, {0x83, 0xc0, 0x66}},
	{64, 4, {0x0f, 0x1f, 0x40, 0x00}},
	{64, 4, {0x66, 0xa9, 0x90, 0x90}},
	{64, 4, {0xeb, 0x02, 0x90, 0x90}},
	{64, 4, {0xcc, 0xa9, 0xeb, 0x66}},
	{64, 4, {0x66, 0xa9, 0xeb, 0x66}},
	{64, 4, {0x90, 0xf5, 0xf5, 0x90}},
	{64, 4, {0x66, 0xb8, 0x11, 0xcc}},
	{64, 4, {0x0f, 0x0b, 0x11, 0x22}},
	{64, 4, {0x90, 0xc3, 0x11, 0x22}},
	{64, 2, {0x66, 0xcc}},
	{64, 2, {0xf2, 0x90}},
	{64, 2, {0xf0, 0x90}},
	{64, 3, {0x66, 0x66, 0x90}},
	{64, 3, {0x48, 0x66, 0xcc}},
	{64, 3, {0x66, 0x48, 0xc3}},
	{64, 3, {0xf3, 0x0f, 0x0b}},
	{64, 4, {0x66, 0xb8, 0xeb, 0x90}},
	{64, 4, {0x67, 0xe3, 0x01, 0x90}},
	{64, 4, {0xb0, 0x11, 0xb4, 0x22}},
	{64, 4, {0xb0, 0x11, 0xeb, 0x22}},
	{64, 4, {0xb0, 0x33, 0x66, 0x90}},
	{16, 3, {0x66, 0x67, 0x90}},
	{32, 3, {0x67, 0xe3, 0x11}},
	{16, 3, {0xe8, 0x11, 0x22}},
	{16, 3, {0xe8, 0x90, 0x90}},
	{16, 3, {0x90, 0xeb, 0x66}},
	{16, 3, {0xcc, 0x90, 0x90}},
	{16, 3, {0x90, 0x90, 0x90}},
	{16, 3, {0x0f, 0x0b, 0x90}},
	{16, 3, {0xe9, 0x11, 0x66}},
	{32, 3, {0x66, 0x90, 0x90}},
	{32, 3, {0x0e, 0x07, 0x90}},
	{32, 3, {0x40, 0x41, 0x42}},
	{32, 3, {0x90, 0x66, 0x90}},
};

#define NR_CODES (sizeof(codes) / sizeof(codes[0]))

static uint64_t draw(uint64_t *random, uint64_t n)
{
	return xp_test_random(random) % n;
}

static void add_store(struct xp__schedule *schedule, uint64_t *random, const uint8_t *to)
{
	struct xp__event *e = xp__schedule_add(schedule, XP__EVENT_STORE);

	e->off = (uint8_t)draw(random, schedule->len);
	e->len = (uint8_t)(1 + draw(random, schedule->len - e->off));
	if (draw(random, 2)) {
		e->off = 0;
		e->len = schedule->len;
	}
	e->single = e->len == 1 || draw(random, 2);
	memcpy(e->bytes, to + e->off, e->len);
	if (draw(random, 2))
		xp__schedule_add(schedule, XP__EVENT_SYNC);
}

/* One commit from @schedule's last code to @new, by any stores; or one such as the library makes, with parts left out. */
static void make_commit(struct xp__schedule *schedule, uint64_t *random, const uint8_t *new)
{
	bool traps = draw(random, 3) != 0, parks = draw(random, 8) == 0, raise_early = draw(random, 16) == 0;
	uint8_t breakpoint[4];
	struct xp__event *last;

	if (traps && raise_early)
		xp__schedule_add(schedule, XP__EVENT_RAISE);
	if (traps)
		xp__schedule_add(schedule, XP__EVENT_PUBLISH);
	if (traps && !raise_early && draw(random, 16))
		xp__schedule_add(schedule, XP__EVENT_RAISE);
	if (parks)
		xp__schedule_add(schedule, XP__EVENT_PARK)->looks = draw(random, 2);
	if (traps && !parks) {
		memcpy(breakpoint, new, sizeof(breakpoint));
		breakpoint[0] = 0xcc;
		last = xp__schedule_add(schedule, XP__EVENT_STORE);
		last->len = 1;
		last->single = true;
		last->bytes[0] = 0xcc;
		if (draw(random, 8))
			xp__schedule_add(schedule, XP__EVENT_SYNC);
		if (schedule->len > 1) {
			last = xp__schedule_add(schedule, XP__EVENT_STORE);
			last->off = 1;
			last->len = (uint8_t)(schedule->len - 1);
			memcpy(last->bytes, breakpoint + 1, last->len);
			if (draw(random, 8))
				xp__schedule_add(schedule, XP__EVENT_SYNC);
		}
		if (draw(random, 16) == 0)
			xp__schedule_add(schedule, XP__EVENT_RETIRE); /* too early */
	} else {
		for (unsigned n = (unsigned)draw(random, 2); n > 0; n--)
			add_store(schedule, random, codes[draw(random, NR_CODES)].bytes);
	}
	last = xp__schedule_add(schedule, XP__EVENT_STORE);
	last->len = traps ? 1 : schedule->len;
	last->single = traps || draw(random, 4);
	memcpy(last->bytes, new, last->len);
	if (parks)
		xp__schedule_add(schedule, XP__EVENT_UNPARK);
	else if (draw(random, 8))
		xp__schedule_add(schedule, XP__EVENT_SYNC);
	if (draw(random, 4))
		xp__schedule_add(schedule, XP__EVENT_RETURN);
	if (traps && draw(random, 4)) {
		xp__schedule_add(schedule, XP__EVENT_RETIRE);
		xp__schedule_add(schedule, XP__EVENT_RECLAIM);
	}
	if (schedule->resume == XP__RESUME_COPY && draw(random, 4) == 0)
		xp__schedule_add(schedule, XP__EVENT_FREE);
}

/* @pair: of those of two instructions, two bytes each. */
static unsigned draw_code(uint64_t *random, bool pair)
{
	unsigned i;

	do
		i = (unsigned)draw(random, NR_CODES);
	while (pair && (codes[i].len != 4 || codes[i].bytes[0] != 0xb0));
	return i;
}

/* A schedule between two or three codes of the table. */
static bool make_schedule(struct xp__schedule *schedule, uint64_t *random)
{
	bool pair = draw(random, 64) == 0;
	unsigned a = draw_code(random, pair), b = draw_code(random, pair);
	unsigned c = draw(random, 2) ? a : draw_code(random, pair);

	if (codes[a].mode != codes[b].mode || codes[a].len != codes[b].len || a == b)
		return false;
	memset(schedule, 0, sizeof(*schedule));
	schedule->mode = codes[a].mode;
	schedule->len = codes[a].len;
	schedule->resume = draw(random, 4) ? XP__RESUME_EMULATE : XP__RESUME_COPY;
	if (pair || draw(random, 16) == 0)
		schedule->entries = pair ? 1u << 2 : (uint16_t)draw(random, 1u << schedule->len);
	schedule->faults = draw(random, 2);
	schedule->restart_on_nop = draw(random, 2);
	schedule->reclaim_waits = draw(random, 4) != 0;
	memcpy(schedule->old, codes[a].bytes, schedule->len);
	memcpy(schedule->new, codes[b].bytes, schedule->len);
	make_commit(schedule, random, codes[b].bytes);
	if (draw(random, 2) == 0 && codes[c].mode == schedule->mode && codes[c].len == schedule->len) {
		memcpy(xp__schedule_add(schedule, XP__EVENT_COMMIT)->bytes, codes[c].bytes, schedule->len);
		make_commit(schedule, random, codes[c].bytes);
	}
	return true;
}

static void note_case(const struct xp__schedule *schedule, unsigned addr, const struct xp__model *model)
{
	printf("# mode %u, address %u, entries %x, resume %d, granule %u order %d reread %d ascending %d undefined %d, faults %d nop %d\n# old",
	       schedule->mode, addr, schedule->entries, schedule->resume, model->granule, model->program_order,
	       model->reread, model->ascending, model->undefined, schedule->faults, schedule->restart_on_nop);
	for (int i = 0; i < schedule->len; i++)
		printf(" %02x", schedule->old[i]);
	for (int e = 0; e < schedule->nr_events; e++) {
		printf(" | %d @%d", schedule->event[e].kind, schedule->event[e].off);
		for (int i = 0; i < schedule->event[e].len; i++)
			printf("%s%02x",
			       i                           ? " "
			       : schedule->event[e].single ? " 1:"
							   : " n:",
			       schedule->event[e].bytes[i]);
	}
	putchar('\n');
}

static const unsigned granules[] = {1, 2, 4, 8};

XP_TEST(agrees_on_random_courses)
{
	static struct brute b;
	struct xp__explorer *explorer = xp__explorer_new();
	uint64_t random = xp_test_seed();
	unsigned nr_proven = 0, nr_wrong = 0, nr_skipped = 0, nr_trap = 0, nr_twice = 0, nr_entries = 0;

	b.histories = malloc(MAX_HISTORIES * sizeof(*b.histories));
	b.seen = malloc(MAX_SEEN * sizeof(*b.seen));
	REQUIRE(explorer && b.histories && b.seen);
	b.most_histories = MAX_RANDOM_HISTORIES;
	while (nr_proven + nr_wrong < 3000) {
		struct xp__schedule schedule;
		struct xp__result result;
		unsigned addr = (unsigned)draw(&random, 8);
		struct xp__model model = {
			.name = "random",
			.granule = granules[draw(&random, 4)],
			.program_order = draw(&random, 2),
			.reread = draw(&random, 4) == 0,
			.ascending = draw(&random, 4) == 0,
			.undefined = draw(&random, 16) == 0,
		};
		bool agree;

		/* Within an instruction, "ascending" is said of moments of one history. */
		model.ascending &= model.program_order;
		if (!make_schedule(&schedule, &random))
			continue;
		if (!brute_force(&b, &schedule, addr, &model)) {
			nr_skipped++;
			continue;
		}
		REQUIRE_EQ(xp__explore(explorer, &schedule, addr, &model, &result), 0);
		agree = result.proven != b.wrong;
		if (agree && result.proven)
			agree = (result.nr_old > 0) == b.saw_old && (result.nr_new > 0) == b.saw_new &&
				(result.nr_trap > 0) == b.saw_trap;
		CHECK(agree);
		if (!agree) {
			note_case(&schedule, addr, &model);
			printf("# explorer: %s (old %zu new %zu trap %zu); brute force: %s (%d %d %d)\n",
			       result.proven ? "proven" : result.why, result.nr_old, result.nr_new, result.nr_trap,
			       b.wrong ? "wrong" : "proven", b.saw_old, b.saw_new, b.saw_trap);
			break;
		}
		*(b.wrong ? &nr_wrong : &nr_proven) += 1;
		nr_trap += !b.wrong && b.saw_trap;
		nr_twice += !b.wrong && b.nr_commits > 1;
		nr_entries += !b.wrong && schedule.entries > 1;
	}
	XP_TEST_NOTE(
		"%u proven (%u with traps, %u of two commits, %u with branches inside), %u counterexamples, %u too big",
		nr_proven, nr_trap, nr_twice, nr_entries, nr_wrong, nr_skipped);
	/* The test says something only if both answers are common. */
	CHECK(nr_proven > 300 && nr_wrong > 300 && nr_trap > 90 && nr_twice > 30 && nr_entries > 5);
	xp__explorer_free(explorer);
	free(b.histories);
	free(b.seen);
}

/* What the library does to its shorter sites, without and with a phase that fails. */
XP_TEST(agrees_on_the_plans_of_the_library)
{
	static const enum xp_policy policies[] = {XP_POLICY_AUTO, XP_POLICY_BREAKPOINT, XP_POLICY_QUIESCE};
	static struct brute b;
	struct xp__explorer *explorer = xp__explorer_new();
	unsigned nr = 0, nr_skipped = 0;

	b.histories = malloc(MAX_HISTORIES * sizeof(*b.histories));
	b.seen = malloc(MAX_SEEN * sizeof(*b.seen));
	REQUIRE(explorer && b.histories && b.seen);
	b.most_histories = MAX_HISTORIES;
	for (unsigned k = 0; k < xp__nr_kinds; k++)
		for (unsigned n = 0; n < 3 * 8 * XP__NR_MODELS; n++) {
			const struct xp__kind *kind = &xp__kinds[k];
			const struct xp__model *model = &xp__models[n % XP__NR_MODELS];
			unsigned addr = n / XP__NR_MODELS % 8;
			struct xp__change change = {.addr = addr,
						    .old = kind->old,
						    .new = kind->new,
						    .len = kind->len,
						    .known = kind->known,
						    .policy = policies[n / XP__NR_MODELS / 8],
						    .can = ~0u};
			struct xp__schedule schedule;
			struct xp__result result;
			struct xp__plan plan;
			const char *detail;

			if (kind->len > 5 || (kind->flags & XP__KIND_SEVERAL) ||
			    xp__plan_build(&change, &plan, &detail))
				continue;
			/* Four bytes one by one, or a rollback of three phases, make too many histories. */
			if (kind->len > 4 && plan.method == XP__METHOD_BREAKPOINT)
				continue;
			xp__schedule_of_plan(&schedule, &plan,
					     n % 2 && plan.nr_stores == 1 && kind->len < 5 ? 0 : XP__NO_FAILURE);
			if (!brute_force(&b, &schedule, addr, model)) {
				nr_skipped++;
				continue;
			}
			REQUIRE_EQ(xp__explore(explorer, &schedule, addr, model, &result), 0);
			CHECK_EQ(result.proven, !b.wrong);
			if (result.proven) {
				CHECK_EQ(result.nr_old > 0, b.saw_old);
				CHECK_EQ(result.nr_new > 0, b.saw_new);
				CHECK_EQ(result.nr_trap > 0, b.saw_trap);
			}
			if (result.proven == b.wrong)
				XP_TEST_NOTE("%s, %s, %s at %u", kind->name, xp__method_names[plan.method], model->name,
					     addr);
			nr++;
		}
	XP_TEST_NOTE("%u plans, %u too big", nr, nr_skipped);
	CHECK(nr > 1500 && nr_skipped == 0);
	xp__explorer_free(explorer);
	free(b.histories);
	free(b.seen);
}

/* Two addresses whose sites are cut at the same places get the same answer: the enumerator knows no such thing. */
XP_TEST(only_boundaries_matter)
{
	static const uint8_t nop3[3] = {0x0f, 0x1f, 0x00};
	static const uint8_t code[3] = {0xeb, 0x01, 0xc3};
	static struct brute b;
	int answer[4] = {-1, -1, -1, -1};

	b.histories = malloc(MAX_HISTORIES * sizeof(*b.histories));
	b.seen = malloc(MAX_SEEN * sizeof(*b.seen));
	REQUIRE(b.histories && b.seen);
	b.most_histories = MAX_HISTORIES;
	for (unsigned addr = 0; addr < 96; addr++) {
		const struct xp__model model = {.name = "four", .granule = 4, .program_order = true};
		unsigned set = xp__boundaries(addr, 3, 4) >> 1;
		struct xp__schedule schedule;
		struct xp__event *event;

		memset(&schedule, 0, sizeof(schedule));
		schedule.mode = 64;
		schedule.len = 3;
		memcpy(schedule.old, nop3, 3);
		memcpy(schedule.new, code, 3);
		event = xp__schedule_add(&schedule, XP__EVENT_STORE);
		event->len = 3;
		event->single = true;
		memcpy(event->bytes, code, 3);
		CHECK(brute_force(&b, &schedule, addr, &model));
		CHECK(answer[set] < 0 || answer[set] == b.wrong);
		answer[set] = b.wrong;
	}
	/* Cut nowhere, before the second byte, before the third. */
	CHECK_EQ(answer[0], 0);
	CHECK_EQ(answer[1], 1);
	CHECK_EQ(answer[2], 0); /* the old head is a nop with any third byte */
	free(b.histories);
	free(b.seen);
}

XP_TEST_MAIN()
