/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_options.h"

#include <inttypes.h>
#include <stdlib.h>

#include "executor.h"
#include "plot.h"
#include "say.h"

void cli_bench_help(FILE *out)
{
    fputs(
        "usage: pageattn bench [OPTION]... [WORKLOAD]...\n"
        "\n"
        "Times attention and, in every repetition beside it, what the machine can do with the "
        "same\n"
        "bytes. Each result is compared with the reference before it is timed.\n"
        "\n"
        "A WORKLOAD is a shape such as gqa_paged_decode_h32_kv8_d128_ps16, which is the default.\n"
        "Options marked LIST take several values, with commas between them or given again, and\n"
        "everything is combined with everything.\n"
        "\n"
        "what is computed\n"
        "  --model LIST       shapes of real models, or all; --list names them\n"
        "  --kv-type LIST     f32, bf16 (default), f16: of cache, query and output\n"
        "  --context LIST     tokens of a sequence (4096), or ragged, or chat\n"
        "  --batch LIST       sequences (8; 32 for ragged and chat)\n"
        "  --page-size LIST   tokens of a page, in place of the workload's\n"
        "  --layout LIST      hnd_pages (default), pages_hnd, pages_nhd\n"
        "  --order LIST       shuffled (default) or in-order: where physical pages lie\n"
        "how\n"
        "  --threads LIST     numbers, or all (default: 1,all)\n"
        "  --isa LIST         scalar, avx2, avx512, ...; auto (default): the best, or "
        "PAGEATTN_ISA\n"
        "  --numerics LIST    exact (default), fast: dot products of bf16 pairs, where the CPU has "
        "them\n"
        "  --min-time SECONDS of repetitions for each case, at least (1)\n"
        "  --reps N           repetitions of each case, at least (9)\n"
        "output\n"
        "  --format FORMAT    table (default), md, csv, json\n"
        "  --compare FILE     also shows new/old against a FILE that --format json wrote\n"
        "  --plot FILE        draws an SVG: roofline, and bandwidth against context length; needs "
        "gnuplot\n"
        "  --list             lists models, distributions of lengths, and how workloads are named\n"
        "  --help             prints this\n"
        "\n"
        "for example\n"
        "  pageattn bench --model all --context 128,4096,ragged,chat\n"
        "  pageattn bench --numerics exact,fast --model llama3-70b   what fast arithmetic gains\n"
        "  pageattn bench --model smollm2-135m --kv-type f32 --batch 1 --context 128   a tiny "
        "call\n"
        "  pageattn bench --context 128,512,2048,8192 --plot bench.svg\n"
        "\n"
        "A case that is asked for twice is measured once.\n"
        "The exit status is 1 if a result was wrong or something failed, 2 for a wrong command "
        "line.\n",
        out);
}

/* ---- one value of a list each ---- */

static bool add_model(cli_bench_options *options, const char *text)
{
    if (strcmp(text, "all") != 0) {
        if (options->num_workloads == CLI_MAX_LIST) {
            cli_say("more than %d workloads", CLI_MAX_LIST);
            return false;
        }
        return cli_workload_of_model(text, &options->workloads[options->num_workloads++]);
    }
    for (int i = 0; cli_model_name(i) != NULL; i++) {
        if (!add_model(options, cli_model_name(i)))
            return false;
    }
    return true;
}

static bool add_kv_type(cli_bench_options *options, const char *text)
{
    static const pageattn_type types[] = {PAGEATTN_F32, PAGEATTN_BF16, PAGEATTN_F16};
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (strcmp(text, cli_type_name(types[i])) == 0) {
            options->kv_types[options->num_kv_types++] = types[i];
            return true;
        }
    }
    cli_say("--kv-type %.40s: it must be f32, bf16 or f16", text);
    return false;
}

static bool add_context(cli_bench_options *options, const char *text)
{
    return cli_lengths_parse(text, &options->lengths[options->num_lengths++]);
}

static bool add_int(const char *option, const char *text, int64_t high, int64_t *list, int *count)
{
    if (cli_parse_int(text, 1, high, &list[(*count)++]))
        return true;
    cli_say("%s %.40s: it must be a whole number in [1, %" PRId64 "]", option, text, high);
    return false;
}

static bool add_batch(cli_bench_options *options, const char *text)
{
    return add_int("--batch", text, CLI_MAX_BATCH, options->batches, &options->num_batches);
}

static bool add_page_size(cli_bench_options *options, const char *text)
{
    return add_int("--page-size", text, CLI_MAX_PAGE_SIZE, options->page_sizes,
                   &options->num_page_sizes);
}

static bool add_threads(cli_bench_options *options, const char *text)
{
    if (strcmp(text, "all") != 0)
        return add_int("--threads", text, PAGEATTN_MAX_THREADS, options->threads,
                       &options->num_threads);
    options->threads[options->num_threads++] = pageattn_usable_threads();
    return true;
}

