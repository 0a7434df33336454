//! Buffers of a plan, and weights on their way into them.

use std::collections::VecDeque;

use dwindle_bundle::{Buffer, BufferKind};

use super::Gpu;
use crate::Error;
use crate::device::Entries;

/// Bytes of weights copied at a time; a multiple of 4, as copies must be.
const CHUNK: usize = 4 << 20;

/// Chunks that may wait for the device: staging memory is bounded by the product.
const IN_FLIGHT: usize = 4;

/// Creates the buffers of some kinds. They read as zero, which WebGPU guarantees of new buffers.
pub(super) fn create(
    gpu: &Gpu,
    buffers: &[Buffer],
    wanted: impl Fn(&BufferKind) -> bool,
) -> Result<Vec<Option<wgpu::Buffer>>, Error> {
    let make = |buffer: &Buffer| {
        let readable = match buffer.kind {
            BufferKind::Weights(_) => wgpu::BufferUsages::empty(),
            _ => wgpu::BufferUsages::COPY_SRC,
        };
        let descriptor = wgpu::BufferDescriptor {
            label: Some(&buffer.name),
            size: buffer.bytes,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | readable,
            mapped_at_creation: false,
        };
        let what = || format!("buffer `{}`", buffer.name);
        gpu.guarded(what, buffer.bytes, || gpu.device.create_buffer(&descriptor))
    };
    buffers.iter().map(|buffer| wanted(&buffer.kind).then(|| make(buffer)).transpose()).collect()
}

/// Creates a plan's weights and fills them. After a failure, none is there.
pub(super) fn fill(
    gpu: &Gpu,
    buffers: &[Buffer],
    entries: &dyn Entries,
    places: &mut Vec<Option<wgpu::Buffer>>,
) -> Result<(), Error> {
    let created = create(gpu, buffers, |kind| matches!(kind, BufferKind::Weights(_)))?;
    let mut pending = VecDeque::with_capacity(IN_FLIGHT);
    for (buffer, target) in buffers.iter().zip(&created) {
        if let (BufferKind::Weights(entry), Some(target)) = (&buffer.kind, target) {
            upload(gpu, buffer, entry, entries, target, &mut pending)?;
        }
    }
    // What the last submissions staged is freed here and not at some later call.
    if let Some(last) = pending.pop_back() {
        gpu.wait(|| "upload of weights".to_owned(), last)?;
    }
    *places = created;
    Ok(())
}

fn upload(
    gpu: &Gpu,
    buffer: &Buffer,
    entry: &str,
    entries: &dyn Entries,
    target: &wgpu::Buffer,
    pending: &mut VecDeque<wgpu::SubmissionIndex>,
) -> Result<(), Error> {
    let what = || format!("upload of weights into `{}`", buffer.name);
    let wrong = |bytes: u64| Error::Plan {
        why: format!("buffer `{}` has {} bytes, its entry `{entry}` {bytes}", buffer.name, buffer.bytes),
    };
    let mut taken = 0;
    entries.stream(entry, CHUNK, &mut |offset, bytes| {
        taken = offset + bytes.len() as u64;
        if taken > buffer.bytes || !bytes.len().is_multiple_of(4) {
            return Err(wrong(taken));
        }
        if pending.len() == IN_FLIGHT
            && let Some(oldest) = pending.pop_front()
        {
            gpu.wait(what, oldest)?;
        }
        let submission = gpu.guarded(what, bytes.len() as u64, || {
            gpu.queue.write_buffer(target, offset, bytes);
            gpu.queue.submit([])
        })?;
        pending.push_back(submission);
        Ok(())
    })?;
    match taken == buffer.bytes {
        true => Ok(()),
        false => Err(wrong(taken)),
    }
}
