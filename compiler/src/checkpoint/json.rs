//! Reading JSON files of bounded size.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Largest configuration or index that is read, in bytes; the indices of the largest published models take 100 kB.
pub(crate) const MAX_BYTES: u64 = 64 << 20;

/// Parses the file, which may have at most `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Value> {
    let bytes = read_bytes(path, limit)?;
    serde_json::from_slice(&bytes).map_err(|error| Error::json(path, format!("not valid JSON: {error}")))
}

/// The bytes of a file that may have at most `limit` of them.
pub(crate) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if length > limit {
        return Err(Error::json(path, format!("has {length} bytes, the limit is {limit}")));
    }
    std::fs::read(path).map_err(Error::io("read", path))
}

/// Parses a file of bounded size.
pub(crate) fn read_config(path: &Path) -> Result<Value> {
    read(path, MAX_BYTES)
}

/// Parses a file whose outermost value is an object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    match read(path, MAX_BYTES)? {
        Value::Object(map) => Ok(map),
        _ => Err(Error::json(path, "expected an object")),
    }
}
