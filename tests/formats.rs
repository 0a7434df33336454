//! Storage formats end to end: logits of packed models against those of the same weights decoded, and of the original.

use std::collections::BTreeMap;
use std::path::Path;

use dwindle_bundle::Bundle;
use dwindle_compiler::checkpoint::safetensors::{Element, Layout, TensorWriter};
use dwindle_compiler::checkpoint::{ModelDir, convert};
use dwindle_compiler::compile::{CompileOptions, compile};
use dwindle_compiler::progress::Silent;
use dwindle_compiler::quantize::quantize;
use dwindle_compiler::target::TargetName;
use dwindle_quant::{Method, decode_rows};
use dwindle_runtime::Scorer;
use dwindle_runtime::device::Options;
use dwindle_schemes::{Format, Scheme};

use crate::golden::{Expected, assert_close, quantized_tolerance};
use crate::workbench::{golden, targets};

/// From the least noise to the most.
const SCHEMES: [&str; 6] = ["q8f16_1", "q6f16_1", "q5f16_min", "q5f16_1", "q4f16_min", "q4f16_1"];

/// The noise of logits, relative to their variance, is at most this many times that of the weights: 20 to 24 times for 4 to
/// 8 bits in these models of few, narrow layers.
const GROWTH: f64 = 32.0;

fn packed(checkpoint: &Path, scheme: &str, folder: &Path) -> ModelDir {
    let (model, _) = convert(checkpoint, &folder.join("full"), &Silent).unwrap();
    quantize(&model, &Scheme::builtin(scheme).unwrap(), Method::Rtn, &folder.join("packed"), &Silent).unwrap();
    ModelDir::open(&folder.join("packed")).unwrap()
}

fn logits(model: ModelDir, target: TargetName, tokens: &[u32], folder: &Path) -> Vec<f32> {
    compile(&[model], &CompileOptions::new(target), &folder.join("out.dwindle"), &Silent).unwrap();
    let bundle = Bundle::open(&folder.join("out.dwindle")).unwrap();
    let mut scorer = Scorer::open(&bundle, &bundle.manifest().models[0].name, &Options::default()).unwrap();
    scorer.score(tokens, &[]).unwrap()
}

/// Writes a checkpoint of the values that the packed weights stand for.
fn write_decoded(model: &ModelDir, original: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
        if original.join(file).exists() {
            std::fs::copy(original.join(file), to.join(file)).unwrap();
        }
    }
    let shapes: BTreeMap<_, _> =
        model.model.tensors.iter().map(|(name, info)| (name.clone(), (Element::F32, info.shape.clone()))).collect();
    let writer = TensorWriter::create(&to.join("model.safetensors"), Layout::new(&shapes)).unwrap();
    for (name, info) in &model.model.tensors {
        let values = match info.format {
            Format::Plain(_) => model.tensor(name).unwrap().to_f32().unwrap(),
            Format::Grouped(grouped) => {
                let columns = info.shape[1..].iter().product();
                let codes = model.tensor(&format!("{name}.codes")).unwrap().bytes;
                let words: Vec<u32> = codes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
                let scales = model.tensor(&format!("{name}.scales")).unwrap().to_f32().unwrap();
                let mut values = vec![0.0; info.shape[0] * columns];
                decode_rows(&words, &scales, columns, &grouped, &mut values).unwrap();
                values
            }
        };
        writer.write(name, 0, bytemuck::cast_slice(&values)).unwrap();
    }
    writer.finish().unwrap();
}

/// Σ (a - b)² over Σ (b - mean b)², over all rows.
fn relative_noise(a: &[f32], b: &[f32]) -> f64 {
    let mean = b.iter().map(|v| f64::from(*v)).sum::<f64>() / b.len() as f64;
    let error: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    error / b.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>()
}

#[test]
fn logits_follow_from_the_bits() {
    for target in targets() {
        for name in ["qwen2", "gemma2"] {
            check_logits(name, target);
        }
    }
}

fn check_logits(name: &str, target: TargetName) {
    let expected = Expected::of(&golden(name));
    let (tokens, original) = (expected.tokens("input_ids"), expected.floats("logits"));
    let mut noisy = Vec::new();
    for scheme in SCHEMES {
        let folder = tempfile::tempdir().unwrap();
        let model = packed(&golden(name), scheme, folder.path());
        let card = model.model.card.clone().unwrap();
        let (noise, weights) = card.tensors.iter().fold((0.0, 0.0), |(noise, weights), (name, card)| {
            let count = model.model.tensors[name].shape.iter().product::<usize>() as f64;
            (noise + count * card.snr_db.map_or(0.0, |snr| 10_f64.powf(-snr / 10.0)), weights + count)
        });
        write_decoded(&model, &golden(name), &folder.path().join("decoded"));
        let found = logits(model, target, &tokens, folder.path());

        let whole = tempfile::tempdir().unwrap();
        let decoded = packed(&folder.path().join("decoded"), "q0f32", whole.path());
        let wanted = logits(decoded, target, &tokens, whole.path());
        let (least, most) = wanted.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
        let what = format!("{name} {scheme} {target}");
        assert_close(&what, &found, &wanted, quantized_tolerance(target) * (most - least));

        let of_logits = relative_noise(&found, &original);
        println!("{what}: noise {of_logits:.2e}, of weights {:.2e}", noise / weights);
        // What is rounded besides weights (activations, caches) has a share of its own.
        let rounding = f64::from(quantized_tolerance(target)).powi(2);
        if of_logits > GROWTH * noise / weights + rounding {
            noisy.push(format!("{what}: {of_logits:.2e}"));
        }
    }
    assert!(noisy.is_empty(), "more noise than follows from the bits: {noisy:#?}");
}
