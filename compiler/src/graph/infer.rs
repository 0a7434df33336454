//! Type inference: the results' types of an operation from its operands' types.

use dwindle_schemes::Format;

use super::ops::*;
use super::types::{DType, Dim, Type};

/// Computes the result types of `op` for operands of these types, or says what does not fit.
///
/// Sources (`Input`, `State`, `Weight`) have no operands to infer from: their types are given where they are made, and
/// `infer` returns an empty list for them.
pub fn infer(op: &Op, operands: &[&Type]) -> Result<Vec<Type>, String> {
    let operand = |i: usize| operands.get(i).copied().ok_or_else(|| format!("operand {i} is missing"));
    let count = |n: usize| {
        if operands.len() == n { Ok(()) } else { Err(format!("{n} operands expected, {} given", operands.len())) }
    };
    let one = |ty: Type| Ok(vec![ty]);
    match op {
        Op::Input { .. } | Op::State { .. } | Op::Weight(_) => count(0).map(|()| Vec::new()),
        Op::Call(_) => {
            count(0)?;
            one(Type { dtype: DType::U32, shape: Vec::new() })
        }
        Op::AddScalar { .. } | Op::Scale { .. } | Op::Activate(_) | Op::SoftCap { .. } => {
            count(1)?;
            one(float(operand(0)?)?.clone())
        }
        Op::ConcatRows => {
            let first = operand(0)?;
            let mut rows = 0;
            for ty in operands {
                rows = add(rows, fixed_rows(ty)?)?;
                if ty.dtype != first.dtype || ty.shape.get(1..) != first.shape.get(1..) {
                    return Err(format!("{ty} cannot follow {first}"));
                }
            }
            one(with_rows(first, rows))
        }
        Op::InterleaveRows => {
            count(2)?;
            let (a, b) = (operand(0)?, operand(1)?);
            if a != b {
                return Err(format!("{a} cannot be interleaved with {b}"));
            }
            one(with_rows(a, product(&[2, fixed_rows(a)?])?))
        }
        Op::Dequantize { format, columns } => {
            count(stored_operands(Some(*format)))?;
            one(Type::fixed(DType::F32, &[stored_rows(Some(*format), operands, *columns)?, *columns]))
        }
        Op::Embed { format, columns, .. } => {
            count(1 + stored_operands(*format))?;
            let tokens = operand(0)?;
            if tokens.dtype != DType::U32 || tokens.shape.len() != 1 {
                return Err(format!("tokens must be u32[T], not {tokens}"));
            }
            stored_rows(*format, &operands[1..], *columns)?;
            one(Type::matrix(tokens.rows(), *columns))
        }
        Op::MatMul(m) => infer_matmul(m, operands),
        Op::Norm(norm) => {
            count(2 + usize::from(norm.kind == NormKind::Layer) + usize::from(norm.residual))?;
            let x = matrix(operand(0)?)?;
            if norm.heads == 0 || !x.columns().is_multiple_of(norm.heads) {
                return Err(format!("{x} does not hold {} heads", norm.heads));
            }
            for ty in &operands[1..=1 + usize::from(norm.kind == NormKind::Layer)] {
                vector(ty, x.columns() / norm.heads)?;
            }
            if norm.residual && operands[operands.len() - 1] != x {
                return Err(format!("the residual is {}, the rows are {x}", operands[operands.len() - 1]));
            }
            one(x.clone())
        }
        Op::Add | Op::Mul => {
            count(2)?;
            let (a, b) = (float(operand(0)?)?, float(operand(1)?)?);
            let broadcast = b.shape.len() == 1 && b.columns() == a.columns();
            if a.shape != b.shape && !broadcast {
                return Err(format!("{a} and {b} do not fit"));
            }
            one(a.clone())
        }
        Op::Slice { start, len } => {
            count(1)?;
            let x = matrix(operand(0)?)?;
            if *len == 0 || add(*start, *len)? > x.columns() {
                return Err(format!("{len} columns from {start} of {x}"));
            }
            one(Type::matrix(x.rows(), *len))
        }
        Op::SliceRows { start, len } => {
            count(1)?;
            let x = operand(0)?;
            if *len == 0 || add(*start, *len)? > fixed_rows(x)? {
                return Err(format!("{len} rows from {start} of {x}"));
            }
            one(with_rows(x, *len))
        }
        Op::LastRow => {
            count(1)?;
            one(Type::matrix(Dim::Fixed(1), matrix(operand(0)?)?.columns()))
        }
        Op::Rope(rope) => {
            count(2)?;
            let x = matrix(operand(0)?)?;
            check_rope(rope)?;
            if !x.columns().is_multiple_of(rope.head_dim) {
                return Err(format!("{x} does not hold whole heads of {}", rope.head_dim));
            }
            scalar(operand(1)?)?;
            one(x.clone())
        }
        Op::WriteRows { .. } => {
            count(3)?;
            let (state, x) = (matrix(operand(0)?)?, matrix(operand(1)?)?);
            scalar(operand(2)?)?;
            if state.columns() != x.columns() {
                return Err(format!("{x} cannot be written into {state}"));
            }
            one(state.clone())
        }
        Op::Attention(a) => {
            count(4)?;
            if a.n_kv_heads == 0 || a.head_dim == 0 || !a.n_heads.is_multiple_of(a.n_kv_heads) {
                return Err(format!("{} heads over {} key-value heads of {}", a.n_heads, a.n_kv_heads, a.head_dim));
            }
            let q = columns(operand(0)?, product(&[a.n_heads, a.head_dim])?)?;
            columns(operand(1)?, product(&[a.n_kv_heads, a.head_dim])?)?;
            if operand(1)? != operand(2)? {
                return Err(format!("keys are {}, values {}", operand(1)?, operand(2)?));
            }
            fixed_rows(operand(1)?)?;
            scalar(operand(3)?)?;
            one(q.clone())
        }
        Op::OverlayRows => {
            count(4)?;
            let x = matrix(operand(0)?)?;
            columns(operand(1)?, x.columns())?;
            let expected = |dtype| Type { dtype, shape: vec![x.rows(), Dim::Fixed(4)] };
            for (ty, dtype) in [(operand(2)?, DType::I32), (operand(3)?, DType::F32)] {
                if *ty != expected(dtype) {
                    return Err(format!("{ty} where {} is expected", expected(dtype)));
                }
            }
            one(x.clone())
        }
        Op::Patchify { height, width, patch } => {
            count(1)?;
            let pixels = columns(operand(0)?, product(&[*height, *width])?)?;
            if *patch == 0 || height < patch || width < patch {
                return Err(format!("{height} by {width} pixels hold no patch of {patch}"));
            }
            let channels = fixed_rows(pixels)?;
            let patches = product(&[height / patch, width / patch])?;
            one(Type::matrix(Dim::Fixed(patches), product(&[channels, *patch, *patch])?))
        }
        Op::RopeWriteKv(kv) => {
            count(4)?;
            check_rope(&kv.rope)?;
            let d = kv.rope.head_dim;
            let (q_columns, kv_columns) = (product(&[kv.n_heads, d])?, product(&[kv.n_kv_heads, d])?);
            let qkv = columns(operand(0)?, add(q_columns, product(&[2, kv_columns])?)?)?;
            let (k, v) = (columns(operand(1)?, kv_columns)?, columns(operand(2)?, kv_columns)?);
            scalar(operand(3)?)?;
            Ok(vec![Type::matrix(qkv.rows(), q_columns), k.clone(), v.clone()])
        }
        Op::Glu(_) => {
            count(1)?;
            let x = matrix(operand(0)?)?;
            if !x.columns().is_multiple_of(2) {
                return Err(format!("{x} has no pairs of columns"));
            }
            one(Type::matrix(x.rows(), x.columns() / 2))
        }
    }
}

