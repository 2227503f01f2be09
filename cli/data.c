/* SPDX-License-Identifier: Apache-2.0 */
#include "data.h"

#include <inttypes.h>
#include <stdlib.h>

#include "crew.h"
#include "machine.h"
#include "random.h"
#include "say.h"

/* How random values are made: all 65536 elements that may stand in a cache, looked up by 16 bits.
 */
#define NUM_VALUES 65536

enum { KEYS, VALUES, QUERY, OUT, LENS, TABLES };

int64_t cli_type_bytes(pageattn_type type)
{
    return type == PAGEATTN_F32 || type == PAGEATTN_I32 ? 4 : 2;
}

const char *cli_type_name(pageattn_type type)
{
    return type == PAGEATTN_F32 ? "f32" : type == PAGEATTN_BF16 ? "bf16" : "f16";
}

/* ---- memory ---- */

static bool map(cli_data *data, int index, int64_t bytes)
{
    data->region[index].memory = pageattn_cache_allocate((size_t)bytes);
    data->region[index].bytes = (size_t)bytes;
    return data->region[index].memory != NULL;
}

void cli_data_destroy(cli_data *data)
{
    for (int i = 0; i < CLI_NUM_REGIONS; i++)
        pageattn_cache_free(data->region[i].memory, data->region[i].bytes);
    *data = (cli_data){0};
}

/* ---- values ---- */

/* `value` is below 2 in size. Rounds towards 0, and what would be subnormal as f16 to 0. */
static uint16_t narrow(pageattn_type type, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if (type == PAGEATTN_BF16)
        return (uint16_t)(bits >> 16);
    const uint32_t size = bits & 0x7fffffff;
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    const uint32_t bias = (uint32_t)112 << 23; /* of the exponents */
    return size < bias + (1 << 23) ? sign : (uint16_t)(sign | (size - bias) >> 13);
}

typedef struct fill_job {
    pageattn_type type;
    char *memory;
    int64_t num_elements;
    int64_t num_tasks;
    uint64_t seed;
    float value[NUM_VALUES];
    uint16_t narrow_value[NUM_VALUES];
} fill_job;

/* Uniform with variance 1, symmetric around 0. */
static void make_values(fill_job *job)
{
    for (int i = 0; i < NUM_VALUES; i++) {
        job->value[i] = (float)(2 * i - (NUM_VALUES - 1)) * (1.7320508f / NUM_VALUES);
        job->narrow_value[i] = narrow(job->type, job->value[i]);
    }
}

/* Four elements from each random number. Each task has its own, whoever runs it. */
static void fill_task(void *arg, int64_t index)
{
    const fill_job *job = arg;
    const int64_t share = (job->num_elements / job->num_tasks + 3) / 4 * 4;
    const int64_t begin = index * share < job->num_elements ? index * share : job->num_elements;
    const int64_t end = index + 1 < job->num_tasks && begin + share < job->num_elements
                            ? begin + share
                            : job->num_elements;
    float *wide = (float *)(void *)job->memory;
    uint16_t *half = (uint16_t *)(void *)job->memory;
    uint64_t random = job->seed * 1000003 + (uint64_t)index;
    uint64_t bits = 0;

    for (int64_t i = begin; i < end; i++, bits >>= 16) {
        if ((i - begin) % 4 == 0)
            bits = cli_random(&random);
        if (job->type == PAGEATTN_F32)
            wide[i] = job->value[bits & 0xffff];
        else
            half[i] = job->narrow_value[bits & 0xffff];
    }
}

/* A fixed number of tasks, so that the values do not depend on the number of threads. */
static bool fill(pageattn_context *context, fill_job *job, const cli_data *data, int index,
                 int64_t num_elements)
{
    job->memory = data->region[index].memory;
    job->num_elements = num_elements;
    job->num_tasks = num_elements < (1 << 16) ? 1 : 64;
    job->seed = CLI_SEED + (uint64_t)index;
    return cli_crew_run(context, job->num_tasks, fill_task, job);
}

/* ---- the block table ---- */

