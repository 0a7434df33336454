//! What becomes of the tokenizer in the metadata. That it encodes texts as it should is tested where there is a tokenizer to run.

use expect_test::{Expect, expect};
use serde_json::Value;

use super::model::{Golden, import};
use super::writer::{Gguf, Meta, Storage};

fn texts(texts: &[&str]) -> Meta {
    Meta::Texts(texts.iter().map(|text| (*text).to_owned()).collect())
}

/// A tokenizer of pieces, in a model with as many tokens as it has rows.
fn pieces() -> Gguf {
    let mut gguf = Golden::load("llama").gguf(Storage::F16);
    let mut tokens: Vec<String> =
        ["<unk>", "<s>", "</s>", "▁", "a", "b", "▁a", "ab", "<|x|>", "▁▁"].map(str::to_owned).to_vec();
    let mut kinds = vec![2, 3, 3, 1, 1, 1, 1, 1, 3, 4];
    let mut scores = vec![0.0, 0.0, 0.0, -9.0, -7.0, -8.0, -1.0, -2.0, 0.0, 0.0];
    for unused in tokens.len()..128 {
        tokens.push(format!("[PAD{unused}]"));
        kinds.push(5);
        scores.push(-1000.0);
    }
    gguf.set("tokenizer.ggml.model", Meta::Text("llama".to_owned()));
    gguf.set("tokenizer.ggml.tokens", Meta::Texts(tokens));
    gguf.set("tokenizer.ggml.token_type", Meta::I32s(kinds));
    gguf.set("tokenizer.ggml.scores", Meta::F32s(scores));
    gguf.set("tokenizer.ggml.bos_token_id", Meta::U32(1));
    gguf.set("tokenizer.ggml.eos_token_id", Meta::U32(2));
    gguf.set("tokenizer.ggml.eot_token_id", Meta::U32(8));
    gguf.set("tokenizer.chat_template", Meta::Text("{{ messages }}".to_owned()));
    gguf
}

fn bytes() -> Gguf {
    let mut gguf = pieces();
    gguf.unset("tokenizer.ggml.scores");
    gguf.set("tokenizer.ggml.model", Meta::Text("gpt2".to_owned()));
    gguf.set("tokenizer.ggml.pre", Meta::Text("qwen2".to_owned()));
    gguf.set("tokenizer.ggml.merges", texts(&["▁ a", "a b"]));
    gguf
}

/// `tokenizer.json` without its padding, and `tokenizer_config.json`.
fn files(gguf: &Gguf) -> String {
    let (_root, model) = import(gguf);
    let (model, warnings) = model.unwrap();
    assert_eq!(warnings, [""; 0]);
    assert_eq!(model.model.config["eos_token_id"], serde_json::json!([2, 8]));
    let mut tokenizer = model.json("tokenizer.json").unwrap().unwrap();
    tokenizer["model"]["vocab"].as_object_mut().unwrap().retain(|text, _| !text.starts_with("[PAD"));
    let config = model.json("tokenizer_config.json").unwrap().unwrap();
    let lines = tokenizer.as_object().unwrap().iter().map(|(key, value)| format!("{key}: {value}\n"));
    lines.chain([format!("{config}\n")]).collect()
}

