//! Values and logits of imported models.

use std::collections::BTreeMap;

use dwindle_schemes::{FloatType, Format};
use half::f16;

use super::model::{FAMILIES, Golden, import};
use super::writer::{Gguf, PACKED, Storage};
use crate::arch::golden::{Expected, Memory, Model, check};
use crate::arch::{Function, parse};
use crate::checkpoint::ModelDir;
use crate::checkpoint::model_dir::matrix;

/// As for the checkpoints themselves.
const TOLERANCE: f32 = 1e-4;

fn logits(model: &ModelDir, tokens: &[u32]) -> Vec<f32> {
    let family = parse(&model.model.family, &model.model.config, None).unwrap();
    let memory = Memory::of(model, &|_, bytes| bytes.to_vec());
    let mut model = Model::new(family.as_ref(), &memory);
    model.call(Function::Score, tokens, 0, &[]).floats("logits").unwrap().to_vec()
}

fn imported(gguf: &Gguf) -> (tempfile::TempDir, ModelDir) {
    let (root, model) = import(gguf);
    (root, model.unwrap().0)
}

/// The value of each code, by the definition of the layout.
fn values(model: &ModelDir, name: &str) -> Vec<f32> {
    let info = &model.model.tensors[name];
    let Format::Grouped(grouped) = info.format else { return model.tensor(name).unwrap().to_f32().unwrap() };
    let (rows, columns) = matrix(&info.shape);
    let codes = model.tensor(&format!("{name}.codes")).unwrap().bytes;
    let words: Vec<u32> = codes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    let scales = model.tensor(&format!("{name}.scales")).unwrap().to_f32().unwrap();
    let value = |row: usize, column: usize| {
        let code = grouped.code(&words[row * grouped.words(columns)..], column) as f32;
        let group = row * grouped.scales(columns) + column / grouped.group * grouped.scales_per_group();
        match grouped.constant_zero() {
            Some(zero) => (code - zero as f32) * scales[group],
            None => code * scales[group] + scales[group + 1],
        }
    };
    (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))).map(|(r, c)| value(r, c)).collect()
}

/// Floats give the logits of the checkpoint: names, rows, norms, configuration are those that it had.
#[test]
fn floats_give_the_golden_logits() {
    for (name, _) in FAMILIES {
        let expected = Expected::load(name);
        let (_root, model) = imported(&Golden::load(name).gguf(Storage::F32));
        assert_eq!(model.scheme(), None, "{name} can be quantized");
        assert_eq!(model.model.sources.len(), 1);
        let found = logits(&model, &expected.integers("input_ids"));
        check(name, &found, &expected.floats("logits"), TOLERANCE);
    }
}

/// The goldens notice rows that stay in pairs, norms that keep their 1, and frequencies that are not divided.
#[test]
fn what_the_converter_did_has_to_be_undone() {
    for (name, change) in [("llama", "attn_q.weight"), ("gemma2", "ffn_norm.weight"), ("llama", "rope_freqs.weight")] {
        let (golden, expected) = (Golden::load(name), Expected::load(name));
        let mut gguf = golden.gguf(Storage::F32);
        for (tensor, _, _, bytes) in &mut gguf.tensors {
            if !tensor.ends_with(change) {
                continue;
            }
            let mut values = Storage::F32.decode(bytes);
            match change {
                "attn_q.weight" => values.clone_from(&golden.tensors["model.layers.0.self_attn.q_proj.weight"].1),
                "ffn_norm.weight" => values.iter_mut().for_each(|value| *value -= 1.0),
                _ => values.fill(1.0),
            }
            *bytes = Storage::F32.encode(&values);
        }
        let (_root, model) = imported(&gguf);
        let found = logits(&model, &expected.integers("input_ids"));
        let difference = crate::arch::golden::difference(&found, &expected.floats("logits"));
        assert!(difference > 100.0 * TOLERANCE, "{name} {change}: {difference}");
    }
}

/// The same values as floats, which the test above proves to be imported right.
fn unpacked(gguf: &Gguf) -> Gguf {
    let mut plain = gguf.clone();
    for (_, kind, _, bytes) in &mut plain.tensors {
        let all = PACKED.into_iter().chain([Storage::F16, Storage::Bf16, Storage::F32]);
        let from = all.into_iter().find(|storage| storage.number() == *kind).unwrap();
        (*kind, *bytes) = (Storage::F32.number(), Storage::F32.encode(&from.decode(bytes)));
    }
    plain
}

