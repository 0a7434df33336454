//! One plan on the processor: its buffers, and the steps of its functions bound to them.

use std::collections::BTreeMap;

use dwindle_bundle::native::NativeKernel;
use dwindle_bundle::{Buffer, BufferKind, Call, Code, Plan, Step as PlanStep, room};

use super::Cpu;
use crate::Error;
use crate::device::{self, Entries};
use dwindle_native::kernels::{self, Run, Step};
use dwindle_native::memory::{ALIGNMENT, Memory, View};
use dwindle_native::pool::Member;

/// Bytes of weights copied at a time, where they are copied.
const CHUNK: usize = 4 << 20;

/// A plan on the processor. Calls are done when `submit` returns.
#[derive(Debug)]
pub struct Program {
    cpu: Cpu,
    /// `None` while not loaded. Steps hold views of these: whoever takes one away forgets the functions.
    buffers: Vec<Option<Memory>>,
    /// Prepared activations of one matrix product, shared by all: the plan's `activations`.
    scratch: Option<Memory>,
    scratch_bytes: u64,
    /// What each thread works in, at most.
    local_bytes: u64,
    functions: BTreeMap<String, Vec<Step>>,
    /// What the last call or copy left to be read.
    read: Vec<u8>,
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
        let functions = BTreeMap::new();
        let (cpu, read) = (cpu.clone(), Vec::new());
        Ok(Program { cpu, buffers, scratch: None, scratch_bytes, local_bytes, functions, read })
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

    fn view(&self, buffer: usize, offset: u64, bytes: u64) -> Option<View> {
        self.buffers.get(buffer)?.as_ref()?.view(offset, bytes)
    }

    fn bind(&self, plan: &Plan, step: &PlanStep, max_rows: u32) -> Result<Step, Error> {
        let kernel = native(plan, step)?;
        let fail = |why: String| refused(plan, step, &why);
        let needs = check_step(plan, step, &kernel, max_rows)?;
        let mut views = Vec::with_capacity(needs.len());
        for (index, (range, need)) in step.bindings.iter().zip(&needs).enumerate() {
            let view = self.view(range.buffer as usize, range.offset, range.bytes);
            let view = view.ok_or_else(|| {
                fail(format!("binds {} bytes at {} of buffer {}", range.bytes, range.offset, range.buffer))
            })?;
            if need.written && !view.is_writable() {
                return Err(fail(format!("writes weights at binding {index}")));
            }
            views.push(view);
        }
        check_aliases(&needs, &views).map_err(fail)?;
        Ok(Step { kernel, views })
    }
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

/// Weights where they lie in the bundle, or a copy where they cannot be used there; zeros for all else.
fn memory(buffer: &Buffer, entries: &dyn Entries) -> Result<Memory, Error> {
    let BufferKind::Weights(entry) = &buffer.kind else { return zeroed(buffer.bytes, &buffer.name) };
    match entries.share(entry)?.and_then(Memory::entry) {
        Some(memory) => Ok(memory),
        None => copied(buffer.bytes, &buffer.name, entry, entries),
    }
}

impl device::Program for Program {
    fn load(&mut self, plan: &Plan, entries: &dyn Entries) -> Result<(), Error> {
        self.check_threads()?;
        for (buffer, place) in plan.buffers.iter().zip(&mut self.buffers) {
            if place.is_none() {
                *place = Some(memory(buffer, entries)?);
            }
        }
        if self.scratch.is_none() {
            let bytes = self.scratch_bytes.checked_next_multiple_of(ALIGNMENT as u64).unwrap_or(u64::MAX);
            self.scratch = Some(zeroed(bytes, "activations")?);
        }
        Ok(())
    }

    fn unload(&mut self, plan: &Plan, keep_states: bool) -> Result<(), Error> {
        self.functions.clear();
        self.read = Vec::new();
        self.scratch = None;
        for (buffer, place) in plan.buffers.iter().zip(&mut self.buffers) {
            match place {
                // Checked once, the entry is good for as long as the bundle is mapped.
                Some(Memory::Entry(entry)) => entry.release(),
                _ if keep_states && buffer.kind == BufferKind::State => {}
                _ => *place = None,
            }
        }
        Ok(())
    }

    fn max_grid(&self) -> u32 {
        u32::MAX
    }

    fn prepare(&mut self, plan: &Plan, function: &str, steps: &[PlanStep]) -> Result<(), Error> {
        if self.functions.contains_key(function) {
            return Ok(());
        }
        let max_rows = plan.functions.get(function).map_or(1, |function| function.max_rows);
        let bound = steps.iter().map(|step| self.bind(plan, step, max_rows)).collect::<Result<_, _>>()?;
        self.functions.insert(function.to_owned(), bound);
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

    fn submit(&mut self, function: &str, call: Call, _: &[[u32; 3]], read: Option<(usize, u64)>) -> Result<(), Error> {
        let not_prepared = || Error::Plan { why: format!("function `{function}` is not prepared") };
        let steps = self.functions.get(function).ok_or_else(not_prepared)?;
        for step in steps {
            let bytes: Vec<usize> = step.views.iter().map(View::byte_len).collect();
            kernels::check_call(&step.kernel, call, &bytes)
                .map_err(|why| Error::Call { function: function.to_owned(), why })?;
        }
        let scratch = self.scratch.as_ref().ok_or_else(not_prepared)?.whole();
        let set = self.cpu.instruction_set();
        let job = |member: &Member<'_>| {
            for step in steps {
                // SAFETY: `bind` compared the views with what the kernel needs, and `check_call` the call; the set is available.
                unsafe { kernels::run(&Run { step, call, member, scratch, set }) };
                member.barrier();
            }
        };
        self.cpu
            .pool()
            .run(&job)
            .map_err(|broken| Error::DeviceLost { what: format!("function `{function}`"), why: broken.0 })?;
        read.map_or(Ok(()), |(buffer, bytes)| device::Program::copy(self, buffer, bytes))
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
