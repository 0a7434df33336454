//! What is told about directories that are not as MLC's tools write them; nothing is left at the output then.

use std::fmt::Write;
use std::fs;
use std::sync::OnceLock;

use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

const SHARD: &str = "params_shard_0.bin";

/// Lines of a message that are compared.
const MAX_SHOWN: usize = 5;

/// Tensors and configuration of the golden Gemma.
fn sound() -> &'static (Vec<Entry>, Value) {
    static MADE: OnceLock<(Vec<Entry>, Value)> = OnceLock::new();
    MADE.get_or_init(|| {
        let root = tempfile::tempdir().unwrap();
        let model = reference("gemma", "q4f16_1", "", root.path());
        (entries(&model, "q4f16_1"), chat_config("gemma", &model.model.config, "q4f16_1"))
    })
}

/// Imports what `change` makes of the directory, its index and its configuration; the error, or what was written.
fn import(change: &dyn Fn(&Path, &mut Value, &mut Value)) -> String {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("mlc");
    fs::create_dir(&directory).unwrap();
    let (entries, chat) = sound();
    write_entries(entries, index::NAMES[0], &directory);
    let index_path = directory.join(index::NAMES[0]);
    let mut index: Value = serde_json::from_slice(&fs::read(&index_path).unwrap()).unwrap();
    let mut chat = chat.clone();
    change(&directory, &mut index, &mut chat);
    if index_path.is_file() {
        fs::write(index_path, index.to_string()).unwrap();
    }
    fs::write(directory.join(config::NAME), chat.to_string()).unwrap();
    let out = root.path().join("out");
    match convert(&directory, &out, &Silent) {
        Ok((_, report)) => format!("{} tensors", report.tensors),
        Err(error) => {
            assert!(!out.exists());
            let text = error.to_string().replace(&root.path().display().to_string(), "DIR");
            let lines: Vec<&str> = text.lines().collect();
            let more = if lines.len() > MAX_SHOWN {
                format!("\n  … {} lines …", lines.len() - MAX_SHOWN)
            } else {
                String::new()
            };
            lines[..lines.len().min(MAX_SHOWN)].join("\n") + &more
        }
    }
}

#[track_caller]
fn check_index(changes: &[(&str, &dyn Fn(&mut Value))], expected: Expect) {
    let mut text = String::new();
    for (what, change) in changes {
        writeln!(text, "{what}: {}", import(&|_, index, _| change(index))).unwrap();
    }
    expected.assert_eq(&text);
}

#[track_caller]
fn check_chat(changes: &[(&str, &dyn Fn(&mut Value))], expected: Expect) {
    let mut text = String::new();
    for (what, change) in changes {
        writeln!(text, "{what}: {}", import(&|_, _, chat| change(chat))).unwrap();
    }
    expected.assert_eq(&text);
}

/// The record of a tensor.
fn record<'i>(index: &'i mut Value, name: &str) -> &'i mut Value {
    let shards = index["records"].as_array_mut().unwrap();
    let mut records = shards.iter_mut().flat_map(|shard| shard["records"].as_array_mut().unwrap());
    records.find(|record| record["name"] == name).unwrap()
}

fn remove(index: &mut Value, name: &str) {
    for shard in index["records"].as_array_mut().unwrap() {
        shard["records"].as_array_mut().unwrap().retain(|record| record["name"] != name);
    }
}

const CODES: &str = "model.layers.0.mlp.down_proj.q_weight";
const SCALES: &str = "model.layers.0.mlp.down_proj.q_scale";
const NORM: &str = "model.norm.weight";

