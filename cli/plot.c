/*
 * Lays the drawing out and writes it as a gnuplot script. All places are computed here, in pixels,
 * so that labels can be kept from each other.
 *
 *     title
 *     1 thread     roofline | bandwidth against context length | legend
 *     2 threads    roofline | bandwidth against context length | legend
 */
#include "plot.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "gnuplot.h"
#include "panel.h"
#include "plot_series.h"
#include "say.h"
#include "whole_file.h"

/* Pixels. */
#define WIDTH 1340
#define HEADER 64
#define ROOFLINE_LEFT 70
#define ROOFLINE_WIDTH 420
#define BANDWIDTH_LEFT 560
#define BANDWIDTH_WIDTH 380
#define LEGEND_LEFT 970
#define LEGEND_LINE 17
#define BELOW_PANEL 58
#define ABOVE_PANEL 34
#define MIN_PANEL_HEIGHT 300
#define DIGIT_WIDTH 7
#define DIGIT_HEIGHT 12

#define LEGEND_COLUMNS 45 /* characters of a line */
#define MAX_LEVELS 5      /* L1 to L4, and memory */
#define MAX_PEAKS 8       /* instruction sets times numerics */

#define SEQUENTIAL_COLOUR "#5b6770"
#define GATHER_COLOUR "#b07d12"

/* How fast a level of the memory is read. */
typedef struct roof {
    const char *level;
    double sequential; /* GB/s */
    double gather;
} roof;

/* How fast an instruction multiplies and adds. */
typedef struct peak {
    pageattn_isa isa;
    pageattn_numerics numerics;
    double multiply_adds; /* 10^9 in a second */
} peak;

/* What belongs to one number of threads. */
typedef struct strip {
    const cli_plot *plot;
    const cli_series *series;
    int num_series;
    int32_t num_threads;
    bool names_series; /* in the legend: the first strip does */
    double *scratch;   /* a number for each row */
    cli_panel *panel;  /* the one that is being drawn */
    roof roofs[MAX_LEVELS];
    int num_roofs;
    peak peaks[MAX_PEAKS];
    int num_peaks;
    double bottom, height; /* of its panels */
    double canvas_height;
    double legend_y; /* of the next line */
    FILE *out;
} strip;

static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                      "#7a4fc9", "#c1272d", "#3a9bd9", "#8a6d00"};
static const int shapes[] = {7, 5, 9, 13,
                             11}; /* gnuplot's: circle, square, two triangles, diamond */
static const char *const sequential_shades[MAX_LEVELS] = {"#2f3a42", "#5b6770", "#87929a",
                                                          "#b0b9bf", "#cdd3d7"};
static const char *const gather_shades[MAX_LEVELS] = {"#7d5600", "#b07d12", "#cfa44a", "#e2c688",
                                                      "#eedcb6"};
static const char *const peak_colours[MAX_PEAKS] = {"#111111", "#a0206a", "#20702a", "#2050a0",
                                                    "#804010", "#606060", "#008080", "#800080"};

static const char *const not_of_one_length = "ragged and chat: left panel only";
static const char *const about_bands = "(right panel: from least to greatest)";

static const char *colour_of(int series)
{
    return colours[series % (int)(sizeof(colours) / sizeof(*colours))];
}

static int shape_of(int series)
{
    return shapes[series % (int)(sizeof(shapes) / sizeof(*shapes))];
}

/* ---- what is measured, of one number of threads ---- */

static bool in_strip(const strip *s, const cli_row *row)
{
    return row->num_threads == s->num_threads;
}

static void add_roof(strip *s, const char *level)
{
    int64_t count = 0;
    roof *new = &s->roofs[s->num_roofs++];
    new->level = level;
    for (int side = 0; side < 2; side++) {
        count = 0;
        for (int64_t i = 0; i < s->plot->num_rows; i++) {
            const cli_row *row = &s->plot->rows[i];
            if (in_strip(s, row) && strcmp(row->level, level) == 0)
                s->scratch[count++] =
                    side ? row->result.gather_gb_per_s : row->result.sequential_gb_per_s;
        }
        *(side ? &new->gather : &new->sequential) = cli_median(s->scratch, count);
    }
}

