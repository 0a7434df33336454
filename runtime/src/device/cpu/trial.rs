//! Plans of one step made from arbitrary bytes, and their execution: for fuzzing, and for a test that does some of it always.
//!
//! Bytes choose a kernel and its constants, mostly small and sometimes absurd, what it is bound to, mostly exactly what it
//! needs and sometimes less, more, or something else's place, and a call. Buffers end at pages that cannot be touched. Whatever the
//! bytes, a plan is refused or executed within its buffers.

use std::collections::BTreeMap;

use dwindle_bundle::native::*;
use dwindle_bundle::{
    Access, Binding, Buffer, BufferKind, Call, Code, Entry, Extent, Function as PlanFunction, Kernel, Plan, Step,
};

use dwindle_native::kernels;

use super::{Cpu, InstructionSet, Options, Program};
use crate::device::Program as _;

/// No binding is longer: fuzzing is about shapes, and long rows are slow.
const MAX_BYTES: u64 = 32 << 10;

/// What came of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The plan or the call was refused.
    Refused(String),
    /// The step was executed.
    Executed,
    /// Nothing was tried: the bindings would be too long.
    TooLong,
}

/// Choices out of bytes; when there are none left, the first of each.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes([0; 4].map(|_: u8| self.byte()))
    }

    fn once_in(&mut self, n: u8) -> bool {
        self.byte() % n == n - 1
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::from(self.byte()) % all.len()]
    }

    /// A size of at most `most` that the kernel may well take.
    fn size(&mut self, most: u8) -> u32 {
        1 + u32::from(self.byte() % most)
    }

    /// A size that is sometimes around a border, and sometimes absurd.
    fn odd_size(&mut self, most: u8) -> u32 {
        match self.byte() {
            0..200 => self.size(most),
            200..230 => self.of(&[0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 255, 256, 257]),
            230..250 => u32::from(self.byte()) << (self.byte() % 25),
            _ => self.of(&[u32::MAX, u32::MAX - 15, 1 << 31, 1 << 30, 1 << 24, 65_535, 65_536]),
        }
    }

    fn rows(&mut self) -> Rows {
        match self.byte() {
            0..180 => None,
            _ => Some(self.odd_size(40)),
        }
    }

    fn float(&mut self) -> Float {
        self.of(&[Float::F16, Float::F32])
    }

    /// Mostly harmless.
    fn number(&mut self) -> f32 {
        match self.byte() {
            0..220 => f32::from(self.byte()) / 64.0 - 1.0,
            _ => f32::from_bits(self.word()),
        }
    }

    fn optional_number(&mut self) -> Option<f32> {
        self.once_in(2).then(|| self.number())
    }

    fn activation(&mut self) -> Activation {
        self.of(&[Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu])
    }

    fn matrix(&mut self) -> Matrix {
        let storage = if self.once_in(3) {
            Storage::Plain(self.float())
        } else {
            let bits = if self.once_in(20) { self.odd_size(16) } else { self.of(&[4, 3, 8, 5, 6]) };
            let unit = self.of(&[8, 32, 40, 4, 16, 64, 128, 48, 80]);
            let group = if self.once_in(20) { self.odd_size(255) } else { unit * self.size(2) };
            let zero = match self.byte() % 5 {
                0 | 1 => Zero::Centered,
                2 => Zero::Fixed(if self.once_in(20) { self.word() } else { self.size(8) - 1 }),
                3 => Zero::Stored,
                _ => Zero::Minimum,
            };
            Storage::Grouped { bits, group, scale: self.float(), zero }
        };
        let (n, k) = (self.odd_size(70), self.odd_size(255));
        Matrix { layout: Layout::Rows16, storage, n, k }
    }

    /// Where rows of `width` elements lie.
    fn columns(&mut self, width: u32) -> Columns {
        let gap = if self.once_in(3) { self.size(40) } else { 0 };
        let stride = if self.once_in(20) { self.odd_size(100) } else { width.wrapping_add(gap) };
        let offset = if self.once_in(3) { self.odd_size(40) } else { 0 };
        Columns { stride, offset }
    }

    fn kernel(&mut self) -> NativeKernel {
        // Products have most to go wrong.
        match self.byte() % 20 {
            0..7 => NativeKernel::MatMul(self.product()),
            7 => {
                let (matrix, rows, first_row) = (self.matrix(), self.rows(), self.odd_size(3).wrapping_sub(1));
                NativeKernel::Embed(Embed { matrix, rows, first_row, scale: self.number() })
            }
            8 => NativeKernel::Norm(Norm {
                layer: self.once_in(2),
                rows: self.rows(),
                heads: self.odd_size(4),
                columns: self.odd_size(100),
                eps: self.number(),
                residual: self.once_in(2),
            }),
            9 | 10 => NativeKernel::RopeWriteKv(RopeWriteKv {
                rows: self.rows(),
                n_heads: self.odd_size(6),
                n_kv_heads: self.odd_size(3),
                head_dim: self.head_dim(),
                magnitude: self.number(),
                state: self.float(),
            }),
            11..15 => NativeKernel::Attention(self.attention()),
            15 => NativeKernel::OverlayRows(OverlayRows {
                rows: self.rows(),
                columns: self.odd_size(40),
                image_rows: self.odd_size(20),
            }),
            16 => NativeKernel::WriteRows(WriteRows {
                rows: self.rows(),
                columns: self.odd_size(40),
                state_rows: self.odd_size(60),
                start: self.of(&[Scalar::Position, Scalar::Tile]),
                stride: self.odd_size(4),
                offset: self.odd_size(4),
                state: self.float(),
            }),
            17 => NativeKernel::Patchify(Patchify {
                channels: self.odd_size(3),
                height: self.odd_size(30),
                width: self.odd_size(30),
                patch: self.odd_size(8),
            }),
            18 => NativeKernel::Elementwise(Elementwise {
                function: match self.byte() % 7 {
                    0 => Function::Add(self.once_in(2)),
                    1 => Function::Mul(self.once_in(2)),
                    2 => Function::AddScalar(self.number()),
                    3 => Function::Scale(self.number()),
                    4 => Function::Activate(self.activation()),
                    5 => Function::SoftCap(self.number()),
                    _ => Function::Glu(self.activation()),
                },
                rows: self.rows(),
                columns: self.odd_size(80),
            }),
            _ => match self.once_in(2) {
                true => NativeKernel::Rope(Rope {
                    rows: self.rows(),
                    n_heads: self.odd_size(4),
                    head_dim: self.head_dim(),
                    magnitude: self.number(),
                }),
                false => {
                    let (rows, columns, last) = (self.rows(), self.odd_size(60), self.once_in(2));
                    NativeKernel::CopyRows(CopyRows { rows, x: self.columns(columns), columns, last })
                }
            },
        }
    }

    fn head_dim(&mut self) -> u32 {
        if self.once_in(8) { self.odd_size(100) } else { 2 * self.size(40) }
    }

    fn product(&mut self) -> MatMul {
        let matrix = self.matrix();
        let gated = self.once_in(4);
        let columns = if gated { matrix.n / 2 } else { matrix.n };
        let out_offset = if self.once_in(4) { self.odd_size(20) } else { 0 };
        let more = if self.once_in(4) { self.size(20) } else { 0 };
        MatMul {
            matrix,
            rows: self.rows(),
            rms_norm: self.optional_number(),
            bias: self.once_in(2),
            activation: (gated || self.once_in(4)).then(|| self.activation()),
            gated,
            soft_cap: self.optional_number(),
            residual: self.once_in(2),
            out_columns: columns.wrapping_add(out_offset).wrapping_add(more),
            out_offset,
        }
    }

    fn attention(&mut self) -> Attention {
        let (n_kv_heads, head_dim) = (self.odd_size(3), self.head_dim());
        let n_heads = if self.once_in(10) { self.odd_size(8) } else { n_kv_heads.wrapping_mul(self.size(10)) };
        let (q, kv) = (n_heads.wrapping_mul(head_dim), n_kv_heads.wrapping_mul(head_dim));
        Attention {
            rows: self.rows(),
            n_heads,
            n_kv_heads,
            head_dim,
            scale: self.number(),
            soft_cap: self.optional_number(),
            window: self.once_in(2).then(|| self.odd_size(200)),
            causal: self.once_in(2),
            // Several pieces and tiles.
            kv_rows: self.odd_size(255).wrapping_mul(self.of(&[1, 2, 4])),
            q: self.columns(q),
            k: self.columns(kv),
            v: self.columns(kv),
            kv: self.float(),
        }
    }
}

