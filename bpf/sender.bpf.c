/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * Who sends a packet: to our own listeners, from another network namespace, or on its way to the queue.
 *
 * Law: packets only, where they are sent or after that; whose a packet can't be said to be is nobody's.
 */
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

/* ---- packets on their way to the queue: connected sockets, and pings ---- */

#ifdef JUDGED_MARK
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
