//! Stored matrices in WGSL: bindings and the functions that decode them, for every format.
//!
//! A matrix row is a run of *blocks*: what one vector load brings (a vec4 of words where a group fills it), all under
//! one scale. Within a block values come in vec4s. A code is not shifted down: it is masked in place and read as an
//! integer, so it comes out multiplied by a power of two, and that power is divided out elsewhere (from x where x is
//! reused by several rows, from the scale otherwise). This saves most of the shifts. Bits above 23 would not be exact in
//! a float, so codes there are taken from the word shifted right by 16.
//!
//! Codes of 5 and 6 bits lie in two places. `spread` joins the lower bits of eight codes with their upper bits: one word
//! has the codes 0, 2, 4 and 6 in its bytes, the other 1, 3, 5 and 7, from where they are masked in place like any other.
//! Their highest bit is bit 29, so all of them are exact in a float.

use std::fmt::Write;

use dwindle_bundle::Access;
use dwindle_schemes::{FloatType, Format, Grouped, Zero};

use super::Error;
use super::prelude::Prelude;

/// A stored matrix `[n, k]`, as kernels see it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weights {
    /// How it is stored.
    pub format: Format,
    /// Columns without padding.
    pub k: usize,
    /// Words of a block; with codes in [two places](split), of the words that `spread` gives for eight codes.
    words: usize,
    /// Values of a block.
    pub values: usize,
}

impl Weights {
    /// A matrix of rows of `k` values, or an error for formats that devices cannot read.
    pub(super) fn new(kernel: &'static str, format: Format, k: usize) -> Result<Self, Error> {
        let (words, values) = match format {
            Format::Plain(FloatType::F32) => (4, 4),
            Format::Plain(FloatType::F16) => (4, 8),
            Format::Grouped(g) if g.scale != FloatType::Bf16 && split(g) => (2, blocked_units(g) * g.unit_codes()),
            Format::Grouped(g) if g.scale != FloatType::Bf16 => {
                let words = [4, 2, 1].into_iter().find(|n| g.words_per_group().is_multiple_of(*n)).unwrap_or(1);
                (words, words * g.unit_codes())
            }
            Format::Plain(FloatType::Bf16) | Format::Grouped(_) => {
                return Err(Error::Unsupported {
                    kernel,
                    what: format!("matrices stored as {format}"),
                    advice: "store values or scales as f16 or f32",
                });
            }
        };
        Ok(Weights { format, k, words, values })
    }

    /// Blocks of a row.
    pub(super) fn row_blocks(&self) -> usize {
        match self.format {
            Format::Plain(_) => self.k.div_ceil(self.values),
            Format::Grouped(g) => g.groups(self.k) * (g.group / self.values),
        }
    }

    /// vec4s of a block; the last may be half full (three-bit words hold ten codes).
    pub(super) fn vectors(&self) -> usize {
        self.values.div_ceil(4)
    }

    /// Whether x can be loaded by vec4s: its rows and all blocks begin at multiples of 4.
    pub(super) fn x_aligned(&self) -> bool {
        self.k.is_multiple_of(4) && self.values.is_multiple_of(4)
    }

    /// Declares the bindings, of whole blocks where they are one load, and `scale_of`.
    pub(super) fn bind(&self, prelude: &mut Prelude) {
        self.bind_as(prelude, if split_format(self.format) { self.load_words() } else { self.words });
    }

    /// Declares the bindings for [`value_text`](Self::value_text).
    pub(super) fn bind_values(&self, prelude: &mut Prelude) {
        self.bind_as(prelude, if split_format(self.format) { 1 } else { self.words });
    }

    fn bind_as(&self, prelude: &mut Prelude, words: usize) {
        let word = ["u32", "vec2<u32>", "", "vec4<u32>"][words - 1];
        match self.format {
            Format::Plain(FloatType::F32) => prelude.bind("weights", Access::Read, "vec4<f32>"),
            Format::Plain(_) => prelude.bind("weights", Access::Read, word),
            Format::Grouped(g) => {
                let scale = match (g.scale, g.scales_per_group()) {
                    (FloatType::F32, 1) => "f32",
                    (FloatType::F32, _) => "vec2<f32>",
                    _ => "u32",
                };
                prelude.bind("weights", Access::Read, word).bind("scales", Access::Read, scale)
            }
        };
        prelude.constant("ROW_BLOCKS", self.row_blocks()).constant("BLOCK", self.values);
        prelude.constant("BLOCK_VECTORS", self.vectors());
        if let Format::Grouped(g) = self.format {
            prelude.push(scale_text(g, g.group / self.values, g.groups(self.k)));
        }
    }

