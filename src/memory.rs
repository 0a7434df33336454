//! What this process takes of memory, as the system tells it.

/// The most memory this process had resident at once, in bytes; `None` where the system does not tell.
pub fn peak_bytes() -> Option<u64> {
    status("VmHWM:")
}

/// Memory that is no mapping of a file, resident now, in bytes; `None` where the system does not tell.
pub fn anonymous_bytes() -> Option<u64> {
    status("RssAnon:")
}

/// Memory that is resident now, mappings of files included, in bytes; `None` where the system does not tell.
pub fn resident_bytes() -> Option<u64> {
    status("VmRSS:")
}

fn status(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
