//! Synthetic packed models: random weights of a real shape, quantized as they are drawn, so that no checkpoint in full
//! precision is ever written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dwindle_quant::{Method, write_floats};
use dwindle_schemes::{FloatType, Format, Role, Scheme};
use serde_json::{Map, Value};

use super::{Random, distribution};
use crate::checkpoint::import::{Offer, Packed, Rows};
use crate::checkpoint::{CarriedFile, Conversion, IgnoredKeys, ModelDir, matrix};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// The type that values are rounded to before they are quantized, as in a checkpoint.
const FLOAT: FloatType = FloatType::Bf16;

/// A source that draws its weights when they are read.
struct Drawn {
    path: PathBuf,
    model_type: String,
    config: Map<String, Value>,
    processor: Option<Value>,
    offers: BTreeMap<String, Offer>,
    roles: BTreeMap<String, Role>,
    seed: u64,
}

/// Writes a model directory of packed random weights to `out`: those that [`synthesize`](super::synthesize) writes, rounded to
/// the nearest as `scheme` says.
///
/// # Errors
/// The configuration is of no supported family, or `out` cannot be written; nothing is left there then.
pub fn synthesize_packed(
    config: &Map<String, Value>,
    scheme: &Scheme,
    seed: u64,
    out: &Path,
    progress: &dyn Progress,
) -> Result<ModelDir> {
    let (family, processor) = super::family(config, out)?;
    let specs = family.tensors();
    let config = crate::checkpoint::config::normalize(config.clone())?;
    let offer = |shape: &[usize]| Offer { shape: shape.to_vec(), format: Format::Plain(FLOAT) };
    let source = Drawn {
        path: out.to_owned(),
        model_type: config.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned(),
        config,
        processor,
        offers: specs.iter().map(|spec| (spec.name.clone(), offer(&spec.shape))).collect(),
        roles: specs.into_iter().map(|spec| (spec.name, spec.role)).collect(),
        seed,
    };
    let conversion =
        Conversion::of_packed(Box::new(source), &IgnoredKeys::default(), Some((scheme.clone(), Method::Rtn)))?;
    Ok(conversion.run(out, progress)?.0)
}

impl Packed for Drawn {
    fn path(&self) -> &Path {
        &self.path
    }

    fn model_type(&self) -> &str {
        &self.model_type
    }

    fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    fn preprocessor(&self) -> Result<Option<Value>> {
        Ok(self.processor.clone())
    }

    /// Not packed before it is quantized.
    fn scheme(&self) -> &str {
        FLOAT.name()
    }

    fn kv(&self) -> FloatType {
        FloatType::F16
    }

    fn offers(&self) -> &BTreeMap<String, Offer> {
        &self.offers
    }

    fn read(&self, name: &str, rows: Range<usize>, out: &mut Rows) -> Result<()> {
        let (_, columns) = matrix(&self.offers[name].shape);
        let (mean, deviation) = distribution(name, self.roles[name]);
        let mut random = Random::new(self.seed, name);
        random.skip((rows.start * columns) as u64);
        let values: Vec<f32> = (0..rows.len() * columns).map(|_| mean + deviation * random.normal()).collect();
        out.words.clear();
        out.floats.resize(values.len() * FLOAT.bytes(), 0);
        write_floats(FLOAT, &values, &mut out.floats)
            .map_err(|source| Error::Quantize { tensor: name.to_owned(), source })
    }

    fn carry(&self, to: &Path) -> Result<Vec<CarriedFile>> {
        let Some(processor) = &self.processor else { return Ok(Vec::new()) };
        let path = to.join(super::PROCESSOR);
        super::write_json(&path, processor)?;
        let content = std::fs::read(&path).map_err(Error::io("read", &path))?;
        Ok(vec![CarriedFile { name: super::PROCESSOR.to_owned(), blake3: blake3::hash(&content).to_hex().to_string() }])
    }

    fn carried_bytes(&self) -> u64 {
        self.processor.as_ref().map_or(0, |processor| processor.to_string().len() as u64)
    }

    /// Speeds need no tokenizer, so its absence deserves no warning.
    fn warnings(&self, _: &[CarriedFile]) -> Vec<String> {
        Vec::new()
    }

    fn files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    /// A model so small that all of it is one block of rows, or several with `width` 2048.
    fn config(width: usize) -> Map<String, Value> {
        let mut config = super::super::preset("qwen2-0.5b").unwrap();
        for (key, value) in
            [("hidden_size", width), ("intermediate_size", 96), ("num_hidden_layers", 1), ("vocab_size", 300)]
        {
            config.insert(key.to_owned(), value.into());
        }
        config.insert("num_attention_heads".to_owned(), (width / 64).into());
        config
    }

    #[test]
    fn weights_are_those_of_a_synthetic_checkpoint_quantized() {
        let work = tempfile::tempdir().unwrap();
        for (name, width) in [("q4f16_1", 128), ("q3f16_1", 2048), ("q8f16_1", 128)] {
            let scheme = Scheme::builtin(name).unwrap();
            let [checkpoint, full, ours] = ["checkpoint", "full", "ours"].map(|part| work.path().join(name).join(part));
            std::fs::create_dir_all(work.path().join(name)).unwrap();
            super::super::synthesize(&config(width), 5, &checkpoint, &Silent).unwrap();
            let (full, _) = crate::checkpoint::convert(&checkpoint, &full, &Silent).unwrap();
            let expected = work.path().join(name).join("expected");
            crate::quantize::quantize(&full, &scheme, Method::Rtn, &expected, &Silent).unwrap();
            let expected = ModelDir::open(&expected).unwrap();
            let ours = synthesize_packed(&config(width), &scheme, 5, &ours, &Silent).unwrap();
            assert_eq!(ours.model.tensors, expected.model.tensors);
            assert_eq!(ours.model.config, expected.model.config);
            assert_eq!((ours.scheme(), ours.model.kv), (expected.scheme(), expected.model.kv));
            for tensor in expected.tensors().tensors() {
                assert!(ours.tensor(tensor.name).unwrap().bytes == tensor.bytes, "{name} {}", tensor.name);
            }
        }
    }

    #[test]
    fn a_model_that_sees_carries_its_image_processor() {
        let work = tempfile::tempdir().unwrap();
        let out = work.path().join("out");
        let mut config = super::super::preset("llava-onevision-0.5b").unwrap();
        for part in ["text_config", "vision_config"] {
            let part = config[part].as_object_mut().unwrap();
            for key in ["hidden_size", "intermediate_size"] {
                part.insert(key.to_owned(), 128.into());
            }
            for (key, value) in part.iter_mut() {
                match key.as_str() {
                    "num_hidden_layers" => *value = 1.into(),
                    "num_attention_heads" | "num_key_value_heads" => *value = 2.into(),
                    _ => {}
                }
            }
        }
        let model = synthesize_packed(&config, &Scheme::builtin("q4f16_1").unwrap(), 0, &out, &Silent).unwrap();
        assert!(model.json(super::super::PROCESSOR).unwrap().is_some_and(|p| p.get("image_grid_pinpoints").is_some()));
    }

    #[test]
    fn what_cannot_be_drawn_leaves_nothing() {
        let work = tempfile::tempdir().unwrap();
        let out = work.path().join("out");
        let mut config = config(128);
        config.insert("model_type".to_owned(), "mamba".into());
        let error = synthesize_packed(&config, &Scheme::builtin("q4f16_1").unwrap(), 0, &out, &Silent).unwrap_err();
        assert!(error.to_string().contains("mamba") || format!("{error:?}").contains("mamba"), "{error}");
        assert!(!out.exists());
    }
}
