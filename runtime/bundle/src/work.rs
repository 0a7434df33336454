//! How much a call of a function computes, and how much its weights and states justify.
//!
//! Sizes of bindings bound each step by itself; nothing but this bounds how often a plan goes through the same bytes, or through
//! memory that costs its author nothing. A plan that would keep a processor busy far longer than any model of its size is refused
//! when its bundle is opened.
//!
//! The unit is a multiply-add, or an element that is moved. In a real plan a row of a call meets each weight once: at
//! most 8 / 3 multiply-adds a byte, with codes of 3 bits. Causal attention meets each value of the cache once for each query
//! head that shares it. All other attention (vision towers) is less than the products beside it. So a function may compute:
//!
//! * for each row of the call [`PER_WEIGHT_BYTE`] a byte of weights, and in causal attention [`PER_STATE_BYTE`] a byte of states;
//! * in steps of a fixed number of rows (decoding, encoding of a tile) the same for each row of the longest of them;
//! * a constant besides, worth a fraction of a second, for small models.
//!
//! That is four times what weights need, and 64 query heads for each key head.

use std::collections::BTreeMap;

use crate::native::{NativeKernel, Rows};
use crate::plan::{BufferKind, Call, Function, Plan};

/// Multiply-adds that a row may cost for each byte of weights.
const PER_WEIGHT_BYTE: u64 = 12;

/// Multiply-adds of causal attention that a row may cost for each byte of states.
const PER_STATE_BYTE: u64 = 32;

/// What a row may cost without weights or states.
const PER_ROW: u64 = 1 << 20;

/// What a call may cost besides its rows.
const PER_CALL: u64 = 1 << 26;

/// Invocations of a GPU's kernels that a call may have without weights. Towers' rows are not known there.
const PER_CALL_OF_GPU: u64 = 1 << 30;

/// What a step costs besides its elements: threads wait for each other after each.
const PER_STEP: u64 = 1 << 11;

/// The most rows of a step whose rows are fixed: patches of a tile, far more than any tower has.
const MAX_FIXED_ROWS: u64 = 1 << 14;

/// What a function's steps compute, of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Work {
    /// Whatever the call.
    fixed: u64,
    /// For each row of the call.
    per_row: u64,
}

impl Work {
    /// Adds `rows` rows of `elements`; the call's rows where `None`.
    fn add(&mut self, rows: Rows, elements: u64) {
        let sum = if rows.is_some() { &mut self.fixed } else { &mut self.per_row };
        *sum = sum.saturating_add(elements.saturating_mul(rows.map_or(1, u64::from)));
    }
}

fn product(factors: &[u32]) -> u64 {
    factors.iter().fold(1, |product: u64, &factor| product.saturating_mul(u64::from(factor)))
}

impl NativeKernel {
    /// The rows that this kernel goes through, and what it computes for each.
    fn work(&self) -> (Rows, u64) {
        match self {
            NativeKernel::MatMul(m) => {
                let ends = u64::from(m.matrix.k).saturating_add(m.matrix.n.into());
                (m.rows, product(&[m.matrix.n, m.matrix.k]).saturating_add(ends))
            }
            NativeKernel::Embed(e) => (e.rows, product(&[e.matrix.k, 4])),
            NativeKernel::Norm(n) => (n.rows, product(&[n.heads, n.columns, 4])),
            NativeKernel::RopeWriteKv(r) => {
                let heads = u64::from(r.n_heads).saturating_add(2 * u64::from(r.n_kv_heads));
                (r.rows, heads.saturating_add(16).saturating_mul(r.head_dim.into()))
            }
            NativeKernel::Attention(a) => {
                let seen = a.window.map_or(a.kv_rows, |window| window.min(a.kv_rows));
                (a.rows, product(&[seen, a.n_heads]).saturating_mul(product(&[a.head_dim, 2])))
            }
            NativeKernel::OverlayRows(o) => (o.rows, product(&[o.columns, 8])),
            NativeKernel::WriteRows(w) => (w.rows, product(&[w.columns, 2])),
            NativeKernel::Patchify(p) => (Some(1), product(&[p.channels, p.height, p.width])),
            NativeKernel::Elementwise(e) => (e.rows, product(&[e.columns, 8])),
            NativeKernel::Rope(r) => {
                (r.rows, product(&[r.n_heads, r.head_dim]).saturating_add(product(&[r.head_dim, 16])))
            }
            NativeKernel::CopyRows(c) => (if c.last { Some(1) } else { c.rows }, product(&[c.columns, 2])),
        }
    }

    fn is_causal(&self) -> bool {
        matches!(self, NativeKernel::Attention(attention) if attention.causal)
    }
}

