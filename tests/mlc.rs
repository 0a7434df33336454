//! MLC's published weights through the command line: as good as the same model quantized here.

#[path = "../compiler/src/checkpoint/import/mlc/fixture.rs"]
mod fixture;

use dwindle_compiler::checkpoint::ModelDir;
use dwindle_compiler::checkpoint::safetensors::SafeTensors;

use crate::workbench::{Dwindle, root};

#[test]
fn from_published_weights_to_answers() {
    let dwindle = Dwindle::new();
    let checkpoint = root().join("demo/pocket-gemma").display().to_string();
    dwindle.run(&["convert", &checkpoint, "-o", "full"]);
    dwindle.run(&["quantize", "full", "--scheme", "q4f16_1", "-o", "quantized"]);
    let published = dwindle.path("published");
    std::fs::create_dir(&published).unwrap();
    fixture::publish(&ModelDir::open(&dwindle.path("quantized")).unwrap(), "q4f16_1", "ndarray-cache.json", &published);

    let output = dwindle.output(&["convert", "published", "-o", "imported"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.success() && said.contains("packed already (q4f16_1); next: dwindle compile imported"),
        "{said}"
    );
    let mut logits = Vec::new();
    for name in ["quantized", "imported"] {
        let bundle = format!("{name}.dwindle");
        dwindle.run(&["compile", name, "--target", "cpu", "-o", &bundle]);
        dwindle.run(&["logits", &bundle, "--device", "cpu", "--tokens", "2,5,17,60,44,9", "-o", "logits.safetensors"]);
        let file = SafeTensors::open(&dwindle.path("logits.safetensors")).unwrap();
        logits.push(file.tensor("logits").unwrap().to_f32().unwrap());
    }
    // Norms were rounded to f16, and activations are to 8 bits: what is near a half goes either way.
    let range = logits[0].iter().fold(0.0_f32, |greatest, value| greatest.max(value.abs()));
    let difference = logits[0].iter().zip(&logits[1]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{difference:e} of {range}");
    assert!(difference > 0.0 && difference < 0.03 * range, "{difference} of {range}");

    for source in ["imported.dwindle", "published"] {
        let answer = dwindle.run(&["run", source, "--device", "cpu", "--prompt", "Hello!", "--temperature", "0"]);
        assert_eq!(answer, "Hello! Share an image with me or just chat.\n", "{source}");
    }
    assert!(dwindle.run(&["inspect", "published"]).contains("scheme     q4f16_1 (imported)"));

    let shard = published.join("params_shard_0.bin");
    let mut bytes = std::fs::read(&shard).unwrap();
    bytes[1000] ^= 0x10;
    std::fs::write(&shard, bytes).unwrap();
    let error = dwindle.fail(&["convert", "published", "-o", "damaged"]);
    assert!(error.starts_with("exit code 3\n") && error.contains("params_shard_0.bin has the MD5 sum"), "{error}");
    assert!(!dwindle.path("damaged").exists());
}
