//! `rtn` gives bit for bit the codes and scales in `tests/golden/quantization`, which numpy computed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dwindle_quant::{Method, encode_rows, read_floats, write_floats};
use dwindle_schemes::{FloatType, Format, Grouped, Role, Scheme};

/// A tensor of a safetensors file: type, shape, bytes.
struct Tensor {
    dtype: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

/// Reads trusted fixtures: 8 bytes of header length, JSON, data.
fn tensors(path: &str) -> BTreeMap<String, Tensor> {
    let bytes = fs::read(golden(path)).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
    let tensor = |value: &serde_json::Value| Tensor {
        dtype: value["dtype"].as_str().unwrap().to_owned(),
        shape: value["shape"].as_array().unwrap().iter().map(number).collect(),
        bytes: data[number(&value["data_offsets"][0])..number(&value["data_offsets"][1])].to_vec(),
    };
    header
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .map(|(name, value)| (name.clone(), tensor(value)))
        .collect()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let float = match tensor.dtype.as_str() {
        "F32" => FloatType::F32,
        "F16" => FloatType::F16,
        "BF16" => FloatType::Bf16,
        other => panic!("{other} is no float"),
    };
    let mut values = vec![0.0; tensor.shape.iter().product()];
    read_floats(float, &tensor.bytes, &mut values).unwrap();
    values
}

/// The words and the bytes of the scales.
fn rtn(tensor: &Tensor, grouped: &Grouped) -> (Vec<u8>, Vec<u8>) {
    let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
    let mut words = vec![0; rows * grouped.words(columns)];
    let mut scales = vec![0.0; rows * grouped.scales(columns)];
    encode_rows(&values(tensor), columns, grouped, Method::Rtn, &mut words, &mut scales).unwrap();
    let mut bytes = vec![0; scales.len() * grouped.scale.bytes()];
    write_floats(grouped.scale, &scales, &mut bytes).unwrap();
    (words.iter().flat_map(|word| word.to_le_bytes()).collect(), bytes)
}

/// The fixture's words with code 0 in the padding, as the format has it. The fixture quantized the zeros it padded with.
fn without_padding(codes: &Tensor, columns: usize, grouped: &Grouped) -> Vec<u8> {
    let per_row = grouped.words(columns);
    let mut bytes = Vec::new();
    for (index, word) in codes.bytes.as_chunks::<4>().0.iter().enumerate() {
        let first = index % per_row * grouped.unit_codes();
        let used = columns.saturating_sub(first).min(grouped.unit_codes()) as u32 * grouped.bits;
        let mask = ((1_u64 << used) - 1) as u32;
        let word = u32::from_le_bytes(*word);
        bytes.extend((word & mask).to_le_bytes());
    }
    bytes
}

#[test]
fn rtn_equals_the_golden_arrays() {
    let expected = tensors("quantization/expected.safetensors");
    let mut compared = 0;
    for model in ["qwen2", "gemma2"] {
        let weights = tensors(&format!("{model}/model.safetensors"));
        for (key, codes) in &expected {
            let Some(name) = key.strip_prefix(model).and_then(|key| key.strip_suffix(".q_weight")) else { continue };
            let (scheme, name) = name.trim_start_matches('.').split_once('.').unwrap();
            let role = if name.contains("embed_tokens") { Role::Embedding } else { Role::Linear };
            let Format::Grouped(grouped) = Scheme::builtin(scheme).unwrap().format(role) else {
                panic!("{scheme} does not quantize {name}");
            };
            let (words, scales) = rtn(&weights[name], &grouped);
            assert!(words == without_padding(codes, weights[name].shape[1], &grouped), "codes of {key}");
            assert!(scales == expected[&key.replace(".q_weight", ".q_scale")].bytes, "scales of {key}");
            compared += 1;
        }
    }
    let matrices = expected.keys().filter(|key| key.ends_with(".q_weight")).count();
    assert_eq!((compared, matrices), (12, 12));
}
