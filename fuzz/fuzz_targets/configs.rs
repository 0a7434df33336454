//! Configurations: parsed, and the graphs of what is understood built and verified.

#![no_main]

use dwindle_compiler::arch::{GraphOptions, families, parse};
use dwindle_compiler::graph::verify::verify;
use dwindle_schemes::{FloatType, Format};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(Value::Object(mut config)) = serde_json::from_slice(bytes) else { return Corpus::Reject };
    let preprocessor = config.remove("preprocessor");
    let family = match config.get("model_type").and_then(Value::as_str) {
        Some(family) => family.to_owned(),
        None => families().next().unwrap_or_default().to_owned(),
    };
    let Ok(family) = parse(&family, &config, preprocessor.as_ref()) else { return Corpus::Keep };
    // Graphs have nodes for each layer; what a step takes for absurd numbers of them is another matter.
    if family.shape().n_layers > 64 || family.tensors().len() > 4096 {
        return Corpus::Keep;
    }
    for &function in family.functions() {
        let formats = |_: &str| Format::Plain(FloatType::F16);
        let graph = family.graph(function, &formats, &GraphOptions { context: 64, taps: false });
        verify(&graph).expect("families emit valid graphs");
    }
    Corpus::Keep
});
