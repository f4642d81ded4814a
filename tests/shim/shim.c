// Stands between a gateway and the kernel, by LD_PRELOAD. Two jobs:
//
// Record: with SHIM_LOG=FILE, what changes anything below SHIM_DIR is appended there in the order in which it took effect:
// opens that make or cut a file, writes with their bytes, truncations, renames, removals, directories, the begin and the end
// of each sync. So are the bytes that go out on sockets and to standard output, just before they do, so that answers have
// their place in the same order. A call that could change a file unseen (dup, link, a shared mapping, copy_file_range …) ends the process aloud.
//
// Fail: with SHIM_FAIL="KIND N ERRNO MODE" the N-th call of a kind on what lies below SHIM_DIR fails with that error, MODE
// `once` or `always` (from then on). ERRNO 0 is a short write: half of the bytes are written. ERRNO -1 is a sync that does
// nothing and says that it worked. ERRNO -2 is a read, a write or a sync that never returns. With SHIM_FAIL_IN=PART only calls whose
// path holds that part are counted, of those on open files; with SHIM_FAIL_WHEN=FILE only while that file is there.
//
// With SHIM_KILL=N the process gets SIGKILL right after the N-th record.
//
// A record is: kind u8, three zero bytes, fd i32, a u64, b u64, len u32, then len bytes; little-endian.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { START = 1, OPEN, CLOSE, WRITE, SYNC_BEGIN, SYNC_END, TRUNCATE, RENAME, UNLINK, MKDIR, RMDIR, SEND, FAILED, FAULT };
enum { K_OPEN, K_WRITE, K_SYNC, K_RENAME, K_UNLINK, K_TRUNCATE, K_MKDIR, K_READ, KINDS };

#define FDS 4096
#define MADE 1
#define CUT 2
#define EXPORT __attribute__((visibility("default")))

static const char *const kind_names[KINDS] = {"open", "write", "sync", "rename", "unlink", "truncate", "mkdir", "read"};
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *paths[FDS];
static char dir[4096];
static size_t dir_len;
static int log_fd = -1;
static uint64_t records, kill_at, tickets;
static int fail_kind = -1, fail_errno, fail_always, fired;
static uint64_t fail_at, calls[KINDS];
static const char *fail_in, *fail_when;

#define LIE (-1)
#define HANG (-2)

static void die(const char *what) {
    dprintf(2, "shim: %s\n", what);
    abort();
}

static void record(int kind, int fd, uint64_t a, uint64_t b, const void *data, size_t len) {
    if (log_fd < 0) return;
    struct __attribute__((packed)) { uint8_t kind, zero[3]; int32_t fd; uint64_t a, b; uint32_t len; } head =
        {kind, {0}, fd, a, b, len};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, len}};
    if (syscall(SYS_writev, log_fd, parts, len ? 2 : 1) != (long)(sizeof head + len)) die("the log can't be written");
    if (++records == kill_at) syscall(SYS_kill, getpid(), SIGKILL);
}

__attribute__((constructor)) static void begin(void) {
    const char *below = getenv("SHIM_DIR"), *log = getenv("SHIM_LOG"), *fail = getenv("SHIM_FAIL"), *kill = getenv("SHIM_KILL");
    if (!below) return;
    dir_len = strlen(strncpy(dir, below, sizeof dir - 1));
    if (kill) kill_at = strtoull(kill, NULL, 10);
    if (fail) {
        char kind[16], mode[16];
        if (sscanf(fail, "%15s %lu %d %15s", kind, &fail_at, &fail_errno, mode) != 4) die("SHIM_FAIL is not understood");
        for (int k = 0; k < KINDS; k++)
            if (!strcmp(kind, kind_names[k])) fail_kind = k;
        if (fail_kind < 0) die("SHIM_FAIL names no kind");
        fail_always = !strcmp(mode, "always");
        fail_in = getenv("SHIM_FAIL_IN");
        fail_when = getenv("SHIM_FAIL_WHEN");
    }
    if (log) {
        int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
        // Out of the way, so that the process's own numbers are as they would be.
        log_fd = fd < 0 ? -1 : syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 800);
        if (log_fd < 0) die("SHIM_LOG can't be opened");
        syscall(SYS_close, fd);
    }
    record(START, 0, getpid(), 0, NULL, 0);
}

static int is_below(const char *path) {
    return dir_len && !strncmp(path, dir, dir_len) && (path[dir_len] == '/' || !path[dir_len]);
}

// The absolute path, if it is below the directory; the caller's buffer holds it.
static const char *find(int at, const char *path, char *buffer) {
    if (path[0] == '/') return is_below(path) ? path : NULL;
    if (at < 0 || at >= FDS || !paths[at]) return NULL;
    snprintf(buffer, 4096, "%s/%s", paths[at], path);
    return buffer;
}

