//! Schedules one function: each node becomes steps, each value gets a location.
//!
//! What the operations have in common lives here: where values are, which of them die, what may be computed in place.
//! How each operation becomes a kernel is told in `select`, `product` (matrices) and `attend` (attention and caches).
//!
//! Slices, and the last of one row, are views: they cost nothing until a consumer needs rows without gaps, which copies
//! them at that moment. A result takes the place of an operand that dies at the node where the kernel's
//! specification allows it. A state is updated in place, so a node that reads a state must read its newest value.

use std::collections::BTreeMap;

use dwindle_bundle::BufferKind;
use dwindle_schemes::FloatType;

use super::LowerError;
use super::shared::{Shared, check_size};
use super::slots::Temporary;
use super::weights::{BINDING_GRANULE, Layout, Source};
use crate::graph::{CallScalar, DType, Dim, Graph, Node, Op, Recipe, Type, ValueId};
use crate::kernels::spec::{CopyRowsSpec, KernelSpec, View};

/// Where bytes are, before buffers have indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An intermediate value of this function.
    Temporary(usize),
    /// A packed tensor.
    Weight(usize),
    /// A state, an input or an output.
    Named(usize),
}

/// What a step binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Where it is.
    pub place: Place,
    /// How much is bound, from the beginning of the place.
    pub bytes: u64,
}

/// A step whose buffers have no indices yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledStep {
    /// Index of the kernel.
    pub kernel: usize,
    /// What is bound at 1, 2, ….
    pub bindings: Vec<Bound>,
}

/// A named border of the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScheduledPort {
    /// Name.
    pub name: String,
    /// Index of the named buffer.
    pub buffer: usize,
    /// Element type and shape.
    pub ty: Type,
}

/// One function, scheduled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// The most rows of a call.
    pub max_rows: usize,
    /// Intermediate values with their lifetimes.
    pub temporaries: Vec<Temporary>,
    /// In order.
    pub steps: Vec<ScheduledStep>,
    /// Written by the caller.
    pub inputs: Vec<ScheduledPort>,
    /// Read by the caller.
    pub outputs: Vec<ScheduledPort>,
}

/// Where a value is.
#[derive(Clone, Debug)]
pub(super) enum Location {
    /// In a buffer, each row `columns` elements at `view`.
    Stored { bound: Bound, view: View, float: FloatType },
    /// Packed when a node asks for it, in the layout it asks for.
    Constant(Recipe),
    /// A number of the call.
    Scalar(CallScalar),
}

/// Lowers the nodes of one function.
pub(super) struct Scheduler<'s, 'a> {
    pub graph: &'s Graph,
    pub shared: &'s mut Shared<'a>,
    /// Index of the node being lowered.
    pub node: usize,
    max_rows: usize,
    locations: Vec<Option<Location>>,
    /// The value whose storage a value looks into; itself for most.
    roots: Vec<ValueId>,
    /// For each root, the last node that uses it or a view of it.
    last_use: Vec<usize>,
    /// Outputs that are no states: the buffer where the value is computed.
    homes: BTreeMap<ValueId, usize>,
    /// For each state, its newest value.
    newest: BTreeMap<usize, ValueId>,
    temporaries: Vec<Temporary>,
    steps: Vec<ScheduledStep>,
    inputs: Vec<ScheduledPort>,
}

