//! The header of a GGUF file: metadata and tensors, proven to lie within the file, or refused.
//!
//! Little-endian, versions 2 and 3 (ggml's `docs/gguf.md`):
//!
//! ```text
//! "GGUF" version:u32 tensors:u64 entries:u64
//! entry:  key:string kind:u32 value            string: length:u64 bytes      array: kind:u32 count:u64 values
//! tensor: name:string rank:u32 dimensions:u64… type:u32 offset:u64           dimensions innermost first
//! padding to `general.alignment`, then the tensors' data, at aligned offsets counted from there
//! ```
//!
//! Nothing is allocated by what a count says: lists grow with what was really read, and have at most [`MAX_ITEMS`] items.

use std::collections::BTreeMap;
use std::ops::Range;

use super::tensor_type::TensorType;

/// Versions that are read; 1 had counts of 32 bits, and no published files.
const VERSIONS: [u32; 2] = [2, 3];

/// Most tensors, and most metadata entries; the largest published models have some thousands.
const MAX_ITEMS: u64 = 1 << 16;

/// Most dimensions of a tensor, as in ggml.
const MAX_RANK: u32 = 4;

/// Alignment of tensors where the metadata does not tell.
const ALIGNMENT: u64 = 32;

/// Arrays of arrays of …: deepest that is read.
const MAX_DEPTH: u32 = 4;

/// What to do about files that are not what was written.
const AGAIN: &str = "download the file again";

/// The type of a value in the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    /// All of them, at the place of their number.
    pub const ALL: [Kind; 13] = [
        Kind::U8,
        Kind::I8,
        Kind::U16,
        Kind::I16,
        Kind::U32,
        Kind::I32,
        Kind::F32,
        Kind::Bool,
        Kind::String,
        Kind::Array,
        Kind::U64,
        Kind::I64,
        Kind::F64,
    ];

    /// Bytes of a value; `None` where they vary.
    pub const fn bytes(self) -> Option<usize> {
        match self {
            Kind::U8 | Kind::I8 | Kind::Bool => Some(1),
            Kind::U16 | Kind::I16 => Some(2),
            Kind::U32 | Kind::I32 | Kind::F32 => Some(4),
            Kind::U64 | Kind::I64 | Kind::F64 => Some(8),
            Kind::String | Kind::Array => None,
        }
    }
}

/// A value of the metadata: its type and where it is. Content is read by [`Metadata`](super::metadata::Metadata).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number or a truth value.
    Scalar(Kind, Range<usize>),
    /// A text without its length; any bytes.
    Text(Range<usize>),
    /// Values of one type, one after the other; strings with their lengths.
    Array(Kind, u64, Range<usize>),
}

/// A tensor of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// How its values are stored.
    pub kind: TensorType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Its data, counted from the beginning of the file.
    pub bytes: Range<usize>,
}

/// All that stands before the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Values by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Header {
    /// Reads the header of a whole file; otherwise says which rule was broken, and what to do.
    pub fn parse(file: &[u8]) -> Result<Self, String> {
        let mut cursor = Cursor { file, at: 0 };
        cursor.begin()?;
        let (tensors, entries) = (cursor.u64("the number of tensors")?, cursor.u64("the number of metadata entries")?);
        // The least that a tensor and an entry take: counts beyond that are lies or damage, told before anything is read.
        for (what, count, least) in [("tensors", tensors, 8 + 4 + 4 + 8), ("metadata entries", entries, 8 + 4 + 1)] {
            cursor.check_count(what, count, least)?;
            if count > MAX_ITEMS {
                return Err(format!("claims {count} {what}, the most are {MAX_ITEMS}; {AGAIN}"));
            }
        }
        let mut metadata = BTreeMap::new();
        for _ in 0..entries {
            let (key, value) = cursor.entry()?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(format!("metadata key `{key}` appears twice; {AGAIN}"));
            }
        }
        let alignment = alignment(file, &metadata)?;
        let mut list = Vec::new();
        for _ in 0..tensors {
            list.push(cursor.tensor(alignment)?);
        }
        let start = (cursor.at as u64).next_multiple_of(alignment);
        Ok(Header { metadata, tensors: place(list, start, file.len() as u64)? })
    }
}

/// A tensor before it is known where the data begins.
struct Described {
    name: String,
    kind: TensorType,
    shape: Vec<usize>,
    offset: u64,
    length: u64,
}

