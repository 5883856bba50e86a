/* What a call costs in each of several cgroups: calls HOST PORT sendto|connect COUNT ROUNDS CGROUP...
 *
 * Law: one process, which moves from one cgroup to the next and makes the same COUNT calls in each, ROUNDS times, so that
 * a busy moment of the machine meets all of them. Prints a line a round: microseconds a call, one number a cgroup. A
 * socket counts for the cgroup that it was made in.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in to;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static double now(void) {
  struct timespec time;

  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static void join(const char *cgroup) {
  char path[4096], pid[16];
  int length = snprintf(pid, sizeof(pid), "%d", getpid()), procs;

  snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
  procs = open(path, O_WRONLY);
  if (procs < 0 || write(procs, pid, length) != length)
    fail(path);
  close(procs);
}

static double send_all(int count) {
  int udp = socket(AF_INET, SOCK_DGRAM, 0);
  double started;

  if (sendto(udp, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)) != 1)
    fail("sendto");
  started = now();
  for (int i = 0; i < count; i++)
    sendto(udp, "x", 1, 0, (struct sockaddr *)&to, sizeof(to));
  started = now() - started;
  close(udp);
  return started;
}

/* To a closed port: the far kernel answers, and no server's pace is measured. Only connect() itself is. */
static double connect_all(int count) {
  struct linger reset = {1, 0};
  double spent = 0, started;

  for (int i = 0; i < count; i++) {
    int tcp = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(tcp, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    started = now();
    if (connect(tcp, (struct sockaddr *)&to, sizeof(to)) == 0 || errno != ECONNREFUSED)
      fail("connect");
    spent += now() - started;
    close(tcp);
  }
  return spent;
}

int main(int count, char **words) {
  int calls, rounds, groups = count - 6;

  if (groups < 1)
    return 2;
  to.sin_family = AF_INET;
  to.sin_port = htons(atoi(words[2]));
  if (inet_pton(AF_INET, words[1], &to.sin_addr) != 1)
    return 2;
  calls = atoi(words[4]);
  rounds = atoi(words[5]);
  for (int round = 0; round < rounds; round++) {
    double spent[8];
    for (int turn = 0; turn < groups; turn++) {
      int group = (turn + round) % groups;
      join(words[6 + group]);
      spent[group] = strcmp(words[3], "sendto") == 0 ? send_all(calls) : connect_all(calls);
    }
    for (int group = 0; group < groups; group++)
      printf("%f%c", spent[group] / calls, group + 1 < groups ? ' ' : '\n');
  }
  return 0;
}
