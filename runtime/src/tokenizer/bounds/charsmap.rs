//! SentencePiece's table of replaced characters, checked as the crate that reads it will walk it.
//!
//! The format (SentencePiece, `normalizer.cc`; darts-clone): the number of bytes of a double array as a little-endian
//! `u32`, the array's units of 32 bits, then the replacements, each ended by a zero byte.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The most units of the array; published ones have some ten thousand.
const MOST_UNITS: usize = 1 << 20;

/// How many times longer the table can make a text.
///
/// # Errors
/// What is wrong with it.
pub(super) fn growth(table: &str) -> Result<f64, String> {
    let bytes = STANDARD.decode(table).map_err(|e| format!("the table of its Precompiled normalizer: {e}"))?;
    let broken = |why: &str| format!("the table of its Precompiled normalizer is damaged: {why}");
    let (size, rest) = bytes.split_first_chunk::<4>().ok_or_else(|| broken("it is too short"))?;
    let size = u32::from_le_bytes(*size) as usize / 4 * 4;
    if size > rest.len() {
        return Err(broken(&format!("it should have {size} bytes and has {}", rest.len())));
    }
    let (array, texts) = rest.split_at(size);
    let units: Vec<u32> = array.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
    if units.len() > MOST_UNITS {
        return Err(broken(&format!("it has {} units; at most {MOST_UNITS} are supported", units.len())));
    }
    let texts = std::str::from_utf8(texts).map_err(|_| broken("its texts are not UTF-8"))?;
    Walk { units: &units, texts }.growth().ok_or_else(|| broken("it points outside of itself"))
}

struct Walk<'a> {
    units: &'a [u32],
    texts: &'a str,
}

impl Walk<'_> {
    /// Visits every state that some text leads to; `None` if one leads out of the array or the texts.
    fn growth(&self) -> Option<f64> {
        let mut growth = 1.0_f64;
        let mut seen = vec![false; self.units.len()];
        // States, with the length of the shortest key that leads there.
        let mut open = std::collections::VecDeque::from([(offset(*self.units.first()?), 0_usize)]);
        while let Some((state, length)) = open.pop_front() {
            if std::mem::replace(seen.get_mut(state)?, true) {
                continue;
            }
            for letter in 1..=255_usize {
                let unit = *self.units.get(state ^ letter)?;
                // A label with the highest bit is no letter.
                if unit & (1 << 31 | 0xff) != letter as u32 {
                    continue;
                }
                let next = state ^ letter ^ offset(unit);
                if unit >> 8 & 1 == 1 {
                    let value = (*self.units.get(next)? & !(1 << 31)) as usize;
                    let text = self.texts.get(value..)?;
                    let text = text.find('\0').map_or(text, |end| &text[..end]);
                    growth = growth.max(text.len() as f64 / (length + 1) as f64);
                }
                open.push_back((next, length + 1));
            }
        }
        Some(growth)
    }
}

/// How far a unit's children are away.
fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & 1 << 9) >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(units: &[u32], texts: &[u8]) -> String {
        let mut bytes = (units.len() as u32 * 4).to_le_bytes().to_vec();
        bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
        bytes.extend(texts);
        STANDARD.encode(bytes)
    }

    /// A table that makes "bc" of "a".
    fn small() -> Vec<u32> {
        let mut units = vec![1 << 31; 512];
        units[0] = 256 << 10;
        // The letter's children begin where its value is.
        units[256 ^ usize::from(b'a')] = u32::from(b'a') | 1 << 8 | (usize::from(b'a') as u32) << 10;
        units[256] = 1 << 31 | 1;
        units
    }

    #[test]
    fn growth_is_that_of_the_longest_replacement() {
        assert_eq!(growth(&table(&small(), b"xbc\0")), Ok(2.0));
        let mut units = vec![1 << 31; 256];
        units[0] = 0;
        assert_eq!(growth(&table(&units, b"")), Ok(1.0));
    }

    #[test]
    fn what_leads_outside_is_refused() {
        let mut far = small();
        far[0] = ((1 << 22) - 1) << 10;
        let mut short = small();
        short.truncate(300);
        let mut value = small();
        value[256] = 5000;
        let mut middle = small();
        middle[256] = 1;
        for (units, texts) in
            [(&far, &b"xbc\0"[..]), (&short, b"xbc\0"), (&value, b"xbc\0"), (&middle, "é\0".as_bytes())]
        {
            assert!(growth(&table(units, texts)).is_err());
        }
        for text in ["", "AA==", "AAAA////", "no base64", "AAAAAA==", "/////w=="] {
            assert!(growth(text).is_err(), "{text}");
        }
        assert!(growth(&table(&small(), b"\xff\xff")).is_err());
        assert!(growth(&table(&vec![0; MOST_UNITS + 1], b"")).is_err());
    }
}