/// A plan, what its weights are, and a call.
struct Draft {
    plan: Plan,
    entries: BTreeMap<String, Vec<u8>>,
    call: Call,
    noise: Noise,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.plan.buffers.iter().map(|buffer| (&buffer.kind, buffer.bytes)).collect::<Vec<_>>();
        let step = &self.plan.functions["f"].steps[0].bindings;
        write!(f, "{:?} of {bytes:?}, bound {step:?}, {:?}", self.plan.kernels[0].code, self.call)
    }
}

/// Reproducible contents of buffers.
#[derive(Clone, Debug)]
struct Noise {
    seed: u64,
    /// Any bits, so that floats may be infinite or none; else floats in -1 .. 1.
    wild: bool,
}

impl Noise {
    fn word(&mut self) -> u32 {
        // Knuth's MMIX constants.
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.seed >> 32) as u32
    }

    fn bytes(&mut self, bytes: u64) -> Vec<u8> {
        let words = (0..bytes / 4).map(|_| {
            let word = self.word();
            if self.wild { word } else { (word as i32 as f32 / (1_u32 << 31) as f32).to_bits() }
        });
        words.flat_map(u32::to_le_bytes).collect()
    }

    /// Numbers from -1 on, of which most are less than `end`.
    fn indices(&mut self, bytes: u64, end: u32) -> Vec<u8> {
        let words = (0..bytes / 4).map(|_| (self.word() % end.saturating_add(2).max(1)).wrapping_sub(1));
        words.flat_map(u32::to_le_bytes).collect()
    }
}

