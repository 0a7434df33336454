//! The order in which quality is given up, and given back.

use std::collections::BTreeMap;

use dwindle_bundle::{Ensemble, Estimates, Memory, MemoryPlan, Residency};
use dwindle_schemes::{FloatType, Role};

use super::noise::Noise;
use super::table::class;
use super::{Candidate, FLOOR, FitReport, FitStep, Fitted, Wishes, label};
use crate::compile::{Blueprint, CompileOptions, Prepared, ensemble, estimates, picture_context};
use crate::error::{Error, Result};

/// Contexts that are given back are multiples of this many positions.
const CONTEXT_STEP: u32 = 128;

/// Chooses so that the worst moment of running these models takes at most the budget.
///
/// Until it does, in this order: an ensemble's models take turns in memory (`swap`), which costs time but no quality; caches hold
/// f16 instead of f32; contexts are halved, that of the model whose cache weighs most first, down to a floor
/// (`options.context`, or [`FLOOR`]; a describing model's never below its largest picture); then one class of tensors of one model at a
/// time goes to its next smaller variant, the one that saves most for the noise it adds. At last, what turned out to be more
/// than was needed is given back: variants, the noisiest first, then contexts.
///
/// # Errors
/// [`Error::Fit`] with the table and the least budget that would do; those of lowering.
pub fn fit(candidates: &[Candidate], wishes: Wishes, options: &CompileOptions) -> Result<Fitted> {
    let mut search = Search::new(candidates, wishes, options)?;
    search.take_turns()?;
    search.shorten_caches()?;
    search.shorten_contexts()?;
    search.lower_variants()?;
    if search.peak > wishes.budget {
        let report = search.report();
        return Err(Error::Fit { budget: wishes.budget, needed: search.peak, table: report.to_string() });
    }
    search.give_back_variants()?;
    search.give_back_contexts()?;
    search.finish()
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    residency: Residency,
    /// `None` is what each model says.
    kv: Option<FloatType>,
    contexts: Vec<u32>,
    choices: Vec<BTreeMap<Role, usize>>,
}

/// A model's number, context, type of caches and choice.
type Key = (usize, u32, Option<FloatType>, Vec<usize>);

struct Search<'a> {
    candidates: &'a [Candidate],
    options: &'a CompileOptions,
    wishes: Wishes,
    ensemble: Option<Ensemble>,
    estimates: Estimates,
    floors: Vec<u32>,
    /// Contexts at the beginning, the longest that are tried.
    longest: Vec<u32>,
    kv: Vec<FloatType>,
    known: BTreeMap<Key, Memory>,
    setting: Setting,
    peak: u64,
    steps: Vec<FitStep>,
}

impl<'a> Search<'a> {
    fn new(candidates: &'a [Candidate], wishes: Wishes, options: &'a CompileOptions) -> Result<Self> {
        // What the user says of the context is a floor here.
        let free = CompileOptions { context: None, contexts: BTreeMap::new(), ..options.clone() };
        let prepare = |candidate: &Candidate| Prepared::of(candidate.variants[0].clone(), &free);
        let prepared = candidates.iter().map(prepare).collect::<Result<Vec<_>>>()?;
        let ensemble = ensemble::ensemble(&prepared, options)?;
        let mut floors = Vec::new();
        let mut longest = Vec::new();
        for model in &prepared {
            let most = model.family.shape().max_position_embeddings;
            let asked = options.context.unwrap_or(FLOOR.min(model.context));
            if asked == 0 || asked as usize > most {
                return Err(Error::Context { model: model.name().to_owned(), context: asked, most });
            }
            let start = model.context.max(asked);
            let rows = model.family.image().map_or(0, picture_context);
            floors.push(asked.max(rows.min(start)));
            longest.push(start);
        }
        let kv = prepared.iter().map(|model| model.blueprint.model.kv.unwrap_or(FloatType::F16)).collect();
        let choices = candidates.iter().map(|c| c.roles().into_iter().map(|role| (role, 0)).collect()).collect();
        let residency = wishes.residency.unwrap_or_default();
        let setting = Setting { residency, kv: options.kv, contexts: longest.clone(), choices };
        let estimates = estimates(&prepared, options.target.name)?;
        let mut search = Search {
            candidates,
            options,
            wishes,
            ensemble,
            estimates,
            floors,
            longest,
            kv,
            known: BTreeMap::new(),
            setting: setting.clone(),
            peak: 0,
            steps: Vec::new(),
        };
        search.peak = search.weigh(&setting)?;
        let models = candidates.iter().zip(&search.longest);
        let describe = |(candidate, context): (&Candidate, &u32)| {
            let first = &candidate.variants[0];
            format!("{} {}, context {context}", first.name, label(first))
        };
        let why = models.map(describe).collect::<Vec<_>>().join("; ");
        search.steps.push(FitStep { what: "to begin with".to_owned(), peak: search.peak, why });
        Ok(search)
    }