static void shuffle(int32_t *values, int64_t count)
{
    uint64_t random = CLI_SEED;
    for (int64_t i = count - 1; i > 0; i--) {
        const int64_t j = cli_random_below(&random, i + 1);
        const int32_t value = values[i];
        values[i] = values[j];
        values[j] = value;
    }
}

/* Hands out the pages `order` one after the other; padding is -1. */
static void make_table(const cli_data *data, int64_t page_size, int64_t max_blocks,
                       const int32_t *order)
{
    const pageattn_tensor *lens = &data->args.context_lens;
    int32_t *table = data->args.block_tables.data;
    for (int64_t seq = 0; seq < lens->shape[0]; seq++) {
        const int64_t num_blocks = (cli_data_lens(data)[seq] + page_size - 1) / page_size;
        for (int64_t block = 0; block < max_blocks; block++)
            // NOLINTNEXTLINE(clang-analyzer-core.uninitialized.Assign): a page for each block
            *table++ = block < num_blocks ? *order++ : -1;
    }
}

static bool fill_table(const cli_case *wanted, const cli_data *data, int64_t num_pages,
                       int64_t max_blocks)
{
    int32_t *order = malloc((size_t)num_pages * sizeof(*order));
    if (order == NULL)
        return false;
    for (int64_t i = 0; i < num_pages; i++)
        order[i] = (int32_t)i;
    if (wanted->shuffled)
        shuffle(order, num_pages);
    make_table(data, wanted->workload.page_size, max_blocks, order);
    free(order);
    return true;
}

/* ---- all together ---- */

typedef struct sizes {
    int64_t num_pages;
    int64_t max_blocks;
    int64_t cache_elements; /* of one side */
    int64_t query_elements;
    int64_t bytes[CLI_NUM_REGIONS];
    int64_t total_bytes;
} sizes;

static bool product(int64_t a, int64_t b, int64_t *result)
{
    return !__builtin_mul_overflow(a, b, result);
}

/* False where a size does not fit. */
static bool measure_pages(const cli_case *wanted, const int32_t *lens, sizes *size)
{
    const int64_t page_size = wanted->workload.page_size;
    *size = (sizes){0};
    for (int64_t seq = 0; seq < wanted->num_seqs; seq++) {
        const int64_t num_blocks = (lens[seq] + page_size - 1) / page_size;
        size->num_pages += num_blocks;
        size->max_blocks = num_blocks > size->max_blocks ? num_blocks : size->max_blocks;
    }
    return size->num_pages <= INT32_MAX;
}

static bool measure_bytes(const cli_case *wanted, sizes *size)
{
    const cli_workload *w = &wanted->workload;
    const int64_t type_bytes = cli_type_bytes(wanted->kv_type);
    int64_t row_elements, slots, *bytes = size->bytes;
    bool fits = product(w->num_kv_heads, w->head_dim, &row_elements) &&
                product(size->num_pages, w->page_size, &slots) &&
                product(slots, row_elements, &size->cache_elements) &&
                product(size->cache_elements, type_bytes, &bytes[KEYS]) &&
                product(wanted->num_seqs * w->num_heads, w->head_dim, &size->query_elements) &&
                product(size->query_elements, type_bytes, &bytes[QUERY]) &&
                product(wanted->num_seqs * 4, size->max_blocks, &bytes[TABLES]);
    bytes[VALUES] = bytes[KEYS];
    bytes[OUT] = bytes[QUERY];
    bytes[LENS] = wanted->num_seqs * 4;
    for (int i = 0; i < CLI_NUM_REGIONS && fits; i++)
        fits = !__builtin_add_overflow(size->total_bytes, bytes[i], &size->total_bytes);
    return fits;
}

