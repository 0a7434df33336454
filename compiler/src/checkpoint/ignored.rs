//! Keys that the user wants left out of a configuration, whatever they mean.

use serde_json::{Map, Value};

use crate::note::Note;

/// Stands before keys of the image processor's configuration in messages, and may do so here.
const PROCESSOR: &str = "preprocessor_config.json: ";

/// Keys to leave out, as messages spell them: dots between levels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IgnoredKeys {
    keys: Vec<String>,
}

impl IgnoredKeys {
    /// These keys.
    pub fn new(keys: Vec<String>) -> Self {
        IgnoredKeys { keys }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Removes them from one configuration, and returns those that it had, each with its value.
    pub(super) fn remove_from(&self, config: &mut Map<String, Value>) -> Removed {
        let mut removed = Removed::default();
        for key in &self.keys {
            if let Some(value) = remove(config, key.strip_prefix(PROCESSOR).unwrap_or(key)) {
                removed.keys.push((key.clone(), value));
            }
        }
        removed
    }

    /// What to say after all configurations were read: what was left out, and what was nowhere.
    pub(super) fn notes(&self, removed: &Removed) -> Vec<Note> {
        let mut left_out = Vec::new();
        for (key, value) in &removed.keys {
            let text = value.to_string();
            let shown: String = text.chars().take(40).collect();
            let more = if shown.len() < text.len() { "…" } else { "" };
            left_out.push(format!("{key} = {shown}{more}"));
        }
        let missing = self.keys.iter().filter(|key| !removed.keys.iter().any(|(found, _)| found == *key));
        let missing: Vec<String> = missing.cloned().collect();
        let mut notes = Vec::new();
        if !left_out.is_empty() {
            notes.push(Note::IgnoredKeys { keys: left_out });
        }
        if !missing.is_empty() {
            notes.push(Note::NothingToIgnore { keys: missing });
        }
        notes
    }
}

/// What was left out of configurations.
#[derive(Clone, Debug, Default)]
pub(super) struct Removed {
    keys: Vec<(String, Value)>,
}

impl Removed {
    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Takes over what was left out elsewhere; a key that was left out twice is told once.
    pub fn extend(&mut self, other: Removed) {
        for (key, value) in other.keys {
            if !self.keys.iter().any(|(known, _)| *known == key) {
                self.keys.push((key, value));
            }
        }
    }
}

/// Removes a key of a nested configuration; keys may contain dots themselves.
fn remove(config: &mut Map<String, Value>, key: &str) -> Option<Value> {
    if let Some(value) = config.shift_remove(key) {
        return Some(value);
    }
    key.match_indices('.').find_map(|(at, _)| match config.get_mut(&key[..at]) {
        Some(Value::Object(nested)) => remove(nested, &key[at + 1..]),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_all_levels() {
        let Value::Object(mut config) =
            json!({"a": 1, "b": {"c": {"d": 2, "e": 3}}, "transformers.js_config": {"x": 1}, "z": "y".repeat(60)})
        else {
            panic!("an object");
        };
        let names = ["a", "b.c.d", "transformers.js_config.x", "preprocessor_config.json: z", "b.d", "q"];
        let ignored = IgnoredKeys::new(names.map(str::to_owned).to_vec());
        let removed = ignored.remove_from(&mut config);
        assert_eq!(Value::Object(config), json!({"b": {"c": {"e": 3}}, "transformers.js_config": {}}));
        let notes: Vec<String> = ignored.notes(&removed).iter().map(ToString::to_string).collect();
        assert_eq!(
            notes,
            [
                format!(
                    "ignored as --ignore-key says: a = 1, b.c.d = 2, transformers.js_config.x = 1, \
                     preprocessor_config.json: z = \"{}…",
                    "y".repeat(39)
                ),
                "--ignore-key names keys that the configuration does not have: b.d, q".to_owned(),
            ]
        );
    }
}
