//! Checkpoints as people have them: heads of their own, spare tensors and names, keys that are ignored, other files.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use super::super::fixture::{golden, owned, write_tensors};
use super::super::safetensors::Element;
use super::super::{Conversion, ConvertReport, ModelDir};
use super::*;
use crate::progress::Silent;

type Tensors = BTreeMap<String, (Vec<f32>, Vec<usize>)>;

/// A golden checkpoint with other tensors and another configuration.
fn changed(name: &str, tensors: impl FnOnce(&mut Tensors), config: impl FnOnce(&mut Map<String, Value>)) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in ["generation_config.json", "preprocessor_config.json"] {
        let path = golden(name).join(file);
        if path.is_file() {
            fs::copy(path, directory.path().join(file)).unwrap();
        }
    }
    let mut keys = json::read_object(&golden(name).join("config.json")).unwrap();
    config(&mut keys);
    fs::write(directory.path().join("config.json"), Value::Object(keys).to_string()).unwrap();
    let mut all = owned(&golden(name));
    tensors(&mut all);
    let given: Vec<_> = all
        .iter()
        .map(|(name, (values, shape))| (name.as_str(), Element::F32, shape.as_slice(), values.clone()))
        .collect();
    write_tensors(&directory.path().join(MODEL_SAFETENSORS), &given);
    directory
}

fn converted(source: &Path, ignored: &[&str]) -> Result<(ModelDir, ConvertReport, TempDir)> {
    let root = tempfile::tempdir().unwrap();
    let ignored = IgnoredKeys::new(ignored.iter().map(|key| (*key).to_owned()).collect());
    let (model, report) = Conversion::open_ignoring(source, &ignored, None)?.run(&root.path().join("out"), &Silent)?;
    Ok((model, report, root))
}

#[track_caller]
fn head(
    name: &str,
    embedding: &str,
    head: &str,
    change: f32,
    is_own: bool,
    config: impl FnOnce(&mut Map<String, Value>),
) {
    let source = changed(
        name,
        |tensors| {
            let (values, shape) = tensors[embedding].clone();
            tensors.insert(head.to_owned(), (values.iter().map(|x| x * (1.0 + change)).collect(), shape));
        },
        config,
    );
    let (model, report, _root) = converted(source.path(), &[]).unwrap();
    let own = Note::OwnHead { tensor: head.to_owned() };
    assert_eq!(report.notes.contains(&own), is_own, "{:?}", report.notes);
    let has_head = model.model.tensors.keys().any(|name| name.ends_with("lm_head.weight"));
    assert_eq!(has_head, is_own);
    assert_eq!(report.ignored.iter().any(|name| name.ends_with("lm_head.weight")), !is_own, "{report:?}");
    if is_own {
        assert_eq!(model.model.config["tie_word_embeddings"], false);
    }
}

#[test]
fn heads_of_tied_models() {
    let tie = |config: &mut Map<String, Value>| drop(config.insert("tie_word_embeddings".to_owned(), true.into()));
    for change in [0.0, 0.5] {
        let is_own = change != 0.0;
        head("qwen2", "model.embed_tokens.weight", "lm_head.weight", change, is_own, tie);
        // Tied because nothing is said.
        let unsaid = |config: &mut Map<String, Value>| drop(config.remove("tie_word_embeddings"));
        head("gemma", "model.embed_tokens.weight", "lm_head.weight", change, is_own, unsaid);
    }
}

/// Either level of a model that sees ties.
#[test]
fn heads_of_models_that_see() {
    for (top, text) in [(true, false), (false, true), (true, true)] {
        for change in [0.0, 0.5] {
            let tie = |config: &mut Map<String, Value>| {
                config.insert("tie_word_embeddings".to_owned(), top.into());
                config["text_config"]["tie_word_embeddings"] = text.into();
            };
            let name = owned(&golden("llava_onevision"))
                .into_keys()
                .find(|name| name.ends_with("embed_tokens.weight"))
                .unwrap();
            let prefix = name.strip_suffix("model.embed_tokens.weight").unwrap().to_owned();
            head("llava_onevision", &name, &format!("{prefix}lm_head.weight"), change, change != 0.0, tie);
        }
    }
}

#[test]
fn a_model_that_is_not_tied_needs_its_head() {
    let source = changed(
        "qwen2",
        |tensors| drop(tensors.remove("lm_head.weight")),
        |config| drop(config.insert("tie_word_embeddings".to_owned(), false.into())),
    );
    let error = converted(source.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("missing      lm_head.weight"), "{error}");
}

