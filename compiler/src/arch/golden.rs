//! The golden checkpoints of `tests/golden`, for tests: their families, tensors and expected values.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use dwindle_bundle::Call;
use dwindle_quant::{Method, encode_rows, write_floats};
use dwindle_schemes::{FloatType, Format, Role, Scheme};
use serde_json::{Map, Value};

use super::{Family, Function, GraphOptions, parse};
use crate::checkpoint::safetensors::{SafeTensors, TensorView};
use crate::checkpoint::{ModelDir, config, names};
use crate::graph::eval::{Evaluator, Outputs, Tensor};
use crate::graph::verify::verify;
use crate::graph::{DType, Graph, Stored, Tensors};

/// Positions of the KV cache in tests.
const CONTEXT: usize = 256;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// The folder of a family: the first golden checkpoint of this `model_type`.
pub fn fixture(model_type: &str) -> String {
    let folders = fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut folders: Vec<String> = folders.collect();
    folders.sort();
    let fits = |name: &String| json(name, "config.json").is_some_and(|config| config["model_type"] == model_type);
    let advice = "is missing: see compiler/src/arch/README.md";
    folders.into_iter().find(fits).unwrap_or_else(|| panic!("the golden checkpoint of {model_type} {advice}"))
}

fn json(name: &str, file: &str) -> Option<Value> {
    let bytes = fs::read(folder(name).join(file)).ok()?;
    Some(serde_json::from_slice(&bytes).unwrap())
}

/// `config.json` or `config_v4.json` of a golden checkpoint, normalised.
pub fn config(name: &str, file: &str) -> Map<String, Value> {
    let Some(Value::Object(map)) = json(name, file) else { panic!("{name}/{file} is no object") };
    config::normalize(map).unwrap()
}

/// The family of a golden checkpoint with this configuration.
pub fn family(name: &str, config: &Map<String, Value>) -> Result<Box<dyn Family>, super::Error> {
    let model_type = config["model_type"].as_str().unwrap();
    parse(model_type, config, json(name, "preprocessor_config.json").as_ref())
}

/// Tensors in memory, under the names that graphs use.
#[derive(Default)]
pub struct Memory {
    tensors: BTreeMap<String, (DType, Vec<usize>, Vec<u8>)>,
    formats: BTreeMap<String, Format>,
}

impl Tensors for Memory {
    fn stored(&self, name: &str) -> Option<Stored<'_>> {
        self.tensors.get(name).map(|(dtype, shape, bytes)| Stored { dtype: *dtype, shape, bytes })
    }
}

impl Memory {
    /// The tensors of a golden checkpoint as they are.
    pub fn load(name: &str) -> Memory {
        let mut memory = Memory::default();
        let mut files: Vec<PathBuf> = fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("model"));
        files.retain(|path| path.extension().unwrap() == "safetensors");
        for path in files {
            for tensor in SafeTensors::open(&path).unwrap().tensors() {
                let name = names::canonical(tensor.name, name.starts_with("llava")).into_owned();
                let float = tensor.float().unwrap();
                memory.formats.insert(name.clone(), Format::Plain(float));
                memory.tensors.insert(name, (float.into(), tensor.shape.to_vec(), tensor.bytes.to_vec()));
            }
        }
        memory
    }

    /// The tensors of a model directory, with what `change` makes of the bytes of each.
    pub fn of(model: &ModelDir, change: &dyn Fn(&str, &[u8]) -> Vec<u8>) -> Memory {
        let mut memory = Memory::default();
        for (name, info) in &model.model.tensors {
            memory.formats.insert(name.clone(), info.format);
            for (stored, element, shape) in info.stored(name) {
                let dtype = element.float().map_or(DType::U32, DType::from);
                let bytes = change(&stored, model.tensor(&stored).unwrap().bytes);
                memory.tensors.insert(stored, (dtype, shape, bytes));
            }
        }
        memory
    }

    /// The same, quantized as a scheme says.
    pub fn quantized(name: &str, family: &dyn Family, scheme: &Scheme, method: Method) -> Memory {
        let plain = Memory::load(name);
        let mut memory = Memory::default();
        for spec in family.tensors() {
            let (dtype, shape, bytes) = &plain.tensors[&spec.name];
            let Format::Grouped(grouped) = scheme.format(spec.role) else {
                memory.tensors.insert(spec.name, (*dtype, shape.clone(), bytes.clone()));
                continue;
            };
            let columns: usize = shape[1..].iter().product();
            let Format::Plain(float) = plain.formats[&spec.name] else { unreachable!() };
            let mut values = vec![0.0; shape[0] * columns];
            dwindle_quant::read_floats(float, bytes, &mut values).unwrap();
            let mut words = vec![0; shape[0] * grouped.words(columns)];
            let mut scales = vec![0.0; shape[0] * grouped.scales(columns)];
            encode_rows(&values, columns, &grouped, method, &mut words, &mut scales).unwrap();
            let mut scale_bytes = vec![0; scales.len() * grouped.scale.bytes()];
            write_floats(grouped.scale, &scales, &mut scale_bytes).unwrap();
            let word_bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let (codes, groups) = (vec![shape[0], grouped.words(columns)], vec![shape[0], grouped.scales(columns)]);
            memory.tensors.insert(format!("{}.codes", spec.name), (DType::U32, codes, word_bytes));
            memory.tensors.insert(format!("{}.scales", spec.name), (grouped.scale.into(), groups, scale_bytes));
            memory.formats.insert(spec.name, Format::Grouped(grouped));
        }
        memory
    }

    /// How a matrix is stored.
    pub fn format(&self, name: &str) -> Format {
        self.formats.get(name).copied().unwrap_or_else(|| panic!("no format for {name}"))
    }

    /// Shapes of all tensors that were stored plain.
    pub fn shapes(&self) -> BTreeMap<&str, &[usize]> {
        self.tensors.iter().map(|(name, (_, shape, _))| (name.as_str(), shape.as_slice())).collect()
    }
}

