//! The model directory: `model.json`, `model.safetensors`, and the files that belong to tokenizer and images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dwindle_schemes::{FloatType, Format, Role};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::safetensors::{Element, Layout, SafeTensors, TensorView};
use crate::error::{Error, Result};
use crate::quantize::Card;

/// `format` of every `model.json`.
const FORMAT: &str = "dwindle-model";

/// The version that this crate writes, and the only one it reads.
const VERSION: u32 = 2;

/// Name of the description.
pub(crate) const MODEL_JSON: &str = "model.json";

/// Name of the tensors' file.
pub(crate) const MODEL_SAFETENSORS: &str = "model.safetensors";

/// Largest `model.json` that is read, in bytes.
const MAX_MODEL_JSON: u64 = 64 << 20;

/// What `model.json` says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelJson {
    /// [`FORMAT`].
    format: String,
    /// [`VERSION`].
    version: u32,
    /// `model_type` of the configuration: `gemma2`.
    pub family: String,
    /// The scheme the weights were quantized with.
    pub scheme: Option<String>,
    /// The method that chose codes and scales.
    pub method: Option<String>,
    /// Type of the keys and values in the cache, `F16` or `F32`; there is one as soon as there is a scheme.
    pub kv: Option<FloatType>,
    /// The configuration in the spelling of transformers 4, keys ordered.
    pub config: Map<String, Value>,
    /// All logical tensors, by name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Files that are carried along unread: tokenizer, template, image processor.
    pub files: Vec<CarriedFile>,
    /// The files that the weights and the configuration came from.
    pub sources: Vec<SourceFile>,
    /// What quantization did.
    pub card: Option<Card>,
}

/// A logical tensor: what a family asks for by name, stored as one tensor or as codes and scales.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorInfo {
    /// What it is for.
    pub role: Role,
    /// Dimensions of the unquantized tensor, outermost first.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub format: Format,
}

/// A file of a model directory besides description and tensors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarriedFile {
    /// Name in the directory.
    pub name: String,
    /// Hash of its content.
    pub blake3: String,
}

/// A file of the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Name in the source directory.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Hash of its content.
    pub blake3: String,
}

impl ModelJson {
    /// The description of an unquantized model.
    pub(crate) fn new(family: String, config: Map<String, Value>, tensors: BTreeMap<String, TensorInfo>) -> Self {
        ModelJson {
            format: FORMAT.to_owned(),
            version: VERSION,
            family,
            scheme: None,
            method: None,
            kv: None,
            config,
            tensors,
            files: Vec::new(),
            sources: Vec::new(),
            card: None,
        }
    }

    /// Reads `dir/model.json`.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(MODEL_JSON);
        if !path.is_file() {
            let reason = match dir.join("config.json").is_file() {
                true => "it is a checkpoint; convert it first".to_owned(),
                false => format!("it has no {MODEL_JSON}; name a directory that convert or quantize wrote"),
            };
            return Err(Error::NotModelDirectory { path: dir.to_owned(), reason });
        }
        let value = super::json::read(&path, MAX_MODEL_JSON)?;
        if value.get("format").and_then(Value::as_str) != Some(FORMAT) {
            let reason = format!("{MODEL_JSON} does not say `\"format\": \"{FORMAT}\"`");
            return Err(Error::NotModelDirectory { path: dir.to_owned(), reason });
        }
        if value.get("version").and_then(Value::as_u64) != Some(u64::from(VERSION)) {
            let version = value.get("version").unwrap_or(&Value::Null);
            return Err(Error::json(
                &path,
                format!("format version {version}, this program reads version {VERSION}; convert the model again"),
            ));
        }
        serde_json::from_value(value).map_err(|error| Error::json(&path, error))
    }

    /// Writes `dir/model.json`.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(MODEL_JSON);
        let mut text = serde_json::to_string_pretty(self).map_err(|error| Error::json(&path, error))?;
        text.push('\n');
        std::fs::write(&path, text).map_err(Error::io("write", &path))
    }
}

impl TensorInfo {
    /// The stored tensors of this one, called `name`: name, element type and shape of each.
    ///
    /// A tensor of any rank is quantized as a matrix; see [`matrix`].
    pub(crate) fn stored(&self, name: &str) -> Vec<(String, Element, Vec<usize>)> {
        match self.format {
            Format::Plain(float) => vec![(name.to_owned(), float.into(), self.shape.clone())],
            Format::Grouped(grouped) => {
                let (rows, columns) = matrix(&self.shape);
                vec![
                    (format!("{name}.codes"), Element::U32, vec![rows, grouped.words(columns)]),
                    (format!("{name}.scales"), grouped.scale.into(), vec![rows, grouped.scales(columns)]),
                ]
            }
        }
    }

