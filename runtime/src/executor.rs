//! Executes a plan: checks ports and calls, and has the device do the steps.

use bytemuck::Pod;
use dwindle_bundle::{Buffer, Call, Extent, Function, Plan, Port, PortType};

use crate::Error;
use crate::device::{self, Device, Entries, Program};

/// An element of a port.
pub trait Element: Pod {
    /// The port's type that it belongs to.
    const TYPE: PortType;
}

impl Element for f32 {
    const TYPE: PortType = PortType::F32;
}

impl Element for u32 {
    const TYPE: PortType = PortType::U32;
}

impl Element for i32 {
    const TYPE: PortType = PortType::I32;
}

/// What lasts from call to call of one sequence.
pub type States = Box<dyn device::States>;

/// A plan on a device: kernels and weights. Calls of one [`Lane`] are done in the order in which they are made; only reading waits for
/// them.
#[derive(Debug)]
pub struct Executor {
    plan: Plan,
    program: Box<dyn Program>,
}

/// What a call changes.
#[derive(Debug)]
pub struct Lane<'a> {
    /// The sequence's states.
    pub states: &'a mut dyn device::States,
    /// What the call works in.
    pub workspace: &'a mut dyn device::Workspace,
}

impl Executor {
    /// Puts a plan on a device, with its weights. `entries` are not needed afterwards.
    ///
    /// # Errors
    /// [`Error::Plan`] where the plan contradicts itself, [`Error::Bundle`] where an entry is damaged,
    /// [`Error::OutOfMemory`] with the buffer that did not fit.
    pub fn new(device: &(impl Device + ?Sized), plan: &Plan, entries: &dyn Entries) -> Result<Executor, Error> {
        let executor = Executor::unloaded(device, plan, entries)?;
        executor.load(entries)?;
        Ok(executor)
    }

    /// A plan that has no memory until [`Executor::load`].
    ///
    /// # Errors
    /// [`Error::Plan`] where the plan contradicts itself or is for another device, [`Error::Bundle`] where an entry is damaged.
    pub fn unloaded(device: &(impl Device + ?Sized), plan: &Plan, entries: &dyn Entries) -> Result<Executor, Error> {
        check(plan)?;
        Ok(Executor { plan: plan.clone(), program: device.program(plan, entries)? })
    }

    /// Brings weights in, if they are not there.
    ///
    /// # Errors
    /// [`Error::Bundle`] where an entry is damaged, [`Error::OutOfMemory`] with the buffer that did not fit.
    pub fn load(&self, entries: &dyn Entries) -> Result<(), Error> {
        self.program.load(&self.plan, entries)
    }

    /// Gives the memory of weights back until [`Executor::load`]; calls fail meanwhile. Workspaces are dropped before: they hold
    /// what they have bound.
    ///
    /// # Errors
    /// [`Error::DeviceLost`].
    pub fn unload(&self) -> Result<(), Error> {
        self.program.unload()
    }

    /// States of a sequence that has not begun, zeroed.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with the buffer that did not fit.
    pub fn states(&self) -> Result<States, Error> {
        self.program.states(&self.plan)
    }