    fn fits(&self) -> bool {
        self.peak <= self.wishes.budget
    }

    fn name(&self, model: usize) -> &str {
        &self.candidates[model].variants[0].name
    }

    /// What the worst moment takes.
    fn weigh(&mut self, setting: &Setting) -> Result<u64> {
        let mut models = Vec::with_capacity(self.candidates.len());
        for (index, candidate) in self.candidates.iter().enumerate() {
            let choice = &setting.choices[index];
            let key = (index, setting.contexts[index], setting.kv, choice.values().copied().collect());
            let memory = match self.known.get(&key) {
                Some(memory) => *memory,
                None => {
                    let options = self.options_for(setting);
                    let prepared = Prepared::of(candidate.blueprint(choice), &options)?;
                    let memory = prepared.lower(&options)?.plan.memory();
                    self.known.insert(key, memory);
                    memory
                }
            };
            models.push((candidate.variants[0].name.as_str(), memory));
        }
        let ensemble = self.ensemble.clone().map(|ensemble| Ensemble { residency: setting.residency, ..ensemble });
        Ok(MemoryPlan::new(&models, ensemble.as_ref(), self.estimates.clone()).peak)
    }

    fn options_for(&self, setting: &Setting) -> CompileOptions {
        let contexts = (0..).zip(&setting.contexts).map(|(index, &context)| (self.name(index).to_owned(), context));
        CompileOptions {
            context: None,
            contexts: contexts.collect(),
            kv: setting.kv,
            residency: setting.residency,
            ..self.options.clone()
        }
    }

    fn adopt(&mut self, setting: Setting, peak: u64, what: String, why: String) {
        self.setting = setting;
        self.peak = peak;
        self.steps.push(FitStep { what, peak, why });
    }

    fn take_turns(&mut self) -> Result<()> {
        if self.fits() || self.ensemble.is_none() || self.wishes.residency.is_some() {
            return Ok(());
        }
        let setting = Setting { residency: Residency::Swap, ..self.setting.clone() };
        let peak = self.weigh(&setting)?;
        if peak < self.peak {
            let why = "costs time at each picture, no quality".to_owned();
            self.adopt(setting, peak, "residency both -> swap".to_owned(), why);
        }
        Ok(())
    }

    fn shorten_caches(&mut self) -> Result<()> {
        if self.fits() || self.setting.kv.is_some() || !self.kv.contains(&FloatType::F32) {
            return Ok(());
        }
        let setting = Setting { kv: Some(FloatType::F16), ..self.setting.clone() };
        let peak = self.weigh(&setting)?;
        if peak < self.peak {
            self.adopt(setting, peak, "caches f32 -> f16".to_owned(), "rounds keys and values to 11 bits".to_owned());
        }
        Ok(())
    }

    fn shorten_contexts(&mut self) -> Result<()> {
        while !self.fits() {
            let mut best: Option<(u64, usize, Setting)> = None;
            for model in 0..self.candidates.len() {
                let (now, floor) = (self.setting.contexts[model], self.floors[model]);
                let mut setting = self.setting.clone();
                setting.contexts[model] = (now / 2).max(floor);
                if now > floor {
                    let peak = self.weigh(&setting)?;
                    if peak < best.as_ref().map_or(self.peak, |(peak, ..)| *peak) {
                        best = Some((peak, model, setting));
                    }
                }
            }
            let Some((peak, model, setting)) = best else { return Ok(()) };
            let (name, now, next) = (self.name(model), self.setting.contexts[model], setting.contexts[model]);
            let what = format!("{name}: context {now} -> {next}");
            self.adopt(setting, peak, what, format!("floor {}", self.floors[model]));
        }
        Ok(())
    }

    fn noise(&self, model: usize, role: Role, variant: usize) -> Noise {
        Noise::of(&self.candidates[model].variants[variant], role)
    }

    /// The change of one class of tensors to another variant, in words.
    fn change(&self, model: usize, role: Role, from: usize, to: usize) -> (String, String) {
        let variants = &self.candidates[model].variants;
        let (before, after) = (label(&variants[from]), label(&variants[to]));
        let what = format!("{}: {} {before} -> {after}", self.name(model), class(role));
        let [old, new] = [from, to].map(|variant| self.noise(model, role, variant).decibel());
        (what, format!("signal to noise {old:.1} -> {new:.1} dB"))
    }

