//! What the workspace's tests share: fixtures, the built command, temporary models, and whether there is a GPU.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use dwindle_compiler::target::TargetName;
use dwindle_runtime::device::gpu::{Gpu, Options};

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A golden checkpoint.
pub fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(name)
}

/// The built command, with a cache of its own and nothing of the user's environment that would change its behaviour.
pub struct Dwindle {
    folder: tempfile::TempDir,
}

impl Dwindle {
    /// A fresh cache and working directory.
    pub fn new() -> Self {
        Dwindle { folder: tempfile::tempdir().unwrap() }
    }

    /// A path inside the working directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command with these arguments, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dwindle"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env("DWINDLE_CACHE", self.folder.path().join("cache"));
        for variable in ["RUST_LOG", "HF_ENDPOINT", "HF_TOKEN", "RAYON_NUM_THREADS"] {
            command.env_remove(variable);
        }
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.folder.path().join("hf"));
        command
    }

    /// Runs to the end.
    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs, and gives stdout; fails the test with stderr if the command failed.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "dwindle {}: {}\n{stderr}", arguments.join(" "), output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs, expects failure, and gives exit code and stderr, with this machine's paths taken out.
    #[track_caller]
    pub fn fail(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "dwindle {} should fail", arguments.join(" "));
        let stderr = String::from_utf8(output.stderr).unwrap();
        let folder = self.folder.path().display().to_string();
        let text = stderr.replace(&format!("{folder}/"), "").replace(&format!("{}/", root().display()), "");
        format!("exit code {}\n{text}", output.status.code().unwrap_or(-1))
    }
}

/// What bundles can be compiled for and run here: processors always, GPUs where there is one.
pub fn targets() -> Vec<TargetName> {
    let mut targets = vec![TargetName::Cpu];
    targets.extend(has_adapter().then_some(TargetName::Vulkan));
    targets
}

/// Whether tests that need a GPU can run here; prints why not, or fails where `REQUIRE_ADAPTER=1` says they must.
pub fn has_adapter() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    let found = *FOUND.get_or_init(|| {
        let target = dwindle_bundle::Target { name: "vulkan".to_owned(), needs: BTreeMap::new(), features: Vec::new() };
        !matches!(Gpu::open(&Options::default(), &target), Err(dwindle_runtime::Error::NoAdapter))
    });
    if !found {
        let required = std::env::var("REQUIRE_ADAPTER").is_ok_and(|value| value == "1");
        assert!(!required, "REQUIRE_ADAPTER=1, but there is no adapter: install a Vulkan driver (mesa-vulkan-drivers)");
        println!("skipped: no adapter");
    }
    found
}
