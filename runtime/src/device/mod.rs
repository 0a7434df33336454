//! Devices: what holds a plan's buffers and executes its steps.
//!
//! A [`Device`] is opened once and shared by several models: [`gpu::Gpu`] or [`cpu::Cpu`]. A [`Program`] is one plan on it,
//! [`States`] are what one sequence has of it, and a [`Workspace`] is what a call works in. The executor checks ports and calls
//! itself, and needs of these only what is asked for here.

mod bindings;
pub mod cpu;
mod entries;
pub mod gpu;

use std::any::Any;

use dwindle_bundle::{Bundle, Call, Plan, Step, Target};

pub use entries::Entries;

use crate::Error;

/// How devices are chosen and used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// For bundles compiled for GPUs.
    pub gpu: gpu::Options,
    /// For bundles compiled for processors.
    pub cpu: cpu::Options,
}

/// The kind of device that the user wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// A GPU where there is one, else the processor.
    #[default]
    Auto,
    /// A GPU, be it a software one.
    Gpu,
    /// The processor.
    Cpu,
}

/// The bundle with the plans for a device of this kind. Where a bundle has one target, [`Kind::Auto`] takes that.
///
/// # Errors
/// [`dwindle_bundle::Error::NoTarget`] where it was compiled for none, with what to do.
pub fn choose(bundle: &Bundle, kind: Kind) -> Result<Bundle, Error> {
    let names: Vec<&str> = bundle.manifest().targets().map(|target| target.name.as_str()).collect();
    let has_gpu = names.len() > 1 && kind == Kind::Auto && gpu::is_there();
    Ok(bundle.select(target_of(&names, kind, has_gpu))?)
}

/// The name of the processor's target.
const CPU: &str = "cpu";

/// The target of this platform's GPUs.
const GPU: &str = if cfg!(target_vendor = "apple") { "metal" } else { "vulkan" };

/// The target of `names`, of which there is at least one, to use; or the one that is missed.
fn target_of<'n>(names: &[&'n str], kind: Kind, has_gpu: bool) -> &'n str {
    let gpu = || {
        let native = names.iter().find(|name| **name == GPU);
        native.or_else(|| names.iter().find(|name| **name != CPU)).copied()
    };
    let cpu = || names.iter().find(|name| **name == CPU).copied();
    match (kind, names) {
        (Kind::Auto, [only]) => only,
        (Kind::Auto, _) if has_gpu => gpu().or_else(cpu).unwrap_or(GPU),
        // A processor's own kernels beat a GPU's on a processor.
        (Kind::Auto, _) => cpu().or_else(gpu).unwrap_or(CPU),
        (Kind::Gpu, _) => gpu().unwrap_or(GPU),
        (Kind::Cpu, _) => cpu().unwrap_or(CPU),
    }
}

/// Opens the device that a bundle was compiled for.
///
/// # Errors
/// Those of [`cpu::Cpu::open`] where the target is `cpu`, else those of [`gpu::Gpu::open`].
pub fn open(options: &Options, target: &Target) -> Result<Box<dyn Device>, Error> {
    match target.name.as_str() {
        "cpu" => Ok(Box::new(cpu::Cpu::open(&options.cpu)?)),
        _ => Ok(Box::new(gpu::Gpu::open(&options.gpu, target)?)),
    }
}

/// What plans are put on.
pub trait Device: std::fmt::Debug {
    /// What it is, for people.
    fn name(&self) -> String;

    /// Where its buffers are.
    fn place(&self) -> Place;

    /// A plan whose kernels this device runs; [`Program::load`] gives it weights.
    ///
    /// # Errors
    /// An entry is missing or damaged, a kernel is for another device.
    fn program(&self, plan: &Plan, entries: &dyn Entries) -> Result<Box<dyn Program>, Error>;
}

/// Where a device's buffers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the machine's memory; weights where the bundle is mapped.
    Mapped,
    /// In the machine's memory, weights too.
    Host,
    /// In memory of the device's own, whose size no interface tells.
    Device,
}

/// A plan on a device: kernels and weights, which nothing writes. What changes is elsewhere: what lasts from call to call in
/// [`States`], of which there may be any number, and what one call works in and is given in a [`Workspace`].
pub trait Program: std::fmt::Debug + Send + Sync {
    /// Fills weights in, as far as they are not there. `entries` are not needed afterwards.
    ///
    /// # Errors
    /// An entry is missing or damaged, there is too little memory.
    fn load(&self, plan: &Plan, entries: &dyn Entries) -> Result<(), Error>;

