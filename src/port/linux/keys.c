// SPDX-License-Identifier: MIT
/*
 * Protection keys. What a thread may do in a page that has a key is in a register of its own (PKRU), two bits for each key: no
 * access (AD), no writing (WD). Fetching instructions is never checked. A signal handler begins with the system's value, which
 * forbids all access to what has another key than 0, whatever the thread that it interrupted may. The end of the handler loads
 * the register from the signal frame. A new thread has its creator's value.
 *
 * Text with a key of the program's: the handler of SIGTRAP could not read it, where a trap that is late is told from a foreign
 * one by a look at the text, and a displacement is read from there. Whether it could is asked for the thread that commits: the
 * system is asked under the value of a handler.
 *
 * The library's own key (writer_pkey.c):
 * I1  Every thread may read what has it, and not write (AD 0, WD 1). A thread has this from its creator, from pkey_alloc(), or
 *     from a round (xp__key_frame()). A handler has no such right, so the library gives it to the calling thread before it reads
 *     text: with the text lock (fork.c), and in the handlers of traps (sigtrap.c). It is never taken away again: every thread
 *     should have it, and the end of a handler loads the frame's value.
 * I2  Once taken the key stays the library's until the process executes another program. If it were freed, threads would keep
 *     their rights, and another component might get the key.
 */
#include "port/linux/keys.h"

#include "arch/arch.h"
#include "port/linux/sys.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>

#define HANDLERS 0x55555554u /* PKRU: access to what has key 0 only; arch/x86/mm/pkeys.c of Linux */

uint32_t xp__key_bits;

/*
 * xp__can_read() under the value @rights. No memory is touched meanwhile: the stack may have a key, too. A signal that comes in
 * between saves the register and gives it back.
 */
static long read_under(uint32_t rights, uintptr_t addr)
{
	const uint32_t own = xp__pkru();
	long result;

#ifdef __x86_64__
	register uint64_t kept __asm__("r8") = own;

	__asm__ volatile("xorl %%ecx, %%ecx\n\t"
			 "xorl %%edx, %%edx\n\t"
			 "wrpkru\n\t"
			 "movl %[call], %%eax\n\t"
			 "movl $8, %%r10d\n\t"
			 "syscall\n\t"
			 "movq %%rax, %%rdi\n\t"
			 "movl %%r8d, %%eax\n\t"
			 "xorl %%ecx, %%ecx\n\t"
			 "xorl %%edx, %%edx\n\t"
			 "wrpkru"
			 : "=D"(result), "+a"(rights)
			 : [call] "i"(SYS_rt_sigprocmask), "0"(-1l), "S"(addr), "r"(kept)
			 : "rcx", "rdx", "r10", "r11", "memory");
#else
	__asm__ volatile("xorl %%ecx, %%ecx\n\t"
			 "xorl %%edx, %%edx\n\t"
			 "wrpkru\n\t"
			 "movl %%ebx, %%ecx\n\t"
			 "movl $-1, %%ebx\n\t"
			 "movl %[call], %%eax\n\t"
			 "int $0x80\n\t"
			 "xchgl %%eax, %%edi\n\t"
			 "xorl %%ecx, %%ecx\n\t"
			 "xorl %%edx, %%edx\n\t"
			 "wrpkru"
			 : "=D"(result), "+b"(addr), "+a"(rights)
			 : [call] "i"(SYS_rt_sigprocmask), "0"(own), "S"(XP__NSIG_SIZE)
			 : "ecx", "edx", "memory");
#endif
	return result;
}

static bool readable_under(uint32_t rights, uintptr_t addr)
{
	return read_under(rights, addr & ~(uintptr_t)7) != -EFAULT;
}

/* The library's handlers may read what has its key (I1). */
bool xp__handlers_read(uintptr_t addr)
{
	return !xp__data_keys() || readable_under(HANDLERS & ~xp__key_bits, addr);
}

bool xp__key_has(uintptr_t addr)
{
	return !readable_under(HANDLERS, addr) && readable_under(HANDLERS & ~xp__key_bits, addr);
}

/* ---- the library's own key ---- */

#define PKRU_STATE 9u        /* its number among the states that XSAVE stores, Intel SDM vol. 1, 13.1 */
#define STATE_LEAF 0xdu      /* CPUID: where each of them is */
#define FX_MAGIC 0x46505853u /* FP_XSTATE_MAGIC1 of <asm/sigcontext.h> */

static int own_key;
static uint32_t pkru_at;  /* in what XSAVE stores */
static bool frame_failed; /* relaxed atomic */

int xp__key_take(void)
{
	uint32_t size, zero;
	long key;

	if (own_key)
		return own_key;
	if (!xp__data_keys())
		return -EOPNOTSUPP;
	__cpuid_count(STATE_LEAF, PKRU_STATE, size, pkru_at, zero, zero);
	if (pkru_at == 0 || size < sizeof(uint32_t))
		return -EOPNOTSUPP;
	key = XP__SYS2(SYS_pkey_alloc, 0, 2 /* PKEY_DISABLE_WRITE: for the calling thread */);
	if (key <= 0)
		return key < 0 ? (int)key : -ENOSPC;
	own_key = (int)key;
	__atomic_store_n(&xp__key_bits, 3u << 2 * key, __ATOMIC_RELAXED); /* the round's question comes after it */
	return own_key;
}

void xp__key_give(void)
{
	__atomic_store_n(&xp__key_bits, 0, __ATOMIC_RELAXED);
	XP__SYS1(SYS_pkey_free, own_key);
	own_key = 0;
}

bool xp__key_frames_failed(void)
{
	bool failed = __atomic_load_n(&frame_failed, __ATOMIC_RELAXED);

	__atomic_store_n(&frame_failed, false, __ATOMIC_RELAXED);
	return failed;
}

/*
 * What the kernel saved begins with what FXSAVE stores; in the last bytes of that, which the processor leaves alone, it says how
 * much follows and which states are in it. In front of it, 32-bit processes have what FSAVE stores.
 */
void xp__key_frame(ucontext_t *uc)
{
	const uint32_t bits = __atomic_load_n(&xp__key_bits, __ATOMIC_RELAXED);
	uint8_t *area = (uint8_t *)uc->uc_mcontext.fpregs;
	struct {
		uint32_t magic, size;
		uint64_t states;
	} saved = {0, 0, 0};
	uint64_t present;
	uint32_t rights;

	if (!bits)
		return;
#ifdef __i386__
	area = area ? area + 112 : NULL;
#endif
	if (area)
		memcpy(&saved, area + 464, sizeof(saved));
	if (saved.magic != FX_MAGIC || !(saved.states >> PKRU_STATE & 1) || saved.size < pkru_at + sizeof(rights)) {
		__atomic_store_n(&frame_failed, true, __ATOMIC_RELAXED);
		return;
	}
	memcpy(&present, area + 512, sizeof(present));
	memcpy(&rights, area + pkru_at, sizeof(rights));
	/* Not present: it was zero. */
	rights = xp__key_rights(present >> PKRU_STATE & 1 ? rights : 0, bits);
	present |= 1u << PKRU_STATE;
	memcpy(area + 512, &present, sizeof(present));
	memcpy(area + pkru_at, &rights, sizeof(rights));
}