/// Codes and scales are repacked, not computed: each value is what ggml's formula gives, and the logits are those of a checkpoint of
/// these values.
#[test]
fn packed_values_are_kept_exactly() {
    for (name, _) in FAMILIES {
        let golden = Golden::load(name);
        for (storage, scheme) in [(Storage::Q5_1, "gguf_q5_1"), (Storage::Q8_0, "gguf_q8_0")] {
            let packed = golden.gguf(storage);
            let (_root, model) = imported(&packed);
            assert_eq!(model.scheme(), Some(scheme));
            assert_eq!((model.model.method.as_deref(), model.model.kv), (Some("imported"), Some(FloatType::F16)));
            let (_root, plain) = imported(&unpacked(&packed));
            let mut grouped = 0;
            for (tensor, info) in &model.model.tensors {
                assert_eq!(values(&model, tensor), values(&plain, tensor), "{name} {tensor}");
                grouped += usize::from(matches!(info.format, Format::Grouped(_)));
            }
            assert!(grouped > model.model.tensors.len() / 3, "{name}: {grouped}");
            let tokens = Expected::load(name).integers("input_ids");
            check(&format!("{name} {scheme}"), &logits(&model, &tokens), &logits(&plain, &tokens), 1e-5);
        }
    }
}

/// Greatest less least value.
fn range(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::MIN, f32::max) - values.iter().copied().fold(f32::MAX, f32::min)
}

/// Each type in a model that is wide enough for it: values and logits are those of the dequantized weights, exactly where the
/// card says so, and else up to the rounding of scales that it tells of.
#[test]
fn every_type() {
    let golden = Golden::wide();
    let tokens: Vec<u32> = (0..12).map(|i| i * 37 % 128).collect();
    for storage in PACKED {
        let packed = golden.gguf(storage);
        let (_root, model) = imported(&packed);
        let (_root, plain) = imported(&unpacked(&packed));
        assert_eq!(model.scheme(), Some(format!("gguf_{}", storage.name().to_lowercase()).as_str()));
        let card = model.model.card.as_ref().unwrap();
        let packed = model.model.tensors.iter().filter(|(_, info)| matches!(info.format, Format::Grouped(_)));
        assert_eq!(packed.count(), card.tensors.len(), "{storage:?}: all matrices");
        let mut largest = 0.0_f32;
        for (tensor, card) in &card.tensors {
            assert_eq!(card.source.as_deref(), Some(storage.name().as_str()), "{tensor}");
            let (found, expected) = (values(&model, tensor), values(&plain, tensor));
            let most = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(f64::from(most) <= card.max_error * 1.01 + 1e-9, "{storage:?} {tensor}: {most} {}", card.max_error);
            assert!(card.snr_db.is_none_or(|snr| snr > 60.0), "{storage:?} {tensor}: {:?}", card.snr_db);
            largest = largest.max(most);
        }
        let is_exact = card.tensors.values().all(|card| card.snr_db.is_none());
        assert_eq!(largest == 0.0, is_exact, "{storage:?}");
        let (found, expected) = (logits(&model, &tokens), logits(&plain, &tokens));
        let tolerance = if is_exact { 1e-5 } else { 2e-3 * range(&expected) };
        check(&format!("{storage:?}"), &found, &expected, tolerance);
    }
}

/// Tensors whose rows are no whole blocks have other types in published files, also within one layer.
#[test]
fn published_mixes() {
    let golden = Golden::wide();
    let mut gguf = golden.gguf(Storage::Q4K);
    let others = [
        ("blk.0.attn_v.weight", Storage::Q8_0),
        ("blk.0.attn_k.weight", Storage::Q5_0),
        ("blk.0.ffn_up.weight", Storage::Iq4Nl),
        ("blk.0.ffn_down.weight", Storage::Q6K),
        ("token_embd.weight", Storage::Q6K),
        ("output.weight", Storage::Q8_0),
        ("blk.0.attn_output.weight", Storage::F16),
    ];
    for (name, storage) in others {
        let tensor = golden.gguf(storage).tensors.into_iter().find(|tensor| tensor.0 == name).unwrap();
        *gguf.tensors.iter_mut().find(|tensor| tensor.0 == name).unwrap() = tensor;
    }
    let (_root, model) = imported(&gguf);
    let (_root, plain) = imported(&unpacked(&gguf));
    let tokens: Vec<u32> = (0..12).map(|i| i * 37 % 128).collect();
    let expected = logits(&plain, &tokens);
    check("mix", &logits(&model, &tokens), &expected, 2e-3 * range(&expected));
    let card = model.model.card.as_ref().unwrap().to_string();
    for line in [
        "F16     as f16          kept exactly  (1 matrices)",
        "IQ4_NL  as q8g32f16z128  kept exactly  (1 matrices)",
        "Q4_K    as q4g32f16m    codes kept, scales rounded: ",
        "Q5_0    as q5g32f16z16  kept exactly  (1 matrices)",
        "Q6_K    as q6g16f16z32  codes kept, scales rounded: ",
        "Q8_0    as q8g32f16z128  kept exactly  (2 matrices)",
    ] {
        assert!(card.contains(line), "{line:?} is not in\n{card}");
    }
}

