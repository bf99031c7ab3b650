/* A thread pool whose workers can join a call without taking the GIL.
 *
 * Waking a thread that sleeps in a Python queue or waits for the GIL takes about 50 us, as long as a whole small layer.
 * So workers spin for a moment after each call, and check the broadcast slot, a struct that all threads share. A call
 * of fc_parallel_for publishes its work in the slot. A worker that sees the work in time joins the call, and is then a
 * helper of the call. The call waits only for its helpers. Only one call at a time owns the slot. Other calls at the
 * same time run on their calling threads only. */
#ifndef FASTCONV_TEAM_H
#define FASTCONV_TEAM_H

#include <stddef.h>
#include <string.h>

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
/* musl does not ship the header of the Linux kernel. These two numbers are part of the system call interface and never
 * change. */
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

typedef void (*fc_task_function)(void *task);

/* The broadcast slot: the work that a call publishes, and the state of its helpers. */
typedef struct {
    /* the number of helpers that have joined the current call; FC_CLOSED if no call accepts helpers */
    ptrdiff_t joined;
    ptrdiff_t taken;          /* whether a call owns the slot */
    ptrdiff_t call;           /* the number of the call, so that a worker does not join the same call twice */
    ptrdiff_t work, task;     /* the function that the threads of the call run, and its argument */
    ptrdiff_t helpers_wanted; /* the largest number of helpers that may join */
    ptrdiff_t finished;       /* the number of helpers that have finished their work */
    ptrdiff_t dismissals;     /* a counter; when it changes, workers return from fc_run_helper */
    ptrdiff_t sleeping;       /* the number of workers that sleep or are about to sleep */
    ptrdiff_t wake_event;     /* the futex that wakes workers */
    ptrdiff_t caller_waits;   /* whether the calling thread sleeps until its helpers have finished */
    ptrdiff_t done_event;     /* the futex that wakes the calling thread */
    ptrdiff_t times_waited;   /* the number of times that a calling thread slept */
} fc_broadcast_slot;
enum { FC_CLOSED = -1 };

/* The work queue of a call: the counters by which its threads take chunks of work items, and the state for signal
 * handling. Python keeps the queue in a bytearray. Each field has the size of a pointer, so that tests can read fields
 * as integers of that size. */
typedef struct fc_work_queue {
    ptrdiff_t chunks_taken;
    ptrdiff_t workers; /* the number of threads that have started to work, including the calling thread */
    ptrdiff_t helpers_wanted;
    fc_broadcast_slot *slot;  /* NULL if the call has no helpers */
    ptrdiff_t grain;          /* the number of work items of a chunk */
    ptrdiff_t taken_from_end; /* the number of chunks that were taken from the end of the range of items */
    /* The function that checks for signals (such as Ctrl-C), or NULL if the call does not check for signals. It returns
     * whether a signal handler raised an exception. The exception is then set in the calling thread, and the call has
     * to stop. */
    int (*poll)(struct fc_work_queue *queue);
    ptrdiff_t next_poll; /* the time of the next check for signals, in milliseconds; 0 before the first check */
    ptrdiff_t calling_thread;
    ptrdiff_t stop;        /* whether the call has to stop */
    ptrdiff_t poll_period; /* the time between two checks for signals, in milliseconds */
} fc_work_queue;
/* The indices of two fields, for tests that read the queue as an array of integers. */
enum {
    FC_STOP_INDEX = offsetof(fc_work_queue, stop) / sizeof(ptrdiff_t),
    FC_POLL_PERIOD_INDEX = offsetof(fc_work_queue, poll_period) / sizeof(ptrdiff_t)
};

#if defined(_MSC_VER) && !defined(__clang__)
#if defined(_WIN64)
#define fc_compare_exchange(word, old, new) \
    (_InterlockedCompareExchange64((volatile __int64 *)(word), (new), (old)) == (old))
#define fc_fetch_add_ordered(word, n) _InterlockedExchangeAdd64((volatile __int64 *)(word), (n))
#define fc_atomic_exchange(word, n) _InterlockedExchange64((volatile __int64 *)(word), (n))
#else
#define fc_compare_exchange(word, old, new) \
    (_InterlockedCompareExchange((volatile long *)(word), (new), (old)) == (old))
