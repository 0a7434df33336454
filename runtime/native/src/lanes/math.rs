//! Functions of sixteen lanes: exp, tanh, activations.

use dwindle_bundle::native::Activation;

use super::Lanes;

/// e^x, with a relative error of about 2e-7; 0 below -87, 2^127 and more above 88.
///
/// x = n ln 2 + r with |r| ≤ ln 2 / 2; e^r by Taylor's polynomial of degree 6, whose error is below 2e-7 there; 2^n by its bits.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub unsafe fn exp<L: Lanes>(x: L::F) -> L::F {
    // SAFETY: the caller's promise.
    unsafe {
        let x = L::max(L::min(x, L::splat(88.0)), L::splat(-87.3));
        let n = L::round(L::mul(x, L::splat(std::f32::consts::LOG2_E)));
        let turns = L::to_f32(n);
        // ln 2 in two parts, the first of few bits, so that its product is exact.
        let r = L::fma(turns, L::splat(-0.693_359_4), x);
        let r = L::fma(turns, L::splat(2.121_944_4e-4), r);
        let mut p = L::splat(1.0 / 720.0);
        for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            p = L::fma(p, r, L::splat(c));
        }
        let power = L::from_bits(L::shift_left::<23>(L::add_words(n, L::splat_word(127))));
        L::mul(p, power)
    }
}

/// 1 / (1 + e^-x).
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub unsafe fn sigmoid<L: Lanes>(x: L::F) -> L::F {
    // SAFETY: the caller's promise.
    unsafe {
        let one = L::splat(1.0);
        L::div(one, L::add(one, exp::<L>(L::sub(L::splat(0.0), x))))
    }
}

/// cap tanh(x / cap), where `tanh u = 2 σ(2u) - 1`.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub unsafe fn soft_cap<L: Lanes>(x: L::F, cap: f32) -> L::F {
    // SAFETY: the caller's promise.
    unsafe {
        let s = sigmoid::<L>(L::mul(x, L::splat(2.0 / cap)));
        L::mul(L::splat(cap), L::fma(s, L::splat(2.0), L::splat(-1.0)))
    }
}

/// An activation; Φ by Abramowitz & Stegun 7.1.26, whose error is at most 1.5e-7.
///
/// # Safety
/// The processor has the instruction set of `L`.
#[inline(always)]
pub unsafe fn activate<L: Lanes>(activation: Activation, x: L::F) -> L::F {
    // SAFETY: the caller's promise.
    unsafe {
        match activation {
            Activation::Silu => L::mul(x, sigmoid::<L>(x)),
            Activation::QuickGelu => L::mul(x, sigmoid::<L>(L::mul(x, L::splat(1.702)))),
            // `1 + tanh(u) = 2 σ(2u)` with u = √(2/π) (x + 0.044715 x³).
            Activation::GeluTanh => {
                let cubic = L::fma(L::mul(x, x), L::splat(0.044_715), L::splat(1.0));
                L::mul(x, sigmoid::<L>(L::mul(L::mul(x, L::splat(1.595_769)), cubic)))
            }
            Activation::Gelu => {
                let z = L::mul(L::abs(x), L::splat(std::f32::consts::FRAC_1_SQRT_2));
                let t = L::div(L::splat(1.0), L::fma(z, L::splat(0.327_591_1), L::splat(1.0)));
                let mut series = L::splat(1.061_405_4);
                for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6, 0.0] {
                    series = L::fma(series, t, L::splat(c));
                }
                // The part beyond |x| on one side: x Φ(x) = max(x, 0) - |x| tail.
                let square = L::sub(L::splat(0.0), L::mul(z, z));
                let tail = L::mul(L::mul(series, L::splat(0.5)), exp::<L>(square));
                L::sub(L::max(x, L::splat(0.0)), L::mul(L::abs(x), tail))
            }
        }
    }
}
