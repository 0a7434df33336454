//! The stages of one model: family, plain graphs, optimized graphs, plan.

use std::collections::BTreeMap;

use dwindle_bundle::{ImageInput, Tiling};
use dwindle_schemes::{FloatType, Format};

use super::{Blueprint, CompileOptions};
use crate::arch::{self, Family, GraphOptions};
use crate::checkpoint::ModelDir;
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::lower::{self, LowerOptions, Lowered};
use crate::passes;

/// Positions of a KV cache, unless the user asks for more or a picture needs more.
const DEFAULT_CONTEXT: usize = 4096;

/// Positions of a description and of what asks for it, beside the picture's: the runtime's limit for descriptions, and some.
const DESCRIPTION: u32 = 512 + 64;

/// Positions that a conversation about one picture needs, whatever its size.
pub(crate) fn picture_context(image: &ImageInput) -> u32 {
    let tile = &image.tile;
    let base = u64::from(tile.rows) * u64::from(tile.columns);
    let grid = match &image.tiling {
        Tiling::CenterCrop { .. } | Tiling::Stretch => 0,
        Tiling::AnyRes { pinpoints, max_tiles, .. } => {
            // Grids are scaled down when they exceed the most by a tenth in each direction.
            let most = max_tiles.map_or(u64::MAX, |tiles| (u64::from(tiles) * base).saturating_mul(121) / 100);
            let rows = |&[height, width]: &[u32; 2]| {
                let rows = u64::from(height / tile.height.max(1)) * u64::from(tile.rows);
                let columns = u64::from(width / tile.width.max(1)) * u64::from(tile.columns);
                // A newline after each row.
                (rows * columns).min(most) + rows
            };
            pinpoints.iter().map(rows).max().unwrap_or(0)
        }
    };
    u32::try_from(base + grid).unwrap_or(u32::MAX).saturating_add(DESCRIPTION)
}

/// A model that can be compiled.
pub struct Prepared {
    /// Its description.
    pub blueprint: Blueprint,
    /// What its configuration means.
    pub family: Box<dyn Family>,
    /// Positions of the KV cache.
    pub context: u32,
    max_rows: u32,
    kv: FloatType,
    taps: bool,
    /// The bundle is for several targets.
    shares: bool,
}

impl Prepared {
    /// Understands a model directory and checks that it is quantized, and complete for its family.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn open(directory: &ModelDir, options: &CompileOptions) -> Result<Self> {
        Prepared::of(Blueprint::of(directory)?, options)
    }

    /// Understands a description and checks that it is complete for its family.
    ///
    /// # Errors
    /// What is missing, and what to do.
    pub fn of(mut blueprint: Blueprint, options: &CompileOptions) -> Result<Self> {
        let path = blueprint.path();
        let preprocessor = blueprint.json("preprocessor_config.json")?;
        let family = arch::parse(&blueprint.model.family, &blueprint.model.config, preprocessor.as_ref())
            .map_err(|source| Error::Family { path: path.to_owned(), source })?;
        let problems = missing_tensors(&blueprint, family.as_ref());
        if !problems.is_empty() {
            return Err(Error::DamagedModelDirectory { path: path.to_owned(), problems });
        }
        let most = family.shape().max_position_embeddings;
        let asked = options.contexts.get(&blueprint.name).copied().or(options.context);
        let context = match asked {
            None => {
                let picture = family.image().map_or(0, |image| picture_context(image) as usize);
                most.min(DEFAULT_CONTEXT.max(picture))
            }
            Some(context) if context > 0 && context as usize <= most => context as usize,
            Some(context) => return Err(Error::Context { model: blueprint.name, context, most }),
        } as u32;
        let max_rows = options.max_rows.clamp(1, context.max(1));
        let kv = options.kv.or(blueprint.model.kv).unwrap_or(FloatType::F16);
        blueprint.model.kv = Some(kv);
        Ok(Prepared { blueprint, family, context, max_rows, kv, taps: options.taps, shares: !options.also.is_empty() })
    }

    /// What the model is called in the bundle.
    pub fn name(&self) -> &str {
        &self.blueprint.name
    }

    /// The functions as the family defines them.
    pub fn graphs(&self) -> Vec<Graph> {
        // `open` has checked that each tensor is there.
        let formats = |name: &str| self.blueprint.format(name).unwrap_or(Format::Plain(FloatType::F32));
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
            shares: self.shares,
        }
    }

    /// What the names of the model's entries begin with.
    pub fn entries(&self) -> String {
        format!("models/{}", self.blueprint.name)
    }

    /// What the model was made from, for people.
    pub fn about(&self) -> BTreeMap<String, String> {
        let model = &self.blueprint.model;
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

/// All tensors of the family that the model directory lacks or has in another shape.
fn missing_tensors(blueprint: &Blueprint, family: &dyn Family) -> Vec<String> {
    let problem = |spec: arch::TensorSpec| match blueprint.model.tensors.get(&spec.name) {
        None => Some(format!("tensor `{}` is missing", spec.name)),
        Some(info) if info.shape != spec.shape => {
            Some(format!("tensor `{}` is {:?}, its family expects {:?}", spec.name, info.shape, spec.shape))
        }
        Some(_) => None,
    };
    family.tensors().into_iter().filter_map(problem).collect()
}