/* The outermost first. */
static void find_roofs(strip *s)
{
    static const char *const levels[MAX_LEVELS] = {"mem", "L4", "L3", "L2", "L1"};
    for (int level = 0; level < MAX_LEVELS; level++) {
        bool found = false;
        for (int64_t i = 0; i < s->plot->num_rows && !found; i++)
            found = in_strip(s, &s->plot->rows[i]) &&
                    strcmp(s->plot->rows[i].level, levels[level]) == 0;
        if (found)
            add_roof(s, levels[level]);
    }
}

static bool has_peak(const peak *p, const cli_row *row)
{
    return p->isa == row->isa && p->numerics == row->numerics;
}

static void find_peaks(strip *s)
{
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const cli_row *row = &s->plot->rows[i];
        int found = 0;
        while (found < s->num_peaks && !has_peak(&s->peaks[found], row))
            found++;
        if (in_strip(s, row) && found == s->num_peaks && found < MAX_PEAKS)
            s->peaks[s->num_peaks++] = (peak){.isa = row->isa, .numerics = row->numerics};
    }
    for (int p = 0; p < s->num_peaks; p++) {
        int64_t count = 0;
        for (int64_t i = 0; i < s->plot->num_rows; i++) {
            const cli_row *row = &s->plot->rows[i];
            if (in_strip(s, row) && has_peak(&s->peaks[p], row))
                s->scratch[count++] = 16 * row->result.multiply_adds_per_ns;
        }
        s->peaks[p].multiply_adds = cli_median(s->scratch, count);
    }
}

static bool is_shown(const strip *s, const cli_row *row)
{
    return in_strip(s, row) && row->wanted.lengths.fixed > 0;
}

/* The least context length above `last`, 0: none. */
static int64_t next_length(const strip *s, int64_t last)
{
    int64_t next = 0;
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const int64_t length = s->plot->rows[i].wanted.lengths.fixed;
        if (is_shown(s, &s->plot->rows[i]) && length > last && (next == 0 || length < next))
            next = length;
    }
    return next;
}

static bool has_mixtures(const strip *s)
{
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        if (s->plot->rows[i].wanted.lengths.fixed == 0)
            return true;
    }
    return false;
}

