/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * Who uses a socket: records of sockets, flows and connections, and the hooks where a process names a destination.
 *
 * Law: the owner is the current process, which is in a call of its own in each of these hooks.
 */
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
