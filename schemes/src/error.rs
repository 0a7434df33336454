//! What can be wrong with a scheme or its name.

use crate::ParseFormatError;

/// Why a scheme could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No built-in scheme has this name.
    #[error("there is no scheme `{name}`; there are {}", known.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// All built-in schemes.
        known: Vec<&'static str>,
    },
    /// Not TOML, or a key that is missing, unknown or of the wrong type.
    #[error("the scheme is not valid TOML of the expected form:\n{0}")]
    Syntax(#[from] toml::de::Error),
    /// A name that would not do in file names and command lines.
    #[error("`{0}` is no name for a scheme: use 1 to 32 lowercase letters, digits and underscores")]
    Name(String),
    /// Roles without a format.
    #[error("scheme `{scheme}`: [formats] lacks {}", missing.join(", "))]
    MissingFormats {
        /// The scheme's name.
        scheme: String,
        /// Keys to add, all of them.
        missing: Vec<&'static str>,
    },
    /// A format that does not parse, or whose bits, group and zero do not belong together.
    #[error("scheme `{scheme}`, formats.{key}: {source}")]
    Format {
        /// The scheme's name.
        scheme: String,
        /// The key in `[formats]`.
        key: &'static str,
        /// What is wrong.
        source: ParseFormatError,
    },
    /// bfloat16 where kernels read f16 or f32 only.
    #[error("scheme `{scheme}`, {key}: bf16 is a type of checkpoints; kernels read f16 and f32, use one of these")]
    Bf16 {
        /// The scheme's name.
        scheme: String,
        /// The key that says bf16.
        key: String,
    },
}
