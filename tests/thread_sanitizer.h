/* SPDX-License-Identifier: Apache-2.0 */
/* What tests must know of the thread sanitizer when they are compiled for it. */
#ifndef THREAD_SANITIZER_H
#define THREAD_SANITIZER_H

#if defined(__SANITIZE_THREAD__)
#define UNDER_THREAD_SANITIZER 1
/* gcc's keeps the parent's threads on its books, and stops the child of a fork when a new thread
 * gets the id of one of them. */
#define CHILD_MAY_START_THREADS 0
#else
#define CHILD_MAY_START_THREADS 1
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_THREAD_SANITIZER 1
#endif
#endif
#endif
#ifndef UNDER_THREAD_SANITIZER
#define UNDER_THREAD_SANITIZER 0
#endif

/* It refuses threads in the child of a fork unless told otherwise. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "die_after_fork=0";
}

#endif
