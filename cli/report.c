/* SPDX-License-Identifier: Apache-2.0 */
#include "report.h"

#include <inttypes.h>

const char *cli_layout_name(pageattn_kv_layout layout)
{
    return layout == PAGEATTN_HND_PAGES   ? "hnd_pages"
           : layout == PAGEATTN_PAGES_HND ? "pages_hnd"
                                          : "pages_nhd";
}

const char *cli_numerics_name(pageattn_numerics numerics)
{
    return numerics == PAGEATTN_NUMERICS_FAST ? "fast" : "exact";
}

char *cli_row_key(const cli_row *row, char key[CLI_KEY_BYTES])
{
    int used = 0;
#define KEY_TEXT(name, expression)                                                                 \
    used += snprintf(key + used, (size_t)(CLI_KEY_BYTES - used), "%s\n", expression);
#define KEY_INT(name, expression)                                                                  \
    used += snprintf(key + used, (size_t)(CLI_KEY_BYTES - used), "%" PRId64 "\n",                  \
                     (int64_t)(expression));
#define TEXT(name, expression)
#define INT(name, expression)
#define NUMBER(name, expression)
#include "report_fields.def"
#undef KEY_TEXT
#undef KEY_INT
#undef TEXT
#undef INT
#undef NUMBER
    return key;
}

/* ---- table and Markdown ---- */

#define NUM_CELLS 12
#define CELL_BYTES 40

static const struct {
    const char *title;
    int width; /* negative: aligned to the left */
} columns[NUM_CELLS] = {
    {"kv", -4}, {"sequences", -11}, {"thr", 3},  {"in", -3},     {"GB/s", 6}, {"us/call", 9},
    {"p95", 9}, {"tokens/s", 9},    {"/seq", 5}, {"/gather", 7}, {"/fma", 5}, {"spread", 6},
};

/* About four digits, whatever the size. */
static void number_cell(char *cell, double value)
{
    const int digits = value < 10 ? 2 : value < 1000 ? 1 : 0;
    snprintf(cell, CELL_BYTES, "%.*f", digits, value);
}

static void fill_cells(const cli_row *row, char cell[NUM_CELLS][CELL_BYTES])
{
    const cli_result *r = &row->result;
    snprintf(cell[0], CELL_BYTES, "%s", cli_type_name(row->wanted.kv_type));
    snprintf(cell[1], CELL_BYTES, "%" PRId64 " x %s", row->wanted.num_seqs,
             row->wanted.lengths.name);
    snprintf(cell[2], CELL_BYTES, "%" PRId32, row->num_threads);
    snprintf(cell[3], CELL_BYTES, "%s", row->level);
    number_cell(cell[4], r->gb_per_s);
    number_cell(cell[5], r->us);
    number_cell(cell[6], r->us_p95);
    number_cell(cell[7], r->tokens_per_s);
    snprintf(cell[8], CELL_BYTES, "%.2f", r->of_sequential);
    snprintf(cell[9], CELL_BYTES, "%.2f", r->of_gather);
    snprintf(cell[10], CELL_BYTES, "%.2f", r->of_multiply_add);
    snprintf(cell[11], CELL_BYTES, "%.0f%%", 100 * r->spread);
}

static void write_environment(const cli_report *report)
{
    const cli_environment *env = report->environment;
    const char *end = report->format == CLI_MD ? "  \n" : "\n";
    char caches[160], quota[32];
    fprintf(report->out, "pageattn %s, commit %s, %s%s", env->version, env->commit, env->compiler,
            end);
    fprintf(report->out, "%s", env->machine.cpu[0] ? env->machine.cpu : "unknown CPU");
    if (env->machine.mhz > 0)
        fprintf(report->out, " at %.0f MHz", env->machine.mhz);
    fprintf(report->out, "; %s%s", cli_caches_text(&env->machine, caches), end);
    fprintf(report->out, "%" PRId32 " CPUs to run on, %s", env->machine.affinity_cpus,
            cli_quota_text(&env->machine, quota));
    if (env->machine.load >= 0)
        fprintf(report->out, ", load average %.2f", env->machine.load);
    fprintf(report->out, "; huge pages asked for (system: %s); seed %d%s",
            env->machine.huge_pages[0] ? env->machine.huge_pages : "unknown", CLI_SEED, end);
    fprintf(
        report->out,
        "\nGB/s is keys and values attended to, over time. The ratios are medians of ratios "
        "within\n"
        "repetitions, each of which also measured the limits, on the same threads: /seq reads as\n"
        "many bytes in the order of addresses, /gather reads the same pages in the call's order "
        "with\n"
        "the best prefetch, /fma does as many multiply-adds, by the numerics' own instruction, "
        "and\n"
        "nothing else. us/call is a median, p95 is over calls, spread is the repetitions'\n"
        "interquartile range over their median.\n");
}

