//! Conversion: a published checkpoint becomes a model directory. Names change, bytes do not.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use dwindle_schemes::{Format, Role};
use rayon::prelude::*;

use super::directory::OutputDirectory;
use super::model_dir::{CarriedFile, MODEL_SAFETENSORS, ModelDir, ModelJson, SourceFile, TensorInfo};
use super::problems::TensorProblems;
use super::safetensors::{Layout, SafeTensors, TensorView, TensorWriter};
use super::{Source, carried, import, names};
use crate::arch;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::size::Size;

/// Bytes that are copied or hashed at a time.
const BLOCK: usize = 4 << 20;

/// What a family says about the tensors of its checkpoints, in transformers 4's names.
pub(super) struct Needs<'a> {
    /// Shape and role of every tensor that must be there.
    pub tensors: BTreeMap<String, (Vec<usize>, Role)>,
    /// Whether a tensor that may be there is of no use.
    pub ignored: &'a dyn Fn(&str) -> bool,
}

/// What a conversion has to say besides its result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConvertReport {
    /// What may be missed later.
    pub warnings: Vec<String>,
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

/// Converts the checkpoint in the directory `source` to a model directory at `out`, which may be missing, empty, or a
/// model directory to replace. What is packed already (see [`import`]) stays so, and needs no quantization.
///
/// Tensors keep their bytes and get the names of transformers 4; those of no use to the family are left out. What
/// belongs to tokenizer and images is copied.
///
/// # Errors
/// `source` is no complete checkpoint of a supported family, or `out` cannot be written; nothing is left at `out` then
/// but what was there before.
pub fn convert(source: &Path, out: &Path, progress: &dyn Progress) -> Result<(ModelDir, ConvertReport)> {
    if let Some(packed) = import::open(source)? {
        return import::import(packed.as_ref(), out, progress);
    }
    let source = Source::open(source)?;
    let preprocessor = source.preprocessor()?;
    let family = arch::parse(source.model_type(), source.config(), preprocessor.as_ref())
        .map_err(|error| Error::Family { path: source.path().to_owned(), source: error })?;
    let tensors = family.tensors().into_iter().map(|spec| (spec.name, (spec.shape, spec.role))).collect();
    convert_as(&source, &Needs { tensors, ignored: &|name| family.ignored(name) }, out, progress)
}

/// Writes `source` to `out` as a model directory whose tensors are those that `needs` tells.
pub(super) fn convert_as(
    source: &Source,
    needs: &Needs<'_>,
    out: &Path,
    progress: &dyn Progress,
) -> Result<(ModelDir, ConvertReport)> {
    let mut report = ConvertReport::default();
    let views = select(source, needs, &mut report)?;
    let layout: BTreeMap<_, _> =
        views.iter().map(|(name, (_, view))| (name.clone(), (view.dtype, view.shape.to_vec()))).collect();
    let layout = Layout::new(&layout);
    report.tensors = views.len();
    report.bytes = views.values().map(|(_, view)| view.bytes.len() as u64).sum();

    let output = OutputDirectory::create(out, layout.file_bytes() + carried::total_bytes(source.path()))?;
    let hashed: u64 = source.shards().iter().map(|shard| shard.mapping().len() as u64).sum();
    progress.begin("convert", report.bytes + hashed);
    let written = write(source, &views, layout, output.path(), progress);
    progress.end();
    let sources = written?;

    let mut model = ModelJson::new(source.model_type().to_owned(), source.config().clone(), infos(&views, needs)?);
    model.files = carried::copy(source.path(), output.path())?;
    model.sources = sources;
    model.write(output.path())?;
    report.warnings.extend(without_tokenizer(source.path(), &model.files));
    output.commit()?;
    Ok((ModelDir::open(out)?, report))
}

/// The warning that a model without a tokenizer deserves.
pub(super) fn without_tokenizer(source: &Path, files: &[CarriedFile]) -> Option<String> {
    let missing = !files.iter().any(|file| file.name == "tokenizer.json");
    missing.then(|| format!("{} has no tokenizer.json; the model can be compiled, but not chat", source.display()))
}

