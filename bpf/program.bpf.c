/* SPDX-License-Identifier: (Apache-2.0 OR GPL-2.0-only)
 *
 * What a process runs, and where.
 *
 * Law: written by the process itself, once for each program that it runs.
 */
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