    /// The `index`th vec4 of a block loaded as `code` (and `high`, the same shifted right by 16), in f32. Grouped: codes
    /// times [`factors`](Self::factors), without zero and scale.
    fn vector(&self, code: &str, high: &str, index: usize) -> String {
        let component =
            |i: usize| if self.words == 1 { String::new() } else { format!(".{}", ["x", "y", "z", "w"][i]) };
        match self.format {
            Format::Plain(FloatType::F32) => code.to_owned(),
            Format::Plain(_) => {
                let pair = |i: usize| format!("unpack2x16float({code}{})", component(i));
                format!("vec4<f32>({}, {})", pair(2 * index), pair(2 * index + 1))
            }
            Format::Grouped(g) => {
                let (mut sources, mut masks) = (Vec::new(), Vec::new());
                for value in 4 * index..4 * index + 4 {
                    let (word, shift, from_high) = self.place(g, value);
                    let mask = if value < self.values { g.max_code() << shift } else { 0 };
                    sources.push(format!("{}{}", if from_high { high } else { code }, component(word)));
                    masks.push(format!("{mask:#x}u"));
                }
                format!("vec4<f32>(vec4<i32>(vec4<u32>({}) & vec4<u32>({})))", sources.join(", "), masks.join(", "))
            }
        }
    }

    /// Word of a value of a block, the shift at which it is masked, and whether from the word shifted by 16.
    fn place(&self, g: Grouped, value: usize) -> (usize, u32, bool) {
        if split(g) {
            return (value % 2, 8 * (value % 8 / 2) as u32, false);
        }
        let value = value.min(self.values - 1);
        let shift = (value % g.unit_codes()) as u32 * g.bits;
        let from_high = shift + g.bits > 24;
        (value / g.unit_codes(), if from_high { shift - 16 } else { shift }, from_high)
    }

    /// What undoes the masking in place: a vec4 of powers of two, or `None` for plain floats.
    pub(super) fn factors(&self, index: usize) -> Option<String> {
        let Format::Grouped(g) = self.format else { return None };
        let factor = |value: usize| format!("{:?}", 1.0 / (1u64 << self.place(g, value).1) as f64);
        Some(format!("vec4<f32>({})", (4 * index..4 * index + 4).map(factor).collect::<Vec<_>>().join(", ")))
    }

    /// `values0(code, high)`, `values1(…)`, …: the vec4s of what one load brings ([`vector`](Self::vector)), or of what
    /// `spread` gives.
    fn values_text(&self) -> String {
        let ty = match (self.format, self.words) {
            (Format::Plain(FloatType::F32), _) => "vec4<f32>",
            (_, 1) => "u32",
            (_, 2) => "vec2<u32>",
            _ => "vec4<u32>",
        };
        let (vectors, mut text) = match self.format {
            Format::Grouped(g) if split(g) => (2, spread_text(g)),
            _ => (self.vectors(), String::new()),
        };
        let high = if self.needs_high() { format!(", high: {ty}") } else { String::new() };
        for i in 0..vectors {
            let value = self.vector("code", "high", i);
            text += &format!("fn values{i}(code: {ty}{high}) -> vec4<f32> {{ return {value}; }}\n");
        }
        text
    }

