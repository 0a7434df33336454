//! Plans written by hand, on whatever GPU there is.

use dwindle_bundle::{Access, BufferKind, Extent, PortType};
use expect_test::{Expect, expect};

use super::*;
use crate::device::gpu::{Gpu, Options};
use crate::testing::{Draft, Runner, gpu, port, target};

const ONE: Extent = Extent::Fixed(1);

/// Two kernels, weights, scratch, a state, an input, an output; rows of 4 columns, at most 100.
///
/// `scaled = x * w`, then `state = 3 state + tile` and `y = scaled + position + state`, by column.
fn draft() -> Draft {
    let mut draft = Draft::default();
    let w = draft.weights("w", &[1.0, 10.0, 100.0, 1000.0]);
    let state = draft.buffer("state", 4, BufferKind::State);
    let scaled = draft.buffer("scaled", 400, BufferKind::Scratch);
    let x = draft.buffer("x", 400, BufferKind::Input);
    let y = draft.buffer("y", 400, BufferKind::Output);
    let scale = draft.kernel(
        "scale",
        &[Access::Read, Access::ReadWrite, Access::ReadWrite],
        "@group(0) @binding(1) var<storage, read> w: array<f32>;
         @group(0) @binding(2) var<storage, read_write> x: array<f32>;
         @group(0) @binding(3) var<storage, read_write> scaled: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < call.rows * 4u { scaled[id.x] = x[id.x] * w[id.x % 4u]; }
         }",
    );
    let advance = draft.kernel(
        "advance",
        &[Access::ReadWrite],
        "@group(0) @binding(1) var<storage, read_write> state: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < 4u { state[id.x] = 3.0 * state[id.x] + f32(call.tile); }
         }",
    );
    let sum = draft.kernel(
        "sum",
        &[Access::ReadWrite, Access::ReadWrite, Access::ReadWrite],
        "@group(0) @binding(1) var<storage, read_write> scaled: array<f32>;
         @group(0) @binding(2) var<storage, read_write> state: array<f32>;
         @group(0) @binding(3) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < call.rows * 4u { y[id.x] = scaled[id.x] + f32(call.position) + state[id.x % 4u]; }
         }",
    );
    let rows = [Extent::RowsPer(16), ONE, ONE];
    let steps = vec![
        draft.step(scale, &[w, x, scaled], rows),
        draft.step(advance, &[state], [ONE; 3]),
        draft.step(sum, &[scaled, state, y], rows),
    ];
    draft.plan.max_rows = 100;
    draft.plan.functions.insert(
        "prefill".to_owned(),
        Function {
            max_rows: 100,
            inputs: vec![port("x", x, PortType::F32, None, 4)],
            outputs: vec![port("y", y, PortType::F32, None, 4), port("first", y, PortType::F32, Some(1), 4)],
            steps,
        },
    );
    draft
}

fn call(rows: u32, position: u32, tile: u32) -> Call {
    Call { rows, position, tile }
}

#[test]
fn executes_steps_with_symbolic_grids() {
    let Some(gpu) = gpu() else { return };
    let Draft { plan, entries } = draft();
    let mut executor = Runner::new(&gpu, &plan, &entries).unwrap();
    // The state begins as zero and is 0 after the first call, 5 after the second.
    for (rows, position, tile, state) in [(1, 7, 0, 0.0), (17, 0, 5, 5.0), (100, 9, 0, 15.0)] {
        let x: Vec<f32> = (0..rows * 4).map(|i| i as f32).collect();
        executor.write_input("prefill", "x", &x).unwrap();
        executor.run("prefill", call(rows, position, tile)).unwrap();
        let y = executor.read_output::<f32>("prefill", "y", rows).unwrap();
        let expected: Vec<f32> = x
            .iter()
            .enumerate()
            .map(|(i, x)| x * [1.0, 10.0, 100.0, 1000.0][i % 4] + position as f32 + state)
            .collect();
        assert_eq!(y, expected, "{rows} rows");
    }
}

