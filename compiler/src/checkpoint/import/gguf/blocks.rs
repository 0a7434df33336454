//! Blocks of ggml's packed types to codes and scales of our layout.
//!
//! | type | block | value |
//! |---|---|---|
//! | `Q4_0` | f16 d, 16 bytes: values 0 to 15 in the low nibbles, 16 to 31 in the high ones | (nibble - 8) d |
//! | `Q4_1` | f16 d, f16 m, nibbles as above | nibble d + m |
//! | `Q5_0` | f16 d, u32 of fifth bits, nibbles as above | (code - 16) d |
//! | `Q5_1` | f16 d, f16 m, u32 of fifth bits, nibbles as above | code d + m |
//! | `Q8_0` | f16 d, 32 signed bytes | byte d |
//! | `Q2_K` | 16 bytes: 4 bits s, 4 bits t of each 16 values; 64 bytes of two-bit codes; f16 d, f16 e | code d s - e t |
//! | `Q3_K` | 32 bytes of third bits, 64 bytes of two-bit codes, 16 times 6 bits s, f16 d | (code - 4) d (s - 32) |
//! | `Q4_K` | f16 d, f16 e, 8 times 6 bits s and 6 bits t, 128 bytes of nibbles | code d s - e t |
//! | `Q5_K` | as `Q4_K`, with 32 bytes of fifth bits before the nibbles | code d s - e t |
//! | `Q6_K` | 128 bytes of nibbles, 64 bytes of upper two bits, 16 signed bytes s, f16 d | (code - 32) d s |
//! | `IQ4_NL` | as `Q4_0` | [`IQ4`]\[nibble\] d |
//! | `IQ4_XS` | f16 d, 8 times 6 bits s, 128 bytes of nibbles | [`IQ4`]\[nibble\] d (s - 32) |
//! | `MXFP4` | exponent byte e, nibbles as above | [`E2M1`]\[nibble\] 2^(e - 128) |
//!
//! Source: ggml's `ggml-common.h` and `dequantize_row_…` in `ggml-quants.c`; `MXFP4` also the OCP Microscaling Formats
//! specification 1.0. d s is a whole multiple of an f16, so it rounds to f16 within 2^-12 of itself and never to 0.

use dwindle_quant::{ErrorStats, pack_codes};
use dwindle_schemes::{FloatType, Grouped, Zero};
use half::f16;

use super::super::Rows;
use super::tensor_type::Packing;

/// What the nibbles of `IQ4_NL` and `IQ4_XS` stand for.
const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of a float with two bits of exponent and one of mantissa.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Values of a block, at most.
const MOST: usize = 256;

/// A decoded block. `value = (code - zero) * scale + minimum`, the zero that of the format.
struct Block {
    codes: [u8; MOST],
    /// Of each group.
    scales: [f32; MOST / 16],
    /// Of each group, 0 in formats without.
    minimums: [f32; MOST / 16],
}

/// Groups whose scales cannot be stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Unstorable {
    /// Values whose scale or minimum is infinite or NaN in the file.
    pub not_finite: u64,
    /// The greatest finite scale or minimum beyond the type of the stored ones.
    pub beyond: Option<f32>,
}

impl Packing {
    /// Bytes and values of a block.
    const fn size(self) -> (usize, usize) {
        match self {
            Packing::Q4_0 | Packing::Iq4Nl => (18, 32),
            Packing::Q4_1 => (20, 32),
            Packing::Q5_0 => (22, 32),
            Packing::Q5_1 => (24, 32),
            Packing::Q8_0 => (34, 32),
            Packing::Q2K => (84, 256),
            Packing::Q3K => (110, 256),
            Packing::Q4K => (144, 256),
            Packing::Q5K => (176, 256),
            Packing::Q6K => (210, 256),
            Packing::Iq4Xs => (136, 256),
            Packing::Mxfp4 => (17, 32),
        }
    }

