//! `config.json`: the spellings of transformers 4 and 5 to the one of 4, keys ordered.
//!
//! | transformers 5 | here |
//! |---|---|
//! | `dtype` | `torch_dtype` |
//! | `rope_parameters: {rope_theta, rope_type, …}` | `rope_theta`, `rope_scaling` (absent where the type is `default` and nothing else is said) |
//! | `rope_parameters: {full_attention: …, sliding_attention: …}` | the same for full attention, `rope_local_base_freq` for sliding |
//! | `layer_types` | absent where the family's own rule says the same |
//! | `image_token_id` | `image_token_index` |
//!
//! Where several spellings contradict each other, transformers 5 decides (`modeling_rope_utils.py`): `rope_scaling` before
//! `rope_parameters`, what they hold before keys beside them. Keys that say nothing about the model are dropped:
//! `transformers_version` and those that begin with `_`. Nested `text_config` and `vision_config` are treated alike.
//! Whether a key is understood is the family's business.

use serde_json::{Map, Value};

use super::layers;
use crate::error::{Error, Result};
use crate::note::Note;

/// Keys that were renamed: transformers 5, transformers 4.
const RENAMED: [(&str, &str); 2] = [("image_token_id", "image_token_index"), ("video_token_id", "video_token_index")];

/// Configurations within a configuration.
const NESTED: [&str; 2] = ["text_config", "vision_config"];

/// Translates a configuration; translating the result changes nothing.
///
/// # Errors
/// Two spellings of a key are there and contradict each other, or a key cannot be told in transformers 4's terms.
pub fn normalize(config: Map<String, Value>) -> Result<Map<String, Value>> {
    let mut config = Scope { map: config, prefix: String::new() };
    config.normalize()?;
    Ok(config.map)
}

/// A note where `architectures` names the class of another family than `model_type`, which alone counts, as in transformers.
pub(super) fn other_architecture(config: &Map<String, Value>) -> Option<Note> {
    /// Beginnings of the classes of families, those of which others begin first.
    const CLASSES: [(&str, &str); 10] = [
        ("gemma2", "Gemma2For"),
        ("gemma3_text", "Gemma3For"),
        ("gemma", "GemmaFor"),
        ("llava_onevision", "LlavaOnevisionFor"),
        ("llava", "LlavaFor"),
        ("llama", "LlamaFor"),
        ("mistral", "MistralFor"),
        ("phi3", "Phi3For"),
        ("qwen2", "Qwen2For"),
        ("qwen3", "Qwen3For"),
    ];
    let model_type = config.get("model_type")?.as_str()?;
    let architecture = config.get("architectures")?.as_array()?.first()?.as_str()?;
    let begins = |class: &str| architecture.to_ascii_lowercase().starts_with(&class.to_ascii_lowercase());
    let (family, _) = CLASSES.iter().find(|(_, class)| begins(class))?;
    (*family != model_type && CLASSES.iter().any(|(family, _)| *family == model_type)).then(|| {
        Note::OtherArchitecture {
            architecture: architecture.chars().take(60).collect(),
            model_type: model_type.to_owned(),
        }
    })
}

/// One level of the configuration and where it is.
struct Scope {
    map: Map<String, Value>,
    prefix: String,
}

