/* SPDX-License-Identifier: Apache-2.0 */
#include "plot_series.h"

#include <inttypes.h>
#include <string.h>

/* What may differ between series, beside the workload. */
enum { KV_TYPE, NUMERICS, ISA, LAYOUT, ORDER, BATCH, NUM_FIELDS };

static const char *field_text(const cli_plot *plot, const cli_row *row, int field, char text[40])
{
    switch (field) {
    case KV_TYPE:
        return cli_type_name(row->wanted.kv_type);
    case NUMERICS:
        return cli_numerics_name(row->numerics);
    case ISA:
        return pageattn_isa_name(row->isa);
    case LAYOUT:
        return cli_layout_name(row->wanted.layout);
    case ORDER:
        return row->wanted.shuffled ? "shuffled" : "in-order";
    default:
        snprintf(text, 40, "batch %" PRId64, row->wanted.num_seqs);
        if (!plot->batches_named)
            text[0] = '\0';
        return text;
    }
}

static bool same_field(const cli_plot *plot, const cli_row *a, const cli_row *b, int field)
{
    char text_a[40], text_b[40];
    return strcmp(field_text(plot, a, field, text_a), field_text(plot, b, field, text_b)) == 0;
}

static bool shared_by_all(const cli_plot *plot, const cli_series *series, int num_series, int field)
{
    for (int i = 1; i < num_series; i++) {
        if (!same_field(plot, series[0].first, series[i].first, field))
            return false;
    }
    return true;
}

bool cli_series_has(const cli_plot *plot, const cli_series *series, const cli_row *row)
{
    bool same = strcmp(series->first->name, row->name) == 0;
    for (int field = 0; field < NUM_FIELDS; field++)
        same = same && same_field(plot, series->first, row, field);
    return same;
}

static void append(char text[CLI_SERIES_BYTES], const char *between, const char *more)
{
    const size_t used = strlen(text);
    if (*more != '\0')
        snprintf(text + used, CLI_SERIES_BYTES - used, "%s%s", used ? between : "", more);
}

/* "gqa h32 kv8 d128 ps16 (llama3-8b, qwen3-8b)": the name without what all names have. */
static void put_workload(const cli_row *row, char text[CLI_SERIES_BYTES])
{
    static const char all[] = "_paged_decode";
    cli_workload shape;
    char models[160] = "";
    snprintf(text, CLI_SERIES_BYTES, "%.3s%s", row->name, row->name + 3 + strlen(all));
    for (char *c = strchr(text, '_'); c != NULL; c = strchr(c, '_'))
        *c = ' ';
    for (int i = 0; cli_model_name(i) != NULL; i++) {
        const size_t used = strlen(models);
        if (cli_workload_of_model(cli_model_name(i), &shape) &&
            memcmp(&shape, &row->wanted.workload, sizeof(shape)) == 0)
            snprintf(models + used, sizeof(models) - used, "%s%s", used ? ", " : "",
                     cli_model_name(i));
    }
    if (models[0] != '\0') {
        append(text, " (", models);
        append(text, "", ")");
    }
}

static void put_label(const cli_plot *plot, cli_series *series, int num_series, int index)
{
    char field[40];
    put_workload(series[index].first, series[index].label);
    for (int i = 0; i < NUM_FIELDS; i++) {
        if (!shared_by_all(plot, series, num_series, i))
            append(series[index].label, " ", field_text(plot, series[index].first, i, field));
    }
}

int cli_series_find(const cli_plot *plot, cli_series series[CLI_PLOT_MAX_SERIES])
{
    int num_series = 0;
    for (int64_t i = 0; i < plot->num_rows; i++) {
        int found = 0;
        while (found < num_series && !cli_series_has(plot, &series[found], &plot->rows[i]))
            found++;
        if (found == num_series && num_series < CLI_PLOT_MAX_SERIES)
            series[num_series++].first = &plot->rows[i];
    }
    for (int i = 0; i < num_series; i++)
        put_label(plot, series, num_series, i);
    return num_series;
}

void cli_series_shared(const cli_plot *plot, const cli_series *series, int num_series,
                       char text[CLI_SERIES_BYTES])
{
    char field[40];
    text[0] = '\0';
    for (int i = 0; i < NUM_FIELDS; i++) {
        if (shared_by_all(plot, series, num_series, i))
            append(text, ", ", field_text(plot, series[0].first, i, field));
    }
}

/* A byte of keys and values is read once and used by each head of the group. */
double cli_row_intensity(const cli_row *row)
{
    const cli_workload *workload = &row->wanted.workload;
    return (double)workload->num_heads / (double)workload->num_kv_heads /
           (double)cli_type_bytes(row->wanted.kv_type);
}

double cli_row_multiply_adds(const cli_row *row)
{
    return cli_row_intensity(row) * row->result.gb_per_s;
}