static bool add_isa(cli_bench_options *options, const char *text)
{
    static const pageattn_isa isas[] = {
        PAGEATTN_ISA_AUTO,
#define ISA(name, NAME, requirement) PAGEATTN_ISA_##NAME,
#include "isa/isa.def"
#undef ISA
    };
    for (size_t i = 0; i < sizeof(isas) / sizeof(*isas); i++) {
        if (strcmp(text, pageattn_isa_name(isas[i])) == 0) {
            options->isas[options->num_isas++] = isas[i];
            return true;
        }
    }
    cli_say("--isa %.40s: there is no such instruction set; pageattn info lists them", text);
    return false;
}

static bool add_numerics(cli_bench_options *options, const char *text)
{
    static const pageattn_numerics numerics[] = {PAGEATTN_NUMERICS_EXACT, PAGEATTN_NUMERICS_FAST};
    for (size_t i = 0; i < sizeof(numerics) / sizeof(*numerics); i++) {
        if (strcmp(text, cli_numerics_name(numerics[i])) == 0) {
            options->numerics[options->num_numerics++] = numerics[i];
            return true;
        }
    }
    cli_say("--numerics %.40s: it must be exact or fast", text);
    return false;
}

static bool add_layout(cli_bench_options *options, const char *text)
{
    static const pageattn_kv_layout layouts[] = {PAGEATTN_HND_PAGES, PAGEATTN_PAGES_HND,
                                                 PAGEATTN_PAGES_NHD};
    for (size_t i = 0; i < sizeof(layouts) / sizeof(*layouts); i++) {
        if (strcmp(text, cli_layout_name(layouts[i])) == 0) {
            options->layouts[options->num_layouts++] = layouts[i];
            return true;
        }
    }
    cli_say("--layout %.40s: it must be hnd_pages, pages_hnd or pages_nhd", text);
    return false;
}

static bool add_order(cli_bench_options *options, const char *text)
{
    const bool shuffled = strcmp(text, "shuffled") == 0;
    if (shuffled || strcmp(text, "in-order") == 0) {
        options->shuffled[options->num_orders++] = shuffled;
        return true;
    }
    cli_say("--order %.40s: it must be shuffled or in-order", text);
    return false;
}

/* ---- options with one value ---- */

static bool set_min_time(cli_bench_options *options, const char *text)
{
    char *end;
    const double seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !(seconds >= 0 && seconds <= 3600)) {
        cli_say("--min-time %.40s: it must be a number of seconds in [0, 3600]", text);
        return false;
    }
    options->effort.min_seconds = seconds;
    return true;
}

static bool set_reps(cli_bench_options *options, const char *text)
{
    int unused = 0;
    return add_int("--reps", text, CLI_MAX_REPS, &options->effort.min_reps, &unused);
}

static bool set_format(cli_bench_options *options, const char *text)
{
    static const char *const names[] = {
        [CLI_TABLE] = "table", [CLI_MD] = "md", [CLI_CSV] = "csv", [CLI_JSON] = "json"};
    for (int i = 0; i < (int)(sizeof(names) / sizeof(*names)); i++) {
        if (strcmp(text, names[i]) == 0) {
            options->format = (cli_format)i;
            return true;
        }
    }
    cli_say("--format %.40s: it must be table, md, csv or json", text);
    return false;
}

static bool set_compare(cli_bench_options *options, const char *text)
{
    options->compare = text;
    return true;
}

static bool set_plot(cli_bench_options *options, const char *text)
{
    if (*text == '\0')
        cli_say("--plot needs the name of a file");
    options->plot = text;
    return *text != '\0';
}

/* ---- all options ---- */

static const struct bench_option {
    const char *name;
    bool is_list;
    bool (*take)(cli_bench_options *options, const char *text);
} bench_options[] = {
    {"--model", true, add_model},
    {"--kv-type", true, add_kv_type},
    {"--context", true, add_context},
    {"--batch", true, add_batch},
    {"--page-size", true, add_page_size},
    {"--threads", true, add_threads},
    {"--isa", true, add_isa},
    {"--numerics", true, add_numerics},
    {"--layout", true, add_layout},
    {"--order", true, add_order},
    {"--min-time", false, set_min_time},
    {"--reps", false, set_reps},
    {"--format", false, set_format},
    {"--compare", false, set_compare},
    {"--plot", false, set_plot},
};

static bool is_full(const cli_bench_options *options)
{
    return options->num_kv_types == CLI_MAX_LIST || options->num_lengths == CLI_MAX_LIST ||
           options->num_batches == CLI_MAX_LIST || options->num_page_sizes == CLI_MAX_LIST ||
           options->num_threads == CLI_MAX_LIST || options->num_isas == CLI_MAX_LIST ||
           options->num_numerics == CLI_MAX_LIST || options->num_layouts == CLI_MAX_LIST ||
           options->num_orders == CLI_MAX_LIST;
}

