/* SPDX-License-Identifier: MIT */
/*
 * What a kind is to the engine: a kind of object that has sites (keys, calls, values…), which states an object can be
 * brought to, and which forms a site has in each. Batches, registration, repair and the protocol know no more than this.
 */
#ifndef XP_CORE_KIND_H
#define XP_CORE_KIND_H

#include "arch/arch.h"

#include <crosspatch/error.h>
#include <crosspatch/port.h>
#define XP_NO_MODULE /* the library itself has no sites */
#include <crosspatch/site.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xp__commit;
struct xp__kind;
struct xp__size;

/* The sites of one object in one module: @nr numbers of records, in ascending order. */
struct xp__group {
	struct xp__group *next; /* of the same object, in other modules */
	struct xp_object *object;
	const struct xp__kind *kind; /* whose records these are */
	const void *records;         /* the module's */
	const uint32_t *numbers;
	uint32_t nr;
	uint32_t nr_flag[2]; /* records with flag 1, with flag 2 */
	struct xp__group *owed; /* the next of those whose objects are owed a sync: ticket.c */
};

/* xp__relative - where a record's field points: it holds the distance from itself. */
static inline uintptr_t xp__relative(const int32_t *field)
{
	return (uintptr_t)field + (uintptr_t)(intptr_t)*field;
}

/* xp__real - the object itself, where @object may be a module's handle. */
static inline struct xp_object *xp__real(struct xp_object *object)
{
	return object->real ? object->real : object;
}

/*
 * xp__site_flags, xp__site_handle - the two things that a reference to an object holds. xp__site_object - the object itself
 * behind the handle.
 */
static inline unsigned xp__site_flags(const int32_t *reference)
{
	return (unsigned)xp__relative(reference) & XP_SITE_FLAGS;
}

static inline void *xp__site_handle(const int32_t *reference)
{
	return (void *)(xp__relative(reference) & ~(uintptr_t)XP_SITE_FLAGS);
}

static inline struct xp_object *xp__site_object(const int32_t *reference)
{
	return xp__real(xp__site_handle(reference));
}

struct xp__known;

/* xp_object.flags: those of kinds/key.c, and of core/ticket.c; all that are used. */
#define XP__OBJECT_COUNTED 1u
#define XP__OBJECT_PENDING 2u
#define XP__OBJECT_OWED 4u
#define XP__OBJECT_FLAGS 7u

/* A poke with its bytes. */
struct xp__poke {
	uintptr_t addr;
	uintptr_t resume_at;
	uint8_t len;
	uint8_t resume; /* enum xp_resume */
	uint8_t expect[XP_MAX_LEN];
	uint8_t replace[XP_MAX_LEN];
};

/* Which forms of a site. The first three say what its text may be before a request is carried out. */
enum xp__which {
	XP__FROM_STATE, /* its object's state: every site changes */
	XP__FROM_BUILT, /* its module comes, and the text is as the compiler left it; some sites change */
	XP__FROM_ANY,   /* the same, and the text may have been patched before: any form that it has in any state */
	XP__RIGHT,      /* with which it does what the request says; first the one that a repair writes */
	XP__WANTED, /* which the request may leave, the best one first; a later one only where it stands already. Asked of text
			   that is one of the first three's */
};

/* A site: where its text is, and what it is named by. */
struct xp__site {
	uintptr_t code;
	const void *record; /* NULL: it has none, it was discovered */
	void *handle;       /* the object that the record names, which may be a module's handle of the real one */
	uint8_t len;
	uint8_t flags;                           /* XP_SITE_ flags of the record, and what the kind adds */
	const struct xp__discovered *discovered; /* where in the handle's list it stands, if it has no record */
};

/* One form. */
struct xp__form {
	uint8_t bytes[XP_MAX_LEN];
	uint8_t change; /* leading bytes that differ between forms; 0: all */
	uint8_t resume; /* enum xp_resume: what becomes of a thread that meets a breakpoint while this form is written */
	bool whole;     /* no thread enters the old text, or this, but at its first byte */
	uintptr_t resume_at;
	void (**word)(void); /* not NULL: text of this form jumps through it, and it is to become @word_to first */
	void (*word_to)(void);
};

