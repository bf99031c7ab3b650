/* A thread pool whose workers join a call without the interpreter.
 *
 * Waking a thread that sleeps in a queue or waits for the GIL takes about 50 us, as long as a whole small layer takes.
 * So workers spin for a moment after each call. A call publishes its work in a shared slot, the broadcast slot, which
 * workers watch. Workers that arrive in time join the call, and the call waits for these only. One call at a time owns
 * the slot; a call that finds it taken runs on its own thread only. */
#ifndef FASTCONV_TEAM_H
#define FASTCONV_TEAM_H

#include <stddef.h>

#if defined(_MSC_VER)
#include <intrin.h>
#endif
#if defined(_WIN32)
__declspec(dllimport) void __stdcall Sleep(unsigned long milliseconds);
__declspec(dllimport) unsigned long long __stdcall GetTickCount64(void);
#else
#include <time.h>
#endif
#if defined(__linux__)
/* musl does not ship the kernel's headers. The two numbers are part of the kernel's interface and never change. */
#if defined(__has_include)
#if __has_include(<linux/futex.h>)
#include <linux/futex.h>
#endif
#endif
#if !defined(FUTEX_WAIT_PRIVATE)
#define FUTEX_WAIT_PRIVATE 128
#define FUTEX_WAKE_PRIVATE 129
#endif
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef void (*fc_work)(void *task);

/* The shared state of a call (see _threads.share), one word each: chunks taken so far, threads that joined, workers
 * wanted, the address of a broadcast slot, items per chunk, and chunks taken from the end. Then, for signals: the
 * address of an fc_poll or 0, the time of the next check, the thread that called, whether the call has to stop, and the
 * milliseconds between checks. */
enum {
    FC_DRAWN,
    FC_THREADS,
    FC_WANTED,
    FC_GATE,
    FC_GRAIN,
    FC_FROM_END,
    FC_POLL,
    FC_DUE,
    FC_CALLER,
    FC_STOP,
    FC_PERIOD,
    FC_WORDS
};

/* Returns whether a signal handler raised, so that the call has to stop. The calling thread then has an exception
 * set. */
typedef int (*fc_poll)(ptrdiff_t *words);

/* The words of a broadcast slot. FC_OPEN is the number of workers that joined the call that owns the slot, or FC_SHUT
 * if no call is open. FC_SEATS is the number of workers that the call wants. A change of FC_AWAY ends fc_help. FC_BELL
 * is the futex that wakes workers. FC_WAITING says whether the caller sleeps until its workers have finished, FC_CHIME
 * is the futex that wakes the caller, and FC_NAPS counts how often it slept. */
enum {
    FC_OPEN,
    FC_TAKEN,
    FC_CALL,
    FC_WORK,
    FC_TASK,
    FC_SEATS,
    FC_FINISHED,
    FC_AWAY,
    FC_ASLEEP,
    FC_BELL,
    FC_WAITING,
    FC_CHIME,
    FC_NAPS,
    FC_GATE_WORDS
};
enum { FC_SHUT = -1 };

