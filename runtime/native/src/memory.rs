//! Memory of a plan's buffers, and views of it that steps work on.
//!
//! All members of the team have views of the same memory at the same time. What keeps that sound: a step's shares write
//! different elements, no share reads what another share of the same phase writes, and phases are separated by barriers.
//! Views of what may be written give cells, which may overlap; plain slices are given only of ranges that no step's
//! kernel writes, which is checked when a step is bound.

use std::cell::Cell;

use bytemuck::Pod;
use dwindle_bundle::SharedEntry;
use memmap2::{MmapOptions, MmapRaw};

/// Buffers begin at multiples of this many bytes: a cache line, and the widest register.
pub const ALIGNMENT: usize = 64;

/// One buffer.
#[derive(Debug)]
pub enum Memory {
    /// Anonymous memory, zeroed; pages exist when they are first written, and are given back when this is dropped, which
    /// an allocator does not promise.
    Owned(MmapRaw),
    /// An entry of the bundle, where it lies; never written.
    Entry(SharedEntry),
    /// The last so many bytes of a mapping but its guard.
    #[cfg(any(test, feature = "guard-pages"))]
    Guarded(MmapRaw, std::ops::Range<usize>),
}

impl Memory {
    /// Zeroed memory, or `None` where there is not as much.
    pub fn zeroed(bytes: usize) -> Option<Memory> {
        // Mappings begin at pages, and are not empty.
        MmapOptions::new().len(bytes.max(ALIGNMENT)).map_anon().ok().map(|map| Memory::Owned(map.into()))
    }

    /// Zeroed memory of which no byte behind the last can be touched, where the system is asked in a way that is known here; begins at a multiple of 4,
    /// or of [`ALIGNMENT`] where `bytes` is one.
    #[cfg(any(test, feature = "guard-pages"))]
    pub fn guarded(bytes: usize) -> Option<Memory> {
        // As large as pages are anywhere.
        const GUARD: usize = 64 << 10;
        let end = bytes.checked_next_multiple_of(GUARD)?;
        let map = MmapRaw::from(MmapOptions::new().len(end.checked_add(GUARD)?).map_anon().ok()?);
        #[cfg(target_os = "linux")]
        {
            let guard = map.as_mut_ptr().wrapping_add(end);
            // SAFETY: the range is the last part of a mapping that nothing else knows of.
            let protected = unsafe { libc::mprotect(guard.cast(), GUARD, libc::PROT_NONE) };
            assert_eq!(protected, 0, "{}", std::io::Error::last_os_error());
        }
        let begin = end - bytes.next_multiple_of(4);
        Some(Memory::Guarded(map, begin..begin + bytes))
    }

    /// The entry itself, if it lies at an aligned address.
    pub fn entry(entry: SharedEntry) -> Option<Memory> {
        (entry.as_ptr().align_offset(ALIGNMENT) == 0).then_some(Memory::Entry(entry))
    }

    /// `bytes` bytes from `offset` on, if they exist and are aligned for 4-byte elements.
    pub fn view(&self, offset: u64, bytes: u64) -> Option<View> {
        let (offset, bytes) = (usize::try_from(offset).ok()?, usize::try_from(bytes).ok()?);
        let end = offset.checked_add(bytes)?;
        let whole = self.whole();
        let fits = end <= whole.bytes && offset.is_multiple_of(4);
        fits.then(|| View { first: whole.first.wrapping_add(offset), bytes, ..whole })
    }
}

impl Memory {
    /// All of it.
    pub fn whole(&self) -> View {
        let (first, bytes, writable) = match self {
            Memory::Owned(map) => (map.as_ptr(), map.len(), true),
            Memory::Entry(entry) => (entry.as_ptr(), entry.len(), false),
            #[cfg(any(test, feature = "guard-pages"))]
            Memory::Guarded(map, range) => (map.as_ptr().wrapping_add(range.start), range.len(), true),
        };
        View { first, bytes, writable }
    }
}

/// A range of a buffer that outlives it: the program owns the buffer and drops it after the steps.
#[derive(Clone, Copy, Debug)]
pub struct View {
    first: *const u8,
    bytes: usize,
    writable: bool,
}

// SAFETY: a view is an address; what is done with it follows the rules of this module.
unsafe impl Send for View {}
// SAFETY: see above.
unsafe impl Sync for View {}

impl View {
    /// Bytes of the range.
    pub fn byte_len(&self) -> usize {
        self.bytes
    }

    /// The first byte; what is done with it follows the rules of this module.
    pub fn address(&self) -> *const u8 {
        self.first
    }

    /// Whether it may be written.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether both begin at the same byte.
    pub fn begins_with(&self, other: &View) -> bool {
        self.first == other.first
    }

    /// Fills the beginning, between calls; as many bytes as there are in both.
    pub fn write(&self, bytes: &[u8]) {
        assert!(self.writable, "weights are never written");
        // SAFETY: between calls no other thread touches buffers, and the program that owns this one is borrowed.
        let cells = unsafe { self.cells::<u8>() };
        cells.iter().zip(bytes).for_each(|(cell, &byte)| cell.set(byte));
    }

    /// Copies everything out, between calls.
    pub fn read_into(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        // SAFETY: between calls no other thread touches buffers, and the program that owns this one is borrowed.
        bytes.extend_from_slice(unsafe { self.slice() });
    }

    /// Whether some byte belongs to both.
    pub fn overlaps(&self, other: &View) -> bool {
        let (a, b) = (self.first as usize, other.first as usize);
        a < b + other.bytes && b < a + self.bytes
    }

    /// The elements of a range that nothing writes while the slice lives.
    ///
    /// # Safety
    /// The buffer is alive, and the range is not written during the step.
    pub unsafe fn slice<'a, T: Pod>(&self) -> &'a [T] {
        debug_assert!(self.first.cast::<T>().is_aligned());
        // SAFETY: `Memory::view` checked range and alignment; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.first.cast(), self.bytes / size_of::<T>()) }
    }

    /// The elements of a range that may be read and written.
    ///
    /// # Safety
    /// The buffer is alive; elements that this thread touches are touched by no other before the next barrier, unless all
    /// only read them.
    pub unsafe fn cells<'a, T: Pod>(&self) -> &'a [Cell<T>] {
        debug_assert!(self.first.cast::<T>().is_aligned());
        // SAFETY: as for `slice`; cells may alias.
        unsafe { std::slice::from_raw_parts(self.first.cast(), self.bytes / size_of::<T>()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_zero_and_bounded() {
        let memory = Memory::zeroed(100).unwrap();
        let view = memory.view(0, 100).unwrap();
        // SAFETY: one thread, and the memory lives to the end of the test.
        let cells = unsafe { view.cells::<f32>() };
        assert_eq!(cells.as_ptr().align_offset(ALIGNMENT), 0);
        assert_eq!(cells.len(), 25);
        assert!(cells.iter().all(|x| x.get() == 0.0));
        assert!(memory.view(4, 97).is_none() && memory.view(2, 4).is_none() && memory.view(u64::MAX, 8).is_none());
        assert!(
            memory.view(96, 4).unwrap().overlaps(&view)
                && !memory.view(0, 4).unwrap().overlaps(&memory.view(4, 4).unwrap())
        );
        assert!(Memory::zeroed(usize::MAX - 10).is_none());
    }
}
