//! The stages of one model: family, plain graphs, optimized graphs, plan.

use std::collections::BTreeMap;

use dwindle_schemes::{FloatType, Format};

use super::CompileOptions;
use crate::arch::{self, Family, GraphOptions};
use crate::checkpoint::ModelDir;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::lower::{self, LowerOptions, Lowered};
use crate::passes;

/// Positions of a KV cache, unless the user asks for more.
const DEFAULT_CONTEXT: usize = 4096;

/// A model that can be compiled.
pub struct Prepared<'a> {
    /// Where its tensors are.
    pub directory: &'a ModelDir,
    /// Unique in a bundle.
    pub name: String,
    /// What its configuration means.
    pub family: Box<dyn Family>,
    /// Positions of the KV cache.
    pub context: u32,
    max_rows: u32,
    kv: FloatType,
    taps: bool,
}

impl<'a> Prepared<'a> {
    /// Understands a model directory and checks that it is quantized, and complete for its family.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn open(directory: &'a ModelDir, options: &CompileOptions) -> Result<Self> {
        let path = directory.path();
        let Some(kv) = directory.model.kv else {
            return Err(Error::NotQuantized { path: path.to_owned() });
        };
        let preprocessor = directory.json("preprocessor_config.json")?;
        let family = arch::parse(&directory.model.family, &directory.model.config, preprocessor.as_ref())
            .map_err(|source| Error::Family { path: path.to_owned(), source })?;
        let problems = missing_tensors(directory, family.as_ref());
        if !problems.is_empty() {
            return Err(Error::DamagedModelDirectory { path: path.to_owned(), problems });
        }
        let name = model_name(directory)?;
        let most = family.shape().max_position_embeddings;
        let context = match options.context {
            None => most.min(DEFAULT_CONTEXT),
            Some(context) if context > 0 && context as usize <= most => context as usize,
            Some(context) => return Err(Error::Context { model: name, context, most }),
        } as u32;
        let max_rows = options.max_rows.clamp(1, context.max(1));
        Ok(Prepared { directory, name, family, context, max_rows, kv, taps: options.taps })
    }

    /// The functions as the family defines them.
    pub fn graphs(&self) -> Vec<Graph> {
        // `open` has checked that each tensor is there.
        let formats = |name: &str| self.directory.format(name).unwrap_or(Format::Plain(FloatType::F32));
        let options = GraphOptions { context: self.context as usize, taps: self.taps };
        self.family.functions().iter().map(|&function| self.family.graph(function, &formats, &options)).collect()
    }

    /// The functions after all passes.
    ///
    /// # Errors
    /// A graph that does not verify, which is a bug.
    pub fn optimized(&self) -> Result<Vec<Graph>> {
        let mut graphs = self.graphs();
        graphs.iter_mut().try_for_each(passes::optimize)?;
        Ok(graphs)
    }

    /// The plan, the layout of its weights, its kernels.
    ///
    /// # Errors
    /// What cannot be computed on the target.
    pub fn lower(&self, options: &CompileOptions) -> Result<Lowered> {
        let mut emit = |spec: &crate::kernels::KernelSpec, target: &crate::target::Target| {
            crate::kernels::emit(spec, target).map_err(lower::EmitError::from)
        };
        Ok(lower::lower(&self.optimized()?, &self.lower_options(), &options.target, &mut emit)?)
    }

    /// What lowering decides by.
    pub fn lower_options(&self) -> LowerOptions {
        LowerOptions {
            entries: self.entries(),
            context: self.context as usize,
            max_rows: self.max_rows as usize,
            kv: self.kv,
        }
    }

    /// What the names of the model's entries begin with.
    pub fn entries(&self) -> String {
        format!("models/{}", self.name)
    }

    /// What the model was made from, for people.
    pub fn about(&self) -> BTreeMap<String, String> {
        let model = &self.directory.model;
        let mut about = BTreeMap::from([("family".to_owned(), model.family.clone())]);
        about.extend(model.scheme.iter().map(|scheme| ("scheme".to_owned(), scheme.clone())));
        about.extend(model.method.iter().map(|method| ("method".to_owned(), method.clone())));
        if let Some(card) = &model.card {
            about.insert("weights".to_owned(), card.weights.to_string());
            about.insert("bits_per_weight".to_owned(), format!("{:.3}", card.bits_per_weight));
        }
        about
    }
}

/// A model is called like its directory.
///
/// # Errors
/// The directory has no name, or one that cannot be part of an entry's name.
pub fn model_name(directory: &ModelDir) -> Result<String> {
    let path = directory.path();
    let full = path.canonicalize().map_err(Error::io("read", path))?;
    let name = full.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':');
    if name.is_empty() || name.len() > 200 || !name.chars().all(plain) {
        return Err(Error::ModelName { path: path.to_owned() });
    }
    Ok(name.to_owned())
}

/// All tensors of the family that the model directory lacks or has in another shape.
fn missing_tensors(directory: &ModelDir, family: &dyn Family) -> Vec<String> {
    let problem = |spec: arch::TensorSpec| match directory.model.tensors.get(&spec.name) {
        None => Some(format!("tensor `{}` is missing", spec.name)),
        Some(info) if info.shape != spec.shape => {
            Some(format!("tensor `{}` is {:?}, its family expects {:?}", spec.name, info.shape, spec.shape))
        }
        Some(_) => None,
    };
    family.tensors().into_iter().filter_map(problem).collect()
}
