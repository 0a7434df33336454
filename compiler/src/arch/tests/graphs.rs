//! Graphs of all families: they print and parse, name the tensors they should, and look as they should.

use std::collections::BTreeSet;

use dwindle_schemes::{FloatType, Format};
use expect_test::expect_file;

use super::super::golden::{Memory, config, family, fixture, is_matrix};
use super::super::{Function, GraphOptions, families};
use crate::graph::parse::parse;
use crate::graph::verify::verify;
use crate::graph::{Op, Recipe};

#[test]
fn texts_parse_to_the_same_graphs() {
    for name in &families().map(fixture).collect::<Vec<_>>() {
        let family = family(name, &config(name, "config.json")).unwrap();
        for &function in family.functions() {
            let graph =
                family.graph(function, &|_| "q4g32f16".parse().unwrap(), &GraphOptions { context: 64, taps: true });
            verify(&graph).unwrap_or_else(|error| panic!("{error}"));
            let again = parse(&graph.to_string()).unwrap_or_else(|error| panic!("{error}\n{graph}"));
            assert_eq!(again, graph);
        }
    }
}

/// The tensors of a family are those of its golden checkpoint, and its graphs use them all.
#[test]
fn tensors() {
    for name in &families().map(fixture).collect::<Vec<_>>() {
        let (family, memory) = (family(name, &config(name, "config.json")).unwrap(), Memory::load(name));
        let mut shapes = memory.shapes();
        let mut used = BTreeSet::new();
        for &function in family.functions() {
            let options = GraphOptions { context: 64, taps: false };
            let graph = family.graph(function, &|_| Format::Plain(FloatType::F32), &options);
            for node in &graph.nodes {
                if let Op::Weight(Recipe::Tensor(name)) = &node.op {
                    used.insert(name.clone());
                }
            }
        }
        for spec in family.tensors() {
            assert_eq!(shapes.remove(spec.name.as_str()), Some(spec.shape.as_slice()), "{name}: {}", spec.name);
            assert!(used.remove(&spec.name), "{name}: no graph uses {}", spec.name);
            assert_eq!(is_matrix(spec.role), !is_vector(&spec.name, &spec.shape), "{name}: {}", spec.name);
            assert!(!family.ignored(&spec.name));
        }
        assert_eq!(used, BTreeSet::new(), "{name}");
        for extra in shapes.into_keys() {
            assert!(family.ignored(extra), "{name}: {extra}");
        }
    }
}

fn is_vector(name: &str, shape: &[usize]) -> bool {
    shape.len() == 1 || name.ends_with("position_embedding.weight")
}

/// One layer of the most particular decoder, quantized.
#[test]
fn gemma2_looks_like_this() {
    let mut config = config("gemma2", "config.json");
    config.insert("num_hidden_layers".to_owned(), 1.into());
    let family = family("gemma2", &config).unwrap();
    let graph =
        family.graph(Function::Prefill, &|_| "q4g32f16".parse().unwrap(), &GraphOptions { context: 64, taps: false });
    expect_file!["gemma2_prefill.txt"].assert_eq(&graph.to_string());
}
