//! Memory behind which nothing can be touched.

use super::super::super::memory::{Memory, View};

/// Memory, and a view of its last `bytes` bytes, rounded up to whole elements of 4: whoever touches what lies behind them ends the test.
#[cfg(target_os = "linux")]
pub fn guarded(bytes: usize) -> (Memory, View) {
    // As large as pages are anywhere.
    const GUARD: usize = 64 << 10;
    let bytes = bytes.next_multiple_of(4);
    let end = bytes.next_multiple_of(GUARD);
    let memory = Memory::zeroed(end + GUARD).unwrap();
    let guard = memory.whole().address().wrapping_add(end).cast_mut();
    // SAFETY: the range is the last part of a mapping that nothing else knows of.
    let protected = unsafe { libc::mprotect(guard.cast(), GUARD, libc::PROT_NONE) };
    assert_eq!(protected, 0, "{}", std::io::Error::last_os_error());
    let view = memory.view((end - bytes) as u64, bytes as u64).unwrap();
    (memory, view)
}

/// Memory, and a view of it.
#[cfg(not(target_os = "linux"))]
pub fn guarded(bytes: usize) -> (Memory, View) {
    let bytes = bytes.next_multiple_of(4);
    let memory = Memory::zeroed(bytes).unwrap();
    let view = memory.view(0, bytes as u64).unwrap();
    (memory, view)
}