/// Says which function computes more than the plan's weights and states justify, if one does. `context` are the positions that a
/// call may reach.
pub(crate) fn validate_work(plan: &Plan, context: u32) -> Result<(), String> {
    // Weights that several buffers hold were hashed once.
    let mut weights = BTreeMap::new();
    let mut states = 0_u64;
    for buffer in &plan.buffers {
        match &buffer.kind {
            BufferKind::Weights(entry) => drop(weights.insert(entry, buffer.bytes)),
            BufferKind::State => states = states.saturating_add(buffer.bytes),
            _ => {}
        }
    }
    let weights = weights.values().fold(0, |sum: u64, &bytes| sum.saturating_add(bytes));
    let kernels: Vec<Option<NativeKernel>> = plan.kernels.iter().map(|kernel| kernel.code.native()).collect();
    for (name, function) in &plan.functions {
        validate_function(plan, function, &kernels, [weights, states], context)
            .map_err(|why| format!("function `{name}` {why}"))?;
    }
    Ok(())
}

fn validate_function(
    plan: &Plan,
    function: &Function,
    kernels: &[Option<NativeKernel>],
    [weights, states]: [u64; 2],
    context: u32,
) -> Result<(), String> {
    let (mut plain, mut causal, mut invocations) = (Work::default(), Work::default(), 0_u64);
    let (rows, mut most_rows) = (u64::from(function.max_rows), 1);
    plain.add(Some(1), PER_STEP.saturating_mul(function.steps.len() as u64));
    for step in &function.steps {
        match kernels.get(step.kernel as usize) {
            Some(Some(kernel)) => {
                let (rows, elements) = kernel.work();
                let sum = if kernel.is_causal() { &mut causal } else { &mut plain };
                sum.add(rows, elements);
                most_rows = most_rows.max(rows.map_or(1, u64::from));
            }
            _ => {
                // Of a GPU's kernel nothing is known but its invocations, each of which computes something.
                let call =
                    Call { rows: function.max_rows, position: context.saturating_sub(function.max_rows), tile: 0 };
                let sizes = plan.kernels.get(step.kernel as usize).map_or([1; 3], |kernel| kernel.workgroup);
                let groups = step.grid.iter().map(|extent| extent.at(call));
                invocations = invocations.saturating_add(product(&groups.chain(sizes).collect::<Vec<_>>()));
            }
        }
    }
    if most_rows > MAX_FIXED_ROWS {
        return Err(format!("has a step of {most_rows} rows, at most {MAX_FIXED_ROWS} are possible"));
    }
    let justified = |constant: u64, rows: u64, per_byte: u64, bytes: u64| {
        constant.saturating_add(rows.saturating_mul(per_byte).saturating_mul(bytes))
    };
    for (what, found, most) in [
        ("for a row", plain.per_row, justified(PER_ROW, 1, PER_WEIGHT_BYTE, weights)),
        ("for a row's attention", causal.per_row, justified(PER_ROW, 1, PER_STATE_BYTE, states)),
        ("for a call", plain.fixed, justified(PER_CALL, most_rows, PER_WEIGHT_BYTE, weights)),
        ("for a call's attention", causal.fixed, justified(PER_CALL, most_rows, PER_STATE_BYTE, states)),
        ("for a call's grids", invocations, justified(PER_CALL_OF_GPU, rows, PER_WEIGHT_BYTE, weights)),
    ] {
        if found > most {
            return Err(format!(
                "computes {found} products {what}, {weights} bytes of weights and {states} of states justify {most}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;
    use crate::native::{Attention, Columns, CopyRows, Float, Layout, MatMul, Matrix, Storage, Zero};
    use crate::{Access, Buffer, Extent, Kernel, Step};

    /// A plan with a megabyte of weights and 64 KiB of states, whose steps are these kernels, each so often.
    fn plan(kernels: &[(NativeKernel, usize)]) -> Plan {
        let buffer = |name: &str, bytes, kind| Buffer { name: name.to_owned(), bytes, kind };
        let mut function = Function { max_rows: 8, ..Function::default() };
        let mut plan = Plan { max_rows: 8, ..Plan::default() };
        plan.buffers = vec![
            buffer("weights", 1 << 20, BufferKind::Weights("w".to_owned())),
            buffer("more", 1 << 20, BufferKind::Weights("w".to_owned())),
            buffer("kv", 1 << 16, BufferKind::State),
            buffer("scratch", 1 << 40, BufferKind::Scratch),
        ];
        for (index, (kernel, times)) in kernels.iter().enumerate() {
            let kernel = Kernel {
                name: index.to_string(),
                code: kernel.to_code(),
                workgroup: [1; 3],
                bindings: vec![Access::ReadWrite; 2],
            };
            plan.kernels.push(kernel);
            let step = Step { kernel: index as u32, bindings: Vec::new(), grid: [Extent::Fixed(1); 3] };
            function.steps.extend(std::iter::repeat_n(step, *times));
        }
        plan.functions.insert("decode".to_owned(), function);
        plan
    }

    #[track_caller]
    fn check(plan: &Plan, expected: Expect) {
        expected.assert_eq(&validate_work(plan, 1024).map_or_else(|why| why, |()| "justified".to_owned()));
    }

    /// Codes of 4 bits in a megabyte.
    fn product(rows: Rows) -> NativeKernel {
        let storage = Storage::Grouped { bits: 4, group: 32, scale: Float::F16, zero: Zero::Centered };
        NativeKernel::MatMul(MatMul {
            matrix: Matrix { layout: Layout::Rows16, storage, n: 2048, k: 1024 },
            rows,
            rms_norm: None,
            bias: false,
            activation: None,
            gated: false,
            soft_cap: None,
            residual: false,
            out_columns: 2048,
            out_offset: 0,
        })
    }

    fn attention(rows: Rows, kv_rows: u32, causal: bool) -> NativeKernel {
        let columns = Columns { stride: 64, offset: 0 };
        NativeKernel::Attention(Attention {
            rows,
            n_heads: 8,
            n_kv_heads: 1,
            head_dim: 64,
            scale: 1.0,
            soft_cap: None,
            window: None,
            causal,
            kv_rows,
            q: Columns { stride: 512, offset: 0 },
            k: columns,
            v: columns,
            kv: Float::F16,
        })
    }

    #[test]
    fn weights_justify_a_few_passes() {
        check(&plan(&[(product(None), 4)]), expect!["justified"]);
        check(
            &plan(&[(product(None), 20)]),
            expect![
                "function `decode` computes 42004480 products for a row, 1048576 bytes of weights and 65536 of states justify 13631488"
            ],
        );
        check(&plan(&[(product(Some(4)), 4)]), expect!["justified"]);
        check(
            &plan(&[(product(Some(4)), 100)]),
            expect![
                "function `decode` computes 840294400 products for a call, 1048576 bytes of weights and 65536 of states justify 117440512"
            ],
        );
    }

    #[test]
    fn states_justify_causal_attention_alone() {
        // A cache of 256 rows of 64 f16, for k and v.
        check(&plan(&[(attention(None, 256, true), 4)]), expect!["justified"]);
        check(
            &plan(&[(attention(None, 256, true), 40)]),
            expect![
                "function `decode` computes 10485760 products for a row's attention, 1048576 bytes of weights and 65536 of states justify 3145728"
            ],
        );
        check(
            &plan(&[(attention(Some(1), 100_000_000, true), 1)]),
            expect![
                "function `decode` computes 102400000000 products for a call's attention, 1048576 bytes of weights and 65536 of states justify 69206016"
            ],
        );
        check(
            &plan(&[(attention(None, 100_000, false), 1)]),
            expect![
                "function `decode` computes 102400000 products for a row, 1048576 bytes of weights and 65536 of states justify 13631488"
            ],
        );
    }

    #[test]
    fn steps_cost_something_and_fixed_rows_are_few() {
        let copy = |rows| {
            let x = Columns { stride: 1, offset: 0 };
            NativeKernel::CopyRows(CopyRows { rows, x, columns: 1, last: false })
        };
        check(&plan(&[(copy(Some(1)), 10_000)]), expect!["justified"]);
        check(
            &plan(&[(copy(Some(1)), 100_000)]),
            expect![
                "function `decode` computes 205000000 products for a call, 1048576 bytes of weights and 65536 of states justify 79691776"
            ],
        );
        check(
            &plan(&[(copy(Some(1 << 20)), 1)]),
            expect!["function `decode` has a step of 1048576 rows, at most 16384 are possible"],
        );
        check(
            &plan(&[(copy(Some(u32::MAX)), 3)]),
            expect!["function `decode` has a step of 4294967295 rows, at most 16384 are possible"],
        );
    }

    #[test]
    fn grids_are_counted() {
        let mut plan = plan(&[]);
        plan.kernels.push(Kernel {
            name: "wgsl".to_owned(),
            code: crate::Code::Wgsl { text: "w".to_owned(), spirv: None, msl: None },
            workgroup: [64, 1, 1],
            bindings: Vec::new(),
        });
        let step = |grid| Step { kernel: 0, bindings: Vec::new(), grid };
        let decode = |plan: &mut Plan, step| plan.functions.get_mut("decode").unwrap().steps.push(step);
        decode(&mut plan, step([Extent::RowsPer(1), Extent::LengthPer(1), Extent::Fixed(100)]));
        check(&plan, expect!["justified"]);
        decode(&mut plan, step([Extent::Fixed(u32::MAX); 3]));
        check(
            &plan,
            expect![
                "function `decode` computes 18446744073709551615 products for a call's grids, 1048576 bytes of weights and 65536 of states justify 1174405120"
            ],
        );
    }
}
