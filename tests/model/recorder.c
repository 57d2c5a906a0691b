// SPDX-License-Identifier: MIT
#include "recorder.h"

#include "core/reclaim.h"
#include "core/site.h"
#include "xp_test.h"

#include <stdarg.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_BLOCKS 256
#define TRACE_SIZE (512u << 10)
#define SHOWN_BYTES 16u /* of a write */
#define KEPT_BYTES (64u << 10)

struct recorder rec;
uint8_t rec_text[REC_TEXT_SIZE] __attribute__((aligned(4096)));

static size_t dirty = REC_TEXT_SIZE - REC_EXEC_SIZE; /* text from here on is as rec_start() fills it */
static char trace[TRACE_SIZE];
static size_t trace_len;
static struct {
	void *memory;
	size_t size;
} blocks[MAX_BLOCKS];

/* ---- the trace ---- */

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(trace + trace_len, TRACE_SIZE - trace_len, format, args);
	va_end(args);
	trace_len += (size_t)len;
	if (trace_len >= TRACE_SIZE) {
		fputs("recorder: the trace is full\n", stderr);
		abort();
	}
}

static void say_range(const char *what, const void *addr, size_t len)
{
	say("%s 0x%zx+%zu", what, (size_t)((const uint8_t *)addr - rec_text), len);
}

static void say_result(int result)
{
	say(result ? " = %d\n" : "\n", result);
}

static void say_needs(unsigned needs)
{
	static const struct {
		unsigned bit;
		const char *name;
	} names[] = {
		{XP_NEED_SYNC, "SYNC"}, {XP_NEED_TRAP, "TRAP"},   {XP_NEED_SINGLE, "SINGLE"},
		{XP_NEED_PARK, "PARK"}, {XP_NEED_ALONE, "ALONE"}, {XP_NEED_CALL, "CALL"},
	};

	say("prepare");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (needs & names[i].bit)
			say(" %s", names[i].name);
}

static void say_write(const uint8_t *addr, const uint8_t *bytes, size_t len, unsigned flags)
{
	say_range(flags & XP_WRITE_SINGLE ? "write single" : "write", addr, len);
	say(":");
	for (size_t i = 0; i < len && i < SHOWN_BYTES; i++)
		say(" %02x", bytes[i]);
	if (len > SHOWN_BYTES)
		say(" ...");
}

const char *rec_trace(void)
{
	return trace;
}

void rec_forget(void)
{
	memset(rec.calls, 0, sizeof(rec.calls));
	rec.largest_write = 0;
	trace_len = 0;
	trace[0] = '\0';
}

/* ---- faults ---- */

/* Counts the call. What it must fail with, or 0. */
static int call(enum rec_op op)
{
	unsigned nr = ++rec.calls[op];

	for (int i = 0; i < REC_MAX_FAULTS; i++) {
		struct rec_fault *fault = &rec.fault[i];

		if (fault->nth == 0 || fault->op != op || nr < fault->nth || nr - fault->nth >= fault->count)
			continue;
		fault->hits++;
		if (rec.first_hit == NULL)
			rec.first_hit = fault;
		return fault->error;
	}
	return 0;
}

static void done(struct rec_step step)
{
	if (rec.step)
		rec.step(&step);
}

void rec_fail(enum rec_op op, unsigned nth, unsigned count, int error)
{
	int i = 0;

	while (i < REC_MAX_FAULTS && rec.fault[i].nth)
		i++;
	if (i < REC_MAX_FAULTS)
		rec.fault[i] = (struct rec_fault){.op = op, .nth = nth, .count = count, .error = error};
	CHECK(i < REC_MAX_FAULTS);
}

void rec_heal(void)
{
	memset(rec.fault, 0, sizeof(rec.fault));
	rec.first_hit = NULL;
	rec.failed = NULL;
}

/* ---- the port ---- */

static int lock(void)
{
	int error = rec.locked ? -XP_E_REENTRANT : call(REC_LOCK);

	if (!error)
		rec.locked = true;
	say("lock");
	say_result(error);
	done((struct rec_step){.op = REC_LOCK, .result = error});
	return error;
}

