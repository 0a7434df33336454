//! Memory budgets end to end: models that take turns, bundles fitted into a budget, and what does not fit.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use dwindle_bundle::{Bundle, Residency};
use dwindle_compiler::checkpoint::ModelDir;
use dwindle_compiler::compile::{CompileOptions, compile};
use dwindle_compiler::progress::Silent;
use dwindle_compiler::target::TargetName;
use dwindle_runtime::device::Options;
use dwindle_runtime::image::Picture;
use dwindle_runtime::{Conversation, ConversationOptions, SamplingChoice, Scorer, Turn};
use expect_test::{Expect, expect};
use serde_json::Value;

use crate::workbench::{Dwindle, root, targets};

fn demo(residency: Residency, target: TargetName) -> Bundle {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| ModelDir::open(&root().join("demo/packed").join(name)).unwrap();
    let options = CompileOptions { residency, ..CompileOptions::new(target) };
    let out = folder.path().join("out.dwindle");
    compile(&["pocket-llava", "pocket-gemma"].map(open), &options, &out, &Silent).unwrap();
    Bundle::open(&out).unwrap()
}

/// A conversation with text, one picture, two pictures, text.
fn turns(bundle: &Bundle) -> Vec<Turn> {
    let sampling = SamplingChoice { temperature: Some(0.0), ..SamplingChoice::default() };
    let options = ConversationOptions { sampling, max_tokens: 40, ..ConversationOptions::default() };
    let mut conversation = Conversation::open(bundle, options).unwrap();
    let picture = |name: &str| Picture::decode(&std::fs::read(root().join("demo/images").join(name)).unwrap()).unwrap();
    let pictures = [picture("01-square-96.png"), picture("02-landscape-200x120.jpg")];
    let mut ask = |message: &str, pictures: &[Picture]| {
        conversation.ask(message, pictures, &mut |_| (), &AtomicBool::new(false)).unwrap()
    };
    vec![
        ask("Hello!", &[]),
        ask("What do you see?", &pictures[..1]),
        ask("And now?", &pictures),
        ask("What color is the square?", &[]),
    ]
}

#[test]
fn models_that_take_turns_answer_the_same() {
    for target in targets() {
        let [both, swap] = [Residency::Both, Residency::Swap].map(|residency| demo(residency, target));
        let said = |bundle: &Bundle| -> Vec<_> {
            turns(bundle).into_iter().map(|turn| (turn.answer, turn.descriptions, turn.recomputed)).collect()
        };
        let (together, alternating) = (said(&both), said(&swap));
        assert_eq!(together, alternating, "{target}");
        assert!(together.iter().all(|(answer, _, recomputed)| !answer.is_empty() && *recomputed == 0));
        let [both, swap] = [both, swap].map(|bundle| bundle.manifest().memory.clone());
        assert!(swap.peak < both.peak, "{} of {}", swap.peak, both.peak);
        // Nothing of the describing model is there while the other answers, and of that one only its caches.
        assert!(swap.moments[1].weights < both.moments[1].weights && swap.moments[0].states == both.moments[0].states);
    }
}

/// Resident bytes of this process that are no pages of files, or of a file's.
#[cfg(target_os = "linux")]
fn resident(path: &Path) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut of_file = false;
    let mut sum = 0;
    for line in maps.lines() {
        if line.split_whitespace().next().is_some_and(|first| first.contains('-')) {
            of_file = line.ends_with(path.to_str().unwrap());
        } else if let Some(rss) = line.strip_prefix("Rss:").filter(|_| of_file) {
            sum += rss.trim().strip_suffix("kB").unwrap().trim().parse::<u64>().unwrap() << 10;
        }
    }
    sum
}

/// After a turn with a picture, the describing model's weights are no longer resident.
#[test]
#[cfg(target_os = "linux")]
fn released_weights_leave_memory() {
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| ModelDir::open(&root().join("demo/packed").join(name)).unwrap();
    let mut after = Vec::new();
    for residency in [Residency::Both, Residency::Swap] {
        let out = folder.path().join(format!("{residency}.dwindle"));
        let options = CompileOptions { residency, ..CompileOptions::new(TargetName::Cpu) };
        compile(&["pocket-llava", "pocket-gemma"].map(open), &options, &out, &Silent).unwrap();
        let bundle = Bundle::open(&out).unwrap();
        let mut conversation =
            Conversation::open(&bundle, ConversationOptions { max_tokens: 5, ..ConversationOptions::default() })
                .unwrap();
        let picture = Picture::decode(&std::fs::read(root().join("demo/images/01-square-96.png")).unwrap()).unwrap();
        conversation.ask("What?", &[picture], &mut |_| (), &AtomicBool::new(false)).unwrap();
        after.push((resident(&out), bundle.manifest().models[0].memory.weights));
    }
    let [(both, seeing), (swap, _)] = after[..] else { panic!() };
    assert!(swap + seeing * 9 / 10 <= both, "{both} bytes with both, {swap} with one, which has {seeing} less");
}

