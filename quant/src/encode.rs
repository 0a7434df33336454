//! Rows of values to packed codes and scales, and back.

use dwindle_schemes::{Grouped, Zero};

use crate::error::check_length;
use crate::float::round;
use crate::pack::{self, Meaning};
use crate::rtn::{LANES, Levels, greatest_magnitude};
use crate::wide::{self, Wide};
use crate::{Error, Method, asymmetric, minimum, rtn, search};

/// Quantizes whole rows.
///
/// - `values`: `[rows, columns]`, finite
/// - `words`: `[rows, grouped.words(columns)]`, packed codes; the padding of each row's last group holds code 0
/// - `scales`: `[rows, grouped.scales(columns)]`, zeros or minimums between them where groups have their own; already rounded to
///   `grouped.scale`, so that [`write_floats`](crate::write_floats) stores them exactly
///
/// # Errors
/// [`Error::NotFinite`], [`Error::ScaleOverflow`] and [`Error::MinimumOverflow`] name the place, counted in these rows (see [`Error::below`]);
/// `words` and `scales` then hold an unspecified part. [`Error::Length`] and [`Error::Format`] if the slices do not
/// belong together.
pub fn encode_rows(
    values: &[f32],
    columns: usize,
    grouped: &Grouped,
    method: Method,
    words: &mut [u32],
    scales: &mut [f32],
) -> Result<(), Error> {
    check(grouped, columns, values.len(), words.len(), scales.len())?;
    let grouped = *grouped;
    match grouped.bits {
        3 => wide::run(Encode::<3> { values, columns, grouped, method, words, scales }),
        4 => wide::run(Encode::<4> { values, columns, grouped, method, words, scales }),
        5 => wide::run(Encode::<5> { values, columns, grouped, method, words, scales }),
        6 => wide::run(Encode::<6> { values, columns, grouped, method, words, scales }),
        _ => wide::run(Encode::<8> { values, columns, grouped, method, words, scales }),
    }
}

/// Restores whole rows: `(code - zero) * scale` or `code * scale + minimum`, in f32. Shapes as in [`encode_rows`].
///
/// # Errors
/// [`Error::Length`] and [`Error::Format`] if the slices do not belong together.
pub fn decode_rows(
    words: &[u32],
    scales: &[f32],
    columns: usize,
    grouped: &Grouped,
    values: &mut [f32],
) -> Result<(), Error> {
    check(grouped, columns, values.len(), words.len(), scales.len())?;
    let grouped = *grouped;
    match grouped.bits {
        3 => wide::run(Decode::<3> { words, scales, columns, grouped, values }),
        4 => wide::run(Decode::<4> { words, scales, columns, grouped, values }),
        5 => wide::run(Decode::<5> { words, scales, columns, grouped, values }),
        6 => wide::run(Decode::<6> { words, scales, columns, grouped, values }),
        _ => wide::run(Decode::<8> { words, scales, columns, grouped, values }),
    }
    Ok(())
}

fn check(grouped: &Grouped, columns: usize, values: usize, words: usize, scales: usize) -> Result<(), Error> {
    if !grouped.is_valid() {
        return Err(Error::Format(*grouped));
    }
    let rows = values.checked_div(columns).unwrap_or(0);
    check_length("values of whole rows", values, rows * columns)?;
    check_length("words", words, rows * grouped.words(columns))?;
    check_length("scales", scales, rows * grouped.scales(columns))
}

struct Encode<'a, const BITS: u32> {
    values: &'a [f32],
    columns: usize,
    grouped: Grouped,
    method: Method,
    words: &'a mut [u32],
    scales: &'a mut [f32],
}

const CHUNKS: usize = Grouped::MAX_GROUP / LANES;

