//! Layout `rows16`: how native kernels' matrices lie in memory, in blocks of 16 rows, and how codes lie in their words.
//!
//! A stored tensor of `n` rows and `c` columns is stored as `[ceil(n / 16), c, 16]`: for each block of 16 rows, column by
//! column, the elements of the 16 rows side by side. Columns are the values of a plain matrix, the `u32` code words of a
//! grouped one, or its scales, each followed by its zero or minimum where groups store one. Rows beyond `n` are zeros.
//! One 64-byte load gives the same word of 16 rows, so a kernel works on 16 rows at once and never sums across lanes, and
//! a processor with 4, 8 or 16 lanes reads the same bytes.
//!
//! Bits within words are those of a model directory, except where a kernel would need more instructions for them. All
//! rearranging stays within a [`Unit`].
//!
//! * 4 and 8 bits: code `i` of a word is in the bits from `bits * i` on. Seen as four bytes, a word of 4-bit codes holds
//!   codes 0, 2, 4, 6 in the low halves and 1, 3, 5, 7 in the high ones.
//! * 5 and 6 bits: words of low nibbles lie as words of 4-bit codes. The unit's last word has the upper bits, rearranged so
//!   that one shift moves those of four codes to where the nibbles end, in bits 4 and 5 of the bytes that hold the nibbles:
//!   those of code `8 w + 2 b + h` (`h` 0 or 1) are in byte `b`, from bit `(4 + u * (2 w + h)) % 8` on, `u` of them.
//! * 3 bits: ten codes of a word do not fall into bytes. Of codes `10 w .. 10 w + 10` of word `w` of four, byte `b` holds code
//!   `10 w + b` in bits 0-2 and code `10 w + 4 + b` in bits 3-5. Codes 8 and 9 of each word, eight in all, are in the two
//!   upper bits of the bytes: with `A = [8, 9, 18, 19]` and `B = [28, 29, 38, 39]`, byte `b` of word 0 has the lower two bits
//!   of code `A[b]`, byte `b` of word 2 those of code `B[b]`, and byte `b` of word 1 has the upper bit of `A[b]` in bit 6 and
//!   that of `B[b]` in bit 7. Those of word 3 are 0.

/// Rows of a block.
pub const BLOCK_ROWS: usize = 16;

/// Values of a group, at most: products of so many codes with 8-bit activations fit 32 bits.
pub const MAX_GROUP: u32 = 4096;

/// The smallest number of codes that fills whole words and is arranged by itself. Groups are whole units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Codes.
    pub codes: usize,
    /// Words they take.
    pub words: usize,
}

impl Unit {
    /// That of codes of `bits` bits; `None` where no format has such codes.
    pub const fn of(bits: u32) -> Option<Unit> {
        let (codes, words) = match bits {
            3 => (CODES_3BIT, 4),
            4 => (8, 1),
            5 => (32, 5),
            6 => (16, 3),
            8 => (4, 1),
            _ => return None,
        };
        Some(Unit { codes, words })
    }

    /// Words of `codes` codes, which are whole units.
    pub const fn words_of(self, codes: usize) -> usize {
        codes / self.codes * self.words
    }
}

/// Codes of a unit of 3 bits: four words of ten.
pub const CODES_3BIT: usize = 40;

/// For each of the ten quadruples of bytes that four rearranged words of 3-bit codes hold, the codes in it: words' lower
/// and middle bits first, then A and B.
pub const ORDER_3BIT: [[usize; 4]; 10] = [
    [0, 1, 2, 3],
    [4, 5, 6, 7],
    [10, 11, 12, 13],
    [14, 15, 16, 17],
    [20, 21, 22, 23],
    [24, 25, 26, 27],
    [30, 31, 32, 33],
    [34, 35, 36, 37],
    [8, 9, 18, 19],
    [28, 29, 38, 39],
];

/// For each of 40 3-bit codes, where it is: quadruple * 4 + byte.
const PLACE_3BIT: [usize; CODES_3BIT] = {
    let mut places = [0; CODES_3BIT];
    let mut i = 0;
    while i < CODES_3BIT {
        places[ORDER_3BIT[i / 4][i % 4]] = i;
        i += 1;
    }
    places
};

/// Whether [`arrange`] changes anything for codes of `bits` bits.
pub const fn is_arranged(bits: u32) -> bool {
    matches!(bits, 3 | 5 | 6)
}

/// Rearranges the words of whole units as a model directory holds them (the lowest bits first; of 5 and 6 bits, a unit's
/// words of low nibbles, then the word of its upper bits) to the words of this layout. Other words stay as they are.
pub fn arrange(bits: u32, words: &mut [u32]) {
    match bits {
        3 => words.as_chunks_mut::<4>().0.iter_mut().for_each(|words| *words = arrange_3bit(*words)),
        5 => words.as_chunks_mut::<5>().0.iter_mut().for_each(|[.., upper]| *upper = arrange_upper::<1>(*upper)),
        6 => words.as_chunks_mut::<3>().0.iter_mut().for_each(|[.., upper]| *upper = arrange_upper::<2>(*upper)),
        _ => {}
    }
}

