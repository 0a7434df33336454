//! Encoding and decoding of rows: codes by hand, odd lengths, refusals.

use dwindle_schemes::{FloatType, Format, Grouped, Zero};
use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::ErrorStats;

fn grouped(text: &str) -> Grouped {
    match text.parse().unwrap() {
        Format::Grouped(grouped) => grouped,
        Format::Plain(_) => panic!("{text} is not grouped"),
    }
}

const FORMATS: [&str; 15] = [
    "q3g40f16",
    "q3g10f32",
    "q4g32f16",
    "q4g32f32",
    "q5g32f16",
    "q5g64f32",
    "q5g32f16z16",
    "q6g16f16",
    "q6g48f32",
    "q6g16f16z32",
    "q8g32f16",
    "q8g36f32",
    "q4g4096bf16",
    "q4g32f16z8",
    "q8g32f16z128",
];

/// Groups with zeros of their own.
const ASYMMETRIC: [&str; 6] = ["q4g128f16z", "q4g32f32z", "q3g40f16z", "q5g32f16z", "q6g32f32z", "q8g32f16z"];

/// Groups with minimums.
const MINIMUM: [&str; 6] = ["q3g40f16m", "q4g32f16m", "q4g16f32m", "q5g32f16m", "q6g16f16m", "q8g32f32m"];

fn all_formats() -> impl Iterator<Item = &'static str> {
    FORMATS.into_iter().chain(ASYMMETRIC).chain(MINIMUM)
}

struct Encoded {
    words: Vec<u32>,
    scales: Vec<f32>,
    decoded: Vec<f32>,
}

fn try_encode(values: &[f32], columns: usize, grouped: &Grouped, method: Method) -> Result<Encoded, Error> {
    let rows = values.len() / columns;
    let mut words = vec![u32::MAX; rows * grouped.words(columns)];
    let mut scales = vec![f32::NAN; rows * grouped.scales(columns)];
    encode_rows(values, columns, grouped, method, &mut words, &mut scales)?;
    let mut decoded = vec![f32::NAN; values.len()];
    decode_rows(&words, &scales, columns, grouped, &mut decoded)?;
    Ok(Encoded { words, scales, decoded })
}

#[track_caller]
fn encode(values: &[f32], columns: usize, grouped: &Grouped, method: Method) -> Encoded {
    try_encode(values, columns, grouped, method).unwrap()
}

/// Approximately normal: a sum of twelve uniform values, of a linear congruential generator (Knuth's MMIX constants).
fn gaussian(count: usize, deviation: f32) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * deviation).collect()
}

/// The rule of `tests/golden/README.md`, one value after the other.
fn rtn_by_definition(values: &[f32], columns: usize, grouped: &Grouped) -> (Vec<u32>, Vec<f32>) {
    let zero = grouped.constant_zero().unwrap();
    let m = zero.min(grouped.max_code() - zero) as f32;
    let (mut words, mut scales) = (Vec::new(), Vec::new());
    for row in values.chunks(columns) {
        let mut codes = Vec::new();
        for group in row.chunks(grouped.group) {
            let scale = group.iter().fold(0.0, |max: f32, w| max.max(w.abs())) / m;
            scales.push(round(grouped.scale, scale));
            codes.extend(group.iter().map(|w| match scale {
                0.0 => zero,
                _ => ((w / scale).round_ties_even().clamp(-m, m) + zero as f32) as u32,
            }));
        }
        codes.resize(grouped.groups(columns) * grouped.group, 0);
        words.extend(codes.chunks(grouped.unit_codes()).flat_map(|unit| unit_by_definition(unit, grouped.bits)));
    }
    (words, scales)
}

/// The words of a unit: whole codes, or their lower four bits and then the upper ones.
fn unit_by_definition(codes: &[u32], bits: u32) -> Vec<u32> {
    let word = |codes: &[u32], bits: u32| (0..).zip(codes).fold(0, |word, (j, code)| word | code << (j * bits));
    if !matches!(bits, 5 | 6) {
        return vec![word(codes, bits)];
    }
    let lower: Vec<u32> = codes.iter().map(|code| code % 16).collect();
    let upper: Vec<u32> = codes.iter().map(|code| code / 16).collect();
    lower.chunks(8).map(|codes| word(codes, 4)).chain([word(&upper, bits - 4)]).collect()
}

