# SPDX-License-Identifier: Apache-2.0
"""The table at the end: how fast, what the engine did, and what happened to the pages."""

from serve import Server


def summary(server: Server) -> list[tuple[str, str]]:
    """(what, figures) rows."""
    timings, pool = server.timings, server.pool
    counts = pool.counts
    return [
        ("prompt tokens", _rate(timings.prompt_tokens, timings.prompt_seconds)),
        ("decoded tokens", _rate(timings.decode_tokens, timings.decode_seconds)),
        ("all generated tokens", _rate(timings.generated_tokens, timings.seconds)),
        *server.engine.summary(timings.seconds),
        ("sequences at once", f"{timings.most_running} at most"),
        (
            "pages in use",
            f"{counts.most_in_use} of {pool.num_pages} at most, {pool.page_size} tokens each",
        ),
        (
            "pages shared",
            f"{len(counts.shared_pages)}, {counts.shared_references} times in place of a new page",
        ),
        ("pages reused", f"{counts.reused} times a freed page was taken again"),
    ]


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens} in {seconds:.2f} s, {tokens / seconds:.1f} tokens/s" if tokens else "0"


def print_table(rows: list[tuple[str, str]], stream) -> None:
    label_width = max(len(label) for label, _ in rows)
    for label, figures in rows:
        print(f"  {label:<{label_width}}  {figures}", file=stream)