static int is_tracked(int fd) { return fd >= 0 && fd < FDS && paths[fd]; }

// Whether this call is to fail; then errno is set. Under the lock.
static int fails(int kind) {
    uint64_t n = ++calls[kind];
    if (kind != fail_kind || n < fail_at || (n > fail_at && !fail_always)) return 0;
    if (!fired) record(FAULT, 0, kind, n, NULL, 0);
    fired = 1;
    errno = fail_errno;
    return 1;
}

// The same of a call on an open file.
static int fails_on(int kind, int fd) {
    if (fail_in && !strstr(paths[fd], fail_in)) return 0;
    if (fail_when && syscall(SYS_faccessat, AT_FDCWD, fail_when, F_OK) != 0) return 0;
    return fails(kind);
}

// Under the lock, which is let go of.
static void hang(void) {
    pthread_mutex_unlock(&lock);
    for (;;) pause();
}

static long failed(int kind) {
    int saved = errno;
    record(FAILED, 0, kind, 0, NULL, 0);
    errno = saved;
    return -1;
}

static int do_open(int at, const char *path, int flags, mode_t mode) {
    char buffer[4096];
    pthread_mutex_lock(&lock);
    const char *full = find(at, path, buffer);
    long fd;
    if (!full) {
        fd = syscall(SYS_openat, at, path, flags, mode);
    } else if (fails(K_OPEN)) {
        fd = failed(K_OPEN);
    } else {
        int made = (flags & O_CREAT) && syscall(SYS_faccessat, at, path, F_OK) != 0;
        fd = syscall(SYS_openat, at, path, flags, mode);
        if (fd < 0) {
            failed(K_OPEN);
        } else {
            if (fd >= FDS) die("a descriptor is out of range");
            paths[fd] = strdup(full);
            record(OPEN, fd, (made ? MADE : 0) | (flags & O_TRUNC ? CUT : 0), flags, full, strlen(full));
        }
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPENAT(name) \
    EXPORT int name(int at, const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return do_open(at, path, flags, mode); \
    }
#define OPEN_(name) \
    EXPORT int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return do_open(AT_FDCWD, path, flags, mode); \
    }
OPENAT(openat) OPENAT(openat64) OPEN_(open) OPEN_(open64)
EXPORT int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
EXPORT int creat64(const char *path, mode_t mode) { return creat(path, mode); }

EXPORT int close(int fd) {
    pthread_mutex_lock(&lock);
    if (is_tracked(fd)) {
        record(CLOSE, fd, 0, 0, NULL, 0);
        free(paths[fd]);
        paths[fd] = NULL;
    }
    long done = syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return done;
}

// A directory that is read is closed inside the C library.
EXPORT int closedir(DIR *open) {
    static int (*real)(DIR *);
    pthread_mutex_lock(&lock);
    if (!real) real = (int (*)(DIR *))dlsym(RTLD_NEXT, "closedir");
    int fd = dirfd(open);
    if (is_tracked(fd)) {
        record(CLOSE, fd, 0, 0, NULL, 0);
        free(paths[fd]);
        paths[fd] = NULL;
    }
    int done = real(open);
    pthread_mutex_unlock(&lock);
    return done;
}

static int is_socket(int fd) {
    struct stat found;
    return log_fd >= 0 && fd > 2 && fstat(fd, &found) == 0 && S_ISSOCK(found.st_mode);
}

// What goes out on a socket or to standard output; recorded before it can be seen by anybody.
static void record_send(int fd, const struct iovec *parts, int count) {
    if (fd != STDOUT_FILENO && !is_socket(fd)) return;
    static char joined[1 << 20];
    size_t len = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < count; i++) {
        if (len + parts[i].iov_len > sizeof joined) die("a send is out of range");
        memcpy(joined + len, parts[i].iov_base, parts[i].iov_len);
        len += parts[i].iov_len;
    }
    record(SEND, fd, 0, 0, joined, len);
    pthread_mutex_unlock(&lock);
}

