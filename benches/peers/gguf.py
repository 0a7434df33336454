"""Writes a GGUF file of a Hugging Face configuration's shape with random 16-bit weights, in one pass and little memory.

Layout after ggml's docs/gguf.md (version 3); tensor names and keys after llama.cpp's src/llama-arch.cpp.
"""

import os
import random
import struct

ALIGNMENT = 32
U32, F32, STRING = 4, 6, 8
TYPES = {"f32": (0, 4), "f16": (1, 2), "bf16": (30, 2)}
# Random bytes come from a pool, so that writing is bound by the disk; its odd length keeps rows from repeating.
POOL_VALUES = (1 << 22) + 61


def metadata(config, kind):
    """The keys that llama.cpp reads for this configuration, in order."""
    family = config["model_type"]
    heads = config["num_attention_heads"]
    keys = [
        ("general.architecture", STRING, family),
        ("general.file_type", U32, {"f16": 1, "bf16": 32}[kind]),
        (f"{family}.context_length", U32, config["max_position_embeddings"]),
        (f"{family}.embedding_length", U32, config["hidden_size"]),
        (f"{family}.block_count", U32, config["num_hidden_layers"]),
        (f"{family}.feed_forward_length", U32, config["intermediate_size"]),
        (f"{family}.attention.head_count", U32, heads),
        (f"{family}.attention.head_count_kv", U32, config["num_key_value_heads"]),
        (f"{family}.attention.layer_norm_rms_epsilon", F32, config["rms_norm_eps"]),
        (f"{family}.rope.freq_base", F32, config["rope_theta"]),
        (f"{family}.vocab_size", U32, config["vocab_size"]),
        ("tokenizer.ggml.model", STRING, "no_vocab"),
    ]
    if "head_dim" in config:
        keys += [(f"{family}.attention.{part}_length", U32, config["head_dim"]) for part in ("key", "value")]
    if family == "gemma2":
        keys += [
            ("gemma2.attention.sliding_window", U32, config["sliding_window"]),
            ("gemma2.attn_logit_softcapping", F32, config["attn_logit_softcapping"]),
            ("gemma2.final_logit_softcapping", F32, config["final_logit_softcapping"]),
        ]
    return keys


def tensors(config, kind):
    """Name, dimensions (the fastest first) and type of each tensor."""
    family = config["model_type"]
    if family not in ("gemma", "gemma2", "qwen2"):
        raise ValueError(f"tensors of {family} are not described here: add them to {__file__}")
    width, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim", width // config["num_attention_heads"])
    queries, keys = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    found = [("token_embd.weight", [width, config["vocab_size"]], kind), ("output_norm.weight", [width], "f32")]
    for layer in range(config["num_hidden_layers"]):
        matrices = [
            ("attn_q", [width, queries]), ("attn_k", [width, keys]), ("attn_v", [width, keys]),
            ("attn_output", [queries, width]),
            ("ffn_gate", [width, inner]), ("ffn_up", [width, inner]), ("ffn_down", [inner, width]),
        ]
        found += [(f"blk.{layer}.{name}.weight", shape, kind) for name, shape in matrices]
        norms = ["attn_norm", "ffn_norm"]
        if family == "gemma2":
            norms += ["post_attention_norm", "post_ffw_norm"]
        found += [(f"blk.{layer}.{name}.weight", [width], "f32") for name in norms]
        if family == "qwen2":
            biases = [("attn_q", queries), ("attn_k", keys), ("attn_v", keys)]
            found += [(f"blk.{layer}.{name}.bias", [size], "f32") for name, size in biases]
    return found


def random_pool(kind):
    """Values of both signs with magnitudes from 0.0078 to 0.0312, as real weights have, without a float in between."""
    source = random.Random(0)
    # The high byte holds the sign and the exponent; the low byte is mantissa only.
    if kind == "f16":  # exponents 8 and 9 of bias 15, the two bits below them are mantissa
        high = bytes((byte & 0x80) | (0x20 + (byte & 0x07)) for byte in range(256))
    else:  # bf16: 0x3c00 to 0x3cff, and the exponent's last bit lies in the low byte
        high = bytes((byte & 0x80) | 0x3C for byte in range(256))
    pool = bytearray(source.randbytes(2 * POOL_VALUES))
    pool[1::2] = pool[1::2].translate(high)
    return bytes(pool)


def write(path, config, kind="f16"):
    """Writes the file aside and renames it, so that a file under this name is whole."""
    keys, infos = metadata(config, kind), tensors(config, kind)

    def string(text):
        return struct.pack("<Q", len(text.encode())) + text.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys))
    for name, kind_of_value, value in keys:
        head += string(name) + struct.pack("<I", kind_of_value)
        head += string(value) if kind_of_value == STRING else struct.pack("<I" if kind_of_value == U32 else "<f", value)
    offset = 0
    sizes = []
    for name, shape, stored in infos:
        number, width = TYPES[stored]
        size = width
        for extent in shape:
            size *= extent
        head += string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, number, offset)
        sizes.append(size)
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    pool = random_pool(kind)
    aside = f"{path}.part"
    at = 0
    with open(aside, "wb") as out:
        out.write(head + bytes(-len(head) % ALIGNMENT))
        for (name, _, stored), size in zip(infos, sizes):
            if stored == "f32":
                # Norms of one; Gemma's 1 + w is already added in GGUF. Biases are small.
                out.write(struct.pack("<f", 0.01 if name.endswith(".bias") else 1.0) * (size // 4))
            else:
                left = size
                while left:
                    take = min(left, len(pool) - at)
                    out.write(memoryview(pool)[at:at + take])
                    left -= take
                    at = (at + take) % len(pool)
            out.write(bytes(-size % ALIGNMENT))
    os.replace(aside, path)