static void make_args(const cli_case *wanted, const sizes *size, cli_data *data)
{
    const cli_workload *w = &wanted->workload;
    pageattn_args *args = &data->args;
    pageattn_args_init(args);
    args->query = pageattn_tensor_3d(data->region[QUERY].memory, wanted->kv_type, wanted->num_seqs,
                                     w->num_heads, w->head_dim);
    args->out = pageattn_tensor_3d(data->region[OUT].memory, wanted->kv_type, wanted->num_seqs,
                                   w->num_heads, w->head_dim);
    args->key_cache = pageattn_cache(data->region[KEYS].memory, wanted->kv_type, wanted->layout,
                                     w->num_kv_heads, size->num_pages, w->page_size, w->head_dim);
    args->value_cache = pageattn_cache(data->region[VALUES].memory, wanted->kv_type, wanted->layout,
                                       w->num_kv_heads, size->num_pages, w->page_size, w->head_dim);
    args->context_lens =
        pageattn_tensor_1d(data->region[LENS].memory, PAGEATTN_I32, wanted->num_seqs);
    args->block_tables = pageattn_tensor_2d(data->region[TABLES].memory, PAGEATTN_I32,
                                            wanted->num_seqs, size->max_blocks);
    args->sliding_window = (int32_t)w->window;
    args->attn_logits_soft_cap = (float)w->soft_cap;
}

static bool fill_all(const cli_case *wanted, pageattn_context *context, const sizes *size,
                     cli_data *data)
{
    fill_job *job = malloc(sizeof(*job));
    if (job == NULL)
        return false;
    job->type = wanted->kv_type;
    make_values(job);
    const bool filled = fill(context, job, data, KEYS, size->cache_elements) &&
                        fill(context, job, data, VALUES, size->cache_elements) &&
                        fill(context, job, data, QUERY, size->query_elements);
    free(job);
    return filled && fill_table(wanted, data, size->num_pages, size->max_blocks);
}

static void count_work(const cli_case *wanted, cli_data *data)
{
    for (int64_t seq = 0; seq < wanted->num_seqs; seq++)
        data->num_tokens += cli_data_lens(data)[seq] - cli_data_first(data, seq);
    data->kv_bytes = 2 * data->num_tokens * wanted->workload.num_kv_heads *
                     wanted->workload.head_dim * cli_type_bytes(wanted->kv_type);
}

/* Why there is not enough memory: `reason`. */
static void say_memory(const cli_case *wanted, const sizes *size, const char *reason)
{
    char name[CLI_NAME_BYTES], needed[24];
    cli_say("out of memory: %s with %" PRId64 " sequences of %s tokens in %s needs %s; %s",
            cli_workload_name(&wanted->workload, name), wanted->num_seqs, wanted->lengths.name,
            cli_type_name(wanted->kv_type), cli_size_text(size->total_bytes, needed), reason);
}

/* The tensors of known size; context_lens are there already. */
static bool make_tensors(const cli_case *wanted, pageattn_context *context, const sizes *size,
                         cli_data *data)
{
    char text[24], reason[64];
    const int64_t available = cli_machine_available_bytes();
    if (size->total_bytes > available) {
        snprintf(reason, sizeof(reason), "%s are available", cli_size_text(available, text));
        say_memory(wanted, size, reason);
        return false;
    }
    bool enough = true;
    for (int i = 0; i < CLI_NUM_REGIONS && enough; i++)
        enough = i == LENS || map(data, i, size->bytes[i]);
    if (enough) {
        make_args(wanted, size, data);
        enough = fill_all(wanted, context, size, data);
    }
    if (!enough)
        say_memory(wanted, size, "the system gives less; ulimit -v may say why");
    return enough;
}

bool cli_data_create(const cli_case *wanted, pageattn_context *context, cli_data *data)
{
    sizes size;
    *data = (cli_data){0};
    if (!map(data, LENS, wanted->num_seqs * 4)) {
        cli_say("out of memory for %" PRId64 " context lengths", wanted->num_seqs);
        return false;
    }
    cli_lengths_make(&wanted->lengths, wanted->num_seqs, data->region[LENS].memory);
    if (!measure_pages(wanted, data->region[LENS].memory, &size) || !measure_bytes(wanted, &size)) {
        cli_say("%" PRId64
                " sequences of %s tokens have more pages or bytes than pageattn can count",
                wanted->num_seqs, wanted->lengths.name);
        cli_data_destroy(data);
        return false;
    }
    if (!make_tensors(wanted, context, &size, data)) {
        cli_data_destroy(data);
        return false;
    }
    count_work(wanted, data);
    return true;
}