#[test]
fn spare_tensors() {
    let spare = [
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "model.rotary_emb.inv_freq",
        "model.layers.1.self_attn.rotary_emb.cos_cached",
        "model.layers.1.self_attn.masked_bias",
        "model.position_ids",
        "model.layers.0.mlp.up_proj._extra_state",
        "v_head.summary.weight",
    ];
    let source = changed(
        "llama",
        |tensors| tensors.extend(spare.map(|name| (name.to_owned(), (vec![1.0; 2], vec![2])))),
        |_| {},
    );
    let (_, report, _root) = converted(source.path(), &[]).unwrap();
    let mut expected = spare.map(str::to_owned);
    expected.sort();
    assert_eq!(report.ignored, expected);
    let add = |tensors: &mut Tensors| drop(tensors.insert("lm_head.bias".to_owned(), (vec![1.0; 2], vec![2])));
    let error = converted(changed("llama", add, |_| {}).path(), &[]).unwrap_err();
    assert!(error.to_string().contains("not expected lm_head.bias"), "{error}");
}

#[test]
fn spare_names_of_an_index() {
    let directory = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden("qwen2_untied_sharded")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let path = directory.path().join(INDEX);
    let mut index = json::read(&path, json::MAX_BYTES).unwrap();
    let map = index["weight_map"].as_object_mut().unwrap();
    let file = map.values().next().unwrap().clone();
    map.insert("model.spare.weight".to_owned(), file);
    map.remove("model.norm.weight");
    fs::write(&path, index.to_string()).unwrap();
    let (_, report, _root) = converted(directory.path(), &[]).unwrap();
    assert_eq!(report.notes, [Note::SpareNames { names: vec!["model.spare.weight".to_owned()] }]);
    map_needed(&path);
    let error = converted(directory.path(), &[]).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

/// Takes the second shard out of the index.
fn map_needed(path: &Path) {
    let mut index = json::read(path, json::MAX_BYTES).unwrap();
    let map = index["weight_map"].as_object_mut().unwrap();
    map.retain(|_, file| file.as_str().is_some_and(|file| file.starts_with("model-00001")));
    fs::write(path, index.to_string()).unwrap();
}

#[test]
fn keys_are_refused_noted_or_ignored() {
    let source = changed(
        "llama",
        |_| {},
        |config| {
            config.insert("logit_scale".to_owned(), json!(0.5));
            config.insert("unsloth_fixed".to_owned(), json!(true));
            config.insert("architectures".to_owned(), json!(["MistralForCausalLM"]));
        },
    );
    let error = converted(source.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("`logit_scale` is 0.5") && !error.contains("unsloth"), "{error}");
    let (model, report, _root) = converted(source.path(), &["logit_scale", "elsewhere"]).unwrap();
    assert!(!model.model.config.contains_key("logit_scale"));
    let notes: Vec<String> = report.notes.iter().map(ToString::to_string).collect();
    assert_eq!(
        notes,
        [
            "ignored as --ignore-key says: logit_scale = 0.5",
            "--ignore-key names keys that the configuration does not have: elsewhere",
            "`architectures` is MistralForCausalLM, but `model_type` is llama; `model_type` counts",
            "configuration keys without a known meaning, which are not used: unsloth_fixed",
        ]
    );
}

/// What transformers 5 saves of the image processor, which counts, beside what older versions saved.
#[test]
fn image_processors() {
    let own = json::read(&golden("llava_1_5").join(processor::FILE), json::MAX_BYTES).unwrap();
    let source = changed("llava_1_5", |_| {}, |_| {});
    let all = source.path().join("processor_config.json");
    let carried = |model: &ModelDir| model.json(processor::FILE).unwrap().unwrap();

    // The file of its own alone, and beside one that says nothing of it.
    fs::write(&all, json!({"processor_class": "LlavaProcessor"}).to_string()).unwrap();
    assert_eq!(carried(&converted(source.path(), &[]).unwrap().0), own);
    // The nested one counts.
    let mut nested = own.clone();
    nested["image_mean"] = json!([0.1, 0.2, 0.3]);
    fs::write(&all, json!({"image_processor": nested, "processor_class": "LlavaProcessor"}).to_string()).unwrap();
    assert_eq!(carried(&converted(source.path(), &[]).unwrap().0), nested);
    fs::remove_file(source.path().join(processor::FILE)).unwrap();
    assert_eq!(carried(&converted(source.path(), &[]).unwrap().0), nested);
    // Keys of it can be ignored, too.
    nested["do_pad"] = json!(true);
    fs::write(&all, json!({"image_processor": nested}).to_string()).unwrap();
    let error = converted(source.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("`preprocessor_config.json: do_pad` is true"), "{error}");
    let (model, report, _root) = converted(source.path(), &["preprocessor_config.json: do_pad"]).unwrap();
    assert!(carried(&model).get("do_pad").is_none());
    assert_eq!(report.notes.len(), 1, "{:?}", report.notes);
    fs::remove_file(all).unwrap();
    let error = converted(source.path(), &[]).unwrap_err().to_string();
    assert!(error.contains("lacks preprocessor_config.json"), "{error}");
}
