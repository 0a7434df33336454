//! Sixteen lanes: the few operations that all kernels are written in, once for every instruction set.
//!
//! A kernel is generic over [`Lanes`]; each instruction set implements the trait in one file with the registers it
//! has (one of 512 bits, two of 256, four of 128, an array). Kernels and everything they call are `#[inline(always)]`, so that they are
//! compiled within a function that has the instruction set enabled (`run` of each file); a call that were not inlined
//! would still be right, only slow.
//!
//! Sums are taken in the same order whatever the instruction set and the number of threads; results differ between
//! instruction sets only where one fuses multiply and add and another rounds in between.

#[cfg(target_arch = "x86_64")]
pub mod amx;
#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod isa;
pub mod math;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;

/// Number of lanes.
pub const LANES: usize = 16;

/// Operations on sixteen lanes of f32 or of 32-bit words.
///
/// # Safety
/// All functions need the instruction set of the implementation; those that take pointers read or write 16 elements there, at
/// any alignment.
#[allow(clippy::missing_safety_doc, reason = "what every function needs is told once, above")]
pub unsafe trait Lanes: Copy {
    /// Sixteen f32.
    type F: Copy;
    /// Sixteen 32-bit words, also seen as 64 bytes.
    type W: Copy;
    /// Sixteen sums of products of codes.
    type P: Copy;
    /// Rows of activations that a product works on at once: as many as its registers hold.
    const ROWS: usize;

    /// The same number in all lanes.
    unsafe fn splat(x: f32) -> Self::F;
    /// Sixteen f32.
    unsafe fn load(from: *const f32) -> Self::F;
    /// Sixteen f16, as f32.
    unsafe fn load_f16(from: *const u16) -> Self::F;
    /// Sixteen f32.
    unsafe fn store(to: *mut f32, x: Self::F);
    /// Sixteen f16, rounded to nearest even.
    unsafe fn store_f16(to: *mut u16, x: Self::F);
    /// a + b.
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// a - b.
    unsafe fn sub(a: Self::F, b: Self::F) -> Self::F;
    /// a * b.
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    /// a / b.
    unsafe fn div(a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The greater; b where a is NaN.
    unsafe fn max(a: Self::F, b: Self::F) -> Self::F;
    /// The lesser; b where a is NaN.
    unsafe fn min(a: Self::F, b: Self::F) -> Self::F;
    /// |x|.
    unsafe fn abs(x: Self::F) -> Self::F;
    /// The sum of all lanes: lane i with i + 8, then with i + 4, and so on.
    unsafe fn sum(x: Self::F) -> f32;
    /// Even elements of a then of b, odd elements of a then of b.
    unsafe fn deinterleave(a: Self::F, b: Self::F) -> (Self::F, Self::F);

    /// The same word in all lanes.
    unsafe fn splat_word(x: i32) -> Self::W;
    /// Sixteen words.
    unsafe fn load_words(from: *const u32) -> Self::W;
    /// a & b.
    unsafe fn and(a: Self::W, b: Self::W) -> Self::W;
    /// a | b.
    unsafe fn or(a: Self::W, b: Self::W) -> Self::W;
    /// a + b in each word.
    unsafe fn add_words(a: Self::W, b: Self::W) -> Self::W;
    /// Each word shifted towards its low bits, zeros following.
    unsafe fn shift_right<const N: i32>(x: Self::W) -> Self::W;
    /// Each word shifted towards its high bits, zeros following.
    unsafe fn shift_left<const N: i32>(x: Self::W) -> Self::W;
    /// Signed words as f32.
    unsafe fn to_f32(x: Self::W) -> Self::F;
    /// f32 as signed words, rounded to nearest even; defined for what fits.
    unsafe fn round(x: Self::F) -> Self::W;
    /// The bits of words as f32.
    unsafe fn from_bits(x: Self::W) -> Self::F;
    /// The low byte of each word.
    unsafe fn store_bytes(to: *mut i8, x: Self::W);

    /// Sums of products that begin at `start`.
    unsafe fn products(start: i32) -> Self::P;
    /// `products[i] + Σ_j codes[4 i + j] * x[j]` with unsigned bytes `codes` and the four signed bytes of `x`.
    unsafe fn dot4(products: Self::P, codes: Self::W, x: i32) -> Self::P;
    /// [`dot4`](Lanes::dot4) of codes of at most 6 bits with x of -127 to 127, before the next [`settle`](Lanes::settle) at most
    /// so often: 16 times where codes are below 8, 8 times below 16, 4 times below 32, twice below 64. So much fits 16
    /// bits, which is where some instruction sets keep them.
    unsafe fn dot4_small(products: Self::P, codes: Self::W, x: i32) -> Self::P;
    /// The same sums, all in 32 bits.
    unsafe fn settle(products: Self::P) -> Self::P;
    /// The sums, settled.
    unsafe fn sums(products: Self::P) -> Self::W;

    /// Asks for the cache line at `from`, which need not be readable.
    unsafe fn prefetch(from: *const u8);
    /// The same, into a cache that is larger and further away.
    unsafe fn prefetch_far(from: *const u8);
}
