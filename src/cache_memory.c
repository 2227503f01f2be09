/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory for caches on huge pages: with small ones nearly every page of a cache that lies anywhere
 * costs a walk of the page table. Huge pages are transparent ones, so that nothing has to be set
 * up, and whether the system gives them changes nothing but the speed.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS, madvise */

#include <pageattn/pageattn.h>

#include <sys/mman.h>

/* What a mapping of `bytes` really spans: whole huge pages, where there is at least one. */
static size_t mapped_bytes(size_t bytes)
{
    const size_t alignment = PAGEATTN_HUGE_PAGE_BYTES;
    return bytes < alignment ? bytes : (bytes + alignment - 1) / alignment * alignment;
}

static void *map(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return memory != MAP_FAILED ? memory : NULL;
}

/* Maps more than is needed, and unmaps what lies before the first multiple and after the end. */
static void *map_aligned(size_t bytes)
{
    const size_t alignment = PAGEATTN_HUGE_PAGE_BYTES;
    if (bytes > SIZE_MAX - 2 * alignment)
        return NULL;
    const size_t rounded = mapped_bytes(bytes);
    char *memory = map(rounded + alignment);
    if (memory == NULL)
        return NULL;
    const size_t before = -(uintptr_t)memory % alignment;
    if (before > 0)
        munmap(memory, before);
    munmap(memory + before + rounded, alignment - before);
    return memory + before;
}

void *pageattn_cache_allocate(size_t bytes)
{
    if (bytes == 0)
        return NULL;
    if (bytes < PAGEATTN_HUGE_PAGE_BYTES)
        return map(bytes);
    void *memory = map_aligned(bytes);
    if (memory != NULL) /* It is advice: a refusal costs speed only. */
        madvise(memory, mapped_bytes(bytes), MADV_HUGEPAGE);
    return memory;
}

void pageattn_cache_free(void *cache, size_t bytes)
{
    if (cache != NULL)
        munmap(cache, mapped_bytes(bytes));
}