    /// Memory for calls to work in, one at a time.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] with the buffer that did not fit.
    pub fn workspace(&self) -> Result<Box<dyn device::Workspace>, Error> {
        self.program.workspace(&self.plan)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Compiles the kernels of a function and binds it, so that its first call need not.
    ///
    /// # Errors
    /// [`Error::NoFunction`]; [`Error::Refused`] with the kernel that the device does not take.
    pub fn prepare(&self, function: &str, lane: &mut Lane<'_>) -> Result<(), Error> {
        let steps = &find(&self.plan, function)?.steps;
        lane.workspace.prepare(&self.plan, function, steps, lane.states)
    }

    /// Writes an input, `[rows, columns]` of the port; a port with the call's rows takes any number of rows.
    ///
    /// # Errors
    /// [`Error::NoPort`], [`Error::PortType`], [`Error::PortSize`].
    pub fn write_input<T: Element>(
        &self,
        function: &str,
        port: &str,
        values: &[T],
        workspace: &dyn device::Workspace,
    ) -> Result<(), Error> {
        let at = Place::find::<T>(&self.plan, function, "input", port)?;
        let columns = at.port.columns as usize;
        let rows = values.len().checked_div(columns).unwrap_or(0);
        if rows * columns != values.len() || rows == 0 {
            return Err(at.wrong_size(format!("{} values are no rows of {columns}", values.len())));
        }
        at.check_rows(u32::try_from(rows).unwrap_or(u32::MAX))?;
        workspace.write(at.port.buffer as usize, bytemuck::cast_slice(values))
    }

    /// Starts a call and returns before it is done.
    ///
    /// # Errors
    /// [`Error::NoFunction`]; [`Error::Call`] where rows or grid are out of range; the device's errors.
    pub fn run(&self, function: &str, call: Call, lane: &mut Lane<'_>) -> Result<(), Error> {
        self.submit(function, call, lane, None)
    }

    /// Does a call and reads one output of it, `[rows, columns]`, into `values`: one submission, one wait.
    ///
    /// # Errors
    /// Those of [`Executor::run`] and [`Executor::read_output`].
    pub fn run_and_read<T: Element>(
        &self,
        function: &str,
        call: Call,
        lane: &mut Lane<'_>,
        port: &str,
        values: &mut Vec<T>,
    ) -> Result<(), Error> {
        let at = Place::find::<T>(&self.plan, function, "output", port)?;
        let bytes = at.check_rows(at.port.rows.unwrap_or(call.rows))?;
        let read = (at.port.buffer as usize, bytes);
        self.submit(function, call, lane, Some(read))?;
        lane.workspace.fetch(bytes, &mut |from| replace(values, from))
    }

    /// The first `rows` rows of an output, `[rows, columns]`, after all calls made so far.
    ///
    /// # Errors
    /// [`Error::NoPort`], [`Error::PortType`], [`Error::PortSize`]; the device's errors.
    pub fn read_output<T: Element>(
        &self,
        function: &str,
        port: &str,
        rows: u32,
        workspace: &mut dyn device::Workspace,
    ) -> Result<Vec<T>, Error> {
        let at = Place::find::<T>(&self.plan, function, "output", port)?;
        let bytes = at.check_rows(rows)?;
        workspace.copy(at.port.buffer as usize, bytes)?;
        let mut values = Vec::new();
        workspace.fetch(bytes, &mut |from| replace(&mut values, from))?;
        Ok(values)
    }

    fn submit(&self, function: &str, call: Call, lane: &mut Lane<'_>, read: Option<(usize, u64)>) -> Result<(), Error> {
        let steps = &find(&self.plan, function)?.steps;
        let grids = grids(&self.plan, function, call, self.program.max_grid())?;
        lane.workspace.prepare(&self.plan, function, steps, lane.states)?;
        lane.workspace.submit(function, call, &grids, lane.states, read)
    }
}

fn replace<T: Pod>(values: &mut Vec<T>, bytes: &[u8]) {
    // A mapped range is aligned for any port type, but that is the device's promise and not the compiler's.
    values.clear();
    match bytemuck::try_cast_slice(bytes) {
        Ok(slice) => values.extend_from_slice(slice),
        Err(_) => values.extend(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned::<T>)),
    }
}

fn find<'a>(plan: &'a Plan, function: &str) -> Result<&'a Function, Error> {
    plan.functions.get(function).ok_or_else(|| Error::NoFunction {
        function: function.to_owned(),
        found: plan.functions.keys().cloned().collect(),
    })
}

