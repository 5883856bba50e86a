/* What a call costs on each of several sides: calls HOST PORT sendto|connect COUNT ROUNDS [CGROUP NETWORK]...
 *
 * Law: one process, which moves from one cgroup and network namespace to the next and makes the same COUNT calls in each,
 * ROUNDS times, so that a busy moment of the machine meets all of them. Prints a line a round: microseconds a call, one
 * number a side. A socket counts for the cgroup that it was made in. With no sides it stays where it is.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
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

static void enter(const char *network) {
  int netns = open(network, O_RDONLY);

  if (netns < 0 || setns(netns, CLONE_NEWNET) < 0)
    fail(network);
  close(netns);
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
  int calls, rounds, named = (count - 6) / 2, sides = named ? named : 1;

  if (count < 6 || count % 2 || sides > 8)
    return 2;
  to.sin_family = AF_INET;
  to.sin_port = htons(atoi(words[2]));
  if (inet_pton(AF_INET, words[1], &to.sin_addr) != 1)
    return 2;
  calls = atoi(words[4]);
  rounds = atoi(words[5]);
  for (int round = 0; round < rounds; round++) {
    double spent[8];
    for (int turn = 0; turn < sides; turn++) {
      int side = (turn + round) % sides;
      if (named) {
        join(words[6 + 2 * side]);
        enter(words[7 + 2 * side]);
      }
      spent[side] = strcmp(words[3], "sendto") == 0 ? send_all(calls) : connect_all(calls);
    }
    for (int side = 0; side < sides; side++)
      printf("%f%c", spent[side] / calls, side + 1 < sides ? ' ' : '\n');
  }
  return 0;
}
