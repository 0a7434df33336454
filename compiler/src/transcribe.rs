//! Transcription: tensors of any source, block by block and in parallel, into a model directory, kept as they are or encoded.
//!
//! Tensors are cut into blocks of rows. A worker reads a block, encodes it, measures the error, and writes the result at its
//! place in the output; what it holds is a few times a megabyte, whatever the model. Files of tensors come one after another,
//! and each is read once, from beginning to end, hashes included. Errors are summed up block by block in the order of the rows,
//! so that neither bytes nor figures depend on threads, nor on where the tensors came from.

mod block;
mod journal;
mod stream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dwindle_quant::{ErrorStats, Method};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::block::Tensor;
pub(crate) use self::block::{Given, peak_memory};
use self::journal::Journal;
pub(crate) use self::journal::{Finished, Identity};
use self::stream::Pool;
use crate::checkpoint::import::Packed;
use crate::checkpoint::safetensors::{SafeTensors, TensorWriter};
use crate::checkpoint::{
    CarriedFile, MODEL_SAFETENSORS, ModelJson, OutputDirectory, SourceFile, TensorInfo, stored_layout,
};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::work::Work;

/// What becomes of the tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// They keep the format that they have; only floats may change their type.
    Keep,
    /// They are encoded in the formats of the model's description, whose codes and scales this method chooses.
    Encode(Method),
}

/// What a tensor was, and lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Outcome {
    /// Bytes in the source.
    pub bytes: u64,
    /// The error, where it was measured.
    #[serde(with = "journal::stats")]
    pub stats: ErrorStats,
}

/// A model directory in the making.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// What will be written, but for files and sources.
    model: ModelJson,
    mode: Mode,
    output: OutputDirectory,
    writer: TensorWriter,
    outcomes: BTreeMap<String, Outcome>,
    journal: Option<Journal>,
}

/// Bytes of a model directory with these tensors and `carried` bytes of other files, without its description.
pub(crate) fn bytes_out(tensors: &BTreeMap<String, TensorInfo>, carried: u64) -> u64 {
    stored_layout(tensors).file_bytes() + carried
}

impl Transcript {
    /// Begins a model directory at `out` that will be as `model` says, and need what `work` says.
    pub fn begin(model: ModelJson, mode: Mode, work: &Work, out: &Path) -> Result<Self> {
        let output = OutputDirectory::create(out, work)?;
        let (writer, _) = TensorWriter::open(&output.path().join(MODEL_SAFETENSORS), stored_layout(&model.tensors))?;
        Ok(Transcript { model, mode, output, writer, outcomes: BTreeMap::new(), journal: None })
    }

    /// As [`begin`](Self::begin), for a source whose files come one after another, are told to [`finish_file`](Self::finish_file),
    /// and may be gone afterwards. What a killed process, or one that failed, had finished of the same `identity` is taken over.
    pub fn resume(model: ModelJson, mode: Mode, work: &Work, out: &Path, identity: &Identity) -> Result<Self> {
        let output = OutputDirectory::resume(out, work, &identity.line())?;
        let layout = stored_layout(&model.tensors);
        let (writer, fresh) = TensorWriter::open(&output.path().join(MODEL_SAFETENSORS), layout)?;
        let journal = Journal::open(output.journal(), identity)?;
        let mut transcript = Transcript { model, mode, output, writer, outcomes: BTreeMap::new(), journal: None };
        let journal = transcript.take_over(journal, fresh)?;
        transcript.journal = Some(journal);
        Ok(transcript)
    }

    /// Believes what the journal says as far as the bytes in the output agree.
    fn take_over(&mut self, mut journal: Journal, fresh: bool) -> Result<Journal> {
        let mut believed = 0;
        for finished in &journal.finished {
            let known = finished.tensors.keys().all(|name| self.model.tensors.contains_key(name));
            if fresh || !known || self.hash_output(finished.tensors.keys())? != finished.output {
                break;
            }
            for (name, outcome) in &finished.tensors {
                self.outcomes.insert(name.clone(), *outcome);
                self.stored_names(name).for_each(|stored| self.writer.assume_written(&stored));
            }
            believed += 1;
        }
        journal.truncate(believed)?;
        Ok(journal)
    }

    fn stored_names(&self, name: &str) -> impl Iterator<Item = String> + use<> {
        self.model.tensors[name].stored(name).into_iter().map(|(name, ..)| name)
    }

