/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times a call and the limits beside it. In each repetition all of them run, one after the other,
 * so that whatever else the machine does at the time hits all alike; what is reported are medians
 * of the ratios within repetitions.
 */
#ifndef CLI_MEASURE_H
#define CLI_MEASURE_H

#include "data.h"
#include "limit_loops.h"

#define CLI_MAX_REPS 4096

typedef struct cli_effort {
    double min_seconds; /* to spend on repetitions, at least */
    int64_t min_reps;   /* at least so many repetitions */
} cli_effort;

typedef struct cli_result {
    int64_t num_workers;
    cli_prefetch prefetch;  /* with which the gather read was fastest */
    int64_t prefetch_bytes; /* and how far ahead */
    int64_t num_reps;
    int64_t num_calls;
    double us;            /* of a call: the median over repetitions */
    double us_p95;        /* over calls */
    double spread;        /* of the repetitions: quartiles' distance over median */
    double gb_per_s;      /* keys and values attended to, over time */
    double tokens_per_s;  /* sequences over time */
    double of_sequential; /* speed over that of the sequential read */
    double of_gather;     /* ... of the gather read */
    double of_multiply_add;
    double sequential_gb_per_s;
    double gather_gb_per_s;
    double multiply_adds_per_ns; /* sixteenths of them, all workers together */
} cli_result;

/* Of an array that is not empty; sorts it. */
double cli_median(double *values, int64_t count);

/* False, with a sentence on standard error, if it could not be done. */
bool cli_measure(const cli_data *data, pageattn_context *context, const cli_effort *effort,
                 cli_result *result);

#endif
