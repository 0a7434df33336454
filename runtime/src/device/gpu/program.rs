//! One plan on a GPU: its buffers, its kernels, and the steps of its functions ready to be submitted.

use std::collections::BTreeMap;
use std::sync::mpsc;

use dwindle_bundle::{Binding, BufferKind, Call, Code, Plan, Step};

use super::kernels::{self, CALL_BYTES, Pipeline};
use super::{Gpu, upload};
use crate::Error;
use crate::device::Entries;

/// A plan on a GPU. Kernels are compiled when a function is first prepared, and stay.
#[derive(Debug)]
pub struct Program {
    gpu: Gpu,
    /// `None` while not loaded.
    buffers: Vec<Option<wgpu::Buffer>>,
    /// The uniform at binding 0 of every kernel, rewritten before each submission.
    call: wgpu::Buffer,
    kernels: Vec<KernelState>,
    /// Functions that were prepared: for each step its kernel and bind group.
    functions: BTreeMap<String, Vec<(usize, wgpu::BindGroup)>>,
    /// Where outputs wait to be read by the processor; grows to the longest that was asked for.
    staging: Option<wgpu::Buffer>,
    submitted: Option<wgpu::SubmissionIndex>,
}

#[derive(Debug)]
enum KernelState {
    Text(String),
    Compiled(Pipeline),
}

impl Program {
    /// A plan without buffers.
    ///
    /// # Errors
    /// An entry is missing or damaged, a kernel is native.
    pub fn new(gpu: &Gpu, plan: &Plan, entries: &dyn Entries) -> Result<Program, Error> {
        let texts = plan.kernels.iter().map(|kernel| match &kernel.code {
            Code::Wgsl { text, .. } => Ok(KernelState::Text(entries.text(text)?.to_owned())),
            Code::Native { name, .. } => Err(Error::Plan {
                why: format!("kernel `{}` is the native kernel `{name}`, which a GPU cannot run", kernel.name),
            }),
        });
        let kernels = texts.collect::<Result<_, _>>()?;
        let buffers = vec![None; plan.buffers.len()];
        let descriptor = wgpu::BufferDescriptor {
            label: Some("call"),
            size: CALL_BYTES,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let call = gpu.guarded(|| "buffer `call`".to_owned(), CALL_BYTES, || gpu.device.create_buffer(&descriptor))?;
        let functions = BTreeMap::new();
        Ok(Program { gpu: gpu.clone(), buffers, call, kernels, functions, staging: None, submitted: None })
    }

    fn compile(&mut self, plan: &Plan, steps: &[Step]) -> Result<(), Error> {
        let mut wanted: Vec<usize> = steps.iter().map(|step| step.kernel as usize).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut work = Vec::new();
        for &index in &wanted {
            match (plan.kernels.get(index), self.kernels.get(index)) {
                (Some(kernel), Some(KernelState::Text(text))) => work.push((index, (kernel, text.as_str()))),
                (Some(_), Some(KernelState::Compiled(_))) => {}
                _ => return Err(Error::Plan { why: format!("there is no kernel {index}") }),
            }
        }
        let (indexes, work): (Vec<usize>, Vec<_>) = work.into_iter().unzip();
        let compiled = kernels::compile(&self.gpu, &work)?;
        for (index, pipeline) in indexes.into_iter().zip(compiled) {
            self.kernels[index] = KernelState::Compiled(pipeline);
        }
        Ok(())
    }

    fn bind(&self, plan: &Plan, function: &str, index: usize, step: &Step) -> Result<wgpu::BindGroup, Error> {
        let kernel = plan.kernels.get(step.kernel as usize).map_or("", |k| k.name.as_str());
        let place = || format!("step {index} (`{kernel}`) of function `{function}`");
        let Some(KernelState::Compiled(pipeline)) = self.kernels.get(step.kernel as usize) else {
            return Err(Error::Plan { why: format!("{} has no kernel", place()) });
        };
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: self.call.as_entire_binding() }];
        for (binding, range) in (1..).zip(&step.bindings) {
            let resource = self.range(range).ok_or_else(|| Error::Plan {
                why: format!("{} binds {} bytes at {} of buffer {}", place(), range.bytes, range.offset, range.buffer),
            })?;
            entries.push(wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(resource) });
        }
        let descriptor = wgpu::BindGroupDescriptor { label: Some(kernel), layout: &pipeline.layout, entries: &entries };
        self.gpu.guarded(place, 0, || self.gpu.device.create_bind_group(&descriptor))
    }

    fn range(&self, range: &Binding) -> Option<wgpu::BufferBinding<'_>> {
        let buffer = self.buffers.get(range.buffer as usize)?.as_ref()?;
        let end = range.offset.checked_add(range.bytes)?;
        let size = wgpu::BufferSize::new(range.bytes)?;
        (end <= buffer.size()).then_some(wgpu::BufferBinding { buffer, offset: range.offset, size: Some(size) })
    }

    fn reserve_staging(&mut self, bytes: u64) -> Result<(), Error> {
        if self.staging.as_ref().is_some_and(|staging| staging.size() >= bytes) {
            return Ok(());
        }
        let descriptor = wgpu::BufferDescriptor {
            label: Some("staging"),
            size: bytes,
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let what = || "buffer `staging`".to_owned();
        self.staging = Some(self.gpu.guarded(what, bytes, || self.gpu.device.create_buffer(&descriptor))?);
        Ok(())
    }

    fn buffer(&self, index: usize) -> Result<&wgpu::Buffer, Error> {
        self.buffers
            .get(index)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::Plan { why: format!("there is no buffer {index}") })
    }
}

impl crate::device::Program for Program {
    /// Uploads weights with at most 16 MiB on the way at a time.
    fn load(&mut self, plan: &Plan, entries: &dyn Entries) -> Result<(), Error> {
        upload::fill(&self.gpu, &plan.buffers, entries, &mut self.buffers)
    }

