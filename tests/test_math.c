/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp, tanh and log over all floats of their domains: the error against a correctly rounded
 * reference, and the same bits on every instruction set.
 *
 * The reference is the C library's double function of the float. glibc's are at most 2 ulp off, of
 * a type with 29 more bits: the error measured here is right to 2^-28 ulp of a float, far finer
 * than the digits that are printed and bounded. Rounded to float the reference is the correctly
 * rounded value unless that lies within 2^-28 ulp of a tie, as about 16 of 2^32 do: the number of
 * results that are not correctly rounded is right to a few.
 *
 * With PAGEATTN_TEST_REDUCED=1 in the environment a sample is tried instead of all floats, for
 * builds that are many times slower.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "check.h"
#include "vocabulary.h"

enum {
    CHUNK_FLOATS = 4096,
    MAX_THREADS = 16,
    SCALAR_SHARE = 8,     /* beside vectors, scalar code tries one float of so many */
    REDUCED_STRIDE = 997, /* a prime, so that the low bits of the sample are not all alike */
};

#define PLUS_0 0x00000000u
#define SMALLEST_NORMAL 0x00800000u
#define PLUS_10 0x41200000u
#define LARGEST 0x7f7fffffu
#define PLUS_INFINITY 0x7f800000u
#define MINUS_0 0x80000000u
#define MINUS_87 0xc2ae0000u
#define MINUS_88 0xc2b00000u
#define MINUS_INFINITY 0xff800000u

static double nothing(double x)
{
    (void)x;
    return 0.0;
}

/* Floats whose bits are `stride` apart, from `first` to `last`. */
typedef struct math_subject {
    const char *name;
    int operation;
    double (*reference)(double);
    double bound; /* ulp; the function's header states it too */
    uint32_t first;
    uint32_t last;
    uint32_t stride;
} math_subject;

static const math_subject subjects[] = {
    {"exp from -87 to -0", OPERATION_exp, exp, 0.9, MINUS_0, MINUS_87, 1},
    {"exp from -88 to -87", OPERATION_exp, nothing, 0, MINUS_87 + 1, MINUS_88, 1},
    {"exp below -88", OPERATION_exp, nothing, 0, MINUS_88, MINUS_INFINITY, 1009},
    {"tanh from +0 to 10", OPERATION_tanh, tanh, 1.45, PLUS_0, PLUS_10, 1},
    {"tanh above 10", OPERATION_tanh, tanh, 1.45, PLUS_10, PLUS_INFINITY, 1009},
    {"tanh of negative floats", OPERATION_tanh, tanh, 1.45, MINUS_0, MINUS_INFINITY, 101},
    {"log", OPERATION_log, log, 0.9, SMALLEST_NORMAL, LARGEST, 1},
};

typedef struct measurement {
    int64_t num_tried;
    int64_t num_misrounded;
    double worst_error; /* ulp */
    float worst_x;
    int64_t num_compared[NUM_ISAS];
    int64_t num_different[NUM_ISAS];
    float different_x[NUM_ISAS]; /* one of those that differ */
} measurement;

/* The last of `isas` is measured, the others are compared with it. */
typedef struct math_job {
    const math_subject *subject;
    uint32_t stride;
    int64_t num_floats;
    int num_isas;
    const vocabulary_isa *isas[NUM_ISAS];
    int64_t share[NUM_ISAS]; /* compared on one float of so many */
    _Atomic int64_t next_chunk;
    pthread_mutex_t lock; /* of `total` */
    measurement total;
} math_job;

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* 1 / (distance of the floats around x), 2^-126 <= |x|: a power of two, made from x's exponent. */
static double inverse_ulp(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    uint64_t exponent = bits >> 52 & 0x7ff;
    if (exponent < 1023 - 126)
        exponent = 1023 - 126; /* subnormal floats are as far apart as the smallest normal ones */
    bits = (2 * 1023 + 23 - exponent) << 52;
    memcpy(&x, &bits, 8);
    return x;
}

