//! What is chosen for the demo models under budgets from ample to hopeless.

use std::path::Path;

use dwindle_quant::Method;
use dwindle_schemes::Scheme;
use expect_test::{Expect, expect};

use super::*;
use crate::checkpoint::{ModelDir, convert};
use crate::progress::Silent;
use crate::size::Size;
use crate::target::TargetName;

struct Models {
    _folder: tempfile::TempDir,
    candidates: Vec<Candidate>,
}

fn converted(folder: &tempfile::TempDir, model: &str) -> ModelDir {
    let checkpoint = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo").join(model);
    convert(&checkpoint, &folder.path().join(model), &Silent).unwrap().0
}

/// Demo models, as they would be in these schemes; no weight is read.
fn models(names: &[&str], schemes: &[&str]) -> Models {
    let folder = tempfile::tempdir().unwrap();
    let mut candidates = Vec::new();
    for name in names {
        let full = converted(&folder, name);
        let planned = |scheme: &&str| {
            let scheme = Scheme::builtin(scheme).unwrap();
            Blueprint::quantized(name, full.model.clone(), full.path(), &scheme, Method::Rtn)
        };
        candidates.push(Candidate::new(schemes.iter().map(planned).collect()).unwrap());
    }
    Models { _folder: folder, candidates }
}

fn options(context: Option<u32>) -> CompileOptions {
    CompileOptions { context, ..CompileOptions::new(TargetName::Cpu) }
}

#[track_caller]
fn check(models: &Models, budget: &str, options: &CompileOptions, residency: Option<Residency>, expected: Expect) {
    let budget = budget.parse::<Size>().unwrap().0;
    let told = match fit(&models.candidates, Wishes { budget, residency }, options) {
        Ok(fitted) => {
            assert!(fitted.report.peak <= budget);
            let draft = crate::compile::Draft::new(fitted.blueprints, &fitted.options).unwrap();
            assert_eq!(draft.memory().peak, fitted.report.peak, "the table tells of the bundle that comes of it");
            let contexts: Vec<String> = draft.models().map(|(m, _)| format!("{} {}", m.name(), m.context)).collect();
            format!("{}\ncontexts: {}", fitted.report, contexts.join(", "))
        }
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&told);
}

const BOTH: [&str; 2] = ["pocket-llava", "pocket-gemma"];

