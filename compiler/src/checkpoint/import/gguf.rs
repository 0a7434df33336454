//! GGUF, llama.cpp's format: one file with weights, configuration and tokenizer.
//!
//! `Q4_0`, `Q8_0` and floats are kept value by value (see [`blocks`]); other types have no equal here and are refused by name. What
//! llama.cpp's converter changed is changed back: names, the order of queries' and keys' rows (Llama), norms that hold 1 + weight
//! (Gemma), divisors of frequencies (Llama 3). Files of the Hugging Face checkpoint beside the file win over its metadata.

mod architecture;
mod blocks;
mod config;
mod header;
mod metadata;
mod names;
mod rope_factors;
mod sidecar;
mod tensor_type;
mod tokenizer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dwindle_quant::read_floats;
use dwindle_schemes::{FloatType, Format};
use half::f16;
use serde_json::{Map, Value};

use self::architecture::{Architecture, paired_row};
use self::header::{Header, Tensor};
use self::metadata::Metadata;
use self::sidecar::Sidecar;
pub use self::tokenizer::QWEN_2;
use self::tokenizer::Vocabulary;
use super::super::mapping::Mapping;
use super::super::model_dir::{CarriedFile, MODEL_JSON, MODEL_SAFETENSORS, matrix};
use super::super::source::INDEX;
use super::{Offer, Packed, Rows};
use crate::error::{Error, Result};

/// Ending of GGUF files' names.
const EXTENSION: &str = "gguf";

/// Divisors of the rotations' frequencies.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// An open GGUF file whose model is understood.
pub struct Gguf {
    path: PathBuf,
    mapping: Mapping,
    header: Header,
    sidecar: Sidecar,
    config: Map<String, Value>,
    offers: BTreeMap<String, Offer>,
    /// Tensors of the file by the name they have here.
    places: BTreeMap<String, Place>,
    scheme: String,
    /// The tokenizer that the metadata hold, or why it cannot be written.
    tokenizer: Result<Vocabulary, String>,
}

/// A tensor of the file, and what has to be undone to it.
struct Place {
    tensor: Tensor,
    /// Width of the heads whose rows lie in pairs.
    paired: Option<usize>,
    /// Its values are 1 more than they should be.
    plus_one: bool,
}

/// The GGUF file that `path` names or that is the only one in its directory, if there is one.
pub fn open(path: &Path) -> Result<Option<Box<dyn Packed>>> {
    Ok(match find(path)? {
        Some(file) => Some(Box::new(Gguf::open(&file)?)),
        None => None,
    })
}

/// The GGUF file at `path`, or the only one in that directory, if there is one and no checkpoint beside it.
///
/// # Errors
/// The directory cannot be read, or has several such files.
fn find(path: &Path) -> Result<Option<PathBuf>> {
    let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION));
    if path.is_file() {
        return Ok(is_gguf(path).then(|| path.to_owned()));
    }
    if !path.is_dir() || [MODEL_JSON, MODEL_SAFETENSORS, INDEX].iter().any(|name| path.join(name).exists()) {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io("read", path))? {
        let file = entry.map_err(Error::io("read", path))?.path();
        if is_gguf(&file) && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    if found.len() > 1 {
        let names: Vec<_> = found.iter().map(|file| file.file_name().unwrap_or_default().to_string_lossy()).collect();
        let reason = format!("it has several GGUF files; name one of them: {}", names.join(", "));
        return Err(Error::NotCheckpoint { path: path.to_owned(), reason });
    }
    Ok(found.pop())
}

impl Gguf {
    /// Opens the file and understands its model.
    ///
    /// # Errors
    /// It is damaged, or holds what is not supported: the architecture, a key, types of tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let refuse = |reasons: Vec<String>| Error::Gguf { path: path.to_owned(), reasons };
        let mapping = Mapping::open(path)?;
        let header = Header::parse(&mapping).map_err(|reason| refuse(vec![reason]))?;
        let metadata = Metadata { file: &mapping, values: &header.metadata };
        let architecture = architecture(metadata).map_err(|reason| refuse(vec![reason]))?;
        check_types(path, &header)?;

        let rows = header.tensors.get("token_embd.weight").and_then(|tensor| tensor.shape.first()).copied();
        let told = config::read(metadata, architecture, rows).map_err(refuse)?;
        let divisors = divisors(&mapping, &header).map_err(|reason| refuse(vec![reason]))?;
        let sidecar = Sidecar::of(path);
        let mut config = sidecar.config(told, divisors.as_deref()).map_err(|error| match error {
            Error::Config { .. } => refuse(vec![error.to_string()]),
            other => other,
        })?;
        // llama.cpp uses the embedding where there is no head; so it must be, whatever a configuration says.
        config.insert("tie_word_embeddings".to_owned(), (!header.tensors.contains_key("output.weight")).into());
        config.sort_keys();