    /// `dot_block(row, block, x: XBlock) -> f32`: the product of a block of a row with a block of x, whose vectors were
    /// multiplied by [`factors`](Self::factors).
    pub(super) fn dot_block_text(&self) -> String {
        let mut text = self.values_text();
        text += "fn dot_block(row: u32, block: u32, x: XBlock) -> f32 {\n";
        let products: Vec<_> = match self.format {
            Format::Grouped(g) if split(g) => {
                text += &self.spread_block_text(g);
                (0..self.vectors()).map(|i| format!("dot(values{}(code{}), x.v{i})", i % 2, i / 2)).collect()
            }
            _ => {
                text += "    let code = weights[row * ROW_BLOCKS + block];\n";
                let mut arguments = "code";
                if self.needs_high() {
                    arguments = "code, high";
                    text += &format!("    let high = {};\n", self.high("code"));
                }
                (0..self.vectors()).map(|i| format!("dot(values{i}({arguments}), x.v{i})")).collect()
            }
        };
        let sum = products.join("\n        + ");
        match self.format {
            Format::Plain(_) => text += &format!("    return {sum};\n}}"),
            Format::Grouped(g) => {
                text += &format!("    let sum = {sum};\n");
                let pair = "    let scale = scale_of(row, block);\n    return ";
                text += &match (g.constant_zero(), g.zero) {
                    (Some(zero), _) => format!("    return scale_of(row, block) * (sum - {zero}.0 * x.total);\n}}"),
                    (None, Zero::Minimum) => format!("{pair}scale.x * sum + scale.y * x.total;\n}}"),
                    (None, _) => format!("{pair}scale.x * (sum - scale.y * x.total);\n}}"),
                };
            }
        }
        text
    }

    /// Words that one load brings where codes are in two places.
    fn load_words(&self) -> usize {
        match self.format {
            Format::Grouped(g) if (self.values / g.unit_codes() * g.unit_words()).is_multiple_of(2) => 2,
            _ => 1,
        }
    }

    /// `code0`, `code1`, …: what `spread` gives for each eight codes of a block.
    fn spread_block_text(&self, g: Grouped) -> String {
        let (words, load) = (self.values / g.unit_codes() * g.unit_words(), self.load_words());
        let loads = words / load;
        let mut text = format!("    let at = (row * ROW_BLOCKS + block) * {loads}u;\n");
        for i in 0..loads {
            text += &format!("    let load{i} = weights[at + {i}u];\n");
        }
        let word = |i: usize| match load {
            1 => format!("load{i}"),
            _ => format!("load{}.{}", i / 2, ["x", "y"][i % 2]),
        };
        let lows = g.unit_words() - 1;
        for i in 0..self.values / 8 {
            let (unit, low) = (i / lows * g.unit_words(), i % lows);
            let high = format!("{} >> {}u", word(unit + lows), 8 * low as u32 * (g.bits - 4));
            text += &format!("    let code{i} = spread({}, {high});\n", word(unit + low));
        }
        text
    }

    /// Words that the matrix kernel loads at once: it goes through a block by a loop, because its body is long.
    /// Three-bit words are taken in pairs, which fill whole vec4s.
    fn unit(&self) -> Weights {
        match self.format {
            Format::Plain(_) => *self,
            Format::Grouped(g) if split(g) => Weights { values: 8, ..*self },
            Format::Grouped(g) => {
                let words = if g.unit_codes().is_multiple_of(4) || self.words == 1 { 1 } else { 2 };
                Weights { words, values: words * g.unit_codes(), ..*self }
            }
        }
    }

    /// Declares the bindings for [`multiply_block_text`](Self::multiply_block_text).
    pub(super) fn bind_units(&self, prelude: &mut Prelude) {
        self.bind_as(prelude, if split_format(self.format) { 1 } else { self.unit().words });
    }

