//! Files mapped into memory, read-only.

use std::fs::File;
use std::ops::{Deref, Range};
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// The bytes of a file; pages are read when touched and are the kernel's to drop.
///
/// The file must not be truncated or written while it is mapped, which the directories' rule "write aside, then
/// rename" guarantees for files that this crate writes.
#[derive(Debug)]
pub struct Mapping {
    map: Mmap,
}

impl Mapping {
    /// Maps the file at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let metadata = file.metadata().map_err(Error::io("read", path))?;
        if !metadata.is_file() {
            return Err(Error::io("map", path)(std::io::Error::other("it is not a regular file")));
        }
        // SAFETY: the mapping is private and read-only; that nobody truncates or writes the file meanwhile is the
        // documented condition of this type, as for every program that maps files.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Ok(Mapping { map })
    }

    /// Tells the kernel that the file is about to be read from beginning to end. Only a hint: failures do not matter.
    pub fn will_read(&self) {
        #[cfg(unix)]
        let _ = self.map.advise(memmap2::Advice::Sequential);
    }

    /// Unmaps the pages of `range` until they are touched again, so that they do not count as resident memory.
    pub fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        // SAFETY: the mapping is of a file and never written, so dropped pages come back with the same content.
        let _ =
            unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, range.start, range.len()) };
        #[cfg(not(unix))]
        let _ = range;
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
