//! Activations as 8-bit integers, one scale for each group of the matrix they are multiplied with, or where those are long
//! for each 32 values of a group: one great activation costs only its neighbours their precision.
//!
//! For the values x of a group: `scale = max |x| / 127`, `q = round(x / scale)`. The error of one value is at most half a
//! scale, 0.4 % of the group's greatest; errors are independent, so a product of k values loses about `0.23 % / √k` of its
//! terms' magnitudes. Products of codes and q are exact in 32 bits.
//!
//! What rounding leaves of a value is at most half a scale, so a second record of it has the scale `scale / 254`: with both, a value
//! has 16 bits.
//!
//! A [`Record`] holds a row: codes in the order in which kernels read them, for each group
//! `-zero * Σ q` (so that sums begin there, and the codes' zero costs nothing) or `scale * Σ q` (which is multiplied with the
//! value of code 0, where groups of the matrix store what it comes from), and scales.

use dwindle_bundle::Record;
use dwindle_bundle::native::{CODES_3BIT, ORDER_3BIT};

use crate::lanes::{LANES, Lanes};

/// How the values of a group become codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Range {
    /// What a code of 1 is worth.
    scale: f32,
    /// What values are multiplied with to become codes.
    inverse: f32,
}

/// The ranges of a row's groups. `x` has the row, then zeros up to whole groups.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub unsafe fn ranges<L: Lanes>(record: Record, x: &[f32], ranges: &mut [Range]) {
    for (values, range) in x.chunks_exact(record.group).zip(&mut ranges[..record.groups]) {
        // SAFETY: the caller's promise.
        let greatest = unsafe { greatest::<L>(values) };
        // Values so small that their scale's inverse is infinite are 0.
        *range = Range { scale: greatest / 127.0, inverse: if greatest > 1e-30 { 127.0 / greatest } else { 0.0 } };
    }
}

/// Quantizes a row into a record for codes of `bits` bits with the constant zero `zero`. `x` has the row, then zeros up to whole
/// groups and [`LANES`] more; `ranges` are those of its groups.
///
/// # Safety
/// The processor has the instruction set of `L`; `to` has the record's bytes.
#[inline(always)]
pub unsafe fn quantize<L: Lanes>(
    record: Record,
    bits: u32,
    zero: Option<u32>,
    x: &[f32],
    ranges: &[Range],
    to: *mut u8,
) {
    let group = record.group;
    assert!(x.len() >= record.groups * group + LANES, "a row is padded");
    let mut codes = [0_i8; MAX_UNIT + LANES];
    // Groups are converted in pieces of whole units that fit the array.
    let unit = if bits == 3 { CODES_3BIT } else { 8 };
    let piece = MAX_UNIT / unit * unit;
    for (g, &Range { scale, inverse }) in ranges[..record.groups].iter().enumerate() {
        let values = &x[g * group..][..group];
        // SAFETY: lengths as asserted; a vector read may go up to 16 values beyond the group, into the row's padding.
        unsafe {
            let (from, to) = (values.as_ptr(), to.add(g * group));
            let sum = match bits {
                4..=6 if group.is_multiple_of(2 * LANES) => in_halves::<L>(from, group, inverse, to),
                4..=6 if group == LANES => sixteen_in_halves::<L>(from, inverse, to),
                8 if group.is_multiple_of(LANES) => in_order::<L>(from, group, inverse, to),
                _ => {
                    let mut sum = 0;
                    for first in (0..group).step_by(piece) {
                        let length = piece.min(group - first);
                        for i in (0..length).step_by(LANES) {
                            let x = L::load(from.add(first + i));
                            L::store_bytes(codes.as_mut_ptr().add(i), L::round(L::mul(x, L::splat(inverse))));
                        }
                        sum += codes[..length].iter().map(|&q| i32::from(q)).sum::<i32>();
                        arrange(bits, &codes[..length], to.add(first));
                    }
                    sum
                }
            };
            let to = to.sub(g * group);
            match zero {
                // Of activations that are not finite, the sum is any number.
                Some(zero) => to.add(record.sums).cast::<i32>().add(g).write((-(zero as i32)).wrapping_mul(sum)),
                None => to.add(record.sums).cast::<f32>().add(g).write(scale * sum as f32),
            }
            to.add(record.scales).cast::<f32>().add(g).write(scale);
        }
    }
}

/// Leaves of a row what [`quantize`] loses of it, and makes its groups' ranges those of what is left. Inlined, it is compiled
/// for the instruction set around it.
#[inline(always)]
pub fn keep_rest(record: Record, x: &mut [f32], ranges: &mut [Range]) {
    /// Codes of what is left for one code.
    const FINER: f32 = 254.0;
    for (values, range) in x.chunks_exact_mut(record.group).zip(&mut ranges[..record.groups]) {
        for value in values {
            let codes = *value * range.inverse;
            // All instruction sets round halves to even.
            *value = (codes - codes.round_ties_even()) * FINER;
        }
        *range = Range { scale: range.scale / FINER, inverse: 1.0 };
    }
}