/// MLC LLM's layout, worked out by hand: w[i] = (i - n) / n. The 3-bit ramps have two halves, at ±0.5; MLC LLM, which
/// adds m before it rounds, has them at the neighbouring codes 2 and 4.
#[test]
fn words_of_ramps() {
    let ramp = |n: i32| (0..2 * n).map(|i| (i - n) as f32 / n as f32).collect::<Vec<_>>();
    let table: [(&str, i32, usize, u16, &[u32]); 3] = [
        ("q4g32f16", 16, 32, 0x3092, &[0x33221100, 0x76655444, 0xaa998877, 0xeddccbba]),
        ("q3g40f16", 20, 40, 0x3555, &[0x09249000, 0x1b692491, 0x249246db, 0x36d6db6d]),
        ("q3g40f16", 20, 13, 0x3555, &[0x09249000, 0x00000091, 0, 0]),
    ];
    for (format, n, columns, scale, words) in table {
        let encoded = encode(&ramp(n)[..columns], columns, &grouped(format), Method::Rtn);
        assert_eq!(half::f16::from_f32(encoded.scales[0]).to_bits(), scale);
        assert_eq!(encoded.words, words, "{format}, {columns} columns");
    }
}

#[test]
fn rtn_is_its_definition() {
    for format in FORMATS {
        let grouped = grouped(format);
        for columns in [1, 7, 8, 13, 32, 40, 41, 63, 96, 200] {
            let values = gaussian(columns * 9, 0.02);
            let encoded = encode(&values, columns, &grouped, Method::Rtn);
            let expected = rtn_by_definition(&values, columns, &grouped);
            assert_eq!((encoded.words, encoded.scales), expected, "{format}, {columns} columns");
        }
    }
}

/// Groups of zeros among others, and negative zeros.
#[test]
fn groups_of_zeros() {
    for format in FORMATS {
        let grouped = grouped(format);
        let mut values = vec![0.0; grouped.group * 3 + 1];
        values[0] = 1.0;
        values[grouped.group + 1] = -0.0;
        for method in Method::ALL {
            let encoded = encode(&values, values.len(), &grouped, method);
            assert_eq!(encoded.scales[1..], [0.0; 3]);
            let word = grouped.words_per_group();
            let zero = grouped.constant_zero().unwrap();
            let zeros = vec![zero; grouped.unit_codes()];
            let mut one = vec![0; grouped.unit_codes()];
            one[0] = zero;
            let unit = |from: usize| &encoded.words[from * word..][..grouped.unit_words()];
            assert_eq!(unit(1), unit_by_definition(&zeros, grouped.bits), "scale 0 gives the code of zero");
            assert_eq!(unit(3), unit_by_definition(&one, grouped.bits), "one value, padding holds code 0");
            assert!(encoded.decoded[grouped.group..].iter().all(|v| *v == 0.0));
        }
    }
}

/// Rows are independent: blocks of rows give the bytes of the whole.
#[test]
fn blocks_give_the_same_bytes() {
    let (rows, columns) = (12, 100);
    let values = gaussian(rows * columns, 1.0);
    for format in all_formats() {
        for method in Method::ALL {
            let whole = encode(&values, columns, &grouped(format), method);
            let blocks = values.chunks(5 * columns).map(|block| encode(block, columns, &grouped(format), method).words);
            assert_eq!(whole.words, blocks.collect::<Vec<_>>().concat());
        }
    }
}

/// The narrow and the wide compilation agree bit for bit (where the machine has both).
#[test]
fn instruction_sets_agree() {
    let columns = 127;
    let values = gaussian(columns * 40, 0.05);
    for format in all_formats() {
        for method in Method::ALL {
            let grouped = grouped(format);
            let wide = encode(&values, columns, &grouped, method);
            let (mut words, mut scales) = (vec![0; wide.words.len()], vec![0.0; wide.scales.len()]);
            let (values, words_mut, scales_mut) = (&values[..], &mut words[..], &mut scales[..]);
            macro_rules! narrow {
                ($bits:literal) => {
                    Encode::<$bits> { values, columns, grouped, method, words: words_mut, scales: scales_mut }.run()
                };
            }
            match grouped.bits {
                3 => narrow!(3),
                4 => narrow!(4),
                5 => narrow!(5),
                6 => narrow!(6),
                _ => narrow!(8),
            }
            .unwrap();
            assert_eq!((words, scales), (wide.words, wide.scales), "{format}");
        }
    }
}

