/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contexts: what may be asked for and what not, which instruction set comes of it, a context in
 * use, and executors that break their promise. test_threads.c has many threads,
 * test_caller_executors.c more executors.
 */
#define _GNU_SOURCE /* setenv */

#include "small_call.h"

/* ---- Creating a context ---- */

typedef struct wrong_creation {
    const char *name;
    pageattn_status status;
    const char *message;
    poke pokes[MAX_POKES];
    const char *isa; /* the environment variable */
} wrong_creation;

#define WITH_EXECUTOR SET_POINTER(options.executor, &call.executor)
#define WITH_ALLOCATOR SET_POINTER(options.allocator, &call.allocator)

static const wrong_creation wrong_creations[] = {
    {"options' struct_size 0", PAGEATTN_ERROR_STRUCT_SIZE,
     "options->struct_size = 0; this library (version *) knows *",
     .pokes = {SET(options.struct_size, 0)}},
    {"options' struct_size too large", PAGEATTN_ERROR_STRUCT_SIZE, "options->struct_size = *",
     .pokes = {SET(options.struct_size, sizeof(pageattn_context_options) + 1)}},
    {"isa 99", PAGEATTN_ERROR_ARGUMENT, "options->isa = 99 is not a value of pageattn_isa",
     .pokes = {SET(options.isa, 99)}},
    {"num_threads -1", PAGEATTN_ERROR_ARGUMENT,
     "options->num_threads = -1 is outside [1, 4096], or 0 for as many as this process may use",
     .pokes = {SET(options.num_threads, -1)}},
    {"num_threads 4097", PAGEATTN_ERROR_ARGUMENT,
     "options->num_threads = 4097 is outside [1, 4096], *",
     .pokes = {SET(options.num_threads, 4097)}},
    {"num_threads beside an executor", PAGEATTN_ERROR_ARGUMENT,
     "options->num_threads = 2; it must be 0 beside an executor, *",
     .pokes = {SET(options.num_threads, 2), WITH_EXECUTOR}},
    {"min_bytes_per_worker -1", PAGEATTN_ERROR_ARGUMENT,
     "options->min_bytes_per_worker = -1; it must be > 0, or 0 for the default of 262144",
     .pokes = {SET(options.min_bytes_per_worker, -1)}},
    {"spin_ns -1", PAGEATTN_ERROR_ARGUMENT, "options->spin_ns = -1; it must be >= 0",
     .pokes = {SET(options.spin_ns, -1)}},
    {"executor's struct_size 0", PAGEATTN_ERROR_STRUCT_SIZE,
     "options->executor->struct_size = 0; *",
     .pokes = {WITH_EXECUTOR, SET(executor.struct_size, 0)}},
    {"executor without parallel_for", PAGEATTN_ERROR_ARGUMENT,
     "options->executor->parallel_for is NULL",
     .pokes = {WITH_EXECUTOR, SET_POINTER(executor.parallel_for, NULL)}},
    {"executor of 0 workers", PAGEATTN_ERROR_ARGUMENT,
     "options->executor->num_workers = 0 is outside [1, 4096]",
     .pokes = {WITH_EXECUTOR, SET(executor.num_workers, 0)}},
    {"executor of INT32_MAX workers", PAGEATTN_ERROR_ARGUMENT,
     "options->executor->num_workers = 2147483647 is outside [1, 4096]",
     .pokes = {WITH_EXECUTOR, SET(executor.num_workers, INT32_MAX)}},
    {"allocator's struct_size 8", PAGEATTN_ERROR_STRUCT_SIZE,
     "options->allocator->struct_size = 8; *",
     .pokes = {WITH_ALLOCATOR, SET(allocator.struct_size, 8)}},
    {"allocator without allocate", PAGEATTN_ERROR_ARGUMENT, "options->allocator->allocate is NULL",
     .pokes = {WITH_ALLOCATOR, SET_POINTER(allocator.allocate, NULL)}},
    {"allocator without deallocate", PAGEATTN_ERROR_ARGUMENT,
     "options->allocator->deallocate is NULL",
     .pokes = {WITH_ALLOCATOR, SET_POINTER(allocator.deallocate, NULL)}},
    {"PAGEATTN_ISA names nothing", PAGEATTN_ERROR_ISA,
     "the environment variable PAGEATTN_ISA is \"sse9\", which names no instruction set; "
     "available: scalar*, or auto for the best of them",
     .isa = "sse9"},
    {"PAGEATTN_ISA in capitals", PAGEATTN_ERROR_ISA,
     "the environment variable PAGEATTN_ISA is \"SCALAR\", *", .isa = "SCALAR"},
};

