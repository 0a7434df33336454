#!/usr/bin/env python3
"""Random blocks of ggml's packed types, and their values by gguf-py: gguf/blocks.safetensors.

`TYPE.blocks` holds the bytes of some blocks, `TYPE.values` what gguf.quants.dequantize makes of them.  usage: gguf_blocks.py

Needs: pip install gguf==0.19.0 numpy safetensors.
"""
import pathlib

import gguf
import numpy as np
from safetensors.numpy import save_file

# Types, and the places of 16-bit floats in a block; those are made small, all other bytes are random.
TYPES = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [],
}
VALUES = 512


def main():
    random = np.random.default_rng(20)
    tensors = {}
    for name, halves in TYPES.items():
        kind = gguf.GGMLQuantizationType[name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (VALUES // values, size), dtype=np.uint8)
        for place in halves:
            numbers = random.normal(0, 0.02, len(blocks)).astype(np.float16)
            blocks[:, place : place + 2] = numbers.view(np.uint8).reshape(-1, 2)
        if name == "MXFP4":
            blocks[:, 0] = random.integers(104, 144, len(blocks))
        tensors[f"{name}.blocks"] = blocks
        tensors[f"{name}.values"] = gguf.quants.dequantize(blocks, kind).astype(np.float32).reshape(-1)
    out = pathlib.Path(__file__).parent / "gguf" / "blocks.safetensors"
    out.parent.mkdir(exist_ok=True)
    save_file(tensors, out)


if __name__ == "__main__":
    main()
