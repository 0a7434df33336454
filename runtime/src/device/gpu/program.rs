//! One plan on a GPU: its weights and kernels, what sequences and calls have of it, and the steps of its functions ready to be
//! submitted.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};

use dwindle_bundle::{Binding, BufferKind, Call, Code, Plan, Step};

use super::kernels::{self, CALL_BYTES, Pipeline};
use super::{Gpu, lock, upload};
use crate::Error;
use crate::device::bindings::{Bindings, Identity};
use crate::device::{self, Entries};

/// A plan on a GPU. Kernels are compiled when a function is first prepared, and stay.
#[derive(Debug)]
pub struct Program(Arc<Shared>);

/// What a program shares with its workspaces.
#[derive(Debug)]
struct Shared {
    gpu: Gpu,
    weights: Mutex<Weights>,
    kernels: Mutex<Vec<KernelState>>,
}

/// Weights by buffer.
#[derive(Debug)]
struct Weights {
    /// `None` where a buffer is something else, or is not there.
    buffers: Vec<Option<wgpu::Buffer>>,
    is_loaded: bool,
    /// How often they were loaded: what was bound before the last time is void.
    loading: u64,
}

#[derive(Debug)]
enum KernelState {
    Text(String),
    Compiled(Arc<Pipeline>),
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
        let kernels = Mutex::new(texts.collect::<Result<_, _>>()?);
        let weights = Mutex::new(Weights { buffers: vec![None; plan.buffers.len()], is_loaded: false, loading: 0 });
        Ok(Program(Arc::new(Shared { gpu: gpu.clone(), weights, kernels })))
    }
}

impl Shared {
    /// The compiled kernels of the steps.
    fn compile(&self, plan: &Plan, steps: &[Step]) -> Result<Vec<Arc<Pipeline>>, Error> {
        let mut kernels = lock(&self.kernels);
        let mut wanted: Vec<usize> = steps.iter().map(|step| step.kernel as usize).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let mut work = Vec::new();
        for &index in &wanted {
            match (plan.kernels.get(index), kernels.get(index)) {
                (Some(kernel), Some(KernelState::Text(text))) => work.push((index, (kernel, text.as_str()))),
                (Some(_), Some(KernelState::Compiled(_))) => {}
                _ => return Err(Error::Plan { why: format!("there is no kernel {index}") }),
            }
        }
        let (indexes, work): (Vec<usize>, Vec<_>) = work.into_iter().unzip();
        let compiled = kernels::compile(&self.gpu, &work)?;
        for (index, pipeline) in indexes.into_iter().zip(compiled) {
            kernels[index] = KernelState::Compiled(Arc::new(pipeline));
        }
        let of_step = |step: &Step| match kernels.get(step.kernel as usize) {
            Some(KernelState::Compiled(pipeline)) => Ok(pipeline.clone()),
            _ => Err(Error::Plan { why: format!("there is no kernel {}", step.kernel) }),
        };
        steps.iter().map(of_step).collect()
    }
}

impl device::Program for Program {
    /// Uploads weights with at most 16 MiB on the way at a time.
    fn load(&self, plan: &Plan, entries: &dyn Entries) -> Result<(), Error> {
        let mut weights = lock(&self.0.weights);
        if weights.is_loaded {
            return Ok(());
        }
        upload::fill(&self.0.gpu, &plan.buffers, entries, &mut weights.buffers)?;
        weights.is_loaded = true;
        weights.loading += 1;
        Ok(())
    }

    fn unload(&self) -> Result<(), Error> {
        let mut weights = lock(&self.0.weights);
        weights.is_loaded = false;
        weights.buffers.fill(None);
        // Buffers that nothing refers to are freed when the device is next asked about its work.
        self.0.gpu.wait_for_all(|| "release of buffers".to_owned())
    }

    fn max_grid(&self) -> u32 {
        self.0.gpu.max_grid()
    }

    fn states(&self, plan: &Plan) -> Result<Box<dyn device::States>, Error> {
        let buffers = upload::create(&self.0.gpu, &plan.buffers, |kind| *kind == BufferKind::State)?;
        Ok(Box::new(States { gpu: self.0.gpu.clone(), identity: Identity::new(), buffers }))
    }

