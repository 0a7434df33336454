//! Checkpoints for tests: the golden ones, and ones made up of given tensors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dwindle_schemes::Role;
use serde_json::Value;
use tempfile::TempDir;

use super::convert::Conversion;
use super::safetensors::{Element, Layout, TensorWriter};
use super::selection::Needs;
use super::{ConvertReport, ModelDir, Source, names};
use crate::error::Result;
use crate::progress::Silent;

/// A tensor of a made-up checkpoint: name, element type, shape, values.
pub(crate) type Given<'a> = (&'a str, Element, &'a [usize], Vec<f32>);

/// A directory of `tests/golden`.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// All tensors of a checkpoint as f32, by name, with their shapes.
pub(crate) fn owned(directory: &Path) -> BTreeMap<String, (Vec<f32>, Vec<usize>)> {
    let source = Source::open(directory).unwrap();
    let tensor = |(_, view): (usize, super::safetensors::TensorView<'_>)| {
        (view.name.to_owned(), (view.to_f32().unwrap(), view.shape.to_vec()))
    };
    source.tensors().map(tensor).collect()
}

/// Writes a safetensors file.
pub(crate) fn write_tensors(path: &Path, tensors: &[Given<'_>]) {
    let layout = tensors.iter().map(|(name, element, shape, _)| ((*name).to_owned(), (*element, shape.to_vec())));
    let writer = TensorWriter::create(path, Layout::new(&layout.collect())).unwrap();
    for (name, element, shape, values) in tensors {
        let bytes = match element.float() {
            Some(float) => {
                let mut bytes = vec![0; values.len() * float.bytes()];
                match float {
                    dwindle_schemes::FloatType::F32 => bytes.copy_from_slice(bytemuck::cast_slice(values)),
                    _ => dwindle_quant::write_floats(float, values, &mut bytes).unwrap(),
                }
                bytes
            }
            None => vec![0; element.bytes().unwrap() * shape.iter().product::<usize>()],
        };
        writer.write(name, 0, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

/// A checkpoint of a single file.
pub(crate) fn checkpoint(config: &Value, tensors: &[Given<'_>]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    write_tensors(&directory.path().join("model.safetensors"), tensors);
    directory
}

/// Converts a checkpoint, taking all its tensors for needed.
pub(crate) fn convert_all(source: &Path, out: &Path) -> Result<(ModelDir, ConvertReport)> {
    let source = Source::open(source)?;
    let mut tensors = BTreeMap::new();
    for (_, view) in source.tensors() {
        let name = names::canonical(view.name, source.outline().is_multimodal()).into_owned();
        let role = role(&name, view.shape);
        tensors.insert(name, (view.shape.to_vec(), role));
    }
    let needs = Needs { tensors, ignored: Box::new(|_| false), notes: Vec::new() };
    Conversion::of_checkpoint(source, needs, None)?.run(out, &Silent)
}

fn role(name: &str, shape: &[usize]) -> Role {
    match (name, shape.len()) {
        (_, 0 | 1) => Role::Vector,
        _ if name.ends_with("embed_tokens.weight") => Role::Embedding,
        _ if name.ends_with("lm_head.weight") => Role::Head,
        _ if name.ends_with("patch_embedding.weight") => Role::PatchEmbedding,
        _ if name.contains("position_embedding") => Role::Vector,
        _ if name.starts_with("vision_tower.") => Role::VisionLinear,
        _ if name.starts_with("multi_modal_projector.") => Role::Projector,
        _ => Role::Linear,
    }
}

/// The content of all files of a directory.
pub(crate) fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())
    };
    std::fs::read_dir(directory).unwrap().map(file).collect()
}
