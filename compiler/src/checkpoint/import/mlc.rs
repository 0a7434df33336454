//! MLC's published weights: a directory with `mlc-chat-config.json`, an index of tensors, and shards.
//!
//! Packed matrices are in the layout of [`Grouped`](dwindle_schemes::Grouped) already, but that `KN` modes transpose linear layers and that several
//! matrices may lie one below the other. Codes pass through; scales do, or become f32 where they are bf16.

mod config;
#[cfg(test)]
pub(crate) mod fixture;
mod index;
mod mode;
mod names;
mod rows;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dwindle_schemes::{FloatType, Format, Role};
use serde_json::{Map, Value};

use self::config::ChatConfig;
use self::index::{Index, Payload, Record};
use self::mode::Packing;
use self::rows::{Content, Tensor};
use super::{Offer, Packed, Rows};
use crate::checkpoint::convert::without_tokenizer;
use crate::checkpoint::model_dir::{CarriedFile, matrix};
use crate::checkpoint::problems::TensorProblems;
use crate::checkpoint::selection::Needs;
use crate::checkpoint::{carried, json};
use crate::error::{Error, Result};

/// An open directory.
#[derive(Debug)]
struct Mlc {
    path: PathBuf,
    chat: ChatConfig,
    index: Index,
    offers: BTreeMap<String, Offer>,
    tensors: BTreeMap<String, Tensor>,
}

/// The model in the directory at `path`, if it is one of MLC's.
pub fn open(path: &Path) -> Result<Option<Box<dyn Packed>>> {
    let chat = path.join(config::NAME);
    if !chat.is_file() {
        return Ok(None);
    }
    let Some(index) = Index::find(path) else {
        // A checkpoint may have been given MLC's configuration, too.
        if path.join("config.json").is_file() {
            return Ok(None);
        }
        let reason =
            format!("it has {}, but neither {}; download the weights too", config::NAME, index::NAMES.join(" nor "));
        return Err(Error::NotCheckpoint { path: path.to_owned(), reason });
    };
    let chat = ChatConfig::read(&chat)?;
    let index = Index::open(&index)?;
    if let Some(name) = index.records().keys().find(|name| names::is_presharded(name)) {
        let reason =
            format!("its tensors were cut for several devices (`{name}`); name weights that were stored whole");
        return Err(Error::NotCheckpoint { path: path.to_owned(), reason });
    }
    let mut mlc = Mlc { path: path.to_owned(), chat, index, offers: BTreeMap::new(), tensors: BTreeMap::new() };
    mlc.list()?;
    Ok(Some(Box::new(mlc)))
}

/// Shape and role of each tensor that the family needs.
type Specs = BTreeMap<String, (Vec<usize>, Role)>;

