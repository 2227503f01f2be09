/* SPDX-License-Identifier: Apache-2.0 */
/* An earlier run, read from the JSON that --format json wrote. */
#ifndef CLI_COMPARE_H
#define CLI_COMPARE_H

#include "json.h"
#include "report.h"

typedef struct cli_old_run {
    char *text;
    cli_json_document document;
    const cli_json *results;
} cli_old_run;

/* False, with a sentence on standard error, if the file can't be read or is not such a run. */
bool cli_old_run_read(const char *path, cli_old_run *old);
void cli_old_run_free(cli_old_run *old);

/* Fills row->old_*; false, and zeros, if the old run has no such case. */
bool cli_old_run_find(const cli_old_run *old, cli_row *row);

#endif