/// A plan of one step as `choices` say; `None` where its bindings would be too long.
fn draft(choices: &mut Choices<'_>) -> Option<Draft> {
    let kernel = choices.kernel();
    let max_rows = if choices.once_in(16) { choices.odd_size(70) } else { choices.size(70) };
    let call = Call {
        rows: 1 + u32::from(choices.byte()) % max_rows.clamp(1, 100),
        position: choices.odd_size(250).wrapping_sub(1) >> 1,
        tile: choices.odd_size(4).wrapping_sub(1),
    };
    let mut noise = Noise { wild: choices.once_in(3), seed: choices.word().into() };
    // A kernel that is refused needs nothing in particular.
    let refused = |_| vec![kernels::Need { bytes: 64, written: true, may_alias: true }; 3];
    let needed = kernels::needs(&kernel, max_rows).unwrap_or_else(refused);
    let mut plan = Plan { max_rows: max_rows.max(1), ..Plan::default() };
    let (mut entries, mut bindings, mut accesses) = (BTreeMap::new(), Vec::<Binding>::new(), Vec::new());
    for (index, need) in needed.iter().enumerate() {
        // States are as long as the positions.
        let is_state = matches!(kernel, NativeKernel::RopeWriteKv(_)) && index > 2;
        let bytes = if is_state { need.bytes.saturating_mul(choices.size(8).into()) } else { need.bytes };
        let bytes = match choices.byte() {
            0..230 => bytes,
            230..240 => bytes.saturating_add(4 * u64::from(choices.size(100))),
            _ => bytes.saturating_sub(4 * u64::from(choices.size(100))),
        };
        let bytes = bytes.checked_next_multiple_of(4).filter(|&bytes| bytes <= MAX_BYTES)?.max(4);
        // A place that something else has, too.
        if index > 0 && choices.once_in(12) {
            let at = usize::from(choices.byte()) % index;
            let (other, shift) = (bindings[at], if choices.once_in(4) { 4 } else { 0 });
            accesses.push(accesses[at]);
            bindings.push(Binding { offset: other.offset + shift, bytes: other.bytes.min(bytes), ..other });
            continue;
        }
        let is_weight = !need.written && choices.once_in(2);
        let entry = format!("weights.{index}");
        let kind = match choices.byte() % 3 {
            _ if is_weight => BufferKind::Weights(entry.clone()),
            0 => BufferKind::Scratch,
            1 => BufferKind::State,
            _ => BufferKind::Output,
        };
        if is_weight {
            entries.insert(entry, noise.bytes(bytes));
        }
        bindings.push(Binding { buffer: plan.buffers.len() as u32, offset: 0, bytes });
        accesses.push(if is_weight { Access::Read } else { Access::ReadWrite });
        plan.buffers.push(Buffer { name: format!("buffer.{index}"), bytes, kind });
    }
    let code = kernel.to_code();
    plan.kernels.push(Kernel { name: "kernel".to_owned(), code, workgroup: [1; 3], bindings: accesses });
    let step = Step { kernel: 0, bindings, grid: [Extent::Fixed(1); 3] };
    // Twice, so that a thread that is late for the first finds the second.
    let function = PlanFunction { max_rows, steps: vec![step.clone(), step], ..PlanFunction::default() };
    plan.functions.insert("f".to_owned(), function);
    Some(Draft { plan, entries, call, noise })
}

