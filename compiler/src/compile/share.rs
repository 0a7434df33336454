//! What the targets of a bundle have in common is written once: which entries each of them writes, and which it only names.

use std::collections::{BTreeMap, BTreeSet};

use dwindle_bundle::{BufferKind, Code, Manifest, Plan};
use serde::Serialize;

use super::Prepared;
use super::draft::Build;
use crate::kernels::Emitted;
use crate::lower::{LowerError, Lowered};

/// What one target adds to a bundle.
#[derive(Debug, Default)]
pub struct Share<'a> {
    /// The plan of each model, with the names of entries where they are.
    pub plans: Vec<Plan>,
    /// For each model, segments that no target before has, and the entry of each.
    pub weights: Vec<Vec<(usize, String)>>,
    /// Kernels with text, by the name of their entries without an extension; and whether the text is to be written, too.
    pub kernels: BTreeMap<String, (&'a Emitted, bool)>,
}

/// Finds out what each target adds, in order.
///
/// # Errors
/// Two models of a target have different kernels of one name.
pub fn shares<'a>(models: &[Prepared], builds: &'a [Build]) -> Result<Vec<Share<'a>>, LowerError> {
    let mut weights: Vec<Vec<(&Lowered, usize, String)>> = models.iter().map(|_| Vec::new()).collect();
    let mut texts: BTreeMap<String, &str> = BTreeMap::new();
    let mut shares = Vec::with_capacity(builds.len());
    for (number, build) in builds.iter().enumerate() {
        let target = build.target.name.name();
        let mut share = Share::default();
        let kernels = build.kernels()?;
        let mut stems = BTreeMap::new();
        for (&name, &kernel) in kernels.iter().filter(|(_, kernel)| kernel.native.is_none()) {
            let plain = format!("kernels/{name}");
            let stem = match texts.get(&plain) {
                Some(text) if *text != kernel.wgsl => format!("kernels/{target}/{name}"),
                _ => plain,
            };
            let is_new = texts.insert(stem.clone(), &kernel.wgsl).is_none();
            stems.insert(name, stem.clone());
            share.kernels.insert(stem, (kernel, is_new));
        }
        for ((model, lowered), known) in models.iter().zip(&build.lowered).zip(&mut weights) {
            let mut entries = BTreeMap::new();
            let mut new = Vec::new();
            for segment in 0..lowered.weights.segments.len() {
                let plain = model.lower_options().weights_entry(segment);
                let there =
                    known.iter().find(|(other, at, _)| lowered.weights.has_segment(segment, &other.weights, *at));
                let entry = match there {
                    Some((_, _, entry)) => entry.clone(),
                    None => {
                        let entry = if number == 0 {
                            plain.clone()
                        } else {
                            format!("{}/{target}/weights.{segment}", model.entries())
                        };
                        new.push((segment, entry.clone()));
                        known.push((lowered, segment, entry.clone()));
                        entry
                    }
                };
                entries.insert(plain, entry);
            }
            share.plans.push(renamed(&lowered.plan, &entries, &stems));
            share.weights.push(new);
        }
        shares.push(share);
    }
    Ok(shares)
}

/// The plan with other names of entries.
fn renamed(plan: &Plan, weights: &BTreeMap<String, String>, stems: &BTreeMap<&str, String>) -> Plan {
    let mut plan = plan.clone();
    for buffer in &mut plan.buffers {
        if let BufferKind::Weights(entry) = &mut buffer.kind
            && let Some(name) = weights.get(entry)
        {
            entry.clone_from(name);
        }
    }
    for kernel in &mut plan.kernels {
        if let (Code::Wgsl { text, spirv, msl }, Some(stem)) = (&mut kernel.code, stems.get(kernel.name.as_str())) {
            *text = format!("{stem}.wgsl");
            spirv.iter_mut().for_each(|entry| *entry = format!("{stem}.spv"));
            msl.iter_mut().for_each(|entry| *entry = format!("{stem}.metal"));
        }
    }
    plan
}

/// How a bundle's bytes are divided among its targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Division {
    /// Bytes of entries that several targets use.
    pub shared: u64,
    /// Bytes of entries that only this target uses, in the order of the targets.
    pub own: Vec<u64>,
}

impl Division {
    /// That of a written bundle.
    pub fn of(manifest: &Manifest) -> Division {
        let views: Vec<Manifest> =
            manifest.targets().filter_map(|target| manifest.clone().for_target(&target.name)).collect();
        let used: Vec<BTreeSet<&str>> = views.iter().map(Manifest::used_entries).collect();
        let mut division = Division { shared: 0, own: vec![0; used.len()] };
        for (name, entry) in &manifest.entries {
            let mut users = used.iter().enumerate().filter(|(_, names)| names.contains(name.as_str())).map(|(i, _)| i);
            match (users.next(), users.next()) {
                (Some(only), None) => division.own[only] += entry.bytes,
                (Some(_), Some(_)) => division.shared += entry.bytes,
                (None, _) => {}
            }
        }
        division
    }
}
