//! Time, where the platform has any: WebAssembly without a host's help has not.

use std::time::SystemTime;

/// Measures seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch {
    #[cfg(not(target_family = "wasm"))]
    started: std::time::Instant,
}

impl Stopwatch {
    /// Starts.
    pub(crate) fn start() -> Stopwatch {
        Stopwatch {
            #[cfg(not(target_family = "wasm"))]
            started: std::time::Instant::now(),
        }
    }

    /// Seconds since the start; 0 where there is no clock.
    pub(crate) fn seconds(self) -> f64 {
        #[cfg(not(target_family = "wasm"))]
        return self.started.elapsed().as_secs_f64();
        #[cfg(target_family = "wasm")]
        0.0
    }
}

/// The time of day; the beginning of 1970 where there is no clock.
pub(crate) fn now() -> SystemTime {
    if cfg!(target_family = "wasm") { SystemTime::UNIX_EPOCH } else { SystemTime::now() }
}
