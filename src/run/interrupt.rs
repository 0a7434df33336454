//! Ctrl-C: it stops the answer that is being written, and leaves the program to whoever waits for input.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

static STOP: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C set the flag instead of ending the program.
pub fn install() -> Result<()> {
    ctrlc::set_handler(|| {
        // A second Ctrl-C before anyone looked at the first: whatever runs cannot be stopped gently.
        if STOP.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
    })
    .context("cannot handle Ctrl-C")
}

/// The flag that whoever writes an answer watches.
pub fn flag() -> &'static AtomicBool {
    &STOP
}

/// Stops the answer, as Ctrl-C would: nobody can read it any more.
pub fn stop() {
    STOP.store(true, Ordering::SeqCst);
}

/// Whether Ctrl-C was pressed since the last call; forgets it.
pub fn take() -> bool {
    STOP.swap(false, Ordering::SeqCst)
}
