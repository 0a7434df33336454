//! Blocks of ggml's types to codes and scales of our layout, bit for bit.
//!
//! | type | block | value |
//! |---|---|---|
//! | `Q4_0` | f16 d, 16 bytes: values 0 to 15 in the low nibbles, 16 to 31 in the high ones | (nibble - 8) d |
//! | `Q8_0` | f16 d, 32 signed bytes | byte d |
//!
//! A `Q8_0` byte becomes a code by adding 128, which its zero takes off again.

/// Bytes of a block's scale.
const SCALE: usize = 2;

/// Appends the codes of rows of `Q4_0`, and their scales.
pub fn q4_0(blocks: &[u8], words: &mut Vec<u32>, scales: &mut Vec<u8>) {
    for block in blocks.chunks_exact(SCALE + 16) {
        let (scale, nibbles) = block.split_at(SCALE);
        scales.extend_from_slice(scale);
        for high in [0, 4] {
            for eight in nibbles.chunks_exact(8) {
                let nibble = |byte: &u8| u32::from(byte >> high & 15);
                words.push(eight.iter().rev().fold(0, |word, byte| word << 4 | nibble(byte)));
            }
        }
    }
}

/// Appends the codes of rows of `Q8_0`, and their scales.
pub fn q8_0(blocks: &[u8], words: &mut Vec<u32>, scales: &mut Vec<u8>) {
    for block in blocks.chunks_exact(SCALE + 32) {
        let (scale, codes) = block.split_at(SCALE);
        scales.extend_from_slice(scale);
        let (fours, _) = codes.as_chunks();
        words.extend(fours.iter().map(|four| u32::from_le_bytes(*four) ^ 0x8080_8080));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nibbles_and_bytes() {
        let mut block = vec![0x34, 0x12];
        block.extend((0..16).map(|i| i | (15 - i) << 4));
        let (mut words, mut scales) = (vec![], vec![]);
        q4_0(&block, &mut words, &mut scales);
        assert_eq!(words, [0x7654_3210, 0xfedc_ba98, 0x89ab_cdef, 0x0123_4567]);
        assert_eq!(scales, [0x34, 0x12]);

        let mut block = vec![0x78, 0x56];
        block.extend([-128_i8, -1, 0, 127].map(|q| q as u8).repeat(8));
        let (mut words, mut scales) = (vec![], vec![]);
        q8_0(&block, &mut words, &mut scales);
        assert_eq!(words, [0xff80_7f00_u32; 8]);
        assert_eq!(scales, [0x78, 0x56]);
    }
}
