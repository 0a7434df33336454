//! Files mapped into memory, read-only, and what happens to a process whose file is shortened meanwhile.
//!
//! A page of a mapped file that is no longer there raises SIGBUS. [`exit_when_shortened`] turns that into one line on stderr
//! and an exit code, for the mappings of this module only.

#[cfg(unix)]
mod guard;

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a file; pages are read when touched and are the kernel's to drop.
#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
    file: File,
    #[cfg(unix)]
    _watched: guard::Watched,
}

impl Mapping {
    /// Maps the regular file at `path`.
    ///
    /// # Errors
    /// The system's, and one of kind `InvalidInput` for directories, devices, pipes and sockets, which are not opened.
    pub fn open(path: &Path) -> io::Result<Mapping> {
        // Opening a pipe would wait for its other end.
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            let what = if metadata.is_dir() { "it is a directory" } else { "it is not a regular file" };
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let file = File::open(path)?;
        // SAFETY: the mapping is private and read-only. A file that another process shortens while it is mapped raises SIGBUS,
        // which `exit_when_shortened` makes an orderly end; files that this program writes are replaced by renaming.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(Mapping {
            #[cfg(unix)]
            _watched: guard::Watched::new(&map, path),
            map,
            file,
        })
    }

    /// Tells the kernel that the file is about to be read from beginning to end. Only a hint: failures do not matter.
    pub fn will_read(&self) {
        #[cfg(unix)]
        let _ = self.map.advise(memmap2::Advice::Sequential);
    }

    /// Asks for large pages where the file is not in the page cache yet. Only a hint: failures do not matter.
    pub fn prefer_large_pages(&self) {
        #[cfg(target_os = "linux")]
        let _ = self.map.advise(memmap2::Advice::HugePage);
    }

    /// Unmaps the pages of `range` until they are touched again, so that they do not count as resident memory.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        // SAFETY: the mapping is of a file and never written, so dropped pages come back with the same contents.
        let _ =
            unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Whether the file is still as long as when it was mapped: the rest of a page that was cut reads as zeros.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn is_whole(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() >= self.map.len() as u64)
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// From now on, touching a page of a [`Mapping`] that its file no longer has ends the process with `code`, after one line on
/// stderr that names the file. All other faults go to the handler that was there before. Does nothing where faults of
/// mappings are no signals.
pub fn exit_when_shortened(code: u8) {
    #[cfg(unix)]
    guard::install(code);
    #[cfg(not(unix))]
    let _ = code;
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn only_regular_files_are_mapped() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |path: &Path| Mapping::open(path).unwrap_err().kind();
        assert_eq!(kind(folder.path()), io::ErrorKind::InvalidInput);
        assert_eq!(kind(&folder.path().join("missing")), io::ErrorKind::NotFound);
        let path = folder.path().join("file");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(&*Mapping::open(&path).unwrap(), b"abc");
    }

    /// A device is refused before anything of it is read.
    #[cfg(unix)]
    #[test]
    fn devices_are_not_mapped() {
        let error = Mapping::open(Path::new("/dev/zero")).unwrap_err();
        assert_eq!(error.to_string(), "it is not a regular file");
    }

    #[test]
    fn a_shorter_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![1; 100]).unwrap();
        let mapping = Mapping::open(&path).unwrap();
        assert!(mapping.is_whole().unwrap());
        File::options().write(true).open(&path).unwrap().set_len(50).unwrap();
        assert!(!mapping.is_whole().unwrap());
    }

    /// In a process of its own, as it ends: maps a file of this name, has it cut, and reads as `what` says.
    #[cfg(unix)]
    fn in_another_process(name: &str, what: &str) -> std::process::Output {
        let folder = tempfile::tempdir().unwrap();
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "mapping::tests::the_other_process", "--nocapture"])
            .env("DWINDLE_TEST_CUT", folder.path().join(name))
            .env("DWINDLE_TEST_READ", what)
            .output()
            .unwrap()
    }

    /// Does something only where [`in_another_process`] started it.
    #[cfg(unix)]
    #[test]
    fn the_other_process() {
        let (Some(path), Ok(what)) = (std::env::var_os("DWINDLE_TEST_CUT"), std::env::var("DWINDLE_TEST_READ")) else {
            return;
        };
        let path = Path::new(&path);
        std::fs::write(path, vec![1; 1 << 20]).unwrap();
        exit_when_shortened(6);
        let gone = Mapping::open(path).unwrap();
        drop(gone);
        let mapping = Mapping::open(path).unwrap();
        let cut = |length| File::options().write(true).open(path).unwrap().set_len(length).unwrap();
        let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
        match what.as_str() {
            "here" => {
                cut(4096);
                println!("sum {}", sum(&mapping));
            }
            "thread" => {
                cut(0);
                std::thread::scope(|scope| scope.spawn(|| println!("sum {}", sum(&mapping))).join().unwrap());
            }
            // What is still there can be read.
            "kept" => {
                cut(8192);
                println!("sum {}", sum(&mapping[..8192]));
            }
            // Not a mapping of this module: the signal ends the process as it always did.
            "foreign" => {
                // SAFETY: the file is cut and read nowhere else.
                let map = unsafe { Mmap::map(&File::open(path).unwrap()) }.unwrap();
                drop(mapping);
                cut(4096);
                println!("sum {}", sum(&map));
            }
            _ => unreachable!("there are four ways"),
        }
    }

    #[cfg(unix)]
    #[test]
    fn reading_what_was_cut_ends_with_one_line() {
        for what in ["here", "thread"] {
            let output = in_another_process("model.dwindle", what);
            assert_eq!(output.status.code(), Some(6), "{what}: {output:?}");
            assert_eq!(
                String::from_utf8_lossy(&output.stderr),
                "error: `model.dwindle` was shortened by another program while it was in use; copy or make it again\n"
            );
        }
        let output = in_another_process("kept", "kept");
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("sum 8192"), "{output:?}");
    }

    #[cfg(unix)]
    #[test]
    fn names_are_printed_without_escapes() {
        let output = in_another_process("a\x1b]52;c;\u{202e}b\n\u{9b}", "here");
        assert_eq!(output.status.code(), Some(6), "{output:?}");
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(line.starts_with("error: `a?]52;c;?b??` was shortened"), "{line:?}");
        let long = in_another_process(&"ä".repeat(120), "here");
        assert!(String::from_utf8_lossy(&long.stderr).contains(&"ä".repeat(100)), "{long:?}");
    }

    #[cfg(unix)]
    #[test]
    fn other_faults_are_left_alone() {
        use std::os::unix::process::ExitStatusExt;
        let output = in_another_process("foreign", "foreign");
        assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
    }
}
