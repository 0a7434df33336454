//! Keys of a configuration that no family reads: which of them are refused, and which are only noted.
//!
//! A key is refused if it is known to change what a model computes, or if its words are those of keys that do, and its value
//! turns something on. All others are training, bookkeeping or somebody's remark.

use serde_json::Value;

/// Keys of every configuration that say nothing about what a forward pass computes: training, generation, bookkeeping.
const BOOKKEEPING: &[&str] = &[
    "add_cross_attention",
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "chunk_size_feed_forward",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_decoder",
    "is_encoder_decoder",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "pruned_heads",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tie_encoder_decoder",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unk_token_id",
    "use_bfloat16",
    "use_cache",
];

/// Keys with words of [`is_suspicious`] that change nothing all the same: they speak of training, of how a result is computed
/// but not of the result, or of what the runtime decides itself.
const HARMLESS: &[&str] = &[
    "activation_checkpointing",
    "activation_offloading",
    "attn_implementation_internal",
    "attn_dropout",
    "batch_size",
    "hidden_dropout",
    "hidden_dropout_prob",
    "dropout_rate",
    "eval_batch_size",
    "gradient_accumulation_steps",
    "loss_scale",
    "max_grad_norm",
    "micro_batch_size",
    "model_max_length",
    "num_assistant_tokens",
    "num_epochs",
    "num_labels",
    "num_logits_to_keep",
    "num_parameters",
    "num_params",
    "num_train_epochs",
    "pad_vocab_size_multiple",
    "pad_vocab_size_multiple_of",
    "pad_to_multiple_of",
    "per_device_train_batch_size",
    "seq_length",
    "train_batch_size",
    "max_sequence_length",
    "max_seq_len",
    "use_flash_attn",
    "use_fused_rms_norm",
    "use_fused_rope",
    "fused_rms_norm",
    "fused_rope",
];

/// Keys that are known to change what is computed, whose words do not tell: key, and what it would take to be right.
const KNOWN: &[(&str, &str)] = &[
    ("alibi", "no such key: only rotary positions are implemented"),
    ("clip_qkv", "no such key: queries, keys and values are not clipped"),
    ("compression_config", "no such key: its weights are packed; convert the checkpoint it was made from"),
    ("kv_lora_rank", "no such key: latent attention is not implemented"),
    ("q_lora_rank", "no such key: latent attention is not implemented"),
    ("parallel_attn", "no such key: attention and feed-forward layers follow each other"),
    ("quantization", "no such key: its weights are packed by MLX; convert the checkpoint it was made from"),
    ("quantization_config", "no such key: its weights are packed; convert the checkpoint it was made from"),
    ("use_parallel_residual", "no such key: attention and feed-forward layers follow each other"),
];

/// Keys that turn something off where they are false or 0, unlike all others: the only value that changes nothing.
const ONLY: &[(&str, bool)] = &[("is_causal", true), ("causal", true), ("causal_attention", true), ("use_rope", true)];

/// Beginnings and ends of words in keys that change what is computed.
const STEMS: &[&str] = &[
    "activation",
    "alibi",
    "bias",
    "chunk",
    "clip",
    "expert",
    "latent",
    "mamba",
    "moe",
    "multiplier",
    "norm",
    "quant",
    "rotary",
    "router",
    "scalar",
    "scale",
    "scaling",
    "size",
    "softcap",
    "ssm",
    "window",
    "yarn",
];

/// Words that count only as a whole: as parts they are in too many others.
const WORDS: &[&str] = &[
    "act",
    "activations",
    "cap",
    "capping",
    "caps",
    "conv",
    "dim",
    "dims",
    "eps",
    "factor",
    "factors",
    "gate",
    "gated",
    "gates",
    "gating",
    "head",
    "heads",
    "layer",
    "layers",
    "logit",
    "logits",
    "longrope",
    "mrope",
    "mup",
    "nope",
    "num",
    "pattern",
    "rope",
    "ropes",
    "scaled",
    "sizes",
    "softcapping",
    "theta",
];

/// What becomes of a key that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It says nothing.
    Silent,
    /// It is worth a line.
    Noted,
    /// It may change what is computed: what would do.
    Refused(&'static str),
}