#[test]
fn floats_of_16_bits() {
    for (storage, stored) in [(Storage::F16, FloatType::F16), (Storage::Bf16, FloatType::Bf16)] {
        let golden = Golden::load("qwen2");
        let gguf = golden.gguf(storage);
        let (_root, model) = imported(&gguf);
        let name = "model.layers.1.mlp.down_proj.weight";
        assert_eq!(model.format(name), Some(Format::Plain(stored)));
        assert_eq!(values(&model, name), storage.decode(&storage.encode(&golden.tensors[name].1)));
    }
}

/// Beside packed matrices bf16 becomes f16, for which there are kernels; a head of another type than the rest stays so.
#[test]
fn mixed_types() {
    let golden = Golden::load("llama");
    let mut gguf = golden.gguf(Storage::Q4_0);
    let plain: BTreeMap<_, _> = golden.gguf(Storage::Bf16).tensors.into_iter().map(|t| (t.0.clone(), t)).collect();
    let fine: BTreeMap<_, _> = golden.gguf(Storage::Q8_0).tensors.into_iter().map(|t| (t.0.clone(), t)).collect();
    for tensor in &mut gguf.tensors {
        match tensor.0.as_str() {
            "token_embd.weight" => *tensor = plain["token_embd.weight"].clone(),
            "output.weight" => *tensor = fine["output.weight"].clone(),
            _ => {}
        }
    }
    let (_root, model) = imported(&gguf);
    let formats = ["model.embed_tokens.weight", "lm_head.weight", "model.layers.0.self_attn.q_proj.weight"];
    let formats = formats.map(|name| model.format(name).unwrap().to_string());
    assert_eq!(formats, ["f16", "q8g32f16z128", "q4g32f16z8"]);
    assert_eq!(model.scheme(), Some("gguf_q4_0"));
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let gguf = Golden::load("llama").gguf(Storage::Q4_0);
    let convert = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (_root, model) = pool.install(|| imported(&gguf));
        crate::checkpoint::fixture::contents(model.path())
    };
    assert_eq!(convert(1), convert(2));
}

/// A scale that is no number would spoil 32 values.
#[test]
fn scales_are_numbers() {
    let mut gguf = Golden::load("qwen2").gguf(Storage::Q4_0);
    let tensor = gguf.tensors.iter_mut().find(|tensor| tensor.0 == "blk.0.attn_v.weight").unwrap();
    tensor.3[18..20].copy_from_slice(&f16::INFINITY.to_le_bytes());
    let (root, model) = import(&gguf);
    expect_test::expect![
        "tensor `model.layers.0.self_attn.v_proj.weight`: 32 values are infinite or NaN; the checkpoint is damaged, download it again"
    ]
    .assert_eq(&model.unwrap_err().to_string());
    let left = std::fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name != "model.gguf").count(), 0, "nothing is left");
}

/// An exponent that f16 cannot hold makes scales of 32 bits, of that tensor only.
#[test]
fn scales_of_32_bits() {
    let mut gguf = Golden::load("qwen2").gguf(Storage::Mxfp4);
    let tensor = gguf.tensors.iter_mut().find(|tensor| tensor.0 == "blk.0.attn_v.weight").unwrap();
    (tensor.3[0], tensor.3[1]) = (90, 0x35);
    let (_root, model) = imported(&gguf);
    let (_root, plain) = imported(&unpacked(&gguf));
    let names = ["model.layers.0.self_attn.v_proj.weight", "model.layers.1.self_attn.v_proj.weight"];
    assert_eq!(names.map(|name| model.format(name).unwrap().to_string()), ["q5g32f32z12", "q5g32f16z12"]);
    names.iter().for_each(|name| assert_eq!(values(&model, name), values(&plain, name)));
}

/// Unlike them, a scale that is a product beyond f16 is damage.
#[test]
fn scales_beyond_f16() {
    let mut gguf = Golden::wide().gguf(Storage::Q5K);
    let tensor = gguf.tensors.iter_mut().find(|tensor| tensor.0 == "blk.0.ffn_up.weight").unwrap();
    tensor.3[..2].copy_from_slice(&f16::from_f32(-60_000.0).to_le_bytes());
    let (root, model) = import(&gguf);
    let error = model.unwrap_err().to_string().replace(&root.path().display().to_string(), "DIR");
    let begin = "DIR/model.gguf: tensor `model.layers.0.mlp.up_proj.weight` (Q5_K): the scale ";
    assert!(error.starts_with(begin) && error.contains(" of a group is beyond f16, "), "{error}");
}
