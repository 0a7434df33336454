//! The files of a model: one, or the parts that llama.cpp's `gguf-split` makes of it, `NAME-00001-of-00003.gguf` and so on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::header::Header;
use super::metadata::Metadata;
use crate::checkpoint::mapping::Mapping;
use crate::checkpoint::model_dir::{MODEL_JSON, MODEL_SAFETENSORS};
use crate::checkpoint::source::INDEX;
use crate::error::{Error, Result};

/// Ending of GGUF files' names.
const EXTENSION: &str = "gguf";

/// Most parts of a model; the name has five digits.
const MAX_PARTS: u64 = 99_999;

/// An open file.
pub struct Part {
    pub path: PathBuf,
    pub mapping: Mapping,
    pub header: Header,
}

impl Part {
    fn open(path: PathBuf) -> Result<Self> {
        let mapping = Mapping::open(&path)?;
        let header = Header::parse(&mapping).map_err(|reason| refuse(&path, vec![reason]))?;
        Ok(Part { path, mapping, header })
    }

    /// The metadata.
    pub fn metadata(&self) -> Metadata<'_> {
        Metadata { file: &self.mapping, values: &self.header.metadata }
    }

    fn size(&self, key: &str) -> Result<Option<u64>> {
        self.metadata().size(key).map_err(|reason| refuse(&self.path, vec![reason]))
    }
}

fn refuse(path: &Path, reasons: Vec<String>) -> Error {
    Error::Gguf { path: path.to_owned(), reasons }
}

/// The name of a part: what is before the numbers, the part's number from 1 on, and the number of parts.
fn numbers(path: &Path) -> Option<(&str, u64, u64)> {
    let name = path.file_name()?.to_str()?;
    let (stem, extension) = name.rsplit_once('.')?;
    if !extension.eq_ignore_ascii_case(EXTENSION) {
        return None;
    }
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, part) = rest.rsplit_once('-')?;
    let number = |digits: &str| (digits.len() == 5).then(|| digits.parse::<u64>().ok())?;
    let (part, count) = (number(part)?, number(count)?);
    (1..=count).contains(&part).then_some((name, part, count))
}

/// The path of part `part` of those that `path` is one of.
fn sibling(path: &Path, name: &str, part: u64, count: u64) -> PathBuf {
    path.with_file_name(format!("{name}-{part:05}-of-{count:05}.{EXTENSION}"))
}

/// The files of the model at `path` as far as names tell: all parts where it is named like one, else `path` itself.
pub fn files(path: &Path) -> Vec<PathBuf> {
    match numbers(path) {
        Some((name, _, count)) => {
            let all = (1..=count).map(|part| sibling(path, name, part, count));
            let there: Vec<_> = all.filter(|path| path.is_file()).collect();
            if there.len() as u64 == count { there } else { vec![path.to_owned()] }
        }
        None => vec![path.to_owned()],
    }
}