/* Calls take for what stands between the commas. */
static bool take_list(const struct bench_option *option, const char *list,
                      cli_bench_options *options)
{
    for (;;) {
        char item[64];
        const size_t length = strcspn(list, ",");
        snprintf(item, sizeof(item), "%.*s", length < 63 ? (int)length : 63, list);
        if (is_full(options)) {
            cli_say("%s: a list has at most %d entries", option->name, CLI_MAX_LIST - 1);
            return false;
        }
        if (!option->take(options, item))
            return false;
        if (list[length] == '\0')
            return true;
        list += length + 1;
    }
}

/* The option whose name is text[0 .. length), or NULL. */
static const struct bench_option *find_option(const char *text, size_t length)
{
    for (size_t i = 0; i < sizeof(bench_options) / sizeof(*bench_options); i++) {
        if (strlen(bench_options[i].name) == length &&
            strncmp(bench_options[i].name, text, length) == 0)
            return &bench_options[i];
    }
    return NULL;
}

/* Takes "--name value" or "--name=value"; returns how many arguments that were, 0 if it is wrong.
 */
static int take_option(char **arguments, int num_left, cli_bench_options *options)
{
    const char *text = arguments[0];
    const size_t length = strcspn(text, "=");
    const struct bench_option *option = find_option(text, length);
    if (option == NULL) {
        cli_say("unknown option %.60s; pageattn bench --help lists them", text);
        return 0;
    }
    const bool joined = text[length] == '=';
    if (!joined && num_left < 2) {
        cli_say("%s needs a value; pageattn bench --help says which", option->name);
        return 0;
    }
    const char *value = joined ? text + length + 1 : arguments[1];
    const bool taken =
        option->is_list ? take_list(option, value, options) : option->take(options, value);
    return taken ? 2 - joined : 0;
}

static bool take_workload(const char *name, cli_bench_options *options)
{
    if (options->num_workloads == CLI_MAX_LIST) {
        cli_say("more than %d workloads", CLI_MAX_LIST);
        return false;
    }
    return cli_workload_parse(name, &options->workloads[options->num_workloads++]);
}

/* What is not said is as --help says. */
static void set_defaults(cli_bench_options *options)
{
    if (options->num_workloads == 0)
        add_model(options, "llama3-8b");
    if (options->num_kv_types == 0)
        add_kv_type(options, "bf16");
    if (options->num_lengths == 0)
        add_context(options, "4096");
    if (options->num_batches == 0)
        options->batches[options->num_batches++] = 0;
    if (options->num_page_sizes == 0)
        options->page_sizes[options->num_page_sizes++] = 0;
    if (options->num_threads == 0) {
        add_threads(options, "1");
        if (pageattn_usable_threads() > 1)
            add_threads(options, "all");
    }
    if (options->num_isas == 0)
        add_isa(options, "auto");
    if (options->num_numerics == 0)
        add_numerics(options, "exact");
    if (options->num_layouts == 0)
        add_layout(options, "hnd_pages");
    if (options->num_orders == 0)
        add_order(options, "shuffled");
}

/* What a plot can't show is refused before hours are spent on measuring it. */
static bool check_plot(const cli_bench_options *options)
{
    const int lists[] = {options->num_workloads, options->num_page_sizes, options->num_layouts,
                         options->num_orders,    options->num_kv_types,   options->num_batches,
                         options->num_isas,      options->num_numerics};
    int64_t num_series = 1;
    for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
        num_series = num_series > CLI_PLOT_MAX_SERIES ? num_series : num_series * lists[i];
    if (options->plot == NULL || num_series <= CLI_PLOT_MAX_SERIES)
        return true;
    cli_say("--plot shows at most %d combinations of workload, type and the like (context lengths "
            "and threads do not count); measure fewer in one run",
            CLI_PLOT_MAX_SERIES);
    return false;
}

cli_asked cli_bench_options_parse(int num_arguments, char **arguments, cli_bench_options *options)
{
    memset(options, 0, sizeof(*options));
    options->effort = (cli_effort){.min_seconds = 1, .min_reps = 9};
    for (int i = 0; i < num_arguments;) {
        if (strcmp(arguments[i], "--help") == 0)
            return CLI_HELP;
        if (strcmp(arguments[i], "--list") == 0)
            return CLI_LIST;
        const bool is_option = arguments[i][0] == '-';
        const int taken = is_option ? take_option(arguments + i, num_arguments - i, options)
                                    : take_workload(arguments[i], options);
        if (taken == 0)
            return CLI_WRONG;
        i += taken;
    }
    set_defaults(options);
    return check_plot(options) ? CLI_RUN : CLI_WRONG;
}
