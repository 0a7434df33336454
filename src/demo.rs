//! The built-in demo: two packed model directories embedded in the program, compiled on first use.

use std::path::Path;

use anyhow::{Context, Result};
use dwindle_bundle::Bundle;

use crate::cache;
use crate::compile::{Target, compile_sources};
use crate::progress::Bars;
use crate::source::{Named, Preparation, Source};
use crate::termination::Temporary;

/// A file of a packed model directory.
struct File {
    model: &'static str,
    name: &'static str,
    bytes: &'static [u8],
}

macro_rules! embedded {
    ($($model:literal: $($name:literal),+;)+) => {
        &[$($(File {
            model: $model,
            name: $name,
            bytes: include_bytes!(concat!("../demo/packed/", $model, "/", $name)),
        },)+)+]
    };
}

/// What `demo/pack` makes of the checkpoints in `demo`; a test compares them.
const FILES: &[File] = embedded! {
    "pocket-gemma": "model.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json";
    "pocket-llava": "model.json", "model.safetensors", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "preprocessor_config.json", "processor_config.json";
};

/// The demo's bundle, from the cache or compiled now; without a usable cache directory it is compiled for this run alone.
pub fn open(target: &Target, bars: &Bars) -> Result<Bundle> {
    let mut key = cache::Key::new("demo");
    key.add(target.name().name().as_bytes());
    for file in FILES {
        key.add(file.model.as_bytes());
        key.add(file.name.as_bytes());
        key.add(file.bytes);
    }
    match cache::directory() {
        Ok(directory) => {
            let path = key.path(&directory);
            // What is there may be damaged; then it is made anew.
            if let Ok(bundle) = Bundle::open(&path) {
                return Ok(bundle);
            }
            compile(target, &path, bars)?;
            Ok(Bundle::open(&path)?)
        }
        Err(error) => {
            tracing::warn!("{error:#}; compiling the demo for this run alone");
            let directory = tempfile::tempdir().context("there is no directory for temporary files")?;
            let _temporary = Temporary::new(directory.path());
            let path = key.path(directory.path());
            compile(target, &path, bars)?;
            // The mapping outlives the file's name.
            Ok(Bundle::open(&path)?)
        }
    }
}

fn compile(target: &Target, path: &Path, bars: &Bars) -> Result<()> {
    let directory = tempfile::tempdir().context("there is no directory for temporary files")?;
    let _temporary = Temporary::new(directory.path());
    let mut sources = Vec::new();
    for file in FILES {
        let folder = directory.path().join(file.model);
        if !folder.is_dir() {
            std::fs::create_dir(&folder)?;
            sources.push(Source::ModelDir(Named { path: folder.clone(), name: file.model.to_owned() }));
        }
        std::fs::write(folder.join(file.name), file.bytes)?;
    }
    let preparation =
        Preparation { scheme: None, method: dwindle_quant::Method::Rtn, revision: None, ignore_key: Vec::new() };
    compile_sources(&sources, &preparation, target, path, bars)?;
    Ok(())
}