    /// Gives the memory of weights back until [`Program::load`]; calls fail meanwhile. Workspaces may hold weights that they
    /// have bound, so those are dropped before.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    fn unload(&self) -> Result<(), Error>;

    /// The most workgroups a grid may have in one direction.
    fn max_grid(&self) -> u32;

    /// Buffers for the plan's states, zeroed.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with the buffer that did not fit.
    fn states(&self, plan: &Plan) -> Result<Box<dyn States>, Error>;

    /// Buffers for what is neither weights nor state.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with the buffer that did not fit.
    fn workspace(&self, plan: &Plan) -> Result<Box<dyn Workspace>, Error>;
}

/// The states of one sequence. Dropped, their memory is free.
pub trait States: Any + std::fmt::Debug + Send {
    /// Copies the beginning of a state out, after all calls made so far.
    ///
    /// # Errors
    /// There is no such state, or it is shorter; [`Error::DeviceLost`].
    fn read(&self, buffer: usize, bytes: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Error>;

    /// Writes a state from the byte `offset` on; both that and the length are multiples of 4.
    ///
    /// # Errors
    /// [`Error::Refused`] where `bytes` do not fit; [`Error::DeviceLost`].
    fn write(&mut self, buffer: usize, offset: u64, bytes: &[u8]) -> Result<(), Error>;

    /// Takes over the beginnings of states of the same plan: pairs of buffer and bytes, multiples of 4.
    ///
    /// # Errors
    /// They are of another plan or device; [`Error::DeviceLost`].
    fn copy_from(&mut self, other: &dyn States, ranges: &[(usize, u64)]) -> Result<(), Error>;
}

/// What calls of a program work in: scratch memory, inputs and outputs. What is written and submitted happens in order.
pub trait Workspace: std::fmt::Debug + Send {
    /// Makes a function ready to be called with these states, unless that has been done. Bindings are kept for as long as
    /// states and weights stay where they are, so that calls cost the same however many sequences take turns.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Plan`] with the kernel or the step that the device does not take.
    fn prepare(&mut self, plan: &Plan, function: &str, steps: &[Step], states: &dyn States) -> Result<(), Error>;

    /// Writes the beginning of an input.
    ///
    /// # Errors
    /// [`Error::Refused`] where `bytes` do not fit; [`Error::DeviceLost`].
    fn write(&self, buffer: usize, bytes: &[u8]) -> Result<(), Error>;

    /// Submits the steps of a prepared function with `grids` workgroups, then copies the bytes to be read, if any:
    /// the beginning of an output buffer. Need not wait.
    ///
    /// # Errors
    /// The function was not prepared with these states; [`Error::Call`]; the device refuses or is lost.
    fn submit(
        &mut self,
        function: &str,
        call: Call,
        grids: &[[u32; 3]],
        states: &mut dyn States,
        read: Option<(usize, u64)>,
    ) -> Result<(), Error>;

    /// Copies the beginning of an output buffer to where [`Workspace::fetch`] reads, without running anything.
    ///
    /// # Errors
    /// The device refuses or is lost.
    fn copy(&mut self, buffer: usize, bytes: u64) -> Result<(), Error>;

    /// Waits for what was submitted and hands `take` the first `bytes` of what was copied last.
    ///
    /// # Errors
    /// Nothing was copied; the device is lost.
    fn fetch(&mut self, bytes: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Error>;

    /// Waits until all is done.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    fn wait(&self) -> Result<(), Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_by_what_is_wanted_and_there() {
        let other = if GPU == "metal" { "vulkan" } else { "metal" };
        let table: [(&[&str], Kind, bool, &str); 12] = [
            (&[CPU], Kind::Auto, true, CPU),
            (&[GPU], Kind::Auto, false, GPU),
            (&[GPU, CPU], Kind::Auto, true, GPU),
            (&[GPU, CPU], Kind::Auto, false, CPU),
            (&[CPU, other, GPU], Kind::Auto, true, GPU),
            (&[CPU, other], Kind::Gpu, false, other),
            (&[GPU, other], Kind::Auto, false, GPU),
            (&[CPU, GPU], Kind::Gpu, false, GPU),
            (&[GPU, CPU], Kind::Cpu, true, CPU),
            // What is missed.
            (&[CPU], Kind::Gpu, true, GPU),
            (&[GPU], Kind::Cpu, true, CPU),
            (&[GPU, other], Kind::Cpu, false, CPU),
        ];
        for (names, kind, has_gpu, expected) in table {
            assert_eq!(target_of(names, kind, has_gpu), expected, "{names:?} {kind:?} {has_gpu}");
        }
    }
}
