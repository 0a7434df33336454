//! `layer_types`: the list of each layer's kind of attention, where it only repeats the family's own rule.
//!
//! Configurations of transformers 4 told windows by a rule of the family and a few keys; those of 5 list every layer, and the
//! list counts. One that says what the rule says is dropped; any other is kept, for the family to take or to refuse.

use serde_json::{Map, Value};

const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

/// Layers of the largest model that a list is computed for.
const MAX_LAYERS: u64 = 4096;

/// Drops `layer_types` if the family's rule implies it; Gemma 3's with the `sliding_window_pattern` that the list has, whatever
/// the key says.
pub(super) fn imply(config: &mut Map<String, Value>) {
    let Some(Value::Array(types)) = config.get("layer_types") else {
        if config.get("layer_types") == Some(&Value::Null) {
            config.remove("layer_types");
        }
        return;
    };
    let family = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    let pattern = match types.iter().position(|kind| kind == FULL) {
        Some(first) if family.starts_with("gemma3") => Some(first + 1),
        _ => None,
    };
    let mut implied = config.clone();
    if let Some(pattern) = pattern {
        implied.insert("sliding_window_pattern".to_owned(), pattern.into());
    }
    if rule(&implied).is_some_and(|rule| rule.iter().eq(types.iter())) {
        implied.remove("layer_types");
        *config = implied;
    }
}

fn is_unset(config: &Map<String, Value>, key: &str) -> bool {
    config.get(key).is_none_or(Value::is_null)
}

/// The list that the family's rule makes; `None` where the rule is not known.
///
/// The rules are those of the configurations' `__init__` in transformers 4.53 (`layer_types is None`).
fn rule(config: &Map<String, Value>) -> Option<Vec<Value>> {
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let layers = number("num_hidden_layers").filter(|&layers| layers <= MAX_LAYERS)?;
    let window = !is_unset(config, "sliding_window");
    let sliding: Box<dyn Fn(u64) -> bool> = match config.get("model_type")?.as_str()? {
        "gemma2" => Box::new(|layer| layer % 2 == 0),
        "gemma3" | "gemma3_text" => {
            let pattern = number("sliding_window_pattern").unwrap_or(6);
            Box::new(move |layer| pattern > 0 && (layer + 1) % pattern != 0)
        }
        "qwen2" | "qwen3" => {
            let first = number("max_window_layers").unwrap_or(28);
            Box::new(move |layer| window && layer >= first)
        }
        "mistral" | "phi3" => Box::new(move |_| window),
        "gemma" | "llama" => Box::new(|_| false),
        _ => return None,
    };
    Some((0..layers).map(|layer| Value::from(if sliding(layer) { SLIDING } else { FULL })).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(family: &str, keys: Value, types: &str, dropped: bool, pattern: Option<u64>) {
        let Value::Object(mut config) = keys else { panic!("not an object") };
        let types: Vec<_> = types.chars().map(|c| if c == 's' { SLIDING } else { FULL }).collect();
        config.insert("model_type".to_owned(), family.into());
        config.insert("num_hidden_layers".to_owned(), types.len().into());
        config.insert("layer_types".to_owned(), json!(types));
        imply(&mut config);
        assert_eq!(!config.contains_key("layer_types"), dropped, "{config:?}");
        assert_eq!(config.get("sliding_window_pattern").and_then(Value::as_u64), pattern);
    }

    #[test]
    fn rules() {
        check("gemma2", json!({"sliding_window": 64}), "sfsf", true, None);
        check("gemma2", json!({"sliding_window": 64}), "fsfs", false, None);
        check("gemma3_text", json!({"sliding_window": 64}), "ssfss", true, Some(3));
        check("gemma3_text", json!({"sliding_window": 64, "sliding_window_pattern": 3}), "ssfss", true, Some(3));
        check("gemma3_text", json!({"sliding_window": 64, "sliding_window_pattern": 2}), "ssfss", true, Some(3));
        check("gemma3_text", json!({"sliding_window": 64, "sliding_window_pattern": 6}), "sfsf", true, Some(2));
        check("gemma3_text", json!({"sliding_window": 64, "sliding_window_pattern": 6}), "ffss", false, Some(6));
        check("gemma3_text", json!({"sliding_window": 64}), "ssffs", false, None);
        check("gemma3_text", json!({"sliding_window": 64}), "sssss", true, None);
        check("gemma3_text", json!({"sliding_window": 64}), "sssssss", false, None);
        check("qwen2", json!({"sliding_window": null}), "fff", true, None);
        check("qwen2", json!({"sliding_window": 64, "max_window_layers": 1}), "fss", true, None);
        check("qwen2", json!({"sliding_window": 64, "max_window_layers": 1}), "fff", false, None);
        check("mistral", json!({"sliding_window": 64}), "ss", true, None);
        check("llama", json!({}), "ff", true, None);
        check("llama", json!({}), "fs", false, None);
        check("mamba", json!({}), "ff", false, None);
    }
}