#define fc_fetch_add_ordered(word, n) _InterlockedExchangeAdd((volatile long *)(word), (n))
#define fc_atomic_exchange(word, n) _InterlockedExchange((volatile long *)(word), (n))
#endif
#if defined(_M_ARM64) || defined(_M_ARM)
#error "MSVC does not order what follows a volatile read on ARM: compile with clang-cl there"
#endif
#define fc_atomic_load(word) (*(const volatile ptrdiff_t *)(word))
#define fc_pause() _mm_pause()
#else
static inline int fc_compare_exchange(ptrdiff_t *word, ptrdiff_t old, ptrdiff_t new_)
{
    return __atomic_compare_exchange_n(word, &old, new_, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
#define fc_fetch_add_ordered(word, n) __atomic_fetch_add((word), (n), __ATOMIC_SEQ_CST)
#define fc_atomic_exchange(word, n) __atomic_exchange_n((word), (n), __ATOMIC_SEQ_CST)
#define fc_atomic_load(word) __atomic_load_n((word), __ATOMIC_SEQ_CST)
#if defined(__x86_64__) || defined(__i386__)
#define fc_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define fc_pause() __asm__ __volatile__("yield")
#else
#define fc_pause() ((void)0)
#endif
#endif

/* If no call comes for some time, workers sleep on a futex of the broadcast slot (on operating systems with futexes).
 * Any thread can wake them there without the Python interpreter. A worker that misses a call sleeps until the next
 * call. This is harmless, because a call does not wait for workers that have not joined. */
#if defined(__linux__) && defined(SYS_futex)
enum { FC_HAS_FUTEX = 1 };

/* Wake at most `sleepers` threads that sleep on the futex `event`. */
static inline void fc_futex_wake(ptrdiff_t *event, ptrdiff_t sleepers)
{
    __atomic_fetch_add((uint32_t *)event, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, (uint32_t *)event, FUTEX_WAKE_PRIVATE, (int)sleepers, NULL, NULL, 0);
}

/* Sleep until another thread wakes this thread by fc_futex_wake(event, ...). `event` points to a counter. Return at
 * once if the counter is not equal to `seen`. */
static inline void fc_futex_wait(ptrdiff_t *event, uint32_t seen)
{
    syscall(SYS_futex, (uint32_t *)event, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static inline uint32_t fc_futex_value(ptrdiff_t *event) { return __atomic_load_n((uint32_t *)event, __ATOMIC_SEQ_CST); }
#else
enum { FC_HAS_FUTEX = 0 };
#define fc_futex_wake(event, sleepers) ((void)0)
#define fc_futex_value(event) 0u

/* Sleep for a moment. Yielding the CPU would not be enough, because a thread with a high priority would get the CPU
 * back at once. */
static inline void fc_futex_wait(ptrdiff_t *event, unsigned seen)
{
    (void)event, (void)seen;
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

/* Initialize the work queue of a call without helpers. A chunk has up to 65536 items, so nearly all such calls have a
 * single chunk. */
static inline void fc_serial_queue(fc_work_queue *queue)
{
    memset(queue, 0, sizeof(*queue));
    queue->grain = 1 << 16;
}

/* Return the time of a monotonic clock in milliseconds. Reading the clock takes less time than taking a chunk. */
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

/* Check for signals (such as Ctrl-C). Return whether the threads of the call have to stop and leave their chunks
 * unfinished. Threads call this function for every chunk. Kernels whose chunks may take more than 50 ms also call it
 * within a chunk. */
static inline int fc_stopped(fc_work_queue *queue)
{
    if (queue->poll == NULL)
        return 0;
    if (fc_atomic_load(&queue->stop))
        return 1;
    if (!queue->poll(queue))
        return 0;
    fc_atomic_exchange(&queue->stop, 1);
    return 1;
}

/* Before a calling thread sleeps, it checks FC_SPINS times whether its helpers have finished. These checks take about
 * 300 us. */
enum { FC_SPINS = 10000 };

/* Wait until all `joined` helpers have finished. The calling thread first spins, and then sleeps. If it only spun, a
 * helper of lower priority on the same CPU would never finish. */
static inline void fc_wait_for_helpers(fc_broadcast_slot *slot, ptrdiff_t joined)
{
    int spin;
    for (spin = 0; spin < FC_SPINS; spin++) {
        if (fc_atomic_load(&slot->finished) >= joined)
            return;
        fc_pause();
    }
    fc_atomic_exchange(&slot->caller_waits, 1);
    for (;;) {
        const unsigned seen = (unsigned)fc_futex_value(&slot->done_event);
        if (fc_atomic_load(&slot->finished) >= joined)
            break;
        fc_fetch_add_ordered(&slot->times_waited, 1);
        fc_futex_wait(&slot->done_event, seen);
    }
    fc_atomic_exchange(&slot->caller_waits, 0);
}

/* Run work(task) in this thread and in the workers that join, and return when all of them have finished. If a signal
 * handler raised an exception, return -1 with the exception set. The results of the work are then undefined. */
static inline int fc_parallel_for(fc_work_queue *queue, fc_task_function work, void *task)
{
    fc_broadcast_slot *slot = queue->slot;
    if (slot == NULL || !fc_compare_exchange(&slot->taken, 0, 1)) {
        work(task);
    } else {
        slot->work = (ptrdiff_t)work;
        slot->task = (ptrdiff_t)task;
        /* Write the following fields atomically, because workers may read them even while no call accepts helpers. */
        fc_atomic_exchange(&slot->helpers_wanted, queue->helpers_wanted);
        fc_atomic_exchange(&slot->finished, 0);
        fc_fetch_add_ordered(&slot->call, 1);
        fc_atomic_exchange(&slot->joined, 0);
        if (fc_atomic_load(&slot->sleeping) > 0)
            fc_futex_wake(&slot->wake_event, queue->helpers_wanted);
        work(task);
        fc_wait_for_helpers(slot, fc_atomic_exchange(&slot->joined, FC_CLOSED));
        fc_atomic_exchange(&slot->taken, 0);
    }
    return fc_atomic_load(&queue->stop) ? -1 : 0;
}

/* Join the call that owns the broadcast slot, unless its number is *last. If this worker joined, set *last to the
 * number of the call. Return whether this worker joined. */
static inline int fc_try_join(fc_broadcast_slot *slot, ptrdiff_t *last)
{
    const ptrdiff_t joined = fc_atomic_load(&slot->joined);
    /* A worker joins a call only once, because no chunks are left when the worker returns from the call. */
    if (joined < 0 || fc_atomic_load(&slot->call) == *last || joined >= fc_atomic_load(&slot->helpers_wanted) ||
        !fc_compare_exchange(&slot->joined, joined, joined + 1))
        return 0;
    /* The call now waits for this worker, so the task of the call stays valid. But since the checks above, another call
     * may have started, which may want fewer helpers. So check the number of helpers again. */
    *last = fc_atomic_load(&slot->call);
    if (joined < fc_atomic_load(&slot->helpers_wanted))
        ((fc_task_function)slot->work)((void *)slot->task);
    fc_fetch_add_ordered(&slot->finished, 1);
    if (fc_atomic_load(&slot->caller_waits))
        fc_futex_wake(&slot->done_event, 1);
    return 1;
}

/* Join every call that owns the broadcast slot, until slot->dismissals changes. After `spins` checks without a call,
 * the worker sleeps on the futex `wake_event`. If the operating system has no futexes, the function returns instead. */
static inline void fc_run_helper(fc_broadcast_slot *slot, ptrdiff_t spins)
{
    ptrdiff_t spin = 0, last = -1;
    const ptrdiff_t dismissals = fc_atomic_load(&slot->dismissals);
    while (fc_atomic_load(&slot->dismissals) == dismissals) {
        spin = fc_try_join(slot, &last) ? 0 : spin + 1;
        fc_pause();
        if (spin >= spins) {
            const unsigned seen = (unsigned)fc_futex_value(&slot->wake_event);
            if (!FC_HAS_FUTEX)
                return;
            fc_fetch_add_ordered(&slot->sleeping, 1);
            if (!fc_try_join(slot, &last) && fc_atomic_load(&slot->dismissals) == dismissals)
                fc_futex_wait(&slot->wake_event, seen);
            fc_fetch_add_ordered(&slot->sleeping, -1);
            spin = 0;
        }
    }
}

/* One thread of a call. `id` is the number of the thread, which selects its workspace. `front_chunks` is the number of
 * chunks that the thread took from the front of the range of items. */
typedef struct {
    ptrdiff_t id, front_chunks;
} fc_worker;

/* Return the next free number for a thread of a call. The calling thread may get any number, because a helper may call
 * this function first. */
static inline ptrdiff_t fc_worker_id(fc_work_queue *queue) { return fc_fetch_add_ordered(&queue->workers, 1); }

static inline fc_worker fc_new_worker(fc_work_queue *queue)
{
    fc_worker worker;
    worker.id = fc_worker_id(queue);
    worker.front_chunks = 0;
    return worker;
}

/* Take the next chunk of queue->grain items, and return its first item. Return `total` if no chunk is left or the call
 * has to stop. The thread with number 0 takes chunks from the front, and all others take chunks from the end. So in
 * successive calls a thread often gets the same chunks, whose data are still in its cache. */
static inline ptrdiff_t fc_next_chunk(fc_work_queue *queue, fc_worker *worker, ptrdiff_t total)
{
    const ptrdiff_t grain = queue->grain, draws = (total + grain - 1) / grain;
    if (fc_fetch_add_ordered(&queue->chunks_taken, 1) >= draws || fc_stopped(queue))
        return total;
    if (worker->id == 0)
        return worker->front_chunks++ * grain;
    return (draws - 1 - fc_fetch_add_ordered(&queue->taken_from_end, 1)) * grain;
}

/* Return the next of `total` items, in ascending order. Return `total` or a larger number if no item is left or the
 * call has to stop. */
static inline ptrdiff_t fc_next_item(fc_work_queue *queue, ptrdiff_t total)
{
    const ptrdiff_t piece = fc_fetch_add_ordered(&queue->chunks_taken, 1);
    return piece < total && fc_stopped(queue) ? total : piece;
}

#endif /* FASTCONV_TEAM_H */
