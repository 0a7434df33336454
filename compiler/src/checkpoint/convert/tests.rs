//! Conversion of golden and of broken checkpoints.

use std::collections::BTreeMap;
use std::fs;

use dwindle_schemes::Role;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::arch;
use crate::checkpoint::fixture::{checkpoint, contents, convert_all, golden, write_tensors};
use crate::checkpoint::names;
use crate::checkpoint::safetensors::Element;
use crate::progress::Silent;

#[test]
fn golden_checkpoints_keep_their_bytes() {
    for family in ["gemma", "gemma3_text", "phi3", "qwen2_untied_sharded", "llava_1_5", "llava_onevision"] {
        let root = tempfile::tempdir().unwrap();
        let source = Source::open(&golden(family)).unwrap();
        let (model, report) = convert_all(&golden(family), &root.path().join("out")).unwrap();
        assert_eq!(&model.model.config, source.outline().config());
        assert_eq!(model.model.sources.len(), 1 + source.shards().len());
        assert_eq!(report.tensors, source.tensors().count());
        for (_, view) in source.tensors() {
            let name = names::canonical(view.name, source.outline().is_multimodal());
            let written = model.tensor(&name).unwrap();
            assert_eq!((written.dtype, written.shape, written.bytes), (view.dtype, view.shape, view.bytes));
        }
        assert!(model.file("generation_config.json").is_some());
        assert_eq!(model.json("preprocessor_config.json").unwrap().is_some(), family.starts_with("llava"));
        assert!(report.warnings.iter().any(|warning| warning.contains("tokenizer.json")), "{report:?}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "nothing else is left");
    }
}

#[test]
fn tokenizers_are_carried() {
    let root = tempfile::tempdir().unwrap();
    let source = golden("../../demo/pocket-llava");
    let (model, report) = convert_all(&source, &root.path().join("out")).unwrap();
    assert_eq!(report.warnings, [""; 0]);
    for name in ["tokenizer.json", "chat_template.jinja", "processor_config.json", "tokenizer_config.json"] {
        assert_eq!(fs::read(model.file(name).unwrap()).unwrap(), fs::read(source.join(name)).unwrap());
    }
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let root = tempfile::tempdir().unwrap();
    let convert = |threads: usize| {
        let out = root.path().join(threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| convert_all(&golden("qwen2_untied_sharded"), &out)).unwrap();
        contents(&out)
    };
    assert_eq!(convert(1), convert(2));
}

/// Every published spelling of the families here has the tensors that its family needs.
#[test]
fn golden_and_demo_checkpoints_fit_their_families() {
    let mut converted = 0;
    for entry in fs::read_dir(golden("")).unwrap().chain(fs::read_dir(golden("../../demo")).unwrap()) {
        let path = entry.unwrap().path();
        let Ok(source) = Source::open(&path) else { continue };
        if !arch::families().any(|family| family == source.outline().model_type()) {
            continue;
        }
        let root = tempfile::tempdir().unwrap();
        let (model, report) = convert(&path, &root.path().join("out"), &Silent).unwrap();
        // What a tower does not need that is read before its last norm, or before its last layer.
        let last_layer = "vision_tower.vision_model.encoder.layers.2.";
        let useless = |name: &String| {
            ["vision_tower.vision_model.post_layernorm.", last_layer].iter().any(|p| name.starts_with(p))
        };
        assert!(report.ignored.iter().all(useless), "{}: {report}", path.display());
        assert_eq!(model.model.tensors.len() + report.ignored.len(), source.tensors().count());
        converted += 1;
    }
    assert!(converted >= 13, "{converted}");
}

#[test]
fn unknown_families() {
    let directory = checkpoint(&json!({"model_type": "mamba"}), &[]);
    let error = convert(directory.path(), &directory.path().join("out"), &Silent).unwrap_err();
    let text = error.to_string().replace(&directory.path().display().to_string(), "DIR");
    assert!(text.starts_with("DIR: model_type `mamba` is not supported"), "{text}");
    assert!(arch::families().all(|family| text.contains(family)), "{text}");
}

/// What is wrong with a configuration is told with its place.
#[test]
fn families_refuse_with_the_place() {
    let directory = checkpoint(&json!({"model_type": "gemma2"}), &[]);
    let error = convert(directory.path(), &directory.path().join("out"), &Silent).unwrap_err();
    assert!(matches!(&error, Error::Family { path, .. } if path == directory.path()), "{error}");
    fs::write(directory.path().join("preprocessor_config.json"), "{").unwrap();
    let error = convert(directory.path(), &directory.path().join("out"), &Silent).unwrap_err();
    assert!(matches!(&error, Error::Json { path, .. } if path.ends_with("preprocessor_config.json")), "{error}");
}

fn text() -> Value {
    json!({"model_type": "gemma", "num_hidden_layers": 1})
}

/// Converts where `a.weight [2, 3]` and `b.bias [2]` are needed and `rotary.*` is ignored.
fn convert_pair(source: &Path, out: &Path) -> Result<(ModelDir, ConvertReport)> {
    let tensors = BTreeMap::from([
        ("a.weight".to_owned(), (vec![2, 3], Role::Linear)),
        ("b.bias".to_owned(), (vec![2], Role::Vector)),
    ]);
    let needs = Needs { tensors, ignored: Box::new(|name| name.starts_with("rotary.")), notes: Vec::new() };
    Conversion::of_checkpoint(Source::open(source)?, needs, None)?.run(out, &Silent)
}

#[track_caller]
fn check(source: &Path, expected: Expect) {
    let root = tempfile::tempdir().unwrap();
    let text = match convert_pair(source, &root.path().join("out")) {
        Ok((_, report)) => format!("{report}"),
        Err(error) => {
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nothing is left");
            error.to_string()
        }
    };
    expected.assert_eq(&text.replace(&source.display().to_string(), "DIR"));
}

#[test]
fn tensors_are_checked_all_at_once() {
    let a = ("a.weight", Element::Bf16, &[2, 3][..], vec![1.0; 6]);
    let b = ("b.bias", Element::F32, &[2][..], vec![1.0; 2]);
    let rotary = ("rotary.frequencies", Element::F64, &[2][..], vec![]);
    check(
        checkpoint(&text(), &[a.clone(), b.clone(), rotary]).path(),
        expect!["2 tensors, 20 B; 1 of no use left out: rotary.frequencies"],
    );
    let misshapen = ("a.weight", Element::I64, &[3, 2][..], vec![]);
    let extra = ("c.weight", Element::F32, &[1][..], vec![1.0]);
    let other = ("c.bias", Element::F32, &[][..], vec![1.0]);
    check(
        checkpoint(&text(), &[misshapen, extra, other]).path(),
        expect![[r#"
        DIR does not hold the tensors of a `gemma` model:
          missing      b.bias [2]
          not expected c.bias []
          not expected c.weight [1]
          misshapen    a.weight: needs [2, 3], has [3, 2]
          unsupported  a.weight is I64; needs F32, F16 or BF16"#]],
    );
}

#[test]
fn two_spellings_of_one_tensor() {
    let config = json!({"model_type": "llava", "text_config": {}});
    let directory = checkpoint(
        &config,
        &[
            ("lm_head.weight", Element::F32, &[1, 1], vec![1.0]),
            ("language_model.lm_head.weight", Element::F32, &[1, 1], vec![1.0]),
        ],
    );
    let root = tempfile::tempdir().unwrap();
    let error = convert_all(directory.path(), &root.path().join("out")).unwrap_err();
    expect![[r#"
        DIR does not hold the tensors of a `llava` model:
          duplicate    language_model.lm_head.weight is there under two names"#]]
    .assert_eq(&error.to_string().replace(&directory.path().display().to_string(), "DIR"));
}

#[test]
fn what_is_no_checkpoint() {
    let check_files = |files: &[(&str, &str)], expected: Expect| {
        let directory = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, content)| fs::write(directory.path().join(name), content).unwrap());
        check(directory.path(), expected);
    };
    check(Path::new("/nowhere/at/all"), expect!["DIR is not a checkpoint: there is no such directory"]);
    check_files(
        &[],
        expect!["DIR is not a checkpoint: it has no config.json; name the directory of a Hugging Face checkpoint"],
    );
    check_files(
        &[("model.json", "{}")],
        expect!["DIR is not a checkpoint: it is a model directory, converted already; quantize or compile it"],
    );
    check_files(
        &[("config.json", "{")],
        expect!["DIR/config.json: not valid JSON: EOF while parsing an object at line 1 column 1"],
    );
    check_files(&[("config.json", "[]")], expect!["DIR/config.json: expected an object"]);
    check_files(
        &[("config.json", "{}")],
        expect!["DIR/config.json: has no `model_type`, which names the family of the model"],
    );
    let config = ("config.json", r#"{"model_type": "gemma"}"#);
    check_files(
        &[config],
        expect![
            "DIR is not a checkpoint: it has neither model.safetensors nor model.safetensors.index.json; download the weights"
        ],
    );
    check_files(
        &[config, ("pytorch_model.bin", "")],
        expect![
            "DIR is not a checkpoint: it has neither model.safetensors nor model.safetensors.index.json, only pytorch_model.bin in PyTorch's format, which can run code when read; load it with transformers and save it with `model.save_pretrained(dir, safe_serialization=True)`"
        ],
    );
    check_files(
        &[config, ("model-q4.gguf", "")],
        expect![
            "DIR is not a checkpoint: it has neither model.safetensors nor model.safetensors.index.json; download the weights"
        ],
    );
    check_files(
        &[config, ("model-00001-of-00002.safetensors", "")],
        expect![
            "DIR is not a checkpoint: it has neither model.safetensors nor model.safetensors.index.json, only model-00001-of-00002.safetensors; download the index too, or rename the file if it is the whole model"
        ],
    );
    check_files(
        &[config, ("model.safetensors", "GGUF")],
        expect![
            "DIR/model.safetensors is not a safetensors file: it looks like a GGUF file (llama.cpp); name it .gguf to convert it as such"
        ],
    );
    let index = |text: &'static str| ("model.safetensors.index.json", text);
    check_files(&[config, index("{}")], expect!["DIR/model.safetensors.index.json: has no object `weight_map`"]);
    check_files(
        &[config, index(r#"{"weight_map": {}}"#)],
        expect!["DIR/model.safetensors.index.json: `weight_map` is empty"],
    );
    check_files(
        &[config, index(r#"{"weight_map": {"a": "../secret.safetensors"}}"#)],
        expect!["DIR/model.safetensors.index.json: weight_map: `a` is in no file of this directory"],
    );
    check_files(
        &[config, index(r#"{"weight_map": {"a": 1}}"#)],
        expect!["DIR/model.safetensors.index.json: weight_map: `a` is in no file of this directory"],
    );
    check_files(
        &[config, index(r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}}"#)],
        expect![
            "DIR/model.safetensors.index.json: 2 of 2 shards are missing; download them too: 1.safetensors, 2.safetensors"
        ],
    );
}

#[test]
fn an_index_only_names_the_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::write(path.join("config.json"), text().to_string()).unwrap();
    write_tensors(&path.join("1.safetensors"), &[("a.weight", Element::F32, &[2, 3], vec![1.0; 6])]);
    write_tensors(&path.join("2.safetensors"), &[("b.bias", Element::F32, &[2], vec![1.0; 2])]);
    let index =
        |map: Value| fs::write(path.join("model.safetensors.index.json"), json!({"weight_map": map}).to_string());
    index(json!({"a.weight": "1.safetensors", "b.bias": "2.safetensors"})).unwrap();
    check(path, expect!["2 tensors, 32 B"]);
    index(json!({"a.weight": "2.safetensors", "b.bias": "2.safetensors", "c": "1.safetensors"})).unwrap();
    check(path, expect!["2 tensors, 32 B"]);
    index(json!({"a.weight": "2.safetensors"})).unwrap();
    check(
        path,
        expect![[r#"
            DIR does not hold the tensors of a `gemma` model:
              missing      a.weight [2, 3]"#]],
    );
}

#[test]
fn replaces_a_model_directory_and_nothing_else() {
    let source = checkpoint(
        &text(),
        &[("a.weight", Element::Bf16, &[2, 3], vec![1.0; 6]), ("b.bias", Element::F32, &[2], vec![1.0; 2])],
    );
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("deep/out");
    convert_pair(source.path(), &out).unwrap();
    let first = contents(&out);
    convert_pair(source.path(), &out).unwrap();
    assert_eq!(contents(&out), first);
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let error = convert_pair(source.path(), &out).unwrap_err();
    assert!(matches!(error, Error::OutputOccupied { .. }), "{error}");
    assert_eq!(contents(&out).len(), first.len() + 1);
    let error = convert_pair(source.path(), source.path()).unwrap_err();
    assert!(matches!(error, Error::OutputOccupied { .. }), "{error}");
}

/// Changes `model.json` of a good directory; what `open` says then.
#[track_caller]
fn check_damaged(edit: impl FnOnce(&mut Value), expected: Expect) {
    let source = checkpoint(
        &text(),
        &[("a.weight", Element::Bf16, &[2, 3], vec![1.0; 6]), ("b.bias", Element::F32, &[2], vec![1.0; 2])],
    );
    fs::write(source.path().join("generation_config.json"), "{}").unwrap();
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    convert_pair(source.path(), &out).unwrap();
    let path = out.join("model.json");
    let mut model: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut model);
    fs::write(&path, model.to_string()).unwrap();
    let error = ModelDir::open(&out).unwrap_err();
    expected.assert_eq(&error.to_string().replace(&out.display().to_string(), "DIR"));
}

#[test]
fn damaged_model_directories() {
    check_damaged(
        |model| model["format"] = "other".into(),
        expect![[r#"DIR is not a model directory: model.json does not say `"format": "dwindle-model"`"#]],
    );
    check_damaged(
        |model| model["version"] = 1.into(),
        expect!["DIR/model.json: format version 1, this program reads version 2; convert the model again"],
    );
    check_damaged(
        |model| model["surprise"] = 2.into(),
        expect![
            "DIR/model.json: unknown field `surprise`, expected one of `format`, `version`, `family`, `scheme`, `method`, `kv`, `config`, `tensors`, `files`, `sources`, `card`"
        ],
    );
    check_damaged(
        |model| model["tensors"]["a.weight"]["format"] = "q5g40f16".into(),
        expect![
            "DIR/model.json: `q5g40f16` is not a storage format: expected f32, f16, bf16, or bits, group and scale type as in q4g32f16 (3, 4, 5, 6 or 8 bits; groups are multiples of 10, 8, 32, 16 or 4 values, up to 4096), with the suffix z for stored zeros, z8 for zero code 8, m for stored minimums"
        ],
    );
    check_damaged(
        |model| {
            model["tensors"]["a.weight"]["format"] = "q4g32f16".into();
            model["tensors"]["b.bias"]["shape"] = json!([3]);
            model["tensors"]["c.bias"] = json!({"role": "vector", "shape": [1], "format": "f32"});
            model["tensors"]["d.bias"] =
                json!({"role": "vector", "shape": [4294967296_u64, 4294967296_u64], "format": "f32"});
            model["files"][0]["name"] = "../../secret".into();
        },
        expect![[r#"
            DIR is damaged; convert or quantize it again:
              - tensor `a.weight.codes` is missing
              - tensor `a.weight.scales` is missing
              - tensor `b.bias` is F32 [2], but model.json implies F32 [3]
              - tensor `c.bias` is missing
              - tensor `d.bias` cannot have the shape [4294967296, 4294967296]
              - tensor `a.weight` is not in model.json
              - `../../secret` is no file that a model directory carries"#]],
    );
    check_damaged(
        |model| model["files"][0]["name"] = "tokenizer.json".into(),
        expect![[r#"
        DIR is damaged; convert or quantize it again:
          - file tokenizer.json is missing"#]],
    );
}

#[test]
fn the_description() {
    let source = checkpoint(
        &text(),
        &[("a.weight", Element::Bf16, &[2, 3], vec![1.0; 6]), ("b.bias", Element::F32, &[2], vec![1.0; 2])],
    );
    fs::write(source.path().join("generation_config.json"), "{\"eos_token_id\": [1, 2]}").unwrap();
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    convert_pair(source.path(), &out).unwrap();
    expect![[r#"
        {
          "format": "dwindle-model",
          "version": 2,
          "family": "gemma",
          "scheme": null,
          "method": null,
          "kv": null,
          "config": {
            "model_type": "gemma",
            "num_hidden_layers": 1
          },
          "tensors": {
            "a.weight": {
              "role": "linear",
              "shape": [
                2,
                3
              ],
              "format": "bf16"
            },
            "b.bias": {
              "role": "vector",
              "shape": [
                2
              ],
              "format": "f32"
            }
          },
          "files": [
            {
              "name": "generation_config.json",
              "blake3": "7efce336d28c38a55b38eaf664ad5f164148511433cfdf7da1a3478668ab25b0"
            }
          ],
          "sources": [
            {
              "name": "config.json",
              "bytes": 44,
              "blake3": "a0c4184d365e425de04f743f442d33e9be8dade55516a438e76c1c4f3ac0e6a2"
            },
            {
              "name": "model.safetensors",
              "bytes": 188,
              "blake3": "614da1b6bd91b6583265845939edfc63c9fe60cc1ee824916bfe9ad1f2b7c3a4"
            }
          ],
          "card": null
        }
    "#]]
    .assert_eq(&fs::read_to_string(out.join("model.json")).unwrap());
}
