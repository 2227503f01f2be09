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

/* "0-3,8": how many numbers. */
static int64_t count_list(const char *list)
{
    int64_t count = 0;
    while (isdigit((unsigned char)*list)) {
        char *end;
        const long first = strtol(list, &end, 10);
        const long last = *end == '-' ? strtol(end + 1, &end, 10) : first;
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
    char *unit;
    cache->bytes = strtoll(line, &unit, 10);
    cache->bytes *= *unit == 'K' ? 1024 : *unit == 'M' ? 1024 * 1024 : 1;
    snprintf(path, sizeof(path), format, index, "shared_cpu_list");
    first_line(path, line, sizeof(line));
    cache->num_cpus = count_list(line);
    return cache->bytes > 0;
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
    if (!first_line(limit_path, limit, sizeof(limit)) || !isdigit((unsigned char)limit[0]) ||
        !first_line(used_path, used, sizeof(used)))
        return INT64_MAX;
    const int64_t left = strtoll(limit, NULL, 10) - strtoll(used, NULL, 10);
    return left > 0 ? left : 0;
}

int64_t cli_machine_available_bytes(void)
{
    char value[64];
    int64_t bytes = INT64_MAX;
    if (value_of("/proc/meminfo", "MemAvailable", value, sizeof(value)))
        bytes = strtoll(value, NULL, 10) * 1024;
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
