//! Reads pictures that the user named.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dwindle_runtime::image::Picture;

/// A file larger than this is no picture that anyone wants described.
const MAX_BYTES: u64 = 256 << 20;

/// Reads and decodes one picture.
pub fn load(path: &Path) -> Result<Picture> {
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot open the picture {}", path.display()))?;
    if metadata.is_dir() {
        bail!("{} is a directory; name a picture in it", path.display());
    }
    if metadata.len() > MAX_BYTES {
        bail!(
            "{} has {} MiB; pictures of up to {} MiB are read",
            path.display(),
            metadata.len() >> 20,
            MAX_BYTES >> 20
        );
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read the picture {}", path.display()))?;
    Picture::decode(&bytes).with_context(|| format!("cannot use the picture {}", path.display()))
}

/// The user's home directory, which `~` stands for.
pub fn home() -> Option<PathBuf> {
    directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned())
}
