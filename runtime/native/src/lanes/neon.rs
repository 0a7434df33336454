//! Sixteen lanes in four registers: NEON with dot products (ARMv8.2 and later: Cortex-A55 and A75, Neoverse, Apple M1).

use std::arch::aarch64::*;
use std::arch::asm;

use super::Lanes;
use super::isa::Work;

/// NEON and its dot products of bytes.
#[derive(Clone, Copy)]
pub struct Neon;

/// Does `work` with the instruction set.
///
/// # Safety
/// The processor has what [`Neon`] names.
#[target_feature(enable = "neon,dotprod")]
pub unsafe fn run(work: &impl Work) {
    // SAFETY: the caller's promise is what `Work` asks for.
    unsafe { work.run::<Neon>() }
}

type F = [float32x4_t; 4];
type W = [uint32x4_t; 4];

/// `$value` for each of the four registers.
macro_rules! each {
    ($i:ident => $value:expr) => {
        // SAFETY: the trait's contract; pointers are moved within 16 elements.
        unsafe {
            [
                {
                    const $i: usize = 0;
                    $value
                },
                {
                    const $i: usize = 1;
                    $value
                },
                {
                    const $i: usize = 2;
                    $value
                },
                {
                    const $i: usize = 3;
                    $value
                },
            ]
        }
    };
}

// SAFETY: every function is made of instructions that the caller promises to have, and of unaligned accesses to 16 elements.
unsafe impl Lanes for Neon {
    type F = F;
    type W = W;
    type P = W;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        each!(I => { let _ = I; vdupq_n_f32(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> F {
        each!(I => vld1q_f32(from.add(4 * I)))
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> F {
        each!(I => vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.add(4 * I)))))
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: F) {
        each!(I => vst1q_f32(to.add(4 * I), x[I]));
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, x: F) {
        each!(I => vst1_u16(to.add(4 * I), vreinterpret_u16_f16(vcvt_f16_f32(x[I]))));
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        each!(I => vaddq_f32(a[I], b[I]))
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        each!(I => vsubq_f32(a[I], b[I]))
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        each!(I => vmulq_f32(a[I], b[I]))
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        each!(I => vdivq_f32(a[I], b[I]))
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        each!(I => vfmaq_f32(c[I], a[I], b[I]))
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        each!(I => vmaxnmq_f32(a[I], b[I]))
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        each!(I => vminnmq_f32(a[I], b[I]))
    }
    #[inline(always)]
    unsafe fn abs(x: F) -> F {
        each!(I => vabsq_f32(x[I]))
    }
    #[inline(always)]
    unsafe fn sum(x: F) -> f32 {
        // SAFETY: the trait's contract, as in all functions below.
        unsafe {
            let four = vaddq_f32(vaddq_f32(x[0], x[2]), vaddq_f32(x[1], x[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        }
    }
    #[inline(always)]
    unsafe fn deinterleave(a: F, b: F) -> (F, F) {
        let pairs = [(a[0], a[1]), (a[2], a[3]), (b[0], b[1]), (b[2], b[3])];
        (each!(I => vuzp1q_f32(pairs[I].0, pairs[I].1)), each!(I => vuzp2q_f32(pairs[I].0, pairs[I].1)))
    }
    #[inline(always)]
    unsafe fn splat_word(x: i32) -> W {
        each!(I => { let _ = I; vreinterpretq_u32_s32(vdupq_n_s32(x)) })
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> W {
        each!(I => vld1q_u32(from.add(4 * I)))
    }
    #[inline(always)]
    unsafe fn and(a: W, b: W) -> W {
        each!(I => vandq_u32(a[I], b[I]))
    }
    #[inline(always)]
    unsafe fn or(a: W, b: W) -> W {
        each!(I => vorrq_u32(a[I], b[I]))
    }
    #[inline(always)]
    unsafe fn add_words(a: W, b: W) -> W {
        each!(I => vaddq_u32(a[I], b[I]))
    }
    #[inline(always)]
    unsafe fn shift_right<const N: i32>(x: W) -> W {
        each!(I => vshrq_n_u32::<N>(x[I]))
    }
    #[inline(always)]
    unsafe fn shift_left<const N: i32>(x: W) -> W {
        each!(I => vshlq_n_u32::<N>(x[I]))
    }
    #[inline(always)]
    unsafe fn to_f32(x: W) -> F {
        each!(I => vcvtq_f32_s32(vreinterpretq_s32_u32(x[I])))
    }
    #[inline(always)]
    unsafe fn round(x: F) -> W {
        each!(I => vreinterpretq_u32_s32(vcvtnq_s32_f32(x[I])))
    }
    #[inline(always)]
    unsafe fn from_bits(x: W) -> F {
        each!(I => vreinterpretq_f32_u32(x[I]))
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut i8, x: W) {
        // SAFETY: see above.
        unsafe {
            let low = vcombine_u16(vmovn_u32(x[0]), vmovn_u32(x[1]));
            let high = vcombine_u16(vmovn_u32(x[2]), vmovn_u32(x[3]));
            vst1q_u8(to.cast(), vcombine_u8(vmovn_u16(low), vmovn_u16(high)));
        }
    }
    #[allow(unused_unsafe, reason = "the macro is unsafe by itself elsewhere")]
    #[inline(always)]
    unsafe fn dot4(sums: W, codes: W, x: i32) -> W {
        // SAFETY: see above.
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
            // Bytes are signed here: codes less 128, whose product with x is added again.
            let product = vshlq_n_u32::<1>(dot(vdupq_n_u32(0), vdupq_n_s8(64), x));
            each!(I => {
                let less = veorq_u8(vreinterpretq_u8_u32(codes[I]), vdupq_n_u8(0x80));
                dot(vaddq_u32(sums[I], product), vreinterpretq_s8_u8(less), x)
            })
        }
    }
    #[inline(always)]
    unsafe fn products(start: i32) -> W {
        // SAFETY: see above.
        unsafe { Self::splat_word(start) }
    }
    #[allow(unused_unsafe, reason = "the macro is unsafe by itself elsewhere")]
    #[inline(always)]
    unsafe fn dot4_small(products: W, codes: W, x: i32) -> W {
        // SAFETY: see above.
        unsafe {
            let x = vreinterpretq_s8_s32(vdupq_n_s32(x));
            each!(I => dot(products[I], vreinterpretq_s8_u32(codes[I]), x))
        }
    }
    #[inline(always)]
    unsafe fn settle(products: W) -> W {
        products
    }
    #[inline(always)]
    unsafe fn sums(products: W) -> W {
        products
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { asm!("prfm pldl1keep, [{0}]", in(reg) from, options(readonly, nostack, preserves_flags)) }
    }
    #[inline(always)]
    unsafe fn prefetch_far(from: *const u8) {
        // SAFETY: a prefetch never faults.
        unsafe { asm!("prfm pldl2keep, [{0}]", in(reg) from, options(readonly, nostack, preserves_flags)) }
    }
}

/// Adds the product of each four bytes to a word. Written as an instruction, as its function is not stable yet.
///
/// # Safety
/// The processor has dot products.
#[inline(always)]
unsafe fn dot(mut sums: uint32x4_t, codes: int8x16_t, x: int8x16_t) -> uint32x4_t {
    // SAFETY: only registers are used; the caller has the instruction.
    unsafe {
        asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {codes:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums,
            codes = in(vreg) codes,
            x = in(vreg) x,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}