impl Scope {
    fn normalize(&mut self) -> Result<()> {
        // Of the two, transformers 5 reads the one without the bar.
        if let Some(pattern) = self.map.remove("_sliding_window_pattern") {
            self.map.entry("sliding_window_pattern").or_insert(pattern);
        }
        self.map.retain(|key, _| key != "transformers_version" && !key.starts_with('_'));
        // Tensors have types of their own, so it does not matter what two spellings say.
        if let Some(dtype) = self.map.remove("dtype") {
            self.map.insert("torch_dtype".to_owned(), dtype);
        }
        for (new, old) in RENAMED {
            if let Some(value) = self.map.remove(new) {
                self.set(old, value)?;
            }
        }
        self.rope()?;
        let family = self.map.get("model_type").and_then(Value::as_str);
        // Mistral's class has no such flag.
        if self.map.get("use_sliding_window") == Some(&Value::Bool(false)) && family != Some("mistral") {
            self.map.insert("sliding_window".to_owned(), Value::Null);
        }
        layers::imply(&mut self.map);
        for key in NESTED {
            match self.map.remove(key) {
                Some(Value::Object(map)) => {
                    let mut nested = Scope { map, prefix: format!("{}{key}.", self.prefix) };
                    nested.normalize()?;
                    self.map.insert(key.to_owned(), Value::Object(nested.map));
                }
                Some(Value::Null) | None => {}
                Some(_) => return Err(self.error(key, "expected an object")),
            }
        }
        self.map.values_mut().for_each(Value::sort_all_objects);
        self.map.sort_keys();
        Ok(())
    }

    fn error(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::Config { key: format!("{}{key}", self.prefix), reason: reason.into() }
    }

    /// Sets a key that must not say something else already.
    fn set(&mut self, key: &str, value: Value) -> Result<()> {
        match self.map.get(key) {
            Some(old) if !old.is_null() && !same(old, &value) => {
                Err(self.error(key, format!("is {old}, but the newer spelling of the same key says {value}")))
            }
            _ => {
                self.map.insert(key.to_owned(), value);
                Ok(())
            }
        }
    }

    fn rope(&mut self) -> Result<()> {
        let mut scaling = self.scaling()?;
        let is_said = scaling.as_ref().is_some_and(|scaling| !scaling.is_empty());
        match self.map.remove("rope_parameters") {
            None | Some(Value::Null) => {}
            Some(Value::Object(parameters)) if parameters.values().any(Value::is_object) => {
                self.rope_by_layer_type(parameters, &mut scaling)?;
            }
            Some(Value::Object(_)) if is_said => {}
            Some(Value::Object(parameters)) => scaling = Some(parameters),
            Some(_) => return Err(self.error("rope_parameters", "expected an object")),
        }
        scaling.map_or(Ok(()), |scaling| self.rope_parameters(scaling))
    }