    /// `multiply_block(row, block, column)`: decodes a block of rows `row .. row + 4` and calls `step` with each four columns
    /// of them as a matrix (a column of the matrix for each row) and the place of these columns in x's tile.
    pub(super) fn multiply_block_text(&self) -> String {
        let unit = self.unit();
        let units = self.values / unit.values;
        let mut text = unit.values_text();
        for i in 0..unit.vectors() {
            if let Some(factors) = unit.factors(i) {
                text += &format!("const FACTORS{i}: vec4<f32> = {factors};\n");
            }
        }
        text += "fn multiply_block(row: u32, block: u32, column: u32) {\n";
        let mut line = |line: String| writeln!(text, "    {line}").expect("writing to a string cannot fail");
        for r in 0..4 {
            line(format!("let row{r} = min(row + {r}u, N - 1u);"));
            if let Format::Grouped(g) = self.format {
                match g.constant_zero() {
                    Some(zero) => {
                        line(format!("let scale{r} = scale_of(row{r}, block);"));
                        line(format!("let zero{r} = vec4<f32>({zero}.0 * scale{r});"));
                    }
                    None => {
                        line(format!("let pair{r} = scale_of(row{r}, block);"));
                        line(format!("let scale{r} = pair{r}.x;"));
                        let zero = if g.zero == Zero::Minimum { "-pair" } else { "pair" };
                        let scale = if g.zero == Zero::Minimum { String::new() } else { format!(" * scale{r}") };
                        line(format!("let zero{r} = vec4<f32>({zero}{r}.y{scale});"));
                    }
                }
            }
        }
        line(format!("for (var unit = 0u; unit < {units}u; unit++) {{"));
        for r in 0..4 {
            if let Format::Grouped(g) = self.format
                && split(g)
            {
                let (lows, words) = (g.unit_words() - 1, self.values / g.unit_codes() * g.unit_words());
                line(format!(
                    "    let at{r} = (row{r} * ROW_BLOCKS + block) * {words}u + unit / {lows}u * {}u;",
                    lows + 1
                ));
                let high = format!("weights[at{r} + {lows}u] >> (unit % {lows}u * {}u)", 8 * (g.bits - 4));
                line(format!("    let code{r} = spread(weights[at{r} + unit % {lows}u], {high});"));
                continue;
            }
            line(format!("    let code{r} = weights[(row{r} * ROW_BLOCKS + block) * {units}u + unit];"));
            if unit.needs_high() {
                line(format!("    let high{r} = {};", unit.high(&format!("code{r}"))));
            }
        }
        for i in 0..unit.vectors() {
            let vector = |r: usize| {
                let high = if unit.needs_high() { format!(", high{r}") } else { String::new() };
                match self.format {
                    Format::Plain(_) => format!("values{i}(code{r}{high})"),
                    Format::Grouped(_) => format!("values{i}(code{r}{high}) * (scale{r} * FACTORS{i}) - zero{r}"),
                }
            };
            line("    step(mat4x4<f32>(".to_owned());
            for r in 0..4 {
                line(format!("        {}{}", vector(r), if r < 3 { "," } else { "" }));
            }
            line(format!("    ), column + unit * {}u + {i}u);", unit.vectors()));
        }
        line("}".to_owned());
        text + "}"
    }

    /// `weight(row, column) -> f32`: one value, for kernels that read few.
    pub(super) fn value_text(&self) -> String {
        let index = |per_load: usize| format!("row * ROW_BLOCKS + column / {per_load}u");
        let body = match self.format {
            Format::Plain(FloatType::F32) => format!("return weights[{}][column % 4u];", index(4)),
            Format::Plain(_) => format!(
                "let pair = unpack2x16float(weights[{}][column / 2u % 4u]);\n    \
                 return select(pair.x, pair.y, column % 2u == 1u);",
                index(8)
            ),
            Format::Grouped(g) => {
                let code = if split(g) {
                    let (codes, words, upper) = (g.unit_codes(), g.unit_words(), g.bits - 4);
                    let row_words = g.words(self.k);
                    format!(
                        "let index = column % {codes}u;\n    \
                         let unit = row * {row_words}u + column / {codes}u * {words}u;\n    \
                         let low = (weights[unit + index / 8u] >> (index % 8u * 4u)) & 15u;\n    \
                         let high = (weights[unit + {}u] >> (index * {upper}u)) & {}u;\n    \
                         let code = low | (high << 4u);",
                        words - 1,
                        (1 << upper) - 1,
                    )
                } else {
                    let per_word = g.unit_codes();
                    let word = if self.words == 1 {
                        String::new()
                    } else {
                        format!("[column / {per_word}u % {}u]", self.words)
                    };
                    format!(
                        "let word = weights[row * ROW_BLOCKS + block]{word};\n    \
                         let code = (word >> (column % {per_word}u * {}u)) & {}u;",
                        g.bits,
                        g.max_code(),
                    )
                };
                let pair = "let scale = scale_of(row, block);\n    return ";
                let value = match (g.constant_zero(), g.zero) {
                    (Some(zero), _) => format!("return (f32(code) - {zero}.0) * scale_of(row, block);"),
                    (None, Zero::Minimum) => format!("{pair}f32(code) * scale.x + scale.y;"),
                    (None, _) => format!("{pair}(f32(code) - scale.y) * scale.x;"),
                };
                format!("let block = column / BLOCK;\n    {code}\n    {value}")
            }
        };
        format!("fn weight(row: u32, column: u32) -> f32 {{\n    {body}\n}}")
    }

