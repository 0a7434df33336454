//! Codes to `u32` words and back, by the units of [`Grouped`]: the one place that knows where a code's bits lie.

use dwindle_schemes::Grouped;

use crate::Error;
use crate::error::check_length;

/// Codes of a unit, at most: 32, of five bits.
const UNIT: usize = 32;

/// Packs codes of whole units, each at most `grouped.max_code()`, into words.
///
/// For importers, which have codes and choose none; what rows need is in [`encode_rows`](crate::encode_rows). Higher bits
/// of a code are dropped.
///
/// # Errors
/// [`Error::Format`] if `grouped` is not valid, [`Error::Length`] unless `codes` are whole units and `words` theirs.
pub fn pack_codes(grouped: &Grouped, codes: &[u8], words: &mut [u32]) -> Result<(), Error> {
    check_codes(grouped, codes.len(), words.len())?;
    match grouped.bits {
        3 => pack::<3>(codes, words),
        4 => pack::<4>(codes, words),
        5 => pack::<5>(codes, words),
        6 => pack::<6>(codes, words),
        _ => pack::<8>(codes, words),
    }
    Ok(())
}

/// Undoes [`pack_codes`].
///
/// # Errors
/// As [`pack_codes`].
pub fn unpack_codes(grouped: &Grouped, words: &[u32], codes: &mut [u8]) -> Result<(), Error> {
    check_codes(grouped, codes.len(), words.len())?;
    match grouped.bits {
        3 => unpack::<3>(words, codes),
        4 => unpack::<4>(words, codes),
        5 => unpack::<5>(words, codes),
        6 => unpack::<6>(words, codes),
        _ => unpack::<8>(words, codes),
    }
    Ok(())
}

fn check_codes(grouped: &Grouped, codes: usize, words: usize) -> Result<(), Error> {
    if !grouped.is_valid() {
        return Err(Error::Format(*grouped));
    }
    let units = codes / grouped.unit_codes();
    check_length("codes of whole units", codes, units * grouped.unit_codes())?;
    check_length("words", words, units * grouped.unit_words())
}

/// Codes and words of a unit, as constants for loops.
#[inline(always)]
const fn unit<const BITS: u32>() -> (usize, usize) {
    match BITS {
        5 => (32, 5),
        6 => (16, 3),
        bits => ((32 / bits) as usize, 1),
    }
}

/// Packs `codes` into `words`, as many whole units as both hold. For 3 and 8 bits, codes are below 2^BITS.
#[inline(always)]
pub(crate) fn pack<const BITS: u32>(codes: &[u8], words: &mut [u32]) {
    let (unit_codes, unit_words) = unit::<BITS>();
    for (words, codes) in words.chunks_exact_mut(unit_words).zip(codes.chunks_exact(unit_codes)) {
        match (BITS, words) {
            (4, [word]) => *word = codes.as_chunks().0.first().map_or(0, |codes| nibbles(*codes)),
            (3 | 8, [word]) => *word = codes.iter().rev().fold(0, |word, code| word << BITS | u32::from(*code)),
            (_, [low @ .., high]) => {
                *high = 0;
                for ((j, codes), low) in codes.as_chunks().0.iter().enumerate().zip(low) {
                    *low = nibbles(*codes);
                    *high |= if BITS == 5 { fifths(*codes) << (8 * j) } else { pairs(*codes) << (16 * j) };
                }
            }
            (_, []) => {}
        }
    }
}

/// The lower four bits of eight bytes, side by side: halves the gaps three times.
#[inline(always)]
fn nibbles(codes: [u8; 8]) -> u32 {
    let bytes = u64::from_le_bytes(codes) & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (bytes | bytes >> 4) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    (fours | fours >> 16) as u32
}

/// Bits 4 and 5 of eight bytes, side by side.
#[inline(always)]
fn pairs(codes: [u8; 8]) -> u32 {
    let bytes = u64::from_le_bytes(codes) >> 4 & 0x0303_0303_0303_0303;
    let twos = (bytes | bytes >> 6) & 0x000f_000f_000f_000f;
    let fours = (twos | twos >> 12) & 0x0000_00ff_0000_00ff;
    ((fours | fours >> 24) & 0xffff) as u32
}

/// Bit 4 of eight bytes, side by side: the product has byte `i`'s bit at 56 + i, and no two bits at one place.
#[inline(always)]
fn fifths(codes: [u8; 8]) -> u32 {
    let bits = u64::from_le_bytes(codes) >> 4 & 0x0101_0101_0101_0101;
    (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
}

/// Unpacks as many codes as there are, from whole units or the beginning of the last one.
#[inline(always)]
fn unpack<const BITS: u32>(words: &[u32], codes: &mut [u8]) {
    let (unit_codes, unit_words) = unit::<BITS>();
    for (codes, words) in codes.chunks_mut(unit_codes).zip(words.chunks_exact(unit_words)) {
        match (BITS, words) {
            (3 | 4 | 8, [word]) => {
                for (j, code) in codes.iter_mut().enumerate() {
                    *code = (word >> (j as u32 * BITS) & ((1 << BITS) - 1)) as u8;
                }
            }
            (_, [low @ .., high]) => {
                let upper = BITS - 4;
                for ((j, codes), low) in codes.chunks_mut(8).enumerate().zip(low) {
                    let high = high >> (8 * j as u32 * upper);
                    for (j, code) in codes.iter_mut().enumerate() {
                        let upper_bits = high >> (j as u32 * upper) & ((1 << upper) - 1);
                        *code = (low >> (4 * j) & 15 | upper_bits << 4) as u8;
                    }
                }
            }
            (_, []) => {}
        }
    }
}

/// What the codes of a group stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Meaning {
    /// `(code - zero) * scale`.
    Zero { scale: f32, zero: f32 },
    /// `code * scale + minimum`.
    Minimum { scale: f32, minimum: f32 },
}

