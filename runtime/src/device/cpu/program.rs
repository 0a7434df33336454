//! One plan on the processor: its weights, what sequences and calls have of it, and the steps of its functions bound to these.

use std::any::Any;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use dwindle_bundle::native::NativeKernel;
use dwindle_bundle::{Buffer, BufferKind, Call, Code, Plan, Step as PlanStep, room};

use super::Cpu;
use crate::Error;
use crate::device::bindings::{Bindings, Identity};
use crate::device::{self, Entries};
use dwindle_native::kernels::{self, Run, Step};
use dwindle_native::memory::{ALIGNMENT, Memory, View};
use dwindle_native::pool::Member;

/// Bytes of weights copied at a time, where they are copied.
const CHUNK: usize = 4 << 20;

/// A plan on the processor.
#[derive(Debug)]
pub struct Program(Arc<Shared>);

/// What a program shares with its workspaces.
#[derive(Debug)]
struct Shared {
    cpu: Cpu,
    weights: RwLock<Weights>,
    scratch_bytes: u64,
    /// What each thread works in, at most.
    local_bytes: u64,
}

/// Weights by buffer.
#[derive(Debug)]
struct Weights {
    /// `None` where a buffer is something else, or is not there.
    buffers: Vec<Option<Memory>>,
    is_loaded: bool,
    /// How often they were loaded: what was bound before the last time is void.
    loading: u64,
}

impl Shared {
    fn weights(&self) -> RwLockReadGuard<'_, Weights> {
        self.weights.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn weights_mut(&self) -> RwLockWriteGuard<'_, Weights> {
        self.weights.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses what threads would work in where there is less memory. It is no part of the memory plan, as it depends on their
    /// number; in real plans it is some hundred KiB each.
    fn check_threads(&self) -> Result<(), Error> {
        let bytes = self.local_bytes.saturating_mul(self.cpu.pool().members() as u64);
        // Not worth asking the system for less.
        const WORTH_ASKING: u64 = 16 << 20;
        let room = if bytes > WORTH_ASKING { room::memory() } else { None };
        match room {
            Some(room) if bytes > room.bytes => {
                Err(Error::OutOfMemory { what: "what threads work in; `--threads 1` takes least".to_owned(), bytes })
            }
            _ => Ok(()),
        }
    }
}

impl Program {
    /// A plan without memory.
    ///
    /// # Errors
    /// A kernel is not native, has constants that no kernel understands, or is bound to less than these need.
    pub fn new(cpu: &Cpu, plan: &Plan) -> Result<Program, Error> {
        let (mut scratch_bytes, mut local_bytes) = (64, 0);
        for function in plan.functions.values() {
            for step in &function.steps {
                let kernel = native(plan, step)?;
                check_step(plan, step, &kernel, function.max_rows)?;
                scratch_bytes = scratch_bytes.max(kernel.scratch_bytes(function.max_rows));
                local_bytes = local_bytes.max(kernel.local_bytes(function.max_rows));
            }
        }
        let buffers = plan.buffers.iter().map(|_| None).collect();
        let weights = RwLock::new(Weights { buffers, is_loaded: false, loading: 0 });
        Ok(Program(Arc::new(Shared { cpu: cpu.clone(), weights, scratch_bytes, local_bytes })))
    }
}

impl device::Program for Program {
    fn load(&self, plan: &Plan, entries: &dyn Entries) -> Result<(), Error> {
        self.0.check_threads()?;
        let mut weights = self.0.weights_mut();
        let Weights { buffers, is_loaded, loading } = &mut *weights;
        if *is_loaded {
            return Ok(());
        }
        for (buffer, place) in plan.buffers.iter().zip(buffers) {
            if let (BufferKind::Weights(entry), None) = (&buffer.kind, &place) {
                *place = Some(weight(buffer, entry, entries)?);
            }
        }
        (*is_loaded, *loading) = (true, *loading + 1);
        Ok(())
    }

    fn unload(&self) -> Result<(), Error> {
        let mut weights = self.0.weights_mut();
        weights.is_loaded = false;
        for place in &mut weights.buffers {
            match place {
                // Checked once, the entry is good for as long as the bundle is mapped.
                Some(Memory::Entry(entry)) => entry.release(),
                _ => *place = None,
            }
        }
        Ok(())
    }

