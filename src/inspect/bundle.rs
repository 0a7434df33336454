//! What `inspect` tells of a bundle: for each of its targets, or one stage of one of them.

use anyhow::{Result, bail};
use dwindle_bundle::{Bundle, Manifest};
use dwindle_compiler::compile::{Division, Moments, Stage};
use dwindle_compiler::lower::print_plan;
use dwindle_compiler::size::Size;
use serde_json::{Value, json};

use super::Options;

/// The overview, or one stage of one target.
///
/// # Errors
/// A damaged entry, a target that is not there, a stage that bundles do not hold.
pub(super) fn of_bundle(bundle: &Bundle, options: &Options) -> Result<String> {
    let selected;
    let bundle = match options.target.only()? {
        Some(target) => {
            selected = bundle.select(target.name())?;
            &selected
        }
        None => bundle,
    };
    let manifest = bundle.manifest();
    if options.stage.is_none() || options.stage == Some(Stage::Memory) {
        bundle.verify()?;
    }
    let text = match options.stage {
        None if options.json => return Ok(serde_json::to_string_pretty(manifest)?),
        None => overview(bundle),
        Some(Stage::Plan) => join(manifest.models.iter().map(|m| format!("model {}\n{}", m.name, print_plan(&m.plan)))),
        Some(Stage::Kernels) => {
            let names = manifest.used_entries();
            let names = names.iter().filter(|name| name.ends_with(".wgsl"));
            let mut texts =
                names.map(|name| Ok(format!("// {name}\n{}", bundle.text(name)?))).collect::<Result<Vec<_>>>()?;
            for kernel in manifest.models.iter().flat_map(|model| &model.plan.kernels) {
                if let dwindle_bundle::Code::Native { name, constants } = &kernel.code {
                    texts.push(format!("// {}\n{name} {}\n", kernel.name, serde_json::to_string_pretty(constants)?));
                }
            }
            join(texts)
        }
        Some(Stage::Memory) => join(
            manifest
                .models
                .iter()
                .map(|m| {
                    let bytes = &m.memory;
                    let parts = [
                        ("weights", bytes.weights),
                        ("states", bytes.states),
                        ("scratch", bytes.scratch),
                        ("ports", bytes.ports),
                        ("native", bytes.activations),
                        ("total", bytes.total()),
                    ];
                    let lines = parts.map(|(what, bytes)| format!("  {what:<9} {:>12}", Size(bytes).to_string()));
                    format!("model {}, {} positions\n{}", m.name, m.context, lines.join("\n"))
                })
                .chain([Moments(&manifest.memory).to_string()]),
        ),
        Some(Stage::Weights) => join(manifest.models.iter().flat_map(|m| {
            let weights = m.plan.buffers.iter().filter(|b| matches!(b.kind, dwindle_bundle::BufferKind::Weights(_)));
            weights.map(move |b| format!("{} {}: {}", m.name, b.name, Size(b.bytes)))
        })),
        Some(stage @ (Stage::Graph | Stage::Optimized)) => {
            bail!("a bundle holds no graphs: name the model directory it was compiled from for --stage {stage}")
        }
    };
    match options.json {
        true => {
            Ok(serde_json::to_string_pretty(&json!({ "stage": options.stage.map(|s| s.to_string()), "text": text }))?)
        }
        false => Ok(text),
    }
}

fn join(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().collect::<Vec<_>>().join("\n")
}

fn overview(bundle: &Bundle) -> String {
    let manifest = bundle.manifest();
    let names: Vec<&str> = manifest.targets().map(|target| target.name.as_str()).collect();
    let several = names.len() > 1;
    let (size, plural) = (Size(bundle.file_bytes()), if several { "s" } else { "" });
    let mut text = format!("bundle     {size}, target{plural} {}, all hashes right\n", names.join(", "));
    for model in &manifest.models {
        text += &format!("\nmodel      {}\n", model.name);
        for (key, value) in &model.about {
            text += &format!("  {key:<16} {value}\n");
        }
        text += &format!("  {:<16} {}\n", "context", model.context);
        let tokenizer = if model.text.is_some() { "yes" } else { "no: only `dwindle logits` works" };
        text += &format!("  {:<16} {tokenizer}\n", "tokenizer");
        text += &format!("  {:<16} {}\n", "pictures", if model.image.is_some() { "yes" } else { "no" });
    }
    if let Some(ensemble) = &manifest.ensemble {
        let quote = |text: &str| Value::from(text).to_string();
        text += &format!("\nensemble   {} describes, {} chats\n", ensemble.describe, ensemble.chat);
        text += &format!(
            "  describe prompt  {}\n  handover         {}\n  in memory        {}\n",
            quote(&ensemble.describe_prompt),
            quote(&ensemble.handover),
            ensemble.residency
        );
    }
    let division = Division::of(manifest);
    if several {
        text += &format!("\nshared     {}\n", Size(division.shared));
    }
    let views = names.iter().filter_map(|name| manifest.clone().for_target(name));
    for (view, own) in views.zip(division.own) {
        text += &target(&view, several.then_some(own));
    }
    text
}

/// The plans of [`Manifest::target`]; `own` is what the target has for itself, where there are others.
fn target(manifest: &Manifest, own: Option<u64>) -> String {
    let own = own.map_or(String::new(), |bytes| format!(", {} of its own", Size(bytes)));
    let mut text = format!("\ntarget     {}{own}\n", manifest.target.name);
    for (limit, needed) in &manifest.target.needs {
        text += &format!("  needs {limit} {needed}\n");
    }
    for model in &manifest.models {
        let functions = model.plan.functions.iter().map(|(name, function)| format!("{name} {}", function.steps.len()));
        let dispatches = functions.collect::<Vec<_>>().join(", ");
        text += &format!("  {}: buffers {}; dispatches: {dispatches}\n", model.name, Size(model.memory.total()));
    }
    text + &format!("{}\n", Moments(&manifest.memory))
}
