//! The hub's cache on this machine, in the layout that Hugging Face's own tools share.
//!
//! `models--OWNER--NAME/blobs/HASH` holds the bytes of a file, `snapshots/COMMIT/FILE` links to them, `refs/REVISION` names the
//! commit of a branch or tag, and `.locks/models--OWNER--NAME/HASH.lock` is locked while a file is written.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use super::digest::Digest;
use super::error::Error;
use super::listing::{Listing, RemoteFile, Selection, is_commit};

/// The part of the cache that belongs to one model.
#[derive(Debug)]
pub(super) struct ModelCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl ModelCache {
    /// That of the model `id` in the cache `root`. Nothing is made yet.
    pub(super) fn new(root: &Path, id: &str) -> Self {
        let name = format!("models--{}", id.replace('/', "--"));
        ModelCache { locks: root.join(".locks").join(&name), folder: root.join(name) }
    }

    /// Makes the folders that everything else needs.
    pub(super) fn create(&self) -> Result<(), Error> {
        let make = |path: &Path| fs::create_dir_all(path).map_err(Error::io("make the folder", path));
        make(&self.folder.join("blobs"))?;
        make(&self.locks)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the bytes with this hash lie, or will lie.
    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.to_string())
    }

    /// Where the bytes with this hash gather as they arrive: other tools take them up under the same name.
    pub(super) fn partial(&self, digest: Digest) -> PathBuf {
        self.folder.join("blobs").join(format!("{digest}.incomplete"))
    }

    /// The folder that looks like the repository at a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The file, if all of it is here already.
    pub(super) fn find(&self, commit: &str, file: &RemoteFile) -> Option<PathBuf> {
        let path = self.snapshot(commit).join(&file.name);
        has_size(&path, file.size).then_some(path)
    }

    /// Waits until no other program writes the file with this hash.
    pub(super) fn lock(&self, file: &RemoteFile) -> Result<File, Error> {
        let path = self.locks.join(format!("{}.lock", file.digest));
        let lock = File::create(&path).map_err(Error::io("make", &path))?;
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) => {
                tracing::warn!("another program downloads {}; waiting for it", file.name);
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        lock.lock().map_err(Error::io("lock", &path))?;
        Ok(lock)
    }

    /// Makes the file with the bytes of `file` appear in the snapshot.
    pub(super) fn link(&self, commit: &str, file: &RemoteFile) -> Result<PathBuf, Error> {
        let snapshot = self.snapshot(commit);
        fs::create_dir_all(&snapshot).map_err(Error::io("make the folder", &snapshot))?;
        let path = snapshot.join(&file.name);
        let aside = snapshot.join(format!(".{}.link", file.digest));
        remove_if_there(&aside)?;
        link_blob(&self.blob(file.digest), &aside).map_err(Error::io("make", &aside))?;
        fs::rename(&aside, &path).map_err(Error::io("make", &path))?;
        Ok(path)
    }

    /// Remembers which commit a branch or tag is.
    pub(super) fn write_reference(&self, revision: &str, commit: &str) -> Result<(), Error> {
        let Some(path) = self.reference(revision).filter(|_| revision != commit) else { return Ok(()) };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io("make the folder", parent))?;
        }
        fs::write(&path, commit).map_err(Error::io("write", &path))
    }

    /// What the cache knows of a revision: the files it has. Missing ones are unknown to it.
    pub(super) fn list(&self, id: &str, revision: &str) -> Option<Listing> {
        let commit = match self.reference(revision).and_then(|path| fs::read_to_string(path).ok()) {
            Some(commit) => commit.trim().to_owned(),
            None => revision.to_owned(),
        };
        if !is_commit(&commit) {
            return None;
        }
        let entries = fs::read_dir(self.snapshot(&commit)).ok()?;
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        let selection = Selection::of(|name| names.iter().any(|held| held == name));
        let wanted = names.iter().filter(|name| selection.wants(name));
        let files: Vec<RemoteFile> =
            wanted.filter_map(|name| described(&self.snapshot(&commit).join(name), name)).collect();
        (!files.is_empty()).then(|| Listing { id: id.to_owned(), revision: revision.to_owned(), commit, files })
    }

    /// The file with the commit of a branch or tag, if that can be one.
    fn reference(&self, revision: &str) -> Option<PathBuf> {
        let plain = Path::new(revision).components().all(|part| matches!(part, Component::Normal(_)));
        (plain && !revision.is_empty()).then(|| self.folder.join("refs").join(revision))
    }
}

