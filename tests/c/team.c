/* Check team.h: callers and workers that share one broadcast slot, without Python. .ci/thread_sanitizer compiles it
 * for ThreadSanitizer.
 *
 * Every call counts its chunks in plain memory, and its caller clears that memory as soon as the call has ended. So a
 * chunk that is drawn twice or never gives a wrong count, and a worker that still writes is a data race.
 *
 *     team [seconds [seed]]
 */
#include "threads/team.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CALLERS = 4, HELPERS = 3, MOST_PIECES = 300, MOST_WORKERS = HELPERS + 1 };

static fc_broadcast_slot slot;
static double seconds = 8;
static unsigned long seed = 1;

/* Counts of what a caller did, and of errors in its calls. */
typedef struct {
    unsigned long random;
    long calls, helped, stopped, wrong;
} caller_t;

/* Arguments of a call, which all of its threads read, and the pieces that they write. */
typedef struct {
    fc_work_queue *queue;
    ptrdiff_t pieces;
    int one_by_one, slow, stop_at;
    ptrdiff_t looks;
    int worker_seen[MOST_WORKERS];
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

static int poll(fc_work_queue *queue)
{
    if (queue->calling_thread != (ptrdiff_t)pthread_self())
        return 0;
    return own_call->stop_at >= 0 && own_call->looks++ >= own_call->stop_at;
}

static void work(void *task)
{
    call_t *call = task;
    fc_worker worker = fc_new_worker(call->queue);
    ptrdiff_t grain = call->one_by_one ? 1 : call->queue->grain, begin, i;
    call->worker_seen[worker.id]++;
    for (;;) {
        begin = call->one_by_one ? fc_next_item(call->queue, call->pieces)
                                 : fc_next_chunk(call->queue, &worker, call->pieces);
        if (begin >= call->pieces)
            return;
        for (i = begin; i < begin + grain && i < call->pieces; i++)
            call->seen[i]++;
        /* Work longer than a caller spins before it sleeps. */
        if (call->slow && call->queue->calling_thread != (ptrdiff_t)pthread_self())
            pause_for(3000000);
    }
}

static void make_call(caller_t *caller)
{
    fc_work_queue queue;
    ptrdiff_t i;
    call_t call;
    ptrdiff_t done = 0, draws;
    int result, once = 1, most_once = 1, workers = 0;
    fc_serial_queue(&queue);
    memset(&call, 0, sizeof(call));
    call.queue = &queue;
    call.pieces = 1 + (ptrdiff_t)(next_random(&caller->random) % MOST_PIECES);
    call.one_by_one = next_random(&caller->random) % 2;
    call.slow = next_random(&caller->random) % 64 == 0;
    call.stop_at = next_random(&caller->random) % 8 ? -1 : (int)(next_random(&caller->random) % 20);
    own_call = &call;
    queue.grain = 1 + (ptrdiff_t)(next_random(&caller->random) % 5);
    queue.helpers_wanted = (ptrdiff_t)(next_random(&caller->random) % (HELPERS + 1));
    queue.slot = &slot;
    queue.poll = poll;
    queue.calling_thread = (ptrdiff_t)pthread_self();
    result = fc_parallel_for(&queue, work, &call);
    for (i = 0; i < call.pieces; i++) {
        once = once && call.seen[i] == 1;
        most_once = most_once && call.seen[i] <= 1;
        done += call.seen[i];
    }
    for (i = 0; i < MOST_WORKERS; i++) {
        workers += call.worker_seen[i];
        most_once = most_once && call.worker_seen[i] <= 1;
    }
    caller->calls++;
    caller->helped += workers > 1;
    caller->stopped += result != 0;
    if (!most_once || workers > queue.helpers_wanted + 1 || (result == 0 && !once) || (result != 0 && call.stop_at < 0))
        caller->wrong++;
    /* Without helpers, the call must stop at exactly the draw `stop_at`. */
    draws = call.one_by_one ? call.pieces : (call.pieces + queue.grain - 1) / queue.grain;
    if (queue.helpers_wanted == 0 && call.stop_at >= 0 && call.stop_at < draws &&
        (result == 0 || done != call.stop_at * (call.one_by_one ? 1 : queue.grain)))
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
    while (fc_atomic_load(&slot.dismissals) == 0)
        fc_run_helper(&slot, 200);
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
    slot.joined = FC_CLOSED;
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
    fc_fetch_add_ordered(&slot.dismissals, 1);
    fc_futex_wake(&slot.wake_event, HELPERS);
    for (i = 0; i < HELPERS; i++)
        pthread_join(helpers[i], NULL);
    printf("seed %lu: %ld calls, %ld with helpers, %ld stopped, %ld naps, %ld wrong\n", seed, all.calls, all.helped,
           all.stopped, (long)slot.times_waited, all.wrong);
    /* A run without helpers, stops or naps has tested nothing. */
    if (all.helped == 0 || all.stopped == 0 || slot.times_waited == 0) {
        printf("too short: it has to meet helpers, stops and naps\n");
        return 2;
    }
    return all.wrong != 0;
}
