//! Tile registers: AMX with products of bf16 (Sapphire Rapids and later), as assembly, because the intrinsics are not stable.
//!
//! A tile register holds 16 rows of 64 bytes. `C += A B` takes A as 16 rows of 32 bf16 values, B as 16 rows of 16 pairs of
//! them (row i has columns' elements 2 i and 2 i + 1), and C as 16 rows of 16 f32; pairs are added in order, so that what C holds does not depend
//! on how many products a call does. A register lives within one block of assembly: the compiler knows nothing of it.

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::sync::LazyLock;

/// Sizes of a tile: its rows lie one after the other in memory; `TILE_DEPTH` are the values of a row of A, and of a column of B.
pub use dwindle_bundle::{TILE_BYTES, TILE_DEPTH, TILE_ROWS};

/// Whether the processor has tiles and bf16 products, and the system lets this process use them.
pub fn is_available() -> bool {
    static AVAILABLE: LazyLock<bool> = LazyLock::new(|| has_instructions() && system_saves_tiles() && ask_permission());
    *AVAILABLE
}

/// Leaf 7 of CPUID: AMX-BF16 is bit 22 of EDX, AMX-TILE bit 24 (Intel's Software Developer's Manual, volume 2).
fn has_instructions() -> bool {
    const BITS: u32 = 1 << 22 | 1 << 24;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & BITS == BITS
}

/// Whether the system saves tiles when it switches threads: bits 17 and 18 of XCR0, which exists where bit 27 of ECX is set.
fn system_saves_tiles() -> bool {
    if __cpuid(1).ecx & 1 << 27 == 0 {
        return false;
    }
    let (low, _high): (u32, u32);
    // SAFETY: the bit just looked at says that XGETBV may be used; it changes nothing but these registers.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _high, options(nomem, nostack, preserves_flags)) };
    low >> 17 & 3 == 3
}

/// Linux gives processes tiles' data only on request: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`. The permission holds
/// for all threads of the process.
#[cfg(target_os = "linux")]
fn ask_permission() -> bool {
    let result: i64;
    // SAFETY: the call takes two numbers and no memory; the kernel overwrites RCX and R11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") 158_i64 => result,
            in("rdi") 0x1023,
            in("rsi") 18,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Elsewhere nothing is known of how tiles are enabled.
#[cfg(not(target_os = "linux"))]
fn ask_permission() -> bool {
    false
}

/// What `ldtilecfg` loads: palette 1, all eight registers with 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    columns: [u16; 16],
    rows: [u8; 16],
}

static CONFIGURATION: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    columns: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// This thread's tile registers, configured; released when dropped, so that switches of threads need not save them.
pub struct Tiles(());

