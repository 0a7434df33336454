//! The image processor's configuration, which versions of transformers keep in different files.
//!
//! Up to transformers 4 it is `preprocessor_config.json`. What 5 saves is one `processor_config.json` of all processors, in which
//! it is `image_processor`, and which counts where both are there (`image_processing_base.py`).

use std::path::Path;

use serde_json::Value;

use super::json;
use crate::error::Result;

/// The file of its own, and the name under which a model directory has it.
pub(super) const FILE: &str = "preprocessor_config.json";

/// The file of all processors.
const ALL: &str = "processor_config.json";

/// The configuration of the checkpoint in `directory`, if it has one.
///
/// # Errors
/// A file cannot be read, or is no JSON.
pub(super) fn read(directory: &Path) -> Result<Option<Value>> {
    let content = |name: &str| {
        let path = directory.join(name);
        if path.is_file() { json::read(&path, json::MAX_BYTES).map(Some) } else { Ok(None) }
    };
    let nested = content(ALL)?.and_then(|mut all| all.get_mut("image_processor").map(Value::take));
    match nested.filter(Value::is_object) {
        Some(nested) => Ok(Some(nested)),
        None => content(FILE),
    }
}
