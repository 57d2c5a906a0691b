/* SPDX-License-Identifier: MIT */
/*
 * What the compiler leaves behind for the library: site records, and the module (executable or shared object) they
 * belong to. Written by the macros of the other headers; of interest to porters and to code generators. Freestanding.
 */
#ifndef XP_SITE_H
#define XP_SITE_H

#include <crosspatch/site_format.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * What sites belong to: a key, a call, a value. The first member of each. All fields are the library's.
 * `real` is NULL in an ordinary object; in the handle that an executable or shared object keeps for a shared one it
 * points to that one. 8-byte aligned: the low bits of a site's reference to it carry XP_SITE_ flags.
 */
struct xp_object {
	struct xp_object *real;
	const char *name;
	const char *file;
	uint32_t line;
	uint32_t flags;
	uint32_t scratch;
	struct xp__group *groups;
};

/*
 * A program under ThreadSanitizer, which sees neither sites nor the library's stores: a thread that executed a site acquires
 * what was written before its object was last changed. Elsewhere nothing.
 */
#if defined(__SANITIZE_THREAD__)
#define XP__TSAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define XP__TSAN
#endif
#endif
#ifdef XP__TSAN
static inline int xp__saw(int value, const struct xp_object *object)
{
	if (object->real)
		object = object->real;
	/* ordering: (TS2) pairs with (TS1) */
	(void)__atomic_load_n(&object->scratch, __ATOMIC_ACQUIRE);
	return value;
}
#define XP__SAW(value, object) xp__saw(value, object)
#else
#define XP__SAW(value, object) (value)
#endif

/* How macros name a structure: to clang `struct name` in a module of C++ may declare another one. */
#ifdef __cplusplus
#define XP__STRUCT
#else
#define XP__STRUCT struct
#endif

#ifdef __cplusplus
#define XP__OBJECT(real, name, file, line) real, name, file, line, 0, 0, nullptr
#else
#define XP__OBJECT(real, name, file, line) real, name, file, line, 0, 0, NULL
#endif

/* What -fpatchable-function-entry leaves: 8 bytes in section __patchable_function_entries, the address of the nops. */

/* The kinds of sites. An object that was built before a kind existed has fewer tables. */
enum xp_site_kind {
	XP_SITE_BRANCH,
	XP_SITE_CALL,
	XP_SITE_SWITCH,
	XP_SITE_IMV,
	XP_SITE_GATE,
	XP_SITE_FAR,
	XP_SITE_ENTRY,
	XP_SITE_PATCHABLE,
	XP_SITE_HEADER, /* no sites: both ends of the table are the file's ELF header, where it is mapped, or NULL */
	XP_NR_SITE_KINDS,
};

/* The records of one kind; both NULL if there are none. */
struct xp_site_table {
	const void *start;
	const void *end;
};

/*
 * The tables of one executable or shared object. `state` and `private_data` are the library's. Lives as long as the
 * object is mapped.
 */
struct xp_module {
	uint32_t abi; /* XP_MODULE_ABI */
	uint32_t state;
	void *private_data;
	uint32_t nr_tables; /* XP_NR_SITE_KINDS */
	struct xp_site_table tables[XP_NR_SITE_KINDS];
};

#define XP_MODULE_ABI 1

/*
 * xp_module_register - makes a module's sites known, and brings them to the state of keys already switched.
 *
 * Called by a constructor in every object that includes a kind's header; by hand in kernels. Idempotent. Several
 * modules may have the same tables (parts of a program that were linked beforehand with `ld -r`, constructor included): they
 * count as one until all are unregistered. Tables that are the same in part only are refused: -XP_E_CORRUPT. Records of one
 * site that say the same, as a linker that folds identical functions leaves them, count as one; that differ: -XP_E_CORRUPT.
 * Context: thread (dlopen, program start); takes the text lock. Before the library has a port the module is queued.
 * Ordering: on return of 0 every site of the module agrees with its key, on every processor, unless there is no port yet.
 * Errors: -XP_E_CORRUPT, -XP_E_MOVED, -ENOMEM, -XP_E_WEDGED, -XP_E_REENTRANT, or what the commit said; the module is then not
 * registered, and its text is as before. The library remembers it, without memory of its own, and tries again at the next
 * change of any object and at the next registration of another module. Until it is registered, a change of an object that
 * a record of the module refers to fails with the module's error and changes nothing; changes of other objects are made.
 * Of a module of another XP_MODULE_ABI the library knows no record: switching a key does not reach its sites.
 * xp_module_error() tells later. A module that was refused is unregistered before its memory goes, like any other.
 * Progress: waits for a commit in progress.
 */
int xp_module_register(struct xp_module *module);

/*
 * xp_module_unregister - forgets a module's sites before its text goes away, or that it was refused. Idempotent.
 * Context, Progress: as above. The caller guarantees that no thread executes in the module (as dlclose() does).
 * Ordering: on return no commit writes to the module's text. Errors: -XP_E_REENTRANT, -XP_E_WEDGED; nothing was done.
 */
