//! How fast this machine reads memory: a stream by as many threads as the model uses, the bound of what decoding can reach.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use anyhow::{Context, Result};
use memmap2::MmapMut;

/// Bytes that are read: more than caches hold, where the machine has the memory.
const MOST: u64 = 1 << 30;

/// With less than this, caches would be measured.
const LEAST: u64 = 64 << 20;

/// Times that all is read; the fastest counts, because everything else that happens on the machine only slows down.
const PASSES: usize = 6;

/// Values that are combined at once, enough for several registers of any width.
const LANES: usize = 64;

/// Bytes a second that `threads` threads read together, each its own part, from large pages where the system has them.
///
/// # Errors
/// There is no memory for the buffer.
pub fn measure(threads: usize) -> Result<f64> {
    let room = dwindle_compiler::room::memory().unwrap_or(4 * LEAST);
    measure_over((room / 4).clamp(LEAST, MOST) as usize, threads)
}

fn measure_over(bytes: usize, threads: usize) -> Result<f64> {
    let mut buffer = MmapMut::map_anon(bytes).context("no memory to measure the bandwidth with")?;
    // A wish: without it pages are small, and the measured bandwidth is that of small pages.
    #[cfg(target_os = "linux")]
    let _ = buffer.advise(memmap2::Advice::HugePage);
    // Pages that were never written all are the same page of zeros.
    buffer.fill(1);
    let (words, _) = buffer.as_chunks::<8>();
    let part = words.len().div_ceil(threads.max(1));
    let barrier = Barrier::new(words.chunks(part).len());
    // Threads look at the clock themselves: one that only waited for them might get its core too late to see them begin.
    let spans: Vec<[(Instant, Instant); PASSES]> = std::thread::scope(|scope| {
        let reader = |part| {
            let barrier = &barrier;
            scope.spawn(move || {
                std::array::from_fn(|_| {
                    barrier.wait();
                    let begun = Instant::now();
                    black_box(read(part));
                    (begun, Instant::now())
                })
            })
        };
        let readers: Vec<_> = words.chunks(part).map(reader).collect();
        readers.into_iter().map(|reader| reader.join().expect("reading does not panic")).collect()
    });
    let seconds = |pass: usize| {
        let begun = spans.iter().map(|span| span[pass].0).min()?;
        let ended = spans.iter().map(|span| span[pass].1).max()?;
        Some(ended.duration_since(begun).as_secs_f64())
    };
    let fastest = (0..PASSES).filter_map(seconds).fold(f64::MAX, f64::min);
    Ok(bytes as f64 / fastest)
}

/// Combines all words, so that each is really read.
fn read(words: &[[u8; 8]]) -> u64 {
    let (blocks, rest) = words.as_chunks::<LANES>();
    let mut lanes = [0u64; LANES];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane ^= u64::from_ne_bytes(*word);
        }
    }
    lanes.into_iter().chain(rest.iter().map(|word| u64::from_ne_bytes(*word))).fold(0, |all, word| all ^ word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read() {
        let mut words = vec![[0u8; 8]; 3 * LANES + 5];
        for place in [0, LANES - 1, 2 * LANES + 7, 3 * LANES, 3 * LANES + 4] {
            words[place] = 7u64.to_ne_bytes();
            assert_eq!(read(&words), 7, "word {place}");
            words[place] = [0; 8];
        }
        assert_eq!(read(&words), 0);
    }

    #[test]
    fn a_rate_is_measured_for_any_number_of_threads() {
        for threads in [1, 2, 7] {
            let rate = measure_over(1 << 20, threads).unwrap();
            assert!(rate.is_finite() && rate > 0.0, "{threads} threads: {rate}");
        }
    }
}
