//! What a user may name where a model is expected: a bundle, a model directory, a checkpoint, or a hub id.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dwindle_bundle::Bundle;
use dwindle_compiler::checkpoint::{CARRIED_FILES, Conversion, ConvertReport, IgnoredKeys, ModelDir, gguf_files};
use dwindle_compiler::compile::Blueprint;
use dwindle_compiler::progress::Progress;
use dwindle_compiler::quantize::Quantization;
use dwindle_compiler::work::Work;
use dwindle_quant::Method;
use dwindle_schemes::Scheme;

use crate::hub::{self, Hub};
use crate::output::note;
use crate::progress::Bars;
use crate::{said, schemes};

/// Opens a bundle; errors name the file.
pub fn open_bundle(path: &Path) -> Result<Bundle> {
    let opened = match Bundle::open(path) {
        Err(dwindle_bundle::Error::Io { source, .. }) => Err(source.into()),
        opened => opened.map_err(anyhow::Error::from),
    };
    opened.with_context(|| format!("cannot open {}", path.display()))
}

/// Something that holds a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A compiled file.
    Bundle(PathBuf),
    /// What `convert` or `quantize` made.
    ModelDir(Named),
    /// A Hugging Face checkpoint on this machine.
    Checkpoint(Named),
}

/// What a source is or will be.
pub enum Described {
    /// It is quantized already.
    Quantized(Box<ModelDir>),
    /// It will be, which takes this.
    Planned(Box<Blueprint>, Work),
}

/// A directory and the name its model gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The directory.
    pub path: PathBuf,
    /// The last part of the path or of the hub id.
    pub name: String,
}

/// How checkpoints become quantized model directories.
#[derive(Debug, Clone, clap::Args)]
pub struct Preparation {
    /// Quantization scheme for sources that are not quantized yet (see `dwindle schemes`), or the file of another one [default: q4f16_1]
    #[arg(long, value_name = "NAME|FILE.toml")]
    pub scheme: Option<String>,

    /// How codes are chosen: rtn (round to nearest) or search (least squared error)
    #[arg(long, default_value = "rtn")]
    pub method: Method,

    /// Revision of models named by hub id: a branch, tag or commit
    #[arg(long)]
    pub revision: Option<String>,

    /// Leave KEY out of the configuration of a checkpoint, as messages spell it, although it may change what is computed; repeat for
    /// several
    #[arg(long, value_name = "KEY")]
    pub ignore_key: Vec<String>,
}

impl Preparation {
    /// The scheme that was named, or the usual one.
    pub fn scheme(&self) -> &str {
        self.scheme.as_deref().unwrap_or(DEFAULT_SCHEME)
    }

    /// Keys that are left out of configurations.
    pub fn ignored(&self) -> IgnoredKeys {
        IgnoredKeys::new(self.ignore_key.clone())
    }
}

/// The scheme that sources get unless the user names another.
pub const DEFAULT_SCHEME: &str = "q4f16_1";

