//! Reads pictures that the user named.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dwindle_runtime::image::{self, MAX_FILE_BYTES, Picture};

use super::formats::{self, Format};

/// Reads and decodes one picture.
///
/// # Errors
/// What is there instead, and what to do. Nothing is read of what is no ordinary file: devices and pipes may never end,
/// or wait forever. Nothing is decoded of what is too large.
pub fn load(path: &Path) -> Result<Picture> {
    let shown = path.display();
    let opening = || format!("cannot open the picture {shown}");
    check_kind(path, &std::fs::metadata(path).with_context(opening)?)?;
    let file = open(path).with_context(opening)?;
    // What is open now may be something else than what was there a moment ago.
    let metadata = file.metadata().with_context(opening)?;
    check_kind(path, &metadata)?;
    let bytes = metadata.len();
    if bytes > MAX_FILE_BYTES {
        bail!("{shown} has {} MiB; pictures of up to {} MiB are read", bytes >> 20, MAX_FILE_BYTES >> 20);
    }
    if bytes == 0 {
        // So are the files that a kernel makes up as they are read.
        bail!("{shown} is empty; name a PNG, JPEG, WebP, GIF or BMP file");
    }
    let mut content = Vec::new();
    file.take(bytes).read_to_end(&mut content).with_context(|| format!("cannot read the picture {shown}"))?;
    Picture::decode(&content).or_else(|error| {
        let what = match &error {
            image::Error::Format { looks_like, converts: true } => Some(*looks_like),
            image::Error::Format { looks_like: image::UNKNOWN, .. } => unreadable(path),
            _ => None,
        };
        match what {
            Some(what) => bail!("{shown} is {what}, which Dwindle cannot read; convert it to JPEG or PNG"),
            None => Err(error).with_context(|| format!("cannot use the picture {shown}")),
        }
    })
}

/// What the name says of a file that is not read.
fn unreadable(path: &Path) -> Option<&'static str> {
    match formats::of_extension(path.extension()?.to_str()?)? {
        Format::Picture(what) | Format::Other(what) => Some(what),
        Format::Readable => None,
    }
}

fn check_kind(path: &Path, metadata: &std::fs::Metadata) -> Result<()> {
    let shown = path.display();
    if metadata.is_dir() {
        bail!("{shown} is a directory; name a picture in it");
    }
    if !metadata.is_file() {
        bail!("{shown} is a {}, not a file; name a PNG, JPEG, WebP, GIF or BMP file", kind(metadata));
    }
    Ok(())
}

#[cfg(unix)]
fn kind(metadata: &std::fs::Metadata) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    match () {
        () if kind.is_fifo() => "pipe",
        () if kind.is_socket() => "socket",
        () => "device",
    }
}

#[cfg(not(unix))]
fn kind(_metadata: &std::fs::Metadata) -> &'static str {
    "device"
}

/// Opens a file for reading without waiting for anybody, as pipes would.
#[cfg(unix)]
fn open(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> std::io::Result<File> {
    File::open(path)
}

/// The user's home directory, which `~` stands for.
pub fn home() -> Option<PathBuf> {
    directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned())
}

/// Whether a path leads to anything.
pub fn exists(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|_| path.file_name().is_some())
}

/// Whether two paths lead to the same file.
pub fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// Where relative paths begin, for messages.
pub fn current_directory() -> String {
    std::env::current_dir().map_or_else(|_| "the current directory".to_owned(), |path| path.display().to_string())
}
