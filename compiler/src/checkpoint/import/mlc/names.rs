//! MLC's tensor names (`python/mlc_llm/model/*/*_loader.py`) to those of transformers 4, and what is concatenated in them.
//!
//! | MLC | transformers 4 |
//! |---|---|
//! | `self_attn.qkv_proj`, `self_attn.c_attn` (Qwen) | `self_attn.q_proj`, `k_proj`, `v_proj`, one below the other |
//! | `mlp.gate_up_proj` | `mlp.gate_proj`, `up_proj` |
//! | Gemma 3: `language_model.…` | the same without it |
//! | Phi 3: `transformer.embd`, `transformer.h.0.mixer.out_proj`, … | `model.embed_tokens`, `model.layers.0.self_attn.o_proj`, …; nothing is split |

/// The names of the parts of a tensor of a `family`, from the first row to the last.
pub fn parts(name: &str, family: &str) -> Vec<String> {
    match family {
        "phi3" => return vec![phi3(name)],
        "gemma3_text" => return split(name.strip_prefix("language_model.").unwrap_or(name)),
        _ => split(name),
    }
}

fn split(name: &str) -> Vec<String> {
    const CONCATENATED: [(&str, &[&str]); 3] = [
        (".self_attn.qkv_proj.", &[".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."]),
        (".self_attn.c_attn.", &[".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."]),
        (".mlp.gate_up_proj.", &[".mlp.gate_proj.", ".mlp.up_proj."]),
    ];
    match CONCATENATED.iter().find(|(whole, _)| name.contains(whole)) {
        Some((whole, parts)) => parts.iter().map(|part| name.replacen(whole, part, 1)).collect(),
        None => vec![name.to_owned()],
    }
}

fn phi3(name: &str) -> String {
    const OUTER: [(&str, &str); 3] = [
        ("transformer.embd.", "model.embed_tokens."),
        ("transformer.norm.", "model.norm."),
        ("transformer.h.", "model.layers."),
    ];
    const INNER: [(&str, &str); 3] = [
        (".ln.", ".input_layernorm."),
        (".mixer.qkv_proj.", ".self_attn.qkv_proj."),
        (".mixer.out_proj.", ".self_attn.o_proj."),
    ];
    let outer = OUTER.iter().find_map(|(mlc, ours)| Some(format!("{ours}{}", name.strip_prefix(mlc)?)));
    let name = outer.unwrap_or_else(|| name.to_owned());
    match INNER.iter().find(|(mlc, _)| name.contains(mlc)) {
        Some((mlc, ours)) => name.replacen(mlc, ours, 1),
        None => name,
    }
}

/// Whether MLC packs this tensor as an embedding, whose rows are never transposed.
pub fn is_embedding(name: &str) -> bool {
    ["embed_tokens.weight", "position_embedding.weight"].iter().any(|end| name.ends_with(end))
}

/// Whether the stored values are those of transformers plus one, for a tensor with a name of transformers 4.
pub fn holds_one_more(name: &str, family: &str) -> bool {
    family.starts_with("gemma") && name.ends_with("norm.weight")
}

/// Whether a tensor was cut for several devices before it was stored (`python/mlc_llm/support/preshard.py`).
pub fn is_presharded(name: &str) -> bool {
    let Some((_, index)) = name.rsplit_once("_shard-") else { return false };
    !index.is_empty() && index.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_names() {
        let table: [(&str, &str, &[&str]); 12] = [
            ("gemma", "model.embed_tokens.weight", &["model.embed_tokens.weight"]),
            (
                "gemma",
                "model.layers.3.self_attn.qkv_proj.weight",
                &[
                    "model.layers.3.self_attn.q_proj.weight",
                    "model.layers.3.self_attn.k_proj.weight",
                    "model.layers.3.self_attn.v_proj.weight",
                ],
            ),
            (
                "qwen2",
                "model.layers.0.self_attn.c_attn.bias",
                &[
                    "model.layers.0.self_attn.q_proj.bias",
                    "model.layers.0.self_attn.k_proj.bias",
                    "model.layers.0.self_attn.v_proj.bias",
                ],
            ),
            (
                "llava",
                "language_model.model.layers.1.mlp.gate_up_proj.weight",
                &[
                    "language_model.model.layers.1.mlp.gate_proj.weight",
                    "language_model.model.layers.1.mlp.up_proj.weight",
                ],
            ),
            ("llava", "multi_modal_projector.linear_1.bias", &["multi_modal_projector.linear_1.bias"]),
            (
                "gemma3_text",
                "language_model.model.layers.2.self_attn.q_norm.weight",
                &["model.layers.2.self_attn.q_norm.weight"],
            ),
            ("phi3", "transformer.embd.weight", &["model.embed_tokens.weight"]),
            ("phi3", "transformer.norm.weight", &["model.norm.weight"]),
            ("phi3", "transformer.h.7.ln.weight", &["model.layers.7.input_layernorm.weight"]),
            ("phi3", "transformer.h.7.mixer.qkv_proj.weight", &["model.layers.7.self_attn.qkv_proj.weight"]),
            ("phi3", "transformer.h.7.mixer.out_proj.weight", &["model.layers.7.self_attn.o_proj.weight"]),
            ("phi3", "transformer.h.7.mlp.gate_up_proj.weight", &["model.layers.7.mlp.gate_up_proj.weight"]),
        ];
        for (family, name, expected) in table {
            assert_eq!(parts(name, family), expected, "{family}");
        }
    }

    #[test]
    fn presharded() {
        assert!(is_presharded("model.layers.0.self_attn.qkv_proj.q_weight_shard-0"));
        assert!(!is_presharded("model.layers.0.self_attn.qkv_proj.q_weight"));
        assert!(!is_presharded("model_shard-one"));
    }
}