/// `general.alignment`, a power of two.
fn alignment(file: &[u8], metadata: &BTreeMap<String, Value>) -> Result<u64, String> {
    let bytes = match metadata.get("general.alignment") {
        None => return Ok(ALIGNMENT),
        Some(Value::Scalar(Kind::U32, bytes)) => &file[bytes.clone()],
        Some(_) => return Err(format!("metadata key `general.alignment` is no u32; {AGAIN}")),
    };
    let alignment = bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
    match alignment.is_power_of_two() && (8..=1 << 20).contains(&alignment) {
        true => Ok(alignment),
        false => {
            Err(format!("`general.alignment` is {alignment}, which is no power of two from 8 to 1048576; {AGAIN}"))
        }
    }
}

/// Gives tensors their place in the file and checks that they share no byte.
fn place(list: Vec<Described>, start: u64, file: u64) -> Result<BTreeMap<String, Tensor>, String> {
    let mut tensors = BTreeMap::new();
    let mut places = Vec::new();
    for Described { name, kind, shape, offset, length } in list {
        let begin = start.checked_add(offset);
        let end = begin.and_then(|begin| begin.checked_add(length)).filter(|end| *end <= file);
        let (Some(begin), Some(end)) = (begin, end) else {
            return Err(format!(
                "tensor `{name}` has {length} bytes at offset {offset}, but the file has {} after its header: it is \
                 incomplete; {AGAIN}",
                file.saturating_sub(start)
            ));
        };
        if begin < end {
            places.push((begin, end, name.clone()));
        }
        let tensor = Tensor { kind, shape, bytes: begin as usize..end as usize };
        if tensors.insert(name.clone(), tensor).is_some() {
            return Err(format!("tensor `{name}` appears twice; {AGAIN}"));
        }
    }
    places.sort();
    match places.windows(2).find(|pair| pair[1].0 < pair[0].1) {
        Some(pair) => Err(format!("tensor `{}` overlaps `{}`; {AGAIN}", pair[1].2, pair[0].2)),
        None => Ok(tensors),
    }
}

/// A place in the file, which moves on with what is read.
struct Cursor<'f> {
    file: &'f [u8],
    at: usize,
}

impl<'f> Cursor<'f> {
    /// Magic and version.
    fn begin(&mut self) -> Result<(), String> {
        if self.file.get(..4) != Some(b"GGUF") {
            let begin = String::from_utf8_lossy(&self.file[..self.file.len().min(4)]).into_owned();
            return Err(format!("not a GGUF file: it begins with {begin:?}; {AGAIN}"));
        }
        self.at = 4;
        let version = self.u32("the version")?;
        if VERSIONS.contains(&version) {
            return Ok(());
        }
        if VERSIONS.contains(&version.swap_bytes()) {
            return Err(
                "a big-endian GGUF file; convert it with gguf-py's gguf_convert_endian.py, or download a little-endian one"
                    .to_owned(),
            );
        }
        Err(format!("GGUF version {version}; versions 2 and 3 are read: make the file anew with a current llama.cpp"))
    }

    fn remaining(&self) -> u64 {
        (self.file.len() - self.at) as u64
    }

    /// Refuses a count of items that do not fit the rest of the file.
    fn check_count(&self, what: &str, count: u64, least: u64) -> Result<(), String> {
        match count.checked_mul(least).is_some_and(|bytes| bytes <= self.remaining()) {
            true => Ok(()),
            false => Err(format!(
                "claims {count} {what}, more than the {} bytes that follow can hold; {AGAIN}",
                self.remaining()
            )),
        }
    }

    fn take(&mut self, length: u64, what: &str) -> Result<Range<usize>, String> {
        if length > self.remaining() {
            return Err(format!(
                "{what} takes {length} bytes, the file has {} left: it is incomplete; {AGAIN}",
                self.remaining()
            ));
        }
        let begin = self.at;
        self.at += length as usize;
        Ok(begin..self.at)
    }

