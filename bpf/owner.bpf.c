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

/* ---- steps of a CI job ---- */

#ifdef WORKER_TGID
/* A CI runner's worker starts each step as a child of its own. The child is AWAITED until its first execve: what
 * environment it has then, the worker gave it. From there on it and all its descendants are of that STEP, whatever
 * they run, whoever their parent becomes. Nothing that they do changes that. */
enum { AWAITED = 1, STEP = 2 };

struct descent {
  struct process_key step;
  u64 state;
};

BPF_TABLE("hash", struct process_key, struct descent, descents, 32768); /* living processes: not LRU, exits empty it */
BPF_TABLE("lru_hash", struct process_key, struct surroundings, steps, 128);
BPF_TABLE("array", u32, struct surroundings, no_surroundings, 1);

static inline struct process_key name_process(u64 task) {
  struct process_key process = {};

  process.tgid = FOLLOW(task, TASK_TGID);
  process.start_ns = FOLLOW(FOLLOW(task, TASK_LEADER), TASK_START);
  return process;
}

/* The kernel lays an execve's arguments and environment side by side (fs/binfmt_elf.c, create_elf_tables). */
static inline void write_surroundings(struct process_key *step, u64 task) {
  u32 zero = 0;
  u64 mm = FOLLOW(task, TASK_MM), start = FOLLOW(mm, MM_ARG_START), middle = FOLLOW(mm, MM_ENV_START);
  u64 length = FOLLOW(mm, MM_ENV_END) - start;
  struct surroundings *empty = no_surroundings.lookup(&zero), *given;

  if (!mm || !empty || FOLLOW(mm, MM_ARG_END) != middle || length == 0 || length > SURROUNDINGS_BYTES ||
      steps.update(step, empty) != 0)
    return;
  given = steps.lookup(step);
  if (given && read_user(given->text, length, (void *)start) == 0) {
    given->argv_bytes = middle - start;
    given->environ_bytes = length - given->argv_bytes;
    given->flags = SURROUNDINGS_WHOLE;
  }
}

int on_fork(struct bpf_raw_tracepoint_args *ctx) {
  u64 parent = ctx->args[0], task = ctx->args[1];
  struct process_key maker = name_process(parent), child = name_process(task);
  struct descent *of_maker, descent = {};

  if (child.tgid != (u32)FOLLOW(task, TASK_PID)) /* a thread */
    return 0;
  of_maker = descents.lookup(&maker);
  if (of_maker && of_maker->state == STEP) {
    descent = *of_maker;
  } else if (of_maker || (maker.tgid == WORKER_TGID && maker.start_ns / TICK_NS == WORKER_TICKS)) {
    descent.step = child;
    descent.state = AWAITED;
  } else {
    return 0;
  }
  if (descents.update(&child, &descent) != 0)
    count(UNTRACKED_CHILDREN);
  return 0;
}

int on_exec(struct bpf_raw_tracepoint_args *ctx) {
  u64 task = ctx->args[0];
  struct process_key process = name_process(task);
  struct descent *descent = descents.lookup(&process);

  if (descent && descent->state == AWAITED) {
    write_surroundings(&process, task);
    descent->state = STEP;
  }
  return 0;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx) {
  u64 task = ctx->args[0];
  struct process_key process = name_process(task);

  if ((u32)FOLLOW(FOLLOW(task, TASK_SIGNAL), SIGNAL_LIVE) == 0) /* its last thread */
    descents.delete(&process);
  return 0;
}

static inline void write_step(struct program *program, struct process_key *process) {
  struct process_key whatever_it_runs = *process;
  struct descent *descent;

  whatever_it_runs.exec_id = 0;
  descent = descents.lookup(&whatever_it_runs);
  if (descent && descent->state == STEP)
    program->step = descent->step;
}
#else
static inline void write_step(struct program *program, struct process_key *process) {}
#endif

/* ---- what a process runs ---- */

