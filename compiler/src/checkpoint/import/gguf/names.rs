//! Tensors' names: llama.cpp's to those of transformers 4 (gguf-py's `tensor_mapping.py`), and what its converter did to them.

use super::architecture::Architecture;

/// Names that are the same in all architectures; `blk.N.` and `model.layers.N.` are left out.
const PLAIN: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Norms of a layer with two of them.
const TWO_NORMS: [(&str, &str); 1] = [("ffn_norm", "post_attention_layernorm")];

/// Norms of a layer with four of them.
const FOUR_NORMS: [(&str, &str); 3] = [
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

/// In the place of `ffn_up` where gate and up are one matrix.
const PACKED_UP: (&str, &str) = ("ffn_up", "mlp.gate_up_proj");

/// The name of a tensor in transformers 4; `None` where it has none.
pub fn canonical(architecture: &Architecture, name: &str) -> Option<String> {
    match name {
        "token_embd.weight" => return Some("model.embed_tokens.weight".to_owned()),
        "output_norm.weight" => return Some("model.norm.weight".to_owned()),
        "output.weight" => return Some("lm_head.weight".to_owned()),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let (module, kind) = rest.rsplit_once('.')?;
    if layer.is_empty() || !layer.bytes().all(|byte| byte.is_ascii_digit()) || !matches!(kind, "weight" | "bias") {
        return None;
    }
    let norms: &[_] = if architecture.four_norms { &FOUR_NORMS } else { &TWO_NORMS };
    let packed: &[_] = if architecture.packed { &[PACKED_UP] } else { &[] };
    let (_, module) = packed.iter().chain(norms).chain(&PLAIN).find(|(theirs, _)| *theirs == module)?;
    Some(format!("model.layers.{layer}.{module}.{kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let table = [
            ("llama", "token_embd.weight", Some("model.embed_tokens.weight")),
            ("llama", "output.weight", Some("lm_head.weight")),
            ("llama", "blk.10.ffn_norm.weight", Some("model.layers.10.post_attention_layernorm.weight")),
            ("qwen2", "blk.0.attn_k.bias", Some("model.layers.0.self_attn.k_proj.bias")),
            ("gemma2", "blk.0.ffn_norm.weight", Some("model.layers.0.pre_feedforward_layernorm.weight")),
            ("gemma2", "blk.0.post_ffw_norm.weight", Some("model.layers.0.post_feedforward_layernorm.weight")),
            ("gemma2", "blk.0.post_attention_norm.weight", Some("model.layers.0.post_attention_layernorm.weight")),
            ("gemma3", "blk.0.attn_q_norm.weight", Some("model.layers.0.self_attn.q_norm.weight")),
            ("phi3", "blk.0.ffn_up.weight", Some("model.layers.0.mlp.gate_up_proj.weight")),
            ("phi3", "blk.0.attn_qkv.weight", Some("model.layers.0.self_attn.qkv_proj.weight")),
            ("llama", "blk.0.ffn_up.weight", Some("model.layers.0.mlp.up_proj.weight")),
            ("llama", "blk.0.post_ffw_norm.weight", None),
            ("llama", "blk..ffn_up.weight", None),
            ("llama", "blk.-1.ffn_up.weight", None),
            ("llama", "blk.0.ffn_up.scale", None),
            ("llama", "blk.0.ffn_up", None),
            ("llama", "blk.0.ffn_gate_exps.weight", None),
            ("llama", "rope_freqs.weight", None),
        ];
        for (architecture, theirs, ours) in table {
            let architecture = Architecture::of(architecture).unwrap();
            assert_eq!(canonical(architecture, theirs).as_deref(), ours, "{theirs}");
        }
    }
}
