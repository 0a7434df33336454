//! The files that go with a checkpoint's weights into a model directory: most are copied, some are made, where a checkpoint has
//! what they say in other files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::model_dir::CarriedFile;
use super::source::Outline;
use super::{carried, json, processor, tokenizer};
use crate::error::Result;
use crate::note::Note;

/// The files of one checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Companions {
    directory: PathBuf,
    /// Contents of those that are made, by name.
    made: BTreeMap<String, String>,
    notes: Vec<Note>,
}

impl Companions {
    /// Those of a checkpoint, of which everything but the weights is there.
    ///
    /// # Errors
    /// A file cannot be read, or is not what its name says.
    pub fn of(outline: &Outline) -> Result<Self> {
        let directory = outline.path().to_owned();
        let mut made = BTreeMap::new();
        if let Some(processor) = outline.preprocessor()
            && own_processor(&directory)?.as_ref() != Some(processor)
        {
            made.insert(processor::FILE.to_owned(), format!("{processor:#}\n"));
        }
        let tokenizer = tokenizer::made(&directory, outline.config())?;
        made.extend(tokenizer.files);
        Ok(Companions { directory, made, notes: tokenizer.notes })
    }

    /// Contents of those that are made, by name.
    pub fn made(&self) -> &BTreeMap<String, String> {
        &self.made
    }

    /// What is worth a line.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// All of them, without hashes.
    pub fn files(&self) -> Vec<CarriedFile> {
        let made = self.made.keys().map(|name| CarriedFile { name: name.clone(), blake3: String::new() });
        sorted(made.chain(self.copied()))
    }

    /// Bytes of all of them.
    pub fn total_bytes(&self) -> u64 {
        let made: u64 = self.made.values().map(|text| text.len() as u64).sum();
        made + carried::total_bytes(&self.directory)
    }

    /// Writes all of them to `to`.
    ///
    /// # Errors
    /// A file cannot be read or written.
    pub fn write(&self, to: &Path) -> Result<Vec<CarriedFile>> {
        let mut files = Vec::new();
        for (name, text) in &self.made {
            files.push(carried::write(to, name, text)?);
        }
        for file in self.copied() {
            files.push(carried::copy_one(&self.directory, to, &file.name)?);
        }
        Ok(sorted(files))
    }

    /// Those that are copied, without hashes.
    fn copied(&self) -> impl Iterator<Item = CarriedFile> {
        carried::present(&self.directory).into_iter().filter(|file| !self.made.contains_key(&file.name))
    }
}

fn sorted(files: impl IntoIterator<Item = CarriedFile>) -> Vec<CarriedFile> {
    let mut files: Vec<_> = files.into_iter().collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// What the image processor's own file says, if there is one.
fn own_processor(directory: &Path) -> Result<Option<Value>> {
    let path = directory.join(processor::FILE);
    if path.is_file() { json::read(&path, json::MAX_BYTES).map(Some) } else { Ok(None) }
}
