//! Which device a bundle runs on, as the user chooses it.

/// Options of commands that run a model.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Device {
    /// Use the GPU whose name contains this [default: the fastest kind there is]
    #[arg(long, value_name = "NAME")]
    gpu: Option<String>,
}

impl Device {
    /// For the runtime.
    pub fn choice(&self) -> dwindle_runtime::device::gpu::Options {
        dwindle_runtime::device::gpu::Options { adapter: self.gpu.clone() }
    }
}
