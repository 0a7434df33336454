//! Quantized golden and made-up models.

use std::fs;

use dwindle_schemes::{Format, Grouped};
use expect_test::{Expect, expect};
use serde_json::json;

use super::*;
use crate::checkpoint::fixture::{Given, checkpoint, contents, convert_all, golden};
use crate::checkpoint::safetensors::{Element, SafeTensors};
use crate::progress::Silent;

fn scheme(name: &str) -> Scheme {
    Scheme::builtin(name).unwrap()
}

/// Codes and scales of two golden models, as an independent implementation made them.
#[test]
fn golden_codes_and_scales() {
    let expected = SafeTensors::open(&golden("quantization/expected.safetensors")).unwrap();
    let mut compared = 0;
    for family in ["qwen2", "gemma2"] {
        let root = tempfile::tempdir().unwrap();
        let (model, _) = convert_all(&golden(family), &root.path().join("full")).unwrap();
        for name in ["q4f16_1", "q4f32_1", "q3f16_1"] {
            let out = root.path().join(name);
            quantize(&model, &scheme(name), Method::Rtn, &out, &Silent).unwrap();
            let quantized = ModelDir::open(&out).unwrap();
            assert_eq!(quantized.scheme(), Some(name));
            let prefix = format!("{family}.{name}.");
            for (tensor, info) in &quantized.model.tensors {
                let Some(words) = expected.tensor(&format!("{prefix}{tensor}.q_weight")) else { continue };
                let scales = expected.tensor(&format!("{prefix}{tensor}.q_scale")).unwrap();
                let stored = quantized.tensor(&format!("{tensor}.scales")).unwrap();
                assert_eq!((stored.shape, stored.bytes), (scales.shape, scales.bytes), "{prefix}{tensor}");
                let stored = quantized.tensor(&format!("{tensor}.codes")).unwrap();
                assert_eq!(stored.shape, words.shape, "{prefix}{tensor}");
                let Format::Grouped(grouped) = info.format else { panic!("{prefix}{tensor} is plain") };
                assert!(codes(stored.bytes, &grouped, &info.shape) == codes(words.bytes, &grouped, &info.shape));
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 2 * 3 * 2);
}

/// The codes of a matrix without the padding of its rows, which the two implementations fill differently.
fn codes(words: &[u8], grouped: &Grouped, shape: &[usize]) -> Vec<u32> {
    let (rows, columns) = matrix(shape);
    let per_word = grouped.unit_codes();
    let mut codes = Vec::new();
    for row in 0..rows {
        for column in 0..columns {
            let word = row * grouped.words(columns) + column / per_word;
            let word = u32::from_le_bytes(words[word * 4..][..4].try_into().unwrap());
            codes.push((word >> ((column % per_word) as u32 * grouped.bits)) & grouped.max_code());
        }
    }
    codes
}

#[test]
fn bytes_and_card_do_not_depend_on_threads() {
    let root = tempfile::tempdir().unwrap();
    let (model, _) = convert_all(&golden("llava_onevision"), &root.path().join("full")).unwrap();
    for method in Method::ALL {
        let run = |threads: usize| {
            let out = root.path().join(format!("{method}{threads}"));
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let card = pool.install(|| quantize(&model, &scheme("q3f16_1"), method, &out, &Silent)).unwrap();
            (card, contents(&out))
        };
        assert_eq!(run(1), run(2));
    }
}

#[test]
fn every_builtin_scheme_stores_what_it_says() {
    let root = tempfile::tempdir().unwrap();
    let (model, _) = convert_all(&golden("llava_onevision"), &root.path().join("full")).unwrap();
    for scheme in Scheme::all() {
        let out = root.path().join(&scheme.name);
        let card = quantize(&model, &scheme, Method::Rtn, &out, &Silent).unwrap();
        let quantized = ModelDir::open(&out).unwrap();
        assert_eq!(quantized.model.card.as_ref(), Some(&card), "what is stored is what is returned");
        for (name, info) in &quantized.model.tensors {
            assert_eq!(info.format, scheme.format(info.role), "{name}");
            let Format::Plain(float) = info.format else { continue };
            let original = model.tensor(name).unwrap().to_f32().unwrap();
            let rounded: Vec<_> = original.iter().map(|&value| dwindle_quant::round(float, value)).collect();
            assert_eq!(quantized.tensor(name).unwrap().to_f32().unwrap(), rounded, "{name}");
        }
        let stored: u64 = quantized.tensors().tensors().map(|view| view.bytes.len() as u64).sum();
        assert_eq!(card.bytes_out, stored);
        assert!((card.bits_per_weight - stored as f64 * 8.0 / card.weights as f64).abs() < 1e-12);
    }
}

/// A matrix of many blocks equals, row by row, what the quantizer makes of it as a whole.
#[test]
fn blocks_join_without_seams() {
    let (rows, columns) = (1100, 700);
    let values: Vec<f32> = (0..rows * columns).map(|i| ((i * 7919 % 10007) as f32 - 5000.0) / 700.0).collect();
    let given = ("w.weight", Element::F32, &[rows, columns][..], values.clone());
    let root = tempfile::tempdir().unwrap();
    let source = checkpoint(&json!({"model_type": "gemma"}), &[given]);
    let (model, _) = convert_all(source.path(), &root.path().join("full")).unwrap();
    for name in ["q3f16_1", "q4f16_asym"] {
        let out = root.path().join(name);
        let card = quantize(&model, &scheme(name), Method::Rtn, &out, &Silent).unwrap();
        let quantized = ModelDir::open(&out).unwrap();

        let Format::Grouped(grouped) = scheme(name).format(Role::Linear) else { panic!("{name} is grouped") };
        let mut words = vec![0; rows * grouped.words(columns)];
        let mut scales = vec![0.0; rows * grouped.scales(columns)];
        dwindle_quant::encode_rows(&values, columns, &grouped, Method::Rtn, &mut words, &mut scales).unwrap();
        assert!(quantized.tensor("w.weight.codes").unwrap().bytes == bytemuck::cast_slice::<u32, u8>(&words));
        assert_eq!(quantized.tensor("w.weight.scales").unwrap().to_f32().unwrap(), scales);
        let mut decoded = vec![0.0; values.len()];
        dwindle_quant::decode_rows(&words, &scales, columns, &grouped, &mut decoded).unwrap();
        let snr = ErrorStats::of(&values, &decoded).snr_db();
        assert!((card.tensors["w.weight"].snr_db.unwrap() - snr).abs() < 1e-6);
        assert!((10.0..30.0).contains(&snr), "{snr}");
    }
}

/// Quantizes a made-up model; its card or the error.
#[track_caller]
fn check(tensors: &[Given<'_>], scheme_name: &str, expected: Expect) {
    let root = tempfile::tempdir().unwrap();
    let source = checkpoint(&json!({"model_type": "gemma"}), tensors);
    let (model, _) = convert_all(source.path(), &root.path().join("full")).unwrap();
    let out = root.path().join("out");
    let text = match quantize(&model, &scheme(scheme_name), Method::Rtn, &out, &Silent) {
        Ok(card) => card.to_string(),
        Err(error) => {
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "nothing is left");
            error.to_string()
        }
    };
    expected.assert_eq(&text.replace(&root.path().display().to_string(), "DIR"));
}

fn ramp(count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|i| ((i % 97) as f32 - 48.0) * scale).collect()
}

#[test]
fn cards() {
    let tensors: [Given<'_>; 4] = [
        ("model.embed_tokens.weight", Element::Bf16, &[64, 96], ramp(64 * 96, 0.01)),
        ("model.norm.weight", Element::F32, &[96], ramp(96, 1.0)),
        ("model.up.weight", Element::F16, &[50, 40], vec![0.0; 2000]),
        ("vision_tower.vision_model.patch_embedding.weight", Element::F32, &[8, 3, 7, 7], ramp(8 * 147, 0.001)),
    ];
    check(
        &tensors,
        "q4f16_1",
        expect![[r#"
        q4f16_1 by rtn: 6.790 bits per weight
        20.9 KiB -> 7.8 KiB (37.4 %)
        signal to noise 25.0 dB over 3 matrices; the worst:
          25.0 dB  max error 3.44e-2    q4g32f16  [64, 96]        model.embed_tokens.weight
          73.6 dB  max error 1.49e-5    f16       [8, 147]        vision_tower.vision_model.patch_embedding.weight
            exact  max error 0.00e0     q4g32f16  [50, 40]        model.up.weight
    "#]],
    );
    check(
        &tensors,
        "q0f32",
        expect![[r#"
        q0f32 by rtn: 32.000 bits per weight
        20.9 KiB -> 36.8 KiB (176.2 %)
        signal to noise exact over 3 matrices; the worst:
            exact  max error 0.00e0     f32       [64, 96]        model.embed_tokens.weight
            exact  max error 0.00e0     f32       [50, 40]        model.up.weight
            exact  max error 0.00e0     f32       [8, 147]        vision_tower.vision_model.patch_embedding.weight
    "#]],
    );
}

#[test]
fn weights_that_do_not_fit() {
    let mut values = ramp(64, 1.0);
    values[5] = 70_000.0;
    values[40] = -1e9;
    check(
        &[("w.weight", Element::F32, &[2, 32], values.clone())],
        "q0f16",
        expect![
            "tensor `w.weight`: 2 values, the largest of magnitude 1e9, do not fit f16; use a scheme that stores it as f32"
        ],
    );
    check(
        &[("w.weight", Element::F32, &[2, 32], values.clone())],
        "q4f16_1",
        expect![
            "tensor `w.weight`: row 1, columns from 0: the scale 1.4285714e8 of this group is beyond f16; use a scheme with f32 scales"
        ],
    );
    values[63] = f32::NAN;
    check(
        &[("w.weight", Element::F32, &[2, 32], values.clone())],
        "q4f16_1",
        expect!["tensor `w.weight`: 1 values are infinite or NaN; the checkpoint is damaged, download it again"],
    );
    check(
        &[("w.weight", Element::F32, &[2, 32], values.clone())],
        "q0f16",
        expect!["tensor `w.weight`: 1 values are infinite or NaN; the checkpoint is damaged, download it again"],
    );
    check(
        &[("w.bias", Element::F32, &[64], values)],
        "q4f16_1",
        expect!["tensor `w.bias`: 1 values are infinite or NaN; the checkpoint is damaged, download it again"],
    );
}

#[test]
fn neither_twice_nor_in_place() {
    let root = tempfile::tempdir().unwrap();
    let full = root.path().join("full");
    let (model, _) = convert_all(&golden("gemma"), &full).unwrap();
    let say = |error: Error| error.to_string().replace(&root.path().display().to_string(), "DIR");
    let error = quantize(&model, &scheme("q4f16_1"), Method::Rtn, &full, &Silent).unwrap_err();
    expect!["DIR/full is the input itself; name another output directory"].assert_eq(&say(error));
    let once = root.path().join("once");
    quantize(&model, &scheme("q4f16_1"), Method::Rtn, &once, &Silent).unwrap();
    let again = ModelDir::open(&once).unwrap();
    let error = quantize(&again, &scheme("q4f16_1"), Method::Rtn, &root.path().join("twice"), &Silent).unwrap_err();
    expect!["DIR/once is already quantized as q4f16_1; quantize the converted model directory it was made from"]
        .assert_eq(&say(error));
}