// A write to a tracked file; at -1 is where the file is. Under no lock yet.
static ssize_t do_write(int fd, const void *data, size_t len, off_t at) {
    pthread_mutex_lock(&lock);
    long done;
    int bad = fails_on(K_WRITE, fd);
    if (bad && fail_errno == HANG) hang();
    if (bad && fail_errno) {
        done = failed(K_WRITE);
    } else {
        if (bad && len > 1) len /= 2;
        off_t place = at;
        if (at < 0) {
            struct stat found;
            int append = syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND;
            place = append && fstat(fd, &found) == 0 ? found.st_size : lseek(fd, 0, SEEK_CUR);
        }
        done = at < 0 ? syscall(SYS_write, fd, data, len) : syscall(SYS_pwrite64, fd, data, len, at);
        if (done < 0) failed(K_WRITE);
        else record(WRITE, fd, place, 0, data, done);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static ssize_t do_writev(int fd, const struct iovec *parts, int count, off_t at) {
    // One part is a short write at worst, which every caller must know how to go on from.
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return do_write(fd, parts[i].iov_base, parts[i].iov_len, at);
    return 0;
}

EXPORT ssize_t write(int fd, const void *data, size_t len) {
    if (is_tracked(fd)) return do_write(fd, data, len, -1);
    struct iovec one = {(void *)data, len};
    record_send(fd, &one, 1);
    return syscall(SYS_write, fd, data, len);
}
EXPORT ssize_t pwrite64(int fd, const void *data, size_t len, off_t at) {
    return is_tracked(fd) ? do_write(fd, data, len, at) : syscall(SYS_pwrite64, fd, data, len, at);
}
EXPORT ssize_t pwrite(int fd, const void *data, size_t len, off_t at) { return pwrite64(fd, data, len, at); }
EXPORT ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (is_tracked(fd)) return do_writev(fd, parts, count, -1);
    record_send(fd, parts, count);
    return syscall(SYS_writev, fd, parts, count);
}
EXPORT ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) {
    return is_tracked(fd) ? do_writev(fd, parts, count, at) : syscall(SYS_pwritev, fd, parts, count, at, 0);
}
EXPORT ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }
EXPORT ssize_t sendto(int fd, const void *data, size_t len, int flags, const struct sockaddr *to, socklen_t to_len) {
    struct iovec one = {(void *)data, len};
    record_send(fd, &one, 1);
    return syscall(SYS_sendto, fd, data, len, flags, to, to_len);
}
EXPORT ssize_t send(int fd, const void *data, size_t len, int flags) { return sendto(fd, data, len, flags, NULL, 0); }
EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    record_send(fd, message->msg_iov, message->msg_iovlen);
    return syscall(SYS_sendmsg, fd, message, flags);
}

static ssize_t do_read(int fd) {
    pthread_mutex_lock(&lock);
    int bad = is_tracked(fd) && fails_on(K_READ, fd);
    if (bad && fail_errno == HANG) hang();
    long fine = bad ? failed(K_READ) : 0;
    pthread_mutex_unlock(&lock);
    return fine;
}
EXPORT ssize_t read(int fd, void *data, size_t len) { return do_read(fd) ? -1 : syscall(SYS_read, fd, data, len); }
EXPORT ssize_t pread64(int fd, void *data, size_t len, off_t at) {
    return do_read(fd) ? -1 : syscall(SYS_pread64, fd, data, len, at);
}
EXPORT ssize_t pread(int fd, void *data, size_t len, off_t at) { return pread64(fd, data, len, at); }

// The lock is not held while it syncs: what others write meanwhile is not known to be covered.
static int do_sync(int fd, long number) {
    if (!is_tracked(fd)) return syscall(number, fd);
    pthread_mutex_lock(&lock);
    if (fails_on(K_SYNC, fd)) {
        if (fail_errno == HANG) hang();
        int lies = fail_errno == LIE;
        if (!lies) failed(K_SYNC);
        pthread_mutex_unlock(&lock);
        return lies ? 0 : -1;
    }
    uint64_t ticket = ++tickets;
    record(SYNC_BEGIN, fd, ticket, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    long done = syscall(number, fd);
    int saved = errno;
    pthread_mutex_lock(&lock);
    record(SYNC_END, fd, ticket, done == 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = saved;
    return done;
}
EXPORT int fsync(int fd) { return do_sync(fd, SYS_fsync); }
EXPORT int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }

// It makes nothing durable, so that it is no record; but it can fail.
EXPORT int sync_file_range(int fd, off64_t at, off64_t len, unsigned flags) {
    if (is_tracked(fd)) {
        pthread_mutex_lock(&lock);
        int fault = fails_on(K_SYNC, fd);
        if (fault && fail_errno == HANG) hang();
        long bad = fault && fail_errno > 0 ? failed(K_SYNC) : 0;
        pthread_mutex_unlock(&lock);
        if (bad) return -1;
    }
    return syscall(SYS_sync_file_range, fd, at, len, flags);
}

// A call on one or two names: looked up, failed if asked to, made, recorded.
static int on_names(int kind, int what, long number, int at, const char *name, int to_at, const char *to, long last) {
    char one[4096], two[4096], both[8192];
    pthread_mutex_lock(&lock);
    const char *full = find(at, name, one), *to_full = to ? find(to_at, to, two) : NULL;
    long done;
    if (to && !full != !to_full) die("a rename crosses the edge of what is watched");
    if (full && fails(kind)) {
        done = failed(kind);
    } else {
        done = to ? syscall(number, at, name, to_at, to, last) : syscall(number, at, name, last);
        if (full && done < 0) {
            failed(kind);
        } else if (full) {
            int len = to ? snprintf(both, sizeof both, "%s%c%s", full, 0, to_full) : snprintf(both, sizeof both, "%s", full);
            record(what, 0, 0, 0, both, len);
        }
    }
    pthread_mutex_unlock(&lock);
    return done;
}
EXPORT int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags) {
    if (flags) die("a rename with flags is not understood");
    return on_names(K_RENAME, RENAME, SYS_renameat2, at, from, to_at, to, 0);
}
EXPORT int renameat(int at, const char *from, int to_at, const char *to) { return renameat2(at, from, to_at, to, 0); }
EXPORT int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
EXPORT int unlinkat(int at, const char *path, int flags) {
    return on_names(K_UNLINK, flags & AT_REMOVEDIR ? RMDIR : UNLINK, SYS_unlinkat, at, path, 0, NULL, flags);
}
EXPORT int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
EXPORT int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
EXPORT int mkdirat(int at, const char *path, mode_t mode) {
    return on_names(K_MKDIR, MKDIR, SYS_mkdirat, at, path, 0, NULL, mode);
}
EXPORT int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

