//! Writes checkpoints as AutoAWQ and GPTQ do, beside plain ones of the same values. The workspace's tests include this file, too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use dwindle_compiler::checkpoint::Source;
use dwindle_compiler::checkpoint::safetensors::{Element, Layout, TensorWriter};
use dwindle_quant::{Method, decode_rows, encode_rows, write_floats};
use dwindle_schemes::{FloatType, Grouped, Zero};
use serde_json::{Value, json};

/// What is published.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// `quantization_config`.
    pub config: fn() -> Value,
    /// AutoAWQ's order of codes, or GPTQ's.
    pub awq: bool,
    /// Of a code.
    pub bits: u32,
    /// Columns that share a scale; 0 for whole rows.
    pub group: usize,
    /// Whether the zero is the middle of the codes.
    pub symmetric: bool,
    /// What is subtracted from stored zeros.
    pub less: u32,
}

/// All that is imported: both methods, widths, groups, kinds of zeros and versions.
pub const VARIANTS: [Variant; 7] = [
    Variant {
        config: || json!({"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": true}),
        awq: true,
        bits: 4,
        group: 32,
        symmetric: false,
        less: 0,
    },
    Variant {
        config: || json!({"quant_method": "awq", "bits": 4, "group_size": -1, "version": "GEMM", "zero_point": true}),
        awq: true,
        bits: 4,
        group: 0,
        symmetric: false,
        less: 0,
    },
    Variant {
        config: || json!({"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": false, "sym": false}),
        awq: false,
        bits: 4,
        group: 32,
        symmetric: false,
        less: 1,
    },
    Variant {
        config: || json!({"quant_method": "gptq", "bits": 4, "group_size": 128, "checkpoint_format": "gptq", "sym": true}),
        awq: false,
        bits: 4,
        group: 128,
        symmetric: true,
        less: 1,
    },
    Variant {
        config: || json!({"quant_method": "gptq", "bits": 4, "group_size": 64, "checkpoint_format": "gptq_v2"}),
        awq: false,
        bits: 4,
        group: 64,
        symmetric: false,
        less: 0,
    },
    Variant {
        config: || json!({"quant_method": "gptq", "bits": 4, "group_size": -1, "desc_act": true}),
        awq: false,
        bits: 4,
        group: 0,
        symmetric: false,
        less: 1,
    },
    Variant {
        config: || json!({"quant_method": "gptq", "bits": 8, "group_size": 32, "sym": true, "dynamic": {}}),
        awq: false,
        bits: 8,
        group: 32,
        symmetric: true,
        less: 1,
    },
];

/// Tensors of a file: type, shape, bytes.
pub type Tensors = BTreeMap<String, (Element, Vec<usize>, Vec<u8>)>;

/// Whether a tensor is a linear layer of the language model.
fn is_layer(name: &str) -> bool {
    name.ends_with("_proj.weight") && !name.contains("vision")
}

/// The tensors of the checkpoint `from`, its layers packed, and the same as floats of the values that the packed ones stand for.
pub fn tensors(from: &Path, variant: &Variant) -> (Tensors, Tensors) {
    let source = Source::open(from).unwrap();
    let (mut packed, mut plain) = (Tensors::new(), Tensors::new());
    for (_, view) in source.tensors() {
        let name = view.name.to_owned();
        if !is_layer(&name) {
            let tensor = (view.dtype, view.shape.to_vec(), view.bytes.to_vec());
            packed.insert(name.clone(), tensor.clone());
            plain.insert(name, tensor);
            continue;
        }
        let (n, k) = (view.shape[0], view.shape[1]);
        let layer = name.strip_suffix(".weight").unwrap();
        let values = pack(layer, n, k, &view.to_f32().unwrap(), variant, &mut packed);
        plain.insert(name, (Element::F32, vec![n, k], bytemuck::cast_slice(&values).to_vec()));
    }
    (packed, plain)
}

