//! What a kernel needs of its bindings, of a call, and of scratch memory: everything that could be out of bounds, checked once.

use dwindle_bundle::Call;
use dwindle_bundle::native::*;

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

fn product(factors: &[u32], bytes: usize) -> u64 {
    factors.iter().fold(bytes as u64, |product, &factor| product.saturating_mul(u64::from(factor)))
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

/// Bytes of `rows` rows that lie as `columns` says, the last `width` elements wide.
fn viewed(rows: u32, columns: Columns, width: u32, bytes: usize) -> u64 {
    let last = product(&[rows.saturating_sub(1), columns.stride], 1);
    let end = last.saturating_add(u64::from(columns.offset)).saturating_add(u64::from(width));
    end.saturating_mul(bytes as u64)
}

fn matrix(matrix: &Matrix) -> Result<Vec<Need>, String> {
    let bytes = matrix.storage.bytes(matrix.n, matrix.k);
    let bytes = bytes.ok_or_else(|| format!("no kernel reads matrices stored as {:?}", matrix.storage))?;
    Ok(bytes.into_iter().map(read).collect())
}

/// What the kernel needs of each binding, where a call has at most `max_rows` rows.
///
/// # Errors
/// Constants that contradict each other, as text.
pub fn needs(kernel: &NativeKernel, max_rows: u32) -> Result<Vec<Need>, String> {
    let rows_of = |rows: Rows| rows.unwrap_or(max_rows);
    let nonzero = |sizes: &[u32]| match sizes.contains(&0) {
        true => Err("a dimension is 0".to_owned()),
        false => Ok(()),
    };
    let mut needs = Vec::new();
    match kernel {
        NativeKernel::MatMul(m) => {
            let (rows, n, k) = (rows_of(m.rows), m.matrix.n, m.matrix.k);
            nonzero(&[rows, n, k])?;
            if m.gated && (!n.is_multiple_of(2) || m.activation.is_none()) {
                return Err(format!("{n} rows cannot be gated"));
            }
            let columns = if m.gated { n / 2 } else { n };
            if m.out_offset.checked_add(columns).is_none_or(|end| end > m.out_columns) {
                return Err(format!("columns from {} on exceed {}", m.out_offset, m.out_columns));
            }
            needs.push(read(product(&[rows, k], 4)));
            needs.extend(matrix(&m.matrix)?);
            needs.extend(m.rms_norm.map(|_| read(product(&[k], 4))));
            needs.extend(m.bias.then(|| read(product(&[n], 4))));
            needs.extend(m.residual.then(|| in_place(product(&[rows, m.out_columns], 4))));
            needs.push(write(product(&[rows, m.out_columns], 4)));
        }
        NativeKernel::Embed(e) => {
            let rows = rows_of(e.rows);
            nonzero(&[rows, e.matrix.n, e.matrix.k])?;
            needs.push(read(product(&[rows], 4)));
            needs.extend(matrix(&e.matrix)?);
            needs.push(write(product(&[rows, e.matrix.k], 4)));
        }
        NativeKernel::Norm(n) => {
            let bytes = product(&[rows_of(n.rows), n.heads, n.columns], 4);
            nonzero(&[n.heads, n.columns])?;
            needs.extend([in_place(bytes), read(product(&[n.columns], 4))]);
            needs.extend(n.layer.then(|| read(product(&[n.columns], 4))));
            needs.extend(n.residual.then(|| in_place(bytes)));
            needs.push(write(bytes));
        }
        NativeKernel::RopeWriteKv(r) => {
            let rows = rows_of(r.rows);
            nonzero(&[r.n_heads, r.n_kv_heads, r.head_dim])?;
            if !r.head_dim.is_multiple_of(2) {
                return Err(format!("heads of {} have no halves", r.head_dim));
            }
            let heads = r.n_kv_heads.saturating_mul(2).saturating_add(r.n_heads);
            let state = product(&[rows, r.n_kv_heads, r.head_dim], r.state.bytes());
            needs.push(read(product(&[rows, heads, r.head_dim], 4)));
            needs.push(read(product(&[r.head_dim / 2], 4)));
            needs.push(write(product(&[rows, r.n_heads, r.head_dim], 4)));
            needs.extend([write(state), write(state)]);
        }
        NativeKernel::Attention(a) => {
            let rows = rows_of(a.rows);
            nonzero(&[a.n_heads, a.n_kv_heads, a.head_dim, a.kv_rows, a.window.unwrap_or(1)])?;
            if !a.n_heads.is_multiple_of(a.n_kv_heads) {
                return Err(format!("{} query heads over {} key heads", a.n_heads, a.n_kv_heads));
            }
            let (q, kv) = (a.n_heads.saturating_mul(a.head_dim), a.n_kv_heads.saturating_mul(a.head_dim));
            needs.push(read(viewed(rows, a.q, q, 4)));
            needs.push(read(viewed(a.kv_rows, a.k, kv, a.kv.bytes())));
            needs.push(read(viewed(a.kv_rows, a.v, kv, a.kv.bytes())));
            needs.push(write(product(&[rows, q], 4)));
        }
        NativeKernel::OverlayRows(o) => {
            let rows = rows_of(o.rows);
            nonzero(&[o.columns, o.image_rows])?;
            needs.push(in_place(product(&[rows, o.columns], 4)));
            needs.push(read(product(&[o.image_rows, o.columns], 4)));
            needs.extend([read(product(&[rows], 16)), read(product(&[rows], 16))]);
            needs.push(write(product(&[rows, o.columns], 4)));
        }
        NativeKernel::WriteRows(w) => {
            nonzero(&[w.columns, w.state_rows])?;
            needs.push(read(product(&[rows_of(w.rows), w.columns], 4)));
            needs.push(write(product(&[w.state_rows, w.columns], w.state.bytes())));
        }
        NativeKernel::Patchify(p) => {
            nonzero(&[p.channels, p.patch])?;
            if p.height < p.patch || p.width < p.patch {
                return Err(format!("{} x {} pixels hold no patch of {}", p.height, p.width, p.patch));
            }
            needs.push(read(product(&[p.channels, p.height, p.width], 4)));
            let (down, across) = (p.height / p.patch, p.width / p.patch);
            needs.push(write(product(&[down, across, p.channels, p.patch, p.patch], 4)));
        }
        NativeKernel::Elementwise(e) => {
            let (rows, columns) = (rows_of(e.rows), e.columns);
            nonzero(&[columns])?;
            let bytes = product(&[rows, columns], 4);
            match e.function {
                Function::Add(row) | Function::Mul(row) => {
                    needs.push(in_place(bytes));
                    needs.push(if row { read(product(&[columns], 4)) } else { in_place(bytes) });
                }
                Function::Glu(_) => needs.push(read(bytes.saturating_mul(2))),
                _ => needs.push(in_place(bytes)),
            }
            needs.push(write(bytes));
        }
        NativeKernel::Rope(r) => {
            nonzero(&[r.n_heads, r.head_dim])?;
            if !r.head_dim.is_multiple_of(2) {
                return Err(format!("heads of {} have no halves", r.head_dim));
            }
            let bytes = product(&[rows_of(r.rows), r.n_heads, r.head_dim], 4);
            needs.extend([in_place(bytes), read(product(&[r.head_dim / 2], 4)), write(bytes)]);
        }
        NativeKernel::CopyRows(c) => {
            let rows = rows_of(c.rows);
            nonzero(&[c.columns])?;
            needs.push(read(viewed(rows, c.x, c.columns, 4)));
            needs.push(write(product(&[if c.last { 1 } else { rows }, c.columns], 4)));
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
            let row = product(&[r.n_kv_heads, r.head_dim], r.state.bytes());
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
