//! Codes to `u32` words and back: the lowest bits first, 32 / BITS codes a word, unused high bits 0.

/// Packs `codes` (each below 2^BITS) into `words`; as many codes as the words hold.
#[inline(always)]
pub(crate) fn pack<const BITS: u32>(codes: &[u8], words: &mut [u32]) {
    let per_word = (32 / BITS) as usize;
    for (word, codes) in words.iter_mut().zip(codes.chunks_exact(per_word)) {
        *word = match (BITS, codes) {
            (4, &[a, b, c, d, e, f, g, h]) => nibbles(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            (8, &[a, b, c, d]) => u32::from_le_bytes([a, b, c, d]),
            _ => codes.iter().rev().fold(0, |word, code| word << BITS | u32::from(*code)),
        };
    }
}

/// The low nibbles of eight bytes, side by side: halves the gaps three times.
#[inline(always)]
fn nibbles(bytes: u64) -> u32 {
    let pairs = (bytes | bytes >> 4) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs | pairs >> 8) & 0x0000_ffff_0000_ffff;
    (fours | fours >> 16) as u32
}

/// Decodes a group: `values[j] = (code j - zero) * scale`, for as many values as there are.
#[inline(always)]
pub(crate) fn decode_group<const BITS: u32>(words: &[u32], scale: f32, zero: f32, values: &mut [f32]) {
    let per_word = (32 / BITS) as usize;
    for (values, word) in values.chunks_mut(per_word).zip(words) {
        for (j, value) in values.iter_mut().enumerate() {
            let code = word >> (j as u32 * BITS) & ((1 << BITS) - 1);
            *value = (code as i32 as f32 - zero) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_identity<const BITS: u32>(mut codes: Vec<u8>) {
        let per_word = (32 / BITS) as usize;
        codes.iter_mut().for_each(|code| *code &= ((1_u32 << BITS) - 1) as u8);
        let count = codes.len();
        codes.resize(count.next_multiple_of(per_word), 0);
        let mut words = vec![u32::MAX; codes.len() / per_word];
        pack::<BITS>(&codes, &mut words);
        let mut values = vec![f32::NAN; count];
        decode_group::<BITS>(&words, 2.0, 3.0, &mut values);
        assert!(values.iter().zip(&codes).all(|(value, code)| *value == (f32::from(*code) - 3.0) * 2.0));
        for (word, codes) in words.iter().zip(codes.chunks(per_word)) {
            let sum: u64 = codes.iter().enumerate().map(|(j, code)| u64::from(*code) << (j as u32 * BITS)).sum();
            assert_eq!(u64::from(*word), sum, "the layout's definition");
        }
    }

    proptest! {
        #[test]
        fn unpacking_undoes_packing(codes in prop::collection::vec(any::<u8>(), 0..100)) {
            check_identity::<3>(codes.clone());
            check_identity::<4>(codes.clone());
            check_identity::<8>(codes);
        }
    }
}
