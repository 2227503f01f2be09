/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pageattn bench: every combination of what the command line lists, each once. Threads, numerics
 * and instruction sets vary innermost, over the same data.
 */
#include <stdlib.h>

#include "bench_options.h"
#include "commands.h"
#include "compare.h"
#include "plot.h"
#include "say.h"
#include "verify.h"

/* Above this the figures of a case are noise more than measurement. */
#define LARGE_SPREAD 0.10

typedef struct bench_run {
    const cli_bench_options *options;
    const cli_environment *environment;
    const cli_old_run *old; /* NULL: nothing to compare with */
    cli_report report;
    int64_t num_cases;
    cli_row *rows; /* what was measured */
    int64_t num_rows;
    int64_t num_noisy;
    int64_t num_found; /* in the old run */
} bench_run;

static pageattn_context *make_context(int64_t num_threads, pageattn_isa isa)
{
    pageattn_context_options options;
    pageattn_context *context;
    pageattn_error error;
    pageattn_context_options_init(&options);
    options.num_threads = (int32_t)num_threads;
    options.isa = isa;
    if (pageattn_context_create(&options, &context, &error) != PAGEATTN_OK)
        cli_say("%s", error.message);
    return context;
}

/* ---- one case ---- */

static bool measure_verified(const cli_data *data, pageattn_context *context,
                             const cli_effort *effort, cli_result *result)
{
    if (!cli_verify(data, context))
        return false;
    void *kept = cli_verify_keep(data);
    const bool measured =
        kept != NULL && cli_measure(data, context, effort, result) && cli_verify_same(data, kept);
    free(kept);
    return measured;
}

/* Two models of one shape, or auto and its name, are one case. */
static bool is_measured(const bench_run *bench, const cli_row *row)
{
    char wanted[CLI_KEY_BYTES], key[CLI_KEY_BYTES];
    cli_row_key(row, wanted);
    for (int64_t i = 0; i < bench->num_rows; i++) {
        if (strcmp(cli_row_key(&bench->rows[i], key), wanted) == 0)
            return true;
    }
    return false;
}

static bool keep_row(bench_run *bench, const cli_row *row)
{
    cli_row *rows = realloc(bench->rows, (size_t)(bench->num_rows + 1) * sizeof(*rows));
    if (rows == NULL) {
        cli_say("out of memory for results");
        return false;
    }
    bench->rows = rows;
    bench->rows[bench->num_rows++] = *row;
    return true;
}

static bool report_case(bench_run *bench, cli_row *row)
{
    if (bench->old != NULL)
        bench->num_found += cli_old_run_find(bench->old, row);
    bench->num_noisy += row->result.spread > LARGE_SPREAD;
    cli_progress("%s", "");
    cli_report_row(&bench->report, row);
    return keep_row(bench, row);
}

/* "NAME bf16, 8 x 4096, 2 threads, avx512, fast" */
static const char *case_text(const cli_row *row, char text[CLI_KEY_BYTES])
{
    snprintf(text, CLI_KEY_BYTES, "%s %s, %lld x %s, %d threads, %s, %s", row->name,
             cli_type_name(row->wanted.kv_type), (long long)row->wanted.num_seqs,
             row->wanted.lengths.name, (int)row->num_threads, pageattn_isa_name(row->isa),
             cli_numerics_name(row->numerics));
    return text;
}

static bool run_row(bench_run *bench, const cli_data *data, pageattn_context *context, cli_row *row)
{
    char text[CLI_KEY_BYTES];
    case_text(row, text);
    cli_progress("%lld/%lld %s", (long long)bench->num_rows + 1, (long long)bench->num_cases, text);
    if (!measure_verified(data, context, &bench->options->effort, &row->result)) {
        cli_say("%s: failed", text);
        return false;
    }
    row->level = cli_machine_level(&bench->environment->machine, data->kv_bytes,
                                   (int32_t)row->result.num_workers);
    return report_case(bench, row);
}

/* `row` says on how many threads, on which instruction set and with which numerics. */
static bool run_on(bench_run *bench, cli_data *data, cli_row *row)
{
    bool done = true;
    pageattn_context *context = make_context(row->num_threads, row->isa);
    if (context == NULL)
        return false;
    row->isa = pageattn_context_isa(context);
    row->kv_bytes = data->kv_bytes;
    data->args.numerics = row->numerics;
    cli_workload_name(&row->wanted.workload, row->name);
    if (is_measured(bench, row))
        bench->num_cases--;
    else
        done = run_row(bench, data, context, row);
    pageattn_context_destroy(context);
    return done;
}

