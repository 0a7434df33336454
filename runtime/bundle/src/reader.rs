//! Reads a bundle: the file is mapped, its structure checked, entries handed out as slices of the mapping.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use zip::{CompressionMethod, ZipArchive};

use crate::image::validate_image;
use crate::mapping::Mapping;
use crate::{Error, FORMAT_VERSION, MANIFEST_ENTRY, Manifest};

/// The longest manifest that is read: far more than any real one. Parsed, it may take twenty times as much memory.
const MAX_MANIFEST_BYTES: usize = 8 << 20;

/// An opened bundle. Its manifest and plans are valid; entries' hashes are checked as they are read. Clones share all of
/// it.
#[derive(Clone, Debug)]
pub struct Bundle {
    bytes: Arc<Bytes>,
    entries: Arc<BTreeMap<String, Range<usize>>>,
    manifest: Arc<Manifest>,
}

#[derive(Debug)]
enum Bytes {
    Mapped(Mapping),
    Static(&'static [u8]),
}

impl Bytes {
    fn get(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }

    /// Unmaps the pages of `range` until they are touched again, so that they do not count as resident memory.
    fn release(&self, range: Range<usize>) {
        if let Bytes::Mapped(map) = self {
            map.release(range);
        }
    }
}

/// An entry of a bundle that stays in memory, or mapped, for as long as this lives.
#[derive(Clone, Debug)]
pub struct SharedEntry {
    bytes: Arc<Bytes>,
    range: Range<usize>,
}

impl std::ops::Deref for SharedEntry {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes.get()[self.range.clone()]
    }
}

impl SharedEntry {
    /// Gives the memory of the entry's pages back to the system, where they are those of a file. The contents stay where they
    /// are, and are read again when they are used again.
    pub fn release(&self) {
        self.bytes.release(self.range.clone());
    }
}

