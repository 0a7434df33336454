//! Writes GGUF files as ggml's `docs/gguf.md` documents them, and blocks as ggml quantizes them (`ggml-quants.c`).

#[path = "packed.rs"]
mod packed;

use half::{bf16, f16};

/// A value of the metadata.
#[derive(Clone, Debug)]
pub enum Meta {
    U32(u32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    Bools(Vec<bool>),
}

/// How a tensor is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
    Iq4Xs,
    Mxfp4,
}

/// All packed ones.
pub const PACKED: [Storage; 13] = [
    Storage::Q4_0,
    Storage::Q4_1,
    Storage::Q5_0,
    Storage::Q5_1,
    Storage::Q8_0,
    Storage::Q2K,
    Storage::Q3K,
    Storage::Q4K,
    Storage::Q5K,
    Storage::Q6K,
    Storage::Iq4Nl,
    Storage::Iq4Xs,
    Storage::Mxfp4,
];

/// A tensor: name, number of its type, dimensions innermost first, data.
pub type Tensor = (String, u32, Vec<u64>, Vec<u8>);

/// A file to be written.
#[derive(Clone, Debug)]
pub struct Gguf {
    pub version: u32,
    pub alignment: u64,
    pub metadata: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
}

impl Default for Gguf {
    fn default() -> Self {
        Gguf { version: 3, alignment: 32, metadata: Vec::new(), tensors: Vec::new() }
    }
}

impl Gguf {
    /// Sets a key.
    pub fn set(&mut self, key: &str, value: Meta) {
        self.unset(key);
        self.metadata.push((key.to_owned(), value));
    }

    /// Removes a key.
    pub fn unset(&mut self, key: &str) {
        self.metadata.retain(|(other, _)| other != key);
    }

    /// Adds a matrix or vector, dimensions outermost first.
    pub fn push(&mut self, name: &str, shape: &[usize], storage: Storage, values: &[f32]) {
        let dimensions = shape.iter().rev().map(|n| *n as u64).collect();
        self.tensors.push((name.to_owned(), storage.number(), dimensions, storage.encode(values)));
    }

    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            string(&mut file, key);
            value.write(&mut file);
        }
        let mut offset = 0_u64;
        for (name, kind, dimensions, data) in &self.tensors {
            string(&mut file, name);
            file.extend((dimensions.len() as u32).to_le_bytes());
            dimensions.iter().for_each(|n| file.extend(n.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
            offset = (offset + data.len() as u64).next_multiple_of(self.alignment);
        }
        for (.., data) in &self.tensors {
            file.resize(file.len().next_multiple_of(self.alignment as usize), 0);
            file.extend(data);
        }
        file
    }
}

fn string(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

fn array(file: &mut Vec<u8>, kind: u32, count: usize) {
    file.extend(9_u32.to_le_bytes());
    file.extend(kind.to_le_bytes());
    file.extend((count as u64).to_le_bytes());
}

impl Meta {
    fn write(&self, file: &mut Vec<u8>) {
        match self {
            Meta::U32(number) => {
                file.extend(4_u32.to_le_bytes());
                file.extend(number.to_le_bytes());
            }
            Meta::U64(number) => {
                file.extend(10_u32.to_le_bytes());
                file.extend(number.to_le_bytes());
            }
            Meta::F32(number) => {
                file.extend(6_u32.to_le_bytes());
                file.extend(number.to_le_bytes());
            }
            Meta::Bool(flag) => {
                file.extend(7_u32.to_le_bytes());
                file.push(u8::from(*flag));
            }
            Meta::Text(text) => {
                file.extend(8_u32.to_le_bytes());
                string(file, text);
            }
            Meta::Texts(texts) => {
                array(file, 8, texts.len());
                texts.iter().for_each(|text| string(file, text));
            }
            Meta::F32s(numbers) => {
                array(file, 6, numbers.len());
                numbers.iter().for_each(|number| file.extend(number.to_le_bytes()));
            }
            Meta::I32s(numbers) => {
                array(file, 5, numbers.len());
                numbers.iter().for_each(|number| file.extend(number.to_le_bytes()));
            }
            Meta::Bools(flags) => {
                array(file, 7, flags.len());
                file.extend(flags.iter().map(|flag| u8::from(*flag)));
            }
        }
    }
}

impl Storage {
    /// ggml's number.
    pub fn number(self) -> u32 {
        match self {
            Storage::F32 => 0,
            Storage::F16 => 1,
            Storage::Q4_0 => 2,
            Storage::Q4_1 => 3,
            Storage::Q5_0 => 6,
            Storage::Q5_1 => 7,
            Storage::Q8_0 => 8,
            Storage::Q2K => 10,
            Storage::Q3K => 11,
            Storage::Q4K => 12,
            Storage::Q5K => 13,
            Storage::Q6K => 14,
            Storage::Iq4Nl => 20,
            Storage::Iq4Xs => 23,
            Storage::Bf16 => 30,
            Storage::Mxfp4 => 39,
        }
    }

    /// ggml's name.
    pub fn name(self) -> String {
        match self {
            Storage::Iq4Nl => "IQ4_NL".to_owned(),
            Storage::Iq4Xs => "IQ4_XS".to_owned(),
            _ => {
                let name = format!("{self:?}").to_uppercase();
                name.strip_suffix('K').map_or(name.clone(), |bits| format!("{bits}_K"))
            }
        }
    }

    /// The bytes of these values.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Storage::F32 => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Storage::F16 => values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect(),
            Storage::Bf16 => values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect(),
            Storage::Q4_0 => values.chunks_exact(32).flat_map(q4_0).collect(),
            Storage::Q8_0 => values.chunks_exact(32).flat_map(q8_0).collect(),
            packed => values.chunks_exact(packed.block().0).flat_map(|values| packed.pack(values)).collect(),
        }
    }

    /// The values of these bytes.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let half = |at: &[u8]| f16::from_le_bytes([at[0], at[1]]).to_f32();
        match self {
            Storage::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Storage::F16 => bytes.chunks_exact(2).map(half).collect(),
            Storage::Bf16 => bytes.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
            packed => bytes.chunks_exact(packed.block().1).flat_map(|block| packed.unpack(block)).collect(),
        }
    }
}

/// `quantize_row_q4_0_ref`: the value of the greatest magnitude becomes code 0.
fn q4_0(values: &[f32]) -> Vec<u8> {
    let most = values.iter().copied().fold(0.0_f32, |most, value| if value.abs() > most.abs() { value } else { most });
    let d = most / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let code = |value: f32| ((value * inverse + 8.5) as u8).min(15);
    let mut block = f16::from_f32(d).to_le_bytes().to_vec();
    block.extend((0..16).map(|i| code(values[i]) | code(values[16 + i]) << 4));
    block
}

/// `quantize_row_q8_0_ref`: the greatest magnitude becomes 127. Here -127 becomes -128, which ggml's readers take as well and no
/// rounding makes.
fn q8_0(values: &[f32]) -> Vec<u8> {
    let most = values.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let d = most / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let mut block = f16::from_f32(d).to_le_bytes().to_vec();
    let code = |value: &f32| match (value * inverse).round() as i8 {
        -127 => -128,
        code => code,
    };
    block.extend(values.iter().map(|value| code(value) as u8));
    block
}
