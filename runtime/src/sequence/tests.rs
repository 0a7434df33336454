//! A model written by hand whose logits depend on the order of all tokens so far.

use std::collections::BTreeMap;

use dwindle_bundle::{
    Access, BufferKind, Extent, Function, Memory, Model, PortType, Resample, SamplingDefaults, Tile, Tiling,
};
use expect_test::{Expect, expect};

use super::*;
use crate::device::gpu::Gpu;
use crate::executor::Executor;
use crate::testing::{Draft, gpu, port};

const CONTEXT: u32 = 12;
const VOCAB: u32 = 8;
const IMAGE_ROWS: u32 = 5;

/// The value of a row is its token or the blend of image rows (one column each); `cache[p]` holds that of position p;
/// `logits[v] = v + Σ (p + 1) cache[p]` over all positions up to the row's own. A tile's two image rows are its pixels
/// 0 and 1 plus 0.5.
fn draft() -> Draft {
    let mut draft = Draft::default();
    let cache = draft.buffer("kv.cache", u64::from(CONTEXT), BufferKind::State);
    let image = draft.buffer("image_rows", u64::from(IMAGE_ROWS), BufferKind::State);
    let tokens = draft.buffer("tokens", 5, BufferKind::Input);
    let index = draft.buffer("image_index", 20, BufferKind::Input);
    let weight = draft.buffer("image_weight", 20, BufferKind::Input);
    let pixels = draft.buffer("pixels", 6, BufferKind::Input);
    let logits = draft.buffer("logits", 40, BufferKind::Output);
    let store = draft.kernel(
        "store",
        &[Access::ReadWrite; 5],
        "@group(0) @binding(1) var<storage, read_write> tokens: array<u32>;
         @group(0) @binding(2) var<storage, read_write> index: array<vec4<i32>>;
         @group(0) @binding(3) var<storage, read_write> weight: array<vec4<f32>>;
         @group(0) @binding(4) var<storage, read_write> image: array<f32>;
         @group(0) @binding(5) var<storage, read_write> cache: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x >= call.rows { return; }
             var value = f32(tokens[id.x]);
             if index[id.x].x >= 0 {
                 value = 0.0;
                 for (var i = 0; i < 4; i++) { value += weight[id.x][i] * image[index[id.x][i]]; }
             }
             cache[call.position + id.x] = value;
         }",
    );
    let store_token = draft.kernel(
        "store_token",
        &[Access::ReadWrite; 2],
        "@group(0) @binding(1) var<storage, read_write> tokens: array<u32>;
         @group(0) @binding(2) var<storage, read_write> cache: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x == 0u { cache[call.position] = f32(tokens[0]); }
         }",
    );
    let head = |rows: &str, first: &str| {
        format!(
            "@group(0) @binding(1) var<storage, read_write> cache: array<f32>;
             @group(0) @binding(2) var<storage, read_write> logits: array<f32>;
             @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                 if id.x >= {rows} * 8u {{ return; }}
                 var sum = f32(id.x % 8u);
                 for (var p = 0u; p <= call.position + {first} + id.x / 8u; p++) {{ sum += f32(p + 1u) * cache[p]; }}
                 logits[id.x] = sum;
             }}"
        )
    };
    let last = draft.kernel("last", &[Access::ReadWrite; 2], &head("1u", "call.rows - 1u"));
    let all = draft.kernel("all", &[Access::ReadWrite; 2], &head("call.rows", "0u"));
    let encode = draft.kernel(
        "encode",
        &[Access::ReadWrite; 2],
        "@group(0) @binding(1) var<storage, read_write> pixels: array<f32>;
         @group(0) @binding(2) var<storage, read_write> image: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < 2u { image[call.tile * 2u + id.x] = pixels[id.x] + 0.5; }
         }",
    );
    let grid = [Extent::Fixed(1); 3];
    let text = vec![port("tokens", tokens, PortType::U32, None, 1)];
    let mut rows = text.clone();
    rows.push(port("image_index", index, PortType::I32, None, 4));
    rows.push(port("image_weight", weight, PortType::F32, None, 4));
    let store = draft.step(store, &[tokens, index, weight, image, cache], grid);
    let outputs = vec![port("logits", logits, PortType::F32, Some(1), VOCAB)];
    let mut add = |name: &str, max_rows, inputs, outputs, steps| {
        draft.plan.functions.insert(name.to_owned(), Function { max_rows, inputs, outputs, steps });
    };
    let step = |kernel, buffers: &[(u32, u64)]| dwindle_bundle::Step {
        kernel,
        bindings: buffers
            .iter()
            .map(|&(buffer, values)| dwindle_bundle::Binding { buffer, offset: 0, bytes: 4 * values })
            .collect(),
        grid,
    };
    let head = |kernel| step(kernel, &[(cache, u64::from(CONTEXT)), (logits, 40)]);
    add("prefill", 5, rows.clone(), outputs.clone(), vec![store.clone(), head(last)]);
    let decode = step(store_token, &[(tokens, 5), (cache, u64::from(CONTEXT))]);
    add("decode", 1, text, outputs, vec![decode, head(last)]);
    let outputs = vec![port("logits", logits, PortType::F32, None, VOCAB)];
    add("score", 3, rows, outputs, vec![store, head(all)]);
    let encode = step(encode, &[(pixels, 6), (image, u64::from(IMAGE_ROWS))]);
    add("encode_image", 1, vec![port("pixels", pixels, PortType::F32, Some(3), 2)], Vec::new(), vec![encode]);
    draft.plan.max_rows = 5;
    draft
}