#[test]
fn many_calls_stay_in_order() {
    let Some(gpu) = gpu() else { return };
    let Draft { plan, entries } = draft();
    let mut executor = Runner::new(&gpu, &plan, &entries).unwrap();
    let mut state = 0.0f32;
    let mut first: Vec<f32> = Vec::new();
    for i in 0..300u32 {
        let digit = i % 3;
        // Every call has its own uniform and its own input, though nothing waits between calls.
        executor.write_input("prefill", "x", &[i as f32; 4]).unwrap();
        state = 3.0 * state + digit as f32;
        if i % 10 == 9 {
            executor.run_and_read("prefill", call(1, 0, digit), "first", &mut first).unwrap();
            assert_eq!(first, [1.0, 10.0, 100.0, 1000.0].map(|w| i as f32 * w + state), "call {i}");
            // Powers of 3 leave the range of whole numbers: begin again.
            executor = Runner::new(&gpu, &plan, &entries).unwrap();
            state = 0.0;
        } else {
            executor.run("prefill", call(1, 0, digit)).unwrap();
        }
    }
}

#[test]
fn weights_longer_than_the_staging_bound_arrive_whole() {
    let Some(gpu) = gpu() else { return };
    // 24 MiB and 20 bytes: several chunks and a short last one.
    let values: Vec<f32> = (0..(6 << 20) + 5u32).map(|i| (i % 65_521) as f32).collect();
    let count = values.len() as u64;
    let mut draft = Draft::default();
    let w = draft.weights("w", &values);
    let y = draft.buffer("y", count, BufferKind::Output);
    let copy = draft.kernel(
        "copy",
        &[Access::Read, Access::ReadWrite],
        "@group(0) @binding(1) var<storage, read> w: array<f32>;
         @group(0) @binding(2) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
             for (var i = id.x; i < arrayLength(&w); i += grid.x * 64u) { y[i] = w[i]; }
         }",
    );
    let steps = vec![draft.step(copy, &[w, y], [Extent::Fixed(1000), ONE, ONE])];
    let outputs = vec![port("y", y, PortType::F32, Some(1), count as u32)];
    draft.plan.max_rows = 1;
    draft.plan.functions.insert("main".to_owned(), Function { max_rows: 1, inputs: Vec::new(), outputs, steps });
    let mut executor = Runner::new(&gpu, &draft.plan, &draft.entries).unwrap();
    let mut read = Vec::new();
    executor.run_and_read::<f32>("main", call(1, 0, 0), "y", &mut read).unwrap();
    assert!(read == values, "first difference at {:?}", read.iter().zip(&values).position(|(a, b)| a != b));
}

#[test]
fn one_range_may_be_bound_twice() {
    let Some(gpu) = gpu() else { return };
    let mut draft = Draft::default();
    let x = draft.buffer("x", 4, BufferKind::Input);
    let y = draft.buffer("y", 4, BufferKind::Output);
    let add = draft.kernel(
        "add",
        &[Access::ReadWrite, Access::ReadWrite, Access::ReadWrite],
        "@group(0) @binding(1) var<storage, read_write> x: array<f32>;
         @group(0) @binding(2) var<storage, read_write> residual: array<f32>;
         @group(0) @binding(3) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < 4u { y[id.x] = x[id.x] + residual[id.x]; }
         }",
    );
    let steps = vec![draft.step(add, &[x, y, y], [ONE; 3]); 3];
    let inputs = vec![port("x", x, PortType::F32, None, 4)];
    let outputs = vec![port("y", y, PortType::F32, None, 4)];
    draft.plan.functions.insert("main".to_owned(), Function { max_rows: 1, inputs, outputs, steps });
    let mut executor = Runner::new(&gpu, &draft.plan, &draft.entries).unwrap();
    executor.write_input("main", "x", &[1.0f32, 2.0, 3.0, 4.0]).unwrap();
    executor.run("main", call(1, 0, 0)).unwrap();
    assert_eq!(executor.read_output::<f32>("main", "y", 1).unwrap(), [3.0, 6.0, 9.0, 12.0]);
}