/* The right panel shows limits as bands where several series can differ in them. */
static bool has_band(const strip *s)
{
    return s->num_series > 1 && next_length(s, 0) > 0;
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

/* `style` is the rest of a label's command. */
static void put_label(const strip *s, double x, double y, const char *text, const char *style)
{
    fprintf(s->out, "set label ");
    put_text(s->out, text);
    fprintf(s->out, " at screen %.5f,%.5f %s\n", x / WIDTH, y / s->canvas_height, style);
}

static void put_stroke(const strip *s, double x0, double y0, double x1, double y1,
                       const char *style)
{
    fprintf(s->out, "set arrow from screen %.5f,%.5f to screen %.5f,%.5f nohead %s\n", x0 / WIDTH,
            y0 / s->canvas_height, x1 / WIDTH, y1 / s->canvas_height, style);
}

/* 1, 2, 5, 10, ...: an axis of less than a power of ten needs more than gnuplot gives it. */
static void put_tics(const strip *s, const cli_panel *panel)
{
    static const double steps[] = {1, 2, 5};
    const char *comma = "";
    fprintf(s->out, "set ytics (");
    for (int power = -3; power < 9; power++) {
        for (int step = 0; step < 3; step++) {
            const double value = steps[step] * pow(10, power);
            if (value < panel->y_low || value > panel->y_high)
                continue;
            fprintf(s->out, "%s'%.9g' %.9g", comma, value, value);
            comma = ", ";
        }
    }
    fprintf(s->out, ")\n");
}

static void put_panel(const strip *s, const cli_panel *panel, const char *title)
{
    fprintf(s->out, "set lmargin at screen %.5f\nset rmargin at screen %.5f\n", panel->left / WIDTH,
            (panel->left + panel->width) / WIDTH);
    fprintf(s->out, "set bmargin at screen %.5f\nset tmargin at screen %.5f\n",
            panel->bottom / s->canvas_height, (panel->bottom + panel->height) / s->canvas_height);
    fprintf(s->out, "set xrange [%.9g:%.9g]\nset yrange [%.9g:%.9g]\n", panel->x_low, panel->x_high,
            panel->y_low, panel->y_high);
    fprintf(s->out, "set logscale x 2\nset logscale y 10\n");
    put_tics(s, panel);
    put_label(s, panel->left, panel->bottom + panel->height + 14, title, "font ',13'");
}

static void put_row_point(const strip *s, double x, double y)
{
    fprintf(s->out, "%.9g %.9g\n", x, y);
}

/* The number of a series beside one of its points. */
static void put_number(const strip *s, cli_panel *panel, int series, double at_x, double at_y)
{
    char number[16], style[80];
    double x, y;
    snprintf(number, sizeof(number), "%d", series + 1);
    const bool far = cli_panel_put_label(panel, at_x, at_y, DIGIT_WIDTH * (double)strlen(number),
                                         DIGIT_HEIGHT, &x, &y);
    snprintf(style, sizeof(style), "center font ',12' tc rgb '%s'", colour_of(series));
    put_label(s, x, y, number, style);
    snprintf(style, sizeof(style), "lw 0.6 lc rgb '%s'", colour_of(series));
    if (far)
        put_stroke(s, cli_panel_x(panel, at_x), cli_panel_y(panel, at_y), x, y, style);
}

/* ---- legend ---- */

/* The first line of what is left of a text, cut at a space; returns the rest. */
static const char *cut_line(const char *text, char line[LEGEND_COLUMNS + 1])
{
    size_t length = strlen(text);
    if (length > LEGEND_COLUMNS) {
        length = LEGEND_COLUMNS;
        while (length > 0 && text[length] != ' ')
            length--;
        length = length ? length : LEGEND_COLUMNS;
    }
    memcpy(line, text, length);
    line[length] = '\0';
    text += length;
    return text + (*text == ' ');
}

static int num_lines(const char *text)
{
    char line[LEGEND_COLUMNS + 1];
    int count = 0;
    do {
        text = cut_line(text, line);
        count++;
    } while (*text != '\0');
    return count;
}

static void put_legend_text(strip *s, const char *text, const char *style)
{
    char line[LEGEND_COLUMNS + 1];
    do {
        text = cut_line(text, line);
        put_label(s, LEGEND_LEFT + 36, s->legend_y, line, style);
        s->legend_y -= LEGEND_LINE;
    } while (*text != '\0');
}

static void put_legend_line(strip *s, const char *text, const char *line_style)
{
    put_stroke(s, LEGEND_LEFT, s->legend_y, LEGEND_LEFT + 28, s->legend_y, line_style);
    put_legend_text(s, text, "");
}

static void put_legend_heading(strip *s, const char *text)
{
    put_label(s, LEGEND_LEFT, s->legend_y, text, "font ',13'");
    s->legend_y -= LEGEND_LINE;
}

static const char *roof_style(int index, bool gather, char style[64])
{
    snprintf(style, 64, "lw 1.6 lc rgb '%s'%s",
             gather ? gather_shades[index] : sequential_shades[index], gather ? " dt (8,4)" : "");
    return style;
}

static const char *peak_style(int index, char style[64])
{
    snprintf(style, 64, "lw 2.4 lc rgb '%s'", peak_colours[index]);
    return style;
}

static void put_legend_roofs(strip *s)
{
    char text[120], style[64];
    put_legend_heading(s, "limits, measured beside the calls");
    for (int i = 0; i < s->num_peaks; i++) {
        snprintf(text, sizeof(text), "multiply-adds, %s %s: %.3g G/s",
                 pageattn_isa_name(s->peaks[i].isa), cli_numerics_name(s->peaks[i].numerics),
                 s->peaks[i].multiply_adds);
        put_legend_line(s, text, peak_style(i, style));
    }
    for (int i = 0; i < s->num_roofs; i++) {
        const bool memory = strcmp(s->roofs[i].level, "mem") == 0;
        for (int gather = 0; gather < 2; gather++) {
            snprintf(text, sizeof(text), "%s read, %s: %.3g GB/s", gather ? "gather" : "sequential",
                     memory ? "memory" : s->roofs[i].level,
                     gather ? s->roofs[i].gather : s->roofs[i].sequential);
            put_legend_line(s, text, roof_style(i, gather, style));
        }
    }
    if (has_band(s))
        put_legend_text(s, about_bands, "tc rgb '#555555'");
}

static void put_legend_series(strip *s)
{
    char text[CLI_SERIES_BYTES + 8], style[64];
    put_legend_heading(s, "attention");
    for (int i = 0; i < s->num_series; i++) {
        snprintf(style, sizeof(style), "point pt %d ps 0.8 lc rgb '%s'", shape_of(i), colour_of(i));
        put_label(s, LEGEND_LEFT + 6, s->legend_y, "", style);
        snprintf(text, sizeof(text), "%d", i + 1);
        snprintf(style, sizeof(style), "right tc rgb '%s'", colour_of(i));
        put_label(s, LEGEND_LEFT + 29, s->legend_y, text, style);
        put_legend_text(s, s->series[i].label, "");
    }
}

static double legend_height(const strip *s)
{
    int lines = 1 + s->num_peaks + 2 * s->num_roofs;
    if (s->names_series) {
        lines += 2;
        for (int i = 0; i < s->num_series; i++)
            lines += num_lines(s->series[i].label);
        lines += has_mixtures(s) ? num_lines(not_of_one_length) : 0;
    }
    lines += has_band(s) ? num_lines(about_bands) : 0;
    return LEGEND_LINE * lines;
}

static void put_legend(strip *s)
{
    s->legend_y = s->bottom + s->height + 14;
    if (s->names_series) {
        put_legend_series(s);
        if (has_mixtures(s))
            put_legend_text(s, not_of_one_length, "tc rgb '#555555'");
        s->legend_y -= LEGEND_LINE;
    }
    put_legend_roofs(s);
}

/* ---- roofline ---- */

static void widen(double *low, double *high, double value)
{
    *low = value < *low ? value : *low;
    *high = value > *high ? value : *high;
}

static double highest_peak(const strip *s)
{
    double best = 0;
    for (int i = 0; i < s->num_peaks; i++)
        best = s->peaks[i].multiply_adds > best ? s->peaks[i].multiply_adds : best;
    return best;
}

static double fastest_read(const strip *s)
{
    double best = 0;
    for (int i = 0; i < s->num_roofs; i++) {
        best = s->roofs[i].sequential > best ? s->roofs[i].sequential : best;
        best = s->roofs[i].gather > best ? s->roofs[i].gather : best;
    }
    return best;
}

/* All points and all corners of the roofs are inside. */
static void span_roofline(const strip *s, cli_panel *panel)
{
    panel->x_low = panel->y_low = HUGE_VAL;
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const cli_row *row = &s->plot->rows[i];
        if (!in_strip(s, row))
            continue;
        widen(&panel->x_low, &panel->x_high, cli_row_intensity(row));
        widen(&panel->y_low, &panel->y_high, cli_row_multiply_adds(row));
    }
    for (int i = 0; i < s->num_roofs; i++) {
        widen(&panel->x_low, &panel->x_high, highest_peak(s) / s->roofs[i].gather);
        widen(&panel->x_low, &panel->x_high, highest_peak(s) / s->roofs[i].sequential);
        widen(&panel->y_low, &panel->y_high, panel->x_low * s->roofs[i].gather);
    }
    widen(&panel->y_low, &panel->y_high, highest_peak(s));
    panel->x_low /= 1.6;
    panel->x_high *= 1.8;
    panel->y_low /= 1.8;
    panel->y_high *= 1.6;
}

