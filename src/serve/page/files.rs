//! The files of the page.

use super::File;

/// All of them.
pub const FILES: &[File] = &[];