impl Mlc {
    /// Fills in offers and where their rows are.
    fn list(&mut self) -> Result<()> {
        let preprocessor = self.preprocessor()?;
        let needs = Needs::of(&self.chat.family, &self.chat.config, preprocessor.as_ref())
            .map_err(|source| Error::Family { path: self.path.clone(), source })?
            .tensors;
        let mut problems = TensorProblems::default();
        let mut found = Vec::new();
        let packing = self.chat.mode.packing;
        for (name, record) in self.index.records() {
            if let Some(base) = name.strip_suffix(".q_scale") {
                let codes = format!("{base}.q_weight");
                if let Some(packing) = packing.filter(|_| !self.index.records().contains_key(&codes)) {
                    let words = packing.grouped(FloatType::F16).words_per_group();
                    let shape = self.resized(base, packing, &record.shape, |groups| groups.saturating_mul(words));
                    problems.missing.push((codes, shape));
                }
            } else if let Some(base) = name.strip_suffix(".q_weight") {
                let scales = format!("{base}.q_scale");
                match (packing, self.index.records().get(&scales)) {
                    (None, _) => problems.extra.push((name.clone(), record.shape.clone())),
                    (Some(packing), None) => {
                        let words = packing.grouped(FloatType::F16).words_per_group();
                        problems.missing.push((scales, self.resized(base, packing, &record.shape, |n| n / words)));
                    }
                    (Some(packing), Some(scales)) => {
                        found.extend(self.packed(base, record, scales, packing, &needs, &mut problems));
                    }
                }
            } else {
                found.extend(self.plain(name, record, &needs, &mut problems));
            }
        }
        for (name, offer, tensor) in found {
            self.offers.insert(name.clone(), offer);
            if self.tensors.insert(name.clone(), tensor).is_some() {
                problems.duplicate.push(name);
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort();
        let family = self.chat.family.clone();
        Err(Error::Tensors { path: self.path.clone(), family, problems: Box::new(problems) })
    }

    /// Whether one of the files has a chat template of the checkpoint's own.
    fn has_template(&self) -> bool {
        let separate = ["chat_template.jinja", "chat_template.json"].iter().any(|name| self.path.join(name).is_file());
        let config = json::read(&self.path.join("tokenizer_config.json"), json::MAX_BYTES);
        separate || config.is_ok_and(|config| config.get("chat_template").is_some_and(|template| !template.is_null()))
    }

    /// Whether a packed matrix `{base}.weight` lies there as `[width, rows]`.
    fn is_transposed(&self, base: &str, packing: Packing) -> bool {
        let parts = names::parts(&format!("{base}.weight"), &self.chat.family);
        packing.transposed && !parts.iter().any(|part| names::is_embedding(part))
    }

    /// The shape of a matrix that has as many rows, and another width.
    fn resized(&self, base: &str, packing: Packing, shape: &[usize], width: impl Fn(usize) -> usize) -> Vec<usize> {
        let at = usize::from(!self.is_transposed(base, packing));
        shape.iter().enumerate().map(|(axis, &n)| if axis == at { width(n) } else { n }).collect()
    }

    /// The parts of a tensor of floats.
    fn plain(&self, name: &str, record: &Record, needs: &Specs, problems: &mut TensorProblems) -> Vec<Found> {
        if record.payload == Payload::Words {
            problems.unsupported.push((name.to_owned(), record.payload.to_string()));
            return Vec::new();
        }
        let parts = names::parts(name, &self.chat.family);
        let shapes: Option<Vec<&Vec<usize>>> = parts.iter().map(|part| Some(&needs.get(part)?.0)).collect();
        let shapes = match shapes {
            Some(shapes) if parts.len() > 1 => shapes,
            // What is whole, or not needed, is compared as it is.
            _ => {
                let first = parts.first().cloned().filter(|_| parts.len() == 1).unwrap_or_else(|| name.to_owned());
                return vec![self.plain_part(first, record, record.shape.clone(), 0)];
            }
        };
        let rest = shapes[0].get(1..).unwrap_or_default();
        let whole: Vec<usize> =
            std::iter::once(shapes.iter().map(|s| s[0]).sum()).chain(rest.iter().copied()).collect();
        if record.shape != whole {
            problems.misshapen.push((name.to_owned(), whole, record.shape.clone()));
            return Vec::new();
        }
        let mut first = 0;
        let part = |(name, shape): (String, &Vec<usize>)| {
            let start = first * rest.iter().product::<usize>();
            first += shape[0];
            self.plain_part(name, record, shape.clone(), start)
        };
        parts.into_iter().zip(shapes).map(part).collect()
    }

    fn plain_part(&self, name: String, record: &Record, shape: Vec<usize>, start: usize) -> Found {
        let minus_one = names::holds_one_more(&name, &self.chat.family);
        let float = match record.payload {
            _ if minus_one => FloatType::F32,
            // Beside packed matrices kernels have no use for bf16.
            Payload::Halved if self.chat.mode.packing.is_some() => FloatType::F32,
            payload => payload.float().unwrap_or(FloatType::F32),
        };
        let columns = matrix(&shape).1;
        let content = Content::Plain { record: record.clone(), start, float, minus_one };
        (name, Offer { shape, format: Format::Plain(float) }, Tensor { columns, content })
    }

    /// The parts of a packed matrix.
    fn packed(
        &self,
        base: &str,
        codes: &Record,
        scales: &Record,
        packing: Packing,
        needs: &Specs,
        problems: &mut TensorProblems,
    ) -> Vec<Found> {
        let float = match scales.payload.float() {
            Some(FloatType::F16) => FloatType::F16,
            Some(_) => FloatType::F32,
            None => {
                problems.unsupported.push((format!("{base}.q_scale"), scales.payload.to_string()));
                return Vec::new();
            }
        };
        if codes.payload != Payload::Words {
            problems.extra.push((format!("{base}.q_weight of {}", codes.payload), codes.shape.clone()));
            return Vec::new();
        }
        let grouped = packing.grouped(float);
        let whole = format!("{base}.weight");
        let parts = names::parts(&whole, &self.chat.family);
        let transposed = self.is_transposed(base, packing);
        let specs: Option<Vec<_>> = parts.iter().map(|part| needs.get(part)).collect();
        let Some(specs) = specs else {
            // Not needed, so that its columns, which padding hides, do not matter.
            let [rows, words] = pair(&codes.shape, transposed).unwrap_or_default();
            let name = if parts.len() == 1 { parts.into_iter().next() } else { None }.unwrap_or(whole);
            let columns = words.saturating_mul(grouped.unit_codes());
            let content = Content::packed(codes, scales, grouped, transposed, 0, rows);
            let offer = Offer { shape: vec![rows, columns], format: Format::Grouped(grouped) };
            return vec![(name, offer, Tensor { columns, content })];
        };
        let columns = matrix(&specs[0].0).1;
        let rows: usize = specs.iter().map(|(shape, _)| matrix(shape).0).sum();
        let mut fits = true;
        for (suffix, record, width) in
            [("q_weight", codes, grouped.words(columns)), ("q_scale", scales, grouped.groups(columns))]
        {
            if pair(&record.shape, transposed) != Some([rows, width]) {
                let needed = if transposed { vec![width, rows] } else { vec![rows, width] };
                problems.misshapen.push((format!("{base}.{suffix}"), needed, record.shape.clone()));
                fits = false;
            }
        }
        if !fits {
            return Vec::new();
        }
        let mut first = 0;
        let part = |(name, (shape, role)): (String, &(Vec<usize>, Role))| {
            let content = Content::packed(codes, scales, grouped, transposed, first, rows);
            first += matrix(shape).0;
            // Older towers have packed positions, which are added and not multiplied with: they are stored as floats.
            let (content, format) = match role {
                Role::Vector => (Content::decoded(content), Format::Plain(FloatType::F32)),
                _ => (content, Format::Grouped(grouped)),
            };
            (name, Offer { shape: shape.clone(), format }, Tensor { columns, content })
        };
        parts.into_iter().zip(specs).map(part).collect()
    }
}

/// A tensor under its name in transformers 4.
type Found = (String, Offer, Tensor);

/// Rows and width of a stored matrix.
fn pair(shape: &[usize], transposed: bool) -> Option<[usize; 2]> {
    match (*shape.first_chunk::<2>()?, shape.len(), transposed) {
        ([rows, width], 2, false) => Some([rows, width]),
        ([width, rows], 2, true) => Some([rows, width]),
        _ => None,
    }
}

impl Packed for Mlc {
    fn path(&self) -> &Path {
        &self.path
    }

    fn model_type(&self) -> &str {
        &self.chat.family
    }

    fn config(&self) -> &Map<String, Value> {
        &self.chat.config
    }

    fn preprocessor(&self) -> Result<Option<Value>> {
        let path = self.path.join("preprocessor_config.json");
        if path.is_file() { json::read(&path, json::MAX_BYTES).map(Some) } else { Ok(self.chat.preprocessor.clone()) }
    }

    fn scheme(&self) -> &str {
        self.chat.mode.name
    }

    fn kv(&self) -> FloatType {
        self.chat.mode.kv
    }

    fn offers(&self) -> &BTreeMap<String, Offer> {
        &self.offers
    }

    fn read(&self, name: &str, rows: Range<usize>, out: &mut Rows) -> Result<()> {
        let tensor = self.tensors.get(name).expect("only what is offered is asked for");
        tensor.read(&self.index, rows, out).map_err(|source| Error::Quantize { tensor: name.to_owned(), source })
    }

    fn carry(&self, to: &Path) -> Result<Vec<CarriedFile>> {
        let mut files = carried::copy(&self.path, to)?;
        let made = [
            ("generation_config.json", Some(&self.chat.generation)),
            ("preprocessor_config.json", self.chat.preprocessor.as_ref()),
        ];
        for (name, value) in made {
            if let Some(value) = value.filter(|_| files.iter().all(|file| file.name != name)) {
                files.push(carried::write(to, name, &format!("{value:#}\n"))?);
            }
        }
        if let Some(template) = self.chat.template.as_ref().filter(|_| !self.has_template()) {
            files.push(carried::write(to, "chat_template.jinja", template)?);
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(files)
    }

    fn files(&self) -> Vec<PathBuf> {
        let shards = self.index.shards().map(|(path, _)| path.to_owned());
        [self.path.join(config::NAME), self.index.path().to_owned()].into_iter().chain(shards).collect()
    }

    fn md5(&self, file: &Path) -> Option<&str> {
        self.index.shards().find(|(path, _)| *path == file)?.1
    }

    fn warnings(&self, files: &[CarriedFile]) -> Vec<String> {
        let tokenizer = without_tokenizer(&self.path, files);
        // The only family whose published windows MLC's configuration does not have.
        let windowless = self.chat.family == "phi3" && !self.chat.config.contains_key("sliding_window");
        let text = "MLC's configuration of Phi 3 does not tell its window; all layers see all tokens, as with MLC";
        tokenizer.into_iter().chain(windowless.then(|| text.to_owned())).collect()
    }
}
