// SPDX-License-Identifier: MIT
/*
 * Functions with patchable entries: which there are, what is asked of them, and what their entries become.
 *
 * I1  An entry is a nop, a call of its module's stub, or a jmp to a replacement: function->text says which. Any other
 *     text is refused, and nothing is changed. A function that is asked for the first time has what the compiler left.
 * I2  Handlers and the replacement change after the text did, both in one store: until then a call by the new text runs
 *     what was there before, so that a commit that fails was never seen.
 * I3  An entry calls the stub if there are handlers, or if the replacement is out of reach of a jmp; what it was redirected
 *     to is then read by who comes through. So text and data may change one after the other.
 * I4  Lists of handlers and tables are immutable but for what is added to a table. What was replaced is given back when
 *     everybody who was in a thunk has been seen to have left.
 * I5  A request adds to those before it in the same batch: the last one's commit has them all.
 * I6  Modules are in no particular order; a module's records are by address, by the linker's doing or by ours.
 *
 * Ordering: run.c.
 */
#include "trace/function.h"

#include "arch/arch.h"
#include "core/batch.h"
#include "core/deps.h"
#include "core/engine.h"

#if XP__HAS_ENTRIES

#define BEFORE_MAX 15u
#define CHUNK_SIZE (64u << 10)
#define NR_CLASSES 8u /* of small blocks: 32, 64, … 4096 */
#define CLASS_MIN 32u

/* The records of one module, of one kind. */
struct xp__entries {
	struct xp__entries *next;
	const void *from;                 /* of them */
	const struct xp_entry_site *site; /* either of them */
	const uint64_t *patchable;
	uint32_t nr;
	uint32_t *order; /* numbers of the records by address; NULL: they are so */
	uintptr_t stub;
	struct xp__function *functions;
};

const struct xp__functions *xp__functions;
static struct xp__functions *functions; /* the same, for the writer */
static struct xp__entries *modules, *departed;
static uint64_t last_number; /* of a list of handlers */
static uint64_t nr_traced, nr_redirected;

/* ---- memory: small blocks, which are kept ---- */

static struct xp__dead *spare[NR_CLASSES];
static uint8_t *chunk;
static size_t chunk_left;

static unsigned class_of(size_t size)
{
	unsigned class = 0;

	while ((size_t)CLASS_MIN << class < size)
		class ++;
	return class;
}

static void *take(size_t size)
{
	unsigned class = class_of(size);
	size_t rounded = (size_t)CLASS_MIN << class;
	void *memory;

	if (class >= NR_CLASSES)
		return xp__port->alloc(size);
	if (spare[class]) {
		memory = spare[class];
		spare[class] = spare[class]->next;
		memset(memory, 0, rounded);
		return memory;
	}
	if (chunk_left < rounded) {
		uint8_t *more = xp__port->alloc(CHUNK_SIZE);

		if (more == NULL)
			return NULL;
		chunk = more;
		chunk_left = CHUNK_SIZE;
	}
	memory = chunk;
	chunk += rounded;
	chunk_left -= rounded;
	return memory;
}

static void give(void *memory, size_t size)
{
	unsigned class = class_of(size);
	struct xp__dead *dead = memory;

	if (class >= NR_CLASSES) {
		xp__port->release(memory, size);
		return;
	}
	dead->next = spare[class];
	spare[class] = dead;
}

/* What was replaced: since the last look, and before it. */
static struct xp__dead *fresh, *waiting;
static unsigned long waiting_for[XP__TRAP_WORDS];

static void reclaim(void)
{
	for (int turn = 0; turn < 2; turn++) {
		if (waiting == NULL) {
			waiting = fresh;
			fresh = NULL;
			memset(waiting_for, 0xff, sizeof(waiting_for));
		}
		if (waiting == NULL || !xp__trace_quiescent(waiting_for))
			return;
		while (waiting) {
			struct xp__dead *dead = waiting;

			waiting = dead->next;
			give(dead, dead->size);
		}
	}
}

static void retire(struct xp__dead *dead)
{
	dead->next = fresh;
	fresh = dead;
}

/* ---- functions by address ---- */

static size_t nr_slots(const struct xp__functions *of)
{
	return (size_t)1 << (64 - of->shift);
}

static void insert(struct xp__functions *into, struct xp__function *function)
{
	size_t at = xp__function_hash(function->code, into->shift);

	while (into->slot[at])
		at = (at + 1) & (nr_slots(into) - 1);
	/* ordering: (F1) pairs with (F2) */
	__atomic_store_n(&into->slot[at], function, __ATOMIC_RELEASE);
	into->nr++;
}

/* A table for @nr functions with those that are there, but for @module's, in the place of this one. */
static int rebuild(size_t nr, const struct xp__entries *module)
{
	struct xp__functions *old = functions, *new;
	unsigned shift = 64 - 6;
	size_t size;

	while ((size_t)1 << (64 - shift) < 2 * nr)
		shift--;
	size = sizeof(*new) + sizeof(new->slot[0]) * ((size_t)1 << (64 - shift));
	new = take(size);
	if (new == NULL)
		return -XP__ENOMEM;
	new->dead.size = size;
	new->shift = shift;
	for (size_t i = 0; old && i < nr_slots(old); i++)
		if (old->slot[i] && old->slot[i]->module != module)
			insert(new, old->slot[i]);
	functions = new;
	/* ordering: (F1) pairs with (F2) */
	__atomic_store_n(&xp__functions, new, __ATOMIC_SEQ_CST);
	if (old)
		retire(&old->dead);
	return 0;
}

static int reserve(size_t more)
{
	size_t nr = (functions ? functions->nr : 0) + more;

	if (functions && 2 * nr <= nr_slots(functions))
		return 0;
	return rebuild(2 * nr, NULL);
}

