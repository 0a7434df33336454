//! Import: a published model whose weights are packed already becomes a model directory; codes and scales pass through.
//!
//! A [`Packed`] source tells its tensors in transformers 4's names and hands out rows in the layout of
//! [`Grouped`](dwindle_schemes::Grouped); what differs between publishers (files, order of nibbles, transposition, concatenation)
//! stays in its own file below this one. The rest is here once: comparison with what the family needs, the streaming writer, the
//! description. Nothing is rounded a second time but for floats in bf16, for which kernels have no type.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dwindle_quant::{read_floats, write_floats};
use dwindle_schemes::{FloatType, Format, Role};
use rayon::prelude::*;
use serde_json::{Map, Value};

use super::directory::OutputDirectory;
use super::model_dir::{CarriedFile, MODEL_SAFETENSORS, ModelDir, ModelJson, SourceFile, TensorInfo, matrix};
use super::problems::TensorProblems;
use super::safetensors::{Layout, TensorWriter};
use super::{ConvertReport, carried};
use crate::arch;
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Values of a block of rows, unless a single row has more.
const BLOCK_VALUES: usize = 1 << 18;

/// Bytes that are hashed at a time.
const PIECE: usize = 1 << 20;

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
    /// Scales of a grouped tensor, `[rows, groups]`, or all values of a plain one; little-endian floats of its format.
    pub floats: Vec<u8>,
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

    /// Replaces what is in `out` by some rows of a tensor: those of the matrix that [`matrix`] makes of its shape.
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

    /// The files that weights and configuration come from.
    fn files(&self) -> Vec<PathBuf>;
}

/// The packed model at `path`, a directory or a file, if it is one; each publisher's format recognises its own.
pub(crate) fn open(path: &Path) -> Result<Option<Box<dyn Packed>>> {
    let _ = path;
    Ok(None)
}

