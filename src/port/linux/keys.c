// SPDX-License-Identifier: MIT
/*
 * Protection keys. What a thread may do in a page that has a key is in a register of its own (PKRU); a signal handler begins
 * with the system's value, which forbids all that has another key than 0, whatever the thread that it interrupted may.
 *
 * So the handler of SIGTRAP could not read the text of such a page, where a trap that is late is told from a foreign one by
 * a look at the text, and a displacement is read from there. Whether it could is asked for the thread that commits: the
 * system is asked under the value of a handler.
 */
#include "port/linux/keys.h"

#include "arch/arch.h"
#include "port/linux/sys.h"

#include <errno.h>
#include <stdint.h>

#define HANDLERS 0x55555554u /* PKRU: access to what has key 0 only; arch/x86/mm/pkeys.c of Linux */

/*
 * xp__can_read() under that value. No memory is touched meanwhile: the stack may have a key, too. A signal that comes in
 * between saves the register and gives it back.
 */
static long read_as_handler(uintptr_t addr)
{
	uint32_t own, zero;
	long result;

	__asm__ volatile("rdpkru" : "=a"(own), "=d"(zero) : "c"(0));
#ifdef __x86_64__
	register uint64_t kept __asm__("r8") = own;

	__asm__ volatile("movl %[handlers], %%eax\n\t"
			 "xorl %%ecx, %%ecx\n\t"
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
			 : "=D"(result)
			 : [handlers] "i"(HANDLERS), [call] "i"(SYS_rt_sigprocmask), "0"(-1l), "S"(addr), "r"(kept)
			 : "rax", "rcx", "rdx", "r10", "r11", "memory");
#else
	__asm__ volatile("movl %[handlers], %%eax\n\t"
			 "xorl %%ecx, %%ecx\n\t"
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
			 : "=D"(result), "+b"(addr)
			 : [handlers] "i"(HANDLERS), [call] "i"(SYS_rt_sigprocmask), "0"(own), "S"(XP__NSIG_SIZE)
			 : "eax", "ecx", "edx", "memory");
#endif
	return result;
}

bool xp__handlers_read(uintptr_t addr)
{
	return !xp__data_keys() || read_as_handler(addr & ~(uintptr_t)7) != -EFAULT;
}
