/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * Steps of a CI job: what a runner's worker starts, and all that comes of it.
 *
 * Law: follows processes; no socket is looked at here.
 */
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
