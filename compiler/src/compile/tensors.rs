//! Tensors of model directories as packing sees them.

use std::collections::BTreeMap;

use crate::checkpoint::ModelDir;
use crate::checkpoint::safetensors::Element;
use crate::graph::{DType, Stored, Tensors};

/// The tensors of one model, each from one of the directories that hold variants of it.
pub struct StoredTensors<'a> {
    /// The directories.
    variants: Vec<&'a ModelDir>,
    /// For logical tensors that are not taken from the first directory, the number of theirs.
    chosen: BTreeMap<String, usize>,
}

impl<'a> StoredTensors<'a> {
    /// All tensors of one directory.
    pub fn of(directory: &'a ModelDir) -> Self {
        StoredTensors { variants: vec![directory], chosen: BTreeMap::new() }
    }

    /// Tensors of several directories of the same model; `choose` says for a logical tensor which one's is taken.
    pub fn mixed(variants: &[&'a ModelDir], choose: impl Fn(&str) -> usize) -> Self {
        let names = variants.first().into_iter().flat_map(|directory| directory.model.tensors.keys());
        let chosen = names.map(|name| (name.clone(), choose(name))).collect();
        StoredTensors { variants: variants.to_vec(), chosen }
    }

    /// The directory that a stored tensor comes from: `X.codes` from the one of `X`.
    fn directory(&self, stored: &str) -> Option<&'a ModelDir> {
        let logical = stored.rsplit_once('.').map_or(stored, |(logical, _)| logical);
        let chosen = self.chosen.get(stored).or_else(|| self.chosen.get(logical));
        self.variants.get(chosen.copied().unwrap_or(0)).copied()
    }
}

impl Tensors for StoredTensors<'_> {
    fn stored(&self, name: &str) -> Option<Stored<'_>> {
        let view = self.directory(name)?.tensor(name)?;
        let dtype = match view.dtype {
            Element::F32 => DType::F32,
            Element::F16 => DType::F16,
            Element::Bf16 => DType::Bf16,
            Element::U32 => DType::U32,
            Element::I32 => DType::I32,
            // A model directory holds no others; one that does is refused when it is opened.
            _ => return None,
        };
        Some(Stored { dtype, shape: view.shape, bytes: view.bytes })
    }
}
