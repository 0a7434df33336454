//! Sampling defaults of a model directory: what `generation_config.json` asks for, and what of it is not done.

use dwindle_bundle::SamplingDefaults;
use serde_json::{Map, Value};

use super::Blueprint;
use super::text::object;
use crate::error::{Error, Result};

const FILE: &str = "generation_config.json";

/// What transformers takes where `top_k` is absent or null (`_get_default_generation_params` in
/// `generation/configuration_utils.py`). Its other defaults change nothing.
const TOP_K: u32 = 50;

/// Keys that change which tokens come and that no sampler here follows, with the values that change nothing.
const NOT_DONE: [(&str, &[f64]); 21] = [
    ("bad_words_ids", &[]),
    ("begin_suppress_tokens", &[]),
    ("dola_layers", &[]),
    ("diversity_penalty", &[0.0]),
    ("encoder_no_repeat_ngram_size", &[0.0]),
    ("encoder_repetition_penalty", &[1.0]),
    ("epsilon_cutoff", &[0.0]),
    ("eta_cutoff", &[0.0]),
    ("exponential_decay_length_penalty", &[]),
    ("forced_bos_token_id", &[]),
    ("guidance_scale", &[1.0]),
    ("min_length", &[0.0]),
    ("min_new_tokens", &[0.0]),
    ("no_repeat_ngram_size", &[0.0]),
    ("num_beams", &[0.0, 1.0]),
    ("penalty_alpha", &[0.0]),
    ("sequence_bias", &[]),
    ("stop_strings", &[]),
    ("suppress_tokens", &[]),
    ("top_h", &[0.0, 1.0]),
    ("typical_p", &[0.0, 1.0]),
];

/// Those that only say which tokens may be drawn; without sampling they change nothing.
const OF_SAMPLING: [&str; 4] = ["epsilon_cutoff", "eta_cutoff", "top_h", "typical_p"];

/// Defaults for sampling. Without `do_sample` answers are greedy, and the rest counts once the user asks for a temperature.
///
/// # Errors
/// A value of the wrong type or out of range.
pub fn sampling(directory: &Blueprint) -> Result<SamplingDefaults> {
    let generation = object(directory, FILE)?;
    read(&generation).map_err(|(key, expected)| {
        let found = generation.get(key).unwrap_or(&Value::Null);
        Error::json(&directory.path().join(FILE), format!("`{key}` is {found}, expected {expected}"))
    })
}

/// The keys of `generation_config.json` that would change answers and are not followed, each with its value.
///
/// # Errors
/// A file that is not JSON.
pub fn not_done(directory: &Blueprint) -> Result<Vec<String>> {
    Ok(left_out(&object(directory, FILE)?))
}

fn read(generation: &Map<String, Value>) -> std::result::Result<SamplingDefaults, (&'static str, String)> {
    let number = |key: &'static str, least: f64, most: f64| match generation.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number as f32)),
            _ => Err((key, format!("a number from {least} to {most}"))),
        },
    };
    let top_k = match generation.get("top_k") {
        None | Some(Value::Null) => TOP_K,
        Some(value) => match value.as_f64() {
            // 0 keeps all; so does -1 for other programs.
            Some(k) if k == 0.0 || k == -1.0 => 0,
            Some(k) if k.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(&k) => k as u32,
            _ => return Err(("top_k", "a whole number".to_owned())),
        },
    };
    let samples = generation.get("do_sample").and_then(Value::as_bool) == Some(true);
    let temperature = number("temperature", 0.0, 1e3)?.unwrap_or(1.0);
    Ok(SamplingDefaults {
        temperature: samples.then_some(temperature),
        top_p: number("top_p", 0.0, 1.0)?.filter(|&p| p < 1.0),
        top_k: Some(top_k).filter(|&k| k > 0),
        min_p: number("min_p", 0.0, 1.0)?.filter(|&p| p > 0.0),
        repetition_penalty: number("repetition_penalty", 1e-3, 1e3)?.filter(|&penalty| penalty != 1.0),
    })
}

