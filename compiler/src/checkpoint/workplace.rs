//! The folder `NAME.partial` beside an output `NAME`, in which the output is made: owned by one process at a time, cleaned up by the
//! next one when its owner was killed.
//!
//! It holds the [`JOURNAL`], which also proves that the folder is ours, [`NEW`] (what is being made), perhaps [`SOURCE`] (what it is made of), and for a moment [`OLD`]
//! (what the output replaces, where the two cannot be exchanged at once). The owner holds a lock on the folder, which the system
//! releases however the owner ends: whoever gets the lock knows that nobody is at work here.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The first file of a workplace, and the last to be removed. Its first line says what is being made.
const JOURNAL: &str = "dwindle-journal";

/// What is being made.
const NEW: &str = "new";

/// What the output is made of, where that does not stay.
const SOURCE: &str = "source";

/// What was at the output's place before.
const OLD: &str = "old";

/// An owned workplace. Dropping it removes it with all its content, unless that is kept for the next owner.
#[derive(Debug)]
pub struct Workplace {
    path: PathBuf,
    target: PathBuf,
    /// Locked while this value lives.
    _folder: Option<File>,
    kept: bool,
}

impl Workplace {
    /// Takes the workplace of an output at `target`, whose parent directory is made if it is not there. What a dead owner left is
    /// still in it; see [`clear`](Self::clear).
    ///
    /// # Errors
    /// Another process is at work there; or something is there that is no workplace.
    pub fn claim(target: &Path) -> Result<Self> {
        let name = target.file_name().ok_or_else(|| Error::OutputOccupied {
            path: target.to_owned(),
            reason: "is a place without a name of its own".to_owned(),
        })?;
        let parent = parent(target);
        fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
        let mut own_name = name.to_owned();
        own_name.push(".partial");
        let path = parent.join(own_name);
        let folder = loop {
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => check_ours(&path)?,
                Err(error) => return Err(Error::io("write in", &parent)(error)),
            }
            if let Some(folder) = lock(&path, target)? {
                break folder;
            }
        };
        let workplace = Workplace { path, target: target.to_owned(), _folder: folder, kept: false };
        // Others may have filled the folder before it was ours.
        check_ours(&workplace.path)?;
        workplace.recover()?;
        Ok(workplace)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the output is made. The folder itself is not.
    pub fn new_path(&self) -> PathBuf {
        self.path.join(NEW)
    }

    /// Where files may be kept that the output is made of.
    pub(crate) fn source_path(&self) -> PathBuf {
        self.path.join(SOURCE)
    }

    /// The journal's file.
    pub(crate) fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Whether a dead owner left work for the same `purpose`.
    pub(crate) fn is_for(&self, purpose: &str) -> Result<bool> {
        let journal = self.journal();
        let file = match File::open(&journal) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            file => file.map_err(Error::io("open", &journal))?,
        };
        let mut first = Vec::new();
        let line = format!("{purpose}\n").into_bytes();
        file.take(line.len() as u64).read_to_end(&mut first).map_err(Error::io("read", &journal))?;
        Ok(first == line)
    }

    /// Removes what a dead owner left, and writes `purpose`, one line, as the beginning of the journal.
    pub fn clear(&self, purpose: &str) -> Result<()> {
        for name in [NEW, SOURCE, OLD] {
            remove(&self.path.join(name))?;
        }
        let journal = self.journal();
        fs::write(&journal, format!("{purpose}\n")).map_err(Error::io("write", &journal))?;
        sync(&journal)?;
        sync(&self.path)
    }

    /// Whether all stays when this value is dropped, for the next owner to continue.
    pub(crate) fn keep(&mut self, kept: bool) {
        self.kept = kept;
    }

    /// Gives `made`, a file or a directory somewhere in [`new_path`](Self::new_path), the place of the output; what is there is
    /// removed, and so is the workplace.
    ///
    /// Where the system can exchange two names, the output is never missing: it is the old or the new one. Elsewhere the old one
    /// is moved into the workplace first, from where the next owner would restore it, should the machine stop in between.
    pub fn commit(self, made: &Path) -> Result<()> {
        sync_all(made)?;
        let error = Error::io("write", &self.target);
        match self.target.symlink_metadata() {
            // A file replaces another one in one step everywhere.
            Ok(there) if !(there.is_file() && made.is_file()) => {
                if !exchange(made, &self.target) {
                    fs::rename(&self.target, self.path.join(OLD)).map_err(Error::io("replace", &self.target))?;
                    // What was there before must survive.
                    fs::rename(made, &self.target).inspect_err(|_| drop(self.recover())).map_err(error)?;
                }
            }
            _ => fs::rename(made, &self.target).map_err(error)?,
        }
        sync(&parent(&self.target))?;
        self.remove()
    }

    /// Puts back what a dead owner moved aside and did not replace.
    fn recover(&self) -> Result<()> {
        let old = self.path.join(OLD);
        if old.exists() && self.target.symlink_metadata().is_err() {
            fs::rename(&old, &self.target).map_err(Error::io("restore", &self.target))?;
        }
        Ok(())
    }

    /// The journal goes last: without it nobody would know whose the rest is.
    fn remove(&self) -> Result<()> {
        for name in [NEW, SOURCE, OLD, JOURNAL] {
            remove(&self.path.join(name))?;
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &self.path)(error)),
            _ => Ok(()),
        }
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed now, the next owner will.
            let _ = self.remove();
        }
    }
}