static void put_roof_line(const strip *s, cli_panel *panel, double x0, double y0, double x1,
                          double y1, const char *style)
{
    cli_panel_put_line(panel, x0, y0, x1, y1);
    put_stroke(s, cli_panel_x(panel, x0), cli_panel_y(panel, y0), cli_panel_x(panel, x1),
               cli_panel_y(panel, y1), style);
}

/* A read limit rises until the highest of the multiply-adds; those begin at the fastest read. */
static void put_roofs(const strip *s, cli_panel *panel)
{
    char style[64];
    const double top = highest_peak(s);
    for (int i = 0; i < s->num_roofs; i++) {
        for (int gather = 0; gather < 2; gather++) {
            const double speed = gather ? s->roofs[i].gather : s->roofs[i].sequential;
            const double from =
                speed * panel->x_low > panel->y_low ? panel->x_low : panel->y_low / speed;
            put_roof_line(s, panel, from, from * speed, top / speed, top,
                          roof_style(i, gather, style));
        }
    }
    for (int i = 0; i < s->num_peaks; i++) {
        const double y = s->peaks[i].multiply_adds;
        const double corner = y / fastest_read(s);
        put_roof_line(s, panel, corner > panel->x_low ? corner : panel->x_low, y, panel->x_high, y,
                      peak_style(i, style));
    }
}

