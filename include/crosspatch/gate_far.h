/* SPDX-License-Identifier: MIT */
/*
 * Far gates: calls in 16- and 32-bit code segments that are bound by the fault that their first execution raises. A site
 * is a far call to a selector that is never valid, with a number in place of the offset; bound, it is the far call itself.
 *
 *	form             as assembled                    bound
 *	XP_FAR_16_16     9A nn nn 01 00                  9A oo oo ss ss                16-bit code, 16-bit frame
 *	XP_FAR_16_32     66 9A nn nn 00 00 01 00         66 9A oo oo oo oo ss ss       16-bit code, 32-bit frame
 *	XP_FAR_32_32     9A nn nn 00 00 02 00            9A oo oo oo oo ss ss          32-bit code, 32-bit frame
 *	XP_FAR_NEAR of   the same                        90 0E E8 oo oo                push cs and a near call: the
 *	these                                            66 0E 66 E8 oo oo oo oo       provider is in the same segment,
 *	                                                 90 0E E8 oo oo oo oo          and returns far
 *
 * A flat program calls with XP_FAR_32_32 too; where there are call gates, their selector is the provider's.
 *
 *	XP_DEFINE_GATE_FAR(open_file);
 *	static struct xp_far_segment code16;
 *
 *	__asm__(".code16\n" XP_FAR_SITE_16_16(call_1, open_file, code16, 7) "jc failed\n" … ".code32");
 *	…
 *	code16.selector = …; xp_far_segment_add(&code16);        // after modify_ldt(), before a thread executes the site
 *	xp_gate_far_provide(&open_file, selector, offset);
 *
 * Without a provider a gate fails: the carry flag is set. A site that was executed then calls a stub that says so; it
 * never becomes a faulting one again. The providers keep whatever registers and flags their callers want kept.
 *
 * The stack segment must be flat (base 0). 32-bit processes only; elsewhere registration refuses such sites.
 */
#ifndef XP_GATE_FAR_H
#define XP_GATE_FAR_H

#include <crosspatch/arch.h>
#include <crosspatch/error.h>
#include <crosspatch/site.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A code segment that has sites. The descriptor is the caller's: what stands here must agree with it. */
struct xp_far_segment {
	uint16_t selector;
	uint8_t bits;    /* 16 or 32 */
	uint8_t added;   /* the library's */
	uint32_t base;   /* linear address of offset 0 */
	uint32_t limit;  /* the last offset */
	uint32_t fail16; /* offset of code in the segment that sets the carry flag and returns from a 16-bit far call */
	uint32_t fail32; /* the same from a 32-bit far call. Either may be 0 where no site has such a frame */
};

/* A gate. All fields are the library's. */
struct xp_gate_far {
	struct xp_object object;
	struct xp_gate_far *next;
	struct {
		uint32_t offset;
		uint16_t selector; /* of the provider; 0: there is none */
		uint16_t zero;
	} to[2];
	uint32_t version; /* how often it was changed; its lowest bit says which of the two counts */
	uint16_t listed;
	uint16_t faults; /* at sites that are not bound, since one was */
} __attribute__((aligned(8)));

#define XP_FAR_16_16 0
#define XP_FAR_16_32 1
#define XP_FAR_32_32 2
#define XP_FAR_NEAR 4

/*
 * XP_DEFINE_GATE_FAR(name) - a gate, at file scope, hidden: of one executable or shared object. XP_DECLARE_GATE_FAR(name) -
 * for a header.
 */