/// Tensors by their canonical name, with the number of their shard.
type Views<'a> = BTreeMap<String, (usize, TensorView<'a>)>;

/// Finds every tensor that is needed, or everything that is wrong.
fn select<'a>(source: &'a Source, needs: &Needs<'_>, report: &mut ConvertReport) -> Result<Views<'a>> {
    let mut problems = TensorProblems::default();
    let mut views = Views::new();
    for (shard, view) in source.tensors() {
        let name = names::canonical(view.name, source.is_multimodal()).into_owned();
        match needs.tensors.get(&name) {
            None if (needs.ignored)(&name) => report.ignored.push(name),
            None => problems.extra.push((name, view.shape.to_vec())),
            Some((shape, _)) => {
                if view.shape != shape.as_slice() {
                    problems.misshapen.push((name.clone(), shape.clone(), view.shape.to_vec()));
                }
                if view.dtype.float().is_none() {
                    problems.unsupported.push((name.clone(), view.dtype_name.to_owned()));
                }
                if views.insert(name.clone(), (shard, view)).is_some() {
                    problems.duplicate.push(name);
                }
            }
        }
    }
    let missing = needs.tensors.iter().filter(|(name, _)| !views.contains_key(*name));
    problems.missing.extend(missing.map(|(name, (shape, _))| (name.clone(), shape.clone())));
    problems.sort();
    report.ignored.sort();
    if problems.is_empty() {
        return Ok(views);
    }
    Err(Error::Tensors {
        path: source.path().to_owned(),
        family: source.model_type().to_owned(),
        problems: Box::new(problems),
    })
}

fn infos(views: &Views<'_>, needs: &Needs<'_>) -> Result<BTreeMap<String, TensorInfo>> {
    let info = |(name, (shape, role)): (&String, &(Vec<usize>, Role))| {
        let format = Format::Plain(views[name].1.float()?);
        Ok((name.clone(), TensorInfo { role: *role, shape: shape.clone(), format }))
    };
    needs.tensors.iter().map(info).collect()
}

/// Copies the tensors and hashes the files of the source, both in parallel.
fn write(
    source: &Source,
    views: &Views<'_>,
    layout: Layout,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Vec<SourceFile>> {
    let writer = TensorWriter::create(&out.join(MODEL_SAFETENSORS), layout)?;
    let shards = source.shards();
    shards.iter().for_each(|shard| shard.mapping().will_read());
    let mut blocks = Vec::new();
    for (name, (shard, view)) in views {
        for (index, bytes) in view.bytes.chunks(BLOCK).enumerate() {
            blocks.push((*shard, bytes.as_ptr().addr(), name, (index * BLOCK) as u64, bytes));
        }
    }
    // In the order of the files, as the hashes read them, so that each page comes from the disk once.
    blocks.sort_by_key(|&(shard, address, ..)| (shard, address));
    let copy = || {
        blocks.par_iter().try_for_each(|&(shard, _, name, offset, bytes)| {
            writer.write(name, offset, bytes)?;
            shards[shard].release(bytes);
            progress.advance(bytes.len() as u64);
            Ok::<_, Error>(())
        })
    };
    let (hashes, copied) = rayon::join(|| shards.par_iter().map(|shard| hash(shard, progress)).collect(), copy);
    copied?;
    writer.finish()?;

    let mut files: Vec<SourceFile> = hashes;
    let config = source.path().join("config.json");
    let bytes = std::fs::read(&config).map_err(Error::io("read", &config))?;
    files.insert(0, SourceFile { name: "config.json".to_owned(), bytes: bytes.len() as u64, blake3: hex(&bytes) });
    Ok(files)
}

fn hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn hash(shard: &SafeTensors, progress: &dyn Progress) -> SourceFile {
    let mut hasher = blake3::Hasher::new();
    for block in shard.mapping().chunks(BLOCK) {
        hasher.update(block);
        shard.release(block);
        progress.advance(block.len() as u64);
    }
    let name = shard.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    SourceFile { name, bytes: shard.mapping().len() as u64, blake3: hasher.finalize().to_hex().to_string() }
}

#[cfg(test)]
mod tests;
