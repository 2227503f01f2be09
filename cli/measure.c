/* SPDX-License-Identifier: Apache-2.0 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */

#include "measure.h"

#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "limits.h"
#include "say.h"

/* One slot of a repetition lasts at least this long: far above what a clock and a wake-up cost. */
#define MIN_SLOT_SECONDS 300e-6
/* Of each slot; less where the repetitions themselves are short. */
#define WARM_UP_SECONDS 0.05
#define MAX_CALLS (INT64_C(1) << 18) /* whose times are kept, the latest */

/* What a repetition times. */
enum { CALL, SEQUENTIAL, GATHER, MULTIPLY_ADD, NUM_SLOTS };

typedef struct measurement {
    const cli_data *data;
    pageattn_context *context;
    cli_limits limits;
    double slot_seconds;
    double warm_up_seconds;
    int64_t times[NUM_SLOTS];   /* how often a repetition runs each */
    double *seconds[NUM_SLOTS]; /* of one run, in each repetition */
    double *call_seconds;       /* a ring */
    int64_t num_calls;
    int64_t num_reps;
} measurement;

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* ---- running ---- */

static bool run_once(const measurement *m, int slot)
{
    pageattn_error error;
    uint64_t digest;
    switch (slot) {
    case SEQUENTIAL:
        return cli_limits_read_sequential(&m->limits, &digest);
    case GATHER:
        return cli_limits_read_gather(&m->limits, &digest);
    case MULTIPLY_ADD:
        return cli_limits_multiply_add(&m->limits);
    default:
        if (pageattn_attend(m->context, &m->data->args, &error) == PAGEATTN_OK)
            return true;
        cli_say("%s", error.message);
        return false;
    }
}

/* Runs a slot's share of a repetition; returns the seconds that one run took, negative on failure.
 */
static double run_slot(measurement *m, int slot)
{
    const double start = now();
    double before = start;
    for (int64_t i = 0; i < m->times[slot]; i++) {
        if (!run_once(m, slot))
            return -1;
        if (slot == CALL && m->call_seconds != NULL) {
            const double after = now();
            m->call_seconds[m->num_calls++ % MAX_CALLS] = after - before;
            before = after;
        }
    }
    return (now() - start) / (double)m->times[slot];
}

/* How the gather read may prefetch. */
static const struct {
    cli_prefetch how;
    int64_t bytes[CLI_MAX_PREFETCH_TIMES];
} prefetches[] = {
    {CLI_PREFETCH_L2, {0}},
    {CLI_PREFETCH_L2, {8192}},
    {CLI_PREFETCH_L2, {16384}},
    {CLI_PREFETCH_L2_HALF, {4096}},
    {CLI_PREFETCH_L2_HALF, {8192}},
    {CLI_PREFETCH_L1, {4096}},
    {CLI_PREFETCH_L1, {8192}},
    {CLI_PREFETCH_L1_HALF, {4096}},
    {CLI_PREFETCH_L1_HALF, {8192}},
    {CLI_PREFETCH_L2_THEN_L1, {8192, 4096}},
    {CLI_PREFETCH_L2_THEN_L1, {12288, 4096}},
    {CLI_PREFETCH_L2_THEN_L1, {16384, 4096}},
    {CLI_PREFETCH_L1_THRICE, {10240, 7168, 4096}},
    {CLI_PREFETCH_L1_THRICE, {14336, 9216, 5120}},
    {CLI_PREFETCH_L1_THRICE, {18432, 11264, 5120}},
    {CLI_PREFETCH_L2_THEN_L1_THRICE, {32768, 18432, 11264, 5120}},
    {CLI_PREFETCH_L2_THEN_L1_THRICE, {34816, 18432, 11264, 5120}},
    {CLI_PREFETCH_L1_FOUR_TIMES, {24576, 18432, 11264, 5120}},
    {CLI_PREFETCH_L1_FIVE_TIMES, {32768, 24576, 18432, 11264, 5120}},
    {CLI_PREFETCH_L1_SIX_TIMES, {32768, 24576, 22528, 18432, 11264, 5120}},
    {CLI_PREFETCH_L1_SEVEN_TIMES, {32768, 24576, 22528, 18432, 14336, 11264, 5120}},
};
#define NUM_PREFETCHES (sizeof(prefetches) / sizeof(*prefetches))

