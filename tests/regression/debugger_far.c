// SPDX-License-Identifier: MIT
/*
 * Sites of far gates under gdb (S15), of every form: unbound; while they are bound, with the breakpoint and the old tail, with
 * it and the new tail; bound; withdrawn. In each state gdb lists the site as code of its segment, and steps over it.
 *
 * Gdb takes offsets for addresses: a breakpoint of its own in a segment with a base is nowhere. So it stops before the call
 * into the segment, and goes on instruction by instruction. It lists no 16-bit code in a 32-bit process: for that a second
 * program of its is the segment's bytes, a file, where addresses are offsets.
 *
 * What is compared: each time that the thread is back in the listing, it is at the next instruction that the listing has; and
 * so it comes to the end of the site.
 */
#include "core/inject.h"

#include "xp_child.h"
#include "xp_far.h"
#include "xp_gdb.h"

#include <crosspatch/crosspatch.h>
#include <signal.h>

#ifndef XP_INJECT
#error "this program is linked with a library built with XP_INJECT"
#endif

enum state { UNBOUND, BREAKPOINT_OLD, BREAKPOINT_NEW, BOUND, WITHDRAWN, NR_STATES };
enum { SECONDS = 50 };

/* ---- what gdb runs ---- */

extern volatile uint32_t debuggee_error, debuggee_state, debuggee_case, debuggee_bits;
extern volatile uint32_t debuggee_selector, debuggee_offset, debuggee_address;
volatile uint32_t debuggee_error, debuggee_state, debuggee_case, debuggee_bits;
volatile uint32_t debuggee_selector, debuggee_offset, debuggee_address;

__attribute__((noinline, used)) void debuggee_stop(void);
void debuggee_stop(void)
{
	__asm__ volatile("" ::: "memory");
}

/* Executes site @i of case @n, with its state for gdb to read. */
static __attribute__((noinline)) void visit(enum state state, unsigned n, unsigned i)
{
	static struct {
		uint32_t offset;
		uint16_t selector;
	} __attribute__((packed)) to;
	const struct xp_far_case *c = &xp_far_cases[n];
	uint32_t eax = 0x4100, carry;

	debuggee_state = state;
	debuggee_case = n;
	debuggee_bits = c->segment->bits;
	debuggee_address = (uint32_t)xp_far_site(c, i);
	to.offset = debuggee_offset = debuggee_address - c->segment->base;
	to.selector = c->segment->selector;
	debuggee_selector = to.selector;
	debuggee_stop();
	__asm__ volatile("stc\n\t"
			 ".globl debuggee_enter\n"
			 "debuggee_enter:\n\t"
			 "lcall *%[to]\n\t"
			 ".globl debuggee_back\n"
			 "debuggee_back:\n\t"
			 "sbbl %[carry], %[carry]"
			 : "+a"(eax), [carry] "=r"(carry)
			 : [to] "m"(to)
			 : "cc", "memory");
	CHECK_EQ(eax, state == WITHDRAWN ? 0x4100 : 0x4101);
	CHECK_EQ(carry, state == WITHDRAWN ? UINT32_MAX : 0);
}

static unsigned binding, nr_synced;

/* Twice: the breakpoints are there, the new tails are. */
static void look(enum xp__point point)
{
	if (point != XP__POINT_SYNCED || nr_synced == 2)
		return;
	nr_synced++;
	visit(nr_synced == 1 ? BREAKPOINT_OLD : BREAKPOINT_NEW, binding, 1);
}

XP_CHILD_PROGRAM(debuggee)
{
	alarm(SECONDS);
	debuggee_error = (uint32_t)xp_far_start();
	REQUIRE(xp_set_policy(XP_POLICY_BREAKPOINT) == 0);
	if (debuggee_error) {
		debuggee_stop();
		return;
	}
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++) {
		const struct xp_far_case *c = &xp_far_cases[n];

		REQUIRE(xp_gate_far_provide(c->gate, xp_far_selector(c, 0), xp_far_offset(c, 0)) == 0);
		visit(UNBOUND, n, 0);
		binding = n;
		nr_synced = 0;
		xp__inject = look;
		CHECK_EQ(xp_gate_far_bind_all(), 0);
		xp__inject = NULL;
		CHECK_EQ(nr_synced, 2);
		visit(BOUND, n, 1);
		CHECK_EQ(xp_gate_far_withdraw(c->gate), 0);
		visit(WITHDRAWN, n, 1);
	}
}

/* ---- what gdb is told ---- */

