//! The header: parsed into entries that are proven to describe the file, or refused.
//!
//! Nothing is allocated by what a number in the header says: entries grow with the text that was really there, and a
//! shape has at most [`MAX_RANK`] dimensions.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::element::Element;

/// Longest header that is read, as in the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Most dimensions of a tensor.
const MAX_RANK: usize = 8;

/// One tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Element type.
    pub element: Element,
    /// Element type as the file spells it.
    pub dtype: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Bytes in the file, counted from its beginning.
    pub bytes: Range<usize>,
}

/// All tensors of a file, ordered by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    entries: Vec<(String, Entry)>,
}

impl Header {
    /// Reads the header of a whole file and proves that every entry lies within it: offsets are in order, without
    /// gap or overlap, and as long as shape and element type say. Otherwise says which rule was broken.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let Some((length, rest)) = file.split_first_chunk::<8>() else {
            return Err(format!("the file has {} bytes, not even the 8 of the header's length", file.len()));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER_BYTES {
            return Err(format!("it claims to be {length} bytes long, the limit is {MAX_HEADER_BYTES}"));
        }
        if length > rest.len() as u64 {
            return Err(format!("it claims to be {length} bytes long, the file has {} after its length", rest.len()));
        }
        let (text, data) = rest.split_at(length as usize);
        let raw: RawHeader = serde_json::from_slice(text).map_err(|error| format!("not valid JSON: {error}"))?;

        let start = 8 + text.len();
        let mut entries = Vec::with_capacity(raw.0.len());
        for (name, tensor) in raw.0 {
            let entry = check(&tensor, start, data.len()).map_err(|reason| format!("tensor `{name}` {reason}"))?;
            entries.push((name, entry));
        }
        check_contiguous(&mut entries, start, file.len())?;
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(format!("tensor `{}` appears twice", pair[0].0));
        }
        Ok(Header { entries })
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<(&str, &Entry)> {
        let index = self.entries.binary_search_by(|(key, _)| key.as_str().cmp(name)).ok()?;
        let (name, entry) = &self.entries[index];
        Some((name, entry))
    }

    /// All tensors, ordered by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }
}

fn check(tensor: &RawTensor, start: usize, data: usize) -> Result<Entry, String> {
    let [begin, end] = tensor.data_offsets;
    if begin > end || end > data as u64 {
        return Err(format!("has the offsets [{begin}, {end}], but {data} bytes follow the header"));
    }
    let shape: Option<Vec<usize>> = tensor.shape.0.iter().map(|&n| usize::try_from(n).ok()).collect();
    let shape = shape.ok_or_else(|| format!("has the shape {:?}, larger than memory", tensor.shape.0))?;
    let element = Element::from_name(&tensor.dtype);
    let size = element.bytes();
    let needed = shape.iter().try_fold(size.unwrap_or(1), |product, &n| product.checked_mul(n));
    let needed = needed.ok_or_else(|| format!("has the shape {shape:?}, whose size overflows"))?;
    if size.is_some() && needed as u64 != end - begin {
        return Err(format!("has {} bytes, but {} {shape:?} takes {needed}", end - begin, tensor.dtype));
    }
    let bytes = start + begin as usize..start + end as usize;
    Ok(Entry { element, dtype: tensor.dtype.clone(), shape, bytes })
}

/// Orders entries by place and checks that they fill the file after the header.
fn check_contiguous(entries: &mut [(String, Entry)], start: usize, file: usize) -> Result<(), String> {
    entries.sort_by_key(|(_, entry)| (entry.bytes.start, entry.bytes.end));
    let mut position = start;
    for (name, entry) in entries.iter() {
        let begin = entry.bytes.start;
        if begin != position {
            let what = if begin < position { "overlaps the tensor before it" } else { "leaves a gap before it" };
            return Err(format!(
                "tensor `{name}` {what}: it begins at {}, expected {}",
                begin - start,
                position - start
            ));
        }
        position = entry.bytes.end;
    }
    if position != file {
        return Err(format!("{} bytes after the last tensor belong to none", file - position));
    }
    Ok(())
}

struct RawHeader(Vec<(String, RawTensor)>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut tensors = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        tensors.push((name, map.next_value()?));
                    }
                }
                Ok(RawHeader(tensors))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_RANK} dimensions")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Shape, A::Error> {
                let mut shape = Vec::new();
                while let Some(n) = sequence.next_element()? {
                    if shape.len() == MAX_RANK {
                        return Err(A::Error::invalid_length(MAX_RANK + 1, &self));
                    }
                    shape.push(n);
                }
                Ok(Shape(shape))
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}