static void measure(const math_subject *subject, const float *x, const float *y, int64_t count,
                    measurement *m)
{
    for (int64_t i = 0; i < count; i++) {
        const double exact = subject->reference((double)x[i]);
        const double error = fabs((double)y[i] - exact) * inverse_ulp(exact);
        m->num_misrounded += bits_of(y[i]) != bits_of((float)exact);
        /* Infinities that agree make the error NaN, and so does a NaN that must not be. */
        if (!(error <= m->worst_error) && y[i] != (float)exact) {
            m->worst_error = error == error ? error : INFINITY;
            m->worst_x = x[i];
        }
    }
    m->num_tried += count;
}

static void compare(const math_job *job, int isa, const float *x, const float *y, int64_t chunk,
                    int64_t count, measurement *m)
{
    float some_x[CHUNK_FLOATS], some_y[CHUNK_FLOATS], result[CHUNK_FLOATS];
    const int64_t share = job->share[isa];
    int64_t num_some = 0;
    for (int64_t i = chunk % share; i < count; i += share) {
        some_x[num_some] = x[i];
        some_y[num_some++] = y[i];
    }
    for (int64_t i = num_some; i % 16 != 0; i++)
        some_x[i] = x[0];

    const float *const operands[4] = {some_x, some_x, some_x, some_x};
    job->isas[isa]->functions->operation[job->subject->operation](operands, result,
                                                                  (num_some + 15) / 16 * 16);
    m->num_compared[isa] += num_some;
    if (memcmp(result, some_y, (size_t)num_some * sizeof(float)) == 0)
        return;
    for (int64_t i = 0; i < num_some; i++)
        if (bits_of(result[i]) != bits_of(some_y[i])) {
            m->num_different[isa]++;
            m->different_x[isa] = some_x[i];
        }
}

static void try_chunk(const math_job *job, int64_t chunk, measurement *m)
{
    float x[CHUNK_FLOATS], y[CHUNK_FLOATS];
    const int64_t start = chunk * CHUNK_FLOATS;
    const int64_t left = job->num_floats - start;
    const int64_t count = left < CHUNK_FLOATS ? left : CHUNK_FLOATS;
    for (int64_t i = 0; i < CHUNK_FLOATS; i++) {
        const int64_t index = start + (i < count ? i : 0);
        x[i] = float_of(job->subject->first + (uint32_t)(index * job->stride));
    }

    const float *const operands[4] = {x, x, x, x};
    const int measured = job->num_isas - 1;
    job->isas[measured]->functions->operation[job->subject->operation](operands, y, CHUNK_FLOATS);
    measure(job->subject, x, y, count, m);
    for (int isa = 0; isa < measured; isa++)
        compare(job, isa, x, y, chunk, count, m);
}

static void add_up(measurement *total, const measurement *m)
{
    total->num_tried += m->num_tried;
    total->num_misrounded += m->num_misrounded;
    if (m->worst_error > total->worst_error ||
        (m->worst_error == total->worst_error && bits_of(m->worst_x) < bits_of(total->worst_x))) {
        total->worst_error = m->worst_error;
        total->worst_x = m->worst_x;
    }
    for (int isa = 0; isa < NUM_ISAS; isa++) {
        total->num_compared[isa] += m->num_compared[isa];
        total->num_different[isa] += m->num_different[isa];
        if (m->num_different[isa] > 0)
            total->different_x[isa] = m->different_x[isa];
    }
}

static void *work(void *argument)
{
    math_job *job = argument;
    measurement mine = {0};
    for (;;) {
        const int64_t chunk = atomic_fetch_add(&job->next_chunk, 1);
        if (chunk * CHUNK_FLOATS >= job->num_floats)
            break;
        try_chunk(job, chunk, &mine);
    }
    pthread_mutex_lock(&job->lock);
    add_up(&job->total, &mine);
    pthread_mutex_unlock(&job->lock);
    return NULL;
}

