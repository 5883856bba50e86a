/* Connections one after the other, each by a program of its own: apart NAME PORT COUNT
 *
 * Law: what a build does, without its work: starts itself again for each connection, waits until that one has connected
 * and exited, and prints {"p50": us that connect(2) took, "rate": connections a second}.
 */
#include <arpa/inet.h>
#include <netdb.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WARM_UP = 20, MOST = 100000 };

static double took[MOST];

static double now(void) {
  struct timespec time;

  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec / 1e9;
}

/* The other program: its exit status says whether it connected, its standard output how long that took. */
static int connects(const char *address, const char *port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
  struct linger reset_on_close = {1, 0};
  int tcp = socket(AF_INET, SOCK_STREAM, 0);
  double began, seconds;

  setsockopt(tcp, SOL_SOCKET, SO_LINGER, &reset_on_close, sizeof(reset_on_close));
  inet_pton(AF_INET, address, &to.sin_addr);
  began = now();
  if (connect(tcp, (struct sockaddr *)&to, sizeof(to)) < 0)
    return 1;
  seconds = now() - began;
  return write(STDOUT_FILENO, &seconds, sizeof(seconds)) != sizeof(seconds);
}

static int ascending(const void *one, const void *other) {
  double difference = *(const double *)one - *(const double *)other;

  return (difference > 0) - (difference < 0);
}

int main(int count, char **words) {
  char address[INET_ADDRSTRLEN], *again[] = {"/proc/self/exe", address, words[2], NULL};
  struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
  posix_spawn_file_actions_t files;
  int pipes[2], many, status;
  double began = 0;
  pid_t child;

  if (count == 3)
    return connects(words[1], words[2]);
  if (count != 4 || (many = atoi(words[3])) < 1 || many > MOST)
    return 2;
  if (getaddrinfo(words[1], words[2], &hints, &found) || pipe(pipes))
    return 1;
  inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, address, sizeof(address));
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, pipes[1], STDOUT_FILENO);
  for (int i = -WARM_UP; i < many; i++) {
    if (i == 0)
      began = now();
    if (posix_spawn(&child, again[0], &files, NULL, again, NULL) || waitpid(child, &status, 0) != child || status)
      return 1;
    if (read(pipes[0], &took[i < 0 ? 0 : i], sizeof(*took)) != sizeof(*took))
      return 1;
  }
  began = now() - began;
  qsort(took, many, sizeof(*took), ascending);
  printf("{\"p50\": %f, \"rate\": %f}\n", took[many / 2] * 1e6, many / began);
  return 0;
}
