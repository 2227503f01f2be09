/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many threads this process may use: affinity mask, control groups, environment.
 *
 * Runs when a context is created, and allocates nothing. A limit that cannot be read is no limit:
 * most systems have no control group with a quota, and their files then do not exist.
 */
#define _GNU_SOURCE /* sched_getaffinity, CPU_COUNT_S */

#include "usable_threads.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "executor.h"

/* The kernel refuses a mask shorter than its own; Linux is built for 8192 CPUs at most. */
#define MAX_CPUS 65536

int32_t pageattn_affinity_cpus(void)
{
    unsigned long mask[MAX_CPUS / CHAR_BIT / sizeof(unsigned long)];
    int count;
    if (sched_getaffinity(0, sizeof(mask), (cpu_set_t *)mask) == 0)
        count = CPU_COUNT_S(sizeof(mask), (cpu_set_t *)mask);
    else /* a sandbox may forbid to ask */
        count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    return count < 1 ? 1 : count;
}

/* ---- Reading files line by line ---- */

typedef struct byte_reader {
    int file;
    size_t begin, end;
    char bytes[1024];
} byte_reader;

static int next_byte(byte_reader *reader)
{
    if (reader->begin == reader->end) {
        ssize_t got;
        do
            got = read(reader->file, reader->bytes, sizeof(reader->bytes));
        while (got < 0 && errno == EINTR);
        if (got <= 0)
            return -1;
        reader->begin = 0;
        reader->end = (size_t)got;
    }
    return (unsigned char)reader->bytes[reader->begin++];
}

/* The next line without its newline, cut off at the capacity; false at the end. */
static bool next_line(byte_reader *reader, char *line, size_t capacity)
{
    size_t length = 0;
    int byte;
    while ((byte = next_byte(reader)) >= 0 && byte != '\n') {
        if (length + 1 < capacity)
            line[length++] = (char)byte;
    }
    line[length] = '\0';
    return byte >= 0 || length > 0;
}

/* False, and nothing to close, if there is no such file or the path is too long. */
static bool open_reader(byte_reader *reader, const char *directory, const char *name)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof(path), "%s/%s", directory, name);
    if (length < 0 || (size_t)length >= sizeof(path))
        return false;
    reader->begin = reader->end = 0;
    reader->file = open(path, O_RDONLY | O_CLOEXEC);
    return reader->file >= 0;
}

static bool read_first_line(const char *directory, const char *name, char *line, size_t capacity)
{
    byte_reader reader;
    if (!open_reader(&reader, directory, name))
        return false;
    bool found = next_line(&reader, line, capacity);
    close(reader.file);
    return found;
}

/* ---- Control groups ---- */

/* This process's groups as paths inside their hierarchies; empty: none. */
typedef struct cgroups {
    char v1_cpu[PATH_MAX];
    char v2[PATH_MAX];
} cgroups;

static bool list_contains(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *item = list; item != NULL; item = strchr(item, ',')) {
        item += *item == ',';
        if (strncmp(item, name, length) == 0 && (item[length] == ',' || item[length] == '\0'))
            return true;
    }
    return false;
}

/* /proc/self/cgroup: "4:cpu,cpuacct:/path" in version 1, "0::/path" in version 2. */
static void read_groups(const char *root, cgroups *groups)
{
    char line[PATH_MAX];
    byte_reader reader;
    groups->v1_cpu[0] = groups->v2[0] = '\0';
    if (!open_reader(&reader, root, "proc/self/cgroup"))
        return;
    while (next_line(&reader, line, sizeof(line))) {
        char *controllers = strchr(line, ':');
        char *path = controllers == NULL ? NULL : strchr(controllers + 1, ':');
        if (path == NULL)
            continue;
        *path++ = '\0';
        controllers++;
        if (strncmp(line, "0:", 2) == 0 && *controllers == '\0')
            snprintf(groups->v2, sizeof(groups->v2), "%s", path);
        else if (list_contains(controllers, "cpu"))
            snprintf(groups->v1_cpu, sizeof(groups->v1_cpu), "%s", path);
    }
    close(reader.file);
}

static int32_t quota_cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0)
        return INT32_MAX;
    long long cpus = quota / period + (quota % period != 0);
    return cpus < INT32_MAX ? (int32_t)cpus : INT32_MAX;
}

static int32_t directory_cpus_v2(const char *directory)
{
    char line[64], *rest;
    if (!read_first_line(directory, "cpu.max", line, sizeof(line)))
        return INT32_MAX;
    long long quota = strtoll(line, &rest, 10); /* microseconds; "max" reads as 0, no quota */
    return quota_cpus(quota, strtoll(rest, NULL, 10));
}

static int32_t directory_cpus_v1(const char *directory)
{
    char quota[32], period[32];
    if (!read_first_line(directory, "cpu.cfs_quota_us", quota, sizeof(quota)) ||
        !read_first_line(directory, "cpu.cfs_period_us", period, sizeof(period)))
        return INT32_MAX;
    /* The quota is -1 for none. */
    return quota_cpus(strtoll(quota, NULL, 10), strtoll(period, NULL, 10));
}