/// Opens all files of the model that `path` belongs to. The first has the metadata.
///
/// # Errors
/// A file is damaged or missing, or the parts are not of one model.
pub fn open(path: &Path) -> Result<Vec<Part>> {
    let given = Part::open(path.to_owned())?;
    let count = given.size("split.count")?.unwrap_or(1);
    if count <= 1 {
        return Ok(vec![given]);
    }
    let Some((name, number, _)) = numbers(path).filter(|(.., named)| *named == count && count <= MAX_PARTS) else {
        let reason = format!(
            "one of {count} parts of a model, but its name does not end in `-00001-of-{count:05}.{EXTENSION}`, by which the \
             others are found; rename the parts, or join them: `llama-gguf-split --merge FIRST-PART OUTPUT.gguf`"
        );
        return Err(refuse(path, vec![reason]));
    };
    let paths: Vec<_> = (1..=count).map(|part| sibling(path, name, part, count)).collect();
    let missing = paths.iter().filter(|path| !path.is_file());
    let missing: Vec<_> = missing.map(|path| path.file_name().unwrap_or_default().to_string_lossy()).collect();
    if !missing.is_empty() {
        let shown = missing.iter().take(8).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
        let more = if missing.len() > 8 { ", …" } else { "" };
        let reason =
            format!("one of {count} parts; {} missing: {shown}{more}; put all parts side by side", missing.len());
        return Err(refuse(path, vec![reason]));
    }
    let mut given = Some(given);
    let mut parts = Vec::new();
    for (index, path) in paths.into_iter().enumerate() {
        let part = match given.take_if(|_| index as u64 + 1 == number) {
            Some(part) => part,
            None => Part::open(path)?,
        };
        let found = (part.size("split.no")?, part.size("split.count")?);
        if found != (Some(index as u64), Some(count)) {
            let shown = |number: Option<u64>| number.map_or("no number".to_owned(), |number| number.to_string());
            let reason = format!(
                "named as part {} of {count}, but its metadata say `split.no` {} and `split.count` {}; download the parts again",
                index + 1,
                shown(found.0),
                shown(found.1)
            );
            return Err(refuse(&part.path, vec![reason]));
        }
        parts.push(part);
    }
    check_tensors(&parts)?;
    Ok(parts)
}

/// Checks that no tensor is in two parts, and that none is missing.
fn check_tensors(parts: &[Part]) -> Result<()> {
    let mut owners = BTreeMap::new();
    for part in parts {
        for name in part.header.tensors.keys() {
            if let Some(other) = owners.insert(name.as_str(), &part.path) {
                let reason = format!("tensor `{name}` is in {} as well; download the parts again", other.display());
                return Err(refuse(&part.path, vec![reason]));
            }
        }
    }
    let Some(first) = parts.first() else { return Ok(()) };
    match first.size("split.tensors.count")? {
        Some(count) if count != owners.len() as u64 => {
            let reason = format!("the parts have {} tensors, not {count}; download them again", owners.len());
            Err(refuse(&first.path, vec![reason]))
        }
        _ => Ok(()),
    }
}

/// The GGUF file at `path`, or the only model of such files in that directory, if there is one and no checkpoint beside it;
/// of a model in parts the first.
///
/// # Errors
/// The directory cannot be read, or has files of several models.
pub fn find(path: &Path) -> Result<Option<PathBuf>> {
    let is_gguf = |path: &Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(EXTENSION));
    if path.is_file() {
        return Ok(is_gguf(path).then(|| path.to_owned()));
    }
    if !path.is_dir() || [MODEL_JSON, MODEL_SAFETENSORS, INDEX].iter().any(|name| path.join(name).exists()) {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io("read", path))? {
        let file = entry.map_err(Error::io("read", path))?.path();
        if is_gguf(&file) && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    let model = |path: &PathBuf| numbers(path).map(|(name, _, count)| (name.to_owned(), count));
    let one_model = found
        .first()
        .and_then(model)
        .is_some_and(|first| found.iter().all(|path| model(path).as_ref() == Some(&first)));
    if found.len() > 1 && !one_model {
        let names: Vec<_> = found.iter().map(|file| file.file_name().unwrap_or_default().to_string_lossy()).collect();
        let reason = format!("it has several GGUF files; name one of them: {}", names.join(", "));
        return Err(Error::NotCheckpoint { path: path.to_owned(), reason });
    }
    Ok(found.into_iter().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_parts() {
        for (name, expected) in [
            ("a/model-00001-of-00003.gguf", Some(("model", 1, 3))),
            ("q-4-k-m-00002-of-00002.GGUF", Some(("q-4-k-m", 2, 2))),
            ("model-00004-of-00003.gguf", None),
            ("model-00000-of-00003.gguf", None),
            ("model-1-of-3.gguf", None),
            ("model-00001-of-00003.safetensors", None),
            ("model.gguf", None),
            ("-of-.gguf", None),
        ] {
            assert_eq!(numbers(Path::new(name)), expected, "{name}");
        }
    }
}
