/* A team: threads that wait, awake for a moment, to share the next call without going through the interpreter.
 *
 * A thread that sleeps, or that waits for the interpreter's lock, takes some 50 us to come back: as long as a
 * small layer takes in all. A call announces its work at a gate that helpers watch; those that come in time
 * join it, and it waits for those alone. One call at a time has the gate; others do their work themselves.
 */
#ifndef FASTCONV_TEAM_H
#define FASTCONV_TEAM_H

#include <stddef.h>

#if defined(_MSC_VER)
#include <intrin.h>
#endif
#if defined(__linux__)
/* musl comes without the kernel's headers; the two numbers are part of its interface and never change. */
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

/* The words of a call (see _threads.share): pieces drawn, threads that drew, helpers wanted, address of a gate,
 * pieces to a draw, and draws from the end. */
enum { FC_DRAWN, FC_THREADS, FC_WANTED, FC_GATE, FC_GRAIN, FC_FROM_END, FC_WORDS };

/* The words of a gate. `open` is how many helpers joined the call that has it, or FC_SHUT. */
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
    return __atomic_compare_exchange_n(word, &old, new_, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}
#define fc_add(word, n) __atomic_fetch_add((word), (n), __ATOMIC_ACQ_REL)
#define fc_swap(word, n) __atomic_exchange_n((word), (n), __ATOMIC_ACQ_REL)
#define fc_peek(word) __atomic_load_n((word), __ATOMIC_ACQUIRE)
#if defined(__x86_64__) || defined(__i386__)
#define fc_pause() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define fc_pause() __asm__ __volatile__("yield")
#else
#define fc_pause() ((void)0)
#endif
#endif

/* Helpers that have waited long sleep at the gate, where the system lets them: a bell wakes them without the
 * interpreter. Whoever misses it sleeps until the next; no call waits for a helper that has not joined. */
#if defined(__linux__) && defined(SYS_futex)
enum { FC_BELLS = 1 };

static inline void fc_ring(ptrdiff_t *gate, ptrdiff_t helpers)
{
    uint32_t *bell = (uint32_t *)&gate[FC_BELL];
    if (fc_peek(&gate[FC_ASLEEP]) > 0) {
        __atomic_fetch_add(bell, 1, __ATOMIC_ACQ_REL);
        syscall(SYS_futex, bell, FUTEX_WAKE_PRIVATE, (int)helpers, NULL, NULL, 0);
    }
}

/* Until the bell rings, unless it has since it was `heard`. */
static inline void fc_sleep(ptrdiff_t *gate, uint32_t heard)
{
    syscall(SYS_futex, (uint32_t *)&gate[FC_BELL], FUTEX_WAIT_PRIVATE, heard, NULL, NULL, 0);
}

static inline uint32_t fc_listen(ptrdiff_t *gate)
{
    return __atomic_load_n((uint32_t *)&gate[FC_BELL], __ATOMIC_ACQUIRE);
}
#else
enum { FC_BELLS = 0 };
#define fc_ring(gate, helpers) ((void)0)
#define fc_sleep(gate, heard) ((void)0)
#define fc_listen(gate) 0u
#endif

/* The words of a call that nobody helps: as many pieces at a time as there are, or nearly so. */
static inline void fc_alone(ptrdiff_t *words)
{
    int i;
    for (i = 0; i < FC_WORDS; i++)
        words[i] = 0;
    words[FC_GRAIN] = 1 << 16;
}

/* work(task) in this thread and in the helpers that come; every one of them has left when it returns. */
static inline void fc_share(ptrdiff_t *words, fc_work work, void *task)
{
    ptrdiff_t *gate = (ptrdiff_t *)words[FC_GATE];
    ptrdiff_t joined;
    if (gate == NULL || !fc_cas(&gate[FC_TAKEN], 0, 1)) {
        work(task);
        return;
    }
    gate[FC_WORK] = (ptrdiff_t)work;
    gate[FC_TASK] = (ptrdiff_t)task;
    gate[FC_SEATS] = words[FC_WANTED];
    gate[FC_FINISHED] = 0;
    fc_add(&gate[FC_CALL], 1);
    fc_swap(&gate[FC_OPEN], 0);
    fc_ring(gate, words[FC_WANTED]);
    work(task);
    joined = fc_swap(&gate[FC_OPEN], FC_SHUT);
    while (fc_peek(&gate[FC_FINISHED]) < joined)
        fc_pause();
    fc_swap(&gate[FC_TAKEN], 0);
}

/* Join the call that has the gate, unless that is `last`; whether it was joined. */
static inline int fc_join(ptrdiff_t *gate, ptrdiff_t *last)
{
    const ptrdiff_t open = fc_peek(&gate[FC_OPEN]);
    /* A call is joined once: who comes back finds nothing left to draw, but would take another workspace. */
    if (open < 0 || fc_peek(&gate[FC_CALL]) == *last || open >= fc_peek(&gate[FC_SEATS]) ||
        !fc_cas(&gate[FC_OPEN], open, open + 1))
        return 0;
    /* Joined, the call cannot end before this helper has: what it announced stays. It may be a later
     * call than the one looked at, and wants fewer helpers. */
    *last = fc_peek(&gate[FC_CALL]);
    if (open < gate[FC_SEATS])
        ((fc_work)gate[FC_WORK])((void *)gate[FC_TASK]);
    fc_add(&gate[FC_FINISHED], 1);
    return 1;
}

/* Join whatever call opens the gate, until helpers are called away. After so many turns without a call a helper
 * sleeps, or where there is no bell it leaves. */
static inline void fc_help(ptrdiff_t *gate, ptrdiff_t turns)
{
    ptrdiff_t turn = 0, last = -1;
    const ptrdiff_t away = fc_peek(&gate[FC_AWAY]);
    while (fc_peek(&gate[FC_AWAY]) == away) {
        turn = fc_join(gate, &last) ? 0 : turn + 1;
        fc_pause();
        if (turn >= turns) {
            const unsigned heard = (unsigned)fc_listen(gate);
            if (!FC_BELLS)
                return;
            fc_add(&gate[FC_ASLEEP], 1);
            if (!fc_join(gate, &last) && fc_peek(&gate[FC_AWAY]) == away)
                fc_sleep(gate, heard);
            fc_add(&gate[FC_ASLEEP], -1);
            turn = 0;
        }
    }
}

/* A thread of a call: its number, and how often it drew. */
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

/* The first of the next words[FC_GRAIN] of `total` pieces, or `total` when none are left. One thread takes them
 * from the front and the others from the end: in call after call a thread finds in its cache what it had there. */
static inline ptrdiff_t fc_next(ptrdiff_t *words, fc_member *member, ptrdiff_t total)
{
    const ptrdiff_t grain = words[FC_GRAIN], draws = (total + grain - 1) / grain;
    if (fc_add(&words[FC_DRAWN], 1) >= draws)
        return total;
    return (member->slot == 0 ? member->drew++ : draws - 1 - fc_add(&words[FC_FROM_END], 1)) * grain;
}

#endif /* FASTCONV_TEAM_H */
