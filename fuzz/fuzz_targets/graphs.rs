//! Configurations again: the graphs of those that are understood are built and verified, which takes a thousand times as long as parsing.

#![no_main]

use dwindle_compiler::arch::{GraphOptions, families, parse};
use dwindle_compiler::graph::verify::verify;
use dwindle_schemes::{FloatType, Format};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;

/// Graphs of more tensors are not built: layers repeat.
const MAX_TENSORS: usize = 160;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(Value::Object(mut config)) = serde_json::from_slice(bytes) else { return Corpus::Reject };
    let preprocessor = config.remove("preprocessor");
    let family = match config.get("model_type").and_then(Value::as_str) {
        Some(family) => family.to_owned(),
        None => families().next().unwrap_or_default().to_owned(),
    };
    let Ok(family) = parse(&family, &config, preprocessor.as_ref()) else { return Corpus::Reject };
    if family.shape().n_layers > 4 || family.tensors().len() > MAX_TENSORS {
        return Corpus::Reject;
    }
    for &function in family.functions() {
        let formats = |_: &str| Format::Plain(FloatType::F16);
        let graph = family.graph(function, &formats, &GraphOptions { context: 64, taps: false });
        verify(&graph).expect("families emit valid graphs");
    }
    Corpus::Keep
});