    fn max_grid(&self) -> u32 {
        u32::MAX
    }

    fn states(&self, plan: &Plan) -> Result<Box<dyn device::States>, Error> {
        let buffers = allocate(plan, |kind| *kind == BufferKind::State)?;
        Ok(Box::new(States { identity: Identity::new(), buffers }))
    }

    fn workspace(&self, plan: &Plan) -> Result<Box<dyn device::Workspace>, Error> {
        let is_work = |kind: &BufferKind| !matches!(kind, BufferKind::State | BufferKind::Weights(_));
        let bytes = self.0.scratch_bytes.checked_next_multiple_of(ALIGNMENT as u64).unwrap_or(u64::MAX);
        Ok(Box::new(Workspace {
            buffers: allocate(plan, is_work)?,
            scratch: zeroed(bytes, "activations")?,
            program: self.0.clone(),
            bindings: Bindings::new(),
            read: Vec::new(),
        }))
    }
}

/// Zeroed memory for the buffers of some kinds.
fn allocate(plan: &Plan, wanted: impl Fn(&BufferKind) -> bool) -> Result<Vec<Option<Memory>>, Error> {
    let make = |buffer: &Buffer| wanted(&buffer.kind).then(|| zeroed(buffer.bytes, &buffer.name)).transpose();
    plan.buffers.iter().map(make).collect()
}

/// The states of one sequence.
#[derive(Debug)]
struct States {
    identity: Identity,
    buffers: Vec<Option<Memory>>,
}

impl States {
    fn of(states: &dyn device::States) -> Result<&States, Error> {
        let states: &dyn Any = states;
        states.downcast_ref().ok_or_else(|| Error::Plan { why: "its states are on another device".to_owned() })
    }

    fn view(&self, buffer: usize, offset: u64, bytes: u64) -> Result<View, Error> {
        let view = self.buffers.get(buffer).and_then(Option::as_ref).and_then(|memory| memory.view(offset, bytes));
        view.ok_or_else(|| Error::Refused {
            what: format!("access to state {buffer}"),
            why: format!("it has no {bytes} bytes at {offset}"),
        })
    }
}

impl device::States for States {
    fn read(&self, buffer: usize, bytes: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let mut copy = Vec::new();
        self.view(buffer, 0, bytes)?.read_into(&mut copy);
        take(&copy);
        Ok(())
    }

    fn write(&mut self, buffer: usize, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.view(buffer, offset, bytes.len() as u64)?.write(bytes);
        Ok(())
    }

    fn copy_from(&mut self, other: &dyn device::States, ranges: &[(usize, u64)]) -> Result<(), Error> {
        let other = States::of(other)?;
        let mut copy = Vec::new();
        for &(buffer, bytes) in ranges {
            other.view(buffer, 0, bytes)?.read_into(&mut copy);
            self.view(buffer, 0, bytes)?.write(&copy);
        }
        Ok(())
    }
}

/// What calls work in. They are done when `submit` returns.
#[derive(Debug)]
struct Workspace {
    program: Arc<Shared>,
    buffers: Vec<Option<Memory>>,
    /// Prepared activations of one matrix product, shared by all: the plan's `activations`.
    scratch: Memory,
    bindings: Bindings<Vec<Step>>,
    /// What the last call or copy left to be read.
    read: Vec<u8>,
}

impl Workspace {
    fn view(&self, buffer: usize, offset: u64, bytes: u64) -> Option<View> {
        self.buffers.get(buffer)?.as_ref()?.view(offset, bytes)
    }

