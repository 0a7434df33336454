//! GPUs and processors against transformers: logits, hidden states and greedy tokens of the golden checkpoints.

use std::path::Path;

use dwindle_bundle::{Bundle, Call};
use dwindle_compiler::checkpoint::convert;
use dwindle_compiler::checkpoint::safetensors::SafeTensors;
use dwindle_compiler::compile::{CompileOptions, compile};
use dwindle_compiler::progress::Silent;
use dwindle_compiler::quantize::quantize;
use dwindle_compiler::target::TargetName;
use dwindle_quant::Method;
use dwindle_runtime::device::Options;
use dwindle_runtime::image::Picture;
use dwindle_runtime::{Executor, Lane, Model, Row, Scorer, Sequence, Workspace};
use dwindle_schemes::Scheme;

use crate::workbench::{golden, targets};

/// Against transformers in f32: kernels sum in another order, over hidden states of magnitude 10 to 100.
const LOGITS: f32 = 2e-3;

/// Between two ways of computing the same on one device.
const CHUNKS: f32 = 1e-3;

/// Against the logits of dequantized weights, as a share of the logits' range: f16 caches and other orders of sums on GPUs,
/// activations of 8 bits on processors.
pub fn quantized_tolerance(target: TargetName) -> f32 {
    if target == TargetName::Cpu { 0.03 } else { 0.02 }
}

const TEXT: [&str; 9] =
    ["gemma", "gemma2", "gemma3_text", "llama", "mistral", "phi3", "qwen2", "qwen2_untied_sharded", "qwen3"];

/// Models that see, with their pictures.
const PICTURES: [(&str, &[&str]); 2] =
    [("llava_1_5", &["landscape", "portrait"]), ("llava_onevision", &["square", "landscape", "portrait", "large"])];

/// A golden checkpoint, compiled.
fn compiled(name: &str, scheme: &str, taps: bool, target: TargetName) -> Bundle {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (model, _) = convert(&golden(name), &at("full"), &Silent).unwrap();
    quantize(&model, &Scheme::builtin(scheme).unwrap(), Method::Rtn, &at("packed"), &Silent).unwrap();
    let model = dwindle_compiler::checkpoint::ModelDir::open(&at("packed")).unwrap();
    let options = CompileOptions { taps, ..CompileOptions::new(target) };
    compile(&[model], &options, &at("out.dwindle"), &Silent).unwrap();
    Bundle::open(&at("out.dwindle")).unwrap()
}

fn executor(bundle: &Bundle) -> Executor {
    let device = dwindle_runtime::device::open(&Options::default(), &bundle.manifest().target).unwrap();
    Executor::new(&*device, &bundle.manifest().models[0].plan, bundle).unwrap()
}

/// A sequence of its model, and what calls work in.
fn sequence(bundle: &Bundle) -> (Sequence, Workspace) {
    let model = Model::new(executor(bundle), &bundle.manifest().models[0]).unwrap();
    (model.sequence().unwrap(), model.workspace().unwrap())
}

/// What transformers computed for a golden checkpoint.
pub struct Expected(SafeTensors);

impl Expected {
    /// Of the folder of a checkpoint.
    pub fn of(folder: &Path) -> Self {
        Expected(SafeTensors::open(&folder.join("expected.safetensors")).unwrap())
    }

    /// A tensor of floats.
    pub fn floats(&self, key: &str) -> Vec<f32> {
        self.0.tensor(key).unwrap_or_else(|| panic!("no expected {key}")).to_f32().unwrap()
    }

    /// A tensor of tokens.
    pub fn tokens(&self, key: &str) -> Vec<u32> {
        let bytes = self.0.tensor(key).unwrap_or_else(|| panic!("no expected {key}")).bytes;
        bytes.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().unwrap()) as u32).collect()
    }
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().all(|value| value.is_finite()));
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Prints the greatest difference, and fails if it is too large.
#[track_caller]
pub fn assert_close(what: &str, actual: &[f32], expected: &[f32], tolerance: f32) {
    let difference = largest_difference(actual, expected);
    println!("{what}: {difference:.1e}");
    assert!(difference <= tolerance, "{what} differs by {difference}, more than {tolerance}");
}

fn argmax(logits: &[f32]) -> u32 {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32
}

fn rows(tokens: &[u32]) -> Vec<Row> {
    tokens.iter().map(|&token| Row::from(token)).collect()
}

#[test]
fn hidden_states_and_logits() {
    targets().into_iter().for_each(hidden_states_and_logits_on);
}

fn hidden_states_and_logits_on(target: TargetName) {
    for name in TEXT {
        let expected = Expected::of(&golden(name));
        let bundle = compiled(name, "q0f32", true, target);
        let executor = executor(&bundle);
        let (mut states, mut workspace) = (executor.states().unwrap(), executor.workspace().unwrap());
        let tokens = expected.tokens("input_ids");
        let count = tokens.len() as u32;
        executor.write_input("score", "tokens", &tokens, &*workspace).unwrap();
        let mut lane = Lane { states: &mut *states, workspace: &mut *workspace };
        executor.run("score", Call { rows: count, ..Call::default() }, &mut lane).unwrap();
        // Layer by layer, so that the first that differs is named.
        for layer in 0.. {
            let key = format!("hidden.{layer}");
            if expected.0.tensor(&key).is_none() {
                assert!(layer > 2, "{name} has hidden states");
                break;
            }
            let hidden = executor.read_output::<f32>("score", &key, count, &mut *workspace).unwrap();
            assert_close(&format!("{name} {key} {target}"), &hidden, &expected.floats(&key), LOGITS);
        }
        let logits = executor.read_output::<f32>("score", "logits", count, &mut *workspace).unwrap();
        assert_close(&format!("{name} logits"), &logits, &expected.floats("logits"), LOGITS);
    }
}

