//! How much room this machine has now: free disk where something is to be written, and memory that a process may still take.

use std::path::Path;

/// Bytes that may still be written where `target` is or will be; `None` where the system does not tell.
pub fn disk(target: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let existing = target.ancestors().find(|path| path.exists());
        // A relative path has the empty one as its last ancestor.
        let existing = existing.unwrap_or(Path::new("."));
        let info = rustix::fs::statvfs(existing).ok()?;
        Some(info.f_bavail.saturating_mul(info.f_frsize))
    }
    #[cfg(not(unix))]
    {
        let _ = target;
        None
    }
}

/// Bytes of memory that this process may still take; see [`dwindle_bundle::room::memory`].
pub fn memory() -> Option<u64> {
    dwindle_bundle::room::memory().map(|room| room.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_some_room() {
        let folder = tempfile::tempdir().unwrap();
        let there = disk(folder.path());
        assert_eq!(there.is_some(), cfg!(unix));
        assert_eq!(disk(&folder.path().join("not/yet/there")).is_some(), there.is_some());
        assert_eq!(disk(Path::new("not-yet-there")).is_some(), there.is_some());
        if cfg!(target_os = "linux") {
            assert!(memory().unwrap() > 0);
        }
    }
}
