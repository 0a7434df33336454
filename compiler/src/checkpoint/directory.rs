//! Output directories that appear whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::carried;
use super::model_dir::{MODEL_JSON, MODEL_SAFETENSORS, ModelJson};
use crate::error::{Error, Result};

/// Bytes left free for what is small: descriptions, directories, the file system's own.
const SPARE: u64 = 1 << 20;

/// A model directory that is being written beside its final place, as `NAME.partial-…`.
///
/// Dropping it without [`commit`](Self::commit) removes what was written.
#[derive(Debug)]
pub(crate) struct OutputDirectory {
    partial: TempDir,
    target: PathBuf,
    parent: PathBuf,
}

impl OutputDirectory {
    /// Begins an output of about `bytes` at `target`, which may be missing, empty, or a model directory to replace.
    ///
    /// # Errors
    /// Something else is there, or there is not enough room.
    pub fn create(target: &Path, bytes: u64) -> Result<Self> {
        check_replaceable(target)?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
        check_space(&parent, target, bytes.saturating_add(SPARE))?;
        let partial = beside(&parent, target, "partial")?;
        Ok(OutputDirectory { partial, target: target.to_owned(), parent })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        self.partial.path()
    }

    /// Makes the content durable and gives it its place.
    ///
    /// A model directory that is already there is moved aside first and removed last; should the machine stop between
    /// these two renames, it is found as `NAME.replaced-…/old`.
    pub fn commit(self) -> Result<()> {
        for entry in fs::read_dir(self.path()).map_err(Error::io("read", self.path()))? {
            sync(&entry.map_err(Error::io("read", self.path()))?.path())?;
        }
        sync(self.path())?;
        let replaced = match self.target.exists() {
            true => {
                let aside = beside(&self.parent, &self.target, "replaced")?;
                let old = aside.path().join("old");
                fs::rename(&self.target, &old).map_err(Error::io("replace", &self.target))?;
                Some((aside, old))
            }
            false => None,
        };
        if let Err(error) = fs::rename(self.path(), &self.target) {
            if let Some((aside, old)) = replaced
                && fs::rename(old, &self.target).is_err()
            {
                // What was there before must survive, be it under another name.
                let _ = aside.keep();
            }
            return Err(Error::io("write", &self.target)(error));
        }
        // The directory has moved; there is nothing left to remove under its old name.
        let _ = self.partial.keep();
        sync(&self.parent)
    }
}

/// A new directory beside `target`, removed when dropped.
fn beside(parent: &Path, target: &Path, what: &str) -> Result<TempDir> {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let mut builder = tempfile::Builder::new();
    let prefix = format!("{name}.{what}-");
    builder.prefix(&prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(parent).map_err(Error::io("write in", parent))
}

fn check_replaceable(target: &Path) -> Result<()> {
    let occupied = |reason: String| Err(Error::OutputOccupied { path: target.to_owned(), reason });
    if !target.exists() {
        return match target.symlink_metadata() {
            Ok(_) => occupied("is a symbolic link to nothing".to_owned()),
            Err(_) => Ok(()),
        };
    }
    if !target.is_dir() {
        return occupied("is not a directory".to_owned());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(target).map_err(Error::io("read", target))? {
        let entry = entry.map_err(Error::io("read", target))?;
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    if names.is_empty() {
        return Ok(());
    }
    if !names.iter().any(|name| name == MODEL_JSON) || ModelJson::read(target).is_err() {
        return occupied("is not a model directory of this version".to_owned());
    }
    let ours =
        |name: &String| name == MODEL_JSON || name == MODEL_SAFETENSORS || carried::NAMES.contains(&name.as_str());
    names.retain(|name| !ours(name));
    names.sort();
    if names.is_empty() { Ok(()) } else { occupied(format!("holds other files too: {}", names.join(", "))) }
}

/// Checks that the file system of the existing directory `parent` has room for `needed` bytes that will be written to `target`.
///
/// # Errors
/// [`Error::DiskSpace`], which names `target`.
#[cfg(unix)]
pub fn check_space(parent: &Path, target: &Path, needed: u64) -> Result<()> {
    // Where the file system does not tell, writing will.
    let Ok(info) = rustix::fs::statvfs(parent) else { return Ok(()) };
    let available = info.f_bavail.saturating_mul(info.f_frsize);
    if needed > available {
        return Err(Error::DiskSpace { path: target.to_owned(), needed, available });
    }
    Ok(())
}

/// Nothing is known about room on this platform; writing will tell.
///
/// # Errors
/// None here.
#[cfg(not(unix))]
pub fn check_space(_parent: &Path, _target: &Path, _needed: u64) -> Result<()> {
    Ok(())
}

/// Makes a file, or the entries of a directory, durable.
fn sync(path: &Path) -> Result<()> {
    #[cfg(unix)]
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write", path))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(prepare: impl FnOnce(&Path), bytes: u64, expected: Expect) {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        prepare(&target);
        let before = fs::read_dir(root.path()).unwrap().count();
        let text = match OutputDirectory::create(&target, bytes) {
            Ok(output) => {
                fs::write(output.path().join("new"), "new").unwrap();
                output.commit().unwrap();
                let names = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name());
                assert_eq!(names.collect::<Vec<_>>(), ["new"]);
                assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "nothing else is left");
                "written".to_owned()
            }
            Err(error) => {
                assert_eq!(fs::read_dir(root.path()).unwrap().count(), before, "nothing is left");
                error.to_string().replace(&root.path().display().to_string(), "DIR")
            }
        };
        expected.assert_eq(&text);
    }

    fn model(path: &Path) {
        fs::create_dir(path).unwrap();
        ModelJson::new("gemma".to_owned(), Default::default(), Default::default()).write(path).unwrap();
    }

    #[test]
    fn what_may_be_replaced() {
        check(|_| {}, 0, expect!["written"]);
        check(|path| fs::create_dir(path).unwrap(), 0, expect!["written"]);
        check(model, 0, expect!["written"]);
        check(
            |path| fs::write(path, "text").unwrap(),
            0,
            expect!["DIR/out exists and is not a directory; name another output directory, or remove it first"],
        );
        check(
            |path| {
                fs::create_dir(path).unwrap();
                fs::write(path.join("thesis.txt"), "text").unwrap();
            },
            0,
            expect![
                "DIR/out exists and is not a model directory of this version; name another output directory, or remove it first"
            ],
        );
        check(
            |path| {
                model(path);
                fs::write(path.join("thesis.txt"), "text").unwrap();
            },
            0,
            expect![
                "DIR/out exists and holds other files too: thesis.txt; name another output directory, or remove it first"
            ],
        );
        check(
            |path| {
                fs::create_dir(path).unwrap();
                fs::write(path.join(MODEL_JSON), "{}").unwrap();
            },
            0,
            expect![
                "DIR/out exists and is not a model directory of this version; name another output directory, or remove it first"
            ],
        );
    }

    #[cfg(unix)]
    #[test]
    fn too_large() {
        let root = tempfile::tempdir().unwrap();
        let error = OutputDirectory::create(&root.path().join("out"), 1 << 62).unwrap_err();
        assert!(matches!(error, Error::DiskSpace { needed, .. } if needed == (1 << 62) + SPARE), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn dropped_output_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        model(&target);
        let output = OutputDirectory::create(&target, 0).unwrap();
        fs::write(output.path().join("new"), "new").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert!(ModelJson::read(&target).is_ok());
    }
}