    fn workspace(&self, plan: &Plan) -> Result<Box<dyn device::Workspace>, Error> {
        let gpu = &self.0.gpu;
        let is_work = |kind: &BufferKind| !matches!(kind, BufferKind::State | BufferKind::Weights(_));
        let buffers = upload::create(gpu, &plan.buffers, is_work)?;
        let descriptor = wgpu::BufferDescriptor {
            label: Some("call"),
            size: CALL_BYTES,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        };
        let call = gpu.guarded(|| "buffer `call`".to_owned(), CALL_BYTES, || gpu.device.create_buffer(&descriptor))?;
        Ok(Box::new(Workspace {
            program: self.0.clone(),
            buffers,
            call,
            bindings: Bindings::new(),
            staging: None,
            submitted: None,
        }))
    }
}

/// The states of one sequence.
#[derive(Debug)]
struct States {
    gpu: Gpu,
    identity: Identity,
    buffers: Vec<Option<wgpu::Buffer>>,
}

impl States {
    fn of(states: &dyn device::States) -> Result<&States, Error> {
        let states: &dyn Any = states;
        states.downcast_ref().ok_or_else(|| Error::Plan { why: "its states are on another device".to_owned() })
    }

    fn buffer(&self, buffer: usize, offset: u64, bytes: u64) -> Result<&wgpu::Buffer, Error> {
        let found = self.buffers.get(buffer).and_then(Option::as_ref);
        let fits = |found: &&wgpu::Buffer| offset.checked_add(bytes).is_some_and(|end| end <= found.size());
        found.filter(fits).ok_or_else(|| Error::Refused {
            what: format!("access to state {buffer}"),
            why: format!("it has no {bytes} bytes at {offset}"),
        })
    }
}

impl device::States for States {
    fn read(&self, buffer: usize, bytes: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let source = self.buffer(buffer, 0, bytes)?;
        if bytes == 0 {
            take(&[]);
            return Ok(());
        }
        let what = || format!("reading of state {buffer}");
        let staging = staging(&self.gpu, bytes)?;
        let submitted = copy(&self.gpu, what, &[(source, &staging, bytes)])?;
        read_mapped(&self.gpu, what, &staging, submitted, bytes, take)
    }

    fn write(&mut self, buffer: usize, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let target = self.buffer(buffer, offset, bytes.len() as u64)?;
        let what = || format!("write into state {buffer}");
        self.gpu.guarded(what, bytes.len() as u64, || self.gpu.queue.write_buffer(target, offset, bytes))
    }

    fn copy_from(&mut self, other: &dyn device::States, ranges: &[(usize, u64)]) -> Result<(), Error> {
        let other = States::of(other)?;
        let mut copies = Vec::with_capacity(ranges.len());
        for &(buffer, bytes) in ranges.iter().filter(|(_, bytes)| *bytes > 0) {
            copies.push((other.buffer(buffer, 0, bytes)?, self.buffer(buffer, 0, bytes)?, bytes));
        }
        copy(&self.gpu, || "copy of states".to_owned(), &copies).map(drop)
    }
}

/// What calls work in.
#[derive(Debug)]
struct Workspace {
    program: Arc<Shared>,
    buffers: Vec<Option<wgpu::Buffer>>,
    /// The uniform at binding 0 of every kernel, rewritten before each submission.
    call: wgpu::Buffer,
    bindings: Bindings<Vec<Bound>>,
    /// Where outputs wait to be read by the processor; grows to the longest that was asked for.
    staging: Option<wgpu::Buffer>,
    submitted: Option<wgpu::SubmissionIndex>,
}

/// A step ready to be submitted.
#[derive(Debug)]
struct Bound {
    kernel: u32,
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
}