    fn u32(&mut self, what: &str) -> Result<u32, String> {
        let bytes = self.take(4, what)?;
        Ok(self.file[bytes].iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn u64(&mut self, what: &str) -> Result<u64, String> {
        let bytes = self.take(8, what)?;
        Ok(self.file[bytes].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn string(&mut self, what: &str) -> Result<Range<usize>, String> {
        let length = self.u64(what)?;
        self.take(length, what)
    }

    /// A key or a name.
    fn name(&mut self, what: &str) -> Result<String, String> {
        let bytes = self.string(what)?;
        let text = std::str::from_utf8(&self.file[bytes]).map_err(|_| format!("{what} is not UTF-8; {AGAIN}"))?;
        Ok(text.to_owned())
    }

    fn kind(&mut self, key: &str) -> Result<Kind, String> {
        let number = self.u32("the type of a value")?;
        let kind = Kind::ALL.get(number as usize).copied();
        kind.ok_or_else(|| format!("metadata key `{key}` has a value of type {number}, which is not known; {AGAIN}"))
    }

    fn entry(&mut self) -> Result<(String, Value), String> {
        let key = self.name("a metadata key")?;
        let what = format!("metadata key `{key}`");
        let kind = self.kind(&key)?;
        let value = match (kind, kind.bytes()) {
            (kind, Some(bytes)) => Value::Scalar(kind, self.take(bytes as u64, &what)?),
            (Kind::Array, _) => self.array(&key, &what, MAX_DEPTH)?,
            _ => Value::Text(self.string(&what)?),
        };
        Ok((key, value))
    }

    fn array(&mut self, key: &str, what: &str, depth: u32) -> Result<Value, String> {
        let kind = self.kind(key)?;
        let count = self.u64(what)?;
        let begin = self.at;
        let least = kind.bytes().unwrap_or(if kind == Kind::Array { 12 } else { 8 }) as u64;
        self.check_count(&format!("values of {what}"), count, least)?;
        match kind {
            Kind::String => {
                for _ in 0..count {
                    self.string(what)?;
                }
            }
            Kind::Array if depth == 0 => return Err(format!("{what} has arrays in arrays without end; {AGAIN}")),
            Kind::Array => {
                for _ in 0..count {
                    self.array(key, what, depth - 1)?;
                }
            }
            // Counts were checked against what is left.
            _ => self.at += (count * least) as usize,
        }
        Ok(Value::Array(kind, count, begin..self.at))
    }

    fn tensor(&mut self, alignment: u64) -> Result<Described, String> {
        let name = self.name("a tensor's name")?;
        let what = format!("the description of tensor `{name}`");
        let rank = self.u32(&what)?;
        if rank > MAX_RANK {
            return Err(format!("tensor `{name}` has {rank} dimensions, the most are {MAX_RANK}; {AGAIN}"));
        }
        let mut shape = Vec::new();
        for _ in 0..rank {
            shape.push(self.u64(&what)?);
        }
        shape.reverse();
        let number = self.u32(&what)?;
        let kind = TensorType::of(number).ok_or_else(|| {
            format!(
                "tensor `{name}` is of type {number}, which is not known: it is newer than this program, or damaged"
            )
        })?;
        let offset = self.u64(&what)?;
        if !offset.is_multiple_of(alignment) {
            return Err(format!("tensor `{name}` begins at {offset}, which is no multiple of {alignment}; {AGAIN}"));
        }
        let (length, sizes) = length(kind, &shape)
            .ok_or_else(|| format!("tensor `{name}` cannot have the shape {shape:?} as {}; {AGAIN}", kind.name()))?;
        Ok(Described { name, kind, shape: sizes, offset, length })
    }
}

/// Bytes of a tensor, and its shape in the machine's integers; `None` where a row does not consist of whole blocks or a number
/// overflows.
fn length(kind: TensorType, shape: &[u64]) -> Option<(u64, Vec<usize>)> {
    let columns = shape.last().copied().unwrap_or(1);
    let (values, bytes) = (kind.block_values(), kind.block_bytes());
    let rows = shape.iter().rev().skip(1).try_fold(1_u64, |product, n| product.checked_mul(*n))?;
    let row = columns.is_multiple_of(values).then(|| (columns / values).checked_mul(bytes))??;
    let sizes: Option<Vec<usize>> = shape.iter().map(|n| usize::try_from(*n).ok()).collect();
    // Elements times 64 bits must be countable, too: that is what formats are measured by.
    rows.checked_mul(columns)?.checked_mul(64)?;
    Some((rows.checked_mul(row)?, sizes?))
}