impl Bundle {
    /// Opens a bundle file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let map = Mapping::open(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::InvalidInput => Error::WrongFileType { found: source.to_string() },
            _ => Error::Io { path: path.to_owned(), source },
        })?;
        // What is not in the page cache yet is read in large pages, which saves most misses of the address translation
        // (measured: a fifth of one core's bandwidth) and most page faults.
        map.prefer_large_pages();
        Self::new(Bytes::Mapped(map))
    }

    /// Opens a bundle that lies in memory, as one embedded in a program.
    pub fn from_static(bytes: &'static [u8]) -> Result<Self, Error> {
        Self::new(Bytes::Static(bytes))
    }

    fn new(bytes: Bytes) -> Result<Self, Error> {
        let entries = locate_entries(bytes.get())?;
        let range = entries
            .get(MANIFEST_ENTRY)
            .cloned()
            .ok_or_else(|| Error::WrongFileType { found: format!("a ZIP file without `{MANIFEST_ENTRY}`") })?;
        let manifest = parse_manifest(&bytes.get()[range])?;
        for (name, entry) in &manifest.entries {
            let range = entries.get(name).ok_or_else(|| Error::MissingEntry { entry: name.clone() })?;
            if range.len() as u64 != entry.bytes {
                return Err(Error::Damaged {
                    why: format!("entry `{name}` has {} bytes, not {}", range.len(), entry.bytes),
                });
            }
        }
        manifest.validate_targets().map_err(|why| Error::Manifest { why })?;
        validate_target(&manifest)?;
        for variant in &manifest.also {
            manifest.clone().for_target(&variant.target.name).iter().try_for_each(validate_target)?;
        }
        Ok(Bundle { bytes: Arc::new(bytes), entries: Arc::new(entries), manifest: Arc::new(manifest) })
    }

    /// The same bundle for another of its targets: [`Bundle::manifest`] has that one's plans then. Nothing is copied but the plans.
    ///
    /// # Errors
    /// [`Error::NoTarget`] with those that it has.
    pub fn select(&self, target: &str) -> Result<Bundle, Error> {
        let manifest = Manifest::clone(&self.manifest).for_target(target).ok_or_else(|| Error::NoTarget {
            wanted: target.to_owned(),
            found: self.manifest.targets().map(|target| target.name.clone()).collect(),
        })?;
        Ok(Bundle { bytes: self.bytes.clone(), entries: self.entries.clone(), manifest: Arc::new(manifest) })
    }

    /// What is in the bundle; its models have the plans of the first target, or of the one that was selected.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.bytes.get().len() as u64
    }

    /// A whole entry, its hash checked.
    pub fn entry(&self, name: &str) -> Result<&[u8], Error> {
        let bytes = self.unchecked(name)?;
        self.check(name, blake3::hash(bytes))?;
        Ok(bytes)
    }

    /// A whole entry, its hash checked, that may outlive the bundle: nothing is copied.
    pub fn share(&self, name: &str) -> Result<SharedEntry, Error> {
        self.entry(name)?;
        let range = self.entries.get(name).ok_or_else(|| Error::MissingEntry { entry: name.to_owned() })?;
        Ok(SharedEntry { bytes: self.bytes.clone(), range: range.clone() })
    }

    /// A whole entry that must be UTF-8 text, its hash checked.
    pub fn text(&self, name: &str) -> Result<&str, Error> {
        std::str::from_utf8(self.entry(name)?)
            .map_err(|_| Error::Manifest { why: format!("entry `{name}` is no UTF-8 text") })
    }

    /// Hands an entry to `take` in chunks of `chunk` bytes, with the offset of each, hashing on the way: one pass over
    /// the data, whose pages do not stay resident. An error means that what was taken must be thrown away.
    pub fn stream<E: From<Error>>(
        &self,
        name: &str,
        chunk: usize,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut hasher = blake3::Hasher::new();
        let range = self.entries.get(name).cloned().unwrap_or_default();
        let mut offset = 0;
        for part in self.unchecked(name)?.chunks(chunk.max(1)) {
            hasher.update(part);
            take(offset as u64, part)?;
            let begin = range.start + offset;
            self.bytes.release(begin..begin + part.len());
            offset += part.len();
        }
        Ok(self.check(name, hasher.finalize())?)
    }

    /// Checks the hash of every entry.
    pub fn verify(&self) -> Result<(), Error> {
        self.manifest.entries.keys().try_for_each(|name| self.entry(name).map(drop))
    }

    fn unchecked(&self, name: &str) -> Result<&[u8], Error> {
        let range = self.entries.get(name).ok_or_else(|| Error::MissingEntry { entry: name.to_owned() })?;
        Ok(&self.bytes.get()[range.clone()])
    }

    fn check(&self, name: &str, hash: blake3::Hash) -> Result<(), Error> {
        let promised = self.manifest.entries.get(name).ok_or_else(|| Error::MissingEntry { entry: name.to_owned() })?;
        match hash.to_hex().as_str() == promised.blake3 {
            true => Ok(()),
            false => Err(Error::Hash { entry: name.to_owned() }),
        }
    }
}

/// Checks the plans of [`Manifest::target`] and the memory plan over them.
fn validate_target(manifest: &Manifest) -> Result<(), Error> {
    let Manifest { models, ensemble, memory, entries, .. } = manifest;
    for model in models {
        let invalid = |why: String| Error::Plan { model: model.name.clone(), why };
        model.plan.check(entries, model.context).map_err(invalid)?;
        validate_image(model).map_err(|why| Error::ImageInput { model: model.name.clone(), why })?;
    }
    memory.validate(models, ensemble.as_ref()).map_err(|why| Error::MemoryPlan { why })
}

