//! Metadata that is missing, wrong, or means what is not understood.

use expect_test::{Expect, expect};
use serde_json::Value;

use super::model::{Golden, import};
use super::writer::{Gguf, Meta, Storage};

#[track_caller]
fn check(family: &str, change: impl FnOnce(&mut Gguf), expected: Expect) {
    let mut gguf = Golden::load(family).gguf(Storage::F16);
    change(&mut gguf);
    let (root, model) = import(&gguf);
    let text = match model {
        Ok((model, _)) => {
            let config = &model.model.config;
            let told = ["model_type", "rope_scaling", "sliding_window", "layer_types", "query_pre_attn_scalar"];
            let told = told.iter().filter_map(|key| Some(format!("{key}: {}", config.get(*key)?)));
            told.collect::<Vec<_>>().join(", ")
        }
        Err(error) => error.to_string().replace(&root.path().display().to_string(), "DIR"),
    };
    expected.assert_eq(&text);
}

#[test]
fn missing_and_wrong() {
    check(
        "llama",
        |gguf| {
            gguf.unset("llama.block_count");
            gguf.unset("llama.attention.layer_norm_rms_epsilon");
            gguf.set("llama.embedding_length", Meta::Text("64".to_owned()));
            gguf.set("llama.attention.head_count", Meta::F32(4.0));
        },
        expect![[""]],
    );
    check("llama", |gguf| gguf.set("llama.block_count", Meta::I32s(vec![3, 3])), expect![[""]]);
    check("llama", |gguf| gguf.set("llama.block_count", Meta::U64(1 << 40)), expect![[""]]);
    check("llama", |gguf| gguf.set("llama.rope.freq_base", Meta::F32(f32::NAN)), expect![[""]]);
}

#[test]
fn what_is_not_understood() {
    check("llama", |gguf| gguf.set("llama.logit_scale", Meta::F32(2.0)), expect![[""]]);
    check("llama", |gguf| gguf.set("llama.expert_count", Meta::U32(8)), expect![[""]]);
    check("llama", |gguf| gguf.set("llama.rope.dimension_count", Meta::U32(8)), expect![[""]]);
    check("llama", |gguf| gguf.set("llama.attention.causal", Meta::Bool(false)), expect![[""]]);
    check("llama", |gguf| gguf.set("llama.rope.scaling.type", Meta::Text("yarn".to_owned())), expect![[""]]);
    check("llama", |gguf| gguf.set("llama.rope.scaling.type", Meta::Text("linear".to_owned())), expect![[""]]);
    check("qwen2", |gguf| gguf.set("qwen2.attention.sliding_window", Meta::U32(100)), expect![[""]]);
    check("gemma2", |gguf| gguf.set("gemma2.attention.sliding_window_pattern", Meta::U32(3)), expect![[""]]);
    check(
        "gemma2",
        |gguf| gguf.set("gemma2.attention.sliding_window_pattern", Meta::Bools(vec![false, true, false, true])),
        expect![[""]],
    );
}

#[test]
fn what_is_understood() {
    check("llama", |_| {}, expect![[""]]);
    check("mistral", |_| {}, expect![[""]]);
    check(
        "qwen2",
        |gguf| {
            gguf.set("qwen2.rope.scaling.type", Meta::Text("linear".to_owned()));
            gguf.set("qwen2.rope.scaling.factor", Meta::F32(4.0));
            gguf.set("qwen2.attention.sliding_window", Meta::U32(256));
        },
        expect![[""]],
    );
    check("phi3", |gguf| gguf.set("phi3.attention.sliding_window", Meta::U32(0)), expect![[""]]);
    check("phi3", |gguf| gguf.set("phi3.attention.sliding_window", Meta::U32(20)), expect![[""]]);
    check("gemma2", |gguf| gguf.unset("gemma2.attention.scale"), expect![[""]]);
    check(
        "gemma3_text",
        |gguf| {
            let sliding = vec![true, true, false, true];
            gguf.set("gemma3.attention.sliding_window_pattern", Meta::Bools(sliding));
        },
        expect![[""]],
    );
}

/// Each key of the golden configurations that has a place in the metadata is told as it was.
#[test]
fn configurations_are_told_as_they_were() {
    for (name, _) in super::model::FAMILIES {
        let golden = Golden::load(name);
        let (_root, model) = import(&golden.gguf(Storage::F16));
        let found = model.unwrap().0.model.config;
        let keys = [
            "model_type",
            "num_hidden_layers",
            "hidden_size",
            "intermediate_size",
            "num_attention_heads",
            "vocab_size",
            "num_key_value_heads",
            "max_position_embeddings",
            "rms_norm_eps",
            "rope_theta",
            "rope_local_base_freq",
            "sliding_window_pattern",
            "attn_logit_softcapping",
            "final_logit_softcapping",
            "query_pre_attn_scalar",
            "tie_word_embeddings",
            "rope_scaling",
        ];
        for key in keys {
            let null = |value: Option<&Value>| value.cloned().unwrap_or_default();
            let (found, expected) = (null(found.get(key)), null(golden.config.get(key)));
            let same = match (found.as_f64(), expected.as_f64()) {
                (Some(found), Some(expected)) => found == expected,
                _ => found == expected,
            };
            assert!(same, "{name} {key}: {found} is not {expected}");
        }
    }
}
