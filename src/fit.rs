//! `dwindle compile --fit`: gathers the ways in which each model could be stored, and has the compiler choose.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use dwindle_compiler::checkpoint::ModelDir;
use dwindle_compiler::compile::{Blueprint, Draft};
use dwindle_compiler::fit::{Candidate, Fitted, SCHEMES, Wishes, fit, same_model};
use dwindle_compiler::size::Size;
use dwindle_compiler::work::Work;
use dwindle_schemes::{Format, Role, Scheme};

use crate::compile::{Job, Origin, Planned};
use crate::schemes;
use crate::source::{Described, Source};

/// A model of the bundle to be.
enum Group<'a> {
    /// Directories of one model in several schemes.
    Quantized(Vec<(ModelDir, Blueprint)>),
    /// A source that can be quantized in any of the schemes, and the memory that takes.
    Open(&'a Source, Vec<(Scheme, Blueprint)>, u64),
}

/// Chooses so that the bundle's worst moment takes at most `budget`; nothing is written.
pub fn plan(job: &Job<'_>, budget: Size) -> Result<Planned> {
    let groups = groups(job)?;
    let blueprints = |group: &Group<'_>| -> Vec<Blueprint> {
        match group {
            Group::Quantized(variants) => variants.iter().map(|(_, blueprint)| blueprint.clone()).collect(),
            Group::Open(_, variants, _) => variants.iter().map(|(_, blueprint)| blueprint.clone()).collect(),
        }
    };
    let candidates = groups.iter().map(|group| Candidate::new(blueprints(group))).collect::<Result<Vec<_>, _>>()?;
    let wishes = Wishes { budget: budget.0, residency: job.target.residency };
    let Fitted { options, blueprints, choices, report } = fit(&candidates, wishes, &job.target.options())?;
    let draft = Draft::new(blueprints, &options)?;
    let (mut bytes_in, mut meanwhile, mut peak_memory) = (0, 0, 0);
    let mut origins = Vec::new();
    for (((group, candidate), choice), (model, _)) in
        groups.into_iter().zip(&candidates).zip(choices).zip(draft.models())
    {
        origins.push(match group {
            Group::Quantized(mut given) => {
                let mut variants = Vec::new();
                for blueprint in candidate.variants() {
                    let at = given.iter().position(|(directory, _)| directory.path() == blueprint.path());
                    variants.push(given.swap_remove(at.context("each variant has a directory")?).0);
                }
                bytes_in += model.blueprint.tensor_bytes();
                Origin::Quantized { variants, choice }
            }
            Group::Open(source, variants, memory) => {
                bytes_in += source.bytes()?;
                meanwhile += model.blueprint.tensor_bytes();
                peak_memory = peak_memory.max(memory);
                Origin::Quantize { source: source.clone(), scheme: Box::new(mixed(candidate, &variants, &choice)?) }
            }
        });
    }
    let work = draft.work(bytes_in, meanwhile)?;
    let work = Work { peak_memory: work.peak_memory.max(peak_memory), ..work };
    Ok(Planned { draft, options, origins, work, fit: Some(report) })
}

/// Sources of the same model together.
fn groups<'a>(job: &Job<'a>) -> Result<Vec<Group<'a>>> {
    let schemes: Vec<&str> = match &job.preparation.scheme {
        Some(scheme) => vec![scheme],
        None => SCHEMES.to_vec(),
    };
    let schemes = schemes.into_iter().map(schemes::named).collect::<Result<Vec<_>, _>>()?;
    let mut groups: Vec<Group<'a>> = Vec::new();
    for source in job.sources {
        let mut open = Vec::new();
        let mut memory = 0;
        for scheme in &schemes {
            match source.described(scheme, job.preparation, &|| job.work(), job.bars)? {
                Described::Planned(blueprint, work) => {
                    open.push((scheme.clone(), *blueprint));
                    memory = memory.max(work.peak_memory);
                }
                Described::Quantized(directory) => {
                    let blueprint = Blueprint::of(&directory)?;
                    let same = groups.iter_mut().find_map(|group| match group {
                        Group::Quantized(variants) if same_model(&variants[0].1, &blueprint) => Some(variants),
                        _ => None,
                    });
                    match same {
                        Some(variants) if variants.iter().any(|(known, _)| known.path() == directory.path()) => {
                            bail!("{} is named twice", directory.path().display())
                        }
                        Some(variants) => variants.push((*directory, blueprint)),
                        None => groups.push(Group::Quantized(vec![(*directory, blueprint)])),
                    }
                    break;
                }
            }
        }
        if !open.is_empty() {
            groups.push(Group::Open(source, open, memory));
        }
    }
    Ok(groups)
}

/// The scheme whose formats are those of the chosen variants.
fn mixed(candidate: &Candidate, given: &[(Scheme, Blueprint)], choice: &BTreeMap<Role, usize>) -> Result<Scheme> {
    let scheme = |variant: usize| -> Result<&Scheme> {
        let name = candidate.variants().get(variant).and_then(|blueprint| blueprint.model.scheme.as_deref());
        let found = given.iter().find(|(scheme, _)| Some(scheme.name.as_str()) == name);
        Ok(&found.context("each variant has a scheme")?.0)
    };
    let chosen =
        choice.iter().map(|(&role, &variant)| Ok((role, scheme(variant)?))).collect::<Result<BTreeMap<_, _>>>()?;
    let first = scheme(0)?;
    let single = chosen.values().next().copied().unwrap_or(first);
    if chosen.values().all(|scheme| scheme.name == single.name) {
        return Ok(single.clone());
    }
    let format = |role: Role| -> Format { chosen.get(&role).copied().unwrap_or(first).format(role) };
    Ok(first.with_formats("mixed", format))
}

/// Says that a bundle made of real directories keeps the budget its plan was made for.
pub fn check(draft: &Draft, planned: &Planned, output: &Path) -> Result<()> {
    match &planned.fit {
        Some(fit) if draft.memory().peak > fit.budget => bail!(
            "{} would take {} at its worst moment, more than the budget of {}",
            output.display(),
            Size(draft.memory().peak),
            Size(fit.budget)
        ),
        _ => Ok(()),
    }
}