impl<const BITS: u32> Wide for Encode<'_, BITS> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run(self) -> Result<(), Error> {
        let Encode { values, columns, grouped, method, words, scales } = self;
        if values.is_empty() {
            return Ok(());
        }
        let mut filled_up = [[0.0; LANES]; CHUNKS];
        let mut normal = [[0.0; LANES]; CHUNKS];
        let mut codes = [[0; LANES]; CHUNKS];
        let mut tried = [[0; LANES]; CHUNKS];
        let (words_per_group, scales_per_group) = (grouped.words_per_group(), grouped.scales_per_group());
        let levels = grouped.constant_zero().map(|zero| Levels::all(BITS, zero));
        let rows = values
            .chunks_exact(columns)
            .zip(words.chunks_exact_mut(grouped.words(columns)))
            .zip(scales.chunks_exact_mut(grouped.scales(columns)));
        for (row, ((values, words), scales)) in rows.enumerate() {
            let groups = values
                .chunks(grouped.group)
                .zip(words.chunks_exact_mut(words_per_group))
                .zip(scales.chunks_exact_mut(scales_per_group));
            for (index, ((values, words), stored)) in groups.enumerate() {
                let w = match values.as_chunks::<LANES>() {
                    (chunks, []) => chunks,
                    (chunks, rest) => {
                        let (whole, last) = (chunks.len(), rest.len());
                        filled_up[..whole].copy_from_slice(chunks);
                        filled_up[whole] = [0.0; LANES];
                        filled_up[whole][..last].copy_from_slice(rest);
                        &filled_up[..whole + 1]
                    }
                };
                let column = index * grouped.group;
                let greatest = greatest_magnitude(w);
                if !greatest.is_finite() {
                    return Err(not_finite(row, column, values));
                }
                let (used, tried) = (&mut codes[..w.len()], &mut tried[..w.len()]);
                let scale = match (levels, grouped.zero) {
                    (Some(levels), _) => {
                        let scale = rtn::encode_group(w, greatest, levels.symmetric(), used);
                        stored[0] = round(grouped.scale, scale);
                        scale
                    }
                    (None, Zero::Minimum) => {
                        let used = &mut used.as_flattened_mut()[..values.len()];
                        let tried = &mut tried.as_flattened_mut()[..values.len()];
                        let normal = &mut normal.as_flattened_mut()[..values.len()];
                        let choice = minimum::encode_group(values, BITS, grouped.scale, method, used, normal, tried);
                        let (scale, minimum) = choice.unrounded;
                        if !choice.minimum.is_finite() {
                            return Err(Error::MinimumOverflow { row, column, minimum, float: grouped.scale });
                        }
                        stored.copy_from_slice(&[choice.scale, choice.minimum]);
                        scale
                    }
                    (None, _) => {
                        let choice = asymmetric::encode_group(w, BITS, grouped.scale, method, used, tried);
                        stored.copy_from_slice(&[choice.scale, choice.zero as f32]);
                        choice.unrounded
                    }
                };
                if !stored[0].is_finite() {
                    return Err(Error::ScaleOverflow { row, column, scale, float: grouped.scale });
                }
                if let (Method::Search, Some(levels)) = (method, levels) {
                    let scratch = search::Scratch { normal: &mut normal[..w.len()], tried };
                    stored[0] = search::improve_group(w, greatest, stored[0], grouped.scale, levels, used, scratch);
                }
                let codes = codes.as_flattened_mut();
                if values.len() < grouped.group {
                    codes[values.len()..grouped.group].fill(0);
                }
                pack::pack::<BITS>(codes, words);
            }
        }
        Ok(())
    }
}

#[cold]
fn not_finite(row: usize, column: usize, values: &[f32]) -> Error {
    let offset = values.iter().position(|value| !value.is_finite()).unwrap_or(0);
    Error::NotFinite { row, column: column + offset, value: values[offset] }
}

struct Decode<'a, const BITS: u32> {
    words: &'a [u32],
    scales: &'a [f32],
    columns: usize,
    grouped: Grouped,
    values: &'a mut [f32],
}

impl<const BITS: u32> Wide for Decode<'_, BITS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Decode { words, scales, columns, grouped, values } = self;
        if values.is_empty() {
            return;
        }
        let rows = values
            .chunks_exact_mut(columns)
            .zip(words.chunks_exact(grouped.words(columns)))
            .zip(scales.chunks_exact(grouped.scales(columns)));
        let zero = grouped.constant_zero().map(|zero| zero as f32);
        for ((values, words), scales) in rows {
            let groups = values
                .chunks_mut(grouped.group)
                .zip(words.chunks_exact(grouped.words_per_group()))
                .zip(scales.chunks_exact(grouped.scales_per_group()));
            for ((values, words), stored) in groups {
                let meaning = match (grouped.zero, stored) {
                    (Zero::Minimum, &[scale, minimum]) => Meaning::Minimum { scale, minimum },
                    _ => Meaning::Zero { scale: stored[0], zero: zero.unwrap_or_else(|| stored[1]) },
                };
                pack::decode_group::<BITS>(words, meaning, values);
            }
        }
    }
}

#[cfg(test)]
mod tests;
