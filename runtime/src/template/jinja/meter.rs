//! What a rendering may take: steps, bytes and depth, each counted before it is taken.
//!
//! Every evaluated expression and statement is a step; whatever reads or writes text or lists is charged for its
//! size too, so steps bound time. Texts and lists hold their bytes as long as they live. Recursion over the
//! template and over values counts its levels, so depth bounds the native stack.

use std::cell::Cell;
use std::rc::Rc;

use super::fault::{Fault, Result};

/// The most steps of a rendering; a real template takes some hundreds a message. Fuzzing would spend its time on loops.
pub(crate) const MOST_STEPS: u64 = if cfg!(fuzzing) { 20_000 } else { 5_000_000 };
/// The most bytes that the values of a rendering hold at one moment, its output included.
pub(crate) const MOST_BYTES: usize = if cfg!(fuzzing) { 1 << 20 } else { 64 << 20 };
/// The most levels of expressions, statements, macros and values within each other while rendering.
pub(crate) const MOST_DEPTH: usize = 400;
/// The most lists within each other.
pub(crate) const MOST_NESTING: u32 = 100;
/// Bytes that are read or written in one step.
const BYTES_A_STEP: usize = 16;

/// Counts what one rendering takes.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    steps: Cell<u64>,
    /// Bytes that were read or written since the last whole step.
    touched: Cell<usize>,
    bytes: Cell<usize>,
    depth: Cell<usize>,
}

impl Meter {
    /// Takes `count` steps.
    pub(crate) fn steps(&self, count: u64) -> Result<()> {
        let steps = self.steps.get().saturating_add(count);
        self.steps.set(steps);
        if steps > MOST_STEPS { Err(Fault::Limit(format!("{MOST_STEPS} steps"))) } else { Ok(()) }
    }

    /// Takes one step.
    pub(crate) fn step(&self) -> Result<()> {
        self.steps(1)
    }

    /// Takes the steps of reading or writing `bytes`.
    pub(crate) fn touch(&self, bytes: usize) -> Result<()> {
        // Touching nothing takes time too.
        let touched = self.touched.get().saturating_add(bytes).saturating_add(1);
        self.touched.set(touched % BYTES_A_STEP);
        self.steps((touched / BYTES_A_STEP) as u64)
    }

    /// Takes memory until the result is dropped.
    pub(crate) fn hold(self: &Rc<Self>, bytes: usize) -> Result<Held> {
        let mut held = Held { meter: self.clone(), bytes: 0 };
        held.grow(bytes)?;
        Ok(held)
    }

    /// Goes one level deeper until the result is dropped.
    pub(crate) fn enter(self: &Rc<Self>) -> Result<Level> {
        let depth = self.depth.get() + 1;
        if depth > MOST_DEPTH {
            return Err(Fault::Limit(format!("{MOST_DEPTH} levels of nesting")));
        }
        self.depth.set(depth);
        Ok(Level { meter: self.clone() })
    }
}

/// Memory that is taken.
#[derive(Debug)]
pub(crate) struct Held {
    meter: Rc<Meter>,
    bytes: usize,
}

impl Held {
    /// Takes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<()> {
        let all = self.meter.bytes.get().saturating_add(bytes);
        if all > MOST_BYTES {
            return Err(Fault::Limit(format!("{MOST_BYTES} bytes")));
        }
        self.meter.bytes.set(all);
        self.bytes += bytes;
        self.meter.touch(bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.bytes.set(self.meter.bytes.get() - self.bytes);
    }
}

/// One level of recursion.
#[derive(Debug)]
pub(crate) struct Level {
    meter: Rc<Meter>,
}

impl Drop for Level {
    fn drop(&mut self) {
        self.meter.depth.set(self.meter.depth.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_and_refused_beyond_the_limit() {
        let meter = Rc::new(Meter::default());
        for _ in 0..4 {
            let mut held = meter.hold(MOST_BYTES / 8).unwrap();
            assert!(matches!(held.grow(MOST_BYTES), Err(Fault::Limit(_))));
        }
        assert_eq!(meter.bytes.get(), 0);
    }

    #[test]
    fn depth_is_given_back_and_refused_beyond_the_limit() {
        let meter = Rc::new(Meter::default());
        let mut levels: Vec<Level> = (0..MOST_DEPTH).map(|_| meter.enter().unwrap()).collect();
        assert!(meter.enter().is_err());
        levels.pop();
        assert!(meter.enter().is_ok());
    }
}