static const cli_row *last_row(const strip *s, int series, bool of_fixed_length)
{
    const cli_row *last = NULL;
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const cli_row *row = &s->plot->rows[i];
        if (!in_strip(s, row) || !cli_series_has(s->plot, &s->series[series], row))
            continue;
        if (of_fixed_length && row->wanted.lengths.fixed == 0)
            continue;
        if (last == NULL || row->wanted.lengths.fixed > last->wanted.lengths.fixed)
            last = row;
    }
    return last;
}

static void number_roofline(const strip *s, cli_panel *panel)
{
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const cli_row *row = &s->plot->rows[i];
        if (in_strip(s, row))
            cli_panel_put_point(panel, cli_row_intensity(row), cli_row_multiply_adds(row));
    }
    for (int i = 0; i < s->num_series; i++) {
        const cli_row *row = last_row(s, i, false);
        if (row != NULL)
            put_number(s, panel, i, cli_row_intensity(row), cli_row_multiply_adds(row));
    }
}

static void put_roofline_points(const strip *s)
{
    const char *comma = "plot ";
    for (int i = 0; i < s->num_series; i++) {
        if (last_row(s, i, false) == NULL)
            continue;
        fprintf(s->out, "%s'-' with points pt %d ps 0.8 lc rgb '%s'", comma, shape_of(i),
                colour_of(i));
        comma = ", ";
    }
    fputc('\n', s->out);
    for (int i = 0; i < s->num_series; i++) {
        bool any = false;
        for (int64_t r = 0; r < s->plot->num_rows; r++) {
            const cli_row *row = &s->plot->rows[r];
            if (!in_strip(s, row) || !cli_series_has(s->plot, &s->series[i], row))
                continue;
            put_row_point(s, cli_row_intensity(row), cli_row_multiply_adds(row));
            any = true;
        }
        if (any)
            fprintf(s->out, "e\n");
    }
}

static void put_roofline(const strip *s)
{
    cli_panel *panel = s->panel;
    *panel = (cli_panel){
        .left = ROOFLINE_LEFT, .bottom = s->bottom, .width = ROOFLINE_WIDTH, .height = s->height};
    char title[64];
    snprintf(title, sizeof(title), "roofline, %" PRId32 " thread%s", s->num_threads,
             s->num_threads == 1 ? "" : "s");
    span_roofline(s, panel);
    put_panel(s, panel, title);
    put_roofs(s, panel);
    number_roofline(s, panel);
    fprintf(s->out, "set xlabel 'multiply-adds for each byte of keys and values'\n"
                    "set ylabel 'multiply-adds, G/s' offset 1,0\n"
                    "set xtics auto\n");
    put_roofline_points(s);
    fprintf(s->out, "unset label\nunset arrow\n");
}

