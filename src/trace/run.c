// SPDX-License-Identifier: MIT
/*
 * What runs in the threads that call traced functions: from the entry to the handlers, and from the return.
 *
 * I1  All that runs before vector state is saved is XP__GENERAL_REGS. It calls nothing from outside core and port, and no
 *     memory function: that may be what is traced.
 * I2  A thread runs handlers from one thunk at a time; thread->busy is the place of that thunk on the stack. While it is set,
 *     the thread's other calls of traced functions run no handler: those that a handler makes, and those of signal handlers
 *     that interrupt it. So one thunk at a time changes what is kept for the thread.
 * I3  A call whose return is wanted takes a frame; the return address that it leaves on the stack tells the frame's number.
 *     Nothing is assumed of stacks: a call may return on another thread, in any order, or never; its stack may be copied away
 *     and back, protected or unmapped meanwhile. So what stands in a frame's place on the stack proves nothing. A frame is
 *     used again only when no return can come to it: the return did; an exception passed it; the thread that owned the stack
 *     ended; the program vouches for it (xp_function_stack_gone()); or the address was never left on the stack. Calls that
 *     are left by longjmp keep their frames. When all frames are taken, calls go without one: missed_returns.
 * I4  Text leads into a function, and the address finds it. A thread that has counted itself in may use what it finds until
 *     it counts itself out. An unknown function (its module was unregistered) goes on as if it had no entry.
 * I5  A signal handler may interrupt a thunk anywhere and leave it by siglongjmp, and the library is not told. The thread's
 *     next call looks: a thunk was left if its place on the stack was overwritten, or lies below the stack pointer on the
 *     same stack. Then its counts are made good (inside.c, I1).
 * I6  A thread keeps spare frames by their names only. A thread that finds no free frame takes the spare ones of others. So a
 *     name may be lost or stale.
 *
 * Ordering. F1 to F5: core/reclaim.c has the argument, inside.c how threads count themselves in and out. F6 and F7: the list
 * of free frames. A frame is pushed after its `next` was stored (release), and taken before that is read (acquire).
 *
 * F8 and F9: a call may outlive its function's module, in a tail call or a replacement, and its return then finds no function
 * in the frame. The writer W takes it out (F1) before it retires the function. A frame that W looks at (F9) is
 *	AWAITED: then the function there was stored before (F8), and is one that is not given back while W has the lock. W
 *	takes it out unless the return was first. That thread counts itself in (F3) before it reads the frame (F2): it finds
 *	nothing, or W finds it inside, and waits.
 *	In a thread's hands: if it returns, it has counted itself in before it took the frame (F8), so W, which saw that, finds
 *	it inside. If it opens the frame, the function is another one: no thread comes through this module's entries.
 *	Free or spare: the function there is stale, and is stored anew before the frame is awaited again.
 */
#include "trace/run.h"

#include "arch/arch.h"
#include "core/state.h"
#include "trace/handlers.h"
#include "trace/inside.h"
#include "trace/table.h"

#if XP__HAS_TRACING

/* The way of each call is short where all on it is in one function, and what is rarely on it is not. */
#define SHORT __attribute__((always_inline)) XP__GENERAL_REGS
#define LONG __attribute__((noinline)) XP__GENERAL_REGS
#define RARE LONG __attribute__((cold))

#define NR_WORDS XP_FUNCTION_LEAVES
#define CHAIN_MAX 64u /* tail calls of traced functions, one into the other, that a look at a frame follows */
#define VAIN 4096u    /* when all are taken, each 4096th attempt takes what other threads keep */
#define LOOK 16u      /* inside a handler, each 16th call looks whether the handler was left */

struct frame {
	uintptr_t caller; /* the return address. First: unwinders read it */
	uintptr_t place;  /* where it was on the stack */
	struct xp__function *function; /* NULL: its module went before the return came */
	uint64_t number;               /* of the list of handlers at the entry */
	uint64_t word[NR_WORDS];
	uint32_t next; /* in a list of free ones: number + 1 */
	uintptr_t state;
};

/* Above these the thread that has it in its hands. */
enum {
	FREE,    /* in the list for all, or never used */
	SPARE,   /* kept for a thread, which has its name; any thread may take it */
	AWAITED, /* its number is on a stack, or was */
	PASSED,  /* by an unwinder, which still reads it */
};