    /// Decodes a block of [`size`](Self::size) bytes.
    fn decode(self, bytes: &[u8], block: &mut Block) {
        let Block { codes, scales, minimums } = block;
        minimums.fill(0.0);
        match self {
            Packing::Q4_0 => {
                scales[0] = half(bytes, 0);
                nibbles(&bytes[2..], codes);
            }
            Packing::Q4_1 => {
                (scales[0], minimums[0]) = (half(bytes, 0), half(bytes, 2));
                nibbles(&bytes[4..], codes);
            }
            Packing::Q5_0 => {
                scales[0] = half(bytes, 0);
                nibbles(&bytes[6..], codes);
                fifth_bits(&bytes[2..6], codes);
            }
            Packing::Q5_1 => {
                (scales[0], minimums[0]) = (half(bytes, 0), half(bytes, 2));
                nibbles(&bytes[8..], codes);
                fifth_bits(&bytes[4..8], codes);
            }
            Packing::Q8_0 => {
                scales[0] = half(bytes, 0);
                // A signed byte becomes a code by adding 128, which its zero takes off again.
                codes.iter_mut().zip(&bytes[2..34]).for_each(|(code, byte)| *code = byte ^ 0x80);
            }
            Packing::Q2K => {
                let (d, e) = (half(bytes, 80), half(bytes, 82));
                for (group, byte) in bytes[..16].iter().enumerate() {
                    scales[group] = d * f32::from(byte & 15);
                    minimums[group] = -(e * f32::from(byte >> 4));
                }
                two_bits(&bytes[16..80], codes);
            }
            Packing::Q3K => {
                let (high, low, six) = (&bytes[..32], &bytes[32..96], &bytes[96..108]);
                let d = half(bytes, 108);
                for (group, scale) in scales.iter_mut().enumerate() {
                    let low = six[group % 8] >> (group / 8 * 4) & 15;
                    let high = six[8 + group % 4] >> (group / 4 * 2) & 3;
                    *scale = d * (f32::from(low | high << 4) - 32.0);
                }
                two_bits(low, codes);
                for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
                    codes.iter_mut().zip(high).for_each(|(code, high)| *code |= (high >> part & 1) << 2);
                }
            }
            Packing::Q4K => {
                six_bits(&bytes[..16], scales, minimums);
                pairs_of_nibbles(&bytes[16..], codes);
            }
            Packing::Q5K => {
                six_bits(&bytes[..16], scales, minimums);
                pairs_of_nibbles(&bytes[48..], codes);
                for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
                    codes.iter_mut().zip(&bytes[16..48]).for_each(|(code, high)| *code |= (high >> part & 1) << 4);
                }
            }
            Packing::Q6K => {
                let (low, high, signed) = (&bytes[..128], &bytes[128..192], &bytes[192..208]);
                let d = half(bytes, 208);
                scales.iter_mut().zip(signed).for_each(|(scale, byte)| *scale = d * f32::from(*byte as i8));
                for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
                    let (of_two, quarter) = (part / 4, part % 4);
                    let low = &low[64 * of_two + 32 * (quarter % 2)..];
                    let high = &high[32 * of_two..];
                    for (code, (low, high)) in codes.iter_mut().zip(low.iter().zip(high)) {
                        *code = low >> (quarter / 2 * 4) & 15 | (high >> (2 * quarter) & 3) << 4;
                    }
                }
            }
            Packing::Iq4Nl => {
                scales[0] = half(bytes, 0);
                nibbles(&bytes[2..], codes);
                look_up(&IQ4, 128, &mut codes[..32]);
            }
            Packing::Iq4Xs => {
                let (d, upper) = (half(bytes, 0), u16::from_le_bytes([bytes[2], bytes[3]]));
                for (group, codes) in codes.chunks_exact_mut(32).enumerate() {
                    let low = bytes[4 + group / 2] >> (group % 2 * 4) & 15;
                    let high = (upper >> (2 * group) & 3) as u8;
                    scales[group] = d * (f32::from(low | high << 4) - 32.0);
                    nibbles(&bytes[8 + 16 * group..], codes);
                }
                look_up(&IQ4, 128, codes);
            }
            Packing::Mxfp4 => {
                nibbles(&bytes[1..], codes);
                look_up(&E2M1, 12, &mut codes[..32]);
                // A block of zeros has any exponent.
                let zeros = codes[..32].iter().all(|code| *code == 12);
                scales[0] = if zeros { 0.0 } else { power_of_two(bytes[0]) };
            }
        }
    }
}

