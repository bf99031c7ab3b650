/* Functions that allocate pages of memory, free them, and allow the system to reclaim them. FC_MAPS is 1 if the
 * functions are implemented on this system. */
#ifndef FASTCONV_BUFFERS_H
#define FASTCONV_BUFFERS_H

#include <stddef.h>

#if defined(__linux__)

#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define FC_MAPS 1

#ifndef MADV_FREE
#define MADV_FREE 8
#endif
#ifndef MADV_HUGEPAGE
#define MADV_HUGEPAGE 14
#endif

/* Return zeroed memory, or NULL if no memory is left. `large` requests huge pages. Systems without huge pages ignore
 * `large`. */
static inline char *fc_map(size_t nbytes, int large) {
    void *at = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    if (large)
        (void)madvise(at, nbytes, MADV_HUGEPAGE);
    return (char *)at;
}

static inline void fc_unmap(char *at, size_t nbytes) { (void)munmap(at, nbytes); }

/* Allow the system to reclaim the pages when memory runs short. Return 0 if the system does not support this. */
static inline int fc_offer(char *at, size_t nbytes) { return madvise(at, nbytes, MADV_FREE) == 0; }

/* Return whether the process has an address limit, RLIMIT_AS (ulimit -v) or RLIMIT_DATA (ulimit -d). */
static inline int fc_limited(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        return 1;
    return getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

/* Return unused memory of the allocator to the system, if the allocator supports this. */
static inline void fc_trim(void) {
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

#else

#define FC_MAPS 0

static inline char *fc_map(size_t nbytes, int large) {
    (void)nbytes, (void)large;
    return NULL;
}
static inline void fc_unmap(char *at, size_t nbytes) { (void)at, (void)nbytes; }
static inline int fc_offer(char *at, size_t nbytes) {
    (void)at, (void)nbytes;
    return 0;
}
static inline int fc_limited(void) { return 0; }
static inline void fc_trim(void) {}

#endif
#endif
