//! Compute pipelines from kernels' WGSL, several at a time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use dwindle_bundle::{Access, Kernel};

use super::{Gpu, lock};
use crate::Error;

/// Bytes of the uniform that every kernel has at binding 0: rows, position, tile, and padding.
pub(super) const CALL_BYTES: u64 = 16;

/// A compiled kernel and the layout that its bind groups have.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

/// Compiles kernels, on as many threads as there are processors: drivers take milliseconds for each. The first error
/// in the order of `work` is returned.
pub(super) fn compile(gpu: &Gpu, work: &[(&Kernel, &str)]) -> Result<Vec<Pipeline>, Error> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(work.len());
    if threads <= 1 {
        return work.iter().map(|(kernel, text)| compile_one(gpu, kernel, text)).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(work.len()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((index, (kernel, text))) = next_of(&next, work) {
                    let pipeline = compile_one(gpu, kernel, text);
                    lock(&done).push((index, pipeline));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, pipeline)| pipeline).collect()
}

fn next_of<'a, T>(next: &AtomicUsize, work: &'a [T]) -> Option<(usize, &'a T)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    work.get(index).map(|item| (index, item))
}

fn compile_one(gpu: &Gpu, kernel: &Kernel, text: &str) -> Result<Pipeline, Error> {
    let label = Some(kernel.name.as_str());
    let entry = |binding: usize, ty, min| wgpu::BindGroupLayoutEntry {
        binding: binding as u32,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: wgpu::BufferSize::new(min) },
        count: None,
    };
    let storage = kernel.bindings.iter().enumerate().map(|(index, access)| {
        let read_only = *access == Access::Read;
        entry(index + 1, wgpu::BufferBindingType::Storage { read_only }, 0)
    });
    let layout: Vec<_> =
        std::iter::once(entry(0, wgpu::BufferBindingType::Uniform, CALL_BYTES)).chain(storage).collect();
    gpu.guarded(
        || format!("kernel `{}`", kernel.name),
        0,
        || {
            let source = wgpu::ShaderSource::Wgsl(text.into());
            // With wgpu's checks of bounds and loops: whoever wrote a bundle could also write its hashes. On lavapipe
            // they cost a 4-bit matrix-vector kernel about 15 % of processor time.
            let module = gpu.device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
            let layout =
                gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &layout });
            let pipeline_layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                // Workgroup memory begins as zero, as WGSL says.
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            Pipeline { pipeline, layout }
        },
    )
}