/// `expected.safetensors` of a folder.
pub struct Expected(SafeTensors);

impl Expected {
    /// Opens it.
    pub fn load(name: &str) -> Expected {
        Expected(SafeTensors::open(&folder(name).join("expected.safetensors")).unwrap())
    }

    #[track_caller]
    fn view(&self, key: &str) -> TensorView<'_> {
        self.0.tensor(key).unwrap_or_else(|| panic!("no expected `{key}`"))
    }

    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.0.tensor(key).is_some()
    }

    /// Dimensions.
    #[track_caller]
    pub fn shape(&self, key: &str) -> Vec<usize> {
        self.view(key).shape.to_vec()
    }

    /// Numbers.
    #[track_caller]
    pub fn floats(&self, key: &str) -> Vec<f32> {
        assert_eq!(self.view(key).float().unwrap(), FloatType::F32);
        self.view(key).to_f32().unwrap()
    }

    /// Token ids or sizes, stored as i64.
    #[track_caller]
    pub fn integers(&self, key: &str) -> Vec<u32> {
        self.view(key).bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect()
    }
}

/// A model that can be called: graphs of all functions over tensors in memory.
pub struct Model<'m> {
    graphs: BTreeMap<&'static str, Graph>,
    /// Its states.
    pub evaluator: Evaluator<'m>,
}

impl<'m> Model<'m> {
    /// Makes and verifies all graphs.
    pub fn new(family: &dyn Family, memory: &'m Memory) -> Model<'m> {
        let options = GraphOptions { context: CONTEXT, taps: true };
        let mut graphs = BTreeMap::new();
        for &function in family.functions() {
            let graph = family.graph(function, &|name| memory.format(name), &options);
            verify(&graph).unwrap_or_else(|error| panic!("{error}"));
            graphs.insert(function.name(), graph);
        }
        Model { graphs, evaluator: Evaluator::new(memory) }
    }

    /// The graph of a function.
    pub fn graph(&self, function: Function) -> &Graph {
        &self.graphs[function.name()]
    }

    /// Calls a function with tokens at `position`; `images` gives rows of pictures where they replace embeddings.
    pub fn call(&mut self, function: Function, tokens: &[u32], position: usize, images: &[Overlay]) -> Outputs {
        let rows = tokens.len();
        let of = |at: usize| images.get(position + at).unwrap_or(&NO_OVERLAY);
        let inputs = BTreeMap::from([
            ("tokens", Tensor::u32(vec![rows], tokens.to_vec())),
            ("image_index", Tensor::i32(vec![rows, 4], (0..rows).flat_map(|at| of(at).0).collect())),
            ("image_weight", Tensor::f32(vec![rows, 4], (0..rows).flat_map(|at| of(at).1).collect())),
        ]);
        let call = Call { rows: rows as u32, position: position as u32, tile: 0 };
        self.evaluator.run(&self.graphs[function.name()], call, &inputs).unwrap()
    }

    /// The `count` likeliest tokens one after the other, by `prefill` and `decode`.
    pub fn greedy(&mut self, prompt: &[u32], images: &[Overlay], count: usize) -> Vec<u32> {
        let mut outputs = self.call(Function::Prefill, prompt, 0, images);
        let mut tokens = Vec::new();
        loop {
            let logits = outputs.floats("logits").unwrap();
            let likeliest = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            tokens.push(likeliest as u32);
            if tokens.len() == count {
                return tokens;
            }
            let position = prompt.len() + tokens.len() - 1;
            outputs = self.call(Function::Decode, &tokens[tokens.len() - 1..], position, &[]);
        }
    }
}

/// Four rows of `image_rows` and their weights, for one token.
pub type Overlay = ([i32; 4], [f32; 4]);

/// The token's own embedding.
pub const NO_OVERLAY: Overlay = ([-1, 0, 0, 0], [0.0; 4]);

/// The greatest difference, infinite where anything is not a number.
#[track_caller]
pub fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let worse = |greatest: f32, d: f32| if d.is_nan() { f32::INFINITY } else { greatest.max(d) };
    found.iter().zip(expected).map(|(found, expected)| (found - expected).abs()).fold(0.0, worse)
}

/// Fails where numbers differ by more than `tolerance`.
#[track_caller]
pub fn check(what: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    let difference = difference(found, expected);
    println!("{what}: {difference:.1e}");
    assert!(difference <= tolerance, "{what}: {difference:e} is more than {tolerance:e}");
}

/// Roles that are matrices.
pub const fn is_matrix(role: Role) -> bool {
    !matches!(role, Role::Vector)
}
