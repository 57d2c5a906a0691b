// SPDX-License-Identifier: MIT
/*
 * A site whose new instruction cannot be emulated: a thread that meets the breakpoint executes a copy of it in a slot, and a jump
 * from there leads behind the site.
 *
 *	slot:	the instruction, an operand relative to the instruction pointer adapted
 *		jmp site + len
 *
 * The copy is of the new instruction: it is what this engine lets a trapped thread do everywhere, so a batch with
 * emulated sites is of one kind, and a thread that comes out of a slot late has not done the old thing after the commit
 * that abolished it.
 *
 * I1  A slot belongs to one site and one instruction for ever. A thread may rest in it long after the commit: preempted,
 *     stopped, or under a signal handler, in whose frame its program counter is not found. No rendezvous proves that it
 *     is gone, so nothing waits for that: what stands in a slot never changes. Memory is bounded by the number of
 *     different instructions that ever took a site's place; to go back and forth between two takes two slots.
 *     For the same reason several instructions are not replaced, under no policy but early, where a slot leads back to
 *     the second or a later one.
 * I2  A slot is written, and a sync follows, before the first breakpoint of the commit that leads there.
 */
#include "core/bypass.h"

#include "arch/arch.h"
#include "core/deps.h"
#include "core/reclaim.h"
#include "core/state.h"
#include "core/ticket.h"

#define AREA_SIZE 4096u
#define SLOT_SIZE 32u
_Static_assert(XP__SLOT_MAX <= SLOT_SIZE, "an instruction and the way back");

struct slot {
	uintptr_t site;
	bool filled;
	uint8_t len; /* of the instruction */
	uint8_t code_len;
	uint8_t insn[XP_MAX_LEN];
	uint8_t code[XP__SLOT_MAX];
};

/* A page to execute from, and what is in it. */
struct area {
	struct area *next;
	uintptr_t start;
	unsigned nr;
	struct slot slot[AREA_SIZE / SLOT_SIZE];
};

static struct area *areas;
static bool unsynced; /* slots were written since the last sync that succeeded */

static uintptr_t bypass_place(const struct area *area, unsigned i)
{
	return area->start + i * SLOT_SIZE;
}

static bool bypass_find(uintptr_t site, const uint8_t *insn, unsigned len, uintptr_t *at)
{
	for (const struct area *area = areas; area; area = area->next)
		for (unsigned i = 0; i < area->nr; i++) {
			const struct slot *slot = &area->slot[i];

			if (slot->site == site && slot->len == len && memcmp(slot->insn, insn, len) == 0) {
				*at = bypass_place(area, i);
				return true;
			}
		}
	return false;
}

/* The next slot of the area; false: it is full, or too far away. */
static bool bypass_take(struct area *area, uintptr_t site, const uint8_t *insn, unsigned len, uintptr_t *at)
{
	struct slot slot = {.site = site, .len = (uint8_t)len};

	if (area->nr == AREA_SIZE / SLOT_SIZE)
		return false;
	*at = bypass_place(area, area->nr);
	slot.code_len = (uint8_t)xp__slot_build(slot.code, insn, len, site, *at);
	if (slot.code_len == 0)
		return false;
	memcpy(slot.insn, insn, len);
	area->slot[area->nr++] = slot;
	return true;
}

static struct area *new_area(uintptr_t site, int *error, const char **detail)
{
	struct area *area = xp__reclaim_port(sizeof(*area));

	*error = -XP__ENOMEM;
	if (area == NULL)
		return NULL;
	area->start = (uintptr_t)xp__port->exec_alloc((const void *)site, AREA_SIZE);
	if (area->start == 0) {
		xp__port->release(area, sizeof(*area));
		*error = -XP_E_RANGE;
		*detail = "no memory to execute a copy from within 2 GiB";
		return NULL;
	}
	area->next = areas;
	areas = area;
	return area;
}

int xp__bypass_slot(uintptr_t site, const uint8_t *insn, unsigned len, uintptr_t *slot, const char **detail)
{
	uint8_t copy[XP__SLOT_MAX];
	struct area *area;
	int error;

	if (xp__slot_build(copy, insn, len, site, site) == 0) {
		*detail = "the new instruction cannot be executed out of line: it branches, calls, traps or is none";
		return -XP_E_EMULATE;
	}
	if (xp__port->exec_alloc == NULL) {
		*detail = "the port has no memory to execute a copy from";
		return -XP_E_NO_METHOD;
	}
	if (bypass_find(site, insn, len, slot))
		return 0;
	for (area = areas; area; area = area->next)
		if (bypass_take(area, site, insn, len, slot))
			return 0;
	area = new_area(site, &error, detail);
	if (area == NULL)
		return error;
	if (bypass_take(area, site, insn, len, slot))
		return 0;
	*detail = "the operand of the copy would be out of reach";
	return -XP_E_RANGE;
}

int xp__bypass_fill(struct xp_diag *diag)
{
	int error;

	for (struct area *area = areas; area; area = area->next)
		for (unsigned i = 0; i < area->nr; i++) {
			struct slot *slot = &area->slot[i];

			if (slot->filled)
				continue;
			error = xp__port->text_write((void *)bypass_place(area, i), slot->code, slot->code_len, 0);
			if (error)
				return xp__fail(diag, error, XP_PHASE_PREPARE, (const void *)slot->site,
						"the copy out of line could not be written");
			slot->filled = unsynced = true;
		}
	if (!unsynced)
		return 0;
	/* ordering: (B1) pairs with (S1) */
	error = xp__sync();
	if (error)
		return xp__fail(diag, error, XP_PHASE_PREPARE, NULL, NULL);
	unsynced = false;
	return 0;
}

bool xp__bypass_returns_into(uintptr_t start, uintptr_t end)
{
	for (const struct area *area = areas; area; area = area->next)
		for (unsigned i = 0; i < area->nr; i++) {
			uintptr_t back = area->slot[i].site + area->slot[i].len;

			if (area->slot[i].filled && back > start && back < end)
				return true;
		}
	return false;
}
