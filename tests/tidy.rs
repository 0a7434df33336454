//! Rules about the code itself: what the architecture forbids, and what keeps files findable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// A file longer than this does more than one thing.
const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of these folders with this extension, with their text, in order.
fn files(folders: &[&str], extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|e| e == extension) {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
        }
    }
    found.sort();
    found
}

const CODE: [&str; 9] =
    ["schemes", "quant", "compiler", "constrain", "runtime", "src", "tests", "benches", "fuzz/fuzz_targets"];

/// Prints all violations at once.
#[track_caller]
fn report(rule: &str, violations: Vec<String>) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

/// The files of modules that are only compiled for tests, and everything below `tests` and `benches`.
fn is_test_file(path: &Path) -> bool {
    static DECLARED: LazyLock<BTreeSet<PathBuf>> = LazyLock::new(|| {
        let mut declared = BTreeSet::new();
        for (path, text) in files(&CODE, "rs") {
            let folder = match path.file_stem().and_then(|stem| stem.to_str()) {
                Some("lib" | "main" | "mod") => path.with_file_name(""),
                _ => path.with_extension(""),
            };
            for after in text.split("#[cfg(test)]\n").skip(1) {
                let line =
                    after.lines().next().unwrap_or("").trim_start_matches("pub ").trim_start_matches("pub(crate) ");
                if let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';')) {
                    declared.insert(folder.join(format!("{name}.rs")));
                    declared.insert(folder.join(name));
                }
            }
        }
        declared
    });
    let below = |part: &std::ffi::OsStr| part == "tests" || part == "benches" || part == "fuzz";
    path.iter().any(below) || path.ancestors().any(|above| DECLARED.contains(above))
}

/// The part of a file that is not its tests, which stand at the end.
fn without_tests<'a>(path: &Path, text: &'a str) -> &'a str {
    match is_test_file(path) {
        true => "",
        false => text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text),
    }
}

#[test]
fn each_file_says_first_what_it_is_responsible_for() {
    let silent = |(path, text): (PathBuf, String)| (!text.starts_with("//! ")).then(|| path.display().to_string());
    report("files begin with a `//!` sentence", files(&CODE, "rs").into_iter().filter_map(silent).collect());
}

#[test]
fn files_are_small() {
    let long = |(path, text): (PathBuf, String)| {
        let lines = text.lines().count();
        (lines > MAX_LINES).then(|| format!("{} has {lines} lines", path.display()))
    };
    report("no file is longer than 600 lines", files(&CODE, "rs").into_iter().filter_map(long).collect());
}

#[test]
fn vague_names_are_not_used() {
    let vague = ["utils", "util", "common", "helpers", "helper", "manager", "misc"];
    let is_vague = |(path, _): (PathBuf, String)| {
        let named = path.iter().any(|part| vague.contains(&part.to_string_lossy().trim_end_matches(".rs")));
        named.then(|| path.display().to_string())
    };
    report("names say what is inside", files(&CODE, "rs").into_iter().filter_map(is_vague).collect());
}

#[test]
fn the_runtime_knows_no_family_and_no_scheme() {
    let words =
        ["gemma", "llava", "qwen", "siglip", "mistral", "llama", "phi3", "q4f16", "q3f16", "q8f16", "q4f32", "q0f"];
    let mut violations = Vec::new();
    for (path, text) in files(&["runtime/src", "runtime/bundle/src"], "rs") {
        for (number, line) in without_tests(&path, &text).lines().enumerate() {
            // Comments may cite where a formula comes from; code may not know.
            let code = line.split("//").next().unwrap_or("").to_ascii_lowercase();
            if let Some(word) = words.iter().find(|word| code.contains(**word)) {
                violations.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    report("families and schemes are the compiler's business", violations);
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    let marks = [["TO", "DO"], ["FIX", "ME"], ["XX", "X:"], ["#[ign", "ore"], ["unimple", "mented!("], ["todo", "!("]]
        .map(|m| m.concat());
    let mut violations = Vec::new();
    for (path, text) in files(&CODE, "rs").into_iter().chain(files(&CODE, "wgsl")) {
        for (number, line) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(mark.as_str())) {
                violations.push(format!("{}:{}: {mark}", path.display(), number + 1));
            }
        }
    }
    report("no placeholders, no skipped tests", violations);
}

#[test]
fn no_unwrap_outside_tests() {
    let mut violations = Vec::new();
    for (path, text) in files(&CODE, "rs") {
        for (number, line) in without_tests(&path, &text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if code.contains(".unwrap()") || code.contains(".expect(\"\")") {
                violations.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    report("errors are returned, or `expect` says why there is none", violations);
}

#[test]
fn only_one_module_writes_to_the_terminal() {
    // Untrusted names are cleaned there, and a closed pipe is no panic.
    let writer = Path::new("src/output.rs");
    let marks =
        ["print!(", "println!(", "dbg!(", "stdout()", "stderr()", "io::stdout", "io::stderr", "Stdout", "Stderr"];
    let mut violations = Vec::new();
    for (path, text) in files(&["schemes", "quant", "compiler", "runtime", "src"], "rs") {
        if path == writer {
            continue;
        }
        for (number, line) in without_tests(&path, &text).lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            if let Some(mark) = marks.iter().find(|mark| code.contains(**mark)) {
                violations.push(format!("{}:{}: {mark}", path.display(), number + 1));
            }
        }
    }
    report("what is printed goes through src/output.rs", violations);
}

#[test]
fn unsafe_stands_only_in_a_few_known_places() {
    let allowed = [
        "quant/src/wide.rs",
        "compiler/src/checkpoint/safetensors.rs",
        // Files are mapped, and a signal handler knows where.
        "runtime/bundle/src/mapping.rs",
        "runtime/bundle/src/mapping/guard.rs",
        // Instruction sets, and memory of the system's.
        "runtime/native/src/",
        "runtime/src/device/",
        "src/main.rs",
    ];
    let mut violations = Vec::new();
    for (path, text) in files(&CODE, "rs") {
        let name = path.to_string_lossy().replace('\\', "/");
        let uses = without_tests(&path, &text).lines().any(|line| {
            let code = line.split("//").next().unwrap_or("");
            code.contains("unsafe {") || code.contains("unsafe fn")
        });
        if uses && !allowed.iter().any(|place| name.starts_with(place)) {
            violations.push(name);
        }
    }
    report("unsafe stands in few known places", violations);
}

/// `cargo metadata`'s direct dependencies of each workspace package, without those of tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let direct = package["dependencies"].as_array().unwrap().iter();
            let direct = direct.filter(|d| d["kind"].is_null()).map(|d| text(&d["name"])).collect();
            (text(&package["name"]), direct)
        })
        .collect()
}

