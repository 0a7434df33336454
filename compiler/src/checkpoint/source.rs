//! A Hugging Face checkpoint on disk: configuration and tensors, in one file or several.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::model_dir::{MODEL_JSON, MODEL_SAFETENSORS};
use super::safetensors::{SafeTensors, TensorView};
use super::{IgnoredKeys, config, head, json, names, processor};
use crate::error::{Error, Result};
use crate::note::Note;

/// Name of the list of a sharded checkpoint's tensors.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// A checkpoint's directory and its configuration: everything but the weights, which may still be on their way.
#[derive(Clone, Debug)]
pub struct Outline {
    path: PathBuf,
    config: Map<String, Value>,
    model_type: String,
    preprocessor: Option<Value>,
    notes: Vec<Note>,
}

impl Outline {
    /// Opens the directory and normalises the configuration, without the keys that are ignored.
    ///
    /// # Errors
    /// It is no checkpoint, or has a damaged configuration.
    pub fn open(path: &Path, ignored: &IgnoredKeys) -> Result<Self> {
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
        let mut raw = json::read_object(&config_path)?;
        let mut removed = ignored.remove_from(&mut raw);
        let mut config = config::normalize(raw)?;
        removed.extend(ignored.remove_from(&mut config));
        let mut preprocessor = processor::read(path)?;
        if let Some(Value::Object(processor)) = &mut preprocessor {
            removed.extend(ignored.remove_from(processor));
        }
        let mut notes = ignored.notes(&removed);
        notes.extend(config::other_architecture(&config));
        let model_type = match config.get("model_type") {
            Some(Value::String(model_type)) => model_type.clone(),
            _ => return Err(Error::json(&config_path, "has no `model_type`, which names the family of the model")),
        };
        Ok(Outline { path: path.to_owned(), config, model_type, preprocessor, notes })
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

    /// What the image processor's configuration says, if there is one.
    pub fn preprocessor(&self) -> Option<&Value> {
        self.preprocessor.as_ref()
    }

    /// What is worth a line.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Says that the checkpoint's own head counts.
    pub(super) fn untie(&mut self, note: Note) {
        head::untie(&mut self.config);
        self.notes.push(note);
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
        Self::open_ignoring(path, &IgnoredKeys::default())
    }

    /// The same without the keys that are ignored. A head of the checkpoint's own counts, whatever the configuration says.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_ignoring(path: &Path, ignored: &IgnoredKeys) -> Result<Self> {
        let mut outline = Outline::open(path, ignored)?;
        let (shards, listed) = open_shards(path)?;
        if let Ok(needs) = outline.needs() {
            if let Some(note) = head::own_head(&needs, outline.is_multimodal(), &shards) {
                outline.untie(note);
            }
            let found: BTreeSet<&str> = shards.iter().flat_map(SafeTensors::names).collect();
            let is_spare = |name: &String| {
                let name = names::canonical(name, outline.is_multimodal());
                !needs.tensors.contains_key(name.as_ref())
            };
            let names: Vec<String> =
                listed.into_iter().filter(|name| !found.contains(name.as_str()) && is_spare(name)).collect();
            if !names.is_empty() {
                outline.notes.push(Note::SpareNames { names });
            }
        }
        Ok(Source { outline, shards })
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

/// The files of tensors, and the names that the index lists, where there is one. What it lists counts only for finding the files:
/// published indices name tied heads and other tensors that no shard holds, and leave out some that one does.
fn open_shards(directory: &Path) -> Result<(Vec<SafeTensors>, Vec<String>)> {
    let single = directory.join(MODEL_SAFETENSORS);
    if single.is_file() {
        return Ok((vec![SafeTensors::open(&single)?], Vec::new()));
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
    Ok((shards?, tensors.into_values().flatten().collect()))
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

#[cfg(test)]
mod tests;