static bool run_on_all(bench_run *bench, const cli_case *wanted, cli_data *data)
{
    const cli_bench_options *options = bench->options;
    const int num_rows = options->num_isas * options->num_numerics * options->num_threads;
    for (int i = 0; i < num_rows; i++) {
        const int numerics = i / options->num_threads % options->num_numerics;
        const int isa = i / options->num_threads / options->num_numerics;
        cli_row row = {.wanted = *wanted,
                       .num_threads = (int32_t)options->threads[i % options->num_threads],
                       .isa = options->isas[isa],
                       .numerics = options->numerics[numerics]};
        if (!run_on(bench, data, &row))
            return false;
    }
    return true;
}

static bool run_case(bench_run *bench, const cli_case *wanted)
{
    cli_data data;
    cli_progress("%lld/%lld filling the cache", (long long)bench->num_rows + 1,
                 (long long)bench->num_cases);
    pageattn_context *context = make_context(0, PAGEATTN_ISA_AUTO);
    if (context == NULL)
        return false;
    const bool created = cli_data_create(wanted, context, &data);
    pageattn_context_destroy(context);
    if (!created)
        return false;
    const bool done = run_on_all(bench, wanted, &data);
    cli_data_destroy(&data);
    return done;
}

/* ---- all of them ---- */

/* The lists that make up a case, the outermost first. */
enum { WORKLOAD, PAGE_SIZE, LAYOUT, ORDER, KV_TYPE, LENGTHS, BATCH, NUM_AXES };

static void axis_sizes(const cli_bench_options *options, int size[NUM_AXES])
{
    size[WORKLOAD] = options->num_workloads;
    size[PAGE_SIZE] = options->num_page_sizes;
    size[LAYOUT] = options->num_layouts;
    size[ORDER] = options->num_orders;
    size[KV_TYPE] = options->num_kv_types;
    size[LENGTHS] = options->num_lengths;
    size[BATCH] = options->num_batches;
}

static cli_case case_at(const cli_bench_options *options, const int index[NUM_AXES])
{
    const int64_t page_size = options->page_sizes[index[PAGE_SIZE]];
    const int64_t batch = options->batches[index[BATCH]];
    cli_case wanted = {.workload = options->workloads[index[WORKLOAD]],
                       .lengths = options->lengths[index[LENGTHS]],
                       .kv_type = options->kv_types[index[KV_TYPE]],
                       .layout = options->layouts[index[LAYOUT]],
                       .shuffled = options->shuffled[index[ORDER]]};
    wanted.num_seqs = batch ? batch : wanted.lengths.default_batch;
    if (page_size)
        wanted.workload.page_size = page_size;
    return wanted;
}

static bool run_cases(bench_run *bench)
{
    int size[NUM_AXES], index[NUM_AXES];
    int64_t num_cases = 1;
    axis_sizes(bench->options, size);
    for (int axis = 0; axis < NUM_AXES; axis++)
        num_cases *= size[axis];
    bench->num_cases = num_cases * bench->options->num_isas * bench->options->num_threads *
                       bench->options->num_numerics;
    for (int64_t number = 0; number < num_cases; number++) {
        int64_t rest = number;
        for (int axis = NUM_AXES - 1; axis >= 0; axis--) {
            index[axis] = (int)(rest % size[axis]);
            rest /= size[axis];
        }
        const cli_case wanted = case_at(bench->options, index);
        if (!run_case(bench, &wanted))
            return false;
    }
    return true;
}

/* ---- whether there is fast ---- */

/* "f32, bf16", of what this context computes fast; "" if nothing. */
static void list_fast_types(const pageattn_context *context, char text[32])
{
    static const pageattn_type types[] = {PAGEATTN_F32, PAGEATTN_BF16, PAGEATTN_F16};
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (pageattn_context_has_fast(context, types[i]))
            used += (size_t)snprintf(text + used, 32 - used, "%s%s", used ? ", " : "",
                                     cli_type_name(types[i]));
    }
}

static bool has_fast(const pageattn_context *context, pageattn_type kv_type)
{
    char types[32];
    const char *isa = pageattn_isa_name(pageattn_context_isa(context));
    if (pageattn_context_has_fast(context, kv_type))
        return true;
    list_fast_types(context, types);
    if (types[0] == '\0')
        cli_say("--numerics fast: there is none for %s on this CPU; pageattn info says for what "
                "there is, --numerics exact runs everywhere",
                isa);
    else
        cli_say("--numerics fast: on %s there is none for %s keys and values, only for %s", isa,
                cli_type_name(kv_type), types);
    return false;
}