/* The least quota from the directory `path` up to its first `mount_length` bytes. */
static int32_t least_quota_up(char *path, size_t mount_length,
                              int32_t (*directory_cpus)(const char *))
{
    int32_t least = INT32_MAX;
    for (;;) {
        int32_t cpus = directory_cpus(path);
        if (cpus < least)
            least = cpus;
        char *slash = strrchr(path, '/');
        if (slash == NULL || (size_t)(slash - path) < mount_length)
            return least;
        *slash = '\0';
    }
}

static bool is_octal(char digit)
{
    return digit >= '0' && digit <= '7';
}

/* mountinfo writes blanks and backslashes as \ and three octal digits. */
static void unescape(char *text)
{
    char *out = text;
    // NOLINTNEXTLINE(clang-analyzer-core.NullDereference): parse_mount passes fields it has seen
    for (; *text != '\0'; text++) {
        if (*text == '\\' && is_octal(text[1]) && is_octal(text[2]) && is_octal(text[3])) {
            *out++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 3;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
}

typedef struct cgroup_mount {
    char *group; /* the group that is mounted: in a container often not "/" */
    char *point;
    char *type;
    char *options;
} cgroup_mount;

/* "36 35 98:0 /group /mount/point rw,relatime master:1 - cgroup2 cgroup2 rw,..." */
static bool parse_mount(char *line, cgroup_mount *mount)
{
    enum { GROUP = 3, POINT = 4, NUM_FIXED = 6 };
    char *rest = line, *field;
    int index = 0;
    while ((field = strsep(&rest, " ")) != NULL && (index < NUM_FIXED || strcmp(field, "-") != 0)) {
        if (index == GROUP)
            mount->group = field;
        if (index == POINT)
            mount->point = field;
        index++;
    }
    mount->type = strsep(&rest, " ");
    strsep(&rest, " ");
    mount->options = rest;
    if (mount->options == NULL)
        return false;
    unescape(mount->group);
    unescape(mount->point);
    return true;
}

/* The path of a group below the mounted one, or NULL if it is not below it. */
static const char *path_below(const char *path, const char *mounted)
{
    size_t length = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);
    if (strncmp(path, mounted, length) != 0 || (path[length] != '/' && path[length] != '\0'))
        return NULL;
    return strcmp(path + length, "/") == 0 ? "" : path + length;
}

static int32_t mount_cpus(const char *root, const cgroup_mount *mount, const cgroups *groups)
{
    char path[PATH_MAX];
    bool is_v2 = strcmp(mount->type, "cgroup2") == 0;
    bool is_v1_cpu = strcmp(mount->type, "cgroup") == 0 && list_contains(mount->options, "cpu");
    if (!is_v2 && !is_v1_cpu)
        return INT32_MAX;
    const char *group = is_v2 ? groups->v2 : groups->v1_cpu;
    const char *below = *group == '\0' ? NULL : path_below(group, mount->group);
    if (below == NULL)
        return INT32_MAX;
    int length = snprintf(path, sizeof(path), "%s%s%s", root, mount->point, below);
    if (length < 0 || (size_t)length >= sizeof(path))
        return INT32_MAX;
    return least_quota_up(path, strlen(root) + strlen(mount->point),
                          is_v2 ? directory_cpus_v2 : directory_cpus_v1);
}

int32_t pageattn_cgroup_cpus(const char *root)
{
    cgroups groups;
    byte_reader reader;
    char line[PATH_MAX];
    int32_t least = INT32_MAX;
    read_groups(root, &groups);
    if (!open_reader(&reader, root, "proc/self/mountinfo"))
        return INT32_MAX;
    while (next_line(&reader, line, sizeof(line))) {
        cgroup_mount mount = {0};
        int32_t cpus = parse_mount(line, &mount) ? mount_cpus(root, &mount, &groups) : INT32_MAX;
        if (cpus < least)
            least = cpus;
    }
    close(reader.file);
    return least;
}

/* ---- The answer ---- */

/* INT32_MAX if the variable is not set, or is not a whole number of at least 1. */
static int32_t environment_threads(void)
{
    // NOLINTNEXTLINE(concurrency-mt-unsafe): no library can keep others from calling setenv
    const char *text = getenv("PAGEATTN_NUM_THREADS");
    if (text == NULL || *text == '\0')
        return INT32_MAX;
    char *end;
    long value = strtol(text, &end, 10);
    return *end != '\0' || value < 1 || value > INT32_MAX ? INT32_MAX : (int32_t)value;
}

int32_t pageattn_usable_threads(void)
{
    int32_t least = PAGEATTN_MAX_THREADS;
    int32_t limits[] = {pageattn_affinity_cpus(), pageattn_cgroup_cpus(""), environment_threads()};
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        if (limits[i] < least)
            least = limits[i];
    }
    return least;
}