/* The path of an executable, leaf first, as d_path() walks it: up the directories, then from each mount's root to
 * where that mount stands, until the mount that stands on itself. The cursor is kept in the map, where the verifier
 * forgets its value: else it would follow each of 2^PATH_STEPS ways through the loop. */
static inline void write_exe(struct program *program, u64 file) {
  u64 mount = FOLLOW(file, FILE_PATH_MNT), dentry = FOLLOW(file, FILE_PATH_DENTRY);

  if (FOLLOW(dentry, DENTRY_HASHED) == 0) /* d_unlinked() */
    program->flags |= PROGRAM_DELETED;
  for (int step = 0; step < PATH_STEPS; step++) {
    u64 parent = FOLLOW(dentry, DENTRY_PARENT);
    u32 used = program->exe_bytes;
    if (dentry == FOLLOW(mount, VFSMOUNT_ROOT)) {
      u64 below = mount - MOUNT_VFSMOUNT, above = FOLLOW(below, MOUNT_PARENT);
      if (above == below) {
        u64 mounts = FOLLOW(below, MOUNT_NAMESPACE);
        u32 level = 0;
        if (mounts == 0) /* lazily unmounted: a root of anybody's making */
          program->flags |= PROGRAM_DELETED;
        else /* in a user namespace of one's own, one can mount anything anywhere: no path there is evidence */
          read_kernel(&level, sizeof(level), (void *)(FOLLOW(mounts, MNT_NS_USER_NS) + USER_NS_LEVEL));
        if (level == 0)
          program->flags |= PROGRAM_EXE;
        return;
      }
      dentry = FOLLOW(below, MOUNT_POINT);
      mount = above + MOUNT_VFSMOUNT;
      continue;
    }
    if (used >= EXE_BYTES)
      return;
    int length = read_kernel_str(program->exe + used, NAME_BYTES, (void *)FOLLOW(dentry, DENTRY_NAME));
    if (length <= 1)
      return;
    program->exe_bytes = used + length;
    if (dentry == parent) { /* no mount's root, and nothing above: a memfd, or a detached tree */
      program->flags |= PROGRAM_EXE | PROGRAM_DELETED;
      return;
    }
    dentry = parent;
  }
}

static inline void write_argv(struct program *program, u64 mm) {
  u64 start = FOLLOW(mm, MM_ARG_START), length = FOLLOW(mm, MM_ARG_END) - start;

  if (length > ARGV_BYTES) {
    length = ARGV_BYTES;
    program->flags |= PROGRAM_ARGV_CUT;
  }
  if (length == 0 || read_user(program->argv, length, (void *)start) == 0) {
    program->argv_bytes = length;
    program->flags |= PROGRAM_ARGV;
  }
}

static inline void write_place(struct program *program, u64 task) {
  u64 namespaces = FOLLOW(task, TASK_NSPROXY), pids = FOLLOW(namespaces, NSPROXY_PID);

  program->pid_depth = NOT_BELOW;
  for (u32 depth = 0; depth < PID_NAMESPACES && pids; depth++) {
    if ((u32)FOLLOW(pids, PID_NS_INUM) == OUR_PID_NS) {
      program->pid_depth = depth;
      break;
    }
    pids = FOLLOW(pids, PID_NS_PARENT);
  }
  program->mount_namespace = FOLLOW(FOLLOW(namespaces, NSPROXY_MNT), MNT_NS_INUM);
#ifdef LEGACY_CONTROLLER
  u64 state = FOLLOW(FOLLOW(task, TASK_CGROUPS), CSS_SET_SUBSYS + 8 * LEGACY_CONTROLLER);
  program->legacy_cgroup = FOLLOW(FOLLOW(FOLLOW(state, CSS_CGROUP), CGROUP_KN), KN_ID);
#endif
}

