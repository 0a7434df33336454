//! `eval(g) ≈ eval(pass(g))` on random tensors, states and inputs.

use std::collections::BTreeMap;

use dwindle_bundle::Call;
use half::{bf16, f16};

use crate::graph::eval::{Data, Evaluator, Outputs, Tensor};
use crate::graph::recipe::{Stored, Tensors};
use crate::graph::*;

/// Rows of a call where they are symbolic, and the position of the first: together within every state of the tests.
const ROWS: usize = 5;
const POSITION: u32 = 3;

/// Allowed difference, relative to the greatest magnitude of an output. Passes only change the order of roundings, and the
/// evaluator sums in f64.
const TOLERANCE: f32 = 1e-5;

/// Numbers that look random: a 64-bit linear congruential generator (Knuth's constants).
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Self {
        let mut noise = Noise(seed ^ 0x9e37_79b9_7f4a_7c15);
        noise.word();
        noise
    }

    pub fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 32) as u32
    }

    /// Below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.word() as usize % n
    }

    /// Between -1 and 1.
    fn float(&mut self) -> f32 {
        (self.word() >> 8) as f32 / (1 << 23) as f32 - 1.0
    }

    fn tensor(&mut self, ty: &Type, below: usize) -> Tensor {
        let size = |dim: &Dim| if let Dim::Fixed(n) = dim { *n } else { ROWS };
        let shape: Vec<usize> = ty.shape.iter().map(size).collect();
        let n = shape.iter().product();
        let data = match ty.dtype {
            DType::F32 => Data::F32((0..n).map(|_| self.float()).collect()),
            DType::F16 => Data::F16((0..n).map(|_| f16::from_f32(self.float())).collect()),
            DType::Bf16 => Data::Bf16((0..n).map(|_| bf16::from_f32(self.float())).collect()),
            DType::U32 => Data::U32((0..n).map(|_| self.word() % below.min(u32::MAX as usize) as u32).collect()),
            // Four rows of pictures a token, of which only the first may be -1, for none.
            DType::I32 => Data::I32(
                (0..n)
                    .map(|i| if i % 4 == 0 { self.below(below + 1) as i32 - 1 } else { self.below(below) as i32 })
                    .collect(),
            ),
        };
        Tensor::new(shape, data).unwrap()
    }
}

struct Memory(BTreeMap<String, (DType, Vec<usize>, Vec<u8>)>);

impl Tensors for Memory {
    fn stored(&self, name: &str) -> Option<Stored<'_>> {
        self.0.get(name).map(|(dtype, shape, bytes)| Stored { dtype: *dtype, shape, bytes })
    }
}

fn stored(tensor: &Tensor) -> (DType, Vec<usize>, Vec<u8>) {
    let bytes = match tensor.data() {
        Data::F32(values) => bytemuck::cast_slice(values).to_vec(),
        Data::F16(values) => bytemuck::cast_slice(values).to_vec(),
        Data::Bf16(values) => bytemuck::cast_slice(values).to_vec(),
        Data::U32(values) => bytemuck::cast_slice(values).to_vec(),
        Data::I32(values) => bytemuck::cast_slice(values).to_vec(),
    };
    (tensor.dtype(), tensor.shape().to_vec(), bytes)
}

/// Random contents for all that a graph reads. Tokens are below the rows of the smallest table, indices below those of the
/// smallest state.
struct World {
    memory: Memory,
    inputs: BTreeMap<String, Tensor>,
    states: BTreeMap<String, Tensor>,
}

impl World {
    fn of(graph: &Graph) -> Self {
        let mut world = World { memory: Memory(BTreeMap::new()), inputs: BTreeMap::new(), states: BTreeMap::new() };
        let fixed_rows = |value: ValueId| if let Dim::Fixed(n) = graph.ty(value).rows() { n } else { ROWS };
        let smallest = |wanted: fn(&Op) -> bool, operand: usize| {
            let nodes = graph.nodes.iter().filter(|node| wanted(&node.op));
            nodes.map(|node| fixed_rows(node.operands[operand])).min().unwrap_or(1)
        };
        let tokens = smallest(|op| matches!(op, Op::Embed { .. }), 1);
        let indices = smallest(|op| matches!(op, Op::OverlayRows), 1);
        for node in &graph.nodes {
            let ty = |i: usize| graph.ty(node.results[i]);
            let name = match &node.op {
                Op::Input { name } | Op::State { name } | Op::Weight(Recipe::Tensor(name)) => name.clone(),
                Op::Weight(recipe) => panic!("{recipe} in a graph to begin with"),
                _ => continue,
            };
            let mut noise = Noise::new(name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte)));
            match &node.op {
                Op::Input { .. } => {
                    let below = if ty(0).dtype == DType::I32 { indices } else { tokens };
                    world.inputs.insert(name, noise.tensor(ty(0), below));
                }
                Op::State { .. } => _ = world.states.insert(name, noise.tensor(ty(0), 0)),
                _ => _ = world.memory.0.insert(name, stored(&noise.tensor(ty(0), u32::MAX as usize))),
            }
        }
        world
    }

    #[track_caller]
    fn run(&self, graph: &Graph) -> Outputs {
        let mut evaluator = Evaluator::new(&self.memory);
        for (name, state) in &self.states {
            evaluator.set_state(name, state.clone());
        }
        let inputs = self.inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        // The second tile, unless a model's state holds one tile only.
        let room = graph.nodes.iter().all(|node| match node.op {
            Op::WriteRows { stride, .. } if stride > 1 => graph.ty(node.operands[0]).rows() != Dim::Fixed(stride),
            _ => true,
        });
        let call = Call { rows: ROWS as u32, position: POSITION, tile: u32::from(room) };
        evaluator.run(graph, call, &inputs).unwrap_or_else(|error| panic!("{error}\n{graph}"))
    }
}

/// Checks that two graphs, the first without folded constants, compute the same outputs.
#[track_caller]
pub fn assert_same_meaning(before: &Graph, after: &Graph) {
    let world = World::of(before);
    let (expected, found) = (world.run(before), world.run(after));
    assert_eq!(expected.named.keys().collect::<Vec<_>>(), found.named.keys().collect::<Vec<_>>());
    for (name, expected) in &expected.named {
        let found = &found.named[name];
        assert_eq!(found.shape(), expected.shape(), "{name}");
        let (expected, found) = (expected.floats().unwrap(), found.floats().unwrap());
        let largest = expected.iter().fold(1.0_f32, |largest, x| largest.max(x.abs()));
        for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
            let same = (expected - found).abs() <= TOLERANCE * largest || expected.to_bits() == found.to_bits();
            assert!(same, "{name}[{index}]: {found} instead of {expected}\n{before}\n{after}");
        }
    }
}