#[track_caller]
fn check_error(error: Error, expected: Expect) {
    expected.assert_eq(&error.to_string());
}

#[test]
fn wrong_calls_are_refused() {
    let Some(gpu) = gpu() else { return };
    let Draft { plan, entries } = draft();
    let mut executor = Runner::new(&gpu, &plan, &entries).unwrap();
    let write = |function, port, values: &[f32]| executor.write_input(function, port, values).unwrap_err();
    check_error(write("decode", "x", &[0.0; 4]), expect!["the plan has no function `decode`; it has: prefill"]);
    check_error(write("prefill", "z", &[0.0; 4]), expect!["function `prefill` has no input `z`; it has: x"]);
    check_error(write("prefill", "x", &[0.0; 5]), expect!["port `x` of function `prefill`: 5 values are no rows of 4"]);
    check_error(write("prefill", "x", &[]), expect!["port `x` of function `prefill`: 0 values are no rows of 4"]);
    check_error(
        write("prefill", "x", &[0.0; 404]),
        expect!["port `x` of function `prefill`: 101 rows, but 1 to 100 are possible"],
    );
    check_error(
        executor.write_input("prefill", "x", &[0u32; 4]).unwrap_err(),
        expect!["port `x` of function `prefill` holds f32, not u32"],
    );
    check_error(
        executor.run("prefill", call(101, 0, 0)).unwrap_err(),
        expect!["call of function `prefill`: 101 rows, but 1 to 100 are possible"],
    );
    check_error(
        executor.run("prefill", call(2, u32::MAX, 0)).unwrap_err(),
        expect!["call of function `prefill`: 2 rows at position 4294967295 are too many"],
    );
    check_error(
        executor.read_output::<f32>("prefill", "first", 2).unwrap_err(),
        expect!["port `first` of function `prefill`: 2 rows, but it has 1"],
    );
    // None of this leaves the executor unusable.
    executor.run("prefill", call(1, 0, 0)).unwrap();
    executor.workspace.wait().unwrap();
}

#[track_caller]
fn check_plan_error(change: impl FnOnce(&mut Draft), expected: Expect) {
    let Some(gpu) = gpu() else { return };
    let mut draft = draft();
    change(&mut draft);
    let error = Runner::new(&gpu, &draft.plan, &draft.entries)
        .and_then(|mut executor| executor.run("prefill", call(1, 0, 0)))
        .unwrap_err();
    expected.assert_eq(&error.to_string());
}

fn steps(draft: &mut Draft) -> &mut Vec<dwindle_bundle::Step> {
    &mut draft.plan.functions.get_mut("prefill").unwrap().steps
}

#[test]
fn wrong_plans_are_refused() {
    check_plan_error(
        |draft| steps(draft)[1].kernel = 9,
        expect!["the plan cannot be executed: step 1 of function `prefill` has no kernel"],
    );
    check_plan_error(
        |draft| steps(draft)[0].bindings.truncate(2),
        expect!["the plan cannot be executed: step 0 of function `prefill` binds 2 ranges, not 3"],
    );
    check_plan_error(
        |draft| steps(draft)[0].grid[1] = Extent::RowsPer(0),
        expect!["the plan cannot be executed: step 0 of function `prefill` has an empty grid"],
    );
    check_plan_error(
        |draft| steps(draft)[0].grid[1] = Extent::Fixed(70_000),
        expect!["call of function `prefill`: step 0 needs [1, 70000, 1] workgroups, the device offers 65535 each way"],
    );
    check_plan_error(
        |draft| steps(draft)[2].bindings[1].bytes = 1 << 40,
        expect![
            "the plan cannot be executed: step 2 (`sum`) of function `prefill` binds 1099511627776 bytes at 0 of buffer 1"
        ],
    );
    check_plan_error(
        |draft| steps(draft)[2].bindings[1].buffer = 77,
        expect!["the plan cannot be executed: step 2 (`sum`) of function `prefill` binds 16 bytes at 0 of buffer 77"],
    );
    check_plan_error(
        |draft| drop(draft.entries.insert("w".to_owned(), vec![0; 12])),
        expect!["the plan cannot be executed: buffer `w` has 16 bytes, its entry `w` 12"],
    );
    check_plan_error(
        |draft| drop(draft.entries.remove("sum.wgsl")),
        expect!["the plan cannot be executed: there is no entry `sum.wgsl`"],
    );
    check_plan_error(
        |draft| {
            let constants = std::collections::BTreeMap::new();
            draft.plan.kernels[0].code = dwindle_bundle::Code::Native { name: "matvec".to_owned(), constants };
        },
        expect!["the plan cannot be executed: kernel `scale` is the native kernel `matvec`, which a GPU cannot run"],
    );
}

