//! Files of the checkpoint beside the GGUF file, and directories with GGUF files.

use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::model::{Golden, write};
use super::writer::{Gguf, Meta, Storage};
use crate::checkpoint::fixture::golden;
use crate::checkpoint::{ModelDir, convert};
use crate::error::Result;
use crate::progress::Silent;

fn import(path: &Path) -> (tempfile::TempDir, Result<ModelDir>) {
    let out = tempfile::tempdir().unwrap();
    let model = convert(path, &out.path().join("out"), &Silent).map(|(model, _)| model);
    (out, model)
}

/// A golden model in a file, with its `config.json` changed and beside it.
fn beside(family: &str, change: impl FnOnce(&mut Value), gguf: impl FnOnce(&mut Gguf)) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let mut file = Golden::load(family).gguf(Storage::F16);
    gguf(&mut file);
    write(root.path(), &file);
    let mut config = serde_json::from_slice(&fs::read(golden(family).join("config.json")).unwrap()).unwrap();
    change(&mut config);
    fs::write(root.path().join("config.json"), config.to_string()).unwrap();
    root
}

/// The configuration beside the file tells what its metadata do not, and is a source of the model.
#[test]
fn configurations_win() {
    let root = beside("gemma2", |_| {}, |gguf| gguf.unset("gemma2.attention.scale"));
    for path in [root.path().to_owned(), root.path().join("model.gguf")] {
        let (_out, model) = import(&path);
        let model = model.unwrap();
        assert_eq!(model.model.config["query_pre_attn_scalar"], json!(24));
        let sources: Vec<_> = model.model.sources.iter().map(|source| source.name.as_str()).collect();
        assert_eq!(sources, ["config.json", "model.gguf"]);
    }
    // Mistral's window, which llama.cpp's converter does not always write.
    let root = beside("mistral", |_| {}, |gguf| gguf.unset("llama.attention.sliding_window"));
    let (_out, model) = import(root.path());
    let model = model.unwrap().model;
    assert_eq!((model.family.as_str(), &model.config["sliding_window"]), ("mistral", &json!(24)));
    // Gemma 3 with pictures: its text model is the file's.
    let nest =
        |config: &mut Value| *config = json!({"model_type": "gemma3", "text_config": config, "vision_config": {}});
    let root = beside("gemma3_text", nest, |_| {});
    assert_eq!(import(root.path()).1.unwrap().model.family, "gemma3_text");
}

#[track_caller]
fn check(family: &str, change: impl FnOnce(&mut Value), expected: Expect) {
    let root = beside(family, change, |_| {});
    let error = import(root.path()).1.unwrap_err().to_string();
    expected.assert_eq(&error.replace(&root.path().display().to_string(), "DIR"));
}

#[test]
fn contradictions() {
    check(
        "gemma2",
        |config| {
            config["num_hidden_layers"] = 3.into();
            config["layer_types"] = Value::Null;
            config["rope_parameters"]["rope_theta"] = 5e4.into();
            config["sliding_window"] = 17.into();
        },
        expect![[r#"
            DIR/config.json is not of the GGUF file beside it; put the file in a directory of its own, or its own config.json beside it:
              - `num_hidden_layers` is 3, the GGUF file says 4
              - `rope_theta` is 50000.0, the GGUF file says 10000.0
              - `sliding_window` is 17, the GGUF file says 16"#]],
    );
    check(
        "gemma",
        |config| config["model_type"] = "gemma2".into(),
        expect![[r#"
        DIR/config.json is not of the GGUF file beside it; put the file in a directory of its own, or its own config.json beside it:
          - `model_type` is "gemma2", the GGUF file's is "gemma""#]],
    );
    check(
        "llama",
        |config| config["rope_parameters"]["factor"] = 4.0.into(),
        expect![[r#"
        DIR/config.json is not of the GGUF file beside it; put the file in a directory of its own, or its own config.json beside it:
          - `rope_scaling` does not give the divisors in the GGUF file's `rope_freqs.weight`"#]],
    );
    check("llama", |config| *config = json!([]), expect!["DIR/config.json: expected an object"]);
}

/// What lies beside the file is carried; the tokenizer there needs none in the metadata.
#[test]
fn tokenizers_beside() {
    let root = tempfile::tempdir().unwrap();
    let mut gguf = Golden::load("qwen2").gguf(Storage::F16);
    gguf.set("tokenizer.ggml.model", Meta::Text("bert".to_owned()));
    let path = write(root.path(), &gguf);
    let demo = golden("../../demo/pocket-llava");
    for name in ["tokenizer.json", "chat_template.jinja", "generation_config.json"] {
        fs::copy(demo.join(name), root.path().join(name)).unwrap();
    }
    let out = tempfile::tempdir().unwrap();
    let (model, report) = convert(&path, &out.path().join("out"), &Silent).unwrap();
    assert_eq!(report.warnings, [""; 0]);
    let names: Vec<_> = model.model.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["chat_template.jinja", "generation_config.json", "tokenizer.json"]);
    assert_eq!(
        fs::read(model.file("tokenizer.json").unwrap()).unwrap(),
        fs::read(demo.join("tokenizer.json")).unwrap()
    );
}

#[test]
fn directories() {
    let root = tempfile::tempdir().unwrap();
    let gguf = Golden::load("qwen2").gguf(Storage::F16);
    write(root.path(), &gguf);
    assert_eq!(import(root.path()).1.unwrap().model.family, "qwen2");
    fs::write(root.path().join("other.GGUF"), gguf.bytes()).unwrap();
    let error = import(root.path()).1.unwrap_err().to_string();
    expect!["DIR is not a checkpoint: it has several GGUF files; name one of them: model.gguf, other.GGUF"]
        .assert_eq(&error.replace(&root.path().display().to_string(), "DIR"));
    // A checkpoint beside them is what the directory is.
    fs::copy(golden("llama").join("model.safetensors"), root.path().join("model.safetensors")).unwrap();
    fs::copy(golden("llama").join("config.json"), root.path().join("config.json")).unwrap();
    assert_eq!(import(root.path()).1.unwrap().model.family, "llama");
}