/// What a better use of the same bytes is worth on normal weights.
#[test]
fn search_on_normal_weights() {
    let values = gaussian(2048 * 20, 0.02);
    for (format, at_most) in [
        ("q3g40f16", 0.52),
        ("q4g32f16", 0.72),
        ("q5g32f16", 0.85),
        ("q6g32f16", 0.92),
        ("q8g32f16", 0.95),
        ("q4g32f16m", 0.85),
        ("q5g32f16m", 0.92),
    ] {
        let error = |method| {
            let decoded = encode(&values, 2048, &grouped(format), method).decoded;
            ErrorStats::of(&values, &decoded).error
        };
        let ratio = error(Method::Search) / error(Method::Rtn);
        println!("{format}: {ratio:.4} of rtn's squared error");
        assert!(ratio < at_most, "{format}: {ratio}");
    }
}

/// By definition: from the least to the greatest value, zeros after their scales.
#[test]
fn groups_with_zeros_span_their_range() {
    for format in ASYMMETRIC {
        let grouped = grouped(format);
        let highest = grouped.max_code() as f32;
        for columns in [1, 7, 32, 63, 200] {
            let values: Vec<f32> = gaussian(columns * 5, 0.02).iter().map(|w| w + 0.015).collect();
            let encoded = encode(&values, columns, &grouped, Method::Rtn);
            let groups = values.chunks(columns).flat_map(|row| row.chunks(grouped.group));
            assert_eq!(encoded.scales.len(), 2 * groups.clone().count());
            for ((index, group), stored) in groups.enumerate().zip(encoded.scales.chunks(2)) {
                let low = group.iter().fold(0.0_f32, |low, w| low.min(*w));
                let high = group.iter().fold(0.0_f32, |high, w| high.max(*w));
                let scale = round(grouped.scale, high / highest - low / highest);
                assert_eq!(stored, [scale, (-low / scale).round_ties_even()], "{format}, group {index}");
            }
            let half = encoded.scales.chunks(2).fold(0.0_f32, |most, stored| most.max(stored[0])) * 0.501;
            // Rounding of zero and scale may cost another half step at the ends.
            assert!(values.iter().zip(&encoded.decoded).all(|(w, v)| (w - v).abs() <= 2.0 * half));
        }
    }
}

/// By definition: from the least to the greatest value, minimums after their scales; also where 0 is outside.
#[test]
fn groups_with_minimums_span_their_range() {
    for format in MINIMUM {
        let grouped = grouped(format);
        let highest = grouped.max_code() as f32;
        for (columns, shift) in [(1, 0.015), (7, 0.0), (32, -1.0), (63, 0.015), (200, 0.5)] {
            let values: Vec<f32> = gaussian(columns * 5, 0.02).iter().map(|w| w + shift).collect();
            let encoded = encode(&values, columns, &grouped, Method::Rtn);
            let groups = values.chunks(columns).flat_map(|row| row.chunks(grouped.group));
            assert_eq!(encoded.scales.len(), 2 * groups.clone().count());
            for ((index, group), stored) in groups.enumerate().zip(encoded.scales.chunks(2)) {
                let low = group.iter().fold(f32::INFINITY, |low, w| low.min(*w));
                let high = group.iter().fold(f32::NEG_INFINITY, |high, w| high.max(*w));
                let scale = round(grouped.scale, high / highest - low / highest);
                assert_eq!(stored, [scale, round(grouped.scale, low)], "{format}, group {index}");
            }
            let half = encoded.scales.chunks(2).fold(0.0_f32, |most, stored| most.max(stored[0])) * 0.501;
            // Of the minimum, and of the scale times the highest code.
            let rounding = if grouped.scale == FloatType::F16 { (shift.abs() + 0.3) / 1024.0 } else { 1e-6 };
            for (w, v) in values.iter().zip(&encoded.decoded) {
                assert!((w - v).abs() <= half + rounding, "{format}: {w} became {v}");
            }
        }
    }
}