/* Written in a draft that is this thread's alone and copied when whole: no reader sees half a program. */
static inline void write_program(struct process_key *process) {
  u32 zero = 0;
  u64 task = bpf_get_current_task(), thread = FOLLOW(task, TASK_PID), mm = FOLLOW(task, TASK_MM);
  struct program *empty = blank.lookup(&zero), *draft;

  if (!mm || !empty || drafts.update(&thread, empty) != 0)
    return;
  draft = drafts.lookup(&thread);
  if (draft) {
    write_exe(draft, FOLLOW(mm, MM_EXE_FILE));
    write_argv(draft, mm);
    write_place(draft, task);
    write_step(draft, process);
    read_kernel(draft->comm, sizeof(draft->comm), (void *)(task + TASK_COMM));
    programs.update(process, draft);
    count(NEW_PROGRAMS);
  }
  drafts.delete(&thread);
}

/* ---- who uses a socket ---- */

/* The current process as the owner of a socket. */
static inline void describe(struct owner *owner, u64 cookie, u64 netns, u64 now) {
  u64 task = current_task();

  owner->process.start_ns = LOAD(LOAD(task, TASK_LEADER), TASK_START);
  owner->process.exec_id = LOAD(task, TASK_EXEC_ID);
  owner->process.tgid = LOAD_32(task, TASK_TGID);
  owner->cookie = cookie;
  owner->netns = netns;
  owner->cgroup = LOAD(LOAD(LOAD(LOAD(task, TASK_CGROUPS), CSS_SET_DFL_CGROUP), CGROUP_KN), KN_ID);
  owner->uid = LOAD_32(LOAD(task, TASK_CRED), CRED_UID);
  owner->used_ns = now;
}

static inline int same_process(struct process_key *one, struct process_key *other) {
  return one->tgid == other->tgid && one->start_ns == other->start_ns && one->exec_id == other->exec_id;
}

/* Whether a record says all that this one would. A store of one word makes it as young; nobody reads half of that. */
static inline int renewed(struct owner *before, struct owner *now) {
  if (!before || before->cookie != now->cookie || !same_process(&before->process, &now->process) ||
      before->uid != now->uid || before->cgroup != now->cgroup || before->flags)
    return 0;
  before->used_ns = now->used_ns;
  return 1;
}

/* Only where the owner is the current process. Once in each hook: it is most of the program's text. */
static inline void describe_program(struct owner *owner) {
  if (!programs.lookup(&owner->process))
    write_program(&owner->process);
}

/* This and own_flow tell whether there is a new record, so that its program may have to be described. */
static inline int own_socket(struct owner *owner) {
  struct owner *before = sockets.lookup(&owner->cookie);

  if (renewed(before, owner))
    return 0;
  sockets.update(&owner->cookie, owner);
  if (!before)
    count(NEW_SOCKETS);
  return 1;
}

/* Whether another process used another socket for the same flow just now. One network namespace never has two TCP
 * sockets of one tuple; UDP sockets can share a port, and a namespace of somebody's own can repeat any tuple. */
static inline int contested(struct flow_key *flow, struct owner *before, struct owner *owner) {
  if (before->cookie == owner->cookie || same_process(&before->process, &owner->process))
    return 0;
  if (flow->protocol == TCP && before->netns == owner->netns && owner->netns)
    return 0;
  return owner->used_ns - before->used_ns < CONTEST_NS;
}

/* The newest user of a flow owns it, unless it is contested. */
static inline int own_flow(struct flow_key *flow, struct owner *owner) {
  struct owner *before = flows.lookup(flow);

  if (renewed(before, owner))
    return 0;
  if (before && contested(flow, before, owner))
    owner->flags |= FLOW_CONTESTED;
  flows.update(flow, owner);
  if (!before)
    count(NEW_FLOWS);
  return 1;
}

static inline u64 digest(u64 seed, u64 *words, int count) {
#pragma unroll
  for (int i = 0; i < count; i++) {
    seed = (seed ^ words[i]) * DIGEST_FACTOR;
    seed ^= seed >> 32;
  }
  return seed;
}

