//! Files of checkpoints, mapped into memory.

use std::ops::Deref;
use std::path::Path;

use crate::error::{Error, Result};

/// The bytes of a checkpoint's file, with errors that name it.
#[derive(Debug)]
pub struct Mapping(dwindle_bundle::Mapping);

impl Mapping {
    /// Maps the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or is not a regular file.
    pub fn open(path: &Path) -> Result<Self> {
        dwindle_bundle::Mapping::open(path).map(Mapping).map_err(Error::io("read", path))
    }
}

impl Deref for Mapping {
    type Target = dwindle_bundle::Mapping;

    fn deref(&self) -> &dwindle_bundle::Mapping {
        &self.0
    }
}