/// Processors to try plans on: each instruction set at hand, with several numbers of threads.
#[derive(Debug)]
pub struct Trials {
    teams: Vec<(InstructionSet, Vec<Cpu>)>,
}

impl Trials {
    /// All instruction sets, or the one called `only`.
    ///
    /// # Errors
    /// It is not available.
    pub fn new(only: Option<&str>, threads: &[usize]) -> Result<Trials, crate::Error> {
        let all = InstructionSet::ALL.into_iter().filter(|set| set.is_available());
        let sets = match only {
            Some(_) => vec![InstructionSet::choose(only)?],
            None => all.collect(),
        };
        let team = |set: InstructionSet, &threads: &usize| {
            Cpu::open(&Options { threads: Some(threads), instruction_set: Some(set.name().to_owned()) })
        };
        let teams = sets.into_iter().map(|set| {
            Ok::<_, crate::Error>((set, threads.iter().map(|threads| team(set, threads)).collect::<Result<_, _>>()?))
        });
        Ok(Trials { teams: teams.collect::<Result<_, _>>()? })
    }

    /// Instruction sets that are tried.
    pub fn sets(&self) -> impl Iterator<Item = InstructionSet> {
        self.teams.iter().map(|(set, _)| *set)
    }

    /// Tries the plan that `bytes` describe everywhere.
    ///
    /// # Panics
    /// A kernel panics, teams of different sizes leave different bytes in the buffers, or instruction sets differ in what they refuse.
    pub fn run(&self, bytes: &[u8]) -> Outcome {
        let Some(draft) = draft(&mut Choices(bytes)) else { return Outcome::TooLong };
        let listed = |bytes: &Vec<u8>| Entry { bytes: bytes.len() as u64, blake3: String::new() };
        let listed = draft.entries.iter().map(|(name, bytes)| (name.clone(), listed(bytes))).collect();
        if let Err(why) = draft.plan.check(&listed, u32::MAX) {
            return Outcome::Refused(why);
        }
        let mut outcome = None;
        for (set, cpus) in &self.teams {
            let mut first = None;
            for cpu in cpus {
                let came = execute(cpu, &draft).map_err(|error| error.to_string());
                assert_eq!(*first.get_or_insert_with(|| came.clone()), came, "{set}: teams disagree on {draft:?}");
            }
            let came = match first {
                Some(Ok(_)) | None => Outcome::Executed,
                Some(Err(why)) => Outcome::Refused(why),
            };
            assert_eq!(*outcome.get_or_insert_with(|| came.clone()), came, "{set} differs on {draft:?}");
        }
        outcome.unwrap_or(Outcome::TooLong)
    }
}

