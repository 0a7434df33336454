//! What a kernel needs of its bindings, of a call, and of scratch memory: everything that could be out of bounds, checked once.

use dwindle_bundle::native::*;
use dwindle_bundle::{Call, MAX_LOCAL_BYTES, Record};

/// What a kernel needs of one binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// At least this many.
    pub bytes: u64,
    /// The kernel writes it.
    pub written: bool,
    /// It may overlap what is written, element by element in the same place.
    pub may_alias: bool,
}

/// No real group is as long where it is not split: sums of codes times activations stay below 2^31, and are exact as f32.
const MAX_RECORD_GROUP: usize = 1 << 14;

/// The product of sizes, times the bytes of an element.
fn product(factors: &[u64], bytes: usize) -> Result<u64, String> {
    let product = factors.iter().try_fold(bytes as u64, |product, &factor| product.checked_mul(factor));
    product.ok_or_else(|| format!("sizes {factors:?} overflow"))
}

fn read(bytes: u64) -> Need {
    Need { bytes, written: false, may_alias: false }
}

fn in_place(bytes: u64) -> Need {
    Need { bytes, written: false, may_alias: true }
}

fn write(bytes: u64) -> Need {
    Need { bytes, written: true, may_alias: true }
}

/// Bytes of `rows` rows that lie as `columns` says, each `width` elements wide. Rows that overlap would have a kernel go
/// through the same bytes as often as its author likes.
fn viewed(rows: u64, columns: Columns, width: u64, bytes: usize) -> Result<u64, String> {
    let (stride, offset) = (u64::from(columns.stride), u64::from(columns.offset));
    if stride < width {
        return Err(format!("rows of {width} elements overlap, as they are {stride} apart"));
    }
    let last = product(&[rows.saturating_sub(1), stride], 1)?;
    let end = last.checked_add(offset).and_then(|first| first.checked_add(width));
    product(&[end.ok_or_else(|| format!("row {rows} overflows"))?], bytes)
}

fn matrix(matrix: &Matrix) -> Result<Vec<Need>, String> {
    let bytes = matrix.storage.bytes(matrix.n, matrix.k);
    let bytes = bytes.ok_or_else(|| format!("no kernel reads matrices stored as {:?}", matrix.storage))?;
    if let Storage::Grouped { bits, group, .. } = matrix.storage
        && Record::new(matrix.k, bits, group).group > MAX_RECORD_GROUP
    {
        return Err(format!("groups of {group} are too long"));
    }
    Ok(bytes.into_iter().map(read).collect())
}

