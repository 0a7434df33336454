//! Configurations: parsed, and the tensors of what is understood listed. The target `graphs` goes on with them.

#![no_main]

use dwindle_compiler::arch::{families, parse};
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
    // There are some for each layer, and towers may have a thousand.
    if family.shape().n_layers <= 4 && family.image().is_none() {
        for tensor in family.tensors() {
            let elements = tensor.shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
            assert!(elements.is_some_and(|elements| elements > 0), "{tensor:?}");
        }
    }
    Corpus::Keep
});
