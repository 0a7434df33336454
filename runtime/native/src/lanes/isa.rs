//! Which instruction set is used: the best that the processor has, or the one that `DWINDLE_CPU` names.

use std::fmt;

use super::Lanes;
use super::portable::Portable;

/// What is done with some instruction set.
pub trait Work {
    /// Whether it is made of dot products of 8-bit numbers, so that VNNI is worth being compiled for.
    const DOTS: bool = false;

    /// Does it; `#[inline(always)]`.
    ///
    /// # Safety
    /// The processor has the instruction set of `L`.
    unsafe fn run<L: Lanes>(&self);
}

/// The processor lacks the instruction set that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are no kernels for `{wanted}` on this processor; there are: {}", available.join(", "))]
pub struct Unavailable {
    /// Its name.
    pub wanted: String,
    /// Names of those that can be used.
    pub available: Vec<String>,
}

/// An instruction set that kernels exist for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstructionSet {
    /// None in particular.
    Portable,
    /// AVX2, FMA, F16C.
    Avx2,
    /// The same, and VNNI for registers of 256 bits.
    AvxVnni,
    /// AVX-512 with VNNI.
    Avx512,
    /// The same, and tile registers for products of many rows.
    Amx,
    /// NEON with dot products.
    Neon,
}

impl InstructionSet {
    /// All of them, the slowest first.
    pub const ALL: [InstructionSet; 6] = [
        InstructionSet::Portable,
        InstructionSet::Avx2,
        InstructionSet::AvxVnni,
        InstructionSet::Avx512,
        InstructionSet::Amx,
        InstructionSet::Neon,
    ];

    /// The name in `DWINDLE_CPU`.
    pub const fn name(self) -> &'static str {
        match self {
            InstructionSet::Portable => "portable",
            InstructionSet::Avx2 => "avx2",
            InstructionSet::AvxVnni => "avxvnni",
            InstructionSet::Avx512 => "avx512",
            InstructionSet::Amx => "amx",
            InstructionSet::Neon => "neon",
        }
    }

    /// Whether products of many rows use tile registers.
    pub fn has_tiles(self) -> bool {
        self == InstructionSet::Amx
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            InstructionSet::Portable => true,
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::AvxVnni => {
                let evex = is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512vnni");
                InstructionSet::Avx2.is_available() && (evex || is_x86_feature_detected!("avxvnni"))
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Avx512 => {
                InstructionSet::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            InstructionSet::Amx => {
                InstructionSet::Avx512.is_available()
                    && is_x86_feature_detected!("avx512bf16")
                    && super::amx::is_available()
            }
            #[cfg(target_arch = "aarch64")]
            InstructionSet::Neon => {
                std::arch::is_aarch64_feature_detected!("neon") && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[allow(unreachable_patterns, reason = "others are those of other processors")]
            _ => false,
        }
    }

    /// The best there is, or the one called `wanted`.
    ///
    /// # Errors
    /// [`Unavailable`], also where it is unknown.
    pub fn choose(wanted: Option<&str>) -> Result<InstructionSet, Unavailable> {
        let available: Vec<_> = Self::ALL.into_iter().filter(|set| set.is_available()).collect();
        match wanted {
            None => Ok(available.last().copied().unwrap_or(InstructionSet::Portable)),
            Some(name) => available.iter().find(|set| set.name() == name).copied().ok_or_else(|| {
                let available = available.iter().map(|set| set.name().to_owned()).collect();
                Unavailable { wanted: name.to_owned(), available }
            }),
        }
    }

    /// Does `work` with this instruction set, which must be available.
    pub fn run<W: Work>(self, work: &W) {
        match self {
            // SAFETY: there is nothing that a processor could lack.
            InstructionSet::Portable => unsafe { work.run::<Portable>() },
            #[cfg(target_arch = "x86_64")]
            InstructionSet::AvxVnni if W::DOTS => match is_x86_feature_detected!("avxvnni") {
                // SAFETY: the processor has it.
                true => unsafe { super::avx2::run_vex(work) },
                // SAFETY: `choose` gives only what the processor has, one of the two.
                false => unsafe { super::avx2::run_evex(work) },
            },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `choose` gives only what the processor has.
            InstructionSet::Avx2 | InstructionSet::AvxVnni => unsafe { super::avx2::run(work) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `choose` gives only what the processor has.
            InstructionSet::Avx512 | InstructionSet::Amx => unsafe { super::avx512::run(work) },
            #[cfg(target_arch = "aarch64")]
            // SAFETY: `choose` gives only what the processor has.
            InstructionSet::Neon => unsafe { super::neon::run(work) },
            #[allow(unreachable_patterns, reason = "others are those of other processors")]
            _ => unreachable!("`choose` gives only what the processor has"),
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
