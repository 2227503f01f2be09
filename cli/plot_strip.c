/* SPDX-License-Identifier: Apache-2.0 */
#include "plot_strip.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#define DIGIT_HEIGHT 12
#define LEAST_DISTANCE 16.0 /* of numbers at the left axis */

static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                      "#7a4fc9", "#c1272d", "#3a9bd9", "#8a6d00"};
/* gnuplot's circle, square, triangle, diamond, and a triangle upside down. */
static const int shapes[] = {7, 5, 9, 13, 11};
static const char *const sequential_shades[CLI_PLOT_MAX_LEVELS] = {"#2f3a42", "#5b6770", "#87929a",
                                                                   "#b0b9bf", "#cdd3d7"};
static const char *const gather_shades[CLI_PLOT_MAX_LEVELS] = {"#7d5600", "#b07d12", "#cfa44a",
                                                               "#e2c688", "#eedcb6"};
static const char *const peak_colours[CLI_PLOT_MAX_PEAKS] = {
    "#111111", "#a0206a", "#20702a", "#2050a0", "#804010", "#606060", "#008080", "#800080"};

const char *cli_series_colour(int series)
{
    return colours[series % (int)(sizeof(colours) / sizeof(*colours))];
}

int cli_series_shape(int series)
{
    return shapes[series % (int)(sizeof(shapes) / sizeof(*shapes))];
}

const char *cli_roof_style(int index, bool gather, char style[64])
{
    snprintf(style, 64, "lw 1.6 lc rgb '%s'%s",
             gather ? gather_shades[index] : sequential_shades[index], gather ? " dt (8,4)" : "");
    return style;
}

const char *cli_peak_style(int index, char style[64])
{
    snprintf(style, 64, "lw 2.4 lc rgb '%s'", peak_colours[index]);
    return style;
}

/* ---- what is measured ---- */

bool cli_strip_has(const cli_strip *s, const cli_row *row)
{
    return row->num_threads == s->num_threads;
}

static void add_roof(cli_strip *s, const char *level, double *scratch)
{
    int64_t count = 0;
    cli_roof *new = &s->roofs[s->num_roofs++];
    new->level = level;
    for (int side = 0; side < 2; side++) {
        count = 0;
        for (int64_t i = 0; i < s->plot->num_rows; i++) {
            const cli_row *row = &s->plot->rows[i];
            if (cli_strip_has(s, row) && strcmp(row->level, level) == 0)
                scratch[count++] =
                    side ? row->result.gather_gb_per_s : row->result.sequential_gb_per_s;
        }
        *(side ? &new->gather : &new->sequential) = cli_median(scratch, count);
    }
}

/* The outermost first. */
static void find_roofs(cli_strip *s, double *scratch)
{
    static const char *const levels[CLI_PLOT_MAX_LEVELS] = {"mem", "L4", "L3", "L2", "L1"};
    for (int level = 0; level < CLI_PLOT_MAX_LEVELS; level++) {
        bool found = false;
        for (int64_t i = 0; i < s->plot->num_rows && !found; i++)
            found = cli_strip_has(s, &s->plot->rows[i]) &&
                    strcmp(s->plot->rows[i].level, levels[level]) == 0;
        if (found)
            add_roof(s, levels[level], scratch);
    }
}

static bool has_peak(const cli_peak *p, const cli_row *row)
{
    return p->isa == row->isa && p->numerics == row->numerics;
}

static void find_peaks(cli_strip *s, double *scratch)
{
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const cli_row *row = &s->plot->rows[i];
        int found = 0;
        while (found < s->num_peaks && !has_peak(&s->peaks[found], row))
            found++;
        if (cli_strip_has(s, row) && found == s->num_peaks && found < CLI_PLOT_MAX_PEAKS)
            s->peaks[s->num_peaks++] = (cli_peak){.isa = row->isa, .numerics = row->numerics};
    }
    for (int p = 0; p < s->num_peaks; p++) {
        int64_t count = 0;
        for (int64_t i = 0; i < s->plot->num_rows; i++) {
            const cli_row *row = &s->plot->rows[i];
            if (cli_strip_has(s, row) && has_peak(&s->peaks[p], row))
                scratch[count++] = 16 * row->result.multiply_adds_per_ns;
        }
        s->peaks[p].multiply_adds = cli_median(scratch, count);
    }
}

void cli_strip_find_limits(cli_strip *s, double *scratch)
{
    find_roofs(s, scratch);
    find_peaks(s, scratch);
}

bool cli_strip_shows(const cli_strip *s, const cli_row *row)
{
    return cli_strip_has(s, row) && row->wanted.lengths.fixed > 0;
}

int64_t cli_strip_next_length(const cli_strip *s, int64_t last)
{
    int64_t next = 0;
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const int64_t length = s->plot->rows[i].wanted.lengths.fixed;
        if (cli_strip_shows(s, &s->plot->rows[i]) && length > last && (next == 0 || length < next))
            next = length;
    }
    return next;
}

const cli_row *cli_strip_last_row(const cli_strip *s, int series, bool of_fixed_length)
{
    const cli_row *last = NULL;
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const cli_row *row = &s->plot->rows[i];
        if (!cli_strip_has(s, row) || !cli_series_has(s->plot, &s->series[series], row))
            continue;
        if (of_fixed_length && row->wanted.lengths.fixed == 0)
            continue;
        if (last == NULL || row->wanted.lengths.fixed > last->wanted.lengths.fixed)
            last = row;
    }
    return last;
}

