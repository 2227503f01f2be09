/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the system says in files and the environment: control groups and mounts, from which the
 * number of threads comes; CPU, caches and memory, which the program reports. Any bytes give a
 * number in its range.
 *
 * The input is their contents, one after the other, with a NUL behind each.
 */
#include <string.h>

#include <pageattn/pageattn.h>

#include "executor.h"
#include "../tests/fake_files.h"
#include "input.h"
#include "machine.h"
#include "usable_threads.h"

static const char *const names[] = {
    "/proc/self/mountinfo",
    "/proc/self/cgroup",
    "/cpu.max",
    "/cpu.cfs_quota_us",
    "/cpu.cfs_period_us",
    "PAGEATTN_NUM_THREADS",
    "PAGEATTN_ISA",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/index0/level",
    "/index0/type",
    "/index0/size",
    "/index0/shared_cpu_list",
    "/transparent_hugepage/enabled",
    "/scaling_cur_freq",
    "/memory.max",
    "/memory.current",
    "/memory.limit_in_bytes",
    "/memory.usage_in_bytes",
};
#define NUM_FILES (sizeof(names) / sizeof(*names))

static void require_threads(void)
{
    const int32_t cpus = pageattn_cgroup_cpus("");
    const int32_t threads = pageattn_usable_threads();
    FUZZ_REQUIRE(cpus >= 1, "%d CPUs", (int)cpus);
    FUZZ_REQUIRE(threads >= 1 && threads <= PAGEATTN_MAX_THREADS && threads <= cpus, "%d threads",
                 (int)threads);
}

static void require_isa(void)
{
    pageattn_context_options options;
    pageattn_context *context;
    pageattn_error error;
    pageattn_context_options_init(&options);
    options.num_threads = 1;
    const pageattn_status status = pageattn_context_create(&options, &context, &error);
    if (status == PAGEATTN_OK) {
        FUZZ_REQUIRE(pageattn_isa_available(pageattn_context_isa(context)), "not available");
        pageattn_context_destroy(context);
        return;
    }
    FUZZ_REQUIRE(context == NULL && status == PAGEATTN_ERROR_ISA && status == error.status,
                 "status %d", (int)status);
    FUZZ_REQUIRE(error.message[0] != '\0', "no message");
}

static void require_machine(void)
{
    cli_machine machine;
    char size[24];
    cli_machine_read(&machine);
    FUZZ_REQUIRE(strlen(machine.cpu) < sizeof(machine.cpu), "not ended");
    FUZZ_REQUIRE(strlen(machine.huge_pages) < sizeof(machine.huge_pages), "not ended");
    for (int i = 0; i < machine.num_caches; i++) {
        FUZZ_REQUIRE(strlen(machine.cache[i].type) < sizeof(machine.cache[i].type), "not ended");
        FUZZ_REQUIRE(machine.cache[i].bytes > 0 && machine.cache[i].num_cpus >= 0, "cache %d", i);
        FUZZ_REQUIRE(*cli_size_text(machine.cache[i].bytes, size) != '\0', "no size");
    }
    FUZZ_REQUIRE(*cli_machine_level(&machine, 1 << 20, 4096) != '\0', "no level");
    FUZZ_REQUIRE(cli_machine_available_bytes() >= 0, "less than nothing is free");
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t num_bytes)
{
    fake_file files[NUM_FILES];
    char *text = malloc(num_bytes + 1); /* so that each part ends with a NUL */
    FUZZ_REQUIRE(text != NULL, "out of memory");
    memcpy(text, bytes, num_bytes);
    text[num_bytes] = '\0';
    size_t at = 0;
    for (size_t i = 0; i < NUM_FILES; i++) {
        files[i] = (fake_file){names[i], text + at, strlen(text + at)};
        at += files[i].length;
        at += at < num_bytes;
    }
    fake_files_show(files, NUM_FILES);
    require_threads();
    require_isa();
    require_machine();
    FUZZ_REQUIRE(fake_files_hide() == 0, "files are still open");
    free(text);
    return 0;
}
