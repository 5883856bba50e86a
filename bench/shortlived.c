/* Processes that connect and exit at once: shortlived HOST PORT COUNT A_SECOND
 *
 * Law: starts COUNT children, A_SECOND of them each second, by vfork(2), with as many as are alive at once. Each makes
 * one non-blocking TCP connect and exits; a line `PID ADDRESS PORT` says which flow was whose.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in to, own;

static double now(void) {
  struct timespec time;

  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

int main(int count, char **words) {
  int processes;
  double rate, started;

  if (count != 5 || inet_pton(AF_INET, words[1], &to.sin_addr) != 1)
    return 2;
  to.sin_family = AF_INET;
  to.sin_port = htons(atoi(words[2]));
  processes = atoi(words[3]);
  rate = atof(words[4]);
  setvbuf(stdout, NULL, _IOLBF, 1 << 16); /* read as they come, as packets are */
  started = now();
  for (int i = 0; i < processes; i++) {
    while (now() - started < i / rate)
      usleep(200);
    pid_t child = vfork(); /* the child borrows our memory: what it writes into `own` is ours to print */
    if (child == 0) {
      socklen_t length = sizeof(own);
      int tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
      if (connect(tcp, (struct sockaddr *)&to, sizeof(to)) < 0 && errno != EINPROGRESS)
        _exit(1);
      getsockname(tcp, (struct sockaddr *)&own, &length);
      _exit(0);
    }
    printf("%d %s %d\n", child, inet_ntoa(own.sin_addr), ntohs(own.sin_port));
    waitpid(child, NULL, 0);
  }
  printf("done %f 0\n", processes / (now() - started));
  return 0;
}
