//! What can go wrong between a kernel's spec and its text.

/// An error of emission, validation or translation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No kernel computes this.
    #[error("no {kernel} kernel for {what}: {advice}")]
    Unsupported {
        /// Kind of kernel.
        kernel: &'static str,
        /// What was asked for.
        what: String,
        /// What would do.
        advice: &'static str,
    },
    /// A kernel exceeds a limit of the target.
    #[error("kernel {kernel} needs {needed} {limit}, target {target} offers {offered}")]
    Limit {
        /// Name of the kernel.
        kernel: String,
        /// The limit, in words.
        limit: &'static str,
        /// What the kernel needs.
        needed: u64,
        /// What the target offers.
        offered: u64,
        /// The target.
        target: crate::target::TargetName,
    },
    /// The text is not valid WGSL, or another back end refuses it.
    #[error("kernel {kernel}: {stage}: {message}")]
    Text {
        /// Name of the kernel.
        kernel: String,
        /// Parsing, validation, or the language it was translated into.
        stage: &'static str,
        /// What the compiler said, with the place in the text.
        message: String,
    },
}