static void begin_md(const cli_report *report)
{
    write_environment(report);
    fprintf(report->out, "\n| workload | isa | numerics | layout | pages |");
    for (int i = 0; i < NUM_CELLS; i++)
        fprintf(report->out, " %s |", columns[i].title);
    fprintf(report->out, "%s\n",
            report->compares ? " old GB/s | new/old | old /gather | new/old |" : "");
    fprintf(report->out, "| --- | --- | --- | --- | --- |");
    for (int i = 0; i < NUM_CELLS + (report->compares ? 4 : 0); i++)
        fprintf(report->out, i < NUM_CELLS && columns[i].width < 0 ? " --- |" : " ---: |");
    fputc('\n', report->out);
}

static void write_md_row(const cli_report *report, const cli_row *row)
{
    char cell[NUM_CELLS][CELL_BYTES];
    fill_cells(row, cell);
    fprintf(report->out, "| %s | %s | %s | %s | %s |", row->name, pageattn_isa_name(row->isa),
            cli_numerics_name(row->numerics), cli_layout_name(row->wanted.layout),
            row->wanted.shuffled ? "shuffled" : "in-order");
    for (int i = 0; i < NUM_CELLS; i++)
        fprintf(report->out, " %s |", cell[i]);
    if (report->compares && row->old_gb_per_s > 0)
        fprintf(report->out, " %.2f | %.3f | %.3f | %.3f |", row->old_gb_per_s,
                row->result.gb_per_s / row->old_gb_per_s, row->old_of_gather,
                row->result.of_gather / row->old_of_gather);
    else if (report->compares)
        fprintf(report->out, " - | - | - | - |");
    fputc('\n', report->out);
}

/* A heading says what the rows below it share. */
static void write_heading(cli_report *report, const cli_row *row)
{
    char heading[sizeof(report->heading)];
    snprintf(heading, sizeof(heading), "%s  (%s, %s, %s, %s)", row->name,
             pageattn_isa_name(row->isa), cli_numerics_name(row->numerics),
             cli_layout_name(row->wanted.layout), row->wanted.shuffled ? "shuffled" : "in-order");
    if (strcmp(heading, report->heading) == 0)
        return;
    memcpy(report->heading, heading, sizeof(heading));
    fprintf(report->out, "\n%s\n", heading);
    for (int i = 0; i < NUM_CELLS; i++)
        fprintf(report->out, "%s%*s", i ? "  " : "", columns[i].width, columns[i].title);
    fputc('\n', report->out);
}

static void write_table_row(cli_report *report, const cli_row *row)
{
    char cell[NUM_CELLS][CELL_BYTES];
    write_heading(report, row);
    fill_cells(row, cell);
    for (int i = 0; i < NUM_CELLS; i++)
        fprintf(report->out, "%s%*s", i ? "  " : "", columns[i].width, cell[i]);
    fputc('\n', report->out);
    if (report->compares && row->old_gb_per_s > 0)
        fprintf(report->out, "      was %.2f GB/s: new/old %.3f; was %.3f /gather: new/old %.3f\n",
                row->old_gb_per_s, row->result.gb_per_s / row->old_gb_per_s, row->old_of_gather,
                row->result.of_gather / row->old_of_gather);
    else if (report->compares)
        fprintf(report->out, "      not in the old file\n");
}

/* ---- CSV ---- */

