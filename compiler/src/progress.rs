//! How long operations tell a caller how far they are.

/// Receives the progress of one operation after another; called from several threads.
pub trait Progress: Sync {
    /// An operation begins (`quantize`, `hash`) that will handle `total_bytes`.
    fn begin(&self, what: &str, total_bytes: u64);

    /// `bytes` more are done.
    fn advance(&self, bytes: u64);

    /// The operation is over.
    fn end(&self);
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _what: &str, _total_bytes: u64) {}
    fn advance(&self, _bytes: u64) {}
    fn end(&self) {}
}
