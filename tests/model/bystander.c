// SPDX-License-Identifier: MIT
#include "bystander.h"

#include "arch/x86/emulate.h"
#include "xp_test.h"

#define MAX_SITES 2048
#define MAX_VERSIONS 16 /* stores to one site without a sync between */
#define MAX_OLDER 8
#define MAX_STEPS 16    /* instructions of one site */
#define STACK_SLOTS 8
#define SHARD 7

enum { RSP = 4 };

struct version {
	uint8_t bytes[XP_MAX_LEN];
	uint32_t touched; /* bytes that it changed, one bit each */
	bool single;
};

struct watched {
	uint8_t *text;
	size_t len;
	uint8_t old[XP_MAX_LEN], new[XP_MAX_LEN];
	uint8_t older[MAX_OLDER][XP_MAX_LEN]; /* not synchronized since */
	unsigned nr_older;
	uintptr_t resume_at;
	bool trapped; /* a bystander may have fetched our breakpoint: its trap may still be on its way */
	unsigned nr;
	struct version version[MAX_VERSIONS]; /* 0: as synchronized */
};

/* Registers and stack before and after. */
struct machine {
	struct xp_regs regs;
	uint64_t stack[STACK_SLOTS];
};

struct bystander_counts bystander_counts;
unsigned *bystander_wrong;
static struct watched sites[MAX_SITES];
static size_t nr_sites;
static struct machine live; /* its stack is the one that instructions push to */

/* ---- one execution ---- */

/* Two starting states, opposite in everything that the instructions look at. */
static void boot(const struct watched *site, unsigned variant)
{
	memset(&live, 0, sizeof(live));
	live.regs.ip = (uintptr_t)site->text;
	live.regs.flags = variant ? 0x8d5 : 0x202;
	live.regs.gpr[0] = variant ? ~0ull : 0x1234567800ff00ffull;
	live.regs.gpr[RSP] = (uintptr_t)&live.stack[STACK_SLOTS / 2];
	live.stack[STACK_SLOTS / 2] = 0x7777;
}

enum ran { RAN, TRAPPED, UNKNOWN };

/* Executes @view as the site's text until the program counter is elsewhere. */
static enum ran execute(const struct watched *site, const uint8_t *view)
{
	uintptr_t start = (uintptr_t)site->text;

	for (int i = 0; i < MAX_STEPS; i++) {
		size_t at = live.regs.ip - start;
		struct xp__insn insn;

		if (live.regs.ip < start || at >= site->len)
			return RAN;
		if (xp__insn_decode(view + at, site->len - at, &insn) == 0)
			return UNKNOWN;
		if (insn.kind == XP__INSN_INT3)
			return at == 0 ? TRAPPED : UNKNOWN;
		xp__emulate(&insn, live.regs.ip, live.regs.ip + insn.len, &live.regs);
	}
	return UNKNOWN;
}

static bool same_bytes(const struct watched *site, const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, site->len) == 0;
}

/* Whether the machine is as @bytes would have left it, started in @variant. */
static bool as_if(const struct watched *site, const uint8_t *bytes, unsigned variant)
{
	struct machine was = live;
	bool same;

	boot(site, variant);
	same = execute(site, bytes) == RAN && memcmp(&live, &was, sizeof(live)) == 0;
	live = was;
	return same;
}

static bool resumed(const struct watched *site, unsigned variant)
{
	struct machine was = live;
	bool same;

	boot(site, variant);
	live.regs.ip = site->resume_at;
	same = site->resume_at && memcmp(&live, &was, sizeof(live)) == 0;
	live = was;
	return same;
}

/* Whether the thread continues where there is the new instruction, and behind it a jump behind the site; else untouched. */
static bool bypassed(const struct watched *site, unsigned variant)
{
	const uint8_t *slot = (const uint8_t *)(uintptr_t)live.regs.ip;
	struct machine was = live;
	struct xp__insn jmp;
	bool same;

	if (slot < rec_text + REC_TEXT_SIZE - REC_EXEC_SIZE || slot >= rec_text + REC_TEXT_SIZE)
		return false;
	boot(site, variant);
	live.regs.ip = was.regs.ip;
	same = memcmp(&live, &was, sizeof(live)) == 0 && memcmp(slot, site->new, site->len) == 0 &&
	       xp__insn_decode(slot + site->len, XP_MAX_LEN, &jmp) == 5 && jmp.kind == XP__INSN_JMP &&
	       slot + site->len + 5 + jmp.imm == site->text + site->len;
	live = was;
	return same;
}

