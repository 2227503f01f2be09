/* SPDX-License-Identifier: Apache-2.0 */
/* What this build has and this CPU, together with its operating system, can run. */
#include <string.h>

#include "kernel/kernels.h"

struct pageattn_cpu {
    int fma, f16c, avx2;
    int avx512f, avx512bw, avx512dq, avx512vl, avx512_bf16;
};

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>

/* Which registers the operating system saves when it switches threads: XCR0. */
static uint64_t saved_registers(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Leaves and bits: Intel's Software Developer's Manual, volume 2A, CPUID; volume 1, 14.3 and 15.2
 * on why the operating system must be asked too. */
static struct pageattn_cpu detect(void)
{
    enum { FMA = 1 << 12, OSXSAVE = 1 << 27, AVX = 1 << 28, F16C = 1 << 29 };
    enum { AVX2 = 1 << 5, AVX512F = 1 << 16, AVX512DQ = 1 << 17, AVX512BW = 1 << 30 };
    enum { AVX512_BF16 = 1 << 5 };
    const uint32_t avx512vl = 1u << 31;
    const uint64_t xmm_ymm = 0x6, masks_zmm = 0xe0;

    struct pageattn_cpu cpu = {0};
    uint32_t eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & OSXSAVE) || !(ecx & AVX))
        return cpu;
    const uint64_t saved = saved_registers();
    if ((saved & xmm_ymm) != xmm_ymm)
        return cpu;
    cpu.fma = (ecx & FMA) != 0;
    cpu.f16c = (ecx & F16C) != 0;

    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx))
        return cpu;
    cpu.avx2 = (ebx & AVX2) != 0;
    if ((saved & masks_zmm) != masks_zmm)
        return cpu;
    cpu.avx512f = (ebx & AVX512F) != 0;
    cpu.avx512bw = (ebx & AVX512BW) != 0;
    cpu.avx512dq = (ebx & AVX512DQ) != 0;
    cpu.avx512vl = (ebx & avx512vl) != 0;
    if (__get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx))
        cpu.avx512_bf16 = (eax & AVX512_BF16) != 0;
    return cpu;
}

/* Zen 5 is family 26: AMD's Programmer's Manual, volume 3, E.3.1 and E.3.2 on vendor and family. */
static int is_zen5(void)
{
    uint32_t max_leaf, vendor[3] = {0}, eax = 0, ebx, ecx, edx;
    __get_cpuid(0, &max_leaf, &vendor[0], &vendor[2], &vendor[1]);
    __get_cpuid(1, &eax, &ebx, &ecx, &edx);
    const uint32_t family = (eax >> 8 & 0xf) + (eax >> 20 & 0xff);
    return family == 26 && memcmp(vendor, "AuthenticAMD", sizeof(vendor)) == 0;
}
#else
static struct pageattn_cpu detect(void)
{
    return (struct pageattn_cpu){0};
}

static int is_zen5(void)
{
    return 0;
}
#endif

static int cpu_can_run(pageattn_isa isa)
{
    const struct pageattn_cpu detected = detect();
    const struct pageattn_cpu *cpu = &detected;
    switch (isa) {
#define ISA(name, NAME, requirement)                                                               \
    case PAGEATTN_ISA_##NAME:                                                                      \
        return requirement;
#include "isa.def"
#undef ISA
    case PAGEATTN_ISA_AUTO:
        break;
    }
    (void)cpu; /* a build for another processor may have no requirement that names it */
    return 0;
}

#define ISA(name, NAME, requirement)                                                               \
    extern const pageattn_kernels pageattn_kernels_##name, pageattn_kernels_##name##_l1;
#include "isa.def"
#undef ISA

/*
 * TABLE(PAGEATTN_HAVE_X, table) is `table` where PAGEATTN_HAVE_X is defined as 1, else NULL: only
 * then does the paste below make PRESENT_1, whose comma pushes `table` into second place. #if can't
 * stand inside the expansion of a row.
 */
#define PRESENT_1 0,
#define SECOND(first, second, ...) second
#define PICK(...) SECOND(__VA_ARGS__)
#define PASTE_AND_PICK(have, table) PICK(PRESENT_##have table, NULL, 0)
#define TABLE(have, table) PASTE_AND_PICK(have, table)

static const pageattn_kernels *kernels_built(pageattn_isa isa, pageattn_prefetch prefetch)
{
    switch (isa) {
#define ISA(name, NAME, requirement)                                                               \
    case PAGEATTN_ISA_##NAME:                                                                      \
        return prefetch == PAGEATTN_PREFETCH_L1                                                    \
                   ? TABLE(PAGEATTN_HAVE_##NAME##_L1, &pageattn_kernels_##name##_l1)               \
                   : TABLE(PAGEATTN_HAVE_##NAME, &pageattn_kernels_##name);
#include "isa.def"
#undef ISA
    case PAGEATTN_ISA_AUTO:
        break;
    }
    return NULL;
}

const pageattn_kernels *pageattn_kernels_of(pageattn_isa isa, pageattn_prefetch prefetch)
{
    const pageattn_kernels *kernels = kernels_built(isa, prefetch);
    return cpu_can_run(isa) ? kernels : NULL;
}

#define FAST(name, NAME, ISA, requirement)                                                         \
    extern const pageattn_fast_kernels pageattn_fast_kernels_##name,                               \
        pageattn_fast_kernels_##name##_l1;
#include "fast.def"
#undef FAST

const pageattn_fast_kernels *pageattn_fast_kernels_of(pageattn_isa isa, pageattn_prefetch prefetch)
{
    const struct pageattn_cpu detected = detect();
    const struct pageattn_cpu *cpu = &detected;
    const pageattn_fast_kernels *kernels = NULL;
    if (!pageattn_isa_available(isa))
        return NULL;
#define FAST(name, NAME, ISA, requirement)                                                         \
    if (isa == PAGEATTN_ISA_##ISA && (requirement))                                                \
        kernels = prefetch == PAGEATTN_PREFETCH_L1                                                 \
                      ? TABLE(PAGEATTN_HAVE_##NAME##_L1, &pageattn_fast_kernels_##name##_l1)       \
                      : TABLE(PAGEATTN_HAVE_##NAME, &pageattn_fast_kernels_##name);
#include "fast.def"
#undef FAST
    (void)cpu;
    (void)prefetch;
    return kernels;
}

/* Measured on Zen 3, 4 and 5, of which only the last does better with L1 (docs/performance.md). */
pageattn_prefetch pageattn_best_prefetch(pageattn_isa isa)
{
    return is_zen5() && kernels_built(isa, PAGEATTN_PREFETCH_L1) != NULL ? PAGEATTN_PREFETCH_L1
                                                                         : PAGEATTN_PREFETCH_L2;
}

pageattn_isa pageattn_best_isa(void)
{
    pageattn_isa best = PAGEATTN_ISA_AUTO;
#define ISA(name, NAME, requirement)                                                               \
    if (pageattn_isa_available(PAGEATTN_ISA_##NAME))                                               \
        best = PAGEATTN_ISA_##NAME;
#include "isa.def"
#undef ISA
    return best;
}

const char *pageattn_isa_name(pageattn_isa isa)
{
    switch (isa) {
#define ISA(name, NAME, requirement)                                                               \
    case PAGEATTN_ISA_##NAME:                                                                      \
        return #name;
#include "isa.def"
#undef ISA
    case PAGEATTN_ISA_AUTO:
        return "auto";
    }
    return NULL;
}

int pageattn_isa_available(pageattn_isa isa)
{
    return pageattn_kernels_of(isa, PAGEATTN_PREFETCH_L2) != NULL;
}
