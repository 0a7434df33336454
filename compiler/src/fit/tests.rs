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
    check(&models(&BOTH, &SCHEMES), "1GiB", &options(None), None, expect![[""]]);
}

#[test]
fn quality_is_given_up_last() {
    let models = models(&BOTH, &SCHEMES);
    check(&models, "66MiB", &options(None), None, expect![[""]]);
    check(&models, "62MiB", &options(Some(256)), None, expect![[""]]);
    check(&models, "58.5MiB", &options(Some(256)), None, expect![[""]]);
    check(&models, "57.5MiB", &options(Some(256)), None, expect![[""]]);
}

#[test]
fn long_caches_become_short_ones() {
    let models = models(&["pocket-gemma"], &["q4f32_1"]);
    check(&models, "26MiB", &options(Some(512)), None, expect![[""]]);
    let fixed = CompileOptions { kv: Some(dwindle_schemes::FloatType::F32), ..options(Some(512)) };
    check(&models, "26MiB", &fixed, None, expect![[""]]);
}

#[test]
fn what_is_fixed_stays() {
    let models = models(&BOTH, &SCHEMES);
    check(&models, "66MiB", &options(Some(1024)), Some(Residency::Both), expect![[""]]);
    check(&models, "66MiB", &options(Some(1 << 20)), None, expect![[""]]);
}

#[test]
fn what_cannot_be_is_told_with_what_would() {
    check(&models(&BOTH, &SCHEMES), "50MiB", &options(None), None, expect![[""]]);
}

#[test]
fn variants_are_of_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let planned = |name: &str| {
        let full = converted(&folder, name);
        Blueprint::quantized(name, full.model.clone(), full.path(), &Scheme::builtin("q4f16_1").unwrap(), Method::Rtn)
    };
    let error = Candidate::new(BOTH.map(planned).to_vec()).unwrap_err().to_string();
    expect![[""]].assert_eq(&error.replace(folder.path().to_str().unwrap(), "DIR"));
    expect![[""]].assert_eq(&Candidate::new(Vec::new()).unwrap_err().to_string());
}