impl<'s, 'a> Scheduler<'s, 'a> {
    fn new(graph: &'s Graph, shared: &'s mut Shared<'a>, max_rows: usize) -> Self {
        let (roots, last_use) = lifetimes(graph);
        Scheduler {
            graph,
            shared,
            node: 0,
            max_rows,
            locations: vec![None; graph.values.len()],
            roots,
            last_use,
            homes: BTreeMap::new(),
            newest: BTreeMap::new(),
            temporaries: Vec::new(),
            steps: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// The error that the node being lowered is not supported.
    pub fn unsupported(&self, why: impl Into<String>) -> LowerError {
        LowerError::unsupported(&self.graph.name, self.node, &self.graph.nodes[self.node], why)
    }

    /// The error that the node has too few operands.
    pub fn operand(&self, node: &Node, index: usize) -> Result<ValueId, LowerError> {
        node.operands.get(index).copied().ok_or_else(|| self.unsupported(format!("operand {index} is missing")))
    }

    /// Bytes of `rows` rows of `columns` elements of 4 bytes, in whole granules, at the most rows of a call.
    pub fn bytes(&self, rows: Dim, columns: usize) -> Result<u64, LowerError> {
        let rows = match rows {
            Dim::Fixed(n) => n,
            Dim::Rows => self.max_rows,
        };
        (rows as u64)
            .checked_mul(columns as u64)
            .and_then(|n| n.checked_mul(4))
            .and_then(|n| n.checked_next_multiple_of(BINDING_GRANULE))
            .ok_or_else(|| self.unsupported(format!("{rows} rows of {columns} columns overflow")))
    }

    /// Bytes of a value of 4-byte elements.
    fn value_bytes(&self, ty: &Type) -> Result<u64, LowerError> {
        let mut columns = 1_usize;
        for dim in ty.shape.iter().skip(1) {
            match dim {
                Dim::Fixed(n) => columns = columns.saturating_mul(*n),
                Dim::Rows => return Err(self.unsupported(format!("{ty} has symbolic columns"))),
            }
        }
        self.bytes(ty.rows(), columns)
    }

    /// Where a value is.
    pub fn location(&self, value: ValueId) -> Result<Location, LowerError> {
        self.locations[value.index()]
            .clone()
            .ok_or_else(|| self.unsupported(format!("it reads %{} before it is computed", value.0)))
    }

    /// Says where a value is that needs no step.
    pub fn locate(&mut self, value: ValueId, location: Location) {
        self.locations[value.index()] = Some(location);
    }

    /// The recipe of a constant operand.
    pub fn constant(&self, value: ValueId, role: &str) -> Result<Recipe, LowerError> {
        match self.location(value)? {
            Location::Constant(recipe) => Ok(recipe),
            _ => Err(self.unsupported(format!("its {role} must be constant; run the passes that fold constants"))),
        }
    }

    /// Checks that a node that depends on the position gets it from the call, as its kernel does.
    pub fn expect_position(&self, value: ValueId) -> Result<(), LowerError> {
        match self.location(value)? {
            Location::Scalar(CallScalar::Position) => Ok(()),
            _ => Err(self.unsupported("its position must be the call's")),
        }
    }

    /// A vector of constants, of which rows `rows` are bound.
    pub fn vector(&mut self, value: ValueId, role: &str, rows: std::ops::Range<usize>) -> Result<Bound, LowerError> {
        let recipe = self.constant(value, role)?;
        if self.graph.ty(value).dtype != DType::F32 {
            return Err(self.unsupported(format!("its {role} is {}, not f32", self.graph.ty(value))));
        }
        self.weight(Source::Recipe { recipe, rows }, DType::F32, 1, 1)
    }

    /// Constant data in some layout.
    pub fn weight(
        &mut self,
        source: Source,
        dtype: DType,
        columns: usize,
        padded_columns: usize,
    ) -> Result<Bound, LowerError> {
        self.weight_in(source, dtype, columns, padded_columns, Layout::Rows)
    }

    /// Constant data whose rows lie in some order.
    pub fn weight_in(
        &mut self,
        source: Source,
        dtype: DType,
        columns: usize,
        padded_columns: usize,
        layout: Layout,
    ) -> Result<Bound, LowerError> {
        let index = self.shared.pack(source, dtype, columns, padded_columns, layout)?;
        Ok(Bound { place: Place::Weight(index), bytes: self.shared.weights.tensors[index].bytes })
    }

    /// A value as rows without gaps, of 4-byte elements: views are copied into a temporary first.
    pub fn read(&mut self, value: ValueId) -> Result<Bound, LowerError> {
        let ty = self.graph.ty(value).clone();
        let columns = ty.columns();
        match self.location(value)? {
            Location::Constant(recipe) => {
                let (Dim::Fixed(rows), DType::F32) = (ty.rows(), ty.dtype) else {
                    return Err(self.unsupported(format!("a constant {ty} cannot stand for an intermediate value")));
                };
                let columns = if ty.shape.len() == 1 { 1 } else { columns };
                self.weight(Source::Recipe { recipe, rows: 0..rows }, ty.dtype, columns, columns)
            }
            Location::Scalar(_) => Err(self.unsupported("it computes with a call scalar")),
            Location::Stored { bound, view, float } => {
                if float != FloatType::F32 {
                    return Err(self.unsupported(format!("only attention reads {float} states")));
                }
                if ty.shape.len() < 2 || (view == View { stride: columns, offset: 0 }) {
                    return Ok(bound);
                }
                let copy = self.temporary(ty.rows(), columns)?;
                let spec = CopyRowsSpec { rows: ty.rows(), x: view, columns, last: false };
                self.push(KernelSpec::CopyRows(spec), vec![bound, copy])?;
                let view = View { stride: columns, offset: 0 };
                self.locate(value, Location::Stored { bound: copy, view, float });
                Ok(copy)
            }
        }
    }

    /// A new intermediate value.
    pub fn temporary(&mut self, rows: Dim, columns: usize) -> Result<Bound, LowerError> {
        let bytes = self.bytes(rows, columns)?;
        check_size(
            &format!("an intermediate value of `{}`", self.graph.name),
            bytes,
            self.shared.target,
            ": compile for fewer rows a call",
        )?;
        // The first step that binds it sets `first`.
        self.temporaries.push(Temporary { bytes, first: usize::MAX, last: 0 });
        Ok(Bound { place: Place::Temporary(self.temporaries.len() - 1), bytes })
    }

    /// Where a node's result is to be written: its output buffer, or the place of an operand in `reusable` that dies
    /// here and is used once by the node, or a new temporary.
    pub fn write(&mut self, result: ValueId, reusable: &[ValueId]) -> Result<Bound, LowerError> {
        let ty = self.graph.ty(result).clone();
        let bytes = self.value_bytes(&ty)?;
        let bound = if let Some(&buffer) = self.homes.get(&result) {
            Bound { place: Place::Named(buffer), bytes }
        } else if let Some(bound) = reusable.iter().find_map(|&value| self.reusable(value, bytes)) {
            bound
        } else {
            self.temporary(ty.rows(), ty.columns())?
        };
        let view = View { stride: ty.columns(), offset: 0 };
        self.locate(result, Location::Stored { bound, view, float: FloatType::F32 });
        Ok(bound)
    }

    fn reusable(&self, value: ValueId, bytes: u64) -> Option<Bound> {
        let root = self.roots[value.index()];
        let uses = |v: &&ValueId| self.roots[v.index()] == root;
        let uses_here = self.graph.nodes[self.node].operands.iter().filter(uses).count();
        let dies = self.last_use[root.index()] == self.node && uses_here == 1;
        match self.locations[value.index()] {
            Some(Location::Stored { bound, view: View { offset: 0, stride }, .. })
                if dies
                    && bound.bytes == bytes
                    && stride == self.graph.ty(value).columns()
                    && matches!(bound.place, Place::Temporary(_)) =>
            {
                Some(bound)
            }
            _ => None,
        }
    }

    /// Adds a step.
    pub fn push(&mut self, spec: KernelSpec, bindings: Vec<Bound>) -> Result<(), LowerError> {
        let kernel = self.shared.kernel(spec).map_err(|source| LowerError::Kernel {
            function: self.graph.name.clone(),
            node: self.node,
            source,
        })?;
        let expected = self.shared.accesses(kernel).len();
        if expected != bindings.len() {
            let source = format!("it binds {expected} buffers, {} are given", bindings.len()).into();
            return Err(LowerError::Kernel { function: self.graph.name.clone(), node: self.node, source });
        }
        let step = self.steps.len();
        for bound in &bindings {
            if let Place::Temporary(index) = bound.place {
                let temporary = &mut self.temporaries[index];
                temporary.first = temporary.first.min(step);
                temporary.last = temporary.last.max(step);
            }
        }
        self.steps.push(ScheduledStep { kernel, bindings });
        Ok(())
    }

    /// The state that a value is, which must be its newest value.
    pub fn state(&self, value: ValueId) -> Result<(usize, Bound, FloatType), LowerError> {
        match self.location(value)? {
            Location::Stored { bound, float, .. } => match bound.place {
                Place::Named(index) if self.newest.get(&index) == Some(&value) => Ok((index, bound, float)),
                _ => Err(self.unsupported(format!("%{} is no state, or was overwritten before", value.0))),
            },
            _ => Err(self.unsupported(format!("%{} is no state", value.0))),
        }
    }

    /// Says that `result` is what a state holds from now on.
    pub fn update_state(&mut self, state: usize, old: ValueId, result: ValueId) -> Result<(), LowerError> {
        let location = self.location(old)?;
        self.locate(result, location);
        self.newest.insert(state, result);
        Ok(())
    }

    /// Refuses operands that are outdated values of a state.
    fn check_states(&self, node: &Node) -> Result<(), LowerError> {
        for &operand in &node.operands {
            let root = self.roots[operand.index()];
            if let Some(Location::Stored { bound: Bound { place: Place::Named(index), .. }, .. }) =
                self.locations[operand.index()]
                && self.newest.get(&index).is_some_and(|&newest| newest != root)
            {
                let name = &self.shared.named[index].name;
                return Err(self.unsupported(format!("it reads `{name}` as it was before the state was written")));
            }
        }
        Ok(())
    }

    /// A source: an input, a state, a constant, a call scalar.
    pub fn source(&mut self, op: &Op, result: ValueId) -> Result<(), LowerError> {
        let ty = self.graph.ty(result).clone();
        let view = View { stride: ty.columns(), offset: 0 };
        match op {
            Op::Input { name } => {
                let bytes = self.value_bytes(&ty)?;
                if ty.dtype.bytes() != 4 {
                    return Err(self.unsupported(format!("inputs have elements of 4 bytes, `{name}` is {ty}")));
                }
                let buffer = self.shared.buffer(name, BufferKind::Input, bytes)?;
                self.inputs.push(ScheduledPort { name: name.clone(), buffer, ty });
                let bound = Bound { place: Place::Named(buffer), bytes };
                self.locate(result, Location::Stored { bound, view, float: FloatType::F32 });
            }
            Op::State { name } => {
                let float = if name.starts_with("kv.") { self.shared.options.kv } else { FloatType::F32 };
                let columns = ty.columns();
                if float != FloatType::F32 && !columns.is_multiple_of(2) {
                    return Err(LowerError::OddState { name: name.clone(), columns, float });
                }
                let f32_bytes = self.value_bytes(&ty)?;
                let bytes = match float {
                    FloatType::F32 => f32_bytes,
                    _ => (f32_bytes / 2).next_multiple_of(BINDING_GRANULE),
                };
                let buffer = self.shared.buffer(name, BufferKind::State, bytes)?;
                self.newest.insert(buffer, result);
                let bound = Bound { place: Place::Named(buffer), bytes };
                self.locate(result, Location::Stored { bound, view, float });
            }
            Op::Weight(recipe) => self.locate(result, Location::Constant(recipe.clone())),
            Op::Call(scalar) => self.locate(result, Location::Scalar(*scalar)),
            _ => return Err(self.unsupported("it is no source")),
        }
        Ok(())
    }

    /// Gives outputs their buffers, so that they are computed where they are read back from.
    fn plan_outputs(&mut self) -> Result<Vec<ScheduledPort>, LowerError> {
        let states: Vec<&str> = self
            .graph
            .nodes
            .iter()
            .filter_map(|node| match &node.op {
                Op::State { name } => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let mut ports = Vec::new();
        for (name, value) in &self.graph.outputs {
            if states.contains(&name.as_str()) {
                continue;
            }
            let ty = self.graph.ty(*value).clone();
            let bytes = self.value_bytes(&ty)?;
            let buffer = self.shared.buffer(name, BufferKind::Output, bytes)?;
            self.homes.entry(*value).or_insert(buffer);
            ports.push(ScheduledPort { name: name.clone(), buffer, ty });
        }
        Ok(ports)
    }

    /// Copies outputs that were not computed in their buffers: inputs, views, values with two names.
    fn finish_outputs(&mut self, ports: &[ScheduledPort]) -> Result<(), LowerError> {
        let values: BTreeMap<&str, ValueId> = self.graph.outputs.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        for port in ports {
            let value = values[port.name.as_str()];
            let bytes = self.value_bytes(&port.ty)?;
            let home = Bound { place: Place::Named(port.buffer), bytes };
            let Location::Stored { bound, view, float: FloatType::F32 } = self.location(value)? else {
                return Err(self.unsupported(format!("output `{}` is no f32 value that is computed", port.name)));
            };
            if bound != home {
                let spec = CopyRowsSpec { rows: port.ty.rows(), x: view, columns: port.ty.columns(), last: false };
                self.push(KernelSpec::CopyRows(spec), vec![bound, home])?;
            }
        }
        Ok(())
    }
}

/// For each value the value whose storage it looks into, and for each such root the last node that uses it; outputs are
/// used at the end.
fn lifetimes(graph: &Graph) -> (Vec<ValueId>, Vec<usize>) {
    let mut roots: Vec<ValueId> = (0..graph.values.len()).map(|i| ValueId(i as u32)).collect();
    let mut last_use = vec![0; graph.values.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        for operand in &node.operands {
            last_use[roots[operand.index()].index()] = index;
        }
        if let (true, [x, ..], [result]) = (is_view(graph, node), node.operands.as_slice(), node.results.as_slice()) {
            roots[result.index()] = roots[x.index()];
        }
    }
    for (_, value) in &graph.outputs {
        last_use[roots[value.index()].index()] = graph.nodes.len();
    }
    (roots, last_use)
}

/// Whether the result of a node is a view of its first operand.
pub(super) fn is_view(graph: &Graph, node: &Node) -> bool {
    match node.op {
        Op::Slice { .. } | Op::SliceRows { .. } => true,
        Op::LastRow => node.operands.first().is_some_and(|x| graph.ty(*x).rows() == Dim::Fixed(1)),
        _ => false,
    }
}

/// Schedules a function for calls of at most `max_rows` rows.
pub(super) fn schedule(graph: &Graph, shared: &mut Shared<'_>, max_rows: usize) -> Result<Schedule, LowerError> {
    let mut scheduler = Scheduler::new(graph, shared, max_rows);
    let outputs = scheduler.plan_outputs()?;
    for (index, node) in graph.nodes.iter().enumerate() {
        scheduler.node = index;
        scheduler.check_states(node)?;
        scheduler.select(node)?;
    }
    scheduler.finish_outputs(&outputs)?;
    let Scheduler { temporaries, steps, inputs, .. } = scheduler;
    Ok(Schedule { max_rows, temporaries, steps, inputs, outputs })
}