impl Source {
    /// Finds out what `text` names; a hub id is downloaded.
    pub fn resolve(text: &str, revision: Option<&str>, bars: &Bars) -> Result<Self> {
        let path = Path::new(text);
        if path.is_file() && is_gguf(path) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Source::Checkpoint(Named { path: path.to_owned(), name }));
        }
        if path.is_file() {
            return Ok(Source::Bundle(path.to_owned()));
        }
        if path.is_dir() {
            let name = directory_name(path)?;
            let named = Named { path: path.to_owned(), name };
            if path.join("model.json").is_file() {
                return Ok(Source::ModelDir(named));
            }
            if ["config.json", "mlc-chat-config.json"].iter().any(|name| path.join(name).is_file()) {
                return Ok(Source::Checkpoint(named));
            }
            if files_in(path)?.iter().any(|file| is_gguf(file)) {
                return Ok(Source::Checkpoint(named));
            }
            bail!(
                "{text} holds none of config.json (a Hugging Face checkpoint), mlc-chat-config.json (MLC's weights), model.json (a model directory) and a GGUF file"
            );
        }
        if Self::is_hub_id(text) {
            let hub = Hub::from_env()?;
            let path = hub.fetch(&hub.list(text, revision)?, bars)?;
            let name = text.rsplit('/').next().unwrap_or(text).to_owned();
            return Ok(Source::Checkpoint(Named { path, name }));
        }
        bail!("there is no file or directory {text}, and it is no hub id like google/gemma-2-2b-it");
    }

    /// Whether `text` names a model of the hub: nothing on this machine is called so, and it is written like an id.
    pub fn is_hub_id(text: &str) -> bool {
        !Path::new(text).exists() && hub::is_id(text)
    }

    /// A quantized model directory: this one, or one made in a subdirectory of `work`.
    pub fn quantized(&self, preparation: &Preparation, work: &Path, progress: &dyn Progress) -> Result<ModelDir> {
        self.quantized_as(&schemes::named(preparation.scheme())?, preparation, work, progress)
    }

    /// The same with a scheme of one's own.
    pub fn quantized_as(
        &self,
        scheme: &Scheme,
        preparation: &Preparation,
        work: &Path,
        progress: &dyn Progress,
    ) -> Result<ModelDir> {
        let method = preparation.method;
        match self {
            Source::Bundle(path) => bail!(not_a_model(path)),
            Source::ModelDir(named) => {
                let model = ModelDir::open(&named.path)?;
                if model.scheme().is_some() {
                    return Ok(model);
                }
                let out = work.join(&named.name);
                let quantization = Quantization::open(&model, scheme, method)?;
                note!("{}", quantization.work());
                quantization.run(&out, progress)?;
                Ok(ModelDir::open(&out)?)
            }
            Source::Checkpoint(named) => {
                let quantization = Some((scheme.clone(), method));
                let conversion = Conversion::open_ignoring(&named.path, &preparation.ignored(), quantization)?;
                note!("{}", conversion.work());
                let (model, report) = conversion.run(&work.join(&named.name), progress)?;
                warn(&report);
                Ok(model)
            }
        }
    }

    /// An unquantized model directory: this one, or one made in a subdirectory of `work`.
    pub fn converted(&self, preparation: &Preparation, work: &Path, progress: &dyn Progress) -> Result<ModelDir> {
        match self {
            Source::Bundle(path) => {
                bail!("{} is a file; the directory of a checkpoint is expected here", path.display())
            }
            Source::ModelDir(named) => Ok(ModelDir::open(&named.path)?),
            Source::Checkpoint(named) => {
                let conversion = Conversion::open_ignoring(&named.path, &preparation.ignored(), None)?;
                let (model, report) = conversion.run(&work.join(&named.name), progress)?;
                warn(&report);
                Ok(model)
            }
        }
    }

    /// What it is if it is quantized, else what it will be when quantized as `scheme` by `method`, of which only headers are read.
    /// What is packed in a format of its own is imported into a subdirectory of what `work` gives.
    pub fn described<'a>(
        &self,
        scheme: &Scheme,
        preparation: &Preparation,
        work: &dyn Fn() -> Result<&'a Path>,
        progress: &dyn Progress,
    ) -> Result<Described> {
        let method = preparation.method;
        match self {
            Source::Bundle(path) => bail!(not_a_model(path)),
            Source::ModelDir(named) => {
                let directory = ModelDir::open(&named.path)?;
                Ok(match directory.scheme() {
                    Some(_) => Described::Quantized(Box::new(directory)),
                    None => {
                        let model = directory.model.clone();
                        let work = Quantization::open(&directory, scheme, method)?.work().clone();
                        let planned = Blueprint::quantized(&named.name, model, &named.path, scheme, method);
                        Described::Planned(Box::new(planned), work)
                    }
                })
            }
            Source::Checkpoint(named) => {
                let quantization = Some((scheme.clone(), method));
                let conversion = Conversion::open_ignoring(&named.path, &preparation.ignored(), quantization)?;
                said::warnings(conversion.notes());
                if conversion.packed_as().is_some() {
                    drop(conversion);
                    return Ok(Described::Quantized(Box::new(self.converted(preparation, work()?, progress)?)));
                }
                let planned = Blueprint::of_checkpoint(&named.name, &named.path, &conversion, scheme, method);
                Ok(Described::Planned(Box::new(planned), conversion.work().clone()))
            }
        }
    }

    /// Bytes of the files that it consists of.
    pub fn bytes(&self) -> Result<u64> {
        let length = |path: &PathBuf| {
            let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(metadata.len())
        };
        self.content_files()?.iter().map(length).sum()
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        match self {
            Source::Bundle(path) => path,
            Source::ModelDir(named) | Source::Checkpoint(named) => &named.path,
        }
    }

    /// The name a model made of this gets.
    pub fn name(&self) -> &str {
        match self {
            Source::Bundle(path) => path.to_str().unwrap_or_default(),
            Source::ModelDir(named) | Source::Checkpoint(named) => &named.name,
        }
    }

    /// The files whose contents decide what comes of this source, in a fixed order.
    pub fn content_files(&self) -> Result<Vec<PathBuf>> {
        let directory = match self {
            Source::Bundle(path) => return Ok(vec![path.clone()]),
            Source::ModelDir(named) | Source::Checkpoint(named) => &named.path,
        };
        if directory.is_file() {
            // The files of a checkpoint beside a GGUF file win over its metadata.
            let beside = ["config.json"].iter().chain(&CARRIED_FILES).map(|name| directory.with_file_name(name));
            return Ok(beside.filter(|file| file.is_file()).chain(gguf_files(directory)).collect());
        }
        let mut files = files_in(directory)?;
        files.retain(|path| {
            let known = ["json", "jinja", "safetensors", "bin", "model"];
            let is_known = |extension| known.iter().any(|known| extension == *known);
            is_gguf(path) || path.ends_with("merges.txt") || path.extension().is_some_and(is_known)
        });
        Ok(files)
    }
}

fn warn(report: &ConvertReport) {
    said::warnings(&report.notes);
    said::warnings(&report.warnings);
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
}

/// The files of a directory, in order.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn directory_name(path: &Path) -> Result<String> {
    let whole = path.canonicalize().with_context(|| format!("cannot open {}", path.display()))?;
    let name = whole.file_name().map(|name| name.to_string_lossy().into_owned());
    name.with_context(|| format!("{} has no name", path.display()))
}

fn not_a_model(path: &Path) -> String {
    let hint = hint_for_file(path);
    format!("{} is a file; a directory with a checkpoint or a model directory is expected here{hint}", path.display())
}

fn hint_for_file(path: &Path) -> String {
    match (path.extension().and_then(|e| e.to_str()), path.parent()) {
        (Some("safetensors"), Some(parent)) if parent != Path::new("") => format!(": try {}", parent.display()),
        _ => String::new(),
    }
}
