/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of `pageattn bench`. */
#ifndef CLI_BENCH_OPTIONS_H
#define CLI_BENCH_OPTIONS_H

#include "report.h"

/* Entries of a list, workloads included; more is an error, not a truncation. */
#define CLI_MAX_LIST 64

typedef struct cli_bench_options {
    cli_workload workloads[CLI_MAX_LIST];
    int num_workloads;
    pageattn_type kv_types[CLI_MAX_LIST];
    int num_kv_types;
    cli_lengths lengths[CLI_MAX_LIST];
    int num_lengths;
    int64_t batches[CLI_MAX_LIST]; /* 0: the default of the lengths */
    int num_batches;
    int64_t page_sizes[CLI_MAX_LIST]; /* 0: the workload's */
    int num_page_sizes;
    int64_t threads[CLI_MAX_LIST];
    int num_threads;
    pageattn_isa isas[CLI_MAX_LIST];
    int num_isas;
    pageattn_numerics numerics[CLI_MAX_LIST];
    int num_numerics;
    pageattn_kv_layout layouts[CLI_MAX_LIST];
    int num_layouts;
    bool shuffled[CLI_MAX_LIST];
    int num_orders;
    cli_effort effort;
    cli_format format;
    const char *compare; /* path; NULL: none */
    const char *plot;    /* likewise */
} cli_bench_options;

typedef enum cli_asked { CLI_RUN, CLI_HELP, CLI_LIST, CLI_WRONG } cli_asked;

/* CLI_WRONG: a sentence is on standard error. */
cli_asked cli_bench_options_parse(int num_arguments, char **arguments, cli_bench_options *options);

void cli_bench_help(FILE *out);

#endif
