//! What the functions of a model share while they are lowered: kernels, weights and buffers that have names.

use std::collections::BTreeMap;

use dwindle_bundle::{Access, BufferKind};

use super::weights::{BINDING_GRANULE, Layout, Source, Weights};
use super::{LowerError, LowerOptions};
use crate::graph::DType;
use crate::kernels::Emitted;
use crate::kernels::spec::KernelSpec;
use crate::target::Target;

/// Why a kernel could not be emitted.
pub type EmitError = Box<dyn std::error::Error + Send + Sync>;

/// Makes a kernel from its spec.
pub type Emit<'a> = dyn FnMut(&KernelSpec, &Target) -> Result<Emitted, EmitError> + 'a;

/// A buffer that exists by name: a state, or a port.
#[derive(Clone, Debug)]
pub struct NamedBuffer {
    /// Its name in the plan.
    pub name: String,
    /// State, input or output.
    pub kind: BufferKind,
    /// Bytes, the most that any function needs.
    pub bytes: u64,
}

/// Shared by the functions of a model.
pub struct Shared<'a> {
    /// Limits.
    pub target: &'a Target,
    /// Context, rows, type of the states.
    pub options: &'a LowerOptions,
    /// Constant data.
    pub weights: Weights,
    /// States and ports.
    pub named: Vec<NamedBuffer>,
    /// Kernels, each once.
    pub kernels: Vec<Emitted>,
    emit: &'a mut Emit<'a>,
    specs: Vec<(KernelSpec, usize)>,
    names: BTreeMap<String, usize>,
}

impl<'a> Shared<'a> {
    /// Nothing is shared yet.
    pub fn new(target: &'a Target, options: &'a LowerOptions, emit: &'a mut Emit<'a>) -> Self {
        Shared {
            target,
            options,
            weights: Weights::default(),
            named: Vec::new(),
            kernels: Vec::new(),
            emit,
            specs: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// The kernel for a spec. Specs that lead to the same text share it.
    pub fn kernel(&mut self, spec: KernelSpec) -> Result<usize, EmitError> {
        if let Some((_, index)) = self.specs.iter().find(|(known, _)| *known == spec) {
            return Ok(*index);
        }
        let emitted = (self.emit)(&spec, self.target)?;
        let index = match self.names.get(&emitted.name) {
            Some(&index) if self.kernels[index] == emitted => index,
            Some(_) => return Err(format!("two kernels are called `{}`", emitted.name).into()),
            None => {
                self.names.insert(emitted.name.clone(), self.kernels.len());
                self.kernels.push(emitted);
                self.kernels.len() - 1
            }
        };
        self.specs.push((spec, index));
        Ok(index)
    }

    /// Packs constant data; returns its index in [`Weights::tensors`].
    pub fn pack(
        &mut self,
        source: Source,
        dtype: DType,
        columns: usize,
        padded_columns: usize,
        layout: Layout,
    ) -> Result<usize, LowerError> {
        let limit = binding_limit(self.target);
        let what = || format!("the weights {source}");
        let too_large = |needed, what| LowerError::Limit {
            what,
            limit: "max_storage_buffer_binding_size",
            needed,
            offered: limit,
            hint: ", and only the rows of matrices can be split",
        };
        let text = what();
        let index = self
            .weights
            .intern(source, dtype, columns, padded_columns, layout)
            .ok_or_else(|| too_large(u64::MAX, text.clone()))?;
        match self.weights.tensors[index].bytes {
            bytes if bytes > limit => Err(too_large(bytes, text)),
            _ => Ok(index),
        }
    }

    /// The buffer of this name, made as large as needed.
    pub fn buffer(&mut self, name: &str, kind: BufferKind, bytes: u64) -> Result<usize, LowerError> {
        let hint = match kind {
            BufferKind::State => ": compile for a shorter context",
            _ => ": compile for fewer rows a call",
        };
        check_size(&format!("buffer `{name}`"), bytes, self.target, hint)?;
        if let Some(index) = self.named.iter().position(|b| b.name == name) {
            let known = &mut self.named[index];
            // A state's size is part of its meaning; a port's buffer is as large as the largest function needs.
            if known.kind != kind || (kind == BufferKind::State && known.bytes != bytes) {
                return Err(LowerError::Conflict {
                    name: name.to_owned(),
                    first: format!("{:?} of {} bytes", known.kind, known.bytes),
                    second: format!("{kind:?} of {bytes} bytes"),
                });
            }
            known.bytes = known.bytes.max(bytes);
            return Ok(index);
        }
        self.named.push(NamedBuffer { name: name.to_owned(), kind, bytes });
        Ok(self.named.len() - 1)
    }

    /// The access of each binding of a kernel.
    pub fn accesses(&self, kernel: usize) -> &[Access] {
        &self.kernels[kernel].bindings
    }
}

/// The most bytes a binding may span, in whole granules, also limited by the size of a buffer.
pub fn binding_limit(target: &Target) -> u64 {
    let limit = target.max_storage_buffer_binding_size.min(target.max_buffer_size);
    limit - limit % BINDING_GRANULE
}

/// Refuses a buffer that no binding could span.
pub fn check_size(what: &str, bytes: u64, target: &Target, hint: &'static str) -> Result<(), LowerError> {
    let offered = binding_limit(target);
    if bytes <= offered {
        return Ok(());
    }
    Err(LowerError::Limit {
        what: what.to_owned(),
        limit: "max_storage_buffer_binding_size",
        needed: bytes,
        offered,
        hint,
    })
}