/// What the kernel needs of each binding, where a call has at most `max_rows` rows.
///
/// # Errors
/// A dimension of 0, sizes that overflow, rows that overlap, constants that contradict each other, more of a thread's memory than any
/// real kernel takes; as text.
pub fn needs(kernel: &NativeKernel, max_rows: u32) -> Result<Vec<Need>, String> {
    let rows_of = |rows: Rows| u64::from(rows.unwrap_or(max_rows));
    let nonzero = |sizes: &[u64]| match sizes.contains(&0) {
        true => Err("a dimension is 0".to_owned()),
        false => Ok(()),
    };
    let halves = |width: u64| match width.is_multiple_of(2) {
        true => Ok(width / 2),
        false => Err(format!("heads of {width} have no halves")),
    };
    if kernel.local_bytes(max_rows) > MAX_LOCAL_BYTES {
        let (bytes, most) = (kernel.local_bytes(max_rows), MAX_LOCAL_BYTES);
        return Err(format!("takes {bytes} bytes of each thread's memory, at most {most} are possible"));
    }
    let mut needs = Vec::new();
    match kernel {
        NativeKernel::MatMul(m) => {
            let [n, k, out_columns, out_offset] = [m.matrix.n, m.matrix.k, m.out_columns, m.out_offset].map(u64::from);
            let rows = rows_of(m.rows);
            nonzero(&[rows, n, k])?;
            if m.gated && (!n.is_multiple_of(2) || m.activation.is_none()) {
                return Err(format!("{n} rows cannot be gated"));
            }
            let columns = if m.gated { n / 2 } else { n };
            if out_offset + columns > out_columns {
                return Err(format!("columns from {out_offset} on exceed {out_columns}"));
            }
            let y = product(&[rows, out_columns], 4)?;
            needs.push(read(product(&[rows, k], 4)?));
            needs.extend(matrix(&m.matrix)?);
            needs.extend(m.rms_norm.map(|_| read(k * 4)));
            needs.extend(m.bias.then(|| read(n * 4)));
            needs.extend(m.residual.then(|| in_place(y)));
            needs.push(write(y));
        }
        NativeKernel::Embed(e) => {
            let (rows, columns) = (rows_of(e.rows), u64::from(e.matrix.k));
            nonzero(&[rows, e.matrix.n.into(), columns])?;
            needs.push(read(rows * 4));
            needs.extend(matrix(&e.matrix)?);
            needs.push(write(product(&[rows, columns], 4)?));
        }
        NativeKernel::Norm(n) => {
            let (rows, columns) = (rows_of(n.rows), u64::from(n.columns));
            nonzero(&[rows, n.heads.into(), columns])?;
            let bytes = product(&[rows, n.heads.into(), columns], 4)?;
            needs.extend([in_place(bytes), read(columns * 4)]);
            needs.extend(n.layer.then(|| read(columns * 4)));
            needs.extend(n.residual.then(|| in_place(bytes)));
            needs.push(write(bytes));
        }
        NativeKernel::RopeWriteKv(r) => {
            let [heads, kv_heads, width] = [r.n_heads, r.n_kv_heads, r.head_dim].map(u64::from);
            let rows = rows_of(r.rows);
            nonzero(&[rows, heads, kv_heads, width])?;
            let state = product(&[rows, kv_heads, width], r.state.bytes())?;
            needs.push(read(product(&[rows, heads + 2 * kv_heads, width], 4)?));
            needs.push(read(halves(width)? * 4));
            needs.push(write(product(&[rows, heads, width], 4)?));
            needs.extend([write(state), write(state)]);
        }
        NativeKernel::Attention(a) => {
            let [heads, kv_heads, width, kv_rows] = [a.n_heads, a.n_kv_heads, a.head_dim, a.kv_rows].map(u64::from);
            let rows = rows_of(a.rows);
            nonzero(&[rows, heads, kv_heads, width, kv_rows, a.window.unwrap_or(1).into()])?;
            if !heads.is_multiple_of(kv_heads) {
                return Err(format!("{heads} query heads over {kv_heads} key heads"));
            }
            let (q, kv) = (heads * width, kv_heads * width);
            needs.push(read(viewed(rows, a.q, q, 4)?));
            needs.push(read(viewed(kv_rows, a.k, kv, a.kv.bytes())?));
            needs.push(read(viewed(kv_rows, a.v, kv, a.kv.bytes())?));
            needs.push(write(product(&[rows, q], 4)?));
        }
        NativeKernel::OverlayRows(o) => {
            let (rows, columns, image_rows) = (rows_of(o.rows), u64::from(o.columns), u64::from(o.image_rows));
            nonzero(&[rows, columns, image_rows])?;
            let bytes = product(&[rows, columns], 4)?;
            needs.push(in_place(bytes));
            needs.push(read(product(&[image_rows, columns], 4)?));
            needs.extend([read(rows * 16), read(rows * 16)]);
            needs.push(write(bytes));
        }
        NativeKernel::WriteRows(w) => {
            let (rows, columns, state_rows) = (rows_of(w.rows), u64::from(w.columns), u64::from(w.state_rows));
            nonzero(&[rows, columns, state_rows])?;
            needs.push(read(product(&[rows, columns], 4)?));
            needs.push(write(product(&[state_rows, columns], w.state.bytes())?));
        }
        NativeKernel::Patchify(p) => {
            let [channels, height, width, patch] = [p.channels, p.height, p.width, p.patch].map(u64::from);
            nonzero(&[channels, patch])?;
            if height < patch || width < patch {
                return Err(format!("{height} x {width} pixels hold no patch of {patch}"));
            }
            needs.push(read(product(&[channels, height, width], 4)?));
            needs.push(write(product(&[height / patch, width / patch, channels, patch, patch], 4)?));
        }
        NativeKernel::Elementwise(e) => {
            let (rows, columns) = (rows_of(e.rows), u64::from(e.columns));
            nonzero(&[rows, columns])?;
            let bytes = product(&[rows, columns], 4)?;
            match e.function {
                Function::Add(row) | Function::Mul(row) => {
                    needs.push(in_place(bytes));
                    needs.push(if row { read(columns * 4) } else { in_place(bytes) });
                }
                Function::Glu(_) => needs.push(read(product(&[rows, columns], 8)?)),
                _ => needs.push(in_place(bytes)),
            }
            needs.push(write(bytes));
        }
        NativeKernel::Rope(r) => {
            let (rows, heads, width) = (rows_of(r.rows), u64::from(r.n_heads), u64::from(r.head_dim));
            nonzero(&[rows, heads, width])?;
            let bytes = product(&[rows, heads, width], 4)?;
            needs.extend([in_place(bytes), read(halves(width)? * 4), write(bytes)]);
        }
        NativeKernel::CopyRows(c) => {
            let (rows, columns) = (rows_of(c.rows), u64::from(c.columns));
            nonzero(&[rows, columns])?;
            needs.push(read(viewed(rows, c.x, columns, 4)?));
            needs.push(write(product(&[if c.last { 1 } else { rows }, columns], 4)?));
        }
    }
    Ok(needs)
}

