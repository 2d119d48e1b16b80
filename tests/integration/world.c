/* What a daemon believes of the world, under a test's control: its wall clock, and what a name resolves to.
   Loaded before the C library. Both are read anew each time, so that they change while the daemon runs. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* A file of the directory in WORLD, mapped: 8 bytes with the clock's offset in seconds, or an address as text. */
static void *mapped(const char *name, size_t length) {
    char path[4096];
    const char *directory = getenv("WORLD");
    if (!directory || strlen(directory) + strlen(name) + 2 > sizeof path) return NULL;
    strcpy(path, directory);
    strcat(path, "/");
    strcat(path, name);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return NULL;
    void *bytes = mmap(NULL, length, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    return bytes == MAP_FAILED ? NULL : bytes;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    static volatile const long *offset;
    if (!real) {
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
        offset = mapped("clock", sizeof *offset);
    }
    int result = real(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME && offset) time->tv_sec += *offset;
    return result;
}

int getaddrinfo(const char *host, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    if (!real) {
        real = (int (*)(const char *, const char *, const struct addrinfo *, struct addrinfo **))dlsym(
            RTLD_NEXT, "getaddrinfo");
    }
    if (!host || strcmp(host, "seed.test") != 0) return real(host, service, hints, found);
    char *address = mapped("seed.test", 64);
    if (!address) return EAI_NONAME;
    int result = *address ? real(address, service, hints, found) : EAI_NONAME;
    munmap(address, 64);
    return result;
}
