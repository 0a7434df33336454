//! GGUF, llama.cpp's format: one file with weights, configuration and tokenizer.
//!
//! Codes are kept as they are, scales too where the file has them as one number (see [`blocks`]); types that are not read are
//! refused by name. What llama.cpp's converter changed is changed back: names, the order of queries' and keys' rows (Llama),
//! norms that hold 1 + weight (Gemma), divisors of frequencies (Llama 3). Files of the Hugging Face checkpoint beside the file
//! win over its metadata.

mod architecture;
mod blocks;
mod config;
mod header;
mod metadata;
mod names;
mod parts;
mod rope_factors;
mod sidecar;
mod tensor_type;
mod tokenizer;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dwindle_quant::read_floats;
use dwindle_schemes::{FloatType, Format};
use rayon::prelude::*;
use serde_json::{Map, Value};

use self::architecture::{Architecture, paired_row};
use self::blocks::Unstorable;
use self::header::Tensor;
use self::metadata::Metadata;
use self::parts::Part;
use self::sidecar::Sidecar;
use self::tensor_type::{Encoding, Packing};
pub use self::tokenizer::QWEN_2;
use self::tokenizer::Vocabulary;
use super::super::model_dir::{CarriedFile, matrix};
use super::{Offer, Packed, Rows};
use crate::error::{Error, Result};

pub use self::parts::files;

/// Divisors of the rotations' frequencies.
const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Bytes of blocks that are looked through at a time: whole blocks of `MXFP4`.
const SCANNED: usize = 17 << 12;

/// An open GGUF file whose model is understood.
pub struct Gguf {
    /// At least one; the first has the metadata.
    parts: Vec<Part>,
    sidecar: Sidecar,
    config: Map<String, Value>,
    offers: BTreeMap<String, Offer>,
    /// Tensors of the file by the name they have here.
    places: BTreeMap<String, Place>,
    scheme: String,
    /// What was passed over.
    notes: Vec<String>,
    /// The tokenizer that the metadata hold, or why it cannot be written.
    tokenizer: Result<Vocabulary, String>,
}

/// A tensor of the file, and what has to be undone to it.
struct Place {
    /// Which file it is in.
    part: usize,
    tensor: Tensor,
    /// How it is handed out.
    format: Format,
    /// Width of the heads whose rows lie in pairs.
    paired: Option<usize>,
    /// Its values are 1 more than they should be.
    plus_one: bool,
}

/// The GGUF file that `path` names or that is the only one in its directory, if there is one.
pub fn open(path: &Path) -> Result<Option<Box<dyn Packed>>> {
    Ok(match parts::find(path)? {
        Some(file) => Some(Box::new(Gguf::open(&file)?)),
        None => None,
    })
}

/// Reads header, configuration and tokenizer of a file that lies in memory; whether the header is right.
#[cfg(fuzzing)]
pub fn is_read(file: &[u8]) -> bool {
    let Ok(header) = header::Header::parse(file) else { return false };
    let metadata = Metadata { file, values: &header.metadata };
    if let Ok(architecture) = architecture(metadata) {
        let _ = config::read(metadata, architecture, None);
        let _ = Vocabulary::read(metadata, architecture);
    }
    true
}

