//! Configurations as the hub holds them (keys as they are publicly documented): accepted, or refused for a reason that is true.

use std::fmt::Write;
use std::path::Path;

use expect_test::{Expect, expect};

use super::super::IgnoredKeys;
use super::examine;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/configs")
}

/// What is said of a configuration: `fine`, or all that is wrong; and notes.
fn verdict(name: &str, ignored: &[&str]) -> String {
    let ignored = IgnoredKeys::new(ignored.iter().map(|key| (*key).to_owned()).collect());
    let examination = examine(&root().join(name), &ignored).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut text = if examination.problems.is_empty() { "fine".to_owned() } else { examination.problems.join("; ") };
    for note in &examination.notes {
        write!(text, "\n  note: {note}").unwrap();
    }
    text
}

#[test]
fn table() {
    let mut names: Vec<String> =
        std::fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert!(names.len() >= 30, "{}", names.len());
    let table: String = names.iter().map(|name| format!("{name}: {}\n", verdict(name, &[]))).collect();
    expect![[r#"
        gemma-2-2b-it: fine
        gemma-2-9b-mirror: fine
          note: configuration keys without a known meaning, which are not used: unsloth_fixed, unsloth_version
        gemma-2b: fine
        gemma-3-1b-it: fine
        gemma-3-270m: fine
        gemma-3-4b-it: model_type `gemma3`: expected one of gemma, gemma2, gemma3_text, llama, llava, llava_onevision, mistral, phi3, qwen2, qwen3
        llama-2-13b: fine
        llama-2-7b-chat: fine
        llama-3.1-8b-compressed-tensors: `quantization_config` is {"config_groups":{"group_0":{"targets":["Linear"],"weights":…: expected no such key: its weights are packed; convert the checkpoint it was made from
        llama-3.1-8b-instruct: fine
        llama-3.2-1b: fine
        llava-1.5-7b: fine
        llava-1.5-7b-transformers-5: fine
        llava-onevision-qwen2-0.5b: fine
        mistral-7b-instruct-v0.2: fine
        mistral-7b-v0.1: fine
        mixtral-8x7b: model_type `mixtral`: expected one of gemma, gemma2, gemma3_text, llama, llava, llava_onevision, mistral, phi3, qwen2, qwen3
        phi-3-mini-128k-instruct: `rope_scaling.rope_type` is "longrope": expected default, linear, llama3
        phi-3-mini-4k-instruct: fine
        qwen2-0.5b-instruct: fine
        qwen2.5-0.5b-mlx-4bit: `quantization` is {"bits":4,"group_size":64}: expected no such key: its weights are packed by MLX; convert the checkpoint it was made from
        qwen2.5-7b-bnb-4bit: `quantization_config` is {"bnb_4bit_compute_dtype":"bfloat16","bnb_4bit_quant_type":"…: expected no such key: its weights are packed; convert the checkpoint it was made from
        qwen2.5-7b-instruct: fine
        qwen2.5-7b-instruct-1m: `dual_chunk_attention_config` is {"chunk_size":262144,"local_size":8192,"original_max_positio…: expected no such key, since its meaning is not implemented
        qwen2.5-coder-0.5b: fine
        qwen3-0.6b: fine
        qwen3-0.6b-transformers-5: fine
        smollm2-135m-instruct: fine
        tinyllama-1.1b-chat: fine
        vicuna-7b-v1.5: fine
        vicuna-7b-v1.5-16k: fine
        yarn-llama-2-7b-64k: `rope_scaling.rope_type` is "yarn": expected default, linear, llama3
    "#]].assert_eq(&table);
}

#[track_caller]
fn check(name: &str, ignored: &[&str], expected: Expect) {
    expected.assert_eq(&verdict(name, ignored));
}

/// What is refused can be overridden, which is said aloud.
#[test]
fn ignored_keys() {
    check(
        "qwen2.5-7b-instruct-1m",
        &["dual_chunk_attention_config"],
        expect![[r#"
        fine
          note: ignored as --ignore-key says: dual_chunk_attention_config = {"chunk_size":262144,"local_size":8192,"…"#]],
    );
    check(
        "yarn-llama-2-7b-64k",
        &["rope_scaling"],
        expect![[r#"
        fine
          note: ignored as --ignore-key says: rope_scaling = {"factor":16.0,"finetuned":true,"origina…"#]],
    );
    check(
        "gemma-2b",
        &["no_such_key"],
        expect![[r#"
        fine
          note: --ignore-key names keys that the configuration does not have: no_such_key"#]],
    );
    check(
        "llava-1.5-7b",
        &["vision_config.projection_dim", "preprocessor_config.json: do_convert_rgb"],
        expect![[r#"
        fine
          note: ignored as --ignore-key says: vision_config.projection_dim = 768, preprocessor_config.json: do_convert_rgb = true"#]],
    );
}
