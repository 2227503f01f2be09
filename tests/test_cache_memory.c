/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for caches: aligned, zeroed, writable to its last byte, given back whole, and never
 * granted where it can't be. Linked with --wrap for mmap and munmap, to count and to make them
 * fail. */
#include <pageattn/pageattn.h>
#include <sys/mman.h>

#include "check.h"

static int64_t bytes_mapped;
static int maps_fail;
static int maps_are_odd; /* just past a multiple of PAGEATTN_HUGE_PAGE_BYTES */

void *__real_mmap(void *where, size_t bytes, int protection, int flags, int file, long offset);
void *__wrap_mmap(void *where, size_t bytes, int protection, int flags, int file, long offset);
int __real_munmap(void *memory, size_t bytes);
int __wrap_munmap(void *memory, size_t bytes);

static int64_t whole_pages(size_t bytes)
{
    return (int64_t)(bytes + 4095) / 4096 * 4096;
}

/* The system places large mappings at such multiples, or does not, as it likes. */
static void *map_oddly(size_t bytes, int protection, int flags)
{
    const size_t alignment = PAGEATTN_HUGE_PAGE_BYTES, whole = bytes + 2 * alignment;
    char *memory = __real_mmap(NULL, whole, protection, flags, -1, 0);
    if (memory == MAP_FAILED)
        return MAP_FAILED;
    char *odd = memory + -(uintptr_t)memory % alignment + 4096;
    char *end = odd + whole_pages(bytes);
    __real_munmap(memory, (size_t)(odd - memory));
    __real_munmap(end, (size_t)(memory + whole - end));
    return odd;
}

void *__wrap_mmap(void *where, size_t bytes, int protection, int flags, int file, long offset)
{
    if (maps_fail)
        return MAP_FAILED;
    void *memory = maps_are_odd ? map_oddly(bytes, protection, flags)
                                : __real_mmap(where, bytes, protection, flags, file, offset);
    if (memory != MAP_FAILED)
        bytes_mapped += whole_pages(bytes);
    return memory;
}

int __wrap_munmap(void *memory, size_t bytes)
{
    const int status = __real_munmap(memory, bytes);
    if (status == 0)
        bytes_mapped -= whole_pages(bytes);
    return status;
}

static int is_zero(const char *memory, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (memory[i] != 0)
            return 0;
    return 1;
}

static void use(size_t bytes)
{
    char name[64];
    snprintf(name, sizeof(name), "%zu bytes", bytes);
    const size_t alignment = bytes < PAGEATTN_HUGE_PAGE_BYTES ? 64 : PAGEATTN_HUGE_PAGE_BYTES;
    char *memory = pageattn_cache_allocate(bytes);
    if (memory == NULL) {
        check_failed(name, "out of memory");
        return;
    }
    if ((uintptr_t)memory % alignment != 0)
        check_failed(name, "%p is not a multiple of %zu", (void *)memory, alignment);
    else if (!is_zero(memory, bytes))
        check_failed(name, "not zeroed");
    else
        check_passed(name);
    memset(memory, 0x5a, bytes);
    pageattn_cache_free(memory, bytes);
    if (bytes_mapped != 0)
        check_failed(name, "%lld bytes stay mapped", (long long)bytes_mapped);
}

int main(int argc, char **argv)
{
    static const size_t sizes[] = {
        1,
        4095,
        4096,
        100000,
        PAGEATTN_HUGE_PAGE_BYTES - 1,
        PAGEATTN_HUGE_PAGE_BYTES,
        PAGEATTN_HUGE_PAGE_BYTES + 1,
        5 * (size_t)PAGEATTN_HUGE_PAGE_BYTES + 12345,
    };
    check_start(argc, argv);
    for (maps_are_odd = 0; maps_are_odd <= 1; maps_are_odd++)
        for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++)
            use(sizes[i]);
    maps_are_odd = 0;
    check_that(pageattn_cache_allocate(0) == NULL, "nothing for 0 bytes");
    check_that(pageattn_cache_allocate(SIZE_MAX) == NULL, "nothing for SIZE_MAX bytes");
    check_that(pageattn_cache_allocate(SIZE_MAX / 2) == NULL, "nothing for half of SIZE_MAX");
    pageattn_cache_free(NULL, 100);
    maps_fail = 1;
    check_that(pageattn_cache_allocate(100) == NULL, "little memory, and the system has none");
    check_that(pageattn_cache_allocate(1 << 24) == NULL, "much memory, and the system has none");
    maps_fail = 0;
    check_that(bytes_mapped == 0, "nothing stays mapped after a failure");
    return check_finish();
}
