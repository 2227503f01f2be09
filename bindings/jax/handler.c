/* SPDX-License-Identifier: Apache-2.0 */
/*
 * page_attention as a handler of XLA's foreign function interface, for CPUs.
 *
 *   arguments   query, key_cache, value_cache, context_lens, block_tables
 *   results     out, and lse if it is wanted
 *   attributes  the options, by the names in OPTIONS
 *
 * Every buffer is contiguous. jax.vmap puts the same number of axes before those of each buffer,
 * each of them as long as in `out`, or 1 where an argument is the same for the whole batch; so a
 * cache that the batch shares is neither copied nor repeated.
 */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "context_slots.h"

enum operand { QUERY, KEY_CACHE, VALUE_CACHE, CONTEXT_LENS, BLOCK_TABLES, OUT, LSE, NUM_OPERANDS };

#define NUM_ARGUMENTS OUT

static const struct {
    const char *name;
    int rank;
} operands[NUM_OPERANDS] = {
    [QUERY] = {"query", 3},
    [KEY_CACHE] = {"key_cache", 4},
    [VALUE_CACHE] = {"value_cache", 4},
    [CONTEXT_LENS] = {"context_lens", 1},
    [BLOCK_TABLES] = {"block_tables", 2},
    [OUT] = {"out", 3},
    [LSE] = {"lse", 2},
};

struct options {
    pageattn_args args; /* without tensors */
    int32_t kv_layout;
    int32_t isa;
    int32_t num_threads; /* 0: those of the pool */
};

/* Each attribute is an option of the same name and type. */
static const struct {
    const char *name;
    XLA_FFI_DataType type;
    size_t offset;
} option_fields[] = {
#define OPTION(name, type, field)                                                                  \
    {                                                                                              \
        name, XLA_FFI_DataType_##type, offsetof(struct options, field)                             \
    }
    OPTION("attn_logits_soft_cap", F32, args.attn_logits_soft_cap),
    OPTION("attn_scale", F32, args.attn_scale),
    OPTION("inline_seq_dim", S32, args.inline_seq_dim),
    OPTION("isa", S32, isa),
    OPTION("kv_layout", S32, kv_layout),
    OPTION("mask_value", F32, args.mask_value),
    OPTION("max_context_len", S64, args.max_context_len),
    OPTION("megacore_mode", S32, args.megacore_mode),
    OPTION("num_splits", S32, args.num_splits),
    OPTION("num_threads", S32, num_threads),
    OPTION("numerics", S32, args.numerics),
    OPTION("pages_per_compute_block", S32, args.pages_per_compute_block),
    OPTION("sliding_window", S32, args.sliding_window),
#undef OPTION
};

#define NUM_OPTIONS ((int64_t)(sizeof(option_fields) / sizeof(option_fields[0])))

struct call {
    const XLA_FFI_CallFrame *frame;
    const XLA_FFI_Buffer *buffers[NUM_OPERANDS]; /* LSE: NULL if it is not wanted */
    int64_t num_batch_axes;
    int64_t batch_size;
    int64_t entries_per_call; /* batch_size, or 1: see joins */
    struct options options;
};

/* ---- errors ---------------------------------------------------------------------------------- */

static XLA_FFI_Error *fail(const XLA_FFI_CallFrame *frame, XLA_FFI_Error_Code code,
                           const char *message)
{
    XLA_FFI_Error_Create_Args create = {
        .struct_size = XLA_FFI_Error_Create_Args_STRUCT_SIZE,
        .message = message,
        .errc = code,
    };
    return frame->api->XLA_FFI_Error_Create(&create);
}

/* A call that pageattn.jax did not make, or not this version of it. */
static XLA_FFI_Error *fail_on_caller(const XLA_FFI_CallFrame *frame, const char *what)
{
    char message[192];
    snprintf(message, sizeof(message),
             "pageattn: %s; call pageattn.jax.page_attention, of the same version as this library",
             what);
    return fail(frame, XLA_FFI_Error_Code_INVALID_ARGUMENT, message);
}

