//! Which device a bundle runs on, as the user chooses it.

use std::num::NonZeroUsize;

use anyhow::Result;
use dwindle_bundle::Bundle;
use dwindle_runtime::device::{self, Options, cpu, gpu};

/// Options of commands that run a model.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Device {
    /// Use the GPU whose name contains this [default: the fastest kind there is]
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,

    /// Threads of the target cpu [default: physical cores for this process]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The GPU where there is one, else the processor
    #[default]
    Auto,
    /// The GPU, be it a software one
    Gpu,
    /// The processor
    Cpu,
}

impl Device {
    /// For the runtime.
    pub fn choice(&self) -> Options {
        Options {
            gpu: gpu::Options { adapter: self.gpu.clone() },
            cpu: cpu::Options { threads: self.threads(), ..cpu::Options::default() },
        }
    }

    /// The bundle with the plans for a device of this kind; a GPU's name asks for a GPU.
    pub fn select(&self, bundle: &Bundle, kind: Kind) -> Result<Bundle> {
        let kind = match kind {
            Kind::Auto if self.names_gpu() => device::Kind::Gpu,
            Kind::Auto => device::Kind::Auto,
            Kind::Gpu => device::Kind::Gpu,
            Kind::Cpu => device::Kind::Cpu,
        };
        Ok(device::choose(bundle, kind)?)
    }

    /// Threads that were asked for.
    pub fn threads(&self) -> Option<usize> {
        self.threads.map(usize::from)
    }

    /// Whether a GPU was asked for by name.
    pub fn names_gpu(&self) -> bool {
        self.gpu.is_some()
    }
}