    /// The hash of what was written for these tensors.
    fn hash_output<'n>(&self, names: impl Iterator<Item = &'n String>) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        for name in names {
            for stored in self.stored_names(name) {
                self.writer.hash(&stored, &mut hasher)?;
            }
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Files that were finished by an earlier process.
    pub fn finished(&self) -> impl Iterator<Item = &Finished> {
        self.journal.iter().flat_map(|journal| &journal.finished)
    }

    /// Whether what is finished stays when this value is dropped, for [`resume`](Self::resume).
    pub fn keep(&mut self, kept: bool) {
        self.output.keep(kept);
    }

    /// Where files may be kept until they are transcribed.
    pub fn source_path(&self) -> PathBuf {
        self.output.source_path()
    }

    /// Transcribes the `given` tensors of a file; its hash if that is `wanted`.
    pub fn file(
        &mut self,
        file: &SafeTensors,
        given: &[Given<'_>],
        wanted: bool,
        progress: &dyn Progress,
    ) -> Result<Option<SourceFile>> {
        let tensors = given.iter().map(|given| Tensor::mapped(given, &self.model.tensors[&given.name]));
        let tensors = tensors.collect::<Result<Vec<_>>>()?;
        let mut blocks = Vec::new();
        for (index, tensor) in tensors.iter().enumerate() {
            blocks.extend(tensor.blocks().map(|rows| (tensor.mapped_bytes(&rows), (index, rows))));
        }
        let scratch = Pool::default();
        let encode = |_: &[u8], (index, rows): &(usize, _)| {
            scratch.with(|scratch| tensors[*index].transcribe(rows, self.mode, &self.writer, scratch))
        };
        let streamed = stream::stream(file, blocks, wanted, progress, &encode)?;
        // What was cut of a page reads as zeros; more than that ends the process.
        if !file.mapping().is_whole().map_err(Error::io("read", file.path()))? {
            return Err(Error::Shortened { path: file.path().to_owned() });
        }
        let outcomes = outcomes(&tensors, streamed.results.into_iter().map(|((index, _), stats)| (index, stats)));
        self.outcomes.extend(outcomes);
        Ok(streamed.hashed)
    }

    /// After [`file`](Self::file): makes what was written durable, so that the file need never be read again.
    pub fn finish_file(&mut self, file: SourceFile, given: &[Given<'_>], ignored: &[String]) -> Result<()> {
        let Some(mut journal) = self.journal.take() else { return Ok(()) };
        self.writer.sync()?;
        let tensors: BTreeMap<_, _> =
            given.iter().map(|given| (given.name.clone(), self.outcomes[&given.name])).collect();
        let output = self.hash_output(tensors.keys())?;
        journal.append(Finished { file, tensors, ignored: ignored.to_vec(), output })?;
        self.journal = Some(journal);
        Ok(())
    }

    /// Transcribes all tensors of a packed source that the model needs; the hashes of its files.
    pub fn packed(&mut self, source: &dyn Packed, progress: &dyn Progress) -> Result<Vec<SourceFile>> {
        let tensors: Vec<_> =
            self.model.tensors.iter().map(|(name, info)| Tensor::packed(name, info, source)).collect();
        let blocks: Vec<_> = tensors
            .iter()
            .enumerate()
            .flat_map(|(index, tensor)| tensor.blocks().map(move |rows| (index, rows)))
            .collect();
        let scratch = Pool::default();
        let encode = |(index, rows): &(usize, _)| {
            let stats = scratch.with(|scratch| tensors[*index].transcribe(rows, self.mode, &self.writer, scratch))?;
            progress.advance(tensors[*index].bytes(rows));
            Ok((*index, stats))
        };
        let files = source.files();
        let (hashes, parts) = rayon::join(
            || files.par_iter().map(|path| stream::hash(path, source.md5(path), progress)).collect::<Result<Vec<_>>>(),
            || blocks.par_iter().map(encode).collect::<Result<Vec<_>>>(),
        );
        let (sources, wrong): (Vec<_>, Vec<_>) = hashes?.into_iter().unzip();
        let problems: Vec<String> = wrong.into_iter().flatten().collect();
        if !problems.is_empty() {
            return Err(Error::ShardIndex { path: source.path().to_owned(), problems });
        }
        let outcomes = outcomes(&tensors, parts?);
        self.outcomes.extend(outcomes);
        Ok(sources)
    }

    /// Completes the model directory: `carry` writes what the model carries, `describe` has the last word on its description.
    pub fn finish(
        mut self,
        sources: Vec<SourceFile>,
        carry: impl FnOnce(&Path) -> Result<Vec<CarriedFile>>,
        describe: impl FnOnce(&mut ModelJson, &BTreeMap<String, Outcome>),
    ) -> Result<ModelJson> {
        self.writer.finish()?;
        self.model.files = carry(self.output.path())?;
        self.model.sources = sources;
        describe(&mut self.model, &self.outcomes);
        self.model.write(self.output.path())?;
        self.output.commit()?;
        Ok(self.model)
    }
}

/// Sums up the errors of blocks, which come in the order of the rows.
fn outcomes(tensors: &[Tensor<'_>], parts: impl IntoIterator<Item = (usize, ErrorStats)>) -> BTreeMap<String, Outcome> {
    let empty = |tensor: &Tensor<'_>| Outcome { bytes: tensor.all_bytes(), ..Outcome::default() };
    let mut outcomes: Vec<_> = tensors.iter().map(empty).collect();
    parts.into_iter().for_each(|(index, stats)| outcomes[index].stats.merge(&stats));
    tensors.iter().map(|tensor| tensor.name.to_owned()).zip(outcomes).collect()
}
