/* SPDX-License-Identifier: MIT */
/*
 * What a kind is to the engine: a kind of object that has sites, what can be wished of it, and how a wish becomes
 * changes of a commit. Batches, registration and the protocol know no more of keys, calls and values than this.
 */
#ifndef XP_CORE_KIND_H
#define XP_CORE_KIND_H

#include "core/commit.h"
#include "core/site.h"

#include <crosspatch/error.h>
#include <crosspatch/port.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A poke with its bytes. */
struct xp__poke {
	uintptr_t addr;
	uintptr_t resume_at;
	uint8_t len;
	uint8_t resume; /* enum xp_resume */
	uint8_t expect[XP_MAX_LEN];
	uint8_t replace[XP_MAX_LEN];
};

/* Why an request's sites are looked at. */
enum xp__from {
	XP__FROM_STATE, /* all of them change */
	XP__FROM_BUILT, /* their module comes: some may have to change; the text is as the compiler left it */
	XP__FROM_ANY,   /* the same, and the text may have been patched before */
};

/* What becomes of a gate's provider. */
enum xp__gate_wish {
	XP__GATE_PROVIDE,  /* there must be none */
	XP__GATE_REPLACE,  /* there must be one */
	XP__GATE_WITHDRAW, /* likewise */
	XP__GATE_LEAD,     /* whatever there is */
	XP__GATE_BIND,     /* the one that there is stays */
};

/* What becomes of a function's entry. A redirection to 0 ends one. */
enum xp__entry_wish { XP__ENTRY_TRACE, XP__ENTRY_UNTRACE, XP__ENTRY_REDIRECT, XP__ENTRY_PREPARE };

/* One wish for one object. */
struct xp__request {
	const struct xp__kind *kind;
	struct xp_object *object; /* the real one; NULL: bytes at an address */
	uint8_t from;             /* enum xp__from */
	bool skip;     /* nothing to do: it is so already, or a later request for the same object takes its place */
	bool added_to; /* a later request of a cumulative kind changes the text for this one, too */
	union {
		bool on;
		uint32_t choice;
		uint64_t bits; /* of an immediate value */
		struct xp__poke poke;
		struct {
			void (*func)(void);
			void *pin;      /* of func; after the commit of what was there before */
			uintptr_t site; /* not 0: only this one, which was found */
			bool back;      /* it goes to the trampoline again */
		} call;
		struct {
			void (*provider)(void);
			void *pin;              /* of the provider; after the commit of the one before */
			struct xp_gate *handle; /* not NULL: only the site at @site, which is this one's */
			uintptr_t site;
			uint8_t wish;  /* enum xp__gate_wish */
			bool ud2;      /* the site at @site has that form */
			bool bind;     /* unbound sites too, as far as they are known */
			bool straight; /* and what else calls the stub does not ask the resolver */
		} gate;
		struct {
			const struct xp_far_site *site; /* not NULL: only this one */
			uint32_t offset;
			uint16_t selector; /* 0: no provider */
			uint8_t wish;      /* enum xp__gate_wish */
			bool bind;         /* unbound sites too */
		} far;
		struct {
			const struct xp_function_handler *handler;
			void *data;
			uintptr_t replacement;
			void *pin;    /* of the replacement; after the commit of what was there before */
			uint8_t wish; /* enum xp__entry_wish */
		} entry;
	};
};

/* What a site is to be as its object is, and whether its text is of another form that it may have. */
struct xp__look {
	uintptr_t page; /* of xp__text_readable(), from one site to the next */
	uintptr_t code;
	uint8_t len;
	bool hidden;                /* the text cannot be read; the rest says nothing */
	bool known;                 /* `wanted` is; else the text is none that the site ever has */
	bool form;                  /* whole, and one instruction */
	uint8_t wanted[XP_MAX_LEN]; /* the text itself, where it is right */
	uint8_t first[2];           /* first bytes of the form that the compiler left; 0: none */
	uintptr_t resume_at; /* where a bystander goes on that meets a breakpoint; 0: the instruction is emulated */
};

/* xp__look_at - says where the site is. False: its text cannot be read, and look() has no more to say. */
bool xp__look_at(struct xp__look *look, uintptr_t code, size_t len);

struct xp__kind {
	uint8_t record_size; /* of a site; 0: the kind has no records, or looks after them itself, from arrive() to depart() */
	bool cumulative;   /* several wishes for one object add up: start() sees to it, and each is finished */
	uint8_t object_at; /* where in the record the reference to the object stands */
	bool forms;        /* one place has several records: a gate's stub is one, and may be a site */
	uint8_t nr_relative; /* fields with which the record begins that hold a distance from themselves, the site's first */

	/*
	 * start - before anything else is done for an request: sets item->skip if the object is as wished, or takes it out
	 * of the reach of changes that need no lock. Errors: a code; the object is as before.
	 * finish - after the commit, for each request that was started and not skipped: @done or undone.
	 * Both may be NULL. Context: text lock, here and below.
	 */
	int (*start)(struct xp__request *request);
	void (*finish)(struct xp__request *request, bool done);

	/* current - fills in the wish that says what the object is now, for sites that come later. */
	void (*current)(struct xp__request *request);

	/*
	 * wish - fills @request with the wish that @object, the real one, be @value: what a person can ask for who knows it by
	 * name. NULL: nothing can be asked so. Errors: -EINVAL for what it cannot be.
	 */
	int (*wish)(struct xp__request *request, struct xp_object *object, uint64_t value);

	/*
	 * measure - adds to @size what add() will need at most. add - compares the text with what it must be, and adds
	 * the changes; those that are there already are left out, unless the goal is CHANGE. Called for each group of the
	 * request's object, or once with NULL if it has no object. Errors: a code, told to @diag.
	 */
	void (*measure)(const struct xp__request *request, const struct xp__group *group, struct xp__size *size);
	int (*add)(const struct xp__request *request, const struct xp__group *group, struct xp__commit *commit,
		   struct xp_diag *diag);

	/*
	 * look - fills the zeroed @look for site number @i of @group, of which @request says what its object is. 1; 0: number @i is
	 * no site; -1: there are no more. May be NULL: drift is not looked for.
	 */
	int (*look)(const struct xp__request *request, const struct xp__group *group, size_t i, struct xp__look *look);

	/* settled - after the commit: the text of @group is as @request says. May be NULL. */
	void (*settled)(const struct xp__request *request, const struct xp__group *group);

	/*
	 * drop - the request is needed no more. leave - the objects of the table go away. Both may be NULL.
	 * Context: no lock held.
	 */
	void (*drop)(struct xp__request *request);
	void (*leave)(const struct xp_site_table *table);

	/*
	 * arrive - a table comes: what its records name is to be made an object. Errors: a code. arrived - it was
	 * registered. depart - it goes, or did not come after all. All three may be NULL.
	 */
	int (*arrive)(const struct xp_site_table *table);
	void (*arrived)(const struct xp_site_table *table);
	void (*depart)(const struct xp_site_table *table);
};

extern const struct xp__kind xp__key_kind, xp__call_kind, xp__entry_kind, xp__gate_kind, xp__gate_far_kind,
	xp__header_kind, xp__value_kind, xp__patchable_kind, xp__raw_kind, xp__switch_kind;

/* xp__kind_of - the kind whose sites are of kind @kind, enum xp_site_kind. */
const struct xp__kind *xp__kind_of(unsigned kind);

#endif
