//! How far ahead of the reading weights are asked for, which decides how much of the memory's bandwidth one thread reaches.

use std::sync::OnceLock;

use crate::lanes::Lanes;

/// Distances in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Into the first cache.
    near: usize,
    /// Into the second cache, where that is asked for as well.
    far: Option<usize>,
}

/// For weights that come from the second cache, and for those from memory on processors that nothing is known of. Measured on
/// Intel (Sapphire Rapids): without the farther one a core has too few requests under way.
const COMMON: Ahead = Ahead { near: 1024, far: Some(16 << 10) };

/// Measured on AMD (Zen 4): a farther one into the second cache costs a fifth of a core's bandwidth, one distance of a page
/// reaches all of it.
const AMD: Ahead = Ahead { near: 4096, far: None };

/// The same for scales, of which there are fewer bytes.
const SCALES: usize = 2048;

impl Ahead {
    /// What suits this processor.
    pub fn of_processor() -> Ahead {
        // Asking a virtual processor what it is takes tens of microseconds.
        static CHOSEN: OnceLock<Ahead> = OnceLock::new();
        *CHOSEN.get_or_init(|| if is_amd() { AMD } else { COMMON })
    }

    /// Asks for what follows `codes`: from memory with the two records of one row of activations; with more, the block is in the second cache.
    ///
    /// # Safety
    /// The processor has the instruction set of `L`.
    #[inline(always)]
    pub unsafe fn codes<L: Lanes, const R: usize>(self, codes: *const u32) {
        let from = codes.cast::<u8>();
        // SAFETY: the caller's promise; prefetches need not be within anything.
        unsafe {
            if R > 2 {
                return L::prefetch(from.wrapping_add(COMMON.near));
            }
            L::prefetch(from.wrapping_add(self.near));
            if let Some(far) = self.far {
                L::prefetch_far(from.wrapping_add(far));
            }
        }
    }

    /// Asks for what follows `scales`.
    ///
    /// # Safety
    /// The processor has the instruction set of `L`.
    #[inline(always)]
    pub unsafe fn scales<L: Lanes, const R: usize>(self, scales: *const u8) {
        if R <= 2 {
            // SAFETY: the caller's promise; prefetches need not be within anything.
            unsafe { L::prefetch_far(scales.wrapping_add(SCALES)) };
        }
    }
}

/// Whether AMD, or Hygon with AMD's design, made the processor.
#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let leaf = std::arch::x86_64::__cpuid(0);
    let name = [leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes);
    matches!(name.as_flattened(), b"AuthenticAMD" | b"HygonGenuine")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_amd() -> bool {
    false
}
