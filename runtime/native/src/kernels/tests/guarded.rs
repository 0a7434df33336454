//! Memory behind which nothing can be touched.

use crate::memory::{Memory, View};

/// Memory, and a view of its last `bytes` bytes, rounded up to whole elements of 4: whoever touches what lies behind them ends the test.
pub fn guarded(bytes: usize) -> (Memory, View) {
    let memory = Memory::guarded(bytes.next_multiple_of(4)).unwrap();
    let view = memory.whole();
    (memory, view)
}