    /// `rope_scaling`; before 4.43 its `rope_type` was called `type`, and both are often there.
    fn scaling(&mut self) -> Result<Option<Map<String, Value>>> {
        match self.map.remove("rope_scaling") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(scaling)) => Ok(Some(scaling)),
            Some(_) => Err(self.error("rope_scaling", "expected an object")),
        }
    }

    /// `{rope_theta, rope_type, …}`, which are before the keys beside them.
    fn rope_parameters(&mut self, mut parameters: Map<String, Value>) -> Result<()> {
        if let Some(kind) = parameters.remove("type") {
            parameters.entry("rope_type").or_insert(kind);
        }
        if let Some(theta) = parameters.remove("rope_theta") {
            self.map.insert("rope_theta".to_owned(), theta);
        }
        if let Some(factor) = parameters.remove("partial_rotary_factor") {
            match factor.as_f64() == Some(1.0) {
                true => self.map.remove("partial_rotary_factor"),
                false => self.map.insert("partial_rotary_factor".to_owned(), factor),
            };
        }
        let is_default = parameters.get("rope_type").is_none_or(|kind| kind.is_null() || kind == "default");
        if is_default {
            parameters.remove("rope_type");
            parameters.retain(|_, value| !value.is_null());
        }
        // What a scaling would read has no effect without one, which the family notes.
        if !parameters.is_empty() {
            self.map.insert("rope_scaling".to_owned(), Value::Object(parameters));
        }
        Ok(())
    }

    /// `{full_attention: {…}, sliding_attention: {…}}`, as Gemma 3 has it. `scaling` becomes that of full attention, into which
    /// `rope_scaling` was merged.
    fn rope_by_layer_type(
        &mut self,
        mut parameters: Map<String, Value>,
        scaling: &mut Option<Map<String, Value>>,
    ) -> Result<()> {
        let mut full = match parameters.remove("full_attention") {
            Some(Value::Object(full)) => full,
            None | Some(Value::Null) => Map::new(),
            _ => return Err(self.error("rope_parameters.full_attention", "expected an object")),
        };
        match parameters.remove("sliding_attention") {
            None | Some(Value::Null) => {}
            Some(Value::Object(sliding)) => self.sliding_rope(&sliding, &full)?,
            Some(_) => return Err(self.error("rope_parameters.sliding_attention", "expected an object")),
        }
        if let Some(key) = parameters.iter().find(|(_, value)| !value.is_null()).map(|(key, _)| key) {
            return Err(self.error(
                &format!("rope_parameters.{key}"),
                "is not a supported layer type: expected full_attention and sliding_attention",
            ));
        }
        full.extend(scaling.take().unwrap_or_default());
        *scaling = Some(full);
        Ok(())
    }

    /// The base of sliding layers; families whose layers all have the same have no key for it.
    fn sliding_rope(&mut self, sliding: &Map<String, Value>, full: &Map<String, Value>) -> Result<()> {
        let kind = |map: &Map<String, Value>| map.get("rope_type").or(map.get("type")).cloned().unwrap_or_default();
        if !matches!(kind(sliding).as_str(), None | Some("default")) {
            let reason = "expected rope_type `default`; scaled sliding layers are not supported";
            return Err(self.error("rope_parameters.sliding_attention", reason));
        }
        let Some(theta) = sliding.get("rope_theta").filter(|theta| !theta.is_null()) else { return Ok(()) };
        let is_gemma = self.map.get("model_type").and_then(Value::as_str).is_none_or(|name| name.starts_with("gemma3"));
        let is_unscaled = matches!(kind(full).as_str(), None | Some("default"));
        if is_gemma || !is_unscaled || full.get("rope_theta").is_none_or(|full| !same(full, theta)) {
            self.map.insert("rope_local_base_freq".to_owned(), theta.clone());
        }
        Ok(())
    }
}

