//! What is measured: a bundle, the demo, or random weights of a real shape, packed and compiled on the way.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use dwindle_bundle::{Bundle, Model};
use dwindle_compiler::synth;
use dwindle_compiler::target::TargetName;
use dwindle_quant::Method;
use tempfile::TempDir;

use super::Options;
use crate::compile::{Target, compile_sources};
use crate::demo;
use crate::device::Kind;
use crate::progress::Bars;
use crate::schemes;
use crate::source::{Named, Preparation, Source, open_bundle};

/// A bundle, and how long opening it took.
pub struct Subject {
    pub bundle: Bundle,
    pub opening: Duration,
}

/// The bundle that the options name, or one for each target; each is made when it is asked for.
pub fn open(options: &Options) -> Result<Box<dyn Iterator<Item = Result<Subject>>>> {
    let all = match options.target.is_empty() {
        true => vec![None],
        false => options.target.iter().copied().map(Some).collect(),
    };
    if let Some(path) = &options.bundle {
        let (path, device) = (path.clone(), options.device.clone());
        let select = move |target: Option<TargetName>| {
            let bundle = open_bundle(&path)?;
            match target {
                Some(target) => Ok(bundle.select(target.name())?),
                None => device.select(&bundle, Kind::Auto),
            }
        };
        return Ok(Box::new(all.into_iter().map(move |target| timed(|| select(target)))));
    }
    let context = options.context;
    let targets =
        all.into_iter().map(move |target| Target { target: Vec::from_iter(target), context, ..Target::default() });
    let bars = Bars::default();
    let Some(shape) = &options.synthetic else {
        return Ok(Box::new(targets.map(move |target| timed(|| demo::open(&target, &bars)))));
    };
    let packed = Packed::new(shape, &options.scheme, &bars)?;
    Ok(Box::new(targets.map(move |target| packed.compile(&target, &bars))))
}

fn timed(open: impl FnOnce() -> Result<Bundle>) -> Result<Subject> {
    let started = Instant::now();
    let bundle = open()?;
    Ok(Subject { bundle, opening: started.elapsed() })
}

/// A model directory of random weights, which goes with this.
struct Packed {
    work: TempDir,
    model: PathBuf,
    name: String,
    preparation: Preparation,
}

impl Packed {
    fn new(shape: &str, scheme: &str, bars: &Bars) -> Result<Self> {
        let config = crate::synth::config(shape)?;
        let file = Path::new(shape).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let name = if synth::preset(shape).is_some() { shape.to_owned() } else { file.unwrap_or_default() };
        let work = tempfile::tempdir().context("there is no directory for temporary files")?;
        let model = work.path().join(&name);
        synth::synthesize_packed(&config, &schemes::named(scheme)?, 0, &model, bars)?;
        let preparation = Preparation {
            scheme: Some(scheme.to_owned()),
            method: Method::Rtn,
            revision: None,
            ignore_key: Vec::new(),
        };
        Ok(Packed { work, model, name, preparation })
    }

    fn compile(&self, target: &Target, bars: &Bars) -> Result<Subject> {
        let out = self.work.path().join("out.dwindle");
        let source = Source::ModelDir(Named { path: self.model.clone(), name: self.name.clone() });
        compile_sources(&[source], &self.preparation, target, &out, bars)?;
        let subject = timed(|| Ok(Bundle::open(&out)?));
        // The mapping outlives the file's name.
        std::fs::remove_file(&out).with_context(|| format!("cannot remove {}", out.display()))?;
        subject
    }
}

/// The model of this name, the one that chats, or the only one.
pub fn choose<'a>(bundle: &'a Bundle, name: Option<&str>) -> Result<&'a Model> {
    let manifest = bundle.manifest();
    let chats = manifest.ensemble.as_ref().map(|e| e.chat.as_str());
    match name.or(chats) {
        Some(name) => {
            manifest.models.iter().find(|m| m.name == name).with_context(|| format!("the bundle has no model {name}"))
        }
        None => manifest.models.first().context("the bundle has no model"),
    }
}
