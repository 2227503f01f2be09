# SPDX-License-Identifier: Apache-2.0
"""The signature of page_attention, keyword for keyword."""

import inspect

import pageattn

REQUIRED = inspect.Parameter.empty
REFERENCE_POSITIONAL = [
    ("query", REQUIRED),
    ("key_cache", REQUIRED),
    ("value_cache", REQUIRED),
    ("context_lens", REQUIRED),
    ("block_tables", REQUIRED),
    ("attn_scale", None),
    ("max_context_len", None),
    ("num_splits", 0),
]
REFERENCE_KEYWORDS = [
    ("mask_value", -2.381976426469702e38),
    ("attn_logits_soft_cap", None),
    ("pages_per_compute_block", None),
    ("megacore_mode", None),
    ("inline_seq_dim", True),
    ("sliding_window", None),
]
EXTRAS = [
    ("kv_layout", "HND_pages"),
    ("out", None),
    ("return_lse", False),
    ("num_threads", None),
    ("isa", None),
    ("numerics", "exact"),
]


def parameters(function, kind):
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.default) for p in found if p.kind is kind]


def test_signature_is_the_reference_and_the_extras_come_last():
    function = pageattn.page_attention
    names = [name for name, _ in REFERENCE_POSITIONAL + REFERENCE_KEYWORDS + EXTRAS]
    assert list(inspect.signature(function).parameters) == names
    positional = parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert positional == REFERENCE_POSITIONAL
    assert parameters(function, inspect.Parameter.KEYWORD_ONLY) == REFERENCE_KEYWORDS + EXTRAS


def test_reference_takes_the_arguments_that_have_a_meaning_for_it():
    function = pageattn.reference
    positional = parameters(function, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    assert positional == REFERENCE_POSITIONAL
    keywords = parameters(function, inspect.Parameter.KEYWORD_ONLY)
    assert keywords == REFERENCE_KEYWORDS + [("kv_layout", "HND_pages")]
