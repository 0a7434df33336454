//! Checks what a command is told to write to: never what it reads, and never a file of another kind.
//!
//! There is no `--force`: whoever means it removes the file first.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use dwindle_bundle::Bundle;
use dwindle_compiler::checkpoint::safetensors::SafeTensors;

use crate::source::Source;
use crate::{cache, hub};

/// What will be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A bundle.
    Bundle,
    /// A file of tensors.
    Tensors,
    /// A model directory, whose contents are checked where it is made.
    Directory,
}

/// Checks that `output` may be made or replaced, while `sources` are read.
///
/// # Errors
/// What is there, or which source it is, and what to do.
pub fn check(output: &Path, kind: Kind, sources: &[&Path]) -> Result<()> {
    let shown = output.display();
    let place = resolved(output)?;
    for source in sources {
        let Ok(whole) = source.canonicalize() else { continue };
        if place == whole || place.starts_with(&whole) || same_file(output, source) {
            bail!("{shown} is or lies in {}, which is read; name another output", source.display());
        }
        if whole.starts_with(&place) {
            bail!("{shown} contains {}, which is read; name another output", source.display());
        }
    }
    for cache in [cache::location(), hub::cache_location()].into_iter().flatten() {
        if cache.canonicalize().is_ok_and(|cache| place.starts_with(cache)) {
            bail!("{shown} lies in the cache {}, whose files come and go; name another output", cache.display());
        }
    }
    match (fs::metadata(output), kind) {
        (Err(_), _) if output.symlink_metadata().is_ok() => {
            bail!("{shown} is a symbolic link to nothing; name another output, or remove it first")
        }
        (Err(_), _) | (_, Kind::Directory) => Ok(()),
        (Ok(there), _) if there.is_dir() => bail!("{shown} is a directory; name the file to write"),
        (Ok(there), _) if !there.is_file() => bail!("{shown} is no ordinary file; name another output"),
        // Made by `mktemp`, for example: nothing is lost.
        (Ok(there), _) if there.len() == 0 => Ok(()),
        (Ok(_), Kind::Bundle) => match Bundle::open(output) {
            Err(
                dwindle_bundle::Error::Io { .. }
                | dwindle_bundle::Error::WrongFileType { .. }
                | dwindle_bundle::Error::Damaged { .. },
            ) => bail!("{shown} exists and is no bundle; name another output, or remove it first"),
            // A bundle of another version, or one whose plans are not valid, is one.
            _ => Ok(()),
        },
        (Ok(_), Kind::Tensors) => match SafeTensors::open(output) {
            Ok(_) => Ok(()),
            Err(_) => bail!("{shown} exists and is no safetensors file; name another output, or remove it first"),
        },
    }
}

/// The same for the sources that a user named.
///
/// # Errors
/// As [`check`].
pub fn check_beside(output: &Path, kind: Kind, sources: &[Source]) -> Result<()> {
    check(output, kind, &sources.iter().map(Source::path).collect::<Vec<_>>())
}

/// The path without symbolic links, of which the last parts need not exist.
fn resolved(path: &Path) -> Result<PathBuf> {
    let path = std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))?;
    let mut place = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                place.pop();
            }
            _ => place.push(part),
        }
        place = place.canonicalize().unwrap_or(place);
    }
    Ok(place)
}

/// Whether both names lead to one file, as hard links do.
#[cfg(unix)]
fn same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(wanted) = fs::metadata(one) else { return false };
    let is_wanted = |path: &Path| fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (wanted.dev(), wanted.ino()));
    let inside = fs::read_dir(other).into_iter().flatten().flatten();
    is_wanted(other) || inside.map(|entry| entry.path()).any(|path| is_wanted(&path))
}

#[cfg(not(unix))]
fn same_file(_one: &Path, _other: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("model")).unwrap();
            for (name, content) in [("model/model.safetensors", "weights"), ("thesis.txt", "mine"), ("empty", "")] {
                fs::write(folder.path().join(name), content).unwrap();
            }
            Place(folder)
        }

        #[track_caller]
        fn check(&self, output: &str, kind: Kind, expected: Expect) {
            let path = |name: &str| self.0.path().join(name);
            let result = check(&path(output), kind, &[&path("model")]);
            let text = result.map_or_else(|error| format!("{error:#}"), |()| "written".to_owned());
            expected.assert_eq(&text.replace(&self.0.path().display().to_string(), "DIR"));
        }
    }

    #[test]
    fn sources_are_not_written_to() {
        let place = Place::new();
        place.check(
            "model",
            Kind::Bundle,
            expect!["DIR/model is or lies in DIR/model, which is read; name another output"],
        );
        place.check(
            "model/model.safetensors",
            Kind::Bundle,
            expect!["DIR/model/model.safetensors is or lies in DIR/model, which is read; name another output"],
        );
        place.check(
            "model/new/../new/out",
            Kind::Bundle,
            expect!["DIR/model/new/../new/out is or lies in DIR/model, which is read; name another output"],
        );
        place.check(
            "model/out",
            Kind::Directory,
            expect!["DIR/model/out is or lies in DIR/model, which is read; name another output"],
        );
        place.check("", Kind::Directory, expect!["DIR/ contains DIR/model, which is read; name another output"]);
        place.check("new", Kind::Bundle, expect!["written"]);
        place.check("new", Kind::Directory, expect!["written"]);
        place.check("model-q4/out", Kind::Bundle, expect!["written"]);
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_nowhere_else() {
        use std::os::unix::fs::symlink;
        let place = Place::new();
        let path = |name: &str| place.0.path().join(name);
        symlink(path("model"), path("link")).unwrap();
        symlink(path("nowhere"), path("dangling")).unwrap();
        symlink(path("thesis.txt"), path("thesis")).unwrap();
        fs::hard_link(path("model/model.safetensors"), path("hard")).unwrap();
        place.check(
            "link/out",
            Kind::Bundle,
            expect!["DIR/link/out is or lies in DIR/model, which is read; name another output"],
        );
        place.check(
            "hard",
            Kind::Tensors,
            expect!["DIR/hard is or lies in DIR/model, which is read; name another output"],
        );
        place.check(
            "thesis",
            Kind::Bundle,
            expect!["DIR/thesis exists and is no bundle; name another output, or remove it first"],
        );
        place.check(
            "dangling",
            Kind::Bundle,
            expect!["DIR/dangling is a symbolic link to nothing; name another output, or remove it first"],
        );
        assert!(
            check(Path::new("/dev/null"), Kind::Tensors, &[]).unwrap_err().to_string().contains("no ordinary file")
        );
    }

    #[test]
    fn files_of_other_kinds_stay() {
        let place = Place::new();
        place.check(
            "thesis.txt",
            Kind::Bundle,
            expect!["DIR/thesis.txt exists and is no bundle; name another output, or remove it first"],
        );
        place.check(
            "thesis.txt",
            Kind::Tensors,
            expect!["DIR/thesis.txt exists and is no safetensors file; name another output, or remove it first"],
        );
        place.check("empty", Kind::Bundle, expect!["written"]);
        fs::create_dir(place.0.path().join("folder")).unwrap();
        place.check("folder", Kind::Bundle, expect!["DIR/folder is a directory; name the file to write"]);
    }
}
