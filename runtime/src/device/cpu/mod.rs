//! The processor: the same plans, by native kernels.
//!
//! Kernels, threads and memory are the crate `dwindle-native`; `program` binds a plan to them.
//!
//! Results do not depend on the number of threads. Codes of 3 to 8 bits are multiplied with activations rounded to 8
//! bits, see `kernels/matmul/quantize.rs` there; all else is f32.

mod program;
#[cfg(any(test, fuzzing))]
pub mod trial;

use std::sync::Arc;

use dwindle_bundle::Plan;

pub use dwindle_native::InstructionSet;
pub use dwindle_native::topology::default_threads;
pub use program::Program;

use super::{Device, Entries};
use crate::Error;
use dwindle_native::pool::Pool;

/// The environment variable that names an [`InstructionSet`].
pub const VARIABLE: &str = "DWINDLE_CPU";

/// How the processor is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Threads; without it, as many as there are physical cores for this process.
    pub threads: Option<usize>,
    /// Name of an [`InstructionSet`]; without it, [`VARIABLE`] or the best there is.
    pub instruction_set: Option<String>,
}

/// The processor with a team of threads. Clones share it.
#[derive(Clone, Debug)]
pub struct Cpu {
    pool: Arc<Pool>,
    set: InstructionSet,
}

impl Cpu {
    /// Starts the threads.
    ///
    /// # Errors
    /// [`Error::InstructionSet`] where the named one is not available.
    pub fn open(options: &Options) -> Result<Cpu, Error> {
        let wanted = options.instruction_set.clone().or_else(|| std::env::var(VARIABLE).ok());
        let set = InstructionSet::choose(wanted.as_deref())?;
        let pool = Pool::new(options.threads.unwrap_or_else(default_threads));
        tracing::debug!(threads = pool.members(), %set, "processor opened");
        Ok(Cpu { pool: Arc::new(pool), set })
    }

    /// The instruction set in use.
    pub fn instruction_set(&self) -> InstructionSet {
        self.set
    }

    fn pool(&self) -> &Pool {
        &self.pool
    }
}

impl Device for Cpu {
    fn name(&self) -> String {
        let threads = self.pool.members();
        format!("CPU ({}, {threads} thread{})", self.set, if threads == 1 { "" } else { "s" })
    }

    fn place(&self) -> super::Place {
        super::Place::Mapped
    }

    fn program(&self, plan: &Plan, _: &dyn Entries) -> Result<Box<dyn super::Program>, Error> {
        Ok(Box::new(Program::new(self, plan)?))
    }
}
