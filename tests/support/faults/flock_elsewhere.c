/* flock as on other file systems; LD_PRELOAD loads it before the C library's own.
 * Each call fails with the error number FLOCK_ERRNO. Without that variable it behaves as on NFS: an exclusive lock
 * needs a file that is open for writing. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

int flock(int descriptor, int operation) {
  const char *asked = getenv("FLOCK_ERRNO");
  int is_read_only = (fcntl(descriptor, F_GETFL) & O_ACCMODE) == O_RDONLY;
  if (asked || ((operation & LOCK_EX) && is_read_only)) {
    errno = asked ? atoi(asked) : EBADF;
    return -1;
  }
  return (int)syscall(SYS_flock, descriptor, operation);
}