/* On this thread and as many more as there are other processors. */
static void run(math_job *job)
{
    const long num_processors = sysconf(_SC_NPROCESSORS_ONLN);
    const long num_threads = num_processors < MAX_THREADS ? num_processors : MAX_THREADS;
    pthread_t threads[MAX_THREADS];
    int num_started = 0;
    while (num_started + 1 < num_threads &&
           pthread_create(&threads[num_started], NULL, work, job) == 0)
        num_started++;
    work(job);
    for (int i = 0; i < num_started; i++)
        pthread_join(threads[i], NULL);
}

static void report(const math_job *job)
{
    const math_subject *subject = job->subject;
    const measurement *m = &job->total;
    char name[100];

    printf("%s: %lld floats, worst error %.4f ulp at %a, %lld (%.3g %%) not correctly rounded\n",
           subject->name, (long long)m->num_tried, m->worst_error, (double)m->worst_x,
           (long long)m->num_misrounded, 100.0 * (double)m->num_misrounded / (double)m->num_tried);
    snprintf(name, sizeof name, "%s, error", subject->name);
    if (m->worst_error > subject->bound || (subject->bound == 0 && m->num_misrounded > 0))
        check_failed(name, "%g ulp at %a is above %g ulp, or a zero has the wrong sign",
                     m->worst_error, (double)m->worst_x, subject->bound);
    else
        check_passed(name);

    for (int isa = 0; isa < job->num_isas - 1; isa++) {
        const char *measured = job->isas[job->num_isas - 1]->name;
        snprintf(name, sizeof name, "%s, %s as %s", subject->name, job->isas[isa]->name, measured);
        printf("%s: %lld floats compared\n", name, (long long)m->num_compared[isa]);
        if (m->num_different[isa] > 0 || m->num_compared[isa] == 0)
            check_failed(name, "%lld of %lld differ, one of them at %a",
                         (long long)m->num_different[isa], (long long)m->num_compared[isa],
                         (double)m->different_x[isa]);
        else
            check_passed(name);
    }
}

static void test_subject(const math_subject *subject, int reduced)
{
    math_job job = {.subject = subject, .stride = subject->stride * (reduced ? REDUCED_STRIDE : 1)};
    job.num_floats = (int64_t)(subject->last - subject->first) / job.stride + 1;
    job.num_isas = vocabulary_available(job.isas);
    for (int isa = 0; isa < job.num_isas; isa++)
        job.share[isa] = job.isas[isa]->isa == PAGEATTN_ISA_SCALAR && !reduced ? SCALAR_SHARE : 1;
    pthread_mutex_init(&job.lock, NULL);
    run(&job);
    pthread_mutex_destroy(&job.lock);
    report(&job);
}

/* Results that are exact. NaN stands for any NaN. */
static const struct {
    const char *name;
    int operation;
    float x;
    float expected;
} exact_cases[] = {
    {"exp of +0", OPERATION_exp, 0.0f, 1.0f},
    {"exp of -0", OPERATION_exp, -0.0f, 1.0f},
    {"exp of the smallest negative float", OPERATION_exp, -0x1p-149f, 1.0f},
    {"exp of -infinity", OPERATION_exp, -INFINITY, 0.0f},
    {"exp of -FLT_MAX", OPERATION_exp, -0x1.fffffep+127f, 0.0f},
    {"exp of the float below -87", OPERATION_exp, -0x1.5c0002p+6f, 0.0f},
    {"exp of NaN", OPERATION_exp, NAN, NAN},
    {"exp of NaN with a sign", OPERATION_exp, -NAN, NAN},
    {"tanh of +0", OPERATION_tanh, 0.0f, 0.0f},
    {"tanh of -0", OPERATION_tanh, -0.0f, -0.0f},
    {"tanh of the smallest float", OPERATION_tanh, 0x1p-149f, 0x1p-149f},
    {"tanh of the smallest negative float", OPERATION_tanh, -0x1p-149f, -0x1p-149f},
    {"tanh of the largest subnormal", OPERATION_tanh, 0x1.fffffcp-127f, 0x1.fffffcp-127f},
    {"tanh of FLT_MAX", OPERATION_tanh, 0x1.fffffep+127f, 1.0f},
    {"tanh of infinity", OPERATION_tanh, INFINITY, 1.0f},
    {"tanh of -infinity", OPERATION_tanh, -INFINITY, -1.0f},
    {"tanh of NaN", OPERATION_tanh, NAN, NAN},
    {"log of +0", OPERATION_log, 0.0f, -INFINITY},
    {"log of 1", OPERATION_log, 1.0f, 0.0f},
    {"log of infinity", OPERATION_log, INFINITY, INFINITY},
    {"log of NaN", OPERATION_log, NAN, NAN},
    {"log of NaN with a sign", OPERATION_log, -NAN, NAN},
};