static void set_prefetch(cli_limits *limits, size_t index)
{
    limits->prefetch = prefetches[index].how;
    memcpy(limits->prefetch_bytes, prefetches[index].bytes, sizeof(limits->prefetch_bytes));
}

/* Machines and page sizes differ in which is best, so all are tried in turn, lest a noisy moment
 * hit one of them only, and the one with the shortest pass is taken. */
static bool choose_prefetch(measurement *m)
{
    double best[NUM_PREFETCHES];
    size_t chosen = 0;
    for (size_t i = 0; i < NUM_PREFETCHES; i++)
        best[i] = HUGE_VAL;
    const double start = now();
    m->times[GATHER] = 1;
    for (int pass = 0; pass < 4 || now() - start < m->warm_up_seconds; pass++) {
        for (size_t i = 0; i < NUM_PREFETCHES; i++) {
            set_prefetch(&m->limits, i);
            const double seconds = run_slot(m, GATHER);
            if (seconds < 0)
                return false;
            best[i] = seconds < best[i] ? seconds : best[i];
            chosen = best[i] < best[chosen] ? i : chosen;
        }
    }
    set_prefetch(&m->limits, chosen);
    return true;
}

/* Wakes threads and CPU, and finds how often each slot must run to last long enough. */
static bool warm_up(measurement *m)
{
    if (!choose_prefetch(m))
        return false;
    for (int slot = 0; slot < NUM_SLOTS; slot++) {
        const double start = now();
        double seconds;
        m->times[slot] = 1;
        do {
            seconds = run_slot(m, slot);
            if (seconds < 0)
                return false;
            if (slot == MULTIPLY_ADD && seconds < m->slot_seconds)
                m->limits.num_rounds *= 2;
        } while (now() - start < m->warm_up_seconds ||
                 (slot == MULTIPLY_ADD && seconds < m->slot_seconds));
        m->times[slot] = slot == MULTIPLY_ADD ? 1 : (int64_t)ceil(m->slot_seconds / seconds);
    }
    return true;
}

/* Another order each time: nobody always runs in the wake of the same one. */
static bool run_repetition(measurement *m)
{
    for (int i = 0; i < NUM_SLOTS; i++) {
        const int slot = (int)((i + m->num_reps) % NUM_SLOTS);
        const double seconds = run_slot(m, slot);
        if (seconds < 0)
            return false;
        m->seconds[slot][m->num_reps] = seconds;
    }
    m->num_reps++;
    return true;
}

static bool run_repetitions(measurement *m, const cli_effort *effort)
{
    const double start = now();
    while (m->num_reps < CLI_MAX_REPS &&
           (m->num_reps < effort->min_reps || now() - start < effort->min_seconds)) {
        if (!run_repetition(m))
            return false;
    }
    return true;
}

/* ---- statistics ---- */

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* `values` is sorted, and not empty. */
static double quantile(const double *values, int64_t count, double q)
{
    const double place = q * (double)(count - 1);
    const int64_t below = (int64_t)place;
    const int64_t above = below + 1 < count ? below + 1 : below;
    return values[below] + (place - (double)below) * (values[above] - values[below]);
}

double cli_median(double *values, int64_t count)
{
    qsort(values, (size_t)count, sizeof(*values), ascending);
    return quantile(values, count, 0.5);
}

/* The median over repetitions of limit / call, both in seconds. */
static double median_ratio(const measurement *m, int limit, double factor)
{
    double ratios[CLI_MAX_REPS] = {0};
    for (int64_t i = 0; i < m->num_reps; i++)
        ratios[i] = factor * m->seconds[limit][i] / m->seconds[CALL][i];
    return cli_median(ratios, m->num_reps);
}