    fn bind(
        &self,
        plan: &Plan,
        step: &PlanStep,
        max_rows: u32,
        weights: &Weights,
        states: &States,
    ) -> Result<Step, Error> {
        let kernel = native(plan, step)?;
        let fail = |why: String| refused(plan, step, &why);
        let needs = check_step(plan, step, &kernel, max_rows)?;
        let mut views = Vec::with_capacity(needs.len());
        for (index, (range, need)) in step.bindings.iter().zip(&needs).enumerate() {
            let [work, state, weight] = [&self.buffers, &states.buffers, &weights.buffers]
                .map(|buffers| buffers.get(range.buffer as usize).and_then(Option::as_ref));
            let own = work.or(state);
            let view = own.or(weight).and_then(|memory| memory.view(range.offset, range.bytes)).ok_or_else(|| {
                fail(format!("binds {} bytes at {} of buffer {}", range.bytes, range.offset, range.buffer))
            })?;
            // Other calls may read them at the same time, also where they are a copy.
            if need.written && own.is_none() {
                return Err(fail(format!("writes weights at binding {index}")));
            }
            views.push(view);
        }
        check_aliases(&needs, &views).map_err(fail)?;
        Ok(Step { kernel, views })
    }
}

impl device::Workspace for Workspace {
    fn prepare(
        &mut self,
        plan: &Plan,
        function: &str,
        steps: &[PlanStep],
        states: &dyn device::States,
    ) -> Result<(), Error> {
        let states = States::of(states)?;
        let weights = self.program.weights();
        if !weights.is_loaded {
            return Err(not_prepared(function));
        }
        if self.bindings.get(function, &states.identity, weights.loading).is_some() {
            return Ok(());
        }
        let max_rows = plan.functions.get(function).map_or(1, |function| function.max_rows);
        let bound = steps.iter().map(|step| self.bind(plan, step, max_rows, &weights, states));
        let bound = bound.collect::<Result<_, _>>()?;
        let loading = weights.loading;
        drop(weights);
        self.bindings.insert(function, &states.identity, loading, bound);
        Ok(())
    }

    fn write(&self, buffer: usize, bytes: &[u8]) -> Result<(), Error> {
        let view = self.view(buffer, 0, bytes.len() as u64).filter(View::is_writable);
        let refused = || Error::Refused {
            what: format!("write into buffer {buffer}"),
            why: format!("{} bytes do not fit", bytes.len()),
        };
        view.ok_or_else(refused)?.write(bytes);
        Ok(())
    }

    fn submit(
        &mut self,
        function: &str,
        call: Call,
        _: &[[u32; 3]],
        states: &mut dyn device::States,
        read: Option<(usize, u64)>,
    ) -> Result<(), Error> {
        let states = States::of(states)?;
        // Held during the call: nothing is unloaded that it uses.
        let weights = self.program.weights();
        let bound = self.bindings.get(function, &states.identity, weights.loading);
        let steps = bound.filter(|_| weights.is_loaded).ok_or_else(|| not_prepared(function))?;
        for step in steps {
            let bytes: Vec<usize> = step.views.iter().map(View::byte_len).collect();
            kernels::check_call(&step.kernel, call, &bytes)
                .map_err(|why| Error::Call { function: function.to_owned(), why })?;
        }
        let scratch = self.scratch.whole();
        let set = self.program.cpu.instruction_set();
        let job = |member: &Member<'_>| {
            for step in steps {
                // SAFETY: `bind` compared the views with what the kernel needs, and `check_call` the call; the set is available.
                // The views are of memory that is there: of this workspace, of states with the number that they were bound
                // for, which are borrowed, and of weights that are locked since the loading that they were bound for.
                unsafe { kernels::run(&Run { step, call, member, scratch, set }) };
                member.barrier();
            }
        };
        self.program
            .cpu
            .pool()
            .run(&job)
            .map_err(|broken| Error::DeviceLost { what: format!("function `{function}`"), why: broken.0 })?;
        drop(weights);
        read.map_or(Ok(()), |(buffer, bytes)| device::Workspace::copy(self, buffer, bytes))
    }

    fn copy(&mut self, buffer: usize, bytes: u64) -> Result<(), Error> {
        let view = self
            .view(buffer, 0, bytes)
            .ok_or_else(|| Error::Plan { why: format!("buffer {buffer} has no {bytes} bytes") })?;
        view.read_into(&mut self.read);
        Ok(())
    }

    fn fetch(&mut self, bytes: u64, take: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        match usize::try_from(bytes).ok().and_then(|bytes| self.read.get(..bytes)) {
            Some(bytes) => take(bytes),
            None => {
                let (what, why) = ("reading of results".to_owned(), "nothing was submitted".to_owned());
                return Err(Error::Refused { what, why });
            }
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), Error> {
        Ok(())
    }
}

