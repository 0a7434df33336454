//! How many threads are worth having: physical cores that this process may use.

use std::collections::BTreeSet;
use std::path::Path;

/// Physical cores, but no more than the processors that affinity and cgroup quota leave to this process.
pub fn default_threads() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    match physical_cores(Path::new("/sys/devices/system/cpu")) {
        Some(cores) => allowed.min(cores),
        None => allowed,
    }
}

/// Cores of this machine: processors with the same siblings are one. `None` where the system does not say.
fn physical_cores(folder: &Path) -> Option<usize> {
    let mut cores = BTreeSet::new();
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix("cpu"));
        if digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit())) {
            // Processors that are switched off have no topology.
            cores.extend(std::fs::read_to_string(entry.path().join("topology/thread_siblings_list")));
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn siblings_are_one_core() {
        let folder = std::env::temp_dir().join(format!("dwindle-topology-{}", std::process::id()));
        for (cpu, siblings) in [("cpu0", "0,2"), ("cpu1", "1,3"), ("cpu2", "0,2"), ("cpu3", "1,3"), ("cpufreq", "9")] {
            let topology = folder.join(cpu).join("topology");
            std::fs::create_dir_all(&topology).unwrap();
            std::fs::write(topology.join("thread_siblings_list"), siblings).unwrap();
        }
        std::fs::create_dir_all(folder.join("cpu4")).unwrap();
        assert_eq!(physical_cores(&folder), Some(2));
        assert_eq!(physical_cores(&folder.join("nothing")), None);
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(default_threads() >= 1);
    }
}