/// What minimums are worth where no weight is near 0, which groups with zeros must span.
#[test]
fn minimums_help_where_weights_are_far_from_zero() {
    let values: Vec<f32> = gaussian(2048 * 20, 0.02).iter().map(|w| w + 0.2).collect();
    for method in Method::ALL {
        let error = |format| {
            let decoded = encode(&values, 2048, &grouped(format), method).decoded;
            ErrorStats::of(&values, &decoded).error
        };
        let ratio = error("q4g32f16m") / error("q4g32f16z");
        println!("{method}: {ratio:.4} of the squared error with zeros");
        assert!(ratio < 0.25, "{method}: {ratio}");
    }
}

/// Signal to noise of each scheme's bytes on normal weights, as `schemes/README.md` has it.
#[test]
fn signal_to_noise_on_normal_weights() {
    let values = gaussian(2048 * 40, 0.02);
    let mut table = String::new();
    let formats = [
        "q3g40f16",
        "q4g128f16z",
        "q4g32f16",
        "q4g32f32",
        "q4g32f16m",
        "q4g64f16m",
        "q4g16f16m",
        "q5g32f16",
        "q5g32f16m",
        "q6g32f16",
        "q6g16f16",
        "q8g32f16",
    ];
    for format in formats {
        let decibel = |method| {
            let decoded = encode(&values, 2048, &grouped(format), method).decoded;
            ErrorStats::of(&values, &decoded).snr_db()
        };
        let bits = Format::Grouped(grouped(format)).bits_per_weight(grouped(format).group);
        let [rtn, search] = [Method::Rtn, Method::Search].map(decibel);
        table += &format!("{format:10} {bits:5} bits  rtn {rtn:4.1} dB  search {search:4.1} dB\n");
    }
    expect![[r#"
        q3g40f16     3.6 bits  rtn 12.8 dB  search 15.7 dB
        q4g128f16z  4.25 bits  rtn 20.1 dB  search 20.6 dB
        q4g32f16     4.5 bits  rtn 20.5 dB  search 22.0 dB
        q4g32f32       5 bits  rtn 20.5 dB  search 22.0 dB
        q4g32f16m      5 bits  rtn 22.3 dB  search 23.3 dB
        q4g64f16m    4.5 bits  rtn 21.1 dB  search 22.0 dB
        q4g16f16m      6 bits  rtn 23.8 dB  search 25.1 dB
        q5g32f16     5.5 bits  rtn 27.1 dB  search 28.1 dB
        q5g32f16m      6 bits  rtn 28.6 dB  search 29.6 dB
        q6g32f16     6.5 bits  rtn 33.4 dB  search 34.2 dB
        q6g16f16       7 bits  rtn 34.5 dB  search 35.6 dB
        q8g32f16     8.5 bits  rtn 45.6 dB  search 46.3 dB
    "#]]
    .assert_eq(&table);
}

/// What zeros are worth on weights that are not centred, and that 0 stays 0.
#[test]
fn zeros_help_where_weights_are_not_centred() {
    let mut values: Vec<f32> = gaussian(2048 * 20, 0.02).iter().map(|w| w + 0.03).collect();
    values.iter_mut().step_by(7).for_each(|w| *w = 0.0);
    for method in Method::ALL {
        let error = |format| {
            let decoded = encode(&values, 2048, &grouped(format), method).decoded;
            assert!(decoded.iter().step_by(7).all(|w| *w == 0.0));
            ErrorStats::of(&values, &decoded).error
        };
        let ratio = error("q4g32f16z") / error("q4g32f16");
        println!("{method}: {ratio:.4} of the centred format's squared error");
        assert!(ratio < 0.75, "{method}: {ratio}");
    }
}

/// The lowest code of a fixed zero is used where a scale of either sign may be chosen.
#[test]
fn fixed_zeros_are_the_centred_format_mirrored() {
    let values = gaussian(320, 0.02);
    let mirrored: Vec<f32> = values.iter().map(|w| -w).collect();
    let centred = encode(&values, 32, &grouped("q4g32f16"), Method::Search);
    let fixed = encode(&mirrored, 32, &grouped("q4g32f16z8"), Method::Search);
    let words: Vec<u32> = centred.words.iter().map(|word| !word).collect();
    assert_eq!((fixed.words, fixed.scales), (words, centred.scales));
}

/// A scale of either sign and the highest code: exact where rtn cannot be.
#[test]
fn search_uses_every_code() {
    let grouped = grouped("q4g32f16");
    for sign in [1.0, -1.0] {
        let values: Vec<f32> = (0..32).map(|j| sign * (j % 16 - 7) as f32 * 0.25).collect();
        let encoded = encode(&values, 32, &grouped, Method::Search);
        assert_eq!(encoded.decoded, values);
        assert_eq!(encoded.scales, [sign * 0.25]);
    }
}

#[test]
fn bad_weights_are_named() {
    let columns = 70;
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![1.0; columns * 4];
        values[2 * columns + 67] = value;
        for method in Method::ALL {
            let Err(Error::NotFinite { row: 2, column: 67, value: found }) =
                try_encode(&values, columns, &grouped("q4g32f16"), method)
            else {
                panic!("{value} was not refused at its place");
            };
            assert_eq!(found.to_bits(), value.to_bits());
        }
    }
    let error = Error::NotFinite { row: 2, column: 67, value: f32::NAN }.below(100);
    assert_eq!(
        error.to_string(),
        "row 102, column 67: the weight is NaN; the checkpoint is damaged or was saved while diverging"
    );
}

#[test]
fn scales_beyond_f16_are_refused() {
    let mut values = vec![1.0; 96];
    values[70] = -7.0 * 65520.0;
    for method in Method::ALL {
        let error = try_encode(&values, 96, &grouped("q4g32f16"), method).err().unwrap();
        assert_eq!(error, Error::ScaleOverflow { row: 0, column: 64, scale: 65520.0, float: FloatType::F16 });
        let message =
            "row 0, columns from 64: the scale 6.552e4 of this group is beyond f16; use a scheme with f32 scales";
        assert_eq!(error.to_string(), message);
        assert!(try_encode(&values, 96, &grouped("q4g32f32"), method).is_ok());
        values[70] = -7.0 * 65519.0;
        assert!(try_encode(&values, 96, &grouped("q4g32f16"), method).unwrap().decoded.iter().all(|v| v.is_finite()));
        values[70] = -7.0 * 65520.0;
    }
}

#[test]
fn minimums_beyond_f16_are_refused() {
    let mut values = vec![1.0; 96];
    values[64..].fill(70000.0);
    for method in Method::ALL {
        let error = try_encode(&values, 96, &grouped("q4g32f16m"), method).err().unwrap();
        assert_eq!(error, Error::MinimumOverflow { row: 0, column: 64, minimum: 70000.0, float: FloatType::F16 });
        let message =
            "row 3, columns from 64: the minimum 7e4 of this group is beyond f16; use a scheme with f32 scales";
        assert_eq!(error.below(3).to_string(), message);
        assert!(try_encode(&values, 96, &grouped("q4g32f32m"), method).is_ok());
    }
}

#[test]
fn slices_that_do_not_fit_are_refused() {
    let q4 = grouped("q4g32f16");
    let cases: [(usize, usize, usize, usize, &str); 5] = [
        (33, 33, 7, 2, "words: 7 given, 8 needed"),
        (33, 33, 8, 1, "scales: 1 given, 2 needed"),
        (67, 33, 16, 4, "values of whole rows: 67 given, 66 needed"),
        (1, 0, 0, 0, "values of whole rows: 1 given, 0 needed"),
        (0, 33, 4, 0, "words: 4 given, 0 needed"),
    ];
    for (values, columns, words, scales, message) in cases {
        let (mut w, mut s, mut v) = (vec![0; words], vec![0.0; scales], vec![0.0; values]);
        let encoded = encode_rows(&v, columns, &q4, Method::Rtn, &mut w, &mut s).unwrap_err();
        assert_eq!(encoded.to_string(), message);
        assert_eq!(decode_rows(&w, &s, columns, &q4, &mut v).unwrap_err(), encoded);
    }
    let centred = [(2, 32), (0, 32), (40, 32), (4, 12), (4, 0), (3, 32), (8, 8192), (5, 16), (6, 24), (7, 32)]
        .map(|(b, g)| (b, g, Zero::Centered));
    for (bits, group, zero) in
        centred.into_iter().chain([(4, 32, Zero::Fixed(16)), (5, 32, Zero::Fixed(32)), (8, 32, Zero::Fixed(256))])
    {
        let odd = Grouped { bits, group, scale: FloatType::F16, zero };
        assert_eq!(encode_rows(&[], 0, &odd, Method::Rtn, &mut [], &mut []), Err(Error::Format(odd)));
    }
    assert_eq!(encode_rows(&[], 0, &q4, Method::Search, &mut [], &mut []), Ok(()));
}

proptest! {
    /// No group is worse with `search`, for any magnitudes (also where f16 scales are subnormal or vanish).
    #[test]
    fn search_is_never_worse(
        values in prop::collection::vec(-1.0_f32..1.0, 1..150),
        spikes in prop::collection::vec((0_usize..150, -100.0_f32..100.0), 0..4),
        exponent in -45_i32..6,
        format in prop::sample::select(all_formats().collect::<Vec<_>>()),
    ) {
        let mut values = values;
        for (at, spike) in spikes {
            let at = at % values.len();
            values[at] = spike;
        }
        let values: Vec<f32> = values.iter().map(|v| v * 10_f32.powi(exponent / 2) * 10_f32.powi(exponent - exponent / 2)).collect();
        let grouped = grouped(format);
        if let Ok(rtn) = try_encode(&values, values.len(), &grouped, Method::Rtn) {
            let search = encode(&values, values.len(), &grouped, Method::Search);
            let groups = values.chunks(grouped.group).zip(rtn.decoded.chunks(grouped.group));
            for ((w, rtn), search) in groups.zip(search.decoded.chunks(grouped.group)) {
                let error = |decoded: &[f32]| -> f64 {
                    w.iter().zip(decoded).map(|(w, v)| (f64::from(*w) - f64::from(*v)).powi(2)).sum()
                };
                prop_assert!(error(search) <= error(rtn) * (1.0 + 1e-12));
            }
        }
    }

    /// Whatever was encoded stays as it is when it is encoded again: codes reach their extremes, so `rtn` finds the same
    /// scale, and minimum.
    #[test]
    fn decoded_values_decode_to_themselves(
        rows in prop::collection::vec(prop::collection::vec(0_u32..256, 1..100), 1..3),
        format in prop::sample::select(all_formats().collect::<Vec<_>>()),
        exponent in -3_i32..3,
    ) {
        let grouped = grouped(format);
        // Where the range is a sum of two quotients, only rounding to f16 makes it exact again.
        prop_assume!(grouped.constant_zero().is_some() || grouped.scale == FloatType::F16);
        for codes in rows {
            let m = grouped.constant_zero().map_or(0, |zero| zero.min(grouped.max_code() - zero));
            // Codes around the centre where there is one; of the whole range otherwise.
            let (low, high) = match grouped.constant_zero() {
                Some(zero) => (zero - m, zero + m),
                None => (0, grouped.max_code()),
            };
            let mut codes: Vec<u32> = codes.iter().map(|code| low + code % (high - low + 1)).collect();
            // One value does not tell scale from zero.
            if codes.len() % grouped.group == 1 {
                codes.pop();
            }
            for group in codes.chunks_mut(grouped.group) {
                let last = group.len() - 1;
                (group[0], group[last]) = (high, low);
            }
            let scale = 2_f32.powi(exponent);
            let zero = grouped.constant_zero().unwrap_or(grouped.max_code() / 3);
            let values: Vec<f32> = codes.iter().map(|code| (*code as f32 - zero as f32) * scale).collect();
            if values.is_empty() {
                continue;
            }
            let encoded = encode(&values, values.len(), &grouped, Method::Rtn);
            prop_assert_eq!(&encoded.decoded, &values);
            for (index, code) in codes.iter().enumerate() {
                let groups = grouped.words_per_group();
                let words = &encoded.words[index / grouped.group * groups..][..groups];
                prop_assert!(grouped.code(words, index % grouped.group) == *code);
            }
        }
    }
}
