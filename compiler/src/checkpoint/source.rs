//! A Hugging Face checkpoint on disk: configuration and tensors, in one file or several.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::model_dir::{MODEL_JSON, MODEL_SAFETENSORS};
use super::safetensors::{SafeTensors, TensorView};
use super::{config, json};
use crate::error::{Error, Result};

/// Name of the list of a sharded checkpoint's tensors.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint's directory and its configuration: everything but the weights, which may still be on their way.
#[derive(Clone, Debug)]
pub struct Outline {
    path: PathBuf,
    config: Map<String, Value>,
    model_type: String,
}

impl Outline {
    /// Opens the directory and normalises the configuration.
    ///
    /// # Errors
    /// It is no checkpoint, or has a damaged configuration.
    pub fn open(path: &Path) -> Result<Self> {
        let not_checkpoint = |reason: &str| Error::NotCheckpoint { path: path.to_owned(), reason: reason.to_owned() };
        if !path.is_dir() {
            let reason = match path.exists() {
                true => "it is a file; name the directory that holds config.json and model.safetensors",
                false => "there is no such directory",
            };
            return Err(not_checkpoint(reason));
        }
        if path.join(MODEL_JSON).is_file() {
            return Err(not_checkpoint("it is a model directory, converted already; quantize or compile it"));
        }
        let config_path = path.join("config.json");
        if !config_path.is_file() {
            return Err(not_checkpoint("it has no config.json; name the directory of a Hugging Face checkpoint"));
        }
        let config = config::normalize(json::read_object(&config_path)?)?;
        let model_type = match config.get("model_type") {
            Some(Value::String(model_type)) => model_type.clone(),
            _ => return Err(Error::json(&config_path, "has no `model_type`, which names the family of the model")),
        };
        Ok(Outline { path: path.to_owned(), config, model_type })
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration in the spelling of transformers 4.
    pub fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    /// The family: `gemma2`.
    pub fn model_type(&self) -> &str {
        &self.model_type
    }

    /// Whether the language model is a part of a larger one.
    pub fn is_multimodal(&self) -> bool {
        self.config.contains_key("text_config")
    }

    /// What `preprocessor_config.json` says, if there is one.
    pub fn preprocessor(&self) -> Result<Option<Value>> {
        let path = self.path.join("preprocessor_config.json");
        if path.is_file() { json::read(&path, json::MAX_BYTES).map(Some) } else { Ok(None) }
    }
}

/// An open checkpoint. Tensors have the names of their files; [`names::canonical`](super::names::canonical) translates.
#[derive(Debug)]
pub struct Source {
    outline: Outline,
    shards: Vec<SafeTensors>,
}

impl Source {
    /// Opens the directory, checks headers and index, and normalises the configuration.
    ///
    /// # Errors
    /// It is no checkpoint, an incomplete or a damaged one.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Source { outline: Outline::open(path)?, shards: open_shards(path)? })
    }

    /// Everything but the weights.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.outline.path
    }

    /// The files of tensors, ordered by name.
    pub fn shards(&self) -> &[SafeTensors] {
        &self.shards
    }

    /// All tensors with the number of their shard.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, TensorView<'_>)> {
        self.shards.iter().enumerate().flat_map(|(index, shard)| shard.tensors().map(move |view| (index, view)))
    }
}

fn open_shards(directory: &Path) -> Result<Vec<SafeTensors>> {
    let single = directory.join(MODEL_SAFETENSORS);
    if single.is_file() {
        return Ok(vec![SafeTensors::open(&single)?]);
    }
    let index = directory.join(INDEX);
    if !index.is_file() {
        return Err(Error::NotCheckpoint { path: directory.to_owned(), reason: without_weights(directory)? });
    }
    let tensors = read_index(&index)?;
    let missing: Vec<_> = tensors.keys().filter(|file| !directory.join(file).is_file()).cloned().collect();
    if !missing.is_empty() {
        return Err(Error::MissingShards { path: index, missing, total: tensors.len() });
    }
    let shards: Result<Vec<_>> = tensors.keys().map(|file| SafeTensors::open(&directory.join(file))).collect();
    let shards = shards?;
    let listed = tensors.iter().map(|(file, listed)| (file.as_str(), listed.as_slice()));
    check_index(&index, listed.zip(&shards).map(|((file, listed), shard)| (file, listed, shard)))?;
    Ok(shards)
}

/// Compares the names that the index at `path` lists for some files with those in the files.
pub(super) fn check_index<'a>(
    path: &Path,
    files: impl IntoIterator<Item = (&'a str, &'a [String], &'a SafeTensors)>,
) -> Result<()> {
    let mut problems = Vec::new();
    for (file, listed, shard) in files {
        let found: BTreeSet<&str> = shard.names().collect();
        let listed: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
        problems.extend(listed.difference(&found).map(|name| format!("{file} lacks `{name}`")));
        problems
            .extend(found.difference(&listed).map(|name| format!("{file} holds `{name}`, which is not listed in it")));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::ShardIndex { path: path.to_owned(), problems }) }
}

/// The names of the tensors in each file.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, Vec<String>>> {
    let index = json::read_object(path)?;
    let Some(Value::Object(map)) = index.get("weight_map") else {
        return Err(Error::json(path, "has no object `weight_map`"));
    };
    let mut files = BTreeMap::<String, Vec<String>>::new();
    for (tensor, file) in map {
        let file = file.as_str().filter(|file| is_plain_name(file));
        let file =
            file.ok_or_else(|| Error::json(path, format!("weight_map: `{tensor}` is in no file of this directory")))?;
        files.entry(file.to_owned()).or_default().push(tensor.clone());
    }
    if files.is_empty() { Err(Error::json(path, "`weight_map` is empty")) } else { Ok(files) }
}

/// Whether the name stays within its directory.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0', ':'])
}

fn without_weights(directory: &Path) -> Result<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(Error::io("read", directory))? {
        let entry = entry.map_err(Error::io("read", directory))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    let found = |endings: &[&str]| names.iter().find(|name| endings.iter().any(|ending| name.ends_with(ending)));
    let reason = format!("it has neither {MODEL_SAFETENSORS} nor {INDEX}");
    Ok(if let Some(name) = found(&[".bin", ".pt", ".pth"]) {
        format!(
            "{reason}, only {name} in PyTorch's format, which can run code when read; load it with transformers and \
             save it with `model.save_pretrained(dir, safe_serialization=True)`"
        )
    } else if let Some(name) = found(&[".safetensors"]) {
        format!("{reason}, only {name}; download the index too, or rename the file if it is the whole model")
    } else {
        format!("{reason}; download the weights")
    })
}