bool cli_strip_has_mixtures(const cli_strip *s)
{
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        if (s->plot->rows[i].wanted.lengths.fixed == 0)
            return true;
    }
    return false;
}

bool cli_strip_has_band(const cli_strip *s)
{
    return s->num_series > 1 && cli_strip_next_length(s, 0) > 0;
}

void cli_widen(double *low, double *high, double value)
{
    *low = value < *low ? value : *low;
    *high = value > *high ? value : *high;
}

/* ---- pieces of script ---- */

/* In single quotes gnuplot replaces nothing. What is not ASCII becomes a question mark. */
static void put_text(FILE *out, const char *text)
{
    fputc('\'', out);
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            fputc('\'', out);
        fputc(*text < 0x20 || *text > 0x7e ? '?' : *text, out);
    }
    fputc('\'', out);
}

void cli_put_label(const cli_strip *s, double x, double y, const char *text, const char *style)
{
    fprintf(s->out, "set label ");
    put_text(s->out, text);
    fprintf(s->out, " at screen %.5f,%.5f %s\n", x / CLI_PLOT_WIDTH, y / s->canvas_height, style);
}

void cli_put_stroke(const cli_strip *s, double x0, double y0, double x1, double y1,
                    const char *style)
{
    fprintf(s->out, "set arrow from screen %.5f,%.5f to screen %.5f,%.5f nohead %s\n",
            x0 / CLI_PLOT_WIDTH, y0 / s->canvas_height, x1 / CLI_PLOT_WIDTH, y1 / s->canvas_height,
            style);
}

/* 1, 2, 5, 10, ...: an axis of less than a power of ten needs more than gnuplot gives it. A long
 * one has powers of ten only. */
static void put_y_tics(const cli_strip *s, const cli_panel *panel)
{
    static const double steps[] = {1, 2, 5};
    const double doubling = cli_panel_y(panel, 2) - cli_panel_y(panel, 1);
    const int num_steps = doubling > LEAST_DISTANCE ? 3 : 1;
    const char *comma = "";
    fprintf(s->out, "set ytics (");
    for (int power = -6; power < 9; power++) {
        for (int step = 0; step < num_steps; step++) {
            const double value = steps[step] * pow(10, power);
            if (value < panel->y_low || value > panel->y_high)
                continue;
            fprintf(s->out, "%s'%.9g' %.9g", comma, value, value);
            comma = ", ";
        }
    }
    fprintf(s->out, ")\n");
}

void cli_begin_x_tics(const cli_strip *s, cli_tics *tics)
{
    *tics = (cli_tics){.comma = "", .taken = -HUGE_VAL};
    fprintf(s->out, "set xtics (");
}

void cli_put_x_tic(const cli_strip *s, const cli_panel *panel, cli_tics *tics, double value,
                   const char *text)
{
    const double x = cli_panel_x(panel, value);
    const double half = (double)strlen(text) * CLI_PLOT_DIGIT_WIDTH / 2 + 4;
    if (value < panel->x_low || value > panel->x_high || x - half < tics->taken)
        return;
    fprintf(s->out, "%s'%s' %.9g", tics->comma, text, value);
    tics->comma = ", ";
    tics->taken = x + half;
}

void cli_end_x_tics(const cli_strip *s)
{
    fprintf(s->out, ")\n");
}

void cli_put_panel(const cli_strip *s, const cli_panel *panel, const char *title)
{
    fprintf(s->out, "set lmargin at screen %.5f\nset rmargin at screen %.5f\n",
            panel->left / CLI_PLOT_WIDTH, (panel->left + panel->width) / CLI_PLOT_WIDTH);
    fprintf(s->out, "set bmargin at screen %.5f\nset tmargin at screen %.5f\n",
            panel->bottom / s->canvas_height, (panel->bottom + panel->height) / s->canvas_height);
    fprintf(s->out, "set xrange [%.9g:%.9g]\nset yrange [%.9g:%.9g]\n", panel->x_low, panel->x_high,
            panel->y_low, panel->y_high);
    fprintf(s->out, "set logscale x 2\nset logscale y 10\n");
    put_y_tics(s, panel);
    cli_put_label(s, panel->left, panel->bottom + panel->height + 14, title, "font ',13'");
}

void cli_put_number(const cli_strip *s, cli_panel *panel, int series, double at_x, double at_y)
{
    char number[16], style[80];
    double x, y;
    snprintf(number, sizeof(number), "%d", series + 1);
    const bool far = cli_panel_put_label(
        panel, at_x, at_y, CLI_PLOT_DIGIT_WIDTH * (double)strlen(number), DIGIT_HEIGHT, &x, &y);
    snprintf(style, sizeof(style), "center font ',12' tc rgb '%s'", cli_series_colour(series));
    cli_put_label(s, x, y, number, style);
    snprintf(style, sizeof(style), "lw 0.6 lc rgb '%s'", cli_series_colour(series));
    if (far)
        cli_put_stroke(s, cli_panel_x(panel, at_x), cli_panel_y(panel, at_y), x, y, style);
}