fn half(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// 2^(exponent - 128). Not a number where 12 times it is beyond f32; 255 says so in the specification.
fn power_of_two(exponent: u8) -> f32 {
    match exponent {
        // The first two are subnormal.
        0 | 1 => f32::from_bits(0x0020_0000 << exponent),
        2..=252 => f32::from_bits(u32::from(exponent - 1) << 23),
        253.. => f32::NAN,
    }
}

/// 32 codes: the low nibbles of 16 bytes, then the high ones.
fn nibbles(bytes: &[u8], codes: &mut [u8]) {
    for (at, byte) in bytes[..16].iter().enumerate() {
        (codes[at], codes[16 + at]) = (byte & 15, byte >> 4);
    }
}

/// 256 codes: of each 32 bytes the low nibbles, then the high ones.
fn pairs_of_nibbles(bytes: &[u8], codes: &mut [u8]) {
    for (bytes, codes) in bytes.chunks_exact(32).zip(codes.chunks_exact_mut(64)) {
        for (at, byte) in bytes.iter().enumerate() {
            (codes[at], codes[32 + at]) = (byte & 15, byte >> 4);
        }
    }
}

/// 256 codes: of each 32 bytes the lowest two bits, then the next ones, ….
fn two_bits(bytes: &[u8], codes: &mut [u8]) {
    for (part, codes) in codes.chunks_exact_mut(32).enumerate() {
        let bytes = &bytes[part / 4 * 32..];
        codes.iter_mut().zip(bytes).for_each(|(code, byte)| *code = byte >> (part % 4 * 2) & 3);
    }
}

/// Adds the fifth bits of 32 codes, bit i that of code i.
fn fifth_bits(bytes: &[u8], codes: &mut [u8]) {
    for (at, code) in codes[..32].iter_mut().enumerate() {
        *code |= (bytes[at / 8] >> (at % 8) & 1) << 4;
    }
}

fn look_up(table: &[i8; 16], zero: u8, codes: &mut [u8]) {
    codes.iter_mut().for_each(|code| *code = zero.wrapping_add_signed(table[usize::from(*code & 15)]));
}

/// Scales and minimums of `Q4_K` and `Q5_K`: d, e, then eight pairs of six bits in twelve bytes. The upper two bits of the
/// last four pairs lie above the first four.
fn six_bits(bytes: &[u8], scales: &mut [f32], minimums: &mut [f32]) {
    let (d, e, six) = (half(bytes, 0), half(bytes, 2), &bytes[4..16]);
    for (group, (scale, minimum)) in scales.iter_mut().zip(minimums).take(8).enumerate() {
        let (s, t) = match group {
            0..4 => (six[group] & 63, six[group + 4] & 63),
            _ => {
                let upper = |at: usize| six[at] >> 6 << 4;
                (six[group + 4] & 15 | upper(group - 4), six[group + 4] >> 4 | upper(group))
            }
        };
        *scale = d * f32::from(s);
        *minimum = -(e * f32::from(t));
    }
}

/// Appends rows of whole blocks to `out` in the format `grouped`, which is that of the packing, and measures what rounding
/// the scales lost.
pub fn repack(packing: Packing, grouped: &Grouped, bytes: &[u8], out: &mut Rows) -> Unstorable {
    let (size, values) = packing.size();
    let zero = grouped.constant_zero().unwrap_or(0) as f32;
    let mut block = Block { codes: [0; MOST], scales: [0.0; MOST / 16], minimums: [0.0; MOST / 16] };
    let (mut unstorable, mut stats) = (Unstorable::default(), ErrorStats::default());
    let mut start = out.words.len();
    out.words.resize(start + grouped.words(bytes.len() / size * values), 0);
    for bytes in bytes.chunks_exact(size) {
        packing.decode(bytes, &mut block);
        let codes = &block.codes[..values];
        let words = grouped.words(values);
        pack_codes(grouped, codes, &mut out.words[start..start + words]).expect("blocks are whole groups");
        start += words;
        let groups = codes.chunks_exact(grouped.group).zip(block.scales.iter().zip(&block.minimums));
        for (codes, (scale, minimum)) in groups {
            let stored = [*scale, *minimum].map(|number| dwindle_quant::round(grouped.scale, number));
            let numbers = if grouped.zero == Zero::Minimum { 2 } else { 1 };
            stored[..numbers].iter().for_each(|number| write(*number, grouped.scale, &mut out.floats));
            unstorable.note([*scale, *minimum], stored, codes.len());
            stats.merge(&lost(codes, zero, [*scale, *minimum], stored));
        }
    }
    out.stats.merge(&stats);
    unstorable
}

fn write(number: f32, float: FloatType, out: &mut Vec<u8>) {
    match float {
        FloatType::F32 => out.extend_from_slice(&number.to_le_bytes()),
        _ => out.extend_from_slice(&f16::from_f32(number).to_le_bytes()),
    }
}

impl Unstorable {
    fn note(&mut self, exact: [f32; 2], stored: [f32; 2], values: usize) {
        if exact.iter().any(|number| !number.is_finite()) {
            self.not_finite += values as u64;
            return;
        }
        for (exact, _) in exact.iter().zip(stored).filter(|(_, stored)| !stored.is_finite()) {
            self.beyond = Some(self.beyond.unwrap_or_default().max(exact.abs()));
        }
    }

    /// Of both.
    pub fn merge(&mut self, other: Unstorable) {
        self.not_finite += other.not_finite;
        self.beyond = match (self.beyond, other.beyond) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
    }
}

/// The error of a group whose scale and minimum became others. Values are linear in the codes, so sums of codes and of
/// their squares give it, and the greatest error is at the least or the greatest code.
fn lost(codes: &[u8], zero: f32, exact: [f32; 2], stored: [f32; 2]) -> ErrorStats {
    let (mut sum, mut squares, mut least, mut most) = (0_u32, 0_u32, u8::MAX, 0_u8);
    for code in codes {
        let number = u32::from(*code);
        (sum, squares) = (sum + number, squares + number * number);
        (least, most) = (least.min(*code), most.max(*code));
    }
    let count = codes.len() as f64;
    let of_line = |[slope, at_zero]: [f64; 2]| {
        // (slope code + offset)², summed up.
        let offset = at_zero - slope * f64::from(zero);
        slope * slope * f64::from(squares) + 2.0 * slope * offset * f64::from(sum) + offset * offset * count
    };
    let exact = exact.map(f64::from);
    let difference = [f64::from(stored[0]) - exact[0], f64::from(stored[1]) - exact[1]];
    let at = |code: u8| ((f64::from(code) - f64::from(zero)) * difference[0] + difference[1]).abs() as f32;
    // Cancellation may leave less than nothing.
    let error = if difference == [0.0; 2] { 0.0 } else { of_line(difference).max(0.0) };
    ErrorStats { count: codes.len() as u64, signal: of_line(exact).max(0.0), error, max_abs: at(least).max(at(most)) }
}

/// Whether f16 holds the scales of all these blocks of `MXFP4`.
pub fn fits_f16(blocks: &[u8]) -> bool {
    let mut block = Block { codes: [0; MOST], scales: [0.0; MOST / 16], minimums: [0.0; MOST / 16] };
    blocks.chunks_exact(Packing::Mxfp4.size().0).all(|bytes| {
        // 2^-24 to 2^15 are floats of 16 bits; most exponents need no look at the codes.
        (104..=143).contains(&bytes[0]) || {
            Packing::Mxfp4.decode(bytes, &mut block);
            block.scales[0] == 0.0
        }
    })
}
