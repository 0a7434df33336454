//! Numbers of bytes, for people.

use std::fmt;
use std::str::FromStr;

/// Displays a number of bytes in the unit that leaves few digits: `17 B`, `1.5 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| self.0 >> shift > 0) {
            Some((shift, unit)) => write!(f, "{:.1} {unit}", self.0 as f64 / (1_u64 << shift) as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

/// A text that is no number of bytes.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no size: expected a number with KiB, MiB, GiB, kB, MB, GB or nothing behind it, like 1.5GiB")]
pub struct ParseSizeError(String);

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let units = [
            ("KiB", 1024.0),
            ("MiB", 1048576.0),
            ("GiB", 1073741824.0),
            ("kB", 1e3),
            ("KB", 1e3),
            ("MB", 1e6),
            ("GB", 1e9),
            ("B", 1.0),
            ("", 1.0),
        ];
        let (number, unit) =
            units.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes))).unwrap_or((text, 1.0));
        let bytes = number.trim().parse::<f64>().ok().map(|number| number * unit);
        // Numbers beyond 2^53 are no memory sizes, and not all of them are exact.
        let bytes = bytes.filter(|bytes| (1.0..=9007199254740992.0).contains(bytes));
        bytes.map(|bytes| Size(bytes as u64)).ok_or_else(|| ParseSizeError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let table = [
            ("2GiB", 2 << 30),
            ("1.5 GB", 1_500_000_000),
            ("800MiB", 800 << 20),
            ("17", 17),
            ("0.5KiB", 512),
            ("3B", 3),
        ];
        for (text, bytes) in table {
            assert_eq!(text.parse::<Size>().unwrap(), Size(bytes), "{text}");
        }
        for text in ["", "GiB", "2GiBs", "-1MiB", "0", "nan", "inf", "1e300GB", "2 G"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn units() {
        let table = [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB"), (5 << 29, "2.5 GiB")];
        for (bytes, text) in table {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