impl Gguf {
    /// Opens the file, and the other parts of its model, and understands it.
    ///
    /// # Errors
    /// It is damaged or incomplete, or holds what is not supported: the architecture, a key, types of tensors.
    pub fn open(path: &Path) -> Result<Self> {
        let refuse = |reasons: Vec<String>| Error::Gguf { path: path.to_owned(), reasons };
        let parts = parts::open(path)?;
        let metadata = parts[0].metadata();
        let architecture = architecture(metadata).map_err(|reason| refuse(vec![reason]))?;
        let tensors = Tensors::of(&parts);
        tensors.check_types(path)?;

        let embedding = tensors.0.get("token_embd.weight");
        let rows = embedding.and_then(|(_, tensor)| tensor.shape.first()).copied();
        let told = config::read(metadata, architecture, rows).map_err(refuse)?;
        let mut notes = told.notes.clone();
        let divisors = tensors.divisors(&parts).map_err(|reason| refuse(vec![reason]))?;
        let sidecar = Sidecar::of(path);
        let mut config = sidecar.config(told, divisors.as_deref()).map_err(|error| match error {
            Error::Config { .. } => refuse(vec![error.to_string()]),
            other => other,
        })?;
        // llama.cpp uses the embedding where there is no head; so it must be, whatever a configuration says.
        config.insert("tie_word_embeddings".to_owned(), (!tensors.0.contains_key("output.weight")).into());
        config.sort_keys();

        let tokenizer = Vocabulary::read(metadata, architecture);
        if let (Ok(vocabulary), None) = (&tokenizer, sidecar.file("tokenizer.json")) {
            notes.extend(vocabulary.note().map(str::to_owned));
        }
        let scheme = tensors.scheme();
        let places = tensors.places(&parts, architecture, &config).map_err(refuse)?;
        let offers = places.iter().map(|(name, place)| (name.clone(), place.offer())).collect();
        Ok(Gguf { parts, sidecar, config, offers, places, scheme, notes, tokenizer })
    }

    fn metadata(&self) -> Metadata<'_> {
        self.parts[0].metadata()
    }
}

