# SPDX-License-Identifier: Apache-2.0
"""Keys and values in pages: who holds which page, and the arrays that the pages are rows of.

A page belongs to every sequence that counts a reference on it and goes back to the pool with the
last one. Sequences that begin with the same tokens hold the same full pages: their keys and values
are computed once.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class PageCounts:
    """What the pool has seen since it was made."""

    most_in_use: int = 0
    reused: int = 0  # a page handed out again after somebody had freed it
    shared_pages: set[int] = field(default_factory=set)
    shared_references: int = 0  # a page that a sequence did not have to fill


class PagePool:
    """Hands out page numbers, counts references, and knows live pages by the tokens they end."""

    def __init__(self, num_pages: int, page_size: int):
        self.num_pages, self.page_size = num_pages, page_size
        self.counts = PageCounts()
        self._references = [0] * num_pages
        self._free = list(range(num_pages))[::-1]
        self._used_before: set[int] = set()
        self._page_of_prefix: dict[tuple[int, ...], int] = {}
        self._prefix_of_page: dict[int, tuple[int, ...]] = {}

    @property
    def num_free(self) -> int:
        return len(self._free)

    def pages_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.page_size)

    def find_prefix(self, tokens: list[int]) -> list[int]:
        """The live pages that hold the longest run of leading full pages of `tokens`.

        Takes no reference.
        """
        pages = []
        for end in range(self.page_size, len(tokens) + 1, self.page_size):
            page = self._page_of_prefix.get(tuple(tokens[:end]))
            if page is None:
                break
            pages.append(page)
        return pages

    def allocate(self, prefix: list[int] | None = None) -> int:
        """A free page with one reference.

        `prefix`: all tokens from the sequence's first to the page's last, if it may be shared.
        """
        page = self._free.pop()
        self._references[page] = 1
        self.counts.reused += page in self._used_before
        self._used_before.add(page)
        if prefix is not None and tuple(prefix) not in self._page_of_prefix:
            self._page_of_prefix[tuple(prefix)] = page
            self._prefix_of_page[page] = tuple(prefix)
        self.counts.most_in_use = max(self.counts.most_in_use, self.num_pages - self.num_free)
        return page

    def share(self, page: int) -> None:
        """One more reference on a live page."""
        assert self._references[page] > 0, f"page {page} is free and cannot be shared"
        self._references[page] += 1
        self.counts.shared_pages.add(page)
        self.counts.shared_references += 1

    def release(self, page: int) -> None:
        """One reference less. With the last one the page is free and its tokens are forgotten."""
        assert self._references[page] > 0, f"page {page} is released more often than it was taken"
        self._references[page] -= 1
        if self._references[page] == 0:
            self._page_of_prefix.pop(self._prefix_of_page.pop(page, None), None)
            self._free.append(page)


class PagedCache:
    """The keys and values of all pages.

    For each layer there are two arrays [kv_heads, pages, page_size, head_dim]. They begin as NaN,
    so that an answer which used a slot that nobody had written would show it.
    """

    def __init__(
        self,
        num_layers: int,
        num_kv_heads: int,
        num_pages: int,
        page_size: int,
        head_dim: int,
        dtype,
    ):
        shape = (num_kv_heads, num_pages, page_size, head_dim)
        self.keys = [np.full(shape, np.nan, dtype) for _ in range(num_layers)]
        self.values = [np.full(shape, np.nan, dtype) for _ in range(num_layers)]

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of one token in one layer."""
        kv_heads, _, _, head_dim = self.keys[0].shape
        return 2 * kv_heads * head_dim * self.keys[0].dtype.itemsize

    def write(
        self, layer: int, pages: np.ndarray, slots: np.ndarray, key: np.ndarray, value: np.ndarray
    ) -> None:
        """Puts row i of key and value [tokens, kv_heads, head_dim] into slots[i] of pages[i]."""
        self.keys[layer][:, pages, slots] = key.transpose(1, 0, 2)
        self.values[layer][:, pages, slots] = value.transpose(1, 0, 2)
