/* SPDX-License-Identifier: MIT */
/* Registers of a thread, by one name in 64 and 32 bits: of a signal's context, and of ptrace's struct user_regs_struct. */
#ifndef XP_GREGS_H
#define XP_GREGS_H

#include <sys/user.h>
#include <ucontext.h>

#ifdef __x86_64__
enum { XP_GREG_IP = REG_RIP, XP_GREG_AX = REG_RAX };
/* The first arguments of a system call. */
enum { XP_GREG_ARG1 = REG_RDI, XP_GREG_ARG2 = REG_RSI, XP_GREG_ARG3 = REG_RDX };
#define XP_USER_IP(regs) ((uintptr_t)(regs).rip)
#define XP_USER_AX(regs) ((uintptr_t)(regs).rax)
#else
enum { XP_GREG_IP = REG_EIP, XP_GREG_AX = REG_EAX };
enum { XP_GREG_ARG1 = REG_EBX, XP_GREG_ARG2 = REG_ECX, XP_GREG_ARG3 = REG_EDX };
#define XP_USER_IP(regs) ((uintptr_t)(regs).eip)
#define XP_USER_AX(regs) ((uintptr_t)(regs).eax)
#endif

#endif