static XLA_FFI_Error_Code code_of(pageattn_status status)
{
    switch (status) {
    case PAGEATTN_ERROR_MEMORY:
        return XLA_FFI_Error_Code_RESOURCE_EXHAUSTED;
    case PAGEATTN_ERROR_BUSY:
    case PAGEATTN_ERROR_EXECUTOR:
    case PAGEATTN_ERROR_THREAD:
        return XLA_FFI_Error_Code_INTERNAL;
    default:
        return XLA_FFI_Error_Code_INVALID_ARGUMENT;
    }
}

/* The library's message; of a batch, with the entry that it is about. */
static XLA_FFI_Error *fail_in_entry(const struct call *call, int64_t entry,
                                    const pageattn_error *error)
{
    char where[96] = "";
    char message[sizeof(error->message) + sizeof(where)];
    if (call->entries_per_call > 1)
        snprintf(where, sizeof(where),
                 " (sequences are counted through the %" PRId64 " entries of vmap)",
                 call->batch_size);
    else if (call->num_batch_axes > 0)
        snprintf(where, sizeof(where), " (in entry %" PRId64 " of the %" PRId64 " of vmap)", entry,
                 call->batch_size);
    snprintf(message, sizeof(message), "%s%s", error->message, where);
    return fail(call->frame, code_of(error->status), message);
}

/* ---- from XLA's structs to the library's ----------------------------------------------------- */

static int is_name(const XLA_FFI_ByteSpan *span, const char *name)
{
    return span->len == strlen(name) && memcmp(span->ptr, name, span->len) == 0;
}

static const XLA_FFI_Scalar *find_scalar(const XLA_FFI_Attrs *attributes, const char *name)
{
    for (int64_t i = 0; i < attributes->size; i++)
        if (attributes->types[i] == XLA_FFI_AttrType_SCALAR && is_name(attributes->names[i], name))
            return attributes->attrs[i];
    return NULL;
}

static XLA_FFI_Error *read_options(struct call *call)
{
    const XLA_FFI_Attrs *attributes = &call->frame->attrs;
    if (attributes->size != NUM_OPTIONS)
        return fail_on_caller(call->frame, "the number of attributes is not that of the options");
    pageattn_args_init(&call->options.args);
    for (int64_t i = 0; i < NUM_OPTIONS; i++) {
        const XLA_FFI_Scalar *scalar = find_scalar(attributes, option_fields[i].name);
        if (scalar == NULL || scalar->dtype != option_fields[i].type) {
            char what[96];
            snprintf(what, sizeof(what), "the attribute %s is missing, or of another type",
                     option_fields[i].name);
            return fail_on_caller(call->frame, what);
        }
        memcpy((char *)&call->options + option_fields[i].offset, scalar->value,
               scalar->dtype == XLA_FFI_DataType_S64 ? sizeof(int64_t) : sizeof(int32_t));
    }
    return NULL;
}

static XLA_FFI_Error *find_buffers(struct call *call)
{
    const XLA_FFI_Args *args = &call->frame->args;
    const XLA_FFI_Rets *rets = &call->frame->rets;
    if (args->size != NUM_ARGUMENTS || (rets->size != 1 && rets->size != 2))
        return fail_on_caller(call->frame, "the number of buffers is not that of the arguments");
    for (int i = 0; i < NUM_ARGUMENTS; i++)
        call->buffers[i] = args->args[i];
    for (int64_t i = 0; i < rets->size; i++)
        call->buffers[OUT + i] = rets->rets[i];
    return NULL;
}

static XLA_FFI_Error *check_batch_axes(struct call *call)
{
    const XLA_FFI_Buffer *out = call->buffers[OUT];
    call->num_batch_axes = out->rank - operands[OUT].rank;
    call->batch_size = 1;
    for (int64_t axis = 0; axis < call->num_batch_axes; axis++)
        call->batch_size *= out->dims[axis];
    for (int i = 0; i < NUM_OPERANDS && call->buffers[i] != NULL; i++) {
        const XLA_FFI_Buffer *buffer = call->buffers[i];
        int fits =
            call->num_batch_axes >= 0 && buffer->rank - operands[i].rank == call->num_batch_axes;
        for (int64_t axis = 0; fits && axis < call->num_batch_axes; axis++)
            fits = buffer->dims[axis] == out->dims[axis] ||
                   (i < NUM_ARGUMENTS && buffer->dims[axis] == 1);
        if (!fits) {
            char what[96];
            snprintf(what, sizeof(what), "the axes of %s do not fit those of out",
                     operands[i].name);
            return fail_on_caller(call->frame, what);
        }
    }
    return NULL;
}

