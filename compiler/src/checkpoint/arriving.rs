//! A checkpoint whose files of weights arrive one after another, quantized as they come: none has to stay, and what was finished
//! before an interruption is not needed again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dwindle_quant::Method;
use dwindle_schemes::Scheme;

use super::convert::{mode, without_tokenizer, work};
use super::model_dir::{MODEL_SAFETENSORS, ModelDir, ModelJson, SourceFile, TensorInfo};
use super::safetensors::SafeTensors;
use super::selection::{Needs, Selection};
use super::source::{INDEX, Outline, read_index};
use super::{Companions, ConvertReport, IgnoredKeys, head, import, names, stored_layout};
use crate::error::{Error, Result};
use crate::note::Note;
use crate::progress::Progress;
use crate::quantize;
use crate::transcribe::{Identity, Transcript};
use crate::work::Work;

/// A file of weights, as its publisher announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Name in the checkpoint's directory.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// A hash of its content, of any kind: it only tells versions apart.
    pub hash: String,
    /// Whether it is on this machine already.
    pub is_here: bool,
}

/// What becomes of files when they are transcribed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// They go, one by one.
    Nothing,
    /// They stay.
    Files,
}

/// A checkpoint that was understood before its weights are here.
#[derive(Debug)]
pub struct Announcement {
    outline: Outline,
    needs: Needs,
    quantization: Option<(Scheme, Method)>,
    companions: Companions,
    files: Vec<Announced>,
    model: ModelJson,
    work: Work,
}

impl Announcement {
    /// Understands a checkpoint of which everything but the weights is in `directory`, and whose weights are in `files`; `None` if
    /// they are packed or no safetensors, or if a tied model lists a head that only a comparison with the embedding can judge:
    /// then they have to be there as a whole, see [`Conversion`](super::Conversion).
    ///
    /// # Errors
    /// The family is not supported, or the index names other tensors than the family needs, or files that are not announced.
    pub fn open(
        directory: &Path,
        mut files: Vec<Announced>,
        keep: Keep,
        ignored: &IgnoredKeys,
        scheme: &Scheme,
        method: Method,
    ) -> Result<Option<Self>> {
        if !files.iter().all(|file| file.name.ends_with(".safetensors")) || import::is_packed(directory)? {
            return Ok(None);
        }
        let outline = Outline::open(directory, ignored)?;
        let needs = outline.needs()?;
        let companions = Companions::of(&outline)?;
        let path = directory.join(INDEX);
        let is_single = files.iter().any(|file| file.name == MODEL_SAFETENSORS);
        let index = match is_single {
            true => {
                files.retain(|file| file.name == MODEL_SAFETENSORS);
                None
            }
            false => Some(read_index(&path)?),
        };
        if let Some(index) = &index {
            files.retain(|file| index.contains_key(&file.name));
            let is_announced = |name: &String| files.iter().any(|file| file.name == *name);
            let missing: Vec<_> = index.keys().filter(|name| !is_announced(name)).cloned().collect();
            if !missing.is_empty() {
                return Err(Error::MissingShards { path, missing, total: index.len() });
            }
            let head = head::tied(&needs).map(|(_, head)| head);
            let is_head = |name: &String| head.as_deref() == Some(&*names::canonical(name, outline.is_multimodal()));
            if index.values().flatten().any(is_head) {
                return Ok(None);
            }
            let mut selection = Selection::new(&needs, &outline);
            index.values().flatten().for_each(|name| selection.assume(name));
            selection.finish(&outline)?;
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));