#[test]
fn an_ample_budget_changes_nothing() {
    check(
        &models(&BOTH, &SCHEMES),
        "1GiB",
        &options(None),
        None,
        expect![[r#"
            budget 1.0 GiB
            change         worst moment       saved  why
            to begin with      67.3 MiB              pocket-llava q8f16_1, context 1024; pocket-gemma q8f16_1, context 1024
            contexts: pocket-llava 1024, pocket-gemma 1024"#]],
    );
}

#[test]
fn quality_is_given_up_last() {
    let models = models(&BOTH, &SCHEMES);
    check(
        &models,
        "66MiB",
        &options(None),
        None,
        expect![[r#"
            budget 66.0 MiB
            change                  worst moment       saved  why
            to begin with               67.3 MiB              pocket-llava q8f16_1, context 1024; pocket-gemma q8f16_1, context 1024
            residency both -> swap      62.5 MiB     4.8 MiB  costs time at each picture, no quality
            contexts: pocket-llava 1024, pocket-gemma 1024"#]],
    );
    check(
        &models,
        "62MiB",
        &options(Some(256)),
        None,
        expect![[r#"
            budget 62.0 MiB
            change                             worst moment       saved  why
            to begin with                          67.3 MiB              pocket-llava q8f16_1, context 1024; pocket-gemma q8f16_1, context 1024
            residency both -> swap                 62.5 MiB     4.8 MiB  costs time at each picture, no quality
            pocket-gemma: context 1024 -> 512      61.0 MiB     1.5 MiB  floor 256
            pocket-gemma: context 512 -> 768       61.7 MiB  -768.0 KiB  given back: there was room
            contexts: pocket-llava 1024, pocket-gemma 768"#]],
    );
    check(
        &models,
        "58.5MiB",
        &options(Some(256)),
        None,
        expect![[r#"
            budget 58.5 MiB
            change                                            worst moment       saved  why
            to begin with                                         67.3 MiB              pocket-llava q8f16_1, context 1024; pocket-gemma q8f16_1, context 1024
            residency both -> swap                                62.5 MiB     4.8 MiB  costs time at each picture, no quality
            pocket-gemma: context 1024 -> 512                     61.0 MiB     1.5 MiB  floor 256
            pocket-gemma: context 512 -> 256                      60.2 MiB   768.0 KiB  floor 256
            pocket-gemma: embedding q8f16_1 -> q6f16_1            60.1 MiB    96.0 KiB  signal to noise 44.5 -> 32.2 dB
            pocket-gemma: linear layers q8f16_1 -> q6f16_1        59.3 MiB   864.0 KiB  signal to noise 44.5 -> 32.2 dB
            pocket-gemma: linear layers q6f16_1 -> q5f16_min      59.1 MiB   216.0 KiB  signal to noise 32.2 -> 27.2 dB
            pocket-gemma: linear layers q5f16_min -> q5f16_1      58.9 MiB   216.0 KiB  signal to noise 27.2 -> 25.9 dB
            pocket-gemma: embedding q6f16_1 -> q5f16_min          58.9 MiB    24.0 KiB  signal to noise 32.2 -> 27.2 dB
            pocket-gemma: embedding q5f16_min -> q5f16_1          58.8 MiB    24.0 KiB  signal to noise 27.2 -> 25.9 dB
            pocket-gemma: embedding q5f16_1 -> q4f16_min          58.8 MiB    24.0 KiB  signal to noise 25.9 -> 20.9 dB
            pocket-gemma: embedding q4f16_min -> q4f16_1          58.8 MiB    24.0 KiB  signal to noise 20.9 -> 19.3 dB
            pocket-gemma: linear layers q5f16_1 -> q4f16_min      58.6 MiB   216.0 KiB  signal to noise 25.9 -> 20.9 dB
            pocket-gemma: linear layers q4f16_min -> q4f16_1      58.4 MiB   216.0 KiB  signal to noise 20.9 -> 19.3 dB
            pocket-gemma: embedding q4f16_1 -> q4f16_min          58.4 MiB   -24.0 KiB  given back: signal to noise 19.3 -> 20.9 dB
            pocket-gemma: embedding q4f16_min -> q5f16_1          58.4 MiB   -24.0 KiB  given back: signal to noise 20.9 -> 25.9 dB
            pocket-gemma: embedding q5f16_1 -> q5f16_min          58.4 MiB   -24.0 KiB  given back: signal to noise 25.9 -> 27.2 dB
            pocket-gemma: embedding q5f16_min -> q6f16_1          58.5 MiB   -24.0 KiB  given back: signal to noise 27.2 -> 32.2 dB
            contexts: pocket-llava 1024, pocket-gemma 256"#]],
    );
    check(
        &models,
        "57.5MiB",
        &options(Some(256)),
        None,
        expect![[r#"
            nothing fits into 57.5 MiB: it takes at least 58.0 MiB
            budget 57.5 MiB
            change                                            worst moment       saved  why
            to begin with                                         67.3 MiB              pocket-llava q8f16_1, context 1024; pocket-gemma q8f16_1, context 1024
            residency both -> swap                                62.5 MiB     4.8 MiB  costs time at each picture, no quality
            pocket-gemma: context 1024 -> 512                     61.0 MiB     1.5 MiB  floor 256
            pocket-gemma: context 512 -> 256                      60.2 MiB   768.0 KiB  floor 256
            pocket-gemma: embedding q8f16_1 -> q6f16_1            60.1 MiB    96.0 KiB  signal to noise 44.5 -> 32.2 dB
            pocket-gemma: linear layers q8f16_1 -> q6f16_1        59.3 MiB   864.0 KiB  signal to noise 44.5 -> 32.2 dB
            pocket-gemma: linear layers q6f16_1 -> q5f16_min      59.1 MiB   216.0 KiB  signal to noise 32.2 -> 27.2 dB
            pocket-gemma: linear layers q5f16_min -> q5f16_1      58.9 MiB   216.0 KiB  signal to noise 27.2 -> 25.9 dB
            pocket-gemma: embedding q6f16_1 -> q5f16_min          58.9 MiB    24.0 KiB  signal to noise 32.2 -> 27.2 dB
            pocket-gemma: embedding q5f16_min -> q5f16_1          58.8 MiB    24.0 KiB  signal to noise 27.2 -> 25.9 dB
            pocket-gemma: embedding q5f16_1 -> q4f16_min          58.8 MiB    24.0 KiB  signal to noise 25.9 -> 20.9 dB
            pocket-gemma: embedding q4f16_min -> q4f16_1          58.8 MiB    24.0 KiB  signal to noise 20.9 -> 19.3 dB
            pocket-gemma: linear layers q5f16_1 -> q4f16_min      58.6 MiB   216.0 KiB  signal to noise 25.9 -> 20.9 dB
            pocket-gemma: linear layers q4f16_min -> q4f16_1      58.4 MiB   216.0 KiB  signal to noise 20.9 -> 19.3 dB
            pocket-gemma: embedding q4f16_1 -> q3f16_1            58.3 MiB    36.0 KiB  signal to noise 19.3 -> 11.7 dB
            pocket-gemma: linear layers q4f16_1 -> q3f16_1        58.0 MiB   300.5 KiB  signal to noise 19.3 -> 11.7 dB
            allow at least that much, a smaller `--context`, or name variants of fewer bits"#]],
    );
}

#[test]
fn long_caches_become_short_ones() {
    let models = models(&["pocket-gemma"], &["q4f32_1"]);
    check(
        &models,
        "26MiB",
        &options(Some(512)),
        None,
        expect![[r#"
            budget 26.0 MiB
            change             worst moment       saved  why
            to begin with          28.9 MiB              pocket-gemma q4f32_1, context 1024
            caches f32 -> f16      25.9 MiB     3.0 MiB  rounds keys and values to 11 bits
            contexts: pocket-gemma 1024"#]],
    );
    let fixed = CompileOptions { kv: Some(dwindle_schemes::FloatType::F32), ..options(Some(512)) };
    check(
        &models,
        "26MiB",
        &fixed,
        None,
        expect![[r#"
            budget 26.0 MiB
            change                             worst moment       saved  why
            to begin with                          28.9 MiB              pocket-gemma q4f32_1, context 1024
            pocket-gemma: context 1024 -> 512      25.9 MiB     3.0 MiB  floor 512
            contexts: pocket-gemma 512"#]],
    );
}

#[test]
fn what_is_fixed_stays() {
    let models = models(&BOTH, &SCHEMES);
    check(
        &models,
        "66MiB",
        &options(Some(1024)),
        Some(Residency::Both),
        expect![[r#"
            budget 66.0 MiB
            change                                            worst moment       saved  why
            to begin with                                         67.3 MiB              pocket-llava q8f16_1, context 1024; pocket-gemma q8f16_1, context 1024
            pocket-llava: embedding q8f16_1 -> q6f16_1            67.3 MiB    24.0 KiB  signal to noise 44.5 -> 32.2 dB
            pocket-gemma: embedding q8f16_1 -> q6f16_1            67.2 MiB    96.0 KiB  signal to noise 44.5 -> 32.2 dB
            pocket-llava: linear layers q8f16_1 -> q6f16_1        67.0 MiB   216.0 KiB  signal to noise 44.5 -> 32.2 dB
            pocket-gemma: linear layers q8f16_1 -> q6f16_1        66.1 MiB   864.0 KiB  signal to noise 44.5 -> 32.2 dB
            pocket-gemma: linear layers q6f16_1 -> q5f16_min      65.9 MiB   216.0 KiB  signal to noise 32.2 -> 27.2 dB
            pocket-gemma: embedding q6f16_1 -> q8f16_1            66.0 MiB   -96.0 KiB  given back: signal to noise 32.2 -> 44.5 dB
            contexts: pocket-llava 1024, pocket-gemma 1024"#]],
    );
    check(
        &models,
        "66MiB",
        &options(Some(1 << 20)),
        None,
        expect!["a context of 1048576 is not possible: `pocket-llava` was made for 1 to 1024 positions"],
    );
}

#[test]
fn what_cannot_be_is_told_with_what_would() {
    check(
        &models(&BOTH, &SCHEMES),
        "50MiB",
        &options(None),
        None,
        expect![[r#"
            nothing fits into 50.0 MiB: it takes at least 60.3 MiB
            budget 50.0 MiB
            change                                            worst moment       saved  why
            to begin with                                         67.3 MiB              pocket-llava q8f16_1, context 1024; pocket-gemma q8f16_1, context 1024
            residency both -> swap                                62.5 MiB     4.8 MiB  costs time at each picture, no quality
            pocket-gemma: embedding q8f16_1 -> q6f16_1            62.4 MiB    96.0 KiB  signal to noise 44.5 -> 32.2 dB
            pocket-gemma: linear layers q8f16_1 -> q6f16_1        61.5 MiB   864.0 KiB  signal to noise 44.5 -> 32.2 dB
            pocket-gemma: linear layers q6f16_1 -> q5f16_min      61.3 MiB   216.0 KiB  signal to noise 32.2 -> 27.2 dB
            pocket-gemma: linear layers q5f16_min -> q5f16_1      61.1 MiB   216.0 KiB  signal to noise 27.2 -> 25.9 dB
            pocket-gemma: embedding q6f16_1 -> q5f16_min          61.1 MiB    24.0 KiB  signal to noise 32.2 -> 27.2 dB
            pocket-gemma: embedding q5f16_min -> q5f16_1          61.1 MiB    24.0 KiB  signal to noise 27.2 -> 25.9 dB
            pocket-gemma: embedding q5f16_1 -> q4f16_min          61.1 MiB    24.0 KiB  signal to noise 25.9 -> 20.9 dB
            pocket-gemma: embedding q4f16_min -> q4f16_1          61.0 MiB    24.0 KiB  signal to noise 20.9 -> 19.3 dB
            pocket-gemma: linear layers q5f16_1 -> q4f16_min      60.8 MiB   216.0 KiB  signal to noise 25.9 -> 20.9 dB
            pocket-gemma: linear layers q4f16_min -> q4f16_1      60.6 MiB   216.0 KiB  signal to noise 20.9 -> 19.3 dB
            pocket-gemma: embedding q4f16_1 -> q3f16_1            60.6 MiB    36.0 KiB  signal to noise 19.3 -> 11.7 dB
            pocket-gemma: linear layers q4f16_1 -> q3f16_1        60.3 MiB   300.5 KiB  signal to noise 19.3 -> 11.7 dB
            allow at least that much, a smaller `--context`, or name variants of fewer bits"#]],
    );
}

#[test]
fn variants_are_of_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let planned = |name: &str| {
        let full = converted(&folder, name);
        Blueprint::quantized(name, full.model.clone(), full.path(), &Scheme::builtin("q4f16_1").unwrap(), Method::Rtn)
    };
    let error = Candidate::new(BOTH.map(planned).to_vec()).unwrap_err().to_string();
    expect![
        "DIR/pocket-llava and DIR/pocket-gemma are no variants of one model: their configurations or tensors differ"
    ]
    .assert_eq(&error.replace(folder.path().to_str().unwrap(), "DIR"));
    expect!["no model is given"].assert_eq(&Candidate::new(Vec::new()).unwrap_err().to_string());
}