/* What becomes of a gate's provider. */
enum xp__gate_op {
	XP__GATE_PROVIDE,  /* there must be none */
	XP__GATE_REPLACE,  /* there must be one */
	XP__GATE_WITHDRAW, /* likewise */
	XP__GATE_SET,      /* whatever there is */
	XP__GATE_BIND,     /* the one that there is stays */
};

/* What becomes of a function's entry. A redirection to 0 ends one. */
enum xp__entry_op { XP__ENTRY_TRACE, XP__ENTRY_UNTRACE, XP__ENTRY_REDIRECT, XP__ENTRY_PREPARE };

/* To bring one object to one state. */
struct xp__request {
	const struct xp__kind *kind;
	struct xp_object *object;    /* the real one; NULL: bytes at an address */
	const struct xp__site *only; /* not NULL: only this site of it */
	uint8_t from;                /* enum xp__which */
	bool skip;   /* nothing to do: it is so already, or a later request for the same object takes its place */
	bool merged; /* a later request of a cumulative kind changes the text for this one, too */
	bool early;  /* no other thread executes these sites: the caller says so */
	bool async;  /* no sync follows: its commit's only phase */
	union {
		bool on;
		uint32_t choice;
		uint64_t bits; /* of an immediate value */
		struct {
			const struct xp__poke *at;
			size_t nr;
		} pokes;
		struct {
			void (*func)(void);
			void *pin; /* of func; after the commit of what was there before */
			bool back; /* calls go to the trampoline again */
		} call;
		struct {
			void (*provider)(void);
			void *pin;   /* of the provider; after the commit of the one before */
			uint8_t op;  /* enum xp__gate_op */
			bool bind;   /* unbound sites too, as far as they are known */
			bool direct; /* and what else calls the stub does not ask the resolver */
		} gate;
		struct xp__far_request far;
		struct {
			const struct xp_function_handler *handler;
			void *data;
			uintptr_t replacement;
			void *pin;  /* of the replacement; after the commit of what was there before */
			uint8_t op; /* enum xp__entry_op */
		} entry;
	};
};

struct xp__kind {
	uint8_t record_size; /* of a site; 0: the kind has no records, or looks after them itself, from coming() to going() */
	bool cumulative;      /* several requests for one object add up: begin() sees to it, and each is ended */
	bool asynchronous; /* its sites may be left without a sync: nothing is given back that their old text leads to */
	bool one_byte;     /* a site's text is the same in all states but for one byte, the same one */
	bool own_plans;       /* no two sites have equal plans: none is looked for */
	uint8_t object_at;    /* where in the record the reference to the object stands */
	bool several_records; /* one place has several records: a gate's stub is one, and may be a site */
	bool by_name; /* what a record names is a handle: coming() leads it to the object of its name */
	uint16_t object_size; /* of what the reference leads to */
	uint8_t nr_relative; /* fields with which the record begins that hold a distance from themselves, the site's first */
	uint8_t site_len;    /* of each site, for xp__group_site() */

	/*
	 * begin - before anything else is done for a request: sets request->skip if the object is so already, or takes it out
	 * of the reach of changes that need no lock. Errors: a code; the object is as before.
	 * end - after the commit, for each request that was begun and not skipped: @done or undone.
	 * Both may be NULL. Context: text lock, here and below.
	 */
	int (*begin)(struct xp__request *request);
	void (*end)(struct xp__request *request, bool done);

	/* get_state - fills in what the object is now, for sites that come later, and to tell drift. */
	void (*get_state)(struct xp__request *request);

	/*
	 * sound - whether the record, whose object can be written and has a name, can be of this kind: called before any
	 * function below. NULL: no more is known.
	 */
	bool (*sound)(struct xp__known *known, const void *record);

	/*
	 * parse - fills @request: @object, the real one, is to be @value, as a person writes it. NULL:
	 * nothing can be asked so. Errors: -EINVAL for what it cannot be.
	 */
	int (*parse)(struct xp__request *request, struct xp_object *object, uint64_t value);