static const char script[] = XP_GDB_QUIETLY
	"set environment XP_CHILD=debuggee\n"
	"handle SIGSEGV stop print pass\n"
	"add-inferior -no-connection\n"
	"define list_site\n"
	"  if (unsigned)debuggee_bits == 16\n"
	"    dump binary memory $arg0 &xp_far_start16 &xp_far_end16\n"
	"    set $offset = (unsigned)debuggee_offset\n"
	"    inferior 2\n"
	"    set gnutarget binary\n"
	"    exec-file $arg0\n"
	"    set architecture i8086\n"
	"    x/4i $offset\n"
	"    set architecture auto\n"
	"    set gnutarget auto\n"
	"    inferior 1\n"
	"  else\n"
	"    x/4i (unsigned)debuggee_address\n"
	"  end\n"
	"end\n"
	"define trail\n"
	"  set $i = 0\n"
	"  while $i < 12 && $eip != (unsigned)&debuggee_back\n"
	"    printf \"at %x:%x\\n\", $cs, $eip\n"
	"    stepi\n"
	"    set $i = $i + 1\n"
	"  end\n"
	"  printf \"at %x:%x\\n\", $cs, $eip\n"
	"end\n"
	/* From a handler of the library's, by its return. */
	"define out_of_the_handler\n"
	"  set $i = 0\n"
	"  while $i < 4 && $eip >= (unsigned)&xp__sigreturn && $eip < (unsigned)&xp__sigreturn + 16\n"
	"    stepi\n"
	"    set $i = $i + 1\n"
	"  end\n"
	"end\n"
	"define visit\n"
	"  printf \"visit %d %d %x:%x %x\\n\", (unsigned)debuggee_case, (unsigned)debuggee_state, (unsigned)debuggee_selector, (unsigned)debuggee_offset, (unsigned)debuggee_address\n"
	"  list_site $arg0\n"
	"  tbreak *&debuggee_enter\n"
	"  continue\n"
	"  stepi\n"
	"  if (unsigned)debuggee_state == 0\n"
	"    printf \"at %x:%x\\n\", $cs, $eip\n"
	"    stepi\n"
	"    printf \"faulted %d %x:%x\\n\", $_siginfo.si_signo, $cs, $eip\n"
	"    tbreak *&xp__sigreturn\n"
	"    continue\n"
	"    out_of_the_handler\n"
	"  end\n"
	"  if (unsigned)debuggee_state == 1 || (unsigned)debuggee_state == 2\n"
	"    printf \"at %x:%x\\n\", $cs, $eip\n"
	"    stepi\n"
	"    printf \"trapped %d %x:%x\\n\", $_siginfo.si_signo, $cs, $eip\n"
	"    set $eip = (unsigned)debuggee_offset + 1\n"
	"    tbreak *&xp__sigreturn\n"
	"    signal SIGTRAP\n"
	"    out_of_the_handler\n"
	"  end\n"
	"  trail\n"
	"  continue\n"
	"end\n"
	"break debuggee_stop\n"
	"run\n"
	"printf \"segments %d\\n\", (unsigned)debuggee_error\n";

/* ---- what it says ---- */

enum { LISTED = 4 };

/* Of one visit. Listed, and where the thread was: offsets. */
struct visit {
	const char *text, *end;
	const struct xp_far_case *c;
	uint32_t selector, site;
	uint32_t listed[LISTED];
	bool call[LISTED];
};

static const char *line_behind(const char *at)
{
	at = strchr(at, '\n');
	return at ? at + 1 : "";
}

static bool find_visit(struct visit *v, unsigned n, enum state state)
{
	char label[32];
	unsigned address, nr = 0;

	snprintf(label, sizeof(label), "\nvisit %u %u ", n, state);
	memset(v, 0, sizeof(*v));
	v->c = &xp_far_cases[n];
	v->text = strstr(xp_gdb_said, label);
	if (v->text == NULL || sscanf(v->text + strlen(label), "%x:%x %x", &v->selector, &v->site, &address) != 3)
		return false;
	v->text = line_behind(v->text + 1);
	v->end = strstr(v->text, "\nvisit ");
	v->end = v->end ? v->end : v->text + strlen(v->text);
	for (const char *at = v->text; at < v->end && nr < LISTED; at = line_behind(at)) {
		const char *insn = strchr(at, '\t');
		unsigned listed;

		if (sscanf(at + strspn(at, " =>"), "0x%x", &listed) != 1 || insn == NULL || insn > line_behind(at))
			continue;
		v->listed[nr] = listed - (v->c->segment == &xp_far_code16 ? 0 : address - v->site);
		v->call[nr++] = strncmp(insn, "\tcall", 5) == 0 || strncmp(insn, "\tlcall", 6) == 0;
	}
	return nr == LISTED;
}

