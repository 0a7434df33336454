//! The schemes that come with the program: the one list in which each `.toml` of this folder is named.

/// Name and text of each scheme, from the largest to the smallest.
pub(crate) const BUILTIN: &[(&str, &str)] = &[
    ("q0f32", include_str!("../q0f32.toml")),
    ("q0f16", include_str!("../q0f16.toml")),
    ("q8f16_1", include_str!("../q8f16_1.toml")),
    ("q6f16_1", include_str!("../q6f16_1.toml")),
    ("q5f16_min", include_str!("../q5f16_min.toml")),
    ("q5f16_1", include_str!("../q5f16_1.toml")),
    ("q4f32_1", include_str!("../q4f32_1.toml")),
    ("q4f16_min", include_str!("../q4f16_min.toml")),
    ("q4f16_1", include_str!("../q4f16_1.toml")),
    ("q4f16_asym", include_str!("../q4f16_asym.toml")),
    ("q3f16_1", include_str!("../q3f16_1.toml")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::Scheme;

    /// A scheme in the folder but not in the list would silently not exist.
    #[test]
    fn list_and_folder_agree() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let in_folder: BTreeSet<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "toml") && !path.ends_with("Cargo.toml"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        let in_list: BTreeSet<String> = BUILTIN.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(in_folder, in_list, "register each .toml of schemes/ in BUILTIN, and nothing else");
        assert_eq!(in_list.len(), BUILTIN.len(), "a scheme is registered twice");
    }

    #[test]
    fn names_are_those_of_the_files_and_the_order_is_by_size() {
        let schemes = Scheme::all();
        for (scheme, (name, text)) in schemes.iter().zip(BUILTIN) {
            assert_eq!(scheme.name, *name);
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{name}.toml"));
            assert_eq!(fs::read_to_string(path).unwrap(), *text, "{name} is registered with another file");
        }
        assert!(schemes.is_sorted_by(|a, b| a.bits_per_weight() >= b.bits_per_weight()));
    }
}