/* BY_OLD, BY_NEW, both, or 0: neither. */
static unsigned judge(const struct watched *site, const uint8_t *view, unsigned variant)
{
	enum ran ran;
	unsigned is = 0;

	boot(site, variant);
	ran = execute(site, view);
	if (same_bytes(site, view, site->old) || (ran == RAN && as_if(site, site->old, variant)))
		is |= BY_OLD;
	for (unsigned i = 0; i < site->nr_older; i++)
		if (same_bytes(site, view, site->older[i]) || (ran == RAN && as_if(site, site->older[i], variant)))
			is |= BY_OLD;
	if (same_bytes(site, view, site->new) || (ran == RAN && as_if(site, site->new, variant)))
		is |= BY_NEW;
	return is;
}

/* The end of the trace on one line. */
static void print_trace(void)
{
	enum { SHOWN = 400 };
	const char *at = rec_trace();
	size_t len = strlen(at);

	for (at += len > SHOWN ? len - SHOWN : 0; *at; at++)
		printf("%s", *at == '\n' ? "; " : (char[2]){*at, '\0'});
}

static void complain(const struct watched *site, const char *what, const uint8_t *view)
{
	if (bystander_wrong)
		++*bystander_wrong;
	if (bystander_wrong || !xp_test_failure())
		return;
	printf("# site 0x%zx: %s: view", (size_t)(site->text - rec_text), what);
	for (size_t i = 0; i < site->len; i++)
		printf(" %02x", view[i]);
	printf(", after ");
	print_trace();
	putchar('\n');
}

/* A trap at the site arrives at the handler now; the text may have changed since it was fetched. */
static void deliver(struct watched *site, unsigned variant)
{
	enum xp_trap_verdict verdict;

	boot(site, variant);
	live.regs.ip++;
	verdict = xp_trap(&live.regs, SHARD);
	bystander_counts.traps++;
	if (verdict == XP_TRAP_RETRY) {
		struct machine was = live;

		bystander_counts.late++;
		boot(site, variant);
		if (memcmp(&live, &was, sizeof(live)) != 0)
			complain(site, "a late trap did not restart at the site", site->text);
		/* The return from the handler serializes: the text as it is. */
		if (site->text[0] == XP__INSN_INT3_BYTE)
			complain(site, "a trap restarts at its own breakpoint", site->text);
		else if (!judge(site, site->text, variant))
			complain(site, "a late trap restarts into neither old nor new", site->text);
	} else if (verdict != XP_TRAP_DONE) {
		complain(site, "a trap of ours is called foreign", site->text);
	} else if (!resumed(site, variant) && !bypassed(site, variant) && !as_if(site, site->old, variant) &&
		   !as_if(site, site->new, variant)) {
		complain(site, "a trap ends as neither old nor new", site->text);
	}
}

static void execute_view(struct watched *site, const uint8_t *view, unsigned allowed)
{
	bystander_counts.views++;
	if (view[0] == XP__INSN_INT3_BYTE) {
		site->trapped = true;
		if (!(allowed & BY_TRAP))
			complain(site, "a breakpoint may still be fetched", view);
		return; /* the trap is delivered with the late ones */
	}
	for (unsigned variant = 0; variant < 2; variant++) {
		unsigned is = judge(site, view, variant);

		if (!(is & allowed)) {
			complain(site, is ? "the wrong one of old and new is executed" : "torn", view);
			return;
		}
	}
}

/* ---- the views ---- */

/*
 * Chooses for each byte from @at on the version it is fetched from. @seen[v]: 0 not decided, 1 the store of version v is
 * seen, 2 it is not; decided for single stores only, by the first of their bytes.
 */
