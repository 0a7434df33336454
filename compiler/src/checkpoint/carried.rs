//! Files that go from the source into the model directory unchanged.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use serde::Serialize;

use super::model_dir::CarriedFile;
use crate::error::{Error, Result};

/// All names that are carried, if the source has them.
pub const NAMES: [&str; 10] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
];

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 16;

/// The files in `from` that would be carried, without hashes.
pub(crate) fn present(from: &Path) -> Vec<CarriedFile> {
    let there = NAMES.iter().filter(|name| from.join(name).is_file());
    there.map(|name| CarriedFile { name: (*name).to_owned(), blake3: String::new() }).collect()
}

/// Bytes of all files in `from` that are carried.
pub(crate) fn total_bytes(from: &Path) -> u64 {
    NAMES.iter().filter_map(|name| std::fs::metadata(from.join(name)).ok()).map(|metadata| metadata.len()).sum()
}

/// Copies all carried files that `from` has to `to`.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<Vec<CarriedFile>> {
    let present = NAMES.iter().filter(|name| from.join(name).is_file());
    present.map(|name| copy_one(from, to, name)).collect()
}

/// Copies one carried file that `from` has to `to`.
pub(crate) fn copy_one(from: &Path, to: &Path, name: &str) -> Result<CarriedFile> {
    Ok(CarriedFile { name: name.to_owned(), blake3: copy_file(from, to, name)? })
}

/// Writes a carried file that the source does not have as such.
pub(crate) fn write(to: &Path, name: &str, text: &str) -> Result<CarriedFile> {
    let path = to.join(name);
    std::fs::write(&path, text).map_err(Error::io("write", &path))?;
    Ok(CarriedFile { name: name.to_owned(), blake3: blake3::hash(text.as_bytes()).to_hex().to_string() })
}

/// Writes a carried JSON file that the source does not have as such, without holding its text.
pub(crate) fn write_json(to: &Path, name: &str, content: &impl Serialize) -> Result<CarriedFile> {
    let path = to.join(name);
    let file = File::create(&path).map_err(Error::io("write", &path))?;
    let mut writer = Hashing { inner: BufWriter::new(file), hasher: blake3::Hasher::new() };
    serde_json::to_writer(&mut writer, content).map_err(|error| Error::io("write", &path)(error.into()))?;
    writer.flush().map_err(Error::io("write", &path))?;
    Ok(CarriedFile { name: name.to_owned(), blake3: writer.hasher.finalize().to_hex().to_string() })
}

/// Hashes what is written.
struct Hashing {
    inner: BufWriter<File>,
    hasher: blake3::Hasher,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let length = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Copies one file in pieces, since tokenizers can be tens of megabytes; returns the hash of its content.
fn copy_file(from: &Path, to: &Path, name: &str) -> Result<String> {
    let (source, target) = (from.join(name), to.join(name));
    let mut reader = File::open(&source).map_err(Error::io("read", &source))?;
    let mut writer = File::create(&target).map_err(Error::io("write", &target))?;
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; PIECE];
    loop {
        let length = reader.read(&mut piece).map_err(Error::io("read", &source))?;
        if length == 0 {
            return Ok(hasher.finalize().to_hex().to_string());
        }
        hasher.update(&piece[..length]);
        writer.write_all(&piece[..length]).map_err(Error::io("write", &target))?;
    }
}