_Static_assert(sizeof(struct frame) <= XP__FRAME_SIZE, "frame");

union padded_frame {
	struct frame frame;
	uint8_t size[XP__FRAME_SIZE];
};

extern union padded_frame xp__function_frames[XP__NR_FRAMES] __attribute__((visibility("hidden")));
union padded_frame xp__function_frames[XP__NR_FRAMES];

static uint64_t free_frames; /* number + 1 of the first; above 32 bits how often it changed */
static uint32_t nr_frames;   /* that were ever taken: the others are not in the list */

/* What a thunk carries from one of our functions to the next. */
enum { OWN_FUNCTION, OWN_HANDLERS, OWN_THREAD, OWN_FRAME };

static XP__GENERAL_REGS struct frame *frame_at(uint32_t i)
{
	return &xp__function_frames[i].frame;
}

static XP__GENERAL_REGS const struct xp__handlers *handlers_of(const struct xp__function *function)
{
	/* ordering: (F2) pairs with (F1) */
	return __atomic_load_n(&function->handlers, __ATOMIC_ACQUIRE);
}

static inline SHORT struct xp__function *find(uintptr_t code)
{
	/* ordering: (F2) pairs with (F1) */
	const struct xp__functions *table = __atomic_load_n(&xp__functions, __ATOMIC_ACQUIRE);
	size_t at;

	if (table == NULL)
		return NULL;
	for (at = xp__function_hash(code, table->shift);; at = (at + 1) & table->mask) {
		/* ordering: (F2) pairs with (F1) */
		struct xp__function *function = __atomic_load_n(&table->slot[at], __ATOMIC_ACQUIRE);

		if (function == NULL || function->code == code)
			return function;
	}
}

/* ---- frames ---- */

/* The number of the frame that a return address belongs to, which may be that of the call there; else -1. */
static XP__GENERAL_REGS int64_t frame_number(uintptr_t address)
{
	uintptr_t distance = address - (uintptr_t)xp__function_return;

	if (distance >= (uintptr_t)XP__NR_FRAMES * XP__RETURN_SIZE)
		return -1;
	if (distance % XP__RETURN_SIZE != 0 && distance % XP__RETURN_SIZE != XP__RETURN_CALL)
		return -1;
	return (int64_t)(distance / XP__RETURN_SIZE);
}

/* Where a call really returns to: its return address may be one of ours. */
static XP__GENERAL_REGS uintptr_t real_caller(uintptr_t address)
{
	for (unsigned n = 0; n < CHAIN_MAX; n++) {
		int64_t number = frame_number(address);

		if (number < 0)
			break;
		address = frame_at((uint32_t)number)->caller;
	}
	return address;
}

static XP__GENERAL_REGS uint32_t pop_shared(const struct xp_function_thread *thread)
{
	/* ordering: (F7) pairs with (F6) */
	uint64_t head = __atomic_load_n(&free_frames, __ATOMIC_ACQUIRE), next;

	do {
		if ((uint32_t)head == 0)
			return 0;
		next = __atomic_load_n(&frame_at((uint32_t)head - 1)->next, __ATOMIC_RELAXED);
		next |= (head & ~(uint64_t)UINT32_MAX) + ((uint64_t)1 << 32);
		/* ordering: (F7) pairs with (F6) */
	} while (!__atomic_compare_exchange_n(&free_frames, &head, next, true, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE));
	__atomic_store_n(&frame_at((uint32_t)head - 1)->state, (uintptr_t)thread, __ATOMIC_RELAXED);
	return (uint32_t)head;
}

