//! Elementwise operations; a share is a row.

use dwindle_bundle::native::{Elementwise, Function};

use super::Run;
use crate::lanes::{LANES, Lanes, math};

/// The kernel.
///
/// # Safety
/// See the module above.
#[inline(always)]
pub unsafe fn run<L: Lanes>(spec: &Elementwise, run: &Run<'_>) {
    let (rows, columns) = (run.rows(spec.rows), spec.columns as usize);
    let (broadcast, binary) = match spec.function {
        Function::Add(row) | Function::Mul(row) => (row, true),
        _ => (false, false),
    };
    let width = if matches!(spec.function, Function::Glu(_)) { 2 } else { 1 };
    loop {
        let t = run.member.take();
        if t >= rows {
            return;
        }
        // SAFETY: row `t` of a, b and y belongs to this share; elements are read before those at the same place are written.
        unsafe {
            let a = run.pointer::<f32>(0).add(t * columns * width).cast_const();
            let b = match (binary, broadcast) {
                (false, _) => a,
                (true, true) => run.pointer::<f32>(1).cast_const(),
                (true, false) => run.pointer::<f32>(1).add(t * columns).cast_const(),
            };
            let y = run.pointer::<f32>(if binary { 2 } else { 1 }).add(t * columns);
            for first in (0..columns).step_by(LANES) {
                let length = LANES.min(columns - first);
                if length == LANES {
                    L::store(y.add(first), apply::<L>(spec.function, a.add(first * width), b.add(first)));
                    continue;
                }
                let (mut a16, mut b16, mut y16) = ([0.0; 2 * LANES], [0.0; LANES], [0.0; LANES]);
                a16.as_mut_ptr().copy_from_nonoverlapping(a.add(first * width), length * width);
                if binary {
                    b16.as_mut_ptr().copy_from_nonoverlapping(b.add(first), length);
                }
                L::store(y16.as_mut_ptr(), apply::<L>(spec.function, a16.as_ptr(), b16.as_ptr()));
                y.add(first).copy_from_nonoverlapping(y16.as_ptr(), length);
            }
        }
    }
}

/// Sixteen results; a has 32 elements for a gated activation.
#[inline(always)]
unsafe fn apply<L: Lanes>(function: Function, a: *const f32, b: *const f32) -> L::F {
    // SAFETY: the caller's promise.
    unsafe {
        let x = L::load(a);
        match function {
            Function::Add(_) => L::add(x, L::load(b)),
            Function::Mul(_) => L::mul(x, L::load(b)),
            Function::AddScalar(value) => L::add(x, L::splat(value)),
            Function::Scale(factor) => L::mul(x, L::splat(factor)),
            Function::Activate(activation) => math::activate::<L>(activation, x),
            Function::SoftCap(cap) => math::soft_cap::<L>(x, cap),
            Function::Glu(activation) => {
                let (gate, up) = L::deinterleave(x, L::load(a.add(LANES)));
                L::mul(math::activate::<L>(activation, gate), up)
            }
        }
    }
}
