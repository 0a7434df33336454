//! Output directories that appear whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use super::carried;
use super::model_dir::{MODEL_JSON, MODEL_SAFETENSORS, ModelJson};
use super::workplace::Workplace;
use crate::error::{Error, Result};
use crate::room;

/// Bytes left free for what is small: descriptions, directories, the file system's own.
pub(crate) const SPARE: u64 = 1 << 20;

/// A model directory that is being written in the [`Workplace`] beside its final place.
///
/// Dropping it without [`commit`](Self::commit) removes what was written.
#[derive(Debug)]
pub(crate) struct OutputDirectory {
    workplace: Workplace,
    path: PathBuf,
}

impl OutputDirectory {
    /// Begins an output of about `bytes` at `target`, which may be missing, empty, or a model directory to replace. What a killed
    /// process left of its own attempt is removed.
    ///
    /// # Errors
    /// Something else is there, another process is writing it, or there is not enough room.
    pub fn create(target: &Path, bytes: u64) -> Result<Self> {
        check_replaceable(target)?;
        let workplace = Workplace::claim(target)?;
        workplace.clear("a model directory")?;
        let needed = bytes.saturating_add(SPARE);
        // Where the file system does not tell, writing will.
        if let Some(available) = room::disk(target).filter(|available| *available < needed) {
            return Err(Error::DiskSpace { path: target.to_owned(), needed, available });
        }
        let path = workplace.new_path();
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(OutputDirectory { workplace, path })
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the content durable and gives it its place.
    pub fn commit(self) -> Result<()> {
        self.workplace.commit()
    }
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
