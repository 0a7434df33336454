//! Quantization of model directories, and the description of what quantization made of any source.

mod card;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use dwindle_quant::{ErrorStats, Method};
use dwindle_schemes::{Role, Scheme};

pub use self::card::{Card, TensorCard};
use crate::checkpoint::import::Packed;
use crate::checkpoint::{ModelDir, ModelJson, TensorInfo, carried, matrix, stored_layout};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::transcribe::{Given, Mode, Outcome, Transcript, bytes_out, peak_memory};
use crate::work::{SPARE_DISK, Work};

/// Writes `model` to `out` with its weights stored as `scheme` says, codes and scales chosen by `method`: what
/// [`Quantization::open`] and [`Quantization::run`] do.
///
/// # Errors
/// As these two.
pub fn quantize(
    model: &ModelDir,
    scheme: &Scheme,
    method: Method,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Card> {
    Quantization::open(model, scheme, method)?.run(out, progress)
}

/// A model directory that can be quantized, and what it will become.
#[derive(Debug)]
pub struct Quantization<'a> {
    model: &'a ModelDir,
    quantization: Option<(Scheme, Method)>,
    description: ModelJson,
    work: Work,
}

impl<'a> Quantization<'a> {
    /// Plans to store the weights of `model` as `scheme` says.
    ///
    /// A matrix `X` whose format is grouped becomes `X.codes` (`u32 [rows, words]`) and `X.scales` (`[rows, groups]`), other
    /// tensors keep name and shape. A tensor of more than two dimensions counts as `[first, product of the others]`.
    ///
    /// # Errors
    /// The model is quantized already.
    pub fn open(model: &'a ModelDir, scheme: &Scheme, method: Method) -> Result<Self> {
        if let Some(scheme) = model.scheme() {
            return Err(Error::AlreadyQuantized { path: model.path().to_owned(), scheme: scheme.to_owned() });
        }
        let mut description = model.model.clone();
        description.tensors = infos(&model.model.tensors, scheme);
        let work = Work {
            step: "quantize",
            bytes_in: model.tensors().mapping().len() as u64,
            bytes_to_download: 0,
            bytes_out: bytes_out(&description.tensors, carried::total_bytes(model.path())),
            bytes_meanwhile: SPARE_DISK,
            peak_memory: peak_memory(&description.tensors, &BTreeMap::new(), Mode::Encode(method)),
        };
        Ok(Quantization { model, quantization: Some((scheme.clone(), method)), description, work })
    }

    /// What it takes.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Writes the quantized model directory.
    ///
    /// # Errors
    /// Weights do not fit their format; `out` is the input, or cannot be written, or there is no room for it. Nothing is left at
    /// `out` then but what was there before.
    pub fn run(self, out: &Path, progress: &dyn Progress) -> Result<Card> {
        let model = self.model;
        if let (Ok(input), Ok(output)) = (model.path().canonicalize(), out.canonicalize())
            && input == output
        {
            return Err(Error::OutputIsInput { path: out.to_owned() });
        }
        let tensor = |name: &String| model.tensor(name).expect("an open model directory has the tensors that it names");
        let given: Vec<_> =
            model.model.tensors.keys().map(|name| Given { name: name.clone(), view: tensor(name) }).collect();
        let mode = Mode::Encode(self.quantization.as_ref().map_or(Method::Rtn, |(_, method)| *method));
        let mut transcript = Transcript::begin(self.description, mode, &self.work, out)?;
        progress.begin(self.work.step, self.work.bytes_in);
        let transcribed = transcript.file(model.tensors(), &given, false, progress);
        progress.end();
        transcribed?;
        let sources = model.model.sources.clone();
        let carry = |to: &Path| carried::copy(model.path(), to);
        let written = transcript.finish(sources, carry, describe(&self.quantization))?;
        Ok(written.card.expect("what is quantized has a card"))
    }
}

/// How `scheme` stores these tensors.
pub(crate) fn infos(tensors: &BTreeMap<String, TensorInfo>, scheme: &Scheme) -> BTreeMap<String, TensorInfo> {
    let with_format = |(name, info): (&String, &TensorInfo)| {
        (name.clone(), TensorInfo { format: scheme.format(info.role), ..info.clone() })
    };
    tensors.iter().map(with_format).collect()
}

/// What [`Transcript::finish`] adds to the description of a model that was quantized so; nothing if it was not.
pub(crate) fn describe(
    quantization: &Option<(Scheme, Method)>,
) -> impl FnOnce(&mut ModelJson, &BTreeMap<String, Outcome>) {
    |model, outcomes| {
        let Some((scheme, method)) = quantization else { return };
        model.scheme = Some(scheme.name.clone());
        model.method = Some(method.to_string());
        model.kv = Some(scheme.kv);
        model.card = Some(card(scheme.name.clone(), method.to_string(), &model.tensors, outcomes));
    }
}

/// What [`Transcript::finish`] adds to the description of a model that `source` had packed already: a card, where the source
/// has names for the types of its tensors.
pub(crate) fn describe_packed(source: &dyn Packed) -> impl FnOnce(&mut ModelJson, &BTreeMap<String, Outcome>) {
    |model, outcomes| {
        let (Some(scheme), Some(method)) = (model.scheme.clone(), model.method.clone()) else { return };
        let mut card = card(scheme, method, &model.tensors, outcomes);
        for (name, tensor) in &mut card.tensors {
            tensor.source = source.kind(name).map(str::to_owned);
        }
        if card.tensors.values().any(|tensor| tensor.source.is_some()) {
            model.card = Some(card);
        }
    }
}

fn card(
    scheme: String,
    method: String,
    tensors: &BTreeMap<String, TensorInfo>,
    outcomes: &BTreeMap<String, Outcome>,
) -> Card {
    let weights: u64 = tensors.values().map(|info| info.shape.iter().product::<usize>() as u64).sum();
    let bytes_out = stored_layout(tensors).tensor_bytes();
    let matrices = || tensors.iter().filter(|(_, info)| info.role != Role::Vector);
    let mut total = ErrorStats::default();
    matrices().for_each(|(name, _)| total.merge(&outcomes[name].stats));
    let entry = |(name, info): (&String, &TensorInfo)| {
        let (rows, columns) = matrix(&info.shape);
        let stats = outcomes[name].stats;
        let card = TensorCard {
            role: info.role,
            source: None,
            format: info.format,
            shape: [rows, columns],
            bits_per_weight: info.format.bits_per_weight(columns.max(1)),
            snr_db: finite(stats.snr_db()),
            max_error: f64::from(stats.max_abs),
        };
        (name.clone(), card)
    };
    Card {
        scheme,
        method,
        weights,
        bytes_in: outcomes.values().map(|outcome| outcome.bytes).sum(),
        bytes_out,
        bits_per_weight: bytes_out as f64 * 8.0 / weights.max(1) as f64,
        snr_db: finite(total.snr_db()),
        tensors: matrices().map(entry).collect(),
    }
}

fn finite(decibel: f64) -> Option<f64> {
    decibel.is_finite().then_some(decibel)
}