/* ---- bandwidth ---- */

static void span_bandwidth(const strip *s, cli_panel *panel)
{
    if (next_length(s, 0) == 0) {
        panel->x_low = panel->y_low = 1;
        panel->x_high = panel->y_high = 2;
        return;
    }
    panel->x_low = panel->y_low = HUGE_VAL;
    for (int64_t i = 0; i < s->plot->num_rows; i++) {
        const cli_row *row = &s->plot->rows[i];
        if (!is_shown(s, row))
            continue;
        widen(&panel->x_low, &panel->x_high, (double)row->wanted.lengths.fixed);
        widen(&panel->y_low, &panel->y_high, row->result.gb_per_s);
        widen(&panel->y_low, &panel->y_high, row->result.sequential_gb_per_s);
        widen(&panel->y_low, &panel->y_high, row->result.gather_gb_per_s);
    }
    const double span = panel->x_high / panel->x_low;
    panel->x_low /= 1.3 * pow(span, 0.03);
    panel->x_high *= 1.3 * pow(span, 0.1); /* the numbers of the series stand there */
    panel->y_high *= 1.3;
    panel->y_low /= 1.5;
    if (panel->y_low > panel->y_high / 10) /* so that the axis has several numbers */
        panel->y_low = panel->y_high / 10;
}

/* The lengths that were measured, as far as there is room for their numbers. */
static void put_length_tics(const strip *s, const cli_panel *panel)
{
    double taken = -HUGE_VAL;
    const char *comma = "";
    fprintf(s->out, "set xtics (");
    for (int64_t length = 0; (length = next_length(s, length)) > 0;) {
        char text[24];
        const int digits = snprintf(text, sizeof(text), "%" PRId64, length);
        const double x = cli_panel_x(panel, (double)length), half = digits * DIGIT_WIDTH / 2.0 + 3;
        if (x - half < taken)
            continue;
        fprintf(s->out, "%s'%s' %s", comma, text, text);
        comma = ", ";
        taken = x + half;
    }
    fprintf(s->out, ")\n");
}

/* Least and greatest of a limit over the series, for each length. */
static void put_band(const strip *s, bool gather)
{
    for (int64_t length = 0; (length = next_length(s, length)) > 0;) {
        double low = HUGE_VAL, high = 0;
        for (int64_t i = 0; i < s->plot->num_rows; i++) {
            const cli_row *row = &s->plot->rows[i];
            if (is_shown(s, row) && row->wanted.lengths.fixed == length)
                widen(&low, &high,
                      gather ? row->result.gather_gb_per_s : row->result.sequential_gb_per_s);
        }
        /* One length alone would be a dot: it is widened to a dash. */
        const double widths[] = {1, 1 / 1.15, 1.15};
        const bool alone = next_length(s, 0) == length && next_length(s, length) == 0;
        for (int i = alone; i < (alone ? 3 : 1); i++)
            fprintf(s->out, "%.9g %.9g %.9g\n", (double)length * widths[i], low, high);
    }
    fprintf(s->out, "e\n");
}

static void put_series_points(const strip *s, cli_panel *panel, int series)
{
    double last_x = 0, last_y = 0;
    for (int64_t length = 0; (length = next_length(s, length)) > 0;) {
        for (int64_t i = 0; i < s->plot->num_rows; i++) {
            const cli_row *row = &s->plot->rows[i];
            if (!is_shown(s, row) || row->wanted.lengths.fixed != length ||
                !cli_series_has(s->plot, &s->series[series], row))
                continue;
            const double x = (double)length, y = row->result.gb_per_s;
            if (panel == NULL)
                put_row_point(s, x, y);
            else if (last_x > 0)
                cli_panel_put_line(panel, last_x, last_y, x, y);
            if (panel != NULL)
                cli_panel_put_point(panel, x, y);
            last_x = x;
            last_y = y;
        }
    }
}