/// Writes `source` to `out`, which may be missing, empty, or a model directory to replace.
///
/// # Errors
/// The source is no complete model of a supported family, or `out` cannot be written; nothing is left at `out` then but
/// what was there before.
pub(crate) fn import(source: &dyn Packed, out: &Path, progress: &dyn Progress) -> Result<(ModelDir, ConvertReport)> {
    let preprocessor = source.preprocessor()?;
    let family = arch::parse(source.model_type(), source.config(), preprocessor.as_ref())
        .map_err(|error| Error::Family { path: source.path().to_owned(), source: error })?;
    let needs: BTreeMap<_, _> = family.tensors().into_iter().map(|spec| (spec.name, (spec.shape, spec.role))).collect();
    let mut report =
        ConvertReport { ignored: compare(source, &needs, &|name| family.ignored(name))?, ..Default::default() };

    let offers = source.offers();
    let packed = needs.keys().any(|name| matches!(offers[name].format, Format::Grouped(_)));
    let info = |(name, (shape, role)): (&String, &(Vec<usize>, Role))| {
        let format = if packed { stored(*role, offers[name].format) } else { offers[name].format };
        (name.clone(), TensorInfo { role: *role, shape: shape.clone(), format })
    };
    let infos: BTreeMap<_, _> = needs.iter().map(info).collect();
    let stored = infos.iter().flat_map(|(name, info)| info.stored(name));
    let layout = Layout::new(&stored.map(|(name, element, shape)| (name, (element, shape))).collect());
    report.tensors = infos.len();
    report.bytes = layout.tensor_bytes();

    let files = source.files();
    let bytes_of = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    let output = OutputDirectory::create(out, layout.file_bytes() + source.carried_bytes())?;
    progress.begin("import", report.bytes + files.iter().map(bytes_of).sum::<u64>());
    let (sources, written) = rayon::join(
        || files.par_iter().map(|path| hash(path, progress)).collect::<Result<Vec<_>>>(),
        || write(source, &infos, layout, output.path(), progress),
    );
    progress.end();
    written?;

    let mut model = ModelJson::new(source.model_type().to_owned(), source.config().clone(), infos);
    if packed {
        model.scheme = Some(source.scheme().to_owned());
        model.method = Some(METHOD.to_owned());
        model.kv = Some(source.kv());
    }
    model.files = source.carry(output.path())?;
    model.sources = sources?;
    model.write(output.path())?;
    report.warnings.extend(source.warnings(&model.files));
    output.commit()?;
    Ok((ModelDir::open(out)?, report))
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

/// Writes all tensors, block by block.
fn write(
    source: &dyn Packed,
    infos: &BTreeMap<String, TensorInfo>,
    layout: Layout,
    out: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let writer = TensorWriter::create(&out.join(MODEL_SAFETENSORS), layout)?;
    let blocks: Vec<_> = infos
        .iter()
        .flat_map(|(name, info)| {
            let (rows, columns) = matrix(&info.shape);
            let step = (BLOCK_VALUES / columns.max(1)).max(1);
            (0..rows).step_by(step).map(move |start| (name, info, start..rows.min(start + step)))
        })
        .collect();
    blocks.par_iter().try_for_each_init(Rows::default, |buffer, (name, info, rows)| {
        source.read(name, rows.clone(), buffer)?;
        let bytes = write_rows(source, name, info, rows, buffer, &writer)?;
        progress.advance(bytes);
        Ok::<_, Error>(())
    })?;
    writer.finish()
}

/// Writes rows at their place; the bytes of them.
fn write_rows(
    source: &dyn Packed,
    name: &str,
    info: &TensorInfo,
    rows: &Range<usize>,
    buffer: &mut Rows,
    writer: &TensorWriter,
) -> Result<u64> {
    let (_, columns) = matrix(&info.shape);
    match info.format {
        Format::Plain(float) => {
            if source.offers()[name].format != info.format {
                cast(source.offers()[name].format, float, buffer)
                    .map_err(|source| Error::Quantize { tensor: name.to_owned(), source: source.below(rows.start) })?;
            }
            let row = columns * float.bytes();
            assert_eq!(buffer.floats.len(), rows.len() * row, "a source fills the rows that it is asked for");
            writer.write(name, (rows.start * row) as u64, &buffer.floats)?;
            Ok(buffer.floats.len() as u64)
        }
        Format::Grouped(grouped) => {
            let [words, scales] = [grouped.words(columns), grouped.groups(columns) * grouped.scale.bytes()];
            assert_eq!(buffer.words.len(), rows.len() * words, "a source fills the rows that it is asked for");
            assert_eq!(buffer.floats.len(), rows.len() * scales, "a source fills the rows that it is asked for");
            buffer.words.iter_mut().for_each(|word| *word = word.to_le());
            let codes: &[u8] = bytemuck::cast_slice(&buffer.words);
            writer.write(&format!("{name}.codes"), (rows.start * words * 4) as u64, codes)?;
            writer.write(&format!("{name}.scales"), (rows.start * scales) as u64, &buffer.floats)?;
            Ok((codes.len() + buffer.floats.len()) as u64)
        }
    }
}

/// Converts the values in `buffer` from the offered type of floats.
fn cast(offered: Format, float: FloatType, buffer: &mut Rows) -> Result<(), dwindle_quant::Error> {
    let Format::Plain(offered) = offered else { return Ok(()) };
    let mut values = vec![0.0; buffer.floats.len() / offered.bytes()];
    read_floats(offered, &buffer.floats, &mut values)?;
    buffer.floats.resize(values.len() * float.bytes(), 0);
    write_floats(float, &values, &mut buffer.floats)
}

fn hash(path: &Path, progress: &dyn Progress) -> Result<SourceFile> {
    let mut file = File::open(path).map_err(Error::io("read", path))?;
    let (mut hasher, mut bytes, mut piece) = (blake3::Hasher::new(), 0, vec![0; PIECE]);
    loop {
        let length = file.read(&mut piece).map_err(Error::io("read", path))?;
        if length == 0 {
            break;
        }
        hasher.update(&piece[..length]);
        bytes += length as u64;
        progress.advance(length as u64);
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(SourceFile { name, bytes, blake3: hasher.finalize().to_hex().to_string() })
}
