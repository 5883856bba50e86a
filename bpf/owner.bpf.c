/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * Who owns a socket: each hook writes down the current process beside the socket or flow that it uses.
 *
 * Law: observe, never refuse. Contexts are UAPI; of the kernel's own structures only the fields named in
 * bpf/compile.py are read, at offsets (TASK_..., MM_...) that it takes from this kernel's BTF.
 *
 * A program pays for this with every connect() and sendto(), so what repeats costs one look-up and one store; all
 * that is costly (paths, arguments, namespaces) is written once for each program that a process runs. An LRU map is
 * costly too (more than a microsecond for each new key), which connect() would pay each time.
 */
#include "owner.h"

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ICMP 1
#define TCP 6
#define UDP 17
#define ICMPV6 58
#define DNS 53
#define LOOPBACK 1    /* the loopback's interface index, in every network namespace */
#define PATH_STEPS 48 /* directories and mounts between a file and the root */
#define PID_NAMESPACES 33 /* MAX_PID_NS_LEVEL and the initial one (pid_namespaces(7)) */

BPF_TABLE("lru_hash", struct flow_key, struct owner, flows, 32768);
BPF_TABLE("array", u32, struct connection, connections, CONNECTIONS);
BPF_TABLE("lru_hash", u64, struct owner, sockets, 32768);
BPF_TABLE("lru_hash", struct process_key, struct program, programs, 4096);
BPF_TABLE("hash", u64, struct program, drafts, 256);  /* one a thread, while it describes itself */
BPF_TABLE("array", u32, u64, watched, 1024);          /* one bit a port: redirected packets go there */
BPF_TABLE("array", u32, u64, counts, COUNTS);
BPF_TABLE("array", u32, u64, parts, 1);               /* which are at work, for whoever takes the maps over */
BPF_TABLE("array", u32, struct program, blank, 1);    /* zeros: too many for BPF's stack */

/* bpf_probe_read_user() and the like by their numbers: names would be rewritten by bcc, which knows older kernels, and
 * looks through all symbols of this one first. That takes 0.1 s (see bpf/compile.py). */
static long (*read_user)(void *to, u32 length, const void *from) = (void *)BPF_FUNC_probe_read_user;
static long (*read_kernel)(void *to, u32 length, const void *from) = (void *)BPF_FUNC_probe_read_kernel;
static long (*read_kernel_str)(void *to, u32 length, const void *from) = (void *)BPF_FUNC_probe_read_kernel_str;

/* A field of the kernel's, wherever its structure is. */
#define FOLLOW(address, offset)                                                    \
  ({                                                                               \
    u64 found = 0;                                                                 \
    read_kernel(&found, sizeof(found), (void *)((address) + (offset)));            \
    found;                                                                         \
  })

/* The same of the current task, far faster: a pointer whose type the verifier knows may be followed by plain loads,
 * where the kernel has bpf_get_current_task_btf() for these hooks. bcc would rewrite what C says, hence assembly. */
#ifdef TYPED
#define HELPER_CURRENT_TASK_BTF 158 /* enum bpf_func_id */
static u64 (*current_task)(void) = (void *)HELPER_CURRENT_TASK_BTF;
#define LOAD(address, offset)                                                                   \
  ({                                                                                            \
    u64 found;                                                                                  \
    asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(found) : "r"(address), "i"(offset));           \
    found;                                                                                      \
  })
#define LOAD_32(address, offset)                                                                \
  ({                                                                                            \
    u64 found;                                                                                  \
    asm volatile("%0 = *(u32 *)(%1 + %2)" : "=r"(found) : "r"(address), "i"(offset));           \
    (u32)found;                                                                                 \
  })
#define NOW bpf_ktime_get_coarse_ns
#else
#define current_task bpf_get_current_task
#define LOAD FOLLOW
#define LOAD_32(address, offset) ((u32)FOLLOW(address, offset))
#define NOW bpf_ktime_get_ns
#endif

static inline void count(u32 slot) {
  u64 *counter = counts.lookup(&slot);

  if (counter)
    __sync_fetch_and_add(counter, 1);
}