static void unlock(void)
{
	CHECK(rec.locked);
	CHECK(!rec.parked);
	(void)call(REC_UNLOCK);
	say("unlock\n");
	done((struct rec_step){.op = REC_UNLOCK});
	rec.locked = rec.settles = false;
	rec.needs = 0;
}

/* Another thread has the lock as long as there is something that it does. */
static int lock_or(const uint32_t *done)
{
	void (*busy)(void) = rec.busy;

	if (busy && done == NULL)
		return 1;
	rec.busy = NULL;
	if (busy)
		busy();
	return done && *done ? 1 : lock();
}

static void told(void)
{
	CHECK(rec.locked);
	rec.told++;
}

static int find_block(const void *memory)
{
	for (int i = 0; i < MAX_BLOCKS; i++)
		if (blocks[i].memory == memory)
			return i;
	return -1;
}

static void *alloc(size_t size)
{
	size_t rounded = (size + 63) & ~(size_t)63;
	int slot = find_block(NULL), error = call(REC_ALLOC);
	bool refused = rec.most && size > rec.most && size != KEPT_BYTES;
	void *memory = error || slot < 0 || refused ? NULL : aligned_alloc(64, rounded);

	CHECK(rec.locked);
	CHECK(slot >= 0);
	if (memory) {
		memset(memory, 0, size);
		blocks[slot].memory = memory;
		blocks[slot].size = size;
		rec.live++;
	}
	done((struct rec_step){.op = REC_ALLOC, .len = size, .result = error});
	return memory;
}

static void release(void *memory, size_t size)
{
	int slot = memory ? find_block(memory) : -1;

	CHECK(rec.locked);
	CHECK(slot >= 0);
	(void)call(REC_RELEASE);
	if (slot >= 0) {
		CHECK_EQ(size, blocks[slot].size);
		memset(memory, 0xdd, blocks[slot].size); /* a reader that still looks shall notice */
		free(memory);
		blocks[slot].memory = NULL;
		rec.live--;
	}
	done((struct rec_step){.op = REC_RELEASE, .len = size});
}

static unsigned can(unsigned needs)
{
	return needs & rec.can;
}

static int prepare(unsigned needs, struct xp_diag *diag)
{
	int error = call(REC_PREPARE);

	CHECK(rec.locked);
	CHECK_EQ(needs & ~rec.can, 0);
	if (error && diag)
		diag->system = 7;
	if (!error) {
		rec.needs = needs;
		rec.prepared = needs ? needs : rec.prepared;
		rec.settles = !needs;
	}
	say_needs(needs);
	say_result(error);
	done((struct rec_step){.op = REC_PREPARE, .flags = needs, .result = error});
	return error;
}

/* Text is filled only where it was used: most tests are short, and many. */
static void fill_text(void)
{
	memset(rec_text, 0xf4, dirty); /* hlt: no instruction of any test */
	dirty = 0;
}

static void soil(const uint8_t *addr, size_t len)
{
	size_t end = (size_t)(addr - rec_text) + len;

	/* What exec_alloc() gave is for ever, as the engine is. */
	if (end > dirty && end <= REC_TEXT_SIZE - REC_EXEC_SIZE)
		dirty = end;
}

static bool inside(const void *addr, size_t len)
{
	uintptr_t start = (uintptr_t)rec_text, at = (uintptr_t)addr;

	return at >= start && len <= REC_TEXT_SIZE && at - start <= REC_TEXT_SIZE - len;
}

static int text_check(const void *addr, size_t len)
{
	int error = call(REC_CHECK);

	CHECK(rec.locked);
	if (!error && !inside(addr, len))
		error = -XP_E_NOT_TEXT;
	say_range("check", addr, len);
	say_result(error);
	done((struct rec_step){.op = REC_CHECK, .addr = addr, .len = len, .result = error});
	return error;
}

