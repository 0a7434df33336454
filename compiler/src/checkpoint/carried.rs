//! Files that go from the source into the model directory unchanged.

use std::path::Path;

use super::model_dir::CarriedFile;
use crate::error::{Error, Result};

/// All names that are carried, if the source has them.
pub(crate) const NAMES: [&str; 10] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
];

/// Bytes of all files in `from` that are carried.
pub(crate) fn total_bytes(from: &Path) -> u64 {
    NAMES.iter().filter_map(|name| std::fs::metadata(from.join(name)).ok()).map(|metadata| metadata.len()).sum()
}

/// Copies all carried files that `from` has to `to`.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<Vec<CarriedFile>> {
    let mut files = Vec::new();
    for name in NAMES {
        let source = from.join(name);
        if source.is_file() {
            let bytes = std::fs::read(&source).map_err(Error::io("read", &source))?;
            let target = to.join(name);
            std::fs::write(&target, &bytes).map_err(Error::io("write", &target))?;
            files.push(CarriedFile { name: name.to_owned(), blake3: blake3::hash(&bytes).to_hex().to_string() });
        }
    }
    Ok(files)
}