/// Equal, where 10000 equals 10000.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn read(path: &str) -> Map<String, Value> {
        let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn golden_configs_of_both_versions_become_the_same() {
        let root = format!("{}/../tests/golden", env!("CARGO_MANIFEST_DIR"));
        let mut compared = 0;
        for entry in std::fs::read_dir(root).unwrap() {
            let entry = entry.unwrap();
            if !entry.path().join("config.json").is_file() {
                continue;
            }
            let family = entry.file_name().into_string().unwrap();
            let new = normalize(read(&format!("tests/golden/{family}/config.json"))).unwrap();
            let old = normalize(read(&format!("tests/golden/{family}/config_v4.json"))).unwrap();
            assert_eq!(json!(new).to_string(), json!(old).to_string(), "{family}");
            assert_eq!(normalize(new.clone()).unwrap(), new, "{family} is stable");
            assert!(!new.contains_key("layer_types") && !new.contains_key("rope_parameters"), "{family}");
            compared += 1;
        }
        assert!(compared >= 11, "{compared}");
    }

    #[track_caller]
    fn check(config: Value, expected: Expect) {
        let Value::Object(map) = config else { panic!("not an object") };
        let text = match normalize(map) {
            Ok(map) => json!(map).to_string(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn rope() {
        check(
            json!({"rope_parameters": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}}),
            expect![[r#"{"rope_scaling":{"factor":8.0,"rope_type":"linear"},"rope_theta":1000000.0}"#]],
        );
        check(
            json!({"rope_scaling": {"type": "linear", "factor": 8.0}}),
            expect![[r#"{"rope_scaling":{"factor":8.0,"rope_type":"linear"}}"#]],
        );
        check(
            json!({"rope_theta": 10000, "rope_parameters": {"rope_theta": 10000.0}}),
            expect![[r#"{"rope_theta":10000.0}"#]],
        );
        check(
            json!({"rope_theta": 5, "rope_parameters": {"rope_theta": 10000.0}}),
            expect![[r#"{"rope_theta":10000.0}"#]],
        );
        check(
            json!({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}),
            expect![[r#"{"partial_rotary_factor":0.5,"rope_theta":10000.0}"#]],
        );
        check(
            json!({"rope_parameters": {"rope_theta": 1e4, "factor": 2.0}}),
            expect![[r#"{"rope_scaling":{"factor":2.0},"rope_theta":10000.0}"#]],
        );
        check(json!({"rope_parameters": 3}), expect!["config key `rope_parameters`: expected an object"]);
        check(json!({"rope_scaling": "yarn"}), expect!["config key `rope_scaling`: expected an object"]);
        for nothing in [json!(null), json!({}), json!({"type": "default"}), json!({"rope_type": null, "factor": null})]
        {
            check(json!({"rope_scaling": nothing}), expect!["{}"]);
        }
        // Of both, `rope_scaling` counts, and what it does not say is not taken from the other.
        check(
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 5.0}}),
            expect![[r#"{"rope_scaling":{"factor":2.0,"rope_type":"linear"}}"#]],
        );
        check(
            json!({"model_type": "qwen3", "rope_parameters": {
                "full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e6}}}),
            expect![[r#"{"model_type":"qwen3","rope_theta":1000000.0}"#]],
        );
        check(
            json!({"model_type": "qwen3", "rope_parameters": {
                "full_attention": {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}}),
            expect![[r#"{"model_type":"qwen3","rope_local_base_freq":10000.0,"rope_theta":1000000.0}"#]],
        );
        check(
            json!({"model_type": "gemma3_text", "rope_scaling": {"type": "linear", "factor": 8.0}, "rope_parameters": {
                "full_attention": {"rope_theta": 1e6}, "sliding_attention": null}}),
            expect![[
                r#"{"model_type":"gemma3_text","rope_scaling":{"factor":8.0,"rope_type":"linear"},"rope_theta":1000000.0}"#
            ]],
        );
        check(
            json!({"text_config": {"rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4}}}}),
            expect![[
                r#"{"text_config":{"rope_local_base_freq":10000.0,"rope_scaling":{"factor":8.0,"rope_type":"linear"},"rope_theta":1000000.0}}"#
            ]],
        );
        check(
            json!({"text_config": {"rope_parameters": {
                "full_attention": {"rope_theta": 1e6},
                "sliding_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4}}}}),
            expect![
                "config key `text_config.rope_parameters.sliding_attention`: expected rope_type `default`; scaled sliding layers are not supported"
            ],
        );
        check(
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}, "chunked_attention": {}}}),
            expect![
                "config key `rope_parameters.chunked_attention`: is not a supported layer type: expected full_attention and sliding_attention"
            ],
        );
    }

    #[test]
    fn names() {
        check(
            json!({"dtype": "bfloat16", "_name_or_path": "x", "transformers_version": "5", "image_token_id": 7,
                "_sliding_window_pattern": 6, "text_config": {"dtype": "float32"}, "vision_config": null}),
            expect![[
                r#"{"image_token_index":7,"sliding_window_pattern":6,"text_config":{"torch_dtype":"float32"},"torch_dtype":"bfloat16"}"#
            ]],
        );
        check(json!({"dtype": "bfloat16", "torch_dtype": "float16"}), expect![[r#"{"torch_dtype":"bfloat16"}"#]]);
        check(json!({"text_config": 7}), expect!["config key `text_config`: expected an object"]);
        check(
            json!({"use_sliding_window": false, "sliding_window": 32768}),
            expect![[r#"{"sliding_window":null,"use_sliding_window":false}"#]],
        );
    }
}