static int text_read(void *to, const void *addr, size_t len)
{
	int error = call(REC_READ);

	CHECK(inside(addr, len));
	if (!error)
		memcpy(to, addr, len);
	say_range("read", addr, len);
	say_result(error);
	done((struct rec_step){.op = REC_READ, .addr = addr, .len = len, .result = error});
	return error;
}

static int text_write(void *addr, const void *bytes, size_t len, unsigned flags)
{
	int error = call(REC_WRITE);
	uintptr_t at = (uintptr_t)addr;

	CHECK(rec.locked);
	CHECK(rec.needs != 0);
	CHECK(inside(addr, len));
	CHECK(len > 0 && len <= 64u << 10);
	if (flags & XP_WRITE_SINGLE) {
		CHECK(rec.needs & XP_NEED_SINGLE);
		CHECK(at / 8 == (at + len - 1) / 8);
	}
	/* No test's operand is such a byte, alone. */
	if (len == 1 && *(const uint8_t *)bytes == 0xcc)
		CHECK(rec.needs & XP_NEED_TRAP);
	if (len > rec.largest_write)
		rec.largest_write = len;
	if (error && rec.failed == NULL) {
		rec.failed = addr;
		rec.failed_len = len;
	}
	/* What fails has done half of it; a single store all or nothing. */
	if (error)
		len = flags & XP_WRITE_SINGLE ? 0 : len / 2;
	say_write(addr, bytes, len, flags);
	say_result(error);
	memcpy(addr, bytes, len);
	soil(addr, len);
	done((struct rec_step){.op = REC_WRITE, .addr = addr, .len = len, .flags = flags, .result = error});
	return error;
}

static int sync_core(void)
{
	int error = call(REC_SYNC);

	CHECK(rec.locked);
	CHECK(rec.needs & XP_NEED_SYNC || rec.settles);
	say("sync");
	say_result(error);
	done((struct rec_step){.op = REC_SYNC, .result = error});
	return error;
}

static int park(const struct xp_range *ranges, size_t nr, struct xp_diag *diag)
{
	int error = call(REC_PARK);

	(void)diag;
	CHECK(rec.locked);
	CHECK(rec.needs & XP_NEED_PARK);
	CHECK(!rec.parked);
	say("park");
	for (size_t i = 0; i < nr; i++) {
		CHECK(ranges[i].start < ranges[i].end);
		CHECK(i == 0 || ranges[i - 1].end <= ranges[i].start);
		say_range("", (const void *)ranges[i].start, ranges[i].end - ranges[i].start);
	}
	say_result(error);
	if (!error)
		rec.parked = true;
	done((struct rec_step){.op = REC_PARK, .result = error});
	return error;
}

static void unpark(void)
{
	CHECK(rec.parked);
	(void)call(REC_UNPARK);
	rec.parked = false;
	say("unpark\n");
	done((struct rec_step){.op = REC_UNPARK});
}

static int defer(uint64_t deadline_ms)
{
	int error = call(REC_DEFER);

	CHECK(rec.locked);
	if (!error)
		rec.deadline_ms = deadline_ms;
	say("defer %llu", (unsigned long long)deadline_ms);
	say_result(error);
	done((struct rec_step){.op = REC_DEFER, .result = error});
	return error;
}

static uint64_t clock_ms(void)
{
	return rec.now_ms;
}

/* Text that no test uses, from its end. */
static void *exec_alloc(const void *near, size_t size)
{
	static size_t taken;
	int error = call(REC_EXEC_ALLOC);

	(void)near;
	CHECK(rec.locked);
	if (error || size % 4096 != 0)
		return NULL;
	if (taken + size > REC_EXEC_SIZE)
		taken = 0;
	taken += size;
	return rec_text + REC_TEXT_SIZE - taken;
}

static void pass_point(enum xp__point point)
{
	/* The handler's own points belong to the tests of late traps; here they would only recurse. */
	if (point <= XP__POINT_RETIRED)
		done((struct rec_step){.op = REC_POINT, .point = point});
}