impl Workspace {
    fn bind(
        &self,
        plan: &Plan,
        (function, index, step): (&str, usize, &Step),
        pipeline: &Pipeline,
        weights: &[Option<wgpu::Buffer>],
        states: &States,
    ) -> Result<wgpu::BindGroup, Error> {
        let kernel = plan.kernels.get(step.kernel as usize).map_or("", |k| k.name.as_str());
        let place = || format!("step {index} (`{kernel}`) of function `{function}`");
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: self.call.as_entire_binding() }];
        for (binding, range) in (1..).zip(&step.bindings) {
            let places = [&self.buffers[..], &states.buffers[..], weights];
            let buffer = places.into_iter().find_map(|buffers| buffers.get(range.buffer as usize)?.as_ref());
            let resource = buffer.and_then(|buffer| part(buffer, range)).ok_or_else(|| Error::Plan {
                why: format!("{} binds {} bytes at {} of buffer {}", place(), range.bytes, range.offset, range.buffer),
            })?;
            entries.push(wgpu::BindGroupEntry { binding, resource: wgpu::BindingResource::Buffer(resource) });
        }
        let gpu = &self.program.gpu;
        let descriptor = wgpu::BindGroupDescriptor { label: Some(kernel), layout: &pipeline.layout, entries: &entries };
        gpu.guarded(place, 0, || gpu.device.create_bind_group(&descriptor))
    }

    fn reserve_staging(&mut self, bytes: u64) -> Result<(), Error> {
        if self.staging.as_ref().is_none_or(|staging| staging.size() < bytes) {
            self.staging = Some(staging(&self.program.gpu, bytes)?);
        }
        Ok(())
    }

    fn buffer(&self, index: usize) -> Result<&wgpu::Buffer, Error> {
        self.buffers
            .get(index)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::Plan { why: format!("there is no buffer {index}") })
    }
}

impl device::Workspace for Workspace {
    fn prepare(
        &mut self,
        plan: &Plan,
        function: &str,
        steps: &[Step],
        states: &dyn device::States,
    ) -> Result<(), Error> {
        let states = States::of(states)?;
        let shared = self.program.clone();
        let weights = lock(&shared.weights);
        if !weights.is_loaded {
            return Err(not_prepared(function));
        }
        if self.bindings.get(function, &states.identity, weights.loading).is_some() {
            return Ok(());
        }
        let pipelines = shared.compile(plan, steps)?;
        let mut groups: BTreeMap<GroupKey, wgpu::BindGroup> = BTreeMap::new();
        let mut bound = Vec::with_capacity(steps.len());
        for (index, (step, pipeline)) in steps.iter().zip(pipelines).enumerate() {
            let key = (step.kernel, step.bindings.iter().map(|b| (b.buffer, b.offset, b.bytes)).collect());
            let group = match groups.get(&key) {
                Some(group) => group.clone(),
                None => {
                    let group = self.bind(plan, (function, index, step), &pipeline, &weights.buffers, states)?;
                    groups.insert(key, group.clone());
                    group
                }
            };
            bound.push(Bound { kernel: step.kernel, pipeline, group });
        }
        self.bindings.insert(function, &states.identity, weights.loading, bound);
        Ok(())
    }

    fn write(&self, buffer: usize, bytes: &[u8]) -> Result<(), Error> {
        let target = self.buffer(buffer)?;
        let gpu = &self.program.gpu;
        let what = || format!("write into buffer {buffer}");
        gpu.guarded(what, bytes.len() as u64, || gpu.queue.write_buffer(target, 0, bytes))
    }

