//! Sixteen lanes as arrays, for every processor; the compiler makes vector instructions of them where it can.

use half::f16;

use super::{LANES, Lanes};

/// No instruction set in particular.
#[derive(Clone, Copy)]
pub struct Portable;

type F = [f32; LANES];
type W = [u32; LANES];

macro_rules! lanewise {
    ($i:ident => $value:expr) => {{
        let mut out = [Default::default(); LANES];
        for $i in 0..LANES {
            out[$i] = $value;
        }
        out
    }};
}

// SAFETY: nothing but Rust's own operations is used.
unsafe impl Lanes for Portable {
    type F = F;
    type W = W;
    type P = W;
    const ROWS: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> F {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<F>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> F {
        // SAFETY: the caller's promise.
        let bits = unsafe { from.cast::<[u16; LANES]>().read_unaligned() };
        lanewise!(i => f16::from_bits(bits[i]).to_f32())
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: F) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<F>().write_unaligned(x) }
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, x: F) {
        let bits: [u16; LANES] = lanewise!(i => f16::from_f32(x[i]).to_bits());
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u16; LANES]>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        lanewise!(i => a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        lanewise!(i => a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        lanewise!(i => a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        lanewise!(i => a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        // Without an instruction for it, a fused operation would be a slow function.
        lanewise!(i => a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        lanewise!(i => if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        lanewise!(i => if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn abs(x: F) -> F {
        lanewise!(i => x[i].abs())
    }
    #[inline(always)]
    unsafe fn sum(mut x: F) -> f32 {
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                x[i] += x[i + half];
            }
            half /= 2;
        }
        x[0]
    }
    #[inline(always)]
    unsafe fn deinterleave(a: F, b: F) -> (F, F) {
        let pick = |odd: usize| {
            let mut out = [0.0; LANES];
            for i in 0..LANES / 2 {
                out[i] = a[2 * i + odd];
                out[i + LANES / 2] = b[2 * i + odd];
            }
            out
        };
        (pick(0), pick(1))
    }
    #[inline(always)]
    unsafe fn splat_word(x: i32) -> W {
        [x as u32; LANES]
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> W {
        // SAFETY: the caller's promise.
        unsafe { from.cast::<W>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn and(a: W, b: W) -> W {
        lanewise!(i => a[i] & b[i])
    }
    #[inline(always)]
    unsafe fn or(a: W, b: W) -> W {
        lanewise!(i => a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn add_words(a: W, b: W) -> W {
        lanewise!(i => a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    unsafe fn shift_right<const N: i32>(x: W) -> W {
        lanewise!(i => x[i] >> N)
    }
    #[inline(always)]
    unsafe fn shift_left<const N: i32>(x: W) -> W {
        lanewise!(i => x[i] << N)
    }
    #[inline(always)]
    unsafe fn to_f32(x: W) -> F {
        lanewise!(i => x[i] as i32 as f32)
    }
    #[inline(always)]
    unsafe fn round(x: F) -> W {
        // Adding 1.5 * 2^23 leaves no bits for a fraction, and the sum is rounded to nearest even.
        const SHIFT: f32 = 12_582_912.0;
        lanewise!(i => ((x[i] + SHIFT) - SHIFT) as i32 as u32)
    }
    #[inline(always)]
    unsafe fn from_bits(x: W) -> F {
        lanewise!(i => f32::from_bits(x[i]))
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut i8, x: W) {
        let bytes: [i8; LANES] = lanewise!(i => x[i] as i8);
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[i8; LANES]>().write_unaligned(bytes) }
    }
    #[inline(always)]
    unsafe fn products(start: i32) -> W {
        // SAFETY: see above.
        unsafe { Self::splat_word(start) }
    }
    #[inline(always)]
    unsafe fn dot4(mut sums: W, codes: W, x: i32) -> W {
        let x = x.to_le_bytes();
        for (j, x) in x.into_iter().enumerate() {
            let x = i32::from(x as i8);
            for i in 0..LANES {
                let code = (codes[i] >> (8 * j) & 0xff) as i32;
                sums[i] = sums[i].wrapping_add((code * x) as u32);
            }
        }
        sums
    }
    #[inline(always)]
    unsafe fn dot4_small(products: W, codes: W, x: i32) -> W {
        // SAFETY: see above.
        unsafe { Self::dot4(products, codes, x) }
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
    unsafe fn prefetch(_: *const u8) {}
    #[inline(always)]
    unsafe fn prefetch_far(_: *const u8) {}
}
