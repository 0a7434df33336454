//! What is made of which files, and what is wrong with damaged ones; which tokens come out is a test of the workspace.

use std::fs;

use expect_test::{Expect, expect};
use serde_json::json;
use tempfile::TempDir;

use super::model_proto::ModelProto;
use super::*;

fn directory(files: &[(&str, Value)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(directory.path().join(name), content.to_string()).unwrap();
    }
    directory
}

/// A tokenizer of three tokens, the last of which is special.
fn small(vocab: &Value) -> Value {
    let kind = if vocab.is_array() { "Unigram" } else { "BPE" };
    json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 2, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": kind, "vocab": vocab, "merges": []}})
}

/// What is added to [`small`], whose model embeds ten tokens, by files beside it: number, text and flags of each token, and notes.
#[track_caller]
fn check(vocab: &Value, beside: &[(&str, Value)], expected: Expect) {
    let directory = directory(beside);
    fs::write(directory.path().join(TOKENIZER), small(vocab).to_string()).unwrap();
    let Value::Object(model) = json!({"model_type": "llama", "vocab_size": 10}) else { panic!("an object") };
    let Made { files, notes } = made(directory.path(), &model).unwrap();
    let mut text = String::new();
    if let Some(file) = files.get(TOKENIZER) {
        let file: Value = serde_json::from_str(file).unwrap();
        assert_eq!(file["version"], "1.0");
        for token in file["added_tokens"].as_array().unwrap() {
            let flags = ["single_word", "lstrip", "rstrip", "normalized", "special"];
            let flags: Vec<&str> = flags.into_iter().filter(|flag| token[flag] == true).collect();
            let listed = file["model"]["vocab"].get(token["content"].as_str().unwrap()).is_some();
            let listed = if listed { " listed" } else { "" };
            text += &format!("{} {} {}{listed}\n", token["id"], token["content"], flags.join(" "));
        }
    }
    notes.iter().for_each(|note| text += &format!("note: {note}\n"));
    expected.assert_eq(&text);
}