/// Executes a draft; gives what all buffers but weights hold then.
fn execute(cpu: &Cpu, draft: &Draft) -> Result<Vec<Vec<u8>>, crate::Error> {
    let Draft { plan, entries, call, noise } = draft;
    let program = Program::new(cpu, plan)?;
    program.load(plan, entries)?;
    let (mut states, mut workspace) = (program.states(plan)?, program.workspace(plan)?);
    let function = &plan.functions["f"];
    let kernel = plan.kernels[0].code.clone();
    let mut noise = noise.clone();
    for (index, buffer) in plan.buffers.iter().enumerate() {
        if matches!(buffer.kind, BufferKind::Weights(_)) {
            continue;
        }
        let bound_at = function.steps[0].bindings.iter().position(|binding| binding.buffer as usize == index);
        let bytes = match (&kernel, bound_at) {
            (Code::Native { name, .. }, Some(0)) if name == "embed" => noise.indices(buffer.bytes, 80),
            (Code::Native { name, .. }, Some(2)) if name == "overlay_rows" => noise.indices(buffer.bytes, 25),
            _ => noise.bytes(buffer.bytes),
        };
        match buffer.kind {
            BufferKind::State => states.write(index, 0, &bytes)?,
            _ => workspace.write(index, &bytes)?,
        }
    }
    workspace.prepare(plan, "f", &function.steps, &*states)?;
    match workspace.submit("f", *call, &[], &mut *states, None) {
        Err(crate::Error::DeviceLost { why, .. }) => panic!("{draft:?}: {why}"),
        other => other?,
    }
    let mut contents = Vec::new();
    for (index, buffer) in plan.buffers.iter().enumerate() {
        let take = &mut |bytes: &[u8]| contents.push(bytes.to_vec());
        match buffer.kind {
            // Nothing can write them: they are bound to be read, or refused.
            BufferKind::Weights(_) => {}
            BufferKind::State => states.read(index, buffer.bytes, take)?,
            _ => {
                workspace.copy(index, buffer.bytes)?;
                workspace.fetch(buffer.bytes, take)?;
            }
        }
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn variable(name: &str) -> Option<u64> {
        std::env::var(name).ok()?.parse().ok()
    }

    /// Bytes of a generator, on all instruction sets (or the one that `DWINDLE_CPU` names), with one thread and with three (or as
    /// many as `DWINDLE_TRIALS_THREADS` says: a thread alone waits for no other, so long runs are quicker).
    #[test]
    fn plans_are_refused_or_stay_within_their_buffers() {
        let teams = variable("DWINDLE_TRIALS_THREADS").map_or(vec![1, 3], |threads| vec![threads as usize]);
        let trials = Trials::new(std::env::var("DWINDLE_CPU").ok().as_deref(), &teams).unwrap();
        let mut bytes = Noise { seed: variable("DWINDLE_TRIALS_SEED").unwrap_or(7), wild: true };
        let (mut executed, mut refused) = (0_u64, BTreeSet::new());
        let most = variable("DWINDLE_TRIALS").unwrap_or(1000);
        for trial in 1..=most {
            match trials.run(&bytes.bytes(400)) {
                Outcome::Executed => executed += 1,
                Outcome::Refused(why) if refused.len() < 1000 => drop(refused.insert(why)),
                Outcome::Refused(_) | Outcome::TooLong => {}
            }
            if trial % 100_000 == 0 {
                println!("{trial} trials, {executed} executed on each of {:?}", trials.sets().collect::<Vec<_>>());
            }
        }
        assert!(executed * 5 > most, "{executed} of {most} executed");
        assert!(refused.len() > 20, "{refused:?}");
    }
}
