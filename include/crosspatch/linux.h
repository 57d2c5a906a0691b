/* SPDX-License-Identifier: MIT */
/*
 * What only the Linux port has: which writer and which sync, where the defaults are right and these force one; what stays
 * open between commits; and operation from outside.
 */
#ifndef XP_LINUX_H
#define XP_LINUX_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * How bytes get into program text.
 *	procmem   pwrite to /proc/self/mem: works under MDWE and mseal, never makes a page writable; only a 1-byte write
 *	          is a single store, so the methods word and shortjmp are not offered
 *	mprotect  a window in which the page is readable, writable and executable: single stores of up to 8 bytes;
 *	          refused by MDWE, mseal, SELinux execmod
 *	pkey      no system call: a page that was once written to stays readable, writable and executable, under a protection key
 *	          that lets only the committing thread write, for the moment of its store; single stores of up to 8 bytes. Needs
 *	          a processor with protection keys (PKU), and takes one of the process' 15 keys for good; refused by MDWE,
 *	          SELinux execmem. Text that cannot have the key (shared, huge pages, sealed) is written by the other two
 * auto: procmem if it works, else mprotect; and where one of them cannot write a mapping, the other: text that is mapped
 * shared or on huge pages is for mprotect. And mprotect for a commit that would need breakpoints, if a thread blocks
 * SIGTRAP or cannot be asked for its mask (no descriptor, no /proc), or a tracer has the process, or there are more than 32
 * threads, and single stores do. If procmem or mprotect is forced, no other writer is ever tried.
 * auto never takes pkey, for it costs the program something. In a page that has the key
 * - text cannot be read as data where the system gave a thread the rights of a handler: in a signal handler, in a thread that a
 *   handler made, and after siglongjmp out of a handler, until the thread calls the library. Such a read faults (SEGV_PKUERR);
 *   system calls that read there return EFAULT. Execution is never checked. What suffers is constants between functions, the
 *   walk of a stack without unwind tables, and read-only data that the linker put into text (-z noseparate-code; gold always);
 * - only the library may write, or change the protection: another patching library faults when it writes there, and if the
 *   program makes such a page of a registered module read-only, gives it a key of its own or maps it anew (onto huge pages,
 *   say), the library's next store there faults: set another writer before. No new uprobe can be set;
 * - code that executes WRPKRU can give itself the right to write.
 * Where there are other threads already, xp_set_writer() brings each to a handler by the signal of a rendezvous (below), to give
 * it its rights; what refuses the rendezvous refuses this writer. A thread that is inside a signal handler of the program at
 * that time has its earlier rights again when that handler ends.
 */
enum xp_writer { XP_WRITER_AUTO, XP_WRITER_PROCMEM, XP_WRITER_MPROTECT, XP_WRITER_PKEY };

/*
 * How the other processors are made to see it.
 *	membarrier  MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE, Linux 5.10 or later
 *	signal      a real-time signal to every thread, whose handler executes a serializing instruction
 *	            Calls of the program that SA_RESTART does not restart (poll, nanosleep, futex waits with a deadline…) end
 *	            with EINTR when it comes; so they do under the policy quiesce, which sends it under either sync
 * auto: membarrier if it works, else signal.
 *
 * The quiesce policy and xp_function_quiesce() send that signal under either. Each thread is asked again until it has
 * come. -EBUSY, with the thread and the reason in the diagnostic: a thread that blocks the signal did not come for 60 ms;
 * one that a tracer holds, that has the mask of a thread that ends, or that cannot be asked since the user's queue of
 * signals is full, for 1 s; any other for 10 s. -EXDEV: /proc is that of an outer namespace of processes, where threads have
 * other numbers (unshare --fork --pid without --mount-proc), so none can be asked.
 * Nothing was changed, and no other thread is held for more than 160 ms at a time. With the signal as sync, a round is tried
 * before anything is stored. If a thread stops coming between that and the end of the commit, it is undone after 1 s (10 s,
 * if nothing tells why); if the thread does not come for 10 s more, the engine is wedged.
 */
enum xp_sync { XP_SYNC_AUTO, XP_SYNC_MEMBARRIER, XP_SYNC_SIGNAL };

/*
 * xp_set_writer / xp_set_sync - for all later commits. The environment variables CROSSPATCH_WRITER (auto, procmem,
 * mprotect, pkey) and CROSSPATCH_SYNC (auto, membarrier, signal) set them at start; ignored in set-uid programs.
 * Context: thread; waits for a commit in progress. Ordering: none. Errors, after all of which the setting is as it was: -EINVAL;
 * -XP_E_NO_WRITER, -XP_E_NO_SYNC if the one named does not work here; -XP_E_TRANSLATED if it writes and old text is executed
 * (valgrind without --smc-check=all, qemu-user); -XP_E_REENTRANT; the system's -errno if the writer was pkey, and a page cannot
 * be given its protection back. Progress: waits for the text lock.
 */
int xp_set_writer(enum xp_writer writer);
int xp_set_sync(enum xp_sync sync);

