//! What tests of this crate share: a GPU if there is one, and short ways to write plans.

use std::collections::BTreeMap;

use dwindle_bundle::{
    Access, Binding, Buffer, BufferKind, Call, Code, Extent, Kernel, Plan, Port, PortType, Step, Target,
};

use crate::Error;
use crate::device;
use crate::device::gpu::{Gpu, Options};
use crate::executor::{Element, Executor, Lane, States};

/// A target that needs these limits.
pub(crate) fn target(needs: &[(&str, u64)]) -> Target {
    let needs = needs.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
    Target { name: "vulkan".to_owned(), needs, features: Vec::new() }
}

/// A GPU, or `None` after saying so; with `REQUIRE_ADAPTER=1`, its absence is a failure.
pub(crate) fn gpu() -> Option<Gpu> {
    match Gpu::open(&Options::default(), &target(&[])) {
        Ok(gpu) => Some(gpu),
        Err(Error::NoAdapter) if std::env::var_os("REQUIRE_ADAPTER").is_none_or(|value| value != "1") => {
            eprintln!("skipped: no adapter");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) type Memory = BTreeMap<String, Vec<u8>>;

/// A plan and its entries, grown piece by piece.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) plan: Plan,
    pub(crate) entries: Memory,
}

impl Draft {
    pub(crate) fn buffer(&mut self, name: &str, values: u64, kind: BufferKind) -> u32 {
        self.plan.buffers.push(Buffer { name: name.to_owned(), bytes: values * 4, kind });
        self.plan.buffers.len() as u32 - 1
    }

    pub(crate) fn weights(&mut self, name: &str, values: &[f32]) -> u32 {
        self.entries.insert(name.to_owned(), bytemuck::cast_slice(values).to_vec());
        self.buffer(name, values.len() as u64, BufferKind::Weights(name.to_owned()))
    }

    /// A kernel of workgroups of 64, whose storage bindings are declared by `body`.
    pub(crate) fn kernel(&mut self, name: &str, bindings: &[Access], body: &str) -> u32 {
        let text = format!(
            "struct Call {{ rows: u32, position: u32, tile: u32, padding: u32 }}\n\
             @group(0) @binding(0) var<uniform> call: Call;\n{body}"
        );
        self.entries.insert(format!("{name}.wgsl"), text.into_bytes());
        self.plan.kernels.push(Kernel {
            name: name.to_owned(),
            code: Code::Wgsl { text: format!("{name}.wgsl"), spirv: None, msl: None },
            workgroup: [64, 1, 1],
            bindings: bindings.to_vec(),
        });
        self.plan.kernels.len() as u32 - 1
    }

    /// A step with whole buffers bound.
    pub(crate) fn step(&self, kernel: u32, buffers: &[u32], grid: [Extent; 3]) -> Step {
        let bytes = |buffer: u32| self.plan.buffers[buffer as usize].bytes;
        let bindings = buffers.iter().map(|&buffer| Binding { buffer, offset: 0, bytes: bytes(buffer) }).collect();
        Step { kernel, bindings, grid }
    }
}

/// An executor with the states of one sequence and a workspace.
pub(crate) struct Runner {
    pub(crate) executor: Executor,
    pub(crate) states: States,
    pub(crate) workspace: Box<dyn device::Workspace>,
}

impl Runner {
    pub(crate) fn new(device: &dyn device::Device, plan: &Plan, entries: &Memory) -> Result<Runner, Error> {
        let executor = Executor::new(device, plan, entries)?;
        Ok(Runner { states: executor.states()?, workspace: executor.workspace()?, executor })
    }

    pub(crate) fn write_input<T: Element>(&self, function: &str, port: &str, values: &[T]) -> Result<(), Error> {
        self.executor.write_input(function, port, values, &*self.workspace)
    }

    pub(crate) fn run(&mut self, function: &str, call: Call) -> Result<(), Error> {
        let mut lane = Lane { states: &mut *self.states, workspace: &mut *self.workspace };
        self.executor.run(function, call, &mut lane)
    }

    pub(crate) fn run_and_read<T: Element>(
        &mut self,
        function: &str,
        call: Call,
        port: &str,
        values: &mut Vec<T>,
    ) -> Result<(), Error> {
        let mut lane = Lane { states: &mut *self.states, workspace: &mut *self.workspace };
        self.executor.run_and_read(function, call, &mut lane, port, values)
    }

    pub(crate) fn read_output<T: Element>(&mut self, function: &str, port: &str, rows: u32) -> Result<Vec<T>, Error> {
        self.executor.read_output(function, port, rows, &mut *self.workspace)
    }
}

pub(crate) fn port(name: &str, buffer: u32, dtype: PortType, rows: Option<u32>, columns: u32) -> Port {
    Port { name: name.to_owned(), buffer, dtype, rows, columns }
}
