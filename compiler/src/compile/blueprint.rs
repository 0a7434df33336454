//! What a model is compiled from: its description, wherever its tensors are or will be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dwindle_quant::Method;
use dwindle_schemes::{Format, Scheme};
use serde_json::Value;

use crate::checkpoint::{self, Companions, Conversion, ModelDir, ModelJson};
use crate::error::{Error, Result};

/// A model's description and where its carried files are. Planning needs no more; packing needs tensors, too.
#[derive(Clone, Debug)]
pub struct Blueprint {
    /// What the model is called in the bundle.
    pub name: String,
    /// Family, configuration, tensors and how each is stored.
    pub model: ModelJson,
    path: PathBuf,
    /// Contents of carried files that are not there yet, by name.
    made: BTreeMap<String, String>,
}

impl Blueprint {
    /// That of a quantized model directory, which gives the model its name.
    ///
    /// # Errors
    /// It is not quantized; its name cannot name a model.
    pub fn of(directory: &ModelDir) -> Result<Self> {
        let path = directory.path();
        if directory.model.kv.is_none() {
            return Err(Error::NotQuantized { path: path.to_owned() });
        }
        Ok(Blueprint {
            name: model_name(directory)?,
            model: directory.model.clone(),
            path: path.to_owned(),
            made: BTreeMap::new(),
        })
    }

    /// That of a description whose carried files are in `path`.
    pub fn new(name: &str, model: ModelJson, path: &Path) -> Self {
        Blueprint { name: name.to_owned(), model, path: path.to_owned(), made: BTreeMap::new() }
    }

    /// That of an unquantized description whose carried files are in `path`, as it will be when quantized as `scheme` by
    /// `method`.
    pub fn quantized(name: &str, mut model: ModelJson, path: &Path, scheme: &Scheme, method: Method) -> Self {
        for info in model.tensors.values_mut() {
            info.format = scheme.format(info.role);
        }
        model.scheme = Some(scheme.name.clone());
        model.method = Some(method.to_string());
        model.kv = Some(scheme.kv);
        Blueprint::new(name, model, path)
    }

    /// That of the checkpoint at `path`, as it will be when `conversion` has become a directory that is quantized as `scheme` by
    /// `method`.
    pub fn of_checkpoint(name: &str, path: &Path, conversion: &Conversion, scheme: &Scheme, method: Method) -> Self {
        let mut model = conversion.model().clone();
        let companions = conversion.companions();
        model.files = companions.map_or_else(|| checkpoint::carried::present(path), Companions::files);
        let made = companions.map(Companions::made).cloned().unwrap_or_default();
        Blueprint { made, ..Blueprint::quantized(name, model, path, scheme, method) }
    }

    /// Where its carried files are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How a logical tensor is stored.
    pub fn format(&self, name: &str) -> Option<Format> {
        self.model.tensors.get(name).map(|tensor| tensor.format)
    }

    /// The path of a carried file (`tokenizer.json`, `generation_config.json`), if the model has it.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        self.model.files.iter().find(|file| file.name == name).map(|file| self.path.join(&file.name))
    }

    /// The parsed content of a carried JSON file; `None` if the model does not have it.
    ///
    /// # Errors
    /// It cannot be read or is no JSON.
    pub fn json(&self, name: &str) -> Result<Option<Value>> {
        match self.made.get(name) {
            Some(text) => {
                checkpoint::parse_json(text.as_bytes()).map(Some).map_err(|e| Error::json(&self.path.join(name), e))
            }
            None => self.file(name).map(|path| checkpoint::read_json(&path)).transpose(),
        }
    }

    /// Bytes of a carried file; `None` if the model does not have it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file_bytes(&self, name: &str) -> Result<Option<u64>> {
        if let Some(text) = self.made.get(name) {
            return Ok(Some(text.len() as u64));
        }
        let length = |path: PathBuf| Ok(std::fs::metadata(&path).map_err(Error::io("read", &path))?.len());
        self.file(name).map(length).transpose()
    }

    /// Bytes of its tensors as they are stored, without gaps.
    pub fn tensor_bytes(&self) -> u64 {
        let bytes = |info: &checkpoint::TensorInfo| {
            let (rows, columns) = checkpoint::matrix(&info.shape);
            info.format.bytes(rows, columns) as u64
        };
        self.model.tensors.values().map(bytes).sum()
    }
}

/// A model is called like its directory.
///
/// # Errors
/// The directory has no name, or one that cannot be part of an entry's name.
pub fn model_name(directory: &ModelDir) -> Result<String> {
    let path = directory.path();
    let full = path.canonicalize().map_err(Error::io("read", path))?;
    let name = full.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':');
    if name.is_empty() || name.len() > 200 || !name.chars().all(plain) {
        return Err(Error::ModelName { path: path.to_owned() });
    }
    Ok(name.to_owned())
}
