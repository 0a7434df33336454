//! Stored floats (f16, bf16, f32; little-endian bytes of any alignment) to f32 values and back.

use dwindle_schemes::FloatType;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::Error;
use crate::error::check_length;

/// Values converted at a time: `half` converts slices with the machine's instructions, single values without.
const CHUNK: usize = 256;

/// Reads `values.len()` floats of type `float` from little-endian `bytes`. Exact; NaN and infinities pass.
///
/// # Errors
/// [`Error::Length`] unless there are `float.bytes()` bytes for each value.
pub fn read_floats(float: FloatType, bytes: &[u8], values: &mut [f32]) -> Result<(), Error> {
    check_length("bytes of floats", bytes.len(), values.len() * float.bytes())?;
    match float {
        FloatType::F32 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        FloatType::Bf16 => {
            for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
        FloatType::F16 => {
            let mut chunk = [f16::ZERO; CHUNK];
            for (values, bytes) in values.chunks_mut(CHUNK).zip(bytes.chunks(CHUNK * 2)) {
                let chunk = &mut chunk[..values.len()];
                for (half, bytes) in chunk.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *half = f16::from_le_bytes(*bytes);
                }
                chunk.convert_to_f32_slice(values);
            }
        }
    }
    Ok(())
}

/// Writes `values` as little-endian floats of type `float`, rounded to nearest, halves to even.
///
/// # Errors
/// [`Error::Length`] unless there are `float.bytes()` bytes for each value; [`Error::Unstorable`] for the first value
/// that is not finite in `float` (f16 ends at 65504). `bytes` then holds an unspecified part.
pub fn write_floats(float: FloatType, values: &[f32], bytes: &mut [u8]) -> Result<(), Error> {
    check_length("bytes of floats", bytes.len(), values.len() * float.bytes())?;
    if let Some(index) = values.iter().position(|value| value.abs().to_bits() >= beyond(float)) {
        return Err(Error::Unstorable { index, value: values[index], float });
    }
    match float {
        FloatType::F32 => {
            for (bytes, value) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(values) {
                *bytes = value.to_le_bytes();
            }
        }
        FloatType::Bf16 => {
            for (bytes, value) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(values) {
                *bytes = bf16::from_f32(*value).to_le_bytes();
            }
        }
        FloatType::F16 => {
            let mut chunk = [f16::ZERO; CHUNK];
            for (bytes, values) in bytes.chunks_mut(CHUNK * 2).zip(values.chunks(CHUNK)) {
                let chunk = &mut chunk[..values.len()];
                chunk.convert_from_f32_slice(values);
                for (bytes, half) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(chunk) {
                    *bytes = half.to_le_bytes();
                }
            }
        }
    }
    Ok(())
}

/// Bits of the least magnitude that rounds to infinity; those of NaN are above.
const fn beyond(float: FloatType) -> u32 {
    match float {
        FloatType::F32 => f32::INFINITY.to_bits(),
        FloatType::Bf16 => 0x7f7f_8000,
        FloatType::F16 => 65520.0_f32.to_bits(),
    }
}

/// `value` rounded to `float` and back: nearest, halves to even; infinite beyond its range.
#[inline]
pub fn round(float: FloatType, value: f32) -> f32 {
    match float {
        FloatType::F32 => value,
        FloatType::Bf16 => bf16::from_f32(value).to_f32(),
        FloatType::F16 => f16::from_f32(value).to_f32(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [FloatType; 3] = [FloatType::F16, FloatType::Bf16, FloatType::F32];

    /// Lengths around the chunk, bytes at an odd address, every bit pattern of 16 bits that is finite.
    #[test]
    fn stored_floats_round_trip() {
        for float in [FloatType::F16, FloatType::Bf16] {
            for count in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 1 << 16] {
                let mut bytes = vec![0_u8];
                let finite = |bits: &u16| match float {
                    FloatType::F16 => f16::from_bits(*bits).is_finite(),
                    _ => bf16::from_bits(*bits).is_finite(),
                };
                bytes.extend((0..count as u32).map(|bits| bits as u16).filter(finite).flat_map(u16::to_le_bytes));
                let bytes = &bytes[1..];
                let mut values = vec![f32::NAN; bytes.len() / 2];
                read_floats(float, bytes, &mut values).unwrap();
                let mut again = vec![0; bytes.len()];
                write_floats(float, &values, &mut again).unwrap();
                assert_eq!(bytes, again);
                assert!(values.iter().all(|&v| round(float, v).to_bits() == v.to_bits()));
            }
        }
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        let table = [
            (FloatType::F16, 1.0 + 1.0 / 2048.0, 1.0),
            (FloatType::F16, 1.0 + 3.0 / 2048.0, 1.0 + 4.0 / 2048.0),
            (FloatType::Bf16, 1.0 + 1.0 / 256.0, 1.0),
            (FloatType::Bf16, 1.0 + 3.0 / 256.0, 1.0 + 4.0 / 256.0),
            (FloatType::F32, 0.1, 0.1),
        ];
        for (float, value, expected) in table {
            let mut bytes = vec![0; float.bytes()];
            write_floats(float, &[value], &mut bytes).unwrap();
            let mut read = [0.0];
            read_floats(float, &bytes, &mut read).unwrap();
            assert_eq!((read[0], round(float, value)), (expected, expected));
        }
    }

    /// The last value that is storable, the next one, and what is never.
    #[test]
    fn what_is_beyond_the_range_is_refused() {
        for float in ALL {
            let first_beyond = f32::from_bits(beyond(float));
            let last = f32::from_bits(beyond(float) - 1);
            let mut bytes = vec![0; 2 * float.bytes()];
            assert_eq!(write_floats(float, &[-last, last], &mut bytes), Ok(()));
            assert!(round(float, last).is_finite() && round(float, first_beyond).is_infinite());
            for value in [first_beyond, -first_beyond, f32::INFINITY] {
                let refused = Err(Error::Unstorable { index: 1, value, float });
                assert_eq!(write_floats(float, &[0.0, value], &mut bytes), refused);
            }
            let nan = write_floats(float, &[0.0, f32::NAN], &mut bytes).unwrap_err();
            assert!(matches!(nan, Error::Unstorable { index: 1, .. }));
            assert!(matches!(write_floats(float, &[0.0], &mut bytes), Err(Error::Length { .. })));
            assert!(matches!(read_floats(float, &bytes, &mut [0.0; 3]), Err(Error::Length { .. })));
        }
    }
}
