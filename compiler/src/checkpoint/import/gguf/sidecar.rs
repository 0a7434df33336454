//! Files of the Hugging Face checkpoint that lie beside a GGUF file: where they are there, they win over its metadata.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::super::super::{carried, config, json};
use super::config::Told;
use super::rope_factors;
use crate::error::{Error, Result};

/// Keys that are compared by other means, or belong to the file alone.
const NOT_COMPARED: [&str; 4] = ["eos_token_id", "bos_token_id", "pad_token_id", "model_type"];

/// The directory of the file.
pub struct Sidecar {
    directory: PathBuf,
}

impl Sidecar {
    /// That of a GGUF file.
    pub fn of(file: &Path) -> Self {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        Sidecar { directory: parent.unwrap_or(Path::new(".")).to_owned() }
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of a file, if it is there.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        Some(self.directory.join(name)).filter(|path| path.is_file())
    }

    /// Bytes of the files that go into the model directory.
    pub fn carried_bytes(&self) -> u64 {
        carried::total_bytes(&self.directory)
    }

    /// The configuration: that of `config.json`, with what only the metadata tell, or else that of the metadata; the scaling
    /// of rotations is that which gives the file's `divisors`, where it has them.
    pub fn config(&self, told: Told, divisors: Option<&[f32]>) -> Result<Map<String, Value>> {
        match self.file("config.json") {
            Some(path) => beside(&path, told, divisors),
            None => alone(told, divisors),
        }
    }
}

fn theta(config: &Map<String, Value>) -> f64 {
    config.get("rope_theta").and_then(Value::as_f64).unwrap_or(10_000.0)
}

fn alone(told: Told, divisors: Option<&[f32]>) -> Result<Map<String, Value>> {
    let Told { mut config, derived, .. } = told;
    config.extend(derived);
    if let Some(divisors) = divisors {
        let scaling = rope_factors::recover(divisors, theta(&config)).ok_or_else(|| {
            let reason = "the divisors in `rope_freqs.weight` come of no scaling that is known; put the config.json of the \
                          Hugging Face checkpoint beside the GGUF file";
            Error::Config { key: "rope_scaling".to_owned(), reason: reason.to_owned() }
        })?;
        if !scaling.is_null() {
            config.insert("rope_scaling".to_owned(), scaling);
        }
    }
    config::normalize(config)
}

fn beside(path: &Path, told: Told, divisors: Option<&[f32]>) -> Result<Map<String, Value>> {
    let mut config = config::normalize(json::read_object(path)?)?;
    let told = config::normalize(told.config)?;
    // What was published with pictures (Gemma 3) is a text model in a GGUF file.
    if let Some(Value::Object(text)) = config.remove("text_config") {
        config = text;
    }
    let mut problems = Vec::new();
    let family = |config: &Map<String, Value>| config.get("model_type").cloned().unwrap_or_default();
    let (found, expected) = (family(&config), family(&told));
    // llama.cpp calls Mistral's architecture llama, too.
    let one_architecture = |family: &Value| family == "llama" || family == "mistral";
    if found != expected && !(one_architecture(&found) && one_architecture(&expected)) {
        problems.push(format!("`model_type` is {found}, the GGUF file's is {expected}"));
    }
    for (key, value) in told {
        match config.get(&key) {
            _ if NOT_COMPARED.contains(&key.as_str()) => {}
            Some(found) if !same(found, &value) => {
                problems.push(format!("`{key}` is {found}, the GGUF file says {value}"));
            }
            Some(_) => {}
            None => {
                config.insert(key, value);
            }
        }
    }
    if let Some(divisors) = divisors
        && !rope_factors::agrees(config.get("rope_scaling"), divisors, theta(&config))
    {
        problems.push("`rope_scaling` does not give the divisors in the GGUF file's `rope_freqs.weight`".to_owned());
    }
    match problems.is_empty() {
        true => Ok(config),
        false => Err(Error::Sidecar { path: path.to_owned(), problems }),
    }
}

/// Equal, where 10000 equals 10000.0 and numbers were rounded to f32 on their way into the file.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a as f32 == b as f32 || (a - b).abs() <= 1e-6 * b.abs(),
            _ => a == b,
        },
    }
}
