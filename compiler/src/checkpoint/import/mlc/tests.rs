//! Imported models against the same checkpoints quantized here.

mod malformed;

use std::path::Path;

use dwindle_quant::{Method, decode_rows, encode_rows};
use dwindle_schemes::Scheme;
use half::{bf16, f16};
use tempfile::TempDir;

use super::fixture::{Entry, chat_config, entries, publish, write_entries};
use super::*;
use crate::arch;
use crate::arch::Function;
use crate::arch::golden::{Expected, Memory, Model, check};
use crate::checkpoint::fixture::{Given, checkpoint, golden};
use crate::checkpoint::safetensors::Element;
use crate::checkpoint::{ModelDir, Source, convert, names as spellings};
use crate::progress::Silent;
use crate::quantize::quantize;

/// The scheme that stores as a mode of MLC does.
fn scheme(mode: &str, tower: &str) -> Scheme {
    let (float, kv) = if mode.contains("f32") { ("f32", "f32") } else { ("f16", "f16") };
    let scale = if mode.contains("bf16") { "f32" } else { float };
    let packed = match mode.as_bytes()[1] {
        b'3' => format!("q3g40{scale}"),
        _ => format!("q4g32{scale}"),
    };
    let tower = if tower.is_empty() { &packed } else { tower };
    let text = format!(
        "name = \"{mode}\"\nsummary = \"\"\nkv = \"{kv}\"\n[formats]\nembedding = \"{packed}\"\nhead = \"{packed}\"\n\
        linear = \"{packed}\"\nprojector = \"{packed}\"\nvision_linear = \"{tower}\"\npatch_embedding = \"{float}\"\n"
    );
    Scheme::parse(&text).unwrap()
}

/// What of a float survives in MLC's files: of all of them in models that are not packed, else of those beside matrices.
fn rounded(mode: &str, name: &str, gemma: bool, values: &mut [f32]) {
    let one = if gemma && name.ends_with("norm.weight") { 1.0 } else { 0.0 };
    for value in values {
        let sum = *value + one;
        *value = if mode.contains("bf16") || mode.contains("f32") {
            bf16::from_f32(sum).to_f32()
        } else {
            f16::from_f32(sum).to_f32()
        } - one;
    }
}

/// A golden checkpoint whose floats survive publication, converted, and quantized unless the mode has floats only.
fn reference(family: &str, mode: &str, tower: &str, root: &Path) -> ModelDir {
    let source = Source::open(&golden(family)).unwrap();
    let packed = !mode.starts_with("q0");
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for (_, view) in source.tensors() {
        let name = spellings::canonical(view.name, source.outline().is_multimodal()).into_owned();
        let mut values = view.to_f32().unwrap();
        let quantized = packed && view.shape.len() == 2 && !name.contains("position_embedding");
        if !quantized || (!tower.is_empty() && name.starts_with("vision_tower")) {
            rounded(mode, &name, source.outline().model_type().starts_with("gemma"), &mut values);
        }
        tensors.push((name, view.shape.to_vec(), values));
    }
    let given: Vec<Given<'_>> =
        tensors.iter().map(|(name, shape, values)| (&**name, Element::F32, &**shape, values.clone())).collect();
    let directory = checkpoint(&Value::Object(source.outline().config().clone()), &given);
    let preprocessor = golden(family).join("preprocessor_config.json");
    if preprocessor.is_file() {
        std::fs::copy(preprocessor, directory.path().join("preprocessor_config.json")).unwrap();
    }
    let (model, _) = convert(directory.path(), &root.join("full"), &Silent).unwrap();
    if !packed {
        return model;
    }
    let out = root.join("packed");
    quantize(&model, &scheme(mode, tower), Method::Rtn, &out, &Silent).unwrap();
    ModelDir::open(&out).unwrap()
}

/// The bytes that a stored tensor of the reference becomes: scales of 32 bits lose half of them.
fn expected(name: &str, mode: &str, bytes: &[u8]) -> Vec<u8> {
    if !name.ends_with(".scales") || !(mode.contains("f32") || mode.contains("bf16")) {
        return bytes.to_vec();
    }
    let scales = bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
    scales.flat_map(|scale| bf16::from_f32(scale).to_f32().to_le_bytes()).collect()
}

fn logits(model: &ModelDir, mode: &str, tokens: &[u32]) -> Vec<f32> {
    let preprocessor = model.json("preprocessor_config.json").unwrap();
    let family = arch::parse(&model.model.family, &model.model.config, preprocessor.as_ref()).unwrap();
    let memory = Memory::of(model, &|name, bytes| expected(name, mode, bytes));
    Model::new(family.as_ref(), &memory).call(Function::Score, tokens, 0, &[]).floats("logits").unwrap().to_vec()
}

