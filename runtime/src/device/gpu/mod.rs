//! GPUs through wgpu: opening a device, and turning its failures into typed errors.
//!
//! Nothing here panics on a failing device. Errors of wgpu are caught in error scopes around each piece of work, so
//! they carry the name of the buffer or kernel; what happens between scopes, and the loss of the device, is kept by
//! callbacks and reported by the next piece of work.

mod adapter;
mod kernels;
mod program;
mod upload;

use std::sync::{Arc, Mutex, PoisonError};

use dwindle_bundle::{Plan, Target};

use crate::Error;
use crate::device::{Entries, Place};

pub use program::Program;

/// How a device is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Part of the adapter's name, in any case; without it, real GPUs are preferred.
    pub adapter: Option<String>,
}

/// An opened GPU. Clones are the same device.
#[derive(Clone, Debug)]
pub struct Gpu {
    device: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    place: Place,
    failures: Arc<Failures>,
}

/// What callbacks of the device reported.
#[derive(Debug, Default)]
struct Failures {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Option<wgpu::Error>>,
}

/// Whether this machine has a GPU, and not just a driver that runs kernels on the processor.
pub fn is_there() -> bool {
    adapter::is_there(&instance())
}

fn instance() -> wgpu::Instance {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL;
    // Validation layers are for debugging wgpu itself; without this, debug builds search and load them.
    descriptor.flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(descriptor)
}

impl Gpu {
    /// Opens a GPU that can run plans compiled for `target`.
    ///
    /// # Errors
    /// [`Error::NoAdapter`], [`Error::NoSuchAdapter`], [`Error::Limits`] with all that is lacking, [`Error::Open`].
    pub fn open(options: &Options, target: &Target) -> Result<Gpu, Error> {
        let adapter = adapter::choose(&instance(), options.adapter.as_deref())?;
        let (required_limits, required_features) = adapter::request(&adapter, target)?;
        let wgpu::AdapterInfo { name, device_type, .. } = adapter.get_info();
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("dwindle"),
            required_features,
            required_limits,
            // The default takes memory in blocks of up to 256 MiB; weights have buffers of their own anyway.
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        });
        let (device, queue) = pollster::block_on(request)
            .map_err(|error| Error::Open { adapter: name.clone(), why: error.to_string() })?;
        let failures = Arc::new(Failures::default());
        let keep = failures.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            lock(&keep.uncaptured).get_or_insert(error);
        }));
        let keep = failures.clone();
        device.set_device_lost_callback(move |reason, message| {
            lock(&keep.lost).get_or_insert(format!("{reason:?}: {message}"));
        });
        tracing::debug!(adapter = name, "device opened");
        let place = if device_type == wgpu::DeviceType::Cpu { Place::Host } else { Place::Device };
        Ok(Gpu { device, queue, name, place, failures })
    }

    /// The adapter's name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most workgroups a grid may have in one direction.
    pub fn max_grid(&self) -> u32 {
        self.device.limits().max_compute_workgroups_per_dimension
    }

    /// Does `work`, and reports what the device says about it as an error that names `what`; `bytes` is what a failed
    /// allocation asked for.
    fn guarded<T>(&self, what: impl FnOnce() -> String, bytes: u64, work: impl FnOnce() -> T) -> Result<T, Error> {
        let [memory, validation, internal] =
            [wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::Internal]
                .map(|filter| self.device.push_error_scope(filter));
        let value = work();
        // Scopes are popped in the opposite order; wgpu answers at once on native platforms.
        let caught = [internal.pop(), validation.pop(), memory.pop()].map(pollster::block_on);
        let lost = lock(&self.failures.lost).clone();
        if let Some(why) = lost {
            return Err(Error::DeviceLost { what: what(), why });
        }
        let uncaptured = lock(&self.failures.uncaptured).take();
        match caught.into_iter().flatten().next().or(uncaptured) {
            None => Ok(value),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::OutOfMemory { what: what(), bytes }),
            Some(error) => Err(Error::Refused { what: what(), why: error.to_string() }),
        }
    }

    /// Waits until `submission` and all before it are done.
    fn wait(&self, what: impl Fn() -> String, submission: wgpu::SubmissionIndex) -> Result<(), Error> {
        self.poll(what, Some(submission))
    }

    /// Waits until all that was submitted is done.
    fn wait_for_all(&self, what: impl Fn() -> String) -> Result<(), Error> {
        self.poll(what, None)
    }

    fn poll(&self, what: impl Fn() -> String, submission: Option<wgpu::SubmissionIndex>) -> Result<(), Error> {
        let poll = wgpu::PollType::Wait { submission_index: submission, timeout: None };
        let status = self.guarded(&what, 0, || self.device.poll(poll))?;
        status.map(drop).map_err(|error| Error::DeviceLost { what: what(), why: error.to_string() })
    }
}

impl crate::device::Device for Gpu {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn place(&self) -> Place {
        self.place
    }

    fn program(&self, plan: &Plan, entries: &dyn Entries) -> Result<Box<dyn crate::device::Program>, Error> {
        Ok(Box::new(Program::new(self, plan, entries)?))
    }
}

/// What the mutexes guard is replaced as a whole, so a panic elsewhere leaves it sound.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
