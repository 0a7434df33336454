//! Quantized models against transformers with the same dequantized weights.

use dwindle_quant::Method;
use dwindle_schemes::Scheme;

use super::super::Function;
use super::super::golden::{Expected, Memory, Model, check, config, family};
use super::TOLERANCE;

#[test]
fn logits() {
    let expected = Expected::load("quantization");
    for name in ["qwen2", "gemma2"] {
        let family = family(name, &config(name, "config.json")).unwrap();
        let tokens = Expected::load(name).integers("input_ids");
        for scheme in ["q4f16_1", "q4f32_1", "q3f16_1"] {
            let memory = Memory::quantized(name, family.as_ref(), &Scheme::builtin(scheme).unwrap(), Method::Rtn);
            let outputs = Model::new(family.as_ref(), &memory).call(Function::Score, &tokens, 0, &[]);
            let key = format!("{name}.{scheme}.logits");
            check(&key, outputs.floats("logits").unwrap(), &expected.floats(&key), TOLERANCE);
        }
    }
}