/// Model directories of the demo in the three schemes that are tried, made by the command.
fn variants(dwindle: &Dwindle) -> Vec<String> {
    let mut paths = Vec::new();
    for model in ["pocket-llava", "pocket-gemma"] {
        let full = dwindle.path(&format!("full-{model}")).display().to_string();
        dwindle.run(&["convert", root().join("demo").join(model).to_str().unwrap(), "-o", &full]);
        for scheme in ["q8f16_1", "q4f16_1", "q3f16_1"] {
            let out = dwindle.path(&format!("{model}-{scheme}")).display().to_string();
            dwindle.run(&["quantize", &full, "--scheme", scheme, "-o", &out]);
            paths.push(out);
        }
    }
    paths
}

fn arguments<'a>(paths: &'a [String], rest: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["compile"];
    arguments.extend(paths.iter().map(String::as_str));
    arguments.extend(rest);
    arguments.extend(["--target", "cpu", "-o", "out.dwindle"]);
    arguments
}

#[test]
fn fitted_bundles_keep_their_budget_and_run() {
    let dwindle = Dwindle::new();
    let paths = variants(&dwindle);
    let check = |budget: &str, context: &str, expected: Expect| {
        let rest = ["--fit", budget, "--context", context, "--json"];
        let json: Value = serde_json::from_str(&dwindle.run(&arguments(&paths, &rest))).unwrap();
        let changes = json["fit"]["steps"].as_array().unwrap().iter();
        let changes: Vec<&str> = changes.map(|step| step["what"].as_str().unwrap()).collect();
        expected.assert_eq(&changes.join("\n"));
        let bundle = Bundle::open(&dwindle.path("out.dwindle")).unwrap();
        let peak = bundle.manifest().memory.peak;
        assert!(peak <= json["fit"]["budget"].as_u64().unwrap());
        assert_eq!(json["fit"]["peak"].as_u64(), Some(peak));
    };
    check("200MiB", "1024", expect!["to begin with"]);
    check(
        "63MiB",
        "1024",
        expect![[r#"
        to begin with
        residency both -> swap"#]],
    );
    check(
        "59MiB",
        "256",
        expect![[r#"
        to begin with
        residency both -> swap
        pocket-gemma-q8f16_1: context 1024 -> 512
        pocket-gemma-q8f16_1: context 512 -> 256
        pocket-gemma-q8f16_1: linear layers q8f16_1 -> q4f16_1
        pocket-gemma-q8f16_1: context 256 -> 384"#]],
    );
    check(
        "58.3MiB",
        "256",
        expect![[r#"
            to begin with
            residency both -> swap
            pocket-gemma-q8f16_1: context 1024 -> 512
            pocket-gemma-q8f16_1: context 512 -> 256
            pocket-gemma-q8f16_1: linear layers q8f16_1 -> q4f16_1
            pocket-gemma-q8f16_1: embedding q8f16_1 -> q4f16_1
            pocket-gemma-q8f16_1: linear layers q4f16_1 -> q3f16_1
            pocket-gemma-q8f16_1: embedding q4f16_1 -> q8f16_1"#]],
    );
    let picture = root().join("demo/images/01-square-96.png");
    let answer = dwindle.run(&["run", "out.dwindle", "--image", picture.to_str().unwrap(), "-p", "What do you see?"]);
    assert!(answer.trim().len() > 3, "{answer}");
    // The same budget gives the same bytes.
    let first = std::fs::read(dwindle.path("out.dwindle")).unwrap();
    dwindle.run(&arguments(&paths, &["--fit", "58.3MiB", "--context", "256"]));
    assert!(first == std::fs::read(dwindle.path("out.dwindle")).unwrap());
}

#[test]
fn unquantized_models_are_fitted_by_quantizing_them() {
    let dwindle = Dwindle::new();
    let full = root().join("demo/pocket-gemma");
    let rest = ["--fit", "24.5MiB", "--context", "512", "--target", "cpu", "-o", "out.dwindle", "--json"];
    let arguments = [&["compile", full.to_str().unwrap()], &rest[..]].concat();
    let dry: Value = serde_json::from_str(&dwindle.run(&[&arguments[..], &["--dry-run"]].concat())).unwrap();
    assert!(!dwindle.path("out.dwindle").exists() && dry["written"] == false);
    let json: Value = serde_json::from_str(&dwindle.run(&arguments)).unwrap();
    assert_eq!(json["fit"], dry["fit"]);
    let changes = json["fit"]["steps"].as_array().unwrap().iter();
    expect![[r#"
        to begin with
        pocket-gemma: context 1024 -> 512
        pocket-gemma: embedding q8f16_1 -> q6f16_1
        pocket-gemma: linear layers q8f16_1 -> q6f16_1
        pocket-gemma: linear layers q6f16_1 -> q5f16_min
        pocket-gemma: linear layers q5f16_min -> q5f16_1
        pocket-gemma: embedding q6f16_1 -> q5f16_min
        pocket-gemma: embedding q5f16_min -> q5f16_1
        pocket-gemma: embedding q5f16_1 -> q4f16_min
        pocket-gemma: embedding q4f16_min -> q4f16_1
        pocket-gemma: linear layers q5f16_1 -> q4f16_min
        pocket-gemma: embedding q4f16_1 -> q4f16_min
        pocket-gemma: embedding q4f16_min -> q5f16_1
        pocket-gemma: embedding q5f16_1 -> q5f16_min
        pocket-gemma: embedding q5f16_min -> q6f16_1"#]]
    .assert_eq(&changes.map(|step| step["what"].as_str().unwrap()).collect::<Vec<_>>().join("\n"));
    let bundle = Bundle::open(&dwindle.path("out.dwindle")).unwrap();
    bundle.verify().unwrap();
    expect!["q4f16_min (linear layers) + q6f16_1 (embedding)"].assert_eq(&bundle.manifest().models[0].about["scheme"]);
    assert!(bundle.manifest().memory.peak <= json["fit"]["budget"].as_u64().unwrap());
    let estimate = json["work"]["bytes_out"].as_u64().unwrap() as f64 / bundle.file_bytes() as f64;
    assert!((0.95..1.1).contains(&estimate), "{estimate} of the real size");
    dwindle.run(&["run", "out.dwindle", "-p", "Hello!"]);
}

#[test]
fn what_does_not_fit_is_told() {
    let dwindle = Dwindle::new();
    let packed =
        ["pocket-llava", "pocket-gemma"].map(|name| root().join("demo/packed").join(name).display().to_string());
    expect![[r#"
        exit code 4
        error: nothing fits into 40.0 MiB: it takes at least 60.6 MiB
        budget 40.0 MiB
        change                  worst moment       saved  why
        to begin with               64.9 MiB              pocket-llava q4f16_1, context 1024; pocket-gemma q4f16_1, context 1024
        residency both -> swap      60.6 MiB     4.3 MiB  costs time at each picture, no quality
        allow at least that much, a smaller `--context`, or name variants of fewer bits
    "#]].assert_eq(&dwindle.fail(&arguments(&packed, &["--fit", "40MiB"])));
    expect![[r#"
        exit code 2
        error: invalid value 'many' for '--fit <SIZE>': `many` is no size: expected a number with KiB, MiB, GiB, kB, MB, GB or nothing behind it, like 1.5GiB

        For more information, try '--help'.
    "#]].assert_eq(&dwindle.fail(&arguments(&packed, &["--fit", "many"])));
    assert!(!dwindle.path("out.dwindle").exists());
    let left: Vec<_> = std::fs::read_dir(dwindle.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, Vec::<std::ffi::OsString>::new(), "nothing is left");
}

/// `run` compares the plan with what the process may take before it allocates: here, its address space.
#[test]
#[cfg(target_os = "linux")]
fn too_little_memory_is_told_before_it_is_taken() {
    let dwindle = Dwindle::new();
    let packed =
        ["pocket-llava", "pocket-gemma"].map(|name| root().join("demo/packed").join(name).display().to_string());
    dwindle.run(&arguments(&packed, &[]));
    for command in [
        "run out.dwindle -p Hi",
        "bench out.dwindle --model pocket-llava",
        "logits out.dwindle --model pocket-llava --tokens 2,3 -o l",
    ] {
        let script = format!("ulimit -v 60000; exec {} {command} --threads 1", env!("CARGO_BIN_EXE_dwindle"));
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .env_remove("RUST_MIN_STACK")
            .current_dir(dwindle.path(""))
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(4), "{command}: {error}");
        assert!(error.contains("of memory besides this process") && error.contains("ulimit -v"), "{command}: {error}");
    }
}

/// Where a binding spans 32 KiB, the embedding, which is also the head, is cut into parts with a step each; the logits are
/// those of the whole. (Gemma's 256 000 rows exceed the 128 MiB that devices guarantee in the same way; see
/// `benches/RESULTS.md`.)
#[test]
fn matrices_split_over_bindings_compute_the_same() {
    let folder = tempfile::tempdir().unwrap();
    for target in targets().into_iter().filter(|target| *target != TargetName::Cpu) {
        let logits = [128 << 20, 32 << 10].map(|limit| {
            let mut options = CompileOptions { max_rows: 4, ..CompileOptions::new(target) };
            options.target.max_storage_buffer_binding_size = limit;
            options.context = Some(64);
            let model = ModelDir::open(&root().join("demo/packed/pocket-gemma")).unwrap();
            let out = folder.path().join(format!("{limit}.dwindle"));
            compile(&[model], &options, &out, &Silent).unwrap();
            let bundle = Bundle::open(&out).unwrap();
            let needed = bundle.manifest().target.needs["max_storage_buffer_binding_size"];
            assert!(needed <= limit, "{needed} of {limit}");
            let steps = bundle.manifest().models[0].plan.functions["decode"].steps.len();
            let mut scorer = Scorer::open(&bundle, "pocket-gemma", &Options::default()).unwrap();
            (steps, scorer.score(&[2, 5, 700, 2047, 1024], &[]).unwrap())
        });
        let [(whole, expected), (split, found)] = &logits;
        assert!(split > whole, "{split} steps split, {whole} whole");
        let apart = expected.iter().zip(found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(expected.len() == 5 * 2048 && apart < 1e-4, "{apart} apart");
    }
}
