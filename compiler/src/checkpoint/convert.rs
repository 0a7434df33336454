//! Conversion: a published checkpoint becomes a model directory, quantized on the way if that is wanted.

use std::fmt;
use std::path::Path;

use dwindle_quant::Method;
use dwindle_schemes::{Format, Scheme};
use serde_json::{Map, Value};

use super::import::{self, Packed};
use super::model_dir::{CarriedFile, ModelDir, ModelJson, SourceFile, TensorInfo};
use super::selection::{Needs, Selection};
use super::source::Outline;
use super::{Companions, IgnoredKeys, Source, head, json};
use crate::error::{Error, Result};
use crate::note::Note;
use crate::progress::Progress;
use crate::quantize;
use crate::size::Size;
use crate::transcribe::{Mode, Transcript, bytes_out, peak_memory};
use crate::work::{SPARE_DISK, Work};

/// What a conversion has to say besides its result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConvertReport {
    /// What may be missed later.
    pub warnings: Vec<String>,
    /// What was accepted and is worth a line.
    pub notes: Vec<Note>,
    /// Tensors that were written.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Tensors of the source that are of no use, in transformers 4's names.
    pub ignored: Vec<String>,
}

impl fmt::Display for ConvertReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tensors, {}", self.tensors, Size(self.bytes))?;
        if !self.ignored.is_empty() {
            write!(f, "; {} of no use left out: {}", self.ignored.len(), self.ignored.join(", "))?;
        }
        Ok(())
    }
}

/// Converts the checkpoint at `source` to a model directory at `out`, which may be missing, empty, or a model directory to
/// replace: [`Conversion::open`] and [`Conversion::run`] at once, without quantization.
///
/// # Errors
/// As these two.
pub fn convert(source: &Path, out: &Path, progress: &dyn Progress) -> Result<(ModelDir, ConvertReport)> {
    Conversion::open(source, None)?.run(out, progress)
}

/// A checkpoint that was understood and found complete, and what will become of it.
pub struct Conversion {
    input: Input,
    needs: Needs,
    quantization: Option<(Scheme, Method)>,
    model: ModelJson,
    work: Work,
    report: ConvertReport,
}

enum Input {
    Checkpoint(Box<Source>, Companions),
    Packed(Box<dyn Packed>),
}

impl Conversion {
    /// Opens the checkpoint at `source`, and looks at all but the weights themselves.
    ///
    /// Tensors get the names of transformers 4; those of no use to the family are left out. They keep their bytes, or are stored
    /// as `quantization` says: what comes out is the same, byte for byte, as of a conversion and a
    /// [`quantize`](crate::quantize::quantize) of its result. What is packed already stays so.
    ///
    /// # Errors
    /// `source` is no complete checkpoint of a supported family.
    pub fn open(source: &Path, quantization: Option<(Scheme, Method)>) -> Result<Self> {
        Self::open_ignoring(source, &IgnoredKeys::default(), quantization)
    }