    /// Whether the number of elements, and of bytes in any format, is one that arithmetic can hold.
    fn is_sized(&self) -> bool {
        let elements = self.shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n.max(1)));
        elements.and_then(|n| n.checked_mul(64)).is_some()
    }
}

/// Where the stored tensors of these go in their file.
pub(crate) fn stored_layout(tensors: &BTreeMap<String, TensorInfo>) -> Layout {
    let stored = tensors.iter().flat_map(|(name, info)| info.stored(name));
    Layout::new(&stored.map(|(name, element, shape)| (name, (element, shape))).collect())
}

/// Rows and columns of a tensor seen as a matrix: the first dimension, and the product of the others.
pub(crate) fn matrix(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [columns] => (1, *columns),
        [rows, rest @ ..] => (*rows, rest.iter().product()),
    }
}

/// An open model directory.
#[derive(Debug)]
pub struct ModelDir {
    /// What `model.json` says.
    pub model: ModelJson,
    path: PathBuf,
    tensors: SafeTensors,
}

impl ModelDir {
    /// Opens a directory that [`convert`](super::convert) or [`quantize`](crate::quantize::quantize) wrote, and checks
    /// that it holds exactly the tensors and files that its `model.json` names.
    ///
    /// # Errors
    /// It is no model directory, or a damaged one.
    pub fn open(path: &Path) -> Result<Self> {
        let model = ModelJson::read(path)?;
        let tensors = SafeTensors::open(&path.join(MODEL_SAFETENSORS))?;
        let directory = ModelDir { model, path: path.to_owned(), tensors };
        let problems = directory.problems();
        if problems.is_empty() {
            Ok(directory)
        } else {
            Err(Error::DamagedModelDirectory { path: path.to_owned(), problems })
        }
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut expected = BTreeSet::new();
        for (logical, info) in &self.model.tensors {
            if !info.is_sized() {
                problems.push(format!("tensor `{logical}` cannot have the shape {:?}", info.shape));
                continue;
            }
            for (name, element, shape) in info.stored(logical) {
                match self.tensor(&name) {
                    None => problems.push(format!("tensor `{name}` is missing")),
                    Some(view) if view.dtype != element || view.shape != shape => problems.push(format!(
                        "tensor `{name}` is {} {:?}, but {MODEL_JSON} implies {element} {shape:?}",
                        view.dtype_name, view.shape
                    )),
                    Some(_) => {}
                }
                expected.insert(name);
            }
        }
        let extra = self.tensors.names().filter(|name| !expected.contains(*name));
        problems.extend(extra.map(|name| format!("tensor `{name}` is not in {MODEL_JSON}")));
        for file in &self.model.files {
            if !super::carried::NAMES.contains(&file.name.as_str()) {
                problems.push(format!("`{}` is no file that a model directory carries", file.name));
            } else if !self.path.join(&file.name).is_file() {
                problems.push(format!("file {} is missing", file.name));
            }
        }
        problems
    }

    /// Where the directory is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file of tensors.
    pub fn tensors(&self) -> &SafeTensors {
        &self.tensors
    }

    /// A stored tensor: `X.weight`, or `X.weight.codes` and `X.weight.scales` of a quantized matrix.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.tensors.tensor(name)
    }

    /// How a logical tensor is stored.
    pub fn format(&self, name: &str) -> Option<Format> {
        self.model.tensors.get(name).map(|tensor| tensor.format)
    }

    /// The scheme that the weights were quantized with.
    pub fn scheme(&self) -> Option<&str> {
        self.model.scheme.as_deref()
    }

    /// The path of a carried file (`tokenizer.json`, `generation_config.json`), if the model has it.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        self.model.files.iter().find(|file| file.name == name).map(|file| self.path.join(&file.name))
    }

    /// The parsed content of a carried JSON file; `None` if the model does not have it.
    pub fn json(&self, name: &str) -> Result<Option<Value>> {
        self.file(name).map(|path| super::json::read(&path, super::json::MAX_BYTES)).transpose()
    }
}
