//! A reader that fails when its source drips: sends now and then a byte, so that no single read times out.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// How long a source may stay below [`LEAST`] bytes.
const WINDOW: Duration = Duration::from_secs(60);
/// The least bytes of a window: a quarter of what the slowest mobile networks bring.
pub(super) const LEAST: u64 = 64 << 10;

/// Passes on what a source sends, as long as it sends enough. Only time spent waiting for the source counts.
#[derive(Debug)]
pub(super) struct Paced<R> {
    source: R,
    window: Duration,
    least: u64,
    waited: Duration,
    bytes: u64,
}

impl<R: Read> Paced<R> {
    pub(super) fn new(source: R) -> Self {
        Self::with(source, WINDOW, LEAST)
    }

    fn with(source: R, window: Duration, least: u64) -> Self {
        Paced { source, window, least, waited: Duration::ZERO, bytes: 0 }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = Instant::now();
        let count = self.source.read(buffer)?;
        self.waited += asked.elapsed();
        self.bytes += count as u64;
        if self.waited >= self.window && count > 0 {
            if self.bytes < self.least {
                let reason = format!("only {} bytes came in {} s", self.bytes, self.waited.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            (self.waited, self.bytes) = (Duration::ZERO, 0);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Waits before each read, then gives up to `count` bytes, `reads` times.
    struct Source {
        pause: Duration,
        count: usize,
        reads: usize,
    }

    impl Read for Source {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            std::thread::sleep(self.pause);
            let count = if self.reads == 0 { 0 } else { self.count.min(buffer.len()) };
            self.reads = self.reads.saturating_sub(1);
            Ok(count)
        }
    }

    fn read(pause_ms: u64, count: usize, reads: usize) -> io::Result<u64> {
        let source = Source { pause: Duration::from_millis(pause_ms), count, reads };
        io::copy(&mut Paced::with(source, Duration::from_millis(50), 100), &mut io::sink())
    }

    #[test]
    fn a_drip_is_a_failure() {
        let error = read(5, 1, 100_000).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().starts_with("only "), "{error}");
    }

    #[test]
    fn what_is_short_or_fast_enough_passes() {
        assert_eq!(read(0, 1, 3).unwrap(), 3);
        // Slow, but more than the least in each window.
        assert_eq!(read(20, 100, 10).unwrap(), 1000);
    }
}