#if defined(_MSC_VER) && !defined(__clang__)
#if defined(_WIN64)
#define fc_cas(word, old, new) (_InterlockedCompareExchange64((volatile __int64 *)(word), (new), (old)) == (old))
#define fc_add(word, n) _InterlockedExchangeAdd64((volatile __int64 *)(word), (n))
#define fc_swap(word, n) _InterlockedExchange64((volatile __int64 *)(word), (n))
#else
#define fc_cas(word, old, new) (_InterlockedCompareExchange((volatile long *)(word), (new), (old)) == (old))
#define fc_add(word, n) _InterlockedExchangeAdd((volatile long *)(word), (n))
#define fc_swap(word, n) _InterlockedExchange((volatile long *)(word), (n))
#endif
#if defined(_M_ARM64) || defined(_M_ARM)
#error "MSVC does not order what follows a volatile read on ARM: compile with clang-cl there"
#endif
#define fc_peek(word) (*(const volatile ptrdiff_t *)(word))
#define fc_pause() _mm_pause()
#else
static inline int fc_cas(ptrdiff_t *word, ptrdiff_t old, ptrdiff_t new_)
{
    return __atomic_compare_exchange_n(word, &old, new_, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
#define fc_add(word, n) __atomic_fetch_add((word), (n), __ATOMIC_SEQ_CST)
#define fc_swap(word, n) __atomic_exchange_n((word), (n), __ATOMIC_SEQ_CST)
#define fc_peek(word) __atomic_load_n((word), __ATOMIC_SEQ_CST)
#if defined(__x86_64__) || defined(__i386__)
#define fc_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define fc_pause() __asm__ __volatile__("yield")
#else
#define fc_pause() ((void)0)
#endif
#endif

/* After some time without a call, workers sleep at a futex of the broadcast slot, if the system has futexes. The futex
 * wakes them without the interpreter. A worker that misses one call sleeps until the next. That is harmless, because no
 * call waits for a worker that has not joined it. */
#if defined(__linux__) && defined(SYS_futex)
enum { FC_BELLS = 1 };

/* Wake up to `sleepers` threads that sleep at the futex `bell`. */
static inline void fc_ring(ptrdiff_t *bell, ptrdiff_t sleepers)
{
    __atomic_fetch_add((uint32_t *)bell, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, (uint32_t *)bell, FUTEX_WAKE_PRIVATE, (int)sleepers, NULL, NULL, 0);
}

/* Sleep until the futex `bell` wakes this thread. Return at once if its counter is no longer `heard`. */
static inline void fc_sleep(ptrdiff_t *bell, uint32_t heard)
{
    syscall(SYS_futex, (uint32_t *)bell, FUTEX_WAIT_PRIVATE, heard, NULL, NULL, 0);
}

static inline uint32_t fc_listen(ptrdiff_t *bell)
{
    return __atomic_load_n((uint32_t *)bell, __ATOMIC_SEQ_CST);
}
#else
enum { FC_BELLS = 0 };
#define fc_ring(bell, sleepers) ((void)0)
#define fc_listen(bell) 0u

/* Sleep for a moment. Yielding the CPU is not enough, because a thread of higher priority would get it back at once. */
static inline void fc_sleep(ptrdiff_t *bell, unsigned heard)
{
    (void)bell, (void)heard;
#if defined(_WIN32)
    Sleep(1);
#else
    {
        const struct timespec moment = {0, 50000};
        nanosleep(&moment, NULL);
    }
#endif
}
#endif

/* Set the shared state of a call without workers. One chunk holds all items, or nearly all. */
static inline void fc_alone(ptrdiff_t *words)
{
    int i;
    for (i = 0; i < FC_WORDS; i++)
        words[i] = 0;
    words[FC_GRAIN] = 1 << 16;
}

/* Return milliseconds of a monotonic clock. Reading it takes less time than taking a chunk. */
static inline size_t fc_milliseconds(void)
{
#if defined(_WIN32)
    return (size_t)GetTickCount64();
#else
    struct timespec now;
#if defined(CLOCK_MONOTONIC_COARSE)
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (size_t)now.tv_sec * 1000 + (size_t)now.tv_nsec / 1000000;
#endif
}

/* Return whether the threads of a call have to stop and leave their chunks unfinished. It is called for every chunk,
 * and in the middle loops of kernels whose chunks may take more than 50 ms. */
static inline int fc_stopped(ptrdiff_t *words)
{
    if (words[FC_POLL] == 0)
        return 0;
    if (fc_peek(&words[FC_STOP]))
        return 1;
    if (!((fc_poll)words[FC_POLL])(words))
        return 0;
    fc_swap(&words[FC_STOP], 1);
    return 1;
}

/* How often a caller checks for workers that are still running before it sleeps: about 300 us. */
enum { FC_SPINS = 10000 };

/* Wait until all workers that joined have finished. After a while the caller sleeps, because a caller with a higher
 * priority that shares a CPU with a worker would otherwise keep the worker from finishing. */
static inline void fc_await(ptrdiff_t *gate, ptrdiff_t joined)
{
    int turn;
    for (turn = 0; turn < FC_SPINS; turn++) {
        if (fc_peek(&gate[FC_FINISHED]) >= joined)
            return;
        fc_pause();
    }
    fc_swap(&gate[FC_WAITING], 1);
    for (;;) {
        const unsigned heard = (unsigned)fc_listen(&gate[FC_CHIME]);
        if (fc_peek(&gate[FC_FINISHED]) >= joined)
            break;
        fc_add(&gate[FC_NAPS], 1);
        fc_sleep(&gate[FC_CHIME], heard);
    }
    fc_swap(&gate[FC_WAITING], 0);
}

/* Run work(task) in this thread and in the workers that join, and return when all of them have finished. Returns -1
 * with an exception set if a signal handler raised; the results of the work are then undefined. */
static inline int fc_share(ptrdiff_t *words, fc_work work, void *task)
{
    ptrdiff_t *gate = (ptrdiff_t *)words[FC_GATE];
    if (gate == NULL || !fc_cas(&gate[FC_TAKEN], 0, 1)) {
        work(task);
    } else {
        gate[FC_WORK] = (ptrdiff_t)work;
        gate[FC_TASK] = (ptrdiff_t)task;
        /* Workers may read these words while the slot is shut, so they are written atomically. */
        fc_swap(&gate[FC_SEATS], words[FC_WANTED]);
        fc_swap(&gate[FC_FINISHED], 0);
        fc_add(&gate[FC_CALL], 1);
        fc_swap(&gate[FC_OPEN], 0);
        if (fc_peek(&gate[FC_ASLEEP]) > 0)
            fc_ring(&gate[FC_BELL], words[FC_WANTED]);
        work(task);
        fc_await(gate, fc_swap(&gate[FC_OPEN], FC_SHUT));
        fc_swap(&gate[FC_TAKEN], 0);
    }
    return fc_peek(&words[FC_STOP]) ? -1 : 0;
}

/* Join the call that owns the broadcast slot, unless its number is `last`. Returns whether this worker joined. */
static inline int fc_join(ptrdiff_t *gate, ptrdiff_t *last)
{
    const ptrdiff_t open = fc_peek(&gate[FC_OPEN]);
    /* A worker joins a call only once. A second time it would find no chunks left, but would take another workspace. */
    if (open < 0 || fc_peek(&gate[FC_CALL]) == *last || open >= fc_peek(&gate[FC_SEATS]) ||
        !fc_cas(&gate[FC_OPEN], open, open + 1))
        return 0;
    /* From here on the call cannot end before this worker, so its task stays valid. It may be a later call than the one
     * checked above, and may want fewer workers. */
    *last = fc_peek(&gate[FC_CALL]);
    if (open < fc_peek(&gate[FC_SEATS]))
        ((fc_work)gate[FC_WORK])((void *)gate[FC_TASK]);
    fc_add(&gate[FC_FINISHED], 1);
    if (fc_peek(&gate[FC_WAITING]))
        fc_ring(&gate[FC_CHIME], 1);
    return 1;
}

/* Join every call that opens the broadcast slot, until FC_AWAY changes. After `turns` checks without a call the worker
 * sleeps, or returns if there is no futex. */
static inline void fc_help(ptrdiff_t *gate, ptrdiff_t turns)
{
    ptrdiff_t turn = 0, last = -1;
    const ptrdiff_t away = fc_peek(&gate[FC_AWAY]);
    while (fc_peek(&gate[FC_AWAY]) == away) {
        turn = fc_join(gate, &last) ? 0 : turn + 1;
        fc_pause();
        if (turn >= turns) {
            const unsigned heard = (unsigned)fc_listen(&gate[FC_BELL]);
            if (!FC_BELLS)
                return;
            fc_add(&gate[FC_ASLEEP], 1);
            if (!fc_join(gate, &last) && fc_peek(&gate[FC_AWAY]) == away)
                fc_sleep(&gate[FC_BELL], heard);
            fc_add(&gate[FC_ASLEEP], -1);
            turn = 0;
        }
    }
}

/* One thread of a call: its number, and how many chunks it took from the front. */
typedef struct {
    ptrdiff_t slot, drew;
} fc_member;

static inline fc_member fc_enrol(ptrdiff_t *words)
{
    fc_member member;
    member.slot = fc_add(&words[FC_THREADS], 1);
    member.drew = 0;
    return member;
}

/* Return the first item of the next chunk of words[FC_GRAIN] of `total` items, or `total` if no chunk is left or the
 * call has to stop. One thread takes chunks from the front and the others from the end, so that in successive calls
 * each thread finds the same data in its cache. */
static inline ptrdiff_t fc_next(ptrdiff_t *words, fc_member *member, ptrdiff_t total)
{
    const ptrdiff_t grain = words[FC_GRAIN], draws = (total + grain - 1) / grain;
    if (fc_add(&words[FC_DRAWN], 1) >= draws || fc_stopped(words))
        return total;
    return (member->slot == 0 ? member->drew++ : draws - 1 - fc_add(&words[FC_FROM_END], 1)) * grain;
}

/* Return the next of `total` items, from the front, or at least `total` if none is left or the call has to stop. */
static inline ptrdiff_t fc_take(ptrdiff_t *words, ptrdiff_t total)
{
    const ptrdiff_t piece = fc_add(&words[FC_DRAWN], 1);
    return piece < total && fc_stopped(words) ? total : piece;
}

#endif /* FASTCONV_TEAM_H */
