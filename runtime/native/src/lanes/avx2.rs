//! Sixteen lanes in two registers: AVX2 with FMA (Haswell, Zen and later), and VNNI where there is one (Alder Lake and later).

use std::arch::x86_64::*;

use super::Lanes;
use super::isa::Work;

/// AVX2, FMA and F16C, and for dot products what `DOTS` says: [`PAIRS`], [`VEX`] or [`EVEX`].
#[derive(Clone, Copy)]
pub struct Avx2<const DOTS: u8>;

/// Dot products by AVX2: products of two are added in 16 bits.
pub const PAIRS: u8 = 0;
/// By AVX-VNNI.
pub const VEX: u8 = 1;
/// By the VNNI of AVX-512, which is the same in another encoding: for processors that have just this one.
pub const EVEX: u8 = 2;

/// Does `work` with AVX2 alone.
///
/// # Safety
/// The processor has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub unsafe fn run(work: &impl Work) {
    // SAFETY: the caller's promise is what `Work` asks for.
    unsafe { work.run::<Avx2<PAIRS>>() }
}

/// Does `work` with AVX-VNNI as well.
///
/// # Safety
/// The processor has AVX2, FMA, F16C and AVX-VNNI.
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
pub unsafe fn run_vex(work: &impl Work) {
    // SAFETY: the caller's promise is what `Work` asks for.
    unsafe { work.run::<Avx2<VEX>>() }
}

/// Does `work` with the VNNI of AVX-512 as well.
///
/// # Safety
/// The processor has AVX2, FMA, F16C, and VL and VNNI of AVX-512.
#[target_feature(enable = "avx2,fma,f16c,avx512vl,avx512vnni")]
pub unsafe fn run_evex(work: &impl Work) {
    // SAFETY: the caller's promise is what `Work` asks for.
    unsafe { work.run::<Avx2<EVEX>>() }
}

/// The sum of eight lanes: lane i with i + 4, then with i + 2, and so on.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
pub(super) unsafe fn sum8(x: __m256) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
        _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
    }
}

type F = (__m256, __m256);
type W = (__m256i, __m256i);

/// Sums of products.
#[derive(Clone, Copy)]
pub struct P {
    /// Sums of two products, in 16 bits; only of [`PAIRS`].
    pairs: W,
    /// In 32 bits.
    sums: W,
}

