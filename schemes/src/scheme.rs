//! A scheme: which format the tensors of each role get, read from TOML and checked.
//!
//! ```toml
//! name = "q4f16_1"          # lowercase letters, digits, underscores
//! summary = "one line for lists"
//! kv = "f16"                # keys and values in the cache: f16 or f32
//!
//! [formats]                 # each f32, f16 or q{bits}g{group}{type of scales}
//! embedding = "q4g32f16"
//! head = "q4g32f16"
//! linear = "q4g32f16"
//! projector = "q8g32f16"
//! vision_linear = "q8g32f16"
//! patch_embedding = "f16"
//! ```
//!
//! All keys are required and others are refused. Vectors (norms, biases, positions) are not a choice: they are always f32.

use serde::Deserialize;

use crate::builtin::BUILTIN;
use crate::{Error, FloatType, Format, Role};

/// How the weights of a model are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// What users call it, e.g. `q4f16_1`.
    pub name: String,
    /// One line for lists of schemes.
    pub summary: String,
    /// Type of the keys and values that a session keeps: `F16` or `F32`.
    pub kv: FloatType,
    embedding: Format,
    head: Format,
    linear: Format,
    projector: Format,
    vision_linear: Format,
    patch_embedding: Format,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    name: String,
    summary: String,
    kv: FloatType,
    formats: Formats,
}

/// Optional so that all missing roles are told at once.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Formats {
    embedding: Option<String>,
    head: Option<String>,
    linear: Option<String>,
    projector: Option<String>,
    vision_linear: Option<String>,
    patch_embedding: Option<String>,
}

impl Scheme {
    /// All built-in schemes, from the largest to the smallest.
    pub fn all() -> Vec<Scheme> {
        BUILTIN.iter().map(|(_, text)| Self::parse(text).expect("tests parse every built-in scheme")).collect()
    }

    /// Names of all built-in schemes, from the largest to the smallest.
    pub fn names() -> Vec<&'static str> {
        BUILTIN.iter().map(|(name, _)| *name).collect()
    }

    /// The built-in scheme of this name.
    ///
    /// # Errors
    /// [`Error::Unknown`], which lists all.
    pub fn builtin(name: &str) -> Result<Scheme, Error> {
        match BUILTIN.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(text),
            None => Err(Error::Unknown { name: name.to_owned(), known: Self::names() }),
        }
    }

    /// Reads a scheme from the text of its file.
    ///
    /// # Errors
    /// Says which key is missing, unknown or wrong.
    pub fn parse(toml: &str) -> Result<Scheme, Error> {
        let Text { name, summary, kv, formats } = toml::from_str(toml)?;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if name.is_empty() || name.len() > 32 || !name.bytes().all(plain) {
            return Err(Error::Name(name));
        }
        if kv == FloatType::Bf16 {
            return Err(Error::Bf16 { scheme: name, key: "kv".to_owned() });
        }
        let missing = formats.missing();
        if !missing.is_empty() {
            return Err(Error::MissingFormats { scheme: name, missing });
        }
        let format = |key, text: Option<String>| parse_format(&name, key, &text.unwrap_or_default());
        Ok(Scheme {
            embedding: format("embedding", formats.embedding)?,
            head: format("head", formats.head)?,
            linear: format("linear", formats.linear)?,
            projector: format("projector", formats.projector)?,
            vision_linear: format("vision_linear", formats.vision_linear)?,
            patch_embedding: format("patch_embedding", formats.patch_embedding)?,
            summary,
            kv,
            name,
        })
    }

    /// The format of tensors with this role; [`Role::Vector`] is always f32.
    pub fn format(&self, role: Role) -> Format {
        match role {
            Role::Embedding => self.embedding,
            Role::Head => self.head,
            Role::Linear => self.linear,
            Role::Projector => self.projector,
            Role::VisionLinear => self.vision_linear,
            Role::PatchEmbedding => self.patch_embedding,
            Role::Vector => Format::Plain(FloatType::F32),
        }
    }

    /// This scheme with the formats that `choose` gives, under another name.
    pub fn with_formats(&self, name: &str, choose: impl Fn(Role) -> Format) -> Scheme {
        Scheme {
            name: name.to_owned(),
            summary: self.summary.clone(),
            kv: self.kv,
            embedding: choose(Role::Embedding),
            head: choose(Role::Head),
            linear: choose(Role::Linear),
            projector: choose(Role::Projector),
            vision_linear: choose(Role::VisionLinear),
            patch_embedding: choose(Role::PatchEmbedding),
        }
    }

    /// Stored bits for each weight of the language model's linear layers, scales and unused bits included, where rows
    /// are whole groups. Padding adds to it: see [`Format::bits_per_weight`].
    pub fn bits_per_weight(&self) -> f64 {
        let whole_groups = match self.linear {
            Format::Plain(_) => 1,
            Format::Grouped(grouped) => grouped.group,
        };
        self.linear.bits_per_weight(whole_groups)
    }
}