struct xp_port rec_port = {
	.abi = XP_PORT_ABI,
	.name = "recorder",
	.lock = lock,
	.unlock = unlock,
	.alloc = alloc,
	.release = release,
	.can = can,
	.prepare = prepare,
	.text_check = text_check,
	.text_read = text_read,
	.text_write = text_write,
	.sync_core = sync_core,
	.park = park,
	.unpark = unpark,
	.defer = defer,
	.clock_ms = clock_ms,
	.lock_or = lock_or,
	.told = told,
	.exec_alloc = exec_alloc,
};

void rec_start(void)
{
	size_t live = rec.live; /* what the engine keeps outlives a test */

	rec = (struct recorder){.can = ~0u, .live = live, .now_ms = 1000};
	rec_port.defer = defer;
	rec_port.bounded = false;
	rec_port.exec_alloc = exec_alloc;
	rec_forget();
	fill_text();
	xp__inject = pass_point;
	if (xp_state() == XP_STATE_NO_PORT)
		CHECK_EQ(xp_port_set(&rec_port), 0);
	CHECK_EQ(xp_state(), XP_STATE_READY);
	CHECK(!xp__modules_wait()); /* of the test before */
	CHECK_EQ(xp_set_policy(XP_POLICY_AUTO), 0);
}

void rec_bound(size_t bytes)
{
	/* A block that an earlier commit left would do. */
	CHECK_EQ(rec_port.lock(), 0);
	xp__reclaim_await();
	xp__reclaim_trim();
	rec_port.unlock();
	rec_port.bounded = bytes > 0;
	rec.most = bytes;
}

void rec_isolated(void (*run)(const void *), const void *argument)
{
	int status = -1;
	pid_t child;

	fill_text(); /* shared with all children, as long as they only read it */
	fflush(stdout);
	child = fork();
	if (child == 0) {
		xp_test_state.failures = 0;
		run(argument);
		fflush(stdout);
		_exit(xp_test_state.failures != 0);
	}
	REQUIRE(child > 0);
	REQUIRE_EQ(waitpid(child, &status, 0), child);
	if (status != 0)
		CHECK_EQ(WIFSIGNALED(status) ? WTERMSIG(status) : 0, 0);
	CHECK_EQ(status, 0);
}

void *rec_shared(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return memory;
}

/* ---- text ---- */

void rec_put(size_t offset, const uint8_t *bytes, size_t len)
{
	memcpy(rec_text + offset, bytes, len);
	soil(rec_text + offset, len);
}

static int32_t relative(const void *field, uintptr_t value)
{
	return (int32_t)(value - (uintptr_t)field);
}

void rec_switch(struct xp_switch_site *site, size_t offset, struct xp_static_switch *key, const int32_t *targets)
{
	uint8_t jmp[REC_BRANCH_LEN] = {0xe9};
	uintptr_t to = (uintptr_t)targets + (uintptr_t)(intptr_t)*targets;
	int32_t displacement = (int32_t)(to - (uintptr_t)rec_text - offset - sizeof(jmp));

	memcpy(jmp + 1, &displacement, sizeof(displacement));
	rec_put(offset, jmp, sizeof(jmp));
	site->code = relative(&site->code, (uintptr_t)(rec_text + offset));
	site->key = relative(&site->key, (uintptr_t)key);
	site->targets = relative(&site->targets, (uintptr_t)targets);
}

void rec_targets(int32_t *part, unsigned nr, unsigned first, unsigned count, size_t target, size_t stride)
{
	part[0] = (int32_t)XP_SWITCH_PART(nr, first, count);
	for (unsigned i = 0; i < count; i++)
		part[1 + i] = relative(&part[1 + i], (uintptr_t)(rec_text + target + (first + i) * stride));
	part[1 + count] = ~part[0];
}

