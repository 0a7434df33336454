//! Why an answer cannot be restricted.

/// A restriction cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The schema is larger than any that a person writes.
    #[error("the JSON schema has {bytes} bytes; at most {limit} are accepted")]
    Size {
        /// Its bytes as compact JSON.
        bytes: usize,
        /// The most.
        limit: usize,
    },
    /// The schema is nested too deeply.
    #[error("the JSON schema is nested more than {limit} levels deep")]
    Depth {
        /// The most.
        limit: usize,
    },
    /// The schema is not understood, contradicts itself, or needs more than its bounds.
    #[error("the JSON schema cannot be used: {why}")]
    Schema {
        /// What is wrong with it.
        why: String,
    },
    /// The vocabulary has no token that ends an answer.
    #[error("the model has no token that ends an answer, so its answers cannot be restricted")]
    NoEnd,
}
