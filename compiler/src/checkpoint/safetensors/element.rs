//! Element types of stored tensors.

use std::fmt;

use dwindle_schemes::FloatType;

/// Element type of a stored tensor, as far as its size is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Element {
    Bool,
    U8,
    I8,
    U16,
    I16,
    F16,
    Bf16,
    U32,
    I32,
    F32,
    U64,
    I64,
    F64,
    /// A type that this crate does not know; the tensor can be listed, not read.
    Unknown,
}

impl Element {
    const KNOWN: [Element; 13] = [
        Element::Bool,
        Element::U8,
        Element::I8,
        Element::U16,
        Element::I16,
        Element::F16,
        Element::Bf16,
        Element::U32,
        Element::I32,
        Element::F32,
        Element::U64,
        Element::I64,
        Element::F64,
    ];

    /// The type that a header calls `name`.
    pub fn from_name(name: &str) -> Self {
        Self::KNOWN.into_iter().find(|element| element.name() == name).unwrap_or(Element::Unknown)
    }

    /// The name in headers.
    pub const fn name(self) -> &'static str {
        match self {
            Element::Bool => "BOOL",
            Element::U8 => "U8",
            Element::I8 => "I8",
            Element::U16 => "U16",
            Element::I16 => "I16",
            Element::F16 => "F16",
            Element::Bf16 => "BF16",
            Element::U32 => "U32",
            Element::I32 => "I32",
            Element::F32 => "F32",
            Element::U64 => "U64",
            Element::I64 => "I64",
            Element::F64 => "F64",
            Element::Unknown => "unknown",
        }
    }

    /// Bytes of an element, where known.
    pub const fn bytes(self) -> Option<usize> {
        match self {
            Element::Bool | Element::U8 | Element::I8 => Some(1),
            Element::U16 | Element::I16 | Element::F16 | Element::Bf16 => Some(2),
            Element::U32 | Element::I32 | Element::F32 => Some(4),
            Element::U64 | Element::I64 | Element::F64 => Some(8),
            Element::Unknown => None,
        }
    }

    /// The float type, where it is one that weights may have.
    pub const fn float(self) -> Option<FloatType> {
        match self {
            Element::F16 => Some(FloatType::F16),
            Element::Bf16 => Some(FloatType::Bf16),
            Element::F32 => Some(FloatType::F32),
            _ => None,
        }
    }
}

impl From<FloatType> for Element {
    fn from(float: FloatType) -> Self {
        match float {
            FloatType::F16 => Element::F16,
            FloatType::Bf16 => Element::Bf16,
            FloatType::F32 => Element::F32,
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