/// What would make a later index or division fail; ranges of buffers are checked where they are bound.
fn check(plan: &Plan) -> Result<(), Error> {
    for (name, function) in &plan.functions {
        for (index, step) in function.steps.iter().enumerate() {
            let wrong = |why: &str| Err(Error::Plan { why: format!("step {index} of function `{name}` {why}") });
            match plan.kernels.get(step.kernel as usize) {
                None => return wrong("has no kernel"),
                Some(kernel) if kernel.bindings.len() != step.bindings.len() => {
                    return wrong(&format!("binds {} ranges, not {}", step.bindings.len(), kernel.bindings.len()));
                }
                Some(_) => {}
            }
            if step.grid.iter().any(|e| matches!(e, Extent::Fixed(0) | Extent::RowsPer(0) | Extent::LengthPer(0))) {
                return wrong("has an empty grid");
            }
        }
    }
    Ok(())
}

/// The workgroups of every step, for `call`.
fn grids(plan: &Plan, function: &str, call: Call, most: u32) -> Result<Vec<[u32; 3]>, Error> {
    let found = find(plan, function)?;
    let wrong = |why: String| Error::Call { function: function.to_owned(), why };
    if call.rows == 0 || call.rows > found.max_rows {
        return Err(wrong(format!("{} rows, but 1 to {} are possible", call.rows, found.max_rows)));
    }
    if call.position.checked_add(call.rows).is_none() {
        return Err(wrong(format!("{} rows at position {} are too many", call.rows, call.position)));
    }
    let mut grids = Vec::with_capacity(found.steps.len());
    for (index, step) in found.steps.iter().enumerate() {
        let grid = step.grid.map(|extent| extent.at(call));
        if grid.iter().any(|&n| n > most) {
            return Err(wrong(format!("step {index} needs {grid:?} workgroups, the device offers {most} each way")));
        }
        grids.push(grid);
    }
    Ok(grids)
}

/// A port, and what error messages say about it.
struct Place<'a> {
    function: &'a str,
    max_rows: u32,
    port: &'a Port,
    buffer: &'a Buffer,
}

impl<'a> Place<'a> {
    fn find<T: Element>(plan: &'a Plan, function: &'a str, direction: &'static str, port: &str) -> Result<Self, Error> {
        let found = find(plan, function)?;
        let ports = if direction == "input" { &found.inputs } else { &found.outputs };
        let port = ports.iter().find(|p| p.name == port).ok_or_else(|| Error::NoPort {
            function: function.to_owned(),
            direction,
            port: port.to_owned(),
            found: ports.iter().map(|p| p.name.clone()).collect(),
        })?;
        if port.dtype != T::TYPE {
            return Err(Error::PortType {
                function: function.to_owned(),
                port: port.name.clone(),
                holds: type_name(port.dtype),
                given: type_name(T::TYPE),
            });
        }
        let buffer = plan.buffers.get(port.buffer as usize);
        let buffer = buffer.ok_or_else(|| Error::Plan { why: format!("port `{}` has no buffer", port.name) })?;
        Ok(Place { function, max_rows: found.max_rows, port, buffer })
    }

    /// Bytes of that many rows, if the port may have them.
    fn check_rows(&self, rows: u32) -> Result<u64, Error> {
        match self.port.rows {
            Some(fixed) if rows != fixed => return Err(self.wrong_size(format!("{rows} rows, but it has {fixed}"))),
            None if rows == 0 || rows > self.max_rows => {
                return Err(self.wrong_size(format!("{rows} rows, but 1 to {} are possible", self.max_rows)));
            }
            _ => {}
        }
        // The product of two 32-bit numbers fits into 64 bits; four times it may not.
        let bytes = (u64::from(rows) * u64::from(self.port.columns)).checked_mul(4);
        bytes.filter(|&bytes| bytes <= self.buffer.bytes).ok_or_else(|| {
            let (columns, buffer) = (self.port.columns, self.buffer.bytes);
            self.wrong_size(format!("{rows} rows of {columns} do not fit into its {buffer} bytes"))
        })
    }

    fn wrong_size(&self, why: String) -> Error {
        Error::PortSize { function: self.function.to_owned(), port: self.port.name.clone(), why }
    }
}

const fn type_name(dtype: PortType) -> &'static str {
    match dtype {
        PortType::F32 => "f32",
        PortType::U32 => "u32",
        PortType::I32 => "i32",
    }
}

#[cfg(test)]
mod tests;