static void enumerate(struct watched *site, size_t at, uint8_t *view, const uint8_t *seen, unsigned allowed)
{
	/* Nothing behind a breakpoint is decoded. */
	if (at == site->len || (at == 1 && view[0] == XP__INSN_INT3_BYTE)) {
		execute_view(site, view, allowed);
		return;
	}
	for (unsigned v = 0; v < site->nr; v++) {
		uint8_t decided[MAX_VERSIONS];
		bool possible = true;

		if (v > 0 && !(site->version[v].touched >> at & 1))
			continue;
		memcpy(decided, seen, sizeof(decided));
		for (unsigned s = 1; s < site->nr; s++) {
			uint8_t is = s <= v ? 1 : 2;

			if (!site->version[s].single || !(site->version[s].touched >> at & 1))
				continue;
			possible = possible && (decided[s] == 0 || decided[s] == is);
			decided[s] = is;
		}
		view[at] = site->version[v].bytes[at];
		if (possible)
			enumerate(site, at + 1, view, decided, allowed);
	}
}

void bystander_check(unsigned allowed)
{
	static const uint8_t undecided[MAX_VERSIONS];
	uint8_t view[XP_MAX_LEN];

	/* A writer that fails half-way, and again when asked to undo it: then only a breakpoint keeps people off. */
	if (xp_state() == XP_STATE_WEDGED && rec.prepared & (XP_NEED_PARK | XP_NEED_ALONE))
		return;
	for (size_t i = 0; i < nr_sites; i++) {
		enumerate(&sites[i], 0, view, undecided, allowed);
		if (sites[i].trapped)
			for (unsigned variant = 0; variant < 2; variant++)
				deliver(&sites[i], variant);
	}
}

static void add_version(struct watched *site, bool single)
{
	struct version *last = &site->version[site->nr - 1];
	struct version *version = &site->version[site->nr];
	uint32_t touched = 0;

	for (size_t i = 0; i < site->len; i++)
		touched |= (uint32_t)(site->text[i] != last->bytes[i]) << i;
	if (!touched)
		return;
	REQUIRE(site->nr < MAX_VERSIONS);
	memcpy(version->bytes, site->text, site->len);
	version->touched = touched;
	version->single = single;
	site->nr++;
}

/* No thread fetches anything older than what stands in the text. */
static void synchronized(void)
{
	for (size_t i = 0; i < nr_sites; i++) {
		memcpy(sites[i].version[0].bytes, sites[i].text, sites[i].len);
		sites[i].nr = 1;
		sites[i].nr_older = 0;
	}
}

static void after_step(const struct rec_step *step)
{
	bool alone = rec.needs & XP_NEED_ALONE;

	if (step->op == REC_WRITE)
		for (size_t i = 0; i < nr_sites; i++)
			add_version(&sites[i], step->flags & XP_WRITE_SINGLE);
	/* unpark() serializes every thread; one that is alone serializes by jumping there. */
	if ((step->op == REC_SYNC && step->result == 0) || step->op == REC_UNPARK || alone)
		synchronized();
	if (!rec.parked && (!alone || step->op == REC_UNLOCK))
		bystander_check(BY_OLD | BY_NEW | BY_TRAP);
}

void bystander_watch(size_t offset, const uint8_t *old, const uint8_t *new, size_t len, uintptr_t resume_at)
{
	struct watched *site = &sites[nr_sites];

	REQUIRE(nr_sites < MAX_SITES && len <= XP_MAX_LEN);
	memset(site, 0, sizeof(*site));
	site->text = rec_text + offset;
	site->len = len;
	memcpy(site->old, old, len);
	memcpy(site->new, new, len);
	site->resume_at = resume_at;
	nr_sites++;
}

void bystander_then(size_t offset, const uint8_t *next)
{
	for (size_t i = 0; i < nr_sites; i++) {
		struct watched *site = &sites[i];

		if (site->text != rec_text + offset)
			continue;
		REQUIRE(site->nr_older < MAX_OLDER);
		memcpy(site->older[site->nr_older++], site->old, site->len);
		memcpy(site->old, site->new, site->len);
		memcpy(site->new, next, site->len);
	}
}

void bystander_start(void)
{
	memset(&bystander_counts, 0, sizeof(bystander_counts));
	synchronized();
	rec.step = after_step;
}

void bystander_stop(void)
{
	rec.step = NULL;
	nr_sites = 0;
}