/* Sorts the repetitions' times, so the ratios must have been taken before. */
static void summarize(measurement *m, cli_result *result)
{
    const cli_limits *limits = &m->limits;
    const double bytes = (double)m->data->kv_bytes;
    const double rep_multiply_adds =
        (double)(limits->num_parts * limits->num_rounds * limits->multiply_adds->per_round);
    const double call_share = (double)cli_limits_call_multiply_adds(m->data) / rep_multiply_adds;
    *result = (cli_result){.num_workers = limits->num_workers,
                           .prefetch_bytes = limits->prefetch_bytes[0],
                           .prefetch = limits->prefetch,
                           .num_reps = m->num_reps,
                           .num_calls = m->num_calls,
                           .of_sequential = median_ratio(m, SEQUENTIAL, 1),
                           .of_gather = median_ratio(m, GATHER, 1),
                           .of_multiply_add = median_ratio(m, MULTIPLY_ADD, call_share)};

    const double seconds = cli_median(m->seconds[CALL], m->num_reps);
    result->us = seconds * 1e6;
    result->spread = (quantile(m->seconds[CALL], m->num_reps, 0.75) -
                      quantile(m->seconds[CALL], m->num_reps, 0.25)) /
                     seconds;
    result->gb_per_s = bytes / seconds * 1e-9;
    result->tokens_per_s = (double)m->data->args.query.shape[0] / seconds;
    result->sequential_gb_per_s = bytes / cli_median(m->seconds[SEQUENTIAL], m->num_reps) * 1e-9;
    result->gather_gb_per_s = bytes / cli_median(m->seconds[GATHER], m->num_reps) * 1e-9;
    result->multiply_adds_per_ns =
        rep_multiply_adds / cli_median(m->seconds[MULTIPLY_ADD], m->num_reps) * 1e-9;

    const int64_t num_kept = m->num_calls < MAX_CALLS ? m->num_calls : MAX_CALLS;
    cli_median(m->call_seconds, num_kept);
    result->us_p95 = quantile(m->call_seconds, num_kept, 0.95) * 1e6;
}

/* ---- all together ---- */

static bool allocate_samples(measurement *m)
{
    bool enough = true;
    m->call_seconds = malloc(MAX_CALLS * sizeof(double));
    for (int slot = 0; slot < NUM_SLOTS; slot++) {
        m->seconds[slot] = malloc(CLI_MAX_REPS * sizeof(double));
        enough = enough && m->seconds[slot] != NULL;
    }
    if (!enough || m->call_seconds == NULL)
        cli_say("out of memory for the times of repetitions");
    return enough && m->call_seconds != NULL;
}

static void free_samples(measurement *m)
{
    free(m->call_seconds);
    for (int slot = 0; slot < NUM_SLOTS; slot++)
        free(m->seconds[slot]);
}

bool cli_measure(const cli_data *data, pageattn_context *context, const cli_effort *effort,
                 cli_result *result)
{
    measurement m = {.data = data, .context = context};
    /* Long slots where time is plenty, so that CLI_MAX_REPS repetitions fill it. */
    m.slot_seconds = 2 * effort->min_seconds / (NUM_SLOTS * CLI_MAX_REPS);
    m.slot_seconds = m.slot_seconds > MIN_SLOT_SECONDS ? m.slot_seconds : MIN_SLOT_SECONDS;
    m.warm_up_seconds = effort->min_seconds / 10;
    if (m.warm_up_seconds > WARM_UP_SECONDS)
        m.warm_up_seconds = WARM_UP_SECONDS;
    if (!cli_limits_create(data, context, &m.limits))
        return false;
    bool done = allocate_samples(&m) && warm_up(&m);
    if (done) {
        m.num_calls = 0;
        done = run_repetitions(&m, effort);
    }
    if (done)
        summarize(&m, result);
    free_samples(&m);
    cli_limits_destroy(&m.limits);
    return done;
}