fn not_prepared(function: &str) -> Error {
    Error::Plan { why: format!("function `{function}` is not prepared") }
}

/// What a step's kernel needs, where its bindings have as much.
fn check_step(plan: &Plan, step: &PlanStep, kernel: &NativeKernel, max_rows: u32) -> Result<Vec<kernels::Need>, Error> {
    let needs = kernels::needs(kernel, max_rows).map_err(|why| refused(plan, step, &why))?;
    if needs.len() != step.bindings.len() {
        return Err(refused(plan, step, &format!("binds {} ranges, not {}", step.bindings.len(), needs.len())));
    }
    for (index, (range, need)) in step.bindings.iter().zip(&needs).enumerate() {
        if range.bytes < need.bytes {
            return Err(refused(
                plan,
                step,
                &format!("needs {} bytes at binding {index}, not {}", need.bytes, range.bytes),
            ));
        }
    }
    Ok(needs)
}

/// Ranges that a kernel reads as plain slices must not overlap what it writes; others may be the same, but not shifted.
fn check_aliases(needs: &[kernels::Need], views: &[View]) -> Result<(), String> {
    for (i, written) in views.iter().enumerate().filter(|(i, _)| needs[*i].written) {
        for (j, other) in views.iter().enumerate() {
            let same_place = needs[j].may_alias && !needs[j].written && written.begins_with(other);
            if i != j && written.overlaps(other) && !same_place {
                return Err(format!("writes binding {i}, which overlaps binding {j}"));
            }
        }
    }
    Ok(())
}

fn native(plan: &Plan, step: &PlanStep) -> Result<NativeKernel, Error> {
    let kernel = plan.kernels.get(step.kernel as usize);
    match kernel.map(|kernel| &kernel.code) {
        None => Err(Error::Plan { why: format!("there is no kernel {}", step.kernel) }),
        Some(Code::Wgsl { .. }) => Err(refused(plan, step, "is written for GPUs; compile with `--target cpu`")),
        Some(Code::Native { name, constants }) => {
            NativeKernel::from_code(name, constants).map_err(|why| refused(plan, step, &why))
        }
    }
}

fn refused(plan: &Plan, step: &PlanStep, why: &str) -> Error {
    let name = plan.kernels.get(step.kernel as usize).map_or("", |kernel| &kernel.name);
    Error::Plan { why: format!("kernel `{name}`: {why}") }
}

fn zeroed(bytes: u64, name: &str) -> Result<Memory, Error> {
    // Tests and fuzzing learn of whatever touches what lies behind a buffer.
    #[cfg(any(test, fuzzing))]
    let allocate = Memory::guarded;
    #[cfg(not(any(test, fuzzing)))]
    let allocate = Memory::zeroed;
    let memory = usize::try_from(bytes).ok().and_then(allocate);
    memory.ok_or_else(|| Error::OutOfMemory { what: format!("buffer `{name}`"), bytes })
}

fn copied(bytes: u64, name: &str, entry: &str, entries: &dyn Entries) -> Result<Memory, Error> {
    let memory = zeroed(bytes, name)?;
    let mut taken = 0;
    entries.stream(entry, CHUNK, &mut |offset, part| {
        taken = offset + part.len() as u64;
        let view = memory.view(offset, part.len() as u64);
        let view = view.ok_or_else(|| Error::Plan { why: format!("entry `{entry}` is longer than `{name}`") })?;
        view.write(part);
        Ok(())
    })?;
    match taken == bytes {
        true => Ok(memory),
        false => Err(Error::Plan { why: format!("buffer `{name}` has {bytes} bytes, its entry `{entry}` {taken}") }),
    }
}

/// Weights where they lie in the bundle, or a copy where they cannot be used there.
fn weight(buffer: &Buffer, entry: &str, entries: &dyn Entries) -> Result<Memory, Error> {
    match entries.share(entry)?.and_then(Memory::entry) {
        Some(memory) => Ok(memory),
        None => copied(buffer.bytes, &buffer.name, entry, entries),
    }
}