/// The texts of these come from the driver's interface, so only our part of them is compared.
#[track_caller]
fn check_refused(change: impl FnOnce(&mut Draft), expected: &str) {
    let Some(gpu) = gpu() else { return };
    let mut draft = draft();
    change(&mut draft);
    let error = Runner::new(&gpu, &draft.plan, &draft.entries)
        .and_then(|mut executor| executor.run("prefill", call(1, 0, 0)))
        .unwrap_err();
    assert!(error.to_string().starts_with(expected), "{error}");
}

#[test]
fn the_devices_refusals_name_their_cause() {
    check_refused(
        |draft| drop(draft.entries.insert("sum.wgsl".to_owned(), b"fn main() { nonsense }".to_vec())),
        "the device refused kernel `sum`: ",
    );
    check_refused(
        |draft| steps(draft)[2].bindings[1].offset = 4,
        "the plan cannot be executed: step 2 (`sum`) of function `prefill` binds 16 bytes at 4 of buffer 1",
    );
    check_refused(
        |draft| {
            draft.plan.buffers[1].bytes = 32;
            steps(draft)[2].bindings[1].offset = 4;
        },
        "the device refused step 2 (`sum`) of function `prefill`: ",
    );
    check_refused(|draft| draft.plan.buffers[2].bytes = 1 << 40, "the device refused buffer `scaled`: ");
}

#[test]
fn all_lacking_limits_are_told_at_once() {
    if gpu().is_none() {
        return;
    }
    let mut needs = target(&[
        ("max_buffer_size", u64::MAX),
        ("max_compute_workgroup_size_x", 1 << 31),
        ("max_magic", 1),
        ("max_storage_buffers_per_shader_stage", 4),
    ]);
    needs.features = vec!["moonlight".to_owned()];
    let Err(Error::Limits { adapter, lacks }) = Gpu::open(&Options::default(), &needs) else {
        panic!("no error of limits");
    };
    assert!(!adapter.is_empty());
    let names: Vec<String> =
        lacks.iter().map(|l| l.to_string().split(", adapter").next().unwrap().to_owned()).collect();
    expect![[r#"
        [
            "needs max_buffer_size 18446744073709551615",
            "needs max_compute_workgroup_size_x 2147483648",
            "needs max_magic, which this program does not know",
            "needs feature moonlight, which this program does not know",
        ]
    "#]]
    .assert_debug_eq(&names);
}

#[test]
fn adapters_are_chosen_by_name() {
    let Some(gpu) = gpu() else { return };
    let name = gpu.name()[1..5].to_uppercase();
    Gpu::open(&Options { adapter: Some(name) }, &target(&[])).unwrap();
    let error = Gpu::open(&Options { adapter: Some("abacus".to_owned()) }, &target(&[])).unwrap_err();
    let expected = "no adapter's name contains `abacus`; there are: ";
    assert!(error.to_string().starts_with(expected), "{error}");
}