/// A file of a snapshot; the name of the blob it links to is its hash.
fn described(path: &Path, name: &str) -> Option<RemoteFile> {
    let size = fs::metadata(path).ok().filter(fs::Metadata::is_file)?.len();
    let linked = fs::read_link(path).ok();
    let digest = linked.and_then(|blob| Digest::parse(blob.file_name()?.to_str()?));
    let digest = digest.or_else(|| hash_of_file(path, size).ok())?;
    Some(RemoteFile { name: name.to_owned(), size, digest })
}

/// Where snapshots are no links, their files have to be read.
fn hash_of_file(path: &Path, size: u64) -> io::Result<Digest> {
    let mut hasher = Digest::GitBlob([0; 20]).hasher(size);
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

/// Whether there is a file of this size.
pub(super) fn has_size(path: &Path, size: u64) -> bool {
    fs::metadata(path).is_ok_and(|info| info.is_file() && info.len() == size)
}

/// Removes a file that may or may not be there.
pub(super) fn remove_if_there(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Relative, so that the cache can be moved.
#[cfg(unix)]
fn link_blob(blob: &Path, link: &Path) -> io::Result<()> {
    let name = blob.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(Path::new("../../blobs").join(name), link)
}

/// Links need a privilege elsewhere.
#[cfg(not(unix))]
fn link_blob(blob: &Path, link: &Path) -> io::Result<()> {
    fs::hard_link(blob, link).or_else(|_| fs::copy(blob, link).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn file(name: &str, contents: &[u8]) -> RemoteFile {
        let size = contents.len() as u64;
        let mut hasher = Digest::Sha256([0; 32]).hasher(size);
        hasher.update(contents);
        RemoteFile { name: name.to_owned(), size, digest: hasher.finish() }
    }

    #[test]
    fn what_was_placed_is_found_and_listed() {
        let root = tempfile::tempdir().unwrap();
        let cache = ModelCache::new(root.path(), "owner/model");
        cache.create().unwrap();
        let config = file("config.json", b"{}");
        assert_eq!(cache.find(COMMIT, &config), None);
        assert_eq!(cache.list("owner/model", "main"), None);
        fs::write(cache.blob(config.digest), "{}").unwrap();
        let path = cache.link(COMMIT, &config).unwrap();
        assert_eq!(path, root.path().join(format!("models--owner--model/snapshots/{COMMIT}/config.json")));
        assert_eq!(fs::read(&path).unwrap(), b"{}");
        assert_eq!(cache.find(COMMIT, &config), Some(path));
        assert_eq!(cache.find(COMMIT, &RemoteFile { size: 3, ..config.clone() }), None, "another size is another file");
        cache.write_reference("refs/pr/1", COMMIT).unwrap();
        let listing = cache.list("owner/model", "refs/pr/1").unwrap();
        assert_eq!(listing.files, std::slice::from_ref(&config));
        assert_eq!(cache.list("owner/model", COMMIT).unwrap().files, [config]);
        assert_eq!(cache.list("owner/model", "../main"), None);
    }

    #[test]
    fn a_damaged_reference_is_none() {
        let root = tempfile::tempdir().unwrap();
        let cache = ModelCache::new(root.path(), "owner/model");
        fs::create_dir_all(root.path().join("models--owner--model/refs")).unwrap();
        fs::write(root.path().join("models--owner--model/refs/main"), "../../..").unwrap();
        assert_eq!(cache.list("owner/model", "main"), None);
    }
}