// SAFETY: every function is made of intrinsics that the caller promises to have, and of unaligned accesses to 16 elements.
unsafe impl<const DOTS: u8> Lanes for Avx2<DOTS> {
    type F = F;
    type W = W;
    type P = P;
    // The same whatever the dots: what prepares rows for products is compiled for `PAIRS` alone.
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> F {
        // SAFETY: the trait's contract, as in all functions below.
        unsafe { (_mm256_set1_ps(x), _mm256_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_cvtph_ps(_mm_loadu_si128(from.cast())), _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast()))) }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, x: F) {
        // SAFETY: see above.
        unsafe {
            _mm256_storeu_ps(to, x.0);
            _mm256_storeu_ps(to.add(8), x.1)
        }
    }
    #[inline(always)]
    unsafe fn store_f16(to: *mut u16, x: F) {
        // SAFETY: see above.
        unsafe {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x.0));
            _mm_storeu_si128(to.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x.1))
        }
    }
    #[inline(always)]
    unsafe fn add(a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_add_ps(a.0, b.0), _mm256_add_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn sub(a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_sub_ps(a.0, b.0), _mm256_sub_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn mul(a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_mul_ps(a.0, b.0), _mm256_mul_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn div(a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_div_ps(a.0, b.0), _mm256_div_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn max(a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_max_ps(a.0, b.0), _mm256_max_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn min(a: F, b: F) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_min_ps(a.0, b.0), _mm256_min_ps(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn fma(a: F, b: F, c: F) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_fmadd_ps(a.0, b.0, c.0), _mm256_fmadd_ps(a.1, b.1, c.1)) }
    }
    #[inline(always)]
    unsafe fn abs(x: F) -> F {
        // SAFETY: see above.
        unsafe {
            let sign = _mm256_set1_ps(-0.0);
            (_mm256_andnot_ps(sign, x.0), _mm256_andnot_ps(sign, x.1))
        }
    }
    #[inline(always)]
    unsafe fn sum(x: F) -> f32 {
        // SAFETY: see above.
        unsafe { sum8(_mm256_add_ps(x.0, x.1)) }
    }
    #[inline(always)]
    unsafe fn deinterleave(a: F, b: F) -> (F, F) {
        // SAFETY: see above.
        unsafe {
            let (a, b) = (halves(a), halves(b));
            ((a.0, b.0), (a.1, b.1))
        }
    }
    #[inline(always)]
    unsafe fn splat_word(x: i32) -> W {
        // SAFETY: see above.
        unsafe { (_mm256_set1_epi32(x), _mm256_set1_epi32(x)) }
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> W {
        // SAFETY: see above.
        unsafe { (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())) }
    }
    #[inline(always)]
    unsafe fn and(a: W, b: W) -> W {
        // SAFETY: see above.
        unsafe { (_mm256_and_si256(a.0, b.0), _mm256_and_si256(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn or(a: W, b: W) -> W {
        // SAFETY: see above.
        unsafe { (_mm256_or_si256(a.0, b.0), _mm256_or_si256(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn add_words(a: W, b: W) -> W {
        // SAFETY: see above.
        unsafe { (_mm256_add_epi32(a.0, b.0), _mm256_add_epi32(a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn shift_right<const N: i32>(x: W) -> W {
        // SAFETY: see above.
        unsafe { (_mm256_srli_epi32::<N>(x.0), _mm256_srli_epi32::<N>(x.1)) }
    }
    #[inline(always)]
    unsafe fn shift_left<const N: i32>(x: W) -> W {
        // SAFETY: see above.
        unsafe { (_mm256_slli_epi32::<N>(x.0), _mm256_slli_epi32::<N>(x.1)) }
    }
    #[inline(always)]
    unsafe fn to_f32(x: W) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_cvtepi32_ps(x.0), _mm256_cvtepi32_ps(x.1)) }
    }
    #[inline(always)]
    unsafe fn round(x: F) -> W {
        // SAFETY: see above.
        unsafe { (_mm256_cvtps_epi32(x.0), _mm256_cvtps_epi32(x.1)) }
    }
    #[inline(always)]
    unsafe fn from_bits(x: W) -> F {
        // SAFETY: see above.
        unsafe { (_mm256_castsi256_ps(x.0), _mm256_castsi256_ps(x.1)) }
    }
    #[inline(always)]
    unsafe fn store_bytes(to: *mut i8, x: W) {
        // SAFETY: see above.
        unsafe {
            let low = _mm256_setr_epi8(
                0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1,
                -1, -1, -1, -1, -1,
            );
            for (i, x) in [x.0, x.1].into_iter().enumerate() {
                let x = _mm256_shuffle_epi8(x, low);
                let four = [_mm256_extract_epi32::<0>(x), _mm256_extract_epi32::<4>(x)];
                to.add(8 * i).cast::<[i32; 2]>().write_unaligned(four);
            }
        }
    }
    #[inline(always)]
    unsafe fn products(start: i32) -> P {
        // SAFETY: see above.
        unsafe { P { pairs: Self::splat_word(0), sums: Self::splat_word(start) } }
    }
    #[inline(always)]
    unsafe fn dot4(products: P, codes: W, x: i32) -> P {
        // SAFETY: see above.
        unsafe {
            let (x, sums) = (_mm256_set1_epi32(x), products.sums);
            let sums = match DOTS {
                PAIRS => (wide(sums.0, codes.0, x), wide(sums.1, codes.1, x)),
                VEX => (_mm256_dpbusd_avx_epi32(sums.0, codes.0, x), _mm256_dpbusd_avx_epi32(sums.1, codes.1, x)),
                _ => (_mm256_dpbusd_epi32(sums.0, codes.0, x), _mm256_dpbusd_epi32(sums.1, codes.1, x)),
            };
            P { sums, ..products }
        }
    }
    #[inline(always)]
    unsafe fn dot4_small(products: P, codes: W, x: i32) -> P {
        // SAFETY: see above.
        unsafe {
            if DOTS != PAIRS {
                return Self::dot4(products, codes, x);
            }
            let (x, pairs) = (_mm256_set1_epi32(x), products.pairs);
            let pairs = (
                _mm256_add_epi16(pairs.0, _mm256_maddubs_epi16(codes.0, x)),
                _mm256_add_epi16(pairs.1, _mm256_maddubs_epi16(codes.1, x)),
            );
            P { pairs, ..products }
        }
    }
    #[inline(always)]
    unsafe fn settle(products: P) -> P {
        if DOTS != PAIRS {
            return products;
        }
        // SAFETY: see above.
        unsafe {
            let (one, P { pairs, sums }) = (_mm256_set1_epi16(1), products);
            let sums = (
                _mm256_add_epi32(sums.0, _mm256_madd_epi16(pairs.0, one)),
                _mm256_add_epi32(sums.1, _mm256_madd_epi16(pairs.1, one)),
            );
            P { pairs: Self::splat_word(0), sums }
        }
    }
    #[inline(always)]
    unsafe fn sums(products: P) -> W {
        products.sums
    }
    #[inline(always)]
    unsafe fn prefetch(from: *const u8) {
        // SAFETY: see above; a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_far(from: *const u8) {
        // SAFETY: see above; a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
}

/// Eight even and eight odd elements.
#[inline(always)]
unsafe fn halves(x: F) -> F {
    // SAFETY: the caller's promise.
    unsafe {
        let order = |x: __m256| _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(x)));
        (order(_mm256_shuffle_ps::<0b10_00_10_00>(x.0, x.1)), order(_mm256_shuffle_ps::<0b11_01_11_01>(x.0, x.1)))
    }
}

/// [`Lanes::dot4`] of eight lanes by AVX2: two products of codes beyond 127 do not fit 16 bits, so even and odd bytes are
/// widened first.
#[inline(always)]
unsafe fn wide(sums: __m256i, codes: __m256i, x: __m256i) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe {
        let even = _mm256_madd_epi16(
            _mm256_and_si256(codes, _mm256_set1_epi16(0xff)),
            _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(x)),
        );
        let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(codes), _mm256_srai_epi16::<8>(x));
        _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
    }
}
