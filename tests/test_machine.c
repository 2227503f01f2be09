/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the program `pageattn` makes of the system's files, whatever is in them: the right numbers
 * from real ones, and from broken ones a number in its range, or nothing.
 */
#include <inttypes.h>

#include "check.h"
#include "fake_files.h"
#include "machine.h"

#define FILE_OF(name, text)                                                                        \
    {                                                                                              \
        name, text, sizeof(text) - 1                                                               \
    }
#define COUNT_OF(array) (sizeof(array) / sizeof(*(array)))

static void test_real_files(void)
{
    static const fake_file files[] = {
        FILE_OF("/proc/cpuinfo", "processor\t: 0\nmodel name\t: A CPU\ncpu MHz\t\t: 2500.5\n"),
        FILE_OF("/proc/meminfo", "MemTotal:  4000 kB\nMemAvailable:    3000 kB\n"),
        FILE_OF("/index0/level", "2\n"),
        FILE_OF("/index0/type", "Unified\n"),
        FILE_OF("/index0/size", "512K\n"),
        FILE_OF("/index0/shared_cpu_list", "0-3,8\n"),
        FILE_OF("/transparent_hugepage/enabled", "always [madvise] never\n"),
        FILE_OF("/memory.max", "2000000\n"),
        FILE_OF("/memory.current", "500000\n"),
    };
    cli_machine machine;
    fake_files_show(files, COUNT_OF(files));
    cli_machine_read(&machine);
    const int64_t available = cli_machine_available_bytes();
    fake_files_hide();
    check_that(strcmp(machine.cpu, "A CPU") == 0 && machine.mhz == 2500.5, "CPU");
    check_that(strcmp(machine.huge_pages, "madvise") == 0, "huge pages");
    check_that(machine.num_caches == 1 && machine.cache[0].level == 2 &&
                   machine.cache[0].bytes == 512 * 1024 && machine.cache[0].num_cpus == 5,
               "cache");
    check_that(available == 1500000, "what the control group leaves");
    check_that(strcmp(cli_machine_level(&machine, 600000, 6), "L2") == 0, "two caches for 6 CPUs");
    check_that(strcmp(cli_machine_level(&machine, 600000, 5), "mem") == 0, "one cache for 5 CPUs");
}

static void test_cache_size(const char *size, int64_t bytes)
{
    const fake_file files[] = {FILE_OF("/index0/level", "1"),
                               FILE_OF("/index0/type", "Data"),
                               {"/index0/size", size, strlen(size)}};
    cli_machine machine;
    fake_files_show(files, COUNT_OF(files));
    cli_machine_read(&machine);
    fake_files_hide();
    const int64_t got = machine.num_caches == 0 ? 0 : machine.cache[0].bytes;
    if (got == bytes && machine.num_caches <= 1)
        check_passed(size);
    else
        check_failed(size, "a cache of %" PRId64 " bytes, expected %" PRId64, got, bytes);
}

static void test_cpu_list(const char *list, int64_t count)
{
    const fake_file files[] = {FILE_OF("/index0/level", "1"),
                               FILE_OF("/index0/size", "32K"),
                               {"/index0/shared_cpu_list", list, strlen(list)}};
    cli_machine machine;
    fake_files_show(files, COUNT_OF(files));
    cli_machine_read(&machine);
    fake_files_hide();
    if (machine.cache[0].num_cpus == count)
        check_passed(list);
    else
        check_failed(list, "%" PRId64 " CPUs, expected %" PRId64, machine.cache[0].num_cpus, count);
}

static void test_available(const char *meminfo, const char *limit, const char *used, int64_t bytes)
{
    const fake_file files[] = {{"/proc/meminfo", meminfo, strlen(meminfo)},
                               {"/memory.max", limit, strlen(limit)},
                               {"/memory.current", used, strlen(used)}};
    fake_files_show(files, COUNT_OF(files));
    const int64_t got = cli_machine_available_bytes();
    fake_files_hide();
    if (got == bytes)
        check_passed(meminfo);
    else
        check_failed(meminfo, "limit %s, used %s: %" PRId64 " bytes, expected %" PRId64, limit,
                     used, got, bytes);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    test_real_files();

    test_cache_size("48K", 48 * 1024);
    test_cache_size("1M", 1024 * 1024);
    test_cache_size("", 0);
    test_cache_size("-4K", 0);
    test_cache_size("9223372036854775807M", 0);
    test_cache_size("99999999999999999999999", 0);

    test_cpu_list("0", 1);
    test_cpu_list("0-1,4-5", 4);
    test_cpu_list("", 0);
    test_cpu_list("3-1", 0);
    test_cpu_list("1--2147483648", 0);
    test_cpu_list("0-9223372036854775807", 0);
    test_cpu_list("0-9223372036854775806,5", 0);

    test_available("MemAvailable: 5 kB", "", "", 5 * 1024);
    test_available("MemAvailable: 5 kB", "max", "100", 5 * 1024);
    test_available("MemAvailable: 5 kB", "3000", "4000", 0);
    test_available("MemAvailable: -5 kB", "", "", INT64_MAX);
    test_available("MemAvailable: 9223372036854775807 kB", "", "", INT64_MAX);
    test_available("", "9223372036854775807", "-9223372036854775807", INT64_MAX);
    return check_finish();
}