/// Decodes a group, as many values as there are.
#[inline(always)]
pub(crate) fn decode_group<const BITS: u32>(words: &[u32], meaning: Meaning, values: &mut [f32]) {
    match meaning {
        Meaning::Zero { scale, zero } => decode::<BITS>(words, values, |code| (code - zero) * scale),
        Meaning::Minimum { scale, minimum } => decode::<BITS>(words, values, |code| code * scale + minimum),
    }
}

#[inline(always)]
fn decode<const BITS: u32>(words: &[u32], values: &mut [f32], of: impl Fn(f32) -> f32) {
    let (unit_codes, unit_words) = unit::<BITS>();
    let mut codes = [0; UNIT];
    for (values, words) in values.chunks_mut(unit_codes).zip(words.chunks_exact(unit_words)) {
        unpack::<BITS>(words, &mut codes[..unit_codes]);
        for (value, code) in values.iter_mut().zip(codes) {
            *value = of(f32::from(code));
        }
    }
}

#[cfg(test)]
mod tests {
    use dwindle_schemes::{FloatType, Zero};
    use proptest::prelude::*;

    use super::*;

    fn of_bits(bits: u32) -> Grouped {
        let mut grouped = Grouped { bits, group: 0, scale: FloatType::F32, zero: Zero::Minimum };
        grouped.group = grouped.unit_codes();
        grouped
    }

    /// Against the definition, [`Grouped::code`], and the sums of words that it is for whole words.
    fn check_identity<const BITS: u32>(mut codes: Vec<u8>) {
        let grouped = of_bits(BITS);
        assert_eq!(unit::<BITS>(), (grouped.unit_codes(), grouped.unit_words()));
        codes.iter_mut().for_each(|code| *code &= grouped.max_code() as u8);
        let count = codes.len();
        codes.resize(count.next_multiple_of(grouped.unit_codes()), 0);
        let mut words = vec![u32::MAX; grouped.words(codes.len())];
        pack_codes(&grouped, &codes, &mut words).unwrap();
        for (index, code) in codes.iter().enumerate() {
            assert_eq!(grouped.code(&words, index), u32::from(*code), "code {index} of {BITS} bits");
        }
        let mut again = vec![255; codes.len()];
        unpack_codes(&grouped, &words, &mut again).unwrap();
        assert_eq!(again, codes);
        let mut values = vec![f32::NAN; count];
        decode_group::<BITS>(&words, Meaning::Zero { scale: 2.0, zero: 3.0 }, &mut values);
        assert!(values.iter().zip(&codes).all(|(value, code)| *value == (f32::from(*code) - 3.0) * 2.0));
        decode_group::<BITS>(&words, Meaning::Minimum { scale: 0.5, minimum: -7.25 }, &mut values);
        assert!(values.iter().zip(&codes).all(|(value, code)| *value == f32::from(*code) * 0.5 - 7.25));
        let used = match BITS {
            3 => 0x3fff_ffff,
            _ => u32::MAX,
        };
        assert!(words.iter().all(|word| word & !used == 0), "unused bits are 0");
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(codes in prop::collection::vec(any::<u8>(), 0..100)) {
            check_identity::<3>(codes.clone());
            check_identity::<4>(codes.clone());
            check_identity::<5>(codes.clone());
            check_identity::<6>(codes.clone());
            check_identity::<8>(codes);
        }
    }

    #[test]
    fn slices_that_do_not_fit_are_refused() {
        for bits in Grouped::BITS {
            let grouped = of_bits(bits);
            let (codes, words) = (grouped.unit_codes(), grouped.unit_words());
            for (codes, words) in [(codes + 1, words), (codes, words + 1), (codes - 1, words)] {
                let (mut c, mut w) = (vec![0; codes], vec![0; words]);
                assert!(matches!(pack_codes(&grouped, &c, &mut w), Err(Error::Length { .. })));
                assert!(matches!(unpack_codes(&grouped, &w, &mut c), Err(Error::Length { .. })));
            }
            let odd = Grouped { group: grouped.group + 1, ..grouped };
            assert_eq!(pack_codes(&odd, &[], &mut []), Err(Error::Format(odd)));
            assert_eq!(unpack_codes(&odd, &[], &mut []), Err(Error::Format(odd)));
        }
    }
}
