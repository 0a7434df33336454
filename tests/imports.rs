//! Imported checkpoints on GPUs and processors against plain ones of the same values.

use std::path::Path;

use dwindle_bundle::Bundle;
use dwindle_compiler::checkpoint::{ModelDir, convert};
use dwindle_compiler::compile::{CompileOptions, compile};
use dwindle_compiler::progress::Silent;
use dwindle_compiler::quantize::quantize;
use dwindle_compiler::target::TargetName;
use dwindle_quant::Method;
use dwindle_runtime::Scorer;
use dwindle_runtime::device::Options;
use dwindle_schemes::Scheme;

use crate::workbench::{golden, targets};

#[path = "../compiler/src/checkpoint/import/linears/fixture.rs"]
mod linears;

/// As a share of the logits' range: f16 caches and embeddings and other orders of sums on GPUs, activations of 8 bits on processors.
fn tolerance(target: TargetName) -> f32 {
    if target == TargetName::Cpu { 0.03 } else { 0.005 }
}

/// Numbers that all golden models have as tokens.
const TOKENS: [u32; 12] = [2, 17, 101, 5, 64, 33, 90, 7, 7, 120, 1, 58];

fn logits(model: ModelDir, target: TargetName, folder: &Path) -> Vec<f32> {
    let out = folder.join("out.dwindle");
    compile(&[model], &CompileOptions::new(target), &out, &Silent).unwrap();
    let bundle = Bundle::open(&out).unwrap();
    let mut scorer = Scorer::open(&bundle, &bundle.manifest().models[0].name, &Options::default()).unwrap();
    scorer.score(&TOKENS, &[]).unwrap()
}

/// AutoAWQ's and GPTQ's layers: every variant, layers that families fuse, biases, padded last groups.
#[test]
fn packed_layers() {
    for (index, variant) in linears::VARIANTS.iter().enumerate() {
        let name = ["llama", "qwen2", "phi3", "gemma2"][index % 4];
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        linears::both(&golden(name), variant, &at("packed"), &at("plain"));
        convert(&at("packed"), &at("imported"), &Silent).unwrap();
        let (plain, _) = convert(&at("plain"), &at("full"), &Silent).unwrap();
        quantize(&plain, &Scheme::builtin("q0f32").unwrap(), Method::Rtn, &at("floats"), &Silent).unwrap();
        for target in targets() {
            let expected = logits(ModelDir::open(&at("floats")).unwrap(), target, folder.path());
            let found = logits(ModelDir::open(&at("imported")).unwrap(), target, folder.path());
            let (least, most) = expected.iter().fold((0_f32, 0_f32), |(low, high), &v| (low.min(v), high.max(v)));
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / (most - least);
            println!("{name} {variant:?} {target}: {worst:.1e} of the range");
            // A wrong order of codes or zero is far beyond it.
            assert!(worst <= tolerance(target), "{name} {variant:?} {target}: {worst} of the range");
        }
    }
}