fn infer_matmul(m: &MatMul, operands: &[&Type]) -> Result<Vec<Type>, String> {
    let stored = stored_operands(m.format);
    let expected = 1 + stored + [m.rms_norm.is_some(), m.bias, m.residual].into_iter().filter(|&b| b).count();
    if operands.len() != expected {
        return Err(format!("{expected} operands expected, {} given", operands.len()));
    }
    let x = matrix(operands[0])?;
    let n = stored_rows(m.format, &operands[1..1 + stored], x.columns())?;
    let mut rest = operands[1 + stored..].iter();
    let mut next = || rest.next().copied().ok_or("an operand is missing".to_owned());
    if m.rms_norm.is_some() {
        vector(next()?, x.columns())?;
    }
    if m.bias {
        vector(next()?, n)?;
    }
    let columns_out = match m.activation {
        Some(Epilogue::Gated(_)) if !n.is_multiple_of(2) => {
            return Err(format!("{n} rows do not pair gate and up"));
        }
        Some(Epilogue::Gated(_)) => n / 2,
        _ => n,
    };
    let result = Type::matrix(x.rows(), columns_out);
    if m.residual {
        let residual = next()?;
        if *residual != result {
            return Err(format!("the residual is {residual}, the product {result}"));
        }
    }
    Ok(vec![result])
}

