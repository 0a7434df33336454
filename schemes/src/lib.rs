//! How weights are stored: bits, groups, scales, and which tensors get what.

mod format;
mod role;

pub use format::{FloatType, Format, Grouped, ParseFormatError};
pub use role::Role;
