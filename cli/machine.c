/* SPDX-License-Identifier: Apache-2.0 */
/* Reads /proc and /sys; a container may hide any of it. */
#define _DEFAULT_SOURCE /* getloadavg */

#include "machine.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "usable_threads.h"

/* Larger numbers are no numbers of CPUs, or no caches: files that lie must not overflow a sum. */
#define MAX_CPUS (1 << 20)
#define MAX_CACHE_BYTES (INT64_C(1) << 30) /* or KiB, or MiB */

/* The first line of a file without its newline; "" if there is none. */
static bool first_line(const char *path, char *line, size_t capacity)
{
    FILE *file = fopen(path, "r");
    line[0] = '\0';
    if (file == NULL)
        return false;
    const bool found = fgets(line, (int)capacity, file) != NULL;
    fclose(file);
    line[strcspn(line, "\n")] = '\0';
    return found;
}

/* What stands after the colon in the first line that starts with `key`. */
static bool value_of(const char *path, const char *key, char *value, size_t capacity)
{
    char line[512];
    bool found = false;
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, key, strlen(key)) != 0 || colon == NULL)
            continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = '\0';
        snprintf(value, capacity, "%s", colon);
        found = true;
    }
    fclose(file);
    return found;
}

/* The number that a text starts with, times unit; -1 if there is none, or it does not fit. */
static int64_t number_at(const char *text, int64_t unit, const char **end)
{
    int64_t number;
    char *behind;
    if (!isdigit((unsigned char)*text))
        return -1;
    const long long digits = strtoll(text, &behind, 10);
    if (end != NULL)
        *end = behind;
    return __builtin_mul_overflow(digits, unit, &number) ? -1 : number;
}

/* "0-3,8": how many numbers; 0 if it is no such list. */
static int64_t count_list(const char *list)
{
    int64_t count = 0;
    while (isdigit((unsigned char)*list)) {
        const char *end = list;
        const int64_t first = number_at(list, 1, &end);
        const int64_t last = *end == '-' ? number_at(end + 1, 1, &end) : first;
        if (last < first || last >= MAX_CPUS)
            return 0;
        count += last - first + 1;
        list = *end == ',' ? end + 1 : end;
    }
    return count;
}

static bool read_cache(int index, cli_cache *cache)
{
    char path[96], line[256];
    const char *format = "/sys/devices/system/cpu/cpu0/cache/index%d/%s";
    snprintf(path, sizeof(path), format, index, "level");
    if (!first_line(path, line, sizeof(line)))
        return false;
    cache->level = (int)strtol(line, NULL, 10);
    snprintf(path, sizeof(path), format, index, "type");
    first_line(path, line, sizeof(line));
    snprintf(cache->type, sizeof(cache->type), "%.15s", line);
    snprintf(path, sizeof(path), format, index, "size");
    first_line(path, line, sizeof(line));
    const char *unit;
    cache->bytes = number_at(line, 1, &unit);
    if (cache->bytes <= 0 || cache->bytes > MAX_CACHE_BYTES)
        return false;
    cache->bytes *= *unit == 'K' ? 1024 : *unit == 'M' ? 1024 * 1024 : 1;
    snprintf(path, sizeof(path), format, index, "shared_cpu_list");
    first_line(path, line, sizeof(line));
    cache->num_cpus = count_list(line);
    return true;
}

/* "always [madvise] never": the word in brackets. */
static void read_huge_pages(char *word, size_t capacity)
{
    char line[64];
    word[0] = '\0';
    if (!first_line("/sys/kernel/mm/transparent_hugepage/enabled", line, sizeof(line)))
        return;
    const char *open = strchr(line, '[');
    if (open != NULL)
        snprintf(word, capacity, "%.*s", (int)strcspn(open + 1, "]"), open + 1);
}

static double read_mhz(void)
{
    char line[64];
    if (first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", line, sizeof(line)))
        return strtod(line, NULL) / 1000;
    if (value_of("/proc/cpuinfo", "cpu MHz", line, sizeof(line)))
        return strtod(line, NULL);
    return 0;
}

void cli_machine_read(cli_machine *machine)
{
    *machine = (cli_machine){0};
    if (!value_of("/proc/cpuinfo", "model name", machine->cpu, sizeof(machine->cpu)))
        value_of("/proc/cpuinfo", "CPU implementer", machine->cpu, sizeof(machine->cpu));
    machine->mhz = read_mhz();
    while (machine->num_caches < CLI_MAX_CACHES &&
           read_cache(machine->num_caches, &machine->cache[machine->num_caches]))
        machine->num_caches++;
    read_huge_pages(machine->huge_pages, sizeof(machine->huge_pages));
    machine->affinity_cpus = pageattn_affinity_cpus();
    machine->cgroup_cpus = pageattn_cgroup_cpus("");
    if (getloadavg(&machine->load, 1) != 1)
        machine->load = -1;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* What is left under the limit of one version of control groups. */
static int64_t cgroup_left(const char *limit_path, const char *used_path)
{
    char limit[32], used[32];
    first_line(limit_path, limit, sizeof(limit));
    first_line(used_path, used, sizeof(used));
    const int64_t limit_bytes = number_at(limit, 1, NULL), used_bytes = number_at(used, 1, NULL);
    if (limit_bytes < 0 || used_bytes < 0)
        return INT64_MAX;
    return limit_bytes > used_bytes ? limit_bytes - used_bytes : 0;
}

int64_t cli_machine_available_bytes(void)
{
    char value[64] = "";
    value_of("/proc/meminfo", "MemAvailable", value, sizeof(value));
    int64_t bytes = number_at(value, 1024, NULL);
    if (bytes < 0)
        bytes = INT64_MAX;
    bytes = least(bytes, cgroup_left("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"));
    return least(bytes, cgroup_left("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                    "/sys/fs/cgroup/memory/memory.usage_in_bytes"));
}

/* What num_threads CPUs have of a cache, if each instance is as large as this CPU's. */
static int64_t cache_bytes_of(const cli_cache *cache, int32_t num_threads)
{
    const int64_t sharers = cache->num_cpus > 0 ? cache->num_cpus : 1;
    return (num_threads + sharers - 1) / sharers * cache->bytes;
}

const char *cli_machine_level(const cli_machine *machine, int64_t bytes, int32_t num_threads)
{
    static const char *const names[] = {"mem", "L1", "L2", "L3", "L4"};
    int level = 0;
    for (int i = 0; i < machine->num_caches; i++) {
        const cli_cache *cache = &machine->cache[i];
        if (strcmp(cache->type, "Instruction") == 0 || cache->level < 1 || cache->level > 4)
            continue;
        if (bytes <= cache_bytes_of(cache, num_threads) && (level == 0 || cache->level < level))
            level = cache->level;
    }
    return names[level];
}

char *cli_size_text(int64_t bytes, char text[24])
{
    if (bytes >= INT64_C(1) << 30)
        snprintf(text, 24, "%.1f GiB", (double)bytes / (1 << 30));
    else if (bytes >= 1 << 20)
        snprintf(text, 24, "%.1f MiB", (double)bytes / (1 << 20));
    else
        snprintf(text, 24, "%" PRId64 " KiB", bytes / 1024);
    return text;
}
