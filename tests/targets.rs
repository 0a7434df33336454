//! One bundle for several targets: it runs on each of them with the same answers, and says which it has.

use expect_test::expect;

use crate::workbench::{Dwindle, has_adapter, root};

/// The demo's packed models compiled into `demo.dwindle`.
fn compiled(targets: &str) -> Dwindle {
    let dwindle = Dwindle::new();
    let [gemma, llava] =
        ["gemma", "llava"].map(|name| root().join(format!("demo/packed/pocket-{name}")).display().to_string());
    dwindle.run(&["compile", &gemma, &llava, "--target", targets, "-o", "demo.dwindle"]);
    dwindle
}

fn answer(dwindle: &Dwindle, device: &str) -> String {
    let image = root().join("demo/images/01-square-96.png").display().to_string();
    let prompt = ["--prompt", "What do you see?", "--temperature", "0"];
    dwindle.run(&[&["run", "demo.dwindle", "--image", &image, "--device", device][..], &prompt].concat())
}

#[test]
fn one_bundle_answers_alike_on_each_device() {
    let dwindle = compiled("cpu,vulkan");
    let cpu = answer(&dwindle, "cpu");
    assert!(!cpu.trim().is_empty());
    assert!(!answer(&dwindle, "auto").is_empty());
    let told = dwindle.run(&["inspect", "demo.dwindle"]);
    assert!(told.contains("targets cpu, vulkan") && told.contains("target     vulkan"), "{told}");
    let plan = |target: &str| dwindle.run(&["inspect", "demo.dwindle", "--stage", "plan", "--target", target]);
    assert_ne!(plan("cpu"), plan("vulkan"));
    dwindle.run(&[
        "bench",
        "demo.dwindle",
        "--target",
        "cpu",
        "--prompt-tokens",
        "8",
        "--gen-tokens",
        "2",
        "--reps",
        "1",
    ]);
    if has_adapter() {
        assert_eq!(answer(&dwindle, "gpu"), cpu);
    }
}

#[test]
fn a_target_that_is_not_there() {
    let dwindle = compiled("cpu");
    expect![[r#"
        exit code 5
        error: the bundle is compiled for cpu, not for vulkan: compile its models again with `--target cpu,vulkan`
    "#]]
    .assert_eq(&dwindle.fail(&["run", "demo.dwindle", "--device", "gpu", "--prompt", "x"]));
    expect![[r#"
        exit code 5
        error: the bundle is compiled for cpu, not for metal: compile its models again with `--target cpu,metal`
    "#]]
    .assert_eq(&dwindle.fail(&["inspect", "demo.dwindle", "--target", "metal"]));
    let gemma = root().join("demo/packed/pocket-gemma").display().to_string();
    let compile = ["compile", &gemma, "-o", "x.dwindle", "--target"];
    expect![[r#"
        exit code 3
        error: target cpu is named twice
    "#]]
    .assert_eq(&dwindle.fail(&[&compile[..], &["cpu,cpu"]].concat()));
    expect![[r#"
        exit code 3
        error: --fit fits a bundle for one target: name one target here, not several
    "#]]
    .assert_eq(&dwindle.fail(&[&compile[..], &["cpu,vulkan", "--fit", "1GiB"]].concat()));
}