static struct xp__function *known(uintptr_t code)
{
	size_t at;

	if (functions == NULL)
		return NULL;
	for (at = xp__function_hash(code, functions->shift); functions->slot[at];
	     at = (at + 1) & (nr_slots(functions) - 1))
		if (functions->slot[at]->code == code)
			return functions->slot[at];
	return NULL;
}

/* ---- records ---- */

static void set_records(struct xp__entries *module, const struct xp_site_table *table, bool patchable)
{
	size_t bytes = (size_t)((uintptr_t)table->end - (uintptr_t)table->start);

	if (patchable)
		module->patchable = table->start;
	else
		module->site = table->start;
	module->nr = (uint32_t)(bytes / (patchable ? sizeof(uint64_t) : sizeof(struct xp_entry_site)));
}

static uint32_t number(const struct xp__entries *module, uint32_t i)
{
	return module->order ? module->order[i] : i;
}

static uintptr_t code_of(const struct xp__entries *module, uint32_t record)
{
	return module->site ? xp__relative(&module->site[record].code) : (uintptr_t)module->patchable[record];
}

static unsigned flags_of(const struct xp__entries *module, uint32_t record)
{
	return module->site ? module->site[record].size & 0xf : 0;
}

/* No stub, no part. */
static bool is_entry(const struct xp__entries *module, uint32_t record)
{
	return flags_of(module, record) == 0 && code_of(module, record) != 0;
}

static const char *name_of(const struct xp__entries *module, uint32_t record)
{
	return module->site ? (const char *)xp__relative(&module->site[record].name) : NULL;
}

static uint32_t size_of(const struct xp__entries *module, uint32_t record)
{
	return module->site ? module->site[record].size >> 8 : 0;
}

/* The bytes of the function before its entry. -fpatchable-function-entry does not say: a landing instruction may stand there. */
static unsigned before_of(const struct xp__entries *module, uint32_t record)
{
	uintptr_t code = code_of(module, record), page = 0;

	if (module->site)
		return module->site[record].size >> 4 & BEFORE_MAX;
	return code % 4096 >= XP__LANDING_LEN && xp__text_readable(&page, code - XP__LANDING_LEN, XP__LANDING_LEN) &&
			       xp__form_is_landing((const uint8_t *)(code - XP__LANDING_LEN))
		       ? XP__LANDING_LEN
		       : 0;
}

