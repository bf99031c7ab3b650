/* Functions that allocate and free pages of memory, and let the operating system reclaim them. FC_MAPS is 1 if they are
 * implemented for this operating system. */
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

/* Return zeroed memory, or NULL if no memory is left. If `large` is set, request huge pages. Operating systems without
 * huge pages ignore this request. */
static inline char *fc_map(size_t nbytes, int large)
{
    void *at = mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED)
        return NULL;
    if (large)
        (void)madvise(at, nbytes, MADV_HUGEPAGE);
    return (char *)at;
}

static inline void fc_unmap(char *at, size_t nbytes) { (void)munmap(at, nbytes); }

/* Allow the operating system to reclaim the pages when memory runs short. Return 0 if the operating system does not
 * support this. */
static inline int fc_offer(char *at, size_t nbytes) { return madvise(at, nbytes, MADV_FREE) == 0; }

/* Return whether RLIMIT_AS (ulimit -v) or RLIMIT_DATA (ulimit -d) limits the memory of this process. */
static inline int fc_limited(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        return 1;
    return getrlimit(RLIMIT_DATA, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

/* Return free memory of malloc to the operating system. Do nothing if the C library is not glibc. */
static inline void fc_trim(void)
{
#ifdef __GLIBC__
    (void)malloc_trim(0);
#endif
}

#else

#define FC_MAPS 0

static inline char *fc_map(size_t nbytes, int large)
{
    (void)nbytes, (void)large;
    return NULL;
}
static inline void fc_unmap(char *at, size_t nbytes) { (void)at, (void)nbytes; }
static inline int fc_offer(char *at, size_t nbytes)
{
    (void)at, (void)nbytes;
    return 0;
}
static inline int fc_limited(void) { return 0; }
static inline void fc_trim(void) {}

#endif
#endif
