//! A model on a device: kernels and weights, which any number of conversations share.

use std::sync::Arc;

use dwindle_bundle::{BufferKind, Bundle, Function, ImageInput};

use crate::Error;
use crate::device::Device;
use crate::executor::Executor;
use crate::sequence::{Sequence, Workspace};

/// A state that has a row for each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cache {
    buffer: usize,
    bytes: u64,
    /// Bytes of a row; `None` where rows cannot be told apart.
    row: Option<u64>,
}

/// A model on a device. Nothing of it changes but whether its weights are in memory; what one conversation has of it is a
/// [`Sequence`], what one call works in a [`Workspace`].
#[derive(Debug)]
pub struct Model {
    executor: Executor,
    context: u32,
    vocab_size: u32,
    image: Option<ImageInput>,
    caches: Vec<Cache>,
    /// Where weights come from when they are loaded again.
    bundle: Option<Bundle>,
}

impl Model {
    /// A model whose weights stay.
    ///
    /// # Errors
    /// [`Error::Plan`] where the plan's logits do not have the columns that the model claims.
    pub fn new(executor: Executor, model: &dwindle_bundle::Model) -> Result<Arc<Model>, Error> {
        Model::of(executor, model, None)
    }

    /// A model of a bundle on a device, whose weights are not there until [`Model::load`].
    ///
    /// # Errors
    /// Those of [`Model::new`] and [`Executor::unloaded`].
    pub fn unloaded(device: &dyn Device, model: &dwindle_bundle::Model, bundle: &Bundle) -> Result<Arc<Model>, Error> {
        Model::of(Executor::unloaded(device, &model.plan, bundle)?, model, Some(bundle.clone()))
    }

    fn of(executor: Executor, model: &dwindle_bundle::Model, bundle: Option<Bundle>) -> Result<Arc<Model>, Error> {
        for (name, function) in &executor.plan().functions {
            for port in function.outputs.iter().filter(|port| port.name == "logits") {
                if port.columns != model.vocab_size {
                    let why =
                        format!("`{name}` gives {} logits, the vocabulary has {}", port.columns, model.vocab_size);
                    return Err(Error::Plan { why });
                }
            }
        }
        let (context, vocab_size, image) = (model.context, model.vocab_size, model.image.clone());
        let caches = caches(&executor, context);
        Ok(Arc::new(Model { executor, context, vocab_size, image, caches, bundle }))
    }

    /// Brings the weights into memory, if they are not there.
    ///
    /// # Errors
    /// Those of [`Executor::load`].
    pub fn load(&self) -> Result<(), Error> {
        match &self.bundle {
            Some(bundle) => self.executor.load(bundle),
            None => Ok(()),
        }
    }

    /// Gives the memory of the weights back until [`Model::load`]; sequences stay, workspaces are dropped before. Does nothing to a
    /// model whose weights stay.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn unload(&self) -> Result<(), Error> {
        match &self.bundle {
            Some(_) => self.executor.unload(),
            None => Ok(()),
        }
    }

    /// A sequence without positions.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with the buffer that did not fit.
    pub fn sequence(self: &Arc<Self>) -> Result<Sequence, Error> {
        Ok(Sequence::new(self.clone(), self.executor.states()?))
    }

    /// Memory for calls to work in, one at a time.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with the buffer that did not fit.
    pub fn workspace(&self) -> Result<Workspace, Error> {
        Ok(Workspace::new(self.executor.workspace()?))
    }

    /// Positions of a sequence.
    pub fn context(&self) -> u32 {
        self.context
    }

    /// Columns of the logits.
    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    /// How it sees.
    pub fn image(&self) -> Option<&ImageInput> {
        self.image.as_ref()
    }

    /// The plan's executor, for reading outputs other than logits.
    pub fn executor(&self) -> &Executor {
        &self.executor
    }

    /// What makes the states of its sequences what they are: a hash of the plan and of all weights.
    pub(crate) fn identity(&self) -> Result<[u8; 32], Error> {
        let unfit = |error: serde_json::Error| Error::Plan { why: error.to_string() };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&serde_json::to_vec(self.executor.plan()).map_err(unfit)?);
        if let Some(bundle) = &self.bundle {
            let entries = &bundle.manifest().entries;
            for name in self.executor.plan().entries() {
                hasher.update(entries.get(name).map_or("", |entry| entry.blake3.as_str()).as_bytes());
            }
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// The states with a row for each position, each with the bytes that the first `positions` take, a multiple of 4.
    pub(crate) fn caches(&self, positions: u32) -> impl Iterator<Item = (usize, u64)> {
        self.caches.iter().map(move |cache| {
            let bytes = cache.row.map_or(cache.bytes, |row| row.saturating_mul(u64::from(positions)));
            (cache.buffer, bytes.next_multiple_of(4).min(cache.bytes))
        })
    }

    pub(crate) fn function(&self, name: &str) -> Result<&Function, Error> {
        let functions = &self.executor.plan().functions;
        functions
            .get(name)
            .ok_or_else(|| Error::NoFunction { function: name.to_owned(), found: functions.keys().cloned().collect() })
    }
}

/// States other than image rows, which are made anew for each picture.
fn caches(executor: &Executor, context: u32) -> Vec<Cache> {
    let buffers = executor.plan().buffers.iter().enumerate();
    let caches = buffers.filter(|(_, buffer)| buffer.kind == BufferKind::State && buffer.name.starts_with("kv."));
    caches
        .map(|(index, buffer)| {
            let context = u64::from(context.max(1));
            let row = buffer.bytes.is_multiple_of(context).then(|| buffer.bytes / context);
            Cache { buffer: index, bytes: buffer.bytes, row }
        })
        .collect()
}