static inline int same_words(u64 *one, u64 *other, int count) {
  u64 difference = 0;

#pragma unroll
  for (int i = 0; i < count; i++)
    difference |= one[i] ^ other[i];
  return difference == 0;
}

/* The newest connection of a tuple stands where the last one stood, or over the older of the two that stand where it
 * may. So a record is lost only to two newer ones that lead to the same pair of places. */
static inline void own_connection(struct connection *now) {
  u64 hash = digest(0, (u64 *)&now->flow, sizeof(now->flow) / 8);
  u32 one = hash & (CONNECTIONS - 2), other = one + 1;
  struct connection *before = connections.lookup(&one), *second = connections.lookup(&other);

  if (!before || !second)
    return;
  if (same_words((u64 *)&second->flow, (u64 *)&now->flow, sizeof(now->flow) / 8) ||
      (!same_words((u64 *)&before->flow, (u64 *)&now->flow, sizeof(now->flow) / 8) &&
       second->owner.used_ns < before->owner.used_ns))
    before = second;
  if (before->digest) {
    if (!same_words((u64 *)&before->flow, (u64 *)&now->flow, sizeof(now->flow) / 8))
      count(LOST_CONNECTIONS);
    else if (contested(&now->flow, &before->owner, &now->owner))
      now->owner.flags |= FLOW_CONTESTED;
  }
  now->digest = digest(hash, (u64 *)&now->owner, sizeof(now->owner) / 8);
  *before = *now;
}

static inline void nobody_owns(struct flow_key *flow) {
  if (flows.delete(flow) == 0)
    count(GONE_FLOWS);
}

static inline void map_ipv4(u8 *address, u32 ipv4) {
  address[10] = address[11] = 0xff;
  __builtin_memcpy(address + 12, &ipv4, 4);
}

/* Word by word: the verifier refuses the wider loads from a context that clang would make of it. */
#define COPY_IPV6(address, context_words)                        \
  do {                                                           \
    const volatile u32 *from = (context_words);                  \
    u32 words[4] = {from[0], from[1], from[2], from[3]};         \
    __builtin_memcpy((address), words, sizeof(words));           \
  } while (0)

#ifndef JUDGED_MARK
/* A connected UDP socket is looked up by its cookie. TCP is known better in on_sock_ops. */
int on_connect(struct bpf_sock_addr *ctx) {
  struct owner owner = {};

  if (ctx->protocol != UDP)
    return 1;
  describe(&owner, bpf_get_socket_cookie(ctx), bpf_get_netns_cookie(ctx), NOW());
  if (own_socket(&owner))
    describe_program(&owner);
  return 1;
}

/* Unconnected UDP: destination and source port are known here, the source address is not. */
static inline int sent(struct bpf_sock_addr *ctx, struct flow_key *flow) {
  struct owner owner = {};
  struct bpf_sock *sk = ctx->sk;
  int fresh;

  if (!sk)
    return 1;
  describe(&owner, bpf_get_socket_cookie(ctx), bpf_get_netns_cookie(ctx), NOW());
  flow->source_port = bpf_htons(sk->src_port);
  flow->destination_port = ctx->user_port;
  flow->protocol = UDP;
  fresh = own_flow(flow, &owner);
  if (flow->destination_port == bpf_htons(DNS)) { /* redirected: on_egress asks for the socket */
    owner.flags = 0;
    fresh |= own_socket(&owner);
  }
  if (fresh)
    describe_program(&owner);
  return 1;
}

int on_sendmsg4(struct bpf_sock_addr *ctx) {
  struct flow_key flow = {};

  map_ipv4(flow.destination, ctx->user_ip4);
  return sent(ctx, &flow);
}

int on_sendmsg6(struct bpf_sock_addr *ctx) {
  struct flow_key flow = {};

  COPY_IPV6(flow.destination, ctx->user_ip6);
  return sent(ctx, &flow);
}

