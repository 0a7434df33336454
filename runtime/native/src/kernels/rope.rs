//! Rotary position embedding (Su et al. 2021), halves paired, alone and with the writing of k and v; a share is a row.

use dwindle_bundle::native::{Rope, RopeWriteKv};

use super::{Run, borrow, rows};
use crate::lanes::Lanes;

/// cos then sin of the angles of a position, times `magnitude`.
fn angles(position: u64, frequencies: &[f32], magnitude: f32, out: &mut [f32]) {
    let (cosines, sines) = out.split_at_mut(frequencies.len());
    for ((frequency, cos), sin) in frequencies.iter().zip(cosines).zip(sines) {
        let (s, c) = (position as f32 * frequency).sin_cos();
        (*sin, *cos) = (s * magnitude, c * magnitude);
    }
}

/// Rotates a head: elements i and i + half become `(a cos - b sin, b cos + a sin)`.
fn rotate(head: &mut [f32], angles: &[f32]) {
    let half = head.len() / 2;
    let (low, high) = head.split_at_mut(half);
    let (cosines, sines) = angles.split_at(half);
    for (((a, b), cos), sin) in low.iter_mut().zip(high).zip(cosines).zip(sines) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

/// q, k and v of a row: q and k rotated; q written, k and v into the states.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn rope_write_kv<L: Lanes>(spec: &RopeWriteKv, run: &Run<'_>) {
    let [heads, kv_heads, width] = [spec.n_heads, spec.n_kv_heads, spec.head_dim].map(|n| n as usize);
    let (q_columns, kv_columns) = (heads * width, kv_heads * width);
    let columns = q_columns + 2 * kv_columns;
    let (x, frequencies) = (run.read::<f32>(0), &run.read::<f32>(1)[..width / 2]);
    let mut local = borrow(width + columns);
    loop {
        let t = run.member.take();
        if t >= run.rows(spec.rows) {
            break;
        }
        let position = u64::from(run.call.position) + t as u64;
        let (table, row) = local.split_at_mut(width);
        angles(position, frequencies, spec.magnitude, table);
        row.copy_from_slice(&x[t * columns..][..columns]);
        row[..q_columns + kv_columns].chunks_exact_mut(width).for_each(|head| rotate(head, table));
        // SAFETY: rows of q and of the states belong to this share; `check_call` found them within the states.
        unsafe {
            run.pointer::<f32>(2).add(t * q_columns).copy_from_nonoverlapping(row.as_ptr(), q_columns);
            let at = position as usize * kv_columns;
            rows::store::<L>(spec.state, run.pointer(3), at, &row[q_columns..][..kv_columns]);
            rows::store::<L>(spec.state, run.pointer(4), at, &row[q_columns + kv_columns..]);
        }
    }
}

/// Rotation of whole rows.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn rope(spec: &Rope, run: &Run<'_>) {
    let width = spec.head_dim as usize;
    let columns = spec.n_heads as usize * width;
    let frequencies = &run.read::<f32>(1)[..width / 2];
    let mut local = borrow(width + columns);
    loop {
        let t = run.member.take();
        if t >= run.rows(spec.rows) {
            break;
        }
        let (table, row) = local.split_at_mut(width);
        angles(u64::from(run.call.position) + t as u64, frequencies, spec.magnitude, table);
        // SAFETY: row `t` of x and y belongs to this share, and is copied before it is written.
        unsafe {
            row.as_mut_ptr().copy_from_nonoverlapping(run.pointer::<f32>(0).add(t * columns), columns);
            row.chunks_exact_mut(width).for_each(|head| rotate(head, table));
            run.pointer::<f32>(2).add(t * columns).copy_from_nonoverlapping(row.as_ptr(), columns);
        }
    }
}