#[test]
fn files_that_are_written() {
    expect![[r#"
        version: "1.0"
        truncation: null
        padding: null
        added_tokens: [{"id":0,"content":"<unk>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},{"id":1,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},{"id":2,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},{"id":8,"content":"<|x|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},{"id":9,"content":"  ","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":false}]
        normalizer: {"type":"Sequence","normalizers":[{"type":"Prepend","prepend":"▁"},{"type":"Replace","pattern":{"String":" "},"content":"▁"}]}
        pre_tokenizer: null
        post_processor: {"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],"pair":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<s>","type_id":1}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"<s>":{"id":"<s>","ids":[1],"tokens":["<s>"]}}}
        decoder: {"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","content":" ","start":1,"stop":0}]}
        model: {"type":"BPE","dropout":null,"unk_token":"<unk>","continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":true,"byte_fallback":true,"ignore_merges":false,"vocab":{"<unk>":0,"<s>":1,"</s>":2,"▁":3,"a":4,"b":5,"▁a":6,"ab":7,"<|x|>":8,"  ":9},"merges":[["▁","a"],["a","b"]]}
        {"bos_token":"<s>","eos_token":"</s>","unk_token":"<unk>","add_bos_token":true,"add_eos_token":false,"chat_template":"{{ messages }}"}
    "#]].assert_eq(&files(&pieces()));
    expect![[r#"
        version: "1.0"
        truncation: null
        padding: null
        added_tokens: [{"id":0,"content":"<unk>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},{"id":1,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},{"id":2,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},{"id":8,"content":"<|x|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},{"id":9,"content":"▁▁","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":false}]
        normalizer: {"type":"NFC"}
        pre_tokenizer: {"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated","invert":false},{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]}
        post_processor: {"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":true}
        decoder: {"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true}
        model: {"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,"vocab":{"<unk>":0,"<s>":1,"</s>":2,"▁":3,"a":4,"b":5,"▁a":6,"ab":7,"<|x|>":8,"▁▁":9},"merges":[["▁","a"],["a","b"]]}
        {"bos_token":"<s>","eos_token":"</s>","add_bos_token":false,"add_eos_token":false,"chat_template":"{{ messages }}"}
    "#]].assert_eq(&files(&bytes()));
}

#[test]
fn splitting_and_ends_follow_the_metadata() {
    let mut gguf = bytes();
    gguf.set("tokenizer.ggml.pre", Meta::Text("llama-bpe".to_owned()));
    gguf.set("tokenizer.ggml.add_eos_token", Meta::Bool(true));
    let text = files(&gguf);
    assert!(text.contains(r"\\p{N}{1,3}") && text.contains(r#""ignore_merges":true"#), "{text}");
    assert!(
        text.contains(r#""single":[{"SpecialToken":{"id":"<s>""#) && text.contains(r#""add_eos_token":true"#),
        "{text}"
    );
    gguf.set("tokenizer.ggml.pre", Meta::Text("smollm".to_owned()));
    let text = files(&gguf);
    assert!(text.contains("individual_digits") && text.contains(r#""add_bos_token":false"#), "{text}");
    let mut gguf = pieces();
    gguf.set("tokenizer.ggml.add_space_prefix", Meta::Bool(false));
    gguf.set("tokenizer.ggml.add_bos_token", Meta::Bool(false));
    let text = files(&gguf);
    assert!(!text.contains("Prepend") && !text.contains("Strip") && text.contains("post_processor: null"), "{text}");
}

/// Phi 3's special tokens take the spaces after them, but for the three that it shares with Llama.
#[test]
fn spaces_after_special_tokens() {
    let mut gguf = Golden::load("phi3").gguf(Storage::F16);
    gguf.metadata.extend(pieces().metadata.into_iter().filter(|(key, _)| key.starts_with("tokenizer.")));
    let (_root, model) = import(&gguf);
    let tokenizer = model.unwrap().0.json("tokenizer.json").unwrap().unwrap();
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let strips: Vec<_> = added.iter().map(|token| (token["content"].as_str().unwrap(), &token["rstrip"])).collect();
    let expected = [("<unk>", false), ("<s>", false), ("</s>", true), ("<|x|>", true), ("  ", false)];
    let strips: Vec<_> = strips.into_iter().map(|(text, strips)| (text, *strips == true)).collect();
    assert_eq!(strips, expected);
}

/// A model whose tokenizer cannot be written is converted; the warning says why it cannot.
#[track_caller]
fn check(mut gguf: Gguf, change: impl FnOnce(&mut Gguf), expected: Expect) {
    change(&mut gguf);
    let (root, model) = import(&gguf);
    let (model, warnings) = model.unwrap();
    assert!(model.model.files.iter().all(|file| file.name != "tokenizer.json" && file.name != "tokenizer_config.json"));
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    let warning = warning.replace(&root.path().display().to_string(), "DIR");
    let rest = "; the model can be compiled, but not chat: put the Hugging Face checkpoint's tokenizer.json beside the file and \
                convert again";
    expected.assert_eq(warning.strip_suffix(rest).unwrap());
}

#[test]
fn what_cannot_be_written() {
    let set = |key: &'static str, value: Meta| move |gguf: &mut Gguf| gguf.set(&format!("tokenizer.ggml.{key}"), value);
    check(
        pieces(),
        |gguf| gguf.unset("tokenizer.ggml.model"),
        expect!["DIR/model.gguf: its metadata have no tokenizer"],
    );
    check(
        pieces(),
        set("model", Meta::Text("t5".to_owned())),
        expect!["DIR/model.gguf: its tokenizer is of the kind `t5`, which is not understood"],
    );
    check(
        pieces(),
        set("model", Meta::U32(5)),
        expect!["DIR/model.gguf: metadata key `tokenizer.ggml.model` is not a text"],
    );
    check(pieces(), |gguf| gguf.unset("tokenizer.ggml.tokens"), expect!["DIR/model.gguf: its metadata list no tokens"]);
    check(
        pieces(),
        set("token_type", Meta::I32s(vec![1; 3])),
        expect!["DIR/model.gguf: its metadata have 128 tokens, but types of 3"],
    );
    check(
        pieces(),
        set("token_type", Meta::I32s(vec![7; 128])),
        expect!["DIR/model.gguf: its metadata have types of tokens that are not known"],
    );
    check(
        pieces(),
        |gguf| gguf.unset("tokenizer.ggml.token_type"),
        expect!["DIR/model.gguf: its metadata tell no types of tokens"],
    );
    check(
        pieces(),
        |gguf| gguf.unset("tokenizer.ggml.scores"),
        expect!["DIR/model.gguf: its metadata tell no scores of tokens"],
    );
    check(
        pieces(),
        set("scores", Meta::F32s(vec![0.0; 3])),
        expect!["DIR/model.gguf: its metadata have 128 tokens, but scores of 3"],
    );
    check(
        pieces(),
        set("scores", Meta::F32s(vec![f32::NAN; 128])),
        expect!["DIR/model.gguf: metadata key `tokenizer.ggml.scores` is not an array of finite numbers"],
    );
    check(
        pieces(),
        set("remove_extra_whitespaces", Meta::Bool(true)),
        expect!["DIR/model.gguf: its tokenizer removes spaces, which is not understood"],
    );
    check(
        pieces(),
        set("precompiled_charsmap", Meta::I32s(vec![1; 3])),
        expect!["DIR/model.gguf: its tokenizer replaces characters by a table, which is not understood"],
    );
    check(
        pieces(),
        set("bos_token_id", Meta::U32(128)),
        expect!["DIR/model.gguf: its bos token is none of its 128 tokens"],
    );
    check(
        pieces(),
        set("tokens", Meta::Texts(vec!["a".to_owned(); 128])),
        expect![[r#"DIR/model.gguf: two of its tokens are "a""#]],
    );
    check(
        bytes(),
        set("pre", Meta::Text("bailingmoe".to_owned())),
        expect!["DIR/model.gguf: its way of splitting text, `bailingmoe`, is not known"],
    );
    check(bytes(), |gguf| gguf.unset("tokenizer.ggml.merges"), expect!["DIR/model.gguf: its metadata list no merges"]);
    check(
        bytes(),
        set("merges", texts(&["ab"])),
        expect![[r#"DIR/model.gguf: its merge "ab" is not of two tokens that make a third"#]],
    );
    check(
        bytes(),
        set("merges", texts(&["a nothing"])),
        expect![[r#"DIR/model.gguf: its merge "a nothing" is not of two tokens that make a third"#]],
    );
    check(
        bytes(),
        |gguf| {
            gguf.unset("tokenizer.ggml.bos_token_id");
            gguf.set("tokenizer.ggml.add_bos_token", Meta::Bool(true));
        },
        expect!["DIR/model.gguf: its metadata do not tell the token that begins a text"],
    );
}

/// Where the way of splitting is not told, Qwen's is known by the architecture; else it is llama.cpp's default. Both are said.
#[test]
fn splitting_that_is_not_told() {
    let split = |family: &str, pre: Option<&str>| {
        let mut gguf = Golden::load(family).gguf(Storage::F16);
        gguf.metadata.extend(bytes().metadata.into_iter().filter(|(key, _)| key.starts_with("tokenizer.")));
        gguf.unset("tokenizer.ggml.pre");
        if let Some(pre) = pre {
            gguf.set("tokenizer.ggml.pre", Meta::Text(pre.to_owned()));
        }
        let (_root, model) = import(&gguf);
        let (model, warnings) = model.unwrap();
        let tokenizer = model.json("tokenizer.json").unwrap().unwrap();
        (tokenizer["pre_tokenizer"].to_string(), tokenizer["normalizer"].clone(), warnings)
    };
    let (told, normalizer, none) = split("qwen2", Some("qwen2"));
    assert_eq!(none, [""; 0]);
    for pre in [None, Some("default")] {
        let (assumed, same, warnings) = split("qwen2", pre);
        assert_eq!((&assumed, &same), (&told, &normalizer));
        assert!(warnings.len() == 1 && warnings[0].contains("`qwen2` is assumed"), "{warnings:?}");
        let (assumed, _, warnings) = split("llama", pre);
        assert_eq!(assumed.matches("Isolated").count(), 4, "{assumed}");
        assert!(warnings.len() == 1 && warnings[0].contains("`default` is assumed"), "{warnings:?}");
    }
}

/// Tokens that end a turn are known by their texts where no key tells them, if they are special.
#[test]
fn ends_of_turns() {
    let ends = |text: &str, kind: i32| {
        let mut gguf = pieces();
        gguf.unset("tokenizer.ggml.eot_token_id");
        for (key, value) in &mut gguf.metadata {
            match (key.as_str(), value) {
                ("tokenizer.ggml.tokens", Meta::Texts(texts)) => texts[20] = text.to_owned(),
                ("tokenizer.ggml.token_type", Meta::I32s(kinds)) => kinds[20] = kind,
                _ => {}
            }
        }
        let (_root, model) = import(&gguf);
        model.unwrap().0.model.config["eos_token_id"].clone()
    };
    for text in ["<end_of_turn>", "<|im_end|>", "<|eot_id|>", "<|end|>", "<｜end▁of▁sentence｜>"] {
        assert_eq!(ends(text, 3), serde_json::json!([2, 20]), "{text}");
        assert_eq!(ends(text, 4), serde_json::json!([2, 20]), "{text}");
        assert_eq!(ends(text, 1), serde_json::json!([2]), "{text}: a word");
    }
    assert_eq!(ends("<|im_start|>", 3), serde_json::json!([2]));
}

/// Long vocabularies are written as they go; the hash in the description is that of the file.
#[test]
fn hashes_are_those_of_the_files() {
    let (_root, model) = import(&pieces());
    let model = model.unwrap().0;
    for file in &model.model.files {
        let content = std::fs::read(model.path().join(&file.name)).unwrap();
        assert_eq!(blake3::hash(&content).to_hex().to_string(), file.blake3, "{}", file.name);
        assert!(serde_json::from_slice::<Value>(&content).is_ok());
    }
    assert_eq!(model.model.files.len(), 2);
}
