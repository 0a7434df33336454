//! `tensor-cache.json` (`ndarray-cache.json` until 2025) and its shards: names, shapes, and where the bytes are.
//!
//! Written by TVM's `dump_tensor_cache` (`python/tvm/contrib/tvmjs.py`). Shards hold tensors one after the other, without any
//! alignment. Where the format is `f32-to-bf16`, values of float32 are stored as bf16; other types are as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dwindle_schemes::FloatType;
use serde_json::{Map, Value};

use crate::checkpoint::json;
use crate::checkpoint::mapping::Mapping;
use crate::checkpoint::source::is_plain_name;
use crate::error::{Error, Result};

/// Names of the index, the newer one first.
pub const NAMES: [&str; 2] = ["tensor-cache.json", "ndarray-cache.json"];

/// Contradictions that are told of one index.
const MAX_PROBLEMS: usize = 20;

/// How the values of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// `uint32`.
    Words,
    /// Floats as they are.
    Float(FloatType),
    /// `float32`, of which the upper halves are stored.
    Halved,
}

impl Payload {
    fn parse(dtype: &str, format: &str) -> Option<Payload> {
        Some(match (dtype, format) {
            ("uint32", "raw" | "f32-to-bf16") => Payload::Words,
            ("float16", "raw" | "f32-to-bf16") => Payload::Float(FloatType::F16),
            ("bfloat16", "raw" | "f32-to-bf16") => Payload::Float(FloatType::Bf16),
            ("float32", "raw") => Payload::Float(FloatType::F32),
            ("float32", "f32-to-bf16") => Payload::Halved,
            _ => return None,
        })
    }

    /// Bytes of a value.
    pub const fn bytes(self) -> usize {
        match self {
            Payload::Words => 4,
            Payload::Float(float) => float.bytes(),
            Payload::Halved => 2,
        }
    }

    /// The type of the stored floats.
    pub const fn float(self) -> Option<FloatType> {
        match self {
            Payload::Words => None,
            Payload::Float(float) => Some(float),
            Payload::Halved => Some(FloatType::Bf16),
        }
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Words => f.write_str("uint32"),
            Payload::Float(float) => float.fmt(f),
            Payload::Halved => f.write_str("f32"),
        }
    }
}

/// A stored tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Dimensions, outermost first; row-major.
    pub shape: Vec<usize>,
    /// Of its values.
    pub payload: Payload,
    shard: usize,
    place: Range<usize>,
}

/// A file of tensors.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    mapping: Mapping,
    md5: Option<String>,
}

/// An index whose places are all within its shards.
#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    shards: Vec<Shard>,
    records: BTreeMap<String, Record>,
}

impl Index {
    /// Where the index of a directory is, if it has one.
    pub fn find(directory: &Path) -> Option<PathBuf> {
        NAMES.iter().map(|name| directory.join(name)).find(|path| path.is_file())
    }

    /// Reads the index at `path` and maps its shards.
    ///
    /// # Errors
    /// A shard is missing, or the index contradicts itself or the shards' lengths.
    pub fn open(path: &Path) -> Result<Self> {
        let index = json::read_object(path)?;
        let Some(Value::Array(entries)) = index.get("records") else {
            return Err(Error::json(path, "has no list `records`"));
        };
        let directory = path.parent().unwrap_or(Path::new(""));
        let listed: Result<Vec<_>> =
            entries.iter().enumerate().map(|(at, entry)| Listed::read(path, at, entry)).collect();
        let listed = listed?;
        let missing: Vec<_> =
            listed.iter().filter(|shard| !directory.join(shard.name).is_file()).map(|s| s.name.to_owned()).collect();
        if !missing.is_empty() {
            return Err(Error::MissingShards { path: path.to_owned(), missing, total: listed.len() });
        }
        let mut problems = Vec::new();
        let mut index = Index { path: path.to_owned(), shards: Vec::new(), records: BTreeMap::new() };
        let mut seen = BTreeSet::new();
        for shard in &listed {
            if !seen.insert(shard.name) {
                problems.push(format!("{} is listed twice", shard.name));
            }
            index.add(directory, shard, &mut problems)?;
        }
        if problems.len() > MAX_PROBLEMS {
            let more = problems.len() - MAX_PROBLEMS;
            problems.truncate(MAX_PROBLEMS);
            problems.push(format!("and {more} more"));
        }
        match problems.is_empty() {
            true => Ok(index),
            false => Err(Error::ShardIndex { path: path.to_owned(), problems }),
        }
    }

    /// Maps a shard and takes in its records.
    fn add(&mut self, directory: &Path, listed: &Listed<'_>, problems: &mut Vec<String>) -> Result<()> {
        let (name, path) = (listed.name, directory.join(listed.name));
        let length = std::fs::metadata(&path).map_err(Error::io("read", &path))?.len();
        if length != listed.bytes {
            problems.push(format!("{name} has {length} bytes, not {}", listed.bytes));
            return Ok(());
        }
        let mut places: Vec<(Range<usize>, &str)> = Vec::new();
        for (at, record) in listed.records.iter().enumerate() {
            let (tensor, record) = read_record(&self.path, &format!("{name}, record {at}"), record)?;
            let record = match record.place(self.shards.len(), length) {
                Ok(record) => record,
                Err(problem) => {
                    problems.push(format!("`{tensor}` {problem}"));
                    continue;
                }
            };
            places.push((record.place.clone(), tensor));
            if self.records.insert(tensor.to_owned(), record).is_some() {
                problems.push(format!("`{tensor}` is listed twice"));
            }
        }
        places.sort_by_key(|(place, _)| (place.start, place.end));
        for pair in places.windows(2) {
            if pair[1].0.start < pair[0].0.end {
                problems.push(format!("`{}` and `{}` overlap in {name}", pair[0].1, pair[1].1));
            }
        }
        let mapping = Mapping::open(&path)?;
        self.shards.push(Shard { path, mapping, md5: listed.md5.map(str::to_owned) });
        Ok(())
    }