    /// The same without some keys of the configuration.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_ignoring(source: &Path, ignored: &IgnoredKeys, quantization: Option<(Scheme, Method)>) -> Result<Self> {
        if let Some(packed) = import::open(source, ignored)? {
            return Self::of_packed(packed, ignored, quantization);
        }
        let source = Source::open_ignoring(source, ignored)?;
        let needs = source.outline().needs()?;
        Self::of_checkpoint(source, needs, quantization)
    }

    /// Of a source that hands out rows.
    pub(crate) fn of_packed(
        source: Box<dyn Packed>,
        ignored: &IgnoredKeys,
        quantization: Option<(Scheme, Method)>,
    ) -> Result<Self> {
        let preprocessor = source.preprocessor()?;
        let mut config = source.config().clone();
        let mut notes = match source.notes() {
            Some(notes) => notes,
            None => ignored.notes(&ignored.remove_from(&mut config)),
        };
        let needs = |config: &Map<String, Value>| {
            Needs::of(source.model_type(), config, preprocessor.as_ref())
                .map_err(|error| Error::Family { path: source.path().to_owned(), source: error })
        };
        let mut family = needs(&config)?;
        if let Some(note) = head::own_packed_head(&family, source.as_ref())? {
            head::untie(&mut config);
            family = needs(&config)?;
            notes.push(note);
        }
        let needs = family;
        notes.extend_from_slice(&needs.notes);
        let (mut model, ignored) = import::describe(source.as_ref(), config, &needs)?;
        let quantization = quantization.filter(|_| model.scheme.is_none());
        if let Some((scheme, _)) = &quantization {
            model.tensors = quantize::infos(&model.tensors, scheme);
        }
        let offered = source.offers().iter().map(|(name, offer)| (name.as_str(), offer.format)).collect();
        let length = |path: std::path::PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let work = Work {
            step: "convert",
            bytes_in: source.files().into_iter().map(length).sum(),
            bytes_to_download: 0,
            bytes_out: bytes_out(&model.tensors, source.carried_bytes()),
            bytes_meanwhile: SPARE_DISK,
            peak_memory: peak_memory(&model.tensors, &offered, mode(&quantization)),
        };
        Ok(Self::new(Input::Packed(source), needs, quantization, model, work, (ignored, notes)))
    }

    /// Of a checkpoint, taking those of its tensors that `needs` tells.
    pub(super) fn of_checkpoint(source: Source, needs: Needs, quantization: Option<(Scheme, Method)>) -> Result<Self> {
        let outline = source.outline();
        let mut selection = Selection::new(&needs, outline);
        let given: Vec<_> = source.shards().iter().flat_map(|shard| selection.file(shard)).collect();
        let ignored = selection.finish(outline)?;
        let info = |given: &crate::transcribe::Given<'_>| {
            let (shape, role) = &needs.tensors[&given.name];
            let format = Format::Plain(given.view.float()?);
            Ok((given.name.clone(), TensorInfo { role: *role, shape: shape.clone(), format }))
        };
        let mut tensors = given.iter().map(info).collect::<Result<_>>()?;
        drop(given);
        if let Some((scheme, _)) = &quantization {
            tensors = quantize::infos(&tensors, scheme);
        }
        let model = ModelJson::new(outline.model_type().to_owned(), outline.config().clone(), tensors);
        let bytes_in = source.shards().iter().map(|shard| shard.mapping().len() as u64).sum();
        let companions = Companions::of(outline)?;
        let work = work(&model, bytes_in, companions.total_bytes(), &quantization);
        let notes = [outline.notes(), &needs.notes, companions.notes()].concat();
        Ok(Self::new(
            Input::Checkpoint(Box::new(source), companions),
            needs,
            quantization,
            model,
            work,
            (ignored, notes),
        ))
    }

    fn new(
        input: Input,
        needs: Needs,
        quantization: Option<(Scheme, Method)>,
        model: ModelJson,
        work: Work,
        (ignored, notes): (Vec<String>, Vec<Note>),
    ) -> Self {
        let bytes = super::stored_layout(&model.tensors).tensor_bytes();
        let report = ConvertReport { warnings: Vec::new(), notes, tensors: model.tensors.len(), bytes, ignored };
        Conversion { input, needs, quantization, model, work, report }
    }

    /// What will be written, but for files and hashes.
    pub fn model(&self) -> &ModelJson {
        &self.model
    }

    /// What it takes.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// What was accepted and is worth a line; the report has it, too.
    pub fn notes(&self) -> &[Note] {
        &self.report.notes
    }

    /// The files that go with the weights, where the source is a checkpoint.
    pub(crate) fn companions(&self) -> Option<&Companions> {
        match &self.input {
            Input::Checkpoint(_, companions) => Some(companions),
            Input::Packed(_) => None,
        }
    }

    /// The scheme that the source is packed in; one that was asked for is of no effect then.
    pub fn packed_as(&self) -> Option<&str> {
        self.model.scheme.as_deref()
    }

    /// Writes the model directory.
    ///
    /// # Errors
    /// `out` cannot be written, there is no room for it, or weights do not fit their format. Nothing is left at `out` then but
    /// what was there before.
    pub fn run(mut self, out: &Path, progress: &dyn Progress) -> Result<(ModelDir, ConvertReport)> {
        let mut transcript = Transcript::begin(self.model, mode(&self.quantization), &self.work, out)?;
        progress.begin(self.work.step, self.work.bytes_in);
        let transcribed = match &self.input {
            Input::Packed(source) => transcript.packed(source.as_ref(), progress),
            Input::Checkpoint(source, _) => {
                let mut selection = Selection::new(&self.needs, source.outline());
                let file = |shard| transcript.file(shard, &selection.file(shard), true, progress).transpose();
                source.shards().iter().filter_map(file).collect()
            }
        };
        progress.end();
        let mut sources: Vec<SourceFile> = transcribed?;
        if let Input::Checkpoint(source, _) = &self.input {
            sources.insert(0, source.outline().config_file()?);
        }
        let carry = |to: &Path| match &self.input {
            Input::Packed(source) => source.carry(to),
            Input::Checkpoint(_, companions) => companions.write(to),
        };
        let model = match &self.input {
            Input::Packed(source) if self.quantization.is_none() => {
                transcript.finish(sources, carry, quantize::describe_packed(source.as_ref()))?
            }
            _ => transcript.finish(sources, carry, quantize::describe(&self.quantization))?,
        };
        self.report.warnings = match &self.input {
            Input::Packed(source) => source.warnings(&model.files),
            Input::Checkpoint(source, _) => without_tokenizer(source.path(), &model.files).into_iter().collect(),
        };
        Ok((ModelDir::open(out)?, self.report))
    }
}

/// What becomes of the tensors.
pub(super) fn mode(quantization: &Option<(Scheme, Method)>) -> Mode {
    quantization.as_ref().map_or(Mode::Keep, |(_, method)| Mode::Encode(*method))
}

/// The warning that a model without a tokenizer deserves.
pub(super) fn without_tokenizer(source: &Path, files: &[CarriedFile]) -> Option<String> {
    let missing = !files.iter().any(|file| file.name == "tokenizer.json");
    missing.then(|| format!("{} has no tokenizer.json; the model can be compiled, but not chat", source.display()))
}

/// What it takes to make `model` of `bytes_in` of weights, with `companions` bytes of other files.
pub(super) fn work(model: &ModelJson, bytes_in: u64, companions: u64, quantization: &Option<(Scheme, Method)>) -> Work {
    Work {
        step: "convert",
        bytes_in,
        bytes_to_download: 0,
        bytes_out: bytes_out(&model.tensors, companions),
        bytes_meanwhile: SPARE_DISK,
        peak_memory: peak_memory(&model.tensors, &Default::default(), mode(quantization)),
    }
}

impl Outline {
    /// What the family needs.
    pub(super) fn needs(&self) -> Result<Needs> {
        Needs::of(self.model_type(), self.config(), self.preprocessor())
            .map_err(|error| Error::Family { path: self.path().to_owned(), source: error })
    }

    /// The configuration's file as one of the sources.
    pub(super) fn config_file(&self) -> Result<SourceFile> {
        let path = self.path().join("config.json");
        let bytes = json::read_bytes(&path, json::MAX_BYTES)?;
        let blake3 = blake3::hash(&bytes).to_hex().to_string();
        Ok(SourceFile { name: "config.json".to_owned(), bytes: bytes.len() as u64, blake3 })
    }
}

impl fmt::Debug for Conversion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversion").field("work", &self.work).field("report", &self.report).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
