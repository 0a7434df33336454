//! `dwindle bench`: the report's shape, several targets, pictures, what is left behind, and what it refuses.

use expect_test::{Expect, expect};
use serde_json::Value;

use crate::workbench::{Dwindle, golden};

/// Short measurements of a golden's shape on the processor.
fn arguments<'a>(config: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["bench", "--synthetic", config, "--prompt-tokens", "3,8", "--gen-tokens", "4", "--reps", "2"];
    [&fixed[..], &["--threads", "2", "--json"], more].concat()
}

fn report(dwindle: &Dwindle, config: &str, more: &[&str]) -> Value {
    // What is made on the way goes where temporary files go, and must not stay there.
    let folder = dwindle.path("temporary");
    std::fs::create_dir_all(&folder).unwrap();
    let output = dwindle.command(&arguments(config, more)).env("TMPDIR", &folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "nothing is left behind");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn config(name: &str) -> String {
    golden(name).join("config.json").display().to_string()
}

/// Least, middle and greatest, in order and positive.
#[track_caller]
fn check_spread(spread: &Value) {
    let [min, median, max] = ["min", "median", "max"].map(|key| spread[key].as_f64().unwrap());
    assert!(0.0 < min && min <= median && median <= max && max.is_finite(), "{spread}");
}

#[test]
fn the_report_tells_speed_memory_and_bandwidth() {
    let dwindle = Dwindle::new();
    for scheme in ["q6f16_1", "q5f16_min", "q4f16_1", "q3f16_1", "q0f16"] {
        let report = report(&dwindle, &config("qwen2"), &["--target", "cpu", "--scheme", scheme, "--context", "64"]);
        assert_eq!(report["about"]["scheme"], scheme);
        let prefill = report["prefill"].as_array().unwrap();
        assert_eq!(prefill.iter().map(|p| p["tokens"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 8]);
        prefill.iter().for_each(|p| check_spread(&p["tokens_per_second"]));
        let decode = &report["decode"];
        assert_eq!(decode["tokens"], 4);
        check_spread(&decode["tokens_per_second"]);
        let number = |value: &Value| value.as_f64().unwrap();
        let read = number(&decode["tokens_per_second"]["median"]) * number(&decode["bytes_per_token"]);
        let share = number(&report["bandwidth_share"]);
        assert!((share * number(&report["bandwidth_bytes_per_second"]) / read - 1.0).abs() < 1e-6, "{report}");
        assert!(number(&report["first_token_seconds"]) > number(&report["load_seconds"]), "{report}");
        assert!(report["image"].is_null());
        if cfg!(target_os = "linux") {
            assert!(number(&report["peak_bytes"]) > number(&report["anonymous_bytes"]), "{report}");
        }
    }
}

#[test]
fn a_model_that_sees_is_measured_with_a_picture() {
    let dwindle = Dwindle::new();
    let report = report(&dwindle, &config("llava_onevision"), &["--target", "cpu"]);
    let image = &report["image"];
    assert!(image["tiles"].as_u64().unwrap() >= 2 && image["rows"].as_u64().unwrap() > 0, "{image}");
    check_spread(&image["seconds_per_tile"]);
    check_spread(&image["turn_seconds"]);
    let text = dwindle.run(&[
        "bench",
        "--synthetic",
        &config("llava_onevision"),
        "--target",
        "cpu",
        "--prompt-tokens",
        "4",
        "--gen-tokens",
        "2",
    ]);
    for part in ["prefill     4", "decode      2", "of weights a token", "GB/s", "picture:", "first token after"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn several_targets_are_an_array() {
    let dwindle = Dwindle::new();
    let reports = report(&dwindle, &config("gemma"), &["--target", "cpu,cpu"]);
    let targets: Vec<_> = reports.as_array().unwrap().iter().map(|report| &report["target"]).collect();
    assert_eq!(targets, ["cpu", "cpu"]);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    #[track_caller]
    fn check(more: &[&str], expected: Expect) {
        expected.assert_eq(&Dwindle::new().fail(&[&["bench"], more].concat()));
    }
    let config = config("qwen2");
    let cpu = ["--synthetic", &config, "--target", "cpu"];
    check(
        &[&cpu[..], &["--context", "32", "--prompt-tokens", "33"]].concat(),
        expect![[r#"
        exit code 3
        error: a prompt of 33 tokens does not fit the context of 32
    "#]],
    );
    check(
        &[&cpu[..], &["--context", "32", "--prompt-tokens", "8", "--gen-tokens", "25"]].concat(),
        expect![[r#"
        exit code 3
        error: 25 tokens after a prompt of 8 do not fit the context of 32
    "#]],
    );
    check(
        &[&cpu[..], &["--scheme", "q5"]].concat(),
        expect![[r#"
        exit code 3
        error: there is no scheme `q5`; there are q0f32, q0f16, q8f16_1, q6f16_1, q5f16_min, q5f16_1, q4f32_1, q4f16_min, q4f16_1, q4f16_asym, q3f16_1
    "#]],
    );
    check(
        &["--synthetic", "gemma-9000b"],
        expect![[r#"
        exit code 3
        error: gemma-9000b is neither a preset (gemma-2b, gemma-2-2b, gemma-3-1b, llama-3.2-1b, mistral-7b, phi-3-mini-4k, qwen2-0.5b, qwen2-1.5b, qwen3-0.6b, smollm2-135m, tinyllama-1.1b, llava-onevision-0.5b) nor a readable config.json: No such file or directory (os error 2)
    "#]],
    );
    check(
        &["--scheme", "q4f16_1"],
        expect![[r#"
        exit code 2
        error: the following required arguments were not provided:
          --synthetic <PRESET|config.json>

        Usage: dwindle bench --synthetic <PRESET|config.json> --scheme <SCHEME> [BUNDLE]

        For more information, try '--help'.
    "#]],
    );
    check(
        &["a.dwindle", "--target", "cpu"],
        expect![[r#"
            exit code 3
            error: cannot open a.dwindle: No such file or directory (os error 2)
        "#]],
    );
    check(
        &["--reps", "0"],
        expect![[r#"
        exit code 2
        error: invalid value '0' for '--reps <N>': 0 is not in 1..=4294967295

        For more information, try '--help'.
    "#]],
    );
    check(
        &["missing.dwindle"],
        expect![[r#"
            exit code 3
            error: cannot open missing.dwindle: No such file or directory (os error 2)
        "#]],
    );
}