/// Adds the tensors of one layer; what they stand for.
fn pack(layer: &str, n: usize, k: usize, values: &[f32], variant: &Variant, to: &mut Tensors) -> Vec<f32> {
    let (bits, per_word) = (variant.bits, 32 / variant.bits as usize);
    let group = if variant.group == 0 { k } else { variant.group };
    let middle = 1 << (bits - 1);
    let zero = if variant.symmetric { Zero::Fixed(middle) } else { Zero::Stored };
    let grouped = Grouped { bits, group, scale: FloatType::F16, zero };
    let mut words = vec![0; n * grouped.words(k)];
    let mut scales = vec![0.0; n * grouped.scales(k)];
    encode_rows(values, k, &grouped, Method::Rtn, &mut words, &mut scales).unwrap();
    let mut decoded = vec![0.0; n * k];
    decode_rows(&words, &scales, k, &grouped, &mut decoded).unwrap();

    let groups = grouped.groups(k);
    let code = |row: usize, column: usize| {
        words[row * grouped.words(k) + column / per_word] >> (bits as usize * (column % per_word)) & grouped.max_code()
    };
    let scale = |row: usize, group: usize| match variant.symmetric {
        true => (scales[row * groups + group], middle),
        false => (scales[(row * groups + group) * 2], scales[(row * groups + group) * 2 + 1] as u32),
    };
    let zero = |row: usize, group: usize| scale(row, group).1.checked_sub(variant.less).expect("no zero of 0");
    let word = |code: &dyn Fn(usize) -> u32| (0..per_word).fold(0_u32, |word, i| word | code(i) << (bits as usize * i));
    // AutoAWQ's `order_map`: the row of each nibble.
    let row_of = |i: usize| if variant.awq { [0, 2, 4, 6, 1, 3, 5, 7][i] } else { i };
    let (mut qweight, mut qzeros) = (Vec::new(), Vec::new());
    let shape = if variant.awq {
        for column in 0..k {
            qweight.extend((0..n / 8).map(|eight| word(&|i| code(8 * eight + row_of(i), column))));
        }
        vec![k, n / 8]
    } else {
        for start in (0..k).step_by(per_word) {
            qweight.extend((0..n).map(|row| word(&|i| code(row, start + i))));
        }
        vec![k / per_word, n]
    };
    for group in 0..groups {
        qzeros.extend((0..n / per_word).map(|some| word(&|i| zero(per_word * some + row_of(i), group))));
    }
    let transposed: Vec<f32> = (0..groups).flat_map(|group| (0..n).map(move |row| scale(row, group).0)).collect();
    let mut bytes = vec![0; transposed.len() * 2];
    write_floats(FloatType::F16, &transposed, &mut bytes).unwrap();
    let little = |words: Vec<u32>| words.into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
    to.insert(format!("{layer}.qweight"), (Element::I32, shape, little(qweight)));
    to.insert(format!("{layer}.qzeros"), (Element::I32, vec![groups, n / per_word], little(qzeros)));
    to.insert(format!("{layer}.scales"), (Element::F16, vec![groups, n], bytes));
    if !variant.awq {
        let order = (0..k).map(|column| (column / group) as u32).collect();
        to.insert(format!("{layer}.g_idx"), (Element::I32, vec![k], little(order)));
    }
    decoded
}

/// Writes a checkpoint like `from`, with other tensors and what `change` makes of its configuration.
pub fn write(from: &Path, to: &Path, tensors: &Tensors, change: impl FnOnce(&mut Value)) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".json") && !name.contains("safetensors") {
            fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
    let mut config: Value = serde_json::from_slice(&fs::read(from.join("config.json")).unwrap()).unwrap();
    change(&mut config);
    fs::write(to.join("config.json"), config.to_string()).unwrap();
    let layout = tensors.iter().map(|(name, (element, shape, _))| (name.clone(), (*element, shape.clone())));
    let writer = TensorWriter::create(&to.join("model.safetensors"), Layout::new(&layout.collect())).unwrap();
    tensors.iter().for_each(|(name, (_, _, bytes))| writer.write(name, 0, bytes).unwrap());
    writer.finish().unwrap();
}

/// Writes the packed checkpoint to `packed` and the plain one to `plain`.
pub fn both(from: &Path, variant: &Variant, packed: &Path, plain: &Path) {
    let (layers, floats) = tensors(from, variant);
    write(from, packed, &layers, |config| config["quantization_config"] = (variant.config)());
    write(from, plain, &floats, |_| {});
}
