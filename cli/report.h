/* SPDX-License-Identifier: Apache-2.0 */
/* Writes results: an aligned table, Markdown, CSV or JSON, a row as soon as it is measured. */
#ifndef CLI_REPORT_H
#define CLI_REPORT_H

#include <stdio.h>

#include "environment.h"
#include "measure.h"

typedef struct cli_row {
    cli_case wanted;
    char name[CLI_NAME_BYTES]; /* of the workload */
    int32_t num_threads;
    pageattn_isa isa;
    pageattn_numerics numerics;
    const char *level; /* what holds the working set */
    int64_t kv_bytes;
    cli_result result;
    double old_gb_per_s; /* of the same case in the file to compare with; 0: not there */
    double old_of_gather;
} cli_row;

typedef enum cli_format { CLI_TABLE, CLI_MD, CLI_CSV, CLI_JSON } cli_format;

typedef struct cli_report {
    FILE *out;
    cli_format format;
    bool compares;
    const cli_environment *environment;
    char heading[2 * CLI_NAME_BYTES]; /* the table's current one */
    int64_t num_rows;
} cli_report;

/* Says which case a row is: no two cases have the same. Returns key. */
#define CLI_KEY_BYTES 320
char *cli_row_key(const cli_row *row, char key[CLI_KEY_BYTES]);

const char *cli_layout_name(pageattn_kv_layout layout);
const char *cli_numerics_name(pageattn_numerics numerics); /* exact, fast */

/* begin and end are called once each, also where there is no row: the output is always whole. */
void cli_report_begin(cli_report *report);
void cli_report_row(cli_report *report, const cli_row *row);
void cli_report_end(cli_report *report);

#endif
