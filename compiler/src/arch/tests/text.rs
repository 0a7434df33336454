//! Text models against transformers.

use serde_json::{Value, json};

use super::super::golden::{Expected, Memory, Model, check, config, difference, family, fixture};
use super::super::{Function, families};
use super::{TOLERANCE, image};

const MODELS: [&str; 9] =
    ["gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen2_untied_sharded", "qwen3"];

#[test]
fn every_family_has_a_golden_checkpoint() {
    for family in families() {
        let name = fixture(family);
        let tested = MODELS.contains(&name.as_str()) || image::MODELS.contains(&name.as_str());
        assert!(tested, "{name} is in no list of tests");
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
        ("gemma", "rope_theta", json!(20000.0)),
        ("gemma", "rms_norm_eps", json!(1e-3)),
        ("gemma2", "sliding_window", json!(17)),
        ("gemma2", "attn_logit_softcapping", json!(25.0)),
        ("gemma2", "final_logit_softcapping", json!(10.0)),
        ("gemma2", "query_pre_attn_scalar", json!(32)),
        ("gemma3_text", "sliding_window", json!(17)),
        ("gemma3_text", "sliding_window_pattern", json!(2)),
        ("gemma3_text", "rope_theta", json!(5e5)),
        ("gemma3_text", "rope_local_base_freq", json!(9000.0)),
        ("gemma3_text", "query_pre_attn_scalar", json!(24)),
        ("llama", "rope_theta", json!(9000.0)),
        ("llama", "rope_scaling", Value::Null),
        ("llama", "rope_scaling.factor", json!(4.0)),
        ("llama", "rope_scaling.low_freq_factor", json!(2.0)),
        ("llama", "rope_scaling.high_freq_factor", json!(8.0)),
        ("llama", "rope_scaling.original_max_position_embeddings", json!(128)),
        ("mistral", "sliding_window", json!(23)),
        ("mistral", "sliding_window", Value::Null),
        ("mistral", "rms_norm_eps", json!(1e-4)),
        ("phi3", "rope_theta", json!(9000.0)),
        ("phi3", "rms_norm_eps", json!(1e-4)),
        ("phi3", "sliding_window", json!(40)),
        ("qwen2", "rope_theta", json!(9000.0)),
        ("qwen2", "rms_norm_eps", json!(1e-4)),
        ("qwen3", "rope_theta", json!(9000.0)),
        ("qwen3", "rms_norm_eps", json!(1e-4)),
    ];
    for (name, path, value) in table {
        let (memory, expected) = (Memory::load(name), Expected::load(name));
        let mut wrong = config(name, "config.json");
        let (scope, key) = path.rsplit_once('.').unwrap_or(("", path));
        let map = if scope.is_empty() { &mut wrong } else { wrong[scope].as_object_mut().unwrap() };
        assert!(map.insert(key.to_owned(), value).is_some(), "{name} has no {path}");
        let family = family(name, &wrong).unwrap();
        let outputs =
            Model::new(family.as_ref(), &memory).call(Function::Score, &expected.integers("input_ids"), 0, &[]);
        let difference = difference(outputs.floats("logits").unwrap(), &expected.floats("logits"));
        assert!(difference > 10.0 * TOLERANCE, "{name} with another {path} differs by {difference:e} only");
    }
}
