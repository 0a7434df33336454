//! Import: a published model whose weights are packed already becomes a model directory; codes and scales pass through.
//!
//! A [`Packed`] source tells its tensors in transformers 4's names and hands out rows in the layout of
//! [`Grouped`](dwindle_schemes::Grouped); what differs between publishers (files, order of nibbles, transposition, concatenation)
//! stays in its own file below this one. Comparison with what the family needs and the description are here once,
//! [`Conversion`](super::Conversion) writes. Nothing is rounded a second time but for floats in bf16, for which kernels have no type.

mod awq;
mod gguf;
mod gptq;
mod linears;
mod mlc;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dwindle_quant::ErrorStats;
use dwindle_schemes::{FloatType, Format, Role};
use serde_json::{Map, Value};

pub(super) use self::gguf::QWEN_2;
pub use self::gguf::files as gguf_files;
use super::model_dir::{CarriedFile, ModelJson, TensorInfo};
use super::problems::TensorProblems;
use super::selection::Needs;
use super::{IgnoredKeys, carried};
use crate::error::{Error, Result};
use crate::note::Note;

/// `method` of every imported model.
const METHOD: &str = "imported";

/// A tensor that a source offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// Dimensions of the unpacked tensor, outermost first.
    pub shape: Vec<usize>,
    /// How its rows are handed out.
    pub format: Format,
}

/// Rows of one tensor, in the form in which they are stored.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// Codes of a grouped tensor, `[rows, words]`.
    pub words: Vec<u32>,
    /// Scales of a grouped tensor, `[rows, groups]` (`[rows, groups, 2]` with zeros after them, where it stores zeros), or all
    /// values of a plain one; little-endian floats of its format.
    pub floats: Vec<u8>,
    /// What these rows lost against the source, where the source's form has no equal here.
    pub stats: ErrorStats,
}

impl Rows {
    /// Forgets all rows and keeps the buffers.
    pub fn clear(&mut self) {
        self.words.clear();
        self.floats.clear();
        self.stats = ErrorStats::default();
    }
}

/// Reads header, configuration and tokenizer of a GGUF file that lies in memory, for fuzzing; whether the header is right.
#[cfg(fuzzing)]
pub fn is_gguf(file: &[u8]) -> bool {
    gguf::is_read(file)
}

/// Opens a GGUF file and reads all rows of its tensors, for fuzzing.
///
/// # Errors
/// What [`Conversion`](super::Conversion) would say.
#[cfg(fuzzing)]
pub fn read_gguf(path: &Path) -> Result<()> {
    let file = gguf::Gguf::open(path)?;
    let mut rows = Rows::default();
    for (name, offer) in file.offers() {
        let (n, _) = super::matrix(&offer.shape);
        file.read(name, 0..n, &mut rows)?;
    }
    Ok(())
}

/// A source whose weights are packed already.
pub(crate) trait Packed: Sync {
    /// The directory or file, for messages.
    fn path(&self) -> &Path;

    /// `model_type` of the configuration.
    fn model_type(&self) -> &str;

    /// The configuration in the spelling of transformers 4.
    fn config(&self) -> &Map<String, Value>;

    /// What `preprocessor_config.json` says, if there is one.
    fn preprocessor(&self) -> Result<Option<Value>>;

    /// What the packing is called: `q4f16_1`, `gguf_q4_0`.
    fn scheme(&self) -> &str;

    /// Type of the keys and values in the cache: `F16` or `F32`.
    fn kv(&self) -> FloatType;

    /// All tensors, by their name in transformers 4; what was published as one tensor for several appears as these.
    fn offers(&self) -> &BTreeMap<String, Offer>;