/// Code `i` of a group in this layout, whose words `word` gives.
pub fn code(bits: u32, i: usize, word: impl Fn(usize) -> u32) -> u32 {
    match bits {
        3 => {
            let (first, place) = (i / CODES_3BIT * 4, PLACE_3BIT[i % CODES_3BIT]);
            let (quadruple, byte) = (place / 4, 8 * (place % 4));
            match quadruple {
                8 => word(first) >> (byte + 6) & 3 | (word(first + 1) >> (byte + 6) & 1) << 2,
                9 => word(first + 2) >> (byte + 6) & 3 | (word(first + 1) >> (byte + 7) & 1) << 2,
                q => word(first + q / 2) >> (byte + 3 * (q % 2)) & 7,
            }
        }
        5 | 6 => {
            let (codes, words) = if bits == 5 { (32, 5) } else { (16, 3) };
            let (first, i, upper) = (i / codes * words, i % codes, bits - 4);
            let low = word(first + i / 8) >> (4 * (i % 8)) & 15;
            low | (word(first + words - 1) >> upper_place(upper, i) & ((1 << upper) - 1)) << 4
        }
        bits => {
            let per_word = (32 / bits) as usize;
            word(i / per_word) >> (bits as usize * (i % per_word)) & ((1 << bits) - 1)
        }
    }
}

/// The first bit of the `upper` upper bits of code `i` of a unit.
const fn upper_place(upper: u32, i: usize) -> u32 {
    (4 + upper * (2 * (i as u32 / 8) + i as u32 % 2)) % 8 + 8 * (i as u32 % 8 / 2)
}

/// Rearranges a word of `UPPER` upper bits of each code.
fn arrange_upper<const UPPER: u32>(word: u32) -> u32 {
    (0..32 / UPPER).fold(0, |out, i| {
        let bits = word >> (UPPER * i) & ((1 << UPPER) - 1);
        out | bits << upper_place(UPPER, i as usize)
    })
}

/// Rearranges four words of ten 3-bit codes each, lowest bits first.
fn arrange_3bit(words: [u32; 4]) -> [u32; 4] {
    let code = |i: usize| words[i / 10] >> (3 * (i % 10)) & 7;
    let mut out = [0; 4];
    for (w, word) in out.iter_mut().enumerate() {
        for b in 0..4 {
            *word |= (code(10 * w + b) | code(10 * w + 4 + b) << 3) << (8 * b);
        }
    }
    for (b, (&a, &z)) in ORDER_3BIT[8].iter().zip(&ORDER_3BIT[9]).enumerate() {
        let (a, z) = (code(a), code(z));
        out[0] |= (a & 3) << (8 * b + 6);
        out[1] |= (a >> 2 | (z >> 2) << 1) << (8 * b + 6);
        out[2] |= (z & 3) << (8 * b + 6);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts code `i` into words as a model directory holds them.
    fn put(bits: u32, words: &mut [u32], i: usize, value: u32) {
        match bits {
            5 | 6 => {
                let Unit { codes, words: of_unit } = Unit::of(bits).unwrap();
                let (first, i) = (i / codes * of_unit, i % codes);
                words[first + i / 8] |= (value & 15) << (4 * (i % 8));
                words[first + of_unit - 1] |= (value >> 4) << ((bits as usize - 4) * i);
            }
            _ => words[i / (32 / bits as usize)] |= value << (bits as usize * (i % (32 / bits as usize))),
        }
    }

    /// Each code by itself, in the first and the second unit; and all at once, so that none hides another.
    #[test]
    fn codes_are_found_where_they_are_put() {
        for bits in [3, 4, 5, 6, 8] {
            let unit = Unit::of(bits).unwrap();
            let count = 2 * unit.codes;
            let value = |i: usize| (i as u32).wrapping_mul(0x9E37_79B9) >> (32 - bits);
            let mut all = vec![0; unit.words_of(count)];
            for i in 0..count {
                put(bits, &mut all, i, value(i));
                for single in (0..bits).map(|bit| 1 << bit) {
                    let mut words = vec![0; unit.words_of(count)];
                    put(bits, &mut words, i, single);
                    arrange(bits, &mut words);
                    for j in 0..count {
                        let expected = if i == j { single } else { 0 };
                        assert_eq!(code(bits, j, |w| words[w]), expected, "{bits} bits, {i} put, {j} read");
                    }
                }
            }
            arrange(bits, &mut all);
            assert!((0..count).all(|i| code(bits, i, |w| all[w]) == value(i)), "{bits} bits");
        }
    }

    /// Bytes of kernels, by the text above: quadruples of 3-bit codes, and upper bits of 5 and 6 above nibbles.
    #[test]
    fn codes_fall_into_bytes() {
        let mut words = [0; 4];
        (0..40).for_each(|i| put(3, &mut words, i, (i % 7) as u32 + 1));
        arrange(3, &mut words);
        for (w, word) in words.iter().enumerate() {
            for (b, byte) in word.to_le_bytes().into_iter().enumerate() {
                let expected = |i: usize| (i % 7) as u8 + 1;
                assert_eq!((byte & 7, byte >> 3 & 7), (expected(10 * w + b), expected(10 * w + 4 + b)));
            }
        }
        for (bits, shifts) in [(5, &[0, 1, 2, 3, -4, -3, -2, -1][..]), (6, &[0, 2, -4, -2])] {
            let Unit { codes, words: count } = Unit::of(bits).unwrap();
            let value = |i: usize| (i as u32).wrapping_mul(0x9E37_79B9) >> (32 - bits);
            let mut words = vec![0; count];
            (0..codes).for_each(|i| put(bits, &mut words, i, value(i)));
            arrange(bits, &mut words);
            let mask = if bits == 5 { 0x1010_1010 } else { 0x3030_3030 };
            for (half, &shift) in shifts.iter().enumerate() {
                let upper = words[count - 1];
                let upper = if shift < 0 { upper << -shift } else { upper >> shift };
                let bytes = words[half / 2] >> (4 * (half % 2)) & 0x0f0f_0f0f | upper & mask;
                for (b, byte) in bytes.to_le_bytes().into_iter().enumerate() {
                    assert_eq!(u32::from(byte), value(half / 2 * 8 + 2 * b + half % 2), "{bits} bits");
                }
            }
        }
    }
}