/*
 * Whether the files that a commit asks and writes (/proc/self/mem, maps, task) stay open until the next one.
 *	close  each commit opens what it needs, and closes it before it returns: fork, _Fork, vfork and clone hand nothing to a child,
 *	       unless another thread commits then. Descriptors from 4000 up if the limit allows; any for one call, or with one thread
 *	keep   they stay open from now on, so a commit is some microseconds faster, and goes on to work where they cannot be
 *	       opened any more: /proc/self/mem after setuid, all three after chroot
 * What keep gives away: a child holds the descriptors until it executes another program or, made by fork(), at once closes
 * them. With that of mem it reads and writes the memory of its parent, whatever its user id and its sandbox. Not for a
 * program whose children are to have less rights than it has.
 * Without keep, in a process that may not open /proc/self/mem the other writer serves, in auto. Without /proc it knows
 * only text that program headers describe, not text made at run time; breakpoints are refused there among threads, since none
 * can be asked for its mask. The same holds while the process has no descriptor left (-EMFILE, -ENFILE).
 */
enum xp_descriptors { XP_DESCRIPTORS_CLOSE, XP_DESCRIPTORS_KEEP };

/*
 * xp_set_descriptors - for all later commits. Keep opens all three at once: call it before rights are given up. The
 * environment variable CROSSPATCH_DESCRIPTORS (close, keep) sets it at start, and keeps of the three what can be opened;
 * ignored in set-uid programs. The default is close.
 * Context: thread; waits for a commit in progress. Ordering: none. Errors: -EINVAL; -XP_E_REENTRANT; what the system said
 * when one could not be opened: the setting stays as it was. Progress: waits for the text lock.
 */
int xp_set_descriptors(enum xp_descriptors descriptors);

/*
 * xp_control_start - lets keys, switches and values of this process be seen and set from outside: by `crosspatch list` and
 * `crosspatch set`, run by the process' own effective user or root, and by no other user. Nothing listens unless this is
 * called, or the environment variable CROSSPATCH_CONTROL says auto or names a socket (ignored in set-uid programs).
 * @path: of the socket, absolute, less than 108 bytes; a socket of the same user there that no process listens to is replaced.
 * NULL (auto): named by the process id, where the tool finds it: in the first of these directories in which that can be done
 * and which is this user's alone: /run/crosspatch (root's), /run/user/UID/crosspatch, /tmp/crosspatch-UID,
 * /dev/shm/crosspatch-UID, and the last two with -NUMBER behind them, that of the namespace of users. If a process of another
 * namespace has the same id there, the name is ID-NUMBER, the number that of the namespace of processes. Sockets there that
 * killed processes left are removed, 256 at a start.
 * The socket has mode 0600, whatever the umask, and goes with the process unless that is killed. It makes one thread, which
 * blocks all signals but the library's own, takes the text lock to read and to set, holds no lock while it talks or looks for
 * names, and keeps up to 5 descriptors, and one for each of up to 16 peers. One that does nothing keeps no other from being
 * served.
 * A process that becomes another user for good (setuid; real, effective and saved) moves: a socket named by id into the new
 * user's directory, one with a path if the new user may remove it. Otherwise it stays where it was, and root alone can ask.
 * Sockets in another user's directory stay there, and go when a process of that user starts.
 * Where the system refuses what the thread needs, it tries again, at least every second. A shortage (descriptors, memory) may
 * last; after 8 refusals of another kind in a row it ends as if stopped, and xp_control_path() returns what was refused.
 * From then on the process has two threads: XP_POLICY_EARLY is refused.
 * A question while the program starts is answered when the executable and the shared objects loaded with it have
 * registered their sites, or after 15 s.
 * A child of fork is not served: it has no such thread, and closes the socket. It may call this itself.
 * Context: thread; takes the text lock, for moments. Ordering: none. Errors: -EALREADY if it serves already;
 * -EADDRINUSE if another process does there; -EEXIST if something else is there; -EINVAL, -ENAMETOOLONG, -EACCES,
 * -EROFS and others of the system for a path that cannot be; -EAGAIN if there is no thread to be had; -ECANCELED in
 * the child of a handler that forked in the middle of it; -XP_E_REENTRANT. Nothing is left behind. Progress: waits
 * for the text lock, and for file systems without it.
 */
int xp_control_start(const char *path);

/*
 * xp_control_stop - ends it: on return the socket and the thread's use of anything are gone. Done is done: 0.
 * Context: thread, as above. Ordering: none. Errors: -XP_E_REENTRANT; -XP_E_HELD if the text lock is not to be had: it ends
 * when that is. Progress: waits for a request that is being carried out.
 */
int xp_control_stop(void);

/*
 * xp_control_path - the socket's path, ended by a zero, into @path of @size bytes; 108 are enough.
 * Context: thread, as above. Ordering: none. Errors: -ERANGE; if nothing is served, why: -ENOTCONN, or what a start
 * returned (that of the environment, too) or ended the service; @path is as before.
 * -XP_E_REENTRANT. Progress: waits for the text lock.
 */
int xp_control_path(char *path, size_t size);

#ifdef __cplusplus
}
#endif

#endif
