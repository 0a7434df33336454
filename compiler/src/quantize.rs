//! Quantization of model directories: streaming, in parallel, with bounded memory.
//!
//! Tensors are cut into blocks of rows. A worker reads a block from the mapped input, encodes it, measures the error, and
//! writes the result at its place in the output; what it holds is a few times a megabyte, whatever the model.
//! Errors are summed up block by block in the order of the rows, so that neither bytes nor card depend on threads.

mod block;
mod card;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use dwindle_quant::{ErrorStats, Method};
use dwindle_schemes::{Format, Role, Scheme};
use rayon::prelude::*;

use self::block::{Scratch, Tensor};
pub use self::card::{Card, TensorCard};
use crate::checkpoint::safetensors::{Layout, TensorWriter};
use crate::checkpoint::{MODEL_SAFETENSORS, ModelDir, OutputDirectory, TensorInfo, carried, matrix};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Values of a block, unless a single row has more: 1 MiB as f32.
const BLOCK_VALUES: usize = 1 << 18;

/// Writes `model` to `out` with its weights stored as `scheme` says, codes and scales chosen by `method`.
///
/// A matrix `X` whose format is grouped becomes `X.codes` (`u32 [rows, words]`) and `X.scales` (`[rows, groups]`), other
/// tensors keep name and shape. A tensor of more than two dimensions counts as `[first, product of the others]`.
///
/// # Errors
/// The model is quantized already; weights do not fit their format; reading or writing fails. Nothing is left at `out`
/// then but what was there before.
pub fn quantize(
    model: &ModelDir,
    scheme: &Scheme,
    method: Method,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Card> {
    if let Some(scheme) = model.scheme() {
        return Err(Error::AlreadyQuantized { path: model.path().to_owned(), scheme: scheme.to_owned() });
    }
    if let (Ok(input), Ok(output)) = (model.path().canonicalize(), out.canonicalize())
        && input == output
    {
        return Err(Error::OutputIsInput { path: out.to_owned() });
    }
    let with_format = |(name, info): (&String, &TensorInfo)| {
        (name.clone(), TensorInfo { format: scheme.format(info.role), ..info.clone() })
    };
    let infos: BTreeMap<_, _> = model.model.tensors.iter().map(with_format).collect();
    let tensors: Result<Vec<_>> = infos.iter().map(|(name, info)| Tensor::new(model, name, info)).collect();
    let tensors = tensors?;

    let stored = infos.iter().flat_map(|(name, info)| info.stored(name));
    let layout = Layout::new(&stored.map(|(name, element, shape)| (name, (element, shape))).collect());
    let output = OutputDirectory::create(out, layout.file_bytes() + carried::total_bytes(model.path()))?;
    let bytes_in: u64 = tensors.iter().map(|tensor| tensor.view.bytes.len() as u64).sum();
    let bytes_out = layout.tensor_bytes();

    let writer = TensorWriter::create(&output.path().join(MODEL_SAFETENSORS), layout)?;
    model.tensors().mapping().will_read();
    progress.begin("quantize", bytes_in);
    let stats = encode(model, &tensors, method, &writer, progress);
    progress.end();
    let stats = stats?;
    writer.finish()?;

    let card = card(scheme, method, &tensors, &stats, [bytes_in, bytes_out]);
    let mut description = model.model.clone();
    description.scheme = Some(scheme.name.clone());
    description.method = Some(method.to_string());
    description.kv = Some(scheme.kv);
    description.card = Some(card.clone());
    description.files = carried::copy(model.path(), output.path())?;
    drop(tensors);
    description.tensors = infos;
    description.write(output.path())?;
    output.commit()?;
    Ok(card)
}

/// Encodes and writes all tensors; the errors of each.
fn encode(
    model: &ModelDir,
    tensors: &[Tensor<'_>],
    method: Method,
    writer: &TensorWriter,
    progress: &dyn Progress,
) -> Result<Vec<ErrorStats>> {
    let blocks: Vec<_> = tensors
        .iter()
        .enumerate()
        .flat_map(|(index, tensor)| tensor.blocks(BLOCK_VALUES).map(move |rows| (index, rows)))
        .collect();
    let parts: Result<Vec<_>> = blocks
        .par_iter()
        .map_init(Scratch::default, |scratch, (index, rows)| {
            let tensor = &tensors[*index];
            let stats = tensor.encode(rows.clone(), method, writer, scratch)?;
            let bytes = tensor.bytes(rows.clone());
            model.tensors().release(bytes);
            progress.advance(bytes.len() as u64);
            Ok(stats)
        })
        .collect();
    let mut stats = vec![ErrorStats::default(); tensors.len()];
    for ((index, _), part) in blocks.iter().zip(parts?) {
        stats[*index].merge(&part);
    }
    Ok(stats)
}

fn card(
    scheme: &Scheme,
    method: Method,
    tensors: &[Tensor<'_>],
    stats: &[ErrorStats],
    [bytes_in, bytes_out]: [u64; 2],
) -> Card {
    let weights: u64 = tensors.iter().map(|tensor| tensor.view.len() as u64).sum();
    let matrices = || tensors.iter().zip(stats).filter(|(tensor, _)| tensor.info.role != Role::Vector);
    let mut total = ErrorStats::default();
    matrices().for_each(|(_, stats)| total.merge(stats));
    let entry = |(tensor, stats): (&Tensor<'_>, &ErrorStats)| {
        let (rows, columns) = matrix(&tensor.info.shape);
        let card = TensorCard {
            role: tensor.info.role,
            format: tensor.info.format,
            shape: [rows, columns],
            bits_per_weight: tensor.info.format.bits_per_weight(columns.max(1)),
            snr_db: finite(stats.snr_db()),
            max_error: f64::from(stats.max_abs),
        };
        (tensor.name.to_owned(), card)
    };
    Card {
        scheme: scheme.name.clone(),
        method: method.to_string(),
        weights,
        bytes_in,
        bytes_out,
        bits_per_weight: bytes_out as f64 * 8.0 / weights.max(1) as f64,
        snr_db: finite(total.snr_db()),
        tensors: matrices().map(entry).collect(),
    }
}

fn finite(decibel: f64) -> Option<f64> {
    decibel.is_finite().then_some(decibel)
}

/// Rows of a tensor that is stored in `format`, and the values of each: those of a matrix where groups run along rows, else
/// single values.
fn rows(shape: &[usize], format: Format) -> (usize, usize) {
    match format {
        Format::Plain(_) => (shape.iter().product(), 1),
        Format::Grouped(_) => matrix(shape),
    }
}