/// Publishes, imports, and compares every stored byte, and the logits of what the configurations describe.
fn round_trip(family: &str, mode: &str, tower: &str) -> (TempDir, ModelDir) {
    let root = tempfile::tempdir().unwrap();
    let reference = reference(family, mode, tower, root.path());
    let published = root.path().join("published");
    std::fs::create_dir(&published).unwrap();
    let index = index::NAMES[usize::from(mode.ends_with('0'))];
    publish(&reference, mode, index, &published);
    let (model, report) = convert(&published, &root.path().join("out"), &Silent).unwrap();
    let what = format!("{family} {mode}");
    assert_eq!(report.ignored, [""; 0], "{what}");
    assert_eq!(model.model.tensors.keys().collect::<Vec<_>>(), reference.model.tensors.keys().collect::<Vec<_>>());
    for (name, info) in &reference.model.tensors {
        if mode.starts_with("q0") {
            let [found, expected] = [&model, &reference].map(|model| model.tensor(name).unwrap().to_f32().unwrap());
            assert!(found == expected, "{what}: {name}");
            continue;
        }
        assert_eq!(&model.model.tensors[name], info, "{what}: {name}");
        for (stored, ..) in info.stored(name) {
            let [found, given] = [&model, &reference].map(|model| model.tensor(&stored).unwrap());
            assert!(found.bytes == expected(&stored, mode, given.bytes), "{what}: {stored}");
        }
    }
    let packed = !mode.starts_with("q0");
    assert_eq!(model.scheme(), packed.then_some(mode), "{what}");
    assert_eq!(model.model.method.as_deref(), packed.then_some("imported"), "{what}");
    assert_eq!(model.model.kv, packed.then(|| if mode.contains("f32") { FloatType::F32 } else { FloatType::F16 }));
    let tokens: Vec<u32> = (0..24).map(|at| (at * 37 + 5) % 100).collect();
    let scales_lose = if mode.contains("bf16") { "bf16" } else { mode };
    assert_eq!(logits(&model, "", &tokens), logits(&reference, scales_lose, &tokens), "{what}");
    (root, model)
}

#[test]
fn every_family() {
    for family in
        ["gemma", "gemma2", "gemma3_text", "qwen2", "qwen2_untied_sharded", "qwen3", "llama", "mistral", "phi3"]
    {
        let (_root, model) = round_trip(family, "q4f16_1", "");
        let context = model.model.config.get("max_position_embeddings").and_then(Value::as_u64);
        assert_eq!(context, (family != "gemma2").then_some(256), "{family}");
        assert_eq!(model.model.config["eos_token_id"], serde_json::json!([1, 2]));
    }
}

#[test]
fn every_mode() {
    for mode in mode::MODES.iter().map(|mode| mode.name).filter(|mode| *mode != "q4f16_2") {
        round_trip("gemma", mode, "");
        round_trip("qwen2_untied_sharded", mode, "");
        round_trip("llava_1_5", mode, if mode.contains("f32") { "f32" } else { "f16" });
    }
}

/// Older weights have a packed vision tower; positions, too, which are stored as floats here.
#[test]
fn packed_towers() {
    round_trip("llava_1_5", "q3f16_1", "");
    round_trip("llava_1_5", "q4f16_0", "");

    let root = tempfile::tempdir().unwrap();
    let reference = reference("llava_1_5", "q4f16_0", "", root.path());
    publish(&reference, "q4f16_0", index::NAMES[0], root.path());
    let mut entries = entries(&reference, "q4f16_0");
    let base = "vision_tower.vision_model.embeddings.position_embedding";
    let at = entries.iter().position(|entry| entry.name == format!("{base}.weight")).unwrap();
    let positions = entries.remove(at);
    let (rows, columns) = (positions.shape[0], positions.shape[1]);
    let grouped = "q4g32f16".parse().unwrap();
    let Format::Grouped(grouped) = grouped else { unreachable!() };
    let values: Vec<f32> = positions.bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect();
    let mut words = vec![0; rows * grouped.words(columns)];
    let mut scales = vec![0.0; rows * grouped.groups(columns)];
    encode_rows(&values, columns, &grouped, Method::Rtn, &mut words, &mut scales).unwrap();
    let mut decoded = vec![0.0; values.len()];
    decode_rows(&words, &scales, columns, &grouped, &mut decoded).unwrap();
    let entry = |name: &str, width, dtype, bytes| Entry {
        name: format!("{base}.{name}"),
        shape: vec![rows, width],
        dtype,
        bytes,
    };
    let scales = scales.iter().flat_map(|scale| f16::from_f32(*scale).to_le_bytes()).collect();
    let words: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    entries.push(entry("q_weight", grouped.words(columns), "uint32", words));
    entries.push(entry("q_scale", grouped.groups(columns), "float16", scales));
    // What a tower holds beyond the layer that is used.
    let unused = "vision_tower.vision_model.encoder.layers.2.mlp.fc1";
    for (name, width, dtype) in [("q_weight", 4, "uint32"), ("q_scale", 1, "float16")] {
        let bytes = vec![0; 64 * width * if dtype == "uint32" { 4 } else { 2 }];
        entries.push(Entry { name: format!("{unused}.{name}"), shape: vec![width, 64], dtype, bytes });
    }
    write_entries(&entries, index::NAMES[0], root.path());
    let (model, report) = convert(root.path(), &root.path().join("out"), &Silent).unwrap();
    assert_eq!(report.ignored, [format!("{unused}.weight")]);
    let found = model.tensor(&format!("{base}.weight")).unwrap();
    assert_eq!((found.dtype, found.to_f32().unwrap()), (Element::F32, decoded));
}

