//! ggml's packed types value by value: where each bit of a code and of a scale lies (`ggml-common.h`), for writing and for
//! reading. It shares nothing with the importer, which reads whole blocks.

use half::f16;

use super::Storage;

/// Byte, lowest bit, number of bits; the lowest bits of a number come first.
type Bits = (usize, usize, usize);

const IQ4: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

const FP4: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

impl Storage {
    /// Values and bytes of a block.
    pub fn block(self) -> (usize, usize) {
        match self {
            Storage::F32 => (1, 4),
            Storage::F16 | Storage::Bf16 => (1, 2),
            Storage::Q4_0 | Storage::Iq4Nl => (32, 18),
            Storage::Q4_1 => (32, 20),
            Storage::Q5_0 => (32, 22),
            Storage::Q5_1 => (32, 24),
            Storage::Q8_0 => (32, 34),
            Storage::Mxfp4 => (32, 17),
            Storage::Q2K => (256, 84),
            Storage::Q3K => (256, 110),
            Storage::Q4K => (256, 144),
            Storage::Q5K => (256, 176),
            Storage::Q6K => (256, 210),
            Storage::Iq4Xs => (256, 136),
        }
    }

    /// Values that share a scale.
    fn group(self) -> usize {
        match self {
            Storage::Q2K | Storage::Q3K | Storage::Q6K => 16,
            _ => 32,
        }
    }

    /// Where the code of value `i` lies.
    fn code(self, i: usize) -> Vec<Bits> {
        // Of each 32, 64 or 128 values, those that share bytes.
        let of_32 = |start: usize| (start + i % 16, 4 * (i % 32 / 16), 4);
        let of_64 = |start: usize| (start + 32 * (i / 64) + i % 32, 4 * (i % 64 / 32), 4);
        let of_128 = |start: usize| (start + 32 * (i / 128) + i % 32, 2 * (i % 128 / 32), 2);
        match self {
            Storage::Q4_0 | Storage::Iq4Nl => vec![of_32(2)],
            Storage::Q4_1 => vec![of_32(4)],
            Storage::Q5_0 => vec![of_32(6), (2 + i / 8, i % 8, 1)],
            Storage::Q5_1 => vec![of_32(8), (4 + i / 8, i % 8, 1)],
            Storage::Q8_0 => vec![(2 + i, 0, 8)],
            Storage::Mxfp4 => vec![of_32(1)],
            Storage::Q2K => vec![of_128(16)],
            Storage::Q3K => vec![of_128(32), (i % 32, i / 32, 1)],
            Storage::Q4K => vec![of_64(16)],
            Storage::Q5K => vec![of_64(48), (16 + i % 32, i / 32, 1)],
            Storage::Q6K => {
                let (byte, two_bits, _) = of_128(128);
                vec![(64 * (i / 128) + i % 64, 4 * (i % 128 / 64), 4), (byte, two_bits, 2)]
            }
            Storage::Iq4Xs => vec![of_32(8 + 16 * (i / 32))],
            Storage::F32 | Storage::F16 | Storage::Bf16 => unreachable!("floats have no codes"),
        }
    }

    /// Where the two factors of group `g` lie: that of the scale and that of the minimum.
    fn factors(self, g: usize) -> [Vec<Bits>; 2] {
        match self {
            Storage::Q2K => [vec![(g, 0, 4)], vec![(g, 4, 4)]],
            Storage::Q3K => [vec![(96 + g % 8, 4 * (g / 8), 4), (104 + g % 4, 2 * (g / 4), 2)], vec![]],
            Storage::Q4K | Storage::Q5K if g < 4 => [vec![(4 + g, 0, 6)], vec![(8 + g, 0, 6)]],
            Storage::Q4K | Storage::Q5K => [vec![(8 + g, 0, 4), (g, 6, 2)], vec![(8 + g, 4, 4), (4 + g, 6, 2)]],
            Storage::Q6K => [vec![(192 + g, 0, 8)], vec![]],
            Storage::Iq4Xs => [vec![(4 + g / 2, 4 * (g % 2), 4), (2 + g / 4, 2 * (g % 4), 2)], vec![]],
            _ => [vec![], vec![]],
        }
    }

    /// Where the floats of 16 bits lie that scales and minimums are made of.
    fn halves(self) -> (Option<usize>, Option<usize>) {
        match self {
            Storage::Q4_1 | Storage::Q5_1 | Storage::Q4K | Storage::Q5K => (Some(0), Some(2)),
            Storage::Q2K => (Some(80), Some(82)),
            Storage::Q3K => (Some(108), None),
            Storage::Q6K => (Some(208), None),
            Storage::Mxfp4 => (None, None),
            _ => (Some(0), None),
        }
    }

    /// What a code stands for, before it is scaled.
    fn level(self, code: usize) -> f32 {
        let number = code as f32;
        match self {
            Storage::Q4_0 => number - 8.0,
            Storage::Q5_0 => number - 16.0,
            Storage::Q8_0 => f32::from(code as u8 as i8),
            Storage::Q3K => number - 4.0,
            Storage::Q6K => number - 32.0,
            Storage::Iq4Nl | Storage::Iq4Xs => IQ4[code],
            Storage::Mxfp4 => FP4[code % 8] * if code < 8 { 1.0 } else { -1.0 },
            _ => number,
        }
    }