int xp_module_unregister(struct xp_module *module);

/*
 * xp_module_exit - what a destructor calls: xp_module_unregister(), unless it runs because the process ends. Then nothing is
 * forgotten: other threads run on, destructors that come later may make changes, and the text stays where it is.
 * Context, Ordering, Errors, Progress: as xp_module_unregister(). 0 if nothing had to be done.
 */
int xp_module_exit(struct xp_module *module);

/*
 * xp_module_error - why a module of this process is not registered: the code with which it was refused last; of several
 * the one of the last that came. 0 if all are registered. Context: any. Ordering: none. Errors: none. Progress: wait-free.
 */
int xp_module_error(void);

#ifdef __cplusplus
}
#endif

/*
 * One xp__module and one constructor per object, however many of its files include this: both are weak and hidden,
 * so the static linker keeps one copy, and every .init_array entry calls that copy. Priority 100: before the
 * object's own constructors, which may switch keys or execute sites. Compilers tell authors not to use it.
 * The section bounds are weak: an object without sites has no such section. Defined in C and in C++ the same.
 */
#ifndef XP_NO_MODULE

#ifdef __cplusplus
extern "C" {
#endif

extern const struct xp_branch_site __start_xp_branch_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_branch_site __stop_xp_branch_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_switch_site __start_xp_switch_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_switch_site __stop_xp_switch_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_imv_site __start_xp_imv_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_imv_site __stop_xp_imv_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_call_site __start_xp_call_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_call_site __stop_xp_call_sites[] __attribute__((weak, visibility("hidden")));

extern const struct xp_gate_site __start_xp_gate_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_gate_site __stop_xp_gate_sites[] __attribute__((weak, visibility("hidden")));

extern const struct xp_far_site __start_xp_far_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_far_site __stop_xp_far_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_entry_site __start_xp_entry_sites[] __attribute__((weak, visibility("hidden")));
extern const struct xp_entry_site __stop_xp_entry_sites[] __attribute__((weak, visibility("hidden")));
extern const uint64_t __start___patchable_function_entries[] __attribute__((weak, visibility("hidden")));
extern const uint64_t __stop___patchable_function_entries[] __attribute__((weak, visibility("hidden")));

/* Linkers define it where the header is mapped. */
extern const char __ehdr_start[] __attribute__((weak, visibility("hidden")));

extern struct xp_module xp__module;
struct xp_module xp__module __attribute__((weak, visibility("hidden"))) = {
	XP_MODULE_ABI, 0, NULL, XP_NR_SITE_KINDS, {{NULL, NULL}}};

#if defined(__clang__)
#pragma clang diagnostic push
#if __has_warning("-Wprio-ctor-dtor")
#pragma clang diagnostic ignored "-Wprio-ctor-dtor"
#endif
#elif defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wprio-ctor-dtor"
#endif
void xp__module_init(void) __attribute__((weak, visibility("hidden"), constructor(100), used));
void xp__module_exit(void) __attribute__((weak, visibility("hidden"), destructor(100), used));
#if defined(__clang__)
#pragma clang diagnostic pop
#elif defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

void xp__module_init(void)
{
	xp__module.tables[XP_SITE_BRANCH].start = __start_xp_branch_sites;
	xp__module.tables[XP_SITE_BRANCH].end = __stop_xp_branch_sites;
	xp__module.tables[XP_SITE_CALL].start = __start_xp_call_sites;
	xp__module.tables[XP_SITE_CALL].end = __stop_xp_call_sites;
	xp__module.tables[XP_SITE_SWITCH].start = __start_xp_switch_sites;
	xp__module.tables[XP_SITE_SWITCH].end = __stop_xp_switch_sites;
	xp__module.tables[XP_SITE_IMV].start = __start_xp_imv_sites;
	xp__module.tables[XP_SITE_IMV].end = __stop_xp_imv_sites;
	xp__module.tables[XP_SITE_GATE].start = __start_xp_gate_sites;
	xp__module.tables[XP_SITE_GATE].end = __stop_xp_gate_sites;
	xp__module.tables[XP_SITE_FAR].start = __start_xp_far_sites;
	xp__module.tables[XP_SITE_FAR].end = __stop_xp_far_sites;
	xp__module.tables[XP_SITE_ENTRY].start = __start_xp_entry_sites;
	xp__module.tables[XP_SITE_ENTRY].end = __stop_xp_entry_sites;
	xp__module.tables[XP_SITE_PATCHABLE].start = __start___patchable_function_entries;
	xp__module.tables[XP_SITE_PATCHABLE].end = __stop___patchable_function_entries;
	xp__module.tables[XP_SITE_HEADER].start = __ehdr_start;
	xp__module.tables[XP_SITE_HEADER].end = __ehdr_start;
	(void)xp_module_register(&xp__module);
}

void xp__module_exit(void)
{
	(void)xp_module_exit(&xp__module);
}

#ifdef __cplusplus
}
#endif

#endif /* XP_NO_MODULE */

#endif