#[test]
fn packages_depend_in_the_direction_of_the_data() {
    let allowed: BTreeMap<&str, &[&str]> = [
        ("dwindle-schemes", &[][..]),
        ("dwindle-quant", &["dwindle-schemes"]),
        ("dwindle-bundle", &[]),
        ("dwindle-compiler", &["dwindle-schemes", "dwindle-quant", "dwindle-bundle"]),
        ("dwindle-native", &["dwindle-bundle"]),
        ("dwindle-runtime", &["dwindle-bundle", "dwindle-native"]),
        ("dwindle-constrain", &["dwindle-runtime"]),
        (
            "dwindle",
            &[
                "dwindle-schemes",
                "dwindle-quant",
                "dwindle-bundle",
                "dwindle-compiler",
                "dwindle-constrain",
                "dwindle-runtime",
            ],
        ),
    ]
    .into();
    let mut violations = Vec::new();
    for (package, direct) in dependencies() {
        let Some(allowed) = allowed.get(package.as_str()) else {
            violations.push(format!("{package} is not in this test's list"));
            continue;
        };
        let own = direct.iter().filter(|d| d.starts_with("dwindle"));
        violations.extend(own.filter(|d| !allowed.contains(&d.as_str())).map(|d| format!("{package} uses {d}")));
    }
    report("schemes ← quant ← compiler ← command, bundle ← compiler, bundle ← runtime ← command", violations);
}

#[test]
fn heavy_crates_stay_where_they_belong() {
    let homes = [
        ("wgpu", "dwindle-runtime"),
        ("tokenizers", "dwindle-runtime"),
        ("image", "dwindle-runtime"),
        ("naga", "dwindle-compiler"),
        ("clap", "dwindle"),
        ("indicatif", "dwindle"),
        ("ureq", "dwindle"),
        ("rustyline", "dwindle"),
        ("axum", "dwindle"),
        ("tokio", "dwindle"),
        ("llguidance", "dwindle-constrain"),
    ];
    let mut violations = Vec::new();
    for (package, direct) in dependencies() {
        for (name, home) in homes {
            if direct.contains(name) && package != home {
                violations.push(format!("{package} uses {name}, which belongs to {home}"));
            }
        }
    }
    report("heavy crates", violations);
}

#[test]
fn documents_name_only_what_exists() {
    let mut violations = Vec::new();
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = std::fs::read_to_string(root().join(document)).unwrap();
        // In backticks, with a slash, and beginning with a folder of the project: a path.
        for quoted in text.split('`').skip(1).step_by(2) {
            let path = quoted.trim_end_matches('/');
            let first = path.split('/').next().unwrap_or("");
            let is_path = quoted.contains('/') && !quoted.contains([' ', '*', '<', '{', '…', ':']);
            if is_path && CODE.iter().chain(&["demo", ".ci"]).any(|f| *f == first) && !root().join(path).exists() {
                violations.push(format!("{document}: {quoted}"));
            }
        }
    }
    report("paths in documents exist", violations);
}

#[test]
fn each_family_scheme_and_kernel_folder_has_its_how_to() {
    let how_tos = [
        "schemes/README.md",
        "compiler/src/arch/README.md",
        "compiler/src/passes/README.md",
        "compiler/src/kernels/README.md",
    ];
    let missing = how_tos.iter().filter(|path| !root().join(path).is_file()).map(|path| (*path).to_owned()).collect();
    report("how-tos stand beside the code", missing);
}
