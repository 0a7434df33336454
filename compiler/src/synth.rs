//! Synthetic checkpoints: real shapes with random weights, to learn sizes and speeds without downloading a model.
//!
//! Matrices are drawn from a normal distribution of standard deviation 0.02, as models are initialised; norms are near
//! their neutral value. Each tensor's numbers depend on its name and the seed alone, so the bytes do not depend on
//! threads. The checkpoint has no tokenizer, unless [`write_tokenizer`] adds one: its tokens mean nothing.

mod tokenizer;

mod packed;

use std::collections::BTreeMap;
use std::path::Path;

use dwindle_schemes::{FloatType, Role};
use rayon::prelude::*;
use serde_json::{Map, Value};

pub use tokenizer::write_tokenizer;

use crate::arch::{self, TensorSpec};
use crate::checkpoint::safetensors::{Element, Layout, TensorWriter};
use crate::error::{Error, Result};
use crate::progress::Progress;

pub use packed::synthesize_packed;

/// Configurations of published models, by name.
pub const PRESETS: [(&str, &str); 12] = [
    ("gemma-2b", include_str!("synth/presets/gemma-2b.json")),
    ("gemma-2-2b", include_str!("synth/presets/gemma-2-2b.json")),
    ("gemma-3-1b", include_str!("synth/presets/gemma-3-1b.json")),
    ("llama-3.2-1b", include_str!("synth/presets/llama-3.2-1b.json")),
    ("mistral-7b", include_str!("synth/presets/mistral-7b.json")),
    ("phi-3-mini-4k", include_str!("synth/presets/phi-3-mini-4k.json")),
    ("qwen2-0.5b", include_str!("synth/presets/qwen2-0.5b.json")),
    ("qwen2-1.5b", include_str!("synth/presets/qwen2-1.5b.json")),
    ("qwen3-0.6b", include_str!("synth/presets/qwen3-0.6b.json")),
    ("smollm2-135m", include_str!("synth/presets/smollm2-135m.json")),
    ("tinyllama-1.1b", include_str!("synth/presets/tinyllama-1.1b.json")),
    ("llava-onevision-0.5b", include_str!("synth/presets/llava-onevision-0.5b.json")),
];

/// The image processor's configuration.
const PROCESSOR: &str = "preprocessor_config.json";

/// Values that are drawn and written at a time.
const BLOCK: usize = 1 << 16;

/// The configuration of a preset.
pub fn preset(name: &str) -> Option<Map<String, Value>> {
    let (_, text) = PRESETS.iter().find(|(preset, _)| *preset == name)?;
    serde_json::from_str(text).ok()
}

/// The family of a configuration, and the image processor that goes with it.
fn family(config: &Map<String, Value>, directory: &Path) -> Result<(Box<dyn arch::Family>, Option<Value>)> {
    let normalized = crate::checkpoint::config::normalize(config.clone())?;
    let processor = image_processor(&normalized);
    let model_type = normalized.get("model_type").and_then(Value::as_str).unwrap_or_default();
    match arch::parse(model_type, &normalized, processor.as_ref()) {
        Ok(family) => Ok((family, processor)),
        Err(source) => Err(Error::Family { path: directory.to_owned(), source }),
    }
}

/// What published checkpoints of models that see have as `preprocessor_config.json`: bytes to -1 … 1, bicubic; the centre
/// of a picture where there is no list of grids.
fn image_processor(config: &Map<String, Value>) -> Option<Value> {
    let size = config.get("vision_config")?.get("image_size")?;
    let Some(pinpoints) = config.get("image_grid_pinpoints") else {
        return Some(serde_json::json!({
            "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
            "crop_size": { "height": size, "width": size },
            "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            "resample": 3, "rescale_factor": 1.0 / 255.0,
            "size": { "shortest_edge": size },
        }));
    };
    Some(serde_json::json!({
        "do_convert_rgb": true, "do_normalize": true, "do_rescale": true, "do_resize": true,
        "image_grid_pinpoints": pinpoints,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
        "resample": 3, "rescale_factor": 1.0 / 255.0,
        "size": { "height": size, "width": size },
    }))
}

