/* SPDX-License-Identifier: MIT */
/*
 * Immediate values: variables that are read much and set seldom, whose value stands in the instructions that read them.
 *
 *	XP_DEFINE_IMV(unsigned, prefetch_distance, 8);
 *
 *	__builtin_prefetch(p + xp_imv_read(prefetch_distance));   // mov $8, %reg: no load, no cache line
 *	…
 *	xp_imv_set(prefetch_distance, 12);                        // from any thread, while others run
 *
 * The type is any scalar of 1, 2, 4 or, in 64-bit code, 8 bytes: integers, enums, bool, pointers, float, double. A value
 * is file-scope and hidden: visible in its own executable or shared object, through XP_DECLARE_IMV in a header; one that
 * several objects share is a shared value, see XP_DEFINE_IMV_SHARED.
 *
 * Instructions are emitted with 0 and brought to the value when their executable or shared object registers, before its
 * own constructors run: a read before that (in an IFUNC resolver, in a constructor of priority below 100) is 0.
 */
#ifndef XP_IMV_H
#define XP_IMV_H

#include <crosspatch/error.h>
#include <crosspatch/site.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
/* XP_IMV_ flags of a type. */
extern "C++" {
template <typename type, bool is_enum = __is_enum(type)> struct xp__imv_type_bits {
	enum : unsigned {
		is_bool = static_cast<type>(2) == static_cast<type>(1),
		is_signed = static_cast<type>(-1) < static_cast<type>(1),
		bits = 1u + 2u * is_signed + 4u * is_bool
	};
};
template <typename type> struct xp__imv_type_bits<type, true> : xp__imv_type_bits<__underlying_type(type)> {
};
template <typename type> struct xp__imv_type_bits<const type, false> : xp__imv_type_bits<type> {
};
template <typename type> struct xp__imv_type_bits<volatile type, false> : xp__imv_type_bits<type> {
};
template <typename type> struct xp__imv_type_bits<type *, false> {
	enum : unsigned { bits = 1u };
};
template <> struct xp__imv_type_bits<float> {
	enum : unsigned { bits = 1u + 8u };
};
template <> struct xp__imv_type_bits<double> {
	enum : unsigned { bits = 1u + 8u };
};
}
extern "C" {
#endif

/*
 * A value. All fields are the library's. `type` lies where earlier versions had padding, of zeros: what stands behind it is
 * there only if it says so.
 */
struct xp_imv {
	struct xp_object object;
	void *value;           /* the variable that it is defined with; NULL in the handle of a shared value */
	uint32_t size;         /* of its type, and of the operands of its sites */
	uint32_t type;         /* XP_IMV_ flags; 0 is not known */
	uint64_t least, most;  /* with XP_IMV_RANGE: signed if the type is */
} __attribute__((aligned(8))); /* whatever the size of a pointer: XP_SITE_FLAGS */

#define XP_IMV_TYPED 1u  /* the others are known */
#define XP_IMV_SIGNED 2u /* an integer with a sign */
#define XP_IMV_BOOL 4u   /* _Bool, bool: 0 or 1 */
#define XP_IMV_FLOAT 8u  /* float, double */
#define XP_IMV_RANGE 16u /* defined by XP_DEFINE_IMV_RANGE and its like */

#ifdef __cplusplus
#define XP__IMV_ASSERT(condition, text) static_assert(condition, text)
#else
#define XP__IMV_ASSERT(condition, text) _Static_assert(condition, text)
#endif

/* C++ would otherwise set the variable in a constructor, after the sites were brought to it; C has no such thing. */
#if !defined(__cplusplus)
#define XP__IMV_CONSTANT
#elif defined(__clang__)
#define XP__IMV_CONSTANT __attribute__((require_constant_initialization))
#else
#define XP__IMV_CONSTANT __constinit
#endif

/* In 32-bit code no mov has 8 bytes; with XP_NO_PATCHING there is no mov. */
#if __SIZEOF_POINTER__ < 8 && !defined(XP_NO_PATCHING)
#define XP__IMV_SIZES "an immediate value has 1, 2 or 4 bytes in 32-bit code"
#define XP__IMV_LARGEST 4
#else
#define XP__IMV_SIZES "an immediate value has 1, 2, 4 or 8 bytes"
#define XP__IMV_LARGEST 8
#endif

/*
 * The type of a value is known by a name, for the macros that are given nothing but the value's own. In C++ it is part of the
 * object's type, and what is read or set may be named with its namespace or class.
 */
#ifdef __cplusplus
extern "C++" {
template <typename T> struct xp_imv_of : xp_imv {
	constexpr xp_imv_of(const struct xp_imv &imv) : xp_imv(imv) {}
};
template <typename T> T xp__imv_type_of(const xp_imv_of<T> &);
}
#define XP__IMV_TYPE_OF(name) decltype(xp__imv_type_of(name))
#define XP__IMV_DECLARATOR(type, name) xp_imv_of<__typeof__(type)> name
#define XP__IMV_INITIALIZER(...)                                                                                       \
	xp_imv                                                                                                         \
	{                                                                                                              \
		__VA_ARGS__                                                                                            \
	}
#else
#define XP__IMV_TYPE_OF(name) xp__imv_type_of_##name
#define XP__IMV_DECLARATOR(type, name) XP__STRUCT xp_imv name
#define XP__IMV_INITIALIZER(...)                                                                                       \
	{                                                                                                              \
		__VA_ARGS__                                                                                            \
	}
#endif
#define XP__IMV_TYPE(type, name)                                                                                       \
	typedef __typeof__(type) xp__imv_type_of_##name;                                                               \
	XP__IMV_ASSERT(sizeof(xp__imv_type_of_##name) == 1 || sizeof(xp__imv_type_of_##name) == 2 ||                   \
			       sizeof(xp__imv_type_of_##name) == 4 ||                                                  \
			       sizeof(xp__imv_type_of_##name) == XP__IMV_LARGEST,                                      \
		       XP__IMV_SIZES)
#define XP__IMV_VARIABLE(name, init) static XP__IMV_CONSTANT xp__imv_type_of_##name xp__imv_variable_of_##name = init
#ifdef __cplusplus
#define XP__IMV_TYPE_BITS(name) static_cast<uint32_t>(xp__imv_type_bits<xp__imv_type_of_##name>::bits)
#define XP__IMV_AS(type, x) static_cast<type>(x)
#else
#define XP__IMV_IS(name, type) __builtin_types_compatible_p(xp__imv_type_of_##name, type)
/* Its type, or unsigned in place of a pointer's or a floating-point one. */
#define XP__IMV_CLASS(name) __builtin_classify_type((xp__imv_type_of_##name)0)
#define XP__IMV_ARITHMETIC(name)                                                                                       \
	__typeof__(__builtin_choose_expr(XP__IMV_CLASS(name) == 5 || XP__IMV_CLASS(name) == 8, 0u,                     \
					 (xp__imv_type_of_##name)0))
#define XP__IMV_TYPE_BITS(name)                                                                                        \
	(XP_IMV_TYPED | (XP__IMV_IS(name, _Bool)                                        ? XP_IMV_BOOL                  \
			 : XP__IMV_IS(name, float) || XP__IMV_IS(name, double)          ? XP_IMV_FLOAT                 \
			 : (XP__IMV_ARITHMETIC(name))(-1) < (XP__IMV_ARITHMETIC(name))1 ? XP_IMV_SIGNED                \
											: 0u))
#define XP__IMV_AS(type, x) ((type)(x))
#endif
#define XP__IMV_HEAD(real, name, value)                                                                                \
	{XP__OBJECT(real, #name, __FILE__, __LINE__)}, value, sizeof(xp__imv_type_of_##name)
#define XP__IMV_OBJECT(real, name, value)                                                                              \
	XP__IMV_INITIALIZER(XP__IMV_HEAD(real, name, value), XP__IMV_TYPE_BITS(name), 0, 0)
/* A range is one of whole numbers, and the value begins inside. */
#define XP__IMV_LIMIT(name, limit) XP__IMV_AS(uint64_t, XP__IMV_AS(xp__imv_type_of_##name, limit))
#define XP__IMV_RANGED(name, min, max)                                                                                 \
	XP__IMV_INITIALIZER(XP__IMV_HEAD(NULL, name, &xp__imv_variable_of_##name),                                     \
			    XP__IMV_TYPE_BITS(name) | XP_IMV_RANGE, XP__IMV_LIMIT(name, min),                          \
			    XP__IMV_LIMIT(name, max))
#define XP__IMV_CHECK(name, init, min, max)                                                                            \
	XP__IMV_ASSERT(XP__IMV_AS(xp__imv_type_of_##name, min) == (min) &&                                             \
			       XP__IMV_AS(xp__imv_type_of_##name, max) == (max) &&                                     \
			       XP__IMV_AS(xp__imv_type_of_##name, init) >= XP__IMV_AS(xp__imv_type_of_##name, min) &&  \
			       XP__IMV_AS(xp__imv_type_of_##name, init) <= XP__IMV_AS(xp__imv_type_of_##name, max),    \
		       "an immediate value begins inside its range, which its type holds");                            \
	XP__IMV_ASSERT(!(XP__IMV_TYPE_BITS(name) & XP_IMV_FLOAT), "a range is for whole numbers")

/*
 * XP_DEFINE_IMV(type, name, init) - a value, with a constant to begin with; at file scope, or in a namespace of C++, where
 * the functions below take a qualified name. XP_DEFINE_IMV_STATIC - the same, confined to its file. XP_DECLARE_IMV(type, name) - for a header; the type is checked against the definition's
 * where both are seen.
 */
#define XP_DEFINE_IMV(type, name, init)                                                                                \
	XP__IMV_TYPE(type, name);                                                                                      \
	XP__IMV_VARIABLE(name, init);                                                                                  \
	XP__IMV_DECLARATOR(type, name)                                                                                 \
	__attribute__((visibility("hidden"))) = XP__IMV_OBJECT(NULL, name, &xp__imv_variable_of_##name)
#define XP_DEFINE_IMV_STATIC(type, name, init)                                                                         \
	XP__IMV_TYPE(type, name);                                                                                      \
	XP__IMV_VARIABLE(name, init);                                                                                  \
	static XP__IMV_DECLARATOR(type, name) = XP__IMV_OBJECT(NULL, name, &xp__imv_variable_of_##name)

/*
 * XP_DEFINE_IMV_RANGE(type, name, init, min, max), XP_DEFINE_IMV_STATIC_RANGE - the same for a whole number that is never less
 * than min nor more than max, two constants: to set it beyond them is refused, from inside (-XP_E_VALUE) and from outside.
 * Without a range a value can be set from outside to all that its type holds: a divisor to 0.
 */
#define XP_DEFINE_IMV_RANGE(type, name, init, min, max)                                                                \
	XP__IMV_TYPE(type, name);                                                                                      \
	XP__IMV_CHECK(name, init, min, max);                                                                           \
	XP__IMV_VARIABLE(name, init);                                                                                  \
	XP__IMV_DECLARATOR(type, name) __attribute__((visibility("hidden"))) = XP__IMV_RANGED(name, min, max)
#define XP_DEFINE_IMV_STATIC_RANGE(type, name, init, min, max)                                                         \
	XP__IMV_TYPE(type, name);                                                                                      \
	XP__IMV_CHECK(name, init, min, max);                                                                           \
	XP__IMV_VARIABLE(name, init);                                                                                  \
	static XP__IMV_DECLARATOR(type, name) = XP__IMV_RANGED(name, min, max)
#define XP_DECLARE_IMV(type, name)                                                                                     \
	XP__IMV_TYPE(type, name);                                                                                      \
	extern XP__IMV_DECLARATOR(type, name) __attribute__((visibility("hidden")))

#ifdef __cplusplus
/*
 * For a static member of a class: XP_DECLARE_IMV_MEMBER(int, limit) in the class, XP_DEFINE_IMV_MEMBER(int, Cache::limit, 8)
 * outside of it.
 */
#define XP_DECLARE_IMV_MEMBER(type, name) static XP__IMV_DECLARATOR(type, name) __attribute__((visibility("hidden")))
#define XP_DEFINE_IMV_MEMBER(type, name, init) XP__IMV_DEFINE_MEMBER(type, name, init, __LINE__)
#define XP__IMV_DEFINE_MEMBER(type, name, init, line) XP__IMV_DEFINE_MEMBER_AT(type, name, init, line)
#define XP__IMV_DEFINE_MEMBER_AT(type, name, init, line)                                                               \
	XP__IMV_TYPE(type, line);                                                                                      \
	XP__IMV_VARIABLE(line, init);                                                                                  \
	XP__IMV_DECLARATOR(type, name) =                                                                               \
		XP__IMV_INITIALIZER({XP__OBJECT(NULL, #name, __FILE__, __LINE__)}, &xp__imv_variable_of_##line,        \
				    sizeof(xp__imv_type_of_##line), XP__IMV_TYPE_BITS(line), 0, 0)
#endif

/*
 * A value that several executables and shared objects of a process share. The DECLARE goes into the common header; each
 * object that includes it keeps a hidden handle called name, through which its sites find the one value. The DEFINE
 * stands in one object, after the DECLARE, and exports the symbol xp_shared_imv_<name>.
 */
#define XP_DECLARE_IMV_SHARED(type, name)                                                                              \
	XP__IMV_TYPE(type, name);                                                                                      \
	extern XP__IMV_DECLARATOR(type, xp_shared_imv_##name);                                                         \
	extern XP__IMV_DECLARATOR(type, name);                                                                         \
	XP__IMV_DECLARATOR(type, name)                                                                                 \
	__attribute__((weak, visibility("hidden"))) = XP__IMV_OBJECT(&xp_shared_imv_##name.object, name, NULL)
#define XP_DEFINE_IMV_SHARED(type, name, init)                                                                         \
	XP__IMV_TYPE(type, name);                                                                                      \
	XP__IMV_VARIABLE(name, init);                                                                                  \
	__attribute__((visibility("default"))) XP__IMV_DECLARATOR(type, xp_shared_imv_##name) =                        \
		XP__IMV_OBJECT(NULL, name, &xp__imv_variable_of_##name)
#define XP_DEFINE_IMV_SHARED_RANGE(type, name, init, min, max)                                                         \
	XP__IMV_TYPE(type, name);                                                                                      \
	XP__IMV_CHECK(name, init, min, max);                                                                           \
	XP__IMV_VARIABLE(name, init);                                                                                  \
	__attribute__((visibility("default"))) XP__IMV_DECLARATOR(type, xp_shared_imv_##name) =                        \
		XP__IMV_RANGED(name, min, max)

/*
 * xp_imv_read(name) - the value, an rvalue of its type.
 * Context: any, signal handlers included; under a policy that uses breakpoints, not where SIGTRAP is blocked.
 * Ordering: none; it is no memory access. Each evaluation reads anew: the compiler neither merges two reads nor moves one
 * out of a loop, which would then never see a change. To read it once, keep it in a variable.
 * Errors: none. Progress: wait-free.
 * Cost: one mov of 2 to 10 bytes, padded so that its operand lies in one aligned quadword, and 12 bytes of record.
 * With XP_NO_PATCHING defined, a relaxed load through the object: what an unsupported architecture is left with.
 */
#if defined(XP_NO_PATCHING)
static inline const struct xp_imv *xp__imv_real(const struct xp_imv *imv)
{
	return imv->object.real ? (const struct xp_imv *)imv->object.real : imv;
}

#define XP__IMV_BODY(name)                                                                                             \
	XP__IMV_TYPE_OF(name) xp__imv_value;                                                                           \
	__atomic_load((XP__IMV_TYPE_OF(name) *)xp__imv_real(&name)->value, &xp__imv_value, __ATOMIC_RELAXED);          \
	(void)XP__SAW(0, &name.object);
#else
#include <crosspatch/arch.h>
#define XP__IMV_BODY(name)                                                                                             \
	XP__IMV_TYPE_OF(name) xp__imv_value;                                                                           \
	uintptr_t xp__imv_bits;                                                                                        \
	XP__IMV_ASM(xp__imv_bits, &name, sizeof(xp__imv_value)); /* a value of static storage */                       \
	__builtin_memcpy(&xp__imv_value, &xp__imv_bits, sizeof(xp__imv_value));                                        \
	(void)XP__SAW(0, &name.object);
#endif

/* In C++ a lambda: it may stand in the initializer of a variable at namespace scope as well. */
#ifdef __cplusplus
#define xp_imv_read(name)                                                                                              \
	([]() __attribute__((always_inline))->XP__IMV_TYPE_OF(name) { /* static storage: no capture */                 \
		XP__IMV_BODY(name)                                                                                     \
		return xp__imv_value;                                                                                  \
	}())
#else
#define xp_imv_read(name)                                                                                              \
	__extension__({                                                                                                \
		XP__IMV_BODY(name)                                                                                     \
		xp__imv_value;                                                                                         \
	})
#endif

/*
 * xp_imv_set(name, value) - sets it, with the conversions of an assignment; the value it already has (compared bit by
 * bit) needs no commit.
 * Context: thread; may wait for another commit. From a signal handler, unless that interrupted a commit of the same
 * thread (-XP_E_REENTRANT).
 * Ordering: on return of 0 every read is the new value, on every processor; a thread that learns of the return (acquire
 * load, lock, join) reads it. While it runs, a read is the old value or the new one, whole.
 * Errors: those of xp_text_poke(); -EINVAL for a size that is not the value's; -XP_E_VALUE outside of its range.
 * Value and text are as before.
 * Progress: waits for the text lock and for the syncs.
 */
#define xp_imv_set(name, value)                                                                                        \
	__extension__({                                                                                                \
		XP__IMV_TYPE_OF(name) xp__imv_new = (value);                                                           \
		xp__imv_set(&name, &xp__imv_new, sizeof(xp__imv_new));                                                 \
	})
int xp__imv_set(struct xp_imv *imv, const void *value, size_t size);

/*
 * xp_batch_add_imv(batch, name, value) - adds "set it so" to a batch.
 * Context: thread. Ordering: none. Errors: -EINVAL, -XP_E_VALUE, -ENOMEM; the batch is as before. Progress: may wait for the
 * text lock.
 */
#define xp_batch_add_imv(batch, name, value)                                                                           \
	__extension__({                                                                                                \
		XP__IMV_TYPE_OF(name) xp__imv_new = (value);                                                           \
		xp__batch_add_imv(batch, &name, &xp__imv_new, sizeof(xp__imv_new));                                    \
	})
struct xp_batch;
int xp__batch_add_imv(struct xp_batch *batch, struct xp_imv *imv, const void *value, size_t size);

#ifdef __cplusplus
}
#endif

#endif