static XP__GENERAL_REGS void push_shared(uint32_t frame)
{
	uint64_t head = __atomic_load_n(&free_frames, __ATOMIC_RELAXED), next;

	do {
		__atomic_store_n(&frame_at(frame - 1)->next, (uint32_t)head, __ATOMIC_RELAXED);
		next = ((head & ~(uint64_t)UINT32_MAX) + ((uint64_t)1 << 32)) | frame;
		/* ordering: (F6) pairs with (F7) */
	} while (!__atomic_compare_exchange_n(&free_frames, &head, next, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

/* One that was never taken; 0: there is none. */
static XP__GENERAL_REGS uint32_t new_frame(const struct xp_function_thread *thread)
{
	uint32_t nr = __atomic_load_n(&nr_frames, __ATOMIC_RELAXED);

	do {
		if (nr == XP__NR_FRAMES)
			return 0;
	} while (!__atomic_compare_exchange_n(&nr_frames, &nr, nr + 1, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	__atomic_store_n(&frame_at(nr)->state, (uintptr_t)thread, __ATOMIC_RELAXED);
	return nr + 1;
}

/*
 * Whether the frame's place on the stack leads to the frame, directly or by frames that tail calls took there. If it does not
 * now, it still may later.
 */
static XP__GENERAL_REGS bool is_on_stack(uint32_t i)
{
	const struct frame *frame = frame_at(i);
	uintptr_t address;

	if (xp__port->data_read == NULL)
		return true;
	if (xp__port->data_read(&address, (const void *)frame->place))
		return false;
	for (unsigned n = 0; n < CHAIN_MAX; n++) {
		int64_t number = frame_number(address);

		if (number == i)
			return true;
		if (number < 0 || frame_at((uint32_t)number)->state != AWAITED ||
		    frame_at((uint32_t)number)->place != frame->place)
			return false;
		address = frame_at((uint32_t)number)->caller;
	}
	return true;
}

static XP__GENERAL_REGS bool change(uint32_t i, uintptr_t from, uintptr_t to)
{
	/* ordering: (F7) pairs with (F6) */
	return __atomic_compare_exchange_n(&frame_at(i)->state, &from, to, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

/* No return comes to the frame any more. If a signal handler comes in between, a name is lost (I6). */
static XP__GENERAL_REGS void give_frame(struct xp_function_thread *thread, uint32_t i)
{
	uint32_t nr = thread->nr_spare;

	if (nr >= XP_FUNCTION_SPARE) {
		__atomic_store_n(&frame_at(i)->state, FREE, __ATOMIC_RELAXED);
		push_shared(i + 1);
		return;
	}
	/* ordering: (F6) pairs with (F7) */
	__atomic_store_n(&frame_at(i)->state, SPARE, __ATOMIC_RELEASE);
	thread->spare[nr] = i + 1;
	thread->nr_spare = nr + 1;
}

static XP__GENERAL_REGS uint32_t take_spare(struct xp_function_thread *thread)
{
	uint32_t nr, i;

	while ((nr = thread->nr_spare) > 0) {
		i = thread->spare[nr - 1];
		thread->nr_spare = nr - 1;
		if (i && change(i - 1, SPARE, (uintptr_t)thread))
			return i;
	}
	return 0;
}

/* Puts the frames that threads keep into the list for all. */
static XP__GENERAL_REGS void share_spares(void)
{
	uint32_t nr = __atomic_load_n(&nr_frames, __ATOMIC_RELAXED);

	for (uint32_t i = 0; i < nr; i++)
		if (__atomic_load_n(&frame_at(i)->state, __ATOMIC_RELAXED) == SPARE && change(i, SPARE, FREE))
			push_shared(i + 1);
}

/* Number + 1; 0: all are taken. */
static XP__GENERAL_REGS uint32_t take_frame(struct xp_function_thread *thread)
{
	uint32_t i = take_spare(thread);

	if (i == 0)
		i = pop_shared(thread);
	if (i == 0)
		i = new_frame(thread);
	if (i == 0 && thread->in_vain++ % VAIN == 0) {
		share_spares();
		i = pop_shared(thread);
	}
	if (i)
		thread->in_vain = 0;
	return i;
}

/* A frame for this call, which its return will find; NULL: none is left. */
static LONG struct frame *open_frame(const struct xp__call *call, struct xp__function *function,
				     const struct xp__handlers *handlers, struct xp_function_thread *thread)
{
	uint32_t i = take_frame(thread);
	struct frame *frame;

	if (i == 0)
		return NULL;
	frame = frame_at(i - 1);
	frame->caller = call->caller;
	frame->place = (uintptr_t)&call->caller;
	__atomic_store_n(&frame->function, function, __ATOMIC_RELAXED);
	frame->number = handlers->number;
	for (unsigned w = 0; w < NR_WORDS; w++)
		frame->word[w] = 0;
	return frame;
}

static XP__GENERAL_REGS uint32_t number_of(const struct frame *frame)
{
	return (uint32_t)((const union padded_frame *)frame - xp__function_frames);
}

/* ---- one thunk at a time ---- */

/*
 * Whether the thunk that thread->busy tells of was left by siglongjmp. A call at @here inside its handler lies below
 * thread->floor, or on another stack. What lies above is looked at each time, what lies below every now and then.
 */
static RARE bool was_left(struct xp_function_thread *thread, uintptr_t here)
{
	uintptr_t busy = thread->busy, floor = thread->floor ? thread->floor : busy;
	uintptr_t own = (uintptr_t) & ((const struct xp__call *)busy)->own[OWN_THREAD], word;

	if (here <= busy && here + sizeof(struct xp__call) > floor)
		return true;
	if (here < busy && ++thread->looks % LOOK != 0)
		return false;
	if (xp__port->stack_left && xp__port->stack_left(busy, here))
		return true;
	if (xp__port->data_read == NULL)
		return false;
	if (xp__port->data_read(&word, (const void *)own) || word != (uintptr_t)thread)
		return true;
	return floor != busy && (xp__port->data_read(&word, (const void *)floor) || word != (uintptr_t)thread);
}

static XP__GENERAL_REGS bool is_in_hand(const struct xp_function_thread *thread, uint32_t i)
{
	return __atomic_load_n(&frame_at(i)->state, __ATOMIC_RELAXED) == (uintptr_t)thread;
}

static RARE void make_good(struct xp_function_thread *thread)
{
	uint32_t nr = __atomic_load_n(&nr_frames, __ATOMIC_RELAXED);

	xp__inside_count(thread, &xp__inside_shard(thread)->left_behind);
	for (uint32_t i = 0; i < nr; i++)
		if (is_in_hand(thread, i))
			give_frame(thread, i);
	thread->floor = 0;
	xp__inside_leave_all(thread);
	__asm__ volatile("" ::: "memory");
	thread->busy = 0;
}

/* Counts the thread in. False: it runs a handler already, and this call is one of the handler's or of a signal's. */
static inline SHORT bool begin(struct xp_function_thread *thread, struct xp__call *call)
{
	bool first = thread->busy == 0;

	if (!first && was_left(thread, (uintptr_t)call)) {
		make_good(thread);
		first = true;
	}
	if (first) {
		call->own[OWN_THREAD] = thread;
		/* A signal handler of this thread: after that, and before what follows. */
		__asm__ volatile("" ::: "memory");
		thread->busy = (uintptr_t)call;
		__asm__ volatile("" ::: "memory");
	}
	xp__inside_enter(thread);
	return first;
}

static inline SHORT void end(struct xp_function_thread *thread, bool first)
{
	if (!first) {
		xp__inside_leave(thread);
		return;
	}
	thread->floor = 0;
	xp__inside_leave_all(thread);
	__asm__ volatile("" ::: "memory");
	thread->busy = 0;
}

/* ---- the entry ---- */

static inline SHORT void describe(struct xp_function_call *public, const struct xp__function *function,
				  uintptr_t caller)
{
	public->function = (xp__any_function *)(function->code - function->before);
	public->name = function->object.name;
	public->caller = (const void *)real_caller(caller);
	public->vector = NULL;
	public->x87 = NULL;
	public->word = NULL;
}

static XP__GENERAL_REGS bool is_general(const struct xp__handler *handler)
{
	return handler->handler->flags & XP_FUNCTION_GENERAL_REGS;
}

static inline SHORT void run(struct xp__call *call, const void *area, struct xp__function *function,
			      const struct xp__handlers *handlers, struct xp_function_thread *thread)
{
	struct frame *frame = NULL;
	struct xp_function_call public;
	uintptr_t floor = (uintptr_t)thread;
	uint64_t nowhere;

	thread->floor = (uintptr_t)&floor;
	__asm__ volatile("" : : "m"(floor) : "memory");
	if (!thread->kept && xp__port->hook_exit(thread) == 0)
		thread->kept = 1;
	if (handlers->nr_leave > 0) {
		if (thread->kept)
			frame = open_frame(call, function, handlers, thread);
		if (frame == NULL)
			xp__inside_count(thread, &xp__inside_shard(thread)->missed_returns);
		else
			thread->opened = 1;
	}
	describe(&public, function, call->caller);
	public.integer = call->integer;
	public.stack = call->stack;
	for (uint32_t i = 0; i < handlers->nr; i++) {
		const struct xp__handler *handler = &handlers->handler[i];

		if (handler->handler->entry == NULL)
			continue;
		nowhere = 0;
		public.vector = area && !is_general(handler) ? (const uint8_t *)area + XP__AREA_VECTOR : NULL;
		public.word = NULL;
		if (handler->handler->leave)
		public.word = frame ? &frame->word[handler->word] : &nowhere;
		handler->handler->entry(&public, handler->data);
	}
	if (frame && is_in_hand(thread, number_of(frame))) {
		call->caller = (uintptr_t)xp__function_return + (uintptr_t)number_of(frame) * XP__RETURN_SIZE;
		/* A handler that is left before this leaves a call that has not begun: no return comes to its frame. */
		__asm__ volatile("" ::: "memory");
		/* ordering: (F8) pairs with (F9) */
		__atomic_store_n(&frame->state, AWAITED, __ATOMIC_RELEASE);
	}
	end(thread, true);
}

XP__GENERAL_REGS bool xp__function_enter(struct xp__call *call)
{
	struct xp_function_thread *thread = xp__port->function_thread();
	const struct xp__handlers *handlers;
	struct xp__function *function;
	bool first = begin(thread, call);

	function = find(call->resume - sizeof(function->text));
	if (function == NULL)
		goto out;
	handlers = handlers_of(function);
	if (handlers == NULL)
		goto out;
	if (handlers->redirect)
		call->resume = handlers->redirect;
	if (handlers->nr == 0)
		goto out;
	/* Nothing of the program's runs, so another thunk below, that has not come to its handlers, does not matter. */
	if (handlers->counts && (first || thread->floor == 0)) {
		xp__handlers_count(handlers, thread);
		goto out;
	}
	if (!first) {
		xp__inside_count(thread, &xp__inside_shard(thread)->missed_calls);
		goto out;
	}
	if (handlers->general && thread->kept) {
		run(call, NULL, function, handlers, thread);
		return false;
	}
	call->own[OWN_FUNCTION] = function;
	call->own[OWN_HANDLERS] = (void *)(uintptr_t)handlers;
	return true;
out:
	end(thread, first);
	return false;
}

XP__GENERAL_REGS void xp__function_run(struct xp__call *call, const void *area)
{
	run(call, area, call->own[OWN_FUNCTION], call->own[OWN_HANDLERS], call->own[OWN_THREAD]);
}

/* ---- the return ---- */

static XP__GENERAL_REGS bool wants(const struct xp__handler *handler, const struct frame *frame)
{
	return handler->handler->leave && handler->since <= frame->number;
}

XP__GENERAL_REGS bool xp__function_leave(struct xp__call *call)
{
	struct xp_function_thread *thread = xp__port->function_thread();
	struct frame *frame = frame_at((uint32_t)frame_number(call->resume));
	const struct xp__handlers *handlers = NULL;
	struct xp__function *function = NULL;
	bool first = begin(thread, call), awaited;

	call->resume = frame->caller;
	/* From here on no return comes to the frame. A return that was not awaited goes on to the frame's caller, too. */
	awaited = __atomic_load_n(&frame->state, __ATOMIC_RELAXED) == AWAITED;
	if (awaited)
		/* ordering: (F8) pairs with (F9) */
		__atomic_store_n(&frame->state, (uintptr_t)thread, __ATOMIC_RELEASE);
	xp__inside_count(thread, &xp__inside_shard(thread)->returns);
	if (first && awaited)
		/* ordering: (F2) pairs with (F1) */
		function = __atomic_load_n(&frame->function, __ATOMIC_ACQUIRE);
	if (function)
		handlers = handlers_of(function);
	call->own[OWN_FUNCTION] = function;
	call->own[OWN_HANDLERS] = (void *)(uintptr_t)handlers;
	call->own[OWN_THREAD] = thread;
	call->own[OWN_FRAME] = frame;
	if (handlers && handlers->nr_leave > 0 && !handlers->general)
		return true;
	xp__function_run_leave(call, NULL);
	return false;
}

XP__GENERAL_REGS void xp__function_run_leave(struct xp__call *call, const void *area)
{
	const struct xp__handlers *handlers = call->own[OWN_HANDLERS];
	struct xp_function_thread *thread = call->own[OWN_THREAD];
	struct frame *frame = call->own[OWN_FRAME];
	const struct xp__function *function = call->own[OWN_FUNCTION];
	uint64_t results[2] = {call->integer[XP__RESULT], call->integer[XP__RESULT_2]};
	uintptr_t floor = (uintptr_t)thread;
	bool first = thread->busy == (uintptr_t)call;
	struct xp_function_call public;

	if (first)
		thread->floor = (uintptr_t)&floor;
	__asm__ volatile("" : : "m"(floor) : "memory");
	if (handlers)
		describe(&public, function, frame->caller);
	public.integer = results;
	public.stack = &((const struct xp__call *)call)->stack[0] - 1;
	for (uint32_t i = handlers ? handlers->nr : 0; i-- > 0;) {
		const struct xp__handler *handler = &handlers->handler[i];

		if (!wants(handler, frame))
			continue;
		if (area && !is_general(handler)) {
			public.vector = (const uint8_t *)area + XP__AREA_VECTOR;
			public.x87 = (const uint8_t *)area + XP__AREA_X87;
		} else {
			public.vector = public.x87 = NULL;
		}
		public.word = &frame->word[handler->word];
		handler->handler->leave(&public, handler->data);
	}
	if (is_in_hand(thread, number_of(frame)))
		give_frame(thread, number_of(frame));
	end(thread, first);
}

/* ---- for the rest of the room ---- */

bool xp__trace_frames(const struct xp_range *ranges, size_t nr)
{
	for (uint32_t i = 0; i < __atomic_load_n(&nr_frames, __ATOMIC_RELAXED); i++)
		for (size_t k = 0; k < nr && frame_at(i)->state == AWAITED; k++)
			if (frame_at(i)->caller - ranges[k].start < ranges[k].end - ranges[k].start && is_on_stack(i))
				return true;
	return false;
}

void xp__trace_forget(const struct xp__entries *module)
{
	for (uint32_t i = 0; i < __atomic_load_n(&nr_frames, __ATOMIC_RELAXED); i++) {
		struct frame *frame = frame_at(i);
		struct xp__function *function;

		/* ordering: (F9) pairs with (F8) */
		if (__atomic_load_n(&frame->state, __ATOMIC_ACQUIRE) != AWAITED)
			continue;
		function = __atomic_load_n(&frame->function, __ATOMIC_RELAXED);
		/* The return may come meanwhile, and the frame be taken for a call of another function, which stays. */
		if (function && function->module == module)
			/* ordering: (F1) pairs with (F2) */
			(void)__atomic_compare_exchange_n(&frame->function, &function, NULL, false, __ATOMIC_SEQ_CST,
							  __ATOMIC_RELAXED);
	}
}

bool xp__trace_busy(void)
{
	struct xp_function_thread *thread = xp__port->function_thread ? xp__port->function_thread() : NULL;

	if (thread == NULL || thread->busy == 0)
		return false;
	/* This call is not made often: it looks in any case. */
	thread->looks = LOOK - 1;
	if (!was_left(thread, (uintptr_t)&thread - sizeof(struct xp__call)))
		return true;
	make_good(thread);
	return false;
}

void xp__trace_count(struct xp_function_stats *stats)
{
	xp__inside_stats(stats);
	for (uint32_t i = 0; i < __atomic_load_n(&nr_frames, __ATOMIC_RELAXED); i++)
		stats->awaited += __atomic_load_n(&frame_at(i)->state, __ATOMIC_RELAXED) == AWAITED;
}

/* Frees a frame whose return never comes. */
static bool abandon(uint32_t i)
{
	struct xp_function_thread *thread = xp__port->function_thread();

	if (!change(i, AWAITED, FREE))
		return false;
	xp__inside_count(thread, &xp__inside_shard(thread)->abandoned);
	push_shared(i + 1);
	return true;
}

static size_t abandon_between(uintptr_t low, uintptr_t high)
{
	uint32_t nr = __atomic_load_n(&nr_frames, __ATOMIC_RELAXED);
	size_t abandoned = 0;

	for (uint32_t i = 0; i < nr; i++)
		if (__atomic_load_n(&frame_at(i)->state, __ATOMIC_RELAXED) == AWAITED &&
		    frame_at(i)->place - low < high - low)
			abandoned += abandon(i);
	return abandoned;
}

size_t xp_function_stack_gone(const void *low, const void *high)
{
	if (!xp__port || !xp__port->function_thread || (uintptr_t)low >= (uintptr_t)high)
		return 0;
	return abandon_between((uintptr_t)low, (uintptr_t)high);
}

/* The unwinder is past the frame that it named last. */
static void has_passed(struct xp_function_thread *thread)
{
	uint32_t i = thread->passing;

	thread->passing = 0;
	if (i == 0)
		return;
	xp__inside_count(thread, &xp__inside_shard(thread)->abandoned);
	__atomic_store_n(&frame_at(i - 1)->state, FREE, __ATOMIC_RELAXED);
	push_shared(i);
}

/*
 * An unwinder calls it for each of our places that it comes through. In its second phase, which a handler awaits farther up,
 * it does not turn back. Forced, it may. It reads the frame afterwards, to go on: so the thread keeps that one till the next.
 */
int xp__function_personality(int version, int actions, uint64_t class, void *exception, void *context)
{
	enum { CLEANUP_PHASE = 2, FORCE_UNWIND = 8, CONTINUE_UNWIND = 8 };
	struct xp_function_thread *thread = xp__port->function_thread();
	uintptr_t ip;
	int64_t i;

	(void)version;
	(void)class;
	(void)exception;
	if (!(actions & CLEANUP_PHASE) || actions & FORCE_UNWIND || !xp__port->unwind_ip)
		return CONTINUE_UNWIND;
	has_passed(thread);
	ip = xp__port->unwind_ip(context);
	i = frame_number(ip);
	if (i >= 0 && (ip - (uintptr_t)xp__function_return) % XP__RETURN_SIZE == 0 &&
	    change((uint32_t)i, AWAITED, PASSED))
		thread->passing = (uint32_t)i + 1;
	return CONTINUE_UNWIND;
}

void xp_function_thread_exit(struct xp_function_thread *thread, uintptr_t low, uintptr_t high)
{
	uint32_t i;

	if (thread->busy)
		make_good(thread);
	if (low < high)
		(void)abandon_between(low, high);
	has_passed(thread);
	while ((i = take_spare(thread)) != 0) {
		__atomic_store_n(&frame_at(i - 1)->state, FREE, __ATOMIC_RELAXED);
		push_shared(i);
	}
	thread->kept = thread->opened = 0;
}

/*
 * The other threads are not there: they will never count themselves out. The frames that they were working on are free, and
 * what they kept will be taken. Frames whose returns are awaited stay: the child may go on with their coroutines.
 */
void xp_function_fork_child(void)
{
	const struct xp_function_thread *self =
		xp__port && xp__port->function_thread ? xp__port->function_thread() : NULL;

	if (self == NULL)
		return;
	xp__inside_fork_child(self);
	for (uint32_t i = 0; i < nr_frames && !self->busy; i++)
		if (frame_at(i)->state > AWAITED && i + 1 != self->passing) {
			frame_at(i)->state = FREE;
			push_shared(i + 1);
		}
}

#elif XP__HAS_ENTRIES

void xp__trace_forget(const struct xp__entries *module)
{
	(void)module;
}

bool xp__trace_frames(const struct xp_range *ranges, size_t nr)
{
	(void)ranges;
	(void)nr;
	return false;
}

bool xp__trace_busy(void)
{
	return false;
}

void xp__trace_count(struct xp_function_stats *stats)
{
	(void)stats;
}

void xp_function_thread_exit(struct xp_function_thread *thread, uintptr_t low, uintptr_t high)
{
	(void)thread;
	(void)low;
	(void)high;
}

void xp_function_fork_child(void) {}

size_t xp_function_stack_gone(const void *low, const void *high)
{
	(void)low;
	(void)high;
	return 0;
}

#endif