/// How many operands a stored matrix takes.
pub const fn stored_operands(format: Option<Format>) -> usize {
    match format {
        Some(Format::Grouped(_)) => 2,
        _ => 1,
    }
}

/// Rows of a stored matrix of `columns` columns (without the padding of the last group).
pub fn stored_rows(format: Option<Format>, operands: &[&Type], columns: usize) -> Result<usize, String> {
    let first = operands.first().ok_or("the matrix is missing")?;
    let rows = fixed_rows(first)?;
    let expect = |ty: &Type, dtype: DType, n: usize| match *ty == Type::fixed(dtype, &[rows, n]) {
        true => Ok(()),
        false => Err(format!("{ty} where {} is expected", Type::fixed(dtype, &[rows, n]))),
    };
    match format {
        None => expect(first, DType::F32, columns)?,
        Some(Format::Plain(float)) => expect(first, float.into(), columns)?,
        Some(Format::Grouped(g)) => {
            expect(first, DType::U32, g.words(columns))?;
            expect(operands.get(1).ok_or("the scales are missing")?, g.scale.into(), g.scales(columns))?;
        }
    }
    Ok(rows)
}

fn check_rope(rope: &Rope) -> Result<(), String> {
    let fits = rope.head_dim > 0 && rope.head_dim.is_multiple_of(2) && rope.inv_freq.len() == rope.head_dim / 2;
    if fits { Ok(()) } else { Err(format!("{} frequencies for heads of {}", rope.inv_freq.len(), rope.head_dim)) }
}

fn add(a: usize, b: usize) -> Result<usize, String> {
    a.checked_add(b).ok_or_else(|| format!("{a} + {b} is too large"))
}

fn product(factors: &[usize]) -> Result<usize, String> {
    let product = factors.iter().try_fold(1_usize, |product, &factor| product.checked_mul(factor));
    product.ok_or_else(|| format!("the product of {factors:?} is too large"))
}

fn with_rows(ty: &Type, rows: usize) -> Type {
    let mut ty = ty.clone();
    ty.shape[0] = Dim::Fixed(rows);
    ty
}

fn fixed_rows(ty: &Type) -> Result<usize, String> {
    match ty.shape.first() {
        Some(Dim::Fixed(n)) => Ok(*n),
        _ => Err(format!("{ty} has no fixed number of rows")),
    }
}

fn float(ty: &Type) -> Result<&Type, String> {
    if ty.dtype == DType::F32 { Ok(ty) } else { Err(format!("{ty} is no f32 value")) }
}

fn matrix(ty: &Type) -> Result<&Type, String> {
    if ty.shape.len() == 2 { float(ty) } else { Err(format!("{ty} is no matrix")) }
}

fn columns(ty: &Type, n: usize) -> Result<&Type, String> {
    if matrix(ty)?.columns() == n { Ok(ty) } else { Err(format!("{ty} has not {n} columns")) }
}

fn vector(ty: &Type, n: usize) -> Result<(), String> {
    if float(ty)?.shape == [Dim::Fixed(n)] { Ok(()) } else { Err(format!("{ty} is no vector of {n}")) }
}

fn scalar(ty: &Type) -> Result<(), String> {
    if ty.dtype == DType::U32 && ty.shape.is_empty() { Ok(()) } else { Err(format!("{ty} is no call scalar")) }
}
