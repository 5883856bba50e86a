/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * Who owns a socket: each hook writes down the current process beside the socket or flow that it uses.
 *
 * Law: observe, never refuse. Contexts are UAPI; of the kernel's own structures only the fields named in
 * bpf/compile.py are read, at offsets (TASK_..., MM_...) that it takes from this kernel's BTF.
 */
#include "owner.h"

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define TCP 6
#define UDP 17
#define LOOPBACK 1               /* the loopback's interface index, in every network namespace */
#define REFRESH_NS (CONTEST_NS / 4) /* a record is written anew no oftener, if nothing changed */
#define PATH_STEPS 48            /* directories and mounts between a file and the root */

BPF_TABLE("lru_hash", struct flow_key, struct owner, flows, 32768);
BPF_TABLE("lru_hash", u64, struct owner, sockets, 32768);
BPF_TABLE("lru_hash", struct process_key, struct program, programs, 4096);
BPF_TABLE("hash", u64, struct program, drafts, 256); /* one a thread, while it describes itself */
BPF_TABLE("hash", u16, u8, watched, 16);             /* ports that redirected packets go to */
BPF_TABLE("array", u32, struct program, blank, 1);   /* zeros: too many for BPF's stack */

#define FOLLOW(address, offset)                                                    \
  ({                                                                               \
    u64 found = 0;                                                                 \
    bpf_probe_read_kernel(&found, sizeof(found), (void *)((address) + (offset))); \
    found;                                                                         \
  })

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
          bpf_probe_read_kernel(&level, sizeof(level), (void *)(FOLLOW(mounts, MNT_NS_USER_NS) + USER_NS_LEVEL));
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
    int length = bpf_probe_read_kernel_str(program->exe + used, NAME_BYTES, (void *)FOLLOW(dentry, DENTRY_NAME));
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
  if (length == 0 || bpf_probe_read_user(program->argv, length, (void *)start) == 0) {
    program->argv_bytes = length;
    program->flags |= PROGRAM_ARGV;
  }
}

/* Written in a draft that is this thread's alone and copied when whole: no reader sees half a program. */
static inline void write_program(struct process_key *process, u64 task) {
  u32 zero = 0;
  u64 thread = bpf_get_current_pid_tgid(), mm = FOLLOW(task, TASK_MM);
  struct program *empty = blank.lookup(&zero), *draft;

  if (!mm || !empty || drafts.update(&thread, empty) != 0)
    return;
  draft = drafts.lookup(&thread);
  if (draft) {
    write_exe(draft, FOLLOW(mm, MM_EXE_FILE));
    write_argv(draft, mm);
    programs.update(process, draft);
  }
  drafts.delete(&thread);
}

/* ---- who uses a socket ---- */

static inline int same_process(struct process_key *one, struct process_key *other) {
  return one->tgid == other->tgid && one->start_ns == other->start_ns && one->exec_id == other->exec_id;
}

/* Whether a record says all that this one would, and is young enough not to be evicted soon: then it may stay. */
static inline int still_true(struct owner *before, struct owner *now) {
  return before && before->cookie == now->cookie && same_process(&before->process, &now->process) &&
         before->uid == now->uid && before->cgroup == now->cgroup && now->used_ns - before->used_ns < REFRESH_NS;
}

/* Describe the current process as the owner of the socket of a context. */
static inline void own(struct owner *owner, struct bpf_sock_addr *ctx) {
  u64 task = bpf_get_current_task(), cookie = bpf_get_socket_cookie(ctx);

  owner->process.tgid = bpf_get_current_pid_tgid() >> 32;
  owner->process.start_ns = FOLLOW(FOLLOW(task, TASK_LEADER), TASK_START);
  owner->process.exec_id = FOLLOW(task, TASK_EXEC_ID);
  owner->cookie = cookie;
  owner->used_ns = bpf_ktime_get_ns();
  owner->cgroup = bpf_get_current_cgroup_id();
  owner->netns = bpf_get_netns_cookie(ctx);
  owner->uid = bpf_get_current_uid_gid();
  bpf_get_current_comm(owner->comm, sizeof(owner->comm));
  if (still_true(sockets.lookup(&cookie), owner))
    return;
  if (!programs.lookup(&owner->process))
    write_program(&owner->process, task);
  sockets.update(&cookie, owner);
}

/* Whether another process used another socket for the same flow just now. One network namespace never has two TCP
 * sockets of one tuple; UDP sockets can share a port, and a namespace of somebody's own can repeat any tuple. */
static inline int contested(struct flow_key *flow, struct owner *before, struct owner *owner) {
  if (before->cookie == owner->cookie || same_process(&before->process, &owner->process))
    return 0;
  if (flow->protocol == TCP && before->netns == owner->netns)
    return 0;
  return owner->used_ns - before->used_ns < CONTEST_NS;
}