    /// The index itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensors, by their name in the index.
    pub fn records(&self) -> &BTreeMap<String, Record> {
        &self.records
    }

    /// The bytes of a tensor; not aligned to anything.
    pub fn bytes(&self, record: &Record) -> &[u8] {
        &self.shards[record.shard].mapping[record.place.clone()]
    }

    /// Lets the kernel drop the pages of a part of a tensor's bytes.
    pub fn release(&self, record: &Record, part: Range<usize>) {
        let start = record.place.start;
        self.shards[record.shard].mapping.release(start + part.start..start + part.end);
    }

    /// The shards, in the order of the index, and their MD5 sums as they were published.
    pub fn shards(&self) -> impl Iterator<Item = (&Path, Option<&str>)> {
        self.shards.iter().map(|shard| (shard.path.as_path(), shard.md5.as_deref()))
    }
}

/// A shard as the index describes it.
struct Listed<'i> {
    name: &'i str,
    bytes: u64,
    md5: Option<&'i str>,
    records: &'i [Value],
}

impl<'i> Listed<'i> {
    fn read(path: &Path, at: usize, entry: &'i Value) -> Result<Self> {
        let wrong = |what: &str| Error::json(path, format!("records[{at}]: {what}"));
        let entry = entry.as_object().ok_or_else(|| wrong("expected an object"))?;
        let name = entry.get("dataPath").and_then(Value::as_str).filter(|name| is_plain_name(name));
        let name = name.ok_or_else(|| wrong("`dataPath` names no file of this directory"))?;
        if entry.get("format").is_some_and(|format| format != "raw-shard") {
            return Err(wrong(&format!("the format of {name} is not raw-shard")));
        }
        let bytes = entry.get("nbytes").and_then(Value::as_u64);
        let bytes = bytes.ok_or_else(|| wrong(&format!("`nbytes` of {name} is no number of bytes")))?;
        let md5 = match entry.get("md5sum") {
            None | Some(Value::Null) => None,
            Some(Value::String(sum)) if sum.len() == 32 && sum.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Some(sum.as_str())
            }
            Some(_) => return Err(wrong(&format!("`md5sum` of {name} is no MD5 sum"))),
        };
        let Some(Value::Array(records)) = entry.get("records") else {
            return Err(wrong(&format!("{name} has no list `records`")));
        };
        Ok(Listed { name, bytes, md5, records })
    }
}

/// A tensor as the index describes it.
struct Unplaced {
    shape: Vec<usize>,
    payload: Payload,
    offset: u64,
    bytes: u64,
}

impl Unplaced {
    /// The record, if shape, length and place fit each other and a shard of `length` bytes.
    fn place(self, shard: usize, length: u64) -> Result<Record, String> {
        let elements = self.shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n));
        let bytes = elements.and_then(|n| n.checked_mul(self.payload.bytes()));
        if bytes.map(|n| n as u64) != Some(self.bytes) {
            return Err(format!("of shape {:?} does not take {} bytes", self.shape, self.bytes));
        }
        let end = self.offset.checked_add(self.bytes).filter(|end| *end <= length);
        let Some(end) = end else {
            return Err(format!("ends beyond its shard: {} bytes at {} of {length}", self.bytes, self.offset));
        };
        // The shard is mapped, so its length is one of this machine's addresses.
        Ok(Record { shape: self.shape, payload: self.payload, shard, place: self.offset as usize..end as usize })
    }
}

fn read_record<'i>(path: &Path, place: &str, record: &'i Value) -> Result<(&'i str, Unplaced)> {
    let wrong = |what: &str| Error::json(path, format!("{place}: {what}"));
    let text = |map: &'i Map<String, Value>, key: &str| map.get(key).and_then(Value::as_str);
    let map = record.as_object().ok_or_else(|| wrong("expected an object"))?;
    let name = text(map, "name").ok_or_else(|| wrong("has no `name`"))?;
    let number = |key: &str| {
        let number = map.get(key).and_then(Value::as_u64);
        number.ok_or_else(|| wrong(&format!("`{key}` of `{name}` is no number of bytes")))
    };
    let size = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
    let shape = map.get("shape").and_then(Value::as_array).and_then(|sizes| sizes.iter().map(size).collect());
    let shape = shape.ok_or_else(|| wrong(&format!("`shape` of `{name}` is no list of sizes")))?;
    let (dtype, format) = (text(map, "dtype").unwrap_or_default(), text(map, "format").unwrap_or("raw"));
    let payload = Payload::parse(dtype, format).ok_or_else(|| Error::UnsupportedDtype {
        tensor: name.to_owned(),
        dtype: format!("{dtype} ({format})"),
        expected: "uint32, float16, bfloat16 or float32, raw or f32-to-bf16",
    })?;
    let (offset, bytes) = (number("byteOffset")?, number("nbytes")?);
    Ok((name, Unplaced { shape, payload, offset, bytes }))
}
