/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a plot shows of the rows. A series is the rows that differ in context length (and number of
 * threads, each of which has panels of its own) and in nothing else.
 */
#ifndef CLI_PLOT_SERIES_H
#define CLI_PLOT_SERIES_H

#include "plot.h"

#define CLI_SERIES_BYTES 320

typedef struct cli_series {
    const cli_row *first;
    char label[CLI_SERIES_BYTES]; /* in what it differs from the others */
} cli_series;

/* Returns how many there are, at most CLI_PLOT_MAX_SERIES. */
int cli_series_find(const cli_plot *plot, cli_series series[CLI_PLOT_MAX_SERIES]);
bool cli_series_has(const cli_plot *plot, const cli_series *series, const cli_row *row);

/* What all of them share. */
void cli_series_shared(const cli_plot *plot, const cli_series *series, int num_series,
                       char text[CLI_SERIES_BYTES]);

/* Of a row: multiply-adds for each byte of keys and values, and 10^9 of them in a second. */
double cli_row_intensity(const cli_row *row);
double cli_row_multiply_adds(const cli_row *row);

#endif