/// Embedding and head as floats beside packed layers.
#[test]
fn floats_beside_packed_layers() {
    let root = tempfile::tempdir().unwrap();
    let reference = reference("llama", "q4f16_1", "", root.path());
    publish(&reference, "q4f16_2", index::NAMES[0], root.path());
    let mut entries = entries(&reference, "q4f16_2");
    entries.retain(|entry| !["lm_head", "model.embed_tokens"].iter().any(|name| entry.name.starts_with(name)));
    let plain = ModelDir::open(&root.path().join("full")).unwrap();
    for name in ["lm_head.weight", "model.embed_tokens.weight"] {
        let view = plain.tensor(name).unwrap();
        let bytes = view.to_f32().unwrap().iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
        entries.push(Entry { name: name.to_owned(), shape: view.shape.to_vec(), dtype: "float16", bytes });
    }
    write_entries(&entries, index::NAMES[0], root.path());
    let (model, _) = convert(root.path(), &root.path().join("out"), &Silent).unwrap();
    assert_eq!(model.scheme(), Some("q4f16_2"));
    assert_eq!(model.format("lm_head.weight"), Some(Format::Plain(FloatType::F16)));
    let found = model.tensor("model.embed_tokens.weight").unwrap().to_f32().unwrap();
    let stored = plain.tensor("model.embed_tokens.weight").unwrap().to_f32().unwrap();
    assert!(found.iter().zip(&stored).all(|(found, stored)| *found == f16::from_f32(*stored).to_f32()));
}

/// Against transformers with the same codes and scales; the vectors were rounded to f16 on the way, which changes logits by
/// a thousandth of their range.
#[test]
fn golden_logits() {
    let golden_logits = Expected::load("quantization");
    for (family, mode) in [("qwen2", "q4f16_1"), ("qwen2", "q3f16_1"), ("gemma2", "q4f16_1")] {
        let (_root, model) = round_trip(family, mode, "");
        let tokens = Expected::load(family).integers("input_ids");
        let key = format!("{family}.{mode}.logits");
        check(&key, &logits(&model, "", &tokens), &golden_logits.floats(&key), 5e-3);
    }
}

/// What MLC's runtime does and the files of a checkpoint would say.
#[test]
fn carried_files() {
    let (_root, model) = round_trip("llava_1_5", "q4f16_1", "f16");
    let published: Value =
        serde_json::from_slice(&std::fs::read(golden("llava_1_5/preprocessor_config.json")).unwrap()).unwrap();
    let made = model.json("preprocessor_config.json").unwrap().unwrap();
    for (key, value) in made.as_object().unwrap() {
        assert_eq!(value, &published[key], "{key}");
    }
    let generation = model.json("generation_config.json").unwrap().unwrap();
    assert_eq!(generation["temperature"], 0.7);
    let names: Vec<_> = model.model.sources.iter().map(|source| &*source.name).collect();
    assert_eq!(names[..3], ["mlc-chat-config.json", "tensor-cache.json", "params_shard_0.bin"]);
}

#[test]
fn phi3_says_that_its_window_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let reference = reference("phi3", "q4f16_1", "", root.path());
    publish(&reference, "q4f16_1", index::NAMES[0], root.path());
    let (_, report) = convert(root.path(), &root.path().join("out"), &Silent).unwrap();
    assert!(report.warnings.iter().any(|warning| warning.contains("does not tell its window")), "{report:?}");
}

/// The same bytes from one thread and from two.
#[test]
fn bytes_do_not_depend_on_threads() {
    let root = tempfile::tempdir().unwrap();
    let reference = reference("qwen2", "q3f16_0", "", root.path());
    publish(&reference, "q3f16_0", index::NAMES[0], root.path());
    let import = |threads: usize| {
        let out = root.path().join(threads.to_string());
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| convert(root.path(), &out, &Silent)).unwrap();
        crate::checkpoint::fixture::contents(&out)
    };
    assert_eq!(import(1), import(2));
}

/// Gemma 3 as the model that sees is published without its tower, and is the same language model.
#[test]
fn gemma3_is_a_language_model() {
    let config = golden("gemma3_text");
    let source = Source::open(&config).unwrap();
    let mut chat = chat_config("gemma3_text", source.outline().config(), "q4f16_1");
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join(config::NAME);
    let read = |chat: &Value| {
        std::fs::write(&path, chat.to_string()).unwrap();
        let chat = ChatConfig::read(&path).unwrap();
        (chat.family, chat.config)
    };
    let text = read(&chat);
    chat["model_type"] = "gemma3".into();
    assert_eq!(read(&chat), text);
    assert_eq!(text.1["sliding_window_pattern"], 3);
    assert_eq!(text.1["rope_local_base_freq"], 10000.0);
}