#[test]
fn added_tokens() {
    let vocab = json!({"<unk>": 0, "a": 1, "</s>": 2});
    check(&vocab, &[], expect![""]);
    check(&vocab, &[("tokenizer_config.json", json!({"eos_token": "</s>", "unk_token": null}))], expect![""]);
    let token = |content: &str| json!({"content": content, "special": true, "normalized": false, "lstrip": true});
    check(
        &vocab,
        &[("tokenizer_config.json", json!({"added_tokens_decoder": {"4": token("<b>"), "3": token("<c>")}}))],
        expect![[r#"
            2 "</s>" special listed
            3 "<c>" lstrip special
            4 "<b>" lstrip special
            note: tokens taken from the files beside tokenizer.json: <c>, <b>
        "#]],
    );
    // One that lies beyond a gap, one that has to be special, and one that the file finds in another way.
    check(
        &vocab,
        &[(
            "tokenizer_config.json",
            json!({"eos_token": "<b>", "added_tokens_decoder": {
                "7": {"content": "<b>", "special": false}, "2": {"content": "</s>", "special": true, "rstrip": true}}}),
        )],
        expect![[r#"
            2 "</s>" rstrip special listed
            7 "<b>" normalized special listed
            note: tokens taken from the files beside tokenizer.json: </s>, <b>
        "#]],
    );
    // Older files: numbers and roles apart.
    check(
        &vocab,
        &[
            ("added_tokens.json", json!({"<|im_end|>": 4, "<tool>": 3})),
            ("special_tokens_map.json", json!({"eos_token": {"content": "<|im_end|>"}, "pad_token": "a"})),
        ],
        expect![[r#"
            1 "a" special listed
            2 "</s>" special listed
            3 "<tool>" normalized
            4 "<|im_end|>" special
            note: tokens taken from the files beside tokenizer.json: <tool>, <|im_end|>, a
        "#]],
    );
    // Numbers that are taken, and more tokens than the model embeds.
    check(
        &vocab,
        &[("tokenizer_config.json", json!({"added_tokens_decoder": {"1": token("<b>"), "12": token("<c>")}}))],
        expect![[r#"
            2 "</s>" special listed
            3 "<b>" lstrip special
            note: tokens taken from the files beside tokenizer.json: <b>
            note: token `<b>` is number 3, although a file beside tokenizer.json says 1
            note: tokens that the embedding has no rows for were left out of tokenizer.json: <c>
        "#]],
    );
    let list = json!([["<unk>", 0.0], ["a", -1.0], ["</s>", -2.0]]);
    check(
        &list,
        &[("tokenizer_config.json", json!({"added_tokens_decoder": {"3": token("<b>"), "7": token("<c>")}}))],
        expect![[r#"
            2 "</s>" special
            3 "<b>" lstrip special
            4 "<c>" lstrip special
            note: tokens taken from the files beside tokenizer.json: <b>, <c>
            note: token `<c>` is number 4, although a file beside tokenizer.json says 7
        "#]],
    );
    check(
        &list,
        &[("tokenizer_config.json", json!({"additional_special_tokens": ["<b>", {"content": "<c>"}]}))],
        expect![[r#"
        2 "</s>" special
        3 "<b>" special
        4 "<c>" normalized special
        note: tokens taken from the files beside tokenizer.json: <b>, <c>
    "#]],
    );
}

fn fixture(name: &str) -> Vec<u8> {
    let path = format!("{}/../tests/tokenizers/{name}/tokenizer.model", env!("CARGO_MANIFEST_DIR"));
    fs::read(path).unwrap()
}

#[test]
fn sentence_piece_models_are_read() {
    let model = ModelProto::parse(&fixture("llama")).unwrap();
    assert_eq!((model.pieces.len(), model.unk, model.bos, model.eos), (600, Some(0), Some(1), Some(2)));
    assert!(model.byte_fallback && model.add_dummy_prefix && !model.remove_extra_whitespaces);
    let model = ModelProto::parse(&fixture("gemma")).unwrap();
    assert_eq!((model.unk, model.bos, model.eos), (Some(3), Some(2), Some(1)));
    assert!(!model.add_dummy_prefix && model.charsmap.is_empty());
    let model = ModelProto::parse(&fixture("unigram")).unwrap();
    assert!(model.charsmap.len() > 1000 && model.remove_extra_whitespaces);
}

/// A cut or changed file is an error or another tokenizer, never a panic; lengths that lie take no memory.
#[test]
fn damaged_sentence_piece_models() {
    let whole = fixture("gemma");
    let directory = directory(&[]);
    let path = directory.path().join(sentence_piece::FILE);
    for length in (0..whole.len()).step_by(97) {
        let _ = ModelProto::parse(&whole[..length]);
    }
    let mut seed = 7_u32;
    for _ in 0..200 {
        let mut bytes = whole.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = seed as usize % bytes.len();
            bytes[at] = (seed >> 24) as u8;
        }
        let _ = ModelProto::parse(&bytes);
    }
    let lies: [&[u8]; 5] =
        [&[], &[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0x0a, 0x02, 0x0a, 0x05], &[0x0f], &[0xff; 12]];
    let mut reasons = Vec::new();
    for bytes in lies {
        fs::write(&path, bytes).unwrap();
        let error = made(directory.path(), &Map::new()).unwrap_err().to_string();
        reasons.push(error.rsplit("tokenizer.model: ").next().unwrap().to_owned());
    }
    expect![[r#"
        not a SentencePiece model: it has no pieces; download the file again
        not a SentencePiece model: it ends within a field; download the file again
        not a SentencePiece model: it ends within a field; download the file again
        not a SentencePiece model: a field of it is encoded as 7, which is not known; download the file again
        not a SentencePiece model: a number of it has more than ten bytes; download the file again"#]]
    .assert_eq(&reasons.join("\n"));
}

/// What cannot be made is said, with what makes it.
#[test]
fn what_cannot_be_made() {
    let check = |files: &[(&str, &str)], expected: Expect| {
        let directory = directory(&[]);
        files.iter().for_each(|(name, text)| fs::write(directory.path().join(name), text).unwrap());
        let made = made(directory.path(), &Map::new()).unwrap();
        assert!(made.files.is_empty());
        let [note] = made.notes.as_slice() else { panic!("{:?}", made.notes) };
        expected.assert_eq(&note.to_string().replace(&directory.path().display().to_string(), "DIR"));
    };
    let config = r#"{"tokenizer_class": "GPT2Tokenizer"}"#;
    check(
        &[("vocab.json", r#"{"a": 0}"#), ("merges.txt", "")],
        expect![[
            r#"vocab.json and merges.txt do not tell how text is split, and no class is not known; make tokenizer.json with `python -c "from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('DIR').save_pretrained('DIR')"` and convert again"#
        ]],
    );
    check(
        &[("tokenizer_config.json", config), ("vocab.json", r#"{"a": 0}"#), ("merges.txt", "#version: 0.2\na b")],
        expect![[
            r#"line 2 of merges.txt is not two tokens of vocab.json that make a third; make tokenizer.json with `python -c "from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('DIR').save_pretrained('DIR')"` and convert again"#
        ]],
    );
    check(
        &[("tokenizer.model", "IQ== 0\nIg== 1\n")],
        expect![[
            r#"tokenizer.model is a list of tiktoken's, which does not tell how text is split; make tokenizer.json with `python -c "from transformers import AutoTokenizer; AutoTokenizer.from_pretrained('DIR').save_pretrained('DIR')"` and convert again"#
        ]],
    );
}