/* The number that stands in the listing for the first instruction behind the site; LISTED: none does. */
static unsigned behind(const struct visit *v)
{
	unsigned i = 0;

	while (i < LISTED && v->listed[i] != v->site + v->c->len)
		i++;
	return i;
}

/* Comes back to each instruction that is listed, to one that follows no call at once, until behind the site. */
static bool follows(const struct visit *v, const char *from, unsigned last)
{
	unsigned at = 0, steps = 0, selector, offset;

	for (; from < v->end && at < last; from = line_behind(from)) {
		if (sscanf(from, "at %x:%x", &selector, &offset) != 2)
			continue;
		if (steps++ == 0 && (selector != v->selector || offset != v->site))
			return false;
		if (steps == 1)
			continue;
		if (selector == v->selector && offset == v->listed[at + 1])
			at++;
		else if (!v->call[at])
			return false;
	}
	return at == last && at > 0;
}

/* What gdb says of the first step, where that is a signal: number and place; and where it goes on from there. */
static bool stops(const struct visit *v, const char *how, int signal, uint32_t offset, const char **from)
{
	const char *at = strstr(v->text, how);
	unsigned number, selector, where;

	if (at == NULL || at > v->end || sscanf(at + strlen(how), " %u %x:%x", &number, &selector, &where) != 3)
		return false;
	*from = line_behind(at);
	return number == (unsigned)signal && selector == v->selector && where == offset;
}

static void check_visit(unsigned n, enum state state)
{
	struct visit v;
	const char *from;
	unsigned last;

	if (!find_visit(&v, n, state)) {
		XP_TEST_NOTE("case %u, state %u", n, (unsigned)state);
		CHECK(!"gdb lists it");
		return;
	}
	last = behind(&v);
	from = v.text;
	CHECK_EQ(v.listed[0], v.site);
	switch (state) {
	case UNBOUND:
		/* Nothing of it was executed, and it is executed again. */
		CHECK(stops(&v, "\nfaulted", SIGSEGV, v.site, &from));
		CHECK(follows(&v, from, last));
		CHECK_EQ(last, 1);
		break;
	case BREAKPOINT_OLD:
	case BREAKPOINT_NEW:
		/*
		 * In the flat segment gdb sees an int3 that is not its own, and where the processor is. In others it
		 * looks for one at the offset, and puts the thread back in front.
		 */
		CHECK(stops(&v, "\ntrapped", SIGTRAP, v.site + (v.c->segment == &xp_far_flat), &from));
		CHECK_EQ(v.listed[1], v.site + 1);
		v.listed[1] = v.site + v.c->len;
		v.call[0] = true;
		CHECK(follows(&v, v.text, 1));
		break;
	default:
		CHECK_EQ(last, !(v.c->form & XP_FAR_NEAR) ? 1 : v.c->len == 8 ? 2 : 3);
		CHECK(follows(&v, from, last));
		break;
	}
	if (state != BREAKPOINT_OLD && state != BREAKPOINT_NEW)
		CHECK(last < LISTED);
}

XP_TEST(gdb_lists_and_steps_over_far_sites)
{
	static char text[16384];
	char copy[] = "/tmp/crosspatch-test-XXXXXX";
	int file = mkstemp(copy);
	size_t at = 0;
	bool ran;

	if (!xp_gdb_is_there())
		SKIP("no gdb");
	at += (size_t)snprintf(text, sizeof(text), "%s", script);
	for (unsigned i = 0; i < XP_NR_FAR_CASES * NR_STATES; i++)
		at += (size_t)snprintf(text + at, sizeof(text) - at, "visit %s\n", copy);
	at += (size_t)snprintf(text + at, sizeof(text) - at, "printf \"exit-status %%d\\n\", $_exitcode\n");
	ran = file >= 0 && xp_gdb_run(text, SECONDS);
	close(file);
	unlink(copy);
	if (xp_gdb_says("segments", " 1"))
		SKIP("this system gives no descriptors (modify_ldt)");
	CHECK(ran);
	CHECK(xp_gdb_says("exit-status", " 0"));
	for (unsigned n = 0; n < XP_NR_FAR_CASES; n++)
		for (unsigned state = UNBOUND; state < NR_STATES; state++)
			check_visit(n, state);
	xp_gdb_tell();
}

XP_CHILD_MAIN()
