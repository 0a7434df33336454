// A disk that becomes full: preloaded into a program, it lets the first FULL_DISK_AFTER operations that need room in regular
// files pass and fails all later ones with ENOSPC.
//
//   cc -shared -fPIC -O1 -o full_disk.so full_disk.c -ldl
//   FULL_DISK_AFTER=17 LD_PRELOAD=./full_disk.so PROGRAM …
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long used;

// Whether an operation on `fd` finds no room.
static int is_full(int fd) {
    struct stat info;
    // What a program says may go into a file that is not on the full disk.
    if (fd <= 2) return 0;
    if (fstat(fd, &info) || !S_ISREG(info.st_mode)) return 0;
    const char *after = getenv("FULL_DISK_AFTER");
    if (!after || atomic_fetch_add(&used, 1) < atol(after)) return 0;
    errno = ENOSPC;
    return 1;
}

#define NEEDS_ROOM(result, name, parameters, arguments)                    \
    result name parameters {                                               \
        static result(*next) parameters;                                   \
        if (!next) next = (result(*) parameters)dlsym(RTLD_NEXT, #name);   \
        return is_full(fd) ? (result)-1 : next arguments;                  \
    }
// posix_fallocate returns the error instead of setting errno.
#define RETURNS_ERROR(name, parameters, arguments)                         \
    int name parameters {                                                  \
        static int(*next) parameters;                                      \
        if (!next) next = (int(*) parameters)dlsym(RTLD_NEXT, #name);      \
        return is_full(fd) ? ENOSPC : next arguments;                      \
    }

NEEDS_ROOM(ssize_t, write, (int fd, const void *data, size_t count), (fd, data, count))
NEEDS_ROOM(ssize_t, pwrite, (int fd, const void *data, size_t count, off_t at), (fd, data, count, at))
NEEDS_ROOM(ssize_t, pwrite64, (int fd, const void *data, size_t count, off64_t at), (fd, data, count, at))
NEEDS_ROOM(ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count))
NEEDS_ROOM(ssize_t, copy_file_range, (int from, off64_t *at, int fd, off64_t *to, size_t count, unsigned flags),
           (from, at, fd, to, count, flags))
NEEDS_ROOM(ssize_t, sendfile64, (int fd, int from, off64_t *at, size_t count), (fd, from, at, count))
NEEDS_ROOM(int, fsync, (int fd), (fd))
NEEDS_ROOM(int, fdatasync, (int fd), (fd))
RETURNS_ERROR(posix_fallocate, (int fd, off_t at, off_t count), (fd, at, count))
RETURNS_ERROR(posix_fallocate64, (int fd, off64_t at, off64_t count), (fd, at, count))
