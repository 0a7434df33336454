//! Kernels that move rows: out of a table, into a state, out of a view, image rows over embeddings, patches of a picture.
//! A share is a row of the result.

use dwindle_bundle::native::{
    self, BLOCK_ROWS, CopyRows, Embed, Float, Matrix, OverlayRows, Patchify, Scalar, Storage, Unit, WriteRows, Zero,
};
use half::f16;

use super::Run;
use crate::lanes::{LANES, Lanes};

/// Row `row` of a matrix in `rows16`, by its bindings, times `factor`.
fn decode_row(matrix: &Matrix, row: usize, run: &Run<'_>, factor: f32, mut put: impl FnMut(usize, f32)) {
    let k = matrix.k as usize;
    let (block, lane) = (row / BLOCK_ROWS, row % BLOCK_ROWS);
    match matrix.storage {
        Storage::Plain(float) => {
            for column in 0..k {
                put(column, factor * float_at(run, 1, float, (block * k + column) * BLOCK_ROWS + lane));
            }
        }
        Storage::Grouped { bits, group, scale, zero } => {
            let group = group as usize;
            let unit = Unit::of(bits).expect("`needs` checks formats");
            let (groups, words, numbers) = (k.div_ceil(group), unit.words_of(group), zero.numbers());
            let codes = run.read::<u32>(1);
            for column in 0..k {
                let (g, i) = (column / group, column % group);
                let word = |w: usize| codes[((block * groups + g) * words + w) * BLOCK_ROWS + lane];
                let number =
                    |i: usize| float_at(run, 2, scale, ((block * groups + g) * numbers + i) * BLOCK_ROWS + lane);
                let (code, scale) = (native::code(bits, i, word) as f32, number(0));
                let value = match zero.constant(bits) {
                    Some(zero) => (code - zero as f32) * scale,
                    None if zero == Zero::Minimum => code * scale + number(1),
                    None => (code - number(1)) * scale,
                };
                put(column, factor * value);
            }
        }
    }
}

fn float_at(run: &Run<'_>, binding: usize, float: Float, index: usize) -> f32 {
    match float {
        Float::F16 => f16::from_bits(run.read::<u16>(binding)[index]).to_f32(),
        Float::F32 => run.read::<f32>(binding)[index],
    }
}

/// Rows of a table.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn embed(spec: &Embed, run: &Run<'_>) {
    let (rows, columns) = (run.rows(spec.rows), spec.matrix.k as usize);
    let y = 2 + usize::from(matches!(spec.matrix.storage, Storage::Grouped { .. }));
    let tokens = run.read::<u32>(0);
    loop {
        let t = run.member.take();
        if t >= rows {
            return;
        }
        let Some(row) = tokens[t].checked_sub(spec.first_row).filter(|&row| row < spec.matrix.n) else { continue };
        // SAFETY: row `t` of y belongs to this share.
        let y = unsafe { run.pointer::<f32>(y).add(t * columns) };
        // SAFETY: columns are those of y.
        decode_row(&spec.matrix, row as usize, run, spec.scale, |column, value| unsafe { y.add(column).write(value) });
    }
}

/// Writes values into a state, from element `at` on.
///
/// # Safety
/// The processor has the instruction set of `L`; the elements are within the state and this share's.
#[inline(always)]
pub unsafe fn store<L: Lanes>(float: Float, state: *mut u8, at: usize, values: &[f32]) {
    // SAFETY: the caller's promise.
    unsafe {
        match float {
            Float::F32 => state.cast::<f32>().add(at).copy_from_nonoverlapping(values.as_ptr(), values.len()),
            Float::F16 => {
                let to = state.cast::<u16>().add(at);
                let whole = values.len() / LANES * LANES;
                for i in (0..whole).step_by(LANES) {
                    L::store_f16(to.add(i), L::load(values.as_ptr().add(i)));
                }
                for (i, &value) in values.iter().enumerate().skip(whole) {
                    to.add(i).write(f16::from_f32(value).to_bits());
                }
            }
        }
    }
}

/// Rows into a state; those beyond it are dropped.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn write<L: Lanes>(spec: &WriteRows, run: &Run<'_>) {
    let (rows, columns) = (run.rows(spec.rows), spec.columns as usize);
    let start = match spec.start {
        Scalar::Position => run.call.position,
        Scalar::Tile => run.call.tile,
    };
    let first = u64::from(start) * u64::from(spec.stride) + u64::from(spec.offset);
    let x = run.read::<f32>(0);
    loop {
        let t = run.member.take();
        if t >= rows {
            return;
        }
        let row = first + t as u64;
        if row < u64::from(spec.state_rows) {
            // SAFETY: the row is within the state, and this share's.
            unsafe { store::<L>(spec.state, run.pointer(1), row as usize * columns, &x[t * columns..][..columns]) };
        }
    }
}

/// Rows of a view, or its last row.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn copy(spec: &CopyRows, run: &Run<'_>) {
    let (rows, columns) = (run.rows(spec.rows), spec.columns as usize);
    let x = run.read::<f32>(0);
    loop {
        let t = run.member.take();
        if t >= if spec.last { 1 } else { rows } {
            return;
        }
        let row = if spec.last { rows - 1 } else { t };
        let from = &x[row * spec.x.stride as usize + spec.x.offset as usize..][..columns];
        // SAFETY: row `t` of y belongs to this share.
        unsafe { run.pointer::<f32>(1).add(t * columns).copy_from_nonoverlapping(from.as_ptr(), columns) };
    }
}

/// Image rows between embeddings; indices beyond the image rows count as zeros.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn overlay(spec: &OverlayRows, run: &Run<'_>) {
    let (rows, columns) = (run.rows(spec.rows), spec.columns as usize);
    let table = run.read::<f32>(1);
    let (indices, weights) = (run.read::<i32>(2).as_chunks::<4>().0, run.read::<f32>(3).as_chunks::<4>().0);
    loop {
        let t = run.member.take();
        if t >= rows {
            return;
        }
        // SAFETY: row `t` of x and y belongs to this share; an element is read before it is written.
        unsafe {
            let x = run.pointer::<f32>(0).add(t * columns);
            let y = run.pointer::<f32>(4).add(t * columns);
            if indices[t][0] < 0 {
                y.copy_from(x, columns);
                continue;
            }
            for column in 0..columns {
                let mut sum = 0.0;
                for (&index, &weight) in indices[t].iter().zip(&weights[t]) {
                    if let Ok(row) = usize::try_from(index)
                        && row < spec.image_rows as usize
                    {
                        sum += weight * table[row * columns + column];
                    }
                }
                y.add(column).write(sum);
            }
        }
    }
}

/// Windows of a picture as rows, in the order (channel, y, x).
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn patchify(spec: &Patchify, run: &Run<'_>) {
    let [channels, height, width, patch] = [spec.channels, spec.height, spec.width, spec.patch].map(|n| n as usize);
    let (down, across) = (height / patch, width / patch);
    let pixels = run.read::<f32>(0);
    loop {
        let window = run.member.take();
        if window >= down * across {
            return;
        }
        let (top, left) = (window / across * patch, window % across * patch);
        for (i, (channel, line)) in (0..channels).flat_map(|c| (0..patch).map(move |y| (c, y))).enumerate() {
            let from = &pixels[(channel * height + top + line) * width + left..][..patch];
            // SAFETY: the window's row of y belongs to this share.
            unsafe {
                let y = run.pointer::<f32>(1).add((window * channels * patch + i) * patch);
                y.copy_from_nonoverlapping(from.as_ptr(), patch);
            }
        }
    }
}