#[test]
fn greedy_tokens() {
    targets().into_iter().for_each(greedy_tokens_on);
}

fn greedy_tokens_on(target: TargetName) {
    for name in TEXT {
        let expected = Expected::of(&golden(name));
        let (mut sequence, mut workspace) = sequence(&compiled(name, "q0f32", false, target));
        let mut next = argmax(sequence.prefill(&rows(&expected.tokens("input_ids")), &mut workspace).unwrap());
        let mut tokens = vec![next];
        while tokens.len() < 16 {
            next = argmax(sequence.decode(next, &mut workspace).unwrap());
            tokens.push(next);
        }
        assert_eq!(tokens, expected.tokens("greedy_ids"), "{name}");
    }
}

/// However a prompt is cut into calls, and token by token, the logits are the same.
#[test]
fn chunks_and_single_tokens() {
    targets().into_iter().for_each(chunks_and_single_tokens_on);
}

fn chunks_and_single_tokens_on(target: TargetName) {
    for name in TEXT {
        let tokens = Expected::of(&golden(name)).tokens("input_ids");
        let (mut sequence, mut workspace) = sequence(&compiled(name, "q0f32", false, target));
        let whole = sequence.prefill(&rows(&tokens), &mut workspace).unwrap().to_vec();
        for chunk in [1, 7, 16, 47] {
            sequence.reset();
            let logits = sequence.prefill_by(chunk, &rows(&tokens), &mut workspace).unwrap();
            assert_close(&format!("{name} in chunks of {chunk}"), logits, &whole, CHUNKS);
        }
        sequence.reset();
        let (last, first) = tokens.split_last().unwrap();
        for &token in first {
            sequence.decode(token, &mut workspace).unwrap();
        }
        assert_close(
            &format!("{name} token by token"),
            sequence.decode(*last, &mut workspace).unwrap(),
            &whole,
            CHUNKS,
        );
    }
}

#[test]
fn quantized_weights() {
    targets().into_iter().for_each(quantized_weights_on);
}

fn quantized_weights_on(target: TargetName) {
    let expected = Expected::of(&golden("quantization"));
    for name in ["qwen2", "gemma2"] {
        let tokens = Expected::of(&golden(name)).tokens("input_ids");
        for scheme in ["q4f16_1", "q4f32_1", "q3f16_1"] {
            let bundle = compiled(name, scheme, false, target);
            let mut scorer = Scorer::open(&bundle, &bundle.manifest().models[0].name, &Options::default()).unwrap();
            let logits = scorer.score(&tokens, &[]).unwrap();
            let wanted = expected.floats(&format!("{name}.{scheme}.logits"));
            let (least, most) = wanted.iter().fold((0f32, 0f32), |(low, high), &v| (low.min(v), high.max(v)));
            assert_close(
                &format!("{name} {scheme} {target}"),
                &logits,
                &wanted,
                quantized_tolerance(target) * (most - least),
            );
        }
    }
}

/// From the picture's file to logits and greedy tokens, for all aspect ratios.
#[test]
fn pictures() {
    for target in targets() {
        PICTURES.iter().for_each(|(model, names)| check_pictures(model, names, target));
    }
}

fn check_pictures(model: &str, names: &[&str], target: TargetName) {
    let folder = golden(model);
    let expected = Expected::of(&folder);
    let bundle = compiled(model, "q0f32", false, target);
    let mut scorer = Scorer::open(&bundle, &bundle.manifest().models[0].name, &Options::default()).unwrap();
    for name in names {
        let picture = Picture::decode(&std::fs::read(folder.join(format!("{name}.png"))).unwrap()).unwrap();
        let mut tokens = expected.tokens(&format!("{name}.input_ids"));
        let logits = scorer.score(&tokens, std::slice::from_ref(&picture)).unwrap();
        assert_close(&format!("{model} {name} logits"), &logits, &expected.floats(&format!("{name}.logits")), LOGITS);
        let greedy = expected.tokens(&format!("{name}.greedy_ids"));
        let vocabulary = logits.len() / tokens.len();
        tokens.extend(&greedy);
        let logits = scorer.score(&tokens, &[picture]).unwrap();
        let from = tokens.len() - greedy.len() - 1;
        let chosen: Vec<u32> = logits.chunks(vocabulary).skip(from).take(greedy.len()).map(argmax).collect();
        assert_eq!(chosen, greedy, "{name}");
    }
}

/// Image rows as the tower and the projector leave them, against transformers' features.
#[test]
fn image_features() {
    for target in targets() {
        PICTURES.iter().for_each(|(model, names)| check_features(model, names, target));
    }
}

fn check_features(model: &str, names: &[&str], target: TargetName) {
    let expected = Expected::of(&golden(model));
    let bundle = compiled(model, "q0f32", true, target);
    let (mut sequence, mut workspace) = sequence(&bundle);
    for name in names {
        let pixels = expected.floats(&format!("{name}.pixel_values"));
        let wanted = expected.floats(&format!("{name}.projected"));
        let tiles = expected.0.tensor(&format!("{name}.projected")).unwrap().shape[0];
        for tile in 0..tiles {
            let part = pixels.chunks(pixels.len() / tiles).nth(tile).unwrap();
            sequence.encode_tile(tile as u32, part, &mut workspace).unwrap();
            let rows = (wanted.len() / tiles / 64) as u32;
            let features = sequence
                .model()
                .executor()
                .read_output::<f32>("encode_image", "projected", rows, workspace.memory())
                .unwrap();
            let wanted = wanted.chunks(wanted.len() / tiles).nth(tile).unwrap();
            assert_close(&format!("{model} {name} tile {tile}"), &features, wanted, LOGITS);
        }
    }
}