static pageattn_type type_of(XLA_FFI_DataType type)
{
    switch (type) {
    case XLA_FFI_DataType_F32:
        return PAGEATTN_F32;
    case XLA_FFI_DataType_BF16:
        return PAGEATTN_BF16;
    case XLA_FFI_DataType_F16:
        return PAGEATTN_F16;
    case XLA_FFI_DataType_S32:
        return PAGEATTN_I32;
    default:
        return PAGEATTN_NO_TYPE; /* which the library refuses by the argument's name */
    }
}

static int64_t type_bytes(pageattn_type type)
{
    return type == PAGEATTN_F32 || type == PAGEATTN_I32 ? 4 : 2;
}

/* Which of the buffer's own entries is the one of the whole batch: an axis of 1 is not stepped
 * along. */
static int64_t own_entry(const struct call *call, const XLA_FFI_Buffer *buffer, int64_t entry)
{
    int64_t own = 0, own_stride = 1;
    for (int64_t axis = call->num_batch_axes - 1; axis >= 0; axis--) {
        const int64_t index = entry % call->buffers[OUT]->dims[axis];
        entry /= call->buffers[OUT]->dims[axis];
        own += buffer->dims[axis] == 1 ? 0 : index * own_stride;
        own_stride *= buffer->dims[axis];
    }
    return own;
}

static int64_t num_own_entries(const struct call *call, enum operand operand)
{
    int64_t count = 1;
    for (int64_t axis = 0; axis < call->num_batch_axes; axis++)
        count *= call->buffers[operand]->dims[axis];
    return count;
}

/* Whether the entries are one call with that many more sequences: they share the caches, and share
 * nothing else. */
static int joins(const struct call *call)
{
    static const enum operand of_seqs[] = {QUERY, CONTEXT_LENS, BLOCK_TABLES};
    for (size_t i = 0; i < sizeof(of_seqs) / sizeof(of_seqs[0]); i++)
        if (num_own_entries(call, of_seqs[i]) != call->batch_size)
            return 0;
    return num_own_entries(call, KEY_CACHE) == 1 && num_own_entries(call, VALUE_CACHE) == 1;
}

static void *entry_data(const struct call *call, enum operand operand, int64_t entry)
{
    const XLA_FFI_Buffer *buffer = call->buffers[operand];
    int64_t offset = own_entry(call, buffer, entry) * type_bytes(type_of(buffer->dtype));
    for (int64_t axis = call->num_batch_axes; axis < buffer->rank; axis++)
        offset *= buffer->dims[axis];
    return buffer->data != NULL ? (char *)buffer->data + offset : NULL;
}

static pageattn_tensor tensor_of(const struct call *call, enum operand operand, int64_t entry)
{
    const XLA_FFI_Buffer *buffer = call->buffers[operand];
    const int64_t *dims = buffer->dims + call->num_batch_axes;
    const pageattn_type type = type_of(buffer->dtype);
    const int64_t num_seqs = dims[0] * call->entries_per_call;
    void *data = entry_data(call, operand, entry);

    switch (operands[operand].rank) {
    case 1:
        return pageattn_tensor_1d(data, type, num_seqs);
    case 2:
        return pageattn_tensor_2d(data, type, num_seqs, dims[1]);
    default:
        return pageattn_tensor_3d(data, type, num_seqs, dims[1], dims[2]);
    }
}