/// Refuses calls that would read or write beyond a state; `bytes` are those of each binding.
///
/// # Errors
/// What does not fit, as text.
pub fn check_call(kernel: &NativeKernel, call: Call, bytes: &[usize]) -> Result<(), String> {
    let end = |rows: Rows| u64::from(call.position) + u64::from(rows.unwrap_or(call.rows));
    match kernel {
        NativeKernel::RopeWriteKv(r) => {
            let row = product(&[r.n_kv_heads.into(), r.head_dim.into()], r.state.bytes())?;
            let state = bytes[3].min(bytes[4]) as u64;
            match end(r.rows).saturating_mul(row) > state {
                true => Err(format!("position {} is beyond a cache of {} rows", end(r.rows), state / row)),
                false => Ok(()),
            }
        }
        NativeKernel::Attention(a) if a.causal && end(a.rows) > u64::from(a.kv_rows) => {
            Err(format!("position {} is beyond a cache of {} rows", end(a.rows), a.kv_rows))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    #[track_caller]
    fn check(kernel: NativeKernel, expected: Expect) {
        let told = match needs(&kernel, 4) {
            Ok(needs) => format!("{:?}", needs.iter().map(|need| need.bytes).collect::<Vec<_>>()),
            Err(why) => why,
        };
        expected.assert_eq(&told);
    }

    fn attention(change: impl FnOnce(&mut Attention)) -> NativeKernel {
        let columns = |stride| Columns { stride, offset: 0 };
        let mut attention = Attention {
            rows: None,
            n_heads: 4,
            n_kv_heads: 2,
            head_dim: 8,
            scale: 1.0,
            soft_cap: None,
            window: None,
            causal: true,
            kv_rows: 10,
            q: columns(32),
            k: columns(16),
            v: columns(16),
            kv: Float::F16,
        };
        change(&mut attention);
        NativeKernel::Attention(attention)
    }

    #[test]
    fn rows_do_not_overlap() {
        check(attention(|_| ()), expect!["[512, 320, 320, 512]"]);
        check(attention(|a| a.k.stride = 0), expect!["rows of 16 elements overlap, as they are 0 apart"]);
        check(attention(|a| a.v.stride = 15), expect!["rows of 16 elements overlap, as they are 15 apart"]);
        check(attention(|a| a.q.stride = 31), expect!["rows of 32 elements overlap, as they are 31 apart"]);
        check(attention(|a| (a.k.stride, a.k.offset) = (48, 16)), expect!["[512, 928, 320, 512]"]);
        let x = Columns { stride: 4, offset: 0 };
        check(
            NativeKernel::CopyRows(CopyRows { rows: Some(1 << 30), x, columns: 5, last: true }),
            expect!["rows of 5 elements overlap, as they are 4 apart"],
        );
    }

    #[test]
    fn no_dimension_is_0() {
        check(attention(|a| a.rows = Some(0)), expect!["a dimension is 0"]);
        check(attention(|a| a.kv_rows = 0), expect!["a dimension is 0"]);
        check(attention(|a| a.window = Some(0)), expect!["a dimension is 0"]);
        let rope = RopeWriteKv {
            rows: Some(0),
            n_heads: 8_000_000,
            n_kv_heads: 1,
            head_dim: 64,
            magnitude: 1.0,
            state: Float::F16,
        };
        check(
            NativeKernel::RopeWriteKv(rope),
            expect!["takes 2048001024 bytes of each thread's memory, at most 67108864 are possible"],
        );
        let norm = Norm { layer: false, rows: Some(0), heads: 1, columns: 4, eps: 1.0, residual: false };
        check(NativeKernel::Norm(norm), expect!["a dimension is 0"]);
        let rope = Rope { rows: Some(0), n_heads: 1, head_dim: 4, magnitude: 1.0 };
        check(NativeKernel::Rope(rope), expect!["a dimension is 0"]);
        let start = Scalar::Tile;
        let write =
            WriteRows { rows: Some(0), columns: 1, state_rows: 1, start, stride: 1, offset: 0, state: Float::F16 };
        check(NativeKernel::WriteRows(write), expect!["a dimension is 0"]);
        let add = Elementwise { function: Function::Add(false), rows: Some(0), columns: 3 };
        check(NativeKernel::Elementwise(add), expect!["a dimension is 0"]);
        check(
            NativeKernel::OverlayRows(OverlayRows { rows: Some(0), columns: 1, image_rows: 1 }),
            expect!["a dimension is 0"],
        );
    }

    #[test]
    fn sizes_that_overflow_are_no_sizes() {
        check(
            attention(|a| (a.n_heads, a.n_kv_heads, a.q.stride) = (1 << 30, 1, u32::MAX)),
            expect!["rows of 8589934592 elements overlap, as they are 4294967295 apart"],
        );
        let all = Elementwise { function: Function::Scale(1.0), rows: Some(u32::MAX), columns: u32::MAX };
        check(NativeKernel::Elementwise(all), expect!["sizes [4294967295, 4294967295] overflow"]);
        check(
            NativeKernel::Patchify(Patchify { channels: u32::MAX, height: u32::MAX, width: u32::MAX, patch: 1 }),
            expect!["sizes [4294967295, 4294967295, 4294967295] overflow"],
        );
    }

    #[test]
    fn threads_memory_is_bounded() {
        check(
            attention(|a| (a.head_dim, a.q.stride, a.k.stride, a.v.stride) = (1 << 20, 1 << 22, 1 << 21, 1 << 21)),
            expect!["takes 536907776 bytes of each thread's memory, at most 67108864 are possible"],
        );
        let product = |group, rows| {
            let storage = Storage::Grouped { bits: 4, group, scale: Float::F16, zero: Zero::Centered };
            NativeKernel::MatMul(MatMul {
                matrix: Matrix { layout: Layout::Rows16, storage, n: 16, k: 64 },
                rows,
                rms_norm: None,
                bias: false,
                activation: None,
                gated: false,
                soft_cap: None,
                residual: false,
                out_columns: 16,
                out_offset: 0,
            })
        };
        check(product(32, None), expect!["[1024, 512, 64, 256]"]);
        check(
            product(1 << 20, None),
            expect![
                "no kernel reads matrices stored as Grouped { bits: 4, group: 1048576, scale: F16, zero: Centered }"
            ],
        );
        check(
            product((1 << 20) + 8, None),
            expect![
                "no kernel reads matrices stored as Grouped { bits: 4, group: 1048584, scale: F16, zero: Centered }"
            ],
        );
        check(
            product(32, Some(1 << 20)),
            expect!["takes 537001984 bytes of each thread's memory, at most 67108864 are possible"],
        );
    }
}
