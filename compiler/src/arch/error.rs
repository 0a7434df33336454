//! What can be wrong with a configuration.

use std::fmt;

/// A configuration that no family here computes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No family of this name is registered.
    #[error(
        "model_type `{model_type}` is not supported: expected one of {known}; compiler/src/arch/README.md says how to add one"
    )]
    UnknownFamily {
        /// `model_type` of the configuration.
        model_type: String,
        /// All families, separated by commas.
        known: String,
    },
    /// Keys that have no default are not there.
    #[error("{family}: the configuration lacks {}; complete it, or download it again", keys.join(", "))]
    MissingKeys {
        /// The family.
        family: String,
        /// All of them, with dots where they are nested.
        keys: Vec<String>,
    },
    /// Keys or values whose meaning is not implemented; ignoring them might change what the model computes.
    #[error(
        "{family}: unsupported configuration:{}\nUse a checkpoint without it, or add support in compiler/src/arch",
        list(problems)
    )]
    UnsupportedConfig {
        /// The family.
        family: String,
        /// All of them.
        problems: Vec<Unsupported>,
    },
}

/// One key that cannot be honoured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// With dots where it is nested.
    pub key: String,
    /// As JSON, shortened where it is long.
    pub value: String,
    /// What would do.
    pub expected: String,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is {}: expected {}", self.key, self.value, self.expected)
    }
}

fn list(problems: &[Unsupported]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}
