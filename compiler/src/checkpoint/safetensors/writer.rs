//! Writing: the header first, then the tensors in any order and from any thread, each at its place.

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use tempfile::TempPath;

use super::element::Element;
use crate::error::{Error, Result};

/// Where each tensor of a file goes; depends on nothing but names, types and shapes.
///
/// Tensors with larger elements come first, then in the order of their names, so that every element is aligned.
#[derive(Clone, Debug)]
pub struct Layout {
    header: Vec<u8>,
    places: BTreeMap<String, Range<u64>>,
    total: u64,
}

impl Layout {
    /// Lays out tensors of known element types.
    pub fn new(tensors: &BTreeMap<String, (Element, Vec<usize>)>) -> Self {
        let mut order: Vec<_> = tensors.iter().collect();
        order.sort_by_key(|(_, (element, _))| std::cmp::Reverse(element.bytes()));

        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), json!({ "format": "pt" }));
        let mut places = BTreeMap::new();
        let mut position = 0;
        for (name, (element, shape)) in order {
            let size = element.bytes().unwrap_or(1) as u64 * shape.iter().map(|&n| n as u64).product::<u64>();
            let entry = json!({
                "dtype": element.name(), "shape": shape, "data_offsets": [position, position + size],
            });
            header.insert(name.clone(), entry);
            places.insert(name.clone(), position..position + size);
            position += size;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let start = 8 + text.len() as u64;
        for place in places.values_mut() {
            *place = start + place.start..start + place.end;
        }
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.extend(text);
        Layout { header, places, total: start + position }
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.total
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.total - self.header.len() as u64
    }
}

/// A safetensors file that is being written.
#[derive(Debug)]
pub struct TensorWriter {
    file: File,
    temporary: Option<TempPath>,
    path: PathBuf,
    layout: Layout,
    missing: AtomicU64,
}

impl TensorWriter {
    /// Begins the file under another name in the directory of `path`. Dropping it without [`finish`](Self::finish) leaves
    /// nothing behind.
    pub fn create(path: &Path, layout: Layout) -> Result<Self> {
        let directory = path.parent().unwrap_or(Path::new(""));
        let mut builder = tempfile::Builder::new();
        builder.prefix(".partial-").suffix(".safetensors");
        if let Some(permissions) = ordinary_file() {
            builder.permissions(permissions);
        }
        let (file, temporary) = builder.tempfile_in(directory).map_err(Error::io("write in", directory))?.into_parts();
        let writer = Self::over(file, Some(temporary), path, layout);
        writer.begin()?;
        Ok(writer)
    }

    /// Begins the file at `path`, in a directory that nobody reads before it is complete; or continues it, if a file of the same
    /// layout is there. Tells whether it was begun. What was written before counts as missing all the same: see
    /// [`assume_written`](Self::assume_written).
    pub(crate) fn open(path: &Path, layout: Layout) -> Result<(Self, bool)> {
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let file = opened.map_err(Error::io("write", path))?;
        let length = file.metadata().map_err(Error::io("read", path))?.len();
        let writer = Self::over(file, None, path, layout);
        let mut header = vec![0; writer.layout.header.len()];
        let same = length == writer.layout.total && writer.read_at(&mut header, 0).is_ok();
        let fresh = !same || header != writer.layout.header;
        if fresh {
            writer.begin()?;
        }
        Ok((writer, fresh))
    }

    fn begin(&self) -> Result<()> {
        // What was there goes first, so that the file holds nothing but zeros and the header.
        let resized = self.file.set_len(0).and_then(|()| self.file.set_len(self.layout.total));
        resized.map_err(Error::io("write", &self.path))?;
        self.write_at(&self.layout.header, 0)
    }

    pub(super) fn over(file: File, temporary: Option<TempPath>, path: &Path, layout: Layout) -> Self {
        let missing = AtomicU64::new(layout.tensor_bytes());
        TensorWriter { file, temporary, path: path.to_owned(), layout, missing }
    }

    /// Writes `bytes` of tensor `name`, `offset` bytes after its beginning. Each byte must be written once.
    ///
    /// # Panics
    /// The layout has no such tensor, or `bytes` go beyond its end.
    pub fn write(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        let place = self.layout.places.get(name).expect("tensors are written by the names of the layout");
        let start = place.start + offset;
        assert!(start + bytes.len() as u64 <= place.end, "tensor `{name}` is longer than its place");
        self.write_at(bytes, start)?;
        self.missing.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Takes tensor `name` for written.
    ///
    /// # Panics
    /// The layout has no such tensor.
    pub(crate) fn assume_written(&self, name: &str) {
        let place = &self.layout.places[name];
        self.missing.fetch_sub(place.end - place.start, Ordering::Relaxed);
    }

    /// Hashes what was written for tensor `name`.
    ///
    /// # Panics
    /// The layout has no such tensor.
    pub(crate) fn hash(&self, name: &str, hasher: &mut blake3::Hasher) -> Result<()> {
        let place = self.layout.places[name].clone();
        let mut piece = vec![0; PIECE];
        for start in place.clone().step_by(PIECE) {
            let length = (place.end - start).min(PIECE as u64) as usize;
            self.read_at(&mut piece[..length], start)?;
            hasher.update_rayon(&piece[..length]);
        }
        Ok(())
    }

    /// Makes durable what was written so far.
    pub(crate) fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("write", &self.path))
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> Result<()> {
        read_exact_at(&self.file, bytes, offset).map_err(Error::io("read", &self.path))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        write_all_at(&self.file, bytes, offset).map_err(Error::io("write", &self.path))
    }

    /// Makes the file durable and gives it its final name.
    ///
    /// # Panics
    /// Some tensor was not written.
    pub fn finish(self) -> Result<()> {
        let missing = self.missing.load(Ordering::Relaxed);
        assert!(missing == 0, "{missing} bytes of {} were never written", self.path.display());
        self.file.sync_all().map_err(Error::io("write", &self.path))?;
        match self.temporary {
            Some(temporary) => {
                temporary.persist(&self.path).map_err(|error| Error::io("write", &self.path)(error.error))
            }
            None => Ok(()),
        }
    }
}

/// Bytes that are hashed at a time.
const PIECE: usize = 4 << 20;

/// Permissions of a newly created file before the umask; the temporary files' default is the owner alone.
fn ordinary_file() -> Option<Permissions> {
    #[cfg(unix)]
    return Some(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    #[cfg(not(unix))]
    None
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, bytes, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes = &mut bytes[read..];
        offset += read as u64;
    }
    Ok(())
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}
