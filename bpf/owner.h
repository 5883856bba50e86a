/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * The records that the program writes and bpf/records.py reads. Fixed sizes, no implicit padding; the loader
 * compiles one assertion a field from records.py below this text, so the two can't drift apart unnoticed.
 */
#pragma once

#define EXE_BYTES  512  /* a path longer than this is unknown, and said to be */
#define NAME_BYTES 256  /* NAME_MAX and its NUL */
#define ARGV_BYTES 1024 /* what follows is cut, and said to be */
#define CONNECTIONS 65536 /* places for TCP connections, a power of two */
#define SURROUNDINGS_BYTES 32768 /* a step that is given more is unknown */

enum { FLOW_CONTESTED = 1 }; /* two processes used one flow at once: nobody owns it */
enum { PROGRAM_EXE = 1, PROGRAM_DELETED = 2, PROGRAM_ARGV = 4, PROGRAM_ARGV_CUT = 8 };
enum { SURROUNDINGS_WHOLE = 1 };

/* What is counted, one slot each: records that a map had to take in, and those it was told to drop. */
enum { NEW_FLOWS, NEW_SOCKETS, NEW_PROGRAMS, GONE_FLOWS, LOST_CONNECTIONS, UNTRACKED_CHILDREN, COUNTS };

/* A transport tuple as it is on the wire: network byte order, IPv4 as ::ffff:a.b.c.d. The source address is zero
 * where the kernel has not chosen it yet (unconnected UDP), the destination of a question that is redirected behind
 * a bridge: there nobody knows where it was sent to. An echo request has its identifier for a source port. */
struct flow_key {
  u8 source[16];
  u8 destination[16];
  u16 source_port;
  u16 destination_port;
  u8 protocol;
  u8 judged; /* 1: the owner sent the newest packet that waits for its verdict; 0: it used the socket */
  u8 zero[2];
};

/* One program run by one process, for ever: a reused PID has another start time, an exec another number. */
struct process_key {
  u64 start_ns; /* since boot, as /proc/PID/stat field 22 */
  u64 exec_id;  /* task->self_exec_id: one more with every execve; 0 where the process is meant, whatever it runs */
  u32 tgid;     /* in the initial PID namespace */
  u32 zero;
};

/* Who last used a socket, as it was in that moment. */
struct owner {
  struct process_key process;
  u64 cookie;
  u64 used_ns;
  u64 cgroup;
  u64 netns; /* the socket's network namespace, as a cookie */
  u32 uid;   /* in the initial user namespace */
  u32 flags;
};

/* Who opened a TCP connection. It stands at one of two places that its tuple leads to, over what stood there. Nobody
 * locks them: the digest is over all the rest, so that what two processors wrote at once is seen to be nobody's. */
struct connection {
  struct flow_key flow;
  struct owner owner;
  u64 digest;
};

/* What a process ran, and where, when it first used a socket. */
struct program {
  u32 flags;
  u32 exe_bytes;
  u32 argv_bytes;
  u32 pid_depth;           /* PID namespaces from ours down to its; NOT_BELOW: it is not below ours */
  u32 mount_namespace;     /* an inode number, as in /proc/PID/ns */
  u32 zero;
  u64 legacy_cgroup;       /* in a cgroup v1 hierarchy; 0 without one */
  struct process_key step; /* the process that a CI runner started for this step of a job; zeros: none is known */
  char comm[16];
  char exe[EXE_BYTES + NAME_BYTES]; /* path components, leaf first, each ended by NUL */
  char argv[ARGV_BYTES];            /* as /proc/PID/cmdline */
};

/* What a step's first process was given, as it was before that process ran one instruction. */
struct surroundings {
  u32 flags;
  u32 argv_bytes;
  u32 environ_bytes;
  u32 zero;
  char text[SURROUNDINGS_BYTES]; /* arguments and, right behind them, environment, as in /proc/PID */
};
