//! SIGTERM and SIGHUP: they end the program at once, whatever it waits for or computes, and leave nothing behind.
//!
//! A thread of its own waits for them. It removes what destructors would have removed, gives the terminal back as it
//! was, and lets the signal do what it does by default, so that whoever sent it sees that the program ended by it
//! (a shell says 143 or 129). Where the program was started with a signal ignored, as by `nohup`, it stays so.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use anyhow::Result;

/// Folders that only this process needs.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

fn temporary() -> MutexGuard<'static, Vec<PathBuf>> {
    // A list of paths cannot be left half-changed.
    TEMPORARY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// While this lives, a folder goes when a signal ends the program. Removing it otherwise is its owner's business.
#[derive(Debug)]
pub struct Temporary(PathBuf);

impl Temporary {
    /// Puts the folder on the list.
    pub fn new(path: &Path) -> Self {
        temporary().push(path.to_owned());
        Temporary(path.to_owned())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let mut list = temporary();
        if let Some(at) = list.iter().position(|path| *path == self.0) {
            list.swap_remove(at);
        }
    }
}

/// Ctrl-C's signal.
pub const INTERRUPT: i32 = 2;

/// Begins to listen.
///
/// # Errors
/// The system has no thread or no handler to spare.
#[cfg(unix)]
pub fn install() -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGTERM};
    listen(&[SIGTERM, SIGHUP], None)
}

/// Begins to listen, for Ctrl-C as well: the first signal is handed to `first`, which ends the program in order; the
/// second one ends it at once.
///
/// # Errors
/// The system has no thread or no handler to spare.
#[cfg(unix)]
pub fn install_with(first: impl Fn(i32) + Send + 'static) -> Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    listen(&[SIGINT, SIGTERM, SIGHUP], Some(Box::new(first)))
}

#[cfg(unix)]
type First = Box<dyn Fn(i32) + Send>;

#[cfg(unix)]
fn listen(signals: &[i32], first: Option<First>) -> Result<()> {
    use anyhow::Context;
    use signal_hook::iterator::Signals;

    let heard: Vec<i32> = signals.iter().copied().filter(|signal| !is_ignored(*signal)).collect();
    let mut signals = Signals::new(heard).context("cannot handle signals")?;
    let terminal = Terminal::now();
    let listen = move || {
        let mut arriving = signals.forever();
        if let Some(first) = first
            && let Some(signal) = arriving.next()
        {
            first(signal);
        }
        if let Some(signal) = arriving.next() {
            terminal.restore();
            end(signal);
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(listen).context("cannot wait for signals")?;
    Ok(())
}

/// Ends the program by a signal, as whoever sent it expects.
#[cfg(unix)]
pub fn end(signal: i32) -> ! {
    // Held to the end: nothing is put on the list any more, and nothing is taken off it.
    let temporary = temporary();
    for path in temporary.iter() {
        let _ = std::fs::remove_dir_all(path);
    }
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    std::process::exit(128 + signal);
}

/// Other systems know Ctrl-C alone.
///
/// # Errors
/// The system has no handler to spare.
#[cfg(not(unix))]
pub fn install_with(first: impl Fn(i32) + Send + 'static) -> Result<()> {
    use anyhow::Context;
    ctrlc::set_handler(move || first(INTERRUPT)).context("cannot handle Ctrl-C")
}

/// Ends the program.
#[cfg(not(unix))]
pub fn end(signal: i32) -> ! {
    std::process::exit(128 + signal)
}

/// Other systems end programs without asking them.
#[cfg(not(unix))]
pub fn install() -> Result<()> {
    Ok(())
}

/// Whether the program was started with the signal ignored. Only Linux says so without `unsafe`.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// The terminal's settings, which reading a line changes.
#[cfg(unix)]
struct Terminal(Option<rustix::termios::Termios>);

#[cfg(unix)]
impl Terminal {
    fn now() -> Self {
        Terminal(rustix::termios::tcgetattr(std::io::stdin()).ok())
    }

    fn restore(&self) {
        let Some(settings) = &self.0 else { return };
        let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, settings);
        crate::output::leave_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_on_the_list_while_they_are_needed() {
        let path = Path::new("a folder of this test");
        let (first, second) = (Temporary::new(path), Temporary::new(path));
        let count = || temporary().iter().filter(|listed| *listed == path).count();
        assert_eq!(count(), 2);
        drop(first);
        assert_eq!(count(), 1);
        drop(second);
        assert_eq!(count(), 0);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn signals_that_nobody_ignores() {
        // Rust's runtime ignores SIGPIPE (13); nothing ignores SIGSEGV (11).
        assert!(is_ignored(13) && !is_ignored(11));
    }
}