#endif

/* A connecting TCP socket's whole tuple is known before its SYN leaves, still inside the connect() that sends it. */
int on_sock_ops(struct bpf_sock_ops *ctx) {
  struct connection now = {};

  ctx->reply = -1; /* no opinion */
  if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
    return 1;
  if (ctx->family == AF_INET6 && (ctx->remote_ip6[0] | ctx->remote_ip6[1] | (ctx->remote_ip6[2] ^ bpf_htonl(0xffff)))) {
    COPY_IPV6(now.flow.source, ctx->local_ip6);
    COPY_IPV6(now.flow.destination, ctx->remote_ip6);
  } else {
    map_ipv4(now.flow.source, ctx->local_ip4);
    map_ipv4(now.flow.destination, ctx->remote_ip4);
  }
  now.flow.source_port = bpf_htons(ctx->local_port);
  now.flow.destination_port = bpf_htons(bpf_ntohl(ctx->remote_port));
  now.flow.protocol = TCP;
#ifdef TYPED
  describe(&now.owner, bpf_get_socket_cookie(ctx), bpf_get_netns_cookie(ctx), NOW());
#else
  describe(&now.owner, bpf_get_socket_cookie(ctx), 0, NOW()); /* kernels before 5.15 don't say: any namespace may contest it */
#endif
  own_connection(&now);
  if (now.flow.destination_port == bpf_htons(DNS)) {
    now.owner.flags = 0;
    own_socket(&now.owner);
  }
  describe_program(&now.owner);
  return 1;
}

/* ---- who sends a packet ---- */

#ifdef JUDGED_MARK
#define STACK_BYTES 16384 /* of a task; where a kernel has larger ones, some senders stay unknown */
#define NO_CALL (u64)-1
#define PF_KTHREAD 0x00200000
#define HELPER_TASK_PT_REGS 175 /* enum bpf_func_id */
static u64 (*task_registers)(u64 task) = (void *)HELPER_TASK_PT_REGS;

/* Whether we are in a system call of the current process. An interrupt has a stack of its own, unless the process ran
 * code of its own just then, and so was in no call. */
static inline int is_calling(u64 task) {
  u64 frame = 0, slot;

  asm volatile("*(u64 *)(%0 + 0) = r10" : : "r"(&slot) : "memory"); /* the verifier tells nobody where the stack is */
  read_kernel(&frame, sizeof(frame), &slot);
  return frame - LOAD(task, TASK_STACK) < STACK_BYTES && FOLLOW(task_registers(task), REGS_CALL) != NO_CALL;
}

/* Whether a packet is what the current process sends. It isn't where the kernel does something for another one: in threads
 * or by sockets of its own, which have no file; or, of TCP, without the socket's lock, as in a call that polls a device. */
static inline int is_sent_by_current(u64 sk, u8 protocol) {
  u64 task = current_task();

  if (!is_calling(task) || LOAD_32(task, TASK_FLAGS) & PF_KTHREAD)
    return 0;
  return FOLLOW(FOLLOW(sk, SOCK_SOCKET), SOCKET_FILE) && (protocol != TCP || (u32)FOLLOW(sk, SOCK_OWNED));
}

static inline u64 netns_of(u64 sk) { return FOLLOW(FOLLOW(sk, SOCK_NETNS), NETNS_COOKIE); }

/* A socket has no cookie before anybody asks for one. Its file's number is no other file's for long enough. */
static inline u64 name_socket(u64 sk) {
  u64 cookie = FOLLOW(sk, SOCK_COOKIE);

  if (cookie)
    return cookie;
  return 1ull << 63 | FOLLOW(FOLLOW(FOLLOW(FOLLOW(sk, SOCK_SOCKET), SOCKET_FILE), FILE_INODE), INODE_NUMBER);
}