        let tokenizer = Vocabulary::read(metadata);
        let scheme = scheme(&header);
        let places = places(&header, architecture, &config).map_err(refuse)?;
        let offers = places.iter().map(|(name, place)| (name.clone(), place.offer())).collect();
        Ok(Gguf { path: path.to_owned(), mapping, header, sidecar, config, offers, places, scheme, tokenizer })
    }

    fn metadata(&self) -> Metadata<'_> {
        Metadata { file: &self.mapping, values: &self.header.metadata }
    }
}

/// The architecture of a file that is the whole model.
fn architecture(metadata: Metadata<'_>) -> Result<&'static Architecture, String> {
    if metadata.size("split.count")?.is_some_and(|count| count > 1) {
        return Err(
            "a part of a model; join all parts first: `llama-gguf-split --merge FIRST-PART OUTPUT.gguf`".to_owned()
        );
    }
    let name = metadata.text("general.architecture")?.ok_or("metadata key `general.architecture` is missing")?;
    Architecture::of(name).ok_or_else(|| {
        let (name, known) = (name.chars().take(40).collect::<String>(), Architecture::names());
        format!("architecture `{name}` is not supported; supported are {known}")
    })
}

/// Refuses tensors whose values cannot be kept, all at once.
fn check_types(path: &Path, header: &Header) -> Result<()> {
    let kept = |tensor: &Tensor| tensor.kind.format().is_some();
    let others = header.tensors.iter().filter(|(_, tensor)| !kept(tensor));
    let tensors: Vec<_> = others.map(|(name, tensor)| (name.clone(), tensor.kind.name())).collect();
    if tensors.is_empty() {
        return Ok(());
    }
    // llama-quantize stores these two finer than the rest, unless told otherwise.
    let only_tables = tensors.iter().all(|(name, _)| name == "output.weight" || name == "token_embd.weight");
    Err(Error::GgufTypes { path: path.to_owned(), tensors, only_tables })
}

/// The values of `rope_freqs.weight`.
fn divisors(file: &[u8], header: &Header) -> Result<Option<Vec<f32>>, String> {
    let Some(tensor) = header.tensors.get(ROPE_FACTORS) else { return Ok(None) };
    let ([_], Some(Format::Plain(float))) = (tensor.shape.as_slice(), tensor.kind.format()) else {
        return Err(format!("tensor `{ROPE_FACTORS}` is no list of floats"));
    };
    let bytes = &file[tensor.bytes.clone()];
    let mut values = vec![0.0; bytes.len() / float.bytes()];
    read_floats(float, bytes, &mut values).expect("as many bytes as the values take");
    Ok(Some(values))
}

/// All tensors but those that belong to the configuration, or what is wrong with the others' names.
fn places(
    header: &Header,
    architecture: &Architecture,
    config: &Map<String, Value>,
) -> Result<BTreeMap<String, Place>, Vec<String>> {
    let tensors = || header.tensors.iter().filter(|(name, _)| *name != ROPE_FACTORS);
    let unknown: Vec<_> = tensors()
        .filter(|(name, _)| names::canonical(architecture, name).is_none())
        .map(|(name, _)| format!("tensor `{name}` has no place in a `{}` model here", architecture.name))
        .collect();
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let head_dim = config.get("head_dim").and_then(Value::as_u64).unwrap_or_default() as usize;
    let place = |(theirs, tensor): (&String, &Tensor)| {
        let name = names::canonical(architecture, theirs)?;
        let is_rotated = [".q_proj.", ".k_proj."].iter().any(|part| name.contains(part));
        let rows = if tensor.shape.len() == 1 { tensor.shape[0] } else { matrix(&tensor.shape).0 };
        let fits = head_dim > 0 && rows.is_multiple_of(head_dim);
        let paired = (architecture.paired_rows && is_rotated && fits).then_some(head_dim);
        let plus_one = architecture.norms_plus_one && name.ends_with("norm.weight");
        Some((name, Place { tensor: tensor.clone(), paired, plus_one }))
    };
    Ok(tensors().filter_map(place).collect())
}

/// `gguf_q4_0`: after the type that most values are packed as.
fn scheme(header: &Header) -> String {
    let mut values = BTreeMap::<_, usize>::new();
    for tensor in header.tensors.values() {
        if matches!(tensor.kind.format(), Some(Format::Grouped(_))) {
            *values.entry(tensor.kind).or_default() += tensor.shape.iter().product::<usize>();
        }
    }
    let most = values.into_iter().max_by_key(|(_, values)| *values);
    format!("gguf_{}", most.map_or("float", |(kind, _)| kind.name()).to_lowercase())
}

impl Place {
    fn offer(&self) -> Offer {
        let format = match self.tensor.kind.format() {
            // 1 less than a float of 16 bits need not be one.
            Some(Format::Plain(_)) if self.plus_one => Format::Plain(FloatType::F32),
            Some(format) => format,
            None => unreachable!("types that cannot be kept were refused"),
        };
        Offer { shape: self.tensor.shape.clone(), format }
    }

    /// Where row `row` lies, for rows that need not be one after the other.
    fn row(&self, row: usize) -> usize {
        self.paired.map_or(row, |head_dim| paired_row(row, head_dim))
    }
}

impl Packed for Gguf {
    fn path(&self) -> &Path {
        &self.path
    }

    fn model_type(&self) -> &str {
        self.config.get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    fn preprocessor(&self) -> Result<Option<Value>> {
        Ok(None)
    }

    fn scheme(&self) -> &str {
        &self.scheme
    }

    /// That of llama.cpp's cache, unless asked for another.
    fn kv(&self) -> FloatType {
        FloatType::F16
    }

    fn offers(&self) -> &BTreeMap<String, Offer> {
        &self.offers
    }

    fn read(&self, name: &str, rows: Range<usize>, out: &mut Rows) -> Result<()> {
        let place = &self.places[name];
        let bytes = &self.mapping[place.tensor.bytes.clone()];
        let (all, _) = matrix(&place.tensor.shape);
        let row_bytes = bytes.len() / all.max(1);
        out.words.clear();
        out.floats.clear();
        // Rows of a vector are its elements.
        let (rows, row_bytes) = match (place.paired, place.tensor.shape.as_slice()) {
            (Some(_), [elements]) => (0..*elements, row_bytes / (*elements).max(1)),
            _ => (rows, row_bytes),
        };
        if place.paired.is_none() {
            let range = rows.start * row_bytes..rows.end * row_bytes;
            unpack(place, &bytes[range.clone()], out);
            let start = place.tensor.bytes.start;
            self.mapping.release(start + range.start..start + range.end);
        } else {
            for row in rows.clone() {
                let at = place.row(row) * row_bytes;
                unpack(place, &bytes[at..at + row_bytes], out);
            }
        }
        check_finite(name, place, out)
    }

    fn carry(&self, to: &Path) -> Result<Vec<CarriedFile>> {
        tokenizer::carry(&self.sidecar, self.metadata(), self.tokenizer.as_ref().ok(), to)
    }

    fn carried_bytes(&self) -> u64 {
        // Texts and merges of the metadata, written as JSON, take about four times what they take there.
        let metadata = self.header.tensors.values().map(|tensor| tensor.bytes.start).min().unwrap_or_default();
        self.sidecar.carried_bytes() + 4 * metadata as u64
    }

    fn warnings(&self, files: &[CarriedFile]) -> Vec<String> {
        if files.iter().any(|file| file.name == "tokenizer.json") {
            return Vec::new();
        }
        let reason = self.tokenizer.as_ref().err().map_or("", String::as_str);
        vec![format!(
            "{}: {reason}; the model can be compiled, but not chat: put the Hugging Face checkpoint's tokenizer.json beside \
             the file and convert again",
            self.path.display()
        )]
    }

    fn files(&self) -> Vec<PathBuf> {
        self.sidecar.file("config.json").into_iter().chain([self.path.clone()]).collect()
    }
}

/// Appends rows in the offered format.
fn unpack(place: &Place, bytes: &[u8], out: &mut Rows) {
    match place.tensor.kind.name() {
        "Q4_0" => blocks::q4_0(bytes, &mut out.words, &mut out.floats),
        "Q8_0" => blocks::q8_0(bytes, &mut out.words, &mut out.floats),
        _ if place.plus_one => {
            let Some(Format::Plain(float)) = place.tensor.kind.format() else { return };
            let mut values = vec![0.0; bytes.len() / float.bytes()];
            read_floats(float, bytes, &mut values).expect("as many bytes as the values take");
            out.floats.extend(values.iter().flat_map(|value| (value - 1.0).to_le_bytes()));
        }
        _ => out.floats.extend_from_slice(bytes),
    }
}

/// Refuses scales that are no numbers, which would spoil all values of their groups.
fn check_finite(name: &str, place: &Place, rows: &Rows) -> Result<()> {
    if !matches!(place.tensor.kind.format(), Some(Format::Grouped(_))) {
        return Ok(());
    }
    let (scales, _) = rows.floats.as_chunks();
    let count = scales.iter().filter(|scale| !f16::from_le_bytes(**scale).is_finite()).count() as u64;
    match count {
        0 => Ok(()),
        groups => Err(Error::NotFinite { tensor: name.to_owned(), count: groups * place.tensor.kind.block_values() }),
    }
}

#[cfg(test)]
mod tests;
