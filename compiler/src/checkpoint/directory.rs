//! Output directories that appear whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use super::carried;
use super::model_dir::{MODEL_JSON, MODEL_SAFETENSORS, ModelJson};
use super::workplace::Workplace;
use crate::error::{Error, Result};
use crate::work::Work;

/// A model directory that is being written in the [`Workplace`] beside its final place.
///
/// Dropping it without [`commit`](Self::commit) removes what was written.
#[derive(Debug)]
pub(crate) struct OutputDirectory {
    workplace: Workplace,
    path: PathBuf,
}

impl OutputDirectory {
    /// Begins an output at `target`, which may be missing, empty, or a model directory to replace. What a killed process left of
    /// its own attempt is removed.
    ///
    /// # Errors
    /// Something else is there, another process is writing it, or there is not enough room for `work`.
    pub fn create(target: &Path, work: &Work) -> Result<Self> {
        check_replaceable(target)?;
        let workplace = Workplace::claim(target)?;
        workplace.clear("a model directory")?;
        work.check(target)?;
        Self::in_workplace(workplace)
    }

    /// As [`create`](Self::create), but takes over what a killed process left for the same `purpose`, one line that says of what
    /// the output is made, and how.
    pub fn resume(target: &Path, work: &Work, purpose: &str) -> Result<Self> {
        check_replaceable(target)?;
        let mut workplace = Workplace::claim(target)?;
        match workplace.is_for(purpose)? {
            // Whatever is wrong now, the work of before is not to be lost.
            true => workplace.keep(true),
            false => workplace.clear(purpose)?,
        }
        let there = allocated(&workplace.new_path());
        Work { bytes_out: work.bytes_out.saturating_sub(there), ..work.clone() }.check(target)?;
        Self::in_workplace(workplace)
    }

    fn in_workplace(workplace: Workplace) -> Result<Self> {
        let path = workplace.new_path();
        match fs::create_dir(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::io("create", &path)(error)),
            _ => Ok(OutputDirectory { workplace, path }),
        }
    }

    /// The file that tells what is done.
    pub fn journal(&self) -> PathBuf {
        self.workplace.journal()
    }

    /// Whether what was written stays when this value is dropped, for [`resume`](Self::resume).
    pub fn keep(&mut self, kept: bool) {
        self.workplace.keep(kept);
    }

    /// Where files may be kept that the output is made of.
    pub fn source_path(&self) -> PathBuf {
        self.workplace.source_path()
    }

    /// Where to write.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the content durable and gives it its place.
    pub fn commit(self) -> Result<()> {
        self.workplace.commit(&self.path)
    }
}

/// Disk that the files of a directory take, which may have holes.
fn allocated(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let metadata = entries.flatten().filter_map(|entry| entry.metadata().ok());
    #[cfg(unix)]
    return metadata.map(|metadata| std::os::unix::fs::MetadataExt::blocks(&metadata) * 512).sum();
    #[cfg(not(unix))]
    metadata.map(|metadata| metadata.len()).sum()
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

    fn work(bytes_out: u64) -> Work {
        Work { step: "convert", bytes_in: 0, bytes_to_download: 0, bytes_out, bytes_meanwhile: 0, peak_memory: 0 }
    }

    #[track_caller]
    fn check(prepare: impl FnOnce(&Path), expected: Expect) {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        prepare(&target);
        let before = fs::read_dir(root.path()).unwrap().count();
        let text = match OutputDirectory::create(&target, &work(0)) {
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
        check(|_| {}, expect!["written"]);
        check(|path| fs::create_dir(path).unwrap(), expect!["written"]);
        check(model, expect!["written"]);
        check(
            |path| fs::write(path, "text").unwrap(),
            expect!["DIR/out exists and is not a directory; name another output directory, or remove it first"],
        );
        check(
            |path| {
                fs::create_dir(path).unwrap();
                fs::write(path.join("thesis.txt"), "text").unwrap();
            },
            expect![
                "DIR/out exists and is not a model directory of this version; name another output directory, or remove it first"
            ],
        );
        check(
            |path| {
                model(path);
                fs::write(path.join("thesis.txt"), "text").unwrap();
            },
            expect![
                "DIR/out exists and holds other files too: thesis.txt; name another output directory, or remove it first"
            ],
        );
        check(
            |path| {
                fs::create_dir(path).unwrap();
                fs::write(path.join(MODEL_JSON), "{}").unwrap();
            },
            expect![
                "DIR/out exists and is not a model directory of this version; name another output directory, or remove it first"
            ],
        );
    }

    #[cfg(unix)]
    #[test]
    fn too_large() {
        let root = tempfile::tempdir().unwrap();
        let error = OutputDirectory::create(&root.path().join("out"), &work(1 << 62)).unwrap_err();
        assert!(matches!(error, Error::DiskSpace { needed, .. } if needed == 1 << 62), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn dropped_output_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        model(&target);
        let output = OutputDirectory::create(&target, &work(0)).unwrap();
        fs::write(output.path().join("new"), "new").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        assert!(ModelJson::read(&target).is_ok());
    }
}