fn model(draft: &Draft) -> Model {
    Model {
        name: "counter".to_owned(),
        about: BTreeMap::new(),
        context: CONTEXT,
        vocab_size: VOCAB,
        hidden_size: 1,
        memory: Memory::default(),
        text: None,
        image: Some(ImageInput {
            token: VOCAB,
            placeholder: "<image>".to_owned(),
            tile: Tile {
                width: 2,
                height: 1,
                rows: 1,
                columns: 2,
                rescale: 1.0,
                mean: [0.0; 3],
                std: [1.0; 3],
                resample: Resample::Bicubic,
            },
            tiling: Tiling::Stretch,
            max_image_rows: IMAGE_ROWS,
            newline: Some(4),
        }),
        sampling: SamplingDefaults::default(),
        plan: draft.plan.clone(),
    }
}

/// A sequence, and what its calls work in.
struct Bench {
    sequence: Sequence,
    workspace: Workspace,
}

impl Bench {
    fn of(model: &Arc<crate::Model>) -> Bench {
        Bench { sequence: model.sequence().unwrap(), workspace: model.workspace().unwrap() }
    }

    fn reset(&mut self) {
        self.sequence.reset();
    }

    fn position(&self) -> u32 {
        self.sequence.position()
    }

    fn truncate(&mut self, position: u32) -> Result<(), Error> {
        self.sequence.truncate(position)
    }

    fn prefill(&mut self, rows: &[Row]) -> Result<&[f32], Error> {
        self.sequence.prefill(rows, &mut self.workspace)
    }

    fn prefill_by(&mut self, most: u32, rows: &[Row]) -> Result<&[f32], Error> {
        self.sequence.prefill_by(most, rows, &mut self.workspace)
    }

    fn decode(&mut self, token: u32) -> Result<&[f32], Error> {
        self.sequence.decode(token, &mut self.workspace)
    }

    fn encode_tile(&mut self, tile: u32, pixels: &[f32]) -> Result<(), Error> {
        self.sequence.encode_tile(tile, pixels, &mut self.workspace)
    }
}

fn loaded(gpu: &Gpu) -> Arc<crate::Model> {
    let draft = draft();
    crate::Model::new(Executor::new(gpu, &draft.plan, &draft.entries).unwrap(), &model(&draft)).unwrap()
}

fn bench(gpu: &Gpu) -> Bench {
    Bench::of(&loaded(gpu))
}

/// What the model computes, on the processor.
fn expected(values: &[f32]) -> Vec<f32> {
    let sum: f32 = values.iter().zip(1..).map(|(value, p)| value * p as f32).sum();
    (0..VOCAB).map(|v| v as f32 + sum).collect()
}

const TOKENS: [u32; 11] = [3, 1, 4, 1, 5, 2, 6, 5, 3, 5, 7];

fn rows(tokens: &[u32]) -> Vec<Row> {
    tokens.iter().map(|&token| Row::from(token)).collect()
}

fn values(tokens: &[u32]) -> Vec<f32> {
    tokens.iter().map(|&token| token as f32).collect()
}

#[test]
fn chunks_of_any_size_give_the_same_logits() {
    let Some(gpu) = gpu() else { return };
    let mut bench = bench(&gpu);
    for most in [1, 2, 3, 4, 5, u32::MAX, 0] {
        bench.reset();
        assert_eq!(bench.prefill_by(most, &rows(&TOKENS)).unwrap(), expected(&values(&TOKENS)), "chunks of {most}");
        assert_eq!(bench.position(), TOKENS.len() as u32);
    }
}

