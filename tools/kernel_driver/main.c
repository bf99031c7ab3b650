/* A program that runs and times one family of kernels, without Python: see docs/kernels.md.
 *
 *     kernel_driver FAMILY [ISA|all] [f32|f64|all] [SECONDS]
 *
 * SECONDS is the length of a run, 0.002 by default. Each line has the time of a call, and then the rate, which is the
 * median of DRIVER_RUNS runs. Kernels that compute are compared with the multiply-add rate of this CPU, and all others
 * with memcpy of as many bytes. */
#include <stdarg.h>
#include <time.h>

#include "driver.h"
#include "simd/peak.h"

WEAK_KERNELS(fc_peak_kernels)

static double run_seconds = 2e-3;
static volatile double sink;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values)
{
    qsort(values, DRIVER_RUNS, sizeof *values, by_size);
    return values[DRIVER_RUNS / 2];
}

/* Return the multiply-add rate of this CPU, in operations per second. */
static double peak_rate(const driver_pair *pair)
{
    const fc_peak_kernels *kernels = fc_peak_for(pair->dtype, pair->isa);
    const ptrdiff_t rounds = 10000;
    const double begin = now();
    /* The factor is so small that no sum changes. */
    sink = kernels->peak(rounds, 1e-30);
    return 2.0 * (double)rounds * kernels->width() / (now() - begin);
}

/* Return the rate of a copy that reads and writes `bytes` bytes together, in bytes per second. */
static double copy_rate(double bytes)
{
    static char *from, *to;
    static size_t room;
    const size_t n = bytes > 128 ? (size_t)(bytes / 2) : 64;
    const size_t calls = n < 1 << 18 ? (1 << 18) / n : 1;
    size_t i;
    double begin;
    if (n > room) {
        free(from), free(to);
        from = malloc(n), to = malloc(n), room = n;
        if (from == NULL || to == NULL)
            abort();
        memset(from, 1, n), memset(to, 1, n);
    }
    begin = now();
    for (i = 0; i < calls; i++) {
        memcpy(to, from, n);
        __asm__ volatile("" : : "r"(to) : "memory"); /* The compiler must not drop a copy. */
    }
    return 2.0 * (double)(n * calls) / (now() - begin);
}

driver_timer driver_begin(const driver_pair *pair, double operations, double bytes)
{
    driver_timer timer;
    memset(&timer, 0, sizeof timer);
    timer.pair = pair, timer.operations = operations, timer.bytes = bytes;
    timer.calls = 1, timer.run = DRIVER_FIRST;
    return timer;
}

/* Record the run that has ended, and return whether another run follows. */
int driver_next(driver_timer *timer)
{
    const double seconds = now() - timer->begin;
    if (timer->run == DRIVER_FIRST) {
        timer->run = DRIVER_SHORT;
    } else if (timer->run == DRIVER_SHORT) {
        if (seconds < run_seconds)
            timer->calls *= 2;
        else
            timer->run = 0;
    } else {
        const double work = timer->operations > 0 ? timer->operations : timer->bytes;
        const double yardstick = timer->operations > 0 ? peak_rate(timer->pair) : copy_rate(timer->bytes);
        timer->seconds[timer->run] = seconds / (double)timer->calls;
        timer->shares[timer->run] = work / timer->seconds[timer->run] / yardstick;
        timer->run++;
    }
    timer->begin = now();
    return timer->run < DRIVER_RUNS;
}

void driver_end(driver_timer *timer, const char *format, ...)
{
    const double seconds = median(timer->seconds), share = 100 * median(timer->shares);
    char name[80];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(name, sizeof name, format, arguments);
    va_end(arguments);
    printf("  %-44s %11.3f us %8.1f ", name, 1e6 * seconds,
           1e-9 * (timer->operations > 0 ? timer->operations : timer->bytes) / seconds);
    if (timer->operations > 0)
        printf("GFLOP/s %6.1f %% of the peak\n", share);
    else
        printf("GB/s    %6.1f %% of memcpy\n", share);
    fflush(stdout);
}

static const struct {
    const char *name;
    int (*time)(const driver_pair *pair);
} families[] = {
#define FAMILY_ROW(name) {#name, driver_##name},
    FOR_EACH_FAMILY(FAMILY_ROW)};

enum { FAMILIES = sizeof families / sizeof *families };

static const char *const dtypes[2] = {"f32", "f64"};

/* Print the legal values of the arguments. */
static int usage(const char *program, const char *what, const char *given)
{
    int i;
    if (given)
        fprintf(stderr, "%s: there is no %s '%s'\n", program, what, given);
    fprintf(stderr, "usage: %s FAMILY [ISA|all] [f32|f64|all] [SECONDS]\nfamilies:", program);
    for (i = 0; i < FAMILIES; i++)
        if (families[i].time)
            fprintf(stderr, " %s", families[i].name);
    fprintf(stderr, "\ninstruction sets:");
    for (i = 0; i < FC_ISAS; i++)
        if (fc_isa_compiled(i) && fc_isa_usable(i))
            fprintf(stderr, " %s", fc_isa_names[i]);
    fprintf(stderr, "\ndtypes: f32 f64\n");
    return 2;
}

static int is_wanted(const char *given, const char *name)
{
    return strcmp(given, "all") == 0 || strcmp(given, name) == 0;
}

int main(int count, char **arguments)
{
    const char *program = arguments[0], *family = count > 1 ? arguments[1] : NULL;
    const char *of_isa = count > 2 ? arguments[2] : "all", *of_dtype = count > 3 ? arguments[3] : "all";
    int i, isa, dtype, found = 0, isas = 0, timed = 0;
    if (family == NULL || count > 5)
        return usage(program, NULL, NULL);
    if (count > 4) {
        char *end;
        run_seconds = strtod(arguments[4], &end);
        if (*end != '\0' || !(run_seconds >= 0 && run_seconds <= 60)) {
            fprintf(stderr, "%s: SECONDS must be a number from 0 to 60, got '%s'\n", program, arguments[4]);
            return 2;
        }
    }
    for (isa = 0; isa < FC_ISAS; isa++)
        isas += fc_isa_compiled(isa) && fc_isa_usable(isa) && is_wanted(of_isa, fc_isa_names[isa]);
    if (!isas)
        return usage(program, "instruction set", of_isa);
    if (!is_wanted(of_dtype, "f32") && !is_wanted(of_dtype, "f64"))
        return usage(program, "dtype", of_dtype);
    for (i = 0; i < FAMILIES; i++) {
        if (!families[i].time || strcmp(family, families[i].name) != 0)
            continue;
        found = 1;
        for (isa = 0; isa < FC_ISAS; isa++)
            for (dtype = 0; dtype < 2; dtype++) {
                driver_pair pair;
                if (!fc_isa_compiled(isa) || !fc_isa_usable(isa) || !is_wanted(of_isa, fc_isa_names[isa]) ||
                    !is_wanted(of_dtype, dtypes[dtype]) || fc_peak_for(dtype, isa) == NULL)
                    continue;
                pair.dtype = dtype, pair.isa = isa, pair.lanes = fc_isa_lanes(dtype, isa);
                pair.item = (double)size_of(dtype);
                printf("%s %s %s\n", family, fc_isa_names[isa], dtypes[dtype]);
                timed += families[i].time(&pair);
            }
    }
    if (!found)
        return usage(program, "family", family);
    if (!timed) {
        fprintf(stderr, "%s: this program has no kernels of %s for %s and %s\n", program, family, of_isa, of_dtype);
        return 1;
    }
    return 0;
}