    /// What the factor of a scale is, and the greatest.
    fn factor(self, number: usize) -> f32 {
        match self {
            Storage::Q3K | Storage::Iq4Xs => number as f32 - 32.0,
            Storage::Q6K => f32::from(number as u8 as i8),
            _ => number as f32,
        }
    }

    /// Scale and minimum of a group.
    fn scale(self, block: &[u8], g: usize) -> (f32, f32) {
        let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
        let (d, e) = self.halves();
        let [s, t] = self.factors(g);
        let d = d.map_or_else(|| 2_f32.powi(i32::from(block[0]) - 127), half);
        let scale = if s.is_empty() { d } else { d * self.factor(get(block, &s)) };
        let minimum = match (e, t.is_empty()) {
            (None, _) => 0.0,
            (Some(e), true) => half(e),
            (Some(e), false) => -(half(e) * get(block, &t) as f32),
        };
        (scale, minimum)
    }

    /// The values of a block.
    pub fn unpack(self, block: &[u8]) -> Vec<f32> {
        let value = |i: usize| {
            let (scale, minimum) = self.scale(block, i / self.group());
            self.level(get(block, &self.code(i))) * scale + minimum
        };
        (0..self.block().0).map(value).collect()
    }

    /// A block of these values: scales that span each group, and the nearest codes.
    pub fn pack(self, values: &[f32]) -> Vec<u8> {
        let (_, size) = self.block();
        let mut block = vec![0; size];
        let levels = 1 << self.code(0).iter().map(|bits| bits.2).sum::<usize>();
        let (d, e) = self.halves();
        let has_minimum = e.is_some();
        let greatest = (0..levels).map(|code| self.level(code).abs()).fold(0.0, f32::max);
        let factors = self.factors(0).map(|bits| bits.iter().map(|bits| bits.2).sum::<usize>());
        // With factors, minimums are 0 or less.
        let span = |group: &[f32]| {
            let (least, most) = group.iter().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
            let least = if factors[1] > 0 { least.min(0.0) } else { least };
            match has_minimum {
                true => ((most - least) / greatest, least),
                false => (most.abs().max(least.abs()) / greatest, 0.0),
            }
        };
        let spans: Vec<_> = values.chunks(self.group()).map(span).collect();
        let most = spans.iter().fold((0.0_f32, 0.0_f32), |most, span| (most.0.max(span.0), most.1.max(-span.1)));
        let least_factor = self.factor(0);
        let greatest_factor = match factors[0] {
            0 => 1.0,
            8 => 127.0,
            bits => ((1 << bits) - 1) as f32 + least_factor,
        };
        let (d_value, e_value) = (most.0 / greatest_factor, most.1 / ((1 << factors[1]) - 1).max(1) as f32);
        match d {
            Some(at) => put_half(&mut block, at, d_value),
            None => block[0] = (127.0 + (d_value.log2().ceil())).max(0.0) as u8,
        }
        if let Some(at) = e {
            let number = if factors[1] > 0 { e_value } else { spans[0].1 };
            put_half(&mut block, at, number);
        }
        for (g, (scale, minimum)) in spans.iter().enumerate() {
            let [s, t] = self.factors(g);
            let nearest = |value: f32, unit: f32| if unit == 0.0 { 0.0 } else { (value / unit).round() };
            if !s.is_empty() {
                let factor = nearest(*scale, d_value) - if factors[0] == 8 { 0.0 } else { least_factor };
                set(&mut block, &s, factor as i32 as usize & 255);
            }
            if !t.is_empty() {
                set(&mut block, &t, nearest(-minimum, e_value) as usize);
            }
        }
        for (i, value) in values.iter().enumerate() {
            let (scale, minimum) = self.scale(&block, i / self.group());
            let error = |code: usize| (self.level(code) * scale + minimum - value).abs();
            let code = (0..levels).min_by(|a, b| error(*a).total_cmp(&error(*b))).unwrap();
            set(&mut block, &self.code(i), code);
        }
        block
    }
}

fn put_half(block: &mut [u8], at: usize, number: f32) {
    block[at..at + 2].copy_from_slice(&f16::from_f32(number).to_le_bytes());
}

fn get(block: &[u8], places: &[Bits]) -> usize {
    let (mut number, mut shift) = (0, 0);
    for (byte, bit, count) in places {
        number |= (usize::from(block[*byte]) >> bit & ((1 << count) - 1)) << shift;
        shift += count;
    }
    number
}

fn set(block: &mut [u8], places: &[Bits], mut number: usize) {
    for (byte, bit, count) in places {
        let mask = (1_usize << count) - 1;
        block[*byte] = (usize::from(block[*byte]) & !(mask << bit) | (number & mask) << bit) as u8;
        number >>= count;
    }
}