fn left_out(generation: &Map<String, Value>) -> Vec<String> {
    let samples = generation.get("do_sample").and_then(Value::as_bool) == Some(true);
    let changes = |value: &Value, neutral: &[f64]| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => !number.as_f64().is_some_and(|number| neutral.contains(&number)),
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => !values.is_empty(),
        Value::Bool(true) | Value::String(_) => true,
    };
    let asked = NOT_DONE.iter().filter(|(key, _)| samples || !OF_SAMPLING.contains(key));
    let found =
        asked.filter_map(|&(key, neutral)| Some((key, generation.get(key).filter(|value| changes(value, neutral))?)));
    found.map(|(key, value)| if value.is_number() { format!("{key} = {value}") } else { key.to_owned() }).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(generation: Value, expected: Expect) {
        let generation = generation.as_object().unwrap();
        let shown = |value: Option<f32>| value.map_or("-".to_owned(), |value| value.to_string());
        let read = match read(generation) {
            Err((key, expected)) => format!("{key}: expected {expected}"),
            Ok(SamplingDefaults { temperature, top_p, top_k, min_p, repetition_penalty }) => format!(
                "temperature {}, top_p {}, top_k {}, min_p {}, penalty {}",
                shown(temperature),
                shown(top_p),
                shown(top_k.map(|k| k as f32)),
                shown(min_p),
                shown(repetition_penalty)
            ),
        };
        let left_out = left_out(generation).join(", ");
        expected.assert_eq(&if left_out.is_empty() { read } else { format!("{read}; not done: {left_out}") });
    }

    #[test]
    fn defaults_are_those_of_transformers() {
        check(json!({}), expect!["temperature -, top_p -, top_k 50, min_p -, penalty -"]);
        check(json!({"do_sample": true}), expect!["temperature 1, top_p -, top_k 50, min_p -, penalty -"]);
        check(
            json!({"do_sample": true, "top_k": null, "top_p": 1.0, "temperature": null}),
            expect!["temperature 1, top_p -, top_k 50, min_p -, penalty -"],
        );
        check(
            json!({"do_sample": true, "top_k": 0, "temperature": 0.6, "min_p": 0.05}),
            expect!["temperature 0.6, top_p -, top_k -, min_p 0.05, penalty -"],
        );
        check(
            json!({"do_sample": true, "top_k": 20.0, "top_p": 0.8, "repetition_penalty": 1.05}),
            expect!["temperature 1, top_p 0.8, top_k 20, min_p -, penalty 1.05"],
        );
        check(
            json!({"do_sample": false, "temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}),
            expect!["temperature -, top_p 0.9, top_k 50, min_p -, penalty 1.1"],
        );
        check(json!({"do_sample": true, "top_k": -1}), expect!["temperature 1, top_p -, top_k -, min_p -, penalty -"]);
    }

    #[test]
    fn wrong_values_are_named() {
        check(json!({"top_k": 1.5}), expect!["top_k: expected a whole number"]);
        check(json!({"top_k": -7}), expect!["top_k: expected a whole number"]);
        check(json!({"top_p": 1.5}), expect!["top_p: expected a number from 0 to 1"]);
        check(json!({"temperature": "hot"}), expect!["temperature: expected a number from 0 to 1000"]);
    }

    #[test]
    fn what_is_not_done_is_listed() {
        check(
            json!({"do_sample": true, "typical_p": 0.9, "num_beams": 4, "bad_words_ids": [[1]], "epsilon_cutoff": 0.0}),
            expect![
                "temperature 1, top_p -, top_k 50, min_p -, penalty -; not done: bad_words_ids, num_beams = 4, typical_p = 0.9"
            ],
        );
        check(
            json!({"typical_p": 0.9, "num_beams": 1, "no_repeat_ngram_size": 3, "suppress_tokens": [], "stop_strings": "###"}),
            expect![
                "temperature -, top_p -, top_k 50, min_p -, penalty -; not done: no_repeat_ngram_size = 3, stop_strings"
            ],
        );
    }
}