static void csv_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void begin_csv(const cli_report *report)
{
    const char *comma = "";
#define FIELD(name, expression)                                                                    \
    fprintf(report->out, "%s" #name, comma);                                                       \
    comma = ",";
#define KEY_TEXT FIELD
#define KEY_INT FIELD
#define TEXT FIELD
#define INT FIELD
#define NUMBER FIELD
#include "report_fields.def"
#undef KEY_TEXT
#undef KEY_INT
#undef TEXT
#undef INT
#undef NUMBER
#undef FIELD
    fprintf(report->out, "%s\n", report->compares ? ",old_gb_per_s,old_of_gather" : "");
}

static void write_csv_row(const cli_report *report, const cli_row *row)
{
    const cli_environment *env = report->environment;
    FILE *out = report->out;
    const char *comma = "";
#define TEXT(name, expression)                                                                     \
    fputs(comma, out);                                                                             \
    csv_text(out, expression);                                                                     \
    comma = ",";
#define INT(name, expression)                                                                      \
    fprintf(out, "%s%" PRId64, comma, (int64_t)(expression));                                      \
    comma = ",";
#define NUMBER(name, expression)                                                                   \
    fprintf(out, "%s%.6g", comma, expression);                                                     \
    comma = ",";
#define KEY_TEXT TEXT
#define KEY_INT INT
#include "report_fields.def"
#undef KEY_TEXT
#undef KEY_INT
#undef TEXT
#undef INT
#undef NUMBER
    if (report->compares && row->old_gb_per_s > 0)
        fprintf(out, ",%.6g,%.6g", row->old_gb_per_s, row->old_of_gather);
    else if (report->compares)
        fprintf(out, ",,");
    fputc('\n', out);
}

/* ---- JSON ---- */

static void json_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20 || c >= 0x7f) /* whatever a kernel calls a CPU, this stays ASCII */
            fprintf(out, "\\u%04x", (unsigned int)c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

static void begin_json(const cli_report *report)
{
    const cli_machine *machine = &report->environment->machine;
    FILE *out = report->out;
    char caches[160];
    fprintf(out, "{\n  \"format\": \"pageattn bench 2\",\n  \"environment\": {\n    \"cpu\": ");
    json_text(out, machine->cpu);
    fprintf(out, ",\n    \"mhz\": %.0f,\n    \"caches\": ", machine->mhz);
    json_text(out, cli_caches_text(machine, caches));
    fprintf(out,
            ",\n    \"affinity_cpus\": %" PRId32 ",\n    \"quota_cpus\": ", machine->affinity_cpus);
    if (machine->cgroup_cpus == INT32_MAX)
        fprintf(out, "null");
    else
        fprintf(out, "%" PRId32, machine->cgroup_cpus);
    fprintf(out, ",\n    \"load_average\": ");
    if (machine->load < 0)
        fprintf(out, "null");
    else
        fprintf(out, "%.2f", machine->load);
    fprintf(out, ",\n    \"huge_pages\": ");
    json_text(out, machine->huge_pages);
    fprintf(out, ",\n    \"seed\": %d\n  },\n  \"results\": [", CLI_SEED);
}

static void write_json_row(const cli_report *report, const cli_row *row)
{
    const cli_environment *env = report->environment;
    FILE *out = report->out;
    const char *comma = report->num_rows ? ",\n    {" : "\n    {";
#define TEXT(name, expression)                                                                     \
    fprintf(out, "%s\n      \"" #name "\": ", comma);                                              \
    json_text(out, expression);                                                                    \
    comma = ",";
#define INT(name, expression)                                                                      \
    fprintf(out, "%s\n      \"" #name "\": %" PRId64, comma, (int64_t)(expression));               \
    comma = ",";
#define NUMBER(name, expression)                                                                   \
    fprintf(out, "%s\n      \"" #name "\": %.6g", comma, expression);                              \
    comma = ",";
#define KEY_TEXT TEXT
#define KEY_INT INT
#include "report_fields.def"
#undef KEY_TEXT
#undef KEY_INT
#undef TEXT
#undef INT
#undef NUMBER
    if (report->compares && row->old_gb_per_s > 0)
        fprintf(out, ",\n      \"old_gb_per_s\": %.6g,\n      \"old_of_gather\": %.6g",
                row->old_gb_per_s, row->old_of_gather);
    else if (report->compares)
        fprintf(out, ",\n      \"old_gb_per_s\": null,\n      \"old_of_gather\": null");
    fprintf(out, "\n    }");
}

/* ---- one of them ---- */

void cli_report_begin(cli_report *report)
{
    switch (report->format) {
    case CLI_TABLE:
        write_environment(report);
        break;
    case CLI_MD:
        begin_md(report);
        break;
    case CLI_CSV:
        begin_csv(report);
        break;
    case CLI_JSON:
        begin_json(report);
        break;
    }
    fflush(report->out);
}

void cli_report_row(cli_report *report, const cli_row *row)
{
    switch (report->format) {
    case CLI_TABLE:
        write_table_row(report, row);
        break;
    case CLI_MD:
        write_md_row(report, row);
        break;
    case CLI_CSV:
        write_csv_row(report, row);
        break;
    case CLI_JSON:
        write_json_row(report, row);
        break;
    }
    report->num_rows++;
    fflush(report->out);
}

void cli_report_end(cli_report *report)
{
    if (report->format == CLI_JSON)
        fprintf(report->out, "\n  ]\n}\n");
}
