//! The user's cache directory: bundles that `run` made from checkpoints, keyed by the content they were made from.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use dwindle_bundle::Mapping;

/// Environment variable that names another cache directory.
pub const CACHE_VARIABLE: &str = "DWINDLE_CACHE";

/// Where the cache directory is, or will be made; `None` without a home directory.
pub fn location() -> Option<PathBuf> {
    match std::env::var_os(CACHE_VARIABLE) {
        Some(path) if !path.is_empty() => Some(PathBuf::from(path)),
        _ => Some(directories::ProjectDirs::from("", "", "dwindle")?.cache_dir().to_owned()),
    }
}

/// The cache directory, made if it is not there.
pub fn directory() -> Result<PathBuf> {
    let path = location().with_context(|| {
        format!("there is no home directory to keep a cache in; set {CACHE_VARIABLE} to a directory")
    })?;
    std::fs::create_dir_all(&path).with_context(|| {
        format!("cannot make the cache directory {}; set {CACHE_VARIABLE} to another", path.display())
    })?;
    Ok(path)
}

/// A key made from everything that a cached file depends on.
#[derive(Debug)]
pub struct Key(blake3::Hasher);

impl Key {
    /// A key that at least depends on this program's version.
    pub fn new(what: &str) -> Self {
        let mut key = Key(blake3::Hasher::new());
        key.add(what.as_bytes());
        key.add(env!("CARGO_PKG_VERSION").as_bytes());
        key.add(&dwindle_bundle::FORMAT_VERSION.to_le_bytes());
        key
    }

    /// Makes the key depend on these bytes, and on where they end.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Makes the key depend on a file's contents.
    pub fn add_file(&mut self, path: &Path) -> Result<()> {
        let mut hasher = blake3::Hasher::new();
        let file = Mapping::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        file.will_read();
        hasher.update_rayon(&file);
        self.add(hasher.finalize().as_bytes());
        Ok(())
    }

    /// Where in the cache the file of this key lies, or will lie.
    pub fn path(&self, directory: &Path) -> PathBuf {
        let hash = self.0.finalize().to_hex();
        directory.join(format!("{}.dwindle", &hash.as_str()[..32]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_everything_and_its_borders() {
        let key = |parts: &[&str]| {
            let mut key = Key::new("test");
            parts.iter().for_each(|part| key.add(part.as_bytes()));
            key.path(Path::new("cache"))
        };
        assert_eq!(key(&["ab", "c"]), key(&["ab", "c"]));
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["ab"]), key(&["ab", ""]));
    }
}