static void number_bandwidth(const strip *s, cli_panel *panel)
{
    for (int i = 0; i < s->num_series; i++)
        put_series_points(s, panel, i);
    for (int i = 0; i < s->num_series; i++) {
        const cli_row *row = last_row(s, i, true);
        if (row != NULL)
            put_number(s, panel, i, (double)row->wanted.lengths.fixed, row->result.gb_per_s);
    }
}

static void put_bandwidth_curves(const strip *s)
{
    static const char *const band[2] = {SEQUENTIAL_COLOUR, GATHER_COLOUR};
    const char *comma = "plot ";
    for (int gather = 0; gather < 2; gather++) {
        fprintf(s->out,
                "%s'-' using 1:2:3 with filledcurves lc rgb '%s' fs transparent solid 0.15 "
                "noborder",
                comma, band[gather]);
        comma = ", ";
        for (int edge = 2; edge <= 3; edge++)
            fprintf(s->out, ", '-' using 1:%d with lines lw 1.4 lc rgb '%s'%s", edge, band[gather],
                    gather ? " dt (8,4)" : "");
    }
    for (int i = 0; i < s->num_series; i++) {
        if (last_row(s, i, true) != NULL)
            fprintf(s->out, ", '-' with linespoints pt %d ps 0.8 lw 1.6 lc rgb '%s'", shape_of(i),
                    colour_of(i));
    }
    fputc('\n', s->out);
    for (int gather = 0; gather < 2; gather++) {
        for (int use = 0; use < 3; use++)
            put_band(s, gather);
    }
    for (int i = 0; i < s->num_series; i++) {
        if (last_row(s, i, true) == NULL)
            continue;
        put_series_points(s, NULL, i);
        fprintf(s->out, "e\n");
    }
}

/* Where every case is a mixture there is nothing to draw a curve of. */
static void put_no_bandwidth(const strip *s, const cli_panel *panel)
{
    put_label(s, panel->left + panel->width / 2, panel->bottom + panel->height / 2,
              "only mixtures were measured", "center");
    put_label(s, panel->left + panel->width / 2, panel->bottom + panel->height / 2 - LEGEND_LINE,
              "--context 128,1024,8192 gives curves", "center");
    fprintf(s->out, "unset xtics\nunset ytics\nplot -1\nset ytics\n");
}

static void put_bandwidth(const strip *s)
{
    cli_panel *panel = s->panel;
    *panel = (cli_panel){
        .left = BANDWIDTH_LEFT, .bottom = s->bottom, .width = BANDWIDTH_WIDTH, .height = s->height};
    const bool empty = next_length(s, 0) == 0;
    span_bandwidth(s, panel);
    put_panel(s, panel, "bandwidth against context length");
    fprintf(s->out, "set xlabel 'tokens of a sequence'\nset ylabel 'keys and values, GB/s' offset "
                    "1,0\n");
    if (empty) {
        put_no_bandwidth(s, panel);
    } else {
        put_length_tics(s, panel);
        number_bandwidth(s, panel);
        put_bandwidth_curves(s);
    }
    fprintf(s->out, "unset label\nunset arrow\n");
}

/* ---- the whole ---- */

typedef struct drawing {
    const cli_plot *plot;
    cli_series series[CLI_PLOT_MAX_SERIES];
    int num_series;
    strip *strips;
    int num_strips;
    cli_panel panel;
    double height;
} drawing;

static double strip_height(const strip *s)
{
    const double legend = legend_height(s) + 10 - ABOVE_PANEL - BELOW_PANEL + 2 * LEGEND_LINE;
    return legend > MIN_PANEL_HEIGHT ? legend : MIN_PANEL_HEIGHT;
}