	/*
	 * as_built - no site of the group changes when it comes: what the compiler left is right. NULL: each is looked at.
	 * count - adds to @size what the sites of @group need at most; NULL: a plan for each.
	 */
	bool (*as_built)(const struct xp__request *request, const struct xp__group *group);
	void (*count)(const struct xp__request *request, const struct xp__group *group, struct xp__size *size);

	/*
	 * site - fills in site number @i of the group. 1; 0: that record is no site; -1: there are no more. They are asked for
	 * one after the other, from 0 on, and @site is as the call before left it.
	 */
	int (*site)(const struct xp__group *group, size_t i, struct xp__site *site);

	/*
	 * form - fills the zeroed @form with form number @n of those that @which says, for a site with @text, which can be
	 * read. Pure. 1; 0: there are no more. Errors: a code, told to @diag: the record cannot be right, or what is asked for
	 * cannot be.
	 */
	int (*form)(const struct xp__request *request, const struct xp__site *site, const uint8_t *text,
		    enum xp__which which, unsigned n, struct xp__form *form, struct xp_diag *diag);

	/*
	 * emit - in the place of site() and form(): compares the text of all sites with what it must be, and adds the
	 * changes. Called for each group of the request's object, or once with NULL if it has no object. Errors: a code, told
	 * to @diag.
	 */
	int (*emit)(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		    struct xp_diag *diag);

	/*
	 * synced - the sync that an asynchronous commit left has ended: the sites of @object execute what stands there. May be
	 * NULL.
	 */
	void (*synced)(struct xp_object *object);

	/*
	 * single - where the object has one site, its text is as it must be, and it changes by one store that needs nothing but a
	 * sync: the plan that emit() would make for it, and the site in @addr. NULL: the general way is taken, which says what is
	 * wrong. Not called for requests that are made because a module comes. The function may be NULL; a kind that has it has no
	 * applied().
	 */
	struct xp__plan *(*single)(const struct xp__request *request, uintptr_t *addr);

	/* applied - after the commit: the text of @group is as @request says. May be NULL. */
	void (*applied)(const struct xp__request *request, const struct xp__group *group);

	/*
	 * drop - the request is needed no more. gone - the objects of the table go away. Both may be NULL.
	 * Context: no lock held.
	 */
	void (*drop)(struct xp__request *request);
	void (*gone)(const struct xp_site_table *table);

	/*
	 * coming - a table comes: what its records name is to be made an object. Errors: a code. live - it was
	 * registered. going - it goes, or did not come after all. All three may be NULL.
	 */
	int (*coming)(const struct xp_site_table *table);
	void (*live)(const struct xp_site_table *table);
	void (*going)(const struct xp_site_table *table);

	/*
	 * fault - sites that are unbound fault with @faults, XP_NEED_ILLEGAL or _FAULT: as xp_trap_illegal() and xp_trap_fault().
	 * NULL and 0: none does. Context: theirs.
	 * due - the time came for which the port was asked (defer()). fork_child - as xp_fork_child(). Both may be NULL.
	 * Context: no lock held.
	 */
	enum xp_trap_verdict (*fault)(struct xp_regs *regs, unsigned shard, struct xp_fault_again *memory);
	uint8_t faults;
	void (*due)(void);
	void (*fork_child)(void);
};

extern const struct xp__kind xp__key_kind, xp__call_kind, xp__chosen_kind, xp__entry_kind, xp__gate_kind,
	xp__gate_far_kind, xp__header_kind, xp__value_kind, xp__patchable_kind, xp__raw_kind, xp__switch_kind;

/* xp__group_site - a kind's site(), where each record is a site, and no site is without one. */
int xp__group_site(const struct xp__group *group, size_t i, struct xp__site *site);

/* xp__kind_of - the kind whose sites are of kind @kind, enum xp_site_kind. */
const struct xp__kind *xp__kind_of(unsigned kind);

/*
 * xp__functions_each - as xp__objects_each(), for functions that were asked for: calls @visit for each, until it returns
 * something else than 0. Where there are entries src/trace has it, as it has their kinds. Context: text lock.
 */
int xp__functions_each(int (*visit)(const struct xp__group *groups, void *data), void *data);

#endif
