/* SPDX-License-Identifier: MIT */
/*
 * A port over plain memory: text is an array, every call is written down, any call can be made to fail, and a test may
 * look around after every step. Nothing here executes what is patched; see bystander.h.
 *
 * I1  The trace names addresses relative to rec_text, so that it is the same in every run.
 * I2  The port's own contract is checked on every call: text lock held, prepared for what is asked, SINGLE inside one
 *     quadword, no write above 64 KiB, memory released with the size it was asked for. A breach fails the case.
 */
#ifndef XP_TEST_RECORDER_H
#define XP_TEST_RECORDER_H

#ifndef XP_INJECT
#define XP_INJECT /* the core under test is built with it */
#endif
#ifndef XP_NO_MODULE
#define XP_NO_MODULE /* records are made by hand */
#endif

#include "core/inject.h"

#include <crosspatch/imv.h>
#include <crosspatch/port.h>
#include <crosspatch/site.h>
#include <crosspatch/static_call.h>
#include <crosspatch/static_key.h>
#include <crosspatch/static_switch.h>
#include <crosspatch/text_poke.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REC_TEXT_SIZE (512u << 10)
#define REC_EXEC_SIZE (64u << 10) /* of it, at its end, what exec_alloc() gives */

enum rec_op {
	REC_LOCK,
	REC_UNLOCK,
	REC_ALLOC,
	REC_RELEASE,
	REC_PREPARE,
	REC_CHECK,
	REC_READ,
	REC_WRITE,
	REC_SYNC,
	REC_PARK,
	REC_UNPARK,
	REC_DEFER,
	REC_EXEC_ALLOC,
	REC_POINT, /* no call: the core passed a point of inject.h */
	REC_NR_OPS,
};

/* What was just done; a step of its own even if it failed. */
struct rec_step {
	enum rec_op op;
	enum xp__point point;
	const uint8_t *addr; /* WRITE */
	size_t len;
	unsigned flags;
	int result;
};

/* Calls number @nth to @nth + @count - 1 of @op fail with @error; the first call is 1, and @nth 0 means none. */
struct rec_fault {
	enum rec_op op;
	unsigned nth, count;
	int error;
	unsigned hits;
};

#define REC_FOREVER 1000000u
#define REC_MAX_FAULTS 2

struct recorder {
	unsigned calls[REC_NR_OPS];
	unsigned can;      /* what can() grants */
	size_t live;       /* blocks of memory handed out and not released */
	unsigned needs;    /* of the last prepare(); 0 outside a commit */
	unsigned prepared; /* of the last one that succeeded, ever */
	bool locked, parked;
	bool settles;      /* the last prepare() was for a sync alone */
	size_t largest_write;  /* bytes */
	size_t most;           /* that one block of memory may have; 0: no limit. What the engine keeps for good is exempt */
	const uint8_t *failed; /* the range of the first write that was made to fail */
	size_t failed_len;
	uint64_t now_ms;      /* what clock_ms() says */
	uint64_t deadline_ms; /* what defer() was last asked for, 0: nothing */
	struct rec_fault fault[REC_MAX_FAULTS];
	const struct rec_fault *first_hit; /* the one that struck first */
	void (*step)(const struct rec_step *step);
	void (*busy)(void); /* the lock is taken: what happens until it is free, or the change was made; asked once */
	unsigned told;
};

extern struct recorder rec;
extern struct xp_port rec_port;
extern uint8_t rec_text[REC_TEXT_SIZE];

/* rec_start - forgets calls, faults, clock and hook, fills the text, gives the core the port; policy auto. */
void rec_start(void);

/* rec_forget - forgets the trace and the calls, nothing else. */
void rec_forget(void);

/* rec_trace - one line per call since. LOCK … PARK; not can, alloc, release. */
const char *rec_trace(void);

/* rec_fail - see struct rec_fault; rec_heal() takes all faults back. */
void rec_fail(enum rec_op op, unsigned nth, unsigned count, int error);
void rec_heal(void);

/* rec_bound - from now on no block of memory has more than @bytes; 0: no limit. The engine gives back what it keeps. */
void rec_bound(size_t bytes);

/*
 * rec_isolated - runs @run in a child process and fails the case if it failed there. For what leaves the engine
 * wedged, or must find it as new.
 */
void rec_isolated(void (*run)(const void *), const void *argument);

/* rec_shared - zeroed memory that a child shares with its parent. */
void *rec_shared(size_t size);

/* rec_put - text as the compiler would have left it. */
void rec_put(size_t offset, const uint8_t *bytes, size_t len);

/*
 * rec_branch - text and record of a branch site at rec_text + @offset, as the compiler emits it: it jumps if
 * the key's initial state (@flags & XP_SITE_TRUE) says so, to rec_text + @target.
 */
void rec_branch(struct xp_branch_site *site, size_t offset, size_t target, struct xp_static_key *key, unsigned flags);

#define REC_BRANCH_LEN 5

/*
 * rec_call - a call without a module, as XP_DEFINE_STATIC_CALL emits it: trampoline at rec_text + @trampoline, which goes
 * to @func (NULL: to rec_text + @stub), and its record.
 * rec_call_site - a call of its trampoline at rec_text + @offset, a jmp if @flags says XP_SITE_TAIL, and its record.
 */
void rec_call(struct xp_static_call *call, struct xp_call_site *site, size_t trampoline, size_t stub,
	      xp__call_func *func);
void rec_call_site(struct xp_call_site *site, size_t offset, struct xp_static_call *call, unsigned flags);

#define REC_CALL_LEN 5
#define REC_TRAMPOLINE_LEN 8

/* rec_goes_to - where the call, jmp or trampoline at rec_text + @offset goes as it stands there; 0: it is none of these. */
uintptr_t rec_goes_to(size_t offset);

/* rec_switch - text and record of a switch site at rec_text + @offset, as the compiler emits it: it jumps to *@targets. */
void rec_switch(struct xp_switch_site *site, size_t offset, struct xp_static_switch *key, const int32_t *targets);

/*
 * rec_targets - @count + 2 words at @part: the targets of choices @first… of @nr, and the words at their ends. Choice i
 * leads to rec_text + @target + i * @stride.
 */
void rec_targets(int32_t *part, unsigned nr, unsigned first, unsigned count, size_t target, size_t stride);

/* rec_mov - text and record of an immediate site: @insn, @len bytes, at rec_text + @offset. */
void rec_mov(struct xp_imv_site *site, size_t offset, const uint8_t *insn, size_t len, struct xp_imv *imv);

#endif
