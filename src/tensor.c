/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Describes contiguous memory as tensors. Nothing is judged here: sizes that make no sense give a
 * tensor that the call refuses.
 */
#include <pageattn/pageattn.h>

/* INT64_MAX as a stride is beyond every address, so the call sees the overflow. */
static int64_t saturating_product(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

static pageattn_tensor contiguous(void *data, pageattn_type type, int32_t rank,
                                  const int64_t *shape)
{
    pageattn_tensor tensor = {.data = data, .type = type, .rank = rank};
    int64_t stride = 1;
    for (int32_t axis = rank - 1; axis >= 0; axis--) {
        tensor.shape[axis] = shape[axis];
        tensor.stride[axis] = stride;
        stride = saturating_product(stride, shape[axis]);
    }
    return tensor;
}

pageattn_tensor pageattn_tensor_1d(void *data, pageattn_type type, int64_t size0)
{
    return contiguous(data, type, 1, (int64_t[]){size0});
}

pageattn_tensor pageattn_tensor_2d(void *data, pageattn_type type, int64_t size0, int64_t size1)
{
    return contiguous(data, type, 2, (int64_t[]){size0, size1});
}

pageattn_tensor pageattn_tensor_3d(void *data, pageattn_type type, int64_t size0, int64_t size1,
                                   int64_t size2)
{
    return contiguous(data, type, 3, (int64_t[]){size0, size1, size2});
}

pageattn_tensor pageattn_cache(void *data, pageattn_type type, pageattn_kv_layout layout,
                               int64_t num_kv_heads, int64_t num_pages, int64_t page_size,
                               int64_t head_dim)
{
    enum { KV_HEADS, PAGES, SLOTS, HEAD_DIM };
    static const int slowest_first[][PAGEATTN_MAX_RANK] = {
        [PAGEATTN_HND_PAGES] = {KV_HEADS, PAGES, SLOTS, HEAD_DIM},
        [PAGEATTN_PAGES_HND] = {PAGES, KV_HEADS, SLOTS, HEAD_DIM},
        [PAGEATTN_PAGES_NHD] = {PAGES, SLOTS, KV_HEADS, HEAD_DIM},
    };
    pageattn_tensor cache = {.data = data, .type = type, .rank = 0};
    if ((size_t)layout >= sizeof(slowest_first) / sizeof(*slowest_first))
        return cache;

    const int64_t shape[] = {num_kv_heads, num_pages, page_size, head_dim};
    const int *order = slowest_first[layout];
    const pageattn_tensor memory =
        contiguous(data, type, PAGEATTN_MAX_RANK,
                   (int64_t[]){shape[order[0]], shape[order[1]], shape[order[2]], shape[order[3]]});
    cache.rank = PAGEATTN_MAX_RANK;
    for (int place = 0; place < PAGEATTN_MAX_RANK; place++) {
        cache.shape[order[place]] = memory.shape[place];
        cache.stride[order[place]] = memory.stride[place];
    }
    return cache;
}