/* The library would compute the others in exact, and their rows would say what is not so. */
static bool check_fast(const cli_bench_options *options)
{
    bool wanted = false, found = true;
    for (int i = 0; i < options->num_numerics; i++)
        wanted = wanted || options->numerics[i] == PAGEATTN_NUMERICS_FAST;
    for (int isa = 0; isa < options->num_isas && wanted && found; isa++) {
        pageattn_context *context = make_context(1, options->isas[isa]);
        found = context != NULL;
        for (int i = 0; i < options->num_kv_types && found; i++)
            found = has_fast(context, options->kv_types[i]);
        pageattn_context_destroy(context);
    }
    return found;
}

/* ---- what the figures are worth ---- */

static void warn_of_load(const cli_environment *environment, const cli_bench_options *options)
{
    int64_t num_threads = 0;
    for (int i = 0; i < options->num_threads; i++)
        num_threads = options->threads[i] > num_threads ? options->threads[i] : num_threads;
    if (num_threads > environment->usable_threads)
        cli_say("warning: %lld threads on %d CPUs; they will wait for each other",
                (long long)num_threads, (int)environment->usable_threads);
    const double idle = environment->machine.affinity_cpus - environment->machine.load;
    if (environment->machine.load >= 0 && idle < (double)num_threads - 0.5)
        cli_say("warning: a load average of %.2f on %d CPUs; others are working here: believe the "
                "ratios, "
                "not GB/s",
                environment->machine.load, (int)environment->machine.affinity_cpus);
}

static void warn_of_results(const bench_run *bench)
{
    if (bench->num_noisy > 0)
        cli_say("warning: the repetitions of %lld of %lld cases spread by more than %.0f%%; the "
                "machine "
                "is noisy: believe the ratios, not GB/s",
                (long long)bench->num_noisy, (long long)bench->num_rows, 100 * LARGE_SPREAD);
    if (bench->old != NULL && bench->num_found < bench->num_rows)
        cli_say("warning: %lld of %lld cases are not in %s",
                (long long)(bench->num_rows - bench->num_found), (long long)bench->num_rows,
                bench->options->compare);
}

static bool draw_plot(const bench_run *bench)
{
    const cli_bench_options *options = bench->options;
    const cli_plot plot = {.path = options->plot,
                           .environment = bench->environment,
                           .rows = bench->rows,
                           .num_rows = bench->num_rows,
                           .batches_named = options->batches[0] > 0};
    if (options->plot == NULL)
        return true;
    if (options->num_lengths == 1)
        cli_say("note: one context length gives points and no curves; --context 128,1024,8192 "
                "gives --plot more");
    return cli_plot_write(&plot);
}

static int run_bench(const cli_bench_options *options, const cli_old_run *old)
{
    cli_environment environment;
    cli_environment_read(&environment);
    bench_run bench = {.options = options,
                       .environment = &environment,
                       .old = old,
                       .report = {.out = stdout,
                                  .format = options->format,
                                  .compares = old != NULL,
                                  .environment = &environment}};
    warn_of_load(&environment, options);
    cli_report_begin(&bench.report);
    bool done = run_cases(&bench);
    cli_report_end(&bench.report);
    warn_of_results(&bench);
    done = done && draw_plot(&bench);
    free(bench.rows);
    return done ? 0 : CLI_FAILED;
}

int cli_bench(int num_arguments, char **arguments)
{
    static cli_bench_options options; /* too large for a stack that someone made small */
    cli_old_run old;
    switch (cli_bench_options_parse(num_arguments, arguments, &options)) {
    case CLI_HELP:
        cli_bench_help(stdout);
        return 0;
    case CLI_LIST:
        cli_workload_list(stdout);
        return 0;
    case CLI_WRONG:
        return CLI_USAGE;
    case CLI_RUN:
        break;
    }
    if (!check_fast(&options) || (options.plot != NULL && !cli_plot_check(options.plot)))
        return CLI_FAILED;
    if (options.compare == NULL)
        return run_bench(&options, NULL);
    if (!cli_old_run_read(options.compare, &old))
        return CLI_FAILED;
    const int status = run_bench(&options, &old);
    cli_old_run_free(&old);
    return status;
}