fn parent(target: &Path) -> PathBuf {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Checks that what lies at `path` is a workplace, or an empty folder, as one that was just made. That it has vanished meanwhile
/// is fine.
fn check_ours(path: &Path) -> Result<()> {
    let in_the_way = |reason: String| Err(Error::OutputOccupied { path: path.to_owned(), reason });
    match path.symlink_metadata() {
        Ok(metadata) if !metadata.is_dir() => return in_the_way("is not a directory".to_owned()),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("read", path)(error)),
        _ => {}
    }
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io("read", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(Error::io("read", path))?.file_name().to_string_lossy().into_owned());
    }
    let is_ours = |name: &String| [JOURNAL, NEW, SOURCE, OLD].contains(&name.as_str());
    if !names.is_empty() && !names.iter().any(|name| name == JOURNAL) {
        return in_the_way("was not made by this program, which needs the name".to_owned());
    }
    names.retain(|name| !is_ours(name));
    names.sort();
    if names.is_empty() { Ok(()) } else { in_the_way(format!("holds files that are not ours: {}", names.join(", "))) }
}

/// Locks the folder; `Ok(None)` if it was removed meanwhile.
#[cfg(unix)]
fn lock(path: &Path, target: &Path) -> Result<Option<Option<File>>> {
    use std::os::unix::fs::MetadataExt;
    let folder = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        folder => folder.map_err(Error::io("open", path))?,
    };
    match folder.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Err(Error::OutputBusy { path: target.to_owned() }),
        Err(fs::TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
    }
    // Its owner may have removed it, and somebody else made another one, between opening and locking.
    let locked = folder.metadata().map_err(Error::io("read", path))?;
    match path.metadata() {
        Ok(there) if (there.dev(), there.ino()) == (locked.dev(), locked.ino()) => Ok(Some(Some(folder))),
        _ => Ok(None),
    }
}

/// Folders cannot be locked here: that nobody else is at work is for the user to see to.
#[cfg(not(unix))]
fn lock(_path: &Path, _target: &Path) -> Result<Option<Option<File>>> {
    Ok(Some(None))
}

/// Exchanges two names in one step, where system and file system can.
fn exchange(one: &Path, other: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (one, other);
        false
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes a file, or a directory with its files, durable.
fn sync_all(path: &Path) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).map_err(Error::io("read", path))? {
            sync(&entry.map_err(Error::io("read", path))?.path())?;
        }
    }
    sync(path)
}