#[test]
fn decoding_continues_where_prefill_ended() {
    let Some(gpu) = gpu() else { return };
    let mut bench = bench(&gpu);
    for split in [1, 5, 10] {
        bench.reset();
        bench.prefill(&rows(&TOKENS[..split])).unwrap();
        for end in split..TOKENS.len() {
            assert_eq!(bench.decode(TOKENS[end]).unwrap(), expected(&values(&TOKENS[..=end])));
        }
    }
    // Going back keeps what was before.
    bench.truncate(4).unwrap();
    assert_eq!(bench.decode(7).unwrap(), expected(&values(&[3, 1, 4, 1, 7])));
}

#[test]
fn scores_are_those_of_every_row() {
    let Some(gpu) = gpu() else { return };
    let mut bench = bench(&gpu);
    let mut all = Vec::new();
    let Bench { sequence, workspace } = &mut bench;
    sequence
        .score(&rows(&TOKENS), workspace, |logits| {
            all.extend_from_slice(logits);
            Ok::<(), Error>(())
        })
        .unwrap();
    let each: Vec<f32> = (1..=TOKENS.len()).flat_map(|end| expected(&values(&TOKENS[..end]))).collect();
    assert_eq!(all, each);
}

#[test]
fn image_rows_take_the_place_of_tokens() {
    let Some(gpu) = gpu() else { return };
    let mut bench = bench(&gpu);
    bench.encode_tile(0, &[1.0, 2.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    bench.encode_tile(1, &[3.0, 4.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
    let blend = Blend { index: [0, 3, 1, 1], weight: [0.5, 2.0, 1.0, 0.0] };
    let prompt = [Row::from(2), Row { token: VOCAB, blend: Blend::row(2) }, Row { token: VOCAB, blend }, Row::from(1)];
    let values = [2.0, 3.5, 0.5 * 1.5 + 2.0 * 4.5 + 2.5, 1.0];
    for most in [1, 3, 4] {
        bench.reset();
        assert_eq!(bench.prefill_by(most, &prompt).unwrap(), expected(&values));
    }
}

/// Whatever other sequences do in the same workspace, a sequence gives what it gives alone.
#[test]
fn sequences_take_turns_without_touching_each_other() {
    let Some(gpu) = gpu() else { return };
    let model = loaded(&gpu);
    let mut workspace = model.workspace().unwrap();
    let mut sequences = [model.sequence().unwrap(), model.sequence().unwrap(), model.sequence().unwrap()];
    let said = [[3, 1, 4, 1], [5, 2, 6, 5], [7, 7, 0, 2]];
    for (sequence, tokens) in sequences.iter_mut().zip(said) {
        assert_eq!(sequence.prefill(&rows(&tokens[..2]), &mut workspace).unwrap(), expected(&values(&tokens[..2])));
    }
    for end in 3..=4 {
        for (sequence, tokens) in sequences.iter_mut().zip(said) {
            let logits = sequence.decode(tokens[end - 1], &mut workspace).unwrap();
            assert_eq!(logits, expected(&values(&tokens[..end])));
        }
    }
    // A sequence that is gone leaves the others as they are, and its place to a new one.
    let [first, second, _] = sequences;
    drop(first);
    let mut new = model.sequence().unwrap();
    assert_eq!(new.decode(6, &mut workspace).unwrap(), expected(&[6.0]));
    let mut second = second;
    assert_eq!(second.decode(1, &mut workspace).unwrap(), expected(&[5.0, 2.0, 6.0, 5.0, 1.0]));
}

#[test]
fn forks_begin_alike_and_diverge() {
    let Some(gpu) = gpu() else { return };
    let model = loaded(&gpu);
    let mut workspace = model.workspace().unwrap();
    let (mut first, mut second) = (model.sequence().unwrap(), model.sequence().unwrap());
    first.prefill(&rows(&TOKENS[..6]), &mut workspace).unwrap();
    second.prefill(&rows(&[7; 12]), &mut workspace).unwrap();
    second.fork(&first, 4).unwrap();
    assert_eq!(second.position(), 4);
    assert_eq!(second.decode(7, &mut workspace).unwrap(), expected(&[3.0, 1.0, 4.0, 1.0, 7.0]));
    assert_eq!(first.decode(6, &mut workspace).unwrap(), expected(&[3.0, 1.0, 4.0, 1.0, 5.0, 2.0, 6.0]));
    check_error(second.fork(&first, 8), expect!["cannot go back to 8 positions: only 7 are taken"]);
    let other = loaded(&gpu).sequence().unwrap();
    check_error(
        second.fork(&other, 0),
        expect!["the plan cannot be executed: a sequence of another model cannot be copied"],
    );
}

/// What a sequence reads out of its states, another one takes in and goes on.
#[test]
fn states_move_from_sequence_to_sequence() {
    let Some(gpu) = gpu() else { return };
    let model = loaded(&gpu);
    let mut workspace = model.workspace().unwrap();
    let (mut first, mut second) = (model.sequence().unwrap(), model.sequence().unwrap());
    first.prefill(&rows(&TOKENS[..6]), &mut workspace).unwrap();
    let mut bytes = Vec::new();
    first.read_states(&mut |part| bytes.extend_from_slice(part)).unwrap();
    assert_eq!(bytes.len() as u64, first.state_bytes(6));
    assert_eq!(bytes, bytemuck::cast_slice::<f32, u8>(&values(&TOKENS[..6])));
    let mut from = bytes.as_slice();
    second
        .write_states(6, |part| {
            let (head, tail) = from.split_at(part.len());
            part.copy_from_slice(head);
            from = tail;
            Ok::<_, Error>(())
        })
        .unwrap();
    assert_eq!(second.decode(6, &mut workspace).unwrap(), expected(&values(&TOKENS[..7])));
}

#[test]
fn prefill_ends_between_chunks() {
    let Some(gpu) = gpu() else { return };
    let mut bench = bench(&gpu);
    let mut asked = Vec::new();
    let Bench { sequence, workspace } = &mut bench;
    let result = sequence.prefill_while(&rows(&TOKENS), workspace, &mut |position| {
        asked.push(position);
        position < 10
    });
    assert!(result.unwrap().is_none());
    // Chunks of five rows.
    assert_eq!((asked, bench.position()), (vec![5, 10], 10));
    assert_eq!(bench.decode(7).unwrap(), expected(&values(&TOKENS)));
}

#[track_caller]
fn check_error<T>(result: Result<T, Error>, expected: Expect) {
    expected.assert_eq(&result.map(drop).unwrap_err().to_string());
}

#[test]
fn errors_say_the_numbers() {
    let Some(gpu) = gpu() else { return };
    let mut bench = bench(&gpu);
    check_error(bench.prefill(&[]), expect!["no token was given: a prompt needs at least one"]);
    bench.prefill(&rows(&TOKENS)).unwrap();
    check_error(
        bench.prefill(&rows(&[1, 2])),
        expect![
            "the context is full: 11 of 12 positions are taken, 2 more are needed; shorten the prompt or compile with a longer `--context`"
        ],
    );
    check_error(bench.decode(8), expect!["token 8 is out of range: the vocabulary has 8 tokens"]);
    check_error(bench.truncate(12), expect!["cannot go back to 12 positions: only 11 are taken"]);
    check_error(
        bench.prefill(&[Row { token: 0, blend: Blend::row(5) }]),
        expect!["image rows: row 5 is asked for, there are 5"],
    );
    check_error(
        bench.prefill(&[Row { token: 0, blend: Blend { index: [0, -1, 0, 0], weight: [0.0; 4] } }]),
        expect!["image rows: row -1 is asked for, there are 5"],
    );
    // Row 4 is the newline's.
    check_error(bench.encode_tile(2, &[0.0; 6]), expect!["image rows: tile 2 of 2 rows does not fit into 4 rows"]);
    check_error(
        bench.encode_tile(0, &[0.0; 5]),
        expect!["port `pixels` of function `encode_image`: 5 values are no rows of 2"],
    );
    assert_eq!(bench.position(), 11);
    bench.decode(1).unwrap();
    check_error(
        bench.decode(1),
        expect![
            "the context is full: 12 of 12 positions are taken, 1 more are needed; shorten the prompt or compile with a longer `--context`"
        ],
    );
}

#[test]
fn a_model_without_eyes_refuses_pictures() {
    let Some(gpu) = gpu() else { return };
    let draft = draft();
    let executor = Executor::new(&gpu, &draft.plan, &draft.entries).unwrap();
    let mut blind = Bench::of(&crate::Model::new(executor, &Model { image: None, ..model(&draft) }).unwrap());
    check_error(blind.encode_tile(0, &[0.0; 6]), expect!["image rows: this model takes no pictures"]);
    check_error(
        blind.prefill(&[Row { token: 0, blend: Blend::row(0) }]),
        expect!["image rows: this model takes no pictures"],
    );
}

#[test]
fn logits_have_the_columns_of_the_vocabulary() {
    let Some(gpu) = gpu() else { return };
    let draft = draft();
    let executor = Executor::new(&gpu, &draft.plan, &draft.entries).unwrap();
    check_error(
        crate::Model::new(executor, &Model { vocab_size: 9, ..model(&draft) }),
        expect!["the plan cannot be executed: `decode` gives 8 logits, the vocabulary has 9"],
    );
}