fn locate_entries(bytes: &[u8]) -> Result<BTreeMap<String, Range<usize>>, Error> {
    if !bytes.starts_with(b"PK\x03\x04") {
        return Err(Error::WrongFileType { found: looks_like(bytes).to_owned() });
    }
    let damaged = |why: String| Error::Damaged { why };
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|e| damaged(e.to_string()))?;
    check_manifest_crc(&mut archive)?;
    let mut entries: BTreeMap<String, Range<usize>> = BTreeMap::new();
    for index in 0..archive.len() {
        let file = archive.by_index_raw(index).map_err(|e| damaged(e.to_string()))?;
        let name = file.name().map_err(|e| damaged(e.to_string()))?.into_owned();
        if file.compression() != CompressionMethod::Stored || file.compressed_size() != file.size() {
            return Err(damaged(format!("entry `{name}` is compressed")));
        }
        let start = file.data_start().ok_or_else(|| damaged(format!("entry `{name}` has no data")))?;
        let range = usize::try_from(start).ok().and_then(|start| {
            let end = start.checked_add(usize::try_from(file.size()).ok()?)?;
            (end <= bytes.len()).then_some(start..end)
        });
        let range = range.ok_or_else(|| damaged(format!("entry `{name}` lies beyond the end of the file")))?;
        if entries.insert(name.clone(), range).is_some() {
            return Err(damaged(format!("entry `{name}` is there twice")));
        }
    }
    // Entries that share bytes could claim any amount of weights.
    let mut places: Vec<_> = entries.iter().filter(|(_, range)| !range.is_empty()).collect();
    places.sort_by_key(|(_, range)| range.start);
    match places.windows(2).find(|pair| pair[1].1.start < pair[0].1.end) {
        Some(pair) => Err(damaged(format!("entries `{}` and `{}` overlap", pair[0].0, pair[1].0))),
        None => Ok(entries),
    }
}

/// The manifest holds everyone's hashes but its own: there the checksum of the ZIP entry stands in.
fn check_manifest_crc(archive: &mut ZipArchive<Cursor<&[u8]>>) -> Result<(), Error> {
    match archive.by_name(MANIFEST_ENTRY) {
        Ok(file) if file.size() > MAX_MANIFEST_BYTES as u64 => {
            Err(Error::Manifest { why: format!("{} bytes are too many", file.size()) })
        }
        Ok(mut file) => match std::io::copy(&mut file, &mut std::io::sink()) {
            Ok(_) => Ok(()),
            Err(error) => Err(Error::Damaged { why: format!("`{MANIFEST_ENTRY}`: {error}") }),
        },
        Err(zip::result::ZipError::FileNotFound) => {
            Err(Error::WrongFileType { found: format!("a ZIP file without `{MANIFEST_ENTRY}`") })
        }
        Err(error) => Err(Error::Damaged { why: format!("`{MANIFEST_ENTRY}`: {error}") }),
    }
}

fn parse_manifest(bytes: &[u8]) -> Result<Manifest, Error> {
    let invalid = |why: String| Error::Manifest { why };
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(invalid(format!("{} bytes are too many", bytes.len())));
    }
    #[derive(serde::Deserialize)]
    struct Version {
        format_version: u64,
    }
    // The version is read alone first: the rest of another version need not fit.
    let version: Version = serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))?;
    if version.format_version != u64::from(FORMAT_VERSION) {
        return Err(Error::Version { found: version.format_version });
    }
    serde_json::from_slice(bytes).map_err(|e| invalid(e.to_string()))
}

fn looks_like(bytes: &[u8]) -> &'static str {
    const KNOWN: &[(&[u8], &str)] = &[
        (b"GGUF", "it looks like a GGUF file"),
        (b"\x89PNG", "it looks like a PNG picture"),
        (b"\xff\xd8\xff", "it looks like a JPEG picture"),
        (b"\x7fELF", "it looks like a program"),
        (b"\x1f\x8b", "it looks like a gzip file"),
        (b"{", "it looks like a JSON file"),
    ];
    let known = KNOWN.iter().find(|(magic, _)| bytes.starts_with(magic));
    match known {
        Some((_, what)) => what,
        None if bytes.is_empty() => "it is empty",
        None if bytes.get(8) == Some(&b'{') => "it looks like a safetensors file",
        None => "it is no ZIP file",
    }
}
