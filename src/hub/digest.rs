//! The hashes that the hub knows its files by: sha256 of large files, git's blob hash of small ones.

use std::fmt;

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// A file's hash, which is also its name in the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// Of the contents; large files.
    Sha256([u8; 32]),
    /// Of git's blob, a header and the contents; small files.
    GitBlob([u8; 20]),
}

impl Digest {
    /// Reads 64 or 40 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        match text.len() {
            64 => bytes_of_hex(text).map(Digest::Sha256),
            40 => bytes_of_hex(text).map(Digest::GitBlob),
            _ => None,
        }
    }

    /// What to call it.
    pub fn name(&self) -> &'static str {
        match self {
            Digest::Sha256(_) => "sha256",
            Digest::GitBlob(_) => "git blob hash",
        }
    }

    /// Begins to hash a file of `size` bytes in the way of this digest.
    pub(super) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Digest::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Digest::GitBlob(_) => Hasher::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }
}

fn bytes_of_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(bytes)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: &[u8] = match self {
            Digest::Sha256(bytes) => bytes,
            Digest::GitBlob(bytes) => bytes,
        };
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self}", self.name())
    }
}

/// Hashes a file as it arrives.
#[derive(Debug, Clone)]
pub(super) enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Hasher {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::GitBlob(hasher) => hasher.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        match self {
            Hasher::Sha256(hasher) => Digest::Sha256(hasher.finalize().into()),
            Hasher::GitBlob(hasher) => Digest::GitBlob(hasher.finalize().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(like: &str, contents: &[u8]) -> String {
        let mut hasher = Digest::parse(like).unwrap().hasher(contents.len() as u64);
        contents.chunks(3).for_each(|part| hasher.update(part));
        hasher.finish().to_string()
    }

    /// What `sha256sum` and `git hash-object` say.
    #[test]
    fn hashes_are_those_of_other_tools() {
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        assert_eq!(hash(sha256, b"hello\n"), sha256);
        let blob = "ce013625030ba8dba906f756967f9e9ca394464a";
        assert_eq!(hash(blob, b"hello\n"), blob);
        assert_eq!(hash(blob, b""), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    }

    #[test]
    fn only_hexadecimal_digits_of_the_right_number_are_hashes() {
        for text in ["", "ce01", &"g".repeat(40), &"é".repeat(20), &"0".repeat(63), &"../".repeat(14)[..40]] {
            assert_eq!(Digest::parse(text), None, "{text}");
        }
        assert_eq!(Digest::parse(&"Ab".repeat(20)).unwrap().to_string(), "ab".repeat(20));
    }
}
