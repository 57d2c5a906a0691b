/* SPDX-License-Identifier: MIT */
/*
 * Executable text made at run time: filled while writable, then made executable, never both. A page that no thread may
 * touch lies before and behind it, so that a thread that reads too far crashes.
 */
#ifndef XP_TEXT_H
#define XP_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define XP_TEXT_PAGE 4096u

struct xp_text {
	uint8_t *base;
	size_t size; /* whole pages */
};

/* Room for @size bytes, writable, all breakpoints. */
static inline bool xp_text_alloc(struct xp_text *text, size_t size)
{
	uint8_t *map;

	text->size = (size + XP_TEXT_PAGE - 1) / XP_TEXT_PAGE * XP_TEXT_PAGE;
	map = (uint8_t *)mmap(NULL, text->size + 2 * XP_TEXT_PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		return false;
	text->base = map + XP_TEXT_PAGE;
	if (mprotect(text->base, text->size, PROT_READ | PROT_WRITE))
		return false;
	memset(text->base, 0xcc, text->size);
	return true;
}

static inline bool xp_text_seal(const struct xp_text *text)
{
	return mprotect(text->base, text->size, PROT_READ | PROT_EXEC) == 0;
}

static inline void xp_text_free(struct xp_text *text)
{
	if (text->base)
		munmap(text->base - XP_TEXT_PAGE, text->size + 2 * XP_TEXT_PAGE);
	text->base = NULL;
}

/* Text of exactly these bytes at its start. */
static inline bool xp_text_make(struct xp_text *text, const uint8_t *bytes, size_t size)
{
	if (!xp_text_alloc(text, size))
		return false;
	memcpy(text->base, bytes, size);
	return xp_text_seal(text);
}

/*
 * Calls the code at @site with @value in eax and the flags of comparing @flag with zero, and returns what it leaves
 * in eax. The code may change eax, ecx and the flags.
 */
static inline unsigned xp_text_call(const void *site, unsigned value, unsigned flag)
{
#ifdef __x86_64__
	/* The red zone is this function's own: the call must not run over it. */
	__asm__ volatile("lea -128(%%rsp), %%rsp\n\t"
			 "cmpl $0, %[flag]\n\t"
			 "call *%[site]\n\t"
			 "lea 128(%%rsp), %%rsp"
			 : "+a"(value)
			 : [site] "r"(site), [flag] "r"(flag)
			 : "rcx", "memory", "cc");
#else
	__asm__ volatile("cmpl $0, %[flag]\n\t"
			 "call *%[site]"
			 : "+a"(value)
			 : [site] "r"(site), [flag] "r"(flag)
			 : "ecx", "memory", "cc");
#endif
	return value;
}

#endif