static inline void own_sent(struct flow_key *flow, u64 sk, u64 now) {
  struct owner owner = {};

  describe(&owner, name_socket(sk), netns_of(sk), now);
  if (own_flow(flow, &owner))
    describe_program(&owner);
}

/* A packet's socket, as a number: the verifier wants to know nothing of what is behind it. */
static inline u64 socket_of(struct __sk_buff *skb) {
  struct bpf_sock *sk = skb->sk;
  u64 address = 0;

  read_kernel(&address, sizeof(address), &sk);
  return address;
}
#endif

/* ---- packets to our own listeners: after redirection, which goes over loopback, so the tuple is what they see ---- */

/* Addresses and protocol; where the transport header begins. Header offsets: RFC 791 section 3.1, RFC 8200 section 3.
 * Extension headers and fragments are nobody's. */
static inline u32 read_addresses(u8 *header, struct flow_key *flow) {
  if (header[0] >> 4 == 4) {
    flow->protocol = header[9];
    flow->source[10] = flow->source[11] = flow->destination[10] = flow->destination[11] = 0xff;
    __builtin_memcpy(flow->source + 12, header + 12, 4);
    __builtin_memcpy(flow->destination + 12, header + 16, 4);
    return (header[0] & 0xf) * 4;
  }
  flow->protocol = header[6];
  __builtin_memcpy(flow->source, header + 8, 16);
  __builtin_memcpy(flow->destination, header + 24, 16);
  return 40;
}

static inline int read_tuple(struct __sk_buff *skb, struct flow_key *flow) {
  u8 header[40];
  u32 ports;

  if (bpf_skb_load_bytes(skb, 0, header, skb->protocol == bpf_htons(ETH_P_IP) ? 20 : 40))
    return 0;
  ports = read_addresses(header, flow);
  if (flow->protocol == ICMP || flow->protocol == ICMPV6)
    return bpf_skb_load_bytes(skb, ports + 4, &flow->source_port, 2) == 0; /* an echo's identifier */
  if (flow->protocol != TCP && flow->protocol != UDP)
    return 0;
  return bpf_skb_load_bytes(skb, ports, &flow->source_port, 4) == 0; /* both ports, side by side */
}

static inline int is_watched(u16 port) {
  u32 word = bpf_ntohs(port) >> 6;
  u64 *bits = watched.lookup(&word);

  return bits && *bits >> (bpf_ntohs(port) & 63) & 1;
}

#ifdef OUR_NETNS
/* A packet on its way out of another network namespace, which may come through ours by a bridge. What no socket of ours
 * will be found for is known here: UDP, pings; and questions, which reach our resolver with another destination. */
#ifdef JUDGED_MARK
static inline int left_another(struct __sk_buff *skb) {
  struct flow_key flow = {};
  u64 sk = socket_of(skb);

  if (!sk || netns_of(sk) == OUR_NETNS || !read_tuple(skb, &flow) || !is_sent_by_current(sk, flow.protocol))
    return 1;
  if (flow.destination_port == bpf_htons(DNS))
    __builtin_memset(flow.destination, 0, sizeof(flow.destination));
  else if (flow.protocol == TCP)
    return 1;
  own_sent(&flow, sk, NOW());
  return 1;
}
#else
static inline int left_another(struct __sk_buff *skb) {
  struct flow_key flow = {};
  u64 cookie = bpf_get_socket_cookie(skb);
  struct owner *found = cookie ? sockets.lookup(&cookie) : 0;

  if (!found || found->netns == OUR_NETNS || !read_tuple(skb, &flow))
    return 1;
  struct owner owner = *found;
  owner.used_ns = NOW();
  if (flow.protocol == UDP)
    own_flow(&flow, &owner);
  if (flow.destination_port == bpf_htons(DNS)) {
    owner.flags = 0;
    __builtin_memset(flow.destination, 0, sizeof(flow.destination));
    own_flow(&flow, &owner);
  }
  return 1;
}
#endif
#else
static inline int left_another(struct __sk_buff *skb) { return 1; }
#endif