/* Each in every lane, among neighbours that must not matter. */
static void test_exact_cases(const vocabulary_isa *isa)
{
    for (size_t i = 0; i < sizeof exact_cases / sizeof exact_cases[0]; i++) {
        const float expected = exact_cases[i].expected;
        char name[100];
        snprintf(name, sizeof name, "%s on %s", exact_cases[i].name, isa->name);
        int num_wrong = 0;
        float wrong = 0;
        for (int lane = 0; lane < 16; lane++) {
            float x[16], y[16];
            for (int l = 0; l < 16; l++)
                x[l] = l == lane ? exact_cases[i].x : l % 2 == 0 ? NAN : -3.0f;
            const float *const operands[4] = {x, x, x, x};
            isa->functions->operation[exact_cases[i].operation](operands, y, 16);
            if (expected != expected ? y[lane] == y[lane] : bits_of(y[lane]) != bits_of(expected)) {
                num_wrong++;
                wrong = y[lane];
            }
        }
        if (num_wrong > 0)
            check_failed(name, "%a in %d lanes, expected %a", (double)wrong, num_wrong,
                         (double)expected);
        else
            check_passed(name);
    }
}

static void test_tanh_is_odd(const vocabulary_isa *isa)
{
    char name[100];
    snprintf(name, sizeof name, "tanh is odd on %s", isa->name);
    for (uint32_t bits = PLUS_0; bits < PLUS_INFINITY; bits += 16 * 997) {
        float x[16], minus_x[16], y[16], minus_y[16];
        for (uint32_t l = 0; l < 16; l++) {
            x[l] = float_of(bits + 997 * l);
            minus_x[l] = -x[l];
        }
        const float *const operands[4] = {x, x, x, x};
        const float *const minus_operands[4] = {minus_x, minus_x, minus_x, minus_x};
        isa->functions->operation[OPERATION_tanh](operands, y, 16);
        isa->functions->operation[OPERATION_tanh](minus_operands, minus_y, 16);
        for (int l = 0; l < 16; l++)
            if (bits_of(minus_y[l]) != (bits_of(y[l]) ^ MINUS_0) && x[l] == x[l]) {
                check_failed(name, "%a of %a, %a of %a", (double)y[l], (double)x[l],
                             (double)minus_y[l], (double)minus_x[l]);
                return;
            }
    }
    check_passed(name);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    const char *wish = getenv("PAGEATTN_TEST_REDUCED");
    const int reduced = wish != NULL && strcmp(wish, "1") == 0;
    if (reduced)
        printf("reduced: one float of %d\n", REDUCED_STRIDE);

    const vocabulary_isa *isas[NUM_ISAS];
    const int num_isas = vocabulary_available(isas);
    for (int i = 0; i < num_isas; i++) {
        test_exact_cases(isas[i]);
        test_tanh_is_odd(isas[i]);
    }
    for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++)
        test_subject(&subjects[i], reduced);
    return check_finish();
}