/// Writes a checkpoint in bfloat16 (configurations and `model.safetensors`) into `directory`, which is made.
pub fn synthesize(config: &Map<String, Value>, seed: u64, directory: &Path, progress: &dyn Progress) -> Result<()> {
    let (family, processor) = family(config, directory)?;
    let specs: BTreeMap<String, TensorSpec> = family.tensors().into_iter().map(|t| (t.name.clone(), t)).collect();
    std::fs::create_dir_all(directory).map_err(Error::io("make", directory))?;
    let shapes = specs.iter().map(|(name, spec)| (name.clone(), (Element::Bf16, spec.shape.clone()))).collect();
    let layout = Layout::new(&shapes);
    progress.begin("random weights", layout.file_bytes());
    let writer = TensorWriter::create(&directory.join("model.safetensors"), layout)?;
    specs.par_iter().try_for_each(|(name, spec)| write_tensor(&writer, name, spec, seed, progress))?;
    writer.finish()?;
    progress.end();
    write_json(&directory.join("config.json"), config)?;
    processor.map_or(Ok(()), |processor| write_json(&directory.join(PROCESSOR), &processor))
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::json(path, e))?;
    std::fs::write(path, text).map_err(Error::io("write", path))
}

fn write_tensor(
    writer: &TensorWriter,
    name: &str,
    spec: &TensorSpec,
    seed: u64,
    progress: &dyn Progress,
) -> Result<()> {
    let count: usize = spec.shape.iter().product();
    let mut random = Random::new(seed, name);
    let (mean, deviation) = distribution(name, spec.role);
    let mut values = vec![0.0f32; BLOCK.min(count)];
    let mut bytes = vec![0u8; values.len() * 2];
    for start in (0..count).step_by(BLOCK) {
        let length = BLOCK.min(count - start);
        values[..length].iter_mut().for_each(|value| *value = mean + deviation * random.normal());
        dwindle_quant::write_floats(FloatType::Bf16, &values[..length], &mut bytes[..length * 2])
            .map_err(|source| Error::Quantize { tensor: name.to_owned(), source })?;
        writer.write(name, 2 * start as u64, &bytes[..length * 2])?;
        progress.advance(2 * length as u64);
    }
    Ok(())
}

/// Mean and standard deviation of a tensor's values.
fn distribution(name: &str, role: Role) -> (f32, f32) {
    match role {
        // A norm's neutral weight is 1 (Gemma's, which adds one, works with 2 as well: every value is only a factor).
        Role::Vector if name.contains("norm") && name.ends_with("weight") => (1.0, 0.05),
        _ => (0.0, 0.02),
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014), and from it sums of uniform numbers, near enough to normal ones for weights.
struct Random(u64);

/// What the state grows by with each number.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    fn new(seed: u64, name: &str) -> Self {
        let hash = blake3::hash(name.as_bytes());
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        Random(u64::from_le_bytes(first) ^ seed.wrapping_mul(STEP))
    }

    /// As if `count` numbers had been drawn.
    fn skip(&mut self, count: u64) {
        self.0 = self.0.wrapping_add(count.wrapping_mul(STEP));
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Mean 0, variance 1: four 16-bit uniform numbers, each of variance 1/12, summed (Irwin–Hall) and scaled by √3.
    fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u32 = (0..4).map(|i| (bits >> (16 * i)) as u32 & 0xffff).sum();
        (sum as f32 / 65536.0 - 2.0) * 3f32.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_about_normal_and_depend_on_name_and_seed() {
        let mut random = Random::new(1, "a");
        let values: Vec<f32> = (0..100_000).map(|_| random.normal()).collect();
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        assert_ne!(Random::new(1, "a").next(), Random::new(1, "b").next());
        assert_ne!(Random::new(1, "a").next(), Random::new(2, "a").next());
        let (mut stepped, mut skipped) = (Random::new(3, "a"), Random::new(3, "a"));
        (0..17).for_each(|_| _ = stepped.next());
        skipped.skip(17);
        assert_eq!(stepped.next(), skipped.next());
    }

    #[test]
    fn presets_are_configurations_of_known_families() {
        for (name, _) in PRESETS {
            let (family, _) = family(&preset(name).unwrap(), Path::new(name)).unwrap();
            assert!(!family.tensors().is_empty(), "{name}");
        }
    }
}
