/* Faults in the system calls of one process, preloaded before libc: at the n-th call that concerns a file
   whose path holds a certain word, the process is killed, killed in the middle of a write, or the call fails.
   tests/campaigns/faults.py compiles this file and speaks to it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, CUTS = 4, OPENS = 8 };           /* kinds of calls */
enum { KILL = 1, TEAR = 2, FAIL = 3, BREAK = 4, SHORTEN = 5 }; /* what happens to them */

static atomic_long seen;
static long at;
static atomic_int armed;
static int kinds, action, error_number;
static char part[256];

void faults_arm(const char *name, int which, long nth, int what, int error) {
    armed = 0;
    snprintf(part, sizeof part, "%s", name);
    kinds = which, at = nth, action = what, error_number = error, seen = 0;
    armed = 1;
}

void faults_disarm(void) { armed = 0; }
long faults_seen(void) { return seen; }

static int strikes(int kind) { /* the action, if this call is the one */
    long mine = ++seen;
    if (mine == at || (action == BREAK && at && mine > at)) {
        if (action == KILL) raise(SIGKILL);
        (void)kind;
        return action;
    }
    return 0;
}

static int on_fd(int kind, int fd) {
    if (!armed || !(kinds & kind)) return 0;
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return strstr(path, part) ? strikes(kind) : 0;
}

static int on_path(const char *path) {
    return armed && (kinds & OPENS) && path && strstr(path, part) ? strikes(OPENS) : 0;
}

#define NEXT(name) static __typeof__(&name) next; if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAILS(struck) ((struck) == FAIL || (struck) == BREAK)

#define WRITE(name, call, half)                                        \
    int struck = on_fd(WRITES, fd);                                    \
    if (FAILS(struck)) { errno = error_number; return -1; }            \
    if (struck == TEAR) { (void)!(half); raise(SIGKILL); }             \
    if (struck == SHORTEN && size > 1) return half;                    \
    return call;

ssize_t write(int fd, const void *data, size_t size) {
    NEXT(write);
    WRITE(write, next(fd, data, size), next(fd, data, size / 2))
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t where) {
    NEXT(pwrite);
    WRITE(pwrite, next(fd, data, size, where), next(fd, data, size / 2, where))
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t where) {
    NEXT(pwrite64);
    WRITE(pwrite64, next(fd, data, size, where), next(fd, data, size / 2, where))
}

#define SIMPLE(name, kind, declared, passed)                           \
    int name declared {                                                \
        NEXT(name);                                                    \
        if (FAILS(on_fd(kind, fd))) { errno = error_number; return -1; } \
        return next passed;                                            \
    }
SIMPLE(fsync, SYNCS, (int fd), (fd))
SIMPLE(fdatasync, SYNCS, (int fd), (fd))
SIMPLE(ftruncate, CUTS, (int fd, off_t size), (fd, size))
SIMPLE(ftruncate64, CUTS, (int fd, off64_t size), (fd, size))

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...) {                       \
        NEXT(name);                                                    \
        va_list more;                                                  \
        va_start(more, flags);                                         \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more);                                                  \
        if (FAILS(on_path(path))) { errno = error_number; return -1; } \
        return next(path, flags, mode);                                \
    }
OPEN(open)
OPEN(open64)
