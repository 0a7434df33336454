//! Values to codes and back: pure functions over slices.
//!
//! A row of k values is cut into groups of g consecutive values, the last one possibly shorter; a group shares one
//! scale s. With b bits and a zero z ([`Zero`](dwindle_schemes::Zero)), a code q decodes to
//!
//! ```text
//! w' = (q - z) s          0 <= q <= 2^b - 1, s as stored (f16 or f32), difference and product in f32
//! ```
//!
//! or, where each group stores a minimum m, to q s + m.
//!
//! [`encode_rows`] chooses s and q by a [`Method`]:
//!
//! - `rtn`, round to nearest, is MLC LLM's rule for the centred z = m = 2^(b-1) - 1: s = max|w| / m,
//!   q = clip(round(w / s) + m, 0, 2m), halves to even, with s unrounded; s = 0 gives q = m. The highest code is never
//!   used. With other zeros, see `rtn.rs`; a group with a zero or a minimum of its own spans from its least to its
//!   greatest value.
//! - `search` uses the same bytes better: s of either sign, all codes, and the s and q of least squared error
//!   Σ (w - w')² that a search per group finds (see `search.rs`; `asymmetric.rs` where groups have zeros, `minimum.rs`
//!   where they have minimums). A group is never worse than with `rtn`.
//!
//! Codes are packed as [`Grouped`](dwindle_schemes::Grouped) says; padding holds code 0. All functions work on whole
//! rows, allocate nothing and depend on their arguments only, so callers stream blocks of rows through them and run
//! blocks on as many threads as they like: the bytes are the same.

mod asymmetric;
mod encode;
mod error;
mod float;
mod method;
mod minimum;
mod pack;
mod rtn;
mod search;
mod stats;
mod wide;

pub use encode::{decode_rows, encode_rows};
pub use error::Error;
pub use float::{read_floats, round, write_floats};
pub use method::{Method, ParseMethodError};
pub use pack::{pack_codes, unpack_codes};
pub use stats::ErrorStats;