int on_egress(struct __sk_buff *skb) {
  struct flow_key flow = {};
  struct owner *found = 0;
  u64 cookie;

  if (skb->ifindex != LOOPBACK)
    return left_another(skb);
  if (!read_tuple(skb, &flow) || !is_watched(flow.destination_port))
    return 1;
#ifdef JUDGED_MARK
  u64 sk = socket_of(skb);
  if (sk && is_sent_by_current(sk, flow.protocol)) {
    own_sent(&flow, sk, NOW());
    return 1;
  }
#endif
  cookie = bpf_get_socket_cookie(skb);
  if (cookie)
    found = sockets.lookup(&cookie);
  if (found) {
    struct owner owner = *found;
    owner.used_ns = NOW();
    own_flow(&flow, &owner);
  } else {
    nobody_owns(&flow);
  }
  return 1;
}

#ifdef JUDGED_MARK
/* ---- packets on their way to the queue, seen where they are sent: connected sockets, and pings ---- */

#define NF_ACCEPT 1
#define EXTENSIONS 4 /* more are refused */
#define HOP_BY_HOP 0
#define DESTINATION 60
#define ECHO 8
#define ECHO_V6 128

/* Behind those IPv6 options that are let through to be judged (firewall/packet.py), else one process could hide behind
 * them and be taken for the last one that didn't. */
static inline u64 skip_options(u64 at, struct flow_key *flow) {
  for (int i = 0; i < EXTENSIONS && (flow->protocol == HOP_BY_HOP || flow->protocol == DESTINATION); i++) {
    u16 option = (u16)FOLLOW(at, 0);
    flow->protocol = option & 0xff;
    at += ((option >> 8) + 1) * 8;
  }
  return at;
}

/* Of TCP only what carries data: all else follows from what another process did, or from its end. An echo's identifier
 * stands for its port. */
static inline int read_judged(u64 skb, struct flow_key *flow) {
  u8 header[40], transport[14] = {};
  u64 start = FOLLOW(skb, SKB_HEAD) + (u16)FOLLOW(skb, SKB_NETWORK), at;

  if (read_kernel(header, sizeof(header), (void *)start))
    return 0;
  at = start + read_addresses(header, flow);
  if (header[0] >> 4 == 6)
    at = skip_options(at, flow);
  if (read_kernel(transport, sizeof(transport), (void *)at))
    return 0;
  if (flow->protocol == (header[0] >> 4 == 4 ? ICMP : ICMPV6)) {
    __builtin_memcpy(&flow->source_port, transport + 4, 2);
    return transport[0] == (flow->protocol == ICMP ? ECHO : ECHO_V6);
  }
  __builtin_memcpy(&flow->source_port, transport, 4);
  if (flow->protocol == TCP)
    return (u32)FOLLOW(skb, SKB_LENGTH) > at - start + (transport[12] >> 4) * 4;
  return flow->protocol == UDP;
}

int on_judged(void *ctx) {
  struct flow_key flow = {.judged = 1};
  struct owner nobody = {.flags = FLOW_CONTESTED};
  u64 skb = LOAD(ctx, CONTEXT_SKB), sk;

  if ((LOAD_32(skb, SKB_MARK) & JUDGED_MASK) != JUDGED_MARK || !read_judged(skb, &flow))
    return NF_ACCEPT;
  sk = FOLLOW(LOAD(ctx, CONTEXT_STATE), STATE_SOCK);
  if (is_sent_by_current(sk, flow.protocol)) {
    own_sent(&flow, sk, bpf_ktime_get_ns());
  } else if (flow.protocol != TCP) { /* what TCP sends again, the same process sent before */
    nobody.used_ns = bpf_ktime_get_ns();
    own_flow(&flow, &nobody);
  }
  return NF_ACCEPT;
}
#endif
