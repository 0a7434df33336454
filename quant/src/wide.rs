//! The one place where instruction sets are chosen: a loop compiled twice, for any x86-64 and for those with AVX2.
//!
//! Both come from the same source without fused multiply-adds, so results are equal bit for bit. Other architectures
//! (NEON is part of every AArch64) compile it once.

/// A computation worth compiling for wider vectors. `run` and what it calls per value must be `#[inline(always)]`,
/// or it stays compiled for the base instruction set.
pub(crate) trait Wide {
    /// What it gives.
    type Output;

    /// Computes it.
    fn run(self) -> Self::Output;
}

/// `work.run()` with the widest vectors that are compiled in and that this machine has.
pub(crate) fn run<W: Wide>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2<W: Wide>(work: W) -> W::Output {
            work.run()
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the machine has AVX2.
            return unsafe { avx2(work) };
        }
    }
    work.run()
}