static void test_wrong_creation(const wrong_creation *wrong)
{
    pageattn_context *created = (pageattn_context *)&call; /* anything but NULL */
    pageattn_error error;
    reset();
    apply(wrong->pokes);
    remember();
    if (wrong->isa != NULL)
        setenv("PAGEATTN_ISA", wrong->isa, 1);
    const pageattn_status status = pageattn_context_create(&call.options, &created, &error);
    const pageattn_status silent = pageattn_context_create(&call.options, &created, NULL);
    unsetenv("PAGEATTN_ISA");
    if (created != NULL || silent != wrong->status)
        check_failed(wrong->name, "a context that should not be, or another status");
    else if (!unchanged())
        check_failed(wrong->name, "wrote to the options");
    else
        expect(wrong->name, status, wrong->status, &error, wrong->message);
}

/* By the options where `by_name` is 0, else by the environment variable. */
static void test_isa(pageattn_isa isa, int by_name)
{
    const char *name = pageattn_isa_name(isa);
    char title[64];
    pageattn_context *created;
    pageattn_error error;
    snprintf(title, sizeof(title), "%s by %s", name, by_name ? "PAGEATTN_ISA" : "options");
    reset();
    if (by_name)
        setenv("PAGEATTN_ISA", name, 1);
    else
        call.options.isa = isa;
    const pageattn_status status = pageattn_context_create(&call.options, &created, &error);
    unsetenv("PAGEATTN_ISA");
    if (!pageattn_isa_available(isa)) {
        expect(title, status, PAGEATTN_ERROR_ISA, &error, "* lacks; available: scalar*");
        return;
    }
    if (status != PAGEATTN_OK || pageattn_context_isa(created) != isa)
        check_failed(title, "not obeyed: %s", error.message);
    else if (right_call_succeeds(title, created))
        check_passed(title);
    pageattn_context_destroy(created);
}

static void test_creations(void)
{
    for (size_t i = 0; i < sizeof(wrong_creations) / sizeof(*wrong_creations); i++)
        test_wrong_creation(&wrong_creations[i]);
    for (int isa = PAGEATTN_ISA_SCALAR; pageattn_isa_name((pageattn_isa)isa) != NULL; isa++) {
        test_isa((pageattn_isa)isa, 0);
        test_isa((pageattn_isa)isa, 1);
    }
    check_that(pageattn_isa_available(PAGEATTN_ISA_SCALAR) == 1, "scalar is always available");
    check_that(pageattn_isa_available(PAGEATTN_ISA_AUTO) == 0 &&
                   pageattn_isa_available((pageattn_isa)99) == 0,
               "auto and 99 are no instruction sets");
}

/* ---- A context in use ---- */

typedef struct intruder {
    pageattn_context *context;
    pageattn_status status;
    int came;
    int wrote;
} intruder;

/* Calls the context from inside a call on it. */
static void intrude(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    intruder *self = opaque;
    remember();
    self->came = 1;
    self->status = pageattn_attend(self->context, &call.args, NULL);
    self->wrote = !unchanged();
    for (int64_t i = num_tasks; i-- > 0;)
        task(arg, i);
}

static void test_busy(void)
{
    intruder self = {0};
    pageattn_executor executor = {sizeof(executor), &self, 2, intrude};
    self.context = context_of(executor);
    const int right = right_call_succeeds("a context in use", self.context);
    if (right && check_that(self.came, "a small call runs in parallel")) {
        check_that(self.status == PAGEATTN_ERROR_BUSY, "a second call on a context in use");
        check_that(!self.wrote, "a call on a context in use writes nothing");
        check_that(right_call_succeeds("free again", self.context), "a context is free again");
    }
    pageattn_context_destroy(self.context);
}

/* ---- Executors that break their promise ---- */

static void run_nothing(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque, (void)num_tasks, (void)task, (void)arg;
}

static void run_all_but_last(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    for (int64_t i = 0; i + 1 < num_tasks; i++)
        task(arg, i);
}

static void run_first_twice(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    run_in_order(opaque, num_tasks, task, arg);
    task(arg, 0);
}

static void run_one_too_many(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    run_in_order(opaque, num_tasks + 1, task, arg);
}

static void test_broken_executor(const char *name,
                                 void (*parallel_for)(void *, int64_t, pageattn_task, void *))
{
    pageattn_executor executor = {sizeof(executor), NULL, 2, parallel_for};
    pageattn_context *created = context_of(executor);
    pageattn_error error = {0};
    reset();
    remember();
    const pageattn_status status = pageattn_attend(created, &call.args, &error);
    if (!guards_intact() || !inputs_intact())
        check_failed(name, "wrote outside of out and lse");
    else
        expect(name, status, PAGEATTN_ERROR_EXECUTOR, &error, "the executor's parallel_for *");
    pageattn_context_destroy(created);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    unsetenv("PAGEATTN_ISA");
    test_creations();
    test_busy();
    test_broken_executor("an executor that runs nothing", run_nothing);
    test_broken_executor("an executor that forgets a task", run_all_but_last);
    test_broken_executor("an executor that runs a task twice", run_first_twice);
    test_broken_executor("an executor that runs a task too many", run_one_too_many);
    return check_finish();
}