EXPORT int ftruncate64(int fd, off_t len) {
    if (!is_tracked(fd)) return syscall(SYS_ftruncate, fd, len);
    pthread_mutex_lock(&lock);
    long done;
    if (fails(K_TRUNCATE)) {
        done = failed(K_TRUNCATE);
    } else {
        done = syscall(SYS_ftruncate, fd, len);
        if (done < 0) failed(K_TRUNCATE);
        else record(TRUNCATE, fd, len, 0, NULL, 0);
    }
    pthread_mutex_unlock(&lock);
    return done;
}
EXPORT int ftruncate(int fd, off_t len) { return ftruncate64(fd, len); }

// What could change a file unseen.
#define UNSEEN(tracked, name) if (tracked) die(name " is not watched")
EXPORT int dup(int fd) { UNSEEN(is_tracked(fd), "dup"); return syscall(SYS_dup, fd); }
EXPORT int dup2(int fd, int to) { UNSEEN(is_tracked(fd) || is_tracked(to), "dup2"); return syscall(SYS_dup3, fd, to, 0); }
#define FCNTL(name) \
    EXPORT int name(int fd, int command, ...) { \
        va_list rest; va_start(rest, command); \
        void *argument = va_arg(rest, void *); \
        va_end(rest); \
        UNSEEN(is_tracked(fd) && (command == F_DUPFD || command == F_DUPFD_CLOEXEC), "F_DUPFD"); \
        return syscall(SYS_fcntl, fd, command, argument); \
    }
FCNTL(fcntl) FCNTL(fcntl64)
EXPORT int fallocate64(int fd, int mode, off_t at, off_t len) {
    UNSEEN(is_tracked(fd), "fallocate");
    return syscall(SYS_fallocate, fd, mode, at, len);
}
EXPORT int fallocate(int fd, int mode, off_t at, off_t len) { return fallocate64(fd, mode, at, len); }
EXPORT int linkat(int at, const char *from, int to_at, const char *to, int flags) {
    char buffer[4096];
    UNSEEN(find(at, from, buffer) || find(to_at, to, buffer), "link");
    return syscall(SYS_linkat, at, from, to_at, to, flags);
}
EXPORT int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
EXPORT int truncate64(const char *path, off_t len) {
    UNSEEN(is_below(path), "truncate");
    return syscall(SYS_truncate, path, len);
}
EXPORT ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *to_at, size_t len, unsigned flags) {
    UNSEEN(is_tracked(to), "copy_file_range");
    return syscall(SYS_copy_file_range, from, at, to, to_at, len, flags);
}
EXPORT ssize_t sendfile64(int to, int from, off64_t *at, size_t count) {
    UNSEEN(is_tracked(to), "sendfile");
    return syscall(SYS_sendfile, to, from, at, count);
}
EXPORT void *mmap64(void *address, size_t len, int protection, int flags, int fd, off_t at) {
    UNSEEN(is_tracked(fd) && (flags & MAP_SHARED) && (protection & PROT_WRITE), "mmap");
    return (void *)syscall(SYS_mmap, address, len, protection, flags, fd, at);
}
EXPORT void *mmap(void *address, size_t len, int protection, int flags, int fd, off_t at) {
    return mmap64(address, len, protection, flags, fd, at);
}
