/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One strip of a plot: what belongs to one number of threads, its measured limits, and the pieces
 * of gnuplot script that all of its parts are made of. Places are in pixels from the lower left
 * corner.
 */
#ifndef CLI_PLOT_STRIP_H
#define CLI_PLOT_STRIP_H

#include "panel.h"
#include "plot_series.h"

/* Pixels. */
#define CLI_PLOT_WIDTH 1340
#define CLI_PLOT_HEADER 64
#define CLI_PLOT_ROOFLINE_LEFT 70
#define CLI_PLOT_ROOFLINE_WIDTH 420
#define CLI_PLOT_BANDWIDTH_LEFT 560
#define CLI_PLOT_BANDWIDTH_WIDTH 380
#define CLI_PLOT_LEGEND_LEFT 970
#define CLI_PLOT_LEGEND_LINE 17
#define CLI_PLOT_DIGIT_WIDTH 7
#define CLI_PLOT_BELOW_PANEL 58
#define CLI_PLOT_ABOVE_PANEL 34
#define CLI_PLOT_MIN_PANEL_HEIGHT 300

#define CLI_PLOT_MAX_LEVELS 5 /* L1 to L4, and memory */
#define CLI_PLOT_MAX_PEAKS 8  /* instruction sets times numerics */

/* How fast a level of the memory is read. */
typedef struct cli_roof {
    const char *level;
    double sequential; /* GB/s */
    double gather;
} cli_roof;

/* How fast an instruction multiplies and adds. */
typedef struct cli_peak {
    pageattn_isa isa;
    pageattn_numerics numerics;
    double multiply_adds; /* 10^9 in a second */
} cli_peak;

/* What belongs to one number of threads. */
typedef struct cli_strip {
    const cli_plot *plot;
    const cli_series *series;
    int num_series;
    int32_t num_threads;
    bool names_series; /* in the legend: the first strip does */
    cli_panel *panel;  /* the one that is being drawn */
    cli_roof roofs[CLI_PLOT_MAX_LEVELS];
    int num_roofs;
    cli_peak peaks[CLI_PLOT_MAX_PEAKS];
    int num_peaks;
    double bottom, height; /* of its panels */
    double canvas_height;
    double legend_y; /* of the next line */
    FILE *out;
} cli_strip;

/* Fills roofs and peaks; `scratch` has a number for each row. */
void cli_strip_find_limits(cli_strip *s, double *scratch);

bool cli_strip_has(const cli_strip *s, const cli_row *row);

/* Whether the right panel has it: it is of one length. */
bool cli_strip_shows(const cli_strip *s, const cli_row *row);

/* The least context length above `last`, 0: none. */
int64_t cli_strip_next_length(const cli_strip *s, int64_t last);

/* The longest of a series; NULL if there is none. */
const cli_row *cli_strip_last_row(const cli_strip *s, int series, bool of_fixed_length);

bool cli_strip_has_mixtures(const cli_strip *s);

/* The right panel shows limits as bands where several series can differ in them. */
bool cli_strip_has_band(const cli_strip *s);

const char *cli_series_colour(int series);
int cli_series_shape(int series); /* gnuplot's number of it */
const char *cli_roof_style(int index, bool gather, char style[64]);
const char *cli_peak_style(int index, char style[64]);

void cli_widen(double *low, double *high, double value);

/* `style` is the rest of a label's or an arrow's command. */
void cli_put_label(const cli_strip *s, double x, double y, const char *text, const char *style);
void cli_put_stroke(const cli_strip *s, double x0, double y0, double x1, double y1,
                    const char *style);

/* The frame, axes and title of a panel. */
void cli_put_panel(const cli_strip *s, const cli_panel *panel, const char *title);

/* The numbers below a panel, from the left; those that there is no room for are left out. */
typedef struct cli_tics {
    const char *comma;
    double taken; /* up to here, in pixels */
} cli_tics;

void cli_begin_x_tics(const cli_strip *s, cli_tics *tics);
void cli_put_x_tic(const cli_strip *s, const cli_panel *panel, cli_tics *tics, double value,
                   const char *text);
void cli_end_x_tics(const cli_strip *s);

/* The number of a series beside one of its points. */
void cli_put_number(const cli_strip *s, cli_panel *panel, int series, double at_x, double at_y);

/* The parts of a strip: plot_legend.c, plot_roofline.c, plot_bandwidth.c. */
double cli_legend_height(const cli_strip *s);
void cli_put_legend(cli_strip *s);
void cli_put_roofline(const cli_strip *s);
void cli_put_bandwidth(const cli_strip *s);

#endif
