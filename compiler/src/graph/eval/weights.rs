//! Constant data: recipes over stored tensors, and stored matrices as f32.

use dwindle_schemes::Format;
use half::{bf16, f16};

use super::super::recipe::{Recipe, Stored, Tensors};
use super::super::{DType, Dim, Type};
use super::tensor::{Data, Tensor, concat_rows, interleave_rows, slice_rows};

/// What a recipe stands for, as a value of type `ty`. Its tensors have as many elements, in whatever shape they are stored;
/// an f32 value may come from a tensor of any float type.
pub fn weight(tensors: &dyn Tensors, recipe: &Recipe, ty: &Type) -> Result<Tensor, String> {
    let mut shape = Vec::with_capacity(ty.shape.len());
    for dim in &ty.shape {
        let Dim::Fixed(n) = dim else { return Err(format!("{ty} is no type of constant data")) };
        shape.push(*n);
    }
    let value = evaluate(tensors, recipe, ty.dtype)?;
    Tensor::new(shape, value.data().clone()).map_err(|why| format!("{recipe}: {why}"))
}

fn evaluate(tensors: &dyn Tensors, recipe: &Recipe, dtype: DType) -> Result<Tensor, String> {
    match recipe {
        Recipe::Tensor(name) => {
            let stored = tensors.stored(name).ok_or_else(|| format!("tensor `{name}` is missing"))?;
            let tensor = read(stored).map_err(|why| format!("tensor `{name}`: {why}"))?;
            match dtype {
                _ if tensor.dtype() == dtype => Ok(tensor),
                DType::F32 => Tensor::new(tensor.shape().to_vec(), Data::F32(tensor.widened()?)),
                _ => Err(format!("tensor `{name}` is {}, not {}", tensor.dtype().name(), dtype.name())),
            }
        }
        Recipe::AddScalar(inner, value) => super::elementwise::map(&evaluate(tensors, inner, dtype)?, |x| x + value),
        Recipe::ConcatRows(parts) => {
            let parts: Vec<Tensor> =
                parts.iter().map(|part| evaluate(tensors, part, dtype)).collect::<Result<_, _>>()?;
            concat_rows(&parts.iter().collect::<Vec<_>>())
        }
        Recipe::InterleaveRows(pair) => {
            interleave_rows(&evaluate(tensors, &pair[0], dtype)?, &evaluate(tensors, &pair[1], dtype)?)
        }
        Recipe::SliceRows { of, start, len } => slice_rows(&evaluate(tensors, of, dtype)?, *start, *len),
    }
}

fn read(stored: Stored<'_>) -> Result<Tensor, String> {
    let (words, pairs) = (stored.bytes.as_chunks::<4>().0, stored.bytes.as_chunks::<2>().0);
    let data = match stored.dtype {
        DType::F32 => Data::F32(words.iter().map(|b| f32::from_le_bytes(*b)).collect()),
        DType::U32 => Data::U32(words.iter().map(|b| u32::from_le_bytes(*b)).collect()),
        DType::I32 => Data::I32(words.iter().map(|b| i32::from_le_bytes(*b)).collect()),
        DType::F16 => Data::F16(pairs.iter().map(|b| f16::from_le_bytes(*b)).collect()),
        DType::Bf16 => Data::Bf16(pairs.iter().map(|b| bf16::from_le_bytes(*b)).collect()),
    };
    Tensor::new(stored.shape.to_vec(), data)
}

/// The f32 matrix of `columns` columns that values, or codes and scales, stand for.
pub fn dequantize(format: Format, columns: usize, first: &Tensor, scales: Option<&Tensor>) -> Result<Tensor, String> {
    match format {
        Format::Plain(_) => Tensor::new(first.shape().to_vec(), Data::F32(first.widened()?)),
        Format::Grouped(grouped) => {
            let scales = scales.ok_or("the scales are missing")?;
            let (words, stored) = (grouped.words(columns), grouped.scales(columns));
            if first.columns() != words || scales.columns() != stored || first.rows() != scales.rows() {
                return Err(format!("codes {:?} with scales {:?}", first.shape(), scales.shape()));
            }
            let mut values = vec![0.0; first.rows() * columns];
            dwindle_quant::decode_rows(first.words()?, &scales.widened()?, columns, &grouped, &mut values)
                .map_err(|error| error.to_string())?;
            Tensor::new(vec![first.rows(), columns], Data::F32(values))
        }
    }
}
