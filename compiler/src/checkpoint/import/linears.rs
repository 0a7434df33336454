//! Checkpoints of transformers whose linear layers are packed one by one, each in a few tensors: AutoAWQ's and GPTQ's.
//!
//! A layer `X` of weights `[n, k]` is published as `X.qweight` (codes), `X.qzeros`, `X.scales` and maybe `X.g_idx`, all with
//! columns and rows exchanged; what is no packed layer (embedding, norms, biases, mostly the head) is there as floats. Which bits
//! of a word belong to which weight is the [`Packing`]'s: see [`super::awq`] and [`super::gptq`].
//! `value = (code - zero) * scale`, so codes, zeros and scales pass through as they are.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dwindle_schemes::{FloatType, Format, Grouped, Zero};
use half::f16;
use serde_json::{Map, Value};

use super::{Offer, Packed, Rows, awq, gptq};
use crate::checkpoint::model_dir::{CarriedFile, MODEL_JSON, matrix};
use crate::checkpoint::safetensors::{Element, TensorView};
use crate::checkpoint::{Companions, IgnoredKeys, Source, json, names};
use crate::error::{Error, Result};
use crate::note::Note;

/// Key of `config.json` that tells how layers are packed.
const KEY: &str = "quantization_config";

/// Where older tools put the same.
const FILES: [&str; 2] = ["quantize_config.json", "quant_config.json"];

/// Group that a layer with one scale a row is cut into; each group repeats the scale.
const ROW_GROUP: usize = 128;

/// Little-endian words of a stored tensor.
pub(super) type Words<'a> = &'a [[u8; 4]];

/// How a publisher packs codes and zeros.
pub(super) trait Packing: fmt::Debug + Sync {
    /// Rows n and columns k of the layer that `X.qweight` of this shape holds.
    fn layer(&self, rows: usize, columns: usize) -> Option<(usize, usize)>;

