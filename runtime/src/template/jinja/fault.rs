//! Why a template stops.

/// Why a template cannot be read, or stops.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fault {
    /// It is not Jinja, or it fails; the reason is worded as Python's and Jinja's messages are.
    Failed(String),
    /// It called `raise_exception` with this text.
    Raised(String),
    /// It reached this limit.
    Limit(String),
}

impl Fault {
    /// A failure with this reason.
    pub(crate) fn failed<T>(reason: impl Into<String>) -> Result<T> {
        Err(Fault::Failed(reason.into()))
    }
}

/// What evaluation gives.
pub(crate) type Result<T> = std::result::Result<T, Fault>;

/// The beginning of a text for a message.
pub(crate) fn brief(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