#define XP_DEFINE_GATE_FAR(name)                                                                                       \
	XP__STRUCT xp_gate_far name __attribute__((used, visibility("hidden"))) = {                                    \
		{XP__OBJECT(NULL, #name, __FILE__, __LINE__)}, NULL, {{0, 0, 0}, {0, 0, 0}}, 0, 0, 0}
#define XP_DECLARE_GATE_FAR(name) extern XP__STRUCT xp_gate_far name __attribute__((visibility("hidden")))

#ifdef XP__FAR_SEGMENTS
/*
 * Assembly of a site: a label that is new, the names of gate and segment (both visible to the linker: not static), the
 * number that a reader of the dump finds. 16_16 and 16_32 in .code16, 32_32 in .code32.
 */
#define XP_FAR_SITE_16_16(label, gate, segment, number) XP__FAR_SITE_16_16(label, gate, segment, number, 0)
#define XP_FAR_SITE_16_32(label, gate, segment, number) XP__FAR_SITE_16_32(label, gate, segment, number, 1)
#define XP_FAR_SITE_32_32(label, gate, segment, number) XP__FAR_SITE_32_32(label, gate, segment, number, 2)
#define XP_FAR_SITE_16_16_NEAR(label, gate, segment, number) XP__FAR_SITE_16_16(label, gate, segment, number, 4)
#define XP_FAR_SITE_16_32_NEAR(label, gate, segment, number) XP__FAR_SITE_16_32(label, gate, segment, number, 5)
#define XP_FAR_SITE_32_32_NEAR(label, gate, segment, number) XP__FAR_SITE_32_32(label, gate, segment, number, 6)
#define XP__FAR_SITE_16_16(label, gate, segment, number, form)                                                         \
	XP__FAR_SITE(label, gate, segment, number, form, ".byte 0x9a\n.short " #number ", 1\n")
#define XP__FAR_SITE_16_32(label, gate, segment, number, form)                                                         \
	XP__FAR_SITE(label, gate, segment, number, form, ".byte 0x66, 0x9a\n.short " #number ", 0, 1\n")
#define XP__FAR_SITE_32_32(label, gate, segment, number, form)                                                         \
	XP__FAR_SITE(label, gate, segment, number, form, ".byte 0x9a\n.short " #number ", 0, 2\n")
#define XP__FAR_SITE(label, gate, segment, number, form, bytes)                                                        \
	#label ":\n" bytes ".pushsection " XP__FAR_SITES ",\"ao\",@progbits," #label "\n"                              \
	       XP__FAR_RECORD(#label, #gate, #segment, #number, #form)                                                 \
	       ".popsection\n"
#endif

/*
 * xp_far_segment_add - makes a segment known: faults in it are looked at from now on, and its sites may be changed.
 * xp_far_segment_remove - forgets it; before its descriptor changes. Its sites stay as they are.
 * Context: thread; may wait for a commit. Ordering: a thread that learns of the return may execute its sites.
 * Errors: -EINVAL for a selector that cannot be one, bits other than 16 and 32, stubs beyond the limit; -XP_E_PROVIDED:
 * another segment has that selector; -ENOMEM: too many segments (64); those of prepare() in port.h. Nothing was done.
 * Progress: waits for the text lock.
 */
int xp_far_segment_add(struct xp_far_segment *segment);
int xp_far_segment_remove(struct xp_far_segment *segment);

/*
 * xp_gate_far_provide(gate, selector, offset) - from now on the gate leads there: sites that were executed before in this
 * commit, the others when they fault.
 * xp_gate_far_replace - the same for a gate that has a provider: a site leads to the old or the new one, never nowhere.
 * xp_gate_far_withdraw - takes the provider away: every site that was executed calls the stub of its segment.
 *
 * Context: thread; may wait for another commit.
 * Ordering: on return of 0 no call that begins enters what was there before; one that began earlier may be on its way.
 * Errors: -EINVAL for selectors 0 to 3; -XP_E_PROVIDED, -XP_E_NO_PROVIDER; -XP_E_RANGE: the offset does not fit into 16
 * bits, or a provider of a near site is in another segment; those of xp_text_poke(). Every site is as before.
 * Progress: waits for the text lock and the syncs.
 */
int xp_gate_far_provide(struct xp_gate_far *gate, uint16_t selector, uint32_t offset);
int xp_gate_far_replace(struct xp_gate_far *gate, uint16_t selector, uint32_t offset);
int xp_gate_far_withdraw(struct xp_gate_far *gate);

/*
 * xp_batch_add_gate_far(batch, gate, selector, offset) - adds "this gate leads there" to a batch, "nowhere" for selector 0.
 * A batch says what is to be, whatever it was before: it provides, replaces or withdraws. The commit changes the sites that
 * were executed before; the others are bound when they fault. While it runs, each call goes where its gate led before, or
 * leads afterwards.
 * Context: thread. Ordering: none. Errors: -EINVAL for NULL and for selectors 1 to 3, -ENOMEM; the batch is as before. What
 * a site cannot call is found at the commit. Progress: may wait for the text lock.
 */
struct xp_batch;
int xp_batch_add_gate_far(struct xp_batch *batch, struct xp_gate_far *gate, uint16_t selector, uint32_t offset);

/*
 * xp_gate_far_bind_all - the eager table: binds in one commit every site whose segment is known and whose gate has a
 * provider. A failure leaves each site unbound or bound. Otherwise as xp_gate_bind_all().
 */
int xp_gate_far_bind_all(void);

#ifdef __cplusplus
}
#endif

#endif