/* Where in the order the first record not below @code stands. */
static uint32_t lower_bound(const struct xp__entries *module, uintptr_t code)
{
	uint32_t low = 0, high = module->nr;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (code_of(module, number(module, middle)) < code)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Down the heap of the first @nr. */
static void sift(const struct xp__entries *module, uint32_t at, uint32_t nr)
{
	uint32_t *order = module->order, moved = order[at], child;

	for (; (child = 2 * at + 1) < nr; at = child) {
		if (child + 1 < nr && code_of(module, order[child + 1]) > code_of(module, order[child]))
			child++;
		if (code_of(module, order[child]) <= code_of(module, moved))
			break;
		order[at] = order[child];
	}
	order[at] = moved;
}

static int sort(struct xp__entries *module)
{
	uint32_t i = 1, swap;

	while (i < module->nr && code_of(module, i - 1) <= code_of(module, i))
		i++;
	if (i >= module->nr)
		return 0;
	module->order = take(module->nr * sizeof(*module->order));
	if (module->order == NULL)
		return -XP__ENOMEM;
	for (i = 0; i < module->nr; i++)
		module->order[i] = i;
	for (i = module->nr / 2; i-- > 0;)
		sift(module, i, module->nr);
	for (i = module->nr; i-- > 1;) {
		swap = module->order[0];
		module->order[0] = module->order[i];
		module->order[i] = swap;
		sift(module, 0, i);
	}
	return 0;
}

/* The record of the function at @start; false: there is none. */
static bool find_record(uintptr_t start, struct xp__entries **module, uint32_t *record)
{
	for (struct xp__entries *of = modules; of; of = of->next)
		for (uint32_t i = lower_bound(of, start); i < of->nr; i++) {
			uint32_t at = number(of, i);

			if (code_of(of, at) - start > BEFORE_MAX)
				break;
			if (is_entry(of, at) && code_of(of, at) - before_of(of, at) == start) {
				*module = of;
				*record = at;
				return true;
			}
		}
	return false;
}

/* ---- patterns ---- */

/* One character class, behind its bracket; *end is behind the closing one. */
static bool in_class(const char *class, char c, const char **end)
{
	bool not = *class == '!', in = false;
	const char *at = class + not ;

	do {
		if (*at == '\0')
			break;
		if (at[1] == '-' && at[2] != ']' && at[2] != '\0') {
			in |= c >= at[0] && c <= at[2];
			at += 3;
		} else {
			in |= *at++ == c;
		}
	} while (*at != ']');
	*end = *at ? at + 1 : at;
	return in != not ;
}

static bool matches(const char *pattern, const char *name)
{
	const char *star = NULL, *from = NULL, *end;

	if (name == NULL)
		return pattern[0] == '*' && pattern[1] == '\0';
	for (;;) {
		if (*pattern == '*') {
			star = ++pattern;
			from = name;
			continue;
		}
		end = pattern + 1;
		if (*name == '\0' && *pattern == '\0')
			return true;
		if (*name != '\0' && *pattern != '\0' &&
		    (*pattern == '?' || (*pattern == '[' ? in_class(pattern + 1, *name, &end) : *pattern == *name))) {
			pattern = end;
			name++;
			continue;
		}
		/* The last star takes one character more. */
		if (star == NULL || *from == '\0')
			return false;
		pattern = star;
		name = ++from;
	}
}

static bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* ---- functions ---- */

static struct xp__function *make(struct xp__entries *module, uint32_t record)
{
	uintptr_t code = code_of(module, record);
	const uint8_t *text = (const uint8_t *)code;
	struct xp__function *function = known(code);
	uint8_t call[XP__CALL_LEN];
	uintptr_t page = 0;
	bool readable, is_call;

	if (function || reserve(1))
		return function;
	function = take(sizeof(*function));
	if (function == NULL)
		return NULL;
	function->object.name = name_of(module, record);
	function->group = (struct xp__group){.object = &function->object, .kind = &xp__entry_kind, .nr = 1};
	function->object.groups = &function->group;
	function->module = module;
	function->code = code;
	function->size = size_of(module, record);
	function->before = (uint8_t)before_of(module, record);
	/* If it cannot be read, whatever is asked for is refused. */
	readable = xp__text_readable(&page, code, XP__ENTRY_LEN);
	is_call = readable && module->stub && xp__form_call(call, code, module->stub, false) &&
		  memcmp(text, call, XP__ENTRY_LEN) == 0;
	/* A nop of whatever form; or what was left when this module was registered before. */
	if (readable && (xp__form_is_entry_nop(text) || is_call))
		memcpy(function->text, text, XP__ENTRY_LEN);
	else
		xp__form_entry_nop(function->text);
	function->next = module->functions;
	module->functions = function;
	insert(functions, function);
	return function;
}

/*
 * Where the jump through a word leads that stands at @start; @start itself if none does. A program that is not
 * position-independent takes for the address of a shared object's function that of such a jump of its own: in its procedure
 * linkage table.
 */
static uintptr_t behind_jump(uintptr_t start)
{
	uint8_t text[XP__JUMP_WORD] = {0};
	const size_t left = 4096 - start % 4096; /* in its page: what is behind it may be none */
	uintptr_t target, word, page = 0;
	size_t len = sizeof(text);

	if (xp__port->data_read == NULL || !xp__text_readable(&page, start, 1))
		return start;
	if (left < len && !xp__text_readable(&page, start + left, 1))
		len = left;
	if (xp__port->text_read(text, (const void *)start, len))
		return start;
	if (!xp__jump_word(text, start, &word))
		return start;
	/* Two pages are never asked about, so it may not lie in two. */
	if (word % sizeof(target) || xp__port->data_read(&target, (const void *)word))
		return start;
	return target;
}

/* The record of the function that @fn is a pointer to; false: there is none. */
static bool find_function(xp__any_function *fn, struct xp__entries **module, uint32_t *record)
{
	uintptr_t start = (uintptr_t)fn;

	return find_record(start, module, record) || find_record(behind_jump(start), module, record);
}

/* What a module that is not registered may have: the function at an address, or some that a pattern matches. */
struct sought {
	uintptr_t from;      /* 0: by pattern */
	const char *pattern; /* NULL: all */
};

static bool has_sought(const struct xp_module *public, const void *data)
{
	const struct sought *sought = data;

	for (unsigned kind = XP_SITE_ENTRY; kind < public->nr_tables && kind <= XP_SITE_PATCHABLE; kind++) {
		const struct xp_site_table *table = &public->tables[kind];
		struct xp__entries module = {0};

		set_records(&module, table, kind == XP_SITE_PATCHABLE);
		for (uint32_t i = 0; i < module.nr; i++) {
			if (!is_entry(&module, i))
				continue;
			if (sought->from ? code_of(&module, i) - before_of(&module, i) == sought->from
					 : sought->pattern == NULL || matches(sought->pattern, name_of(&module, i)))
				return true;
		}
	}
	return false;
}

/* The function at @fn; NULL: *error says why. */
static struct xp__function *function_at(xp__any_function *fn, int *error)
{
	const struct sought sought = {.from = (uintptr_t)fn};
	struct xp__entries *module;
	struct xp__function *function;
	uint32_t record;

	*error = -XP__EINVAL;
	if (fn == NULL)
		return NULL;
	*error = xp__modules_retry(has_sought, &sought, NULL);
	if (!find_function(fn, &module, &record)) {
		*error = *error ? *error : -XP_E_NO_ENTRY;
		return NULL;
	}
	function = make(module, record);
	*error = function ? 0 : -XP__ENOMEM;
	return function;
}

static struct xp__function *function_of(const struct xp__request *request)
{
	return (struct xp__function *)request->object;
}

/* ---- lists of handlers ---- */

static uint32_t place_of(const struct xp__handlers *list, const struct xp_function_handler *handler, const void *data)
{
	uint32_t i = 0;

	while (list && i < list->nr && (list->handler[i].handler != handler || list->handler[i].data != data))
		i++;
	return i;
}

static bool has(const struct xp__handlers *list, const struct xp_function_handler *handler, const void *data)
{
	return list && place_of(list, handler, data) < list->nr;
}

static struct xp__handlers *new_list(uint32_t nr)
{
	size_t size = sizeof(struct xp__handlers) + nr * sizeof(struct xp__handler);
	struct xp__handlers *list = take(size);

	if (list) {
		list->dead.size = size;
		list->number = ++last_number;
		list->general = true;
	}
	return list;
}

static void append(struct xp__handlers *list, const struct xp__handler *handler)
{
	list->handler[list->nr++] = *handler;
	list->nr_leave += handler->handler->leave != NULL;
	list->general = list->general && handler->handler->flags & XP_FUNCTION_GENERAL_REGS;
}

/* The word that no other handler of the list has. */
static int free_word(const struct xp__handlers *list, uint8_t *word)
{
	unsigned taken = 0;

	for (uint32_t i = 0; list && i < list->nr; i++)
		if (list->handler[i].handler->leave)
			taken |= 1u << list->handler[i].word;
	for (*word = 0; *word < XP_FUNCTION_LEAVES; ++*word)
		if (!(taken >> *word & 1))
			return 0;
	return -XP_E_LEAVES;
}

/* The same list but for the one at @left_out, with room for one more. */
static struct xp__handlers *copy(const struct xp__handlers *list, uint32_t left_out)
{
	struct xp__handlers *new = new_list((list ? list->nr : 0) + 1);

	if (new &&list)
		new->redirect = list->redirect;
	for (uint32_t i = 0; new &&list &&i < list->nr; i++)
		if (i != left_out)
			append(new, &list->handler[i]);
	return new;
}

static int with(struct xp__handlers **result, const struct xp__handlers *list, const struct xp__request *request)
{
	struct xp__handler handler = {.handler = request->entry.handler, .data = request->entry.data};
	int error;

	if (has(list, handler.handler, handler.data))
		return -XP_E_TRACED;
	if (handler.handler->leave) {
		error = free_word(list, &handler.word);
		if (error)
			return error;
		if (!xp__port->can(XP_NEED_CALL))
			return -XP_E_SHADOW_STACK;
	}
	*result = copy(list, UINT32_MAX);
	if (*result == NULL)
		return -XP__ENOMEM;
	handler.since = (*result)->number;
	append(*result, &handler);
	return 0;
}

static int without(struct xp__handlers **result, const struct xp__handlers *list, const struct xp__request *request)
{
	if (!has(list, request->entry.handler, request->entry.data))
		return -XP_E_NOT_TRACED;
	*result = NULL;
	if (list->nr == 1 && list->redirect == 0)
		return 0;
	*result = copy(list, place_of(list, request->entry.handler, request->entry.data));
	return *result ? 0 : -XP__ENOMEM;
}

static int redirected(struct xp__handlers **result, const struct xp__handlers *list, const struct xp__request *request)
{
	*result = NULL;
	if (request->entry.replacement == 0 && (list == NULL || list->nr == 0))
		return 0;
	*result = copy(list, UINT32_MAX);
	if (*result == NULL)
		return -XP__ENOMEM;
	(*result)->redirect = request->entry.replacement;
	return 0;
}

static bool is_traced(const struct xp__handlers *list)
{
	return list && list->nr > 0;
}

static uintptr_t redirect_of(const struct xp__handlers *list)
{
	return list ? list->redirect : 0;
}

/* ---- the kind ---- */

/* I5: what is there, or what an earlier request of this commit makes of it, and this request. */
static int entry_begin(struct xp__request *request)
{
	struct xp__function *function = function_of(request);
	struct xp__handlers *list = function->changes ? function->new_handlers : function->handlers, *new = list;
	int error = 0;

	if (xp__port->function_thread == NULL && request->entry.op == XP__ENTRY_TRACE)
		return -XP_E_NO_METHOD;
	switch (request->entry.op) {
	case XP__ENTRY_TRACE:
		error = with(&new, list, request);
		break;
	case XP__ENTRY_UNTRACE:
		error = without(&new, list, request);
		break;
	case XP__ENTRY_REDIRECT:
		error = redirected(&new, list, request);
		break;
	}
	if (error)
		return error;
	if (new != list && list &&list != function->handlers)
		give(list, list->dead.size);
	function->new_handlers = new;
	function->changes = true;
	return 0;
}

static void entry_end(struct xp__request *request, bool done)
{
	struct xp__function *function = function_of(request);
	struct xp__handlers *old = function->handlers, *new = function->new_handlers;
	void *pin = function->pin;

	if (done && request->entry.op == XP__ENTRY_REDIRECT) {
		function->pin = request->entry.pin;
		request->entry.pin = pin;
	}
	if (!function->changes)
		return;
	function->changes = false;
	if (!done) {
		if (new &&new != old)
			give(new, new->dead.size);
		return;
	}
	nr_traced += is_traced(new) - is_traced(old);
	nr_redirected += (redirect_of(new) != 0) - (redirect_of(old) != 0);
	/* ordering: (F1) pairs with (F2) */
	__atomic_store_n(&function->handlers, new, __ATOMIC_SEQ_CST);
	if (old && old != new)
		retire(&old->dead);
}

static int refuse(const struct xp__function *function, int error, const char *detail, struct xp_diag *diag)
{
	if (diag)
		diag->key = function->object.name;
	return xp__fail(diag, error, XP_PHASE_VALIDATE, (const void *)function->code, detail);
}

/* I3. What the entry is to become; an error if it cannot be. */
static int wanted(const struct xp__function *function, uint8_t *bytes, struct xp_diag *diag)
{
	const struct xp__handlers *handlers = function->changes ? function->new_handlers : function->handlers;
	uintptr_t redirect = redirect_of(handlers);

	if (!is_traced(handlers) && redirect == 0) {
		xp__form_entry_nop(bytes);
		return 0;
	}
	if (!is_traced(handlers) && xp__form_jump(bytes, function->code, redirect))
		return 0;
	/* The thunk returns elsewhere than where it was called from. */
	if (redirect && !xp__port->can(XP_NEED_CALL))
		return refuse(function, -XP_E_SHADOW_STACK, "a replacement that is traced, or farther than 2 GiB away",
			      diag);
	if (function->module->stub == 0)
		return refuse(function, -XP_E_NO_ENTRY, "no file of its object includes <crosspatch/function.h>", diag);
	if (xp__port->function_thread == NULL)
		return refuse(function, -XP_E_NO_METHOD, "the port keeps nothing for threads", diag);
	if (!xp__form_call(bytes, function->code, function->module->stub, false))
		return refuse(function, -XP_E_RANGE, "the stub is out of the entry's reach", diag);
	return 0;
}

static int entry_site(const struct xp__group *group, size_t i, struct xp__site *site)
{
	struct xp__function *function = (struct xp__function *)group->object;

	*site = (struct xp__site){.code = function->code, .handle = function, .len = XP__ENTRY_LEN};
	return i > 0 ? -1 : function->code != 0;
}

/* Of what an entry may be in any state: number @n. */
static int any_form(const struct xp__function *function, const uint8_t *text, unsigned n, uint8_t *bytes)
{
	uintptr_t redirect = redirect_of(function->handlers);

	if (n == 0 && xp__form_is_entry_nop(text)) {
		memcpy(bytes, text, XP__ENTRY_LEN);
		return 1;
	}
	if (n < 2)
		return xp__form_entry_built(bytes, n);
	if (n == 2 && function->module->stub)
		return xp__form_call(bytes, function->code, function->module->stub, false);
	return n <= 3 && redirect && xp__form_jump(bytes, function->code, redirect);
}

static int entry_form(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		      enum xp__which which, unsigned n, struct xp__form *form, struct xp_diag *diag)
{
	const struct xp__function *function = site->handle;
	int error;

	form->resume = XP_RESUME_EMULATE;
	if (which == XP__FROM_ANY)
		return any_form(function, text, n, form->bytes);
	if (n > 0)
		return 0;
	error = which == XP__WANTED ? wanted(function, form->bytes, diag) : 0;
	if (error)
		return error;
	/* What stands there is right until the next commit. */
	if (which != XP__WANTED)
		memcpy(form->bytes, function->text, XP__ENTRY_LEN);
	(void)request;
	return 1;
}

int xp__functions_each(int (*visit)(const struct xp__group *groups, void *data), void *data)
{
	int result = 0;

	for (const struct xp__entries *module = modules; module && !result; module = module->next)
		for (const struct xp__function *f = module->functions; f && !result; f = f->next)
			result = visit(&f->group, data);
	return result;
}

static void entry_applied(const struct xp__request *request, const struct xp__group *group)
{
	struct xp__function *function = (struct xp__function *)group->object;

	(void)request;
	(void)wanted(function, function->text, NULL);
}

static void entry_drop(struct xp__request *request)
{
	if (request->entry.pin)
		xp__port->unpin(request->entry.pin);
	request->entry.pin = NULL;
}

/* ---- modules ---- */

static int arrive(const struct xp_site_table *records, bool patchable)
{
	/* The stub is among the records of the other kind, which stand before. */
	const struct xp_site_table *sites = patchable ? records - (XP_SITE_PATCHABLE - XP_SITE_ENTRY) : records;
	size_t bytes = (size_t)((uintptr_t)records->end - (uintptr_t)records->start);
	struct xp__entries *module;
	uintptr_t stub = 0;
	int error;

	for (const struct xp_entry_site *site = sites->start; site < (const struct xp_entry_site *)sites->end; site++)
		if ((site->size & 0xf) == XP_SITE_ENTRY_STUB)
			stub = xp__relative(&site->code);
	if (bytes == 0 || (!patchable && stub && bytes == sizeof(struct xp_entry_site)))
		return 0;
	module = take(sizeof(*module));
	if (module == NULL)
		return -XP__ENOMEM;
	module->from = records->start;
	module->stub = stub;
	set_records(module, records, patchable);
	error = sort(module);
	if (error) {
		give(module, sizeof(*module));
		return error;
	}
	module->next = modules;
	modules = module;
	return 0;
}

static int entry_coming(const struct xp_site_table *records)
{
	return arrive(records, false);
}

static int patchable_coming(const struct xp_site_table *records)
{
	return arrive(records, true);
}

static struct xp__entries *unlink_module(struct xp__entries **list, const struct xp_site_table *records)
{
	struct xp__entries *module;

	while (*list && (*list)->from != records->start)
		list = &(*list)->next;
	module = *list;
	if (module)
		*list = module->next;
	return module;
}

/* The text goes away: nobody is in these functions, or comes through their entries. */
static void entry_going(const struct xp_site_table *records)
{
	struct xp__entries *module = unlink_module(&modules, records);

	if (module == NULL)
		return;
	for (const struct xp__function *function = module->functions; function; function = function->next) {
		nr_traced -= is_traced(function->handlers);
		nr_redirected -= redirect_of(function->handlers) != 0;
	}
	/* Without memory for another table this one is emptied, one by one; then what stands behind is not found. */
	if (module->functions && rebuild(functions->nr, module))
		for (size_t i = 0; i < nr_slots(functions); i++)
			if (functions->slot[i] && functions->slot[i]->module == module)
				functions->slot[i]->code = 0;
	module->next = departed;
	departed = module;
}

/* Without the lock: pins. */
static void entry_gone(const struct xp_site_table *records)
{
	struct xp__entries *module;
	struct xp__function *function;

	if (xp__port->lock())
		return;
	module = unlink_module(&departed, records);
	xp__port->unlock();
	if (module == NULL)
		return;
	for (function = module->functions; function; function = function->next)
		if (function->pin)
			xp__port->unpin(function->pin);
	if (xp__port->lock())
		return;
	while (module->functions) {
		function = module->functions;
		module->functions = function->next;
		if (function->handlers)
			retire(&function->handlers->dead);
		if (function->code)
			give(function, sizeof(*function));
	}
	if (module->order)
		give(module->order, module->nr * sizeof(*module->order));
	give(module, sizeof(*module));
	reclaim();
	xp__port->unlock();
}

const struct xp__kind xp__entry_kind = {
	.cumulative = true,
	.own_plans = true,
	.begin = entry_begin,
	.end = entry_end,
	.site = entry_site,
	.form = entry_form,
	.applied = entry_applied,
	.drop = entry_drop,
	.gone = entry_gone,
	.coming = entry_coming,
	.going = entry_going,
};

const struct xp__kind xp__patchable_kind = {
	.gone = entry_gone,
	.coming = patchable_coming,
	.going = entry_going,
};

/* ---- one function ---- */

static int check(xp__any_function *fn, const struct xp_function_handler *handler)
{
	return fn && handler && (handler->entry || handler->leave) ? 0 : -XP__EINVAL;
}

static struct xp__request request_of(struct xp__function *function, uint8_t op)
{
	struct xp__request request = {.kind = &xp__entry_kind, .object = &function->object};

	request.entry.op = op;
	return request;
}

/* A part that the compiler made of another function has other arguments. */
static bool is_clone(const char *name)
{
	for (; name && *name; name++)
		if (*name == '.')
			return true;
	return false;
}

/* Everything but the function, which is found under the lock. */
static int request_for(struct xp__request *request, xp__any_function *fn, uint8_t op,
		       const struct xp_function_handler *handler, void *data, xp__any_function *replacement)
{
	struct xp__function *function;
	int error = xp__lock(NULL);

	if (error)
		return error;
	function = function_at(fn, &error);
	if (!error && replacement && is_clone(function->object.name))
		error = -XP__EINVAL;
	xp__unlock();
	if (error)
		return error;
	*request = request_of(function, op);
	request->entry.handler = handler;
	request->entry.data = data;
	request->entry.replacement = (uintptr_t)replacement;
	if (replacement && xp__port->pin)
		request->entry.pin = xp__port->pin((const void *)(uintptr_t)replacement, (const void *)(uintptr_t)fn);
	return 0;
}

static int apply(struct xp__request *request, int error)
{
	if (error)
		return error;
	error = xp__lock(NULL);
	if (!error) {
		error = xp__apply_locked(request, 1, NULL);
		reclaim();
		xp__unlock();
	}
	entry_drop(request);
	return error;
}

static int into_batch(struct xp_batch *batch, struct xp__request *request, int error)
{
	if (error)
		return error;
	error = xp__batch_add(batch, request);
	if (error)
		entry_drop(request);
	return error;
}

static int trace_item(struct xp__request *request, xp__any_function *fn, const struct xp_function_handler *handler,
		      void *data, uint8_t op)
{
	int error = check(fn, handler);

	return error ? error : request_for(request, fn, op, handler, data, NULL);
}

static int redirect_item(struct xp__request *request, xp__any_function *fn, xp__any_function *replacement)
{
	if (fn == NULL || replacement == NULL || fn == replacement)
		return -XP__EINVAL;
	return request_for(request, fn, XP__ENTRY_REDIRECT, NULL, NULL, replacement);
}

static int restore_item(struct xp__request *request, xp__any_function *fn)
{
	return request_for(request, fn, XP__ENTRY_REDIRECT, NULL, NULL, NULL);
}

int xp__function_trace(xp__any_function *fn, const struct xp_function_handler *handler, void *data)
{
	struct xp__request request;

	return apply(&request, trace_item(&request, fn, handler, data, XP__ENTRY_TRACE));
}

int xp__function_untrace(xp__any_function *fn, const struct xp_function_handler *handler, void *data)
{
	struct xp__request request;

	return apply(&request, trace_item(&request, fn, handler, data, XP__ENTRY_UNTRACE));
}

int xp__function_redirect(xp__any_function *fn, xp__any_function *replacement)
{
	struct xp__request request;

	return apply(&request, redirect_item(&request, fn, replacement));
}

int xp__function_restore(xp__any_function *fn)
{
	struct xp__request request;

	return apply(&request, restore_item(&request, fn));
}

int xp__batch_add_trace(struct xp_batch *batch, xp__any_function *fn, const struct xp_function_handler *handler,
			void *data)
{
	struct xp__request request;

	return into_batch(batch, &request, trace_item(&request, fn, handler, data, XP__ENTRY_TRACE));
}

int xp__batch_add_untrace(struct xp_batch *batch, xp__any_function *fn, const struct xp_function_handler *handler,
			  void *data)
{
	struct xp__request request;

	return into_batch(batch, &request, trace_item(&request, fn, handler, data, XP__ENTRY_UNTRACE));
}

int xp__batch_add_redirect(struct xp_batch *batch, xp__any_function *fn, xp__any_function *replacement)
{
	struct xp__request request;

	return into_batch(batch, &request, redirect_item(&request, fn, replacement));
}

int xp__batch_add_restore(struct xp_batch *batch, xp__any_function *fn)
{
	struct xp__request request;

	return into_batch(batch, &request, restore_item(&request, fn));
}

xp__any_function *xp__function_original(xp__any_function *fn)
{
	struct xp__entries *module;
	uintptr_t original = 0;
	uint32_t record;

	if (fn == NULL || xp__lock(NULL))
		return NULL;
	if (find_function(fn, &module, &record))
		original = code_of(module, record) + XP__ENTRY_LEN;
	xp__unlock();
	return (xp__any_function *)original;
}

/* ---- many functions ---- */

/*
 * Whether the entry is its function's first instruction: 1, 0, or an error if nothing says it. A record says so. What
 * -fpatchable-function-entry=N,M leaves is the address of N nops, of which M stand before the function: those are executed by
 * nobody, and five that lie on both sides are no entry.
 */
static int at_beginning(const struct xp__entries *module, uint32_t record)
{
	if (module->site)
		return 1;
	if (xp__port->function_begins == NULL)
		return -XP_E_NO_ENTRY;
	return xp__port->function_begins((const void *)(code_of(module, record) - before_of(module, record)));
}

/* What a pattern asks of each function that it matches. */
static bool concerns(const struct xp__entries *module, uint32_t record, const char *pattern,
		     const struct xp__request *asked)
{
	const struct xp__function *function;
	uintptr_t page = 0;
	bool traced;

	if (!is_entry(module, record) || !(pattern == NULL || matches(pattern, name_of(module, record))))
		return false;
	function = known(code_of(module, record));
	traced = function && has(function->handlers, asked->entry.handler, asked->entry.data);
	switch (asked->entry.op) {
	case XP__ENTRY_TRACE:
		return !traced && at_beginning(module, record) != 0;
	case XP__ENTRY_UNTRACE:
		return traced;
	default:
		return xp__text_readable(&page, code_of(module, record), XP__ENTRY_LEN) &&
		       xp__form_is_entry_nops((const uint8_t *)code_of(module, record)) &&
		       at_beginning(module, record) != 0;
	}
}

static int apply_matching_locked(const char *pattern, const struct xp__request *asked, struct xp_diag *diag)
{
	const struct sought sought = {.pattern = pattern};
	struct xp__request *requests;
	size_t nr = 0, room = 0;
	bool untrace = asked->entry.op == XP__ENTRY_UNTRACE;
	int error = xp__modules_retry(has_sought, &sought, untrace ? NULL : diag);

	/* What was never traced there need not end. */
	if (error && !untrace)
		return error;
	error = 0;
	for (const struct xp__entries *module = modules; module; module = module->next)
		for (uint32_t i = 0; i < module->nr; i++)
			room += concerns(module, i, pattern, asked);
	if (room == 0)
		return 0;
	requests = reserve(room) ? NULL : xp__port->alloc(room * sizeof(*requests));
	if (requests == NULL)
		return xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
	for (struct xp__entries *module = modules; module && !error; module = module->next)
		for (uint32_t i = 0; i < module->nr && !error; i++) {
			uint32_t record = number(module, i);
			struct xp__function *function;

			if (!concerns(module, record, pattern, asked))
				continue;
			if (!untrace && at_beginning(module, record) < 0) {
				error = xp__fail(
					diag, -XP_E_NO_ENTRY, XP_PHASE_VALIDATE, (const void *)code_of(module, record),
					"no unwind table says where the function of these nops begins: link with --eh-frame-hdr, or annotate the object");
				break;
			}
			function = make(module, record);
			if (function == NULL) {
				error = xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
				break;
			}
			requests[nr] = *asked;
			requests[nr++].object = &function->object;
		}
	if (!error)
		error = xp__apply_locked(requests, nr, diag);
	xp__port->release(requests, room * sizeof(*requests));
	reclaim();
	return error ? error : (int)nr;
}

static int apply_matching(const char *pattern, const struct xp__request *asked, struct xp_diag *diag)
{
	int result = xp__lock(diag);

	if (result)
		return result;
	result = apply_matching_locked(pattern, asked, diag);
	xp__unlock();
	return result;
}

static int trace_matching(const char *pattern, const struct xp_function_handler *handler, void *data, uint8_t op,
			  struct xp_diag *diag)
{
	struct xp__request request = {.kind = &xp__entry_kind};

	if (pattern == NULL || handler == NULL || !(handler->entry || handler->leave)) {
		if (diag)
			memset(diag, 0, sizeof(*diag));
		return xp__fail(diag, -XP__EINVAL, XP_PHASE_VALIDATE, NULL, NULL);
	}
	request.entry.op = op;
	request.entry.handler = handler;
	request.entry.data = data;
	return apply_matching(pattern, &request, diag);
}

int xp_function_trace_matching(const char *pattern, const struct xp_function_handler *handler, void *data,
			       struct xp_diag *diag)
{
	return trace_matching(pattern, handler, data, XP__ENTRY_TRACE, diag);
}

int xp_function_untrace_matching(const char *pattern, const struct xp_function_handler *handler, void *data,
				 struct xp_diag *diag)
{
	return trace_matching(pattern, handler, data, XP__ENTRY_UNTRACE, diag);
}

int xp_function_prepare(const char *pattern, struct xp_diag *diag)
{
	struct xp__request request = {.kind = &xp__entry_kind};

	request.entry.op = XP__ENTRY_PREPARE;
	request.early = true;
	return apply_matching(pattern, &request, diag);
}

xp__any_function *xp_function_find(const char *name)
{
	uintptr_t found = 0;

	if (name == NULL || xp__lock(NULL))
		return NULL;
	for (const struct xp__entries *module = modules; module; module = module->next)
		for (uint32_t i = 0; module->site && i < module->nr && !found; i++)
			if (is_entry(module, i) && same(name, name_of(module, i)))
				found = code_of(module, i) - before_of(module, i);
	xp__unlock();
	return (xp__any_function *)found;
}

const char *xp__function_name(xp__any_function *fn)
{
	struct xp__entries *module;
	const char *name = NULL;
	uint32_t record;

	if (fn == NULL || xp__lock(NULL))
		return NULL;
	if (find_function(fn, &module, &record))
		name = name_of(module, record);
	xp__unlock();
	return name;
}

void xp_function_stats_read(struct xp_function_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	xp__trace_count(stats);
	if (xp__lock(NULL))
		return;
	for (const struct xp__entries *module = modules; module; module = module->next)
		for (uint32_t i = 0; i < module->nr; i++)
			stats->entries += is_entry(module, i);
	stats->traced = nr_traced;
	stats->redirected = nr_redirected;
	xp__unlock();
}

/* ---- waiting ---- */

int xp_function_synchronize(void)
{
	enum { TRIES = 2000 };
	unsigned long asked[XP__TRAP_WORDS];

	if (xp_state() == XP_STATE_NO_PORT)
		return -XP_E_NOT_READY;
	if (xp__trace_busy())
		return -XP_E_REENTRANT;
	memset(asked, 0xff, sizeof(asked));
	for (int i = 0; i < TRIES; i++) {
		if (xp__trace_quiescent(asked))
			return 0;
		if (xp__port->wait)
			xp__port->wait();
	}
	return -XP__EBUSY;
}

/* The ranges of a function: its own, and those of its parts. Returns how many; @ranges may be NULL. */
static size_t ranges_of(const struct xp__function *function, struct xp_range *ranges)
{
	const struct xp__entries *module = function->module;
	size_t nr = 0;

	for (uint32_t i = 0; module->site && i < module->nr; i++) {
		uintptr_t code = code_of(module, i);
		bool own = code == function->code;

		if (!own && !(flags_of(module, i) & XP_SITE_PART && same(name_of(module, i), function->object.name)))
			continue;
		if (ranges) {
			/* Who rests before the entry, or on it, goes where it leads now. */
			ranges[nr].start = own ? code + XP__ENTRY_LEN : code;
			ranges[nr].end = code - (own ? function->before : 0) + size_of(module, i);
		}
		nr++;
	}
	return nr;
}

static void sort_ranges(struct xp_range *ranges, size_t nr)
{
	for (size_t i = 1; i < nr; i++) {
		struct xp_range range = ranges[i];
		size_t at = i;

		for (; at > 0 && ranges[at - 1].start > range.start; at--)
			ranges[at] = ranges[at - 1];
		ranges[at] = range;
	}
}

static int wait_until_left(const void *from, const struct xp_range *ranges, size_t nr, struct xp_diag *diag)
{
	enum { TRIES = 200 };
	int error = xp__port->prepare(XP_NEED_PARK, diag);

	for (int i = 0; i < TRIES && !error; i++) {
		bool waited_for;

		/* Of our own stack nothing will change while we look. */
		error = xp__port->stack_check ? xp__port->stack_check(from, ranges, nr, diag) : 0;
		if (!error)
			error = xp__port->park(ranges, nr, diag);
		if (error)
			return error;
		waited_for = xp__trace_frames(ranges, nr);
		xp__port->unpark();
		if (!waited_for)
			return 0;
		if (xp__port->wait)
			xp__port->wait();
	}
	return error ? error : -XP_E_IN_RANGE;
}

static int quiesce_locked(const void *from, xp__any_function *const *fns, size_t nr, struct xp_diag *diag)
{
	struct xp_range *ranges;
	size_t nr_ranges = 0;
	int error = 0;

	for (size_t i = 0; i < nr; i++) {
		const struct xp__function *function = function_at(fns[i], &error);

		if (!error && function->size == 0)
			error = refuse(function, -XP__EINVAL, "its record does not tell how long the function is",
				       diag);
		if (error)
			return xp__fail(diag, error, XP_PHASE_VALIDATE, (const void *)(uintptr_t)fns[i], NULL);
		nr_ranges += ranges_of(function, NULL);
	}
	ranges = xp__port->alloc(nr_ranges * sizeof(*ranges));
	if (ranges == NULL)
		return xp__fail(diag, -XP__ENOMEM, XP_PHASE_VALIDATE, NULL, NULL);
	for (size_t i = 0, at = 0; i < nr; i++)
		at += ranges_of(function_at(fns[i], &error), ranges + at);
	sort_ranges(ranges, nr_ranges);
	error = wait_until_left(from, ranges, nr_ranges, diag);
	xp__port->release(ranges, nr_ranges * sizeof(*ranges));
	return error ? xp__fail(diag, error, XP_PHASE_PREPARE, NULL, NULL) : 0;
}

int xp_function_quiesce(xp__any_function *const *fns, size_t nr, struct xp_diag *diag)
{
	int error = xp__lock(diag);

	if (error || nr == 0) {
		if (!error)
			xp__unlock();
		return error;
	}
	/* Our own frames hold these addresses. */
	error = quiesce_locked(__builtin_frame_address(0), fns, nr, diag);
	xp__unlock();
	return error;
}

/* ---- a handler that counts ---- */

#define NR_SHARDS                                                                                                      \
	(sizeof(((struct xp_function_counter *)0)->shard) / sizeof(((struct xp_function_counter *)0)->shard[0]))

static XP__GENERAL_REGS void count(const struct xp_function_call *call, void *data)
{
	struct xp_function_counter *counter = data;
	const struct xp_function_thread *thread = xp__port->function_thread();
	unsigned long *nr = &counter->shard[xp__shard(thread, NR_SHARDS)].nr;

	(void)call;
	if (thread->shard < XP__OWN_SHARDS(NR_SHARDS))
		xp__own_increment(nr);
	else
		__atomic_fetch_add(nr, 1, __ATOMIC_RELAXED);
}

const struct xp_function_handler *xp_function_counting(void)
{
	static const struct xp_function_handler handler = {.entry = count, .flags = XP_FUNCTION_GENERAL_REGS};

	return &handler;
}

unsigned long xp_function_counted(const struct xp_function_counter *counter)
{
	unsigned long nr = 0;

	for (size_t i = 0; i < NR_SHARDS; i++)
		nr += __atomic_load_n(&counter->shard[i].nr, __ATOMIC_RELAXED);
	return nr;
}

#endif