    fn needs_high(&self) -> bool {
        match self.format {
            Format::Plain(_) => false,
            Format::Grouped(g) => !split(g) && (0..self.values).any(|value| self.place(g, value).2),
        }
    }

    fn high(&self, code: &str) -> String {
        match self.words {
            1 => format!("{code} >> 16u"),
            words => format!("{code} >> vec{words}<u32>(16u)"),
        }
    }
}

/// Whether the bits of a code are in two places: the lower four in one word, the upper ones in another.
fn split(g: Grouped) -> bool {
    g.unit_words() > 1
}

fn split_format(format: Format) -> bool {
    matches!(format, Format::Grouped(g) if split(g))
}

/// Units of a block where codes are in two places: two small ones, where a group has them in pairs, are loaded by pairs of words.
fn blocked_units(g: Grouped) -> usize {
    if g.unit_codes() == 16 && (g.group / 16).is_multiple_of(2) { 2 } else { 1 }
}

/// `spread(low, high)`: the codes 0, 2, 4, 6 and 1, 3, 5, 7 in the bytes of two words, of the word `low` of their lower bits and
/// the lowest bits of `high`, their upper ones. A product puts bits that are two (or pairs that are four) apart eight apart;
/// the sums of others that it also makes carry into no bit that is kept.
fn spread_text(g: Grouped) -> String {
    let upper = if g.bits == 5 {
        "    let upper = ((vec2<u32>(high, high >> 1u) & vec2<u32>(0x55u)) * 0x410410u) & vec2<u32>(0x10101010u);\n"
    } else {
        "    let fours = ((vec2<u32>(high, high >> 2u) & vec2<u32>(0x3333u)) * 0x101u) & vec2<u32>(0x330033u);\n    \
             let upper = (fours * 0x110u) & vec2<u32>(0x30303030u);\n"
    };
    format!(
        "fn spread(low: u32, high: u32) -> vec2<u32> {{\n{upper}    \
         return (vec2<u32>(low, low >> 4u) & vec2<u32>(0xf0f0f0fu)) | upper;\n}}\n"
    )
}

/// `scale_of(row, block)`: the scale, or where groups store zeros or minimums, scale and zero or minimum.
fn scale_text(g: Grouped, blocks_per_group: usize, groups: usize) -> String {
    let group = if blocks_per_group == 1 { "block".to_owned() } else { format!("block / {blocks_per_group}u") };
    let index = format!("row * {groups}u + {group}");
    let body = match (g.scale, g.scales_per_group()) {
        (FloatType::F32, _) => format!("return scales[{index}];"),
        (_, 2) => format!("return unpack2x16float(scales[{index}]);"),
        _ => format!(
            "let index = {index};\n    let pair = unpack2x16float(scales[index / 2u]);\n    \
             return select(pair.x, pair.y, index % 2u == 1u);"
        ),
    };
    let result = if g.scales_per_group() == 2 { "vec2<f32>" } else { "f32" };
    format!("fn scale_of(row: u32, block: u32) -> {result} {{\n    {body}\n}}")
}

/// `x4(row, column)`: four values of x from a column that is a multiple of 4 (or of the block, where blocks are not), zero from
/// column K on and, in a half-full last vector, beyond the block; `norm4(column)`: the norm's weights likewise.
pub(super) fn x_text(weights: &Weights, norm: bool) -> String {
    let load = |function: &str, parameters: &str, array: &str, start: &str| {
        if weights.x_aligned() {
            return format!(
                "fn {function}({parameters}column: u32) -> vec4<f32> {{\n    \
                 if (column >= K) {{ return vec4<f32>(); }}\n    \
                 return {array}[({start}column) / 4u];\n}}\n"
            );
        }
        let mut text = format!("fn {function}({parameters}column: u32) -> vec4<f32> {{\n    var four = vec4<f32>();\n");
        if weights.values.is_multiple_of(4) {
            text += "    let end = K;\n";
        } else {
            text += "    let end = min(K, (column / BLOCK + 1u) * BLOCK);\n";
        }
        for i in 0..4 {
            text += &format!("    if (column + {i}u < end) {{ four[{i}] = {array}[{start}column + {i}u]; }}\n");
        }
        text + "    return four;\n}\n"
    };
    let mut text = load("x4", "row: u32, ", "x", "row * K + ");
    if norm {
        text += &load("norm4", "", "norm_weight", "");
    }
    text
}
