//! What a step between checkpoint and bundle takes, known before it begins, and whether this machine has that.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::room;
use crate::size::Size;

/// Disk that an output takes besides its weights and carried files: its description, directories, the file system's own.
pub(crate) const SPARE_DISK: u64 = 2 << 20;

/// The needs of one step. All figures are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Work {
    /// What is done: `convert`, `quantize`, `compile`.
    pub step: &'static str,
    /// What is read, downloads included.
    pub bytes_in: u64,
    /// What has to be downloaded of it.
    pub bytes_to_download: u64,
    /// What is there afterwards.
    pub bytes_out: u64,
    /// Disk that is needed besides the output while the step runs.
    pub bytes_meanwhile: u64,
    /// Memory at the worst moment, the pages of mapped files aside, which the kernel drops when it must.
    pub peak_memory: u64,
}

impl Work {
    /// Disk that must be free before the step begins.
    pub fn disk(&self) -> u64 {
        self.bytes_out.saturating_add(self.bytes_meanwhile)
    }

    /// Checks that there is disk for an output at `target`, and memory.
    ///
    /// # Errors
    /// [`Error::DiskSpace`] or [`Error::Memory`], with what is needed and what there is. Where the system does not tell what
    /// there is, nothing is refused.
    pub fn check(&self, target: &Path) -> Result<()> {
        self.check_against(target, room::disk(target), room::memory())
    }

    fn check_against(&self, target: &Path, disk: Option<u64>, memory: Option<u64>) -> Result<()> {
        if let Some(available) = disk.filter(|available| *available < self.disk()) {
            return Err(Error::DiskSpace { path: target.to_owned(), needed: self.disk(), available });
        }
        if let Some(available) = memory.filter(|available| *available < self.peak_memory) {
            return Err(Error::Memory { step: self.step, needed: self.peak_memory, available });
        }
        Ok(())
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} in", self.step, Size(self.bytes_in))?;
        if self.bytes_to_download > 0 {
            write!(f, " ({} to download)", Size(self.bytes_to_download))?;
        }
        let [out, disk, memory] = [self.bytes_out, self.disk(), self.peak_memory].map(Size);
        write!(f, ", {out} out; needs {disk} of disk, {memory} of memory")
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn work() -> Work {
        Work {
            step: "quantize",
            bytes_in: 5 << 30,
            bytes_to_download: 0,
            bytes_out: 3 << 29,
            bytes_meanwhile: 1 << 29,
            peak_memory: 90 << 20,
        }
    }

    #[test]
    fn what_is_told() {
        expect!["quantize: 5.0 GiB in, 1.5 GiB out; needs 2.0 GiB of disk, 90.0 MiB of memory"]
            .assert_eq(&work().to_string());
        expect!["quantize: 5.0 GiB in (3.0 GiB to download), 1.5 GiB out; needs 2.0 GiB of disk, 90.0 MiB of memory"]
            .assert_eq(&Work { bytes_to_download: 3 << 30, ..work() }.to_string());
        expect![[r#"{"step":"quantize","bytes_in":5368709120,"bytes_to_download":0,"bytes_out":1610612736,"bytes_meanwhile":536870912,"peak_memory":94371840}"#]]
            .assert_eq(&serde_json::to_string(&work()).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let check = |disk, memory, expected: Expect| {
            let told = match work().check_against(Path::new("out"), disk, memory) {
                Ok(()) => "fits".to_owned(),
                Err(error) => error.to_string(),
            };
            expected.assert_eq(&told);
        };
        check(None, None, expect!["fits"]);
        check(Some(2 << 30), Some(90 << 20), expect!["fits"]);
        check(
            Some((2 << 30) - 1),
            None,
            expect![
                "out: the output takes 2.0 GiB, the file system has 2.0 GiB left; free some or choose another place"
            ],
        );
        check(
            Some(2 << 30),
            Some(50 << 20),
            expect![
                "quantize needs 90.0 MiB of memory, 50.0 MiB are left; close other programs, raise the limit of the control group, or use fewer threads (RAYON_NUM_THREADS)"
            ],
        );
    }
}
