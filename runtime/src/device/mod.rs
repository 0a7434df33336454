//! Devices: what holds a plan's buffers and executes its steps.
//!
//! A [`Device`] is opened once and shared by several models: [`gpu::Gpu`] or [`cpu::Cpu`]. A [`Program`] is one plan on it. The
//! executor checks ports and calls itself, and needs of a program only what is asked for here.

pub mod cpu;
mod entries;
pub mod gpu;

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

    /// A plan whose kernels this device runs; [`Program::load`] gives it memory.
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

/// A plan on a device. What is written and submitted happens in order.
pub trait Program: std::fmt::Debug + Send {
    /// Allocates the plan's buffers and fills them with weights, as far as they are not there. `entries` are not needed
    /// afterwards.
    ///
    /// # Errors
    /// An entry is missing or damaged, there is too little memory.
    fn load(&mut self, plan: &Plan, entries: &dyn Entries) -> Result<(), Error>;

    /// Gives memory back until [`Program::load`]: all of it, or all but states.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    fn unload(&mut self, plan: &Plan, keep_states: bool) -> Result<(), Error>;

    /// The most workgroups a grid may have in one direction.
    fn max_grid(&self) -> u32;

    /// Makes a function ready, unless that has been done.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Plan`] with the kernel or the step that the device does not take.
    fn prepare(&mut self, plan: &Plan, function: &str, steps: &[Step]) -> Result<(), Error>;

    /// Writes the beginning of a buffer.
    ///
    /// # Errors
    /// [`Error::Refused`] where `bytes` do not fit; [`Error::DeviceLost`].
    fn write(&self, buffer: usize, bytes: &[u8]) -> Result<(), Error>;

    /// Submits the steps of a prepared function with `grids` workgroups, then copies the bytes to be read, if any:
    /// the beginning of an output buffer. Need not wait.
    ///
    /// # Errors
    /// The function was not prepared; [`Error::Call`]; the device refuses or is lost.
    fn submit(
        &mut self,
        function: &str,
        call: Call,
        grids: &[[u32; 3]],
        read: Option<(usize, u64)>,
    ) -> Result<(), Error>;

    /// Copies the beginning of an output buffer to where [`Program::fetch`] reads, without running anything.
    ///
    /// # Errors
    /// The device refuses or is lost.
    fn copy(&mut self, buffer: usize, bytes: u64) -> Result<(), Error>;

    /// Waits for what was submitted and hands `take` the first `bytes` of what was copied last.
    ///
    /// # Errors
    /// Nothing was copied; the device is lost.
    fn fetch(&mut self, bytes: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Error>;

    /// Waits until all that was submitted is done.
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