impl Tiles {
    /// Configures them.
    ///
    /// # Safety
    /// [`is_available`].
    pub unsafe fn configure() -> Tiles {
        // SAFETY: the caller's promise; the configuration has the 64 bytes that are read.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, readonly, preserves_flags));
        }
        Tiles(())
    }

    /// `C[i][j] += A[i] B[j]` for `ROWS` (1 or 2) tiles of A and two of B, with `depth` products each. Tiles that are multiplied
    /// one after the other lie side by side. C is taken as zero if `first`.
    ///
    /// # Safety
    /// Every a and b has `depth` tiles; `c` are the first of two tiles side by side, for each of `ROWS`.
    pub unsafe fn multiply<const ROWS: usize>(
        &self,
        c: [*mut u8; ROWS],
        a: [*const u8; ROWS],
        b: [*const u8; 2],
        depth: usize,
        first: bool,
    ) {
        debug_assert!(depth > 0 && (ROWS == 1 || ROWS == 2));
        // SAFETY: tiles are as the caller promises; registers are configured while `self` exists, and named as overwritten.
        unsafe {
            if ROWS == 2 {
                asm!(
                    "test {first:e}, {first:e}",
                    "jnz 2f",
                    "tileloadd tmm0, [{c0} + {stride}]",
                    "tileloadd tmm1, [{c0} + {stride} + 1024]",
                    "tileloadd tmm2, [{c1} + {stride}]",
                    "tileloadd tmm3, [{c1} + {stride} + 1024]",
                    "jmp 3f",
                    "2:",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "3:",
                    "tileloadd tmm4, [{a0} + {stride}]",
                    "tileloadd tmm6, [{b0} + {stride}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b1} + {stride}]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{a1} + {stride}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {a0}, 1024",
                    "add {a1}, 1024",
                    "add {b0}, 1024",
                    "add {b1}, 1024",
                    "dec {depth}",
                    "jnz 3b",
                    "tilestored [{c0} + {stride}], tmm0",
                    "tilestored [{c0} + {stride} + 1024], tmm1",
                    "tilestored [{c1} + {stride}], tmm2",
                    "tilestored [{c1} + {stride} + 1024], tmm3",
                    first = in(reg) u32::from(first),
                    c0 = in(reg) c[0],
                    c1 = in(reg) c[ROWS - 1],
                    a0 = inout(reg) a[0] => _,
                    a1 = inout(reg) a[ROWS - 1] => _,
                    b0 = inout(reg) b[0] => _,
                    b1 = inout(reg) b[1] => _,
                    depth = inout(reg) depth => _,
                    stride = in(reg) 64_usize,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            } else {
                asm!(
                    "test {first:e}, {first:e}",
                    "jnz 2f",
                    "tileloadd tmm0, [{c0} + {stride}]",
                    "tileloadd tmm1, [{c0} + {stride} + 1024]",
                    "jmp 3f",
                    "2:",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "3:",
                    "tileloadd tmm4, [{a0} + {stride}]",
                    "tileloadd tmm6, [{b0} + {stride}]",
                    "tileloadd tmm7, [{b1} + {stride}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "add {a0}, 1024",
                    "add {b0}, 1024",
                    "add {b1}, 1024",
                    "dec {depth}",
                    "jnz 3b",
                    "tilestored [{c0} + {stride}], tmm0",
                    "tilestored [{c0} + {stride} + 1024], tmm1",
                    first = in(reg) u32::from(first),
                    c0 = in(reg) c[0],
                    a0 = inout(reg) a[0] => _,
                    b0 = inout(reg) b[0] => _,
                    b1 = inout(reg) b[1] => _,
                    depth = inout(reg) depth => _,
                    stride = in(reg) 64_usize,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: tiles are available, as `configure` was promised.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small whole numbers, whose products and sums are exact.
    fn value(i: usize) -> f32 {
        (i * 7 % 19) as f32 - 9.0
    }

    fn bf16(x: f32) -> u16 {
        (x.to_bits() >> 16) as u16
    }

    #[test]
    fn products_of_tiles() {
        if !is_available() {
            println!("skipped: no tile registers");
            return;
        }
        #[repr(align(64))]
        struct Aligned<T>(T);
        const DEPTH: usize = 3;
        let a_value = |tile: usize, row: usize, k: usize| value(tile * 5 + row * 31 + k);
        let b_value = |tile: usize, column: usize, k: usize| value(tile * 3 + column * 17 + k * 5);
        let mut a = Aligned([[[0_u16; 512]; DEPTH]; 2]);
        let mut b = Aligned([[[0_u16; 512]; DEPTH]; 2]);
        for tile in 0..2 {
            for i in 0..16 {
                for k in 0..DEPTH * TILE_DEPTH {
                    let (step, k_in) = (k / TILE_DEPTH, k % TILE_DEPTH);
                    a.0[tile][step][i * 32 + k_in] = bf16(a_value(tile, i, k));
                    b.0[tile][step][k_in / 2 * 32 + 2 * i + k_in % 2] = bf16(b_value(tile, i, k));
                }
            }
        }
        let mut c = Aligned([[[[1.0_f32; 16]; 16]; 2]; 2]);
        let expected = |i: usize, j: usize, row: usize, column: usize, begin: f32| {
            begin + (0..DEPTH * TILE_DEPTH).map(|k| a_value(i, row, k) * b_value(j, column, k)).sum::<f32>()
        };
        // SAFETY: tiles are available, and all operands have the sizes asked for.
        unsafe {
            let tiles = Tiles::configure();
            let b = [b.0[0].as_ptr().cast(), b.0[1].as_ptr().cast()];
            let a = [a.0[0].as_ptr().cast(), a.0[1].as_ptr().cast()];
            let [c0, c1] = &mut c.0;
            let c = [c0.as_mut_ptr().cast(), c1.as_mut_ptr().cast()];
            tiles.multiply::<2>(c, a, b, DEPTH, false);
            tiles.multiply::<1>([c[0]], [a[0]], b, DEPTH, true);
        }
        for (i, c) in c.0.iter().enumerate() {
            for (j, c) in c.iter().enumerate() {
                for (row, c) in c.iter().enumerate() {
                    for (column, &found) in c.iter().enumerate() {
                        // The second call began at zero.
                        let begin = if i == 0 { 0.0 } else { 1.0 };
                        assert_eq!(found, expected(i, j, row, column, begin), "tile {i} {j}, {row} {column}");
                    }
                }
            }
        }
    }
}
