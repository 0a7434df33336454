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
        expect![[r#"
            DIR/model.gguf:
              - metadata key `llama.block_count` is missing
              - metadata key `llama.embedding_length` is not a whole number
              - metadata key `llama.attention.head_count` is not a whole number
              - metadata key `llama.attention.layer_norm_rms_epsilon` is missing"#]],
    );
    check(
        "llama",
        |gguf| gguf.set("llama.block_count", Meta::I32s(vec![3, 2])),
        expect![
            "DIR/model.gguf: metadata key `llama.block_count` differs from layer to layer, which is not understood"
        ],
    );
    check(
        "llama",
        |gguf| gguf.set("llama.block_count", Meta::U64(1 << 40)),
        expect![[r#"
        DIR/model.gguf: llama: unsupported configuration:
          - `num_hidden_layers` is 1099511627776: expected a whole number from 1 to 1024
        Use a checkpoint without it, or add support in compiler/src/arch"#]],
    );
    check(
        "llama",
        |gguf| gguf.set("llama.rope.freq_base", Meta::F32(f32::NAN)),
        expect!["DIR/model.gguf: metadata key `llama.rope.freq_base` is not a finite number"],
    );
}

#[test]
fn what_is_not_understood() {
    check(
        "llama",
        |gguf| gguf.set("llama.logit_scale", Meta::F32(2.0)),
        expect!["DIR/model.gguf: metadata key `llama.logit_scale` is not understood, and may change what is computed"],
    );
    check(
        "llama",
        |gguf| gguf.set("llama.expert_count", Meta::U32(8)),
        expect!["DIR/model.gguf: metadata key `llama.expert_count` is 8: only 0 is understood"],
    );
    check(
        "llama",
        |gguf| gguf.set("llama.rope.dimension_count", Meta::U32(8)),
        expect!["DIR/model.gguf: metadata key `llama.rope.dimension_count` is 8: heads of width 16 need the same"],
    );
    check(
        "llama",
        |gguf| gguf.set("llama.attention.causal", Meta::Bool(false)),
        expect!["DIR/model.gguf: metadata key `llama.attention.causal` is false: only causal attention is understood"],
    );
    check(
        "llama",
        |gguf| gguf.set("llama.rope.scaling.type", Meta::Text("yarn".to_owned())),
        expect![
            "DIR/model.gguf: metadata key `llama.rope.scaling.type` is `yarn`: only `linear` and `none` are understood"
        ],
    );
    check(
        "llama",
        |gguf| gguf.set("llama.rope.scaling.type", Meta::Text("linear".to_owned())),
        expect!["DIR/model.gguf: metadata key `llama.rope.scaling.factor` is missing"],
    );
    check(
        "qwen2",
        |gguf| gguf.set("qwen2.attention.sliding_window", Meta::U32(100)),
        expect![
            "DIR/model.gguf: metadata key `qwen2.attention.sliding_window` is 100, but does not tell of which layers"
        ],
    );
    check(
        "gemma2",
        |gguf| gguf.set("gemma2.attention.sliding_window_pattern", Meta::U32(3)),
        expect![
            "DIR/model.gguf: metadata key `gemma2.attention.sliding_window_pattern` is 3: layers of Gemma 2 alternate, which is 2"
        ],
    );
    check(
        "gemma2",
        |gguf| gguf.set("gemma2.attention.sliding_window_pattern", Meta::Bools(vec![false, true, false, true])),
        expect![[
            r#"model_type: "gemma2", sliding_window: 16, layer_types: ["full_attention","sliding_attention","full_attention","sliding_attention"], query_pre_attn_scalar: 24"#
        ]],
    );
}

/// Keys whose names say nothing about the computation, or whose values are nothing, are noted.
#[test]
fn what_is_passed_over() {
    let mut gguf = Golden::load("llama").gguf(Storage::F16);
    gguf.set("llama.some_new_hint", Meta::U32(3));
    gguf.set("llama.origin", Meta::Text("a place".to_owned()));
    gguf.set("llama.logit_scale", Meta::F32(0.0));
    gguf.set("llama.nextn_predict_layers", Meta::U32(0));
    gguf.set("llama.attention.temperature_length", Meta::I32s(Vec::new()));
    gguf.set("someone.else", Meta::F32(1.0));
    let (root, model) = import(&gguf);
    let (_, warnings) = model.unwrap();
    let text = warnings.join("\n").replace(&root.path().display().to_string(), "DIR");
    expect![[r#"
        DIR/model.gguf: metadata keys that are not known are passed over: `llama.attention.temperature_length`, `llama.logit_scale`, `llama.nextn_predict_layers`, `llama.origin`, `llama.some_new_hint`
        DIR/model.gguf: its metadata have no tokenizer; the model can be compiled, but not chat: put the Hugging Face checkpoint's tokenizer.json beside the file and convert again"#]].assert_eq(&text);
}

/// Numbers written otherwise than llama.cpp's converter does.
#[test]
fn other_spellings_of_numbers() {
    let golden = Golden::load("llama");
    let mut gguf = golden.gguf(Storage::F16);
    let layers = golden.config["num_hidden_layers"].as_u64().unwrap() as usize;
    let same = |key: &str| Meta::I32s(vec![golden.config[key].as_u64().unwrap() as i32; layers]);
    gguf.set("llama.attention.head_count_kv", same("num_key_value_heads"));
    gguf.set("llama.feed_forward_length", same("intermediate_size"));
    gguf.set("llama.block_count", Meta::U64(layers as u64));
    gguf.set("llama.rope.freq_base", Meta::U32(golden.config["rope_theta"].as_f64().unwrap() as u32));
    let (_root, model) = import(&gguf);
    let config = model.unwrap().0.model.config;
    for key in ["num_key_value_heads", "intermediate_size", "num_hidden_layers"] {
        assert_eq!(config[key], golden.config[key], "{key}");
    }
    assert_eq!(config["rope_theta"].as_f64(), golden.config["rope_theta"].as_f64());
    check(
        "llama",
        |gguf| gguf.set("llama.attention.head_count_kv", Meta::I32s(vec![2, 1, 2])),
        expect![
            "DIR/model.gguf: metadata key `llama.attention.head_count_kv` differs from layer to layer, which is not understood"
        ],
    );
}

/// Files that are no language model.
#[test]
fn other_kinds_of_files() {
    check(
        "llama",
        |gguf| gguf.set("general.type", Meta::Text("adapter".to_owned())),
        expect![
            "DIR/model.gguf: a LoRA adapter, not a language model; convert the model's own GGUF file, or the Hugging Face checkpoint"
        ],
    );
    check(
        "llama",
        |gguf| gguf.set("general.type", Meta::Text("mmproj".to_owned())),
        expect![
            "DIR/model.gguf: the picture encoder of a model (mmproj), not a language model; convert the model's own GGUF file, or the Hugging Face checkpoint"
        ],
    );
    check(
        "llama",
        |gguf| gguf.set("general.architecture", Meta::Text("clip".to_owned())),
        expect![
            "DIR/model.gguf: the picture encoder of a model (mmproj), not a language model; convert the model's own GGUF file, or the Hugging Face checkpoint"
        ],
    );
    check(
        "llama",
        |gguf| gguf.set("general.architecture", Meta::Text("rwkv6".to_owned())),
        expect![
            "DIR/model.gguf: architecture `rwkv6` is not supported; supported are gemma, gemma2, gemma3, llama, phi3, qwen2, qwen3"
        ],
    );
}

#[test]
fn what_is_understood() {
    check(
        "llama",
        |_| {},
        expect![[
            r#"model_type: "llama", rope_scaling: {"factor":8.0,"high_freq_factor":4.0,"low_freq_factor":1.0,"original_max_position_embeddings":64,"rope_type":"llama3"}"#
        ]],
    );
    check("mistral", |_| {}, expect![[r#"model_type: "mistral", sliding_window: 24"#]]);
    check(
        "qwen2",
        |gguf| {
            gguf.set("qwen2.rope.scaling.type", Meta::Text("linear".to_owned()));
            gguf.set("qwen2.rope.scaling.factor", Meta::F32(4.0));
            gguf.set("qwen2.attention.sliding_window", Meta::U32(256));
        },
        expect![[r#"model_type: "qwen2", rope_scaling: {"factor":4.0,"rope_type":"linear"}"#]],
    );
    check(
        "phi3",
        |gguf| gguf.set("phi3.attention.sliding_window", Meta::U32(0)),
        expect![[r#"model_type: "phi3", sliding_window: null"#]],
    );
    check(
        "phi3",
        |gguf| gguf.set("phi3.attention.sliding_window", Meta::U32(20)),
        expect![[r#"model_type: "phi3", sliding_window: 20"#]],
    );
    check(
        "gemma2",
        |gguf| gguf.unset("gemma2.attention.scale"),
        expect![[r#"model_type: "gemma2", sliding_window: 16, query_pre_attn_scalar: 32"#]],
    );
    check(
        "gemma3_text",
        |gguf| {
            let sliding = vec![true, true, false, true];
            gguf.set("gemma3.attention.sliding_window_pattern", Meta::Bools(sliding));
        },
        expect![[r#"model_type: "gemma3_text", sliding_window: 16, query_pre_attn_scalar: 32"#]],
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