    fn unload(&mut self, plan: &Plan, keep_states: bool) -> Result<(), Error> {
        self.functions.clear();
        self.staging = None;
        for (buffer, place) in plan.buffers.iter().zip(&mut self.buffers) {
            if !(keep_states && buffer.kind == BufferKind::State) {
                *place = None;
            }
        }
        // Buffers that nothing refers to are freed when the device is next asked about its work.
        self.gpu.wait_for_all(|| "release of buffers".to_owned())
    }

    fn max_grid(&self) -> u32 {
        self.gpu.max_grid()
    }

    fn prepare(&mut self, plan: &Plan, function: &str, steps: &[Step]) -> Result<(), Error> {
        if self.functions.contains_key(function) {
            return Ok(());
        }
        self.compile(plan, steps)?;
        let mut groups: BTreeMap<GroupKey, wgpu::BindGroup> = BTreeMap::new();
        let mut bound = Vec::with_capacity(steps.len());
        for (index, step) in steps.iter().enumerate() {
            let key = (step.kernel, step.bindings.iter().map(|b| (b.buffer, b.offset, b.bytes)).collect());
            let group = match groups.get(&key) {
                Some(group) => group.clone(),
                None => {
                    let group = self.bind(plan, function, index, step)?;
                    groups.insert(key, group.clone());
                    group
                }
            };
            bound.push((step.kernel as usize, group));
        }
        self.functions.insert(function.to_owned(), bound);
        Ok(())
    }

    fn write(&self, buffer: usize, bytes: &[u8]) -> Result<(), Error> {
        let target = self.buffer(buffer)?;
        let what = || format!("write into buffer {buffer}");
        self.gpu.guarded(what, bytes.len() as u64, || self.gpu.queue.write_buffer(target, 0, bytes))
    }

    fn submit(
        &mut self,
        function: &str,
        call: Call,
        grids: &[[u32; 3]],
        read: Option<(usize, u64)>,
    ) -> Result<(), Error> {
        if let Some((_, bytes)) = read {
            self.reserve_staging(bytes)?;
        }
        let steps = self.functions.get(function).map(Vec::as_slice).unwrap_or_default();
        if steps.len() != grids.len() {
            return Err(Error::Plan { why: format!("function `{function}` is not prepared") });
        }
        let source = read.map(|(buffer, bytes)| Ok::<_, Error>((self.buffer(buffer)?, bytes))).transpose()?;
        let uniform = [call.rows, call.position, call.tile, 0];
        let submitted = self.gpu.guarded(
            || format!("function `{function}`"),
            0,
            || {
                self.gpu.queue.write_buffer(&self.call, 0, bytemuck::cast_slice(&uniform));
                let descriptor = wgpu::CommandEncoderDescriptor { label: None };
                let mut encoder = self.gpu.device.create_command_encoder(&descriptor);
                // Steps of one pass run in order: wgpu puts a barrier between a write and what uses it next.
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                let mut current = None;
                for ((kernel, group), [x, y, z]) in steps.iter().zip(grids) {
                    if current != Some(*kernel)
                        && let Some(KernelState::Compiled(pipeline)) = self.kernels.get(*kernel)
                    {
                        pass.set_pipeline(&pipeline.pipeline);
                        current = Some(*kernel);
                    }
                    pass.set_bind_group(0, group, &[]);
                    pass.dispatch_workgroups(*x, *y, *z);
                }
                drop(pass);
                if let (Some((source, bytes)), Some(staging)) = (source, &self.staging) {
                    encoder.copy_buffer_to_buffer(source, 0, staging, 0, bytes);
                }
                self.gpu.queue.submit([encoder.finish()])
            },
        )?;
        self.submitted = Some(submitted);
        Ok(())
    }

    fn copy(&mut self, buffer: usize, bytes: u64) -> Result<(), Error> {
        self.reserve_staging(bytes)?;
        let source = self.buffer(buffer)?;
        let Some(staging) = &self.staging else { return Ok(()) };
        let submitted = self.gpu.guarded(
            || format!("copy of buffer {buffer}"),
            bytes,
            || {
                let descriptor = wgpu::CommandEncoderDescriptor { label: None };
                let mut encoder = self.gpu.device.create_command_encoder(&descriptor);
                encoder.copy_buffer_to_buffer(source, 0, staging, 0, bytes);
                self.gpu.queue.submit([encoder.finish()])
            },
        )?;
        self.submitted = Some(submitted);
        Ok(())
    }

    fn fetch(&mut self, bytes: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let what = || "reading of results".to_owned();
        let refused = |why: String| Error::Refused { what: what(), why };
        let (Some(staging), Some(submitted)) = (&self.staging, self.submitted.clone()) else {
            return Err(refused("nothing was submitted".to_owned()));
        };
        let (sender, receiver) = mpsc::channel();
        self.gpu.guarded(what, 0, || {
            let done = move |result| drop(sender.send(result));
            staging.slice(..bytes).map_async(wgpu::MapMode::Read, done);
        })?;
        self.gpu.wait(what, submitted)?;
        match receiver.try_recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(error) => return Err(refused(error.to_string())),
        }
        let view = staging.slice(..bytes).get_mapped_range().map_err(|error| refused(error.to_string()))?;
        take(&view);
        drop(view);
        staging.unmap();
        Ok(())
    }

    fn wait(&self) -> Result<(), Error> {
        self.submitted.clone().map_or(Ok(()), |submitted| self.gpu.wait(|| "calls".to_owned(), submitted))
    }
}

/// Kernel and bound ranges: steps that agree in these share a bind group.
type GroupKey = (u32, Vec<(u32, u64, u64)>);