        let info = |(name, (shape, role)): (&String, &(Vec<usize>, _))| {
            (name.clone(), TensorInfo { role: *role, shape: shape.clone(), format: scheme.format(*role) })
        };
        let tensors = needs.tensors.iter().map(info).collect();
        let model = ModelJson::new(outline.model_type().to_owned(), outline.config().clone(), tensors);
        let quantization = Some((scheme.clone(), method));
        let bytes_in = files.iter().map(|file| file.bytes).sum();
        let mut work = work(&model, bytes_in, companions.total_bytes(), &quantization);
        let mut coming: Vec<u64> = files.iter().filter(|file| !file.is_here).map(|file| file.bytes).collect();
        work.bytes_to_download = coming.iter().sum();
        if keep == Keep::Nothing {
            // One is transcribed while the next one arrives.
            coming.sort_unstable_by(|a, b| b.cmp(a));
            work.bytes_meanwhile += coming.iter().take(2).sum::<u64>();
        }
        Ok(Some(Announcement { outline, needs, companions, quantization, files, model, work }))
    }

    /// The files of weights, ordered by name.
    pub fn files(&self) -> &[Announced] {
        &self.files
    }

    /// What it takes, if nothing of it was done before.
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// What was accepted and is worth a line; the report has it, too.
    pub fn notes(&self) -> Vec<Note> {
        [self.outline.notes(), &self.needs.notes, self.companions.notes()].concat()
    }

    /// Begins the model directory at `out`, or takes over what an interrupted attempt finished of the same files in the same way.
    ///
    /// # Errors
    /// `out` cannot be written, or there is no room for it.
    pub fn begin(&self, out: &Path) -> Result<Arriving<'_>> {
        let mut selection = Selection::new(&self.needs, &self.outline);
        let files = self.files.iter().map(|file| (file.name.clone(), file.bytes, file.hash.clone())).collect();
        let config = self.outline.config_file()?;
        let quantization = self.quantization.as_ref().expect("what arrives is quantized");
        let identity = Identity::new(quantization, config.blake3.clone(), files);
        let model = self.model.clone();
        let mut transcript = Transcript::resume(model, mode(&self.quantization), &self.work, out, &identity)?;
        transcript.keep(true);
        let mut sources = BTreeMap::new();
        for finished in transcript.finished() {
            sources.insert(finished.file.name.clone(), finished.file.clone());
            selection.take_over(finished.tensors.keys(), &finished.ignored);
        }
        Ok(Arriving { announcement: self, selection, transcript, config, sources })
    }
}

/// A model directory that is made of files as they arrive. Dropping it keeps what is finished for the next attempt, unless the
/// files are of no use.
#[derive(Debug)]
pub struct Arriving<'a> {
    announcement: &'a Announcement,
    selection: Selection<'a>,
    transcript: Transcript,
    config: SourceFile,
    sources: BTreeMap<String, SourceFile>,
}

impl Arriving<'_> {
    /// The files that are still needed, in the order of their names; any order will do.
    pub fn remaining(&self) -> Vec<&Announced> {
        self.announcement.files.iter().filter(|file| !self.sources.contains_key(&file.name)).collect()
    }

    /// A folder for files that do not stay, on the file system of the output. What is in it survives interruptions as the rest does.
    pub fn folder(&self) -> PathBuf {
        self.transcript.source_path()
    }

    /// Transcribes the file `name`, which is at `path`. When this returns, its part of the output is durable, and the file is not
    /// needed any more.
    ///
    /// # Errors
    /// The file is damaged, or does not hold what the family says; weights do not fit their format; writing fails.
    /// [`Error::OwnHead`]: what was understood before the weights came is wrong.
    pub fn file(&mut self, name: &str, path: &Path, progress: &dyn Progress) -> Result<()> {
        let transcribed = self.transcribe(name, path, progress);
        // A checkpoint that is not what it should be will not become so; what was made of it is of no use.
        self.transcript.keep(matches!(transcribed, Ok(()) | Err(Error::Io { .. })));
        transcribed
    }

    fn transcribe(&mut self, name: &str, path: &Path, progress: &dyn Progress) -> Result<()> {
        let Announcement { outline, needs, .. } = self.announcement;
        let file = SafeTensors::open(path)?;
        if let Some(note) = head::own_head(needs, outline.is_multimodal(), [&file]) {
            return Err(Error::OwnHead { path: outline.path().to_owned(), note });
        }
        let before = self.selection.ignored.len();
        let given = self.selection.file(&file);
        self.selection.check(outline)?;
        progress.begin(name, file.mapping().len() as u64);
        let transcribed = self.transcript.file(&file, &given, true, progress);
        progress.end();
        let source = transcribed?.expect("the hash of the file was wanted");
        let source = SourceFile { name: name.to_owned(), ..source };
        self.transcript.finish_file(source.clone(), &given, &self.selection.ignored[before..])?;
        self.sources.insert(name.to_owned(), source);
        Ok(())
    }

    /// Completes the model directory.
    ///
    /// # Errors
    /// Tensors are missing, or writing fails.
    pub fn finish(self, out: &Path) -> Result<(ModelDir, ConvertReport)> {
        let Announcement { outline, companions, quantization, model, .. } = self.announcement;
        let ignored = self.selection.finish(outline)?;
        let sources = std::iter::once(self.config).chain(self.sources.into_values()).collect();
        let (tensors, bytes) = (model.tensors.len(), stored_layout(&model.tensors).tensor_bytes());
        let carry = |to: &Path| companions.write(to);
        let model = self.transcript.finish(sources, carry, quantize::describe(quantization))?;
        let warnings = without_tokenizer(outline.path(), &model.files).into_iter().collect();
        let notes = self.announcement.notes();
        Ok((ModelDir::open(out)?, ConvertReport { warnings, notes, tensors, bytes, ignored }))
    }
}

#[cfg(test)]
mod tests;