/* The newest user of a flow owns it, unless it is contested. */
static inline void claim(struct flow_key *flow, struct owner *owner) {
  struct owner *before = flows.lookup(flow);

  if (still_true(before, owner))
    return;
  if (before && contested(flow, before, owner))
    owner->flags |= FLOW_CONTESTED;
  flows.update(flow, owner);
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

static inline int used(struct bpf_sock_addr *ctx) {
  struct owner owner = {};

  own(&owner, ctx);
  return 1;
}

/* Unconnected UDP: destination and source port are known here, the source address is not. */
static inline int sent(struct bpf_sock_addr *ctx, struct flow_key *flow) {
  struct owner owner = {};
  struct bpf_sock *sk = ctx->sk;

  if (!sk)
    return 1;
  own(&owner, ctx);
  flow->source_port = bpf_htons(sk->src_port);
  flow->destination_port = ctx->user_port;
  flow->protocol = ctx->protocol;
  claim(flow, &owner);
  return 1;
}

int on_connect4(struct bpf_sock_addr *ctx) { return used(ctx); }
int on_connect6(struct bpf_sock_addr *ctx) { return used(ctx); }

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

/* A connecting TCP socket's whole tuple is known before its SYN leaves. Its user was written down by connect(). */
int on_sock_ops(struct bpf_sock_ops *ctx) {
  struct flow_key flow = {};
  u64 cookie;
  struct owner *found;

  ctx->reply = -1; /* no opinion */
  if (ctx->op != BPF_SOCK_OPS_TCP_CONNECT_CB)
    return 1;
  if (ctx->family == AF_INET6 && (ctx->remote_ip6[0] | ctx->remote_ip6[1] | (ctx->remote_ip6[2] ^ bpf_htonl(0xffff)))) {
    COPY_IPV6(flow.source, ctx->local_ip6);
    COPY_IPV6(flow.destination, ctx->remote_ip6);
  } else {
    map_ipv4(flow.source, ctx->local_ip4);
    map_ipv4(flow.destination, ctx->remote_ip4);
  }
  flow.source_port = bpf_htons(ctx->local_port);
  flow.destination_port = bpf_htons(bpf_ntohl(ctx->remote_port));
  flow.protocol = TCP;
  cookie = bpf_get_socket_cookie(ctx);
  found = sockets.lookup(&cookie);
  if (found) {
    struct owner owner = *found;
    owner.used_ns = bpf_ktime_get_ns();
    claim(&flow, &owner);
  } else {
    flows.delete(&flow); /* nobody's: never the last user's of the same tuple */
  }
  return 1;
}

/* ---- packets to our own listeners: after redirection, which goes over loopback, so the tuple is what they see ---- */

/* Header offsets: RFC 791 section 3.1, RFC 8200 section 3. Extension headers and fragments are nobody's. */
static inline int read_tuple(struct __sk_buff *skb, struct flow_key *flow) {
  u8 header[40];
  u32 ports = 20;

  if (skb->protocol == bpf_htons(ETH_P_IP)) {
    if (bpf_skb_load_bytes(skb, 0, header, 20))
      return 0;
    ports = (header[0] & 0xf) * 4;
    flow->protocol = header[9];
    flow->source[10] = flow->source[11] = flow->destination[10] = flow->destination[11] = 0xff;
    __builtin_memcpy(flow->source + 12, header + 12, 4);
    __builtin_memcpy(flow->destination + 12, header + 16, 4);
  } else {
    if (bpf_skb_load_bytes(skb, 0, header, 40))
      return 0;
    ports = 40;
    flow->protocol = header[6];
    __builtin_memcpy(flow->source, header + 8, 16);
    __builtin_memcpy(flow->destination, header + 24, 16);
  }
  if (flow->protocol != TCP && flow->protocol != UDP)
    return 0;
  return bpf_skb_load_bytes(skb, ports, &flow->source_port, 4) == 0; /* both ports, side by side */
}

int on_egress(struct __sk_buff *skb) {
  struct flow_key flow = {};
  struct owner *found = 0;
  u64 cookie;

  if (skb->ifindex != LOOPBACK || !read_tuple(skb, &flow) || !watched.lookup(&flow.destination_port))
    return 1;
  cookie = bpf_get_socket_cookie(skb);
  if (cookie)
    found = sockets.lookup(&cookie);
  if (found) {
    struct owner owner = *found;
    owner.used_ns = bpf_ktime_get_ns();
    claim(&flow, &owner);
  } else {
    flows.delete(&flow);
  }
  return 1;
}
