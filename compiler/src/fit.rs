//! Fits a bundle into a memory budget: residency, context, type of the caches, and how each class of tensors is stored.
//!
//! What is given up, and in which order, is always the same (see [`fit`]); every step is weighed by lowering the models anew,
//! so its figures are those of the bundle that would come of it. Steps that do not lower the worst moment are not taken.

mod noise;
mod search;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use dwindle_bundle::Residency;
use dwindle_schemes::Role;

pub use search::fit;
pub use table::{FitReport, FitStep};

use crate::compile::{Blueprint, CompileOptions};
use crate::error::{Error, Result};

/// Positions that a context is not shortened below, unless the user says otherwise.
pub const FLOOR: u32 = 1024;

/// Schemes that an unquantized model may be stored in, the most bits first: all up to 8 bits that no other one beats in
/// both bytes and noise. Beyond 8 bits nothing is gained that could be measured; it would only cost time.
pub const SCHEMES: [&str; 8] =
    ["q8f16_1", "q6f16_1", "q5f16_min", "q5f16_1", "q4f16_min", "q4f16_1", "q4f16_asym", "q3f16_1"];

/// One model, in the ways it could be stored.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// Descriptions that differ in formats alone, the most bits first.
    variants: Vec<Blueprint>,
}

/// What the user wants.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Bytes that the worst moment may take.
    pub budget: u64,
    /// Residency that is not a matter of choice.
    pub residency: Option<Residency>,
}

/// What was chosen.
#[derive(Debug)]
pub struct Fitted {
    /// For compiling: contexts, type of the caches and residency are set.
    pub options: CompileOptions,
    /// For each model, its description with the chosen formats.
    pub blueprints: Vec<Blueprint>,
    /// For each model and class of tensors, the number of the chosen variant.
    pub choices: Vec<BTreeMap<Role, usize>>,
    /// What was tried, and why.
    pub report: FitReport,
}

impl Candidate {
    /// A model in these variants, of which there is at least one; the first gives the name.
    ///
    /// # Errors
    /// They are not of one model: family, configuration or shapes differ.
    pub fn new(mut variants: Vec<Blueprint>) -> Result<Self> {
        let Some(first) = variants.first().cloned() else {
            return Err(Error::Ensemble { reason: "no model is given".to_owned() });
        };
        for other in &variants {
            if !same_model(&first, other) {
                let (one, two) = (first.path().display(), other.path().display());
                let reason =
                    format!("{one} and {two} are no variants of one model: their configurations or tensors differ");
                return Err(Error::Ensemble { reason });
            }
        }
        // Stable, so that of two equal ones the first given is the first tried.
        variants.sort_by_key(|variant| std::cmp::Reverse(variant.tensor_bytes()));
        variants.iter_mut().for_each(|variant| variant.name.clone_from(&first.name));
        Ok(Candidate { variants })
    }

    /// Number of variants.
    pub fn variants(&self) -> &[Blueprint] {
        &self.variants
    }

    /// Classes of tensors that the model has and that are stored differently in some variants.
    fn roles(&self) -> Vec<Role> {
        let roles: std::collections::BTreeSet<Role> = self.variants[0]
            .model
            .tensors
            .values()
            .map(|info| info.role)
            .filter(|role| *role != Role::Vector)
            .collect();
        roles.into_iter().collect()
    }

    /// The description with each class of tensors as in the variant that `choice` names.
    fn blueprint(&self, choice: &BTreeMap<Role, usize>) -> Blueprint {
        let of = |role: Role| &self.variants[choice.get(&role).copied().unwrap_or(0)];
        let mut chosen = self.variants[0].clone();
        for (name, info) in &mut chosen.model.tensors {
            if let Some(other) = of(info.role).model.tensors.get(name) {
                info.format = other.format;
            }
        }
        let labels: BTreeMap<&str, Vec<Role>> = choice.keys().fold(BTreeMap::new(), |mut labels, &role| {
            labels.entry(label(of(role))).or_insert_with(Vec::new).push(role);
            labels
        });
        let label = |(label, roles): (&&str, &Vec<Role>)| {
            let roles: Vec<String> = roles.iter().map(|role| table::class(*role)).collect();
            format!("{label} ({})", roles.join(", "))
        };
        chosen.model.scheme = match labels.len() {
            0 | 1 => labels.keys().next().map(|label| (*label).to_owned()).or(chosen.model.scheme),
            _ => Some(labels.iter().map(label).collect::<Vec<_>>().join(" + ")),
        };
        if labels.len() > 1 {
            // The card of the first variant says nothing of a mixture.
            chosen.model.card = None;
        }
        chosen
    }
}

/// What a variant is called.
fn label(variant: &Blueprint) -> &str {
    variant.model.scheme.as_deref().unwrap_or("unquantized")
}

/// Whether two descriptions are of the same model, stored in two ways.
pub fn same_model(a: &Blueprint, b: &Blueprint) -> bool {
    let tensors = |blueprint: &Blueprint| {
        let tensor =
            |(name, info): (&String, &crate::checkpoint::TensorInfo)| (name.clone(), info.role, info.shape.clone());
        blueprint.model.tensors.iter().map(tensor).collect::<Vec<_>>()
    };
    a.model.family == b.model.family
        && a.model.config == b.model.config
        && a.model.sources == b.model.sources
        && tensors(a) == tensors(b)
}
