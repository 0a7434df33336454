//! How much memory this process may still take, as the system tells it.

use std::fs;
use std::path::Path;

/// Memory that is left, and what limits it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Room {
    /// Bytes.
    pub bytes: u64,
    /// For people: `of this machine's memory`.
    pub limit: &'static str,
}

/// Bytes of memory that this process may still take before something is swapped or killed: what the machine has left, or less
/// where a control group or `ulimit -v` limits it. Pages of files do not count for the first two, as the kernel drops them when it must.
/// `None` where the system does not tell.
pub fn memory() -> Option<Room> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let room = |bytes: Option<u64>, limit| bytes.map(|bytes| Room { bytes, limit });
    let machine = room(kib(&read("/proc/meminfo"), "MemAvailable:"), "of this machine's memory");
    let group = room(limited(&read("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")), "of the control group's limit");
    let addresses = address_space(&read("/proc/self/limits"), &read("/proc/self/status"));
    [machine, group, room(addresses, "of the address space (ulimit -v)")].into_iter().flatten().min()
}

fn kib(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What is left of the address space, if it is limited; of `/proc/self/limits` and `/proc/self/status`.
fn address_space(limits: &str, status: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let soft: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(soft.saturating_sub(kib(status, "VmSize:")?))
}

/// What the control groups of a process leave to it; `groups` is its `/proc/PID/cgroup`, `root` where groups are mounted.
fn limited(groups: &str, root: &Path) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        // hierarchy:controllers:path, where version 2 has the hierarchy 0 and names no controllers.
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let unified = hierarchy == "0" && controllers.is_empty();
        let (root, limit, anonymous) = match controllers.split(',').any(|name| name == "memory") {
            true => (root.join("memory"), "memory.limit_in_bytes", "total_rss "),
            false if unified => (root.to_owned(), "memory.max", "anon "),
            false => continue,
        };
        for folder in Path::new(path.trim_start_matches('/')).ancestors().map(|path| root.join(path)) {
            least = least.into_iter().chain(left_in(&folder, limit, anonymous)).min();
        }
    }
    least
}

fn left_in(folder: &Path, limit: &str, anonymous: &str) -> Option<u64> {
    // A group without a limit says `max`, or in version 1 a number beyond all memory.
    let limit: u64 = fs::read_to_string(folder.join(limit)).ok()?.trim().parse().ok()?;
    let statistics = fs::read_to_string(folder.join("memory.stat")).ok()?;
    let used = statistics.lines().find_map(|line| line.strip_prefix(anonymous))?;
    Some(limit.saturating_sub(used.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_some_room() {
        if cfg!(target_os = "linux") {
            assert!(memory().unwrap().bytes > 0);
        }
    }

    #[test]
    fn available_memory_is_read_in_kibibytes() {
        let text = "MemTotal:  8 kB\nMemAvailable:    5 kB\n";
        assert_eq!(kib(text, "MemAvailable:"), Some(5 * 1024));
        assert_eq!(kib("MemAvailable: many\n", "MemAvailable:"), None);
        assert_eq!(kib("", "MemAvailable:"), None);
    }

    #[test]
    fn address_space_may_be_limited() {
        let limits =
            |soft: &str| format!("Limit Soft Hard Units\nMax address space         {soft}  unlimited  bytes\n");
        let status = "VmPeak: 9 kB\nVmSize:\t       3 kB\n";
        assert_eq!(address_space(&limits("8192"), status), Some(5 * 1024));
        assert_eq!(address_space(&limits("1024"), status), Some(0));
        assert_eq!(address_space(&limits("unlimited"), status), None);
        assert_eq!(address_space("", status), None);
    }

    #[test]
    fn groups_limit() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, limit: (&str, &str), statistics: &str| {
            let folder = root.path().join(path);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(limit.0), limit.1).unwrap();
            fs::write(folder.join("memory.stat"), statistics).unwrap();
        };
        group("memory", ("memory.limit_in_bytes", "9223372036854771712\n"), "total_rss 5\n");
        group("memory/a", ("memory.limit_in_bytes", "1000\n"), "cache 700\ntotal_rss 300\n");
        group("memory/a/b", ("memory.limit_in_bytes", "800\n"), "cache 700\ntotal_rss 50\n");
        let version_1 = |path: &str| limited(&format!("5:cpu,cpuacct:/x\n4:memory:{path}\n0::/\n"), root.path());
        assert_eq!(version_1("/"), Some(9223372036854771712 - 5));
        assert_eq!(version_1("/a/b"), Some(700), "the group above leaves less");
        group("user", ("memory.max", "max\n"), "anon 3\n");
        group("user/app", ("memory.max", "600\n"), "anon 700\nfile 9\n");
        assert_eq!(limited("0::/user/app\n", root.path()), Some(0), "more is used than allowed");
        assert_eq!(limited("0::/user\n", root.path()), None);
        assert_eq!(limited("nonsense\n", root.path()), None);
    }
}