    fn lower_variants(&mut self) -> Result<()> {
        while !self.fits() {
            let mut best: Option<(f64, u64, usize, Role, Setting)> = None;
            for model in 0..self.candidates.len() {
                for (role, variant) in self.setting.choices[model].clone() {
                    // The next one that is stored differently.
                    let variants = self.candidates[model].variants.len();
                    let mut setting = self.setting.clone();
                    for next in variant + 1..variants {
                        // Short rows are padded, so a variant may be larger than a better one that follows.
                        let noise = self.noise(model, role, next).sum;
                        if (next + 1..variants).any(|later| self.noise(model, role, later).sum < noise) {
                            continue;
                        }
                        setting.choices[model].insert(role, next);
                        let peak = self.weigh(&setting)?;
                        if peak >= self.peak {
                            continue;
                        }
                        let added = noise - self.noise(model, role, variant).sum;
                        let worth = (self.peak - peak) as f64 / added.max(f64::MIN_POSITIVE);
                        if best.as_ref().is_none_or(|(most, ..)| worth > *most) {
                            best = Some((worth, peak, model, role, setting));
                        }
                        break;
                    }
                }
            }
            let Some((_, peak, model, role, setting)) = best else { return Ok(()) };
            let (what, why) =
                self.change(model, role, self.setting.choices[model][&role], setting.choices[model][&role]);
            self.adopt(setting, peak, what, why);
        }
        Ok(())
    }

    /// Takes back changes of variants that the later ones made unnecessary, the noisiest first.
    fn give_back_variants(&mut self) -> Result<()> {
        loop {
            let mut best: Option<(f64, u64, usize, Role, Setting)> = None;
            for model in 0..self.candidates.len() {
                for (role, variant) in self.setting.choices[model].clone() {
                    let noise = self.noise(model, role, variant).sum;
                    let better = (0..variant).rev().find(|&better| self.noise(model, role, better).sum < noise);
                    let Some(better) = better else { continue };
                    let mut setting = self.setting.clone();
                    setting.choices[model].insert(role, better);
                    let peak = self.weigh(&setting)?;
                    let removed = noise - self.noise(model, role, better).sum;
                    let more = best.as_ref().is_none_or(|(most, ..)| removed > *most);
                    if peak <= self.wishes.budget && more {
                        best = Some((removed, peak, model, role, setting));
                    }
                }
            }
            let Some((_, peak, model, role, setting)) = best else { return Ok(()) };
            let (what, why) =
                self.change(model, role, self.setting.choices[model][&role], setting.choices[model][&role]);
            self.adopt(setting, peak, what, format!("given back: {why}"));
        }
    }

    /// Makes contexts as long as the budget allows: the chat model's first.
    fn give_back_contexts(&mut self) -> Result<()> {
        let chat = self.ensemble.as_ref().map(|ensemble| ensemble.chat.clone());
        let mut order: Vec<usize> = (0..self.candidates.len()).collect();
        order.sort_by_key(|&model| chat.as_deref() != Some(self.name(model)));
        for model in order {
            let now = self.setting.contexts[model];
            let with = |context: u32, setting: &Setting| {
                let mut setting = setting.clone();
                setting.contexts[model] = context;
                setting
            };
            // Multiples of the step between now and the longest, and the longest itself: bisected.
            let steps: Vec<u32> = (now / CONTEXT_STEP + 1..=self.longest[model] / CONTEXT_STEP)
                .map(|n| n * CONTEXT_STEP)
                .chain([self.longest[model]])
                .filter(|&context| context > now)
                .collect();
            let (mut fit, mut out) = (0, steps.len());
            let mut found = None;
            while fit < out {
                let middle = (fit + out) / 2;
                let setting = with(steps[middle], &self.setting);
                let peak = self.weigh(&setting)?;
                if peak <= self.wishes.budget {
                    found = Some((setting, peak, steps[middle]));
                    fit = middle + 1;
                } else {
                    out = middle;
                }
            }
            if let Some((setting, peak, context)) = found {
                let what = format!("{}: context {now} -> {context}", self.name(model));
                self.adopt(setting, peak, what, "given back: there was room".to_owned());
            }
        }
        Ok(())
    }

    fn report(&self) -> FitReport {
        FitReport { budget: self.wishes.budget, peak: self.peak, steps: self.steps.clone() }
    }

    fn finish(self) -> Result<Fitted> {
        let blueprints: Vec<Blueprint> =
            self.candidates.iter().zip(&self.setting.choices).map(|(c, choice)| c.blueprint(choice)).collect();
        Ok(Fitted {
            options: self.options_for(&self.setting),
            report: self.report(),
            blueprints,
            choices: self.setting.choices,
        })
    }
}
