//! Tensors of the reference evaluator, and the operations that only move their rows and columns.

use half::{bf16, f16};

use super::super::DType;

/// Elements of a tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// What arithmetic works on.
    F32(Vec<f32>),
    /// Stored weights or scales.
    F16(Vec<f16>),
    /// Stored weights or scales.
    Bf16(Vec<bf16>),
    /// Token ids, codes, call scalars.
    U32(Vec<u32>),
    /// Row indices.
    I32(Vec<i32>),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Data::F32(values) => values.len(),
            Data::F16(values) => values.len(),
            Data::Bf16(values) => values.len(),
            Data::U32(values) => values.len(),
            Data::I32(values) => values.len(),
        }
    }
}

/// A dense tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Data,
}

impl Tensor {
    /// A tensor of these elements; an error where their number is not that of the shape.
    pub fn new(shape: Vec<usize>, data: Data) -> Result<Self, String> {
        let elements = shape.iter().try_fold(1_usize, |n, &dim| n.checked_mul(dim));
        match elements == Some(data.len()) {
            true => Ok(Tensor { shape, data }),
            false => Err(format!("{} elements do not fill {shape:?}", data.len())),
        }
    }

    /// A tensor of f32.
    ///
    /// # Panics
    /// Where the number of elements is not that of the shape.
    #[track_caller]
    pub fn f32(shape: Vec<usize>, values: Vec<f32>) -> Self {
        Tensor::new(shape, Data::F32(values)).unwrap_or_else(|why| panic!("{why}"))
    }

    /// A tensor of u32.
    ///
    /// # Panics
    /// Where the number of elements is not that of the shape.
    #[track_caller]
    pub fn u32(shape: Vec<usize>, values: Vec<u32>) -> Self {
        Tensor::new(shape, Data::U32(values)).unwrap_or_else(|why| panic!("{why}"))
    }

    /// A tensor of i32.
    ///
    /// # Panics
    /// Where the number of elements is not that of the shape.
    #[track_caller]
    pub fn i32(shape: Vec<usize>, values: Vec<i32>) -> Self {
        Tensor::new(shape, Data::I32(values)).unwrap_or_else(|why| panic!("{why}"))
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match self.data {
            Data::F32(_) => DType::F32,
            Data::F16(_) => DType::F16,
            Data::Bf16(_) => DType::Bf16,
            Data::U32(_) => DType::U32,
            Data::I32(_) => DType::I32,
        }
    }

    /// The first dimension; 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(1)
    }

    /// The last dimension; 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// The elements of an f32 tensor.
    pub fn floats(&self) -> Result<&[f32], String> {
        if let Data::F32(values) = &self.data { Ok(values) } else { Err(self.is_not("f32")) }
    }

    /// The elements of a u32 tensor.
    pub fn words(&self) -> Result<&[u32], String> {
        if let Data::U32(values) = &self.data { Ok(values) } else { Err(self.is_not("u32")) }
    }

    /// The elements of an i32 tensor.
    pub fn indices(&self) -> Result<&[i32], String> {
        if let Data::I32(values) = &self.data { Ok(values) } else { Err(self.is_not("i32")) }
    }

    /// The elements of any float tensor as f32, which holds all of them exactly.
    pub fn widened(&self) -> Result<Vec<f32>, String> {
        match &self.data {
            Data::F32(values) => Ok(values.clone()),
            Data::F16(values) => Ok(values.iter().map(|v| v.to_f32()).collect()),
            Data::Bf16(values) => Ok(values.iter().map(|v| v.to_f32()).collect()),
            Data::U32(_) | Data::I32(_) => Err(self.is_not("a float type")),
        }
    }

    /// The only element of a u32 scalar.
    pub fn scalar(&self) -> Result<u32, String> {
        match self.words()? {
            [value] if self.shape.is_empty() => Ok(*value),
            _ => Err(self.is_not("a scalar")),
        }
    }

    fn is_not(&self, what: &str) -> String {
        format!("{}{:?} is not {what}", self.dtype().name(), self.shape)
    }
}

/// Rebuilds data of any type by a function over element slices.
macro_rules! gather {
    ($first:expr, $rest:expr, $build:expr) => {
        match ($first, $rest) {
            (Data::F32(a), Data::F32(b)) => Data::F32($build(a, b)),
            (Data::F16(a), Data::F16(b)) => Data::F16($build(a, b)),
            (Data::Bf16(a), Data::Bf16(b)) => Data::Bf16($build(a, b)),
            (Data::U32(a), Data::U32(b)) => Data::U32($build(a, b)),
            (Data::I32(a), Data::I32(b)) => Data::I32($build(a, b)),
            _ => return Err("element types differ".to_owned()),
        }
    };
}

/// The rows of each part after those of the one before.
pub fn concat_rows(parts: &[&Tensor]) -> Result<Tensor, String> {
    fn both<T: Copy>(a: &[T], b: &[T]) -> Vec<T> {
        [a, b].concat()
    }
    let (first, rest) = parts.split_first().ok_or("nothing to concatenate")?;
    let mut result = (*first).clone();
    for part in rest {
        if result.shape.is_empty() || part.shape.get(1..) != result.shape.get(1..) {
            return Err(format!("{:?} cannot follow {:?}", part.shape, result.shape));
        }
        result.data = gather!(&result.data, &part.data, both);
        result.shape[0] += part.shape[0];
    }
    Ok(result)
}

/// Row 0 of a, row 0 of b, row 1 of a, …
pub fn interleave_rows(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    fn zip<T: Copy>(width: usize) -> impl Fn(&[T], &[T]) -> Vec<T> {
        move |a, b| a.chunks(width).zip(b.chunks(width)).flat_map(|(a, b)| [a, b].concat()).collect()
    }
    if a.shape != b.shape || a.shape.is_empty() {
        return Err(format!("{:?} cannot be interleaved with {:?}", a.shape, b.shape));
    }
    let width = a.shape[1..].iter().product::<usize>().max(1);
    let data = gather!(&a.data, &b.data, zip(width));
    let mut shape = a.shape.clone();
    shape[0] *= 2;
    Tensor::new(shape, data)
}

/// Columns `start .. start + len` of a matrix.
pub fn slice_columns(x: &Tensor, start: usize, len: usize) -> Result<Tensor, String> {
    let columns = x.columns();
    if start + len > columns {
        return Err(format!("columns {start}..{} of {columns}", start + len));
    }
    let values = x.floats()?.chunks_exact(columns).flat_map(|row| &row[start..start + len]).copied().collect();
    Tensor::new(vec![x.rows(), len], Data::F32(values))
}

/// Rows `start .. start + len`.
pub fn slice_rows(x: &Tensor, start: usize, len: usize) -> Result<Tensor, String> {
    fn part<T: Copy>(start: usize, end: usize) -> impl Fn(&[T], &[T]) -> Vec<T> {
        move |a, _| a[start..end].to_vec()
    }
    let end = start.checked_add(len).filter(|end| !x.shape.is_empty() && *end <= x.shape[0]);
    let end = end.ok_or_else(|| format!("{len} rows from {start} of {:?}", x.shape))?;
    let width = x.shape[1..].iter().product::<usize>();
    let data = gather!(&x.data, &x.data, part(start * width, end * width));
    let mut shape = x.shape.clone();
    shape[0] = len;
    Tensor::new(shape, data)
}

/// The last row of a matrix.
pub fn last_row(x: &Tensor) -> Result<Tensor, String> {
    let row = x.floats()?.chunks_exact(x.columns()).next_back().ok_or("there is no row")?;
    Tensor::new(vec![1, x.columns()], Data::F32(row.to_vec()))
}