impl Formats {
    fn missing(&self) -> Vec<&'static str> {
        [
            ("embedding", &self.embedding),
            ("head", &self.head),
            ("linear", &self.linear),
            ("projector", &self.projector),
            ("vision_linear", &self.vision_linear),
            ("patch_embedding", &self.patch_embedding),
        ]
        .into_iter()
        .filter_map(|(key, format)| format.is_none().then_some(key))
        .collect()
    }
}

fn parse_format(scheme: &str, key: &'static str, text: &str) -> Result<Format, Error> {
    let format: Format = text.parse().map_err(|source| Error::Format { scheme: scheme.to_owned(), key, source })?;
    let float = match format {
        Format::Plain(float) => float,
        Format::Grouped(grouped) => grouped.scale,
    };
    if float == FloatType::Bf16 {
        return Err(Error::Bf16 { scheme: scheme.to_owned(), key: format!("formats.{key}") });
    }
    Ok(format)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use expect_test::{Expect, expect};

    use super::*;

    const ROLES: [Role; 7] = [
        Role::Embedding,
        Role::Head,
        Role::Linear,
        Role::Projector,
        Role::VisionLinear,
        Role::PatchEmbedding,
        Role::Vector,
    ];

    /// Every choice of every scheme on one page.
    #[test]
    fn what_each_scheme_does() {
        let mut table = String::new();
        for scheme in Scheme::all() {
            write!(table, "{:10} {:4} kv {} |", scheme.name, scheme.bits_per_weight(), scheme.kv).unwrap();
            for role in ROLES {
                write!(table, " {}", scheme.format(role)).unwrap();
            }
            table.push('\n');
        }
        expect![[r#"
            q0f32        32 kv f32 | f32 f32 f32 f32 f32 f32 f32
            q0f16        16 kv f16 | f16 f16 f16 f16 f16 f16 f32
            q8f16_1     8.5 kv f16 | q8g32f16 q8g32f16 q8g32f16 q8g32f16 q8g32f16 f16 f32
            q6f16_1     6.5 kv f16 | q6g32f16 q6g32f16 q6g32f16 q8g32f16 q8g32f16 f16 f32
            q5f16_min     6 kv f16 | q5g32f16m q5g32f16m q5g32f16m q8g32f16 q8g32f16 f16 f32
            q5f16_1     5.5 kv f16 | q5g32f16 q5g32f16 q5g32f16 q8g32f16 q8g32f16 f16 f32
            q4f32_1       5 kv f32 | q4g32f32 q4g32f32 q4g32f32 q8g32f32 q8g32f32 f32 f32
            q4f16_min     5 kv f16 | q4g32f16m q4g32f16m q4g32f16m q8g32f16 q8g32f16 f16 f32
            q4f16_1     4.5 kv f16 | q4g32f16 q4g32f16 q4g32f16 q8g32f16 q8g32f16 f16 f32
            q4f16_asym 4.25 kv f16 | q4g128f16z q4g128f16z q4g128f16z q8g32f16 q8g32f16 f16 f32
            q3f16_1     3.6 kv f16 | q3g40f16 q3g40f16 q3g40f16 q8g32f16 q8g32f16 f16 f32
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn builtin_finds_each() {
        for scheme in Scheme::all() {
            assert_eq!(Scheme::builtin(&scheme.name).unwrap(), scheme);
        }
    }

    /// MLC LLM's registry (`python/mlc_llm/quantization/quantization.py`) gives these names the same bits, groups and
    /// scales; the figures are for rows of Qwen2-0.5B, Gemma-2B and SigLIP.
    #[test]
    fn bits_per_weight_of_real_rows() {
        let table = [
            (896, 4.5, 5.0, 3.696),
            (4864, 4.5, 5.0, 3.612),
            (2048, 4.5, 5.0, 3.656),
            (16384, 4.5, 5.0, 3.604),
            (1152, 4.5, 5.0, 3.625),
            (4304, 4.517, 5.019, 3.613),
        ];
        for (k, q4f16, q4f32, q3f16) in table {
            for (name, expected) in [("q4f16_1", q4f16), ("q4f32_1", q4f32), ("q3f16_1", q3f16)] {
                let found = Scheme::builtin(name).unwrap().format(Role::Linear).bits_per_weight(k);
                assert!((found - expected).abs() < 1e-3, "{name}, k = {k}: {found}");
            }
        }
    }

    /// `valid` with one line replaced.
    #[track_caller]
    fn check_error(line: &str, replacement: &str, expected: Expect) {
        let valid = include_str!("../q4f16_1.toml");
        assert!(valid.contains(line));
        expected.assert_eq(&Scheme::parse(&valid.replace(line, replacement)).unwrap_err().to_string());
    }

    #[test]
    fn errors_name_the_key() {
        check_error(
            "name = \"q4f16_1\"",
            "name = \"../q4\"",
            expect!["`../q4` is no name for a scheme: use 1 to 32 lowercase letters, digits and underscores"],
        );
        check_error(
            "kv = \"f16\"",
            "kv = \"bf16\"",
            expect!["scheme `q4f16_1`, kv: bf16 is a type of checkpoints; kernels read f16 and f32, use one of these"],
        );
        check_error(
            "kv = \"f16\"",
            "",
            expect![[r#"
            the scheme is not valid TOML of the expected form:
            TOML parse error at line 1, column 1
              |
            1 | # Text weights are stored as MLC LLM's q4f16_1 stores them. The vision tower is small beside the language model and
              | ^
            missing field `kv`
        "#]],
        );
        check_error(
            "kv = \"f16\"",
            "kv = \"f16\"\ngroup = 32",
            expect![[r#"
            the scheme is not valid TOML of the expected form:
            TOML parse error at line 6, column 1
              |
            6 | group = 32
              | ^^^^^
            unknown field `group`, expected one of `name`, `summary`, `kv`, `formats`
        "#]],
        );
        check_error(
            "embedding = \"q4g32f16\"\nhead = \"q4g32f16\"\n",
            "",
            expect!["scheme `q4f16_1`: [formats] lacks embedding, head"],
        );
        check_error(
            "\nlinear = \"q4g32f16\"",
            "\nlinear = \"q3g32f16\"",
            expect![
                "scheme `q4f16_1`, formats.linear: `q3g32f16` is not a storage format: expected f32, f16, bf16, or bits, group and scale type as in q4g32f16 (3, 4, 5, 6 or 8 bits; groups are multiples of 10, 8, 32, 16 or 4 values, up to 4096), with the suffix z for stored zeros, z8 for zero code 8, m for stored minimums"
            ],
        );
        check_error(
            "\nlinear = \"q4g32f16\"",
            "\nlinear = \"q5g40f16\"",
            expect![
                "scheme `q4f16_1`, formats.linear: `q5g40f16` is not a storage format: expected f32, f16, bf16, or bits, group and scale type as in q4g32f16 (3, 4, 5, 6 or 8 bits; groups are multiples of 10, 8, 32, 16 or 4 values, up to 4096), with the suffix z for stored zeros, z8 for zero code 8, m for stored minimums"
            ],
        );
        check_error(
            "\nlinear = \"q4g32f16\"",
            "\nlinear = \"q4g32bf16\"",
            expect![
                "scheme `q4f16_1`, formats.linear: bf16 is a type of checkpoints; kernels read f16 and f32, use one of these"
            ],
        );
        check_error(
            "\nlinear = \"q4g32f16\"",
            "\nlinear = \"q4g32f16\"\nvector = \"f16\"",
            expect![[r#"
            the scheme is not valid TOML of the expected form:
            TOML parse error at line 11, column 1
               |
            11 | vector = "f16"
               | ^^^^^^
            unknown field `vector`, expected one of `embedding`, `head`, `linear`, `projector`, `vision_linear`, `patch_embedding`
        "#]],
        );
    }

    #[test]
    fn unknown_names_get_the_list() {
        expect!["there is no scheme `q4_k_m`; there are q0f32, q0f16, q8f16_1, q6f16_1, q5f16_min, q5f16_1, q4f32_1, q4f16_min, q4f16_1, q4f16_asym, q3f16_1"]
            .assert_eq(&Scheme::builtin("q4_k_m").unwrap_err().to_string());
    }
}
