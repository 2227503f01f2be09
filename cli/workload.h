/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a benchmark computes: the shape of the attention, and how long the sequences are.
 *
 * A workload's name says its shape:
 *     gqa_paged_decode_h32_kv8_d128_ps16            32 query heads, 8 KV heads, head_dim 128, pages
 * of 16 gqa_paged_decode_h16_kv8_d256_ps16_w4096_cap50   a sliding window, a soft cap
 */
#ifndef CLI_WORKLOAD_H
#define CLI_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define CLI_NAME_BYTES 96
#define CLI_DEFAULT_PAGE_SIZE 16

/* What a benchmark accepts; far above what a machine can hold. */
#define CLI_MAX_HEADS 4096
#define CLI_MAX_HEAD_DIM 1024
#define CLI_MAX_PAGE_SIZE 65536
#define CLI_MAX_CONTEXT (INT64_C(1) << 30)
#define CLI_MAX_BATCH 65536

typedef struct cli_workload {
    int64_t num_heads;
    int64_t num_kv_heads;
    int64_t head_dim;
    int64_t page_size;
    int64_t window;   /* 0: none */
    int64_t soft_cap; /* 0: none */
} cli_workload;

/* A distribution of context lengths. */
typedef struct cli_lengths {
    char name[24];         /* "4096", "ragged", "chat" */
    int64_t default_batch; /* sequences, where the caller names no number */
    int64_t fixed;         /* > 0: all sequences are this long */
} cli_lengths;

/* Whole numbers, decimal digits only, in [low, high]. */
bool cli_parse_int(const char *text, int64_t low, int64_t high, int64_t *value);

/* All of these say what is wrong, on standard error, where they return false. */
bool cli_workload_parse(const char *name, cli_workload *workload);
bool cli_workload_of_model(const char *model, cli_workload *workload);
bool cli_lengths_parse(const char *text, cli_lengths *lengths);

/* The name that cli_workload_parse would understand; returns it. */
char *cli_workload_name(const cli_workload *workload, char name[CLI_NAME_BYTES]);

/* The model shapes: name number `index`, or NULL past the last. */
const char *cli_model_name(int index);

/* The context lengths of num_seqs sequences; the same in each run. */
void cli_lengths_make(const cli_lengths *lengths, int64_t num_seqs, int32_t *context_lens);

/* Models, distributions and the grammar of names. */
void cli_workload_list(FILE *out);

#endif
