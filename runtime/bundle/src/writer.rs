//! Writes a bundle: entries streamed one after the other, hashed on the way, under its name only when complete.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::{Entry, Error, MANIFEST_ENTRY, Manifest};

/// Entries begin at multiples of this many bytes: the page size of most systems, so that weights map directly.
pub const ENTRY_ALIGNMENT: u16 = 4096;

/// Writes one bundle. Dropped before [`finish`](Self::finish), it leaves nothing behind.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    zip: ZipWriter<Output>,
    entries: BTreeMap<String, Entry>,
}

impl Writer {
    /// Begins a bundle that will be `path`, in a temporary file beside it.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let file = tempfile::Builder::new().prefix(".dwindle-partial-").tempfile_in(folder).map_err(|e| at(path, e))?;
        Ok(Writer { path: path.to_owned(), zip: ZipWriter::new(Output::new(file)), entries: BTreeMap::new() })
    }

    /// Writes one entry with what `fill` puts into the sink, and returns its size.
    pub fn entry<E: From<Error>>(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut Sink<'_>) -> Result<(), E>,
    ) -> Result<u64, E> {
        if self.entries.contains_key(name) || name == MANIFEST_ENTRY {
            return Err(Error::DuplicateEntry { entry: name.to_owned() }.into());
        }
        self.begin(name)?;
        let mut sink = Sink { zip: &mut self.zip, path: &self.path, hasher: blake3::Hasher::new(), bytes: 0 };
        fill(&mut sink)?;
        let entry = Entry { bytes: sink.bytes, blake3: sink.hasher.finalize().to_hex().to_string() };
        let bytes = entry.bytes;
        self.entries.insert(name.to_owned(), entry);
        Ok(bytes)
    }

    /// Writes the manifest, with the entries so far as its `entries`, and gives the file its name.
    pub fn finish(mut self, mut manifest: Manifest) -> Result<Manifest, Error> {
        manifest.entries = std::mem::take(&mut self.entries);
        let text = serde_json::to_vec(&manifest).map_err(|e| Error::Manifest { why: e.to_string() })?;
        self.begin(MANIFEST_ENTRY)?;
        self.zip.write_all(&text).map_err(|e| at(&self.path, e))?;
        let Writer { path, zip, .. } = self;
        let output = zip.finish().map_err(|e| zip_at(&path, e))?;
        let file = output.file.into_inner().map_err(|e| at(&path, e.into_error()))?;
        file.as_file().sync_all().map_err(|e| at(&path, e))?;
        readable_by_all(file.as_file());
        file.persist(&path).map_err(|e| at(&path, e.error))?;
        Ok(manifest)
    }

    fn begin(&mut self, name: &str) -> Result<(), Error> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(DateTime::DEFAULT)
            .unix_permissions(0o644)
            .large_file(true)
            .with_alignment(ENTRY_ALIGNMENT);
        self.zip.start_file(name, options).map_err(|e| zip_at(&self.path, e))
    }
}

/// The file. After the first error, which is returned, it takes what comes and forgets it: a `ZipWriter` that is dropped
/// then tries to finish the archive once more, and writes to stderr if it cannot.
#[derive(Debug)]
struct Output {
    file: BufWriter<NamedTempFile>,
    failed: bool,
    /// Where the next byte would go, and where the file would end, had nothing failed.
    position: u64,
    end: u64,
}

impl Output {
    fn new(file: NamedTempFile) -> Self {
        Output { file: BufWriter::new(file), failed: false, position: 0, end: 0 }
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.failed = result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        result
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self.failed {
            true => bytes.len(),
            false => {
                let result = self.file.write(bytes);
                self.note(result)?
            }
        };
        self.position += written as u64;
        self.end = self.end.max(self.position);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failed {
            return Ok(());
        }
        let result = self.file.flush();
        self.note(result)
    }
}

impl Seek for Output {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match (self.failed, to) {
            (false, _) => {
                let result = self.file.seek(to);
                self.note(result)?
            }
            (true, SeekFrom::Start(position)) => position,
            (true, SeekFrom::Current(by)) => self.position.saturating_add_signed(by),
            (true, SeekFrom::End(by)) => self.end.saturating_add_signed(by),
        };
        Ok(self.position)
    }
}

/// Where an entry's bytes go.
#[derive(Debug)]
pub struct Sink<'a> {
    zip: &'a mut ZipWriter<Output>,
    path: &'a Path,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl Sink<'_> {
    /// Appends bytes to the entry.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        self.zip.write_all(bytes).map_err(|e| at(self.path, e))
    }

    /// Bytes written to this entry so far.
    pub fn position(&self) -> u64 {
        self.bytes
    }
}

/// Temporary files are private; a bundle is an ordinary file. Where that fails, the file is still valid.
fn readable_by_all(file: &File) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let _ = file.set_permissions(std::fs::Permissions::from_mode(0o644));
    }
    #[cfg(not(unix))]
    let _ = file;
}

fn at(path: &Path, source: io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

fn zip_at(path: &Path, error: zip::result::ZipError) -> Error {
    match error {
        zip::result::ZipError::Io(source) => at(path, source),
        other => at(path, io::Error::other(other.to_string())),
    }
}