    /// The publisher's name of a tensor's type, `Q4_K`; a source that has such names gets a card that lists them.
    fn kind(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// Replaces what is in `out` by some rows of a tensor: those of the matrix that [`matrix`](super::model_dir::matrix) makes of its shape.
    ///
    /// # Errors
    /// The content cannot be handed out in the offered format.
    fn read(&self, name: &str, rows: Range<usize>, out: &mut Rows) -> Result<()>;

    /// Writes the files that a model directory carries (tokenizer, template) to `to`.
    fn carry(&self, to: &Path) -> Result<Vec<CarriedFile>>;

    /// Bytes that [`carry`](Self::carry) writes, at most.
    fn carried_bytes(&self) -> u64 {
        carried::total_bytes(self.path())
    }

    /// What may be missed later in a model that carries `files`.
    fn warnings(&self, files: &[CarriedFile]) -> Vec<String> {
        super::convert::without_tokenizer(self.path(), files).into_iter().collect()
    }

    /// What was accepted and is worth a line, if keys to ignore were left out of the configuration already.
    fn notes(&self) -> Option<Vec<Note>> {
        None
    }

    /// The files that weights and configuration come from.
    fn files(&self) -> Vec<PathBuf>;

    /// The MD5 sum that was published for one of the [`files`](Self::files), in hexadecimal digits.
    fn md5(&self, _file: &Path) -> Option<&str> {
        None
    }
}

/// The packed model at `path`, a directory or a file, if it is one; each publisher's format recognises its own.
pub(crate) fn open(path: &Path, ignored: &IgnoredKeys) -> Result<Option<Box<dyn Packed>>> {
    for open in [gguf::open, mlc::open] {
        if let Some(source) = open(path)? {
            return Ok(Some(source));
        }
    }
    linears::open(path, ignored)
}

/// Whether the checkpoint in `directory`, of which only the weights may be missing, is one whose weights are packed.
pub(super) fn is_packed(directory: &Path) -> Result<bool> {
    let config = directory.join("config.json");
    // Without one it is another publisher's format, or nothing at all.
    Ok(!config.is_file() || linears::is_packed(directory)?)
}

/// The description of a model directory with the tensors of `source` as they are, or of floats that wait for a scheme, and with
/// `config`; and the names of tensors of no use.
///
/// # Errors
/// The source is no complete model of a supported family.
pub(super) fn describe(
    source: &dyn Packed,
    config: Map<String, Value>,
    needs: &Needs,
) -> Result<(ModelJson, Vec<String>)> {
    let ignored = compare(source, &needs.tensors, &needs.ignored)?;
    let offers = source.offers();
    let packed = needs.tensors.keys().any(|name| matches!(offers[name].format, Format::Grouped(_)));
    let info = |(name, (shape, role)): (&String, &(Vec<usize>, Role))| {
        let format = if packed { stored(*role, offers[name].format) } else { offers[name].format };
        (name.clone(), TensorInfo { role: *role, shape: shape.clone(), format })
    };
    let infos = needs.tensors.iter().map(info).collect();
    let mut model = ModelJson::new(source.model_type().to_owned(), config, infos);
    if packed {
        model.scheme = Some(source.scheme().to_owned());
        model.method = Some(METHOD.to_owned());
        model.kv = Some(source.kv());
    }
    Ok((model, ignored))
}

/// How a tensor is stored beside packed ones: kernels read vectors as f32, and matrices as f16, f32 or packed.
fn stored(role: Role, offered: Format) -> Format {
    match (role, offered) {
        (Role::Vector, _) => Format::Plain(FloatType::F32),
        (_, Format::Plain(FloatType::Bf16)) => Format::Plain(FloatType::F16),
        _ => offered,
    }
}

/// Checks that the source offers every tensor that is needed; the names of those of no use.
fn compare(
    source: &dyn Packed,
    needs: &BTreeMap<String, (Vec<usize>, Role)>,
    ignored: &dyn Fn(&str) -> bool,
) -> Result<Vec<String>> {
    let (mut problems, mut superfluous) = (TensorProblems::default(), Vec::new());
    for (name, offer) in source.offers() {
        match needs.get(name) {
            None if ignored(name) => superfluous.push(name.clone()),
            None => problems.extra.push((name.clone(), offer.shape.clone())),
            Some((shape, _)) if *shape != offer.shape => {
                problems.misshapen.push((name.clone(), shape.clone(), offer.shape.clone()));
            }
            Some((_, Role::Vector)) if !matches!(offer.format, Format::Plain(_)) => {
                problems.unsupported.push((name.clone(), offer.format.to_string()));
            }
            Some(_) => {}
        }
    }
    let missing = needs.iter().filter(|(name, _)| !source.offers().contains_key(*name));
    problems.missing.extend(missing.map(|(name, (shape, _))| (name.clone(), shape.clone())));
    if problems.is_empty() {
        return Ok(superfluous);
    }
    let (path, family) = (source.path().to_owned(), source.model_type().to_owned());
    Err(Error::Tensors { path, family, problems: Box::new(problems) })
}
