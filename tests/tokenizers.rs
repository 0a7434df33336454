//! Tokenizers that checkpoints have in other files than tokenizer.json, against SentencePiece and transformers.

use std::fs;
use std::path::{Path, PathBuf};

use dwindle_compiler::checkpoint::{ModelDir, convert};
use dwindle_compiler::progress::Silent;
use dwindle_compiler::synth::synthesize;
use dwindle_runtime::tokenizer::Tokenizer;
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokenizers").join(name)
}

/// A checkpoint of random weights with the tokenizer's files, converted.
fn converted(name: &str, model_type: &str) -> (TempDir, ModelDir) {
    let config = json!({"model_type": model_type, "vocab_size": 1024, "hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64});
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    synthesize(config.as_object().unwrap(), 0, &source, &Silent).unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, source.join(path.file_name().unwrap())).unwrap();
    }
    let (model, _) = convert(&source, &root.path().join("out"), &Silent).unwrap();
    (root, model)
}

fn tokenizer(model: &ModelDir) -> Tokenizer {
    Tokenizer::from_bytes(&fs::read(model.file("tokenizer.json").unwrap()).unwrap()).unwrap()
}

#[test]
fn tokens_are_those_of_the_original() {
    let table = [
        ("llama", "llama"),
        ("gemma", "gemma"),
        ("unigram", "llama"),
        ("unigram_without_bytes", "llama"),
        ("bpe_with_table", "llama"),
        ("qwen2", "qwen2"),
        ("gpt2", "llama"),
    ];
    let mut wrong = Vec::new();
    for (name, model_type) in table {
        let (_root, model) = converted(name, model_type);
        let tokenizer = tokenizer(&model);
        let expected: Vec<(String, Vec<u32>)> =
            serde_json::from_slice(&fs::read(fixture(name).join("expected.json")).unwrap()).unwrap();
        assert!(expected.len() > 10);
        for (text, tokens) in expected {
            let found = tokenizer.encode(&text, false).unwrap();
            if found != tokens {
                wrong.push(format!("{name} {text:?}: {found:?}, expected {tokens:?}"));
            }
            // Nothing is lost where bytes stand for what is unknown, and nothing was normalised.
            if ["llama", "gemma", "qwen2", "gpt2"].contains(&name) && !text.contains(['<', '½', '▁']) {
                assert_eq!(tokenizer.decode(&tokens).unwrap(), text, "{name}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is put around a text, and what the templates and the end of a turn need.
#[test]
fn special_tokens() {
    let (_root, model) = converted("llama", "llama");
    assert_eq!(tokenizer(&model).encode("x", true).unwrap()[0], 1);
    let (_root, model) = converted("gemma", "gemma");
    assert_eq!(tokenizer(&model).encode("x", true).unwrap()[0], 2);
    let config: Value = model.json("tokenizer_config.json").unwrap().unwrap();
    assert_eq!((&config["bos_token"], &config["eos_token"]), (&json!("<s>"), &json!("</s>")));
    let (_root, model) = converted("qwen2", "qwen2");
    let tokenizer = tokenizer(&model);
    assert_eq!(tokenizer.encode("<|im_start|>", true).unwrap(), [401]);
    assert_eq!(tokenizer.decode(&[401, 402]).unwrap(), "");
}