/// The architecture of a file that is a model.
fn architecture(metadata: Metadata<'_>) -> Result<&'static Architecture, String> {
    let name = metadata.text("general.architecture")?.ok_or("metadata key `general.architecture` is missing")?;
    // Unless it tells, it is a model.
    let kind = metadata.text("general.type").ok().flatten().unwrap_or("model");
    let what = match kind {
        _ if name == "clip" => Some("the picture encoder of a model (mmproj)"),
        "mmproj" | "projector" => Some("the picture encoder of a model (mmproj)"),
        "adapter" => Some("a LoRA adapter"),
        "vocab" => Some("a vocabulary without weights"),
        _ => None,
    };
    if let Some(what) = what {
        return Err(format!(
            "{what}, not a language model; convert the model's own GGUF file, or the Hugging Face checkpoint"
        ));
    }
    Architecture::of(name).ok_or_else(|| {
        let (name, known) = (name.chars().take(40).collect::<String>(), Architecture::names());
        format!("architecture `{name}` is not supported; supported are {known}")
    })
}

/// All tensors, by llama.cpp's names, with the number of their part.
struct Tensors<'f>(BTreeMap<&'f str, (usize, &'f Tensor)>);

impl<'f> Tensors<'f> {
    fn of(parts: &'f [Part]) -> Self {
        let all = parts.iter().enumerate().flat_map(|(index, part)| {
            part.header.tensors.iter().map(move |(name, tensor)| (name.as_str(), (index, tensor)))
        });
        Tensors(all.collect())
    }

    /// Refuses tensors of types that are not read, all at once.
    fn check_types(&self, path: &Path) -> Result<()> {
        let others = self.0.iter().filter(|(_, (_, tensor))| tensor.kind.encoding() == Encoding::Other);
        let tensors: Vec<_> = others.map(|(name, (_, tensor))| ((*name).to_owned(), tensor.kind.name())).collect();
        match tensors.is_empty() {
            true => Ok(()),
            false => {
                let read = tensor_type::TensorType::read_names();
                Err(Error::GgufTypes { path: path.to_owned(), tensors, read })
            }
        }
    }

    /// The values of `rope_freqs.weight`.
    fn divisors(&self, parts: &[Part]) -> Result<Option<Vec<f32>>, String> {
        let Some((part, tensor)) = self.0.get(ROPE_FACTORS) else { return Ok(None) };
        let ([_], Encoding::Float(float)) = (tensor.shape.as_slice(), tensor.kind.encoding()) else {
            return Err(format!("tensor `{ROPE_FACTORS}` is no list of floats"));
        };
        let bytes = &parts[*part].mapping[tensor.bytes.clone()];
        let mut values = vec![0.0; bytes.len() / float.bytes()];
        read_floats(float, bytes, &mut values).expect("as many bytes as the values take");
        Ok(Some(values))
    }

    /// Where each tensor is but those that belong to the configuration, or what is wrong with the others' names.
    fn places(
        &self,
        parts: &[Part],
        architecture: &Architecture,
        config: &Map<String, Value>,
    ) -> Result<BTreeMap<String, Place>, Vec<String>> {
        let tensors = || self.0.iter().filter(|(name, _)| **name != ROPE_FACTORS);
        let unknown: Vec<_> = tensors()
            .filter(|(name, _)| names::canonical(architecture, name).is_none())
            .map(|(name, _)| format!("tensor `{name}` has no place in a `{}` model here", architecture.name))
            .collect();
        if !unknown.is_empty() {
            return Err(unknown);
        }
        let head_dim = config.get("head_dim").and_then(Value::as_u64).unwrap_or_default() as usize;
        let place = |(theirs, (part, tensor)): (&&str, &(usize, &Tensor))| {
            let name = names::canonical(architecture, theirs)?;
            let is_rotated = [".q_proj.", ".k_proj."].iter().any(|part| name.contains(part));
            let rows = if tensor.shape.len() == 1 { tensor.shape[0] } else { matrix(&tensor.shape).0 };
            let fits = head_dim > 0 && rows.is_multiple_of(head_dim);
            let paired = (architecture.paired_rows && is_rotated && fits).then_some(head_dim);
            let plus_one = architecture.norms_plus_one && name.ends_with("norm.weight");
            let format = stored(tensor, &parts[*part].mapping, plus_one)?;
            Some((name, Place { part: *part, tensor: (*tensor).clone(), format, paired, plus_one }))
        };
        Ok(tensors().filter_map(place).collect())
    }

    /// `gguf_q4_k`: after the type that most values are packed as.
    fn scheme(&self) -> String {
        let mut values = BTreeMap::<_, usize>::new();
        for (_, tensor) in self.0.values() {
            if matches!(tensor.kind.encoding(), Encoding::Packed(_)) {
                *values.entry(tensor.kind).or_default() += tensor.shape.iter().product::<usize>();
            }
        }
        let most = values.into_iter().max_by_key(|(_, values)| *values);
        format!("gguf_{}", most.map_or("float", |(kind, _)| kind.name()).to_lowercase())
    }
}

/// How a tensor of `file` is handed out; `None` where its type is not read.
fn stored(tensor: &Tensor, file: &[u8], plus_one: bool) -> Option<Format> {
    Some(match tensor.kind.encoding() {
        // 1 less than a float of 16 bits need not be one.
        Encoding::Float(_) if plus_one => Format::Plain(FloatType::F32),
        // The only scales that f16 may not hold, and that do not tell of damage then.
        Encoding::Packed(Packing::Mxfp4) => {
            let rows = file[tensor.bytes.clone()].par_chunks(SCANNED);
            let scale = if rows.map(blocks::fits_f16).all(|fits| fits) { FloatType::F16 } else { FloatType::F32 };
            Format::Grouped(Packing::Mxfp4.grouped(scale))
        }
        encoding => encoding.format()?,
    })
}

impl Place {
    fn offer(&self) -> Offer {
        Offer { shape: self.tensor.shape.clone(), format: self.format }
    }

    /// Where row `row` lies, for rows that need not be one after the other.
    fn row(&self, row: usize) -> usize {
        self.paired.map_or(row, |head_dim| paired_row(row, head_dim))
    }

    /// Appends rows in the offered format.
    fn unpack(&self, bytes: &[u8], out: &mut Rows) -> Unstorable {
        match (self.tensor.kind.encoding(), self.format) {
            (Encoding::Packed(packing), Format::Grouped(grouped)) => {
                return blocks::repack(packing, &grouped, bytes, out);
            }
            (Encoding::Float(float), _) if self.plus_one => {
                let mut values = vec![0.0; bytes.len() / float.bytes()];
                read_floats(float, bytes, &mut values).expect("as many bytes as the values take");
                out.floats.extend(values.iter().flat_map(|value| (value - 1.0).to_le_bytes()));
            }
            _ => out.floats.extend_from_slice(bytes),
        }
        Unstorable::default()
    }
}

impl Packed for Gguf {
    fn path(&self) -> &Path {
        &self.parts[0].path
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

    fn kind(&self, name: &str) -> Option<&'static str> {
        Some(self.places.get(name)?.tensor.kind.name())
    }

    fn read(&self, name: &str, rows: Range<usize>, out: &mut Rows) -> Result<()> {
        let place = &self.places[name];
        let mapping = &self.parts[place.part].mapping;
        let bytes = &mapping[place.tensor.bytes.clone()];
        let (all, _) = matrix(&place.tensor.shape);
        let row_bytes = bytes.len() / all.max(1);
        out.clear();
        // Rows of a vector are its elements.
        let (rows, row_bytes) = match (place.paired, place.tensor.shape.as_slice()) {
            (Some(_), [elements]) => (0..*elements, row_bytes / (*elements).max(1)),
            _ => (rows, row_bytes),
        };
        let mut unstorable = Unstorable::default();
        if place.paired.is_none() {
            let range = rows.start * row_bytes..rows.end * row_bytes;
            unstorable = place.unpack(&bytes[range.clone()], out);
            let start = place.tensor.bytes.start;
            mapping.release(start + range.start..start + range.end);
        } else {
            for row in rows.clone() {
                let at = place.row(row) * row_bytes;
                unstorable.merge(place.unpack(&bytes[at..at + row_bytes], out));
            }
        }
        match unstorable {
            Unstorable { not_finite: 0, beyond: None } => Ok(()),
            Unstorable { not_finite: 0, beyond: Some(scale) } => {
                let kind = place.tensor.kind.name();
                Err(Error::GgufScale {
                    path: self.parts[place.part].path.clone(),
                    tensor: name.to_owned(),
                    kind,
                    scale,
                })
            }
            // It would spoil all values of its group.
            Unstorable { not_finite: count, .. } => Err(Error::NotFinite { tensor: name.to_owned(), count }),
        }
    }

    fn carry(&self, to: &Path) -> Result<Vec<CarriedFile>> {
        tokenizer::carry(&self.sidecar, self.metadata(), self.tokenizer.as_ref().ok(), to)
    }

    fn carried_bytes(&self) -> u64 {
        // Texts and merges of the metadata, written as JSON, take about four times what they take there.
        let tensors = self.parts[0].header.tensors.values();
        let metadata = tensors.map(|tensor| tensor.bytes.start).min().unwrap_or(self.parts[0].mapping.len());
        self.sidecar.carried_bytes() + 4 * metadata as u64
    }

    fn warnings(&self, files: &[CarriedFile]) -> Vec<String> {
        let path = self.path().display();
        let mut warnings: Vec<_> = self.notes.iter().map(|note| format!("{path}: {note}")).collect();
        if !files.iter().any(|file| file.name == "tokenizer.json") {
            let reason = self.tokenizer.as_ref().err().map_or("", String::as_str);
            warnings.push(format!(
                "{path}: {reason}; the model can be compiled, but not chat: put the Hugging Face checkpoint's tokenizer.json \
                 beside the file and convert again"
            ));
        }
        warnings
    }

    fn files(&self) -> Vec<PathBuf> {
        self.sidecar.file("config.json").into_iter().chain(self.parts.iter().map(|part| part.path.clone())).collect()
    }
}

#[cfg(test)]
mod tests;