static pageattn_tensor cache_of(const struct call *call, enum operand operand, int64_t entry)
{
    const XLA_FFI_Buffer *buffer = call->buffers[operand];
    const int64_t *dims = buffer->dims + call->num_batch_axes;
    const pageattn_type type = type_of(buffer->dtype);
    void *data = entry_data(call, operand, entry);

    switch (call->options.kv_layout) {
    case PAGEATTN_PAGES_HND:
        return pageattn_cache(data, type, PAGEATTN_PAGES_HND, dims[1], dims[0], dims[2], dims[3]);
    case PAGEATTN_PAGES_NHD:
        return pageattn_cache(data, type, PAGEATTN_PAGES_NHD, dims[2], dims[0], dims[1], dims[3]);
    default: /* one that the library does not know, it refuses */
        return pageattn_cache(data, type, (pageattn_kv_layout)call->options.kv_layout, dims[0],
                              dims[1], dims[2], dims[3]);
    }
}

/* ---- the call -------------------------------------------------------------------------------- */

static pageattn_status attend_entry(const struct call *call, int64_t entry,
                                    pageattn_context *context, pageattn_error *error)
{
    pageattn_args args = call->options.args;
    args.query = tensor_of(call, QUERY, entry);
    args.key_cache = cache_of(call, KEY_CACHE, entry);
    args.value_cache = cache_of(call, VALUE_CACHE, entry);
    args.context_lens = tensor_of(call, CONTEXT_LENS, entry);
    args.block_tables = tensor_of(call, BLOCK_TABLES, entry);
    args.out = tensor_of(call, OUT, entry);
    if (call->buffers[LSE] != NULL)
        args.lse = tensor_of(call, LSE, entry);
    return pageattn_attend(context, &args, error);
}

static int32_t num_workers(const struct call *call, const pageattn_jax_pool *pool)
{
    const int32_t wanted = call->options.num_threads;
    const int32_t threads = pageattn_jax_pool_threads(pool);
    return wanted > 0 && wanted < threads ? wanted : threads;
}

static XLA_FFI_Error *attend_batch(const struct call *call)
{
    const pageattn_jax_pool pool = {.api = call->frame->api, .execution = call->frame->ctx};
    pageattn_jax_slot spare;
    pageattn_error error;
    pageattn_jax_slot *slot = pageattn_jax_slot_take(
        (pageattn_isa)call->options.isa, num_workers(call, &pool), &pool, &spare, &error);
    if (slot == NULL)
        return fail(call->frame, code_of(error.status), error.message);
    int64_t entry = 0;
    while (entry < call->batch_size &&
           attend_entry(call, entry, slot->context, &error) == PAGEATTN_OK)
        entry += call->entries_per_call;
    pageattn_jax_slot_give_back(slot, &spare);
    return entry == call->batch_size ? NULL : fail_in_entry(call, entry, &error);
}

/* While a handler is being registered XLA asks for the interface that it was compiled for. */
static int answer_metadata(const XLA_FFI_CallFrame *frame)
{
    XLA_FFI_Extension_Base *extension = frame->extension_start;
    if (extension == NULL || extension->type != XLA_FFI_Extension_Metadata)
        return 0;
    XLA_FFI_Metadata *metadata = ((XLA_FFI_Metadata_Extension *)(void *)extension)->metadata;
    metadata->api_version.major_version = XLA_FFI_API_MAJOR;
    metadata->api_version.minor_version = XLA_FFI_API_MINOR;
    metadata->traits = 0;
    return 1;
}

__attribute__((visibility("default"))) XLA_FFI_Error *
pageattn_jax_page_attention(XLA_FFI_CallFrame *frame);

XLA_FFI_Error *pageattn_jax_page_attention(XLA_FFI_CallFrame *frame)
{
    struct call call = {.frame = frame};
    if (answer_metadata(frame))
        return NULL;
    if (frame->stage != XLA_FFI_ExecutionStage_EXECUTE)
        return NULL;
    XLA_FFI_Error *error = read_options(&call);
    if (error == NULL)
        error = find_buffers(&call);
    if (error == NULL)
        error = check_batch_axes(&call);
    if (error != NULL)
        return error;
    call.entries_per_call = call.batch_size > 0 && joins(&call) ? call.batch_size : 1;
    return attend_batch(&call);
}
