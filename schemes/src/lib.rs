//! How weights are stored: bits, groups, scales, and which tensors get what.
//!
//! A [`Scheme`] gives every [`Role`] a [`Format`]. Schemes are data: one `.toml` beside this crate's manifest each,
//! built in through the one list in `builtin.rs`. `schemes/README.md` tells how to add one.

mod builtin;
mod error;
mod format;
mod role;
mod scheme;

pub use error::Error;
pub use format::{FloatType, Format, Grouped, ParseFormatError, Zero};
pub use role::Role;
pub use scheme::Scheme;