void rec_branch(struct xp_branch_site *site, size_t offset, size_t target, struct xp_static_key *key, unsigned flags)
{
	bool jumps = ((flags & XP_SITE_TRUE) != 0) != ((flags & XP_SITE_LIKELY) != 0);
	int32_t displacement = (int32_t)(target - (offset + REC_BRANCH_LEN));

	rec_put(offset, &(uint8_t){jumps ? 0xe9 : 0xa9}, 1);
	rec_put(offset + 1, (const uint8_t *)&displacement, sizeof(displacement));
	site->code = relative(&site->code, (uintptr_t)(rec_text + offset));
	site->target = relative(&site->target, (uintptr_t)(rec_text + target));
	site->key = relative(&site->key, (uintptr_t)key | flags);
}

static void rec_call_record(struct xp_call_site *site, size_t offset, struct xp_static_call *call, unsigned flags)
{
	site->code = relative(&site->code, (uintptr_t)(rec_text + offset));
	site->call = relative(&site->call, (uintptr_t)call | flags);
}

void rec_call(struct xp_static_call *call, struct xp_call_site *site, size_t trampoline, size_t stub,
	      xp__call_func *func)
{
#ifdef __x86_64__
	uint8_t bytes[REC_TRAMPOLINE_LEN] = {0xff, 0x25, 0, 0, 0, 0, 0x0f, 0x0b};
	int32_t word = relative(rec_text + trampoline + 6, (uintptr_t)&call->slot);
	size_t at = 2;
#else
	/* Behind it a jmp that the emitter of position-independent code does not have. */
	uint8_t bytes[REC_TRAMPOLINE_LEN + 6] = {0xe9, 3, 0, 0, 0, 0x90, 0x0f, 0x0b, 0xff, 0x25};
	uintptr_t word = (uintptr_t)&call->slot;
	size_t at = REC_TRAMPOLINE_LEN + 2;
#endif

	memcpy(bytes + at, &word, sizeof(word));
	rec_put(trampoline, bytes, sizeof(bytes));
	*call = (struct xp_static_call){
		.object = {.name = "call"},
		.func = func,
		.trampoline = (xp__call_func *)(uintptr_t)(rec_text + trampoline),
		.stub = (xp__call_func *)(uintptr_t)(rec_text + stub),
	};
	call->slot = func ? func : call->stub;
	rec_call_record(site, trampoline, call, XP_SITE_TRAMPOLINE);
}

void rec_call_site(struct xp_call_site *site, size_t offset, struct xp_static_call *call, unsigned flags)
{
	uint8_t bytes[REC_CALL_LEN] = {flags & XP_SITE_TAIL ? 0xe9 : 0xe8};
	int32_t displacement = relative(rec_text + offset + REC_CALL_LEN, (uintptr_t)call->trampoline);

	memcpy(bytes + 1, &displacement, sizeof(displacement));
	rec_put(offset, bytes, sizeof(bytes));
	rec_call_record(site, offset, call, flags);
}

uintptr_t rec_goes_to(size_t offset)
{
	const uint8_t *text = rec_text + offset;
	int32_t displacement;

	if (text[0] == 0xff && text[1] == 0x25) {
		memcpy(&displacement, text + 2, sizeof(displacement));
#ifdef __x86_64__
		return *(const uintptr_t *)(text + 6 + displacement);
#else
		return *(const uintptr_t *)displacement;
#endif
	}
	memcpy(&displacement, text + 1, sizeof(displacement));
	/* A trampoline of 32-bit code as the compiler left it. */
	if (text[0] == 0xe9 && text[REC_CALL_LEN] == 0x90 && displacement == 3)
		return rec_goes_to(offset + REC_TRAMPOLINE_LEN);
	if (text[0] != 0xe8 && text[0] != 0xe9)
		return 0;
	return (uintptr_t)text + REC_CALL_LEN + (uintptr_t)(intptr_t)displacement;
}

void rec_mov(struct xp_imv_site *site, size_t offset, const uint8_t *insn, size_t len, struct xp_imv *imv)
{
	rec_put(offset, insn, len);
	*site = (struct xp_imv_site){.len = (uint8_t)len, .size = (uint8_t)imv->size};
	site->code = relative(&site->code, (uintptr_t)(rec_text + offset));
	site->imv = relative(&site->imv, (uintptr_t)imv);
}
