/* SPDX-License-Identifier: Apache-2.0 */
/* The legend of a strip: numbers and shapes of the series, styles and figures of the limits. */
#include <string.h>

#include "plot_strip.h"

#define LEGEND_COLUMNS 45 /* characters of a line */

static const char *const not_of_one_length = "ragged and chat: left panel only";
static const char *const about_bands = "(right panel: from least to greatest)";

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

static void put_legend_text(cli_strip *s, const char *text, const char *style)
{
    char line[LEGEND_COLUMNS + 1];
    do {
        text = cut_line(text, line);
        cli_put_label(s, CLI_PLOT_LEGEND_LEFT + 36, s->legend_y, line, style);
        s->legend_y -= CLI_PLOT_LEGEND_LINE;
    } while (*text != '\0');
}

static void put_legend_line(cli_strip *s, const char *text, const char *line_style)
{
    cli_put_stroke(s, CLI_PLOT_LEGEND_LEFT, s->legend_y, CLI_PLOT_LEGEND_LEFT + 28, s->legend_y,
                   line_style);
    put_legend_text(s, text, "");
}

static void put_legend_heading(cli_strip *s, const char *text)
{
    cli_put_label(s, CLI_PLOT_LEGEND_LEFT, s->legend_y, text, "font ',13'");
    s->legend_y -= CLI_PLOT_LEGEND_LINE;
}

static void put_legend_roofs(cli_strip *s)
{
    char text[120], style[64];
    put_legend_heading(s, "limits, measured beside the calls");
    for (int i = 0; i < s->num_peaks; i++) {
        snprintf(text, sizeof(text), "multiply-adds, %s %s: %.3g G/s",
                 pageattn_isa_name(s->peaks[i].isa), cli_numerics_name(s->peaks[i].numerics),
                 s->peaks[i].multiply_adds);
        put_legend_line(s, text, cli_peak_style(i, style));
    }
    for (int i = 0; i < s->num_roofs; i++) {
        const bool memory = strcmp(s->roofs[i].level, "mem") == 0;
        for (int gather = 0; gather < 2; gather++) {
            snprintf(text, sizeof(text), "%s read, %s: %.3g GB/s", gather ? "gather" : "sequential",
                     memory ? "memory" : s->roofs[i].level,
                     gather ? s->roofs[i].gather : s->roofs[i].sequential);
            put_legend_line(s, text, cli_roof_style(i, gather, style));
        }
    }
    if (cli_strip_has_band(s))
        put_legend_text(s, about_bands, "tc rgb '#555555'");
}

static void put_legend_series(cli_strip *s)
{
    char text[CLI_SERIES_BYTES + 8], style[64];
    put_legend_heading(s, "attention");
    for (int i = 0; i < s->num_series; i++) {
        snprintf(style, sizeof(style), "point pt %d ps 0.8 lc rgb '%s'", cli_series_shape(i),
                 cli_series_colour(i));
        cli_put_label(s, CLI_PLOT_LEGEND_LEFT + 6, s->legend_y, "", style);
        snprintf(text, sizeof(text), "%d", i + 1);
        snprintf(style, sizeof(style), "right tc rgb '%s'", cli_series_colour(i));
        cli_put_label(s, CLI_PLOT_LEGEND_LEFT + 29, s->legend_y, text, style);
        put_legend_text(s, s->series[i].label, "");
    }
}

double cli_legend_height(const cli_strip *s)
{
    int lines = 1 + s->num_peaks + 2 * s->num_roofs;
    if (s->names_series) {
        lines += 2;
        for (int i = 0; i < s->num_series; i++)
            lines += num_lines(s->series[i].label);
        lines += cli_strip_has_mixtures(s) ? num_lines(not_of_one_length) : 0;
    }
    lines += cli_strip_has_band(s) ? num_lines(about_bands) : 0;
    return CLI_PLOT_LEGEND_LINE * lines;
}

void cli_put_legend(cli_strip *s)
{
    s->legend_y = s->bottom + s->height + 14;
    if (s->names_series) {
        put_legend_series(s);
        if (cli_strip_has_mixtures(s))
            put_legend_text(s, not_of_one_length, "tc rgb '#555555'");
        s->legend_y -= CLI_PLOT_LEGEND_LINE;
    }
    put_legend_roofs(s);
}