/// Makes a file, or the entries of a directory, durable.
fn sync(path: &Path) -> Result<()> {
    #[cfg(unix)]
    File::open(path).and_then(|file| file.sync_all()).map_err(Error::io("write", path))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    /// Makes a directory with one file in a workplace.
    fn make(workplace: &Workplace, content: &str) {
        workplace.clear("test").unwrap();
        fs::create_dir(workplace.new_path()).unwrap();
        fs::write(workplace.new_path().join("file"), content).unwrap();
    }

    #[test]
    fn the_output_appears_whole_and_nothing_else_stays() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("deep/out");
        for content in ["first", "second"] {
            let workplace = Workplace::claim(&target).unwrap();
            make(&workplace, content);
            let made = workplace.new_path();
            workplace.commit(&made).unwrap();
            assert_eq!(fs::read_to_string(target.join("file")).unwrap(), content);
            assert_eq!(names(&root.path().join("deep")), ["out"]);
        }
        // A file, too.
        let workplace = Workplace::claim(&root.path().join("bundle")).unwrap();
        workplace.clear("test").unwrap();
        fs::write(workplace.new_path(), "bundle").unwrap();
        let made = workplace.new_path();
        workplace.commit(&made).unwrap();
        assert_eq!(names(root.path()), ["bundle", "deep"]);
    }

    #[test]
    fn a_dropped_workplace_leaves_nothing_and_a_kept_one_all() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        make(&Workplace::claim(&target).unwrap(), "x");
        assert_eq!(names(root.path()), [""; 0]);
        let mut workplace = Workplace::claim(&target).unwrap();
        make(&workplace, "x");
        workplace.keep(true);
        drop(workplace);
        assert_eq!(names(&root.path().join("out.partial")), [JOURNAL, NEW]);
        drop(Workplace::claim(&target).unwrap());
        assert_eq!(names(root.path()), [""; 0]);
    }

    #[cfg(unix)]
    #[test]
    fn one_owner_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        let first = Workplace::claim(&target).unwrap();
        make(&first, "x");
        let error = Workplace::claim(&target).unwrap_err().to_string();
        expect!["DIR/out is being written by another process; wait for it, or name another output"]
            .assert_eq(&error.replace(&root.path().display().to_string(), "DIR"));
        assert!(first.new_path().join("file").exists(), "the other's work is untouched");
        drop(first);
        Workplace::claim(&target).unwrap();
    }

    /// Where names cannot be exchanged: stopped after the old output was moved aside.
    #[test]
    fn an_output_moved_aside_is_restored() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("out");
        let mut workplace = Workplace::claim(&target).unwrap();
        make(&workplace, "new");
        let old = workplace.path.join(OLD);
        fs::create_dir(&old).unwrap();
        fs::write(old.join("file"), "old").unwrap();
        workplace.keep(true);
        drop(workplace);
        let workplace = Workplace::claim(&target).unwrap();
        assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "old");
        drop(workplace);
        assert_eq!(names(root.path()), ["out"]);
    }

    #[test]
    fn what_is_not_ours_stays() {
        let check = |prepare: &dyn Fn(&Path), expected: Expect| {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("out.partial");
            prepare(&path);
            let before = path.is_dir().then(|| names(&path));
            let error = Workplace::claim(&root.path().join("out")).unwrap_err().to_string();
            expected.assert_eq(&error.replace(&root.path().display().to_string(), "DIR"));
            assert_eq!(path.is_dir().then(|| names(&path)), before);
        };
        check(
            &|path| fs::write(path, "mine").unwrap(),
            expect!["DIR/out.partial exists and is not a directory; name another output directory, or remove it first"],
        );
        check(
            &|path| {
                fs::create_dir(path).unwrap();
                fs::write(path.join("new"), "mine").unwrap();
            },
            expect![
                "DIR/out.partial exists and was not made by this program, which needs the name; name another output directory, or remove it first"
            ],
        );
        check(
            &|path| {
                fs::create_dir(path).unwrap();
                fs::write(path.join(JOURNAL), "").unwrap();
                fs::write(path.join("thesis.txt"), "mine").unwrap();
            },
            expect![
                "DIR/out.partial exists and holds files that are not ours: thesis.txt; name another output directory, or remove it first"
            ],
        );
        #[cfg(unix)]
        check(
            &|path| std::os::unix::fs::symlink("elsewhere", path).unwrap(),
            expect!["DIR/out.partial exists and is not a directory; name another output directory, or remove it first"],
        );
        let error = Workplace::claim(Path::new("/")).unwrap_err().to_string();
        expect!["/ exists and is a place without a name of its own; name another output directory, or remove it first"]
            .assert_eq(&error);
    }
}
