//! Blocks against gguf-py's values of them, and against the plain reader of the tests.

use dwindle_quant::decode_rows;
use dwindle_schemes::{FloatType, Grouped};
use half::f16;

use super::super::super::Rows;
use super::super::blocks::{Unstorable, fits_f16, repack};
use super::super::tensor_type::{Encoding, Packing, TensorType};
use super::writer::{PACKED, Storage};
use crate::checkpoint::fixture::golden;
use crate::checkpoint::safetensors::SafeTensors;

fn packing(storage: Storage) -> Packing {
    match TensorType::of(storage.number()).unwrap().encoding() {
        Encoding::Packed(packing) => packing,
        other => panic!("{other:?}"),
    }
}

/// What these blocks become, with scales of this type: values, and what was lost.
fn repacked(storage: Storage, scale: FloatType, blocks: &[u8]) -> (Vec<f32>, Rows, Unstorable) {
    let (grouped, mut rows) = (packing(storage).grouped(scale), Rows::default());
    let unstorable = repack(packing(storage), &grouped, blocks, &mut rows);
    let (count, size) = storage.block();
    let values = decoded(&grouped, &rows, blocks.len() / size * count);
    (values, rows, unstorable)
}

fn decoded(grouped: &Grouped, rows: &Rows, columns: usize) -> Vec<f32> {
    let scales: Vec<f32> = match grouped.scale {
        FloatType::F32 => rows.floats.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        _ => rows.floats.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
    };
    let mut values = vec![f32::NAN; columns];
    decode_rows(&rows.words, &scales, columns, grouped, &mut values).unwrap();
    values
}

/// Types whose scales are one number in the file.
fn is_exact(storage: Storage) -> bool {
    !matches!(storage, Storage::Q2K | Storage::Q3K | Storage::Q4K | Storage::Q5K | Storage::Q6K | Storage::Iq4Xs)
}

/// The bytes are random, so all codes, scales and signs occur.
#[test]
fn values_are_those_of_gguf_py() {
    let fixture = SafeTensors::open(&golden("gguf/blocks.safetensors")).unwrap();
    for storage in PACKED {
        let name = storage.name();
        let blocks = fixture.tensor(&format!("{name}.blocks")).unwrap().bytes;
        let expected = fixture.tensor(&format!("{name}.values")).unwrap().to_f32().unwrap();
        assert_eq!(storage.decode(blocks), expected, "{name}: the plain reader of the tests");

        let (found, rows, unstorable) = repacked(storage, FloatType::F16, blocks);
        assert_eq!(unstorable, Unstorable::default(), "{name}");
        let differences = found.iter().zip(&expected).map(|(a, b)| f64::from(a - b));
        let (error, most) = differences.fold((0.0, 0.0), |(e, m), d| (e + d * d, f64::max(m, d.abs())));
        if is_exact(storage) {
            assert_eq!(found, expected, "{name}");
            assert_eq!(rows.stats.error, 0.0, "{name}");
        } else {
            // What is said to be lost is what is lost, up to the rounding of values.
            assert!(rows.stats.snr_db() > 66.0, "{name}: {} dB", rows.stats.snr_db());
            assert!((rows.stats.error / error - 1.0).abs() < 1e-2, "{name}: {} is not {error}", rows.stats.error);
            assert!((f64::from(rows.stats.max_abs) / most - 1.0).abs() < 1e-2, "{name}");
        }
        let signal: f64 = expected.iter().map(|v| f64::from(*v).powi(2)).sum();
        assert!((rows.stats.signal / signal - 1.0).abs() < 1e-6, "{name}");
        assert_eq!(rows.stats.count, expected.len() as u64, "{name}");

        // Scales of 32 bits hold the products.
        let (found, rows, _) = repacked(storage, FloatType::F32, blocks);
        assert_eq!(rows.stats.error, 0.0, "{name}");
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1.0)), "{name}");
    }
}

/// What the tests write is near what they were given, so that models of it are models.
#[test]
fn written_blocks_are_near_their_values() {
    let values: Vec<f32> = (0..512).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0).powi(3)).collect();
    for storage in PACKED {
        let found = storage.decode(&storage.encode(&values));
        let signal: f32 = values.iter().map(|v| v * v).sum();
        let error: f32 = values.iter().zip(&found).map(|(a, b)| (a - b) * (a - b)).sum();
        let least = if matches!(storage, Storage::Q2K) { 6.0 } else { 10.0 };
        assert!(10.0 * (signal / error).log10() > least, "{storage:?}: {error} of {signal}");
    }
}

#[test]
fn scales_that_cannot_be_stored() {
    // A product beyond f16, of factors within it.
    let mut block = Storage::Q4K.encode(&[1.0; 256]);
    block[..2].copy_from_slice(&f16::from_f32(60_000.0).to_le_bytes());
    let (.., unstorable) = repacked(Storage::Q4K, FloatType::F16, &block);
    let beyond = unstorable.beyond.unwrap();
    assert!(unstorable.not_finite == 0 && beyond > 65_504.0, "{unstorable:?}");
    // A factor that is not a number.
    for (storage, at) in [(Storage::Q4K, 2), (Storage::Q6K, 208), (Storage::Q5_1, 2), (Storage::Iq4Nl, 0)] {
        let mut block = storage.encode(&[1.0; 256]);
        block[at..at + 2].copy_from_slice(&f16::NAN.to_le_bytes());
        let (.., unstorable) = repacked(storage, FloatType::F16, &block);
        assert_eq!(unstorable.not_finite, storage.block().0 as u64, "{storage:?}");
        assert_eq!(unstorable.beyond, None, "{storage:?}");
    }
}

/// Powers of two that f16 holds, and those that it does not; blocks of zeros have any exponent.
#[test]
fn exponents_of_mxfp4() {
    let block = |exponent: u8, byte: u8| [&[exponent][..], &[byte; 16]].concat();
    for (exponent, byte, fits) in [
        (104, 0x21, true),
        (143, 0x21, true),
        (103, 0x21, false),
        (144, 0x21, false),
        (0, 0x80, true),
        (255, 0x08, true),
        (255, 0x21, false),
    ] {
        let blocks = [block(127, 0x7f), block(exponent, byte)].concat();
        assert_eq!(fits_f16(&blocks), fits, "{exponent} {byte:x}");
        let (found, rows, unstorable) =
            repacked(Storage::Mxfp4, if fits { FloatType::F16 } else { FloatType::F32 }, &blocks);
        if (exponent, byte) == (255, 0x21) {
            assert_eq!(unstorable.not_finite, 32);
            continue;
        }
        let expected = if byte & 0x77 == 0 { vec![0.0; 32] } else { Storage::Mxfp4.decode(&blocks[17..]) };
        assert_eq!(found[32..], expected, "{exponent}");
        assert_eq!((rows.stats.error, unstorable), (0.0, Unstorable::default()));
    }
    // The least that there is.
    for exponent in [0, 1, 2, 252] {
        let (found, ..) = repacked(Storage::Mxfp4, FloatType::F32, &block(exponent, 0x22));
        assert_eq!(found[0], 2_f64.powi(i32::from(exponent) - 127) as f32, "{exponent}");
    }
}