/// Judges a key that no family reads, without the scopes before it.
pub fn judge(key: &str, value: &Value) -> Verdict {
    if value.is_null() || BOOKKEEPING.contains(&key) {
        return Verdict::Silent;
    }
    if let Some((_, only)) = ONLY.iter().find(|(name, _)| *name == key) {
        return match value.as_bool() == Some(*only) {
            true => Verdict::Silent,
            false => Verdict::Refused(if *only { "true" } else { "false" }),
        };
    }
    let known = KNOWN.iter().find(|(name, _)| *name == key).map(|(_, expected)| *expected);
    let suspicious = || is_suspicious(key).then_some("no such key, since its meaning is not implemented");
    match known.or_else(suspicious) {
        Some(_) if is_off(value) => Verdict::Silent,
        Some(expected) => Verdict::Refused(expected),
        None => Verdict::Noted,
    }
}

/// Whether a value turns off what its key is about.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) => false,
    }
}

/// Whether the words of a key are those of keys that change what is computed.
fn is_suspicious(key: &str) -> bool {
    if HARMLESS.contains(&key) {
        return false;
    }
    let key = key.to_ascii_lowercase();
    key.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).any(|word| {
        let has_stem = |stem: &&str| word.starts_with(*stem) || word.ends_with(*stem);
        WORDS.contains(&word) || STEMS.iter().any(has_stem)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(verdict: fn(&Verdict) -> bool, pairs: &[(&str, Value)]) {
        for (key, value) in pairs {
            let found = judge(key, value);
            assert!(verdict(&found), "{key} = {value}: {found:?}");
        }
    }

    #[test]
    fn what_changes_results_is_refused() {
        let on = [
            ("logit_scale", json!(0.5)),
            ("logits_scaling", json!(8.0)),
            ("embedding_multiplier", json!(12.0)),
            ("residual_multiplier", json!(0.22)),
            ("router_logit_softcapping", json!(30.0)),
            ("attn_logit_softcapping", json!(50.0)),
            ("rope_local_base_freq", json!(10000.0)),
            ("original_rope_theta", json!("NaN")),
            ("mrope_section", json!([16, 24, 24])),
            ("no_rope_layers", json!([1, 1, 0])),
            ("partial_rotary_factor", json!(0.5)),
            ("sliding_window_size", json!(512)),
            ("use_qk_norm", json!(true)),
            ("layernorm_epsilon", json!(1e-5)),
            ("qkv_bias", json!(true)),
            ("mlp_activation", json!("relu")),
            ("act_fn", json!("relu2")),
            ("num_experts", json!(8)),
            ("num_nextn_predict_layers", json!(1)),
            ("n_head", json!(12)),
            ("expert_interval", json!(2)),
            ("vocab_size_per_layer_input", json!(262144)),
            ("clip_qkv", json!(8.0)),
            ("quantization", json!({"group_size": 64, "bits": 4})),
            ("is_causal", json!(false)),
        ];
        check(|verdict| matches!(verdict, Verdict::Refused(_)), &on);
    }

    #[test]
    fn what_is_turned_off_is_silent() {
        let off = [
            ("attn_logit_softcapping", json!(null)),
            ("num_experts", json!(0)),
            ("use_qk_norm", json!(false)),
            ("rope_sections", json!([])),
            ("act_fn", json!("")),
            ("quantization_config", json!({})),
            ("clip_qkv", json!(null)),
            ("is_causal", json!(true)),
            ("torch_dtype", json!("bfloat16")),
            ("unk_token_id", json!(0)),
            ("pretraining_tp", json!(2)),
            ("anything", json!(null)),
        ];
        check(|verdict| *verdict == Verdict::Silent, &off);
    }

    #[test]
    fn all_others_are_noted() {
        let others = [
            ("unsloth_fixed", json!(true)),
            ("unsloth_version", json!("2025.1.1")),
            ("dataset", json!("x")),
            ("property", json!("european")),
            ("factory", json!(1)),
            ("interaction", json!(1)),
            ("model_name", json!("x")),
            ("num_train_epochs", json!(3)),
            ("per_device_train_batch_size", json!(4)),
            ("max_sequence_length", json!(2048)),
            ("use_flash_attn", json!(true)),
            ("x", json!({"y": 1})),
        ];
        check(|verdict| *verdict == Verdict::Noted, &others);
    }
}
