//! Text models against transformers.

use serde_json::Value;

use super::super::golden::{Expected, Memory, Model, check, config, difference, family};
use super::super::{Function, families};
use super::TOLERANCE;

const MODELS: [&str; 4] = ["gemma", "gemma2", "qwen2", "qwen2_untied_sharded"];

#[test]
fn every_family_has_a_golden_checkpoint() {
    for family in families() {
        let path = format!("{}/../tests/golden/{family}/expected.safetensors", env!("CARGO_MANIFEST_DIR"));
        assert!(std::path::Path::new(&path).exists(), "{path} is missing: see compiler/src/arch/README.md");
    }
}

#[test]
fn layers_logits_and_greedy_tokens() {
    for name in MODELS {
        let (memory, expected) = (Memory::load(name), Expected::load(name));
        let tokens = expected.integers("input_ids");
        for file in ["config.json", "config_v4.json"] {
            let family = family(name, &config(name, file)).unwrap();
            let mut model = Model::new(family.as_ref(), &memory);
            let outputs = model.call(Function::Score, &tokens, 0, &[]);
            let hidden = (0..=family.shape().n_layers).map(|layer| format!("hidden.{layer}"));
            for key in hidden.chain(["final_norm".to_owned(), "logits".to_owned()]) {
                check(&format!("{name} {key}"), outputs.floats(&key).unwrap(), &expected.floats(&key), TOLERANCE);
            }
            model.evaluator.reset();
            assert_eq!(model.greedy(&tokens, &[], 16), expected.integers("greedy_ids"), "{name}");
        }
    }
}

/// Whatever the pieces that a prompt is cut into, the logits are the same: of all rows by `score`, of the last by `prefill`,
/// of one by `decode`.
#[test]
fn pieces_of_a_prompt() {
    for name in MODELS {
        let (memory, expected) = (Memory::load(name), Expected::load(name));
        let family = family(name, &config(name, "config.json")).unwrap();
        let (tokens, logits) = (expected.integers("input_ids"), expected.floats("logits"));
        let vocab = family.shape().vocab_size;
        for (function, piece) in [Function::Score, Function::Prefill]
            .into_iter()
            .flat_map(|f| [1, 7, 16].map(|piece| (f, piece)))
            .chain([(Function::Decode, 1)])
        {
            let mut model = Model::new(family.as_ref(), &memory);
            for (index, chunk) in tokens.chunks(piece).enumerate() {
                let (start, end) = (index * piece, index * piece + chunk.len());
                let outputs = model.call(function, chunk, start, &[]);
                let first = if function == Function::Score { start } else { end - 1 };
                let what = format!("{name} {} of {piece} at {start}", function.name());
                check(&what, outputs.floats("logits").unwrap(), &logits[first * vocab..end * vocab], TOLERANCE);
            }
        }
    }
}

/// The goldens would notice any of these.
#[test]
fn wrong_values_are_caught() {
    let table = [
        ("gemma", "rope_theta", 20000.0),
        ("gemma", "rms_norm_eps", 1e-3),
        ("gemma2", "sliding_window", 17.0),
        ("gemma2", "attn_logit_softcapping", 25.0),
        ("gemma2", "final_logit_softcapping", 10.0),
        ("gemma2", "query_pre_attn_scalar", 32.0),
        ("qwen2", "rope_theta", 9000.0),
        ("qwen2", "rms_norm_eps", 1e-4),
    ];
    for (name, key, value) in table {
        let (memory, expected) = (Memory::load(name), Expected::load(name));
        let mut wrong = config(name, "config.json");
        let value = if key == "sliding_window" { Value::from(value as u64) } else { Value::from(value) };
        assert!(wrong.insert(key.to_owned(), value).is_some(), "{name} has no {key}");
        let family = family(name, &wrong).unwrap();
        let outputs =
            Model::new(family.as_ref(), &memory).call(Function::Score, &expected.integers("input_ids"), 0, &[]);
        let difference = difference(outputs.floats("logits").unwrap(), &expected.floats("logits"));
        assert!(difference > 10.0 * TOLERANCE, "{name} with another {key} differs by {difference:e} only");
    }
}
