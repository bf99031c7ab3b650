/* Check team.h: callers and workers that share one broadcast slot, without Python. .ci/thread_sanitizer compiles it
 * for ThreadSanitizer.
 *
 * Every call counts its chunks in plain memory, and its caller clears that memory as soon as the call has ended. So a
 * chunk that is drawn twice or never gives a wrong count, and a worker that still writes is a data race.
 *
 *     team [seconds [seed]]
 */
#include "team.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALLERS = 4, HELPERS = 3, MOST_PIECES = 300, MOST_MEMBERS = HELPERS + 1 };

static ptrdiff_t gate[FC_GATE_WORDS];
static double seconds = 8;
static unsigned long seed = 1;

/* Counts of what a caller did, and of errors in its calls. */
typedef struct {
    unsigned long random;
    long calls, helped, stopped, wrong;
} caller_t;

/* Arguments of a call, which all of its threads read, and the pieces that they write. */
typedef struct {
    ptrdiff_t *words;
    ptrdiff_t pieces;
    int one_by_one, slow, stop_at;
    ptrdiff_t looks;
    int member_seen[MOST_MEMBERS];
    int seen[MOST_PIECES];
} call_t;

static unsigned long next_random(unsigned long *state)
{
    *state = *state * 6364136223846793005ul + 1442695040888963407ul;
    return *state >> 33;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void pause_for(long nanoseconds)
{
    const struct timespec moment = {0, nanoseconds};
    nanosleep(&moment, NULL);
}

/* A signal handler that raises, in the calling thread only. */
static __thread call_t *own_call;

static int poll(ptrdiff_t *words)
{
    if (words[FC_CALLER] != (ptrdiff_t)pthread_self())
        return 0;
    return own_call->stop_at >= 0 && own_call->looks++ >= own_call->stop_at;
}

static void work(void *task)
{
    call_t *call = task;
    fc_member member = fc_enrol(call->words);
    ptrdiff_t grain = call->one_by_one ? 1 : call->words[FC_GRAIN], begin, i;
    call->member_seen[member.slot]++;
    for (;;) {
        begin = call->one_by_one ? fc_take(call->words, call->pieces) : fc_next(call->words, &member, call->pieces);
        if (begin >= call->pieces)
            return;
        for (i = begin; i < begin + grain && i < call->pieces; i++)
            call->seen[i]++;
        /* Work longer than a caller spins before it sleeps. */
        if (call->slow && call->words[FC_CALLER] != (ptrdiff_t)pthread_self())
            pause_for(3000000);
    }
}

static void make_call(caller_t *caller)
{
    ptrdiff_t words[FC_WORDS], i;
    call_t call;
    ptrdiff_t done = 0, draws;
    int result, once = 1, most_once = 1, members = 0;
    fc_alone(words);
    memset(&call, 0, sizeof(call));
    call.words = words;
    call.pieces = 1 + (ptrdiff_t)(next_random(&caller->random) % MOST_PIECES);
    call.one_by_one = next_random(&caller->random) % 2;
    call.slow = next_random(&caller->random) % 64 == 0;
    call.stop_at = next_random(&caller->random) % 8 ? -1 : (int)(next_random(&caller->random) % 20);
    own_call = &call;
    words[FC_GRAIN] = 1 + (ptrdiff_t)(next_random(&caller->random) % 5);
    words[FC_WANTED] = (ptrdiff_t)(next_random(&caller->random) % (HELPERS + 1));
    words[FC_GATE] = (ptrdiff_t)gate;
    words[FC_POLL] = (ptrdiff_t)poll;
    words[FC_CALLER] = (ptrdiff_t)pthread_self();
    result = fc_share(words, work, &call);
    for (i = 0; i < call.pieces; i++) {
        once = once && call.seen[i] == 1;
        most_once = most_once && call.seen[i] <= 1;
        done += call.seen[i];
    }
    for (i = 0; i < MOST_MEMBERS; i++) {
        members += call.member_seen[i];
        most_once = most_once && call.member_seen[i] <= 1;
    }
    caller->calls++;
    caller->helped += members > 1;
    caller->stopped += result != 0;
    if (!most_once || members > words[FC_WANTED] + 1 || (result == 0 && !once) || (result != 0 && call.stop_at < 0))
        caller->wrong++;
    /* Without helpers, the call must stop at exactly the draw `stop_at`. */
    draws = call.one_by_one ? call.pieces : (call.pieces + words[FC_GRAIN] - 1) / words[FC_GRAIN];
    if (words[FC_WANTED] == 0 && call.stop_at >= 0 && call.stop_at < draws &&
        (result == 0 || done != call.stop_at * (call.one_by_one ? 1 : words[FC_GRAIN])))
        caller->wrong++;
    memset(&call, -1, sizeof(call));
}

static void *run_caller(void *argument)
{
    caller_t *caller = argument;
    const double end = now() + seconds;
    while (now() < end) {
        make_call(caller);
        /* Sometimes pause long enough that helpers fall asleep. */
        if (next_random(&caller->random) % 50 == 0)
            pause_for((long)(next_random(&caller->random) % 1000000));
    }
    return NULL;
}

static void *run_helper(void *argument)
{
    (void)argument;
    while (fc_peek(&gate[FC_AWAY]) == 0)
        fc_help(gate, 200);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t callers[CALLERS], helpers[HELPERS];
    caller_t of[CALLERS], all;
    int i;
    if (argc > 1)
        seconds = atof(argv[1]);
    if (argc > 2)
        seed = strtoul(argv[2], NULL, 10);
    gate[FC_OPEN] = FC_SHUT;
    memset(of, 0, sizeof(of));
    memset(&all, 0, sizeof(all));
    for (i = 0; i < HELPERS; i++)
        pthread_create(&helpers[i], NULL, run_helper, NULL);
    for (i = 0; i < CALLERS; i++) {
        of[i].random = seed * 1000 + (unsigned long)i;
        pthread_create(&callers[i], NULL, run_caller, &of[i]);
    }
    for (i = 0; i < CALLERS; i++) {
        pthread_join(callers[i], NULL);
        all.calls += of[i].calls;
        all.helped += of[i].helped;
        all.stopped += of[i].stopped;
        all.wrong += of[i].wrong;
    }
    fc_add(&gate[FC_AWAY], 1);
    fc_ring(&gate[FC_BELL], HELPERS);
    for (i = 0; i < HELPERS; i++)
        pthread_join(helpers[i], NULL);
    printf("seed %lu: %ld calls, %ld with helpers, %ld stopped, %ld naps, %ld wrong\n", seed, all.calls, all.helped,
           all.stopped, (long)gate[FC_NAPS], all.wrong);
    /* A run without helpers, stops or naps has tested nothing. */
    if (all.helped == 0 || all.stopped == 0 || gate[FC_NAPS] == 0) {
        printf("too short: it has to meet helpers, stops and naps\n");
        return 2;
    }
    return all.wrong != 0;
}
