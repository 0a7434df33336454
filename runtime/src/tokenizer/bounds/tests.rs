//! Tokenizers that would take all memory or panic, and those of real models.

use serde_json::json;

use super::*;
use crate::tokenizer::{Error, Tokenizer};

fn tokenizer(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut json = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "dropout": null, "unk_token": "a", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": {"a": 0, "b": 1, "aa": 2}, "merges": ["a a"]},
    });
    change(&mut json);
    serde_json::to_vec(&json).unwrap()
}

fn with(part: &str, value: Value) -> Vec<u8> {
    tokenizer(|json| json[part] = value)
}

#[track_caller]
fn check_refused(json: &[u8]) {
    let result = Tokenizer::from_bytes(json);
    assert!(
        matches!(result, Err(Error::Read(_))),
        "{}: {result:?}",
        String::from_utf8_lossy(&json[..json.len().min(300)])
    );
}

fn replace(from: &str, to: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": from}, "content": to})
}

#[test]
fn growth_of_usual_tokenizers() {
    let sequence = |stages: &[Value]| json!({"type": "Sequence", "normalizers": stages});
    for (normalizer, expected) in [
        (json!(null), 1.0),
        (json!({"type": "NFC"}), 3.0),
        (sequence(&[json!({"type": "Prepend", "prepend": "▁"}), replace(" ", "▁")]), 3.0),
        (
            sequence(&[
                json!({"type": "NFKC"}),
                replace(" ", "▁"),
                json!({"type": "Strip", "strip_left": true, "strip_right": true}),
            ]),
            33.0,
        ),
        (sequence(&[json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "})]), 1.0),
        (replace("ab", "a"), 1.0),
        (replace("", "ab"), 3.0),
    ] {
        let json = with("normalizer", normalizer);
        assert_eq!(growth(&json).map(Growth::total), Ok(expected), "{}", String::from_utf8_lossy(&json));
        assert!(Tokenizer::from_bytes(&json).is_ok());
    }
    for model in ["pocket-gemma", "pocket-llava"] {
        let path = format!("{}/../demo/{model}/tokenizer.json", env!("CARGO_MANIFEST_DIR"));
        assert!(growth(&std::fs::read(path).unwrap()).unwrap().total() <= 12.0);
    }
}

#[test]
fn growth_beyond_the_bound_is_refused() {
    let many = |key: &str, stage: Value, count: usize| json!({"type": "Sequence", key: vec![stage; count]});
    for normalizer in [
        many("normalizers", replace("a", "aa"), 40),
        many("normalizers", json!({"type": "Sequence", "normalizers": vec![replace("a", "aaa"); 8]}), 2),
        replace("a", &"a".repeat(2000)),
        replace("", &"a".repeat(2000)),
        json!({"type": "Replace", "pattern": {"Regex": "(?=a)"}, "content": "a".repeat(2000)}),
        many("normalizers", json!({"type": "Replace", "pattern": {"Regex": "a|b"}, "content": "ab"}), 40),
        many("normalizers", json!({"type": "NFKC"}), 4),
        many("normalizers", json!({"type": "Lowercase"}), 100),
        json!({"type": "Prepend", "prepend": "a".repeat(2000)}),
        // What the loader would guess the type of.
        json!({"pattern": {"String": "a"}, "content": "a".repeat(1000)}),
        json!({"type": "BertNormalizer", "pattern": {"String": "a"}, "content": "a".repeat(1000)}),
        json!({"type": "Replace", "pattern": {"Regex": "a".repeat(1 << 17)}, "content": ""}),
        json!("NFC"),
        json!({"type": "Unheard"}),
    ] {
        check_refused(&with("normalizer", normalizer));
    }
    for pre_tokenizer in [
        many(
            "pretokenizers",
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": false}),
            20,
        ),
        many(
            "pretokenizers",
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}),
            20,
        ),
        json!({"type": "FixedLength", "length": 0}),
        many("pretokenizers", json!({"type": "Whitespace"}), 100),
    ] {
        check_refused(&with("pre_tokenizer", pre_tokenizer));
    }
    for decoder in [
        many("decoders", replace("a", "aa"), 40),
        replace("", &"a".repeat(100)),
        json!({"type": "Strip", "content": " ", "start": 0, "stop": 3}),
        many("decoders", json!({"type": "BPEDecoder", "suffix": ""}), 10),
    ] {
        check_refused(&with("decoder", decoder));
    }
}

#[test]
fn models_that_the_loader_cannot_survive_are_refused() {
    check_refused(&tokenizer(|json| json["model"]["continuing_subword_prefix"] = json!("aaaa")));
    check_refused(&tokenizer(|json| json["model"]["vocab"] = json!({"a".repeat(5000): 0})));
    check_refused(&tokenizer(|json| {
        json["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": [["a".repeat(1_000_000), 0.0]]});
    }));
    check_refused(&tokenizer(|json| {
        let vocabulary: Vec<Value> = (0..20_000).map(|i| json!([format!("{i:01000}"), 0.0])).collect();
        json["model"] = json!({"type": "Unigram", "unk_id": 0, "vocab": vocabulary});
    }));
    check_refused(&tokenizer(|json| {
        json["model"] = json!({"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 1_000_000, "vocab": {"a": 0}});
    }));
    let token = |content: String| {
        json!({"id": 3, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": true,
            "special": true})
    };
    check_refused(&tokenizer(|json| json["added_tokens"] = json!([token("a".repeat(2000))])));
    check_refused(&tokenizer(|json| {
        json["normalizer"] = replace("a", &"a".repeat(200));
        json["added_tokens"] = (0..400).map(|i| token(format!("{i}{}", "a".repeat(1000)))).collect();
    }));
    for table in ["", "AAAA////", "AAAAAA=="] {
        check_refused(&with("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": table})));
    }
}

#[test]
fn texts_that_may_grow_too_long_are_refused() {
    let tokenizer = Tokenizer::from_bytes(&with("normalizer", replace("a", &"b".repeat(200)))).unwrap();
    assert!(tokenizer.encode("aaaa", false).is_ok());
    assert!(matches!(tokenizer.encode(&"a".repeat(1 << 20), false), Err(Error::TooLong { .. })));
}