/// The greatest magnitude of a group.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
unsafe fn greatest<L: Lanes>(values: &[f32]) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut greatest = L::splat(0.0);
        for chunk in values.chunks_exact(LANES) {
            greatest = L::max(greatest, L::abs(L::load(chunk.as_ptr())));
        }
        let rest = values.chunks_exact(LANES).remainder();
        rest.iter().fold(of_lanes::<L>(greatest), |most, x| most.max(x.abs()))
    }
}

/// The greatest of 16 lanes.
#[inline(always)]
unsafe fn of_lanes<L: Lanes>(mut x: L::F) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        for _ in 0..LANES.ilog2() {
            let (even, odd) = L::deinterleave(x, x);
            x = L::max(even, odd);
        }
        let mut lanes = [0.0_f32; LANES];
        L::store(lanes.as_mut_ptr(), x);
        lanes[0]
    }
}

/// Codes for 8 bits, as they come, and their sum.
#[inline(always)]
unsafe fn in_order<L: Lanes>(from: *const f32, values: usize, inverse: f32, to: *mut u8) -> i32 {
    // SAFETY: the caller has as many values and bytes.
    unsafe {
        let mut sums = L::splat_word(0);
        for i in (0..values).step_by(LANES) {
            let q = L::round(L::mul(L::load(from.add(i)), L::splat(inverse)));
            L::store_bytes(to.add(i).cast(), q);
            sums = L::add_words(sums, q);
        }
        // Exact: less than 2^24 for any group that fits a record.
        L::sum(L::to_f32(sums)) as i32
    }
}

/// Codes for 4 to 6 bits, the even ones of each eight before the odd ones, and their sum.
#[inline(always)]
unsafe fn in_halves<L: Lanes>(from: *const f32, values: usize, inverse: f32, to: *mut u8) -> i32 {
    // SAFETY: the caller has as many values and bytes.
    unsafe {
        let mut sums = L::splat_word(0);
        for i in (0..values).step_by(2 * LANES) {
            let (even, odd) = L::deinterleave(L::load(from.add(i)), L::load(from.add(i + LANES)));
            let (even, odd) = (L::round(L::mul(even, L::splat(inverse))), L::round(L::mul(odd, L::splat(inverse))));
            let mut words = [[0_u32; LANES / 4]; 2];
            L::store_bytes(words[0].as_mut_ptr().cast(), even);
            L::store_bytes(words[1].as_mut_ptr().cast(), odd);
            let to = to.add(i).cast::<u32>();
            for (j, (&even, &odd)) in words[0].iter().zip(&words[1]).enumerate() {
                to.add(2 * j).write_unaligned(even);
                to.add(2 * j + 1).write_unaligned(odd);
            }
            sums = L::add_words(sums, L::add_words(even, odd));
        }
        // Exact: less than 2^24 for any group that fits a record.
        L::sum(L::to_f32(sums)) as i32
    }
}

/// The same of sixteen values.
#[inline(always)]
unsafe fn sixteen_in_halves<L: Lanes>(from: *const f32, inverse: f32, to: *mut u8) -> i32 {
    // SAFETY: the caller has as many values and bytes.
    unsafe {
        let q = L::round(L::mul(L::load(from), L::splat(inverse)));
        let mut codes = [0_i8; LANES];
        L::store_bytes(codes.as_mut_ptr(), q);
        in_eights(&codes, to);
        L::sum(L::to_f32(q)) as i32
    }
}

/// Values converted at a time.
const MAX_UNIT: usize = 160;

/// Writes codes in the order of `rows16`.
#[inline(always)]
unsafe fn arrange(bits: u32, codes: &[i8], to: *mut u8) {
    // SAFETY: the caller has as many bytes as codes; each code is written once, within them.
    unsafe {
        match bits {
            3 => {
                for (unit, codes) in codes.chunks_exact(CODES_3BIT).enumerate() {
                    for (i, &code) in ORDER_3BIT.as_flattened().iter().enumerate() {
                        to.add(unit * CODES_3BIT + i).write(codes[code] as u8);
                    }
                }
            }
            4..=6 => in_eights(codes, to),
            _ => to.copy_from_nonoverlapping(codes.as_ptr().cast(), codes.len()),
        }
    }
}

/// Of each eight codes, the even ones before the odd ones.
#[inline(always)]
unsafe fn in_eights(codes: &[i8], to: *mut u8) {
    for (unit, codes) in codes.as_chunks::<8>().0.iter().enumerate() {
        let all = u64::from_le_bytes(codes.map(|code| code as u8));
        let evens = squeeze(all) | squeeze(all >> 8) << 32;
        // SAFETY: the caller has as many bytes as codes.
        unsafe { to.add(8 * unit).cast::<u64>().write_unaligned(evens.to_le()) };
    }
}

/// The even bytes, side by side.
#[inline(always)]
fn squeeze(x: u64) -> u64 {
    let x = x & 0x00ff_00ff_00ff_00ff;
    let x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) & 0xffff_ffff
}