    fn submit(
        &mut self,
        function: &str,
        call: Call,
        grids: &[[u32; 3]],
        states: &mut dyn device::States,
        read: Option<(usize, u64)>,
    ) -> Result<(), Error> {
        if let Some((_, bytes)) = read {
            self.reserve_staging(bytes)?;
        }
        let states = States::of(states)?;
        let loading = {
            let weights = lock(&self.program.weights);
            weights.is_loaded.then_some(weights.loading).ok_or_else(|| not_prepared(function))?
        };
        let steps = self.bindings.get(function, &states.identity, loading).map(Vec::as_slice).unwrap_or_default();
        if steps.len() != grids.len() {
            return Err(not_prepared(function));
        }
        let source = read.map(|(buffer, bytes)| Ok::<_, Error>((self.buffer(buffer)?, bytes))).transpose()?;
        let uniform = [call.rows, call.position, call.tile, 0];
        let gpu = &self.program.gpu;
        let submitted = gpu.guarded(
            || format!("function `{function}`"),
            0,
            || {
                gpu.queue.write_buffer(&self.call, 0, bytemuck::cast_slice(&uniform));
                let descriptor = wgpu::CommandEncoderDescriptor { label: None };
                let mut encoder = gpu.device.create_command_encoder(&descriptor);
                // Steps of one pass run in order: wgpu puts a barrier between a write and what uses it next.
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                let mut current = None;
                for (Bound { kernel, pipeline, group }, [x, y, z]) in steps.iter().zip(grids) {
                    if current != Some(*kernel) {
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
                gpu.queue.submit([encoder.finish()])
            },
        )?;
        self.submitted = Some(submitted);
        Ok(())
    }

    fn copy(&mut self, buffer: usize, bytes: u64) -> Result<(), Error> {
        self.reserve_staging(bytes)?;
        let source = self.buffer(buffer)?;
        let Some(staging) = &self.staging else { return Ok(()) };
        let what = || format!("copy of buffer {buffer}");
        self.submitted = Some(copy(&self.program.gpu, what, &[(source, staging, bytes)])?);
        Ok(())
    }

    fn fetch(&mut self, bytes: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let what = || "reading of results".to_owned();
        let (Some(staging), Some(submitted)) = (&self.staging, self.submitted.clone()) else {
            return Err(Error::Refused { what: what(), why: "nothing was submitted".to_owned() });
        };
        read_mapped(&self.program.gpu, what, staging, submitted, bytes, take)
    }

    fn wait(&self) -> Result<(), Error> {
        self.submitted.clone().map_or(Ok(()), |submitted| self.program.gpu.wait(|| "calls".to_owned(), submitted))
    }
}

fn not_prepared(function: &str) -> Error {
    Error::Plan { why: format!("function `{function}` is not prepared") }
}

/// The range of a buffer, if it lies within it.
fn part<'b>(buffer: &'b wgpu::Buffer, range: &Binding) -> Option<wgpu::BufferBinding<'b>> {
    let end = range.offset.checked_add(range.bytes)?;
    let size = wgpu::BufferSize::new(range.bytes)?;
    (end <= buffer.size()).then_some(wgpu::BufferBinding { buffer, offset: range.offset, size: Some(size) })
}

/// A buffer that the processor can read.
fn staging(gpu: &Gpu, bytes: u64) -> Result<wgpu::Buffer, Error> {
    let descriptor = wgpu::BufferDescriptor {
        label: Some("staging"),
        size: bytes,
        usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    };
    gpu.guarded(|| "buffer `staging`".to_owned(), bytes, || gpu.device.create_buffer(&descriptor))
}

/// Submits copies of beginnings of buffers: from, to, bytes.
fn copy(
    gpu: &Gpu,
    what: impl Fn() -> String,
    copies: &[(&wgpu::Buffer, &wgpu::Buffer, u64)],
) -> Result<wgpu::SubmissionIndex, Error> {
    let bytes = copies.iter().map(|(_, _, bytes)| bytes).sum();
    gpu.guarded(what, bytes, || {
        let descriptor = wgpu::CommandEncoderDescriptor { label: None };
        let mut encoder = gpu.device.create_command_encoder(&descriptor);
        for (source, target, bytes) in copies {
            encoder.copy_buffer_to_buffer(source, 0, target, 0, *bytes);
        }
        gpu.queue.submit([encoder.finish()])
    })
}

/// Waits for a submission and hands `take` what it left in the staging buffer.
fn read_mapped(
    gpu: &Gpu,
    what: impl Fn() -> String + Copy,
    staging: &wgpu::Buffer,
    submitted: wgpu::SubmissionIndex,
    bytes: u64,
    take: &mut dyn FnMut(&[u8]),
) -> Result<(), Error> {
    let refused = |why: String| Error::Refused { what: what(), why };
    let (sender, receiver) = mpsc::channel();
    gpu.guarded(what, 0, || {
        let done = move |result| drop(sender.send(result));
        staging.slice(..bytes).map_async(wgpu::MapMode::Read, done);
    })?;
    gpu.wait(what, submitted)?;
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

/// Kernel and bound ranges: steps that agree in these share a bind group.
type GroupKey = (u32, Vec<(u32, u64, u64)>);