/* A strip for each number of threads, in the order in which they were measured. */
static bool find_strips(drawing *d)
{
    d->strips = calloc((size_t)d->plot->num_rows, sizeof(*d->strips));
    double *scratch = malloc((size_t)d->plot->num_rows * sizeof(*scratch));
    for (int64_t i = 0; i < d->plot->num_rows && d->strips != NULL && scratch != NULL; i++) {
        int found = 0;
        while (found < d->num_strips && !in_strip(&d->strips[found], &d->plot->rows[i]))
            found++;
        if (found < d->num_strips)
            continue;
        strip *new = &d->strips[d->num_strips++];
        *new = (strip){.plot = d->plot,
                       .series = d->series,
                       .num_series = d->num_series,
                       .num_threads = d->plot->rows[i].num_threads,
                       .names_series = found == 0,
                       .panel = &d->panel,
                       .scratch = scratch};
        find_roofs(new);
        find_peaks(new);
    }
    free(scratch);
    if (d->num_strips == 0)
        cli_say("out of memory for the plot");
    return d->num_strips > 0;
}

static void place_strips(drawing *d)
{
    double top = 0;
    d->height = HEADER;
    for (int i = 0; i < d->num_strips; i++)
        d->height += strip_height(&d->strips[i]) + ABOVE_PANEL + BELOW_PANEL;
    top = d->height - HEADER;
    for (int i = 0; i < d->num_strips; i++) {
        strip *s = &d->strips[i];
        s->canvas_height = d->height;
        s->height = strip_height(s);
        s->bottom = top - ABOVE_PANEL - s->height;
        top = s->bottom - BELOW_PANEL;
    }
}

static void put_header(const drawing *d, FILE *out)
{
    const cli_environment *env = d->plot->environment;
    char text[2 * CLI_SERIES_BYTES], shared[CLI_SERIES_BYTES];
    strip *first = &d->strips[0];
    first->out = out;
    fprintf(out,
            "set terminal svg size %d,%.0f fixed noenhanced background '#ffffff' font "
            "'sans-serif,12' name 'pageattn_bench'\n"
            "set multiplot\nunset key\nset border lc rgb '#444444'\nset tics nomirror\n"
            "set grid lc rgb '#e4e4e4' lt 1 lw 0.7\n",
            WIDTH, d->height);
    snprintf(text, sizeof(text), "pageattn bench: %s",
             env->machine.cpu[0] ? env->machine.cpu : "unknown CPU");
    put_label(first, ROOFLINE_LEFT, d->height - 22, text, "font ',16'");
    cli_series_shared(d->plot, d->series, d->num_series, shared);
    snprintf(text, sizeof(text), "%s%sversion %s, commit %s, %s; medians over repetitions", shared,
             shared[0] ? "; " : "", env->version, env->commit, env->compiler);
    put_label(first, ROOFLINE_LEFT, d->height - 44, text, "tc rgb '#555555'");
}

static void write_script(FILE *out, const void *arg)
{
    const drawing *d = arg;
    put_header(d, out);
    for (int i = 0; i < d->num_strips; i++) {
        d->strips[i].out = out;
        put_legend(&d->strips[i]);
        put_roofline(&d->strips[i]);
        put_bandwidth(&d->strips[i]);
    }
    fprintf(out, "unset multiplot\n");
}

bool cli_plot_check(const char *path)
{
    return cli_gnuplot_check() && cli_whole_file_check(path);
}

static bool draw(drawing *d)
{
    char *svg;
    size_t svg_bytes;
    place_strips(d);
    if (!cli_gnuplot_run(write_script, d, &svg, &svg_bytes))
        return false;
    const bool written = cli_whole_file_write(d->plot->path, svg, svg_bytes);
    free(svg);
    return written;
}

bool cli_plot_write(const cli_plot *plot)
{
    drawing *d = calloc(1, sizeof(*d));
    if (d == NULL) {
        cli_say("out of memory for the plot");
        return false;
    }
    d->plot = plot;
    d->num_series = cli_series_find(plot, d->series);
    const bool done = find_strips(d) && draw(d);
    free(d->strips);
    free(d);
    return done;
}
