/* A file system that hangs for as long as a file is there, as a hard NFS mount does: calls wait, and can be killed.
 *
 * Preloaded into the supervisor. Below $HANG_BELOW every call that changes something waits while $HANG_WHILE exists;
 * what the ranks print (logs/) is left alone.
 *
 * cc -shared -fPIC -o hanging.so hanging.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static void wait_for(const char *path)
{
    const char *below = getenv("HANG_BELOW"), *until = getenv("HANG_WHILE");
    if (!below || !until || !path || strncmp(path, below, strlen(below)) || strstr(path, "/logs/"))
        return;
    while (access(until, F_OK) == 0)
        usleep(20000);
}

static void wait_for_fd(int fd)
{
    char link[64], path[PATH_MAX];
    const char *until = getenv("HANG_WHILE");
    if (!until || access(until, F_OK) != 0)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 0) {
        path[length] = 0;
        wait_for(path);
    }
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    mode_t mode = va_arg(more, mode_t);
    va_end(more);
    REAL(open64);
    if (flags & (O_WRONLY | O_RDWR))
        wait_for(path);
    return real(path, flags, mode);
}

int mkdir(const char *path, mode_t mode) { REAL(mkdir); wait_for(path); return real(path, mode); }

int rename(const char *from, const char *to) { REAL(rename); wait_for(to); return real(from, to); }

int fsync(int fd) { REAL(fsync); wait_for_fd(fd); return real(fd); }

ssize_t write(int fd, const void *data, size_t size) { REAL(write); wait_for_fd(fd); return real(fd, data, size); }