#[test]
fn files() {
    let change = |change: &dyn Fn(&Path)| import(&|directory, _, _| change(directory));
    let mut text = String::new();
    let mut tell = |what: &str, error: String| writeln!(text, "{what}: {error}").unwrap();
    tell("sound", change(&|_| ()));
    tell("no shard", change(&|d| fs::remove_file(d.join(SHARD)).unwrap()));
    tell("no index", change(&|d| fs::remove_file(d.join(index::NAMES[0])).unwrap()));
    tell(
        "truncated",
        change(&|d| {
            let bytes = fs::read(d.join(SHARD)).unwrap();
            fs::write(d.join(SHARD), &bytes[1..]).unwrap();
        }),
    );
    tell(
        "flipped",
        change(&|d| {
            let mut bytes = fs::read(d.join(SHARD)).unwrap();
            bytes[100] ^= 1;
            fs::write(d.join(SHARD), bytes).unwrap();
        }),
    );
    expect![[r#"
        sound: 29 tensors
        no shard: DIR/mlc/tensor-cache.json: 1 of 4 shards are missing; download them too: params_shard_0.bin
        no index: DIR/mlc is not a checkpoint: it has mlc-chat-config.json, but neither tensor-cache.json nor ndarray-cache.json; download the weights too
        truncated: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
          - params_shard_0.bin has 19842 bytes, not 19843
        flipped: DIR/mlc does not fit its shards; download the checkpoint again:
          - params_shard_0.bin has the MD5 sum 8c4fd5c6d9d6a87296e62f0f8a3177d5, not 2ff793e16786eb4aa44ffc083ab8a9b8
    "#]].assert_eq(&text);
}

#[test]
fn shards() {
    check_index(
        &[
            ("no list", &|i| i["records"] = json!({})),
            ("no object", &|i| i["records"][0] = json!(7)),
            ("parent", &|i| i["records"][0]["dataPath"] = json!("../params_shard_0.bin")),
            ("absolute", &|i| i["records"][0]["dataPath"] = json!("/params_shard_0.bin")),
            ("empty", &|i| i["records"][0]["dataPath"] = json!("")),
            ("another format", &|i| i["records"][0]["format"] = json!("zstd")),
            ("no length", &|i| i["records"][0]["nbytes"] = json!(-1)),
            ("another length", &|i| i["records"][0]["nbytes"] = json!(u64::MAX)),
            ("no sum", &|i| i["records"][0]["md5sum"] = json!("0123")),
            ("another sum", &|i| i["records"][0]["md5sum"] = json!("00000000000000000000000000000000")),
            ("no records", &|i| i["records"][0]["records"] = json!(null)),
            ("twice", &|i| {
                let shard = json!({"dataPath": SHARD, "nbytes": i["records"][0]["nbytes"], "records": []});
                i["records"].as_array_mut().unwrap().push(shard);
            }),
            ("without sums", &|i| {
                i["records"].as_array_mut().unwrap().iter_mut().for_each(|shard| shard["md5sum"] = json!(null));
            }),
        ],
        expect![[r#"
            no list: DIR/mlc/tensor-cache.json: has no list `records`
            no object: DIR/mlc/tensor-cache.json: records[0]: expected an object
            parent: DIR/mlc/tensor-cache.json: records[0]: `dataPath` names no file of this directory
            absolute: DIR/mlc/tensor-cache.json: records[0]: `dataPath` names no file of this directory
            empty: DIR/mlc/tensor-cache.json: records[0]: `dataPath` names no file of this directory
            another format: DIR/mlc/tensor-cache.json: records[0]: the format of params_shard_0.bin is not raw-shard
            no length: DIR/mlc/tensor-cache.json: records[0]: `nbytes` of params_shard_0.bin is no number of bytes
            another length: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
              - params_shard_0.bin has 19843 bytes, not 18446744073709551615
            no sum: DIR/mlc/tensor-cache.json: records[0]: `md5sum` of params_shard_0.bin is no MD5 sum
            another sum: DIR/mlc does not fit its shards; download the checkpoint again:
              - params_shard_0.bin has the MD5 sum 2ff793e16786eb4aa44ffc083ab8a9b8, not 00000000000000000000000000000000
            no records: DIR/mlc/tensor-cache.json: records[0]: params_shard_0.bin has no list `records`
            twice: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
              - params_shard_0.bin is listed twice
            without sums: 29 tensors
        "#]],
    );
}

#[test]
fn records() {
    check_index(
        &[
            ("no object", &|i| i["records"][0]["records"][0] = json!([])),
            ("no name", &|i| i["records"][0]["records"][0] = json!({})),
            ("no shape", &|i| record(i, NORM)["shape"] = json!([-64])),
            ("text", &|i| record(i, NORM)["shape"] = json!(["64"])),
            ("fraction", &|i| record(i, NORM)["shape"] = json!([64.5])),
            ("huge shape", &|i| record(i, NORM)["shape"] = json!([1_u64 << 63, 1_u64 << 63])),
            ("zero", &|i| record(i, NORM)["shape"] = json!([0, 1_u64 << 63])),
            ("other bytes", &|i| record(i, NORM)["nbytes"] = json!(126)),
            ("no offset", &|i| record(i, NORM)["byteOffset"] = json!(1e30)),
            ("beyond", &|i| record(i, NORM)["byteOffset"] = json!(1_u64 << 40)),
            ("overflow", &|i| record(i, NORM)["byteOffset"] = json!(u64::MAX)),
            ("overlap", &|i| {
                let offset = record(i, CODES)["byteOffset"].as_u64().unwrap();
                record(i, SCALES)["byteOffset"] = json!(offset + 2);
            }),
            ("type", &|i| record(i, NORM)["dtype"] = json!("float8_e4m3fn")),
            ("no type", &|i| record(i, NORM)["dtype"] = json!(null)),
            ("encoding", &|i| record(i, NORM)["format"] = json!("f32-to-f8")),
            ("twice", &|i| record(i, NORM)["name"] = json!(CODES)),
            ("all wrong", &|i| {
                for shard in i["records"].as_array_mut().unwrap() {
                    for record in shard["records"].as_array_mut().unwrap() {
                        record["byteOffset"] = json!(1_u64 << 50);
                    }
                }
            }),
        ],
        expect![[r#"
            no object: DIR/mlc/tensor-cache.json: params_shard_0.bin, record 0: expected an object
            no name: DIR/mlc/tensor-cache.json: params_shard_0.bin, record 0: has no `name`
            no shape: DIR/mlc/tensor-cache.json: params_shard_3.bin, record 2: `shape` of `model.norm.weight` is no list of sizes
            text: DIR/mlc/tensor-cache.json: params_shard_3.bin, record 2: `shape` of `model.norm.weight` is no list of sizes
            fraction: DIR/mlc/tensor-cache.json: params_shard_3.bin, record 2: `shape` of `model.norm.weight` is no list of sizes
            huge shape: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
              - `model.norm.weight` of shape [9223372036854775808, 9223372036854775808] does not take 128 bytes
            zero: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
              - `model.norm.weight` of shape [0, 9223372036854775808] does not take 128 bytes
            other bytes: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
              - `model.norm.weight` of shape [64] does not take 126 bytes
            no offset: DIR/mlc/tensor-cache.json: params_shard_3.bin, record 2: `byteOffset` of `model.norm.weight` is no number of bytes
            beyond: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
              - `model.norm.weight` ends beyond its shard: 128 bytes at 1099511627776 of 7043
            overflow: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
              - `model.norm.weight` ends beyond its shard: 128 bytes at 18446744073709551615 of 7043
            overlap: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
              - `model.layers.0.mlp.down_proj.q_weight` and `model.layers.0.mlp.down_proj.q_scale` overlap in params_shard_0.bin
            type: tensor `model.norm.weight` is stored as float8_e4m3fn (f32-to-bf16): expected uint32, float16, bfloat16 or float32, raw or f32-to-bf16
            no type: tensor `model.norm.weight` is stored as  (f32-to-bf16): expected uint32, float16, bfloat16 or float32, raw or f32-to-bf16
            encoding: tensor `model.norm.weight` is stored as float16 (f32-to-f8): expected uint32, float16, bfloat16 or float32, raw or f32-to-bf16
            twice: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
              - `model.layers.0.mlp.down_proj.q_weight` is listed twice
            all wrong: DIR/mlc/tensor-cache.json does not fit its shards; download the checkpoint again:
              - `model.embed_tokens.q_weight` ends beyond its shard: 4096 bytes at 1125899906842624 of 19843
              - `model.embed_tokens.q_scale` ends beyond its shard: 512 bytes at 1125899906842624 of 19843
              - `model.layers.0.input_layernorm.weight` ends beyond its shard: 128 bytes at 1125899906842624 of 19843
              - `model.layers.0.mlp.down_proj.q_weight` ends beyond its shard: 3072 bytes at 1125899906842624 of 19843
              … 17 lines …
        "#]],
    );
}

#[test]
fn tensors() {
    check_index(
        &[
            ("without scales", &|i| remove(i, SCALES)),
            ("without codes", &|i| remove(i, CODES)),
            ("without norm", &|i| remove(i, NORM)),
            ("another tensor", &|i| record(i, NORM)["name"] = json!("model.norm.bias")),
            ("another layer", &|i| {
                for (name, part) in [(CODES, "q_weight"), (SCALES, "q_scale")] {
                    record(i, name)["name"] = json!(format!("model.layers.9.mlp.gate_up_proj.{part}"));
                }
            }),
            ("as floats", &|i| {
                remove(i, SCALES);
                record(i, CODES)["name"] = json!("model.layers.0.mlp.down_proj.weight");
            }),
            ("reshaped", &|i| record(i, CODES)["shape"] = json!([32, 24])),
            ("one dimension", &|i| record(i, CODES)["shape"] = json!([768])),
            ("half as many", &|i| {
                let codes = record(i, "model.layers.0.self_attn.qkv_proj.q_weight");
                (codes["shape"], codes["nbytes"]) = (json!([96, 8]), json!(96 * 8 * 4));
            }),
            ("codes of floats", &|i| {
                let codes = record(i, CODES);
                (codes["dtype"], codes["shape"]) = (json!("float16"), json!([64, 24]));
            }),
            ("scales of words", &|i| {
                let scales = record(i, SCALES);
                (scales["dtype"], scales["shape"]) = (json!("uint32"), json!([32, 3]));
            }),
            ("norm of words", &|i| {
                let norm = record(i, NORM);
                (norm["dtype"], norm["shape"]) = (json!("uint32"), json!([32]));
            }),
            ("for two devices", &|i| {
                record(i, CODES)["name"] = json!("model.layers.0.mlp.down_proj.q_weight_shard-0");
            }),
            ("two spellings", &|i| record(i, NORM)["name"] = json!("model.layers.0.mlp.down_proj.weight")),
        ],
        expect![[r#"
            without scales: DIR/mlc does not hold the tensors of a `gemma` model:
              missing      model.layers.0.mlp.down_proj.q_scale [64, 3]
            without codes: DIR/mlc does not hold the tensors of a `gemma` model:
              missing      model.layers.0.mlp.down_proj.q_weight [64, 12]
            without norm: DIR/mlc does not hold the tensors of a `gemma` model:
              missing      model.norm.weight [64]
            another tensor: DIR/mlc does not hold the tensors of a `gemma` model:
              missing      model.norm.weight [64]
              not expected model.norm.bias [64]
            another layer: DIR/mlc does not hold the tensors of a `gemma` model:
              missing      model.layers.0.mlp.down_proj.weight [64, 96]
              not expected model.layers.9.mlp.gate_up_proj.weight [64, 96]
            as floats: DIR/mlc does not hold the tensors of a `gemma` model:
              unsupported  model.layers.0.mlp.down_proj.weight is uint32; needs F32, F16 or BF16
            reshaped: DIR/mlc does not hold the tensors of a `gemma` model:
              misshapen    model.layers.0.mlp.down_proj.q_weight: needs [64, 12], has [32, 24]
            one dimension: DIR/mlc does not hold the tensors of a `gemma` model:
              misshapen    model.layers.0.mlp.down_proj.q_weight: needs [64, 12], has [768]
            half as many: DIR/mlc does not hold the tensors of a `gemma` model:
              misshapen    model.layers.0.self_attn.qkv_proj.q_weight: needs [192, 8], has [96, 8]
            codes of floats: DIR/mlc does not hold the tensors of a `gemma` model:
              not expected model.layers.0.mlp.down_proj.q_weight of f16 [64, 24]
            scales of words: DIR/mlc does not hold the tensors of a `gemma` model:
              unsupported  model.layers.0.mlp.down_proj.q_scale is uint32; needs F32, F16 or BF16
            norm of words: DIR/mlc does not hold the tensors of a `gemma` model:
              unsupported  model.norm.weight is uint32; needs F32, F16 or BF16
            for two devices: DIR/mlc is not a checkpoint: its tensors were cut for several devices (`model.layers.0.mlp.down_proj.q_weight_shard-0`); name weights that were stored whole
            two spellings: DIR/mlc does not hold the tensors of a `gemma` model:
              duplicate    model.layers.0.mlp.down_proj.weight is there under two names
        "#]],
    );
}

#[test]
fn quantizations() {
    let names = ["q4f16_autoawq", "q4f16_ft", "e4m3_e4m3_f16", "q4f16_3", "Q4F16_1"];
    let changes: Vec<_> =
        names.iter().map(|name| (*name, move |c: &mut Value| c["quantization"] = json!(name))).collect();
    let changes: Vec<(&str, &dyn Fn(&mut Value))> = changes.iter().map(|(name, f)| (*name, f as _)).collect();
    check_chat(
        &changes,
        expect![[r#"
            q4f16_autoawq: config key `quantization`: `q4f16_autoawq` has zero points in AutoAWQ's order; convert the AutoAWQ checkpoint that it was made from; q0f16, q0bf16, q0f32, q3f16_0, q3f16_1, q4f16_0, q4f16_1, q4f16_2, q4bf16_0, q4bf16_1, q4f32_1 can be imported
            q4f16_ft: config key `quantization`: `q4f16_ft` holds codes in an order made for one generation of GPUs; q0f16, q0bf16, q0f32, q3f16_0, q3f16_1, q4f16_0, q4f16_1, q4f16_2, q4bf16_0, q4bf16_1, q4f32_1 can be imported
            e4m3_e4m3_f16: config key `quantization`: `e4m3_e4m3_f16` has weights of 8-bit floats; q0f16, q0bf16, q0f32, q3f16_0, q3f16_1, q4f16_0, q4f16_1, q4f16_2, q4bf16_0, q4bf16_1, q4f32_1 can be imported
            q4f16_3: config key `quantization`: `q4f16_3` is not known; q0f16, q0bf16, q0f32, q3f16_0, q3f16_1, q4f16_0, q4f16_1, q4f16_2, q4bf16_0, q4bf16_1, q4f32_1 can be imported
            Q4F16_1: config key `quantization`: `Q4F16_1` is not known; q0f16, q0bf16, q0f32, q3f16_0, q3f16_1, q4f16_0, q4f16_1, q4f16_2, q4bf16_0, q4bf16_1, q4f32_1 can be imported
        "#]],
    );
    check_chat(
        &[
            ("transposed", &|c| c["quantization"] = json!("q4f16_0")),
            ("floats", &|c| c["quantization"] = json!("q0f16")),
        ],
        expect![[r#"
            transposed: DIR/mlc does not hold the tensors of a `gemma` model:
              misshapen    model.layers.0.mlp.down_proj.q_scale: needs [3, 64], has [64, 3]
              misshapen    model.layers.0.mlp.down_proj.q_weight: needs [12, 64], has [64, 12]
              misshapen    model.layers.0.mlp.gate_up_proj.q_scale: needs [2, 192], has [192, 2]
              misshapen    model.layers.0.mlp.gate_up_proj.q_weight: needs [8, 192], has [192, 8]
              … 20 lines …
            floats: DIR/mlc does not hold the tensors of a `gemma` model:
              not expected model.embed_tokens.q_weight [128, 8]
              not expected model.layers.0.mlp.down_proj.q_weight [64, 12]
              not expected model.layers.0.mlp.gate_up_proj.q_weight [192, 8]
              not expected model.layers.0.self_attn.o_proj.q_weight [64, 16]
              … 9 lines …
        "#]],
    );
}

#[test]
fn configurations() {
    let without = |c: &mut Value, key: &str| drop(c["model_config"].as_object_mut().unwrap().remove(key));
    check_chat(
        &[
            ("no family", &|c| c["model_type"] = json!(null)),
            ("no quantization", &|c| c["quantization"] = json!(4)),
            ("no model", &|c| c["model_config"] = json!([])),
            ("another family", &|c| c["model_type"] = json!("rwkv6")),
            ("no sizes", &|c| ["hidden_size", "head_dim", "num_hidden_layers"].iter().for_each(|key| without(c, key))),
            ("sizes of the file", &|c| without(c, "vocab_size")),
            ("hostile size", &|c| c["model_config"]["num_hidden_layers"] = json!(u64::MAX)),
            ("fraction", &|c| c["model_config"]["intermediate_size"] = json!(0.5)),
            ("other rows", &|c| c["model_config"]["vocab_size"] = json!(127)),
            ("unknown key", &|c| c["model_config"]["logit_scale"] = json!(2.0)),
            ("window", &|c| {
                (c["model_type"], c["sliding_window_size"]) = (json!("mistral"), json!(null));
                c.as_object_mut().unwrap().remove("sliding_window_size");
            }),
            ("gemma 3", &|c| c["model_type"] = json!("gemma3_text")),
            ("llava", &|c| c["model_type"] = json!("llava")),
            ("llava without size", &|c| {
                c["model_type"] = json!("llava");
                c["model_config"] = json!({"text_config": {}, "vision_config": {"image_size": "336"}});
            }),
            ("llava of mistral", &|c| {
                let sizes = json!({"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2,
                    "num_hidden_layers": 1, "num_key_value_heads": 2, "sliding_window_size": -1, "image_size": 28,
                    "patch_size": 14});
                c["model_type"] = json!("llava");
                c["model_config"] = json!({"text_config": sizes, "vision_config": sizes, "image_token_index": 1,
                    "vocab_size": 9, "text_architecture": "MistralForCausalLM"});
            }),
        ],
        expect![[r#"
            no family: DIR/mlc/mlc-chat-config.json: has no text `model_type`
            no quantization: DIR/mlc/mlc-chat-config.json: has no text `quantization`
            no model: DIR/mlc/mlc-chat-config.json: has no object `model_config`
            another family: DIR/mlc: model_type `rwkv6` is not supported: expected one of gemma, gemma2, gemma3_text, llama, llava, llava_onevision, mistral, phi3, qwen2, qwen3; compiler/src/arch/README.md says how to add one
            no sizes: DIR/mlc: gemma: the configuration lacks hidden_size, num_hidden_layers; complete it, or download it again
            sizes of the file: 29 tensors
            hostile size: DIR/mlc: gemma: unsupported configuration:
              - `num_hidden_layers` is 18446744073709551615: expected a whole number from 1 to 1024
            Use a checkpoint without it, or add support in compiler/src/arch
            fraction: DIR/mlc: gemma: unsupported configuration:
              - `intermediate_size` is 0.5: expected a whole number from 1 to 131072
            Use a checkpoint without it, or add support in compiler/src/arch
            other rows: DIR/mlc does not hold the tensors of a `gemma` model:
              misshapen    model.embed_tokens.q_scale: needs [127, 2], has [128, 2]
              misshapen    model.embed_tokens.q_weight: needs [127, 8], has [128, 8]
            unknown key: DIR/mlc: gemma: unsupported configuration:
              - `logit_scale` is 2.0: expected no such key, since its meaning is not implemented
            Use a checkpoint without it, or add support in compiler/src/arch
            window: DIR/mlc/mlc-chat-config.json: model_config has no `sliding_window_size`
            gemma 3: DIR/mlc/mlc-chat-config.json: model_config has no object `text_config`
            llava: DIR/mlc/mlc-chat-config.json: model_config has no object `text_config`
            llava without size: DIR/mlc/mlc-chat-config.json: model_config.vision_config has no number `image_size`
            llava of mistral: DIR/mlc: llava: unsupported configuration:
              - `text_config.model_type` is "mistral": expected "llama"
              - `text_config.image_size` is 28: expected no such key, since its meaning is not implemented
              - `text_config.patch_size` is 14: expected no such key, since its meaning is not implemented
              - `vision_config.num_key_value_heads` is 2: expected no such key, since its meaning is not implemented
              … 2 lines …
        "#]],
    );
}