    /// Replaces `out`, `[rows, words]`, by the codes of some rows of a layer of `n` rows: those of consecutive columns in a word,
    /// the first lowest.
    fn codes(&self, qweight: Words<'_>, n: usize, rows: Range<usize>, words: usize, out: &mut [u32]);

    /// The code of 0 in a row, of a group whose words of `X.qzeros` are `qzeros`.
    fn zero(&self, qzeros: Words<'_>, row: usize) -> u32;
}

/// What `quantization_config` says.
#[derive(Debug)]
pub(super) struct Settings {
    /// Name of the result.
    pub scheme: String,
    /// Bits of a code: 4 or 8.
    pub bits: u32,
    /// Columns that share scale and zero; `None` for whole rows.
    pub group: Option<usize>,
    /// The order of codes.
    pub packing: Box<dyn Packing>,
}

/// One packed layer; names are those of the file.
#[derive(Debug)]
struct Layer {
    n: usize,
    grouped: Grouped,
    /// Groups as published.
    groups: usize,
    qweight: Place,
    qzeros: Place,
    scales: Place,
}

/// A tensor of the source: number of its shard, and name.
type Place = (usize, String);

/// An open checkpoint.
#[derive(Debug)]
pub(super) struct Linears {
    source: Source,
    companions: Companions,
    config: Map<String, Value>,
    settings: Settings,
    offers: BTreeMap<String, Offer>,
    layers: BTreeMap<String, Layer>,
    plain: BTreeMap<String, Place>,
}

/// The checkpoint at `path`, if it says that it is quantized.
///
/// # Errors
/// It is quantized in a way that is not imported, or damaged.
pub(super) fn open(path: &Path, ignored: &IgnoredKeys) -> Result<Option<Box<dyn Packed>>> {
    if path.join(MODEL_JSON).is_file() || !path.join("config.json").is_file() {
        return Ok(None);
    }
    let Some(quantization) = settings_of(path, ignored)? else { return Ok(None) };
    let settings = match method(&quantization) {
        Some("awq") => awq::settings(&quantization)?,
        Some("gptq") => gptq::settings(&quantization)?,
        other => {
            let is = other
                .map_or("absent".to_owned(), |method| format!("`{}`", method.chars().take(40).collect::<String>()));
            return Err(unsupported(
                "quant_method",
                format!(
                    "is {is}; packed weights of `awq` and `gptq` are read: convert the unquantized checkpoint that this one was made from"
                ),
            ));
        }
    };
    let source = Source::open_ignoring(path, ignored)?;
    let mut config = source.outline().config().clone();
    config.remove(KEY);
    let companions = Companions::of(source.outline())?;
    let (offers, layers, plain) = Default::default();
    let mut linears = Linears { source, companions, config, settings, offers, layers, plain };
    linears.find()?;
    Ok(Some(Box::new(linears)))
}

/// Whether the checkpoint at `path`, of which only the weights may be missing, says that it is quantized.
///
/// # Errors
/// The configuration cannot be read.
pub(super) fn is_packed(path: &Path) -> Result<bool> {
    Ok(settings_of(path, &IgnoredKeys::default())?.is_some())
}

/// The method of a `quantization_config`; bitsandbytes' first ones do not name it.
fn method(settings: &Map<String, Value>) -> Option<&str> {
    let is_set = |key: &str| settings.get(key) == Some(&Value::Bool(true));
    let bitsandbytes = || (is_set("load_in_4bit") || is_set("load_in_8bit")).then_some("bitsandbytes");
    settings.get("quant_method").and_then(Value::as_str).or_else(bitsandbytes)
}

/// `quantization_config`, or the file that older tools wrote instead.
fn settings_of(path: &Path, ignored: &IgnoredKeys) -> Result<Option<Map<String, Value>>> {
    let mut config = json::read_object(&path.join("config.json"))?;
    if !ignored.remove_from(&mut config).is_empty() && !config.contains_key(KEY) {
        return Ok(None);
    }
    match config.remove(KEY) {
        None | Some(Value::Null) => {}
        Some(Value::Object(settings)) if settings.is_empty() => {}
        Some(Value::Object(settings)) => return Ok(Some(settings)),
        Some(other) => return Err(Error::Config { key: KEY.to_owned(), reason: format!("is {other}, not an object") }),
    }
    for (file, method) in FILES.into_iter().zip(["gptq", "awq"]) {
        let file = path.join(file);
        if file.is_file() {
            let mut settings = json::read_object(&file)?;
            settings.entry("quant_method").or_insert_with(|| method.into());
            for (old, new) in [("w_bit", "bits"), ("q_group_size", "group_size")] {
                if let Some(value) = settings.remove(old) {
                    settings.entry(new).or_insert(value);
                }
            }
            return Ok(Some(settings));
        }
    }
    Ok(None)
}

/// A value of `quantization_config` that is not imported.
pub(super) fn unsupported(key: &str, reason: String) -> Error {
    Error::Config { key: format!("{KEY}.{key}"), reason }
}

/// `bits`, one of `possible`.
pub(super) fn bits(settings: &Map<String, Value>, possible: &[u32]) -> Result<u32> {
    let value = settings.get("bits").unwrap_or(&Value::Null);
    let bits = value.as_u64().and_then(|bits| u32::try_from(bits).ok()).filter(|bits| possible.contains(bits));
    let expected = || possible.iter().map(u32::to_string).collect::<Vec<_>>().join(" or ");
    bits.ok_or_else(|| unsupported("bits", format!("is {value}; {} is imported", expected())))
}

/// `group_size`: `None` for whole rows.
pub(super) fn group(settings: &Map<String, Value>, bits: u32) -> Result<Option<usize>> {
    let value = settings.get("group_size").unwrap_or(&Value::Null);
    if value.as_i64() == Some(-1) {
        return Ok(None);
    }
    let group = value.as_u64().and_then(|group| usize::try_from(group).ok());
    let whole_words =
        |group: &usize| (1..=Grouped::MAX_GROUP).contains(group) && group.is_multiple_of(32 / bits as usize);
    let expected =
        format!("is {value}; -1 (whole rows) and multiples of {} up to {} are imported", 32 / bits, Grouped::MAX_GROUP);
    group.filter(whole_words).map(Some).ok_or_else(|| unsupported("group_size", expected))
}

/// `awq_q4g128`: what the result is called.
pub(super) fn scheme(method: &str, bits: u32, group: Option<usize>) -> String {
    group.map_or_else(|| format!("{method}_q{bits}row"), |group| format!("{method}_q{bits}g{group}"))
}

impl Linears {
    /// Sorts all tensors of the source into layers and floats.
    fn find(&mut self) -> Result<()> {
        let mut problems = Vec::new();
        let mut reordered = Vec::new();
        let all: BTreeMap<&str, (usize, TensorView<'_>)> =
            self.source.tensors().map(|(shard, view)| (view.name, (shard, view))).collect();
        let (mut layers, mut plain, mut offers) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (&name, &(shard, view)) in &all {
            let part = name.rsplit_once('.').filter(|(layer, part)| {
                ["qzeros", "scales", "g_idx"].contains(part) && all.contains_key(format!("{layer}.qweight").as_str())
            });
            if part.is_some() {
                continue;
            }
            let (published, offer) = match name.strip_suffix(".qweight") {
                Some(layer) => match self.layer(layer, &all, &mut reordered) {
                    Ok((found, k)) => {
                        let offer = Offer { shape: vec![found.n, k], format: Format::Grouped(found.grouped) };
                        let name = format!("{layer}.weight");
                        layers.insert(self.canonical(&name), found);
                        (name, offer)
                    }
                    Err(wrong) => {
                        problems.extend(wrong);
                        continue;
                    }
                },
                None => match view.dtype.float() {
                    Some(float) => {
                        plain.insert(self.canonical(name), (shard, name.to_owned()));
                        (name.to_owned(), Offer { shape: view.shape.to_vec(), format: Format::Plain(float) })
                    }
                    None => {
                        problems.push(format!("`{name}` is {}, and no part of a packed layer", view.dtype_name));
                        continue;
                    }
                },
            };
            if offers.insert(self.canonical(&published), offer).is_some() {
                problems.push(format!("`{published}` is there twice, packed and as floats or under two names"));
            }
        }
        if !problems.is_empty() {
            return Err(Error::PackedLayers { path: self.source.path().to_owned(), problems });
        }
        if let Some(first) = reordered.first() {
            let reason = format!(
                "{} layers, of which `{first}` is the first, sort columns by activation; quantize again with \
                 desc_act=False, or convert the unquantized checkpoint",
                reordered.len()
            );
            return Err(unsupported("desc_act", reason));
        }
        (self.layers, self.plain, self.offers) = (layers, plain, offers);
        Ok(())
    }

    fn canonical(&self, name: &str) -> String {
        names::canonical(name, self.source.outline().is_multimodal()).into_owned()
    }

    /// The layer with its number of columns, or everything that is wrong with it. `reordered` gets its `g_idx`, unless that is the
    /// order of the columns.
    fn layer(
        &self,
        name: &str,
        all: &BTreeMap<&str, (usize, TensorView<'_>)>,
        reordered: &mut Vec<String>,
    ) -> Result<(Layer, usize), Vec<String>> {
        let mut problems = Vec::new();
        let mut part = |part: &str, elements: &[Element]| {
            let name = format!("{name}.{part}");
            let found = all.get(name.as_str());
            match found {
                None => problems.push(format!("`{name}` is missing")),
                Some((_, view)) if !elements.contains(&view.dtype) => {
                    problems.push(format!("`{name}` is {}; {} is needed", view.dtype_name, elements[0]));
                }
                Some((_, view)) if view.shape.len() != 2 => {
                    problems.push(format!("`{name}` has the shape {:?}; a matrix is needed", view.shape));
                }
                Some((shard, view)) => return Some(((*shard, name), *view)),
            }
            None
        };
        let codes = [Element::I32, Element::U32];
        let qweight = part("qweight", &codes);
        let qzeros = part("qzeros", &codes);
        let scales = part("scales", &[Element::F16, Element::Bf16, Element::F32]);
        let (Some((qweight, codes)), Some((qzeros, zeros)), Some((scales, scale))) = (qweight, qzeros, scales) else {
            return Err(problems);
        };
        let Settings { bits, group, packing, .. } = &self.settings;
        let Some((n, k)) = packing.layer(codes.shape[0], codes.shape[1]).filter(|&(n, k)| n > 0 && k > 0) else {
            return Err(vec![format!("`{name}.qweight` has the shape {:?}, which holds no weights", codes.shape)]);
        };
        let per_word = 32 / *bits as usize;
        let groups = group.map_or(1, |group| k.div_ceil(group));
        for (part, view, needed) in
            [("qzeros", &zeros, [groups, n.div_ceil(per_word)]), ("scales", &scale, [groups, n])]
        {
            if view.shape != needed {
                problems.push(format!(
                    "`{name}.{part}` has the shape {:?}; {needed:?} goes with {n} rows of {k} weights",
                    view.shape
                ));
            }
        }
        if let Some((_, order)) = all.get(format!("{name}.g_idx").as_str()) {
            match (order.dtype, order.shape) {
                (Element::I32 | Element::U32, [length]) if *length == k => {
                    let group_of = |column: usize| group.map_or(0, |group| column / group);
                    let words = order.bytes.as_chunks::<4>().0;
                    if words.iter().enumerate().any(|(k, word)| u32::from_le_bytes(*word) as usize != group_of(k)) {
                        reordered.push(format!("{name}.g_idx"));
                    }
                }
                _ => problems
                    .push(format!("`{name}.g_idx` is {} {:?}; I32 [{k}] is needed", order.dtype_name, order.shape)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let zero = self.common_zero(zeros, n);
        let float = if scale.dtype == Element::F16 { FloatType::F16 } else { FloatType::F32 };
        let grouped = Grouped { bits: *bits, group: group.unwrap_or(ROW_GROUP), scale: float, zero };
        Ok((Layer { n, grouped, groups, qweight, qzeros, scales }, k))
    }

    /// Symmetric quantization writes the same zero for all groups, which then needs no room.
    fn common_zero(&self, qzeros: TensorView<'_>, n: usize) -> Zero {
        let Settings { bits, packing, .. } = &self.settings;
        let words = qzeros.bytes.as_chunks::<4>().0;
        let mut groups =
            words.chunks_exact(qzeros.shape[1]).flat_map(|words| (0..n).map(|row| packing.zero(words, row)));
        let first = groups.next().unwrap_or_default();
        // One that is no code (see `gptq`) can only be stored.
        if first >> bits == 0 && groups.all(|zero| zero == first) { Zero::of(*bits, first) } else { Zero::Stored }
    }

    fn view(&self, (shard, name): &Place) -> TensorView<'_> {
        self.source.shards()[*shard].tensor(name).expect("the shard was found to have it")
    }
}

impl Packed for Linears {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn model_type(&self) -> &str {
        self.source.outline().model_type()
    }

    fn config(&self) -> &Map<String, Value> {
        &self.config
    }

    fn preprocessor(&self) -> Result<Option<Value>> {
        Ok(self.source.outline().preprocessor().cloned())
    }

    fn scheme(&self) -> &str {
        &self.settings.scheme
    }

    fn kv(&self) -> FloatType {
        FloatType::F16
    }

    fn offers(&self) -> &BTreeMap<String, Offer> {
        &self.offers
    }

    fn read(&self, name: &str, rows: Range<usize>, out: &mut Rows) -> Result<()> {
        let Some(layer) = self.layers.get(name) else {
            let view = self.view(&self.plain[name]);
            let row = matrix(view.shape).1 * view.float()?.bytes();
            out.floats.clear();
            out.floats.extend_from_slice(&view.bytes[rows.start * row..rows.end * row]);
            return Ok(());
        };
        let k = self.offers[name].shape[1];
        let [qweight, qzeros, scales] = [&layer.qweight, &layer.qzeros, &layer.scales].map(|place| self.view(place));
        let words = layer.grouped.words(k);
        out.words.clear();
        out.words.resize(rows.len() * words, 0);
        let Settings { packing, .. } = &self.settings;
        packing.codes(qweight.bytes.as_chunks::<4>().0, layer.n, rows.clone(), words, &mut out.words);

        let float = scales.float()?;
        let per_word_row = qzeros.shape[1];
        let zeros = qzeros.bytes.as_chunks::<4>().0;
        let mut values = vec![0.0; rows.len() * layer.grouped.groups(k)];
        out.floats.clear();
        for (i, value) in values.iter_mut().enumerate() {
            let (row, group) = (rows.start + i / layer.grouped.groups(k), i % layer.grouped.groups(k));
            let group = group.min(layer.groups - 1);
            scales.read_f32(group * layer.n + row, std::slice::from_mut(value))?;
            let zero = packing.zero(&zeros[group * per_word_row..][..per_word_row], row);
            let mut push = |number: f32| match layer.grouped.scale {
                FloatType::F16 => out.floats.extend(f16::from_f32(number).to_le_bytes()),
                _ => out.floats.extend(number.to_le_bytes()),
            };
            push(*value);
            if layer.grouped.zero == Zero::Stored {
                push(zero as f32);
            }
        }
        debug_assert!(float == layer.grouped.scale || layer.grouped.scale == FloatType::F32, "no scale is rounded");
        match values.iter().filter(|value| !value.is_finite()).count() as u64 {
            0 => {}
            count => return Err(Error::NotFinite { tensor: layer.scales.1.clone(), count }),
        }
        if rows.end == layer.n {
            // Blocks are read in order, so hardly any other needs these pages again.
            self.source.shards()[layer.qweight.0].release(qweight.bytes);
        }
        Ok(())
    }

    fn carry(&self, to: &Path) -> Result<Vec<CarriedFile>> {
        self.companions.write(to)
    }

    fn carried_bytes(&self) -> u64 {
        self.companions.total_bytes()
    }

    fn notes(&self) -> Option<Vec<Note>> {
        Some([self.source.outline().notes(), self.companions.notes()].concat())
    }

    fn files(&self) -> Vec<PathBuf> {
        let config = self.source.path().join("config.json");
        std::iter::once(config).chain(self.source.shards().iter().map(|shard| shard.path().to_owned())).collect()
    }
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
